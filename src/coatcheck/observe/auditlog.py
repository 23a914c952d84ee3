"""The audit log as a file: one JSON object a line, appended before the bytes that it tells of.

A line is written with a single `os.write` to a file opened for appending, so lines of several
processes do not mix, and it is with the operating system when `write` returns. ASCII only: no
line end, terminal escape or bidirectional mark of a client gets into the file as itself. Half a
line, of a full disk or a crash, is ended before the next one, which would be lost with it.

Each worker has a file of its own, and numbers its lines (docs/decisions/0017). The numbers go on
where those of the last process ended, so that a line which was taken out leaves a gap.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from coatcheck.core.ports import AuditError

PATTERN = "audit*.jsonl"  # of the files of all workers
TAIL_BYTES = 4 * 1024 * 1024  # where the last whole line is looked for


def file_name(worker: int) -> str:
    """Of the worker with this number; the first one's is that of a proxy in one process."""
    return "audit.jsonl" if worker == 1 else f"audit-{worker}.jsonl"


class FileAuditLog:
    """Appends to the file of one worker in a folder of its own (0700; the file 0600)."""

    def __init__(self, folder: Path, worker: int = 1) -> None:
        self.path = folder / file_name(worker)
        self._worker = worker
        self._sequence = 0  # of the last line
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
            self._sequence = max(self._sequence, _last_sequence(self._file, size))
        except OSError as error:
            raise AuditError(
                f"cannot open the audit log {self.path}: {error.strerror}",
                hint="make the folder writable for the user that runs coatcheck",
            ) from None

    def write(self, record: Mapping[str, object]) -> None:
        if self._file is None:
            raise AuditError("the audit log is not open", hint="restart coatcheck")
        numbers = {"worker": self._worker, "sequence": self._sequence + 1}
        line = json.dumps({**record, **numbers}).encode("ascii") + b"\n"
        if self._torn:
            line = b"\n" + line
        try:
            written = os.write(self._file, line)
        except OSError as error:
            raise AuditError(
                f"cannot write the audit log: {error.strerror}", hint="look at the disk's space"
            ) from None
        self._sequence += 1  # spent, even on half a line
        self._torn = written != len(line)
        if self._torn:
            raise AuditError("the audit log took half a line", hint="look at the disk's space")

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _last_sequence(file: int, size: int) -> int:
    """The number of the last line in *file* that is whole; 0 where there is none."""
    start = max(0, size - TAIL_BYTES)
    lines = os.pread(file, size - start, start).split(b"\n")
    for line in reversed(lines):
        try:
            return int(json.loads(line)["sequence"])
        except (ValueError, LookupError, TypeError):
            continue
    return 0
