"""The SQLite store: bad files, meddling with the database, several processes, what is at rest."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from coatcheck.core.ports import StoreError, Used
from coatcheck.store import schema, sealing, sqlite
from coatcheck.store.home import Home, create_home
from coatcheck.store.model import NameTaken, Token, stored_pattern
from coatcheck.store.sql import SqlStore
from tests.store.stores import GRACE_S, NOW, Clock, open_store, patterns

SENTINEL = b"coat-SENTINEL-\xf0\x9f\x94\x91-value-0123456789"


def put(store: SqlStore, name: str, value: bytes = SENTINEL, *domains: str) -> None:
    store.put(
        name,
        value,
        domains=patterns(*(domains or ("api.example.com",))),
        description=None,
        now=NOW,
    )


def meddle(home: Home, statement: str, *values: object) -> None:
    """Change the database behind the store's back."""
    with closing(sqlite3.connect(home.store)) as connection, connection:
        assert connection.execute(statement, values).rowcount != 0


def open_value(store: SqlStore, name: str) -> bytes:
    view = store.view()
    secret = view.find(name)
    assert secret is not None
    return view.open(secret).reveal()


# --- a store that cannot be used -------------------------------------------------------------


def _sparse(path: Path) -> None:
    path.unlink()
    with path.open("xb") as file:
        path.chmod(0o600)
        file.truncate(1 << 30)


def _other_database(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE meta (store_id, key_id)")
    path.chmod(0o600)


BAD_FILES = [
    pytest.param(lambda p: p.unlink(), "there is no store", "coatcheck init", id="missing"),
    pytest.param(lambda p: (p.unlink(), p.mkdir()), "is a folder", "put back", id="a folder"),
    pytest.param(lambda p: p.chmod(0o640), "mode 0640", "chmod 600", id="readable by a group"),
    pytest.param(lambda p: p.chmod(0o606), "mode 0606", "chmod 600", id="writable by all"),
    pytest.param(
        lambda p: (p.rename(p.with_name("real")), p.symlink_to("real")),
        "symbolic link",
        "points to",
        id="a link",
    ),
    pytest.param(
        lambda p: (p.unlink(), os.mkfifo(p, 0o600)), "no plain file", "put back", id="a FIFO"
    ),
    pytest.param(lambda p: os.truncate(p, 0), "no coatcheck store", "backup", id="empty"),
    pytest.param(
        lambda p: p.write_bytes(b"not a database at all" * 99),
        "no coatcheck store",
        "backup",
        id="not a database",
    ),
    pytest.param(lambda p: os.truncate(p, 5000), "damaged", "backup", id="cut off"),
    pytest.param(
        lambda p: os.truncate(p, p.stat().st_size - 4096), "damaged", "backup", id="a page short"
    ),
    pytest.param(_sparse, "no coatcheck store|damaged", "backup", id="1 GiB of zeros"),
    pytest.param(
        _other_database,
        "no coatcheck store",
        "backup",
        id="a database of something else",
    ),
]


@pytest.mark.parametrize("private", [True, False], ids=["worker", "management"])
@pytest.mark.parametrize(("spoil", "said", "next_step"), BAD_FILES)
def test_a_store_is_refused_that_is(
    home: Home, spoil: Callable[[Path], object], said: str, next_step: str, private: bool
) -> None:
    """STORE-14: a clean refusal, and never a new store in its place."""
    public, key = home.read_public_key(), home.read_private_key()
    spoil(home.store)
    before = sorted(path.name for path in home.root.iterdir())
    content = home.store.read_bytes()[:10_000] if home.store.is_file() else None

    def use() -> None:
        with closing(
            SqlStore.open(home.store, public=public, private=key if private else None)
        ) as store:
            store.secrets()

    with pytest.raises(StoreError, match=said) as error:
        use()

    assert next_step in error.value.hint
    assert str(home.store) in str(error.value)
    assert sorted(path.name for path in home.root.iterdir()) == before
    assert (home.store.read_bytes()[:10_000] if home.store.is_file() else None) == content


def test_a_file_that_vanishes_after_the_check_is_not_made_anew(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        sqlite.connect(tmp_path / "store.db")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("beside", ["-wal", "-shm", "-journal"])
def test_a_file_beside_the_store_is_refused_that_is_open_to_others(home: Home, beside: str) -> None:
    path = home.root / f"store.db{beside}"
    path.touch()
    path.chmod(0o666)

    with pytest.raises(StoreError, match="mode 0666") as error:
        open_store(home)
    assert error.value.hint == f"chmod 600 {path}"


def test_a_store_that_belongs_to_another_user_is_refused(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = home.read_public_key()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    with pytest.raises(StoreError, match="belongs to") as error:
        SqlStore.open(home.store, public=public)
    assert "chown" in error.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_store_is_refused(home: Home) -> None:
    home.store.chmod(0)

    with pytest.raises(StoreError, match="cannot read") as error:
        open_store(home)
    assert "chmod 600" in error.value.hint


def test_a_store_from_another_home_is_refused(home: Home, tmp_path: Path) -> None:
    other = create_home(tmp_path / "other", now=NOW).home
    shutil.copyfile(other.store, home.store)

    with pytest.raises(StoreError, match="from another home") as error:
        open_store(home)
    assert "same home" in error.value.hint


def test_keys_that_are_no_pair_are_refused(home: Home) -> None:
    with pytest.raises(StoreError, match="are no pair"):
        SqlStore.open(home.store, public=home.read_public_key(), private=sealing.generate_key())


def test_a_store_of_a_newer_program_is_refused(home: Home) -> None:
    meddle(home, "UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(StoreError, match="schema '9999'") as error:
        open_store(home)
    assert "upgrade coatcheck" in error.value.hint


@pytest.mark.parametrize("table", ["alembic_version", "meta"])
def test_a_store_without_its_own_row_is_refused(home: Home, table: str) -> None:
    meddle(home, f"DELETE FROM {table}")

    with pytest.raises(StoreError, match="no coatcheck store"):
        open_store(home)


def test_another_database_is_refused_without_repeating_its_password(home: Home) -> None:
    with pytest.raises(StoreError, match="not in mysql") as error:
        SqlStore.open("mysql://u:hunter2@db/x", public=home.read_public_key())
    assert "hunter2" not in str(error.value)


def test_a_url_names_the_same_file(home: Home) -> None:
    with closing(SqlStore.open(f"sqlite:///{home.store}", public=home.read_public_key())) as store:
        assert store.secrets() == []


@pytest.mark.parametrize("name", ["with blank", "q?mode=memory", "h#ash", "per%20cent", "ü"])
def test_a_path_of_any_characters_is_that_path(model_home: Home, tmp_path: Path, name: str) -> None:
    shutil.copytree(model_home.root, tmp_path / name)
    with closing(open_store(Home(tmp_path / name))) as store:
        put(store, "a")

    assert [path.name for path in tmp_path.iterdir()] == [name]
    with closing(open_store(Home(tmp_path / name))) as store:
        assert open_value(store, "a") == SENTINEL


def test_any_damage_ends_in_an_error_or_in_the_right_values(home: Home) -> None:
    """STORE-14: bits flipped anywhere. No other exception, no wrong value, no file made anew."""
    with closing(open_store(home)) as store:
        for number in range(5):
            put(store, f"name{number}", SENTINEL + b"%d" % number)
        put(store, "name0", b"the-second-value")
    whole = home.store.read_bytes()
    right = {b"the-second-value", *(SENTINEL + b"%d" % number for number in range(1, 5))}
    chance = random.Random(5)
    refused: list[StoreError] = []
    for _ in range(120):
        spoiled = bytearray(whole)
        for _ in range(chance.choice([1, 1, 8])):
            spoiled[chance.randrange(len(spoiled))] ^= 1 << chance.randrange(8)
        home.store.write_bytes(spoiled)
        for beside in ("-wal", "-shm"):
            home.store.with_name(f"store.db{beside}").unlink(missing_ok=True)
        try:
            found = all_values(home)
        except StoreError as error:
            refused.append(error)
        else:
            assert found <= right
    assert len(refused) > 20
    assert all(error.hint and "SENTINEL" not in str(error) for error in refused)


def all_values(home: Home) -> set[bytes]:
    with closing(open_store(home)) as store:
        view = store.view()
        for secret in view.former():
            view.open(secret)
        return {view.open(secret).reveal() for secret in view.secrets()}


# --- meddling with the database --------------------------------------------------------------


@pytest.fixture
def two(home: Home) -> Home:
    """A home with two secrets of different domains, the first in its second version."""
    with closing(open_store(home)) as store:
        put(store, "first", b"value-of-first-1", "one.example")
        put(store, "first", b"value-of-first-2", "one.example")
        put(store, "second", b"value-of-second", "two.example")
    return home


_ID = "(SELECT id FROM secrets WHERE name = '{}')"
FIRST, SECOND = _ID.format("first"), _ID.format("second")


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(
            """UPDATE secrets SET domains = '["evil.example"]' WHERE name = 'first'""",
            id="its domains are widened",
        ),
        pytest.param(
            """UPDATE secrets SET domains = '["*"]' WHERE name = 'first'""",
            id="it may go anywhere",
        ),
        pytest.param(
            f"UPDATE versions SET record = (SELECT record FROM versions WHERE secret_id = {SECOND})"
            f" WHERE secret_id = {FIRST} AND version = 2",
            id="it gets the record of another secret",
        ),
        pytest.param(
            f"UPDATE versions SET record = (SELECT record FROM versions"
            f" WHERE secret_id = {FIRST} AND version = 1)"
            f" WHERE secret_id = {FIRST} AND version = 2",
            id="it gets its old record back",
        ),
        pytest.param(
            "UPDATE secrets SET version = 3 WHERE name = 'first'", id="its version is raised"
        ),
        pytest.param("UPDATE meta SET store_id = 'other'", id="the store gets another id"),
        pytest.param(
            f"DELETE FROM versions WHERE secret_id = {FIRST}", id="its records are deleted"
        ),
        pytest.param(
            f"UPDATE versions SET record = NULL WHERE secret_id = {FIRST}",
            id="its records are emptied",
        ),
        pytest.param(
            f"UPDATE versions SET record = x'00' WHERE secret_id = {FIRST}",
            id="its records are cut off",
        ),
        pytest.param(
            f"UPDATE versions SET record = substr(record, 1, 1000) WHERE secret_id = {FIRST}",
            id="its records are cut short",
        ),
    ],
)
def test_a_value_does_not_open_when(two: Home, statement: str) -> None:
    """STORE-02: changing allowed domains needs the value again, in the database too."""
    meddle(two, statement)

    with closing(open_store(two)) as store:
        view = store.view()
        secret = view.find("first")
        assert secret is not None
        with pytest.raises(StoreError, match="'first'") as error:
            view.open(secret)
        assert "set" in error.value.hint
        assert "value-of" not in str(error.value)


def test_old_domains_with_their_old_version_open_the_old_value_alone(two: Home) -> None:
    """A rollback of one secret, consistent in every column, is not noticed (SECURITY.md says so),
    but it sends the old value to the old domains, and nothing else anywhere."""
    meddle(two, "UPDATE secrets SET version = 1 WHERE name = 'first'")

    with closing(open_store(two)) as store:
        assert open_value(store, "first") == b"value-of-first-1"


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("UPDATE secrets SET domains = '{}'", id="domains that are no list"),
        pytest.param("UPDATE secrets SET domains = '['", id="domains that are no JSON"),
        pytest.param("""UPDATE secrets SET domains = '["a:b"]'""", id="a pattern that is none"),
        pytest.param("UPDATE secrets SET domains = '[7]'", id="a number for a pattern"),
        pytest.param("UPDATE secrets SET domains = x'ff'", id="bytes for text"),
        pytest.param("UPDATE versions SET record = 'text'", id="text for bytes"),
        pytest.param("UPDATE meta SET revision = 'text'", id="text for a number"),
    ],
)
def test_a_column_of_something_else_is_damage(two: Home, statement: str) -> None:
    meddle(two, statement)

    def use() -> None:
        with closing(open_store(two)) as store:
            store.revision()
            view = store.view()
            view.open(next(iter(view.secrets())))

    with pytest.raises(StoreError) as error:
        use()
    assert error.value.hint


def test_a_retired_record_that_does_not_open_is_an_error(two: Home) -> None:
    """Or an old value would go through unscrubbed."""
    meddle(two, "UPDATE versions SET domains = '[]' WHERE version = 1 AND replaced_at > 0")

    with closing(open_store(two)) as store:
        view = store.view()
        (former,) = view.former()
        with pytest.raises(StoreError, match="'first', version 1"):
            view.open(former)


@pytest.mark.parametrize("then", ["removed", "replaced"])
def test_a_store_that_goes_away_while_in_use_is_noticed(home: Home, then: str) -> None:
    """SQLite would go on reading the file that nobody can see any more."""
    with closing(open_store(home)) as store:
        put(store, "a")
        assert store.revision()
        copy = home.root / "copy"
        shutil.copyfile(home.store, copy)
        home.store.unlink()
        if then == "replaced":
            copy.rename(home.store)

        for call in (store.revision, store.view, lambda: put(store, "b")):
            with pytest.raises(StoreError, match="removed or replaced") as error:
                call()
            assert "restart" in error.value.hint


# --- at rest ---------------------------------------------------------------------------------


def test_no_value_is_in_any_file_of_home(home: Home) -> None:
    """G2: raw, base64 at three alignments, hex, JSON; for put, replace, edit, delete, WAL."""
    with closing(open_store(home)) as store:
        for name in "abc":
            put(store, name)
        put(store, "a", SENTINEL[::-1])
        put(store, "a", SENTINEL)
        store.edit("b", new_name="d", now=NOW)
        store.delete("c", now=NOW)
        assert open_value(store, "a") == SENTINEL
        during = everything(home)
    after = everything(home)

    for value in (SENTINEL, SENTINEL[::-1]):
        for needle in spellings(value):
            assert needle not in during
            assert needle not in after


def everything(home: Home) -> bytes:
    return b"\0".join(path.read_bytes() for path in home.root.rglob("*") if path.is_file()).lower()


def spellings(value: bytes) -> list[bytes]:
    """Lower case, since base64 and hex have their own ideas of it."""
    aligned = [base64.b64encode(b"\0" * n + value)[4:-4] for n in range(3)]
    text = json.dumps(value.decode("latin-1")).encode()[1:-1]
    return [s.lower() for s in (value, value[4:-4], *aligned, value.hex().encode(), text)]


def test_a_deleted_record_is_overwritten(home: Home) -> None:
    with closing(open_store(home)) as store:
        put(store, "a")
        with closing(sqlite3.connect(home.store)) as connection:
            (record,) = connection.execute("SELECT record FROM versions").fetchone()
        store.delete("a", now=NOW)
    with closing(open_store(home)) as store, closing(sqlite3.connect(home.store)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    assert record[-64:] not in home.store.read_bytes()


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("secure_delete", 1)],
)
def test_sqlite_is_set_to_keep_what_it_acknowledged(home: Home, pragma: str, value: object) -> None:
    with closing(sqlite.connect(home.store)) as connection:
        assert connection.execute(f"PRAGMA {pragma}").fetchone()[0] == value


# --- schema ----------------------------------------------------------------------------------


def test_the_migrations_make_the_tables_that_the_program_uses(home: Home) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    engine = sqlite.engine(home.store)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
    engine.dispose()


def test_the_program_knows_the_newest_migration() -> None:
    from alembic.script import ScriptDirectory

    folder = Path(schema.__file__).parent / "migrations"
    assert ScriptDirectory(str(folder)).get_heads() == [schema.HEAD]


@pytest.mark.parametrize(
    "text",
    [
        "example.com",
        "*.example.com",
        "example.com:8443",
        "*.example.com:8443",
        "*",
        "*:8443",
        "192.0.2.1",
        "192.0.2.1:8080",
        "[2001:db8::1]",
        "[2001:db8::1]:8443",
        "xn--bcher-kva.example",
    ],
)
def test_a_pattern_comes_back_from_its_text(text: str) -> None:
    (pattern,) = patterns(text)

    assert stored_pattern(str(pattern)) == pattern


@pytest.mark.parametrize("text", ["", ":", "*.", "a:b", "a:08", "[::1", "a:1:2", "[a]:", "::1"])
def test_a_text_that_no_pattern_has_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"pattern|literal"):
        stored_pattern(text)


# --- several processes and threads -----------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from coatcheck.store.home import Home
from coatcheck.store.sql import SqlStore
home, who, count = Home(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
for number in range(count):
    store = SqlStore.open(home.store, public=home.read_public_key())
    value = f"{who}-{number}-" + "v" * 20
    secret = store.put("shared", value.encode(), domains=None, description=None, now=1.0)
    store.put(f"{who}-{number}", value.encode(), domains=None, description=None, now=1.0)
    print(secret.version, value, flush=True)
    store.close()
"""


@contextmanager
def writer(home: Home, who: str, count: int) -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(home.root), who, str(count)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with started:
        try:
            yield started
        finally:
            started.kill()


def test_several_writers_and_a_reader_lose_nothing(home: Home) -> None:
    """STORE-13: like commands beside a running proxy. Each view is of one moment."""
    count = 25
    with (
        closing(open_store(home)) as store,
        writer(home, "x", count) as one,
        writer(home, "y", count) as two,
    ):
        put(store, "shared", b"the-first-value")
        writers = [one, two]
        last = 0
        while any(each.poll() is None for each in writers):
            assert store.revision() >= last
            view = store.view()
            assert view.revision >= last
            last = view.revision
            shared = view.find("shared")
            assert shared is not None
            # In a turn a writer sets "shared", then makes a secret: it is ahead by one at most.
            assert 0 <= (shared.version - 1) - (len(view.secrets()) - 1) <= len(writers)
            assert view.open(shared).reveal().startswith((b"the-first", b"x-", b"y-"))
            store.record_use({shared.id: Used(NOW + last)})
        told = [line.split() for w in writers for line in w.communicate()[0].splitlines()]
        history = store.history("shared")
        found = {secret.name for secret in store.secrets()}

    assert [one.returncode, two.returncode] == [0, 0]
    assert sorted(int(version) for version, _ in told) == list(range(2, 2 * count + 2))
    assert [info.version for info in history] == list(range(1, 2 * count + 2))
    assert found == {"shared", *(f"{who}-{n}" for who in "xy" for n in range(count))}


def test_what_was_acknowledged_survives_a_killed_writer(home: Home) -> None:
    """STORE-09: kill -9 in the middle, again and again."""
    acknowledged: dict[int, str] = {}
    with closing(open_store(home)) as store:
        put(store, "shared", b"the-first-value")
    for turn, heard in enumerate((3, 7)):
        with writer(home, f"t{turn}", 1000) as each:
            assert each.stdout is not None
            lines = [each.stdout.readline() for _ in range(heard)]
            each.kill()
            lines += each.stdout.readlines()
        for line in lines:
            if line.endswith("\n"):
                version, value = line.split()
                acknowledged[int(version)] = value
    with closing(open_store(home)) as store:
        kept = [info.version for info in store.history("shared")]
        assert kept == list(range(1, len(kept) + 1))
        assert set(acknowledged) <= set(kept)
        assert len(acknowledged) >= 10
        for value in acknowledged.values():
            assert open_value(store, value.rpartition("-")[0]) == value.encode()


def test_a_change_by_another_process_is_seen_at_once(home: Home) -> None:
    with closing(open_store(home)) as store:
        put(store, "a")
        before = store.revision()
        assert store.revision() == before
        with closing(open_store(home, private=False)) as other:
            put(other, "a", b"another-value")

        assert store.revision() == before + 1
        assert open_value(store, "a") == b"another-value"


def test_one_store_serves_several_threads(home: Home) -> None:
    with closing(open_store(home)) as store:
        put(store, "a")
        errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for turn in range(10):
                    put(store, f"n{number}-{turn}")
                    store.revision()
                    assert open_value(store, "a") == SENTINEL
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert errors == []
        assert len(store.secrets()) == 41
        assert store.revision() == store.view().revision


def test_a_writer_that_waits_too_long_says_so(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.05)
    with closing(open_store(home)) as store, closing(sqlite3.connect(home.store)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked by another process") as error:
            put(store, "a")
        assert "try again" in error.value.hint
        assert store.secrets() == []  # reading goes on
        other.rollback()
        put(store, "a")


def test_a_change_that_fails_midway_changes_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bytes:
        raise sqlite3.OperationalError("database or disk is full")

    with closing(open_store(home)) as store:
        put(store, "a")
        before = store.revision()
        monkeypatch.setattr(sealing, "seal", full)
        with pytest.raises(StoreError):
            put(store, "a", b"another-value")

        assert (open_value(store, "a"), store.revision()) == (SENTINEL, before)
        assert [info.replaced_at for info in store.history("a")] == [None]


def test_a_disk_that_is_full_is_said_and_nothing_is_lost(home: Home) -> None:
    """STORE-11, with SQLite's own bound on the file."""
    with closing(open_store(home)) as store:
        put(store, "a")

        @sa.event.listens_for(store._database._engine, "begin")  # type: ignore[attr-defined]
        def bound(connection: sa.Connection) -> None:
            connection.exec_driver_sql("PRAGMA max_page_count = 20")

        with pytest.raises(StoreError, match="is full; nothing was changed") as error:
            put(store, "a", b"v" * 500_000)
        assert "make room" in error.value.hint
        assert open_value(store, "a") == SENTINEL


# --- many at once ----------------------------------------------------------------------------


def test_many_secrets_are_put_in_one_change(home: Home) -> None:
    entries = [(name, SENTINEL + name.encode(), patterns("a.example")) for name in ("a", "b", "c")]
    with closing(open_store(home)) as store:
        before = store.revision()
        store.put_many(entries, now=NOW)

        assert store.revision() == before + 1
        assert {name: open_value(store, name) for name, _, _ in entries} == {
            name: value for name, value, _ in entries
        }
        assert [str(d) for d in store.view().secrets()[2].domains] == ["a.example"]  # type: ignore[index]


def test_where_one_of_many_is_refused_none_is_put(home: Home) -> None:
    entries = [("a", SENTINEL, patterns("a.example")), ("A", SENTINEL, patterns("a.example"))]
    with closing(open_store(home)) as store:
        before = store.revision()
        with pytest.raises(NameTaken):
            store.put_many(entries, now=NOW)

        assert store.revision() == before
        assert list(store.secrets()) == []


# --- views -----------------------------------------------------------------------------------


def test_an_open_value_is_taken_over_by_the_next_view(home: Home) -> None:
    """A change of one secret does not open ten thousand again."""
    with closing(open_store(home)) as store:
        put(store, "a")
        put(store, "b")
        first = store.view()
        value = first.open(first.secrets()[0])  # type: ignore[index]
        put(store, "b", b"another-value")
        second = store.view()

        assert second.open(second.secrets()[0]) is value  # type: ignore[index]


def test_but_not_when_its_record_has_changed(home: Home) -> None:
    with closing(open_store(home)) as store:
        put(store, "a")
        assert open_value(store, "a") == SENTINEL
        meddle(home, "UPDATE versions SET record = x'00'")

        with pytest.raises(StoreError, match="'a'"):
            open_value(store, "a")


def test_a_pattern_that_would_be_refused_today_still_reads(home: Home) -> None:
    """The list of public suffixes grows; a store must stay readable."""
    with closing(open_store(home)) as store:
        wide = dataclasses.replace(patterns("*.a.example")[0], host="github.io")
        store.put("a", SENTINEL, domains=[wide], description=None, now=NOW)

        assert [str(domain) for domain in store.secrets()[0].domains] == ["*.github.io"]
        assert open_value(store, "a") == SENTINEL


def test_a_token_is_kept_once(store: SqlStore) -> None:
    before = store.revision()
    store.add_token("ab" * 32, role="owner", now=NOW)

    assert store.revision() == before + 1


def test_grace_and_clock_are_those_given(home: Home) -> None:
    clock = Clock(NOW)
    with closing(open_store(home, clock)) as store:
        put(store, "a")
        put(store, "a", b"another-value")
        clock.now = NOW + GRACE_S + 1
        view = store.view()

        assert list(view.former()) == []


# --- tokens -----------------------------------------------------------------------------------


def test_tokens_are_kept_by_their_hash(store: SqlStore) -> None:
    (first,) = store.tokens()
    assert (first.role, first.name, first.expires_at) == ("owner", "made by coatcheck init", None)

    made = store.add_token(
        "ab" * 32, role="viewer", now=NOW + 1, name="ci", created_by="ada", expires_at=NOW + 9
    )
    assert list(store.tokens()) == [first, made]
    assert store.find_token("ab" * 32) == made
    assert store.find_token("cd" * 32) is None
    store.note_token("ab" * 32, now=NOW + 5)
    found = store.find_token("ab" * 32)
    assert found is not None
    assert (found.last_used_at, found.created_by, found.expires_at) == (NOW + 5, "ada", NOW + 9)


def test_a_token_is_removed_by_its_id_unless_the_check_minds(store: SqlStore) -> None:
    class No(Exception):
        pass

    def refuse(_: Token, __: Sequence[Token]) -> None:
        raise No

    made = store.add_token("ab" * 32, role="viewer", now=NOW + 1)
    with pytest.raises(No):
        store.remove_token(made.id, now=NOW, check=refuse)
    assert store.find_token(made.sha256) == made
    assert store.remove_token(made.id, now=NOW) == made
    assert store.find_token(made.sha256) is None
    assert store.remove_token(made.id, now=NOW) is None
