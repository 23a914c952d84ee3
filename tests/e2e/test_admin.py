"""The admin process beside real workers: its port, its life, what it does not have."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from coatcheck.observe import state
from coatcheck.store.home import token_hash
from tests.e2e.harness import (
    CLIENTS,
    IN_FORCE_S,
    RUNNER,
    Proxy,
    Shell,
    api_only,
    make_home,
    store_of,
    wait_until,
)
from tests.e2e.upstream import Upstream
from tests.e2e.wire import request
from tests.e2e.world import World

VALUE = b"first-value-0123456789"
SECOND = "second-value-9876543210"
KEY = "Authorization: Bearer {{secrets.crm.apiKey}}"
POLICY = CLIENTS + (
    'grants: [{ secrets: ["crm.*"], clients: [runner] }]\negress: {networks: ["127.0.0.0/8"]}\n'
)
FREE = "127.0.0.1:0"
TAKEN = "127.0.0.1:8081"
SLACK_S = 2.0
START_S = 90.0
END_S = 60.0  # this machine may be busy

_numbers = count(1)


class Managed(Proxy):
    """A proxy with an admin side, and a token for that."""

    token = ""

    def wait_ready(self) -> Proxy:
        """Two more processes take longer than one."""

        def is_over() -> bool:
            return b"serve.ready" in self.log.read_bytes() or self.process.poll() is not None

        wait_until(is_over, START_S)
        assert self.process.poll() is None, self.log.read_text()
        return self

    def admin(self) -> dict[str, Any]:
        found = state.read(self.home / "run") or {}
        admin = found.get("admin")
        return admin if isinstance(admin, dict) else {}

    def admin_port(self) -> int:
        return int(self.admin()["listen"][0][1])

    def ask(
        self, method: str, path: str, body: object = None, port: int = 0, **headers: str
    ) -> tuple[int, Any]:
        """One request to the admin side; its status and document."""
        sock = self.world.connect("127.0.0.1", port or self.admin_port())
        sent = {"Authorization": f"Bearer {self.token}", **headers}
        connection = http.client.HTTPConnection("127.0.0.1", port or self.admin_port())
        connection.sock = sock
        try:
            data = None if body is None else json.dumps(body)
            kind = {} if body is None else {"Content-Type": "application/json"}
            connection.request(method, path, data, {**sent, **kind})
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()


type Start = Callable[..., Managed]


@pytest.fixture(scope="module")
def start(
    world: World, folder: Path, upstream_ca: Path, every_upstream: Upstream
) -> Iterator[Start]:
    made: list[Managed] = []

    def start(
        *options: str,
        ready: bool = True,
        settings: str = "",
        change: Callable[[Path], None] = lambda _: None,
    ) -> Managed:
        root = folder / f"admin-{next(_numbers)}"
        home = make_home(root, {"crm.apiKey": api_only(VALUE)}, POLICY, settings)
        token = "ct_" + secrets.token_urlsafe(32)
        with store_of(home) as store:
            store.add_token(token_hash(token), role="owner", now=time.time(), name="test")
        change(home)
        proxy = Managed(world, home, upstream_ca, *options)
        proxy.token = token
        made.append(proxy)
        if ready:
            proxy.wait_ready()
        return proxy

    yield start
    for proxy in made:
        proxy.stop()


@pytest.fixture(scope="module")
def shared(start: Start) -> Managed:
    return start("--admin", FREE)


def value_that_arrives(proxy: Managed, upstream: Upstream) -> str:
    with proxy.dial(RUNNER).tunnel() as wire:
        assert wire.get("/echo/x", KEY).status == 200
    (received,) = upstream.take()
    text: str = received.head.decode()
    return text.partition("Bearer ")[2].partition("\r\n")[0]


def test_the_port_that_was_taken_is_shown(shared: Managed, shell: Shell) -> None:
    done = shell.coatcheck("status", "--home", shared.home, "--format", "json")
    found = json.loads(done.stdout)

    assert done.returncode == 0
    assert found["admin_listen"] == [f"127.0.0.1:{shared.admin_port()}"]
    assert found["admin_ready"] is True
    assert shared.admin_port() not in (0, 8081)


def test_it_knows_how_the_workers_are(shared: Managed) -> None:
    assert shared.ask("GET", "/readyz", Authorization="") == (200, {"ready": True, "reasons": []})
    status, found = shared.ask("GET", "/api/v1/workers")

    assert status == 200
    assert [one["pid"] for one in found["items"]] == shared.workers()
    _, secret = shared.ask("GET", "/api/v1/secrets/crm.apiKey/status")
    assert [(one["number"], one["version"]) for one in secret["workers"]] == [
        (number + 1, 1) for number in range(len(shared.workers()))
    ]


def test_a_value_that_is_set_here_is_what_workers_inject(start: Start, upstream: Upstream) -> None:
    proxy = start("--admin", FREE)
    assert value_that_arrives(proxy, upstream) == VALUE.decode()
    status, _ = proxy.ask(
        "PATCH", "/api/v1/secrets/crm.apiKey", {"value": SECOND}, **{"If-Match": "*"}
    )
    assert status == 200
    time.sleep(IN_FORCE_S + SLACK_S)

    assert value_that_arrives(proxy, upstream) == SECOND
    status, found = proxy.ask("GET", "/api/v1/audit?client=runner&secret=crm.apiKey")
    assert [line["secrets"][0]["version"] for line in found["items"] if "secrets" in line][:2] == [
        2,
        1,
    ]
    assert SECOND not in json.dumps(found)


def test_no_client_reaches_it_through_the_proxy(shared: Managed) -> None:
    """Though the policy lets clients reach loopback, and the port is one that the system picked."""
    number = shared.admin_port()
    refused = []
    for host in ("127.0.0.1", "localhost", "127.0.0.2"):
        name = f"{host}:{number}"
        dial = shared.dial(RUNNER)
        with dial.plain() as wire:
            identity = f"Proxy-Authorization: {RUNNER}"
            refused.append(
                wire.ask(request("GET", f"http://{name}/healthz", identity, host=name)).code
            )
    assert refused == ["address_not_allowed", "address_not_allowed", "upstream_unreachable"]


def test_one_that_is_killed_is_replaced_and_the_workers_stay(shared: Managed) -> None:
    before, workers, port = shared.admin()["pid"], shared.workers(), shared.admin_port()
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: shared.admin()["pid"] not in (None, before), END_S)
    wait_until(lambda: bool(shared.admin()["ready"]), END_S)

    assert shared.admin_port() == port
    assert shared.admin()["restarts"] == 1
    assert shared.ask("GET", "/healthz") == (200, {"ok": True})
    assert shared.workers() == workers
    assert b"admin.died" in shared.log.read_bytes()


def test_it_has_opened_no_private_key(shared: Managed) -> None:
    """What it has open and mapped: no key, and nothing of the engine."""
    pid = shared.admin()["pid"]
    opened = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}
    mapped = Path(f"/proc/{pid}/maps").read_text()

    assert any("store.db" in name for name in opened)
    assert not any("sealing.key" in name or "/ca/" in name for name in opened)
    assert "mitmproxy" not in mapped


def test_alone_it_needs_no_private_key(start: Start, shell: Shell) -> None:
    def without_keys(home: Path) -> None:
        (home / "sealing.key").unlink()
        (home / "ca" / "mitmproxy-ca.pem").unlink()

    proxy = start("--role", "admin", "--admin", FREE, change=without_keys)
    shown = state.read(proxy.home / "run", state.ADMIN_FILE_NAME) or {}
    port = shown["admin"]["listen"][0][1]  # type: ignore[index]

    assert proxy.ask("GET", "/readyz", port=port)[0] == 200
    sent = {"name": "new", "value": SECOND, "allowed_domains": ["api.example.test"]}
    assert proxy.ask("POST", "/api/v1/secrets", sent, port=port)[0] == 201
    assert proxy.ask("GET", "/api/v1/workers", port=port)[1]["running"] is False
    done = shell.coatcheck("status", "--home", proxy.home, "--format", "json")
    assert (done.returncode, json.loads(done.stdout)["admin_ready"]) == (0, True)
    assert proxy.stop() == 0
    assert not (proxy.home / "run" / state.ADMIN_FILE_NAME).exists()


def test_proxies_alone_have_no_admin_port(start: Start, world: World) -> None:
    proxy = start("--role", "proxy", "--admin", "127.0.0.1:8089")

    assert proxy.admin() == {}
    with pytest.raises(OSError, match="refused"):
        world.connect("127.0.0.1", 8089)


def test_a_default_port_that_is_taken_keeps_no_proxy_from_its_work(
    start: Start, world: World, upstream: Upstream
) -> None:
    with world.listen("127.0.0.1", 8081):
        proxy = start("--role", "all")

        assert value_that_arrives(proxy, upstream) == VALUE.decode()
        assert b"admin.unavailable" in proxy.log.read_bytes()
        assert proxy.admin() == {}


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(start: Start, world: World) -> None:
    with world.listen("127.0.0.1", 8081):
        proxy = start("--admin", TAKEN, ready=False)

        assert proxy.process.wait(END_S) == 1
    said = proxy.log.read_bytes()
    assert b"error: cannot listen on 127.0.0.1:8081" in said
    assert b"--admin HOST:PORT" in said


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        pytest.param('oidc_issuer: "https://id.example"\n', "go together", id="half an issuer"),
        pytest.param(
            'oidc_issuer: a\noidc_audience: b\noidc_jwks: "missing.json"\n',
            "oidc_jwks",
            id="keys that are not there",
        ),
    ],
)
def test_what_it_cannot_be_started_with(start: Start, settings: str, says: str) -> None:
    proxy = start("--admin", FREE, ready=False, settings=settings)

    assert proxy.process.wait(END_S) == 1
    said = proxy.log.read_text()
    assert f"{says}" in said
    assert said.count("error: ") == 1
    assert "Traceback" not in said


def test_it_ends_with_the_supervisor(start: Start) -> None:
    proxy = start("--admin", FREE)
    pid = proxy.admin()["pid"]
    proxy.process.kill()
    proxy.process.wait()

    wait_until(lambda: not state.is_alive(pid), END_S)
