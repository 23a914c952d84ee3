"""One socket, plain or under TLS: what its owner hears, and what is held."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable

import pytest
import trustme

from coatcheck.engine import channel as channel_module
from coatcheck.engine.channel import HIGH_WATER, Channel
from tests.engine.sockets import HOST, until

CA = trustme.CA()
LEAF = CA.issue_cert(HOST)


class Listening:
    """An owner that keeps what it is told, and may be made to fail."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.data = b""
        self.failing = ""

    def _note(self, event: str) -> None:
        self.events.append(event)
        if event == self.failing:
            raise ValueError("a bug of the owner")

    def received(self, channel: Channel, data: bytes, /) -> None:
        self.data += data
        self._note("received")

    def secured(self, channel: Channel, /) -> None:
        self._note("secured")

    def closed(self, channel: Channel, /) -> None:
        self._note("closed")

    def full(self, channel: Channel, /) -> None:
        self._note("full")

    def drained(self, channel: Channel, /) -> None:
        self._note("drained")

    def crashed(self, channel: Channel, /) -> None:
        self.events.append("crashed")


class Pair:
    """A channel, its owner, and the blocking socket at the other end."""

    def __init__(self, channel: Channel, owner: Listening, peer: socket.socket) -> None:
        self.channel = channel
        self.owner = owner
        self.peer = peer

    async def peer_gets(self, size: int) -> bytes:
        return await asyncio.to_thread(self.peer.recv, size)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(5)
    owner = Listening()
    channel = Channel(asyncio.get_running_loop(), ours, owner)
    made = Pair(channel, owner, theirs)
    yield made
    channel.abort()
    made.peer.close()
    await asyncio.sleep(0)


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    LEAF.configure_cert(context)
    return context


def client_context(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    CA.configure_trust(context)
    context.maximum_version = version
    return context


async def secured(pair: Pair, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLSocket:
    """The client at the other end, once TLS stands. An end without a goodbye raises there."""
    pair.channel.start_tls(server_context(), server_side=True)
    wrap = client_context(version).wrap_socket
    client = await asyncio.to_thread(
        lambda: wrap(pair.peer, server_hostname=HOST, suppress_ragged_eofs=False)
    )
    pair.peer = client
    await until(lambda: "secured" in pair.owner.events)
    return client


# --- plain -----------------------------------------------------------------------------------


async def test_bytes_go_both_ways_and_the_end_is_told_once(pair: Pair) -> None:
    pair.peer.sendall(b"question")
    await until(lambda: pair.owner.data == b"question")
    pair.channel.write(b"answer")
    assert await pair.peer_gets(6) == b"answer"

    pair.peer.close()
    await until(lambda: "closed" in pair.owner.events)
    await asyncio.sleep(0.05)

    assert pair.owner.events == ["received", "closed"]
    assert not pair.channel.is_open


async def test_what_was_written_is_sent_before_it_closes(pair: Pair) -> None:
    pair.channel.write(b"last words")
    pair.channel.close()

    assert await pair.peer_gets(100) == b"last words"
    assert await pair.peer_gets(100) == b""
    assert "closed" not in pair.owner.events, "who closes it knows"


async def test_writing_to_a_closed_one_does_nothing(pair: Pair) -> None:
    pair.channel.close()
    pair.channel.write(b"too late")

    assert await pair.peer_gets(100) == b""


async def test_a_peer_that_does_not_read_is_told_of_until_it_does(pair: Pair) -> None:
    pair.channel.write(b"x" * (4 * HIGH_WATER))
    assert pair.channel.is_full
    assert pair.owner.events == ["full"]

    got = 0
    while got < 4 * HIGH_WATER:
        got += len(await pair.peer_gets(1 << 20))

    await until(lambda: not pair.channel.is_full)
    assert pair.owner.events == ["full", "drained"]


async def test_a_paused_one_leaves_what_comes_in_its_socket(pair: Pair) -> None:
    pair.channel.pause()
    pair.peer.sendall(b"wait")
    await asyncio.sleep(0.05)
    assert pair.owner.data == b""

    pair.channel.resume()

    await until(lambda: pair.owner.data == b"wait")


async def test_a_closed_one_does_not_wait_for_ever_for_a_peer_that_does_not_read(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would hold a file and what it was sent, after its place in the counts is free."""
    monkeypatch.setattr(channel_module, "LAST_WORDS_S", 0.1)
    pair.channel.write(b"x" * (4 * HIGH_WATER))
    pair.channel.close()

    await until(lambda: pair.channel._sock.fileno() < 0)

    assert not pair.channel._backlog


async def test_and_waits_for_one_that_reads_slowly(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "LAST_WORDS_S", 0.1)
    pair.channel.write(b"x" * (4 * HIGH_WATER))
    pair.channel.close()

    got = 0
    while data := await pair.peer_gets(HIGH_WATER // 2):
        got += len(data)
        await asyncio.sleep(0.05)

    assert got == 4 * HIGH_WATER


async def test_a_half_closed_one_still_gets_what_was_written(pair: Pair) -> None:
    pair.channel.write(b"x" * (4 * HIGH_WATER))
    pair.peer.shutdown(socket.SHUT_WR)
    await until(lambda: "closed" in pair.owner.events)

    got = 0
    while data := await pair.peer_gets(1 << 20):
        got += len(data)

    assert got == 4 * HIGH_WATER


@pytest.mark.parametrize("event", ["received", "closed"])
async def test_a_bug_of_the_owner_ends_it_and_nothing_follows(event: str, pair: Pair) -> None:
    pair.owner.failing = event

    if event == "received":
        pair.peer.sendall(b"boom")
    else:
        pair.peer.close()
    await until(lambda: "crashed" in pair.owner.events)
    await asyncio.sleep(0.05)

    assert pair.owner.events[-2:] == [event, "crashed"]
    assert not pair.channel.is_open


# --- TLS -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_bodies_of_several_records_go_both_ways(version: ssl.TLSVersion, pair: Pair) -> None:
    client = await secured(pair, version)
    body = b"y" * 100_000

    await asyncio.to_thread(client.sendall, body)
    await until(lambda: pair.owner.data == body)
    pair.channel.write(body)
    got = b""
    while len(got) < len(body):
        got += await asyncio.to_thread(client.recv, 1 << 20)

    assert got == body


async def test_a_session_ticket_goes_with_the_answer(pair: Pair) -> None:
    """A packet of its own costs more than the ticket, and no client waits for it."""
    tls, incoming, outgoing = a_client_in_memory()
    pair.channel.start_tls(server_context(), server_side=True, early=outgoing.read())
    incoming.write(await pair.peer_gets(1 << 16))
    tls.do_handshake()
    pair.peer.sendall(outgoing.read())
    await until(lambda: "secured" in pair.owner.events)
    pair.peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        pair.peer.recv(1)

    pair.channel.write(b"answer")

    incoming.write(pair.peer.recv(1 << 16))
    assert tls.read(100) == b"answer"
    assert tls.session is not None
    assert tls.session.has_ticket


async def test_closing_says_goodbye(pair: Pair) -> None:
    """Without it a client could not tell the end of an answer from a cut."""
    client = await secured(pair)
    pair.channel.write(b"all of it")
    pair.channel.close()

    assert await asyncio.to_thread(client.recv, 100) == b"all of it"
    assert await asyncio.to_thread(client.recv, 100) == b""


async def test_aborting_does_not(pair: Pair) -> None:
    client = await secured(pair)
    pair.channel.abort()

    with pytest.raises(OSError):  # noqa: PT011 a ragged end, or a reset
        await asyncio.to_thread(client.recv, 100)


async def test_a_goodbye_is_an_end(pair: Pair) -> None:
    client = await secured(pair)

    def leave() -> None:
        client.sendall(b"bye")
        client.unwrap()

    leaving = asyncio.create_task(asyncio.to_thread(leave))
    await until(lambda: "closed" in pair.owner.events)
    await leaving

    assert pair.owner.events == ["secured", "received", "closed"]


@pytest.mark.parametrize(
    "said",
    [pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no TLS"), pytest.param(b"", id="nothing")],
)
async def test_a_handshake_that_breaks_is_an_end(said: bytes, pair: Pair) -> None:
    pair.channel.start_tls(server_context(), server_side=True)
    if said:
        pair.peer.sendall(said)
    pair.peer.shutdown(socket.SHUT_WR)

    await until(lambda: "closed" in pair.owner.events)

    assert "secured" not in pair.owner.events
    assert pair.owner.data == b""
    assert pair.channel.shaking


def a_client_in_memory() -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    """What it reads from, what it writes to; its first flight is written."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context().wrap_bio(incoming, outgoing, server_hostname=HOST)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return tls, incoming, outgoing


async def test_early_bytes_of_a_handshake_are_not_lost(pair: Pair) -> None:
    tls, incoming, outgoing = a_client_in_memory()
    hello = outgoing.read()

    pair.channel.start_tls(server_context(), server_side=True, early=hello)
    incoming.write(await pair.peer_gets(1 << 16))
    tls.do_handshake()
    pair.peer.sendall(outgoing.read())

    await until(lambda: "secured" in pair.owner.events)


async def test_what_tls_holds_is_let_go_at_the_end(pair: Pair) -> None:
    """Thousands of connections come and go, and their owners may be held for longer."""
    client = await secured(pair)

    await asyncio.to_thread(client.close)
    await until(lambda: pair.channel.tls is None)

    assert not pair.channel.is_open


# --- silence ---------------------------------------------------------------------------------


async def test_one_on_which_nothing_is_on_its_way_is_silent(pair: Pair) -> None:
    assert pair.channel.is_silent()
    pair.peer.sendall(b"question")
    await until(lambda: bool(pair.owner.data))
    pair.channel.write(b"answer")

    assert pair.channel.is_silent()


def speak(pair: Pair) -> None:
    pair.peer.sendall(b"!")


def leave(pair: Pair) -> None:
    pair.peer.close()


def do_not_read(pair: Pair) -> None:
    pair.channel.write(b"x" * (4 * HIGH_WATER))


def shake(pair: Pair) -> None:
    pair.channel.start_tls(server_context(), server_side=True)


@pytest.mark.parametrize(
    "happens",
    [
        pytest.param(speak, id="bytes that nobody has read yet"),
        pytest.param(leave, id="an end that nobody has heard of yet"),
        pytest.param(do_not_read, id="what the other side has not taken"),
        pytest.param(shake, id="a handshake"),
        pytest.param(lambda pair: pair.channel.close(), id="closed"),
    ],
)
async def test_one_is_not_silent_with(happens: Callable[[Pair], None], pair: Pair) -> None:
    happens(pair)  # and the event loop has had no turn since

    assert not pair.channel.is_silent()


@pytest.mark.parametrize("read", [True, False])
async def test_tls_that_holds_bytes_is_not_silent(read: bool, pair: Pair) -> None:
    client = await secured(pair)
    pair.channel.write(b"the ticket goes with it")
    assert pair.channel.is_silent()
    pair.channel.pause()
    await asyncio.to_thread(client.sendall, b"!")
    if read:
        pair.channel.resume()
        await until(lambda: pair.owner.data == b"!")

    assert pair.channel.is_silent() is read
