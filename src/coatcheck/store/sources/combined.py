"""The store and the sources as one view.

A stored secret goes before a sourced one of the same name, or of one that a reader would take for
it: the sourced one is refused, and told, until one of them is gone. The other way round a line in a
file would take a stored value out of force unseen.
"""

from __future__ import annotations

from collections.abc import Collection

from coatcheck.core.ports import StoreView
from coatcheck.core.secret import Secret, SecretValue
from coatcheck.sourcefile import SOURCED
from coatcheck.store.model import name_key
from coatcheck.store.sources.sourced import SourcedView


class CombinedView:
    """A `coatcheck.core.ports.StoreView`. ``revision`` is the store's own."""

    def __init__(self, stored: StoreView, sourced: SourcedView) -> None:
        """Raises `StoreError` where the store cannot be read."""
        taken = {name_key(secret.name) for secret in stored.secrets()}
        self.refused = tuple(s.name for s in sourced.secrets() if name_key(s.name) in taken)
        self._stored = stored
        self._sourced = sourced.without(self.refused)
        both = [*stored.secrets(), *self._sourced.secrets()]
        self._secrets = tuple(sorted(both, key=lambda secret: secret.name))

    @property
    def revision(self) -> int:
        return self._stored.revision

    def find(self, name: str) -> Secret | None:
        return self._sourced.find(name) or self._stored.find(name)

    def secrets(self) -> Collection[Secret]:
        return self._secrets

    def open(self, secret: Secret) -> SecretValue:
        """See `coatcheck.core.ports.StoreView`."""
        view = self._sourced if secret.id.startswith(SOURCED) else self._stored
        return view.open(secret)

    def former(self) -> Collection[Secret]:
        """See `coatcheck.core.ports.StoreView`."""
        return [*self._stored.former(), *self._sourced.former()]
