"""What the lane hands over for traces: one record for each request, whatever becomes of it; and
with an exporter behind it, all the bytes that leave.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from coatcheck.core.problems import Code
from coatcheck.core.tracing import CUT_OFF, OK, Ended
from coatcheck.observe import traces
from tests.e2e.leaks import Detector
from tests.engine.wire import OK as ANSWER
from tests.engine.wire import VALUE, Wire, a_gateway, a_get, a_post
from tests.observe.collectors import Collector, attributes

KEY = b"X-Key: {{secrets.key}}"
PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Kept:
    """Takes records, and keeps them."""

    def __init__(self) -> None:
        self.records: list[Ended] = []

    def ended(self, request: Ended, /) -> None:
        self.records.append(request)


def traced(**more: Any) -> tuple[Wire, list[Ended]]:
    kept = Kept()
    return Wire(traces=kept, **more), kept.records


def only(records: list[Ended]) -> Ended:
    (one,) = records
    return one


# --- one for each request -------------------------------------------------------------------


def test_each_request_on_a_connection_has_its_own() -> None:
    wire, records = traced()
    for _ in range(3):
        wire.send(a_get(b"/", KEY))
        wire.answer(ANSWER)

    assert [(one.client, one.host, one.method) for one in records] == [
        ("local", "api.example.com", "GET")
    ] * 3
    assert [(one.outcome, one.status) for one in records] == [(OK, 200)] * 3


def test_it_is_told_when_the_answer_is_over_and_not_before() -> None:
    wire, records = traced()
    wire.send(a_get())
    wire.answer(b"HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\nab")
    assert records == []

    wire.answer(b"cd")
    assert only(records).status == 201


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        pytest.param(a_get(b"/", KEY, host=b"evil.example"), Code.DOMAIN_NOT_ALLOWED, id="domain"),
        pytest.param(a_get(b"/", b"X: {{secrets.none}}"), Code.SECRET_UNAVAILABLE, id="secret"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Code.BAD_REQUEST, id="no destination"),
        pytest.param(b"NONSENSE\r\n\r\n", Code.BAD_REQUEST, id="no request"),
        pytest.param(
            b"CONNECT a:443 HTTP/1.1\r\nHost: b\r\n\r\n", Code.DESTINATION_MISMATCH, id="CONNECT"
        ),
    ],
)
def test_a_refusal_is_told_with_its_code(request_: bytes, code: Code) -> None:
    wire, records = traced()
    assert b"Coatcheck-Error: " + str(code).encode() in wire.send(request_)

    assert only(records).outcome == code
    assert only(records).status >= 400
    assert (only(records).connect_s, only(records).upstream_s) == (None, None)


def test_who_is_not_known_has_no_name() -> None:
    policy = "version: 1\nclients: {a: {networks: ['10.9.9.9/32']}}\n"
    wire, records = traced(gateway=a_gateway(policy))
    wire.send(a_get())
    assert (only(records).client, only(records).outcome) == ("", Code.PROXY_AUTH_REQUIRED)


def test_an_upstream_that_cannot_be_reached_is_told() -> None:
    wire, records = traced(refuse_dial=Code.UPSTREAM_TLS_FAILED)
    wire.send(a_get())
    assert (only(records).outcome, only(records).status) == (Code.UPSTREAM_TLS_FAILED, 502)
    assert only(records).host == "api.example.com"


def test_an_answer_that_is_withheld_half_way_keeps_the_status_that_the_client_got() -> None:
    wire, records = traced()
    wire.send(a_get())
    wire.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    wire.answer(b"nonsense\r\n")
    assert (only(records).outcome, only(records).status) == (Code.RESPONSE_WITHHELD, 200)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"])
def test_a_client_that_leaves_cuts_it_off(answer: bytes) -> None:
    wire, records = traced()
    wire.send(a_get())
    if answer:
        wire.answer(answer)
    wire.leave()

    assert (only(records).outcome, only(records).status) == (CUT_OFF, 200 if answer else 0)


def test_a_connection_without_a_request_leaves_no_trace() -> None:
    wire, records = traced()
    wire.send(a_get()[:20])
    wire.leave()
    assert records == []


def test_a_tunnel_is_no_request_and_what_is_in_it_is() -> None:
    wire, records = traced()
    wire.send(b"CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n")
    wire.secure("api.example.com")
    assert records == []

    wire.send(b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
    wire.answer(ANSWER)
    assert (only(records).host, only(records).outcome) == ("api.example.com", OK)


def test_a_page_of_our_own_is_told() -> None:
    wire, records = traced()
    wire.send(a_get(b"/v1/secrets", host=b"coatcheck.internal"))
    assert (only(records).host, only(records).outcome) == ("coatcheck.internal", OK)


def test_of_a_websocket_the_handshake_is_told_once() -> None:
    wire, records = traced()
    wire.send(
        a_get(
            b"/",
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        )
    )
    wire.answer(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    assert only(records).status == 101
    wire.hang_up()
    assert len(records) == 1


# --- times ----------------------------------------------------------------------------------


def test_the_phases_are_those_of_the_metrics() -> None:
    wire, records = traced()
    wire.holding = True
    wire.send(a_get())
    wire.clock = 3.0
    wire.let_dial()
    wire.clock = 7.0
    wire.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
    wire.clock = 8.0
    wire.answer(b"ok")

    one = only(records)
    assert (one.connect_s, one.upstream_s, one.added_s, one.lasted_s) == (3.0, 4.0, 0.0, 8.0)
    assert wire.meter.upstream_response.sum == one.upstream_s


def test_what_waits_for_its_search_is_in_the_queue() -> None:
    wire, records = traced(gateway=a_gateway(secrets={f"key{i}": VALUE for i in range(9)}))
    unbuilt = wire.gateway.unbuilt

    def slow(*given: Any) -> Any:
        work = unbuilt(*given)

        def works() -> None:
            wire.clock += 2.0
            if work is not None:
                work()

        return None if work is None else works

    wire.gateway.unbuilt = slow  # type: ignore[method-assign]
    wire.send(a_get(b"/", b"X-Key: {{secrets.key1}}"))
    wire.answer(ANSWER)
    wire.send(a_get(b"/", b"X-Key: {{secrets.key1}}"))
    wire.answer(ANSWER)

    assert [one.queue_s for one in records] == [2.0, 0.0]


# --- the parent -----------------------------------------------------------------------------


def test_the_parent_is_taken_and_goes_on_as_it_came() -> None:
    wire, records = traced()
    wire.send(a_get(b"/", b"traceparent: " + PARENT, b"tracestate: a=b"))

    assert b"traceparent: " + PARENT in wire.received()
    wire.answer(ANSWER)
    assert only(records).parent == PARENT


def test_of_two_parents_none_is_one() -> None:
    wire, records = traced()
    wire.send(a_get(b"/", b"traceparent: " + PARENT, b"Traceparent: " + PARENT))
    wire.answer(ANSWER)
    assert only(records).parent == b""


# --- all the bytes that leave ---------------------------------------------------------------


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setattr(traces, "EVERY_S", 60.0)
    made = Collector()
    yield made
    made.close()


SECRETS = {
    "key": VALUE,
    "other": b"path-segment-0123456789",
    "hook": b"https://api.example.com/hook/T0000-SENTINEL-0123456789",
}
POLICY = """
version: 1
clients:
  local: {networks: ["127.0.0.1/32"]}
grants:
  - {secrets: [key, other], clients: [local], plaintext: true}
  - {secrets: [hook], clients: [local], in: [url], plaintext: true}
"""
LEAKY = b"HTTP/1.1 200 %b\r\nContent-Length: 24\r\nX: %b\r\n\r\n%b" % (VALUE, VALUE, VALUE)


def requests(key: bytes, other: bytes) -> Iterator[bytes]:
    """With *key* and *other* in each place that there is."""
    basic = b"Authorization: Basic " + b64encode(b"user:" + key)
    yield a_get(b"/" + other + b"?key=" + key, b"X-Key: " + key, basic)
    yield a_post(b'{"a": "%b", "b": "%b"}' % (key, other))
    yield a_get(b"/", b"traceparent: " + key)
    yield a_get(b"/", b"X-Key: " + key, host=VALUE.replace(b"_", b"-") + b".evil.example")
    yield a_get(b"/url/hook/" + key, host=b"coatcheck.internal")
    yield a_get(b"/url/hook/more", host=b"coatcheck.internal")
    yield VALUE + b" http://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n"
    yield key + b" nothing\r\n\r\n"


def test_no_byte_of_a_value_leaves_wherever_it_stands(collector: Collector) -> None:
    """As placeholders, and in the open, as a program sends that still has the real ones."""
    gateway = a_gateway(POLICY, secrets=SECRETS)
    spans = traces.Spans(
        traces.exporter(collector.url, None), gateway.opened_values, queue=100, clock=lambda: 0.0
    )
    asked = 0
    for key, other in (
        (b"{{secrets.key}}", b"{{secrets.other}}"),
        (VALUE, SECRETS["other"]),
        (b"{{secrets.hook}}", b"{{secrets.hook}}"),
    ):
        for request in requests(key, other):
            wire = Wire(gateway, traces=spans)
            wire.send(request)
            if wire.upstreams:
                wire.answer(LEAKY)
            wire.leave()
            asked += 1
    spans.close()

    told = [attributes(span) for span in collector.spans()]
    outcomes = {one["coatcheck.outcome"] for one in told}
    assert len(told) == asked
    assert {"ok", "domain_not_allowed", "bad_request"} <= outcomes
    assert ("coatcheck.internal", 200) in {
        (one["server.address"], one.get("http.response.status_code")) for one in told
    }
    assert {one["server.address"] for one in told} == {
        "api.example.com",
        "coatcheck.internal",
        "other",
        "unknown",
    }
    secrets = (VALUE, VALUE.replace(b"_", b"-"), SECRETS["other"], SECRETS["hook"][24:])
    assert Detector(*secrets).find("all", collector.everything()) == []


# --- off ------------------------------------------------------------------------------------


def test_off_nothing_is_kept_for_it() -> None:
    wire = Wire()
    wire.send(a_get())
    assert wire.lane._began_at is None
    wire.answer(ANSWER)
    assert wire.lane._began_at is None
