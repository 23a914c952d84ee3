"""What the engine measures: how long requests wait for us and for upstreams, and over which
connections they go. Each connection, handshake and dial is counted once.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from coatcheck.core.limits import Limits
from coatcheck.core.meter import Spread
from coatcheck.core.problems import Code
from tests.engine.sockets import (
    HOST,
    Proxy,
    a_proxy,
    an_upstream,
    get,
    read_answer,
    server_context,
    until,
)
from tests.engine.wire import OK, Wire, a_get, a_post

KEY = b"X-Key: {{secrets.key}}"
OURS_S = 0.25  # what each of our own steps takes here
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


class Slow(Wire):
    """A wire on which deciding takes `OURS_S`, and so does reading an answer's head."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.gateway.begin = self._slowed(self.gateway.begin)  # type: ignore[method-assign]

    def _slowed[T](self, step: Callable[..., T]) -> Callable[..., T]:
        def slow(*given: Any, **more: Any) -> T:
            self.clock += OURS_S
            made: Any = step(*given, **more)
            if hasattr(made, "response"):
                made.response = self._slowed(made.response)
            return made  # type: ignore[no-any-return]

        return slow

    def after(self, seconds: float) -> Slow:
        self.clock += seconds
        return self


def times(spread: Spread) -> tuple[int, float]:
    """How many, and how long in all."""
    return sum(spread.counts), spread.sum


def measured(wire: Wire) -> tuple[tuple[int, float], tuple[int, float]]:
    """What we added, and what the upstream took."""
    return times(wire.meter.added), times(wire.meter.upstream_response)


# --- time ------------------------------------------------------------------------------------


def test_a_request_on_an_open_connection() -> None:
    wire = Slow()

    for _ in range(2):
        wire.send(a_get(b"/", KEY))
        wire.after(4.0).answer(OK)

    assert measured(wire) == ((2, 4 * OURS_S), (2, 8.0))


def test_connecting_is_neither_ours_nor_the_upstream_s() -> None:
    wire = Slow()
    wire.holding = True

    wire.send(a_get(b"/", KEY))
    wire.after(100.0).let_dial()
    wire.after(4.0).answer(OK)

    assert measured(wire) == ((1, 2 * OURS_S), (1, 4.0))


def test_an_answer_in_pieces_is_waited_for() -> None:
    wire = Slow()
    wire.send(a_get(b"/", KEY))

    for piece in (OK[:9], OK[9:30], OK[30:-1], OK[-1:]):
        wire.after(1.0).answer(piece)

    assert measured(wire) == ((1, 2 * OURS_S), (1, 1.0))


def test_an_interim_answer_is_the_first_byte_but_not_the_answer() -> None:
    wire = Slow()
    wire.send(a_get(b"/", KEY))

    wire.after(1.0).answer(EARLY)
    wire.after(50.0).answer(OK)

    assert measured(wire) == ((1, 2 * OURS_S), (1, 1.0))


def test_a_body_that_is_read_whole_is_waited_for() -> None:
    wire = Slow()
    request = a_post(b'{"a": 1}')
    wire.send(request[:-3])

    wire.after(70.0).send(request[-3:])
    wire.after(4.0).answer(OK)

    assert measured(wire) == ((1, OURS_S), (1, 4.0))


def test_a_refused_request_is_no_time_of_an_upstream() -> None:
    wire = Slow()

    wire.send(a_get(b"/", b"X: {{secrets.nobody}}"))

    assert measured(wire) == ((0, 0.0), (0, 0.0))


def test_an_answer_that_is_withheld_was_waited_for() -> None:
    wire = Slow()

    wire.send(a_get(b"/", KEY))
    wire.after(4.0).answer(b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\n\r\nx")

    assert measured(wire) == ((0, 0.0), (1, 4.0))


# --- connections -----------------------------------------------------------------------------


def test_requests_are_counted_by_what_they_went_over() -> None:
    first = Wire()
    for _ in range(3):
        first.send(a_get())
        first.answer(OK)
    first.leave()

    second = Wire(first.gateway, resting=first.resting)
    second.send(a_get())
    second.answer(OK)

    assert first.meter.upstream_requests.values == {("new",): 1, ("kept",): 2}
    assert second.meter.upstream_requests.values == {("rested",): 1}


def test_a_request_that_is_sent_again_is_counted_once() -> None:
    wire = Wire()
    wire.send(a_get())
    wire.answer(OK)
    wire.send(a_get())

    wire.hang_up()
    wire.answer(OK)

    assert len(wire.upstreams) == 2
    assert wire.meter.upstream_requests.values == {("new",): 1, ("kept",): 1}
    assert times(wire.meter.upstream_response)[0] == 2


async def ask(proxy: Proxy, port: int) -> None:
    reader, writer = await proxy.connect()
    writer.write(get(port))
    await read_answer(reader)
    writer.close()


async def test_connections_and_dials_are_counted(tmp_path: Path) -> None:
    async with an_upstream() as upstream, a_proxy(tmp_path, upstream.port) as proxy:
        meter = proxy.server.services.meter

        await ask(proxy, upstream.port)

        assert meter.client_connections.values == {("admitted",): 1}
        assert meter.upstream_connections.values == {("made",): 1}
        count, seconds = times(meter.upstream_connect)
        assert count == 1
        assert 0 < seconds < 5


async def test_a_dial_that_fails_is_counted_with_its_code(tmp_path: Path) -> None:
    async with an_upstream() as upstream:
        port = upstream.port
    async with a_proxy(tmp_path, port) as proxy:
        meter = proxy.server.services.meter

        await ask(proxy, port)

        assert meter.upstream_connections.values == {(str(Code.UPSTREAM_UNREACHABLE),): 1}
        assert times(meter.upstream_connect) == (0, 0.0)


async def test_who_is_turned_away_is_counted(tmp_path: Path) -> None:
    limits = Limits(connections=1)
    async with an_upstream() as upstream, a_proxy(tmp_path, upstream.port, limits=limits) as proxy:
        reader, writer = await proxy.connect()
        writer.write(get(upstream.port))
        await read_answer(reader)  # so it is a client's, and makes no room

        other, closed = await proxy.connect()
        with contextlib.suppress(ConnectionError):
            assert await other.read() == b""
        closed.close()

        found = proxy.server.services.meter.client_connections.values
        assert found == {("admitted",): 1, ("turned_away",): 1}
        writer.close()


async def test_handshakes_are_counted_by_how_they_end(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "upstream.pem")
    context = server_context(authority.issue_cert(HOST))
    async with (
        an_upstream(context=context) as upstream,
        a_proxy(tmp_path, upstream.port, upstream_ca=tmp_path / "upstream.pem") as proxy,
    ):
        found = proxy.server.services.meter.client_handshakes.values

        _, writer = await proxy.tunnel(f"{HOST}:{upstream.port}")
        await until(lambda: found == {("full",): 1})
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await proxy.tunnel(f"{HOST}:{upstream.port}", context=ssl.create_default_context())
        await until(lambda: found == {("full",): 1, ("failed",): 1})
        writer.close()


async def test_a_session_that_is_resumed_is_told_apart(tmp_path: Path) -> None:
    async with an_upstream() as upstream, a_proxy(tmp_path, upstream.port) as proxy:
        found = proxy.server.services.meter.client_handshakes.values
        context = proxy.trusting()
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # a ticket comes with the handshake
        target = f"{HOST}:{upstream.port}"

        session = await asyncio.to_thread(shaken, proxy.port, target, context, None)
        await asyncio.to_thread(shaken, proxy.port, target, context, session)

        await until(lambda: found == {("full",): 1, ("resumed",): 1})


def shaken(
    port: int, target: str, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> ssl.SSLSession | None:
    """A handshake inside a tunnel, with asyncio's out of the way: it hands no sessions out."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
        with context.wrap_socket(sock, server_hostname=HOST, session=session) as wrapped:
            return wrapped.session
