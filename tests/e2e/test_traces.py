"""Traces of a real proxy with two workers: a span for each request, past the proxy itself, and no
byte of a value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import CLIENTS, RUNNER, Proxy, api_only, make_home, wait_until
from tests.e2e.leaks import Detector
from tests.e2e.test_metrics import scraped, total
from tests.e2e.upstream import Upstream
from tests.e2e.world import World
from tests.observe.collectors import Collector, attributes

VALUE = b"value-of-the-crm-0123456789-abcdef"
POLICY = CLIENTS + 'grants: [{ secrets: ["crm.*"], clients: [runner] }]\n'
SETTINGS = "traces_endpoint: http://127.0.0.1:4318\n"
PLACEHOLDER = "__secrets.crm.apiKey__"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"traceparent: 00-{TRACE}-00f067aa0ba902b7-01"
COUNTED = "coatcheck_trace_spans_total"
TOLD_S = 10.0


@pytest.fixture
def collector(world: World) -> Iterator[Collector]:
    made = Collector(listener=world.listen("127.0.0.1", 4318))
    yield made
    made.close()


def test_each_request_has_a_span_and_none_a_value(
    world: World, tmp_path: Path, upstream_ca: Path, every_upstream: Upstream, collector: Collector
) -> None:
    home = make_home(tmp_path / "home", {"crm.apiKey": api_only(VALUE)}, POLICY, SETTINGS)
    # What it is told to use as a proxy does not exist: the collector is asked without.
    away = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    proxy = Proxy(world, home, upstream_ca, "--workers", "2", **away).wait_ready()
    try:
        for _ in range(4):
            with proxy.dial(RUNNER).tunnel() as wire:
                path = f"/echo/{PLACEHOLDER}?key={PLACEHOLDER}"
                assert wire.get(path, f"X-Key: {PLACEHOLDER}", PARENT).status == 200
                assert wire.get("/echo", f"X-Key: {VALUE.decode()}").status == 200
        with proxy.dial(RUNNER).tunnel("other.example.test") as wire:
            refused = wire.get("/", f"X-Key: {PLACEHOLDER}", host="other.example.test")
            assert refused.code == "domain_not_allowed"
        wait_until(lambda: len(collector.spans()) == 9, TOLD_S)
        wait_until(lambda: total(scraped(proxy), COUNTED, result="exported") == 9, TOLD_S)
    finally:
        proxy.stop()

    told = [attributes(span) for span in collector.spans()]
    assert Counter(
        (one["coatcheck.client.name"], one["server.address"], one["coatcheck.outcome"])
        for one in told
    ) == {
        ("runner", "api.example.test", "ok"): 8,
        ("runner", "other", "domain_not_allowed"): 1,
    }
    assert sum(span.trace_id.hex() == TRACE for span in collector.spans()) == 4
    assert all(one["coatcheck.upstream_seconds"] > 0 for one in told if "error.type" not in one)
    assert Detector(VALUE).find("spans", collector.everything()) == []
