"""Audit lines: these fields and no others, bounded, and no way in for a value."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from coatcheck.core import audit
from coatcheck.core.audit import Facts, Record, Use
from coatcheck.core.destination import Destination
from coatcheck.core.limits import Limits
from coatcheck.core.problems import Code, Problem
from coatcheck.core.redact import Hit

NOW = 1_700_000_000.1234
FACTS = Facts(
    "request-1",
    "runner",
    "10.0.0.7",
    Destination("https", "api.example.com", 8443),
    "POST",
    "/v1/{{secrets.crm.key}}",
)
COMMON = {
    "time": "2023-11-14T22:13:20.123+00:00",
    "request_id": "request-1",
    "client": "runner",
    "address": "10.0.0.7",
    "scheme": "https",
    "host": "api.example.com",
    "port": 8443,
    "method": "POST",
    "path": "/v1/{{secrets.crm.key}}",
}
USES = [Use("crm.key", 3, "header:authorization"), Use("crm.id", 1, "query:id")]
USED = [
    {"name": "crm.key", "version": 3, "location": "header:authorization"},
    {"name": "crm.id", "version": 1, "location": "query:id"},
]


@pytest.mark.parametrize(
    ("record", "more"),
    [
        pytest.param(
            audit.allowed(NOW, FACTS, USES),
            {"event": "request", "decision": "allow", "secrets": USED},
            id="a request leaves",
        ),
        pytest.param(
            audit.allowed(NOW, FACTS, []),
            {"event": "request", "decision": "allow", "secrets": []},
            id="one without secrets",
        ),
        pytest.param(
            audit.injected(NOW, FACTS, USES),
            {"event": "injection", "decision": "allow", "secrets": USED},
            id="a body goes on",
        ),
        pytest.param(
            audit.refused(NOW, FACTS, Problem(Code.BAD_REQUEST)),
            {"event": "request", "decision": "refuse", "code": "bad_request"},
            id="a refusal",
        ),
        pytest.param(
            audit.refused(
                NOW,
                FACTS,
                Problem(
                    Code.DOMAIN_NOT_ALLOWED,
                    "told to the client",
                    hint="told too",
                    secret="crm.key",
                    host="elsewhere.example",
                    location="path",
                    operator="nearest grant: line 7",
                ),
            ),
            {
                "event": "request",
                "decision": "refuse",
                "code": "domain_not_allowed",
                "secret": "crm.key",
                "location": "path",
                "operator": "nearest grant: line 7",
            },
            id="a refusal with what the operator wants to know",
        ),
        pytest.param(
            audit.scrubbed(
                NOW,
                FACTS,
                200,
                {
                    "head": Counter({Hit("crm.key", "raw"): 2}),
                    "body": Counter({Hit("crm.key", "base64"): 1, Hit("crm.id", "raw"): 3}),
                    "trailers": Counter(),
                },
            ),
            {
                "event": "response",
                "decision": "scrub",
                "status": 200,
                "scrubbed": [
                    {"name": "crm.key", "spelling": "raw", "channel": "head", "count": 2},
                    {"name": "crm.id", "spelling": "raw", "channel": "body", "count": 3},
                    {"name": "crm.key", "spelling": "base64", "channel": "body", "count": 1},
                ],
            },
            id="values were taken out of an answer",
        ),
    ],
)
def test_these_fields_and_no_others(record: Record, more: dict[str, object]) -> None:
    assert dict(record) == COMMON | more
    json.dumps(record)


def test_what_is_not_known_yet_is_left_out() -> None:
    record = audit.refused(NOW, Facts("r", "", "10.0.0.7"), Problem(Code.BAD_REQUEST))

    assert dict(record) == {
        "time": COMMON["time"],
        "event": "request",
        "request_id": "r",
        "client": "",
        "address": "10.0.0.7",
        "decision": "refuse",
        "code": "bad_request",
    }


MAX_TEXT = Limits().audit_field_chars
LONG = "x" * (MAX_TEXT + 1)
CUT = "x" * MAX_TEXT + "…"


def a_long_refusal() -> Record:
    facts = Facts("r", "c", "a", None, LONG, LONG)
    problem = Problem(Code.BAD_REQUEST, secret=LONG, location=LONG, operator=LONG)
    return audit.refused(NOW, facts, problem)


@pytest.mark.parametrize("key", ["method", "path", "secret", "location", "operator"])
def test_text_that_a_client_chose_is_cut(key: str) -> None:
    assert a_long_refusal()[key] == CUT


def test_so_are_the_places_of_uses_and_the_names_of_hits() -> None:
    used = audit.allowed(NOW, FACTS, [Use("n", 1, LONG)])["secrets"]
    hits = audit.scrubbed(NOW, FACTS, 200, {"head": Counter({Hit(LONG, "raw"): 1})})["scrubbed"]

    assert used == [{"name": "n", "version": 1, "location": CUT}]
    assert isinstance(hits, list)
    assert hits[0]["name"] == CUT


def test_text_that_a_client_chose_is_cleaned_before_it_is_cut() -> None:
    """The cut could go through a value, and what is left of it would no longer be known."""
    text = "x" * (MAX_TEXT - 4) + "hush-hush"
    cleaned = "x" * (MAX_TEXT - 4) + "****"
    facts = Facts("r", "c", "a", None, text, text)
    problem = Problem(Code.BAD_REQUEST, secret=text, location=text)

    def clean(told: str) -> str:
        return told.replace("hush-hush", "****")

    refused = audit.refused(NOW, facts, problem, clean)
    assert [refused[key] for key in ("method", "path", "secret", "location")] == [cleaned] * 4
    for record in (
        audit.allowed(NOW, facts, [Use("n", 1, text)], clean),
        audit.injected(NOW, facts, [Use("n", 1, text)], clean),
    ):
        assert record["path"] == cleaned
        assert record["secrets"] == [{"name": "n", "version": 1, "location": cleaned}]
    assert audit.scrubbed(NOW, facts, 200, {}, clean)["path"] == cleaned


def test_text_of_just_that_length_is_whole() -> None:
    facts = Facts("r", "c", "a", None, "GET", "x" * MAX_TEXT)

    assert audit.allowed(NOW, facts, [])["path"] == "x" * MAX_TEXT


@pytest.mark.parametrize("chars", [64, MAX_TEXT + 1])
def test_the_length_is_the_settings(chars: int) -> None:
    text = "x" * (chars + 1)
    facts = Facts("r", "c", "a", None, text, text, chars)
    problem = Problem(Code.BAD_REQUEST, secret=text, location=text, operator=text)
    hits = Counter({Hit(text, "raw"): 1})

    records = [
        audit.refused(NOW, facts, problem),
        audit.allowed(NOW, facts, [Use("n", 1, text)]),
        audit.injected(NOW, facts, [Use("n", 1, text)]),
        audit.scrubbed(NOW, facts, 200, {"body": hits}),
    ]

    found = re.findall("x+…?", json.dumps(records, ensure_ascii=False))
    assert set(found) == {"x" * chars + "…"}
    assert len(found) == 4 * 2 + 3 + 1 + 1 + 1, "method and path of each, and what it has besides"


def test_the_time_is_utc_whatever_the_machine_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")

    assert audit.allowed(0.0, FACTS, [])["time"] == "1970-01-01T00:00:00.000+00:00"
