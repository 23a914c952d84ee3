"""A process tells its numbers once a second, its own memory and processor time among them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from coatcheck.core.meter import Meter
from coatcheck.observe.totals import Report, Totals
from coatcheck.workers import reporter as reporters
from coatcheck.workers.reporter import Reporter

MIB = 1024 * 1024


def test_a_report_is_one_that_is_taken(tmp_path: Path) -> None:
    meter = Meter(time.perf_counter)
    meter.requests.add(("runner", "GET", "allow"), 2)
    look = {"certificates": {("hit",): 3.0}}, {"store_revision": {(): 7.0}}

    told = Reporter(lambda _: None, meter, lambda: look).report()

    Totals(tmp_path).take(1, told)
    assert told["counters"]["requests"] == [[["runner", "GET", "allow"], 2]]
    assert told["counters"]["certificates"] == [[["hit"], 3.0]]
    assert told["gauges"]["store_revision"] == [[[], 7.0]]
    assert told["gauges"]["loop_lag"] == [[[], 0.0]]


def test_it_says_what_the_process_uses() -> None:
    before = time.process_time()

    told = Reporter(lambda _: None).report()

    ((_, memory),), ((_, cpu_s),) = told["gauges"]["memory"], told["counters"]["cpu"]
    assert 5 * MIB < memory < 4096 * MIB
    assert before <= cpu_s <= time.process_time()
    assert "loop_lag" not in told["gauges"]


async def test_it_tells_at_once_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporters, "EVERY_S", 0.02)
    told: list[Report] = []
    running = asyncio.create_task(Reporter(told.append).run())

    await asyncio.sleep(0)
    assert len(told) == 1
    async with asyncio.timeout(10):
        while len(told) < 3:  # noqa: ASYNC110 what is waited for is a timer
            await asyncio.sleep(0.01)
    running.cancel()


async def test_a_loop_that_is_held_up_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporters, "EVERY_S", 0.02)
    told: list[Report] = []
    running = asyncio.create_task(Reporter(told.append, Meter(time.perf_counter)).run())
    await asyncio.sleep(0)

    time.sleep(0.1)  # noqa: ASYNC251 that is the point
    async with asyncio.timeout(10):
        while len(told) < 2:  # noqa: ASYNC110 what is waited for is a timer
            await asyncio.sleep(0.005)
    running.cancel()

    ((_, lag_s),) = told[1]["gauges"]["loop_lag"]
    assert lag_s >= 0.07


def test_what_cannot_be_told_is_logged_once_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(
        reporters.logs, "event", lambda name, /, **more: events.append((name, more))
    )
    broken = True

    def tell(_: Report) -> None:
        if broken:
            raise OSError("no room")

    reporter = Reporter(tell)
    reporter.tell()
    reporter.tell()
    broken = False
    reporter.tell()
    broken = True
    reporter.tell()

    assert events == [("metrics.not_written", {"error": "OSError"})] * 2
