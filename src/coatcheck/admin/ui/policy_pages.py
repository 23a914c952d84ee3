"""The policy: its text with the mistakes in it, grants, what would become of a request, drafts.

What is typed into the forms here is not sent back: a header or a draft may hold what it should not.
With JavaScript the form is left as it is and the answer is put below it.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response

from coatcheck.admin.api.deps import Services, Viewer
from coatcheck.admin.api.policy_routes import MAX_DRAFT
from coatcheck.admin.policy_service import Checked, masked
from coatcheck.admin.problems import ApiProblem, Code
from coatcheck.admin.roles import Actor
from coatcheck.admin.service import Service
from coatcheck.admin.ui import yamltext
from coatcheck.admin.ui.forms import Errors, errors_of
from coatcheck.admin.ui.render import page

router = APIRouter(include_in_schema=False)

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")

type Field = Annotated[str, Form()]


@router.get("/policy")
def show_policy(request: Request, actor: Viewer, services: Services) -> Response:
    current = services.policy.current(actor)
    good = current.good
    apart = good if good is not None and good.digest != current.now.digest else None
    return page(
        request,
        "policy.html",
        current=current,
        lines=_lines(current.now),
        former=_lines(apart) if apart is not None else [],
        workers=services.health.proxy(actor).workers,
    )


@router.get("/policy/grants")
def show_grants(
    request: Request,
    actor: Viewer,
    services: Services,
    client: Annotated[str, Query(max_length=128)] = "",
    secret: Annotated[str, Query(max_length=256)] = "",
) -> Response:
    return page(
        request,
        "grants.html",
        grants=services.policy.grants(actor, client=client or None, secret=secret or None),
        clients=_clients(actor, services),
        client=client,
        secret=secret,
    )


@router.get("/policy/explain")
def show_explain(request: Request, actor: Viewer, services: Services) -> Response:
    return page(request, "explain.html", **_asked(actor, services))


@router.post("/policy/explain")
def explain(
    request: Request,
    actor: Viewer,
    services: Services,
    client: Field = "",
    method: Field = "GET",
    url: Field = "",
    headers: Field = "",
    body: Field = "",
) -> Response:
    asked = _asked(actor, services)
    kept = {"client": client if client in asked["clients"] else "", "method": method}
    if method not in METHODS:
        kept["method"] = "GET"
    try:
        answer = services.policy.explain(
            actor,
            client=client or None,
            method=method,
            url=url.strip(),
            headers=[line.strip() for line in headers.splitlines() if line.strip()],
            body=body or None,
        )
    except ApiProblem as problem:
        if problem.status not in (404, 422):
            raise
        more = {**asked, **kept, "errors": errors_of(problem)}
        return page(request, "explain.html", status=422, **more)
    return page(request, "explain.html", **{**asked, **kept, "answer": answer})


@router.get("/policy/check")
def show_check(request: Request, actor: Viewer) -> Response:
    return page(request, "check.html", checked=None, error="")


@router.post("/policy/check")
def check_draft(request: Request, actor: Viewer, services: Services, text: Field = "") -> Response:
    if len(text) > MAX_DRAFT:
        error = "The draft is larger than a policy file may be."
        return page(request, "check.html", status=422, checked=None, error=error)
    checked = services.policy.validate(actor, text.replace("\r\n", "\n"))
    return page(request, "check.html", checked=checked, error="")


def _asked(actor: Actor, services: Service) -> dict[str, Any]:
    errors: Errors = {}
    return {
        "clients": _clients(actor, services),
        "methods": METHODS,
        "client": "",
        "method": "GET",
        "answer": None,
        "errors": errors,
    }


def _clients(actor: Actor, services: Service) -> list[str]:
    """None where the policy cannot be used; the page says so."""
    try:
        return [client.name for client, _ in services.policy.clients(actor)]
    except ApiProblem as problem:
        if problem.code is not Code.POLICY_UNAVAILABLE:
            raise
        return []


def _lines(checked: Checked) -> list[yamltext.Line]:
    return yamltext.lines(masked(checked.text), checked.errors)
