"""A client of raw bytes: what a test writes is what goes out, and it sees every byte that comes.

No HTTP library here either: one would mend, or refuse, what a test means to send.
"""

from __future__ import annotations

import json
import socket
import ssl
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.world import World

CHUNK = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """One response.

    Attributes:
        raw: Every byte of it.
        interim: Heads of 1xx responses that came before.
        closes: Whether the body ended with the connection.
    """

    status: int
    reason: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes
    raw: bytes
    interim: tuple[bytes, ...] = ()
    closes: bool = False

    def all(self, name: str) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name.lower().encode()]

    def one(self, name: str) -> bytes:
        (value,) = self.all(name)
        return value

    @property
    def code(self) -> str:
        """The code of a refusal; empty for other answers."""
        return b"".join(self.all("coatcheck-error")).decode()

    @property
    def problem(self) -> dict[str, str]:
        return dict(json.loads(self.body))


class Wire:
    """A connection; TLS or plain."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""
        self.seen = bytearray()  # every byte that came, for the leak detector

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def ask(self, data: bytes, *, is_head: bool = False) -> Answer:
        self.send(data)
        return self.read(is_head=is_head)

    def get(self, target: str | bytes, *fields: str | bytes, host: str = "") -> Answer:
        """A GET with *fields* (whole lines)."""
        return self.ask(request("GET", target, *fields, host=host))

    def read(self, *, is_head: bool = False) -> Answer:
        """The next response. Raises `ConnectionError` if it does not come whole."""
        interim = []
        while True:
            head = self.until(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            if status >= 200:
                break
            interim.append(head)
        line, *lines = head[:-4].split(b"\r\n")
        fields = [(x.partition(b": ")[0], x.partition(b": ")[2]) for x in lines]
        got = Answer(status, line.split(b" ", 2)[2], fields, b"", head, tuple(interim))
        closes = False
        if is_head or status in (204, 304):
            body = raw = b""
        elif got.all("transfer-encoding"):
            body, raw = self._chunked()
        elif got.all("content-length"):
            body = raw = self.exactly(int(got.one("content-length")))
        else:
            body = raw = self.rest()
            closes = True
        return Answer(
            status, got.reason, fields, body, b"".join([*interim, head, raw]), got.interim, closes
        )

    def until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            self._more()
        end = self.buffer.index(mark) + len(mark)
        found, self.buffer = self.buffer[:end], self.buffer[end:]
        return found

    def exactly(self, size: int) -> bytes:
        parts, have = [self.buffer], len(self.buffer)
        while have < size:
            data = self._receive()
            parts.append(data)
            have += len(data)
        whole = b"".join(parts)
        self.buffer = whole[size:]
        return whole[:size]

    def skip(self, size: int) -> int:
        """Read *size* bytes and keep none; returns a checksum of them."""
        import zlib

        check = zlib.crc32(self.buffer[:size])
        left, self.buffer = size - len(self.buffer[:size]), self.buffer[size:]
        while left:
            data = self.sock.recv(min(left, CHUNK))
            if not data:
                raise ConnectionError("closed in the middle")
            check = zlib.crc32(data, check)
            left -= len(data)
        return check

    def rest(self) -> bytes:
        """Everything until the other side closes."""
        while True:
            try:
                self._more()
            except (ConnectionError, ssl.SSLError):
                break
        found, self.buffer = self.buffer, b""
        return found

    def is_closed(self) -> bool:
        """Whether the other side has closed, with nothing left to read."""
        try:
            self._more()
        except (ConnectionError, ssl.SSLError):
            return True
        return False

    def close(self) -> None:
        self.sock.close()

    def _chunked(self) -> tuple[bytes, bytes]:
        body, raw = bytearray(), bytearray()
        while True:
            line = self.until(b"\r\n")
            raw += line
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            data = self.exactly(size + 2)
            raw += data
            body += data[:-2]
        while line != b"\r\n":
            line = self.until(b"\r\n")
            raw += line
        return bytes(body), bytes(raw)

    def _more(self) -> None:
        self.buffer += self._receive()

    def _receive(self) -> bytes:
        data = self.sock.recv(CHUNK)
        if not data:
            raise ConnectionError("the other side closed")
        if len(self.seen) < 1 << 20:
            self.seen += data
        return data


def request(
    method: str, target: str | bytes, *fields: str | bytes, host: str = "", body: bytes = b""
) -> bytes:
    """A request as bytes; *host* fills the Host field, Content-Length is set for a body."""
    lines = [b"%b %b HTTP/1.1" % (method.encode(), _bytes(target))]
    lines.append(b"Host: " + _bytes(host or "api.example.test"))
    lines += map(_bytes, fields)
    if body:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body])


def basic(user: str, password: str) -> str:
    """The value of a Basic credential."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


@dataclass(frozen=True)
class Dial:
    """How a client gets to one proxy: where it is, which CA it trusts, how it is known.

    Attributes:
        credential: The value of Proxy-Authorization; empty: none is sent.
        source: The client's address; empty: 127.0.0.1.
    """

    world: World
    port: int
    ca: Path
    credential: str = ""
    source: str = ""

    @contextmanager
    def plain(self) -> Iterator[Wire]:
        """A connection to the proxy itself."""
        wire = Wire(self.world.connect("127.0.0.1", self.port, self.source))
        try:
            yield wire
        finally:
            wire.close()

    @contextmanager
    def tunnel(
        self, host: str = "api.example.test", port: int = 443, *, sni: str | None = ""
    ) -> Iterator[Wire]:
        """A TLS connection inside a CONNECT; *sni* None sends no server name."""
        wire = self.open_tunnel(host, port, sni=sni)
        try:
            yield wire
        finally:
            wire.close()

    def open_tunnel(
        self, host: str = "api.example.test", port: int = 443, *, sni: str | None = ""
    ) -> Wire:
        outside = Wire(self.world.connect("127.0.0.1", self.port, self.source))
        try:
            answer = outside.ask(self.connect_request(host, port), is_head=True)
            if answer.status == 200:
                context = ssl.create_default_context(cafile=self.ca)
                context.set_alpn_protocols(["http/1.1"])
                context.check_hostname = sni == ""
                name = host if sni == "" else sni
                return Wire(context.wrap_socket(outside.sock, server_hostname=name))
        except BaseException:
            outside.close()
            raise
        outside.close()
        raise ConnectionError(f"CONNECT was answered with {answer.status}")

    def connect_request(self, host: str, port: int = 443) -> bytes:
        lines = [f"CONNECT {host}:{port} HTTP/1.1", f"Host: {host}:{port}"]
        if self.credential:
            lines.append(f"Proxy-Authorization: {self.credential}")
        return "\r\n".join([*lines, "", ""]).encode()
