"""HTTP/1.1 framing, strict: heads and chunked bodies in, heads and chunks out. No I/O.

What two parsers could read in two ways is refused, since the upstream parses after us. Heads are
cut off at the blank line, looked over for bytes that some parsers forgive, and then read by
llhttp (httptools) in its strict mode. Bodies are counted here; the chunked coding is read by
`ChunkedReader`, which accepts the grammar of RFC 9112, section 7.1 and nothing else.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

import httptools

from coatcheck.core.limits import Limits
from coatcheck.core.message import (
    FieldLines,
    Fields,
    ResponseHead,
    by_name,
    field_values,
    list_members,
    once,
)
from coatcheck.core.problems import Code, Refused, refuse

HEAD_END = b"\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
MAX_CHUNK_LINE = 4096  # bytes; size, extensions and line end
MAX_CHUNK_DIGITS = 15  # hex; below 2**60

# Bare CR, bare LF, folded lines, and controls other than HTAB: each is read in different ways.
_SUSPECT = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n|\r\n[ \t]")
_REQUEST_LINE = re.compile(rb"[A-Z][A-Z-]* [^ #]+ HTTP/1\.[01]\r\n")
# What every parser reads alike, llhttp too (it takes each of these bytes in a path).
_PLAIN_LINE = re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[!-\x22$-~]*) HTTP/1\.1\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-5][0-9][0-9](?: [^\r\n]*)?\r\n")
_DIGITS = re.compile(rb"[0-9]{1,18}")
_CHUNK_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,%d})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n" % MAX_CHUNK_DIGITS
)
_FIELD_LINES = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n]*\r\n)+")


class BadMessage(ValueError):
    """The other side broke HTTP. The text is a constant, it quotes no byte of the message."""


class RawRequest(NamedTuple):
    """A request head as it came in; the target in whatever form the client chose."""

    method: bytes
    target: bytes
    fields: Fields
    http10: bool

    @property
    def keep_alive(self) -> bool:
        return not self.http10 and once(self.fields, "keep-alive", self._asks_to_keep)

    @property
    def takes_trailers(self) -> bool:
        """RFC 9110, section 10.1.4."""
        return not self.http10 and b"trailers" in list_members(field_values(self.fields, b"te"))

    def _asks_to_keep(self) -> bool:
        listed = field_values(self.fields, b"connection")
        listed = listed + field_values(self.fields, b"proxy-connection")
        return b"close" not in list_members(listed)

    @property
    def expects_continue(self) -> bool:
        return not self.http10 and b"100-continue" in list_members(
            field_values(self.fields, b"expect")
        )


class Framing(NamedTuple):
    """How long a body is. ``chunked`` and ``length`` exclude each other; neither: to the end of
    the connection (responses only)."""

    chunked: bool = False
    length: int | None = None

    @property
    def empty(self) -> bool:
        return self.length == 0


EMPTY = Framing(length=0)
UNTIL_CLOSE = Framing()


class _Collector:
    """What httptools calls while it reads."""

    def __init__(self) -> None:
        self.target = b""
        self.reason = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def read_request(head: bytes, limits: Limits) -> RawRequest:
    """Read a request head, from its first byte to the blank line.

    Raises:
        Refused: bad_request or headers_too_large.
    """
    if _SUSPECT.search(head) or _REQUEST_LINE.match(head) is None:
        raise _bad_request("The head holds bytes or lines that HTTP does not allow.")
    collector = _Collector()
    parser = httptools.HttpRequestParser(collector)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # CONNECT, or an Upgrade field: the head is read, which is all we want
    except httptools.HttpParserError:
        raise _bad_request("The head is not well-formed HTTP/1.1.") from None
    if not collector.complete:
        raise _bad_request("The head is not complete.")
    if len(collector.target) > limits.target_bytes or len(collector.fields) > limits.head_fields:
        raise refuse(
            Code.HEADERS_TOO_LARGE,
            "The request target is too long, or there are too many fields.",
            hint="limits.target_bytes and limits.head_fields set the bounds",
        )
    http10 = parser.get_http_version() == "1.0"
    return RawRequest(parser.get_method(), collector.target, FieldLines(collector.fields), http10)


class RequestReader:
    """Reads the request heads of one connection. A client repeats its fields from one request to
    the next: what follows the request line is read anew only where it differs from the last."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._rest = b""  # of the last head, behind its request line
        self._fields: Fields = ()

    def read(self, head: bytes) -> RawRequest:
        """As `read_request`."""
        end = head.find(b"\r\n") + 2
        rest = head[end:]
        if rest == self._rest:
            line = _PLAIN_LINE.match(head)
            if line is not None and line.end() == end and end <= self._limits.target_bytes:
                return RawRequest(line[1], line[2], self._fields, http10=False)
        raw = read_request(head, self._limits)
        if not raw.http10 and _PLAIN_LINE.match(head) is not None:
            self._rest, self._fields = rest, raw.fields
        return raw


def read_response(head: bytes) -> tuple[ResponseHead, bool]:
    """Read a response head; the second value says whether the connection may be used again.

    Raises:
        BadMessage: it is none, or could be read in two ways.
    """
    if _SUSPECT.search(head) or _STATUS_LINE.match(head) is None:
        raise BadMessage("a response head with bytes or lines that HTTP does not allow")
    collector = _Collector()
    parser = httptools.HttpResponseParser(collector)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        raise BadMessage("a response head that is not well-formed") from None
    if not collector.complete:
        raise BadMessage("a response head that is not complete")
    fields = FieldLines(collector.fields)
    listed = field_values(fields, b"connection")
    close = bool(listed) and b"close" in list_members(listed)
    reusable = parser.get_http_version() == "1.1" and not close
    return ResponseHead(parser.get_status_code(), collector.reason, fields), reusable


def is_interim(head: bytes) -> bool:
    """Whether *head* is an interim response (RFC 9110, section 15.2), other than 101.

    It is dropped, so what only looks like one is none: another reader could take it for the answer.
    """
    if not head.startswith((b"HTTP/1.1 1", b"HTTP/1.0 1")) or head[9:12] == b"101":
        return False
    try:
        read_response(head)
    except BadMessage:
        return False
    return True


def find_end(data: bytes, at: int = 0) -> tuple[int, int]:
    """Where the blank line after the head at *at* begins (below 0: it is not there yet), and the
    head's size in bytes, or the least that it can have. So a bound on the size does not depend on
    where the blank line was cut."""
    end = data.find(HEAD_END, at)
    return end, (end if end >= 0 else max(at, len(data) - len(HEAD_END) + 1)) - at


def request_framing(raw: RawRequest) -> Framing:
    """The length of a request body (RFC 9112, section 6.3).

    Raises:
        Refused: bad_request for two readings.
    """
    try:
        framing = once(raw.fields, "framing", lambda: _framing(raw.fields))
    except BadMessage:
        raise _bad_request("Content-Length and Transfer-Encoding leave the length open.") from None
    if framing is not None and framing.chunked and raw.http10:
        raise _bad_request("HTTP/1.0 has no Transfer-Encoding.")
    return framing or EMPTY


def response_framing(head: ResponseHead, method: bytes) -> Framing:
    """The length of a response body (RFC 9112, section 6.3).

    Raises:
        BadMessage: it can be read in two ways.
    """
    framing = _framing(head.fields)
    if method == b"HEAD" or head.status in (204, 304):
        return EMPTY
    return framing or UNTIL_CLOSE


def tells_its_end(framing: Framing, status: int, method: bytes) -> bool:
    """Whether the fields of a response say where it ends, and neither the request's method nor the
    status overrules them: a server that sends a body with a 304 leaves it behind."""
    told = framing.chunked or framing.length is not None
    return told and method != b"HEAD" and status not in (204, 304)


def announced_length(fields: Fields) -> int | None:
    """What Content-Length says, for a response whose body does not follow (HEAD)."""
    values = field_values(fields, b"content-length")
    return int(values[0]) if len(values) == 1 and _DIGITS.fullmatch(values[0]) else None


def _framing(fields: Fields) -> Framing | None:
    named = by_name(fields)
    codings, lengths = named.get(b"transfer-encoding"), named.get(b"content-length")
    if codings:
        if lengths or len(codings) > 1 or codings[0].lower() != b"chunked":
            raise BadMessage("a Transfer-Encoding other than a single chunked")
        return Framing(chunked=True)
    if lengths:
        if len(lengths) > 1 or not _DIGITS.fullmatch(lengths[0]):
            raise BadMessage("a Content-Length that is not one number")
        return Framing(length=int(lengths[0]))
    return None


class BodyReader(Protocol):
    """Cuts one body out of a stream of bytes."""

    done: bool

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """(content, what follows the end of the body). Raises `BadMessage`."""


class LengthReader:
    """A body of a known number of bytes."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        content, rest = data[: self._left], data[self._left :]
        self._left -= len(content)
        self.done = self._left == 0
        return content, rest


class CloseReader:
    """A response body that ends with its connection."""

    done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        return data, b""


class ChunkedReader:
    """The chunked coding (RFC 9112, section 7.1). The trailer section is held to *limits* too.

    Attributes:
        trailers: Its fields, for whoever wants them: RFC 9110, section 6.5.1 lets a recipient
            discard them.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffer = b""
        self._at = 0  # read up to here; the buffer is cut once per call, not once per chunk
        self._left = 0  # of the present chunk's data
        self._state = self._size
        self._section = b""  # the lines of the trailer section
        self.done = False

    @property
    def trailers(self) -> Fields:
        lines = [line.partition(b":") for line in self._section.split(b"\r\n") if line]
        return tuple((name, value.strip(b" \t")) for name, _, value in lines)

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        self._buffer += data
        out: list[bytes] = []
        while not self.done and self._state(out):
            pass
        rest, self._at = self._buffer[self._at :], 0
        self._buffer = b"" if self.done else rest
        return b"".join(out), rest if self.done else b""

    def _size(self, out: list[bytes]) -> bool:
        match = _CHUNK_LINE.match(self._buffer, self._at)
        if match is None or match.end() - self._at > MAX_CHUNK_LINE:
            end = self._buffer.find(b"\n", self._at)
            size = (len(self._buffer) if end < 0 else end + 1) - self._at
            if size > MAX_CHUNK_LINE:
                raise BadMessage("a chunk size line that is too long")
            if end >= 0:
                raise BadMessage("a chunk size line that is not well-formed")
            return False
        self._left = int(match[1], 16)
        self._at = match.end()
        self._state = self._data if self._left else self._trailers
        return True

    def _data(self, out: list[bytes]) -> bool:
        taken = self._buffer[self._at : self._at + self._left]
        if taken:
            out.append(taken)
            self._left -= len(taken)
            self._at += len(taken)
        if self._left or len(self._buffer) - self._at < 2:
            return False
        if not self._buffer.startswith(b"\r\n", self._at):
            raise BadMessage("a chunk that is not followed by a line end")
        self._at += 2
        self._state = self._size
        return True

    def _trailers(self, out: list[bytes]) -> bool:
        if self._buffer.startswith(b"\r\n", self._at):
            self._at += 2
            self.done = True
            return True
        end, size = find_end(self._buffer, self._at)
        if size > self._limits.head_bytes:
            raise BadMessage("a trailer section that is too large")
        if end < 0:
            return False
        lines = _FIELD_LINES.fullmatch(self._buffer, self._at, end + 2)
        if lines is None or _SUSPECT.search(self._buffer, self._at, end):
            raise BadMessage("a trailer section that is not well-formed")
        self._section = self._buffer[self._at : end]
        self._at = end + len(HEAD_END)
        self.done = True
        return True


def reader(framing: Framing, limits: Limits) -> BodyReader:
    """The reader for a body of this framing."""
    if framing.chunked:
        return ChunkedReader(limits)
    return CloseReader() if framing.length is None else LengthReader(framing.length)


def write_head(start_line: bytes, fields: Fields, *framing: bytes) -> bytes:
    """A head as bytes; *framing* are whole field lines without their line ends."""
    lines = [key + b": " + value for key, value in fields]
    return b"\r\n".join([start_line, *lines, *framing, b"\r\n"])


def length_line(length: int) -> bytes:
    return b"Content-Length: %d" % length


CHUNKED_LINE = b"Transfer-Encoding: chunked"
CLOSE_LINE = b"Connection: close"
WEBSOCKET_LINES = (b"Connection: Upgrade", b"Upgrade: websocket")


def chunk(*pieces: bytes | memoryview) -> bytes:
    """*pieces* as one chunk; nothing for no data, since an empty chunk ends the body."""
    size = sum(map(len, pieces))
    return b"".join((b"%x\r\n" % size, *pieces, b"\r\n")) if size else b""


def last_chunk(trailers: Fields) -> bytes:
    """The end of a chunked body, with a trailer section."""
    return write_head(b"0", trailers)


def _bad_request(detail: str) -> Refused:
    return refuse(Code.BAD_REQUEST, detail, hint="send plain HTTP/1.1 (RFC 9112)")
