"""What routes ask for: who sends, the services, a name out of the path."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Header, Path, Request

from coatcheck.admin.gate import Admitted
from coatcheck.admin.problems import ApiProblem, Code
from coatcheck.admin.roles import Actor, Role
from coatcheck.admin.service import Service


class Needs:
    """Stands for the role that a route takes. A route without one is not served (`web`)."""

    def __init__(self, role: Role) -> None:
        self.role = role

    def __call__(self, request: Request) -> Actor:
        admitted: Admitted | None = request.state.admitted
        if admitted is None:
            raise ApiProblem(Code.UNAUTHENTICATED)
        admitted.actor.require(self.role)
        return admitted.actor


type Viewer = Annotated[Actor, Depends(Needs(Role.VIEWER))]
type Editor = Annotated[Actor, Depends(Needs(Role.EDITOR))]
type Owner = Annotated[Actor, Depends(Needs(Role.OWNER))]


def service_of(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


type Services = Annotated[Service, Depends(service_of)]


def secret_name(
    name: Annotated[
        str,
        Path(
            description="The name, percent-encoded: a slash in it is %2F.",
            min_length=1,
            max_length=3072,
        ),
    ],
) -> str:
    """The name that the path holds; it is still encoded there (`shield`)."""
    try:
        return unquote_to_bytes(name).decode("utf-8")
    except UnicodeDecodeError:
        raise ApiProblem(Code.SECRET_NOT_FOUND) from None


type SecretName = Annotated[str, Depends(secret_name)]

type IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        description='The ETag of what is to be changed, or "*" for whatever is there.',
        max_length=256,
    ),
]


def expected(if_match: str) -> str:
    """The etag that If-Match names: of several, and of weak ones, none is right."""
    text = if_match.strip()
    if text == "*":
        return text
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else "-"
