"""A few kills of each kind (STORE-06, STORE-09); ``make kills`` makes 2,000. It sees faults."""

from __future__ import annotations

import base64
import random
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from coatcheck.core.ports import StoreError
from coatcheck.store import rotation
from tests.store import kills
from tests.store.kills import MARK, Ground, Tally
from tests.store.server import Server


@pytest.mark.slow
@pytest.mark.parametrize("place", kills.PLACES)
def test_killed_at_any_moment_nothing_is_lost_torn_or_in_the_open(
    request: pytest.FixtureRequest, place: str
) -> None:
    if place == "postgres":
        request.getfixturevalue("postgres")  # or skipped
    program = [sys.executable, "-W", "error", "-m", "tests.store.kills"]
    done = subprocess.run(
        [*program, "--kills", "9", "--on", place],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
        timeout=110,
    )
    rows = re.findall(r"^(\w+) +\w+ +(\d+) +(\d+) +0 +0 +0$", done.stdout, flags=re.MULTILINE)

    assert done.returncode == 0, done.stdout + done.stderr
    assert [row[0] for row in rows] == list(kills.WORKS)
    assert all(int(count) >= 3 for _, count, _ in rows)


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path / "home", None)


def looked(ground: Ground) -> Tally:
    tally = Tally()
    kills.compare(ground, kills.look(ground, ground.where, tally), tally)
    return tally


def test_what_is_whole_is_no_fault(ground: Ground) -> None:
    assert looked(ground).faults == 0


def test_a_change_that_is_not_there_is_lost(ground: Ground) -> None:
    ground.expected["n0", 2] = kills.value_of("n0", b"said and not done")

    assert (looked(ground).lost, looked(ground).torn) == (1, 0)


def test_another_value_than_was_said_is_lost(ground: Ground) -> None:
    ground.expected["n0", 1] = kills.value_of("n0", b"another")

    assert looked(ground).lost == 1


def test_a_value_that_was_never_written_is_torn(ground: Ground) -> None:
    with ground.managed() as store:
        store.put("n0", b"half of a val", domains=None, description=None, now=1.0)

    assert looked(ground).torn == 1


def test_a_value_that_does_not_open_is_torn(ground: Ground) -> None:
    with closing(sqlite3.connect(ground.home.store)) as connection, connection:
        connection.execute(
            "UPDATE versions SET record = x'00' WHERE secret_id ="
            " (SELECT id FROM secrets WHERE name = 'n0')"
        )

    assert looked(ground).torn == 1


def test_a_store_whose_new_key_was_lost_does_not_pass(ground: Ground) -> None:
    key, public = ground.home.private_key.read_bytes(), ground.home.public_key.read_bytes()
    rotation.rotate(ground.home, ground.where)
    assert looked(ground).faults == 0
    ground.home.private_key.write_bytes(key)
    ground.home.public_key.write_bytes(public)

    with pytest.raises(StoreError, match="from another home"):
        looked(ground)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(MARK, id="as it is"),
        pytest.param(MARK.hex().encode(), id="hex"),
        *(
            pytest.param(base64.b64encode(b"x" * n + MARK + b"y" * 9), id=f"base64, {n} before")
            for n in range(3)
        ),
    ],
)
def test_a_value_in_the_open_is_found(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "wal").write_bytes(b"..." + text + b"...")
    (tmp_path / "other").write_bytes(b"nothing here")

    assert kills.in_the_open(tmp_path) == [tmp_path / "folder" / "wal"]


def test_what_a_child_said_before_it_was_killed_is_heard() -> None:
    def work(say: object) -> None:
        for number in range(10**9):
            say(str(number))  # type: ignore[operator]

    lines, was_killed = kills.killed(work, 0.3)

    assert was_killed
    assert lines[:3] == ["0", "1", "2"]


def test_a_move_that_was_killed_is_nothing_not_whole_or_everything(
    tmp_path: Path, postgres: Server
) -> None:
    """One turn in full, with what it counts."""
    tally = Tally()
    kills.move_turn(Ground(tmp_path / "home", postgres), 0, random.Random(1), tally)

    assert tally.faults == 0
    assert tally.kills + tally.said >= 1
