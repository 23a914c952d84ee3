"""Counts what the audit log is told, so that the numbers and the lines cannot disagree.

Everything that is decided comes by here once, before its bytes leave. A line that could not be
written counts as an error of the log: what it told of does not happen. But a refusal does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from coatcheck.core import spelling
from coatcheck.core.locations import Kind
from coatcheck.core.meter import OTHER, Meter
from coatcheck.core.ports import AuditError, AuditLog

UNKNOWN = "unknown"  # nobody was known yet, or nothing was read
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT")
PLACES = tuple(str(kind) for kind in Kind)
CHANNELS = ("head", "body", "trailers", "websocket")
SPELLINGS = (*(row.id for row in spelling.SPELLINGS), spelling.RENDERED)

_METHODS = {"": UNKNOWN, **{name: name for name in METHODS}}  # any other is a client's own words
_PLACES, _CHANNELS, _SPELLINGS = map(frozenset, (PLACES, CHANNELS, SPELLINGS))


class CountedLog:
    """*log*, with *meter* told of each record."""

    def __init__(self, log: AuditLog, meter: Meter) -> None:
        self._log = log
        self._meter = meter

    def write(self, record: Mapping[str, object]) -> None:
        meter = self._meter
        began = meter.clock()
        try:
            self._log.write(record)
        except AuditError:
            meter.audit_errors.add()
            if record.get("decision") == "refuse":
                self._refused(record)
            raise
        meter.audit_write.add(meter.clock() - began)
        match record.get("decision"):
            case "allow":
                self._allowed(record)
            case "refuse":
                self._refused(record)
            case "scrub":
                self._scrubbed(record)

    def _allowed(self, record: Mapping[str, object]) -> None:
        if record["event"] == "request":
            self._meter.requests.add((*_who(record), "allow"))
        for use in _listed(record, "secrets"):
            place = use["location"].partition(":")[0]
            self._meter.injections.add((use["name"], _one_of(_PLACES, place)))

    def _refused(self, record: Mapping[str, object]) -> None:
        let_go = "let_go" in record
        if not let_go:
            self._meter.requests.add((*_who(record), "refuse"))
        self._meter.refusals.add((str(record["code"]), "answer" if let_go else "request"))

    def _scrubbed(self, record: Mapping[str, object]) -> None:
        for hit in _listed(record, "scrubbed"):
            channel = _one_of(_CHANNELS, hit["channel"])
            key = (hit["name"], channel, _one_of(_SPELLINGS, hit["spelling"]))
            self._meter.scrubs.add(key, hit["count"])


def _who(record: Mapping[str, object]) -> tuple[str, str]:
    method = str(record.get("method", ""))
    return str(record["client"]) or UNKNOWN, _METHODS.get(method, OTHER)


def _one_of(words: frozenset[str], word: str) -> str:
    return word if word in words else OTHER


def _listed(record: Mapping[str, object], name: str) -> Sequence[Mapping[str, Any]]:
    return cast(Sequence[Mapping[str, Any]], record[name])
