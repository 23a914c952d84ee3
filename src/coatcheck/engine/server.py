"""Listeners and connections: each client gets a handler of ours with a lane on top.

mitmproxy's `LiveConnectionHandler` moves bytes between sockets and layers. Ours differs where a
stock one fails open, hangs or tells too much: a crash closes the connection; nothing that
mitmproxy would log is passed on; and an upstream connection is made in one place (`Dialer`),
which resolves once, vets every address, dials a vetted one and verifies TLS for the destination
before the layer hears of the connection at all. No Master, no addons and no option files run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable

from mitmproxy import options
from mitmproxy.connection import ConnectionState, Server
from mitmproxy.proxy import commands, events, mode_specs
from mitmproxy.proxy import server as mserver
from mitmproxy.proxy.layers.tls import (
    TlsClienthelloHook,
    TlsFailedClientHook,
    TlsStartClientHook,
)

from coatcheck.core.limits import Limits
from coatcheck.core.policy import Network
from coatcheck.core.ports import CoatcheckError
from coatcheck.core.problems import Code, Refused, refuse
from coatcheck.engine import harden
from coatcheck.engine.admission import Admission, Ticket
from coatcheck.engine.lane import Lane, Services, Silence
from coatcheck.engine.resolver import Resolver
from coatcheck.engine.tls import ClientTls

BACKLOG = 1024
ACCEPTED_AT_ONCE = 64  # in one turn of the loop; asyncio also tries so often when files run out
LOOK_S = 5.0  # how often a connection is looked at for silence, at least
SERVER_NAME = 0  # the type of the TLS extension (RFC 6066, section 3)
UNREADABLE_NAME = "\0"
DRAIN_S = 10.0  # how long open connections may go on after SIGTERM
DRAIN_LOOK_S = 0.05  # how often they are looked at meanwhile
CLOSE_S = 2.0  # how long they may take to close in the end

type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class ListenError(CoatcheckError):
    """The listening address cannot be had."""


class Dialer:
    """Makes upstream connections: the one place where an address is dialled (G1)."""

    def __init__(
        self,
        resolver: Resolver,
        context: ssl.SSLContext,
        limits: Limits,
        networks: Callable[[], tuple[Network, ...]],
    ) -> None:
        self._resolver = resolver
        self._context = context
        self._limits = limits
        self._networks = networks

    async def dial(self, host: str, port: int, *, tls: bool) -> Streams:
        """A connection to *host*; with *tls*, one whose certificate was verified for *host*.

        Raises:
            Refused: address_not_allowed, upstream_unreachable or upstream_tls_failed.
        """
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                addresses = await self._resolver.resolve(host, port, allowed=self._networks())
                sock = await _connect(addresses, port)
        except TimeoutError:
            raise refuse(Code.UPSTREAM_UNREACHABLE, host=host) from None
        if not tls:
            return await asyncio.open_connection(sock=sock)
        try:
            return await asyncio.open_connection(
                sock=sock,
                ssl=self._context,
                server_hostname=host,
                ssl_handshake_timeout=self._limits.tls_handshake_timeout_s,
            )
        except (OSError, ssl.SSLError, ssl.CertificateError, ValueError, EOFError):
            # ssl's words may quote names out of the upstream's certificate.
            sock.close()
            raise refuse(Code.UPSTREAM_TLS_FAILED, host=host) from None


async def _connect(addresses: list[str], port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, (address, port))
            if sock.getpeername()[0] == address:
                return sock
        except OSError:
            pass  # the next address, if there is one
        except BaseException:
            sock.close()
            raise
        sock.close()
    raise refuse(Code.UPSTREAM_UNREACHABLE)


class _Watchdog(mserver.TimeoutWatchdog):
    """As mitmproxy's, but the limit depends on what the lane is waiting for, and it goes on."""

    def __init__(
        self,
        limit_s: Callable[[], float],
        callback: Callable[[], Awaitable[None]],
        look_s: float,
    ):
        super().__init__(1, callback)
        self._limit_s = limit_s
        self._look_s = look_s  # the longest sleep: the limit may change meanwhile

    async def watch(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await self.can_timeout.wait()
                left = self.last_activity + self._limit_s() - time.time()
                await asyncio.sleep(max(0.05, min(left, self._look_s)))
                if self.last_activity + self._limit_s() < time.time():
                    self.register_activity()
                    await self.callback()


class Handler(mserver.LiveConnectionHandler):
    """One client connection."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        opts: options.Options,
        services: Services,
        tls: ClientTls,
        dialer: Dialer,
        ticket: Ticket,
    ) -> None:
        super().__init__(reader, writer, opts, mode_specs.ProxyMode.parse("regular"))
        self._lane = Lane(self.layer.context, services, ticket=ticket)
        self.layer = self._lane
        self._services = services
        self._tls = tls
        self._dialer = dialer
        self._may_read = asyncio.Event()
        self._may_read.set()
        limits = services.gateway.limits
        look_s = min(LOOK_S, limits.idle_timeout_s, limits.response_timeout_s)
        self.timeout_watchdog = _Watchdog(self._quiet_limit_s, self._on_silence, look_s)

    async def handle_hook(self, hook: commands.StartHook) -> None:
        if isinstance(hook, TlsClienthelloHook):
            hello = hook.data.client_hello
            if hello.sni is None and any(kind == SERVER_NAME for kind, _ in hello.extensions):
                # mitmproxy reads a name that is no host as none; the lane refuses this one.
                self.client.sni = UNREADABLE_NAME
        elif isinstance(hook, TlsStartClientHook):
            try:
                self._tls.start(hook.data)
            except Exception as error:  # fail closed: without a connection in it mitmproxy closes
                hook.data.ssl_conn = None
                self._services.log("client.tls_not_started", error=type(error).__name__)
        elif isinstance(hook, TlsFailedClientHook):
            # Nearly always a client that does not trust our CA.
            address = hook.data.context.server.address
            self._services.log("client.tls_failed", host=address[0] if address else "")

    def log(self, message: str, level: int = logging.INFO, exc_info: object = None) -> None:
        """mitmproxy's texts may quote bytes of traffic: none is passed on, but a crash of a
        layer closes the connection, which mitmproxy would leave hanging."""
        if exc_info:
            self._services.log("engine.crash", what="layer")
            for transport in list(self.transports.values()):
                if transport.handler:
                    transport.handler.cancel("crash")

    async def open_connection(self, command: commands.OpenConnection) -> None:
        server = command.connection
        if not isinstance(server, Server) or server.address is None:
            await self._opened(command, str(Code.INTERNAL_ERROR))
            return
        host, port = server.address[0], server.address[1]
        # What the client sends meanwhile waits in its socket, not in our memory.
        self._may_read.clear()
        try:
            with self.timeout_watchdog.disarm():
                reader, writer = await self._dialer.dial(host, port, tls=bool(server.tls))
        except Refused as refused:
            await self._opened(command, str(refused.problem.code))
            return
        except asyncio.CancelledError:
            self.transports.pop(server, None)
            raise
        except Exception as error:  # fail closed: no connection
            self._services.log("dial.internal_error", error=type(error).__name__)
            await self._opened(command, str(Code.INTERNAL_ERROR))
            return
        finally:
            self._may_read.set()
        server.state = ConnectionState.OPEN
        server.peername = writer.get_extra_info("peername")
        server.sockname = writer.get_extra_info("sockname")
        self.transports[server] = mserver.ConnectionIO(
            handler=asyncio.current_task(), reader=reader, writer=writer
        )
        await self._opened(command, None)
        await self.handle_connection(server)

    async def _opened(self, command: commands.OpenConnection, error: str | None) -> None:
        if error is not None:
            self.transports.pop(command.connection, None)
        await self.server_event(events.OpenConnectionCompleted(command, error))

    async def drain_writers(self) -> None:
        await super().drain_writers()
        await self._may_read.wait()

    def _quiet_limit_s(self) -> float:
        return self._lane.at_work.quiet_limit_s

    async def _on_silence(self) -> None:
        await self.server_event(Silence())

    @property
    def idle(self) -> bool:
        """No request is under way."""
        return self._lane.at_work.idle

    def abort(self) -> None:
        """Close everything now."""
        for transport in list(self.transports.values()):
            if transport.handler:
                transport.handler.cancel("shutdown")


class ProxyServer:
    """The listening sockets and the connections that came in by them."""

    """Raises `UnsafeError` when it is made with a mitmproxy that it does not fit."""

    def __init__(
        self,
        services: Services,
        tls: ClientTls,
        dialer: Dialer,
        admission: Admission | None = None,
    ) -> None:
        harden.symbols()
        self._admission = admission or Admission(services.gateway.limits, services.log)
        self._options = harden.safe_options()
        self._services = services
        self._tls = tls
        self._dialer = dialer
        self._handlers: dict[asyncio.Task[None], Handler] = {}
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> list[tuple[str, int]]:
        """Listen; returns the addresses in use (port 0 asks for a free one).

        Raises:
            ListenError: the address is taken, or not ours.
        """
        try:
            self._server = await asyncio.start_server(
                self._accept, host, port, backlog=ACCEPTED_AT_ONCE, reuse_address=True
            )
        except OSError as error:
            # asyncio passes over addresses that are not ours, and has no number for "none left".
            why = error.strerror or "no such address on this machine"
            raise ListenError(
                f"cannot listen on {host}:{port}: {why}",
                hint="stop what is using the port, or choose another with --listen HOST:PORT",
            ) from None
        for sock in self._server.sockets:
            with sock.dup() as same:
                same.listen(BACKLOG)
        return [sock.getsockname()[:2] for sock in self._server.sockets]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        peer = writer.get_extra_info("peername")
        ticket = self._admission.admit(peer[0] if peer else "", writer.transport.abort)
        if task is None or ticket is None:
            writer.transport.abort()
            return
        try:
            self._handlers[task] = handler = Handler(
                reader, writer, self._options, self._services, self._tls, self._dialer, ticket
            )
            await handler.handle_client()
        finally:
            ticket.close()
            self._handlers.pop(task, None)

    async def stop(self, drain_s: float = DRAIN_S) -> None:
        """Take no new connections, let requests under way end, close the rest after *drain_s*."""
        if self._server is not None:
            self._server.close()
        end = time.monotonic() + drain_s
        while self._handlers and time.monotonic() < end:
            # A connection that is kept alive falls idle when its request is over.
            for handler in list(self._handlers.values()):
                if handler.idle:
                    handler.abort()
            await asyncio.wait(list(self._handlers), timeout=DRAIN_LOOK_S)
        for handler in list(self._handlers.values()):
            handler.abort()
        if self._handlers:
            await asyncio.wait(list(self._handlers), timeout=CLOSE_S)
