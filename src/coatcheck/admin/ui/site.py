"""What stands round the routes of the page: its state, and problems drawn as pages.

Everything below speaks of problems as JSON documents, the gate and the framework too. A browser
that asked for a page gets one made of the same document, so nothing is told here that is not told
there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, MutableMapping
from typing import Any

from coatcheck.admin.auth import Authenticator
from coatcheck.admin.problems import CONTENT_TYPE, ApiProblem
from coatcheck.admin.service import Service
from coatcheck.admin.shield import App, Receive, Scope, Send, answer
from coatcheck.admin.ui import (
    activity_pages,
    files,
    log_in,
    policy_pages,
    proxy_pages,
    secret_forms,
    secret_list,
    secret_pages,
    token_pages,
)
from coatcheck.admin.ui.render import State, draw
from coatcheck.admin.web import make_app
from coatcheck.settings import Settings

LOG_IN = "/login"
PUBLIC = frozenset({LOG_IN, f"{files.PREFIX}/"})
ROUTERS = (
    files.router,
    log_in.router,
    secret_list.router,
    secret_forms.router,
    secret_pages.router,
    activity_pages.router,
    policy_pages.router,
    proxy_pages.router,
    token_pages.router,
)


def make_site(
    settings: Settings,
    service: Service,
    auth: Authenticator,
    clock: Callable[[], float] = time.time,
) -> App:
    """The API and the page."""
    return make_app(
        settings,
        service,
        auth,
        pages=ROUTERS,
        public_pages=PUBLIC,
        log_in_page=LOG_IN,
        around=lambda app: Site(app, State(clock)),
    )


class Site:
    """Wraps the gate."""

    def __init__(self, app: App, state: State) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["page"] = self._state
        fields = dict(scope["headers"])
        partial = b"hx-request" in fields
        wants_page = b"text/html" in fields.get(b"accept", b"") or partial
        if not wants_page or scope["path"].startswith("/api/"):
            await self._app(scope, receive, send)
            return
        drawn = _Drawn(scope, send, partial=partial)
        try:
            await self._app(scope, receive, drawn)
        except ApiProblem as problem:  # the gate's
            await answer(problem, drawn)


class _Drawn:
    """Sends on what it is given, but for problems: those become pages."""

    def __init__(self, scope: Scope, send: Send, *, partial: bool) -> None:
        self._scope = scope
        self._send = send
        self._partial = partial
        self._start: MutableMapping[str, Any] | None = None
        self._body = b""

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start" and _is_problem(message):
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._draw(self._start)

    async def _draw(self, start: MutableMapping[str, Any]) -> None:
        body = draw(self._scope, "problem.html", problem=json.loads(self._body))
        dropped = (b"content-type", b"content-length")
        fields = [pair for pair in start["headers"] if pair[0].lower() not in dropped]
        fields.append((b"content-type", b"text/html; charset=utf-8"))
        fields.append((b"content-length", str(len(body)).encode()))
        if self._partial and start["status"] == 401:
            fields.append((b"hx-redirect", LOG_IN.encode()))  # a part of a page is no log-in form
        await self._send({**start, "headers": fields})
        await self._send({"type": "http.response.body", "body": body})


def _is_problem(message: MutableMapping[str, Any]) -> bool:
    return any(
        name.lower() == b"content-type" and value == CONTENT_TYPE.encode()
        for name, value in message["headers"]
    )
