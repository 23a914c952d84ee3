"""`/api/v1/tokens`: for owners."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import Field

from coatcheck.admin.api.deps import Owner, Services
from coatcheck.admin.api.models import Incoming, Outgoing, moment, moment_or_none
from coatcheck.admin.roles import Role
from coatcheck.admin.token_service import MAX_DAYS, MAX_NAME
from coatcheck.store.model import Token

router = APIRouter(prefix="/api/v1/tokens", tags=["tokens"])


class TokenNew(Incoming):
    name: str = Field(min_length=1, max_length=MAX_NAME, description="What it is called by.")
    role: Literal["viewer", "editor", "owner"]
    expires_in_days: int | None = Field(
        None, ge=1, le=MAX_DAYS, description="Without: it does not end."
    )


class TokenOut(Outgoing):
    id: str
    name: str
    role: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")


class TokenMade(TokenOut):
    token: str = Field(description="The token itself, shown this once.")


class TokenList(Outgoing):
    items: list[TokenOut]


TokenId = Annotated[str, Path(min_length=1, max_length=64)]


@router.get("")
def list_tokens(actor: Owner, services: Services) -> TokenList:
    """List the tokens of this API, the oldest first; those that have ended too."""
    return TokenList(items=[_out(token) for token in services.tokens.list(actor)])


@router.post("", status_code=201)
def create_token(actor: Owner, services: Services, body: TokenNew) -> TokenMade:
    """Make a token. The answer holds it, and nothing else ever will."""
    made = services.tokens.create(actor, body.name, Role(body.role), days=body.expires_in_days)
    return TokenMade(**_out(made.token).model_dump(), token=made.secret)


@router.delete("/{token_id}", status_code=204)
def revoke_token(actor: Owner, services: Services, token_id: TokenId) -> None:
    """Take a token away; it and its sessions are refused from then on."""
    services.tokens.revoke(actor, token_id)


def _out(token: Token) -> TokenOut:
    return TokenOut(
        id=token.id,
        name=token.name,
        role=token.role,
        created_at=moment(token.created_at),
        created_by=token.created_by,
        expires_at=moment_or_none(token.expires_at),
        last_used_at=moment_or_none(token.last_used_at),
    )
