"""`/api/v1/policy`, `/clients`, `/explain`: the same answers as `coatcheck policy` gives."""

from __future__ import annotations

from typing import Any

import pytest

from tests.admin.stage import VALUE, Stage, problem, write_policy

TOKEN = "sha256:" + "ab" * 32
POLICY = f"""\
version: 1
clients:
  runner: {{ token: "{TOKEN}" }}
  local: {{ networks: ["127.0.0.1/32"] }}
grants:
  - secrets: ["crm.*"]
    clients: [runner]
    methods: [GET]
    in: ["header:authorization"]
  - secrets: ["*"]
    clients: [local]
"""
BROKEN = 'version: 1\nclients: {}\ngrants:\n  - secrets: ["x"]\n    clients: [nobody]\n'


@pytest.fixture
def policed(stage: Stage) -> Stage:
    write_policy(stage.home, POLICY)
    stage.make()
    stage.make("erp.key")
    return stage


def test_the_policy_and_its_warnings(policed: Stage) -> None:
    found = policed.call("GET", "/api/v1/policy", role="viewer").json()

    assert (found["valid"], found["clients"], found["grants"]) == (True, 2, 2)
    assert found["errors"] == []
    assert "names every secret" in found["warnings"][0]
    assert found["in_force_sha256"] == found["sha256"]
    assert found["workers"] == []


def test_hashes_of_tokens_are_cut_short(policed: Stage) -> None:
    found = policed.call("GET", "/api/v1/policy").json()

    assert "sha256:abababab…" in found["text"]
    assert TOKEN not in found["text"] + found["in_force_text"]


def test_of_a_broken_policy_the_last_good_one_stays(policed: Stage) -> None:
    good = policed.call("GET", "/api/v1/policy").json()["sha256"]
    write_policy(policed.home, BROKEN)
    found = policed.call("GET", "/api/v1/policy").json()

    assert (found["valid"], found["in_force_sha256"]) == (False, good)
    assert [(e["line"], e["column"], e["problem"]) for e in found["errors"]] == [
        (5, 15, "there is no client 'nobody'")
    ]
    assert policed.call("GET", "/api/v1/clients").json()["items"][0]["name"] == "runner"


def test_without_any_good_policy_there_is_none(stage: Stage) -> None:
    write_policy(stage.home, BROKEN)

    problem(stage.call("GET", "/api/v1/clients"), 503, "policy_unavailable")
    stage.home.policy.unlink()
    found = stage.call("GET", "/api/v1/policy").json()
    assert (found["valid"], found["in_force_text"]) == (False, None)


@pytest.mark.parametrize(
    ("text", "valid", "lines"),
    [
        pytest.param(POLICY, True, [], id="good"),
        pytest.param(BROKEN, False, [5], id="broken"),
        pytest.param("", False, [1], id="empty"),
        pytest.param("version: 1\nversion: 1\n", False, [2], id="a key twice"),
    ],
)
def test_a_draft_is_judged_and_not_kept(
    policed: Stage, text: str, valid: bool, lines: list[int]
) -> None:
    answer = policed.call("POST", "/api/v1/policy/validate", role="viewer", json={"text": text})
    found = answer.json()

    assert answer.status_code == 200
    assert found["valid"] is valid
    assert [error["line"] for error in found["errors"]] == lines
    assert policed.home.policy.read_text() == POLICY


PASTED = "hunter-two-of-the-crm"  # looks like a word: nothing about it says that it is a value
GRANT = "version: 1\nclients: {me: {networks: [127.0.0.1/32]}}\ngrants:\n  - {secrets: [a], %s}\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"version: 1\n{PASTED}: 1\n", id="a key"),
        pytest.param(f"version: {PASTED}\n", id="a number"),
        pytest.param(f"version: 1\n{PASTED}: 1\n{PASTED}: 2\n", id="a key twice"),
        pytest.param(f"version: 1\nclients: {{a: {{token: {PASTED}}}}}\n", id="a token"),
        pytest.param(f"version: 1\nclients: {{a: {{networks: [{PASTED}]}}}}\n", id="a network"),
        pytest.param(f"version: 1\nclients: {PASTED}\n", id="all clients"),
        pytest.param(GRANT % f"clients: [{PASTED}]", id="a client"),
        pytest.param(GRANT % f"clients: [me], methods: [{PASTED}]", id="a method"),
        pytest.param(GRANT % f"clients: [me], methods: ['{PASTED} {PASTED}']", id="a phrase"),
        pytest.param(GRANT % f"clients: [me], in: ['{PASTED}']", id="a place"),
        pytest.param(GRANT % f"clients: [me], hosts: ['{PASTED}!']", id="a host"),
        pytest.param(GRANT % f"clients: [me], paths: ['{PASTED}']", id="a path"),
        pytest.param(GRANT % f"clients: [me], plaintext: {PASTED}", id="true or false"),
        pytest.param(f"version: 1\nscrub: {{replacement: {PASTED}}}\n", id="a known word"),
        pytest.param(f"version: 1\n{PASTED}\n", id="a line"),
        pytest.param(PASTED, id="alone"),
        pytest.param(f"version: 1\negress: {{passthrough: [{PASTED}.com]}}\n", id="a warning"),
        pytest.param(
            f"version: 1\nclients: {{{PASTED}: {{networks: [0.0.0.0/0]}}}}\n", id="a client's name"
        ),
    ],
)
def test_what_was_pasted_into_a_draft_is_not_repeated(policed: Stage, text: str) -> None:
    answer = policed.call("POST", "/api/v1/policy/validate", json={"text": text})
    found = answer.json()

    assert found["errors"] or found["warnings"]
    assert PASTED.casefold() not in answer.text.casefold()


def test_what_is_wrong_in_a_draft_is_told_in_words_of_our_own(policed: Stage) -> None:
    text = GRANT.replace("secrets:", "secret:") % "clients: [nobody], methods: [get]"
    found = policed.call("POST", "/api/v1/policy/validate", json={"text": text}).json()

    assert [(e["line"], e["column"], e["problem"]) for e in found["errors"]] == [
        (4, 5, "secrets: is missing"),
        (4, 6, "the key '…' is not known here"),
        (4, 29, "there is no client '…'"),
        (4, 48, "methods are case-sensitive, and '…' has small letters"),
    ]
    assert "did you mean 'secrets'?" in [e["hint"] for e in found["errors"]]


@pytest.mark.parametrize(
    ("query", "lines", "secrets"),
    [
        pytest.param("", [6, 10], [["crm.apiKey"], ["crm.apiKey", "erp.key"]], id="all"),
        pytest.param("client=runner", [6], [["crm.apiKey"]], id="of a client"),
        pytest.param("secret=erp.key", [10], [["crm.apiKey", "erp.key"]], id="of a secret"),
        pytest.param("client=runner&secret=erp.key", [], [], id="of both"),
    ],
)
def test_grants(policed: Stage, query: str, lines: list[int], secrets: list[list[str]]) -> None:
    found = policed.call("GET", f"/api/v1/policy/grants?{query}").json()["items"]

    assert [grant["line"] for grant in found] == lines
    assert [grant["matching_secrets"] for grant in found] == secrets


def test_a_grant_is_shown_as_it_is_meant(policed: Stage) -> None:
    grant = policed.call("GET", "/api/v1/policy/grants?client=runner").json()["items"][0]

    assert grant == {
        "line": 6,
        "secrets": ["crm.*"],
        "clients": ["runner"],
        "hosts": None,
        "methods": ["GET"],
        "paths": None,
        "places": ["header:authorization"],
        "max_uses": 4,
        "plaintext": False,
        "matching_secrets": ["crm.apiKey"],
    }


def test_what_is_asked_of_nobody(policed: Stage) -> None:
    path = "/api/v1/policy/grants"
    problem(policed.call("GET", f"{path}?client=nobody"), 404, "client_not_found")
    problem(policed.call("GET", f"{path}?secret=nothing"), 404, "secret_not_found")


def test_clients(policed: Stage) -> None:
    assert policed.call("GET", "/api/v1/clients", role="viewer").json()["items"] == [
        {
            "name": "runner",
            "token": True,
            "networks": [],
            "grants": 1,
            "secrets": ["crm.apiKey"],
        },
        {
            "name": "local",
            "token": False,
            "networks": ["127.0.0.1/32"],
            "grants": 1,
            "secrets": ["crm.apiKey", "erp.key"],
        },
    ]


def explain(stage: Stage, **body: Any) -> Any:
    sent = {
        "client": "runner",
        "url": "https://api.example.com/v1",
        "headers": ["Authorization: Bearer {{secrets.crm.apiKey}}", f"X-Real: {VALUE}"],
        **body,
    }
    return stage.call("POST", "/api/v1/explain", role="viewer", json=sent)


@pytest.mark.parametrize(
    ("body", "outcome", "code"),
    [
        pytest.param({}, "sent", None, id="granted"),
        pytest.param({"method": "POST"}, "refused", "request_not_allowed", id="method"),
        pytest.param({"url": "https://evil.example/"}, "refused", "domain_not_allowed", id="host"),
        pytest.param(
            {"headers": [], "body": "k={{secrets.crm.apiKey}}"},
            "refused",
            "location_not_allowed",
            id="place",
        ),
        pytest.param(
            {"headers": ["X: {{secrets.nope}}"]}, "refused", "secret_unavailable", id="no secret"
        ),
    ],
)
def test_explain(policed: Stage, body: dict[str, Any], outcome: str, code: str | None) -> None:
    answer = explain(policed, **body)

    assert answer.status_code == 200
    assert (answer.json()["outcome"], answer.json()["code"]) == (outcome, code)
    assert VALUE not in answer.text


@pytest.mark.parametrize(
    ("body", "place"),
    [
        pytest.param({"client": None}, "body.client", id="which client"),
        pytest.param({"url": f"ftp://{VALUE}/"}, "body.url", id="another scheme"),
        pytest.param({"url": f"https://{VALUE} /"}, "body.url", id="a space"),
        pytest.param({"url": "https://[x/"}, "body.url", id="no host"),
        pytest.param({"method": "G T"}, "body.method", id="no method"),
        pytest.param({"headers": [VALUE]}, "body.headers", id="no header"),
    ],
)
def test_what_is_no_request(policed: Stage, body: dict[str, Any], place: str) -> None:
    answer = explain(policed, **body)

    assert problem(answer, 422, "invalid_request")["errors"][0]["in"] == place
    assert VALUE not in answer.text
    problem(explain(policed, client="nobody"), 404, "client_not_found")


def test_a_secret_from_a_source_is_known_to_the_policy(policed: Stage) -> None:
    sources = policed.settings.sources_file
    sources.write_text(
        "version: 1\nsecrets:\n  crm.env: {source: env, variable: KEY, domains: [a.example]}\n"
    )
    sources.chmod(0o600)
    question = {"client": "runner", "url": "https://a.example/"}
    question["headers"] = ["Authorization: {{secrets.crm.env}}"]  # type: ignore[assignment]
    grants = policed.call("GET", "/api/v1/policy/grants?secret=crm.env").json()["items"]

    assert [grant["line"] for grant in grants] == [6, 10]
    assert "crm.env" in grants[0]["matching_secrets"]
    assert policed.call("POST", "/api/v1/explain", json=question).json()["outcome"] == "sent"
