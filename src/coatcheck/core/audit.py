"""What an audit line says: who, where, which secrets at which places, and the answer.

Names, places and codes only. A record is built from an explicit list of fields, so a new field
in some other type can never slip into the log. Text that a client chose is cut to a length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from coatcheck.core.destination import Destination
from coatcheck.core.problems import Problem
from coatcheck.core.redact import Hit

CLIENT_TEXT = frozenset({"method", "path", "secret", "location"})
MAX_TEXT = 512  # characters of any text that came from a client

type Record = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Facts:
    """What all lines of one request have in common. ``path`` is as it came, without the query."""

    request_id: str
    client: str
    address: str
    destination: Destination | None = None
    method: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Use:
    """One value put into one place."""

    name: str
    version: int
    location: str


def allowed(now: float, facts: Facts, uses: Sequence[Use]) -> Record:
    """A request is about to leave, with *uses* filled in."""
    return _line(now, "request", facts, decision="allow", secrets=_uses(uses))


def injected(now: float, facts: Facts, uses: Sequence[Use]) -> Record:
    """Values are about to leave in the body of a request that is already under way."""
    return _line(now, "injection", facts, decision="allow", secrets=_uses(uses))


def refused(now: float, facts: Facts, problem: Problem) -> Record:
    """A request or a response was stopped."""
    named = {
        "secret": problem.secret,
        "location": problem.location,
        "operator": problem.operator,
    }
    extra = {key: _cut(text) for key, text in named.items() if text}
    return _line(now, "request", facts, decision="refuse", code=str(problem.code), **extra)


def scrubbed(
    now: float, facts: Facts, status: int, head: Counter[Hit], body: Counter[Hit]
) -> Record:
    """Values were taken out of a response."""
    hits = [
        {"name": _cut(hit.secret), "spelling": hit.spelling, "channel": channel, "count": count}
        for channel, counter in (("head", head), ("body", body))
        for hit, count in sorted(counter.items(), key=str)
    ]
    return _line(now, "response", facts, decision="scrub", status=status, scrubbed=hits)


def masked(record: Record, clean: Callable[[str], str]) -> Record:
    """*record* with *clean* run over every text that the client has chosen.

    A program that was moved behind the proxy may still have a real token in a URL.
    """
    copy = {key: clean(str(v)) if key in CLIENT_TEXT else v for key, v in record.items()}
    uses = record.get("secrets")
    if isinstance(uses, list):
        copy["secrets"] = [{**use, "location": clean(use["location"])} for use in uses]
    return copy


def _line(now: float, event: str, facts: Facts, **more: object) -> Record:
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
        record["method"] = _cut(facts.method)
        record["path"] = _cut(facts.path)
    record.update(more)
    return record


def _uses(uses: Sequence[Use]) -> list[dict[str, object]]:
    return [
        {"name": use.name, "version": use.version, "location": _cut(use.location)} for use in uses
    ]


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"
