"""Bound once, listened on by one process or by several."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

from coatcheck import listening
from coatcheck.listening import BACKLOG, Listener, ListenError


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


async def bound(stack: contextlib.ExitStack, host: str = "127.0.0.1", port: int = 0) -> Listener:
    (listener,) = await listening.bind(host, port)
    return stack.enter_context(listener)


def can_connect(address: tuple[str, int]) -> bool:
    with socket.socket() as client:
        return client.connect_ex(address) == 0


async def test_who_is_bound_and_does_not_listen_yet_is_not_there(
    stack: contextlib.ExitStack,
) -> None:
    listener = await bound(stack)
    (address,) = listening.addresses([listener])
    assert address[1] > 0, "port 0 has become a free one"
    assert not can_connect(address)

    listener.listen()

    assert can_connect(address)


async def test_every_address_of_a_name_is_bound(stack: contextlib.ExitStack) -> None:
    """As `localhost`, which is two."""
    found = await listening.bind("localhost", 0)
    for listener in found:
        stack.enter_context(listener)
    known = {info[4][0] for info in socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)}

    hosts = {address[0] for address in listening.addresses(found)}

    assert "127.0.0.1" in hosts
    assert hosts <= known


@pytest.mark.parametrize("number", [1, 64])
async def test_as_many_may_wait_however_many_are_taken_in_one_turn(
    stack: contextlib.ExitStack, number: int
) -> None:
    """asyncio would tell the kernel the same number."""
    told: list[int] = []

    class Told(Listener):
        def listen(self, _: int = BACKLOG, /) -> None:
            told.append(_)
            super().listen(_)

    (made,) = await listening.bind("127.0.0.1", 0)
    listener = stack.enter_context(Told(fileno=made.detach()))
    server = await asyncio.get_running_loop().create_server(
        asyncio.Protocol, sock=listener, backlog=number
    )
    address = listening.addresses([listener])[0]
    async with server:
        assert told == [number], "or this would prove nothing"
        # More than `number` at once, none of them taken yet: the loop has no turn meanwhile.
        for _ in range(100):
            client = stack.enter_context(socket.socket())
            client.settimeout(0.5)
            client.connect(address)


async def test_a_socket_that_was_handed_over_is_the_same_one(stack: contextlib.ExitStack) -> None:
    listener = await bound(stack)
    (other,) = listening.inherited([os.dup(listener.fileno())])
    stack.enter_context(other)

    other.listen()
    listener.close()

    assert can_connect(listening.addresses([other])[0])


async def test_a_port_that_is_taken_cannot_be_bound(stack: contextlib.ExitStack) -> None:
    listener = await bound(stack)
    listener.listen()
    (_, port) = listening.addresses([listener])[0]

    with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1:{port}: .*--listen"):
        await listening.bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_an_address_that_is_not_ours_cannot_be_bound(host: str) -> None:
    with pytest.raises(ListenError, match=f"cannot listen on {host}:0: "):
        await listening.bind(host, 0)
