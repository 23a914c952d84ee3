"""Tokens of the API and the page, for owners. A new one is shown once, and never again.

So the answer to the form is that page, and no redirect: whatever could be looked at after one would
have to be kept until then.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response

from coatcheck.admin.api.deps import Owner, Services
from coatcheck.admin.problems import ApiProblem, Code, invalid
from coatcheck.admin.roles import Actor, Role
from coatcheck.admin.service import Service
from coatcheck.admin.ui.forms import Errors, errors_of
from coatcheck.admin.ui.notes import Note
from coatcheck.admin.ui.render import go_to, page
from coatcheck.store.model import Token

router = APIRouter(include_in_schema=False)

type Field = Annotated[str, Form()]


@router.get("/tokens")
def show_tokens(request: Request, actor: Owner, services: Services) -> Response:
    return _listed(request, actor, services)


@router.post("/tokens")
def make_token(
    request: Request,
    actor: Owner,
    services: Services,
    name: Field = "",
    role: Field = "",
    days: Field = "",
) -> Response:
    try:
        made = services.tokens.create(actor, name, _role(role), days=_days(days))
    except ApiProblem as problem:
        if problem.status != 422:
            raise
        kept = {"name": name, "role": role, "days": days}
        return _listed(request, actor, services, 422, errors_of(problem), kept)
    return page(request, "token_made.html", made=made)


@router.get("/tokens/revoke")
def ask_before_revoking(
    request: Request,
    actor: Owner,
    services: Services,
    id: Annotated[str, Query(max_length=64)] = "",  # noqa: A002 as the API calls it
) -> Response:
    return page(
        request,
        "token_revoke.html",
        token=_token(actor, services, id),
        is_own=id == actor.id,
        error="",
    )


@router.post("/tokens/revoke")
def revoke_token(
    request: Request,
    actor: Owner,
    services: Services,
    id: Field = "",  # noqa: A002
) -> Response:
    token = _token(actor, services, id)
    try:
        services.tokens.revoke(actor, id)
    except ApiProblem as problem:
        if problem.code is not Code.LAST_OWNER:
            raise
        error = "It was not revoked: it is the last token of an owner. Make another one first."
        return page(
            request,
            "token_revoke.html",
            status=problem.status,
            token=token,
            is_own=id == actor.id,
            error=error,
        )
    return go_to(request, "/tokens", Note("Revoked:", token.name or token.id))


def _listed(
    request: Request,
    actor: Actor,
    services: Service,
    status: int = 200,
    errors: Errors | None = None,
    kept: dict[str, str] | None = None,
) -> Response:
    return page(
        request,
        "tokens.html",
        status=status,
        tokens=services.tokens.list(actor),
        errors=errors or {},
        form=kept or {"name": "", "role": str(Role.VIEWER), "days": "90"},
        roles=[str(role) for role in Role],
    )


def _token(actor: Actor, services: Service, token_id: str) -> Token:
    found = [token for token in services.tokens.list(actor) if token.id == token_id]
    if not found:
        raise ApiProblem(Code.TOKEN_NOT_FOUND)
    return found[0]


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        raise invalid("body.role", "this is no role", "choose one of the list") from None


def _days(text: str) -> int | None:
    text = text.strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise invalid("body.expires_in_days", "this is no number of days")
    return int(text)
