"""One connection of a client through a whole lane: bytes in, and everything that came of them.

Three readers stand round the lane: `Watched` writes down what the gateway was given and gave back
(what the lane understood), h11 reads what was written upstream, and `reference` reads what the
client sent and got. Their three stories must be one.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import h11

from coatcheck import policyfile
from coatcheck.core.destination import Destination, parse_domain_pattern
from coatcheck.core.limits import Limits
from coatcheck.core.message import RequestHead
from coatcheck.core.snapshot import Snapshot
from coatcheck.engine.lane import Tunnel
from coatcheck.gateway import NO_BODY, Body, Exchange, Gateway, Origin, Outgoing
from coatcheck.store.memory import MemoryStore
from tests.core import matcher
from tests.engine.wire import Book, Upstream, Wire
from tests.fuzz import case, reference
from tests.fuzz.case import check, check_clean

POLICY = """
version: 1
clients:
  local: {networks: ["127.0.0.1/32"]}
grants:
  - {secrets: ["*"], clients: [local], plaintext: true, max_uses: 50}
"""
ALLOWED = "api.example.com"
WHERE_ALLOWED = (Destination("https", ALLOWED, 443), Destination("http", ALLOWED, 80))
INSIDE = Tunnel(WHERE_ALLOWED[0], None)
# Small, so that small inputs meet them.
LIMITS = Limits(head_bytes=1024, head_fields=12, target_bytes=256, body_buffer_bytes=256)
BUGS = ("engine.crash", "lane.internal_error")
CLOSE = (b"Connection", b"close")
FRAMING = (b"content-length", b"transfer-encoding")


@dataclass
class Understood:
    """One request as the lane gave it to the gateway, and as the gateway gave it back."""

    destination: Destination
    head: RequestHead
    out: Outgoing | None = None
    body: bytes = b""

    def request(self) -> tuple[bytes, bytes, reference.Fields, bytes]:
        head = self.out.head if self.out else self.head
        return head.method, head.target, _lower(head.fields), self.body


class Watched(Gateway):
    """A gateway whose exchanges are written down."""

    def __init__(self) -> None:
        store = MemoryStore()
        domains = [parse_domain_pattern(ALLOWED), parse_domain_pattern(ALLOWED + ":80")]
        for name, value in (("key", case.PLAIN), ("odd", case.ODD)):
            store.put(name, value, domains=domains, description="", now=1.0)
        snapshot = Snapshot(policyfile.parse(POLICY, "policy.yaml"), store.view())
        super().__init__(snapshot, Book(), LIMITS, now=lambda: 1.0, new_id=lambda: "id")
        self.understood: list[Understood] = []

    def restart(self) -> None:
        self.log = Book()
        self.understood = []

    def begin(
        self, origin: Origin, destination: Destination, head: RequestHead, body: Body = NO_BODY
    ) -> Exchange:
        exchange = super().begin(origin, destination, head, body)
        one = Understood(destination, head)
        self.understood.append(one)
        _watch(exchange, one)
        return exchange


def _watch(exchange: Exchange, one: Understood) -> None:
    open_, opening, feeding, feed, finish = (
        exchange.open,
        exchange.opening,
        exchange.feeding,
        exchange.feed_request,
        exchange.finish_request,
    )

    def open_now() -> Outgoing:  # without a body
        one.out = open_()
        return one.out

    def opening_(body: bytes | None = None) -> Generator[bytes, None, Outgoing]:
        one.out = yield from opening(body)
        one.body += one.out.body
        return one.out

    def feeding_(chunk: bytes, *, last: bool) -> Generator[bytes]:
        for out in feeding(chunk, last=last):
            one.body += out
            yield out

    def feed_(chunk: bytes) -> bytes:  # of a body that passes as it is
        out = feed(chunk)
        one.body += out
        return out

    def finish_() -> bytes:
        out = finish()
        one.body += out
        return out

    exchange.open = open_now  # type: ignore[assignment, method-assign]
    exchange.opening, exchange.feeding = opening_, feeding_  # type: ignore[method-assign]
    exchange.feed_request, exchange.finish_request = feed_, finish_  # type: ignore[method-assign]


class Reader:
    """h11 at the other end of an upstream connection."""

    def __init__(self, upstream: Upstream) -> None:
        self.destination = upstream.destination
        self.tls = upstream.tls
        self.read: list[tuple[bytes, bytes, reference.Fields, bytes]] = []
        self.raw = b""
        self.unanswered = 0
        self.upstream = upstream
        self._h11 = _server()
        self._request: h11.Request | None = None
        self._body = b""

    def take(self) -> None:
        """Read on.

        Raises:
            Finding: h11 does not take what was written.
        """
        new, self.upstream.received = self.upstream.received, b""
        if not new:
            return
        self.raw += new
        try:
            self._h11.receive_data(new)
            while (event := self._h11.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                self._event(event)
        except h11.RemoteProtocolError as error:
            raise case.Finding("h11 refuses what was sent upstream", (str(error), self.raw)) from (
                None
            )

    def _event(self, event: Any) -> None:
        if isinstance(event, h11.Request):
            self._request, self._body = event, b""
        elif isinstance(event, h11.Data):
            self._body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage) and self._request is not None:
            request = self._request
            fields = _lower(tuple(request.headers.raw_items()))
            self.read.append((request.method, request.target, fields, self._body))
            self.unanswered += 1
            self._next_cycle()

    def _next_cycle(self) -> None:
        # What follows is read by a new h11: this one would wait for the answer.
        rest, _ = self._h11.trailing_data
        self._h11 = _server()
        if rest:  # no bytes would mean the end of the connection
            self._h11.receive_data(rest)


def _server() -> h11.Connection:
    return h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)


def _lower(fields: Any) -> reference.Fields:
    kept = [(bytes(key).lower(), bytes(value)) for key, value in fields]
    return [one for one in kept if one[0] not in FRAMING]


@dataclass
class Talk:
    """What came of one connection."""

    sent: bytes
    inside: bool
    understood: list[Understood]
    upstreams: list[Reader]
    client: bytes
    closed: bool
    events: list[str]
    records: list[Any] = field(default_factory=list)

    def responses(self) -> tuple[list[reference.Message], bool]:
        methods = [request.first for request in reference.requests(self.sent)]
        read, is_all = reference.responses(self.client, methods)
        if not is_all and read and CLOSE in read[-1].fields:
            # A head that is refused unread gets a body whatever its method is; then it is over.
            return reference.responses(self.client, [*methods[: len(read) - 1], b"GET"])
        return read, is_all

    @property
    def connects(self) -> int:
        return self.client.count(b"200 Connection established")

    def story(self) -> Story:
        got, _ = self.responses()
        sent = [(up.destination, up.tls, one) for up in self.upstreams for one in up.read]
        said = [
            (one.first, [f for f in one.fields if f[0] != b"Connection"], one.body) for one in got
        ]
        return Story(sent, said, bool(got) and CLOSE in got[-1].fields)


@dataclass
class Story:
    """What must not depend on how the client's bytes were cut: the requests that arrived whole, the
    responses, and whether the last of them says that the connection closes."""

    requests: list[Any]
    responses: list[Any]
    closes: bool


def _agree(short: Story, long: Story) -> bool:
    """Whether the responses of *short* begin those of *long*. Of two faults in one body, a
    placeholder and a chunk behind it, say, the one that is there first is told at its end."""
    told, others = short.responses, long.responses[: len(short.responses)]
    if told == others:
        return True
    both = [told[-1], others[-1]]
    refused = all(any(name == b"Coatcheck-Error" for name, _ in one[1]) for one in both)
    return refused and (short.closes or long.closes) and told[:-1] == others[:-1]


def check_one_story(stories: list[Story]) -> None:
    """All *stories* are one. It may end early in one of them: a streamed body that is refused has
    to close the connection where the rest of the body is not there yet."""
    first, *others = stories
    for other in others:
        short, long = sorted((first, other), key=lambda story: len(story.responses))
        same = _agree(short, long)
        ends_early = short.closes or (long.closes and len(short.responses) == len(long.responses))
        common = min(len(short.requests), len(long.requests)) if ends_early else None
        same = same and short.requests[:common] == long.requests[:common]
        same = same and (ends_early or len(short.responses) == len(long.responses))
        check(same, "the result depends on how the request was cut", (first, other))


GATEWAY = Watched()


def talk(pieces: list[bytes], *, inside: bool = False) -> Talk:
    """Send *pieces* as a client. Whatever arrives upstream is echoed as soon as it is whole."""
    GATEWAY.restart()
    wire = Wire(GATEWAY, INSIDE if inside else None)
    readers: list[Reader] = []
    client = b""
    for piece in pieces:
        if wire.closed:
            break
        client += wire.send(piece)
        client += _answer_all(wire, readers)
    sent = b"".join(pieces)
    return Talk(
        sent, inside, GATEWAY.understood, readers, client, wire.closed, wire.events, [*wire.audit]
    )


def _answer_all(wire: Wire, readers: list[Reader]) -> bytes:
    got = b""
    while True:
        readers += [Reader(upstream) for upstream in wire.upstreams[len(readers) :]]
        for reader in readers:
            reader.take()
        reader = next((r for r in readers if r.unanswered and not r.upstream.closed), None)
        if reader is None:
            return got
        reader.unanswered -= 1
        got += wire.answer(echo(reader.read[-1]), of=reader.upstream)


def echo(request: tuple[bytes, bytes, reference.Fields, bytes]) -> bytes:
    """An answer that holds all of *request*, each part as it stands."""
    method, target, fields, body = request
    content = b"" if method == b"HEAD" else b"\n".join([target, *(v for _, v in fields), body])
    return b"HTTP/1.1 200 OK\r\nX-Echo: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        target,
        len(content),
        content,
    )


def check_talk(told: Talk) -> None:
    """The three stories agree, and no value is where it must not be."""
    check(not set(BUGS) & set(told.events), "an internal error", told.events)
    _check_upstreams(told)
    _check_against_client(told)
    got, is_all = told.responses()
    check(is_all, "the client gets bytes that are no response", told.client)
    bound = len(told.understood) + told.events.count("request.refused") + told.connects
    check(len(got) <= bound, "more responses than requests", told.client)
    if case.holds_value(told.sent):
        return  # the client knows it already
    check_clean(told.client, "a value reaches the client")
    check_clean(repr(told.records).encode(), "a value in the audit log")
    check_clean(repr(told.events).encode(), "a value in the log")
    for upstream in told.upstreams:
        to = upstream.destination
        check(upstream.tls is (to.scheme == "https"), "TLS where it is not, or none", str(to))
        if to not in WHERE_ALLOWED:
            check_clean(upstream.raw, "a value at a host that is not allowed")
        check(not told.inside or to == INSIDE.destination, "a tunnel that leads elsewhere", str(to))


def _check_upstreams(told: Talk) -> None:
    """What h11 has read of each connection is what the lane understood for it, in order."""
    for upstream in told.upstreams:
        to = upstream.destination
        sent = [one.request() for one in told.understood if one.destination == to and one.out]
        at = 0
        for request in upstream.read:
            while at < len(sent) and sent[at] != request:
                at += 1  # went over an earlier connection, or was broken off
            check(at < len(sent), "a request upstream that the lane did not understand", request)
            at += 1


def _check_against_client(told: Talk) -> None:
    """What the lane understood is what a strict reader reads of the client's bytes."""
    read = reference.requests(told.sent)
    uploaded = [request for upstream in told.upstreams for request in upstream.read]
    at = 0
    for one in told.understood:
        while at < len(read) and not (
            _is_same_head(one, read[at]) and _names_agree(one, read[at], told.inside)
        ):
            at += 1  # refused before the gateway saw it
        check(at < len(read), "the lane read a request that is none", (one.head, one.destination))
        if one.out is not None and one.request() in uploaded:
            check(read[at].whole, "a body was sent on as whole that is not", one.body)
            if not one.head.all(b"content-encoding") and not case.holds_value(one.body):
                check(one.body == read[at].body, "another body than the client sent", one.body)
        at += 1


def _names_agree(one: Understood, message: reference.Message, inside: bool) -> bool:
    """Whether every name in the request is that of where it goes."""
    to = one.destination
    names = message.all(b"host")
    if len(names) != 1 and (names or message.version != b"HTTP/1.0"):
        return False
    if not inside:
        names.append(re.split(rb"[/?]", message.second.partition(b"://")[2], maxsplit=1)[0])
    return all(
        b"[" in name or matcher.allows(name.decode("latin-1"), to.scheme, to.host_field().decode())
        for name in names
    )


def _is_same_head(one: Understood, message: reference.Message) -> bool:
    return (
        message.first == one.head.method
        and message.second.endswith(one.head.target.removeprefix(b"/"))
        and message.fields == list(one.head.fields)
    )
