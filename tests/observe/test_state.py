"""What a running proxy says of itself: whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from coatcheck.observe import state
from coatcheck.observe.state import StateFile, WorkerState


def test_what_was_written_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    state.write(folder, {"pid": 1, "listen": [["127.0.0.1", 8080]]})

    assert state.read(folder) == {"pid": 1, "listen": [["127.0.0.1", 8080]]}
    assert stat.S_IMODE((folder / "state.json").stat().st_mode) == 0o600
    assert [file.name for file in folder.iterdir()] == ["state.json"]


def test_a_reader_never_sees_half_of_it(tmp_path: Path) -> None:
    state.write(tmp_path, {"n": 0})
    done = threading.Event()
    seen: list[object] = []

    def read() -> None:
        while not done.is_set():
            seen.append(state.read(tmp_path))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        state.write(tmp_path, {"n": number, "filling": "x" * number * 100})
    done.set()
    reader.join()

    assert seen
    assert None not in seen


def test_a_link_in_the_place_of_the_draft_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("kept")
    (tmp_path / f".state.json.{os.getpid()}").symlink_to(target)

    with pytest.raises(OSError, match="symbolic links"):
        state.write(tmp_path, {})

    assert target.read_text() == "kept"


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff", b"1"])
def test_a_file_that_is_none_reads_as_none(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "state.json").write_bytes(content)

    assert state.read(tmp_path) is None


def test_it_is_taken_away(tmp_path: Path) -> None:
    state.write(tmp_path, {})

    state.remove(tmp_path)
    state.remove(tmp_path)

    assert state.read(tmp_path) is None


def test_a_process_is_alive_until_it_is_reaped() -> None:
    child = subprocess.Popen(["sleep", "60"])
    assert state.is_alive(child.pid)

    child.kill()
    child.wait()

    assert not state.is_alive(child.pid)
    assert state.is_alive(os.getpid())
    assert state.is_alive(1), "of another user, perhaps"


@pytest.mark.parametrize("pid", [None, "1", 0, -1, 10**30, 1.0, []])
def test_what_is_no_process_is_not_alive(pid: object) -> None:
    assert not state.is_alive(pid)


# --- for all workers -------------------------------------------------------------------------


def in_force(
    digest: str = "d1", revision: int = 5, policy_error: str = "", store_error: str = ""
) -> dict[str, dict[str, Any]]:
    return {
        "policy": {"digest": digest, "error": policy_error},
        "store": {"revision": revision, "error": store_error},
    }


def shown(folder: Path, *facts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    file = StateFile(folder, Path("/policy.yaml"), 0.0)
    file.listen = [("127.0.0.1", 8080)]
    file.show([WorkerState(n, 100 + n, facts=told) for n, told in enumerate(facts, 1)])
    found = state.read(folder)
    assert found is not None
    return found


def test_one_file_tells_of_the_whole_and_of_each_worker(tmp_path: Path) -> None:
    found = shown(tmp_path, in_force(), in_force(revision=6))

    assert found["pid"] == os.getpid()
    assert found["listen"] == [["127.0.0.1", 8080]]
    assert found["started_at"] == "1970-01-01T00:00:00+00:00"
    assert found["policy"] == {"path": "/policy.yaml", "digest": "d1", "error": ""}
    assert [(one["number"], one["pid"]) for one in state.workers_of(found)] == [(1, 101), (2, 102)]
    assert [one["store"]["revision"] for one in state.workers_of(found)] == [5, 6]


@pytest.mark.parametrize(
    ("facts", "policy", "store"),
    [
        pytest.param([in_force()], ("d1", ""), (5, ""), id="one that is alone"),
        pytest.param(
            [in_force(), in_force("d2", 6)], ("", ""), (5, ""), id="while a change is on its way"
        ),
        pytest.param(
            [in_force(), in_force(policy_error="line 3")], ("d1", "line 3"), (5, ""), id="an error"
        ),
        pytest.param(
            [in_force(store_error="locked"), in_force(store_error="gone")],
            ("d1", ""),
            (5, "locked"),
            id="the first of several errors",
        ),
        pytest.param([in_force(), {}], ("d1", ""), (5, ""), id="one of them is down"),
        pytest.param([{}, {}], ("", ""), (0, ""), id="all are down"),
    ],
)
def test_what_holds_for_the_whole(
    facts: list[dict[str, dict[str, Any]]],
    policy: tuple[str, str],
    store: tuple[int, str],
    tmp_path: Path,
) -> None:
    found = shown(tmp_path, *facts)

    assert (found["policy"]["digest"], found["policy"]["error"]) == policy
    assert (found["store"]["revision"], found["store"]["error"]) == store


def test_a_file_that_cannot_be_written_is_told_of_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    monkeypatch.setattr(state.logs, "event", lambda name, /, **_: events.append(name))
    (tmp_path / "run").write_text("in the way")

    StateFile(tmp_path / "run", Path("/policy.yaml"), 0.0).show([])

    assert events == ["state.not_written"]


@pytest.mark.parametrize("wrote", [True, False])
def test_only_who_wrote_it_takes_it_away(wrote: bool, tmp_path: Path) -> None:
    """A second start for the same home that fails leaves the first one's alone."""
    state.write(tmp_path, {"pid": 1})
    file = StateFile(tmp_path, Path("/policy.yaml"), 0.0)
    if wrote:
        file.show([])

    file.remove()

    assert (state.read(tmp_path) is None) == wrote


@pytest.mark.parametrize("listed", [None, 1, "x", {}, [1, "x", None]])
def test_workers_of_an_older_file_are_none(listed: object) -> None:
    assert state.workers_of({"workers": listed}) == state.workers_of({}) == []
