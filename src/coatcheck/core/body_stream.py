"""What all body rewriters share: a buffer that begins where the reader's state says it does.

A format is a function of (state, buffer, end?) that gives pieces and the rest of the buffer that it
cannot judge yet. What it gives must not depend on where the body was cut, and the rest must stay
small: at most a placeholder in its most wasteful escaping (19 KiB in JSON, 3 KiB where nothing is
escaped), or the head of one multipart part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from coatcheck.core.escaping import Escaping, find_slots, take_slots
from coatcheck.core.locations import Kind, Location
from coatcheck.core.placeholder import MAX_SPACES, Grammar
from coatcheck.core.template import Piece, Slot

MAX_NAME = 4096  # bytes of a JSON pointer or field name as the client wrote it; over it: no name
SOMEWHERE = Location(Kind.BODY)  # no name: fits only a grant for the whole body

# A rest this long is part of a quoted name, or an attack: sent byte by byte, looking at all of it
# each time would be quadratic. So it waits for one sixteenth more before the next look.
_LONG_REST = 512
_WORTH_A_LOOK = 16

_OPENER = len("{{secrets[") + MAX_SPACES + 1  # decoded bytes that can be an opener, cut


class Stream(ABC):
    """A `BodyRewriter`; subclasses say what is in a buffer."""

    def __init__(self, grammar: Grammar) -> None:
        self.is_slow = False  # at what it was fed last: it is to be fed less at once
        self._grammar = grammar
        self._rest = b""
        self._looked_at = 0  # bytes of `_rest` that were there at the last look

    @property
    def held(self) -> int:
        """Bytes that are held back just now."""
        return len(self._rest)

    def feed(self, chunk: bytes) -> list[Piece]:
        """The pieces that are settled with *chunk*."""
        buffer = self._rest + chunk if self._rest else chunk
        if (
            self._looked_at > _LONG_REST
            and (len(buffer) - self._looked_at) * _WORTH_A_LOOK < self._looked_at
        ):
            self._rest = buffer
            return []
        pieces, self._rest = self._rewrite(buffer, final=False)
        self._looked_at = len(self._rest)
        return [piece for piece in pieces if piece]

    def finish(self) -> list[Piece]:
        """The pieces that were held back. Call it once, after the last `feed`."""
        pieces, _ = self._rewrite(self._rest, final=True)
        self._rest = b""
        return [piece for piece in pieces if piece]

    @abstractmethod
    def _rewrite(self, buffer: bytes, *, final: bool) -> tuple[list[Piece], bytes]:
        """The pieces of *buffer* and the rest to be prepended to what comes next.

        With *final* nothing comes next, and the rest is empty.
        """


def cut(
    raw: bytes, grammar: Grammar, escaping: Escaping, location: Location, *, final: bool
) -> tuple[list[bytes | Slot], bytes]:
    """`find_slots` and `take_slots` with a short way past text that can hold no placeholder."""
    if not grammar.maybe(raw):
        if final:
            return [raw], b""
        # Only an opener that is cut can be here. The tail must not begin inside an escape.
        tail_at = max(0, len(raw) - _OPENER * escaping.stretch)
        while tail_at and raw[tail_at - 1] == _BACKSLASH:
            tail_at -= 1
        _, rest = take_slots(raw[tail_at:], grammar, escaping, location)
        return [raw[: len(raw) - len(rest)]], rest
    if final:
        return find_slots(raw, grammar, escaping, location), b""
    return take_slots(raw, grammar, escaping, location)


_BACKSLASH = ord("\\")
