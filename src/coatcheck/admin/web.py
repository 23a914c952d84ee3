"""The application: the routes behind the gate behind the shield.

Deny by default, twice. The gate lets nobody through who is not known, but for the paths in
`PUBLIC`; and a route that says neither `Needs` nor stands there is a mistake that is found here,
when the application is made, and not by whoever calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from coatcheck import __version__
from coatcheck.admin.api import (
    audit_routes,
    description,
    errors,
    event_routes,
    health_routes,
    policy_routes,
    secret_routes,
    session_routes,
    token_routes,
)
from coatcheck.admin.api.deps import Needs
from coatcheck.admin.auth import Authenticator
from coatcheck.admin.gate import Gate
from coatcheck.admin.roles import Role
from coatcheck.admin.service import Service
from coatcheck.admin.shield import App, Shield
from coatcheck.settings import Settings

PUBLIC = frozenset({"/healthz", "/readyz", description.PATH, "POST /api/v1/session"})


API = (
    description.router,
    health_routes.router,
    session_routes.router,
    secret_routes.router,
    token_routes.router,
    policy_routes.router,
    audit_routes.router,
    event_routes.router,
)


def make_app(
    settings: Settings,
    service: Service,
    auth: Authenticator,
    *,
    pages: Sequence[APIRouter] = (),
    public_pages: Collection[str] = (),
    log_in_page: str = "",
    around: Callable[[App], App] | None = None,
) -> App:
    """The whole application.

    Args:
        pages: Routes of the page; each route says `Needs`, or stands in *public_pages*.
        public_pages: What needs no credential, as `Gate` takes it.
        log_in_page: Where a browser without a session is sent.
        around: What stands between the shield and the gate.
    """
    public = [*PUBLIC, *public_pages]
    routers = [*API, *pages]
    check(routers, public)
    app = _routes(service, auth, settings, routers, public)
    gate: App = Gate(app, auth, public, log_in_page)
    if around is not None:
        gate = around(gate)
    return Shield(gate, hosts_of(settings), settings.limits.admin_body_bytes)


def _routes(
    service: Service,
    auth: Authenticator,
    settings: Settings,
    routers: Sequence[APIRouter],
    public: Collection[str],
) -> FastAPI:
    """The routes alone, with nobody at the gate."""
    app = FastAPI(
        title="coatcheck",
        version=__version__,
        summary="Manage secrets whose values nobody can read back.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.auth = auth
    app.state.settings = settings
    app.state.public = frozenset(public)
    app.state.routes = [route for router in routers for route in router.routes]
    errors.install(app)
    for router in routers:
        app.include_router(router)

    return app


def hosts_of(settings: Settings) -> list[str]:
    """The names that a Host field may have."""
    if settings.admin_hosts:
        return list(settings.admin_hosts)
    host = settings.admin[0].lower()
    return [host, "localhost", "127.0.0.1", "::1"]


def needs_of(route: APIRoute) -> Role | None:
    """The role that *route* takes; None where it says none."""
    return _role_of(route.dependant)


def _role_of(dependant: Dependant) -> Role | None:
    if isinstance(dependant.call, Needs):
        return dependant.call.role
    found = (_role_of(inner) for inner in dependant.dependencies)
    return next((role for role in found if role is not None), None)


def check(routers: Sequence[APIRouter], public: Collection[str]) -> None:
    """Raise `RuntimeError` unless each route says the role it takes, or is public."""
    below = tuple(path for path in public if path.endswith("/"))
    for route in (route for router in routers for route in router.routes):
        path: str = getattr(route, "path", "")
        methods = getattr(route, "methods", None) or {"?"}
        named = all(path in public or f"{method} {path}" in public for method in methods)
        if named or (below and path.startswith(below)):
            continue
        if not isinstance(route, APIRoute) or needs_of(route) is None:
            raise RuntimeError(f"the route {path} says no role and is not public")
