"""The one path of a request and of its response: decide, open, inject, record; scrub, record.

Read this file first. A `Gateway` holds the snapshot in force; each request gets an `Exchange`,
which sees that one snapshot from start to end. Both work on values (heads, chunks of bytes) and
know neither sockets nor HTTP framing, so any engine can drive them:

    exchange = gateway.begin(origin, destination, head, body)   # decides on the head
    out = exchange.open(whole_body_or_None)                     # injects, and has it on record
    exchange.feed_request(chunk) … exchange.finish_request()    # a streamed body, the same way
    exchange.opening(…), exchange.feeding(…)                    # these two, in small steps
    early = exchange.interim(head)                              # scrubs one that comes before
    back = exchange.response(head, …)                           # scrubs the head
    exchange.feed_response(chunk) … exchange.trailers(fields) … exchange.finish_response()

Every method either returns what may leave or raises `Refused`; whatever else goes wrong inside is
turned into a refusal too. Values are in the open between `StoreView.open` and the bytes returned.

A body may be dear: full of escapes, or a few bytes that decode to many. Who serves others meanwhile
takes it in steps, each bounded in what it looks at, and lets the others have their turn in between.
"""

from __future__ import annotations

import functools
from collections.abc import (
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Concatenate, NamedTuple

from coatcheck.core import audit, bodies, coding, inject, internal, message, policy
from coatcheck.core.aiming import Aim
from coatcheck.core.destination import Destination
from coatcheck.core.filling import Filling
from coatcheck.core.identity import BadCredential, Credential, read_credential
from coatcheck.core.limits import Limits
from coatcheck.core.message import Fields, RequestHead, ResponseHead
from coatcheck.core.placeholder import Grammar
from coatcheck.core.policy import Client
from coatcheck.core.ports import AuditError, AuditLog, StoreError, Used
from coatcheck.core.problems import Code, Problem, Refused, refuse
from coatcheck.core.redact import Needles, Pieces
from coatcheck.core.scrubbing import Scrubbing, redact
from coatcheck.core.secret import SecretValue
from coatcheck.core.snapshot import Scope, Snapshot, Work
from coatcheck.core.spelling import TooLong
from coatcheck.core.template import Piece, Slot, slots


class Origin(NamedTuple):
    """Who sends: the client's name in the policy, and its IP address."""

    client: str
    address: str


@dataclass(frozen=True, slots=True)
class Body:
    """What the request head announces. ``length`` None: unknown until its end."""

    present: bool = False
    length: int | None = None


NO_BODY = Body(False, 0)


STEP = 8 * 1024  # bytes of a body that are read before what they hold is decided
LONG_STEP = 4 * STEP  # and where what came before them was quick
DEAR_STEP = 4 * 1024  # and where they may hold placeholders, each of which costs time
SLOW_STEP = 1024  # and where it has been slow so far


class BodyPlan(StrEnum):
    """What the engine does with the request body."""

    NONE = "none"
    PASS = "pass"  # noqa: S105 not a password; feed it, it comes out as it is
    COLLECT = "collect"  # read it whole if it stays below the limit, then open(body)
    STREAM = "stream"  # open(None), then feed


class Outgoing(NamedTuple):
    """A request that may leave. ``length`` None: the body's length is not known beforehand."""

    head: RequestHead
    body: bytes
    length: int | None


class Incoming(NamedTuple):
    """A response head that may reach the client; framing fields are the engine's to add.

    Attributes:
        length: What Content-Length may say; None where it is not known, or changes.
        has_body: False for HEAD, 204, 304.
    """

    head: ResponseHead
    length: int | None
    has_body: bool


@dataclass(frozen=True, slots=True)
class Switched:
    """What an exchange leaves to the WebSocket that it opened (`opensocket`).

    Attributes:
        names: The secrets whose values the handshake carried.
        tokens: As in `Filling`.
    """

    snapshot: Snapshot
    facts: audit.Facts
    request: policy.Request
    names: frozenset[str]
    tokens: frozenset[tuple[str, bytes]]


class Gateway:
    """The snapshot in force, and what every exchange shares."""

    def __init__(
        self,
        snapshot: Snapshot,
        log: AuditLog,
        limits: Limits,
        *,
        now: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self.snapshot = snapshot
        self.limits = limits
        self.log = log
        self.now = now
        self.new_id = new_id
        self._uses: dict[str, Used] = {}
        self._opened: dict[SecretValue, float] = {}  # and when it was injected last

    def install(self, snapshot: Snapshot) -> None:
        """Put *snapshot* in force for every request that begins from now on."""
        self.snapshot = snapshot
        with suppress(StoreError):
            self._forget(snapshot)

    def drain_uses(self) -> Mapping[str, Used]:
        """Ids of the secrets injected since the last call, when and how often."""
        uses, self._uses = self._uses, {}
        return uses

    def note_uses(self, values: Mapping[str, SecretValue]) -> None:
        """Remember that *values* (by id of the secret) are being injected now."""
        now = self.now()
        for secret_id, value in values.items():
            before = self._uses.get(secret_id)
            self._uses[secret_id] = Used(now, 1 if before is None else before.count + 1)
            self._opened[value] = now

    def opened_values(self) -> Collection[SecretValue]:
        """Every value that was injected, for the net under the logs; what was replaced as long as
        answers are searched for it, and no request has it any more."""
        return list(self._opened)  # a copy: other threads log too

    def _forget(self, snapshot: Snapshot) -> None:
        """Let go of values that are not in force: with every change of a secret there are more."""
        horizon = self.now() - self.limits.retired_grace_s
        for value, used in list(self._opened.items()):
            if used < horizon:
                secret = snapshot.view.find(value.name)
                if secret is None or secret.version != value.version:
                    del self._opened[value]

    def credential(self, values: Sequence[bytes]) -> Credential | None:
        """Read Proxy-Authorization values.

        Raises:
            Refused: proxy_auth_required, for what is no credential.
        """
        try:
            return read_credential(values)
        except BadCredential:
            raise _unknown_client() from None

    def identify(self, address: str, credential: Credential | None) -> Client:
        """The client behind an address and a credential, by the snapshot in force.

        Raises:
            Refused: proxy_auth_required; one answer whatever was wrong.
        """
        client = self.snapshot.clients.identify(address, credential)
        if client is None:
            raise _unknown_client()
        return client

    def admit(self, destination: Destination) -> None:
        """Check the egress rules, before anything is resolved or dialled.

        Raises:
            Refused: destination_not_allowed.
        """
        _admitted(self.snapshot, destination)

    def unbuilt(self, client: str, destination: Destination) -> Work | None:
        """What takes long and has to be done before a request of *client* to *destination* is
        begun; in another thread, say. None: nothing, or `begin` will say what is wrong."""
        try:
            return self.snapshot.unbuilt(client, destination)
        except StoreError:
            return None

    def begin(
        self, origin: Origin, destination: Destination, head: RequestHead, body: Body = NO_BODY
    ) -> Exchange:
        """Start one request: check egress, find placeholders, decide on those in the head.

        Raises:
            Refused: it must not be sent; the refusal is recorded.
        """
        exchange = Exchange(self, self.snapshot, origin, destination, head, body)
        exchange.decide_head()
        return exchange

    def begin_at(
        self, aim: Aim, origin: Origin, head: RequestHead, body: Body = NO_BODY
    ) -> Exchange:
        """As `begin`, for a request to the URL that is a value, with all the rules of where that
        leads. The target of *head* is the one that the client wrote; `ownhost` has read it."""
        exchange = Exchange(self, aim.snapshot, origin, aim.destination, head, body, aim)
        exchange.decide_head()
        return exchange

    def record_refusal(
        self, origin: Origin, problem: Problem, request_id: str, destination: Destination | None
    ) -> None:
        """Write the audit line of a refusal that no exchange has seen. Never raises."""
        facts = audit.Facts(
            request_id,
            origin.client,
            origin.address,
            destination,
            field_chars=self.limits.audit_field_chars,
        )
        try:
            self.log.write(audit.refused(self.now(), facts, problem))
        except AuditError:
            return  # it is refused already; there is nothing stricter to do


def _admitted(snapshot: Snapshot, destination: Destination) -> Problem | None:
    """Nothing, where the egress rules let clients go to *destination*; where they do not, and the
    policy only reports, what would be refused.

    Raises:
        Refused: destination_not_allowed.
    """
    if internal.is_reserved(destination.host):
        raise refuse(
            Code.DESTINATION_NOT_ALLOWED,
            "This name is coatcheck's own and leads nowhere.",
            hint="coatcheck serve answers at http://coatcheck.internal/ and its https twin",
            host=destination.host,
        )
    if snapshot.admits(destination):
        return None
    refused = refuse(
        Code.DESTINATION_NOT_ALLOWED,
        "The egress rules do not let clients go to this destination.",
        hint="an operator can add the host to egress.allow in the policy",
        host=destination.host,
    )
    if snapshot.policy.mode is not policy.Mode.REPORT:
        raise refused
    return refused.problem


# What of a request never goes on as it came: the engine frames it anew, and names the host.
_OURS = message.HOP_BY_HOP | {b"content-length", b"expect", b"host"}
# What we cannot read we cannot scrub: where that matters no codings are asked for, and no slices.
_UNREADABLE = _OURS | {b"accept-encoding", b"range", b"if-range", b"a-im"}
_PLAIN_ONLY = (b"Accept-Encoding", b"identity")
# Alt-Svc steers clients round the proxy (RFC 7838).
_NOT_FOR_CLIENTS = message.HOP_BY_HOP | {b"content-length", b"alt-svc"}


def _refusing[**P, T](
    step: Callable[Concatenate[Exchange, P], T],
) -> Callable[Concatenate[Exchange, P], T]:
    """Turn whatever goes wrong in *step* into a recorded `Refused`."""

    @functools.wraps(step)
    def guarded(self: Exchange, /, *args: P.args, **more: P.kwargs) -> T:
        try:
            return step(self, *args, **more)
        except Exception as error:  # fail closed: any bug is a refusal
            raise self.refused(error) from None

    return guarded


def _refusing_steps[**P, Y, T](
    steps: Callable[Concatenate[Exchange, P], Generator[Y, None, T]],
) -> Callable[Concatenate[Exchange, P], Generator[Y, None, T]]:
    """As `_refusing`, for what is done in steps."""

    @functools.wraps(steps)
    def guarded(self: Exchange, /, *args: P.args, **more: P.kwargs) -> Generator[Y, None, T]:
        try:
            return (yield from steps(self, *args, **more))
        except Exception as error:  # fail closed: any bug is a refusal
            raise self.refused(error) from None

    return guarded


def steps_of(data: bytes, rewriter: bodies.BodyRewriter, grammar: Grammar) -> Iterator[list[Piece]]:
    """*data* through *rewriter*, as much of it at once as that is done with soon."""
    at, size = 0, STEP
    while at < len(data):
        piece = data[at : at + (SLOW_STEP if rewriter.is_slow else size)]
        if len(piece) > DEAR_STEP and grammar.maybe(piece):
            piece = piece[:DEAR_STEP]
        at += len(piece)
        yield rewriter.feed(piece)
        size = STEP if rewriter.is_slow else min(2 * size, LONG_STEP)


def at_once[T](steps: Generator[object, None, T]) -> T:
    """All of *steps*; what comes of them."""
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            result: T = ended.value
            return result


class Exchange:
    """One request and its response. Methods are called in the order of the module's docstring."""

    def __init__(
        self,
        gateway: Gateway,
        snapshot: Snapshot,
        origin: Origin,
        destination: Destination,
        head: RequestHead,
        body: Body,
        aim: Aim | None = None,
    ) -> None:
        self.request_id = gateway.new_id()
        self.destination = destination
        self.plan = BodyPlan.NONE
        self._gateway = gateway
        self._snapshot = snapshot
        self._head = head
        self._body = body
        self._aim = aim
        method = head.method.decode("latin-1")
        self._facts = audit.Facts(
            self.request_id,
            origin.client,
            origin.address,
            destination if aim is None else aim.shown,
            method,
            head.path.decode("latin-1"),
            gateway.limits.audit_field_chars,
        )
        judged = head if aim is None else RequestHead(head.method, aim.target, head.fields)
        self._request = policy.request_of(origin.client, destination, judged)
        self._filling = Filling(snapshot, self._request, gateway.limits)
        self._scope = Scope((), frozenset())
        self._template: inject.HeadTemplate | None = None
        self._rewriter: bodies.BodyRewriter | None = None
        self._decoder: coding.Decoder | None = None
        self._scrubbing: Scrubbing | None = None
        self._searched: frozenset[str] | None = None  # roaming secrets; None: no answer yet
        self._search: tuple[Needles, ...] | None = None  # None: to be made anew
        self._status = 0
        self._let_go = False
        self._refused = False

    @property
    def told_host(self) -> str:
        """The host that a client may be told: one that it got from a value is not among them."""
        return self.destination.host if self._aim is None else internal.HOST

    # --- request ----------------------------------------------------------------------------

    @_refusing
    def decide_head(self) -> None:
        """Egress, placeholders of the head, and what to do with the body."""
        if (report := _admitted(self._snapshot, self.destination)) is not None:
            self._report([report])
        self._scope = self._snapshot.scope(self._facts.client, self.destination)
        if self._aim is None:
            self._template = inject.read_head(self._head, self._snapshot.grammar)
        else:
            self._template = self._aim.template(self._head.method, self._head.fields)
        if self._template is not None:
            self._decide(self._template.slots())
        self.plan = self._plan_body()

    def open(self, body: bytes | None = None) -> Outgoing:
        """The request to send: values opened and filled in, and the audit line written.

        Args:
            body: The whole body where the plan was COLLECT and it stayed within the limit.

        Raises:
            Refused: nothing may be sent.
        """
        if self._rewriter is None or body is None:  # there is nothing to do in steps
            return self._opened(body, body)
        return at_once(self.opening(body))

    @_refusing_steps
    def opening(self, body: bytes | None = None) -> Generator[bytes, None, Outgoing]:
        """As `open`, in steps. What they yield is empty: nothing may leave before the last."""
        parts: list[list[Piece]] = []
        if body is not None and self._rewriter is not None:
            for part in self._read(body, last=True):
                self._decide(slots(part))  # the first that is refused ends it
                parts.append(part)
                yield b""
        content = body
        if self._rewriter is not None:
            filled: list[bytes] = []
            for part in parts:
                filled.append(self._filling.fill(part))
                yield b""
            content = b"".join(filled)
        return self._opened(body, content)

    @_refusing
    def _opened(self, body: bytes | None, content: bytes | None) -> Outgoing:
        """The request to send with *content*, which came of *body*; recorded."""
        head = self._outgoing_head()
        self._search = None
        self._needles()  # what cannot be searched for in the answer must not be sent
        self._write(audit.allowed(self._gateway.now(), self._facts, self._uses(), self._mask))
        self._let_go = True
        if body is None or content is None:
            return Outgoing(head, b"", self._streamed_length())
        return Outgoing(head, content, len(content))

    def feed_request(self, chunk: bytes) -> bytes:
        """The bytes to send for *chunk* of a streamed body.

        Raises:
            Refused: the body must not go on; the upstream must not take it for complete.
        """
        return chunk if self._rewriter is None else b"".join(self.feeding(chunk, last=False))

    def finish_request(self) -> bytes:
        """What is left to send at the end of a streamed body. Raises as `feed_request`."""
        return b"" if self._rewriter is None else b"".join(self.feeding(b"", last=True))

    def _decide(self, found: Iterable[Slot]) -> None:
        self._filling.decide(found)
        if reports := self._filling.take_reports():
            self._report(reports)

    def _report(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self._write(audit.reported(self._gateway.now(), self._facts, problem, self._mask))

    def _plan_body(self) -> BodyPlan:
        body = self._body
        if not body.present:
            return BodyPlan.NONE
        self._rewriter = bodies.rewriter(self._head.fields, self._snapshot.grammar)
        if self._rewriter is not None:
            self._plan_decoding()
        if self._rewriter is None:
            return BodyPlan.PASS
        if self._decoder is not None:
            return BodyPlan.STREAM  # how large it gets is not known before it is decoded
        if body.length is None or body.length <= self._gateway.limits.body_buffer_bytes:
            return BodyPlan.COLLECT
        return BodyPlan.STREAM

    def _plan_decoding(self) -> None:
        codings = list(message.list_members(self._head.all(b"content-encoding")))
        if codings and not (self._scope.bound or self._scope.roaming):
            # Nothing can be put in here, so there is no reason to open what we need not read.
            self._rewriter = None
            return
        limits = self._gateway.limits
        try:
            self._decoder = coding.decoder(
                codings, max_size=limits.decoded_body_bytes, max_ratio=limits.decoded_ratio
            )
        except coding.CodingError as error:
            raise _undecodable(error) from None

    def _streamed_length(self) -> int | None:
        if self.plan is BodyPlan.NONE:
            return 0
        return self._body.length if self.plan is BodyPlan.PASS else None

    def _read(self, chunk: bytes, *, last: bool) -> Iterator[list[Piece]]:
        """*chunk* through the content coding and the rewriter, in steps of bounded size."""
        rewriter, grammar = self._rewriter, self._snapshot.grammar
        if rewriter is None:
            return
        try:
            for step in self._decoded(chunk, last=last):
                yield from steps_of(step, rewriter, grammar)
        except coding.CodingError as error:
            raise _undecodable(error) from None
        if last:
            yield rewriter.finish()

    def _decoded(self, chunk: bytes, *, last: bool) -> Iterator[bytes]:
        if self._decoder is None:
            yield chunk
            return
        yield from self._decoder.feed(chunk)
        if last:
            yield from self._decoder.finish()

    @_refusing_steps
    def feeding(self, chunk: bytes, *, last: bool) -> Generator[bytes, None, None]:
        """As `feed_request`, and with *last* `finish_request` behind it, in steps: the bytes that
        may leave after each."""
        if self._rewriter is None:
            yield chunk
            return
        for pieces in self._read(chunk, last=last):
            self._decide(slots(pieces))
            out = self._filling.fill(pieces)
            if uses := self._uses():
                self._search = None
                self._check_searched()
                self._needles()
                self._write(audit.injected(self._gateway.now(), self._facts, uses, self._mask))
            yield out

    def _outgoing_head(self) -> RequestHead:
        head = self._head
        if self._template is not None:
            head = self._filling.fill_head(self._template)
        scrubbed = bool(self._scope.bound) or self._filling.fills
        drop = _UNREADABLE if scrubbed else _OURS
        # By the names, which no value changes; those of the client are the same again and again.
        places = message.places_end_to_end(self._head.fields, drop)
        fields: Fields = tuple([head.fields[place] for place in places])
        if self._decoder is not None:
            fields = message.without(fields, b"content-encoding")
        host = (b"Host", self.destination.host_field())
        return head.with_fields((host, *fields, _PLAIN_ONLY) if scrubbed else (host, *fields))

    # --- response ---------------------------------------------------------------------------

    @_refusing
    def interim(self, head: ResponseHead) -> ResponseHead | None:
        """The interim response head (102, 103) that may reach the client; None: it is withheld.

        Raises:
            Refused: what was found in it cannot be recorded, say. The exchange is over.
        """
        head = head.with_fields(message.end_to_end(head.fields, _NOT_FOR_CLIENTS))
        needles = self._needles()
        if not needles:
            return head
        scrubbing = Scrubbing(needles, self._gateway.limits)
        try:
            clean = scrubbing.head(head, has_body=False)
        except Refused:
            return None  # the final response is judged by itself
        self._write_scrubbed(scrubbing, head.status)
        return clean

    @_refusing
    def response(
        self, head: ResponseHead, *, has_body: bool, length: int | None = None
    ) -> Incoming:
        """The response head that may reach the client.

        Args:
            has_body: Whether a body follows (not for HEAD, 204, 304).
            length: The announced length of the body, where there is one.

        Raises:
            Refused: response_withheld; the client must get that instead.
        """
        self._status = head.status
        head = head.with_fields(message.end_to_end(head.fields, _NOT_FOR_CLIENTS))
        needles, self._searched = self._needles(), self._roaming()
        if not needles:
            return Incoming(head, length, has_body)
        self._scrubbing = Scrubbing(needles, self._gateway.limits)
        clean = self._scrubbing.head(head, has_body=has_body)
        return Incoming(clean, None if has_body else length, has_body)

    def feed_response(self, chunk: bytes) -> bytes:
        """The bytes that the client gets for *chunk*; may be empty.

        Raises:
            Refused: response_withheld; the engine must break the response off, visibly.
        """
        return b"".join(self.response_pieces(chunk))

    def response_pieces(self, chunk: bytes) -> Pieces:
        """As `feed_response`, in pieces."""
        return (chunk,) if self._scrubbing is None else self._scrub(self._scrubbing, chunk)

    @_refusing
    def _scrub(self, scrubbing: Scrubbing, chunk: bytes) -> Pieces:
        return scrubbing.pieces(chunk)

    @property
    def response_is_coded(self) -> bool:
        """A chunk may be dear, and is better taken in steps."""
        return self._scrubbing is not None and self._scrubbing.is_coded

    @_refusing_steps
    def feeding_response(self, chunk: bytes) -> Generator[bytes, None, None]:
        """As `feed_response`, in steps: what the client gets after each. They have to be exhausted
        before anything else is done with the response."""
        if self._scrubbing is None:
            yield chunk
        else:
            yield from self._scrubbing.steps(chunk)

    @_refusing
    def finish_response(self) -> bytes:
        """What is left at the end of the response. Raises as `feed_response`."""
        scrubbing = self._scrubbing
        if scrubbing is None:
            return b""
        tail = scrubbing.finish()
        self._write_scrubbed(scrubbing, self._status)
        return tail

    @_refusing
    def trailers(self, fields: Fields) -> Fields:
        """Trailer *fields* without values. Call it before `finish_response`, which records them."""
        return fields if self._scrubbing is None else self._scrubbing.trailers(fields)

    @property
    def is_searched_apart(self) -> bool:
        """The answer is searched for values that no other answer to this client is searched for."""
        return bool(self._roaming())

    @_refusing
    def switch(self) -> Switched:
        """In place of `finish_response` behind the head of a 101: the rest is a WebSocket."""
        if self._scrubbing is not None:
            self._write_scrubbed(self._scrubbing, self._status)
        filling = self._filling
        return Switched(self._snapshot, self._facts, self._request, filling.names, filling.tokens)

    def _write_scrubbed(self, scrubbing: Scrubbing, status: int) -> None:
        if scrubbing.found:
            now, found = self._gateway.now(), scrubbing.by_channel
            self._write(audit.scrubbed(now, self._facts, status, found, self._mask))

    def _roaming(self) -> frozenset[str]:
        """Ids of the secrets that are scrubbed only because this flow injects them."""
        return self._scope.roaming & self._filling.values.keys()

    def _check_searched(self) -> None:
        # An upstream may answer while the upload goes on, and echo what comes later.
        if self._searched is not None and self._roaming() != self._searched:
            raise refuse(
                Code.RESPONSE_WITHHELD,
                "The answer has begun and is not searched for this secret.",
                hint="put the placeholder into the head, or send the body before the answer",
            )

    def _needles(self) -> tuple[Needles, ...]:
        if self._search is None:
            filling = self._filling
            try:
                self._search = self._snapshot.needles(self._scope, filling.names, filling.tokens)
            except TooLong:
                raise refuse(
                    Code.RESPONSE_WITHHELD,
                    "A secret for this destination is too long to be searched for in an answer.",
                    hint="an operator can store a shorter value; see docs/scrubbing.md",
                ) from None
        return self._search

    # --- records ----------------------------------------------------------------------------

    def refused(self, error: Exception) -> Refused:
        """What *error* comes to, recorded."""
        # Without its traceback: the frames would hold the request, and decoders of megabytes,
        # until the garbage collector comes by.
        if isinstance(error, Refused):
            refused = error.with_traceback(None)
        elif isinstance(error, StoreError):
            refused = Refused(Problem(Code.STORE_UNAVAILABLE, operator=str(error)))
        else:
            refused = Refused(Problem(Code.INTERNAL_ERROR, operator=type(error).__name__))
        if refused.problem.host:
            refused.problem = replace(refused.problem, host=self.told_host)
        self.record_refusal(refused.problem)
        refused.request_id = self.request_id
        return refused

    def record_refusal(self, problem: Problem) -> None:
        """Write the audit line of a refusal, once. Never raises."""
        if self._refused:
            return
        self._refused = True
        try:
            now = self._gateway.now()
            record = audit.refused(now, self._facts, problem, self._mask, let_go=self._let_go)
            self._gateway.log.write(record)
        except AuditError:
            return  # it is refused already; there is nothing stricter to do

    def _mask(self, text: str) -> str:
        """*text* without the values in scope; nothing of it where they cannot be had."""
        try:
            clean = redact(self._needles(), text.encode("utf-8", "replace"))
        except Exception:  # a record without its text is better than none
            return ""
        return clean.decode("utf-8", "replace")

    def _uses(self) -> Sequence[audit.Use]:
        uses = self._filling.take_unrecorded()
        if uses:
            self._gateway.note_uses(self._filling.values)
        return uses

    def _write(self, record: Mapping[str, object]) -> None:
        try:
            self._gateway.log.write(record)
        except AuditError as error:
            raise Refused(
                Problem(
                    Code.AUDIT_UNAVAILABLE,
                    "Nothing is sent without an audit record.",
                    operator=str(error),
                )
            ) from None


def _unknown_client() -> Refused:
    return refuse(Code.PROXY_AUTH_REQUIRED, "The proxy needs a credential that it knows.")


def _undecodable(error: coding.CodingError) -> Refused:
    if error.kind == "too_large":
        return refuse(
            Code.BODY_TOO_LARGE,
            "The decoded request body is too large.",
            hint="send it without Content-Encoding",
        )
    return refuse(
        Code.BODY_NOT_DECODABLE,
        "The request body's Content-Encoding is unknown or broken.",
        hint="send it without Content-Encoding, or as gzip, deflate, br or zstd",
    )
