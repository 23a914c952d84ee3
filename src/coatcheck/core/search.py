"""Finds every occurrence of many byte strings, at the speed of skipping where there is none.

The search that reports overlapping occurrences (Aho-Corasick) looks at each byte, and there are up
to three of them to do: of the text as it is, with the letters of hexadecimal digits in one case,
and with the line ends taken out. So data is first asked for probes: short stretches,
at least one of which stands, unbroken, in every occurrence of every needle (`core/probes.py`
chooses them). Most answers hold no probe and are done. Short data is asked by one automaton; more
by groups of 64 probes, the most for which the ``aho-corasick`` crate has a vector search (Teddy);
long data for words of the needles (`core/words.py`), and for the probes of needles that are too
short for that. Decisions 0011 and 0012 have the figures.

What is found depends on the text of an occurrence alone, never on what stands round it: that keeps
the result of a stream independent of its chunks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import pairwise

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

from coatcheck.core import probes
from coatcheck.core.needle import BREAKS, FOLD, LINE, Needle
from coatcheck.core.words import Words, choose

_GROUP = 64  # patterns; with more, aho-corasick gives up its vector search
_MAX_GROUPS = 12  # with more, one automaton for all probes is as fast
_FEW = 2  # groups; with more, short data is asked by one automaton
_SHORT = 1024  # bytes
_LONG = 16 * 1024  # bytes; below, setting up the look-up of words costs more than it saves
_MAX_DFA = 8192  # probes; the automaton of 5,000 takes 30 MB
_DFA_PROBE = 8  # bytes of a probe in it

type Gates = tuple[BytesAhoCorasick, ...]
type Match = tuple[int, int, int]  # index of the needle, start, stop


class Search:
    """Immutable. Holds its needles in automata alone: nothing here shows them."""

    __slots__ = (
        "_exact",
        "_folded",
        "_folded_from",
        "_gates",
        "_long_gates",
        "_short_gates",
        "_shortest",
        "_words",
        "_wraps",
    )

    def __init__(self, groups: Iterable[Iterable[Needle]], needles: Iterable[Needle]) -> None:
        """A search for *needles*, none empty, each once; those of any case last.

        Args:
            groups: The same needles by the value they stand for: those share probes.
        """
        listed = list(needles)
        exact = [needle.text for needle in listed if not needle.any_case]
        folded = [needle.text for needle in listed if needle.any_case]
        self._exact = _automaton(exact) if exact else None
        self._folded = _automaton(folded) if folded else None
        self._folded_from = len(exact)
        self._wraps = bytes(needle.wraps for needle in listed)
        self._shortest = min((len(needle.text) for needle in listed), default=0)
        grouped = [sorted(group, key=lambda needle: len(needle.text)) for group in groups]
        words: set[int] = set()
        short = [choose(group, words) for group in grouped]
        self._words = Words(words) if words else None
        asked = _probes(grouped)
        self._gates, self._short_gates = _apart(asked), _together(asked)
        self._long_gates = _apart(_probes(short))

    def find(self, data: bytes, *, by_line: bool = False) -> list[Match]:
        """Every occurrence of every needle, overlapping ones too, in no promised order.

        Args:
            by_line: Leave out those that go over a line end of *data*.
        """
        if not self._wraps or len(data) < self._shortest or not self._may_hold(data):
            return []
        found = self._matches(data)
        if self._exact is not None and 1 in self._wraps:
            cuts = [match.span() for match in BREAKS[by_line].finditer(data)]
            if cuts:
                found += self._wrapped(self._exact, data, cuts)
        return found

    def _may_hold(self, data: bytes) -> bool:
        gates = self._gates if len(data) >= _SHORT else self._short_gates
        if len(data) >= _LONG:
            if self._words is not None and self._words.may_stand_in(data):
                return True
            gates = self._long_gates
        return any(gate.find_matches_as_indexes(data) for gate in gates)

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

    def _wrapped(
        self, exact: BytesAhoCorasick, data: bytes, cuts: list[tuple[int, int]]
    ) -> list[Match]:
        """The occurrences that go over some of the line ends at *cuts*, and over nothing else."""
        edges = [0, *(at for cut in cuts for at in cut), len(data)]
        text = b"".join([data[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)])
        offsets = [0]  # what was taken out before each cut and after it
        for start, stop in cuts:
            offsets.append(offsets[-1] + stop - start)
        joints = [start - gone for (start, _), gone in zip(cuts, offsets, strict=False)]
        found = []
        for index, start, stop in exact.find_matches_as_indexes(text, overlapping=True):
            # Line ends before the first character and after the last do not belong to it.
            first, last = bisect_right(joints, start), bisect_left(joints, stop)
            if first == last or not self._wraps[index]:
                continue
            if all(b - a >= LINE for a, b in pairwise(joints[first:last])):
                found.append((index, start + offsets[first], stop + offsets[last]))
        return found


def _probes(groups: Iterable[Iterable[Needle]]) -> list[bytes]:
    """Probes for *groups* of needles by value, each in the order of their lengths: data without any
    of them holds no needle. By length: a group is as fast as its shortest pattern lets it be."""
    chosen: dict[bytes, None] = {}
    for group in groups:
        probes.add(group, chosen)
    return sorted(chosen, key=len)


def _apart(asked: list[bytes]) -> Gates:
    """What to ask of long data: automata of a group of probes each."""
    if len(asked) > _GROUP * _MAX_GROUPS:
        return _together(asked)
    return tuple(
        _automaton(asked[at : at + _GROUP], MatchKind.LeftmostLongest)
        for at in range(0, len(asked), _GROUP)
    )


def _together(asked: list[bytes]) -> Gates:
    """What to ask of short data: one automaton, unless there are but few probes."""
    if len(asked) <= _GROUP * _FEW:
        return _apart(asked)
    fronts = list(dict.fromkeys(probe[:_DFA_PROBE] for probe in asked))
    kind = Implementation.DFA if len(asked) <= _MAX_DFA else Implementation.ContiguousNFA
    return (BytesAhoCorasick(fronts, MatchKind.LeftmostLongest, kind),)


def _automaton(patterns: list[bytes], kind: MatchKind = MatchKind.Standard) -> BytesAhoCorasick:
    # Not a DFA, which the library takes for up to 100 patterns: it takes ten times as long to
    # build, and is wanted only where a probe was found.
    return BytesAhoCorasick(patterns, kind, Implementation.ContiguousNFA)
