"""Secrets that the sources file declares, as this side knows them: by what stands in the file.

Their values, and so versions and times, are known to the workers alone. No source is asked here,
and nothing here changes one: who has the file does. A stored secret of the same name goes first, as
it does in the workers, which refuse the declared one.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from coatcheck import sourcefile
from coatcheck.core.ports import CoatcheckError
from coatcheck.core.secret import Secret
from coatcheck.sourcefile import SOURCED, Declared
from coatcheck.store.model import name_key
from coatcheck.store.sql import SqlStore
from coatcheck.yamlfile import stamp

STORE = "store"  # where a secret comes from that is no declared one


class Declarations:
    """The file, read again when it has changed. One that cannot be used declares nothing: the
    workers say what is wrong with it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: object = None
        self._by_name: Mapping[str, Declared] = {}
        self._keys: frozenset[str] = frozenset()  # what names that look alike share

    def takes(self, name: str) -> bool:
        """Whether one of them has *name*, or one that looks like it."""
        self._look()
        return name_key(name) in self._keys

    def find(self, name: str) -> Secret | None:
        found = self._look().get(name)
        return None if found is None else found.secret()

    def beside(self, stored: Sequence[Secret]) -> list[Secret]:
        """*stored*, and those declared whose name none of them has."""
        taken = {name_key(secret.name) for secret in stored}
        declared = self._look().values()
        return [*stored, *(one.secret() for one in declared if name_key(one.name) not in taken)]

    def source_of(self, secret: Secret) -> str:
        """``store``, or the name and the kind of a source: ``vault-prod (vault)``."""
        if not is_declared(secret):
            return STORE
        found = self._look().get(secret.name)
        return "source" if found is None else f"{found.source.name} ({found.source.kind})"

    def _look(self) -> Mapping[str, Declared]:
        if self._path is None:
            return {}
        with self._lock:
            now = stamp(self._path)
            if now != self._seen:
                self._seen, declared = now, _read(self._path)
                self._by_name = {one.name: one for one in declared}
                self._keys = frozenset(name_key(one.name) for one in declared)
            return self._by_name


def _read(path: Path) -> Sequence[Declared]:
    try:
        return sourcefile.read(path).secrets
    except CoatcheckError:
        return ()


class Names:
    """The secrets that there are, wherever their values come from."""

    def __init__(self, store: SqlStore, declarations: Declarations) -> None:
        self._store = store
        self.declared = declarations

    def all(self) -> list[Secret]:
        return self.declared.beside(self._store.secrets())

    def find(self, name: str) -> Secret | None:
        return self._store.find(name) or self.declared.find(name)


def is_declared(secret: Secret) -> bool:
    return secret.id.startswith(SOURCED)
