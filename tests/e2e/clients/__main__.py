"""``make clients``: install what a registry has of the clients, send all of them through coatcheck,
straight and through the load balancer, and say what was seen.

    python -m tests.e2e.clients [--write-docs] [PYTEST_ARG]...

What cannot be installed is left out, and named at the end with the reason. Ruby, PHP and Perl are
Debian's to install, as root; they are used where they are.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.clients import seen
from tests.e2e.clients.toolbox import VARIABLE

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
FOLDER = ROOT / "build" / "clients"
INSTALL_S = 900


def main(arguments: Sequence[str]) -> int:
    write = "--write-docs" in arguments
    rest = [one for one in arguments if one != "--write-docs"]
    FOLDER.mkdir(parents=True, exist_ok=True)
    install_python(FOLDER / "venv")
    install_node(FOLDER / "node")
    (FOLDER / "seen.json").unlink(missing_ok=True)
    # In one process: the load balancer is set up once.
    command = [sys.executable, "-m", "pytest", "tests/e2e/test_clients.py", "-q", "-rs", *rest]
    code = subprocess.run(
        command, cwd=ROOT, check=False, env={**os.environ, VARIABLE: str(FOLDER)}
    ).returncode
    if not (FOLDER / "seen.json").exists():
        return code or 1
    record = seen.read(FOLDER / "seen.json")
    print(seen.summary(record))
    if write:
        return code or write_docs(record)
    return code


def write_docs(record: seen.Record) -> int:
    """Keep *record* and make the tables of the page again; not if a client is missing from it."""
    if missing := [*seen.gaps(record), *seen.differences(record)]:
        print("clients: docs/clients.md stays as it is: not every client was seen everywhere:")
        print("\n".join(f"  {one}" for one in missing))
        return 1
    record.write(seen.KEPT)
    seen.PAGE.write_text(seen.page(seen.PAGE.read_text("utf-8"), record), "utf-8")
    print("clients: docs/clients.md is made again")
    return 0


def install_python(folder: Path) -> None:
    wanted = HERE / "requirements.txt"
    if is_current(folder, wanted):
        return
    print(f"clients: installing {wanted.name} into {folder}", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "-q", "--no-input"]
    install([*pip, "--disable-pip-version-check", "-r", wanted], folder, wanted)


def install_node(folder: Path) -> None:
    wanted = HERE / "package.json"
    if is_current(folder, wanted):
        return
    # The venv may have brought one.
    npm = shutil.which("npm", path=f"{FOLDER / 'venv' / 'bin'}:{os.environ['PATH']}")
    if npm is None:
        print("clients: npm is not installed: the clients of package.json are left out")
        return
    print(f"clients: installing {wanted.name} into {folder}", flush=True)
    folder.mkdir(exist_ok=True)
    shutil.copy(wanted, folder)
    install(
        [npm, "install", "--prefix", folder, "--no-audit", "--no-fund", "--ignore-scripts"],
        folder,
        wanted,
    )


def install(command: Sequence[str | Path], folder: Path, wanted: Path) -> None:
    """Run *command*, and note in *folder* that it has what the file *wanted* asks for."""
    path = f"{FOLDER / 'venv' / 'bin'}:{os.environ['PATH']}"
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            timeout=INSTALL_S,
            cwd=folder,
            env={**os.environ, "PATH": path},
        )
        problem = done.stderr.decode()[-400:] if done.returncode else ""
    except subprocess.TimeoutExpired:
        problem = f"no end after {INSTALL_S} s"
    if problem:
        print(f"clients: {wanted.name} cannot be installed, its clients are left out: {problem}")
    else:
        (folder / "done").write_text(digest(wanted))


def is_current(folder: Path, wanted: Path) -> bool:
    done = folder / "done"
    return done.exists() and done.read_text() == digest(wanted)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
