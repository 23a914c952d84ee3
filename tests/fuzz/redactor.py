"""Random needles, texts and chunks: the scrubber against `redact_reference`.

    python -m tests.fuzz.redactor 10000000          # cases; one is needles, a text and its chunks
    python -m tests.fuzz.redactor 60s               # or seconds
    python -m tests.fuzz.redactor --replay SEED     # a batch that failed, again

Short alphabets make values that overlap themselves and each other everywhere; texts are made of
values, parts of them, their spellings and line ends, so that nearly all hold something. A batch is
one set of needles and is made from its seed alone. Short texts are searched whole: in one of four
batches all are treated as long ones are.
"""

from __future__ import annotations

import random
import re
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from typing import NamedTuple

from coatcheck.core import search, spelling
from coatcheck.core.redact import EVENT, RECORD, Needles, Redactor
from coatcheck.core.secret import SecretValue
from tests.fuzz.redact_reference import EVENT_ENDS, RECORD_ENDS, Reference

TEXTS = 200  # of a batch
CHUNKINGS = 16  # of a text
ENDS = (b"\n", b"\r\n", b"\\n", b"\\r\\n", b"=\r\n", b"\n  ", b"%0A", b"%0D%0A", b"\r", b"\n\n")
NOISE = (b"a", b"b", b"=", b"/", b"\\/", b"%2B", b"%", b"\\", b" ", b"data: ", b"A0", b"%3D", b'"')
NOISE += (b"}", b'"\n', b"}\r\n", b"\n\n", b"\r\n\r\n", b"\r\r", b"  ")
ENDS_OF = {EVENT: EVENT_ENDS, RECORD: RECORD_ENDS}

type Events = re.Pattern[bytes] | None


class Failure(NamedTuple):
    """What differed. The batch can be made again from *seed*."""

    seed: int
    values: tuple[bytes, ...]
    text: bytes
    cuts: tuple[int, ...]
    events: Events
    expected: bytes
    got: bytes


def batch(seed: int) -> tuple[int, Failure | None]:
    """Runs the batch of *seed*; the number of cases, and the first that differs."""
    rng = random.Random(seed)
    sizes = search._SHORT, search._LONG
    search._SHORT, search._LONG = rng.choice((sizes,) * 3 + ((1, 1),))
    try:
        return _batch(seed, rng)
    finally:
        search._SHORT, search._LONG = sizes


def _batch(seed: int, rng: random.Random) -> tuple[int, Failure | None]:
    values = _values(rng)
    needles = Needles.build([SecretValue(f"s{i}", 1, v) for i, v in enumerate(values)])
    reference = Reference(values)
    written = [needle.text for value in values for needle in spelling.needles(value)]
    cases = 0
    for _ in range(TEXTS):
        text = _text(rng, values, written)
        events = rng.choice((None,) * 6 + (EVENT, RECORD))
        if events and needles.by_event:
            expected = reference.redact_events(text, ENDS_OF[events])
        else:
            expected = reference.redact(text)
        for number in range(CHUNKINGS):
            cuts = _cuts(rng, len(text), number)
            got = _stream(needles, text, cuts, events)
            cases += 1
            if got != expected:
                return cases, Failure(seed, values, text, cuts, events, expected, got)
        if events is None:
            cases += 1
            if (got := needles.redact(text)) != expected:
                return cases, Failure(seed, values, text, (), None, expected, got)
    return cases, None


def _values(rng: random.Random) -> tuple[bytes, ...]:
    alphabet = rng.choice(
        (b"ab", b"abc", b"aB+/", b"ab\n", b"abcdef\n", b"a%\\", b"0aF_", bytes(range(256)))
    )
    longest = rng.choice((6, 10, 14, 14, 24, 40, 180))
    values = [_word(rng, alphabet, rng.randint(4, longest)) for _ in range(rng.choice((1, 1, 2)))]
    if rng.random() < 0.5:  # one a prefix, a suffix, an infix of another, or laid over its end
        value = rng.choice(values)
        a, b = sorted((rng.randint(0, len(value)), rng.randint(0, len(value))))
        tail = _word(rng, alphabet, rng.randint(0, 6))
        values.append(rng.choice((value[a:b], value[a:], value[:b], value[a:] + tail)))
    return tuple(value for value in values if len(value) >= spelling.MIN_VALUE)


def _word(rng: random.Random, alphabet: bytes, size: int) -> bytes:
    return bytes(rng.choices(alphabet, k=size))


def _text(rng: random.Random, values: tuple[bytes, ...], written: list[bytes]) -> bytes:
    out = []
    for _ in range(rng.choice((1, 1, 2, 2, 3, 5))):
        kind = rng.random()
        if kind < 0.3 and values:
            out.append(_part(rng, rng.choice(values)))
        elif kind < 0.5 and written:
            out.append(_part(rng, rng.choice(written)))
        elif kind < 0.6 and values:
            out.append(_in_lines(rng, rng.choice(values)))
        elif kind < 0.7:
            out.append(rng.choice(ENDS))
        elif kind < 0.75 and written:
            needle = rng.choice(written)
            at = rng.randint(0, len(needle))
            out.append(needle[:at] + rng.choice(ENDS) + needle[at:])
        elif kind < 0.8 and written:
            out.append(rng.choice(written).swapcase())
        elif kind < 0.82:  # a run that goes on for longer than anything is held back
            out.append(rng.choice((b"z", b"z9", b"+/")) * rng.randint(1, 500))
        else:
            out += rng.choices(NOISE, k=rng.randint(1, 4))
        if search._LONG == 1:  # what is sent on in pieces is longer than what is held back
            out.append(rng.choice((b"", b"-" * rng.randint(0, 900))))
    return b"".join(out)


def _part(rng: random.Random, text: bytes) -> bytes:
    kind = rng.randrange(6)
    at = rng.randint(0, len(text))
    return text[:at] if kind == 0 else text[at:] if kind == 1 else text


def _in_lines(rng: random.Random, value: bytes) -> bytes:
    """*value* in base64, among other bytes, in lines."""
    around = b"x" * rng.randint(0, 60), b"y" * rng.randint(0, 200)
    text = b64encode(value.join(around))
    width, end = rng.choice((60, 64, 64, 76, 76, 40)), rng.choice(ENDS)
    return end.join(text[at : at + width] for at in range(0, len(text), width))


def _cuts(rng: random.Random, size: int, number: int) -> tuple[int, ...]:
    if number == 0:  # now and then byte by byte
        return tuple(range(1, size)) if rng.random() < 0.1 else ()
    cuts = [int(rng.random() * (size + 1)) for _ in range(1 + number % 2)]
    return tuple(sorted(cuts))


def _stream(needles: Needles, text: bytes, cuts: tuple[int, ...], events: Events) -> bytes:
    redactor = Redactor(needles, events=events)
    out, at = b"", 0
    for cut in cuts:
        out += b"".join(redactor.pieces(text[at:cut]))
        at = cut
    return out + b"".join(redactor.pieces(text[at:])) + redactor.finish()


def run(
    *, cases: int = 0, seconds: float = 0.0, first: int, say: Callable[[str], None] = print
) -> Failure | None:
    """Batches from seed *first* on, until there were *cases* or *seconds* are over."""
    began, done, seed = time.monotonic(), 0, first
    shown = 0.0
    while True:
        count, failure = batch(seed)
        done += count
        spent = time.monotonic() - began
        if failure is not None:
            say(f"seed {seed}: python -m tests.fuzz.redactor --replay {seed}\n{failure}")
            return failure
        if (over := done >= cases if cases else spent >= seconds) or spent - shown >= 30:
            shown = spent
            say(f"redactor: {done} cases, {done / spent:.0f}/s, seeds {first} to {seed}: all agree")
            if over:
                return None
        seed += 1


def main(limit: str = "60s", *, first: int | None = None) -> int:
    """Runs for *limit*: a number of cases, or of seconds with an ``s`` behind. 1 if one differs."""
    first = time.time_ns() % 10**12 if first is None else first
    if limit.endswith("s"):
        return int(run(seconds=float(limit[:-1]), first=first) is not None)
    return int(run(cases=int(limit), first=first) is not None)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--replay"]:
        _, found = batch(int(sys.argv[2]))
        print(found or "all agree")
        sys.exit(found is not None)
    sys.exit(main(*sys.argv[1:2]))
