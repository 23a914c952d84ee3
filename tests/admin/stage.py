"""An admin side without sockets: a real home and store, requests straight into the app."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from starlette.testclient import TestClient

from coatcheck import settings as settings_module
from coatcheck.admin.actions import FILE_NAME, Actions
from coatcheck.admin.auth import Authenticator
from coatcheck.admin.oidc import Issuer
from coatcheck.admin.roles import Role
from coatcheck.admin.service import Service
from coatcheck.admin.sessions import Sessions
from coatcheck.admin.throttle import Throttle
from coatcheck.admin.ui.site import make_site
from coatcheck.observe.auditlog import Keys
from coatcheck.settings import Settings
from coatcheck.store.home import Home, token_hash
from coatcheck.store.sql import SqlStore
from tests.store.stores import NOW, Clock

ADDRESS = "http://127.0.0.1:8081"
VALUE = "sk_live_4eC39HqLyjWDarjtT1zdp7dc"
OTHER_VALUE = "sk_live_another-9f8e7d6c5b4a39281706"


@dataclass
class Stage:
    """The parts, and a token for each role."""

    home: Home
    store: SqlStore
    settings: Settings
    clock: Clock
    actions: Actions
    service: Service
    auth: Authenticator
    sessions: Sessions
    app: Any
    tokens: dict[str, str] = field(default_factory=dict)

    def token(self, role: str, **more: Any) -> str:
        text = "ct_" + secrets.token_urlsafe(32)
        self.store.add_token(token_hash(text), role=role, now=NOW, name=f"the {role}", **more)
        return text

    def browser(self, **more: Any) -> TestClient:
        """Keeps cookies, and sends no credential by itself."""
        base = str(more.pop("base_url", ADDRESS))
        return TestClient(self.app, base, raise_server_exceptions=False, **more)

    def call(
        self,
        method: str,
        path: str,
        role: str | None = "owner",
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> httpx.Response:
        """One request with the token of *role*; None: without a credential."""
        sent = {"Authorization": f"Bearer {self.tokens[role]}"} if role else {}
        return self.browser().request(method, path, headers={**sent, **(headers or {})}, **more)

    def make(self, name: str = "crm.apiKey", **more: Any) -> httpx.Response:
        body = {"name": name, "value": VALUE, "allowed_domains": ["api.example.com"], **more}
        made = self.call("POST", "/api/v1/secrets", json=body)
        assert made.status_code == 201, made.text
        return made

    def actions_written(self) -> list[dict[str, Any]]:
        path = self.home.audit / FILE_NAME
        return [json.loads(line) for line in path.read_text().splitlines()]


@contextmanager
def staged(
    home: Home, *, issuer: Issuer | None = None, keys: Keys | None = None, **changes: Any
) -> Iterator[Stage]:
    """A stage over *home*; *changes*: of its settings."""
    clock = Clock()
    settings = replace(settings_module.load(home=home.root, environ={}), **changes)
    store = SqlStore.open(settings.store, public=home.read_public_key(), clock=clock)
    actions = Actions(home.audit, clock, keys=keys)
    actions.open()
    sessions = Sessions(
        settings.limits.admin_session_idle_s, settings.limits.admin_session_s, clock
    )
    auth = Authenticator(
        store, sessions, issuer, actions.refused, clock=clock, throttle=Throttle(clock)
    )
    service = Service.over(settings, store, actions, clock)
    app = make_site(settings, service, auth, clock)
    stage = Stage(home, store, settings, clock, actions, service, auth, sessions, app)
    stage.tokens = {str(role): stage.token(role) for role in Role}
    try:
        yield stage
    finally:
        actions.close()
        store.close()


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The document of a refusal, once it is the one that is expected."""
    assert answer.status_code == status, answer.text
    document: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["coatcheck-error"] == code
    assert document["code"] == code
    assert document["type"] == f"urn:coatcheck:problem:{code}"
    assert document["status"] == status
    return document


def write_policy(home: Home, text: str) -> Path:
    home.policy.write_text(text)
    return home.policy
