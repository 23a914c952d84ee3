"""What is said at the end of a run, of all workers together."""

from __future__ import annotations

import os

import pytest


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
