"""Through an upstream proxy: what it is asked, what it is shown, what it may say."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from coatcheck.core.limits import Limits
from coatcheck.core.problems import Refused
from coatcheck.engine import tls
from coatcheck.engine.channel import Channel
from coatcheck.engine.dialer import Dialer
from coatcheck.engine.resolver import Resolver
from coatcheck.engine.via import ProxyError, Tunnels, UpstreamProxy, upstream_proxy
from tests.engine.parents import Parent
from tests.engine.sockets import HOST, Resolves, an_upstream, server_context, until
from tests.engine.test_channel import Listening

CA = trustme.CA()
OTHER = trustme.CA()
CREDENTIAL = b"user:SENTINEL-pass"
WORD = b"a word\r\n\r\n"


@pytest.fixture(autouse=True)
async def _closed() -> AsyncIterator[None]:
    """A transport that was aborted closes its socket a turn or two of the loop later."""
    yield
    await asyncio.sleep(0.02)


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    CA.cert_pem.write_to_path(path)
    return path


def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


@contextlib.contextmanager
def a_parent(**more: Any) -> Any:
    made = Parent(listener(), **more)
    try:
        yield made
    finally:
        made.close()


class Way:
    """A dialer whose every connection goes by *parent*."""

    def __init__(
        self, parent: Parent, ca: Path, *addresses: str, resolver: Any = None, **more: Any
    ) -> None:
        self.said: list[str] = []
        proxy = UpstreamProxy("127.0.0.1", parent.port, **more)
        tunnels = Tunnels(proxy, lambda event, **fields: self.said.append(f"{event} {fields}"))
        limits = Limits(connect_timeout_s=1.0, tls_handshake_timeout_s=1.0)
        found = resolver or Resolves(*addresses)
        self.dialer = Dialer(found, tls.upstream_context(ca), limits, tuple, tunnels)

    async def dial(self, port: int, *, secure: bool = True) -> str:
        """Dial and say a word; the code of the refusal, or "" where it was answered."""
        owner = Listening()
        async with asyncio.timeout(5):
            try:
                channel: Channel = await self.dialer.dial(HOST, port, tls=secure, owner=owner)
            except Refused as refused:
                return str(refused.problem.code)
            channel.resume()
            channel.write(WORD)
            await until(lambda: b"200 OK" in bytes(owner.data))
            channel.close()
            return ""


@pytest.fixture(params=["http", "https"])
async def secure_parent(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Parent, Any]]:
    """A parent, and what verifies it."""
    if request.param == "http":
        with a_parent() as parent:
            yield parent, None
        return
    context = server_context(CA.issue_cert("127.0.0.1"))
    trusting = ssl.create_default_context(cadata=CA.cert_pem.bytes().decode())
    with a_parent(context=context) as parent:
        yield parent, trusting


@pytest.mark.parametrize("secure", [True, False], ids=["an https destination", "an http one"])
async def test_the_vetted_address_is_asked_for_and_the_name_is_verified(
    secure_parent: tuple[Parent, Any], ca_file: Path, secure: bool
) -> None:
    parent, context = secure_parent
    certificate = server_context(CA.issue_cert(HOST)) if secure else None
    async with an_upstream(context=certificate) as upstream:
        way = Way(parent, ca_file, context=context)

        assert await way.dial(upstream.port, secure=secure) == ""

        assert parent.targets == [f"127.0.0.1:{upstream.port}"]
        assert bytes(upstream.received) == WORD
        # The proxy carries TLS of ours, and reads nothing in it.
        assert (WORD in parent.passed) is not secure


async def test_whoever_the_proxy_leads_to_must_prove_the_name(ca_file: Path) -> None:
    certificate = server_context(CA.issue_cert("evil.example.com"))
    async with an_upstream(context=certificate) as upstream:
        with a_parent() as parent:
            assert await Way(parent, ca_file).dial(upstream.port) == "upstream_tls_failed"
        assert upstream.received == b""


async def test_a_name_that_leads_to_a_private_network_is_not_asked_for(ca_file: Path) -> None:
    resolver = Resolver(lookup=lambda _: ["10.1.2.3"])
    with a_parent() as parent:
        way = Way(parent, ca_file, resolver=resolver, by_name=True)

        assert await way.dial(443) == "address_not_allowed"

        assert parent.asked == []
    resolver.close()


async def test_by_name_the_name_is_asked_for(ca_file: Path) -> None:
    with a_parent(connect=lambda _, port: socket.create_connection(("127.0.0.1", port))) as parent:
        async with an_upstream(context=server_context(CA.issue_cert(HOST))) as upstream:
            assert await Way(parent, ca_file, by_name=True).dial(upstream.port) == ""

            assert parent.targets == [f"{HOST}:{upstream.port}"]


async def test_the_next_address_is_tried_and_all_are_refused_in_the_same_words(
    ca_file: Path,
) -> None:
    with a_parent(answer=b"HTTP/1.1 502 Bad Gateway\r\n\r\n") as parent:
        way = Way(parent, ca_file, "192.0.2.1", "2001:db8::1")

        assert await way.dial(443) == "upstream_unreachable"

        assert parent.targets == ["192.0.2.1:443", "[2001:db8::1]:443"]
        assert "does not open a tunnel" in way.said[0]
        await way.dial(443)
        assert len(way.said) == 1  # not for each request


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", id="a credential"),
        pytest.param(b"HTTP/1.1 403 Forbidden SENTINEL\r\n\r\n", id="it does not want to"),
        pytest.param(b"HTTP/1.1 302 Found\r\nLocation: http://evil\r\n\r\n", id="elsewhere"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", id="another protocol"),
        pytest.param(b"HTTP/2 200\r\n\r\n", id="another version"),
        pytest.param(b"SSH-2.0-x\r\n\r\n", id="no HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", id="no end"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, id="no end that is near"),
        pytest.param(b"", id="silence"),
    ],
)
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
async def test_an_answer_that_is_no_tunnel_is_none(
    answer: bytes, secure: bool, ca_file: Path
) -> None:
    context = server_context(CA.issue_cert("127.0.0.1")) if secure else None
    trusting = ssl.create_default_context(cadata=CA.cert_pem.bytes().decode()) if secure else None
    with a_parent(answer=answer, context=context) as parent:
        way = Way(parent, ca_file, context=trusting, credential=CREDENTIAL)

        assert await way.dial(443) == "upstream_unreachable"
        assert len(parent.asked) == 1
        assert "SENTINEL" not in str(way.said)


async def test_what_comes_behind_the_answer_belongs_to_the_destination(ca_file: Path) -> None:
    """Bytes that a proxy sends at once are not lost, and no TLS handshake takes them for good."""
    with a_parent(established=b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK injected") as parent:
        async with an_upstream(context=server_context(CA.issue_cert(HOST))) as upstream:
            assert await Way(parent, ca_file).dial(upstream.port) == "upstream_tls_failed"
            assert upstream.received == b""


async def test_a_proxy_that_is_not_there_is_an_upstream_that_is_not(ca_file: Path) -> None:
    with a_parent() as parent:
        way = Way(parent, ca_file)
    async with an_upstream() as upstream:
        assert await way.dial(upstream.port, secure=False) == "upstream_unreachable"
        assert upstream.connections == 0, "it is never gone round"
    assert "cannot be reached" in way.said[0]


async def test_a_proxy_that_cannot_prove_its_name_is_shown_no_credential(ca_file: Path) -> None:
    context = server_context(OTHER.issue_cert("127.0.0.1"))
    trusting = ssl.create_default_context(cadata=CA.cert_pem.bytes().decode())
    with a_parent(context=context) as parent:
        way = Way(parent, ca_file, context=trusting, credential=CREDENTIAL)

        assert await way.dial(443) == "upstream_unreachable"
        assert parent.asked == []
    assert "not valid for its name" in way.said[0]


async def test_the_credential_is_shown_to_the_proxy_and_to_nobody_else(ca_file: Path) -> None:
    with a_parent() as parent:
        async with an_upstream() as upstream:
            way = Way(parent, ca_file, credential=CREDENTIAL)
            assert await way.dial(upstream.port, secure=False) == ""
            assert bytes(upstream.received) == WORD

    told = base64.b64encode(CREDENTIAL).decode()
    assert f"Proxy-Authorization: Basic {told}\r\n" in parent.asked[0]


async def test_the_end_of_either_side_is_the_end_of_the_other(
    secure_parent: tuple[Parent, Any], ca_file: Path
) -> None:
    parent, context = secure_parent
    async with an_upstream() as upstream:
        way, owner = Way(parent, ca_file, context=context), Listening()
        channel = await way.dialer.dial(HOST, upstream.port, tls=False, owner=owner)
        channel.write(WORD)
        await until(lambda: upstream.open == 1)
        channel.close()
        await until(lambda: upstream.open == 0)


# --- settings --------------------------------------------------------------------------------


def context() -> ssl.SSLContext:
    return ssl.create_default_context()


def test_what_the_settings_say(tmp_path: Path) -> None:
    file = tmp_path / "credential"
    file.write_bytes(b"user:p%41ss\n")
    plain = upstream_proxy("http://proxy.example:3128", None, context, by_name=False)
    filed = upstream_proxy("https://[::1]:3129", file, context, by_name=True)
    urled = upstream_proxy("http://us%40er:p%3Ass@proxy.example:3128", None, context, by_name=False)

    assert (plain.host, plain.port, plain.context, plain.credential, plain.by_name) == (
        "proxy.example",
        3128,
        None,
        b"",
        False,
    )
    assert (filed.host, filed.port, filed.credential, filed.by_name) == (
        "::1",
        3129,
        b"user:p%41ss",
        True,
    )
    assert filed.context is not None
    assert urled.credential == b"us@er:p:ss"
    assert "ss" not in repr(urled).replace("class", "")


def missing(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize(
    ("url", "change", "said"),
    [
        pytest.param("http://p:1", missing, "cannot be read", id="no file"),
        pytest.param(
            "http://p:1", lambda f: f.write_bytes(b"SENTINEL"), "is no credential", id="no colon"
        ),
        pytest.param(
            "http://p:1", lambda f: f.write_bytes(b"a:b" * 9999), "is no credential", id="too long"
        ),
        pytest.param(
            "http://p:1", lambda f: f.write_bytes(b"a:b\r\nX: y"), "control characters", id="a line"
        ),
        pytest.param("http://a:SENTINEL@p:1", lambda _: None, "and so has", id="two of them"),
    ],
)
def test_a_credential_that_cannot_be_used_stops_the_start(
    url: str, change: Callable[[Path], Any], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "credential"
    file.write_bytes(b"user:password")
    change(file)

    with pytest.raises(ProxyError, match=said) as caught:
        upstream_proxy(url, file, context, by_name=False)
    assert "SENTINEL" not in str(caught.value)
