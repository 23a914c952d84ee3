"""Server-sent events through coatcheck: the time to the first one, and the rate of a long stream.

    python bench/sse.py [--rounds 60] [--events 2000] [--streams 7]

An upstream answers with events as a language model's API does, small ones, each written by itself.
Read in turn, so that a machine that slows down slows all alike: directly, through `coatcheck serve`
where a secret is in scope, so that every event is searched, and through the same proxy at a port
of the same upstream where none is. Prints a table, and ends with 1 where an event was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import ssl
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import trustme
from common import HOST, Proxy, Streams, accepts, free_port, serve, start_coatcheck, wait_for

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(number: int) -> bytes:
    delta = {"index": 0, "delta": {"content": f" word{number % 97}"}, "finish_reason": None}
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [delta]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def serve_upstream(ports: tuple[int, ...], cert: str) -> None:
    """GET /N: N events, the first of them at once, each a write of its own."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            writer.write(HEAD)
            for number in range(int(head.split()[1][1:])):
                data = event(number)
                writer.write(b"%x\r\n%b\r\n" % (len(data), data))
                await writer.drain()
                await asyncio.sleep(0)
            writer.write(b"0\r\n\r\n")

    serve(answer, ports, cert)


@dataclass
class Way:
    """One way to the upstream, with a connection that is kept."""

    name: str
    port: int
    ca: Path
    proxy: Proxy | None = None
    streams: Streams | None = None

    async def connect(self) -> None:
        if self.proxy is None:
            context = ssl.create_default_context(cafile=self.ca)
            self.streams = await asyncio.open_connection(HOST, self.port, ssl=context)
        else:
            self.streams = await self.proxy.tunnel(self.port)

    async def read(self, count: int) -> tuple[float, float, int]:
        """(seconds to the first event, seconds to the end, events) of a stream of *count*."""
        if self.streams is None:
            raise RuntimeError("not connected")
        reader, writer = self.streams
        start = time.perf_counter()
        writer.write(b"GET /%d HTTP/1.1\r\nHost: %b:%d\r\n\r\n" % (count, HOST.encode(), self.port))
        await reader.readuntil(b"\r\n\r\n")
        first, seen = 0.0, 0
        while size := int(await reader.readline(), 16):
            seen += (await reader.readexactly(size + 2)).count(b"\n\n")
            first = first or time.perf_counter() - start
        await reader.readline()
        return first, time.perf_counter() - start, seen


async def measure(ways: list[Way], options: argparse.Namespace) -> int:
    firsts: dict[str, list[float]] = {way.name: [] for way in ways}
    rates: dict[str, list[float]] = {way.name: [] for way in ways}
    costs: dict[str, list[float]] = {way.name: [] for way in ways}
    lost = 0
    for way in ways:
        await way.connect()
        await way.read(50)
    for _ in range(options.rounds):
        for way in ways:
            first, _, seen = await way.read(1)
            lost += 1 - seen
            firsts[way.name].append(first)
    for number in range(options.streams):
        print(f"stream {number + 1} of {options.streams}", file=sys.stderr)
        for way in ways if number % 2 else reversed(ways):
            cpu = way.proxy.cpu_s() if way.proxy else 0.0
            _, seconds, seen = await way.read(options.events)
            lost += options.events - seen
            rates[way.name].append(seen / seconds)
            costs[way.name].append((way.proxy.cpu_s() - cpu if way.proxy else 0.0) / seen * 1e6)
    direct = statistics.median(firsts["direct"])
    off = statistics.median(rates["not searched"])
    print(f"{'':16}{'first event':>13}{'over direct':>13}{'events/s':>10}{'ratio':>7}{'CPU us':>8}")
    for way in ways:
        first, rate = statistics.median(firsts[way.name]), statistics.median(rates[way.name])
        figures = f"{first * 1e3:10.2f} ms{(first - direct) * 1e3:10.2f} ms{rate:10.0f}"
        cost = statistics.median(costs[way.name])
        print(f"{way.name:16}{figures}{rate / off:7.2f}{cost:8.0f}")
    print("medians; ratio to the stream that is not searched; CPU of the proxy for an event")
    print(f"events lost: {lost}")
    return 1 if lost else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--streams", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="coatcheck-bench-") as name:
        folder = Path(name)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(folder / "leaf.pem")
        searched, other = free_port(), free_port()
        server = multiprocessing.Process(
            target=serve_upstream, args=((searched, other), str(folder / "leaf.pem")), daemon=True
        )
        server.start()
        wait_for(lambda: accepts(searched) and accepts(other))
        proxy = start_coatcheck(folder, folder / "ca.pem", searched)
        ways = [
            Way("direct", searched, folder / "ca.pem"),
            Way("searched", searched, proxy.ca, proxy),
            Way("not searched", other, proxy.ca, proxy),
        ]
        try:
            return asyncio.run(measure(ways, options))
        finally:
            proxy.stop()
            server.terminate()


if __name__ == "__main__":
    raise SystemExit(main())
