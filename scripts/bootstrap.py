#!/usr/bin/env python3
"""Make `.venv` with a Python >= 3.12 and the pinned dependencies; say what is being done.

Standard library only, and any python3 >= 3.9: on Debian 12 `python3` is 3.11, and a newer Python
has to be found first. What stands on PATH is no proof: a pyenv shim named `python3.12` is there
for every version that was ever installed, and fails unless that one is switched on. So every
candidate is run and asked for its version and for the modules that are needed.

A second run with the same Python, pins and place does nothing and takes a fraction of a second.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PREFERRED = ((3, 13), (3, 12))  # what the pins are made for; newer ones only when alone
OLDEST = (3, 12)
NAMES = ("python3.13", "python3.12", "python3")
MARKER = "coatcheck-bootstrap.json"  # in .venv; without it the folder is not ours
MAKING, INSTALLING = "making", "installing"  # states in the marker of a run that was cut off
STATE_FILES = (
    "constraints.txt",
    "pyproject.toml",
    "scripts/bootstrap.py",
    "hatch_build.py",
    "src/coatcheck/core/_words.c",
)
PROBE_TIMEOUT_S = 20
HEARTBEAT_S = 10

PROBE = """
import json, sys
missing = []
for module in ("venv", "ensurepip", "ssl", "sqlite3"):
    try:
        __import__(module)
    except ImportError:
        missing.append(module)
print(json.dumps([list(sys.version_info[:3]), sys.executable, missing]))
"""

INSTALL_PYTHON = """\
Install one, then run the same command again. Any of these will do:
    pyenv install 3.13                  (https://github.com/pyenv/pyenv)
    uv python install 3.13              (https://docs.astral.sh/uv)
    sudo apt install python3 python3-venv   (Debian 13, Ubuntu 24.04 or newer)
or name one that lies elsewhere:
    COATCHECK_PYTHON=/path/to/python3.13 make test"""

OFFLINE_SIGNS = (
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
    "Name or service not known",
    "No address associated with hostname",
    "Network is unreachable",
    "Connection refused",
    "ConnectTimeoutError",
    "Read timed out",
)


class BootstrapError(Exception):
    """Something a person can mend; the text says how."""


@dataclass(frozen=True)
class Interpreter:
    """A Python that ran.

    Attributes:
        path: As it calls itself; for a shim, the real one behind it.
        missing: Modules that a virtual environment or coatcheck needs and this one lacks.
    """

    path: Path
    version: tuple[int, int, int]
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"Python {'.'.join(map(str, self.version))} ({self.path})"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", help="the interpreter to use; also $COATCHECK_PYTHON")
    options = parser.parse_args(argv)
    try:
        with _one_at_a_time():
            bootstrap(options.python or os.environ.get("COATCHECK_PYTHON"))
    except BootstrapError as error:
        print(f"bootstrap: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbootstrap: interrupted; run it again and it goes on", file=sys.stderr)
        return 130
    return 0


def bootstrap(wanted: str | None = None) -> None:
    """Bring `.venv` to the state that constraints.txt and pyproject.toml describe.

    Raises:
        BootstrapError: no Python, no venv, or pip failed.
    """
    venv = ROOT / ".venv"
    state = _state()
    marker = _read_marker(venv)
    if marker.get("state") == state and _alive(venv) and wanted in (None, marker.get("wanted")):
        return
    if venv.exists() and not marker:
        raise BootstrapError(
            f"{venv} exists and was not made by this script\n"
            "Move it away, or delete it if you do not need it, and run the same command again."
        )
    usable = _alive(venv) and marker.get("state") != MAKING
    if not (usable and wanted in (None, marker.get("wanted"))):
        python = choose(wanted, os.environ)
        say(f"making .venv with {python}")
        marker = {"wanted": wanted or ""}
        _make_room(venv, marker["wanted"])
        _make_venv(python, venv)
        _write_marker(venv, INSTALLING, marker["wanted"])
    say("installing the pinned dependencies into .venv (a minute or two the first time)")
    started = time.monotonic()
    _pip_install(venv)
    _compile(venv)
    _write_marker(venv, state, marker.get("wanted", ""))
    say(f"done in {time.monotonic() - started:.0f} s; the program is .venv/bin/coatcheck")


def choose(wanted: str | None, environ: Mapping[str, str]) -> Interpreter:
    """The Python to use: *wanted*, or the best that is found.

    Raises:
        BootstrapError: there is none; the text lists what was tried and why it will not do.
    """
    rejected: list[str] = []
    usable: list[Interpreter] = []
    complete: list[Interpreter] = []
    for candidate in [Path(wanted)] if wanted else candidates(environ):
        found = probe(candidate)
        if isinstance(found, str):
            rejected.append(f"{candidate}: {found}")
        elif found.version[:2] < OLDEST:
            rejected.append(f"{candidate}: is {'.'.join(map(str, found.version))}")
        elif found.missing:
            usable.append(found)
            rejected.append(f"{candidate}: lacks {', '.join(found.missing)}")
        else:
            complete.append(found)
    if complete:
        return min(complete, key=_rank)
    tried = "\n".join(f"    {line}" for line in rejected) or "    nothing named python3"
    if usable:
        best = min(usable, key=_rank)
        name = "python{}.{}".format(*best.version)
        raise BootstrapError(
            f"{best} lacks the modules {', '.join(best.missing)}\n"
            f"On Debian and Ubuntu: sudo apt install {name}-venv, then run the same command "
            f"again.\nTried:\n{tried}"
        )
    raise BootstrapError(f"no Python 3.12 or newer that runs. Tried:\n{tried}\n{INSTALL_PYTHON}")


def candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    """Every file that may be a Python, best known places first; each once."""
    home = Path(environ.get("HOME") or Path.home())
    pyenv = Path(environ.get("PYENV_ROOT") or home / ".pyenv")
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    uv = Path(environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv" / "python")
    folders = [Path(entry) for entry in environ.get("PATH", "").split(os.pathsep) if entry]
    seen = set()
    for path in (
        *(folder / name for name in NAMES for folder in folders),
        *_newest_first(_glob(pyenv, "versions/*/bin/python3")),
        *_newest_first(_glob(uv, "*/bin/python3")),
    ):
        # A venv's python is a link to the one it was made from, and is not the same: keep the
        # name. Our own venv is about to be replaced.
        if path in seen or ROOT / ".venv" in path.parents:
            continue
        seen.add(path)
        # os.path looks away where we may not look; Path.is_file would raise.
        if os.path.isfile(path) and os.access(path, os.X_OK):  # noqa: PTH113
            yield path


def _glob(folder: Path, pattern: str) -> list[Path]:
    """What is there of *pattern*; nothing where we may not look."""
    try:
        return list(folder.glob(pattern))
    except OSError:
        return []


def probe(path: Path) -> Interpreter | str:
    """Run *path* and ask what it is; a text says why it does not run."""
    try:
        answer = subprocess.run(
            [str(path), "-I", "-c", PROBE],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if answer.returncode != 0:
            lines = answer.stderr.strip().splitlines()
            reason = lines[0][:100] if lines else f"exit code {answer.returncode}"
            return f"does not run ({reason})"
        version, executable, missing = json.loads(answer.stdout)
        return Interpreter(Path(executable), tuple(version), tuple(missing))
    except subprocess.TimeoutExpired:
        return f"does not answer within {PROBE_TIMEOUT_S} s"
    except OSError as error:
        return f"does not run ({error.strerror})"
    except (ValueError, TypeError):
        return "is not a Python"


def say(text: str) -> None:
    print(f"bootstrap: {text}", flush=True)


def _rank(python: Interpreter) -> tuple[int, tuple[int, ...]]:
    """Lower is better: the preferred versions, then others; the newest patch level first."""
    minor = python.version[:2]
    place = PREFERRED.index(minor) if minor in PREFERRED else len(PREFERRED)
    return place, tuple(-part for part in python.version)


def _newest_first(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, reverse=True)


def _state() -> str:
    """Changes when what is installed, or where, would change."""
    digest = hashlib.sha256(os.fsencode(ROOT))
    for name in STATE_FILES:
        path = ROOT / name
        if not path.is_file():
            raise BootstrapError(f"{path} is missing: is this a whole checkout?")
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _alive(venv: Path) -> bool:
    """Whether the venv's Python is still there: it is a link to one that may be gone."""
    return os.access(venv / "bin" / "python", os.X_OK)


def _read_marker(venv: Path) -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError):
        marker = json.loads((venv / MARKER).read_text())
        if isinstance(marker, dict):
            return marker
    return {}


def _write_marker(venv: Path, state: str, wanted: str) -> None:
    """Say in `.venv` that it is ours, and how far it is: MAKING, INSTALLING, or `_state()`."""
    partial = venv / f"{MARKER}.new"
    marker = {"made by": "scripts/bootstrap.py", "state": state, "wanted": wanted}
    partial.write_text(json.dumps(marker))
    partial.replace(venv / MARKER)


def _make_room(venv: Path, wanted: str) -> None:
    """An empty folder with our marker in it, so that a run that is cut off knows its own again."""
    try:
        if venv.exists():
            shutil.rmtree(venv)
        venv.mkdir()
        _write_marker(venv, MAKING, wanted)
    except OSError as error:
        raise BootstrapError(
            f"cannot make {venv}: {error.strerror}\n"
            "Run it as the user who owns the checkout, and see that the disk is not full."
        ) from error


def _make_venv(python: Interpreter, venv: Path) -> None:
    command = [str(python.path), "-I", "-m", "venv", str(venv)]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, env=_clean_environ()
    )
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines()
        raise BootstrapError(
            f"{python} could not make {venv}:\n" + _indented(lines[-10:]) + "\n"
            f"On Debian and Ubuntu the package python{python.version[0]}.{python.version[1]}-venv "
            "may be missing; otherwise check that the folder is writable and the disk not full."
        )


def _pip_install(venv: Path) -> None:
    """Install in two steps: what builds a wheel, then everything. Both take their versions from
    constraints.txt; pip's own isolated build would fetch whatever is newest.
    """
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    pip += ["--no-input", "--progress-bar", "off", "-c", "constraints.txt"]
    _follow([*pip, "hatchling", "editables"], venv)
    _follow([*pip, "--no-build-isolation", "-e", ".[dev]"], venv)


def _compile(venv: Path) -> None:
    """As pip does with what it unpacks: what runs from the checkout would else be compiled at each
    start, where the environment keeps Python from writing. If it cannot be done, nothing is lost.
    """
    command = [str(venv / "bin" / "python"), "-m", "compileall", "-q", "src"]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=False, env=_clean_environ())


def _follow(command: list[str], venv: Path) -> None:
    """Run pip, keep what it says in a file, and show that it is alive.

    Raises:
        BootstrapError: it failed; the text has its last lines and the next step.
    """
    log = venv / "bootstrap.log"
    lines: list[str] = []
    told = time.monotonic()
    with (
        log.open("a", encoding="utf-8") as record,
        subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env=_clean_environ(),
        ) as pip,
    ):
        for line in pip.stdout or ():
            record.write(line)
            lines.append(line.rstrip())
            collected = sum(text.startswith("Collecting ") for text in lines)
            if line.startswith("Installing collected packages"):
                say(f"  unpacking {line.count(',') + 1} packages (half a minute)")
            elif time.monotonic() - told > HEARTBEAT_S:
                told = time.monotonic()
                say(f"  still at it: {collected} packages looked up")
    if pip.returncode != 0:
        raise BootstrapError(_pip_failed(lines, log))


def _pip_failed(lines: list[str], log: Path) -> str:
    # What pip says of sources that lack a package hides the one line that matters.
    lines = [line for line in lines if not line.startswith("WARNING: Location ")]
    text = "\n".join(lines)
    if any(sign in text for sign in OFFLINE_SIGNS):
        step = (
            "The package index cannot be reached. Check the network; behind a mirror set "
            "PIP_INDEX_URL,\nor put the wheels into a folder and set PIP_FIND_LINKS and "
            "PIP_NO_INDEX=1. Then run the same command again."
        )
    elif "No space left on device" in text:
        step = "The disk is full: make room, then run the same command again."
    else:
        step = f"All that pip said is in {log}. Mend it, then run the same command again."
    return "pip could not install the dependencies:\n" + _indented(lines[-12:]) + "\n" + step


def _indented(lines: list[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


def _clean_environ() -> dict[str, str]:
    """The environment without what makes a Python load another one's modules."""
    bad = (
        "PYTHONPATH",
        "PYTHONHOME",
        "VIRTUAL_ENV",
        "__PYVENV_LAUNCHER__",
        "PIP_REQUIRE_VIRTUALENV",
    )
    return {key: value for key, value in os.environ.items() if key not in bad}


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """`make -j demo test` starts two of us: the second waits, then finds all done.

    A lock on this very file leaves nothing behind. Where a file system knows no locks, go on.
    """
    with Path(__file__).open("rb") as mine:
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another run is at work; waiting for it")
                fcntl.flock(mine, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
