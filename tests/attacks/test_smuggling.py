"""SMUG: two parsers that read the same bytes in two ways. One request in, one request out.

What goes out is read again by h11, so that "one request" is not only our own upstream's opinion.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

import h11
import pytest

from tests.attacks.client import Client, accepted, ask, refused, send
from tests.attacks.sites import Scripts, Step
from tests.attacks.stage import ALLOWED, EVIL, KEY_A, VALUES
from tests.attacks.watch import Attempt
from tests.e2e.harness import WORKERS
from tests.e2e.upstream import Received, Upstream
from tests.e2e.wire import request

KEY = "Authorization: Bearer {{secrets.key.a}}"
HOST = f"Host: {ALLOWED}"
SECOND = b"GET /smuggled HTTP/1.1\r\nHost: allowed.test\r\nX: {{secrets.key.a}}\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"
Dialled = Callable[[], list[Attempt]]


def post(*lines: bytes, body: bytes = b"", version: bytes = b"HTTP/1.1") -> bytes:
    head = [b"POST /echo " + version, HOST.encode(), *lines]
    return b"\r\n".join([*head, b"", b""]) + body


def read_again(received: Received) -> None:
    """What the upstream got is exactly one request to h11 too."""
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(received.head + received.raw_body)
    events = []
    while (event := reader.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
        events.append(type(event))
    assert events[0] is h11.Request
    assert events[-1] is h11.EndOfMessage
    assert reader.trailing_data[0] == b""


def at_most_one(upstream: Upstream) -> list[Received]:
    """The requests that went out: none or one, whole, and none of them the hidden one."""
    taken = upstream.take()
    assert len(taken) <= 1, [r.request_line for r in taken]
    for received in taken:
        read_again(received)
        assert b"smuggled" not in received.request_line
    return taken


# --- framing -------------------------------------------------------------------------------------

CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
AMBIGUOUS: dict[str, bytes] = {
    "CL.TE": post(b"Content-Length: 6", CHUNKED, body=b"0\r\n\r\n" + SECOND),
    "TE.CL": post(CHUNKED, b"Content-Length: 4", body=b"5c\r\n" + SECOND + b"\r\n0\r\n\r\n"),
    "CL.CL": post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello" + SECOND),
    "CL.CL, the same": post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"),
    "CL list": post(b"Content-Length: 5, 5", body=b"hello"),
    "CL list that differs": post(b"Content-Length: 5, 6", body=b"hello" + SECOND),
    "TE twice": post(CHUNKED, CHUNKED, body=CHUNKS),
    "TE twice, identity": post(CHUNKED, b"Transfer-Encoding: identity", body=CHUNKS),
    "TE list": post(b"Transfer-Encoding: chunked, identity", body=CHUNKS),
    "TE gzip, chunked": post(b"Transfer-Encoding: gzip, chunked", body=CHUNKS),
    "TE chunked, chunked": post(b"Transfer-Encoding: chunked, chunked", body=CHUNKS),
    "TE with HTTP/1.0": post(CHUNKED, body=CHUNKS, version=b"HTTP/1.0"),
}
CL_VALUES = [b"+5", b"-5", b"0x5", b"5_0", b"5 5", b"5;", b"", b"five", b'"5"', b"5.0", b"\xb25"]
CL_VALUES += [b"1" + b"0" * 20, b"18446744073709551621", b"5\x00", b"5\x0b", b"05 06"]
AMBIGUOUS |= {f"CL {v[:24]!r}": post(b"Content-Length: " + v, body=b"hello") for v in CL_VALUES}
TE_LINES = [
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding\t: chunked",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunkedx",
    b"Transfer-Encoding: x",
    b"Transfer-Encoding:\x0bchunked",
    b"Transfer-Encoding:\x0cchunked",
    b"Transfer-Encoding: chunked\x00",
    b"Transfer-Encoding: \x00chunked",
    b"Transfer-Encoding: chunked\x0b",
    b"Transfer-Encoding: 'chunked'",
    b'Transfer-Encoding: "chunked"',
    b"Transfer-Encoding: chunked;q=1",
    b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding: chunked,",
    b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding: chunked\r\n\t, identity",
    b"Transfer-Encoding:\n chunked",
    b"Transfer-Encoding: chunk\xe9d",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: ",
    b" Transfer-Encoding: chunked",
    b"\tTransfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"X: y\r\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding\x00: chunked",
    b"\x00Transfer-Encoding: chunked",
    b"Transfer-\r\nEncoding: chunked",
    b'"Transfer-Encoding": chunked',
]


@pytest.mark.parametrize("data", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_smug_01_lengths_that_can_be_read_in_two_ways(
    data: bytes, alice: Client, upstream: Upstream
) -> None:
    refused(ask(alice, data), "bad_request")
    assert at_most_one(upstream) == []


@pytest.mark.parametrize("line", TE_LINES, ids=ascii)
@pytest.mark.parametrize("length", [b"", b"Content-Length: 4"], ids=["alone", "with CL"])
def test_smug_02_mutations_of_transfer_encoding(
    line: bytes, length: bytes, alice: Client, upstream: Upstream
) -> None:
    lines = [part for part in (length, line) if part]
    refused(ask(alice, post(*lines, body=b"0\r\n\r\n" + SECOND)), "bad_request")
    assert at_most_one(upstream) == []


# A field of another name is no Transfer-Encoding: it may pass, as long as it frames nothing.
LOOK_ALIKES = [b"Transfer_Encoding: chunked", b"X-Transfer-Encoding: chunked", b"Trans: chunked"]


@pytest.mark.parametrize("line", LOOK_ALIKES)
def test_smug_02_look_alikes_frame_nothing(line: bytes, alice: Client, upstream: Upstream) -> None:
    accepted(ask(alice, post(b"Content-Length: 5", line, body=b"0\r\n\r\n")))
    (received,) = at_most_one(upstream)
    assert received.body == b"0\r\n\r\n"


TWINS = {
    "CL": post(b"Content-Length: 5", body=b"hello"),
    "CL 0": post(b"Content-Length: 0"),
    "chunked": post(CHUNKED, body=CHUNKS),
    "chunked, other letter case": post(b"tRANSFER-eNCODING: ChUnKeD", body=CHUNKS),
    "chunked, spaces before it": post(b"Transfer-Encoding:   chunked", body=CHUNKS),
    "chunk extensions": post(CHUNKED, body=b'5;a=b;c="d"\r\nhello\r\n0\r\n\r\n'),
    "chunk sizes with zeros": post(CHUNKED, body=b"0005\r\nhello\r\n000\r\n\r\n"),
    "hexadecimal in both cases": post(
        CHUNKED, body=b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"
    ),
    "a line before the request": b"\r\n" + post(b"Content-Length: 5", body=b"hello"),
    "leading zeros in CL": post(b"Content-Length: 005", body=b"hello"),
    "trailer": post(CHUNKED, body=b"0\r\nX-T: 1\r\n\r\n"),
}


@pytest.mark.parametrize("data", TWINS.values(), ids=TWINS.keys())
def test_smug_00_what_is_well_formed_goes_through(
    data: bytes, alice: Client, upstream: Upstream
) -> None:
    accepted(ask(alice, data))
    assert len(at_most_one(upstream)) == 1


# --- heads ---------------------------------------------------------------------------------------

HEADS: dict[str, bytes] = {
    "fold": b"X-A: 1\r\n folded",
    "fold by tab": b"X-A: 1\r\n\tfolded",
    "fold in Authorization": b"Authorization: Bearer\r\n {{secrets.key.a}}",
    "fold inside the placeholder": b"Authorization: {{secrets.\r\n key.a}}",
    "fold of the first line": b" X-A: 1",
    "bare CR": b"X-A: 1\rX-B: 2",
    "bare CR at the end": b"X-A: 1\r",
    "bare LF": b"X-A: 1\nX-B: 2",
    "NUL": b"X-A: 1\x002",
    "VT": b"X-A: 1\x0b2",
    "FF": b"X-A: 1\x0c2",
    "ESC": b"X-A: \x1b[2J",
    "DEL": b"X-A: 1\x7f2",
    "BEL": b"X-A: 1\x07",
    "space before the colon": b"X-A : 1",
    "tab before the colon": b"X-A\t: 1",
    "space in the name": b"X A: 1",
    "no colon": b"X-A",
    "empty name": b": 1",
    "name of bytes": b"X-\xe9: 1",
    "name with a NUL": b"X-\x00A: 1",
    "name in quotes": b'"X": 1',
    "name with a parenthesis": b"X(A): 1",
    "name with a slash": b"X/A: 1",
    "name with a brace": b"{{secrets.key.a}}: 1",
}
REQUEST_LINES = [
    b"GET  /echo HTTP/1.1",
    b"GET /echo  HTTP/1.1",
    b" GET /echo HTTP/1.1",
    b"GET\t/echo\tHTTP/1.1",
    b"GET /echo HTTP/1.1 ",
    b"GET /echo x HTTP/1.1",
    b"GET /echo HTTP/1.1 HTTP/1.1",
    b"GET /echo\x0bHTTP/1.1",
    b"GET /e\x00cho HTTP/1.1",
    b"GET /e\rcho HTTP/1.1",
    b"GET /echo\nHTTP/1.1",
    b"GET /e\x7fcho HTTP/1.1",
    b"GET /e#cho HTTP/1.1",
    b"GET /echo",
    b"GET",
    b"G\x00ET /echo HTTP/1.1",
    b"GE T /echo HTTP/1.1",
    b"G(ET /echo HTTP/1.1",
    b"{{secrets.key.a}} /echo HTTP/1.1",
    b"/echo GET HTTP/1.1",
]
VERSIONS = [
    b"HTTP/0.9",
    b"HTTP/1.10",
    b"HTTP/1.2",
    b"HTTP/2",
    b"HTTP/2.0",
    b"HTTP/3.0",
    b"http/1.1",
]
VERSIONS += [
    b"HTTP/1.1x",
    b"HTTP/11",
    b"HTTP/1,1",
    b"HTTP/ 1.1",
    b"HTTP/1.\xb9",
    b"HTTPS/1.1",
    b"X/1.1",
]
VERSIONS += [b"HTTP/01.1", b"HTTP/1.01", b"HTTP/+1.1", b"ICE/1.0", b"RTSP/1.0", b"HTTP/-1.1"]


@pytest.mark.parametrize("line", HEADS.values(), ids=HEADS.keys())
def test_smug_03_04_field_lines(line: bytes, alice: Client, upstream: Upstream) -> None:
    data = b"\r\n".join([b"GET /echo HTTP/1.1", HOST.encode(), line, KEY.encode(), b"", b""])
    refused(ask(alice, data), "bad_request", "location_not_allowed")
    assert at_most_one(upstream) == []


@pytest.mark.parametrize("line", REQUEST_LINES, ids=repr)
def test_smug_05_request_lines(line: bytes, alice: Client, upstream: Upstream) -> None:
    data = b"\r\n".join([line, HOST.encode(), KEY.encode(), b"", b""])
    refused(ask(alice, data), "bad_request", "location_not_allowed")
    assert at_most_one(upstream) == []


@pytest.mark.parametrize("version", VERSIONS, ids=repr)
def test_smug_09_versions(version: bytes, alice: Client, upstream: Upstream) -> None:
    data = b"\r\n".join([b"GET /echo " + version, HOST.encode(), KEY.encode(), b"", b""])
    refused(ask(alice, data), "bad_request")
    assert at_most_one(upstream) == []


@pytest.mark.parametrize("lines", [b"", b"Connection: keep-alive\r\n"], ids=["plain", "keep-alive"])
def test_smug_09_http_1_0(lines: bytes, alice: Client, upstream: Upstream) -> None:
    """It works; what goes upstream is ours."""
    data = b"GET /echo HTTP/1.0\r\nHost: allowed.test\r\n" + lines + KEY.encode() + b"\r\n\r\n"
    accepted(ask(alice, data))
    (received,) = at_most_one(upstream)
    assert received.request_line == b"GET /echo HTTP/1.1"


# --- chunks --------------------------------------------------------------------------------------

CHUNK_LINES = [
    b"5\n",
    b"5\r",
    b"5 \n",
    b"+5\r\n",
    b"-5\r\n",
    b"0x5\r\n",
    b"5_\r\n",
    b"0_5\r\n",
    b"\r\n",
]
CHUNK_LINES += [
    b"g\r\n",
    b" 5\r\n",
    b"5;\x00\r\n",
    b"5;a\rb\r\n",
    b"5;a\nb\r\n",
    b"5 5\r\n",
    b"5,\r\n",
]
CHUNK_LINES += [
    b"00000000000000005\r\n",
    b"ffffffffffffffff\r\n",
    b"10000000000000005\r\n",
    b"\xb25\r\n",
]
CHUNK_LINES += [b"5\x0b\r\n", b"5\x00\r\n", b"5.0\r\n", b'"5"\r\n', b"5;" + b"x" * 9000 + b"\r\n"]


@pytest.mark.parametrize("line", CHUNK_LINES, ids=lambda v: repr(v[:20]))
def test_smug_04_chunk_size_lines(line: bytes, alice: Client, upstream: Upstream) -> None:
    refused(ask(alice, post(CHUNKED, body=line + b"hello\r\n0\r\n\r\n")), "bad_request")
    assert [r.head for r in at_most_one(upstream) if r.raw_body.endswith(b"0\r\n\r\n")] == []


CHUNK_ENDS = [
    b"hello0\r\n\r\n",
    b"hello\n0\r\n\r\n",
    b"hello\r0\r\n\r\n",
    b"helloworld\r\n0\r\n\r\n",
]
CHUNK_ENDS += [b"hello\r\n0\n\n", b"hello\r\n0\r\n\n", b"hell\r\n0\r\n\r\n"]


@pytest.mark.parametrize("end", CHUNK_ENDS)
def test_smug_04_chunk_ends(end: bytes, alice: Client, upstream: Upstream) -> None:
    """Refused, or (where it could still go on) nothing complete is sent."""
    with alice.tunnel() as wire:
        wire.sock.settimeout(1.0)
        wire.send(post(CHUNKED, b"Content-Type: text/plain", body=b"5\r\n" + end))
        with contextlib.suppress(TimeoutError, ConnectionError):
            refused(wire.read(), "bad_request")
    assert at_most_one(upstream) == []


# --- pipelines, hidden requests, trailers --------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(
            b"GET /echo HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: %d\r\n\r\n" % len(SECOND)
            + SECOND,
            id="GET with a body",
        ),
        pytest.param(post(b"Content-Length: %d" % len(SECOND), body=SECOND), id="POST"),
        pytest.param(
            post(CHUNKED, body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(SECOND), SECOND)), id="chunked"
        ),
        pytest.param(
            post(b"Content-Length: %d" % len(SECOND), b"Expect: 100-continue", body=SECOND),
            id="Expect",
        ),
        pytest.param(
            b"HEAD /echo HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: %d\r\n\r\n" % len(SECOND)
            + SECOND,
            id="HEAD with a body",
        ),
        pytest.param(
            b"OPTIONS * HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: %d\r\n\r\n" % len(SECOND)
            + SECOND,
            id="OPTIONS with a body",
        ),
    ],
)
def test_smug_07_a_request_in_a_body_stays_a_body(
    data: bytes, alice: Client, upstream: Upstream
) -> None:
    answer = ask(alice, data, is_head=data.startswith(b"HEAD"))
    assert answer is not None
    (received,) = at_most_one(upstream)
    assert received.body == SECOND.replace(b"{{secrets.key.a}}", KEY_A)


def test_smug_07_pipelined_requests_are_judged_one_by_one(
    alice: Client, upstream: Upstream
) -> None:
    good = request("GET", "/echo", KEY, host=ALLOWED)
    bad = request("GET", "/echo", KEY, host=EVIL)
    with alice.tunnel() as wire:
        wire.send(good + bad + good)
        statuses = [wire.read().status for _ in range(3)]
    assert statuses == [200, 421, 200]
    assert [r.sni for r in upstream.take()] == [ALLOWED, ALLOWED]


@pytest.mark.parametrize("announced", [0, 4])
def test_smug_07_what_follows_a_short_body_is_the_next_request(
    announced: int, alice: Client, upstream: Upstream
) -> None:
    """CL.0: the upstream sees what we count, request by request."""
    body = b"abcd"[:announced]
    data = post(b"Content-Length: %d" % announced, body=body) + SECOND.replace(b"allowed", b"evil")
    with alice.tunnel() as wire:
        accepted(send(wire, data))
        refused(wire.read(), "destination_mismatch")
    assert [r.body for r in upstream.take()] == [body]


TRAILERS = [
    b"X-T: {{secrets.key.a}}",
    b"Content-Length: 5",
    b"Authorization: x",
    b"Host: evil.test",
]
TRAILERS += [b"Transfer-Encoding: chunked", b"Content-Encoding: gzip", b"X-T: 1\r\nX-U: 2", b"X-T:"]


@pytest.mark.parametrize("line", TRAILERS, ids=repr)
@pytest.mark.parametrize("kind", [b"text/plain", b"application/octet-stream"])
def test_smug_08_request_trailers(
    kind: bytes, line: bytes, alice: Client, upstream: Upstream
) -> None:
    """Refused or dropped: never merged into the head, and nothing hangs."""
    lines = (CHUNKED, b"Trailer: X-T", b"Content-Type: " + kind)
    accepted(ask(alice, post(*lines, body=b"5\r\nhello\r\n0\r\n\r\n")))
    (without,) = at_most_one(upstream)
    answer = ask(alice, post(*lines, body=b"5\r\nhello\r\n0\r\n" + line + b"\r\n\r\n"))
    assert answer is not None
    for received in at_most_one(upstream):
        assert (received.head, received.raw_body) == (without.head, without.raw_body)


BAD_TRAILERS = [b"no colon\r\n\r\n", b" folded\r\n\r\n", b"X: a\rb\r\n\r\n", b"X: a\x00\r\n\r\n"]
BAD_TRAILERS += [b"X : a\r\n\r\n", b"X: a\n\r\n\r\n", b"X: " + b"a" * 200_000 + b"\r\n\r\n", SECOND]


@pytest.mark.parametrize("end", BAD_TRAILERS, ids=lambda v: repr(v[:16]))
def test_smug_08_bad_trailers(end: bytes, alice: Client, upstream: Upstream) -> None:
    refused(ask(alice, post(CHUNKED, body=b"5\r\nhello\r\n0\r\n" + end)), "bad_request")
    assert at_most_one(upstream) == []


HOP_BY_HOP = [b"Connection: X-Secret, close", b"Keep-Alive: timeout=5", b"TE: trailers, gzip"]
HOP_BY_HOP += [b"Proxy-Connection: keep-alive", b"Upgrade: h2c", b"Proxy-Authorization: Basic eDp5"]
HOP_BY_HOP += [
    b"Proxy-X: 1",
    b"Trailer: X",
    b"HTTP2-Settings: AAMAAABk\r\nConnection: HTTP2-Settings",
]


@pytest.mark.parametrize("line", HOP_BY_HOP, ids=repr)
def test_smug_10_hop_by_hop_fields_end_here(line: bytes, alice: Client, upstream: Upstream) -> None:
    data = b"\r\n".join([b"GET /echo HTTP/1.1", HOST.encode(), line, b"X-Kept: 1", b"", b""])
    accepted(ask(alice, data))
    (received,) = at_most_one(upstream)
    assert received.all("x-kept") == [b"1"]
    names = {part.partition(b":")[0] for part in line.split(b"\r\n")}
    assert not any(received.all(name.decode()) for name in names)


@pytest.mark.parametrize(
    "listed",
    ["authorization", "Authorization, x", "host", "content-length", "close, authorization"],
)
def test_loc_08_connection_lists_an_end_to_end_field(
    listed: str, alice: Client, upstream: Upstream
) -> None:
    """The field is dropped or kept as a whole; the request line, Host and length stay whole."""
    data = request("POST", "/echo", KEY, f"Connection: {listed}", host=ALLOWED, body=b"hello")
    accepted(ask(alice, data))
    (received,) = at_most_one(upstream)
    assert received.all("host") == [ALLOWED.encode()]
    assert received.body == b"hello"
    assert received.all("connection") == []


# --- the other direction -------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"
POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned"
RESPONSES: dict[str, bytes] = {
    "two answers": OK + b"Content-Length: 5\r\n\r\nfirst" + POISON,
    "body on 204": b"HTTP/1.1 204 No\r\nContent-Length: 8\r\n\r\npoisoned" + POISON,
    "body on 304": b"HTTP/1.1 304 Not\r\nContent-Length: 8\r\n\r\npoisoned" + POISON,
    "chunked, then more": OK + CHUNKED + b"\r\n\r\n5\r\nfirst\r\n0\r\n\r\n" + POISON,
    "chunked with a trailer": OK
    + CHUNKED
    + b"\r\n\r\n5\r\nfirst\r\n0\r\nX: %TOKEN%\r\n\r\n"
    + POISON,
    "CL 0, then more": OK + b"Content-Length: 0\r\n\r\n" + POISON,
    "1xx flood": b"HTTP/1.1 100 Continue\r\n\r\n" * 500 + OK + b"Content-Length: 5\r\n\r\nfirst",
    "103 with the value": b"HTTP/1.1 103 Early\r\nLink: <%TOKEN%>\r\n\r\n"
    + OK
    + b"Content-Length: 5\r\n\r\nfirst"
    + POISON,
}
BROKEN: dict[str, bytes] = {
    "CL and TE": OK + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n\r\n0\r\n\r\n" + POISON,
    "two CL": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nfirst" + POISON,
    "CL list": OK + b"Content-Length: 5, 5\r\n\r\nfirst" + POISON,
    "CL +5": OK + b"Content-Length: +5\r\n\r\nfirst" + POISON,
    "CL -1": OK + b"Content-Length: -1\r\n\r\n" + POISON,
    "TE gzip": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + POISON,
    "TE identity": OK + b"Transfer-Encoding: identity\r\n\r\n" + POISON,
    "TE twice": OK + CHUNKED + b"\r\n" + CHUNKED + b"\r\n\r\n0\r\n\r\n" + POISON,
    "TE spaced": OK + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + POISON,
    "fold": OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n" + POISON,
    "bare CR": OK + b"X: a\rY: b\r\nContent-Length: 0\r\n\r\n" + POISON,
    "bare LF": OK + b"X: a\nY: b\r\nContent-Length: 0\r\n\r\n" + POISON,
    "NUL": OK + b"X: a\x00b\r\nContent-Length: 0\r\n\r\n" + POISON,
    "101": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + POISON,
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n" + POISON,
    "HTTP/0.9": b"poisoned\r\n\r\n",
    "status 099": b"HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n" + POISON,
    "status 600": b"HTTP/1.1 600 X\r\nContent-Length: 0\r\n\r\n" + POISON,
    "status 20": b"HTTP/1.1 20 X\r\nContent-Length: 0\r\n\r\n" + POISON,
}


@pytest.mark.parametrize("name", RESPONSES)
def test_smug_06_the_next_answer_is_not_poisoned(
    name: str, alice: Client, upstream: Upstream, scripts: Scripts
) -> None:
    path = scripts.add(RESPONSES[name], keep=True)
    with alice.tunnel() as wire:
        first = send(wire, request("GET", path, KEY, host=ALLOWED))
        assert first is not None
        assert b"poisoned" not in first.raw
        assert KEY_A not in first.raw
        second = send(wire, request("GET", "/echo/second", KEY, host=ALLOWED))
        assert second is None or b"/echo/second" in second.body
    connections = [received.connection for received in upstream.take()]
    if POISON in RESPONSES[name]:
        # Whatever else may still come there, nothing is asked on that connection again.
        assert len(connections) == len(set(connections))


@pytest.mark.parametrize("name", RESPONSES)
def test_smug_06_nor_is_that_of_the_clients_next_connection(
    name: str, alice: Client, upstream: Upstream, scripts: Scripts
) -> None:
    path = scripts.add(RESPONSES[name], keep=True)
    ask(alice, request("GET", path, KEY, host=ALLOWED))
    second = accepted(ask(alice, request("GET", "/echo/second", KEY, host=ALLOWED)))
    assert b"/echo/second" in second.body
    connections = [received.connection for received in upstream.take()]
    if POISON in RESPONSES[name]:
        assert len(connections) == len(set(connections))


@pytest.mark.parametrize(
    ("late", "rests"),
    [
        pytest.param((), True, id="nothing"),
        pytest.param((0.1, POISON), False, id="another answer"),
        pytest.param((0.1, b"H"), False, id="a byte"),
    ],
)
def test_smug_06_what_comes_late_is_nobodys(
    late: Sequence[Step], rests: bool, alice: Client, upstream: Upstream, scripts: Scripts
) -> None:
    path = scripts.add(OK + b"Content-Length: 5\r\n\r\nfirst", *late, keep=True)
    ask(alice, request("GET", path, KEY, host=ALLOWED))
    time.sleep(0.4)
    second = accepted(ask(alice, request("GET", "/echo/second", KEY, host=ALLOWED)))
    assert b"/echo/second" in second.body
    first, other = (received.connection for received in upstream.take())
    # Another worker has none that rest.
    assert (first == other) is rests or (rests and WORKERS > 1)


@pytest.mark.parametrize("name", BROKEN)
def test_smug_06_an_answer_with_two_readings_is_withheld(
    name: str, alice: Client, upstream: Upstream, scripts: Scripts
) -> None:
    path = scripts.add(BROKEN[name], keep=True)
    with alice.tunnel() as wire:
        first = refused(send(wire, request("GET", path, KEY, host=ALLOWED)), "response_withheld")
        assert first is None or b"poisoned" not in first.raw
        second = send(wire, request("GET", "/echo/second", KEY, host=ALLOWED))
        assert second is None or b"/echo/second" in second.body


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "DELETE", "PATCH"])
def test_smug_06_methods(method: str, alice: Client, upstream: Upstream) -> None:
    """A HEAD has no body whatever its length says; the connection goes on."""
    with alice.tunnel() as wire:
        for _ in range(2):
            data = request(method, "/echo", KEY, host=ALLOWED)
            answer = send(wire, data, is_head=method == "HEAD")
            assert accepted(answer).all("content-length") or method != "HEAD"
    assert [r.all("authorization") for r in upstream.take()] == [[b"Bearer " + VALUES["key.a"]]] * 2
