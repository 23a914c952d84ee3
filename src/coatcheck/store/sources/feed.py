"""Asks sources for values: a thread for each, so that one that hangs delays no other.

Daemons, since nothing can end a thread that waits for a file system: such a one must not keep the
process from ending. What it brings too late is thrown away (`Sourced.take`).
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence

from coatcheck.sourcefile import SourceConfig
from coatcheck.store.sources.port import OF_THE_SOURCE, Failure, Source, SourceError
from coatcheck.store.sources.sourced import Entry, Sourced, pause_s

SPREAD = 0.1  # of a pause, at random: workers and replicas must not ask all at once

type Make = Callable[[SourceConfig], Source]


class Feeds:
    """The threads of one worker."""

    def __init__(self, sourced: Sourced, make: Make) -> None:
        self._sourced = sourced
        self._make = make
        self._feeds: list[_Feed] = []

    def follow(self, entries: Sequence[Entry]) -> None:
        """From now on ask for *entries* and for nothing else."""
        self.close()
        by_source: dict[str, list[Entry]] = {}
        for entry in entries:
            by_source.setdefault(entry.source.name, []).append(entry)
        self._feeds = [
            _Feed(self._sourced, several[0].source, several, self._make)
            for several in by_source.values()
        ]

    def close(self) -> None:
        """End all; those in the middle of a question when it is answered."""
        for feed in self._feeds:
            feed.stop.set()
        self._feeds = []


class _Feed:
    def __init__(
        self, sourced: Sourced, config: SourceConfig, entries: Sequence[Entry], make: Make
    ) -> None:
        self.stop = threading.Event()
        self._sourced = sourced
        self._config = config
        self._entries = entries
        self._make = make
        self._source: Source | None = None
        threading.Thread(target=self._run, name=f"source {config.name}", daemon=True).start()

    def _run(self) -> None:
        try:
            while not self.stop.is_set():
                self._ask_for_due()
                self.stop.wait(self._pause_s())
        finally:
            if self._source is not None:
                self._source.close()

    def _ask_for_due(self) -> None:
        now = self._sourced.monotonic()
        due = [entry for entry in self._entries if entry.due <= now]
        for place, entry in enumerate(due):
            if self.stop.is_set():
                return
            failure = self._ask_for(entry)
            if failure in OF_THE_SOURCE:
                for other in due[place + 1 :]:
                    self._sourced.fail(other, failure)
                    self._plan(other)
                return

    def _ask_for(self, entry: Entry) -> Failure | None:
        failure: Failure | None = None
        try:
            if self._source is None:
                self._source = self._make(self._config)
            self._sourced.take(entry, self._source.fetch(entry.declared.where))
        except SourceError as error:
            failure = error.failure
        except Exception:  # a bug of an adapter must not end the thread; its words may hold a value
            failure = Failure.ODD
        if failure is not None:
            self._sourced.fail(entry, failure)
        self._plan(entry)
        return failure

    def _plan(self, entry: Entry) -> None:
        spread = 1 - SPREAD * random.random()  # noqa: S311 no secret hangs on it
        entry.due = self._sourced.monotonic() + pause_s(entry) * spread

    def _pause_s(self) -> float:
        soonest = min(entry.due for entry in self._entries)
        return max(0.0, soonest - self._sourced.monotonic())
