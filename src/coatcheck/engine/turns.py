"""Whose turn it is: of all that takes long, one piece at a time, everybody's packets in between.

An event loop runs all that is ready before it looks for new packets. Were each of a hundred dear
uploads to do its next piece there, a small request would wait for a hundred of them at each packet.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass

TURN_S = 0.002  # how long a body is worked on before others have their turn
FIRST_TURN_S = 0.001  # and an answer at once: of a hundred that come together each has this


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


@dataclass(slots=True)
class Work[T]:
    """What a client has sent and is dear to take apart: done in steps, with the others' turns in
    between. Until the last, nothing that comes behind it is looked at.

    Attributes:
        steps: Yield what may leave after each.
        deliver: Takes what the steps of one turn have given.
        end: Takes what those of the last turn have given, and what came of it all.
    """

    steps: Generator[bytes, None, T]
    deliver: Callable[[bytes], None]
    end: Callable[[bytes, T], None]

    def go_on(self, clock: Callable[[], float]) -> bool:
        """Work for one turn; whether it is over."""
        out: list[bytes] = []
        until = clock() + TURN_S
        while True:
            try:
                out.append(next(self.steps))
            except StopIteration as ended:
                self.end(b"".join(out), ended.value)
                return True
            if clock() >= until:
                if data := b"".join(out):
                    self.deliver(data)
                return False
