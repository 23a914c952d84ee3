"""One world, one upstream and one proxy for the whole run; see `world`, `upstream`, `harness`."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.e2e import harness
from tests.e2e.harness import HOSTS, NETWORKS, NEVER_DIALLED, Proxy, Shell
from tests.e2e.main_home import MAIN_POLICY, MAIN_SECRETS
from tests.e2e.scripts import Scripts
from tests.e2e.upstream import Upstream
from tests.e2e.ways import Way
from tests.e2e.wire import Dial
from tests.e2e.world import Unavailable, World

if TYPE_CHECKING:
    from tests.store.server import Server

LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
PLAIN_AND_TLS = ("api.example.test", "evil.example.test")
OTHER_PORT = 8443


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="session")
def world(folder: Path) -> Iterator[World]:
    try:
        made = World.open(folder, HOSTS, NETWORKS)
    except Unavailable as error:
        pytest.skip(f"no network of its own for the tests: {error}")
    yield made
    made.close()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def upstream_ca(folder: Path, authority: trustme.CA) -> Path:
    path = folder / "upstream-ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture(scope="session")
def every_upstream(world: World, authority: trustme.CA) -> Iterator[Upstream]:
    made = Upstream()
    for name in ("api", "other", "text", "evil", "six"):
        host = f"{name}.example.test"
        made.add(host, world.listen(HOSTS[host], 443), _context(authority.issue_cert(host)))
    api = "api.example.test"
    context = _context(authority.issue_cert(api))
    made.add(f"{api}:{OTHER_PORT}", world.listen(HOSTS[api], OTHER_PORT), context)
    for host in PLAIN_AND_TLS:
        made.add(f"{host}:80", world.listen(HOSTS[host], 80), None)
    bad = {
        "expired.example.test": authority.issue_cert(
            "expired.example.test", not_before=LONG_AGO, not_after=LONG_AGO.replace(year=2021)
        ),
        "self-signed.example.test": trustme.CA().issue_cert("self-signed.example.test"),
        "wrong-name.example.test": authority.issue_cert("api.example.test"),
    }
    for host, certificate in bad.items():
        made.add(host, world.listen(HOSTS[host], 443), _context(certificate))
    yield made
    made.close()


@pytest.fixture
def upstream(every_upstream: Upstream) -> Upstream:
    """The upstreams, with nothing received so far."""
    every_upstream.take()
    return every_upstream


@pytest.fixture(scope="session")
def scripts(every_upstream: Upstream) -> Scripts:
    """Answers that a test writes itself."""
    return Scripts(every_upstream)


@pytest.fixture(scope="session", autouse=True)
def canaries(world: World) -> Iterator[None]:
    """Listeners at addresses that are never to be dialled."""
    listeners = {
        f"{host}:{port}": world.listen(HOSTS[host], port)
        for host in NEVER_DIALLED
        for port in (80, 443)
    }
    yield
    dialled = []
    for where, listener in listeners.items():
        listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            listener.accept()[0].close()
            dialled.append(where)
        listener.close()
    assert dialled == []


@pytest.fixture(scope="session")
def unanswering(world: World) -> Iterator[None]:
    """hole.example.test drops connections, mute.example.test takes them and stays silent."""
    sockets: list[socket.socket] = [world.listen(HOSTS["mute.example.test"], 443)]
    hole = HOSTS["hole.example.test"]
    sockets.append(world.listen(hole, 443, 0))
    sockets.append(world.connect(hole, 443))  # the one that a backlog of 0 lets wait
    yield
    for sock in sockets:
        sock.close()


@pytest.fixture(scope="session")
def shell(world: World, folder: Path) -> Shell:
    return Shell(world, folder)


@pytest.fixture(scope="session")
def proxy(world: World, folder: Path, upstream_ca: Path) -> Iterator[Proxy]:
    """The proxy that most tests share. Nobody changes its policy or its secrets."""
    home = harness.make_home(folder / "main", MAIN_SECRETS, MAIN_POLICY)
    made = Proxy(world, home, upstream_ca)
    try:
        yield made.wait_ready()
    finally:
        made.stop()


@pytest.fixture(scope="session")
def runner(proxy: Proxy) -> Dial:
    """The client that is granted most, known by its token."""
    return proxy.dial(harness.RUNNER)


@pytest.fixture(scope="session")
def straight(shell: Shell, every_upstream: Upstream, proxy: Proxy) -> Way:
    """Through the proxy that most tests share."""
    options = ("--home", proxy.home, "--proxy", proxy.address)
    return Way("straight", shell, every_upstream, options)


@pytest.fixture(scope="session")
def balanced(
    world: World,
    folder: Path,
    shell: Shell,
    every_upstream: Upstream,
    upstream_ca: Path,
    postgres: Server,
) -> Iterator[Way]:
    """Through a load balancer to two replicas; with the policy and the secrets of that proxy."""
    from tests.deploy import gateway

    (folder / "gateway").mkdir()
    first = harness.make_home(folder / "gateway" / "first", MAIN_SECRETS, MAIN_POLICY)
    with gateway.running(world, folder / "gateway", postgres, first, upstream_ca) as made:
        options = ("--ca", made.ca, "--proxy", f"{harness.BALANCER}:8080")
        yield Way("balanced", shell, every_upstream, options)


@pytest.fixture(scope="session")
def way(request: pytest.FixtureRequest) -> Way:
    """One of the two, by its name."""
    made: Way = request.getfixturevalue(request.param)
    return made


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context
