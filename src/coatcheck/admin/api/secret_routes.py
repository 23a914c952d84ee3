"""`/api/v1/secrets`."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Response

from coatcheck.admin.activity import Filter
from coatcheck.admin.api.deps import Editor, IfMatch, SecretName, Services, Viewer, expected
from coatcheck.admin.api.models import (
    History,
    SecretChange,
    SecretChanged,
    SecretList,
    SecretNew,
    SecretOut,
    SecretStatus,
)
from coatcheck.admin.problems import ApiProblem, Code, invalid
from coatcheck.admin.secret_service import ANY, MAX_PAGE, etag

router = APIRouter(prefix="/api/v1/secrets", tags=["secrets"])

Sort = Literal[
    "name",
    "-name",
    "version",
    "-version",
    "created_at",
    "-created_at",
    "updated_at",
    "-updated_at",
    "last_used_at",
    "-last_used_at",
    "uses",
    "-uses",
]


@router.get("")
def list_secrets(
    actor: Viewer,
    services: Services,
    q: Annotated[
        str, Query(max_length=256, description="A part of name, description or domains.")
    ] = "",
    domain: Annotated[str, Query(max_length=300, description="One allowed domain.")] = "",
    sort: Sort = "name",
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
) -> SecretList:
    """List secrets: names, where they may go, when they were used. Never values."""
    return SecretList.of(
        services.secrets.list(
            actor,
            query=q,
            domain=domain,
            sort=sort.removeprefix("-"),
            descending=sort.startswith("-"),
            offset=offset,
            limit=limit,
        ),
        services.secrets.source_of,
    )


@router.post("", status_code=201)
def create_secret(
    actor: Editor, services: Services, body: SecretNew, response: Response
) -> SecretChanged:
    """Make a secret. Its value is sealed at once, and is never given out."""
    value = body.taken_value()
    if value is None:
        raise invalid("body.value", "is missing", "send value or value_base64")
    made = services.secrets.create(
        actor,
        body.name,
        value,
        domains=body.allowed_domains,
        any_domain=body.any_domain,
        description=body.description,
        allow_short=body.allow_short,
    )
    response.headers["ETag"] = f'"{etag(made.secret)}"'
    response.headers["Location"] = f"/api/v1/secrets/{quote(made.secret.name, safe='')}"
    return SecretChanged.after(made)


@router.get("/{name}")
def get_secret(
    actor: Viewer, services: Services, name: SecretName, response: Response
) -> SecretOut:
    """What is known of one secret, with the ETag that a change has to name."""
    secret = services.secrets.get(actor, name)
    response.headers["ETag"] = f'"{etag(secret)}"'
    return SecretOut.of(secret, services.secrets.source_of(secret))


@router.patch("/{name}")
def change_secret(
    actor: Editor,
    services: Services,
    name: SecretName,
    body: SecretChange,
    response: Response,
    if_match: IfMatch = None,
) -> SecretChanged:
    """Change name, description or value; allowed domains only together with the value."""
    given = (body.name, body.description, body.value, body.value_base64, body.allowed_domains)
    if all(one is None for one in given):
        raise invalid("body", "changes nothing", "send name, description or value")
    if body.allowed_domains is not None and body.taken_value() is None:
        raise ApiProblem(
            Code.VALUE_REQUIRED,
            "A value is sealed together with its allowed domains, so changing them needs the"
            " value again.",
            hint="send the value along with allowed_domains",
        )
    if body.any_domain and body.allowed_domains is None:
        raise invalid("body.any_domain", "is there without allowed_domains")
    if if_match is None:
        raise ApiProblem(
            Code.PRECONDITION_REQUIRED, hint="send the ETag of GET in If-Match, or If-Match: *"
        )
    changed = services.secrets.change(
        actor,
        name,
        expected=expected(if_match),
        new_name=body.name,
        description=body.description,
        value=body.taken_value(),
        domains=body.allowed_domains,
        any_domain=body.any_domain,
        allow_short=body.allow_short,
    )
    response.headers["ETag"] = f'"{etag(changed.secret)}"'
    return SecretChanged.after(changed)


@router.delete("/{name}", status_code=204)
def delete_secret(
    actor: Editor,
    services: Services,
    name: SecretName,
    force: Annotated[
        bool, Query(description="Even if it is in use; takes the role owner.")
    ] = False,
    if_match: IfMatch = None,
) -> None:
    """Delete a secret with all its versions; 409 with who uses it, unless forced."""
    wanted = ANY if if_match is None else expected(if_match)
    services.secrets.delete(actor, name, expected=wanted, force=force)


@router.get("/{name}/history")
def get_history(actor: Viewer, services: Services, name: SecretName) -> History:
    """Its versions: when, and where each might go. Never values."""
    return History.of(name, services.secrets.history(actor, name))


@router.get("/{name}/status")
def get_status(actor: Viewer, services: Services, name: SecretName) -> SecretStatus:
    """Which version each worker has in force; the last use, and the last refusal with its code."""
    secret = services.secrets.get(actor, name)
    activity = services.activity
    return SecretStatus.of(
        secret,
        services.health.in_force(actor, secret),
        activity.last(actor, Filter(secret=name, decision="allow", traffic=True)),
        activity.last(actor, Filter(secret=name, decision="refuse", traffic=True)),
        services.secrets.users(actor, secret),
    )
