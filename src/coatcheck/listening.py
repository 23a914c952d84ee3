"""The sockets that clients connect to: bound once, by one process, and listened on by one or many.

Several workers share the socket that their supervisor has bound. Not one socket each on the same
port (SO_REUSEPORT): there the kernel deals out connections as they come, and those that wait at a
worker which is killed are lost, and a second program of the same user could take a part of ours
without a word (docs/decisions/0016-workers-share-a-socket.md).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Sequence

from coatcheck.core.ports import CoatcheckError

BACKLOG = 1024  # connections that wait in the kernel until somebody takes them

type Address = tuple[str, int]


class ListenError(CoatcheckError):
    """The listening address cannot be had."""


class Listener(socket.socket):
    """A bound socket. asyncio takes one number for how many connections may wait and for how many
    are taken in one turn of the loop; the first is always `BACKLOG` here."""

    def listen(self, _: int = BACKLOG, /) -> None:
        super().listen(BACKLOG)


async def bind(host: str, port: int, flag: str = "--listen") -> list[Listener]:
    """Bind every address that *host* stands for. Nobody can connect until somebody listens.

    Raises:
        ListenError: the address is taken, or not ours.
    """
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(
            asyncio.Protocol, host, port, reuse_address=True, start_serving=False
        )
    except OSError as error:
        raise refused(host, port, error, flag) from None
    try:
        return [Listener(fileno=same.dup().detach()) for same in server.sockets]
    finally:
        server.close()


def inherited(files: Iterable[int]) -> list[Listener]:
    """The sockets that another process has bound and handed over."""
    return [Listener(fileno=file) for file in files]


def addresses(listeners: Sequence[socket.socket]) -> list[Address]:
    """Where they listen: port 0 has become a free one."""
    return [listener.getsockname()[:2] for listener in listeners]


def refused(host: str, port: int, error: OSError, flag: str = "--listen") -> ListenError:
    """What to say of *error*, which came of binding or listening; *flag* sets the address."""
    # asyncio passes over addresses that are not ours, and has no number for "none left".
    why = error.strerror or "no such address on this machine"
    return ListenError(
        f"cannot listen on {host}:{port}: {why}",
        hint=f"stop what is using the port, or choose another with {flag} HOST:PORT",
    )
