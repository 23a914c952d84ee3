"""Run the tests of the engine on the next mitmproxy, beside the one that is pinned.

A plain install of mitmproxy 12.3.1 fails where the newest certifi is older than the one it asks
for, and it would take the place of the pinned one. So its files alone, and a module that it has
need of anew, are put into a folder of `.venv` that stands in front of the path of one pytest;
everything else is what is installed. Which of its requirements are not met is printed, not hidden.

Where it cannot be had (no network, no wheel for this Python), that is the last line of the run, and
no failure: the pinned version is what users get.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from bootstrap import OFFLINE_SIGNS
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
VERSION = "12.3.1"
FOLDER = Path(".venv", "next")
MARKER = "installed.txt"
PIP_TIMEOUT_S = 90

# Those that go through mitmproxy; the rest of tests/engine does not know it.
TESTS = tuple(
    f"tests/engine/test_{name}.py"
    for name in ("contract", "harden", "lane", "server", "addon", "faults", "tls")
)


class CannotBeHad(Exception):
    """The next mitmproxy is not installed; the text says why."""


def main() -> int:
    try:
        folder = install()
    except CannotBeHad as why:
        say(f"SKIPPED: the engine was not tested on mitmproxy {VERSION}: {why}")
        return 0
    for line in unmet(folder):
        say(f"not as mitmproxy {VERSION} asks: {line}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "2", "-q", "-p", "no:cacheprovider", *TESTS],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(folder), "COATCHECK_TEST_MITMPROXY": VERSION},
        check=False,
    )
    if done.returncode:
        say(f"the engine does not pass its tests on mitmproxy {VERSION}")
    return done.returncode


def install() -> Path:
    """The folder with it; filled once.

    Raises:
        CannotBeHad: pip did not bring it.
    """
    folder = ROOT / FOLDER
    wanted = "\n".join(packages())
    try:
        if (folder / MARKER).read_text() == wanted:
            return folder
    except OSError:
        pass  # it is not there yet
    try:
        with tempfile.TemporaryDirectory(prefix="next-", dir=folder.parent) as place:
            made = Path(place, "made")
            pip_install(made)
            (made / MARKER).write_text(wanted)
            shutil.rmtree(folder, ignore_errors=True)
            made.replace(folder)
    except OSError as error:
        raise CannotBeHad(f"{folder} cannot be written: {error.strerror}") from error
    return folder


def packages() -> list[str]:
    """What 12.2.3 and its requirements do not bring already."""
    backport = [] if sys.version_info >= (3, 14) else ["backports.zstd==1.7.0"]
    return [f"mitmproxy=={VERSION}", *backport]


def pip_install(target: Path) -> None:
    """Put the packages alone into *target*: no dependencies, nothing that has to be compiled.

    Raises:
        CannotBeHad: with pip's own last word.
    """
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    pip += ["--quiet", "--retries", "1", "--timeout", "10", "--no-deps", "--only-binary", ":all:"]
    try:
        done = subprocess.run(
            [*pip, "--target", str(target), *packages()],
            cwd=ROOT,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=PIP_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CannotBeHad(f"pip was not done within {PIP_TIMEOUT_S} s") from None
    if done.returncode:
        if any(sign in done.stderr for sign in OFFLINE_SIGNS):
            raise CannotBeHad("the package index cannot be reached")
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        raise CannotBeHad(said[-1].removeprefix("ERROR: ") if said else "pip failed")


def unmet(folder: Path) -> Iterator[str]:
    """Its requirements that what is installed does not meet."""
    (found,) = metadata.distributions(name="mitmproxy", path=[str(folder)])
    path = [str(folder), *sys.path]
    for text in found.requires or ():
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        has = next((d.version for d in metadata.distributions(name=wanted.name, path=path)), None)
        if has is None or has not in wanted.specifier:
            yield f"{wanted.name}{wanted.specifier} (here: {has or 'none'})"


def say(text: str) -> None:
    print(f"next: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
