"""Spans as a collector gets them: what they say, that they are bounded, and the ways out that
there are not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coatcheck.core.ports import CoatcheckError
from coatcheck.core.secret import SecretValue
from coatcheck.core.tracing import CUT_OFF, OK, Ended
from coatcheck.observe import logs, traces
from tests.engine.wire import a_gateway
from tests.observe.collectors import Collector, attributes, until

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GATEWAY = a_gateway()
ONE = Ended(
    snapshot=GATEWAY.snapshot,
    client="local",
    host="api.example.com",
    method="GET",
    outcome=OK,
    status=200,
    parent=b"",
    began=10.0,
    lasted_s=0.5,
    queue_s=0.0,
    connect_s=0.125,
    upstream_s=0.25,
    added_s=0.001,
)
HEX_KEY = b"5e3a9c04b1d24f6788c0a1b2c3d4e5f6"


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "EVERY_S", 0.02)
    monkeypatch.setattr(traces, "TIMEOUT_S", 0.5)


def spans_to(url: str, *, queue: int = 100, opened: tuple[SecretValue, ...] = ()) -> traces.Spans:
    return traces.Spans(traces.exporter(url, None), lambda: opened, queue=queue, clock=lambda: 12.0)


def exported(collector: Collector, *ended: Ended, opened: tuple[SecretValue, ...] = ()) -> Any:
    """The spans of *ended*."""
    spans = spans_to(collector.url, opened=opened)
    for one in ended:
        spans.ended(one)
    spans.close()
    return collector.spans()


def test_a_span_says_who_where_what_and_how_long(collector: Collector) -> None:
    (span,) = exported(collector, ONE)

    assert attributes(span) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "server.address": "api.example.com",
        "coatcheck.client.name": "local",
        "coatcheck.outcome": "ok",
        "coatcheck.queue_seconds": 0.0,
        "coatcheck.connect_seconds": 0.125,
        "coatcheck.upstream_seconds": 0.25,
        "coatcheck.added_seconds": 0.001,
    }
    assert span.name == "GET"
    assert span.end_time_unix_nano - span.start_time_unix_nano == pytest.approx(5e8, abs=1000)
    assert span.start_time_unix_nano / 1e9 == pytest.approx(time.time() - 2.0, abs=5.0)
    assert collector.paths == ["/v1/traces"]


def test_a_refusal_is_an_error_with_its_code(collector: Collector) -> None:
    refused = replace(
        ONE, outcome="domain_not_allowed", status=403, connect_s=None, upstream_s=None, added_s=None
    )
    (span,) = exported(collector, refused)

    told = attributes(span)
    assert (told["coatcheck.outcome"], told["error.type"]) == ("domain_not_allowed",) * 2
    assert span.status.code == 2
    assert not {name for name in told if "upstream" in name or "connect" in name or "added" in name}


@pytest.mark.parametrize(
    ("change", "name", "expected"),
    [
        pytest.param({"method": "GET-SECRET"}, "http.request.method", "other", id="a method"),
        pytest.param({"method": ""}, "http.request.method", "unknown", id="no method"),
        pytest.param({"host": "x.evil.example"}, "server.address", "other", id="a host"),
        pytest.param({"host": ""}, "server.address", "unknown", id="no host"),
        pytest.param({"client": ""}, "coatcheck.client.name", "unknown", id="nobody"),
    ],
)
def test_what_is_not_configured_is_a_word(
    collector: Collector, change: dict[str, Any], name: str, expected: str
) -> None:
    (span,) = exported(collector, replace(ONE, **change))
    assert attributes(span)[name] == expected


def test_where_nothing_was_answered_there_is_no_status(collector: Collector) -> None:
    (span,) = exported(collector, replace(ONE, outcome=CUT_OFF, status=0))
    assert "http.response.status_code" not in attributes(span)


# --- the parent -----------------------------------------------------------------------------


def test_the_span_of_the_client_is_the_parent(collector: Collector) -> None:
    (span,) = exported(collector, replace(ONE, parent=f"00-{TRACE}-{SPAN}-01".encode()))
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)
    assert span.span_id.hex() not in (SPAN, "0" * 16)


@pytest.mark.parametrize("parent", [b"", b"00-nonsense", b"{{secrets.key}}"])
def test_without_a_parent_a_trace_begins(collector: Collector, parent: bytes) -> None:
    one, two = exported(collector, *[replace(ONE, parent=parent)] * 2)
    assert one.parent_span_id == two.parent_span_id == b""
    assert len({one.trace_id, two.trace_id}) == 2


def test_a_trace_that_is_not_recorded_is_not_exported(collector: Collector) -> None:
    spans = exported(
        collector, replace(ONE, parent=f"00-{TRACE}-{SPAN}-00".encode()), replace(ONE, status=201)
    )
    assert [attributes(span)["http.response.status_code"] for span in spans] == [201]


def test_a_value_that_poses_as_a_trace_does_not_leave(collector: Collector) -> None:
    parent = b"00-" + HEX_KEY + b"-00f067aa0ba902b7-01"
    (span,) = exported(collector, replace(ONE, parent=parent))
    assert span.trace_id.hex() == HEX_KEY.decode()  # nobody's value

    collector.bodies.clear()
    value = SecretValue("key", 1, HEX_KEY)
    (span,) = exported(collector, replace(ONE, parent=parent), opened=(value,))
    assert bytes.fromhex(HEX_KEY.decode()) not in collector.everything()
    assert span.parent_span_id == b""


def test_a_name_that_holds_a_value_is_a_word(collector: Collector) -> None:
    value = SecretValue("key", 1, b"sk-live-0123456789")
    (span,) = exported(collector, replace(ONE, client="sk-live-0123456789"), opened=(value,))
    assert attributes(span)["coatcheck.client.name"] == "other"
    assert b"sk-live" not in collector.everything()


# --- outside of the path of requests --------------------------------------------------------


def test_what_finds_the_queue_full_is_dropped_and_counted(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "EVERY_S", 60.0)
    spans = spans_to(collector.url, queue=3)
    for _ in range(10):
        spans.ended(ONE)
    spans.close()

    assert spans.counts() == {("exported",): 3, ("failed",): 0, ("dropped",): 7}
    assert len(collector.spans()) == 3


def test_more_than_one_batch_goes_out(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "BATCH", 10)
    monkeypatch.setattr(traces, "EVERY_S", 60.0)
    spans = spans_to(collector.url)
    for _ in range(35):
        spans.ended(ONE)
    spans.close()

    assert len(collector.spans()) == 35
    assert len(collector.bodies) == 4


@pytest.mark.parametrize("status", [400, 503, 0], ids=["refuses", "is down", "hangs"])
def test_a_collector_that_fails_holds_nobody_up(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    events: list[str] = []
    monkeypatch.setattr(logs, "event", lambda name, /, **_: events.append(name))
    collector.status = status
    spans = spans_to(collector.url)
    began = time.perf_counter()
    for _ in range(50):
        spans.ended(ONE)
    assert time.perf_counter() - began < 0.25  # no wait for anybody; in truth 50 µs

    until(lambda: spans.counts()["failed",] == 50)
    assert events == ["traces.not_exported"]

    collector.status = 200
    spans.ended(ONE)
    until(lambda: spans.counts()["exported",] == 1)
    spans.close()


def test_a_bug_in_the_library_ends_nothing(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = spans_to(collector.url)
    good, spans._exporter.export = spans._exporter.export, None  # type: ignore[assignment, method-assign]
    spans.ended(ONE)
    until(lambda: spans.counts()["failed",] == 1)

    spans._exporter.export = good  # type: ignore[method-assign]
    spans.ended(ONE)
    until(lambda: spans.counts()["exported",] == 1)
    spans.close()


# --- ways out -------------------------------------------------------------------------------


def test_no_proxy_of_the_environment_is_used(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert len(exported(collector, ONE)) == 1


def test_no_redirect_is_followed(collector: Collector) -> None:
    other = Collector()
    collector.status, collector.location = 307, other.url
    try:
        exported(collector, ONE)
        assert (len(collector.bodies) > 0, other.bodies) == (True, [])
    finally:
        other.close()


def test_nothing_of_the_environment_or_the_machine_is_told(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "a=SENTINEL")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "SENTINEL")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    exported(collector, ONE)
    assert b"coatcheck" in collector.everything()
    assert b"SENTINEL" not in collector.everything()


def test_a_credential_for_the_collector_comes_by_its_variable(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=of-the-collector")
    exported(collector, ONE)
    assert {name.lower(): value for name, value in collector.heads[0].items()}["x-api-key"] == (
        "of-the-collector"
    )


def test_without_the_library_the_next_step_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.http", None)
    with pytest.raises(CoatcheckError, match=r"pip install 'coatcheck\[otel\]'"):
        traces.exporter("http://127.0.0.1:9/v1/traces", Path("/no/ca.pem"))
