"""Takes connections from a listening socket, a bounded number in each turn of the event loop.

asyncio's server would start a task for each, to hand out a transport that nobody here needs.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from coatcheck.listening import BACKLOG

ACCEPTED_AT_ONCE = 64  # in one turn of the loop: those that are there have theirs too
STEP_BACK_S = 0.001  # what the event loop waits at least
RETRY_S = 1.0  # after a turn in which there were no files, or no memory, left

_OUT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

type Accepted = Callable[[socket.socket, str], None]
type Log = Callable[..., None]


class Acceptor:
    """One listening socket.

    Args:
        sock: Bound, and ours from now on.
        accepted: Takes a connected socket that does not block, and the address at its other end.
        at_once: Connections taken in one turn of the loop, at most.
        is_ahead: Whether another process that takes from this socket has less to do. Then it has
            `STEP_BACK_S` to take what has come.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        accepted: Accepted,
        log: Log,
        at_once: int = ACCEPTED_AT_ONCE,
        is_ahead: Callable[[], bool] | None = None,
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._accepted = accepted
        self._log = log
        self._at_once = at_once
        self._is_ahead = is_ahead
        self._retry: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        sock.listen(BACKLOG)
        self._wait()

    def close(self) -> None:
        """Take no more; those that wait in the kernel are turned away by it."""
        if self._retry is not None:
            self._retry.cancel()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()

    def _wait(self) -> None:
        self._retry = None
        self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        if self._is_ahead is not None and self._is_ahead():
            self._pause(STEP_BACK_S, self._accept_now)
        else:
            self._take()

    def _accept_now(self) -> None:
        """Nobody else was faster, or there are more than the others take."""
        self._wait()
        self._take()

    def _pause(self, seconds: float, then: Callable[[], None]) -> None:
        self._loop.remove_reader(self._sock)
        self._retry = self._loop.call_later(seconds, then)

    def _take(self) -> None:
        for _ in range(self._at_once):
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _OUT_OF:
                    # It stays readable, and would keep the loop spinning.
                    self._log("serve.accept_failed", error=errno.errorcode[error.errno])
                    self._pause(RETRY_S, self._wait)
                    return
                continue  # that client has left already
            sock.setblocking(False)
            self._accepted(sock, peer[0].partition("%")[0])
