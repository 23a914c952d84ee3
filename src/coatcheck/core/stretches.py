"""Chooses the stretches of needles that a long text is asked for before it is searched.

A stretch may be wrong in one direction only: text that holds a needle must hold one of its
stretches, unbroken. And it should be long: what the search takes time for is no secret of a value
then, since whoever wants to see a stretch found has to guess all of it at once. So where the needle
is long enough there are eight bytes of the value in it, also where each stands as ``\\u0061``.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterable
from itertools import product

from coatcheck.core.needle import LINE, Needle
from coatcheck.core.words import SHORTEST, size_within

_REMEMBERED = 48  # stretches of a value that its other needles are asked for
_ALNUM = re.compile(rb"[A-Za-z0-9]+")


def choose(needles: Iterable[Needle], chosen: dict[bytes, None]) -> list[Needle]:
    """Add stretches for *needles*, all of one value, to those *chosen* for others; return the
    needles that are too short for one.

    Best in the order of their lengths: the shorter ones stand inside of longer ones.
    """
    own: deque[bytes] = deque(maxlen=_REMEMBERED)
    left: list[Needle] = []
    least = 0  # bytes of the shortest needle: about those of the value
    for needle in needles:
        least = least or len(needle.text)
        whole = whole_of(needle.text) if needle.wraps else len(needle.text)
        if whole < SHORTEST:
            left.append(needle)
            continue
        size = size_within(whole, max(2, -(-len(needle.text) // least)))
        if needle.wraps:
            found = spread(needle.text, size, own)
        else:
            known = any(stretch in needle.text for stretch in own)
            found = [] if known else [_stretch(needle.text, size)]
        own.extend(found)
        chosen.update(dict.fromkeys(found))
    return left


def whole(needles: Iterable[Needle]) -> list[bytes]:
    """For needles too short for a stretch: what stands in text that holds one of them."""
    found: dict[bytes, None] = {}
    for needle in needles:
        if needle.wraps:
            found.update(dict.fromkeys(spread(needle.text, whole_of(needle.text), ())))
        else:
            found.update(dict.fromkeys(cases(needle.text) if needle.any_case else [needle.text]))
    return list(found)


def _stretch(text: bytes, size: int) -> bytes:
    """The last letters and digits of *text*, where there are enough of them in a row; else its end.

    The front is what values share: ``sk_live_``, or a quote. And of who knows the front of a value
    nothing is found.
    """
    runs = [run for run in _ALNUM.finditer(text) if len(run[0]) >= size]
    stop = runs[-1].end() if runs else len(text)
    return text[stop - size : stop]


def whole_of(text: bytes) -> int:
    """How many bytes of *text* stand together somewhere, however it is broken into lines: one line
    end leaves half of it whole, several leave the `LINE` characters between two of them."""
    return min((len(text) + 1) // 2, LINE)


def spread(text: bytes, size: int, own: Collection[bytes]) -> list[bytes]:
    """Stretches of *text*, one of which stays whole however it is broken into lines; without those
    that stand in *own* already.

    Args:
        size: Bytes of a stretch, at most `whole_of`.
        own: Stretches; those of *size* bytes or less are made use of.
    """
    whole = whole_of(text)
    usable = [stretch for stretch in own if len(stretch) <= size]
    found: list[bytes] = []
    at = -1
    while at < len(text) - whole:  # till a piece that is the last has one too
        latest = at + whole - size + 1
        known = (text.rfind(stretch, at + 1, latest + size) for stretch in usable)
        place = max(known, default=-1)
        if place >= 0:
            at = place
        else:
            at = latest
            found.append(text[at : at + size])
    return found


def cases(stretch: bytes) -> Iterable[bytes]:
    """Every way to write *stretch*, the letters A to F in either case."""
    pairs = [{byte, byte - 32} if 97 <= byte <= 102 else {byte} for byte in stretch]
    return (bytes(way) for way in product(*pairs))
