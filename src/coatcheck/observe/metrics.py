"""What a scrape gets: the numbers of `observe.families`, as Prometheus reads them.

The admin process calls `exposition` for each scrape. It reads what the process over the workers
writes each second (`observe.totals`), so a scrape costs the workers nothing and waits for none.
"""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coatcheck import __version__
from coatcheck.observe import state
from coatcheck.observe.counted import UNKNOWN
from coatcheck.observe.families import FAMILIES, Family, Kind

if TYPE_CHECKING:
    from prometheus_client.core import Metric

FILE_NAME = "metrics.json"  # beside the state file
FRESH_S = 10.0  # older numbers are of a process that hangs, or is gone


def exposition(folder: Path, now: float | None = None) -> tuple[bytes, str]:
    """What a scrape gets, and its Content-Type.

    Args:
        folder: ``run/`` of the home.
        now: Seconds since the epoch, if it is not to be asked for.
    """
    # Here alone: the process over the workers needs nothing of it.
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    from prometheus_client.registry import Collector

    class Shown(Collector):
        def collect(self) -> Iterable[Metric]:
            return metrics

    metrics = list(_metrics(_current(folder, time.time() if now is None else now)))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Shown())
    return generate_latest(registry), CONTENT_TYPE_LATEST


def read(folder: Path) -> dict[str, Any] | None:
    """What was written last; None where there is nothing."""
    return state.read(folder, FILE_NAME)


def sums(folder: Path) -> dict[str, int]:
    """For people: how much there was of what matters, in all."""
    counted = (read(folder) or {}).get("counters", {})
    shown = ("requests", "refusals", "injections", "scrubs")
    return {name: int(sum(number for _, number in counted.get(name, ()))) for name in shown}


def _current(folder: Path, now: float) -> Mapping[str, Any]:
    record = read(folder) or {}
    up = abs(now - record.get("written", 0.0)) <= FRESH_S
    gauges = record.get("gauges", {}) if up else {}
    build = (__version__, platform.python_version(), _version("mitmproxy"))
    return {
        "counters": record.get("counters", {}) if up else {},
        "histograms": record.get("histograms", {}) if up else {},
        "gauges": {
            **gauges,
            "build": [[build, 1]],
            "up": [[(), int(up)]],
            **({"written": [[(), record["written"]]]} if up else {}),
        },
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return UNKNOWN


def _metrics(record: Mapping[str, Any]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    for family in FAMILIES:
        names = [label.name for label in family.labels]
        told = record[family.kind + "s"].get(family.key)
        if told is None:
            continue
        if family.kind is Kind.HISTOGRAM:
            yield _histogram_metric(family, told)
            continue
        make = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
        metric = make(family.name, family.about, labels=names)
        for labels, number in sorted(told):
            metric.add_metric(labels, number)
        yield metric


def _histogram_metric(family: Family, told: Mapping[str, Any]) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    metric = HistogramMetricFamily(family.name, family.about)
    metric.add_metric([], _buckets(family.bounds, told["counts"]), told["sum"])
    return metric


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, int]]:
    """Each with all that are below it, as Prometheus has them."""
    total, buckets = 0, []
    for bound, count in zip([*map(repr, bounds), "+Inf"], counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets
