"""How often somebody may be wrong. Tokens cannot be guessed; this keeps the trying cheap for us.

Two buckets: one for each address, one for all. Whoever has shown a good credential lately does not
wait for the second one, so that strangers cannot lock out those who belong here. Memory is bounded:
the address that was seen longest ago is forgotten.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from coatcheck.admin.problems import ApiProblem, Code

PER_ADDRESS = 10  # wrong credentials in a row
PER_ADDRESS_S = 6.0  # until one more is let through
FOR_ALL = 100
FOR_ALL_S = 0.6
ADDRESSES = 4096  # remembered, of each kind
KNOWN_S = 3600.0  # how long a good credential speaks for its address


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
    """Asked before a credential is looked at; told what became of it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._wrong: OrderedDict[str, _Bucket] = OrderedDict()
        self._known: OrderedDict[str, float] = OrderedDict()
        self._all = _Bucket(FOR_ALL, FOR_ALL_S, clock())

    def check(self, address: str) -> None:
        """Raise `ApiProblem` where *address*, or everybody, was wrong too often."""
        with self._lock:
            now = self._clock()
            bucket = self._wrong.get(address)
            wait = bucket.wait_s(now) if bucket is not None else 0.0
            if not wait and self._known.get(address, 0.0) <= now:
                wait = self._all.wait_s(now)
        if wait:
            raise ApiProblem(
                Code.TOO_MANY_ATTEMPTS,
                hint="wait, then try again with a credential that is known",
                headers={"Retry-After": str(int(wait) + 1)},
            )

    def was_wrong(self, address: str) -> None:
        with self._lock:
            now = self._clock()
            bucket = self._wrong.pop(address, None) or _Bucket(PER_ADDRESS, PER_ADDRESS_S, now)
            for one in (bucket, self._all):
                one.wait_s(now)
                one.spend()
            self._wrong[address] = bucket
            if len(self._wrong) > ADDRESSES:
                self._wrong.popitem(last=False)

    def was_right(self, address: str) -> None:
        with self._lock:
            self._known.pop(address, None)
            self._known[address] = self._clock() + KNOWN_S
            if len(self._known) > ADDRESSES:
                self._known.popitem(last=False)
