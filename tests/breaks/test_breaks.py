"""The table of breaks fits the code, and the runner tells red from green.

``make breaks`` makes all of them; a part of ``make test`` is what keeps the table from rotting, and
two of the breaks as a sample.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.breaks.change import SOURCE, Break, Stale
from tests.breaks.runner import ROOT, Copy, Outcome, main
from tests.breaks.table import BREAKS, TABLE
from tests.test_docs import is_there

# A check that is broken, and a text that checks nothing.
MAX_USES = next(one for one in BREAKS if one.id == "max-uses")
HARMLESS = replace(
    MAX_USES, id="harmless", old="DEFAULT_MAX_USES = 4  # occ", new="DEFAULT_MAX_USES = 4  # Occ"
)


@pytest.mark.parametrize("one", BREAKS, ids=lambda one: one.id)
def test_an_entry_fits_the_code(one: Break) -> None:
    """Its old text stands there once, what comes of it compiles, and its tests are there."""
    text = (ROOT / SOURCE / one.file).read_text("utf-8")

    assert one.of(text) != text
    assert one.words.endswith(".")
    assert one.tests
    assert [name for name in one.tests if not is_there(name)] == []


def test_ids_are_unique() -> None:
    assert len({one.id for one in BREAKS}) == len(BREAKS)


@pytest.mark.parametrize("promise", ["G1", "G2", "G3", "G4", "G5", "G6"])
def test_every_promise_has_breaks(promise: str) -> None:
    assert len(TABLE[promise]) >= 8


@pytest.mark.parametrize("text", ["none", "once and once"], ids=["gone", "there twice"])
def test_an_old_text_that_is_not_there_once_is_stale(text: str) -> None:
    one = replace(MAX_USES, old="once", new="1")

    assert one.of("once") == "1"
    with pytest.raises(Stale):
        one.of(text)


# --- the runner -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("breaks") / "copy")


@pytest.fixture
def red_otherwise(copy: Copy) -> Iterator[str]:
    """A test that is red by an exception, as one is whose import fails."""
    file = copy.root / "tests" / "test_otherwise.py"
    file.write_text("def test_it() -> None:\n    raise LookupError\n")
    yield "tests/test_otherwise.py::test_it"
    file.unlink()


@pytest.mark.slow
def test_a_break_turns_its_test_red(copy: Copy) -> None:
    verdict = copy.judge(MAX_USES)

    assert verdict.outcome is Outcome.KILLED, verdict
    assert "test_decision" in verdict.about


@pytest.mark.slow
def test_a_break_that_no_test_sees_survives(copy: Copy) -> None:
    verdict = copy.judge(HARMLESS)

    assert verdict.outcome is Outcome.SURVIVED, verdict


@pytest.mark.slow
def test_red_by_an_exception_is_not_found(copy: Copy, red_otherwise: str) -> None:
    verdict = copy.judge(replace(MAX_USES, tests=(red_otherwise,)))

    assert verdict.outcome is Outcome.OTHERWISE, verdict


@pytest.mark.parametrize(
    "change", [{"old": "what is not there"}, {"new": "    if (:"}], ids=["stale", "no Python"]
)
def test_a_break_that_cannot_be_made_is_told_of(copy: Copy, change: dict[str, str]) -> None:
    verdict = copy.judge(replace(MAX_USES, **change))

    assert verdict.outcome is Outcome.STALE


def test_the_copy_is_whole_again_after_a_break(copy: Copy) -> None:
    file = copy.root / SOURCE / MAX_USES.file
    whole = file.read_text("utf-8")

    with copy.broken(MAX_USES):
        assert file.read_text("utf-8") == MAX_USES.of(whole)
    assert file.read_text("utf-8") == whole == (ROOT / SOURCE / MAX_USES.file).read_text("utf-8")


@pytest.mark.parametrize(
    "program",
    [
        pytest.param("import coatcheck; print(coatcheck.__file__)", id="in the process"),
        pytest.param(
            "import subprocess, sys; from tests.e2e import harness; subprocess.run("
            "[sys.executable, '-c', 'import coatcheck; print(coatcheck.__file__)'],"
            "env=harness.environ(), cwd='/', check=True)",
            id="in a process that the end-to-end tests and attacks start",
        ),
    ],
)
def test_what_runs_is_the_copy(copy: Copy, program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=copy.root,
        env=copy.environ(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert Path(done.stdout.strip()) == copy.root / SOURCE / "__init__.py"


def test_an_unknown_id_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "no-such-break"])
    assert "no-such-break" in capsys.readouterr().err
