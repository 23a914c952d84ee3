"""The audit log as a file: one JSON object a line, appended before the bytes that it tells of.

A line is written with a single `os.write` to a file opened for appending, so lines of several
processes do not mix, and it is with the operating system when `write` returns. ASCII only: no
line end, terminal escape or bidirectional mark of a client gets into the file as itself. Half a
line, of a full disk or a crash, is ended before the next one, which would be lost with it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from coatcheck.core.ports import AuditError

FILE_NAME = "audit.jsonl"


class FileAuditLog:
    """Appends to ``audit.jsonl`` in a folder of its own (0700; the file 0600)."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        self._file: int | None = None
        self._torn = False  # the file ends in the middle of a line

    def open(self) -> None:
        """Open the file, or open it anew after it was moved away.

        Raises:
            AuditError: it cannot be opened.
        """
        self.close()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(self.path, flags, 0o600)
            size = os.fstat(self._file).st_size
            self._torn = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"
        except OSError as error:
            raise AuditError(
                f"cannot open the audit log {self.path}: {error.strerror}",
                hint="make the folder writable for the user that runs coatcheck",
            ) from None

    def write(self, record: Mapping[str, object]) -> None:
        if self._file is None:
            raise AuditError("the audit log is not open", hint="restart coatcheck")
        line = json.dumps(record).encode("ascii") + b"\n"
        if self._torn:
            line = b"\n" + line
        try:
            written = os.write(self._file, line)
        except OSError as error:
            raise AuditError(
                f"cannot write the audit log: {error.strerror}", hint="look at the disk's space"
            ) from None
        self._torn = written != len(line)
        if self._torn:
            raise AuditError("the audit log took half a line", hint="look at the disk's space")

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
