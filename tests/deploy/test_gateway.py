"""Two replicas behind HAProxy (`gateway`): what they do together, and when a part is lost.

That real clients get through them is in tests/e2e/test_clients.py.
"""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from coatcheck.store.home import Home
from tests.deploy import nets
from tests.deploy.gateway import CONFIG, Gateway, running
from tests.e2e import harness
from tests.e2e.harness import BALANCER, DATABASE, REPLICAS
from tests.e2e.world import World
from tests.store.server import Server

TOKEN = "ctk_runner-0123456789abcdefghijklmnopqrstuvw"
FOUND_AGAIN_S = 15.0  # a database that comes back; docs/operations.md says five seconds
POLICY = f"""\
version: 1
clients:
  runner: {{ {harness.token_line(TOKEN)} }}
grants:
  - secrets: ["crm.*"]
    clients: [runner]
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


class Recorder:
    """The destination: it keeps what comes, and answers ``ok``."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        self.keys: list[str] = []
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                if (key := self.headers.get("Authorization", "")).startswith("Bearer "):
                    recorder.keys.append(key.removeprefix("Bearer "))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Nothing: pytest's output is no access log."""

        self._server = ThreadingHTTPServer(("", 0), Handler, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = context.wrap_socket(listener, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="coatcheck-gateway-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def place(folder: Path) -> Iterator[World]:
    nets.need("haproxy", "curl", "nsenter", root=False)
    networks = [f"{address}/32" for address in (BALANCER, *REPLICAS, DATABASE)]
    with nets.world(folder / "world", nets.NETWORK, *networks) as made:
        yield made


@pytest.fixture(scope="module")
def upstream(place: World, authority: trustme.CA) -> Iterator[Recorder]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(nets.HOST).configure_cert(context)
    made = Recorder(place.listen(nets.ADDRESS, 443), context)
    yield made
    made.close()


@pytest.fixture(scope="module")
def gateway(
    place: World, folder: Path, authority: trustme.CA, postgres: Server
) -> Iterator[Gateway]:
    upstream_ca = folder / "upstream-ca.pem"
    authority.cert_pem.write_to_path(upstream_ca)
    first = nets.home(folder / "first", POLICY)
    with running(place, folder, postgres, first, upstream_ca) as made:
        yield made


def send(gateway: Gateway, address: str = BALANCER) -> tuple[int, str]:
    """One request by a curl of its own; its status and the code of a refusal."""
    written = "%{stderr}%{http_code} %header{coatcheck-error}"
    command = ["curl", "-s", "--max-time", "20", "-x", f"http://runner:{TOKEN}@{address}:8080"]
    command += ["--cacert", str(gateway.ca), "-H", nets.PLACEHOLDER, "-w", written]
    done = nets.run(gateway.place, [*command, f"https://{nets.HOST}/v1/me"], gateway.folder)
    status, _, code = done.stderr.decode().rpartition("\n")[2].partition(" ")
    return int(status or 0), code.strip()


def test_the_configuration_has_no_mistake() -> None:
    nets.need("haproxy", root=False)

    done = subprocess.run(
        ["haproxy", "-c", "-f", CONFIG],
        env={"PATH": nets.search_path()},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, "WARNING" in done.stderr) == (0, False), done.stderr


def test_curl_gets_through_and_both_replicas_take_their_part(
    gateway: Gateway, upstream: Recorder
) -> None:
    before = len(upstream.keys)

    answers = [send(gateway) for _ in range(6)]

    assert answers == [(200, "")] * 6
    assert upstream.keys[before:] == [nets.VALUE] * 6
    allowed = [
        [line for line in harness.audit_of(gateway.home(address)) if line["decision"] == "allow"]
        for address in REPLICAS
    ]
    assert all(allowed), "one replica got nothing"
    assert not Home(gateway.home(REPLICAS[0])).private_key.exists()  # it was handed over


def test_a_client_without_the_token_gets_nowhere(gateway: Gateway, upstream: Recorder) -> None:
    """The load balancer's address is nobody's name."""
    before = len(upstream.keys)
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_connect}", "-x"]
    command += [f"http://{BALANCER}:8080", "-H", nets.PLACEHOLDER, f"https://{nets.HOST}/"]

    assert nets.run(gateway.place, command, gateway.folder).stdout == b"407"
    assert len(upstream.keys) == before


def test_a_changed_secret_is_in_force_on_every_replica_within_a_second(
    gateway: Gateway, upstream: Recorder
) -> None:
    revision = gateway.put(nets.KEY, b"the-second-value-of-the-key", nets.HOST)

    harness.wait_until(
        lambda: all(gateway.revision(address) >= revision for address in REPLICAS),
        harness.IN_FORCE_S,
    )
    before = len(upstream.keys)

    assert [send(gateway, address) for address in REPLICAS] == [(200, "")] * 2
    assert upstream.keys[before:] == ["the-second-value-of-the-key"] * 2


def test_a_replica_is_killed_and_requests_go_on_through_the_other(
    gateway: Gateway, upstream: Recorder
) -> None:
    gateway.put(nets.KEY, b"the-third-value-of-the-key", nets.HOST)
    time.sleep(harness.IN_FORCE_S)
    before = len(upstream.keys)
    killed = gateway.processes[REPLICAS[0]]

    killed.kill()
    killed.wait(20)  # and its workers go with it
    harness.wait_until(lambda: harness.is_refused(gateway.place, REPLICAS[0], 8080), 10)
    answers = [send(gateway) for _ in range(6)]
    gateway.start(REPLICAS[0])
    again = send(gateway, REPLICAS[0])

    assert answers == [(200, "")] * 6
    assert again == (200, "")
    assert upstream.keys[before:] == ["the-third-value-of-the-key"] * 7


def test_the_database_is_restarted_and_no_wrong_value_is_sent(
    gateway: Gateway, upstream: Recorder
) -> None:
    """What was read before is used meanwhile."""
    revision = gateway.put(nets.KEY, b"the-fourth-value-of-the-key", nets.HOST)
    in_force = lambda: all(gateway.revision(a) >= revision for a in REPLICAS)  # noqa: E731
    harness.wait_until(in_force, 10)
    before = len(upstream.keys)

    gateway.server.stop()
    try:
        without = [send(gateway) for _ in range(4)]
    finally:
        gateway.server.start()
    revision = gateway.put(nets.KEY, b"the-fifth-value-of-the-key!", nets.HOST)
    harness.wait_until(in_force, FOUND_AGAIN_S)
    after = [send(gateway, address) for address in REPLICAS]

    assert without == [(200, "")] * 4
    assert after == [(200, "")] * 2
    assert upstream.keys[before : before + 4] == ["the-fourth-value-of-the-key"] * 4
    assert upstream.keys[before + 4 :] == ["the-fifth-value-of-the-key!"] * 2
