"""ORC and SSRF: two refusals that look alike also take the same time.

Each pair is asked on one connection, one right after the other and in random order, so that load
hits both alike and nothing else can tell them apart. What is compared is how often the first took
less time than the second: half the time, if they are the same. That fraction does not care how
noisy the machine is or how long its tails are. Over `PAIRS` pairs chance moves it by 0.025 (one
standard deviation), so `MOST_APART` is six of them away.

The proxy is one of this module's own, and its pages are not searched for values: there are
thousands of a few kinds, and each kind is searched elsewhere.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.attacks import stage
from tests.attacks.client import Client, refused, send
from tests.attacks.dns import NameServer
from tests.attacks.stage import ALLOWED, IS_NAIVE, Coatcheck, make_coatcheck
from tests.attacks.watch import Attempt
from tests.e2e.wire import Wire, basic, request
from tests.e2e.world import World

pytestmark = pytest.mark.skipif(IS_NAIVE, reason="its refusals close the connection")

PAIRS = 400
MOST_APART = 0.15
CLEARLY_APART = 0.25
Dialled = Callable[[], list[Attempt]]


def apart(wire: Wire, one: bytes, two: bytes, *codes: str) -> float:
    """How far the two are from being one in time: 0 no difference, 0.5 never the same."""
    order = random.Random(1)
    sooner = 0.0
    for number in range(-20, PAIRS):
        taken = {}
        pair = [one, two]
        order.shuffle(pair)
        for data in pair:
            begun = time.perf_counter_ns()
            refused(send(wire, data), *codes)
            taken[data] = time.perf_counter_ns() - begun
        if number >= 0:  # the first few only warm up
            sooner += 0.5 if taken[one] == taken[two] else taken[one] < taken[two]
    return abs(sooner / PAIRS - 0.5)


@pytest.fixture(scope="module")
def own(world: World, folder: Path, upstream_ca: Path, dns: NameServer) -> Iterator[Coatcheck]:
    made = make_coatcheck(world, folder / f"timing-{os.getpid()}", upstream_ca)
    try:
        yield made.wait_ready()
    finally:
        made.stop()


@pytest.fixture
def alice(own: Coatcheck) -> Client:
    ca = own.authority()
    return Client(own.world, own.port, ca, stage.ALICE, stage.ALICE_FROM, recorder=None)


@pytest.fixture
def stranger(alice: Client) -> Client:
    return replace(alice, credential="", source=stage.STRANGER_FROM)


def with_secret(name: str) -> bytes:
    return request("GET", "/echo", "X: {{secrets." + name + "}}", host=ALLOWED)


def in_body(name: str) -> bytes:
    body = b'{"a": "{{secrets.' + name.encode() + b'}}"}'
    return request("POST", "/", "Content-Type: application/json", host=ALLOWED, body=body)


# Names of one length: that the text itself is longer may show.
SAME: dict[str, tuple[bytes, bytes]] = {
    "unknown and another client's": (with_secret("key.q"), with_secret("key.b")),
    "unknown and granted to nobody": (with_secret("nobodx.key"), with_secret("nobody.key")),
    "a client's by network": (with_secret("key.nex"), with_secret("key.net")),
    "in a body": (in_body("nobodx.key"), in_body("nobody.key")),
}


@pytest.mark.parametrize("name", SAME)
def test_orc_05_unknown_and_forbidden_take_the_same_time(name: str, alice: Client) -> None:
    with alice.tunnel() as wire:
        assert apart(wire, *SAME[name], "secret_unavailable") < MOST_APART


def to_url(name: str) -> bytes:
    return request("GET", f"/url/{name}", host="coatcheck.internal")


URLS: dict[str, tuple[bytes, bytes]] = {
    "unknown and another client's": (to_url("key.q"), to_url("key.b")),
    "unknown and granted to nobody": (to_url("nobodx.key"), to_url("nobody.key")),
}


@pytest.mark.parametrize("name", URLS)
def test_orc_05_unknown_and_forbidden_urls_take_the_same_time(name: str, alice: Client) -> None:
    with alice.tunnel("coatcheck.internal") as wire:
        assert apart(wire, *URLS[name], "secret_unavailable") < MOST_APART


def test_orc_05_a_difference_would_be_seen(alice: Client) -> None:
    """The same measure, with one side that has 95 fields and 62 kB more to read."""
    more = ["Y: " + "y" * 650] * 95
    long = request("GET", "/echo", *more, "X: {{secrets.no.such}}", host=ALLOWED)
    with alice.tunnel() as wire:
        assert apart(wire, with_secret("no.such"), long, "secret_unavailable") > CLEARLY_APART


def known_as(credential: str, *more: str) -> bytes:
    line = f"Proxy-Authorization: {credential}"
    return request("GET", f"http://{ALLOWED}/", line, *more, host=ALLOWED)


_TOKEN = stage.ALICE_TOKEN
_LAST_WRONG = _TOKEN[:-1] + "?"
_FIRST_WRONG = "?" + _TOKEN[1:]
_ALL_WRONG = "?" * len(_TOKEN)
CREDENTIALS: dict[str, tuple[str, str]] = {
    "is there such a client": (basic("alice", _ALL_WRONG), basic("alicx", _ALL_WRONG)),
    "is the beginning right": (basic("alice", _LAST_WRONG), basic("alice", _FIRST_WRONG)),
    "is nearly all of it right": (basic("alice", _LAST_WRONG), basic("alice", _ALL_WRONG)),
    "is it another client's": (basic("bobby", _TOKEN), basic("bobby", _ALL_WRONG)),
    "as Bearer": (f"Bearer {_LAST_WRONG}", f"Bearer {_ALL_WRONG}"),
}


@pytest.mark.parametrize("name", CREDENTIALS)
def test_orc_09_wrong_credentials_take_the_same_time(name: str, stranger: Client) -> None:
    one, two = map(known_as, CREDENTIALS[name])
    with stranger.plain() as wire:
        assert apart(wire, one, two, "proxy_auth_required") < MOST_APART


def test_orc_09_a_difference_would_be_seen(stranger: Client) -> None:
    """The same measure, with one side that has 95 fields and 62 kB more to read."""
    short, long = known_as("Bearer x"), known_as("Bearer x", *["Y: " + "y" * 650] * 95)
    with stranger.plain() as wire:
        assert apart(wire, short, long, "proxy_auth_required") > CLEARLY_APART


# At the first and the third somebody listens (the traps), at the others nobody does.
INSIDE = {
    "open and closed": ("10.1.2.3:8081", "10.1.2.3:8082"),
    "own and another's": ("127.0.0.1:8081", "192.0.2.1:8081"),
    "metadata and nobody": ("169.254.169.254:80", "169.254.169.253:81"),
}


@pytest.mark.parametrize("name", INSIDE)
def test_ssrf_07_inside_nothing_takes_longer(name: str, alice: Client, dialled: Dialled) -> None:
    one, two = (
        request("GET", f"http://{host}/", *alice.identity, host=host) for host in INSIDE[name]
    )
    with alice.plain() as wire:
        assert apart(wire, one, two, "address_not_allowed") < MOST_APART
    assert dialled() == []
