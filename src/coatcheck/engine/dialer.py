"""Makes upstream connections: the one place where an address is dialled (G1).

It resolves once, vets every address, dials a vetted one, looks who is at the other end and
verifies TLS for the destination, before anybody else hears of the connection at all. Until then the
channel belongs to an owner of its own, so that no byte of HTTP can be written to it. With an
upstream proxy it is that one who dials the vetted address (`via`); all else is the same.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

from coatcheck.core.limits import Limits
from coatcheck.core.policy import Network
from coatcheck.core.problems import Code, refuse
from coatcheck.engine.channel import Channel, Owner
from coatcheck.engine.resolver import Resolver
from coatcheck.engine.sessions import Session, Sessions, Verified
from coatcheck.engine.via import Tunnels


class _Waiting(Owner):
    """Owns a channel until its TLS stands, and then steps back for the real owner."""

    def __init__(self, future: asyncio.Future[bool]) -> None:
        self._future = future

    def _end(self, good: bool) -> None:
        if not self._future.done():
            self._future.set_result(good)

    def secured(self, channel: Channel, /) -> None:
        channel.pause()  # until the owner is there to listen
        self._end(True)

    def closed(self, channel: Channel, /) -> None:
        self._end(False)

    def crashed(self, channel: Channel, /) -> None:
        self._end(False)

    def received(self, channel: Channel, data: bytes, /) -> None:
        """An upstream that speaks before it is asked: the lane would not know what of."""
        channel.abort()
        self._end(False)

    def full(self, channel: Channel, /) -> None:
        return

    def drained(self, channel: Channel, /) -> None:
        return


class Dialer:
    """Makes upstream connections: the one place where an address is dialled (G1)."""

    def __init__(
        self,
        resolver: Resolver,
        context: ssl.SSLContext,
        limits: Limits,
        networks: Callable[[], tuple[Network, ...]],
        tunnels: Tunnels | None = None,
    ) -> None:
        """
        Args:
            networks: ``egress.networks`` of the policy in force.
            tunnels: Through an upstream proxy; None: straight to the destination.
        """
        self._resolver = resolver
        self._context = context
        self._limits = limits
        self._networks = networks
        self._tunnels = tunnels
        self._loop = asyncio.get_running_loop()
        self._sessions = Sessions(self._loop.time)

    async def dial(self, host: str, port: int, *, tls: bool, owner: Owner) -> Channel:
        """A channel to *host*; with *tls*, one whose certificate was verified for *host*.

        Raises:
            Refused: address_not_allowed, upstream_unreachable or upstream_tls_failed.
        """
        sock = await self._connect(host, port)
        if not tls:
            return Channel(self._loop, sock, owner)
        session = self._sessions.take(host, port)
        channel = await self._secure(sock, host, session)
        if channel is None and session is not None:
            # Perhaps not for want of a certificate: a server may stumble over its own session.
            self._sessions.forget(host, port)
            session = None
            channel = await self._secure(await self._connect(host, port), host, None)
        if channel is None or channel.tls is None:
            raise refuse(Code.UPSTREAM_TLS_FAILED, host=host)
        if session is not None and channel.tls.session_reused:
            channel.verified = session.verified
        else:
            channel.verified = Verified(host, port, self._sessions.now())
        channel.own(owner)
        return channel

    def remember(self, channel: Channel) -> None:
        """Keep the session of *channel*, which is about to be closed or to be left, once."""
        verified, channel.verified = channel.verified, None
        if verified is not None and channel.tls is not None:
            self._sessions.keep(verified, channel.tls)

    async def _connect(self, host: str, port: int) -> socket.socket:
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                addresses = await self._resolver.resolve(host, port, allowed=self._networks())
                if self._tunnels is not None:
                    return await self._tunnels.connect(host, addresses, port)
                return await _connect(self._loop, addresses, port)
        except TimeoutError:
            raise refuse(Code.UPSTREAM_UNREACHABLE, host=host) from None

    async def _secure(
        self, sock: socket.socket, host: str, session: Session | None
    ) -> Channel | None:
        """*sock* under TLS, and *host* verified at the other end; None: it is not."""
        done: asyncio.Future[bool] = self._loop.create_future()
        channel = Channel(self._loop, sock, _Waiting(done))
        resumed = session.tls if session is not None else None
        try:
            async with asyncio.timeout(self._limits.tls_handshake_timeout_s):
                channel.start_tls(self._context, server_side=False, host=host, session=resumed)
                good = await done
        except (TimeoutError, OSError, ssl.SSLError, ValueError):
            good = False  # ssl's words may quote names out of the upstream's certificate
        except BaseException:
            channel.abort()
            raise
        if not good or not channel.is_open:
            channel.abort()
            return None
        return channel


async def _connect(
    loop: asyncio.AbstractEventLoop, addresses: list[str], port: int
) -> socket.socket:
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
