"""An upstream proxy for tests: opens tunnels on CONNECT, or does otherwise as it is told."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

type Connect = Callable[[str, int], socket.socket]


def _direct(host: str, port: int) -> socket.socket:
    return socket.create_connection((host, port), timeout=5)


@dataclass
class Parent:
    """One that listens on *listener*; a thread for each connection.

    Attributes:
        connect: How it gets to a destination.
        answer: To each CONNECT; None: it opens the tunnel.
        asked: The heads of the CONNECTs, in order.
        passed: All bytes that went through a tunnel, both ways.
    """

    listener: socket.socket
    connect: Connect = _direct
    context: ssl.SSLContext | None = None
    answer: bytes | None = None
    established: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n"
    asked: list[str] = field(default_factory=list)
    passed: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    @property
    def targets(self) -> list[str]:
        return [head.split(" ")[1] for head in self.asked]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(10)
        with contextlib.suppress(OSError), contextlib.ExitStack() as open_:
            open_.enter_context(client)
            if self.context is not None:
                client = open_.enter_context(self.context.wrap_socket(client, server_side=True))
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                if not (byte := client.recv(1)):
                    return
                head += byte
            self.asked.append(head.decode())
            if self.answer is not None:
                client.sendall(self.answer)
                client.recv(1)
                return
            host, _, port = self.asked[-1].split(" ")[1].rpartition(":")
            server = open_.enter_context(self.connect(host.strip("[]"), int(port)))
            client.sendall(self.established)
            back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            back.start()
            self._pump(client, server)
            back.join(10)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.passed += data
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
