"""A copy of the whole store in one file, sealed as a whole to the store's own public key.

Taking one needs the public key alone; names, domains and history are as closed in it as the values,
which stay sealed inside. Putting it back needs the private key. It is of one moment, and it is put
back in one transaction: whoever reads sees the old store or this one.

What is put back gets a revision above all that were there, so that every worker loads it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from coatcheck.core.ports import StoreError
from coatcheck.store import database, files, migrations, sealing
from coatcheck.store.database import Database
from coatcheck.store.schema import HEAD, meta, secrets, tokens, versions
from coatcheck.store.sql import check_contents

_MAGIC = b"coatcheck backup 1\n"
_LIMIT = 1 << 32  # bytes of a backup
_TABLES = (secrets, versions, tokens)  # in the order in which rows refer to each other


@dataclass(frozen=True, slots=True, repr=False)
class Backup:
    """A backup that was opened and checked.

    Attributes:
        meta: The store's own row.
        rows: Table to rows.
        taken_at: Seconds since the epoch.
    """

    meta: Mapping[str, Any]
    rows: Mapping[str, list[dict[str, Any]]]
    taken_at: float

    @property
    def revision(self) -> int:
        return int(self.meta["revision"])

    @property
    def store_id(self) -> str:
        return str(self.meta["store_id"])

    @property
    def secrets(self) -> int:
        return len(self.rows[secrets.name])


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back, and what it took the place of.

    Attributes:
        before: The revision that was there; None where there was no store.
        revision: The one that it has now.
    """

    secrets: int
    taken_revision: int
    before: int | None
    revision: int


def take(where: str | Path, target: Path, *, public: sealing.PublicKey, now: float) -> Backup:
    """Write a backup of the store *where* to the new file *target*, mode 0600.

    Raises:
        HomeError: *target* exists or cannot be written.
        StoreError: the store cannot be used.
    """
    with closing(database.connect(where)) as found:
        found.check(whole=False)
        check_contents(found, public)
        with found.reading() as connection:
            own = dict(connection.execute(sa.select(meta)).mappings().one())
            rows = {
                table.name: [dict(row) for row in connection.execute(sa.select(table)).mappings()]
                for table in _TABLES
            }
    body = {"schema": HEAD, "taken_at": now, "meta": own, "rows": rows}
    text = json.dumps(body, default=_bytes_as_text).encode()
    files.create_file(target, _MAGIC + sealing.seal(public, _MAGIC, text))
    return Backup(own, rows, now)


def read(path: Path, keys: sealing.KeyRing) -> Backup:
    """Open the backup *path*.

    Raises:
        HomeError: the file is missing, or open to others.
        StoreError: no backup, a changed one, or one for another key.
    """
    content = files.read_file(path, limit=_LIMIT)
    if not content.startswith(_MAGIC):
        raise StoreError(f"{path} is no backup of coatcheck", hint="name another file")
    sealed = content[len(_MAGIC) :]
    key_id = sealing.key_id_of(sealed)
    if key_id not in keys:
        raise StoreError(
            f"{path} is sealed for key {key_id}, sealing.key is {keys.id}",
            hint="put back the sealing.key and sealing.pub of the time when it was made",
        )
    damaged = StoreError(f"{path} is damaged", hint="use another backup; nothing was changed")
    try:
        body = json.loads(sealing.unseal(keys.for_record(sealed), _MAGIC, sealed))
    except (StoreError, ValueError):
        raise damaged from None
    if body["schema"] != HEAD:
        raise StoreError(
            f"{path} has schema {body['schema']!r}, this program writes {HEAD!r}",
            hint="restore it with the version that made it, then upgrade",
        )
    try:
        for row in body["rows"][versions.name]:
            if row["record"] is not None:
                row["record"] = base64.b64decode(row["record"], validate=True)
    except (KeyError, TypeError, binascii.Error):
        raise damaged from None
    return Backup(body["meta"], body["rows"], float(body["taken_at"]))


def restore(
    where: str | Path,
    backup: Backup,
    *,
    public: sealing.PublicKey,
    seen: int = 0,
    force: bool = False,
) -> Restored:
    """Put *backup* in place of all that is in the store *where*, or make that store.

    Args:
        seen: The newest revision that was ever seen of it.
        force: Also where changes after the backup get lost, or another store is there.

    Raises:
        HomeError, StoreError: the store cannot be used, or that needs *force*.
    """
    if public.id not in (backup.meta["key_id"], backup.meta["former_key_id"]):
        raise StoreError(
            f"the backup is of key {backup.meta['key_id']}, sealing.pub is {public.id}",
            hint="put back the sealing.key and sealing.pub of the time when it was made",
        )
    if "://" not in str(where) and not Path(where).exists():
        files.create_file(Path(where), b"")
    with closing(database.connect(where)) as found:
        found.check(whole=False)
        _make_tables(found)
        with found.writing() as connection:
            there = connection.execute(sa.select(meta)).mappings().one_or_none()
            before = None if there is None else int(there["revision"])
            if there is not None and not force:
                _check_loses_nothing(found, dict(there), backup)
            revision = max(backup.revision, before or 0, seen) + 1
            for table in reversed(_TABLES):
                connection.execute(table.delete())
            connection.execute(meta.delete())
            connection.execute(meta.insert().values({**backup.meta, "revision": revision}))
            for table in _TABLES:
                if rows := backup.rows[table.name]:
                    connection.execute(table.insert(), rows)
            found.announce(connection)
    return Restored(backup.secrets, backup.revision, before, revision)


def _make_tables(found: Database) -> None:
    """In an empty database; those of an older program are brought up."""
    with found.reading() as connection:
        names = set(sa.inspect(connection).get_table_names())
    ours = {table.name for table in meta.metadata.sorted_tables}
    if names & ours and "alembic_version" not in names:
        raise StoreError(
            f"{found.place} holds tables of something else; nothing was changed",
            hint="name an empty database",
        )
    found.settle()
    with found.making() as connection:
        migrations.upgrade(connection)


def _check_loses_nothing(found: Database, there: Mapping[str, Any], backup: Backup) -> None:
    if there["store_id"] != backup.store_id:
        raise StoreError(
            f"{found.place} holds another store than the one that was backed up; nothing was"
            " changed",
            hint="to put the backup in its place all the same: --force",
        )
    if there["revision"] > backup.revision:
        raise StoreError(
            f"{found.place} has changed since: revision {there['revision']}, the backup has"
            f" {backup.revision}; nothing was changed",
            hint="to lose what came after the backup: --force",
        )


def _bytes_as_text(value: object) -> str:
    if isinstance(value, (bytes, memoryview)):
        return base64.b64encode(value).decode()
    raise TypeError("a column of another kind")
