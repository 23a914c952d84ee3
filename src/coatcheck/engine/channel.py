"""One socket, plain or under TLS: bytes in and out, and nothing held that need not be.

asyncio's stream pairs and its TLS protocol cost more than the lane above them, and mitmproxy's TLS
layers more than both. A `Channel` reads into one buffer that the whole process shares (an event
loop runs one callback at a time), keeps TLS in memory buffers of the standard library's `ssl`, and
calls its owner directly. It is the transport of both sides: the client's, where TLS begins behind
a CONNECT, and the upstream's, where it begins at once.

What goes wrong in an owner's callback closes the channel: `Owner.crashed` is told, and nothing is
passed on after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Protocol

BUFFER = 256 * 1024  # bytes read at once
RECORD = 16 * 1024  # bytes; the most that one TLS record holds (RFC 8446, section 5.1)
HIGH_WATER = 256 * 1024  # bytes that wait to be written before the other side is held back

# Filled and emptied within one callback, so all channels of the process can use the same.
_buffer = bytearray(BUFFER)
_view = memoryview(_buffer)
_no_bytes = ssl.MemoryBIO()  # of channels without TLS; never written to


class Owner(Protocol):
    """What a channel calls. None of these is called after `closed`."""

    def opened(self, channel: Channel, /) -> None:
        """The socket is there."""

    def received(self, channel: Channel, data: bytes, /) -> None:
        """Bytes, TLS taken off; never empty."""

    def secured(self, channel: Channel, /) -> None:
        """The TLS handshake is over; the peer's certificate was verified if the context asks."""

    def closed(self, channel: Channel, /) -> None:
        """The other side has closed, or the connection is lost. Called once."""

    def full(self, channel: Channel, /) -> None:
        """What was written does not get away as fast; `drained` follows."""

    def drained(self, channel: Channel, /) -> None: ...

    def crashed(self, channel: Channel, /) -> None:
        """A callback has raised. The channel is aborted."""


class ServerSide(ssl.SSLObject):
    """TLS towards a client; keeps the server name that the client asked for.

    Attributes:
        server_name: As in the ClientHello (RFC 6066, section 3); None where there was none.
    """

    server_name: str | None = None


class Channel(asyncio.BufferedProtocol):
    """See the module. Writing to one that is closed does nothing.

    Attributes:
        is_open: Connected, and not closed from either side.
        is_full: Between the owner's `full` and `drained`.
        shaking: A TLS handshake has begun and is not over.
    """

    __slots__ = (
        "_incoming",
        "_outgoing",
        "_owner",
        "_tls",
        "_told",
        "_transport",
        "is_full",
        "is_open",
        "shaking",
    )

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._tls: ssl.SSLObject | None = None
        self._incoming = self._outgoing = _no_bytes
        self.shaking = False
        self._told = False  # the owner knows that it is closed
        self.is_open = False
        self.is_full = False

    # --- called by the owner ----------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send *data*; what the socket does not take waits in memory."""
        transport, tls = self._transport, self._tls
        if not self.is_open or transport is None:
            return
        if tls is None:
            transport.write(data)
            return
        try:
            sent = tls.write(data)
            while sent < len(data):
                sent += tls.write(memoryview(data)[sent:])
        except ssl.SSLError:
            transport.abort()  # the owner hears of it by `closed`
            return
        transport.write(self._outgoing.read())

    def start_tls(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        host: str | None = None,
        session: ssl.SSLSession | None = None,
        early: bytes = b"",
    ) -> None:
        """Begin a handshake; ends in `Owner.secured` or `Owner.closed`.

        Args:
            host: The name that the other side's certificate is verified for (client side).
            early: What has come of the handshake so far.
        """
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side, host, session=session
        )
        self.shaking = True
        self._incoming.write(early)
        self._proceed()

    def own(self, owner: Owner) -> None:
        """From now on *owner* is called."""
        self._owner = owner

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS connection, once it was begun."""
        return self._tls

    @property
    def peername(self) -> tuple[str, int] | None:
        """Address and port at the other end."""
        name = self._transport.get_extra_info("peername") if self._transport else None
        return (name[0], name[1]) if name else None

    def pause(self) -> None:
        """Read no further; the rest waits in the socket."""
        if self.is_open and self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self.is_open and self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        """Close when all that was written is sent; the owner is not told."""
        self._told = True
        if not self.is_open or self._transport is None:
            return
        if self._tls is not None and not self.shaking:
            # Without a goodbye the end could be taken for a cut (RFC 8446, section 6.1).
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()
        self.is_open = False
        self._transport.close()

    def abort(self) -> None:
        """Close now; the owner is not told."""
        self._told = True
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    # --- called by asyncio ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            return
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self._transport = transport
        self.is_open = True
        self._tell(self._owner.opened)

    def get_buffer(self, sizehint: int) -> bytearray:
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._tls is None:
            self._tell(self._owner.received, bytes(_view[:nbytes]))
        else:
            self._incoming.write(_view[:nbytes])
            self._proceed()

    def eof_received(self) -> bool:
        self._tell_closed()
        return False  # a half-closed connection is of no use to HTTP; asyncio closes it

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._tell_closed()
        # Kilobytes each, and the owner may still hold this channel.
        self._tls = self._transport = None
        self._incoming = self._outgoing = _no_bytes

    def pause_writing(self) -> None:
        self.is_full = True
        self._tell(self._owner.full)

    def resume_writing(self) -> None:
        self.is_full = False
        self._tell(self._owner.drained)

    # --- inside -----------------------------------------------------------------------------

    def _tell(self, callback: Callable[..., None], *data: bytes) -> None:
        if self._told:
            return
        try:
            callback(self, *data)
        except Exception:  # fail closed: any bug of the owner ends the connection
            self.abort()
            self._owner.crashed(self)

    def _proceed(self) -> None:
        """Take the handshake further, or hand on what has come."""
        if self.shaking and not self._shake():
            return
        data, ended = self._decrypt()
        if self._outgoing.pending:  # an answer to a key update
            self._flush()
        if data:
            self._tell(self._owner.received, data)
        if ended:
            self._tell_closed()
            self.close()

    def _shake(self) -> bool:
        tls = self._tls
        if tls is None:
            return False
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except (ssl.SSLError, ValueError, OSError):
            self._flush()  # the alert
            self._tell_closed()
            self.close()
            return False
        self.shaking = False
        self._flush()
        self._tell(self._owner.secured)
        return self.is_open

    def _decrypt(self) -> tuple[bytes, bool]:
        """What came, and whether the other side has said goodbye or broken TLS."""
        tls, incoming = self._tls, self._incoming
        if tls is None:
            return b"", True
        out: list[bytes] = []
        try:
            while True:
                data = tls.read(RECORD)
                if not data:
                    return b"".join(out), True
                out.append(data)
                if not incoming.pending and not tls.pending():
                    break  # spares an exception
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            return b"".join(out), True
        return out[0] if len(out) == 1 else b"".join(out), False

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and self.is_open and self._transport is not None:
            self._transport.write(data)

    def _tell_closed(self) -> None:
        if not self._told:
            self._tell(self._owner.closed)
            self._told = True
