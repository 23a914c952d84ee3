"""What came of `bench/soak_fleet.py`: figures, and the goals that are met or not.

A value at a site is compared with what was in force then. It may be an older one for a second after
a change, and, where the database was away, for as long as the documents say: until it is found
again, and at most `store_stale_s`, after which there is a refusal instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from soak_fleet_stage import BALANCER, Change, History, Stage
from soak_workers import BUGS, CLOSED_OR_403, Client, Outcome, audited
from soak_workers_sites import FAULTS, HONEST, NOTHING, Seen, read_record

FOUND_S = 5.0  # a database that is back: docs/operations.md
POLL_S = 0.5  # two looks
GIVEN_UP_S = 3.0  # beyond `store_stale_s`, for a machine that is busy
EXPECTED = '"logger": "psycopg"'  # a library that says that a connection was lost
SLACK_S = 1.0  # beyond the promise, until a value counts as wrong rather than as late
KILLED_S = 2.0  # until a client that sends at a pace has met a connection that is gone
LEAST_RATE = 20.0  # requests a second

type Goals = dict[str, tuple[str, bool]]


@dataclass(frozen=True)
class Verdict:
    facts: dict[str, object]
    goals: Goals  # goal: (what was seen, whether it is met)

    @property
    def met(self) -> bool:
        return all(is_met for _, is_met in self.goals.values())


@dataclass(frozen=True)
class Bounds:
    """What is promised, in seconds.

    Attributes:
        stale_s: `limits.store_stale_s`.
        in_force_s: Until a change is in force.
    """

    stale_s: float
    in_force_s: float

    @property
    def late_s(self) -> float:
        return self.in_force_s + SLACK_S


class Late(NamedTuple):
    """A change, and how many seconds later it had arrived through a replica.

    Attributes:
        stored: On the clock of the requests.
    """

    seconds: float
    stored: float
    replica: str


def judge(stage: Stage, clients: dict[str, Client], seconds: float, bounds: Bounds) -> Verdict:
    """Compare what clients, sites, records and logs tell with *bounds*."""
    outcomes = {n: one for client in clients.values() for n, one in client.outcomes.items()}
    way_of = {number: way for way, client in clients.items() for number in client.outcomes}
    seen = read_record(stage.record)
    all_seen = {one.request for one in seen if one.value != NOTHING}
    records = [audited(one.home) for one in stage.replicas]
    late, found = in_force(stage, seen, way_of, bounds)
    took = [one.seconds for one in late]
    facts = _facts(stage.history, outcomes, late, found)
    facts["replicas waited for a processor"] = f"{100 * stage.waited:.0f} % of when they wanted one"
    goals = _of_values(stage, clients, outcomes, seen, way_of, bounds)
    goals |= _of_refusals(stage.history, outcomes, way_of, bounds)
    goals |= _of_accounts(outcomes, all_seen, seen, records)
    slowest = max(took, default=float("inf"))
    rate = len(outcomes) / seconds
    bugs = [
        line
        for one in stage.replicas
        for line in one.log.read_text().splitlines()
        if any(bug in line for bug in BUGS) and EXPECTED not in line
    ]
    goals |= {
        f"a change is in force on every replica within {bounds.in_force_s:g} s": (
            f"{slowest:.2f} s at most, of {len(took)}",
            slowest <= bounds.in_force_s,
        ),
        f"at least {LEAST_RATE:.0f} requests a second": (f"{rate:.0f}", rate >= LEAST_RATE),
        "every replica is back": (
            f"{sum(kill.back < float('inf') for kill in stage.history.kills)}"
            f" of {len(stage.history.kills)}",
            all(kill.back < float("inf") for kill in stage.history.kills),
        ),
        "no internal error in the logs": (_some(bugs), not bugs),
    }
    return Verdict(facts, goals)


def _facts(
    history: History, outcomes: dict[str, Outcome], late: list[Late], found: list[float]
) -> dict[str, object]:
    begun = min((one.sent for one in outcomes.values()), default=0.0)
    latest = sorted(late, reverse=True)[:3]
    stored = [one for some in history.changes.values() for one in some if one.stored is not None]
    tried = sum(map(len, history.changes.values()))
    backs = [f"{kill.back - kill.at:.1f}" for kill in history.kills]
    return {
        "requests": len(outcomes),
        "requests took (s)": _spread([one.ended - one.sent for one in outcomes.values()]),
        "answers": dict(sorted(Counter(one.came for one in outcomes.values()).items())),
        "refusals": dict(sorted(Counter(o.code for o in outcomes.values() if o.code).items())),
        "changes": len(stored),
        "changes while the database was away": tried - len(stored),
        "in force after (s)": f"{len(late)}: {_spread([one.seconds for one in late])}",
        "the latest": ", ".join(
            f"{one.replica} {one.seconds:.2f} s after {one.stored - begun:.1f} s" for one in latest
        ),
        "replicas killed, back after (s)": f"{len(backs)}: {', '.join(backs)}",
        "database": dict(Counter(away.how for away in history.aways)),
        "database found again after (s)": f"{max(found, default=0.0):.1f} at most, of {len(found)}",
        "listening connections cut": len(history.cuts),
    }


# --- which value ---------------------------------------------------------------------------------


def in_force(
    stage: Stage, seen: list[Seen], way_of: dict[str, str], bounds: Bounds
) -> tuple[list[Late], list[float]]:
    """When each change had arrived through each replica; and seconds until a database that was back
    was found, by the changes made since."""
    late, found = [], []
    history = stage.history
    number_of = {c.value: i for some in history.changes.values() for i, c in enumerate(some)}
    for replica in stage.replicas:
        for secret, changes in history.changes.items():
            arrived = [
                (one.at, number_of[one.value])
                for one in seen
                if one.site == secret
                and one.value in number_of
                and way_of.get(one.request) == replica.name
            ]
            first, last = (arrived[0][0], arrived[-1][0]) if arrived else (0.0, 0.0)
            at = 0
            for number, change in enumerate(changes):
                stored = change.stored
                if (
                    stored is None
                    or stored < first  # nobody asked yet
                    or stored + bounds.late_s > last
                    or _was_gone(history, replica.name, stored, bounds)
                ):
                    continue
                while at < len(arrived) and arrived[at][1] < number:
                    at += 1
                if at == len(arrived):
                    break
                back = _back_before(history, stored)
                if back is None:
                    seconds = max(0.0, arrived[at][0] - stored)
                    late.append(Late(seconds, stored, replica.name))
                else:
                    found.append(max(0.0, arrived[at][0] - back))
    return late, found


def _was_gone(history: History, replica: str, stored: float, bounds: Bounds) -> bool:
    """Whether the replica was killed before it can have shown a change; or the database was."""
    killed = any(
        kill.replica == replica and kill.at <= stored + bounds.late_s and kill.back >= stored
        for kill in history.kills
    )
    return killed or any(away.down - bounds.late_s <= stored <= away.up for away in history.aways)


def _back_before(history: History, stored: float) -> float | None:
    """When the database was back, where that was shortly before a change."""
    backs = [one.up for one in history.aways if one.up <= stored <= one.up + FOUND_S]
    return max(backs, default=None)


def _horizon(history: History, sent: float, late_s: float) -> float:
    """A change stored until then must be in force for a request that is sent at *sent*."""
    horizon = sent - late_s
    for away in history.aways:
        if away.down <= sent <= away.up + FOUND_S + late_s:
            horizon = min(horizon, away.down - late_s)
    return horizon


def wrong_values(
    history: History, seen: list[Seen], outcomes: dict[str, Outcome], late_s: float
) -> tuple[list[str], int]:
    """Requests at a site with a value that was not in force; and how many had an older value
    because the database was away."""
    found, stale = [], 0
    known = {
        secret: {one.value: (number, one) for number, one in enumerate(changes)}
        for secret, changes in history.changes.items()
    }
    for one in seen:
        if one.value == NOTHING:
            continue
        outcome = outcomes[one.request]
        number, change = known[one.site].get(one.value, (-1, None))
        where = f"{one.request} at {one.site}"
        if outcome.secret != one.site or change is None:
            found.append(f"{where}: not a value of its own")
        elif change.stored is None and not change.unknown:
            found.append(f"{where}: a value that was never stored")
        else:
            changes = history.changes[one.site]
            least = _least(changes, _horizon(history, outcome.sent, late_s))
            if number < least:
                found.append(f"{where}: number {number}, and {least} is in force")
            stale += number < _least(changes, outcome.sent - late_s)
    return found, stale


def gone_back(
    history: History, seen: list[Seen], outcomes: dict[str, Outcome], way_of: dict[str, str]
) -> list[str]:
    """Requests with an older value than one that had come through the same replica before they
    were sent. However busy the machine is, this may not be."""
    found = []
    number_of = {c.value: i for some in history.changes.values() for i, c in enumerate(some)}
    newest: dict[tuple[str, str], list[tuple[float, int]]] = {}  # each newer than those before
    for one in sorted(seen, key=lambda one: one.at):
        number, way = number_of.get(one.value), way_of[one.request]
        if number is None or way == BALANCER:
            continue
        before = newest.setdefault((way, one.site), [])
        sent = outcomes[one.request].sent
        least = max((newer for at, newer in before if at < sent), default=-1)
        if number < least:
            found.append(f"{one.request} at {one.site}: number {number}, after {least}")
        if not before or number > before[-1][1]:
            before.append((one.at, number))
    return found


def _least(changes: list[Change], horizon: float) -> int:
    """The number of the newest change that was stored before *horizon*."""
    stored = (n for n, one in enumerate(changes) if one.stored is not None and one.stored < horizon)
    return max(stored, default=0)


# --- goals ---------------------------------------------------------------------------------------


def _of_values(
    stage: Stage,
    clients: dict[str, Client],
    outcomes: dict[str, Outcome],
    seen: list[Seen],
    way_of: dict[str, str],
    bounds: Bounds,
) -> Goals:
    wrong, stale = wrong_values(stage.history, seen, outcomes, bounds.late_s)
    back = gone_back(stage.history, seen, outcomes, way_of)
    leaks = [leak for client in clients.values() for leak in client.leaks]
    other = [what for client in clients.values() for what in client.wrong]
    strayed = [n for n, o in outcomes.items() if o.secret != o.site and not _is_kept(o)]
    return {
        "no wrong value at a site": (
            f"{_some(wrong)}; {stale} older ones while the database was away",
            not wrong,
        ),
        "no value goes back to an older one": (_some(back), not back),
        "no value at the client": (_some(leaks), not leaks),
        "no secret to the other site": (_some(strayed), not strayed),
        "every answer in full is right": (_some(other), not other),
    }


def _is_kept(outcome: Outcome) -> bool:
    return outcome.came in (*CLOSED_OR_403, "refused") or outcome.code == "store_unavailable"


def _of_refusals(
    history: History, outcomes: dict[str, Outcome], way_of: dict[str, str], bounds: Bounds
) -> Goals:
    stale_s = bounds.stale_s
    others, early, late, closed = [], [], [], []
    for number, one in outcomes.items():
        what = f"{number} through {way_of[number]}: {one.came} {one.code}".rstrip()
        own, honest = one.secret == one.site, one.way in HONEST
        if one.came in ("closed", "refused"):
            if not (honest or one.came == "refused"):
                continue
            if not _is_of_kill(history, one, way_of[number]):
                closed.append(what)
        elif one.code == "store_unavailable":
            if not _may_be_unavailable(history, one, bounds):
                early.append(what)
        elif one.code not in _documented(own, honest):
            others.append(what)
        elif own and one.came == "200" and _must_be_unavailable(history, one, bounds):
            late.append(what)
    unavailable = sum(one.code == "store_unavailable" for one in outcomes.values())
    return {
        "refusals only as documented": (_some(others), not others),
        f"store_unavailable only after {stale_s:g} s without the database": (
            f"{unavailable}; before, or once it was back for long: {_some(early)}",
            not early,
        ),
        "and then always": (f"let through: {_some(late)}", not late),
        "connections are closed by kills alone": (_some(closed), not closed),
    }


def _documented(own: bool, honest: bool) -> Iterable[str]:
    """The codes that a request may get; none is an answer of the site."""
    if not own:
        return ("domain_not_allowed",)
    return ("",) if honest else ("", "upstream_unreachable", "response_withheld")


def _is_of_kill(history: History, one: Outcome, way: str) -> bool:
    """Whether a replica was killed under the request; or was not there yet."""
    for kill in history.kills:
        until = kill.at if way == BALANCER else kill.back
        mine = kill.replica == way or (way == BALANCER and one.came == "closed")
        if mine and kill.at - 0.1 <= one.ended and one.sent <= until + KILLED_S:
            return True
    return False


def _may_be_unavailable(history: History, one: Outcome, bounds: Bounds) -> bool:
    return any(
        one.ended >= away.down + bounds.stale_s - POLL_S
        and one.sent <= away.up + FOUND_S + bounds.late_s
        for away in history.aways
    )


def _must_be_unavailable(history: History, one: Outcome, bounds: Bounds) -> bool:
    given_up_s = bounds.stale_s + GIVEN_UP_S
    return any(one.sent >= away.down + given_up_s and one.ended < away.up for away in history.aways)


def _of_accounts(
    outcomes: dict[str, Outcome],
    with_value: set[str],
    seen: list[Seen],
    records: list[tuple[set[str], list[str]]],
) -> Goals:
    """Clients, sites and records have to tell the same."""
    recorded = set().union(*(injected for injected, _ in records))
    gaps = [gap for _, gaps in records for gap in gaps]
    hang = [n for n, one in outcomes.items() if one.came in ("hangs", "nothing")]
    unseen = [n for n, one in outcomes.items() if one.came == "200" and n not in with_value]
    lost = [n for n in recorded - with_value if _should_have_arrived(outcomes[n])]
    missing = with_value - recorded
    # A kept connection to a site may be gone: then a GET is sent again, once (RFC 9110, 9.2.2).
    times = Counter(one.request for one in seen)
    twice = [n for n, many in times.items() if many > 1 + (outcomes[n].way in FAULTS)]
    return {
        "each request is answered or its connection closed": (_some(hang), not hang),
        "each answer comes from a site that saw the value": (_some(unseen), not unseen),
        "each injection is on record": (
            f"{len(missing)} of {len(with_value)} are not",
            not missing,
        ),
        "what is on record has arrived": (_some(lost), not lost),
        "no request arrives twice": (_some(twice), not twice),
        "no line of the records is missing": (_some(gaps), not gaps),
    }


def _should_have_arrived(one: Outcome) -> bool:
    return one.came == "200" and one.way not in FAULTS


def _spread(seconds: list[float]) -> str:
    if not seconds:
        return "none"
    ordered = sorted(seconds)
    middle, late = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
    return f"median {middle:.2f}, 99 % {late:.2f}, most {ordered[-1]:.2f}"


def _some(found: list[str]) -> str:
    return f"{len(found)}: {'; '.join(found[:3])}" if found else "none"
