"""Tokens of the management API: made, listed, revoked. A token is shown once."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coatcheck.admin.actions import Actions
from coatcheck.admin.problems import ApiProblem, Code, invalid
from coatcheck.admin.roles import Actor, Role
from coatcheck.store.home import OWNER_TOKEN_PREFIX, token_hash
from coatcheck.store.model import Token
from coatcheck.store.sql import SqlStore

MAX_NAME = 128  # characters
MAX_DAYS = 3650


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was just made. *secret* is it; nothing keeps it, and it shows itself nowhere."""

    token: Token
    secret: str

    def __repr__(self) -> str:
        return f"<new token {self.token.id}>"


class TokenService:
    """For owners."""

    def __init__(
        self, store: SqlStore, actions: Actions, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._actions = actions
        self._clock = clock

    def list(self, actor: Actor) -> Sequence[Token]:
        actor.require(Role.OWNER)
        return self._store.tokens()

    def create(self, actor: Actor, name: str, role: Role, *, days: int | None = None) -> NewToken:
        """Make a token.

        Args:
            name: How lists and the audit log call it.
            days: After so many it ends; None: never.

        Raises:
            ApiProblem: the name cannot be used.
        """
        actor.require(Role.OWNER)
        if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
            hint = f"a name has 1 to {MAX_NAME} characters that can be shown"
            raise invalid("body.name", "no token can have this name", hint)
        if days is not None and not 1 <= days <= MAX_DAYS:
            raise invalid("body.expires_in_days", f"it is not from 1 to {MAX_DAYS}")
        secret, now = OWNER_TOKEN_PREFIX + secrets.token_urlsafe(32), self._clock()
        sha256 = token_hash(secret)
        ends = None if days is None else now + days * 86400.0
        about = {"token": sha256[:16], "token_name": name, "token_role": str(role)}
        with self._actions.noting_failure(actor, "token.create", **about) as written:
            self._actions.record(actor, "token.create", **about)
            written.append(True)
            made = self._store.add_token(
                sha256, role=role, now=now, name=name, created_by=actor.name, expires_at=ends
            )
        return NewToken(made, secret)

    def revoke(self, actor: Actor, token_id: str) -> None:
        """Take a token away; its sessions end with it.

        Raises:
            ApiProblem: token_not_found, last_owner.
        """
        actor.require(Role.OWNER)
        now = self._clock()
        with self._actions.noting_failure(actor, "token.revoke", token=token_id) as written:

            def check(token: Token, there: Sequence[Token]) -> None:
                others = [one for one in there if one is not token and _is_owner(one, now)]
                if _is_owner(token, now) and not others:
                    raise ApiProblem(
                        Code.LAST_OWNER,
                        "Nobody could make a token after it.",
                        hint="make another token with the role owner first",
                    )
                self._actions.record(actor, "token.revoke", token=token.id, token_name=token.name)
                written.append(True)

            if self._store.remove_token(token_id, now=now, check=check) is None:
                raise ApiProblem(
                    Code.TOKEN_NOT_FOUND, hint="GET /api/v1/tokens lists the tokens there are"
                )


def _is_owner(token: Token, now: float) -> bool:
    return token.role == Role.OWNER and (token.expires_at is None or token.expires_at > now)
