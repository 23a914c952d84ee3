"""Upstream connections that rest: what one client connection leaves, the next may take over.

A client that makes a connection for each request would have us do the same towards the upstream,
where the handshake costs more than all the rest. What may be taken over is kept narrow
(docs/decisions/0018-connections-that-rest.md):

- It stays with its `Purpose`: the same client at the same address, the same destination, the same
  policy. Nothing goes from one client to another.
- It has carried requests without a body alone, and each answer told its own end. So whoever sent
  them had no bytes to put a second request in, and no answer can be left over by their framing.
- It is not authenticated itself, as NTLM and Negotiate do it.
- A byte or an end that comes while it rests is the end of it, and it is looked at once more when it
  is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from coatcheck.core.destination import Destination
from coatcheck.core.limits import Limits
from coatcheck.core.message import Fields, field_values
from coatcheck.engine.channel import Channel, Owner

MAX_AGE_S = 300.0  # since it was dialled: its address and its certificate are as old

# Schemes that authenticate the connection and with it every later request (RFC 4559, section 6).
_OF_THE_CONNECTION = (b"negotiate", b"ntlm", b"kerberos")


class Purpose(NamedTuple):
    """Whom an upstream connection serves.

    Attributes:
        client: The name of the client.
        address: And its IP address: a client may be a network of many machines.
        policy: The digest of the policy under which the destination's address was vetted.
    """

    client: str
    address: str
    destination: Destination
    policy: str


def authenticates_connection(fields: Fields) -> bool:
    """Whether a request with these fields may authenticate the connection that it goes over."""
    for value in field_values(fields, b"authorization"):
        if value.lower().startswith(_OF_THE_CONNECTION):
            return True
    return False


def asks_for_credentials(status: int, fields: Fields) -> bool:
    """Whether an answer belongs to an authentication, in which the next request has a part too."""
    return status in (401, 407) or bool(field_values(fields, b"www-authenticate"))


class _Resting(Owner):
    """Owns a channel that rests. Whatever it is told is the end of it."""

    def __init__(self, pool: Pool, purpose: Purpose, channel: Channel, since: float) -> None:
        self._pool = pool
        self.purpose = purpose
        self.channel = channel
        self.since = since

    def received(self, channel: Channel, data: bytes, /) -> None:
        # It would be taken for the answer to a request that is still to come.
        self._pool.drop(self)
        channel.abort()

    def closed(self, channel: Channel, /) -> None:
        self._pool.drop(self)

    def secured(self, channel: Channel, /) -> None:
        return

    def full(self, channel: Channel, /) -> None:
        return

    def drained(self, channel: Channel, /) -> None:
        return

    def crashed(self, channel: Channel, /) -> None:
        self._pool.drop(self)


class Pool:
    """The connections of one process that rest.

    Args:
        most: How many there may be in all, where files are few; else the limit counts.
        policy: The digest of the policy in force. When it changes nothing rests any longer.
        now: As the event loop's clock.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        most: int,
        policy: Callable[[], str],
        now: Callable[[], float],
    ) -> None:
        self._idle_s = limits.upstream_idle_s
        self._per_client = limits.upstream_idle_per_client
        self._most = min(most, limits.upstream_idle_connections)
        self._policy = policy
        self._seen = policy()
        self._now = now
        # Dictionaries as ordered sets: the first has rested longest.
        self._all: dict[_Resting, None] = {}
        self._of_client: dict[str, dict[_Resting, None]] = {}
        self._for: dict[Purpose, dict[_Resting, None]] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._all)

    def give(self, purpose: Purpose, channel: Channel) -> None:
        """*channel* is the pool's from now on; it rests, or is closed."""
        self._look_at_policy()
        now = self._now()
        if not self._takes(purpose, channel, now):
            channel.close()
            return
        same = self._of_client.get(purpose.client, {})
        if len(same) >= self._per_client:
            self._close(next(iter(same)))
        elif len(self._all) >= self._most:
            self._close(next(iter(self._all)))
        resting = _Resting(self, purpose, channel, now)
        channel.own(resting)
        channel.resume()
        self._all[resting] = None
        self._of_client.setdefault(purpose.client, {})[resting] = None
        self._for.setdefault(purpose, {})[resting] = None

    def take(self, purpose: Purpose) -> Channel | None:
        """One that has rested for this very purpose, the last one first; the caller owns it."""
        self._look_at_policy()
        now = self._now()
        while same := self._for.get(purpose):
            resting = next(reversed(same))
            if self._is_over(resting, now) or not resting.channel.is_silent():
                self._close(resting)
            else:
                self.drop(resting)
                return resting.channel
        return None

    def sweep(self) -> None:
        """Close what has rested for too long, or under another policy."""
        self._look_at_policy()
        now = self._now()
        for resting in list(self._all):
            if self._is_over(resting, now):
                self._close(resting)

    def close(self) -> None:
        """Close all, now and from now on."""
        self._closed = True
        self._close_all()

    def drop(self, resting: _Resting) -> None:
        """Forget *resting*."""
        if resting not in self._all:
            return
        del self._all[resting]
        _discard(self._of_client, resting.purpose.client, resting)
        _discard(self._for, resting.purpose, resting)

    def _takes(self, purpose: Purpose, channel: Channel, now: float) -> bool:
        if self._closed or not self._idle_s or not self._per_client or not self._most:
            return False
        young = now - channel.made_at < MAX_AGE_S
        return young and purpose.policy == self._seen and channel.is_silent()

    def _is_over(self, resting: _Resting, now: float) -> bool:
        return now - resting.since > self._idle_s or now - resting.channel.made_at > MAX_AGE_S

    def _look_at_policy(self) -> None:
        policy = self._policy()
        if policy != self._seen:
            self._seen = policy
            self._close_all()

    def _close_all(self) -> None:
        for resting in list(self._all):
            self._close(resting)

    def _close(self, resting: _Resting) -> None:
        self.drop(resting)
        resting.channel.close()


def _discard[K](kept: dict[K, dict[_Resting, None]], key: K, resting: _Resting) -> None:
    same = kept[key]
    del same[resting]
    if not same:
        del kept[key]
