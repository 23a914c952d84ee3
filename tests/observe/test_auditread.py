"""Reading audit logs backwards, and following them through moves."""

from __future__ import annotations

import gzip
from itertools import islice
from pathlib import Path

import pytest

from coatcheck.observe import auditfiles, auditread
from tests.observe.audithouse import House


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def at(second: int) -> str:
    return f"2026-11-26T12:00:{second:02}.000+00:00"


def test_the_newest_line_of_all_logs_comes_first(house: House) -> None:
    one, two = house.log(1), house.log(2)
    for second in range(10):
        log = two if second % 3 else one
        log.write({"time": at(second), "n": second})
        if second == 5:
            two.rotate()
            one.path.rename(house.folder / "audit.jsonl.1")
            one.open()
    (moved,) = house.folder.glob("audit.jsonl.1")
    (house.folder / "audit.jsonl.1.gz").write_bytes(gzip.compress(moved.read_bytes()))
    moved.unlink()

    found = [
        entry.record["n"] for entry in auditread.newest_first(house.folder) if "n" in entry.record
    ]

    assert found == list(range(9, -1, -1))


def test_no_more_is_read_than_is_asked_for(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    log = house.log()
    for number in range(2000):
        log.write({"time": at(1), "n": number, "filling": "x" * 200})
    reads: list[int] = []
    pread = auditfiles.os.pread

    def counted(file: int, length: int, offset: int) -> bytes:
        reads.append(length)
        return pread(file, length, offset)

    monkeypatch.setattr(auditfiles.os, "pread", counted)
    found = [e.record["n"] for e in islice(auditread.newest_first(house.folder), 3)]

    assert found == [1999, 1998, 1997]
    assert sum(reads) < 2 * auditfiles.BLOCK < log.path.stat().st_size


def test_lines_from_the_end_are_the_lines_whatever_their_length(tmp_path: Path) -> None:
    lengths = [0, 1, 10, 70_000, 3, 200_000, 65_535, 65_536, 0, 5]
    lines = [b"x" * length + b"\n" for length in lengths]
    for end in (b"", b"half a line"):
        path = tmp_path / "file"
        path.write_bytes(b"".join(lines) + end)
        with path.open("rb") as file:
            found = list(auditfiles.lines_from_end(file.fileno(), path.stat().st_size))
        assert found[::-1] == lines + ([end] if end else [])


def test_what_is_no_record_is_left_out(house: House) -> None:
    house.folder.mkdir()
    house.path.write_bytes(
        b'{"time": "2", "n": 1}\n[]\nrubbish\n\xff\n{"time": "3", "n": 2}\n{"n": 3}'
    )

    found = [entry.record["n"] for entry in auditread.newest_first(house.folder)]

    assert found == [2, 1]


def test_what_is_added_is_followed_through_moves_and_new_files(house: House) -> None:
    log = house.log()
    log.write({"n": "old"})
    follower = auditread.Follower(house.folder)

    def added() -> list[object]:
        return [e.record["n"] for e in follower.added() if "n" in e.record]

    assert added() == []
    log.write({"time": at(1), "n": 1})
    assert added() == [1]
    log.write({"time": at(2), "n": 2})
    log.rotate()
    log.write({"time": at(3), "n": 3})
    house.log(2).write({"time": at(4), "n": 4})
    assert added() == [2, 3, 4]
    with log.path.open("ab") as file:
        file.write(b'{"n": ')
        file.flush()
        assert added() == []
        file.write(b"5}\n")
    assert added() == [5]
    follower.close()
