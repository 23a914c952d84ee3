"""Runs bytes through a lane, and keeps what the gateway saw and let out.

What was understood is taken at the gateway, where heads and bodies are values: the lane frames and
writes them afterwards, so a mistake of its reading or of its writing shows as a difference.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from coatcheck import policyfile
from coatcheck.core.destination import Destination, parse_domain_pattern
from coatcheck.core.limits import Limits
from coatcheck.core.message import Fields, RequestHead, ResponseHead
from coatcheck.core.redact import Pieces
from coatcheck.core.snapshot import Snapshot
from coatcheck.engine.lane import Tunnel
from coatcheck.gateway import (
    NO_BODY,
    Body,
    Exchange,
    Gateway,
    Incoming,
    Origin,
    Outgoing,
    at_once,
)
from coatcheck.store.memory import MemoryStore
from tests.engine.wire import POLICY, VALUE, Book, Wire

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"  # an answer that fits every method
SEARCHED = "api.example.com"  # a secret may go there: answers are searched, and framed anew
UNSEARCHED = "plain.example.com"
HOP_FIELDS = frozenset({b"connection"})
FRAMING = frozenset({b"content-length", b"transfer-encoding"})


@dataclass(frozen=True)
class Read:
    """A request as somebody understood it. Field names in lower case, values without blanks around
    them; the framing fields are left out, for the body says what they meant."""

    method: bytes
    target: bytes
    fields: Fields
    body: bytes


@dataclass(frozen=True)
class Reply:
    """A response as somebody understood it; fields as in `Read`."""

    status: int
    reason: bytes
    fields: Fields
    body: bytes


def plain_fields(fields: Fields) -> Fields:
    """*fields* as `Read` and `Reply` hold them."""
    low = ((key.lower(), value.strip(b" \t")) for key, value in fields)
    return tuple(pair for pair in low if pair[0] not in FRAMING | HOP_FIELDS)


def framed_once(fields: Fields) -> bool:
    """At most one field says where the body ends."""
    return len([key for key, _ in fields if key.lower() in FRAMING]) <= 1


class Kept:
    """An `Exchange` that keeps what went through it."""

    def __init__(self, exchange: Exchange, head: RequestHead) -> None:
        self._exchange = exchange
        self.head = head
        self.taken: list[bytes] = []  # of the client's body
        self.out: Outgoing | None = None
        self.body: list[bytes] = []
        self.complete = False
        self.incoming: Incoming | None = None
        self.answer: list[bytes] = []
        self.answered = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exchange, name)

    def open(self, body: bytes | None = None) -> Outgoing:
        return at_once(self.opening(body))

    def opening(self, body: bytes | None = None) -> Generator[bytes, None, Outgoing]:
        out = self.out = yield from self._exchange.opening(body)
        self.taken.append(body or b"")
        self.body.append(out.body)
        self.complete = body is not None or self._exchange.plan == "none"
        return out

    def feed_request(self, chunk: bytes) -> bytes:
        self.taken.append(chunk)
        return self._kept(self.body, self._exchange.feed_request(chunk))

    def finish_request(self) -> bytes:
        out = self._kept(self.body, self._exchange.finish_request())
        self.complete = True
        return out

    def feeding(self, chunk: bytes, *, last: bool) -> Generator[bytes]:
        self.taken.append(chunk)
        for out in self._exchange.feeding(chunk, last=last):
            yield self._kept(self.body, out)
        self.complete = last

    def response(
        self, head: ResponseHead, *, has_body: bool, length: int | None = None
    ) -> Incoming:
        self.incoming = self._exchange.response(head, has_body=has_body, length=length)
        return self.incoming

    def response_pieces(self, chunk: bytes) -> Pieces:
        return (self._kept(self.answer, b"".join(self._exchange.response_pieces(chunk))),)

    def finish_response(self) -> bytes:
        out = self._kept(self.answer, self._exchange.finish_response())
        self.answered = True
        return out

    @staticmethod
    def _kept(parts: list[bytes], part: bytes) -> bytes:
        parts.append(part)
        return part

    @property
    def request(self) -> Read:
        """What is to leave."""
        assert self.out is not None
        head = self.out.head
        return Read(head.method, head.target, plain_fields(head.fields), b"".join(self.body))

    @property
    def came_in(self) -> tuple[bytes, bytes, bytes]:
        """Method, target and body as they were read from the client."""
        return self.head.method, self.head.target, b"".join(self.taken)

    @property
    def reply(self) -> Reply:
        """What is to reach the client."""
        assert self.incoming is not None
        head = self.incoming.head
        return Reply(head.status, head.reason, plain_fields(head.fields), b"".join(self.answer))


class KeepingGateway(Gateway):
    """A gateway that keeps every exchange it has begun."""

    def begin(
        self, origin: Origin, destination: Destination, head: RequestHead, body: Body = NO_BODY
    ) -> Exchange:
        kept = Kept(super().begin(origin, destination, head, body), head)
        self.__dict__.setdefault("kept", []).append(kept)
        return kept  # type: ignore[return-value]

    @property
    def exchanges(self) -> list[Kept]:
        return list(self.__dict__.get("kept", []))


def a_snapshot(secrets: Mapping[str, bytes]) -> Snapshot:
    store = MemoryStore()
    domains = [parse_domain_pattern(SEARCHED), parse_domain_pattern(SEARCHED + ":80")]
    for name, value in secrets.items():
        store.put(name, value, domains=domains, description="", now=1.0)
    return Snapshot(policyfile.parse(POLICY, "policy.yaml"), store.view())


ONE_SECRET = a_snapshot({"key": VALUE})


def a_wire(host: str = SEARCHED, *, tunnel: bool = True, snapshot: Snapshot = ONE_SECRET) -> Wire:
    """A lane inside a tunnel to *host*, or one that takes absolute-form targets."""
    gateway = KeepingGateway(
        snapshot,
        Book(),
        Limits(),
        now=time.time,
        new_id=map("request-{}".format, itertools.count(1)).__next__,
    )
    return Wire(gateway, Tunnel(Destination("https", host, 443), None) if tunnel else None)


def exchanges_of(wire: Wire) -> list[Kept]:
    assert isinstance(wire.gateway, KeepingGateway)
    return wire.gateway.exchanges


@dataclass
class Outcome:
    """What came of a client's bytes.

    Attributes:
        understood: The requests that were let out whole, in order.
        came_in: The same, as they were read.
        cut: How many were let out in part, and then refused.
        sent: What each upstream connection was sent.
        codes: Of the refusals that the client got.
        crashed: Something happened that no lane should survive.
    """

    understood: list[Read] = field(default_factory=list)
    came_in: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    cut: int = 0
    sent: list[bytes] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    crashed: bool = False


def run(
    data: bytes, *, step: int = 0, tunnel: bool = True, snapshot: Snapshot = ONE_SECRET
) -> Outcome:
    """*data* from a client, in pieces of *step* bytes (0: in one), each request answered."""
    wire = a_wire(tunnel=tunnel, snapshot=snapshot)
    got, answered = b"", 0
    for piece in pieces(data, step):
        got += wire.send(piece)
        while len(whole := [kept for kept in exchanges_of(wire) if kept.complete]) > answered:
            answered = len(whole)
            got += wire.answer(NO_CONTENT)
    wire.leave()
    exchanges = exchanges_of(wire)
    whole = [kept for kept in exchanges if kept.complete]
    return Outcome(
        [kept.request for kept in whole],
        [kept.came_in for kept in whole],
        len([kept for kept in exchanges if kept.out is not None and not kept.complete]),
        [upstream.received for upstream in wire.upstreams],
        [code.decode() for code in re.findall(rb"\r\nCoatcheck-Error: (\w+)\r\n", got)],
        "engine.crash" in wire.events or "lane.internal_error" in wire.events,
    )


def pieces(data: bytes, step: int) -> Iterator[bytes]:
    for at in range(0, len(data), step or len(data) or 1):
        yield data[at : at + step] if step else data
