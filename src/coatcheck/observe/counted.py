"""Counts what the audit log is told, so that the numbers and the lines cannot disagree.

Everything that is decided comes by here once, before its bytes leave. A line that could not be
written counts as an error of the log: what it told of does not happen. But a refusal does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coatcheck.core import spelling
from coatcheck.core.locations import Kind
from coatcheck.core.meter import OTHER, Meter
from coatcheck.core.ports import AuditError, AuditLog

UNKNOWN = "unknown"  # nobody was known yet, or nothing was read
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT")
PLACES = tuple(str(kind) for kind in Kind)
CHANNELS = ("head", "body", "trailers", "websocket")
SPELLINGS = (*(row.id for row in spelling.SPELLINGS), spelling.RENDERED)

# Any other word is a client's own, or new to this file.
_METHODS: dict[str | None, str] = {None: UNKNOWN, "": UNKNOWN, **{it: it for it in METHODS}}
_PLACES, _CHANNELS, _SPELLINGS = (
    {word: word for word in words} for words in (PLACES, CHANNELS, SPELLINGS)
)


class CountedLog:
    """*log*, with *meter* told of each record."""

    def __init__(self, log: AuditLog, meter: Meter) -> None:
        # Looked up once: this is on the way of every request.
        self._write = log.write
        self._clock = meter.clock
        self._meter = meter
        self._took = meter.audit_write.add
        self._request = meter.requests.add
        self._injection = meter.injections.add

    def write(self, record: Mapping[str, object]) -> None:
        began = self._clock()
        try:
            self._write(record)
        except AuditError:
            self._meter.audit_errors.add()
            if record.get("decision") == "refuse":
                self._refused(record)
            raise
        self._took(self._clock() - began)
        decision = record.get("decision")
        if decision == "allow":
            self._allowed(record)
        elif decision == "refuse":
            self._refused(record)
        elif decision == "scrub":
            self._scrubbed(record)
        elif decision == "report":
            self._reported(record)

    def _allowed(self, record: Mapping[str, Any]) -> None:
        if record["event"] == "request":
            method = _METHODS.get(record.get("method"), OTHER)
            self._request((record["client"] or UNKNOWN, method, "allow"))
        for use in record["secrets"]:
            place = _PLACES.get(use["location"].partition(":")[0], OTHER)
            self._injection((use["name"], place))

    def _refused(self, record: Mapping[str, Any]) -> None:
        let_go = "let_go" in record
        if not let_go:
            method = _METHODS.get(record.get("method"), OTHER)
            self._request((record["client"] or UNKNOWN, method, "refuse"))
        self._meter.refusals.add((record["code"], "answer" if let_go else "request"))

    def _reported(self, record: Mapping[str, Any]) -> None:
        self._meter.reports.add((record["client"] or UNKNOWN, record["code"]))

    def _scrubbed(self, record: Mapping[str, Any]) -> None:
        for hit in record["scrubbed"]:
            channel = _CHANNELS.get(hit["channel"], OTHER)
            key = (hit["name"], channel, _SPELLINGS.get(hit["spelling"], OTHER))
            self._meter.scrubs.add(key, hit["count"])
