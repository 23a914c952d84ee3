"""`coatcheck token`: credentials of the admin side, for whoever has the home."""

from __future__ import annotations

import json
import re
from contextlib import closing

import pytest

from coatcheck.store.home import Home, token_hash
from coatcheck.store.model import Token
from coatcheck.store.sql import SqlStore
from tests.cli.homes import Commands


def kept(coatcheck: Commands) -> list[Token]:
    home = Home(coatcheck.root)
    with closing(SqlStore.open(home.store, public=home.read_public_key())) as store:
        return list(store.tokens())


def test_a_token_is_printed_once_and_only_its_hash_is_kept(coatcheck: Commands) -> None:
    done = coatcheck("token", "create", "ci", "--role", "editor", "--days", "7")

    (line,) = done.out.splitlines()
    assert re.fullmatch(r"ct_[\w-]{43}", line)
    assert line not in done.err
    made = kept(coatcheck)[-1]
    assert (made.sha256, made.role, made.name) == (token_hash(line), "editor", "ci")
    assert made.expires_at is not None
    assert made.expires_at - made.created_at == 7 * 86400
    assert line not in coatcheck("token", "list", "--format", "json").out


def test_a_token_that_is_revoked_is_gone(coatcheck: Commands) -> None:
    made = json.loads(coatcheck("token", "create", "ci", "--role", "owner", "--format", "json").out)
    listed = json.loads(coatcheck("token", "list", "--format", "json").out)
    assert [one["name"] for one in listed] == ["made by coatcheck init", "ci"]
    assert coatcheck("token", "revoke", made["id"]).out == "revoked ci\n"

    assert [token.name for token in kept(coatcheck)] == ["made by coatcheck init"]
    again = coatcheck("token", "revoke", made["id"])
    assert (again.code, "no token of this id" in again.err) == (1, True)


def test_who_has_lost_every_token_makes_another(coatcheck: Commands) -> None:
    (first,) = kept(coatcheck)
    assert coatcheck("token", "revoke", first.id).code == 0

    assert coatcheck("token", "create", "me", "--role", "owner").code == 0
    assert [token.role for token in kept(coatcheck)] == ["owner"]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["ci"], id="no role"),
        pytest.param(["ci", "--role", "root"], id="an unknown role"),
        pytest.param(["", "--role", "viewer"], id="no name"),
        pytest.param(["a\x1bb", "--role", "viewer"], id="a name that cannot be shown"),
        pytest.param(["ci", "--role", "viewer", "--days", "0"], id="no day"),
    ],
)
def test_what_is_no_token(coatcheck: Commands, arguments: list[str]) -> None:
    assert coatcheck("token", "create", *arguments).code == 1
    assert len(kept(coatcheck)) == 1
