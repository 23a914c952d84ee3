"""``make fuzz``: every target for its share of the time, one process at a time.

    python -m tests.fuzz [--seconds N] [--pairs N] [--work FOLDER] [TARGET ...]

The product is imported once, with its branches counted; then a child is forked for each turn. Turns
are short and go round, so a run that is cut off has been fair as well. Exit code 1: a finding.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from shutil import rmtree

from tests.fuzz.worker import State

ROOT = Path(__file__).resolve().parent.parent.parent
CORPUS = Path(__file__).resolve().parent / "corpus"
TURN_S = 60.0  # more or less; each turn reads its corpus anew, which takes a second or two
GRACE_S = 900.0  # a child that is over its time by so much hangs where no signal gets through
LIBRARY_FINDINGS = ("crash-*", "timeout-*", "oom-*")  # what libFuzzer itself leaves behind


def main() -> int:
    options = _options()
    try:
        import atheris
    except ImportError:
        print("fuzz: atheris is not installed; `make fuzz` installs it", file=sys.stderr)
        return 1
    print("fuzz: importing the product, with its branches counted", flush=True)
    # It has a line for each module on standard error.
    with redirect_stderr(StringIO()), atheris.instrument_imports(include=["coatcheck"]):
        from tests.fuzz.targets import TARGETS
    from tests.fuzz import pairs, worker

    names = options.targets or list(TARGETS)
    if unknown := [name for name in names if name not in TARGETS]:
        print(f"fuzz: no target {unknown[0]!r}; one of {', '.join(TARGETS)}", file=sys.stderr)
        return 1
    differing = pairs.compare(options.pairs, options.seed)
    print(f"fuzz: {differing}", flush=True)
    rounds = max(1, round(options.seconds / (TURN_S * len(names))))
    turn_s = options.seconds / (rounds * len(names))
    folders = {name: _empty(options.work / name) for name in names}
    for number in range(1, rounds + 1):
        for name, folder in folders.items():
            target, corpus = TARGETS[name], CORPUS / name
            _turn(lambda t=target, f=folder, c=corpus: worker.fuzz(t, f, c, turn_s), folder, turn_s)
            print(f"fuzz: round {number} of {rounds}: {_row(name, folder)}", flush=True)
    return _close(folders, differing.count)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--seconds", type=float, default=1800.0, help="for all targets together")
    parser.add_argument("--pairs", type=int, default=1_000_000, help="of host and pattern")
    parser.add_argument(
        "--seed", type=int, default=time.time_ns() & 0xFFFFFFFF, help="of the pairs"
    )
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "fuzz")
    return parser.parse_args()


def _empty(folder: Path) -> Path:
    """*folder* without what an earlier run found; the inputs that it grew are gone on with."""
    (folder / "state.json").unlink(missing_ok=True)
    rmtree(folder / "findings", ignore_errors=True)
    for pattern in LIBRARY_FINDINGS:
        for path in folder.glob(pattern):
            path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _turn(run: Callable[[], None], folder: Path, turn_s: float) -> None:
    """*run* in a child, which ends itself; what it died of otherwise is a finding."""
    child = os.fork()
    if not child:
        try:
            with (folder / "log").open("w") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            run()
        finally:
            os._exit(3)
    limit = time.monotonic() + turn_s + GRACE_S
    status = 0
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > limit:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.1)
    if status:
        state = State.read(folder / "state.json")
        code = os.waitstatus_to_exitcode(status)
        state.findings[f"the process died with {code}; see {folder / 'log'}"] += 1
        state.write(folder / "state.json")


def _row(name: str, folder: Path) -> str:
    state = State.read(folder / "state.json")
    speed = state.cases / state.seconds if state.seconds else 0.0
    deep = state.deep / state.cases if state.cases else 0.0
    found = len(state.findings)
    return (
        f"{name:16} {state.cases:>10,} cases {speed:>8,.0f}/s {deep:>5.0%} deep {found:>3} findings"
    )


def _close(folders: dict[str, Path], differing: int) -> int:
    """The closing table; 1 where there is a finding."""
    found = differing
    cases = 0
    print("\nfuzz: deep: got through to what is behind the first checks")
    for name, folder in folders.items():
        state = State.read(folder / "state.json")
        cases += state.cases
        found += len(state.findings)
        print(f"fuzz: {_row(name, folder)}")
        for rule, count in sorted(state.findings.items()):
            print(f"fuzz:     {count:>6} x {rule}")
        if state.findings:
            print(f"fuzz:     inputs: {folder / 'findings'}")
    print(f"fuzz: {cases:,} cases, {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
