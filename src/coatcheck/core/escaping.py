"""How each place of a message writes bytes: undone once to look, done again to put a value in.

Looking needs a map back: a placeholder is found in the decoded bytes, and cut out of the source,
so that everything around it keeps the very bytes that the client sent. Escapes are undone exactly
once (``%257B`` is no brace) and an escape that breaks its rule is plain text, as receivers take it.

Every encoder takes any bytes and either writes them so that the receiver reads exactly these
bytes, or raises `NotRepresentable`. It writes more escapes than it must, never less: what a value
holds can then never end the place that it stands in.
"""

from __future__ import annotations

import json
import re
from binascii import unhexlify
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote_from_bytes

from coatcheck.core.locations import Location
from coatcheck.core.placeholder import Grammar
from coatcheck.core.template import NotRepresentable, Slot


@dataclass(frozen=True, slots=True)
class Decoded:
    """Decoded bytes and where each of them comes from.

    Attributes:
        text: The decoded bytes of ``raw[:end]``.
        end: Below ``len(raw)`` only where an unfinished escape was left for later.
        marks, sources: From ``text[marks[i]]`` on, offsets run along ``raw[sources[i]]``.
    """

    text: bytes
    end: int
    marks: tuple[int, ...] = (0,)
    sources: tuple[int, ...] = (0,)

    def source(self, index: int) -> int:
        """The offset in the source of ``text[index]``; ``end`` for ``len(text)``.

        Exact at the first byte of a character. An escape that stands for several bytes
        (``\\u20ac``) has no place of its own for the others.
        """
        i = bisect_right(self.marks, index) - 1
        return self.sources[i] + index - self.marks[i]


@dataclass(frozen=True, slots=True)
class Escaping:
    """The escaping of one kind of place.

    Attributes:
        decode: ``decode(raw, final)``. With ``final`` False the source goes on, and an escape that
            is cut at its end is left undecoded.
        encode: Writes a value; raises `NotRepresentable`.
        stretch: Bytes of source for one decoded byte, at most.
    """

    name: str
    decode: Callable[[bytes, bool], Decoded]
    encode: Callable[[bytes], bytes]
    stretch: int = 1


def find_slots(
    raw: bytes, grammar: Grammar, escaping: Escaping, location: Location
) -> list[bytes | Slot]:
    """*raw* (whole) with a slot for each placeholder. ``[raw]`` where there is none."""
    pieces, rest = _cut(raw, grammar, escaping, location, final=True)
    if rest or not pieces:
        pieces.append(rest)
    return pieces


def take_slots(
    raw: bytes, grammar: Grammar, escaping: Escaping, location: Location
) -> tuple[list[bytes | Slot], bytes]:
    """The pieces of a *raw* that goes on, and its tail, to be prepended to what comes next.

    The last part goes to `find_slots`. However a source is cut, the pieces joined are the same.
    The tail is shorter than ``MAX_DECODED * stretch``, and an escape.
    """
    return _cut(raw, grammar, escaping, location, final=False)


def _cut(
    raw: bytes, grammar: Grammar, escaping: Escaping, location: Location, *, final: bool
) -> tuple[list[bytes | Slot], bytes]:
    decoded = escaping.decode(raw, final)
    text = decoded.text
    found, until = (grammar.find(text), len(text)) if final else grammar.scan(text)
    pieces: list[bytes | Slot] = []
    done = 0
    for one in found:
        start, end = decoded.source(one.start), decoded.source(one.end)
        if start > done:
            pieces.append(raw[done:start])
        pieces.append(Slot(one.name, location, raw[start:end], escaping.encode))
        done = end
    stop = len(raw) if final else decoded.source(until)
    if stop > done:
        pieces.append(raw[done:stop])
    return pieces, raw[stop:]


# --- decoding --------------------------------------------------------------------------------

# Each has a last alternative for an escape that is cut at the end of what is there so far.
_PERCENT = re.compile(rb"%(?:([0-9A-Fa-f]{2})|[0-9A-Fa-f]?\Z)")
_FORM = re.compile(rb"\+|%(?:([0-9A-Fa-f]{2})|[0-9A-Fa-f]?\Z)")
_JSON = re.compile(
    rb"\\(?:"
    rb"(u[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2})"
    rb"|u[dD][89abAB][0-9A-Fa-f]{2}(?:\\(?:u(?:[dD](?:[c-fC-F][0-9A-Fa-f]?)?)?)?)?\Z"
    rb'|(u[0-9A-Fa-f]{4}|["\\/bfnrt])'
    rb"|(?:u[0-9A-Fa-f]{0,3})?\Z"
    rb")"
)
_JSON_SHORT = {
    b'"': b'"',
    b"\\": b"\\",
    b"/": b"/",
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
}


def decode_raw(raw: bytes, final: bool = True) -> Decoded:
    """Nothing is escaped here: the text is the source."""
    return Decoded(raw, len(raw))


def decode_percent(raw: bytes, final: bool = True) -> Decoded:
    """Percent-encoding (RFC 3986, section 2.1); ``+`` is a plus sign."""
    if b"%" not in raw:
        return Decoded(raw, len(raw))
    return _decode(raw, _PERCENT, _from_percent, final)


def decode_form(raw: bytes, final: bool = True) -> Decoded:
    """application/x-www-form-urlencoded: percent-encoding, and ``+`` is a space."""
    if b"%" not in raw:
        return Decoded(raw.replace(b"+", b" "), len(raw))
    return _decode(raw, _FORM, _from_percent, final)


def decode_json(raw: bytes, final: bool = True) -> Decoded:
    """The inside of a JSON string (RFC 8259, section 7), to UTF-8."""
    if b"\\" not in raw:
        return Decoded(raw, len(raw))
    return _decode(raw, _JSON, _from_json, final)


def _decode(
    raw: bytes,
    escape: re.Pattern[bytes],
    convert: Callable[[re.Match[bytes]], bytes | None],
    final: bool,
) -> Decoded:
    out: list[bytes] = []
    marks, sources = [0], [0]
    done = size = 0  # in the source, in the text
    end = len(raw)
    for match in escape.finditer(raw):
        byte = convert(match)
        if byte is None:  # cut at the end
            if not final:
                end = match.start()
            break
        plain = raw[done : match.start()]
        out += (plain, byte)
        done = match.end()
        size += len(plain) + len(byte)
        if len(byte) != match.end() - match.start():
            marks.append(size)
            sources.append(done)
    out.append(raw[done:end])
    return Decoded(b"".join(out), end, tuple(marks), tuple(sources))


def _from_percent(match: re.Match[bytes]) -> bytes | None:
    if match[0] == b"+":
        return b" "
    digits: bytes | None = match[1]
    return None if digits is None else unhexlify(digits)


def _from_json(match: re.Match[bytes]) -> bytes | None:
    pair, single = match[1], match[2]
    if pair is not None:
        text = json.loads(b'"' + match[0] + b'"')
        return str(text).encode("utf-8")
    if single is None:
        return None
    if len(single) == 1:
        return _JSON_SHORT[single]
    # Half a surrogate pair is kept apart from every real character.
    return chr(int(single[1:], 16)).encode("utf-8", "surrogatepass")


# --- encoding --------------------------------------------------------------------------------

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Line ends and tabs are written as references: XML parsers turn CR into LF (XML 1.0, section
# 2.11), and all three into spaces inside attributes (section 3.3.3).
_XML = {
    ord(char): written
    for char, written in {
        "&": "&amp;",
        "<": "&lt;",
        ">": "&gt;",
        '"': "&quot;",
        "'": "&#39;",
        "\t": "&#9;",
        "\n": "&#10;",
        "\r": "&#13;",
    }.items()
}
# Valid in JSON, but line ends to older JavaScript (ECMA-262, JSON superset).
_JS_LINE_ENDS = {0x2028: "\\u2028", 0x2029: "\\u2029"}


def encode_raw(value: bytes) -> bytes:
    """The bytes as they are."""
    return value


def encode_header(value: bytes) -> bytes:
    """The bytes as they are (RFC 9110, section 5.5), 0x80-0xff too.

    Raises:
        NotRepresentable: CR, LF, NUL or another control character, which could end the field; a
            space at an end, which a receiver would strip.
    """
    if _CONTROL.search(value):
        raise NotRepresentable("the value has a control character, which no header can hold")
    if value.strip(b" ") != value:
        raise NotRepresentable("the value begins or ends with a space, which a header would lose")
    return value


def encode_path(value: bytes) -> bytes:
    """Percent-encoded but for the unreserved characters; ``/`` too (RFC 3986, section 2.3).

    Raises:
        NotRepresentable: ``.`` and ``..``: a segment of that name is resolved away, however it is
            written (RFC 3986, section 6.2.2.3).
    """
    if value in (b".", b".."):
        raise NotRepresentable("the value is a dot segment, which a path cannot hold")
    return encode_form(value)


def encode_form(value: bytes) -> bytes:
    """Percent-encoded but for the unreserved characters. Space is ``%20``: right everywhere."""
    return quote_from_bytes(value, safe="").encode("ascii")


def encode_json(value: bytes) -> bytes:
    """The inside of a JSON string. Non-ASCII characters stay UTF-8.

    Raises:
        NotRepresentable: not UTF-8; JSON has no other bytes.
    """
    written = json.dumps(_utf8(value, "JSON"), ensure_ascii=False)[1:-1]
    return written.translate(_JS_LINE_ENDS).encode("utf-8")


def encode_xml(value: bytes) -> bytes:
    """XML character data, for text and for attributes in either quotes.

    Raises:
        NotRepresentable: not UTF-8, or a character that XML 1.0 (section 2.2) has no way to write.
    """
    text = _utf8(value, "XML")
    if _NOT_XML.search(text):
        raise NotRepresentable("the value has a character that XML cannot hold")
    return text.translate(_XML).encode("utf-8")


def _utf8(value: bytes, place: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        # From None: the original exception holds the value.
        raise NotRepresentable(f"the value is not UTF-8, which {place} needs") from None


RAW = Escaping("raw", decode_raw, encode_raw)
HEADER = Escaping("header", decode_raw, encode_header)
PATH = Escaping("path", decode_percent, encode_path, stretch=3)
FORM = Escaping("form", decode_form, encode_form, stretch=3)
JSON = Escaping("json", decode_json, encode_json, stretch=6)
XML = Escaping("xml", decode_raw, encode_xml)
