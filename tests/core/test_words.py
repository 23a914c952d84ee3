"""Long texts are asked for words first: none that holds a needle may be passed over."""

from __future__ import annotations

import os
import random

import pytest

from coatcheck.core import spelling
from coatcheck.core.needle import LINE, Needle
from coatcheck.core.words import STRETCH, WORD, Words, choose

RANDOM = random.Random(20261126)
TOKEN = b"sk_live_9fQ2x7LmZ0aBcDeF1234567890uvWXyz"
PHRASE = b'correct "horse" battery & staple/1+1=2 \xc3\xa4\xc3\xb6'
VALUES = {"a token": TOKEN, "a phrase": PHRASE, "hexadecimal": b"deadbeefcafebabe0123456789abcdef"}


def needles_of(value: bytes) -> list[Needle]:
    return sorted(spelling.needles(value), key=lambda needle: len(needle.text))


def written(needle: Needle) -> bytes:
    """One of the ways in which *needle* may stand in a text."""
    text = needle.text
    if needle.any_case:
        letters = (
            byte - 32 if 97 <= byte <= 102 and RANDOM.random() < 0.5 else byte for byte in text
        )
        return bytes(letters)
    if needle.wraps:
        cuts, at = [0], RANDOM.randrange(1, len(text))
        while at < len(text):
            cuts.append(at)
            at += RANDOM.randrange(LINE, LINE + 20)
        return b"\r\n".join(text[a:b] for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True))
    return text


@pytest.mark.parametrize("name", VALUES)
def test_a_text_that_holds_a_needle_is_never_passed_over(name: str) -> None:
    needles = needles_of(VALUES[name])
    words: set[int] = set()
    left = choose(needles, words)
    asked = Words(words)

    for needle in needles:
        if needle in left:
            continue
        for _ in range(40):
            before = os.urandom(RANDOM.randrange(2000))
            text = before + written(needle) + os.urandom(RANDOM.randrange(2000))
            assert asked.may_stand_in(text), (name, len(needle.text), needle.any_case, needle.wraps)


@pytest.mark.parametrize("name", VALUES)
def test_what_is_left_to_others_is_short(name: str) -> None:
    left = choose(needles_of(VALUES[name]), set())

    assert all(len(needle.text) < 2 * (STRETCH + WORD) for needle in left)
    assert len(left) < len(needles_of(VALUES[name])) / 2


@pytest.mark.parametrize("at", [0, 1, 7, 8, 65_530, 65_536, 131_065])
def test_a_stretch_is_seen_over_the_border_of_a_slice(at: int) -> None:
    stretch = TOKEN[:STRETCH]
    words: set[int] = set()
    choose([Needle(stretch)], words)
    text = bytearray(200_000)
    text[at : at + STRETCH] = stretch

    assert Words(words).may_stand_in(bytes(text))
    assert not Words(words).may_stand_in(bytes(200_000))


def test_one_byte_less_than_a_stretch_is_no_match() -> None:
    words: set[int] = set()

    assert choose([Needle(TOKEN[: STRETCH - 1])], words) == [Needle(TOKEN[: STRETCH - 1])]
    assert words == set()


def test_ordinary_text_holds_no_word() -> None:
    words: set[int] = set()
    for value in VALUES.values():
        choose(needles_of(value), words)
    asked = Words(words)

    assert not asked.may_stand_in(os.urandom(1 << 20))
    assert not asked.may_stand_in(b'{"id": 1, "name": "some text", "ok": true}\n' * 20_000)


def test_words_do_not_show_themselves() -> None:
    words: set[int] = set()
    choose([Needle(TOKEN)], words)

    assert repr(Words(words)) == f"<{len(words)} words>"
