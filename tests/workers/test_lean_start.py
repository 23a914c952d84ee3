"""Every process starts with what it imports: what it does not use costs each start."""

from __future__ import annotations

import subprocess
import sys

import pytest


def said(program: str) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def imported(module: str) -> set[str]:
    """Packages that are there once *module* is."""
    program = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(said(program).split())


@pytest.mark.parametrize(
    ("module", "not_needed"),
    [
        ("coatcheck.app", {"rich", "typer", "fastapi", "jinja2", "alembic", "boto3", "hvac"}),
        ("coatcheck.admin.process", {"rich", "typer", "mitmproxy", "numpy", "alembic"}),
        ("coatcheck.workers.supervisor", {"rich", "typer", "mitmproxy", "numpy", "fastapi"}),
        ("coatcheck.client", {"cryptography", "pydantic", "structlog", "sqlalchemy", "mitmproxy"}),
    ],
)
def test_it_does_not_import(module: str, not_needed: set[str]) -> None:
    assert not imported(module) & not_needed


class TestWithout:
    HIDE = "from coatcheck.observe.lean import without\nwith without('colorsys'):\n    "

    def test_an_import_fails_within(self) -> None:
        asked = "try: import colorsys\n    except ImportError: print('not there')"
        assert said(self.HIDE + asked) == "not there"

    def test_it_is_there_afterwards(self) -> None:
        assert said(self.HIDE + "pass\nimport colorsys; print(colorsys.__name__)") == "colorsys"

    def test_it_is_there_within_where_somebody_has_it(self) -> None:
        assert said("import colorsys\n" + self.HIDE + "import colorsys; print(1)") == "1"


def test_from_when_it_has_settled_garbage_is_looked_for_in_what_is_new_alone() -> None:
    program = (
        "import gc; usual = gc.get_threshold()\n"
        "from coatcheck.workers import process\n"
        "process.hurry(); print(gc.get_threshold() > usual)\n"
        "process.settle(); print(gc.get_threshold() == usual, gc.get_freeze_count() > 1000)\n"
    )
    assert said(program).split() == ["True", "True", "True"]
