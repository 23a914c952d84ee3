"""The attacker's socket, and the verdicts on what came of it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from OpenSSL import SSL

from tests.attacks.stage import IS_NAIVE
from tests.e2e.wire import Answer, Wire
from tests.e2e.world import World

PATIENCE_S = 2.0 if IS_NAIVE else 12.0  # a client waits this long; what takes longer is a hang


class Hang(AssertionError):
    """Neither an answer nor an end came in time."""


class OddTls:
    """As much of a socket as `Wire` needs; Python's ssl refuses to send such a server name."""

    def __init__(self, sock: socket.socket, sni: bytes) -> None:
        sock.settimeout(None)
        self._sock = sock  # kept, or it would be closed
        self._tls = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), sock)
        self._tls.set_tlsext_host_name(sni)
        self._tls.set_connect_state()
        self._guarded(self._tls.do_handshake)

    def settimeout(self, seconds: float) -> None:
        # OpenSSL wants a blocking descriptor, so the kernel keeps the time (socket(7)).
        limit = struct.pack("ll", int(seconds), 0)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)

    def sendall(self, data: bytes) -> None:
        self._guarded(self._tls.sendall, data)

    def recv(self, size: int) -> bytes:
        return self._guarded(self._tls.recv, size)

    def close(self) -> None:
        self._sock.close()

    def _guarded[T](self, call: Callable[..., T], *arguments: object) -> T:
        try:
            return call(*arguments)
        except SSL.WantReadError:
            raise TimeoutError from None
        except (SSL.Error, SSL.ZeroReturnError):
            raise ConnectionError("TLS ended") from None


@dataclass
class Recorder:
    """Every byte that any client received, for the leak detector."""

    wires: list[Wire] = field(default_factory=list)

    def take(self) -> list[bytes]:
        taken, self.wires[:] = [bytes(wire.seen) for wire in self.wires], []
        return taken


@dataclass(frozen=True)
class Client:
    """One client of one proxy.

    Attributes:
        credential: Value of Proxy-Authorization; empty: none.
        recorder: None for a client that knows a value by itself and so gets to see it.
    """

    world: World
    port: int
    ca: Path
    credential: str
    source: str
    recorder: Recorder | None

    @contextlib.contextmanager
    def plain(self) -> Iterator[Wire]:
        """A connection to the proxy itself."""
        wire = self._wire(self.world.connect("127.0.0.1", self.port, self.source))
        try:
            yield wire
        finally:
            wire.close()

    @contextlib.contextmanager
    def tunnel(
        self,
        host: str = "allowed.test",
        port: int = 443,
        *,
        sni: str | bytes | None = "",
        connect: bytes = b"",
        alpn: tuple[str, ...] = ("http/1.1",),
    ) -> Iterator[Wire]:
        """TLS inside a CONNECT; *connect* replaces the request, *sni* None sends no name.

        Raises:
            ConnectionError, ssl.SSLError: it was not opened.
        """
        with self.plain() as outside:
            answer = outside.ask(connect or self.connect_request(host, port), is_head=True)
            if answer.status != 200:
                raise ConnectionError(f"CONNECT was answered with {answer.status}")
            if isinstance(sni, bytes):
                wire = self._wire(OddTls(outside.sock, sni))
            else:
                context = ssl.create_default_context(cafile=self.ca)
                context.check_hostname = False
                context.set_alpn_protocols(list(alpn))
                name = host if sni == "" else sni
                wire = self._wire(context.wrap_socket(outside.sock, server_hostname=name))
            try:
                yield wire
            finally:
                wire.close()

    def connect_request(self, host: str | bytes, port: int | str = 443, *more: str) -> bytes:
        name = host if isinstance(host, bytes) else host.encode("utf-8")
        authority = name + f":{port}".encode()
        lines = [b"CONNECT " + authority + b" HTTP/1.1", b"Host: " + authority]
        lines += [line.encode() for line in (*self.identity, *more)]
        return b"\r\n".join([*lines, b"", b""])

    @property
    def identity(self) -> tuple[str, ...]:
        """The field line that says who asks."""
        return (f"Proxy-Authorization: {self.credential}",) if self.credential else ()

    def _wire(self, sock: object) -> Wire:
        wire = Wire(sock)  # type: ignore[arg-type]
        wire.sock.settimeout(PATIENCE_S)
        if self.recorder is not None:
            self.recorder.wires.append(wire)
        return wire


def send(wire: Wire, data: bytes, *, is_head: bool = False) -> Answer | None:
    """The answer to *data*; None if the connection was closed without a whole one.

    Raises:
        Hang: nothing came.
    """
    try:
        return wire.ask(data, is_head=is_head)
    except TimeoutError:
        raise Hang(f"no answer to {data[:60]!r}") from None
    except (ConnectionError, ssl.SSLError, OSError):
        return None


def ask(
    client: Client,
    data: bytes,
    host: str = "allowed.test",
    *,
    sni: str | bytes | None = "",
    port: int = 443,
    is_head: bool = False,
) -> Answer | None:
    """*data* through a tunnel to *host*; None if any step of it was closed."""
    try:
        with client.tunnel(host, port, sni=sni) as wire:
            return send(wire, data, is_head=is_head)
    except TimeoutError:
        raise Hang(f"no tunnel to {host}") from None
    except (ConnectionError, ssl.SSLError, OSError):
        return None


def refused(answer: Answer | None, *codes: str) -> Answer | None:
    """*answer* is a refusal, or the connection was closed. Returns it.

    *codes* hold for coatcheck alone: another proxy only has to refuse.
    """
    if answer is not None:
        assert answer.status >= 400, answer.raw[:300]
        if codes and not IS_NAIVE:
            assert answer.code in codes, answer.raw[:500]
    return answer


def accepted(answer: Answer | None) -> Answer:
    """*answer* is a success of the upstream's."""
    assert answer is not None, "closed without an answer"
    assert answer.status == 200, answer.raw[:500]
    return answer
