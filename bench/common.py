"""What the measurements share: the proxies as child processes, and what /proc says of them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
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


type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Proxy:
    name: str
    port: int
    ca: Path
    process: subprocess.Popen[bytes]

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self, field: str) -> float:
        """``VmRSS`` or ``VmHWM`` (the peak) of /proc/PID/status."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith(field))
        return int(line.split()[1]) / 1024

    async def tunnel(self, port: int, limit: int = 64 * 1024) -> Streams:
        """TLS with `HOST` on *port*, through a CONNECT."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=limit)
        target = f"{HOST}:{port}".encode()
        writer.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, target))
        await reader.readuntil(b"\r\n\r\n")
        await writer.start_tls(ssl.create_default_context(cafile=self.ca), server_hostname=HOST)
        return reader, writer

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def serve(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    ports: tuple[int, ...],
    cert: str,
    limit: int = 64 * 1024,
) -> None:
    """An HTTPS upstream on *ports*, for a process of its own; *answer* until the client leaves."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert)
        servers = [
            await asyncio.start_server(connection, "127.0.0.1", port, ssl=context, limit=limit)
            for port in ports
        ]
        await asyncio.gather(*(server.serve_forever() for server in servers))

    asyncio.run(main())


def start_coatcheck(folder: Path, ca: Path, *upstreams: int, policy: str = POLICY) -> Proxy:
    """With one secret, allowed at each of the ports *upstreams* of `HOST`."""
    home = folder / "home"
    run = [sys.executable, "-m", "coatcheck"]
    _quietly([*run, "init", "--home", str(home)])
    (home / "policy.yaml").write_text(policy)
    domains = [word for port in upstreams for word in ("--domain", f"{HOST}:{port}")]
    _quietly([*run, "secret", "set", "bench.key", *domains, "--home", str(home)], VALUE.encode())
    serve = ["serve", "--home", str(home), "--listen", "127.0.0.1:0", "--upstream-ca", str(ca)]
    with (folder / "coatcheck.log").open("wb") as log:
        process = subprocess.Popen([*run, *serve], stderr=log)
    state = home / "run" / "state.json"
    wait_for(lambda: bool(_listening(state)))  # it is written before there is a port, too
    port = _listening(state)[0][1]
    return Proxy("coatcheck serve", port, home / "ca" / "mitmproxy-ca-cert.pem", process)


def _listening(state: Path) -> list[tuple[str, int]]:
    return list(json.loads(state.read_text())["listen"]) if state.exists() else []


def start_mitmdump(folder: Path, ca: Path, port: int) -> Proxy:
    program = Path(sys.executable).with_name("mitmdump")
    options = [f"confdir={folder / 'mitm'}", f"ssl_verify_upstream_trusted_ca={ca}"]
    sets = [word for option in options for word in ("--set", option)]
    command = [str(program), "-q", "--listen-host", "127.0.0.1", "-p", str(port), *sets]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    cert = folder / "mitm" / "mitmproxy-ca-cert.pem"
    wait_for(cert.exists)
    wait_for(lambda: accepts(port))
    return Proxy("mitmdump -q", port, cert, process)


def _quietly(command: list[str], given: bytes = b"") -> None:
    out = subprocess.DEVNULL
    subprocess.run(command, input=given, check=True, stdout=out, stderr=out)


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("a server did not come up")
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
