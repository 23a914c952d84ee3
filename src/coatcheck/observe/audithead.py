"""The newest signed head of a log, kept a second time: what shows that the log's end was cut off.

Beside the head stands whether lines may have come behind it: ``open`` while a process writes the
log, and after one was killed; ``closed`` after one has ended in order. What stands in the log
behind a head that closed it was put there by nobody who may.

Replaced as a whole, so a reader never sees half of it. Not forced to the disk, as lines are not.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from coatcheck.core.ports import AuditError
from coatcheck.observe import auditchain, auditfiles
from coatcheck.observe.auditchain import Link, Signer

OPEN, CLOSED = b"open", b"closed"


@dataclass(frozen=True, slots=True)
class Keys:
    """What makes heads.

    Attributes:
        heads: A folder apart from the log, for the newest head of each.
    """

    signer: Signer
    heads: Path


class HeadFile:
    """That of one log."""

    def __init__(self, keys: Keys, log: str) -> None:
        self._signer = keys.signer
        self._path = auditfiles.head_file(keys.heads, log)
        self._log = log
        self._head = b""  # the newest, with its line end

    def read(self) -> tuple[Link | None, bytes]:
        """Where the newest head stands, and the word beside it.

        A file that is missing, or that the key has not signed, says nothing: None and `OPEN`.
        """
        try:
            text = self._path.read_bytes()
        except OSError:
            return None, OPEN
        head, _, state = text.partition(b"\n")
        line = auditchain.signed_head(head, self._log, self._signer)
        if line is None:
            return None, OPEN
        self._head = head + b"\n"
        return line.link, state.strip()

    def keep(self, head: bytes) -> None:
        """A new head was written. Raises `AuditError`."""
        self._head = head
        self.say(OPEN)

    def say(self, state: bytes) -> None:
        """Change the word beside the head, if there is one.

        Raises:
            AuditError: it could not be written.
        """
        if not self._head:
            return
        path = self._path
        draft = path.with_name(f".{path.name}.new")
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            draft.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(draft, flags, 0o600), "wb") as out:
                out.write(self._head + state + b"\n")
            draft.replace(path)
        except OSError as error:
            raise AuditError(
                f"cannot keep the head of the audit log at {path}: {error.strerror}",
                hint="make the folder writable for the user that runs coatcheck",
            ) from None
