"""The PostgreSQL store, on a real server: what is refused, what outages do, what is told."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise

import psycopg
import pytest

from coatcheck.core.ports import StoreError, Used
from coatcheck.store import postgres as module
from coatcheck.store import schema, sealing
from coatcheck.store.home import Home
from coatcheck.store.sql import SqlStore
from tests.store.server import PASSWORD, Server
from tests.store.stores import NOW, Clock, open_store, patterns

VALUE = b"coat-SENTINEL-value-0123456789"


@pytest.fixture
def store(home: Home, url: str) -> Iterator[SqlStore]:
    with closing(open_store(home, where=url)) as opened:
        yield opened


def put(store: SqlStore, name: str = "a", value: bytes = VALUE, domain: str = "a.example") -> None:
    store.put(name, value, domains=patterns(domain), description=None, now=NOW)


def value_of(store: SqlStore, name: str = "a") -> bytes:
    view = store.view()
    secret = view.find(name)
    assert secret is not None
    return view.open(secret).reveal()


def told(error: BaseException) -> str:
    """Everything that a log or a terminal could show of it."""
    return "".join(traceback.format_exception(error)) + repr(error)


def until[T](look: Callable[[], T], *, seconds: float = 20) -> T:
    """What *look* returns once it raises no StoreError."""
    end = time.monotonic() + seconds
    while True:
        try:
            return look()
        except StoreError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


# --- a database that cannot be used -----------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "said", "next_step"),
    [
        pytest.param(
            lambda s, d: s.url(d, password="another"), "let us in", "PGPASSFILE", id="password"
        ),
        pytest.param(
            lambda s, d: s.url(d).replace("coat:", "nobody:"), "let us in", "user", id="user"
        ),
        pytest.param(lambda s, d: s.url("none"), "there is no database", "CREATE", id="database"),
        pytest.param(
            lambda s, d: s.url(d).replace(str(s.port), "1"), "be reached", "runs", id="port"
        ),
        pytest.param(lambda s, d: s.url(s.database()), "no coatcheck store", "migrate", id="empty"),
    ],
)
def test_a_store_is_refused_with_the_wrong(
    postgres: Server,
    home: Home,
    database: str,
    spoil: Callable[[Server, str], str],
    said: str,
    next_step: str,
) -> None:
    with pytest.raises(StoreError, match=said) as error:
        open_store(home, where=spoil(postgres, database))

    assert next_step in error.value.hint
    assert PASSWORD not in told(error.value)
    assert "another" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("postgresql://u:hunter2@h:port/db", id="a port that is none"),
        pytest.param("postgresql://u:hunter2@x@h/db", id="an @ that is not encoded"),
        pytest.param("postgresql://u:1/hunter2@h/db", id="a slash that is not encoded"),
        pytest.param("postgresql://u:x%hunter2@h/db", id="a percent sign that is not encoded"),
        pytest.param("postgresql://[hunter2/db", id="a bracket"),
        pytest.param("postgresql://h/db?password=hunter2&hunter2=1", id="an unknown parameter"),
        pytest.param("postgresql://h/db?port=hunter2", id="a parameter that is no number"),
    ],
)
def test_a_url_that_cannot_be_understood_is_not_repeated(home: Home, url: str) -> None:
    with pytest.raises(StoreError, match="cannot be understood") as error:
        SqlStore.open(url, public=home.read_public_key())

    assert "%XX" in error.value.hint
    assert "hunter2" not in told(error.value)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://u:hunter2@db.example:6432/coat", "postgresql://db.example:6432/coat"),
        ("postgres://u:hunter2@db/coat?sslmode=verify-full", "postgresql://db/coat"),
        ("postgresql://u:p%40%2Fw@[2001:db8::1]/coat", "postgresql://2001:db8::1/coat"),
        ("postgresql://u:hunter2@a:1,b:2/coat", "postgresql://a,b:1,2/coat"),
        (
            "postgresql:///coat?host=/run/postgresql&password=hunter2",
            "postgresql:///run/postgresql/coat",
        ),
    ],
)
def test_a_message_names_the_place_and_nothing_else_of_the_url(url: str, place: str) -> None:
    with closing(module.PostgresDatabase(url)) as made:
        assert made.place == place


def test_a_database_in_another_encoding_is_refused(postgres: Server, home: Home) -> None:
    postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")

    with pytest.raises(StoreError, match="encoding LATIN1") as error:
        open_store(home, where=postgres.url("latin"))
    assert "UTF8" in error.value.hint


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        pytest.param("UPDATE alembic_version SET version_num = '9999'", "9999", id="newer"),
        pytest.param("UPDATE meta SET key_id = 'ffff'", "from another home", id="of other keys"),
        pytest.param("DELETE FROM meta", "no coatcheck store", id="without its row"),
        pytest.param("DROP TABLE meta", "no coatcheck store", id="without a table"),
    ],
)
def test_a_store_is_refused_that_is(
    postgres: Server, home: Home, database: str, statement: str, said: str
) -> None:
    postgres.execute(statement, database)

    with pytest.raises(StoreError, match=said):
        open_store(home, where=postgres.url(database))


def test_a_store_that_another_one_took_the_place_of_is_noticed(
    postgres: Server, database: str, store: SqlStore
) -> None:
    assert store.revision()
    postgres.execute("UPDATE meta SET store_id = 'of another store'", database)

    for call in (store.revision, store.view):
        with pytest.raises(StoreError, match="replaced by another one"):
            call()


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("""UPDATE secrets SET domains = '["evil.example"]'""", id="its domains"),
        pytest.param(
            "UPDATE versions SET record = (SELECT record FROM versions v WHERE v.version = 1"
            " AND v.secret_id = (SELECT id FROM secrets WHERE name = 'b'))",
            id="its record",
        ),
        pytest.param("UPDATE secrets SET version = 2", id="its version"),
        pytest.param("""UPDATE versions SET record = '\\x00'""", id="its bytes"),
    ],
)
def test_a_value_does_not_open_after_somebody_changed(
    postgres: Server, database: str, store: SqlStore, statement: str
) -> None:
    """STORE-02: who can write to the database cannot point a value at a domain of theirs."""
    put(store)
    put(store, "b", b"value-of-b")
    assert value_of(store) == VALUE
    postgres.execute(statement, database)

    with pytest.raises(StoreError, match="'a'"):
        value_of(store)


# --- tables -----------------------------------------------------------------------------------


def test_the_migrations_make_the_tables_that_the_program_uses(url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    with closing(module.PostgresDatabase(url)) as made, made.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []


def test_of_several_that_make_the_tables_at_once_one_does(postgres: Server) -> None:
    """They wait for each other, and the others find a store."""
    url = postgres.url(postgres.database())
    public = sealing.generate_key().public

    def make(_: int) -> str:
        try:
            SqlStore.create_tables(url, public=public, now=NOW)
        except StoreError as error:
            return error.problem
        return "made"

    with ThreadPoolExecutor(4) as threads:
        results = sorted(threads.map(make, range(4)))

    assert results.count("made") == 1
    assert all("holds a store already" in text for text in results if text != "made")


# --- changes are told -------------------------------------------------------------------------


def test_a_change_by_another_process_is_told(home: Home, url: str, store: SqlStore) -> None:
    before = store.revision()
    with closing(open_store(home, private=False, where=url)) as other, ThreadPoolExecutor(1) as t:
        waiting = t.submit(store.wait, 60.0)
        put(other)

        assert waiting.result()
    assert store.revision() == before + 1
    assert value_of(store) == VALUE


def test_a_change_between_a_look_and_the_wait_is_told(
    home: Home, url: str, store: SqlStore
) -> None:
    store.revision()
    with closing(open_store(home, private=False, where=url)) as other:
        put(other)

    assert store.wait(60.0)


def test_what_changes_nothing_that_matters_is_not_told(
    home: Home, url: str, store: SqlStore
) -> None:
    put(store)
    store.revision()
    store.wait(0.2)
    with closing(open_store(home, private=False, where=url)) as other:
        other.record_use({store.secrets()[0].id: Used(NOW + 1)})

    assert not store.wait(0.2)
    assert store.secrets()[0].last_used_at == NOW + 1


def test_a_listener_that_was_cut_off_listens_again(
    postgres: Server, home: Home, url: str, store: SqlStore
) -> None:
    before = store.revision()
    cut_all(postgres, url)
    with closing(open_store(home, private=False, where=url)) as other:
        put(other)  # told to nobody
        assert store.revision() == before + 1
        store.wait(0.2)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(store.wait, 60.0)
            put(other)
            assert waiting.result()


def cut_all(postgres: Server, url: str) -> None:
    name = url.rpartition("/")[2]
    postgres.execute(
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'"
    )


# --- outages ----------------------------------------------------------------------------------


def test_connections_that_were_cut_are_made_again(
    postgres: Server, url: str, store: SqlStore
) -> None:
    put(store)
    revision = store.revision()
    cut_all(postgres, url)

    assert store.revision() == revision
    cut_all(postgres, url)
    assert value_of(store) == VALUE
    cut_all(postgres, url)
    put(store, "b")


def test_a_restarted_database_is_found_again(postgres: Server, store: SqlStore) -> None:
    put(store)
    revision = store.revision()
    postgres.stop()
    try:
        for call in (store.revision, store.view, store.secrets, lambda: put(store, "b")):
            with pytest.raises(StoreError, match="cannot be reached") as error:
                call()
            assert PASSWORD not in told(error.value)
        assert not store.wait(0.01)
    finally:
        postgres.start()

    assert until(store.revision) == revision
    assert value_of(store) == VALUE


def test_a_database_that_says_nothing_any_more_is_given_up(
    postgres: Server, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernel still takes our bytes, so no timeout of TCP ends it."""
    put(store)
    for name in ("LOOK_S", "ANSWER_S"):
        monkeypatch.setattr(module, name, 0.5)
    monkeypatch.setitem(store._database._parameters, "connect_timeout", "2")  # type: ignore[attr-defined]
    store._database._engine.dispose()  # type: ignore[attr-defined]
    revision = store.revision()
    assert value_of(store) == VALUE
    postgres.freeze()
    try:
        for call in (store.revision, store.view, store.revision):
            begun = time.monotonic()
            with pytest.raises(StoreError, match="cannot be reached"):
                call()
            assert time.monotonic() - begun < 10
    finally:
        postgres.freeze(frozen=False)

    assert until(store.revision) == revision
    assert value_of(store) == VALUE


def test_a_writer_that_waits_too_long_says_so_while_readers_go_on(
    postgres: Server, home: Home, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_S", 0.2)
    with closing(open_store(home, where=url)) as store, closing(psycopg.connect(url)) as other:
        put(store)
        other.execute("SELECT id FROM meta FOR UPDATE")
        with pytest.raises(StoreError, match="is busy") as error:
            put(store, "b")
        assert "try again" in error.value.hint
        assert [secret.name for secret in store.secrets()] == ["a"]
        assert value_of(store) == VALUE
        store.record_use({store.secrets()[0].id: Used(NOW)})
        other.rollback()
        put(store, "b")


def test_a_connection_lost_at_the_commit_is_not_taken_for_a_failure(
    postgres: Server, url: str, store: SqlStore
) -> None:
    """Whether the change was made cannot be known, and nobody is told that it was not."""

    def cut_off() -> None:
        with store._database.noting() as connection:
            connection.exec_driver_sql("SELECT 1")
            cut_all(postgres, url)

    with pytest.raises(StoreError, match="it was made or it was not") as error:
        cut_off()
    assert "secret list" in error.value.hint


def test_a_pause_follows_a_failed_attempt_and_doubles_up_to_three_seconds() -> None:
    clock = Clock()
    attempts = module._Attempts(clock)
    pauses = []
    for _ in range(12):
        attempts.check()
        attempts.failed(StoreError("gone", hint="wait"))
        begun = clock.now
        while is_pausing(attempts):
            clock.now += 0.01
        pauses.append(clock.now - begun)

    assert 0.12 <= pauses[0] <= 0.27
    assert all(later > earlier for earlier, later in pairwise(pauses[::2][:3]))
    assert all(1.5 <= pause <= 3.02 for pause in pauses[6:])
    attempts.worked()
    attempts.failed(StoreError("gone", hint="wait"))
    clock.now += 0.26
    attempts.check()


def is_pausing(attempts: module._Attempts) -> bool:
    try:
        attempts.check()
    except StoreError as error:
        return (error.problem, error.hint) == ("gone", "wait")
    return False


# --- several threads --------------------------------------------------------------------------


def test_one_store_serves_several_threads(store: SqlStore) -> None:
    put(store)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(5):
                put(store, f"n{number}-{turn}")
                store.revision()
                store.wait(0.001)
                assert value_of(store) == VALUE
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert len(store.secrets()) == 21
    assert store.revision() == store.view().revision


# --- at rest ----------------------------------------------------------------------------------


def test_no_value_is_in_any_file_of_the_server(postgres: Server, store: SqlStore) -> None:
    """G2: tables, write-ahead log, the server's log."""
    put(store)
    put(store, "a", VALUE[::-1])
    put(store, "written-in-the-open")
    store.delete("written-in-the-open", now=NOW)
    postgres.execute("CHECKPOINT")
    files = [path for path in postgres.folder.rglob("*") if path.is_file()]
    found = b"\0".join(path.read_bytes() for path in files)

    assert b"written-in-the-open" in found  # it looks where things are written
    for value in (VALUE, VALUE[::-1]):
        assert value not in found
        assert value.hex().encode() not in found


def test_the_driver_is_loaded_by_those_alone_who_use_it() -> None:
    program = "import sys, coatcheck.store.sql; print('psycopg' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (done.stdout, done.stderr) == ("False\n", "")
