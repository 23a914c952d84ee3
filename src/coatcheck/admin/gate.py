"""Nobody passes whom it does not know, but for the few routes that are named as public.

A credential in Authorization goes first, and then the cookie of a session counts for nothing. With
a session a request that changes something must also show that it comes from our page: the session's
CSRF token, and nothing in Origin or Sec-Fetch-Site that speaks against it.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Collection, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from coatcheck.admin.auth import Authenticator
from coatcheck.admin.connection import be_known
from coatcheck.admin.problems import ApiProblem, Code
from coatcheck.admin.roles import Actor, Role
from coatcheck.admin.sessions import Session, cookie_in
from coatcheck.admin.shield import App, Receive, Scope, Send
from coatcheck.core.ports import StoreError
from coatcheck.observe import logs

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
METRICS = "/metrics"
CSRF_HEADER = b"x-csrf-token"
CSRF_FIELD = "csrf"
_FORWARDED = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via"})
FORM = b"application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Admitted:
    """Who sent a request.

    Attributes:
        token: The hash of the API token; empty for a JWT.
        session: None for a bearer credential.
        cookie: Of the session.
    """

    actor: Actor
    token: str = ""
    session: Session | None = None
    cookie: str = ""


class Gate:
    """Stands before the routes; puts an `Admitted` into ``scope["state"]["admitted"]``.

    Args:
        public: What needs no credential: a path, a method and a path, or a path that ends in
            ``/``, for all below it.
        page: Where a browser without a session is sent, unless it asked for the API.
    """

    def __init__(
        self, app: App, auth: Authenticator, public: Collection[str], page: str = ""
    ) -> None:
        self._app = app
        self._auth = auth
        self._public = frozenset(public)
        self._below = tuple(path for path in public if path.endswith("/"))
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        state["admitted"] = None
        fields: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            fields[name] = fields[name] + b"; " + value if name in fields else value
        if self._is_public(scope):
            if scope["method"] not in SAFE:
                _check_origin(fields)
            await self._app(scope, receive, send)
            return
        if b"authorization" not in fields and _is_local_scrape(scope):
            state["admitted"] = Admitted(Actor("", Role.VIEWER, "local", address=address_of(scope)))
            await self._app(scope, receive, send)
            return
        try:
            # A look into the store may wait for the disk.
            admitted = await asyncio.to_thread(self._admit, fields, address_of(scope))
        except StoreError as error:
            logs.event("admin.store_failed", error=str(error))
            raise ApiProblem(Code.STORE_UNAVAILABLE, hint="see: coatcheck doctor") from None
        except ApiProblem as problem:
            if problem.code is not Code.UNAUTHENTICATED or not self._is_browser(scope, fields):
                raise
            await self._send_to_page(send)
            return
        be_known(scope)
        if admitted.session is not None and scope["method"] not in SAFE:
            _check_origin(fields)
            receive = await _check_csrf(fields, admitted.session, receive)
        state["admitted"] = admitted
        await self._app(scope, receive, send)

    def _admit(self, fields: dict[bytes, bytes], address: str) -> Admitted:
        if b"authorization" in fields:
            header = fields[b"authorization"].decode("latin-1")
            return Admitted(*self._auth.bearer(header, address))
        cookie = cookie_in(fields.get(b"cookie", b"").decode("latin-1"))
        session = self._auth.session(cookie, address)
        if session is None:
            raise ApiProblem(Code.UNAUTHENTICATED, hint="send Authorization: Bearer TOKEN")
        return Admitted(session.actor, session.token, session, cookie)

    def _is_public(self, scope: Scope) -> bool:
        path = scope["path"]
        named = path in self._public or f"{scope['method']} {path}" in self._public
        return named or bool(self._below and path.startswith(self._below))

    def _is_browser(self, scope: Scope, fields: dict[bytes, bytes]) -> bool:
        wants_page = b"text/html" in fields.get(b"accept", b"")
        return bool(self._page) and wants_page and not scope["path"].startswith("/api/")

    async def _send_to_page(self, send: Send) -> None:
        fields = [(b"location", self._page.encode()), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 303, "headers": fields})
        await send({"type": "http.response.body", "body": b""})


def address_of(scope: Scope) -> str:
    """Where a request came from."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _is_local_scrape(scope: Scope) -> bool:
    """A look at the metrics from this machine, where everybody can see its processes anyway."""
    if scope["path"] != METRICS or scope["method"] not in SAFE:
        return False
    if any(name in _FORWARDED for name, _ in scope["headers"]):
        return False  # a proxy on this machine asks for somebody else
    try:
        return ipaddress.ip_address(address_of(scope)).is_loopback
    except ValueError:
        return False


def _check_origin(fields: dict[bytes, bytes]) -> None:
    """Raise `ApiProblem` where a browser says that another site's page has sent it."""
    site = fields.get(b"sec-fetch-site", b"same-origin")
    origin = fields.get(b"origin")
    ours = origin is None or _same(origin, fields.get(b"host", b""))
    if site not in (b"same-origin", b"none") or not ours:
        raise ApiProblem(Code.CSRF_FAILED, hint="use the page of this admin side")


async def _check_csrf(fields: dict[bytes, bytes], session: Session, receive: Receive) -> Receive:
    """Raise `ApiProblem` unless the session's token comes along, in the header or in a form.

    Returns:
        Where to read the body from: it was read here, to find the field of a form.
    """
    shown = fields.get(CSRF_HEADER, b"").decode("latin-1")
    if not shown and fields.get(b"content-type", b"").partition(b";")[0].strip() == FORM:
        body = await _read(receive)
        found: list[str] = []
        with suppress(ValueError):
            sent = parse_qs(body.decode("utf-8", "replace"), max_num_fields=2000)
            found = sent.get(CSRF_FIELD, [])
        shown = found[0] if len(found) == 1 else ""
        receive = _again(body, receive)
    if not session.accepts(shown):
        raise ApiProblem(Code.CSRF_FAILED, hint="send the session's CSRF token in X-CSRF-Token")
    return receive


def _same(origin: bytes, host: bytes) -> bool:
    """Whether *origin* is the very origin that is asked. Its scheme is not known behind a proxy
    that ends TLS."""
    try:
        netloc = urlsplit(origin.decode("latin-1")).netloc
    except ValueError:
        return False
    return bool(netloc) and netloc.lower() == host.decode("latin-1").strip().lower()


async def _read(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


def _again(body: bytes, receive: Receive) -> Receive:
    told = False

    async def again() -> MutableMapping[str, Any]:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
