"""Connections as they live and die: listening, draining, back-pressure, silence, crashes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import ssl
import struct
from pathlib import Path
from typing import Any

import pytest
import trustme

from coatcheck.core.limits import Limits
from coatcheck.engine import harden
from coatcheck.engine.dialer import Dialer
from coatcheck.engine.lane import Lane
from coatcheck.engine.server import Shared
from coatcheck.engine.tls import ClientTls
from coatcheck.listening import ListenError
from tests.engine.sockets import (
    HOST,
    Proxy,
    Serve,
    a_proxy,
    an_upstream,
    get,
    read_answer,
    server_context,
    until,
)
from tests.engine.wire import OK, VALUE

MIB = 1 << 20
KEY = "X-Key: {{secrets.key}}"


def code_of(answer: bytes) -> str:
    assert b"Content-Type: application/problem+json" in answer, "this is no refusal"
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["code"])


@contextlib.contextmanager
def nothing_left_over():  # type: ignore[no-untyped-def]
    """No task stays behind of what is done inside."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before
    assert not left, [task.get_coro() for task in left]


class Gated:
    """An upstream that answers a head when `gate` is opened."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.begun.set()
        await self.gate.wait()
        writer.write(OK)
        await reader.read()


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def echoing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while head := await reader.readuntil(b"\r\n\r\n"):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(head), head))


async def test_a_value_goes_up_and_does_not_come_down(tmp_path: Path) -> None:
    authority = trustme.CA()
    file = tmp_path / "upstream-ca.pem"
    authority.cert_pem.write_to_path(file)
    context = server_context(authority.issue_cert(HOST))
    async with (
        an_upstream(echoing, context) as upstream,
        a_proxy(tmp_path, upstream.port, upstream_ca=file) as proxy,
    ):
        reader, writer = await proxy.tunnel(f"{HOST}:{upstream.port}")
        for _ in range(2):
            host = f"Host: {HOST}:{upstream.port}\r\n"
            writer.write(f"GET / HTTP/1.1\r\n{host}{KEY}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            body = await reader.readuntil(b"\r\n0\r\n\r\n")
            assert b"X-Key: ********" in body
        writer.transport.abort()

    assert bytes(upstream.received).count(VALUE) == 2
    assert upstream.connections == 1


# --- listening -------------------------------------------------------------------------------


async def test_a_port_that_is_taken_is_told_with_the_next_step(tmp_path: Path) -> None:
    async with a_proxy(tmp_path, 1) as proxy:
        with pytest.raises(ListenError, match="--listen HOST:PORT") as error:
            await proxy.server.start("127.0.0.1", proxy.port)

    assert str(proxy.port) in str(error.value)


async def test_an_address_of_another_machine_cannot_be_listened_on(tmp_path: Path) -> None:
    async with a_proxy(tmp_path, 1) as proxy:
        with pytest.raises(ListenError):
            await proxy.server.start("192.0.2.1", 0)


def test_a_mitmproxy_that_does_not_fit_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(harden.NEEDED, harden.certs.CertStore, ("moved_away",))

    async def scene() -> None:
        async with a_proxy(tmp_path, 1):
            pass

    with pytest.raises(harden.UnsafeError, match="moved_away"):
        asyncio.run(scene())


# --- stopping --------------------------------------------------------------------------------


async def test_a_stop_lets_the_request_under_way_end_and_closes_the_idle(tmp_path: Path) -> None:
    gated = Gated()
    async with an_upstream(gated) as upstream, a_proxy(tmp_path, upstream.port) as proxy:
        idle, idle_writer = await proxy.connect()
        busy, busy_writer = await proxy.connect()
        busy_writer.write(get(upstream.port))
        await gated.begun.wait()

        stopping = asyncio.create_task(proxy.server.stop(10))
        assert await asyncio.wait_for(idle.read(), 1) == b"", "an idle one is closed at once"
        with pytest.raises(ConnectionRefusedError):
            await proxy.connect()
        assert not stopping.done()
        gated.gate.set()

        assert (await read_answer(busy)).startswith(b"HTTP/1.1 200 OK")
        await asyncio.wait_for(stopping, 1)  # though this client would keep its connection
        assert await busy.read() == b""
        idle_writer.close()
        busy_writer.close()


@pytest.mark.parametrize("kept", [True, False], ids=["on a kept connection", "and it closes"])
async def test_a_stop_waits_for_a_client_that_reads_slowly(kept: bool, tmp_path: Path) -> None:
    """The end of its answer lies with us, though the request is over and forgotten."""
    async with a_proxy(tmp_path, 1) as proxy:
        reader, writer = await proxy.connect()
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await until(lambda: bool(proxy.server.connections))
        (connection,) = proxy.server.connections
        connection.send(b"x" * 16 * MIB)  # more than the sockets between them take
        if not kept:
            connection.close()
        stopping = asyncio.create_task(proxy.server.stop(10))
        await asyncio.sleep(0.2)
        assert not stopping.done()

        reader._transport.resume_reading()  # type: ignore[attr-defined]

        assert len(await reader.read(-1)) == 16 * MIB
        await asyncio.wait_for(stopping, 2)
        writer.close()


async def test_but_not_for_one_that_does_not_read(tmp_path: Path) -> None:
    async with a_proxy(tmp_path, 1) as proxy:
        reader, writer = await proxy.connect()
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await until(lambda: bool(proxy.server.connections))
        (connection,) = proxy.server.connections
        connection.send(b"x" * 16 * MIB)

        await asyncio.wait_for(proxy.server.stop(0.2), 2)

        assert not connection._client.is_behind
        writer.transport.abort()


async def test_a_stop_does_not_wait_for_ever(tmp_path: Path) -> None:
    async with an_upstream(silent) as upstream:
        with nothing_left_over():
            async with a_proxy(tmp_path, upstream.port) as proxy:
                reader, writer = await proxy.connect()
                writer.write(get(upstream.port))
                await until(lambda: upstream.open == 1)

                await asyncio.wait_for(proxy.server.stop(0.2), 2)

                assert await reader.read() == b""
                writer.close()
                await until(lambda: upstream.open == 0)


# --- how many --------------------------------------------------------------------------------


async def test_connections_that_say_nothing_keep_nobody_out(tmp_path: Path) -> None:
    limits = Limits(connections_per_client=4)
    async with (
        an_upstream() as upstream,
        a_proxy(tmp_path, upstream.port, limits=limits) as proxy,
    ):
        honest, honest_writer = await proxy.connect()
        honest_writer.write(get(upstream.port))
        await read_answer(honest)
        mute = [await proxy.connect() for _ in range(6)]

        assert await asyncio.wait_for(mute[0][0].read(), 2) == b"", "the oldest made room"
        assert await asyncio.wait_for(mute[1][0].read(), 2) == b""
        await until(lambda: len(proxy.server.connections) == 5)
        assert await served(proxy, upstream.port)
        honest_writer.write(get(upstream.port))
        assert (await read_answer(honest)).startswith(b"HTTP/1.1 200 ")
        for _, writer in [*mute, (honest, honest_writer)]:
            writer.close()
        await until(lambda: not proxy.server.connections)

        assert [event for event, _ in proxy.events] == ["client.made_room"] * 2


@pytest.mark.parametrize("tunnel", [False, True], ids=["a plain request", "a CONNECT"])
async def test_a_client_over_its_bound_is_told_so_and_closed(tunnel: bool, tmp_path: Path) -> None:
    limits = Limits(connections_per_client=2)
    async with (
        an_upstream() as upstream,
        a_proxy(tmp_path, upstream.port, limits=limits) as proxy,
    ):
        request = get(upstream.port)
        if tunnel:
            request = b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"
        held = [await proxy.connect() for _ in range(2)]
        for reader, writer in held:
            writer.write(get(upstream.port))
            await read_answer(reader)
        over, over_writer = await proxy.connect()
        over_writer.write(request)

        answer = await read_answer(over)

        assert answer.startswith(b"HTTP/1.1 429 ")
        assert code_of(answer) == "too_many_connections"
        assert b"\r\nConnection: close\r\n" in answer
        held[0][1].close()
        await until(lambda: len(proxy.server.connections) == 2)
        assert await served(proxy, upstream.port), "and who closes one may open one"
        over_writer.close()
        held[1][1].close()


async def test_when_files_run_out_the_listener_comes_back_without_spinning(tmp_path: Path) -> None:
    async with an_upstream() as upstream, a_proxy(tmp_path, upstream.port) as proxy:
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(socket.socket()) for _ in range(300)]
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            top = max(sock.fileno() for sock in socks) + 1
            resource.setrlimit(resource.RLIMIT_NOFILE, (top + 20, before[1]))
            stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
            for sock in socks:
                sock.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    sock.connect(("127.0.0.1", proxy.port))
            await until(lambda: ("serve.accept_failed", {"error": "EMFILE"}) in proxy.events)
            await asyncio.sleep(0.5)
            assert len(proxy.server.connections) <= 20
            assert len(proxy.events) == 1

            for sock in socks:
                sock.close()
            await until(lambda: not proxy.server.connections)

            assert await served(proxy, upstream.port)


# --- memory ----------------------------------------------------------------------------------


async def test_an_upload_waits_in_its_socket_while_we_dial(tmp_path: Path) -> None:
    received = 0

    async def sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        await reader.readuntil(b"\r\n\r\n")
        while received < size:
            received += len(await reader.read(MIB))
        writer.write(OK)

    size = 24 * MIB
    async with an_upstream(sink) as upstream, a_proxy(tmp_path, upstream.port) as proxy:
        proxy.resolver.gate.clear()
        reader, writer = await proxy.connect()
        sent = 0

        async def upload() -> None:
            nonlocal sent
            head = f"POST http://{HOST}:{upstream.port}/ HTTP/1.1\r\nHost: {HOST}:{upstream.port}"
            kind = "Content-Type: application/octet-stream"
            writer.write(f"{head}\r\n{kind}\r\nContent-Length: {size}\r\n\r\n".encode())
            for _ in range(size // (64 * 1024)):
                writer.write(b"x" * 64 * 1024)
                await writer.drain()
                sent += 64 * 1024

        uploading = asyncio.create_task(upload())
        last = -1
        while sent != last:  # until it stands still
            last = sent
            await asyncio.sleep(0.1)
        assert sent < size / 2, "the client is held back"
        (connection,) = proxy.server.connections
        assert connection._lane is not None
        assert len(connection._lane._buffer) < MIB

        proxy.resolver.gate.set()
        await uploading
        assert (await read_answer(reader)).startswith(b"HTTP/1.1 200 OK")
        writer.close()

    assert received == size


async def test_a_download_waits_for_a_client_that_does_not_read(tmp_path: Path) -> None:
    sent = 0
    size = 64 * MIB

    async def source(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(b"x" * 64 * 1024)
            await writer.drain()
            sent += 64 * 1024

    async with an_upstream(source) as upstream, a_proxy(tmp_path, upstream.port) as proxy:
        reader, writer = await proxy.connect()
        writer.write(get(upstream.port))
        await reader.readuntil(b"\r\n\r\n")
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        last = -1
        while sent != last:
            last = sent
            await asyncio.sleep(0.1)

        assert sent < size / 2
        writer.transport.abort()


async def test_a_client_that_does_not_read_its_answers_is_not_read_from(tmp_path: Path) -> None:
    """A refusal is longer than the request that earned it: they would pile up with us."""
    async with a_proxy(tmp_path, 1) as proxy:
        reader, writer = await proxy.connect()
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await until(lambda: bool(proxy.server.connections))
        (connection,) = proxy.server.connections
        assert not connection._client.is_paused

        connection.send(b"x" * 16 * MIB)  # more than the sockets between them take
        assert connection._client.is_paused
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        await reader.readexactly(16 * MIB)

        await until(lambda: not connection._client.is_paused)
        writer.close()


async def test_a_client_that_sends_thousands_of_bad_requests_holds_nobody_up(
    tmp_path: Path,
) -> None:
    async with an_upstream() as upstream, a_proxy(tmp_path, upstream.port) as proxy:
        _, writer = await proxy.connect()
        writer.write(get(upstream.port, "/", "X: {{secrets.nobody}}") * 2000)
        await until(lambda: len(proxy.events) > 10)

        assert await served(proxy, upstream.port)

        refused = [event for event, _ in proxy.events if event == "request.refused"]
        assert len(refused) < 2000, "it was served before the last of them"
        writer.transport.abort()


# --- silence ---------------------------------------------------------------------------------


async def test_others_are_told_how_many_connections_there_are_until_it_takes_no_more(
    tmp_path: Path,
) -> None:
    told: list[int | str] = []
    async with a_proxy(tmp_path, 1) as proxy:
        proxy.server._shared = Shared(told.append, lambda: False, lambda: told.append("left"))
        _, one = await proxy.connect()
        _, two = await proxy.connect()
        await until(lambda: told == [1, 2])
        one.close()
        await until(lambda: told[-1] == 1)

        await proxy.server.stop(0.2)
        two.close()

    assert told[-1] == "left"
    assert told.count("left") == 1


async def test_a_connection_without_a_byte_is_closed(tmp_path: Path) -> None:
    limits = Limits(idle_timeout_s=0.2)
    async with a_proxy(tmp_path, 1, limits=limits) as proxy:
        reader, writer = await proxy.connect()

        assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.close()


async def test_an_upstream_that_does_not_answer_is_a_timeout(tmp_path: Path) -> None:
    limits = Limits(response_timeout_s=0.2)
    async with (
        an_upstream(silent) as upstream,
        a_proxy(tmp_path, upstream.port, limits=limits) as proxy,
    ):
        reader, writer = await proxy.connect()
        writer.write(get(upstream.port))

        answer = await read_answer(reader)

        assert answer.startswith(b"HTTP/1.1 504 ")
        assert code_of(answer) == "upstream_timeout"
        await until(lambda: upstream.open == 0)
        writer.close()


async def test_an_answer_in_time_is_no_timeout(tmp_path: Path) -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.3)
        writer.write(OK)

    limits = Limits(response_timeout_s=3, idle_timeout_s=0.1)
    async with (
        an_upstream(slow) as upstream,
        a_proxy(tmp_path, upstream.port, limits=limits) as proxy,
    ):
        reader, writer = await proxy.connect()
        writer.write(get(upstream.port))

        assert (await read_answer(reader)).startswith(b"HTTP/1.1 200 ")
        writer.close()


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"GET http://", id="a head"),
        pytest.param(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", id="a TLS handshake"),
    ],
)
async def test_what_has_begun_has_to_end_in_time(begun: bytes, tmp_path: Path) -> None:
    limits = Limits(head_timeout_s=0.2, tls_handshake_timeout_s=0.2)
    async with a_proxy(tmp_path, 1, limits=limits) as proxy:
        reader, writer = await proxy.connect()
        writer.write(begun)

        async def drip() -> None:
            with contextlib.suppress(OSError):
                for _ in range(100):
                    writer.write(b"\x16" if b"CONNECT" in begun else b"a")
                    await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        with contextlib.suppress(ConnectionResetError):  # closed on a byte that was under way
            await asyncio.wait_for(reader.read(), 4)
        dripping.cancel()
        writer.transport.abort()


# --- ends and crashes ------------------------------------------------------------------------


def reset(writer: asyncio.StreamWriter) -> None:
    """Leave without a goodbye."""
    sock: Any = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 4096)
        await writer.drain()
        await asyncio.sleep(0.01)


VANISHING: list[Any] = [
    pytest.param(silent, b"", id="before a request"),
    pytest.param(silent, b"GET http://api.exa", id="in a head"),
    pytest.param(silent, "get", id="while an answer is due"),
    pytest.param(endless, "get", id="in a download"),
    pytest.param(silent, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", id="before TLS"),
    pytest.param(silent, b"GET / HTTP/1.1\r\n\r\n", id="after a refusal"),
]


@pytest.mark.parametrize(("serve", "request_"), VANISHING)
@pytest.mark.parametrize("rude", [True, False], ids=["by a reset", "by a close"])
async def test_a_client_that_leaves_leaves_nothing_behind(
    serve: Serve, request_: bytes | str, rude: bool, tmp_path: Path
) -> None:
    async with an_upstream(serve) as upstream:
        with nothing_left_over():
            async with a_proxy(tmp_path, upstream.port) as proxy:
                _, writer = await proxy.connect()
                writer.write(get(upstream.port) if isinstance(request_, str) else request_)
                await until(lambda: bool(proxy.server.connections))
                if isinstance(request_, str):
                    await until(lambda: upstream.open == 1)

                await asyncio.sleep(0.05)
                if rude:
                    reset(writer)
                else:
                    writer.close()

                await until(lambda: not proxy.server.connections)
                await until(lambda: upstream.open == 0)


async def test_a_client_that_leaves_while_we_dial_leaves_nothing_behind(tmp_path: Path) -> None:
    async with an_upstream(silent) as upstream:
        with nothing_left_over():
            async with a_proxy(tmp_path, upstream.port) as proxy:
                proxy.resolver.gate.clear()
                _, writer = await proxy.connect()
                writer.write(get(upstream.port))
                await until(lambda: bool(proxy.server.connections))
                await asyncio.sleep(0.05)

                reset(writer)
                await asyncio.sleep(0.05)
                proxy.resolver.gate.set()

                await until(lambda: not proxy.server.connections)
                await until(lambda: upstream.open == 0)


async def served(proxy: Proxy, port: int) -> bool:
    reader, writer = await proxy.connect()
    writer.write(get(port))
    try:
        return (await read_answer(reader)).startswith(b"HTTP/1.1 200 ")
    finally:
        writer.close()


async def is_ended(reader: asyncio.StreamReader) -> bool:
    """Whether it ends without another byte, and soon."""
    try:
        return await asyncio.wait_for(reader.read(), 2) == b""
    except TimeoutError:
        return False


async def test_the_crash_of_one_connection_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = Lane.client_data

    def crashing(self: Lane, data: bytes) -> None:
        if b"CRASH" in data:
            raise RuntimeError("quoting " + VALUE.decode())
        handle(self, data)

    monkeypatch.setattr(Lane, "client_data", crashing)
    async with an_upstream() as upstream, a_proxy(tmp_path, upstream.port) as proxy:
        other, other_writer = await proxy.connect()
        other_writer.write(get(upstream.port))
        await read_answer(other)
        reader, writer = await proxy.connect()
        writer.write(b"CRASH")

        assert await is_ended(reader)
        assert ("engine.crash", {"what": "lane"}) in proxy.events
        other_writer.write(get(upstream.port))
        assert (await read_answer(other)).startswith(b"HTTP/1.1 200 ")
        assert await served(proxy, upstream.port)
        assert VALUE.decode() not in str(proxy.events)
        writer.close()
        other_writer.close()


async def test_a_client_whose_tls_cannot_be_set_up_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: ClientTls, host: str) -> ssl.SSLContext:
        raise ValueError

    monkeypatch.setattr(ClientTls, "context", broken)
    async with an_upstream() as upstream, a_proxy(tmp_path, upstream.port) as proxy:
        with pytest.raises(OSError):  # noqa: PT011 whatever a handshake that is broken off gives
            await proxy.tunnel("api.example.com:443")

        assert ("client.tls_not_started", {"error": "ValueError"}) in proxy.events
        assert await served(proxy, upstream.port)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        pytest.param(ValueError("text"), 500, "internal_error", id="a bug"),
        pytest.param(None, 502, "upstream_unreachable", id="a refusal"),
    ],
)
async def test_a_dial_that_fails_is_an_answer(
    error: Exception | None,
    status: int,
    code: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dial = Dialer.dial

    async def failing(self: Dialer, host: str, port: int, **more: Any) -> Any:
        if error is not None:
            raise error
        return await dial(self, host, 1, **more)

    monkeypatch.setattr(Dialer, "dial", failing)
    async with an_upstream() as upstream, a_proxy(tmp_path, upstream.port) as proxy:
        reader, writer = await proxy.connect()
        for _ in range(2):
            writer.write(get(upstream.port))
            answer = await read_answer(reader)
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert code_of(answer) == code
            assert b"text" not in answer.partition(b"\r\n\r\n")[2]
        writer.close()

    assert upstream.connections == 0
