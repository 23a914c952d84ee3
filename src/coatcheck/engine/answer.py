"""One response: read from the upstream, passed through the exchange, written for the client.

Interim responses are passed on where somebody may want them (102, 103), a few of them; 100 is ours
alone, since we have asked for the body. Trailer fields are passed on to a client that says it takes
them. The upstream is not told so: TE speaks of one connection, and a server that waits for it
before it adds trailers is rarer than one that stumbles over it.

A coded chunk may stand for many times its size: it is worked on in steps, as many at once as the
caller likes. What the first of a body comes to is kept until it is known that it can be read, or
grows too large for that.

What cannot be read is refused before a byte of it has left, a broken interim response with all that
follows it; what breaks afterwards is left without an end, so that the client notices.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto

from coatcheck.core import websocket
from coatcheck.core.limits import Limits
from coatcheck.core.message import Fields, ResponseHead, trailers
from coatcheck.core.problems import Code, Refused, refuse
from coatcheck.core.redact import Pieces
from coatcheck.engine import http1, pool
from coatcheck.gateway import Exchange, Incoming, Switched

SWITCHING_PROTOCOLS = 101
NO_CONTENT = 204
PASSED_ON = frozenset({102, 103})  # interim responses that mean something to a client
MAX_PASSED_ON = 16  # of them, for one request; the rest is read over
KEPT = 4 * 1024 * 1024  # bytes that the first of a coded body may come to before they leave
MAX_INTERIM = 1000  # that an upstream may send, of whatever kind


class _Writing(Enum):
    """How the body is framed towards the client."""

    NONE = auto()
    LENGTH = auto()
    CHUNKED = auto()
    CLOSE = auto()


class Answer:
    """Bytes of the upstream in, bytes for the client out. Methods raise `Refused`.

    Attributes:
        began: The head is on its way; there is no answering with a refusal any more.
        heard: The upstream has sent something.
        done: The response is over.
        keep: The client's connection may be used again.
        reusable: The upstream's connection may be used again.
        status: Of the answer; 0 until its head is read.
        told_its_end: It had its length, or was chunked: nobody could wait for more, or for less.
        asked_for_credentials: It belongs to an authentication.
        switched: A WebSocket is open from here on; `rest` is what came of it so far.
    """

    def __init__(
        self,
        raw: http1.RawRequest,
        exchange: Exchange,
        limits: Limits,
        websocket_key: bytes | None = None,
    ) -> None:
        """*websocket_key*: of the opening handshake that was sent, if it was one."""
        self.switched: Switched | None = None
        self.rest = b""
        self._key = websocket_key
        self.began = self.heard = self.done = self.keep = self.reusable = False
        self.told_its_end = self.asked_for_credentials = False
        self.status = 0
        self._raw = raw
        self._exchange = exchange
        self._limits = limits
        self._head = b""  # bytes of a head that is not complete
        self._head_fields: Fields = ()  # as the client got them
        self._interim = 0  # interim responses so far
        self._early = b""  # those that are passed on, until they are handed out
        self._early_left = limits.head_bytes
        self._body: http1.BodyReader | None = None  # None until the head is read
        self._writing = _Writing.NONE
        self._steps: Iterator[bytes] | None = None  # what is left to do for what has come
        self._kept = bytearray()  # what came of the steps so far, before the answer began
        self._rest = b""  # behind the end of the body

    def feed(self, data: bytes, *, request_read: bool) -> bytes:
        """What the client gets for *data*.

        Args:
            request_read: The request body is read; otherwise the connection cannot be kept.
        """
        if self._steps is not None:
            raise refuse(Code.INTERNAL_ERROR)  # what is not searched yet would be lost
        self.heard = True
        out = b""
        if self._body is None:
            self._head += data
            head = self._take_head()
            out, self._early = self._early, b""
            if head is None:
                return out
            self._body, final = self._start(head, request_read)
            out += final
            if self.switched is not None:
                self.rest, self._head = self._head, b""
                return out
            data, self._head = self._head, b""
        out += self._pass(self._body, data)
        if self._steps is not None and not self.began:
            self._kept += out
            return b""
        # Only now: what goes wrong with the first of the body can still be told in a refusal.
        self.began = True
        return out

    @property
    def is_busy(self) -> bool:
        """There is `more` to do before anything else is fed."""
        return self._steps is not None

    def more(self) -> bytes:
        """Go one step further in what was fed: what the client gets of that."""
        body = self._body
        if self._steps is None or body is None:
            return b""
        step = next(self._steps, None)
        if step is None:
            self._steps = None
            out = self._passed(body, ())
        else:
            out = self._framed((step,))
        if self.began:
            return out
        self._kept += out
        if self._steps is not None and len(self._kept) <= KEPT:
            return b""
        out, self._kept = bytes(self._kept), bytearray()
        self.began = True
        return out

    def end(self) -> bytes:
        """The upstream has closed: what is left for the client."""
        if self._body is None:
            raise bad_answer("the connection was closed before an answer came")
        if not isinstance(self._body, http1.CloseReader):
            raise bad_answer("it ended before its announced end")
        self._body.done = True
        return self._pass(self._body, b"")

    def _take_head(self) -> bytes | None:
        """The first final head, cut off from what follows it; None until it is there."""
        while True:
            end, size = http1.find_end(self._head)
            if size > self._limits.head_bytes:
                raise bad_answer("its head is too large")
            if end < 0:
                return None
            end += len(http1.HEAD_END)
            head, self._head = self._head[:end], self._head[end:]
            if not http1.is_interim(head):
                return head
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise bad_answer("it has too many interim responses")
            if self._interim <= MAX_PASSED_ON and not self._raw.http10:
                self._pass_on(head)

    def _pass_on(self, raw: bytes) -> None:
        """Pass an interim response on, if it is one for clients."""
        head, _ = http1.read_response(raw)
        if head.status not in PASSED_ON or len(head.fields) > self._limits.head_fields:
            return
        clean = self._exchange.interim(head)
        if clean is None:
            return
        line = b"HTTP/1.1 %d %b" % (clean.status, clean.reason)
        data = http1.write_head(line, clean.fields)
        if len(data) <= self._early_left:
            self._early_left -= len(data)
            self._early += data

    def _start(self, raw: bytes, request_read: bool) -> tuple[http1.BodyReader, bytes]:
        try:
            head, self.reusable = http1.read_response(raw)
            framing = http1.response_framing(head, self._raw.method)
        except http1.BadMessage as error:
            raise bad_answer(f"it has {error}") from None
        self.status = head.status
        if self._key is not None:
            self.reusable = False  # an upstream may be in two minds about what comes next
        if head.status == SWITCHING_PROTOCOLS:
            return http1.reader(http1.EMPTY, self._limits), self._switch(head)
        self.told_its_end = http1.tells_its_end(framing, head.status, self._raw.method)
        self.asked_for_credentials = pool.asks_for_credentials(head.status, head.fields)
        has_body = not framing.empty
        length = framing.length if has_body else http1.announced_length(head.fields)
        incoming = self._exchange.response(head, has_body=has_body, length=length)
        return http1.reader(framing, self._limits), self._client_head(incoming, request_read)

    def _switch(self, head: ResponseHead) -> bytes:
        if self._key is None or not websocket.accepts(head, self._key):
            raise bad_answer("it changes the protocol, which nobody asked for")
        clean = self._exchange.response(head, has_body=False).head
        self.switched = self._exchange.switch()
        line = b"HTTP/1.1 101 " + clean.reason
        return http1.write_head(line, clean.fields, *http1.WEBSOCKET_LINES)

    def _client_head(self, incoming: Incoming, request_read: bool) -> bytes:
        head, lines = incoming.head, list[bytes]()
        self._head_fields = head.fields
        if not incoming.has_body:
            self._writing = _Writing.NONE
            if incoming.length is not None and head.status != NO_CONTENT:
                lines.append(http1.length_line(incoming.length))
        elif incoming.length is not None:
            self._writing = _Writing.LENGTH
            lines.append(http1.length_line(incoming.length))
        elif self._raw.http10:
            self._writing = _Writing.CLOSE
        else:
            self._writing = _Writing.CHUNKED
            lines.append(http1.CHUNKED_LINE)
        self.keep = self._raw.keep_alive and self._writing is not _Writing.CLOSE and request_read
        if not self.keep:
            lines.append(http1.CLOSE_LINE)
        return http1.write_head(b"HTTP/1.1 %d %b" % (head.status, head.reason), head.fields, *lines)

    def _pass(self, body: http1.BodyReader, data: bytes) -> bytes:
        try:
            content, self._rest = body.feed(data)
        except http1.BadMessage as error:
            raise bad_answer(f"it has {error}") from None
        if content and self._exchange.response_is_coded:
            self._steps = self._exchange.feeding_response(content)
            return b""
        return self._passed(body, self._exchange.response_pieces(content) if content else ())

    def _passed(self, body: http1.BodyReader, out: Pieces) -> bytes:
        """Everything that has come of *body* is searched; *out* is the last of it."""
        if not body.done:
            return self._framed(out)
        end = http1.LAST_CHUNK
        if isinstance(body, http1.ChunkedReader) and body.trailers:
            end = http1.last_chunk(self._trailers(body.trailers))
        last = self._framed((*out, self._exchange.finish_response()))
        self.done = True
        # Bytes behind the end would be taken for the answer to the next request.
        self.reusable = self.reusable and not self._rest
        return last + end if self._writing is _Writing.CHUNKED else last

    def _framed(self, pieces: Pieces) -> bytes:
        if self._writing is _Writing.CHUNKED:
            return http1.chunk(*pieces)
        return b"".join(pieces)  # which copies nothing where it is one

    def _trailers(self, fields: Fields) -> Fields:
        """What the client gets of the trailer section."""
        if not self._raw.takes_trailers or len(fields) > self._limits.head_fields:
            return ()
        return self._exchange.trailers(trailers(fields, self._head_fields))


def bad_answer(why: str) -> Refused:
    return refuse(Code.RESPONSE_WITHHELD, f"The upstream's answer was withheld: {why}.")
