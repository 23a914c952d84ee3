"""`/api/v1/audit`: what has happened. Lines hold names and codes, never a value."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BeforeValidator, Field

from coatcheck.admin.activity import MAX_PAGE, Filter, Record, names_in
from coatcheck.admin.api.deps import Services, Viewer
from coatcheck.admin.api.models import Outgoing

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])

COLUMNS = (
    *("time", "event", "decision", "code", "client", "address", "method", "scheme", "host", "port"),
    *("path", "status", "secrets", "locations", "request_id", "worker", "sequence", "action", "by"),
)
# Where a spreadsheet may see a cell begin, and compute what follows: at the start of one of ours,
# and behind whatever parts cells in its country, with blanks and quotes in between. Fullwidth, too.
_FORMULA = re.compile(r"""(\A|[;,|\t\r\n])(?=["'\s]*[=+\-@\uff1d\uff0b\uff0d\uff20])""")
_LEADS = ("\t", "\r", "\n")  # a cell that begins so is no plain text either
WEEK_H = 168


# RFC 3339, section 5.6. The library would take a number, too, for seconds or milliseconds.
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _written_out(text: str) -> str:
    if _MOMENT.fullmatch(text) is None:
        raise ValueError("no moment as in RFC 3339")
    return text


type Moment = Annotated[AwareDatetime, BeforeValidator(_written_out)]


def _filter(
    since: Annotated[Moment | None, Query(description="The first moment.")] = None,
    until: Annotated[
        Moment | None, Query(description="The first moment that is not meant.")
    ] = None,
    client: Annotated[str, Query(max_length=128)] = "",
    secret: Annotated[str, Query(max_length=256)] = "",
    code: Annotated[str, Query(max_length=64)] = "",
    decision: Literal["", "allow", "refuse", "scrub", "failed"] = "",
    event: Annotated[str, Query(max_length=64)] = "",
    host: Annotated[str, Query(max_length=253)] = "",
) -> Filter:
    return Filter(since, until, client, secret, code, decision, event, host)


type Wanted = Annotated[Filter, Depends(_filter)]


class AuditPage(Outgoing):
    items: list[dict[str, Any]] = Field(description="Lines of the log, the newest first.")
    next: str | None = Field(description="The cursor of the next page; null on the last one.")


class HourOut(Outgoing):
    start: datetime
    injections: int
    refusals: int
    scrubs: int


class SparkOut(Outgoing):
    uses: list[int]
    refusals: list[int]


class SummaryOut(Outgoing):
    hours: list[HourOut] = Field(description="The oldest first.")
    by_secret: dict[str, SparkOut] = Field(description="A number for each of the hours.")
    complete: bool = Field(description="False where there were too many lines to read them all.")


@router.get("")
def query_audit(
    actor: Viewer,
    services: Services,
    wanted: Wanted,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    cursor: Annotated[str, Query(max_length=512)] = "",
) -> AuditPage:
    """Lines of the audit log of all workers and of this API, the newest first."""
    found = services.activity.query(actor, wanted, limit=limit, cursor=cursor)
    return AuditPage(items=[dict(record) for record in found.items], next=found.next or None)


@router.get("/summary")
def summarize_audit(
    actor: Viewer, services: Services, hours: Annotated[int, Query(ge=1, le=WEEK_H)] = 24
) -> SummaryOut:
    """Injections, refusals and scrubs in each of the last hours."""
    found = services.activity.summary(actor, hours)
    return SummaryOut(
        hours=[
            HourOut(
                start=one.start,
                injections=one.injections,
                refusals=one.refusals,
                scrubs=one.scrubs,
            )
            for one in found.hours
        ],
        by_secret={
            name: SparkOut(uses=spark.uses, refusals=spark.refusals)
            for name, spark in found.by_secret.items()
        },
        complete=found.complete,
    )


@router.get("/export", response_class=StreamingResponse)
def export_audit(
    actor: Viewer,
    services: Services,
    wanted: Wanted,
    format: Literal["jsonl", "csv"] = "jsonl",  # noqa: A002 what it is called in the URL
) -> StreamingResponse:
    """All lines that are asked for as a file, the newest first."""
    records = services.activity.all(actor, wanted)
    chunks, kind = (
        (_jsonl(records), "application/x-ndjson")
        if format == "jsonl"
        else (_csv(records), "text/csv; charset=utf-8")
    )
    named = f'attachment; filename="coatcheck-audit.{format}"'
    return StreamingResponse(chunks, media_type=kind, headers={"Content-Disposition": named})


def _jsonl(records: Iterator[Record]) -> Iterator[str]:
    for record in records:
        yield json.dumps(record) + "\n"


def _csv(records: Iterator[Record]) -> Iterator[str]:
    yield _row(COLUMNS)
    for record in records:
        yield _row([guarded(_cell(record, column)) for column in COLUMNS])


def _cell(record: Record, column: str) -> str:
    if column == "secrets":
        return " ".join(sorted(names_in(record)))
    if column == "locations":
        used = record.get("secrets")
        places = (
            [str(use.get("location", "")) for use in used if isinstance(use, dict)]
            if isinstance(used, list)
            else [str(record.get("location", ""))]
        )
        return " ".join(filter(None, places))
    return str(record.get(column, ""))


def guarded(text: str) -> str:
    """*text* so that no spreadsheet takes it for a formula: clients choose parts of it."""
    harmless = _FORMULA.sub(r"\1'", text)
    return f"'{harmless}" if harmless.startswith(_LEADS) else harmless


def _row(cells: Any) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return out.getvalue()
