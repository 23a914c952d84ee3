"""What is measured, by name: the one table.

docs/metrics.md is made from it, and the tests hold the counters, the dashboard and the alerts
against it. Each label is made of words that are fixed in the code, or of names that the policy or
the store gives (`Label.words` is empty then): as many as somebody has configured, and bounded all
the same (`core.meter`). Never text of a client, never a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from coatcheck.core.meter import OTHER, OWN_S, UPSTREAM_S
from coatcheck.core.problems import Code
from coatcheck.observe.counted import CHANNELS, METHODS, PLACES, SPELLINGS, UNKNOWN
from coatcheck.sourcetable import KINDS


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Label:
    """``words``: all that it can be, where that is fixed."""

    name: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. ``key`` is what the code calls it, ``name`` what Prometheus does."""

    key: str
    kind: Kind
    name: str
    about: str
    labels: tuple[Label, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def series(self) -> Iterator[tuple[str, ...]]:
        """The labels of all its series, where they are fixed; a counter shows those from 0 on."""
        found: list[tuple[str, ...]] = [()]
        for label in self.labels:
            found = [(*before, word) for before in found for word in label.words]
        yield from found


_CLIENT, _SECRET, _WORKER, _PROCESS = map(Label, ("client", "secret", "worker", "process"))
_CODES = tuple(str(code) for code in Code)
_SOURCE = Label("kind", tuple(KINDS))  # a source's own name is the operator's, and says no more


def _counter(key: str, name: str, about: str, *labels: Label) -> Family:
    return Family(key, Kind.COUNTER, f"coatcheck_{name}_total", about, labels)


def _gauge(key: str, name: str, about: str, *labels: Label) -> Family:
    return Family(key, Kind.GAUGE, f"coatcheck_{name}", about, labels)


def _histogram(key: str, name: str, about: str, bounds: tuple[float, ...]) -> Family:
    return Family(key, Kind.HISTOGRAM, f"coatcheck_{name}_seconds", about, (), bounds)


FAMILIES = (
    _counter(
        "requests",
        "requests",
        "Requests judged. allow: let go, with its audit line written; refuse: nothing of it left.",
        _CLIENT,
        Label("method", (*METHODS, OTHER, UNKNOWN)),
        Label("decision", ("allow", "refuse")),
    ),
    _counter(
        "injections",
        "injections",
        "Values put into requests and WebSocket messages.",
        _SECRET,
        Label("location", (*PLACES, OTHER)),
    ),
    _counter(
        "refusals",
        "refusals",
        "Refusals by code. request: before anything left; answer: after the request was let go.",
        Label("code", _CODES),
        Label("stage", ("request", "answer")),
    ),
    _counter(
        "scrubs",
        "scrubs",
        "Values taken out of what came back.",
        _SECRET,
        Label("channel", (*CHANNELS, OTHER)),
        Label("spelling", (*SPELLINGS, OTHER)),
    ),
    _counter(
        "reports",
        "reports",
        "What a policy of mode report would have refused and let go on, by code; as many as audit "
        "lines with decision report, several of one request among them.",
        _CLIENT,
        Label("code", _CODES),
    ),
    _histogram(
        "added",
        "added",
        "What a request waits for coatcheck: from its head, or a body that is read whole, to the "
        "upstream, and from the head of the answer to the client. Without connecting.",
        OWN_S,
    ),
    _histogram(
        "upstream_response",
        "upstream_response",
        "From a request that is written to the first byte of its answer.",
        UPSTREAM_S,
    ),
    _histogram(
        "upstream_connect",
        "upstream_connect",
        "To resolve, connect and verify TLS, for connections that were made.",
        UPSTREAM_S,
    ),
    _counter(
        "client_connections",
        "client_connections",
        "Connections of clients; turned_away: there were too many.",
        Label("result", ("admitted", "turned_away")),
    ),
    _gauge("clients_open", "client_connections_open", "Connections of clients now.", _WORKER),
    _counter(
        "client_handshakes",
        "client_tls_handshakes",
        "TLS handshakes with clients. failed: nearly always one that does not trust the CA.",
        Label("result", ("full", "resumed", "failed")),
    ),
    _counter(
        "upstream_connections",
        "upstream_connections",
        "Connections to upstreams that were tried: made, or why not.",
        Label("result", ("made", *_CODES)),
    ),
    _counter(
        "upstream_requests",
        "upstream_requests",
        "Requests sent by connection: new, kept by the same client connection, or rested.",
        Label("connection", ("new", "kept", "rested")),
    ),
    _gauge("upstreams_open", "upstream_connections_open", "Upstream connections in use.", _WORKER),
    _gauge(
        "upstreams_resting",
        "upstream_connections_resting",
        "Upstream connections that rest for their client's next request.",
        _WORKER,
    ),
    _counter(
        "certificates",
        "certificate_cache_lookups",
        "Certificates for clients: hit, or made anew.",
        Label("result", ("hit", "miss")),
    ),
    _gauge(
        "certificates_kept", "certificate_cache_entries", "Certificates that are kept.", _WORKER
    ),
    _gauge("store_revision", "store_revision", "The revision of the store in force.", _WORKER),
    _gauge("store_readable", "store_readable", "1 while the store can be read.", _WORKER),
    _gauge(
        "store_read",
        "store_read_timestamp_seconds",
        "When the store was last read or found unchanged.",
        _WORKER,
    ),
    _counter(
        "source_reads",
        "source_reads",
        "Values asked for at sources. taken_back: it answered that there is none any more; failed: "
        "no answer, or none to use. Each worker asks by itself.",
        _SOURCE,
        Label("result", ("value", "failed", "taken_back")),
    ),
    _gauge(
        "source_secrets",
        "source_secrets",
        "Secrets from sources. current: as the source has it; failing: sent still, though the last "
        "question failed; withheld: not sent any more; unknown: no answer has brought it yet.",
        _WORKER,
        _SOURCE,
        Label("state", ("current", "failing", "withheld", "unknown")),
    ),
    _gauge(
        "source_answered",
        "source_answered_timestamp_seconds",
        "When the source of the secret that has waited longest last gave its value; of those that "
        "have one.",
        _WORKER,
        _SOURCE,
    ),
    _gauge(
        "policy",
        "policy_info",
        "1, with the SHA-256 of the policy in force.",
        _WORKER,
        Label("digest"),
    ),
    _gauge(
        "policy_valid",
        "policy_valid",
        "0 while the policy file cannot be used; the last good one is in force.",
        _WORKER,
    ),
    _gauge(
        "policy_loaded",
        "policy_loaded_timestamp_seconds",
        "When the policy in force was read.",
        _WORKER,
    ),
    _counter("audit_lines", "audit_lines", "Audit lines written."),
    _counter("audit_errors", "audit_errors", "Audit lines that could not be written."),
    _histogram(
        "audit_write",
        "audit_write",
        "How long a request waits for its audit line: the lag of the audit log is never more.",
        OWN_S,
    ),
    _counter(
        "worker_restarts", "worker_restarts", "Processes started for one that had ended.", _WORKER
    ),
    _gauge("worker_ready", "worker_ready", "1 while the worker takes connections.", _WORKER),
    _gauge(
        "loop_lag",
        "event_loop_lag_seconds",
        "How late the worker's last second ended: what all its connections wait for each other.",
        _WORKER,
    ),
    _counter(
        "spans",
        "trace_spans",
        "Spans of traces. dropped: the queue was full; failed: the collector did not take them.",
        Label("result", ("exported", "failed", "dropped")),
    ),
    _counter("cpu", "process_cpu_seconds", "CPU time, user and system.", _PROCESS),
    _gauge("memory", "process_resident_memory_bytes", "Resident memory.", _PROCESS),
    _gauge("started", "process_start_time_seconds", "When the process began.", _PROCESS),
    _gauge(
        "build",
        "build_info",
        "1, with the versions.",
        Label("version"),
        Label("python"),
        Label("mitmproxy"),
    ),
    _gauge("written", "metrics_timestamp_seconds", "When these numbers were written."),
    _gauge("up", "up", "1 while the proxy writes its numbers; else only build_info is shown."),
)
BY_KEY: Mapping[str, Family] = {family.key: family for family in FAMILIES}
