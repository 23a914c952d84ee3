"""The order of a run and what is said at its end; and a database for who needs one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.store.server import Server

ROOT = Path(__file__).parent


# `make test` hands out whole files, in this order: what takes long must not begin last.
LONGEST_FIRST = (
    "e2e",
    "test_docs.py",
    "deploy",
    "attacks",
    "cli",
    "store",
    "admin",
    "test_gateway.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which of the folders (or files) of `tests` an item is in decides; the rest is last."""
    rank = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(_top(item), len(rank)))


def _top(item: pytest.Item) -> str:
    return item.path.relative_to(ROOT).parts[0] if item.path.is_relative_to(ROOT) else ""


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server, for all tests of this process."""
    from tests.store.server import Unavailable, running

    try:
        with running() as server:
            yield server
    except Unavailable as error:
        pytest.skip(f"no PostgreSQL: {error}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many cells of matrices were tried, and that the attacks ran: they could be skipped."""
    count = {
        kind: sum("tests/attacks" in item.nodeid for item in terminalreporter.stats.get(kind, ()))
        for kind in ("passed", "failed", "error", "skipped")
    }
    if any(count.values()):
        target = os.environ.get("COATCHECK_ATTACK_TARGET", "coatcheck")
        told = ", ".join(f"{number} {kind}" for kind, number in count.items())
        terminalreporter.write_line(f"attacks on {target}: {told}")
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if isinstance(report, pytest.TestReport)
    ]
    cells = [
        count for report in reports for name, count in report.user_properties if name == "cells"
    ]
    if cells:
        terminalreporter.write_line(f"{sum(map(int, cells)):,} cells in {len(cells)} tests")
