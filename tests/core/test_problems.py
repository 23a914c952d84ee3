"""Refusals as they are told: the table that people and programs outside rely on."""

from __future__ import annotations

import json
import pickle

import pytest

from coatcheck.core.problems import TABLE, Code, Problem, Refused, refuse

# The published table, once more: a change here is a change of what clients were promised.
PUBLISHED = {
    "proxy_auth_required": 407,
    "bad_request": 400,
    "not_found": 404,
    "placeholder_malformed": 400,
    "destination_mismatch": 421,
    "destination_not_allowed": 403,
    "address_not_allowed": 403,
    "domain_not_allowed": 403,
    "secret_unavailable": 403,
    "location_not_allowed": 403,
    "request_not_allowed": 403,
    "plaintext_not_allowed": 403,
    "too_many_placeholders": 403,
    "value_not_representable": 422,
    "body_not_decodable": 415,
    "body_too_large": 413,
    "headers_too_large": 431,
    "too_many_connections": 429,
    "response_withheld": 502,
    "upstream_unreachable": 502,
    "upstream_tls_failed": 502,
    "upstream_timeout": 504,
    "store_unavailable": 503,
    "audit_unavailable": 503,
    "internal_error": 500,
}


def document(problem: Problem) -> dict[str, object]:
    parsed = json.loads(problem.body("request-7"))
    assert isinstance(parsed, dict)
    return parsed


def test_there_are_these_codes_and_no_others() -> None:
    assert {str(code): TABLE[code][0] for code in Code} == PUBLISHED
    assert set(TABLE) == set(Code)


@pytest.mark.parametrize("code", Code)
def test_a_bare_problem_is_a_whole_document(code: Code) -> None:
    assert document(Problem(code)) == {
        "type": f"urn:coatcheck:problem:{code}",
        "title": TABLE[code][1],
        "status": PUBLISHED[code],
        "detail": TABLE[code][1] + ".",
        "code": code,
        "request_id": "request-7",
    }


@pytest.mark.parametrize("code", Code)
def test_header_fields(code: Code) -> None:
    fields = Problem(code).fields()

    names = [name for name, _ in fields]
    assert (b"Content-Type", b"application/problem+json") in fields
    assert (b"Coatcheck-Error", code.encode()) in fields
    assert (b"Cache-Control", b"no-store") in fields
    assert names.count(b"Proxy-Authenticate") == (2 if code == "proxy_auth_required" else 0)
    assert len(fields) == 3 + names.count(b"Proxy-Authenticate")


def test_an_unknown_client_is_told_how_to_become_a_known_one() -> None:
    fields = Problem(Code.PROXY_AUTH_REQUIRED).fields()

    assert [value for name, value in fields if name == b"Proxy-Authenticate"] == [
        b'Basic realm="coatcheck", charset="UTF-8"',
        b'Bearer realm="coatcheck"',
    ]


def test_what_applies_is_told_and_what_does_not_is_left_out() -> None:
    problem = Problem(
        Code.LOCATION_NOT_ALLOWED,
        "Not there.",
        hint="elsewhere",
        secret="crm.key",
        host="api.example.com",
        location="query:key",
        operator="nearest grant: line 7",
    )

    told = document(problem)

    assert told["detail"] == "Not there."
    extra = {key: told[key] for key in ("secret", "host", "location", "hint")}
    assert extra == {
        "secret": "crm.key",
        "host": "api.example.com",
        "location": "query:key",
        "hint": "elsewhere",
    }
    assert len(told) == 10


def test_what_is_for_the_operator_stays_here() -> None:
    problem = Problem(Code.STORE_UNAVAILABLE, operator="the key file is gone")

    assert b"key file" not in problem.body("id")
    assert b"key file" not in b"".join(value for _, value in problem.fields())


@pytest.mark.parametrize("name", ["Zoë", "鍵", 'a"b\\c', "</script>", "\u2028"])
def test_a_document_is_ascii_whatever_the_client_called_the_secret(name: str) -> None:
    body = Problem(Code.SECRET_UNAVAILABLE, secret=name).body("id")

    assert body.isascii()
    assert body.endswith(b"}\n")
    assert body.count(b"\n") == 1
    assert json.loads(body)["secret"] == name


def test_titles_fit_into_a_reason_phrase() -> None:
    for status, title in TABLE.values():
        assert title.isascii()
        assert title.isprintable()
        assert 400 <= status <= 599


def test_the_text_of_a_refused_is_its_code_alone() -> None:
    refused = refuse(
        Code.BAD_REQUEST, "Some detail.", hint="some hint", host="a.example", location="path"
    )

    assert str(refused) == "bad_request"
    assert refused.problem == Problem(
        Code.BAD_REQUEST, "Some detail.", hint="some hint", host="a.example", location="path"
    )
    assert refused.request_id == ""
    assert isinstance(refused, Refused)


def test_a_problem_goes_through_pickle_as_any_plain_value() -> None:
    problem = Problem(Code.BAD_REQUEST, "x")

    assert pickle.loads(pickle.dumps(problem)) == problem
