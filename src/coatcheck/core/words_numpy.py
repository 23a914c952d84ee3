"""What core/words.py does for each text, where there was no compiler: see there for the idea.

In a module of its own, since numpy takes a fifth of a second to import and starts as many threads
as there are cores: programs that have `_words.c` do not pay for it.
"""

from __future__ import annotations

from typing import Any

import numpy

from coatcheck.core.words import (
    ALONE,
    BEYOND,
    COUNTS,
    FACTOR,
    FOLD,
    MARKED,
    MOST,
    SLICE,
    WORD,
    Slice,
    Table,
    bit,
    number,
)

_BLOCK = 64 * 1024  # bytes; of so many the places are worked out before they leave the cache
# In numpy's own types: to turn a number into one takes longer than to use it.
_FOLD, _FACTOR = numpy.uint64(FOLD), numpy.uint64(FACTOR)
_BITS = tuple(numpy.uint8(mark) for mark in range(1 << MARKED))


class _Room:
    """Arrays to work in, for one text after the other: to have them made anew takes as long as the
    work."""

    def __init__(self) -> None:
        count = SLICE // WORD + BEYOND
        self.places = numpy.empty(_BLOCK // WORD, numpy.uint64)
        self.marks, self.ahead, self.later, self.whole, self.part = (
            numpy.empty(count, numpy.uint8) for _ in range(5)
        )


# Not in use just now; as many as there were threads at work at once.
_rooms: list[_Room] = []


def look(table: Table, piece: Slice, kinds: frozenset[int]) -> list[int] | None:
    """The words of *piece* with which a sequence of so many words as in *kinds* begins; of several
    so near to each other that they may be one, one. None: more than `MOST`."""
    room = _rooms.pop() if _rooms else _Room()
    try:
        return _look(table, piece, kinds, room)
    finally:
        _rooms.append(room)


def _look(table: Table, piece: Slice, kinds: frozenset[int], room: _Room) -> list[int] | None:
    words = numpy.frombuffer(piece.text, "<u8", piece.words, piece.start)
    marks = _marks(table, words, piece.size, room)
    at = (_whole(marks, piece.size, kinds, room) != 0).nonzero()[0]
    # Words fall together in the table too often to look at each, in a text that repeats itself.
    begun = words[at] | _FOLD
    first = numpy.frombuffer(table.first, numpy.uint64)
    at = at[first.take(first.searchsorted(begun), mode="clip") == begun]
    if len(at) > MOST:
        return None
    # Of several so near to each other one will do. And one is looked at in any case: that there
    # is one must not show in the time that it takes.
    beyond, found = -1, []
    for index in at.tolist() or (0,):
        if index < beyond:
            continue
        ahead = (words[index : index + COUNTS[0]] | _FOLD).tolist()
        known = [_knows(table, ahead[:count]) for count in table.kinds]
        if any(known):
            found.append(index)
            beyond = index + COUNTS[0]
    return found


def _knows(table: Table, sequence: list[int]) -> bool:
    sequences = numpy.frombuffer(table.sequences, numpy.uint64)
    wanted = numpy.uint64(number(sequence))
    at = sequences.searchsorted(wanted)
    return bool(at < len(sequences) and sequences[at] == wanted)


def _marks(table: Table, words: Any, size: int, room: _Room) -> Any:
    """What the table says of each of *words*, and 0 for those that are missing to *size* and
    `BEYOND` more."""
    listed, shift = numpy.frombuffer(table.marks, numpy.uint8), numpy.uint64(table.shift)
    marks = room.marks[: size + BEYOND]
    marks[len(words) :] = 0
    for start in range(0, len(words), _BLOCK // WORD):
        block = words[start : start + _BLOCK // WORD]
        places = room.places[: len(block)]
        numpy.bitwise_or(block, _FOLD, out=places)
        numpy.multiply(places, _FACTOR, out=places)
        numpy.right_shift(places, shift, out=places)
        told = marks[start : start + len(block)]
        listed.take(places.view(numpy.int64), mode="clip", out=told)
    return marks


def _whole(marks: Any, size: int, kinds: frozenset[int], room: _Room) -> Any:
    """For each of *size* words whether a sequence may begin with it: the bit of its first word
    is left. *marks* goes on for `BEYOND`."""
    both = numpy.bitwise_and
    whole, part = room.whole[:size], room.part[:size]
    both(marks[:size], _BITS[1 in kinds], out=whole)
    ahead, length = marks, len(marks)
    for count in (2, 4) if kinds != ALONE else ():
        # Bit n of *ahead* is to stand for *count* words in a row, the first of mark n.
        half = count // 2
        length -= half
        later = room.later[:length]
        numpy.right_shift(ahead[half : half + length], _BITS[half], out=later)
        ahead = both(ahead[:length], later, out=room.ahead[:length])
        if count in kinds or count == MARKED:
            both(ahead[:size], _BITS[bit(count, 0)], out=part)
            numpy.bitwise_or(whole, part, out=whole)
    return whole
