"""Placeholder syntax by place by client encoding: the bytes that the upstream got, exactly.

A cell is a whole request. The expected one is written here independently of `src`: with the
standard library's own escapers. The value holds something special to every place. All cells run
through one proxy and, as long as it lives, one connection.
"""

from __future__ import annotations

import gzip
import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote
from xml.sax.saxutils import escape

import pytest

from tests.e2e.main_home import QUOTED, QUOTED_ODD, SPECIAL, SPECIAL_TEXT
from tests.e2e.upstream import Upstream
from tests.e2e.wire import Dial, Wire, request

SYNTAXES = {
    "double": "{{secrets.crm.apiKey}}",
    "double-spaced": "{{  secrets.crm.apiKey }}",
    "singular": "{{secret.crm.apiKey}}",
    "single": "{secrets.crm.apiKey}",
    "urlsafe": "__secrets.crm.apiKey__",
    "quoted": "{{secrets[" + json.dumps(QUOTED) + "]}}",
    "quoted-odd": "{{ secrets[" + json.dumps(QUOTED_ODD, ensure_ascii=False) + "] }}",
}
# With a space or a delimiter inside, these are no URL as they are.
NOT_RAW_IN_PATH = {"double-spaced", "quoted-odd"}
NOT_RAW_IN_FORM = {"quoted-odd"}


# --- how clients encode --------------------------------------------------------------------------


def percent(text: str, kind: str) -> str:
    """Percent-encoded: all but letters and digits, or everything."""
    out = []
    for index, byte in enumerate(text.encode()):
        if kind != "everything" and chr(byte).isalnum() and byte < 128:
            out.append(chr(byte))
            continue
        digits = f"%{byte:02x}"
        if kind == "upper" or (kind in ("mixed", "everything") and index % 2):
            digits = digits.upper()
        out.append(digits)
    return "".join(out)


PERCENT = {
    f"percent-{kind}": lambda text, kind=kind: percent(text, kind)
    for kind in ("upper", "lower", "mixed", "everything")
}


def as_it_is(text: str) -> str:
    return text


def json_raw(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def json_lower(text: str) -> str:
    return "".join(f"\\u{ord(char):04x}" for char in text)


def json_upper(text: str) -> str:
    return "".join(f"\\u{ord(char):04X}" for char in text)


JSON = {"raw": json_raw, "u-lower": json_lower, "u-upper": json_upper}
RAW = {"raw": as_it_is}


# --- places --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a placeholder is put.

    Attributes:
        build: A text at that place -> target, field lines, body; text that is written already.
        written: The value in the escaping of the place.
        encodings: How clients write the placeholder there.
        coded: The body is gzip-coded on its way to the proxy.
    """

    name: str
    build: Callable[[bytes], tuple[bytes, list[bytes], bytes]]
    written: bytes
    encodings: dict[str, Callable[[str], str]]
    no_raw: frozenset[str] = frozenset()
    coded: bool = False


URL_WRITTEN = quote(SPECIAL, safe="").encode()
JSON_WRITTEN = json.dumps(SPECIAL_TEXT, ensure_ascii=False)[1:-1].encode()
XML_WRITTEN = escape(SPECIAL_TEXT, {'"': "&quot;"}).encode()
FORM = {"raw": lambda text: text.replace(" ", "+"), **PERCENT}
CTYPE = b"Content-Type: "


def body(content_type: bytes, around: bytes) -> Callable[[bytes], tuple[bytes, list[bytes], bytes]]:
    """A body *around* with the placeholder at each ``@@``."""
    return lambda text: (b"/echo", [CTYPE + content_type], around.replace(b"@@", text))


def field(line: bytes) -> Callable[[bytes], tuple[bytes, list[bytes], bytes]]:
    return lambda text: (b"/echo", [b"X-Before: 1", line.replace(b"@@", text), b"x-after: 2"], b"")


def target(around: bytes) -> Callable[[bytes], tuple[bytes, list[bytes], bytes]]:
    return lambda text: (around.replace(b"@@", text), [], b"")


def in_basic(
    around: bytes, encode: Callable[[bytes], bytes]
) -> Callable[[bytes], tuple[bytes, list[bytes], bytes]]:
    def build(text: bytes) -> tuple[bytes, list[bytes], bytes]:
        # What coatcheck writes anew is base64 in its ordinary alphabet.
        coded = b64encode if text == SPECIAL else encode
        return b"/echo", [b"Authorization: Basic " + coded(around.replace(b"@@", text))], b""

    return build


def unpadded(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


MULTIPART = (
    b'preamble\r\n--B-1\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\x00 plain\r\n'
    b'--B-1\r\nContent-Disposition: form-data; name="key"\r\n\r\n@@\r\n'
    b'--B-1\r\nContent-Disposition: form-data; name="f"; filename="x.bin"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n\x00\x01{{secrets.crm.apiKey}}\r\n--B-1--\r\n"
)

PLACES = (
    Place("header", field(b"Authorization: Bearer @@"), SPECIAL, RAW),
    Place("own-header", field(b"X-Api-Key: a @@ b"), SPECIAL, RAW),
    Place("basic-password", in_basic(b"user:@@", b64encode), SPECIAL, RAW),
    Place("basic-user", in_basic(b"@@:x-oauth", b64encode), SPECIAL, RAW),
    Place("basic-urlsafe", in_basic(b"\xff\xfe?:@@", unpadded), SPECIAL, RAW),
    Place(
        "query",
        target(b"/echo?b=2&key=@@&a=%2f+1&&b=1&flag"),
        URL_WRITTEN,
        FORM,
        frozenset(NOT_RAW_IN_FORM),
    ),
    Place("query-name", target(b"/echo?@@=1"), URL_WRITTEN, PERCENT),
    Place(
        "path",
        target(b"/echo/a%2Fb/@@/;v=1/c%c3%bc?x"),
        URL_WRITTEN,
        {"raw": as_it_is, **PERCENT},
        frozenset(NOT_RAW_IN_PATH),
    ),
    Place(
        "form",
        body(b"application/x-www-form-urlencoded", b"b=2&key=@@&a=1+1&c=%7e&&"),
        URL_WRITTEN,
        FORM,
        frozenset(NOT_RAW_IN_FORM),
    ),
    Place(
        "json",
        body(b"application/json", b'{ "z":1.0e2 ,"k" : ["\\u0041 @@ /\\/"],\r\n\t"z":[1 ,2 ]}\n'),
        JSON_WRITTEN,
        JSON,
    ),
    Place("json-key", body(b"application/vnd.x+json", b'{"@@":null}'), JSON_WRITTEN, JSON),
    Place("ndjson", body(b"application/x-ndjson", b'{"a":1}\n{"k":"@@"}\n\n'), JSON_WRITTEN, JSON),
    Place(
        "json-gzip",
        body(b"application/json", b'{"k":"@@"}'),
        JSON_WRITTEN,
        JSON,
        coded=True,
    ),
    Place("multipart", body(b'multipart/form-data; boundary="B-1"', MULTIPART), SPECIAL, RAW),
    Place(
        "xml",
        body(b"application/soap+xml", b"<?xml version='1.0'?>\n<a  b='1'><c>@@</c><!-- x --></a>"),
        XML_WRITTEN,
        RAW,
    ),
    Place("xml-attribute", body(b"text/xml", b'<a key="@@"/>'), XML_WRITTEN, RAW),
    Place("text", body(b"text/plain; charset=utf-8", b"\xef\xbb\xbf= @@\r\n\x07"), SPECIAL, RAW),
    Place("no-type", lambda text: (b"/echo", [], b"k=" + text), SPECIAL, RAW),
)


def cells() -> Iterator[tuple[Place, str, str]]:
    for place in PLACES:
        for encoding in place.encodings:
            for syntax in SYNTAXES:
                if encoding != "raw" or syntax not in place.no_raw:
                    yield place, encoding, syntax


CELLS = list(cells())


def test_the_table_is_large_enough() -> None:
    assert len(CELLS) >= 120
    assert {syntax for _, _, syntax in CELLS} == set(SYNTAXES)


@pytest.fixture(scope="module")
def connections(runner: Dial) -> Iterator[list[Wire]]:
    """The one connection; another one where it was closed."""
    kept: list[Wire] = []
    yield kept
    for wire in kept:
        wire.close()


@pytest.mark.parametrize(
    ("place", "encoding", "syntax"),
    [pytest.param(*cell, id="-".join((cell[0].name, *cell[1:]))) for cell in CELLS],
)
def test_cell(
    place: Place,
    encoding: str,
    syntax: str,
    runner: Dial,
    upstream: Upstream,
    connections: list[Wire],
) -> None:
    if not connections:
        connections.append(runner.open_tunnel())
    method = "POST" if place.build(b"")[2] else "GET"
    shown = place.encodings[encoding](SYNTAXES[syntax]).encode()

    try:
        answer = connections[0].ask(as_sent(place, method, shown))
    except OSError:
        connections.clear()
        raise
    if any(value == b"close" for value in answer.all("connection")):
        connections.pop().close()

    assert answer.status == 200, answer.body
    assert upstream.one().bytes == as_received(place, method)
    assert b"********" in answer.body
    for spelling in (SPECIAL, URL_WRITTEN, JSON_WRITTEN, XML_WRITTEN, b64encode(SPECIAL)[:16]):
        assert spelling not in answer.raw


def as_sent(place: Place, method: str, shown: bytes) -> bytes:
    """The request of the client."""
    target, lines, content = place.build(shown)
    if place.coded:
        lines, content = [*lines, b"Content-Encoding: gzip"], gzip.compress(content)
    return request(method, target, *lines, body=content)


def as_received(place: Place, method: str) -> bytes:
    """The request that the upstream gets, body decoded from its framing."""
    target, lines, content = place.build(place.written)
    head = [b"%b %b HTTP/1.1" % (method.encode(), target), b"Host: api.example.test", *lines]
    head.append(b"Accept-Encoding: identity")
    if place.coded:
        head.append(b"Transfer-Encoding: chunked")
    elif content:
        head.append(b"Content-Length: %d" % len(content))
    return b"\r\n".join([*head, b"", content])
