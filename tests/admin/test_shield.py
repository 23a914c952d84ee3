"""What holds for every request: the Host, the size, the header fields of the answer; no echo."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from coatcheck.admin import problems, shield
from coatcheck.admin.problems import ApiProblem, Code
from coatcheck.admin.shield import HEADERS, Shield, host_of
from coatcheck.core.ports import StoreError
from coatcheck.store.home import Home
from tests.admin.stage import VALUE, Stage, problem, staged

SECRETS = "/api/v1/secrets"


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("127.0.0.1:8081", True),
        ("localhost", True),
        ("LOCALHOST:9", True),
        ("[::1]:8081", True),
        ("evil.example", False),
        ("evil.example:8081", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.2", False),
        ("", False),
    ],
)
def test_only_our_own_names_are_answered(stage: Stage, host: str, good: bool) -> None:
    """A page of evil.example, whose name now stands for 127.0.0.1, gets nothing."""
    for path in ("/healthz", SECRETS):
        answer = stage.call("GET", path, headers={"Host": host})
        if good:
            assert answer.status_code == 200
        else:
            problem(answer, 421, "host_not_allowed")


def test_names_may_be_given(home: Home) -> None:
    with staged(home, admin_hosts=("coatcheck.example.com",)) as stage:
        named = stage.call("GET", SECRETS, headers={"Host": "coatcheck.example.com"})
        assert named.status_code == 200
        problem(stage.call("GET", SECRETS), 421, "host_not_allowed")


@pytest.mark.parametrize(
    ("field", "name"),
    [("a:1", "a"), ("A", "a"), ("[::1]:8", "::1"), ("::1", "::1"), ("a:1:2", "a:1:2")],
)
def test_the_name_in_a_host_field(field: str, name: str) -> None:
    assert host_of(field) == name


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", SECRETS, "owner"),
        ("GET", "/nothing", "owner"),
        ("GET", SECRETS, None),
        ("POST", SECRETS, "owner"),
        ("PUT", SECRETS, "owner"),
        ("GET", "/healthz", None),
        ("GET", "/openapi.json", None),
    ],
)
def test_every_answer_has_the_same_header_fields(
    stage: Stage, method: str, path: str, role: str | None
) -> None:
    answer = stage.call(method, path, role=role)

    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    assert [name for name in answer.headers if name.startswith("access-control")] == []
    assert "server" not in answer.headers


def test_no_other_site_may_read_an_answer(stage: Stage) -> None:
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "DELETE"}
    answer = stage.call("OPTIONS", SECRETS, role=None, headers=asked)

    problem(answer, 401, "unauthenticated")
    assert [name for name in answer.headers if name.startswith("access-control")] == []


# --- size -------------------------------------------------------------------------------------


@pytest.fixture
def small(home: Home) -> Iterator[Stage]:
    from dataclasses import replace

    from coatcheck.core.limits import Limits

    with staged(home, limits=replace(Limits(), admin_body_bytes=70_000)) as stage:
        yield stage


def body_of(size: int) -> bytes:
    whole = {"name": "x", "value": "", "allowed_domains": []}
    return json.dumps(whole | {"value": "v" * (size - len(json.dumps(whole)))}).encode()


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
@pytest.mark.parametrize(("size", "good"), [(70_000, True), (70_001, False)])
def test_a_body_is_taken_up_to_the_limit(
    small: Stage, size: int, good: bool, chunked: bool
) -> None:
    body = body_of(size)
    content: Any = iter([body[:1000], body[1000:]]) if chunked else body
    headers = {"Content-Type": "application/json"}
    answer = small.call("POST", SECRETS, content=content, headers=headers)

    if good:
        assert answer.status_code == 201
    else:
        problem(answer, 413, "body_too_large")
    assert len(small.store.secrets()) == good


@pytest.mark.parametrize("length", ["-1", "x", "1" * 30, "1_0"])
def test_a_length_that_is_none_is_too_large(small: Stage, length: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Length": length}

    problem(small.call("POST", SECRETS, content=b"{}", headers=headers), 413, "body_too_large")


def test_a_long_path_leads_nowhere(stage: Stage) -> None:
    problem(stage.call("GET", f"{SECRETS}/{'x' * shield.MAX_PATH}"), 404, "not_found")


# --- nothing comes back -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [
        pytest.param("POST", SECRETS, {"json": {"name": "x", VALUE: VALUE}}, id="unknown field"),
        pytest.param("POST", SECRETS, {"json": {"name": [VALUE]}}, id="another type"),
        pytest.param("POST", SECRETS, {"json": {"name": f"\n{VALUE}", "value": VALUE}}, id="name"),
        pytest.param("POST", SECRETS, {"json": [VALUE]}, id="a list"),
        pytest.param("POST", SECRETS, {"json": VALUE}, id="a text"),
        pytest.param("POST", SECRETS, {"content": f'{{"value": "{VALUE}'}, id="half a JSON"),
        pytest.param("POST", SECRETS, {"data": {"value": VALUE}}, id="a form"),
        pytest.param(
            "POST",
            SECRETS,
            {"json": {"name": "x", "value": VALUE, "allowed_domains": [VALUE + "/"]}},
            id="in a domain",
        ),
        pytest.param(
            "POST", SECRETS, {"json": {"name": "there", "value": VALUE}}, id="a name that is there"
        ),
        pytest.param("POST", SECRETS, {"json": {"name": VALUE, "value": "short"}}, id="as a name"),
        pytest.param("POST", SECRETS, {"json": {"value": VALUE}}, id="no name"),
        pytest.param("GET", f"{SECRETS}/{VALUE}", {}, id="in the path"),
        pytest.param("GET", f"/{VALUE}", {}, id="in another path"),
        pytest.param("GET", f"{SECRETS}?sort={VALUE}", {}, id="in the query"),
        pytest.param("GET", f"/api/v1/audit?cursor={VALUE}", {}, id="as a cursor"),
        pytest.param("GET", f"/api/v1/audit?since={VALUE}", {}, id="as a time"),
        pytest.param("DELETE", f"/api/v1/tokens/{VALUE}", {}, id="as a token's id"),
        pytest.param("POST", "/api/v1/tokens", {"json": {"name": VALUE, "role": VALUE}}, id="role"),
        pytest.param("POST", "/api/v1/session", {"json": {"token": VALUE}}, id="as a token"),
        pytest.param("POST", "/api/v1/session", {"json": {"token": [VALUE]}}, id="as no token"),
        pytest.param(
            "PATCH", f"{SECRETS}/there", {"headers": {"If-Match": VALUE}}, id="in If-Match"
        ),
        pytest.param("BREW", SECRETS, {"headers": {"X-Tea": VALUE}}, id="another method"),
    ],
)
def test_no_refusal_repeats_what_was_sent(
    stage: Stage, method: str, path: str, sent: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    stage.make("there")
    headers = {"Content-Type": "application/json"} if "content" in sent else {}
    answer = stage.call(method, path, **{"headers": headers, **sent})

    assert 400 <= answer.status_code < 500
    problem(answer, answer.status_code, answer.json()["code"])
    told = [answer.text, str(answer.headers), *capsys.readouterr()]
    assert [text for text in told if VALUE in text] == []
    assert VALUE not in (stage.home.audit / "audit-admin.jsonl").read_text()


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        pytest.param(StoreError(VALUE, hint=""), 503, "store_unavailable", id="the store"),
        pytest.param(RuntimeError(VALUE), 500, "internal_error", id="a bug"),
        pytest.param(ValueError(VALUE), 500, "internal_error", id="another bug"),
    ],
)
def test_what_breaks_below_is_told_by_its_code_alone(
    stage: Stage,
    error: Exception,
    status: int,
    code: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(stage.store, "secrets", broken)
    answer = stage.call("GET", SECRETS)

    problem(answer, status, code)
    assert VALUE not in answer.text


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        pytest.param(StoreError(VALUE, hint=""), 503, "store_unavailable", id="the store"),
        pytest.param(RuntimeError(VALUE), 500, "internal_error", id="a bug"),
    ],
)
def test_what_breaks_at_the_gate_lets_nobody_in(
    stage: Stage, error: Exception, status: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(stage.store, "find_token", broken)
    answer = stage.call("GET", SECRETS)

    problem(answer, status, code)
    assert VALUE not in answer.text
    assert answer.headers["cache-control"] == "no-store"


# --- problems ---------------------------------------------------------------------------------


def test_every_code_has_a_status_and_a_title() -> None:
    assert set(problems.TABLE) == set(Code)
    assert all(400 <= status < 600 and title for status, title in problems.TABLE.values())


def test_a_problem_is_a_document_of_rfc_9457() -> None:
    made = ApiProblem(Code.NAME_TAKEN, "What.", hint="How.", errors=[("body.x", "is y")])

    assert json.loads(made.body()) == {
        "type": "urn:coatcheck:problem:name_taken",
        "title": "Another secret has this name, or one that looks like it",
        "status": 409,
        "detail": "What.",
        "code": "name_taken",
        "hint": "How.",
        "errors": [{"in": "body.x", "problem": "is y"}],
    }


async def test_what_is_no_http_is_not_answered() -> None:
    async def app(*_: object) -> None:
        raise AssertionError

    sent: list[object] = []
    for kind in ("websocket", "lifespan"):

        async def send(message: object) -> None:
            sent.append(message)

        async def receive() -> dict[str, Any]:
            return {}

        await Shield(app, ["localhost"], 100)({"type": kind}, receive, send)  # type: ignore[arg-type]
    assert sent == []


def test_the_page_of_a_browser_is_the_log_in(home: Home, stage: Stage) -> None:
    from coatcheck.admin.web import make_app

    app = make_app(stage.settings, stage.service, stage.auth, log_in_page="/login")
    browser = TestClient(app, "http://127.0.0.1:8081", follow_redirects=False)
    answer = browser.get("/", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")

    problem(browser.get(SECRETS, headers={"Accept": "text/html"}), 401, "unauthenticated")
    problem(browser.get("/"), 401, "unauthenticated")


def test_values_are_no_part_of_any_path(tmp_path: Path, stage: Stage) -> None:
    """The description of the API has no way to read a value."""
    described = stage.call("GET", "/openapi.json", role=None).json()
    out = [
        name
        for name, schema in described["components"]["schemas"].items()
        if {"value", "value_base64"} & set(schema.get("properties", {}))
    ]

    assert sorted(out) == ["SecretChange", "SecretNew"]
    assert described["info"]["title"] == "coatcheck"
