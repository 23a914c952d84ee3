"""One audit record as a line for people, and which records they ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from coatcheck.cli import console
from coatcheck.cli.value import InputError

_COLOURS = {
    "allow": "green",
    "refuse": "red",
    "scrub": "yellow",
    "change": "cyan",
    "failed": "red",
    "deleted": "cyan",
}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Filter:
    """What is shown; an empty field asks nothing. *since*: as `Entry.time`."""

    client: str = ""
    secret: str = ""
    code: str = ""
    since: str = ""

    def takes(self, record: Mapping[str, Any]) -> bool:
        return (
            (not self.client or record.get("client") == self.client)
            and (not self.code or record.get("code") == self.code)
            and (not self.secret or self.secret in set(_names(record)))
            and str(record.get("time", "")) >= self.since
        )


def since(text: str, now: float) -> str:
    """``15m`` or a time, as the log writes times; empty where *text* is.

    Raises:
        InputError: it is neither.
    """
    if not text:
        return ""
    if found := re.fullmatch(r"(\d{1,9})([smhd])", text):
        at = datetime.fromtimestamp(max(0.0, now - int(found[1]) * _UNITS[found[2]]), UTC)
    else:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise InputError(
                "--since is no time",
                hint="write 15m, 2h, 3d, or a time such as 2026-11-26T12:00:00Z",
            ) from None
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return at.isoformat(timespec="milliseconds")


def line(record: Mapping[str, Any]) -> str:
    """*record* in one line, cleaned, its decision coloured on a terminal."""
    word = _word(record)
    shown = console.paint(f"{word:<7}", _COLOURS[word]) if word in _COLOURS else f"{word:<7}"
    parts = [_time(record), shown, *(console.clean(part) for part in _parts(record) if part)]
    return "  ".join(parts)


def _word(record: Mapping[str, Any]) -> str:
    if record.get("event") == "management":
        return "failed" if record.get("outcome") == "failed" else "change"
    if record.get("event") == "retired":
        return "deleted"
    return console.clean(str(record.get("decision") or record.get("event") or "?"))


def _time(record: Mapping[str, Any]) -> str:
    """Of the day in UTC, to the millisecond."""
    text = str(record.get("time", "")).replace("T", " ").removesuffix("+00:00")
    return f"{console.clean(text):<23}"


def _parts(record: Mapping[str, Any]) -> Iterator[str]:
    if record.get("event") == "management":
        yield from _change(record)
        return
    if record.get("event") == "retired":
        yield f"{record.get('file')}: lines {record.get('first')} to {record.get('last')}"
        return
    yield str(record.get("client") or record.get("address") or "-")
    yield _request(record)
    yield str(record.get("code") or "")
    yield str(record.get("status") or "")
    yield from (f"{use.get('name')} at {use.get('location')}" for use in _items(record, "secrets"))
    yield from (
        f"{hit.get('name')} as {hit.get('spelling')} in {hit.get('channel')}, {hit.get('count')}x"
        for hit in _items(record, "scrubbed")
    )
    yield " at ".join(str(record[key]) for key in ("secret", "location") if record.get(key))
    yield str(record.get("operator") or "")
    yield str(record.get("request_id") or "")


def _change(record: Mapping[str, Any]) -> Iterator[str]:
    yield str(record.get("actor"))
    yield f"{record.get('action')} {record.get('outcome')}"
    yield " ".join(
        str(record[key]) for key in ("secret", "client", "subject", "target") if record.get(key)
    )
    yield f"to {record['new_name']}" if record.get("new_name") else ""
    yield f"version {record['version']}" if record.get("version") else ""
    yield from (
        f"{key}: {', '.join(map(str, record[key]))}"
        for key in ("changed", "domains")
        if isinstance(record.get(key), list)
    )
    yield str(record.get("error") or "")


def _request(record: Mapping[str, Any]) -> str:
    place = f"{record.get('scheme')}://{record.get('host')}:{record.get('port')}"
    for default in ("https://{}:443", "http://{}:80"):
        if place == default.format(record.get("host")):
            place = place.rpartition(":")[0]
    where = f"{place}{record.get('path', '')}" if record.get("host") else ""
    return f"{record.get('method', '')} {where}".strip()


def _items(record: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    items = record.get(key)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _names(record: Mapping[str, Any]) -> Iterator[object]:
    yield record.get("secret")
    yield record.get("new_name")
    for key in ("secrets", "scrubbed"):
        yield from (item.get("name") for item in _items(record, key))
