"""What the targets of the fuzzer share: what a finding is, canary values, and ways to cut bytes.

An input is plain bytes that a person can read in an editor, so how it is cut is not a part of it:
the cuts follow from the bytes themselves, and a file of the corpus always runs the same way.
"""

from __future__ import annotations

import base64
import random
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote

# Two values: one that every place takes as it is, one that has something to escape everywhere.
PLAIN = b"sk_canary_Zq7Wv3Xn9Kd5"
ODD = b'p@ss "w/rd&\xc3\xa9<Jx=42%'
CANARIES = (PLAIN, ODD)
WINDOW = 8  # bytes; so much of a value is a leak
EVERY_BYTE = 48  # bytes; of longer inputs, up to `MAX_EVERY_BYTE`, one in eight is fed byte by byte
MAX_EVERY_BYTE = 512


class Finding(Exception):
    """The rule that an input broke. ``rule`` is a constant, so that findings can be counted."""

    def __init__(self, rule: str, detail: object = "") -> None:
        super().__init__(f"{rule}: {detail!r}"[:2000] if detail != "" else rule)
        self.rule = rule


@dataclass(frozen=True)
class Target:
    """One thing to fuzz.

    Attributes:
        run: Takes one input; True where the input got through to what is behind the first checks.
            Raises `Finding`; every other exception is a finding too.
        seeds: Inputs to begin with.
        words: What inputs are made of.
    """

    name: str
    run: Callable[[bytes], bool]
    seeds: Sequence[bytes]
    words: Sequence[bytes]


def check(holds: bool, rule: str, detail: object = "") -> None:
    if not holds:
        raise Finding(rule, detail)


def cuttings(data: bytes) -> Iterator[list[bytes]]:
    """*data* whole, byte by byte or behind each CR, and at a few places that *data* decides."""
    yield [data]
    if len(data) < 2:
        return
    digest = zlib.crc32(data)
    if len(data) <= EVERY_BYTE or (len(data) <= MAX_EVERY_BYTE and digest % 8 == 0):
        yield [data[at : at + 1] for at in range(len(data))]
    elif b"\r" in data[:-1]:
        *lines, last = data.split(b"\r")
        yield [piece for piece in (*(line + b"\r" for line in lines), last) if piece]
    rng = random.Random(digest)
    ends = sorted(rng.sample(range(1, len(data)), min(rng.randint(1, 6), len(data) - 1)))
    yield [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


def _windows() -> frozenset[bytes]:
    spelled: list[bytes] = []
    for value in CANARIES:
        spelled += [value, quote(value, safe="").encode()]
        # Three alignments, without the characters that hold bits of what stands around the value.
        for skip in range(3):
            inner = value[skip : skip + (len(value) - skip) // 3 * 3]
            spelled.append(base64.b64encode(inner))
    return frozenset(
        text[at : at + WINDOW] for text in spelled for at in range(len(text) - WINDOW + 1)
    )


WINDOWS = _windows()


def holds_value(data: bytes) -> bytes | None:
    """The first eight bytes in a row of a canary, in one of a few spellings; None if there are
    none."""
    return next((data[at : at + WINDOW] for at in _places(data)), None)


def _places(data: bytes) -> Iterator[int]:
    for at in range(len(data) - WINDOW + 1):
        if data[at : at + WINDOW] in WINDOWS:
            yield at


def check_clean(data: bytes, rule: str) -> None:
    if found := holds_value(data):
        raise Finding(rule, found)


def check_same(results: Iterable[object], rule: str) -> None:
    """All *results* (one for each cutting) are equal."""
    first, *others = results
    for other in others:
        check(other == first, rule, (first, other))
