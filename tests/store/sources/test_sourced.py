"""The sourced secrets of a worker: versions, grace, staleness, what is refused, what is told.

The source is a fake that says what it is told to say; the clock is the test's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from coatcheck.core.ports import StoreError
from coatcheck.core.secret import MAX_VALUE, Secret
from coatcheck.sourcefile import SourceConfig, SourcesFile, parse_text
from coatcheck.store.memory import MemoryStore
from coatcheck.store.sources.combined import CombinedView
from coatcheck.store.sources.feed import Feeds
from coatcheck.store.sources.port import Failure, Fetched, SourceError
from coatcheck.store.sources.sourced import Sourced, pause_s
from tests.store.stores import patterns

FIRST, SECOND = b"first-value-012345", b"second-value-98765"
GRACE_S = 100.0
ONE = """
version: 1
sources:
  s: {kind: env, refresh_s: 60, stale_s: 300}
secrets:
  key: {domains: [api.example.com], source: s, variable: A}
"""


class House:
    """A `Sourced`, its clock, and what it says."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.said: list[tuple[str, Mapping[str, Any]]] = []
        self.sourced = Sourced(
            grace_s=GRACE_S,
            log=lambda event, **fields: self.said.append((event, fields)),
            clock=lambda: self.now,
            monotonic=lambda: self.now,
        )
        self.declare(ONE)

    def declare(self, text: str) -> None:
        self.entries = self.sourced.declare(parse_text(text, "sources.yaml", Path("/")))

    def take(self, value: bytes, version: int | None = None, *, is_text: bool = False) -> None:
        self.sourced.take(self.entries[0], Fetched(value, version, is_text))

    def fail(self, failure: Failure = Failure.UNREACHABLE) -> None:
        self.sourced.fail(self.entries[0], failure)

    def find(self, name: str = "key") -> Secret:
        self.sourced.look()
        secret = self.sourced.view().find(name)
        assert secret is not None
        return secret

    def value(self, secret: Secret | None = None) -> bytes:
        return self.sourced.view().open(secret or self.find()).reveal()

    def scrubbed(self) -> list[bytes]:
        view = self.sourced.view()
        return [view.open(secret).reveal() for secret in view.former()]


@pytest.fixture
def house() -> House:
    return House()


# --- numbers -----------------------------------------------------------------------------------


def numbers(house: House) -> dict[str, float]:
    """The states that secrets are in, of the one kind there is."""
    house.sourced.look()
    return {state: many for (kind, state), many in house.sourced.states().items() if many}


def test_each_state_of_a_secret_is_counted(house: House) -> None:
    assert numbers(house) == {"unknown": 1}
    house.take(FIRST)
    assert numbers(house) == {"current": 1}
    house.fail()
    assert numbers(house) == {"failing": 1}
    house.now += 301
    assert numbers(house) == {"withheld": 1}
    house.take(FIRST)
    assert numbers(house) == {"current": 1}
    house.fail(Failure.GONE)
    assert numbers(house) == {"withheld": 1}


def test_a_state_that_nothing_is_in_is_a_zero(house: House) -> None:
    shown = {("env", state): 0 for state in ("current", "failing", "withheld", "unknown")}

    assert house.sourced.states() == {**shown, ("env", "unknown"): 1}


def test_reads_are_counted_by_what_came_of_them(house: House) -> None:
    house.take(FIRST)
    house.take(SECOND)
    house.fail()
    house.fail(Failure.GONE)

    assert house.sourced.reads() == {
        ("env", "value"): 2,
        ("env", "failed"): 1,
        ("env", "taken_back"): 1,
    }


def test_the_age_is_that_of_the_answer_that_is_oldest(house: House) -> None:
    assert house.sourced.answered() == {}
    house.declare(ONE + "  other: {domains: [api.example.com], source: s, variable: B}\n")
    for at, entry in ((1010.0, 0), (1030.0, 1), (1050.0, 1)):
        house.now = at
        house.sourced.take(house.entries[entry], Fetched(FIRST))
    house.now = 1100.0
    house.fail()

    assert house.sourced.answered() == {"env": 1010.0}


# --- values ------------------------------------------------------------------------------------


def test_a_value_that_is_not_known_yet_cannot_be_opened(house: House) -> None:
    with pytest.raises(StoreError, match="was not asked yet"):
        house.value()
    house.fail()
    with pytest.raises(StoreError, match="cannot be reached"):
        house.value()

    house.take(FIRST)
    assert house.value() == FIRST


def test_the_secret_is_as_it_was_declared(house: House) -> None:
    house.take(FIRST)

    assert [str(pattern) for pattern in house.find().domains] == ["api.example.com"]
    assert house.find().version == 1
    assert house.sourced.view().find("other") is None


def test_a_new_value_is_a_new_version_and_the_former_is_scrubbed_within_grace(
    house: House,
) -> None:
    house.take(FIRST)
    old = house.find()
    house.take(FIRST)
    assert house.find() == old
    assert house.scrubbed() == []

    house.now += 5
    house.take(SECOND)
    assert (house.find().version, house.value()) == (2, SECOND)
    assert house.scrubbed() == [FIRST]

    house.now += GRACE_S - 1
    assert house.scrubbed() == [FIRST]
    house.now += 2
    assert house.scrubbed() == []


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        pytest.param((3, 4), [3, 4], id="the source's own count"),
        pytest.param((None, None), [1, 2], id="ours where it has none"),
        pytest.param((3, 1), [3, 4], id="ours where its own goes back"),
        pytest.param((3, 3), [3, 4], id="ours where its own stands still"),
    ],
)
def test_each_value_has_a_version_of_its_own(
    house: House, counts: tuple[int | None, ...], expected: list[int]
) -> None:
    found = []
    for count, value in zip(counts, (FIRST, SECOND), strict=True):
        house.take(value, count)
        found.append(house.find().version)

    assert found == expected


@pytest.mark.parametrize(
    ("value", "more", "expected"),
    [
        pytest.param(b"", {}, Failure.EMPTY, id="empty"),
        pytest.param(b"\n", {"is_text": True}, Failure.EMPTY, id="a line end alone"),
        pytest.param(b"short", {}, Failure.TOO_SHORT, id="too short to be scrubbed"),
        pytest.param(b"x" * (MAX_VALUE + 1), {}, Failure.TOO_LARGE, id="too large"),
    ],
)
def test_a_value_that_no_secret_can_have_is_refused_and_the_last_one_stays(
    house: House, value: bytes, more: dict[str, bool], expected: Failure
) -> None:
    house.take(FIRST)
    with pytest.raises(SourceError) as caught:
        house.take(value, **more)

    assert caught.value.failure is expected
    assert house.value() == FIRST


def test_what_may_be_taken_all_the_same_is_said_in_the_file(house: House) -> None:
    house.declare(ONE.replace("variable: A", "variable: A, allow_short: true, keep_newline: true"))
    house.take(b"x\n", is_text=True)

    assert house.value() == b"x\n"


def test_one_line_end_is_taken_off_a_text_and_none_off_bytes(house: House) -> None:
    house.take(FIRST + b"\r\n", is_text=True)
    assert house.value() == FIRST
    house.take(FIRST + b"\n")
    assert house.value() == FIRST + b"\n"


# --- outages -----------------------------------------------------------------------------------


def test_in_an_outage_the_value_is_sent_until_it_is_stale_and_scrubbed_for_ever(
    house: House,
) -> None:
    house.take(FIRST)
    house.now += 10
    house.fail()
    house.now += 289
    assert house.find().withheld == ""

    house.now += 2
    assert "cannot be reached" in house.find().withheld
    assert house.value() == FIRST
    house.now += 10**6
    assert house.value() == FIRST

    house.take(FIRST)
    assert (house.find().withheld, house.find().version) == ("", 1)


@pytest.mark.parametrize("failure", [Failure.GONE, Failure.NO_FIELD, Failure.EMPTY])
def test_what_was_taken_back_is_not_sent_from_then_on(house: House, failure: Failure) -> None:
    house.take(FIRST)
    house.fail(failure)

    assert house.find().withheld
    assert house.value() == FIRST


@pytest.mark.parametrize("failure", [Failure.DENIED, Failure.NOT_READY, Failure.TOO_SLOW])
def test_what_may_be_an_outage_is_one(house: House, failure: Failure) -> None:
    house.take(FIRST)
    house.fail(failure)

    assert house.find().withheld == ""


def test_another_secret_is_not_concerned(house: House) -> None:
    house.declare(ONE + "  other: {domains: [b.example.com], source: s, variable: B}\n")
    house.take(FIRST)
    house.sourced.take(house.entries[1], Fetched(SECOND))
    house.fail(Failure.GONE)

    assert house.find().withheld
    assert house.find("other").withheld == ""


def test_a_failure_is_told_once_and_its_end_too(house: House) -> None:
    house.take(FIRST)
    for _ in range(3):
        house.fail()
    house.take(FIRST)
    house.fail()

    events = [event for event, _ in house.said]
    assert events == ["source.changed", "source.failed", "source.recovered", "source.failed"]
    assert FIRST.decode() not in str(house.said)
    assert "look at its address" in house.said[1][1]["error"]


def test_every_change_counts_the_revision_up(house: House) -> None:
    seen = [house.sourced.look()]
    for change in (
        lambda: house.take(FIRST),
        lambda: house.take(SECOND),
        lambda: house.fail(),
        lambda: setattr(house, "now", house.now + 301),
        lambda: house.take(SECOND),
    ):
        change()
        seen.append(house.sourced.look())
    assert seen == sorted(set(seen))

    house.take(SECOND)
    assert house.sourced.look() == seen[-1]


@pytest.mark.parametrize(
    ("failures", "pause"), [(0, 60), (1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (10**6, 60)]
)
def test_questions_back_off(house: House, failures: int, pause: float) -> None:
    house.entries[0].failures = failures

    assert pause_s(house.entries[0]) == pause


# --- another file ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(("s: {kind", "t: {kind: env}\n  s: {kind"), id="another source beside it"),
        pytest.param(("refresh_s: 60", "refresh_s: 5"), id="how often it is asked for"),
        pytest.param(("source: s", "description: new, source: s"), id="its description"),
    ],
)
def test_what_is_asked_for_as_before_keeps_its_value(house: House, change: tuple[str, str]) -> None:
    house.take(FIRST)
    house.declare(ONE.replace(*change))

    assert (house.value(), house.find().version, house.scrubbed()) == (FIRST, 1, [])


def test_other_domains_are_a_new_version_and_the_former_ones_are_still_scrubbed(
    house: House,
) -> None:
    house.take(FIRST)
    old = house.find()
    house.declare(ONE.replace("api.example.com", "other.example.com"))

    assert (house.value(), house.find().version) == (FIRST, 2)
    former = house.sourced.view().former()
    assert [str(one.domains[0]) for one in former] == ["api.example.com"]
    with pytest.raises(StoreError):
        house.sourced.view().open(Secret(old.id, old.name, 1, patterns("other.example.com")))


def test_another_place_is_another_value(house: House) -> None:
    house.take(FIRST)
    house.declare(ONE.replace("variable: A", "variable: B"))

    with pytest.raises(StoreError):
        house.value()
    assert house.scrubbed() == [FIRST]
    house.take(SECOND)
    assert (house.value(), house.find().version) == (SECOND, 2)


def test_an_answer_to_an_older_question_is_thrown_away(house: House) -> None:
    late = house.entries[0]
    house.declare(ONE.replace("variable: A", "variable: B"))

    house.sourced.take(late, Fetched(FIRST))
    house.sourced.fail(late, Failure.GONE)

    with pytest.raises(StoreError, match="was not asked yet"):
        house.value()


def test_what_is_not_declared_any_more_is_unknown(house: House) -> None:
    house.take(FIRST)
    old = house.find()
    house.sourced.declare(SourcesFile())

    view = house.sourced.view()
    assert view.find("key") is None
    with pytest.raises(StoreError, match="not declared"):
        view.open(old)


# --- the feeds ---------------------------------------------------------------------------------


class Fake:
    """A source that says what it is told to say."""

    def __init__(self, config: SourceConfig) -> None:
        self.config = config
        self.released = threading.Event()
        self.error: Exception | None = None
        self.asked = 0

    def fetch(self, where: Mapping[str, Any]) -> Fetched:
        self.asked += 1
        if self.config.name == "hangs":
            self.released.wait(10)
        if self.error is not None:
            raise self.error
        return Fetched(b"value-of-" + where["variable"].encode())

    def close(self) -> None:
        pass


TWO = """
version: 1
sources:
  hangs: {kind: env}
  well: {kind: env, refresh_s: 0.1}
secrets:
  a: {domains: [api.example.com], source: hangs, variable: AAAA}
  b: {domains: [api.example.com], source: well, variable: BBBB}
  c: {domains: [api.example.com], source: well, variable: CCCC}
"""


class Fed:
    def __init__(self, text: str) -> None:
        self.said: list[str] = []
        self.sources: dict[str, Fake] = {}
        self.sourced = Sourced(
            grace_s=GRACE_S, log=lambda event, **more: self.said.append(f"{event} {more}")
        )
        self.feeds = Feeds(self.sourced, self._make)
        self.follow(text)

    def _make(self, config: SourceConfig) -> Fake:
        self.sources[config.name] = Fake(config)
        return self.sources[config.name]

    def close(self) -> None:
        self.feeds.close()
        for source in list(self.sources.values()):
            source.released.set()

    def follow(self, text: str) -> None:
        entries = self.sourced.declare(parse_text(text, "sources.yaml", Path("/")))
        self.feeds.follow(entries)

    def open(self, name: str) -> bytes | None:
        view = self.sourced.view()
        secret = view.find(name)
        try:
            return None if secret is None else view.open(secret).reveal()
        except StoreError:
            return None


def until(true: Any) -> None:
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < 5, "it did not come to pass"
        time.sleep(0.01)


def test_one_source_that_hangs_delays_no_other() -> None:
    fed = Fed(TWO)
    try:
        assert fed.sourced.wait_tried(0.3) is False
        assert (fed.open("a"), fed.open("b"), fed.open("c")) == (
            None,
            b"value-of-BBBB",
            b"value-of-CCCC",
        )
        fed.sources["hangs"].released.set()
        until(lambda: fed.open("a") == b"value-of-AAAA")
    finally:
        fed.close()


def test_a_source_that_cannot_be_reached_is_not_asked_for_each_secret() -> None:
    fed = Fed(TWO)
    try:
        until(lambda: fed.open("c") is not None)
        well = fed.sources["well"]
        well.error = SourceError(Failure.UNREACHABLE)
        until(lambda: len(fed.sourced.problems()) == 2)
        asked = well.asked
        time.sleep(0.5)  # the pause after the first failure is a second
        assert well.asked <= asked + 1
    finally:
        fed.close()


def test_a_bug_of_an_adapter_is_a_failure_whose_words_are_not_told() -> None:
    fed = Fed(TWO)
    try:
        until(lambda: fed.open("b") is not None)
        fed.sources["well"].error = RuntimeError("SENTINEL")
        until(lambda: any("cannot be understood" in line for line in fed.said))
        assert "SENTINEL" not in str(fed.said) + str(fed.sourced.problems())
        fed.sources["well"].error = None
        until(lambda: any("recovered" in line for line in fed.said))
    finally:
        fed.close()


def test_a_feed_that_is_followed_no_more_ends() -> None:
    before = set(threading.enumerate())
    fed = Fed(TWO)
    until(lambda: fed.open("b") is not None)
    assert len(set(threading.enumerate()) - before) == 2

    fed.close()

    until(lambda: not set(threading.enumerate()) - before)


# --- with the store ----------------------------------------------------------------------------


def stored(*names: str) -> MemoryStore:
    store = MemoryStore()
    for name in names:
        store.put(name, b"stored-value-0123", domains=patterns("a.example"), description="", now=1)
    return store


def test_both_are_found_in_order_of_name(house: House) -> None:
    house.take(FIRST)
    view = CombinedView(stored("a", "z").view(), house.sourced.view())

    assert [secret.name for secret in view.secrets()] == ["a", "key", "z"]
    assert [view.open(secret).reveal() for secret in view.secrets()] == [
        b"stored-value-0123",
        FIRST,
        b"stored-value-0123",
    ]
    assert view.find("nobody") is None


@pytest.mark.parametrize("name", ["key", "KEY", "\u200bkey"])
def test_a_stored_secret_goes_before_one_that_a_reader_would_take_for_it(
    house: House, name: str
) -> None:
    house.take(FIRST)
    store = stored(name)
    view = CombinedView(store.view(), house.sourced.view())

    assert view.refused == ("key",)
    assert [secret.name for secret in view.secrets()] == [name]
    assert [view.open(secret).reveal() for secret in view.secrets()] == [b"stored-value-0123"]
    # What was sent before is still taken out of answers.
    assert [view.open(former).reveal() for former in view.former()] == [FIRST]

    store.delete(name, now=2)
    assert CombinedView(store.view(), house.sourced.view()).refused == ()


def test_the_former_of_both_are_scrubbed(house: House) -> None:
    store = stored("a")
    store.put("a", b"stored-value-4567", domains=None, description=None, now=time.time())
    house.take(FIRST)
    house.take(SECOND)
    view = CombinedView(store.view(), house.sourced.view())

    assert {view.open(one).reveal() for one in view.former()} == {b"stored-value-0123", FIRST}


@pytest.mark.parametrize("version", [1, 2], ids=["as the former value", "as the one in force"])
def test_a_row_of_the_store_that_poses_as_a_sourced_secret_opens_nothing(
    house: House, version: int
) -> None:
    house.take(FIRST)
    house.take(SECOND)
    view = CombinedView(stored("a").view(), house.sourced.view())
    posing = Secret("source:key", "a", version, house.find().domains)

    with pytest.raises(StoreError):
        view.open(posing)
    assert view.open(Secret(posing.id, "key", version, posing.domains)).name == "key"
