"""The numbers of a real proxy: they add up with the audit log over all workers, do not go back when
one is killed, and show no byte of a value or of what a client has made up.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from coatcheck.observe import metrics
from tests.e2e.harness import (
    CLIENTS,
    RUNNER,
    Proxy,
    Shell,
    api_only,
    make_home,
    store_of,
    wait_until,
)
from tests.e2e.leaks import Detector
from tests.e2e.upstream import Upstream
from tests.e2e.wire import basic, request
from tests.e2e.world import World

VALUE = b"value-of-the-crm-0123456789-abcdef"
KEY = "Authorization: Bearer {{secrets.crm.apiKey}}"
MADE_UP = "made-up-by-a-client-6789"
POLICY = CLIENTS + 'grants: [{ secrets: ["crm.*"], clients: [runner] }]\n'
TOLD_S = 10.0  # a worker tells each second, and the machine may be busy

_numbers = count(1)
type Start = Callable[[int], Proxy]
type Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


@pytest.fixture(scope="module")
def start(
    world: World, folder: Path, upstream_ca: Path, every_upstream: Upstream
) -> Iterator[Start]:
    made: list[Proxy] = []

    def start(workers: int) -> Proxy:
        root = folder / f"metrics-{next(_numbers)}"
        home = make_home(root, {"crm.apiKey": api_only(VALUE)}, POLICY)
        made.append(Proxy(world, home, upstream_ca, "--workers", str(workers)))
        return made[-1].wait_ready()

    yield start
    for proxy in made:
        proxy.stop()


def body_of(proxy: Proxy) -> str:
    return metrics.exposition(proxy.home / "run")[0].decode()


def scraped(proxy: Proxy) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(body_of(proxy)):
        for sample in family.samples:
            key = tuple(sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[key] = sample.value
    return found


def total(found: Samples, name: str, **labels: str) -> float:
    """The sum over the series of *name* with these *labels*."""
    return sum(n for key, n in found.get(name, {}).items() if labels.items() <= dict(key).items())


def busy(proxy: Proxy, tunnels: int = 6) -> None:
    """Requests of every outcome, over connections that go to all the workers there are."""
    for _ in range(tunnels):
        with proxy.dial(RUNNER).tunnel() as wire:
            assert wire.get("/echo", KEY).status == 200
            assert wire.get("/status/200").status == 200
        with proxy.dial(RUNNER).tunnel() as wire:
            answer = wire.get(f"/{MADE_UP}", f"X-{MADE_UP}: {{{{secrets.{MADE_UP}}}}}")
            assert answer.code == "secret_unavailable"
    with proxy.dial(RUNNER).tunnel("other.example.test") as wire:
        answer = wire.get("/echo", KEY, host="other.example.test")
        assert answer.code == "domain_not_allowed"


def expected(proxy: Proxy) -> dict[str, Counter[str]]:
    """What the audit log says of requests, refusals, injections and scrubs."""
    lines = proxy.audit()
    requests = [line for line in lines if line["event"] == "request" and "let_go" not in line]
    return {
        "decision": Counter(line["decision"] for line in requests),
        "code": Counter(line["code"] for line in lines if line["decision"] == "refuse"),
        "secret": Counter(use["name"] for line in lines for use in line.get("secrets", ())),
        "spelling": Counter(
            {
                hit["spelling"]: sum(
                    other["count"]
                    for line in lines
                    for other in line.get("scrubbed", ())
                    if other["spelling"] == hit["spelling"]
                )
                for line in lines
                for hit in line.get("scrubbed", ())
            }
        ),
    }


NAMES = {
    "decision": "coatcheck_requests_total",
    "code": "coatcheck_refusals_total",
    "secret": "coatcheck_injections_total",
    "spelling": "coatcheck_scrubs_total",
}


def counted(found: Samples) -> dict[str, Counter[str]]:
    """The same, as the metrics say it."""
    sums: dict[str, Counter[str]] = {label: Counter() for label in NAMES}
    for label, name in NAMES.items():
        for key, number in found.get(name, {}).items():
            sums[label][dict(key)[label]] += int(number)
    return {label: +counter for label, counter in sums.items()}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_numbers_are_those_of_the_audit_log(workers: int, start: Start) -> None:
    proxy = start(workers)

    busy(proxy)

    said = expected(proxy)
    assert said["decision"].keys() == {"allow", "refuse"}
    assert said["spelling"]
    wait_until(lambda: counted(scraped(proxy)) == said, TOLD_S)
    found = scraped(proxy)
    assert total(found, "coatcheck_audit_lines_total") == len(proxy.audit())
    assert total(found, "coatcheck_audit_write_seconds_count") == len(proxy.audit())
    assert total(found, "coatcheck_requests_total", client="runner") == sum(
        said["decision"].values()
    )
    assert total(found, "coatcheck_upstream_requests_total") == said["decision"]["allow"]
    assert total(found, "coatcheck_added_seconds_count") == said["decision"]["allow"]
    assert total(found, "coatcheck_upstream_response_seconds_count") == said["decision"]["allow"]
    assert total(found, "coatcheck_client_tls_handshakes_total") == 13
    assert total(found, "coatcheck_worker_ready") == workers


def test_what_is_in_force_is_shown(start: Start) -> None:
    proxy = start(2)
    wait_until(lambda: total(scraped(proxy), "coatcheck_store_readable") == 2, TOLD_S)
    found = scraped(proxy)
    with store_of(proxy.home) as store:
        revision = store.revision()

    assert total(found, "coatcheck_up") == 1
    assert total(found, "coatcheck_policy_valid") == 2
    assert total(found, "coatcheck_store_revision", worker="1") == revision
    assert len({dict(key)["digest"] for key in found["coatcheck_policy_info"]}) == 1
    for name in ("policy_loaded", "store_read", "metrics"):
        for moment in found[f"coatcheck_{name}_timestamp_seconds"].values():
            assert abs(time.time() - moment) < 60
    processes = {"supervisor", "worker-1", "worker-2"}
    for name in ("resident_memory_bytes", "cpu_seconds_total", "start_time_seconds"):
        shown = {dict(key)["process"]: n for key, n in found[f"coatcheck_process_{name}"].items()}
        assert shown.keys() == processes
        assert all(number > 0 for number in shown.values())

    proxy.policy.write_text("version: 1\nnonsense\n")
    wait_until(lambda: total(scraped(proxy), "coatcheck_policy_valid") == 0, TOLD_S)
    assert len(scraped(proxy)["coatcheck_policy_info"]) == 2


def test_counts_do_not_go_back_when_a_worker_is_killed(start: Start) -> None:
    proxy = start(2)
    busy(proxy)
    wait_until(lambda: counted(scraped(proxy)) == expected(proxy), TOLD_S)
    before = counted(scraped(proxy))

    os.kill(proxy.workers()[0], signal.SIGKILL)
    wait_until(lambda: total(scraped(proxy), "coatcheck_worker_restarts_total") == 1, 30.0)
    assert counted(scraped(proxy)) == before
    wait_until(lambda: total(scraped(proxy), "coatcheck_worker_ready") == 2, 30.0)

    busy(proxy)
    wait_until(lambda: counted(scraped(proxy)) == expected(proxy), TOLD_S)
    assert all(counted(scraped(proxy))[label] > before[label] for label in NAMES)


def test_nothing_of_a_value_or_of_a_client_is_shown(start: Start, upstream: Upstream) -> None:
    proxy = start(2)
    busy(proxy, tunnels=2)
    token = VALUE.decode()
    method = MADE_UP.upper()
    for sent in (
        request("GET", f"/{token}?{token}", f"X-{token}: {token}"),
        request("GET", "/echo", f"Authorization: Bearer {{{{secrets.{token}}}}}"),
        request(method, "/echo"),
        request("GET", "/echo", host=f"{MADE_UP}.example.test"),
    ):
        with proxy.dial(RUNNER).tunnel() as wire:
            assert wire.ask(sent).status
    with proxy.dial(basic(MADE_UP, token)).plain() as wire:
        field = f"Proxy-Authorization: {basic(MADE_UP, token)}"
        assert wire.get("http://api.example.test/", field).status == 407

    lines = len(proxy.audit())
    wait_until(lambda: total(scraped(proxy), "coatcheck_audit_lines_total") == lines, TOLD_S)
    shown = body_of(proxy)
    file = (proxy.home / "run" / metrics.FILE_NAME).read_bytes()

    assert "crm.apiKey" in shown
    for text in (shown.encode(), file):
        assert not Detector(VALUE).find("metrics", text)
        for word in (MADE_UP, method, "example.test", "/echo"):
            assert word.encode() not in text


def test_status_shows_sums_and_a_stop_leaves_none(start: Start, shell: Shell) -> None:
    proxy = start(1)
    busy(proxy, tunnels=1)
    said = expected(proxy)

    def totals() -> dict[str, int]:
        done = shell.coatcheck("status", "--home", proxy.home, "--format", "json")
        found = json.loads(done.stdout)
        return {name: found[f"totals_{name}"] for name in ("requests", "refusals", "injections")}

    wait_until(
        lambda: (
            totals()
            == {
                "requests": sum(said["decision"].values()),
                "refusals": sum(said["code"].values()),
                "injections": sum(said["secret"].values()),
            }
        ),
        TOLD_S,
    )
    assert proxy.stop() == 0
    assert metrics.read(proxy.home / "run") is None
    assert total(scraped(proxy), "coatcheck_up") == 0
