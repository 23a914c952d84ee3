"""multipart/* (RFC 2046, section 5.1; RFC 7578): the bodies of its parts, never their heads.

Whatever is not the body of a text part passes untouched: preamble, epilogue, part heads, parts of
a binary type, nested multiparts, parts with a transfer encoding other than 7bit, 8bit or binary.

A part is called by the ``name`` of its Content-Disposition. Parsers differ on what is a delimiter
(bare LF, padding, text after the boundary) and on odd heads. A client could hide a field from one
of them, so where they may differ the placeholder has no name and only a grant for the whole body
reaches it: in a part behind an odd delimiter, behind the boundary's text inside a part, in a part
whose head is odd, in every part behind a head that holds the body's end; and where head or part say
a charset in which ASCII may be something else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from enum import Enum

from coatcheck.core import media_type
from coatcheck.core.body_stream import MAX_NAME, SOMEWHERE, Stream, cut
from coatcheck.core.escaping import Escaping
from coatcheck.core.locations import Kind, Location
from coatcheck.core.placeholder import Grammar
from coatcheck.core.problems import Code, refuse
from coatcheck.core.template import NotRepresentable, Piece, Slot

MAX_PARTS = 2048  # a part of no bytes costs as much time as one of many
MAX_PART_HEAD = 16 * 1024  # bytes; a part with a longer head is left alone
_MAX_PADDING = 64  # bytes of blanks behind a boundary (RFC 2046 allows any number)

# RFC 2046, section 5.1.1: 1 to 70 of these, the last no space.
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")


class _Where(Enum):
    PREAMBLE = 0
    HEAD = 1
    BODY = 2
    EPILOGUE = 3


class _After(Enum):
    """What follows the text of a boundary."""

    PART = 0
    ODD_PART = 1  # a part, to some parsers
    CLOSE = 2
    OTHER = 3  # no delimiter
    OPEN = 4  # cannot be told yet


class MultipartRewriter(Stream):
    """See the module.

    Raises:
        Refused: bad_request: no boundary, two, or one that RFC 2046 does not allow; too many
            parts.
    """

    def __init__(self, grammar: Grammar, content_type: media_type.Parameterised) -> None:
        super().__init__(grammar)
        self._mark = b"--" + _boundary(content_type)
        self._has_names = media_type.is_ascii_based(content_type)
        self._where = _Where.PREAMBLE
        self._line_starts = True  # the buffer begins a line, though no line end stands before it
        self._escaping: Escaping | None = None  # of the part's body; None: left alone
        self._location = SOMEWHERE
        self._odd = False  # whether parsers may differ on what part this is
        self._ended = False  # whether the body is over, to some parsers
        self._parts = 0

    def _rewrite(self, buffer: bytes, *, final: bool) -> tuple[list[Piece], bytes]:
        pieces: list[Piece] = []
        at = 0
        while at < len(buffer):
            if self._where is _Where.EPILOGUE:
                pieces.append(buffer[at:])
                return pieces, b""
            if self._where is _Where.HEAD:
                end = self._head(buffer, at, final)
                pieces.append(buffer[at:end])
            else:
                found, end, moved = self._text(buffer, at, final)
                pieces += found
                if not moved:
                    return pieces, buffer[end:]
            if end == at:
                break
            at = end
        return pieces, buffer[at:]

    # --- delimiters ---

    def _text(self, buffer: bytes, at: int, final: bool) -> tuple[list[Piece], int, bool]:
        """Take preamble or part body up to the next delimiter, and that.

        Returns:
            The pieces, where they end in the buffer, and whether a delimiter was passed.
        """
        size = len(self._mark)
        stray: int | None = None
        search_from = at
        while (mark := buffer.find(self._mark, search_from)) >= 0:
            start, is_strict = self._line_start(buffer, at, mark)
            after, end = _look_behind(buffer, mark + size, final)
            if start is None or after is _After.OTHER:
                stray = mark if stray is None else stray
                search_from = mark + 1
                continue
            if after is _After.OPEN:
                pieces, stop = self._content(buffer, at, start, stray, final=False)
                return pieces, stop, False
            pieces, _ = self._content(buffer, at, start, stray, final=True)
            pieces.append(buffer[start:end])
            self._odd = after is _After.ODD_PART or not is_strict
            self._where = _Where.EPILOGUE if after is _After.CLOSE else _Where.HEAD
            return pieces, end, True
        # A delimiter that is cut may begin with the line end in front of it.
        until = len(buffer) if final else max(at, len(buffer) - size - 1)
        pieces, stop = self._content(buffer, at, until, stray, final=final)
        return pieces, stop, False

    def _line_start(self, buffer: bytes, at: int, mark: int) -> tuple[int | None, bool]:
        """Where the line end in front of *mark* begins, and whether every parser sees it."""
        if mark == at and self._line_starts:
            return mark, self._where is _Where.PREAMBLE
        if mark - at >= 2 and buffer[mark - 2 : mark] == b"\r\n":
            return mark - 2, True
        if mark - at >= 1 and buffer[mark - 1 : mark] == b"\n":
            return mark - 1, False
        return None, False

    def _content(
        self, buffer: bytes, at: int, end: int, stray: int | None, *, final: bool
    ) -> tuple[list[Piece], int]:
        """The pieces of ``buffer[at:end]`` and where they end."""
        if self._where is _Where.PREAMBLE or self._escaping is None:
            pieces: list[Piece] = [buffer[at:end]]
            stop = end
        else:
            location = SOMEWHERE if self._odd else self._location
            found, rest = cut(buffer[at:end], self._grammar, self._escaping, location, final=final)
            stop = end - len(rest)
            pieces = list(self._guarded(found, at, stray))
        if stop > at:
            self._line_starts = False
        if stray is not None and stop > stray:
            self._odd = True
        return pieces, stop

    def _guarded(self, pieces: list[bytes | Slot], at: int, stray: int | None) -> Iterator[Piece]:
        for piece in pieces:
            if isinstance(piece, Slot):
                encode = _without(self._mark, piece.encode)
                is_behind = stray is not None and at > stray
                location = SOMEWHERE if is_behind else piece.location
                yield replace(piece, encode=encode, location=location)
                at += len(piece.text)
            else:
                yield piece
                at += len(piece)

    # --- part heads ---

    def _head(self, buffer: bytes, at: int, final: bool) -> int:
        """Take the head of a part; return where it ends, *at* if that is still to come."""
        match = _HEAD_END.search(buffer, at, at + MAX_PART_HEAD)
        blank = _BLANK_LINE.match(buffer, at)
        if blank is not None:
            self._begin_body(b"", is_odd=blank[0] != b"\r\n")
            return blank.end()
        if match is not None:
            head = buffer[at : match.end()]
            self._ended = self._ended or self._mark + b"--" in head
            is_odd = self._mark in head or head.replace(b"\r\n", b"").count(b"\n") > 0
            self._begin_body(head, is_odd=is_odd)
            return match.end()
        if len(buffer) - at >= MAX_PART_HEAD:
            # Nothing can be said of it, so nothing is put into it; the next part may be fine.
            # All that was looked at is passed over, or many such heads would be looked at again.
            self._ended = self._ended or self._mark + b"--" in buffer[at : at + MAX_PART_HEAD]
            self._escaping = None
            self._where = _Where.BODY
            self._line_starts = False
            return at + MAX_PART_HEAD
        return len(buffer) if final else at

    def _begin_body(self, head: bytes, *, is_odd: bool) -> None:
        name, self._escaping, head_is_odd = _read_head(head)
        has_name = name is not None and self._has_names
        self._location = Location(Kind.BODY, f"/{name}") if has_name else SOMEWHERE
        self._odd = self._odd or is_odd or head_is_odd or self._ended
        self._where = _Where.BODY
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise refuse(
                Code.BAD_REQUEST,
                "The multipart body has too many parts.",
                hint=f"send at most {MAX_PARTS} in one request",
            )
        self._line_starts = True


def _boundary(content_type: media_type.Parameterised) -> bytes:
    boundary = content_type.get(b"boundary")
    if boundary is None or not content_type.is_whole or content_type.has_extended(b"boundary"):
        raise refuse(
            Code.BAD_REQUEST,
            "The Content-Type is multipart, but names no boundary, or more than one.",
            hint='Send one boundary: Content-Type: multipart/form-data; boundary="..."',
        )
    if not _BOUNDARY.fullmatch(boundary):
        raise refuse(
            Code.BAD_REQUEST,
            "The boundary in the Content-Type is not one that RFC 2046, section 5.1.1, allows.",
            hint="Use 1 to 70 letters, digits and dashes.",
        )
    return boundary


_DELIMITER_END = re.compile(rb"(--)|([ \t]*)(\r?\n)")
_CUT_DELIMITER = re.compile(rb"(?:-|[ \t]*\r?)\Z")


def _look_behind(buffer: bytes, at: int, final: bool) -> tuple[_After, int]:
    """What stands behind a boundary's text that ends at *at*, and where that ends."""
    if match := _DELIMITER_END.match(buffer, at, at + _MAX_PADDING):
        if match[1]:
            return _After.CLOSE, match.end()
        is_plain = not match[2] and match[3] == b"\r\n"
        return (_After.PART if is_plain else _After.ODD_PART), match.end()
    if not final and len(buffer) - at < _MAX_PADDING and _CUT_DELIMITER.match(buffer, at):
        return _After.OPEN, at
    return _After.OTHER, at


_BLANK_LINE = re.compile(rb"\r?\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z\-]+):[ \t]*(.*?)[ \t]*")
_IDENTITY_ENCODINGS = (b"7bit", b"8bit", b"binary")


def _read_head(head: bytes) -> tuple[str | None, Escaping | None, bool]:
    """The part's name, how its text escapes (None: leave it alone), and whether parsers differ."""
    is_odd = False
    fields: dict[bytes, bytes] = {}
    for line in head.replace(b"\r\n", b"\n").split(b"\n"):
        match = _FIELD.fullmatch(line)
        if match is not None and match[1].lower() not in fields:
            fields[match[1].lower()] = match[2]
        elif line:
            is_odd = True  # a folded line, no field at all, or one that comes twice
    encoding = fields.get(b"content-transfer-encoding", b"8bit").lower()
    kind = media_type.parse(fields.get(b"content-type", b""))
    escaping = media_type.text_escaping(kind.value)
    if encoding not in _IDENTITY_ENCODINGS:
        escaping = None
    name = _name(fields.get(b"content-disposition", b""))
    if not media_type.is_ascii_based(kind, of_a_part=True):
        name = None
    return name, escaping, is_odd


def _name(disposition: bytes) -> str | None:
    """The field's name (RFC 7578, section 4.2); None where there is none, or more than one."""
    parsed = media_type.parse(disposition)
    name = parsed.get(b"name")
    if name is None or not parsed.is_whole or len(name) > MAX_NAME:
        return None
    if parsed.has_extended(b"name") or b"\\" in disposition:
        return None  # some parsers undo these, some do not
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _without(mark: bytes, encode: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def write(value: bytes) -> bytes:
        written = encode(value)
        if mark in written:
            raise NotRepresentable("the value holds the boundary of the multipart body")
        return written

    return write
