"""application/x-www-form-urlencoded (URL Standard, section 5.1): a location for each field.

Only ``&`` parts fields here, as browsers and frameworks have it. Some old receivers take ``;`` for
a separator as well, and would read another field name than we do; so after a bare ``;`` a
placeholder has no name, and only a grant for the whole body reaches it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from coatcheck.core import escaping
from coatcheck.core.body_stream import MAX_NAME, SOMEWHERE, Stream, cut
from coatcheck.core.locations import Kind, Location
from coatcheck.core.placeholder import Grammar
from coatcheck.core.template import Piece, Slot

_NAME = re.compile(rb"[^&=]*+")
_VALUE = re.compile(rb"[^&]*+")
# The word of every placeholder, its letters escaped or not, and what follows it.
_WORD = re.compile(
    rb"(?:s|%73)(?:e|%65)(?:c|%63)(?:r|%72)(?:e|%65)(?:t|%74)(?:s|%73)?+[.\[%]",
)


class FormRewriter(Stream):
    """See the module. The buffer begins inside a name or inside a value."""

    def __init__(self, grammar: Grammar) -> None:
        super().__init__(grammar)
        self._begin_field()

    def _begin_field(self) -> None:
        self._in_value = False
        self._name: bytes | None = b""  # as written; None: not to be relied on

    def _rewrite(self, buffer: bytes, *, final: bool) -> tuple[list[Piece], bytes]:
        pieces: list[Piece] = []
        at = 0
        suspect = -1 if self._grammar.maybe(buffer) else len(buffer)
        while True:
            if suspect < at:
                found = _WORD.search(buffer, at)
                suspect = found.start() if found else len(buffer)
            # Whole fields in front of it hold no placeholder, and do not matter to what comes.
            if (last := buffer.rfind(b"&", at, suspect)) >= 0:
                self._begin_field()
                pieces.append(buffer[at : last + 1])
                at = last + 1
            match = (_VALUE if self._in_value else _NAME).match(buffer, at)
            end = match.end() if match else at
            ends_here = end < len(buffer)
            stretch = buffer[at:end]
            cuts, rest = cut(
                stretch, self._grammar, escaping.FORM, self._location(), final=ends_here or final
            )
            pieces += self._placed(cuts)
            if not ends_here:
                return pieces, rest
            if buffer[end] == _EQUALS:
                self._in_value = True
            else:
                self._begin_field()
            at = end + 1
            pieces.append(buffer[end:at])

    def _location(self) -> Location:
        if not self._in_value or self._name is None:
            return SOMEWHERE
        try:
            name = escaping.decode_form(self._name).text.decode("utf-8")
        except UnicodeDecodeError:
            return SOMEWHERE
        return Location(Kind.BODY, "/" + name)

    def _placed(self, pieces: list[bytes | Slot]) -> Iterator[Piece]:
        """*pieces* of one stretch; keeps the name, and drops it where it is not to be relied on."""
        for piece in pieces:
            if isinstance(piece, Slot):
                yield piece if self._name is not None else replace(piece, location=SOMEWHERE)
            else:
                yield piece
            if not self._in_value:
                self._extend_name(piece)
            elif isinstance(piece, bytes) and b";" in piece:
                self._name = None

    def _extend_name(self, piece: bytes | Slot) -> None:
        if isinstance(piece, Slot) or b";" in piece or self._name is None:
            self._name = None
        else:
            self._name += piece
            if len(self._name) > MAX_NAME:
                self._name = None


_EQUALS = ord("=")
