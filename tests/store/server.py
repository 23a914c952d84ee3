"""A PostgreSQL server of the tests' own: on loopback, in a folder of its own, with a password.

The programs are those of PATH or of Debian's folders; without them the tests are skipped. The
server refuses to run as root, so there it runs as another user.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg

PASSWORD = "hunter2-of-the-tests"
_DEBIAN = Path("/usr/lib/postgresql")
_NUMBERS = itertools.count(1)


class Unavailable(Exception):
    """There is no PostgreSQL here; the text says what is missing."""


class Server:
    """A running server. Databases are made from templates, which takes some ten milliseconds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self._bin = _programs()
        self._user = _unprivileged()
        self._process: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        """Make the files of the cluster."""
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        options = ["-A", "scram-sha-256", "-U", "coat", f"--pwfile={password}", "--no-sync"]
        self._run("initdb", "-D", str(self.folder / "data"), "-E", "UTF8", *options)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",  # it is the programs that are killed here, never the server
            "max_connections": "60",
            "shared_buffers": "16MB",
        }
        pairs = itertools.chain(*(("-c", f"{name}={value}") for name, value in options.items()))
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", str(self.folder / "data"), *pairs],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                user=None if self._user is None else self._user.pw_uid,
                group=None if self._user is None else self._user.pw_gid,
                extra_groups=None if self._user is None else [],
            )
        until = time.monotonic() + 30
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg.OperationalError:
                if time.monotonic() > until or self._process.poll() is not None:
                    raise
                time.sleep(0.05)

    def stop(self, *, for_good: bool = False) -> None:
        """End it; connections are closed."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT if for_good else signal.SIGINT)
            self._process.wait(30)
            self._process = None

    def freeze(self, *, frozen: bool = True) -> None:
        """Stop every process of it where it is: it keeps its connections and says nothing."""
        assert self._process is not None
        pids = [self._process.pid, *_children(self._process.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    def url(self, database: str, *, password: str = PASSWORD) -> str:
        return f"postgresql://coat:{password}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        with closing(psycopg.connect(self.url(database), autocommit=True)) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def database(self, template: str = "template0") -> str:
        """A new database; its name."""
        name = f"coat{os.getpid()}_{next(_NUMBERS)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            user=None if self._user is None else self._user.pw_uid,
            group=None if self._user is None else self._user.pw_gid,
            extra_groups=None if self._user is None else [],
            timeout=60,
        )
        if done.returncode:
            raise Unavailable(f"{program}: {done.stderr.strip()[-300:]}")


@contextmanager
def running() -> Iterator[Server]:
    """A server, gone at the end.

    Raises:
        Unavailable: it cannot be had here.
    """
    # Not below pytest's folder: that one is closed to the server's user.
    folder = Path(tempfile.mkdtemp(prefix="coatcheck-postgres-"))
    try:
        folder.chmod(0o755)
        server = Server(folder)
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop(for_good=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    folders = [Path(found).parent for name in ("postgres",) if (found := shutil.which(name))]
    folders += sorted(_DEBIAN.glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise Unavailable("postgres and initdb are not installed (Debian: postgresql)")


def _unprivileged() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Unavailable("there is no other user than root to run the server as")


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()]


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
