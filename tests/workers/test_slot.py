"""One worker's place: who is started in it, how it ends, and when the next one comes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from coatcheck.observe import metrics
from coatcheck.observe.totals import Totals
from coatcheck.settings import load
from coatcheck.workers import slot as slots
from coatcheck.workers.process import how_it_ended
from coatcheck.workers.shares import Shares
from coatcheck.workers.slot import PAUSES_S, Slot, WorkerFailed, environment, pause_s

type Make = Callable[[str], Slot]
LIMIT_S = 20.0


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(slots.logs, "event", lambda name, /, **more: found.append((name, more)))
    return found


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """What the worker has heard."""
    return tmp_path / "notes"


@pytest.fixture
def totals(tmp_path: Path) -> Totals:
    return Totals(tmp_path)


@pytest.fixture
async def make(
    monkeypatch: pytest.MonkeyPatch, notes: Path, events: object, totals: Totals, tmp_path: Path
) -> AsyncIterator[Make]:
    made: list[Slot] = []

    def make(how: str) -> Slot:
        monkeypatch.setattr(slots, "PROGRAM", (sys.executable, "-m", "tests.workers.fake", how))
        settings = load(home=tmp_path, flags={"policy": str(notes)}, environ={})
        made.append(Slot(2, settings, [], [], lambda: None, totals))
        return made[-1]

    yield make
    for slot in made:
        slot.stop_at_once()
        slot.kill()
        await slot.gone()


def heard(notes: Path) -> list[str]:
    return notes.read_text().split()


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not true():  # noqa: ASYNC110 what is waited for is not ours to signal
            await asyncio.sleep(0.01)


# --- a worker that hangs ----------------------------------------------------------------------


async def test_one_that_says_nothing_is_ended_and_replaced(
    make: Make, events: list[tuple[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "LOOK_S", 0.05)
    slot = make("works")
    await slot.start()
    await slot.go()
    first = slot.state.pid
    keeping = asyncio.create_task(slot.keep())

    await until(lambda: slot.state.restarts == 1 and slot.state.ready)
    keeping.cancel()

    assert slot.state.pid != first
    died = next(more for name, more in events if name == "worker.died")
    assert (died["cause"], "said nothing" in died["error"]) == ("SIGKILL", True)


async def test_one_that_has_ended_holds_no_other_back(make: Make) -> None:
    slot, shares = make("works"), Shares.create(2)
    slot._shares = shares
    await slot.start()
    await slot.go()
    shares.tell(1, 10)
    shares.tell(2, 0)
    assert shares.is_ahead(1)

    slot.kill()
    await slot.gone()

    assert not shares.is_ahead(1)
    os.close(shares.file)


async def test_one_that_speaks_is_left_alone(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "LOOK_S", 0.2)
    slot = make("goes on talking")
    await slot.start()
    await slot.go()

    await asyncio.sleep(0.2 * (slots.SILENT_LOOKS + 3))

    assert slot.state.ready
    assert slot.state.restarts == 0


async def test_each_process_has_one_look_and_it_ends_with_it(make: Make) -> None:
    """Two that take turns would each find silent what has spoken to the other."""
    slot = make("works")
    await slot.start()
    await slot.go()
    keeping = asyncio.create_task(slot.keep())

    for restarts in (1, 2):
        os.kill(slot.state.pid or 0, signal.SIGKILL)
        await until(lambda n=restarts: slot.state.restarts == n and slot.state.ready)  # type: ignore[misc]
    keeping.cancel()

    looks = [t for t in asyncio.all_tasks() if "Slot._look" in repr(t.get_coro())]
    assert len(looks) == 1


async def test_one_that_is_told_to_stop_has_its_time(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "LOOK_S", 0.02)
    slot = make("is deaf")
    await slot.start()
    await slot.go()
    slot.stop()

    await asyncio.sleep(0.02 * (slots.SILENT_LOOKS + 10))

    assert slot.state.pid is not None


# --- start and stop --------------------------------------------------------------------------


async def test_it_goes_when_it_is_told_and_says_what_it_has_in_force(
    make: Make, notes: Path, events: list[tuple[str, dict[str, Any]]]
) -> None:
    slot = make("works")
    await slot.start()
    assert slot.state.pid is not None
    assert not slot.state.ready
    assert heard(notes) == ["task"]

    await slot.go()

    assert slot.state.ready
    assert slot.state.facts["store"] == {"revision": 7, "error": ""}
    assert events == [("worker.started", {"worker": 2, "pid": slot.state.pid})]


async def test_what_the_supervisor_wants_is_heard(make: Make, notes: Path) -> None:
    slot = make("works")
    await slot.start()
    await slot.go()

    slot.reload()
    slot.stop()
    await asyncio.wait_for(slot.gone(), LIMIT_S)

    assert heard(notes) == ["task", "go", "reload", "stop"]
    assert (slot.state.pid, slot.state.ready, slot.state.facts) == (None, False, {})


async def test_what_it_has_counted_stays_when_it_has_ended(
    make: Make, totals: Totals, tmp_path: Path
) -> None:
    def told() -> list[object]:
        totals.write([])
        return (metrics.read(tmp_path) or {})["counters"]["requests"]  # type: ignore[no-any-return]

    slot = make("counts")
    await slot.start()
    await slot.go()
    await until(lambda: told() == [[["runner", "GET", "allow"], 3]])
    assert (metrics.read(tmp_path) or {})["gauges"]["store_revision"] == [[["2"], 7]]

    slot.stop()
    await asyncio.wait_for(slot.gone(), LIMIT_S)

    assert told() == [[["runner", "GET", "allow"], 3]]
    assert "store_revision" not in (metrics.read(tmp_path) or {})["gauges"]


async def test_what_nobody_knows_is_not_counted_and_told_once(
    make: Make, totals: Totals, events: list[tuple[str, dict[str, Any]]], tmp_path: Path
) -> None:
    slot = make("miscounts")
    await slot.start()
    await slot.go()

    await until(lambda: len(events) > 1)
    slot.stop()
    await asyncio.wait_for(slot.gone(), LIMIT_S)

    told = [event for event in events if event[0].startswith("metrics.")]
    assert told == [("metrics.not_taken", {"worker": 2, "error": "ValueError"})]
    assert slot.state.last_end == "exit code 0"
    totals.write([])
    assert (metrics.read(tmp_path) or {})["counters"]["requests"] == []


async def test_who_does_not_stop_is_killed(make: Make) -> None:
    slot = make("is deaf")
    await slot.start()
    await slot.go()
    slot.stop()
    slot.stop_at_once()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(slot.gone(), 0.3)

    slot.kill()
    await asyncio.wait_for(slot.gone(), LIMIT_S)

    assert slot.state.last_end == "SIGKILL"


async def test_who_is_not_ready_yet_is_not_waited_for(make: Make) -> None:
    slot = make("works")
    await slot.start()

    slot.stop()
    await asyncio.wait_for(slot.gone(), LIMIT_S)

    assert slot.state.last_end == "SIGKILL"


async def test_who_closes_its_link_and_stays_is_killed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "LEAVE_S", 0.2)
    slot = make("closes its link")
    await slot.start()
    await slot.go()

    await asyncio.wait_for(slot.gone(), LIMIT_S)

    assert slot.state.last_end == "SIGKILL"


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("refuses", "the key is missing; restore it"),
        ("ends at once", "worker 2 ended before it was ready: exit code 7"),
        ("kills itself", "worker 2 ended before it was ready: SIGKILL"),
        ("talks rubbish", "worker 2 ended before it was ready: SIGKILL"),
    ],
)
async def test_who_cannot_start_says_why(
    how: str, says: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "LEAVE_S", 0.2)

    with pytest.raises(WorkerFailed, match=says):
        await asyncio.wait_for(make(how).start(), LIMIT_S)


async def test_who_is_never_ready_is_killed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "READY_S", 0.3)
    slot = make("works")
    monkeypatch.setattr(slots.Link, "tell", lambda *_, **__: None)  # it waits for its task

    with pytest.raises(WorkerFailed, match="not ready within"):
        await slot.start()

    assert slot.state.pid is None


async def test_a_machine_without_room_for_a_process_is_told(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slot = make("works")
    monkeypatch.setattr(slots, "PROGRAM", (str(tmp_path / "nothing"),))

    with pytest.raises(WorkerFailed, match="cannot start a process: No such file"):
        await slot.start()


# --- the next one ----------------------------------------------------------------------------


def deaths(events: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    return [more for name, more in events if name == "worker.died"]


async def test_who_is_killed_is_replaced_at_once(
    make: Make, events: list[tuple[str, dict[str, Any]]]
) -> None:
    slot = make("works")
    await slot.start()
    await slot.go()
    keeping = asyncio.create_task(slot.keep())
    first = slot.state.pid
    assert first is not None

    os.kill(first, signal.SIGKILL)
    await until(lambda: slot.state.restarts == 1 and slot.state.ready)

    assert slot.state.pid not in (None, first)
    assert slot.state.last_end == "SIGKILL"
    (death,) = deaths(events)
    assert (death["worker"], death["cause"], death["next_in_s"]) == (2, "SIGKILL", 0.0)
    assert [name for name, _ in events] == ["worker.started", "worker.died", "worker.started"]
    slot.stop()
    await asyncio.wait_for(keeping, LIMIT_S)
    assert len(deaths(events)) == 1, "a stop is no death"


@pytest.mark.parametrize(
    ("how", "cause", "error"),
    [
        ("dies young", "exit code 3", ""),
        ("refuses", "exit code 1", "the key is missing; restore it"),
    ],
)
async def test_who_dies_again_and_again_waits_longer_and_longer(
    how: str,
    cause: str,
    error: str,
    make: Make,
    events: list[tuple[str, dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slots, "PAUSES_S", (0.0, 0.01, 0.02, 60.0))
    slot = make("works")
    await slot.start()
    await slot.go()
    make(how)
    keeping = asyncio.create_task(slot.keep())
    os.kill(slot.state.pid or 0, signal.SIGKILL)

    await until(lambda: len(deaths(events)) == 4)
    await asyncio.sleep(0.3)

    assert [death["next_in_s"] for death in deaths(events)] == [0.0, 0.01, 0.02, 60.0]
    assert (deaths(events)[-1]["cause"], deaths(events)[-1]["error"]) == (cause, error)
    assert slot.state.restarts == 3, "and none comes before its time"
    slot.stop()
    await asyncio.wait_for(keeping, LIMIT_S)


async def test_who_has_lived_for_a_while_is_forgiven(
    make: Make, events: list[tuple[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "STEADY_S", 0.0)
    monkeypatch.setattr(slots, "PAUSES_S", (0.0, 60.0))
    slot = make("dies young")
    await slot.start()
    await slot.go()
    keeping = asyncio.create_task(slot.keep())

    await until(lambda: len(deaths(events)) == 4)

    assert [death["next_in_s"] for death in deaths(events)] == [0.0] * 4
    slot.stop_at_once()
    slot.kill()
    await asyncio.wait_for(keeping, LIMIT_S)


@pytest.mark.parametrize(
    ("short_lives", "pause"), [(0, 0.0), (1, 0.0), (2, 0.5), (3, 1.0), (8, 30.0), (1000, 30.0)]
)
def test_the_pause_before_the_next_one(short_lives: int, pause: float) -> None:
    assert pause_s(short_lives) == pause
    assert list(PAUSES_S) == sorted(PAUSES_S)


# --- where it comes from ---------------------------------------------------------------------


async def test_a_file_where_we_were_started_is_no_module_of_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m` puts the current folder first: who starts us there would run what lies there."""
    (tmp_path / "json.py").write_text("raise SystemExit(99)")
    monkeypatch.chdir(tmp_path)
    command = (sys.executable, "-m", "coatcheck.workers", "-1")

    async def code(env: dict[str, str]) -> int:
        process = await asyncio.create_subprocess_exec(
            *command, env=env, stderr=asyncio.subprocess.DEVNULL
        )
        return await process.wait()

    unguarded = {**environment(os.environ, sys.path), "PYTHONSAFEPATH": ""}
    assert await code(unguarded) == 99, "or this would prove nothing"
    assert await code(environment(os.environ, sys.path)) == 1


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (-9, "SIGKILL"),
        (-11, "SIGSEGV"),
        (-64, "SIGRTMAX"),
        (-99, "signal 99"),
    ],
)
def test_how_it_ended_in_words(code: int, words: str) -> None:
    assert how_it_ended(code) == words
