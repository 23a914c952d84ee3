"""Who asks: an API token, a JWT of the configured issuer, or a session that was made with one.

A token is looked up by its SHA-256. It has 256 random bits, so there is nothing to guess, nothing
to slow down on purpose, and how long a look-up takes tells of the hash alone. One answer stands
for every wrong credential: unknown, revoked, ended, of another issuer.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from contextlib import suppress

from coatcheck.admin.oidc import BadJwt, Issuer
from coatcheck.admin.problems import ApiProblem, Code
from coatcheck.admin.roles import Actor, Role
from coatcheck.admin.sessions import Session, Sessions
from coatcheck.admin.throttle import Throttle
from coatcheck.core.ports import StoreError
from coatcheck.store.home import token_hash
from coatcheck.store.model import Token
from coatcheck.store.sql import SqlStore

MAX_CREDENTIAL = 8192  # characters; a JWT with many groups has some thousands
NOTED_EVERY_S = 60.0  # how exactly the last use of a token is known

type Refused = Callable[[str], None]


class Authenticator:
    """Turns a credential into an `Actor`.

    Args:
        issuer: Of JWTs; None where none is configured.
        refused: Told the address of each wrong credential.
    """

    def __init__(
        self,
        store: SqlStore,
        sessions: Sessions,
        issuer: Issuer | None,
        refused: Refused = lambda _: None,
        *,
        clock: Callable[[], float] = time.time,
        throttle: Throttle | None = None,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._issuer = issuer
        self._refused = refused
        self._clock = clock
        self._throttle = throttle or Throttle()

    def bearer(self, header: str, address: str) -> tuple[Actor, str]:
        """Whoever sends this Authorization field; and the hash of the token, empty for a JWT.

        Raises:
            ApiProblem: unauthenticated, or too_many_attempts.
        """
        scheme, _, credential = header.partition(" ")
        if scheme.lower() != "bearer":
            raise ApiProblem(Code.UNAUTHENTICATED, hint="send Authorization: Bearer TOKEN")
        return self.credential(credential.strip(), address)

    def credential(self, text: str, address: str) -> tuple[Actor, str]:
        """Whoever holds this token or JWT; and the hash of the token, empty for a JWT.

        Raises:
            ApiProblem: unauthenticated, or too_many_attempts.
        """
        found = self._look_up(text, address) if 0 < len(text) <= MAX_CREDENTIAL else None
        if found is None:
            self._throttle.was_wrong(address)  # a right one is never held up
            self._refused(address)
            raise ApiProblem(
                Code.UNAUTHENTICATED, hint="use a token that is known and has not ended"
            )
        return found

    def log_in(self, text: str, address: str) -> tuple[str, Session]:
        """A session for whoever holds this token or JWT, and its cookie's value.

        Raises:
            ApiProblem: as `credential`.
        """
        return self._sessions.start(*self.credential(text, address))

    def session(self, cookie: str, address: str) -> Session | None:
        """The session of this cookie, if its credential is still good; with its role of now."""
        session = self._sessions.find(cookie) if cookie else None
        if session is None or not session.token:
            return session
        token = self._valid(session.token)
        if token is None or token.role != session.actor.role:
            self._sessions.end(cookie)
            return None
        return session

    def log_out(self, cookie: str) -> None:
        self._sessions.end(cookie)

    def is_still_good(self, actor: Actor, token: str, cookie: str) -> bool:
        """Whether a credential that was good is so still: for answers that do not end.

        Args:
            token: The hash of the token; empty for a JWT.
            cookie: Of the session; empty where there is none.
        """
        if actor.ends_at is not None and self._clock() >= actor.ends_at:
            return False
        if cookie and not self._sessions.has(cookie):
            return False
        return not token or self._valid(token) is not None

    def _look_up(self, text: str, address: str) -> tuple[Actor, str] | None:
        if self._issuer is not None and text.count(".") == 2:
            with suppress(BadJwt):
                return self._issuer.actor(text, address), ""
            return None
        sha256 = token_hash(text)
        token = self._valid(sha256)
        if token is None:
            return None
        self._note(token)
        name = token.name or f"token {token.id}"
        actor = Actor(name, Role(token.role), "token", token.id, address, token.expires_at)
        return actor, sha256

    def _valid(self, sha256: str) -> Token | None:
        token = self._store.find_token(sha256)
        if token is None or not hmac.compare_digest(token.sha256, sha256):
            return None
        if token.expires_at is not None and self._clock() >= token.expires_at:
            return None
        return token if token.role in list(Role) else None

    def _note(self, token: Token) -> None:
        now = self._clock()
        if token.last_used_at is None or now - token.last_used_at > NOTED_EVERY_S:
            with suppress(StoreError):  # it is for the list of tokens alone
                self._store.note_token(token.sha256, now=now)
