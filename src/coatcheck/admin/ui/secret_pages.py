"""One secret: what is known of it, and taking it away. The name stands in the query: names hold any
character, and a browser takes a path apart (``..``) before it asks for it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response

from coatcheck.admin.activity import Filter
from coatcheck.admin.api.deps import Editor, Services, Viewer
from coatcheck.admin.problems import ApiProblem, Code
from coatcheck.admin.roles import Actor
from coatcheck.admin.secret_service import etag
from coatcheck.admin.service import Service
from coatcheck.admin.ui.activity_pages import told
from coatcheck.admin.ui.notes import Note
from coatcheck.admin.ui.render import go_to, page
from coatcheck.admin.ui.secret_list import SPARK_H

router = APIRouter(include_in_schema=False)

type Name = Annotated[str, Query(max_length=1024)]


@router.get("/secrets/show")
def show_secret(request: Request, actor: Viewer, services: Services, name: Name = "") -> Response:
    secret = services.secrets.get(actor, name)
    activity = services.activity
    use = activity.last(actor, Filter(secret=name, decision="allow", traffic=True))
    refusal = activity.last(actor, Filter(secret=name, decision="refuse", traffic=True))
    return page(
        request,
        "secret.html",
        secret=secret,
        source=services.secrets.source_of(secret),
        users=services.secrets.users(actor, secret),
        workers=services.health.in_force(actor, secret),
        spark_of=activity.summary(actor, SPARK_H).by_secret.get(name),
        use=told(use) if use is not None else None,
        refusal=told(refusal) if refusal is not None else None,
        versions=list(reversed(services.secrets.history(actor, name))),
    )


@router.get("/secrets/delete")
def ask_before_deleting(
    request: Request, actor: Editor, services: Services, name: Name = ""
) -> Response:
    return _ask(request, actor, services, name)


@router.post("/secrets/delete")
def delete_secret(
    request: Request,
    actor: Editor,
    services: Services,
    name: Annotated[str, Form()] = "",
    etag: Annotated[str, Form()] = "",
    force: Annotated[str, Form()] = "",
) -> Response:
    try:
        services.secrets.delete(actor, name, expected=etag or "-", force=bool(force))
    except ApiProblem as problem:
        words = _WHY_NOT.get(problem.code)
        if words is None:
            raise
        return _ask(request, actor, services, name, problem.status, words)
    return go_to(request, "/secrets", Note("Deleted:", name))


_WHY_NOT = {
    Code.SECRET_IN_USE: "It was not deleted: somebody would miss it.",
    Code.PRECONDITION_FAILED: "It was not deleted: somebody has changed it since you opened this"
    " page. Below is what it is now.",
}


def _ask(
    request: Request,
    actor: Actor,
    services: Service,
    name: str,
    status: int = 200,
    error: str = "",
) -> Response:
    secret = services.secrets.stored(actor, name)
    return page(
        request,
        "secret_delete.html",
        status=status,
        secret=secret,
        etag=etag(secret),
        users=services.secrets.users(actor, secret),
        error=error,
    )
