"""The secrets whose values come from sources, as this worker has them now; in memory alone.

A value that a source had is kept: it is sent while the source answers, and for ``stale_s`` after
its last answer, and it is scrubbed for as long as the secret is declared, whatever the source does.
A value that no answer has brought yet is unknown, so what an allowed destination says cannot be
searched for it: opening it is an error, which refuses the requests that it is in scope of.

One lock: the threads of the feeds put in what they get, the worker takes out views.
"""

from __future__ import annotations

import hmac
import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from coatcheck.core.ports import StoreError
from coatcheck.core.secret import MAX_VALUE, SAFE_LENGTH, Secret, SecretValue
from coatcheck.sourcefile import Declared, SourceConfig, SourcesFile
from coatcheck.store.sources.port import HINTS, TAKEN_BACK, Failure, Fetched, SourceError

FIRST_PAUSE_S = 1.0  # after a failure; doubles
LONGEST_PAUSE_S = 60.0
STATES = ("current", "failing", "withheld", "unknown")

type Log = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Kept:
    """A value that was replaced."""

    secret: Secret
    value: SecretValue
    replaced_at: float


class Entry:
    """One declared secret, and what its source has said so far. Under the lock of `Sourced`.

    Attributes:
        due: On the monotonic clock: when it is asked for next.
        tried: The source was asked at least once.
    """

    def __init__(self, declared: Declared, secret: Secret, kept: tuple[Kept, ...] = ()) -> None:
        self.declared = declared
        self.secret = secret
        self.value: SecretValue | None = None
        self.kept = kept
        self.failure: Failure | None = None
        self.failures = 0
        self.due = 0.0
        self.answered = 0.0  # monotonic
        self.tried = False

    @property
    def source(self) -> SourceConfig:
        return self.declared.source


class SourcedView:
    """A `coatcheck.core.ports.StoreView` of the sourced secrets at one moment."""

    def __init__(
        self,
        revision: int,
        found: Mapping[str, tuple[Secret, SecretValue | None, str]],
        kept: Collection[Kept],
        horizon: Callable[[], float],
    ) -> None:
        """*found*: by name; the text says why there is no value."""
        self._revision = revision
        self._found = found
        self._kept = kept
        self._horizon = horizon
        self._secrets = tuple(found[name][0] for name in sorted(found))

    @property
    def revision(self) -> int:
        return self._revision

    def find(self, name: str) -> Secret | None:
        found = self._found.get(name)
        return found[0] if found is not None else None

    def secrets(self) -> Collection[Secret]:
        return self._secrets

    def open(self, secret: Secret) -> SecretValue:
        """See `coatcheck.core.ports.StoreView`."""
        now, value, why = self._found.get(secret.name, (None, None, "it is not declared any more"))
        if value is not None and _same(now, secret):
            return value
        for kept in self._kept:
            if _same(kept.secret, secret):
                return kept.value
        raise StoreError(f"secret {secret.name!r} has no value: {why}", hint=_HINT)

    def former(self) -> Collection[Secret]:
        """See `coatcheck.core.ports.StoreView`."""
        horizon = self._horizon()
        return [kept.secret for kept in self._kept if kept.replaced_at >= horizon]

    def without(self, names: Collection[str]) -> SourcedView:
        """The same, and of *names* nothing but what is to be scrubbed."""
        if not names:
            return self
        found = {name: one for name, one in self._found.items() if name not in names}
        values = (self._found[name] for name in names)
        gone = [Kept(one, value, math.inf) for one, value, _ in values if value is not None]
        return SourcedView(self._revision, found, [*self._kept, *gone], self._horizon)


_HINT = "see: coatcheck status"


def _same(one: Secret | None, other: Secret) -> bool:
    """Of one version, with the same domains: whoever decided by *other* decided by these."""
    if one is None or (one.id, one.name) != (other.id, other.name):
        return False
    return one.version == other.version and one.domains == other.domains


class Sourced:
    """See the module.

    Args:
        grace_s: How long a replaced value is still scrubbed.
        log: Called with an event and its fields.
        clock, monotonic: Seconds since the epoch; of the monotonic clock.
    """

    def __init__(
        self,
        *,
        grace_s: float,
        log: Log,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._grace_s = grace_s
        self._log = log
        self._clock = clock
        self.monotonic = monotonic
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._revision = 0
        self._tried = threading.Condition(self._lock)
        self._reads: Counter[tuple[str, ...]] = Counter()  # by kind and what came of it

    def __len__(self) -> int:
        return len(self._entries)

    # --- called by the worker ---------------------------------------------------------------

    def declare(self, file: SourcesFile) -> list[Entry]:
        """Take over what *file* declares; what has not changed keeps its value."""
        now = self._clock()
        with self._lock:
            entries = {one.name: self._entry(one, now) for one in file.secrets}
            self._entries = entries
            self._revision += 1
            self._tried.notify_all()
            return list(entries.values())

    def look(self) -> int:
        """The revision of now. A value whose source has been silent for too long counts it up."""
        now = self.monotonic()
        with self._lock:
            for entry in self._entries.values():
                why = _withheld(entry, now)
                if why != entry.secret.withheld:
                    entry.secret = replace(entry.secret, withheld=why)
                    self._revision += 1
            return self._revision

    def view(self) -> SourcedView:
        with self._lock:
            found = {
                name: (entry.secret, entry.value, _why(entry))
                for name, entry in self._entries.items()
            }
            kept = [kept for entry in self._entries.values() for kept in entry.kept]
            return SourcedView(self._revision, found, kept, self._horizon)

    def wait_tried(self, timeout_s: float) -> bool:
        """Until each secret was asked for once, at most *timeout_s*; whether each was."""
        with self._lock:
            return self._tried.wait_for(
                lambda: all(entry.tried for entry in self._entries.values()), timeout_s
            )

    def problems(self) -> list[str]:
        """What is wrong with which secret, in order of name. Texts of ours alone."""
        with self._lock:
            entries = sorted(self._entries.items())
            return [_problem(entry) for _, entry in entries if entry.failure is not None]

    def reads(self) -> Mapping[tuple[str, ...], float]:
        """How often values were asked for, by the source's kind and ``value``, ``failed`` or
        ``taken_back``."""
        with self._lock:
            return dict(self._reads)

    def states(self) -> Mapping[tuple[str, ...], float]:
        """How many secrets there are by the source's kind and `_state`; each state has a number."""
        with self._lock:
            kinds = {entry.source.kind for entry in self._entries.values()}
            found: dict[tuple[str, ...], float] = {}
            for kind, state in itertools.product(kinds, STATES):
                found[kind, state] = 0
            for entry in self._entries.values():
                found[entry.source.kind, _state(entry)] += 1
            return found

    def answered(self) -> Mapping[str, float]:
        """By the source's kind: when that value was given last, in seconds since the epoch, which
        was given longest ago."""
        now, monotonic = self._clock(), self.monotonic()
        found: dict[str, float] = {}
        with self._lock:
            for entry in self._entries.values():
                if entry.value is not None:
                    kind, at = entry.source.kind, now - (monotonic - entry.answered)
                    found[kind] = min(at, found.get(kind, at))
        return found

    # --- called by the feeds ----------------------------------------------------------------

    def take(self, entry: Entry, fetched: Fetched) -> None:
        """What the source of *entry* has now.

        Raises:
            SourceError: no secret can have this value.
        """
        value = _checked(entry.declared, fetched)
        with self._lock:
            self._reads[entry.source.kind, "value"] += 1
            if not self._is_current(entry):
                return
            changed = entry.value is None or not hmac.compare_digest(entry.value.reveal(), value)
            if changed:
                self._replace(entry, value, fetched.version)
            version = entry.secret.version
            recovered = entry.failure is not None
            if recovered:
                entry.secret = replace(entry.secret, withheld="")
                self._revision += 1
            entry.failure, entry.failures = None, 0
            entry.answered = self.monotonic()
            self._tried_now(entry)
        names = {"name": entry.declared.name, "source": entry.source.name}
        if changed:
            self._log("source.changed", **names, version=version)
        if recovered:
            self._log("source.recovered", **names)

    def fail(self, entry: Entry, failure: Failure) -> None:
        """The source of *entry* has no value to give now."""
        with self._lock:
            result = "taken_back" if failure in TAKEN_BACK else "failed"
            self._reads[entry.source.kind, result] += 1
            if not self._is_current(entry):
                return
            told = entry.failure is failure
            entry.failure = failure
            entry.failures += 1
            self._tried_now(entry)
            if not told:
                self._revision += 1
        if not told:
            self._log(
                "source.failed",
                name=entry.declared.name,
                source=entry.source.name,
                error=f"{failure.value}; {HINTS[failure]}",
            )

    # --- inside -----------------------------------------------------------------------------

    def _entry(self, declared: Declared, now: float) -> Entry:
        old = self._entries.get(declared.name)
        if old is None:
            return Entry(declared, declared.secret(now))
        secret = replace(
            old.secret, domains=declared.domains, description=declared.description, withheld=""
        )
        if _asks_the_same(old.declared, declared) and declared.domains == old.secret.domains:
            old.declared = declared
            old.secret = replace(secret, withheld=old.secret.withheld)
            return old
        # Another place, or other domains: what was sent before is scrubbed for a while as it was.
        kept = self._kept(old, now)
        secret = replace(secret, version=secret.version + 1, updated_at=now)
        entry = Entry(declared, secret, kept)
        if _asks_the_same(old.declared, declared) and old.value is not None:
            entry.value = SecretValue(declared.name, secret.version, old.value.reveal())
            entry.answered, entry.tried = old.answered, old.tried
        return entry

    def _replace(self, entry: Entry, value: bytes, count: int | None) -> None:
        """Put *value* in force as a new version."""
        now = self._clock()
        version = entry.secret.version + (entry.value is not None)
        # The source's own count where it goes on from ours: it is what people know it by.
        version = max(version, count or 0)
        entry.kept = self._kept(entry, now)
        entry.secret = replace(entry.secret, version=version, updated_at=now)
        entry.value = SecretValue(entry.declared.name, version, value)
        self._revision += 1

    def _kept(self, entry: Entry, now: float) -> tuple[Kept, ...]:
        """What of *entry* is to be scrubbed, once its value is another one."""
        horizon = now - self._grace_s
        kept = tuple(one for one in entry.kept if one.replaced_at >= horizon)
        if entry.value is None:
            return kept
        return (*kept, Kept(replace(entry.secret, withheld=""), entry.value, now))

    def _is_current(self, entry: Entry) -> bool:
        return self._entries.get(entry.declared.name) is entry

    def _tried_now(self, entry: Entry) -> None:
        entry.tried = True
        self._tried.notify_all()

    def _horizon(self) -> float:
        return self._clock() - self._grace_s


def pause_s(entry: Entry) -> float:
    """How long until *entry* is asked for again."""
    if not entry.failures:
        return entry.source.refresh_s
    backing_off = FIRST_PAUSE_S * 2.0 ** min(entry.failures - 1, 10)
    return min(backing_off, LONGEST_PAUSE_S, max(entry.source.refresh_s, FIRST_PAUSE_S))


def _asks_the_same(one: Declared, other: Declared) -> bool:
    return _question(one) == _question(other)


def _question(one: Declared) -> tuple[object, ...]:
    source = one.source
    return source.kind, source.options, one.where, one.keep_newline, one.allow_short


def _withheld(entry: Entry, now: float) -> str:
    """Why the value is not sent any longer; nothing, while it is."""
    if entry.failure is None or entry.value is None:
        return ""
    if entry.failure in TAKEN_BACK:
        return _problem(entry)
    if now - entry.answered > entry.source.stale_s:
        return f"{_problem(entry)}; for longer than stale_s"
    return ""


def _state(entry: Entry) -> str:
    if entry.value is None:
        return "unknown"
    if entry.secret.withheld:
        return "withheld"
    return "current" if entry.failure is None else "failing"


def _why(entry: Entry) -> str:
    if entry.failure is None:
        return f"its source {entry.source.name!r} was not asked yet"
    return _problem(entry)


def _problem(entry: Entry) -> str:
    failure = entry.failure
    words = f"{failure.value}; {HINTS[failure]}" if failure is not None else ""
    return f"{entry.declared.name}: its source {entry.source.name!r} {words}"


def _checked(declared: Declared, fetched: Fetched) -> bytes:
    """The value as it is sent.

    Raises:
        SourceError: no secret can have it.
    """
    value = fetched.value
    if fetched.is_text and not declared.keep_newline and value.endswith(b"\n"):
        value = value[:-2] if value.endswith(b"\r\n") else value[:-1]
    if not value:
        raise SourceError(Failure.EMPTY)
    if len(value) > MAX_VALUE:
        raise SourceError(Failure.TOO_LARGE)
    if len(value) < SAFE_LENGTH and not declared.allow_short:
        raise SourceError(Failure.TOO_SHORT)
    return value
