"""The path of a request and of its response, without an engine: any chunking, any order of bytes.

The properties here are what an engine relies on: how a body is cut never shows, a message that
holds nothing of ours passes byte for byte, and no record means no value.
"""

from __future__ import annotations

import base64
import gzip
import time
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coatcheck.core import bodies
from coatcheck.core.destination import Destination, parse_domain_pattern
from coatcheck.core.limits import Limits
from coatcheck.core.message import Fields, RequestHead, ResponseHead
from coatcheck.core.placeholder import Grammar
from coatcheck.core.policy import Policy
from coatcheck.core.ports import StoreError
from coatcheck.core.problems import Code, Problem, Refused
from coatcheck.core.snapshot import Snapshot
from coatcheck.gateway import Body, BodyPlan, Exchange, Gateway, Origin
from coatcheck.store.memory import MemoryStore
from tests.engine.wire import VALUE, Book, a_gateway

API = Destination("https", "api.example.com", 443)
ELSEWHERE = Destination("https", "other.example.com", 443)
LOCAL = Origin("local", "127.0.0.1")
UNKNOWN_LENGTH = Body(True, None)


def begin(
    gateway: Gateway,
    fields: Fields = (),
    *,
    method: bytes = b"POST",
    target: bytes = b"/",
    destination: Destination = API,
    body: Body = UNKNOWN_LENGTH,
) -> Exchange:
    return gateway.begin(LOCAL, destination, RequestHead(method, target, fields), body)


def cut(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    chunks, at = [], 0
    for size in sizes:
        chunks.append(data[at : at + size])
        at += size
    return [*chunks, data[at:]]


def streamed(fields: Fields, chunks: Sequence[bytes], gateway: Gateway | None = None) -> bytes:
    """A request body through the streaming path."""
    exchange = begin(gateway or a_gateway(), fields)
    exchange.open()
    return b"".join(map(exchange.feed_request, chunks)) + exchange.finish_request()


def scrubbed(fields: Fields, chunks: Sequence[bytes], gateway: Gateway | None = None) -> bytes:
    """A response body through the scrubber."""
    exchange = begin(gateway or a_gateway(), body=Body())
    exchange.open()
    exchange.response(ResponseHead(200, b"OK", fields), has_body=True)
    return b"".join(map(exchange.feed_response, chunks)) + exchange.finish_response()


KINDS = [
    b"application/json",
    b"application/x-www-form-urlencoded",
    b"multipart/form-data; boundary=B",
    b"text/plain",
    b"application/xml",
    b"application/octet-stream",
]
PIECES = [
    b"{{secrets.key}}",
    b"%7B%7bsecrets.key%7D%7D",
    b"\\u007b\\u007bsecrets.key}}",
    b"__secrets.key__",
    b'{"a": ["',
    b'"], "b": 1}',
    b"--B\r\nContent-Disposition: form-data; name=x\r\n\r\n",
    b"\r\n--B--\r\n",
    b"a=1&b=",
    b"\xff\x00\xc3\xa9",
    b" plain text, nothing more ",
]
some_bodies = st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join)
sizes = st.lists(st.integers(0, 30), max_size=40)


@given(body=some_bodies, at=sizes, kind=st.sampled_from(KINDS))
@settings(max_examples=100, deadline=None)
def test_how_a_request_body_is_cut_never_shows(body: bytes, at: list[int], kind: bytes) -> None:
    fields = ((b"Content-Type", kind),)

    def outcome(chunks: Sequence[bytes]) -> bytes | str:
        try:
            return streamed(fields, chunks)
        except Refused as refused:
            return str(refused)

    assert outcome(cut(body, at)) == outcome([body])


@given(
    body=st.lists(st.sampled_from([*PIECES, VALUE, VALUE[:9], VALUE[5:]]), max_size=8).map(
        b"".join
    ),
    at=sizes,
    kind=st.sampled_from([b"text/plain", b"text/event-stream", b"image/png"]),
)
@settings(max_examples=100, deadline=None)
def test_how_a_response_body_is_cut_never_shows(body: bytes, at: list[int], kind: bytes) -> None:
    fields = ((b"Content-Type", kind),)

    whole = scrubbed(fields, [body])

    assert scrubbed(fields, cut(body, at)) == whole
    assert VALUE not in whole


@given(body=st.binary(max_size=300), at=sizes, kind=st.sampled_from(KINDS))
@settings(max_examples=100, deadline=None)
def test_a_message_without_placeholder_or_value_passes_byte_for_byte(
    body: bytes, at: list[int], kind: bytes
) -> None:
    assume(b"secret" not in body)  # Hypothesis tries constants of the code, openers among them
    fields = ((b"Content-Type", kind),)

    assert streamed(fields, cut(body, at)) == body
    assert scrubbed(fields, cut(body, at)) == body


def test_a_head_without_placeholders_keeps_its_bytes_and_order() -> None:
    fields = (
        (b"X-B", b"2"),
        (b"x-a", b"1"),
        (b"X-B", b" two  spaces"),
        (b"Cookie", b'a={%7B}; b="{{x}}"'),
        (b"X-Raw", b"\xff\xfe"),
    )
    target = b"/a%2Fb//c?z=1&a=%7b&a=+&empty&=&z=2"

    out = begin(a_gateway(), fields, target=target, destination=ELSEWHERE, body=Body()).open()

    assert out.head.target == target
    assert out.head.fields == ((b"Host", b"other.example.com"), *fields)


@pytest.mark.parametrize("coding", [b"gzip", b"GZIP", b"x-gzip"])
def test_a_coded_request_body_is_opened_filled_and_sent_as_identity(coding: bytes) -> None:
    fields = ((b"Content-Type", b"text/plain"), (b"Content-Encoding", coding))
    packed = gzip.compress(b"a {{secrets.key}} b")
    exchange = begin(a_gateway(), fields, body=Body(True, len(packed)))

    out = exchange.open()
    sent = b"".join(map(exchange.feed_request, cut(packed, [1, 5, 3]))) + exchange.finish_request()

    assert exchange.plan is BodyPlan.STREAM
    assert sent == b"a " + VALUE + b" b"
    assert out.length is None
    assert all(key != b"Content-Encoding" for key, _ in out.head.fields)


@pytest.mark.parametrize(
    ("packed", "coding", "code"),
    [
        pytest.param(b"{}", b"rot13", "body_not_decodable", id="unknown coding"),
        pytest.param(gzip.compress(b"{}" * 99)[:-9], b"gzip", "body_not_decodable", id="truncated"),
        pytest.param(gzip.compress(bytes(8 << 20)), b"gzip", "body_too_large", id="bomb"),
    ],
)
def test_a_coded_request_body_that_cannot_be_opened_is_refused(
    packed: bytes, coding: bytes, code: str
) -> None:
    fields = ((b"Content-Type", b"text/plain"), (b"Content-Encoding", coding))

    with pytest.raises(Refused) as refused:
        streamed(fields, [packed])

    assert str(refused.value) == code


def test_no_audit_record_no_value() -> None:
    """G6: the audit log fails, so nothing leaves."""
    gateway = a_gateway()
    exchange = begin(gateway, ((b"X-Key", b"{{secrets.key}}"),), body=Body())
    gateway.log.broken = True  # type: ignore[attr-defined]

    with pytest.raises(Refused) as refused:
        exchange.open()

    assert str(refused.value) == "audit_unavailable"


def test_a_value_in_a_streamed_body_is_recorded_before_its_bytes_come_out() -> None:
    gateway = a_gateway()
    exchange = begin(gateway, ((b"Content-Type", b"text/plain"),))
    exchange.open()
    gateway.log.broken = True  # type: ignore[attr-defined]

    with pytest.raises(Refused) as refused:
        exchange.feed_request(b"{{secrets.key}} and so on")

    assert str(refused.value) == "audit_unavailable"


def test_a_record_names_secret_version_and_place_and_no_value() -> None:
    gateway = a_gateway()
    fields = ((b"Authorization", b"Bearer {{secrets.key}}"), (b"Content-Type", b"text/plain"))

    begin(gateway, fields, target=b"/a?q=__secrets.key__").open(b"{{secrets.key}}")

    (record,) = records(gateway)
    places = [use["location"] for use in record["secrets"]]  # type: ignore[attr-defined]
    assert places == ["query:q", "header:authorization", "body"]
    assert record["path"] == "/a"
    assert VALUE.decode() not in str(record)


def test_a_value_that_the_client_writes_itself_is_not_recorded() -> None:
    gateway = a_gateway()
    target = b"/bot" + VALUE + b"/send?" + VALUE + b"={{secrets.key}}"

    begin(gateway, target=target, body=Body()).open()
    with pytest.raises(Refused):
        begin(gateway, ((b"X", b"{{secrets." + VALUE + b"}}"),), target=target, body=Body())

    assert [record["path"] for record in records(gateway)] == ["/bot********/send"] * 2
    assert VALUE.decode() not in str(records(gateway))


def test_a_basic_token_is_scrubbed_as_a_whole_where_the_value_inside_is_short() -> None:
    gateway = a_gateway(secrets={"key": b"pin7"})
    plain, filled = (
        b"Basic " + base64.b64encode(b"user:" + x) for x in (b"{{secrets.key}}", b"pin7")
    )
    exchange = begin(gateway, ((b"Authorization", plain),), body=Body())
    assert (b"Authorization", filled) in exchange.open().head.fields

    echo = ResponseHead(200, b"OK", ((b"X-Echo", filled),))

    assert exchange.response(echo, has_body=False).head.fields == ((b"X-Echo", b"Basic ********"),)


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(bytes, id="as it was sent"),
        pytest.param(base64.b64encode, id="base64 once more"),
        pytest.param(lambda token: token.hex().encode(), id="hex"),
        pytest.param(lambda token: token.decode().encode("utf-16-le"), id="UTF-16"),
        pytest.param(lambda token: b"".join(b"%%%02X" % byte for byte in token), id="percent"),
    ],
)
def test_a_basic_token_is_found_in_every_spelling(write: Callable[[bytes], bytes]) -> None:
    """What an upstream was sent as a whole it may also show as a whole."""
    inside = base64.b64encode(b"some user:{{secrets.key}}")
    token = base64.b64encode(b"some user:" + VALUE)
    carries = base64.b64encode(VALUE[3:-3])[4:-4]  # what must be gone, whatever surrounds it
    exchange = begin(a_gateway(), ((b"Authorization", b"Basic " + inside),), body=Body())
    exchange.open()
    exchange.response(ResponseHead(200, b"OK", ()), has_body=True)

    got = exchange.feed_response(b"<" + write(token) + b">") + exchange.finish_response()

    assert write(carries) not in got
    assert b"*" in got


def test_elsewhere_nothing_is_scrubbed() -> None:
    """A masked guess on a host of the client's own would tell it that the guess was right."""
    exchange = begin(a_gateway(), destination=ELSEWHERE, body=Body())
    exchange.open()
    exchange.response(ResponseHead(200, b"OK", ()), has_body=True)

    assert exchange.feed_response(VALUE) == VALUE


def test_where_a_secret_is_in_scope_it_is_scrubbed_without_a_placeholder() -> None:
    """An API that stores a value can return it in the answer to any later request."""
    assert VALUE not in scrubbed((), [b"stored: " + VALUE])


def a_roaming_gateway(value: bytes = VALUE) -> Gateway:
    """As `a_gateway`, but the secret may go anywhere (``*``)."""
    gateway, store = a_gateway(), MemoryStore()
    anywhere = [parse_domain_pattern("*")]
    store.put("key", value, domains=anywhere, description="", now=1.0)
    gateway.install(Snapshot(gateway.snapshot.policy, store.view()))
    return gateway


def test_a_secret_for_any_host_is_scrubbed_where_this_request_injects_it() -> None:
    for target, shown in ((b"/", VALUE), (b"/?k=__secrets.key__", b"********")):
        exchange = begin(a_roaming_gateway(), target=target, body=Body())
        exchange.open()
        exchange.response(ResponseHead(200, b"OK", ()), has_body=True)

        assert exchange.feed_response(VALUE) + exchange.finish_response() == shown


def test_a_secret_for_any_host_is_not_put_into_an_upload_whose_answer_has_begun() -> None:
    """The answer is searched for what had been injected when it began; it could echo the rest."""
    fields = ((b"Content-Type", b"text/plain"),)
    padding = b" " * 999  # so that nothing of the chunk is held back
    first, second = (begin(a_roaming_gateway(), fields) for _ in range(2))
    for exchange in (first, second):
        exchange.open()
    assert VALUE in first.feed_request(b"{{secrets.key}}" + padding)
    for exchange in (first, second):
        exchange.response(ResponseHead(200, b"OK", ()), has_body=True)

    assert VALUE in first.feed_request(b"{{secrets.key}}" + padding), "it is searched for already"
    with pytest.raises(Refused) as refused:
        second.feed_request(b"{{secrets.key}}" + padding)
    assert str(refused.value) == "response_withheld"


def test_a_roaming_value_that_no_answer_could_be_searched_for_is_not_sent() -> None:
    exchange = begin(a_roaming_gateway(b"x" * (2 << 20)), ((b"Content-Type", b"text/plain"),))
    exchange.open()

    with pytest.raises(Refused) as refused:
        exchange.feed_request(b"{{secrets.key}}" + b" " * 999)

    assert str(refused.value) == "response_withheld"


SEARCHED = ((b"Accept-Encoding", b"identity"),)
ASKED = ((b"Accept-Encoding", b"gzip"), (b"Range", b"bytes=0-1"), (b"If-Range", b"x"))
ASKED += ((b"A-IM", b"range"),)


@pytest.mark.parametrize(
    ("gateway", "destination", "key", "sent"),
    [
        pytest.param(a_gateway(), API, b"", SEARCHED, id="a secret is bound to the host"),
        pytest.param(a_gateway(), ELSEWHERE, b"", ASKED, id="none is"),
        pytest.param(
            a_roaming_gateway(), ELSEWHERE, b"{{secrets.key}}", SEARCHED, id="one is injected"
        ),
        pytest.param(a_roaming_gateway(), ELSEWHERE, b"", ASKED, id="one could have been"),
    ],
)
def test_no_codings_and_no_slices_are_asked_for_where_the_answer_is_searched(
    gateway: Gateway, destination: Destination, key: bytes, sent: Fields
) -> None:
    fields = ((b"X-Key", key), *ASKED)

    out = begin(gateway, fields, destination=destination, body=Body()).open()

    assert out.head.fields[2:] == sent, "behind Host and X-Key"


def test_framing_and_routing_fields_are_the_engines_to_write() -> None:
    fields = (
        (b"Host", b"spelled.OTHERWISE"),
        (b"content-length", b"3"),
        (b"Expect", b"100-continue"),
        (b"Connection", b"keep-alive"),
        (b"X", b"1"),
    )

    out = begin(a_gateway(), fields, destination=ELSEWHERE).open()

    assert out.head.fields == ((b"Host", b"other.example.com"), (b"X", b"1"))


@pytest.mark.parametrize("destination", [API, ELSEWHERE])
def test_fields_of_the_upstreams_connection_stay_there(destination: Destination) -> None:
    exchange = begin(a_gateway(), destination=destination, body=Body())
    exchange.open()
    fields = (
        (b"Connection", b"X-Private"),
        (b"X-Private", b"1"),
        (b"Keep-Alive", b"timeout=5"),
        (b"Proxy-Authenticate", b"Basic"),
        (b"Upgrade", b"h2c"),
        (b"Alt-Svc", b'h3=":443"'),
        (b"Content-Length", b"4"),
        (b"X-Public", b"1"),
    )

    incoming = exchange.response(ResponseHead(200, b"OK", fields), has_body=True, length=4)

    assert incoming.head.fields == ((b"X-Public", b"1"),)
    assert incoming.length == (4 if destination is ELSEWHERE else None), "scrubbing changes it"


def test_the_length_that_head_announces_is_told() -> None:
    exchange = begin(a_gateway(), method=b"HEAD", body=Body())
    exchange.open()

    assert exchange.response(ResponseHead(200, b"OK", ()), has_body=False, length=7).length == 7


def test_every_request_has_an_id_of_its_own() -> None:
    gateway = a_gateway()
    first, second = begin(gateway, body=Body()), begin(gateway, body=Body())
    first.open()
    second.open()

    assert first.request_id != second.request_id
    assert [r["request_id"] for r in records(gateway)] == [first.request_id, second.request_id]


def test_a_value_that_the_client_writes_itself_is_not_recorded_even_in_part() -> None:
    most = Limits().audit_field_chars
    for at in range(most - len(VALUE) - 1, most + 1):
        gateway = a_gateway()
        begin(gateway, target=b"/" * (at > 0) + b"a" * (at - 1) + VALUE, body=Body()).open()

        assert VALUE[:8].decode() not in str(records(gateway))


def test_a_text_in_a_record_is_as_long_as_the_limit() -> None:
    gateway = a_gateway(limits=Limits(audit_field_chars=64))

    begin(gateway, target=b"/" + b"a" * 99, body=Body()).open()
    gateway.record_refusal(LOCAL, Problem(Code.BAD_REQUEST, operator="o" * 99), "request-0", None)

    allowed, refused = records(gateway)
    assert allowed["path"] == "/" + "a" * 63 + "…"
    assert refused["operator"] == "o" * 64 + "…"


def test_a_refusal_is_recorded_once() -> None:
    gateway = a_gateway()
    exchange = begin(gateway, ((b"Content-Type", b"text/plain"),))
    exchange.open()
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            exchange.feed_request(b"{{secrets.nope}}" + b" " * 999)
        exchange.record_refusal(refused.value.problem)

    assert [record["decision"] for record in records(gateway)] == ["allow", "refuse"]
    assert refused.value.request_id == exchange.request_id


@pytest.mark.parametrize(
    ("kind", "coding", "length", "plan"),
    [
        pytest.param(b"text/plain", b"", 100, BodyPlan.COLLECT, id="at the limit"),
        pytest.param(b"text/plain", b"", 101, BodyPlan.STREAM, id="over the limit"),
        pytest.param(b"text/plain", b"", None, BodyPlan.COLLECT, id="unknown: as far as it fits"),
        pytest.param(b"text/plain", b"gzip", 1, BodyPlan.STREAM, id="coded: never, it may grow"),
        pytest.param(b"text/plain", b"identity", 100, BodyPlan.COLLECT, id="identity is no coding"),
        pytest.param(b"image/png", b"", 1, BodyPlan.PASS, id="of a kind that holds none"),
    ],
)
def test_what_is_read_whole(kind: bytes, coding: bytes, length: int | None, plan: BodyPlan) -> None:
    gateway = a_gateway(limits=Limits(body_buffer_bytes=100))
    fields = ((b"Content-Type", kind), (b"Content-Encoding", coding))

    assert begin(gateway, fields, body=Body(True, length)).plan is plan


def test_a_coded_body_is_bounded_by_what_it_decodes_to() -> None:
    fields = ((b"Content-Type", b"text/plain"), (b"Content-Encoding", b"gzip"))
    at, over = gzip.compress(b"x" * 1024), gzip.compress(b"x" * 1025)

    def gateway() -> Gateway:
        return a_gateway(limits=Limits(decoded_body_bytes=1024))

    assert streamed(fields, [at], gateway()) == b"x" * 1024
    with pytest.raises(Refused) as refused:
        streamed(fields, [over], gateway())
    assert str(refused.value) == "body_too_large"


def test_a_coded_body_is_opened_only_where_something_could_be_put_in() -> None:
    fields = ((b"Content-Type", b"text/plain"), (b"Content-Encoding", b"gzip"))
    packed = gzip.compress(b"{{secrets.key}}")

    assert streamed(fields, [packed], a_roaming_gateway()) == VALUE
    elsewhere = begin(a_gateway(), fields, destination=ELSEWHERE)
    assert elsewhere.plan is BodyPlan.PASS
    assert (b"Content-Encoding", b"gzip") in elsewhere.open().head.fields
    assert elsewhere.feed_request(packed) == packed


def test_what_was_taken_out_of_an_answer_is_recorded_without_a_value() -> None:
    gateway = a_gateway()
    scrubbed((), [b"a %b b %b" % (VALUE, VALUE)], gateway)

    record = records(gateway)[-1]
    assert (record["decision"], record.get("status")) == ("scrub", 200)
    assert record["scrubbed"] == [
        {"name": "key", "spelling": "raw", "channel": "body", "count": 2},
    ]
    assert VALUE.decode() not in str(record)
    scrubbed((), [b"nothing"], gateway)
    assert records(gateway)[-1]["decision"] == "allow", "nothing found, nothing recorded"


def test_uses_are_noted_for_the_store_once() -> None:
    gateway = a_gateway()
    for _ in range(3):
        begin(gateway, ((b"X", b"{{secrets.key}}"),), body=Body()).open()

    assert [used.count for used in gateway.drain_uses().values()] == [3]
    assert gateway.drain_uses() == {}


@pytest.mark.parametrize(
    ("age_s", "replaced", "known"),
    [
        pytest.param(0, False, True, id="it is in force"),
        pytest.param(1000, False, True, id="it is in force, and was not used for long"),
        pytest.param(10, True, True, id="it was replaced within grace"),
        pytest.param(1000, True, False, id="it was replaced before that"),
    ],
)
def test_the_log_is_kept_clean_of_values_that_were_injected(
    age_s: float, replaced: bool, known: bool
) -> None:
    gateway, now = a_gateway(limits=Limits(retired_grace_s=60)), time.time()
    begin(gateway, ((b"X", b"{{secrets.key}}"),), body=Body()).open()
    store = MemoryStore()
    here = [parse_domain_pattern("api.example.com")]
    for value in (VALUE, b"another value"):
        store.put("key", value, domains=here, description="", now=1.0)
        if not replaced:
            break

    gateway.now = lambda: now + age_s
    gateway.install(Snapshot(gateway.snapshot.policy, store.view()))

    assert [value.reveal() for value in gateway.opened_values()] == ([VALUE] if known else [])


@pytest.mark.parametrize("error", [StoreError("hush", hint="hush"), ValueError("hush")])
def test_what_went_wrong_inside_is_for_the_operator(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(*_: object) -> None:
        raise error

    monkeypatch.setattr(Snapshot, "needles", raising)

    with pytest.raises(Refused) as refused:
        begin(a_gateway(), body=Body()).open()

    assert b"hush" not in refused.value.problem.body("id")


def test_a_request_sees_one_policy_and_the_next_one_the_next() -> None:
    gateway = a_gateway()
    fields = ((b"X", b"{{secrets.key}}"), (b"Content-Type", b"text/plain"))
    old = begin(gateway, fields)
    gateway.install(Snapshot(Policy(), gateway.snapshot.view))

    assert VALUE in old.open(b"{{secrets.key}}").body
    with pytest.raises(Refused) as refused:
        begin(gateway, fields)
    assert str(refused.value) == "secret_unavailable"


def test_connection_cannot_hide_how_an_answer_is_coded() -> None:
    """A field that Connection lists is dropped; this one says how to read the answer first."""
    coded = ((b"Connection", b"content-encoding"), (b"Content-Encoding", b"gzip"))

    assert scrubbed(coded, [gzip.compress(b"it is " + VALUE)]) == b"it is ********"


def test_text_hosts_keep_what_may_not_be_filled_and_fill_the_rest() -> None:
    policy = """
version: 1
clients: {local: {networks: ["127.0.0.1/32"]}}
grants: [{secrets: [key], clients: [local], in: ["header:authorization"]}]
placeholders: {text_hosts: [api.example.com]}
"""
    fields = ((b"Authorization", b"{{secrets.key}}"), (b"Content-Type", b"text/plain"))
    chat = b"the user wrote {{secrets.key}}, {{secrets.nope}} and {{secrets."
    exchange = begin(a_gateway(policy), fields, body=Body(True, len(chat)))

    out = exchange.open(chat)

    assert (b"Authorization", VALUE) in out.head.fields
    assert out.body == chat


@pytest.mark.parametrize(
    ("count", "code"),
    [pytest.param(4, None, id="at max_uses"), pytest.param(5, "too_many_placeholders", id="over")],
)
def test_max_uses_counts_head_and_body_together(count: int, code: str | None) -> None:
    fields = ((b"X-A", b"{{secrets.key}}"), (b"Content-Type", b"text/plain"))
    body = b"{{secrets.key}}" * (count - 1)
    exchange = begin(a_gateway(), fields, body=Body(True, len(body)))

    if code is None:
        assert exchange.open(body).body == VALUE * (count - 1)
        return
    with pytest.raises(Refused) as refused:
        exchange.open(body)
    assert str(refused.value) == code


def test_what_all_values_expand_to_is_bounded() -> None:
    gateway = a_gateway(limits=Limits(expanded_bytes=len(VALUE)))
    fields = ((b"X-A", b"{{secrets.key}}"), (b"X-B", b"{{secrets.key}}"))

    with pytest.raises(Refused) as refused:
        begin(gateway, fields, body=Body())

    assert str(refused.value) == "too_many_placeholders"


def test_a_value_that_no_answer_could_be_searched_for_is_not_sent() -> None:
    gateway = a_gateway(secrets={"key": b"x" * (2 << 20)})

    with pytest.raises(Refused) as refused:
        begin(gateway, ((b"Content-Type", b"text/plain"),)).open(b"{{secrets.key}}")

    assert str(refused.value) == "response_withheld"


def test_a_value_is_never_read_again_for_placeholders() -> None:
    gateway = a_gateway(secrets={"key": b"{{secrets.other}}", "other": b"the other value"})

    out = begin(gateway, ((b"X-A", b"{{secrets.key}}"),), body=Body()).open()

    assert (b"X-A", b"{{secrets.other}}") in out.head.fields


def records(gateway: Gateway) -> list[Mapping[str, object]]:
    log = gateway.log
    return log.records if isinstance(log, Book) else []


def test_a_body_is_read_no_further_than_to_what_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[int] = []
    original = bodies.rewriter

    def counting(fields: Fields, grammar: Grammar) -> bodies.BodyRewriter | None:
        made = original(fields, grammar)
        assert made is not None
        feed = made.feed
        made.feed = lambda chunk: (read.append(len(chunk)), feed(chunk))[1]  # type: ignore[method-assign]
        return made

    monkeypatch.setattr(bodies, "rewriter", counting)
    body = b"{{secrets." * 100_000
    exchange = begin(a_gateway(), ((b"Content-Type", b"text/plain"),), body=Body(True, len(body)))

    with pytest.raises(Refused):
        exchange.open(body)

    assert sum(read) < len(body) / 4
