"""A collector of traces for tests: keeps what it is sent, reads it, can fail and hang."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class Collector:
    """On loopback, or on *listener*. *status*: what it answers; 0: nothing, until it is closed."""

    status: int = 200
    location: str = ""
    listener: socket.socket | None = None
    heads: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._released = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector._take(self)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = self.listener or socket.create_server(("127.0.0.1", 0))
        self._server.server_address = self._server.socket.getsockname()
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1/traces"

    def close(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def spans(self) -> list[Any]:
        return [
            span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def everything(self) -> bytes:
        """All bytes that came, but for those of HTTP itself."""
        heads = [f"{name}: {value}" for head in self.heads for name, value in head.items()]
        return b"\n".join([*self.bodies, *(line.encode() for line in [*heads, *self.paths])])

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        self.heads.append(dict(handler.headers.items()))
        self.paths.append(handler.path)
        self.bodies.append(handler.rfile.read(int(handler.headers["Content-Length"])))
        if self.status == 0:
            self._released.wait(20)
            return
        handler.send_response(self.status)
        if self.location:
            handler.send_header("Location", self.location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()


def attributes(span: Any) -> dict[str, object]:
    """Those of *span*, as Python has them."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def until(true: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)
