"""The placeholders of one request: each judged by its own place, opened, counted, filled in."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from coatcheck.core.audit import Use
from coatcheck.core.destination import Destination, parse_domain_pattern
from coatcheck.core.filling import MAX_KEPT, Filling
from coatcheck.core.inject import HeadTemplate, read_head
from coatcheck.core.limits import Limits
from coatcheck.core.locations import Kind, Location, parse_pattern
from coatcheck.core.message import Fields, RequestHead
from coatcheck.core.placeholder import Grammar
from coatcheck.core.policy import Client, Grant, Policy, Request, Unresolved
from coatcheck.core.ports import StoreError
from coatcheck.core.problems import Problem, Refused
from coatcheck.core.secret import Secret, SecretValue
from coatcheck.core.snapshot import Snapshot
from coatcheck.core.template import NotRepresentable, Piece, Slot
from coatcheck.store.memory import MemoryStore, MemoryView

API = Destination("https", "api.example.com", 443)
REQUEST = Request("runner", API, "POST", "/")
GRANT = Grant(("*",), ("runner",))
VALUES = {"a": b"value of a", "b": b"value of b"}
HEADER, BODY = Location(Kind.HEADER, "x-key"), Location(Kind.BODY)


def a_filling(
    *,
    grants: Iterable[Grant] = (GRANT,),
    limits: Limits | None = None,
    unresolved: Unresolved = Unresolved.BLOCK,
    text_host: bool = False,
    values: Mapping[str, bytes] = VALUES,
    request: Request = REQUEST,
) -> Filling:
    store = MemoryStore()
    for name, value in values.items():
        domains = [parse_domain_pattern("api.example.com")]
        store.put(name, value, domains=domains, description="", now=1.0)
    policy = Policy(
        clients=(Client("runner"),),
        grants=tuple(grants),
        unresolved=unresolved,
        text_hosts=(parse_domain_pattern("api.example.com"),) if text_host else (),
    )
    return Filling(Snapshot(policy, store.view()), request, limits or Limits())


def a_slot(name: str | None, where: Location = HEADER) -> Slot:
    return Slot(name, where, b"{{secrets.%b}}" % (name or "").encode(), lambda value: value)


def done(filling: Filling, *pieces: Piece) -> bytes:
    """*pieces* decided and filled."""
    filling.decide(piece for piece in pieces if isinstance(piece, Slot))
    return filling.fill(pieces)


def refusal(filling: Filling, *found: Slot) -> Problem:
    with pytest.raises(Refused) as refused:
        filling.decide(found)
    return refused.value.problem


# --- what may be filled ----------------------------------------------------------------------


def test_a_slot_that_is_allowed_is_filled_and_told_of() -> None:
    filling = a_filling()

    assert done(filling, b"<", a_slot("a"), b">") == b"<value of a>"
    assert filling.names == {"a"}
    assert [value.reveal() for value in filling.values.values()] == [b"value of a"]
    assert filling.take_unrecorded() == [Use("a", 1, "header:x-key")]


@pytest.mark.parametrize(
    ("slot", "code"),
    [
        pytest.param(a_slot("nope"), "secret_unavailable", id="no such secret"),
        pytest.param(a_slot(None), "placeholder_malformed", id="up to a point"),
        pytest.param(
            a_slot("a", Location(Kind.HEADER, "cookie")), "location_not_allowed", id="its place"
        ),
        pytest.param(
            a_slot("a", Location(Kind.HEADER, "host")), "location_not_allowed", id="never there"
        ),
    ],
)
def test_what_is_not_allowed_is_refused_and_leaves_no_trace(slot: Slot, code: str) -> None:
    filling = a_filling()

    assert refusal(filling, slot).code == code
    assert filling.names == frozenset()
    assert filling.values == {}
    assert filling.take_unrecorded() == []


def test_a_refusal_says_which_and_where() -> None:
    problem = refusal(a_filling(), a_slot("a", Location(Kind.HEADER, "cookie")))

    assert (problem.secret, problem.location) == ("a", "header:cookie")
    assert refusal(a_filling(), a_slot(None)).location == "header:x-key"


def test_each_place_is_judged_alone() -> None:
    """One grant for the header, none for the body: the first does not open the second."""
    filling = a_filling(grants=[replace(GRANT, locations=(parse_pattern("header"),))])
    filling.decide([a_slot("a", HEADER)])

    assert refusal(filling, a_slot("a", BODY)).code == "location_not_allowed"


def test_what_was_not_decided_cannot_be_filled() -> None:
    with pytest.raises(KeyError):
        a_filling().fill([a_slot("a")])


def test_a_decision_serves_once() -> None:
    """Another slot may get the same identity once the first one is gone."""
    filling, slot = a_filling(), a_slot("a")
    done(filling, slot)

    with pytest.raises(KeyError):
        filling.fill([slot])


# --- what stays text -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unresolved", "text_host", "name", "expected"),
    [
        pytest.param(Unresolved.KEEP, False, "nope", None, id="keep: no such secret"),
        pytest.param(Unresolved.KEEP, False, "a", b"value of a", id="keep: an allowed one"),
        pytest.param(Unresolved.BLOCK, True, "nope", None, id="text host: no such secret"),
        pytest.param(Unresolved.BLOCK, True, None, None, id="text host: up to a point"),
        pytest.param(Unresolved.BLOCK, True, "a", b"value of a", id="text host: an allowed one"),
    ],
)
def test_what_stays_text(
    unresolved: Unresolved, text_host: bool, name: str | None, expected: bytes | None
) -> None:
    filling = a_filling(unresolved=unresolved, text_host=text_host)
    slot = a_slot(name)

    assert done(filling, slot) == (expected or slot.text)
    assert bool(filling.names) is bool(filling.take_unrecorded()) is (expected is not None)


@pytest.mark.parametrize(
    "slot",
    [
        pytest.param(a_slot("a", Location(Kind.HEADER, "cookie")), id="a wrong place"),
        pytest.param(a_slot(None), id="up to a point"),
    ],
)
def test_keep_is_for_what_is_unavailable_alone(slot: Slot) -> None:
    refusal(a_filling(unresolved=Unresolved.KEEP), slot)


def test_keep_is_not_for_a_wrong_destination() -> None:
    elsewhere = REQUEST._replace(destination=Destination("https", "evil.example", 443))
    filling = a_filling(unresolved=Unresolved.KEEP, request=elsewhere)

    assert refusal(filling, a_slot("a")).code == "domain_not_allowed"


def test_a_place_that_keeps_its_text_does_not_keep_it_elsewhere() -> None:
    filling = a_filling(
        text_host=True, grants=[replace(GRANT, locations=(parse_pattern("header"),))]
    )

    assert done(filling, a_slot("a", BODY), a_slot("a", HEADER), a_slot("a", BODY)) == (
        b"{{secrets.a}}value of a{{secrets.a}}"
    )


def test_a_long_chat_full_of_placeholders_stays_text() -> None:
    """More of them than there is memory for; none is counted as used."""
    filling = a_filling(text_host=True)
    chat = [a_slot(f"no.{number}") for _ in range(2) for number in range(MAX_KEPT + 5)]

    assert done(filling, *chat) == b"".join(slot.text for slot in chat)
    assert filling.names == frozenset()
    assert len(filling._kept) == MAX_KEPT


# --- how much --------------------------------------------------------------------------------


@pytest.mark.parametrize("places", [(HEADER, HEADER, HEADER), (HEADER, BODY, HEADER)])
def test_max_uses_is_inclusive_and_counts_over_all_places(places: tuple[Location, ...]) -> None:
    filling = a_filling(grants=[replace(GRANT, max_uses=2)])
    first, second, third = (a_slot("a", where) for where in places)

    done(filling, first)
    done(filling, second)

    assert refusal(filling, third).code == "too_many_placeholders"


def test_max_uses_counts_each_secret_alone() -> None:
    filling = a_filling(grants=[replace(GRANT, max_uses=1)])

    assert done(filling, a_slot("a"), a_slot("b")) == b"value of avalue of b"


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        pytest.param(Limits(placeholders_per_request=3), 3, id="placeholders"),
        pytest.param(Limits(expanded_bytes=30), 3, id="bytes, exactly"),
        pytest.param(Limits(expanded_bytes=29), 2, id="bytes, one too few"),
    ],
)
def test_one_request_has_its_bounds(limits: Limits, most: int) -> None:
    filling = a_filling(limits=limits)
    slots = [a_slot("ab"[number % 2]) for number in range(4)]
    filling.decide(slots[:most])

    assert refusal(filling, slots[most]).code == "too_many_placeholders"


# --- what goes wrong -------------------------------------------------------------------------


def test_a_value_that_cannot_be_opened_is_the_stores_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(self: MemoryView, secret: Secret) -> SecretValue:
        raise StoreError("the key does not fit", hint="find the right one")

    monkeypatch.setattr(MemoryView, "open", broken)

    problem = refusal(a_filling(), a_slot("a"))

    assert problem.code == "store_unavailable"
    assert problem.secret == "a"
    assert "key" in problem.operator
    assert b"the key" not in problem.body("id")


def test_a_value_that_cannot_be_written_is_refused_without_a_word_of_it() -> None:
    def cannot(value: bytes) -> bytes:
        raise NotRepresentable("it holds a line end")

    filling, slot = a_filling(), Slot("a", HEADER, b"", cannot)
    filling.decide([slot])

    with pytest.raises(Refused) as refused:
        filling.fill([slot])

    assert str(refused.value) == "value_not_representable"
    assert "it holds a line end" in refused.value.problem.detail
    assert VALUES["a"] not in refused.value.problem.body("id")


# --- heads -----------------------------------------------------------------------------------


def basic(text: bytes) -> bytes:
    return b"Basic " + base64.b64encode(text)


def a_template(*fields: tuple[bytes, bytes]) -> HeadTemplate:
    template = read_head(RequestHead(b"GET", b"/", fields), Grammar())
    assert template is not None
    return template


def filled_head(filling: Filling, *fields: tuple[bytes, bytes]) -> Fields:
    template = a_template(*fields)
    filling.decide(template.slots())
    return filling.fill_head(template).fields


def test_a_head_is_filled_and_its_tokens_are_kept_for_the_scrubber() -> None:
    filling = a_filling()

    fields = filled_head(
        filling,
        (b"X-Key", b"{{secrets.a}}"),
        (b"Authorization", basic(b"user:{{secrets.b}}")),
        (b"Cookie", b"c=1"),
    )

    token = base64.b64encode(b"user:value of b")
    assert fields == (
        (b"X-Key", b"value of a"),
        (b"Authorization", b"Basic " + token),
        (b"Cookie", b"c=1"),
    )
    assert filling.tokens == {("b", token[4:])}, "the groups of four that carry the value"


def test_a_head_whose_value_cannot_be_written_is_refused() -> None:
    filling = a_filling(values={"a": b"two\r\nlines"})

    with pytest.raises(Refused) as refused:
        filled_head(filling, (b"X-Key", b"{{secrets.a}}"))

    assert str(refused.value) == "value_not_representable"


def test_uses_are_taken_once() -> None:
    filling = a_filling()
    filling.decide([a_slot("a"), a_slot("b", BODY)])

    assert filling.take_unrecorded() == [Use("a", 1, "header:x-key"), Use("b", 1, "body")]
    assert filling.take_unrecorded() == []
    filling.decide([a_slot("a", BODY)])
    assert filling.take_unrecorded() == [Use("a", 1, "body")]
