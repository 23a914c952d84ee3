"""Templates, and what every page is given: who looks at it, and what they may do."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from coatcheck import __version__
from coatcheck.admin.gate import Admitted
from coatcheck.admin.roles import Role
from coatcheck.admin.shield import Scope
from coatcheck.admin.ui import show, svg
from coatcheck.admin.ui.notes import Note, Notes
from coatcheck.core import placeholder


@dataclass(frozen=True, slots=True)
class State:
    """What the page keeps between requests; ``scope["state"]["page"]``."""

    clock: Callable[[], float] = time.time
    notes: Notes = field(default_factory=Notes)


def page(
    request: Request,
    template: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **context: Any,
) -> HTMLResponse:
    """The page that *template* makes of *context*."""
    html = draw(request.scope, template, **context)
    return HTMLResponse(html, status, headers=dict(headers or {}))


def go_to(
    request: Request, where: str, note: Note | None = None, **query: object
) -> RedirectResponse:
    """After a change: the page that shows it, with *note* said there."""
    admitted: Admitted | None = request.state.admitted
    if note is not None and admitted is not None and admitted.session is not None:
        state: State = request.scope["state"]["page"]
        state.notes.leave(admitted.session.csrf, note)
    return RedirectResponse(url(where, **query), 303)


def draw(scope: Scope, template: str, **context: Any) -> bytes:
    """The HTML. A lone surrogate, which no encoding has, becomes a question mark."""
    state: State = scope["state"]["page"]
    admitted: Admitted | None = scope["state"].get("admitted")
    session = admitted.session if admitted is not None else None
    role = admitted.actor.role if admitted is not None else None
    note = state.notes.take(session.csrf) if session is not None else None
    text = _TEMPLATES.get_template(template).render(
        actor=admitted.actor if admitted is not None else None,
        can_edit=role is not None and role.covers(Role.EDITOR),
        is_owner=role is not None and role.covers(Role.OWNER),
        csrf=session.csrf if session is not None else "",
        note=note,
        now=state.clock(),
        path=scope["path"],
        **context,
    )
    return text.encode("utf-8", "replace")


def url(where: str, **query: object) -> str:
    """A path with a query; what is empty is left out."""
    kept = {key: value for key, value in query.items() if value not in ("", None, 0, False)}
    encoded = urlencode(kept, errors="replace")
    return f"{where}?{encoded}" if encoded else where


def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "shown": show.shown,
        "plain": show.shown_plain,
        "moment": show.moment,
        "counted": show.counted,
        "placeholder": placeholder.write,
    }
    made.globals |= {"ago": show.ago, "spark": svg.spark, "chart": svg.chart, "url": url}
    made.globals |= {"version": __version__}
    return made


_TEMPLATES = _templates()
