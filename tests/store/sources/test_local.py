"""Files and commands by themselves: what is no plain file, what a command is given, how it ends."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from coatcheck.core.secret import MAX_VALUE
from coatcheck.store.sources.local import Commands, Files
from coatcheck.store.sources.port import Failure, SourceError


def failure_of_file(path: Path) -> Failure:
    with pytest.raises(SourceError) as caught:
        Files().fetch({"file": str(path)})
    return caught.value.failure


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    assert failure_of_file(tmp_path / "pipe") is Failure.UNREADABLE


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("/dev/zero", Failure.UNREADABLE, id="a device"),
        pytest.param("/", Failure.UNREADABLE, id="a folder"),
        pytest.param("/nowhere/file", Failure.GONE, id="nothing"),
        pytest.param("/etc/passwd/file", Failure.GONE, id="below a file"),
        pytest.param("a\0b", Failure.UNREADABLE, id="no path"),
    ],
)
def test_what_is_no_plain_file_is_not_read(name: str, expected: Failure) -> None:
    assert failure_of_file(Path(name)) is expected


def test_a_file_is_read_as_far_as_a_value_may_be_long(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(MAX_VALUE * 4)

    assert len(Files().fetch({"file": str(tmp_path / "large")}).value) == MAX_VALUE + 2


# --- commands ---------------------------------------------------------------------------------


def run(*words: str, timeout_s: float = 5.0, **options: object) -> bytes:
    environ = {"PATH": os.environ["PATH"], "KEY": "sealing", "GIVEN": "given", "HOME": "/home"}
    return Commands(options, timeout_s, environ).fetch({"command": words}).value


def failure_of(*words: str, timeout_s: float = 5.0) -> Failure:
    with pytest.raises(SourceError) as caught:
        run(*words, timeout_s=timeout_s)
    return caught.value.failure


def test_a_command_gets_no_variables_but_those_that_are_named() -> None:
    names = {line.partition(b"=")[0] for line in run("/usr/bin/env").splitlines()}
    more = run("/usr/bin/env", environment=("GIVEN",)).splitlines()

    assert names == {b"PATH", b"HOME"}
    assert b"GIVEN=given" in more


def test_a_command_gets_no_input_and_no_shell() -> None:
    assert run("/bin/cat") == b""
    assert run("/bin/echo", "$(id)") == b"$(id)\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(("/bin/false",), Failure.COMMAND_FAILED, id="it says that it failed"),
        pytest.param(("/nowhere/program",), Failure.COMMAND_FAILED, id="there is none"),
        pytest.param(("/etc/passwd",), Failure.COMMAND_FAILED, id="it cannot be run"),
        pytest.param(("/bin/sh", "-c", "kill -9 $$"), Failure.COMMAND_FAILED, id="it was killed"),
        pytest.param(("/bin/cat", "/dev/zero"), Failure.TOO_LARGE, id="it prints for ever"),
    ],
)
def test_a_command_that_ends_badly(words: tuple[str, ...], expected: Failure) -> None:
    assert failure_of(*words) is expected


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("sleep 60", id="one that sleeps"),
        pytest.param("sleep 60 & sleep 60", id="with a child"),
        pytest.param("exec >/dev/null; sleep 60", id="one that says it will print no more"),
    ],
)
def test_a_command_that_takes_too_long_is_stopped_with_its_children(
    script: str, tmp_path: Path
) -> None:
    mark = tmp_path / "pid"
    begun = time.monotonic()

    assert failure_of("/bin/sh", "-c", f"echo $$ > {mark}; {script}", timeout_s=0.5) is (
        Failure.TOO_SLOW
    )

    assert time.monotonic() - begun < 5
    group = int(mark.read_text())
    for _ in range(100):
        if not in_group(group):
            return
        time.sleep(0.05)
    pytest.fail("something of it still runs")


def in_group(group: int) -> list[str]:
    """The processes of a group that run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(") ")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == group and state != "Z":
            found.append(stat.parent.name)
    return found
