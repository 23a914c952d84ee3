"""TLS sessions with upstreams, so that a chain is not verified for every connection.

A handshake that resumes a session shows no certificate: the other side proves that it has the keys
of an earlier connection, whose certificate was verified. So a session is kept for the exact host
and port it was verified for, for a bounded time since that was done, however often it was resumed
meanwhile, and by the one `Dialer` whose context verified it (`ssl` refuses those of another). Each
is used once (RFC 8446, appendix C.4): a connection that resumes one brings the next.

Early releases of Python 3.12 and 3.13 lose 6 KiB whenever a session is read (CPython issue 116810,
seen on 3.12.1 and 3.13.0). With one read for each new upstream connection a process would grow
without end, so there one is read of a host at most once a minute, and used until its time is over:
a network sees that such connections are of one proxy, which their addresses tell it anyway.
"""

from __future__ import annotations

import ssl
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

LIFE_S = 600.0  # since the certificate was verified
PER_HOST = 8  # as many connections may be dialled at once without a full handshake
HOSTS = 512  # the least recently used goes first
READ_EVERY_S = 60.0  # and host, where each read loses memory


def reading_loses(version: tuple[int, ...]) -> bool:
    """Whether Python *version* (major, minor, micro) loses what it read of a session."""
    return version < (3, 12, 8) or (3, 13) <= version < (3, 13, 1)


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
    """See the module."""

    def __init__(
        self, now: Callable[[], float], *, sparing: bool = reading_loses(sys.version_info[:3])
    ) -> None:
        """
        Args:
            now: The event loop's clock.
            sparing: Few are read, and each is used again: see the module.
        """
        self.now = now
        self.sparing = sparing
        self._of: OrderedDict[tuple[str, int], list[Session]] = OrderedDict()
        self._read: OrderedDict[tuple[str, int], float] = OrderedDict()

    def take(self, host: str, port: int) -> Session | None:
        """The newest for *host* and *port*; unless `sparing`, it is not handed out again."""
        kept = self._of.get((host, port))
        while kept:
            session = kept.pop()
            if self.now() - session.verified.at <= LIFE_S:
                if self.sparing:
                    kept.append(session)
                return session
        self.forget(host, port)
        return None

    def keep(self, verified: Verified, tls: ssl.SSLObject) -> None:
        """Keep what *tls*, an open connection, may be resumed with, if there is anything."""
        if self.sparing and not self._may_read(verified.host, verified.port):
            return
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

    def _may_read(self, host: str, port: int) -> bool:
        key, now = (host, port), self.now()
        if now - self._read.get(key, -READ_EVERY_S) < READ_EVERY_S:
            return False
        self._read[key] = now
        self._read.move_to_end(key)
        if len(self._read) > HOSTS:
            self._read.popitem(last=False)
        return True
