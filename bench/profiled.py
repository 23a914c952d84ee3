"""`coatcheck serve`, its stack sampled, for `--profile`: python -m bench.profiled FILE serve ...

From SIGUSR2 on, which says that all is warm, the kernel interrupts it after each millisecond of CPU
time, or as often as it can. cProfile would make a call dearer than what most calls here do. What is
in C counts for the line that calls it.
"""

from __future__ import annotations

import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

from coatcheck.cli.main import main

EVERY_S = 0.001
SHOWN = 30  # rows of the first table
ALWAYS = 0.98  # of the samples: the way to the event loop, in which everything happens

type Place = tuple[str, str, int]


class Samples:
    def __init__(self) -> None:
        self.count = 0
        self._lines: Counter[Place] = Counter()  # where it was
        self._functions: Counter[Place] = Counter()  # which functions were at work

    def begin(self, _: int, __: FrameType | None) -> None:
        signal.signal(signal.SIGPROF, self._take)
        signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)

    def end(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)

    def table(self) -> str:
        inner = Counter({p: n for p, n in self._functions.items() if n < ALWAYS * self.count})
        return f"{self.count} samples\n" + "".join(
            f"\n{title}\n" + "".join(self._row(place, seen) for place, seen in most)
            for title, most in (
                ("lines", self._lines.most_common(SHOWN)),
                ("functions, with what they call", inner.most_common(2 * SHOWN)),
            )
        )

    def _take(self, _: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        self.count += 1
        code = frame.f_code
        self._lines[code.co_filename, code.co_qualname, frame.f_lineno] += 1
        stack = set()
        while frame is not None:
            code = frame.f_code
            stack.add((code.co_filename, code.co_qualname, code.co_firstlineno))
            frame = frame.f_back
        self._functions.update(stack)

    def _row(self, place: Place, seen: int) -> str:
        file, name, line = place
        short = "/".join(Path(file).parts[-3:])
        return f"{100 * seen / self.count:6.1f} %  {name}  {short}:{line}\n"


def run(file: Path, arguments: list[str]) -> None:
    sys.argv = ["coatcheck", *arguments]
    samples = Samples()
    signal.signal(signal.SIGUSR2, samples.begin)
    try:
        main()
    finally:
        samples.end()
        file.write_text(samples.table(), "utf-8")


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2:])
