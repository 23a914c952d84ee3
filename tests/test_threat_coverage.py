"""docs/threat-coverage.md against the tests: each kind of attack has its tests, and none is lost.

The catalogue stands here by its numbers, so that a row which is deleted from the page is missed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.docs.pages import ROOT
from tests.test_docs import is_there

PAGE = ROOT / "docs" / "threat-coverage.md"
CATALOGUE: dict[str, tuple[int, ...]] = {
    "HOST": (*range(1, 14), 15, 16),
    "MATCH": (1, 2, 3, 4, 5),
    "OWN": (1, 2, 3, 4, 6, 7, 8, 9, 10),
    "LOC": (1, 2, 4, 5, 6, 7, 8, 9, 10),
    "INT": (1, 2, 3, 4, 5),
    "TEN": (1, 3, 4, 5, 6, 7, 8, 9),
    "ESC": (1, 2, 3, 4, 6, 7),
    "SMUG": tuple(range(1, 11)),
    "SSRF": (1, 2, 3, 4, 5, 6, 7, 8, 10),
    "ORC": (1, 3, 4, 5, 6, 7, 8, 9),
    "PROTO": tuple(range(1, 7)),
    "REF": (1, 3, 4, 5, 9, 11, 15, 17, 20, 21),
    "FAIL": (1, 2, 3, 4, 6),
    "AUD": tuple(range(1, 6)),
    "DOS": tuple(range(1, 8)),
    "PH": (1, 2, 3, 4, 6, 7, 8, 9, 10),
    "LOG": (1, 3, 4, 5, 6),
    "TLS": tuple(range(1, 10)),
    "CONF": (2, 3),
}
_NAME = re.compile(r"`(tests/[\w/]+\.py(?:::\w+)+)`")


def rows() -> dict[str, tuple[str, str]]:
    """By id: what is tried, and the cell that names tests or says why there are none."""
    found = re.findall(
        r"^\| ([A-Z]+-\d\d) \| (.+?) \| (.+) \|$", PAGE.read_text("utf-8"), flags=re.MULTILINE
    )
    assert len({row[0] for row in found}) == len(found), "an id stands there twice"
    return {row[0]: (row[1], row[2]) for row in found}


def ids_of(name: str) -> Iterator[str]:
    """The ids in a test's name: ``test_smug_03_04_ten_06_x`` has three."""
    group = ""
    for part in name.removeprefix("test_").split("_"):
        if part.isdigit() and len(part) == 2 and group:
            yield f"{group}-{part}"
        elif part.upper() in CATALOGUE:
            group = part.upper()
        else:
            return


def attacks() -> Iterator[tuple[str, str]]:
    """(FILE::TEST, name) of every test that attacks from outside."""
    for path in sorted((ROOT / "tests" / "attacks").glob("test_*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield f"{path.relative_to(ROOT)}::{node.name}", node.name


def test_every_row_of_the_catalogue_is_there_in_its_order() -> None:
    assert list(rows()) == [
        f"{group}-{number:02}" for group, numbers in CATALOGUE.items() for number in numbers
    ]


def test_a_row_names_tests_or_says_why_it_has_none() -> None:
    bare = [row for row, (_, cell) in rows().items() if not _NAME.search(cell)]

    assert [row for row in bare if not rows()[row][1].startswith("Does not apply: ")] == []
    assert len(bare) < 5


def test_every_test_that_is_named_exists() -> None:
    named = {name for _, cell in rows().values() for name in _NAME.findall(cell)}

    assert len(named) > 150
    assert [name for name in sorted(named) if not is_there(name)] == []


def test_a_test_with_an_id_is_named_in_the_row() -> None:
    """But for 00, which is what has to work."""
    known = rows()
    wanted = [(row, test) for test, name in attacks() for row in ids_of(name)]

    assert len(wanted) > 150
    assert [
        f"{row}: {test}"
        for row, test in wanted
        if not row.endswith("-00") and f"`{test}`" not in known.get(row, ("", ""))[1]
    ] == []


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("test_host_02_sni_differs", ["HOST-02"]),
        ("test_ph_01_09_near_misses", ["PH-01", "PH-09"]),
        ("test_host_16_ten_06_a_change", ["HOST-16", "TEN-06"]),
        ("test_finds_a_planted_value", []),
        ("test_host_names_the_port", []),
        ("test_own_07_17_things", ["OWN-07", "OWN-17"]),
    ],
)
def test_how_ids_are_read(name: str, ids: list[str]) -> None:
    assert list(ids_of(name)) == ids
