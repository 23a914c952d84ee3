"""Counts and times: what is added shows, and no label makes them grow without bound."""

from __future__ import annotations

import pytest

from coatcheck.core import meter
from coatcheck.core.meter import OTHER, Meter, Spread, Tally


def test_each_series_counts_by_itself() -> None:
    tally = Tally(2)

    tally.add(("a", "x"))
    tally.add(("a", "y"), 3)
    tally.add(("a", "x"))

    assert tally.values == {("a", "x"): 2, ("a", "y"): 3}


def test_a_tally_without_labels_is_one_number() -> None:
    tally = Tally()
    tally.add()
    tally.add(by=2)

    assert tally.values == {(): 3}


def test_beyond_the_bound_names_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "MOST", 3)
    tally = Tally(2, named=[0])

    for name in ("a", "b", "c", "d", "e", "d", "a"):
        tally.add((name, "x"))
    tally.add(("f", "y"))

    assert tally.values == {
        ("a", "x"): 2,
        ("b", "x"): 1,
        ("c", "x"): 1,
        (OTHER, "x"): 3,
        (OTHER, "y"): 1,
    }


@pytest.mark.parametrize(
    ("seconds", "place"),
    [
        pytest.param(0.0, 0, id="nothing"),
        pytest.param(0.1, 0, id="a bound is in its own bucket"),
        pytest.param(0.1001, 1, id="just above it in the next"),
        pytest.param(0.5, 1, id="the last bound"),
        pytest.param(7.0, 2, id="above all bounds"),
    ],
)
def test_a_time_is_counted_in_its_bucket(seconds: float, place: int) -> None:
    spread = Spread([0.1, 0.5])

    spread.add(seconds)

    assert [at for at, count in enumerate(spread.counts) if count] == [place]
    assert spread.sum == seconds


def test_bounds_go_up() -> None:
    for spread in Meter(lambda: 0.0).spreads.values():
        assert list(spread.bounds) == sorted(set(spread.bounds))
