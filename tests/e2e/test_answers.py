"""What comes back from an allowed upstream that reflects all it gets: clean, or withheld.

And what HTTP asks of a proxy besides: keep-alive and pipelining, bodies of every framing, answers
without one, large ones, an event at a time.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib

import brotli
import pytest
import zstandard

from tests.e2e.harness import Proxy
from tests.e2e.main_home import SPECIAL
from tests.e2e.test_refusals import AUTHORIZATION, JSON, KEY, check, header
from tests.e2e.upstream import PATTERN, Upstream
from tests.e2e.wire import Dial, basic, request

MASK = b"********"
MIB = 1 << 20
LARGE = 80 * MIB


# --- reflection ----------------------------------------------------------------------------------


REFLECTING = ["echo", "chunked", "close-framed", "status/500", "status/404"]
REFLECTING += [f"coded/{coding}" for coding in ("gzip", "deflate", "br", "zstd")]


@pytest.mark.parametrize("mode", REFLECTING)
def test_a_reflected_value_is_masked(mode: str, runner: Dial, upstream: Upstream) -> None:
    """Whatever the framing and the coding, which is asked not to be used in the first place."""
    with runner.tunnel() as wire:
        answer = wire.get(f"/{mode}", AUTHORIZATION, "Accept-Encoding: gzip, br")

    sent = upstream.one()
    assert sent.all("authorization") == [b"Bearer " + SPECIAL]
    assert sent.all("accept-encoding") == [b"identity"]
    assert answer.body == sent.bytes.replace(SPECIAL, MASK)
    assert answer.all("content-encoding") == []
    assert SPECIAL not in answer.raw


def test_head_of_the_answer(runner: Dial, upstream: Upstream) -> None:
    """Reason phrase, fields, fields that come twice in their order; a 103 before it."""
    with runner.tunnel() as wire:
        answer = wire.get("/in-head", "Authorization: Bearer {{secrets.wild.key}}")

    assert answer.reason == b"Fine " + MASK
    assert answer.one("x-echo") == MASK
    names = [(key, value) for key, value in answer.fields if key in (b"Set-Cookie", b"X-Between")]
    assert names == [
        (b"Set-Cookie", b"first=" + MASK + b"; Path=/"),
        (b"Set-Cookie", b"second=2"),
        (b"X-Between", b"1"),
        (b"Set-Cookie", b"third=" + MASK),
    ]
    assert answer.one("location") == b"https://evil.example.test/?token=" + MASK
    assert b"wildcard-5d0f12ab34" not in answer.raw
    assert answer.interim == (b"HTTP/1.1 103 Early Hints\r\nLink: <" + MASK + b">\r\n\r\n",)


@pytest.mark.parametrize("asks", [True, False])
def test_trailers_of_the_answer(asks: bool, runner: Dial, upstream: Upstream) -> None:
    with runner.tunnel() as wire:
        answer = wire.get("/chunked", AUTHORIZATION, *(["TE: trailers"] if asks else []))
        assert wire.get("/echo").status == 200

    assert upstream.take()[0].all("te") == []
    assert SPECIAL not in answer.raw
    end = b"0\r\nX-Echo: " + MASK + b"\r\n\r\n" if asks else b"0\r\n\r\n"
    assert answer.raw.endswith(b"\r\n" + end)


def test_a_reflected_basic_token_is_masked(runner: Dial, upstream: Upstream) -> None:
    with runner.tunnel() as wire:
        answer = wire.get("/echo", "Authorization: " + basic("me", KEY))

    token = upstream.one().all("authorization")[0].partition(b" ")[2]
    assert token not in answer.raw
    assert token[8:24] not in answer.raw


def test_scrubbed_without_a_placeholder_in_the_request(runner: Dial, upstream: Upstream) -> None:
    """An upstream may keep a value and give it out later."""
    with runner.tunnel() as wire:
        answer = wire.get("/echo", b"X-Known: " + SPECIAL)
    assert answer.status == 200
    assert SPECIAL not in answer.body


def test_elsewhere_nothing_is_scrubbed(runner: Dial, upstream: Upstream) -> None:
    """Or the scrubber would tell a client, at a host of its own, whether a guess is right."""
    with runner.tunnel("evil.example.test") as wire:
        answer = wire.get("/echo", b"X-Known: " + SPECIAL, host="evil.example.test")
    assert SPECIAL in answer.body


def test_ranges_are_not_asked_for(runner: Dial, upstream: Upstream) -> None:
    with runner.tunnel() as wire:
        wire.get("/echo", AUTHORIZATION, "Range: bytes=0-3", 'If-Range: "x"', "TE: trailers")
    sent = upstream.one()
    assert [sent.all(name) for name in ("range", "if-range", "te")] == [[], [], []]


@pytest.mark.parametrize("mode", ["coded/bogus", "partial", "switch", "malformed", "hang-up"])
def test_withheld(mode: str, runner: Dial, upstream: Upstream) -> None:
    """What cannot be read cannot be searched."""
    with runner.tunnel() as wire:
        answer = wire.get(f"/{mode}", AUTHORIZATION)

    check(answer, "response_withheld", 502)
    assert SPECIAL not in answer.raw


def test_a_body_that_breaks_off_is_broken_off(runner: Dial, upstream: Upstream) -> None:
    """The client must not take what it has for the whole."""
    with runner.tunnel() as wire:
        wire.send(request("GET", "/half", AUTHORIZATION))
        with pytest.raises(OSError, match="closed"):
            wire.read()
        assert SPECIAL not in bytes(wire.seen)


def test_a_broken_coding_is_told_or_broken_off(runner: Dial, upstream: Upstream) -> None:
    """Told, if the head was not on its way before the first of the body came."""
    with runner.tunnel() as wire:
        wire.send(request("GET", "/coded/broken", AUTHORIZATION))
        answer, end = None, ""
        try:
            answer = wire.read()
        except OSError as error:
            end = str(error)
        assert SPECIAL not in bytes(wire.seen)
    if answer is None:
        assert "closed" in end
    else:
        check(answer, "response_withheld", 502)


def test_a_redirect_is_not_followed(runner: Dial, upstream: Upstream) -> None:
    with runner.tunnel() as wire:
        answer = wire.get("/redirect", AUTHORIZATION)
    assert answer.status == 302
    assert answer.one("location") == b"https://evil.example.test/echo"
    assert [item.host for item in upstream.take()] == ["api.example.test"]


def test_events_come_one_by_one(runner: Dial, upstream: Upstream) -> None:
    """Each is with the client before the upstream sends the next, and is scrubbed."""
    gate = upstream.gate("one-by-one")
    # No value that may go there has lines which are too short to be searched one by one.
    host = "other.example.test"
    key = "Authorization: Bearer {{secrets.wild.key}}"
    with runner.tunnel(host) as wire:
        wire.send(request("GET", "/events/one-by-one", key, host=host))
        head = wire.until(b"\r\n\r\n")
        assert b"text/event-stream" in head
        for number in range(3):
            gate.release()
            event = wire.until(b"\n\n\r\n")
            assert b"id: %d\ndata: token ********\n\n" % number in event
        assert wire.until(b"0\r\n\r\n") == b"0\r\n\r\n"
    assert b"wildcard-5d0f12ab34" not in bytes(wire.seen)


# --- connections ---------------------------------------------------------------------------------


def test_keep_alive_both_ways(runner: Dial, upstream: Upstream) -> None:
    with runner.tunnel() as wire:
        for number in range(5):
            assert wire.get(f"/echo/{number}", AUTHORIZATION).status == 200
    sent = upstream.take()
    assert [item.target for item in sent] == [b"/echo/%d" % n for n in range(5)]
    assert len({item.connection for item in sent}) == 1


def test_each_request_of_a_connection_is_judged_alone(runner: Dial, upstream: Upstream) -> None:
    with runner.tunnel() as wire:
        codes = [wire.ask(header(name)).code for name in ("crm.apiKey", "no.such") * 3]
    assert codes == ["", "secret_unavailable"] * 3
    assert len(upstream.take()) == 3


def test_pipelined_requests_are_answered_in_order(runner: Dial, upstream: Upstream) -> None:
    with runner.tunnel() as wire:
        data = [request("GET", f"/echo/{n}", f"X-Key: {n} {KEY}") for n in range(4)]
        data.insert(2, header("no.such"))
        wire.send(b"".join(data))
        answers = [wire.read() for _ in data]
    assert [answer.status for answer in answers] == [200, 200, 403, 200, 200]
    assert [item.all("x-key") for item in upstream.take()] == [
        [b"%d " % n + SPECIAL] for n in range(4)
    ]


def test_a_request_in_single_bytes(runner: Dial, upstream: Upstream) -> None:
    data = request("POST", "/echo", AUTHORIZATION, JSON, body=json.dumps([KEY]).encode())
    with runner.tunnel() as wire:
        for byte in data:
            wire.send(bytes([byte]))
        assert wire.read().status == 200
    assert SPECIAL.decode() in json.loads(upstream.one().body)


def test_one_plain_connection_to_two_hosts(runner: Dial, upstream: Upstream) -> None:
    """By the absolute form each request names its own destination."""
    with runner.plain() as wire:
        for host in ("api", "evil", "api"):
            name = f"{host}.example.test"
            proxy_field = f"Proxy-Authorization: {runner.credential}"
            target = f"http://{name}/echo"
            answer = wire.ask(request("GET", target, proxy_field, host=name))
            assert answer.status == 200
            assert b"Proxy-" not in answer.body
    assert [item.host.split(".")[0] for item in upstream.take()] == ["api", "evil", "api"]


@pytest.mark.parametrize("line", ["Connection: close", "Proxy-Connection: close"])
def test_close_is_close(line: str, runner: Dial, upstream: Upstream) -> None:
    with runner.tunnel() as wire:
        answer = wire.get("/echo", line)
        assert answer.one("connection") == b"close"
        assert wire.is_closed()


def test_http_1_0(runner: Dial, upstream: Upstream) -> None:
    with runner.tunnel() as wire:
        wire.send(f"GET /echo HTTP/1.0\r\n{AUTHORIZATION}\r\n\r\n".encode())
        answer = wire.read()
        assert answer.closes
    sent = upstream.one()
    assert sent.request_line == b"GET /echo HTTP/1.1"
    assert sent.all("host") == [b"api.example.test"]
    assert answer.body == sent.bytes.replace(SPECIAL, MASK)
    assert answer.all("transfer-encoding") == []


# --- answers without a body ----------------------------------------------------------------------


def test_head(runner: Dial, upstream: Upstream) -> None:
    with runner.tunnel() as wire:
        answer = wire.ask(request("HEAD", "/echo", AUTHORIZATION), is_head=True)
        assert (answer.status, answer.all("transfer-encoding")) == (200, [])
        assert int(answer.one("content-length")) == len(upstream.one().bytes)
        assert wire.get("/echo").status == 200


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(status: int, runner: Dial, upstream: Upstream) -> None:
    with runner.tunnel() as wire:
        answer = wire.get(f"/status/{status}", "Authorization: Bearer {{secrets.wild.key}}")
        assert (answer.status, answer.one("x-echo")) == (status, MASK)
        assert answer.all("transfer-encoding") == []
        assert wire.get("/echo").status == 200


# --- request bodies ------------------------------------------------------------------------------


def test_expect_continue(runner: Dial, upstream: Upstream) -> None:
    content = json.dumps([KEY]).encode()
    with runner.tunnel() as wire:
        whole = request("POST", "/echo", "Expect: 100-continue", JSON, body=content)
        head = whole[: -len(content)]
        wire.send(head)
        assert wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert wire.ask(content).status == 200
    sent = upstream.one()
    assert sent.all("expect") == []
    assert json.loads(sent.body) == [SPECIAL.decode()]


def test_expect_continue_is_refused_before_the_body(runner: Dial, upstream: Upstream) -> None:
    with runner.tunnel() as wire:
        head = request("POST", "/echo", "Expect: 100-continue", "X-Key: {{secrets.no}}")
        answer = wire.ask(head.replace(b"\r\n\r\n", b"\r\nContent-Length: 9999\r\n\r\n"))
    check(answer, "secret_unavailable", 403)
    assert answer.interim == ()
    assert upstream.take() == []


def test_chunked_request_with_trailers(runner: Dial, upstream: Upstream) -> None:
    """A placeholder across chunks is one; extensions and trailer fields go no further."""
    content = json.dumps({"k": KEY}).encode()
    chunks = b"".join(b"%x;ext=1\r\n%c\r\n" % (1, byte) for byte in content)
    with runner.tunnel() as wire:
        head = request("POST", "/echo", JSON, "Transfer-Encoding: chunked", "Trailer: X-T")
        answer = wire.ask(head + chunks + b"0\r\nX-T: {{secrets.crm.apiKey}}\r\n\r\n")
        assert answer.status == 200
        assert wire.get("/echo").status == 200
    sent = upstream.take()[0]
    assert json.loads(sent.body) == {"k": SPECIAL.decode()}
    assert b"X-T" not in sent.raw_body
    assert b"ext=1" not in sent.raw_body
    assert sent.all("trailer") == []


@pytest.mark.parametrize(
    ("coding", "coded"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("br", brotli.compress),
        ("zstd", zstandard.compress),
        ("gzip, br", lambda data: brotli.compress(gzip.compress(data))),
    ],
)
def test_coded_request_bodies(coding: str, coded: object, runner: Dial, upstream: Upstream) -> None:
    content = b'{"k": "' + KEY.encode() + b'", "n": 1.50}'
    with runner.tunnel() as wire:
        compressed = coded(content)  # type: ignore[operator]
        line = f"Content-Encoding: {coding}"
        assert wire.ask(request("POST", "/echo", JSON, line, body=compressed)).status == 200
    sent = upstream.one()
    assert (
        sent.body
        == b'{"k": "'
        + json.dumps(SPECIAL.decode(), ensure_ascii=False)[1:-1].encode()
        + b'", "n": 1.50}'
    )
    assert sent.all("content-encoding") == []


def test_query_and_fields_keep_their_order_and_bytes(runner: Dial, upstream: Upstream) -> None:
    target = b"/echo/%7e//a%2fb;p?z=1&a=%C3%bc&&b&a=2&=x&q=+%20"
    lines = [
        b"b-First: 1",
        b"A-Second:  two ",
        b"X-Dup: 1",
        b"x-dup: 2",
        b"X-Empty: ",
        b"X-\xfc: 1",
    ]
    with runner.tunnel() as wire:
        assert wire.get(target, *lines[:-1], b"X-Latin: \xfc\xff").status == 200
    sent = upstream.one()
    assert sent.target == target
    assert sent.head.split(b"\r\n")[2:-3] == [
        b"b-First: 1",
        b"A-Second: two",
        b"X-Dup: 1",
        b"x-dup: 2",
        b"X-Empty: ",
        b"X-Latin: \xfc\xff",
    ]


@pytest.mark.parametrize("kind", ["application/octet-stream", "image/png", "application/grpc"])
def test_binary_uploads_are_left_alone(kind: str, runner: Dial, upstream: Upstream) -> None:
    content = bytes(range(256)) * 40 + KEY.encode() + b"\x00\xff"
    with runner.tunnel() as wire:
        answer = wire.ask(request("PUT", "/echo", f"Content-Type: {kind}", body=content))
    assert answer.status == 200
    sent = upstream.one()
    assert sent.body == content
    assert sent.all("content-length") == [b"%d" % len(content)]


def test_an_answer_before_the_end_of_the_upload(runner: Dial, upstream: Upstream) -> None:
    with runner.tunnel() as wire:
        head = request("POST", "/early", "Content-Type: image/png", "Content-Length: 50000000")
        answer = wire.ask(head + b"x" * 100_000)
    assert answer.status == 413


# --- large ones ----------------------------------------------------------------------------------


def expected_sum(size: int) -> int:
    check_sum = 0
    while size:
        block = PATTERN[:size]
        check_sum = zlib.crc32(block, check_sum)
        size -= len(block)
    return check_sum


def test_a_large_download_is_not_collected(proxy: Proxy, runner: Dial, upstream: Upstream) -> None:
    with runner.tunnel() as wire:
        wire.get("/echo", AUTHORIZATION)
        before = proxy.peak_memory_kib()
        wire.send(request("GET", f"/download/{LARGE}", AUTHORIZATION))
        head = wire.until(b"\r\n\r\n")
        assert b"chunked" in head
        digest, size = 0, 0
        while line := int(wire.until(b"\r\n"), 16):
            data = wire.exactly(line + 2)[:-2]
            digest, size = zlib.crc32(data, digest), size + len(data)
    assert size == LARGE
    assert digest == expected_sum(LARGE)
    assert proxy.peak_memory_kib() - before < 24 * 1024


def test_a_large_upload_is_not_collected(proxy: Proxy, runner: Dial, upstream: Upstream) -> None:
    """JSON, so that every byte is looked at; the placeholder stands at its end."""
    filler = json.dumps({"a": "x" * 1000, "b": [1, 2.5, None]}).encode() + b",\n"
    count = LARGE // len(filler)
    tail = json.dumps({"k": KEY}).encode() + b"]"
    digest = hashlib.sha256(b"[")
    with runner.tunnel() as wire:
        wire.get("/echo", AUTHORIZATION)
        before = proxy.peak_memory_kib()
        length = 1 + count * len(filler) + len(tail)
        wire.send(request("POST", "/status/201", JSON, f"Content-Length: {length}") + b"[")
        block = filler * 64
        for start in range(0, count, 64):
            part = block if count - start >= 64 else filler * (count - start)
            wire.send(part)
            digest.update(part)
        answer = wire.ask(tail)
    assert answer.status == 201
    digest.update(json.dumps({"k": SPECIAL.decode()}, ensure_ascii=False).encode() + b"]")
    sent = [item for item in upstream.take() if item.head.startswith(b"POST")]
    assert [item.sha256 for item in sent] == [digest.hexdigest()]
    assert proxy.peak_memory_kib() - before < 24 * 1024
