"""What takes long is done in turns: the bytes are the same, and nobody waits for all of it."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import random
import time
from pathlib import Path

import pytest

from coatcheck import policyfile
from coatcheck.core.snapshot import Snapshot
from coatcheck.core.websocket import FrameReader, Opcode, frame
from coatcheck.engine import answer, http1
from coatcheck.engine import turns as turns_module
from coatcheck.engine.turns import Turns
from tests.engine.sockets import HOST, Serve, a_proxy, an_upstream, get, read_answer
from tests.engine.test_websocket_lane import POLICY as SOCKET_POLICY
from tests.engine.test_websocket_lane import an_open_wire, to_upstream
from tests.engine.wire import OK, POLICY, VALUE, Wire, a_get, a_post
from tests.long import only_in_long

MIB = 1 << 20
SECRET = b"{{secrets.key}}"
MASK = b"\1\2\3\4"
WEBSOCKET_KEY = base64.b64encode(b"0123456789abcdef")
NOISE = (
    random.Random(7).randbytes(40_000).hex().encode()
)  # what cannot be packed: the ratio is bounded

# kind, coding, what it begins with, what is repeated, how often, what follows the placeholder
JSON, FORM, TEXT = b"application/json", b"application/x-www-form-urlencoded", b"text/plain"
XML, MULTIPART = b"application/xml", b"multipart/form-data; boundary=B-B"
PART = b'--B-B\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
BODIES = {
    "json, escapes": (JSON, b"[", b'{"\\u0073":1},', 78_000, b'"%b"]'),
    "json, levels": (JSON, b"[", b"[[[[[[1]]]]]],", 70_000, b'"%b"]'),
    "form, escapes": (FORM, b"", b"a=%73&", 170_000, b"a=%b"),
    "form, one long value": (FORM, b"a=", b"%73", 340_000, b"%b"),
    "multipart, boundaries that are none": (MULTIPART, PART, b"--B-B ", 145_000, b"%b\r\n--B-B--"),
    "xml, openers": (XML, b"<a>", b"{{secret", 125_000, b" %b</a>"),
    "text, openers": (TEXT, b"", b"{{secret", 125_000, b" %b"),
}
CODED = {
    "gzip of json": (JSON, b'["%b",' % NOISE, b'{"\\u0073":1},', 600_000, b'"%b"]'),
    "gzip of a form": (FORM, b"b=%b&" % NOISE, b"a=%73&", 1_300_000, b"a=%b"),
    "gzip of text": (TEXT, NOISE, b"{{secret", 500_000, b" %b"),
}


def a_body(which: str) -> tuple[bytes, bytes, bytes]:
    """Content-Type, the body, and the body as it has to arrive."""
    kind, begins, repeated, count, ends = {**BODIES, **CODED}[which]
    all_but = begins + repeated * count
    return kind, all_but + ends % SECRET, all_but + ends % VALUE


def unchunked(data: bytes) -> bytes:
    out, at = list[bytes](), 0
    while True:
        end = data.index(b"\r\n", at)
        size = int(data[at:end], 16)
        if not size:
            return b"".join(out)
        out.append(data[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


def collecting(bodies: list[bytes]) -> Serve:
    """Answers each request once it has come to its end; keeps the bodies."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := (await reader.readuntil(b"\r\n\r\n")).lower():
            _, length, after = head.partition(b"content-length: ")
            if length:
                bodies.append(await reader.readexactly(int(after.partition(b"\r\n")[0])))
            elif b"chunked" in head:
                chunks = []
                while size := int(await reader.readuntil(b"\r\n"), 16):
                    chunks.append((await reader.readexactly(size + 2))[:-2])
                await reader.readexactly(2)
                bodies.append(b"".join(chunks))
            writer.write(OK)

    return serve


async def bystander(port: int, upstream: int, over: asyncio.Event) -> list[float]:
    """How long each of an honest client's small requests has waited until *over*."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    waits = []
    began = time.monotonic()  # the pause counts too: it may be what is held up
    while not over.is_set():
        writer.write(get(upstream, "/small"))
        await read_answer(reader)
        waits.append(time.monotonic() - began)
        began = time.monotonic()
        await asyncio.sleep(0.005)
    writer.transport.abort()
    return waits


ALWAYS = ("json, escapes", "form, one long value", "text, openers", "gzip of json")


@pytest.mark.parametrize(
    "which",
    [
        pytest.param(name, marks=[] if name in ALWAYS else only_in_long)
        for name in (*BODIES, *CODED)
    ],
)
async def test_others_are_served_while_a_body_is_worked_on(which: str, tmp_path: Path) -> None:
    kind, body, arrives = a_body(which)
    coding = b"Content-Encoding: gzip\r\n" if which in CODED else b""
    sent = gzip.compress(body, 6) if coding else body
    bodies: list[bytes] = []
    async with (
        an_upstream(collecting(bodies)) as upstream,
        a_proxy(tmp_path, upstream.port) as proxy,
    ):
        over = asyncio.Event()
        others = asyncio.create_task(bystander(proxy.port, upstream.port, over))
        await asyncio.sleep(0.05)
        host = b"%b:%d" % (HOST.encode(), upstream.port)
        reader, writer = await proxy.connect()
        writer.write(
            b"POST http://%b/large HTTP/1.1\r\nHost: %b\r\nContent-Type: %b\r\n%b"
            % (host, host, kind, coding)
            + b"Content-Length: %d\r\n\r\n" % len(sent)
            + sent
        )
        async with asyncio.timeout(60):
            head = await reader.readuntil(b"\r\n\r\n")
        over.set()
        waits = await others
        writer.transport.abort()

    assert head.startswith(b"HTTP/1.1 200 ")
    assert max(waits) < 1.0
    assert bodies == [arrives], "and byte for byte the same, with the value at its end"


async def test_others_are_served_while_an_answer_is_worked_on(tmp_path: Path) -> None:
    """Many clients have a small answer each that stands for a large one."""
    body = NOISE * 3 + b"a" * 16 * MIB
    packed, clients = gzip.compress(body), 8

    async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if b"/small" in head:
                writer.write(OK)
            else:
                writer.write(an_answer(packed))

    async def download(port: int, upstream: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=MIB)
        writer.write(get(upstream, "/large"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"chunked" in head
        found = hashlib.sha256()
        while size := int(await reader.readuntil(b"\r\n"), 16):
            found.update((await reader.readexactly(size + 2))[:-2])
        writer.transport.abort()
        return found.digest()

    async with (
        an_upstream(answering) as upstream,
        a_proxy(tmp_path, upstream.port) as proxy,
    ):
        over = asyncio.Event()
        others = asyncio.create_task(bystander(proxy.port, upstream.port, over))
        await asyncio.sleep(0.05)
        async with asyncio.timeout(60):
            got = await asyncio.gather(
                *(download(proxy.port, upstream.port) for _ in range(clients))
            )
        over.set()
        waits = await others

    assert set(got) == {hashlib.sha256(body).digest()}
    assert max(waits) < 1.0


async def test_an_answer_waits_for_a_client_that_does_not_read(tmp_path: Path) -> None:
    body = NOISE * 8 + b"a" * 48 * MIB
    packed = gzip.compress(body)

    async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(an_answer(packed))
        await reader.read()
        writer.close()

    async with (
        an_upstream(answering) as upstream,
        a_proxy(tmp_path, upstream.port) as proxy,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, limit=MIB)
        writer.write(get(upstream.port, "/large", "Connection: close"))
        head = await reader.readuntil(b"\r\n\r\n")
        (connection,) = proxy.server.connections
        most = 0
        for _ in range(50):
            await asyncio.sleep(0.01)
            most = max(most, len(connection._client._backlog))
        data = await reader.read(-1)
        writer.close()

    assert hashlib.sha256(unchunked(data)).digest() == hashlib.sha256(body).digest()
    assert b"chunked" in head
    assert most < 2 * answer.KEPT, "of 49 MiB"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n"


def an_answer(packed: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(packed) + packed


async def test_others_are_served_while_a_websocket_message_is_worked_on(tmp_path: Path) -> None:
    received = bytearray()

    async def switching(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if b"Upgrade" not in head:
                writer.write(OK)
                continue
            guid = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            accept = base64.b64encode(hashlib.sha1(WEBSOCKET_KEY + guid).digest())
            writer.write(
                b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
            )
            while data := await reader.read(MIB):
                received.extend(data)
                if read(received) is not None:
                    writer.write(frame(Opcode.TEXT, b"ok"))

    _, message, arrives = a_body("json, levels")
    policy = POLICY.replace("plaintext: true", "plaintext: true, in: [websocket, body]")
    async with (
        an_upstream(switching) as upstream,
        a_proxy(tmp_path, upstream.port, policy=policy) as proxy,
    ):
        over = asyncio.Event()
        others = asyncio.create_task(bystander(proxy.port, upstream.port, over))
        reader, writer = await proxy.connect()
        writer.write(
            get(
                upstream.port,
                "/ws",
                "Upgrade: websocket",
                "Connection: Upgrade",
                "Sec-WebSocket-Version: 13",
                f"Sec-WebSocket-Key: {WEBSOCKET_KEY.decode()}",
            )
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.write(frame(Opcode.TEXT, message, key=MASK))
        async with asyncio.timeout(60):
            assert await reader.readexactly(4) == frame(Opcode.TEXT, b"ok")
        over.set()
        waits = await others
        writer.transport.abort()

    assert max(waits) < 1.0
    assert read(received) == arrives


def read(data: bytes | bytearray) -> bytes | None:
    """The one text message in *data*; None as long as it is not whole."""
    parts = [one for one in FrameReader(masked=True).feed(bytes(data)) if not one.is_control]
    return b"".join(part.payload for part in parts) if parts and parts[-1].ends else None


# --- in the middle of it -----------------------------------------------------------------------


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step takes a turn of its own."""
    monkeypatch.setattr(turns_module, "TURN_S", -1.0)
    monkeypatch.setattr(turns_module, "FIRST_TURN_S", -1.0)


COLLECTED = b'["' + b"a" * 20_000 + b'", "%b"]'
PACKED = gzip.compress(COLLECTED % SECRET)


def a_collected(text: bytes = SECRET) -> bytes:
    return a_post(COLLECTED % text)


def a_streamed() -> bytes:
    return a_post(PACKED, b"Content-Length: %d" % len(PACKED), b"Content-Encoding: gzip")


def in_the_middle(request: bytes, turns: int = 2) -> Wire:
    """*request* is read, and after some turns there is still work to do."""
    wire = Wire()
    wire.others_turn = True
    wire.send(request)
    for _ in range(turns):
        wire.take_turn()
    assert wire.turns
    return wire


def to_the_end(wire: Wire) -> bytes:
    """All turns that are left; returns what the client has got."""
    got = b""
    while wire.turns or wire.answer_turns:
        got += wire.take_turn() if wire.turns else wire.take_answer_turn()
    return got


@pytest.mark.usefixtures("slow")
def test_nothing_of_a_collected_body_is_dialled_for_before_all_of_it_is_judged() -> None:
    wire = in_the_middle(a_collected())

    assert wire.upstreams == []
    to_the_end(wire)

    assert wire.received().endswith(COLLECTED % VALUE)


@pytest.mark.usefixtures("slow")
def test_a_refusal_at_its_end_is_as_at_its_beginning_and_the_connection_is_kept() -> None:
    wire = in_the_middle(a_collected(b"{{secrets.nobody}}") + a_get(b"/next"), turns=1)

    got = to_the_end(wire)

    assert got.startswith(b"HTTP/1.1 403 ")
    assert b"a" * 100 not in wire.received()
    assert len(wire.upstreams) == 1, "of the next request, which was read"


@pytest.mark.usefixtures("slow")
def test_a_streamed_body_leaves_bit_by_bit_and_in_order() -> None:
    wire = in_the_middle(a_streamed())

    first = wire.received()
    to_the_end(wire)
    _, _, body = (first + wire.received()).partition(b"\r\n\r\n")

    assert b"aaa" in first
    assert http1.LAST_CHUNK not in first
    assert unchunked(body) == COLLECTED % VALUE


@pytest.mark.usefixtures("slow")
def test_what_is_sent_ahead_waits_for_it() -> None:
    wire = in_the_middle(a_streamed() + a_get(b"/next"))

    to_the_end(wire)
    assert b"/next" not in wire.received()

    wire.answer(OK)
    assert b"GET /next HTTP/1.1" in wire.received()


@pytest.mark.usefixtures("slow")
def test_an_answer_that_comes_before_all_has_left_ends_both_connections() -> None:
    wire = in_the_middle(a_streamed() + a_get(b"/next"))
    wire.received()

    got = wire.answer(OK)
    got += to_the_end(wire)

    assert b"Connection: close" in got
    assert wire.upstream.closed, "or the rest of the body would be taken for a request"
    assert wire.received() == b""
    assert len(wire.upstreams) == 1


@pytest.mark.usefixtures("slow")
def test_an_upstream_that_goes_is_told_and_the_rest_dropped() -> None:
    wire = in_the_middle(a_streamed())
    wire.received()

    got = wire.hang_up() + to_the_end(wire)

    assert got.startswith(b"HTTP/1.1 502 ")
    assert wire.received() == b""


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("request_", [a_collected(), a_streamed()], ids=["collected", "streamed"])
def test_a_client_that_goes_takes_the_rest_with_it(request_: bytes) -> None:
    wire = in_the_middle(request_, turns=1)
    wire.leave()

    to_the_end(wire)

    assert wire.closed
    assert all(VALUE not in upstream.received for upstream in wire.upstreams)
    assert "engine.crash" not in wire.events
    assert "lane.internal_error" not in wire.events


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("change", ["", "in: [header]"], ids=["none", "the grant is withdrawn"])
def test_a_message_is_judged_by_the_policy_in_force_at_its_end(change: str) -> None:
    wire = an_open_wire()
    wire.others_turn = True
    message = b"a" * 20_000 + SECRET
    wire.send(frame(Opcode.TEXT, message, key=MASK))
    wire.take_turn()
    if change:
        withdrawn = SOCKET_POLICY.replace("in: [websocket, header]", change)
        gateway = wire.gateway
        gateway.install(Snapshot(policyfile.parse(withdrawn, "policy.yaml"), gateway.snapshot.view))

    to_the_end(wire)

    sent = to_upstream(wire)
    assert [payload for kind, payload in sent if kind is Opcode.TEXT] == (
        [] if change else [b"a" * 20_000 + VALUE]
    )


# --- in the middle of an answer ----------------------------------------------------------------

LONG = b"b" * 150_000 + VALUE + b"b" * 150_000
SCRUBBED = LONG.replace(VALUE, b"*" * 8)


def in_the_middle_of_an_answer(whole: bytes, ahead: bytes = b"", turns: int = 2) -> Wire:
    """*whole* has come, and after some turns there is still work to do."""
    wire = Wire()
    wire.send(a_get(b"/", b"X: " + SECRET) + ahead)
    wire.others_turn = True
    assert wire.answer(whole) == b"", "nothing of it leaves before its first can be read"
    for _ in range(turns):
        assert wire.take_answer_turn() == b""
    assert wire.answer_turns == 1
    return wire


def the_body(got: bytes) -> bytes:
    assert got.startswith(b"HTTP/1.1 200 "), got[:100]
    return unchunked(got.partition(b"\r\n\r\n")[2])


@pytest.mark.usefixtures("slow")
def test_an_answer_in_turns_is_the_same() -> None:
    wire = in_the_middle_of_an_answer(an_answer(gzip.compress(LONG)), ahead=a_get(b"/next"))

    assert the_body(to_the_end(wire)) == SCRUBBED
    assert b"/next" in wire.received(), "what was sent ahead comes next"
    assert wire.audit[-1]["event"] != "refused"


@pytest.mark.usefixtures("slow")
def test_what_breaks_in_the_first_of_an_answer_is_told() -> None:
    packed = gzip.compress(LONG)
    wire = in_the_middle_of_an_answer(an_answer(packed[:-8] + b"\0" * 8))

    got = to_the_end(wire)

    assert got.startswith(b"HTTP/1.1 502 ")
    assert b"response_withheld" in got
    assert b"bbb" not in got


@pytest.mark.usefixtures("slow")
def test_of_an_answer_little_is_kept() -> None:
    body = NOISE + b"b" * 2 * answer.KEPT
    wire = in_the_middle_of_an_answer(an_answer(gzip.compress(body)))
    got, most = b"", 0
    while wire.answer_turns:
        most = max(most, len(step := wire.take_answer_turn()))
        got += step

    assert the_body(got) == body
    assert answer.KEPT < most < answer.KEPT + MIB


@pytest.mark.usefixtures("slow")
def test_what_breaks_later_in_an_answer_has_no_end() -> None:
    packed = gzip.compress(random.Random(8).randbytes(200_000)) + b"no member of gzip"
    wire = Wire()
    wire.send(a_get())
    wire.others_turn = True
    got = wire.answer(an_answer(packed)[:100_000]) + to_the_end(wire)
    assert got.startswith(b"HTTP/1.1 200 ")

    got = wire.answer(an_answer(packed)[100_000:])
    assert not wire.closed
    got += to_the_end(wire)

    assert wire.closed
    assert http1.LAST_CHUNK not in got


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("framing", [b"Content-Length: %d\r\n", b""], ids=["length", "close"])
def test_an_upstream_that_goes_does_not_cut_what_it_has_sent(framing: bytes) -> None:
    packed = gzip.compress(LONG)
    fields = framing % len(packed) if framing else b""
    wire = in_the_middle_of_an_answer(HEAD + fields + b"\r\n" + packed)

    got = wire.hang_up() + to_the_end(wire)

    assert the_body(got) == SCRUBBED


@pytest.mark.usefixtures("slow")
def test_an_upstream_that_goes_too_early_is_noticed() -> None:
    packed = gzip.compress(LONG)
    wire = in_the_middle_of_an_answer(
        HEAD + b"Content-Length: %d\r\n\r\n" % (len(packed) + 1) + packed
    )

    got = wire.hang_up() + to_the_end(wire)

    assert wire.closed
    assert not got.endswith(http1.LAST_CHUNK)


@pytest.mark.usefixtures("slow")
def test_a_client_that_goes_takes_the_rest_of_its_answer_with_it() -> None:
    wire = in_the_middle_of_an_answer(an_answer(gzip.compress(LONG)))
    wire.leave()

    assert to_the_end(wire) == b""
    assert wire.closed
    assert "lane.internal_error" not in wire.events
    assert "engine.crash" not in wire.events


@pytest.mark.usefixtures("slow")
def test_more_of_an_answer_in_the_middle_of_it_is_never_forwarded() -> None:
    """The channel is not read meanwhile; were it read all the same, bytes would be lost."""
    packed = gzip.compress(LONG)
    wire = in_the_middle_of_an_answer(an_answer(packed)[:-4])

    got = wire.answer(packed[-4:]) + to_the_end(wire)

    assert got.startswith(b"HTTP/1.1 500 ")
    assert b"bbb" not in got


async def test_of_all_that_wait_one_has_its_turn_between_two_looks_for_packets() -> None:
    loop = asyncio.get_running_loop()
    turns, done = Turns(loop), list[str]()
    for name in "abc":
        turns.ask(lambda name=name: done.append(name))  # type: ignore[misc]

    seen = []
    for _ in range(3):
        await asyncio.sleep(0)
        seen.append("".join(done))

    assert seen == ["a", "ab", "abc"]
