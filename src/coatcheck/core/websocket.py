"""RFC 6455 as far as a proxy between the two ends needs it: the handshake, and frames as values.

Strict: what one end might read otherwise than we do ends the connection. Extensions are never
agreed on, so the reserved bits are zero and no message is compressed. Payloads come in parts, as
the bytes come, and nothing but a control frame (125 bytes) is collected here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from coatcheck.core.message import Fields, ResponseHead, field_values, list_members

MAX_CONTROL = 125  # bytes of payload in a control frame
MAX_REASON = MAX_CONTROL - 2
KEY_BYTES = 16
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_FIN, _RESERVED, _OPCODE, _MASKED, _LENGTH = 0x80, 0x70, 0x0F, 0x80, 0x7F


class Opcode(IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Close(IntEnum):
    """Codes that we send ourselves (RFC 6455, section 7.4.1)."""

    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    NOT_UTF8 = 1007
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTART = 1012


class BadFrame(ValueError):
    """The other side broke RFC 6455. The text is a constant; *code* is what it is told."""

    def __init__(self, text: str, code: Close = Close.PROTOCOL_ERROR) -> None:
        super().__init__(text)
        self.code = code


# --- handshake ---------------------------------------------------------------------------------


def handshake_key(method: bytes, fields: Fields) -> bytes | None:
    """The Sec-WebSocket-Key of an opening handshake of version 13 (section 4.2.1); None if the
    request is none, or not a whole one."""
    if [v.lower() for v in field_values(fields, b"upgrade")] != [b"websocket"] or method != b"GET":
        return None
    if b"upgrade" not in list_members(field_values(fields, b"connection")):
        return None
    if field_values(fields, b"sec-websocket-version") != [b"13"]:
        return None
    keys = field_values(fields, b"sec-websocket-key")
    return keys[0] if len(keys) == 1 and _is_key(keys[0]) else None


def accepts(head: ResponseHead, key: bytes) -> bool:
    """Whether *head*, of a 101, opens a WebSocket for *key*, without an extension."""
    digest = hashlib.sha1(key + _GUID, usedforsecurity=False).digest()
    return (
        [value.lower() for value in head.all(b"upgrade")] == [b"websocket"]
        and b"upgrade" in list_members(head.all(b"connection"))
        and head.all(b"sec-websocket-accept") == [base64.b64encode(digest)]
        and not head.all(b"sec-websocket-extensions")
        and len(head.all(b"sec-websocket-protocol")) <= 1
        and not head.all(b"transfer-encoding")
        and head.all(b"content-length") in ([], [b"0"])
    )


def _is_key(key: bytes) -> bool:
    try:
        decoded = base64.b64decode(key, validate=True)
    except binascii.Error:
        return False
    return len(decoded) == KEY_BYTES and base64.b64encode(decoded) == key


# --- frames ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """Some of a message, or one whole control frame.

    Attributes:
        opcode: Of the message: never CONTINUATION.
        ends: The message, or control frame, is complete with it.
    """

    opcode: Opcode
    payload: bytes
    ends: bool

    @property
    def is_control(self) -> bool:
        return self.opcode >= Opcode.CLOSE


class FrameReader:
    """Cuts a stream into parts; *masked*: it comes from a client. Nothing is read after a close.

    Attributes:
        closed: A close frame has come.
    """

    def __init__(self, *, masked: bool) -> None:
        self.closed = False
        self._masked = masked
        self._buffer = b""
        self._message: Opcode | None = None  # the message that is under way
        self._opcode = Opcode.CONTINUATION  # of the frame that is being read
        self._fin = False
        self._key = b""
        self._left: int | None = None  # bytes of the frame still to come; None: between frames

    def feed(self, data: bytes) -> Iterator[Part]:
        """Raises `BadFrame`."""
        buffer, at = self._buffer + data, 0
        self._buffer = b""
        while not self.closed:
            if self._left is None:
                begins = self._head(buffer, at)
                if begins is None:
                    break
                at = begins
            left = self._left or 0
            payload = buffer[at : at + left]
            if self._opcode >= Opcode.CLOSE and len(payload) < left:
                break  # a control frame is taken whole
            at += len(payload)
            self._left = left - len(payload)
            part = self._part(payload)
            if part.payload or part.ends:
                yield part
            if self._left:
                break
            self._left = None
        if not self.closed:
            self._buffer = buffer[at:]

    def _part(self, payload: bytes) -> Part:
        opcode, done = self._opcode, not self._left
        if self._key:
            turn = len(payload) % 4
            payload = mask(payload, self._key)
            self._key = self._key[turn:] + self._key[:turn]
        if opcode >= Opcode.CLOSE:
            self.closed = opcode is Opcode.CLOSE
            return Part(opcode, payload, ends=True)
        ends = done and self._fin
        part = Part(self._message or opcode, payload, ends)
        if ends:
            self._message = None
        return part

    def _head(self, buffer: bytes, at: int) -> int | None:
        """Read a frame's head; return where its payload begins, None if the head is not whole."""
        if len(buffer) - at < 2:
            return None
        first, second = buffer[at], buffer[at + 1]
        length, at = second & _LENGTH, at + 2
        self._judge(first, second, length)
        more = {126: 2, 127: 8}.get(length, 0)
        key = 4 if self._masked else 0
        if len(buffer) - at < more + key:
            return None
        if more:
            length = int.from_bytes(buffer[at : at + more])
            if length < (126 if more == 2 else 1 << 16) or length >> 63:
                raise BadFrame("a length that is not in its shortest form")
        at += more
        self._key = buffer[at : at + key]
        self._opcode, self._fin, self._left = Opcode(first & _OPCODE), bool(first & _FIN), length
        if self._opcode in (Opcode.TEXT, Opcode.BINARY):
            self._message = self._opcode
        return at + key

    def _judge(self, first: int, second: int, length: int) -> None:
        opcode = first & _OPCODE
        if first & _RESERVED or opcode not in _OPCODES:
            raise BadFrame("reserved bits, or an unknown opcode")
        if bool(second & _MASKED) is not self._masked:
            raise BadFrame("a mask where none belongs, or none where one does")
        if opcode >= Opcode.CLOSE:
            if length > MAX_CONTROL or not first & _FIN:
                raise BadFrame("a control frame that is too long, or in pieces")
        elif (opcode == Opcode.CONTINUATION) is (self._message is None):
            raise BadFrame("a fragment without its message, or a message inside another")


_OPCODES = frozenset(Opcode)


def frame(opcode: Opcode, payload: bytes, *, fin: bool = True, key: bytes = b"") -> bytes:
    """One frame; with a *key* of 4 bytes it is masked."""
    size, bit = len(payload), _MASKED if key else 0
    head = bytes([opcode | (_FIN if fin else 0)])
    if size < 126:
        head += bytes([bit | size])
    elif size < 1 << 16:
        head += bytes([bit | 126]) + size.to_bytes(2)
    else:
        head += bytes([bit | 127]) + size.to_bytes(8)
    return head + key + (mask(payload, key) if key else payload)


def mask(data: bytes, key: bytes) -> bytes:
    """*data* under *key*, or out from under it (section 5.3)."""
    size = len(data)
    pad = key * (size // 4 + 1)
    return (int.from_bytes(data) ^ int.from_bytes(pad[:size])).to_bytes(size)


def close_payload(code: int, reason: str) -> bytes:
    return code.to_bytes(2) + reason.encode()[:MAX_REASON]


def read_close(payload: bytes) -> tuple[bytes, bytes]:
    """Code (2 bytes, or none) and reason of a close frame (section 5.5.1).

    Raises:
        BadFrame: a code that may not be sent, or a reason that is no UTF-8.
    """
    if not payload:
        return b"", b""
    code = int.from_bytes(payload[:2])
    if len(payload) < 2 or not (code in _CODES or 3000 <= code < 5000):
        raise BadFrame("a close frame without a code that may be sent")
    Utf8().feed(payload[2:], last=True)
    return payload[:2], payload[2:]


_CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


# --- text --------------------------------------------------------------------------------------


class Utf8:
    """Checks one text as it comes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes, *, last: bool) -> bytes:
        """The characters that are complete. Raises `BadFrame`."""
        text = self._rest + data
        whole = len(text) if last or text.isascii() else _whole(text)
        try:
            text[:whole].decode()
        except UnicodeDecodeError:
            raise BadFrame("a text that is no UTF-8", Close.NOT_UTF8) from None
        self._rest = text[whole:]
        return text[:whole]


class Mended(Utf8):
    """As `Utf8`, for text out of which something was taken: what no longer is a character is
    replaced."""

    def feed(self, data: bytes, *, last: bool) -> bytes:
        text = self._rest + data
        whole = len(text) if last or text.isascii() else _whole(text)
        self._rest = text[whole:]
        return text[:whole].decode("utf-8", "replace").encode()


def _whole(text: bytes) -> int:
    """How many bytes of *text* come before a character that is not complete."""
    for back in range(1, min(3, len(text)) + 1):
        byte = text[-back]
        if byte >= 0xC0:  # it begins a character of so many bytes
            return (
                len(text) - back
                if back < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4)
                else len(text)
            )
        if byte < 0x80:
            break
    return len(text)
