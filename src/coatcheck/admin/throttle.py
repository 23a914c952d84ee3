"""How often somebody may be wrong. Tokens cannot be guessed; this bounds what the trying leaves
behind: lines of the log and of the audit.

Two buckets: one for each address, one for all. It is asked about wrong credentials alone, so that
nobody can lock out those who belong here, not even from their own address: behind a proxy all have
the same one. (Nor by connections that say nothing: `admin.connection`.) To know that a credential
is wrong costs one hash and one look at an index, or one signature of at most 8 KiB, however often
it is tried. Memory is bounded: the address that was wrong longest ago is forgotten.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from coatcheck.admin.problems import ApiProblem, Code

PER_ADDRESS = 10  # wrong credentials in a row
PER_ADDRESS_S = 6.0  # until one more is told so
FOR_ALL = 100
FOR_ALL_S = 0.6
ADDRESSES = 4096  # remembered


class _Bucket:
    """Holds up to *size* attempts, and gets one back every *every_s* seconds."""

    __slots__ = ("_at", "_every_s", "_left", "_size")

    def __init__(self, size: int, every_s: float, now: float) -> None:
        self._size, self._every_s = size, every_s
        self._left, self._at = float(size), now

    def wait_s(self, now: float) -> float:
        """0 where an attempt is left, else seconds until there is one."""
        self._left = min(self._size, self._left + (now - self._at) / self._every_s)
        self._at = now
        return 0.0 if self._left >= 1 else (1 - self._left) * self._every_s

    def spend(self) -> None:
        self._left = max(0.0, self._left - 1)


class Throttle:
    """Told of each wrong credential."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._wrong: OrderedDict[str, _Bucket] = OrderedDict()
        self._all = _Bucket(FOR_ALL, FOR_ALL_S, clock())

    def was_wrong(self, address: str) -> None:
        """Raise `ApiProblem` where *address*, or everybody, was wrong too often before."""
        with self._lock:
            now = self._clock()
            bucket = self._wrong.pop(address, None) or _Bucket(PER_ADDRESS, PER_ADDRESS_S, now)
            wait = max(one.wait_s(now) for one in (bucket, self._all))
            if not wait:
                bucket.spend()
                self._all.spend()
            self._wrong[address] = bucket
            if len(self._wrong) > ADDRESSES:
                self._wrong.popitem(last=False)
        if wait:
            raise ApiProblem(
                Code.TOO_MANY_ATTEMPTS,
                hint="wait, or send a credential that is known",
                headers={"Retry-After": str(int(wait) + 1)},
            )
