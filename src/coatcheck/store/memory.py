"""A store that forgets: for tests and the demo. The rules are those of `sql.SqlStore`.

Nothing is sealed, since nothing is written down; a value still opens for the domains it was set
with and no others, so a test that passes here does not pass by luck.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from coatcheck.core.destination import DomainPattern
from coatcheck.core.ports import StoreError, Used
from coatcheck.core.secret import Secret, SecretValue
from coatcheck.store.model import (
    DEFAULT_GRACE_S,
    Check,
    NameTaken,
    UnknownSecret,
    VersionInfo,
    checked_description,
    checked_domains,
    checked_name,
    checked_value,
    name_key,
)


@dataclass(frozen=True, slots=True)
class _Version:
    version: int
    domains: tuple[DomainPattern, ...]
    value: SecretValue | None  # None once it was dropped
    created_at: float
    replaced_at: float | None = None


@dataclass(frozen=True, slots=True)
class _Entry:
    secret: Secret
    versions: tuple[_Version, ...]


class MemoryStore:
    """A `coatcheck.store.model.Store` in memory."""

    def __init__(
        self, *, grace_s: float = DEFAULT_GRACE_S, clock: Callable[[], float] = time.time
    ) -> None:
        self._grace_s = grace_s
        self._clock = clock
        self._lock = threading.Condition()  # notified of each change
        self._ids = itertools.count(1)
        self._revision = 1
        self._told = False  # a change that nobody has waited for yet
        self._entries: dict[str, _Entry] = {}  # by name; replaced as a whole at each change

    def revision(self) -> int:
        """See `coatcheck.core.ports.SecretReader`."""
        return self._revision

    def wait(self, timeout_s: float) -> bool:
        """See `model.Store`."""
        with self._lock:
            told, self._told = self._told or self._lock.wait(timeout_s), False
            return told

    def view(self) -> MemoryView:
        """See `coatcheck.core.ports.SecretReader`."""
        with self._lock:
            return MemoryView(self._revision, self._entries, self._horizon)

    def find(self, name: str) -> Secret | None:
        """See `model.Store`."""
        entry = self._entries.get(name)
        return None if entry is None else entry.secret

    def secrets(self) -> Sequence[Secret]:
        """See `model.Store`."""
        return [entry.secret for _, entry in sorted(self._entries.items())]

    def history(self, name: str) -> Sequence[VersionInfo]:
        """See `model.Store`."""
        return [
            VersionInfo(v.version, v.domains, v.created_at, v.replaced_at, v.value is not None)
            for v in self._entry(name).versions
        ]

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
        checked_value(name, value)
        allowed = None if domains is None else checked_domains(domains)
        text = None if description is None else checked_description(description)
        with self._lock:
            old = self._entries.get(name)
            _check(check, old)
            if old is None:
                self._check_free(checked_name(name), None)
                secret = Secret(f"{next(self._ids):032x}", name, 1, allowed or (), text or "", now)
                before: tuple[_Version, ...] = ()
            else:
                was = old.secret
                if new_name is not None:
                    self._check_free(checked_name(new_name), was.id)
                secret = replace(
                    was,
                    name=new_name or was.name,
                    version=was.version + 1,
                    domains=was.domains if allowed is None else allowed,
                    description=was.description if text is None else text,
                )
                before = (*old.versions[:-1], replace(old.versions[-1], replaced_at=now))
            secret = replace(secret, updated_at=now)
            fresh = _Version(
                secret.version,
                secret.domains,
                SecretValue(secret.name, secret.version, bytes(value)),
                now,
            )
            rest = {key: other for key, other in self._entries.items() if key != name}
            self._commit({**rest, secret.name: _Entry(secret, (*before, fresh))}, now)
        return secret

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
        if description is not None:
            checked_description(description)
        with self._lock:
            entry = self._entry(name)
            _check(check, entry)
            secret = replace(entry.secret, updated_at=now)
            if description is not None:
                secret = replace(secret, description=description)
            if new_name is not None:
                self._check_free(checked_name(new_name), secret.id)
                secret = replace(secret, name=new_name)
            rest = {key: other for key, other in self._entries.items() if key != name}
            renamed = tuple(_named(version, secret.name) for version in entry.versions)
            self._commit({**rest, secret.name: _Entry(secret, renamed)}, now)
            return secret

    def delete(self, name: str, *, now: float, check: Check | None = None) -> None:
        """See `model.Store`."""
        with self._lock:
            _check(check, self._entry(name))
            rest = {key: other for key, other in self._entries.items() if key != name}
            self._commit(rest, now)

    def record_use(self, uses: Mapping[str, Used]) -> None:
        """See `coatcheck.core.ports.SecretReader`."""
        with self._lock:
            self._entries = {
                name: replace(entry, secret=_used(entry.secret, uses.get(entry.secret.id)))
                for name, entry in self._entries.items()
            }

    def _horizon(self) -> float:
        return self._clock() - self._grace_s

    def _entry(self, name: str) -> _Entry:
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownSecret(name) from None

    def _check_free(self, name: str, mine: str | None) -> None:
        for entry in self._entries.values():
            if name_key(entry.secret.name) == name_key(name) and entry.secret.id != mine:
                raise NameTaken(name, entry.secret.name)

    def _commit(self, entries: dict[str, _Entry], now: float) -> None:
        horizon = now - self._grace_s
        self._entries = {
            name: replace(entry, versions=tuple(_purged(v, horizon) for v in entry.versions))
            for name, entry in entries.items()
        }
        self._revision += 1
        self._told = True
        self._lock.notify_all()


class MemoryView:
    """A `coatcheck.core.ports.StoreView` of a `MemoryStore`."""

    def __init__(
        self, revision: int, entries: Mapping[str, _Entry], horizon: Callable[[], float]
    ) -> None:
        self._revision = revision
        self._entries = entries
        self._by_id = {entry.secret.id: entry for entry in entries.values()}
        self._secrets = tuple(entry.secret for _, entry in sorted(entries.items()))
        self._horizon = horizon

    @property
    def revision(self) -> int:
        return self._revision

    def find(self, name: str) -> Secret | None:
        entry = self._entries.get(name)
        return None if entry is None else entry.secret

    def secrets(self) -> Collection[Secret]:
        return self._secrets

    def open(self, secret: Secret) -> SecretValue:
        """See `coatcheck.core.ports.StoreView`."""
        for version in self._versions(secret):
            same = version.version == secret.version
            if same and set(version.domains) == set(secret.domains) and version.value is not None:
                return version.value
        raise StoreError(
            f"secret {secret.name!r}, version {secret.version}, cannot be opened",
            hint="set the secret again, with its domains",
        )

    def former(self) -> Collection[Secret]:
        """See `coatcheck.core.ports.StoreView`."""
        horizon = self._horizon()
        return [
            replace(entry.secret, version=version.version, domains=version.domains)
            for entry in self._by_id.values()
            for version in entry.versions
            if version.value is not None
            and version.replaced_at is not None
            and version.replaced_at >= horizon
        ]

    def _versions(self, secret: Secret) -> tuple[_Version, ...]:
        entry = self._by_id.get(secret.id)
        return () if entry is None else entry.versions


def _purged(version: _Version, horizon: float) -> _Version:
    expired = version.replaced_at is not None and version.replaced_at < horizon
    return replace(version, value=None) if expired else version


def _named(version: _Version, name: str) -> _Version:
    if version.value is None:
        return version
    return replace(version, value=SecretValue(name, version.version, version.value.reveal()))


def _used(secret: Secret, told: Used | None) -> Secret:
    if told is None:
        return secret
    last = told.at if secret.last_used_at is None else max(secret.last_used_at, told.at)
    return replace(secret, last_used_at=last, uses=secret.uses + told.count)


def _check(check: Check | None, entry: _Entry | None) -> None:
    if check is not None:
        check(None if entry is None else entry.secret)
