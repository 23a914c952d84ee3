"""Log in with a token, log out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from coatcheck.admin.api.deps import Viewer
from coatcheck.admin.auth import Authenticator
from coatcheck.admin.gate import Admitted, address_of
from coatcheck.admin.problems import ApiProblem, Code
from coatcheck.admin.sessions import drop_cookie, set_cookie
from coatcheck.admin.ui.render import page

router = APIRouter(include_in_schema=False)

_WRONG = "This is no token that is known here, or it has ended."
_OFTEN = "There were too many wrong tokens. Wait a moment, then try again."


@router.get("/login")
def show_log_in(request: Request) -> Response:
    return page(request, "log_in.html", error="")


@router.post("/login")
def log_in(request: Request, token: Annotated[str, Form()] = "") -> Response:
    auth: Authenticator = request.app.state.auth
    try:
        cookie, _ = auth.log_in(token.strip(), address_of(request.scope))
    except ApiProblem as problem:
        if problem.code not in (Code.UNAUTHENTICATED, Code.TOO_MANY_ATTEMPTS):
            raise
        wrong = problem.code is Code.UNAUTHENTICATED
        again = {name: v for name, v in problem.headers.items() if name == "Retry-After"}
        return page(
            request,
            "log_in.html",
            status=problem.status if not wrong else 422,  # a 401 has a browser ask for a password
            headers=again,
            error=_WRONG if wrong else _OFTEN,
        )
    fields = {"Location": "/secrets", "Set-Cookie": set_cookie(cookie)}
    return Response(status_code=303, headers=fields)


@router.post("/logout")
def log_out(request: Request, actor: Viewer) -> Response:
    auth: Authenticator = request.app.state.auth
    admitted: Admitted = request.state.admitted
    if admitted.cookie:
        auth.log_out(admitted.cookie)
    fields = {"Location": "/login", "Set-Cookie": drop_cookie()}
    return Response(status_code=303, headers=fields)
