"""What `bench/soak_fleet.py` runs: a database, three replicas, HAProxy, and what was done to them.

The replicas are made as docs/deploy/gateway.md says. HAProxy has deploy/haproxy/haproxy.cfg with
addresses of loopback, and one replica more.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme
from common import COATCHECK, HOST, accepts, family, free_port, quietly, start, wait_for
from soak_workers import SECRETS, new_value
from soak_workers_sites import serve

from coatcheck.store.home import Home
from coatcheck.store.sql import SqlStore
from tests.store.server import Server, running

REPLICAS = 3
BALANCER = "balancer"
CONFIG = Path(__file__).resolve().parents[1] / "deploy" / "haproxy" / "haproxy.cfg"
CLIENT = "runner"
TOKEN = "ctk_runner-0123456789abcdefghijklmnopqrstuvw"
# A replica asks for the revision on the connection on which it listens, and for nothing else there.
LISTENERS = """
    FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'coatcheck' AND state = 'idle'
    AND (query IN ('', 'LISTEN coatcheck') OR query = 'SELECT store_id, revision FROM meta')
"""
POLICY = f"""
version: 1
clients:
  {CLIENT}: {{token: "sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}"}}
grants:
  - {{secrets: ["soak.*"], clients: [{CLIENT}]}}
egress: {{networks: ["127.0.0.0/8", "::1/128"]}}
"""
START_S = 180.0  # on a machine that is busy


@dataclass
class Change:
    """A value that somebody stored, or tried to."""

    secret: str
    value: str
    stored: float | None = None  # since the epoch; None: the database was away
    unknown: bool = False  # the connection was lost at its end: it was made or it was not


@dataclass
class Away:
    """A time in which nobody could ask the database."""

    how: str
    down: float
    up: float = float("inf")


@dataclass
class Kill:
    """A replica that was killed, and when it took connections again."""

    replica: str
    at: float
    back: float = float("inf")


@dataclass
class History:
    """What was done, and when."""

    changes: dict[str, list[Change]] = field(default_factory=lambda: {name: [] for name in SECRETS})
    aways: list[Away] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    cuts: list[float] = field(default_factory=list)  # one for each connection that was cut


class Replica:
    """A `coatcheck serve` with a home of its own, always at the same port."""

    def __init__(self, name: str, home: Home, log: Path, options: list[str], store: str) -> None:
        self.name = name
        self.home = home
        self.log = log
        self.port = free_port()
        self._options = options
        self._store = store
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it; whether it comes up is seen by `up`."""
        command = [*COATCHECK, "serve", "--role", "proxy", "--home", str(self.home.root)]
        command += ["--listen", f"127.0.0.1:{self.port}", *self._options]
        credentials = str(self.home.root.parent / "credentials")
        variables = {"COATCHECK_STORE": self._store, "CREDENTIALS_DIRECTORY": credentials}
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=os.environ | variables,
            )

    def up(self) -> bool:
        """Whether it takes connections. One that did not start, the database being away, is
        started once more, as systemd would."""
        if self._process is None or self._process.poll() is not None:
            self.start()
        return accepts(self.port)

    def kill(self) -> None:
        """All its processes at once: the machine is gone."""
        if self._process is None:
            return
        for pid in self.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(20)

    def family(self) -> list[int]:
        return [] if self._process is None else family(self._process.pid)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


@dataclass
class Stage:
    server: Server
    database: str
    store: SqlStore  # with the public key alone, as an operator's command has it
    replicas: list[Replica]
    balancer: int  # its port
    ports: dict[str, int]  # of the sites
    record: Path  # of the sites
    ca: Path
    history: History
    waited: float = 0.0  # of the time in which replicas could have run; see `stop`

    def stop(self) -> None:
        """End the replicas in order. How long they had to wait for a processor is read before: on
        a machine that is busy with other things, everything takes longer by that."""
        pids = [pid for one in self.replicas for pid in one.family()]
        ran_ns, waited_ns = map(sum, zip(*map(_scheduled_ns, pids), strict=True))
        self.waited = waited_ns / max(1, ran_ns + waited_ns)
        for one in self.replicas:
            one.stop()

    def put(self, secret: str) -> Change:
        """Store a new value. It is noted before: a replica may use it before we hear of it."""
        name = f"soak.{secret}"
        change = Change(secret, new_value(secret, len(self.history.changes[secret])))
        self.history.changes[secret].append(change)
        put = functools.partial(self.store.put, name, change.value.encode(), now=time.time())
        put(domains=None, description=None)
        change.stored = time.time()
        return change

    def cut(self) -> int:
        """End the connections on which replicas listen; how many."""
        found = self.server.execute(f"SELECT pg_terminate_backend(pid) {LISTENERS}", self.database)
        self.history.cuts += [time.time()] * len(found)
        return len(found)


@contextmanager
def staged(stale_s: float) -> Iterator[Stage]:
    """Everything that runs, with the sites, gone at the end.

    Raises:
        Unavailable: there is no PostgreSQL here.
    """
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="coatcheck-fleet-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        server = stack.enter_context(running())
        authority = trustme.CA()
        ca, leaf, record = folder / "upstream.pem", folder / "leaf.pem", folder / "record"
        authority.cert_pem.write_to_path(ca)
        authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(leaf)
        ports = {name: free_port() for name in SECRETS}
        sites = multiprocessing.get_context("spawn").Process(
            target=serve, args=(ports, str(leaf), str(record)), daemon=True
        )
        sites.start()
        stack.callback(sites.kill)
        database = server.database()
        first = _first(folder, ports, server.url(database))
        replicas = []
        for number in range(1, REPLICAS + 1):
            made = _replica(folder, f"replica {number}", stale_s, ca, server.url(database))
            stack.callback(made.stop)
            made.start()
            replicas.append(made)
        for one in replicas:
            wait_for(one.up, START_S)
        for port in ports.values():
            wait_for(lambda port=port: accepts(port))
        balancer = stack.enter_context(_haproxy(folder, [one.port for one in replicas]))
        store = stack.enter_context(
            closing(SqlStore.open(server.url(database), public=first.read_public_key()))
        )
        authority_file = first.ca_certificate
        yield Stage(
            server, database, store, replicas, balancer, ports, record, authority_file, History()
        )


def _first(folder: Path, ports: dict[str, int], url: str) -> Home:
    """The home of whoever manages secrets; its keys laid out for the replicas."""
    first = Home(folder / "first")
    where = ["--home", str(first.root)]
    quietly([*COATCHECK, "init", *where])
    for secret, port in ports.items():
        command = [*COATCHECK, "secret", "set", f"soak.{secret}", "--domain", f"{HOST}:{port}"]
        quietly([*command, *where], new_value(secret, 0).encode())
    quietly([*COATCHECK, "store", "migrate", "--to", url, *where])
    (folder / "keys").mkdir()
    (folder / "credentials").mkdir()
    for path in (first.public_key, first.ca_key):
        shutil.copy(path, folder / "keys")
    shutil.copy(first.private_key, folder / "credentials" / "coatcheck.sealing-key")
    return first


def _replica(folder: Path, name: str, stale_s: float, ca: Path, url: str) -> Replica:
    home = Home(folder / name.replace(" ", "-"))
    quietly([*COATCHECK, "init", "--from", folder / "keys", "--home", home.root])
    home.policy.write_text(POLICY)
    home.config.write_text(f"limits:\n  retired_grace_s: 4\n  store_stale_s: {stale_s:g}\n")
    return Replica(name, home, folder / f"{home.root.name}.log", ["--upstream-ca", str(ca)], url)


def _scheduled_ns(pid: int) -> tuple[int, int]:
    """How long the threads of a process ran, and waited to run (Documentation/scheduler/
    sched-stats.rst of Linux)."""
    ran, waited = 0, 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().split()
            ran, waited = ran + int(fields[0]), waited + int(fields[1])
    return ran, waited


@contextmanager
def _haproxy(folder: Path, replicas: list[int]) -> Iterator[int]:
    """The load balancer; its port."""
    port = free_port()
    text = re.sub(r"bind \S+", f"bind 127.0.0.1:{port}", CONFIG.read_text())
    text = re.sub(r"(?m)^ +server .*\n?", "", text).rstrip("\n") + "\n"
    servers = (f"    server r{at} 127.0.0.1:{one}\n" for at, one in enumerate(replicas, 1))
    config = folder / "haproxy.cfg"
    config.write_text(text + "".join(servers))
    program = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or "haproxy"
    process = start([program, "-db", "-f", config], port, folder / "haproxy.log")
    try:
        yield port
    finally:
        process.terminate()
        process.wait(20)
