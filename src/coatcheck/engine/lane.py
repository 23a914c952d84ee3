"""Our HTTP/1.1: one client connection read strictly, judged request by request, written anew.

mitmproxy's own HTTP layers forgive what a second parser may read otherwise, quote upstream bytes
in their error pages and hang on trailers, and they cost ten nested generators per event. This
layer sits directly on the connection, or on mitmproxy's client TLS inside a tunnel. It asks the
gateway and writes what it understood, nothing else. It does no I/O: events in, commands out.

A `Lane` outside takes CONNECT and absolute-form; the one inside a tunnel is bound to the
destination of its CONNECT. Whatever is raised while an event is handled ends in a refusal, or,
once the response has begun, in a broken connection: never in a forward.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from mitmproxy.connection import Client as ClientConnection
from mitmproxy.connection import ConnectionState, Server
from mitmproxy.proxy import commands, context, events, layer
from mitmproxy.proxy.layers import ClientTLSLayer

from coatcheck.core.destination import Destination
from coatcheck.core.identity import Credential
from coatcheck.core.message import RequestHead, field_values
from coatcheck.core.policy import Client
from coatcheck.core.problems import Code, Problem, Refused, refuse
from coatcheck.engine import http1, names
from coatcheck.engine.admission import Ticket
from coatcheck.engine.answer import Answer
from coatcheck.gateway import NO_BODY, Body, BodyPlan, Exchange, Gateway, Origin, Outgoing

LINGER_S = 2.0  # how long a refused client may be silent before its connection is closed
LINGER_ROUNDS = 30  # and how often it may go on sending, so that it gets to read our answer
MAX_PIPELINED = 256 * 1024  # bytes a client may send ahead while its last answer is outstanding
IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})  # RFC 9110, 9.2.2

type Commands = Generator[commands.Command, object, None]
type Steps[T] = Generator[commands.Command, object, T]


class Log(Protocol):
    """Takes a constant event name and fields that are safe to show."""

    def __call__(self, event: str, /, **fields: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Services:
    """What every lane of a process shares."""

    gateway: Gateway
    log: Log


@dataclass(frozen=True, slots=True)
class Tunnel:
    """What a CONNECT settled for all requests inside it."""

    destination: Destination
    credential: Credential | None


class Silence(events.Event):
    """Nothing has moved on this connection for `Lane.quiet_limit_s`."""


class Phase(Enum):
    HEAD = auto()  # waiting for a request, or reading its head
    BODY = auto()  # reading a request body
    WAIT = auto()  # the request is read, the response is not over
    LINGER = auto()  # refused; what still comes is thrown away
    RELAY = auto()  # a passthrough tunnel
    CLOSED = auto()


class _Job:
    """One request under way and what came of it so far."""

    def __init__(
        self, raw: http1.RawRequest, exchange: Exchange, body: http1.BodyReader, answer: Answer
    ) -> None:
        self.raw = raw
        self.exchange = exchange
        self.body = body
        self.answer = answer
        self.collected: list[bytes] | None = None
        self.size = 0
        self.chunked_upstream = False
        self.under_way = False  # the upstream has been sent something of it
        self.sent: bytes | None = None  # kept while a second try would be safe


class Lane(layer.Layer):
    """See the module."""

    def __init__(
        self,
        ctx: context.Context,
        services: Services,
        tunnel: Tunnel | None = None,
        ticket: Ticket | None = None,
    ) -> None:
        super().__init__(ctx)
        self._services = services
        self._gateway = services.gateway
        self._limits = services.gateway.limits
        self._tunnel = tunnel
        self._ticket = ticket
        self._phase = Phase.HEAD
        self._buffer = b""
        self._forgiven = False  # an empty line before the head that is being read
        self._job: _Job | None = None
        self._raw: http1.RawRequest | None = None
        self._upstream: Server | None = None
        self._upstream_for: Destination | None = None
        self._heard = False
        self._rounds = 0
        self._deadline: commands.RequestWakeup | None = None
        self._lingering: commands.RequestWakeup | None = None
        self._inside: Lane | None = None
        self._tls: ClientTLSLayer | None = None
        self._known: tuple[object, Credential | None, Client] | None = None
        self._who = ""  # the client behind the present request, once it is known
        peer = ctx.client.peername
        self._address = peer[0].partition("%")[0] if peer else ""

    @property
    def at_work(self) -> Lane:
        """This lane, or the one inside the tunnel that it has opened."""
        return self if self._inside is None else self._inside

    @property
    def idle(self) -> bool:
        """No request is under way, and no byte of the next one has come."""
        return self._phase is Phase.HEAD and not self._buffer

    @property
    def quiet_limit_s(self) -> float:
        """How long this connection may be silent now."""
        waiting = self._phase is Phase.WAIT and self._job and not self._job.answer.began
        return self._limits.response_timeout_s if waiting else self._limits.idle_timeout_s

    # --- events -----------------------------------------------------------------------------

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.DataReceived):
            if event.connection is self.context.client:
                yield from self._guarded(self._client_data(event.data))
            elif event.connection is self._upstream:
                yield from self._guarded(self._upstream_data(event.data))
        elif isinstance(event, events.ConnectionClosed):
            if event.connection is self.context.client:
                yield from self._close_all()
            elif event.connection is self._upstream:
                yield from self._guarded(self._upstream_closed())
        elif isinstance(event, Silence):
            yield from self._guarded(self._silence())
        elif isinstance(event, events.Wakeup):
            yield from self._woken(event.command)

    def _guarded(self, steps: Commands) -> Commands:
        while True:
            try:
                yield from steps
                return
            except Refused as error:
                refused = error
            except Exception as error:  # fail closed: any bug here is a refusal
                self._services.log("lane.internal_error", error=type(error).__name__)
                refused = Refused(Problem(Code.INTERNAL_ERROR, operator=type(error).__name__))
            yield from self._refuse(refused)
            if self._phase is not Phase.HEAD or not self._buffer:
                return
            # The connection is kept: what came with the refused request is read on. In a loop, for
            # a client can send a thousand such requests in one go.
            steps = self._client_data(b"")

    def _client_data(self, data: bytes) -> Commands:
        if self._phase is Phase.LINGER:
            self._heard = True
            return
        if self._phase is Phase.RELAY:
            yield from self._relay(self._upstream, data)
            return
        self._buffer += data
        while self._buffer:
            if self._phase is Phase.HEAD:
                head = self._cut_head()
                if head is None:
                    yield from self._start_deadline()
                    return
                self._deadline, self._who = None, ""
                yield from self._request(http1.read_request(head, self._limits))
            elif self._phase is Phase.BODY:
                yield from self._request_body()
            elif self._phase is Phase.WAIT and len(self._buffer) <= MAX_PIPELINED:
                return
            else:
                if self._phase is Phase.WAIT:
                    yield from self._close_all()
                self._buffer = b""

    def _cut_head(self) -> bytes | None:
        # RFC 9112, section 2.2: an empty line before the request line is to be forgiven. One, in
        # however many pieces it all comes.
        if not self._forgiven and self._buffer.startswith(b"\r\n"):
            self._buffer, self._forgiven = self._buffer[2:], True
        end = self._buffer.find(http1.HEAD_END)
        size = len(self._buffer) if end < 0 else end
        if size > self._limits.head_bytes:
            raise refuse(
                Code.HEADERS_TOO_LARGE,
                "The request head is too large.",
                hint="limits.head_bytes sets the bound",
            )
        if end < 0:
            return None
        end += len(http1.HEAD_END)
        head, self._buffer = self._buffer[:end], self._buffer[end:]
        self._forgiven = False
        return head

    def _start_deadline(self) -> Commands:
        """A head that has begun has to end in time, however busily its bytes drip in."""
        if self._deadline is None:
            self._deadline = commands.RequestWakeup(self._limits.head_timeout_s)
            yield self._deadline

    # --- one request ------------------------------------------------------------------------

    def _request(self, raw: http1.RawRequest) -> Commands:
        self._raw = raw
        if raw.method == b"CONNECT":
            yield from self._connect(raw)
            return
        framing = http1.request_framing(raw)
        self._phase = Phase.WAIT if framing.empty else Phase.BODY
        client = self._client(raw)
        self._who = client.name
        destination, target = self._destination(raw)
        body = NO_BODY if framing.empty else Body(True, framing.length)
        exchange = self._gateway.begin(
            Origin(client.name, self._address),
            destination,
            RequestHead(raw.method, target, raw.fields),
            body,
        )
        answer = Answer(raw, exchange, self._limits)
        job = self._job = _Job(raw, exchange, http1.reader(framing, self._limits), answer)
        if raw.expects_continue and not framing.empty:
            # Only now: a refused upload is told so before its first byte.
            yield commands.SendData(self.context.client, b"HTTP/1.1 100 Continue\r\n\r\n")
        if exchange.plan is BodyPlan.COLLECT:
            job.collected = []
        else:
            yield from self._send(job, exchange.open())

    def _client(self, raw: http1.RawRequest) -> Client:
        """Who sends this request, by the policy in force now."""
        if self._tunnel is not None:
            credential = self._tunnel.credential
        else:
            values = field_values(raw.fields, b"proxy-authorization")
            credential = self._gateway.credential(values)
        snapshot = self._gateway.snapshot
        if self._known is not None:
            seen, same, client = self._known
            if seen is snapshot and same == credential:
                return client
        client = self._identify(credential)
        self._known = (snapshot, credential, client)
        return client

    def _identify(self, credential: Credential | None) -> Client:
        client = self._gateway.identify(self._address, credential)
        if self._ticket is not None:
            self._ticket.identify(client.name)
        return client

    def _destination(self, raw: http1.RawRequest) -> tuple[Destination, bytes]:
        """The one canonical destination, and the target in origin-form."""
        if self._tunnel is None:
            destination, target = names.absolute_form(raw.target)
        else:
            destination, target = self._tunnel.destination, raw.target
            if not target.startswith(b"/") and not (target == b"*" and raw.method == b"OPTIONS"):
                # Servers prefer an absolute-form target to the Host field (RFC 9112, 3.2.2).
                raise names.mismatch(destination)
            names.check_sni(self.context.client.sni, destination)
        names.check_host(raw.fields, destination, connect=False, http10=raw.http10)
        return destination, target

    def _request_body(self) -> Commands:
        job = self._current()
        try:
            content, self._buffer = job.body.feed(self._buffer)
        except http1.BadMessage as error:
            raise refuse(Code.BAD_REQUEST, f"The body holds {error}.") from None
        if job.body.done:
            self._phase = Phase.WAIT
        if job.collected is None:
            yield from self._send_body(job, content)
            return
        job.collected.append(content)
        job.size += len(content)
        if job.body.done:
            body, job.collected = b"".join(job.collected), None
            yield from self._send(job, job.exchange.open(body))
        elif job.size > self._limits.body_buffer_bytes:
            content, job.collected = b"".join(job.collected), None
            yield from self._send(job, job.exchange.open())
            yield from self._send_body(job, content)

    def _send(self, job: _Job, out: Outgoing) -> Commands:
        """Open the upstream connection if need be, and send the head and what there is of body."""
        framing: list[bytes] = []
        if out.length is None:
            framing = [http1.CHUNKED_LINE]
            job.chunked_upstream = True
        elif out.length or field_values(job.raw.fields, b"content-length"):
            framing = [http1.length_line(out.length)]
        line = b"%b %b HTTP/1.1" % (out.head.method, out.head.target)
        data = http1.write_head(line, out.head.fields, *framing) + out.body
        reused = yield from self._open_upstream(job.exchange.destination)
        job.under_way = True
        if reused and job.body.done and job.raw.method in IDEMPOTENT:
            job.sent = data
        yield commands.SendData(self._connected(), data)

    def _send_body(self, job: _Job, content: bytes) -> Commands:
        data = job.exchange.feed_request(content)
        if job.body.done:
            data += job.exchange.finish_request()
        if job.chunked_upstream:
            data = http1.chunk(data) + (http1.LAST_CHUNK if job.body.done else b"")
        if data:
            yield commands.SendData(self._connected(), data)

    # --- upstream ---------------------------------------------------------------------------

    def _open_upstream(self, destination: Destination) -> Steps[bool]:
        """Have a connection to *destination*; True if it has carried a request before."""
        server = self._upstream
        if server is not None and server.state is ConnectionState.OPEN:
            if self._upstream_for == destination:
                return True
            yield commands.CloseConnection(server)
        server = Server(address=(destination.host, destination.port))
        server.tls = destination.scheme == "https"
        server.sni = destination.host if server.tls else None
        self._upstream, self._upstream_for = server, destination
        error = yield commands.OpenConnection(server)
        if error:
            self._upstream = None
            raise Refused(upstream_problem(str(error), destination.host))
        return False

    def _connected(self) -> Server:
        if self._upstream is None:
            raise refuse(Code.UPSTREAM_UNREACHABLE, "The upstream closed the connection.")
        return self._upstream

    def _upstream_data(self, data: bytes) -> Commands:
        if self._phase is Phase.RELAY:
            yield from self._relay(self.context.client, data)
            return
        job = self._job
        if job is None or not job.under_way:
            # Bytes that belong to no request would be taken for the answer to the next one, which
            # may be meant for another host.
            yield from self._close_upstream()
            return
        job.sent = None
        out = job.answer.feed(data, request_read=self._phase is Phase.WAIT)
        yield from self._forward(job, out)

    def _forward(self, job: _Job, out: bytes) -> Commands:
        if out:
            yield commands.SendData(self.context.client, out)
        if job.answer.done:
            yield from self._finish(job)

    def _finish(self, job: _Job) -> Commands:
        """The response is over: be ready for the next request, or close."""
        self._job = self._raw = None
        if not job.answer.reusable or not job.body.done:
            yield from self._close_upstream()
        if not job.body.done:
            yield from self._start_lingering()
            return
        if not job.answer.keep:
            yield from self._close_all()
            return
        self._phase = Phase.HEAD
        if self._buffer:
            yield from self._client_data(b"")

    def _upstream_closed(self) -> Commands:
        if self._phase is Phase.RELAY:
            yield from self._close_all()
            return
        job, server = self._job, self._upstream
        self._upstream = None
        if server is not None and server.state is not ConnectionState.CLOSED:
            yield commands.CloseConnection(server)
        if job is None or not job.under_way:
            return
        if job.sent is not None and not job.answer.heard:
            # An idle connection was closed as our request was on its way: once more.
            data, job.sent = job.sent, None
            yield from self._open_upstream(job.exchange.destination)
            yield commands.SendData(self._connected(), data)
        else:
            yield from self._forward(job, job.answer.end())

    # --- tunnels ----------------------------------------------------------------------------

    def _connect(self, raw: http1.RawRequest) -> Commands:
        if self._tunnel is not None:
            raise refuse(Code.BAD_REQUEST, "There is no CONNECT inside a tunnel.")
        if not http1.request_framing(raw).empty:
            raise refuse(Code.BAD_REQUEST, "A CONNECT has no body.")
        values = field_values(raw.fields, b"proxy-authorization")
        credential = self._gateway.credential(values)
        self._who = self._identify(credential).name
        destination = names.connect_target(raw.target)
        names.check_host(raw.fields, destination, connect=True, http10=raw.http10)
        yield from self._close_upstream()  # of a plain request before this one
        egress = self._gateway.snapshot.policy.egress
        if any(pattern.matches(destination) for pattern in egress.passthrough):
            yield from self._pass_through(destination)
            return
        # Egress is judged per request inside, where the client gets to read the answer.
        yield commands.SendData(self.context.client, b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.context.server.address = (destination.host, destination.port)
        self.context.server.sni = destination.host
        tls = ClientTLSLayer(self.context)
        self._inside = Lane(
            self.context, self._services, Tunnel(destination, credential), self._ticket
        )
        tls.child_layer = self._inside
        rest, self._buffer = self._buffer, b""
        self._phase = Phase.CLOSED
        self._deadline = commands.RequestWakeup(self._limits.tls_handshake_timeout_s)
        yield self._deadline
        self._tls = tls
        self.handle_event = self._in_handshake  # type: ignore[method-assign]
        yield from self.handle_event(events.Start())
        if rest:
            yield from self.handle_event(events.DataReceived(self.context.client, rest))

    def _in_handshake(self, event: events.Event) -> Commands:
        """Events while TLS is being set up; later ones go straight to the tunnel."""
        tls = self._tls
        if tls is None:
            return
        if isinstance(event, events.Wakeup) and event.command is self._deadline:
            if not self.context.client.tls_established:
                yield from self._close_all()
            return
        yield from tls.handle_event(event)
        if self.context.client.tls_established:
            self.handle_event = tls.handle_event  # type: ignore[method-assign]

    def _pass_through(self, destination: Destination) -> Commands:
        self._gateway.admit(destination)
        server = Server(address=(destination.host, destination.port))
        self._upstream, self._upstream_for = server, destination
        error = yield commands.OpenConnection(server)
        if error:
            raise Refused(upstream_problem(str(error), destination.host))
        self._phase = Phase.RELAY
        yield commands.SendData(self.context.client, b"HTTP/1.1 200 Connection established\r\n\r\n")
        rest, self._buffer = self._buffer, b""
        yield from self._relay(server, rest)

    def _relay(self, to: ClientConnection | Server | None, data: bytes) -> Commands:
        if to is not None and data:
            yield commands.SendData(to, data)

    # --- endings ----------------------------------------------------------------------------

    def _refuse(self, refused: Refused) -> Commands:
        """Answer with the problem, or break the connection where an answer has begun."""
        problem = refused.problem
        job, raw = self._job, self._raw
        self._job = self._raw = None
        request_id = refused.request_id or self._record(problem, job)
        self._services.log(
            "request.refused",
            code=str(problem.code),
            request_id=request_id,
            host=problem.host,
            operator=problem.operator,
        )
        if job is not None:
            yield from self._close_upstream()
            if job.answer.began:
                yield from self._close_all()
                return
        if self._phase in (Phase.LINGER, Phase.RELAY, Phase.CLOSED):
            yield from self._close_all()
            return
        keep = raw is not None and raw.keep_alive and self._phase is not Phase.BODY
        keep = keep and problem.code not in (Code.BAD_REQUEST, Code.TOO_MANY_CONNECTIONS)
        body = problem.body(request_id)
        lines = [http1.length_line(len(body))] + ([] if keep else [http1.CLOSE_LINE])
        line = b"HTTP/1.1 %d %b" % (problem.status, problem.title.encode())
        head = http1.write_head(line, problem.fields(), *lines)
        if raw is not None and raw.method == b"HEAD":
            body = b""
        yield commands.SendData(self.context.client, head + body)
        if keep:
            self._phase = Phase.HEAD
        else:
            yield from self._start_lingering()

    def _record(self, problem: Problem, job: _Job | None) -> str:
        if job is not None:
            job.exchange.record_refusal(problem)
            return job.exchange.request_id
        request_id = self._gateway.new_id()
        destination = self._tunnel.destination if self._tunnel else None
        origin = Origin(self._who, self._address)
        self._gateway.record_refusal(origin, problem, request_id, destination)
        return request_id

    def _start_lingering(self) -> Commands:
        # Closing at once would reset the connection under a client that is still sending, and it
        # would never read the answer.
        self._phase, self._buffer = Phase.LINGER, b""
        yield from self._wait_lingering()

    def _wait_lingering(self) -> Commands:
        self._lingering = commands.RequestWakeup(LINGER_S)
        yield self._lingering

    def _woken(self, timer: commands.RequestWakeup) -> Commands:
        if timer is self._deadline and self._phase is Phase.HEAD:
            yield from self._close_all()
        elif timer is self._lingering and self._phase is Phase.LINGER:
            yield from self._linger()

    def _linger(self) -> Commands:
        self._rounds += 1
        if self._heard and self._rounds < LINGER_ROUNDS:
            self._heard = False
            yield from self._wait_lingering()
        else:
            yield from self._close_all()

    def _silence(self) -> Commands:
        if self._phase is Phase.WAIT and self._job and not self._job.answer.began:
            raise refuse(
                Code.UPSTREAM_TIMEOUT,
                "The upstream did not answer in time.",
                hint="limits.response_timeout_s sets the bound",
            )
        yield from self._close_all()

    def _close_upstream(self) -> Commands:
        server, self._upstream = self._upstream, None
        if server is not None and server.state is not ConnectionState.CLOSED:
            yield commands.CloseConnection(server)

    def _close_all(self) -> Commands:
        self._phase = Phase.CLOSED
        self._job = None
        self._buffer = b""
        yield from self._close_upstream()
        if self.context.client.state is not ConnectionState.CLOSED:
            yield commands.CloseConnection(self.context.client)

    def _current(self) -> _Job:
        if self._job is None:
            raise refuse(Code.INTERNAL_ERROR)
        return self._job


def upstream_problem(code: str, host: str) -> Problem:
    """What a client is told of a connection that could not be made. *code* is a `Code`."""
    try:
        known = Code(code)
    except ValueError:
        known = Code.UPSTREAM_UNREACHABLE
    return Problem(known, host=host, hint=_UPSTREAM_HINTS.get(known, ""))


_UPSTREAM_HINTS = {
    Code.ADDRESS_NOT_ALLOWED: "an operator can name a private network in egress.networks",
    Code.UPSTREAM_TLS_FAILED: "the upstream's certificate has to be valid for the host and signed "
    "by a public authority, or by one in upstream_ca",
}
