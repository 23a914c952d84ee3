"""An open WebSocket in the lane: what passes, is filled in, is taken out; and what ends it."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from coatcheck import policyfile
from coatcheck.core.destination import parse_domain_pattern
from coatcheck.core.limits import Limits
from coatcheck.core.snapshot import Snapshot
from coatcheck.core.websocket import FrameReader, Opcode, frame
from coatcheck.engine.lane import Phase
from coatcheck.gateway import Gateway
from coatcheck.store.memory import MemoryStore
from tests.engine.wire import VALUE, Book, Wire, a_gateway, a_get

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, section 1.3
MASK = b"\x01\x02\x03\x04"
POLICY = """
version: 1
clients:
  local: {networks: ["127.0.0.1/32"]}
grants:
  - {secrets: [key], clients: [local], plaintext: true, in: [websocket, header], max_uses: 2}
  - {secrets: [other], clients: [local], plaintext: true}
"""
HANDSHAKE = (
    b"Connection: keep-alive, Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: " + KEY,
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n"
)
SECRETS = {"key": VALUE, "other": b'o"ther-0123456789', "quoted": b'q"uote\\d-0123456789'}


def test_the_sample_of_the_rfc_is_what_these_tests_use() -> None:
    guid = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    assert base64.b64encode(hashlib.sha1(KEY + guid).digest()) == ACCEPT


def an_open_wire(policy: str = POLICY, **limits: float) -> Wire:
    made = a_gateway(policy, secrets=SECRETS, limits=Limits(**limits))  # type: ignore[arg-type]
    wire = Wire(made)
    wire.send(a_get(b"/ws", *HANDSHAKE))
    assert (
        wire.answer(SWITCH + b"\r\n")
        == SWITCH.replace(
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + ACCEPT,
            b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\nConnection: Upgrade\r\nUpgrade: websocket",
        )
        + b"\r\n"
    )
    wire.received()
    return wire


def said(data: bytes) -> list[tuple[Opcode, bytes]]:
    """The messages in *data*, which came from the proxy to its client, whole ones and no more."""
    return read(data, masked=False)


def read(data: bytes, *, masked: bool) -> list[tuple[Opcode, bytes]]:
    whole: list[tuple[Opcode, bytes]] = []
    under_way = b""
    for part in FrameReader(masked=masked).feed(data):
        if part.is_control:
            whole.append((part.opcode, part.payload))
        elif part.ends:
            whole.append((part.opcode, under_way + part.payload))
            under_way = b""
        else:
            under_way += part.payload
    assert under_way == b""
    return whole


def to_upstream(wire: Wire) -> list[tuple[Opcode, bytes]]:
    return read(wire.received(), masked=True)


def say(wire: Wire, payload: bytes, opcode: Opcode = Opcode.TEXT) -> list[tuple[Opcode, bytes]]:
    """The client says it; returns what the client hears."""
    return said(wire.send(frame(opcode, payload, key=MASK)))


def hear(wire: Wire, payload: bytes, opcode: Opcode = Opcode.TEXT) -> list[tuple[Opcode, bytes]]:
    """The server says it; returns what the client hears."""
    return said(wire.answer(frame(opcode, payload)) + wire.woken())


def closed(code: int, reason: str) -> list[tuple[Opcode, bytes]]:
    return [(Opcode.CLOSE, code.to_bytes(2) + b"coatcheck: " + reason.encode())]


# --- handshake ---------------------------------------------------------------------------------


def test_a_handshake_goes_the_way_of_any_request() -> None:
    wire = Wire(a_gateway(POLICY))
    offer = b"Sec-WebSocket-Extensions: permessage-deflate"
    wire.send(
        a_get(b"/ws", *HANDSHAKE, offer, b"Sec-WebSocket-Protocol: a, b", b"X: {{secrets.key}}")
    )

    lines = wire.received().split(b"\r\n")
    assert b"X: " + VALUE in lines
    assert lines.count(b"Upgrade: websocket") == 1
    assert lines.count(b"Connection: Upgrade") == 1
    assert b"Sec-WebSocket-Key: " + KEY in lines
    assert b"Sec-WebSocket-Protocol: a, b" in lines
    assert not [line for line in lines if line.lower().startswith(b"sec-websocket-ext")]
    (record,) = wire.audit
    assert record["secrets"]


def test_its_answer_is_scrubbed_and_on_record() -> None:
    wire = Wire(a_gateway(POLICY))
    wire.send(a_get(b"/ws", *HANDSHAKE))

    got = wire.answer(SWITCH + b"X-Echo: " + VALUE + b"\r\nSec-WebSocket-Protocol: a\r\n\r\n")

    assert b"X-Echo: ********\r\n" in got
    assert b"Sec-WebSocket-Protocol: a\r\n" in got
    assert wire.audit[-1]["event"] == "response"
    assert say(wire, b"on we go") == []


def but(name: bytes, *lines: bytes) -> tuple[bytes, ...]:
    """The handshake with *lines* in the place of the one called *name*."""
    kept = [line for line in HANDSHAKE if not line.lower().startswith(name.lower() + b":")]
    return (*kept, *lines)


NONE = [
    pytest.param(but(b"Upgrade"), id="no Upgrade"),
    pytest.param(but(b"Upgrade", b"Upgrade: foo"), id="another protocol"),
    pytest.param(but(b"Upgrade", b"Upgrade: websocket, foo"), id="two protocols"),
    pytest.param(but(b"Upgrade", b"Upgrade: websocket", b"Upgrade: h2c"), id="two Upgrades"),
    pytest.param(but(b"Connection", b"Connection: keep-alive"), id="Connection without it"),
    pytest.param(but(b"Sec-WebSocket-Version", b"Sec-WebSocket-Version: 8"), id="version 8"),
    pytest.param(but(b"Sec-WebSocket-Version"), id="no version"),
    pytest.param(
        but(b"Sec-WebSocket-Version", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8"),
        id="two versions",
    ),
    pytest.param(but(b"Sec-WebSocket-Key"), id="no key"),
    pytest.param(but(b"Sec-WebSocket-Key", b"Sec-WebSocket-Key: " + KEY * 2), id="a long key"),
    pytest.param(but(b"Sec-WebSocket-Key", b"Sec-WebSocket-Key: c2hvcnQ="), id="a short key"),
    pytest.param(but(b"Sec-WebSocket-Key", b"Sec-WebSocket-Key: !!"), id="a key of other letters"),
    pytest.param(
        but(b"Sec-WebSocket-Key", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR=="),
        id="a key with bits too many",
    ),
    pytest.param((*HANDSHAKE, b"Sec-WebSocket-Key: " + KEY), id="two keys"),
]


@pytest.mark.parametrize("fields", NONE)
def test_what_is_no_handshake_does_not_change_the_protocol(fields: tuple[bytes, ...]) -> None:
    wire = Wire(a_gateway(POLICY))
    wire.send(a_get(b"/ws", *fields))

    sent = wire.received().lower()
    assert b"\r\nupgrade:" not in sent
    assert b"\r\nconnection:" not in sent
    assert b"response_withheld" in wire.answer(SWITCH + b"\r\n" + frame(Opcode.TEXT, b"x"))


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"POST http://api.example.com/ws HTTP/1.1\r\n", id="POST"),
        pytest.param(b"GET http://api.example.com/ws HTTP/1.0\r\n", id="HTTP/1.0"),
    ],
)
def test_only_a_get_of_http11_opens_one(head: bytes) -> None:
    wire = Wire(a_gateway(POLICY))
    lines = [b"Host: api.example.com", *HANDSHAKE, b"", b""]
    wire.send(head + b"\r\n".join(lines))

    assert b"\r\nupgrade:" not in wire.received().lower()


BAD_SWITCHES = [
    pytest.param(SWITCH.replace(ACCEPT, KEY), id="another key accepted"),
    pytest.param(SWITCH.replace(b"websocket", b"foo"), id="another protocol"),
    pytest.param(SWITCH.replace(b"Upgrade: websocket\r\n", b""), id="no Upgrade"),
    pytest.param(SWITCH.replace(b"Connection: Upgrade\r\n", b""), id="no Connection"),
    pytest.param(SWITCH + b"Sec-WebSocket-Extensions: permessage-deflate\r\n", id="an extension"),
    pytest.param(SWITCH + b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n", id="accepted twice"),
    pytest.param(SWITCH + b"Transfer-Encoding: chunked\r\n", id="chunks"),
    pytest.param(SWITCH + b"Content-Length: 5\r\n", id="a body"),
    pytest.param(
        SWITCH + b"Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b\r\n", id="two protocols"
    ),
]


@pytest.mark.parametrize("answer", BAD_SWITCHES)
def test_a_switch_that_is_not_right_is_withheld(answer: bytes) -> None:
    wire = Wire(a_gateway(POLICY))
    wire.send(a_get(b"/ws", *HANDSHAKE))

    got = wire.answer(answer + b"\r\n" + frame(Opcode.TEXT, VALUE))

    assert b"Coatcheck-Error: response_withheld" in got
    assert wire.upstream.closed


def test_a_server_that_does_not_switch_gives_an_answer_like_any_other() -> None:
    wire = Wire(a_gateway(POLICY))
    wire.send(a_get(b"/ws", *HANDSHAKE))

    got = wire.answer(b"HTTP/1.1 401 No\r\nContent-Length: 24\r\n\r\n" + VALUE)

    assert got.startswith(b"HTTP/1.1 401 No\r\n")
    assert VALUE not in got
    assert wire.upstream.closed  # it may have taken it otherwise


def test_frames_beside_the_handshake_are_frames() -> None:
    wire = Wire(a_gateway(POLICY))
    wire.send(a_get(b"/ws", *HANDSHAKE) + frame(Opcode.TEXT, b"early", key=MASK))
    wire.received()

    got = wire.answer(SWITCH + b"\r\n" + frame(Opcode.TEXT, VALUE)) + wire.woken()

    assert said(got.partition(b"\r\n\r\n")[2]) == [(Opcode.TEXT, b"********")]
    assert to_upstream(wire) == [(Opcode.TEXT, b"early")]


def test_a_connection_that_is_not_on_record_is_not_opened() -> None:
    wire = Wire(a_gateway(POLICY))
    assert isinstance(wire.gateway.log, Book)
    wire.gateway.log.broken = True

    assert b"audit_unavailable" in wire.send(a_get(b"/ws", *HANDSHAKE))
    assert wire.upstreams == []


# --- client to server --------------------------------------------------------------------------

FILLED = [
    pytest.param(b"plain", b"plain", id="no placeholder"),
    pytest.param(b"k={{secrets.key}}!", b"k=" + VALUE + b"!", id="in text"),
    pytest.param(b"__secrets.key__", VALUE, id="in another syntax"),
    pytest.param(b' {"a": "{{secrets.key}}"}', b' {"a": "' + VALUE + b'"}', id="in JSON"),
    pytest.param(b'["\\u007b{secrets.key}}"]', b'["' + VALUE + b'"]', id="escaped as JSON does"),
    pytest.param(
        b"{{secrets.key}} {{secrets.key}}", VALUE + b" " + VALUE, id="as often as the grant says"
    ),
    pytest.param("größe €".encode(), "größe €".encode(), id="text beyond ASCII"),
    pytest.param(b"", b"", id="empty"),
]


@pytest.mark.parametrize(("message", "sent"), FILLED)
def test_a_text_message_is_filled_in(message: bytes, sent: bytes) -> None:
    wire = an_open_wire()

    assert say(wire, message) == []

    assert to_upstream(wire) == [(Opcode.TEXT, sent)]


def test_a_value_is_escaped_where_the_message_is_json() -> None:
    wire = an_open_wire(
        POLICY + "  - {secrets: [quoted], clients: [local], plaintext: true, in: [websocket]}\n"
    )

    say(wire, b'{"a": "{{secrets.quoted}}"}')
    ((_, sent),) = to_upstream(wire)
    assert json.loads(sent) == {"a": SECRETS["quoted"].decode()}
    say(wire, b"a {{secrets.quoted}}")
    assert to_upstream(wire) == [(Opcode.TEXT, b"a " + SECRETS["quoted"])]


def test_each_message_is_counted_and_recorded_by_itself() -> None:
    wire = an_open_wire()

    for _ in range(3):
        say(wire, b"{{secrets.key}} {{secrets.key}}")

    lines = [line for line in wire.audit if line["event"] == "injection"]
    assert [len(line["secrets"]) for line in lines] == [2, 2, 2]  # type: ignore[arg-type]
    assert lines[0]["secrets"][0]["location"] == "websocket"  # type: ignore[index]


REFUSED = [
    pytest.param(b"{{secrets.other}}", 1008, "location_not_allowed", id="not in messages"),
    pytest.param(b"{{secrets.no}}", 1008, "secret_unavailable", id="no such secret"),
    pytest.param(b"{{secrets.quoted}}", 1008, "secret_unavailable", id="no grant: the same"),
    pytest.param(b"{{secrets.key", 1008, "placeholder_malformed", id="not complete"),
    pytest.param(b"{{secrets.key}}" * 3, 1008, "too_many_placeholders", id="too many"),
    pytest.param(b"\xff", 1007, "bad_request", id="no UTF-8"),
    pytest.param(b"x" * 2049, 1009, "body_too_large", id="too long"),
]


@pytest.mark.parametrize(("message", "code", "reason"), REFUSED)
def test_a_message_that_must_not_leave_ends_it(message: bytes, code: int, reason: str) -> None:
    wire = an_open_wire(websocket_message_bytes=2048)

    assert say(wire, message) == closed(code, reason)

    assert to_upstream(wire) == [(Opcode.CLOSE, b"\x03\xe9")]
    assert wire.upstream.closed
    assert wire.audit[-1]["code"] == reason
    assert say(wire, b"more") == []
    assert wire.received() == b""


def test_what_came_before_it_in_one_go_has_left() -> None:
    wire = an_open_wire()

    whole = frame(Opcode.TEXT, b"good", key=MASK) + frame(Opcode.TEXT, b"{{secrets.no}}", key=MASK)
    wire.send(whole)

    assert to_upstream(wire)[0] == (Opcode.TEXT, b"good")


def test_a_message_of_just_that_length_passes() -> None:
    wire = an_open_wire(websocket_message_bytes=2048)
    assert say(wire, b"x" * 2048) == []
    assert to_upstream(wire) == [(Opcode.TEXT, b"x" * 2048)]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_placeholder_in_fragments_is_one(size: int) -> None:
    wire = an_open_wire()
    message = b"a {{secrets.key}} b"
    parts = [message[at : at + 4] for at in range(0, len(message), 4)]
    whole = b"".join(
        frame(
            Opcode.CONTINUATION if index else Opcode.TEXT,
            part,
            fin=index == len(parts) - 1,
            key=MASK,
        )
        + frame(Opcode.PING, b"p", key=MASK)
        for index, part in enumerate(parts)
    )

    for at in range(0, len(whole), size):
        assert wire.send(whole[at : at + size]) == b""

    sent = to_upstream(wire)
    assert [payload for opcode, payload in sent if opcode is Opcode.TEXT] == [b"a " + VALUE + b" b"]
    assert [opcode for opcode, _ in sent].count(Opcode.PING) == len(parts)


@pytest.mark.parametrize("opcode", [Opcode.BINARY, Opcode.PING, Opcode.PONG])
def test_what_is_no_text_is_left_alone(opcode: Opcode) -> None:
    wire = an_open_wire()

    say(wire, b"{{secrets.key}}\xff", opcode)

    assert to_upstream(wire) == [(opcode, b"{{secrets.key}}\xff")]


def test_a_value_that_is_no_text_is_not_put_into_one() -> None:
    made = a_gateway(POLICY, secrets={"key": b"\xff\xfe0123456789"})
    wire = Wire(made)
    wire.send(a_get(b"/ws", *HANDSHAKE))
    wire.answer(SWITCH + b"\r\n")
    wire.received()

    assert say(wire, b"{{secrets.key}}") == closed(1008, "value_not_representable")
    assert [opcode for opcode, _ in to_upstream(wire)] == [Opcode.CLOSE]


def test_nothing_leaves_without_its_record() -> None:
    wire = an_open_wire()
    assert isinstance(wire.gateway.log, Book)
    wire.gateway.log.broken = True

    assert say(wire, b"{{secrets.key}}") == closed(1011, "audit_unavailable")
    assert VALUE not in b"".join(payload for _, payload in to_upstream(wire))


BROKEN = [
    pytest.param(frame(Opcode.TEXT, b"x"), id="no mask"),
    pytest.param(b"\xc1\x81" + MASK + b"x", id="a reserved bit: compressed"),
    pytest.param(b"\x83\x80" + MASK, id="an unknown opcode"),
    pytest.param(b"\x8b\x80" + MASK, id="an unknown control frame"),
    pytest.param(frame(Opcode.CONTINUATION, b"x", key=MASK), id="a fragment of nothing"),
    pytest.param(
        frame(Opcode.TEXT, b"x", fin=False, key=MASK) + frame(Opcode.TEXT, b"y", key=MASK),
        id="a message in a message",
    ),
    pytest.param(frame(Opcode.PING, b"x", fin=False, key=MASK), id="half a ping"),
    pytest.param(frame(Opcode.PING, b"x" * 126, key=MASK), id="a ping too long"),
    pytest.param(b"\x81\xfe\x00\x05" + MASK + b"12345", id="a length too long for its number"),
    pytest.param(b"\x81\xff" + bytes(6) + b"\xff\xff" + MASK, id="the same in eight bytes"),
    pytest.param(b"\x82\xff\x80" + bytes(7) + MASK, id="a length over 2**63"),
    pytest.param(frame(Opcode.CLOSE, b"x", key=MASK), id="half a code"),
    pytest.param(frame(Opcode.CLOSE, b"\x03\xed", key=MASK), id="a code that is never sent"),
    pytest.param(frame(Opcode.CLOSE, b"\x03\xe8\xff", key=MASK), id="a reason that is no UTF-8"),
]


@pytest.mark.parametrize("data", BROKEN)
def test_a_client_that_breaks_the_protocol_is_cut_off(data: bytes) -> None:
    wire = an_open_wire()

    heard = said(wire.send(data))

    assert [opcode for opcode, _ in heard] == [Opcode.CLOSE]
    assert int.from_bytes(heard[0][1][:2]) in (1002, 1007)
    assert [sent for sent, _ in to_upstream(wire)] == [Opcode.CLOSE]


# --- server to client --------------------------------------------------------------------------

HALF = VALUE[:12], VALUE[12:]
HEARD = [
    pytest.param(b"plain", b"plain", id="nothing to find"),
    pytest.param(b"a " + VALUE + b" b", b"a ******** b", id="raw"),
    pytest.param(base64.b64encode(VALUE), b"********", id="in another spelling"),
    pytest.param("ä€".encode() + VALUE + b"!", "ä€********!".encode(), id="beside other letters"),
    pytest.param(b"", b"", id="empty"),
]


@pytest.mark.parametrize(("message", "got"), HEARD)
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_a_message_is_searched(message: bytes, got: bytes, opcode: Opcode) -> None:
    wire = an_open_wire()

    assert hear(wire, message, opcode) == [(opcode, got)]


@pytest.mark.parametrize(
    "opcode", [Opcode.PING, Opcode.PONG], ids=["the payload of a ping", "of a pong"]
)
def test_control_frames_are_searched(opcode: Opcode) -> None:
    wire = an_open_wire()

    assert hear(wire, b"a " + VALUE, opcode) == [(opcode, b"a ********")]
    assert hear(wire, b"\xff\0", opcode) == [(opcode, b"\xff\0")]


def test_the_reason_of_a_close_is_searched() -> None:
    wire = an_open_wire()

    assert hear(wire, b"\x0f\xa0" + VALUE, Opcode.CLOSE) == [(Opcode.CLOSE, b"\x0f\xa0********")]


def test_a_mark_that_does_not_fit_is_left_out() -> None:
    policy = POLICY + "scrub: {replacement: placeholder}\n"
    wire = an_open_wire(policy)

    assert hear(wire, b"x" * 123, Opcode.PING) == [(Opcode.PING, b"x" * 123)]
    short = a_gateway(policy, secrets={"k" * 100: b"0123456789"})
    short.install(
        Snapshot(policyfile.parse(policy.replace("[key]", '["*"]'), "p"), short.snapshot.view)
    )
    wire = Wire(short)
    wire.send(a_get(b"/ws", *HANDSHAKE))
    wire.answer(SWITCH + b"\r\n")

    assert hear(wire, b"x" * 60 + b"0123456789", Opcode.PING) == [(Opcode.PING, b"")]


@pytest.mark.parametrize("apart", [False, True], ids=["in one read", "in two"])
def test_a_value_in_two_messages_is_in_neither(apart: bool) -> None:
    """The second comes before the first was let go."""
    wire = an_open_wire()
    one, two = (frame(Opcode.TEXT, half) for half in (b"a " + HALF[0], HALF[1] + b" b"))

    got = wire.answer(one) + wire.answer(two) if apart else wire.answer(one + two)
    got += wire.woken() + wire.woken()

    assert said(got) == [(Opcode.TEXT, b"a ********"), (Opcode.TEXT, b" b")]


def test_each_message_waits_as_long_as_the_first() -> None:
    """One that comes while another waits is not let go with it."""
    wire = an_open_wire()
    wire.answer(frame(Opcode.TEXT, b"first"))
    wire.answer(frame(Opcode.TEXT, HALF[0]))

    assert said(wire.woken()) == [(Opcode.TEXT, b"first")]
    wire.answer(frame(Opcode.TEXT, HALF[1]))
    assert said(wire.woken()) == [(Opcode.TEXT, b"********")]
    assert said(wire.woken()) == [(Opcode.TEXT, b"")]
    assert not wire.waking


def test_what_a_later_message_ends_is_masked_there() -> None:
    """The first is gone: it was held back as long as any other."""
    wire = an_open_wire()

    assert hear(wire, b"a " + HALF[0]) == [(Opcode.TEXT, b"a " + HALF[0])]
    assert hear(wire, HALF[1] + b" b") == [(Opcode.TEXT, b"******** b")]
    assert hear(wire, HALF[1] + b" b") == [(Opcode.TEXT, HALF[1] + b" b")]


def test_a_value_in_two_pings_is_masked_in_the_second() -> None:
    wire = an_open_wire()

    assert hear(wire, HALF[0], Opcode.PING) == [(Opcode.PING, HALF[0])]
    assert hear(wire, HALF[1], Opcode.PING) == [(Opcode.PING, b"********")]


def test_a_message_under_way_is_let_go_but_for_a_window() -> None:
    """How much is held back is the same, whatever the bytes are."""
    held = []
    for text in (b"x" * 5000, (VALUE[:-1] * 250)[:5000], b"y" * 4990 + VALUE[:10]):
        wire = an_open_wire()
        got = wire.answer(frame(Opcode.TEXT, text, fin=False)) + wire.woken()
        (part,) = FrameReader(masked=False).feed(got)
        assert not part.ends
        held.append(len(text) - len(part.payload))
    assert len(set(held)) == 1
    assert 0 < held[0] < 2000


def test_a_complete_message_is_let_go_whole_and_soon() -> None:
    wire = an_open_wire()

    assert wire.answer(frame(Opcode.TEXT, b"x" * 5000)) == b""
    assert wire.woken() == frame(Opcode.TEXT, b"x" * 5000)


def test_where_nothing_is_searched_nothing_waits() -> None:
    wire = an_open_wire(POLICY.replace("[key]", "[a]").replace("[other]", "[b]"))

    assert wire.answer(frame(Opcode.TEXT, VALUE)) == frame(Opcode.TEXT, VALUE)


def test_text_stays_text_when_a_value_takes_a_part_of_a_character() -> None:
    made = a_gateway(POLICY, secrets={"key": b"\xa9secret-0123456\xc3"})
    wire = Wire(made)
    wire.send(a_get(b"/ws", *HANDSHAKE))
    wire.answer(SWITCH + b"\r\n")

    ((_, got),) = hear(wire, "a ©secret-0123456ä b".encode())

    assert b"secret-0123456" not in got
    assert got.decode().startswith("a ")
    assert got.decode().endswith(" b")


def test_what_was_taken_out_is_on_record() -> None:
    wire = an_open_wire()
    hear(wire, b"nothing")
    before = len(wire.audit)

    hear(wire, VALUE)

    (record,) = wire.audit[before:]
    assert (record["event"], record["status"]) == ("response", 101)
    (hit,) = record["scrubbed"]  # type: ignore[misc]
    assert hit["channel"] == "websocket"


def test_and_without_a_record_nothing_leaves() -> None:
    wire = an_open_wire()
    assert isinstance(wire.gateway.log, Book)
    wire.gateway.log.broken = True

    assert hear(wire, VALUE) == closed(1011, "audit_unavailable")


SERVER_BROKEN = [
    pytest.param(frame(Opcode.TEXT, b"x", key=MASK), id="a mask"),
    pytest.param(b"\xc1\x01x", id="compressed, though nobody agreed on it"),
    pytest.param(b"\x83\x00", id="an unknown opcode"),
    pytest.param(frame(Opcode.CONTINUATION, VALUE), id="a fragment of nothing"),
    pytest.param(frame(Opcode.TEXT, b"\xff" + VALUE), id="text that is no UTF-8"),
    pytest.param(
        frame(Opcode.TEXT, b"\xc3", fin=False) + frame(Opcode.CONTINUATION, b""),
        id="text that ends within a character",
    ),
    pytest.param(frame(Opcode.CLOSE, b"\x03\xec" + VALUE), id="a code that is never sent"),
    pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + VALUE, id="no frames"),
]


@pytest.mark.parametrize("data", SERVER_BROKEN)
def test_a_server_that_breaks_the_protocol_is_cut_off(data: bytes) -> None:
    wire = an_open_wire()

    assert said(wire.answer(data)) == closed(1011, "response_withheld")

    assert wire.upstream.closed
    assert wire.audit[-1]["code"] == "response_withheld"


# --- endings -----------------------------------------------------------------------------------


def test_a_close_goes_both_ways_and_then_it_is_over() -> None:
    wire = an_open_wire()

    assert say(wire, b"\x03\xe8bye", Opcode.CLOSE) == []
    assert to_upstream(wire) == [(Opcode.CLOSE, b"\x03\xe8bye")]
    assert not wire.closed
    assert hear(wire, b"\x03\xe8bye", Opcode.CLOSE) == [(Opcode.CLOSE, b"\x03\xe8bye")]
    assert wire.closed


def test_what_was_held_back_comes_before_the_close() -> None:
    wire = an_open_wire()

    got = wire.answer(frame(Opcode.TEXT, b"last") + frame(Opcode.CLOSE, b""))

    assert said(got) == [(Opcode.TEXT, b"last"), (Opcode.CLOSE, b"")]


def test_and_before_the_end_of_the_connection() -> None:
    wire = an_open_wire()
    wire.answer(frame(Opcode.TEXT, b"last") + frame(Opcode.TEXT, b"half", fin=False))

    assert said(wire.hang_up()) == [(Opcode.TEXT, b"last")]
    assert wire.closed


def test_nothing_is_taken_after_a_close() -> None:
    wire = an_open_wire()
    wire.answer(frame(Opcode.CLOSE, b""))

    assert wire.answer(frame(Opcode.TEXT, b"more")) == b""
    assert wire.woken() == b""


def test_a_client_that_leaves_takes_the_upstream_with_it() -> None:
    wire = an_open_wire()
    wire.leave()
    assert wire.upstream.closed


def test_a_client_that_answers_our_close_is_closed_at_once() -> None:
    wire = an_open_wire()
    say(wire, b"{{secrets.no}}")
    assert not wire.closed

    say(wire, b"\x03\xf0", Opcode.CLOSE)

    assert wire.closed


def test_silence_ends_it_with_a_goodbye() -> None:
    wire = an_open_wire(websocket_idle_timeout_s=7.0)
    assert wire.lane.quiet_limit_s == 7.0

    assert said(wire.silence()) == closed(1001, "going away")


def test_a_crash_inside_ends_both(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = an_open_wire()
    monkeypatch.setattr("coatcheck.opensocket.Filling", None)

    assert say(wire, b"{{secrets.key}}") == closed(1011, "internal_error")
    assert VALUE not in wire.received()


# --- changes -----------------------------------------------------------------------------------


def change(wire: Wire, policy: str, gateway: Gateway | None = None) -> None:
    view = (gateway or wire.gateway).snapshot.view
    wire.gateway.install(Snapshot(policyfile.parse(policy, "policy.yaml"), view))


CHANGES = [
    pytest.param(
        POLICY.replace("127.0.0.1/32", "10.0.0.1/32"),
        closed(1008, "proxy_auth_required"),
        id="the client may no longer enter",
    ),
    pytest.param(
        POLICY + 'egress: {deny: ["api.example.com"]}\n',
        closed(1008, "destination_not_allowed"),
        id="the destination is denied",
    ),
    pytest.param(
        POLICY.replace("[key]", "[nokey]"),
        closed(1012, "the policy or a secret has changed"),
        id="a secret is withdrawn",
    ),
    pytest.param(
        POLICY + "  - {secrets: [quoted], clients: [local], plaintext: true}\n",
        closed(1012, "the policy or a secret has changed"),
        id="a secret is added",
    ),
    pytest.param(POLICY, [], id="nothing that matters here"),
    pytest.param(POLICY.replace("max_uses: 2", "max_uses: 1"), [], id="a grant says less"),
]


@pytest.mark.parametrize(("policy", "heard"), CHANGES)
@pytest.mark.parametrize("by", ["look", "client", "upstream"])
def test_a_change_of_policy_acts_on_what_is_open(
    policy: str, heard: list[tuple[Opcode, bytes]], by: str
) -> None:
    wire = an_open_wire()
    change(wire, policy)

    got = {
        "look": wire.look,
        "client": lambda: wire.send(frame(Opcode.TEXT, b"x", key=MASK)),
        "upstream": lambda: wire.answer(frame(Opcode.PING, b"")),
    }[by]()

    assert [message for message in said(got) if message[0] is not Opcode.PING] == heard
    assert wire.upstream.closed is bool(heard)


def test_a_grant_that_is_withdrawn_fills_in_nothing_more() -> None:
    wire = an_open_wire()
    say(wire, b"{{secrets.key}}")
    assert to_upstream(wire) == [(Opcode.TEXT, VALUE)]
    change(wire, POLICY.replace("in: [websocket, header]", "in: [header]"))

    assert say(wire, b"{{secrets.key}}") == closed(1008, "location_not_allowed")


def test_a_new_value_ends_it() -> None:
    store = MemoryStore()
    domains = [parse_domain_pattern("api.example.com:80")]
    store.put("key", VALUE, domains=domains, description="", now=1.0)
    made = a_gateway(POLICY)
    made.install(Snapshot(policyfile.parse(POLICY, "p"), store.view()))
    wire = Wire(made)
    wire.send(a_get(b"/ws", *HANDSHAKE))
    wire.answer(SWITCH + b"\r\n")
    store.put("key", b"another-0123456789", domains=domains, description="", now=2.0)
    made.install(Snapshot(policyfile.parse(POLICY, "p"), store.view()))

    assert said(wire.look()) == closed(1012, "the policy or a secret has changed")


def test_the_end_of_the_process_is_told() -> None:
    wire = an_open_wire()
    wire.lane.go_away()
    assert said(wire.take()) == closed(1001, "going away")


def test_a_secret_for_any_host_is_searched_for_once_it_was_put_in() -> None:
    store = MemoryStore()
    store.put("key", VALUE, domains=[parse_domain_pattern("*")], description="", now=1.0)
    made = a_gateway(POLICY)
    made.install(Snapshot(policyfile.parse(POLICY, "p"), store.view()))
    wire = Wire(made)
    wire.send(a_get(b"/ws", *HANDSHAKE))
    wire.answer(SWITCH + b"\r\n")

    assert hear(wire, VALUE) == [(Opcode.TEXT, VALUE)]
    say(wire, b"{{secrets.key}}")
    assert hear(wire, VALUE) == [(Opcode.TEXT, b"********")]


def test_it_is_not_idle_as_long_as_it_is_open() -> None:
    wire = an_open_wire()
    assert not wire.lane.idle
    assert wire.lane._phase is Phase.SOCKET
