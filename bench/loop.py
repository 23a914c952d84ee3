"""A loop of generators over epoll, which both ends of the load run on.

What the ends cost is missing from the proxies that share the cores with them: with asyncio's
streams that was more than coatcheck itself takes. Here a request costs either end some 30 us, most
of it the kernel's. No load tool of Debian does CONNECT with a CA of ours and looks at each answer.
"""

from __future__ import annotations

import contextlib
import heapq
import select
import socket
import ssl
import time
from collections.abc import Callable, Generator

# A task yields the file and the events that it waits for, or for how many seconds it sleeps. The
# same pair as before costs nothing: a connection keeps one for each direction.
type Wait = tuple[int, int] | float
type Task[R] = Generator[Wait, None, R]

READ = 16_384  # bytes; a TLS record at most, so that none is left over in OpenSSL's buffer
BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

clock = time.monotonic  # one clock for all processes of the machine


class Loop:
    """Runs tasks until they end. A task closes what it has opened."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._tasks: dict[int, Task[None]] = {}  # by the file that it waits for
        self._waits: dict[int, Wait] = {}  # what epoll was told last
        self._sleeping: list[tuple[float, int, Task[None]]] = []
        self._count = 0
        self.alive = 0

    def add(self, task: Task[None]) -> None:
        self.alive += 1
        self._step(task)

    def run(self, until: float | None = None) -> None:
        """Until every task has ended, or until this moment of `clock`."""
        tasks, waits = self._tasks, self._waits
        while self.alive and (until is None or clock() < until):
            for fd, _ in self._epoll.poll(self._timeout(until)):
                task = tasks.get(fd)
                if task is None:
                    self._epoll.unregister(fd)
                    del waits[fd]
                    continue
                try:
                    wait = next(task)
                except StopIteration:
                    self._end(task, fd)
                    continue
                if wait is not waits[fd]:
                    self._wait(task, wait, fd)
            while self._sleeping and self._sleeping[0][0] <= clock():
                self._step(heapq.heappop(self._sleeping)[2])

    def close(self) -> None:
        self._epoll.close()

    def _timeout(self, until: float | None) -> float | None:
        moments = [] if until is None else [until]
        if self._sleeping:
            moments.append(self._sleeping[0][0])
        return max(0.0, min(moments) - clock()) if moments else None

    def _step(self, task: Task[None]) -> None:
        try:
            wait = next(task)
        except StopIteration:
            self._end(task, None)
            return
        self._wait(task, wait, None)

    def _wait(self, task: Task[None], wait: Wait, before: int | None) -> None:
        """*before* is the file that the task waited for until now."""
        if not isinstance(wait, tuple):
            self._forget(task, before)
            self._count += 1
            heapq.heappush(self._sleeping, (clock() + wait, self._count, task))
            return
        fd, events = wait
        if fd != before:
            self._forget(task, before)
        self._tasks[fd] = task
        if self._waits.get(fd) is wait:
            return
        self._tell(fd, events)
        self._waits[fd] = wait

    def _tell(self, fd: int, events: int) -> None:
        if fd in self._waits:
            with contextlib.suppress(
                FileNotFoundError
            ):  # that one was closed: its number is reused
                self._epoll.modify(fd, events)
                return
        self._epoll.register(fd, events)

    def _end(self, task: Task[None], before: int | None) -> None:
        self.alive -= 1
        self._forget(task, before)

    def _forget(self, task: Task[None], fd: int | None) -> None:
        if fd is not None and self._tasks.get(fd) is task:
            del self._tasks[fd]


class Stream:
    """A connection that does not block, TLS or not. `read` and `write` raise one of `BLOCKED`."""

    __slots__ = ("incoming", "outgoing", "read", "sock", "write")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.read: Callable[[int], bytes] = sock.recv
        self.write: Callable[[bytes | memoryview], int] = sock.send
        self.incoming: Wait = (sock.fileno(), select.EPOLLIN)
        self.outgoing: Wait = (sock.fileno(), select.EPOLLOUT)

    def receive(self) -> Task[bytes]:
        """The next bytes; none at the end."""
        while True:
            try:
                return self.read(READ)
            except BLOCKED:
                yield self.incoming

    def send(self, data: bytes) -> Task[None]:
        view = memoryview(data)
        while view:
            try:
                view = view[self.write(view) :]
            except BLOCKED:
                yield self.outgoing

    def close(self) -> None:
        self.sock.close()


def shake_hands(sock: socket.socket, context: ssl.SSLContext, name: str | None) -> Task[Stream]:
    """*sock* with TLS: a client's, of the host *name*, or a server's."""
    tls = context.wrap_socket(
        sock,
        server_side=name is None,
        server_hostname=name,
        do_handshake_on_connect=False,
    )
    stream = Stream(tls)
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            yield stream.incoming
        except ssl.SSLWantWriteError:
            yield stream.outgoing
        except BaseException:
            tls.close()
            raise
        else:
            return stream


def unblocked(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
