"""How the proxy is: its workers, as they tell of themselves, and whether it is ready.

What workers have in force they tell their supervisor, and that writes it into the state file
(`observe.state`). An admin side that runs apart from them (``--role admin``) sees no such file, and
then speaks of policy and store alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coatcheck.admin.policy_service import PolicyService
from coatcheck.admin.roles import Actor, Role
from coatcheck.core.ports import StoreError
from coatcheck.core.secret import Secret
from coatcheck.observe import metrics, state
from coatcheck.store.sql import SqlStore


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """One worker.

    Attributes:
        version: Of the secret that was asked for; None where it cannot be told.
    """

    number: int
    pid: int | None
    ready: bool
    restarts: int
    last_end: str
    policy_digest: str
    policy_error: str
    store_revision: int
    store_error: str


@dataclass(frozen=True, slots=True)
class ProxyFacts:
    """The proxy as a whole; nothing of it where none runs with this home."""

    running: bool
    version: str
    started_at: str
    listen: Sequence[str]
    workers: Sequence[WorkerFacts]


class Health:
    def __init__(self, run: Path, store: SqlStore, policy: PolicyService, role: str) -> None:
        self._run = run
        self._store = store
        self._policy = policy
        self._role = role

    def proxy(self, actor: Actor) -> ProxyFacts:
        """The proxy and its workers."""
        actor.require(Role.VIEWER)
        return self._proxy()

    def metrics(self, actor: Actor) -> tuple[bytes, str]:
        """What a scrape gets, and its Content-Type."""
        actor.require(Role.VIEWER)
        return metrics.exposition(self._run)

    def revision(self) -> int:
        """Of the store; counts up with every change."""
        return self._store.revision()

    def in_force(self, actor: Actor, secret: Secret) -> Sequence[tuple[WorkerFacts, int | None]]:
        """Each worker, with the version of *secret* that it has in force.

        A worker says which revision of the store it has. If that is the newest one, so is the
        version; if not, the version is not known (None), and a second later it mostly is.
        """
        actor.require(Role.VIEWER)
        newest = self._store.revision()
        return [
            (worker, secret.version if worker.store_revision == newest else None)
            for worker in self._proxy().workers
        ]

    def reasons(self) -> list[str]:
        """Why the proxy is not ready, in words that tell strangers nothing; none: it is."""
        found = []
        proxy = self._proxy()
        if self._policy.look().policy is None or any(w.policy_error for w in proxy.workers):
            found.append("policy_error")
        try:
            self._store.revision()
        except StoreError:
            found.append("store_unavailable")
        else:
            if any(worker.store_error for worker in proxy.workers):
                found.append("store_unavailable")
        if self._role != "admin" and not any(worker.ready for worker in proxy.workers):
            found.append("no_worker_ready")
        return found

    def _proxy(self) -> ProxyFacts:
        found = state.read(self._run)
        if found is None or not state.is_alive(found.get("pid")):
            return ProxyFacts(False, "", "", (), ())
        listed = found.get("listen")
        return ProxyFacts(
            True,
            str(found.get("version") or ""),
            str(found.get("started_at") or ""),
            [f"{a[0]}:{a[1]}" for a in listed] if isinstance(listed, list) else [],
            [_facts(worker) for worker in state.workers_of(found)],
        )


def _facts(worker: Mapping[str, Any]) -> WorkerFacts:
    policy, store = worker.get("policy") or {}, worker.get("store") or {}
    return WorkerFacts(
        int(worker.get("number") or 0),
        worker.get("pid"),
        bool(worker.get("ready")),
        int(worker.get("restarts") or 0),
        str(worker.get("last_end") or ""),
        str(policy.get("digest") or ""),
        str(policy.get("error") or ""),
        int(store.get("revision") or 0),
        str(store.get("error") or ""),
    )
