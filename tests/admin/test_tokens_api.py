"""`/api/v1/tokens`: made once, shown once, revoked for good."""

from __future__ import annotations

from typing import Any

import pytest

from coatcheck.store.home import token_hash
from tests.admin.stage import Stage, problem
from tests.store.stores import NOW

TOKENS = "/api/v1/tokens"


def make(stage: Stage, **body: Any) -> Any:
    return stage.call("POST", TOKENS, json={"name": "ci", "role": "viewer", **body})


@pytest.mark.parametrize(
    ("role", "status"), [("viewer", 403), ("editor", 201), ("owner", 201)], ids=str
)
def test_a_new_token_has_its_role(stage: Stage, role: str, status: int) -> None:
    made = make(stage, role=role).json()
    assert len(made["token"]) >= 3 + 43
    stage.tokens["new"] = made["token"]

    body = {"name": "x", "value": "long-enough"}
    assert stage.call("POST", "/api/v1/secrets", role="new", json=body).status_code == status


def test_a_token_is_shown_once_and_kept_nowhere(stage: Stage) -> None:
    made = make(stage, expires_in_days=7).json()
    listed = stage.call("GET", TOKENS)

    (found,) = [one for one in listed.json()["items"] if one["id"] == made["id"]]
    assert (found["name"], found["role"], found["created_by"]) == ("ci", "viewer", "the owner")
    assert found["expires_at"] == "2023-11-21T22:13:20Z"
    kept = [listed.text, *(path.read_bytes().decode("latin-1") for path in files(stage))]
    assert [text for text in kept if made["token"] in text] == []
    stored = stage.store.find_token(token_hash(made["token"]))
    assert stored is not None
    assert stored.expires_at == NOW + 7 * 86400


def files(stage: Stage) -> list[Any]:
    return [path for path in stage.home.root.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "body",
    [
        *({"role": "admin"}, {"role": None}, {"name": ""}, {"name": " "}, {"name": "a\x00b"}),
        *({"expires_in_days": 0}, {"expires_in_days": 4000}, {"sha256": "00"}),
    ],
    ids=str,
)
def test_what_is_no_token(stage: Stage, body: dict[str, Any]) -> None:
    before = len(stage.store.tokens())
    problem(make(stage, **body), 422, "invalid_request")

    assert len(stage.store.tokens()) == before


def test_a_revoked_token_is_none_from_then_on(stage: Stage) -> None:
    made = make(stage).json()
    stage.tokens["new"] = made["token"]
    assert stage.call("GET", "/api/v1/secrets", role="new").status_code == 200
    assert stage.call("DELETE", f"{TOKENS}/{made['id']}").status_code == 204

    problem(stage.call("GET", "/api/v1/secrets", role="new"), 401, "unauthenticated")
    problem(stage.call("DELETE", f"{TOKENS}/{made['id']}"), 404, "token_not_found")
    assert [line["action"] for line in stage.actions_written()][:2] == [
        "token.create",
        "token.revoke",
    ]


def test_the_last_owner_stays(stage: Stage) -> None:
    mine, first = sorted(
        (token for token in stage.store.tokens() if token.role == "owner"),
        key=lambda token: token.name != "the owner",
    )
    make(stage, role="owner", expires_in_days=1)
    stage.clock.now += 86400  # an owner who is over is none
    assert stage.call("DELETE", f"{TOKENS}/{first.id}").status_code == 204

    problem(stage.call("DELETE", f"{TOKENS}/{mine.id}"), 409, "last_owner")
    assert stage.call("GET", TOKENS).status_code == 200
