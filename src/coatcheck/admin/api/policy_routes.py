"""`/api/v1/policy`, `/clients` and `/explain`: who may send what where, and why not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query
from pydantic import Field

from coatcheck.admin.api.deps import Services, Viewer
from coatcheck.admin.api.models import Incoming, Outgoing
from coatcheck.admin.policy_service import Checked, Effective, masked
from coatcheck.core.policy import Client

router = APIRouter(prefix="/api/v1", tags=["policy"])

MAX_DRAFT = 1024 * 1024  # characters, as much as a policy file may have bytes


class PolicyError(Outgoing):
    line: int = Field(description="From 1; 0 where the mistake has no place in the text.")
    column: int
    problem: str
    hint: str


class PolicyChecked(Outgoing):
    valid: bool
    sha256: str
    errors: list[PolicyError]
    warnings: list[str]
    clients: int
    grants: int

    @classmethod
    def of(cls, checked: Checked, **more: Any) -> Self:
        policy = checked.policy
        return cls(
            valid=policy is not None,
            sha256=checked.digest,
            errors=[
                PolicyError(line=e.line, column=e.column, problem=e.problem, hint=e.hint)
                for e in checked.errors
            ],
            warnings=list(checked.warnings),
            clients=len(policy.clients) if policy is not None else 0,
            grants=len(policy.grants) if policy is not None else 0,
            **more,
        )


class PolicyOut(PolicyChecked):
    file: str
    text: str = Field(description="The file as it is; hashes of tokens are cut short.")
    in_force_sha256: str | None = Field(
        description="Of the last text that could be used, which is in force; null where this"
        " process has seen none."
    )
    in_force_text: str | None
    workers: list[WorkerPolicy]


class WorkerPolicy(Outgoing):
    number: int
    sha256: str = Field(description="Of the policy that this worker has in force.")
    error: str


class Draft(Incoming):
    text: str = Field(max_length=MAX_DRAFT, description="The content of a policy file.")


class GrantOut(Outgoing):
    line: int
    secrets: list[str] = Field(description="As the policy has them, patterns among them.")
    clients: list[str]
    hosts: list[str] | None = Field(description="Null: the secret's own allowed domains decide.")
    methods: list[str] | None
    paths: list[str] | None
    places: list[str] = Field(description="What the policy calls in:.")
    max_uses: int
    plaintext: bool
    matching_secrets: list[str] = Field(description="The secrets that there are for it.")

    @classmethod
    def of(cls, one: Effective) -> Self:
        grant = one.grant
        return cls(
            line=grant.line,
            secrets=list(grant.secrets),
            clients=list(grant.clients),
            hosts=None if grant.hosts is None else [str(host) for host in grant.hosts],
            methods=None if grant.methods is None else sorted(grant.methods),
            paths=None if grant.paths is None else list(grant.paths),
            places=[str(place) for place in grant.locations],
            max_uses=grant.max_uses,
            plaintext=grant.plaintext,
            matching_secrets=[secret.name for secret in one.secrets],
        )


class GrantList(Outgoing):
    items: list[GrantOut]


class ClientOut(Outgoing):
    name: str
    token: bool = Field(description="Whether it shows a token.")
    networks: list[str]
    grants: int
    secrets: list[str] = Field(description="The secrets that some grant gives it.")

    @classmethod
    def of(cls, client: Client, grants: Sequence[Effective]) -> Self:
        names = {secret.name for one in grants for secret in one.secrets}
        return cls(
            name=client.name,
            token=client.token is not None,
            networks=[str(network) for network in client.networks],
            grants=len(grants),
            secrets=sorted(names),
        )


class ClientList(Outgoing):
    items: list[ClientOut]


class Question(Incoming):
    """A request as a client would send it."""

    client: str | None = Field(
        None, max_length=128, description="May be left out where the policy has one client."
    )
    method: str = Field("GET", min_length=1, max_length=64)
    url: str = Field(min_length=1, max_length=16384)
    headers: list[Annotated[str, Field(max_length=8192)]] = Field(
        default_factory=list, max_length=100, description="Each as 'Name: value'."
    )
    body: str | None = Field(None, max_length=MAX_DRAFT)


@router.get("/policy")
def get_policy(actor: Viewer, services: Services) -> PolicyOut:
    """The policy file, what is wrong with it, and what the workers have in force."""
    current = services.policy.current(actor)
    good = current.good
    return PolicyOut.of(
        current.now,
        file=current.path,
        text=masked(current.now.text),
        in_force_sha256=None if good is None else good.digest,
        in_force_text=None if good is None else masked(good.text),
        workers=[
            WorkerPolicy(
                number=worker.number, sha256=worker.policy_digest, error=worker.policy_error
            )
            for worker in services.health.proxy(actor).workers
        ],
    )


@router.post("/policy/validate")
def validate_policy(actor: Viewer, services: Services, body: Draft) -> PolicyChecked:
    """Judge a draft. Nothing of it is kept."""
    return PolicyChecked.of(services.policy.validate(actor, body.text))


@router.get("/policy/grants")
def list_grants(
    actor: Viewer,
    services: Services,
    client: Annotated[str | None, Query(max_length=128)] = None,
    secret: Annotated[str | None, Query(max_length=256)] = None,
) -> GrantList:
    """The grants in force, for one client, for one secret, for both, or all."""
    found = services.policy.grants(actor, client=client, secret=secret)
    return GrantList(items=[GrantOut.of(one) for one in found])


@router.get("/clients")
def list_clients(actor: Viewer, services: Services) -> ClientList:
    """The clients of the policy, and the secrets that each may use."""
    found = services.policy.clients(actor)
    return ClientList(items=[ClientOut.of(client, grants) for client, grants in found])


@router.post("/explain")
def explain_request(actor: Viewer, services: Services, body: Question) -> dict[str, Any]:
    """What would become of a request, and which line of the policy decides. Sends nothing."""
    return services.policy.explain(
        actor,
        client=body.client,
        method=body.method,
        url=body.url,
        headers=body.headers,
        body=body.body,
    )
