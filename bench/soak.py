"""An honest client of `coatcheck serve` while others do to it what they can.

    python bench/soak.py [--seconds 180] [--format table|json]

On loopback, at once: 2,000 slow connections (heads and a CONNECT that drip, TLS handshakes that
stall, chunked uploads that drip), 500 idle tunnels, bombs of gzip, br and zstd, request lines and
response heads without an end. Meanwhile an honest client sends HTTPS requests with a secret, on
connections that it keeps and on new ones, at a fixed pace. Client, attackers, upstreams and proxy
share the cores; attackers and their upstream are niced, the proxy is not.

Ends with 1 where a goal is missed: every honest answer right; p99 under load below ten times the
quiet p99; memory grown by less than 128 MiB; afterwards, every connection released; no internal
error in the log.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import resource
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import SynchronizedArray
from pathlib import Path

import trustme
from common import HOST, VALUE, Proxy, accepts, free_port, start_coatcheck, wait_for
from soak_attackers import COUNTS, HELD, NUMBERS, POLICY, RAMP_S, attack
from soak_upstreams import right_answer, serve_honest, serve_hostile

KEPT = 2  # connections that are kept
KEPT_EVERY_S = 0.025
NEW_EVERY_S = 0.1
ANSWER_S = 30.0
LOOK_S = 0.25
TIMES = 10  # the bound on p99, of the quiet one
GROWTH_MIB = 128
RELEASE_S = 20.0
SLACK_FILES = 8  # the honest client's own, which may differ by a few
BUGS = ("internal_error", "engine.crash", "foreign.log")

type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Honest:
    """What one phase showed: seconds for each answer, on kept connections and on new ones."""

    kept: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    wrong: int = 0
    errors: list[str] = field(default_factory=list)


class HonestClient:
    def __init__(self, proxy: Proxy, upstream: int) -> None:
        self._port = proxy.port
        self._context = ssl.create_default_context(cafile=proxy.ca)
        self._target = f"{HOST}:{upstream}".encode()
        self._request = (
            b"GET /v1/items HTTP/1.1\r\nHost: %b\r\nAuthorization: Bearer {{secrets.bench.key}}\r\n"
            b"\r\n" % self._target
        )
        self.phase = Honest()

    async def run(self, seconds: float) -> Honest:
        """Send for *seconds*; a request counts for the phase in which it was sent."""
        self.phase = phase = Honest()
        end = time.monotonic() + seconds
        await asyncio.gather(self._new(phase, end), *(self._keep(phase, end) for _ in range(KEPT)))
        return phase

    async def _keep(self, phase: Honest, end: float) -> None:
        streams: Streams | None = None
        async for _ in pace(KEPT_EVERY_S, end):
            try:
                async with asyncio.timeout(ANSWER_S):
                    streams = streams or await self._tunnel()
                    begun = time.monotonic()
                    phase.wrong += not await self._ask(streams)
                phase.kept.append(time.monotonic() - begun)
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                phase.errors.append(f"kept: {type(error).__name__}")
                streams = None
        if streams:
            streams[1].transport.abort()

    async def _new(self, phase: Honest, end: float) -> None:
        async for _ in pace(NEW_EVERY_S, end):
            begun = time.monotonic()
            try:
                async with asyncio.timeout(ANSWER_S):
                    streams = await self._tunnel()
                    phase.wrong += not await self._ask(streams)
                phase.new.append(time.monotonic() - begun)
                streams[1].transport.abort()
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                phase.errors.append(f"new: {type(error).__name__}")

    async def _tunnel(self) -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (self._target, self._target))
        await reader.readuntil(b"\r\n\r\n")
        await writer.start_tls(self._context, server_hostname=HOST, ssl_handshake_timeout=ANSWER_S)
        return reader, writer

    async def _ask(self, streams: Streams) -> bool:
        """Whether the value arrived, and did not come back."""
        reader, writer = streams
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        body = b""
        if b"transfer-encoding: chunked" in head.lower():
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        elif found := head.lower().partition(b"content-length: ")[2]:
            body = await reader.readexactly(int(found.partition(b"\r\n")[0]))
        scrubbed = right_answer(b"********")
        return head.startswith(b"HTTP/1.1 200 ") and body == scrubbed and VALUE.encode() not in head


async def pace(every_s: float, end: float) -> AsyncIterator[float]:
    """Ticks at a fixed pace until *end*. One that is late is not made up for."""
    due = time.monotonic()
    while (now := time.monotonic()) < end:
        yield now
        due = max(due + every_s, time.monotonic())
        await asyncio.sleep(due - time.monotonic())


@dataclass
class Machine:
    """What the kernel says of the proxy, looked at while something else goes on."""

    proxy: Proxy
    memory_mib: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    held: dict[str, int] = field(default_factory=lambda: dict.fromkeys(HELD, 0))

    async def watch(self, now: SynchronizedArray[int]) -> None:
        while True:
            self.memory_mib.append(self.proxy.memory_mib("VmRSS"))
            self.files.append(open_files(self.proxy))
            for name in HELD:
                self.held[name] = max(self.held[name], now[NUMBERS[name]])
            await asyncio.sleep(LOOK_S)


def open_files(proxy: Proxy) -> int:
    """Of the proxy; where the kernel does not let us look, the connections at its port."""
    try:
        return len(list(Path(f"/proc/{proxy.process.pid}/fd").iterdir()))
    except PermissionError:
        lines = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
        return sum(int(line.split()[1].partition(":")[2], 16) == proxy.port for line in lines)


def percentile(values: list[float], share: float) -> float:
    """Nearest rank."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else math.inf


@dataclass
class Phase:
    name: str
    honest: Honest
    cpu: float  # of one core
    memory_mib: float
    files: int

    def row(self) -> dict[str, object]:
        return {
            "phase": self.name,
            "kept_p50_ms": _ms(self.honest.kept, 0.5),
            "kept_p99_ms": _ms(self.honest.kept, 0.99),
            "new_p50_ms": _ms(self.honest.new, 0.5),
            "new_p99_ms": _ms(self.honest.new, 0.99),
            "requests": len(self.honest.kept) + len(self.honest.new),
            "wrong": self.honest.wrong,
            "errors": len(self.honest.errors),
            "cpu_percent": round(100 * self.cpu),
            "peak_mib": round(self.memory_mib, 1),
            "peak_files": self.files,
        }


def _ms(values: list[float], share: float) -> float:
    return round(1000 * percentile(values, share), 1)


@dataclass
class Stage:
    proxy: Proxy
    honest_port: int
    hostile_port: int
    plain_port: int
    log: Path


class Soak:
    def __init__(self, stage: Stage, seconds: float) -> None:
        self._stage = stage
        self._quiet_s = max(5.0, seconds / 9)
        self._load_s = max(10.0, seconds - 2 * self._quiet_s - RAMP_S)
        self._client = HonestClient(stage.proxy, stage.honest_port)
        self.machine = Machine(stage.proxy)
        self._now = multiprocessing.Array("i", len(COUNTS))
        self.ended = multiprocessing.Array("i", len(COUNTS))

    async def run(self) -> list[Phase]:
        watching = asyncio.create_task(self.machine.watch(self._now))
        stage = self._stage
        await self._client.run(3)  # warm up
        phases = [await self._phase("quiet", self._quiet_s)]
        ports = (stage.proxy.port, stage.hostile_port, stage.plain_port)
        args = (*ports, str(stage.proxy.ca), self._now, self.ended)
        attackers = multiprocessing.Process(target=attack, args=args, daemon=True)
        attackers.start()
        try:
            phases.append(await self._phase("arriving", RAMP_S))
            phases.append(await self._phase("load", self._load_s))
        finally:
            attackers.kill()
            attackers.join()
        phases.append(await self._phase("after", max(RELEASE_S, self._quiet_s)))
        watching.cancel()
        return phases

    async def _phase(self, name: str, seconds: float) -> Phase:
        print(f"{name}: {seconds:.0f} s", file=sys.stderr)
        seen, cpu, begun = len(self.machine.files), self._stage.proxy.cpu_s(), time.monotonic()
        honest = await self._client.run(seconds)
        used = (self._stage.proxy.cpu_s() - cpu) / (time.monotonic() - begun)
        memory, files = self.machine.memory_mib[seen:], self.machine.files[seen:]
        if name == "after":  # where it ended, not the way there
            memory, files = memory[-4:], files[-4:]
        return Phase(name, honest, used, max(memory), max(files))


def judge(phases: list[Phase], machine: Machine, log: str) -> dict[str, tuple[str, bool]]:
    """goal: (what was seen, whether it is met)"""
    quiet, _, load, after = phases
    wrong = sum(phase.honest.wrong + len(phase.honest.errors) for phase in phases)
    grown = max(phase.memory_mib for phase in phases) - quiet.memory_mib
    left = after.files - quiet.files
    bugs = sum(any(bug in line for bug in BUGS) for line in log.splitlines())
    goals = {"every honest answer is right": (f"{wrong} are not", wrong == 0)}
    for kind in ("kept", "new"):
        before = percentile(getattr(quiet.honest, kind), 0.99)
        times = percentile(getattr(load.honest, kind), 0.99) / before
        goal = f"p99 on {kind} connections below {TIMES} times the quiet one"
        goals[goal] = (f"{times:.1f} times", times < TIMES)
    held = sum(machine.held.values())
    return {
        **goals,
        f"memory grows by less than {GROWTH_MIB} MiB": (f"{grown:.1f} MiB", grown < GROWTH_MIB),
        "afterwards every connection is released": (f"{left} more files", left <= SLACK_FILES),
        "no internal error in the log": (f"{bugs} lines", bugs == 0),
        "the attack took place": (f"{held} connections held", held > sum(COUNTS.values()) / 2),
    }


def show(soak: Soak, phases: list[Phase], goals: dict[str, tuple[str, bool]], form: str) -> None:
    rows = [phase.row() for phase in phases]
    attacks = {
        name: {"wanted": COUNTS[name], "held": soak.machine.held.get(name, 0), "ended": ended}
        for name, ended in zip(COUNTS, soak.ended, strict=True)
    }
    if form == "json":
        met = {goal: {"seen": seen, "met": is_met} for goal, (seen, is_met) in goals.items()}
        print(json.dumps({"phases": rows, "attacks": attacks, "goals": met}, indent=2))
        return
    names = [name.replace("_", " ") for name in rows[0]]
    print("".join(f"{name:>{max(9, len(name) + 2)}}" for name in names))
    for row in rows:
        cells = zip(names, row.values(), strict=True)
        print("".join(f"{cell:>{max(9, len(name) + 2)}}" for name, cell in cells))
    print(f"\n{'attack':24}{'wanted':>8}{'held':>8}{'ended':>8}")
    for name, numbers in attacks.items():
        print(f"{name:24}" + "".join(f"{number:8}" for number in numbers.values()))
    print()
    for goal, (seen, is_met) in goals.items():
        print(f"{'met   ' if is_met else 'MISSED'}  {goal}: {seen}")


@contextmanager
def staged() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="coatcheck-soak-") as name:
        folder = Path(name)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(folder / "leaf.pem")
        honest, hostile, plain, leaf = free_port(), free_port(), free_port(), folder / "leaf.pem"
        servers = [
            multiprocessing.Process(target=serve_honest, args=(honest, str(leaf)), daemon=True),
            multiprocessing.Process(
                target=serve_hostile, args=(hostile, str(leaf), plain), daemon=True
            ),
        ]
        for server in servers:
            server.start()
        for port in (honest, hostile, plain):
            wait_for(lambda port=port: accepts(port))
        proxy = start_coatcheck(folder, folder / "ca.pem", honest, hostile, policy=POLICY)
        try:
            yield Stage(proxy, honest, hostile, plain, folder / "coatcheck.log")
        finally:
            proxy.stop()
            for server in servers:
                server.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=180.0, help="the whole, about")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with staged() as stage:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soak = Soak(stage, options.seconds)
        phases = asyncio.run(soak.run())
        goals = judge(phases, soak.machine, stage.log.read_text("utf-8", "replace"))
    show(soak, phases, goals, options.format)
    return 0 if all(met for _, met in goals.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
