"""Moving a store to another database, row by row as they are: no value is opened.

Secrets go over in batches, each in a transaction of its own, and what is there already and the same
is left alone: a move that was cut off goes on where it was. Until it is whole the new store has
revision 0, and nobody opens it. At the end writers of the old one wait while all is compared once
more, so the new one gets what they wrote in the meantime too. The old one is only read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from coatcheck.core.ports import StoreError
from coatcheck.store import database, files, migrations, sealing
from coatcheck.store.database import Database
from coatcheck.store.schema import UNFINISHED, meta, secrets, tokens, versions
from coatcheck.store.sql import check_contents

BATCH = 50  # secrets in one transaction

type _Row = Mapping[str, Any]
type _Rows = tuple[list[_Row], list[_Row]]  # of secrets, of versions


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move did, or, in a dry run, would do.

    Attributes:
        secrets, versions, tokens: Rows of the old store.
        copied: Secrets that were not there yet, or differed.
        place: How messages call the new store.
        whole: Whether the new store holds everything and may be used.
    """

    secrets: int
    versions: int
    tokens: int
    copied: int
    place: str
    whole: bool


def move(
    source: str | Path,
    target: str | Path,
    *,
    public: sealing.PublicKey,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Moved:
    """Copy the store *source* into *target*, an empty database or one that a move has begun.

    Args:
        progress: Called after each batch: secrets looked at, of how many.

    Raises:
        HomeError, StoreError: one of them cannot be used, *target* is in use, or the copy is not
            the same. The old store is as it was, and the new one is not opened by anybody.
    """
    with closing(database.connect(source)) as old:
        old.check(whole=False)
        store_id = check_contents(old, public)
        new = _open_target(target, store_id, dry_run=dry_run)
        if new is None:
            return _counted(old, copied=_count(old, secrets), place=_shown(target), whole=False)
        with closing(new):
            return _move(old, new, store_id, dry_run, progress)


def _move(
    old: Database,
    new: Database,
    store_id: str,
    dry_run: bool,
    progress: Callable[[int, int], None],
) -> Moved:
    revision = _revision(new, store_id)
    if dry_run or revision not in (None, UNFINISHED):
        missing = _missing(old, new, vacant=revision is None)
        in_use = revision not in (None, UNFINISHED)
        if in_use and missing:
            raise StoreError(
                f"{new.place} holds this store already, and other values than the old one",
                hint="it is in use, so nothing was changed; to move all the same, empty it first",
            )
        return _counted(old, copied=missing, place=new.place, whole=in_use)
    if revision is None:
        _begin(old, new)
    copied = 0
    with old.reading() as connection:
        ids = _ids(connection)
    for some in _batches(ids):
        with old.reading() as reading, new.writing() as writing:
            copied += _copy(reading, writing, some)
        progress(min(len(ids), BATCH + ids.index(some[0])), len(ids))
    with old.writing() as reading, new.writing() as writing:
        copied += _finish(reading, writing, new)
    return _counted(old, copied=copied, place=new.place, whole=True)


def _finish(reading: sa.Connection, writing: sa.Connection, new: Database) -> int:
    """Under both write locks: bring over the rest, compare, and open the new store for use."""
    ids = _ids(reading)
    gone = set(_ids(writing)).difference(ids)
    for some in _batches(sorted(gone)):
        writing.execute(secrets.delete().where(secrets.c.id.in_(some)))
    copied = sum(_copy(reading, writing, some) for some in _batches(ids))
    writing.execute(tokens.delete())
    if rows := _all(reading, sa.select(tokens)):
        writing.execute(tokens.insert(), rows)
    for table in (secrets, versions, tokens):
        count = sa.select(sa.func.count()).select_from(table)
        if reading.execute(count).scalar_one() != writing.execute(count).scalar_one():
            raise new.damaged(f"another number of {table.name} than in the old store")
    row = dict(reading.execute(sa.select(meta)).mappings().one())
    # Higher than any that a worker has seen, so each one loads it.
    writing.execute(meta.update().values(row | {"revision": row["revision"] + 1}))
    new.announce(writing)
    return copied


def _copy(reading: sa.Connection, writing: sa.Connection, ids: Sequence[str]) -> int:
    """Make the rows of these secrets the same; how many of them were not."""
    wanted = _rows(reading, ids)
    there = _rows(writing, ids)
    differ = _differing(wanted, there)
    if not differ:
        return 0
    writing.execute(secrets.delete().where(secrets.c.id.in_(differ)))
    chosen = tuple([row for row in rows if _owner(row) in differ] for rows in wanted)
    writing.execute(secrets.insert(), chosen[0])
    if chosen[1]:
        writing.execute(versions.insert(), chosen[1])
    if _differing(wanted, _rows(writing, ids)):
        raise StoreError(
            "a row reads otherwise than it was written; the new store is not used",
            hint="use another database, with the encoding UTF8",
        )
    return len(differ)


def _missing(old: Database, new: Database, *, vacant: bool) -> int:
    """How many secrets of the old store the new one lacks, has otherwise, or has beside them."""
    with old.reading() as reading:
        ids = _ids(reading)
        if vacant:
            return len(ids)
        with new.reading() as other:
            extra = len(set(_ids(other)).difference(ids))
            return extra + sum(
                len(_differing(_rows(reading, some), _rows(other, some))) for some in _batches(ids)
            )


def _differing(wanted: _Rows, there: _Rows) -> list[str]:
    """Ids of secrets whose rows are not the same. When they were last used does not count."""

    def grouped(rows: _Rows) -> dict[str, list[_Row]]:
        found: dict[str, list[_Row]] = {}
        for row in (*rows[0], *rows[1]):
            found.setdefault(_owner(row), []).append({**row, "last_used_at": None})
        return found

    mine, others = grouped(wanted), grouped(there)
    return [owner for owner, rows in mine.items() if others.get(owner) != rows]


def _rows(connection: sa.Connection, ids: Sequence[str]) -> _Rows:
    return (
        _all(connection, sa.select(secrets).where(secrets.c.id.in_(ids)).order_by(secrets.c.id)),
        _all(
            connection,
            sa.select(versions)
            .where(versions.c.secret_id.in_(ids))
            .order_by(versions.c.secret_id, versions.c.version),
        ),
    )


def _all(connection: sa.Connection, query: sa.Select[Any]) -> list[_Row]:
    return [dict(row) for row in connection.execute(query).mappings()]


def _owner(row: _Row) -> str:
    return str(row.get("secret_id", row.get("id")))


def _ids(connection: sa.Connection) -> list[str]:
    return list(connection.execute(sa.select(secrets.c.id).order_by(secrets.c.id)).scalars())


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]


# --- the new store ----------------------------------------------------------------------------


def _open_target(target: str | Path, store_id: str, *, dry_run: bool) -> Database | None:
    """The database; None where its file has yet to be made, in a dry run."""
    if "://" not in str(target) and not Path(target).exists():
        if dry_run:
            return None
        files.create_file(Path(target), b"")
    new = database.connect(target)
    try:
        new.check(whole=False)
        _revision(new, store_id)
    except BaseException:
        new.close()
        raise
    return new


def _revision(new: Database, store_id: str) -> int | None:
    """The revision of a store with this id; None in an empty database.

    Raises:
        StoreError: it holds something else.
    """
    with new.reading() as connection:
        found = set(sa.inspect(connection).get_table_names())
        if not found.intersection(table.name for table in meta.metadata.sorted_tables):
            return None
        if meta.name not in found or "alembic_version" not in found:
            raise _taken(new)
        row = connection.execute(sa.select(meta.c.store_id, meta.c.revision)).one_or_none()
    if row is None or row[0] != store_id:
        raise _taken(new)
    return int(row[1])


def _taken(new: Database) -> StoreError:
    return StoreError(
        f"{new.place} holds something else already; nothing was changed",
        hint="name an empty database: CREATE DATABASE coatcheck ENCODING 'UTF8'",
    )


def _begin(old: Database, new: Database) -> None:
    new.settle()
    with old.reading() as connection:
        row = dict(connection.execute(sa.select(meta)).mappings().one())
    with new.making() as connection:
        migrations.upgrade(connection)
        if connection.execute(sa.select(meta.c.id)).one_or_none() is None:  # two moves at once
            connection.execute(meta.insert().values(row | {"revision": UNFINISHED}))


def _counted(old: Database, *, copied: int, place: str, whole: bool) -> Moved:
    of_secrets, of_versions, of_tokens = (_count(old, t) for t in (secrets, versions, tokens))
    return Moved(of_secrets, of_versions, of_tokens, copied, place, whole)


def _count(old: Database, table: sa.Table) -> int:
    with old.reading() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def _shown(target: str | Path) -> str:
    return str(target).removeprefix("sqlite:///")
