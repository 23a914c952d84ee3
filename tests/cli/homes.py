"""Commands as a user gives them, for the tests of `init`, `secret` and `client`."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from coatcheck.cli.main import app


@dataclass
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return self.out + self.err


@dataclass
class Commands:
    """Runs commands with one home."""

    root: Path

    def __call__(
        self, *arguments: str, stdin: bytes = b"", env: dict[str, str] | None = None
    ) -> Done:
        """In this process: fast."""
        given = {"COATCHECK_HOME": str(self.root), "COATCHECK_CONFIG": None, **(env or {})}
        result = CliRunner().invoke(app, list(arguments), input=stdin, env=given)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    def really(self, *arguments: str, stdin: bytes = b"") -> Done:
        """As a process of its own, as a shell starts it."""
        done = subprocess.run(
            [sys.executable, "-m", "coatcheck", *arguments],
            input=stdin,
            capture_output=True,
            check=False,
            env={**os.environ, "COATCHECK_HOME": str(self.root)},
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())
