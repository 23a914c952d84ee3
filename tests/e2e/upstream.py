"""An HTTPS upstream that no HTTP library has a part in: it records bytes, and answers by path.

The first segment of the path says what it does (`MODES`); nothing else of the request is looked
at. Whatever a mode sends back contains the request as it came, so an allowed upstream that
reflects a secret is the ordinary case here.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import itertools
import ssl
import subprocess
import threading
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket

import brotli
import zstandard

KEPT = 4 << 20  # bytes of a body that are recorded; of a longer one only the size and the hash
BLOCK = 64 * 1024


@dataclass
class Received:
    """One request, as it arrived.

    Attributes:
        connection: Number of the connection, counted over all upstreams.
        host: The upstream that it came to.
        sni: The TLS server name.
        head: From the first byte to the blank line, with it.
        raw_body: As framed. Empty if over `KEPT`.
        body: Without the chunked coding.
        sha256: Of the body, whatever its size.
    """

    connection: int
    host: str
    sni: str | None
    head: bytes
    raw_body: bytes = b""
    body: bytes = b""
    size: int = 0
    sha256: str = ""

    @property
    def request_line(self) -> bytes:
        return self.head.partition(b"\r\n")[0]

    @property
    def target(self) -> bytes:
        return self.request_line.split(b" ")[1]

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        lines = self.head[:-4].split(b"\r\n")[1:]
        return [(line.partition(b": ")[0], line.partition(b": ")[2]) for line in lines]

    def all(self, name: str) -> list[bytes]:
        """The values of every field called *name*."""
        return [value for key, value in self.fields if key.lower() == name.lower().encode()]

    @property
    def bytes(self) -> bytes:
        return self.head + self.body


@dataclass
class Site:
    """One name, its address and its certificate. Without *context*: plain http."""

    host: str
    listener: socket
    context: ssl.SSLContext | None
    connections: int = 0


@dataclass
class Upstream:
    """All upstreams of a run: one thread, one event loop.

    Attributes:
        received: Requests that came in, oldest first; `take` empties it.
        gates: By name, what a mode waits for, so that a test says when a stream goes on.
        repositories: Folder of bare git repositories.
        git_password: What `/git/` wants as the password of Basic.
        modes: What each first segment of a path does.
    """

    received: list[Received] = field(default_factory=list)
    gates: dict[str, threading.Semaphore] = field(default_factory=dict)
    repositories: Path = Path()
    git_password: bytes = b""
    sites: dict[str, Site] = field(default_factory=dict)
    modes: dict[str, Mode] = field(default_factory=lambda: dict(MODES))

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._names: dict[int, str | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def add(self, host: str, listener: socket, context: ssl.SSLContext | None) -> Site:
        """Serve *host* on *listener*."""
        site = self.sites[host] = Site(host, listener, context)
        if context is not None:
            context.sni_callback = self._note_name

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task is not None:
                self._tasks.add(task)
            try:
                await self._connection(site, reader, writer)
            except (OSError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError):
                pass
            finally:
                writer.transport.abort()
                if task is not None:
                    self._tasks.discard(task)

        start = asyncio.start_server(serve, sock=listener, ssl=context, limit=1 << 20)
        asyncio.run_coroutine_threadsafe(start, self._loop).result(10)
        return site

    def take(self) -> list[Received]:
        """The requests since the last call."""
        taken, self.received[:] = list(self.received), []
        return taken

    def one(self) -> Received:
        """The one request since the last `take`."""
        taken = self.take()
        assert len(taken) == 1, [item.request_line for item in taken]
        return taken[0]

    def gate(self, name: str) -> threading.Semaphore:
        """The semaphore that mode ``/gated…/NAME`` waits for before each step."""
        return self.gates.setdefault(name, threading.Semaphore(0))

    def close(self) -> None:
        async def end() -> None:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0.05)
            self._loop.stop()

        asyncio.run_coroutine_threadsafe(end(), self._loop)
        self._thread.join(10)
        for site in self.sites.values():
            site.listener.close()
        self._loop.close()

    def _note_name(self, sock: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        self._names[id(sock)] = name

    async def _connection(
        self, site: Site, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        site.connections += 1
        number = next(self._numbers)
        sni = self._names.pop(id(writer.get_extra_info("ssl_object")), None)
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as error:
                if error.partial:  # half a request is worth noting
                    self.received.append(Received(number, site.host, sni, error.partial))
                return
            request = Received(number, site.host, sni, head)
            path = request.target.partition(b"?")[0]  # "*" for a whole server
            mode = path.partition(b"/")[2].partition(b"/")[0].decode("latin-1")
            answer = self.modes.get(mode, _echo)
            if answer not in EARLY:
                await _read_body(request, reader)
            self.received.append(request)
            if await answer(Exchange(self, request, reader, writer)) is False:
                return


class Exchange:
    """What a mode has at hand."""

    def __init__(
        self,
        upstream: Upstream,
        request: Received,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.upstream = upstream
        self.request = request
        self.reader = reader
        self.writer = writer
        self.is_head = request.head.startswith(b"HEAD ")

    def argument(self, index: int = 1) -> str:
        """Segment *index* of the path, the mode being 0."""
        segments = self.request.target.partition(b"?")[0].split(b"/")[1:]
        return segments[index].decode() if len(segments) > index else ""

    @property
    def token(self) -> bytes:
        """What came as the credential."""
        found = self.request.all("authorization")
        return found[0].partition(b" ")[2] if found else b"none"

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(
        self, body: bytes, *fields: bytes, status: bytes = b"200 OK", kind: bytes = b"text/plain"
    ) -> None:
        lines = [b"HTTP/1.1 " + status, b"Content-Type: " + kind, *fields]
        lines.append(b"Content-Length: %d" % len(body))
        await self.send(b"\r\n".join([*lines, b"", b""]) + (b"" if self.is_head else body))

    async def wait_gate(self) -> None:
        gate = self.upstream.gate(self.argument())
        await asyncio.get_running_loop().run_in_executor(None, gate.acquire, True, 20)


async def _read_body(request: Received, reader: asyncio.StreamReader) -> None:
    length = request.all("content-length")
    raw, body, digest = bytearray(), bytearray(), hashlib.sha256()

    async def take(size: int) -> None:
        while size:
            block = await reader.read(min(size, BLOCK))
            if not block:
                raise asyncio.IncompleteReadError(b"", size)
            size -= len(block)
            request.size += len(block)
            digest.update(block)
            if request.size <= KEPT:
                body.extend(block)
                raw.extend(block)

    try:
        if request.all("transfer-encoding"):
            while True:
                line = await reader.readuntil(b"\r\n")
                raw += line
                size = int(line.split(b";")[0], 16)
                if size == 0:
                    while line != b"\r\n":
                        line = await reader.readuntil(b"\r\n")
                        raw += line
                    break
                await take(size)
                raw += await reader.readexactly(2)
        elif length:
            await take(int(length[0]))
    finally:
        request.raw_body, request.body = bytes(raw), bytes(body)
        request.sha256 = digest.hexdigest()


# --- modes ---------------------------------------------------------------------------------------


async def _echo(at: Exchange) -> None:
    await at.answer(at.request.bytes)


async def _chunked(at: Exchange) -> None:
    """The echo one byte a chunk, with a trailer field."""
    await at.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Echo\r\n\r\n")
    for byte in at.request.bytes:
        await at.send(b"1\r\n%c\r\n" % byte)
    await at.send(b"0\r\nX-Echo: " + at.token + b"\r\n\r\n")


async def _coded(at: Exchange) -> None:
    coding = at.argument()
    content = at.request.bytes
    coded = {
        "gzip": gzip.compress(content[:9]) + gzip.compress(content[9:]),
        "deflate": zlib.compress(content),
        "br": brotli.compress(content),
        "zstd": zstandard.compress(content),
        "bogus": content,
        "broken": gzip.compress(content)[:-9],
    }[coding]
    name = "gzip" if coding == "broken" else coding
    await at.answer(coded, b"Content-Encoding: " + name.encode())


async def _close_framed(at: Exchange) -> bool:
    """A body that ends with the connection."""
    await at.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + at.request.bytes)
    at.writer.close()
    return False


async def _in_head(at: Exchange) -> None:
    """The token in the reason phrase and in fields, one of them twice; behind a 103."""
    token = at.token
    await at.send(b"HTTP/1.1 103 Early Hints\r\nLink: <" + token + b">\r\n\r\n")
    await at.answer(
        b"see the head",
        b"X-Echo: " + token,
        b"Set-Cookie: first=" + token + b"; Path=/",
        b"Set-Cookie: second=2",
        b"X-Between: 1",
        b"Set-Cookie: third=" + token,
        b"Location: https://evil.example.test/?token=" + token,
        status=b"200 Fine " + token,
    )


async def _status(at: Exchange) -> None:
    status = at.argument()
    if status in ("204", "304"):
        await at.send(b"HTTP/1.1 %b Bare\r\nX-Echo: %b\r\n\r\n" % (status.encode(), at.token))
    else:
        await at.answer(at.request.bytes, status=status.encode() + b" As asked")


async def _redirect(at: Exchange) -> None:
    await at.answer(b"", b"Location: https://evil.example.test/echo", status=b"302 Found")


async def _needs_basic(at: Exchange) -> None:
    """401 first, as servers do that clients like git wait for."""
    if at.request.all("authorization"):
        await at.answer(at.request.bytes)
    else:
        challenge = b'WWW-Authenticate: Basic realm="upstream"'
        await at.answer(b"who are you?", challenge, status=b"401 Unauthorized")


async def _early(at: Exchange) -> bool:
    """An answer before the body was read."""
    await at.answer(b"no thanks", b"Connection: close", status=b"413 Too Large")
    # Closing with bytes unread would reset the connection, and the answer might be lost.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            while await at.reader.read(BLOCK):
                pass
    return False


async def _download(at: Exchange) -> None:
    size = int(at.argument())
    await at.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    block = PATTERN
    while size:
        await at.send(block[:size])
        size -= min(size, len(block))


async def _events(at: Exchange) -> bool:
    """Server-sent events, each when the gate ``/events/NAME`` is opened once."""
    await at.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    for number in range(3):
        await at.wait_gate()
        await at.send(b"id: %d\ndata: token %b\n\n" % (number, at.token))
    at.writer.close()
    return False


async def _gated(at: Exchange) -> None:
    await at.wait_gate()
    await at.answer(at.request.bytes)


async def _partial(at: Exchange) -> None:
    await at.answer(at.request.bytes, b"Content-Range: bytes 0-9/100", status=b"206 Partial")


async def _switch(at: Exchange) -> bool:
    await at.send(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n" + at.token)
    return False


async def _malformed(at: Exchange) -> bool:
    await at.send(b"HTTP/1.1 200 OK\r\nX-Echo: " + at.token + b"\n folded\r\n\r\n")
    return False


async def _hang_up(at: Exchange) -> bool:
    return False


async def _half(at: Exchange) -> bool:
    """Fewer bytes than announced, then the end."""
    await at.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + at.request.bytes)
    return False


async def _silent(at: Exchange) -> bool:
    with contextlib.suppress(OSError):
        await at.reader.read(1)
    return False


async def _git(at: Exchange) -> None:
    """git-http-backend(1) behind Basic."""
    import base64

    scheme, _, token = (at.request.all("authorization") or [b""])[0].partition(b" ")
    given = base64.b64decode(token).partition(b":")[2] if scheme == b"Basic" else None
    if given != at.upstream.git_password:
        challenge = b'WWW-Authenticate: Basic realm="git"'
        await at.answer(b"who are you?", challenge, status=b"401 Unauthorized")
        return
    path, _, query = at.request.target.removeprefix(b"/git").partition(b"?")
    environ = {
        "GIT_PROJECT_ROOT": str(at.upstream.repositories),
        "GIT_HTTP_EXPORT_ALL": "1",
        "REQUEST_METHOD": at.request.head.split(b" ")[0].decode(),
        "PATH_INFO": path.decode(),
        "QUERY_STRING": query.decode(),
        "CONTENT_TYPE": b"".join(at.request.all("content-type")).decode(),
        "HTTP_CONTENT_ENCODING": b"".join(at.request.all("content-encoding")).decode(),
        "GIT_PROTOCOL": b"".join(at.request.all("git-protocol")).decode(),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
    }
    backend = await asyncio.create_subprocess_exec(
        "git", "http-backend", stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    )
    said, _ = await backend.communicate(at.request.body)
    head, _, body = said.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Status:")]
    status = head.partition(b"Status: ")[2].partition(b"\r\n")[0] or b"200 OK"
    await at.send(
        b"\r\n".join([b"HTTP/1.1 " + status, *lines, b"Content-Length: %d" % len(body), b"", body])
    )


type Mode = Callable[[Exchange], Awaitable[bool | None]]

MODES: dict[str, Mode] = {
    "chunked": _chunked,
    "coded": _coded,
    "close-framed": _close_framed,
    "in-head": _in_head,
    "status": _status,
    "redirect": _redirect,
    "needs-basic": _needs_basic,
    "early": _early,
    "download": _download,
    "events": _events,
    "gated": _gated,
    "partial": _partial,
    "switch": _switch,
    "malformed": _malformed,
    "hang-up": _hang_up,
    "half": _half,
    "silent": _silent,
    "git": _git,
}
EARLY = frozenset({_early})
PATTERN = bytes(range(256)) * (BLOCK // 256)
