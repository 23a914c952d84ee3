"""What a worker makes of a sources file: in force, broken, gone; and what it tells."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coatcheck.observe import metrics, totals
from coatcheck.store.memory import MemoryStore
from coatcheck.workers import sourcing, worker
from tests.engine.wire import POLICY, VALUE
from tests.workers.test_worker import DOMAINS, KEY, House, Store

FILE = """
version: 1
sources:
  quick: {{kind: file, refresh_s: 0.1, stale_s: {stale_s}}}
secrets:
  {name}:
    domains: ["api.example.com:80"]
    source: quick
    file: {file}
"""


class Sourced(House):
    """A worker whose one secret lies in a file."""

    def __init__(self, root: Path, store: MemoryStore) -> None:
        self.sources = root / "sources.yaml"
        self.value = root / "value"
        self.value.write_bytes(VALUE)
        self.write()
        super().__init__(root, store)
        self.policy.write_text(POLICY)

    def write(self, *, name: str = "key", stale_s: float = 300) -> None:
        self.sources.write_text(FILE.format(name=name, file=self.value, stale_s=stale_s))

    async def until(self, true: Callable[[], bool]) -> None:
        """Look again and again, as the watch does."""
        begun = time.monotonic()
        while not true():
            assert time.monotonic() - begun < 10, "it did not come to pass"
            await asyncio.sleep(0.02)
            await self.worker.refresh()


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(sourcing.logs, "event", lambda event, /, **_: found.append(event))
    return found


@pytest.fixture
def house(tmp_path: Path, events: list[str]) -> Iterator[Sourced]:
    made = Sourced(tmp_path, Store())
    yield made
    made.worker.close()


async def test_with_the_first_look_the_value_is_there(house: Sourced, events: list[str]) -> None:
    await house.worker.refresh()

    assert house.ask(KEY) == "filled in"
    assert house.ask() == "passed on"
    assert house.state["sources"] == {"count": 1, "error": ""}
    assert "sources.loaded" in events


async def test_its_numbers_are_such_as_the_process_over_the_workers_takes(
    house: Sourced, tmp_path: Path
) -> None:
    await house.worker.refresh()
    told = totals.report(None, house.worker.counters(), house.worker.gauges())
    kept = totals.Totals(tmp_path / "run")

    kept.take(1, told)
    kept.write([])

    found = metrics.read(tmp_path / "run") or {}
    assert [["1", "file", "current"], 1] in found["gauges"]["source_secrets"]
    ((labels, at),) = found["gauges"]["source_answered"]
    assert labels == ["1", "file"]
    assert abs(time.time() - at) < 60
    reads = {tuple(labels): many for labels, many in found["counters"]["source_reads"]}
    assert reads["file", "value"] >= 1
    assert reads["vault", "failed"] == 0


async def test_without_a_file_there_are_no_sources(house: Sourced) -> None:
    house.sources.unlink()
    await house.worker.refresh()

    assert house.ask(KEY) == "secret_unavailable"
    assert house.state["sources"] == {"count": 0, "error": ""}


async def test_a_changed_file_is_in_force_at_the_next_look(house: Sourced) -> None:
    await house.worker.refresh()
    house.write(name="other")
    await house.worker.refresh()

    assert house.ask(KEY) == "secret_unavailable"
    await house.until(lambda: house.ask(KEY.replace(b"key}", b"other}")) == "filled in")


async def test_a_value_that_rotates_is_followed(house: Sourced) -> None:
    await house.worker.refresh()
    house.value.write_bytes(b"another-value-0123456789")

    # The request goes through, with another value.
    await house.until(lambda: house.ask(KEY) == "passed on")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("version: 1\nsecrets: [", id="no YAML"),
        pytest.param("", id="empty, as an editor leaves it for a moment"),
        pytest.param(None, id="gone"),
    ],
)
async def test_a_broken_file_leaves_the_last_good_one_in_force(
    house: Sourced, content: str | None, events: list[str]
) -> None:
    await house.worker.refresh()
    house.sources.unlink()
    if content is not None:
        house.sources.write_text(content)
    await house.worker.refresh()

    assert house.ask(KEY) == "filled in"
    assert str(house.sources) in house.state["sources"]["error"]
    assert events.count("sources.refused") == 1

    house.write()
    await house.worker.refresh()
    assert house.state["sources"]["error"] == ""


async def test_broken_from_the_start_it_refuses_everything_until_it_is_mended(
    house: Sourced,
) -> None:
    """What it would have declared is to be scrubbed, and not known."""
    house.sources.write_text("version: 2\n")
    await house.worker.refresh()
    assert house.ask(KEY) == house.ask() == "store_unavailable"

    house.write()
    await house.until(lambda: house.ask(KEY) == "filled in")


async def test_a_file_that_others_may_write_is_not_read(house: Sourced) -> None:
    house.sources.chmod(0o664)
    await house.worker.refresh()

    assert house.ask(KEY) == "store_unavailable"
    assert "chmod go-w" in house.state["sources"]["error"]


async def test_a_source_that_never_answered_refuses_what_it_is_in_scope_of(
    house: Sourced,
) -> None:
    """An answer could not be searched for the value."""
    house.value.unlink()
    await house.worker.refresh()
    assert house.ask(KEY) == house.ask() == "store_unavailable"
    assert "key: its source 'quick' does not have it" in house.state["sources"]["error"]

    house.value.write_bytes(VALUE)
    await house.until(lambda: house.ask(KEY) == "filled in")


async def test_a_source_that_is_silent_for_too_long_refuses_that_secret_alone(
    house: Sourced,
) -> None:
    house.store.put("stored", b"stored-value-0123", domains=DOMAINS, description="", now=1.0)
    house.write(stale_s=0.2)
    await house.worker.refresh()
    house.value.unlink()
    house.value.mkdir()  # there, and not to be read

    await house.until(lambda: house.ask(KEY) == "store_unavailable")
    assert house.ask() == "passed on"
    assert house.ask(b"X-Key: {{secrets.stored}}") == "passed on"  # with another value

    house.value.rmdir()
    house.value.write_bytes(VALUE)
    await house.until(lambda: house.ask(KEY) == "filled in")


async def test_a_stored_secret_of_the_same_name_stays_in_force_and_is_told(
    house: Sourced, events: list[str]
) -> None:
    house.store.put("Key", b"stored-value-0123", domains=DOMAINS, description="", now=1.0)
    await house.worker.refresh()

    assert house.ask(KEY) == "secret_unavailable"
    assert "a stored secret has this name" in house.state["sources"]["error"]
    assert events.count("source.name_taken") == 1

    house.store.delete("Key", now=2.0)
    await house.until(lambda: house.ask(KEY) == "filled in")
    assert house.state["sources"]["error"] == ""


async def test_a_store_that_cannot_be_read_refuses_sourced_secrets_too(house: Sourced) -> None:
    house.store.broken = OSError("gone")
    await house.worker.refresh()

    assert house.ask(KEY) == house.ask() == "store_unavailable"


async def test_after_a_restart_a_value_that_was_replaced_before_is_not_known(
    house: Sourced, tmp_path: Path
) -> None:
    """Values are nowhere but in memory, those to be scrubbed neither."""
    former = b"a-former-value-0123456789"
    house.value.write_bytes(former)
    await house.worker.refresh()
    house.value.write_bytes(VALUE)
    await house.until(lambda: house.ask(KEY) == "filled in")
    assert former in scrubbed(house.worker)
    house.worker.close()

    anew = House(tmp_path, Store())
    await anew.worker.refresh()
    try:
        assert scrubbed(anew.worker) == []
        assert anew.ask(KEY) == "filled in"
    finally:
        anew.worker.close()


def scrubbed(one: worker.Worker) -> list[bytes]:
    """The former values that are taken out of answers."""
    view = one.gateway.snapshot.view
    return [view.open(secret).reveal() for secret in view.former()]
