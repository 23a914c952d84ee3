"""Who changed what: the audit log of commands and of the management API, never a value.

A change has two lines: ``begun`` before it is made, and ``done`` or ``failed`` after, with one
``id``. Where the first cannot be written the change is not made (`AuditError`,
``audit_unavailable``). So a change whose process was killed shows too, as one that has no end.

How it is called::

    log = ManagementLog(home.audit, Keys(auditkey.signing(...), home.audit_heads))
    with log.recorded("token:deploy", Change("secret.set", secret=name, domains=domains)) as end:
        secret = store.put(...)
        end.version = secret.version

What kind of actor it is stands in front of a colon: ``os`` (a user of the machine), ``token`` (the
name of an API token), ``oidc`` (a subject). Several processes write this one log, each for the
moment that a line takes: it is opened, locked, written, signed and closed for each. That takes
milliseconds, and longer where others write (`auditlog.LOCK_WAIT_S`): an event loop calls it in a
thread.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from coatcheck.core.limits import Limits
from coatcheck.core.ports import AuditError
from coatcheck.observe.auditfiles import MANAGEMENT
from coatcheck.observe.auditlog import FileAuditLog, Keep, Keys

EVENT = "management"
FIELD_CHARS = Limits().audit_field_chars
MOST_ITEMS = 100  # of a list


@dataclass(frozen=True, slots=True)
class Change:
    """What is about to be done. Names and places alone; what is empty is left out.

    Attributes:
        action: Such as ``secret.set``.
        secret: Its name; of a new name too, where it gets one.
        client: The name of a client of the policy.
        subject: What it is done to, where that is no secret and no client: an API token's name.
        domains: Those that are asked for.
        changed: Which of its parts are set: ``value``, ``domains``, ``description``, ``name``.
        target: A file or a database, without its password.
        forced: A refusal was overridden.
    """

    action: str
    secret: str = ""
    new_name: str = ""
    client: str = ""
    subject: str = ""
    domains: Sequence[str] = ()
    changed: Sequence[str] = ()
    target: str = ""
    forced: bool = False


@dataclass(slots=True)
class End:
    """What is known only when it is done."""

    version: int = 0
    target: str = ""


class ManagementLog:
    """The log *audit-management* in the folder of the others."""

    def __init__(
        self,
        folder: Path,
        keys: Keys,
        *,
        keep: Keep | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._keys = keys
        self._keep = keep
        self._now = now

    @contextmanager
    def recorded(self, actor: str, change: Change) -> Iterator[End]:
        """Record that *actor* makes *change* in this block, and how it ended.

        Raises:
            AuditError: the beginning could not be written, and the block was not entered; or its
                end could not, and it was.
        """
        about = {"actor": _cut(actor), "id": secrets.token_hex(8), **_shown(asdict(change))}
        try:
            self._write({**about, "outcome": "begun"})
        except AuditError as error:
            raise AuditError(
                f"audit_unavailable: {error.problem}; nothing was changed", hint=error.hint
            ) from None
        end = End()
        try:
            yield end
        except BaseException as error:
            with suppress(AuditError):  # then it has no end, and shows by that
                self._write({**about, "outcome": "failed", "error": type(error).__name__})
            raise
        try:
            self._write({**about, **_shown(asdict(end)), "outcome": "done"})
        except AuditError as error:
            raise AuditError(
                f"audit_unavailable: {error.problem}; the change was made, and its end is not on"
                " record",
                hint=error.hint,
            ) from None

    def note(self, actor: str, change: Change) -> None:
        """Record what is done already.

        Raises:
            AuditError: it could not be written.
        """
        about = {"actor": _cut(actor), "id": secrets.token_hex(8), **_shown(asdict(change))}
        self._write({**about, "outcome": "done"})

    def _write(self, record: dict[str, object]) -> None:
        log = FileAuditLog(
            self._folder, None, log=MANAGEMENT, keys=self._keys, keep=self._keep, now=self._now
        )
        time = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="milliseconds")
        log.open()
        try:
            log.write({"time": time, "event": EVENT, **record})
            log.tend()
        finally:
            log.close()


def _shown(fields: dict[str, object]) -> dict[str, object]:
    return {key: _cut(value) for key, value in fields.items() if value}


def _cut(value: object) -> object:
    if isinstance(value, str):
        return value if len(value) <= FIELD_CHARS else value[:FIELD_CHARS] + "…"
    if isinstance(value, (list, tuple)):
        items = [_cut(str(item)) for item in value[:MOST_ITEMS]]
        return items if len(value) <= MOST_ITEMS else [*items, "…"]
    return value
