"""Whoever may write and not read cannot make a value go anywhere new: by the API, the command line,
the policy, or the database itself. The value is sealed together with its allowed domains."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from coatcheck import policyfile
from coatcheck.core.destination import Destination
from coatcheck.core.policy import Need, Request, judge
from coatcheck.core.ports import StoreError
from tests.admin.stage import VALUE, Stage, problem
from tests.cli.homes import Commands
from tests.store.stores import open_store

EVIL = "evil.example.net"
SECRETS = "/api/v1/secrets"


def values_for_evil(stage: Stage) -> list[bytes]:
    """What a worker would open of any secret that may go to the new domain."""
    with closing(open_store(stage.home, stage.clock)) as store:
        view = store.view()
        there = Destination("https", EVIL, 443)
        found = []
        for secret in view.secrets():
            if any(pattern.matches(there) for pattern in secret.domains):
                try:
                    found.append(view.open(secret).reveal())
                except StoreError:
                    continue
        return found


# --- the API ----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["editor", "owner"])
def test_not_by_the_api(stage: Stage, role: str) -> None:
    stage.make()
    path, any_tag = f"{SECRETS}/crm.apiKey", {"If-Match": "*"}
    for body in ({"allowed_domains": [EVIL]}, {"allowed_domains": ["*"], "any_domain": True}):
        answer = stage.call("PATCH", path, role=role, json=body, headers=any_tag)
        problem(answer, 422, "value_required")
    clash = {"name": "crm.apiKey", "value": "guess-guess", "allowed_domains": [EVIL]}
    problem(stage.call("POST", SECRETS, role=role, json=clash), 409, "name_taken")

    assert values_for_evil(stage) == []


def test_with_a_value_of_ones_own_the_old_one_stays_where_it_was(stage: Stage) -> None:
    """And comes back nowhere: the new value goes to the new domain, and nothing else does."""
    stage.make()
    body = {"value": "a-guess-of-mine", "allowed_domains": [EVIL]}
    changed = stage.call("PATCH", f"{SECRETS}/crm.apiKey", json=body, headers={"If-Match": "*"})

    assert changed.status_code == 200
    assert values_for_evil(stage) == [b"a-guess-of-mine"]


def test_a_new_name_takes_no_value_along_to_new_domains(stage: Stage) -> None:
    """Rename it out of the way, make another under its name: two values, each at its domains."""
    stage.make()
    path, any_tag = f"{SECRETS}/crm.apiKey", {"If-Match": "*"}
    assert stage.call("PATCH", path, json={"name": "old"}, headers=any_tag).status_code == 200
    stage.make(value="a-guess-of-mine", allowed_domains=[EVIL])

    assert values_for_evil(stage) == [b"a-guess-of-mine"]


# --- the command line -------------------------------------------------------------------------


def test_not_by_the_command_line(stage: Stage) -> None:
    stage.make()
    coatcheck = Commands(stage.home.root)
    refused = coatcheck("secret", "edit", "crm.apiKey", "--domain", EVIL)
    assert (refused.code, "needs the value again" in refused.err) == (1, True)
    empty = coatcheck("secret", "set", "crm.apiKey", "--domain", EVIL, stdin=b"")
    assert empty.code == 1

    assert values_for_evil(stage) == []


# --- the policy -------------------------------------------------------------------------------


def test_not_by_the_policy(stage: Stage) -> None:
    """The widest grant there is still asks for the secret's own domains."""
    stage.make()
    rules = policyfile.parse(
        "version: 1\nclients:\n  me: {networks: [127.0.0.1/32]}\ngrants:\n"
        f'  - {{secrets: ["*"], clients: [me], hosts: ["{EVIL}"], plaintext: true}}\n'
        '  - {secrets: ["*"], clients: [me], plaintext: true}\n',
        "policy.yaml",
    )
    secret = stage.store.secrets()[0]
    need = Need("crm.apiKey", ())
    for scheme, port in (("https", 443), ("http", 80)):
        request = Request("me", Destination(scheme, EVIL, port), "GET", "/")
        assert not judge(rules, request, need, secret).allowed
    allowed = Request("me", Destination("https", "api.example.com", 443), "GET", "/")
    assert judge(rules, allowed, need, secret).allowed


# --- the database -----------------------------------------------------------------------------


def _domains_of_the_secret(base: sqlite3.Connection) -> None:
    base.execute("UPDATE secrets SET domains = ?", (json.dumps([EVIL]),))


def _domains_everywhere(base: sqlite3.Connection) -> None:
    for table in ("secrets", "versions"):
        base.execute(f"UPDATE {table} SET domains = ?", (json.dumps([EVIL]),))


def _record_of_another(base: sqlite3.Connection) -> None:
    base.execute(
        "UPDATE versions SET record = (SELECT v.record FROM versions v JOIN secrets s"
        " ON s.id = v.secret_id WHERE s.name = 'crm.apiKey')"
    )


def _rows_of_another(base: sqlite3.Connection) -> None:
    base.execute("DELETE FROM versions WHERE secret_id = (SELECT id FROM secrets WHERE name = 'x')")
    base.execute("UPDATE versions SET secret_id = (SELECT id FROM secrets WHERE name = 'x')")


def _versions_counted_up(base: sqlite3.Connection) -> None:
    base.execute("UPDATE secrets SET domains = ? WHERE name = 'crm.apiKey'", (json.dumps([EVIL]),))
    base.execute("UPDATE versions SET version = version + 1")
    base.execute("UPDATE secrets SET version = version + 1")


@pytest.mark.parametrize(
    "change",
    [
        _domains_of_the_secret,
        _domains_everywhere,
        _record_of_another,
        _rows_of_another,
        _versions_counted_up,
    ],
    ids=lambda change: change.__name__.strip("_").replace("_", " "),
)
def test_not_by_the_database(stage: Stage, change: Callable[[sqlite3.Connection], None]) -> None:
    stage.make()
    stage.make("x", value="a-guess-of-mine", allowed_domains=[EVIL])
    with closing(sqlite3.connect(stage.home.store)) as base, base:
        change(base)

    assert VALUE.encode() not in values_for_evil(stage)


def test_what_a_worker_opens_is_what_the_test_would_see(stage: Stage) -> None:
    """The value itself, set for that domain by who knows it, does open there."""
    stage.make(allowed_domains=["api.example.com", EVIL])

    assert values_for_evil(stage) == [VALUE.encode()]


def test_the_management_side_opens_nothing(stage: Stage) -> None:
    stage.make()
    with pytest.raises(StoreError, match="no private sealing key"):
        stage.store.view()
