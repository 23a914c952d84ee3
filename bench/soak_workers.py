"""Two workers of `coatcheck serve` that are killed, while everything changes under load.

    python bench/soak_workers.py [--minutes 20] [--format table|json]

On loopback, at once: 200 requests a second with two secrets to two sites, a tenth of them to the
site that the secret is not allowed at, a tenth answered by an upstream that fails; the policy is
written anew every second, every other time with a signal; a secret gets a new value every five
seconds; every half minute a worker is killed with SIGKILL. For the first quarter (at most five
minutes) the workers take turns in that; from then on one of them lives to the end, so that its
memory can be looked at.

Ends with 1 where a goal is missed: no wrong value at any site; no value at the client, in no
spelling; each request answered or its connection closed; each injection that a site saw on record,
no line of the record missing; memory flat after the first quarter; no internal error in the log.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import itertools
import json
import multiprocessing
import os
import secrets
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme
from common import HOST, accepts, free_port, wait_for
from soak_workers_sites import FAULTS, HONEST, NOTHING, Seen, read_record, right_answer, serve

from coatcheck.observe import auditlog, auditverify, state
from coatcheck.store import auditkey
from coatcheck.store.home import Home
from coatcheck.store.sql import SqlStore

WORKERS = 2
LEAST_RATE = 150.0  # requests a second
KEPT, KEPT_EVERY_S = 8, 0.044
NEW, NEW_EVERY_S = 4, 0.2
ANSWER_S = 30.0  # a request without an end until then hangs
POLICY_EVERY_S, VALUE_EVERY_S, KILL_EVERY_S, LOOK_S = 1.0, 5.0, 30.0, 1.0
SETTLE_S = 300.0
IN_FORCE_S = 2.0  # a second, and the machine is busy
FLAT_MIB = 8.0  # of what is left to live on to the end
MARK = "sk_soak_"  # every value begins so
SECRETS = ("one", "two")  # the secret `soak.one` is allowed at the site `one`
BUGS = ("internal_error", "engine.crash", "foreign.log", "worker.crashed", "watch.failed")
POLICY = """
# {number}
version: 1
clients:
  local: {{networks: ["127.0.0.1/32"]}}
grants:
  - {{secrets: ["soak.*"], clients: [local]}}
egress: {{networks: ["127.0.0.0/8", "::1/128"]}}
"""

type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Stage:
    """The proxy with its home, and the sites."""

    home: Home
    process: subprocess.Popen[bytes]
    log: Path
    record: Path  # of the sites
    ports: dict[str, int]

    def state(self) -> dict[str, Any]:
        return state.read(self.home.run) or {}

    def workers(self) -> list[dict[str, Any]]:
        return state.workers_of(self.state())


@dataclass
class Outcome:
    """What came of one request."""

    secret: str
    site: str
    way: str
    sent: float  # seconds since the epoch
    came: str = "nothing"  # a status, or "closed", or "refused", or "hangs"
    code: str = ""  # of a refusal of ours
    ended: float = 0.0  # seconds since the epoch


@dataclass
class Changes:
    """What was done to the proxy, and when."""

    values: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in SECRETS})
    stored: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in SECRETS})
    policies: int = 0
    kills: list[tuple[float, int]] = field(default_factory=list)
    slowest_s: float = 0.0  # from a kill until there was another


# --- the client ----------------------------------------------------------------------------------


class Client:
    """Sends through one port.

    Args:
        proxy: The port, on loopback.
        ports: Of the sites.
        ca: The certificate of the proxy's authority.
        token: As ``NAME:TOKEN``; empty where the address is enough.
        numbers: Of the requests; handed in where several clients share the sites.
    """

    def __init__(
        self,
        proxy: int,
        ports: dict[str, int],
        ca: Path,
        *,
        token: str = "",
        numbers: Iterator[int] | None = None,
    ) -> None:
        self._proxy = proxy
        self._ports = ports
        self._context = ssl.create_default_context(cafile=ca)
        credential = base64.b64encode(token.encode())
        self._fields = b"Proxy-Authorization: Basic %b\r\n" % credential if token else b""
        self._numbers = itertools.count() if numbers is None else numbers
        self.outcomes: dict[str, Outcome] = {}
        self.leaks: list[str] = []
        self.wrong: list[str] = []

    async def run(self, end: float) -> None:
        kept = (self.tunnels(end, KEPT_EVERY_S, 200) for _ in range(KEPT))
        new = (self.tunnels(end, NEW_EVERY_S, 1) for _ in range(NEW))
        await asyncio.gather(*kept, *new)

    async def tunnels(
        self, end: float, every_s: float, requests: int, sites: Sequence[str] = SECRETS
    ) -> None:
        """Send at a pace; a tunnel to a site is left after so many *requests*."""
        due = time.monotonic()
        streams: Streams | None = None
        left, site = 0, sites[0]
        while time.monotonic() < end:
            if streams is None or left == 0:
                _leave(streams)
                streams, left, site = None, requests, sites[next(self._numbers) % len(sites)]
            left -= 1
            streams = await self._request(streams, site)
            due = max(due + every_s, time.monotonic() - 1)  # up to a second is made up for
            await asyncio.sleep(max(0, due - time.monotonic()))
        _leave(streams)

    async def _request(self, streams: Streams | None, site: str) -> Streams | None:
        """One request; the connection, if another one can follow on it."""
        number = next(self._numbers)
        way = FAULTS[number // 10 % len(FAULTS)] if number % 10 == 9 else HONEST[number % 3]
        own = number % 10 != 4
        secret = site if own else next(name for name in SECRETS if name != site)
        outcome = Outcome(secret, site, way, time.time())
        self.outcomes[str(number)] = outcome
        try:
            async with asyncio.timeout(ANSWER_S):
                streams = streams or await self._tunnel(site)
                goes_on = await self._ask(streams, str(number), outcome)
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError) as error:
            outcome.came = "refused" if isinstance(error, ConnectionRefusedError) else "closed"
            goes_on = False
        except TimeoutError:
            outcome.came = "hangs"
            goes_on = False
        outcome.ended = time.time()
        if not goes_on:
            _leave(streams)
        return streams if goes_on else None

    async def _tunnel(self, site: str) -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._proxy)
        self._look_at_all(reader)
        try:
            target = f"{HOST}:{self._ports[site]}".encode()
            head = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n"
            writer.write(head % (target, target, self._fields))
            await reader.readuntil(b"\r\n\r\n")
            await writer.start_tls(self._context, server_hostname=HOST)
        except BaseException:
            writer.transport.abort()
            raise
        return reader, writer

    async def _ask(self, streams: Streams, number: str, outcome: Outcome) -> bool:
        reader, writer = streams
        target = f"/{outcome.way}/{number}".encode()
        host = f"{HOST}:{self._ports[outcome.site]}".encode()
        field = b"Authorization: Bearer {{secrets.soak.%b}}" % outcome.secret.encode()
        writer.write(b"GET %b HTTP/1.1\r\nHost: %b\r\n%b\r\n\r\n" % (target, host, field))
        head = await reader.readuntil(b"\r\n\r\n")
        body = await _body(reader, head)
        outcome.came = head.split(b" ", 2)[1].decode()
        outcome.code = _field(head, b"coatcheck-error")
        if outcome.came == "200" and body != right_answer(b"********", b"********"):
            self.wrong.append(f"{number}: the answer is another one")
        return b"connection: close" not in head.lower()

    def _look_at_all(self, reader: asyncio.StreamReader) -> None:
        """Search what comes, TLS taken off, also where an answer is broken off."""
        feed, marks = reader.feed_data, (MARK.encode(), base64.b64encode(MARK.encode())[:8])
        tail = b""

        def look(data: bytes) -> None:
            nonlocal tail
            tail += bytes(data)
            if any(mark in tail for mark in marks):
                self.leaks.append(repr(tail[-200:]))
            tail = tail[-len(MARK) :]
            feed(data)

        reader.feed_data = look  # type: ignore[method-assign]


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    if b"transfer-encoding: chunked" in head.lower():
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
        return body
    return await reader.readexactly(int(_field(head, b"content-length") or 0))


def _field(head: bytes, name: bytes) -> str:
    return head.lower().partition(b"\r\n" + name + b": ")[2].partition(b"\r\n")[0].decode()


def _leave(streams: Streams | None) -> None:
    if streams is not None:
        streams[1].transport.abort()


# --- what is done to the proxy -------------------------------------------------------------------


class Meddler:
    def __init__(self, stage: Stage, settle_s: float) -> None:
        self._stage = stage
        self._settle_s = settle_s
        self._store = open_store(stage.home)
        self.changes = Changes()

    async def run(self, end: float) -> None:
        begun = time.monotonic()
        await asyncio.gather(
            self._every(POLICY_EVERY_S, end, self._policy),
            self._every(VALUE_EVERY_S, end, self._value),
            self._every(KILL_EVERY_S, end - 5, lambda n: self._kill(n, begun), later=True),
        )
        self._store.close()

    async def _every(self, seconds: float, end: float, act: Any, *, later: bool = False) -> None:
        for number in itertools.count():
            if later:
                await asyncio.sleep(min(seconds, max(0.0, end - time.monotonic())))
            if time.monotonic() >= end:
                return
            await act(number)
            if not later:
                await asyncio.sleep(seconds)

    async def _policy(self, number: int) -> None:
        draft = self._stage.home.policy.with_suffix(".draft")
        draft.write_text(POLICY.format(number=number))
        draft.replace(self._stage.home.policy)
        if number % 2:
            self._stage.process.send_signal(signal.SIGHUP)
        self.changes.policies += 1

    async def _value(self, number: int) -> None:
        secret = SECRETS[number % len(SECRETS)]
        value = new_value(secret, number)
        # Noted before: a worker may use it before we hear that it is stored.
        self.changes.values[secret].append(value)
        await asyncio.to_thread(put, self._store, secret, value)
        self.changes.stored[secret].append(time.time())

    async def _kill(self, number: int, begun: float) -> None:
        is_settled = time.monotonic() - begun > self._settle_s
        victim = self._stage.workers()[1 if is_settled else number % WORKERS]
        os.kill(victim["pid"], signal.SIGKILL)
        killed = time.monotonic()
        self.changes.kills.append((time.time(), victim["number"]))
        while not self._is_replaced(victim):
            if time.monotonic() - killed > KILL_EVERY_S:
                raise SystemExit("a worker that was killed was not replaced")
            await asyncio.sleep(0.05)
        self.changes.slowest_s = max(self.changes.slowest_s, time.monotonic() - killed)

    def _is_replaced(self, victim: dict[str, Any]) -> bool:
        now = self._stage.workers()[victim["number"] - 1]
        return bool(now["ready"] and now["pid"] != victim["pid"])


def new_value(secret: str, number: int) -> str:
    return f"{MARK}{secret}_{number:06}_{secrets.token_hex(12)}"


def open_store(home: Home) -> SqlStore:
    return SqlStore.open(home.store, public=home.read_public_key())


def put(store: SqlStore, secret: str, value: str) -> None:
    store.put(f"soak.{secret}", value.encode(), domains=None, description=None, now=time.time())


# --- what is looked at ---------------------------------------------------------------------------


async def watch_memory(stage: Stage, memory: dict[str, list[tuple[float, float]]]) -> None:
    """Resident MiB of the supervisor and of the worker that lives on, by seconds since the start.
    Another process in its place begins anew."""
    begun, last = time.monotonic(), 0
    while True:
        lives_on = stage.workers()[0]["pid"] if stage.workers() else None
        if lives_on != last:
            memory["worker 1"] = []
            last = lives_on
        for name, pid in (("supervisor", stage.process.pid), ("worker 1", lives_on)):
            if pid is not None and (mib := resident_mib(pid)) is not None:
                memory.setdefault(name, []).append((time.monotonic() - begun, mib))
        await asyncio.sleep(LOOK_S)


def resident_mib(pid: int) -> float | None:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    return int(status.partition("VmRSS:")[2].split()[0] or 0) / 1024


def grown_mib(samples: list[tuple[float, float]], since: float) -> float:
    """The mean of the last quarter less that of the first, of what was seen after *since*."""
    later = [mib for at, mib in samples if at >= since]
    part = max(1, len(later) // 4)
    return sum(later[-part:]) / part - sum(later[:part]) / part if later else float("inf")


def wrong_values(seen: list[Seen], changes: Changes, outcomes: dict[str, Outcome]) -> list[str]:
    """Requests at a site with a value that was not its own, or not in force any more."""
    found = []
    versions = {
        name: {value: number for number, value in enumerate(values)}
        for name, values in changes.values.items()
    }
    for one in seen:
        outcome = outcomes[one.request]
        number = versions[one.site].get(one.value)
        least = bisect_right(changes.stored[one.site], outcome.sent - IN_FORCE_S) - 1
        if outcome.secret != one.site or number is None:
            found.append(f"{one.request} at {one.site}: not a value of its own")
        elif number < least:
            found.append(f"{one.request} at {one.site}: number {number}, and {least} is in force")
    return found


def audited(home: Home) -> tuple[set[str], list[str]]:
    """The requests whose injection is on record, and what is wrong with the record."""
    injected: set[str] = set()
    for path in home.audit.glob(auditlog.PATTERN):
        for line in path.read_bytes().split(b"\n")[:-1]:
            with contextlib.suppress(ValueError):  # half a line, of a process that was killed
                record = json.loads(line)
                if record.get("decision") == "allow" and record.get("secrets"):
                    injected.add(record["path"].rpartition("/")[2])
    logs = auditverify.verify_folder(
        home.audit, home.audit_heads, auditkey.verifying(home.audit_public)
    )
    return injected, [f"{one.file}:{one.line}: {one.what}" for log in logs for one in log.findings]


def judge(
    stage: Stage,
    client: Client,
    changes: Changes,
    memory: dict[str, list[tuple[float, float]]],
    seconds: float,
    settle_s: float,
) -> dict[str, tuple[str, bool]]:
    """goal: (what was seen, whether it is met)"""
    seen = read_record(stage.record)
    with_value = {one.request for one in seen if one.value != NOTHING}
    injected, gaps = audited(stage.home)
    outcomes = client.outcomes
    came = Counter(outcome.came for outcome in outcomes.values())
    rate = len(outcomes) / seconds
    wrong = wrong_values(seen, changes, outcomes)
    strayed = [n for n, o in outcomes.items() if o.secret != o.site and o.came not in CLOSED_OR_403]
    failed = [n for n, o in outcomes.items() if _failed(o)]
    closed = [n for n, o in outcomes.items() if o.came == "closed" and o.way in HONEST]
    most_closed = len(changes.kills) * (KEPT + NEW) * 2
    missing = with_value - injected
    bugs = [line for line in stage.log.read_text().splitlines() if any(b in line for b in BUGS)]
    restarts = sum(int(one["restarts"]) for one in stage.workers())
    grown = {name: grown_mib(samples, settle_s) for name, samples in memory.items()}
    goals = {
        f"at least {LEAST_RATE:.0f} requests a second": (f"{rate:.0f}", rate >= LEAST_RATE),
        "no wrong value at a site": (_some(wrong), not wrong),
        "no value at the client": (_some(client.leaks), not client.leaks),
        "no secret to the other site": (_some(strayed), not strayed),
        "every answer in full is right": (_some(client.wrong), not client.wrong),
        "no honest request fails": (_some(failed), not failed),
        "each request is answered or its connection closed": (
            f"{came['hangs']} hang, {came['nothing']} unknown",
            not came["hangs"] + came["nothing"],
        ),
        "the port is always there": (f"{came['refused']} refused", not came["refused"]),
        "connections are closed by kills alone": (
            f"{len(closed)} closed, {len(changes.kills)} kills",
            len(closed) <= most_closed,
        ),
        "each injection is on record": (
            f"{len(missing)} of {len(with_value)} are not",
            not missing,
        ),
        "no line of the record is missing": (_some(gaps), not gaps),
        "each killed worker is replaced": (
            f"{restarts} of {len(changes.kills)}, in up to {changes.slowest_s:.1f} s",
            restarts == len(changes.kills) > 0,
        ),
        "no internal error in the log": (_some(bugs), not bugs),
    }
    for name, mib in grown.items():
        goals[f"memory of {name} is flat"] = (f"{mib:+.1f} MiB", mib < FLAT_MIB)
    return goals


CLOSED_OR_403 = ("403", "closed")


def _failed(outcome: Outcome) -> bool:
    """An answer that an honest request must not have."""
    is_honest = outcome.way in HONEST and outcome.secret == outcome.site
    return is_honest and outcome.came not in ("200", "closed")


def _some(found: list[str]) -> str:
    return f"{len(found)}: {'; '.join(found[:3])}" if found else "none"


# --- the whole -----------------------------------------------------------------------------------


@contextmanager
def staged() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="coatcheck-soak-") as name, contextlib.ExitStack() as s:
        folder = Path(name)
        authority = trustme.CA()
        ca, leaf, record = folder / "ca.pem", folder / "leaf.pem", folder / "record"
        authority.cert_pem.write_to_path(ca)
        authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(leaf)
        ports = {name: free_port() for name in SECRETS}
        args = (ports, str(leaf), str(record))
        sites = multiprocessing.get_context("spawn").Process(target=serve, args=args, daemon=True)
        sites.start()
        s.callback(sites.kill)
        for port in ports.values():
            wait_for(lambda port=port: accepts(port))
        home, log = Home(folder / "home"), folder / "log"
        make_home(home, ports)
        run = [sys.executable, "-m", "coatcheck", "serve", "--no-admin", "--home", str(home.root)]
        run += ["--workers", str(WORKERS), "--listen", "127.0.0.1:0", "--upstream-ca", str(ca)]
        with log.open("wb") as out:
            process = subprocess.Popen(run, stderr=out)
        s.callback(_end, process)
        wait_for(lambda: bool((state.read(home.run) or {}).get("listen")), 60)
        yield Stage(home, process, log, record, ports)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(30)


def make_home(home: Home, ports: dict[str, int]) -> None:
    run = [sys.executable, "-m", "coatcheck"]
    quiet = subprocess.DEVNULL
    where = ["--home", str(home.root)]
    subprocess.run([*run, "init", *where], check=True, stdout=quiet, stderr=quiet)
    home.policy.write_text(POLICY.format(number=0))
    # What was replaced is forgotten soon: else every value of the soak would be kept for a day.
    home.config.write_text("limits:\n  retired_grace_s: 30\n")
    for secret, port in ports.items():
        command = [*run, "secret", "set", f"soak.{secret}", "--domain", f"{HOST}:{port}", *where]
        value = new_value(secret, 0).encode()  # before the first of `Meddler`
        subprocess.run(command, input=value, check=True, stdout=quiet, stderr=quiet)


async def soak(
    stage: Stage, seconds: float, settle_s: float
) -> tuple[Client, Changes, dict[str, list[tuple[float, float]]]]:
    proxy = int(stage.state()["listen"][0][1])
    client = Client(proxy, stage.ports, stage.home.ca_certificate)
    meddler = Meddler(stage, settle_s)
    for number in range(len(SECRETS)):
        await meddler._value(number)
    await asyncio.sleep(IN_FORCE_S)
    end = time.monotonic() + seconds
    memory: dict[str, list[tuple[float, float]]] = {}
    watching = asyncio.create_task(watch_memory(stage, memory))
    await asyncio.gather(client.run(end), meddler.run(end))
    watching.cancel()
    return client, meddler.changes, memory


def show(
    client: Client,
    changes: Changes,
    memory: dict[str, list[tuple[float, float]]],
    goals: dict[str, tuple[str, bool]],
    form: str,
) -> None:
    came = Counter(outcome.came for outcome in client.outcomes.values())
    facts = {
        "requests": len(client.outcomes),
        "came": dict(sorted(came.items())),
        "policies": changes.policies,
        "values": sum(map(len, changes.values.values())),
        "kills": len(changes.kills),
        "memory_mib": {
            name: [round(mib, 1) for _, mib in samples[:: max(1, len(samples) // 20)]]
            for name, samples in memory.items()
        },
    }
    if form == "json":
        met = {goal: {"seen": seen, "met": is_met} for goal, (seen, is_met) in goals.items()}
        print(json.dumps({**facts, "goals": met}, indent=2))
        return
    for name, fact in facts.items():
        print(f"{name.replace('_', ' ') + ':':14}{fact}")
    print()
    for goal, (seen, is_met) in goals.items():
        print(f"{'met   ' if is_met else 'MISSED'}  {goal}: {seen}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--format", choices=("table", "json"), default="table")
    options = parser.parse_args()
    seconds = 60 * options.minutes
    settle_s = min(SETTLE_S, seconds / 4)
    with staged() as stage:
        client, changes, memory = asyncio.run(soak(stage, seconds, settle_s))
        goals = judge(stage, client, changes, memory, seconds, settle_s)
    show(client, changes, memory, goals, options.format)
    return 0 if all(met for _, met in goals.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
