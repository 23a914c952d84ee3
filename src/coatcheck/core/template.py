"""A piece of a message with holes where values go: found in one pass, filled in another.

Finding and filling are apart because the decision and the audit record stand between them. A
value is written into its hole and never looked at again, so a value that itself looks like a
placeholder stays as it is (no second pass, ever).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from coatcheck.core.locations import Location
from coatcheck.core.secret import SecretValue


class NotRepresentable(ValueError):
    """A value has bytes that cannot be written at its place. The text never quotes the value."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One placeholder.

    Attributes:
        name: The secret's name; None where the text is a placeholder up to a point only.
        text: The placeholder as the client wrote it, to be kept where policy says so.
        encode: Writes a value in the escaping of this place; may raise `NotRepresentable`.
    """

    name: str | None
    location: Location
    text: bytes
    encode: Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Group:
    """Pieces that are encoded together once filled: the inside of a Basic token.

    Attributes:
        excerpt: Of the encoded form of some bytes the part that carries those from start to stop.
    """

    pieces: tuple[bytes | Slot, ...]
    wrap: Callable[[bytes], bytes]
    excerpt: Callable[[bytes, int, int], bytes]


type Piece = bytes | Slot | Group
type Fill = Callable[[Slot], SecretValue | None]


def slots(pieces: Iterable[Piece]) -> Iterator[Slot]:
    """Every slot of *pieces*, in order, those inside groups too."""
    for piece in pieces:
        if isinstance(piece, bytes):
            continue
        if isinstance(piece, Slot):
            yield piece
        else:
            yield from slots(piece.pieces)


def render(pieces: Iterable[Piece], fill: Fill) -> bytes:
    """*pieces* as bytes, each slot filled by *fill*; None keeps the client's own text.

    Raises:
        NotRepresentable: a value cannot be written at its place.
    """
    out: list[bytes] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            out.append(piece)
        elif isinstance(piece, Slot):
            value = fill(piece)
            out.append(piece.text if value is None else piece.encode(value.reveal()))
        else:
            out.append(piece.wrap(render(piece.pieces, fill)))
    return b"".join(out)


def group_tokens(pieces: Iterable[Piece], fill: Fill) -> Iterator[tuple[str, bytes]]:
    """For each value in a group its name, and the part of the encoded form that carries it.

    That part is what an upstream may echo in a spelling of its own. Not the whole: what stands
    round the value is the client's, of any length, and would make each search a new one.
    """
    for piece in pieces:
        if isinstance(piece, Group):
            yield from _excerpts(piece, fill)


def _excerpts(group: Group, fill: Fill) -> Iterator[tuple[str, bytes]]:
    inside, spans = b"", list[tuple[str, int, int]]()
    for piece in group.pieces:
        written = render([piece], fill)
        value = fill(piece) if isinstance(piece, Slot) else None
        if value is not None:
            spans.append((value.name, len(inside), len(inside) + len(written)))
        inside += written
    for name, start, stop in spans:
        yield name, group.excerpt(inside, start, stop)
