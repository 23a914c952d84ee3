"""Who is let in: tokens, sessions, roles; and how often somebody may be wrong."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

from coatcheck.admin import throttle, web
from coatcheck.admin.api import event_routes
from coatcheck.admin.api.deps import Viewer
from coatcheck.admin.problems import ApiProblem
from coatcheck.admin.roles import Role
from coatcheck.admin.sessions import COOKIE, cookie_in
from coatcheck.admin.throttle import Throttle
from coatcheck.store.home import token_hash
from tests.admin.stage import Stage, problem
from tests.store.stores import NOW, Clock

SESSION = "/api/v1/session"
SECRETS = "/api/v1/secrets"
ROUTES = [
    (method, route.path, web.needs_of(route))
    for router in web.API
    for route in router.routes
    if isinstance(route, APIRoute)
    for method in sorted(route.methods)
]
OPEN = [(m, p) for m, p, role in ROUTES if role is None]


# --- every route ------------------------------------------------------------------------------


def test_what_needs_no_credential_is_counted() -> None:
    """A new one has to be put down here, on purpose."""
    assert sorted(OPEN) == sorted(NO_CREDENTIAL)


NO_CREDENTIAL = [
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/openapi.json"),
    ("POST", SESSION),
]


@pytest.fixture(autouse=True)
def _events_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is let begin would go on for ever."""

    async def none(*_: object, **__: object) -> AsyncIterator[str]:
        for text in ():
            yield text

    monkeypatch.setattr(event_routes, "events_for", none)


@pytest.mark.parametrize(
    ("method", "path"), [(m, p) for m, p, role in ROUTES if role is not None], ids=str
)
def test_every_route_refuses_without_a_credential(stage: Stage, method: str, path: str) -> None:
    answer = stage.call(method, _filled(path), role=None, json={})

    document = problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == 'Bearer realm="coatcheck"'
    assert "secret" not in document["detail"]


@pytest.mark.parametrize(
    ("method", "path", "needed", "role"),
    [(m, p, needed, role) for m, p, needed in ROUTES if needed for role in Role],
    ids=str,
)
def test_each_role_is_held_to_its_rights(
    stage: Stage, method: str, path: str, needed: Role, role: Role
) -> None:
    answer = stage.call(method, _filled(path), role=role, json={})

    if role.covers(needed):
        assert answer.status_code not in (401, 403)
    else:
        problem(answer, 403, "forbidden")


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/admin", "/docs", "/api/v1/secrets/"])
def test_what_is_not_there_is_nobodys_business(stage: Stage, path: str) -> None:
    problem(stage.call("GET", path, role=None), 401, "unauthenticated")
    problem(stage.call("GET", path), 404, "not_found")


def test_a_method_that_is_not_there(stage: Stage) -> None:
    answer = stage.call("PUT", SECRETS)

    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"]
    problem(stage.call("OPTIONS", SECRETS, role=None), 401, "unauthenticated")


def test_a_route_that_says_no_role_is_not_served() -> None:
    router = APIRouter()

    @router.get("/forgotten")
    def forgotten() -> None: ...

    with pytest.raises(RuntimeError, match="/forgotten says no role"):
        web.check([router], web.PUBLIC)
    web.check([router], [*web.PUBLIC, "GET /forgotten"])

    guarded = APIRouter()

    @guarded.get("/guarded")
    def is_guarded(actor: Viewer) -> None: ...

    web.check([guarded], web.PUBLIC)


def _filled(path: str) -> str:
    return re.sub(r"\{\w+\}", "crm.apiKey", path)


# --- tokens -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("", id="empty"),
        pytest.param("Bearer", id="nothing behind it"),
        pytest.param("Bearer ct_unknown", id="unknown"),
        pytest.param("Basic {token}", id="another scheme"),
        pytest.param("{token}", id="no scheme"),
        pytest.param("Bearer {token}x", id="longer"),
        pytest.param("Bearer {hash}", id="the hash of a token"),
        pytest.param("Bearer " + "x" * 9000, id="too long"),
        pytest.param("Bearer a.b.c", id="a JWT, with no issuer"),
    ],
)
def test_what_is_no_credential(stage: Stage, header: str) -> None:
    token = stage.tokens["owner"]
    sent = {"Authorization": header.format(token=token, hash=token_hash(token))}

    problem(stage.browser().get(SECRETS, headers=sent), 401, "unauthenticated")


def test_two_credentials_are_none(stage: Stage) -> None:
    bearer = f"Bearer {stage.tokens['owner']}"
    sent = [("Authorization", bearer), ("Authorization", bearer)]

    problem(stage.browser().get(SECRETS, headers=sent), 401, "unauthenticated")


@pytest.mark.parametrize(
    ("after", "status"), [pytest.param(99, 200, id="before"), pytest.param(100, 401, id="at")]
)
def test_a_token_ends(stage: Stage, after: int, status: int) -> None:
    stage.tokens["short"] = stage.token("viewer", expires_at=NOW + 100)
    stage.clock.now = NOW + after

    assert stage.call("GET", SECRETS, role="short").status_code == status


def test_a_token_of_a_role_that_nobody_knows_is_none(stage: Stage) -> None:
    stage.tokens["root"] = stage.token("root")

    problem(stage.call("GET", SECRETS, role="root"), 401, "unauthenticated")


def test_the_last_use_of_a_token_is_noted(stage: Stage) -> None:
    stage.clock.now = NOW + 500
    stage.call("GET", SECRETS, role="viewer")

    found = stage.store.find_token(token_hash(stage.tokens["viewer"]))
    assert found is not None
    assert found.last_used_at == NOW + 500


def test_wrong_credentials_are_in_the_audit_log(stage: Stage) -> None:
    stage.browser().get(SECRETS, headers={"Authorization": "Bearer ct_wrong"})

    (line,) = stage.actions_written()
    assert (line["action"], line["decision"], line["code"]) == (
        "log_in",
        "refuse",
        "unauthenticated",
    )
    assert "ct_wrong" not in str(line)


# --- sessions ---------------------------------------------------------------------------------


def logged_in(stage: Stage, role: str = "owner") -> tuple[Any, str]:
    """A browser with a session, and the CSRF token of that."""
    browser = stage.browser(base_url="https://127.0.0.1:8081")  # its jar heeds Secure
    answer = browser.post(SESSION, json={"token": stage.tokens[role]})
    assert answer.status_code == 201
    return browser, answer.json()["csrf"]


def test_a_session_is_a_cookie_that_only_the_browser_sees(stage: Stage) -> None:
    answer = stage.browser().post(SESSION, json={"token": stage.tokens["editor"]})
    cookie = answer.headers["set-cookie"]

    assert re.fullmatch(COOKIE + r"=[\w-]{43}; Path=/; Secure; HttpOnly; SameSite=Strict", cookie)
    who = answer.json()
    assert (who["name"], who["role"], who["kind"]) == ("the editor", "editor", "token")
    assert len(who["csrf"]) == 43
    assert who["csrf"] not in cookie


def test_a_session_stands_for_its_token(stage: Stage) -> None:
    browser, csrf = logged_in(stage, "viewer")

    assert browser.get(SECRETS).status_code == 200
    assert browser.get(SESSION).json()["csrf"] == csrf
    body = {"name": "x", "value": "long-enough"}
    refused = browser.post(SECRETS, json=body, headers={"X-CSRF-Token": csrf})
    problem(refused, 403, "forbidden")


def test_no_session_without_a_good_token(stage: Stage) -> None:
    answer = stage.browser().post(SESSION, json={"token": "ct_wrong"})

    problem(answer, 401, "unauthenticated")
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"X-CSRF-Token": "{csrf}"}, 201, id="the token"),
        pytest.param({}, 403, id="no token"),
        pytest.param({"X-CSRF-Token": "wrong"}, 403, id="another token"),
        pytest.param({"X-CSRF-Token": ""}, 403, id="an empty token"),
        pytest.param(
            {"X-CSRF-Token": "{csrf}", "Origin": "https://127.0.0.1:8081"}, 201, id="our origin"
        ),
        pytest.param(
            {"X-CSRF-Token": "{csrf}", "Origin": "https://evil.example"}, 403, id="another origin"
        ),
        pytest.param({"X-CSRF-Token": "{csrf}", "Origin": "null"}, 403, id="a hidden origin"),
        pytest.param(
            {"X-CSRF-Token": "{csrf}", "Origin": "https://127.0.0.1:9999"}, 403, id="another port"
        ),
        pytest.param(
            {"X-CSRF-Token": "{csrf}", "Sec-Fetch-Site": "same-origin"}, 201, id="same-origin"
        ),
        pytest.param({"X-CSRF-Token": "{csrf}", "Sec-Fetch-Site": "none"}, 201, id="typed in"),
        pytest.param(
            {"X-CSRF-Token": "{csrf}", "Sec-Fetch-Site": "same-site"}, 403, id="same-site"
        ),
        pytest.param(
            {"X-CSRF-Token": "{csrf}", "Sec-Fetch-Site": "cross-site"}, 403, id="cross-site"
        ),
    ],
)
def test_what_changes_something_shows_that_the_page_sent_it(
    stage: Stage, headers: dict[str, str], status: int
) -> None:
    browser, csrf = logged_in(stage)
    sent = {name: text.format(csrf=csrf) for name, text in headers.items()}
    answer = browser.post(SECRETS, json={"name": "x", "value": "long-enough"}, headers=sent)

    assert answer.status_code == status
    if status == 403:
        problem(answer, 403, "csrf_failed")
    assert len(stage.store.secrets()) == (status == 201)


@pytest.mark.parametrize(
    ("form", "code"),
    [
        pytest.param("csrf={csrf}&name=x", "unsupported_media_type", id="in the form"),
        pytest.param("name=x", "csrf_failed", id="not in the form"),
        pytest.param("csrf=wrong", "csrf_failed", id="another"),
        pytest.param("csrf={csrf}&csrf={csrf}", "csrf_failed", id="twice"),
    ],
)
def test_a_form_may_hold_the_token(stage: Stage, form: str, code: str) -> None:
    """No route of the API takes a form: who gets past the token is told so."""
    browser, csrf = logged_in(stage)
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = browser.post(SECRETS, content=form.format(csrf=csrf), headers=kind)

    problem(answer, answer.status_code, code)


def test_another_sites_page_begins_no_session(stage: Stage) -> None:
    body = {"token": stage.tokens["owner"]}
    answer = stage.browser().post(SESSION, json=body, headers={"Origin": "https://evil.example"})

    problem(answer, 403, "csrf_failed")


def test_a_bearer_credential_needs_no_csrf_token_and_a_cookie_beside_it_counts_for_nothing(
    stage: Stage,
) -> None:
    browser, _ = logged_in(stage)
    body = {"name": "x", "value": "long-enough"}
    bearer = {"Authorization": f"Bearer {stage.tokens['editor']}"}

    assert browser.post(SECRETS, json=body, headers=bearer).status_code == 201
    wrong = {"Authorization": "Bearer ct_wrong"}
    problem(browser.get(SECRETS, headers=wrong), 401, "unauthenticated")


def test_a_session_ends_when_it_is_said(stage: Stage) -> None:
    browser, csrf = logged_in(stage)
    kept = browser.cookies[COOKIE]
    answer = browser.delete(SESSION, headers={"X-CSRF-Token": csrf})

    assert answer.status_code == 204
    assert "Max-Age=0" in answer.headers["set-cookie"]
    again = stage.browser().get(SECRETS, headers={"Cookie": f"{COOKIE}={kept}"})
    problem(again, 401, "unauthenticated")


@pytest.mark.parametrize(
    ("steps", "good"),
    [
        pytest.param([1799, 1799], True, id="used again and again"),
        pytest.param([1801], False, id="idle for too long"),
        pytest.param([1700] * 26, False, id="used, for too long"),
    ],
)
def test_a_session_ends_by_itself(stage: Stage, steps: list[int], good: bool) -> None:
    browser, _ = logged_in(stage)
    answer = None
    for step in steps:
        stage.clock.now += step
        answer = browser.get(SECRETS)

    assert answer is not None
    assert (answer.status_code == 200) is good


@pytest.mark.parametrize("how", ["revoked", "ended", "of another role"])
def test_a_session_ends_with_its_token(stage: Stage, how: str) -> None:
    stage.tokens["mine"] = stage.token("editor", expires_at=NOW + 60)
    browser, _ = logged_in(stage, "mine")
    assert browser.get(SECRETS).status_code == 200
    sha256 = token_hash(stage.tokens["mine"])
    if how == "ended":
        stage.clock.now += 60
    else:
        stage.store.remove_token(sha256[:16], now=NOW)
    if how == "of another role":
        stage.store.add_token(sha256, role="owner", now=NOW)

    problem(browser.get(SECRETS), 401, "unauthenticated")


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (f"{COOKIE}=abc", "abc"),
        (f"a=b; {COOKIE}=abc; c=d", "abc"),
        (f"{COOKIE}=abc; {COOKIE}=def", ""),
        ("a=b", ""),
        (f"x{COOKIE}=abc", ""),
    ],
)
def test_which_cookie_is_ours(header: str, value: str) -> None:
    assert cookie_in(header) == value


# --- throttle ---------------------------------------------------------------------------------


def wrong(stage: Stage, address: str = "testclient") -> int:
    browser = stage.browser(client=(address, 50000))
    return browser.get(SECRETS, headers={"Authorization": "Bearer ct_wrong"}).status_code


def test_who_is_wrong_too_often_waits(stage: Stage) -> None:
    seen = [wrong(stage) for _ in range(throttle.PER_ADDRESS + 1)]
    assert seen == [401] * throttle.PER_ADDRESS + [429]

    browser = stage.browser(client=("testclient", 50000))
    refused = browser.get(SECRETS, headers={"Authorization": "Bearer ct_wrong"})
    problem(refused, 429, "too_many_attempts")
    assert refused.headers["retry-after"] == "7"
    assert wrong(stage, "another") == 401
    stage.clock.now += throttle.PER_ADDRESS_S
    assert [wrong(stage), wrong(stage)] == [401, 429]


def test_a_right_credential_is_not_held_up_by_wrong_ones_of_its_address(stage: Stage) -> None:
    for _ in range(throttle.PER_ADDRESS + 1):
        wrong(stage)

    assert stage.call("GET", SECRETS).status_code == 200
    assert stage.auth.log_in(stage.tokens["viewer"], "testclient")
    assert wrong(stage) == 429  # and speaks for itself alone


def test_wrong_ones_that_wait_leave_no_line(stage: Stage) -> None:
    for _ in range(throttle.PER_ADDRESS + 5):
        wrong(stage)

    refused = stage.call("GET", "/api/v1/audit?decision=refuse").json()["items"]
    assert len(refused) == throttle.PER_ADDRESS


def test_a_session_does_not_wait(stage: Stage) -> None:
    browser, _ = logged_in(stage)
    for _ in range(throttle.PER_ADDRESS + 1):
        wrong(stage)

    assert browser.get(SECRETS).status_code == 200


def test_many_addresses_together_wait() -> None:
    clock = Clock()
    asked = Throttle(clock)
    for index in range(throttle.FOR_ALL):
        asked.was_wrong(f"10.0.{index // 250}.{index % 250}")

    with pytest.raises(ApiProblem, match="too_many_attempts"):
        asked.was_wrong("stranger")
    clock.now += throttle.FOR_ALL_S + 0.01
    asked.was_wrong("stranger")


def test_its_memory_is_bounded() -> None:
    asked = Throttle(Clock())
    for index in range(throttle.ADDRESSES * 2):
        with suppress(ApiProblem):
            asked.was_wrong(str(index))

    assert len(asked._wrong) == throttle.ADDRESSES
