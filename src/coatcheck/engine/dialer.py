"""Makes upstream connections: the one place where an address is dialled (G1).

It resolves once, vets every address, dials a vetted one, looks who is at the other end and
verifies TLS for the destination, before anybody else hears of the connection at all. Until then the
channel belongs to an owner of its own, so that no byte of HTTP can be written to it.
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
    ) -> None:
        self._resolver = resolver
        self._context = context
        self._limits = limits
        self._networks = networks

    async def dial(self, host: str, port: int, *, tls: bool, owner: Owner) -> Channel:
        """A channel to *host*; with *tls*, one whose certificate was verified for *host*.

        Raises:
            Refused: address_not_allowed, upstream_unreachable or upstream_tls_failed.
        """
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                addresses = await self._resolver.resolve(host, port, allowed=self._networks())
                sock = await _connect(addresses, port)
        except TimeoutError:
            raise refuse(Code.UPSTREAM_UNREACHABLE, host=host) from None
        loop = asyncio.get_running_loop()
        if not tls:
            return Channel(loop, sock, owner)
        done: asyncio.Future[bool] = loop.create_future()
        channel = Channel(loop, sock, _Waiting(done))
        try:
            async with asyncio.timeout(self._limits.tls_handshake_timeout_s):
                channel.start_tls(self._context, server_side=False, host=host)
                good = await done
        except (TimeoutError, OSError, ssl.SSLError, ValueError):
            good = False  # ssl's words may quote names out of the upstream's certificate
        except BaseException:
            channel.abort()
            raise
        if not good or not channel.is_open:
            channel.abort()
            raise refuse(Code.UPSTREAM_TLS_FAILED, host=host)
        channel.own(owner)
        return channel


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
