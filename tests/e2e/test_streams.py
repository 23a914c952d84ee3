"""Event streams through the scrubber: an event is on its way when it is complete, and alone.

What may go to other.example.test has no short lines, so streams from there are let go event by
event. The upstream sends one only when the client has the one before, so one that is delayed to the
next would never come; and each chunk that the client gets is one event, so none are merged.
"""

from __future__ import annotations

import pytest

from tests.e2e.upstream import Exchange, Upstream
from tests.e2e.wire import Dial, Wire, request

HOST = "other.example.test"
VALUE = b"wildcard-5d0f12ab34"
KEY = "Authorization: Bearer {{secrets.wild.key}}"
EVENTS: dict[str, tuple[bytes, list[bytes]]] = {
    "LF": (b"text/event-stream", [b"data: %d of " % n + VALUE + b"\n\n" for n in range(5)]),
    "CRLF": (b"text/event-stream; charset=utf-8", [b"id: 1\r\ndata: " + VALUE + b"\r\n\r\n"] * 3),
    "CR": (b"text/event-stream", [b"data: " + VALUE + b"\r\r"] * 3),
    "several lines of data": (
        b"text/event-stream",
        [b"event: x\ndata: {\ndata: " + VALUE + b"\ndata: }\n\n"] * 3,
    ),
    "comments to keep it open": (
        b"text/event-stream",
        [b":\n\n", b": ping " + VALUE + b"\n\n"] * 2,
    ),
    "the end of a language model's": (
        b"text/event-stream",
        [b'data: {"choices":[{"delta":{"content":" the"}}]}\n\n'] * 3 + [b"data: [DONE]\n\n"],
    ),
    "one of 100 kB": (b"text/event-stream", [b"data: " + b"x" * 100_000 + VALUE + b"\n\n"] * 2),
    "NDJSON": (b"application/x-ndjson", [b'{"n":%d,"v":"' % n + VALUE + b'"}\n' for n in range(4)]),
    "JSON lines": (b"application/jsonl", [b'{"v":"' + VALUE + b'"}\n'] * 3),
}


def chunk(wire: Wire) -> bytes:
    size = int(wire.until(b"\r\n"), 16)
    return wire.exactly(size + 2)[:-2]


@pytest.mark.parametrize("framing", ["chunked", "until it closes"])
@pytest.mark.parametrize(("kind", "events"), EVENTS.values(), ids=EVENTS.keys())
def test_an_event_comes_when_it_is_complete_and_alone(
    kind: bytes, events: list[bytes], framing: str, runner: Dial, upstream: Upstream
) -> None:
    gate = upstream.gate("streamed")
    chunked = framing == "chunked"

    async def stream(at: Exchange) -> bool:
        line = b"Transfer-Encoding: chunked\r\n" if chunked else b""
        await at.send(b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\n" + line + b"\r\n")
        for event in events:
            await at.wait_gate()
            await at.send(b"%x\r\n%b\r\n" % (len(event), event) if chunked else event)
        if chunked:
            await at.send(b"0\r\n\r\n")
        at.writer.close()
        return False

    upstream.modes["stream"] = stream
    with runner.tunnel(HOST) as wire:
        wire.send(request("GET", "/stream/streamed", KEY, host=HOST))
        wire.until(b"\r\n\r\n")
        for event in events:
            gate.release()
            expected = event.replace(VALUE, b"********")
            got = chunk(wire)
            while len(event) > 16_384 and len(got) < len(expected):  # several TLS records
                got += chunk(wire)
            assert got == expected
        assert wire.until(b"0\r\n\r\n") == b"0\r\n\r\n"
    assert VALUE not in bytes(wire.seen)


def test_an_event_in_pieces_comes_with_its_last(runner: Dial, upstream: Upstream) -> None:
    """Cut in the middle of a value: no piece of it is let go before."""
    gate = upstream.gate("pieces")
    pieces = [b"data: one " + VALUE[:9], VALUE[9:] + b" two", b" three\n", b"\n"]

    async def stream(at: Exchange) -> bool:
        await at.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for piece in pieces:
            await at.send(piece)
            await at.wait_gate()
        at.writer.close()
        return False

    upstream.modes["pieces"] = stream
    with runner.tunnel(HOST) as wire:
        wire.send(request("GET", "/pieces/pieces", KEY, host=HOST))
        wire.until(b"\r\n\r\n")
        for _ in pieces[:-1]:
            wire.sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                chunk(wire)
            gate.release()
        wire.sock.settimeout(20)
        assert chunk(wire) == b"data: one ******** two three\n\n"
        gate.release()
        wire.until(b"0\r\n\r\n")
