"""What was seen of the clients, kept as seen.json beside this file, and the tables of
docs/clients.md that are made of it.

The file is a record: `make clients CLIENTS_ARGS=--write-docs` writes it anew, after a run that saw
every client. Tests hold the page to the record, and the record to the table of clients.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.clients import exchange
from tests.e2e.clients.exchange import PLACES
from tests.e2e.clients.table import CLIENTS, Client, Seen
from tests.e2e.upstream import Received

KEPT = Path(__file__).parent / "seen.json"
PAGE = Path(__file__).parents[3] / "docs" / "clients.md"
BEGIN = "<!-- Made by `make clients CLIENTS_ARGS=--write-docs`; do not edit by hand. -->\n"
END = "<!-- Until here. -->\n"
WAYS = ("straight", "balanced")


@dataclass
class Record:
    """By client: its version, and by place what it wrote and what arrived on each way."""

    clients: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def arrived(self, way: str, client: Client, seen: Seen, place: str) -> None:
        row = self._row(client)
        row["version"] = seen.version
        found = exchange.arrived(place, seen.exchanges[place].received)
        row["places"].setdefault(place, {})[way] = found

    def written(self, client: Client, place: str, received: Received) -> None:
        found = exchange.written(place, received)
        self._row(client)["places"].setdefault(place, {})["written"] = found

    def missing(self, client: Client, reason: str) -> None:
        self.skipped[client.name] = reason

    def write(self, path: Path) -> None:
        content = {"clients": self.clients, "skipped": self.skipped}
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")

    def _row(self, client: Client) -> dict[str, Any]:
        return self.clients.setdefault(client.name, {"version": "", "places": {}})


def summary(record: Record) -> str:
    """One line for each client: version, ways and places; what was left out, and why."""
    lines = []
    for client in CLIENTS:
        row = record.clients.get(client.name, {"version": "", "places": {}})
        ways = [f"{way} {sum(way in s for s in row['places'].values())}" for way in WAYS]
        text = f"{row['version']:<24}{', '.join(ways)} of {len(client.places)} places"
        if client.name in record.skipped:
            text = f"left out: {record.skipped[client.name]}"
        lines.append(f"{client.name:<24}{text}")
    return "\n".join(lines)


def read(path: Path = KEPT) -> Record:
    return Record(**json.loads(path.read_text("utf-8")))


def gaps(record: Record) -> list[str]:
    """What *record* does not say of a client, or says of none."""
    names = {client.name for client in CLIENTS}
    found = [f"{name}: no such client" for name in record.clients if name not in names]
    for client in CLIENTS:
        places = record.clients.get(client.name, {"places": {}})["places"]
        for place in {*client.places, *places}:
            if set(places.get(place, {})) != {*WAYS, "written"} or place not in client.places:
                found.append(f"{client.name}: {place}")
    return found


def differences(record: Record) -> list[str]:
    """Where something else arrived than from the first client."""
    first = arrivals(record)
    return [
        f"{name}: {place}, {way}: {seen[way]}"
        for name, row in record.clients.items()
        for place, seen in row["places"].items()
        for way in WAYS
        if way in seen and seen[way].replace("token ", "Bearer ", 1) != first[place]
    ]


def arrivals(record: Record) -> dict[str, str]:
    """By place, what arrived."""
    found: dict[str, str] = {}
    for place in PLACES:
        for row in record.clients.values():
            if place in row["places"]:
                found.setdefault(place, row["places"][place][WAYS[0]])
    return found


def tables(record: Record) -> str:
    """The part of the page between `BEGIN` and `END`."""
    columns = [place for place in PLACES if place != "own-header"]
    head = ["client", "version", *columns]
    lines = [_row(head), _row(["---"] * len(head))]
    for client in CLIENTS:
        row = record.clients[client.name]
        cells = []
        for place in columns:
            other = "own-header" if place == "header" else place
            seen = row["places"].get(place) or row["places"].get(other)
            cells.append(_code(seen["written"]) if seen else "")
        lines.append(_row([client.name, row["version"], *cells]))
    lines += ["", _row(["place", "what arrived"]), _row(["---"] * 2)]
    lines += [_row([place, _code(text)]) for place, text in arrivals(record).items()]
    return "\n".join(lines) + "\n"


def page(text: str, record: Record) -> str:
    """*text*, the page, with its tables made again."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{tables(record)}\n{END}{rest.partition(END)[2]}"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _code(text: str) -> str:
    return text if text == "base64" else f"`{text}`"
