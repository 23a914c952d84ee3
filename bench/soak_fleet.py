"""Three replicas on one PostgreSQL behind HAProxy, under load, while all of it fails in turn.

    PYTHONPATH=. python bench/soak_fleet.py [--seconds 120] [--stale-s 8] [--in-force-s 1]
        [--format table|json]

Requests go through HAProxy and to each replica, at the same time and without a pause. Meanwhile a
secret gets a new value every 1.5 seconds, and in turn: the connections on which replicas listen are
cut (pg_terminate_backend), a replica is killed (SIGKILL, all its processes), the database is
restarted, crashes, is away for some seconds, is away for longer than `store_stale_s`, says nothing
(SIGSTOP), and is away while a replica is killed.

Ends with 1 where a goal is missed: no wrong value at a site, no value at the client, each change in
force on each replica within a second, refusals only as documented, each request accounted for.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterator

from common import wait_for
from soak_fleet_stage import BALANCER, CLIENT, START_S, TOKEN, Away, Kill, Stage, staged
from soak_fleet_verdict import Bounds, Verdict, judge
from soak_workers import SECRETS, Client

from coatcheck.core.ports import StoreError
from tests.store.server import Unavailable

CHANGE_EVERY_S = 1.5
CALM_S = 4.0  # between two failures
GONE_S = 2.0  # a replica that was killed, until it is started again
FOUND_S = 5.0  # a database that is back: docs/operations.md
STALE_S, IN_FORCE_S = 8.0, 1.0
SETTLE_S = 3.0
KEPT_EVERY_S, NEW_EVERY_S = 0.08, 0.4

type Step = Callable[["Meddler"], Awaitable[str]]


class Meddler:
    """Changes values and breaks things, until *end*."""

    def __init__(
        self, stage: Stage, stale_s: float, calm_s: float, tell: Callable[[str], None]
    ) -> None:
        self._stage = stage
        self._stale_s = stale_s
        self._calm_s = calm_s
        self._tell = tell
        self._victims = itertools.cycle(stage.replicas)

    async def change(self, end: float) -> None:
        for secret in itertools.cycle(SECRETS):
            if time.monotonic() >= end:
                return
            try:
                await asyncio.to_thread(self._stage.put, secret)
            except StoreError as error:
                last = self._stage.history.changes[secret][-1]
                last.unknown = "it was made or it was not" in error.problem
            await asyncio.sleep(CHANGE_EVERY_S)

    async def break_things(self, end: float) -> None:
        begun = time.monotonic()
        for needs_s, step in itertools.cycle(STEPS):
            needs = needs_s + (self._stale_s if step in LONG else 0)
            if time.monotonic() + self._calm_s + needs > end:
                return
            await asyncio.sleep(self._calm_s)
            what = await step(self)
            self._tell(f"{time.monotonic() - begun:6.1f} s  {what}")

    # --- what breaks -----------------------------------------------------------------------------

    async def cut(self) -> str:
        cut = await asyncio.to_thread(self._stage.cut)
        return f"{cut} listening connections cut"

    async def kill(self) -> str:
        victim = next(self._victims)
        kill = Kill(victim.name, time.time())
        self._stage.history.kills.append(kill)
        await asyncio.to_thread(victim.kill)
        await asyncio.sleep(GONE_S)
        await asyncio.to_thread(wait_for, victim.up, START_S)
        kill.back = time.time()
        return f"{victim.name} killed, back after {kill.back - kill.at:.1f} s"

    async def restart(self) -> str:
        return await self._away("restarted", 0)

    async def crash(self) -> str:
        return await self._away("crashed", 0.5, crash=True)

    async def outage(self) -> str:
        return await self._away("away", 4)

    async def long_outage(self) -> str:
        return await self._away("away for longer than store_stale_s", self._stale_s + 8)

    async def freeze(self) -> str:
        away = self._begins("silent")
        server = self._stage.server
        await asyncio.to_thread(server.freeze)
        await asyncio.sleep(self._stale_s + 8)
        await asyncio.to_thread(server.freeze, frozen=False)
        return self._ends(away)

    async def kill_while_away(self) -> str:
        killed, away = await asyncio.gather(self.kill(), self._away("away", 6))
        return f"{away}; {killed}"

    async def _away(self, how: str, seconds: float, *, crash: bool = False) -> str:
        server = self._stage.server
        away = self._begins(how)
        await asyncio.to_thread(server.stop, for_good=crash)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(server.start)
        return self._ends(away)

    def _begins(self, how: str) -> Away:
        away = Away(how, time.time())
        self._stage.history.aways.append(away)
        return away

    def _ends(self, away: Away) -> str:
        away.up = time.time()
        return f"the database {away.how}, back after {away.up - away.down:.1f} s"


# What is done in turn, and the seconds that it takes, with time to be found again.
STEPS: tuple[tuple[float, Step], ...] = (
    (1, Meddler.cut),
    (FOUND_S + 3, Meddler.restart),
    (8, Meddler.kill),
    (1, Meddler.cut),
    (FOUND_S + 10, Meddler.long_outage),
    (8, Meddler.kill),
    (FOUND_S + 3, Meddler.crash),
    (FOUND_S + 5, Meddler.outage),
    (FOUND_S + 10, Meddler.freeze),
    (1, Meddler.cut),
    (FOUND_S + 14, Meddler.kill_while_away),
)
LONG = (Meddler.long_outage, Meddler.freeze)


async def soak(
    stage: Stage, seconds: float, stale_s: float, calm_s: float, tell: Callable[[str], None]
) -> dict[str, Client]:
    """The clients, by what they sent through."""
    for secret in SECRETS:
        stage.put(secret)
    await asyncio.sleep(SETTLE_S)
    numbers: Iterator[int] = itertools.count()
    ways = {BALANCER: stage.balancer} | {one.name: one.port for one in stage.replicas}
    token = f"{CLIENT}:{TOKEN}"
    clients = {
        name: Client(port, stage.ports, stage.ca, token=token, numbers=numbers)
        for name, port in ways.items()
    }
    end = time.monotonic() + seconds
    meddler = Meddler(stage, stale_s, calm_s, tell)
    loads = []
    for client in clients.values():
        loads += [client.tunnels(end, KEPT_EVERY_S, 100, [site]) for site in SECRETS]
        loads += [client.tunnels(end, NEW_EVERY_S, 1)]
    await asyncio.gather(*loads, meddler.change(end), meddler.break_things(end))
    return clients


def show(verdict: Verdict, form: str) -> None:
    if form == "json":
        met = {
            goal: {"seen": seen, "met": is_met} for goal, (seen, is_met) in verdict.goals.items()
        }
        print(json.dumps({**verdict.facts, "goals": met}, indent=2))
        return
    print()
    for name, fact in verdict.facts.items():
        print(f"{name.replace('_', ' ') + ':':34}{fact}")
    print()
    for goal, (seen, is_met) in verdict.goals.items():
        print(f"{'met   ' if is_met else 'MISSED'}  {goal}: {seen}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--stale-s", type=float, default=STALE_S, help="limits.store_stale_s")
    parser.add_argument("--in-force-s", type=float, default=IN_FORCE_S, help="what is promised")
    parser.add_argument("--calm-s", type=float, default=CALM_S, help="between two failures")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    options = parser.parse_args()
    is_table = options.format == "table"

    def tell(what: str) -> None:
        if is_table:
            print(f"fleet: {what}", flush=True)

    try:
        with staged(options.stale_s) as stage:
            tell("three replicas are up; the load begins")
            clients = asyncio.run(
                soak(stage, options.seconds, options.stale_s, options.calm_s, tell)
            )
            stage.stop()
            bounds = Bounds(options.stale_s, options.in_force_s)
            verdict = judge(stage, clients, options.seconds, bounds)
    except Unavailable as error:
        print(f"fleet: no PostgreSQL: {error}")
        return 1
    show(verdict, options.format)
    return 0 if verdict.met else 1


if __name__ == "__main__":
    raise SystemExit(main())
