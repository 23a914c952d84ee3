"""What a supervisor and one of its workers tell each other: JSON, one message a line.

The settings are handed over rather than read again: they are read once, at the start, and a worker
that comes later must not have others than its neighbours. By a socket and not by arguments or
variables, which other processes may read: the settings can hold a password.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from coatcheck.core.limits import Limits
from coatcheck.listening import Address
from coatcheck.settings import Settings
from coatcheck.workers.shares import NO_FILE

LINE_BYTES = 16 * 1024 * 1024  # a policy of 10,000 grants may be wrong in every one
UNREAD_BYTES = 1024 * 1024  # what is told to a side that does not listen is lost from here on

type Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is started with.

    Attributes:
        number: From 1 on.
        parent: The supervisor's process id.
        listeners: File numbers of the sockets to take connections from.
        addresses: Where these listen.
        admin: Where the admin side listens.
        shares: File number of `workers.shares`, and how many workers it is for.
    """

    number: int
    parent: int
    listeners: Sequence[int]
    addresses: Sequence[Address]
    settings: Settings
    admin: Sequence[Address] = ()
    shares: tuple[int, int] = (NO_FILE, 0)


class Link:
    """One end of the socket pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket) -> Self:
        return cls(*await asyncio.open_connection(sock=sock, limit=LINE_BYTES))

    def tell(self, what: str, /, **more: object) -> None:
        """Say it, without waiting for the other side to hear it."""
        if self._writer.transport.get_write_buffer_size() > UNREAD_BYTES:
            return
        line = json.dumps({"what": what, **more}).encode("ascii") + b"\n"
        with suppress(OSError, RuntimeError):  # it is gone; `hear` says so
            self._writer.write(line)

    async def hear(self) -> Message | None:
        """The next message, or None when the other side is gone."""
        try:
            line = await self._reader.readline()
            message = json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    async def close(self) -> None:
        """Close it, when all that was told is with the operating system."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


def pack(task: Task) -> dict[str, object]:
    """*task* as a message."""
    return {"task": json.loads(json.dumps(dataclasses.asdict(task), default=str))}


def unpack(message: Message) -> Task:
    """The task that `pack` made a message of."""
    fields = dict(message["task"])
    for name in ("addresses", "admin"):
        fields[name] = [(host, port) for host, port in fields[name]]
    fields["settings"] = _settings(dict(fields["settings"]))
    fields["shares"] = tuple(fields["shares"])
    return Task(**fields)


_PATHS = (
    "home",
    "policy",
    "upstream_ca",
    "upstream_proxy_ca",
    "upstream_proxy_credential",
    "sources",
    "traces_ca",
)


def _settings(fields: dict[str, Any]) -> Settings:
    for name in _PATHS:
        if fields[name] is not None:
            fields[name] = Path(fields[name])
    for name in ("listen", "admin"):
        host, port = fields[name]
        fields[name] = (host, port)
    fields["admin_hosts"] = tuple(fields["admin_hosts"])
    return Settings(**{**fields, "limits": Limits(**fields["limits"])})
