"""Backup and restore: all of it, sealed, in one step, and a store that went back is noticed."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from coatcheck.core.ports import CoatcheckError, StoreError
from coatcheck.store import backup as backups
from coatcheck.store import schema, seen
from coatcheck.store.backup import Restored
from coatcheck.store.home import Home, create_home
from coatcheck.store.rotation import rotate
from coatcheck.store.sql import SqlStore
from tests.store.server import Server
from tests.store.stores import NOW, open_store, patterns

VALUE = b"coat-SENTINEL-value-0123456789"
REVISION = 4  # one for the store itself, three changes


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, home: Home) -> str:
    """A store with two secrets, one of them in its second version."""
    place: str = request.getfixturevalue("url") if request.param == "postgres" else str(home.store)
    with closing(open_store(home, where=place)) as store:
        put(store, "a", VALUE[::-1])
        put(store, "a")
        put(store, "b")
    return place


def put(store: SqlStore, name: str, value: bytes = VALUE) -> None:
    domains = patterns("named-in-the-store.example")
    store.put(name, value, domains=domains, description=None, now=NOW)


def content(home: Home, where: str | Path) -> object:
    with closing(open_store(home, where=str(where))) as store:
        view = store.view()
        both = [*view.secrets(), *view.former()]
        values = [(secret, view.open(secret).reveal()) for secret in both]
        return values, [store.history(secret.name) for secret in store.secrets()]


def take(home: Home, where: str, target: Path) -> None:
    backups.take(where, target, public=home.read_public_key(), now=NOW)


def restore(home: Home, where: str | Path, source: Path, **options: object) -> Restored:
    opened = backups.read(source, home.read_private_key())
    return backups.restore(where, opened, public=home.read_public_key(), **options)  # type: ignore[arg-type]


def test_a_lost_store_comes_back_as_it_was(home: Home, where: str, tmp_path: Path) -> None:
    before = content(home, where)
    take(home, where, tmp_path / "backup")
    done = restore(home, tmp_path / "fresh.db", tmp_path / "backup")

    assert content(home, tmp_path / "fresh.db") == before
    assert done == Restored(2, REVISION, None, REVISION + 1)
    assert (tmp_path / "fresh.db").stat().st_mode & 0o777 == 0o600


def test_an_empty_database_takes_it(
    home: Home, where: str, postgres: Server, tmp_path: Path
) -> None:
    before = content(home, where)
    take(home, where, tmp_path / "backup")
    url = postgres.url(postgres.database())
    restore(home, url, tmp_path / "backup")

    assert content(home, url) == before


def test_a_backup_shows_nothing(home: Home, where: str, tmp_path: Path) -> None:
    """G2: no value, and no name of a host or a secret either; closed to others."""
    take(home, where, tmp_path / "backup")
    text = (tmp_path / "backup").read_bytes()

    assert len(text) > 3000
    for word in (VALUE, VALUE[::-1], b"named-in-the-store", b"secrets", b"domains"):
        assert word not in text
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_there_is_not_written_over(home: Home, where: str, tmp_path: Path) -> None:
    (tmp_path / "backup").write_text("kept")

    with pytest.raises(CoatcheckError, match="cannot create"):
        take(home, where, tmp_path / "backup")
    assert (tmp_path / "backup").read_text() == "kept"


def test_a_store_that_has_changed_since_is_put_back_by_force_alone(
    home: Home, where: str, tmp_path: Path
) -> None:
    before = content(home, where)
    take(home, where, tmp_path / "backup")
    with closing(open_store(home, where=where)) as store:
        put(store, "c", b"written-after-the-backup")
        store.delete("b", now=NOW)
        after = content(home, where)
        with pytest.raises(StoreError, match="has changed since: revision 6, the backup has 4"):
            restore(home, where, tmp_path / "backup")
        assert content(home, where) == after

        done = restore(home, where, tmp_path / "backup", force=True)

        assert (done.before, done.revision) == (6, 7)
        assert store.revision() == 7  # a worker that runs takes it over
        assert store.view().find("c") is None
    assert content(home, where) == before


def test_a_store_that_has_not_changed_takes_its_backup(
    home: Home, where: str, tmp_path: Path
) -> None:
    before = content(home, where)
    take(home, where, tmp_path / "backup")

    assert restore(home, where, tmp_path / "backup").revision == REVISION + 1
    assert content(home, where) == before


def test_a_revision_that_was_ever_seen_is_not_given_again(
    home: Home, where: str, tmp_path: Path
) -> None:
    take(home, where, tmp_path / "backup")

    assert restore(home, tmp_path / "new.db", tmp_path / "backup", seen=99).revision == 100


def test_another_store_is_replaced_by_force_alone(home: Home, where: str, tmp_path: Path) -> None:
    take(home, where, tmp_path / "backup")
    SqlStore.create(tmp_path / "other.db", public=home.read_public_key(), now=NOW)

    with pytest.raises(StoreError, match="holds another store"):
        restore(home, tmp_path / "other.db", tmp_path / "backup")
    restore(home, tmp_path / "other.db", tmp_path / "backup", force=True)
    assert content(home, tmp_path / "other.db") == content(home, where)


def test_tables_of_something_else_are_left_alone(
    home: Home, where: str, postgres: Server, tmp_path: Path
) -> None:
    take(home, where, tmp_path / "backup")
    name = postgres.database()
    postgres.execute("CREATE TABLE tokens (id integer)", name)

    with pytest.raises(StoreError, match="tables of something else"):
        restore(home, postgres.url(name), tmp_path / "backup", force=True)


@pytest.mark.parametrize("at", [0, 25, 40, 1500, -1])
def test_a_changed_backup_is_refused(home: Home, tmp_path: Path, at: int) -> None:
    """In what stands in front, in the sealed part, at its end."""
    take(home, str(home.store), tmp_path / "backup")
    text = bytearray((tmp_path / "backup").read_bytes())
    text[at] ^= 1
    (tmp_path / "backup").write_bytes(text)

    with pytest.raises(StoreError, match=r"is damaged|no backup|sealed for key"):
        backups.read(tmp_path / "backup", home.read_private_key())


@pytest.mark.parametrize("length", [0, 10, 19, 25, 100, 2000])
def test_a_cut_off_backup_is_refused(home: Home, tmp_path: Path, length: int) -> None:
    take(home, str(home.store), tmp_path / "backup")
    with (tmp_path / "backup").open("r+b") as file:
        file.truncate(length)

    with pytest.raises(StoreError, match=r"is damaged|no backup|sealed for key"):
        backups.read(tmp_path / "backup", home.read_private_key())


def test_a_backup_of_another_home_is_refused(home: Home, tmp_path: Path) -> None:
    other = create_home(tmp_path / "other", now=NOW).home
    take(other, str(other.store), tmp_path / "backup")

    with pytest.raises(StoreError, match="is sealed for key") as error:
        backups.read(tmp_path / "backup", home.read_private_key())
    assert "sealing.key" in error.value.hint


def test_a_backup_from_before_a_rotation_needs_the_keys_of_then(
    home: Home, where: str, tmp_path: Path
) -> None:
    then = Home(shutil.copytree(home.root, tmp_path / "then"))
    before = content(home, where)
    take(home, where, tmp_path / "backup")
    rotate(home, where)

    with pytest.raises(StoreError, match="is sealed for key"):
        restore(home, where, tmp_path / "backup", force=True)
    restore(then, tmp_path / "fresh.db", tmp_path / "backup")
    assert content(then, tmp_path / "fresh.db") == before


def test_every_table_is_in_a_backup() -> None:
    tables = {table.name for table in backups._TABLES} | {schema.meta.name}

    assert tables == {table.name for table in schema.metadata.sorted_tables}


# --- what was seen ----------------------------------------------------------------------------


def test_a_store_that_goes_back_is_told_until_somebody_accepts_it(tmp_path: Path) -> None:
    path = tmp_path / "store.seen"
    told = [seen.look(path, "one", revision).told() for revision in (5, 9, 9, 6, 7, 12)]

    assert told[:3] == ["", "", ""]
    assert "revision 6 came after 9" in told[3]
    assert told[3] == told[4] == told[5]
    seen.accept(path, "one", 12)
    assert seen.look(path, "one", 13).told() == ""
    assert seen.remembered(path, "one") == 13


def test_a_look_need_not_write(tmp_path: Path) -> None:
    path = tmp_path / "store.seen"
    seen.look(path, "one", 9)

    assert "revision 6 came after 9" in seen.look(path, "one", 6, keep=False).told()
    assert seen.look(path, "one", 9).told() == ""


def test_another_store_is_another_matter(tmp_path: Path) -> None:
    path = tmp_path / "store.seen"
    seen.look(path, "one", 9)

    assert seen.look(path, "two", 3).told() == ""
    assert (seen.remembered(path, "one"), seen.remembered(path, "two")) == (0, 3)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"revision": 1}', '{"store_id": 1}'])
def test_a_file_of_something_else_is_begun_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "store.seen"
    path.write_text(text)
    path.chmod(0o600)

    assert seen.look(path, "one", 9).told() == ""
    assert seen.remembered(path, "one") == 9
