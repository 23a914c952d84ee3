"""What a trace may say of a request: words of the configuration and of the code, and times.

A trace leaves the machine, for a system that is nobody's store of secrets. So nothing that a client
wrote is in it: no path, no query, no header, and a host only where the configuration names it,
else what the pattern says that it fits, else `OTHER`. Of `traceparent` 24 bytes are taken, in hex,
where it is well-formed. It goes on to the upstream as it came, like every other field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from coatcheck.core import internal
from coatcheck.core.destination import DomainPattern
from coatcheck.core.meter import OTHER
from coatcheck.core.ports import StoreError
from coatcheck.core.snapshot import Snapshot

OK = "ok"
CUT_OFF = "cut_off"  # a side went away before the answer was over


@dataclass(frozen=True, slots=True)
class Ended:
    """One request that is over, as the engine knows it; nothing of it is exported as it is.

    Attributes:
        client: Its name in the policy; empty where nobody was known.
        host: As the client may be told it; empty where none was read.
        outcome: `OK`, `CUT_OFF`, or the code of a refusal.
        status: What the client got; 0: nothing.
        parent: The value of the one ``traceparent``; empty without one.
        began: On the meter's clock, when its head was read.
        lasted_s, queue_s, connect_s, upstream_s, added_s: None where it did not come to that.
    """

    snapshot: Snapshot
    client: str
    host: str
    method: str
    outcome: str
    status: int
    parent: bytes
    began: float
    lasted_s: float
    queue_s: float
    connect_s: float | None
    upstream_s: float | None
    added_s: float | None


class Traces(Protocol):
    """Takes what is over. Never waits, never raises: a trace is no reason to refuse."""

    def ended(self, request: Ended, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Parent:
    """The span of a client that a request belongs to (W3C Trace Context, section 3.2).

    Attributes:
        trace: 32 hexadecimal digits.
        span: 16 hexadecimal digits.
    """

    trace: str
    span: str
    sampled: bool


_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def read_parent(value: bytes) -> Parent | None:
    """The parent that *value* names; None where it is not well-formed. Of versions to come only
    what is as in version 00 is read."""
    found = _PARENT.fullmatch(value)
    if found is None:
        return None
    version, trace, span, flags = (part.decode("ascii") for part in found.groups())
    if version != "00" or not trace.strip("0") or not span.strip("0"):
        return None
    return Parent(trace, span, bool(int(flags, 16) & 1))


class KnownHosts:
    """The hosts that policy and secrets name. What is exported is bounded by them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._exact: set[str] = {internal.HOST}
        self._wildcards: set[str] = set()
        policy = snapshot.policy
        self._take(policy.egress.allow)
        for grant in policy.grants:
            self._take(grant.hosts or ())
        try:
            for secret in snapshot.view.secrets():
                self._take(secret.domains)
        except StoreError:
            return  # what the policy names is known all the same

    def name(self, host: str) -> str:
        """*host*, or the pattern that it fits, or `OTHER`."""
        if host in self._exact:
            return host
        _, _, parent = host.partition(".")
        while parent:
            if parent in self._wildcards:
                return f"*.{parent}"
            _, _, parent = parent.partition(".")
        return OTHER

    def _take(self, patterns: Iterable[DomainPattern]) -> None:
        for pattern in patterns:
            if not pattern.any:
                (self._wildcards if pattern.wildcard else self._exact).add(pattern.host)
