"""The composition root: settings in, a running proxy out. The only file that knows every other.

`serve` is a proxy in one process. `work` is the same as one worker of several; what it has in
force, and when to begin and to end, goes between it and its supervisor.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from coatcheck import listening
from coatcheck.canary import Canary
from coatcheck.core import canary
from coatcheck.core.ports import CoatcheckError
from coatcheck.engine import harden, script, tls, via
from coatcheck.engine.addon import Abort, Ready
from coatcheck.engine.admission import Admission
from coatcheck.engine.dialer import Dialer
from coatcheck.engine.lane import Services
from coatcheck.engine.resolver import Resolver
from coatcheck.engine.server import ProxyServer, Shared
from coatcheck.listening import Address
from coatcheck.observe import logs, traces
from coatcheck.observe.auditfiles import MITMDUMP
from coatcheck.observe.auditlog import FileAuditLog, Keep, Keys
from coatcheck.observe.state import Facts, StateFile, WorkerState
from coatcheck.observe.totals import Report, Totals
from coatcheck.settings import Settings
from coatcheck.settings import load as load_settings
from coatcheck.store import auditkey, canarykey
from coatcheck.store.home import Home
from coatcheck.store.sql import SqlStore
from coatcheck.workers import process
from coatcheck.workers.entry import obey
from coatcheck.workers.link import Link, Task
from coatcheck.workers.reporter import Reporter, Values
from coatcheck.workers.shares import Shares
from coatcheck.workers.stop import Stop
from coatcheck.workers.worker import Tell, Worker

ONE = 1  # the number of a worker that is alone


async def serve(
    settings: Settings, *, ready: Callable[[list[Address]], None] | None = None
) -> None:
    """Run the proxy in this process until SIGTERM or SIGINT; a second one ends it at once.

    Args:
        ready: Called once with the addresses in use, when requests are taken.

    Raises:
        CoatcheckError: it cannot start; nothing was listening by then.
    """
    file = StateFile(Home(settings.home).run, settings.policy, time.time())
    totals = Totals(Home(settings.home).run)
    proxy = await _Proxy.prepared(settings, ONE, lambda facts: _show(file, facts))
    addresses = await proxy.server.start(*settings.listen)
    file.listen = proxy.worker.addresses = addresses
    proxy.worker.tell()
    stop = Stop()
    stop.on_signals(proxy.reload)
    logs.event("serve.ready", listen=", ".join(f"{h}:{p}" for h, p in addresses))
    if ready is not None:
        ready(addresses)

    def write(report: Report) -> None:
        totals.take(ONE, report)
        totals.write([_alone()])

    try:
        await proxy.run(stop, write, lambda: logs.event("serve.stopping"))
    finally:
        file.remove()
        totals.remove()
    logs.event("serve.stopped")


async def work(task: Task, supervisor: Link) -> None:
    """Be a worker until the supervisor, or a signal, says that it is over.

    Raises:
        CoatcheckError: it cannot start.
    """

    def tell(facts: Facts) -> None:
        supervisor.tell("facts", facts=facts)

    proxy = await _Proxy.prepared(task.settings, task.number, tell, task.admin)
    proxy.worker.addresses = list(task.addresses)
    stop = Stop()
    stop.on_signals(proxy.reload, patient=True)
    shares = Shares(*task.shares)
    supervisor.tell("prepared")

    async def go() -> None:
        proxy.server.take_from(
            listening.inherited(task.listeners),
            Shared(
                tell=partial(shares.tell, task.number),
                is_ahead=partial(shares.is_ahead, task.number),
                leave=partial(shares.leave, task.number),
            ),
        )

    obeying = asyncio.create_task(obey(supervisor, stop, go, proxy.reload))
    try:
        await proxy.run(stop, lambda report: supervisor.tell("metrics", report=report))
    finally:
        obeying.cancel()


class _Proxy:
    """What one process consists of."""

    def __init__(
        self,
        worker: Worker,
        resolver: Resolver,
        server: ProxyServer,
        spans: traces.Spans | None,
    ) -> None:
        self.worker = worker
        self.server = server
        self._spans = spans
        self._resolver = resolver
        self._reloading: set[asyncio.Task[None]] = set()

    @classmethod
    async def prepared(
        cls, settings: Settings, number: int, tell: Tell, admin: Sequence[Address] = ()
    ) -> _Proxy:
        """All that a request needs, with policy and store read. It listens nowhere yet.

        Args:
            admin: Where the admin side listens.

        Raises:
            CoatcheckError: something is missing or does not fit.
        """
        process.settle()  # before any value is read: what stays for good must hold none
        harden.process(os.environ)
        harden.memory()
        worker = _worker(settings, number, tell)
        resolver = _resolver(settings, worker, admin)
        authority = tls.load_authority(Home(settings.home).ca)
        spans = _spans(settings, worker)
        server = _server(settings, worker, resolver, authority, spans)
        await worker.refresh(force=True)
        return cls(worker, resolver, server, spans)

    async def run(
        self,
        stop: Stop,
        report: Callable[[Report], None],
        stopping: Callable[[], None] = lambda: None,
    ) -> None:
        """Stay current until *stop*, then end in order.

        Args:
            report: Takes the numbers, once a second and at the end.
            stopping: Called before the end begins.
        """
        watching = asyncio.create_task(self.worker.watch())
        reporter = Reporter(report, self.worker.meter, self._look)
        reporting = asyncio.create_task(reporter.run())
        try:
            await stop.wanted.wait()
            stopping()
            await self._drain(stop)
        finally:
            watching.cancel()
            reporting.cancel()
            await self.worker.note_uses()
            if self._spans is not None:
                self._spans.close()
            reporter.tell()
            self.worker.close()
            self._resolver.close()

    def _look(self) -> tuple[Values, Values]:
        """The counters and the gauges that are looked up."""
        server, made = self.server, self.server.tls
        counters: Values = {
            **self.worker.counters(),
            "certificates": {("hit",): made.hits, ("miss",): made.misses},
        }
        if self._spans is not None:
            counters = {**counters, "spans": self._spans.counts()}
        busy = sum(connection.has_upstream for connection in server.connections)
        gauges: Values = {
            **self.worker.gauges(),
            "clients_open": {(): len(server.connections)},
            "upstreams_open": {(): busy},
            "upstreams_resting": {(): len(server.pool)},
            "certificates_kept": {(): len(made)},
        }
        return counters, gauges

    async def _drain(self, stop: Stop) -> None:
        draining = asyncio.create_task(self.server.stop())
        at_once = asyncio.create_task(stop.at_once.wait())
        await asyncio.wait({draining, at_once}, return_when=asyncio.FIRST_COMPLETED)
        at_once.cancel()
        if not draining.done():
            draining.cancel()
            await self.server.stop(drain_s=0)

    def reload(self) -> None:
        """Read policy and store again, and open the audit log anew."""
        self.worker.reopen_audit()
        task = asyncio.get_running_loop().create_task(self.worker.refresh(force=True))
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)


async def set_up_addon(home: str, policy: str, abort: Abort) -> Ready:
    """Wire the addon that runs inside somebody's own mitmproxy (`engine.script`).

    Args:
        home, policy: As ``--home`` and ``--policy``; empty where they were not given.

    Raises:
        CoatcheckError: it cannot start.
    """
    flags = {"policy": policy} if policy else {}
    settings = load_settings(home=Path(home) if home else None, flags=flags, environ=os.environ)
    if settings.upstream_proxy is not None:
        raise CoatcheckError(
            "upstream_proxy has no effect inside a mitmproxy", hint="leave the setting out"
        )
    place = Home(settings.home)
    file = StateFile(place.run, settings.policy, time.time())
    # A log of its own: `coatcheck serve` may run beside it, with the same home.
    worker = _worker(settings, ONE, lambda facts: _show(file, facts, listens=False), log=MITMDUMP)
    tls.load_authority(place.ca)  # complains in our words
    script.use_authority(place.ca, tls.write_trusted(settings.upstream_ca, place.run))
    await worker.refresh(force=True)
    worker.watching = asyncio.create_task(worker.watch())
    resolver = _resolver(settings, worker)
    return Ready(worker.gateway, resolver, worker.networks, abort, logs.event)


def _show(file: StateFile, facts: Facts, *, listens: bool = True) -> None:
    """For `coatcheck status`, as soon as there is something to ask."""
    if file.listen or not listens:
        file.show([_alone(facts)])


def _alone(facts: Facts | None = None) -> WorkerState:
    return WorkerState(ONE, os.getpid(), ready=True, facts=facts or {})


def _worker(settings: Settings, number: int, tell: Tell, *, log: str = "") -> Worker:
    """Open home, store and audit log, and set up logging with the worker's net under it."""
    home = Home(settings.home)
    home.check()
    store = _open_store(settings, home)
    audit = FileAuditLog(
        home.audit,
        number,
        log=log,
        keys=Keys(auditkey.signing(home.audit_key, home.audit_public), home.audit_heads),
        keep=Keep.of(settings.limits),
    )
    audit.open()
    worker = Worker(settings, store, audit, tell)
    logs.configure(
        worker.gateway.opened_values,
        field_chars=settings.limits.log_field_chars,
        worker=number if settings.workers > 1 else None,
    )
    return worker


def _resolver(settings: Settings, worker: Worker, admin: Sequence[Address] = ()) -> Resolver:
    # The setting too: the admin side may run apart, or get its port later.
    return Resolver(own_sockets=lambda: [*worker.addresses, settings.admin, *admin])


def _open_store(settings: Settings, home: Home) -> SqlStore:
    return SqlStore.open(
        settings.store,
        public=home.read_public_key(),
        private=home.read_private_key(),
        grace_s=settings.limits.retired_grace_s,
    )


def _tunnels(settings: Settings) -> via.Tunnels | None:
    """The way through the upstream proxy, where there is one."""
    if settings.upstream_proxy is None:
        return None
    proxy = via.upstream_proxy(
        settings.upstream_proxy,
        settings.upstream_proxy_credential,
        lambda: tls.upstream_context(settings.upstream_proxy_ca or settings.upstream_ca),
        by_name=settings.upstream_proxy_connect == "name",
    )
    if (proxy.host, proxy.port) in (settings.listen, settings.admin):
        raise CoatcheckError("upstream_proxy is this proxy itself", hint="name the next one")
    return via.Tunnels(proxy, logs.event)


def _spans(settings: Settings, worker: Worker) -> traces.Spans | None:
    """What exports traces, where they are asked for."""
    if settings.traces_endpoint is None:
        return None
    return traces.Spans(
        traces.exporter(settings.traces_endpoint, settings.traces_ca),
        worker.gateway.opened_values,
        queue=settings.limits.trace_queue_spans,
    )


def _canary(settings: Settings, worker: Worker) -> Canary | None:
    """For `coatcheck doctor`. A proxy goes on without it; doctor then says that it did not try."""
    try:
        key = canarykey.shared(Home(settings.home).canary_key)
    except CoatcheckError as error:
        logs.event("canary.off", error=str(error))
        return None
    return Canary(worker.gateway, key, secrets.token_hex(canary.SALT_BYTES))


def _server(
    settings: Settings,
    worker: Worker,
    resolver: Resolver,
    authority: tls.Authority,
    spans: traces.Spans | None,
) -> ProxyServer:
    context = tls.upstream_context(settings.upstream_ca)
    dialer = Dialer(resolver, context, settings.limits, worker.networks, _tunnels(settings))
    services = Services(
        worker.gateway,
        logs.event,
        worker.meter,
        authority.default_ca.to_pem(),
        spans,
        _canary(settings, worker),
    )
    admission = Admission(settings.limits, logs.event, files=harden.open_files())
    return ProxyServer(
        services, tls.ClientTls(authority, settings.limits.certificates), dialer, admission
    )
