"""Drives a `Lane` without a socket: bytes in, bytes out, and every connection it asks for.

Outside lanes speak plain HTTP, so a request is two lines; a lane inside a tunnel is built with
its `Tunnel`, as the lane itself does after a CONNECT.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from coatcheck import policyfile
from coatcheck.core.destination import Destination, parse_domain_pattern
from coatcheck.core.limits import Limits
from coatcheck.core.meter import Meter
from coatcheck.core.ports import AuditError
from coatcheck.core.problems import Code
from coatcheck.core.snapshot import Snapshot
from coatcheck.core.tracing import Traces
from coatcheck.engine.collecting import Room
from coatcheck.engine.lane import Lane, Services, Tunnel
from coatcheck.engine.pool import Purpose
from coatcheck.gateway import Gateway
from coatcheck.store.memory import MemoryStore

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
    """A connection that the lane has asked for. ``tls``: with a certificate that was verified."""

    destination: Destination
    tls: bool
    received: bytes = b""
    closed: bool = False


@dataclass
class Wire:
    """One client connection. ``refuse_dial`` is the code that the next
    dial ends with. Dials end at once, unless ``holding`` is set: then with `let_dial`."""

    gateway: Gateway = field(default_factory=a_gateway)
    tunnel: Tunnel | None = None
    refuse_dial: Code | None = None
    sni: str | None = None
    resting: dict[Purpose, Upstream] = field(default_factory=dict)  # may be shared by several
    traces: Traces | None = None
    room: Room = field(default_factory=Room)  # may be shared too

    def __post_init__(self) -> None:
        self.closed = False
        self.events: list[str] = []
        self.out = b""
        self.upstreams: list[Upstream] = []
        self.tls_for: list[tuple[str, bytes]] = []  # host, early bytes of a handshake
        self.clock = 0.0
        self.holding = False
        self.turns = 0  # of other connections that the lane lets come first
        self.answer_turns = 0  # the same, for its answer
        self.others_turn = False  # they take long
        self.working: list[Callable[[], None]] = []  # what the lane wants to be done elsewhere
        self.waking = False
        self.dialling: Upstream | None = None
        self.open_to: Upstream | None = None
        self.meter = Meter(lambda: self.clock)
        services = Services(self.gateway, self._log, self.meter, traces=self.traces, room=self.room)
        self.lane = Lane(_Io(self), services, "127.0.0.1")
        if self.tunnel is not None:
            self.lane.enter(self.tunnel, self.sni)

    @property
    def upstream(self) -> Upstream:
        """The last upstream connection that was opened."""
        return self.upstreams[-1]

    @property
    def audit(self) -> list[Mapping[str, object]]:
        log = self.gateway.log
        return log.records if isinstance(log, Book) else []

    # --- what happens to the connection -------------------------------------------------------

    def send(self, data: bytes) -> bytes:
        """*data* from the client; returns what the client has got since the last call."""
        if not self.closed:
            self._run(lambda: self.lane.client_data(data))
        return self.take()

    def answer(self, data: bytes, *, of: Upstream | None = None) -> bytes:
        """*data* from the last upstream, or from *of*; returns what the client has got since."""
        if (of or self.upstream) is self.open_to:
            self._run(lambda: self.lane.upstream_data(data))
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
        upstream = of or self.upstream
        upstream.closed = True
        if upstream is self.open_to:
            self.open_to = None
            self._run(self.lane.upstream_closed)
        return self.take()

    def leave(self) -> None:
        """The client closes."""
        self._run(self.lane.client_closed)

    def silence(self) -> bytes:
        self._run(self.lane.silence)
        return self.take()

    @property
    def is_timed(self) -> bool:
        """Something has to end in time."""
        return self.lane.deadline is not None

    def wake(self) -> None:
        """The deadline comes, if there is one."""
        if self.lane.deadline is not None:
            self.clock = self.lane.deadline
            self._run(self.lane.overdue)

    def woken(self) -> bytes:
        """The time is over that the lane has asked for; returns what the client has got."""
        if self.waking:
            self.waking = False
            self._run(self.lane.woken)
        return self.take()

    def look(self) -> bytes:
        self._run(self.lane.look)
        return self.take()

    def let_dial(self) -> bytes:
        """The dial that was held back ends."""
        self.holding = False
        self._run(lambda: None)
        return self.take()

    def secure(self, server_name: str | None = None) -> None:
        """The TLS handshake with the client is over."""
        self._run(lambda: self.lane.secured(server_name))

    def _run(self, step: Callable[[], None]) -> None:
        try:
            step()
            self._take_turns()
            while self.working:
                with suppress(Exception):  # the request that needs it will say what is wrong
                    self.working.pop(0)()
                self.lane.worked()
                self._take_turns()
            while self.dialling is not None and not self.holding:
                upstream, self.dialling = self.dialling, None
                code, self.refuse_dial = self.refuse_dial, None
                if code is None:
                    self.upstreams.append(upstream)
                    self.open_to = upstream
                self.lane.dialled(code)
                self._take_turns()
        except Exception:  # the connection is closed when its lane has crashed
            self.closed = True
            self.events.append("engine.crash")

    def _take_turns(self) -> None:
        while (self.turns or self.answer_turns) and not self.others_turn:
            if self.turns:
                self.turns -= 1
                self.lane.go_on()
            if self.answer_turns:
                self.answer_turns -= 1
                self.lane.answer_on()

    def take_turn(self) -> bytes:
        """The lane's turn has come, once; returns what the client has got."""
        self.turns -= 1
        self._run(self.lane.go_on)
        return self.take()

    def take_answer_turn(self) -> bytes:
        """As `take_turn`, of the answer."""
        self.answer_turns -= 1
        self._run(self.lane.answer_on)
        return self.take()

    def _log(self, event: str, /, **fields: object) -> None:
        self.events.append(event)


class _Io:
    """What the lane acts through."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def now(self) -> float:
        return self._wire.clock

    def send(self, data: bytes, /) -> None:
        self._wire.out += data

    def send_upstream(self, data: bytes, /) -> None:
        if self._wire.open_to is not None:
            self._wire.open_to.received += data

    def dial(self, destination: Destination, /, *, tls: bool) -> None:
        self._wire.dialling = Upstream(destination, tls)

    def take_turns(self) -> None:
        self._wire.turns += 1

    def take_answer_turns(self) -> None:
        self._wire.answer_turns += 1

    def work(self, work: Callable[[], None], /) -> None:
        self._wire.working.append(work)

    def close_upstream(self) -> None:
        self._wire.dialling = None
        if self._wire.open_to is not None:
            self._wire.open_to.closed = True
            self._wire.open_to = None

    def leave(self, purpose: Purpose, /) -> None:
        if self._wire.open_to is not None:
            self._wire.resting[purpose] = self._wire.open_to
            self._wire.open_to = None

    def take_over(self, purpose: Purpose, /) -> bool:
        self._wire.open_to = self._wire.resting.pop(purpose, None)
        if self._wire.open_to is None:
            return False
        self._wire.upstreams.append(self._wire.open_to)
        return True

    def wake_after(self, seconds: float, /) -> None:
        self._wire.waking = True

    def start_tls(self, host: str, early: bytes, /) -> None:
        self._wire.tls_for.append((host, early))

    def close(self) -> None:
        self.close_upstream()
        self._wire.closed = True


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
