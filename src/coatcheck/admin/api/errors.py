"""Whatever goes wrong below a route, as one of our problems. Nothing of a request is repeated.

FastAPI's own answers quote the input, and pydantic's the value that did not fit: the value of a
secret that was sent into the wrong field would come back in an error page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from coatcheck.admin.problems import ApiProblem, Code
from coatcheck.admin.shield import tell_of_bug
from coatcheck.core.ports import StoreError
from coatcheck.observe import logs

MAX_ERRORS = 20


def install(app: FastAPI) -> None:
    """Have *app* answer every failure as a problem."""
    app.add_exception_handler(ApiProblem, _of_problem)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_framework)
    app.add_exception_handler(StoreError, _of_store)
    app.add_exception_handler(Exception, _of_bug)


def response(problem: ApiProblem) -> Response:
    return Response(problem.body(), problem.status, headers=problem.headers)


async def _of_problem(_: Request, error: Exception) -> Response:
    return response(error if isinstance(error, ApiProblem) else ApiProblem(Code.INTERNAL_ERROR))


async def _of_validation(request: Request, error: Exception) -> Response:
    details: Sequence[Mapping[str, Any]] = (
        error.errors() if isinstance(error, RequestValidationError) else ()
    )
    if _is_of_another_type(request, details):
        problem = ApiProblem(
            Code.UNSUPPORTED_MEDIA_TYPE, hint="send Content-Type: application/json"
        )
    else:
        found = [(_place(one), _words(one)) for one in details[:MAX_ERRORS]]
        problem = ApiProblem(
            Code.INVALID_REQUEST, hint="see /openapi.json", errors=list(dict.fromkeys(found))
        )
    return response(problem)


async def _of_framework(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: Code.NOT_FOUND, 405: Code.METHOD_NOT_ALLOWED, 415: Code.UNSUPPORTED_MEDIA_TYPE}
    found = code.get(status, Code.INVALID_REQUEST if status < 500 else Code.INTERNAL_ERROR)
    allow = {"Allow": ", ".join(_methods(request))} if status == 405 else {}
    return response(ApiProblem(found, headers=allow))


def _methods(request: Request) -> list[str]:
    """All that the path takes: the framework names those of one route alone."""
    found: set[str] = set()
    for route in request.app.state.routes:
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return sorted(found)


async def _of_store(_: Request, error: Exception) -> Response:
    logs.event("admin.store_failed", error=str(error))
    return response(
        ApiProblem(Code.STORE_UNAVAILABLE, hint="the log says why; see: coatcheck doctor")
    )


async def _of_bug(_: Request, error: Exception) -> Response:
    tell_of_bug(error)
    return response(ApiProblem(Code.INTERNAL_ERROR))


def _is_of_another_type(request: Request, details: Sequence[Mapping[str, Any]]) -> bool:
    whole = any(tuple(one["loc"]) == ("body",) for one in details)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return whole and bool(kind) and kind != "application/json" and not kind.endswith("+json")


def _place(detail: Mapping[str, Any]) -> str:
    """Where it is, in names of our own: ``body.allowed_domains[1]``."""
    parts: Iterable[str | int] = detail["loc"]
    kept = [*parts]
    if detail["type"] == "extra_forbidden":
        kept = kept[:-1]  # the last one is a word of the sender
    if detail["type"] == "json_invalid":
        kept = kept[:1]
    text = ""
    for part in kept:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")


_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "holds something that is not known here",
    "json_invalid": "is no JSON",
    "string_too_short": "is too short",
    "string_too_long": "is too long",
    "too_long": "has too many entries",
    "too_short": "has too few entries",
    "greater_than_equal": "is too small",
    "less_than_equal": "is too large",
    "enum": "is none of the known words",
    "literal_error": "is none of the known words",
    "value_error": "does not fit",
}
_TYPES = {
    "string": "text",
    "bool": "true or false",
    "int": "a whole number",
    "list": "a list",
    "dict": "an object",
    "model": "an object",
    "datetime": "a time, as in 2026-01-31T12:00:00Z",
    "date": "a time, as in 2026-01-31T12:00:00Z",
}


def _words(detail: Mapping[str, Any]) -> str:
    kind = str(detail["type"])
    if kind in _WORDS:
        return _WORDS[kind]
    wanted = _TYPES.get(kind.partition("_")[0])
    return f"should be {wanted}" if wanted else "does not fit"
