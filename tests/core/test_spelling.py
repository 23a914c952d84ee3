"""The table of spellings against encoders that do not share a line with it.

Each case writes a value as some real program would (the standard library's own encoders, or one
spelt out here) and asks the scrubber to take it out again. `test_redact.py` tests the search.
"""

from __future__ import annotations

import base64
import codecs
import html
import json
import quopri
import urllib.parse
from collections import Counter
from collections.abc import Callable
from functools import cache
from xml.sax import saxutils

import pytest

from coatcheck.core import spelling
from coatcheck.core.redact import MASK, Hit, Needles
from coatcheck.core.secret import SecretValue
from tests.long import only_in_long

PEM = (
    b"-----BEGIN PRIVATE KEY-----\n"
    + b"".join(base64.b64encode(bytes(range(n, n + 48))) + b"\n" for n in range(0, 200, 8))
    + b"Qx7Tz2Lm9a==\n-----END PRIVATE KEY-----\n"
)
VALUES = {
    "token": b"sk_live_51HqZ8KJhG2eZvKYlo2C0aBcDeFg",
    "eight bytes": b"hunter2!",
    "quotes": b"""it's "quoted" \\ back\\slash / `tick`""",
    "markup": b"<a href=x>&amp; = 'y' + \"z\"",
    "percent": b"100%25 %41 50%+ ~a*b(c)!",
    "controls": b"tab\there bell\x07 esc\x1b del\x7f end",
    "non-ASCII": "pässwörd-日本-🔑-§".encode(),
    "Latin-1 characters": "clé-dérivée-ñ".encode(),
    "binary": bytes(range(256))[::-7] + b"\x00\xff\xfe\x80\xc0",
    "a placeholder": b"{{secrets.other.name}} and more",
    "two lines": b"first line of it\nsecond line of it",
    "PEM": PEM,
    "base64 with + and /": b"\xfb\xef\xbe\xff\xff\xff\xfb\xef\xbe?>~?>~???",
    "self-overlapping": b"abacabacabac",
}


def text_only(write: Callable[[str], str]) -> Callable[[bytes], bytes | None]:
    """*write* for values that are UTF-8; None, no case, for the others."""

    def encode(value: bytes) -> bytes | None:
        try:
            return write(value.decode()).encode()
        except UnicodeDecodeError:
            return None

    return encode


def quoted(write: Callable[[str], str]) -> Callable[[bytes], bytes | None]:
    """As `text_only`, without the quotes that *write* puts round it."""
    return text_only(lambda text: write(text)[1:-1])


def percent_all(form: str) -> Callable[[bytes], bytes]:
    return lambda value: "".join(form.format(b) for b in value).encode()


def lower_hex(text: str) -> str:
    """Percent-escapes of *text* with lower-case hex digits."""
    parts = text.split("%")
    return parts[0] + "".join("%" + part[:2].lower() + part[2:] for part in parts[1:])


def quote(safe: str) -> Callable[[bytes], bytes]:
    return lambda value: urllib.parse.quote_from_bytes(value, safe=safe).encode()


def units(text: str, form: str) -> str:
    wide = text.encode("utf-16-be")
    return "".join(form.format(wide[i] * 256 + wide[i + 1]) for i in range(0, len(wide), 2))


def dotnet_json(text: str) -> str:
    """System.Text.Json's default encoder, without the quotes."""
    out = json.dumps(text)[1:-1].replace('\\"', "\\u0022")
    for char in "<>&'+`\x7f":
        out = out.replace(char, f"\\u{ord(char):04X}")
    return "\\u".join(
        part if i == 0 else part[:4].upper() + part[4:] for i, part in enumerate(out.split("\\u"))
    )


def go_json(text: str) -> str:
    out = json.dumps(text, ensure_ascii=False)[1:-1]
    for char in "<>&":
        out = out.replace(char, f"\\u{ord(char):04x}")
    return out


def java_form(text: str) -> str:
    """java.net.URLEncoder."""
    return urllib.parse.quote_plus(text, safe="*").replace("~", "%7E")


def wide(codec: str) -> Callable[[bytes], bytes | None]:
    def encode(value: bytes) -> bytes | None:
        try:
            return value.decode().encode(codec)
        except UnicodeDecodeError:
            return None

    return encode


def mixed(write: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """*write* with every other letter A to F in upper case."""

    def encode(value: bytes) -> bytes:
        text = bytearray(write(value))
        for at in [at for at, byte in enumerate(text) if byte in b"abcdef"][::2]:
            text[at] -= 32
        return bytes(text)

    return encode


def mail(value: bytes) -> bytes | None:
    """Python's quoted-printable, if that breaks no line: soft ends are tested on their own."""
    text = quopri.encodestring(value)
    return None if b"\n" in text else text


def git_quoted(value: bytes) -> bytes:
    """As git shows a path: octal, quotes and backslashes escaped."""
    short = {9: "\\t", 10: "\\n", 13: "\\r", 34: '\\"', 92: "\\\\"}
    return "".join(
        short.get(b) or (chr(b) if 0x20 <= b < 0x7F else f"\\{b:03o}") for b in value
    ).encode()


WRITERS: list[tuple[str, str, Callable[[bytes], bytes | None]]] = [
    ("raw", "as it is", lambda value: value),
    ("percent-all", "upper hex", percent_all("%{:02X}")),
    ("percent-all", "lower hex", percent_all("%{:02x}")),
    ("percent", "RFC 3986 unreserved", quote("")),
    ("percent", "the same, lower hex", lambda v: lower_hex(quote("")(v).decode()).encode()),
    ("percent", "urllib.parse.quote", quote("/")),
    ("percent", "encodeURIComponent", quote("!*'()")),
    ("percent", "encodeURI", quote("!*'();,/?:@&=+$#")),
    ("percent", "path segment", quote("!$&'()*+,;=:@")),
    ("form", "quote_plus", text_only(urllib.parse.quote_plus)),
    ("form", "quote_plus, lower hex", text_only(lambda t: lower_hex(urllib.parse.quote_plus(t)))),
    ("form", "java.net.URLEncoder", text_only(java_form)),
    ("percent-twice", "quote of quote", lambda v: quote("")(quote("")(v))),
    ("json", "json.dumps", quoted(json.dumps)),
    ("json", "json.dumps, UTF-8", quoted(lambda t: json.dumps(t, ensure_ascii=False))),
    ("json", "escaped slash", quoted(lambda t: json.dumps(t).replace("/", "\\/"))),
    ("json", "Go", text_only(go_json)),
    ("json", ".NET", text_only(dotnet_json)),
    ("escaped", "all \\u, lower hex", text_only(lambda t: units(t, "\\u{:04x}"))),
    ("escaped", "all \\u, upper hex", text_only(lambda t: units(t, "\\u{:04X}"))),
    ("json", "bytes read as Latin-1", lambda v: json.dumps(v.decode("latin-1"))[1:-1].encode()),
    ("json-twice", "dumps of dumps", text_only(lambda t: json.dumps(json.dumps(t))[3:-3])),
    ("backslash", "repr of bytes", lambda v: repr(v)[2:-1].encode()),
    ("backslash", "ascii of str", text_only(lambda t: "".join(ascii(c)[1:-1] for c in t))),
    ("escaped", "all \\x, lower hex", percent_all("\\x{:02x}")),
    ("escaped", "all \\x, upper hex", percent_all("\\x{:02X}")),
    ("html", "html.escape", text_only(html.escape)),
    ("html", "html.escape, no quotes", text_only(lambda t: html.escape(t, quote=False))),
    ("html", "sax escape", text_only(saxutils.escape)),
    (
        "html",
        "PHP htmlspecialchars",
        text_only(lambda t: html.escape(t).replace("&#x27;", "&#039;")),
    ),
    (
        "html",
        "ASCII with decimal references",
        lambda v: _decoded(v) and html.escape(_decoded(v)).encode("ascii", "xmlcharrefreplace"),
    ),
    ("html", "all decimal", text_only(lambda t: "".join(f"&#{ord(c)};" for c in t))),
    ("html-hex", "all hex", text_only(lambda t: "".join(f"&#x{ord(c):x};" for c in t))),
    ("hex", "lower", lambda value: value.hex().encode()),
    ("hex", "upper", lambda value: value.hex().upper().encode()),
    ("case", "lower", lambda value: value.lower()),
    ("case", "upper", lambda value: value.upper()),
    ("latin-1", "taken for Latin-1", lambda value: value.decode("latin-1").encode()),
    ("utf-16le", "little-endian", wide("utf-16-le")),
    ("utf-16be", "big-endian", wide("utf-16-be")),
    ("utf-32le", "little-endian", wide("utf-32-le")),
    ("utf-32be", "big-endian", wide("utf-32-be")),
    ("base64", "MIME-free", base64.b64encode),
    ("base64", "escaped slash", lambda v: base64.b64encode(v).replace(b"/", b"\\/")),
    ("base64", "percent-encoded", lambda v: quote("")(base64.b64encode(v).rstrip(b"="))),
    ("base64", ".NET JSON", lambda v: base64.b64encode(v).replace(b"+", b"\\u002B")),
    ("base64", "in HTML", lambda v: base64.b64encode(v).replace(b"+", b"&#x2B;")),
    ("base64url", "urlsafe", base64.urlsafe_b64encode),
    ("base32", "padded", base64.b32encode),
    ("base32", "not padded", lambda v: base64.b32encode(v).rstrip(b"=")),
    ("hex", "mixed case", mixed(lambda v: v.hex().encode())),
    ("hex-pairs", "colons", lambda v: v.hex(":").encode()),
    ("hex-pairs", "colons, upper case", lambda v: v.hex(":").upper().encode()),
    ("hex-pairs", "blanks", lambda v: v.hex(" ").encode()),
    ("hex-pairs", "hyphens, mixed case", mixed(lambda v: v.hex("-").encode())),
    ("hex-pairs", "an array of C", lambda v: ", ".join(map("0x{:02x}".format, v)).encode()),
    ("hex-pairs", "an array of Go", lambda v: ", ".join(map("0x{:02X}".format, v)).encode()),
    ("hex-pairs", "an array without blanks", lambda v: ",".join(map("0x%02x".__mod__, v)).encode()),
    ("percent-all", "mixed case", mixed(percent_all("%{:02x}"))),
    ("percent-twice", "every byte twice", percent_all("%25{:02X}")),
    ("escaped", "all \\x, mixed case", mixed(percent_all("\\x{:02x}"))),
    ("escaped", "all \\u{}", text_only(lambda t: "".join(f"\\u{{{ord(c):x}}}" for c in t))),
    ("escaped", "all \\u in a string in JSON", text_only(lambda t: units(t, "\\\\u{:04X}"))),
    ("escaped", "CSS", lambda v: " ".join(map("\\{:x}".format, v)).encode()),
    ("escaped", "CSS, six digits", percent_all("\\{:06x}")),
    ("html-hex", "upper case", text_only(lambda t: "".join(f"&#X{ord(c):X};" for c in t))),
    ("html-hex", "four digits", text_only(lambda t: "".join(f"&#x{ord(c):04x};" for c in t))),
    ("html", "five digits", text_only(lambda t: "".join(f"&#{ord(c):05d};" for c in t))),
    ("octal", "every byte", percent_all("\\{:03o}")),
    ("octal", "git", git_quoted),
    (
        "decimal",
        "JSON of Node's Buffer",
        lambda v: json.dumps(list(v), separators=(",", ":"))[1:-1].encode(),
    ),
    ("decimal", "JSON of a list", lambda v: json.dumps(list(v))[1:-1].encode()),
    ("quoted-printable", "quopri", mail),
]


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return ""


CASES = [
    pytest.param(name, row, write, id=f"{name}: {row}, {how}")
    for name in VALUES
    for row, how, write in WRITERS
    if write(VALUES[name]) is not None and write(VALUES[name])
]


CODECS = "utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"


@cache
def needles_of(name: str) -> Needles:
    return Needles.build([SecretValue("s", 1, VALUES[name])])


@pytest.mark.parametrize(("name", "row", "write"), CASES)
def test_a_value_is_taken_out_of_every_listed_writing(
    name: str, row: str, write: Callable[[bytes], bytes]
) -> None:
    """And nothing else: what stands round it keeps its bytes."""
    written = write(VALUES[name])

    out = needles_of(name).redact(b"<<[ " + written + b" ]>>")

    marks = {MASK.decode().encode(codec) for codec in CODECS}
    assert out in {b"<<[ " + mark + b" ]>>" for mark in marks}


def test_every_row_of_the_table_has_a_case() -> None:
    tested = {row for row, _, _ in WRITERS} | {spelling.RENDERED, "utf-16", "utf-32"}

    assert tested == {row.id for row in spelling.SPELLINGS}


@pytest.mark.parametrize("name", VALUES)
def test_every_needle_belongs_to_a_row(name: str) -> None:
    rows = {row.id for row in spelling.SPELLINGS}

    assert set(spelling.needles(VALUES[name]).values()) <= rows


@pytest.mark.parametrize("urlsafe", [False, True], ids=["base64", "base64url"])
@pytest.mark.parametrize("padded", [True, False], ids=["padded", "not padded"])
@pytest.mark.parametrize("name", VALUES)
def test_base64_is_found_in_every_context(name: str, padded: bool, urlsafe: bool) -> None:
    """Any 0 to 5 bytes before and after: all nine contexts of the three alignments, twice each."""
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    for before in range(6):
        for after in range(6):
            whole = encode(b"\xa5" * before + VALUES[name] + b"\x5a" * after)
            text = whole if padded else whole.rstrip(b"=")

            assert needles_of(name).redact(b'{"t":"' + text + b'"}') == b'{"t":"' + MASK + b'"}'


def test_the_rest_of_a_base64_run_goes_too() -> None:
    """The characters next to a match still hold bits of the value's first and last bytes."""
    run = base64.b64encode(b"user:" + VALUES["token"] + b" and a long tail" * 20)

    assert needles_of("token").redact(b"Basic " + run + b", next") == b"Basic " + MASK + b", next"


@pytest.mark.parametrize("name", VALUES)
def test_base32_is_found_in_every_context(name: str) -> None:
    """Any 0 to 9 bytes before and after: each of the five alignments, twice."""
    for before in range(10):
        for after in range(10):
            text = base64.b32encode(b"\xa5" * before + VALUES[name] + b"\x5a" * after)

            assert needles_of(name).redact(b'{"t":"' + text + b'"}') == b'{"t":"' + MASK + b'"}'


@pytest.mark.parametrize("encoding", CODECS)
@pytest.mark.parametrize("name", ["token", "Latin-1 characters"])
def test_a_wide_text_stays_readable(name: str, encoding: str) -> None:
    text = f"vor: {VALUES[name].decode()} nach".encode(encoding)

    assert needles_of(name).redact(text).decode(encoding) == "vor: ******** nach"


@pytest.mark.parametrize("bom", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b""])
def test_a_byte_order_mark_does_not_matter(bom: bytes) -> None:
    encoding = "utf-16-be" if bom == codecs.BOM_UTF16_BE else "utf-16-le"
    text = bom + VALUES["token"].decode().encode(encoding)

    assert VALUES["token"][8:16].decode().encode(encoding) not in needles_of("token").redact(text)


# --- lines -----------------------------------------------------------------------------------

LINE_ENDS = {
    "LF": b"\n",
    "CRLF": b"\r\n",
    "LF in JSON": b"\\n",
    "CRLF in JSON": b"\\r\\n",
    "LF in a URL": b"%0A",
    "CRLF in a URL": b"%0d%0a",
    "LF and an indent": b"\n      ",
}
EACH_END = pytest.mark.parametrize("end", LINE_ENDS.values(), ids=LINE_ENDS)


def in_lines(text: bytes, width: int, end: bytes) -> bytes:
    return end.join(text[at : at + width] for at in range(0, len(text), width))


@EACH_END
@pytest.mark.parametrize("width", [64, 76])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("name", ["token", "eight bytes", "binary", "base64 with + and /"])
def test_base64_in_lines_is_found_wherever_they_break(
    name: str, encode: Callable[[bytes], bytes], width: int, end: bytes
) -> None:
    """The value at every place of three lines: no character that holds a bit of it is left."""
    value = VALUES[name]
    for before in range(width * 3 // 4 * 2 + 3):
        whole = encode(b"\xa5" * before + value + b"\x5a" * 90)
        first, last = before * 4 // 3, -(-(before + len(value)) * 4 // 3)

        out = needles_of(name).redact(b"[" + in_lines(whole, width, end) + b"]")

        assert out.count(MASK) == 1
        left, right = (part.replace(end, b"") for part in out[1:-1].split(MASK))
        assert whole.startswith(left)
        assert whole.endswith(right)
        assert len(left) <= first
        assert len(whole) - len(right) >= last


@EACH_END
def test_lines_round_a_value_keep_what_is_not_of_it(end: bytes) -> None:
    text = b'{"a": "x' + end + b'", "b": "' + VALUES["token"] + end + b'", "c": 1}'

    assert needles_of("token").redact(text) == text.replace(VALUES["token"], MASK)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param(b"sk_live_51HqZ8KJ\nhG2eZvKYlo2C0aBcDeFg", True, id="one line end"),
        pytest.param(b"sk_live_51HqZ8KJ=\r\nhG2eZvKYlo2C0aBcDeFg", True, id="a soft one"),
        pytest.param(b"sk_live_51HqZ8KJ\n\nhG2eZvKYlo2C0aBcDeFg", False, id="an empty line"),
        pytest.param(b"sk_live_\n51HqZ8KJ\nhG2eZvKYlo2C0aBcDeFg", False, id="short lines"),
        pytest.param(b"sk_live_51HqZ8KJ hG2eZvKYlo2C0aBcDeFg", False, id="a blank"),
        pytest.param(
            b"sk_live_51HqZ8KJ\n" + b" " * 17 + b"hG2eZvKYlo2C0aBcDeFg", False, id="indent"
        ),
    ],
)
def test_a_value_is_found_over_one_line_end_and_no_more_freely(text: bytes, found: bool) -> None:
    assert needles_of("token").contains(b"<<" + text + b">>") is found


def test_quoted_printable_is_found_over_soft_line_ends() -> None:
    value = VALUES["non-ASCII"]
    for before in range(80):
        text = quopri.encodestring(b"." * before + value + b" and more")

        out = needles_of("non-ASCII").redact(text)

        assert out.replace(b"=\n", b"") == b"." * before + MASK + b" and more"


@pytest.mark.parametrize("size", [16, 17, 40, 100, 192])
def test_a_long_text_is_searched_wherever_a_needle_is_broken(size: int) -> None:
    """One line end at every place of a needle, or as many as lines of 60 characters leave."""
    value = bytes(33 + at * 53 % 90 for at in range(size))
    needles = Needles.build([SecretValue("s", 1, value)])
    long = b"~" * 2000  # a short one is searched anyway
    for needle in spelling.needles(value):
        if needle.wraps and b"=" not in needle.text:  # which is of a line end where one follows
            for at in range(1, len(needle.text)):
                first, rest = needle.text[:at], needle.text[at:]
                once, often = rest, in_lines(rest, 60, b"\n")
                assert needles.contains(long + first + b"\n" + once)
                assert needles.contains(long + first[-60:] + b"\n" + often) or at > 60


# --- lengths -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"", b"a", b"abc"])
def test_a_value_under_four_bytes_is_not_searched(value: bytes) -> None:
    assert spelling.needles(value) == {}


@pytest.mark.parametrize("value", [b"abcd", b"abcde", b"a&c<e>7"])
def test_a_short_value_is_searched_raw_and_in_its_longer_writings(value: bytes) -> None:
    found = spelling.needles(value)

    texts = {needle.text: row for needle, row in found.items()}
    assert texts[value] == "raw"
    assert all(len(text) >= spelling.MIN_NEEDLE for text in texts if text != value)
    assert texts["".join(f"%{b:02x}" for b in value).encode()] == "percent-all"


def test_a_value_of_eight_bytes_is_found_in_base64_at_every_alignment() -> None:
    assert sum(row == "base64" for row in spelling.needles(b"hunter2!").values()) == 3


LONG = b"".join(
    b"%04x" % (n * 40503 % 65536) for n in range(400)
)  # 1600 bytes, no two stretches alike


def test_any_111_bytes_in_a_row_of_a_long_value_hold_a_needle() -> None:
    found = [n.text for n, row in spelling.needles(LONG).items() if row == "raw"]
    reach = spelling.PIECE + spelling.STRIDE - 1

    assert reach == 111
    for start in range(len(LONG) - reach + 1):
        assert any(needle in LONG[start : start + reach] for needle in found)


def test_pieces_keep_the_window_small_and_characters_whole() -> None:
    value = ("日本語🔑é" * 200).encode()

    pieces = spelling.parts(value)

    assert all(spelling.PIECE <= len(piece) <= spelling.PIECE + 6 for piece in pieces)
    assert all(piece.decode() for piece in pieces)


@pytest.mark.parametrize(
    ("row", "write"),
    [
        ("raw", lambda v: v),
        ("form", lambda v: urllib.parse.quote_plus(v).encode()),
        ("json", lambda v: json.dumps(v.decode())[1:-1].encode()),
        ("base64", lambda v: base64.b64encode(b"x" + v)),
        ("base64url", lambda v: base64.urlsafe_b64encode(v + b"x")),
    ],
)
def test_a_value_of_16_kib_is_searched_in_the_rows_for_long_values(
    row: str, write: Callable[[bytes], bytes]
) -> None:
    assert row in {r.id for r in spelling.SPELLINGS if r.long != "never"}
    assert long_needles().redact(b"[ " + write(LONG * 10) + b" ]") == b"[ " + MASK + b" ]"


@cache
def long_needles() -> Needles:
    return Needles.build([SecretValue("s", 1, LONG * 10)])


@pytest.mark.parametrize(
    ("value", "rows"),
    [
        pytest.param(b"v" * 4096, {row.id for row in spelling.SPELLINGS}, id="4 KiB: all"),
        pytest.param(
            b"v" * 4097, {"raw", "form", "json", "base64", "base64url"}, id="text over 4 KiB"
        ),
        pytest.param(b"\xff" * 4097, {"raw", "base64", "base64url"}, id="binary over 4 KiB"),
        pytest.param(b"v" * 65536, {"raw", "form", "json", "base64", "base64url"}, id="64 KiB"),
        pytest.param(b"v" * 65537, {"raw"}, id="over 64 KiB"),
    ],
)
def test_a_long_value_is_searched_in_fewer_rows(value: bytes, rows: set[str]) -> None:
    assert {row.id for row in spelling.rows_for(value)} == rows


@pytest.mark.parametrize(
    "size", [16 * 1024, *(pytest.param(n * 1024, marks=only_in_long) for n in (64, 200))]
)
def test_a_value_of_16_kib_and_more_is_taken_out_whole(size: int) -> None:
    numbers = (b"%06x\xff" % (n * 2654435761 % 2**24) for n in range(size // 7))
    value = b"".join(number + b"\n" * (n % 9 == 8) for n, number in enumerate(numbers))[:size]
    needles = Needles.build([SecretValue("s", 1, value)])

    assert needles.redact(b"<<" + value + b">>") == b"<<" + MASK + b">>"


def test_a_value_over_1_mib_is_refused() -> None:
    """Needles are built before a request goes out, so it fails closed."""
    with pytest.raises(spelling.TooLong, match=r"'big'.*parts"):
        Needles.build([SecretValue("big", 1, b"v" * (spelling.MAX_SEARCHED + 1))])

    assert spelling.needles(b"v" * spelling.MAX_SEARCHED)


# --- lines ---------------------------------------------------------------------------------------


def test_lines_of_eight_bytes_and_more_are_found_alone() -> None:
    lines = [line for line in PEM.splitlines() if b"-----" not in line]

    out = needles_of("PEM").redact(b"\r\n> ".join(lines))

    assert out == b"\r\n> ".join([MASK] * len(lines))


@pytest.mark.parametrize(
    "text",
    [b"-----BEGIN PRIVATE KEY-----", b"-----END PRIVATE KEY-----", b"----------------------------"],
    ids=["armour", "armour", "a rule"],
)
def test_lines_that_are_no_secret_stay(text: bytes) -> None:
    needles = Needles.build([SecretValue("s", 1, PEM + b"\n" + b"-" * 28 + b"\n")])

    assert needles.redact(text) == text


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_the_line_end_that_a_file_brings_along_does_not_hide_the_value(ending: bytes) -> None:
    needles = Needles.build([SecretValue("s", 1, b"pa55wd" + ending)])

    assert needles.redact(b"x=pa55wd;") == b"x=" + MASK + b";"


@pytest.mark.parametrize(
    ("value", "caught"),
    [
        pytest.param(b"no line end at all", True, id="one line"),
        pytest.param(b"abcd", True, id="one short line"),
        pytest.param(b"a token from a file\n", True, id="one line and its end"),
        pytest.param(b"abcd12\n", True, id="a short line and its end, six bytes"),
        pytest.param(b"abcd\n", False, id="a short line and its end, four bytes"),
        pytest.param(PEM, True, id="PEM"),
        pytest.param(b"first line\nshort\n", True, id="a short rest under eight bytes"),
        pytest.param(b"first line\nshort\nother", False, id="short lines of ten bytes together"),
        pytest.param(b"ab\ncd\nef\ngh", False, id="nothing but short lines"),
        pytest.param(b"aaaaaaaaaaaa\nfirst line", False, id="a line that is not searched"),
    ],
)
def test_which_values_may_be_searched_line_by_line(value: bytes, caught: bool) -> None:
    assert spelling.caught_by_line(value) is caught


# --- tokens --------------------------------------------------------------------------------------


def test_a_token_that_was_sent_is_found_where_the_value_inside_is_too_short() -> None:
    token = base64.b64encode(b"me:1234")
    value = SecretValue("pin", 1, b"1234")
    hits: Counter[Hit] = Counter()

    assert Needles.build([value]).redact(token) == token
    out = Needles.build([value], [("pin", token)]).redact(b'["Basic ' + token + b'"]', hits)

    assert out == b'["Basic ' + MASK + b'"]'
    assert hits == {Hit("pin", "rendered"): 1}


def test_a_token_is_found_in_other_spellings() -> None:
    token = base64.b64encode(b"me:1234")  # ends in "==", which a URL escapes
    needles = Needles.build([], [("pin", token)])

    for written in (
        urllib.parse.quote(token).encode(),
        token.hex().encode(),
        base64.b64encode(token),
    ):
        assert needles.redact(b"t: " + written + b".") == b"t: " + MASK + b"."
