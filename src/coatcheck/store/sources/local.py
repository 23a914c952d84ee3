"""Sources on the machine itself: the environment, files, commands.

A file is opened anew each time, through whatever links lead there: Kubernetes swaps the link
``..data``, Docker mounts, an editor renames. A command gets no shell, no input, and an environment
that is nearly empty: that of a worker may hold the sealing key.
"""

from __future__ import annotations

import errno
import os
import selectors
import signal
import stat
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from coatcheck.core.secret import MAX_VALUE
from coatcheck.store.sources.port import Failure, Fetched, SourceError

PASSED_ON = ("PATH", "HOME", "LANG")  # of the environment, to commands
_READ = 65536


class Environment:
    """Variables of the process."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ

    def fetch(self, where: Mapping[str, Any]) -> Fetched:
        """See `port.Source`."""
        value = self._environ.get(where["variable"])
        if value is None:
            raise SourceError(Failure.GONE)
        return Fetched(os.fsencode(value))

    def close(self) -> None:
        """Nothing is held."""


class Files:
    """Files that hold a value alone."""

    def fetch(self, where: Mapping[str, Any]) -> Fetched:
        """See `port.Source`."""
        return Fetched(read_plain(where["file"], MAX_VALUE + 2), is_text=True)

    def close(self) -> None:
        """Nothing is held."""


class Commands:
    """What commands print."""

    def __init__(
        self, options: Mapping[str, Any], timeout_s: float, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._names = (*PASSED_ON, *options.get("environment", ()))
        self._timeout_s = timeout_s
        self._environ = environ

    def fetch(self, where: Mapping[str, Any]) -> Fetched:
        """See `port.Source`. What it prints to stderr goes nowhere: it may hold anything."""
        environ = {name: self._environ[name] for name in self._names if name in self._environ}
        try:
            # Its own session: a time-out ends what it has started, too.
            process = subprocess.Popen(  # noqa: S603 the operator names the program
                list(where["command"]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environ,
                start_new_session=True,
            )
        except (OSError, ValueError):
            raise SourceError(Failure.COMMAND_FAILED) from None
        try:
            printed = self._printed(process)
        finally:
            _end(process)
        if process.returncode != 0:
            raise SourceError(Failure.COMMAND_FAILED)
        return Fetched(printed, is_text=True)

    def _printed(self, process: subprocess.Popen[bytes]) -> bytes:
        """All that it prints until it ends, as far as a value may be long."""
        until = time.monotonic() + self._timeout_s
        out = bytearray()
        with selectors.DefaultSelector() as waiting:
            if process.stdout is None:
                raise SourceError(Failure.COMMAND_FAILED)
            waiting.register(process.stdout, selectors.EVENT_READ)
            while (left := until - time.monotonic()) > 0:
                if not waiting.select(left):
                    continue
                chunk = os.read(process.stdout.fileno(), _READ)
                out += chunk
                if len(out) > MAX_VALUE + 2:
                    raise SourceError(Failure.TOO_LARGE)
                if not chunk:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(timeout=left)
                        return bytes(out)
        raise SourceError(Failure.TOO_SLOW)

    def close(self) -> None:
        """Nothing is held."""


def read_plain(path: str, most: int) -> bytes:
    """The first *most* bytes of the plain file at *path*; never waits for a pipe.

    Raises:
        SourceError: GONE or UNREADABLE.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        missing = getattr(error, "errno", None) in (errno.ENOENT, errno.ENOTDIR)
        raise SourceError(Failure.GONE if missing else Failure.UNREADABLE) from None
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise SourceError(Failure.UNREADABLE)
        with os.fdopen(number, "rb", closefd=False) as file:
            return file.read(most)
    except OSError:
        raise SourceError(Failure.UNREADABLE) from None
    finally:
        os.close(number)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing of it behind. Once it has ended its number may be somebody else's."""
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
