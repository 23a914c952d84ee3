"""What the measurements and the soak share: proxies as child processes, and what /proc tells.

It imports nothing of its folder: `soak.py` is run as a program, the rest as the package `bench`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

HOST = "localhost"
VALUE = "sk_live_bench_0123456789abcdefXYZ"
POLICY = """
version: 1
clients:
  local: {networks: ["127.0.0.1/32"]}
grants:
  - {secrets: ["*"], clients: [local]}
egress: {networks: ["127.0.0.0/8", "::1/128"]}
"""
STOP_S = 20.0
COATCHECK = (sys.executable, "-m", "coatcheck")
_TICKS = os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED = 2  # of clock_getcpuclockid(3): the clock of another process


class NotUp(SystemExit):
    """A server did not come up; the text says what it said."""


@dataclass
class Proxy:
    """A program that listens on a port of loopback; what it costs counts its children in."""

    name: str
    port: int
    ca: Path
    process: subprocess.Popen[bytes]

    def cpu_s(self) -> float:
        return cpu_s(family(self.process.pid))

    def memory_mib(self, field: str) -> float:
        """``VmRSS`` or ``VmHWM`` (the peak) of /proc/PID/status, of all its processes.

        Pages that they share count for each; the peaks need not have been at one moment.
        """
        return sum(memory_mib(pid, field) for pid in family(self.process.pid))

    def stop(self) -> None:
        """SIGTERM; what is still there after `STOP_S`, its children too, is killed."""
        pids = family(self.process.pid)
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait(STOP_S)


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """User and system time, and that of the children which have ended (these to 10 ms)."""
    return sum(_own_s(pid) + sum(map(int, _stat(pid)[13:15])) / _TICKS for pid in pids)


def _own_s(pid: int) -> float:
    """What the threads of a process have taken, ended ones too, to the nanosecond: /proc counts in
    ticks of 10 ms, of which a transfer of 100 MiB takes a dozen."""
    try:
        return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)
    except OSError:  # it is gone
        return 0.0


def memory_mib(pid: int, field: str) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    lines = [line for line in status.splitlines() if line.startswith(field)]
    return int(lines[0].split()[1]) / 1024 if lines else 0.0


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on (state, ppid); none where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def start_coatcheck(folder: Path, ca: Path, *upstreams: int, policy: str = POLICY) -> Proxy:
    """With one secret, allowed at each of the ports *upstreams* of `HOST`."""
    home = folder / "home"
    make_home(home, policy)
    domains = [word for port in upstreams for word in ("--domain", f"{HOST}:{port}")]
    quietly([*COATCHECK, "secret", "set", "bench.key", *domains, "--home", home], VALUE.encode())
    return serve_coatcheck(home, ca, folder / "coatcheck.log")


def make_home(home: Path, policy: str = POLICY) -> None:
    quietly([*COATCHECK, "init", "--home", home])
    (home / "policy.yaml").write_text(policy)


def serve_coatcheck(
    home: Path, ca: Path, log: Path, *options: str, program: Sequence[str] = COATCHECK
) -> Proxy:
    """`coatcheck serve` on a free port."""
    port = free_port()
    listen = ["--listen", f"127.0.0.1:{port}", "--upstream-ca", str(ca)]
    command = [*program, "serve", "--role", "proxy", "--home", str(home), *listen, *options]
    process = start(command, port, log)
    return Proxy("coatcheck serve", port, home / "ca" / "mitmproxy-ca-cert.pem", process)


def start(command: Sequence[str | Path], port: int, log: Path) -> subprocess.Popen[bytes]:
    """A program that is ready when *port* accepts.

    Raises:
        NotUp: it ended, or took too long.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        wait_for(lambda: accepts(port) or process.poll() is not None)
        ended = process.poll() is not None
    except BaseException:
        process.kill()
        process.wait()
        raise
    if ended:
        said = log.read_text("utf-8", "replace").strip().splitlines()
        errors = [line for line in said if line.startswith("error:")] or said[-1:]
        raise NotUp(errors[0] if errors else f"it ended with {process.returncode}")
    return process


def quietly(command: Sequence[str | Path], given: bytes = b"") -> None:
    out = subprocess.DEVNULL
    subprocess.run(command, input=given, check=True, stdout=out, stderr=out)


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise NotUp("a server did not come up")
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
