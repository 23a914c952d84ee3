"""The audit log as a file: one JSON object a line, appended before the bytes that it tells of.

A line is written with a single `os.write` to a file opened for appending, so it is with the
operating system when `write` returns. ASCII only: no line end, terminal escape or bidirectional
mark of a client gets into the file as itself. Half a line, of a full disk or a crash, is ended
before the next one, which would be lost with it.

Each line is bound to the one before (`observe.auditchain`), so a log has one writer, who holds a
lock on its file: each worker has a log of its own (docs/decisions/0017). Numbers and chain go on
where those of the last process ended, and over all files of the log.

What costs more than a line waits for `tend`, which is called a few times a second: signing,
beginning a new file, deleting old ones. The newest signed head is kept a second time in a folder
that lies apart: whoever can write to the log alone may cut it, and that shows there
(docs/decisions/0021).
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Self

from coatcheck.core.limits import MIB, Limits
from coatcheck.core.ports import AuditError
from coatcheck.observe import auditchain, auditfiles
from coatcheck.observe.auditchain import HEAD, RETIRED, Link, Signer
from coatcheck.observe.auditfiles import PATTERN, file_name
from coatcheck.observe.audithead import CLOSED, OPEN, HeadFile, Keys

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["PATTERN", "FileAuditLog", "Keep", "Keys", "file_name"]

HEAD_EVERY_S = 1.0  # what was written since the last head may be changed by who can write the file
LOCK_WAIT_S = 2.0  # a process that was killed may take a moment to let go
DAY_S = 86_400
RETIRE_EVERY_S = 3600.0


@dataclass(frozen=True, slots=True)
class Keep:
    """When a new file is begun, and when an old one is deleted. 0: never.

    Attributes:
        days: Since its last line.
        files: How many full ones are kept.
    """

    file_bytes: int = 0
    days: float = 0
    files: int = 0

    @classmethod
    def of(cls, limits: Limits) -> Self:
        """What the settings say."""
        file_bytes = limits.audit_file_mib * MIB
        return cls(file_bytes, limits.audit_keep_days, limits.audit_keep_files)


class FileAuditLog:
    """Appends to one log in a folder of its own (0700; its files 0600).

    Args:
        worker: Its number; stands in each line. None for a log that is no worker's.
        log: Its name, where it is not the worker's.
        keys: Without them there are no heads.
    """

    def __init__(
        self,
        folder: Path,
        worker: int | None = 1,
        *,
        log: str = "",
        keys: Keys | None = None,
        keep: Keep | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.log = log or auditfiles.log_name(worker or 1)
        self.path = folder / f"{self.log}.jsonl"
        self._worker = {} if worker is None else {"worker": worker}
        self._signer = keys.signer if keys is not None else None
        self._apart = HeadFile(keys, self.log) if keys is not None else None
        self._keep = keep or Keep()
        self._now = now
        self._file: int | None = None
        self._wanted = False  # between `open` and `close`
        self._sequence = 0  # of the last line
        self._chain = auditchain.start(self.log)
        self._first = True  # the next line is the first of its file
        self._rest: _Hash | None = None  # of the chain and the bytes behind the last whole line
        self._rest_bytes = 0
        self._torn = False  # the file ends in the middle of a line
        self._foreign = 0  # lines that were added while nobody wrote the log
        self._unsigned = 0  # lines since the last head
        self._signed_at = time.monotonic()
        self._retired_at = -RETIRE_EVERY_S

    # --- open and close -----------------------------------------------------------------------

    def open(self, *, wait_s: float = LOCK_WAIT_S) -> None:
        """Open the file, or open it anew after it was moved away.

        Args:
            wait_s: How long, where another process holds it.

        Raises:
            AuditError: it cannot be opened, or another process writes it.
        """
        self.close()
        self._wanted = True
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = self._locked(wait_s)
            self._find_end(self._file)
        except OSError as error:
            self._let_go()
            raise AuditError(
                f"cannot open the audit log {self.path}: {error.strerror}",
                hint="make the folder writable for the user that runs coatcheck",
            ) from None
        except AuditError:
            self._let_go()
            raise

    def close(self) -> None:
        """Sign what was written, and let go of the file."""
        self._wanted = False
        try:
            with suppress(AuditError):  # the next process signs it
                self.sign()
                if self._apart is not None and self._file is not None and not self._unsigned:
                    self._apart.say(CLOSED)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _locked(self, wait_s: float) -> int:
        """The open file, ours alone."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        until = time.monotonic() + wait_s
        while True:
            file = os.open(self.path, flags, 0o600)
            try:
                self._check_plain(os.fstat(file))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_ours(file):
                    return file  # and it was not moved away meanwhile
            except BlockingIOError:
                pass
            except BaseException:
                os.close(file)
                raise
            os.close(file)
            if time.monotonic() > until:
                raise AuditError(
                    f"another process writes the audit log {self.path}",
                    hint="stop it, or use a home of its own for each (--home)",
                )
            time.sleep(0.01)

    def _is_ours(self, file: int) -> bool:
        """Whether the open file is the one of our path."""
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(file), self.path.lstat())
        return False

    def _check_plain(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):  # a pipe would make us wait for who reads it
            raise AuditError(
                f"the audit log {self.path} is no plain file",
                hint="move it away; coatcheck makes the file",
            )

    def _find_end(self, file: int) -> None:
        """Go on where the file ends, or, where it is new, where the log has ended."""
        size = os.fstat(file).st_size
        found, end = auditfiles.last_link(file, size)
        known = Link(self._sequence, self._chain)
        apart, state = (None, OPEN) if self._apart is None else self._apart.read()
        if apart is not None and apart.sequence > known.sequence:
            known = apart
        self._foreign = 0
        if apart is not None and found is not None and state == CLOSED:
            self._foreign = max(0, found.sequence - apart.sequence)
        self._first = found is None
        self._chain = (found or known).chain
        # Where lines are gone that were there once, the gap stays in sight.
        self._sequence = max(known.sequence, found.sequence if found else 0)
        self._unsigned = int(apart is None or apart.chain != self._chain) if found else 0
        self._rest, self._rest_bytes, self._torn = None, 0, False
        while end < size:
            block = os.pread(file, min(auditfiles.BLOCK, size - end), end)
            self._add_rest(block)
            end += len(block)
        if state == CLOSED and self._apart is not None:
            self._apart.say(OPEN)  # from here on lines may come that no head covers yet

    def _add_rest(self, block: bytes) -> None:
        if self._rest is None:
            self._rest = sha256(self._chain)
        self._rest.update(block)
        self._rest_bytes += len(block)
        self._torn = not block.endswith(b"\n")

    # --- write --------------------------------------------------------------------------------

    def write(self, record: Mapping[str, object]) -> None:
        self._append(record)

    def _append(self, record: Mapping[str, object], signer: Signer | None = None) -> bytes:
        """Write one line, and return it; a head where a *signer* is given."""
        if self._file is None:
            raise AuditError("the audit log is not open", hint="see audit.unavailable in the log")
        fields = {**record, **self._worker, "sequence": self._sequence + 1}
        if self._first or self._rest is not None or self._foreign:
            fields |= self._first_fields()
        body = json.dumps(fields)[:-1].encode("ascii")
        chain = sha256(self._chain + body).digest() if self._rest is None else self._behind(body)
        line = b'%b, "chain": "%b"' % (body, chain.hex().encode())
        if signer is not None:
            signature = signer.sign(auditchain.message(chain)).hex().encode()
            line = b'%b, "signature": "%b"' % (line, signature)
        line += b"}\n"
        if self._torn:
            line = b"\n" + line
        try:
            written = os.write(self._file, line)
        except OSError as error:
            raise AuditError(
                f"cannot write the audit log: {error.strerror}", hint="look at the disk's space"
            ) from None
        if written != len(line):
            self._add_rest(line[:written])
            raise AuditError("the audit log took half a line", hint="look at the disk's space")
        self._sequence += 1
        self._chain = chain
        self._unsigned += 1
        self._first, self._rest, self._rest_bytes, self._torn = False, None, 0, False
        self._foreign = 0
        return line

    def _first_fields(self) -> dict[str, object]:
        """What a line tells besides, at the beginning of a file or behind half a line."""
        fields: dict[str, object] = {}
        if self._first:
            fields |= {"log": self.log, "former": self._chain.hex()}
        if self._rest is not None:
            fields["torn"] = self._rest_bytes + self._torn
        if self._foreign:
            fields["foreign"] = self._foreign
        return fields

    def _behind(self, body: bytes) -> bytes:
        """The chain of a line behind half a line."""
        if self._rest is None:
            raise AuditError("there is no half a line", hint="please report this")
        rest = self._rest.copy()
        rest.update(b"\n" + body if self._torn else body)
        return rest.digest()

    # --- heads --------------------------------------------------------------------------------

    def sign(self) -> None:
        """Write a head, if there is anything that none covers.

        Raises:
            AuditError: it could not be written, or not be kept apart.
        """
        signer = self._signer
        if signer is None or self._apart is None or not self._unsigned or self._file is None:
            return
        head = {"time": self._time(), "event": HEAD, "log": self.log, "key": signer.id}
        line = self._append(head, signer)
        self._unsigned = 0
        self._signed_at = time.monotonic()
        self._apart.keep(line.lstrip(b"\n"))

    # --- beside the writing -------------------------------------------------------------------

    def tend(self) -> None:
        """What is due by now: a head, a new file, the end of old ones. Called now and then.

        Raises:
            AuditError: something could not be done; it is tried again.
        """
        if self._file is None:
            if self._wanted:
                self.open(wait_s=0)
            return
        if time.monotonic() - self._signed_at >= HEAD_EVERY_S:
            self.sign()
        if 0 < self._keep.file_bytes <= os.fstat(self._file).st_size:
            self.rotate()
        if time.monotonic() - self._retired_at >= RETIRE_EVERY_S:
            self._retired_at = time.monotonic()
            self.retire()

    def rotate(self) -> None:
        """Name the file after the lines in it, and begin a new one.

        Raises:
            AuditError: it cannot be moved, and is written on; or the new one cannot be opened.
        """
        self.sign()
        if self._file is None or self._first:
            return
        if not self._is_ours(self._file):  # somebody has moved it, and sent no SIGHUP yet
            self.open()
            return
        first = auditfiles.first_sequence(self._file) or self._sequence
        name = auditfiles.rotated_name(self.log, first, self._sequence)
        target = self.path.with_name(name)
        try:
            if target.exists() or target.is_symlink():
                raise FileExistsError(0, "there is one of this name")
            self.path.rename(target)
        except OSError as error:
            raise AuditError(
                f"cannot move the audit log to {target}: {error.strerror}",
                hint="look at the folder's mode, and move away what is in the way",
            ) from None
        self.open()
        self.retire()

    def retire(self) -> None:
        """Delete old files, each after a line about it that a head covers.

        Raises:
            AuditError: it could not be recorded, and nothing was deleted; or not be deleted.
        """
        try:
            old = self._old_files()
            for first, last, path in old:
                record = {"time": self._time(), "event": RETIRED, "file": path.name}
                end = auditfiles.last_chain(path)
                self._append({**record, "first": first, "last": last, "end": end})
            self.sign()
            for _, _, path in old:
                path.unlink()
        except OSError as error:
            raise AuditError(
                f"cannot delete an old file of the audit log: {error.strerror}",
                hint="look at the folder's mode",
            ) from None

    def _old_files(self) -> list[tuple[int, int, Path]]:
        """Those to delete, from the oldest on: what is left stays in one piece.

        By their signed ends alone: who can write to the folder can give any file any name and age.
        """
        if not (self._keep.files or self._keep.days):
            return []
        full, ended = [], []
        for first, last, path in auditfiles.rotated(self.path.parent, self.log):
            if (at := self._ended_at(first, last, path)) is not None:
                full.append((first, last, path))
                ended.append(at)
        if any(one[1] >= next_[0] for one, next_ in pairwise(full)):
            raise AuditError(
                f"two files in {self.path.parent} claim the same lines, so none is deleted",
                hint="see: coatcheck audit verify",
            )
        count = max(0, len(full) - self._keep.files) if self._keep.files else 0
        if self._keep.days:
            oldest = self._now() - self._keep.days * DAY_S
            while count < len(full) and ended[count] < oldest:
                count += 1
        return full[:count]

    def _ended_at(self, first: int, last: int, path: Path) -> float | None:
        """When the file was full, in seconds since the epoch, as the head at its end says; None
        where the key has not signed that it ends there."""
        if self._signer is None:
            return None
        with auditfiles.open_file(path) as file:
            begins, lines = auditfiles.ends_of(file.fileno())
        head = auditchain.signed_head(lines[0], self.log, self._signer) if lines else None
        if head is None or (begins, head.sequence) != (first, last):
            return None
        before = auditchain.parse(lines[1]) if len(lines) > 1 else None
        if before is None or sha256(before.chain + head.body).digest() != head.chain:
            return None  # what was signed is not what the line says
        try:
            return datetime.fromisoformat(head.record["time"]).timestamp()
        except (LookupError, TypeError, ValueError):
            return None

    def _time(self) -> str:
        return datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="milliseconds")
