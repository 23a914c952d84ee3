"""Moving a store: everything arrives as it was, nothing is opened, a cut-off move goes on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from coatcheck.core.ports import StoreError, Used
from coatcheck.store import moving, schema
from coatcheck.store.home import Home, create_home
from coatcheck.store.moving import Moved, move
from coatcheck.store.sql import SqlStore
from tests.store.server import Server
from tests.store.stores import NOW, open_store, patterns

COUNT = 7  # secrets besides "a"; a batch here has three


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "BATCH", 3)


@pytest.fixture
def filled(home: Home) -> Home:
    """A home with several secrets, one of them in its second version, one used, one renamed."""
    with closing(open_store(home)) as store:
        for number in range(COUNT):
            put(store, f"n{number}", b"value-%d" % number)
        put(store, "a", b"the-first-value")
        put(store, "a", b"the-second-value")
        store.edit("n0", new_name="ключ", description="renamed", now=NOW + 1)
        store.record_use({store.secrets()[0].id: Used(NOW + 5)})
    return home


def put(store: SqlStore, name: str, value: bytes) -> None:
    store.put(name, value, domains=patterns("a.example", "*.b.example"), description=None, now=NOW)


def moved(home: Home, target: str | Path, *, dry_run: bool = False) -> Moved:
    return move(home.store, target, public=home.read_public_key(), dry_run=dry_run)


def content(home: Home, where: str | Path) -> object:
    """What a worker reads: every secret, value and former version, and every history."""
    with closing(open_store(home, where=str(where))) as store:
        view = store.view()
        both = [*view.secrets(), *view.former()]
        values = [(secret, view.open(secret).reveal()) for secret in both]
        return values, [store.history(secret.name) for secret in store.secrets()]


@pytest.fixture(params=["postgres", "file"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, or a file that is not there yet."""
    if request.param == "file":
        return str(tmp_path / "new.db")
    server: Server = request.getfixturevalue("postgres")
    return server.url(server.database())


def test_everything_arrives_as_it_was(filled: Home, target: str) -> None:
    before = content(filled, filled.store)
    done = moved(filled, target)

    assert (done.secrets, done.versions, done.tokens) == (COUNT + 1, COUNT + 2, 1)
    assert (done.copied, done.whole) == (COUNT + 1, True)
    assert content(filled, target) == before
    assert content(filled, filled.store) == before


def test_the_sealed_bytes_are_the_same(filled: Home, tmp_path: Path) -> None:
    moved(filled, tmp_path / "new.db")
    before, after = records(filled.store), records(tmp_path / "new.db")

    assert len(before) == COUNT + 2
    assert before == after


def records(path: Path) -> list[tuple[bytes]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT record FROM versions ORDER BY 1").fetchall()


def test_a_new_file_is_closed_to_others(filled: Home, tmp_path: Path) -> None:
    moved(filled, tmp_path / "new.db")

    assert (tmp_path / "new.db").stat().st_mode & 0o777 == 0o600


def test_and_back_again(filled: Home, postgres: Server, tmp_path: Path) -> None:
    url = postgres.url(postgres.database())
    before = content(filled, filled.store)
    moved(filled, url)
    move(url, tmp_path / "back.db", public=filled.read_public_key())

    assert content(filled, tmp_path / "back.db") == before


def test_a_worker_that_changes_over_sees_a_higher_revision(filled: Home, target: str) -> None:
    with closing(open_store(filled)) as store:
        before = store.revision()
    moved(filled, target)
    with closing(open_store(filled, where=target)) as store:
        assert store.revision() == before + 1


def test_a_dry_run_counts_and_changes_nothing(filled: Home, target: str, tmp_path: Path) -> None:
    done = moved(filled, target, dry_run=True)

    assert (done.secrets, done.copied, done.whole) == (COUNT + 1, COUNT + 1, False)
    assert not (tmp_path / "new.db").exists()
    with pytest.raises(StoreError, match=r"no coatcheck store|there is no store"):
        open_store(filled, where=target)


class Cut(Exception):
    """A move that ends in the middle, as by a crash: what was committed stays."""


@pytest.mark.parametrize("after", [1, 2, 3], ids=lambda n: f"after batch {n}")
def test_a_move_that_was_cut_off_goes_on(filled: Home, target: str, after: int) -> None:
    seen = []

    def progress(done: int, of: int) -> None:
        seen.append(done)
        if len(seen) == after:
            raise Cut

    public = filled.read_public_key()
    with pytest.raises(Cut):
        move(filled.store, target, public=public, progress=progress)
    with pytest.raises(StoreError, match="not whole") as error:
        open_store(filled, where=target)
    assert "again" in error.value.hint

    left = COUNT + 1 - min(3 * after, COUNT + 1)
    assert moved(filled, target, dry_run=True).copied == left
    assert moved(filled, target).copied == left
    assert content(filled, target) == content(filled, filled.store)


def test_what_is_written_while_it_moves_arrives(filled: Home, target: str) -> None:
    """Changed, added and deleted, after their batch has gone over."""
    with closing(open_store(filled, private=False)) as other:

        def meanwhile(done: int, of: int) -> None:
            if done == of:
                put(other, "a", b"the-third-value")
                put(other, "new", b"made-meanwhile")
                other.delete("n3", now=NOW)

        public = filled.read_public_key()
        done = move(filled.store, target, public=public, progress=meanwhile)

    assert done.secrets == COUNT + 1
    assert content(filled, target) == content(filled, filled.store)


def test_a_move_that_is_done_is_done(filled: Home, target: str) -> None:
    moved(filled, target)
    again = moved(filled, target)

    assert (again.copied, again.whole) == (0, True)


@pytest.mark.parametrize("change", ["changed", "added"])
def test_a_store_in_use_is_not_written_over(filled: Home, target: str, change: str) -> None:
    moved(filled, target)
    with closing(open_store(filled, where=target)) as store:
        put(store, "a" if change == "changed" else "new", b"written-to-the-new-store")
    before = content(filled, target)

    for dry_run in (True, False):
        with pytest.raises(StoreError, match="holds this store already"):
            moved(filled, target, dry_run=dry_run)
    assert content(filled, target) == before


@pytest.mark.parametrize("holds", ["another store", "tables of something else"])
def test_a_database_is_refused_that_holds(
    filled: Home, postgres: Server, tmp_path: Path, holds: str
) -> None:
    name = postgres.database()
    url = postgres.url(name)
    if holds == "another store":
        SqlStore.create_tables(
            url, public=create_home(tmp_path / "o", now=NOW).home.read_public_key(), now=NOW
        )
    else:
        postgres.execute("CREATE TABLE tokens (id integer)", name)

    with pytest.raises(StoreError, match="holds something else already") as error:
        moved(filled, url)
    assert "empty database" in error.value.hint


def test_a_store_of_other_keys_is_not_moved(filled: Home, tmp_path: Path) -> None:
    other = create_home(tmp_path / "other", now=NOW).home

    with pytest.raises(StoreError, match="from another home"):
        move(filled.store, tmp_path / "new.db", public=other.read_public_key())
    assert not (tmp_path / "new.db").exists()


def test_a_row_that_arrives_otherwise_is_noticed(
    filled: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = moving._rows
    calls = iter(range(100))

    def wrong(*arguments: object) -> object:
        found = right(*arguments)  # type: ignore[arg-type]
        if next(calls) == 2:  # of a batch: wanted, there, there again
            found[1][0]["record"] = b"x"  # type: ignore[index]
        return found

    monkeypatch.setattr(moving, "_rows", wrong)
    with pytest.raises(StoreError, match="reads otherwise"):
        moved(filled, tmp_path / "new.db")
    with pytest.raises(StoreError, match="not whole"):
        open_store(filled, where=str(tmp_path / "new.db"))


def test_every_table_is_moved() -> None:
    """A table that comes later must be thought of here."""
    names = {table.name for table in schema.metadata.sorted_tables}

    assert names == {"meta", "secrets", "versions", "tokens"}
