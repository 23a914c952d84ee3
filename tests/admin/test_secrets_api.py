"""`/api/v1/secrets`: what comes in, what comes out, and what is refused."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

import pytest

from coatcheck.core.ports import Used
from coatcheck.store.sql import SqlStore
from tests.admin.stage import OTHER_VALUE, VALUE, Stage, problem, write_policy
from tests.store.stores import NOW, open_store

SECRETS = "/api/v1/secrets"


def opened(stage: Stage, name: str = "crm.apiKey") -> bytes:
    """The value, as a worker reads it."""
    store: SqlStore = open_store(stage.home, stage.clock)
    try:
        view = store.view()
        found = view.find(name)
        assert found is not None
        return view.open(found).reveal()
    finally:
        store.close()


def etag(stage: Stage, name: str = "crm.apiKey") -> str:
    tag: str = stage.call("GET", f"{SECRETS}/{quote(name, safe='')}").headers["etag"]
    return tag


def change(stage: Stage, tag: str | None = None, /, **body: Any) -> Any:
    headers = {"If-Match": tag or etag(stage)}
    return stage.call("PATCH", f"{SECRETS}/crm.apiKey", json=body, headers=headers)


# --- make and read ----------------------------------------------------------------------------


def test_a_secret_is_made_and_its_value_is_never_told(stage: Stage) -> None:
    made = stage.make(description="for the CRM")

    assert made.headers["location"] == f"{SECRETS}/crm.apiKey"
    assert made.json() == {
        "name": "crm.apiKey",
        "description": "for the CRM",
        "allowed_domains": ["api.example.com"],
        "source": "store",
        "version": 1,
        "created_at": "2023-11-14T22:13:20Z",
        "updated_at": "2023-11-14T22:13:20Z",
        "last_used_at": None,
        "uses": 0,
        "warnings": [],
    }
    assert opened(stage) == VALUE.encode()
    told = [
        made.text,
        stage.call("GET", SECRETS).text,
        stage.call("GET", f"{SECRETS}/crm.apiKey").text,
        stage.call("GET", f"{SECRETS}/crm.apiKey/history").text,
        (stage.home.audit / "audit-admin.jsonl").read_text(),
    ]
    assert [text for text in told if VALUE in text] == []


_SPELT = {
    "as it is": VALUE,
    "in a sentence": f"the key is {VALUE}.",
    "in base64": base64.b64encode(VALUE.encode()).decode(),
    "in base64 without padding": base64.urlsafe_b64encode(VALUE.encode()).decode().rstrip("="),
    "in hexadecimal": VALUE.encode().hex(),
}


@pytest.mark.parametrize("field", ["name", "description"])
@pytest.mark.parametrize("text", _SPELT.values(), ids=_SPELT)
def test_a_name_or_description_that_holds_the_value_is_refused(
    stage: Stage, field: str, text: str
) -> None:
    """Both are shown in lists. Without a value nobody here can know."""
    stage.make()
    new = {"name": "other", "value": VALUE, field: text}
    answers = [stage.call("POST", SECRETS, json=new), change(stage, **{field: text}, value=VALUE)]

    for answer in answers:
        found = problem(answer, 422, "invalid_request")
        assert [one["in"] for one in found["errors"]] == [f"body.{field}"]
        assert text not in answer.text
    assert text not in stage.call("GET", SECRETS).text
    assert text not in (stage.home.audit / "audit-admin.jsonl").read_text()


def test_a_description_may_hold_what_is_no_value(stage: Stage) -> None:
    stage.make(description=OTHER_VALUE[:4])

    assert change(stage, description="of the CRM", value=OTHER_VALUE).status_code == 200


def test_a_value_of_any_bytes_comes_in_base64(stage: Stage) -> None:
    value = bytes(range(256))
    stage.make(value=None, value_base64=base64.b64encode(value).decode())

    assert opened(stage) == value


@pytest.mark.parametrize(
    ("body", "status", "code", "places"),
    [
        pytest.param({"value": None}, 422, "invalid_request", ["body.value"], id="no value"),
        pytest.param({"value": ""}, 422, "invalid_request", ["body.value"], id="an empty value"),
        pytest.param({"value": "short"}, 422, "value_too_short", [], id="a short value"),
        pytest.param({"value": 7}, 422, "invalid_request", ["body.value"], id="a number"),
        pytest.param(
            {"value_base64": "eA=="},
            422,
            "invalid_request",
            ["body.value_base64"],
            id="two values",
        ),
        pytest.param(
            {"value": None, "value_base64": "*"},
            422,
            "invalid_request",
            ["body.value_base64"],
            id="no base64",
        ),
        pytest.param({"name": ""}, 422, "invalid_request", ["body.name"], id="no name"),
        pytest.param({"name": "a\nb"}, 422, "invalid_request", ["body.name"], id="a line end"),
        pytest.param({"name": "x" * 257}, 422, "invalid_request", ["body.name"], id="a long name"),
        pytest.param({"name": "CRM.apikey"}, 409, "name_taken", [], id="a look-alike"),
        pytest.param({"name": "there"}, 409, "name_taken", [], id="a name that is there"),
        pytest.param(
            {"allowed_domains": ["ok.example.com", "https://x/"]},
            422,
            "invalid_request",
            ["body.allowed_domains[1]"],
            id="a URL as a domain",
        ),
        pytest.param(
            {"allowed_domains": ["*.github.io"]},
            422,
            "invalid_request",
            ["body.allowed_domains[0]"],
            id="a wildcard on a public suffix",
        ),
        pytest.param(
            {"allowed_domains": ["*"]}, 422, "any_domain_not_asked_for", [], id="any, not asked for"
        ),
        pytest.param(
            {"any_domain": True}, 422, "invalid_request", ["body.any_domain"], id="any and one"
        ),
        pytest.param(
            {"description": "x" * 4097},
            422,
            "invalid_request",
            ["body.description"],
            id="a long description",
        ),
        pytest.param({"valeu": VALUE}, 422, "invalid_request", ["body"], id="an unknown field"),
    ],
)
def test_what_cannot_be_made(
    stage: Stage, body: dict[str, Any], status: int, code: str, places: list[str]
) -> None:
    for name in ("crm.apiKey", "there"):
        stage.make(name)
    sent = {"name": "new", "value": VALUE, "allowed_domains": ["api.example.com"], **body}
    answer = stage.call("POST", SECRETS, json=sent)

    document = problem(answer, status, code)
    assert [error["in"] for error in document.get("errors", [])] == places
    assert [secret.name for secret in stage.store.secrets()] == ["crm.apiKey", "there"]


@pytest.mark.parametrize(
    ("more", "domains"),
    [
        pytest.param({"any_domain": True, "allowed_domains": []}, ["*"], id="any"),
        pytest.param({"any_domain": True, "allowed_domains": ["*"]}, ["*"], id="any, twice"),
        pytest.param({"allowed_domains": []}, [], id="nowhere"),
        pytest.param({"value": "short", "allow_short": True}, ["api.example.com"], id="short"),
        pytest.param(
            {"allowed_domains": ["*.Example.com", "api.example.com:8443"]},
            ["*.example.com", "api.example.com:8443"],
            id="several",
        ),
    ],
)
def test_what_has_to_be_asked_for_is_made_with_a_warning(
    stage: Stage, more: dict[str, Any], domains: list[str]
) -> None:
    made = stage.make(**more).json()

    assert made["allowed_domains"] == domains
    assert bool(made["warnings"]) is (domains in ([], ["*"]) or "allow_short" in more)


def test_a_list_is_filtered_sorted_and_paged(stage: Stage) -> None:
    for index, name in enumerate(["b", "A", "c", "d"]):
        stage.clock.now = NOW + index
        stage.make(name, description=f"number {index}", allowed_domains=[f"{name}.example.com"])
    stage.store.record_use({stage.store.secrets()[0].id: Used(NOW + 50, 7)})

    def names(query: str) -> list[str]:
        found = stage.call("GET", f"{SECRETS}?{query}").json()
        return [one["name"] for one in found["items"]]

    assert names("") == ["A", "b", "c", "d"]
    assert names("sort=-created_at") == ["d", "c", "A", "b"]
    assert names("sort=-uses&limit=1") == ["A"]
    assert names("sort=-last_used_at&limit=1") == ["A"]
    assert names("q=NUMBER+2") == ["c"]
    assert names("q=d.example") == ["d"]
    assert names("domain=b.example.com") == ["b"]
    assert names("domain=example.com") == []
    page = stage.call("GET", f"{SECRETS}?offset=1&limit=2").json()
    assert [one["name"] for one in page["items"]] == ["b", "c"]
    assert (page["total"], page["next_offset"]) == (4, 3)
    last = stage.call("GET", f"{SECRETS}?offset=3&limit=2").json()
    assert (len(last["items"]), last["next_offset"]) == (1, None)


@pytest.mark.parametrize("query", ["sort=value", "limit=0", "limit=501", "offset=-1", "limit=x"])
def test_what_no_list_takes(stage: Stage, query: str) -> None:
    problem(stage.call("GET", f"{SECRETS}?{query}"), 422, "invalid_request")


@pytest.mark.parametrize(
    "name",
    [
        "a/b",
        "a/history",
        "history",
        "a%2Fb",
        "crm key",
        "ключ",
        "a?b#c",
        'quo"te',
        "../../etc",
        "x/status",
    ],
)
def test_a_name_of_any_characters_has_a_path_of_its_own(stage: Stage, name: str) -> None:
    made = stage.make(name)
    path = made.headers["location"]

    assert path == f"{SECRETS}/{quote(name, safe='')}"
    assert stage.call("GET", path).json()["name"] == name
    assert stage.call("GET", f"{path}/history").json()["name"] == name
    headers = {"If-Match": etag(stage, name)}
    changed = stage.call("PATCH", path, json={"description": "d"}, headers=headers)
    assert changed.json()["description"] == "d"
    assert stage.call("DELETE", path).status_code == 204
    problem(stage.call("GET", path), 404, "secret_not_found")


def test_a_path_that_is_no_text_names_no_secret(stage: Stage) -> None:
    problem(stage.call("GET", f"{SECRETS}/%ff"), 404, "secret_not_found")


def test_the_history_has_each_version_and_no_value(stage: Stage) -> None:
    stage.make()
    stage.clock.now = NOW + 5
    change(stage, value=OTHER_VALUE, allowed_domains=["b.example.com"])

    assert stage.call("GET", f"{SECRETS}/crm.apiKey/history").json() == {
        "name": "crm.apiKey",
        "versions": [
            {
                "version": 1,
                "allowed_domains": ["api.example.com"],
                "created_at": "2023-11-14T22:13:20Z",
                "replaced_at": "2023-11-14T22:13:25Z",
                "value_kept": True,
            },
            {
                "version": 2,
                "allowed_domains": ["b.example.com"],
                "created_at": "2023-11-14T22:13:25Z",
                "replaced_at": None,
                "value_kept": True,
            },
        ],
    }
    problem(stage.call("GET", f"{SECRETS}/nope/history"), 404, "secret_not_found")


# --- change -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "version", "value"),
    [
        pytest.param({"description": "new"}, 1, VALUE, id="a description keeps the value"),
        pytest.param({"value": OTHER_VALUE}, 2, OTHER_VALUE, id="a value alone keeps the domains"),
        pytest.param(
            {"value": OTHER_VALUE, "allowed_domains": ["api.example.com"]},
            2,
            OTHER_VALUE,
            id="a value with domains",
        ),
        pytest.param(
            {"value": OTHER_VALUE, "description": "new"}, 2, OTHER_VALUE, id="value and description"
        ),
    ],
)
def test_what_changes_and_what_stays(
    stage: Stage, body: dict[str, Any], version: int, value: str
) -> None:
    stage.make(description="old")
    changed = change(stage, **body)

    assert changed.status_code == 200
    assert changed.json()["version"] == version
    assert changed.json()["allowed_domains"] == ["api.example.com"]
    assert changed.json()["description"] == body.get("description", "old")
    assert opened(stage) == value.encode()


@pytest.mark.parametrize("more", [{}, {"value": OTHER_VALUE}], ids=["alone", "with a value"])
def test_a_name_changes(stage: Stage, more: dict[str, Any]) -> None:
    stage.make()
    assert change(stage, name="crm.key", **more).json()["name"] == "crm.key"

    assert [secret.name for secret in stage.store.secrets()] == ["crm.key"]
    assert opened(stage, "crm.key") == more.get("value", VALUE).encode()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param({"allowed_domains": ["evil.example"]}, 422, "value_required", id="domains"),
        pytest.param({"allowed_domains": []}, 422, "value_required", id="no domains any more"),
        pytest.param(
            {"allowed_domains": ["evil.example"], "description": "d"},
            422,
            "value_required",
            id="domains with a description",
        ),
        pytest.param({}, 422, "invalid_request", id="nothing"),
        pytest.param({"version": 9}, 422, "invalid_request", id="what cannot be changed"),
        pytest.param({"any_domain": True}, 422, "invalid_request", id="any domain, without"),
        pytest.param({"name": "there"}, 409, "name_taken", id="a name that is there"),
        pytest.param(
            {"name": "There", "value": OTHER_VALUE}, 409, "name_taken", id="and with a value"
        ),
        pytest.param({"value": "short"}, 422, "value_too_short", id="a short value"),
    ],
)
def test_what_cannot_be_changed(stage: Stage, body: dict[str, Any], status: int, code: str) -> None:
    stage.make("there")
    before = stage.make().json()
    problem(change(stage, **body), status, code)

    del before["warnings"]
    assert stage.call("GET", f"{SECRETS}/crm.apiKey").json() == before
    assert opened(stage) == VALUE.encode()


def test_a_change_names_what_it_changes(stage: Stage) -> None:
    stage.make()
    path, tag = f"{SECRETS}/crm.apiKey", etag(stage)
    problem(stage.call("PATCH", path, json={"description": "x"}), 428, "precondition_required")
    changed = change(stage, tag, description="one")
    assert changed.headers["etag"] not in ("", tag)

    problem(change(stage, tag, description="two"), 412, "precondition_failed")
    problem(change(stage, tag, value=OTHER_VALUE), 412, "precondition_failed")
    problem(change(stage, f"W/{changed.headers['etag']}", name="x"), 412, "precondition_failed")
    problem(stage.call("DELETE", path, headers={"If-Match": tag}), 412, "precondition_failed")
    assert change(stage, changed.headers["etag"], description="two").status_code == 200
    assert change(stage, "*", description="three").json()["description"] == "three"
    assert opened(stage) == VALUE.encode()


def test_a_use_is_no_change(stage: Stage) -> None:
    stage.make()
    tag = etag(stage)
    stage.store.record_use({stage.store.secrets()[0].id: Used(NOW + 50, 7)})

    assert etag(stage) == tag
    assert change(stage, tag, description="x").status_code == 200


def test_what_is_not_there_is_not_changed(stage: Stage) -> None:
    for body in ({"description": "x"}, {"value": VALUE}):
        answer = stage.call("PATCH", f"{SECRETS}/nope", json=body, headers={"If-Match": "*"})
        problem(answer, 404, "secret_not_found")
    problem(stage.call("DELETE", f"{SECRETS}/nope"), 404, "secret_not_found")
    assert list(stage.store.secrets()) == []


# --- delete -----------------------------------------------------------------------------------

GRANT = """\
version: 1
clients:
  runner: { networks: ["127.0.0.1/32"] }
grants:
  - secrets: ["crm.*"]
    clients: [runner]
"""


def test_a_secret_that_is_granted_is_not_deleted_unless_forced(stage: Stage) -> None:
    stage.make()
    write_policy(stage.home, GRANT)
    refused = problem(stage.call("DELETE", f"{SECRETS}/crm.apiKey"), 409, "secret_in_use")

    (user,) = refused["used_by"]
    assert (user["kind"], user["line"], user["clients"]) == ("grant", 5, ["runner"])
    assert len(stage.store.secrets()) == 1
    forced = stage.call("DELETE", f"{SECRETS}/crm.apiKey?force=true", role="editor")
    problem(forced, 403, "forbidden")
    assert stage.call("DELETE", f"{SECRETS}/crm.apiKey?force=true").status_code == 204
    assert list(stage.store.secrets()) == []


@pytest.mark.parametrize(
    ("days", "status"), [pytest.param(29, 409, id="lately"), pytest.param(31, 204, id="long ago")]
)
def test_a_secret_that_was_used_lately_is_not_deleted(stage: Stage, days: int, status: int) -> None:
    stage.make()
    stage.store.record_use({stage.store.secrets()[0].id: Used(NOW - days * 86400)})

    assert stage.call("DELETE", f"{SECRETS}/crm.apiKey", role="editor").status_code == status


def test_a_policy_that_cannot_be_read_may_grant_it(stage: Stage) -> None:
    stage.make()
    write_policy(stage.home, "version: 1\ngrants: 7\n")
    refused = problem(stage.call("DELETE", f"{SECRETS}/crm.apiKey"), 409, "secret_in_use")

    assert [user["kind"] for user in refused["used_by"]] == ["policy"]


# --- what is written down ---------------------------------------------------------------------


def test_each_change_is_in_the_audit_log_with_who_made_it(stage: Stage) -> None:
    stage.make()
    change(stage, description="d")
    change(stage, value=OTHER_VALUE, name="crm.key")
    stage.call("DELETE", f"{SECRETS}/crm.key")

    lines = stage.actions_written()
    assert [line["action"] for line in lines] == [
        "secret.create",
        "secret.edit",
        "secret.set",
        "secret.delete",
    ]
    assert {line["by"] for line in lines} == {"the owner"}
    assert {line["decision"] for line in lines} == {"allow"}
    assert lines[0]["domains"] == "api.example.com"
    assert lines[2]["new_name"] == "crm.key"
    assert [line["sequence"] for line in lines] == [1, 2, 3, 4]


def test_what_is_refused_is_not_told_as_done(stage: Stage) -> None:
    stage.make()
    problem(change(stage, '"stale"', description="d"), 412, "precondition_failed")
    problem(change(stage, allowed_domains=["evil.example"]), 422, "value_required")

    assert [line["action"] for line in stage.actions_written()] == ["secret.create"]


def test_what_cannot_be_recorded_is_not_done(stage: Stage) -> None:
    stage.make()
    tag = etag(stage)
    stage.actions.close()
    for method, path, body in [
        ("POST", SECRETS, {"name": "new", "value": VALUE}),
        ("PATCH", f"{SECRETS}/crm.apiKey", {"description": "x"}),
        ("PATCH", f"{SECRETS}/crm.apiKey", {"value": OTHER_VALUE}),
        ("DELETE", f"{SECRETS}/crm.apiKey", None),
    ]:
        answer = stage.call(method, path, json=body, headers={"If-Match": tag})
        problem(answer, 503, "audit_unavailable")
    assert [secret.name for secret in stage.store.secrets()] == ["crm.apiKey"]
    assert opened(stage) == VALUE.encode()


# --- secrets from sources ---------------------------------------------------------------------

FROM_ENV = f"{SECRETS}/env.key"


def declare(stage: Stage, name: str = "env.key") -> None:
    sources = stage.settings.sources_file
    sources.write_text(
        f"version: 1\nsecrets:\n  {name}:\n"
        "    {source: env, variable: KEY, domains: [a.example], description: elsewhere}\n"
    )
    sources.chmod(0o600)


def test_a_secret_from_a_source_is_listed_by_what_the_file_says(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", OTHER_VALUE)
    stage.make()
    declare(stage)
    found = stage.call("GET", SECRETS, role="viewer")

    assert [(one["name"], one["source"]) for one in found.json()["items"]] == [
        ("crm.apiKey", "store"),
        ("env.key", "env (env)"),
    ]
    assert found.json()["items"][1] == {
        "name": "env.key",
        "description": "elsewhere",
        "allowed_domains": ["a.example"],
        "source": "env (env)",
        "version": None,
        "created_at": None,
        "updated_at": None,
        "last_used_at": None,
        "uses": None,
    }
    assert stage.call("GET", FROM_ENV).json() == found.json()["items"][1]
    assert stage.call("GET", f"{FROM_ENV}/history").json()["versions"] == []
    status = stage.call("GET", f"{FROM_ENV}/status").json()
    assert (status["version"], status["workers"], status["uses"]) == (None, [], None)
    assert OTHER_VALUE not in found.text


@pytest.mark.parametrize(
    ("method", "more"),
    [
        pytest.param("PATCH", {"json": {"description": "mine"}}, id="its description"),
        pytest.param("PATCH", {"json": {"name": "mine"}}, id="its name"),
        pytest.param("PATCH", {"json": {"value": OTHER_VALUE}}, id="its value"),
        pytest.param("DELETE", {}, id="the whole"),
        pytest.param("DELETE", {"params": {"force": "true"}}, id="the whole, by force"),
    ],
)
def test_nothing_of_a_secret_from_a_source_is_changed_here(
    stage: Stage, method: str, more: dict[str, Any]
) -> None:
    declare(stage)
    before = stage.settings.sources_file.read_bytes()
    answer = stage.call(method, FROM_ENV, headers={"If-Match": "*"}, **more)

    problem(answer, 409, "secret_from_source")
    assert stage.settings.sources_file.read_bytes() == before
    assert stage.store.secrets() == []


def test_a_sources_file_that_changes_or_breaks_is_followed(stage: Stage) -> None:
    def names() -> list[str]:
        return [one["name"] for one in stage.call("GET", SECRETS).json()["items"]]

    declare(stage)
    assert names() == ["env.key"]
    declare(stage, "another.key")
    assert names() == ["another.key"]
    stage.settings.sources_file.write_text("broken: [")
    assert names() == []
    stage.settings.sources_file.unlink()
    problem(stage.call("GET", f"{SECRETS}/another.key"), 404, "secret_not_found")


def test_a_stored_secret_goes_before_a_declared_one(stage: Stage) -> None:
    stage.make("env.key")
    declare(stage)

    (found,) = stage.call("GET", SECRETS).json()["items"]
    assert found["source"] == "store"
    answer = stage.call("PATCH", FROM_ENV, headers={"If-Match": "*"}, json={"description": "d"})
    assert answer.status_code == 200


def test_a_name_that_a_source_has_is_taken(stage: Stage) -> None:
    declare(stage)
    body = {"name": "env.key", "value": VALUE, "allowed_domains": ["api.example.com"]}

    problem(stage.call("POST", "/api/v1/secrets", json=body), 409, "name_taken")
    made = stage.make("other")
    tag = {"If-Match": made.headers["etag"]}
    answer = stage.call("PATCH", "/api/v1/secrets/other", headers=tag, json={"name": "ENV.key"})
    problem(answer, 409, "name_taken")
