"""What every store keeps, one test for each sentence of `ports.SecretReader` and `model.Store`."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from coatcheck.core.ports import StoreError, Used
from coatcheck.core.secret import MAX_VALUE, Secret
from coatcheck.store.home import Home
from coatcheck.store.memory import MemoryStore
from coatcheck.store.model import NameTaken, Store, UnknownSecret
from tests.store.stores import GRACE_S, NOW, Clock, open_store, patterns

VALUE = b"sk-live-0123456789"


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def any_store(request: pytest.FixtureRequest, clock: Clock) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore(grace_s=GRACE_S, clock=clock)
        return
    home: Home = request.getfixturevalue("home")
    where = request.getfixturevalue("url") if request.param == "postgres" else None
    store = open_store(home, clock, where=where)
    yield store
    store.close()


def put(store: Store, name: str = "crm.apiKey", value: bytes = VALUE, **changed: Any) -> Secret:
    given = {"domains": patterns("api.example.com"), "description": None, "now": NOW, **changed}
    return store.put(name, value, **given)


def value_of(store: Store, name: str = "crm.apiKey") -> bytes:
    view = store.view()
    secret = view.find(name)
    assert secret is not None
    return view.open(secret).reveal()


# --- put -------------------------------------------------------------------------------------


def test_a_new_secret_comes_back_as_it_was_put(any_store: Store) -> None:
    made = put(any_store, domains=patterns("*.b.example:8443", "a.example"), description="for CI")

    assert (made.name, made.version, made.description) == ("crm.apiKey", 1, "for CI")
    assert [str(domain) for domain in made.domains] == ["*.b.example:8443", "a.example"]
    assert (made.created_at, made.updated_at, made.last_used_at) == (NOW, NOW, None)
    assert any_store.find("crm.apiKey") == made
    assert any_store.view().find("crm.apiKey") == made
    assert value_of(any_store) == VALUE


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"x", id="one byte"),
        pytest.param(bytes(range(256)), id="every byte"),
        pytest.param(b"{{secrets.crm.apiKey}}", id="what looks like a placeholder"),
        pytest.param(b"k" * MAX_VALUE, id="the largest"),
    ],
)
def test_any_value_comes_back(any_store: Store, value: bytes) -> None:
    put(any_store, value=value)

    assert value_of(any_store) == value


def test_a_new_value_is_a_new_version_of_the_same_secret(any_store: Store) -> None:
    old = put(any_store, description="kept")
    new = put(any_store, value=b"another-value", domains=None, now=NOW + 5)

    assert (new.id, new.version) == (old.id, 2)
    assert (new.domains, new.description) == (old.domains, "kept")
    assert (new.created_at, new.updated_at) == (NOW, NOW + 5)
    assert value_of(any_store) == b"another-value"


def test_domains_change_together_with_the_value(any_store: Store) -> None:
    put(any_store)
    put(any_store, value=b"another-value", domains=patterns("b.example"))

    secret = any_store.view().find("crm.apiKey")
    assert secret is not None
    assert [str(domain) for domain in secret.domains] == ["b.example"]
    assert value_of(any_store) == b"another-value"


def test_no_domains_mean_nowhere(any_store: Store) -> None:
    assert put(any_store, domains=None).domains == ()
    assert put(any_store, domains=[]).domains == ()


def test_a_domain_given_twice_is_kept_once(any_store: Store) -> None:
    assert len(put(any_store, domains=patterns("a.example", "A.example.")).domains) == 1


@pytest.mark.parametrize(
    ("name", "value", "changed", "said"),
    [
        pytest.param("", VALUE, {}, "name", id="no name"),
        pytest.param("a\nb", VALUE, {}, "control", id="a line end in the name"),
        pytest.param("a\x1b[31m", VALUE, {}, "control", id="an escape in the name"),
        pytest.param("n" * 257, VALUE, {}, "256", id="a name that is too long"),
        pytest.param(" \u200b", VALUE, {}, "shows nothing", id="a name that shows nothing"),
        pytest.param("a", b"", {}, "empty", id="an empty value"),
        pytest.param("a", b"k" * (MAX_VALUE + 1), {}, "larger", id="a value that is too large"),
        pytest.param("a", VALUE, {"description": "d" * 4097}, "4096", id="a long description"),
        pytest.param("a", VALUE, {"description": "\0"}, "NUL", id="NUL in the description"),
        pytest.param("a", VALUE, {"description": "\ud800"}, "text", id="half a character"),
    ],
)
def test_put_refuses(
    any_store: Store, name: str, value: bytes, changed: dict[str, Any], said: str
) -> None:
    before = any_store.revision()

    with pytest.raises(StoreError, match=said) as error:
        put(any_store, name, value, **changed)

    assert error.value.hint
    assert VALUE.decode() not in str(error.value)
    assert (any_store.secrets(), any_store.revision()) == ([], before)


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "A-b_c.9",
        "n" * 128,
        "any name at all",
        'with "quotes"',
        "ключ",
        "鍵🗝",
        "a/b?c#d",
        "n" * 256,
    ],
)
def test_a_secret_can_be_called(any_store: Store, name: str) -> None:
    put(any_store, name)

    assert value_of(any_store, name) == VALUE


LOOK_ALIKES = [
    pytest.param("API_KEY", "api_key", id="letter case"),
    pytest.param("straße", "STRASSE", id="letter case of several letters"),
    pytest.param("key", "ｋｅｙ", id="full-width letters"),
    pytest.param("ﬁle", "file", id="a ligature"),
    pytest.param("caf\u00e9", "cafe\u0301", id="composed and decomposed"),
    pytest.param("key", "k\u200bey", id="an invisible character"),
    pytest.param("a b", "a\u00a0b", id="another blank"),
]


@pytest.mark.parametrize(("first", "second"), LOOK_ALIKES)
def test_a_name_is_refused_that_a_reader_would_take_for_another(
    any_store: Store, first: str, second: str
) -> None:
    put(any_store, first)
    put(any_store, "unlike")

    with pytest.raises(NameTaken, match="differs from"):
        put(any_store, second)
    with pytest.raises(NameTaken, match="differs from"):
        any_store.edit("unlike", new_name=second, now=NOW)
    assert any_store.find(second) is None


def test_a_secret_may_be_renamed_to_another_spelling_of_itself(any_store: Store) -> None:
    put(any_store, "api_key")

    assert any_store.edit("api_key", new_name="API_KEY", now=NOW).name == "API_KEY"


def test_names_are_exact_when_looked_up(any_store: Store) -> None:
    put(any_store, "api_key")

    assert any_store.find("API_KEY") is None
    assert any_store.view().find("API_KEY") is None


# --- edit and delete -------------------------------------------------------------------------


def test_edit_keeps_value_domains_and_version(any_store: Store) -> None:
    old = put(any_store)
    new = any_store.edit("crm.apiKey", new_name="crm.key", description="new", now=NOW + 1)

    assert new == dataclasses.replace(old, name="crm.key", description="new", updated_at=NOW + 1)
    assert any_store.find("crm.apiKey") is None
    assert any_store.view().find("crm.apiKey") is None
    assert value_of(any_store, "crm.key") == VALUE


def test_a_renamed_value_is_called_by_its_new_name(any_store: Store) -> None:
    """The mask in an answer may show the name."""
    put(any_store)
    assert value_of(any_store)
    secret = any_store.edit("crm.apiKey", new_name="crm.key", now=NOW)

    assert any_store.view().open(secret).name == "crm.key"


def test_a_name_in_use_is_not_taken_over(any_store: Store) -> None:
    put(any_store, "a")
    put(any_store, "b", b"value-of-b")

    with pytest.raises(NameTaken, match="exists already"):
        any_store.edit("a", new_name="b", now=NOW)
    assert value_of(any_store, "b") == b"value-of-b"


def test_a_deleted_secret_is_gone_and_its_name_free(any_store: Store) -> None:
    old = put(any_store)
    any_store.delete("crm.apiKey", now=NOW)

    assert any_store.find("crm.apiKey") is None
    assert any_store.secrets() == []
    with pytest.raises(UnknownSecret):
        any_store.history("crm.apiKey")
    assert put(any_store).id != old.id
    assert len(any_store.history("crm.apiKey")) == 1


@pytest.mark.parametrize("call", ["edit", "delete"])
def test_an_unknown_name_is_an_error(any_store: Store, call: str) -> None:
    before = any_store.revision()

    with pytest.raises(UnknownSecret, match="there is no secret 'nobody'") as error:
        getattr(any_store, call)("nobody", now=NOW)

    assert "secret list" in error.value.hint
    assert any_store.revision() == before


# --- revision and views ----------------------------------------------------------------------


def test_every_change_counts_the_revision_up(any_store: Store) -> None:
    seen = [any_store.revision()]
    put(any_store)
    seen.append(any_store.revision())
    put(any_store)
    seen.append(any_store.revision())
    any_store.edit("crm.apiKey", description="d", now=NOW)
    seen.append(any_store.revision())
    any_store.delete("crm.apiKey", now=NOW)
    seen.append(any_store.revision())

    assert seen == sorted(set(seen))
    assert any_store.view().revision == seen[-1]


def test_a_use_is_noted_and_counts_nothing_up(any_store: Store) -> None:
    secret = put(any_store)
    before = any_store.revision()
    any_store.record_use({secret.id: Used(NOW + 9), "unknown": Used(NOW)})
    any_store.record_use({secret.id: Used(NOW + 3)})  # told late: the later one stays
    any_store.record_use({})

    found = any_store.find("crm.apiKey")
    assert found is not None
    assert found.last_used_at == NOW + 9
    assert found.uses == 2
    assert any_store.revision() == before
    again = put(any_store)
    assert (again.last_used_at, again.uses) == (NOW + 9, 2)


def test_what_a_check_raises_leaves_everything_as_it_was(any_store: Store) -> None:
    class No(Exception):
        pass

    def refuse(found: Secret | None) -> None:
        seen.append(found)
        raise No

    seen: list[Secret | None] = []
    made = put(any_store)
    before = any_store.revision()
    with pytest.raises(No):
        any_store.put("new", VALUE, domains=None, description=None, now=NOW, check=refuse)
    with pytest.raises(No):
        any_store.put("crm.apiKey", b"another", domains=(), description="", now=NOW, check=refuse)
    with pytest.raises(No):
        any_store.edit("crm.apiKey", new_name="x", now=NOW, check=refuse)
    with pytest.raises(No):
        any_store.delete("crm.apiKey", now=NOW, check=refuse)

    assert seen == [None, made, made, made]
    assert (list(any_store.secrets()), any_store.revision()) == ([made], before)


def test_a_check_that_is_content_lets_it_happen(any_store: Store) -> None:
    seen: list[Secret | None] = []
    made = any_store.put("a", VALUE, domains=None, description=None, now=NOW, check=seen.append)
    edited = any_store.edit("a", description="d", now=NOW, check=seen.append)
    any_store.delete("a", now=NOW, check=seen.append)

    assert seen == [None, made, edited]
    assert list(any_store.secrets()) == []


def test_value_and_name_change_together(any_store: Store) -> None:
    put(any_store)
    renamed = any_store.put(
        "crm.apiKey", b"another-value", domains=None, description=None, now=NOW, new_name="crm.key"
    )

    assert (renamed.name, renamed.version) == ("crm.key", 2)
    assert [secret.name for secret in any_store.secrets()] == ["crm.key"]
    view = any_store.view()
    assert view.open(renamed).reveal() == b"another-value"
    put(any_store, "other")
    with pytest.raises(NameTaken):
        any_store.put("other", VALUE, domains=None, description=None, now=NOW, new_name="CRM.key")


def test_a_view_does_not_change(any_store: Store) -> None:
    old = put(any_store)
    view = any_store.view()
    put(any_store, value=b"another-value", domains=patterns("b.example"))
    put(any_store, "another")

    assert list(view.secrets()) == [old]
    assert view.open(old).reveal() == VALUE
    any_store.delete("crm.apiKey", now=NOW)
    assert view.open(old).reveal() == VALUE


def test_a_view_lists_in_order_of_name(any_store: Store) -> None:
    for name in ("b", "a", "ä", "B2", "a.b"):
        put(any_store, name)

    names = [secret.name for secret in any_store.view().secrets()]
    assert names == sorted(names)
    assert names == [secret.name for secret in any_store.secrets()]


def test_a_value_is_opened_once(any_store: Store) -> None:
    secret = put(any_store)
    view = any_store.view()

    assert view.open(secret) is view.open(secret)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"domains": tuple(patterns("evil.example"))}, id="other domains"),
        pytest.param({"domains": ()}, id="no domains"),
        pytest.param({"version": 7}, id="another version"),
        pytest.param({"id": "f" * 32}, id="another id"),
    ],
)
@pytest.mark.parametrize("opened_before", [False, True])
def test_a_value_does_not_open_for_a_secret_that_claims(
    any_store: Store, changed: dict[str, Any], opened_before: bool
) -> None:
    secret = put(any_store)
    view = any_store.view()
    if opened_before:
        view.open(secret)

    with pytest.raises(StoreError, match=r"crm\.apiKey") as error:
        view.open(dataclasses.replace(secret, **changed))
    assert "set" in error.value.hint


# --- replaced values -------------------------------------------------------------------------


def retired(store: Store) -> list[bytes]:
    view = store.view()
    return sorted(view.open(former).reveal() for former in view.former())


def test_replaced_values_are_known_until_the_grace_period_is_over(
    any_store: Store, clock: Clock
) -> None:
    put(any_store, value=b"value-one")
    assert retired(any_store) == []
    put(any_store, value=b"value-two", domains=patterns("b.example"), now=NOW + 10)
    put(any_store, value=b"value-three", now=NOW + 20)

    assert retired(any_store) == [b"value-one", b"value-two"]
    clock.now = NOW + 10 + GRACE_S
    assert retired(any_store) == [b"value-one", b"value-two"]
    clock.now += 1
    assert retired(any_store) == [b"value-two"]
    clock.now += 10
    assert retired(any_store) == []


def test_a_replaced_value_keeps_the_domains_that_it_had(any_store: Store) -> None:
    put(any_store, value=b"value-one", domains=patterns("a.example"))
    put(any_store, value=b"value-two", domains=patterns("b.example"), now=NOW + 10)

    (former,) = any_store.view().former()

    assert (former.name, former.version) == ("crm.apiKey", 1)
    assert former.domains == tuple(patterns("a.example"))


def test_a_view_that_stays_forgets_them_too(any_store: Store, clock: Clock) -> None:
    put(any_store)
    put(any_store, value=b"another-value")
    view = any_store.view()
    assert len(view.former()) == 1
    clock.now += GRACE_S + 1

    assert len(view.former()) == 0


def test_the_next_change_of_anything_drops_old_values_for_good(any_store: Store) -> None:
    put(any_store)
    put(any_store, value=b"another-value", now=NOW + 1)
    put(any_store, "other", now=NOW + GRACE_S + 2)

    kept = [info.kept for info in any_store.history("crm.apiKey")]
    assert kept == [False, True]


def test_history_tells_when_and_where(any_store: Store) -> None:
    put(any_store)
    put(any_store, domains=patterns("b.example"), now=NOW + 7)

    first, second = any_store.history("crm.apiKey")
    assert (first.version, first.created_at, first.replaced_at) == (1, NOW, NOW + 7)
    assert (second.version, second.created_at, second.replaced_at) == (2, NOW + 7, None)
    assert [str(domain) for domain in first.domains] == ["api.example.com"]
    assert [str(domain) for domain in second.domains] == ["b.example"]
    assert first.kept
    assert second.kept


# --- wait ------------------------------------------------------------------------------------


def test_wait_ends_when_its_time_is_over(any_store: Store) -> None:
    any_store.revision()

    assert any_store.wait(0.05) is False


def test_a_change_is_seen_after_one_wait_or_the_next(any_store: Store) -> None:
    """Told at once or found by looking: whoever waits and looks sees it."""
    before = any_store.revision()
    timer = threading.Timer(0.05, put, [any_store])
    timer.start()
    for _ in range(100):
        any_store.wait(0.1)
        if any_store.revision() != before:
            break
    timer.join()

    assert any_store.revision() == before + 1
