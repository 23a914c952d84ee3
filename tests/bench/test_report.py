"""Tables for a terminal and for docs/performance.md, and the JSON of a run."""

from __future__ import annotations

import json
import math
import re

import pytest

from bench import report
from bench.cases import CASES, Options
from bench.contenders import CONTENDERS
from bench.figures import Results
from bench.report import PAGE, Report, Table


def a_report() -> Report:
    results = Results()
    for own, stock in ((0.1, 1.0), (0.3, 2.0), (0.2, 1.0)):
        results.add("keep-16", "direct", {"per_s": 100.0, "cpu_s_per_1000": math.nan})
        results.add("keep-16", "stock", {"per_s": 20.0, "cpu_s_per_1000": stock})
        results.add("keep-16", "coatcheck", {"per_s": 40_000.0, "cpu_s_per_1000": own})
    results.add_errors("new", "stock", {"Broken: closed": 3})
    return Report({"CPU": "a fast one"}, Options(), results, {"proxy.py": "it is gone"}, 2)


def rows(made: Table) -> dict[str, dict[str, str]]:
    return {row[0]: dict(zip(made.head, row, strict=True)) for row in made.rows}


def test_a_table_has_medians_ratios_and_errors() -> None:
    keep, new = report.tables(a_report(), CASES.values(), CONTENDERS)
    seen = rows(keep)

    assert list(seen) == ["no proxy", "mitmdump -q", "coatcheck"]
    assert seen["coatcheck"]["requests/s"] == "40,000"
    assert seen["coatcheck"]["CPU s/1,000"] == "0.200"
    assert seen["no proxy"]["CPU s/1,000"] == "-"
    assert keep.rows[2][keep.head.index("CPU s/1,000") + 1] == "0.15"
    assert rows(new)["mitmdump -q"]["errors"] == "3"


def test_a_terminal_gets_columns_that_stand_in_line() -> None:
    text = report.tables(a_report(), [CASES["keep-16"]], CONTENDERS)[0].text()
    title, head, *lines = text.rstrip().splitlines()

    assert title == "HTTPS, 16 connections kept"
    assert {len(line) for line in [head, *lines]} == {len(head)}


def test_a_page_gets_a_table_of_as_many_columns_everywhere() -> None:
    text = report.tables(a_report(), [CASES["keep-16"]], CONTENDERS)[0].markdown()
    table = [line for line in text.splitlines() if line.startswith("|")]

    assert len(table) == 5
    assert len({line.count("|") for line in table}) == 1
    assert re.fullmatch(r"\| --- (\| --: )+\|", table[1])


def test_a_run_is_read_again_as_it_was_written() -> None:
    made = a_report()
    text = made.to_json()
    again = Report.from_json(text)

    assert again.to_json() == text
    assert again.results.errors["new", "stock"] == {"Broken: closed": 3}
    assert [str(goal) for goal in again.goals()] == [str(goal) for goal in made.goals()]
    read = json.loads(text)
    assert {goal["state"] for goal in read["goals"]} >= {"met", "missed", "not measured"}


def test_only_what_stands_between_the_marks_is_made_anew() -> None:
    made = a_report()
    old = PAGE.read_text("utf-8")
    new = report.page(made, report.tables(made, CASES.values(), CONTENDERS), CONTENDERS)

    assert new.partition(report.BEGIN)[0] == old.partition(report.BEGIN)[0] != ""
    assert new.partition(report.END)[2] == old.partition(report.END)[2] != ""
    assert "a fast one" in new
    assert "| coatcheck | 40,000 |" in new
    assert "not available: proxy.py: it is gone" in new


def test_the_page_has_the_tables_of_a_whole_run() -> None:
    """Where one was written down: each case, and each goal by its name of today."""
    text = PAGE.read_text("utf-8").partition(report.BEGIN)[2].partition(report.END)[0]
    titles = [re.escape(case.title).replace(r"\{mib\}", r"\d+") for case in CASES.values()]
    titles = [title.replace(r"\{gib\}", r"\d+") for title in titles]

    assert [title for title in titles if not re.search(title, text, re.IGNORECASE)] == []
    assert [goal.name for goal in a_report().goals() if goal.name not in text] == []


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_case_has_columns(case: object) -> None:
    titles = [column.figure for column in report.columns(case)]  # type: ignore[arg-type]

    assert len(titles) > 3
