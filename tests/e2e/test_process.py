"""What is in force in the processes of a `serve` that runs, looked at from outside: of one that is
alone, and of a supervisor and its workers.

It is started where each rule could fail: core dumps allowed, memory open to its user, and beside
somebody's configuration of mitmproxy, which is a FIFO here, so that reading it would never end.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from coatcheck.observe import state
from tests.e2e.harness import CLIENTS, READY_S, api_only, environ, make_home, wait_until

NOBODY = 65534
CORE_BYTES = 4096

# Root becomes nobody first, with the right to read a Python that lies where only root may look.
# Changing the user closes the memory (prctl(2)), so it is opened again, and its owner is said.
BECOME_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
BECOME_NOBODY += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
LAUNCH = """
import ctypes, os, sys
from coatcheck.cli import main
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
print(os.stat("/proc/self/mem").st_uid, flush=True)
sys.exit(main.main())
"""


@dataclass(frozen=True)
class Running:
    pids: list[int]
    user: int
    folder: Path  # its $HOME
    said: str  # by LAUNCH: who owned its memory before `serve`


@pytest.fixture(scope="module", params=[1, 2], ids="workers {}".format)
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY:
        pytest.skip("core dumps are switched off for good here")
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("setpriv (package util-linux) is not installed")
    user = os.geteuid() or NOBODY
    folder = Path(tempfile.mkdtemp(prefix="coatcheck-"))  # where nobody may enter
    try:
        home = make_home(folder / "home", {"crm.apiKey": api_only(b"never-shown-0123")}, CLIENTS)
        (folder / ".mitmproxy").mkdir()
        for name in ("config.yaml", "config.yml"):
            os.mkfifo(folder / ".mitmproxy" / name)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user, -1)
        process = started(folder, home, request.param)
        try:
            wait_until(lambda: b"serve.ready" in log(folder) or process.poll() is not None, READY_S)
            assert process.poll() is None, log(folder)
            workers = [one["pid"] for one in state.workers_of(state.read(home / "run") or {})]
            assert len(workers) == request.param
            pids = list(dict.fromkeys((process.pid, *workers)))
            yield Running(pids, user, folder, (folder / "said").read_text().strip())
            process.terminate()
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()
            process.wait()
    finally:
        shutil.rmtree(folder)


def started(folder: Path, home: Path, workers: int) -> subprocess.Popen[bytes]:
    with (folder / "log").open("wb") as err, (folder / "said").open("wb") as out:
        command = [sys.executable, "-c", LAUNCH, "serve", "--no-admin"]
        command += ["--home", str(home), "--listen", "127.0.0.1:0", "--workers", str(workers)]
        return subprocess.Popen(
            [*(() if os.geteuid() else BECOME_NOBODY), *command],
            cwd=folder,
            env=environ(HOME=str(folder)),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            preexec_fn=allow_core_dumps,
        )


def allow_core_dumps() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (CORE_BYTES, resource.RLIM_INFINITY))


def log(folder: Path) -> bytes:
    return (folder / "log").read_bytes()


def test_it_may_write_no_core_dump(running: Running) -> None:
    """Neither now nor after asking for more: the hard limit is 0 as well."""
    for pid in running.pids:
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()

        (line,) = (line for line in lines if line.startswith("Max core file size"))

        assert line.split()[4:6] == ["0", "0"]


def test_its_memory_is_closed_to_its_own_user(running: Running) -> None:
    """The files of a process that cannot be dumped belong to root (proc(5))."""
    assert running.said == str(running.user), "or what follows would prove nothing"

    for pid in running.pids:
        for name in ("mem", "environ", "maps", "fd"):
            assert Path(f"/proc/{pid}/{name}").stat().st_uid == 0, name


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_so_nobody_of_that_user_reads_its_environment(running: Running) -> None:
    for pid in running.pids:
        with pytest.raises(PermissionError):
            Path(f"/proc/{pid}/environ").read_bytes()


def test_mitmproxys_own_configuration_is_not_read(running: Running) -> None:
    """Whoever reads a FIFO waits; there is no one to wait, and `serve` was ready."""
    found = sorted(path.name for path in (running.folder / ".mitmproxy").iterdir())
    assert found == ["config.yaml", "config.yml"], "and nothing is written there"

    for name in found:
        with pytest.raises(OSError, match="No such device or address"):
            os.close(os.open(running.folder / ".mitmproxy" / name, os.O_WRONLY | os.O_NONBLOCK))
