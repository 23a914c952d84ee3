"""The admin process: settings in, a server out. It reads the public key and no other.

It is kept by the supervisor as a worker is (`workers.slot`), and hears the same words. It does not
import mitmproxy, never asks for the private key, and opens the store with the public one, which
seals and cannot open. That it cannot read the key's file takes another user (SECURITY.md).
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvicorn

from coatcheck import listening
from coatcheck.admin.actions import Actions
from coatcheck.admin.auth import Authenticator
from coatcheck.admin.connection import Connection
from coatcheck.admin.oidc import Issuer, IssuerError
from coatcheck.admin.service import Service
from coatcheck.admin.sessions import Sessions
from coatcheck.admin.shield import App
from coatcheck.admin.ui.site import make_site
from coatcheck.core.ports import AuditError
from coatcheck.listening import Listener
from coatcheck.observe import logs
from coatcheck.observe.auditlog import Keep, Keys
from coatcheck.settings import Settings
from coatcheck.store import auditkey
from coatcheck.store.home import Home
from coatcheck.store.sql import SqlStore
from coatcheck.workers import process
from coatcheck.workers.entry import obey
from coatcheck.workers.link import Link, Task
from coatcheck.workers.stop import Stop

KEEP_ALIVE_S = 15
TEND_S = 0.5
DRAINED_S = 3  # what is under way may take so long at the end


async def work(task: Task, supervisor: Link) -> None:
    """Be the admin process until the supervisor, or a signal, says that it is over.

    Raises:
        CoatcheckError: it cannot start.
    """
    admin = Admin(task.settings)
    stop = Stop()
    stop.on_signals(admin.reload, patient=True)
    process.settle()
    supervisor.tell("prepared")

    async def go() -> None:
        await admin.serve(listening.inherited(task.listeners))

    obeying = asyncio.create_task(obey(supervisor, stop, go, admin.reload))
    tending = asyncio.create_task(admin.tend())
    try:
        await stop.wanted.wait()
        await admin.stop(at_once=stop.at_once)
    finally:
        obeying.cancel()
        tending.cancel()
        admin.close()


class Admin:
    """What the process consists of.

    Raises:
        CoatcheckError: something is missing or does not fit.
    """

    def __init__(self, settings: Settings) -> None:
        home = Home(settings.home)
        public = home.read_public_key()
        home.check()
        issuer = issuer_of(settings)
        _warn_of_plain_http(settings)
        limits = settings.limits
        self._store = SqlStore.open(settings.store, public=public, grace_s=limits.retired_grace_s)
        self._actions = Actions(
            home.audit,
            keys=Keys(auditkey.signing(home.audit_key, home.audit_public), home.audit_heads),
            keep=Keep.of(limits),
        )
        self._actions.open()
        sessions = Sessions(limits.admin_session_idle_s, limits.admin_session_s)
        auth = Authenticator(self._store, sessions, issuer, self._actions.refused)
        service = Service.over(settings, self._store, self._actions)
        self._server = _Server(make_site(settings, service, auth))
        self._serving: asyncio.Task[None] | None = None

    async def serve(self, listeners: Sequence[Listener]) -> None:
        """Take requests from *listeners*; returns when it does."""
        serving = asyncio.create_task(self._server.serve([*listeners]))
        self._serving = serving
        while not self._server.started and not serving.done():  # noqa: ASYNC110 it tells nobody
            await asyncio.sleep(0.01)
        if serving.done():
            serving.result()

    async def stop(self, *, at_once: asyncio.Event) -> None:
        """Let what is under way end, for a moment."""
        if self._serving is None:
            return
        self._server.should_exit = True
        ending = asyncio.create_task(at_once.wait())
        await asyncio.wait({self._serving, ending}, return_when=asyncio.FIRST_COMPLETED)
        self._server.force_exit = True
        ending.cancel()
        await asyncio.wait({self._serving}, timeout=DRAINED_S)

    def reload(self) -> None:
        """For SIGHUP: whoever rotates the log has moved the file away."""
        try:
            self._actions.open()
        except AuditError as error:
            logs.event("audit.unavailable", error=str(error))

    async def tend(self) -> None:
        """Look after the audit log, for ever."""
        told = ""
        while True:
            await asyncio.sleep(TEND_S)
            try:
                await asyncio.to_thread(self._actions.tend)
                told = ""
            except AuditError as error:
                if str(error) != told:
                    told = str(error)
                    logs.event("audit.not_kept", error=told)

    def close(self) -> None:
        self._actions.close()
        self._store.close()


class _Server(uvicorn.Server):
    """uvicorn's, without its hands on signals and logs."""

    def __init__(self, app: App) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=DRAINED_S,
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def issuer_of(settings: Settings) -> Issuer | None:
    """Whose JWTs are taken; None where none is configured.

    Raises:
        IssuerError: the settings of the issuer are not complete, or cannot be used.
    """
    issuer, audience, jwks = settings.oidc_issuer, settings.oidc_audience, settings.oidc_jwks
    if issuer is None and audience is None and jwks is None:
        return None
    if issuer is None or audience is None or jwks is None:
        raise IssuerError(
            "the settings oidc_issuer, oidc_audience and oidc_jwks go together",
            hint="set all three, or none",
        )
    made = Issuer(issuer, audience, jwks, settings.oidc_role_claim)
    made.check()
    return made


def _warn_of_plain_http(settings: Settings) -> None:
    host = settings.admin[0]
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local:
        logs.event("admin.plain_http", listen=host)
