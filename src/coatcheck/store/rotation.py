"""A new sealing key: every record is opened with the old one and sealed for the new one.

It is done in steps, each of which is whole or not there, and a rotation that was cut off, even by
kill -9, goes on at the first that is missing:

    1  sealing.key holds both keys              workers find the new one when they need it
    2  the store takes records for both         in one transaction
    3  sealing.pub is the new one               commands seal for it from now on
    4  every record is sealed anew              in batches; a worker does not notice
    5  the store takes the new key alone        only if no record of the old one is left
    6  sealing.key holds the new key alone

At every moment all that is in the store opens with what is in ``sealing.key``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from coatcheck.core.ports import StoreError
from coatcheck.store import database, files, keyfile, sealing
from coatcheck.store.database import Database
from coatcheck.store.home import Home
from coatcheck.store.keyfile import KeyFile
from coatcheck.store.model import stored_pattern
from coatcheck.store.schema import meta, secrets, versions
from coatcheck.store.sql import check_contents

BATCH = 50  # records in one transaction


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a rotation did.

    Attributes:
        old, new: Ids of the keys.
        records: How many were sealed anew in this run.
        done: False after `prepare` alone.
    """

    old: str
    new: str
    records: int
    done: bool


def rotate(
    home: Home,
    where: str | Path,
    *,
    prepare: bool = False,
    progress: Callable[[int], None] = lambda records: None,
) -> Rotated:
    """Rotate the sealing key of *home* and of its store, or go on with a rotation.

    Args:
        where: The store.
        prepare: Stop after the first step, so that ``sealing.key`` can be copied to where other
            workers run before any record needs the new key.
        progress: Called after each batch with the number of records so far.

    Raises:
        HomeError: the keys cannot be read or written, or another process rotates.
        StoreError: the store cannot be used, holds records that do not open, or is rotated from
            another home. What was done so far stays, and can be gone on with.
    """
    with home.changing_keys():
        file = keyfile.read(home.private_key)
        with closing(database.connect(where)) as found:
            found.check(whole=False)
            store_id = check_contents(found, home.read_public_key())
            return _Rotation(home, found, store_id, file, progress).run(prepare=prepare)


class _Rotation:
    def __init__(
        self,
        home: Home,
        found: Database,
        store_id: str,
        file: KeyFile,
        progress: Callable[[int], None],
    ) -> None:
        self._home = home
        self._store = found
        self._store_id = store_id
        self._file = file
        self._progress = progress

    def run(self, *, prepare: bool) -> Rotated:
        with self._store.reading() as connection:
            current, former = connection.execute(_KEYS).one()
        keys = self._file.keys
        if len(keys) == 2 and (current, former) == (keys[1].id, None):
            self._finish(keys[1])  # it was cut off before its last step
            return Rotated(keys[0].id, keys[1].id, 0, done=True)
        old = keys[0]
        if len(keys) == 1 and (current, former) == (old.id, None):
            new = sealing.generate_key()
            keyfile.write(self._file, (old, new), self._file.passphrase)
        elif len(keys) == 2 and (current, former) in ((old.id, None), (keys[1].id, old.id)):
            new = keys[1]
        else:
            raise StoreError(
                f"the store is rotated to key {current}, which this home does not have",
                hint="go on where that rotation was begun, or copy sealing.key from there",
            )
        if prepare and former is None:
            return Rotated(old.id, new.id, 0, done=False)
        self._take_both(old, new)
        files.replace_file(self._home.public_key, new.public.to_bytes())
        records = self._seal_anew(old, new)
        self._take_new(old, new)
        self._finish(new)
        return Rotated(old.id, new.id, records, done=True)

    def _take_both(self, old: sealing.PrivateKey, new: sealing.PrivateKey) -> None:
        with self._store.writing() as connection:
            current, former = connection.execute(_KEYS).one()
            if (current, former) == (new.id, old.id):
                return
            if (current, former) != (old.id, None):
                raise StoreError(
                    "another home has begun to rotate this store", hint="copy sealing.key from it"
                )
            self._change(connection, key_id=new.id, former_key_id=old.id)

    def _seal_anew(self, old: sealing.PrivateKey, new: sealing.PrivateKey) -> int:
        count = 0
        after = ("", 0)
        broken: list[str] = []
        while rows := self._some(old, after):
            after = (rows[-1].secret_id, rows[-1].version)
            fresh = [(row, self._resealed(row, old, new, broken)) for row in rows]
            with self._store.writing() as connection:
                for row, record in fresh:
                    if record is not None:
                        # Not one that was dropped or changed in the meantime.
                        update = versions.update().where(
                            versions.c.secret_id == row.secret_id,
                            versions.c.version == row.version,
                            versions.c.record == row.record,
                        )
                        values = {"record": record, "key_id": new.id}
                        count += connection.execute(update.values(values)).rowcount
            self._progress(count)
        if broken:
            raise StoreError(
                f"records of {len(broken)} versions do not open, for example of {broken[0]!r};"
                " the others are sealed for the new key, and the old one is kept",
                hint="set these secrets again, with --domain, or delete them; then run:"
                " coatcheck keys rotate",
            )
        return count

    def _some(self, old: sealing.PrivateKey, after: tuple[str, int]) -> list[sa.Row[Any]]:
        query = (
            sa.select(
                versions.c.secret_id,
                versions.c.version,
                versions.c.record,
                versions.c.domains,
                secrets.c.name,
            )
            .join(secrets)
            .where(versions.c.key_id == old.id, versions.c.record.is_not(None))
            .where(sa.tuple_(versions.c.secret_id, versions.c.version) > after)
            .order_by(versions.c.secret_id, versions.c.version)
            .limit(BATCH)
        )
        with self._store.reading() as connection:
            return list(connection.execute(query))

    def _resealed(
        self,
        row: sa.Row[Any],
        old: sealing.PrivateKey,
        new: sealing.PrivateKey,
        broken: list[str],
    ) -> bytes | None:
        domains = [stored_pattern(text) for text in row.domains]
        info = sealing.binding(self._store_id, row.secret_id, row.version, domains)
        try:
            value = sealing.unseal(old, info, bytes(row.record))
        except StoreError:
            broken.append(row.name)
            return None
        return sealing.seal(new.public, info, value)

    def _take_new(self, old: sealing.PrivateKey, new: sealing.PrivateKey) -> None:
        """Commands that still had the old sealing.pub may have written in the meantime."""
        left = sa.select(sa.func.count()).where(
            versions.c.key_id == old.id, versions.c.record.is_not(None)
        )
        while True:
            with self._store.writing() as connection:
                if not connection.execute(left).scalar_one():
                    self._change(connection, key_id=new.id, former_key_id=None)
                    return
            self._seal_anew(old, new)

    def _change(self, connection: sa.Connection, **values: str | None) -> None:
        connection.execute(meta.update().values(revision=meta.c.revision + 1, **values))
        self._store.announce(connection)

    def _finish(self, new: sealing.PrivateKey) -> None:
        keyfile.write(self._file, (new,), self._file.passphrase)


_KEYS = sa.select(meta.c.key_id, meta.c.former_key_id)
