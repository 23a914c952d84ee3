"""The client of what is large or lasts: downloads, uploads, streams of events, idle tunnels.

One connection at a time, so plain sockets that block will do.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.common import HOST
from bench.load import Answers, Way, client_context
from bench.upstream import BLOCKS, MIB, TYPES, UPSTREAM, event, small
from bench.wire import Body, Broken, Same, check_status, split

PATIENCE_S = 120.0
RECEIVE = 1 << 16


@contextmanager
def connected(way: Way, port: int) -> Iterator[ssl.SSLSocket]:
    sock = connect(way, port)
    try:
        yield sock
    finally:
        sock.close()


def connect(way: Way, port: int) -> ssl.SSLSocket:
    """TLS with the upstream's *port*, through a CONNECT where there is a proxy."""
    sock = socket.create_connection(way.proxy or (UPSTREAM, port), timeout=PATIENCE_S)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if way.proxy:
            sock.sendall(way.connect_head(port))
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += _more(sock, 1)  # to the byte: what follows is TLS
            check_status(head)
        return client_context(way.ca).wrap_socket(sock, server_hostname=HOST)
    except BaseException:
        sock.close()
        raise


def ask(sock: ssl.SSLSocket, way: Way, port: int) -> None:
    """A small request, and its answer.

    Raises:
        Broken: the answer is not the one that is due.
    """
    answers = Answers(small(way.sees))
    sock.sendall(way.request(port))
    data = b""
    while not answers.complete(data):
        data += _more(sock)


def echoed(way: Way, port: int) -> bytes:
    """What comes back of an Authorization that the upstream sends back."""
    with connected(way, port) as sock:
        return b"".join(_answer(sock, way.request(port, "/echo")))


def download(way: Way, port: int, kind: str, mib: int) -> float:
    """Seconds from the request to the last byte.

    Raises:
        Broken: the body is not that of the upstream.
    """
    same = Same(BLOCKS[kind], mib * MIB)
    with connected(way, port) as sock:
        begun = time.monotonic()
        for piece in _answer(sock, way.request(port, f"/down/{kind}/{mib}")):
            same.feed(piece)
        seconds = time.monotonic() - begun
    if not same.right:
        raise Broken("wrong body")
    return seconds


def upload(way: Way, port: int, kind: str, mib: int) -> float:
    """Seconds from the request to the answer.

    Raises:
        Broken: the upstream did not get the body.
    """
    fields = b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n" % (TYPES[kind], mib * MIB)
    with connected(way, port) as sock:
        begun = time.monotonic()
        line = f"POST /up/{kind}/{mib} HTTP/1.1\r\nHost: {HOST}:{port}\r\n".encode()
        sock.sendall(line + fields)
        for _ in range(mib):
            sock.sendall(BLOCKS[kind])
        if b"".join(_answer(sock, b"")) != b'{"right": true}':
            raise Broken("the upstream got another body")
        return time.monotonic() - begun


def events(
    sock: ssl.SSLSocket, way: Way, port: int, count: int, pause_ms: int
) -> tuple[float, float]:
    """Seconds to the first event, and to the end.

    Raises:
        Broken: they are not those of the upstream.
    """
    first, pieces = 0.0, []
    begun = time.monotonic()
    for piece in _answer(sock, way.request(port, f"/events/{count}/{pause_ms}")):
        pieces.append(piece)
        if not first and b"\n\n" in b"".join(pieces):
            first = time.monotonic() - begun
    seconds = time.monotonic() - begun
    if b"".join(pieces) != b"".join(event(number) for number in range(count)):
        raise Broken("wrong events")
    return first, seconds


def _answer(sock: ssl.SSLSocket, request: bytes) -> Iterator[bytes]:
    """Pieces of the body that answers *request*."""
    sock.sendall(request)
    data = b""
    while (parts := split(data)) is None:
        data += _more(sock)
    head, rest = parts
    check_status(head)
    body = Body(head)
    yield from body.feed(rest)
    while body.framed and not body.done:
        yield from body.feed(_more(sock))
    if not body.framed:  # until the end of the connection
        while data := sock.recv(RECEIVE):
            yield data


def _more(sock: socket.socket, count: int = RECEIVE) -> bytes:
    if not (data := sock.recv(count)):
        raise Broken("closed")
    return data
