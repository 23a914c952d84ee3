"""The matrix on WebSockets: every spelling in what a server says, in whichever frames it says it.

As `test_matrix`, at the same two levels: ``serve`` through the real program, where the kernel may
join what was sent apart; ``lane`` into the lane without a socket, a frame at a time. Control frames
hold 125 bytes (RFC 6455, section 5.5), so each cell has one of its own, and a close its own
connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial

import pytest

from coatcheck.core.websocket import Opcode, frame
from coatcheck.gateway import Gateway
from tests.e2e import harness
from tests.e2e.harness import Proxy
from tests.e2e.matrix import PASSWORD, TOKEN, Cell, Channel, Writing, halves, unlike, writings
from tests.e2e.scripts import Scripts
from tests.e2e.test_matrix import BASIC, detector, names, own_proxy, without
from tests.engine import wire as lanes
from tests.engine.test_websocket_lane import HANDSHAKE, SWITCH, read

__all__ = ["own_proxy"]  # the fixture

LARGEST = 125  # bytes of a control frame
CODE = (4000).to_bytes(2)
END = frame(Opcode.CLOSE, CODE + b"the end")

type Frames = list[bytes]
type Hear = Callable[[Sequence[bytes]], list[tuple[Opcode, bytes]]]


@pytest.fixture(params=["serve", "lane"])
def level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def hear(level: str, request: pytest.FixtureRequest) -> Hear:
    """What a client hears when a server says these frames behind its 101."""
    if level == "lane":
        return from_the_lane
    scripts: Scripts = request.getfixturevalue("scripts")
    proxy: Proxy = request.getfixturevalue("own_proxy")

    def hear(frames: Sequence[bytes]) -> list[tuple[Opcode, bytes]]:
        path = scripts.add(SWITCH + b"\r\n" + b"".join(frames), closes=True)
        with proxy.dial(harness.RUNNER).tunnel() as wire:
            wire.send(harness_request(path))
            assert wire.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
            return read(wire.rest(), masked=False)

    return hear


def harness_request(path: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1".encode(), b"Host: api.example.test", *HANDSHAKE]
    return b"\r\n".join([*lines, BASIC.encode(), b"", b""])


@cache
def a_gateway() -> Gateway:
    return lanes.a_gateway(secrets={"token": TOKEN, "password": PASSWORD})


def from_the_lane(frames: Sequence[bytes]) -> list[tuple[Opcode, bytes]]:
    wire = lanes.Wire(a_gateway())
    wire.send(lanes.a_get(b"/", *HANDSHAKE, BASIC.encode()))
    assert wire.answer(SWITCH + b"\r\n").startswith(b"HTTP/1.1 101 ")
    heard = [wire.answer(one) for one in frames]
    return read(b"".join(heard) + wire.woken(), masked=False)


# --- messages ------------------------------------------------------------------------------------


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_text_in_halves(writing: Writing) -> bool:
    half = len(writing.text) // 2
    parts = writing.text[:half], writing.text[half:], writing.decoy
    return all(map(is_text, parts))


TEXT = Channel("text", b"(%d: ", b" :%d)\n", fits=is_text_in_halves)
BINARY = Channel("binary", b"\0\xff\x80%d\x01", b"\x02%d\xfe\0")
OPCODES = {"text": Opcode.TEXT, "binary": Opcode.BINARY}


def fragments(opcode: Opcode, parts: Sequence[bytes]) -> Frames:
    """One message, a frame for each of *parts*."""
    opcodes = [opcode, *[Opcode.CONTINUATION] * (len(parts) - 1)]
    last = len(parts) - 1
    return [frame(o, p, fin=n == last) for n, (o, p) in enumerate(zip(opcodes, parts, strict=True))]


def messages(opcode: Opcode, parts: Sequence[bytes]) -> Frames:
    return [frame(opcode, part) for part in parts]


def in_one(opcode: Opcode, cells: Sequence[Cell]) -> Frames:
    return messages(opcode, [b"".join(halves(cells))])


def one_each(opcode: Opcode, cells: Sequence[Cell]) -> Frames:
    return messages(opcode, [b"".join(halves([cell])) for cell in cells])


def fragments_in_the_middle(opcode: Opcode, cells: Sequence[Cell]) -> Frames:
    return fragments(opcode, halves(cells))


def messages_in_the_middle(opcode: Opcode, cells: Sequence[Cell]) -> Frames:
    return messages(opcode, halves(cells))


def fragments_of(size: int, opcode: Opcode, cells: Sequence[Cell]) -> Frames:
    whole = b"".join(halves(cells))
    return fragments(opcode, [whole[at : at + size] for at in range(0, len(whole), size)])


SCHEDULES: dict[str, Callable[[Opcode, Sequence[Cell]], Frames]] = {
    "one message": in_one,
    "a message each": one_each,
    "fragments, in the middle of each": fragments_in_the_middle,
    "messages, in the middle of each": messages_in_the_middle,
    "1 byte": partial(fragments_of, 1),
    "7 bytes": partial(fragments_of, 7),
}


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("channel", [TEXT, BINARY], ids=lambda channel: channel.id)
def test_cells_in_messages(
    channel: Channel,
    schedule: str,
    level: str,
    hear: Hear,
    record_property: Callable[[str, object], None],
) -> None:
    """And there are as many messages, of the same kind, as the server has sent."""
    found = writings(*names(level, schedule))
    cells = channel.lay(found, decoys=schedule != "1 byte")
    opcode = OPCODES[channel.id]
    frames = SCHEDULES[schedule](opcode, cells)
    heard = hear([*frames, END])

    assert heard[-1] == (Opcode.CLOSE, CODE + b"the end")
    assert {kind for kind, _ in heard[:-1]} == {opcode}
    assert len(heard) - 1 == len(read(b"".join(frames), masked=False))
    got = b"".join(payload for _, payload in heard[:-1])
    record_property("cells", len(cells))
    assert unlike(got, cells) == []
    assert detector().find(without(got, found)) == []


# --- control frames ------------------------------------------------------------------------------

CONTROL = Channel(
    "control",
    b"(%d:",
    b":%d)",
    fits=lambda w: max(len(w.text), len(w.decoy)) <= LARGEST - 20 and is_text(w.text + w.decoy),
)


def in_control(found: Sequence[Writing]) -> tuple[tuple[Cell, ...], list[bytes]]:
    """The cells, and the decoys, which have no room beside them."""
    return CONTROL.lay(found, decoys=False), [w.decoy for w in found if CONTROL.fits(w)]


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG], ids=["ping", "pong"])
def test_cells_in_pings_and_pongs(
    opcode: Opcode, level: str, hear: Hear, record_property: Callable[[str, object], None]
) -> None:
    found = writings(*names(level, "one message"))
    cells, decoys = in_control(found)
    heard = hear([*one_each(opcode, cells), *messages(opcode, decoys), END])

    assert [kind for kind, _ in heard[:-1]] == [opcode] * (len(cells) + len(decoys))
    said = [payload for _, payload in heard[:-1]]
    got = b"".join(said[: len(cells)])
    record_property("cells", len(cells))
    assert unlike(got, cells) == []
    assert said[len(cells) :] == decoys
    assert detector().find(got) == []


@pytest.mark.slow
def test_cells_in_the_reason_of_a_close(
    level: str, hear: Hear, record_property: Callable[[str, object], None]
) -> None:
    found = writings(*names(level, "one message"))
    cells, decoys = in_control(found)
    wrong = []
    for cell, decoy in zip(cells, decoys, strict=True):
        (heard,) = hear([frame(Opcode.CLOSE, CODE + b"".join(halves([cell])))])
        assert (heard[0], heard[1][:2]) == (Opcode.CLOSE, CODE)
        wrong += unlike(heard[1][2:], [cell])
        assert detector().find(heard[1]) == []
        assert hear([frame(Opcode.CLOSE, CODE + decoy)]) == [(Opcode.CLOSE, CODE + decoy)]
    record_property("cells", len(cells))
    assert wrong == []


# --- what makes it a matrix ----------------------------------------------------------------------


def test_most_writings_stand_in_each() -> None:
    """What is left out is no text, or does not fit into 125 bytes."""
    found = writings("token")

    assert len(found) >= 40
    assert len(BINARY.lay(found)) == len(found)
    assert len(TEXT.lay(found)) >= len(found) * 9 // 10
    assert len(CONTROL.lay(found)) >= 25


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_cell_can_fail(schedule: str) -> None:
    """As it would come without scrubbing."""
    cells = TEXT.lay(writings("token"))
    sent = read(b"".join(SCHEDULES[schedule](Opcode.TEXT, cells)), masked=False)

    assert len(unlike(b"".join(payload for _, payload in sent), cells)) == len(cells)
