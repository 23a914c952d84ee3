"""Finds every occurrence of many byte strings, and takes the same time whether one is near or not.

The search that reports overlapping occurrences (Aho-Corasick) looks at each byte, and there are up
to three of them to do: of the text as it is, with the letters of hexadecimal digits in one case,
and with the line ends taken out. Short texts, of which most answers are, get all of that. In longer
ones it is first asked where a needle may stand, ten times as fast (`core/words.py`), and what is
round such places is searched: a piece of the text. Where a piece would show in the time, one is
searched without such a place too.

So what takes longer is text with a sequence of words in it as they stand in a needle, one word of
eight bytes at least; `core/stretches.py` says how many there are. Whoever guesses less learns
nothing from the time that it took: there are no short probes in front, and no vector search that is
faster where nothing begins as a needle does.
Needles under eight bytes are the exception: an automaton of their own is asked for those. Decision
0015 has the figures.

What is found depends on the text of an occurrence alone, never on what stands round it: that keeps
the result of a stream independent of its chunks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

from coatcheck.core import stretches
from coatcheck.core.needle import BREAK_MARKS, BREAKS, FOLD, LINE, Needle
from coatcheck.core.words import COUNTS, WORD, Words

_SHORT = 1024  # bytes; below, to search all of it costs no more than to ask where
_LONG = 64 * 1024  # bytes; above, the time that one piece takes is lost in that of the rest

type Match = tuple[int, int, int]  # index of the needle, start, stop


class Search:
    """Immutable. Holds its needles in automata alone: nothing here shows them."""

    __slots__ = (
        "_exact",
        "_folded",
        "_folded_from",
        "_reach",
        "_shortest",
        "_tiny",
        "_words",
        "_wrap_some",
        "_wraps",
    )

    def __init__(self, groups: Iterable[Iterable[Needle]], needles: Iterable[Needle]) -> None:
        """A search for *needles*, none empty, each once; those of any case last.

        Args:
            groups: The same needles by the value they stand for: those share stretches.
        """
        listed = list(needles)
        exact = [needle.text for needle in listed if not needle.any_case]
        folded = [needle.text for needle in listed if needle.any_case]
        self._exact = _automaton(exact) if exact else None
        self._folded = _automaton(folded) if folded else None
        self._folded_from = len(exact)
        self._wraps = bytes(needle.wraps for needle in listed)
        self._wrap_some = 1 in self._wraps
        self._shortest = min((len(needle.text) for needle in listed), default=0)
        self._reach = max((needle.reach() for needle in listed), default=0)
        chosen: dict[bytes, None] = {}
        short: list[Needle] = []
        for group in groups:
            short += stretches.choose(sorted(group, key=lambda n: len(n.text)), chosen)
        self._words = Words(chosen) if chosen else None
        tiny = stretches.whole(short)
        self._tiny = _automaton(tiny, MatchKind.LeftmostLongest) if tiny else None

    def find(self, data: bytes) -> list[Match]:
        """Every occurrence of every needle, overlapping ones too, in no promised order."""
        if len(data) < self._shortest or not self._wraps:
            return []
        if len(data) < _SHORT:
            return self._search(data)
        found: list[Match] = []
        for start, stop in self._regions(data, _LONG):
            for index, first, last in self._search(data[start:stop]):
                found.append((index, start + first, start + last))
        return found

    def is_free(self, before: bytes, data: bytes) -> bool:
        """Whether no needle stands in *data* with *before* in front of it, without putting the two
        together. False also where it takes `find` to say so: *data* is not long."""
        if len(data) < _LONG:
            return False
        # What begins in the one ends within reach of it.
        for text in (before + data[: self._reach], data):
            for start, stop in self._regions(text, 0):
                if self._search(text[start:stop]):
                    return False
        return True

    def _regions(self, data: bytes, least: int) -> Iterator[tuple[int, int]]:
        """Pieces of *data*, apart from each other, outside of which no needle stands.

        Args:
            least: In *data* of so many bytes and more there may be no piece at all.
        """
        places = self._words.find(data) if self._words is not None else []
        if places is None:
            yield 0, len(data)
            return
        if self._tiny is not None:
            places += [start for _, start, _ in self._tiny.find_matches_as_indexes(data)]
        before, after = self._reach, self._reach + COUNTS[0] * WORD
        if not places and len(data) >= least:
            return
        # One piece costs what none does: some piece is searched always, and each is as long.
        latest = max(0, len(data) - before - after)
        start, stop = 0, 0 if places else before + after
        for place in sorted(places):
            first = min(place - before, latest)
            if first > stop:
                if stop:
                    yield start, stop
                start = first
            stop = place + after
        yield start, stop

    def _search(self, data: bytes) -> list[Match]:
        found = self._matches(data)
        if self._exact is not None and self._wrap_some and _may_break(data):
            text = BREAKS.sub(b"", data)
            if len(text) < len(data):
                joined = self._exact.find_matches_as_indexes(text, overlapping=True)
                if joined:
                    cuts = [match.span() for match in BREAKS.finditer(data)]
                    found += self._wrapped(joined, cuts)
        return found

    def _matches(self, data: bytes) -> list[Match]:
        found: list[Match] = []
        if self._exact is not None:
            found = self._exact.find_matches_as_indexes(data, overlapping=True)
        if self._folded is not None:
            text = data.translate(FOLD)
            found += [
                (index + self._folded_from, start, stop)
                for index, start, stop in self._folded.find_matches_as_indexes(
                    text, overlapping=True
                )
            ]
        return found

    def _wrapped(self, joined: list[Match], cuts: list[tuple[int, int]]) -> list[Match]:
        """Those of *joined*, matches in text without the line ends at *cuts*, that go over some of
        them, and over nothing else; as they stand in the text with them."""
        offsets = [0]  # what was taken out before each cut and after it
        for start, stop in cuts:
            offsets.append(offsets[-1] + stop - start)
        joints = [start - gone for (start, _), gone in zip(cuts, offsets, strict=False)]
        found = []
        for index, start, stop in joined:
            # Line ends before the first character and after the last do not belong to it.
            first, last = bisect_right(joints, start), bisect_left(joints, stop)
            if first == last or not self._wraps[index]:
                continue
            if all(b - a >= LINE for a, b in pairwise(joints[first:last])):
                found.append((index, start + offsets[first], stop + offsets[last]))
        return found


def _may_break(data: bytes) -> bool:
    """Whether an occurrence in *data* could be broken by a line end; says nothing of needles."""
    # Nothing goes over an end of *data*, nor over two line ends with nothing between them: so the
    # events of a stream, which end in both, are searched once.
    inside = data.strip(b"\r\n").replace(b"\n\n", b"")
    for mark in BREAK_MARKS:  # noqa: SIM110 a generator takes longer than all of them
        if inside.find(mark) >= 0:
            return True
    return False


def _automaton(patterns: list[bytes], kind: MatchKind = MatchKind.Standard) -> BytesAhoCorasick:
    # Not a DFA, which the library takes for up to 100 patterns: it takes ten times as long to
    # build.
    return BytesAhoCorasick(patterns, kind, Implementation.ContiguousNFA)
