"""The audit line of each change that somebody makes here: who, what, on which secret; no value.

It is written before the change is made, inside the transaction that makes it: a change that cannot
be recorded is not made. One that fails after all gets a second line.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from coatcheck.admin.problems import ApiProblem, Code
from coatcheck.admin.roles import Actor
from coatcheck.core.ports import AuditError
from coatcheck.observe.auditlog import FileAuditLog, Keep, Keys

LOG = "audit-admin"
FILE_NAME = f"{LOG}.jsonl"
NUMBER = 0  # instead of a worker's


class Actions:
    """Writes the lines, chained and signed as those of workers. May be used by several threads."""

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float] = time.time,
        *,
        keys: Keys | None = None,
        keep: Keep | None = None,
    ) -> None:
        self._log = FileAuditLog(folder, NUMBER, log=LOG, keys=keys, keep=keep, now=clock)
        self._clock = clock
        self._lock = threading.Lock()

    def open(self) -> None:
        """Open the file, or open it anew after it was moved away. Raises `AuditError`."""
        with self._lock:
            self._log.open()

    def tend(self) -> None:
        """Sign what was written, begin a new file, delete old ones. Raises `AuditError`."""
        with self._lock:
            self._log.tend()

    def close(self) -> None:
        with self._lock:
            self._log.close()

    def record(self, actor: Actor, action: str, *, decision: str = "allow", **about: str) -> None:
        """Write one line.

        Raises:
            ApiProblem: audit_unavailable.
        """
        try:
            self._write(
                {
                    "event": "admin",
                    "action": action,
                    "decision": decision,
                    "by": actor.name,
                    "role": str(actor.role),
                    "address": actor.address,
                    **about,
                }
            )
        except AuditError:
            raise ApiProblem(Code.AUDIT_UNAVAILABLE, hint="see: coatcheck doctor") from None

    def refused(self, address: str) -> None:
        """Somebody showed a wrong credential. What cannot be written is refused all the same."""
        try:
            self._write(
                {
                    "event": "admin",
                    "action": "log_in",
                    "decision": "refuse",
                    "code": str(Code.UNAUTHENTICATED),
                    "address": address,
                }
            )
        except AuditError:
            return

    @contextmanager
    def noting_failure(self, actor: Actor, action: str, **about: str) -> Iterator[list[bool]]:
        """Round a change whose line is written within: if it fails after that, that is written too.

        Yields a list that is not empty any more once the line was written.
        """
        written: list[bool] = []
        try:
            yield written
        except Exception as error:
            if written:
                code = str(error.code) if isinstance(error, ApiProblem) else "internal_error"
                self.record(actor, action, decision="failed", code=code, **about)
            raise

    def _write(self, record: dict[str, object]) -> None:
        with self._lock:
            now = datetime.fromtimestamp(self._clock(), UTC)
            self._log.write({"time": now.isoformat(timespec="milliseconds"), **record})
