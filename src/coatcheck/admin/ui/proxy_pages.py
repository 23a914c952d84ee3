"""Who uses the proxy, and how it is: clients, workers, health."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from coatcheck.admin.api.deps import Services, Viewer
from coatcheck.admin.ui.render import page

router = APIRouter(include_in_schema=False)

REASONS = {
    "policy_error": "The policy file cannot be used. The last good one stays in force.",
    "store_unavailable": "The secret store does not answer.",
    "no_worker_ready": "No worker takes connections.",
}


@router.get("/clients")
def show_clients(request: Request, actor: Viewer, services: Services) -> Response:
    clients = [
        (client, grants, sorted({secret.name for one in grants for secret in one.secrets}))
        for client, grants in services.policy.clients(actor)
    ]
    return page(request, "clients.html", clients=clients)


@router.get("/workers")
def show_workers(request: Request, actor: Viewer, services: Services) -> Response:
    proxy = services.health.proxy(actor)
    return page(
        request,
        "workers.html",
        proxy=proxy,
        reasons=[REASONS.get(reason, reason) for reason in services.health.reasons()],
    )
