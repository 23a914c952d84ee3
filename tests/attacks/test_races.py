"""Many at once, and the end in the middle: values do not mix, and none is lost track of."""

from __future__ import annotations

import contextlib
import os
import signal
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from tests.attacks import stage
from tests.attacks.client import Client, accepted, ask, refused, send
from tests.attacks.leaks import Detector
from tests.attacks.sites import Scripts
from tests.attacks.stage import (
    ALLOWED,
    EVIL,
    IS_NAIVE,
    KEY_A,
    KEY_B,
    SMALL_POLICY,
    THIEF,
    VALUES,
    Coatcheck,
    Start,
)
from tests.attacks.test_changes import until_refused
from tests.e2e.harness import other_workers_follow, put, store_of, wait_until
from tests.e2e.upstream import Received, Upstream
from tests.e2e.wire import Answer, Wire, request

needs_coatcheck = pytest.mark.skipif(IS_NAIVE, reason="mitmdump has neither policy nor record")
KEY = "X: {{secrets.key.a}}"


def get(*lines: str, host: str = ALLOWED, target: str | bytes = "/echo") -> bytes:
    return request("GET", target, *lines, host=host)


def all_at_once(jobs: Sequence[Callable[[], None]]) -> None:
    """Run *jobs* side by side, and raise what any of them has raised."""
    failed: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if failed:
        raise failed[0]
    assert not any(thread.is_alive() for thread in threads), "a hang"


# --- HOST: interleaved ---------------------------------------------------------------------------


def test_host_10_a_hundred_requests_in_turn_on_twenty_tunnels(
    alice: Client, upstream: Upstream
) -> None:
    """The odd ones name another host: each is judged alone, whatever came before it."""
    with ExitStack() as stack:
        wires = [stack.enter_context(alice.tunnel()) for _ in range(20)]
        for number in range(100):
            wire = wires[number * 7 % 20]
            if number % 2:
                refused(send(wire, get(KEY, host=EVIL)), "destination_mismatch")
            else:
                accepted(send(wire, get(KEY)))
    received = upstream.take()
    assert len(received) == 50
    assert {(r.sni, r.all("host")[0], r.all("x")[0]) for r in received} == {
        (ALLOWED, ALLOWED.encode(), KEY_A)
    }


@pytest.mark.parametrize("evil", [THIEF, EVIL])
def test_host_10_a_hundred_plain_requests_in_one_go(
    evil: str, alice: Client, upstream: Upstream
) -> None:
    """Pipelined, every other one with a value for a host that may not have it."""
    line = "X: {{secrets.plain.key}}"
    said = [
        get(*alice.identity, *((line,) if number % 2 else ()), target=f"http://{evil}/", host=evil)
        for number in range(100)
    ]
    with alice.plain() as wire:
        wire.send(b"".join(said))
        answers = [wire.read() for _ in said]
    for number, answer in enumerate(answers):
        if number % 2:
            refused(answer, "domain_not_allowed", "plaintext_not_allowed")
        else:
            accepted(answer)
    assert [r for r in upstream.take() if b"secrets" in r.bytes or r.all("x")] == []


# --- TEN: values of many at once -----------------------------------------------------------------


def test_ten_03_two_hundred_tunnels_at_once_never_mix(
    alice: Client, bob: Client, net: Client, upstream: Upstream
) -> None:
    """All open at the same time, to one upstream; each is asked three times in an order of its own.

    Every request carries the value of its own client, and no answer shows any.
    """
    own = [(alice, "key.a"), (bob, "key.b"), (net, "key.net")]
    with ExitStack() as stack:
        wires = [(stack.enter_context(own[n % 3][0].tunnel()), own[n % 3][1]) for n in range(200)]

        def work(part: list[tuple[Wire, str]]) -> None:
            for turn in range(3):
                for wire, secret in part if turn % 2 else reversed(part):
                    line = "X: {{secrets." + secret + "}}"
                    accepted(send(wire, get(line, f"X-Mark: {secret}")))

        all_at_once([lambda at=at: work(wires[at::10]) for at in range(10)])  # type: ignore[misc]
    received = upstream.take()
    assert len(received) == 600
    assert [r for r in received if r.all("x") != [VALUES[r.all("x-mark")[0].decode()]]] == []


@needs_coatcheck
def test_ten_03_a_value_that_changes_under_load_is_one_or_the_other(
    start: Start, client_of: Callable[..., Client], upstream: Upstream, detector: Detector
) -> None:
    """Never a mixture, never a placeholder; old and new are both kept from the client."""
    proxy = start().wait_ready()
    alice = client_of(proxy, stage.ALICE, stage.ALICE_FROM)
    values = [KEY_A, *(VALUES[f"sp.{name}"] for name in ("prefix", "longer", "marker"))]
    ended = threading.Event()

    def work() -> None:
        with alice.tunnel() as wire:
            while not ended.is_set():
                accepted(send(wire, get(KEY)))

    def change() -> None:
        try:
            for value in values[1:]:
                with store_of(proxy.home) as store:
                    put(store, "key.a", value, ALLOWED)
                time.sleep(0.7)
        finally:
            ended.set()

    all_at_once([change, *[work] * 6])
    sent = [r.all("x")[0] for r in upstream.take()]
    assert set(sent) == set(values)
    order = [values.index(value) for value in sent]
    # They arrive by six connections, so neighbours may be out of turn, and no more than that.
    assert all(later >= earlier - 1 for earlier, later in pairwise(order))


@needs_coatcheck
def test_ten_06_the_others_tunnels_go_on(
    start: Start, client_of: Callable[..., Client], upstream: Upstream
) -> None:
    """A token revoked shuts its own client's open tunnels, used or not, and nobody else's."""
    proxy = start().wait_ready()
    alice = client_of(proxy, stage.ALICE, stage.ALICE_FROM)
    bob = client_of(proxy, stage.BOB, stage.BOB_FROM)
    with alice.tunnel() as used, alice.tunnel() as unused, bob.tunnel() as others:
        accepted(send(used, get(KEY)))
        text = proxy.policy.read_text()
        proxy.policy.write_text(text.replace(text.partition("sha256:")[2][:64], "0" * 64))
        until_refused(used, "proxy_auth_required")
        other_workers_follow()
        upstream.take()
        for wire in (used, unused):
            refused(send(wire, get(KEY)), "proxy_auth_required")
            refused(send(wire, get()), "proxy_auth_required")
        assert upstream.take() == []
        accepted(send(others, get("X: {{secrets.key.b}}")))
    assert upstream.one().all("x") == [KEY_B]


# --- the end in the middle -----------------------------------------------------------------------


def recorded(proxy: Coatcheck) -> list[str]:
    """Paths of the requests with a value that are on record."""
    return [
        record["path"]
        for record in proxy.audit()
        if record["decision"] == "allow" and record.get("secrets")
    ]


def keep_asking(alice: Client, upstream_ended: threading.Event, answers: list[Answer]) -> None:
    """Ask until the proxy is gone."""
    with contextlib.suppress(ConnectionError, ssl.SSLError, OSError), alice.tunnel() as wire:
        for number in range(100_000):
            if upstream_ended.is_set():
                return
            target = f"/echo/{threading.get_ident()}-{number}"
            answer = send(wire, get(KEY, target=target))
            if answer is None:
                return
            answers.append(answer)


def ended_under_load(
    proxy: Coatcheck, alice: Client, number: signal.Signals
) -> tuple[int, list[Answer]]:
    """Send the signal while eight tunnels are busy; the exit code, and what was answered."""
    answers: list[Answer] = []
    ended = threading.Event()

    def end() -> None:
        try:
            wait_until(lambda: len(answers) >= 24, 20)
            os.kill(proxy.pid, number)
            proxy.process.wait(20)
        finally:
            ended.set()

    all_at_once([end, *[lambda: keep_asking(alice, ended, answers)] * 8])
    return proxy.process.returncode, answers


def check_end(proxy: Coatcheck, answers: list[Answer], received: list[Received]) -> None:
    assert all(answer.status in (200, 502, 503) for answer in answers)
    assert [a for a in answers if KEY_A in a.raw] == []
    sent = [r.target.decode() for r in received if KEY_A in r.bytes]
    assert len(sent) >= 24
    assert set(sent) - set(recorded(proxy)) == set(), "sent, and not on record"


@needs_coatcheck
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGABRT", "SIGSEGV"])
def test_fail_06_own_07_an_end_under_load(
    name: str,
    start: Start,
    client_of: Callable[..., Client],
    upstream: Upstream,
    detector: Detector,
) -> None:
    """In order or not: what was sent is on record, answers are whole and clean, no core is left.

    The leak detector goes through log and home after the module.
    """
    proxy = start().wait_ready()
    alice = client_of(proxy, stage.ALICE, stage.ALICE_FROM)
    files = set(proxy.home.parent.iterdir())
    code, answers = ended_under_load(proxy, alice, signal.Signals[name])
    check_end(proxy, answers, upstream.take())
    assert code == (0 if name == "SIGTERM" else -signal.Signals[name])
    assert detector.find(proxy.log.read_bytes()) == []
    fresh = {path.name for path in set(proxy.home.parent.iterdir()) - files}
    assert {name for name in fresh if "core" in name} == set()
    assert [path for path in proxy.home.rglob("*core*") if path.is_file()] == []


@needs_coatcheck
def test_fail_06_reloads_under_load_let_nothing_slip(
    start: Start, client_of: Callable[..., Client], upstream: Upstream
) -> None:
    """SIGHUP over and over while the grant comes and goes: each request sees one policy."""
    proxy = start().wait_ready()
    alice = client_of(proxy, stage.ALICE, stage.ALICE_FROM)
    without = SMALL_POLICY.replace("[key.a, ", "[")
    assert without != SMALL_POLICY
    answers: list[Answer] = []
    ended = threading.Event()

    def change() -> None:
        try:
            for number in range(16):
                draft = proxy.policy.with_suffix(".draft")
                draft.write_text(SMALL_POLICY if number % 2 else without)
                draft.replace(proxy.policy)
                os.kill(proxy.pid, signal.SIGHUP)
                time.sleep(0.15)
        finally:
            ended.set()

    all_at_once([change, *[lambda: keep_asking(alice, ended, answers)] * 4])
    assert {answer.code for answer in answers} == {"", "secret_unavailable"}
    received = upstream.take()
    assert {tuple(r.all("x")) for r in received} == {(KEY_A,)}
    assert len(received) == sum(answer.status == 200 for answer in answers)
    accepted(ask(alice, get(KEY)))  # the last one has the grant


def test_ng3_root_reads_the_memory(
    coatcheck: Coatcheck, alice: Client, upstream: Upstream, scripts: Scripts
) -> None:
    """Not promised: who is root on the machine has every value that is in use."""
    if os.geteuid() != 0:
        pytest.skip("only root may look")
    accepted(ask(alice, get(KEY)))
    assert any(is_in_memory(KEY_A, pid) for pid in coatcheck.workers())


def is_in_memory(value: bytes, pid: int) -> bool:
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, mode = line.split()[:2]
            begin, end = (int(part, 16) for part in span.split("-"))
            if not mode.startswith("rw") or end - begin > 256 << 20:
                continue
            memory.seek(begin)
            with contextlib.suppress(OSError):
                if value in memory.read(end - begin):
                    return True
    return False
