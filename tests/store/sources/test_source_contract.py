"""What every source keeps, one test for each sentence of `port.Source`."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coatcheck.core.secret import MAX_VALUE
from coatcheck.store.sources import kinds
from coatcheck.store.sources.port import HINTS, TAKEN_BACK, Failure, Source, SourceError
from tests.store.sources.kits import a_kit, declared

ALL = ("env", "file", "command", "vault by token", "vault by AppRole", "aws", "gcp", "azure")
VALUE = "sk-live-0123456789"


class Opened:
    """A kit, and an adapter for it."""

    def __init__(self, kit: Any, folder: Path) -> None:
        self.kit = kit
        self.declared = declared(kit, folder)
        self.source: Source = kinds.make(self.declared.source)

    def fetch(self) -> bytes:
        return self.source.fetch(self.declared.where).value

    def failure(self) -> SourceError:
        with pytest.raises(SourceError) as caught:
            self.fetch()
        return caught.value


@pytest.fixture(params=ALL)
def opened(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Opened]:
    moto = request.getfixturevalue("moto_server") if request.param == "aws" else None
    tls = request.getfixturevalue("tls") if request.param in ("gcp", "azure") else None
    with a_kit(request.param, tmp_path, monkeypatch, moto, tls) as kit:
        made = Opened(kit, tmp_path)
        yield made
        made.source.close()


# The environment of a process does not fail.
breakable = pytest.mark.parametrize("opened", ALL[1:], indirect=True)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(VALUE, id="a key"),
        pytest.param('quo"ted \\ {{secrets.key}} $(id) ümläut', id="characters with a meaning"),
        pytest.param("-----BEGIN KEY-----\nMIIB\n-----END KEY-----", id="several lines"),
        pytest.param("k" * 60_000, id="a long one"),
    ],
)
def test_a_value_comes_as_it_was_put(opened: Opened, value: str) -> None:
    opened.kit.put(value)

    fetched = opened.source.fetch(opened.declared.where)

    assert fetched.value.removesuffix(b"\n") == value.encode()
    assert fetched.is_text or fetched.value == value.encode()
    assert value not in repr(fetched)


def test_a_new_value_comes_with_the_next_question(opened: Opened) -> None:
    opened.kit.put(VALUE)
    assert VALUE.encode() in opened.fetch()

    opened.kit.put("another-value-987654")

    assert opened.fetch().strip() == b"another-value-987654"


def test_what_was_taken_away_is_gone_and_may_come_back(opened: Opened) -> None:
    opened.kit.put(VALUE)
    opened.fetch()

    opened.kit.take_away()
    failure = opened.failure().failure
    assert failure in TAKEN_BACK or failure is Failure.COMMAND_FAILED  # which cannot say more

    if opened.declared.source.kind != "aws":  # there it has to be restored first
        opened.kit.put("another-value-987654")
        assert opened.fetch().strip() == b"another-value-987654"


def test_what_never_was_there_is_gone(opened: Opened) -> None:
    assert opened.failure().failure in (Failure.GONE, Failure.COMMAND_FAILED)


@breakable
def test_an_outage_is_told_and_survived(opened: Opened) -> None:
    kit = opened.kit
    kit.put(VALUE)
    opened.fetch()

    kit.break_down()
    assert opened.failure().failure not in TAKEN_BACK

    kit.mend()
    assert opened.fetch().strip() == VALUE.encode()


@breakable
def test_no_error_shows_anything_of_value_or_credential(
    opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    kit = opened.kit
    caplog.set_level(logging.INFO)
    kit.put("SENTINEL-value-0123456789")
    opened.fetch()
    kit.break_down()
    broken = opened.failure()
    kit.mend()
    kit.take_away()
    errors = [broken, opened.failure()]

    shown = "".join("".join(traceback.format_exception(error)) + repr(error) for error in errors)
    assert "SourceError" in shown
    for hidden in ("SENTINEL-value", *kit.credentials):
        assert hidden not in shown + caplog.text


def test_every_failure_has_a_hint_and_constant_words() -> None:
    assert set(HINTS) == set(Failure)
    assert all(str(SourceError(failure)) == failure.value for failure in Failure)
    assert MAX_VALUE < 16 * 1024 * 1024  # as its words say
