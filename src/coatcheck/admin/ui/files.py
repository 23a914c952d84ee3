"""The few files that a page needs, read once. They hold nothing of anybody, so they are public."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Response

from coatcheck.admin.problems import ApiProblem, Code

PREFIX = "/static"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FILES = {
    path.name: (path.read_bytes(), TYPES[path.suffix])
    for path in (Path(__file__).parent / "static").iterdir()
    if path.suffix in TYPES
}

router = APIRouter(prefix=PREFIX, include_in_schema=False)


@router.get("/{name}")
def get_file(name: str) -> Response:
    if name not in FILES:
        raise ApiProblem(Code.NOT_FOUND)
    body, kind = FILES[name]
    return Response(body, media_type=kind)
