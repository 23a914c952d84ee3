"""Fuzzes one target for some seconds in a process of its own, under atheris.

libFuzzer stops at the first finding and never comes back from its loop. So the findings are caught
here, written down and counted by rule, and the process ends itself when its time is over. What it
has to say goes into ``state.json``, which the parent reads.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import FrameType

from tests.fuzz.case import Finding, Target
from tests.fuzz.mutate import mutate

MAX_SIZE = 4096  # bytes of one input
# One case takes milliseconds. Counted is the processor's time of this process, so a busy machine
# makes no false alarm; the clock on the wall is there for what waits and does not compute.
CASE_CPU_S = 5.0
CASE_WALL_S = 300
KEPT = 5  # inputs that are kept for one rule
TOLD_EVERY_S = 0.5


class Hang(BaseException):
    """A case has used up its time; no `except Exception` on the way may take it for its own."""


@dataclass
class State:
    """What a worker says of itself."""

    cases: int = 0
    deep: int = 0
    seconds: float = 0.0
    findings: Counter[str] = field(default_factory=Counter)

    def write(self, path: Path) -> None:
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(vars(self)))
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> State:
        try:
            said = json.loads(path.read_text())
        except FileNotFoundError:
            return cls()
        return cls(said["cases"], said["deep"], said["seconds"], Counter(said["findings"]))


class Bench:
    """Runs cases of one target, and keeps what was found in *folder*."""

    def __init__(self, target: Target, folder: Path, seconds: float) -> None:
        self.state = State.read(folder / "state.json")
        self._target = target
        self._folder = folder
        self._seconds = seconds
        self._before = self.state.seconds
        self._begun = self._told = time.monotonic()
        signal.signal(signal.SIGPROF, _hang)

    def run(self, data: bytes) -> None:
        """One case; ends the process when its time is over."""
        self.state.cases += 1
        signal.setitimer(signal.ITIMER_PROF, CASE_CPU_S)
        try:
            self.state.deep += bool(self._target.run(data))
        except (Exception, Hang) as error:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._keep(data, error)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        now = time.monotonic()
        if now - self._told > TOLD_EVERY_S or now - self._begun > self._seconds:
            self._told = now
            self.state.seconds = self._before + now - self._begun
            self.state.write(self._folder / "state.json")
        if now - self._begun > self._seconds:
            os._exit(0)

    def _keep(self, data: bytes, error: BaseException) -> None:
        rule = rule_of(error)
        self.state.findings[rule] += 1
        if self.state.findings[rule] > KEPT:
            return
        name = f"{sha256(rule.encode()).hexdigest()[:8]}-{sha256(data).hexdigest()[:12]}"
        found = self._folder / "findings"
        found.mkdir(exist_ok=True)
        (found / name).write_bytes(data)
        told = "".join(traceback.format_exception(error))
        (found / f"{name}.txt").write_text(f"{rule}\n\n{told}")


def rule_of(error: BaseException) -> str:
    """What findings are counted by: the rule, or the exception and the line that raised it."""
    if isinstance(error, Finding):
        return error.rule
    if isinstance(error, Hang):
        return f"a hang: more than {CASE_CPU_S:g} seconds of processor time"
    frames = traceback.extract_tb(error.__traceback__)
    last = next((f for f in reversed(frames) if "/coatcheck/" in f.filename), frames[-1])
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}"


def _hang(number: int, frame: FrameType | None) -> None:
    raise Hang


def fuzz(target: Target, folder: Path, corpus: Path, seconds: float) -> None:
    """Fuzz *target* for *seconds*; never returns. Modules must have been imported instrumented."""
    import atheris

    bench = Bench(target, folder, seconds)
    grown = folder / "corpus"
    grown.mkdir(exist_ok=True)
    for at, seed in enumerate(target.seeds):
        (grown / f"seed-{at}").write_bytes(seed)
    options = [
        f"-max_len={MAX_SIZE}",
        f"-timeout={CASE_WALL_S}",
        "-rss_limit_mb=2048",
        "-print_final_stats=0",
        "-reload=0",
        "-verbosity=0",
        f"-artifact_prefix={folder}/",
    ]
    arguments = [sys.argv[0], *options, str(grown), *([str(corpus)] if corpus.is_dir() else [])]
    atheris.Setup(arguments, bench.run, custom_mutator=_mutator(target))
    atheris.Fuzz()


def _mutator(target: Target) -> Callable[[bytes, int, int], bytes]:
    import atheris

    def change(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.randrange(4) == 0:
            changed: bytes = atheris.Mutate(data, max_size)  # looked up late: Fuzz() replaces it
            return changed
        if rng.randrange(3) == 0:  # what grows is mostly what is refused early: begin anew
            data = rng.choice(target.seeds)
        return mutate(data, target.words, rng, max_size)

    return change
