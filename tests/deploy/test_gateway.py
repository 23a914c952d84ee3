"""Two replicas behind HAProxy, with one PostgreSQL, set up as docs/deploy/gateway.md says.

HAProxy has deploy/haproxy/haproxy.cfg as it is: in a network of the tests' own its addresses are
there. The database runs outside of that network, and a relay leads to it.
"""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from coatcheck.observe import state
from coatcheck.store.home import Home
from coatcheck.store.sql import SqlStore
from tests.deploy import nets
from tests.e2e import harness
from tests.e2e.world import World
from tests.store.server import PASSWORD, Server

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
CLIENT = ROOT / "tests" / "e2e" / "clients" / "python_client.py"
BALANCER, REPLICAS, DATABASE = "10.0.0.10", ("10.0.0.11", "10.0.0.12"), "10.0.0.20"
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


class Relay:
    """From a socket in the network of the tests to a port outside of it."""

    def __init__(self, listener: socket.socket, port: int) -> None:
        self._listener = listener
        self._port = port
        listener.settimeout(None)
        threading.Thread(target=self._take, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _take(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        there = ("127.0.0.1", self._port)
        with suppress(OSError), near, socket.create_connection(there, 5) as far:
            far.settimeout(None)
            back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
            back.start()
            self._pump(near, far)
            back.join()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass
class Gateway:
    """What a test may do to it."""

    place: World
    folder: Path
    upstream: Recorder
    server: Server
    database: str
    ca: Path
    started: ExitStack
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def home(self, address: str) -> Path:
        return self.folder / f"replica-{address}"

    def start(self, address: str) -> None:
        url = f"postgresql://coat:{PASSWORD}@{DATABASE}:5432/{self.database}"
        self.processes[address] = self.started.enter_context(
            nets.serving(
                self.place,
                self.home(address),
                f"{address}:8080",
                self.folder / "upstream-ca.pem",
                COATCHECK_STORE=url,
                CREDENTIALS_DIRECTORY=str(self.folder / "credentials"),
            )
        )

    def send(self, address: str = BALANCER) -> tuple[int, str]:
        """One request by a curl of its own; its status and the code of a refusal."""
        written = "%{stderr}%{http_code} %header{coatcheck-error}"
        command = ["curl", "-s", "--max-time", "20", "-x", f"http://runner:{TOKEN}@{address}:8080"]
        command += ["--cacert", str(self.ca), "-H", nets.PLACEHOLDER, "-w", written]
        done = nets.run(self.place, [*command, f"https://{nets.HOST}/v1/me"], self.folder)
        status, _, code = done.stderr.decode().rpartition("\n")[2].partition(" ")
        return int(status or 0), code.strip()

    def put(self, value: bytes) -> int:
        """A new value, as an operator's command stores it; the store's revision afterwards."""
        public = Home(self.folder / "first").read_public_key()
        with closing(SqlStore.open(self.server.url(self.database), public=public)) as store:
            harness.put(store, nets.KEY, value, nets.HOST)
            return store.revision()

    def revision(self, address: str) -> int:
        """What the replica says that it has in force."""
        (worker,) = state.workers_of(state.read(self.home(address) / "run") or {})
        return int(worker["store"]["revision"])


@pytest.fixture(scope="module")
def gateway(postgres: Server) -> Iterator[Gateway]:
    nets.need("haproxy", "curl", "nsenter", root=False)
    networks = [f"{address}/32" for address in (BALANCER, *REPLICAS, DATABASE)]
    folder = Path(tempfile.mkdtemp(prefix="coatcheck-gateway-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        place = stack.enter_context(nets.world(folder / "world", nets.NETWORK, *networks))
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "upstream-ca.pem")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(nets.HOST).configure_cert(context)
        upstream = Recorder(place.listen(nets.ADDRESS, 443), context)
        stack.callback(upstream.close)
        relay = Relay(place.listen(DATABASE, 5432), postgres.port)
        stack.callback(relay.close)
        database = postgres.database()
        first = nets.home(folder / "first", POLICY)
        coatcheck("store", "migrate", "--to", postgres.url(database), "--home", first)
        hand_out_keys(Home(first), folder)
        ca = Home(first).ca_certificate
        made = Gateway(place, folder, upstream, postgres, database, ca, stack)
        for address in REPLICAS:
            coatcheck("init", "--from", folder / "keys", "--home", made.home(address))
            (made.home(address) / "policy.yaml").write_text(POLICY)
            made.start(address)
        stack.enter_context(haproxy(place, folder))
        yield made


def coatcheck(*arguments: str | Path) -> None:
    done = subprocess.run(harness.program(*arguments), env=harness.environ(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def hand_out_keys(first: Home, folder: Path) -> None:
    """As the Secrets of deploy/kubernetes do: the sealing key apart from the rest."""
    (folder / "keys").mkdir()
    (folder / "credentials").mkdir()
    for path in (first.public_key, first.ca_key):
        shutil.copy(path, folder / "keys")
    shutil.copy(first.private_key, folder / "credentials" / "coatcheck.sealing-key")


@contextmanager
def haproxy(place: World, folder: Path) -> Iterator[None]:
    log = folder / "haproxy.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            place.enter(["haproxy", "-db", "-f", CONFIG], folder),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=harness.environ() | {"PATH": nets.search_path()},
        )
    try:
        until = time.monotonic() + 20
        while True:
            assert process.poll() is None, log.read_text()
            try:
                place.connect(BALANCER, 8080).close()
                break
            except OSError:
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(20)


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


def test_curl_gets_through_and_both_replicas_take_their_part(gateway: Gateway) -> None:
    before = len(gateway.upstream.keys)

    answers = [gateway.send() for _ in range(6)]

    assert answers == [(200, "")] * 6
    assert gateway.upstream.keys[before:] == [nets.VALUE] * 6
    allowed = [
        [line for line in harness.audit_of(gateway.home(address)) if line["decision"] == "allow"]
        for address in REPLICAS
    ]
    assert all(allowed), "one replica got nothing"
    assert not Home(gateway.home(REPLICAS[0])).private_key.exists()  # it was handed over


@pytest.mark.parametrize("library", ["requests", "httpx", "urllib"])
def test_libraries_of_python_get_through(gateway: Gateway, library: str) -> None:
    before = len(gateway.upstream.keys)
    command = harness.program("run", "--proxy", f"{BALANCER}:8080", "--ca", gateway.ca)
    command += ["--client", "runner", "--"]
    client = [sys.executable, str(CLIENT), library, f"https://{nets.HOST}"]

    done = nets.run(
        gateway.place,
        [*command, *client, "{{secrets.crm.apiKey}}"],
        gateway.folder,
        COATCHECK_CLIENT_TOKEN=TOKEN,
    )

    answers = json.loads(done.stdout)
    assert {status for status, _ in answers.values()} == {200}, done.stderr
    assert "header" in answers
    assert gateway.upstream.keys[before:] == [nets.VALUE]


def test_a_client_without_the_token_gets_nowhere(gateway: Gateway) -> None:
    """The load balancer's address is nobody's name."""
    before = len(gateway.upstream.keys)
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_connect}", "-x"]
    command += [f"http://{BALANCER}:8080", "-H", nets.PLACEHOLDER, f"https://{nets.HOST}/"]

    assert nets.run(gateway.place, command, gateway.folder).stdout == b"407"
    assert len(gateway.upstream.keys) == before


def test_a_changed_secret_is_in_force_on_every_replica_within_a_second(gateway: Gateway) -> None:
    revision = gateway.put(b"the-second-value-of-the-key")

    harness.wait_until(
        lambda: all(gateway.revision(address) >= revision for address in REPLICAS),
        harness.IN_FORCE_S,
    )
    before = len(gateway.upstream.keys)

    assert [gateway.send(address) for address in REPLICAS] == [(200, "")] * 2
    assert gateway.upstream.keys[before:] == ["the-second-value-of-the-key"] * 2


def test_a_replica_is_killed_and_requests_go_on_through_the_other(gateway: Gateway) -> None:
    gateway.put(b"the-third-value-of-the-key")
    time.sleep(harness.IN_FORCE_S)
    before = len(gateway.upstream.keys)
    killed = gateway.processes[REPLICAS[0]]

    killed.kill()
    killed.wait(20)
    answers = [gateway.send() for _ in range(6)]
    gateway.start(REPLICAS[0])
    again = gateway.send(REPLICAS[0])

    assert answers == [(200, "")] * 6
    assert again == (200, "")
    assert gateway.upstream.keys[before:] == ["the-third-value-of-the-key"] * 7


def test_the_database_is_restarted_and_no_wrong_value_is_sent(gateway: Gateway) -> None:
    """What was read before is used meanwhile."""
    revision = gateway.put(b"the-fourth-value-of-the-key")
    in_force = lambda: all(gateway.revision(a) >= revision for a in REPLICAS)  # noqa: E731
    harness.wait_until(in_force, 10)
    before = len(gateway.upstream.keys)

    gateway.server.stop()
    try:
        without = [gateway.send() for _ in range(4)]
    finally:
        gateway.server.start()
    revision = gateway.put(b"the-fifth-value-of-the-key!")
    harness.wait_until(in_force, FOUND_AGAIN_S)
    after = [gateway.send(address) for address in REPLICAS]

    assert without == [(200, "")] * 4
    assert after == [(200, "")] * 2
    assert gateway.upstream.keys[before : before + 4] == ["the-fourth-value-of-the-key"] * 4
    assert gateway.upstream.keys[before + 4 :] == ["the-fifth-value-of-the-key!"] * 2
