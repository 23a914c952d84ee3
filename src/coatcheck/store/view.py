"""What a worker reads: one revision of the store, values opened at the first need.

Immutable but for the values it has opened so far. The next view takes those over whose records
are the same bytes, so a change of one secret does not open ten thousand again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from coatcheck.core.destination import DomainPattern
from coatcheck.core.ports import StoreError
from coatcheck.core.secret import Secret, SecretValue
from coatcheck.store import sealing


class SqlView:
    """A `coatcheck.core.ports.StoreView` of one revision."""

    def __init__(
        self,
        revision: int,
        found: tuple[Secret, ...],
        records: dict[str, list[Sealed]],
        opener: Opener,
        horizon: Callable[[], float],
    ) -> None:
        self._revision = revision
        self._secrets = found
        self._by_name = {secret.name: secret for secret in found}
        self._records = records  # by secret id, oldest first
        self._opener = opener
        self._horizon = horizon
        self._opened: dict[_Bound, tuple[bytes, SecretValue]] = {}

    @property
    def revision(self) -> int:
        return self._revision

    def find(self, name: str) -> Secret | None:
        return self._by_name.get(name)

    def secrets(self) -> Collection[Secret]:
        return self._secrets

    def open(self, secret: Secret) -> SecretValue:
        """See `coatcheck.core.ports.StoreView`.

        The value opens for the domains that *secret* claims, or not at all: whoever decided by
        that object decided by the domains that the value is sealed with.
        """
        for sealed in self._records.get(secret.id, ()):
            if sealed.version == secret.version:
                return self._value(secret.name, secret.id, sealed, secret.domains)
        raise StoreError(
            f"secret {secret.name!r} has no value of version {secret.version}",
            hint=f"set it again: coatcheck secret set {secret.name!r}",
        )

    def former(self) -> Collection[Secret]:
        """See `coatcheck.core.ports.StoreView`."""
        horizon = self._horizon()
        return [
            replace(secret, version=sealed.version, domains=sealed.domains)
            for secret in self._secrets
            for sealed in self._records.get(secret.id, ())
            if sealed.replaced_at is not None and sealed.replaced_at >= horizon
        ]

    def inherit(self, older: SqlView) -> None:
        """Take over the open values of an older view whose records are still the same bytes."""
        now = {
            (secret, sealed.version): sealed.record
            for secret, several in self._records.items()
            for sealed in several
        }
        for bound, (record, value) in older._opened.items():
            if now.get((bound[1], bound[2])) == record:
                self._opened[bound] = (record, value)

    def _value(
        self, name: str, secret_id: str, sealed: Sealed, domains: tuple[DomainPattern, ...]
    ) -> SecretValue:
        bound = (name, secret_id, sealed.version, domains)
        kept = self._opened.get(bound)
        if kept is None:
            value = self._opener.open(name, secret_id, sealed, domains)
            kept = self._opened[bound] = (sealed.record, value)
        return kept[1]


type _Bound = tuple[str, str, int, tuple[DomainPattern, ...]]  # name, id, version, domains


class Sealed:
    """A record as it stands in ``versions``."""

    __slots__ = ("domains", "record", "replaced_at", "version")

    def __init__(
        self,
        version: int,
        record: bytes,
        domains: tuple[DomainPattern, ...],
        replaced_at: float | None,
    ) -> None:
        self.version = version
        self.record = record
        self.domains = domains
        self.replaced_at = replaced_at


class Opener:
    """Opens records of one store."""

    def __init__(self, store_id: str, keys: sealing.KeyRing) -> None:
        self._store_id = store_id
        self._keys = keys

    def open(
        self, name: str, secret_id: str, sealed: Sealed, domains: tuple[DomainPattern, ...]
    ) -> SecretValue:
        info = sealing.binding(self._store_id, secret_id, sealed.version, domains)
        try:
            value = sealing.unseal(self._keys.for_record(sealed.record), info, sealed.record)
        except StoreError as error:
            raise StoreError(
                f"secret {name!r}, version {sealed.version}, cannot be opened: {error.problem}",
                hint=error.hint,
            ) from None
        return SecretValue(name, sealed.version, value)
