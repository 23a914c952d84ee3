"""What one request sees: which secrets are in scope, and what is searched for in its answer."""

from __future__ import annotations

import base64

import pytest

from coatcheck.core import snapshot as module
from coatcheck.core.destination import Destination, parse_domain_pattern
from coatcheck.core.locations import parse_pattern
from coatcheck.core.policy import Client, Grant, Policy, Replacement
from coatcheck.core.redact import Needles
from coatcheck.core.snapshot import Scope, Snapshot
from coatcheck.store.memory import MemoryStore

API = Destination("https", "api.crm.example", 443)
OTHER_PORT = Destination("https", "api.crm.example", 8443)
ELSEWHERE = Destination("https", "evil.example", 443)
NOTHING: frozenset[str] = frozenset()
NO_TOKENS: frozenset[tuple[str, bytes]] = frozenset()
DOMAINS = {
    "crm.key": ["api.crm.example"],
    "crm.wild": ["*.crm.example"],
    "crm.anywhere": ["*"],
    "crm.also": ["*", "api.crm.example"],
    "crm.nowhere": [],
    "other.key": ["api.crm.example"],
}


def value_of(name: str, version: int = 1) -> bytes:
    return b"value %d of " % version + name.encode()


def a_store() -> MemoryStore:
    store = MemoryStore(clock=lambda: 100.0, grace_s=50.0)
    for name, domains in DOMAINS.items():
        patterns = [parse_domain_pattern(text) for text in domains]
        store.put(name, value_of(name), domains=patterns, description="", now=90.0)
    return store


GRANTS = (
    Grant(("crm.*",), ("runner",)),
    Grant(("other.*",), ("agent",)),
    Grant(("other.*",), ("runner",), hosts=(parse_domain_pattern("elsewhere.example"),)),
    Grant(("crm.key",), ("agent",), hosts=(parse_domain_pattern("api.crm.example"),)),
)


def a_snapshot(
    store: MemoryStore | None = None, replacement: Replacement = Replacement.MASK
) -> Snapshot:
    clients = (Client("runner"), Client("agent"))
    policy = Policy(clients=clients, grants=GRANTS, replacement=replacement)
    return Snapshot(policy, (store or a_store()).view())


def names(scope: Scope, snapshot: Snapshot) -> tuple[set[str], set[str]]:
    ids = {secret.id: secret.name for secret in snapshot.view.secrets()}
    return {secret.name for secret in scope.bound}, {ids[i] for i in scope.roaming}


# --- scope -----------------------------------------------------------------------------------

BOUND, ROAMING = {"crm.key", "crm.wild"}, {"crm.anywhere", "crm.also"}


@pytest.mark.parametrize(
    ("client", "destination", "bound", "roaming"),
    [
        pytest.param("runner", API, BOUND, ROAMING, id="what is granted and may go there"),
        pytest.param("runner", ELSEWHERE, set(), ROAMING, id="elsewhere only what may go anywhere"),
        pytest.param("runner", OTHER_PORT, set(), ROAMING, id="a port that no domain names"),
        pytest.param("agent", API, {"crm.key", "other.key"}, set(), id="another client, its own"),
        pytest.param("agent", ELSEWHERE, set(), set(), id="and elsewhere nothing"),
        pytest.param("nobody", API, set(), set(), id="a client without grants"),
        pytest.param("", API, set(), set(), id="no client"),
    ],
)
def test_scope(client: str, destination: Destination, bound: set[str], roaming: set[str]) -> None:
    snapshot = a_snapshot()

    assert names(snapshot.scope(client, destination), snapshot) == (bound, roaming)


HOOK, FORMER_HOOK = (b"https://api.crm.example/hooks/%s-0123456789" % n for n in (b"new", b"old"))


@pytest.mark.parametrize(
    ("places", "hosts", "parts"),
    [
        pytest.param(("url",), None, True, id="a grant for URLs"),
        pytest.param(("header", "url"), None, True, id="among other places"),
        pytest.param(("header", "query", "path", "body"), None, False, id="every other place"),
        pytest.param(("url",), "elsewhere.example", False, id="a grant for other hosts"),
    ],
)
@pytest.mark.parametrize("written", [HOOK, FORMER_HOOK], ids=["in force", "replaced"])
def test_parts_of_a_value_are_searched_where_requests_may_go_to_it(
    places: tuple[str, ...], hosts: str | None, parts: bool, written: bytes
) -> None:
    store = a_store()
    for value in (FORMER_HOOK, HOOK):
        domains = [parse_domain_pattern("api.crm.example")]
        store.put("hook", value, domains=domains, description="", now=95.0)
    grants = (
        Grant(("hook",), ("runner",)),
        Grant(
            ("hook",),
            ("runner",),
            hosts=None if hosts is None else (parse_domain_pattern(hosts),),
            locations=tuple(map(parse_pattern, places)),
        ),
    )
    snapshot = Snapshot(Policy(clients=(Client("runner"),), grants=grants), store.view())

    scope = snapshot.scope("runner", API)
    (needles,) = snapshot.needles(scope, NOTHING, NO_TOKENS)

    assert needles.contains(written)
    assert needles.contains(written.removeprefix(b"https://api.crm.example")) is parts


def test_a_scope_is_worked_out_once() -> None:
    snapshot = a_snapshot()

    assert snapshot.scope("runner", API) is snapshot.scope("runner", API)


def test_a_new_snapshot_works_it_out_anew() -> None:
    store = a_store()
    before = a_snapshot(store)
    store.delete("crm.key", now=95.0)
    after = a_snapshot(store)

    assert names(before.scope("runner", API), before)[0] == BOUND
    assert names(after.scope("runner", API), after)[0] == {"crm.wild"}
    assert names(before.scope("runner", API), before)[0] == BOUND, "and the old one never changes"


# --- needles ---------------------------------------------------------------------------------


def needles_for(
    snapshot: Snapshot,
    injected: frozenset[str] = NOTHING,
    tokens: frozenset[tuple[str, bytes]] = NO_TOKENS,
    destination: Destination = API,
) -> Needles | None:
    """The search for the values in scope; None where there is nothing to search for."""
    found = snapshot.needles(snapshot.scope("runner", destination), injected, tokens)
    return found[0] if found else None


@pytest.mark.parametrize(
    ("injected", "destination", "found"),
    [
        pytest.param(NOTHING, API, BOUND, id="what is bound is searched for without being asked"),
        pytest.param(
            frozenset({"crm.anywhere"}),
            API,
            {*BOUND, "crm.anywhere"},
            id="what may go anywhere where it is injected",
        ),
        pytest.param(
            frozenset({"crm.key"}), API, BOUND, id="what is injected and bound changes nothing"
        ),
        pytest.param(
            NOTHING, ELSEWHERE, set(), id="a host that nothing is bound to cannot test its guesses"
        ),
        pytest.param(
            frozenset({"crm.also"}), ELSEWHERE, {"crm.also"}, id="injected there, searched there"
        ),
        pytest.param(frozenset({"other.key"}), API, BOUND, id="what is not in scope never is"),
        pytest.param(frozenset({"no.such"}), API, BOUND, id="nor what does not exist"),
    ],
)
def test_what_is_searched_for(
    injected: frozenset[str], destination: Destination, found: set[str]
) -> None:
    needles = needles_for(a_snapshot(), injected, destination=destination)

    known = {name for name in DOMAINS if needles and needles.contains(value_of(name))}
    assert known == found
    assert (needles is not None) is bool(found)


def test_replaced_values_are_searched_for_within_their_grace() -> None:
    store = a_store()
    store.put("crm.key", value_of("crm.key", 2), domains=None, description=None, now=40.0)
    store.put("crm.key", value_of("crm.key", 3), domains=None, description=None, now=60.0)

    needles = needles_for(a_snapshot(store))

    found = [needles.contains(b"<%b>" % value_of("crm.key", version)) for version in (1, 2, 3)]
    assert found == [False, True, True], "replaced at 40, at 60, in force; it is 100, grace is 50"


def test_replaced_values_of_a_roaming_secret_too() -> None:
    store = a_store()
    store.put("crm.anywhere", b"the newer value", domains=None, description=None, now=95.0)

    needles = needles_for(a_snapshot(store), frozenset({"crm.anywhere"}), destination=ELSEWHERE)

    assert needles.contains(value_of("crm.anywhere"))
    assert needles.contains(b"the newer value")


def test_rendered_tokens_are_a_search_of_their_own() -> None:
    token = b"dXNlcjpzaG9ydA"
    snapshot = a_snapshot()
    scope = snapshot.scope("runner", API)

    values, tokens = snapshot.needles(scope, NOTHING, frozenset({("crm.key", token)}))

    assert (values,) == snapshot.needles(scope, NOTHING, NO_TOKENS), "what is built is kept"
    assert not values.contains(token)
    for spelled in (
        token,
        token.hex().encode(),
        base64.b64encode(token),
        token.decode().encode("utf-16-le"),
    ):
        assert tokens.contains(spelled)


def test_a_value_that_was_moved_away_is_searched_for_where_it_was() -> None:
    """An API that has stored it can still return it."""
    store = a_store()
    store.put(
        "crm.key", b"the newer value", domains=[parse_domain_pattern("new.crm.example")],
        description=None, now=95.0,
    )  # fmt: skip

    needles = needles_for(a_snapshot(store))

    assert needles is not None
    assert needles.contains(value_of("crm.key"))
    assert not needles.contains(b"the newer value")


@pytest.mark.parametrize(
    ("replacement", "shown"),
    [(Replacement.MASK, b"********"), (Replacement.PLACEHOLDER, b"{{secrets.crm.key}}")],
)
def test_what_is_written_instead(replacement: Replacement, shown: bytes) -> None:
    needles = needles_for(a_snapshot(replacement=replacement))

    assert needles.redact(b"<%b>" % value_of("crm.key")) == b"<%b>" % shown


def test_a_name_that_needs_quotes_gets_them() -> None:
    store = MemoryStore()
    patterns = [parse_domain_pattern("api.crm.example")]
    store.put("crm.my key", b"some value", domains=patterns, description="", now=1.0)

    needles = needles_for(a_snapshot(store, Replacement.PLACEHOLDER))

    assert needles.redact(b"some value") == b'{{secrets["crm.my key"]}}'


# --- caches ----------------------------------------------------------------------------------


def test_needles_are_built_once_for_a_scope_and_what_roams_in_it() -> None:
    snapshot = a_snapshot()
    anywhere = frozenset({"crm.anywhere"})

    assert needles_for(snapshot) is needles_for(snapshot, frozenset({"crm.key"}))
    assert needles_for(snapshot, anywhere) is needles_for(snapshot, anywhere | {"no.such"})
    assert needles_for(snapshot, anywhere) is not needles_for(snapshot)


def test_needles_of_one_client_are_not_those_of_another() -> None:
    snapshot = a_snapshot()
    (agent,) = snapshot.needles(snapshot.scope("agent", API), NOTHING, NO_TOKENS)

    assert agent.contains(value_of("other.key"))
    assert not agent.contains(value_of("crm.wild"))
    assert not needles_for(snapshot).contains(value_of("other.key"))


def test_a_client_that_names_many_hosts_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SCOPES", 4)
    snapshot = a_snapshot()
    in_use, others = needles_for(snapshot), set()
    for number in range(20):
        destination = Destination("https", f"h{number}.crm.example", 443)
        others.add(needles_for(snapshot, destination=destination))
        assert needles_for(snapshot) is in_use, "it stays, however many others come"

    assert len(snapshot._scopes) <= 4
    assert len(snapshot._needles) <= 4
    assert len(others) == 1, "where the same values are searched for, the search is the same"


# --- from one snapshot to the next -----------------------------------------------------------


def test_a_new_policy_takes_over_the_searches_of_the_old_one() -> None:
    old = a_snapshot()
    before = needles_for(old)

    new = Snapshot(old.policy, old.view, old)
    new.warm()

    assert needles_for(new) is before
    assert needles_for(Snapshot(old.policy, old.view)) is not before


def test_a_new_value_is_searched_for_at_once_and_the_old_search_is_let_go() -> None:
    store = a_store()
    old = a_snapshot(store)
    before = needles_for(old)
    (secret,) = [secret for secret in old.view.secrets() if secret.name == "crm.key"]
    fresh = b"another-value-of-the-key-0123456789"
    store.put("crm.key", fresh, domains=secret.domains, description="", now=95.0)

    new = Snapshot(old.policy, store.view(), old)
    new.warm()
    newest = Snapshot(new.policy, new.view, new)

    assert needles_for(new) is not before
    assert needles_for(new).contains(fresh)
    assert needles_for(new).contains(value_of("crm.key")), "the value that was replaced"
    assert before not in newest._built.values()


def test_what_takes_long_to_build_is_told_beforehand_and_done_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 0)
    snapshot = a_snapshot()

    work = snapshot.unbuilt("runner", API)
    assert work is not None
    work()

    assert snapshot.unbuilt("runner", API) is None
    nowhere = Destination("https", "nobody.example", 443)
    assert snapshot.unbuilt("runner", nowhere) is None, "there is nothing to build"


def test_little_is_built_while_the_request_waits() -> None:
    assert a_snapshot().unbuilt("runner", API) is None
