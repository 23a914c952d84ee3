"""HTTPS on keep-alive through coatcheck and through stock mitmproxy, side by side in one run.

    python bench/keepalive.py [--requests 4000] [--connections 16] [--rounds 3]

Starts an upstream, `coatcheck serve` (a secret injected into a header of each request, scrubbing
and audit on) and `mitmdump -q` (no addon) on loopback, and drives them in turn, so that a machine
that slows down slows both. The figure to trust is the proxy's own CPU time per 1,000 requests
(user and system, from /proc); requests per second depend on what upstream and client leave of the
cores. Prints a table with ratios; ends with 1 if any answer was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path

import trustme
from common import (
    HOST,
    Proxy,
    accepts,
    free_port,
    serve,
    start_coatcheck,
    start_mitmdump,
    wait_for,
)

BODY = b'{"ok": true, "items": [1, 2, 3], "text": "nothing to see here"}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
) + BODY


def serve_upstream(port: int, cert: str) -> None:
    """A small HTTPS server in a process of its own."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(ANSWER)

    serve(answer, (port,), cert)


async def one_connection(proxy: Proxy, upstream: int, count: int) -> int:
    """*count* requests on one tunnel; returns how many answers were right."""
    reader, writer = await proxy.tunnel(upstream)
    request = (
        b"GET /v1/items?page=2 HTTP/1.1\r\nHost: %b\r\nAccept: */*\r\nUser-Agent: bench\r\n"
        b"Authorization: Bearer {{secrets.bench.key}}\r\n\r\n" % f"{HOST}:{upstream}".encode()
    )
    right = 0
    for _ in range(count):
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b"transfer-encoding: chunked" in head:
            body = b""
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        else:
            body = await reader.readexactly(len(BODY))
        right += head.startswith(b"http/1.1 200") and body == BODY
    writer.close()
    return right


def drive(proxy: Proxy, upstream: int, requests: int, connections: int) -> tuple[float, float, int]:
    """(seconds, CPU seconds of the proxy, right answers)."""

    async def main() -> int:
        each = requests // connections
        runs = (one_connection(proxy, upstream, each) for _ in range(connections))
        return sum(await asyncio.gather(*runs))

    cpu, start = proxy.cpu_s(), time.monotonic()
    right = asyncio.run(main())
    return time.monotonic() - start, proxy.cpu_s() - cpu, right


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="coatcheck-bench-") as name:
        folder = Path(name)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(folder / "leaf.pem")
        upstream = free_port()
        server = multiprocessing.Process(
            target=serve_upstream, args=(upstream, str(folder / "leaf.pem")), daemon=True
        )
        server.start()
        wait_for(lambda: accepts(upstream))
        proxies = [
            start_coatcheck(folder, folder / "ca.pem", upstream),
            start_mitmdump(folder, folder / "ca.pem", free_port()),
        ]
        try:
            return report(proxies, upstream, options)
        finally:
            for proxy in proxies:
                proxy.stop()
            server.terminate()


def report(proxies: list[Proxy], upstream: int, options: argparse.Namespace) -> int:
    wrong = 0
    rates: dict[str, list[float]] = {proxy.name: [] for proxy in proxies}
    costs: dict[str, list[float]] = {proxy.name: [] for proxy in proxies}
    for proxy in proxies:
        drive(proxy, upstream, 10 * options.connections, options.connections)  # warm up
    for number in range(options.rounds):
        for proxy in proxies:
            print(f"round {number + 1} of {options.rounds}: {proxy.name}", file=sys.stderr)
            seconds, cpu, right = drive(proxy, upstream, options.requests, options.connections)
            sent = options.requests // options.connections * options.connections
            wrong += sent - right
            rates[proxy.name].append(sent / seconds)
            costs[proxy.name].append(cpu / sent * 1000)
    base = statistics.median(costs[proxies[-1].name])
    print(f"{'':20}{'requests/s':>12}{'CPU s / 1,000':>16}{'ratio':>8}")
    for proxy in proxies:
        rate, cost = statistics.median(rates[proxy.name]), statistics.median(costs[proxy.name])
        print(f"{proxy.name:20}{rate:12.0f}{cost:16.3f}{cost / base:8.2f}")
    print(f"wrong answers: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
