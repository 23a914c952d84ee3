"""The arithmetic: medians, ratios, and the goals of the design.

A shared machine is faster in one second than in the next. So contenders take turns, and a ratio is
the median of the ratios of neighbours, not the ratio of two medians.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank; NaN of nothing."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@dataclass
class Results:
    """What was measured: case, contender, figure, and a value for each round.

    A figure that a contender does not have in a round (the CPU time of no proxy) is NaN there.
    """

    values: dict[tuple[str, str], dict[str, list[float]]] = field(default_factory=dict)
    errors: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)

    def add(self, case: str, contender: str, figures: Mapping[str, float]) -> None:
        kept = self.values.setdefault((case, contender), {})
        for name, value in figures.items():
            kept.setdefault(name, []).append(value)

    def add_errors(self, case: str, contender: str, errors: Mapping[str, int]) -> None:
        kept = self.errors.setdefault((case, contender), {})
        for text, count in errors.items():
            if count:
                kept[text] = kept.get(text, 0) + count

    def rounds(self, case: str, contender: str, figure: str) -> list[float]:
        return self.values.get((case, contender), {}).get(figure, [])

    def median(self, case: str, contender: str, figure: str) -> float:
        """Of the rounds that have it; NaN where none has."""
        known = [v for v in self.rounds(case, contender, figure) if not math.isnan(v)]
        return statistics.median(known) if known else math.nan

    def ratio(self, case: str, contender: str, base: str, figure: str, of: str = "") -> float:
        """*contender* to *base*, round by round; to that of the case *of*, where one is given."""
        own = self.rounds(case, contender, figure)
        others = self.rounds(of or case, base, figure)
        pairs = [a / b for a, b in zip(own, others, strict=False) if a == a and b == b and b > 0]
        return statistics.median(pairs) if pairs else math.nan

    def wrong(self) -> int:
        return sum(sum(errors.values()) for errors in self.errors.values())


@dataclass(frozen=True)
class Goal:
    """A figure that is to be reached.

    Attributes:
        bound: At most this, or at least, where *at_least*.
        aim: What is hoped for.
        note: What a reader must know beside it.
    """

    name: str
    value: float
    bound: float
    unit: str = ""
    at_least: bool = False
    aim: float | None = None
    note: str = ""

    @property
    def state(self) -> str:
        if math.isnan(self.value):
            return "not measured"
        met = self.value >= self.bound if self.at_least else self.value <= self.bound
        return "met" if met else "missed"

    @property
    def wanted(self) -> str:
        sign = "at least" if self.at_least else "at most"
        aim = "" if self.aim is None else f", aim {self.aim:g}"
        return f"{sign} {self.bound:g}{self.unit}{aim}"


def goals(results: Results, cores: int) -> list[Goal]:
    r = results
    cpu = "cpu_s_per_1000"
    return [
        Goal(
            "HTTPS, 16 connections kept: CPU per request, against stock",
            r.ratio("keep-16", "coatcheck", "stock", cpu),
            0.18,
            aim=0.12,
        ),
        Goal(
            "a new HTTPS connection for each request: CPU, against stock",
            r.ratio("new", "coatcheck", "stock", cpu),
            0.3,
            aim=0.2,
        ),
        *(
            Goal(
                f"scrubbed download of {kind}: MB for each CPU-second",
                r.median(f"down-{kind}", "coatcheck", "mb_per_cpu_s"),
                450,
                at_least=True,
                aim=800,
                note=_floor(r, f"down-{kind}"),
            )
            for kind in ("text", "random")
        ),
        *(
            Goal(
                f"scrubbed download of {kind}: CPU, against one that is not searched",
                r.ratio(f"down-{kind}", "coatcheck", "not-searched", "cpu_s_per_gib"),
                1.3,
            )
            for kind in ("text", "random")
        ),
        Goal(
            "scrubbed download with 10,000 secrets: CPU, against one that is not searched",
            r.ratio("down-text", "secrets-10000", "not-searched", "cpu_s_per_gib"),
            1.4,
        ),
        Goal(
            "10,000 secrets: CPU per request, against 10",
            r.ratio("secrets", "secrets-10000", "coatcheck", cpu),
            1.05,
        ),
        Goal(
            "two workers: requests/s, against one",
            r.ratio("keep-16", "workers-2", "coatcheck", "per_s"),
            1.6,
            at_least=True,
            note=_allowed(r, cores),
        ),
        Goal(
            "two workers: requests/s, against one, each held to a part of a core",
            r.ratio("workers", "held-2", "held-1", "per_s"),
            1.6,
            at_least=True,
        ),
        *(
            Goal(
                f"long transfer {words}: peak memory over idle",
                r.median("gib", "coatcheck", f"{kind}_over_idle_mib"),
                32,
                " MiB",
            )
            for kind, words in (("down", "down, scrubbed"), ("text", "up, text"), ("random", "up"))
        ),
        Goal(
            "time to the first event, over the direct one",
            r.median("events", "coatcheck", "over_direct_ms"),
            2,
            " ms",
        ),
        Goal(
            "events/s, against a stream that is not searched",
            r.ratio("events", "coatcheck", "not-searched", "events_per_s"),
            0.9,
            at_least=True,
        ),
        Goal(
            "start until ready, 10,000 secrets",
            r.median("life", "secrets-10000", "start_s"),
            3,
            " s",
        ),
        Goal("answers that are wrong or missing", float(r.wrong()), 0),
    ]


def _floor(results: Results, case: str) -> str:
    """What TLS alone takes on this machine, at this hour."""
    bare = results.median(case, "relay", "mb_per_cpu_s")
    return "" if math.isnan(bare) else f"a bare relay: {bare:.0f}"


def _allowed(results: Results, cores: int) -> str:
    """What the cores leave to two workers, once client and upstream have had theirs."""
    ends = results.median("keep-16", "coatcheck", "ends_s_per_1000")
    own = results.median("keep-16", "coatcheck", "cpu_s_per_1000")
    return (
        "" if math.isnan(ends + own) else f"{cores} cores allow {two_allowed(own, ends, cores):.2f}"
    )


def two_allowed(own: float, ends: float, cores: int) -> float:
    """Twice the throughput of one worker, or what *cores* can do of proxy and both ends.

    One worker is busy all the time: 1/own. All cores together: cores/(own + ends).
    """
    one = min(1 / own, cores / (own + ends))
    return min(2 / own, cores / (own + ends)) / one
