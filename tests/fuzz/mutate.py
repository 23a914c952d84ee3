"""How an input is changed: by words of its target, by lines, and by what breaks parsers.

The engine changes bits and bytes by itself, and learns from what the code compares. What it cannot
see is behind a regular expression or inside a C library; there these changes get it in.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

ODD_BYTES = b'\0\t\n\r "%&+,-./0:;=@AZ\\_az{}\x7f\x80\xff'
LONG = 64  # the most that one change repeats
SIZES = (128, 256, 1024, 1028, 4096)  # bytes; limits that the targets set, a head with its end

type Change = Callable[[random.Random, bytearray, Sequence[bytes]], None]


def mutate(data: bytes, words: Sequence[bytes], rng: random.Random, max_size: int) -> bytes:
    """*data* with one to four changes."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 1, 2, 2, 3, 4))):
        rng.choice(CHANGES)(rng, changed, words)
    return bytes(changed[:max_size])


def _insert_word(rng: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    at = _place(rng, data)
    data[at:at] = rng.choice(words)


def _put_word(rng: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    """A word in the place of another one, or of as many bytes."""
    word = rng.choice(words)
    other = rng.choice(words)
    at = data.find(other)
    if at < 0:
        at, other = _place(rng, data), word
    data[at : at + len(other)] = word


def _odd_byte(rng: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    at = _place(rng, data)
    data[at : at + rng.randrange(2)] = bytes([rng.choice(ODD_BYTES)])


def _delete(rng: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    at = _place(rng, data)
    del data[at : at + rng.choice((1, 1, 2, 4, 16))]


def _repeat(rng: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    at = _place(rng, data)
    data[at:at] = data[at : at + rng.randrange(1, 32)] * rng.choice((1, 1, 2, LONG))


def _move_line(rng: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    """A line twice, gone, or at another place."""
    lines = bytes(data).split(b"\n")
    line = rng.choice(lines)
    if rng.randrange(3):
        lines.insert(rng.randrange(len(lines) + 1), line)
    if rng.randrange(2):
        lines.remove(line)
    data[:] = b"\n".join(lines)


def _swap_case(rng: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    at = _place(rng, data)
    data[at : at + 8] = bytes(data[at : at + 8]).swapcase()


def _number(rng: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    """A digit more, less, or another one."""
    digits = [at for at, byte in enumerate(data) if chr(byte).isdigit()]
    if digits:
        at = rng.choice(digits)
        data[at : at + rng.randrange(2)] = rng.choice((b"", b"0", b"1", b"9", b"f", b"00", b"+"))


def _fill(rng: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    """To the size of a limit, or a byte or two beside it."""
    size = rng.choice(SIZES) + rng.randrange(-4, 4)
    at = _place(rng, data)
    data[at:at] = rng.choice((b"x", b"x", b" ", b"0")) * max(0, size - len(data))


def _cut(rng: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    del data[_place(rng, data) :]


def _place(rng: random.Random, data: bytearray) -> int:
    """Anywhere, or beside a byte that parts things."""
    if rng.randrange(2):
        edges = [at for at, byte in enumerate(data) if byte in b'\r\n :;,&="{}']
        if edges:
            return rng.choice(edges) + rng.randrange(2)
    return rng.randrange(len(data) + 1)


CHANGES: tuple[Change, ...] = (
    _insert_word,
    _insert_word,
    _put_word,
    _put_word,
    _odd_byte,
    _odd_byte,
    _delete,
    _repeat,
    _move_line,
    _swap_case,
    _number,
    _fill,
    _cut,
)
