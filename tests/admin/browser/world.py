"""A stage that has something on it: secrets, a policy, a log of a day, a proxy with two workers."""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime, timedelta
from typing import Any

from coatcheck.core.ports import Used
from coatcheck.observe import state
from coatcheck.observe.auditlog import FileAuditLog
from tests.admin.stage import Stage, write_policy
from tests.store.stores import NOW, open_store

POLICY = """\
version: 1

clients:
  runner-a:
    token: "sha256:9f2c8e1ab7d3c4059f2c8e1ab7d3c4059f2c8e1ab7d3c4059f2c8e1ab7d3c405"
    networks: ["10.1.0.0/16"]      # both given: both must hold
  agents:
    token: "sha256:1f2c8e1ab7d3c4059f2c8e1ab7d3c4059f2c8e1ab7d3c4059f2c8e1ab7d3c405"
  local:
    networks: ["127.0.0.1/32", "::1/128"]

grants:
  - secrets: ["crm.*"]
    clients: [runner-a]
    hosts: ["api.crm.example.com"]
    methods: [GET, POST]
    paths: ["/v1/**"]
    in: ["header:authorization", "query:key"]
  - secrets: [stripe.live]
    clients: [runner-a, agents]
    max_uses: 4
  - secrets: ["llm.*"]
    clients: [agents]

egress:
  default: allow
"""
SECRETS: list[tuple[str, list[str], str]] = [
    ("crm.apiKey", ["api.crm.example.com", "*.eu.crm.example.com"], "The CRM, with read and write"),
    ("crm.webhook", ["hooks.crm.example.com"], ""),
    ("github.deploy", ["api.github.com"], "Deploys from the release workflow"),
    ("llm.openai", ["api.openai.com"], "Agents; budget of 200 a month"),
    ("smtp password, old", [], "To be taken away when the last job has moved"),
    ("stripe.live", ["api.stripe.com", "files.stripe.com:8443"], "Payments"),
]
START = datetime.fromtimestamp(NOW, UTC)


def fill(stage: Stage) -> None:
    """Put all of it there."""
    write_policy(stage.home, POLICY)
    for name, domains, description in SECRETS:
        stage.make(name, allowed_domains=domains, description=description)
    with_uses = open_store(stage.home, stage.clock)
    ids = {secret.name: secret.id for secret in with_uses.secrets()}
    with_uses.record_use(
        {ids["crm.apiKey"]: Used(NOW - 130, 1841), ids["stripe.live"]: Used(NOW - 7300, 96)}
    )
    with_uses.close()
    write_log(stage, a_day())
    proxy(stage)


def write_log(stage: Stage, lines: list[dict[str, Any]], worker: int = 1) -> None:
    log = FileAuditLog(stage.home.audit, worker)
    log.open()
    for one in lines:
        log.write(one)
    log.close()


def line(before: float, **more: Any) -> dict[str, Any]:
    """A line of the log, so many seconds before now."""
    at = START - timedelta(seconds=before)
    return {
        "time": at.isoformat(timespec="milliseconds"),
        "event": "request",
        "request_id": f"r{before}",
        "client": "runner-a",
        "address": "10.1.0.7",
        "scheme": "https",
        "host": "api.crm.example.com",
        "port": 443,
        "method": "GET",
        "path": "/v1/contacts",
        "decision": "allow",
        **more,
    }


def used(name: str, location: str = "header:authorization") -> dict[str, Any]:
    return {"secrets": [{"name": name, "version": 1, "location": location}]}


def refused(code: str, name: str, **more: Any) -> dict[str, Any]:
    return {"decision": "refuse", "code": code, "secret": name, **more}


def scrubbed(name: str, spelling: str = "base64") -> dict[str, Any]:
    hit = {"name": name, "spelling": spelling, "channel": "body", "count": 2}
    return {"event": "response", "decision": "scrub", "status": 200, "scrubbed": [hit]}


def a_day() -> list[dict[str, Any]]:
    dice = random.Random(7)
    found: list[tuple[float, dict[str, Any]]] = []
    for hour in range(24):
        for _ in range(dice.randint(1, 14)):
            found.append((hour * 3600 + dice.random() * 3000, used("crm.apiKey")))
        for _ in range(dice.randint(0, 3)):
            found.append((hour * 3600 + dice.random() * 3000, scrubbed("stripe.live")))
        if dice.random() < 0.4:
            code = refused("domain_not_allowed", "crm.apiKey", host="evil.example.net")
            found.append((hour * 3600 + dice.random() * 3000, code))
    found.append((40, used("stripe.live", "body:/client_secret") | {"method": "POST"}))
    found.append((20, refused("secret_unavailable", "payments.key", operator="no such secret")))
    found.sort(key=lambda one: -one[0])
    return [line(before, **more) for before, more in found]


def proxy(stage: Stage, *, ready: bool = True, error: str = "") -> None:
    """A proxy that says it has two workers."""
    digest = stage.service.policy.look().digest
    revision = stage.store.revision()
    workers = [
        {
            "number": number,
            "pid": 4000 + number,
            "ready": ready,
            "restarts": number - 1,
            "last_end": "SIGKILL" if number == 2 else "",
            "policy": {"digest": digest, "error": error},
            "store": {"revision": revision, "error": ""},
        }
        for number in (1, 2)
    ]
    record = {
        "version": "0.1.0",
        "pid": os.getpid(),
        "listen": [["127.0.0.1", 8080]],
        "started_at": "2023-11-14T18:00:00+00:00",
        "workers": workers,
    }
    state.write(stage.home.run, record)
