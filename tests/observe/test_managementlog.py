"""Who changed what is on record before it is changed; else it is not changed."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from coatcheck.core.ports import AuditError
from coatcheck.observe.managementlog import FIELD_CHARS, Change, ManagementLog
from tests.observe.audithouse import House, records

NOTED = {"actor", "action", "outcome", "secret", "version", "domains", "error", "forced"}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def log_of(house: House) -> ManagementLog:
    return ManagementLog(house.folder, house.keys, now=lambda: house.time)


def lines(house: House) -> list[dict[str, Any]]:
    found = records(house.folder / "audit-management.jsonl")
    return [record for record in found if record["event"] == "management"]


def noted(house: House) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k in NOTED} for record in lines(house)]


def test_a_change_is_on_record_before_it_is_made_and_when_it_is_done(house: House) -> None:
    seen = []
    change = Change("secret.set", secret="crm.apiKey", domains=["api.example.com"])
    with log_of(house).recorded("os:ada", change) as end:
        seen += noted(house)
        end.version = 3

    about = {
        "actor": "os:ada",
        "action": "secret.set",
        "secret": "crm.apiKey",
        "domains": ["api.example.com"],
    }
    assert seen == [{**about, "outcome": "begun"}]
    assert noted(house) == [
        {**about, "outcome": "begun"},
        {**about, "version": 3, "outcome": "done"},
    ]
    assert len({record["id"] for record in lines(house)}) == 1
    assert house.findings() == []


def test_a_change_that_fails_says_so_by_the_kind_of_its_error_alone(house: House) -> None:
    with (
        pytest.raises(LookupError, match="a value"),
        log_of(house).recorded("os:ada", Change("secret.delete", secret="x", forced=True)),
    ):
        raise LookupError("a value")

    assert [record["outcome"] for record in lines(house)] == ["begun", "failed"]
    assert noted(house)[1]["error"] == "LookupError"
    assert b"a value" not in (house.folder / "audit-management.jsonl").read_bytes()


def test_what_cannot_be_recorded_is_not_done(house: House) -> None:
    house.folder.mkdir()
    (house.folder / "audit-management.jsonl").mkdir()
    done = []

    with (
        pytest.raises(AuditError, match=r"audit_unavailable: .*; nothing was changed"),
        log_of(house).recorded("os:ada", Change("secret.set")),
    ):
        done.append(True)

    assert done == []


def no_log_any_more(house: House) -> None:
    path = house.folder / "audit-management.jsonl"
    path.unlink()
    path.mkdir()


def test_what_is_done_and_cannot_be_recorded_is_told(house: House) -> None:
    with (
        pytest.raises(AuditError, match="the change was made, and its end is not on record"),
        log_of(house).recorded("os:ada", Change("secret.set")),
    ):
        no_log_any_more(house)


def test_a_text_is_cut_and_a_list_is(house: House) -> None:
    log_of(house).note("os:" + "a" * 10_000, Change("x", domains=["d"] * 1000))

    (line,) = lines(house)
    assert len(line["actor"]) == FIELD_CHARS + 1
    assert len(line["domains"]) == 101


def note_many(root: Path, name: str) -> None:
    house = House(root)
    for number in range(20):
        log_of(house).note(f"os:{name}", Change("x", subject=str(number)))


def test_several_processes_write_one_log_that_stays_whole(house: House) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=note_many, args=(house.root, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)

    found = lines(house)

    assert house.findings() == []
    for name in "abc":
        mine = [record["subject"] for record in found if record["actor"] == f"os:{name}"]
        assert mine == [str(number) for number in range(20)]
