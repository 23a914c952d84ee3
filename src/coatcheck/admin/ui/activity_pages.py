"""What happened: the audit log with filters, and the last day in hours. Looked at anew by itself.

The browser asks again every few seconds, so there is no stream to keep open. It asks for the whole
page and takes the part that it shows: with and without JavaScript there is one answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from coatcheck.admin.activity import MANAGED, Filter, Record
from coatcheck.admin.api.deps import Services, Viewer
from coatcheck.admin.problems import Code as AdminCode
from coatcheck.admin.ui.render import page, url
from coatcheck.core.problems import Code

router = APIRouter(include_in_schema=False)

PER_PAGE = 50
HOURS = 24
DECISIONS = {
    "": "anything",
    "allow": "let through",
    "refuse": "refused",
    "scrub": "scrubbed",
    "report": "reported",
    "failed": "failed",
}
EVENTS = {"": "everything", "traffic": "clients", "admin": "management"}
CODES = sorted({*map(str, Code), *map(str, AdminCode)})


@dataclass(frozen=True, slots=True)
class Named:
    """A secret in a line, and where it stood or was found."""

    name: str
    place: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the log, as it is told.

    Attributes:
        kind: injected, passed, refused, reported, scrubbed, managed or failed.
        who: The client, or who managed, here or by a command.
        target: Method, host and path, or the action.
    """

    time: str
    kind: str
    code: str
    who: str
    target: str
    secrets: tuple[Named, ...]
    detail: str


@router.get("/activity")
def show_activity(
    request: Request,
    actor: Viewer,
    services: Services,
    client: Annotated[str, Query(max_length=128)] = "",
    secret: Annotated[str, Query(max_length=256)] = "",
    host: Annotated[str, Query(max_length=253)] = "",
    decision: Annotated[str, Query(max_length=32)] = "",
    code: Annotated[str, Query(max_length=64)] = "",
    event: Annotated[str, Query(max_length=32)] = "",
    since: Annotated[str, Query(max_length=32)] = "",
    until: Annotated[str, Query(max_length=32)] = "",
    cursor: Annotated[str, Query(max_length=512)] = "",
    live: Annotated[str, Query(max_length=8)] = "",
) -> Response:
    times = {"since": _moment(since), "until": _moment(until)}
    errors = {
        name: "Write a time as 2026-01-31T12:00, in UTC."
        for name, text in (("since", since), ("until", until))
        if text and times[name] is None
    }
    wanted = Filter(times["since"], times["until"], client, secret, code, decision, host=host)
    if event in EVENTS and event:
        wanted = (
            replace(wanted, traffic=True) if event == "traffic" else replace(wanted, event=event)
        )
    asked = {
        "client": client,
        "secret": secret,
        "host": host,
        "decision": decision,
        "code": code,
        "event": event,
        "since": since,
        "until": until,
    }
    found = services.activity.query(actor, wanted, limit=PER_PAGE, cursor=cursor)
    follows = not cursor and live != "off"
    return page(
        request,
        "activity.html",
        lines=[told(record) for record in found.items],
        summary=services.activity.summary(actor, HOURS),
        asked=asked,
        is_filtered=any(asked.values()),
        errors=errors,
        follows=follows,
        is_first=not cursor,
        again=url("/activity", **asked),
        pause=url("/activity", **asked, live="off"),
        older=url("/activity", **asked, cursor=found.next) if found.next else "",
        export=_export(wanted),
        decisions=DECISIONS,
        events=EVENTS,
        codes=CODES,
    )


def told(record: Record) -> Line:
    """A line of the log, in words."""
    if record.get("event") in MANAGED:
        return _told_admin(record)
    decision = record.get("decision")
    secrets = _named(record)
    kinds = {"refuse": "refused", "scrub": "scrubbed", "report": "reported"}
    kind = kinds.get(str(decision), "injected" if secrets else "passed")
    host = _text(record, "host")
    port = record.get("port")
    usual = {"https": 443, "http": 80}.get(_text(record, "scheme"))
    place = host if port in (None, usual) else f"{host}:{port}"
    parts = (_text(record, "method"), place + _text(record, "path") if host else "")
    details = (_text(record, "operator"), _status(record))
    return Line(
        _text(record, "time"),
        kind,
        _text(record, "code"),
        _text(record, "client"),
        " ".join(filter(None, parts)),
        secrets,
        "; ".join(filter(None, details)),
    )


def _told_admin(record: Record) -> Line:
    failed = record.get("decision") in ("failed", "refuse") or record.get("outcome") == "failed"
    names = {
        "new_name": "new name",
        "token_name": "token",
        "token_role": "role",
        "domains": "domains",
        "subject": "of",
        "client": "client",
        "target": "target",
        "version": "version",
    }
    details = [f"{word}: {_words(record[key])}" for key, word in names.items() if record.get(key)]
    if record.get("outcome") == "begun":
        details.append("begun")
    return Line(
        _text(record, "time"),
        "failed" if failed else "managed",
        _text(record, "code"),
        _text(record, "by") or _text(record, "actor") or _text(record, "address"),
        _text(record, "action"),
        _named(record),
        "; ".join(details),
    )


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _named(record: Record) -> tuple[Named, ...]:
    found = []
    for entry in _listed(record, "secrets"):
        found.append(Named(_text(entry, "name"), _text(entry, "location")))
    for entry in _listed(record, "scrubbed"):
        where = f"{_text(entry, 'spelling')} in {_text(entry, 'channel')}"
        times = entry.get("count")
        found.append(
            Named(_text(entry, "name"), where if times == 1 else f"{where}, {times} times")
        )
    if record.get("secret"):
        found.append(Named(_text(record, "secret"), _text(record, "location")))
    return tuple(found)


def _listed(record: Record, key: str) -> list[dict[str, Any]]:
    entries = record.get(key)
    return [one for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []


def _status(record: Record) -> str:
    return f"status {record['status']}" if record.get("status") else ""


def _text(record: Record, key: str) -> str:
    found = record.get(key)
    return "" if found is None else str(found)


def _moment(text: str) -> datetime | None:
    """A time in UTC, as ``<input type=datetime-local>`` sends it."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _export(wanted: Filter) -> str:
    """Where the same lines are had as a file, without its format."""
    asked = {
        name: getattr(wanted, name) for name in ("client", "secret", "code", "decision", "host")
    }
    times = {"since": wanted.since, "until": wanted.until}
    said = {name: at.isoformat() for name, at in times.items() if at is not None}
    return url("/api/v1/audit/export", **asked, **said, event=wanted.event)
