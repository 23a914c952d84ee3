"""How a worker stays current: what is in force when files and stores change, break and return."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coatcheck.core.destination import parse_domain_pattern
from coatcheck.core.limits import Limits
from coatcheck.core.ports import StoreError, StoreView, Used
from coatcheck.observe.auditlog import FileAuditLog
from coatcheck.settings import load
from coatcheck.store.home import Home, create_home
from coatcheck.store.memory import MemoryStore
from coatcheck.store.sql import SqlStore
from coatcheck.workers import worker
from tests.engine.wire import POLICY, VALUE, Wire, a_get

KEY = b"X-Key: {{secrets.key}}"
NO_GRANTS = POLICY.partition("grants:")[0]
BROKEN = "version: 1\ngrants: [\n"
DOMAINS = [parse_domain_pattern("api.example.com:80")]


class Store(MemoryStore):
    """A store that can be told to fail; `broken` is what it then raises."""

    broken: Exception | None = None
    store_id = "a store"

    def revision(self) -> int:
        if self.broken is not None:
            raise self.broken
        return super().revision()

    def view(self) -> StoreView:
        if self.broken is not None:
            raise self.broken
        return super().view()

    def record_use(self, uses: Mapping[str, Used]) -> None:
        if self.broken is not None:
            raise self.broken
        super().record_use(uses)

    def close(self) -> None:
        pass


class House:
    """A worker over a folder and a store."""

    def __init__(self, root: Path, store: Any) -> None:
        self.root = root
        self.policy = root / "policy.yaml"
        self.store = store
        settings = load(home=root, config=None, flags={}, environ={})
        log = FileAuditLog(root / "audit")
        log.open()
        self.state: Mapping[str, Mapping[str, Any]] = {}
        self.worker = worker.Worker(settings, store, log, self._told)

    def _told(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        self.state = facts

    def ask(self, *fields: bytes) -> str:
        """What comes of a request with *fields*: "filled in", "passed on", or a refusal's code."""
        wire = Wire(self.worker.gateway)
        answer = wire.send(a_get(b"/", *fields))
        if not answer:
            return "filled in" if VALUE in wire.received() else "passed on"
        return str(json.loads(answer.partition(b"\r\n\r\n")[2])["code"])


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(worker.logs, "event", lambda event, /, **_: found.append(event))
    return found


@pytest.fixture
def house(tmp_path: Path, events: list[str]) -> Iterator[House]:
    store = Store()
    store.put("key", VALUE, domains=DOMAINS, description="", now=1.0)
    made = House(tmp_path, store)
    made.policy.write_text(POLICY)
    yield made
    made.worker.close()


# --- the policy ------------------------------------------------------------------------------


async def test_before_the_first_look_nobody_is_known(house: House) -> None:
    assert house.ask(KEY) == house.ask() == "proxy_auth_required"


async def test_after_it_the_policy_is_in_force(house: House) -> None:
    await house.worker.refresh()

    assert house.ask(KEY) == "filled in"
    assert house.ask() == "passed on"


async def test_without_a_policy_nobody_is_known_until_there_is_one(house: House) -> None:
    house.policy.unlink()
    await house.worker.refresh()
    assert house.ask(KEY) == "proxy_auth_required"
    assert str(house.policy) in house.state["policy"]["error"]

    house.policy.write_text(POLICY)
    await house.worker.refresh()

    assert house.ask(KEY) == "filled in"
    assert house.state["policy"]["error"] == ""


async def test_a_changed_policy_is_in_force_at_the_next_look(house: House) -> None:
    await house.worker.refresh()

    house.policy.write_text(NO_GRANTS)
    assert house.ask(KEY) == "filled in"
    await house.worker.refresh()

    assert house.ask(KEY) == "secret_unavailable"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(BROKEN, id="no YAML"),
        pytest.param("", id="empty, as an editor leaves it for a moment"),
        pytest.param(POLICY + "unknown: 1\n", id="a key that does not exist"),
        pytest.param(None, id="gone"),
    ],
)
async def test_a_broken_policy_leaves_the_last_good_one_in_force(
    content: str | None, house: House, events: list[str]
) -> None:
    await house.worker.refresh()
    good = house.state["policy"]["digest"]

    house.policy.unlink()
    if content is not None:
        house.policy.write_text(content)
    for _ in range(3):
        await house.worker.refresh()

    assert house.ask(KEY) == "filled in"
    assert house.state["policy"]["digest"] == good
    assert "policy.yaml" in house.state["policy"]["error"]
    assert events.count("policy.refused") == 1, "told once, not at every look"

    house.policy.write_text(NO_GRANTS)
    await house.worker.refresh()
    assert house.ask(KEY) == "secret_unavailable"
    assert house.state["policy"]["error"] == ""


async def test_a_bug_of_the_reader_is_a_broken_policy(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.worker.refresh()

    def failing(_: Path) -> None:
        raise RecursionError("text")

    monkeypatch.setattr(worker.policyfile, "read", failing)
    house.policy.write_text(NO_GRANTS)
    await house.worker.refresh()

    assert house.ask(KEY) == "filled in"
    assert "RecursionError" in house.state["policy"]["error"]
    assert "text" not in house.state["policy"]["error"]


async def test_a_reload_reads_again_what_looks_unchanged(house: House, events: list[str]) -> None:
    await house.worker.refresh()
    await house.worker.refresh()
    assert events.count("policy.loaded") == 1

    await house.worker.refresh(force=True)

    assert events.count("policy.loaded") == 2


async def test_a_mounted_policy_changes_by_its_link(house: House, tmp_path: Path) -> None:
    """As Kubernetes does: policy.yaml → ..data/policy.yaml, and ..data is swapped."""
    for name, text in (("one", POLICY), ("two", NO_GRANTS)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy.yaml").write_text(text)
        os.utime(tmp_path / name / "policy.yaml", ns=(1, 1))
    data = tmp_path / "..data"
    data.symlink_to("one")
    house.policy.unlink()
    house.policy.symlink_to("..data/policy.yaml")
    await house.worker.refresh()
    assert house.ask(KEY) == "filled in"

    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").replace(data)
    await house.worker.refresh()

    assert house.ask(KEY) == "secret_unavailable"


def test_a_policy_file_has_changed_when_it_is_another(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    file = worker.PolicyFile(path)
    looks = [file.changed(), file.changed()]
    assert looks == [True, False], "missing: news at first only"

    def news() -> tuple[bool, bool]:
        return file.changed(), file.changed()

    path.write_text("a")
    os.utime(path, ns=(5, 5))
    assert news() == (True, False), "it is there"
    path.write_text("b")
    assert news() == (True, False), "written to"
    (tmp_path / "other").write_text("c")
    stamp = path.stat().st_mtime_ns
    os.utime(tmp_path / "other", ns=(stamp, stamp))
    (tmp_path / "other").replace(path)
    assert news() == (True, False), "replaced by one of the same size and time"
    path.unlink()
    assert news() == (True, False), "gone"


# --- the store -------------------------------------------------------------------------------


async def test_a_store_that_cannot_be_read_is_used_as_it_was_and_then_not(
    house: House, events: list[str]
) -> None:
    await house.worker.refresh()
    house.store.broken = StoreError("the disk is gone", hint="")

    for _ in range(3):
        await house.worker.refresh()
    assert house.ask(KEY) == "filled in"
    assert house.state["store"]["error"] == "the disk is gone"
    assert events.count("store.unreadable") == 1

    house.worker._store_seen -= Limits().store_stale_s + 1
    await house.worker.refresh()
    assert house.ask(KEY) == "store_unavailable"
    assert house.ask() == "store_unavailable", "what is to be scrubbed is not known either"

    house.store.broken = None
    await house.worker.refresh()
    assert house.ask(KEY) == "filled in"
    assert house.state["store"]["error"] == ""


@pytest.mark.parametrize("asked", ["revision", "view", "record_use"])
async def test_a_store_that_says_nothing_is_used_as_it_was_and_then_not(
    house: House, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """It would be asked for seconds more: what was read of it is given up in time all the same."""
    silent = threading.Event()
    answer = getattr(house.store, asked)

    def wait(*arguments: Any) -> Any:
        assert silent.wait(20)
        return answer(*arguments)

    await house.worker.refresh()
    assert house.ask(KEY) == "filled in"
    if asked == "view":
        house.store.put("other", VALUE, domains=DOMAINS, description="", now=3.0)
    monkeypatch.setattr(house.store, asked, wait)
    monkeypatch.setattr(worker, "SILENCE_LOOK_S", 0.01)
    work = house.worker.note_uses if asked == "record_use" else house.worker.refresh
    asking = asyncio.create_task(work())
    try:
        await asyncio.sleep(0.1)
        assert house.ask(KEY) == "filled in", "not yet"
        house.worker._store_seen -= Limits().store_stale_s + 1
        await until(lambda: house.ask(KEY) == "store_unavailable")
    finally:
        silent.set()
        await asking
    await house.worker.refresh()
    assert house.ask(KEY) == "filled in"


async def test_a_change_that_is_told_is_in_force_at_once(house: House) -> None:
    """The poll would find it too, in a minute here."""
    limits = replace(house.worker._settings.limits, store_poll_ms=60_000)
    house.worker._settings = replace(house.worker._settings, limits=limits)
    await house.worker.refresh()
    house.store.wait(0)  # what was told so far
    watching = asyncio.create_task(house.worker.watch())
    try:
        await asyncio.sleep(0.1)
        house.store.delete("key", now=2.0)
        await until(lambda: house.ask(KEY) == "secret_unavailable")
    finally:
        house.store.put("end", VALUE, domains=DOMAINS, description="", now=3.0)
        watching.cancel()


async def test_a_store_that_was_put_back_from_a_copy_is_told(
    house: House, events: list[str]
) -> None:
    await house.worker.refresh()
    assert "store.older" not in events

    house.worker._store = Store()  # type: ignore[assignment]
    await house.worker.refresh()

    assert events.count("store.older") == 1


async def test_a_store_that_cannot_be_read_at_first_refuses_until_it_can(house: House) -> None:
    house.store.broken = StoreError("locked", hint="")
    await house.worker.refresh()
    assert house.ask() == "store_unavailable"

    house.store.broken = None
    await house.worker.refresh()
    assert house.ask() == "passed on"


async def test_a_bug_in_the_store_ends_like_a_store_that_cannot_be_read(house: House) -> None:
    """Else a secret that was taken back would be given out for ever."""
    await house.worker.refresh()
    house.store.broken = ZeroDivisionError("text")

    await house.worker.refresh()
    house.worker._store_seen -= Limits().store_stale_s + 1
    await house.worker.refresh()

    assert house.ask(KEY) == "store_unavailable"
    assert "ZeroDivisionError" in house.state["store"]["error"]
    assert "text" not in house.state["store"]["error"]


async def test_the_watch_goes_on_whatever_happens(
    house: House, events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh = house.worker.refresh
    failing = [MemoryError()]

    async def sometimes() -> None:
        if failing:
            raise failing.pop()
        await refresh()

    monkeypatch.setattr(house.worker, "refresh", sometimes)
    watching = asyncio.create_task(house.worker.watch())
    try:
        await until(lambda: house.ask(KEY) == "filled in")
    finally:
        watching.cancel()

    assert "watch.failed" in events


async def until(true: Any, limit_s: float = 5.0) -> float:
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < limit_s
        await asyncio.sleep(0.02)
    return time.monotonic() - begun


@pytest.fixture
def real(tmp_path: Path, events: list[str]) -> Iterator[House]:
    """With a home and a database of its own."""
    root = tmp_path / "home"
    create_home(root, now=time.time())
    home = Home(root)
    home.policy.write_text(POLICY)
    store = SqlStore.open(
        str(home.store), public=home.read_public_key(), private=home.read_private_key()
    )
    made = House(root, store)
    yield made
    made.worker.close()


async def test_a_change_of_the_store_is_in_force_within_a_second(real: House) -> None:
    home = Home(real.root)
    manager = SqlStore.open(str(home.store), public=home.read_public_key())
    await real.worker.refresh()
    watching = asyncio.create_task(real.worker.watch())
    try:
        assert real.ask(KEY) == "secret_unavailable"
        manager.put("key", VALUE, domains=DOMAINS, description=None, now=time.time())
        assert await until(lambda: real.ask(KEY) == "filled in") < 1

        manager.delete("key", now=time.time())
        assert await until(lambda: real.ask(KEY) == "secret_unavailable") < 1

        real.policy.write_text(NO_GRANTS.partition("clients:")[0])
        assert await until(lambda: real.ask(KEY) == "proxy_auth_required") < 1
    finally:
        watching.cancel()
        manager.close()


async def test_uses_are_written_down(real: House) -> None:
    manager = SqlStore.open(str(Home(real.root).store), public=Home(real.root).read_public_key())
    manager.put("key", VALUE, domains=DOMAINS, description=None, now=1.0)
    manager.put("other", VALUE, domains=DOMAINS, description=None, now=1.0)
    await real.worker.refresh()
    before = time.time()

    assert real.ask(KEY) == "filled in"
    await real.worker.note_uses()

    used = {secret.name: secret.last_used_at for secret in manager.secrets()}
    manager.close()
    assert used["other"] is None
    assert used["key"] is not None
    assert before <= used["key"] <= time.time()


async def test_a_use_that_cannot_be_written_down_is_told_of(
    house: House, events: list[str]
) -> None:
    await house.worker.refresh()
    house.ask(KEY)
    house.store.broken = StoreError("read-only", hint="")

    await house.worker.note_uses()

    assert "store.use_not_recorded" in events


# --- what is opened --------------------------------------------------------------------------


async def test_values_of_one_name_are_all_known_to_the_net_under_the_logs(house: House) -> None:
    """A secret that is deleted and made again begins at version 1 again."""
    await house.worker.refresh()
    house.ask(KEY)
    house.store.delete("key", now=2.0)
    house.store.put("key", VALUE + b"-new", domains=DOMAINS, description="", now=3.0)
    await house.worker.refresh()
    assert house.ask(KEY) == "filled in"

    values = [value.reveal() for value in house.worker.gateway.opened_values()]

    assert values == [VALUE, VALUE + b"-new"]


async def test_the_audit_log_is_opened_anew(house: House, events: list[str]) -> None:
    await house.worker.refresh()
    house.ask(KEY)
    path = house.root / "audit" / "audit.jsonl"
    path.rename(path.with_suffix(".1"))

    house.worker.reopen_audit()
    house.ask(KEY)
    assert len(path.read_bytes().splitlines()) == 1

    path.unlink()
    path.mkdir()
    house.worker.reopen_audit()
    assert "audit.unavailable" in events
    assert house.ask(KEY) == "audit_unavailable"
