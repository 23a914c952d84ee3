"""How many connections there may be, and which one goes when there are too many.

A connection is anybody's until its first request says which client sends it. Until then it counts
for the address it came from, afterwards for the client, wherever that connects from. What has not
said who it is makes room for what comes: the oldest goes, by age and not by silence, since a byte
now and then costs an attacker nothing, and an honest client speaks in its first round trip. So a
flood of connections that say nothing keeps nobody out, not even from behind the same address
(docs/decisions/0008-connections-make-room-by-age.md).

It does no I/O: whoever accepts a connection hands in how to close it.
"""

from __future__ import annotations

import functools
import ipaddress
from collections import Counter
from collections.abc import Callable

from coatcheck.core.limits import Limits
from coatcheck.core.problems import Code, refuse

RESERVED_FILES = 128  # store, logs, listeners, and what one turn of the event loop accepts
FILES_PER_CONNECTION = 2  # the client's and the upstream's

type Log = Callable[..., None]


class Ticket:
    """One admitted connection's place in the counts."""

    def __init__(self, admission: Admission, origin: str, close: Callable[[], None]) -> None:
        self._admission = admission
        self.origin = origin
        self.client: str | None = None
        self.evict = close

    def identify(self, client: str) -> None:
        """The connection's present request is *client*'s.

        Raises:
            Refused: too_many_connections; the connection counts as before.
        """
        if client != self.client:
            self._admission.identified(self, client)

    def close(self) -> None:
        """The connection is over. May be called again."""
        self._admission.left(self)


class Admission:
    """The counts of one process.

    Attributes:
        idle_upstreams: How many upstream connections may rest (`engine.pool`).

    Args:
        files: How many files the process may have open, None for any number. The bound on all
            connections is cut so that accepting and dialling do not run out of them.
    """

    def __init__(self, limits: Limits, log: Log, *, files: int | None = None) -> None:
        self._log = log
        self._per_client = limits.connections_per_client
        self._most = limits.connections
        self.idle_upstreams = limits.upstream_idle_connections
        if files is not None:
            self.idle_upstreams = min(limits.upstream_idle_connections, files // 8)
            room = (files - RESERVED_FILES - self.idle_upstreams) // FILES_PER_CONNECTION
            self._most = max(1, min(self._most, room))
            if self._most < limits.connections:
                log("serve.few_files", files=files, connections=self._most)
        self._open: set[Ticket] = set()
        # Dictionaries as ordered sets: the first is the oldest.
        self._unknown: dict[Ticket, None] = {}
        self._unknown_of: dict[str, dict[Ticket, None]] = {}
        self._known_of: Counter[str] = Counter()
        self._evicted = 0
        self._turned_away = 0

    def admit(self, address: str, close: Callable[[], None]) -> Ticket | None:
        """A place for a new connection from *address*, or None if every place is taken by a
        connection whose client is known.

        Args:
            close: Closes the connection at once; called if it has to make room later.
        """
        origin = _origin(address)
        same = self._unknown_of.get(origin, {})
        if len(same) >= self._per_client:
            self._evict(next(iter(same)))
        elif len(self._open) >= self._most:
            if not self._unknown:
                self._turned_away += 1
                if _is_told(self._turned_away):
                    self._log("client.turned_away", count=self._turned_away, address=address)
                return None
            self._evict(next(iter(self._unknown)))
        ticket = Ticket(self, origin, close)
        self._open.add(ticket)
        self._unknown[ticket] = None
        self._unknown_of.setdefault(origin, {})[ticket] = None
        return ticket

    def identified(self, ticket: Ticket, client: str) -> None:
        """See `Ticket.identify`."""
        if ticket not in self._open:
            return  # it had to make room meanwhile
        if self._known_of[client] >= self._per_client:
            raise refuse(
                Code.TOO_MANY_CONNECTIONS,
                "This client has too many connections open.",
                hint="close some, or use them for more requests; "
                "limits.connections_per_client sets the bound",
            )
        self._forget(ticket)
        self._known_of[client] += 1
        ticket.client = client

    def left(self, ticket: Ticket) -> None:
        """See `Ticket.close`."""
        if ticket in self._open:
            self._open.discard(ticket)
            self._forget(ticket)

    def _evict(self, ticket: Ticket) -> None:
        self._evicted += 1
        if _is_told(self._evicted):
            self._log("client.made_room", count=self._evicted, address=ticket.origin)
        self.left(ticket)
        ticket.evict()

    def _forget(self, ticket: Ticket) -> None:
        """Take *ticket* out of the count that it stands in."""
        if ticket.client is None:
            del self._unknown[ticket]
            same = self._unknown_of[ticket.origin]
            del same[ticket]
            if not same:
                del self._unknown_of[ticket.origin]
            return
        self._known_of[ticket.client] -= 1
        if not self._known_of[ticket.client]:
            del self._known_of[ticket.client]


@functools.lru_cache(1024)
def _origin(address: str) -> str:
    """What one party surely has for itself: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((ip, 64), strict=False))


def _is_told(count: int) -> bool:
    """At 1, 2, 4, 8 and so on: who floods us must not fill the disk."""
    return count & (count - 1) == 0
