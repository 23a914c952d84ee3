"""`/healthz` and `/readyz` for whoever asks; `/api/v1/workers` for those who may see lists."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from pydantic import Field

from coatcheck.admin.api.deps import Services, Viewer
from coatcheck.admin.api.models import Outgoing
from coatcheck.admin.gate import METRICS
from coatcheck.admin.health import WorkerFacts

router = APIRouter(tags=["health"])


class Alive(Outgoing):
    ok: bool


class Ready(Outgoing):
    ready: bool
    reasons: list[str] = Field(
        description="policy_error, store_unavailable, no_worker_ready; empty where it is ready."
    )


class WorkerOut(Outgoing):
    number: int
    pid: int | None
    ready: bool = Field(description="It takes connections.")
    restarts: int
    last_end: str = Field(description="How the process before it ended.")
    policy_sha256: str
    policy_error: str
    store_revision: int
    store_error: str

    @classmethod
    def of(cls, worker: WorkerFacts) -> WorkerOut:
        return cls(
            number=worker.number,
            pid=worker.pid,
            ready=worker.ready,
            restarts=worker.restarts,
            last_end=worker.last_end,
            policy_sha256=worker.policy_digest,
            policy_error=worker.policy_error,
            store_revision=worker.store_revision,
            store_error=worker.store_error,
        )


class WorkerList(Outgoing):
    running: bool = Field(description="Whether a proxy runs with this home.")
    version: str
    started_at: str
    listen: list[str]
    items: list[WorkerOut]


@router.get("/healthz")
def healthz() -> Alive:
    """This process answers."""
    return Alive(ok=True)


@router.get("/readyz", responses={503: {"model": Ready, "description": "It is not ready."}})
def readyz(services: Services, response: Response) -> Ready:
    """Whether the proxy can do its work: a policy, a store, a worker."""
    reasons = services.health.reasons()
    if reasons:
        response.status_code = 503
    return Ready(ready=not reasons, reasons=reasons)


@router.get(METRICS, response_class=PlainTextResponse, include_in_schema=False)
def show_metrics(actor: Viewer, services: Services) -> Response:
    """Numbers for Prometheus. Whoever asks from this machine needs no credential."""
    text, kind = services.health.metrics(actor)
    return Response(text, headers={"Content-Type": kind})


@router.get("/api/v1/workers", tags=["workers"])
def list_workers(actor: Viewer, services: Services) -> WorkerList:
    """The workers of the proxy, and what each has in force."""
    proxy = services.health.proxy(actor)
    return WorkerList(
        running=proxy.running,
        version=proxy.version,
        started_at=proxy.started_at,
        listen=list(proxy.listen),
        items=[WorkerOut.of(worker) for worker in proxy.workers],
    )
