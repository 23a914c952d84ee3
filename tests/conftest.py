"""What is said at the end of a run, of all workers together."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many cells of matrices were tried, besides the tests that are counted anyway."""
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
