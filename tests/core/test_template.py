"""Holes and how they are filled: one pass, and what a value says is never read again."""

from __future__ import annotations

import base64

import pytest

from coatcheck.core.locations import Kind, Location
from coatcheck.core.secret import SecretValue
from coatcheck.core.template import (
    Fill,
    Group,
    NotRepresentable,
    Piece,
    Slot,
    group_tokens,
    render,
    slots,
)

BODY = Location(Kind.BODY)


def a_slot(name: str | None) -> Slot:
    return Slot(name, BODY, b"{{secrets.%b}}" % (name or "").encode(), lambda value: value)


def filled_with(**values: bytes) -> Fill:
    """Fills the slots of these names and keeps the others."""
    known = {name: SecretValue(name, 1, value) for name, value in values.items()}
    return lambda slot: known.get(slot.name or "")


A, B, BROKEN = a_slot("a"), a_slot("b"), a_slot(None)


def excerpt(inside: bytes, start: int, stop: int) -> bytes:
    return inside[start:stop]


BASIC = Group((b"user:", A), base64.b64encode, excerpt)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        pytest.param([], b"", id="nothing"),
        pytest.param([b"x", b"", b"y"], b"xy", id="text alone"),
        pytest.param([b"<", A, b"|", B, b">"], b"<1|2>", id="values in their order"),
        pytest.param([A, A], b"11", id="one secret twice"),
        pytest.param([a_slot("c")], b"{{secrets.c}}", id="what is not filled keeps its text"),
        pytest.param([BROKEN], b"{{secrets.}}", id="so does what is no placeholder"),
        pytest.param([BASIC], base64.b64encode(b"user:1"), id="a group is wrapped once filled"),
        pytest.param(
            [Group((a_slot("c"),), base64.b64encode, excerpt)],
            base64.b64encode(b"{{secrets.c}}"),
            id="a group that is kept is wrapped again",
        ),
    ],
)
def test_render(pieces: list[Piece], expected: bytes) -> None:
    assert render(pieces, filled_with(a=b"1", b=b"2")) == expected


def test_a_value_that_looks_like_a_placeholder_stays_as_it_is() -> None:
    fill = filled_with(a=b"{{secrets.b}}", b=b"{{secrets.a}}")

    assert render([A, B], fill) == b"{{secrets.b}}{{secrets.a}}"


def test_values_that_make_a_placeholder_together_do_not() -> None:
    fill = filled_with(a=b"{{secr", b=b"ets.a}}")

    assert render([A, B], fill) == b"{{secrets.a}}"


def test_a_value_is_written_in_the_escaping_of_its_place_and_the_text_is_not() -> None:
    upper = Slot("a", BODY, b"text", bytes.upper)

    assert render([b"x", upper], filled_with(a=b"v")) == b"xV"
    assert render([b"x", upper], filled_with()) == b"xtext"


def test_a_value_that_cannot_be_written_there_stops_it_all() -> None:
    def refuse(value: bytes) -> bytes:
        raise NotRepresentable("it has a line end")

    with pytest.raises(NotRepresentable):
        render([b"x", Slot("a", BODY, b"", refuse)], filled_with(a=b"v"))


def test_slots_come_in_order_and_out_of_groups() -> None:
    pieces: list[Piece] = [B, b"x", Group((A, b":", BROKEN), bytes, excerpt), A]

    assert list(slots(pieces)) == [B, A, BROKEN, A]


@pytest.mark.parametrize(
    ("pieces", "tokens"),
    [
        pytest.param([b"x", A], [], id="what is not grouped is no token"),
        pytest.param([BASIC], [("a", b"1")], id="what carries the value"),
        pytest.param(
            [Group((a_slot("c"),), bytes, excerpt)], [], id="a group in which nothing is filled"
        ),
        pytest.param([Group((b"x",), bytes, excerpt)], [], id="a group without a placeholder"),
        pytest.param(
            [A, Group((a_slot("c"), B, b":", A), bytes, excerpt)],
            [("b", b"2"), ("a", b"1")],
            id="each value of the group, and none of elsewhere",
        ),
    ],
)
def test_tokens_are_groups_that_were_filled(
    pieces: list[Piece], tokens: list[tuple[str, bytes]]
) -> None:
    assert list(group_tokens(pieces, filled_with(a=b"1", b=b"2"))) == tokens
