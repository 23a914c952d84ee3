"""`/openapi.json`: FastAPI's description of the routes, made true.

Every refusal is a problem (RFC 9457), not what FastAPI would have answered; every route but the
public ones takes a credential; a problem's ``code`` is one of a known list.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, FastAPI, Request

from coatcheck.admin.problems import CONTENT_TYPE, TABLE, Code

PATH = "/openapi.json"
router = APIRouter()

PROBLEM: dict[str, Any] = {
    "title": "Problem",
    "description": "A refusal (RFC 9457). It repeats nothing of the request.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "description": "urn:coatcheck:problem:CODE"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": [str(code) for code in Code]},
        "hint": {"type": "string", "description": "The next step."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["in", "problem"],
                "properties": {
                    "in": {"type": "string", "description": "As in body.allowed_domains[1]."},
                    "problem": {"type": "string"},
                },
            },
        },
        "used_by": {
            "type": "array",
            "description": "Who would miss the secret (secret_in_use).",
            "items": {"$ref": "#/components/schemas/SecretUser"},
        },
    },
}


@router.get(PATH, include_in_schema=False)
def openapi(request: Request) -> dict[str, Any]:
    """What the API looks like."""
    found: dict[str, Any] | None = getattr(request.app.state, "described", None)
    if found is None:
        found = request.app.state.described = describe(request.app, request.app.state.public)
    return found


def describe(app: FastAPI, public: frozenset[str]) -> dict[str, Any]:
    """The document; *public* as `Gate` takes it."""
    document = app.openapi()
    parts = document.setdefault("components", {})
    schemas = parts.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = PROBLEM
    parts["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API token, or a JWT of the configured issuer.",
        }
    }
    for path, method, operation in _operations(document):
        operation["responses"].pop("422", None)
        operation["responses"]["default"] = _refusal()
        if path not in public and f"{method.upper()} {path}" not in public:
            operation["security"] = [{"bearer": []}]
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _refusal() -> dict[str, Any]:
    statuses = sorted({status for status, _ in TABLE.values()})
    return {
        "description": f"A refusal: one of {', '.join(map(str, statuses))}.",
        "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
