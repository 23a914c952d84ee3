"""PostgreSQL as a store: how it is reached, how long it may take, and what its errors mean.

A database somewhere else can be slow, gone, or answer nothing for ever. Whatever it does, a call
ends within seconds: connecting, each statement and each wait for a lock have a limit that the
server keeps, and each answer one that is kept here, for a server that is stopped or cut off. After
a failed attempt the next ones are refused at once, with the same error, until a pause is over that
doubles up to `MAX_PAUSE_S`: a worker asks four times a second.

Errors are told in our words alone. Those of the driver quote statements, and may quote the URL.
"""

from __future__ import annotations

import random
import re
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import _WaitTimeout
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from coatcheck.core.ports import StoreError

CONNECT_S = 3  # one attempt to connect, log-in included
STATEMENT_S = 10.0  # kept by the server
LOCK_S = 5.0  # kept by the server; how long a writer waits for another
ANSWER_S = STATEMENT_S + 2.0  # kept here
LOOK_S = 3.0  # as `ANSWER_S`, for the look at the revision
FIRST_PAUSE_S = 0.25  # after one failed attempt to connect
MAX_PAUSE_S = 3.0  # so that a server that is back is found within five seconds, log-in included

CHANNEL = "coatcheck"
_MIGRATIONS = 0x636F6174  # the advisory lock of whoever makes or changes tables: "coat"

_DEFAULTS: dict[str, str] = {
    "application_name": "coatcheck",
    "client_encoding": "UTF8",
    "connect_timeout": str(CONNECT_S),
    "keepalives_idle": "5",  # seconds; a peer that vanished is noticed within ten
    "keepalives_interval": "2",
    "keepalives_count": "2",
    "tcp_user_timeout": "10000",  # milliseconds
}
# What names a place in a message. Anything else may be a piece of a password that was not encoded.
_SHOWN = re.compile(r"[A-Za-z0-9_.,:/-]*")
_PORT = re.compile(r"[0-9,]*")


class PostgresDatabase:
    """A `coatcheck.store.database.Database` on a server."""

    def __init__(self, url: str) -> None:
        """*url*: as libpq reads it (PostgreSQL 15, section 34.1.1.2).

        Raises:
            StoreError: it cannot be understood.
        """
        self._parameters = _parameters(url)
        self._place = _place(self._parameters)
        self._attempts = _Attempts()
        self._engine = sa.create_engine(
            "postgresql+psycopg://",
            creator=lambda: self._connect(ANSWER_S),
            pool_size=1,
            max_overflow=3,
            pool_timeout=LOCK_S,
            pool_pre_ping=True,  # the server may have been restarted since
            use_native_hstore=False,
            hide_parameters=True,
        )
        self._lock = threading.Lock()  # guards what follows
        self._watch: _Connection | None = None
        self._told = threading.Event()

    @property
    def place(self) -> str:
        return self._place

    def check(self, *, whole: bool) -> None:
        """See `Database`. Its pages are the server's business."""
        with self.reading() as connection:
            encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
        if encoding != "UTF8":
            raise StoreError(
                f"the database {self._place} has the encoding {encoding}, and names of secrets"
                " need UTF8",
                hint="make one: CREATE DATABASE coatcheck ENCODING 'UTF8' TEMPLATE template0",
            )

    def settle(self) -> None:
        """See `Database`."""

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """See `Database`."""
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with self._decoded(), self._engine.connect() as plain:
            connection = plain.execution_options(**options)
            with connection.begin():
                yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """See `Database`."""
        with self.noting() as connection:
            connection.exec_driver_sql("SELECT id FROM meta FOR UPDATE")
            yield connection

    @contextmanager
    def noting(self) -> Iterator[sa.Connection]:
        """See `Database`."""
        with self._decoded(), self._engine.connect() as connection:
            transaction = connection.begin()
            try:
                yield connection
            except BaseException:
                with suppress(DBAPIError):  # the first error is the one to tell
                    transaction.rollback()
                raise
            try:
                transaction.commit()
            except DBAPIError as error:
                if _is_lost(error.orig):
                    raise self._unknown() from None
                raise

    @contextmanager
    def making(self) -> Iterator[sa.Connection]:
        """See `Database`."""
        with self.noting() as connection:
            # Released with the transaction, however that ends.
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATIONS})")
            yield connection

    def announce(self, connection: sa.Connection) -> None:
        """See `Database`. The server sends it when the transaction is committed."""
        connection.exec_driver_sql(f"NOTIFY {CHANNEL}")

    def revision(self) -> tuple[str, int]:
        """See `Database`. One statement on a connection of its own, which also listens."""
        with self._lock, self._decoded():
            lost = self._watch is not None  # a server that was restarted is asked once more
            while True:
                try:
                    watch = self._watch or self._listen()
                    row = watch.execute("SELECT store_id, revision FROM meta").fetchone()
                    break
                except psycopg.Error as error:
                    self._let_go()
                    if not (lost and _is_lost(error)):
                        raise
                    lost = False
        if row is None:
            raise self.foreign()
        return str(row[0]), int(row[1])

    def wait(self, timeout_s: float) -> bool:
        """See `Database`."""
        until = time.monotonic() + timeout_s
        while not self._told.is_set() and (left := until - time.monotonic()) > 0:
            with self._lock:
                watch = self._watch
            if watch is None:  # not reached yet, or lost: `revision` connects
                time.sleep(left)
            else:
                self._hear(watch, left)
        told = self._told.is_set()
        self._told.clear()
        return told

    def foreign(self) -> StoreError:
        """See `Database`."""
        return StoreError(
            f"the database {self._place} holds no coatcheck store",
            hint="move the one of this home there: coatcheck store migrate --to URL",
        )

    def damaged(self, detail: str) -> StoreError:
        """See `Database`."""
        return StoreError(
            f"the store {self._place} is damaged ({detail})",
            hint="stop coatcheck and restore the database from a backup; nothing was changed",
        )

    def close(self) -> None:
        """See `Database`."""
        with self._lock:
            self._let_go()
        self._engine.dispose()

    # --- inside ------------------------------------------------------------------------------

    def _connect(self, answer_s: float) -> _Connection:
        """Raises StoreError."""
        self._attempts.check()
        try:
            made = _Connection.connect(**self._parameters, autocommit=True, prepare_threshold=None)
            made.answer_s = answer_s
            made.execute(
                f"SET statement_timeout = {_ms(min(answer_s, STATEMENT_S))};"
                f"SET lock_timeout = {_ms(LOCK_S)};"
                f"SET idle_in_transaction_session_timeout = {_ms(60)}"
            )
            made.autocommit = False
        except psycopg.Error as error:
            raise self._attempts.failed(self._explain(error)) from None
        self._attempts.worked()
        return made

    def _listen(self) -> _Connection:
        """The connection that is asked for the revision; under the lock."""
        watch = self._watch = self._connect(LOOK_S)
        watch.autocommit = True
        watch.add_notify_handler(lambda _: self._told.set())
        watch.execute(f"LISTEN {CHANNEL}")
        return watch

    def _let_go(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            with suppress(psycopg.Error):
                watch.close()

    def _hear(self, watch: _Connection, timeout_s: float) -> None:
        """Wait for bytes on *watch* and hand out what was told. Losing it is no error here."""
        try:
            poll = select.poll()  # `select.select` takes no descriptor over 1023
            poll.register(watch.fileno(), select.POLLIN)
            if not poll.poll(timeout_s * 1000):
                return
            with self._lock:
                if self._watch is watch:
                    watch.execute("")  # hands out what has come in the meantime
        except (psycopg.Error, OSError, ValueError):
            with self._lock:
                if self._watch is watch:
                    self._let_go()
            self._told.set()  # whoever asks next learns why

    @contextmanager
    def _decoded(self) -> Iterator[None]:
        """Turn what is raised inside into `StoreError`s; a column may hold what we never wrote."""
        try:
            yield
        except DBAPIError as error:
            raise self._explain(error.orig) from None
        except psycopg.Error as error:
            raise self._explain(error) from None
        except PoolTimeoutError:
            raise self._error(*_BUSY) from None
        except (ValueError, TypeError, OverflowError, LookupError) as error:
            raise self.damaged(type(error).__name__) from None

    def _explain(self, error: BaseException | None) -> StoreError:
        state = getattr(error, "sqlstate", None) or _guessed_state(str(error))
        if state in ("42P01", "3F000"):  # no such table, no such schema
            return self.foreign()
        for prefix, problem, hint in _TABLE:
            if state.startswith(prefix):
                return self._error(problem, hint)
        if not state or _is_lost(error):
            return self._error(*_UNREACHABLE)
        return self._error(f"the database {{place}} refused (SQLSTATE {state})", _LOOK)

    def _error(self, problem: str, hint: str) -> StoreError:
        return StoreError(problem.format(place=self._place), hint=hint)

    def _unknown(self) -> StoreError:
        return self._error(
            "the connection to {place} was lost at the end of a change: it was made or it was not",
            "look whether it is there (coatcheck secret list), then try again",
        )


class _Connection(psycopg.Connection[Any]):
    """Waits for an answer for `answer_s` at most, even where the server says nothing any more."""

    answer_s = float(CONNECT_S)

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, self.answer_s if timeout is None else timeout)
        except _WaitTimeout:
            self.pgconn.finish()  # what comes later would be taken for the next answer
            raise psycopg.OperationalError("no answer") from None


class _Attempts:
    """When the next attempt to connect may be made. One for all connections to a server."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._until = 0.0
        self._error: StoreError | None = None

    def check(self) -> None:
        """Raise the last error again, until its pause is over."""
        with self._lock:
            if self._error is not None and self._clock() < self._until:
                raise StoreError(self._error.problem, hint=self._error.hint)

    def failed(self, error: StoreError) -> StoreError:
        """Begin a pause; somewhat at random, so that replicas do not all come back at once."""
        with self._lock:
            pause_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._failures, 10))
            self._failures += 1
            self._error = error
            self._until = self._clock() + pause_s * random.uniform(0.5, 1.0)  # noqa: S311
        return error

    def worked(self) -> None:
        """No pause any more."""
        with self._lock:
            self._failures, self._error = 0, None


def _parameters(url: str) -> dict[str, Any]:
    unreadable = StoreError(
        "the store's URL cannot be understood",
        hint="write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, special characters in it as %XX;"
        " better, keep the password in a file (PGPASSFILE) and leave it out here",
    )
    try:
        given = conninfo_to_dict(url)
    except (psycopg.Error, ValueError):
        raise unreadable from None
    shown = [str(given.get(name, "")) for name in ("host", "hostaddr", "dbname")]
    if not all(map(_SHOWN.fullmatch, shown)) or not _PORT.fullmatch(str(given.get("port", ""))):
        raise unreadable  # not quoted: what stands there may belong to the password
    return {**_DEFAULTS, **given}


def _place(parameters: dict[str, Any]) -> str:
    host = parameters.get("host") or parameters.get("hostaddr") or "localhost"
    port = f":{parameters['port']}" if parameters.get("port") else ""
    return f"postgresql://{host}{port}/{parameters.get('dbname', '')}"


def _is_lost(error: BaseException | None) -> bool:
    """Whether the connection is gone, rather than one statement refused."""
    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    state = error.sqlstate or ""
    return not state or state.startswith(("08", "57P"))


def _guessed_state(text: str) -> str:
    """The SQLSTATE behind a failed log-in: libpq hands out the server's words alone."""
    for words, state in _WORDS.items():
        if words in text:
            return state
    return ""


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


_WORDS = {  # English, as most servers speak; of another one's it is said that it cannot be reached
    "the database system": "",  # is starting up, or shutting down
    "authentication failed": "28P01",
    "no password supplied": "28P01",
    "no pg_hba.conf entry": "28000",
    "role": "28000",  # role "x" does not exist, is not permitted to log in
    "too many": "53300",  # clients already; connections for a role
    "remaining connection slots": "53300",
    "database": "3D000",  # database "x" does not exist
}
_LOOK = "look into the server's log, then try again"
_UNREACHABLE = (
    "the database {place} cannot be reached",
    "look whether it runs, whether this machine may connect to it, and at user and password;"
    " then try again",
)
_BUSY = (
    "the database {place} is busy: another change or a lock took too long",
    "wait for the other command to end and try again",
)
_TABLE = (
    (
        "28",  # invalid authorization
        "the database {place} does not let us in",
        "correct user and password: in the store's URL, or in the file that PGPASSFILE names",
    ),
    ("3D000", "there is no database {place}", "make it: CREATE DATABASE coatcheck ENCODING 'UTF8'"),
    (
        "42501",  # insufficient privilege
        "the user of the store's URL may not do that in {place}",
        "let that user own the database, or its tables",
    ),
    ("57014", *_BUSY),  # the statement took too long
    ("55P03", *_BUSY),  # the lock did
    ("40", *_BUSY),  # deadlock, serialization
    (
        "25006",  # read-only transaction
        "the database {place} takes no changes: it is a standby or set read-only",
        "name the primary in the store's URL, for example with target_session_attrs=read-write",
    ),
    ("53100", "the disk of {place} is full; nothing was changed", "make room and try again"),
    (
        "53300",
        "the database {place} has no connection left",
        "raise its max_connections; a worker uses two, and a command one or two",
    ),
    (
        "54000",  # program limit exceeded: a name too long for an index
        "the name is too long for PostgreSQL's index; nothing was changed",
        "choose a shorter one",
    ),
    ("22", "the store {place} is damaged (a column)", "restore the database from a backup"),
)
