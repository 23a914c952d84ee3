"""The tables of docs/clients.md are made from the record of `make clients`, which is whole."""

from __future__ import annotations

import copy

import pytest

from tests.e2e.clients import seen
from tests.e2e.clients.table import CLIENTS


@pytest.fixture
def record() -> seen.Record:
    return copy.deepcopy(seen.read())


def test_the_page_is_current(record: seen.Record) -> None:
    text = seen.PAGE.read_text("utf-8")

    assert text == seen.page(text, record), "run: make clients CLIENTS_ARGS=--write-docs"


def test_a_page_with_another_version_is_not_current(record: seen.Record) -> None:
    text = seen.PAGE.read_text("utf-8")
    record.clients["curl"]["version"] = "0.0.1"

    assert text != seen.page(text, record)
    assert "| curl | 0.0.1 |" in seen.page(text, record)


def test_every_client_was_seen_in_all_of_its_places_on_both_ways(record: seen.Record) -> None:
    assert seen.gaps(record) == []
    assert all(record.clients[client.name]["version"] for client in CLIENTS)
    assert record.skipped == {}


def test_a_gap_is_told(record: seen.Record) -> None:
    del record.clients["curl"]["places"]["path"]["balanced"]
    del record.clients["wget"]
    record.clients["telnet"] = {"version": "1", "places": {}}

    assert {"curl: path", "wget: header", "telnet: no such client"} <= set(seen.gaps(record))


def test_the_same_arrived_from_every_client(record: seen.Record) -> None:
    assert seen.differences(record) == []


def test_a_difference_is_told(record: seen.Record) -> None:
    record.clients["wget"]["places"]["path"]["balanced"] = "/path/x"

    assert seen.differences(record) == ["wget: path, balanced: /path/x"]
