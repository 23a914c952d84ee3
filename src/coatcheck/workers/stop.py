"""When to stop, as signals say: first with patience, then at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable


class Stop:
    """Asked once: requests under way may end. Asked again: they may not."""

    def __init__(self) -> None:
        self.wanted = asyncio.Event()
        self.at_once = asyncio.Event()

    def ask(self) -> None:
        if self.wanted.is_set():
            self.at_once.set()
        self.wanted.set()

    def on_signals(self, reload: Callable[[], None], *, patient: bool = False) -> None:
        """SIGTERM and SIGINT ask; SIGHUP calls *reload*.

        Args:
            patient: However often they come, they ask once. For a worker: a service manager may
                send each signal to every process, beside what the supervisor says.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.wanted.set if patient else self.ask)
        loop.add_signal_handler(signal.SIGHUP, reload)


def heed_no_more() -> None:
    """When all is done, and the interpreter takes its time to end: a signal that comes now must not
    make a failure of it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
