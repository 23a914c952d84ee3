"""Makes one break at a time in a copy of the tree, and looks how the named tests take it.

The copy stands in front of the path by PYTHONPATH, for the tests and for every process that they
start; what is installed comes from the checkout's own environment. A break counts as found only
when a test fails by an assertion. An import that fails, an exception on the way or a test that
hangs would be red for any reason, and prove nothing.

The named tests run once on the unbroken copy first: what is red there anyway cannot turn red.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as Xml
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.breaks.change import SOURCE, Break, Stale
from tests.breaks.table import TABLE

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 180.0  # for the tests of one break
BASELINE_LIMIT_S = 1200.0  # for all tests that are named, unbroken
LEFT_OUT = (
    ".venv",
    ".git",
    "__pycache__",
    ".hypothesis",
    ".*_cache",
    "node_modules",
    "build",
    "dist",
)
ASSERTIONS = ("AssertionError", "assert ", "Failed: ")
TIMEOUT = "Failed: Timeout"  # of pytest-timeout: the test hung

# Each change of a file gets a time of its own, or Python would take the bytecode of the last one.
_STAMPS = itertools.count(1_000_000_000)


class Outcome(StrEnum):
    KILLED = "killed"
    SURVIVED = "SURVIVED"
    OTHERWISE = "RED OTHERWISE"  # not by an assertion
    STALE = "STALE"
    SKIPPED = "skipped"  # this machine cannot run the tests


PASSING = (Outcome.KILLED, Outcome.SKIPPED)


@dataclass(frozen=True, slots=True)
class Verdict:
    """*about*: the test that failed, or why none did."""

    outcome: Outcome
    about: str = ""
    took_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """One run of pytest: failures by assertion, everything else that is red, and counts."""

    failed: tuple[str, ...]
    otherwise: tuple[str, ...]
    tests: int
    skipped: int


class Copy:
    """A copy of the tree in *folder*, whole again after each break."""

    def __init__(self, folder: Path, source: Path = ROOT) -> None:
        self.root = folder
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)

    def environ(self) -> dict[str, str]:
        """For tests in this copy; nothing of a pytest that we may run in."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        return {**kept, "PYTHONPATH": str(self.root / SOURCE.parent)}

    def judge(self, one: Break) -> Verdict:
        """Break, test, mend."""
        begun = time.monotonic()
        try:
            with self.broken(one):
                run = self.test(one.tests, "-x", "-n", "0", limit_s=LIMIT_S)
        except (Stale, SyntaxError) as error:
            return Verdict(Outcome.STALE, str(error))
        outcome, about = _outcome(run)
        return Verdict(outcome, about, time.monotonic() - begun)

    @contextlib.contextmanager
    def broken(self, one: Break) -> Iterator[None]:
        file = self.root / SOURCE / one.file
        whole = file.read_text("utf-8")
        _write(file, one.of(whole))
        try:
            yield
        finally:
            _write(file, whole)

    def test(self, tests: Collection[str], *options: str, limit_s: float) -> Run:
        report = self.root / "report.xml"
        report.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
        command += [f"--junitxml={report}", *tests]
        process = subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what the tests start ends with them
        )
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return Run((), (f"not done within {limit_s:.0f} s",), 0, 0)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return _read(report)


def _write(file: Path, text: str) -> None:
    file.write_text(text, "utf-8")
    stamp = next(_STAMPS)
    os.utime(file, (stamp, stamp))


def _read(report: Path) -> Run:
    try:
        cases = list(Xml.parse(report).iter("testcase"))
    except (OSError, Xml.ParseError):
        return Run((), ("pytest ended without a report",), 0, 0)
    failed, otherwise, skipped = list[str](), list[str](), 0
    for case in cases:
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        skipped += case.find("skipped") is not None
        for kind in case:
            said = (kind.get("message") or "").partition("\n")[0]
            if kind.tag == "failure" and said.startswith(ASSERTIONS) and TIMEOUT not in said:
                failed.append(name)
            elif kind.tag in ("failure", "error"):
                otherwise.append(f"{name}: {said}")
    return Run(tuple(failed), tuple(otherwise), len(cases), skipped)


def _outcome(run: Run) -> tuple[Outcome, str]:
    if run.failed:
        return Outcome.KILLED, run.failed[0]
    if run.otherwise:
        return Outcome.OTHERWISE, run.otherwise[0]
    if run.tests == 0:
        return Outcome.OTHERWISE, "no test was run"
    if run.skipped == run.tests:
        return Outcome.SKIPPED, "this machine cannot run its tests"
    return Outcome.SURVIVED, f"{run.tests - run.skipped} tests stayed green"


def red_anyway(breaks: Sequence[Break], folder: Path, jobs: int) -> list[str]:
    """Those of the named tests that fail although nothing is broken."""
    named = sorted({test for one in breaks for test in one.tests})
    say(f"{len(breaks)} breaks; first their {len(named)} tests on what is not broken")
    workers = str(jobs if jobs > 1 else 0)
    run = Copy(folder / "whole").test(named, "-n", workers, limit_s=BASELINE_LIMIT_S)
    return [*run.failed, *run.otherwise]


def judge_all(breaks: Sequence[Break], folder: Path, jobs: int) -> dict[str, Verdict]:
    """The verdicts by id; a line is printed for each as it comes."""
    copies: queue.Queue[Copy] = queue.Queue()
    for number in range(jobs):
        copies.put(Copy(folder / f"copy{number}"))
    count = itertools.count(1)

    def judge(one: Break) -> Verdict:
        copy = copies.get()
        try:
            verdict = copy.judge(one)
        finally:
            copies.put(copy)
        took = f"{verdict.took_s:5.1f} s"
        say(f"{next(count):3}/{len(breaks)} {verdict.outcome:8} {took}  {one.id}: {verdict.about}")
        return verdict

    with ThreadPoolExecutor(jobs) as pool:
        verdicts = pool.map(judge, breaks)
        return {one.id: verdict for one, verdict in zip(breaks, verdicts, strict=True)}


def show(breaks: Sequence[Break], verdicts: dict[str, Verdict]) -> None:
    """A table by promise, and what was not found."""
    say("")
    say(f"{'promise':10}" + "".join(f"{outcome:>15}" for outcome in Outcome))
    for promise, several in TABLE.items():
        counts = Counter(verdicts[one.id].outcome for one in several if one.id in verdicts)
        if counts:
            say(f"{promise:10}" + "".join(f"{counts[outcome]:15}" for outcome in Outcome))
    total = Counter(verdict.outcome for verdict in verdicts.values())
    say(f"{'all':10}" + "".join(f"{total[outcome]:15}" for outcome in Outcome))
    for one in breaks:
        verdict = verdicts[one.id]
        if verdict.outcome is not Outcome.KILLED:
            say(f"\n{verdict.outcome}: {one.id} ({one.file})\n  {one.words}\n  {verdict.about}")


def main(arguments: Sequence[str]) -> int:
    """1 where a break is not found, or the table does not fit the code."""
    parser = argparse.ArgumentParser(prog="python -m tests.breaks", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="copies to work in at once")
    parser.add_argument("--only", nargs="+", metavar="ID", help="these breaks alone")
    given = parser.parse_args(arguments)
    known = [one for several in TABLE.values() for one in several]
    breaks = [one for one in known if given.only is None or one.id in given.only]
    if unknown := set(given.only or ()) - {one.id for one in known}:
        parser.error(f"there is no break called {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="breaks-") as folder:
        if red := red_anyway(breaks, Path(folder), given.jobs):
            say("these are red without any break:\n  " + "\n  ".join(red))
            return 1
        verdicts = judge_all(breaks, Path(folder), given.jobs)
    show(breaks, verdicts)
    return 0 if all(verdict.outcome in PASSING for verdict in verdicts.values()) else 1


def say(text: str) -> None:
    print(text, flush=True)
