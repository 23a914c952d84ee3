"""WebSockets through the running program, with a client and a server that are not ours."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.e2e.harness import (
    CLIENTS,
    HOSTS,
    IN_FORCE_S,
    RUNNER,
    Proxy,
    api_only,
    make_home,
    other_workers_follow,
    wait_until,
)
from tests.e2e.world import World

HOST, PORT = "api.example.test", 8446
KEY = b"ws-value-0123456789abcdef"
MASK = "********"
POLICY = CLIENTS + "grants:\n  - {secrets: [ws.key], clients: [runner], in: [websocket, header]}\n"
DENIED = POLICY + f"egress: {{deny: ['{HOST}:{PORT}']}}\n"
OPTIONS: dict[str, Any] = {"subprotocols": ["talk"], "proxy": None}
SLACK_S = 1.0  # this machine may be busy


class Talk:
    """A server that keeps what it hears and says what the first word asks for."""

    def __init__(self, world: World, authority: trustme.CA) -> None:
        self.heard: list[str | bytes] = []
        self.heads: list[Any] = []
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(HOST).configure_cert(context)
        listener = world.listen(HOSTS[HOST], PORT)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

        async def start() -> Server:
            return await serve(
                self._talk,
                sock=listener,
                ssl=context,
                subprotocols=["talk"],  # type: ignore[list-item]
            )

        self._server = asyncio.run_coroutine_threadsafe(start(), self._loop).result(10)

    async def _talk(self, to: ServerConnection) -> None:
        self.heads.append(to.request)
        with contextlib.suppress(ConnectionClosed):
            async for message in to:
                self.heard.append(message)
                await self._answer(to, message)

    async def _answer(self, to: ServerConnection, message: str | bytes) -> None:
        word, _, rest = (message if isinstance(message, str) else message.decode()).partition(" ")
        if word == "echo":
            await to.send(rest)
        elif word == "binary":
            await to.send(rest.encode())
        elif word == "base64":
            await to.send(base64.b64encode(b"x:" + rest.encode()).decode())
        elif word == "fragments":
            await to.send([rest[at : at + 3] for at in range(0, len(rest), 3)])
        elif word == "two":
            await to.send(rest[:12])
            await to.send(rest[12:])
        elif word == "ping":
            await to.ping(rest)
            await to.send("pinged")
        elif word == "close":
            await to.close(4000, rest)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        asyncio.run_coroutine_threadsafe(self._server.wait_closed(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture(scope="module")
def talk(world: World, authority: trustme.CA) -> Iterator[Talk]:
    made = Talk(world, authority)
    yield made
    made.close()


@pytest.fixture(scope="module")
def own(world: World, folder: Path, upstream_ca: Path) -> Iterator[Proxy]:
    secrets = {"ws.key": api_only(KEY, f"{HOST}:{PORT}")}
    settings = "limits:\n  websocket_hold_ms: 200\n"
    made = Proxy(world, make_home(folder / "ws", secrets, POLICY, settings), upstream_ca)
    try:
        yield made.wait_ready()
    finally:
        made.stop()


@contextlib.contextmanager
def opened(proxy: Proxy, **more: Any) -> Iterator[ClientConnection]:
    wire = proxy.dial(RUNNER).open_tunnel(HOST, PORT)
    try:
        # The TLS of the tunnel is there already, so the scheme says none.
        with connect(f"ws://{HOST}:{PORT}/talk", sock=wire.sock, **(OPTIONS | more)) as client:
            yield client
    finally:
        wire.close()


def test_a_placeholder_goes_out_as_a_value_and_comes_back_masked(own: Proxy, talk: Talk) -> None:
    talk.heard.clear()
    with opened(own) as client:
        client.send("echo a {{secrets.ws.key}} b")
        assert client.recv(10) == f"a {MASK} b"
        client.send(json.dumps({"k": "{{secrets.ws.key}}"}))
        client.send("echo done")
        assert client.recv(10) == "done"
    assert talk.heard[0] == f"echo a {KEY.decode()} b"
    assert json.loads(talk.heard[1]) == {"k": KEY.decode()}
    assert [line["secrets"] for line in own.audit() if line["event"] == "injection"]


def test_the_handshake_is_filled_in_and_offers_no_extension(own: Proxy, talk: Talk) -> None:
    talk.heads.clear()
    with opened(
        own,
        additional_headers={"X-Key": "{{secrets.ws.key}}"},
        compression="deflate",
    ) as client:
        assert client.subprotocol == "talk"
        client.send("echo " + "long " * 100)
        assert client.recv(10) == "long " * 100
    (head,) = talk.heads
    assert head.headers["X-Key"] == KEY.decode()
    assert "Sec-WebSocket-Extensions" not in head.headers


CHANNELS = [
    pytest.param("binary %s", MASK.encode(), id="binary"),
    pytest.param("base64 %s", MASK, id="another spelling"),
    pytest.param("fragments ä%s", "ä" + MASK, id="fragments"),
]


@pytest.mark.parametrize(("ask", "got"), CHANNELS)
def test_it_is_masked_in_every_kind_of_message(
    ask: str, got: str | bytes, own: Proxy, talk: Talk
) -> None:
    with opened(own) as client:
        client.send(ask % "{{secrets.ws.key}}")
        assert client.recv(10) == got


def test_two_messages_that_come_together_hold_no_half(own: Proxy, talk: Talk) -> None:
    with opened(own) as client:
        client.send("two {{secrets.ws.key}}")
        assert client.recv(10) == MASK
        assert client.recv(10) == ""


def test_the_payload_of_a_ping_and_the_reason_of_a_close(own: Proxy, talk: Talk) -> None:
    wire = own.dial(RUNNER).open_tunnel(HOST, PORT)
    try:
        with connect(f"ws://{HOST}:{PORT}/talk", sock=wire.sock, **OPTIONS) as client:
            client.send("ping {{secrets.ws.key}}")
            assert client.recv(10) == "pinged"
            client.send("close {{secrets.ws.key}}")
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(10)
    finally:
        wire.close()
    received = closed.value.rcvd
    assert received is not None
    assert (received.code, received.reason) == (4000, MASK)


def test_pings_of_a_client_reach_the_server_and_are_answered(own: Proxy, talk: Talk) -> None:
    with opened(own) as client:
        assert client.ping(b"are you there").wait(10)


def test_a_message_of_a_mebibyte_passes_both_ways(own: Proxy, talk: Talk) -> None:
    text = "xäyz" * 200_000
    with opened(own) as client:
        client.send("echo " + text)
        assert client.recv(20) == text


@pytest.mark.parametrize(
    ("said", "code", "reason"),
    [
        pytest.param("{{secrets.no}}", 1008, "coatcheck: secret_unavailable", id="no such secret"),
        pytest.param("x" * (1 << 20) + "x", 1009, "coatcheck: body_too_large", id="too long"),
    ],
)
def test_what_must_not_leave_closes(
    said: str, code: int, reason: str, own: Proxy, talk: Talk
) -> None:
    talk.heard.clear()
    with opened(own) as client:
        client.send(said)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(10)
    received = closed.value.rcvd
    assert received is not None
    assert (received.code, received.reason) == (code, reason)
    assert talk.heard == []


def test_a_denied_destination_is_no_websocket(own: Proxy, talk: Talk) -> None:
    own.policy.write_text(DENIED)
    try:
        wait_until(lambda: _refused(own), 5)
    finally:
        own.policy.write_text(POLICY)
        wait_until(lambda: not _refused(own), 5)
        other_workers_follow()


def _refused(proxy: Proxy) -> bool:
    try:
        with opened(proxy):
            return False
    except InvalidStatus as refused:
        return refused.response.status_code == 403


def test_a_change_of_policy_closes_what_is_open_within_a_second(own: Proxy, talk: Talk) -> None:
    with opened(own) as client:
        client.send("echo before")
        assert client.recv(10) == "before"
        begun = time.monotonic()
        own.policy.write_text(DENIED)
        try:
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(10)
            took = time.monotonic() - begun
        finally:
            own.policy.write_text(POLICY)
            wait_until(lambda: not _refused(own), 5)
            other_workers_follow()
    received = closed.value.rcvd
    assert received is not None
    assert (received.code, received.reason) == (1008, "coatcheck: destination_not_allowed")
    assert took < IN_FORCE_S + SLACK_S
