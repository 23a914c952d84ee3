"""TLS sessions with upstreams, so that a chain is not verified for every connection.

A handshake that resumes a session shows no certificate: the other side proves that it has the keys
of an earlier connection, whose certificate was verified. So a session is kept for the exact host
and port it was verified for, for a bounded time since that was done, however often it was resumed
meanwhile, and by the one `Dialer` whose context verified it (`ssl` refuses those of another). Each
is used once (RFC 8446, appendix C.4): a connection that resumes one brings the next.

Early releases of Python 3.12 and 3.13 lose 6 KiB whenever a session is read (CPython issue 116810,
seen on 3.12.1 and 3.13.0): there a process grows by that with each new upstream connection.
"""

from __future__ import annotations

import ssl
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

LIFE_S = 600.0  # since the certificate was verified
PER_HOST = 8  # as many connections may be dialled at once without a full handshake
HOSTS = 512  # the least recently used goes first


@dataclass(frozen=True, slots=True)
class Verified:
    """Who was verified at the other end of a connection, and when, on the event loop's clock."""

    host: str
    port: int
    at: float


@dataclass(frozen=True, slots=True)
class Session:
    """One that may be resumed until `Verified.at` is too long ago."""

    verified: Verified
    tls: ssl.SSLSession


class Sessions:
    """See the module. *now*: the event loop's clock."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self._of: OrderedDict[tuple[str, int], list[Session]] = OrderedDict()

    def take(self, host: str, port: int) -> Session | None:
        """The newest for *host* and *port*; it is not handed out again."""
        kept = self._of.get((host, port))
        while kept:
            session = kept.pop()
            if self.now() - session.verified.at <= LIFE_S:
                return session
        self.forget(host, port)
        return None

    def keep(self, verified: Verified, tls: ssl.SSLObject) -> None:
        """Keep what *tls*, an open connection, may be resumed with, if there is anything."""
        session = tls.session
        if session is None or not session.has_ticket:
            return
        key = verified.host, verified.port
        kept = self._of.setdefault(key, [])
        self._of.move_to_end(key)
        kept.append(Session(verified, session))
        del kept[:-PER_HOST]
        if len(self._of) > HOSTS:
            self._of.popitem(last=False)

    def forget(self, host: str, port: int) -> None:
        """Something went wrong with one of them, or they are used up."""
        self._of.pop((host, port), None)
