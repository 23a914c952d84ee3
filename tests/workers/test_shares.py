"""Who of the workers holds how many connections, and who of them leaves the next one to another."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from coatcheck.workers.shares import NO_FILE, Shares


@pytest.fixture
def shares() -> Iterator[Shares]:
    made = Shares.create(3)
    assert made.file != NO_FILE
    yield made
    os.close(made.file)


@pytest.mark.parametrize(
    ("held", "ahead"),
    [
        pytest.param({1: 0, 2: 0, 3: 0}, set(), id="none has any"),
        pytest.param({1: 2, 2: 0, 3: 1}, set(), id="two more are not clearly more"),
        pytest.param({1: 3, 2: 0, 3: 1}, {1}, id="three more are"),
        pytest.param({1: 105, 2: 100, 3: 108}, set(), id="of many it takes a sixteenth"),
        pytest.param({1: 105, 2: 100, 3: 109}, {3}, id="and more"),
        pytest.param({1: 50}, set(), id="who is alone is never ahead"),
        pytest.param({1: 50, 3: 4}, {1}, id="a worker that is not there has no part in it"),
    ],
)
def test_ahead_is_who_holds_clearly_more_than_another(
    held: dict[int, int], ahead: set[int], shares: Shares
) -> None:
    for number, connections in held.items():
        shares.tell(number, connections)

    assert {number for number in held if shares.is_ahead(number)} == ahead


def test_who_is_gone_holds_nobody_back(shares: Shares) -> None:
    shares.tell(1, 10)
    shares.tell(2, 0)
    assert shares.is_ahead(1)

    shares.leave(2)

    assert not shares.is_ahead(1)


def test_another_process_sees_the_same(shares: Shares) -> None:
    theirs = Shares(os.dup(shares.file), 3)
    try:
        shares.tell(1, 0)
        theirs.tell(2, 7)

        assert shares.is_ahead(2)
        assert theirs.is_ahead(2)
        assert not theirs.is_ahead(1)
    finally:
        os.close(theirs.file)


def test_without_a_file_nobody_waits() -> None:
    shares = Shares(NO_FILE, 3)
    shares.tell(1, 10)
    shares.tell(2, 0)
    shares.leave(2)

    assert not shares.is_ahead(1)
