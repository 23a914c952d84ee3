"""What the gateway asks of the outside: a store, an audit log. The rest of the world is arguments.

Foreign errors stop at the adapter: it raises one of these, whose text names the thing and the
next step and never a value.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from coatcheck.core.secret import Secret, SecretValue


class CoatcheckError(Exception):
    """A problem that a person can mend. ``hint`` says how."""

    def __init__(self, problem: str, *, hint: str) -> None:
        super().__init__(f"{problem}; {hint}" if hint else problem)
        self.problem = problem
        self.hint = hint


class StoreError(CoatcheckError):
    """The store cannot be read or written, or a value cannot be opened."""


class AuditError(CoatcheckError):
    """The audit log cannot be written."""


@dataclass(frozen=True, slots=True)
class Used:
    """That a secret was put into requests.

    Attributes:
        at: When the last time, in seconds since the epoch.
        count: Into how many, since it was told before.
    """

    at: float
    count: int = 1


class StoreView(Protocol):
    """The store at one moment: immutable, so one request sees one version of everything."""

    @property
    def revision(self) -> int:
        """Counts up with every change of the store."""

    def find(self, name: str) -> Secret | None:
        """The secret of this exact name."""

    def secrets(self) -> Collection[Secret]:
        """All of them, in order of name."""

    def open(self, secret: Secret) -> SecretValue:
        """The value of the current version. Opened at the first call, then kept.

        Raises:
            StoreError: the value cannot be unsealed (wrong key, moved or changed record).
        """

    def former(self) -> Collection[Secret]:
        """What secrets were before their last changes: one for each version that was replaced
        less than the grace period ago, with the domains of that version. `open` takes them too.
        Their values are scrubbed, never injected."""


class SecretReader(Protocol):
    """What a proxy worker needs of a store."""

    def revision(self) -> int:
        """The current revision; cheap, asked several times a second.

        Raises:
            StoreError: the store is not readable.
        """

    def view(self) -> StoreView:
        """A view of the current revision.

        Raises:
            StoreError: the store is not readable.
        """

    def record_use(self, uses: Mapping[str, Used]) -> None:
        """Note when secrets (by id) were last injected, and how often since.

        Raises:
            StoreError: the store is not writable.
        """


class AuditLog(Protocol):
    """Where every decision is written before a byte of it leaves (promise G6)."""

    def write(self, record: Mapping[str, object]) -> None:
        """Append *record* as one line; when this returns, the line is with the operating system.

        Raises:
            AuditError: it could not be written. The caller refuses the request.
        """
