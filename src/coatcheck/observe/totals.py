"""Adds up what the processes of one run have counted.

A worker tells its counts since its start, again and again, so a message that is lost costs nothing.
What is added is the difference to what it told before. So counts never go back: when a worker ends
they stay, and its successor's, which begin with 0, come on top. What a killed worker counted after
its last message is missing: a second at the most. The audit log has it.

A worker is the side that untrusted bytes reach: a report that is not one ends in an exception, and
nothing of it is taken.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from coatcheck.core.meter import Labels, Meter, Spread, Tally
from coatcheck.observe import metrics, state
from coatcheck.observe.families import BY_KEY, FAMILIES, Family, Kind
from coatcheck.observe.state import WorkerState

SUPERVISOR = 0  # its number among the workers

type Rows = list[list[Any]]  # of [labels, number]
type Report = Mapping[str, Mapping[str, Any]]  # "counters", "gauges" and "histograms" by their ids


def report(
    meter: Meter | None,
    counters: Mapping[str, Mapping[Labels, float]],
    gauges: Mapping[str, Mapping[Labels, float]],
) -> Report:
    """One process's numbers as JSON has them: what *meter* has counted, and what was looked up.

    The label that says which worker or process it is, is not among the labels here.
    """
    counted = dict(counters)
    spreads: Mapping[str, Spread] = {}
    if meter is not None:
        counted |= {key: tally.values for key, tally in meter.tallies.items()}
        counted["audit_lines"] = {(): sum(meter.audit_write.counts)}
        spreads = meter.spreads
    return {
        "counters": {key: _rows(values) for key, values in counted.items()},
        "gauges": {key: _rows(values) for key, values in gauges.items()},
        "histograms": {
            key: {"counts": list(spread.counts), "sum": spread.sum}
            for key, spread in spreads.items()
        },
    }


def _rows(values: Mapping[Labels, float]) -> Rows:
    return [[list(labels), number] for labels, number in values.items()]


class Totals:
    """The numbers of one run."""

    def __init__(self, folder: Path) -> None:
        """*folder*: ``run/`` of the home."""
        self._folder = folder
        self._counters = {
            family.key: Tally(len(family.labels), named=_named(family))
            for family in FAMILIES
            if family.kind is Kind.COUNTER
        }
        for key, tally in self._counters.items():
            for labels in BY_KEY[key].series:
                tally.add(labels, 0)
        self._histograms = {
            family.key: Spread(family.bounds)
            for family in FAMILIES
            if family.kind is Kind.HISTOGRAM
        }
        self._last: dict[int, _Told] = {}
        self._written = False

    def take(self, number: int, told: Report) -> None:
        """What worker *number* has counted and measured.

        Raises:
            LookupError, TypeError, ValueError: it is no report.
        """
        new, old = _Told.read(number, told), self._last.get(number, _Told({}, {}, {}))
        for key, values in new.counters.items():
            before = old.counters.get(key, {})
            for labels, count in values.items():
                self._counters[key].add(labels, _more(before.get(labels, 0), count))
        for key, (counts, total) in new.histograms.items():
            earlier = old.histograms.get(key, ([0] * len(counts), 0.0))
            spread = self._histograms[key]
            spread.sum += _more(earlier[1], total)
            for at, (count, was) in enumerate(zip(counts, earlier[0], strict=True)):
                spread.counts[at] += _more(was, count)
        self._last[number] = new

    def left(self, number: int) -> None:
        """Worker *number* has ended."""
        self._last.pop(number, None)

    def write(self, workers: Sequence[WorkerState]) -> None:
        """Write the file anew. Raises `OSError`."""
        gauges: dict[str, Rows] = {}
        for told in self._last.values():
            for key, values in told.gauges.items():
                gauges.setdefault(key, []).extend(_rows(values))
        gauges["worker_ready"] = [[[str(one.number)], int(one.ready)] for one in workers]
        restarts = [[[str(one.number)], one.restarts] for one in workers]
        counters = {key: _rows(tally.values) for key, tally in self._counters.items()}
        record = {
            "written": time.time(),
            "counters": {**counters, "worker_restarts": restarts},
            "gauges": gauges,
            "histograms": {
                key: {"counts": spread.counts, "sum": spread.sum}
                for key, spread in self._histograms.items()
            },
        }
        state.write(self._folder, record, metrics.FILE_NAME)
        self._written = True

    def remove(self) -> None:
        """At the end of the run. What another run has written is left alone."""
        if self._written:
            state.remove(self._folder, metrics.FILE_NAME)


class _Told:
    """The last report of one process, read."""

    def __init__(
        self,
        counters: Mapping[str, Mapping[Labels, float]],
        gauges: Mapping[str, Mapping[Labels, float]],
        histograms: Mapping[str, tuple[list[int], float]],
    ) -> None:
        self.counters = counters
        self.gauges = gauges
        self.histograms = histograms

    @classmethod
    def read(cls, number: int, told: Report) -> _Told:
        return cls(
            _numbers(number, told["counters"], Kind.COUNTER),
            _numbers(number, told["gauges"], Kind.GAUGE),
            {
                family.key: _spread(family, shown)
                for family, shown in _families(told["histograms"], Kind.HISTOGRAM)
            },
        )


def _families(told: Mapping[str, Any], kind: Kind) -> Iterator[tuple[Family, Any]]:
    for key, shown in told.items():
        if BY_KEY[key].kind is not kind:
            raise ValueError(f"{key} is no {kind}")
        yield BY_KEY[key], shown


def _numbers(number: int, told: Mapping[str, Any], kind: Kind) -> dict[str, dict[Labels, float]]:
    found = {}
    for family, rows in _families(told, kind):
        mark = _mark(family, number)
        found[family.key] = {
            _labels(family, (*mark, *labels)): _number(value) for labels, value in rows
        }
    return found


def _mark(family: Family, number: int) -> Labels:
    """The label that says whose number it is."""
    first = family.labels[0].name if family.labels else ""
    if first == "worker":
        return (str(number),)
    if first == "process":
        return ("supervisor" if number == SUPERVISOR else f"worker-{number}",)
    return ()


def _labels(family: Family, words: Labels) -> Labels:
    for label, word in zip(family.labels, words, strict=True):
        if not isinstance(word, str) or (label.words and word not in label.words):
            raise ValueError(f"{family.key} has no such {label.name}")
        word.encode()  # half a surrogate pair would spoil every scrape
    return words


def _number(value: object) -> float:
    if not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError("no number")
    return value


def _spread(family: Family, told: Mapping[str, Any]) -> tuple[list[int], float]:
    counts = [int(_number(count)) for count in told["counts"]]
    if len(counts) != len(family.bounds) + 1:
        raise ValueError(f"{family.key} has other bounds")
    return counts, _number(told["sum"])


def _more[N: (int, float)](before: N, now: N) -> N:
    """What has come on top; all of it, where a successor begins anew."""
    return now - before if now >= before else now


def _named(family: Family) -> list[int]:
    return [at for at, label in enumerate(family.labels) if not label.words]
