"""What `sql.SqlStore` asks of a database, and which one a setting names.

The tables and statements are the same everywhere. Here is what is not: how a database is reached,
how writers wait for each other, how it says that something has changed, and what its errors mean.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa

from coatcheck.core.ports import StoreError


class Database(Protocol):
    """One database. May be used by several threads; must not cross a fork.

    Every method raises `StoreError`, whose text holds no statement, no value and no password.
    """

    @property
    def place(self) -> str:
        """How messages call it."""

    def check(self, *, whole: bool) -> None:
        """Look whether it can be used, before anything else; where asked, at every page of it."""

    def settle(self) -> None:
        """Called once it has turned out to be a store of ours."""

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """A transaction in which everything is of one moment."""

    def writing(self) -> AbstractContextManager[sa.Connection]:
        """A transaction that no other writer is in; committed at the end."""

    def noting(self) -> AbstractContextManager[sa.Connection]:
        """A transaction for what no decision depends on: it need not wait for other writers."""

    def making(self) -> AbstractContextManager[sa.Connection]:
        """A transaction that makes or changes tables; only one program at a time is in one."""

    def announce(self, connection: sa.Connection) -> None:
        """Tell the others, once this transaction is committed, that something has changed."""

    def revision(self) -> tuple[str, int]:
        """Store id and revision; cheap, and answered or refused within seconds."""

    def wait(self, timeout_s: float) -> bool:
        """Return when something may have changed, at the latest after *timeout_s*.

        Returns:
            Whether a change was told. A database that tells nothing just takes its time, and no
            error is raised: whether the database can be read is told by `revision`.
        """

    def foreign(self) -> StoreError:
        """The error for a database that holds no store."""

    def damaged(self, detail: str) -> StoreError:
        """The error for a store whose contents cannot be right."""

    def close(self) -> None:
        """Let go of it."""


def connect(where: str | Path) -> Database:
    """The database behind a path, a ``sqlite:///`` URL or a ``postgresql://`` URL.

    Raises:
        StoreError: a URL that cannot be understood, or of another kind of database.
    """
    from coatcheck.store import sqlite

    text = str(where)
    scheme, mark, _ = text.partition("://")
    if not mark or scheme == "sqlite":
        return sqlite.SqliteDatabase(sqlite.path_of(where))
    if scheme in ("postgresql", "postgres"):
        from coatcheck.store import postgres  # its driver, for those who use it

        return postgres.PostgresDatabase(text)
    raise StoreError(
        f"secrets are kept in SQLite or PostgreSQL, not in {scheme}",
        hint="give 'store' the path of a file, or postgresql://USER@HOST/DATABASE",
    )
