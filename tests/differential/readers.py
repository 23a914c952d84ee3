"""Three parsers that are not ours, each told: these are the bytes of one connection.

Node and nginx listen on sockets in a folder of their own, run as whoever runs the tests, and see
one connection at a time, so that what they report can be told apart. Nginx shows what it parsed by
passing it on to a recorder, in a writing of its own (Content-Length, no chunks).
"""

from __future__ import annotations

import contextlib
import json
import queue
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h11

from tests.differential.lanes import Read, framed_once, plain_fields

PATIENCE_S = 20.0  # for a busy machine; nothing waits that long unless it is broken
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Reading:
    """What a reader made of one connection.

    Attributes:
        requests: Those that were complete.
        refused: It did not like, or did not get to the end of, what came after them.
    """

    requests: list[Read]
    refused: bool


class Reader(Protocol):
    name: str

    def read(self, data: bytes) -> Reading: ...

    def close(self) -> None: ...


class Missing(Exception):
    """The program is not installed."""


class H11:
    name = "h11"

    def __init__(self, *, trailers: bool = False) -> None:
        self._trailers = trailers  # they may come: from a client, not from us

    def read(self, data: bytes) -> Reading:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        connection.receive_data(data)
        connection.receive_data(b"")
        requests: list[Read] = []
        try:
            while isinstance(head := connection.next_event(), h11.Request):
                body = b""
                while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                    assert isinstance(event, h11.Data)
                    body += event.data
                assert self._trailers or list(event.headers) == []
                fields = tuple(head.headers.raw_items())
                assert framed_once(fields)
                requests.append(Read(head.method, head.target, plain_fields(fields), body))
                connection.send(h11.Response(status_code=204, headers=[]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is h11.MUST_CLOSE:  # it was to be the last
                    return Reading(requests, refused=False)
                connection.start_next_cycle()
        except h11.RemoteProtocolError:
            return Reading(requests, refused=True)
        return Reading(requests, refused=False)

    def close(self) -> None:
        pass


class Node:
    """llhttp, as node's http server uses it."""

    name = "node"

    def __init__(self) -> None:
        found = program("node")
        self._folder = tempfile.TemporaryDirectory(prefix="coatcheck-node-")
        self._path = f"{self._folder.name}/s"
        self._program = Lines([found, str(HERE / "server.js"), self._path])
        assert self._program.next() == "listening"

    def read(self, data: bytes) -> Reading:
        exchange_bytes(self._path, data)
        seen: dict[str, Any] = json.loads(self._program.next())
        return Reading([self._request(one) for one in seen["requests"]], bool(seen["error"]))

    @staticmethod
    def _request(seen: dict[str, Any]) -> Read:
        assert seen["trailers"] == []
        fields = paired(seen["fields"])
        assert framed_once(fields)
        method, target, body = (seen[key].encode("latin-1") for key in ("method", "url", "body"))
        return Read(method, target, plain_fields(fields), body)

    def close(self) -> None:
        self._program.close()
        self._folder.cleanup()


class Nginx:
    name = "nginx"

    def __init__(self) -> None:
        found = program("nginx", "/usr/sbin", "/usr/local/sbin")
        self._folder = tempfile.TemporaryDirectory(prefix="coatcheck-nginx-")
        folder = Path(self._folder.name)
        self._path = str(folder / "s")
        self._recorder = Recorder(str(folder / "r"))
        conf = (HERE / "nginx.conf").read_text().replace("FOLDER", str(folder))
        (folder / "nginx.conf").write_text(conf)
        self._process = subprocess.Popen(
            [found, "-p", folder, "-e", folder / "error.log", "-c", folder / "nginx.conf"],
            stdin=subprocess.DEVNULL,
        )
        self._await_start()

    def _await_start(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), connected(self._path):
                return
            time.sleep(0.02)
        log = Path(self._folder.name, "error.log").read_text()
        self.close()
        raise AssertionError(f"nginx did not start: {log}")

    def read(self, data: bytes) -> Reading:
        self._recorder.take()
        answers = exchange_bytes(self._path, data)
        requests = self._recorder.take()
        statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", answers)]
        return Reading(requests, statuses != [204] * len(requests))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        self._recorder.close()
        self._folder.cleanup()


class Recorder:
    """Where nginx passes requests on to. It reads nginx's own writing and no other."""

    def __init__(self, path: str) -> None:
        self._requests: list[Read] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:  # it is closed
                return
            with accepted, contextlib.suppress(OSError):
                accepted.settimeout(PATIENCE_S)
                self._one(accepted)

    def _one(self, connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data and (more := connection.recv(65536)):
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        fields = tuple((name, value) for name, _, value in (one.partition(b":") for one in lines))
        length = sum(int(value) for name, value in fields if name == b"Content-Length")
        while len(body) < length and (more := connection.recv(65536)):
            body += more
        method, target, _ = line.split(b" ")
        self._requests.append(Read(method, target, plain_fields(fields), body))
        connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    def take(self) -> list[Read]:
        """What came since the last call."""
        taken, self._requests = self._requests, []
        return taken

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE_S)


READERS: dict[str, Callable[[], Reader]] = {"h11": H11, "node": Node, "nginx": Nginx}


class Lines:
    """A program that prints a line at a time."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def next(self) -> str:
        return self._lines.get(timeout=PATIENCE_S)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        self._thread.join(PATIENCE_S)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def program(name: str, *folders: str) -> str:
    """Its path. Debian's nginx lies where an ordinary user's PATH does not lead.

    Raises:
        Missing: it is not installed.
    """
    found = shutil.which(name) or shutil.which(name, path=":".join(folders) or None)
    if found is None:
        raise Missing(f"{name} is not installed")
    return found


def connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE_S)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def exchange_bytes(path: str, data: bytes) -> bytes:
    """Send *data*, say that it was all, and read to the end."""
    got = b""
    with connected(path) as connection:
        # Who refuses may close before everything is sent.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while more := connection.recv(65536):
                got += more
    return got


def paired(flat: list[str]) -> tuple[tuple[bytes, bytes], ...]:
    """Node's list of names and values in turn, as pairs."""
    raw = [text.encode("latin-1") for text in flat]
    return tuple(zip(raw[::2], raw[1::2], strict=True))
