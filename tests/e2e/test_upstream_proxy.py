"""Through an upstream proxy: every promise as without one, and no way round it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import (
    CLIENTS,
    HOSTS,
    RUNNER,
    Proxy,
    api_only,
    make_home,
    wait_until,
)
from tests.e2e.upstream import Upstream
from tests.e2e.wire import request
from tests.e2e.world import World
from tests.engine.parents import Parent

VALUE = b"through-a-proxy-0123456789"
POLICY = CLIENTS + 'grants:\n  - {secrets: ["*"], clients: [runner], plaintext: true}\n'
ADDRESS, PORT = "20.20.20.50", 3128
CREDENTIAL = "corp:SENTINEL-password"
KEY = "X-Key: {{secrets.key}}"


@pytest.fixture(scope="module")
def parent(world: World) -> Iterator[Parent]:
    made = Parent(world.listen(ADDRESS, PORT), connect=world.connect)
    yield made
    made.close()


@pytest.fixture(scope="module")
def chained(world: World, parent: Parent, folder: Path, upstream_ca: Path) -> Iterator[Proxy]:
    domains = ("api.example.test", "api.example.test:80", "private.example.test")
    home = make_home(folder / "chained", {"key": api_only(VALUE, *domains)}, POLICY)
    (folder / "proxy-credential").write_text(CREDENTIAL + "\n")
    made = Proxy(
        world,
        home,
        upstream_ca,
        COATCHECK_UPSTREAM_PROXY=f"http://{ADDRESS}:{PORT}",
        COATCHECK_UPSTREAM_PROXY_CREDENTIAL=str(folder / "proxy-credential"),
    )
    try:
        yield made.wait_ready()
    finally:
        made.stop()
        assert b"SENTINEL" not in made.log.read_bytes()


@pytest.fixture(autouse=True)
def nothing_asked(parent: Parent) -> None:
    parent.asked.clear()
    parent.passed.clear()


def test_a_value_is_sent_through_it_and_scrubbed(
    chained: Proxy, parent: Parent, upstream: Upstream
) -> None:
    with chained.dial(RUNNER).tunnel() as wire:
        answer = wire.get("/echo", KEY)

    (received,) = upstream.take()
    assert VALUE in received.head
    assert (answer.status, VALUE in answer.raw) == (200, False)
    assert parent.targets == [f"{HOSTS['api.example.test']}:443"]
    assert VALUE not in parent.passed


def test_plain_http_goes_through_it_too(chained: Proxy, parent: Parent, upstream: Upstream) -> None:
    with chained.dial(RUNNER).plain() as wire:
        credential = f"Proxy-Authorization: {RUNNER}"
        answer = wire.ask(request("GET", "http://api.example.test/echo", KEY, credential))

    (received,) = upstream.take()
    assert VALUE in received.head
    assert b"SENTINEL" not in received.head
    assert (answer.status, VALUE in answer.raw) == (200, False)
    assert parent.targets == [f"{HOSTS['api.example.test']}:80"]


@pytest.mark.parametrize("host", ["private.example.test", "metadata.example.test"])
def test_an_address_that_is_not_allowed_is_not_asked_for(
    chained: Proxy, parent: Parent, host: str
) -> None:
    with chained.dial(RUNNER).tunnel(host) as wire:
        answer = wire.ask(request("GET", "/", host=host))

    assert answer.code == "address_not_allowed"
    assert parent.asked == []


@pytest.mark.parametrize("host", ["self-signed.example.test", "wrong-name.example.test"])
def test_a_destination_that_cannot_prove_its_name_gets_nothing(
    chained: Proxy, host: str, upstream: Upstream
) -> None:
    with chained.dial(RUNNER).tunnel(host) as wire:
        answer = wire.ask(request("GET", "/", host=host))

    assert answer.code == "upstream_tls_failed"
    assert upstream.take() == []


def test_when_it_does_not_answer_nothing_goes_round_it(
    chained: Proxy, parent: Parent, upstream: Upstream
) -> None:
    """For a destination that no connection rests for."""
    parent.answer = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
    try:
        with chained.dial(RUNNER).tunnel("other.example.test") as wire:
            answer = wire.ask(request("GET", "/echo", host="other.example.test"))
    finally:
        parent.answer = None

    assert answer.code == "upstream_unreachable"
    assert upstream.take() == []
    wait_until(lambda: b"does not take the credential" in chained.log.read_bytes(), 5)
