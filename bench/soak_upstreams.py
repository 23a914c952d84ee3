"""The two upstreams of `bench/soak.py`, each a process: one that is in order, and one that is not.

The first says whether the value arrived, and sends it back, so that a wrong answer and an
unscrubbed one both show. The second sends bombs, and a response head that does not end.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import zlib
from collections.abc import Awaitable, Callable

import brotli
import zstandard
from common import VALUE

MIB = 1 << 20
BOMB_MIB = 400
CODINGS = ("gzip", "br", "zstd")
ENDLESS = b"/endless-head"

type Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def right_answer(shown: bytes) -> bytes:
    """The body of the honest upstream, where *shown* is the value, or what it was scrubbed to."""
    return b'{"right": true, "key": "%b", "text": "%b"}' % (shown, b"nothing to see here " * 20)


def serve_honest(port: int, cert: str) -> None:
    wanted = b"\r\nauthorization: bearer " + VALUE.lower().encode() + b"\r\n"
    right, wrong = right_answer(VALUE.encode()), b'{"right": false}'

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            body = right if wanted in head.lower() else wrong
            kind = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            writer.write(kind + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))

    _run(answer, port, cert)


def serve_hostile(port: int, cert: str, plain_port: int) -> None:
    """On *plain_port* it reads what it gets and does not answer."""
    os.nice(10)
    bombs = {f"/{coding}".encode(): (coding, make_bomb(coding)) for coding in CODINGS}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            path = head.split(b" ", 2)[1]
            if path in bombs:
                coding, bomb = bombs[path]
                fields = f"Content-Encoding: {coding}\r\nContent-Length: {len(bomb)}\r\n\r\n"
                writer.write(b"HTTP/1.1 200 OK\r\n" + fields.encode() + bomb)
            elif path == ENDLESS:
                writer.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
                while not writer.is_closing():
                    writer.write(b"x" * 16_384)
                    await writer.drain()
                    await asyncio.sleep(0)  # else a connection that is lost is never seen to be
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def sink(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            pass

    _run(answer, port, cert, (sink, plain_port))


def make_bomb(coding: str) -> bytes:
    """`BOMB_MIB` of zeros, coded: 400 KB of gzip, and less of the other two."""
    block = bytes(MIB)
    if coding == "gzip":
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        return b"".join(packer.compress(block) for _ in range(BOMB_MIB)) + packer.flush()
    if coding == "br":
        brotli_packer = brotli.Compressor(quality=5)
        packed = b"".join(brotli_packer.process(block) for _ in range(BOMB_MIB))
        return packed + brotli_packer.finish()
    zstd_packer = zstandard.ZstdCompressor(level=3).compressobj()
    return b"".join(zstd_packer.compress(block) for _ in range(BOMB_MIB)) + zstd_packer.flush()


def _run(serve: Serve, port: int, cert: str, plain: tuple[Serve, int] | None = None) -> None:
    def guarded(serve: Serve) -> Serve:
        async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await serve(reader, writer)
            except (asyncio.IncompleteReadError, OSError):
                pass
            finally:
                writer.transport.abort()

        return connection

    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert)
        if plain is not None:
            await asyncio.start_server(guarded(plain[0]), "127.0.0.1", plain[1], backlog=1024)
        served = guarded(serve)
        server = await asyncio.start_server(served, "127.0.0.1", port, ssl=context, backlog=1024)
        await server.serve_forever()

    asyncio.run(main())
