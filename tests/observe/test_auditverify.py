"""Whatever is done to an audit log by who cannot sign shows, and where."""

from __future__ import annotations

import gzip
import itertools
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from coatcheck.core.ports import AuditError
from coatcheck.observe import auditlog, auditverify
from coatcheck.observe.auditlog import Keep
from tests.observe.audithouse import NOW, House, chained_anew, records


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


# --- what is whole ----------------------------------------------------------------------------


def test_a_log_that_nobody_touched_is_whole(house: House) -> None:
    house.written(5)
    house.written(3)
    house.written(2, worker=2)

    one, two = house.verified()

    assert (one.findings, two.findings) == ([], [])
    assert (one.log, one.first, one.last, one.signed) == ("audit", 1, 10, 10)
    assert (two.log, two.first, two.last, two.signed) == ("audit-2", 1, 3, 3)


def test_lines_that_no_head_covers_yet_are_counted_and_no_finding(house: House) -> None:
    """A proxy that runs, or one that was killed."""
    house.written(2)
    log = house.log()
    log.write({})

    (found,) = house.verified()

    assert (found.last, found.signed, found.findings) == (4, 3, [])


def test_a_process_that_was_killed_leaves_a_log_that_goes_on_whole(house: House) -> None:
    log = house.log()
    log.write({"n": 1})
    log.sign()
    log.write({"n": 2})
    os.close(log._file or -1)  # as a SIGKILL would
    house.written(1)

    assert house.findings() == []
    assert [r["sequence"] for r in records(house.path)] == [1, 2, 3, 4, 5]


def test_half_a_line_of_a_crash_is_told_until_it_is_on_record(house: House) -> None:
    house.written(2)
    log = house.log()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + 9, before[1]))
    try:
        with pytest.raises(AuditError, match="half a line"):
            log.write({"n": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    os.close(log._file or -1)
    cut_off = house.told()
    house.written(1)

    assert len(cut_off) == 1
    assert "audit.jsonl:4: no whole line" in cut_off[0]
    assert house.findings() == []
    assert [r.get("torn") for r in map(json.loads, house.path.read_bytes().splitlines()[4:])] == [
        10,
        None,
    ]


def write_until_killed(root: Path, said: Connection) -> None:
    """Lines, heads, new files and the end of old ones, as fast as it goes."""
    log = House(root).log(keep=Keep(file_bytes=3000, files=3))
    for number in itertools.count():
        log.write({"n": number})
        said.send_bytes(str(log._sequence).encode())
        log._signed_at = 0.0 if number % 7 == 0 else log._signed_at
        log.tend()


def test_killed_at_any_moment_it_stays_whole_and_loses_no_line(house: House) -> None:
    context = multiprocessing.get_context("fork")
    chance = random.Random(7)
    for _ in range(25):
        ours, theirs = context.Pipe(duplex=False)
        writer = context.Process(target=write_until_killed, args=(house.root, theirs))
        writer.start()
        theirs.close()
        last = ours.recv_bytes()
        until = time.monotonic() + chance.uniform(0.0, 0.03)
        while time.monotonic() < until:
            last = ours.recv_bytes()
        writer.kill()
        with suppress(EOFError):
            while True:
                last = ours.recv_bytes()
        writer.join()
        (found,) = house.verified()
        assert found.findings == []
        assert found.last >= int(last)
        ours.close()
    assert len(list(house.folder.glob("audit.*-*.jsonl"))) > 1


@pytest.mark.parametrize("by", ["size", "SIGHUP"])
def test_a_log_goes_on_in_the_next_file(house: House, by: str) -> None:
    log = house.log(keep=Keep(file_bytes=1))
    for number in range(3):
        log.write({"n": number})
        if by == "size":
            log.tend()
        else:
            log.path.rename(log.path.with_name(f"audit.jsonl.{number}"))
            log.open()
    log.write({"n": 3})
    log.close()

    (found,) = house.verified()

    assert (found.findings, len(found.files), found.last) == ([], 4, 8)
    if by == "size":
        assert found.files[:3] == ["audit.1-2.jsonl", "audit.3-4.jsonl", "audit.5-6.jsonl"]


def test_a_full_file_that_somebody_has_moved_is_not_moved_again(house: House) -> None:
    log = house.log(keep=Keep(file_bytes=1))
    log.write({})
    log.path.rename(house.folder / "audit.jsonl.1")
    log.tend()
    log.write({})
    log.close()

    (found,) = house.verified()

    assert found.findings == []
    assert found.files == ["audit.jsonl.1", "audit.jsonl"]


def test_a_log_whose_head_cannot_be_kept_is_not_opened(house: House) -> None:
    house.written(1)
    kept = (house.keys.heads / "audit.head").read_bytes()
    log = house.log()
    log.close()
    (house.keys.heads / ".audit.head.new").mkdir()

    with pytest.raises(AuditError, match="cannot keep the head"):
        log.open()
    with pytest.raises(AuditError, match="not open"):
        log.write({})
    assert (house.keys.heads / "audit.head").read_bytes() == kept


def test_a_file_that_was_moved_while_nothing_ran_is_followed_by_the_next(house: House) -> None:
    house.written(2)
    house.path.rename(house.folder / "audit.jsonl-old")
    house.written(2)
    old = house.folder / "audit.jsonl-old"
    old.with_name("audit.jsonl-old.gz").write_bytes(gzip.compress(old.read_bytes()))
    old.unlink()

    (found,) = house.verified()

    assert (found.findings, found.last) == ([], 6)


# --- each byte --------------------------------------------------------------------------------


def test_each_byte_counts(house: House) -> None:
    """AUD-01: a log with a head in the middle, half a line, and a head at its end."""
    log = house.log()
    log.write({"client": "local", "host": "api.example.com"})
    log.write({"n": 2})
    log.close()
    with house.path.open("ab") as file:
        file.write(b'{"half')
    house.written(2)
    whole = house.path.read_bytes()
    assert house.findings() == []

    missed = []
    for position in range(len(whole)):
        changed = bytes([whole[position] ^ (1 << position % 8)])
        house.path.write_bytes(whole[:position] + changed + whole[position + 1 :])
        if not house.findings():
            missed.append(position)

    assert missed == []
    house.path.write_bytes(whole)
    assert house.findings() == []


def test_the_line_that_was_changed_is_named(house: House) -> None:
    whole = house.written(5)
    for number, line in enumerate(whole.splitlines(keepends=True), 1):
        house.path.write_bytes(whole.replace(line, line.replace(b'"worker"', b'"workeR"')))

        assert house.told() == [f"audit.jsonl:{number}: line {number} was changed"]


# --- by who cannot sign -----------------------------------------------------------------------


def keep_lines(*numbers: int) -> Callable[[House], None]:
    def change(house: House) -> None:
        lines = house.path.read_bytes().splitlines(keepends=True)
        house.path.write_bytes(b"".join(lines[number - 1] for number in numbers))

    return change


def changed_and_chained(at: int) -> Callable[[House], None]:
    def change(house: House) -> None:
        lines = house.path.read_bytes().splitlines()
        house.path.write_bytes(
            b"\n".join(chained_anew(lines, lambda record: record.update(n=99), at)) + b"\n"
        )

    return change


def heads_taken_out(house: House) -> None:
    """The whole log made anew, as one that had nothing to sign."""
    log = House(house.root / "elsewhere").log()
    log._signer = None
    for number in range(5):
        log.write({"n": number})
    shutil.copyfile(log.path, house.path)


def swapped_files(house: House) -> None:
    two = house.folder / "audit-2.jsonl"
    house.path.rename(house.root / "kept")
    two.rename(house.path)
    (house.root / "kept").rename(two)


def of_another_home(house: House) -> None:
    other = House(house.root / "other")
    other.written(5)
    shutil.copyfile(other.path, house.path)


def signature_of_another_head(house: House) -> None:
    whole = house.path.read_bytes()
    one, two = re.findall(rb'"signature": "(\w+)"', whole)
    house.path.write_bytes(whole.replace(two, one))


def added_at_the_end(house: House) -> None:
    lines = house.path.read_bytes().splitlines()
    record = {"sequence": 8, "n": 99}
    more = chained_anew([*lines, lines[-2]], lambda r: (r.clear(), r.update(record))[0], len(lines))
    house.path.write_bytes(b"\n".join(more) + b"\n")
    house.written(1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(keep_lines(1, 3, 4, 5, 6, 7), "2: line 2 is missing", id="a line taken out"),
        pytest.param(keep_lines(3, 4, 5, 6, 7), "1: ", id="the first ones taken out"),
        pytest.param(keep_lines(1, 2, 4, 3, 5, 6, 7), "3: line 3 is missing", id="two swapped"),
        pytest.param(
            keep_lines(1, 2, 2, 3, 4, 5, 6, 7), "3: line 2 stands behind line 2", id="one twice"
        ),
        pytest.param(keep_lines(1, 2, 3, 4), "0: lines 5 to 7 are missing", id="the end cut off"),
        pytest.param(keep_lines(1, 2, 3), "0: lines 4 to 7 are missing", id="an old copy"),
        pytest.param(keep_lines(), "0: lines 1 to 7 are missing", id="emptied"),
        pytest.param(
            lambda house: house.path.unlink(), "0: lines 1 to 7 are missing", id="deleted"
        ),
        pytest.param(
            changed_and_chained(1),
            "3: the signature does not fit: lines 1 to 3 were changed",
            id="changed, and the chain made anew",
        ),
        pytest.param(
            changed_and_chained(4),
            "7: the signature does not fit: lines 4 to 7 were changed",
            id="changed behind a head: it lies between two",
        ),
        pytest.param(heads_taken_out, "0: lines 6 to 7 are missing", id="made anew without a head"),
        pytest.param(swapped_files, "1: it belongs to another log", id="files swapped"),
        pytest.param(of_another_home, "6: signed with another key", id="another home's"),
        pytest.param(
            signature_of_another_head, "7: the signature does not fit", id="another signature"
        ),
        pytest.param(
            added_at_the_end,
            "9: 1 lines before it were added while no process wrote the log",
            id="a line added while nothing ran",
        ),
        pytest.param(
            lambda house: (house.keys.heads / "audit.head").unlink(),
            "audit.head:0: no head is kept",
            id="the head that is kept apart deleted",
        ),
        pytest.param(
            lambda house: (house.keys.heads / "audit.head").write_bytes(b"x"),
            "audit.head:1: this head was not signed",
            id="or damaged",
        ),
    ],
)
def test_what_is_done_shows_and_where(
    house: House, change: Callable[[House], None], said: str
) -> None:
    house.written(2)
    house.written(3)
    house.written(2, worker=2)
    assert house.findings() == []

    change(house)

    where = said if said.startswith("audit.head") else f"audit.jsonl:{said}"
    assert [told for told in house.told() if told.startswith(where)], house.told()


def test_what_was_cut_off_stays_in_sight_when_the_log_goes_on(house: House) -> None:
    house.written(5)
    keep_lines(1, 2, 3)(house)
    house.written(2)

    assert house.told() == ["audit.jsonl:4: lines 4 to 6 are missing before line 7"]


def test_what_no_head_covers_may_be_cut_off_unseen(house: House) -> None:
    """What docs/operations.md says of the last second."""
    house.written(2)
    log = house.log()
    log.write({"n": "cut off"})
    os.close(log._file or -1)
    keep_lines(1, 2, 3)(house)

    assert house.findings() == []


def test_who_has_the_key_makes_the_log_anew(house: House) -> None:
    """And shows nobody."""
    house.written(3)
    for path in (house.path, house.keys.heads / "audit.head"):
        path.unlink()
    house.written(2)

    assert house.findings() == []


def test_who_can_write_to_the_heads_too_puts_both_back(house: House) -> None:
    house.written(2)
    kept = house.path.read_bytes(), (house.keys.heads / "audit.head").read_bytes()
    house.written(2)
    house.path.write_bytes(kept[0])
    assert house.findings()
    (house.keys.heads / "audit.head").write_bytes(kept[1])

    assert house.findings() == []


# --- parts of a log ---------------------------------------------------------------------------


def verify_files(house: House, *paths: Path) -> list[auditverify.Found]:
    return auditverify.verify_files(paths, house.key)


def test_a_single_file_is_verified_by_itself(house: House) -> None:
    log = house.log()
    log.write({})
    log.rotate()
    log.write({})
    log.write({})
    log.close()
    elsewhere = house.root / "shipped.jsonl"
    shutil.copyfile(house.path, elsewhere)

    (found,) = verify_files(house, elsewhere)

    assert (found.log, found.first, found.last, found.signed) == ("audit", 3, 5, 5)
    assert (found.begins_later, found.findings) == (True, [])
    elsewhere.write_bytes(elsewhere.read_bytes().replace(b'"worker": 1', b'"worker": 7', 1))
    (found,) = verify_files(house, elsewhere)
    assert [(f.file, f.line) for f in found.findings] == [("shipped.jsonl", 1)]


def test_a_file_without_a_head_is_signed_by_nobody(house: House) -> None:
    log = house.log()
    log.write({})

    (found,) = verify_files(house, house.path)

    assert "nothing of it is signed" in found.findings[0].what


def test_a_file_that_is_no_log_is_told(house: House) -> None:
    path = house.root / "audit.jsonl"
    path.write_bytes(b'{"time": "of a version without a chain"}\n')

    (found,) = verify_files(house, path)

    assert "no line of an audit log with a chain" in found.findings[0].what


# --- old files are deleted --------------------------------------------------------------------


def full_files(house: House, keep: Keep) -> None:
    log = house.log(keep=keep)
    for number in range(4):
        log.write({"n": number})
        log.tend()
    log.close()


def test_old_files_go_and_a_signed_line_says_so(house: House) -> None:
    full_files(house, Keep(file_bytes=1, files=2))

    (found,) = house.verified()

    assert found.findings == []
    assert len(list(house.folder.glob("audit.*-*.jsonl"))) == 2
    assert found.retired == found.first - 1 > 0


def test_a_file_that_is_old_goes(house: House) -> None:
    log = house.log(keep=Keep(days=10))
    log.write({})
    log.rotate()
    full = house.folder / "audit.1-2.jsonl"
    house.time = NOW + 9 * 86_400
    log.retire()
    assert full.exists()
    house.time = NOW + 11 * 86_400
    log.retire()
    log.close()

    (found,) = house.verified()

    assert not full.exists()
    assert (found.findings, found.retired) == ([], 2)


def test_old_files_go_without_a_new_one_too(house: House) -> None:
    """A log that hardly grows is looked at at a start, and every hour."""
    house.time = NOW - 99 * 86_400
    log = house.log()
    log.write({})
    log.rotate()
    log.close()
    house.time = NOW

    log = house.log(keep=Keep(days=10))
    log.tend()
    log.close()

    (found,) = house.verified()
    assert (found.findings, found.first, found.retired) == ([], 3, 2)


DAY_S = 86_400
type Doing = Callable[[House, Path], object]

# What somebody who can write to the folder does to have a fresh file, audit.1-4.jsonl, deleted.
LURES: dict[str, tuple[Keep, Doing]] = {
    "an old time of the file": (
        Keep(days=10),
        lambda _, full: os.utime(full, (NOW - 99 * DAY_S, NOW - 99 * DAY_S)),
    ),
    "an old time in its last line": (
        Keep(days=10),
        lambda _, full: full.write_bytes(full.read_bytes().replace(b"2023-", b"2001-")),
    ),
    "an old time in its head, chained anew": (
        Keep(days=10),
        lambda _, full: full.write_bytes(
            b"\n".join(
                chained_anew(
                    full.read_bytes().splitlines(),
                    lambda record: record.update(time="2001-01-01T00:00:00.000+00:00"),
                    3,
                )
            )
            + b"\n"
        ),
    ),
    "empty files that count as newer ones": (
        Keep(files=2),
        lambda house, _: [
            (house.folder / f"audit.{at}-{at + 1}.jsonl").write_text("") for at in (400, 402, 404)
        ],
    ),
    "copies under other names": (
        Keep(files=2),
        lambda house, full: [
            shutil.copy(full, house.folder / f"audit.{at}-4.jsonl") for at in (2, 3, 4)
        ],
    ),
    "copies by the names of later ones": (
        Keep(files=2),
        lambda house, full: [
            shutil.copy(full, house.folder / f"audit.{at}-{at + 3}.jsonl") for at in (10, 20, 30)
        ],
    ),
    "copies without their first lines": (
        Keep(files=2),
        lambda house, full: [
            (house.folder / f"audit.{at + 1}-4.jsonl").write_bytes(
                b"".join(full.read_bytes().splitlines(keepends=True)[at:])
            )
            for at in (1, 2, 3)
        ],
    ),
}


@pytest.mark.parametrize("lure", LURES)
def test_who_can_write_to_the_folder_has_nothing_deleted(house: House, lure: str) -> None:
    keep, do = LURES[lure]
    log = house.log()
    for _ in range(3):
        log.write({"method": "GET"})
    log.rotate()
    log.close()
    full = house.folder / "audit.1-4.jsonl"
    assert full.exists()

    do(house, full)
    log = house.log(keep=keep)
    with suppress(AuditError):
        log.retire()
    log.close()

    assert full.exists()
    assert not any(one["event"] == "retired" for one in records(house.path))


def test_a_live_log_by_the_name_of_a_full_one_is_kept_as_long_as_it_is_young(house: House) -> None:
    house.written(3)
    full = house.folder / "audit.1-4.jsonl"
    house.path.rename(full)
    os.utime(full, (NOW - 99 * DAY_S, NOW - 99 * DAY_S))

    log = house.log(keep=Keep(days=10))
    log.retire()
    assert full.exists()
    house.time = NOW + 11 * DAY_S
    log.retire()
    log.close()

    assert not full.exists()
    assert house.findings() == []


def test_a_file_that_somebody_else_has_deleted_is_missed(house: House) -> None:
    full_files(house, Keep(file_bytes=1, files=2))
    min(house.folder.glob("audit.*-*.jsonl"), key=lambda path: path.stat().st_size).unlink()
    next(house.folder.glob("audit.*-*.jsonl")).unlink()

    assert any("no signed line says that they were deleted" in told for told in house.told())


def test_a_line_that_nobody_signed_excuses_no_deletion(house: House) -> None:
    log = house.log()
    log.write({})
    log.rotate()
    log.write({})
    full = house.folder / "audit.1-2.jsonl"
    end = records(full)[-1]["chain"]
    log._append({"event": "retired", "file": full.name, "first": 1, "last": 2, "end": end})
    os.close(log._file or -1)
    full.unlink()

    assert any("no signed line says that they were deleted" in told for told in house.told())


def test_what_cannot_be_recorded_is_not_deleted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = house.log()
    for _ in range(2):
        log.write({})
        log.rotate()
    log.close()
    log = house.log(keep=Keep(files=1))

    def refused(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(auditlog.os, "write", refused)
        with pytest.raises(AuditError):
            log.retire()

    assert len(list(house.folder.glob("audit.*-*.jsonl"))) == 2
