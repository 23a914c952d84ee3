"""What holds for every request to the admin side, whatever it asks for.

Host names: a page of a stranger may make its own name stand for 127.0.0.1 (DNS rebinding), and then
a browser lets it talk to us. It cannot make the browser send a Host that is on our list.

Paths stay percent-encoded until a route has taken them apart: names of secrets hold any character,
``/`` too, and ``/secrets/a%2Fhistory`` is not the history of ``a``.
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from coatcheck.admin.problems import ApiProblem, Code
from coatcheck.observe import logs

type Scope = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
type Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
type App = Callable[[Scope, Receive, Send], Awaitable[None]]

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": CSP,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # "no-referrer" would have browsers send "Origin: null" along with our own forms.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_ADDED = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
MAX_PATH = 8192  # bytes


class Shield:
    """Wraps the whole application.

    Args:
        hosts: Names, without ports, that a Host field may have; lower case.
        body_bytes: The most that a request body may have.
    """

    def __init__(self, app: App, hosts: Sequence[str], body_bytes: int) -> None:
        self._app = app
        self._hosts = frozenset(hosts)
        self._body_bytes = body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # no WebSockets here, and no lifespan that anybody would need

        bounded = _Bounded(receive, self._body_bytes)
        replaced = False  # the answer of those below, by ours
        begun = False

        async def shielded(message: MutableMapping[str, Any]) -> None:
            nonlocal replaced, begun
            if replaced:
                return
            begun = True
            if message["type"] == "http.response.start" and bounded.exceeded:
                replaced = True  # whatever the layers above have made of it
                await answer(_too_large(), _with_headers(send))
                return
            await _with_headers(send)(message)

        try:
            self._check(scope)
            raw = scope.get("raw_path") or quote(scope["path"]).encode("ascii")
            scope["path"] = raw.decode("ascii", "replace")
            await self._app(scope, bounded, shielded)
        except ApiProblem as problem:
            await answer(problem, shielded)
        except Exception as error:
            # A bug, which the routes have told of and answered, or one of the layers above them.
            if not begun:
                tell_of_bug(error)
                await answer(ApiProblem(Code.INTERNAL_ERROR), shielded)

    def _check(self, scope: Scope) -> None:
        fields = scope["headers"]
        hosts = [value for name, value in fields if name == b"host"]
        if len(hosts) != 1 or host_of(hosts[0].decode("latin-1")) not in self._hosts:
            raise ApiProblem(
                Code.HOST_NOT_ALLOWED,
                hint="use the admin side's own address, or add the name to admin_hosts",
            )
        if len(scope.get("raw_path") or b"") > MAX_PATH:
            raise ApiProblem(Code.NOT_FOUND)
        lengths = [value for name, value in fields if name == b"content-length"]
        if any(not v.isdigit() or int(v[:20]) > self._body_bytes for v in lengths):
            raise _too_large()


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            ours = {name for name, _ in _ADDED}
            kept = [pair for pair in message["headers"] if pair[0].lower() not in ours]
            message["headers"] = [*kept, *_ADDED]
        await send(message)

    return sending


class _Bounded:
    """Reads a body, up to so many bytes."""

    def __init__(self, receive: Receive, left: int) -> None:
        self.exceeded = False
        self._receive = receive
        self._left = left

    async def __call__(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.exceeded = True
            raise _too_large()
        return message


def _too_large() -> ApiProblem:
    return ApiProblem(
        Code.BODY_TOO_LARGE,
        hint="raise limits.admin_body_bytes, or use the command line",
        headers={"Connection": "close"},
    )


def tell_of_bug(error: Exception) -> None:
    """Log an error that nobody expected by its type and place: its text may hold what was sent."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    where = " / ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames)
    logs.event("admin.internal_error", error=type(error).__name__, where=where)


def host_of(field: str) -> str:
    """The name in a Host field, without port and brackets, in lower case."""
    text = field.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") <= 1 else text


async def answer(problem: ApiProblem, send: Send) -> None:
    """Send *problem* as the whole answer."""
    body = problem.body()
    fields = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    fields.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": problem.status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
