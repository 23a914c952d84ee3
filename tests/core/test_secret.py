"""The one type that holds a value, and every ordinary way in which it could show it."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
import pprint
import traceback
from collections.abc import Callable

import pytest

from coatcheck.core.secret import (
    MAX_PLAIN_NAME,
    MAX_QUOTED_NAME,
    BadName,
    Secret,
    SecretValue,
    check_name,
    is_plain_name,
)

HUSH = b"hush-hush-0123"


def a_value() -> SecretValue:
    return SecretValue("crm.key", 3, HUSH)


def test_reveal_gives_the_bytes() -> None:
    assert a_value().reveal() == HUSH
    assert a_value().size == len(HUSH)


@dataclasses.dataclass(frozen=True)
class Holder:
    held: SecretValue


def logged(value: SecretValue) -> str:
    record = logging.LogRecord("a", 10, "f", 1, "a %s %r", (value, value), None)
    return logging.Formatter().format(record)


def raised(value: SecretValue) -> str:
    with pytest.raises(TypeError) as error:
        int(value)  # type: ignore[call-overload]
    shown = traceback.TracebackException.from_exception(error.value, capture_locals=True)
    return "".join(shown.format())


@pytest.mark.parametrize(
    "show",
    [
        pytest.param(repr, id="repr"),
        pytest.param(str, id="str"),
        pytest.param(lambda v: f"{v}", id="format"),
        pytest.param(lambda v: f"{v!s} {v!r} {v!a}", id="conversions"),
        pytest.param(lambda v: "%s %r" % (v, v), id="percent"),  # noqa: UP031
        pytest.param(lambda v: repr([v, {1: v}, (v,)]), id="inside of containers"),
        pytest.param(lambda v: repr(Holder(v)), id="a field of a dataclass"),
        pytest.param(pprint.pformat, id="pprint"),
        pytest.param(lambda v: json.dumps(v, default=str), id="json with default=str"),
        pytest.param(logged, id="a log record"),
        pytest.param(raised, id="a traceback with locals"),
        pytest.param(lambda v: str(dir(v)), id="dir"),
        pytest.param(lambda v: str(hash(v)), id="hash"),
    ],
)
def test_it_does_not_show(show: Callable[[SecretValue], str]) -> None:
    shown = show(a_value())

    assert HUSH.decode() not in shown
    assert str(list(HUSH))[1:-1] not in shown


def test_it_shows_name_and_version_so_that_a_log_is_of_use() -> None:
    assert repr(a_value()) == "<secret 'crm.key' v3>"


@pytest.mark.parametrize(
    "take",
    [
        *(
            pytest.param(lambda v, p=p: pickle.dumps(v, p), id=f"pickle protocol {p}")
            for p in range(pickle.HIGHEST_PROTOCOL + 1)
        ),
        pytest.param(copy.copy, id="copy"),
        pytest.param(copy.deepcopy, id="deepcopy"),
        pytest.param(lambda v: copy.deepcopy([v]), id="deepcopy of what holds it"),
        pytest.param(json.dumps, id="json"),
        pytest.param(lambda v: dataclasses.asdict(Holder(v)), id="asdict of what holds it"),
        pytest.param(dataclasses.asdict, id="asdict"),
        pytest.param(vars, id="vars"),
        pytest.param(bytes, id="bytes"),
        pytest.param(list, id="list"),
        pytest.param(len, id="len"),
        pytest.param(lambda v: v < v, id="order"),
        pytest.param(lambda v: v + b"", id="plus"),
    ],
)
def test_it_is_not_taken_apart(take: Callable[[object], object]) -> None:
    with pytest.raises(TypeError) as error:
        take(a_value())

    assert HUSH.decode() not in str(error.value)


def test_it_takes_no_attributes() -> None:
    with pytest.raises(AttributeError):
        a_value().note = "x"  # type: ignore[attr-defined]


def test_it_equals_itself_alone() -> None:
    """A comparison by value would be an oracle, and pytest would print both sides."""
    value, twin = a_value(), a_value()

    assert value == value
    assert value != twin
    assert value != HUSH
    assert len({value, twin, value}) == 2


def test_what_may_be_known_of_a_secret_is_plain() -> None:
    secret = Secret("id-1", "crm.key", 1, ())

    assert dataclasses.asdict(secret)["name"] == "crm.key"
    assert secret == Secret("id-1", "crm.key", 1, ())
    assert secret.last_used_at is None


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        pytest.param("a", True, id="one letter"),
        pytest.param("crm.api-Key_2", True, id="letters, digits, _-."),
        pytest.param("a" * MAX_PLAIN_NAME, True, id="the longest"),
        pytest.param("a" * (MAX_PLAIN_NAME + 1), False, id="longer than that"),
        pytest.param("", False, id="empty"),
        pytest.param("1a", False, id="a digit first"),
        pytest.param("_a", False, id="an underscore first"),
        pytest.param("a b", False, id="a blank"),
        pytest.param("a\n", False, id="a line end last"),
        pytest.param("ä", False, id="a letter that is not ASCII"),
        pytest.param("a{", False, id="a brace"),
    ],
)
def test_plain_names(name: str, plain: bool) -> None:
    assert is_plain_name(name) is plain


@pytest.mark.parametrize("name", ["a", " ", "1", "ä", 'a"]}}', "a" * MAX_QUOTED_NAME, "😀", "\xa0"])
def test_a_name_may_be_nearly_anything(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "word"),
    [
        pytest.param("", "at least one", id="empty"),
        pytest.param("a" * (MAX_QUOTED_NAME + 1), "at most 256", id="too long"),
        pytest.param("a\nb", "control", id="line end"),
        pytest.param("a\tb", "control", id="tab"),
        pytest.param("a\0", "control", id="NUL"),
        pytest.param("a\x1b[2J", "control", id="terminal escape"),
        pytest.param("a\x7f", "control", id="DEL"),
        pytest.param("a\x9b", "control", id="C1"),
        pytest.param("a\ud800", "control", id="half a surrogate pair: no UTF-8 for it"),
    ],
)
def test_names_that_no_log_or_table_could_show_are_refused(name: str, word: str) -> None:
    with pytest.raises(BadName, match=word):
        check_name(name)
