"""Peak memory of `coatcheck serve` while a body of 1 GiB passes in either direction.

    python bench/memory.py [--mib 1024]

The destination has a secret, so the download is scrubbed; the upload is sent once as text, which
is searched for placeholders as it streams, and once as binary, which is left alone. Prints the
resident memory when idle and the highest since, as the kernel counts it (VmRSS, VmHWM).
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import tempfile
import time
from pathlib import Path

import trustme
from common import HOST, Proxy, accepts, free_port, serve, start_coatcheck, wait_for

MIB = 1 << 20
LINE = b'{"key": "' + b"x" * 1010 + b'"}\n\n\n'
BLOCK = LINE * (MIB // len(LINE) + 1)


async def read_body(reader: asyncio.StreamReader, head: bytes) -> int:
    """Read a body of either framing; returns its size."""
    got = 0
    if b"transfer-encoding: chunked" in head.lower():
        while size := int((await reader.readline()).split(b";")[0], 16):
            left = size + 2
            while left:
                left -= len(await reader.read(min(left, MIB)))
            got += size
        await reader.readline()
        return got
    _, found, rest = head.lower().partition(b"content-length: ")
    left = int(rest.split(b"\r\n")[0]) if found else 0
    while left:
        data = await reader.read(min(left, MIB))
        left, got = left - len(data), got + len(data)
    return got


async def write_body(writer: asyncio.StreamWriter, size: int) -> None:
    while size:
        block = BLOCK[: min(size, MIB)]
        writer.write(block)
        await writer.drain()
        size -= len(block)


def serve_upstream(port: int, cert: str) -> None:
    """GET /SIZE sends that many bytes; anything else counts what it gets."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            got = await read_body(reader, head)
            size = int(head.split()[1][1:]) if head.startswith(b"GET") else got
            kind = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            writer.write(kind + b"Content-Length: %d\r\n\r\n" % size)
            if head.startswith(b"GET"):
                await write_body(writer, size)
            else:
                writer.write(b" " * size if size < 100 else b"")

    serve(answer, (port,), cert, limit=MIB)


async def transfer(proxy: Proxy, upstream: int, head: bytes, size: int, *, up: bool) -> None:
    reader, writer = await proxy.tunnel(upstream, limit=MIB)
    writer.write(head + f"Host: {HOST}:{upstream}\r\n".encode())
    if up:
        writer.write(b"Content-Length: %d\r\n\r\n" % size)
        await write_body(writer, size)
        answer = await reader.readuntil(b"\r\n\r\n")
        right = b"200 OK" in answer
    else:
        writer.write(b"\r\n")
        right = await read_body(reader, await reader.readuntil(b"\r\n\r\n")) == size
    writer.close()
    if not right:
        raise SystemExit("a body did not arrive whole")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024)
    size = parser.parse_args().mib * MIB
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
        proxy = start_coatcheck(folder, folder / "ca.pem", upstream)
        try:
            measure(proxy, upstream, size)
        finally:
            proxy.stop()
            server.terminate()
    return 0


def measure(proxy: Proxy, upstream: int, size: int) -> None:
    asyncio.run(transfer(proxy, upstream, b"GET /10 HTTP/1.1\r\n", 10, up=False))
    idle = proxy.memory_mib("VmRSS")
    print(f"{'':24}{'seconds':>9}{'CPU s':>8}{'peak MiB':>10}{'over idle':>11}")
    print(f"{'idle, one request served':24}{'':>17}{idle:10.1f}")
    text = b"POST /up HTTP/1.1\r\nContent-Type: text/plain\r\n"
    binary = b"POST /up HTTP/1.1\r\nContent-Type: application/octet-stream\r\n"
    down = b"GET /%d HTTP/1.1\r\n" % size
    cases = [("download, scrubbed", down), ("upload, text", text), ("upload, binary", binary)]
    for words, head in cases:
        start, cpu = time.monotonic(), proxy.cpu_s()
        asyncio.run(transfer(proxy, upstream, head, size, up=head is not down))
        seconds, used = time.monotonic() - start, proxy.cpu_s() - cpu
        peak = proxy.memory_mib("VmHWM")
        print(f"{words:24}{seconds:9.1f}{used:8.1f}{peak:10.1f}{peak - idle:11.1f}")


if __name__ == "__main__":
    raise SystemExit(main())
