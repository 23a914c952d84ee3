"""What the audit log is told is counted once, under labels that are no text of a client."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from coatcheck.core import audit
from coatcheck.core.audit import Facts, Use
from coatcheck.core.destination import Destination
from coatcheck.core.meter import Meter
from coatcheck.core.ports import AuditError
from coatcheck.core.problems import Code, Problem
from coatcheck.core.redact import Hit
from coatcheck.gateway import Origin
from coatcheck.observe.counted import CountedLog
from tests.engine.wire import VALUE, Book, Wire, a_gateway, a_get

API = Destination("https", "api.example.com", 443)
FACTS = Facts("id", "runner", "127.0.0.1", API, "GET", "/")
USES = (Use("crm.key", 2, "header:authorization"), Use("crm.id", 1, "body:/a/b"))
MISMATCH = Problem(Code.SECRET_UNAVAILABLE, secret="{{what a client wrote}}")

type Counts = dict[str, dict[tuple[str, ...], float]]


def counts(meter: Meter) -> Counts:
    """All that was counted, but for what was not."""
    return {name: dict(tally.values) for name, tally in meter.tallies.items() if tally.values}


@pytest.mark.parametrize(
    ("record", "counted"),
    [
        pytest.param(
            audit.allowed(0.0, FACTS, ()),
            {"requests": {("runner", "GET", "allow"): 1}},
            id="let go",
        ),
        pytest.param(
            audit.allowed(0.0, FACTS, USES),
            {
                "requests": {("runner", "GET", "allow"): 1},
                "injections": {("crm.key", "header"): 1, ("crm.id", "body"): 1},
            },
            id="let go with values",
        ),
        pytest.param(
            audit.injected(0.0, FACTS, USES[1:]),
            {"injections": {("crm.id", "body"): 1}},
            id="values in a body under way are no second request",
        ),
        pytest.param(
            audit.refused(0.0, FACTS, MISMATCH),
            {
                "requests": {("runner", "GET", "refuse"): 1},
                "refusals": {("secret_unavailable", "request"): 1},
            },
            id="refused",
        ),
        pytest.param(
            audit.refused(0.0, FACTS, Problem(Code.RESPONSE_WITHHELD), let_go=True),
            {"refusals": {("response_withheld", "answer"): 1}},
            id="refused after it was let go is no second request",
        ),
        pytest.param(
            audit.reported(0.0, FACTS, Problem(Code.REQUEST_NOT_ALLOWED, secret="crm.key")),
            {"reports": {("runner", "request_not_allowed"): 1}},
            id="would be refused: neither a request nor a refusal",
        ),
        pytest.param(
            audit.scrubbed(
                0.0,
                FACTS,
                200,
                {
                    "head": audit.Counter({Hit("crm.key", "raw"): 1}),
                    "body": audit.Counter({Hit("crm.key", "raw"): 4, Hit("crm.id", "hex"): 2}),
                },
            ),
            {
                "scrubs": {
                    ("crm.key", "head", "raw"): 1,
                    ("crm.key", "body", "raw"): 4,
                    ("crm.id", "body", "hex"): 2,
                }
            },
            id="scrubbed",
        ),
        pytest.param(
            audit.refused(0.0, Facts("id", "", "127.0.0.1"), Problem(Code.PROXY_AUTH_REQUIRED)),
            {
                "requests": {("unknown", "unknown", "refuse"): 1},
                "refusals": {("proxy_auth_required", "request"): 1},
            },
            id="nobody known, nothing read",
        ),
        pytest.param(
            audit.allowed(0.0, Facts("id", "c", "127.0.0.1", API, "GETSECRET", "/"), ()),
            {"requests": {("c", "other", "allow"): 1}},
            id="a method of a client's own is none of ours",
        ),
        pytest.param(
            audit.injected(0.0, FACTS, [Use("k", 1, "nowhere:x")]),
            {"injections": {("k", "other"): 1}},
            id="a place that is not known",
        ),
    ],
)
def test_a_record_is_counted(record: Mapping[str, object], counted: Counts) -> None:
    book, meter = Book(), Meter(lambda: 0.0)

    CountedLog(book, meter).write(record)

    assert book.records == [record]
    assert counts(meter) == counted
    assert sum(meter.audit_write.counts) == 1


@pytest.mark.parametrize(
    ("record", "counted"),
    [
        pytest.param(
            audit.allowed(0.0, FACTS, USES), {}, id="what cannot be recorded does not happen"
        ),
        pytest.param(
            audit.refused(0.0, FACTS, MISMATCH),
            {
                "requests": {("runner", "GET", "refuse"): 1},
                "refusals": {("secret_unavailable", "request"): 1},
            },
            id="but for a refusal",
        ),
    ],
)
def test_a_log_that_fails_is_counted_and_still_fails(
    record: Mapping[str, object], counted: Counts
) -> None:
    book, meter = Book(), Meter(lambda: 0.0)
    book.broken = True

    with pytest.raises(AuditError):
        CountedLog(book, meter).write(record)

    assert counts(meter) == {"audit_errors": {(): 1}, **counted}
    assert sum(meter.audit_write.counts) == 0


def test_how_long_a_line_takes_is_measured() -> None:
    moments = iter([1.0, 1.5])
    meter = Meter(lambda: next(moments))

    CountedLog(Book(), meter).write(audit.allowed(0.0, FACTS, ()))

    assert meter.audit_write.sum == 0.5


# --- through the gateway: whether a refused request had left ---------------------------------


def closed(wire: Wire) -> None:
    wire.hang_up()


def fails_to_answer(wire: Wire) -> None:
    wire.answer(b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\n\r\nx")


@pytest.mark.parametrize(
    ("field", "then", "refusals"),
    [
        pytest.param(b"X: {{secrets.nobody}}", None, ("secret_unavailable", "request"), id="first"),
        pytest.param(b"X: {{secrets.key}}", closed, ("response_withheld", "answer"), id="closed"),
        pytest.param(
            b"X: {{secrets.key}}", fails_to_answer, ("response_withheld", "answer"), id="withheld"
        ),
    ],
)
def test_requests_and_refusals_add_up(
    field: bytes, then: Callable[[Wire], None] | None, refusals: tuple[str, str]
) -> None:
    gateway, meter = a_gateway(), Meter(lambda: 0.0)
    gateway.log = CountedLog(gateway.log, meter)
    wire = Wire(gateway)

    wire.send(a_get(b"/", field))
    if then is not None:
        then(wire)

    decision = "refuse" if then is None else "allow"
    assert meter.requests.values == {("local", "GET", decision): 1}
    assert meter.refusals.values == {refusals: 1}


def test_a_failed_log_turns_an_allowed_request_into_one_refused_request() -> None:
    gateway, meter, book = a_gateway(), Meter(lambda: 0.0), Book()
    gateway.log, book.broken = CountedLog(book, meter), True

    wire = Wire(gateway)
    wire.send(a_get(b"/", b"X: {{secrets.key}}"))

    assert wire.upstreams == []
    assert counts(meter) == {
        "requests": {("local", "GET", "refuse"): 1},
        "refusals": {("audit_unavailable", "request"): 1},
        "audit_errors": {(): 2},
    }


def test_no_label_holds_a_value() -> None:
    """Not even where the client sends the value itself, everywhere."""
    gateway, meter = a_gateway(), Meter(lambda: 0.0)
    gateway.log = CountedLog(gateway.log, meter)
    value = VALUE.decode()
    wire = Wire(gateway)

    for field in (
        b"X: {{secrets.key}}",
        b"X: {{secrets.%b}}" % VALUE,
        b"%b: {{secrets.key}}" % VALUE,
    ):
        wire.send(a_get(b"/" + VALUE, field))
        if wire.upstreams:
            wire.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(VALUE), VALUE))
    origin = Origin("local", "127.0.0.1")
    gateway.record_refusal(origin, Problem(Code.BAD_REQUEST, secret=value), "id", None)

    labels = [word for tally in meter.tallies.values() for key in tally.values for word in key]
    assert "key" in labels
    assert not [word for word in labels if value[4:12] in word]
    assert meter.scrubs.values
