"""docs/coming-from.md: nothing of the four kinds of systems is left out, and each row is shown."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.docs import pages
from tests.docs.pages import ROOT
from tests.test_docs import is_there

PAGE = ROOT / "docs" / "coming-from.md"
KINDS = ("key store", "workflow", "organisation", "project")
# What each kind has, by section: as many rows as there are things to say of it, and no kind that
# has nothing of it.
CATALOGUE: dict[str, tuple[int, int, int, int]] = {
    "Placeholders": (1, 1, 1, 1),
    "Where a value goes": (1, 2, 2, 2),
    "A secret that is missing": (1, 0, 2, 0),
    "Values": (1, 1, 1, 2),
    "Names": (0, 0, 2, 2),
    "What else is kept": (0, 1, 3, 1),
    "Rules": (0, 0, 3, 3),
    "For code": (1, 1, 0, 0),
    "For people": (0, 0, 1, 1),
    "Who may": (1, 1, 1, 1),
}
_TEST = re.compile(r"tests/[\w/]+\.py(?:::\w+)+")


def test_the_sections_are_these() -> None:
    found = re.findall(r"^## (.+)$", PAGE.read_text("utf-8"), flags=re.MULTILINE)

    assert found == list(CATALOGUE)


@pytest.mark.parametrize("section", CATALOGUE)
def test_nothing_that_a_kind_has_is_left_out(section: str) -> None:
    rows = pages.table(PAGE, section)

    assert Counter(row[0] for row in rows) == +Counter(
        dict(zip(KINDS, CATALOGUE[section], strict=True))
    )


@pytest.mark.parametrize("section", CATALOGUE)
def test_each_row_is_shown_by_a_test_that_is_there(section: str) -> None:
    for _, there, here, shown in pages.table(PAGE, section):
        named = _TEST.findall(shown)
        assert there
        assert here
        assert named, f"{there}: no test is named"
        assert [name for name in named if not is_there(name)] == []
