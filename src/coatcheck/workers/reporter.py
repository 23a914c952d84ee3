"""Tells once a second what a process has counted and measured, its own use of the machine too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from coatcheck.core.meter import Labels, Meter
from coatcheck.observe import logs, totals
from coatcheck.observe.totals import Report
from coatcheck.workers import process

EVERY_S = 1.0

type Values = Mapping[str, Mapping[Labels, float]]  # by the family's key


class Reporter:
    """See the module.

    Args:
        tell: Takes a report. An `OSError` of it is logged when it begins.
        meter: What requests are counted with; the process over the workers has none.
        look: The counters and the gauges to be looked up for each report.
    """

    def __init__(
        self,
        tell: Callable[[Report], None],
        meter: Meter | None = None,
        look: Callable[[], tuple[Values, Values]] = lambda: ({}, {}),
    ) -> None:
        self._tell = tell
        self._meter = meter
        self._look = look
        self._started = time.time()
        self._lag_s = 0.0
        self._failing = False

    async def run(self) -> None:
        """Tell for ever."""
        while True:
            self.tell()
            due = time.monotonic() + EVERY_S
            await asyncio.sleep(EVERY_S)
            self._lag_s = max(0.0, time.monotonic() - due)

    def tell(self) -> None:
        """Tell now. Never raises: numbers are no reason to end anything."""
        try:
            self._tell(self.report())
        except Exception as error:
            if not self._failing:
                logs.event("metrics.not_written", error=type(error).__name__)
            self._failing = True
        else:
            self._failing = False

    def report(self) -> Report:
        counters, gauges = self._look()
        if self._meter is not None:
            gauges = {**gauges, "loop_lag": {(): self._lag_s}}
        return totals.report(
            self._meter,
            {**counters, "cpu": {(): time.process_time()}},
            {
                **gauges,
                "memory": {(): process.memory_bytes()},
                "started": {(): self._started},
            },
        )
