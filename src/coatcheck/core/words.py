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

`_words.c` does it where there was a compiler, and numpy else, which takes three times as long; both
find the same. numpy is imported only where there is something to search: programs that do not
proxy do not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

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
_BLOCK = 64 * 1024  # bytes; of so many the places are worked out before they leave the cache
_MARKED = 4  # words of a sequence, at most, that the table knows
_BEYOND = COUNTS[0] - 1  # words of the next slice that a sequence may take
_SPREAD = 8  # places of a table for each word, at least: fewer, and too many fall together
_LEAST_BITS, _MOST_BITS = 12, 23  # of the table's size, a byte for each place
_FACTOR = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: neighbours fall far apart
_FOLD = 0x2020202020202020  # sets the bit that tells lower case
_ALONE = frozenset({1})  # words of the sequences that are looked for on more cuts
_MOST = 512  # places; where there are more, they are everywhere

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


class Words:
    """A set of stretches that texts are asked for. Immutable, and shows none of them."""

    __slots__ = (
        "_bits",
        "_factor",
        "_first",
        "_fold",
        "_kinds",
        "_more_cuts",
        "_numpy",
        "_sequences",
        "_shift",
        "_table",
        "_table_shift",
    )

    def __init__(self, stretches: Iterable[bytes]) -> None:
        """Each stretch of a size that `size_within` gives."""
        import numpy

        self._numpy: Any = numpy
        # In numpy's own types: to turn a number into one takes longer than to use it.
        self._fold, self._factor = numpy.uint64(_FOLD), numpy.uint64(_FACTOR)
        self._bits = tuple(numpy.uint8(number) for number in range(1 << _MARKED))
        sequences: set[Sequence] = set()
        cut = WORD
        for stretch in stretches:
            count, own_cut = _shape(len(stretch))
            cut = min(cut, own_cut)
            sequences.update(_cut_up(stretch, count, own_cut))
        # As numbers in order: as tuples in a set they would take twenty times the memory.
        numbers = sorted({_number(sequence) for sequence in sequences})
        self._sequences = numpy.fromiter(numbers, numpy.uint64, len(numbers))
        self._more_cuts = range(cut, WORD, cut)
        self._kinds = frozenset(map(len, sequences))
        marks: dict[int, int] = {}
        for sequence in sequences:
            for place, word in enumerate(sequence[:_MARKED]):
                marks[word] = marks.get(word, 0) | _bit(min(len(sequence), _MARKED), place)
        bits = (len(marks) * _SPREAD).bit_length()
        bits = min(max(bits, _LEAST_BITS), _MOST_BITS)
        self._table_shift = 64 - bits
        self._shift = numpy.uint64(self._table_shift)
        self._table = numpy.zeros(1 << bits, numpy.uint8)
        known = numpy.fromiter(marks, numpy.uint64, len(marks))
        listed = numpy.fromiter(marks.values(), numpy.uint8, len(marks))
        numpy.bitwise_or.at(self._table, self._places(known), listed)
        first = sorted({sequence[0] for sequence in sequences})
        self._first = numpy.fromiter(first, numpy.uint64, len(first))

    def find(self, text: bytes) -> list[int] | None:
        """Where in *text* words stand as they do in a stretch: one place at least in each
        occurrence of one, in no order. None: in more places than are worth listing."""
        found: list[int] = []
        room = _rooms.pop() if _rooms else _Room()
        for start in range(0, len(text) - WORD + 1, SLICE):
            self._look(text, start, self._kinds, found, room)
            for cut in self._more_cuts:
                self._look(text, start + cut, _ALONE, found, room)
            if len(found) > _MOST:
                break
        _rooms.append(room)
        return found if len(found) <= _MOST else None

    def _look(
        self, text: bytes, start: int, kinds: frozenset[int], found: list[int], room: _Room
    ) -> None:
        """Add to *found* where, in the slice from *start* on, sequences begin that have so many
        words as in *kinds*."""
        numpy = self._numpy
        size = min(SLICE // WORD, (len(text) - start) // WORD)
        if size <= 0:
            return
        count = min(size + _BEYOND, (len(text) - start) // WORD)
        if _compiled is not None:
            where = (text, start, count, size, self._table, self._table_shift)
            asked = (self._first, self._sequences, sum(self._kinds), sum(kinds))
            places = _compiled(*where, *asked, _MOST, room.at)
            if places > _MOST:
                found.extend([start] * (_MOST + 1))
            elif places:
                found += [start + place * WORD for place in room.at[:places].tolist()]
            return
        words = numpy.frombuffer(text, "<u8", count, start)
        marks = self._marks(words, size, room)
        at = (self._whole(marks, size, kinds, room) != 0).nonzero()[0]
        # Words fall together in the table too often to look at each, in a text that repeats itself.
        begun = words[at] | self._fold
        place = self._first.searchsorted(begun)
        at = at[self._first.take(place, mode="clip") == begun]
        if len(at) > _MOST:
            found.extend([start] * (_MOST + 1))
            return
        # Of several so near to each other one will do. And one is looked at in any case: that there
        # is one must not show in the time that it takes.
        beyond = -1
        for index in at.tolist() or (0,):
            if index < beyond:
                continue
            ahead = (words[index : index + COUNTS[0]] | self._fold).tolist()
            known = [self._knows(ahead[:count]) for count in self._kinds]
            if any(known):
                found.append(start + index * WORD)
                beyond = index + COUNTS[0]

    def _knows(self, sequence: list[int]) -> bool:
        number = self._numpy.uint64(_number(sequence))
        at = self._sequences.searchsorted(number)
        return at < len(self._sequences) and bool(self._sequences[at] == number)

    def _marks(self, words: Any, size: int, room: _Room) -> Any:
        """What the table says of each of *words*, and 0 for those that are missing to *size* and
        `_BEYOND` more."""
        numpy = self._numpy
        marks = room.marks[: size + _BEYOND]
        marks[len(words) :] = 0
        for start in range(0, len(words), _BLOCK // WORD):
            block = words[start : start + _BLOCK // WORD]
            places = room.places[: len(block)]
            numpy.bitwise_or(block, self._fold, out=places)
            numpy.multiply(places, self._factor, out=places)
            numpy.right_shift(places, self._shift, out=places)
            told = marks[start : start + len(block)]
            self._table.take(places.view(numpy.int64), mode="clip", out=told)
        return marks

    def _whole(self, marks: Any, size: int, kinds: frozenset[int], room: _Room) -> Any:
        """For each of *size* words whether a sequence may begin with it: the bit of its first word
        is left. *marks* goes on for `_BEYOND`."""
        bits, both = self._bits, self._numpy.bitwise_and
        whole, part = room.whole[:size], room.part[:size]
        both(marks[:size], bits[1 in kinds], out=whole)
        ahead, length = marks, len(marks)
        for count in (2, 4) if kinds != _ALONE else ():
            # Bit n of *ahead* is to stand for *count* words in a row, the first of mark n.
            half = count // 2
            length -= half
            later = room.later[:length]
            self._numpy.right_shift(ahead[half : half + length], bits[half], out=later)
            ahead = both(ahead[:length], later, out=room.ahead[:length])
            if count in kinds or count == _MARKED:
                both(ahead[:size], bits[_bit(count, 0)], out=part)
                self._numpy.bitwise_or(whole, part, out=whole)
        return whole

    def _places(self, words: Any) -> Any:
        return ((words * self._factor) >> self._shift).view(self._numpy.int64)

    def __repr__(self) -> str:
        return f"<{len(self._sequences)} sequences of words>"


class _Room:
    """Arrays to work in, for one text after the other: to have them made anew takes as long as the
    work."""

    def __init__(self) -> None:
        import numpy

        count = SLICE // WORD + _BEYOND
        if _compiled is not None:
            self.at = numpy.empty(count, numpy.int64)
            return
        self.places = numpy.empty(_BLOCK // WORD, numpy.uint64)
        self.marks, self.ahead, self.later, self.whole, self.part = (
            numpy.empty(count, numpy.uint8) for _ in range(5)
        )


# Not in use just now; as many as there were threads at work at once.
_rooms: list[_Room] = []


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
        yield tuple(word | _FOLD for word in words)


def _number(sequence: Iterable[int]) -> int:
    """64 bits that stand for *sequence*, and its length: others have them by chance alone."""
    number = 0
    for word in sequence:
        number = ((number ^ word) * _FACTOR + 1) % (1 << 64)
        number ^= number >> 32
    return number


def _bit(count: int, place: int) -> int:
    """The mark of a word at *place* of a sequence of *count*: 1; 2, 4; 8 to 64."""
    return 1 << count - 1 + place
