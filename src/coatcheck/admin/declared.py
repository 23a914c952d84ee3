"""Secrets that the sources file declares, as this side knows them: by what stands in the file.

Their values, and so versions and times, are known to the workers alone. No source is asked here,
and nothing here changes one: who has the file does. A stored secret of the same name goes first, as
it does in the workers, which refuse the declared one.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from coatcheck import sourcefile
from coatcheck.core.ports import CoatcheckError
from coatcheck.core.secret import Secret
from coatcheck.sourcefile import SOURCED, Declared, SourcesFile
from coatcheck.store.model import name_key
from coatcheck.store.sql import SqlStore

STORE = "store"  # where a secret comes from that is no declared one


class Declarations:
    """The file, read again when it has changed. One that cannot be used declares nothing: the
    workers say what is wrong with it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: object = None
        self._file = SourcesFile()

    def all(self) -> Sequence[Declared]:
        with self._lock:
            stamp = self._stamp()
            if stamp != self._seen:
                self._seen, self._file = stamp, self._read()
            return self._file.secrets

    def takes(self, name: str) -> bool:
        """Whether one of them has *name*, or one that looks like it."""
        return any(name_key(one.name) == name_key(name) for one in self.all())

    def find(self, name: str) -> Secret | None:
        return next((one.secret() for one in self.all() if one.name == name), None)

    def beside(self, stored: Sequence[Secret]) -> list[Secret]:
        """*stored*, and those declared whose name none of them has."""
        taken = {name_key(secret.name) for secret in stored}
        declared = (one.secret() for one in self.all() if name_key(one.name) not in taken)
        return [*stored, *declared]

    def source_of(self, secret: Secret) -> str:
        """``store``, or the name and the kind of a source: ``vault-prod (vault)``."""
        if not is_declared(secret):
            return STORE
        found = (one.source for one in self.all() if one.name == secret.name)
        return next((f"{source.name} ({source.kind})" for source in found), "source")

    def _stamp(self) -> object:
        try:
            status = self._path.stat() if self._path is not None else None
        except OSError:
            return None
        return status and (status.st_ino, status.st_mtime_ns, status.st_size)

    def _read(self) -> SourcesFile:
        if self._path is None or not self._path.exists():
            return SourcesFile()
        try:
            return sourcefile.read(self._path)
        except CoatcheckError:
            return SourcesFile()


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
