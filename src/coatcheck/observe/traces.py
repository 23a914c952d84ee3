"""Spans for OpenTelemetry: one for each request, exported over HTTP by a thread of its own.

What passes requests hands over a record and goes on; a record that finds the queue full is dropped
and counted. All the rest is here: names, identifiers, the library, the network. The library's
tracer is not used, since a span of its costs some twenty times what handing over does, and keeps
context that nobody here needs; its exporter and its format are.

The exporter goes straight to the collector: no proxy of the environment, so not through this one
either, and no redirect. A net lies under it, as under the log: what holds a value is `other`.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coatcheck import __version__
from coatcheck.core.meter import OTHER, Labels
from coatcheck.core.ports import CoatcheckError
from coatcheck.core.secret import SecretValue
from coatcheck.core.snapshot import Snapshot
from coatcheck.core.tracing import OK, Ended, KnownHosts, Parent, read_parent
from coatcheck.observe import logs
from coatcheck.observe.counted import METHODS, UNKNOWN

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

EVERY_S = 1.0
BATCH = 512
TIMEOUT_S = 5.0  # for one batch, with the tries of the library
LEAVE_S = 2.0  # what the end of a process waits for the last batch
_NS = 1_000_000_000
_METHODS = frozenset(METHODS)


class Spans:
    """See `core.tracing.Traces`, and the module."""

    def __init__(
        self,
        exporter: SpanExporter,
        opened: Callable[[], Collection[SecretValue]],
        *,
        queue: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """
        Args:
            opened: Gives the values that must not be shown.
            queue: How many records wait at the most.
            clock: The one of `Ended.began`.
        """
        self._exporter = exporter
        self._net = logs.Net(opened)
        self._most = queue
        self._clock = clock
        self._waiting: deque[Ended] = deque()
        self._hosts: tuple[Snapshot, KnownHosts] | None = None
        self._resource = _resource()
        self._stop = threading.Event()
        self._failing = False
        # Each is written by one thread alone.
        self._dropped = self._exported = self._failed = 0
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def ended(self, request: Ended, /) -> None:
        """Take *request*, or drop it where too many wait."""
        if len(self._waiting) >= self._most:
            self._dropped += 1
        else:
            self._waiting.append(request)

    def counts(self) -> dict[Labels, float]:
        """What has become of them, by a word."""
        return {
            ("exported",): self._exported,
            ("failed",): self._failed,
            ("dropped",): self._dropped,
        }

    def close(self) -> None:
        """Export what waits, as far as that takes no longer than `LEAVE_S`."""
        self._stop.set()
        self._thread.join(LEAVE_S)
        self._exporter.shutdown()

    # --- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._export()
        self._export()

    def _export(self) -> None:
        """All that waits now, in batches."""
        for _ in range(self._most // BATCH + 1):
            batch = list(self._batch())
            if not batch:
                return
            try:
                spans = [span for one in batch if (span := self._span(one)) is not None]
                done = not spans or self._exporter.export(spans).value == 0
            except Exception:  # the words of a library may hold anything
                spans, done = [], False
            self._count(len(spans) if done else len(batch), done=done)

    def _batch(self) -> Iterator[Ended]:
        for _ in range(min(BATCH, len(self._waiting))):
            yield self._waiting.popleft()

    def _count(self, number: int, *, done: bool) -> None:
        if done:
            self._exported += number
        else:
            self._failed += number
            if not self._failing:
                logs.event("traces.not_exported", next="look at traces_endpoint and the collector")
        self._failing = not done

    def _span(self, one: Ended) -> ReadableSpan | None:
        """None: the client says that its trace is not recorded."""
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        parent = self._parent(one.parent)
        if parent is not None and not parent.sampled:
            return None
        flags = TraceFlags(TraceFlags.SAMPLED)
        trace = int(parent.trace, 16) if parent else _random(128)
        above = None
        if parent is not None:
            above = SpanContext(trace, int(parent.span, 16), is_remote=True, trace_flags=flags)
        method = one.method if one.method in _METHODS else (OTHER if one.method else UNKNOWN)
        began = time.time() - (self._clock() - one.began)
        return ReadableSpan(
            name=method,
            context=SpanContext(trace, _random(64), is_remote=False, trace_flags=flags),
            parent=above,
            resource=self._resource,
            attributes=self._attributes(one, method),
            kind=SpanKind.SERVER,
            status=Status(StatusCode.UNSET if one.outcome == OK else StatusCode.ERROR),
            start_time=int(began * _NS),
            end_time=int((began + one.lasted_s) * _NS),
        )

    def _parent(self, value: bytes) -> Parent | None:
        parent = read_parent(value)
        # A program may have put a key there that looks like one.
        return parent if parent is not None and self._is_clean(value) else None

    def _attributes(self, one: Ended, method: str) -> dict[str, Any]:
        told: dict[str, Any] = {
            "http.request.method": method,
            "server.address": self._shown(self._host(one)),
            "coatcheck.client.name": self._shown(one.client or UNKNOWN),
            "coatcheck.outcome": one.outcome,
            "coatcheck.queue_seconds": one.queue_s,
        }
        if one.status:
            told["http.response.status_code"] = one.status
        if one.outcome != OK:
            told["error.type"] = one.outcome
        phases = {
            "coatcheck.connect_seconds": one.connect_s,
            "coatcheck.upstream_seconds": one.upstream_s,
            "coatcheck.added_seconds": one.added_s,
        }
        return told | {name: seconds for name, seconds in phases.items() if seconds is not None}

    def _host(self, one: Ended) -> str:
        if not one.host:
            return UNKNOWN
        if self._hosts is None or self._hosts[0] is not one.snapshot:
            self._hosts = one.snapshot, KnownHosts(one.snapshot)
        return self._hosts[1].name(one.host)

    def _shown(self, text: str) -> str:
        return text if self._is_clean(text.encode()) else OTHER

    def _is_clean(self, data: bytes) -> bool:
        return self._net.redact(data) == data


def _random(bits: int) -> int:
    # An identifier that has to differ from others, and hides nothing; 0 is none.
    return random.getrandbits(bits) or 1


def _resource() -> Any:
    from opentelemetry.sdk.resources import Resource

    # Not `Resource.create`: that takes what the environment and the machine say of themselves.
    return Resource({"service.name": "coatcheck", "service.version": __version__})


def exporter(endpoint: str, ca: Path | None) -> SpanExporter:
    """The exporter to a collector: OTLP over HTTP.

    Raises:
        CoatcheckError: the library is not installed.
    """
    try:
        import certifi
        import requests
        from opentelemetry.exporter.otlp.proto.http import Compression
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise CoatcheckError(
            "traces_endpoint needs a library that is not installed",
            hint="pip install 'coatcheck[otel]'",
        ) from None
    session = requests.Session()
    session.trust_env = False
    return OTLPSpanExporter(
        endpoint=endpoint,
        certificate_file=certifi.where() if ca is None else str(ca),
        timeout=TIMEOUT_S,
        compression=Compression.NoCompression,
        session=session,
    )
