"""Listeners and connections: each client gets a `Connection` with a lane on top.

A connection is two channels, the client's and the upstream's, and the lane between them, which
says what is written where. Upstream connections come from `engine.dialer`. No Master, no addons and
no option files of mitmproxy run here; docs/decisions says what of it does.

Time is looked at from one place too: a sweep over all connections, a few times a second at most,
asks each whether it is overdue or silent. A timer for each connection would cost more than that.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from coatcheck import listening
from coatcheck.core.destination import Destination
from coatcheck.core.problems import Code, Refused
from coatcheck.engine import harden
from coatcheck.engine.acceptor import ACCEPTED_AT_ONCE, Acceptor
from coatcheck.engine.admission import Admission
from coatcheck.engine.channel import Channel, ServerSide
from coatcheck.engine.dialer import Dialer
from coatcheck.engine.lane import Lane, Services
from coatcheck.engine.pool import Pool, Purpose
from coatcheck.engine.tls import ClientTls
from coatcheck.engine.turns import Turns
from coatcheck.listening import Listener

SWEEP_S = 0.5  # how often connections are looked at, at least
DRAIN_S = 10.0  # how long open connections may go on after SIGTERM
DRAIN_LOOK_S = 0.05  # how often they are looked at meanwhile


class Connection:
    """One client connection: the owner of its channels, and what its lane acts through."""

    def __init__(self, server: ProxyServer, sock: socket.socket, address: str) -> None:
        """*sock*: the client's, as in `Channel`. *address*: the client's IP address."""
        self._server = server
        self._services = server.services
        self._loop = server.loop
        self._client = Channel(self._loop, sock, self)
        self._upstream: Channel | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._working: asyncio.Task[None] | None = None
        self._yielding = False  # others have their turn
        self._stuck = False  # and its own waits for the upstream to take what it was sent
        self._answering = False  # others have their turn, and then its answer goes on
        self._answer_stuck = False  # as soon as the client takes more
        self._lane: Lane | None = None
        self._host = ""  # of the CONNECT
        self._moved = self._loop.time()
        self._ticket = server.admission.admit(address, self.abort)
        if self._ticket is None:
            self._services.meter.client_connections.add(("turned_away",))
            self._client.abort()
            return
        self._services.meter.client_connections.add(("admitted",))
        self._lane = Lane(self, self._services, address, self._ticket)
        server.connections.add(self)
        server.tell_count()

    # --- what the channels tell -------------------------------------------------------------

    def received(self, channel: Channel, data: bytes, /) -> None:
        lane = self._lane
        if lane is None:
            return
        self._moved = self._loop.time()
        if channel is self._client:
            lane.client_data(data)
        elif channel is self._upstream:
            lane.upstream_data(data)
        else:
            channel.abort()  # an upstream that speaks before it is asked

    def secured(self, channel: Channel, /) -> None:
        tls = channel.tls
        if self._lane is not None and isinstance(tls, ServerSide):
            resumed = "resumed" if tls.session_reused else "full"
            self._services.meter.client_handshakes.add((resumed,))
            self._lane.secured(tls.server_name)

    def closed(self, channel: Channel, /) -> None:
        lane = self._lane
        if channel is self._client:
            if channel.shaking:
                # Nearly always a client that does not trust our CA.
                self._services.log("client.tls_failed", host=self._host)
                self._services.meter.client_handshakes.add(("failed",))
            if lane is not None:
                lane.client_closed()
            self._gone()
        elif channel is self._upstream:
            self._upstream = None
            self._server.dialer.remember(channel)
            channel.close()
            self._regulate()
            if lane is not None:
                lane.upstream_closed()

    def full(self, channel: Channel, /) -> None:
        self._regulate()

    def drained(self, channel: Channel, /) -> None:
        self._regulate()

    def _regulate(self) -> None:
        """Read where what is read can go on; the rest waits in its socket, not in our memory."""
        client, upstream = self._client, self._upstream
        stuck = upstream is not None and upstream.is_full
        if self._stuck and not stuck:
            self._stuck = False
            self._server.turns.ask(self._go_on)
        if self._answer_stuck and not client.is_full:
            self._answer_stuck = False
            self._server.turns.ask(self._answer_on)
        busy = self._dialling is not None or self._working is not None
        busy = busy or self._yielding or self._answering
        if busy or client.is_full or stuck:
            client.pause()
        else:
            client.resume()
        if upstream is not None:
            if client.is_full or self._answering:
                upstream.pause()
            else:
                upstream.resume()

    def crashed(self, channel: Channel, /) -> None:
        self._services.log("engine.crash", what="lane")
        self.abort()

    # --- what the lane does -----------------------------------------------------------------

    def now(self) -> float:
        return self._loop.time()

    def send(self, data: bytes, /) -> None:
        self._client.write(data)

    def send_upstream(self, data: bytes, /) -> None:
        if self._upstream is not None:
            self._upstream.write(data)

    def start_tls(self, host: str, early: bytes, /) -> None:
        self._host = host
        try:
            context = self._server.tls.context(host)
        except Exception as error:  # fail closed: without a certificate there is no connection
            self._services.log("client.tls_not_started", error=type(error).__name__)
            self.close()
            return
        self._client.start_tls(context, server_side=True, early=early)

    def dial(self, destination: Destination, /, *, tls: bool) -> None:
        self._dialling = self._loop.create_task(self._dial(destination, tls))
        self._regulate()

    def take_turns(self) -> None:
        self._yielding = True
        self._regulate()
        self._server.turns.ask(self._go_on)

    def _go_on(self) -> None:
        if self._upstream is not None and self._upstream.is_full:
            self._stuck = True
            return
        self._yielding = False
        self._moved = self._loop.time()  # it is at work, and not silent
        self._guarded(Lane.go_on)
        self._regulate()

    def take_answer_turns(self) -> None:
        self._answering = True
        self._regulate()
        self._server.turns.ask(self._answer_on)

    def _answer_on(self) -> None:
        if self._client.is_full:
            self._answer_stuck = True
            return
        self._answering = False
        self._moved = self._loop.time()
        self._guarded(Lane.answer_on)
        self._regulate()

    def work(self, work: Callable[[], None], /) -> None:
        self._working = self._loop.create_task(self._work(work))
        self._regulate()

    async def _work(self, work: Callable[[], None]) -> None:
        try:
            await self._loop.run_in_executor(self._server.builder, work)
        except Exception as error:  # the request that needs it will fail, and say why
            self._services.log("build.failed", error=type(error).__name__)
        self._working = None
        self._moved = self._loop.time()
        self._guarded(lambda lane: lane.worked())
        self._regulate()

    def close_upstream(self) -> None:
        if self._dialling is not None:
            self._dialling.cancel()
            self._dialling = None
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            self._server.dialer.remember(upstream)
            upstream.close()
        self._regulate()

    def leave(self, purpose: Purpose, /) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            self._server.dialer.remember(upstream)
            self._server.pool.give(purpose, upstream)
        self._regulate()

    def take_over(self, purpose: Purpose, /) -> bool:
        channel = self._server.pool.take(purpose)
        if channel is None:
            return False
        channel.own(self)
        self._upstream = channel
        self._regulate()
        return True

    def wake_after(self, seconds: float, /) -> None:
        self._loop.call_later(seconds, self._guarded, Lane.woken)

    def close(self) -> None:
        self._give_up_working()
        self.close_upstream()
        self._client.close()
        self._gone()

    def _give_up_working(self) -> None:
        if self._working is not None:
            self._working.cancel()
            self._working = None

    async def _dial(self, destination: Destination, tls: bool) -> None:
        code: Code | None = None
        meter = self._services.meter
        began = meter.clock()
        try:
            channel = await self._server.dialer.dial(
                destination.host,
                destination.port,
                tls=tls,
                owner=self,
            )
        except Refused as refused:
            code = refused.problem.code
        except Exception as error:  # fail closed: no connection
            self._services.log("dial.internal_error", error=type(error).__name__)
            code = Code.INTERNAL_ERROR
        else:
            if channel.is_open:
                self._upstream = channel
                meter.upstream_connect.add(meter.clock() - began)
            else:
                code = Code.UPSTREAM_UNREACHABLE
        meter.upstream_connections.add(("made" if code is None else str(code),))
        self._dialling = None
        self._moved = self._loop.time()
        self._guarded(lambda lane: lane.dialled(code))
        self._regulate()

    # --- time and ends ----------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Act on what is overdue or silent."""
        lane = self._lane
        if lane is None or self._dialling is not None or self._working is not None:
            return  # a dial has times of its own
        self._guarded(Lane.look)
        if lane.deadline is not None and now >= lane.deadline:
            self._guarded(lambda lane: lane.overdue())
        elif now - self._moved > lane.quiet_limit_s:
            self._moved = now
            self._guarded(lambda lane: lane.silence())

    def go_away(self) -> None:
        """Say goodbye where a connection has no end of its own."""
        self._guarded(Lane.go_away)

    @property
    def has_upstream(self) -> bool:
        """An upstream connection is open for it."""
        return self._upstream is not None

    @property
    def idle(self) -> bool:
        """No request is under way."""
        return self._lane is None or self._lane.idle

    def abort(self) -> None:
        """Close everything now."""
        self._give_up_working()
        if self._dialling is not None:
            self._dialling.cancel()
            self._dialling = None
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()
        self._client.abort()
        self._gone()

    def _guarded(self, act: Callable[[Lane], None]) -> None:
        lane = self._lane
        if lane is None:
            return
        try:
            act(lane)
        except Exception:  # fail closed: any bug ends the connection
            self.crashed(self._client)

    def _gone(self) -> None:
        if self._lane is not None:
            self._lane.let_go()
        self._lane = None  # they hold each other, and would wait for the garbage collector
        self._server.connections.discard(self)
        self._server.tell_count()
        if self._client.is_behind:
            self._server.leaving.add(self._client)
        if self._ticket is not None:
            self._ticket.close()


class Shared(NamedTuple):
    """What the processes that take connections from one socket know of each other.

    Attributes:
        tell: Takes how many connections this one holds.
        is_ahead: Whether it holds clearly more than another.
        leave: Says that it takes no more: however few it holds, nobody is to wait for it.
    """

    tell: Callable[[int], None]
    is_ahead: Callable[[], bool]
    leave: Callable[[], None]


class ProxyServer:
    """The listening sockets and the connections that came in by them.

    Raises `UnsafeError` when it is made with a mitmproxy that it does not fit.
    """

    def __init__(
        self,
        services: Services,
        tls: ClientTls,
        dialer: Dialer,
        admission: Admission | None = None,
    ) -> None:
        harden.symbols()
        self.services = services
        self.admission = admission or Admission(services.gateway.limits, services.log)
        self.tls = tls
        self.dialer = dialer
        gateway = services.gateway
        self.pool = Pool(
            gateway.limits,
            most=self.admission.idle_upstreams,
            policy=lambda: gateway.snapshot.policy.digest,
            now=asyncio.get_running_loop().time,
        )
        self.connections: set[Connection] = set()
        self.leaving: set[Channel] = set()  # closed, with an end that the client has not taken yet
        # One thread: two that want the same search must not both build it.
        self.builder = ThreadPoolExecutor(1, thread_name_prefix="builder")
        self.loop = asyncio.get_running_loop()
        self.turns = Turns(self.loop)
        self._acceptors: list[Acceptor] = []
        self._shared: Shared | None = None
        self._sweeping: asyncio.TimerHandle | None = None

    async def start(self, host: str, port: int) -> list[tuple[str, int]]:
        """Listen; returns the addresses in use (port 0 asks for a free one).

        Raises:
            ListenError: the address is taken, or not ours.
        """
        listeners = await listening.bind(host, port)
        try:
            self.take_from(listeners)
        except OSError as error:  # somebody else was bound there too, and listened first
            raise listening.refused(host, port, error) from None
        return listening.addresses(listeners)

    def take_from(self, listeners: Sequence[Listener], shared: Shared | None = None) -> None:
        """Take connections from sockets that are bound.

        Args:
            shared: Other processes do so too. Then one connection is taken in a turn: a process
                that takes all that wait would have the work of all (measured in docs/decisions).
        """
        self._shared = shared
        self.tell_count()
        for listener in listeners:
            acceptor = Acceptor(
                self.loop,
                listener,
                self._accepted,
                self.services.log,
                at_once=ACCEPTED_AT_ONCE if shared is None else 1,
                is_ahead=None if shared is None else shared.is_ahead,
            )
            self._acceptors.append(acceptor)
        self._sweep()

    def tell_count(self) -> None:
        """Tell the processes that take from the same sockets how many connections there are."""
        if self._shared is not None:
            self._shared.tell(len(self.connections))

    def _accepted(self, sock: socket.socket, address: str) -> None:
        try:
            Connection(self, sock, address)
        except Exception as error:  # fail closed: no connection
            self.services.log("engine.crash", what="accept", error=type(error).__name__)
            sock.close()

    def _sweep(self) -> None:
        now = self.loop.time()
        for connection in list(self.connections):
            connection.sweep(now)
        self.pool.sweep()
        self._forget_those_who_left()
        self._sweeping = self.loop.call_later(self._sweep_s(), self._sweep)

    def _forget_those_who_left(self) -> None:
        if self.leaving:
            self.leaving = {channel for channel in self.leaving if channel.is_behind}

    def _sweep_s(self) -> float:
        limits = self.services.gateway.limits
        shortest = min(
            limits.idle_timeout_s,
            limits.websocket_idle_timeout_s,
            limits.response_timeout_s,
            limits.head_timeout_s,
            limits.tls_handshake_timeout_s,
        )
        return min(SWEEP_S, shortest / 4)

    async def stop(self, drain_s: float = DRAIN_S) -> None:
        """Take no new connections, let requests under way end, close the rest after *drain_s*."""
        for acceptor in self._acceptors:
            acceptor.close()
        if self._shared is not None:
            self._shared.leave()
            self._shared = None
        self.pool.close()
        for connection in list(self.connections):
            connection.go_away()
        end = self.loop.time() + drain_s
        while (self.connections or self.leaving) and self.loop.time() < end:
            # A connection that is kept alive falls idle when its request is over.
            for connection in list(self.connections):
                if connection.idle:
                    connection.close()
            self._forget_those_who_left()
            if self.connections or self.leaving:
                await asyncio.sleep(DRAIN_LOOK_S)
        for connection in list(self.connections):
            connection.abort()
        for channel in self.leaving:
            channel.abort()
        await asyncio.sleep(0)  # for the sockets to close
        if self._sweeping is not None:
            self._sweeping.cancel()
        self.builder.shutdown(wait=False, cancel_futures=True)
