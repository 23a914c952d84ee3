"""Sessions of the page: kept in this process, known to a browser by a cookie.

The cookie is a random number and says nothing; a restart ends all sessions. Only its hash is kept,
so that what is read out of this process opens none. A session never outlives its credential: a
token that is revoked, or has ended, ends its sessions with the next request (`auth`).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from coatcheck.admin.roles import Actor

COOKIE = "__Host-coatcheck"
# Browsers keep a cookie of this name only with Secure and Path=/, and without a Domain.
ATTRIBUTES = "Path=/; Secure; HttpOnly; SameSite=Strict"
SESSIONS = 1000  # the oldest goes first
PER_CREDENTIAL = 50


@dataclass(frozen=True, slots=True)
class Session:
    """One log-in.

    Attributes:
        csrf: What a form, or the header field X-CSRF-Token, has to repeat.
        token: The hash of the API token it was made with; empty for a JWT.
    """

    actor: Actor
    csrf: str
    token: str
    made: float
    seen: float

    def accepts(self, csrf: str) -> bool:
        return hmac.compare_digest(self.csrf.encode(), csrf.encode("utf-8", "replace"))


class Sessions:
    """All of them.

    Args:
        idle_s: After so long without a request one ends.
        most_s: After so long it ends whatever happens.
    """

    def __init__(
        self, idle_s: float, most_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._idle_s, self._most_s = idle_s, most_s
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Session] = OrderedDict()  # by the hash of the cookie's value

    def start(self, actor: Actor, token: str) -> tuple[str, Session]:
        """A new session, and what goes into its cookie."""
        cookie, now = secrets.token_urlsafe(32), self._clock()
        session = Session(actor, secrets.token_urlsafe(32), token, now, now)
        with self._lock:
            self._forget(now)
            mine = [key for key, one in self._kept.items() if one.token == token and token]
            for key in mine[: max(0, len(mine) - PER_CREDENTIAL + 1)]:
                del self._kept[key]
            while len(self._kept) >= SESSIONS:
                self._kept.popitem(last=False)
            self._kept[_hash(cookie)] = session
        return cookie, session

    def find(self, cookie: str) -> Session | None:
        """The session of this cookie, seen just now; None where it has ended."""
        key, now = _hash(cookie), self._clock()
        with self._lock:
            session = self._kept.get(key)
            if session is None:
                return None
            if self._is_over(session, now):
                del self._kept[key]
                return None
            session = self._kept[key] = replace(session, seen=now)
            return session

    def has(self, cookie: str) -> bool:
        """Whether it goes on; to ask keeps no session alive."""
        with self._lock:
            session = self._kept.get(_hash(cookie))
            return session is not None and not self._is_over(session, self._clock())

    def end(self, cookie: str) -> None:
        with self._lock:
            self._kept.pop(_hash(cookie), None)

    def _forget(self, now: float) -> None:
        for key in [key for key, one in self._kept.items() if self._is_over(one, now)]:
            del self._kept[key]

    def _is_over(self, session: Session, now: float) -> bool:
        ends = session.actor.ends_at
        return (
            now - session.seen > self._idle_s
            or now - session.made > self._most_s
            or (ends is not None and now >= ends)
        )


def cookie_in(header: str) -> str:
    """The value of our cookie in a Cookie field; empty where it is missing or there twice."""
    found = [
        value
        for name, _, value in (part.strip().partition("=") for part in header.split(";"))
        if name == COOKIE
    ]
    return found[0] if len(found) == 1 else ""


def set_cookie(value: str) -> str:
    """The Set-Cookie field that makes a browser keep *value*."""
    return f"{COOKIE}={value}; {ATTRIBUTES}"


def drop_cookie() -> str:
    """The Set-Cookie field that makes a browser forget it."""
    return f"{COOKIE}=; {ATTRIBUTES}; Max-Age=0"


def _hash(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "replace")).hexdigest()
