"""Drives a `Lane` without a socket: bytes in, bytes out, and every connection it asks for.

Outside lanes speak plain HTTP, so a request is two lines; a lane inside a tunnel is built with
its `Tunnel`, as the lane itself does after a CONNECT.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from mitmproxy import options
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.proxy import commands, context, events, mode_specs

from coatcheck import policyfile
from coatcheck.core.destination import parse_domain_pattern
from coatcheck.core.limits import Limits
from coatcheck.core.ports import AuditError
from coatcheck.core.snapshot import Snapshot
from coatcheck.engine.lane import Lane, Services, Silence, Tunnel
from coatcheck.gateway import Gateway
from coatcheck.store.memory import MemoryStore

OPTIONS = options.Options()  # the lane reads none of them, and they take a millisecond
VALUE = b"sk_live_0123456789abcdef"
POLICY = """
version: 1
clients:
  local: {networks: ["127.0.0.1/32"]}
grants:
  - {secrets: ["*"], clients: [local], plaintext: true}
"""


class Book:
    """An audit log that keeps its records, and can be told to fail."""

    def __init__(self) -> None:
        self.records: list[Mapping[str, object]] = []
        self.broken = False

    def write(self, record: Mapping[str, object]) -> None:
        if self.broken:
            raise AuditError("no room", hint="make some")
        self.records.append(dict(record))


def a_gateway(
    policy: str = POLICY,
    *,
    limits: Limits | None = None,
    secrets: Mapping[str, bytes] | None = None,
) -> Gateway:
    """A gateway over an in-memory store; each secret may go to api.example.com by both schemes."""
    store = MemoryStore()
    domains = [
        parse_domain_pattern("api.example.com"),
        parse_domain_pattern("api.example.com:80"),
    ]
    for name, value in (secrets or {"key": VALUE}).items():
        store.put(name, value, domains=domains, description="", now=1.0)
    return Gateway(
        Snapshot(policyfile.parse(policy, "policy.yaml"), store.view()),
        Book(),
        limits or Limits(),
        now=time.time,
        new_id=map("request-{}".format, itertools.count(1)).__next__,
    )


@dataclass
class Upstream:
    server: Server
    received: bytes = b""
    closed: bool = False


@dataclass
class Wire:
    """One client connection. ``refuse_dial`` is the error that the next dial ends with."""

    gateway: Gateway = field(default_factory=a_gateway)
    tunnel: Tunnel | None = None
    refuse_dial: str | None = None
    sni: str | None = None

    def __post_init__(self) -> None:
        client = Client(
            peername=("127.0.0.1", 50000),
            sockname=("127.0.0.1", 8080),
            timestamp_start=0.0,
            proxy_mode=mode_specs.ProxyMode.parse("regular"),
            state=ConnectionState.OPEN,
        )
        client.sni = self.sni
        self.client = client
        self.events: list[str] = []
        self.out = b""
        self.upstreams: list[Upstream] = []
        self.wakeups: list[commands.RequestWakeup] = []
        services = Services(self.gateway, self._log)
        ctx = context.Context(client, OPTIONS)
        self.lane = Lane(ctx, services, self.tunnel)
        self._run(events.Start())

    @property
    def closed(self) -> bool:
        return self.client.state is ConnectionState.CLOSED

    @property
    def upstream(self) -> Upstream:
        """The last upstream connection that was opened."""
        return self.upstreams[-1]

    @property
    def audit(self) -> list[Mapping[str, object]]:
        log = self.gateway.log
        return log.records if isinstance(log, Book) else []

    def send(self, data: bytes) -> bytes:
        """*data* from the client; returns what the client has got since the last call."""
        self._run(events.DataReceived(self.client, data))
        return self.take()

    def answer(self, data: bytes, *, of: Upstream | None = None) -> bytes:
        """*data* from the last upstream, or from *of*; returns what the client has got since."""
        self._run(events.DataReceived((of or self.upstream).server, data))
        return self.take()

    def take(self) -> bytes:
        got, self.out = self.out, b""
        return got

    def received(self) -> bytes:
        """What the upstream has got since the last call."""
        got, self.upstream.received = self.upstream.received, b""
        return got

    def hang_up(self, *, of: Upstream | None = None) -> bytes:
        """The last upstream closes, or *of*."""
        server = (of or self.upstream).server
        server.state = ConnectionState.CLOSED
        self._run(events.ConnectionClosed(server))
        return self.take()

    def leave(self) -> None:
        """The client closes."""
        self.client.state = ConnectionState.CLOSED
        self._run(events.ConnectionClosed(self.client))

    def silence(self) -> bytes:
        self._run(Silence())
        return self.take()

    def wake(self) -> None:
        self._run(events.Wakeup(self.wakeups.pop(0)))

    def _run(self, event: events.Event) -> None:
        waiting = [event]
        while waiting:
            try:
                for command in self.lane.handle_event(waiting.pop(0)):
                    waiting.extend(self._obey(command))
            except Exception:  # the handler closes a connection whose lane has crashed
                self.client.state = ConnectionState.CLOSED
                self.events.append("engine.crash")

    def _obey(self, command: commands.Command) -> list[events.Event]:
        if isinstance(command, commands.OpenConnection):
            return [events.OpenConnectionCompleted(command, self._dial(command))]
        if isinstance(command, commands.RequestWakeup):
            self.wakeups.append(command)
        elif isinstance(command, commands.SendData):
            if command.connection is self.client:
                self.out += command.data
            else:
                self._find(command.connection).received += command.data
        elif isinstance(command, commands.CloseConnection):
            command.connection.state = ConnectionState.CLOSED
            if command.connection is not self.client:
                self._find(command.connection).closed = True
        return []

    def _dial(self, command: commands.OpenConnection) -> str | None:
        server = command.connection
        error, self.refuse_dial = self.refuse_dial, None
        if error is None and isinstance(server, Server):
            server.state = ConnectionState.OPEN
            self.upstreams.append(Upstream(server))
        return error

    def _find(self, connection: object) -> Upstream:
        return next(up for up in self.upstreams if up.server is connection)

    def _log(self, event: str, /, **fields: object) -> None:
        self.events.append(event)


def a_get(path: bytes = b"/", *fields: bytes, host: bytes = b"api.example.com") -> bytes:
    """A plain request through the proxy."""
    lines = [b"GET http://%b%b HTTP/1.1" % (host, path), b"Host: " + host, *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def a_post(body: bytes, *fields: bytes, kind: bytes = b"application/json") -> bytes:
    lines = [
        b"POST http://api.example.com/ HTTP/1.1",
        b"Host: api.example.com",
        b"Content-Type: " + kind,
        *(fields or (b"Content-Length: %d" % len(body),)),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
