"""What an audit line says: who, where, which secrets at which places, and the answer.

Names, places and codes only. A record is built from an explicit list of fields, so a new field
in some other type can never slip into the log. Text that a client chose is cleaned of values (a
program that was moved behind the proxy may still have a real token in a URL), and only then cut
to a length, for the cut could go through a value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from coatcheck.core.destination import Destination
from coatcheck.core.limits import Limits
from coatcheck.core.problems import Problem
from coatcheck.core.redact import Hit

type Record = Mapping[str, object]
type Clean = Callable[[str], str]  # takes values out of a text


def _as_it_is(text: str) -> str:
    return text


class Facts(NamedTuple):
    """What all lines of one request have in common.

    Attributes:
        path: As it came, without the query.
        field_chars: What is left of a text that came from a client.
    """

    request_id: str
    client: str
    address: str
    destination: Destination | None = None
    method: str = ""
    path: str = ""
    field_chars: int = Limits().audit_field_chars


@dataclass(frozen=True, slots=True)
class Use:
    """One value put into one place."""

    name: str
    version: int
    location: str


def allowed(now: float, facts: Facts, uses: Sequence[Use], clean: Clean = _as_it_is) -> Record:
    """A request is about to leave, with *uses* filled in."""
    return _line(now, "request", facts, clean, decision="allow", secrets=_uses(uses, facts, clean))


def injected(now: float, facts: Facts, uses: Sequence[Use], clean: Clean = _as_it_is) -> Record:
    """Values are about to leave in the body of a request that is already under way."""
    return _line(
        now, "injection", facts, clean, decision="allow", secrets=_uses(uses, facts, clean)
    )


def refused(
    now: float,
    facts: Facts,
    problem: Problem,
    clean: Clean = _as_it_is,
    *,
    let_go: bool = False,
) -> Record:
    """A request or a response was stopped.

    Args:
        let_go: The request had left before, or the handshake of the WebSocket.
    """
    named = {
        "secret": problem.secret,
        "location": problem.location,
        "operator": problem.operator,
    }
    extra: dict[str, object] = {
        key: _cut(clean(text), facts) for key, text in named.items() if text
    }
    if let_go:
        extra["let_go"] = True
    return _line(now, "request", facts, clean, decision="refuse", code=str(problem.code), **extra)


def reported(now: float, facts: Facts, problem: Problem, clean: Clean = _as_it_is) -> Record:
    """What would have been refused goes on, for the policy only reports it."""
    named = {"secret": problem.secret, "location": problem.location, "operator": problem.operator}
    extra = {key: _cut(clean(text), facts) for key, text in named.items() if text}
    return _line(now, "request", facts, clean, decision="report", code=str(problem.code), **extra)


def scrubbed(
    now: float,
    facts: Facts,
    status: int,
    found: Mapping[str, Counter[Hit]],
    clean: Clean = _as_it_is,
) -> Record:
    """Values were taken out of a response: *found* by its channels."""
    hits = [
        {
            "name": _cut(hit.secret, facts),
            "spelling": hit.spelling,
            "channel": channel,
            "count": count,
        }
        for channel, counter in found.items()
        for hit, count in sorted(counter.items(), key=str)
    ]
    return _line(now, "response", facts, clean, decision="scrub", status=status, scrubbed=hits)


def _line(now: float, event: str, facts: Facts, clean: Clean, **more: object) -> Record:
    record: dict[str, object] = {
        "time": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
        "event": event,
        "request_id": facts.request_id,
        "client": facts.client,
        "address": facts.address,
    }
    if facts.destination is not None:
        record["scheme"] = facts.destination.scheme
        record["host"] = facts.destination.host
        record["port"] = facts.destination.port
    if facts.method:
        record["method"] = _cut(clean(facts.method), facts)
        record["path"] = _cut(clean(facts.path), facts)
    record.update(more)
    return record


def _uses(uses: Sequence[Use], facts: Facts, clean: Clean) -> list[dict[str, object]]:
    return [
        {"name": use.name, "version": use.version, "location": _cut(clean(use.location), facts)}
        for use in uses
    ]


def _cut(text: str, facts: Facts) -> str:
    return text if len(text) <= facts.field_chars else text[: facts.field_chars] + "…"
