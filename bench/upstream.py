"""The upstream of every measurement: one API, on three ports, in as many processes as asked for.

    GET /v1/items          a small answer, which says what came as Authorization
    GET /echo              that Authorization itself
    GET /down/KIND/MIB     so many MiB of text or of random bytes
    POST /up/KIND/MIB      takes them, and says whether they are right
    GET /events/N/PAUSE    N server-sent events; PAUSE ms between the first and the second

`Ports.tls` is where coatcheck's secrets are allowed; `Ports.other`, with TLS too, is where none is,
so nothing is searched there; `Ports.plain` has no TLS. A request that a process has seen before is
answered without reading it again: only what is different may be wrong.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import random
import select
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.common import VALUE
from bench.loop import Loop, Stream, Task, shake_hands, unblocked
from bench.wire import Body, Broken, Same, split

PLACEHOLDER = "{{secrets.bench.key}}"
MIB = 1 << 20
KEPT = 1000  # requests that are known
BACKLOG = 1024
UPSTREAM = "127.0.0.1"  # where it listens

ROW = {"id": 1, "name": "Ada Lovelace", "note": "50% of 12 \\ 7 = 0x2a", "tags": ["a", "b"]}
TEXT = (json.dumps(ROW, indent=1).encode() + b",\n") * 20000
BLOCKS = {"text": TEXT[:MIB], "random": random.Random(1).randbytes(MIB)}  # both ends make the same
TYPES = {"text": b"application/json", "random": b"application/octet-stream"}


@dataclass(frozen=True)
class Ports:
    tls: int
    other: int
    plain: int


class Upstream:
    """The processes. They share the listening sockets, and the keys of TLS tickets."""

    def __init__(self, leaf: Path, ports: tuple[int, int, int], processes: int) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(leaf)
        listeners = [socket.create_server((UPSTREAM, p), backlog=BACKLOG) for p in ports]
        self.ports = Ports(*(listener.getsockname()[1] for listener in listeners))
        fork = multiprocessing.get_context("fork")
        arguments = (listeners, (context, context, None))
        self._processes = [
            fork.Process(target=_serve, args=arguments, daemon=True) for _ in range(processes)
        ]
        for process in self._processes:
            process.start()
        for listener in listeners:
            listener.close()

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes if process.pid is not None]

    def check(self) -> None:
        """Raise SystemExit where a process has ended: it said why on stderr."""
        if not all(process.is_alive() for process in self._processes):
            raise SystemExit("the upstream has crashed")

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


def small(seen: str) -> bytes:
    """The body of a small answer: *seen* is ``value``, ``placeholder`` or ``other``."""
    return json.dumps({"seen": seen, "items": [1, 2, 3], "text": "nothing to see here"}).encode()


def event(number: int) -> bytes:
    """As a language model's API sends them."""
    return _event(number % 97)


@functools.cache
def _event(word: int) -> bytes:
    delta = {"index": 0, "delta": {"content": f" word{word}"}, "finish_reason": None}
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [delta]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def _serve(listeners: list[socket.socket], contexts: tuple[ssl.SSLContext | None, ...]) -> None:
    os.setpgid(0, 0)  # an interrupt is for the parent, which then ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    loop = Loop()
    loop.add(_end_with(os.getppid()))
    known: dict[bytes, bytes] = {}
    for listener, context in zip(listeners, contexts, strict=True):
        listener.setblocking(False)
        loop.add(accept(loop, listener, context, known))
    loop.run()


def _end_with(parent: int) -> Task[None]:
    while os.getppid() == parent:
        yield 1.0
    sys.exit()


def accept(
    loop: Loop, listener: socket.socket, context: ssl.SSLContext | None, known: dict[bytes, bytes]
) -> Task[None]:
    """Serves what comes to *listener*; *known* are the requests that were answered before."""
    wait = (listener.fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE)
    while True:
        yield wait
        try:
            sock, _ = listener.accept()
        except BlockingIOError:  # another process was faster
            continue
        loop.add(_connection(unblocked(sock), context, known))


def _connection(
    sock: socket.socket, context: ssl.SSLContext | None, known: dict[bytes, bytes]
) -> Task[None]:
    try:
        stream = Stream(sock) if context is None else (yield from shake_hands(sock, context, None))
        try:
            yield from _requests(stream, known)
        finally:
            stream.close()
    except (OSError, Broken):  # the client's affair, who counts it
        sock.close()


def _requests(stream: Stream, known: dict[bytes, bytes]) -> Task[None]:
    data = b""
    while piece := (yield from stream.receive()):
        data += piece
        answer = known.get(data)
        if answer is not None:
            yield from stream.send(answer)
            data = b""
            continue
        if (parts := split(data)) is None:
            continue
        head, rest = parts
        path = head.split(b" ", 2)[1].decode()
        route, *words = path.removeprefix("http://").partition("/")[2].split("/")
        if answer := _short_answer(head, route):
            if route == "v1" and len(known) < KEPT:
                known[data] = answer
            yield from stream.send(answer)
        else:
            yield from ROUTES[route](stream, head, rest, *words)
        data = b""


def _short_answer(head: bytes, route: str) -> bytes | None:
    if route not in ("v1", "echo"):
        return None
    came = [
        line.partition(b":")[2].strip()
        for line in head.split(b"\r\n")[1:]
        if line.lower().startswith(b"authorization:")
    ]
    if route == "echo":
        return _answer(b"; ".join(came))
    names = {f"Bearer {VALUE}".encode(): "value", f"Bearer {PLACEHOLDER}".encode(): "placeholder"}
    return _answer(small(names.get(came[0], "other") if len(came) == 1 else "other"))


def _answer(body: bytes) -> bytes:
    kind = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    return kind + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def _down(stream: Stream, _: bytes, __: bytes, kind: str, mib: str) -> Task[None]:
    fields = b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n" % (TYPES[kind], int(mib) * MIB)
    yield from stream.send(b"HTTP/1.1 200 OK\r\n" + fields)
    for _number in range(int(mib)):
        yield from stream.send(BLOCKS[kind])


def _up(stream: Stream, head: bytes, rest: bytes, kind: str, mib: str) -> Task[None]:
    body, same = Body(head), Same(BLOCKS[kind], int(mib) * MIB)
    while True:
        for piece in body.feed(rest):
            same.feed(piece)
        if body.done:
            break
        if not (rest := (yield from stream.receive())):
            raise Broken("a body that was cut off")
    yield from stream.send(_answer(json.dumps({"right": same.right}).encode()))


def _events(stream: Stream, _: bytes, __: bytes, count: str, pause_ms: str) -> Task[None]:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked"
    yield from stream.send(head + b"\r\n\r\n")
    for number in range(int(count)):
        if number == 1:
            yield int(pause_ms) / 1000
        yield from stream.send(b"%x\r\n%b\r\n" % (len(event(number)), event(number)))
    yield from stream.send(b"0\r\n\r\n")


ROUTES: dict[str, Callable[..., Task[None]]] = {"down": _down, "up": _up, "events": _events}
