"""Real sockets on loopback: an upstream that does as told, and a `ProxyServer` in front of it.

Names are answered by a resolver that knows one address. Vetting is `test_resolver`'s; here it is
about what happens on the connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import itertools
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from coatcheck import policyfile
from coatcheck.core.destination import parse_domain_pattern
from coatcheck.core.limits import Limits
from coatcheck.core.snapshot import Snapshot
from coatcheck.engine import tls
from coatcheck.engine.dialer import Dialer
from coatcheck.engine.lane import Services
from coatcheck.engine.server import ProxyServer
from coatcheck.gateway import Gateway
from coatcheck.store import ca
from coatcheck.store.memory import MemoryStore
from tests.engine.wire import OK, POLICY, VALUE, Book

HOST = "api.example.com"

type Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Resolves:
    """Every name is at *addresses*, as soon as `gate` is open."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses or ("127.0.0.1",))
        self.gate = asyncio.Event()
        self.gate.set()

    async def resolve(self, host: str, port: int, *, allowed: Sequence[object] = ()) -> list[str]:
        await self.gate.wait()
        return self.addresses


@dataclass
class Upstream:
    """``received`` holds what came over connections that were made, TLS taken off."""

    port: int
    received: bytearray = field(default_factory=bytearray)
    connections: int = 0
    open: int = 0


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers each head that comes with a short 200."""
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(OK)


@contextlib.asynccontextmanager
async def an_upstream(
    serve: Serve = answering, context: ssl.SSLContext | None = None
) -> AsyncIterator[Upstream]:
    made = Upstream(0)

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.connections += 1
        made.open += 1
        made.received.extend(reader._buffer)  # type: ignore[attr-defined]  # came with the handshake
        feed = reader.feed_data

        def noting(data: bytes) -> None:
            made.received.extend(data)
            feed(data)

        reader.feed_data = noting  # type: ignore[method-assign]
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
                await serve(reader, writer)
        finally:
            made.open -= 1
            writer.transport.abort()

    server = await asyncio.start_server(connection, "127.0.0.1", 0, ssl=context)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        server.close_clients()


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def make_authority(folder: Path) -> Path:
    """Our CA as it lies in a home; returns the certificate's file."""
    key, certificate = ca.make(datetime.datetime.now(datetime.UTC))
    (folder / "mitmproxy-ca.pem").write_bytes(key + certificate)
    path = folder / "mitmproxy-ca-cert.pem"
    path.write_bytes(certificate)
    return path


def a_gateway(port: int, limits: Limits | None = None, policy: str = POLICY) -> Gateway:
    """One secret, allowed at the upstream on *port*."""
    store = MemoryStore()
    domains = [parse_domain_pattern(f"{HOST}:{port}")]
    store.put("key", VALUE, domains=domains, description="", now=1.0)
    return Gateway(
        Snapshot(policyfile.parse(policy, "policy.yaml"), store.view()),
        Book(),
        limits or Limits(),
        now=time.time,
        new_id=map("request-{}".format, itertools.count(1)).__next__,
    )


@dataclass
class Proxy:
    server: ProxyServer
    port: int
    gateway: Gateway
    resolver: Resolves
    events: list[tuple[str, dict[str, object]]]
    ca: Path

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def tunnel(
        self,
        target: str,
        *,
        sni: str | None = None,
        alpn: Sequence[str] = (),
        context: ssl.SSLContext | None = None,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A TLS connection inside a CONNECT. Raises what the handshake raises."""
        reader, writer = await self.connect()
        try:
            writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head
            context = context or self.trusting()
            if alpn:
                context.set_alpn_protocols(list(alpn))
            host = target.rpartition(":")[0].strip("[]")
            await writer.start_tls(context, server_hostname=sni or host, ssl_handshake_timeout=5)
        except BaseException:
            writer.transport.abort()
            raise
        return reader, writer

    def trusting(self) -> ssl.SSLContext:
        """What a client uses that trusts our CA."""
        return ssl.create_default_context(cafile=self.ca)


@contextlib.asynccontextmanager
async def a_proxy(
    folder: Path,
    upstream_port: int,
    *,
    upstream_ca: Path | None = None,
    limits: Limits | None = None,
    policy: str = POLICY,
) -> AsyncIterator[Proxy]:
    certificate = make_authority(folder)
    events: list[tuple[str, dict[str, object]]] = []
    gateway = a_gateway(upstream_port, limits, policy)
    resolver = Resolves()
    dialer = Dialer(resolver, tls.upstream_context(upstream_ca), gateway.limits, tuple)  # type: ignore[arg-type]
    services = Services(gateway, lambda event, /, **more: events.append((event, more)))
    server = ProxyServer(services, tls.ClientTls(tls.load_authority(folder)), dialer)
    ((_, port),) = await server.start("127.0.0.1", 0)
    try:
        yield Proxy(server, port, gateway, resolver, events, certificate)
    finally:
        await server.stop(0.1)


def get(port: int, path: str = "/", *lines: str) -> bytes:
    """A plain request for the upstream on *port*."""
    head = [f"GET http://{HOST}:{port}{path} HTTP/1.1", f"Host: {HOST}:{port}", *lines]
    return "\r\n".join([*head, "", ""]).encode()


async def read_answer(reader: asyncio.StreamReader) -> bytes:
    """One answer, with its body as it is framed."""
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
        _, length, after = head.lower().partition(b"content-length: ")
        if length:
            return head + await reader.readexactly(int(after.partition(b"\r\n")[0]))
        return head + await reader.readuntil(b"0\r\n\r\n")


async def until(true: Callable[[], bool], limit_s: float = 3.0) -> None:
    """Wait for *true*."""
    async with asyncio.timeout(limit_s):
        while not true():  # noqa: ASYNC110 what is waited for is not ours to signal
            await asyncio.sleep(0.01)
