"""Values that cannot be scrubbed safely, or are guessed, are warned of in words without them."""

from __future__ import annotations

import pytest

from coatcheck.core import weakness

GOOD = [
    pytest.param(b"sk_live_51HqZ8KJhG2eZvKYlo2C0aBcDeFg", id="a token"),
    pytest.param(b"correct horse battery staple", id="a passphrase"),
    pytest.param(b"f47ac10b-58cc-4372-a567-0e02b2c3d479", id="an identifier"),
    pytest.param(b"123456789012", id="twelve digits"),
    pytest.param(b"abacabad", id="four different letters"),
    pytest.param(b"password-of-the-crm", id="more than a common word"),
    pytest.param("pässwörd".encode(), id="characters beyond ASCII"),
]
WEAK = [
    pytest.param(b"password", ["common word"], id="a common word"),
    pytest.param(b"PassWord", ["common word"], id="a common word in any letter case"),
    pytest.param(b"12345678901", ["fewer than 12 digits"], id="eleven digits"),
    pytest.param(b"11111111", ["fewer than 12 digits"], id="one digit again and again: told once"),
    pytest.param(b"aaaaaaaaaaaa", ["a few characters"], id="one letter"),
    pytest.param(b"abcabcabbcca", ["a few characters"], id="three letters"),
    pytest.param(b"tokentoken", ["a part of itself"], id="a part twice"),
    pytest.param(b"qwerqwerqwer", ["a part of itself"], id="a part three times"),
    pytest.param(b" sk_live_51HqZ8", ["white space"], id="white space in front"),
    pytest.param(b"sk_live_51HqZ8\n", ["white space"], id="a line end behind"),
    pytest.param(b"sk_live\x00_51HqZ8", ["control characters"], id="a NUL"),
    pytest.param(b"sk_live\n51HqZ8", ["control characters"], id="a line end inside"),
    pytest.param(b"password\n", ["common word", "white space"], id="two weaknesses"),
    pytest.param(b"        ", ["white space"], id="nothing but blanks"),
]


@pytest.mark.parametrize("value", GOOD)
def test_a_good_value_is_not_warned_of(value: bytes) -> None:
    assert list(weakness.warnings(value)) == []


@pytest.mark.parametrize(("value", "said"), WEAK)
def test_each_weakness_is_told_once(value: bytes, said: list[str]) -> None:
    words = list(weakness.warnings(value))

    assert len(words) == len(said)
    assert all(part in text for part, text in zip(said, words, strict=True))


def test_the_words_are_the_same_for_all_values_of_a_kind() -> None:
    """They hold no part of a value, nor its length."""
    assert list(weakness.warnings(b"password")) == list(weakness.warnings(b"administrator"))
    assert list(weakness.warnings(b"zyzyzyzyzy ")) == list(weakness.warnings(b"\tqqqqqqqqqqqqqq"))


def test_common_words_are_of_the_lengths_that_are_not_warned_of_by_length() -> None:
    assert all(len(word) >= 7 and word == word.lower() for word in weakness.COMMON)
    assert len(weakness.COMMON) > 200
