"""Adds to the corpus what `make fuzz` grew: the inputs that reach branches nothing else reaches.

    python -m tests.fuzz.keep [TARGET ...]

libFuzzer merges by coverage, smallest first. What it names is kept under a name made of its
content, up to a bound for each target: the corpus stays small, and `make test` fast.
"""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stderr
from hashlib import sha256
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris

from tests.fuzz.__main__ import CORPUS, ROOT

MAX_FILES = 120  # of one target
MAX_FILE = 1024  # bytes


def main() -> None:
    with redirect_stderr(StringIO()), atheris.instrument_imports(include=["coatcheck"]):
        from tests.fuzz.targets import TARGETS

    for name in sys.argv[1:] or list(TARGETS):
        grown = ROOT / "build" / "fuzz" / name / "corpus"
        kept = CORPUS / name
        kept.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory() as folder:
            if not os.fork():
                _merge(TARGETS[name].run, Path(folder), [kept, grown])
            os.wait()
            print(f"{name}: {_take(Path(folder), kept)} new inputs")


def _merge(run: object, into: Path, sources: list[Path]) -> None:
    """Never returns."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    def quiet(data: bytes) -> None:
        try:
            run(data)  # type: ignore[operator]
        except Exception:  # findings are told by `make fuzz`
            return

    options = ["-merge=1", f"-max_len={MAX_FILE}", str(into)]
    atheris.Setup([sys.argv[0], *options, *(str(path) for path in sources)], quiet)
    atheris.Fuzz()


def _take(merged: Path, kept: Path) -> int:
    there = {path.read_bytes() for path in kept.iterdir()}
    new = 0
    for path in sorted(merged.iterdir(), key=lambda path: path.stat().st_size):
        data = path.read_bytes()
        if len(there) < MAX_FILES and len(data) <= MAX_FILE and data not in there:
            (kept / sha256(data).hexdigest()[:16]).write_bytes(data)
            there.add(data)
            new += 1
    return new


if __name__ == "__main__":
    main()
