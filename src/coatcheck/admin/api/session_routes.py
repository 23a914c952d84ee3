"""`/api/v1/session`: a browser's session for a token, and who one is."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter, Request, Response
from pydantic import Field, SecretStr

from coatcheck.admin.api.deps import Viewer
from coatcheck.admin.api.models import Incoming, Outgoing, moment_or_none
from coatcheck.admin.auth import Authenticator
from coatcheck.admin.gate import Admitted, address_of
from coatcheck.admin.roles import Actor
from coatcheck.admin.sessions import Session, drop_cookie, set_cookie

router = APIRouter(prefix="/api/v1/session", tags=["session"])


class LogIn(Incoming):
    token: SecretStr = Field(description="An API token, or a JWT of the configured issuer.")


class Who(Outgoing):
    name: str
    role: str
    kind: str = Field(description="token, or oidc for a JWT.")
    expires_at: datetime | None = Field(description="When the credential ends.")
    csrf: str | None = Field(
        description="With a session: what X-CSRF-Token has to hold in each request that changes"
        " something."
    )

    @classmethod
    def of(cls, actor: Actor, session: Session | None) -> Who:
        return cls(
            name=actor.name,
            role=str(actor.role),
            kind=actor.kind,
            expires_at=moment_or_none(actor.ends_at),
            csrf=None if session is None else session.csrf,
        )


@router.post("", status_code=201)
def log_in(request: Request, body: LogIn, response: Response) -> Who:
    """Begin a session: the answer sets its cookie."""
    auth: Authenticator = request.app.state.auth
    cookie, session = auth.log_in(body.token.get_secret_value(), address_of(request.scope))
    response.headers["Set-Cookie"] = set_cookie(cookie)
    return Who.of(session.actor, session)


@router.get("")
def who_am_i(request: Request, actor: Viewer) -> Who:
    """Who sends this request, and in which role."""
    admitted: Admitted = request.state.admitted
    return Who.of(actor, admitted.session)


@router.delete("", status_code=204)
def log_out(request: Request, actor: Viewer, response: Response) -> None:
    """End the session of this request's cookie."""
    auth: Authenticator = request.app.state.auth
    admitted: Admitted = request.state.admitted
    if admitted.cookie:
        auth.log_out(admitted.cookie)
    response.headers["Set-Cookie"] = drop_cookie()
