"""The page without a browser: who may do what, what comes in, and that no value comes back."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from coatcheck.admin import web
from coatcheck.admin.roles import Role
from coatcheck.admin.ui import site
from coatcheck.core.ports import Used
from coatcheck.store.sql import SqlStore
from tests.admin.stage import OTHER_VALUE, VALUE, Stage, write_policy
from tests.store.stores import NOW, open_store

HTML = {"Accept": "text/html,application/xhtml+xml"}
GRANT = """\
version: 1
clients: {runner: {networks: ["127.0.0.1/32"]}}
grants:
  - {secrets: [crm.apiKey], clients: [runner]}
"""
ROUTES = [
    (method, route.path, web.needs_of(route))
    for router in site.ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute)
    for method in sorted(route.methods)
]
HELD = [(method, path, role) for method, path, role in ROUTES if role is not None]
REACHES_FORMS = ["/secrets/new", "/secrets/edit", "/secrets/delete", "/tokens", "/tokens/revoke"]


@dataclass
class Visitor:
    """A browser profile that is logged in. Its jar heeds Secure, so the address is https."""

    client: TestClient

    def get(self, path: str, **query: str) -> httpx.Response:
        return self.client.get(path, params=query or None, headers=HTML, follow_redirects=False)

    def post(self, path: str, **fields: str) -> httpx.Response:
        """Fills in the form as it was shown: with the CSRF token of the session."""
        fields = {"csrf": self.csrf(), **fields}
        return self.client.post(path, data=fields, headers=HTML, follow_redirects=False)

    def csrf(self) -> str:
        return field_of(self.get("/secrets").text, "csrf")


def visitor(stage: Stage, role: str = "owner") -> Visitor:
    client = stage.browser(base_url="https://127.0.0.1:8081")
    answer = client.post(
        "/login", data={"token": stage.tokens[role]}, headers=HTML, follow_redirects=False
    )
    assert answer.headers["location"] == "/secrets"
    return Visitor(client)


def field_of(text: str, name: str) -> str:
    """What the hidden field *name* of a page holds."""
    found = re.search(rf'type="hidden" name="{name}" value="([^"]*)"', text)
    assert found is not None, name
    return html.unescape(found[1])


def opened(stage: Stage, name: str = "crm.apiKey") -> bytes:
    """The value, as a worker reads it."""
    store: SqlStore = open_store(stage.home, stage.clock)
    try:
        view = store.view()
        secret = view.find(name)
        assert secret is not None
        return view.open(secret).reveal()
    finally:
        store.close()


def domains(stage: Stage, name: str = "crm.apiKey") -> list[str]:
    secret = stage.store.find(name)
    assert secret is not None
    return [str(pattern) for pattern in secret.domains]


def edited(visit: Visitor, name: str = "crm.apiKey", /, **changes: str) -> httpx.Response:
    """The form of *name* as it is, with *changes*, sent."""
    shown = visit.get("/secrets/edit", name=name).text
    boxes = re.findall(r'<textarea id="(\w+)"[^>]*>\n?([^<]*)</textarea>', shown)
    texts = {field: html.unescape(text) for field, text in boxes}
    texts |= {field: field_of(shown, field) for field in ("name", "etag")}
    return visit.post("/secrets/edit", **{"new_name": name, **texts, **changes})


# --- who --------------------------------------------------------------------------------------


def test_what_needs_no_credential_is_counted() -> None:
    """A new one has to be put down here, on purpose."""
    open_ = sorted((method, path) for method, path, role in ROUTES if role is None)
    assert open_ == [("GET", "/login"), ("GET", "/static/{name}"), ("POST", "/login")]


def test_the_role_of_each_page_is_written_down() -> None:
    """One that takes less than before has to be put down here, on purpose."""
    assert {(method, path) for method, path, role in HELD if role is Role.OWNER} == {
        ("GET", "/tokens"),
        ("POST", "/tokens"),
        ("GET", "/tokens/revoke"),
        ("POST", "/tokens/revoke"),
    }
    assert {(method, path) for method, path, role in HELD if role is Role.EDITOR} == {
        (method, path)
        for method in ("GET", "POST")
        for path in ("/secrets/new", "/secrets/edit", "/secrets/delete")
    }


def test_without_a_session_each_page_leads_to_the_log_in(stage: Stage) -> None:
    browser = stage.browser()
    for method, path, _role in HELD:
        answer = browser.request(method, path, headers=HTML, follow_redirects=False)
        assert (answer.status_code, answer.headers.get("location")) == (303, "/login"), path


@pytest.mark.parametrize("mine", list(Role))
def test_each_role_is_held_to_its_rights(stage: Stage, mine: Role) -> None:
    browser = stage.browser()
    sent = {**HTML, "Authorization": f"Bearer {stage.tokens[mine]}"}
    for method, path, role in HELD:
        answer = browser.request(method, path, headers=sent, follow_redirects=False)
        assert (answer.status_code == 403) == (not mine.covers(role)), (method, path)


@pytest.mark.parametrize("path", REACHES_FORMS)
def test_a_post_without_the_token_of_the_session_changes_nothing(stage: Stage, path: str) -> None:
    stage.make()
    visit = visitor(stage)
    fields = {
        "name": "crm.apiKey",
        "value": OTHER_VALUE,
        "role": "owner",
        "etag": "*",
        "force": "1",
    }

    answer = visit.post(path, **fields, csrf="wrong")

    assert answer.status_code == 403
    assert "Your role" not in answer.text
    assert "older than your session" in answer.text
    assert opened(stage) == VALUE.encode()


@pytest.mark.parametrize("role", ["viewer", "editor", "owner"])
def test_a_page_shows_the_controls_that_a_role_may_use(stage: Stage, role: str) -> None:
    stage.make()
    visit = visitor(stage, role)
    shown = visit.get("/secrets").text + visit.get("/secrets/show", name="crm.apiKey").text

    may_edit, is_owner = role != "viewer", role == "owner"
    for control in ("/secrets/new", "/secrets/edit?", "/secrets/delete?"):
        assert (control in shown) == may_edit
    assert ('href="/tokens"' in shown) == is_owner
    assert (visit.get("/secrets/new").status_code == 200) == may_edit
    assert (visit.get("/tokens").status_code == 200) == is_owner


def test_a_wrong_token_is_told_beside_its_field_and_not_repeated(stage: Stage) -> None:
    answer = stage.browser().post("/login", data={"token": "ct_not-one-of-ours"}, headers=HTML)

    assert answer.status_code == 422
    assert "no token that is known" in answer.text
    assert "ct_not-one-of-ours" not in answer.text
    assert "set-cookie" not in answer.headers


def test_too_many_wrong_tokens_have_to_wait(stage: Stage) -> None:
    for _ in range(10):
        stage.browser().post("/login", data={"token": "ct_wrong"}, headers=HTML)
    answer = stage.browser().post("/login", data={"token": "ct_wrong"}, headers=HTML)

    assert answer.status_code == 429
    assert answer.headers["retry-after"]
    assert "too many wrong tokens" in answer.text


def test_logging_out_ends_the_session(stage: Stage) -> None:
    visit = visitor(stage)
    kept = dict(visit.client.cookies)

    assert visit.post("/logout").headers["location"] == "/login"
    visit.client.cookies.update(kept)
    assert visit.get("/secrets").status_code == 303


def test_a_part_of_a_page_sends_whoever_is_logged_out_to_the_log_in(stage: Stage) -> None:
    answer = stage.browser().get("/activity", headers={"HX-Request": "true"})

    assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/login")


# --- values -----------------------------------------------------------------------------------


def test_a_secret_is_made(stage: Stage) -> None:
    visit = visitor(stage, "editor")
    answer = visit.post(
        "/secrets/new",
        name="crm.apiKey",
        value=VALUE,
        domains="api.example.com\r\n\r\n *.example.org , example.net",
        description="for the\r\nCRM",
    )

    assert answer.headers["location"] == "/secrets/show?name=crm.apiKey"
    assert opened(stage) == VALUE.encode()
    assert domains(stage) == ["api.example.com", "*.example.org", "example.net"]
    secret = stage.store.find("crm.apiKey")
    assert secret is not None
    assert secret.description == "for the\nCRM"
    first, again = (visit.get(answer.headers["location"]).text for _ in range(2))
    assert "Created:" in first
    assert "Created:" not in again
    assert VALUE not in first


@pytest.mark.parametrize(
    ("typed", "more", "kept"),
    [
        pytest.param(
            "a\r\nb-and-more\r\n", {}, b"a\nb-and-more", id="lines end in LF, no last one"
        ),
        pytest.param("two-ends\r\n\r\n", {}, b"two-ends\n", id="one line end is taken off"),
        pytest.param(" blanks stay ", {}, b" blanks stay ", id="blanks stay"),
        pytest.param("grüße-an-alle", {}, "grüße-an-alle".encode(), id="UTF-8"),
        pytest.param("a+b&c=d%20e", {}, b"a+b&c=d%20e", id="what a form has to escape"),
        pytest.param("AAEC\r\nAwQFBgcI", {"encoding": "base64"}, bytes(range(9)), id="base64"),
        pytest.param("short", {"allow_short": "yes"}, b"short", id="a short one, if asked for"),
    ],
)
def test_a_value_comes_in_as_it_was_meant(
    stage: Stage, typed: str, more: Mapping[str, str], kept: bytes
) -> None:
    answer = visitor(stage).post("/secrets/new", name="x", value=typed, **more)

    assert answer.status_code == 303, answer.text
    assert opened(stage, "x") == kept


WRONG = {
    "no name": ({"name": ""}, "name"),
    "a name that is taken": ({"name": "crm.apiKey"}, "name"),
    "no such domain": ({"domains": "api.example.com\nnot a domain"}, "domains"),
    "any domain, not asked for": ({"domains": "*"}, "any_domain"),
    "any domain and others": ({"any_domain": "yes", "domains": "a.example.com"}, "any_domain"),
    "no base64": ({"encoding": "base64"}, "value"),
    "the value in the name": ({"name": f"x {OTHER_VALUE}\t"}, "name"),
    "the value in the domains": ({"domains": f"{OTHER_VALUE} x"}, "domains"),
    "the value in the description": ({"name": "", "description": f"is {OTHER_VALUE}"}, "name"),
}


@pytest.mark.parametrize(("fields", "place"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_told_beside_its_field_and_the_value_is_not_repeated(
    stage: Stage, fields: Mapping[str, str], place: str
) -> None:
    stage.make()
    answer = visitor(stage).post("/secrets/new", **{"name": "new", "value": OTHER_VALUE, **fields})

    assert answer.status_code in (409, 422)
    assert f'id="{place}-error"' in answer.text
    assert f'href="#{place}"' in answer.text
    assert OTHER_VALUE not in html.unescape(answer.text)
    assert answer.headers["cache-control"] == "no-store"
    assert [secret.name for secret in stage.store.secrets()] == ["crm.apiKey"]


def test_after_a_mistake_the_rest_of_the_form_is_still_there(stage: Stage) -> None:
    answer = visitor(stage).post(
        "/secrets/new", name="a <b>", value="short", domains="api.example.com", description="why"
    )

    assert 'value="a &lt;b&gt;"' in answer.text
    assert "api.example.com</textarea>" in answer.text
    assert "why</textarea>" in answer.text


def test_an_edit_without_a_value_keeps_it(stage: Stage) -> None:
    stage.make()
    answer = edited(visitor(stage, "editor"), description="other words", new_name="crm.key")

    assert answer.headers["location"] == "/secrets/show?name=crm.key"
    assert opened(stage, "crm.key") == VALUE.encode()
    secret = stage.store.find("crm.key")
    assert secret is not None
    assert (secret.version, secret.description) == (1, "other words")


def test_a_new_value_is_a_new_version_and_domains_stay(stage: Stage) -> None:
    stage.make()
    assert edited(visitor(stage, "editor"), value=OTHER_VALUE).status_code == 303

    assert opened(stage) == OTHER_VALUE.encode()
    assert domains(stage) == ["api.example.com"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"domains": "evil.example.net"}, id="another one"),
        pytest.param({"domains": "api.example.com\nevil.example.net"}, id="one more"),
        pytest.param({"domains": "API.example.com:444"}, id="another port"),
        pytest.param({"domains": ""}, id="none"),
        pytest.param({"any_domain": "yes"}, id="any besides"),
        pytest.param({"domains": "", "any_domain": "yes"}, id="any"),
        pytest.param({"domains": "*"}, id="any, as a pattern"),
    ],
)
def test_nobody_makes_a_value_go_to_a_new_domain_without_having_it(
    stage: Stage, change: Mapping[str, str]
) -> None:
    """Whoever cannot read a value cannot have it sent to a host of their own: the page, too."""
    stage.make()
    visit = visitor(stage, "owner")

    refused = edited(visit, **change)
    assert refused.status_code == 422
    assert 'id="value-error"' in refused.text or 'id="any_domain-error"' in refused.text
    assert domains(stage) == ["api.example.com"]
    assert opened(stage) == VALUE.encode()

    moved = edited(visit, domains="other.example.net", value=OTHER_VALUE)
    assert moved.status_code == 303
    assert domains(stage) == ["other.example.net"]
    assert opened(stage) == OTHER_VALUE.encode()


def test_an_edit_of_what_was_changed_meanwhile_is_explained(stage: Stage) -> None:
    stage.make()
    visit = visitor(stage)
    shown = visit.get("/secrets/edit", name="crm.apiKey").text
    etag = field_of(shown, "etag")
    edited(visitor(stage, "editor"), description="of somebody else")

    fields = {"name": "crm.apiKey", "new_name": "crm.apiKey", "description": "mine"}
    fields["domains"] = "api.example.com"
    refused = visit.post("/secrets/edit", **fields, etag=etag, value=OTHER_VALUE)

    assert refused.status_code == 412
    assert "Somebody has changed this secret" in refused.text
    assert "of somebody else" in refused.text
    assert "mine</textarea>" in refused.text
    assert OTHER_VALUE not in refused.text
    assert opened(stage) == VALUE.encode()
    again = visit.post("/secrets/edit", **fields, etag=field_of(refused.text, "etag"))
    assert again.status_code == 303


def test_after_a_mistake_the_form_still_stands_for_what_it_was_made_of(stage: Stage) -> None:
    """A wrong field must not turn an old form into one that overwrites what it never showed."""
    stage.make()
    visit = visitor(stage)
    shown = visit.get("/secrets/edit", name="crm.apiKey").text
    edited(visitor(stage, "editor"), description="of somebody else")

    wrong = visit.post(
        "/secrets/edit",
        name="crm.apiKey",
        new_name="crm.apiKey",
        etag=field_of(shown, "etag"),
        domains="elsewhere.example.net",
    )

    assert wrong.status_code == 422
    assert field_of(wrong.text, "etag") == field_of(shown, "etag")


def test_warnings_about_a_value_are_said_once_and_hold_nothing_of_it(stage: Stage) -> None:
    visit = visitor(stage)
    answer = visit.post("/secrets/new", name="x", value="password123", domains="a.example.com")

    shown = visit.get(answer.headers["location"]).text
    assert "common word" in shown
    assert "password123" not in shown


# --- delete -----------------------------------------------------------------------------------


def test_deleting_asks_first(stage: Stage) -> None:
    stage.make()
    visit = visitor(stage, "editor")

    shown = visit.get("/secrets/delete", name="crm.apiKey").text
    assert "No grant names it" in shown
    done = visit.post("/secrets/delete", name="crm.apiKey", etag=field_of(shown, "etag"))

    assert done.headers["location"] == "/secrets"
    assert stage.store.find("crm.apiKey") is None


def test_what_is_in_use_is_not_deleted_and_says_who_uses_it(stage: Stage) -> None:
    stage.make()
    write_policy(stage.home, GRANT)
    users = open_store(stage.home, stage.clock)
    secret = users.find("crm.apiKey")
    assert secret is not None
    users.record_use({secret.id: Used(NOW - 60)})
    users.close()

    for role, button in (("editor", False), ("owner", True)):
        visit = visitor(stage, role)
        shown = visit.get("/secrets/delete", name="crm.apiKey").text
        assert "Line 4 of the policy" in shown
        assert "<bdi>runner</bdi>" in shown
        assert "within 30 days" in shown
        assert ('class="danger"' in shown) == button
        etag = field_of(shown, "etag")
        refused = visit.post("/secrets/delete", name="crm.apiKey", etag=etag)
        assert refused.status_code == 409
        assert "somebody would miss it" in refused.text
    assert (
        visitor(stage, "editor")
        .post("/secrets/delete", name="crm.apiKey", etag=etag, force="yes")
        .status_code
        == 403
    )
    forced = visitor(stage).post("/secrets/delete", name="crm.apiKey", etag=etag, force="yes")
    assert forced.status_code == 303


@pytest.mark.parametrize("etag", ["", "old"], ids=["without a version", "an old version"])
def test_deleting_what_was_changed_meanwhile_is_refused(stage: Stage, etag: str) -> None:
    stage.make()
    answer = visitor(stage).post("/secrets/delete", name="crm.apiKey", etag=etag)

    assert answer.status_code == 412
    assert "somebody has changed it" in answer.text
    assert stage.store.find("crm.apiKey") is not None


# --- tokens -----------------------------------------------------------------------------------


def test_a_token_is_shown_once(stage: Stage) -> None:
    visit = visitor(stage)
    made = visit.post("/tokens", name="nightly", role="viewer", days="30")

    token = re.search(r"ct_[\w-]{40,}", made.text)
    assert token is not None
    assert made.headers["cache-control"] == "no-store"
    assert token[0] not in visit.get("/tokens").text
    who = (
        stage.browser()
        .get("/api/v1/session", headers={"Authorization": f"Bearer {token[0]}"})
        .json()
    )
    assert (who["name"], who["role"]) == ("nightly", "viewer")


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        pytest.param({"name": ""}, "name", id="no name"),
        pytest.param({"days": "some"}, "days", id="no number"),
        pytest.param({"days": "99999"}, "days", id="too many days"),
        pytest.param({"role": "emperor"}, "role", id="no role"),
    ],
)
def test_no_token_is_made_of_a_mistake(stage: Stage, fields: Mapping[str, str], place: str) -> None:
    before = len(stage.store.tokens())
    answer = visitor(stage).post("/tokens", **{"name": "x", "role": "viewer", "days": "", **fields})

    assert answer.status_code == 422
    assert f'id="{place}-error"' in answer.text
    assert len(stage.store.tokens()) == before


def test_a_revoked_token_ends_its_session(stage: Stage) -> None:
    owner, editor = visitor(stage), visitor(stage, "editor")
    ids = {token.name: token.id for token in stage.store.tokens()}

    assert "the editor" in owner.get("/tokens/revoke", id=ids["the editor"]).text
    assert owner.post("/tokens/revoke", id=ids["the editor"]).status_code == 303
    assert editor.get("/secrets").status_code == 303


# --- problems, and what is shown --------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        pytest.param("/nowhere", 404, "Back to the secrets", id="no such page"),
        pytest.param("/secrets/show?name=x", 404, "It may have been renamed", id="no such secret"),
        pytest.param("/tokens/revoke?id=x", 404, "It may have been renamed", id="no such token"),
        pytest.param("/secrets?offset=-1", 422, "Code:", id="a query that does not fit"),
        pytest.param("/static/../site.py", 404, "Code:", id="no file of ours"),
    ],
)
def test_a_problem_is_a_page(stage: Stage, path: str, status: int, words: str) -> None:
    answer = visitor(stage).get(path)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert words in answer.text
    assert "Log out" in answer.text


def test_a_program_gets_the_document(stage: Stage) -> None:
    answer = stage.call("GET", "/secrets/show?name=x")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        pytest.param("pay\u202ebal", "U+202E", id="reordering"),
        pytest.param("zero\u200bwidth", "U+200B", id="zero width"),
        pytest.param("a\u00a0b", "U+00A0", id="a blank that is none"),
        pytest.param("..", "..", id="what a path would lose"),
        pytest.param("a/b?c#d&e=f%00", "a/b?c#d&amp;e=f%00", id="what a URL takes apart"),
        pytest.param('"><script>', "&#34;&gt;&lt;script&gt;", id="what HTML takes apart"),
    ],
)
def test_any_name_can_be_shown_edited_and_deleted(stage: Stage, name: str, told: str) -> None:
    stage.make(name)
    visit = visitor(stage)
    listed = visit.get("/secrets").text
    link = re.search(r'href="(/secrets/show\?[^"]*)"', listed)
    assert link is not None
    shown = visit.get(html.unescape(link[1]))

    for page in (listed, shown.text):
        assert told in page
        assert "<script>" not in page
    assert edited(visit, name, description="x").status_code == 303
    deleting = visit.get("/secrets/delete", name=name).text
    done = visit.post("/secrets/delete", name=name, etag=field_of(deleting, "etag"))
    assert done.status_code == 303
    assert stage.store.find(name) is None


def test_the_list_is_searched_sorted_and_parted(stage: Stage) -> None:
    for number in range(51):
        stage.make(f"key-{number:02}", description="even" if number % 2 == 0 else "")
    visit = visitor(stage, "viewer")

    first, second = visit.get("/secrets").text, visit.get("/secrets", offset="50").text
    assert ("key-00" in first, "key-50" in first) == (True, False)
    assert ("key-00" in second, "key-50" in second) == (False, True)
    assert "1–50 of 51" in first
    assert "26 secrets with" in visit.get("/secrets", q="EVEN").text
    turned = visit.get("/secrets", sort="-name").text
    assert turned.index("key-50") < turned.index("key-49")
    assert 'aria-sort="descending"' in turned
    assert "No secret has that" in visit.get("/secrets", q="nothing").text


def test_a_broken_policy_is_shown_with_its_mistakes_at_their_lines(stage: Stage) -> None:
    write_policy(stage.home, GRANT)
    visit = visitor(stage)
    assert "1 client, 1 grant" in visit.get("/policy").text
    write_policy(stage.home, GRANT.replace("clients: [runner]}", "clients: [runer]}"))

    shown = visit.get("/policy").text
    assert "The last good one stays in force" in shown
    assert re.search(r'class="row broken" id="L4"', shown)
    assert "[runner]" in re.sub("<[^>]+>", "", shown.split("<h2>In force</h2>")[1])


def test_an_explanation_repeats_nothing_that_was_typed(stage: Stage) -> None:
    stage.make()
    write_policy(stage.home, GRANT)
    answer = visitor(stage, "viewer").post(
        "/policy/explain",
        client="runner",
        method="GET",
        url=f"https://api.example.com/v1?key={{{{secrets.crm.apiKey}}}}&other={OTHER_VALUE}",
        headers=f"Authorization: Bearer {OTHER_VALUE}",
        body=OTHER_VALUE,
    )

    assert "It would be sent" in answer.text
    assert "query:key" in answer.text
    assert OTHER_VALUE not in answer.text


def test_a_draft_is_judged_and_not_repeated(stage: Stage) -> None:
    visit = visitor(stage, "viewer")
    good = visit.post("/policy/check", text=GRANT.replace("\n", "\r\n"))
    bad = visit.post("/policy/check", text=f"version: 1\nclients: {{a: {{tokn: {OTHER_VALUE}}}}}\n")

    assert "It can be used" in good.text
    assert "Line 2, column" in bad.text
    assert OTHER_VALUE not in bad.text


def test_no_page_has_a_script_or_style_inside(stage: Stage) -> None:
    """The CSP would stop them; better none is there."""
    stage.make()
    visit = visitor(stage)
    for _, path, _role in HELD:
        shown = visit.get(path, name="crm.apiKey").text
        assert re.search(r"<script(?! src=)|<style|\sstyle=|\son\w+=|javascript:", shown) is None


def test_a_secret_from_a_source_is_shown_and_cannot_be_changed(stage: Stage) -> None:
    sources = stage.settings.sources_file
    sources.write_text(
        "version: 1\nsecrets:\n  env.key: {source: env, variable: KEY, domains: [a.example]}\n"
    )
    sources.chmod(0o600)
    visit = visitor(stage)
    pages = [visit.get("/secrets"), visit.get("/secrets/show?name=env.key")]

    assert [answer.status_code for answer in pages] == [200, 200]
    assert all("env (env)" in answer.text for answer in pages)
    assert not any("/secrets/edit" in answer.text for answer in pages)
    for path in ("edit", "delete"):
        refused = visit.get(f"/secrets/{path}?name=env.key")
        assert refused.status_code == 409
        assert "comes from a source" in refused.text
