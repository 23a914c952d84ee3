"""Long texts are asked for words first: none that holds a needle may be passed over."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import Any

import numpy
import pytest

from coatcheck.core import spelling
from coatcheck.core import words as words_module
from coatcheck.core.needle import LINE, Needle
from coatcheck.core.stretches import choose, whole, whole_of
from coatcheck.core.words import SHORTEST, SLICE, Words, size_within

RANDOM = random.Random(20261126)
TOKEN = b"sk_live_9fQ2x7LmZ0aBcDeF1234567890uvWXyz"
PHRASE = b'correct "horse" battery & staple/1+1=2 \xc3\xa4\xc3\xb6'
VALUES = {
    "a token": TOKEN,
    "a phrase": PHRASE,
    "hexadecimal": b"deadbeefcafebabe0123456789abcdef",
    "33 bytes": b"tk_9Zr4Lw7Qm2Xv6Bn1Hd8Ks3Yp5Gc0Ft",
    "16 bytes": b"Zr4Lw7Qm2Xv6Bn1H",
    "8 bytes": b"x7Qm2Xv6",
}


COMPILED = words_module._compiled


@pytest.fixture(autouse=True, params=["compiled", "numpy"])
def _one_of_two(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything here holds for either."""
    if request.param == "numpy":
        monkeypatch.setattr(words_module, "_compiled", None)
    elif COMPILED is None:
        pytest.skip("coatcheck was built without a compiler")
    monkeypatch.setattr(words_module, "_rooms", [])


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


def words_of(needles: list[Needle]) -> tuple[Words, list[Needle]]:
    """What is asked for, and the needles that are too short."""
    chosen: dict[bytes, None] = {}
    left = choose(needles, chosen)
    return Words(chosen), left


@pytest.mark.parametrize("name", VALUES)
def test_a_text_that_holds_a_needle_is_never_passed_over(name: str) -> None:
    needles = needles_of(VALUES[name])
    words, left = words_of(needles)

    for needle in needles:
        if needle in left:
            continue
        for _ in range(40):
            before = os.urandom(RANDOM.randrange(2000))
            held = written(needle)
            text = before + held + os.urandom(RANDOM.randrange(2000))
            places = words.find(text)
            assert places, (name, len(needle.text), needle.any_case, needle.wraps)
            within = range(len(before), len(before) + len(held))
            assert any(place in within for place in places)


@pytest.mark.parametrize("name", VALUES)
def test_only_what_does_not_stay_whole_is_left_to_others(name: str) -> None:
    _, left = words_of(needles_of(VALUES[name]))

    assert all(whole_of(needle.text) < SHORTEST for needle in left if needle.wraps)
    assert all(len(needle.text) < SHORTEST for needle in left if not needle.wraps)


def test_what_is_left_is_found_by_what_stays_whole_of_it() -> None:
    left = [Needle(b"aBcD"), Needle(b"abc123", any_case=True), Needle(b"0123456789", wraps=True)]

    found = whole(left)

    assert b"aBcD" in found
    assert {b"ABC123", b"abc123", b"aBc123"} <= set(found)
    for at in range(1, 10):
        assert any(part in b"0123456789"[:at] or part in b"0123456789"[at:] for part in found)


@pytest.mark.parametrize("size", [8, 9, 11, 15, 23, 39, 71])
@pytest.mark.parametrize("at", [0, 1, 7, 8, SLICE - 57, SLICE - 6, SLICE, 2 * SLICE - 7])
def test_a_stretch_is_seen_over_the_border_of_a_slice(at: int, size: int) -> None:
    stretch = RANDOM.randbytes(size)
    words = Words([stretch])
    text = bytearray(3 * SLICE)
    text[at : at + size] = stretch

    assert words.find(bytes(text))
    assert words.find(bytes(3 * SLICE)) == []


@pytest.mark.parametrize("size", [8, 9, 11, 15, 23, 39, 71])
@pytest.mark.parametrize("at", range(8))
def test_a_stretch_is_seen_at_the_end_of_a_text(at: int, size: int) -> None:
    stretch = RANDOM.randbytes(size)

    assert Words([stretch]).find(bytes(at) + stretch)


@pytest.mark.parametrize("size", [8, 9, 11, 15, 23, 39, 71])
def test_letters_in_the_other_case_are_the_same(size: int) -> None:
    stretch = bytes(RANDOM.choices(b"abcdef0123456789", k=size))

    assert Words([stretch]).find(stretch.upper() + bytes(100))


@pytest.mark.parametrize(
    ("whole", "size"),
    [
        *((8, 8), (9, 9), (10, 9), (11, 11), (14, 11), (15, 15), (22, 15), (23, 23), (38, 23)),
        *((39, 39), (70, 39), (71, 71), (1000, 71)),
    ],
)
def test_a_stretch_is_as_long_as_can_be_asked_for(whole: int, size: int) -> None:
    assert size_within(whole) == size


@pytest.mark.parametrize(
    ("enough", "size"), [(1, 15), (2, 23), (3, 39), (4, 39), (5, 71), (8, 71), (9, 71)]
)
def test_a_stretch_is_no_longer_than_is_wanted(enough: int, size: int) -> None:
    assert size_within(1000, enough) == size


@pytest.mark.parametrize("size", [23, 39, 71])
def test_half_of_a_stretch_is_nothing(size: int) -> None:
    """ORC-03: who guesses must guess all words of a sequence at once."""
    stretch = RANDOM.randbytes(size)
    words = Words([stretch])

    for at in range(8):
        assert words.find(bytes(at) + stretch[: size // 2] + bytes(100)) == []
        assert words.find(bytes(at) + stretch[-(size // 2) :] + bytes(100)) == []
        assert words.find(bytes(at) + stretch + bytes(100))


@pytest.mark.parametrize("count", [2, 4, 8])
def test_words_in_another_order_are_nothing(count: int) -> None:
    stretch = RANDOM.randbytes(8 * count + 7)
    parts = [stretch[at : at + 8] for at in range(0, 8 * count, 8)]
    words = Words([stretch])

    assert words.find(b"".join(parts)) == [0]
    assert words.find(b"".join(reversed(parts))) == []
    assert words.find(parts[0] * count) == []


def test_a_text_full_of_them_is_told_as_that() -> None:
    stretch = RANDOM.randbytes(15)

    assert Words([stretch]).find((stretch + b"x") * 5000) is None


def test_a_text_full_of_what_may_be_one_is_told_as_that_too() -> None:
    """Each of its words stands at the place of some sequence, and none is whole: to look at every
    place would take a time that its author chooses."""
    parts = [RANDOM.randbytes(8) for _ in range(4)]
    others = [RANDOM.randbytes(8) for _ in range(4)]
    mixed = b"".join(parts[:3] + others[3:])
    words = Words([b"".join(some) + RANDOM.randbytes(7) for some in (parts, others)])

    assert words.find(mixed) == []
    assert words.find(mixed * 600) is None


def test_ordinary_text_holds_no_word() -> None:
    words, _ = words_of([needle for value in VALUES.values() for needle in needles_of(value)])

    assert words.find(os.urandom(1 << 20)) == []
    assert words.find(b'{"id": 1, "name": "some text", "ok": true}\n' * 20_000) == []


def test_words_do_not_show_themselves() -> None:
    assert repr(Words([RANDOM.randbytes(15)])) == "<8 sequences of words>"


# --- the compiled part -------------------------------------------------------------------------


@pytest.mark.skipif(COMPILED is None, reason="coatcheck was built without a compiler")
class TestCompiled:
    def test_it_finds_what_numpy_finds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for _ in range(300):
            sizes = RANDOM.choices([8, 9, 11, 15, 23, 39, 71], k=RANDOM.randrange(1, 40))
            few = [RANDOM.choices(b"ab01", k=size) for size in sizes]  # so that many fall together
            words = Words(bytes(stretch) for stretch in few)
            text = bytes(RANDOM.choices(b"ab01", k=RANDOM.randrange(8, 3000)))
            seen = []
            for way in (COMPILED, None):
                monkeypatch.setattr(words_module, "_compiled", way)
                monkeypatch.setattr(words_module, "_rooms", [])
                seen.append(words.find(text))
            assert seen[0] == seen[1]

    @pytest.mark.parametrize(
        "wrong",
        [
            pytest.param({"start": -8}, id="begins before the text"),
            pytest.param({"start": 1}, id="the last word goes over the end"),
            pytest.param({"start": 801}, id="begins behind the text"),
            pytest.param({"words": 101}, id="more words than there are"),
            pytest.param({"words": -1}, id="words below nothing"),
            pytest.param({"words": 1 << 61}, id="words beyond all memory"),
            pytest.param({"size": 101}, id="asks for more words than it names"),
            pytest.param({"size": -1}, id="asks for less than nothing"),
            pytest.param({"shift": 51}, id="a table too small for its shift"),
            pytest.param({"shift": 53}, id="a table too large for its shift"),
            pytest.param({"shift": 64}, id="a shift by all bits"),
            pytest.param({"shift": 0}, id="no shift"),
            pytest.param({"out": numpy.empty(99, numpy.int64)}, id="no room for all places"),
            pytest.param({"first": numpy.empty(16, numpy.uint8)[1:9]}, id="words that are askew"),
            pytest.param({"out": numpy.empty(808, numpy.uint8)[1:]}, id="room that is askew"),
        ],
    )
    def test_it_reads_and_writes_nothing_else(self, wrong: dict[str, Any]) -> None:
        fitting: dict[str, Any] = {
            "text": bytes(800),
            "start": 0,
            "words": 100,
            "size": 100,
            "table": numpy.zeros(1 << 12, numpy.uint8),
            "shift": 52,
            "first": numpy.empty(0, numpy.uint64),
            "sequences": numpy.empty(0, numpy.uint64),
            "all_kinds": 15,
            "kinds": 15,
            "most": 512,
            "out": numpy.empty(100, numpy.int64),
        }
        assert COMPILED is not None
        assert COMPILED(*fitting.values()) == 0

        with pytest.raises(ValueError, match="do not fit"):
            COMPILED(*(fitting | wrong).values())

    def test_who_has_it_does_not_import_numpy(self) -> None:
        """A fifth of a second of each start, and a thread for each core."""
        program = (
            "import sys\n"
            "from coatcheck.core.words import Words\n"
            f"assert Words([{TOKEN[:15]!r}]).find(bytes(16) + {TOKEN!r}) == [16]\n"
            "sys.exit('numpy' in sys.modules)\n"
        )
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

    @pytest.mark.parametrize("size", [1, 7, 8, 9, 8191, 8192, 8193, 20_000])
    def test_a_block_ends_nowhere(self, size: int) -> None:
        """A sequence of eight words, with each of its parts in the next block of the loop."""
        stretch = RANDOM.randbytes(71)
        words = Words([stretch])
        for before in range(max(0, size - 12), size + 1):
            assert words.find(bytes(8 * before) + stretch) == [8 * before]
