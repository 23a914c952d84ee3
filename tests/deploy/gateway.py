"""Two replicas of coatcheck behind HAProxy, with one PostgreSQL, as docs/deploy/gateway.md says.

HAProxy has deploy/haproxy/haproxy.cfg as it is: in a network of the tests' own its addresses are
there. The database runs outside of that network, and a relay leads to it.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from coatcheck.observe import state
from coatcheck.store.home import Home
from coatcheck.store.sql import SqlStore
from tests.deploy import nets
from tests.e2e import harness
from tests.e2e.harness import BALANCER, DATABASE, REPLICAS
from tests.e2e.world import World
from tests.store.server import PASSWORD, Server

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "deploy" / "haproxy" / "haproxy.cfg"


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
    server: Server
    database: str
    upstream_ca: Path
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
                self.upstream_ca,
                COATCHECK_STORE=url,
                CREDENTIALS_DIRECTORY=str(self.folder / "credentials"),
            )
        )

    @property
    def ca(self) -> Path:
        """The CA certificate that all replicas share."""
        return Home(self.folder / "first").ca_certificate

    def put(self, name: str, value: bytes, *domains: str) -> int:
        """A new value, as an operator's command stores it; the store's revision afterwards."""
        public = Home(self.folder / "first").read_public_key()
        with closing(SqlStore.open(self.server.url(self.database), public=public)) as store:
            harness.put(store, name, value, *domains)
            return store.revision()

    def revision(self, address: str) -> int:
        """What the replica says that it has in force."""
        (worker,) = state.workers_of(state.read(self.home(address) / "run") or {})
        return int(worker["store"]["revision"])


@contextmanager
def running(
    place: World, folder: Path, server: Server, first: Path, upstream_ca: Path
) -> Iterator[Gateway]:
    """The replicas of the home *first*, which is *folder*/first: keys, policy, secrets."""
    nets.need("haproxy", "nsenter", root=False)
    with ExitStack() as stack:
        relay = Relay(place.listen(DATABASE, 5432), server.port)
        stack.callback(relay.close)
        database = server.database()
        coatcheck("store", "migrate", "--to", server.url(database), "--home", first)
        hand_out_keys(Home(first), folder)
        made = Gateway(place, folder, server, database, upstream_ca, stack)
        for address in REPLICAS:
            coatcheck("init", "--from", folder / "keys", "--home", made.home(address))
            shutil.copy(Home(first).policy, made.home(address) / "policy.yaml")
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
