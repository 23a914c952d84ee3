"""Secrets from sources, through the proxy: sent, scrubbed, rotated under load, lost and found."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import CLIENTS, RUNNER, Proxy, audit_of, make_home, wait_until
from tests.e2e.upstream import Upstream
from tests.e2e.wire import Answer
from tests.e2e.world import World
from tests.store.sources.vaults import ROLE, SECRET_ID, Vault

FIRST, SECOND = b"from-a-file-0123456789", b"rotated-value-9876543210"
FROM_ENV = "from-the-environment-77"
PRINTED = "printed-by-a-command-42"
POLICY = CLIENTS + 'grants:\n  - {secrets: ["*"], clients: [runner]}\n'
SOURCES = """\
version: 1
sources:
  mounted: {{kind: file, folder: {folder}, refresh_s: 0.1, stale_s: {stale_s}}}
secrets:
  file.key: {{domains: [api.example.test], source: mounted, file: key}}
  env.key: {{domains: [api.example.test], source: env, variable: A_KEY}}
  command.key:
    domains: [api.example.test]
    source: command
    command: [/bin/echo, {printed}]
"""
VAULT = """\
version: 1
sources:
  v:
    kind: vault
    url: http://127.0.0.1:8200
    role_id_env: ROLE_ID
    secret_id_env: SECRET_ID
    refresh_s: 0.2
    timeout_s: 1
secrets:
  file.key: {domains: [api.example.test], source: v, path: apps/crm, field: apiKey}
"""
IN_FORCE_S = 2.0  # a question, a look, and a busy machine


class House:
    def __init__(self, world: World, root: Path, upstream_ca: Path) -> None:
        self.folder = root / "mounted"
        self.folder.mkdir(parents=True)
        self.put(FIRST)
        home = make_home(root / "home", {}, POLICY)
        self.file = home / "sources.yaml"
        self.declare()
        self.proxy = Proxy(world, home, upstream_ca, A_KEY=FROM_ENV).wait_ready()

    def declare(self, stale_s: float = 300) -> None:
        text = SOURCES.format(folder=self.folder, stale_s=stale_s, printed=PRINTED)
        self.file.write_text(text)

    def put(self, value: bytes) -> None:
        """As it is mounted: in one step."""
        (self.folder / ".new").write_bytes(value + b"\n")
        (self.folder / ".new").rename(self.folder / "key")

    def ask(self, name: str = "file.key", path: str = "/echo") -> Answer:
        with self.proxy.dial(RUNNER).tunnel() as wire:
            return wire.get(path, f"X-Key: {{{{secrets.{name}}}}}")


@pytest.fixture
def house(world: World, tmp_path: Path, upstream_ca: Path) -> Iterator[House]:
    made = House(world, tmp_path, upstream_ca)
    try:
        yield made
    finally:
        made.proxy.stop()
        seen = made.proxy.log.read_bytes()
        for value in (FIRST, SECOND, FROM_ENV.encode(), PRINTED.encode()):
            assert value not in seen


@pytest.fixture
def vault(world: World) -> Iterator[Vault]:
    made = Vault(world.listen("127.0.0.1", 8200))
    made.put("apps/crm", apiKey=FIRST.decode())
    yield made
    made.close()


def test_a_vault_is_followed_through_rotation_outage_and_a_hang(
    world: World, tmp_path: Path, upstream_ca: Path, upstream: Upstream, vault: Vault
) -> None:
    home = make_home(tmp_path / "home", {}, POLICY)
    (home / "sources.yaml").write_text(VAULT)
    proxy = Proxy(world, home, upstream_ca, ROLE_ID=ROLE, SECRET_ID=SECRET_ID).wait_ready()

    def ask() -> int:
        with proxy.dial(RUNNER).tunnel() as wire:
            answer = wire.get("/echo", "X-Key: {{secrets.file.key}}")
        assert FIRST not in answer.raw
        assert SECOND not in answer.raw
        return answer.status

    try:
        wait_until(lambda: ask() == 200, 10)  # a start does not wait for long
        assert FIRST in sent(upstream)

        vault.put("apps/crm", apiKey=SECOND.decode())
        wait_until(lambda: ask() == 200 and SECOND in sent(upstream), 5)

        for mode in ("sealed", "hangs"):
            vault.state.mode = mode
            time.sleep(1.5)
            begun = time.monotonic()
            assert ask() == 200
            assert SECOND in sent(upstream)
            assert time.monotonic() - begun < 3

        vault.state.mode = "well"
        vault.delete("apps/crm")
        wait_until(lambda: ask() == 503, 10)
    finally:
        proxy.stop()
    seen = proxy.log.read_text() + str(audit_of(home))
    for hidden in (FIRST.decode(), SECOND.decode(), SECRET_ID, *vault.state.tokens):
        assert hidden not in seen
    assert "'version': 2" in seen  # Vault's own count


def sent(upstream: Upstream) -> bytes:
    return b"".join(one.head for one in upstream.take())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("file.key", FIRST, id="of a file"),
        pytest.param("env.key", FROM_ENV.encode(), id="of the environment"),
        pytest.param("command.key", PRINTED.encode(), id="of a command"),
    ],
)
def test_a_value_is_sent_and_scrubbed(
    house: House, upstream: Upstream, name: str, value: bytes
) -> None:
    answer = house.ask(name)

    assert answer.status == 200
    assert value in sent(upstream)
    assert value not in answer.raw
    assert b"********" in answer.body


def test_it_goes_nowhere_else(house: House, upstream: Upstream) -> None:
    with house.proxy.dial(RUNNER).tunnel("evil.example.test") as wire:
        answer = wire.get("/echo", "X-Key: {{secrets.file.key}}", host="evil.example.test")

    assert (answer.status, answer.code) == (403, "domain_not_allowed")
    assert sent(upstream) == b""


def test_a_rotation_under_load_shows_neither_value(house: House, upstream: Upstream) -> None:
    """Requests go on meanwhile; the former value is still taken out of answers."""
    stop = threading.Event()
    answers: list[Answer] = []

    def load() -> None:
        while not stop.is_set():
            answers.append(house.ask())

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.5)
        house.put(SECOND)
        time.sleep(IN_FORCE_S)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    asked = sent(upstream)

    assert {answer.status for answer in answers} == {200}
    assert FIRST in asked
    assert SECOND in asked
    # In the order of arrival: once the second was sent, the first is sent no more.
    assert asked.rindex(FIRST) < asked.rindex(SECOND)
    for answer in answers:
        assert FIRST not in answer.raw
        assert SECOND not in answer.raw


def test_the_former_value_is_scrubbed_after_a_rotation(house: House, upstream: Upstream) -> None:
    house.ask()
    house.put(SECOND)
    wait_until(lambda: house.ask() is not None and SECOND in sent(upstream), IN_FORCE_S)
    with house.proxy.dial(RUNNER).tunnel() as wire:
        answer = wire.get("/echo", f"X-Former: {FIRST.decode()}")

    assert FIRST in sent(upstream)
    assert FIRST not in answer.raw


def test_a_source_that_is_lost_refuses_its_secret_alone(house: House, upstream: Upstream) -> None:
    house.declare(stale_s=0.3)
    wait_until(lambda: house.ask().status == 200, 5)
    house.folder.rename(house.folder.with_name("elsewhere"))
    wait_until(lambda: house.ask().code == "store_unavailable", 5)
    assert house.ask("env.key").status == 200

    house.folder.with_name("elsewhere").rename(house.folder)
    wait_until(lambda: house.ask().status == 200, 10)


def test_a_pipe_that_nobody_writes_to_stalls_nothing(house: House, upstream: Upstream) -> None:
    (house.folder / "key").unlink()
    os.mkfifo(house.folder / "key")
    begun = time.monotonic()
    for _ in range(10):
        assert house.ask("env.key").status == 200

    assert time.monotonic() - begun < 5
