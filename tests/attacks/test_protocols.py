"""PROTO: whatever is no HTTP/1.1 is closed; nothing of it gets anywhere."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable

import pytest

from tests.attacks.client import Client, accepted, ask, refused, send
from tests.attacks.leaks import Detector
from tests.attacks.sites import Scripts
from tests.attacks.stage import ALLOWED, IS_NAIVE, KEY_A
from tests.attacks.watch import Attempt
from tests.e2e.upstream import Upstream
from tests.e2e.wire import Wire, request

KEY = "Authorization: Bearer {{secrets.key.a}}"
Dialled = Callable[[], list[Attempt]]

RAW: dict[str, bytes] = {
    "SSH": b"SSH-2.0-OpenSSH_9.9\r\n",
    "SMTP": b"EHLO x\r\nMAIL FROM:<a@b>\r\n",
    "plain HTTP": b"GET /echo HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
    "plain HTTP with a key": request("GET", "/echo", KEY, host=ALLOWED),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "noise": bytes(range(1, 256)) * 4,
    "zeros": bytes(1000),
    "redis": b"*1\r\n$4\r\nPING\r\n",
    "postgres": b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
    "SOCKS5": b"\x05\x01\x00",
    "SSLv2 hello": b"\x80\x2e\x01\x03\x00\x00\x15\x00\x00\x00\x10" + bytes(40),
    "TLS alert": b"\x15\x03\x01\x00\x02\x02\x00",
    "TLS, then nonsense": b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
    "TLS record too long": b"\x16\x03\x01\xff\xff" + bytes(2000),
    "DTLS hello": b"\x16\xfe\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05abcde",
    "DNS over TCP": b"\x00\x16\x12\x34\x01\x00\x00\x01"
    + bytes(6)
    + b"\x04test\x00\x00\x01\x00\x01",
}


def rest(wire: Wire) -> bytes:
    """All that comes until the end; empty if it does not end within a second."""
    wire.sock.settimeout(1.0)
    with contextlib.suppress(TimeoutError):
        return wire.rest()
    return wire.buffer


@pytest.mark.parametrize("name", RAW)
def test_proto_01_no_tls_in_a_tunnel(
    name: str, alice: Client, upstream: Upstream, dialled: Dialled
) -> None:
    with alice.plain() as wire:
        accepted(send(wire, alice.connect_request(ALLOWED), is_head=True))
        wire.send(RAW[name])
        came = rest(wire)
    # An alert of TLS or nothing: no answer of an upstream, and none of ours in the open.
    assert came[:1] in (b"", b"\x15")
    assert upstream.take() == []
    assert dialled() == []


@pytest.mark.parametrize("name", RAW)
def test_proto_01_no_http_in_tls(
    name: str, alice: Client, upstream: Upstream, dialled: Dialled
) -> None:
    if name.startswith("plain HTTP"):
        return  # in TLS that is what is wanted
    with alice.tunnel() as wire:
        wire.send(RAW[name])
        came = rest(wire)
    assert came[:12] in (b"", b"HTTP/1.1 400")
    assert upstream.take() == []
    assert dialled() == []


@pytest.mark.parametrize("name", RAW)
def test_proto_01_no_http_to_the_proxy(
    name: str, alice: Client, upstream: Upstream, dialled: Dialled
) -> None:
    with alice.plain() as wire:
        wire.send(RAW[name])
        came = rest(wire)
    assert came[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 407")
    assert upstream.take() == []
    assert dialled() == []


@pytest.mark.parametrize(
    "offered", [("h2",), ("spdy/3",), ("acme-tls/1",), ("ssh",), ("http/1.0",)]
)
def test_proto_01_unknown_alpn(offered: tuple[str, ...], alice: Client, upstream: Upstream) -> None:
    """No protocol is agreed on; what is spoken then is HTTP/1.1 or nothing."""
    try:
        with alice.tunnel(alpn=offered) as wire:
            assert wire.sock.selected_alpn_protocol() is None or IS_NAIVE
            answer = send(wire, request("GET", "/echo", KEY, host=ALLOWED))
            assert answer is None or KEY_A not in answer.raw
    except (ssl.SSLError, ConnectionError):
        pass
    assert len(upstream.take()) <= 1


@pytest.mark.parametrize("offered", [("http/1.1",), ("h2", "http/1.1"), ()])
def test_proto_00_alpn(offered: tuple[str, ...], alice: Client, upstream: Upstream) -> None:
    with alice.tunnel(alpn=offered) as wire:
        assert wire.sock.selected_alpn_protocol() in (None, "http/1.1")
        accepted(send(wire, request("GET", "/echo", KEY, host=ALLOWED)))
    assert upstream.one().all("authorization") == [b"Bearer " + KEY_A]


NESTED = [
    "CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443",
    "CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test:443",
    "CONNECT 10.1.2.3:22 HTTP/1.1\r\nHost: allowed.test",
    "CONNECT /echo HTTP/1.1\r\nHost: allowed.test",
    "CONNECT-UDP /masque HTTP/1.1\r\nHost: allowed.test",
    "CONNECT https://allowed.test/ HTTP/1.1\r\nHost: allowed.test",
    "PRI * HTTP/2.0",
]


@pytest.mark.parametrize("head", NESTED)
def test_proto_03_connect_inside_a_tunnel(
    head: str, alice: Client, upstream: Upstream, dialled: Dialled
) -> None:
    answer = ask(alice, head.encode() + b"\r\n" + KEY.encode() + b"\r\n\r\n")
    if head.startswith("CONNECT-UDP"):
        assert answer is not None  # a method like any other, and the upstream's to answer
        return
    refused(answer, "bad_request")
    assert upstream.take() == []
    assert dialled() == []


CONNECTS = ["CONNECT allowed.test HTTP/1.1", "CONNECT /x HTTP/1.1", "CONNECT * HTTP/1.1"]
CONNECTS += ["CONNECT http://allowed.test:443/ HTTP/1.1", "CONNECT allowed.test:443/x HTTP/1.1"]
CONNECTS += ["CONNECT allowed.test:443?x HTTP/1.1", "connect allowed.test:443 HTTP/1.1"]
CONNECTS += ["CONNECT allowed.test:443#x HTTP/1.1", "CONNECT u:p@allowed.test:443 HTTP/1.1"]
CONNECTS += ["CONNECT  HTTP/1.1", "CONNECT :443 HTTP/1.1", "CONNECT [::1 HTTP/1.1"]


@pytest.mark.parametrize("line", CONNECTS)
def test_proto_03_targets_of_connect(line: str, alice: Client, dialled: Dialled) -> None:
    data = "\r\n".join([line, f"Host: {ALLOWED}", *alice.identity, "", ""]).encode()
    with alice.plain() as wire:
        refused(send(wire, data, is_head=True), "bad_request")
    assert dialled() == []


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 5",),
        ("Transfer-Encoding: chunked",),
        ("Host: evil.test:443",),
        ("Content-Length: 0", "Content-Length: 5"),
    ],
)
def test_proto_03_fields_of_connect(
    lines: tuple[str, ...], alice: Client, dialled: Dialled
) -> None:
    with alice.plain() as wire:
        refused(send(wire, alice.connect_request(ALLOWED, 443, *lines), is_head=True))
    assert dialled() == []


WEBSOCKET = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
UPGRADES = [
    ("Connection: Upgrade", "Upgrade: foo"),
    ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 8"),
    ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    ("Connection: Upgrade", "Upgrade: websocket, foo", *WEBSOCKET[2:]),
    ("Connection: Upgrade", "Upgrade: TLS/1.3"),
    ("Connection: upgrade", "Upgrade: connect-udp"),
]


@pytest.mark.parametrize("lines", UPGRADES, ids=lambda lines: " ".join(lines[1:3]))
def test_proto_02_upgrades(lines: tuple[str, ...], alice: Client, upstream: Upstream) -> None:
    """The upstream that switches all the same is not relayed: 0 bytes of what it says after."""
    answer = ask(alice, request("GET", "/switch", KEY, *lines, host=ALLOWED))
    refused(answer, "response_withheld")
    for received in upstream.take():
        assert received.all("upgrade") == []
        assert received.all("connection") == []


# --- REF-20, REF-21: what an allowed host reflects over a WebSocket ------------------------------

SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
)
END = b"\x88\x02\x03\xe8"
TOKEN = len(KEY_A)  # `%TOKEN%` becomes so many bytes


def head(first: int, size: int) -> bytes:
    return bytes([first, size])


REFLECTED = {
    "text": head(0x81, TOKEN) + b"%TOKEN%",
    "binary": head(0x82, TOKEN) + b"%TOKEN%",
    "ping": head(0x89, TOKEN) + b"%TOKEN%",
    "pong": head(0x8A, TOKEN) + b"%TOKEN%",
    "close reason": head(0x88, TOKEN + 2) + b"\x0f\xa0%TOKEN%",
    "a fragment": head(0x01, TOKEN) + b"%TOKEN%" + head(0x80, 1) + b"!",
    "a ping inside a message": head(0x01, 1) + b"a" + head(0x89, TOKEN) + b"%TOKEN%" + b"\x80\0",
}
HALVES = {
    "fragments": (head(0x01, 20), head(0x80, TOKEN - 20)),
    "messages": (head(0x81, 20), head(0x81, TOKEN - 20)),
    "binary messages": (head(0x82, 20), head(0x82, TOKEN - 20)),
    "text, then binary": (head(0x81, 20), head(0x82, TOKEN - 20)),
}


def talk(alice: Client, path: str) -> bytes:
    """What a client hears that has opened the WebSocket at *path*, to its end."""
    with alice.tunnel() as wire:
        wire.send(request("GET", path, KEY, *WEBSOCKET, host=ALLOWED))
        return rest(wire)


@pytest.mark.parametrize("what", REFLECTED)
def test_ref_20_channels_of_a_websocket(
    what: str, alice: Client, scripts: Scripts, detector: Detector
) -> None:
    came = talk(alice, scripts.add(SWITCH + b"\r\n", 0.1, REFLECTED[what], 0.1, END))
    assert came.startswith(b"HTTP/1.1 101 ")
    assert b"********" in came
    assert detector.find(came) == []


@pytest.mark.parametrize("what", HALVES)
def test_ref_20_a_value_in_two_pieces(
    what: str, alice: Client, scripts: Scripts, detector: Detector
) -> None:
    one, two = HALVES[what]
    pieces = one + KEY_A[:20] + two + KEY_A[20:]
    came = talk(alice, scripts.add(SWITCH + b"\r\n", 0.1, pieces, 0.1, END))
    assert came.startswith(b"HTTP/1.1 101 ")
    assert b"********" in came
    assert detector.find(came) == []


def test_ref_20_the_head_of_the_handshake(
    alice: Client, scripts: Scripts, detector: Detector
) -> None:
    came = talk(alice, scripts.add(SWITCH + b"X: %TOKEN%\r\n\r\n", 0.1, END))
    assert b"X: ********\r\n" in came
    assert detector.find(came) == []


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(head(0xC1, TOKEN) + b"%TOKEN%", id="compressed"),
        pytest.param(head(0x83, TOKEN) + b"%TOKEN%", id="unknown opcode"),
        pytest.param(head(0x81, 0x80 | TOKEN) + b"\0\0\0\0%TOKEN%", id="masked"),
        pytest.param(b"%TOKEN%" * 8, id="no frames"),
    ],
)
def test_ref_21_what_is_no_frame_is_not_relayed(
    data: bytes, alice: Client, scripts: Scripts, detector: Detector
) -> None:
    came = talk(alice, scripts.add(SWITCH + b"\r\n", 0.1, data, 0.1))
    assert came.endswith(b"coatcheck: response_withheld")
    assert detector.find(came) == []


@pytest.mark.parametrize(
    "more",
    [b"Sec-WebSocket-Extensions: permessage-deflate\r\n", b"Content-Length: 5\r\n"],
    ids=["an extension", "a body"],
)
def test_ref_21_a_handshake_with_more_than_was_asked_for(
    more: bytes, alice: Client, scripts: Scripts
) -> None:
    path = scripts.add(SWITCH + more + b"\r\n" + REFLECTED["text"])
    refused(ask(alice, request("GET", path, KEY, *WEBSOCKET, host=ALLOWED)), "response_withheld")


def test_ref_21_another_key_is_no_handshake(alice: Client, scripts: Scripts) -> None:
    path = scripts.add(SWITCH.replace(b"s3pP", b"AAAA") + b"\r\n" + REFLECTED["text"])
    refused(ask(alice, request("GET", path, KEY, *WEBSOCKET, host=ALLOWED)), "response_withheld")
