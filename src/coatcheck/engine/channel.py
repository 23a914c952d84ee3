"""One socket, plain or under TLS: bytes in and out, and nothing held that need not be.

asyncio's transports cost more than the lane above them, its TLS protocol and mitmproxy's layers
more than both. A `Channel` waits for its socket at the event loop directly, reads into one buffer
that the whole process shares (an event loop runs one callback at a time), keeps TLS in memory
buffers of the standard library's `ssl`, and calls its owner directly. It is the transport of both
sides: the client's, where TLS begins behind a CONNECT, and the upstream's, where it begins at once.

A packet costs more than what is computed for it, so the last bytes of a handshake go out together
with what is written next, where the other side does not wait for them.

What goes wrong in an owner's callback closes the channel: `Owner.crashed` is told, and nothing is
passed on after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

from coatcheck.engine.sessions import Verified

BUFFER = 256 * 1024  # bytes read at once
RECORD = 16 * 1024  # bytes; the most that one TLS record holds (RFC 8446, section 5.1)
HIGH_WATER = 256 * 1024  # bytes that wait to be written before the other side is held back
LOW_WATER = HIGH_WATER // 4  # and at which it may go on
TLS13 = "TLSv1.3"
LAST_WORDS_S = 30.0  # how long a closed channel waits for the other side to take some more

# Filled and emptied within one callback, so all channels of the process can use the same.
# What is decrypted takes the place of what was read, and of the record that was not whole before.
_buffer = bytearray(BUFFER + 2 * RECORD)
_view = memoryview(_buffer)
_no_bytes = ssl.MemoryBIO()  # of channels without TLS; never written to


class Owner(Protocol):
    """What a channel calls. None of these is called after `closed`."""

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


class Channel:
    """See the module. Writing to one that is closed does nothing.

    Attributes:
        is_open: Not closed from either side.
        is_full: Between the owner's `full` and `drained`.
        made_at: On the event loop's clock.
        shaking: A TLS handshake has begun and is not over.
        verified: Who is at the other end; for whoever dialled it.
    """

    __slots__ = (
        "_backlog",
        "_closing",
        "_fd",
        "_incoming",
        "_loop",
        "_outgoing",
        "_owner",
        "_paused",
        "_reading",
        "_sock",
        "_tls",
        "_told",
        "is_full",
        "is_open",
        "made_at",
        "shaking",
        "verified",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, owner: Owner) -> None:
        """*sock*: a connected one that does not block; it is the channel's from now on."""
        self._loop = loop
        self._sock, self._fd = sock, sock.fileno()
        self._owner = owner
        self._tls: ssl.SSLObject | None = None
        self._incoming = self._outgoing = _no_bytes
        self._backlog = bytearray()  # what the socket did not take yet
        self._closing: asyncio.TimerHandle | None = None  # closed, but for the backlog
        self._told = False  # the owner knows that it is closed
        self._paused = False
        self.shaking = False
        self.is_full = False
        self.is_open = True
        self.made_at = loop.time()
        self.verified: Verified | None = None
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.add_reader(self._fd, self._readable)
        self._reading = True

    # --- called by the owner ----------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send *data*; what the socket does not take waits in memory."""
        tls = self._tls
        if not self.is_open:
            return
        if tls is None:
            self._send(data)
            return
        try:
            sent = tls.write(data)
            while sent < len(data):
                sent += tls.write(memoryview(data)[sent:])
        except ssl.SSLError:
            self._break()
            return
        self._send(self._outgoing.read())

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
            session: To be resumed, where the other side agrees (client side).
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
        """The TLS connection, once it was begun and until the channel is closed."""
        return self._tls

    @property
    def is_paused(self) -> bool:
        return self._paused

    @property
    def is_behind(self) -> bool:
        """Something of what was written has not got away; also once it is closed."""
        return bool(self._backlog)

    def pause(self) -> None:
        """Read no further; the rest waits in the socket."""
        self._paused = True  # most are resumed before anything comes: the loop hears of it then

    def resume(self) -> None:
        self._paused = False
        if not self._reading and self.is_open:
            self._loop.add_reader(self._fd, self._readable)
            self._reading = True

    def is_silent(self) -> bool:
        """Open, with nothing on its way in either direction."""
        if not self.is_open or self.shaking or self._backlog or self._incoming.pending:
            return False
        tls = self._tls
        if tls is not None and (tls.pending() or self._outgoing.pending):
            return False
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False  # bytes, or the end

    def close(self) -> None:
        """Close when all that was written is sent; the owner is not told."""
        self._told = True
        if not self.is_open:
            return
        self.is_open = False
        self._say_goodbye()
        self._finish()

    def abort(self) -> None:
        """Close now; the owner is not told."""
        self._told = True
        self._shut()

    # --- called by the event loop -----------------------------------------------------------

    def _readable(self) -> None:
        if self._paused:
            self._stop_reading()
            return
        try:
            size = self._sock.recv_into(_buffer, BUFFER)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            size = 0
        if not size:
            self._ended()
        elif self._tls is None:
            self._tell(self._owner.received, bytes(_view[:size]))
        else:
            self._incoming.write(_view[:size])
            self._proceed()

    def _writable(self) -> None:
        try:
            sent = self._sock.send(self._backlog)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._lost()
            return
        del self._backlog[:sent]
        if not self._backlog:
            self._loop.remove_writer(self._fd)
            if not self.is_open:
                self._shut()
                return
        if self.is_full and len(self._backlog) <= LOW_WATER:
            self.is_full = False
            self._tell(self._owner.drained)

    # --- inside -----------------------------------------------------------------------------

    def _send(self, data: bytes | memoryview) -> None:
        if not self._backlog:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self._break()
                return
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
            self._loop.add_writer(self._fd, self._writable)
        self._backlog += data
        if not self.is_full and len(self._backlog) > HIGH_WATER:
            self.is_full = True
            self._tell(self._owner.full)

    def _break(self) -> None:
        """The connection is lost; the owner, who is at work, hears of it when that is done."""
        if self.is_open:
            self.is_open = False
            self._stop_reading()
            self._loop.call_soon(self._lost)

    def _lost(self) -> None:
        self._tell_closed()
        self._shut()

    def _ended(self) -> None:
        # A half-closed connection is of no use to HTTP. A goodbye would seldom be read.
        self.is_open = False
        self._tell_closed()
        self._finish()

    def _say_goodbye(self) -> None:
        if self._tls is not None and not self.shaking:
            # Without it the end could be taken for a cut (RFC 8446, section 6.1).
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
        if self._outgoing.pending:
            self._send(self._outgoing.read())

    def _finish(self) -> None:
        self._stop_reading()
        if self._backlog:
            self._wait_for_last_words(0)
        else:
            self._shut()

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def _wait_for_last_words(self, left: int) -> None:
        """*left*: of the backlog when it was looked at last. Who never reads must not hold a file,
        and our memory, for ever."""
        now = len(self._backlog)
        if self._closing is not None and now >= left:
            self._shut()
        else:
            self._closing = self._loop.call_later(LAST_WORDS_S, self._wait_for_last_words, now)

    def _shut(self) -> None:
        self.is_open = False
        if self._sock.fileno() < 0:
            return
        self._stop_reading()
        if self._backlog:
            self._loop.remove_writer(self._fd)
            self._backlog = bytearray()
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        self._sock.close()
        # Kilobytes each, and the owner may still hold this channel.
        self._tls = None
        self._incoming = self._outgoing = _no_bytes

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
        held = self._outgoing.pending
        data, ended = self._decrypt()
        if self._outgoing.pending > held:  # an answer to a key update
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
        if tls.version() != TLS13:
            self._flush()
        # Else it is our Finished, which the request follows at once, or a session ticket, which can
        # wait for the answer (RFC 8446, section 2).
        self._tell(self._owner.secured)
        return self.is_open

    def _decrypt(self) -> tuple[bytes, bool]:
        """What came, and whether the other side has said goodbye or broken TLS."""
        tls, incoming = self._tls, self._incoming
        if tls is None:
            return b"", True
        out, size, ended = b"", 0, False
        try:
            while True:
                if size + RECORD > len(_buffer):
                    out, size = out + bytes(_view[:size]), 0
                # With a buffer it is a number, whatever its annotation says.
                read: int = tls.read(RECORD, _view[size:])  # type: ignore[assignment]
                size += read
                ended = not read
                if ended or not (incoming.pending or tls.pending()):
                    break  # spares an exception
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            ended = True
        data = bytes(_view[:size])
        return out + data if out else data, ended

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and self.is_open:
            self._send(data)

    def _tell_closed(self) -> None:
        if not self._told:
            self._tell(self._owner.closed)
            self._told = True
