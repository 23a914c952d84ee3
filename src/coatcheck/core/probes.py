"""Chooses the stretches of needles that text is asked for before it is searched.

A probe may be wrong in one direction only: text that holds a needle must hold one of its probes.
And it should be rare in text that holds none, and serve many needles, since each costs some 4 µs
for each MiB that is searched. Two facts of spellings help:

- Where every character is escaped, so is a letter or a digit, which no ordinary encoder escapes.
  So the four bytes of ``\\x61`` are a probe, for every secret with an ``a`` in it.
- Hexadecimal digits are found in either case, so stretches without the letters A to F are taken
  where there are some; else there is a probe for each way to write the stretch.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterable
from itertools import product

from coatcheck.core.needle import LINE, Needle

_PROBE = 12  # bytes
_HEX_PROBE = 8  # bytes, of needles whose letters are found in either case
_REMEMBERED = 48  # probes of a value that its other needles are asked for
_MAX_LETTERS = 4  # letters A to F in a probe of such a needle; each doubles what is searched
_WORD = re.compile(rb"[A-Za-z0-9]{8,}")
_LETTERS = re.compile(rb"[a-f]")
_ALNUM_HEX = rb"(?:3[0-9]|[46][1-9a-f]|[57][0-9a])"
_UNIT = re.compile(
    rb"(?:\\x|\\u00|\\u\{|\\0000|%25|%|0x)"
    + _ALNUM_HEX
    + rb"|\\"
    + _ALNUM_HEX
    + rb" \\"
    + rb"|"
    + _ALNUM_HEX
    + rb";&#[xX]"  # the same for any number of zeros
    + rb"|1[0-2][0-9];&#"
    + rb"|\\1[0-7]{2}"
)


def add(needles: Iterable[Needle], chosen: dict[bytes, None]) -> None:
    """Add probes for *needles*, all of one value, to those *chosen* for others.

    Best in the order of their lengths: the shorter ones stand inside of longer ones.
    """
    own: deque[bytes] = deque(maxlen=_REMEMBERED)
    for needle in needles:
        if needle.wraps:
            whole = whole_of(needle.text)
            size = min(_PROBE, max(whole // 2, 4))  # so that two will do for one line
            stretches = spread(needle.text, size, own)
        elif not needle.any_case and any(probe in needle.text for probe in own):
            continue
        else:
            stretches = [_stretch(needle.text, any_case=needle.any_case)]
        for stretch in stretches:
            if needle.any_case:
                chosen.update(dict.fromkeys(cases(stretch)))
            else:
                own.append(stretch)
                chosen[stretch] = None


def _stretch(needle: bytes, *, any_case: bool) -> bytes:
    """A stretch of *needle* that ordinary text is unlikely to hold, or to hold the beginning of."""
    units: list[bytes] = _UNIT.findall(needle)
    if units:
        return min(units, key=lambda unit: (len(_LETTERS.findall(unit)), unit))
    if any_case:
        return _fewest_letters(needle)
    words = _WORD.findall(needle)
    if words:
        longest: bytes = max(words, key=len)
        return longest[:_PROBE]
    # The front is left out: a quote or an escape there begins at many other places too.
    return needle[2 : 2 + _PROBE] if len(needle) >= _PROBE else needle


def whole_of(text: bytes) -> int:
    """How many bytes of *text* stand together somewhere, however it is broken into lines: one line
    end leaves half of it whole, several leave the `LINE` characters between two of them."""
    return min((len(text) + 1) // 2, LINE)


def spread(text: bytes, size: int, own: Collection[bytes]) -> list[bytes]:
    """Stretches of *text*, one of which stays whole however it is broken into lines; without those
    that stand in *own* already.

    Args:
        size: Bytes of a stretch, at most `whole_of`.
        own: Stretches of *size* bytes or less.
    """
    whole = whole_of(text)
    found: list[bytes] = []
    at = -1
    while at < len(text) - whole:  # till a piece that is the last has one too
        latest = at + whole - size + 1
        known = (text.rfind(stretch, at + 1, latest + size) for stretch in own)
        place = max(known, default=-1)
        if place >= 0:
            at = place
        else:
            at = latest
            found.append(text[at : at + size])
    return found


def _fewest_letters(needle: bytes) -> bytes:
    """A stretch of *needle* that can be written in few ways: 16 at most."""
    places = range(max(1, len(needle) - _HEX_PROBE + 1))
    at = min(places, key=lambda place: len(_LETTERS.findall(needle, place, place + _HEX_PROBE)))
    stretch = needle[at : at + _HEX_PROBE]
    letters = [match.start() for match in _LETTERS.finditer(stretch)]
    return stretch if len(letters) <= _MAX_LETTERS else stretch[: letters[_MAX_LETTERS]]


def cases(stretch: bytes) -> Iterable[bytes]:
    """Every way to write *stretch*, the letters A to F in either case."""
    pairs = [{byte, byte - 32} if 97 <= byte <= 102 else {byte} for byte in stretch]
    return (bytes(way) for way in product(*pairs))
