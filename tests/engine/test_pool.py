"""What happens to an upstream connection that rests, and that nobody gets one of another's.

Which ones are left at all is `test_resting`'s.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trustme

from coatcheck import policyfile
from coatcheck.core.destination import Destination
from coatcheck.core.limits import Limits
from coatcheck.core.snapshot import Snapshot
from coatcheck.engine.channel import Channel
from coatcheck.engine.pool import MAX_AGE_S, Pool, Purpose
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
from tests.engine.test_channel import Listening
from tests.engine.wire import OK, POLICY

API = Destination("https", "api.example.com", 443)
MINE = Purpose("one", "192.0.2.1", API, "policy 1")


class Bath:
    """A pool with a clock and a policy of its own, and the far ends of what was put into it."""

    def __init__(self, *, most: int = 100, **limits: float) -> None:
        self.clock = 0.0
        self.policy = "policy 1"
        self.loop = asyncio.get_running_loop()
        self.ends: list[socket.socket] = []
        self.channels: list[Channel] = []
        self.pool = Pool(
            Limits(**limits),  # type: ignore[arg-type]
            most=most,
            policy=lambda: self.policy,
            now=lambda: self.clock,
        )

    def channel(self) -> Channel:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        channel = Channel(self.loop, ours, Listening())
        channel.made_at = self.clock
        self.ends.append(theirs)
        self.channels.append(channel)
        return channel

    def give(self, purpose: Purpose = MINE) -> Channel:
        channel = self.channel()
        self.pool.give(purpose, channel)
        return channel

    def close(self) -> None:
        for channel in self.channels:
            channel.abort()
        for end in self.ends:
            end.close()


type Make = Callable[..., Bath]


@pytest.fixture
async def bath() -> AsyncIterator[Make]:
    made: list[Bath] = []

    def make(*, most: int = 100, **limits: float) -> Bath:
        made.append(Bath(most=most, **limits))
        return made[-1]

    yield make
    for one in made:
        one.close()


# --- to whom ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        pytest.param(MINE, True, id="the same purpose"),
        pytest.param(MINE._replace(client="other"), False, id="another client"),
        pytest.param(MINE._replace(address="192.0.2.2"), False, id="another address"),
        pytest.param(
            MINE._replace(destination=Destination("https", "other.example.com", 443)),
            False,
            id="another host",
        ),
        pytest.param(
            MINE._replace(destination=Destination("https", API.host, 8443)),
            False,
            id="another port",
        ),
        pytest.param(
            MINE._replace(destination=Destination("http", API.host, 443)),
            False,
            id="without TLS",
        ),
        pytest.param(MINE._replace(policy="policy 2"), False, id="another policy"),
    ],
)
async def test_one_is_given_for(asked: Purpose, given: bool, bath: Make) -> None:
    a_bath = bath()
    channel = a_bath.give()

    assert a_bath.pool.take(asked) is (channel if given else None)
    assert channel.is_open


async def test_one_is_given_once(bath: Make) -> None:
    a_bath = bath()
    channel = a_bath.give()

    assert a_bath.pool.take(MINE) is channel
    assert a_bath.pool.take(MINE) is None
    assert not len(a_bath.pool)


async def test_the_last_that_was_left_is_the_first_to_be_given(bath: Make) -> None:
    a_bath = bath()
    left = [a_bath.give() for _ in range(3)]

    assert [a_bath.pool.take(MINE) for _ in range(3)] == left[::-1]


async def test_who_takes_one_over_hears_of_it(bath: Make) -> None:
    a_bath = bath()
    a_bath.give().pause()
    channel, owner = a_bath.pool.take(MINE), Listening()
    assert channel is not None
    channel.own(owner)
    channel.resume()

    a_bath.ends[0].send(b"answer")

    await until(lambda: owner.data == b"answer")
    assert channel.is_open


# --- what ends it ----------------------------------------------------------------------------


async def test_a_byte_while_it_rests_is_the_end_of_it(bath: Make) -> None:
    a_bath = bath()
    channel = a_bath.give()

    a_bath.ends[0].send(b"HTTP/1.1 200 OK\r\n\r\n")
    await asyncio.sleep(0.05)

    assert not channel.is_open
    assert not len(a_bath.pool)
    assert a_bath.pool.take(MINE) is None


async def test_so_is_its_end(bath: Make) -> None:
    a_bath = bath()
    channel = a_bath.give()

    a_bath.ends[0].close()

    await until(lambda: not channel.is_open)
    assert not len(a_bath.pool)


@pytest.mark.parametrize("said", [b"H", b""], ids=["a byte", "the end"])
async def test_what_nobody_has_read_yet_is_seen_when_it_is_taken(said: bytes, bath: Make) -> None:
    """The event loop tells of it in its next turn, and a request may come in this one."""
    a_bath = bath()
    below = a_bath.give()
    above = a_bath.give()
    if said:
        a_bath.ends[1].send(said)
    else:
        a_bath.ends[1].close()

    assert a_bath.pool.take(MINE) is below
    assert not above.is_open


@pytest.mark.parametrize("said", [b"H", b"", None], ids=["a byte", "the end", "nothing"])
async def test_what_comes_with_the_answer_is_seen_when_it_is_left(
    said: bytes | None, bath: Make
) -> None:
    a_bath = bath()
    channel = a_bath.channel()
    if said:
        a_bath.ends[0].send(said)
    elif said is not None:
        a_bath.ends[0].close()

    a_bath.pool.give(MINE, channel)

    assert len(a_bath.pool) == channel.is_open == (said is None)


async def test_one_that_does_not_take_what_was_written_does_not_rest(bath: Make) -> None:
    a_bath = bath()
    channel = a_bath.channel()
    channel.write(b"x" * (1 << 22))

    a_bath.pool.give(MINE, channel)

    assert not len(a_bath.pool)


# --- time ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rested", "age", "good"),
    [
        pytest.param(15, 15, True, id="in time"),
        pytest.param(16, 16, False, id="rested too long"),
        pytest.param(1, MAX_AGE_S - 1, True, id="old, and used again and again"),
        pytest.param(1, MAX_AGE_S + 1, False, id="so old that its address may be another's"),
    ],
)
@pytest.mark.parametrize("swept", [True, False], ids=["when it is swept", "when it is taken"])
async def test_one_rests(rested: float, age: float, good: bool, swept: bool, bath: Make) -> None:
    a_bath = bath(upstream_idle_s=15)
    a_bath.clock = 1000
    channel = a_bath.channel()
    a_bath.clock += age - rested
    a_bath.pool.give(MINE, channel)
    a_bath.clock += rested
    if swept:
        a_bath.pool.sweep()
        assert len(a_bath.pool) == good

    assert a_bath.pool.take(MINE) is (channel if good else None)
    assert channel.is_open is good


async def test_one_that_is_too_old_is_not_left_at_all(bath: Make) -> None:
    a_bath = bath()
    channel = a_bath.channel()
    a_bath.clock += MAX_AGE_S + 1

    a_bath.pool.give(MINE, channel)

    assert not channel.is_open


# --- policy and end --------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["sweep", "take", "give"])
async def test_another_policy_ends_all(what: str, bath: Make) -> None:
    a_bath = bath()
    old = [a_bath.give(), a_bath.give(MINE._replace(client="other"))]
    a_bath.policy = "policy 2"

    new = MINE._replace(policy="policy 2")
    if what == "sweep":
        a_bath.pool.sweep()
    elif what == "take":
        assert a_bath.pool.take(new) is None
    else:
        assert a_bath.give(new).is_open

    assert not any(channel.is_open for channel in old)


async def test_one_that_was_made_under_the_former_policy_does_not_rest(bath: Make) -> None:
    a_bath = bath()
    channel = a_bath.channel()
    a_bath.policy = "policy 2"

    a_bath.pool.give(MINE, channel)

    assert not channel.is_open


async def test_a_closed_pool_keeps_none_and_takes_none(bath: Make) -> None:
    a_bath = bath()
    before = a_bath.give()
    a_bath.pool.close()
    after = a_bath.give()

    assert not before.is_open
    assert not after.is_open
    assert not len(a_bath.pool)


# --- how many --------------------------------------------------------------------------------


async def test_a_client_has_a_bound_and_its_oldest_goes(bath: Make) -> None:
    a_bath = bath(upstream_idle_per_client=2)
    others = a_bath.give(MINE._replace(client="other"))
    left = [a_bath.give(MINE._replace(address=f"192.0.2.{n}")) for n in range(3)]

    assert [channel.is_open for channel in left] == [False, True, True]
    assert others.is_open


async def test_so_have_all(bath: Make) -> None:
    a_bath = bath(upstream_idle_connections=2)
    left = [a_bath.give(MINE._replace(client=str(n))) for n in range(3)]

    assert [channel.is_open for channel in left] == [False, True, True]


async def test_where_files_are_few_there_are_fewer(bath: Make) -> None:
    a_bath = bath(most=1)
    left = [a_bath.give(MINE._replace(client=str(n))) for n in range(2)]

    assert [channel.is_open for channel in left] == [False, True]


@pytest.mark.parametrize(
    "limit", ["upstream_idle_s", "upstream_idle_connections", "upstream_idle_per_client"]
)
async def test_any_limit_of_0_means_that_none_rests(limit: str, bath: Make) -> None:
    assert not bath(**{limit: 0}).give().is_open


# --- on the wire -----------------------------------------------------------------------------


async def ask(proxy: Proxy, port: int, *lines: str) -> bytes:
    """One request on a client connection of its own."""
    reader, writer = await proxy.connect()
    writer.write(get(port, "/", *lines))
    try:
        return await read_answer(reader)
    finally:
        writer.close()
        await until(lambda: not proxy.server.connections)


async def test_the_next_connection_of_a_client_takes_over(tmp_path: Path) -> None:
    async with an_upstream() as upstream, a_proxy(tmp_path, upstream.port) as proxy:
        for _ in range(3):
            assert (await ask(proxy, upstream.port)).startswith(b"HTTP/1.1 200 ")

        assert upstream.connections == 1
        await proxy.server.stop(1)
        await until(lambda: not upstream.open)


async def test_so_it_does_inside_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    file = tmp_path / "upstream-ca.pem"
    authority.cert_pem.write_to_path(file)
    async with (
        an_upstream(context=server_context(authority.issue_cert(HOST))) as upstream,
        a_proxy(tmp_path, upstream.port, upstream_ca=file) as proxy,
    ):
        host = f"{HOST}:{upstream.port}"
        for _ in range(3):
            reader, writer = await proxy.tunnel(host)
            writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert (await read_answer(reader)).startswith(b"HTTP/1.1 200 ")
            writer.close()
            await until(lambda: not proxy.server.connections)

        assert upstream.connections == 1


async def test_many_at_once_have_one_each(tmp_path: Path) -> None:
    async with an_upstream() as upstream, a_proxy(tmp_path, upstream.port) as proxy:
        for _ in range(2):
            held = [await proxy.connect() for _ in range(5)]
            for reader, writer in held:
                writer.write(get(upstream.port))
                await read_answer(reader)
            for _, writer in held:
                writer.close()
            await until(lambda: not proxy.server.connections)

        assert upstream.connections == 5
        assert len(proxy.server.pool) == 5


async def test_an_answer_too_many_is_nobodys(tmp_path: Path) -> None:
    """An upstream that answers twice poisons no later request of the client."""
    poison = asyncio.Event()

    async def poisoning(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await poison.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        await reader.read()

    async with an_upstream(poisoning) as upstream, a_proxy(tmp_path, upstream.port) as proxy:
        await ask(proxy, upstream.port)
        assert len(proxy.server.pool) == 1
        poison.set()
        await until(lambda: not len(proxy.server.pool))

        assert b"poison" not in await ask(proxy, upstream.port)
        assert upstream.connections == 2


async def test_an_upstream_that_has_gone_costs_no_request(tmp_path: Path) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")  # and leaves without an answer

    async with an_upstream(once) as upstream, a_proxy(tmp_path, upstream.port) as proxy:
        for _ in range(3):
            assert (await ask(proxy, upstream.port)).startswith(b"HTTP/1.1 200 ")

        assert upstream.connections == 3


async def test_a_new_policy_closes_what_rests(tmp_path: Path) -> None:
    async with an_upstream() as upstream, a_proxy(tmp_path, upstream.port) as proxy:
        await ask(proxy, upstream.port)
        assert upstream.open == 1

        changed = policyfile.parse(POLICY + "# a word more\n", "policy.yaml")
        proxy.gateway.install(Snapshot(changed, proxy.gateway.snapshot.view))

        await until(lambda: not upstream.open)


async def test_what_rests_is_closed_in_time(tmp_path: Path) -> None:
    limits = Limits(upstream_idle_s=0.1)
    async with (
        an_upstream() as upstream,
        a_proxy(tmp_path, upstream.port, limits=limits) as proxy,
    ):
        await ask(proxy, upstream.port)
        assert upstream.open == 1

        await until(lambda: not upstream.open)
