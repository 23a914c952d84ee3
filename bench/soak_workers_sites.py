"""The upstream of `bench/soak_workers.py`: two sites in one process, one allowed for each secret.

A site says on record which value came with which request, before it answers, and answers as the
path asks: in order, with the value sent back in two spellings, or in one of the ways in which an
upstream fails.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

HONEST = ("plain", "slow", "chunked")  # answered in full
FAULTS = ("reset", "cut", "garbage", "empty")
SLOW_S = 0.2
NOTHING = "-"  # on record where no value came


@dataclass(frozen=True)
class Seen:
    """A request that arrived at a site."""

    at: float  # seconds since the epoch
    site: str
    request: str
    value: str


def read_record(path: Path) -> list[Seen]:
    lines = path.read_text("ascii").splitlines()
    rows = [line.split(" ") for line in lines]
    return [Seen(float(at), site, request, value) for at, site, request, value in rows]


def right_answer(raw: bytes, coded: bytes) -> bytes:
    """The body of an answer in full, where *raw* and *coded* are the value, or what it became."""
    return b'{"raw": "%b", "coded": "%b"}' % (raw, coded)


def serve(ports: dict[str, int], cert: str, record: str) -> None:
    """Serve the sites, each on its port of loopback, until the process is killed."""

    async def main(out: TextIO) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert)
        servers = [
            await asyncio.start_server(
                _Site(name, out).connection, "127.0.0.1", port, ssl=context, backlog=1024
            )
            for name, port in ports.items()
        ]
        await asyncio.gather(*(server.serve_forever() for server in servers))

    with Path(record).open("w", encoding="ascii", buffering=1) as out:
        asyncio.run(main(out))


class _Site:
    def __init__(self, name: str, record: TextIO) -> None:
        self._name = name
        self._record = record

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                way, request = head.split(b" ", 2)[1].decode().split("/")[1:3]
                value = head.partition(b"\r\nAuthorization: Bearer ")[2].partition(b"\r\n")[0]
                shown = value.decode() or NOTHING
                self._record.write(f"{_now():.3f} {self._name} {request} {shown}\n")
                if not await _answer(way, value, writer):
                    return
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.transport.abort()


async def _answer(way: str, value: bytes, writer: asyncio.StreamWriter) -> bool:
    """Whether the connection goes on."""
    body = right_answer(value, base64.b64encode(value))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    if way == "slow":
        await asyncio.sleep(SLOW_S)
    if way in ("plain", "slow"):
        writer.write(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    elif way == "chunked":
        parts = [body[at : at + 7] for at in range(0, len(body), 7)]  # values come apart
        writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
        writer.writelines(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""])
    elif way == "cut":
        writer.write(head + b"Content-Length: %d\r\n\r\n%b" % (len(body) + 1000, body))
        await writer.drain()
    elif way == "garbage":
        writer.write(b"HTTP/1.1 200 OK\r\nX: " + value + b"\r\n folded\r\nno colon\r\n\r\n")
        await writer.drain()
    elif way == "empty":
        await writer.drain()
    return way in HONEST  # "reset": at once, with what was sent lost


def _now() -> float:
    import time

    return time.time()
