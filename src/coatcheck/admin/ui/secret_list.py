"""The list of secrets: search, sort, pages of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from coatcheck.admin.api.deps import Services, Viewer
from coatcheck.admin.secret_service import SORTS
from coatcheck.admin.ui.render import page, url

router = APIRouter(include_in_schema=False)

PER_PAGE = 50
SPARK_H = 24
COLUMNS = (
    ("name", "Name"),
    ("last_used_at", "Last used"),
    ("uses", "Uses"),
    ("updated_at", "Changed"),
)


@dataclass(frozen=True, slots=True)
class Heading:
    """A column that can be sorted by. *sorted*: as ``aria-sort`` has it."""

    title: str
    url: str
    sorted: str


@router.get("/")
def begin(request: Request, actor: Viewer) -> Response:
    return Response(status_code=303, headers={"Location": "/secrets"})


@router.get("/secrets")
def show_list(
    request: Request,
    actor: Viewer,
    services: Services,
    q: Annotated[str, Query(max_length=256)] = "",
    sort: Annotated[str, Query(max_length=32)] = "name",
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> Response:
    key, descending = sort.removeprefix("-"), sort.startswith("-")
    if key not in SORTS:
        key, descending, sort = "name", False, "name"
    found = services.secrets.list(
        actor, query=q, sort=key, descending=descending, offset=offset, limit=PER_PAGE
    )
    summary = services.activity.summary(actor, SPARK_H)
    return page(
        request,
        "secrets.html",
        found=found,
        first=offset + 1,
        q=q,
        sort=sort,
        headings={name: _heading(name, title, q, sort) for name, title in COLUMNS},
        source_of=services.secrets.source_of,
        sparks=summary.by_secret,
        before=url("/secrets", q=q, sort=sort, offset=max(0, offset - PER_PAGE)) if offset else "",
        after=url("/secrets", q=q, sort=sort, offset=found.next_offset)
        if found.next_offset
        else "",
    )


def _heading(name: str, title: str, q: str, sort: str) -> Heading:
    now = {name: "ascending", f"-{name}": "descending"}.get(sort, "none")
    # The newest and the most first; names from A.
    first, other = (name, f"-{name}") if name == "name" else (f"-{name}", name)
    return Heading(title, url("/secrets", q=q, sort=other if sort == first else first), now)
