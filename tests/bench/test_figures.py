"""What a table says is worked out right: medians, ratios of neighbours, goals."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys

import pytest

from bench import common
from bench.figures import Goal, Results, goals, percentile, two_allowed


@pytest.mark.parametrize(
    ("values", "share", "seen"),
    [
        pytest.param([3.0, 1.0, 2.0], 0.5, 2.0, id="the middle of three"),
        pytest.param([4.0, 1.0, 2.0, 3.0], 0.5, 2.0, id="the lower of two in the middle"),
        pytest.param([float(n) for n in range(1, 101)], 0.99, 99.0, id="the 99th of a hundred"),
        pytest.param([7.0], 0.99, 7.0, id="the only one"),
    ],
)
def test_a_percentile_is_the_nearest_rank(values: list[float], share: float, seen: float) -> None:
    assert percentile(values, share) == seen


def test_a_percentile_of_nothing_is_unknown() -> None:
    assert math.isnan(percentile([], 0.5))


def results(**rounds: list[float]) -> Results:
    """Contenders of the case ``keep-16``, and what they took in each round."""
    made = Results()
    for name, values in rounds.items():
        for value in values:
            made.add("keep-16", name, {"cpu_s_per_1000": value})
    return made


def test_a_median_leaves_out_the_rounds_that_do_not_have_the_figure() -> None:
    made = results(coatcheck=[3.0, math.nan, 1.0, 2.0])

    assert made.median("keep-16", "coatcheck", "cpu_s_per_1000") == 2.0
    assert math.isnan(made.median("keep-16", "stock", "cpu_s_per_1000"))


def test_a_ratio_is_that_of_neighbours() -> None:
    """The machine was ten times slower in the second round: the medians' ratio would be 10/1."""
    made = results(coatcheck=[1.0, 10.0, 10.0], stock=[10.0, 100.0, 1.0])

    assert made.ratio("keep-16", "coatcheck", "stock", "cpu_s_per_1000") == 0.1


@pytest.mark.parametrize("stock", [[], [math.nan], [0.0]], ids=["missing", "unknown", "nothing"])
def test_there_is_no_ratio_to_what_is(stock: list[float]) -> None:
    made = results(coatcheck=[1.0], stock=stock)

    assert math.isnan(made.ratio("keep-16", "coatcheck", "stock", "cpu_s_per_1000"))


@pytest.mark.parametrize(
    ("goal", "state"),
    [
        pytest.param(Goal("", 0.18, 0.18), "met", id="at most, and is the same"),
        pytest.param(Goal("", 0.19, 0.18), "missed", id="at most, and is more"),
        pytest.param(Goal("", 1.6, 1.6, at_least=True), "met", id="at least, and is the same"),
        pytest.param(Goal("", 1.5, 1.6, at_least=True), "missed", id="at least, and is less"),
        pytest.param(Goal("", math.nan, 1.6, at_least=True), "not measured", id="unknown"),
        pytest.param(Goal("", math.nan, 1.6), "not measured", id="unknown, at most"),
    ],
)
def test_a_goal_is(goal: Goal, state: str) -> None:
    assert goal.state == state


def test_the_goals_are_worked_out_from_the_cases() -> None:
    made = results(coatcheck=[1.0], stock=[10.0])
    made.add_errors("keep-16", "stock", {"Broken: wrong body": 2, "no answer": 0})

    by_state = {goal.name: (goal.value, goal.state) for goal in goals(made, 2)}

    assert by_state.pop("HTTPS, 16 connections kept: CPU per request, against stock") == (
        0.1,
        "met",
    )
    assert by_state.pop("answers that are wrong or missing") == (2.0, "missed")
    assert {state for _, state in by_state.values()} == {"not measured"}


@pytest.mark.parametrize(
    ("own", "ends", "cores", "most"),
    [
        pytest.param(1.0, 0.0, 2, 2.0, id="ends that cost nothing"),
        pytest.param(1.0, 0.25, 2, 1.6, id="ends that cost a quarter"),
        pytest.param(1.0, 1.0, 2, 1.0, id="ends that cost as much as the proxy"),
        pytest.param(1.0, 1.0, 4, 2.0, id="cores enough for all"),
    ],
)
def test_two_workers_can_be_at_most_so_many_times_faster(
    own: float, ends: float, cores: int, most: float
) -> None:
    assert two_allowed(own, ends, cores) == pytest.approx(most)


def test_the_cost_of_a_process_is_that_of_its_children_too() -> None:
    """Of those that run, and of those that have ended: a worker may be replaced."""
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"
    ended = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\n"
    lives = f"subprocess.Popen([sys.executable, '-c', {burn + 'input()'!r}])\n"
    with subprocess.Popen(
        [sys.executable, "-c", ended + lives + "print(flush=True)\ninput()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        parent, child = common.family(process.pid)
        try:
            common.wait_for(lambda: common.cpu_s([child]) >= 0.2)

            assert parent == process.pid
            assert common.cpu_s([parent]) >= 0.2
            assert common.cpu_s([parent, child]) >= 0.4
            assert common.memory_mib(child, "VmRSS") > 1
        finally:
            os.kill(child, signal.SIGKILL)
            process.kill()
