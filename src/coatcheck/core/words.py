"""Tells whether a long text may hold a needle, at a cost that does not grow with their number.

Text is cut into words of eight bytes, and each is looked up in a table. Wherever a stretch of
fifteen bytes stands, one of the eight words inside it lies on such a cut. So eight words stand for
a stretch, and a text that holds none of them does not hold it: 3 to 4 GB/s for one secret as for a
hundred, where a vector search takes a pass for each three of them (decision 0012).

numpy does it, and is imported only where there is something to search: programs that do not proxy
do not pay for it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

from coatcheck.core.needle import Needle
from coatcheck.core.probes import cases, spread, whole_of

WORD = 8  # bytes; what a 64-bit integer holds
STRETCH = 2 * WORD - 1  # bytes
_REMEMBERED = 48  # stretches of a value that its other needles are asked for
_MAX_WAYS = 512  # words for one stretch whose letters are found in either case
_SLICE = 64 * 1024  # bytes looked at in one go: what is worked out stays in the cache
_SPREAD = 32  # places of the table for each word, at least: fewer, and too many fall together
_LEAST_BITS, _MOST_BITS = 12, 24  # of the table's size, a byte for each place
_FACTOR = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: neighbours fall far apart
_ALNUM = re.compile(rb"[A-Za-z0-9]{%d,}" % STRETCH)
_IS_LETTER = bytes(97 <= byte <= 102 for byte in range(256))


class Words:
    """A set of words that texts are asked for. Immutable, and shows none of them."""

    __slots__ = ("_numpy", "_shift", "_table", "_words")

    def __init__(self, words: Iterable[int]) -> None:
        import numpy

        self._numpy: Any = numpy
        self._words = frozenset(words)
        bits = (len(self._words) * _SPREAD).bit_length()
        bits = min(max(bits, _LEAST_BITS), _MOST_BITS)
        self._shift = numpy.uint64(64 - bits)
        self._table = numpy.zeros(1 << bits, bool)
        known = numpy.fromiter(self._words, numpy.uint64, len(self._words))
        self._table[self._places(known)] = True

    def may_stand_in(self, text: bytes) -> bool:
        """False: no stretch whose words these are stands in *text*."""
        numpy = self._numpy
        for at in range(0, len(text) - WORD + 1, _SLICE):
            count = min(_SLICE, len(text) - at) // WORD
            words = numpy.frombuffer(text, "<u8", count, at)
            hits = self._table.take(self._places(words), mode="wrap")
            if hits.any() and not self._words.isdisjoint(words[hits].tolist()):
                return True
        return False

    def _places(self, words: Any) -> Any:
        places = words * self._numpy.uint64(_FACTOR)
        places >>= self._shift
        return places.view(self._numpy.int64)

    def __repr__(self) -> str:
        return f"<{len(self._words)} words>"


def choose(needles: Iterable[Needle], words: set[int]) -> list[Needle]:
    """Add words for *needles*, all of one value, to *words*; return those too short for it.

    Best in the order of their lengths: the shorter ones stand inside of longer ones.
    """
    own: deque[bytes] = deque(maxlen=_REMEMBERED)
    left: list[Needle] = []
    for needle in needles:
        stretches = _stretches(needle, own)
        if stretches is None:
            left.append(needle)
            continue
        for stretch in stretches:
            if not needle.any_case:
                own.append(stretch)
            words.update(_words_of(stretch, any_case=needle.any_case))
    return left


def _stretches(needle: Needle, own: deque[bytes]) -> list[bytes] | None:
    """Stretches, one of which stands unbroken in every occurrence of *needle*, less those in *own*;
    None where there are none."""
    text = needle.text
    if needle.wraps:
        wide = whole_of(text) >= STRETCH + WORD // 2  # else there would be many
        return spread(text, STRETCH, own) if wide else None
    if len(text) < STRETCH:
        return None
    if needle.any_case:
        ways, stretch = _fewest_ways(text)
        return [stretch] if ways <= _MAX_WAYS else None
    if any(stretch in text for stretch in own):
        return []
    found = _ALNUM.search(text)
    # Not the front: a quote or an escape there stands in front of much else.
    start = found.start() if found else min(2, len(text) - STRETCH)
    return [text[start : start + STRETCH]]


def _fewest_ways(text: bytes) -> tuple[int, bytes]:
    """The stretch of *text* that it takes the fewest words to find, its letters A to F in either
    case, and how many."""
    letters = list(accumulate(text.translate(_IS_LETTER), initial=0))
    of_word = [1 << b - a for a, b in zip(letters, letters[WORD:], strict=False)]
    sums = list(accumulate(of_word, initial=0))
    ways = [b - a for a, b in zip(sums, sums[WORD:], strict=False)]
    at = ways.index(min(ways))
    return ways[at], text[at : at + STRETCH]


def _words_of(stretch: bytes, *, any_case: bool) -> Iterator[int]:
    for at in range(WORD):
        word = stretch[at : at + WORD]
        for way in cases(word) if any_case else (word,):
            yield int.from_bytes(way, "little")
