"""G6 on disk: a record is there when `write` returns, or `write` raises."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import stat
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from coatcheck.core.ports import AuditError
from coatcheck.observe.auditlog import FileAuditLog

OWN = {"worker", "sequence", "chain", "log", "former", "torn"}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[FileAuditLog]:
    made = FileAuditLog(tmp_path / "audit")
    made.open()
    yield made
    made.close()


def lines(log: FileAuditLog) -> list[dict[str, Any]]:
    """What was written, without what every line has."""
    return [
        {key: value for key, value in line.items() if key not in OWN} for line in numbered(log.path)
    ]


def numbered(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_record_is_a_line_and_there_at_once(log: FileAuditLog) -> None:
    log.write({"n": 1})
    assert lines(log) == [{"n": 1}]

    log.write({"n": 2})
    assert lines(log) == [{"n": 1}, {"n": 2}]


def test_file_and_folder_are_the_owners_alone(log: FileAuditLog) -> None:
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.path.parent.stat().st_mode) == 0o700


def test_what_is_there_is_kept(log: FileAuditLog) -> None:
    log.write({"n": 1})
    log.close()

    again = FileAuditLog(log.path.parent)
    again.open()
    again.write({"n": 2})
    again.close()

    assert lines(log) == [{"n": 1}, {"n": 2}]


def test_not_even_a_meddler_moves_the_end(log: FileAuditLog) -> None:
    """O_APPEND: what another process has added meanwhile is not written over."""
    log.write({"n": 1})
    with log.path.open("ab") as other:
        other.write(b'{"n": 2}\n')

    log.write({"n": 3})

    assert lines(log) == [{"n": 1}, {"n": 2}, {"n": 3}]


def write_or_refuse(folder: Path, answer: Connection) -> None:
    other = FileAuditLog(folder)
    try:
        other.open()
    except AuditError as error:
        answer.send(str(error))
    else:
        answer.send("opened")


def in_another_process(folder: Path) -> str:
    """How opening the log of *folder* ends there."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=write_or_refuse, args=(folder, theirs))
    process.start()
    said = ours.recv() if ours.poll(60) else "nothing"
    process.join(60)
    return str(said)


def test_a_log_has_one_writer(log: FileAuditLog) -> None:
    """A chain needs somebody who knows the line before."""
    refused = in_another_process(log.path.parent)
    log.close()
    opened = in_another_process(log.path.parent)

    assert "another process writes the audit log" in refused
    assert opened == "opened"


def test_a_field_cannot_end_a_line_or_speak_to_a_terminal(log: FileAuditLog) -> None:
    text = 'a\r\n{"forged": 1}\x1b[2J\u202e\u2028\x00'

    log.write({"host": text})

    raw = log.path.read_bytes()
    assert raw.isascii()
    assert raw.count(b"\n") == 1
    assert raw[:-1].decode().isprintable()
    assert lines(log) == [{"host": text}]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_bytes(b"")
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "audit.jsonl").symlink_to(target)

    with pytest.raises(AuditError, match=r"cannot open the audit log .*audit\.jsonl"):
        FileAuditLog(tmp_path / "audit").open()

    assert target.read_bytes() == b""


def test_a_folder_that_cannot_be_made_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(AuditError, match="make the folder writable"):
        FileAuditLog(tmp_path / "file" / "audit").open()


def test_a_log_that_is_not_open_takes_nothing(tmp_path: Path) -> None:
    log = FileAuditLog(tmp_path)
    with pytest.raises(AuditError):
        log.write({})

    log.open()
    log.write({})
    log.close()
    log.close()

    with pytest.raises(AuditError):
        log.write({})


def test_a_log_that_was_moved_away_is_opened_anew(log: FileAuditLog) -> None:
    log.write({"n": 1})
    moved = log.path.rename(log.path.with_suffix(".1"))
    log.write({"n": 2})

    log.open()
    log.write({"n": 3})

    assert [line["n"] for line in numbered(moved)] == [1, 2], "no line is lost in between"
    assert lines(log) == [{"n": 3}]
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


def test_a_log_that_cannot_be_opened_anew_takes_nothing_more(log: FileAuditLog) -> None:
    """What went to the moved file then would be lost with it."""
    log.path.unlink()
    log.path.mkdir()

    with pytest.raises(AuditError):
        log.open()
    with pytest.raises(AuditError):
        log.write({})


def test_and_is_opened_again_once_that_is_mended(log: FileAuditLog) -> None:
    log.write({"n": 1})
    log.path.unlink()
    log.path.mkdir()
    for opening in (log.open, log.tend):
        with pytest.raises(AuditError):
            opening()

    log.path.rmdir()
    log.tend()
    log.write({"n": 2})

    assert [line["sequence"] for line in numbered(log.path)] == [2]


def test_a_pipe_in_its_place_is_not_written(tmp_path: Path) -> None:
    """Once it is full, a write would never return."""
    os.mkfifo(tmp_path / "audit.jsonl")

    with pytest.raises(AuditError, match="no plain file"):
        FileAuditLog(tmp_path).open()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_full_disk_is_an_error_and_over_when_there_is_space(log: FileAuditLog) -> None:
    assert log._file is not None
    kept, full = os.dup(log._file), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, log._file)
    with pytest.raises(AuditError, match="No space left on device"):
        log.write({"n": 1})

    os.dup2(kept, log._file)
    os.close(kept)
    os.close(full)
    log.write({"n": 2})

    (line,) = numbered(log.path)
    assert (line["n"], line["sequence"]) == (2, 1), "no number was spent"


def test_half_a_line_is_an_error_and_spoils_no_other(log: FileAuditLog) -> None:
    """A disk that is nearly full takes the beginning of a line."""
    log.write({"n": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + 4, before[1]))
    try:
        with pytest.raises(AuditError, match="half a line"):
            log.write({"n": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.write({"n": 3})
    log.write({"n": 4})

    whole = [line for line in log.path.read_bytes().splitlines() if line != b'{"n"']
    assert len(log.path.read_bytes().splitlines()) == 4
    told = [(r["n"], r["sequence"], r.get("torn")) for r in map(json.loads, whole)]
    assert told == [(1, 1, None), (3, 2, 5), (4, 3, None)], "the next line tells of the half one"


def test_half_a_line_of_a_crash_spoils_no_other(log: FileAuditLog) -> None:
    log.path.write_bytes(b'{"n": 1}\n{"n"')

    log.open()
    log.write({"n": 3})
    log.write({"n": 4})

    first, half, *others = log.path.read_bytes().splitlines()
    assert (first, half) == (b'{"n": 1}', b'{"n"')
    assert [json.loads(line)["n"] for line in others] == [3, 4]


# --- numbers ---------------------------------------------------------------------------------


def test_every_line_has_the_number_of_its_worker_and_its_own(tmp_path: Path) -> None:
    log = FileAuditLog(tmp_path, 3)
    log.open()
    for _ in range(3):
        log.write({})

    assert log.path.name == "audit-3.jsonl"
    told = [(line["worker"], line["sequence"]) for line in numbered(log.path)]
    assert told == [(3, 1), (3, 2), (3, 3)]


LINE = b'{"sequence": 41, "chain": "%b"}\n' % (b"0" * 64)


@pytest.mark.parametrize(
    ("before", "next_one"),
    [
        pytest.param(b"", 1, id="an empty file"),
        pytest.param(LINE, 42, id="where the last process ended"),
        pytest.param(LINE + b'{"sequence": 42, "ti', 42, id="in half a line"),
        pytest.param(LINE + b"\n\n", 42, id="and nothing behind it"),
        pytest.param(LINE + b'[]\n1\n"x"\n{"sequence": []}\n\r\x00\xff\n', 42, id="or rubbish"),
        pytest.param(LINE + b"x" * 200_000, 42, id="or much of it"),
        pytest.param(b'{"sequence": 41}\n', 1, id="lines without a chain"),
        pytest.param(LINE.replace(b"41", b"41" + b" " * 200_000), 42, id="in a long line"),
    ],
)
def test_the_numbers_go_on(before: bytes, next_one: int, tmp_path: Path) -> None:
    """Else the gap that a line leaves which was taken out could not be told from a restart."""
    (tmp_path / "audit.jsonl").write_bytes(before)
    log = FileAuditLog(tmp_path)
    log.open()
    log.write({})

    last = json.loads(log.path.read_bytes().splitlines()[-1])
    torn = len(before) - before.rfind(LINE[-20:]) - 20 if LINE[-20:] in before else len(before)

    assert last["sequence"] == next_one
    assert last.get("torn", 0) == torn + (torn > 0 and not before.endswith(b"\n"))


def test_the_numbers_go_on_in_the_next_file(log: FileAuditLog) -> None:
    log.write({})
    log.path.rename(log.path.with_suffix(".1"))
    log.open()
    log.write({})

    assert [line["sequence"] for line in numbered(log.path)] == [2]
