"""Where the programs of the clients are: in the folder of `make clients`, else on PATH.

`make test` installs none of them. `make clients` puts what a registry has into a folder, which it
names in COATCHECK_TEST_CLIENTS: ``venv`` (pip: libraries, SDKs, and the toolchains that come as
wheels) and ``node`` (npm).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "COATCHECK_TEST_CLIENTS"
HERE = Path(__file__).parent
CACHE = Path.home() / ".cache" / "coatcheck-tests"


class Missing(Exception):
    """A client cannot be used here; the text says what is not there."""


@dataclass(frozen=True)
class Toolbox:
    """The programs, with *folder* before PATH if there is one."""

    folder: Path | None

    @classmethod
    def here(cls) -> Toolbox:
        named = os.environ.get(VARIABLE)
        return cls(Path(named).absolute() if named else None)

    def program(self, name: str) -> str:
        """The path of a program."""
        ours = [self.folder / "venv" / "bin", self.folder / "bin"] if self.folder else []
        for path in (*map(str, ours), os.environ["PATH"]):
            if found := shutil.which(name, path=path):
                return found
        raise Missing(f"{name} is not installed")

    def python(self, module: str) -> str:
        """A Python that has *module*."""
        if self.folder is None:
            if importlib.util.find_spec(module) is None:
                raise Missing(f"{module} is not installed")
            return sys.executable
        python = self.program("python")
        # To import it would do, too, but takes seconds with some.
        look = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
        if subprocess.run([python, "-c", look], capture_output=True, check=False).returncode:
            raise Missing(f"{module} is not installed in {self.folder}")
        return python

    def node(self, least: int) -> str:
        """A node of version *least* or later: that of PATH, if it will do."""
        program = shutil.which("node") or self.program("node")
        if int(version_of(program, "--version").partition(".")[0]) < least:
            program = self.program("node")
        major = int(version_of(program, "--version").partition(".")[0])
        if major < least:
            raise Missing(f"node {least} is not installed, only {major}")
        return program

    def modules(self, wanted: str) -> Path:
        """The folder whose ``node_modules`` has *wanted*."""
        if self.folder is None:
            folder = undici() if wanted == "undici" else None
        else:
            folder = self.folder / "node"
        if folder is None or not (folder / "node_modules" / wanted).exists():
            raise Missing(f"{wanted} is not installed (npm)")
        return folder

    def bun(self) -> str:
        """npm's package of it is a folder for each kind of machine."""
        found = self.folder and sorted(
            (self.folder / "node" / "node_modules" / "@oven").glob("bun-linux-*/bin/bun")
        )
        return str(found[0]) if found else self.program("bun")

    def go(self) -> str:
        """The Go client, built, and kept until its source changes."""
        go = self.program("go")
        source = HERE / "client.go"
        kept = (self.folder or CACHE) / f"go-{_digest(source.read_bytes())}"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            command = [go, "build", "-o", str(kept), str(source)]
            environ = {**os.environ, "GO111MODULE": "off", "GOTOOLCHAIN": "local"}
            done = subprocess.run(
                command, capture_output=True, check=False, timeout=300, env=environ
            )
            if done.returncode:
                raise Missing(f"go cannot build the client: {done.stderr.decode()[-200:]}")
        return str(kept)


@functools.cache
def undici() -> Path:
    """A folder with what package.json of the end-to-end tests asks for; kept between runs."""
    wanted = (HERE.parent / "package.json").read_bytes()
    kept = CACHE / _digest(wanted)
    if not (kept / "done").exists():
        npm = shutil.which("npm")
        if npm is None:
            raise Missing("npm is not installed, and undici is not there yet")
        kept.mkdir(parents=True, exist_ok=True)
        (kept / "package.json").write_bytes(wanted)
        command = [npm, "install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts"]
        done = subprocess.run(command, cwd=kept, capture_output=True, check=False, timeout=90)
        if done.returncode:
            raise Missing(f"npm cannot install undici: {done.stderr.decode()[-200:]}")
        (kept / "done").touch()
    return kept


def version_of(*command: str) -> str:
    """The first thing that looks like a version in what *command* prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found[0] if found else ""


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
