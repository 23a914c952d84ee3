"""What has happened: the audit files of all workers and of this side, read from their ends.

The files are the log; nothing is indexed beside them. A question reads backwards, the newest line
first, through at most `SCANNED` lines, and says so where it stopped before the end.
"""

from __future__ import annotations

import base64
import binascii
import heapq
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from coatcheck.admin.problems import invalid
from coatcheck.admin.roles import Actor, Role
from coatcheck.observe.auditchain import OWN_EVENTS
from coatcheck.observe.auditfiles import PATTERN

SCANNED = 200_000  # lines, of one question
CHUNK = 256 * 1024  # bytes
LINE = 1024 * 1024  # bytes; a longer line is none of ours
KEPT_S = 5.0  # a summary
MANAGED = frozenset({"admin", "management"})  # who changed what: here, and by commands
MAX_PAGE = 1000

type Record = Mapping[str, Any]
type Key = tuple[str, int, int]  # time, worker, number of the line: unique, in order of time


@dataclass(frozen=True, slots=True)
class Filter:
    """Which lines are asked for; empty fields ask for nothing.

    Attributes:
        since, until: The first moment that is meant, and the first that is not.
        traffic: Only what clients did, not who managed what.
    """

    since: datetime | None = None
    until: datetime | None = None
    client: str = ""
    secret: str = ""
    code: str = ""
    decision: str = ""
    event: str = ""
    host: str = ""
    traffic: bool = False

    def takes(self, record: Record) -> bool:
        exact = (
            ("client", self.client),
            ("code", self.code),
            ("decision", self.decision),
            ("host", self.host),
        )
        if any(wanted and record.get(name) != wanted for name, wanted in exact):
            return False
        event = record.get("event")
        wanted = MANAGED if self.event in MANAGED else {self.event}  # wherever it was done
        if self.event and event not in wanted:
            return False
        if self.traffic and event in MANAGED:
            return False
        return not self.secret or self.secret in names_in(record)


@dataclass(frozen=True, slots=True)
class Found:
    """Lines, the newest first.

    Attributes:
        next: What to ask with for those that follow; empty: there are none.
    """

    items: list[Record]
    next: str


@dataclass(slots=True)
class Hour:
    """What happened in an hour that begins at *start*."""

    start: datetime
    injections: int = 0
    refusals: int = 0
    scrubs: int = 0


@dataclass(slots=True)
class Spark:
    """Uses and refusals of one secret, an entry for each hour, the oldest first."""

    uses: list[int] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Summary:
    """The last hours, the oldest first; by secret too.

    Attributes:
        complete: Whether every line of that time was read.
    """

    hours: list[Hour]
    by_secret: Mapping[str, Spark]
    complete: bool


class Activity:
    """The audit log, for those who may see lists."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: tuple[float, int, Summary] | None = None

    def query(self, actor: Actor, wanted: Filter, *, limit: int = 100, cursor: str = "") -> Found:
        """Lines that *wanted* takes, the newest first.

        Args:
            cursor: The `Found.next` of the page before.

        Raises:
            ApiProblem: the cursor is none.
        """
        actor.require(Role.VIEWER)
        before = _read_cursor(cursor) if cursor else None
        items: list[Record] = []
        last: Key | None = None
        for scanned, record in enumerate(self._newest(wanted, before)):
            key = key_of(record)
            if len(items) == min(limit, MAX_PAGE) or scanned == SCANNED:
                return Found(items, _write_cursor(last or key))
            last = key
            if wanted.takes(record):
                items.append(record)
        return Found(items, "")

    def all(self, actor: Actor, wanted: Filter) -> Iterator[Record]:
        """Every line that *wanted* takes, the newest first; for an export."""
        actor.require(Role.VIEWER)
        return (record for record in self._newest(wanted) if wanted.takes(record))

    def last(self, actor: Actor, wanted: Filter) -> Record | None:
        """The newest line that *wanted* takes."""
        found = self.query(actor, wanted, limit=1).items
        return found[0] if found else None

    def summary(self, actor: Actor, hours: int = 24) -> Summary:
        """What happened in each of the last *hours*, up to a week."""
        actor.require(Role.VIEWER)
        with self._lock:
            now = self._clock()
            kept = self._kept
            if kept is None or kept[1] != hours or not 0 <= now - kept[0] < KEPT_S:
                kept = self._kept = (now, hours, self._summed(now, hours))
            return kept[2]

    def _summed(self, now: float, hours: int) -> Summary:
        this = datetime.fromtimestamp(now, UTC).replace(minute=0, second=0, microsecond=0)
        first = this - timedelta(hours=hours - 1)
        told = [Hour(first + timedelta(hours=index)) for index in range(hours)]
        sparks: dict[str, Spark] = {}
        for scanned, record in enumerate(self._newest(Filter(since=first))):
            if scanned == SCANNED:
                return Summary(told, sparks, complete=False)
            try:
                at = datetime.fromisoformat(record["time"])
            except ValueError:
                continue
            index = int((at - first).total_seconds() // 3600)
            if 0 <= index < hours:
                _count(record, index, told, sparks)
        return Summary(told, sparks, complete=True)

    def _newest(self, wanted: Filter, before: Key | None = None) -> Iterator[Record]:
        """Every line of the time that *wanted* asks for, of all files, the newest first."""
        since = _stamp(wanted.since, "since") if wanted.since else ""
        until = _stamp(wanted.until, "until") if wanted.until else "~"
        files = [_backwards(path) for path in sorted(self._folder.glob(PATTERN))]
        for record in heapq.merge(*files, key=key_of, reverse=True):
            key = key_of(record)
            if key[0] < since:
                return
            if record.get("event") in OWN_EVENTS:
                continue
            if key[0] < until and (before is None or key < before):
                yield record


def names_in(record: Record) -> set[str]:
    """The secrets that a line names."""
    names = {str(record["secret"])} if "secret" in record else set()
    for listed in ("secrets", "scrubbed"):
        entries = record.get(listed)
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and "name" in entry:
                names.add(str(entry["name"]))
    return names


def _count(record: Record, index: int, told: list[Hour], sparks: dict[str, Spark]) -> None:
    decision = record.get("decision")
    if record.get("event") in MANAGED:
        return
    if decision == "refuse":
        told[index].refusals += 1
    elif decision == "scrub":
        told[index].scrubs += 1
    elif decision == "allow" and record.get("secrets"):
        told[index].injections += 1
    else:
        return
    for name in names_in(record) if decision != "scrub" else ():
        spark = sparks.setdefault(name, Spark([0] * len(told), [0] * len(told)))
        (spark.refusals if decision == "refuse" else spark.uses)[index] += 1


def _backwards(path: Path) -> Iterator[Record]:
    """The lines of a file from its end; what is no whole line of ours is passed over."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        at, rest = os.fstat(file).st_size, b""
        while at > 0:
            start = max(0, at - CHUNK)
            lines = (os.pread(file, at - start, start) + rest).split(b"\n")
            at = start
            rest = lines.pop(0) if start else b""
            if len(rest) > LINE:
                rest = b""
            for line in reversed(lines):
                if (record := _record(line)) is not None:
                    yield record
    except OSError:
        return
    finally:
        os.close(file)


def _record(line: bytes) -> Record | None:
    try:
        record = json.loads(line) if line else None
    except ValueError:
        return None
    if not isinstance(record, dict) or not isinstance(record.get("time"), str):
        return None
    return record


def key_of(record: Record) -> Key:
    """What tells a line from all others, and puts them in order."""
    worker, sequence = record.get("worker"), record.get("sequence")
    return (
        record["time"],
        worker if isinstance(worker, int) else 0,
        sequence if isinstance(sequence, int) else 0,
    )


def _stamp(at: datetime, parameter: str) -> str:
    """As the lines have it, so that texts compare as times do."""
    try:
        return at.astimezone(UTC).isoformat(timespec="milliseconds")
    except OverflowError:
        hint = "write a year from 2 to 9998"  # in UTC it may be another one
        raise invalid(f"query.{parameter}", "is no time that there is", hint) from None


def _write_cursor(key: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def _read_cursor(text: str) -> Key:
    try:
        time_, worker, sequence = json.loads(
            base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        )
    except (binascii.Error, ValueError, TypeError):
        raise invalid("query.cursor", "is none", "use the next of the page before") from None
    if not isinstance(time_, str) or not isinstance(worker, int) or not isinstance(sequence, int):
        raise invalid("query.cursor", "is none", "use the next of the page before")
    return time_, worker, sequence
