"""Several workers on one port are one proxy: what is changed is changed in all, what is sent is on
record, whoever is killed is replaced, and nobody outlives the supervisor.

Which worker has answered stands in its audit line, so tests ask until they have met every one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from coatcheck.observe import auditverify, state
from coatcheck.store import auditkey
from coatcheck.store.home import Home
from tests.docs import pages
from tests.docs.session import agrees
from tests.e2e.harness import (
    CLIENTS,
    IN_FORCE_S,
    RUNNER,
    Proxy,
    Shell,
    api_only,
    audit_of,
    is_refused,
    make_home,
    put,
    store_of,
    wait_until,
)
from tests.e2e.upstream import Upstream
from tests.e2e.wire import Answer, Wire, request
from tests.e2e.world import World

WORKERS = 2
FIRST = b"first-value-0123456789"
SECOND = b"second-value-9876543210"
KEY = "Authorization: Bearer {{secrets.crm.apiKey}}"
POLICY = CLIENTS + 'grants: [{ secrets: ["crm.*"], clients: [runner] }]\n'
WITHOUT = CLIENTS + "grants: []\n"
SLACK_S = 1.0  # this machine may be busy; the limit itself is IN_FORCE_S
END_S = 10.0

_numbers = count(1)
type Start = Callable[..., Proxy]


@pytest.fixture(scope="module")
def start(
    world: World, folder: Path, upstream_ca: Path, every_upstream: Upstream
) -> Iterator[Start]:
    """A proxy in a home of its own; *workers* of it."""
    made: list[Proxy] = []

    def start(workers: int = WORKERS) -> Proxy:
        root = folder / f"workers-{next(_numbers)}"
        home = make_home(root, {"crm.apiKey": api_only(FIRST)}, POLICY)
        made.append(Proxy(world, home, upstream_ca, "--workers", str(workers)))
        return made[-1].wait_ready()

    yield start
    for proxy in made:
        proxy.stop()


@pytest.fixture(scope="module")
def shared(start: Start) -> Proxy:
    return start()


@pytest.fixture
def crew(shared: Proxy) -> Proxy:
    """The proxy of most tests, with all its workers, and with policy and secret as at first."""
    shared.policy.write_text(POLICY)
    with store_of(shared.home) as store:
        put(store, "crm.apiKey", FIRST, "api.example.test")
    wait_until(lambda: all(one["ready"] for one in workers(shared)), END_S)
    wait_until(shared.agrees, END_S)
    return shared


def workers(proxy: Proxy) -> list[dict[str, Any]]:
    found = state.workers_of(state.read(proxy.home / "run") or {})
    assert len(found) == WORKERS
    return found


def worker_of(proxy: Proxy, target: str) -> int:
    """Whose request it was."""
    (number,) = {r["worker"] for r in proxy.audit() if r.get("path") == target}
    return int(number)


def asked(wire: Wire) -> tuple[str, Answer]:
    target = f"/echo/{next(_numbers)}"
    return target, wire.get(target, KEY)


def one_for_each(proxy: Proxy, stack: ExitStack) -> dict[int, Wire]:
    """A tunnel to each worker. What it sent has been answered."""
    found: dict[int, Wire] = {}
    for _ in range(200):
        wire = stack.enter_context(proxy.dial(RUNNER).tunnel())
        target, answer = asked(wire)
        assert answer.status == 200
        found.setdefault(worker_of(proxy, target), wire)
        if len(found) == WORKERS:
            return found
    raise AssertionError("a worker takes no connections")


def events(proxy: Proxy, name: str) -> list[dict[str, Any]]:
    lines = map(json.loads, proxy.log.read_bytes().splitlines())
    return [line for line in lines if line["event"] == name]


def is_alive(pid: int) -> bool:
    """Not a zombie either: nobody may have asked yet how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- one proxy -----------------------------------------------------------------------------------


def test_they_share_the_connections(crew: Proxy) -> None:
    targets = []
    with ExitStack() as stack:
        for _ in range(40):
            target, answer = asked(stack.enter_context(crew.dial(RUNNER).tunnel()))
            assert answer.status == 200
            targets.append(target)

    taken = [worker_of(crew, target) for target in targets]

    assert {number: taken.count(number) >= 15 for number in (1, 2)} == {1: True, 2: True}, taken


def test_it_is_ready_when_all_of_them_are(crew: Proxy, shell: Shell) -> None:
    (ready,) = events(crew, "serve.ready")
    started = events(crew, "worker.started")[:WORKERS]
    done = shell.coatcheck("status", "--home", crew.home, "--format", "json")
    said = json.loads(done.stdout)

    assert ready["workers"] == WORKERS
    assert {event["worker"] for event in started} == {1, 2}
    assert all(event["time"] <= ready["time"] for event in started)
    assert done.returncode == 0
    assert said["pid"] == crew.process.pid
    assert [one["number"] for one in said["workers"]] == [1, 2]
    assert len({one["pid"] for one in said["workers"]} | {said["pid"]}) == 3
    assert {one["policy"]["digest"] for one in said["workers"]} == {said["policy_digest"]}


def test_the_page_on_workers_is_right(crew: Proxy, shell: Shell) -> None:
    """`crew` is what the page's first command starts."""
    here = f"{Path(__file__).relative_to(pages.ROOT)}::test_the_page_on_workers_is_right"
    (block,) = [
        block for page in pages.PAGES for block in pages.blocks(page) if block.about == here
    ]
    serve, status = pages.commands(block)
    assert serve.text == f"coatcheck serve --workers {WORKERS}"
    assert status.text == "coatcheck status"

    done = shell.coatcheck("status", "--home", crew.home)

    assert done.returncode == 0
    assert agrees(done.stdout.decode().splitlines(), status.output or [])


def test_a_policy_is_in_force_in_each_within_a_second(crew: Proxy, upstream: Upstream) -> None:
    with ExitStack() as stack:
        wires = one_for_each(crew, stack)
        upstream.take()
        crew.policy.write_text(WITHOUT)
        begun = time.monotonic()
        for wire in wires.values():
            left = IN_FORCE_S + SLACK_S - (time.monotonic() - begun)
            wait_until(lambda wire=wire: asked(wire)[1].code == "secret_unavailable", left)  # type: ignore[misc]
        upstream.take()
        for wire in wires.values():
            assert asked(wire)[1].code == "secret_unavailable"
    assert upstream.take() == []


def test_a_new_value_is_in_force_in_each_within_a_second(crew: Proxy, upstream: Upstream) -> None:
    def sends_the_new_one(wire: Wire) -> bool:
        upstream.take()
        _, answer = asked(wire)
        assert FIRST not in answer.raw
        assert SECOND not in answer.raw
        return upstream.one().all("authorization") == [b"Bearer " + SECOND]

    with ExitStack() as stack:
        wires = one_for_each(crew, stack)
        with store_of(crew.home) as store:
            put(store, "crm.apiKey", SECOND, "api.example.test")
        begun = time.monotonic()
        for wire in wires.values():
            left = IN_FORCE_S + SLACK_S - (time.monotonic() - begun)
            wait_until(lambda wire=wire: sends_the_new_one(wire), left)  # type: ignore[misc]
        assert all(sends_the_new_one(wire) for wire in wires.values())


def test_a_reload_reaches_each_and_closes_no_connection(crew: Proxy) -> None:
    audit = crew.home / "audit"
    with ExitStack() as stack:
        wires = one_for_each(crew, stack)
        loaded = len(events(crew, "policy.loaded"))
        for file in list(audit.glob("audit*.jsonl")):
            file.rename(file.with_name(f"{file.name}.1"))

        crew.reload()

        wait_until(lambda: len(events(crew, "policy.loaded")) == loaded + WORKERS, END_S)
        wait_until(lambda: len(list(audit.glob("audit*.jsonl"))) == WORKERS, END_S)
        for number, wire in wires.items():
            target, answer = asked(wire)
            assert answer.status == 200
            assert worker_of(crew, target) == number
    assert {event["worker"] for event in events(crew, "policy.loaded")[loaded:]} == {1, 2}


def test_a_client_that_resumes_at_another_worker_has_a_full_handshake(crew: Proxy) -> None:
    """Each worker has ticket keys of its own; a ticket that it cannot read is no error."""
    dial = crew.dial(RUNNER)
    context = ssl.create_default_context(cafile=dial.ca)

    def visit(session: ssl.SSLSession | None) -> tuple[int, bool, ssl.SSLSession | None]:
        with dial.plain() as outside:
            said = dial.connect_request("api.example.test")
            assert outside.ask(said, is_head=True).status == 200
            tls = context.wrap_socket(
                outside.sock, server_hostname="api.example.test", session=session
            )
            with contextlib.closing(tls):
                target, answer = asked(Wire(tls))
                assert answer.status == 200
                return worker_of(crew, target), bool(tls.session_reused), tls.session

    first, _, session = visit(None)
    seen: dict[bool, set[bool]] = {True: set(), False: set()}  # at the same worker: resumed
    for _ in range(200):
        # Only the session of the first worker is offered, whoever takes the connection.
        number, resumed, _ = visit(session)
        seen[number == first].add(resumed)
        if all(seen.values()):
            break

    assert seen == {True: {True}, False: {False}}


# --- killed --------------------------------------------------------------------------------------


def test_a_killed_worker_is_replaced_under_load_and_nothing_is_lost(
    crew: Proxy, upstream: Upstream
) -> None:
    """Each request is answered or its connection closed; what was sent is on record."""
    answers: list[Answer] = []
    closed: list[str] = []
    ended = threading.Event()

    def ask_on() -> None:
        while not ended.is_set():
            try:
                with crew.dial(RUNNER).tunnel() as wire:
                    for _ in range(20):
                        answers.append(asked(wire)[1])
            except (ConnectionError, ssl.SSLError, OSError) as error:
                if isinstance(error, TimeoutError):
                    raise
                closed.append(type(error).__name__)

    before = {one["number"]: one for one in workers(crew)}
    threads = [threading.Thread(target=ask_on) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        for number in (1, 2):
            mark = len(answers) + 30
            wait_until(lambda mark=mark: len(answers) >= mark, END_S)  # type: ignore[misc]
            os.kill(before[number]["pid"], signal.SIGKILL)
            wait_until(lambda number=number: is_replaced(crew, before[number]), 2 * END_S)  # type: ignore[misc]
    finally:
        ended.set()
        for thread in threads:
            thread.join(30)
    assert not any(thread.is_alive() for thread in threads), "a request without an end"

    assert {answer.status for answer in answers} == {200}
    assert [answer for answer in answers if FIRST in answer.raw] == []
    assert 1 <= len(closed) <= 40, "those of the killed ones"
    sent = {received.target.decode() for received in upstream.take()}
    assert sent - {str(record.get("path")) for record in audit_of(crew.home)} == set()
    deaths = events(crew, "worker.died")[-2:]
    assert [(death["worker"], death["cause"]) for death in deaths] == [
        (1, "SIGKILL"),
        (2, "SIGKILL"),
    ]
    with ExitStack() as stack:
        assert one_for_each(crew, stack).keys() == {1, 2}


def is_replaced(proxy: Proxy, before: dict[str, Any]) -> bool:
    now = workers(proxy)[before["number"] - 1]
    return bool(now["ready"] and now["pid"] != before["pid"] and now["restarts"] > 0)


def test_the_numbers_of_audit_lines_go_on_behind_a_killed_worker(crew: Proxy) -> None:
    """No number twice and none left out, over all processes that wrote the file."""
    for number, name in ((1, "audit.jsonl"), (2, "audit-2.jsonl")):
        lines = (crew.home / "audit" / name).read_bytes().split(b"\n")[:-1]
        records = [json.loads(line) for line in lines]
        first = records[0]["sequence"]
        assert {record["worker"] for record in records} == {number}
        assert [r["sequence"] for r in records] == list(range(first, first + len(records)))
    home = Home(crew.home)
    key = auditkey.verifying(home.audit_public)
    logs = auditverify.verify_folder(home.audit, home.audit_heads, key)
    assert {found.log for found in logs} >= {"audit", "audit-2"}
    assert [found.findings for found in logs if found.findings] == []


def test_connections_that_wait_at_a_killed_worker_go_to_another(crew: Proxy) -> None:
    """The queue is the socket's, not a worker's."""
    one, other = crew.workers()
    number = {state["pid"]: state["number"] for state in workers(crew)}[other]
    dial = crew.dial(RUNNER)
    target = f"http://api.example.test/echo/{next(_numbers)}"
    lines = (f"Proxy-Authorization: {RUNNER}",)
    for pid in (one, other):
        os.kill(pid, signal.SIGSTOP)
    with ExitStack() as stack:
        stack.callback(os.kill, other, signal.SIGCONT)
        wires = [stack.enter_context(dial.plain()) for _ in range(20)]
        for wire in wires:
            wire.send(request("GET", target, *lines))

        os.kill(one, signal.SIGKILL)
        os.kill(other, signal.SIGCONT)

        assert [wire.read().status for wire in wires] == [200] * 20
    records = [r for r in crew.audit() if r.get("path") == "/" + target.split("/", 3)[3]]
    assert len(records) == 20
    assert number in {record["worker"] for record in records}


def test_a_worker_that_cannot_come_back_leaves_the_work_to_the_others(
    crew: Proxy, shell: Shell
) -> None:
    """Its error is told, its restarts are spaced out, and it comes once its cause is mended."""
    wait_until(lambda: all(one["ready"] for one in workers(crew)), END_S)
    told = len(events(crew, "worker.died"))
    victim = workers(crew)[1]
    key = crew.home / "sealing.key"
    key.chmod(0o644)
    try:
        os.kill(victim["pid"], signal.SIGKILL)
        wait_until(lambda: len(events(crew, "worker.died")) >= told + 2, 2 * END_S)
        deaths = events(crew, "worker.died")[told:]
        for _ in range(5):
            with crew.dial(RUNNER).tunnel() as wire:
                assert asked(wire)[1].status == 200
        done = shell.coatcheck("status", "--home", crew.home, "--format", "json")
    finally:
        key.chmod(0o600)

    assert deaths[0]["cause"] == "SIGKILL"
    assert deaths[1]["cause"] == "exit code 1"
    assert "chmod 600" in deaths[1]["error"]
    assert done.returncode == 0, "it takes requests"
    assert json.loads(done.stdout)["workers"][1]["ready"] is False
    wait_until(lambda: bool(workers(crew)[1]["ready"]), 3 * END_S)


def test_while_no_worker_can_come_back_connections_are_closed(crew: Proxy, shell: Shell) -> None:
    """The port is still there; clients must not wait at it for what may never come."""
    ca = crew.home / "ca" / "mitmproxy-ca.pem"
    ca.chmod(0o640)
    try:
        for pid in crew.workers():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: bool(events(crew, "serve.no_worker")), 2 * END_S)
        for _ in range(3):
            with crew.dial(RUNNER).plain() as wire:
                wire.sock.settimeout(END_S)
                assert wire.is_closed()
        done = shell.coatcheck("status", "--home", crew.home)
    finally:
        ca.chmod(0o600)

    assert done.returncode == 1
    assert b"accepting:       no" in done.stdout
    wait_until(lambda: all(one["ready"] for one in workers(crew)), 4 * END_S)
    with ExitStack() as stack:
        assert one_for_each(crew, stack).keys() == {1, 2}, "and now they are served"


# --- the end -------------------------------------------------------------------------------------


def gated(wires: Sequence[Wire], upstream: Upstream) -> str:
    """Each of *wires* has sent a request that the upstream will answer when it is told."""
    name = f"end-{next(_numbers)}"
    upstream.take()
    for wire in wires:
        wire.send(request("GET", f"/gated/{name}", KEY))
    wait_until(lambda: len(upstream.received) == len(wires), END_S)
    return name


def test_sigterm_lets_the_requests_of_each_worker_end(
    start: Start, world: World, upstream: Upstream
) -> None:
    proxy = start()
    pids = proxy.processes()
    with ExitStack() as stack:
        wires = list(one_for_each(proxy, stack).values())
        idle = list(one_for_each(proxy, stack).values())
        name = gated(wires, upstream)

        os.kill(proxy.process.pid, signal.SIGTERM)

        assert all(wire.is_closed() for wire in idle)
        with pytest.raises(OSError, match="refused"):
            world.connect("127.0.0.1", proxy.port)
        for _ in wires:
            upstream.gate(name).release()
        assert [wire.read().status for wire in wires] == [200] * WORKERS
    assert proxy.process.wait(END_S) == 0
    assert [pid for pid in pids if is_alive(pid)] == []
    assert not (proxy.home / "run" / "state.json").exists()
    assert events(proxy, "serve.stopped")
    assert events(proxy, "worker.died") == []


@pytest.mark.parametrize("number", [1, WORKERS])
def test_a_second_signal_ends_it_at_once(number: int, start: Start, upstream: Upstream) -> None:
    """Whatever is under way. With one process too."""
    proxy = start(number)
    pids = proxy.processes()
    assert len(pids) == (1 if number == 1 else 1 + number)
    with proxy.dial(RUNNER).tunnel() as wire:
        gated([wire], upstream)
        os.kill(proxy.process.pid, signal.SIGTERM)
        wait_until(lambda: bool(events(proxy, "serve.stopping")), END_S)
        wire.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            wire.read()
        begun = time.monotonic()

        os.kill(proxy.process.pid, signal.SIGINT)

        wire.sock.settimeout(END_S)
        assert wire.is_closed()
        assert proxy.process.wait(END_S) == 0
        assert time.monotonic() - begun < 5, "or it was the patience of the first signal"
    assert [pid for pid in pids if is_alive(pid)] == []


def test_a_worker_that_is_told_to_end_does_so_in_order_and_is_replaced(crew: Proxy) -> None:
    """As when a service manager, or an operator, sends the signal to it."""
    victim = workers(crew)[0]
    with ExitStack() as stack:
        wires = one_for_each(crew, stack)

        os.kill(victim["pid"], signal.SIGTERM)
        os.kill(victim["pid"], signal.SIGTERM)

        wait_until(lambda: is_replaced(crew, victim), 2 * END_S)
        assert wires[1].is_closed()
        assert asked(wires[2])[1].status == 200
    assert events(crew, "worker.died")[-1]["cause"] == "exit code 0"


def test_no_worker_outlives_its_supervisor(start: Start, world: World) -> None:
    """Not even one that is stopped, or busy: the kernel sees to it."""
    proxy = start()
    pids = proxy.workers()
    assert all(is_alive(pid) for pid in pids)
    os.kill(pids[0], signal.SIGSTOP)

    os.kill(proxy.process.pid, signal.SIGKILL)

    assert proxy.process.wait(END_S) == -signal.SIGKILL
    wait_until(lambda: not any(is_alive(pid) for pid in pids), 2)
    wait_until(lambda: is_refused(world, "127.0.0.1", proxy.port), END_S)
    world.listen("127.0.0.1", proxy.port).close()


def test_a_signal_during_the_start_leaves_nothing_behind(
    world: World, folder: Path, upstream_ca: Path
) -> None:
    home = make_home(folder / "cut-short", {}, POLICY)
    proxy = Proxy(world, home, upstream_ca, "--workers", str(WORKERS))
    try:
        wait_until(lambda: len(children(proxy.process.pid)) == WORKERS, END_S)
        pids = children(proxy.process.pid)

        os.kill(proxy.process.pid, signal.SIGTERM)

        assert proxy.process.wait(END_S) == 0
        wait_until(lambda: not any(is_alive(pid) for pid in pids), 2)
        assert events(proxy, "serve.ready") == []
        with pytest.raises(OSError, match="refused"):
            world.connect("127.0.0.1", proxy.port)
    finally:
        proxy.stop()


def children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
