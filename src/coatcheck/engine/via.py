"""The way through an upstream proxy: a CONNECT for each connection, whatever the scheme.

The destination's name is resolved and its addresses are vetted here, as without one, and the proxy
is asked for a vetted address. So no promise changes: a name that leads to a private network is
refused before the proxy hears of it, and TLS is verified for the name at the other end of the
tunnel. A proxy that takes names alone is asked by name (`by_name`): it resolves once more, and
where it goes then is its own affair (SECURITY.md).

The proxy is the operator's, so its own address is not vetted. What it says is read strictly and
told to nobody: a client gets the words of an upstream that cannot be reached.
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from coatcheck.core.ports import CoatcheckError
from coatcheck.core.problems import Code, refuse

MAX_HEAD = 16 * 1024  # bytes of an answer to CONNECT
MAX_CREDENTIAL = 4096  # bytes
_END = b"\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")

type Log = Callable[..., None]


class ProxyError(CoatcheckError):
    """The upstream proxy cannot be used as the settings say."""


@dataclass(frozen=True, slots=True)
class UpstreamProxy:
    """Where it is, and what it is shown.

    Attributes:
        context: What verifies an ``https://`` one; None for ``http://``.
        credential: Of Proxy-Authorization, ``user:password``; empty for none.
        by_name: It is asked for names rather than for vetted addresses.
    """

    host: str
    port: int
    context: ssl.SSLContext | None = None
    credential: bytes = field(default=b"", repr=False)
    by_name: bool = False

    def request(self, host: str, port: int) -> bytes:
        """The CONNECT for *host*, a name or an address."""
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if self.credential:
            told = base64.b64encode(self.credential).decode()
            lines.append(f"Proxy-Authorization: Basic {told}")
        return "\r\n".join([*lines, "", ""]).encode("ascii")


def upstream_proxy(
    url: str, file: Path | None, context: Callable[[], ssl.SSLContext], *, by_name: bool
) -> UpstreamProxy:
    """What the settings say.

    Args:
        url: Checked by `settingtable`.
        file: Of the credential; None: that of the URL, if it has one.
        context: Makes what verifies an ``https://`` proxy.

    Raises:
        ProxyError: the credential's file cannot be used, or there are two credentials.
    """
    parts = urlsplit(url)
    credential = b""
    if parts.username is not None:
        user, password = (unquote_to_bytes(part or "") for part in (parts.username, parts.password))
        credential = user + b":" + password
    if file is not None:
        if credential:
            raise ProxyError(
                "upstream_proxy has a credential, and so has upstream_proxy_credential",
                hint="take it out of the URL",
            )
        credential = _read(file)
    if any(byte < 0x20 or byte == 0x7F for byte in credential):
        raise ProxyError("the upstream proxy's credential has control characters", hint=_FORM)
    return UpstreamProxy(
        parts.hostname or "",
        parts.port or 0,
        context() if parts.scheme == "https" else None,
        credential,
        by_name,
    )


_FORM = "write USER:PASSWORD in one line"


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_CREDENTIAL + 1).strip()
    except OSError as error:
        raise ProxyError(
            f"upstream_proxy_credential {file} cannot be read ({error.strerror})",
            hint="let the user that coatcheck runs as read it",
        ) from None
    if b":" not in content or len(content) > MAX_CREDENTIAL:
        raise ProxyError(f"upstream_proxy_credential {file} is no credential", hint=_FORM)
    return content


class Tunnels:
    """Connections through *proxy*. One for each event loop."""

    def __init__(self, proxy: UpstreamProxy, log: Log) -> None:
        self._proxy = proxy
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._carrying: set[asyncio.Task[None]] = set()
        self._last = ""

    async def connect(self, host: str, addresses: list[str], port: int) -> socket.socket:
        """A connected socket whose other end is *host*, or the proxy lies.

        Args:
            addresses: Of *host*, vetted; the first that the proxy reaches is taken.

        Raises:
            Refused: upstream_unreachable.
        """
        for target in [host] if self._proxy.by_name else addresses:
            try:
                return await self._tunnel(target, port)
            except _NoTunnel as error:
                self._say(str(error))
        raise refuse(Code.UPSTREAM_UNREACHABLE, host=host)

    async def _tunnel(self, target: str, port: int) -> socket.socket:
        asked = self._proxy.request(target, port)
        if self._proxy.context is None:
            return await self._plain(asked)
        try:
            reader, writer = await asyncio.open_connection(
                self._proxy.host, self._proxy.port, ssl=self._proxy.context
            )
        except ssl.SSLError:
            raise _NoTunnel("its certificate is not valid for its name") from None
        except OSError:
            raise _NoTunnel("it cannot be reached") from None
        return await self._carried(asked, reader, writer)

    async def _plain(self, asked: bytes) -> socket.socket:
        """The connection to the proxy itself, read up to the end of its answer and no further."""
        sock = await self._connected()
        try:
            await self._loop.sock_sendall(sock, asked)
            head = bytearray()
            while not head.endswith(_END) and len(head) < MAX_HEAD:
                byte = await self._loop.sock_recv(sock, 1)  # most are there already
                if not byte:
                    break
                head += byte
            _check(bytes(head))
        except OSError:
            sock.close()
            raise _NoTunnel("it broke the connection off") from None
        except BaseException:
            sock.close()
            raise
        return sock

    async def _connected(self) -> socket.socket:
        host, port = self._proxy.host, self._proxy.port
        try:
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError:
            found = []
        for family, kind, _, _, address in found:
            sock = socket.socket(family, kind)
            sock.setblocking(False)
            try:
                await self._loop.sock_connect(sock, address)
            except OSError:
                sock.close()
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise _NoTunnel("it cannot be reached")

    async def _carried(
        self, asked: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> socket.socket:
        """One end of a pair whose other end the bytes are carried to and from."""
        try:
            writer.write(asked)
            _check(await _head(reader))
        except BaseException:
            writer.transport.abort()
            raise
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        task = self._loop.create_task(_carry(theirs, reader, writer))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        return ours

    def _say(self, why: str) -> None:
        if why != self._last:  # not for each request
            self._log("upstream_proxy.failed", error=why)
        self._last = why


class _NoTunnel(Exception):
    """Why there is none; a constant text."""


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(_END)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
        return b""


def _check(head: bytes) -> None:
    found = _STATUS.match(head)
    if found is None or not head.endswith(_END) or len(head) > MAX_HEAD:
        raise _NoTunnel("its answer is no answer to CONNECT")
    status = int(found[1])
    if status == 407:
        raise _NoTunnel("it does not take the credential, or wants one")
    if not 200 <= status < 300:
        raise _NoTunnel("it does not open a tunnel to the destination")


async def _carry(
    theirs: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Bytes both ways until one side ends; then both end."""
    inner_reader, inner_writer = await asyncio.open_connection(sock=theirs)
    ways = [
        asyncio.ensure_future(_pump(reader, inner_writer)),
        asyncio.ensure_future(_pump(inner_reader, writer)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        for end in (writer, inner_writer):
            with suppress(OSError, ssl.SSLError):
                end.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, ssl.SSLError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
