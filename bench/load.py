"""The client of the small requests: N connections at once for so many seconds, in own processes.

Each answer is looked at: a status of 200 and, to the byte, the body that says that the upstream got
what it was to get. An answer that is the same as one that was right is right without being read.

A slot is prepared (connections made, two requests sent on each), then run between two looks at the
proxy's CPU time; at its end each connection waits for the answer that is due.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import socket
import ssl
import sys
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from bench.common import HOST
from bench.loop import BLOCKED, READ, Loop, Stream, Task, clock, shake_hands, unblocked
from bench.upstream import PLACEHOLDER, UPSTREAM, small
from bench.wire import Body, Broken, check_status, split

PATIENCE_S = 20.0  # for what is due when a slot ends
STEPS = ("tcp", "connect", "tls", "request")  # how far a connection of a slot goes


@dataclass(frozen=True)
class Way:
    """How a client reaches the upstream.

    Attributes:
        proxy: Its address; None is the way without one.
        ca: PEM file that the client trusts.
        sends: What it sends as Authorization.
        sees: What the upstream is to get: ``value`` or ``placeholder``.
        credentials: What it sends as Proxy-Authorization, if anything.
    """

    proxy: tuple[str, int] | None
    ca: str
    sends: str = f"Bearer {PLACEHOLDER}"
    sees: str = "value"
    credentials: str = ""

    def request(self, port: int, path: str = "/v1/items?page=2", *, plain: bool = False) -> bytes:
        """A GET, as a client sends it on this way."""
        target = f"http://{HOST}:{port}{path}" if plain and self.proxy else path
        own = f"Proxy-Authorization: {self.credentials}\r\n" if plain and self.credentials else ""
        return (
            f"GET {target} HTTP/1.1\r\nHost: {HOST}:{port}\r\nAccept: */*\r\n"
            f"User-Agent: bench\r\nAuthorization: {self.sends}\r\n{own}\r\n"
        ).encode()

    def connect_head(self, port: int) -> bytes:
        own = f"Proxy-Authorization: {self.credentials}\r\n" if self.credentials else ""
        return f"CONNECT {HOST}:{port} HTTP/1.1\r\nHost: {HOST}:{port}\r\n{own}\r\n".encode()


def client_context(ca: str) -> ssl.SSLContext:
    """Verifies chain and name; not that each certificate has all that RFC 5280 asks for."""
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


@dataclass(frozen=True)
class Job:
    """What one process does in a slot.

    Attributes:
        keep: The connections are kept; else each request has a new one.
        step: One of `STEPS`.
        most: Connections, where they are not kept: what is closed keeps its port for a while.
    """

    way: Way
    port: int
    connections: int
    seconds: float
    plain: bool = False
    keep: bool = True
    step: str = "request"
    most: int = 3000


@dataclass
class Outcome:
    """What a slot showed. Latencies in seconds."""

    seconds: float = 0.0
    cpu_s: float = 0.0  # of the client
    latencies: array[float] = field(default_factory=lambda: array("d"))
    errors: Counter[str] = field(default_factory=Counter)


class Answers:
    """Tells a whole, right answer from one that goes on; raises `Broken` for any other."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.known = b""

    def complete(self, data: bytes) -> bool:
        if len(data) < len(self.known) and self.known.startswith(data):
            return False
        if (parts := split(data)) is None:
            return False
        head, rest = parts
        check_status(head)
        body = Body(head)
        if not body.framed:
            raise Broken("a body of no known length")
        got = b"".join(body.feed(rest))
        if not body.done:
            return False
        if got != self._body:
            raise Broken("wrong body")
        self.known = data
        return True


class Slot:
    """The connections of one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._request = job.way.request(job.port, plain=job.plain)
        self._answers = Answers(small(job.way.sees))
        self._context = None if job.plain else client_context(job.way.ca)
        self._loop = Loop()
        self._streams: list[Stream] = []
        self._begun = 0
        self.outcome = Outcome()

    def prepare(self) -> None:
        if not self._job.keep:
            return
        for _ in range(self._job.connections):
            self._loop.add(self._guarded(self._open()))
        self._loop.run(clock() + PATIENCE_S)
        for _ in range(self._job.connections - len(self._streams) - self._errors()):
            self.outcome.errors["connecting takes too long"] += 1

    def run(self) -> Outcome:
        out, job = self.outcome, self._job
        out.latencies = array("d")
        cpu, begun = time.process_time(), clock()
        end = begun + job.seconds
        for task in (
            [self._keep(stream, end) for stream in self._streams]
            if job.keep
            else [self._renew(end) for _ in range(job.connections)]
        ):
            self._loop.add(self._guarded(task))
        self._loop.run(end + PATIENCE_S)
        out.errors["no answer"] += self._loop.alive
        out.seconds, out.cpu_s = clock() - begun, time.process_time() - cpu
        for stream in self._streams:
            stream.close()
        self._loop.close()
        return out

    def _errors(self) -> int:
        return self.outcome.errors.total()

    def _guarded(self, task: Task[None]) -> Task[None]:
        try:
            yield from task
        except (OSError, Broken, ValueError) as error:
            self.outcome.errors[f"{type(error).__name__}: {error}"] += 1

    def _open(self) -> Task[None]:
        stream = yield from self._connect()
        try:
            for _ in range(2):
                yield from self._ask(stream)
        except BaseException:
            stream.close()
            raise
        self._streams.append(stream)

    def _connect(self) -> Task[Stream]:
        """As far as the job's step, or TLS."""
        job = self._job
        sock = unblocked(socket.socket())
        stream = Stream(sock)
        try:
            address = job.way.proxy or (UPSTREAM, job.port)
            if sock.connect_ex(address) == errno.EINPROGRESS:
                yield stream.outgoing
            _check_connected(sock)
            if self._context is None or job.step == "tcp":
                return stream
            if job.way.proxy:
                yield from stream.send(job.way.connect_head(job.port))
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += yield from _more(stream)
                check_status(head)
            if job.step == "connect":
                return stream
            return (yield from shake_hands(sock, self._context, HOST))
        except BaseException:
            sock.close()
            raise

    def _ask(self, stream: Stream) -> Task[None]:
        """One request, and its answer."""
        stream.write(self._request)
        data = b""
        while True:
            data += yield from _more(stream)
            if data == self._answers.known or self._answers.complete(data):
                return

    def _keep(self, stream: Stream, end: float) -> Task[None]:
        """`_ask` again and again, written out: this is what limits the load."""
        request, answers, note = self._request, self._answers, self.outcome.latencies.append
        read, write, incoming = stream.read, stream.write, stream.incoming
        begun = clock()
        while begun < end:
            write(request)
            data = b""
            while True:
                yield incoming
                try:
                    piece = read(READ)
                except BLOCKED:
                    continue
                if not piece:
                    raise Broken("closed")
                data = data + piece if data else piece
                if data == answers.known or answers.complete(data):
                    break
            now = clock()
            note(now - begun)
            begun = now

    def _renew(self, end: float) -> Task[None]:
        """A new connection for each request, until the end or the job's limit."""
        while clock() < end and self._begun < self._job.most:
            self._begun += 1
            begun = clock()
            stream = yield from self._connect()
            try:
                if self._job.step == "request":
                    yield from self._ask(stream)
            finally:
                stream.close()
            self.outcome.latencies.append(clock() - begun)


def _check_connected(sock: socket.socket) -> None:
    if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(code, os.strerror(code))


def _more(stream: Stream) -> Task[bytes]:
    if not (data := (yield from stream.receive())):
        raise Broken("closed")
    return data


class Clients:
    """The processes of the load. The connections of a job are shared out among them."""

    def __init__(self, processes: int) -> None:
        fork = multiprocessing.get_context("fork")
        self._pipes: list[Connection] = []
        self._processes: list[multiprocessing.process.BaseProcess] = []
        for _ in range(processes):
            mine, theirs = fork.Pipe()
            process = fork.Process(target=_work, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(mine)
            self._processes.append(process)

    def prepare(self, job: Job) -> int:
        """Returns how many processes have a part in it; call `run` with that."""
        count = min(len(self._pipes), job.connections)
        for number, pipe in enumerate(self._pipes[:count]):
            share = job.connections // count + (number < job.connections % count)
            values = {**job.__dict__, "connections": share, "most": job.most // count}
            pipe.send(Job(**values))
        for pipe in self._pipes[:count]:
            pipe.recv()
        return count

    def run(self, count: int) -> Outcome:
        for pipe in self._pipes[:count]:
            pipe.send("go")
        together = Outcome()
        for pipe in self._pipes[:count]:
            one: Outcome = pipe.recv()
            together.seconds = max(together.seconds, one.seconds)
            together.cpu_s += one.cpu_s
            together.latencies.extend(one.latencies)
            together.errors.update(one.errors)
        return together

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


def _work(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = os.getppid()
    while True:
        while not pipe.poll(1.0):
            if os.getppid() != parent:
                sys.exit()
        slot = Slot(pipe.recv())
        slot.prepare()
        pipe.send("ready")
        pipe.recv()
        pipe.send(slot.run())
