"""Which upstream connections a lane leaves to the client's next connection, and who takes one over.

What happens to them meanwhile is `test_pool`'s.
"""

from __future__ import annotations

import pytest

from coatcheck import policyfile
from coatcheck.core.destination import Destination, parse_domain_pattern
from coatcheck.core.identity import token_digest
from coatcheck.core.limits import Limits
from coatcheck.core.snapshot import Snapshot
from coatcheck.engine.pool import Purpose
from coatcheck.gateway import Gateway
from coatcheck.store.memory import MemoryStore
from tests.engine.wire import OK, POLICY, VALUE, Wire, a_gateway, a_get, a_post

KEY = b"Authorization: Bearer {{secrets.key}}"
ABSENT = b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n"
HANDSHAKE = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def a_head(*fields: bytes) -> bytes:
    lines = [b"HEAD http://api.example.com/ HTTP/1.1", b"Host: api.example.com", *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def answered(*fields: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, *fields, b"Content-Length: 2"]
    return b"\r\n".join(lines) + b"\r\n\r\nok"


def rests(wire: Wire) -> bool:
    """Whether the upstream connection is left, once the client has gone."""
    upstream = wire.upstream
    wire.leave()
    left = upstream in wire.resting.values()
    assert left is not upstream.closed, "it is left or closed, one of the two"
    return left


# --- what is left ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        pytest.param(a_get(), OK, id="an answer with its length"),
        pytest.param(
            a_get(),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            id="an answer in chunks",
        ),
        pytest.param(a_get(), ABSENT % b"404 Not Found", id="an answer of no bytes"),
        pytest.param(a_get(b"/", KEY), OK, id="a request with a value put into it"),
        pytest.param(a_get(b"/", b"Authorization: Basic YTpi"), OK, id="Basic"),
        pytest.param(a_get(b"/", b"Content-Length: 0"), OK, id="a body of no bytes"),
        pytest.param(a_post(b""), OK, id="a POST without a body"),
        pytest.param(
            a_get(), b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK, id="an answer with an interim one"
        ),
        pytest.param(
            a_get(b"/", b"Connection: close"), OK, id="a client that closes: that is its own side"
        ),
    ],
)
def test_a_connection_is_left_after(request_: bytes, answer: bytes) -> None:
    wire = Wire()
    wire.send(request_)
    wire.answer(answer)

    assert rests(wire)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        pytest.param(a_post(b"{}"), OK, id="a request with a body"),
        pytest.param(
            a_post(b"2\r\n{}\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"), OK, id="one in chunks"
        ),
        pytest.param(a_get(b"/", b"Content-Length: 2") + b"{}", OK, id="a GET with a body"),
        pytest.param(a_get(b"/", *HANDSHAKE), OK, id="a WebSocket that was not opened"),
        pytest.param(a_get(b"/", b"Authorization: Negotiate YII"), OK, id="Negotiate"),
        pytest.param(a_get(b"/", b"Authorization: ntlm TlRM"), OK, id="NTLM"),
        pytest.param(a_get(b"/", b"Authorization: {{secrets.ntlm}}"), OK, id="NTLM as a value"),
        pytest.param(a_get(), answered(status=b"401 Unauthorized"), id="401"),
        pytest.param(a_get(), answered(status=b"407 Proxy Authentication Required"), id="407"),
        pytest.param(a_get(), answered(b"WWW-Authenticate: Negotiate oYG"), id="a challenge, 200"),
        pytest.param(a_head(), answered()[:-2], id="an answer to HEAD: some servers send a body"),
        pytest.param(a_get(), ABSENT % b"304 Not Modified", id="304: some servers send a body"),
        pytest.param(a_get(), ABSENT % b"204 No Content", id="204: some servers send a body"),
        pytest.param(a_get(), answered(b"Connection: close"), id="an upstream that closes"),
        pytest.param(a_get(), OK.replace(b"1.1", b"1.0"), id="HTTP/1.0"),
        pytest.param(a_get(), OK + b"H", id="a byte behind the answer"),
        pytest.param(a_get(), OK[:-1], id="an answer that is not over"),
        pytest.param(a_get(), b"", id="no answer yet"),
        pytest.param(a_get(), OK.replace(b"2\r", b"x\r"), id="a broken answer"),
    ],
)
def test_a_connection_is_closed_after(request_: bytes, answer: bytes) -> None:
    wire = Wire(a_gateway(secrets={"key": VALUE, "ntlm": b"NTLM TlRMTVNTUAAB"}))
    wire.send(request_)
    if answer:
        wire.answer(answer)

    assert not rests(wire)


@pytest.mark.parametrize(
    "first",
    [
        pytest.param((a_post(b"{}"), OK), id="a body"),
        pytest.param((a_get(b"/", b"Authorization: NTLM x"), OK), id="an authentication"),
        pytest.param((a_get(), answered(status=b"401 Unauthorized")), id="a challenge"),
        pytest.param((a_head(), answered()[:-2]), id="an answer that did not tell its end"),
    ],
)
def test_what_forbids_it_forbids_it_for_ever(first: tuple[bytes, bytes]) -> None:
    wire = Wire()
    for request, answer in (first, (a_get(), OK)):
        wire.send(request)
        wire.answer(answer)
    assert len(wire.upstreams) == 1, "this connection may use it again"

    assert not rests(wire)


def test_a_byte_that_belongs_to_no_request_ends_it() -> None:
    wire = Wire()
    wire.send(a_get())
    wire.answer(OK)
    wire.answer(b"H")

    assert not rests(wire)


@pytest.mark.parametrize(
    ("domain", "left"),
    [
        pytest.param("api.example.com:80", True, id="every answer is searched for its value"),
        pytest.param("*", False, id="only answers to requests that carried it are"),
    ],
)
def test_a_late_answer_would_be_searched_for_what_was_sent(domain: str, left: bool) -> None:
    store = MemoryStore()
    store.put("key", VALUE, domains=[parse_domain_pattern(domain)], description="", now=1.0)
    gateway = a_gateway()
    gateway.install(Snapshot(policyfile.parse(POLICY, "policy.yaml"), store.view()))
    wire = Wire(gateway)
    wire.send(a_get(b"/", KEY))
    assert VALUE in wire.received()
    wire.answer(OK)

    assert rests(wire) is left


def test_a_refusal_before_anything_is_sent_does_not_cost_the_connection() -> None:
    wire = Wire()
    wire.send(a_get())
    wire.answer(OK)

    assert b"secret_unavailable" in wire.send(a_get(b"/", b"X: {{secrets.nobody}}"))

    assert rests(wire)


# --- for whom --------------------------------------------------------------------------------

TWO = f"""
version: 1
clients:
  one: {{token: "sha256:{token_digest(b"ctk_one")}"}}
  other: {{token: "sha256:{token_digest(b"ctk_other")}"}}
grants:
  - {{secrets: ["*"], clients: [one, other], plaintext: true}}
"""
CHANGED = POLICY + "\n# a word more\n"
ONE, OTHER = b"Proxy-Authorization: Bearer ctk_one", b"Proxy-Authorization: Bearer ctk_other"


def put_in_force(gateway: Gateway, policy: str) -> None:
    snapshot = gateway.snapshot
    gateway.install(Snapshot(policyfile.parse(policy, "policy.yaml"), snapshot.view, snapshot))


def test_it_is_left_for_the_same_client_address_destination_and_policy() -> None:
    wire = Wire()
    wire.send(a_get())
    wire.answer(OK)
    wire.leave()

    digest = wire.gateway.snapshot.policy.digest
    destination = Destination("http", "api.example.com", 80)
    assert digest
    assert list(wire.resting) == [Purpose("local", "127.0.0.1", destination, digest)]


@pytest.mark.parametrize(
    ("fields", "same"),
    [
        pytest.param((ONE, ONE), True, id="one client"),
        pytest.param((ONE, OTHER), False, id="another client on the same connection"),
    ],
)
def test_a_connection_serves_one_client(fields: tuple[bytes, bytes], same: bool) -> None:
    """Also while its client connection lasts: plain requests bring a credential each."""
    wire = Wire(a_gateway(TWO))
    for field in fields:
        wire.send(a_get(b"/", field))
        assert wire.answer(OK).startswith(b"HTTP/1.1 200 ")

    assert len(wire.upstreams) == (1 if same else 2)
    wire.leave()
    assert {purpose.client for purpose in wire.resting} == ({"one"} if same else {"one", "other"})


@pytest.mark.parametrize("changed", [False, True], ids=["the same", "another"])
def test_a_connection_is_used_under_its_policy_alone(changed: bool) -> None:
    """Its address was vetted under that one, whose networks may have been taken away."""
    wire = Wire()
    wire.send(a_get())
    wire.answer(OK)
    put_in_force(wire.gateway, CHANGED if changed else POLICY)

    wire.send(a_get())

    assert wire.answer(OK).startswith(b"HTTP/1.1 200 ")
    assert len(wire.upstreams) == (2 if changed else 1)


def test_a_change_of_policy_does_not_break_an_upload_off() -> None:
    wire = Wire(a_gateway(limits=Limits(body_buffer_bytes=0)))
    wire.send(a_post(b"[1, ", b"Content-Length: 6"))
    put_in_force(wire.gateway, CHANGED)
    wire.send(b"2]")

    assert wire.answer(OK).startswith(b"HTTP/1.1 200 ")
    assert len(wire.upstreams) == 1


# --- who takes one over ----------------------------------------------------------------------


def after_one(**more: Limits) -> tuple[Wire, Wire]:
    """A client connection that has left its upstream connection, and the next one."""
    first = Wire(a_gateway(**more))
    first.send(a_get())
    first.answer(OK)
    first.received()
    first.leave()
    return first, Wire(first.gateway, resting=first.resting)


@pytest.mark.parametrize(
    ("request_", "taken"),
    [
        pytest.param(a_get(), True, id="GET"),
        pytest.param(a_head(), True, id="HEAD"),
        pytest.param(a_get(b"/", KEY), True, id="with a value put into it"),
        pytest.param(a_post(b""), False, id="POST: it could not be sent again"),
        pytest.param(a_post(b"{}"), False, id="POST with a body"),
        pytest.param(a_post(b"{}").replace(b"POST", b"PUT"), False, id="PUT: a body"),
        pytest.param(a_get(b"/", b"Content-Length: 2") + b"{}", False, id="GET with a body"),
        pytest.param(a_get(b"/", *HANDSHAKE), False, id="a WebSocket"),
        pytest.param(a_get(b"/", b"Authorization: NTLM x"), False, id="an authentication"),
        pytest.param(a_get(host=b"other.example.com"), False, id="another host"),
        pytest.param(a_get(host=b"api.example.com:81"), False, id="another port"),
    ],
)
def test_a_connection_is_taken_over_by(request_: bytes, taken: bool) -> None:
    first, second = after_one()

    second.send(request_)

    assert (second.upstream is first.upstream) is taken
    assert (not first.resting) is taken
    assert second.received(), "and if not, it goes over one of its own"


def test_one_that_is_gone_is_replaced_once() -> None:
    first, second = after_one()
    second.send(a_get(b"/again", KEY))
    sent = second.received()
    assert VALUE in sent

    assert second.hang_up(of=first.upstream) == b""

    assert second.upstream is not first.upstream
    assert second.received() == sent
    assert b"response_withheld" in second.hang_up(), "a fresh one that closes is an answer"
    assert len(second.upstreams) == 2


def test_one_that_is_gone_behind_the_first_byte_is_not_replaced() -> None:
    first, second = after_one()
    second.send(a_get())
    second.answer(b"H")

    assert b"response_withheld" in second.hang_up(of=first.upstream)

    assert second.upstream is first.upstream


def test_the_audit_has_one_line_for_a_value_that_was_sent_twice() -> None:
    first, second = after_one()
    second.send(a_get(b"/", KEY))
    second.hang_up(of=first.upstream)
    second.answer(OK)

    allowed = [record for record in second.audit if record["decision"] == "allow"]
    assert len(allowed) == 2, "that of the first connection, and that of this request"


def test_it_goes_round() -> None:
    first, second = after_one()
    second.send(a_get())
    assert second.answer(OK).startswith(b"HTTP/1.1 200 ")

    assert rests(second)
    third = Wire(first.gateway, resting=first.resting)
    third.send(a_get())
    assert third.upstream is first.upstream


def test_one_is_left_for_another_destination_and_found_again() -> None:
    first, second = after_one()
    second.send(a_get(host=b"other.example.com"))
    second.answer(OK)
    second.send(a_get())

    assert second.upstream is first.upstream
    assert {purpose.destination.host for purpose in first.resting} == {"other.example.com"}
