"""G4 as a matrix: every spelling on every channel, in every coding, however it is cut.

One response holds a cell for each writing, in one channel of its head and in one of its body. It is
played at two levels. ``serve``: through the real `coatcheck serve`, each piece a TLS record of its
own; what the kernel puts together again is not ours to say. ``lane``: into the lane without a
socket, where a piece is a piece, and with more writings: those of a password full of characters
that are special somewhere, and those of a Basic token.

A cell passes if the writing became a mark, and the text around it and the same writing of a decoy
arrived byte for byte. Whatever the client got is searched for any eight bytes of a value by a
detector that knows none of the spellings (`tests/attacks/leaks.py`).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from coatcheck.core import spelling
from coatcheck.core.limits import Limits
from tests.attacks.leaks import Detector
from tests.e2e import harness
from tests.e2e.harness import Proxy, api_only
from tests.e2e.matrix import (
    BODY_CHANNELS,
    CODINGS,
    HEAD_CHANNELS,
    PASSWORD,
    SCHEDULES,
    TOKEN,
    Cell,
    Channel,
    Writing,
    halves,
    unlike,
    writings,
)
from tests.e2e.scripts import Scripts
from tests.e2e.wire import Answer, Wire
from tests.e2e.world import World
from tests.engine import wire as lanes
from tests.long import leave_to_long

HEAD_BYTES = 1 << 20
POLICY = harness.CLIENTS + 'grants:\n  - {secrets: ["*"], clients: [runner]}\n'
SETTINGS = f"limits:\n  head_bytes: {HEAD_BYTES}\n"
BASIC = "Authorization: Basic " + base64.b64encode(b"me:{{secrets.token}}").decode()
OURS = (b"content-length", b"transfer-encoding")
PAUSE_S = 0.001  # so that pieces are not all read at once

type Play = Callable[[Sequence[bytes]], Answer]


@pytest.fixture(scope="module")
def own_proxy(
    world: World, folder: Path, upstream_ca: Path, request: pytest.FixtureRequest
) -> Iterator[Proxy]:
    """For each module that takes it."""
    secrets = {"token": api_only(TOKEN), "password": api_only(PASSWORD)}
    home = harness.make_home(folder / request.module.__name__, secrets, POLICY, SETTINGS)
    made = Proxy(world, home, upstream_ca)
    try:
        yield made.wait_ready()
    finally:
        made.stop()


@cache
def detector() -> Detector:
    return Detector({"token": TOKEN, "password": PASSWORD})


# --- how a response is played --------------------------------------------------------------------


class Heard(Wire):
    """What a client got, to be read as it reads it."""

    def __init__(self, data: bytes) -> None:
        self.buffer = data

    def _receive(self) -> bytes:
        raise ConnectionError("there is no more")


def through_the_lane(pieces: Sequence[bytes]) -> Answer:
    gateway = lanes.a_gateway(
        limits=Limits(head_bytes=HEAD_BYTES), secrets={"token": TOKEN, "password": PASSWORD}
    )
    wire = lanes.Wire(gateway)
    wire.send(lanes.a_get(b"/", BASIC.encode(), b"TE: trailers"))
    return Heard(b"".join([wire.answer(piece) for piece in pieces])).read()


@pytest.fixture(params=["serve", "lane"])
def level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def play(level: str, request: pytest.FixtureRequest) -> Play:
    if level == "lane":
        return through_the_lane
    scripts: Scripts = request.getfixturevalue("scripts")
    proxy: Proxy = request.getfixturevalue("own_proxy")

    def play(pieces: Sequence[bytes]) -> Answer:
        path = scripts.add(*pieces, pause_s=PAUSE_S if len(pieces) < 500 else 0.0)
        with proxy.dial(harness.RUNNER).tunnel() as wire:
            return wire.get(path, BASIC, "TE: trailers")

    return play


def leaks_in(answer: Answer, found: Sequence[Writing]) -> list[str]:
    """What the detector finds in all that the client got, but for the framing and the decoys,
    which it would decode in vain."""
    fields = (key + b": " + value for key, value in answer.fields if key.lower() not in OURS)
    return _leaks_in(without(b"\r\n".join([answer.reason, *fields, b"", answer.body]), found))


@cache  # what arrives is the same, however it was coded and cut
def _leaks_in(data: bytes) -> list[str]:
    return [f"leak: {leak}" for leak in detector().find(data)]


# --- the response --------------------------------------------------------------------------------


def head_parts(channel: Channel, cells: Sequence[Cell], *lines: bytes) -> list[bytes]:
    """The head with *cells* in *channel*, cut in the middle of each; *lines* stand behind."""
    parts = halves(cells)
    before, after = {
        "reason phrase": (b"HTTP/1.1 200 ", b""),
        "header value": (b"HTTP/1.1 200 OK\r\nX-Echo: ", b""),
        "Location": (b"HTTP/1.1 302 Found\r\nLocation: https://x.test/?a=b", b""),
        "Set-Cookie": (b"HTTP/1.1 200 OK\r\nSet-Cookie: ", b"\r\nX-Between: 1\r\nSet-Cookie: b=2"),
        "WWW-Authenticate": (b"HTTP/1.1 401 No\r\nWWW-Authenticate: Digest ", b'realm="x"'),
    }[channel.id]
    parts[0] = before + parts[0]
    parts[-1] += b"." + after + b"\r\n" + b"\r\n".join([*lines, b"", b""])
    return parts


def head_text(channel: Channel, answer: Answer) -> bytes:
    """Where the cells stood, without what `head_parts` writes around them."""
    if channel.id == "reason phrase":
        text = answer.reason
    elif channel.id == "header value":
        text = answer.one("x-echo")
    elif channel.id == "Location":
        text = answer.one("location").removeprefix(b"https://x.test/?a=b")
    elif channel.id == "WWW-Authenticate":
        text = answer.one("www-authenticate").removeprefix(b"Digest ").removesuffix(b'realm="x"')
    else:
        text, second = answer.all("set-cookie")
        assert second == b"b=2"
    return text.removesuffix(b".")


@dataclass(frozen=True)
class Response:
    """What the upstream sends, and the cells in it."""

    pieces: list[bytes]
    in_head: tuple[Cell, ...]
    in_body: tuple[Cell, ...]


def response(
    head: Channel, body: Channel, coding: str, schedule: str, found: Sequence[Writing]
) -> Response:
    small = schedule in SMALL
    single = schedule == "1 byte"
    in_body = body.lay(found, decoys=not single)
    in_head = () if small and coding != "identity" else head.lay(found, decoys=not single)
    lines, code = CODINGS[coding]
    cut = SCHEDULES[schedule]
    parts = cut([part for part in code(halves(in_body)) if part])
    fields = [b"Content-Type: " + body.kind, *(b"Content-Encoding: " + line for line in lines)]
    fields.append(b"X-Last: 1")
    if schedule in ("whole", "7 bytes"):
        fields.append(b"Content-Length: %d" % sum(map(len, parts)))
    else:
        fields.append(b"Transfer-Encoding: chunked")
        parts = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]
        parts.append(b"0\r\n\r\n")
    pieces = [*cut(head_parts(head, in_head, *fields)), *parts]
    return Response(pieces if schedule != "whole" else [b"".join(pieces)], in_head, in_body)


# Small pieces take long: those of one secret, and a head, which is not coded, in one coding only;
# single bytes without decoys, too.
SMALL = ("1 byte", "7 bytes")


def names(level: str, schedule: str) -> tuple[str, ...]:
    everything = level == "lane" and schedule not in SMALL
    return ("token", "password", "basic") if everything else ("token",)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("coding", CODINGS)
def test_cells(
    coding: str,
    schedule: str,
    level: str,
    play: Play,
    record_property: Callable[[str, object], None],
) -> None:
    """Each channel of the head goes with one of the body, in the same coding and schedule.
    Through the whole program small pieces are joined again here and there; the lane gets each."""
    if level == "serve" and schedule in SMALL and coding not in ("identity", "gzip"):
        leave_to_long()
    count, wrong = 0, []
    for head, body in zip(HEAD_CHANNELS, BODY_CHANNELS, strict=True):
        found = writings(*names(level, schedule))
        sent = response(head, body, coding, schedule, found)
        answer = play(sent.pieces)

        wrong += [f"{head.id}: {one}" for one in unlike(head_text(head, answer), sent.in_head)]
        wrong += [f"{body.id}: {one}" for one in unlike(answer.body, sent.in_body)]
        wrong += leaks_in(answer, found)
        known = [key.lower() for key, _ in answer.fields if key.lower() not in OURS]
        assert known == names_of(head)
        assert answer.one("x-last") == b"1"
        count += len(sent.in_head) + len(sent.in_body)
    record_property("cells", count)
    assert wrong == []


def names_of(head: Channel) -> list[bytes]:
    """The fields of the head in their order: what was coded is not called so any more."""
    fields = {
        "reason phrase": [],
        "header value": [b"x-echo"],
        "Location": [b"location"],
        "Set-Cookie": [b"set-cookie", b"x-between", b"set-cookie"],
        "WWW-Authenticate": [b"www-authenticate"],
    }
    return [*fields[head.id], b"content-type", b"x-last"]


OUTSIDE = Channel("outside", b"(%d: ", b" :%d) ", fits=lambda writing: writing.fits_a_head)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("channel", ["103", "trailers"])
def test_cells_before_and_behind_a_response(
    channel: str,
    schedule: str,
    level: str,
    play: Play,
    record_property: Callable[[str, object], None],
) -> None:
    """No coding reaches them."""
    found = writings(*names(level, schedule))
    cells = OUTSIDE.lay(found, decoys=schedule != "1 byte")
    parts = halves(cells)
    parts[0] = b"X-Echo: " + parts[0]
    parts[-1] += b".\r\n\r\n"
    whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
    early = channel == "103"
    parts = [b"HTTP/1.1 103 Early\r\n", *parts, whole + b"\r\n"] if early else [whole, *parts]
    answer = play(SCHEDULES[schedule](parts))

    held = answer.interim[0] if early else answer.raw.rpartition(b"0\r\n")[2]
    assert answer.body == b"ok"
    text = held.partition(b"X-Echo: ")[2].removesuffix(b".\r\n\r\n")
    record_property("cells", len(cells))
    assert unlike(text, cells) == []
    assert detector().find(answer.raw if schedule == "1 byte" else without(held, found)) == []


def without(data: bytes, found: Sequence[Writing]) -> bytes:
    for writing in found:
        data = data.replace(writing.decoy, b"")
    return data


# --- what makes it a matrix ----------------------------------------------------------------------


def test_there_are_forty_spellings_and_every_row_is_one_of_them() -> None:
    ids = [writing.id for writing in writings("token", "password", "basic")]
    rows = {one.partition(": ")[2].partition(",")[0] for one in ids}

    assert len(writings("token")) >= 40
    assert rows | {spelling.RENDERED} == {row.id for row in spelling.SPELLINGS}


def test_a_writing_is_left_out_only_where_http_forbids_it() -> None:
    found = writings("token", "password", "basic")
    kept = {channel.id: len(channel.lay(found)) for channel in (*HEAD_CHANNELS, *BODY_CHANNELS)}

    assert kept["text/plain"] == kept["JSON"] == kept["binary"] == len(found)
    for channel in HEAD_CHANNELS:
        left_out = {w.id for w in found} - {cell.id for cell in channel.lay(found)}
        assert all("utf-" in one or ", " in one for one in left_out)
        assert kept[channel.id] >= len(found) * 3 // 4


@pytest.mark.parametrize("text", [b"\0", b"\x01", b"\r"], ids=["NUL", "a control", "a lone CR"])
def test_what_may_not_stand_in_a_head_is_withheld(text: bytes) -> None:
    """The cells that the head channels leave out."""
    answer = through_the_lane([b"HTTP/1.1 200 OK\r\nX-Echo: " + text + TOKEN + b"\r\n\r\n"])

    assert answer.code == "response_withheld"
    assert not detector().find(answer.raw)


@pytest.mark.parametrize("broken", ["a leak", "a decoy that is gone"])
def test_a_cell_can_fail(broken: str) -> None:
    """As it would come without scrubbing; and as from one that takes out too much."""
    cells = BODY_CHANNELS[0].lay(writings("token"))
    sent = b"".join(halves(cells))
    if broken == "a leak":
        assert len(unlike(sent, cells)) == len(cells)
        assert detector().find(sent)
    else:
        clean = through_the_lane(
            [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(sent), sent]
        ).body
        assert unlike(clean, cells) == []
        decoy = writings("token")[0].decoy
        assert unlike(clean.replace(decoy, b"********"), cells) != []
