"""One open WebSocket, after its handshake went through an `Exchange`: frames in, frames out.

Each text message of the client is a small request of its own: its placeholders are judged by the
policy in force at that moment, it has its audit record, and it leaves whole or not at all. What
must not leave ends the connection, with the code of the refusal as the reason. What the server
says is searched by `core.websocket_scrub`.

A change of policy or store is looked for at every event, and in between by the engine. Who may no
longer enter, or go there, is cut off. Where what has to be searched for is another, the connection
ends with 1012 (service restart), for the client to come back: what the server knows of the old
values could not be searched for by the new rules, nor the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from coatcheck.core import audit, escaping
from coatcheck.core.body_json import JsonRewriter
from coatcheck.core.body_text import TextRewriter
from coatcheck.core.filling import Filling
from coatcheck.core.locations import Kind, Location
from coatcheck.core.placeholder import Grammar
from coatcheck.core.ports import AuditError, StoreError
from coatcheck.core.problems import Code, Problem, Refused, refuse
from coatcheck.core.redact import Needles
from coatcheck.core.scrubbing import redact
from coatcheck.core.snapshot import Scope, Snapshot
from coatcheck.core.spelling import TooLong
from coatcheck.core.template import Piece, Slot, slots
from coatcheck.core.websocket import (
    BadFrame,
    Close,
    FrameReader,
    Opcode,
    Part,
    Utf8,
    close_payload,
    frame,
    read_close,
)
from coatcheck.core.websocket_scrub import ServerScrubber
from coatcheck.gateway import Gateway, Switched, steps_of

SWITCHING_PROTOCOLS = 101
_READ_AT_ONCE = 64 * 1024  # bytes of frames, of which one may have no more than 6
_MESSAGE = Location(Kind.WEBSOCKET)
# What the client is told where it is not the policy that ends the connection.
_CLOSE_FOR = {
    Code.BODY_TOO_LARGE: Close.TOO_BIG,
    Code.STORE_UNAVAILABLE: Close.INTERNAL,
    Code.AUDIT_UNAVAILABLE: Close.INTERNAL,
    Code.INTERNAL_ERROR: Close.INTERNAL,
    Code.RESPONSE_WITHHELD: Close.INTERNAL,
}

# Of our own: nothing that was held back is let go after one.
_FAILURES = frozenset({Code.STORE_UNAVAILABLE, Code.AUDIT_UNAVAILABLE, Code.INTERNAL_ERROR})


@dataclass(frozen=True, slots=True)
class Moved:
    """Bytes for either side."""

    to_client: bytes = b""
    to_upstream: bytes = b""


class OpenSocket:
    """See the module. Nothing is raised: whatever goes wrong closes both sides.

    Attributes:
        over: Nothing more is passed on; close, once what was handed out is sent.
        problem: Why, where it did not end by itself.
    """

    def __init__(
        self,
        gateway: Gateway,
        switched: Switched,
        *,
        check_client: Callable[[], None],
        new_key: Callable[[], bytes],
    ) -> None:
        """Raises `Refused` where the answers cannot be searched.

        Args:
            check_client: Raises `Refused` if the client may no longer enter.
            new_key: Four bytes that nobody can foresee (RFC 6455, section 5.3).
        """
        self.over = False
        self.problem: Problem | None = None
        self._gateway = gateway
        self._snapshot = switched.snapshot
        self._facts = switched.facts
        self._request = switched.request
        self._tokens = switched.tokens
        self._names = switched.names  # of the secrets that were put in so far
        self._check_client = check_client
        self._new_key = new_key
        self._reader = FrameReader(masked=True)
        self._text = bytearray()  # of the client's text message that is under way
        self._written = 0  # bytes of filled messages in the present step
        self._client_closed = self._server_closed = False  # and the close frame was passed on
        self._begun = False  # a binary message of the client is under way
        self._scrubber = ServerScrubber()
        self._searches: tuple[Needles, ...] = ()
        self._search()

    @property
    def request_id(self) -> str:
        """Of the audit records."""
        return self._facts.request_id

    # --- what happens -----------------------------------------------------------------------

    def client(self, data: bytes) -> Moved:
        """The client has sent *data*."""
        moved = list(self.client_steps(data))
        to_client = b"".join(one.to_client for one in moved)
        return Moved(to_client, b"".join(one.to_upstream for one in moved))

    def client_steps(self, data: bytes) -> Iterator[Moved]:
        """As `client`, in steps that are bounded in what they look at. The other methods may be
        called in between; what is left is dropped where one of them has ended it."""
        steps = self._client(data)
        while not self.over and (moved := self._guarded(partial(_next, steps))) is not None:
            yield moved

    def upstream(self, data: bytes) -> Moved:
        """The server has sent *data*."""
        return self._guarded(lambda: self._upstream(data))

    @property
    def waiting(self) -> bool:
        """Whole messages of the server are held back."""
        return not self.over and self._scrubber.waiting

    def begin_wait(self) -> None:
        """What is held back now is let go by the next `wake`."""
        self._scrubber.begin_wait()

    def wake(self) -> Moved:
        """What was held back at `begin_wait` has waited long enough."""
        return self._guarded(lambda: Moved(self._scrubbed(self._scrubber.wake())))

    def flush(self) -> Moved:
        """What is held back is let go: the server has gone."""
        return self._guarded(lambda: Moved(self._scrubbed(self._scrubber.flush())))

    def look(self) -> Moved:
        """Whether the policy in force still lets this go on."""
        return self._guarded(Moved)

    def go_away(self) -> Moved:
        """End it, through no fault of either side."""
        return Moved() if self.over else self._end(Close.GOING_AWAY, "going away")

    def answered(self, data: bytes) -> bool:
        """Once it is over: whether the client, which sends *data*, has closed it too."""
        try:
            for _ in self._reader.feed(data):
                pass
        except BadFrame:
            return False
        return self._reader.closed

    @property
    def closed(self) -> bool:
        """Both sides have closed it, by themselves."""
        return self._client_closed and self._server_closed

    def _guarded[T](self, step: Callable[[], T]) -> T | Moved:
        if self.over:
            return Moved()
        try:
            if not self._keep_up():
                return self._end(Close.RESTART, "the policy or a secret has changed")
            return step()
        except Refused as refused:
            problem = refused.problem
        except StoreError as failed:
            problem = Problem(Code.STORE_UNAVAILABLE, operator=str(failed))
        except Exception as bug:  # fail closed: any bug ends the connection
            problem = Problem(Code.INTERNAL_ERROR, operator=type(bug).__name__)
        return self._refuse(problem)

    # --- client to server -------------------------------------------------------------------

    def _client(self, data: bytes) -> Generator[Moved]:
        self._written = 0
        parts = self._read(data)
        try:
            for part in parts:
                if part is None:
                    yield Moved()
                    continue
                for out in self._outgoing(part):
                    yield self._both_closed(Moved(b"", out)) if out else Moved()
        except BadFrame as error:
            yield self._broken(Code.BAD_REQUEST, error)
        except Refused as refused:
            for _ in parts:  # to know the frames that are still to come
                pass
            yield self._refuse(refused.problem)

    def _read(self, data: bytes) -> Iterator[Part | None]:
        """The parts in *data*; None after each step on the way, which may come to nothing."""
        for at in range(0, len(data), _READ_AT_ONCE):
            yield from self._reader.feed(data[at : at + _READ_AT_ONCE])
            yield None

    def _outgoing(self, part: Part) -> Iterator[bytes]:
        """The frame for *part*, if there is to be one; nothing after each step on the way."""
        if part.is_control:
            if part.opcode is Opcode.CLOSE:
                read_close(part.payload)
            yield frame(part.opcode, part.payload, key=self._new_key())
            return
        if part.opcode is Opcode.BINARY:
            opcode = Opcode.CONTINUATION if self._begun else Opcode.BINARY
            self._begun = not part.ends
            yield frame(opcode, part.payload, fin=part.ends, key=self._new_key())
            return
        if len(self._text) + len(part.payload) > self._gateway.limits.websocket_message_bytes:
            raise refuse(
                Code.BODY_TOO_LARGE,
                hint="limits.websocket_message_bytes sets the bound",
                location=str(_MESSAGE),
            )
        self._text += part.payload
        if not part.ends:
            yield b""
            return
        message = bytes(self._text)
        self._text.clear()
        Utf8().feed(message, last=True)
        filled = yield from self._filled(message)
        yield frame(Opcode.TEXT, filled, key=self._new_key())

    def _filled(self, message: bytes) -> Generator[bytes, None, bytes]:
        """*message* with its placeholders filled in, and its record written."""
        snapshot = self._snapshot
        parts: list[list[Piece]] = []
        for read in _parts(message, snapshot.grammar):
            parts.append(read)
            yield b""
        if snapshot is not self._snapshot:  # perhaps with another grammar
            return (yield from self._filled(message))
        if not any(True for part in parts for _ in slots(part)):
            return message
        limits = self._gateway.limits
        filling = Filling(snapshot, self._request, limits)
        for part in parts:
            filling.decide(slots(part))
            yield b""
        for problem in filling.take_reports():
            self._write(audit.reported(self._gateway.now(), self._facts, problem, self._mask))
        written: list[bytes] = []
        for part in parts:
            written.append(filling.fill(part))
            yield b""
        if snapshot is not self._snapshot:  # a grant may be withdrawn
            return (yield from self._filled(message))
        filled = b"".join(written)
        self._check_filled(filled)
        if uses := filling.take_unrecorded():
            self._gateway.note_uses(filling.values)
            if not filling.names <= self._names:
                self._names |= filling.names
                self._search()
            now = self._gateway.now()
            self._write(audit.injected(now, self._facts, uses, self._mask))
        return filled

    def _check_filled(self, filled: bytes) -> None:
        limits = self._gateway.limits
        self._written += len(filled)
        if self._written > limits.expanded_bytes + limits.websocket_message_bytes:
            raise refuse(Code.TOO_MANY_PLACEHOLDERS, hint="limits.expanded_bytes sets the bound")
        try:
            Utf8().feed(filled, last=True)
        except BadFrame:
            raise refuse(
                Code.VALUE_NOT_REPRESENTABLE,
                "The value is no text, and so is the message with it.",
            ) from None

    # --- server to client -------------------------------------------------------------------

    def _upstream(self, data: bytes) -> Moved:
        try:
            out = self._scrubber.feed(data)
        except BadFrame as error:
            return self._broken(Code.RESPONSE_WITHHELD, error)
        return self._both_closed(Moved(self._scrubbed(out)))

    def _scrubbed(self, out: bytes) -> bytes:
        """*out*, once what was taken out of it is on record."""
        if hits := self._scrubber.take_hits():
            now, found = self._gateway.now(), {"websocket": hits}
            self._write(audit.scrubbed(now, self._facts, SWITCHING_PROTOCOLS, found, self._mask))
        return out

    def _search(self) -> None:
        try:
            scope = self._scope(self._snapshot)
            self._searches = self._snapshot.needles(scope, self._names, self._tokens)
        except TooLong:
            raise refuse(
                Code.RESPONSE_WITHHELD,
                "A secret for this destination is too long to be searched for in an answer.",
                hint="an operator can store a shorter value; see docs/scrubbing.md",
            ) from None
        self._scrubber.search(self._searches)

    # --- changes ----------------------------------------------------------------------------

    def _keep_up(self) -> bool:
        """Put the policy and the store in force now in the place of those before.

        Returns:
            False where other values have to be searched for than before.

        Raises:
            Refused: this client may not enter any more, or not go there.
        """
        new = self._gateway.snapshot
        if new is self._snapshot:
            return True
        self._check_client()
        self._gateway.admit(self._request.destination)
        if self._searched_for(new) != self._searched_for(self._snapshot):
            return False
        self._snapshot = new
        self._search()
        return True

    def _scope(self, snapshot: Snapshot) -> Scope:
        return snapshot.scope(self._request.client, self._request.destination)

    def _searched_for(self, snapshot: Snapshot) -> object:
        scope = self._scope(snapshot)
        put_in = [snapshot.view.find(name) for name in sorted(self._names)]
        return (
            [(secret.id, secret.name, secret.version) for secret in scope.bound],
            scope.roaming,
            [secret and (secret.id, secret.version) for secret in put_in],
            snapshot.policy.replacement,
        )

    # --- endings ----------------------------------------------------------------------------

    def _both_closed(self, moved: Moved) -> Moved:
        self._client_closed, self._server_closed = self._reader.closed, self._scrubber.closed
        self.over = self.closed
        return moved

    def _broken(self, code: Code, error: BadFrame, to_upstream: bytes = b"") -> Moved:
        """One side broke the protocol; the other is only told that it is over."""
        self._record(Problem(code, operator=str(error)))
        by_client = code is Code.BAD_REQUEST
        to_client = error.code if by_client else Close.INTERNAL
        back = Close.GOING_AWAY if by_client else error.code
        return self._end(to_client, code, back=back, to_upstream=to_upstream)

    def _refuse(self, problem: Problem, to_upstream: bytes = b"") -> Moved:
        self._record(problem)
        close = _CLOSE_FOR.get(problem.code, Close.POLICY)
        return self._end(close, problem.code, to_upstream=to_upstream)

    def _end(
        self,
        close: Close,
        reason: str,
        *,
        back: Close = Close.GOING_AWAY,
        to_upstream: bytes = b"",
    ) -> Moved:
        """A close frame for either side. A message that is under way stays without an end."""
        self.over = True
        failed = self.problem is not None and self.problem.code in _FAILURES
        to_client = b"" if failed else self._held()
        if not self._server_closed:
            to_client += frame(Opcode.CLOSE, close_payload(close, f"coatcheck: {reason}"))
        if not self._client_closed:
            key = self._new_key()
            to_upstream += frame(Opcode.CLOSE, close_payload(back, ""), key=key)
        return Moved(to_client, to_upstream)

    def _held(self) -> bytes:
        """What was held back; nothing of it where that cannot be let go as usual."""
        try:
            return self._scrubbed(self._scrubber.flush())
        except Exception:  # fail closed; it is over anyway
            return b""

    # --- records ----------------------------------------------------------------------------

    def _record(self, problem: Problem) -> None:
        """Write the audit line of a refusal. Never raises."""
        self.problem = problem
        try:
            now = self._gateway.now()
            record = audit.refused(now, self._facts, problem, self._mask, let_go=True)
            self._gateway.log.write(record)
        except AuditError:
            return  # it is refused already; there is nothing stricter to do

    def _mask(self, text: str) -> str:
        clean = redact(self._searches, text.encode("utf-8", "replace"))
        return clean.decode("utf-8", "replace")

    def _write(self, record: Mapping[str, object]) -> None:
        try:
            self._gateway.log.write(record)
        except AuditError as error:
            raise Refused(Problem(Code.AUDIT_UNAVAILABLE, operator=str(error))) from None


def _parts(message: bytes, grammar: Grammar) -> Iterator[list[Piece]]:
    """*message* taken apart, bit by bit; a placeholder in it has no name, wherever it stands."""
    if message.lstrip(b" \t\r\n")[:1] in (b"{", b"["):
        reader: JsonRewriter | TextRewriter = JsonRewriter(grammar)
    else:
        reader = TextRewriter(grammar, escaping.RAW)
    for pieces in steps_of(message, reader, grammar):
        yield _nameless(pieces)
    yield _nameless(reader.finish())


def _nameless(pieces: Sequence[Piece]) -> list[Piece]:
    return [
        replace(piece, location=_MESSAGE) if isinstance(piece, Slot) else piece for piece in pieces
    ]


def _next(steps: Iterator[Moved]) -> Moved | None:
    return next(steps, None)
