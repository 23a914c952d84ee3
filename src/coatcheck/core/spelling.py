"""How a value may be written in an answer: one table for the scrubber, the tests and the docs.

A service that reflects a value seldom sends it back as it came: it quotes it, escapes it, encodes
it. Each row of `SPELLINGS` turns a value into the byte strings (needles) that stand for it in one
such writing; `core/redact.py` searches for all of them at once. To teach the scrubber a spelling,
add a row (its encoder lives in `core/encodings.py`): the tests go through the rows, and
``docs/scrubbing.md`` is generated from them.

Needles are enumerated, not decoded: a decoder would have to guess where an encoding begins, and
would be fooled by a body that mixes several. So a spelling that mixes its own variants freely
(an escape here and none there) is not found, only the variants that encoders really write. Two
things are left to the search (`core/search.py`), since to enumerate them would take hundreds of
needles: the letter case of hexadecimal digits, and where a long line was broken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from coatcheck.core import encodings
from coatcheck.core.needle import Needle

MIN_VALUE = 4  # bytes; a shorter value stands in every answer, so masking it would garble them all
MIN_NEEDLE = 6  # bytes; a shorter needle would be found by chance. The raw value is exempt
MIN_WRAPPED = 16  # characters; a shorter needle is not looked for in text broken over lines
MIN_WRAPPED_BASE64 = 8  # characters; so that it holds for any value of 8 bytes and more
MIN_LINE = 8  # bytes; shorter lines of a value of several lines are not searched on their own
MAX_WHOLE = 192  # bytes; a longer value or line is searched in pieces
PIECE = 64  # bytes of one piece (up to 6 more, to keep UTF-8 characters whole)
STRIDE = 48  # bytes from one piece to the next; 111 bytes in a row always hold a whole piece
MAX_FULL = 4 * 1024  # bytes; a longer value is searched in the rows marked ``long`` only
MAX_LONG = 64 * 1024  # bytes; a longer value is searched raw only
MAX_SEARCHED = 1024 * 1024  # bytes; a longer value is not searched: 16 MiB would take 3 GB


class TooLong(ValueError):
    """A value is over `MAX_SEARCHED` bytes, so no answer can be scrubbed of it."""


def _same(text: bytes) -> bytes:
    return text


@dataclass(frozen=True, slots=True)
class Spelling:
    """One way to write a value.

    Attributes:
        id: Stable; stands in audit records and metrics.
        words: What it is, for the docs.
        make: A value, or a piece of one, to its needles. May repeat itself.
        run: A match is extended to the whole run of base64 characters around it, because the
            characters at both ends of a match still hold bits of the value.
        long: Searched for values over `MAX_FULL` bytes too: "text" if they are UTF-8 only.
        any_case: Its needles are lower-case hexadecimal digits between other characters; the
            digits are found in upper case too, and mixed.
        wraps: Its needles of this many characters and more are also found broken over lines;
            0: none is.
        dress: How the text that replaces a match is written in this spelling.
    """

    id: str
    words: str
    make: Callable[[bytes], Iterable[bytes]]
    run: bool = False
    long: Literal["always", "text", "never"] = "never"
    any_case: bool = False
    wraps: int = 0
    dress: Callable[[bytes], bytes] = _same


def needles(value: bytes) -> dict[Needle, str]:
    """What to search for to find *value*: each needle with the id of the first row that makes it.

    Empty for a value under `MIN_VALUE` bytes, which cannot be scrubbed.

    Raises:
        TooLong: the value is over `MAX_SEARCHED` bytes.
    """
    if len(value) > MAX_SEARCHED:
        raise TooLong(f"a value over {MAX_SEARCHED} bytes cannot be scrubbed; store it in parts")
    if len(value) < MIN_VALUE:
        return {}
    found: dict[bytes, Spelling] = {}
    wrapped: set[bytes] = set()
    rows = rows_for(value)
    for part in parts(value):
        for row in rows:
            for text in row.make(part):
                if len(text) >= MIN_NEEDLE or text == value:
                    found.setdefault(text, row)
                    if row.wraps and len(text) >= row.wraps:
                        wrapped.add(text)
    return {
        Needle(text, any_case=row.any_case, wraps=text in wrapped and not row.any_case): row.id
        for text, row in found.items()
    }


def rows_for(value: bytes) -> tuple[Spelling, ...]:
    """The rows in which *value* is searched: fewer for a long one, whose needles would be many."""
    if len(value) <= MAX_FULL:
        return SPELLINGS
    if len(value) > MAX_LONG:
        return SPELLINGS[:1]
    kinds = ("always", "text") if _is_text(value) else ("always",)
    return tuple(row for row in SPELLINGS if row.long in kinds)


def parts(value: bytes) -> list[bytes]:
    """*value* whole, or in overlapping pieces; if it holds a line end, its lines too.

    And without the line ends at either end, which a file brings along and a reader strips.
    """
    found = dict.fromkeys(_pieces(value))
    if _LINE_END.search(value):
        found.update(dict.fromkeys(_pieces(value.strip(b"\r\n"))))
        for line in _lines(value):
            if _is_searched(line):
                found.update(dict.fromkeys(_pieces(line)))
    return list(found)


def caught_by_line(value: bytes) -> bool:
    """Whether the lines of *value*, searched one by one, leave less than `MIN_LINE` bytes of it.

    Streams may be scrubbed event by event only if this holds for every value: it may hold an end.
    """
    core = value.strip(b"\r\n")
    if not _LINE_END.search(core):
        return core == value or len(core) >= MIN_NEEDLE
    lines = list(_lines(value))
    missed = [line for line in lines if not _is_searched(line)]
    return len(missed) < len(lines) and sum(map(len, missed)) < MIN_LINE


# --- cutting -------------------------------------------------------------------------------------

_LINE_END = re.compile(rb"[\r\n]+")
_ARMOR = re.compile(rb"-----(?:BEGIN|END) [^\r\n]*-----")


def _lines(value: bytes) -> Iterator[bytes]:
    """The lines of *value* without the white space round them; PEM armour is no secret."""
    for line in _LINE_END.split(value):
        line = line.strip(b" \t")
        if line and not _ARMOR.fullmatch(line):
            yield line


def _is_searched(line: bytes) -> bool:
    return len(line) >= MIN_LINE and len(set(line)) >= 4  # not a rule of dashes


def _pieces(value: bytes) -> Iterator[bytes]:
    if len(value) <= MAX_WHOLE:
        yield value
        return
    for start in (*range(0, len(value) - PIECE, STRIDE), len(value) - PIECE):
        stop = start + PIECE
        while start > 0 and start > stop - PIECE - 3 and _continues(value[start]):
            start -= 1
        limit = min(stop + 3, len(value))
        while stop < limit and _continues(value[stop]):
            stop += 1
        yield value[start:stop]


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _continues(byte: int) -> bool:
    """Whether *byte* is a UTF-8 continuation byte (RFC 3629, section 3)."""
    return byte & 0xC0 == 0x80


# --- the table -----------------------------------------------------------------------------------

RENDERED = "rendered"


def _sent(_: bytes) -> Iterator[bytes]:
    """Nothing: the tokens that were sent come from the request (`core/redact.py`)."""
    return iter(())


SPELLINGS: tuple[Spelling, ...] = (
    Spelling(
        "raw", "the bytes of the value as they are", encodings.raw, long="always", wraps=MIN_WRAPPED
    ),
    Spelling(
        RENDERED,
        "a token that was really sent with the value inside (the base64 of `user:password` in "
        "`Authorization: Basic`), as it was sent and in every spelling of this table",
        _sent,
        run=True,
        wraps=MIN_WRAPPED,
    ),
    Spelling(
        "hex",
        "hexadecimal without separators",
        encodings.hexadecimal,
        any_case=True,
    ),
    Spelling(
        "hex-pairs",
        "hexadecimal, each byte apart: `73:6b`, `73 6b`, `73-6b`, and as `0x73, 0x6b`, "
        "`0x73,0x6b`, `0x73 0x6b`",
        encodings.hex_pairs,
        any_case=True,
    ),
    Spelling(
        "percent-all",
        "percent-encoded, every byte",
        encodings.percent_all,
        any_case=True,
    ),
    Spelling(
        "escaped",
        "every character as `\\xHH`, `\\uHHHH` (the backslash once or twice), `\\u{H}`, or as in "
        "CSS (`\\73 \\6b`, `\\000073`)",
        encodings.escaped,
        any_case=True,
    ),
    Spelling(
        "html-hex",
        "every character as a hexadecimal reference (`&#x73;`), up to four digits wide with zeros",
        encodings.html_hex,
        any_case=True,
    ),
    Spelling(
        "percent",
        "percent-encoded, space as `%20`: all but letters and digits; all but unreserved "
        "characters; and as `encodeURIComponent`, `encodeURI`, Python's `quote`, browsers and path "
        "segments leave them; hex in upper or lower case",
        encodings.percent,
    ),
    Spelling(
        "form",
        "`application/x-www-form-urlencoded`, space as `+`: as browsers, Java, Python, Go and "
        "PHP write it; hex in upper or lower case",
        encodings.form,
        long="text",
    ),
    Spelling(
        "percent-twice",
        "percent-encoded, every byte or what is not unreserved, then once more (`%2541` style: the "
        "`%` became `%25`)",
        encodings.percent_twice,
    ),
    Spelling(
        "json",
        "in a JSON string: what must be escaped in short form or as `\\uXXXX`, `/` as it is or "
        "as `\\/`, non-ASCII as it is or as `\\uXXXX`, the characters that Go, Gson, .NET and PHP "
        "escape besides; hex in lower or upper case",
        encodings.json_string,
        long="text",
    ),
    Spelling("json-twice", "in a JSON string inside a JSON string", encodings.json_twice),
    Spelling(
        "backslash",
        "in a string literal of C, JavaScript, Python or Rust: what is not printable as `\\n`, "
        "`\\r`, `\\t`, `\\xHH`, `\\uXXXX` or `\\u{X}`, quotes escaped or not",
        encodings.backslash,
    ),
    Spelling(
        "octal",
        "every byte as `\\NNN`, or what is not printable ASCII, as C, shells and git write it",
        encodings.octal,
    ),
    Spelling(
        "html",
        "HTML or XML: special characters as named, decimal or hexadecimal references in the "
        "mixtures that common libraries write, non-ASCII as it is or as references; or every "
        "character as a decimal reference, up to five digits wide with zeros",
        encodings.html_text,
    ),
    Spelling(
        "base64",
        "base64, at any of the three alignments, padded or not, inside a longer text; also with "
        "`/` as `\\/`, and with `+` and `/` as JSON, HTML and percent-encoding escape them",
        encodings.base64_std,
        run=True,
        long="always",
        wraps=MIN_WRAPPED_BASE64,
    ),
    Spelling(
        "base64url",
        "base64 with `-` and `_`, at any of the three alignments, padded or not",
        encodings.base64url,
        run=True,
        long="always",
        wraps=MIN_WRAPPED_BASE64,
    ),
    Spelling(
        "base32",
        "base32 in upper case, at any of the five alignments, padded or not, inside a longer text",
        encodings.base32,
        run=True,
    ),
    Spelling(
        "decimal",
        "the bytes as decimal numbers: `115,107`, `115, 107`",
        encodings.decimals,
    ),
    Spelling(
        "quoted-printable",
        "quoted-printable as mail programs write it, and as in a mail's header fields",
        encodings.quoted_printable,
        wraps=MIN_WRAPPED,
    ),
    Spelling(
        "case",
        "all letters in lower case, or all in upper case (ASCII letters)",
        encodings.letter_case,
    ),
    Spelling(
        "latin-1", "UTF-8 text that was taken for Latin-1 and written as UTF-8", encodings.latin1
    ),
    Spelling(
        "utf-16",
        "UTF-16 in either byte order",
        encodings.utf16,
        dress=encodings.dressed("utf-16-le", 1),
    ),
    Spelling(
        "utf-16le",
        "UTF-16, little-endian (text beyond Latin-1)",
        encodings.beyond_latin1("utf-16-le"),
        dress=encodings.dressed("utf-16-le"),
    ),
    Spelling(
        "utf-16be",
        "UTF-16, big-endian (text beyond Latin-1)",
        encodings.beyond_latin1("utf-16-be"),
        dress=encodings.dressed("utf-16-be"),
    ),
    Spelling(
        "utf-32",
        "UTF-32 in either byte order",
        encodings.utf32,
        dress=encodings.dressed("utf-32-le", 3),
    ),
    Spelling(
        "utf-32le",
        "UTF-32, little-endian (text beyond Latin-1)",
        encodings.beyond_latin1("utf-32-le"),
        dress=encodings.dressed("utf-32-le"),
    ),
    Spelling(
        "utf-32be",
        "UTF-32, big-endian (text beyond Latin-1)",
        encodings.beyond_latin1("utf-32-be"),
        dress=encodings.dressed("utf-32-be"),
    ),
)
