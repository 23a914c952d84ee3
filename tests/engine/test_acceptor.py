"""A listening socket: whom it takes, how many at once, and when it takes none."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator

import pytest

from coatcheck.engine import acceptor as acceptor_module
from coatcheck.engine.acceptor import ACCEPTED_AT_ONCE, Acceptor
from tests.engine.sockets import until


class Hall:
    """Keeps those who come in."""

    def __init__(self) -> None:
        self.came: list[tuple[socket.socket, str]] = []
        self.events: list[tuple[str, dict[str, object]]] = []

    def accepted(self, sock: socket.socket, address: str) -> None:
        self.came.append((sock, address))

    def log(self, event: str, /, **fields: object) -> None:
        self.events.append((event, fields))


@pytest.fixture
def hall() -> Iterator[Hall]:
    made = Hall()
    yield made
    for sock, _ in made.came:
        sock.close()


def bound(address: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    sock.bind((address, 0))
    return sock


def client(port: int, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((address, port), 5)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_who_connects_comes_in_with_their_address(address: str, hall: Hall) -> None:
    sock = bound(address)
    listener = Acceptor(asyncio.get_running_loop(), sock, hall.accepted, hall.log)
    with client(sock.getsockname()[1], address):
        await until(lambda: bool(hall.came))

    assert hall.came[0][1] == address
    assert not hall.came[0][0].getblocking()
    listener.close()


async def test_those_who_are_there_have_their_turn_while_many_come(hall: Hall) -> None:
    sock = bound()
    listener = Acceptor(asyncio.get_running_loop(), sock, hall.accepted, hall.log)
    crowd = [client(sock.getsockname()[1]) for _ in range(ACCEPTED_AT_ONCE + 1)]

    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(hall.came) == ACCEPTED_AT_ONCE
    await until(lambda: len(hall.came) == len(crowd))

    listener.close()
    for one in crowd:
        one.close()


async def test_who_is_ahead_leaves_what_comes_to_another(hall: Hall) -> None:
    """Both take from one socket, as two workers do."""
    loop, sock, other = asyncio.get_running_loop(), bound(), Hall()
    port = sock.getsockname()[1]
    ahead = Acceptor(loop, sock, hall.accepted, hall.log, 1, lambda: len(other.came) < 20)
    behind = Acceptor(loop, sock.dup(), other.accepted, other.log, 1, lambda: False)
    crowd = [client(port) for _ in range(20)]

    await until(lambda: len(hall.came) + len(other.came) == len(crowd))

    assert len(other.came) >= 15
    ahead.close()
    behind.close()
    for one in crowd + [sock for sock, _ in other.came]:
        one.close()


async def test_who_is_ahead_takes_what_nobody_else_takes(hall: Hall) -> None:
    """Another one hangs, say."""
    sock = bound()
    listener = Acceptor(
        asyncio.get_running_loop(), sock, hall.accepted, hall.log, 1, is_ahead=lambda: True
    )
    crowd = [client(sock.getsockname()[1]) for _ in range(10)]

    await until(lambda: len(hall.came) == len(crowd))

    listener.close()
    for one in crowd:
        one.close()


async def test_who_is_closed_while_it_waits_takes_nobody(hall: Hall) -> None:
    sock = bound()
    port = sock.getsockname()[1]
    listener = Acceptor(
        asyncio.get_running_loop(), sock, hall.accepted, hall.log, 1, is_ahead=lambda: True
    )
    with client(port):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        listener.close()
        await asyncio.sleep(10 * acceptor_module.STEP_BACK_S)

    assert hall.came == []


async def test_a_closed_one_turns_away(hall: Hall) -> None:
    sock = bound()
    port = sock.getsockname()[1]
    listener = Acceptor(asyncio.get_running_loop(), sock, hall.accepted, hall.log)
    listener.close()
    listener.close()

    with pytest.raises(ConnectionRefusedError):
        client(port)


class Failing(socket.socket):
    """Fails as often as told, and counts."""

    failures = 0
    number = 0
    tries = 0

    def accept(self) -> tuple[socket.socket, object]:
        self.tries += 1
        if self.failures:
            self.failures -= 1
            raise OSError(self.number, "no")
        return super().accept()


@pytest.mark.parametrize(
    ("number", "waits"),
    [
        pytest.param(errno.EMFILE, True, id="no files: it waits"),
        pytest.param(errno.ENFILE, True, id="none in the machine: it waits"),
        pytest.param(errno.ENOMEM, True, id="no memory: it waits"),
        pytest.param(errno.ECONNABORTED, False, id="one that has left: the next comes in"),
    ],
)
async def test_an_accept_that_fails(
    number: int, waits: bool, hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor_module, "RETRY_S", 0.2)
    sock = Failing()
    sock.bind(("127.0.0.1", 0))
    sock.failures, sock.number = 1, number
    listener = Acceptor(asyncio.get_running_loop(), sock, hall.accepted, hall.log)
    with client(sock.getsockname()[1]):
        await asyncio.sleep(0.1)
        assert len(hall.came) == (0 if waits else 1)
        assert sock.tries == (1 if waits else 3)
        named = {"error": errno.errorcode[number]}
        assert hall.events == ([("serve.accept_failed", named)] if waits else [])
        await until(lambda: len(hall.came) == 1)

    listener.close()
