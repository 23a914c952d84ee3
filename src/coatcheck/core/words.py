"""Tells where in a long text a needle may stand, at a cost that depends neither on the number of
needles nor, as far as they are concerned, on the text.

Text is cut into words of eight bytes, and each is looked up in one table, which says at which place
of which kind of sequence it may stand: wherever a stretch of 71 bytes stands, there are eight words
of it in a row on such cuts; in one of 39 bytes four, of 23 two, of 15 one. Sequences, but for the
second half of those of eight, are found by shifting what the table said and taking what is common,
as Hyperscan's FDR does for bytes (Wang et al., NSDI 2019). Shorter stretches are looked for on more
cuts.

Every text goes through the same steps: a sequence of which all words but one are right costs what
any other text costs. Only a whole one is looked at more closely. Letters are taken in one case, so
that hexadecimal digits need no words of their own.

`_words.c` does it where there was a compiler, and `core/words_numpy.py` else, which takes three
times as long; both find the same.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from typing import NamedTuple

_compiled: Callable[..., int] | None
try:
    from coatcheck.core._words import places as _compiled
except ImportError:  # there was no compiler
    _compiled = None

WORD = 8  # bytes; what a 64-bit integer holds
COUNTS = (8, 4, 2, 1)  # words of a sequence
SHORTEST = WORD  # bytes of a stretch
_CUTS = (WORD, 4, 2, 1)  # bytes from one cut to the next
SLICE = 320 * 1024  # bytes looked at in one go: a chunk, and what was held back before it
MARKED = 4  # words of a sequence, at most, that the table knows
BEYOND = COUNTS[0] - 1  # words of the next slice that a sequence may take
_SPREAD = 8  # places of a table for each word, at least: fewer, and too many fall together
_LEAST_BITS, _MOST_BITS = 12, 23  # of the table's size, a byte for each place
FACTOR = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: neighbours fall far apart
FOLD = 0x2020202020202020  # sets the bit that tells lower case
ALONE = frozenset({1})  # words of the sequences that are looked for on more cuts
MOST = 512  # places; where there are more, they are everywhere

_ALL = (1 << 64) - 1

type Sequence = tuple[int, ...]


def size_within(whole: int, enough: int = COUNTS[0]) -> int:
    """Bytes of the longest stretch that can be asked for within *whole* bytes.

    Args:
        whole: `SHORTEST` or more.
        enough: No more words than this are wanted in a row, but for the next number there is.
    """
    for count in COUNTS:
        if count < 2 * enough and whole >= (count + 1) * WORD - 1:
            return (count + 1) * WORD - 1
    return next(WORD + cut - 1 for cut in _CUTS if whole >= WORD + cut - 1)


class Table(NamedTuple):
    """What texts are asked for: the table of the module's text, and what it cannot tell.

    Attributes:
        marks: By the place of a word; bits as `bit` gives them.
        shift: What of a word's product is its place: the bits above so many.
        first: Words that a sequence begins with, in order.
        sequences: Their numbers (`number`), in order.
        kinds: How many words they have.
    """

    marks: bytearray
    shift: int
    first: array[int]
    sequences: array[int]
    kinds: frozenset[int]


class Slice(NamedTuple):
    """The part of a text that is looked at.

    Attributes:
        start: Bytes before it.
        words: There are so many, and sequences begin in the first *size* of them.
    """

    text: bytes
    start: int
    words: int
    size: int


class Words:
    """A set of stretches that texts are asked for. Immutable, and shows none of them."""

    __slots__ = ("_more_cuts", "_table")

    def __init__(self, stretches: Iterable[bytes]) -> None:
        """Each stretch of a size that `size_within` gives."""
        sequences: set[Sequence] = set()
        cut = WORD
        for stretch in stretches:
            count, own_cut = _shape(len(stretch))
            cut = min(cut, own_cut)
            sequences.update(_cut_up(stretch, count, own_cut))
        self._more_cuts = range(cut, WORD, cut)
        self._table = _table(sequences)

    def find(self, text: bytes) -> list[int] | None:
        """Where in *text* words stand as they do in a stretch: one place at least in each
        occurrence of one, in no order. None: in more places than are worth listing."""
        found: list[int] = []
        for start in range(0, len(text) - WORD + 1, SLICE):
            self._look(text, start, self._table.kinds, found)
            for cut in self._more_cuts:
                self._look(text, start + cut, ALONE, found)
            if len(found) > MOST:
                return None
        return found

    def _look(self, text: bytes, start: int, kinds: frozenset[int], found: list[int]) -> None:
        """Add to *found* where, in the slice from *start* on, sequences begin that have so many
        words as in *kinds*."""
        left = (len(text) - start) // WORD
        size = min(SLICE // WORD, left)
        if size <= 0:
            return
        piece = Slice(text, start, min(size + BEYOND, left), size)
        if _compiled is None:
            places = _look_in_numpy(self._table, piece, kinds)
        else:
            places = _look_compiled(_compiled, self._table, piece, kinds)
        if places is None:
            found.extend([start] * (MOST + 1))
        elif places:
            found += [start + place * WORD for place in places]

    def __repr__(self) -> str:
        return f"<{len(self._table.sequences)} sequences of words>"


type Places = Iterable[int] | None  # words of a slice; None: more than `MOST`

# Arrays to work in, for one text after the other: to have them made anew takes as long as the work.
# Not in use just now; as many as there were threads at work at once.
_rooms: list[array[int]] = []


def _look_compiled(
    compiled: Callable[..., int], table: Table, piece: Slice, kinds: frozenset[int]
) -> Places:
    room = _rooms.pop() if _rooms else array("q", bytes((SLICE // WORD + BEYOND) * WORD))
    asked = (table.marks, table.shift, table.first, table.sequences)
    found = compiled(*piece, *asked, sum(table.kinds), sum(kinds), MOST, room)
    places = room[:found] if found <= MOST else None
    _rooms.append(room)
    return places


def _look_in_numpy(table: Table, piece: Slice, kinds: frozenset[int]) -> Places:
    from coatcheck.core import words_numpy  # a fifth of a second, where it is not needed

    return words_numpy.look(table, piece, kinds)


def _table(sequences: set[Sequence]) -> Table:
    marks: dict[int, int] = {}
    for sequence in sequences:
        for place, word in enumerate(sequence[:MARKED]):
            marks[word] = marks.get(word, 0) | bit(min(len(sequence), MARKED), place)
    bits = (len(marks) * _SPREAD).bit_length()
    bits = min(max(bits, _LEAST_BITS), _MOST_BITS)
    shift = 64 - bits
    listed = bytearray(1 << bits)
    for word, mark in marks.items():
        listed[(word * FACTOR & _ALL) >> shift] |= mark
    return Table(
        listed,
        shift,
        array("Q", sorted({sequence[0] for sequence in sequences})),
        # As numbers in order: as tuples in a set they would take twenty times the memory.
        array("Q", sorted({number(sequence) for sequence in sequences})),
        frozenset(map(len, sequences)),
    )


def _shape(size: int) -> tuple[int, int]:
    """Of a stretch of *size* bytes: words of a sequence in it, bytes from one cut to the next."""
    if size >= 2 * WORD - 1:
        return (size + 1) // WORD - 1, WORD
    return 1, size - WORD + 1


def _cut_up(stretch: bytes, count: int, cut: int) -> Iterable[Sequence]:
    """The sequences of *count* words, one of which begins on a cut wherever *stretch* stands."""
    for start in range(cut):
        ends = range(start, start + count * WORD, WORD)
        words = (int.from_bytes(stretch[at : at + WORD], "little") for at in ends)
        yield tuple(word | FOLD for word in words)


def number(sequence: Iterable[int]) -> int:
    """64 bits that stand for *sequence*, and its length: others have them by chance alone."""
    found = 0
    for word in sequence:
        found = ((found ^ word) * FACTOR + 1) & _ALL
        found ^= found >> 32
    return found


def bit(count: int, place: int) -> int:
    """The mark of a word at *place* of a sequence of *count*: 1; 2, 4; 8 to 64."""
    return 1 << count - 1 + place
