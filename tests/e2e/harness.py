"""What the tests share: the names in the world, homes, and `coatcheck` as a process in it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import coatcheck
from coatcheck.core.destination import parse_domain_pattern
from coatcheck.observe import auditlog, state
from coatcheck.observe.auditchain import OWN_EVENTS
from coatcheck.store.home import Home, create_home
from coatcheck.store.sql import SqlStore
from tests.e2e.wire import Dial, basic
from tests.e2e.world import World

# Public-looking, but the last ones: those must never be dialled.
HOSTS = {
    "api.example.test": "20.20.20.20",
    "other.example.test": "20.20.20.21",
    "text.example.test": "20.20.20.22",  # placeholders stay text there
    "evil.example.test": "20.20.20.66",
    "expired.example.test": "20.20.20.31",
    "self-signed.example.test": "20.20.20.32",
    "wrong-name.example.test": "20.20.20.33",
    "refused.example.test": "20.20.20.40",  # nobody listens
    "hole.example.test": "20.20.20.41",  # its backlog is full
    "mute.example.test": "20.20.20.42",  # takes connections, never says a word of TLS
    "six.example.test": "2600:1234::20",
    "private.example.test": "10.1.2.3",
    "metadata.example.test": "169.254.169.254",
    "loopback.example.test": "127.0.0.1",
}
# Those of deploy/haproxy/haproxy.cfg, and the database behind them.
BALANCER, REPLICAS, DATABASE = "10.0.0.10", ("10.0.0.11", "10.0.0.12"), "10.0.0.20"
NETWORKS = (
    "20.20.20.0/24",
    "10.1.2.0/24",
    "169.254.169.0/24",
    "2600:1234::/64",
    *(f"{address}/32" for address in (BALANCER, *REPLICAS, DATABASE)),
)
NEVER_DIALLED = ("private.example.test", "metadata.example.test")

RUNNER_TOKEN = "ctk_runner-0123456789abcdefghijklmnopqrstuvw"
OTHER_TOKEN = "ctk_other-0123456789abcdefghijklmnopqrstuvwx"
RUNNER = basic("runner", RUNNER_TOKEN)
OTHER = basic("other", OTHER_TOKEN)

# How many workers the proxies of the tests have; 1 is a proxy in one process.
WORKERS = int(os.environ.get("COATCHECK_TEST_WORKERS", "1"))
READY_S = 30.0 * WORKERS
IN_FORCE_S = 1.0  # a change is in force within this, says docs/operations.md

_ports = itertools.count(18080)  # in the world every port is free


def token_line(token: str) -> str:
    return f'token: "sha256:{hashlib.sha256(token.encode()).hexdigest()}"'


CLIENTS = f"""\
version: 1
clients:
  runner: {{ {token_line(RUNNER_TOKEN)} }}
  other: {{ {token_line(OTHER_TOKEN)} }}
  local: {{ networks: ["127.0.0.1/32"] }}
"""


def api_only(value: bytes, *domains: str) -> tuple[bytes, tuple[str, ...]]:
    """A secret for `make_home`; allowed at api.example.test if nothing else is said."""
    return value, domains or ("api.example.test",)


def make_home(
    root: Path,
    secrets: Mapping[str, tuple[bytes, Sequence[str]]],
    policy: str,
    settings: str = "",
) -> Path:
    """A home with *secrets* (name to value and domains) and this policy."""
    create_home(root, now=time.time())
    (root / "policy.yaml").write_text(policy)
    if settings:
        (root / "coatcheck.yaml").write_text(settings)
    with store_of(root) as store:
        for name, (value, domains) in secrets.items():
            put(store, name, value, *domains)
    return root


@contextmanager
def store_of(root: Path) -> Iterator[SqlStore]:
    """The store as another process sees it that manages it."""
    home = Home(root)
    store = SqlStore.open(str(home.store), public=home.read_public_key())
    try:
        yield store
    finally:
        store.close()


def put(store: SqlStore, name: str, value: bytes, *domains: str) -> None:
    patterns = [parse_domain_pattern(text) for text in domains] or None
    store.put(name, value, domains=patterns, description=None, now=time.time())


def environ(**more: str) -> dict[str, str]:
    """A clean environment: nothing of the machine's proxies or of a real home."""
    kept = {k: os.environ[k] for k in ("PATH", "JAVA_HOME") if k in os.environ}
    source = str(Path(coatcheck.__file__).parents[1])
    return {**kept, "LANG": "C.UTF-8", "PYTHONPATH": source, "COLUMNS": "200", **more}


def program(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "coatcheck", *map(str, arguments)]


@dataclass
class Shell:
    """Runs commands in the world, and keeps all that they print."""

    world: World
    folder: Path
    output: list[bytes] = field(default_factory=list)

    def run(
        self,
        command: Sequence[str | Path],
        *,
        stdin: bytes = b"",
        timeout: float = 60,
        **variables: str,
    ) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            self.world.enter(command, self.folder),
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
            env=environ(HOME=str(self.folder), **variables),
        )
        self.output += [done.stdout, done.stderr]
        return done

    def coatcheck(
        self, *arguments: str | Path, stdin: bytes = b"", timeout: float = 60, **variables: str
    ) -> subprocess.CompletedProcess[bytes]:
        return self.run(program(*arguments), stdin=stdin, timeout=timeout, **variables)


class Proxy:
    """`coatcheck serve` as a process in the world."""

    def __init__(
        self, world: World, home: Path, upstream_ca: Path, *options: str, **variables: str
    ) -> None:
        self.home = home
        self.port = next(_ports)
        self.address = f"127.0.0.1:{self.port}"
        self.world = world
        self.log = home.parent / f"{home.name}-{self.port}.log"
        self.policy = home / "policy.yaml"
        command = program("serve", "--home", home, "--listen", self.address)
        if not {"--admin", "--role"} & set(options):
            command += ["--no-admin"]
        command += ["--upstream-ca", str(upstream_ca), "--workers", str(WORKERS), *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                world.enter(command, home.parent),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ(HOME=str(home.parent), **variables),
            )

    def dial(self, credential: str = "", source: str = "") -> Dial:
        """How clients get here."""
        return Dial(self.world, self.port, Home(self.home).ca_certificate, credential, source)

    def wait_ready(self) -> Proxy:
        wait_until(lambda: b"serve.ready" in self.log.read_bytes() or self._has_ended(), READY_S)
        assert self.process.poll() is None, self.log.read_text()
        return self

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def workers(self) -> list[int]:
        """The process ids of those that take requests. A proxy in one process is its own worker."""
        found = state.workers_of(state.read(self.home / "run") or {})
        return [one["pid"] for one in found if one["pid"] is not None]

    def agrees(self) -> bool:
        """Whether all of its workers have its policy file and its store in force as they are now.

        What one worker refuses another may still let through, for a moment (`IN_FORCE_S`).
        """
        digest = hashlib.sha256(self.policy.read_bytes()).hexdigest()
        found = state.workers_of(state.read(self.home / "run") or {})
        policies = {one["policy"] and one["policy"]["digest"] for one in found}
        revisions = {one["store"] and one["store"]["revision"] for one in found}
        with contextlib.closing(sqlite3.connect(self.home / "store.db")) as base:
            (revision,) = base.execute("SELECT revision FROM meta").fetchone()
        return policies == {digest} and revisions == {revision}

    def processes(self) -> list[int]:
        """All that belong to it."""
        return list(dict.fromkeys((self.process.pid, *self.workers())))

    @contextmanager
    def limited(self, resource_number: int, soft: Callable[[int], int]) -> Iterator[None]:
        """With another soft limit for each of its workers: *soft* of the process id."""
        before = {pid: resource.prlimit(pid, resource_number) for pid in self.workers()}
        try:
            for pid, (_, hard) in before.items():
                resource.prlimit(pid, resource_number, (soft(pid), hard))
            yield
        finally:
            for pid, limits in before.items():
                resource.prlimit(pid, resource_number, limits)

    def peak_memory_kib(self) -> int:
        """The most memory that its workers have had so far (VmHWM of proc(5)), in all."""
        status = [Path(f"/proc/{pid}/status").read_text() for pid in self.workers()]
        return sum(int(text.partition("VmHWM:")[2].split()[0]) for text in status)

    def cpu_s(self) -> float:
        """The processor time that its workers have used so far."""
        return sum(map(cpu_s, self.workers()))

    def stop(self) -> int:
        """End it as an operator does; its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout=20)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    def audit(self) -> list[dict[str, Any]]:
        return audit_of(self.home)

    def _has_ended(self) -> bool:
        return self.process.poll() is not None


def audit_of(home: Path) -> list[dict[str, Any]]:
    """What all workers have recorded, in the order in which it was written."""
    files = (home / "audit").glob(auditlog.PATTERN)
    lines = [line for file in files for line in file.read_bytes().split(b"\n")[:-1]]
    records = [r for r in map(json.loads, lines) if r["event"] not in OWN_EVENTS]
    return sorted(records, key=lambda record: str(record["time"]))


def cpu_s(pid: int) -> float:
    """The processor time of one process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_refused(world: World, address: str, port: int) -> bool:
    """Nobody listens there. A process that was killed holds its sockets until its last thread has
    ended, which may be after its first one is a zombie."""
    try:
        world.connect(address, port).close()
    except ConnectionRefusedError:
        return True
    return False


def other_workers_follow() -> None:
    """A change was seen to be in force in one worker. Connections come to any: give the others the
    time that they may take."""
    if WORKERS > 1:
        time.sleep(IN_FORCE_S)


def wait_until(true: Callable[[], bool], limit_s: float) -> float:
    """Wait for *true*; returns how long it took, in seconds."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < limit_s, "it did not come to pass in time"
        time.sleep(0.02)
    return time.monotonic() - begun
