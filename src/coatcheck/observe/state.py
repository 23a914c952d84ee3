"""The state file ``run/state.json``: what a running proxy says of itself, for ``coatcheck status``.

A file and no socket: it needs no port, no credential, and is there even when the proxy hangs. It
is replaced as a whole, so a reader never sees half of it. One process writes it, and speaks for all
its workers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coatcheck import __version__
from coatcheck.observe import logs

FILE_NAME = "state.json"
ADMIN_FILE_NAME = "state-admin.json"  # of an admin side that runs apart: ``--role admin``

type Facts = Mapping[
    str, Mapping[str, Any]
]  # what a worker has in force: "policy", "store" and "sources"


@dataclass(slots=True)
class WorkerState:
    """One worker, as the state file shows it.

    Attributes:
        pid: None while there is no process.
        ready: It takes connections.
        restarts: How often a process was started in the place of one that had ended.
        last_end: How the last one ended: the name of a signal, or ``exit code N``.
    """

    number: int
    pid: int | None = None
    ready: bool = False
    restarts: int = 0
    last_end: str = ""
    facts: Facts = field(default_factory=dict)

    def shown(self) -> dict[str, object]:
        return {
            "number": self.number,
            "pid": self.pid,
            "ready": self.ready,
            "restarts": self.restarts,
            "last_end": self.last_end,
            "policy": self.facts.get("policy"),
            "store": self.facts.get("store"),
            "sources": self.facts.get("sources"),
        }


class StateFile:
    """The file of one run."""

    def __init__(self, folder: Path, policy: Path, started: float, name: str = FILE_NAME) -> None:
        """*started*: seconds since the epoch."""
        self.listen: Sequence[tuple[str, int]] = ()
        self.admin: Sequence[tuple[str, int]] = ()
        self._folder = folder
        self._name = name
        self._policy = policy
        self._written = False
        self._started = datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds")

    def show(self, workers: Sequence[WorkerState], admin: WorkerState | None = None) -> None:
        """Write the file anew; *admin*: the admin process, where there is one."""
        told = [worker.facts for worker in workers if worker.facts]
        record = {
            "version": __version__,
            "pid": os.getpid(),
            "listen": [list(address) for address in self.listen],
            "started_at": self._started,
            "policy": {"path": str(self._policy), **_policy_of_all(told)},
            "sources": _sources_of_all(told),
            "store": _store_of_all(told),
            "workers": [worker.shown() for worker in workers],
        }
        if admin is not None:
            record["admin"] = {
                "listen": [list(address) for address in self.admin],
                "pid": admin.pid,
                "ready": admin.ready,
                "restarts": admin.restarts,
                "last_end": admin.last_end,
            }
        try:
            write(self._folder, record, self._name)
            self._written = True
        except OSError as error:
            logs.event("state.not_written", error=type(error).__name__)

    def remove(self) -> None:
        """At the end of the run. What another run has written is left alone."""
        if self._written:
            remove(self._folder, self._name)


def _policy_of_all(told: Sequence[Facts]) -> dict[str, str]:
    """The digest is empty while workers differ: a change is on its way."""
    digests = {facts["policy"]["digest"] for facts in told}
    errors = [facts["policy"]["error"] for facts in told if facts["policy"]["error"]]
    return {"digest": digests.pop() if len(digests) == 1 else "", "error": "".join(errors[:1])}


def _store_of_all(told: Sequence[Facts]) -> dict[str, object]:
    """The revision is the oldest that any worker has in force."""
    revisions = [facts["store"]["revision"] for facts in told]
    errors = [facts["store"]["error"] for facts in told if facts["store"]["error"]]
    return {"revision": min(revisions, default=0), "error": "".join(errors[:1])}


def _sources_of_all(told: Sequence[Facts]) -> dict[str, object]:
    """Each worker asks by itself: the error is that of the first that has one."""
    found = [facts["sources"] for facts in told if "sources" in facts]
    errors = [one["error"] for one in found if one["error"]]
    return {
        "count": max((one["count"] for one in found), default=0),
        "error": "".join(errors[:1]),
    }


def write(folder: Path, state: Mapping[str, object], name: str = FILE_NAME) -> None:
    """Replace the state file, or another one beside it. Raises `OSError`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = folder / f".{name}.{os.getpid()}"
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(file, "w", encoding="ascii") as out:
        json.dump(state, out)
    draft.replace(folder / name)


def read(folder: Path, name: str = FILE_NAME) -> dict[str, Any] | None:
    """What was written last, or None where no proxy has written anything."""
    try:
        state = json.loads((folder / name).read_text("ascii"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) else None


def workers_of(state: Mapping[str, object]) -> list[dict[str, Any]]:
    """The workers in what `read` returned; none where an older version has written it."""
    listed = state.get("workers")
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def is_alive(pid: object) -> bool:
    """Whether a process of this number runs (it may belong to another user)."""
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def remove(folder: Path, name: str = FILE_NAME) -> None:
    """Take the state file away at the end of a run, or another one beside it."""
    (folder / name).unlink(missing_ok=True)
