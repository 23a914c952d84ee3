"""Secrets in a database: sealed values, what may be known of them, and their history.

A store that was opened with the public key alone can do all but open a value. A worker has the
private key too, and reads through a `SqlView`: everything of one revision, sealed bytes included,
taken in one read transaction, so that a request sees one version of everything; a value is opened
when it is first needed and kept.

Tables and statements are the same for SQLite and PostgreSQL; what is not stands behind
`database.Database`, in `sqlite.py` and `postgres.py`.
"""

from __future__ import annotations

import secrets as random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from coatcheck.core.destination import DomainPattern
from coatcheck.core.ports import StoreError, Used
from coatcheck.core.secret import Secret
from coatcheck.store import database, files, migrations, sealing
from coatcheck.store.database import Database
from coatcheck.store.model import (
    DEFAULT_GRACE_S,
    Check,
    NameTaken,
    Token,
    UnknownSecret,
    VersionInfo,
    checked_description,
    checked_domains,
    checked_name,
    checked_value,
    name_key,
    stored_pattern,
)
from coatcheck.store.schema import HEAD, OLDER, UNFINISHED, meta, secrets, tokens, versions
from coatcheck.store.view import Opener, Sealed, SqlView

type Clock = Callable[[], float]


class SqlStore:
    """A `coatcheck.store.model.Store` in a database. Made by `create_tables`, then `open`.

    One object may be used by several threads. It must not cross a fork.
    """

    def __init__(
        self,
        database: Database,
        store_id: str,
        public: sealing.PublicKey,
        private: sealing.KeyRing | None,
        grace_s: float,
        clock: Clock,
    ) -> None:
        self._database = database
        self._store_id = store_id
        self._public = public
        self._opener = None if private is None else Opener(store_id, private)
        self._grace_s = grace_s
        self._clock = clock
        self._lock = threading.Lock()  # guards what follows
        self._view: SqlView | None = None

    @staticmethod
    def create(path: Path, *, public: sealing.PublicKey, now: float) -> None:
        """Make a new, empty store in a file, mode 0600.

        Raises:
            HomeError: the file exists or cannot be made.
            StoreError: the database cannot be written.
        """
        files.create_file(path, b"")
        SqlStore.create_tables(path, public=public, now=now)

    @staticmethod
    def create_tables(
        where: str | Path, *, public: sealing.PublicKey, now: float, owner: str | None = None
    ) -> None:
        """Make the tables in an empty file or database; *owner* is the hash of the first token.

        Raises:
            StoreError: the database cannot be written, or is no empty one.
        """
        row = {
            "id": 1,
            "store_id": random.token_hex(16),
            "key_id": public.id,
            "revision": 1,
            "created_at": now,
        }
        with closing(database.connect(where)) as made:
            made.settle()
            with made.making() as connection:
                migrations.upgrade(connection)
                if connection.execute(sa.select(meta.c.id)).one_or_none() is not None:
                    raise StoreError(
                        f"{made.place} holds a store already; nothing was changed",
                        hint="use it as it is, or name another one",
                    )
                connection.execute(meta.insert().values(row))
                if owner is not None:
                    connection.execute(_token(owner, "owner", now))

    @classmethod
    def open(
        cls,
        where: str | Path,
        *,
        public: sealing.PublicKey,
        private: sealing.KeyRing | sealing.PrivateKey | None = None,
        grace_s: float = DEFAULT_GRACE_S,
        clock: Clock = time.time,
    ) -> Self:
        """Open an existing store. One of an older program is brought to the newest schema.

        Args:
            where: The file, its ``sqlite:///`` URL, or a ``postgresql://`` URL.
            private: Given by a worker, which opens values. A file is then checked as a whole.
            grace_s: Seconds for which a replaced value is kept and scrubbed.
            clock: Seconds since the epoch.

        Raises:
            StoreError: missing, not ours to read, damaged, no store, of a newer program, of
                another home than the keys, or a database that cannot be reached.
        """
        if isinstance(private, sealing.PrivateKey):
            private = sealing.KeyRing([private])
        found = database.connect(where)
        try:
            found.check(whole=private is not None)
            _check_pair(private, public)
            store_id = check_contents(found, public)
            found.settle()
        except BaseException:
            found.close()
            raise
        return cls(found, store_id, public, private, grace_s, clock)

    @property
    def store_id(self) -> str:
        return self._store_id

    def close(self) -> None:
        """Let go of the database. Views stay usable."""
        self._database.close()

    # --- reading -----------------------------------------------------------------------------

    def revision(self) -> int:
        """See `coatcheck.core.ports.SecretReader`."""
        store_id, revision = self._database.revision()
        self._check_same(store_id)
        return revision

    def wait(self, timeout_s: float) -> bool:
        """See `model.Store`."""
        return self._database.wait(timeout_s)

    def view(self) -> SqlView:
        """See `coatcheck.core.ports.SecretReader`. Values opened in the last view stay open.

        Raises:
            StoreError: also where this store was opened without the private key.
        """
        if self._opener is None:
            raise StoreError(
                "this process has no private sealing key, so it cannot open values",
                hint="only proxy workers open the store with sealing.key",
            )
        with self._lock:
            with self._database.reading() as connection:
                store_id, revision = connection.execute(_META).one()
                self._check_same(store_id)
                view = _load(connection, revision, self._opener, self._horizon, self._view)
            self._view = view
            return view

    def find(self, name: str) -> Secret | None:
        """See `model.Store`."""
        with self._database.reading() as connection:
            row = connection.execute(_SECRETS.where(secrets.c.name == name)).one_or_none()
            return None if row is None else _secret(row)

    def secrets(self) -> Sequence[Secret]:
        """See `model.Store`."""
        with self._database.reading() as connection:
            return _sorted(connection.execute(_SECRETS))

    def history(self, name: str) -> Sequence[VersionInfo]:
        """See `model.Store`."""
        with self._database.reading() as connection:
            query = (
                sa.select(
                    versions.c.version,
                    versions.c.domains,
                    versions.c.created_at,
                    versions.c.replaced_at,
                    versions.c.record.is_not(None),
                )
                .join(secrets)
                .where(secrets.c.name == name)
                .order_by(versions.c.version)
            )
            found = [
                VersionInfo(version, _patterns(domains), created_at, replaced_at, bool(kept))
                for version, domains, created_at, replaced_at, kept in connection.execute(query)
            ]
        if not found:
            raise UnknownSecret(name)
        return found

    # --- writing -----------------------------------------------------------------------------

    def put(
        self,
        name: str,
        value: bytes,
        *,
        domains: Iterable[DomainPattern] | None,
        description: str | None,
        now: float,
        new_name: str | None = None,
        check: Check | None = None,
    ) -> Secret:
        """See `model.Store`."""
        with self._writing(now) as connection:
            if check is not None:
                check(_find(connection, name))
            return self._put(connection, name, value, domains, description, now, new_name)

    def put_many(
        self, entries: Iterable[tuple[str, bytes, Iterable[DomainPattern]]], *, now: float
    ) -> None:
        """`put` for each (name, value, domains), all in one transaction, or none.

        Most of what a `put` takes is the wait for the disk, and this waits once.
        """
        with self._writing(now) as connection:
            for name, value, domains in entries:
                self._put(connection, name, value, domains, None, now)

    def edit(
        self,
        name: str,
        *,
        new_name: str | None = None,
        description: str | None = None,
        now: float,
        check: Check | None = None,
    ) -> Secret:
        """See `model.Store`."""
        changes: dict[str, Any] = {"updated_at": now}
        if description is not None:
            changes["description"] = checked_description(description)
        with self._writing(now) as connection:
            found = _find(connection, name)
            if found is None:
                raise UnknownSecret(name)
            if check is not None:
                check(found)
            if new_name is not None:
                self._check_free(connection, checked_name(new_name), found.id)
                changes |= {"name": new_name, "name_key": name_key(new_name)}
            connection.execute(secrets.update().where(secrets.c.id == found.id).values(changes))
            return _secret(connection.execute(_SECRETS.where(secrets.c.id == found.id)).one())

    def delete(self, name: str, *, now: float, check: Check | None = None) -> None:
        """See `model.Store`. The pages that held its records are overwritten."""
        with self._writing(now) as connection:
            found = _find(connection, name)
            if found is None:
                raise UnknownSecret(name)
            if check is not None:
                check(found)
            connection.execute(secrets.delete().where(secrets.c.id == found.id))

    def record_use(self, uses: Mapping[str, Used]) -> None:
        """See `coatcheck.core.ports.SecretReader`.

        It does not count up the revision: nothing that a decision depends on has changed, and
        each worker would load everything again after every use.
        """
        if not uses:
            return
        at = sa.bindparam("at", type_=sa.Double)
        later = sa.or_(secrets.c.last_used_at.is_(None), secrets.c.last_used_at < at)
        update = (
            secrets.update()
            .where(secrets.c.id == sa.bindparam("secret"))
            .values(
                last_used_at=sa.case((later, at), else_=secrets.c.last_used_at),
                uses=secrets.c.uses + sa.bindparam("count", type_=sa.BigInteger),
            )
        )
        # In one order, or two workers would wait for each other's rows.
        rows = [
            {"secret": secret, "at": told.at, "count": told.count}
            for secret, told in sorted(uses.items())
        ]
        with self._database.noting() as connection:
            connection.execute(update, rows)

    # --- tokens of the management API --------------------------------------------------------

    def add_token(
        self,
        sha256: str,
        *,
        role: str,
        now: float,
        name: str = "",
        created_by: str = "",
        expires_at: float | None = None,
    ) -> Token:
        """Let the token with this hash (hex) use the management API as *role*."""
        made = Token(sha256, role, now, name, created_by, expires_at)
        with self._writing(now) as connection:
            connection.execute(
                tokens.insert().values(
                    sha256=sha256,
                    role=role,
                    created_at=now,
                    name=name,
                    created_by=created_by,
                    expires_at=expires_at,
                )
            )
        return made

    def tokens(self) -> Sequence[Token]:
        """All of them, the oldest first, those that have ended too."""
        with self._database.reading() as connection:
            rows = connection.execute(_TOKENS.order_by(tokens.c.created_at, tokens.c.sha256))
            return [Token(*row) for row in rows]

    def find_token(self, sha256: str) -> Token | None:
        """The token with this hash (hex)."""
        with self._database.reading() as connection:
            row = connection.execute(_TOKENS.where(tokens.c.sha256 == sha256)).one_or_none()
            return None if row is None else Token(*row)

    def remove_token(
        self,
        token_id: str,
        *,
        now: float,
        check: Callable[[Token, Sequence[Token]], None] | None = None,
    ) -> Token | None:
        """Take away the token that is called by this `Token.id`; None where there is none.

        Args:
            check: Looks at it, and at all there are, before; what it raises keeps the token.
        """
        with self._writing(now) as connection:
            found = [Token(*row) for row in connection.execute(_TOKENS)]
            named = next((token for token in found if token.id == token_id), None)
            if named is None:
                return None
            if check is not None:
                check(named, found)
            connection.execute(tokens.delete().where(tokens.c.sha256 == named.sha256))
            return named

    def note_token(self, sha256: str, *, now: float) -> None:
        """Note that the token with this hash was used just now."""
        with self._database.noting() as connection:
            connection.execute(
                tokens.update().where(tokens.c.sha256 == sha256).values(last_used_at=now)
            )

    # --- inside ------------------------------------------------------------------------------

    def _horizon(self) -> float:
        """What was replaced before this moment is neither scrubbed nor kept."""
        return self._clock() - self._grace_s

    def _check_same(self, store_id: str) -> None:
        # A database keeps its address when another backup is put into it.
        if store_id != self._store_id:
            raise StoreError(
                f"the store {self._database.place} was replaced by another one while in use",
                hint="put back the one that belongs to this home, then restart coatcheck",
            )

    @contextmanager
    def _writing(self, now: float) -> Iterator[sa.Connection]:
        """A transaction that changes secrets: it counts the revision up, and drops old records."""
        with self._database.writing() as connection:
            yield connection
            connection.execute(meta.update().values(revision=meta.c.revision + 1))
            connection.execute(
                versions.update()
                .where(versions.c.replaced_at < now - self._grace_s)
                .where(versions.c.record.is_not(None))
                .values(record=None)
            )
            self._database.announce(connection)

    def _put(
        self,
        connection: sa.Connection,
        name: str,
        value: bytes,
        domains: Iterable[DomainPattern] | None,
        description: str | None,
        now: float,
        new_name: str | None = None,
    ) -> Secret:
        checked_value(name, value)
        allowed = None if domains is None else checked_domains(domains)
        text = None if description is None else checked_description(description)
        was = _find(connection, name)
        if was is None:
            self._check_free(connection, name, None)
            new = Secret(
                random.token_hex(16), checked_name(name), 1, allowed or (), text or "", now, now
            )
        else:
            if new_name is not None:
                self._check_free(connection, checked_name(new_name), was.id)
            new = Secret(
                was.id,
                new_name or was.name,
                was.version + 1,
                was.domains if allowed is None else allowed,
                was.description if text is None else text,
                was.created_at,
                now,
                was.last_used_at,
                uses=was.uses,
            )
            connection.execute(
                versions.update()
                .where(versions.c.secret_id == was.id, versions.c.replaced_at.is_(None))
                .values(replaced_at=now)
            )
        self._write_version(connection, new, value, now)
        return new

    def _check_free(self, connection: sa.Connection, name: str, mine: str | None) -> None:
        """Raise NameTaken unless *name*, as a reader sees it, is free or that of *mine* (id)."""
        query = sa.select(secrets.c.id, secrets.c.name).where(secrets.c.name_key == name_key(name))
        row = connection.execute(query).one_or_none()
        if row is not None and row.id != mine:
            raise NameTaken(name, row.name)

    def _write_version(
        self, connection: sa.Connection, new: Secret, value: bytes, now: float
    ) -> None:
        if self._public.id not in connection.execute(_KEYS).one():
            raise StoreError(
                f"the sealing key was rotated while this process ran with {self._public.id}",
                hint="restart it; on another machine copy the new sealing.pub first",
            )
        domains = [str(domain) for domain in new.domains]
        row = {
            "name": new.name,
            "name_key": name_key(new.name),
            "description": new.description,
            "version": new.version,
            "domains": domains,
            "created_at": new.created_at,
            "updated_at": new.updated_at,
            "last_used_at": new.last_used_at,
        }
        if new.version == 1:
            connection.execute(secrets.insert().values(id=new.id, **row))
        else:
            connection.execute(secrets.update().where(secrets.c.id == new.id).values(row))
        info = sealing.binding(self._store_id, new.id, new.version, new.domains)
        connection.execute(
            versions.insert().values(
                secret_id=new.id,
                version=new.version,
                record=sealing.seal(self._public, info, value),
                key_id=self._public.id,
                domains=domains,
                created_at=now,
            )
        )


_META = sa.select(meta.c.store_id, meta.c.revision)

_SECRETS = sa.select(
    secrets.c.id,
    secrets.c.name,
    secrets.c.version,
    secrets.c.domains,
    secrets.c.description,
    secrets.c.created_at,
    secrets.c.updated_at,
    secrets.c.last_used_at,
    secrets.c.uses,
)

_TOKENS = sa.select(
    tokens.c.sha256,
    tokens.c.role,
    tokens.c.created_at,
    tokens.c.name,
    tokens.c.created_by,
    tokens.c.expires_at,
    tokens.c.last_used_at,
)

_RECORDS = (
    sa.select(
        versions.c.secret_id,
        versions.c.version,
        versions.c.record,
        versions.c.domains,
        versions.c.replaced_at,
    )
    .where(versions.c.record.is_not(None))
    .order_by(versions.c.secret_id, versions.c.version)
)


def _load(
    connection: sa.Connection,
    revision: int,
    opener: Opener,
    horizon: Clock,
    older: SqlView | None,
) -> SqlView:
    found = tuple(_sorted(connection.execute(_SECRETS)))
    records: dict[str, list[Sealed]] = {}
    for secret_id, version, record, domains, replaced_at in connection.execute(_RECORDS):
        sealed = Sealed(version, bytes(record), _patterns(domains), replaced_at)
        records.setdefault(secret_id, []).append(sealed)
    view = SqlView(int(revision), found, records, opener, horizon)
    if older is not None:
        view.inherit(older)
    return view


def _sorted(rows: Iterable[Any]) -> list[Secret]:
    """In order of name. Not by the database: PostgreSQL's order depends on its locale."""
    return sorted((_secret(row) for row in rows), key=lambda secret: secret.name)


def _find(connection: sa.Connection, name: str) -> Secret | None:
    row = connection.execute(_SECRETS.where(secrets.c.name == name)).one_or_none()
    return None if row is None else _secret(row)


def _token(sha256: str, role: str, now: float) -> sa.Insert:
    return tokens.insert().values(
        sha256=sha256, role=role, created_at=now, name="made by coatcheck init", created_by=""
    )


def _secret(row: Any) -> Secret:
    secret_id, name, version, domains, description, created_at, updated_at, last, uses = row
    return Secret(
        secret_id,
        name,
        version,
        _patterns(domains),
        description,
        created_at,
        updated_at,
        last,
        uses=uses,
    )


def _patterns(texts: Any) -> tuple[DomainPattern, ...]:
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise TypeError("domains")
    return tuple(stored_pattern(text) for text in texts)


def _check_pair(private: sealing.KeyRing | None, public: sealing.PublicKey) -> None:
    if private is not None and public.id not in private:
        raise StoreError(
            f"sealing.key ({private.id}) and sealing.pub ({public.id}) are no pair",
            hint="restore both from a backup of the same home",
        )


def check_contents(found: Database, public: sealing.PublicKey) -> str:
    """The store's id, once its schema and its home are in order.

    Raises:
        StoreError: no store, of a newer program, of another home, or a copy that is not whole.
    """
    with found.reading() as connection:
        schema = connection.execute(_SCHEMA).scalar()
    if schema is None:
        raise found.foreign()
    if schema in OLDER:
        with found.making() as connection:
            migrations.upgrade(connection)
    elif schema != HEAD:
        raise StoreError(
            f"{found.place} has schema {schema!r}, this program knows up to {HEAD!r}",
            hint="upgrade coatcheck to the version that wrote it",
        )
    with found.reading() as connection:
        row = connection.execute(_HEAD).one_or_none()
    if row is None:
        raise found.foreign()
    store_id, key_id, former_key_id, revision = row
    if revision == UNFINISHED:
        raise StoreError(
            f"{found.place} is a copy that is not whole",
            hint="run the same command again: coatcheck store migrate --to URL",
        )
    if public.id not in (key_id, former_key_id):
        raise StoreError(
            f"{found.place} is from another home: its values are sealed for key {key_id!r},"
            f" sealing.pub is {public.id!r}",
            hint="put store.db, sealing.key and sealing.pub of the same home together",
        )
    return str(store_id)


_KEYS = sa.select(meta.c.key_id, meta.c.former_key_id)
_HEAD = sa.select(meta.c.store_id, meta.c.key_id, meta.c.former_key_id, meta.c.revision)
_SCHEMA = sa.text("SELECT version_num FROM alembic_version")
