"""Numbers of several processes, added up: never back, whoever dies; nothing of no report."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from coatcheck.core import meter as meters
from coatcheck.core.meter import Meter
from coatcheck.observe import metrics, totals
from coatcheck.observe.families import BY_KEY, FAMILIES, Kind
from coatcheck.observe.state import WorkerState
from coatcheck.observe.totals import SUPERVISOR, Report, Totals

GET = ("runner", "GET", "allow")


def counted(requests: int = 0, seconds: tuple[float, ...] = (), cpu_s: float = 0.0) -> Report:
    """What a worker tells over its link."""
    meter = Meter(lambda: 0.0)
    meter.requests.add(GET, requests)
    for each in seconds:
        meter.added.add(each)
    told = totals.report(meter, {"cpu": {(): cpu_s}}, {"store_revision": {(): 7}})
    return json.loads(json.dumps(told))  # type: ignore[no-any-return]


def shown(kept: Totals, folder: Path, kind: str = "counters") -> dict[str, Any]:
    kept.write([])
    found = metrics.read(folder)
    assert found is not None
    if kind == "histograms":
        return dict(found[kind])
    return {key: {tuple(labels): n for labels, n in rows} for key, rows in found[kind].items()}


# --- adding up -------------------------------------------------------------------------------


def test_counts_of_all_workers_are_added(tmp_path: Path) -> None:
    kept = Totals(tmp_path)

    kept.take(1, counted(3, (0.0001, 9.0), cpu_s=1.5))
    kept.take(2, counted(4, (0.0001,), cpu_s=2.0))

    assert shown(kept, tmp_path)["requests"] == {GET: 7}
    assert shown(kept, tmp_path)["cpu"] == {("worker-1",): 1.5, ("worker-2",): 2.0}
    added = shown(kept, tmp_path, "histograms")["added"]
    assert (sum(added["counts"]), added["sum"]) == (3, pytest.approx(9.0002))
    assert shown(kept, tmp_path, "gauges")["store_revision"] == {("1",): 7, ("2",): 7}


def test_a_worker_tells_all_it_has_counted_each_time(tmp_path: Path) -> None:
    kept = Totals(tmp_path)

    for number in (3, 3, 5):
        kept.take(1, counted(number, (0.1,)))

    assert shown(kept, tmp_path)["requests"] == {GET: 5}
    assert sum(shown(kept, tmp_path, "histograms")["added"]["counts"]) == 1


@pytest.mark.parametrize("noticed", [True, False], ids=["its end was seen", "it was not"])
def test_counts_do_not_go_back_when_a_worker_is_replaced(noticed: bool, tmp_path: Path) -> None:
    kept = Totals(tmp_path)
    kept.take(1, counted(5, (0.1, 0.1), cpu_s=3.0))

    if noticed:
        kept.left(1)
        assert shown(kept, tmp_path)["requests"] == {GET: 5}
        assert "store_revision" not in shown(kept, tmp_path, "gauges")
    kept.take(1, counted(2, (0.2,), cpu_s=1.0))

    assert shown(kept, tmp_path)["requests"] == {GET: 7}
    assert shown(kept, tmp_path)["cpu"] == {("worker-1",): 4.0}
    assert sum(shown(kept, tmp_path, "histograms")["added"]["counts"]) == 3


def test_names_of_all_the_workers_there_ever_were_are_bounded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(meters, "MOST", 4)
    kept = Totals(tmp_path)
    for life in range(10):
        meter = Meter(lambda: 0.0)
        meter.requests.add((f"client-{life}", "GET", "allow"))
        kept.take(1, totals.report(meter, {}, {}))
        kept.left(1)

    found = shown(kept, tmp_path)["requests"]

    assert len(found) == 5
    assert found["other", "GET", "allow"] == 6


def test_what_is_fixed_is_shown_before_it_happens(tmp_path: Path) -> None:
    """Else the first of its kind makes no difference to a rate."""
    found = shown(Totals(tmp_path), tmp_path)

    assert found["refusals"]["internal_error", "request"] == 0
    assert found["audit_errors"] == {(): 0}
    assert found["requests"] == {}


def test_workers_and_restarts_are_shown_as_they_are(tmp_path: Path) -> None:
    kept = Totals(tmp_path)

    kept.write([WorkerState(1, 5, ready=True), WorkerState(2, restarts=3)])

    found = metrics.read(tmp_path) or {}
    assert found["gauges"]["worker_ready"] == [[["1"], 1], [["2"], 0]]
    assert found["counters"]["worker_restarts"] == [[["1"], 0], [["2"], 3]]


def test_the_process_over_the_workers_has_a_name(tmp_path: Path) -> None:
    kept = Totals(tmp_path)

    kept.take(SUPERVISOR, totals.report(None, {"cpu": {(): 1.0}}, {}))

    assert shown(kept, tmp_path)["cpu"] == {("supervisor",): 1.0}


def test_only_what_this_run_has_written_is_removed(tmp_path: Path) -> None:
    first, second = Totals(tmp_path), Totals(tmp_path)
    first.write([])

    second.remove()
    assert metrics.read(tmp_path) is not None
    first.remove()
    assert metrics.read(tmp_path) is None


# --- what is no report -----------------------------------------------------------------------


def counters(**more: object) -> Mapping[str, object]:
    return {"counters": more, "gauges": {}, "histograms": {}}


def histograms(**more: object) -> Mapping[str, object]:
    return {"counters": {}, "gauges": {}, "histograms": more}


BUCKETS = [0] * (len(BY_KEY["added"].bounds) + 1)


@pytest.mark.parametrize(
    "told",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"counters": {}, "gauges": {}}, id="half of it"),
        pytest.param(counters(passwords=[[[], 1]]), id="a family that is not in the table"),
        pytest.param(counters(memory=[[[], 1]]), id="a gauge among the counters"),
        pytest.param(counters(requests=[[["a", "GET"], 1]]), id="a label too few"),
        pytest.param(counters(requests=[[["a", "GET", "allow", "b"], 1]]), id="one too many"),
        pytest.param(counters(requests=[[["a", "hunter2", "allow"], 1]]), id="a word of its own"),
        pytest.param(counters(requests=[[[1, "GET", "allow"], 1]]), id="a label that is no text"),
        pytest.param(
            counters(requests=[[["\ud800", "GET", "allow"], 1]]), id="a text that is none"
        ),
        pytest.param(counters(requests=[[["a", "GET", "allow"], "1"]]), id="a number as text"),
        pytest.param(counters(requests=[[["a", "GET", "allow"], -1]]), id="less than nothing"),
        pytest.param(counters(requests=[[["a", "GET", "allow"], math.nan]]), id="not a number"),
        pytest.param(counters(requests=[[["a", "GET", "allow"], math.inf]]), id="without end"),
        pytest.param(counters(requests=7), id="no rows"),
        pytest.param(histograms(added={"counts": [1], "sum": 1}), id="other buckets"),
        pytest.param(histograms(added={"counts": BUCKETS}), id="no sum"),
        pytest.param(histograms(requests={"counts": [], "sum": 1}), id="no histogram"),
    ],
)
def test_nothing_is_taken_of_what_is_no_report(told: Report, tmp_path: Path) -> None:
    kept = Totals(tmp_path)
    before = shown(kept, tmp_path)

    with pytest.raises((LookupError, TypeError, ValueError)):
        kept.take(1, told)

    assert shown(kept, tmp_path) == before


def test_what_is_taken_is_not_the_teller_s_to_change(tmp_path: Path) -> None:
    kept, told = Totals(tmp_path), counted(3)
    kept.take(1, told)
    before = copy.deepcopy(shown(kept, tmp_path))

    told["counters"]["requests"][0][1] = 100

    assert shown(kept, tmp_path) == before


# --- the table -------------------------------------------------------------------------------


def test_the_meter_and_the_table_agree() -> None:
    meter = Meter(lambda: 0.0)

    for key, tally in meter.tallies.items():
        family = BY_KEY[key]
        assert (family.kind, len(family.labels)) == (Kind.COUNTER, tally.labels), key
        named = {at for at, label in enumerate(family.labels) if not label.words}
        assert named == tally._named, key
    for key, spread in meter.spreads.items():
        assert (BY_KEY[key].kind, BY_KEY[key].bounds) == (Kind.HISTOGRAM, spread.bounds), key
    histograms = {family.key for family in FAMILIES if family.kind is Kind.HISTOGRAM}
    assert histograms == set(meter.spreads)
