"""``python -m bench.relay PORT LEAF CA``: TLS taken off and put on again, and nothing else.

The floor under what coatcheck can cost for a large body: the same calls of Python's `ssl` as its
engine makes, 256 KiB at a time, and nobody who reads, checks, searches or writes down anything.

LEAF is a PEM file with the certificate that clients are shown and its key; CA is trusted for
upstreams. A thread for each connection: the bench has one at a time.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import sys
import threading

BUFFER = 256 * 1024  # bytes, as in coatcheck.engine.channel
RECORD = 16 * 1024
WAIT_S = 120


class Side:
    """One of the two connections, with TLS in memory."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, host: str | None) -> None:
        """*host*: of the upstream; None for the client."""
        self.sock = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, host is None, host)
        self._buffer = bytearray(BUFFER + 2 * RECORD)
        self._view = memoryview(self._buffer)
        self._shake()

    def read(self) -> memoryview | None:
        """What has come, which can be nothing; None at the end. It is gone with the next call."""
        size = self.sock.recv_into(self._buffer, BUFFER)
        self._in.write(self._view[:size])
        return self.rest() if size else None

    def rest(self) -> memoryview | None:
        """As `read`, of what is here already."""
        size = 0
        with contextlib.suppress(ssl.SSLWantReadError):
            while self._in.pending:
                read = self._tls.read(RECORD, self._view[size:])
                if not read:
                    return None
                size += read  # type: ignore[operator]  # with a buffer it is a number
        return self._view[:size]

    def write(self, data: memoryview) -> None:
        while data:
            data = data[self._tls.write(data) :]
        if self._out.pending:
            self.sock.sendall(self._out.read())

    def _shake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.sock.sendall(self._out.read())
                self._in.write(self.sock.recv(BUFFER))
            else:
                self.sock.sendall(self._out.read())
                return


def serve(port: int, leaf: str, ca: str) -> None:
    towards_clients = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    towards_clients.load_cert_chain(leaf)
    towards_upstreams = ssl.create_default_context(cafile=ca)
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            client, _ = listener.accept()
            work = (client, towards_clients, towards_upstreams)
            threading.Thread(target=relay, args=work, daemon=True).start()


def relay(client: socket.socket, mine: ssl.SSLContext, theirs: ssl.SSLContext) -> None:
    """One tunnel, to its end."""
    with client, contextlib.suppress(OSError):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            if not (more := client.recv(1)):  # what follows is TLS
                return
            head += more
        host, _, port = head.split(b" ")[1].decode().partition(":")
        with socket.create_connection((host, int(port)), WAIT_S) as upstream:
            for sock in (client, upstream):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            pump(Side(upstream, theirs, host), Side(client, mine, None))


def pump(upstream: Side, client: Side) -> None:
    with selectors.DefaultSelector() as selector:
        for one, other in ((upstream, client), (client, upstream)):
            if (early := one.rest()) is None:  # what came with the end of the handshake
                return
            other.write(early)
            selector.register(one.sock, selectors.EVENT_READ, (one, other))
        while True:
            for key, _ in selector.select(WAIT_S):
                one, other = key.data
                if (data := one.read()) is None:
                    return
                if data:
                    other.write(data)


if __name__ == "__main__":
    serve(int(sys.argv[1]), *sys.argv[2:4])
