"""The writings behind the table of `core/spelling.py`: a value in, what stands for it out.

Each public function yields every variant that some encoder really writes, and may repeat itself.
They take any bytes: a value need not be text, nor UTF-8.
"""

from __future__ import annotations

import base64
import functools
import re
import string
from collections.abc import Callable, Iterable, Iterator

_UPPER, _LOWER = "X", "x"


# --- raw, letter case, Latin-1 -------------------------------------------------------------------


def raw(part: bytes) -> Iterator[bytes]:
    yield part


def letter_case(part: bytes) -> Iterator[bytes]:
    yield part.lower()
    yield part.upper()


def latin1(part: bytes) -> Iterator[bytes]:
    if not part.isascii():
        yield part.decode("latin-1").encode()


def _texts(part: bytes) -> Iterator[tuple[str, str]]:
    """*part* as the texts that a server may take it for, each with the codec it came from.

    Many servers read header bytes as Latin-1 (RFC 9110, section 5.5, has the history).
    """
    try:
        yield part.decode(), "utf-8"
    except UnicodeDecodeError:
        pass
    else:
        if part.isascii():
            return
    yield part.decode("latin-1"), "latin-1"


_TEXT, _GUESS = None, 3  # rows of a table of escapes for text, and for bytes that may be text


# --- percent-encoding ----------------------------------------------------------------------------

_ALNUM = string.ascii_letters + string.digits
_UNRESERVED = _ALNUM + "-._~"  # RFC 3986, section 2.3
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
# What encoders leave as it is, from the strictest to the most lenient.
_KEEP = (
    _ALNUM,
    _UNRESERVED,
    _UNRESERVED + "/",  # Python's urllib.parse.quote
    _UNRESERVED + "!*'()",  # JavaScript's encodeURIComponent
    _UNRESERVED + "!*'();,/?:@&=+$#",  # JavaScript's encodeURI
    _UNRESERVED + "!$&'()*+,;=:@",  # a path segment, RFC 3986, section 3.3
    _UNRESERVED + "!$&'()*+,;=:@/",  # a path
    "".join(c for c in _PRINTABLE if c not in "\"#<>%'"),  # a query as a browser writes it
    "".join(c for c in _PRINTABLE if c not in '"#<>%'),
)
_KEEP_FORM = (
    _ALNUM,
    _ALNUM + "*-._",  # WHATWG URL, application/x-www-form-urlencoded; Java's URLEncoder
    _UNRESERVED,  # Python's quote_plus, Go's QueryEscape
    _ALNUM + "-._",  # PHP's urlencode
)


def percent_all(part: bytes) -> Iterator[bytes]:
    yield _each(part, "%{:02x}")


def percent(part: bytes) -> Iterator[bytes]:
    yield from _percent_tables(part, _KEEP, "%20")


def form(part: bytes) -> Iterator[bytes]:
    if b" " in part:
        yield from _percent_tables(part, _KEEP_FORM, "+")
    else:
        yield from _percent_tables(part, _KEEP_FORM, "%20")


def percent_twice(part: bytes) -> Iterator[bytes]:
    for once in _percent_tables(part, (_UNRESERVED, _UNRESERVED + "!*'()"), "%20"):
        yield once.replace(b"%", b"%25")
    for hexes in _UPPER, _LOWER:
        yield _each(part, f"%25{{:02{hexes}}}")


def _percent_tables(part: bytes, keeps: Iterable[str], space: str) -> Iterator[bytes]:
    for keep in keeps:
        for hexes in _UPPER, _LOWER:
            table = _percent_table(keep, hexes, space)
            yield b"".join([table[byte] for byte in part])


@functools.cache
def _percent_table(keep: str, hexes: str, space: str) -> list[bytes]:
    kept = set(keep.encode())
    table = [bytes([b]) if b in kept else f"%{b:02{hexes}}".encode() for b in range(256)]
    table[0x20] = space.encode()
    return table


def _each(part: bytes, form: str, between: str = "") -> bytes:
    """Every byte of *part* in *form*."""
    return between.join(map(form.format, part)).encode()


# --- JSON, and the backslash escapes of other languages ------------------------------------------

_SHORT = {8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}
_SLASH = {47: "\\/"}


@functools.cache
def _json_tables(hexes: str) -> tuple[dict[int, str], ...]:
    """What JSON writers escape (RFC 8259, section 7), for `str.translate`."""

    def spelt(chars: str) -> dict[int, str]:
        return {ord(c): f"\\u{ord(c):04{hexes}}" for c in chars}

    controls = spelt("".join(map(chr, range(0x20))))
    plain = {**controls, **_SHORT}
    return (
        plain,
        {**plain, **_SLASH},  # PHP, and Java's org.json
        {**controls, 34: '\\"', 92: "\\\\"},
        {**plain, **spelt("<>&")},  # Go
        {**plain, **spelt("<>&'=")},  # Gson
        {**plain, **spelt("<>&'+\"`\x7f")},  # .NET's System.Text.Json
        {**plain, **spelt("<>&'\""), **_SLASH},  # PHP with JSON_HEX_*
        {**controls, **spelt("\"\\<>&'/")},  # everything that is special anywhere
    )


def json_string(part: bytes) -> Iterator[bytes]:
    for text, codec in _texts(part):
        for hexes in _LOWER, _UPPER:
            for table in _json_tables(hexes)[: _TEXT if codec == "utf-8" else _GUESS]:
                escaped = text.translate(table)
                yield escaped.encode(codec)
                yield _ascii(escaped, hexes)


def json_twice(part: bytes) -> Iterator[bytes]:
    """JSON inside a JSON string."""
    for text, codec in _texts(part):
        for hexes in _LOWER, _UPPER:
            for table in _json_tables(hexes)[:2]:
                once = text.translate(table)
                yield once.translate(table).encode(codec)
                yield _ascii(once, hexes).decode().translate(table).encode()


def _ascii(text: str, hexes: str) -> bytes:
    return _NOT_PLAIN.sub(
        lambda m: "".join(f"\\u{unit:04{hexes}}" for unit in _units(m[0])), text
    ).encode()


_NON_ASCII = re.compile(r"[^\x00-\x7f]")
_NOT_PLAIN = re.compile(r"[^\x00-\x7e]")  # Python's json escapes DEL too


def _units(text: str) -> Iterator[int]:
    """The UTF-16 code units of *text*: what ``\\u`` escapes count in."""
    coded = text.encode("utf-16-be")
    return (coded[i] << 8 | coded[i + 1] for i in range(0, len(coded), 2))


def backslash(part: bytes) -> Iterator[bytes]:
    for hexes in _LOWER, _UPPER:
        for quotes in "", "'", '"', "'\"":
            table = _backslash_table(quotes, hexes)
            yield b"".join([table[byte] for byte in part])
    for text, codec in _texts(part):  # a string literal that keeps its letters
        for quotes in "'", "'\"":
            table_ = {**_SHORT, 34: '"', **{ord(q): f"\\{q}" for q in quotes}}
            yield text.translate(table_).encode(codec)
            yield _ascii(text.translate(table_), _LOWER)
            if not text.isascii():  # Rust, Swift, newer JavaScript
                for form in "\\u{{{:x}}}", "\\u{{{:X}}}":
                    yield _NON_ASCII.sub(_reference(form), text.translate(table_)).encode()
        for write in ascii, repr:  # Python's own, which quotes as the whole text needs it
            literal = "".join([write(char)[1:-1] for char in text])
            yield literal.encode(codec)
            yield literal.replace("'", "\\'").encode(codec)


def escaped(part: bytes) -> Iterator[bytes]:
    """Every character as an escape of hexadecimal digits, in the languages that have one."""
    yield _each(part, "\\x{:02x}")
    yield _each(part, "\\{:x}", " ")  # CSS; the blank ends the digits, so the last needs none
    yield _each(part, "\\{:06x}")
    for text, _ in _texts(part):
        yield _each_unit(text, "\\u{:04x}")
        yield _each_unit(text, "\\\\u{:04x}")
        yield "".join(map("\\u{{{:x}}}".format, map(ord, text))).encode()


def _each_unit(text: str, form: str) -> bytes:
    return "".join(map(form.format, _units(text))).encode()


def octal(part: bytes) -> Iterator[bytes]:
    """Every byte, or what is not printable ASCII, in three octal digits: C, shells, git."""
    yield _each(part, "\\{:03o}")
    for quotes in "", '"', "'":
        table = _octal_table(quotes)
        yield b"".join([table[byte] for byte in part])


@functools.cache
def _octal_table(quotes: str) -> list[bytes]:
    table = _backslash_table(quotes, _LOWER)
    return [
        f"\\{byte:03o}".encode() if spelt.startswith(b"\\x") else spelt
        for byte, spelt in enumerate(table)
    ]


@functools.cache
def _backslash_table(quotes: str, hexes: str) -> list[bytes]:
    """C, JavaScript and Python string literals: printable ASCII stays, the rest is ``\\xHH``."""
    table = [bytes([b]) if 0x20 <= b < 0x7F else f"\\x{b:02{hexes}}".encode() for b in range(256)]
    for char, escape in {**{q: f"\\{q}" for q in quotes}, "\\": "\\\\"}.items():
        table[ord(char)] = escape.encode()
    for char, escape in {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.items():
        table[ord(char)] = escape.encode()
    return table


# --- HTML and XML --------------------------------------------------------------------------------

_AMP = {38: "&amp;", 60: "&lt;", 62: "&gt;"}
_QUOT = {**_AMP, 34: "&quot;"}
_NUMBERS = "&<>\"'"
_HTML_TABLES: tuple[dict[int, str], ...] = (
    _AMP,
    {**_QUOT, 39: "&#39;"},
    _QUOT,
    {38: "&amp;", 60: "&lt;"},
    {**_QUOT, 39: "&#039;"},  # PHP's htmlspecialchars
    {**_QUOT, 39: "&#x27;"},  # Python's html.escape
    {**_QUOT, 39: "&apos;"},
    {**_AMP, 34: "&#34;", 39: "&#39;"},  # Go
    {**_QUOT, 39: "&#39;", 96: "&#x60;", 61: "&#x3D;"},  # Handlebars
    {**_QUOT, 39: "&#39;", 47: "&#x2F;", 96: "&#x60;", 61: "&#x3D;"},  # Mustache
    {**_QUOT, 9: "&#9;", 10: "&#10;", 13: "&#13;"},  # an XML attribute
    {**_QUOT, 9: "&#x9;", 10: "&#xA;", 13: "&#xD;"},
    {ord(c): f"&#{ord(c)};" for c in _NUMBERS},
    {ord(c): f"&#x{ord(c):x};" for c in _NUMBERS},
    {ord(c): f"&#x{ord(c):X};" for c in _NUMBERS},
)


def html_text(part: bytes) -> Iterator[bytes]:
    for text, codec in _texts(part):
        for table in _HTML_TABLES[: _TEXT if codec == "utf-8" else _GUESS]:
            escaped = text.translate(table)
            yield escaped.encode(codec)
            if not escaped.isascii():
                for form in "&#{:d};", "&#x{:x};", "&#x{:X};":
                    yield _NON_ASCII.sub(_reference(form), escaped).encode()
        for width in 1, 3, 4, 5:
            yield "".join([f"&#{ord(char):0{width}};" for char in text]).encode()


def html_hex(part: bytes) -> Iterator[bytes]:
    """Every character as a hexadecimal reference, with zeros in front or without."""
    for text, _ in _texts(part):
        for mark in "xX":
            for width in 1, 2, 3, 4:
                yield "".join([f"&#{mark}{ord(char):0{width}x};" for char in text]).encode()


def _reference(form: str) -> Callable[[re.Match[str]], str]:
    return lambda match: form.format(ord(match[0]))


# --- base64, base32 ------------------------------------------------------------------------------


def base64_std(part: bytes) -> Iterator[bytes]:
    for core in _cores(part, 3, 6, base64.b64encode):
        yield core
        yield core.replace(b"/", b"\\/")  # inside JSON as PHP writes it
        yield core.replace(b"+", b"\\u002B")  # inside JSON as .NET does
        yield core.replace(b"+", b"\\u002b").replace(b"/", b"\\u002f")
        yield core.replace(b"+", b"&#43;").replace(b"/", b"&#47;")  # inside HTML
        yield core.replace(b"+", b"&#x2B;").replace(b"/", b"&#x2F;")
        yield core.replace(b"+", b"&#x2B;")
        yield core.replace(b"+", b"%2B").replace(b"/", b"%2F")
        yield core.replace(b"+", b"%2b").replace(b"/", b"%2f")
        yield core.replace(b"+", b"%2B")


def base64url(part: bytes) -> Iterator[bytes]:
    return _cores(part, 3, 6, base64.urlsafe_b64encode)


def base32(part: bytes) -> Iterator[bytes]:
    return _cores(part, 5, 5, base64.b32encode)


def _cores(part: bytes, group: int, bits: int, encode: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """The characters that do not depend on what stands round *part*, for each alignment.

    base64 turns 3 bytes into 4 characters of 6 bits. Where *part* begins 0, 1 or 2 bytes into a
    group, its first character may hold bits of what comes before, and its last one bits of what
    comes after; those between are the same in every context. (Encoding ``part[1:]`` and
    ``part[2:]`` to the end, as some maskers do, misses 4 of the 9 contexts.) So it is with
    base32, of 5 bytes and 8 characters of 5 bits.
    """
    for before in range(group):
        first, last = -(-8 * before // bits), 8 * (before + len(part)) // bits
        yield encode(bytes(before) + part)[first:last]


# --- hexadecimal and decimal numbers -------------------------------------------------------------


def hexadecimal(part: bytes) -> Iterator[bytes]:
    yield part.hex().encode()


def hex_pairs(part: bytes) -> Iterator[bytes]:
    """Pairs of digits with something between them, and lists of numbers of a program's source."""
    for between in ":", " ", "-":
        yield part.hex(between).encode()
    for between in ", ", ",", " ":
        yield _each(part, "0x{:02x}", between)


def decimals(part: bytes) -> Iterator[bytes]:
    """The bytes as a list of numbers: JSON of Node's Buffer, Java's and Go's arrays."""
    for between in ",", ", ":
        yield _each(part, "{:d}", between)


# --- quoted-printable ----------------------------------------------------------------------------

_QP = "".join(c for c in _PRINTABLE if c != "=") + "\t"
_QP_SAFE = "".join(c for c in _QP if c not in '!"#$@[\\]^`{|}~')  # RFC 2045, section 6.7
_Q_WORD = _ALNUM + "!*+-/"  # RFC 2047, section 5 (3)


def quoted_printable(part: bytes) -> Iterator[bytes]:
    for keep, space in (_QP, " "), (_QP, "=20"), (_QP_SAFE, " "), (_Q_WORD, "_"), (_Q_WORD, "=20"):
        table = _percent_table(keep, _UPPER, space)
        yield b"".join([table[b] if len(table[b]) == 1 else b"=" + table[b][1:] for b in part])


# --- UTF-16, UTF-32 ------------------------------------------------------------------------------


def utf16(part: bytes) -> Iterator[bytes]:
    """One needle for both byte orders: ``a 0 b 0 c``, without the outer zero of either.

    It keeps what follows aligned. Two needles would not: the little-endian one also occurs in
    big-endian text, one byte late, and would take a byte of the next character with it.
    """
    return _wide(part, "utf-16-le", 1)


def utf32(part: bytes) -> Iterator[bytes]:
    """As `utf16`: ``a 0 0 0 b 0 0 0 c``."""
    return _wide(part, "utf-32-le", 3)


def _wide(part: bytes, codec: str, zeros: int) -> Iterator[bytes]:
    for text, _ in _texts(part):
        if text and max(text) < "\u0100":
            yield text.encode(codec)[:-zeros]


def beyond_latin1(codec: str) -> Callable[[bytes], Iterator[bytes]]:
    """Writes text that `utf16` and `utf32` leave out, in the byte order of *codec*."""

    def write(part: bytes) -> Iterator[bytes]:
        for text, _ in _texts(part):
            if text and max(text) >= "\u0100":
                yield text.encode(codec)

    return write


def dressed(codec: str, zeros: int = 0) -> Callable[[bytes], bytes]:
    """Writes a replacement in *codec*, without the last *zeros* bytes."""

    def write(text: bytes) -> bytes:
        wide = text.decode().encode(codec)
        return wide[: len(wide) - zeros]

    return write
