"""What happened, as numbers that only grow: plain dictionaries and lists, for one process.

A whole request costs some 400 µs, so counting it must cost next to nothing: a look-up in a
dictionary, and for a time a bisection. Names, texts and formats are `observe.metrics`'s affair.

A label is never text of a client. Fixed words go in as they are; names out of the policy and the
store too, but they are as many as somebody configures, so each tally has a bound: what comes after
it is counted under `OTHER`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

OTHER = "other"
MOST = 1000  # series of one tally; beyond it names become `OTHER`

type Labels = tuple[str, ...]
type Clock = Callable[[], float]  # seconds, only ever forward

# Upper bounds in seconds. What we add ourselves is below a millisecond; upstreams are not.
OWN_S = (25e-6, 50e-6, 1e-4, 2e-4, 4e-4, 8e-4, 0.0016, 0.0032, 0.01, 0.05, 0.25, 1.0)
UPSTREAM_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Tally:
    """Counts by labels.

    Args:
        labels: How many a series has.
        named: The positions of those that hold names which somebody configures.
    """

    __slots__ = ("_named", "labels", "values")

    def __init__(self, labels: int = 0, *, named: Sequence[int] = ()) -> None:
        self.labels = labels
        self.values: dict[Labels, float] = {}
        self._named = frozenset(named)

    def add(self, key: Labels = (), by: float = 1) -> None:
        try:
            self.values[key] += by
        except KeyError:
            if len(self.values) >= MOST:
                key = tuple(OTHER if at in self._named else word for at, word in enumerate(key))
            self.values[key] = self.values.get(key, 0) + by


class Spread:
    """How long something took: a count for each bound, and the sum.

    Attributes:
        counts: ``counts[i]`` of those at or below ``bounds[i]`` and above the one before; the last
            of those above all.
        sum: In seconds.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


class Meter:
    """All that is counted where requests pass. `observe.metrics.FAMILIES` explains each.

    Args:
        clock: What times are taken with; it has to tell microseconds apart.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.tallies: Mapping[str, Tally] = {
            "requests": Tally(3, named=(0,)),
            "injections": Tally(2, named=(0,)),
            "refusals": Tally(2),
            "scrubs": Tally(3, named=(0,)),
            "reports": Tally(2, named=(0,)),
            "client_connections": Tally(1),
            "client_handshakes": Tally(1),
            "upstream_connections": Tally(1),
            "upstream_requests": Tally(1),
            "audit_errors": Tally(),
        }
        self.spreads: Mapping[str, Spread] = {
            "added": Spread(OWN_S),
            "audit_write": Spread(OWN_S),
            "upstream_connect": Spread(UPSTREAM_S),
            "upstream_response": Spread(UPSTREAM_S),
        }
        # Once looked up, for those who count at each request.
        self.requests = self.tallies["requests"]
        self.injections = self.tallies["injections"]
        self.refusals = self.tallies["refusals"]
        self.scrubs = self.tallies["scrubs"]
        self.reports = self.tallies["reports"]
        self.client_connections = self.tallies["client_connections"]
        self.client_handshakes = self.tallies["client_handshakes"]
        self.upstream_connections = self.tallies["upstream_connections"]
        self.upstream_requests = self.tallies["upstream_requests"]
        self.audit_errors = self.tallies["audit_errors"]
        self.added = self.spreads["added"]
        self.audit_write = self.spreads["audit_write"]
        self.upstream_connect = self.spreads["upstream_connect"]
        self.upstream_response = self.spreads["upstream_response"]
