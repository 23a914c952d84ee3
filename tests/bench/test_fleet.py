"""`make fleet` in short, and that its judge sees what it is there for."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.deploy import nets
from tests.long import only_in_long
from tests.store.server import Server

ROOT = Path(__file__).resolve().parents[2]
SHORT = [
    "--seconds",
    "20",
    "--calm-s",
    "1",
    "--in-force-s",
    "8",
]  # the machine of the tests is busy


@pytest.mark.slow
@pytest.mark.timeout(300)
@only_in_long
def test_a_small_fleet_keeps_its_promises(postgres: Server) -> None:
    """*postgres* is asked for, so that this is skipped where it cannot be had; it has its own."""
    nets.need("haproxy", root=False)
    done = subprocess.run(
        [sys.executable, "bench/soak_fleet.py", *SHORT, "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=280,
        env=os.environ | {"PYTHONPATH": "."},
    )

    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    missed = {goal: one["seen"] for goal, one in found["goals"].items() if not one["met"]}
    assert missed == {}
    assert found["database"] == {"restarted": 1}
    assert found["replicas killed, back after (s)"].startswith("1: ")
    assert found["listening connections cut"] >= 3
    assert found["changes"] >= 5
    assert found["answers"]["200"] > 100


# --- the judge --------------------------------------------------------------------------------


@pytest.fixture
def verdict(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "bench")
    return importlib.import_module("soak_fleet_verdict")


@pytest.mark.parametrize(
    ("secret", "value", "sent", "words"),
    [
        pytest.param("one", "v1", 100.0, None, id="the value in force"),
        pytest.param("one", "v0", 91.0, None, id="the one before, just replaced"),
        pytest.param("one", "v0", 100.0, "number 0, and 1 is in force", id="the one before, late"),
        pytest.param("one", "v1", 205.0, None, id="the one before, the database being away"),
        pytest.param("one", "v0", 205.0, "1 is in force", id="an older one, though it is away"),
        pytest.param("one", "v1", 300.0, "number 1, and 2 is in force", id="long after it is back"),
        pytest.param("one", "v3", 300.0, "never stored", id="one that was refused"),
        pytest.param("two", "v1", 100.0, "not a value of its own", id="asked for another secret"),
        pytest.param("one", "else", 100.0, "not a value of its own", id="a value of nobody"),
    ],
)
def test_a_wrong_value_is_seen(
    verdict: ModuleType, secret: str, value: str, sent: float, words: str | None
) -> None:
    stage = importlib.import_module("soak_fleet_stage")
    workers = importlib.import_module("soak_workers")
    sites = importlib.import_module("soak_workers_sites")
    stored = (("v0", 80.0), ("v1", 90.0), ("v2", 199.0), ("v3", None))
    changes = [stage.Change("one", name, at) for name, at in stored]
    history = stage.History({"one": changes, "two": []}, [stage.Away("away", 200.0, 210.0)])
    outcomes = {"7": workers.Outcome(secret, "one", "plain", sent)}
    seen = [sites.Seen(sent, "one", "7", value)]

    found, _ = verdict.wrong_values(history, seen, outcomes, 2.0)

    assert len(found) == (words is not None)
    assert words is None or words in found[0]


def test_a_value_that_goes_back_is_seen(verdict: ModuleType) -> None:
    stage = importlib.import_module("soak_fleet_stage")
    workers = importlib.import_module("soak_workers")
    sites = importlib.import_module("soak_workers_sites")
    changes = [stage.Change("one", "v0", 1.0), stage.Change("one", "v1", 2.0)]
    history = stage.History({"one": changes})
    ways = {"1": "replica 1", "2": "replica 1", "3": "replica 2", "4": "replica 1"}
    sent = {"1": 3.0, "2": 4.0, "3": 4.0, "4": 2.5}
    outcomes = {n: workers.Outcome("one", "one", "plain", at) for n, at in sent.items()}
    arrived = (("1", "v1", 3.1), ("2", "v0", 4.1), ("3", "v0", 4.1), ("4", "v0", 4.1))
    seen = [sites.Seen(at, "one", n, value) for n, value, at in arrived]

    found = verdict.gone_back(history, seen, outcomes, ways)

    assert found == ["2 at one: number 0, after 1"]  # 3 came another way, 4 was sent before


@pytest.mark.parametrize(
    ("sent", "may", "must"),
    [
        pytest.param(100.0, False, False, id="the database is there"),
        pytest.param(205.0, False, False, id="it is away, not for long"),
        pytest.param(209.0, True, False, id="for so long that it is given up now"),
        pytest.param(214.0, True, True, id="for longer"),
        pytest.param(222.0, True, False, id="it is back"),
        pytest.param(240.0, False, False, id="it was found again"),
    ],
)
def test_a_refusal_out_of_time_is_seen(
    verdict: ModuleType, sent: float, may: bool, must: bool
) -> None:
    stage = importlib.import_module("soak_fleet_stage")
    workers = importlib.import_module("soak_workers")
    history = stage.History(aways=[stage.Away("away", 200.0, 220.0)])
    one = workers.Outcome("one", "one", "plain", sent, ended=sent + 0.1)
    bounds = verdict.Bounds(8.0, 1.0)

    assert verdict._may_be_unavailable(history, one, bounds) is may
    assert verdict._must_be_unavailable(history, one, bounds) is must
