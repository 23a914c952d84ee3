"""Our HTTP/1.1: one client connection read strictly, judged request by request, written anew.

mitmproxy's own HTTP layers forgive what a second parser may read otherwise, quote upstream bytes
in their error pages and hang on trailers, and they cost ten nested generators per event. This
lane sits directly on the connection, or on its TLS inside a tunnel. It asks the gateway and writes
what it understood, nothing else. It does no I/O: it is told what happens, and acts through `Io`.

Outside a tunnel it takes CONNECT and absolute-form; after a CONNECT it is bound to that
destination. Whatever is raised while an event is handled ends in a refusal, or, once the response
has begun, in a broken connection: never in a forward.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from typing import Any, Protocol

from coatcheck.canary import Canary
from coatcheck.core import internal, tracing, websocket
from coatcheck.core.aiming import Aim
from coatcheck.core.destination import Destination
from coatcheck.core.identity import Credential
from coatcheck.core.message import RequestHead, field_values, without
from coatcheck.core.meter import Meter
from coatcheck.core.policy import Client
from coatcheck.core.problems import Code, Problem, Refused, refuse
from coatcheck.core.tracing import Traces
from coatcheck.engine import http1, names, turns
from coatcheck.engine.admission import Ticket
from coatcheck.engine.answer import Answer
from coatcheck.engine.collecting import Collecting, Room
from coatcheck.engine.pool import Purpose, authenticates_connection
from coatcheck.engine.turns import Work
from coatcheck.gateway import (
    NO_BODY,
    Body,
    BodyPlan,
    Exchange,
    Gateway,
    Origin,
    Outgoing,
    Switched,
)
from coatcheck.opensocket import Moved, OpenSocket
from coatcheck.ownhost import OwnHost, Served

LINGER_S = 2.0  # how long a refused client may be silent before its connection is closed
LINGER_ROUNDS = 30  # and how often it may go on sending, so that it gets to read our answer
LINGER_BYTES = 64 * 1024 * 1024  # and how much: throwing it away costs us time too
MAX_PIPELINED = 256 * 1024  # bytes a client may send ahead while its last answer is outstanding
NEW, KEPT, RESTED = ("new",), ("kept",), ("rested",)  # labels of `Meter.upstream_requests`
IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})  # RFC 9110, 9.2.2

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Log(Protocol):
    """Takes a constant event name and fields that are safe to show."""

    def __call__(self, event: str, /, **fields: object) -> None: ...


class Io(Protocol):
    """What a lane acts through. None of these calls back into the lane, but for `start_tls`, which
    may find the handshake broken at once: what the lane does after it must bear that."""

    def now(self) -> float:
        """Seconds on a clock that only goes forward."""

    def send(self, data: bytes, /) -> None:
        """To the client."""

    def send_upstream(self, data: bytes, /) -> None: ...

    def dial(self, destination: Destination, /, *, tls: bool) -> None:
        """Open a connection to *destination*, with *tls* one whose certificate was verified;
        ends in `Lane.dialled`."""

    def work(self, work: Callable[[], None], /) -> None:
        """Do *work*, which takes long, beside everything else; ends in `Lane.worked`."""

    def take_turns(self) -> None:
        """Let the other connections have their turn; ends in `Lane.go_on`."""

    def take_answer_turns(self) -> None:
        """The same, for an answer: until `Lane.answer_on` nothing of the upstream is read."""

    def close_upstream(self) -> None:
        """Close the upstream connection, or give up dialling."""

    def leave(self, purpose: Purpose, /) -> None:
        """Leave the upstream connection, on which nothing is under way, to whom it may serve."""

    def take_over(self, purpose: Purpose, /) -> bool:
        """Have a connection that was left for this very purpose; False: there is none."""

    def wake_after(self, seconds: float, /) -> None:
        """Call `Lane.woken`, once, so much later."""

    def start_tls(self, host: str, early: bytes, /) -> None:
        """Speak TLS with the client, with a certificate for *host*; ends in `Lane.secured`.

        Args:
            early: What has come of the handshake so far.
        """

    def close(self) -> None:
        """Close everything, once what was sent to the client is written."""


@dataclass(frozen=True, slots=True)
class Services:
    """What every lane of a process shares."""

    gateway: Gateway
    log: Log
    meter: Meter = field(default_factory=partial(Meter, time.perf_counter))
    ca_pem: bytes = b""  # our certificate, for clients that ask for it
    traces: Traces | None = None
    canary: Canary | None = None
    room: Room = field(default_factory=Room)


@dataclass(frozen=True, slots=True)
class Tunnel:
    """What a CONNECT settled for all requests inside it."""

    destination: Destination
    credential: Credential | None


class Phase(Enum):
    HEAD = auto()  # waiting for a request, or reading its head
    BODY = auto()  # reading a request body
    WAIT = auto()  # the request is read, the response is not over
    BUILD = auto()  # the request waits for the search through its answer to be built
    LINGER = auto()  # refused; what still comes is thrown away
    SHAKE = auto()  # a TLS handshake is under way
    RELAY = auto()  # a passthrough tunnel
    SOCKET = auto()  # a WebSocket is open
    CLOSED = auto()


class _Job:
    """One request under way and what came of it so far."""

    __slots__ = (
        "added_s",
        "answer",
        "body",
        "chunked_upstream",
        "collected",
        "exchange",
        "held_s",
        "plain",
        "raw",
        "received_at",
        "sent",
        "sent_at",
        "under_way",
        "upstream_left",
        "upstream_s",
        "websocket_key",
    )

    def __init__(
        self, raw: http1.RawRequest, exchange: Exchange, body: http1.BodyReader, answer: Answer
    ) -> None:
        self.raw = raw
        self.exchange = exchange
        self.body = body
        self.answer = answer
        self.collected: Collecting | None = None
        self.chunked_upstream = False
        self.under_way = False  # the upstream has been sent something of it
        self.upstream_left = False  # while there was work to do on its answer
        self.plain = False  # its connection may serve others of this client afterwards
        self.websocket_key: bytes | None = None  # the request is an opening handshake
        self.sent: bytes | None = None  # kept while a second try would be safe
        # On the meter's clock:
        self.held_s = 0.0  # from the end of what had to be read until it was sent, or dialled for
        self.sent_at = 0.0  # when the upstream was sent the first of it
        self.received_at: float | None = None  # when the last came before the answer began
        self.upstream_s: float | None = None  # from `sent_at` to the first of the answer
        self.added_s: float | None = None

    def let_go(self) -> None:
        """Of the body that was collected."""
        if self.collected is not None:
            self.collected.release()
            self.collected = None


class Lane:
    """See the module.

    Attributes:
        deadline: When `overdue` has to be called, on the clock of `Io.now`; None: never.
    """

    def __init__(
        self, io: Io, services: Services, address: str, ticket: Ticket | None = None
    ) -> None:
        """*address*: the client's IP address. *ticket*: of the connection's admission."""
        self.deadline: float | None = None
        self._io = io
        self._services = services
        self._gateway = services.gateway
        self._meter = services.meter
        self._clock = services.meter.clock
        self._limits = services.gateway.limits
        self._address = address
        self._ticket = ticket
        self._tunnel: Tunnel | None = None
        self._server_name: str | None = None
        self._phase = Phase.HEAD
        self._buffer = b""
        self._forgiven = False  # an empty line before the head that is being read
        self._reader = http1.RequestReader(self._limits)
        self._job: _Job | None = None
        self._raw: http1.RawRequest | None = None
        self._serving: Purpose | None = None  # of the open upstream connection
        self._dialling: Purpose | None = None
        self._plain = False  # no request or answer on it forbids that it rests for another
        self._rests = False  # and the last answer is over
        self._socket: OpenSocket | None = None
        self._ended: OpenSocket | None = None  # was open, and its client may still answer
        self._waking = False  # `woken` is to come
        self._work: Work[Any] | None = None  # under way
        self._waits_its_turn = False  # `go_on` is to come
        self._unsent = b""  # waits for the connection that is being made
        self._heard = 0  # bytes of a refused client since the last look
        self._thrown = 0  # and all of them
        self._rounds = 0
        self._known: tuple[object, Credential | None, Client] | None = None
        self._who = ""  # the client behind the present request, once it is known
        self._read_at = 0.0  # on the meter's clock: what the present request waits for was read
        self._traces = services.traces
        self._began_at: float | None = None  # of the request that is to be traced; the same clock
        self._queue_s = 0.0  # it has waited so long for its search

    def enter(self, tunnel: Tunnel, server_name: str | None) -> None:
        """From now on requests come through *tunnel*.

        Args:
            server_name: The TLS server name that the client asked for; None for none.
        """
        self._tunnel, self._server_name = tunnel, server_name
        self._phase, self.deadline = Phase.HEAD, None

    @property
    def idle(self) -> bool:
        """No request is under way, and no byte of the next one has come."""
        return self._phase is Phase.HEAD and not self._buffer

    @property
    def quiet_limit_s(self) -> float:
        """How long this connection may be silent now."""
        if self._phase is Phase.SOCKET:
            return self._limits.websocket_idle_timeout_s
        waiting = self._phase is Phase.WAIT and self._job and not self._job.answer.began
        return self._limits.response_timeout_s if waiting else self._limits.idle_timeout_s

    # --- what happens -----------------------------------------------------------------------

    def client_data(self, data: bytes) -> None:
        if self._phase is Phase.LINGER:
            self._heard += len(data)
            self._thrown += len(data)
            answered = self._ended is not None and self._ended.answered(data)
            if answered or self._thrown > LINGER_BYTES:
                self._close_all()
        elif self._phase is Phase.RELAY and self._dialling is None:
            self._io.send_upstream(data)
        elif self._phase is not Phase.CLOSED:
            self._buffer = self._buffer + data if self._buffer else data
            if self._dialling is None and not self._waits_its_turn:
                self._guarded(self._advance)

    def client_closed(self) -> None:
        self._close_all()

    def let_go(self) -> None:
        """Of what counts for all connections; called also where the connection is just cut off."""
        if self._job is not None:
            self._job.let_go()

    def secured(self, server_name: str | None) -> None:
        """The TLS handshake with the client is over."""
        if self._phase is Phase.SHAKE and self._tunnel is not None:
            self.enter(self._tunnel, server_name)

    def dialled(self, code: Code | None) -> None:
        """The connection that was asked for is there; or there is none, and *code* says why."""
        self._guarded(self._dialled, code)

    def go_on(self) -> None:
        """Others have had their turn."""
        self._waits_its_turn = False
        self._guarded(self._advance)

    def answer_on(self) -> None:
        """Others have had their turn, and the client takes more."""
        self._guarded(self._answer_on)

    def worked(self) -> None:
        """The work that was asked for is done, or has failed."""
        if self._phase is Phase.BUILD and self._raw is not None:
            self._phase = Phase.HEAD
            self._guarded(self._begin, self._raw)

    def upstream_data(self, data: bytes) -> None:
        if self._phase is Phase.RELAY:
            self._io.send(data)
        else:
            self._guarded(self._upstream_data, data)

    def upstream_closed(self) -> None:
        self._guarded(self._upstream_closed)

    def silence(self) -> None:
        """Nothing has moved on this connection for `quiet_limit_s`."""
        self._guarded(self._silence)

    def look(self) -> None:
        """Called a few times a second: a change of policy may end what is open."""
        if self._socket is not None:
            self._guarded(self._socket_moved, self._socket.look)

    def go_away(self) -> None:
        """The process is about to end."""
        if self._socket is not None:
            self._guarded(self._socket_moved, self._socket.go_away)

    def woken(self) -> None:
        """The time that `Io.wake_after` was asked for is over."""
        self._waking = False
        if self._socket is not None:
            self._guarded(self._socket_moved, self._socket.wake)

    def overdue(self) -> None:
        """The time is `deadline`, or later."""
        self.deadline = None
        if self._phase is Phase.LINGER:
            self._linger()
        else:
            self._close_all()

    def _guarded[*Ts](self, step: Callable[[*Ts], None], *told: *Ts) -> None:
        try:
            step(*told)
        except Exception as error:  # fail closed: a bug is a refusal too
            self._stopped(error)

    def _stopped(self, error: Exception) -> None:
        if isinstance(error, Refused):
            refused = error
        else:
            self._services.log("lane.internal_error", error=type(error).__name__)
            refused = Refused(Problem(Code.INTERNAL_ERROR, operator=type(error).__name__))
        self._refuse(refused)
        if self._phase is Phase.HEAD and self._buffer:
            # The connection is kept, and what came with the refused request is read on. Not at
            # once: a client can send thousands of these in one go, and others wait meanwhile.
            self._wait_its_turn()

    def _wait_its_turn(self) -> None:
        if not self._waits_its_turn:
            self._waits_its_turn = True
            self._io.take_turns()

    # --- one request ------------------------------------------------------------------------

    def _advance(self) -> None:
        """Read on in what the client has sent."""
        while self._dialling is None and not self._waits_its_turn:
            if self._work is not None:
                self._work_on(self._work)
            elif not self._buffer:
                return
            elif self._phase is Phase.HEAD:
                head = self._cut_head()
                if head is None:
                    if self.deadline is None:
                        # It has to end in time, however busily its bytes drip in.
                        self.deadline = self._io.now() + self._limits.head_timeout_s
                    return
                self.deadline, self._who = None, ""
                self._request(self._reader.read(head))
            elif self._phase is Phase.BODY:
                self._request_body()
            elif self._phase is Phase.SOCKET and self._socket is not None:
                data, self._buffer = self._buffer, b""
                self._work = self._frames(self._socket, data)
            elif self._is_sent_ahead():
                return
            else:
                if self._phase is Phase.WAIT:
                    self._close_all()
                self._buffer = b""

    def _work_on(self, work: Work[Any]) -> None:
        self._work = None  # as long as it has not gone well
        if not work.go_on(self._clock):
            self._work = work
            self._wait_its_turn()

    def _is_sent_ahead(self) -> bool:
        """What the client has sent belongs to a request whose turn is still to come."""
        waiting = self._phase is Phase.WAIT and len(self._buffer) <= MAX_PIPELINED
        return waiting or self._phase is Phase.BUILD

    def _cut_head(self) -> bytes | None:
        # RFC 9112, section 2.2: an empty line before the request line is to be forgiven. One, in
        # however many pieces it all comes.
        if not self._forgiven and self._buffer.startswith(b"\r\n"):
            self._buffer, self._forgiven = self._buffer[2:], True
        end, size = http1.find_end(self._buffer)
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

    def _request(self, raw: http1.RawRequest) -> None:
        self._read_at = self._clock()
        if self._traces is not None:
            self._began_at, self._queue_s = self._read_at, 0.0
        self._raw = raw
        if raw.method == b"CONNECT":
            self._connect(raw)
            return
        self._begin(raw, built=False)

    def _begin(self, raw: http1.RawRequest, *, built: bool = True) -> None:
        """*built*: the request has waited for its search already."""
        if built and self._began_at is not None:
            self._queue_s = self._clock() - self._began_at
        framing = http1.request_framing(raw)
        self._phase = Phase.WAIT if framing.empty else Phase.BODY
        client = self._client(raw)
        self._who = client.name
        destination, target = self._destination(raw)
        origin = Origin(client.name, self._address)
        head = RequestHead(raw.method, target, raw.fields)
        aim: Aim | None = None
        if internal.is_served(destination):
            own = OwnHost(self._gateway, self._services.ca_pem, self._services.canary)
            if not built and self._has_to_wait(own.unbuilt(client.name, target)):
                return
            asked = own.ask(origin, destination, head, has_body=not framing.empty)
            if isinstance(asked, Served):
                self._answer(raw, asked)
                if built:
                    self._advance()
                return
            aim, destination = asked, asked.destination
        if not built and self._has_to_wait(self._gateway.unbuilt(client.name, destination)):
            return
        body = NO_BODY if framing.empty else Body(True, framing.length)
        if aim is None:
            exchange = self._gateway.begin(origin, destination, head, body)
        else:
            exchange = self._gateway.begin_at(aim, origin, head, body)
        key = None
        if framing.empty and not raw.http10 and aim is None:
            key = websocket.handshake_key(raw.method, raw.fields)
        answer = Answer(raw, exchange, self._limits, key)
        job = self._job = _Job(raw, exchange, http1.reader(framing, self._limits), answer)
        job.websocket_key = key
        job.plain = framing.empty and key is None
        if not framing.empty:
            self.deadline = self._io.now() + self._limits.request_timeout_s
            if raw.expects_continue:
                # Only now: a refused upload is told so before its first byte.
                self._io.send(CONTINUE)
        if exchange.plan is BodyPlan.COLLECT:
            job.collected = Collecting(self._services.room, self._limits)
        else:
            self._send(job, exchange.open())
        if built:
            self._advance()

    def _has_to_wait(self, work: Callable[[], None] | None) -> bool:
        """Whether there is *work* to do first; `worked` then begins anew."""
        if work is None:
            return False
        self._phase = Phase.BUILD
        self._io.work(work)
        return True

    def _answer(self, raw: http1.RawRequest, page: Served) -> None:
        """Send a page of our own, and be ready for the next request, or close."""
        lines = [http1.length_line(len(page.body))] + ([] if raw.keep_alive else [http1.CLOSE_LINE])
        head = http1.write_head(b"HTTP/1.1 200 OK", page.fields(), *lines)
        self._io.send(head if raw.method == b"HEAD" else head + page.body)
        if self._began_at is not None:
            self._trace(raw, None, tracing.OK, 200, internal.HOST)
        self._raw = None
        if raw.keep_alive:
            self._phase = Phase.HEAD
        else:
            self._close_all()

    def _client(self, raw: http1.RawRequest) -> Client:
        """Who sends this request, by the policy in force now."""
        if self._tunnel is not None:
            credential = self._tunnel.credential
        else:
            credential = self._gateway.credential(field_values(raw.fields, b"proxy-authorization"))
        if self._known is not None:
            seen, same, client = self._known
            if seen is self._gateway.snapshot and same == credential:
                return client
        return self._identify(credential)

    def _identify(self, credential: Credential | None) -> Client:
        client = self._gateway.identify(self._address, credential)
        if self._ticket is not None:
            self._ticket.identify(client.name)
        self._known = (self._gateway.snapshot, credential, client)
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
            names.check_sni(self._server_name, destination)
        names.check_host(raw.fields, destination, connect=False, http10=raw.http10)
        return destination, target

    def _request_body(self) -> None:
        job = self._current()
        try:
            content, self._buffer = job.body.feed(self._buffer)
        except http1.BadMessage as error:
            raise refuse(Code.BAD_REQUEST, f"The body holds {error}.") from None
        if job.body.done:
            self._phase, self.deadline = Phase.WAIT, None
        if job.collected is None:
            self._stream(job, content)
            return
        job.collected.add(content)
        self._read_at = self._clock()
        if job.body.done:
            steps = job.exchange.opening(job.collected.take())
            self._work = Work(steps, _nothing, lambda _, out: self._send(job, out))
        elif job.collected.is_too_large:
            content = job.collected.take()
            job.let_go()
            self._work = Work(
                _opened(job.exchange, content), _nothing, lambda _, got: self._send(job, *got)
            )

    def _stream(self, job: _Job, content: bytes) -> None:
        """Send what comes of the next *content* of a streamed body."""
        last = job.body.done
        if job.exchange.plan is BodyPlan.PASS:
            data = job.exchange.feed_request(content)
            if last:
                data += job.exchange.finish_request()
            self._deliver(job, self._chunked(job, data, last=last))
            return
        self._work = Work(
            job.exchange.feeding(content, last=last),
            lambda data: self._deliver(job, self._chunked(job, data)),
            lambda data, _: self._deliver(job, self._chunked(job, data, last=last)),
        )

    @staticmethod
    def _chunked(job: _Job, data: bytes, *, last: bool = False) -> bytes:
        if job.chunked_upstream:
            return http1.chunk(data) + (http1.LAST_CHUNK if last else b"")
        return data

    def _send(self, job: _Job, out: Outgoing, content: bytes = b"") -> None:
        """Send the head, what there is of the body, and what came of the first *content* of a
        streamed one."""
        job.let_go()
        framing: tuple[bytes, ...] = ()
        if out.length is None:
            framing = (http1.CHUNKED_LINE,)
            job.chunked_upstream = True
        elif out.length or field_values(job.raw.fields, b"content-length"):
            framing = (http1.length_line(out.length),)
        line = b"%b %b HTTP/1.1" % (out.head.method, out.head.target)
        fields = out.head.fields
        if job.websocket_key is not None:
            framing = http1.WEBSOCKET_LINES
            # An extension would change what a frame says, compress it, say.
            fields = without(fields, b"sec-websocket-extensions")
        job.plain = job.plain and not authenticates_connection(fields)
        data = http1.write_head(line, fields, *framing) + out.body
        if content:
            data += self._chunked(job, content)
        if job.body.done and job.raw.method in IDEMPOTENT:
            job.sent = data
        self._deliver(job, data)

    # --- upstream ---------------------------------------------------------------------------

    def _deliver(self, job: _Job, data: bytes) -> None:
        """Write *data* to the job's destination, by a connection that is there or a new one."""
        if job.under_way:
            if self._serving is None:
                raise refuse(Code.UPSTREAM_UNREACHABLE, "The upstream closed the connection.")
            self._io.send_upstream(data)
            return
        purpose = self._purpose(job.exchange.destination)
        safe = job.plain and job.sent is not None  # to be sent again, if nobody is there any more
        kept = self._serving == purpose
        if kept or (safe and self._take_over(purpose)):
            job.under_way, self._rests = True, False
            self._io.send_upstream(data)
            self._meter.upstream_requests.add(KEPT if kept else RESTED)
            job.sent_at = self._clock()
            job.held_s = job.sent_at - self._read_at
            return
        job.sent = None  # a new connection is not tried twice
        self._meter.upstream_requests.add(NEW)
        job.held_s = self._clock() - self._read_at
        self._dial(purpose, data)

    def _purpose(self, destination: Destination) -> Purpose:
        return Purpose(self._who, self._address, destination, self._gateway.snapshot.policy.digest)

    def _take_over(self, purpose: Purpose) -> bool:
        """Go on with a connection that an earlier one of this client has left."""
        self._close_upstream()
        if not self._io.take_over(purpose):
            return False
        self._serving, self._plain = purpose, True
        return True

    def _dial(self, purpose: Purpose, data: bytes) -> None:
        self._close_upstream()
        self._dialling, self._unsent = purpose, data
        # In a passthrough tunnel the TLS is the client's own.
        https = purpose.destination.scheme == "https"
        self._io.dial(purpose.destination, tls=https and self._phase is not Phase.RELAY)

    def _dialled(self, code: Code | None) -> None:
        purpose, self._dialling = self._dialling, None
        data, self._unsent = self._unsent, b""
        if purpose is None:
            self._close_upstream()
            return
        if code is not None:
            host = self._job.exchange.told_host if self._job else purpose.destination.host
            raise Refused(upstream_problem(code, host))
        self._serving, self._plain, self._rests = purpose, self._phase is not Phase.RELAY, False
        if self._phase is Phase.RELAY:
            self._raw = self._began_at = None
            self._io.send(ESTABLISHED)
            data, self._buffer = data + self._buffer, b""
        elif self._job is not None:
            self._job.under_way = True
            self._job.sent_at = self._clock()
        if data:
            self._io.send_upstream(data)
        self._advance()

    def _upstream_data(self, data: bytes) -> None:
        if self._socket is not None:
            self._socket_moved(partial(self._socket.upstream, data))
            return
        job = self._job
        if job is None or not job.under_way:
            # Bytes that belong to no request would be taken for the answer to the next one, which
            # may be meant for another host.
            self._rests = False
            self._close_upstream()
            return
        job.sent = None
        if not job.answer.began:
            now = job.received_at = self._clock()
            if not job.answer.heard:
                job.upstream_s = now - job.sent_at
                self._meter.upstream_response.add(job.upstream_s)
        out = job.answer.feed(data, request_read=self._is_read)
        self._work_on_answer(job, out, turns.FIRST_TURN_S)

    @property
    def _is_read(self) -> bool:
        """The request is read to its end, and has left."""
        return self._phase is Phase.WAIT and self._work is None

    def _answer_on(self) -> None:
        job = self._job
        if job is None or not job.answer.is_busy:
            return
        self._work_on_answer(job, b"", turns.TURN_S)
        if job.upstream_left and job is self._job and not job.answer.is_busy:
            self._forward(job, job.answer.end())

    def _work_on_answer(self, job: _Job, out: bytes, seconds: float) -> None:
        """Forward *out*, and what comes of working on the answer for *seconds*."""
        answer = job.answer
        if answer.is_busy:
            parts, until = [out], self._clock() + seconds
            while answer.is_busy:
                parts.append(answer.more())
                if self._clock() >= until:
                    break
            out = b"".join(parts)
            if answer.is_busy:
                self._io.take_answer_turns()
        self._forward(job, out)

    def _forward(self, job: _Job, out: bytes) -> None:
        if job.answer.switched is not None:
            self._switch(job, job.answer.switched, out)
            return
        if out:
            self._io.send(out)
        if job.received_at is not None and job.answer.began:
            job.added_s = job.held_s + self._clock() - job.received_at
            self._meter.added.add(job.added_s)
            job.received_at = None
        if job.answer.done:
            self._finish(job)

    def _finish(self, job: _Job) -> None:
        """The response is over: be ready for the next request, or close."""
        if self._began_at is not None:
            self._trace(job.raw, job, tracing.OK, job.answer.status)
        self._job = self._raw = None
        sent = job.body.done and self._work is None
        self._work = None
        if not job.answer.reusable or not sent:
            self._close_upstream()
        else:
            self._plain = self._rests = self._plain and job.plain and _is_plain(job)
        if not sent:
            self._start_lingering()
        elif not job.answer.keep:
            self._close_all()
        else:
            self._phase = Phase.HEAD
            if self._buffer:
                self._advance()

    def _upstream_closed(self) -> None:
        self._serving, self._rests = None, False
        if self._phase is Phase.RELAY:
            self._close_all()
            return
        if self._socket is not None:
            self._socket_moved(self._socket.flush)
            self._close_all()
            return
        job = self._job
        if job is None or not job.under_way:
            return
        if job.sent is not None and not job.answer.heard:
            # An idle connection was closed as our request was on its way: once more.
            data, job.sent = job.sent, None
            self._dial(self._purpose(job.exchange.destination), data)
        elif job.answer.is_busy:
            job.upstream_left = True
        else:
            self._forward(job, job.answer.end())

    # --- WebSocket --------------------------------------------------------------------------

    def _switch(self, job: _Job, switched: Switched, head: bytes) -> None:
        """The handshake is over: from now on there are frames on either side."""
        socket = OpenSocket(
            self._gateway,
            switched,
            check_client=partial(self._check_client, job.raw, switched.facts.client),
            new_key=partial(os.urandom, 4),
        )
        self._io.send(head)
        job.answer.began = True
        if self._began_at is not None:
            self._trace(job.raw, job, tracing.OK, job.answer.status)
        self._phase, self._socket = Phase.SOCKET, socket
        rest, job.answer.rest = job.answer.rest, b""
        if rest:
            self._socket_moved(partial(socket.upstream, rest))
        self._advance()

    def _frames(self, socket: OpenSocket, data: bytes) -> Work[Moved]:
        """What the client sends on the open WebSocket. Who ends it does so with the last step."""

        def steps() -> Generator[bytes, None, Moved]:
            for moved in socket.client_steps(data):
                yield moved.to_upstream
                if socket.over:
                    return Moved(moved.to_client)
            return Moved()

        def end(data: bytes, last: Moved) -> None:
            self._socket_moved(lambda: Moved(last.to_client, data))

        return Work(steps(), self._io.send_upstream, end)

    def _socket_moved(self, step: Callable[[], Moved]) -> None:
        """Do one *step* of the open WebSocket and send what comes of it."""
        socket = self._socket
        if socket is None:
            return
        moved = step()
        if moved.to_upstream:
            self._io.send_upstream(moved.to_upstream)
        if moved.to_client:
            self._io.send(moved.to_client)
        if socket.over:
            self._socket_over(socket)
        elif socket.waiting and not self._waking:
            self._waking = True
            socket.begin_wait()
            self._io.wake_after(self._limits.websocket_hold_ms / 1000)

    def _socket_over(self, socket: OpenSocket) -> None:
        self._socket = self._job = self._work = None
        problem = socket.problem
        if problem is not None:
            self._services.log(
                "request.refused",
                code=str(problem.code),
                request_id=socket.request_id,
                host=problem.host,
                operator=problem.operator,
            )
        if socket.closed:
            self._close_all()
            return
        self._close_upstream()
        self._ended = socket
        self._start_lingering()  # so that the client gets to read why

    def _check_client(self, raw: http1.RawRequest, name: str) -> None:
        if self._client(raw).name != name:
            raise refuse(Code.PROXY_AUTH_REQUIRED)

    # --- tunnels ----------------------------------------------------------------------------

    def _connect(self, raw: http1.RawRequest) -> None:
        if self._tunnel is not None:
            raise refuse(Code.BAD_REQUEST, "There is no CONNECT inside a tunnel.")
        if not http1.request_framing(raw).empty:
            raise refuse(Code.BAD_REQUEST, "A CONNECT has no body.")
        credential = self._gateway.credential(field_values(raw.fields, b"proxy-authorization"))
        self._who = self._identify(credential).name
        destination = names.connect_target(raw.target)
        names.check_host(raw.fields, destination, connect=True, http10=raw.http10)
        self._close_upstream()  # of a plain request before this one
        egress = self._gateway.snapshot.policy.egress
        # What there is to tell of a CONNECT that is let through are the requests inside.
        tunnelled = any(pattern.matches(destination) for pattern in egress.passthrough)
        if tunnelled and not internal.is_served(destination):
            self._gateway.admit(destination)
            self._phase = Phase.RELAY
            self._dial(self._purpose(destination), b"")
            return
        # Egress is judged per request inside, where the client gets to read the answer.
        self._io.send(ESTABLISHED)
        self._tunnel = Tunnel(destination, credential)
        self._raw = self._began_at = None
        self._phase = Phase.SHAKE
        self.deadline = self._io.now() + self._limits.tls_handshake_timeout_s
        early, self._buffer = self._buffer, b""
        self._io.start_tls(destination.host, early)

    # --- endings ----------------------------------------------------------------------------

    def _refuse(self, refused: Refused) -> None:
        """Answer with the problem, or break the connection where an answer has begun."""
        problem = refused.problem
        self.let_go()
        job, raw = self._job, self._raw
        self._job = self._raw = self._work = self.deadline = None
        request_id = refused.request_id or self._record(problem, job)
        self._services.log(
            "request.refused",
            code=str(problem.code),
            request_id=request_id,
            host=problem.host,
            operator=problem.operator,
        )
        if self._traces is not None:
            host = problem.host or (self._tunnel.destination.host if self._tunnel else "")
            status = job.answer.status if job is not None and job.answer.began else problem.status
            self._trace(raw, job, str(problem.code), status, host)
        if self._phase is Phase.RELAY and raw is not None:
            self._phase = Phase.HEAD  # a passthrough tunnel that did not come about
        if job is not None:
            self._close_upstream()
            if job.answer.began:
                self._close_all()
                return
        if self._phase in (Phase.LINGER, Phase.SHAKE, Phase.RELAY, Phase.CLOSED):
            self._close_all()
            return
        keep = raw is not None and raw.keep_alive and self._phase is not Phase.BODY
        keep = keep and problem.code not in (Code.BAD_REQUEST, Code.TOO_MANY_CONNECTIONS)
        body = problem.body(request_id)
        lines = [http1.length_line(len(body))] + ([] if keep else [http1.CLOSE_LINE])
        line = b"HTTP/1.1 %d %b" % (problem.status, problem.title.encode())
        head = http1.write_head(line, problem.fields(), *lines)
        if raw is not None and raw.method == b"HEAD":
            body = b""
        self._io.send(head + body)
        if keep:
            self._phase = Phase.HEAD
        else:
            self._start_lingering()

    def _record(self, problem: Problem, job: _Job | None) -> str:
        if job is not None:
            job.exchange.record_refusal(problem)
            return job.exchange.request_id
        request_id = self._gateway.new_id()
        destination = self._tunnel.destination if self._tunnel else None
        origin = Origin(self._who, self._address)
        self._gateway.record_refusal(origin, problem, request_id, destination)
        return request_id

    def _start_lingering(self) -> None:
        # Closing at once would reset the connection under a client that is still sending, and it
        # would never read the answer.
        self._phase, self._buffer = Phase.LINGER, b""
        self.deadline = self._io.now() + LINGER_S

    def _linger(self) -> None:
        self._rounds += 1
        if self._heard and self._rounds < LINGER_ROUNDS:
            self._heard = 0
            self.deadline = self._io.now() + LINGER_S
        else:
            self._close_all()

    def _silence(self) -> None:
        if self._phase is Phase.WAIT and self._job and not self._job.answer.began:
            raise refuse(
                Code.UPSTREAM_TIMEOUT,
                "The upstream did not answer in time.",
                hint="limits.response_timeout_s sets the bound",
            )
        if self._socket is not None:
            self._socket_moved(self._socket.go_away)
            return
        self._close_all()

    def _close_upstream(self) -> None:
        """Close the upstream connection, or leave it to the client's next one."""
        purpose, rests = self._serving, self._rests
        self._serving = self._dialling = None
        self._rests = False
        if rests and purpose is not None:
            self._io.leave(purpose)
        else:
            self._io.close_upstream()

    def _trace(
        self,
        raw: http1.RawRequest | None,
        job: _Job | None,
        outcome: str,
        status: int,
        host: str = "",
    ) -> None:
        """Hand over what there is to tell of the request that is over."""
        if self._traces is None:
            return
        now = self._clock()
        began, self._began_at = self._began_at, None
        parents = () if raw is None else field_values(raw.fields, b"traceparent")
        connect_s = None
        if job is not None and job.sent_at:
            connect_s = job.sent_at - self._read_at - job.held_s
        self._traces.ended(
            tracing.Ended(
                self._gateway.snapshot,
                self._who,
                host if job is None else job.exchange.told_host,
                "" if raw is None else raw.method.decode("latin-1"),
                outcome,
                status,
                parents[0] if len(parents) == 1 else b"",
                now if began is None else began,
                0.0 if began is None else now - began,
                self._queue_s,
                connect_s,
                None if job is None else job.upstream_s,
                None if job is None else job.added_s,
            )
        )

    def _close_all(self) -> None:
        if self._began_at is not None and self._raw is not None:
            status = self._job.answer.status if self._job is not None else 0
            self._trace(self._raw, self._job, tracing.CUT_OFF, status)
        self._phase = Phase.CLOSED
        self.let_go()
        self._job = self._socket = self._work = self.deadline = None
        self._buffer = b""
        self._close_upstream()
        self._io.close()

    def _current(self) -> _Job:
        if self._job is None:
            raise refuse(Code.INTERNAL_ERROR)
        return self._job


def _nothing(_: bytes) -> None:
    """Of a request that may not leave yet there is nothing to deliver."""


def _opened(exchange: Exchange, content: bytes) -> Generator[bytes, None, tuple[Outgoing, bytes]]:
    """The request that grew too large to be collected, and what came of its first *content*."""
    out = exchange.open()
    first: list[bytes] = []
    for data in exchange.feeding(content, last=False):
        first.append(data)
        yield b""
    return out, b"".join(first)


def _is_plain(job: _Job) -> bool:
    answer = job.answer
    good = answer.told_its_end and not answer.asked_for_credentials
    return good and not job.exchange.is_searched_apart


def upstream_problem(code: Code, host: str) -> Problem:
    """What a client is told of a connection that could not be made."""
    return Problem(code, host=host)
