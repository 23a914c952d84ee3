"""What is said at the end of a run, of all workers together; and a database for who needs one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.store.server import Server


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
