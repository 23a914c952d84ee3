"""A second reader of HTTP/1.1, written from RFC 9112 alone and sharing no code with the product.

It goes through lines and bytes by hand, without regular expressions and without llhttp, so that it
errs elsewhere. It reads whole inputs only: there is no chunk that it could depend on.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

TOKEN = frozenset((string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~").encode())
VISIBLE = frozenset(range(0x21, 0x7F))
IN_VALUE = VISIBLE | frozenset(range(0x80, 0x100)) | frozenset(b" \t")
HEX = frozenset(string.hexdigits.encode())
DIGITS = frozenset(string.digits.encode())


class Bad(Exception):
    """It breaks the grammar, or can be read in two ways."""


class Open(Exception):
    """It is right as far as it goes, and goes on."""


type Fields = list[tuple[bytes, bytes]]


@dataclass
class Message:
    """A request or a response.

    Attributes:
        first, second: Method and target, or status (three digits) and reason.
        whole: False: the head is right, and the body is not, or not all there.
    """

    version: bytes
    first: bytes
    second: bytes
    fields: Fields
    body: bytes = b""
    whole: bool = True

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name]


def requests(data: bytes) -> list[Message]:
    """The requests of a connection, up to what is wrong or not all there."""
    read: list[Message] = []
    while True:
        while data.startswith(b"\r\n"):
            data = data[2:]
        try:
            message, data = _request_head(data)
            read.append(message)
            data = _body(message, data, until_close=False)
        except (Bad, Open):
            return read


def responses(data: bytes, methods: list[bytes]) -> tuple[list[Message], bool]:
    """The final responses to requests with *methods*, from a connection that ends behind *data*.

    The second value says whether all of *data* was read, up to a body that breaks off.
    """
    read: list[Message] = []
    waiting = list(methods)
    while data:
        try:
            message, data = _response_head(data)
            if message.first.startswith(b"1") and message.first != b"101":
                continue
            read.append(message)
            bare = waiting[:1] == [b"HEAD"] or message.first in (b"101", b"204", b"304")
            del waiting[:1]
            data = data if bare else _body(message, data, until_close=True)
        except Bad:
            return read, False
        except Open:
            return read, bool(read) and not read[-1].whole
    return read, True


def _request_head(data: bytes) -> tuple[Message, bytes]:
    line, fields, rest = _head(data)
    parts = line.split(b" ")
    if len(parts) != 3 or not all(parts):
        raise Bad("request line")
    method, target, version = parts
    if not set(method) <= TOKEN or not set(target) <= VISIBLE - set(b"#"):
        raise Bad("method or target")
    message = Message(_version(version), method, target, fields)
    coded, _ = _length(message)
    if coded and version == b"HTTP/1.0":
        raise Bad("a coding in HTTP/1.0")
    return message, rest


def _response_head(data: bytes) -> tuple[Message, bytes]:
    line, fields, rest = _head(data)
    version, _, more = line.partition(b" ")
    status, _, reason = more.partition(b" ")
    if len(status) != 3 or not set(status) <= DIGITS or not b"1" <= status[:1] <= b"5":
        raise Bad("status line")
    message = Message(_version(version), status, reason, fields)
    if not status.startswith(b"1"):
        _length(message)
    return message, rest


def _body(message: Message, data: bytes, *, until_close: bool) -> bytes:
    """Read the body of *message*; return what follows it."""
    coded, length = _length(message)
    message.whole = False
    if coded:
        message.body, data = chunked(data)
    elif length is None and until_close:
        message.body, data = data, b""
    else:
        if len(data) < (length or 0):
            raise Open
        message.body, data = data[: length or 0], data[length or 0 :]
    message.whole = True
    return data


def _version(text: bytes) -> bytes:
    if text not in (b"HTTP/1.0", b"HTTP/1.1"):
        raise Bad("version")
    return text


def _head(data: bytes) -> tuple[bytes, Fields, bytes]:
    end = data.find(b"\r\n\r\n")
    if end < 0:
        raise Open
    first, *lines = data[:end].split(b"\r\n")
    if not set(first) <= IN_VALUE:
        raise Bad("a control character")
    return first, [_field(line) for line in lines], data[end + 4 :]


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not name or not set(name) <= TOKEN or not set(value) <= IN_VALUE:
        raise Bad("field line")
    return name, value.strip(b" \t")


def _length(message: Message) -> tuple[bool, int | None]:
    codings = message.all(b"transfer-encoding")
    lengths = message.all(b"content-length")
    if codings:
        if lengths or len(codings) != 1 or codings[0].lower() != b"chunked":
            raise Bad("two readings of the length")
        return True, None
    if not lengths:
        return False, None
    if len(lengths) != 1 or not lengths[0] or not set(lengths[0]) <= DIGITS or len(lengths[0]) > 18:
        raise Bad("not one length")
    return False, int(lengths[0])


def chunked(data: bytes) -> tuple[bytes, bytes]:
    """Content and what follows (RFC 9112, section 7.1); extensions and trailers are dropped."""
    content = b""
    while True:
        size, data = _size(data)
        if not size:
            return content, _trailers(data)
        if len(data) < size + 2:
            if len(data) > size and data[size : size + 1] != b"\r":
                raise Bad("no line end behind a chunk")
            raise Open
        if data[size : size + 2] != b"\r\n":
            raise Bad("no line end behind a chunk")
        content += data[:size]
        data = data[size + 2 :]


def _size(data: bytes) -> tuple[int, bytes]:
    line, end, rest = data.partition(b"\n")
    if not end:
        raise Open
    digits = 0
    while digits < len(line) and line[digits] in HEX:
        digits += 1
    behind = line[digits:].lstrip(b" \t")
    if not 1 <= digits <= 15 or not behind.endswith(b"\r"):
        raise Bad("chunk size line")
    extension = behind[:-1]
    if extension and (extension[:1] != b";" or not set(extension) <= IN_VALUE):
        raise Bad("chunk extension")
    return int(line[:digits], 16), rest


def _trailers(data: bytes) -> bytes:
    while True:
        if data.startswith(b"\r\n"):
            return data[2:]
        line, end, data = data.partition(b"\r\n")
        if not end:
            raise Open
        _field(line)
