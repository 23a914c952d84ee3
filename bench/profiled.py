"""`coatcheck serve` under cProfile, for `--profile`: python -m bench.profiled FILE serve ...

It counts CPU time, since others use the cores too, and begins when all is imported.
"""

from __future__ import annotations

import cProfile
import sys
import time

from coatcheck import app  # noqa: F401  # a second of imports, which serve would make
from coatcheck.cli.main import main


def run(file: str, arguments: list[str]) -> None:
    sys.argv = ["coatcheck", *arguments]
    profile = cProfile.Profile(time.process_time)
    profile.enable()
    try:
        main()
    finally:
        profile.disable()
        profile.dump_stats(file)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2:])
