"""SQLite as a store: how it is opened, what is checked first, and what its errors mean.

WAL with ``synchronous=FULL``: what was acknowledged is on the disk, and a reader never waits for
a writer. The file is opened with ``mode=rw``: a missing store is an error, never a new empty one,
in which every placeholder would be unknown. SQLite gives ``-wal`` and ``-shm`` the mode and owner
of the main file, whatever the umask.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from coatcheck.core.ports import StoreError
from coatcheck.store import files

BUSY_TIMEOUT_S = 10.0  # how long a writer waits for another
WRITES = {"coatcheck_writes": True}  # execution option of a connection that will write

_PRAGMAS = (
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",  # a dropped record is overwritten, not only unlinked
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
)


class SqliteDatabase:
    """A `coatcheck.store.database.Database` in a file that exists already."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._engine = engine(path)
        self._identity = _identity(path)
        self._lock = threading.Lock()  # guards what follows
        self._watch: sqlite3.Connection | None = None
        self._seen: tuple[int, str, int] | None = None  # data_version, store id, revision

    @property
    def place(self) -> str:
        return str(self._path)

    def check(self, *, whole: bool) -> None:
        """See `Database`."""
        check(self._path)
        if whole:
            with decoded(self._path), self._engine.connect() as connection:
                verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
            if verdict != "ok":
                raise self.damaged("it fails SQLite's own check")

    def settle(self) -> None:
        """See `Database`."""
        with decoded(self._path), closing(connect(self._path)) as connection:
            use_wal(connection)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """See `Database`."""
        self._check_identity()
        with decoded(self._path), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """See `Database`."""
        self._check_identity()
        with decoded(self._path), begun(self._engine) as connection:
            yield connection

    noting = writing  # there is one lock, for every writer
    making = writing

    def announce(self, connection: sa.Connection) -> None:
        """See `Database`. Others see the file change."""

    def revision(self) -> tuple[str, int]:
        """See `Database`. Some microseconds while nothing changes."""
        with self._lock, decoded(self._path):
            self._check_identity()
            if self._watch is None:
                self._watch = connect(self._path)
            # Differs as soon as another connection has committed, and costs no read of a table.
            version = self._watch.execute("PRAGMA data_version").fetchone()[0]
            if self._seen is None or self._seen[0] != version:
                row = self._watch.execute("SELECT store_id, revision FROM meta").fetchone()
                self._seen = (version, str(row[0]), int(row[1]))
            return self._seen[1:]

    def wait(self, timeout_s: float) -> bool:
        """See `Database`."""
        time.sleep(timeout_s)
        return False

    def foreign(self) -> StoreError:
        """See `Database`."""
        return foreign(self._path)

    def damaged(self, detail: str) -> StoreError:
        """See `Database`."""
        return damaged(self._path, detail)

    def close(self) -> None:
        """See `Database`."""
        with self._lock:
            if self._watch is not None:
                self._watch.close()
        self._engine.dispose()

    def _check_identity(self) -> None:
        # SQLite goes on reading a file that was deleted or replaced, as if nothing had changed.
        if _identity(self._path) != self._identity:
            raise StoreError(
                f"the store {self._path} was removed or replaced while in use",
                hint="restore store.db if it is gone, then restart coatcheck",
            )


def path_of(where: str | Path) -> Path:
    """The file behind a path or a ``sqlite:///`` URL.

    Raises:
        StoreError: another URL.
    """
    text = str(where)
    if text.startswith("sqlite:///"):
        return Path(text.removeprefix("sqlite:///"))
    if "://" in text:
        raise StoreError(
            "the store's URL names no SQLite file", hint="give 'store' the path of the file alone"
        )
    return Path(where)


def check(path: Path) -> None:
    """Look at the file and those beside it before SQLite does.

    Raises:
        StoreError: missing, a folder, a link, not ours, open to others; with the next step.
    """
    try:
        if not path.is_symlink() and not path.exists():
            raise StoreError(
                f"there is no store {path}",
                hint="restore it from a backup; for a new home run: coatcheck init",
            )
        files.check_file(path)
        for beside in (path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal")):
            if beside.is_symlink() or beside.exists():
                _check_beside(beside)
    except files.HomeError as error:
        raise StoreError(error.problem, hint=error.hint) from None
    except OSError as error:
        hint = f"make it readable: chmod 700 {files.quoted(path.parent)}"
        raise StoreError(f"cannot read {path}: {error.strerror}", hint=hint) from error


def connect(path: Path) -> sqlite3.Connection:
    """A connection with our settings, to a file that exists; transactions are begun by hand.

    Raises:
        sqlite3.Error, UnicodeDecodeError: see `decoded`.
    """
    uri = f"file:{quote(os.fsencode(path))}?mode=rw"
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        for pragma in _PRAGMAS:
            connection.execute(pragma)
    except BaseException:
        # Not `sqlite3.Error` alone: its text may quote a damaged name that is no UTF-8.
        connection.close()
        raise
    return connection


def use_wal(connection: sqlite3.Connection) -> None:
    """Turn the write-ahead log on. It stays on; not done by `connect`, since it writes to a file
    that may turn out to be somebody else's."""
    connection.execute("PRAGMA journal_mode = WAL")


def engine(path: Path) -> sa.Engine:
    """An engine on `connect`. A transaction that will write takes the write lock as it begins.

    A lock that is taken at the first write instead fails at once when somebody else has written
    since the first read, without waiting.
    """
    made = sa.create_engine(
        "sqlite://",
        creator=lambda: connect(path),
        poolclass=sa.pool.QueuePool,
        pool_size=2,
        hide_parameters=True,  # or an error's text would repeat them
    )

    @sa.event.listens_for(made, "begin")
    def begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("coatcheck_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return made


@contextmanager
def begun(made: sa.Engine) -> Iterator[sa.Connection]:
    """A connection in a transaction that holds the write lock; committed at the end."""
    with made.connect().execution_options(**WRITES) as connection, connection.begin():
        yield connection


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite and SQLAlchemy raise inside into `StoreError`s."""
    try:
        yield
    except DBAPIError as error:
        # Not chained: the text of the original repeats the statement.
        raise _explain(error.orig, path) from None
    except sqlite3.Error as error:
        raise _explain(error, path) from None


@contextmanager
def decoded(path: Path) -> Iterator[None]:
    """As `explained`, for code that reads rows: a column may hold what we never wrote."""
    try:
        with explained(path):
            yield
    except (ValueError, TypeError, OverflowError, LookupError) as error:
        raise damaged(path, type(error).__name__) from None


def damaged(path: Path, detail: str) -> StoreError:
    return StoreError(
        f"the store {path} is damaged ({detail})",
        hint="stop coatcheck and restore store.db from a backup; nothing was changed",
    )


def foreign(path: Path) -> StoreError:
    return StoreError(
        f"{path} is no coatcheck store",
        hint="restore store.db from a backup; for a new home run: coatcheck init",
    )


def _explain(error: BaseException | None, path: Path) -> StoreError:
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_NOTADB" or (name == "SQLITE_ERROR" and "no such" in str(error)):
        return foreign(path)
    for prefix, problem, hint in _TABLE:
        if name.startswith(prefix):
            return StoreError(problem.format(path=path), hint=hint.format(path=path))
    return damaged(path, name or type(error).__name__)


_TABLE = (
    (
        "SQLITE_BUSY",
        "the store {path} is locked by another process",
        "wait for the other command to end and try again",
    ),
    ("SQLITE_FULL", "the disk of {path} is full; nothing was changed", "make room and try again"),
    (
        "SQLITE_READONLY",
        "the store {path} cannot be written",
        "look at the mode of its folder, and whether the file system is mounted read-only",
    ),
    (
        "SQLITE_CANTOPEN",
        "the store {path} cannot be opened",
        "look at its mode and that of its folder, and that store.db-wal belongs to the same user",
    ),
    (
        "SQLITE_IOERR",
        "reading or writing {path} failed; the change was not made",
        "look at the disk, then try again",
    ),
)


def _identity(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None


def _check_beside(path: Path) -> None:
    try:
        files.check_file(path)
    except files.HomeError:
        # SQLite removes these when the last user closes: then there is nothing to check.
        if path.is_symlink() or path.exists():
            raise
