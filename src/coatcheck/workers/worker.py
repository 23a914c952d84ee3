"""A worker: the gateway of one process, and what keeps its snapshot current.

It looks at the policy file and at the store's revision a few times a second and swaps in a new
snapshot when either has changed. A policy that cannot be used leaves the last good one in force; a
store that cannot be read for `limits.store_stale_s` refuses everything. The policy file is looked
at by its status rather than by a notification: that sees an editor's rename, a Kubernetes link swap
and a network mount alike.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from coatcheck import policyfile
from coatcheck.core.meter import Labels, Meter
from coatcheck.core.policy import Network, Policy
from coatcheck.core.ports import AuditError, CoatcheckError, StoreError, StoreView
from coatcheck.core.secret import Secret, SecretValue
from coatcheck.core.snapshot import Snapshot
from coatcheck.core.spelling import TooLong
from coatcheck.gateway import Gateway
from coatcheck.observe import logs
from coatcheck.observe.auditlog import FileAuditLog
from coatcheck.observe.counted import CountedLog
from coatcheck.observe.state import Facts
from coatcheck.settings import Settings
from coatcheck.store import seen
from coatcheck.store.home import Home
from coatcheck.store.sql import SqlStore
from coatcheck.workers.sourcing import Sourcing
from coatcheck.yamlfile import stamp

USES_EVERY_S = 5.0  # how often "last used" is written down
SILENCE_LOOK_S = 0.5  # between two looks whether a store that is asked has been silent for too long

type Tell = Callable[[Facts], None]


class NoView:
    """Stands for a store that cannot be read: every question is an error."""

    revision = 0

    def __init__(self, why: str) -> None:
        self._error = StoreError(why, hint="see: coatcheck doctor")

    def find(self, name: str) -> Secret | None:
        raise self._error

    def secrets(self) -> Collection[Secret]:
        raise self._error

    def open(self, secret: Secret) -> SecretValue:
        raise self._error

    def former(self) -> Collection[Secret]:
        raise self._error


class PolicyFile:
    """The policy file as it was last seen."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error = ""
        self._seen: object = None

    def changed(self) -> bool:
        """Whether it is another file than at the last call. The first call says True."""
        now = stamp(self.path)
        changed, self._seen = now != self._seen, now
        return changed

    def read(self) -> Policy | None:
        """The policy, or None (and `error`) where it cannot be used."""
        try:
            policy = policyfile.read(self.path)
        except CoatcheckError as error:
            self.error = str(error)
            return None
        except Exception as error:  # a bug of the reader must not end the watch
            self.error = f"{self.path} cannot be read ({type(error).__name__})"
            return None
        self.error = ""
        return policy


class Worker:
    """A gateway, and what keeps it current."""

    def __init__(
        self, settings: Settings, store: SqlStore, log: FileAuditLog, tell: Tell | None = None
    ) -> None:
        """*tell* is called with what is in force whenever that has changed."""
        self._settings = settings
        self._tell = tell
        self._store = store
        self._audit = log
        self._audit_error = ""
        self._file = PolicyFile(settings.policy)
        self._policy = Policy()
        self._view: StoreView = NoView("the store was not read yet")
        self._sourcing = Sourcing(
            settings.sources_file, must_exist=settings.sources is not None, limits=settings.limits
        )
        self._store_error = ""
        self._store_seen = 0.0
        self._policy_loaded = 0.0  # since the epoch
        self.meter = Meter(time.perf_counter)
        # One thread for policy and store: a file of 10,000 grants takes seconds to parse, and a
        # locked database waits; neither may stall the event loop.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="refresh")
        self._listening = ThreadPoolExecutor(1, thread_name_prefix="listen")
        self.addresses: list[tuple[str, int]] = []
        self.watching: asyncio.Task[None] | None = None
        self.gateway = Gateway(
            Snapshot(self._policy, self._view),
            CountedLog(log, self.meter),
            settings.limits,
            now=time.time,
            new_id=lambda: secrets.token_hex(8),
        )

    def networks(self) -> tuple[Network, ...]:
        """The private networks that the policy in force lets clients reach."""
        return self.gateway.snapshot.policy.egress.networks

    async def refresh(self, *, force: bool = False) -> None:
        """Look at policy and store once; swap the snapshot if one has changed."""
        loop = asyncio.get_running_loop()
        policy_changed = self._file.changed() or force
        if policy_changed:
            await loop.run_in_executor(self._thread, self._read_policy)
        store_changed = await self._in_time(loop.run_in_executor(self._thread, self._read_store))
        sources_changed = await loop.run_in_executor(self._thread, self._sourcing.refresh)
        if policy_changed or store_changed or sources_changed:
            view = None
            while view is not self._view:  # given up meanwhile: see `_in_time`
                view = self._view
                snapshot = await loop.run_in_executor(self._thread, self._next_snapshot)
            self.gateway.install(snapshot)
            self.tell()

    def _next_snapshot(self) -> Snapshot:
        snapshot = Snapshot(self._policy, self._all(), self.gateway.snapshot)
        with suppress(StoreError, TooLong):  # said again to each request that meets it
            snapshot.warm()
        return snapshot

    def _all(self) -> StoreView:
        """The store, and over it what comes from sources."""
        if isinstance(self._view, NoView):
            return self._view
        try:
            return self._sourcing.over(self._view)
        except StoreError as error:
            return NoView(str(error))

    def _read_policy(self) -> None:
        policy = self._file.read()
        if policy is not None:
            self._policy = policy
            self._policy_loaded = time.time()
            logs.event("policy.loaded", path=str(self._file.path), digest=policy.digest[:12])
        else:
            logs.event("policy.refused", error=self._file.error)

    def _read_store(self) -> bool:
        try:
            revision = self._store.revision()
            changed = self._store_error != "" or revision != self._view.revision
            if changed:
                self._view = self._store.view()
                logs.event("store.loaded", revision=revision)
                self._say_if_older(revision)
            self._store_error = ""
            self._store_seen = time.monotonic()
            return changed
        except StoreError as error:
            return self._store_failed(str(error))
        except Exception as error:  # else an old view would stay in force for ever
            return self._store_failed(f"the store cannot be read ({type(error).__name__})")

    def _say_if_older(self, revision: int) -> None:
        path = Home(self._settings.home).seen
        if told := seen.look(path, self._store.store_id, revision).told():
            logs.event("store.older", warning=told, next=seen.ACCEPT)

    def _store_failed(self, why: str) -> bool:
        first = self._store_error == ""
        self._store_error = why
        if first:
            logs.event("store.unreadable", error=why)
        if self._is_stale() and not isinstance(self._view, NoView):
            self._view = NoView(why)
            return True
        return first

    async def watch(self) -> None:
        """Refresh for ever. What goes wrong is logged and tried again."""
        noted = time.monotonic()
        poll_s = self._settings.limits.store_poll_ms / 1000
        loop = asyncio.get_running_loop()
        while True:
            try:
                self.tend_audit()
                await loop.run_in_executor(self._listening, self._store.wait, poll_s)
                await self.refresh()
                if time.monotonic() - noted > USES_EVERY_S:
                    noted = time.monotonic()
                    await self.note_uses()
            except Exception as error:  # a watcher that has died would keep old grants alive
                logs.event("watch.failed", error=type(error).__name__)
                await asyncio.sleep(poll_s)

    async def _in_time[T](self, work: asyncio.Future[T]) -> T:
        """Wait for what the store is asked. One that says nothing lets us wait for long: what was
        read of it before is given up in time all the same."""
        while not (await asyncio.wait({work}, timeout=SILENCE_LOOK_S))[0]:
            if self._is_stale() and not isinstance(self._view, NoView):
                self._view = NoView("the store has said nothing for too long")
                self.gateway.install(Snapshot(self._policy, self._view))
                self.tell()
        return work.result()

    def _is_stale(self) -> bool:
        return time.monotonic() - self._store_seen > self._settings.limits.store_stale_s

    async def note_uses(self) -> None:
        """Write down which secrets were used, and when."""
        uses = self.gateway.drain_uses()
        if not uses:
            return
        loop = asyncio.get_running_loop()
        try:
            work = loop.run_in_executor(self._thread, self._store.record_use, uses)
            await self._in_time(work)
        except StoreError as error:
            logs.event("store.use_not_recorded", error=str(error))

    def close(self) -> None:
        """Let go of store and log."""
        self._sourcing.close()
        self._thread.shutdown(wait=True)
        self._listening.shutdown(wait=True)
        self._store.close()
        self._audit.close()

    def reopen_audit(self) -> None:
        """For SIGHUP: whoever rotates the log has moved the file away."""
        try:
            self._audit.open()
        except AuditError as error:
            logs.event("audit.unavailable", error=str(error))

    def gauges(self) -> dict[str, dict[Labels, float]]:
        """What is in force as numbers, for the metrics."""
        unseen_s = time.monotonic() - self._store_seen
        return {
            "policy": {(self.gateway.snapshot.policy.digest,): 1},
            "policy_loaded": {(): self._policy_loaded},
            "policy_valid": {(): int(not self._file.error)},
            "store_read": {(): time.time() - unseen_s},
            "store_readable": {(): int(not self._store_error)},
            "store_revision": {(): self._view.revision},
            **self._sourcing.gauges(),
        }

    def counters(self) -> dict[str, dict[Labels, float]]:
        """What is counted elsewhere than where requests pass, for the metrics."""
        return self._sourcing.counters()

    def tend_audit(self) -> None:
        """Sign what the audit log got, begin a new file, delete old ones."""
        try:
            self._audit.tend()
        except AuditError as error:
            if str(error) != self._audit_error:  # it is tried again four times a second
                logs.event("audit.not_kept", error=str(error))
            self._audit_error = str(error)
        else:
            self._audit_error = ""

    def tell(self) -> None:
        """Say what is in force."""
        if self._tell is None:
            return
        self._tell(
            {
                "policy": {
                    "digest": self.gateway.snapshot.policy.digest,
                    "error": self._file.error,
                },
                "store": {"revision": self._view.revision, "error": self._store_error},
                "sources": self._sourcing.facts(),
            }
        )
