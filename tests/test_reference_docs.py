"""docs/policy.md and docs/settings.md are made from the models that read the files, and current."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from coatcheck import policymodel, settingtable
from coatcheck.core.policy import Step
from tests.docs import pages

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("x", ROOT / "scripts" / "reference_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["policy.md", "settings.md"])
def test_the_page_is_current(name: str) -> None:
    page = (DOCS / name).read_text(encoding="utf-8")

    assert page == script().PAGES[name](), "run: .venv/bin/python scripts/reference_docs.py"


@pytest.mark.parametrize("section", policymodel.SECTIONS)
def test_every_key_of_the_policy_has_a_row(section: str) -> None:
    rows = pages.table(DOCS / "policy.md", section or "The file")

    assert [row[0] for row in rows] == policymodel.keys_of(section)
    assert [row[0] for row in rows if not (row[1] and row[3])] == []


def test_every_question_of_a_decision_has_a_row() -> None:
    rows = pages.table(DOCS / "policy.md", "How a request is decided")

    assert [row[1] for row in rows] == [str(step) for step in Step]


def test_every_setting_has_a_row() -> None:
    page = DOCS / "settings.md"
    top = [row[0] for row in pages.table(page, "Settings reference")]
    limits = [f"limits.{row[0]}" for row in pages.table(page, "Limits")]

    assert top + limits == list(settingtable.ENTRIES)
