"""Whose turn it is: of all that takes long, one piece at a time, everybody's packets in between.

An event loop runs all that is ready before it looks for new packets. Were each of a hundred dear
uploads to do its next piece there, a small request would wait for a hundred of them at each packet.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """One for a process. First come, first served; who has more to do asks again."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], None]] = deque()

    def ask(self, go_on: Callable[[], None]) -> None:
        """Call *go_on* when it is its turn; it must not raise."""
        self._waiting.append(go_on)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        go_on = self._waiting.popleft()
        if self._waiting:
            self._loop.call_soon(self._next)
        go_on()
