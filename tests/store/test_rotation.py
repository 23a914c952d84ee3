"""Rotating the sealing key: at every step all values open, and a cut-off rotation goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from coatcheck.core.ports import CoatcheckError, StoreError
from coatcheck.store import database, files, keyfile, rotation
from coatcheck.store.home import Home
from coatcheck.store.rotation import Rotated, rotate
from coatcheck.store.sql import SqlStore
from tests.long import only_in_long
from tests.store.stores import NOW, open_store, patterns

COUNT = 5


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "BATCH", 2)


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, home: Home) -> str:
    """A store with some secrets, one of them in its second version."""
    place: str = request.getfixturevalue("url") if request.param == "postgres" else str(home.store)
    with closing(open_store(home, where=place)) as store:
        for number in range(COUNT):
            put(store, f"n{number}", b"value-%d" % number)
        put(store, "n0", b"the-second-value")
    return place


def put(store: SqlStore, name: str, value: bytes) -> None:
    store.put(name, value, domains=patterns("a.example"), description=None, now=NOW)


def values(store: SqlStore) -> dict[tuple[str, int], bytes]:
    view = store.view()
    return {
        (secret.name, secret.version): view.open(secret).reveal()
        for secret in (*view.secrets(), *view.former())
    }


WHOLE = {("n0", 1): b"value-0", ("n0", 2): b"the-second-value"} | {
    (f"n{number}", 1): b"value-%d" % number for number in range(1, COUNT)
}


def read(home: Home, where: str) -> dict[tuple[str, int], bytes]:
    with closing(open_store(home, where=where)) as store:
        return values(store)


def sealed_for(where: str) -> set[str]:
    """The ids of the keys that the records say they are sealed for."""
    with closing(database.connect(where)) as found, found.reading() as connection:
        records = connection.execute(sa.text("SELECT record FROM versions")).scalars()
        return {bytes(record)[4:12].hex() for record in records}


def test_every_record_is_sealed_for_the_new_key(home: Home, where: str) -> None:
    old = home.read_public_key().id
    done = rotate(home, where)

    assert (done.old, done.records, done.done) == (old, COUNT + 1, True)
    assert home.read_public_key().id == done.new != old
    assert home.read_private_key().ids == (done.new,)
    assert sealed_for(where) == {done.new}
    assert read(home, where) == WHOLE


def test_the_old_key_opens_nothing_afterwards(home: Home, where: str) -> None:
    old = home.read_private_key()
    rotate(home, where)

    with pytest.raises(StoreError, match="no pair"):
        SqlStore.open(where, public=home.read_public_key(), private=old)


def test_a_second_rotation_is_another_one(home: Home, where: str) -> None:
    first = rotate(home, where)
    second = rotate(home, where)

    assert (second.old, second.records) == (first.new, COUNT + 1)
    assert read(home, where) == WHOLE


class Cut(Exception):
    """The end of a rotation in the middle, as by a crash."""


def _cut() -> None:
    raise Cut


STEPS = [
    "both keys in sealing.key",
    "the store takes both",
    "sealing.pub is the new one",
    "a batch is sealed anew",
    "two batches are sealed anew",
    "all are sealed anew",
    "the store takes the new one",
]


def cut_after(step: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make a rotation end after *step*; returns the progress function to give it."""
    batches: list[int] = []

    def progress(count: int) -> None:
        batches.append(count)
        if (step, len(batches)) in {(STEPS[3], 1), (STEPS[4], 2), (STEPS[5], 3)}:
            raise Cut

    before = {
        STEPS[0]: (rotation._Rotation, "_take_both"),
        STEPS[1]: (files, "replace_file"),
        STEPS[2]: (rotation._Rotation, "_seal_anew"),
        STEPS[6]: (rotation._Rotation, "_finish"),
    }
    if step in before:
        owner, name = before[step]
        right = getattr(owner, name)
        if step == STEPS[1]:

            def only_the_key(path: Path, content: bytes) -> None:
                right(path, content) if path.name == "sealing.key" else _cut()

            monkeypatch.setattr(owner, name, only_the_key)
        else:
            monkeypatch.setattr(owner, name, lambda *_: _cut())
    return progress


@pytest.mark.parametrize(
    "step",
    [pytest.param(s, marks=only_in_long if n % 3 else []) for n, s in enumerate(STEPS)],
)
def test_cut_off_after(home: Home, where: str, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything opens, commands can write, and the next run ends it, with the same new key."""
    old = home.read_public_key().id
    with monkeypatch.context() as patched, pytest.raises(Cut):
        rotate(home, where, progress=cut_after(step, patched))

    ids = home.read_private_key().ids
    assert ids[0] == old
    assert len(ids) == 2
    assert read(home, where) == WHOLE
    with closing(open_store(home, private=False, where=where)) as manager:
        put(manager, "n1", b"written-meanwhile")
    with closing(open_store(home, where=where)) as worker:
        assert values(worker)["n1", 2] == b"written-meanwhile"

    done = rotate(home, where)
    assert (done.old, done.new, done.done) == (*ids, True)
    assert home.read_private_key().ids == (done.new,)
    assert sealed_for(where) == {done.new}
    assert read(home, where) == WHOLE | {("n1", 2): b"written-meanwhile"}


def test_a_worker_that_serves_meanwhile_needs_no_restart(home: Home, where: str) -> None:
    with closing(open_store(home, where=where)) as worker:
        assert values(worker) == WHOLE
        seen = []

        def progress(count: int) -> None:
            with closing(open_store(home, private=False, where=where)) as manager:
                put(manager, f"new{count}", b"sealed-for-the-new-key")
            seen.append(values(worker)[f"new{count}", 1])

        rotate(home, where, progress=progress)
        after = values(worker)

        assert seen == [b"sealed-for-the-new-key"] * 3
        assert WHOLE.items() <= after.items()


def test_a_command_that_has_the_old_key_still_is_not_lost(home: Home, where: str) -> None:
    """It may write until the end; what it wrote is sealed anew too. Afterwards it is refused."""
    with closing(open_store(home, private=False, where=where)) as slow:
        # Its new version comes before the place where the rotation is by then.
        first = min(slow.secrets(), key=lambda secret: secret.id)
        written = (first.name, first.version + 1)

        def progress(count: int) -> None:
            if count == COUNT + 1 and slow.history(first.name)[-1].version == first.version:
                put(slow, first.name, b"written-for-the-old-key")

        done = rotate(home, where, progress=progress)

        assert sealed_for(where) == {done.new}
        assert read(home, where)[written] == b"written-for-the-old-key"
        with pytest.raises(StoreError, match="was rotated while this process ran") as error:
            put(slow, first.name, b"too-late")
        assert "restart" in error.value.hint
        assert read(home, where)[written] == b"written-for-the-old-key"


def test_workers_elsewhere_get_both_keys_first(home: Home, where: str, tmp_path: Path) -> None:
    prepared = rotate(home, where, prepare=True)
    other = Home(shutil.copytree(home.root, tmp_path / "other"))

    assert not prepared.done
    assert len(other.read_private_key().ids) == 2
    assert sealed_for(where) == {prepared.old}
    assert rotate(home, where, prepare=True) == prepared
    done = rotate(home, where)
    assert done.new == prepared.new
    both, public = other.read_private_key(), home.read_public_key()
    with closing(SqlStore.open(where, public=public, private=both)) as worker:
        assert values(worker)["n1", 1] == b"value-1"


def test_a_rotation_begun_elsewhere_is_not_mixed_with_another(
    home: Home, where: str, tmp_path: Path
) -> None:
    other = Home(shutil.copytree(home.root, tmp_path / "other"))
    with pytest.raises(Cut):
        rotate(home, where, progress=lambda _: _cut())

    with pytest.raises(StoreError, match="which this home does not have") as error:
        rotate(other, where)
    assert "copy sealing.key" in error.value.hint
    assert len(other.read_private_key().ids) == 1
    rotate(home, where)
    assert read(home, where) == WHOLE


def test_two_at_once_on_one_home_are_refused(home: Home, where: str) -> None:
    with (
        home.changing_keys(),
        pytest.raises(CoatcheckError, match="another process is changing the keys"),
    ):
        rotate(home, where)
    assert isinstance(rotate(home, where), Rotated)


def test_a_record_that_does_not_open_keeps_the_old_key(home: Home, where: str) -> None:
    with closing(database.connect(where)) as found, found.writing() as connection:
        connection.execute(
            sa.text(
                "UPDATE versions SET domains = '[]' WHERE secret_id ="
                " (SELECT id FROM secrets WHERE name = 'n3')"
            )
        )
    with pytest.raises(StoreError, match=r"records of 1 versions do not open.*'n3'") as error:
        rotate(home, where)
    assert "value-3" not in str(error.value)
    assert len(home.read_private_key().ids) == 2

    with closing(open_store(home, private=False, where=where)) as manager:
        manager.delete("n3", now=NOW)
    done = rotate(home, where)
    assert sealed_for(where) == {done.new}


def test_a_key_under_a_passphrase_stays_under_it(
    home: Home, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    phrase = b"five words that nobody guesses"
    file = keyfile.read(home.private_key)
    keyfile.write(file, file.keys, phrase)
    monkeypatch.setenv(keyfile.PASSPHRASE, phrase.decode())
    rotate(home, where)

    assert b"ENCRYPTED" in home.private_key.read_bytes()
    assert read(home, where) == WHOLE


def test_a_key_that_was_handed_over_is_not_rotated(
    home: Home, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(keyfile.KEY, home.private_key.read_text())

    with pytest.raises(StoreError, match="handed over") as error:
        rotate(home, where)
    assert "sealing.key" in error.value.hint
    assert read(home, where) == WHOLE


def test_a_store_of_the_schema_before_is_brought_up(home: Home, where: str) -> None:
    """By whoever opens it first; its values stay as they are."""
    with closing(database.connect(where)) as found, found.making() as connection:
        connection.execute(sa.text("ALTER TABLE meta DROP COLUMN former_key_id"))
        connection.execute(sa.text("ALTER TABLE secrets DROP COLUMN uses"))
        for column in ("name", "created_by", "expires_at", "last_used_at"):
            connection.execute(sa.text(f"ALTER TABLE tokens DROP COLUMN {column}"))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))

    assert read(home, where) == WHOLE
    assert rotate(home, where).done
