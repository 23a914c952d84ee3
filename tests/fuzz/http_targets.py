"""Heads, chunked bodies and answers, each through a whole lane, in any chunks."""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import brotli
import zstandard

from coatcheck.engine import http1
from tests.engine.wire import Wire
from tests.fuzz import case, reference, talk
from tests.fuzz.case import Finding, Target, check, check_clean, check_same, cuttings

ENOUGH_REFUSED = 2  # cuttings; most inputs are refused however they are cut, and lanes take long

# --- request heads ---------------------------------------------------------------------------


def run_requests(data: bytes) -> bool:
    """The bytes of a client connection; inside a tunnel where the first target is a path."""
    inside = data.partition(b" ")[2].startswith((b"/", b"* "))
    stories: list[talk.Story] = []
    deep = False
    for pieces in cuttings(data):
        told = talk.talk(pieces, inside=inside)
        talk.check_talk(told)
        stories.append(told.story())
        deep = any(upstream.read for upstream in told.upstreams)
        if len(stories) == ENOUGH_REFUSED and not deep:
            break
    talk.check_one_story(stories)
    return deep


def a_request(
    line: bytes = b"GET http://api.example.com/v1/me HTTP/1.1", *fields: bytes, body: bytes = b""
) -> bytes:
    return b"\r\n".join([line, b"Host: api.example.com", *fields]) + b"\r\n\r\n" + body


GET = b"GET http://api.example.com/v1/me HTTP/1.1"
POST = b"POST http://api.example.com/v1/me HTTP/1.1"
JSON = b"Content-Type: application/json"
REQUESTS = [
    a_request(),
    a_request(GET, b"Authorization: Bearer {{secrets.key}}"),
    a_request(GET, b"Authorization: Basic " + base64.b64encode(b"me:{{secrets.odd}}")),
    a_request(b"GET http://api.example.com/a/__secrets.odd__?k=%7B%7Bsecrets.key%7D%7D HTTP/1.1"),
    a_request(POST, JSON, b"Content-Length: 25", body=b'{"a": "{{secrets.odd}}" }'),
    a_request(POST, JSON, b"Transfer-Encoding: chunked", body=b"5\r\n{}   \r\n0\r\n\r\n"),
    a_request(GET) + a_request(POST, b"Content-Length: 3", body=b"abc") + a_request(GET),
    a_request(b"GET /v1/me HTTP/1.1", b"X-Key: {secrets.key}"),
    a_request(b"GET /v1/me HTTP/1.1") * 2 + a_request(b"POST /b?c={{secrets.key}} HTTP/1.1") * 2,
    a_request(b"OPTIONS * HTTP/1.1"),
    a_request(b"CONNECT api.example.com:443 HTTP/1.1") + b"\x16\x03\x01",
    a_request(b"HEAD http://api.example.com/ HTTP/1.1", b"Connection: close, X-Hop", b"X-Hop: 1"),
    b"GET http://api.example.com HTTP/1.0\r\n\r\n",
    b"GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\nX-Key: __secrets.key__\r\n\r\n",
    b"GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n" + a_request(GET),
]
HTTP_WORDS = [
    b"\r\n",
    b"\r",
    b"\n",
    b"\r\n\r\n",
    b"\r\n ",
    b"\t",
    b" ",
    b"\0",
    b"\x0b",
    b"\x85",
    b":",
    b" :",
    b"HTTP/1.0",
    b"HTTP/1.1",
    b"HTTP/2.0",
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"CONNECT ",
    b"OPTIONS ",
    b"http://api.example.com/",
    b"https://api.example.com/",
    b"http://api.example.com@evil.test/",
    b"http://evil.test/",
    b"api.example.com:443",
    b"/v1/me?a=b&c=d#e",
    b"Host: api.example.com\r\n",
    b"Host: evil.test\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: +5\r\n",
    b"Content-Length: 5, 5\r\n",
    b"Content-Length: 0x5\r\n",
    b"Content-Length : 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding:\x0bchunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Content-Type: application/json\r\n",
    b"Content-Type: application/octet-stream\r\n",
    b"Content-Type: application/x-www-form-urlencoded\r\n",
    b"Content-Type: multipart/form-data; boundary=XX\r\n",
    b"Connection: close\r\n",
    b"Connection: Content-Length\r\n",
    b"Connection: Transfer-Encoding\r\n",
    b"Connection: Host\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: websocket\r\n",
    b"Proxy-Authorization: Basic eDp5\r\n",
    b"Cookie: a=__secrets.key__\r\n",
    b"Authorization: Bearer {{secrets.key}}\r\n",
    b"{{secrets.key}}",
    b"{{secrets.odd}}",
    b"__secrets.odd__",
    b"{{secrets.nobody}}",
    b"{{secrets.",
]

# --- chunked bodies --------------------------------------------------------------------------

MEANT = 900  # bytes; a smaller body meets no limit, and then two readers agree entirely


def run_chunked(data: bytes) -> bool:
    """A chunked body with what follows it: by its reader alone, and up and down through a lane."""
    try:
        wanted: tuple[bytes, bytes] | None = reference.chunked(data)
    except (reference.Bad, reference.Open):
        wanted = None
    results = [_read_chunked(pieces) for pieces in cuttings(data)]
    check_same(results, "the result depends on how the chunked body was cut")
    if results[0] is not None:
        check(results[0] == wanted, "another reading of the chunked coding", results[0])
    elif wanted is not None and len(data) < MEANT:
        raise Finding("a right chunked body is refused", wanted)
    if zlib.crc32(data) & 1:  # a lane takes a hundred times as long
        _chunked_up(data)
    else:
        _chunked_down(data, wanted)
    return results[0] is not None


def _read_chunked(pieces: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """(content, what follows), or None where it is wrong or not all there."""
    reader = http1.ChunkedReader(talk.LIMITS)
    content = rest = b""
    try:
        for piece in pieces:
            if reader.done:
                rest += piece
                continue
            new, rest = reader.feed(piece)
            content += new
    except http1.BadMessage:
        return None
    return (content, rest) if reader.done else None


def _chunked_up(body: bytes) -> None:
    run_requests(a_request(POST, b"Transfer-Encoding: chunked", body=body))


def _chunked_down(body: bytes, wanted: tuple[bytes, bytes] | None) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    for pieces in cuttings(answer):
        got = _ask(GET_IT, pieces)
        if got.whole and got.status == b"200":
            check(wanted is not None, "a broken answer passes for whole", got.client)
            if not case.holds_value(body) and wanted is not None:
                check(got.body == wanted[0], "another body than the upstream sent", got.body)


CHUNKED = [
    b"0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b'5;a=b\r\nhello\r\n6 ; c="d"\r\n world\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\nGET / HTTP/1.1\r\n',
    b"A\r\n0123456789\r\na\r\n0123456789\r\n00\r\n\r\n",
    b"000000000000010\r\n{{secrets.key}} \r\n0\r\n\r\n",
]
CHUNK_WORDS = [
    b"\r\n",
    b"\r",
    b"\n",
    b"0\r\n\r\n",
    b"0\r\n",
    b"\r\n0\r\n\r\n",
    b"1\r\n",
    b"+2\r\n",
    b"-1\r\n",
    b"0x1\r\n",
    b"1_0\r\n",
    b" 2\r\n",
    b"2 \r\n",
    b"2\t\r\n",
    b"2\x0b\r\n",
    b";a\r\n",
    b";a=b",
    b';a="\r\n"',
    b"ffffffffffffffff\r\n",
    b"10000000000000000\r\n",
    b"000000000000001\r\n",
    b"0000000000000001\r\n",
    b"X: y\r\n",
    b"X : y\r\n",
    b"\r\n X: y",
    b"Content-Length: 3\r\n",
    b"{{secrets.key}}",
    b"\0",
]

# --- answers ---------------------------------------------------------------------------------

GET_IT = a_request(GET)
HEAD_IT = a_request(b"HEAD http://api.example.com/v1/me HTTP/1.1")
OLD_GET = a_request(b"GET http://api.example.com/v1/me HTTP/1.0")


@dataclass
class Answered:
    """What a client got. ``whole``: one response, and it ends where it says."""

    client: bytes
    whole: bool
    status: bytes = b""
    fields: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""

    def told(self) -> object:
        return self.status, self.fields, self.body


def _ask(request: bytes, answer: Sequence[bytes]) -> Answered:
    """*request* through a lane, whose upstream says *answer* and closes."""
    talk.GATEWAY.restart()
    wire = Wire(talk.GATEWAY)
    got = wire.send(request)
    check(len(wire.upstreams) == 1, "the request does not reach its upstream", got)
    for piece in answer:
        if wire.upstream.closed:
            break
        got += wire.answer(piece)
    if not wire.upstream.closed:
        got += wire.hang_up()
    check(not set(talk.BUGS) & set(wire.events), "an internal error", wire.events)
    check_clean(repr((wire.audit, wire.events)).encode(), "a value in a log")
    read, is_all = reference.responses(got, [request.split(b" ")[0]])
    check(is_all and len(read) <= 1, "the client gets bytes that are no response", got)
    if not read:
        return Answered(got, False)
    one = read[0]
    kept = tuple((k, v) for k, v in one.fields if k.lower() not in (*talk.FRAMING, b"connection"))
    return Answered(got, one.whole, one.first, kept, one.body)


SPELLED = {
    b"@PLAIN@": case.PLAIN,
    b"@ODD@": case.ODD,
    b"@B64@": base64.b64encode(b"x" + case.PLAIN),
    b"@HEX@": case.PLAIN.hex().encode(),
    b"@PCT@": quote(case.ODD, safe="").encode(),
}


def run_heads(data: bytes) -> bool:
    """The head of an answer, and what comes with it, as an upstream sends it to a GET."""
    answer = _spelled(data)
    read, is_all = reference.responses(answer, [b"GET"])
    results = []
    for pieces in cuttings(answer):
        got = _ask(GET_IT, pieces)
        _check_answer(got, read, is_all)
        results.append(got.told() if got.whole and got.status != b"502" else None)
        if results == [None] * ENOUGH_REFUSED:
            break
    check_same(results, "the result depends on how the answer was cut")
    return results[0] is not None


def _spelled(data: bytes) -> bytes:
    for mark, value in SPELLED.items():
        data = data.replace(mark, value)
    return data


def _check_answer(got: Answered, read: list[reference.Message], is_all: bool) -> None:
    source = read[0] if read else None
    if got.whole and got.status != b"502":
        check(source is not None and source.whole, "a broken answer passes for whole", got.client)
    if source is None:
        check_clean(got.client, "a value of an answer that cannot be read")
        return
    for text in (got.body, *(part for one in got.fields for part in one)):
        if found := case.holds_value(text):
            # Only what stands there cut off, or torn by other bytes, is nobody's to find.
            left = b"\n".join([source.body, source.second, *(v for _, v in source.fields)])
            for value in SPELLED.values():
                left = left.replace(value, b"")
            check(found in left, "a value of the answer reaches the client", (found, text))


ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 200\r\nX-Key: @PLAIN@\r\nSet-Cookie: a=@PCT@\r\nSet-Cookie: b\r\n\r\nk: @B64@",
    b"HTTP/1.0 404 @ODD@\r\nConnection: keep-alive\r\n\r\n@HEX@ @PLAIN@",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: @PLAIN@\r\n\r\n"
    b"HTTP/1.1 204 No\r\n\r\n",
    b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2\r\n\r\nsk",
    b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nabc",
    b"HTTP/1.1 304 Not\r\nContent-Length: 5\r\nETag: @PLAIN@\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: @PLAIN@\n\ndata: x\n\n",
    b"HTTP/1.1 200 OK\r\nConnection: X-A, Content-Encoding\r\nContent-Encoding: gzip\r\n\r\n",
]
ANSWER_WORDS = [
    *HTTP_WORDS[:16],
    *SPELLED,
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Up\r\n",
    b"HTTP/1.1 204 No\r\n",
    b"HTTP/1.1 206 Some\r\n",
    b"HTTP/1.1 304 Not\r\n",
    b"HTTP/1.1 999 No\r\n",
    b"HTTP/1.1 2000 No\r\n",
    b"HTTP/1.1 20 No\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: +5\r\n",
    b"Content-Length: 5,5\r\n",
    b"Content-Length: 30\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked, chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Content-Encoding: identity\r\n",
    b"Content-Range: bytes 0-1/2\r\n",
    b"Content-Type: text/event-stream\r\n",
    b"Content-Type: multipart/byteranges; boundary=x\r\n",
    b"Trailer: X\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"Location: /@PLAIN@\r\n",
    b"@PLAIN@: x\r\n",
    b"data: @PLAIN@\n\n",
]

# --- whole answers ---------------------------------------------------------------------------

ENCODERS = {
    b"gzip": lambda data: gzip.compress(data, mtime=0),
    b"deflate": zlib.compress,
    b"br": lambda data: brotli.compress(data),
    b"zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}
FRAMINGS = (b"length", b"chunked", b"close")
REQUESTS_FOR = {b"get": GET_IT, b"head": HEAD_IT, b"old": OLD_GET}


def run_answers(data: bytes) -> bool:
    """A well-framed answer, built from a line of words (``chunked gzip head cut``), fields, a
    blank line and the content: no whole value in it gets through, whatever it is wrapped in."""
    plan = _plan(data)
    results = []
    for pieces in cuttings(plan.answer()):
        got = _ask(REQUESTS_FOR[plan.method], pieces)
        _check_answer(got, [plan.source()], True)
        is_right = got.whole and got.status == b"200"
        if is_right and plan.method == b"get":
            check(not plan.is_cut, "a broken answer passes for whole", got.client)
            if not any(value in plan.content for value in SPELLED.values()):
                check(got.body == plan.content, "another body than the upstream sent", got.body)
        results.append(got.told() if is_right else None)
    if plan.method != b"old":  # an HTTP/1.0 client cannot see that an answer broke off
        check_same(results, "the result depends on how the answer was cut")
    return results[0] is not None


@dataclass
class Plan:
    """An answer to be built."""

    method: bytes
    framing: bytes
    codings: list[bytes]
    is_cut: bool
    fields: list[bytes]
    content: bytes

    def source(self) -> reference.Message:
        fields = [(b"", line) for line in self.fields]
        return reference.Message(b"HTTP/1.1", b"200", b"OK", fields, self.content)

    def answer(self) -> bytes:
        lines = [b"HTTP/1.1 200 OK", *self.fields]
        body = self.content
        for coding in self.codings:
            body = ENCODERS[coding](body)
        if self.codings:
            lines.append(b"Content-Encoding: " + b", ".join(self.codings))
        if self.framing == b"length":
            lines.append(http1.length_line(len(body)))
        elif self.framing == b"chunked":
            lines.append(http1.CHUNKED_LINE)
            *_, parts = cuttings(body)
            body = b"".join(http1.chunk(part) for part in parts) + http1.LAST_CHUNK
        if self.is_cut:
            body = body[: len(body) // 2]
        return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _plan(data: bytes) -> Plan:
    first, _, rest = data.partition(b"\n")
    head, _, content = rest.partition(b"\n\n")
    words = first.split()[:6]
    codings = [word for word in words if word in ENCODERS]
    framing = next((word for word in words if word in FRAMINGS), b"length")
    method = next((word for word in words if word in REQUESTS_FOR), b"get")
    # A plain answer that ends with its connection is whole wherever it is cut, and one of no
    # bytes cannot be cut.
    is_cut = b"cut" in words and bool(content) and (framing != b"close" or bool(codings))
    fields = [_spelled(line) for line in head.split(b"\n")[:6] if _may_stand(line)]
    return Plan(method, framing, codings, is_cut, fields, _spelled(content))


def _may_stand(line: bytes) -> bool:
    """Whether *line* is a field that says nothing about the body's length and codings."""
    name = line.partition(b":")[0].lower()
    if name in (*talk.FRAMING, b"content-encoding", b"connection"):
        return False
    return reference.responses(b"HTTP/1.1 204 OK\r\n" + line + b"\r\n\r\n", [])[1]


WHOLE_ANSWERS = [
    b"length\nContent-Type: text/plain\n\nthe key is @PLAIN@, and @ODD@",
    b'chunked\nContent-Type: application/json\nX-Key: @PLAIN@\n\n{"a": "@B64@"}',
    b"chunked gzip\nContent-Type: text/html\n\n<p>@PLAIN@ @HEX@</p>",
    b"close br zstd\n\n\n@PCT@@PLAIN@@PLAIN@",
    b"length deflate cut\n\n\nsome text that is long enough to be cut @PLAIN@",
    b"close\nContent-Type: text/event-stream\n\nevent: a\ndata: @PLAIN@\n\ndata: @ODD@\n\n",
    b"head\nLocation: /?k=@PCT@\n\n",
    b"old chunked\nSet-Cookie: k=@PLAIN@\n\nhello",
    b"length cut\n\n\n@PLAIN@ and more text behind it",
]
PLAN_WORDS = [
    *FRAMINGS,
    *ENCODERS,
    *SPELLED,
    b"head ",
    b"old ",
    b"cut ",
    b"Content-Type: text/event-stream\n",
    b"Content-Type: application/x-ndjson\n",
    b"Content-Range: bytes 0-1/2\n",
    b"X-A: @PLAIN@\n",
    b"\n\n",
    b"sk_canary_",
    b"a" * 70,
    b"====",
    b"AAAA",
    b"\0",
]

TARGETS = [
    Target("request-heads", run_requests, REQUESTS, HTTP_WORDS),
    Target("chunked-bodies", run_chunked, CHUNKED, CHUNK_WORDS),
    Target("response-heads", run_heads, ANSWERS, ANSWER_WORDS),
    Target("whole-answers", run_answers, WHOLE_ANSWERS, PLAN_WORDS),
]
