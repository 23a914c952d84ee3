"""OWN: no byte that the proxy writes by itself quotes a request, a response or a certificate."""

from __future__ import annotations

import pytest

from tests.attacks.client import Client, accepted, ask, refused, send
from tests.attacks.leaks import Detector
from tests.attacks.sites import Scripts
from tests.attacks.stage import ALLOWED, KEY_A, Coatcheck
from tests.e2e.upstream import Upstream
from tests.e2e.wire import Answer, request

KEY = "Authorization: Bearer {{secrets.key.a}}"
OK = b"HTTP/1.1 200 OK\r\n"
MALFORMED: dict[str, bytes] = {
    "line without a colon": OK + b"%TOKEN%\r\n\r\n",
    "bad field name": OK + b"X %TOKEN%: 1\r\nContent-Length: 0\r\n\r\n",
    "field name with the value, spaced": OK + b"%TOKEN% : 1\r\nContent-Length: 0\r\n\r\n",
    "bad status line": b"HTTP/1.1 %TOKEN%\r\n\r\n",
    "no status line": b"%TOKEN%\r\n\r\n",
    "status with the value": b"HTTP/1.1 2%TOKEN% OK\r\n\r\n",
    "version with the value": b"HTTP/%TOKEN% 200 OK\r\n\r\n",
    "NUL in the reason": b"HTTP/1.1 200 %TOKEN%\x00\r\nContent-Length: 0\r\n\r\n",
    "head cut off": OK + b"X-Echo: %TOKEN%\r\n",
    "status line cut off": b"HTTP/1.1 200 %TOKEN%",
    "bare LF everywhere": b"HTTP/1.1 200 OK\nX: %TOKEN%\n\n",
    "folded": OK + b"X: a\r\n %TOKEN%\r\nContent-Length: 0\r\n\r\n",
    "bad Content-Length": OK + b"Content-Length: %TOKEN%\r\n\r\n",
    "bad Transfer-Encoding": OK + b"Transfer-Encoding: %TOKEN%\r\n\r\n",
    "bad Content-Encoding": OK + b"Content-Encoding: %TOKEN%\r\nContent-Length: 1\r\n\r\nx",
    "bad field value": OK + b"X: %TOKEN%\x01\r\nContent-Length: 0\r\n\r\n",
    "head without an end": OK + b"X: " + b"%TOKEN%" * 4000,
    "too many fields": OK + b"X: %TOKEN%\r\n" * 3000 + b"\r\n",
    "101": b"HTTP/1.1 101 %TOKEN%\r\nX: %TOKEN%\r\n\r\n%TOKEN%",
    "206": b"HTTP/1.1 206 Partial\r\nX: %TOKEN%\r\nContent-Length: 4\r\n\r\nabcd",
    "an alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "HTTP/2 goaway": b"\x00\x00\x30\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00%TOKEN%",
    "SSH": b"SSH-2.0-%TOKEN%\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_own_01_02_a_malformed_answer_is_not_quoted(
    name: str, alice: Client, upstream: Upstream, scripts: Scripts, detector: Detector
) -> None:
    path = scripts.add(MALFORMED[name])
    answer = refused(ask(alice, request("GET", path, KEY, host=ALLOWED)), "response_withheld")
    assert answer is not None
    assert detector.find(answer.raw) == []
    received = upstream.take()
    # A connection that rested and is closed without a word may have ended before it was asked.
    assert len(received) in ((1, 2) if name == "nothing" else (1,))
    for asked in received:
        assert asked.all("authorization") == [b"Bearer " + KEY_A]


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
BROKEN_BODIES: dict[str, bytes] = {
    "bad chunk size": CHUNKED + b"%TOKEN%\r\n",
    "bad chunk size later": CHUNKED + b"3\r\nabc\r\n%TOKEN%\r\n",
    "bad chunk end": CHUNKED + b"3\r\nabc%TOKEN%",
    "bad trailer": CHUNKED + b"3\r\nabc\r\n0\r\n%TOKEN%\r\n\r\n",
    "trailer that never ends": CHUNKED + b"0\r\nX: " + b"%TOKEN%" * 4000,
    "chunk extension": CHUNKED + b"3;x=%TOKEN%\x00\r\nabc\r\n0\r\n\r\n",
    "cut off in a chunk": CHUNKED + b"40\r\n%TOKEN%",
    "cut off before the end": OK + b"Content-Length: 100000\r\n\r\n%TOKEN%",
    "broken gzip": OK + b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\n%TOKEN%",
    "cut off in gzip": OK + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
}


@pytest.mark.parametrize("name", BROKEN_BODIES)
def test_own_02_a_broken_body_is_not_quoted_and_not_complete(
    name: str, alice: Client, upstream: Upstream, scripts: Scripts, detector: Detector
) -> None:
    """Broken off where the client notices, or withheld."""
    path = scripts.add(BROKEN_BODIES[name])
    with alice.tunnel() as wire:
        answer = send(wire, request("GET", path, KEY, host=ALLOWED))
        assert answer is None or answer.status == 502, answer
        assert detector.find(bytes(wire.seen)) == []


def test_own_04_a_certificate_that_holds_the_value(
    alice: Client, coatcheck: Coatcheck, detector: Detector, cert_sites: dict[str, str]
) -> None:
    """Neither its subject nor its names reach the client: the leaf names the host alone."""
    host = cert_sites["talkative"]
    with alice.tunnel(host) as wire:
        leaf = wire.sock.getpeercert(binary_form=True)
        answer = refused(send(wire, request("GET", "/", "X: {{secrets.roam.key}}", host=host)))
    assert answer is not None
    assert detector.find(leaf) == []
    assert answer.code == "upstream_tls_failed"
    assert detector.find(answer.raw) == []


POST = b"POST / HTTP/1.1\r\nHost: allowed.test\r\n"
BLOCKED: dict[str, bytes] = {
    "TRACE": request("TRACE", "/echo", KEY, "Max-Forwards: 0", host=ALLOWED),
    "OPTIONS *": request("OPTIONS", "*", KEY, "Max-Forwards: 0", host=ALLOWED),
    "not allowed": request("GET", "/", "Cookie: {{secrets.key.a}}", "X-Mark: %MARK%", host=ALLOWED),
    "mark in the path": request("GET", "/%MARK%", "X: {{secrets.no}}", host=ALLOWED),
    "mark in the method": b"%MARK% / HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
    "mark in the version": b"GET / HTTP/%MARK%\r\nHost: allowed.test\r\n\r\n",
    "mark in the Host": b"GET / HTTP/1.1\r\nHost: %MARK%\r\n\r\n",
    "mark without a colon": b"GET / HTTP/1.1\r\nHost: allowed.test\r\n%MARK%\r\n\r\n",
    "mark in a length": POST + b"Content-Length: %MARK%\r\n\r\n",
    "mark in a coding": POST + b"Transfer-Encoding: %MARK%\r\n\r\n",
    "mark as a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n%MARK%\r\n",
    "head too large": b"GET / HTTP/1.1\r\nHost: allowed.test\r\nX: "
    + b"%MARK%" * 9000
    + b"\r\n\r\n",
    "target too long": b"GET /" + b"%MARK%" * 2000 + b" HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
    "unknown coding": request(
        "POST", "/", "Content-Encoding: %MARK%", host=ALLOWED, body=b"x {{secrets.key.a}}"
    ),
}
MARK = b"mArKeR-of-the-request"


@pytest.mark.parametrize("name", BLOCKED)
def test_own_06_a_refusal_does_not_echo_the_request(
    name: str, alice: Client, upstream: Upstream
) -> None:
    data = BLOCKED[name].replace(b"%MARK%", MARK)
    answer = ask(alice, data)
    if name in ("TRACE", "OPTIONS *"):
        # The upstream's to answer, and it echoes here; we answer none of it by ourselves.
        assert answer is not None
        assert KEY_A not in answer.raw
        assert len(upstream.take()) <= 1
        return
    refused(answer)
    assert answer is None or MARK not in answer.raw
    assert upstream.take() == []


@pytest.mark.parametrize("where", ["credential", "user", "target", "host"])
def test_own_06_the_407_page_does_not_echo(where: str, stranger: Client) -> None:
    mark = MARK.decode()
    lines = {
        "credential": f"Proxy-Authorization: Bearer {mark}",
        "user": f"Proxy-Authorization: {mark}",
        "target": f"X: {mark}",
        "host": f"X-Y: {mark}",
    }
    with stranger.plain() as wire:
        answer = send(wire, stranger.connect_request(ALLOWED, 443, lines[where]), is_head=False)
    refused(answer, "proxy_auth_required")
    assert answer is not None
    assert MARK not in answer.raw


def test_own_06_the_pages_are_constant(alice: Client) -> None:
    """Two refusals of one kind differ in their id and in nothing else."""
    answers: list[Answer] = []
    for path in ("/a", "/b"):
        got = refused(ask(alice, request("GET", path, "X: {{secrets.no}}", host=ALLOWED)))
        assert got is not None
        answers.append(got)
    if answers[0].code:
        one, two = ({**answer.problem, "request_id": ""} for answer in answers)
        assert one == two


@pytest.mark.parametrize("place", ["reason", "field", "name", "body", "interim"])
def test_own_00_a_well_formed_answer_gets_through_without_the_value(
    place: str, alice: Client, upstream: Upstream, scripts: Scripts, detector: Detector
) -> None:
    parts = {
        "reason": b"HTTP/1.1 200 Fine %TOKEN%\r\nContent-Length: 2\r\n\r\nok",
        "field": OK + b"X: %TOKEN%\r\nContent-Length: 2\r\n\r\nok",
        "name": OK + b"%TOKEN%: 1\r\nContent-Length: 2\r\n\r\nok",
        "body": OK + b"Content-Length: 42\r\n\r\n%TOKEN%ok",
        "interim": b"HTTP/1.1 103 %TOKEN%\r\nLink: %TOKEN%\r\n\r\n"
        + OK
        + b"Content-Length: 2\r\n\r\nok",
    }
    path = scripts.add(parts[place], keep=True)
    answer = accepted(ask(alice, request("GET", path, KEY, host=ALLOWED)))
    assert answer.body.endswith(b"ok")
    assert detector.find(answer.raw) == []
