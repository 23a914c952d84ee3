"""The canary's page as a specification: what a client gets, what it cannot, what is on record."""

from __future__ import annotations

import base64
import json

import pytest

from coatcheck.canary import Canary
from coatcheck.core import canary
from coatcheck.engine.lane import Lane, Services
from tests.engine.test_lane import code_of
from tests.engine.test_own_host import POLICY, SECRETS, a_gateway
from tests.engine.wire import Book, Wire, _Io

KEY, SALT = b"k" * canary.KEY_BYTES, "5a" * canary.SALT_BYTES
VALUE = canary.value(KEY, SALT)
HELD = b"Authorization: Bearer " + canary.PLACEHOLDER
NONCE = b"?0123456789abcdef"


def a_wire(*, key: bytes | None = KEY) -> Wire:
    wire = Wire(a_gateway(POLICY))
    own = Canary(wire.gateway, key, SALT) if key else None
    services = Services(wire.gateway, wire.lane._services.log, canary=own)
    wire.lane = Lane(_Io(wire), services, "127.0.0.1")
    return wire


def ask(*fields: bytes, path: bytes = b"/v1/canary", method: bytes = b"GET") -> bytes:
    line = b"%b http://coatcheck.internal%b HTTP/1.1" % (method, path)
    return b"\r\n".join([line, b"Host: coatcheck.internal", *fields, b"", b""])


def field(answer: bytes, name: bytes) -> bytes:
    lines = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")
    (found,) = [line.partition(b": ")[2] for line in lines if line.startswith(name + b": ")]
    return found


def test_who_has_the_key_sees_that_the_value_was_filled_in_and_nobody_sees_the_value() -> None:
    wire = a_wire()

    answer = wire.send(ask(HELD, path=b"/v1/canary" + NONCE))

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert field(answer, canary.SALT) == SALT.encode()
    expected = canary.proof(KEY, NONCE[1:], b"Bearer " + VALUE)
    assert field(answer, canary.PROOF) == expected.encode()
    assert field(answer, canary.ECHO) == b"Bearer ********"
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert body == {"raw": "********", "base64": "********", "hex": "********"}
    for spelled in (VALUE, base64.b64encode(VALUE)[:-4], VALUE.hex().encode()):
        assert spelled not in answer
    assert wire.upstreams == []


def test_without_the_placeholder_the_proof_is_another_one() -> None:
    text = b"Bearer no placeholder at all"

    answer = a_wire().send(ask(b"Authorization: " + text, path=b"/v1/canary" + NONCE))

    assert field(answer, canary.PROOF) == canary.proof(KEY, NONCE[1:], text).encode()
    assert field(answer, canary.ECHO) == text


def test_the_proof_depends_on_key_nonce_and_what_was_seen() -> None:
    proofs = {
        canary.proof(KEY, b"n", b"seen"),
        canary.proof(b"j" * canary.KEY_BYTES, b"n", b"seen"),
        canary.proof(KEY, b"m", b"seen"),
        canary.proof(KEY, b"n", b"other"),
        canary.proof(KEY, b"ns", b"een"),  # where the nonce ends is told too
        canary.value(KEY, "n").removeprefix(b"canary").decode(),
    }

    assert len(proofs) == 6


def test_two_workers_have_two_values() -> None:
    assert canary.value(KEY, "5a" * 16) != canary.value(KEY, "5b" * 16)


def test_it_is_on_record_before_it_is_answered_and_what_was_scrubbed_behind_it() -> None:
    wire = a_wire()

    wire.send(ask(HELD))

    sent, scrubbed = wire.audit
    assert (sent["decision"], sent["path"], sent["client"]) == ("allow", "/v1/canary", "local")
    (use,) = sent["secrets"]  # type: ignore[attr-defined]
    assert use["name"] == canary.NAME
    assert scrubbed["decision"] == "scrub"


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        pytest.param(
            ask(b"Authorization: Bearer {{secrets.key}}"),
            "secret_unavailable",
            id="no secret of the store is there, though the client has it elsewhere",
        ),
        pytest.param(
            ask(b"Authorization: Bearer " + canary.PLACEHOLDER * 2),
            "too_many_placeholders",
            id="twice",
        ),
        pytest.param(
            ask(HELD, b"X-Other: " + canary.PLACEHOLDER), "location_not_allowed", id="elsewhere"
        ),
        pytest.param(
            ask(HELD, path=b"/v1/canary?" + canary.PLACEHOLDER),
            "location_not_allowed",
            id="in the nonce",
        ),
        pytest.param(ask(), "bad_request", id="no Authorization"),
        pytest.param(ask(HELD, HELD), "bad_request", id="two of them"),
        pytest.param(ask(HELD, path=b"/v1/canary?" + b"n" * 65), "bad_request", id="a long nonce"),
        pytest.param(ask(HELD, method=b"HEAD"), "not_found", id="HEAD"),
        pytest.param(ask(HELD, b"Content-Length: 1"), "not_found", id="with a body"),
    ],
)
def test_what_is_refused_is_recorded_once(request_: bytes, code: str) -> None:
    wire = a_wire()

    answer = wire.send(request_)

    assert field(answer, b"Coatcheck-Error") == code.encode()
    assert [line["decision"] for line in wire.audit] == ["refuse"]
    assert VALUE not in answer
    assert wire.upstreams == []


def test_its_placeholder_means_nothing_at_another_host() -> None:
    wire = a_wire()
    line = b"GET http://hooks.example.com/ HTTP/1.1"

    answer = wire.send(b"\r\n".join([line, b"Host: hooks.example.com", HELD, b"", b""]))

    assert code_of(answer) == "secret_unavailable"
    assert canary.NAME not in SECRETS


def test_without_a_record_there_is_no_answer() -> None:
    wire = a_wire()
    log = wire.gateway.log
    assert isinstance(log, Book)
    log.broken = True

    answer = wire.send(ask(HELD))

    assert code_of(answer) == "audit_unavailable"
    assert canary.PROOF not in answer


def test_without_a_key_there_is_none() -> None:
    assert code_of(a_wire(key=None).send(ask(HELD))) == "not_found"


def test_its_destination_is_one_that_nobody_can_have() -> None:
    assert canary.DESTINATION.host.endswith(".invalid")
