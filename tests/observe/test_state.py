"""What a running proxy says of itself: whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from coatcheck.observe import state


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
