"""`/api/v1/audit`: lines of all files, the newest first; filters, pages, exports."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from coatcheck.admin import activity
from coatcheck.admin.activity import Filter
from coatcheck.admin.api.audit_routes import guarded
from coatcheck.admin.ui.activity_pages import told
from coatcheck.observe.auditlog import FileAuditLog
from tests.admin.stage import Stage, problem
from tests.store.stores import NOW

AUDIT = "/api/v1/audit"
START = datetime.fromtimestamp(NOW, UTC)


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def line(seconds: float, **more: Any) -> dict[str, Any]:
    return {
        "time": at(seconds),
        "event": "request",
        "request_id": f"r{seconds}",
        "client": "runner",
        "host": "api.example.com",
        "method": "GET",
        "path": "/v1",
        "decision": "allow",
        **more,
    }


def used(name: str) -> dict[str, Any]:
    return {"secrets": [{"name": name, "version": 1, "location": "header:authorization"}]}


@pytest.fixture
def logged(stage: Stage) -> Stage:
    """Two workers, whose lines lie between each other."""
    first, second = FileAuditLog(stage.home.audit, 1), FileAuditLog(stage.home.audit, 2)
    for log in (first, second):
        log.open()
    first.write(line(0, **used("crm.apiKey")))
    second.write(line(1, decision="refuse", code="domain_not_allowed", secret="crm.apiKey"))
    first.write(line(2, client="other", **used("erp.key")))
    second.write(line(3, event="response", decision="scrub", scrubbed=[{"name": "erp.key"}]))
    first.write(line(4, host="other.example.com"))
    for log in (first, second):
        log.close()
    return stage


def found(stage: Stage, query: str = "") -> list[float]:
    """Seconds after the start, of the lines that a query finds."""
    items = stage.call("GET", f"{AUDIT}?{query}", role="viewer").json()["items"]
    return [float(one["request_id"][1:]) for one in items]


@pytest.mark.parametrize(
    ("query", "lines"),
    [
        pytest.param("", [4, 3, 2, 1, 0], id="all"),
        pytest.param("limit=2", [4, 3], id="the newest"),
        pytest.param("client=other", [2], id="client"),
        pytest.param("secret=crm.apiKey", [1, 0], id="secret: used and refused"),
        pytest.param("secret=erp.key", [3, 2], id="secret: used and scrubbed"),
        pytest.param("code=domain_not_allowed", [1], id="code"),
        pytest.param("decision=scrub", [3], id="decision"),
        pytest.param("event=response", [3], id="event"),
        pytest.param("host=other.example.com", [4], id="host"),
        pytest.param("since=2023-11-14T22:13:22Z", [4, 3, 2], id="since"),
        pytest.param("until=2023-11-14T22:13:22Z", [1, 0], id="until"),
        pytest.param("since=2023-11-14T23:13:21%2B01:00&limit=9", [4, 3, 2, 1], id="another zone"),
        pytest.param("client=nobody", [], id="none"),
    ],
)
def test_a_query(logged: Stage, query: str, lines: list[float]) -> None:
    assert found(logged, query) == lines


def test_pages_hold_each_line_once(logged: Stage) -> None:
    seen, cursor = [], ""
    while True:
        page = logged.call("GET", f"{AUDIT}?limit=2&cursor={cursor}").json()
        seen += [one["request_id"] for one in page["items"]]
        if page["next"] is None:
            break
        cursor = page["next"]

    assert seen == ["r4", "r3", "r2", "r1", "r0"]


def test_a_question_that_reads_too_much_goes_on_where_it_stopped(
    logged: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity, "SCANNED", 3)
    first = logged.call("GET", f"{AUDIT}?client=nobody").json()
    assert first["items"] == []
    last = logged.call("GET", f"{AUDIT}?secret=crm.apiKey&cursor={first['next']}").json()

    assert [one["request_id"] for one in last["items"]] == ["r1", "r0"]
    assert last["next"] is None


@pytest.mark.parametrize(
    "query",
    [
        *(
            "limit=0",
            "limit=1001",
            "since=yesterday",
            "since=2023-11-14T22:13:22",
            "since=0.5",
            "until=1700000000",
            "decision=no",
        ),
        *("cursor=!", "cursor=bm8", "cursor=WzEsMiwzXQ"),
    ],
)
def test_what_no_query_takes(logged: Stage, query: str) -> None:
    problem(logged.call("GET", f"{AUDIT}?{query}"), 422, "invalid_request")


def test_what_is_no_line_is_passed_over(logged: Stage) -> None:
    with (logged.home.audit / "audit.jsonl").open("ab") as file:
        file.write(b'\n{"time": 7}\n[]\nnull\n\xff\n{"half')
    (logged.home.audit / "audit-9.jsonl").symlink_to("/etc/passwd")

    assert found(logged) == [4, 3, 2, 1, 0]


def test_long_files_are_read_in_pieces(logged: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "CHUNK", 7)

    assert found(logged) == [4, 3, 2, 1, 0]


def test_management_stands_in_the_same_log(logged: Stage) -> None:
    logged.clock.now = NOW + 10
    logged.make()
    (first, *_) = logged.call("GET", AUDIT).json()["items"]

    assert (first["event"], first["action"], first["by"]) == ("admin", "secret.create", "the owner")


def test_a_summary_counts_by_hour_and_by_secret(logged: Stage) -> None:
    logged.clock.now = NOW + 7200
    made = logged.call("GET", f"{AUDIT}/summary?hours=3").json()

    assert [(h["injections"], h["refusals"], h["scrubs"]) for h in made["hours"]] == [
        (2, 1, 1),
        (0, 0, 0),
        (0, 0, 0),
    ]
    assert made["hours"][0]["start"] == "2023-11-14T22:00:00Z"
    assert made["by_secret"] == {
        "crm.apiKey": {"uses": [1, 0, 0], "refusals": [1, 0, 0]},
        "erp.key": {"uses": [1, 0, 0], "refusals": [0, 0, 0]},
    }
    assert made["complete"] is True


def test_the_state_of_a_secret_tells_of_its_last_use_and_refusal(logged: Stage) -> None:
    logged.make()
    made = logged.call("GET", "/api/v1/secrets/crm.apiKey/status", role="viewer").json()

    assert made["last_use"]["time"] == at(0)
    assert made["last_refusal"]["time"] == at(1)
    assert made["last_refusal"]["code"] == "domain_not_allowed"
    assert made["workers"] == []


# --- exports ----------------------------------------------------------------------------------


def test_an_export_has_every_line(logged: Stage) -> None:
    answer = logged.call("GET", f"{AUDIT}/export?client=runner", role="viewer")

    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["content-disposition"].startswith("attachment;")
    lines = [json.loads(text) for text in answer.text.splitlines()]
    assert [one["request_id"] for one in lines] == ["r4", "r3", "r1", "r0"]


def test_a_table_names_secrets_and_places(logged: Stage) -> None:
    answer = logged.call("GET", f"{AUDIT}/export?format=csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert [row["secrets"] for row in rows] == [
        "",
        "erp.key",
        "erp.key",
        "crm.apiKey",
        "crm.apiKey",
    ]
    assert rows[-1]["locations"] == "header:authorization"
    assert rows[-2]["code"] == "domain_not_allowed"


@pytest.mark.parametrize(
    ("path", "cell"),
    [
        ("=cmd|'/c calc'!A0", "'=cmd|'/c calc'!A0"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\uff1d1", "'\uff1d1"),
        (" =1", "' =1"),
        ('"=1"', '\'"=1"'),
        ("\t=1", "'\t'=1"),
        ("\r=1", "'\r'=1"),
        ("/a;=1", "/a;'=1"),
        ('/a";"=1', '/a";\'"=1'),
        ("/a; @b", "/a;' @b"),
        ("/a,=1", "/a,'=1"),
        ("/a\t-1", "/a\t'-1"),
        ("/a\n+1", "/a\n'+1"),
        ("/v1/a-b=c;d,e", "/v1/a-b=c;d,e"),
    ],
    ids=ascii,
)
def test_no_cell_is_a_formula(logged: Stage, path: str, cell: str) -> None:
    """Where commas part cells, and where semicolons or tabs do."""
    log = FileAuditLog(logged.home.audit, 1)
    log.open()
    log.write(line(9, path=path))
    log.close()
    answer = logged.call("GET", f"{AUDIT}/export?format=csv&since={at(9).replace('+', '%2B')}")

    (row,) = csv.DictReader(io.StringIO(answer.text, newline=""))
    assert row["path"] == cell == guarded(path)


@pytest.mark.parametrize(
    ("record", "kind", "who", "detail"),
    [
        pytest.param(
            {
                "event": "management",
                "action": "secret.set",
                "actor": "os:ada",
                "secret": "crm.apiKey",
                "domains": ["a.example", "b.example"],
                "outcome": "begun",
            },
            "managed",
            "os:ada",
            "domains: a.example, b.example; begun",
            id="a command that begins",
        ),
        pytest.param(
            {
                "event": "management",
                "action": "keys.rotate",
                "actor": "os:ada",
                "outcome": "failed",
            },
            "failed",
            "os:ada",
            "",
            id="a command that failed",
        ),
        pytest.param(
            {"event": "admin", "action": "token.create", "by": "the owner", "token_name": "ci"},
            "managed",
            "the owner",
            "token: ci",
            id="done on the page",
        ),
        pytest.param(
            {"event": "request", "decision": "report", "client": "local", "host": "a.example"},
            "reported",
            "local",
            "",
            id="what a policy only reports",
        ),
    ],
)
def test_a_line_is_told_in_words(
    record: dict[str, object], kind: str, who: str, detail: str
) -> None:
    line = told(record)

    assert (line.kind, line.who, line.detail) == (kind, who, detail)


def test_who_asks_for_management_gets_that_of_commands_too() -> None:
    here, there = {"event": "admin"}, {"event": "management"}

    for wanted in (Filter(event="admin"), Filter(event="management")):
        assert wanted.takes(here)
        assert wanted.takes(there)
        assert not wanted.takes({"event": "request"})
    assert not Filter(traffic=True).takes(there)
