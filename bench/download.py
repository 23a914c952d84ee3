"""What scrubbing costs a download: CPU of the proxy per GiB, searched and not, side by side.

    python bench/download.py [--mib 1024] [--secrets 10 10000] [--rounds 3]

One `coatcheck serve` for each number of secrets, all of them allowed at one port of the upstream;
at the other port of the same upstream none is, so nothing is searched there. Both are read in
turn, as is a body of JSON text, the ordinary case, and one of random bytes. Prints CPU seconds per
GiB, and their ratio; then the most memory that the proxy took, over what it had when idle.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import trustme
from common import HOST, Proxy, accepts, free_port, serve, start_coatcheck, wait_for

from coatcheck.core.destination import parse_domain_pattern
from coatcheck.store.home import Home
from coatcheck.store.sql import SqlStore

MIB = 1 << 20
ROW = {"id": 1, "name": "Ada Lovelace", "note": "50% of 12 \\ 7 = 0x2a", "tags": ["a", "b"]}
TEXT = (json.dumps(ROW, indent=1).encode() + b",\n") * 20000
BODIES = {"text": TEXT[:MIB], "random": os.urandom(MIB)}


def serve_upstream(ports: tuple[int, ...], cert: str) -> None:
    """GET /KIND/MIB sends so many blocks of that kind."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            _, kind, count = head.split()[1].decode().split("/")
            kind_line = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            writer.write(kind_line + b"Content-Length: %d\r\n\r\n" % (int(count) * MIB))
            for _ in range(int(count)):
                writer.write(BODIES[kind])
                await writer.drain()

    serve(answer, ports, cert)


def download(proxy: Proxy, port: int, kind: str, mib: int) -> float:
    """CPU seconds of the proxy for it."""

    async def run() -> int:
        reader, writer = await proxy.tunnel(port, limit=MIB)
        line = f"GET /{kind}/{mib} HTTP/1.1\r\nHost: {HOST}:{port}\r\n"
        writer.write(line.encode() + b"Connection: close\r\n\r\n")
        got = 0
        while data := await reader.read(MIB):
            got += len(data)
        return got

    cpu = proxy.cpu_s()
    if asyncio.run(run()) < mib * MIB:
        raise SystemExit("a body did not arrive whole")
    return proxy.cpu_s() - cpu


def fill(home: Path, count: int, port: int) -> None:
    """So many secrets more, allowed at *port*."""
    place = Home(home)
    store = SqlStore.open(str(place.store), public=place.read_public_key())
    pattern = [parse_domain_pattern(f"{HOST}:{port}")]
    try:
        for number in range(count):
            value = b"sk_live_" + os.urandom(16).hex().encode()
            store.put(f"more.key{number}", value, domains=pattern, description="", now=time.time())
    finally:
        store.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--secrets", type=int, nargs="+", default=[10, 10_000])
    parser.add_argument("--in-scope", action="store_true", help="all of them, and not ten")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="coatcheck-bench-") as name:
        folder = Path(name)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(folder / "leaf.pem")
        ports = free_port(), free_port()
        server = multiprocessing.Process(
            target=serve_upstream, args=(ports, str(folder / "leaf.pem")), daemon=True
        )
        server.start()
        wait_for(lambda: accepts(ports[0]) and accepts(ports[1]))
        print(f"{'':28}{'searched':>10}{'not':>8}{'ratio':>7}{'over idle':>12}")
        try:
            for count in options.secrets:
                own = folder / str(count)
                own.mkdir()
                measure(own, folder / "ca.pem", count, ports, options)
        finally:
            server.terminate()
    print("CPU seconds of the proxy per GiB, medians; memory: VmHWM over VmRSS when idle")
    return 0


def measure(
    folder: Path, ca: Path, count: int, ports: tuple[int, int], options: argparse.Namespace
) -> None:
    proxy = start_coatcheck(folder, ca, ports[0])
    try:
        inside = count if options.in_scope else min(count, 10)
        fill(folder / "home", inside - 1, ports[0])
        fill(folder / "home", count - inside, 1)  # a port that nobody asks
        time.sleep(2)  # until they are in force
        for port in ports:
            download(proxy, port, "text", 4)
        for kind in BODIES:
            idle = proxy.memory_mib("VmRSS")
            costs: dict[int, list[float]] = {port: [] for port in ports}
            for number in range(options.rounds):
                print(f"{count} secrets, {kind}: round {number + 1}", file=sys.stderr)
                for port in ports if number % 2 else reversed(ports):
                    used = download(proxy, port, kind, options.mib)
                    costs[port].append(used * 1024 / options.mib)
            on, off = (statistics.median(costs[port]) for port in ports)
            over = proxy.memory_mib("VmHWM") - idle
            words = f"{count:,} secrets, {kind}"
            print(f"{words:28}{on:10.2f}{off:8.2f}{on / off:7.2f}{over:8.1f} MiB", flush=True)
    finally:
        proxy.stop()


if __name__ == "__main__":
    raise SystemExit(main())
