"""What is asked of the contenders, and how a round of it is measured.

In a round every contender has a short turn, in the other direction from round to round, so that a
machine that slows down slows all of them.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from bench import bulk
from bench.common import VALUE, NotUp, cpu_s
from bench.contenders import Cast, Running
from bench.figures import Results, percentile
from bench.load import STEPS, Clients, Job, Outcome, Way
from bench.loop import clock
from bench.upstream import MIB, Upstream
from bench.wire import Broken

READY_S = 30.0
WARM_S = 0.2
GIB_MIB = 1024
SETTLE_S = 0.05  # for what a proxy does after the last answer
IDLE_S = 0.5
PAUSE_MS = 25
FIRSTS = 12  # streams of a round whose first event is timed
NOT_SEARCHED = "not-searched"  # coatcheck, at the port where no secret is allowed
WRONG = (OSError, Broken, ValueError)


@dataclass(frozen=True)
class Options:
    """How long it takes, and how exact it is."""

    rounds: int = 5
    seconds: float = 1.0  # of one turn
    mib: int = 100  # of one transfer
    gib: int = GIB_MIB  # MiB of the one long transfer
    events: int = 5000
    tunnels: int = 200
    long_rounds: int = 3  # of what takes more than a second


class Bench:
    """One run: the ends, the contenders, and what was seen."""

    def __init__(self, options: Options, upstream: Upstream, cast: Cast, clients: Clients) -> None:
        self.options = options
        self.upstream = upstream
        self.ports = upstream.ports
        self.cast = cast
        self.results = Results()
        self._clients = clients
        self._ready: set[str] = set()

    def turns(self, case: Case, rounds: int) -> Iterator[tuple[str, Running]]:
        """Contenders that run, each once in a round."""
        for number in range(rounds):
            say(f"{case.name}, round {number + 1} of {rounds}:", end="")
            for name in case.contenders if number % 2 == 0 else reversed(case.contenders):
                running = self.get(case, name)
                if running is not None:
                    say(f" {name}", end="")
                    yield name, running
            say("")

    def get(self, case: Case, name: str) -> Running | None:
        """A contender that has shown that it does what it is said to do."""
        if name == NOT_SEARCHED:
            running = self.get(case, "coatcheck")
            # No placeholder: it would be refused there.
            return running and replace(
                running, way=replace(running.way, sends="none", sees="other")
            )
        self.upstream.check()
        running = self.cast.get(name)
        if running is None or name in self._ready:
            return running
        try:
            wait_until_right(running.way, self.ports.tls)
        except NotUp as error:
            self.cast.leave_out(name, str(error))
            return None
        self._ready.add(name)
        with self.judged(case.name, name):
            self._check_scrubbing(running)
            self.slot(running, Job(running.way, self.ports.tls, 4, WARM_S))
            running.begin_profile()
        return running

    def mib(self, name: str) -> int:
        """The size of a transfer."""
        most = self.cast.contenders[name].most_mib if name in self.cast.contenders else None
        return min(self.options.mib, most or self.options.mib)

    def port(self, name: str) -> int:
        return self.ports.other if name == NOT_SEARCHED else self.ports.tls

    def _check_scrubbing(self, running: Running) -> None:
        came = bulk.echoed(running.way, self.ports.tls)
        if running.way.sees == "value" and VALUE.encode() in came:
            raise Broken("a value that the upstream sends back reaches the client")

    def slot(self, running: Running, job: Job) -> tuple[Outcome, dict[str, float]]:
        """One turn, and its figures."""
        share = self._clients.prepare(job)
        proxy, ends = running.cpu_s(), cpu_s(self.upstream.pids)
        outcome = self._clients.run(share)
        time.sleep(SETTLE_S)
        proxy, ends = running.cpu_s() - proxy, cpu_s(self.upstream.pids) - ends
        count = len(outcome.latencies)
        each = 1000 / count if count else math.nan
        latencies_ms = [1000 * seconds for seconds in outcome.latencies]
        return outcome, {
            "per_s": count / outcome.seconds,
            "p50_ms": percentile(latencies_ms, 0.5),
            "p99_ms": percentile(latencies_ms, 0.99),
            "cpu_s_per_1000": proxy * each if running.has_process else math.nan,
            "ends_s_per_1000": (outcome.cpu_s + ends) * each,
        }

    @contextmanager
    def judged(self, case: str, name: str) -> Iterator[None]:
        """What goes wrong inside is counted, and ends the block."""
        try:
            yield
        except WRONG as error:
            self.results.add_errors(case, name, {f"{type(error).__name__}: {error}": 1})


@dataclass(frozen=True)
class Case:
    """One table.

    Attributes:
        contenders: In the order of the table.
        title: With ``{mib}`` and ``{gib}``, the sizes that were asked for.
        base: Whose cost is 1 in its ratios.
        kind: Of the bytes that are transferred.
        times: So many times the usual rounds, where small differences count.
    """

    name: str
    title: str
    contenders: tuple[str, ...]
    measure: Callable[[Bench, Case], None]
    base: str = "stock"
    connections: int = 0
    plain: bool = False
    keep: bool = True
    kind: str = ""
    times: int = 1


def measure_load(bench: Bench, case: Case) -> None:
    """Small requests, for a fixed time."""
    port = bench.ports.plain if case.plain else bench.ports.tls
    for name, running in bench.turns(case, case.times * bench.options.rounds):
        seconds = bench.options.seconds
        job = Job(running.way, port, case.connections, seconds, plain=case.plain, keep=case.keep)
        outcome, figures = bench.slot(running, job)
        bench.results.add(case.name, name, figures)
        bench.results.add_errors(case.name, name, outcome.errors)


def measure_steps(bench: Bench, case: Case) -> None:
    """CPU for a new connection that ends after a step: the difference is the step's."""
    for name, running in bench.turns(case, bench.options.long_rounds):
        costs = {}
        for step in STEPS:
            seconds = bench.options.seconds
            port, count = bench.ports.tls, case.connections
            job = Job(running.way, port, count, seconds, keep=False, step=step, most=1000)
            outcome, figures = bench.slot(running, job)
            costs[step] = figures["cpu_s_per_1000"]
            bench.results.add_errors(case.name, name, outcome.errors)
        before = (0.0, *costs.values())
        own = {f"{step}_ms": costs[step] - before[at] for at, step in enumerate(STEPS)}
        bench.results.add(case.name, name, own | {"all_ms": costs["request"]})


def measure_transfer(bench: Bench, case: Case) -> None:
    """One large body after another, until the turn is over."""
    transfer = bulk.upload if case.name.startswith("up-") else bulk.download
    for name, running in bench.turns(case, bench.options.long_rounds):
        mib, times = bench.mib(name), list[float]()
        with bench.judged(case.name, name):
            cpu = running.cpu_s()
            while sum(times) < bench.options.seconds:
                times.append(transfer(running.way, bench.port(name), case.kind, mib))
            used = running.cpu_s() - cpu if running.has_process else math.nan
            megabytes = len(times) * mib * MIB / 1e6
            figures = {
                "mb_per_s": megabytes / sum(times),
                "cpu_s_per_gib": used * 1024 / (len(times) * mib),
                "mb_per_cpu_s": megabytes / used if used > 0 else math.nan,
            }
            bench.results.add(case.name, name, figures)


def measure_events(bench: Bench, case: Case) -> None:
    """Short streams, whose first event is timed, then long ones until the turn is over."""
    count = bench.options.events
    for name, running in bench.turns(case, bench.options.rounds):
        way, port, times = running.way, bench.port(name), list[float]()
        with bench.judged(case.name, name), bulk.connected(way, port) as sock:
            bulk.events(sock, way, port, 50, 0)
            firsts = [bulk.events(sock, way, port, 2, PAUSE_MS)[0] for _ in range(FIRSTS)]
            cpu = running.cpu_s()
            while sum(times) < bench.options.seconds:
                times.append(bulk.events(sock, way, port, count, 0)[1])
            used = running.cpu_s() - cpu if running.has_process else math.nan
            seen = len(times) * count
            figures = {
                "first_ms": 1000 * statistics.median(firsts),
                "events_per_s": seen / sum(times),
                "cpu_us_per_event": 1e6 * used / seen,
            }
            bench.results.add(case.name, name, figures)
    _set_over_direct(bench.results, case)


def _set_over_direct(results: Results, case: Case) -> None:
    """Round by round, what a contender's first event takes longer than the direct one."""
    direct = results.rounds(case.name, "direct", "first_ms")
    for name in case.contenders:
        own = results.rounds(case.name, name, "first_ms")
        for mine, theirs in zip(own, direct, strict=False):
            results.add(case.name, name, {"over_direct_ms": mine - theirs})


def measure_life(bench: Bench, case: Case) -> None:
    """From the start of a process to its first answer, and its memory."""
    rounds = bench.options.long_rounds
    for number in range(rounds):
        say(f"{case.name}, round {number + 1} of {rounds}:", end="")
        for name in case.contenders:
            say(f" {name}", end="")
            figures: dict[str, float] = {}
            with bench.judged(case.name, name):
                figures |= _peak(bench, name)
                figures |= _tunnels(bench, name)
            if figures:
                bench.results.add(case.name, name, figures)
        say("")


def _peak(bench: Bench, name: str) -> dict[str, float]:
    with fresh(bench, name) as (running, start_s):
        if running is None:
            return {}
        way, port, mib = running.way, bench.ports.tls, bench.mib(name)
        time.sleep(IDLE_S)
        idle = running.memory_mib("VmRSS")
        bulk.download(way, port, "text", mib)
        bulk.upload(way, port, "text", mib)
        peak = running.memory_mib("VmHWM")
        return {"start_s": start_s, "idle_mib": idle, "over_idle_mib": peak - idle}


def _tunnels(bench: Bench, name: str) -> dict[str, float]:
    """Memory of a tunnel that is idle: TLS on both sides, one request long ago."""
    with fresh(bench, name) as (running, _):
        if running is None:
            return {}
        way, port, count = running.way, bench.ports.tls, bench.options.tunnels
        time.sleep(IDLE_S)
        idle, socks = running.memory_mib("VmRSS"), []
        try:
            for _ in range(count):
                socks.append(bulk.connect(way, port))
                bulk.ask(socks[-1], way, port)
            time.sleep(IDLE_S)
            return {"tunnel_kib": 1024 * (running.memory_mib("VmRSS") - idle) / count}
        finally:
            for sock in socks:
                sock.close()


@contextmanager
def fresh(bench: Bench, name: str) -> Iterator[tuple[Running | None, float]]:
    """A process that has answered one request, and how many seconds that took from its start."""
    bench.cast.prepare(name)
    begun = clock()
    running = bench.cast.fresh(name)
    try:
        if running is not None:
            wait_until_right(running.way, bench.ports.tls)
        yield running, clock() - begun
    finally:
        if running is not None:
            running.stop()


def measure_gib(bench: Bench, case: Case) -> None:
    """The highest that memory was so far, over idle, after each of three long transfers."""
    size = bench.options.gib
    for name in case.contenders:
        say(f"{case.name}: {name}")
        with bench.judged(case.name, name), fresh(bench, name) as (running, _):
            if running is None:
                continue
            way, port = running.way, bench.ports.tls
            time.sleep(IDLE_S)
            idle = running.memory_mib("VmRSS")
            figures = {}
            for figure, transfer, kind in (
                ("down", bulk.download, "text"),
                ("text", bulk.upload, "text"),
                ("random", bulk.upload, "random"),
            ):
                seconds = transfer(way, port, kind, size)
                figures[f"{figure}_mb_per_s"] = size * MIB / 1e6 / seconds
                figures[f"{figure}_over_idle_mib"] = running.memory_mib("VmHWM") - idle
            bench.results.add(case.name, name, figures)


def wait_until_right(way: Way, port: int) -> None:
    """Until a request through *way* is answered as it should be.

    Raises:
        NotUp: that took too long.
    """
    deadline, why = clock() + READY_S, "no answer"
    while clock() < deadline:
        try:
            with bulk.connected(way, port) as sock:
                return bulk.ask(sock, way, port)
        except WRONG as error:
            why = str(error)
        time.sleep(0.01)
    raise NotUp(f"it does not answer as it should: {why}")


def say(text: str, end: str = "\n") -> None:
    """What goes on, for whoever waits."""
    print(text, end=end, file=sys.stderr, flush=True)


_ALL = ("direct", "stock", "naive", "proxy.py", "coatcheck", "workers-2")
_BULK = ("direct", "stock", "streaming", "naive", "proxy.py", "coatcheck", NOT_SEARCHED)
_CASES = (
    *(
        Case(
            f"keep-{count}",
            f"HTTPS, {count} connection{'s' if count > 1 else ''} kept",
            _ALL,
            measure_load,
            connections=count,
        )
        for count in (1, 16, 64)
    ),
    Case("plain", "HTTP, 16 connections kept", _ALL, measure_load, connections=16, plain=True),
    Case(
        "new",
        "HTTPS, a new connection for each request, 8 at a time",
        _ALL,
        measure_load,
        connections=8,
        keep=False,
    ),
    Case(
        "steps",
        "what a new connection costs, step by step",
        ("stock", "proxy.py", "coatcheck"),
        measure_steps,
        connections=8,
    ),
    Case(
        "secrets",
        "HTTPS, 16 connections kept, more secrets",
        ("coatcheck", "secrets-1000", "secrets-10000", "scope-1000"),
        measure_load,
        base="coatcheck",
        connections=16,
        times=2,
    ),
    Case(
        "workers",
        "HTTPS, 16 connections kept, each worker held to a part of a core",
        ("held-1", "held-2"),
        measure_load,
        base="held-1",
        connections=16,
    ),
    *(
        Case(f"{way}-{kind}", title, (*_BULK, "relay", *more), measure_transfer, kind=kind)
        for way, kind, title, more in (
            ("down", "text", "download of text, {mib} MiB", ("secrets-10000",)),
            ("down", "random", "download of random bytes, {mib} MiB", ()),
            ("up", "text", "upload of text, {mib} MiB", ()),
            ("up", "random", "upload of random bytes, {mib} MiB", ()),
        )
    ),
    Case("events", "server-sent events", _BULK, measure_events),
    Case(
        "life",
        "start, and memory",
        ("stock", "streaming", "proxy.py", "coatcheck", "workers-2", "secrets-10000"),
        measure_life,
    ),
    Case(
        "gib",
        "{gib} MiB down as text, then up, then up as random bytes",
        ("coatcheck",),
        measure_gib,
    ),
)
CASES = {case.name: case for case in _CASES}
