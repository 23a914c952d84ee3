"""Which TLS sessions with upstreams are resumed, and that resuming one never replaces a proof."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from coatcheck.core.limits import Limits
from coatcheck.core.problems import Refused
from coatcheck.engine import sessions as sessions_module
from coatcheck.engine import tls
from coatcheck.engine.channel import Channel
from coatcheck.engine.dialer import Dialer
from coatcheck.engine.sessions import LIFE_S, Sessions, Verified
from tests.engine.sockets import HOST, Resolves, a_proxy, an_upstream, get, read_answer, until
from tests.engine.test_channel import Listening
from tests.engine.wire import OK

CA = trustme.CA()
OTHER = trustme.CA()


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    path = tmp_path / "upstream-ca.pem"
    CA.cert_pem.write_to_path(path)
    return path


def a_context(
    authority: trustme.CA = CA,
    *names: str,
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = version
    authority.issue_cert(*(names or (HOST,))).configure_cert(context)
    return context


@dataclass
class Origin:
    """A TLS server that says a word on each connection, and how each came about."""

    port: int = 0
    resumed: list[bool] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.resumed.append(writer.get_extra_info("ssl_object").session_reused)
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(OK)


@contextlib.asynccontextmanager
async def an_origin(context: ssl.SSLContext) -> AsyncIterator[Origin]:
    origin = Origin()
    async with an_upstream(origin, context) as upstream:
        origin.port = upstream.port
        yield origin


def a_dialer(ca: Path | None, *, sparing: bool = False, **limits: Any) -> Dialer:
    """*sparing*: as on a Python that loses memory when a session is read."""
    dialer = Dialer(Resolves(), tls.upstream_context(ca), Limits(**limits), tuple)  # type: ignore[arg-type]
    dialer._sessions.sparing = sparing
    return dialer


async def connected(dialer: Dialer, port: int, host: str = HOST) -> Channel:
    """A connection over which a question and an answer have gone, so that a ticket has come."""
    owner = Listening()
    channel = await dialer.dial(host, port, tls=True, owner=owner)
    channel.resume()
    channel.write(b"GET / HTTP/1.1\r\n\r\n")
    await until(lambda: owner.data == OK)
    return channel


async def visit(dialer: Dialer, port: int, host: str = HOST) -> None:
    channel = await connected(dialer, port, host)
    dialer.remember(channel)
    channel.close()


# --- resumed, or not -------------------------------------------------------------------------


both_ways = pytest.mark.parametrize("sparing", [False, True], ids=["once", "sparing"])


@both_ways
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_next_connection_resumes_and_so_does_the_one_behind_it(
    version: ssl.TLSVersion, ca_file: Path, sparing: bool
) -> None:
    dialer = a_dialer(ca_file, sparing=sparing)
    async with an_origin(a_context(version=version)) as origin:
        for _ in range(3):
            await visit(dialer, origin.port)

    assert origin.resumed == [False, True, True]


@both_ways
async def test_a_session_is_for_its_own_host(ca_file: Path, sparing: bool) -> None:
    """One server, one port, and a certificate that is good for the first name alone."""
    dialer = a_dialer(ca_file, sparing=sparing)
    async with an_origin(a_context(CA, HOST)) as origin:
        await visit(dialer, origin.port)
        with pytest.raises(Refused):
            await visit(dialer, origin.port, "other.example.com")
        await visit(dialer, origin.port)

    assert origin.resumed == [False, True]


@both_ways
async def test_a_session_is_for_its_own_port(ca_file: Path, sparing: bool) -> None:
    dialer, context = a_dialer(ca_file, sparing=sparing), a_context()
    async with an_origin(context) as origin, an_origin(context) as beside:
        await visit(dialer, origin.port)
        await visit(dialer, beside.port)

    assert beside.resumed == [False]


async def test_a_session_is_used_once(ca_file: Path) -> None:
    dialer = a_dialer(ca_file)
    async with an_origin(a_context()) as origin:
        await visit(dialer, origin.port)
        at_once = await asyncio.gather(*(connected(dialer, origin.port) for _ in range(3)))
        for channel in at_once:
            channel.close()

    assert sorted(origin.resumed[1:]) == [False, False, True]


async def test_a_connection_is_remembered_once(ca_file: Path) -> None:
    """It may be left more than once, and its session would be used as often."""
    dialer = a_dialer(ca_file)
    async with an_origin(a_context()) as origin:
        channel = await connected(dialer, origin.port)
        for _ in range(3):
            dialer.remember(channel)
        at_once = await asyncio.gather(*(connected(dialer, origin.port) for _ in range(2)))
        for one in (channel, *at_once):
            one.close()

    assert origin.resumed.count(True) == 1


async def test_without_a_ticket_nothing_is_kept(ca_file: Path) -> None:
    context = a_context()
    context.num_tickets = 0
    dialer = a_dialer(ca_file)
    async with an_origin(context) as origin:
        for _ in range(2):
            await visit(dialer, origin.port)

    assert origin.resumed == [False, False]


# --- proof -----------------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize(
    ("context", "good"),
    [
        pytest.param(a_context(), True, id="a good one"),
        pytest.param(a_context(OTHER), False, id="one of an unknown CA"),
        pytest.param(a_context(CA, "other.example.com"), False, id="one of another name"),
    ],
)
async def test_who_does_not_have_the_session_shows_a_certificate(
    context: ssl.SSLContext, good: bool, ca_file: Path, sparing: bool
) -> None:
    """Whoever stands at the address now, with keys of its own."""
    dialer = a_dialer(ca_file, sparing=sparing)
    first = a_context()
    async with an_origin(first) as origin:
        await visit(dialer, origin.port)
    later = Origin()
    server = await asyncio.start_server(later, "127.0.0.1", origin.port, ssl=context)
    try:
        if good:
            await visit(dialer, origin.port)
        else:
            with pytest.raises(Refused):
                await visit(dialer, origin.port)
    finally:
        server.close()
        server.close_clients()

    assert later.resumed == ([False] if good else [])


async def test_another_trust_store_starts_anew(ca_file: Path) -> None:
    """The sessions are the dialer's, and its context is settled when it is made."""
    before, after = a_dialer(ca_file), a_dialer(None)
    async with an_origin(a_context()) as origin:
        await visit(before, origin.port)
        with pytest.raises(Refused):
            await visit(after, origin.port)
        await visit(before, origin.port)

    assert origin.resumed == [False, True]


@pytest.mark.parametrize(
    ("steps", "resumed"),
    [
        pytest.param([LIFE_S - 1], [False, True], id="in time"),
        pytest.param([LIFE_S + 1], [False, False], id="too late"),
        pytest.param(
            [LIFE_S - 1, 2],
            [False, True, False],
            id="a session of a resumed connection is as old as the proof",
        ),
    ],
)
@both_ways
async def test_a_proof_has_its_time(
    steps: list[float],
    resumed: list[bool],
    ca_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    sparing: bool,
) -> None:
    dialer = a_dialer(ca_file, sparing=sparing)
    clock = 0.0
    monkeypatch.setattr(dialer._sessions, "now", lambda: dialer._loop.time() + clock)
    async with an_origin(a_context()) as origin:
        await visit(dialer, origin.port)
        for step in steps:
            clock += step
            await visit(dialer, origin.port)

    assert origin.resumed == resumed


# --- failures --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failures", "good"),
    [
        pytest.param(1, True, id="at the session alone"),
        pytest.param(2, False, id="and at a full handshake too"),
    ],
)
async def test_a_handshake_that_breaks_is_tried_without_a_session(
    failures: int, good: bool, ca_file: Path
) -> None:
    dialer = a_dialer(ca_file)
    async with an_origin(a_context()) as origin:
        await visit(dialer, origin.port)
        left = failures

        async def stumbling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal left
            if left:
                left -= 1
                await reader.read(1)
                writer.transport.abort()
                return
            there, back = await asyncio.open_connection("127.0.0.1", origin.port)
            try:
                await asyncio.gather(copy(reader, back), copy(there, writer))
            finally:
                back.transport.abort()

        async with an_upstream(stumbling) as upstream:
            # What was kept for the origin is offered to what stands in front of it now.
            verified = Verified(HOST, upstream.port, asyncio.get_running_loop().time())
            channel = await connected(dialer, origin.port)
            assert channel.tls is not None
            dialer._sessions.keep(verified, channel.tls)
            channel.close()
            before = len(origin.resumed)
            if good:
                await visit(dialer, upstream.port)
                assert origin.resumed[before:] == [False]
            else:
                with pytest.raises(Refused):
                    await visit(dialer, upstream.port)
            assert not left


async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(1 << 16):
        target.write(data)
    target.close()


# --- how many --------------------------------------------------------------------------------


async def test_hosts_and_their_sessions_are_bounded(
    ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_module, "HOSTS", 2)
    monkeypatch.setattr(sessions_module, "PER_HOST", 3)
    dialer = a_dialer(ca_file)
    kept = Sessions(lambda: 0.0, sparing=False)
    async with an_origin(a_context()) as origin:
        channel = await connected(dialer, origin.port)
        assert channel.tls is not None
        for host in ("a", "b", "a", "c"):
            for _ in range(4):
                kept.keep(Verified(host, 443, 0.0), channel.tls)
        channel.close()

    assert kept.take("b", 443) is None, "it was used least recently"
    for host in ("a", "c"):
        assert [kept.take(host, 443) is not None for _ in range(4)] == [True, True, True, False]


# --- where reading one loses memory ----------------------------------------------------------


class Reads:
    """An open connection, of which it is counted how often its session was read."""

    def __init__(self, tls: ssl.SSLObject | None) -> None:
        self.tls = tls
        self.reads = 0

    @property
    def session(self) -> ssl.SSLSession | None:
        self.reads += 1
        return self.tls.session if self.tls is not None else None


@pytest.mark.parametrize(
    ("version", "loses"),
    [
        ((3, 12, 1), True),
        ((3, 12, 7), True),
        ((3, 12, 8), False),
        ((3, 13, 0), True),
        ((3, 13, 1), False),
        ((3, 14, 0), False),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_which_pythons_lose_memory(version: tuple[int, ...], loses: bool) -> None:
    assert sessions_module.reading_loses(version) is loses


def test_this_python_is_treated_as_what_it_is() -> None:
    here = sessions_module.reading_loses(sys.version_info[:3])
    assert Sessions(lambda: 0.0).sparing is here


async def test_there_a_session_is_used_again_and_few_are_read(ca_file: Path) -> None:
    dialer, clock = a_dialer(ca_file, sparing=True), 0.0
    kept = Sessions(lambda: clock, sparing=True)
    async with an_origin(a_context()) as origin:
        channel = await connected(dialer, origin.port)
        tls = Reads(channel.tls)
        for host in ("a", "b"):
            for clock in range(0, 121, 10):
                kept.keep(Verified(host, 443, clock), tls)  # type: ignore[arg-type]
            assert tls.reads == 3, "at 0, 60 and 120"
            tls.reads = 0
            first, second = kept.take(host, 443), kept.take(host, 443)
            assert first is second is not None
        channel.close()


async def test_there_many_connections_resume_at_once(ca_file: Path) -> None:
    dialer = a_dialer(ca_file, sparing=True)
    async with an_origin(a_context()) as origin:
        await visit(dialer, origin.port)
        at_once = await asyncio.gather(*(connected(dialer, origin.port) for _ in range(3)))
        for channel in at_once:
            dialer.remember(channel)
            channel.close()

    assert origin.resumed == [False, True, True, True]


def test_there_a_server_without_sessions_is_asked_seldom() -> None:
    tls, clock = Reads(None), 0.0
    kept = Sessions(lambda: clock, sparing=True)
    for clock in range(60):
        kept.keep(Verified("a", 443, clock), tls)  # type: ignore[arg-type]

    assert tls.reads == 1
    assert kept.take("a", 443) is None


def test_there_what_is_known_of_hosts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "HOSTS", 2)
    kept = Sessions(lambda: 0.0, sparing=True)
    for number in range(9):
        kept.keep(Verified(f"{number}", 443, 0.0), Reads(None))  # type: ignore[arg-type]

    assert len(kept._read) == 2


# --- on the wire -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ending", ["the client leaves", "the upstream closes", "another destination", "it rested"]
)
async def test_a_request_on_a_fresh_connection_resumes(
    ending: str, tmp_path: Path, ca_file: Path
) -> None:
    limits = Limits(upstream_idle_s=3600 if ending == "it rested" else 0)
    closes = ending == "the upstream closes"

    class Answering(Origin):
        async def __call__(
            self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            self.resumed.append(writer.get_extra_info("ssl_object").session_reused)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) if closes else OK)
            if closes:
                writer.close()
            await reader.read()

    origin = Answering()
    async with (
        an_upstream(origin, a_context()) as upstream,
        a_proxy(tmp_path, upstream.port, upstream_ca=ca_file, limits=limits) as proxy,
    ):
        for _ in range(2):
            # The target of a plain proxy request may be https too.
            reader, writer = await proxy.connect()
            writer.write(get(upstream.port).replace(b"http:", b"https:"))
            assert (await read_answer(reader)).startswith(b"HTTP/1.1 200 ")
            if ending == "another destination":
                writer.write(get(1))
                await read_answer(reader)
            writer.close()
            await until(lambda: not proxy.server.connections)
            proxy.server.pool.close()
            await until(lambda: not upstream.open)

    assert origin.resumed == [False, True]
