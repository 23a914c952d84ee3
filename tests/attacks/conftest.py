"""One world, one proxy and its upstreams for the run; after each module the leak detector."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from tests.attacks import stage, tls_sites
from tests.attacks.certificates import Maker
from tests.attacks.client import Client, Recorder
from tests.attacks.dns import NameServer
from tests.attacks.leaks import Detector
from tests.attacks.sites import SCRIPTED, Scripts
from tests.attacks.stage import IS_NAIVE, SITES, VALUES, Coatcheck, Mitmdump, Start, Target
from tests.attacks.watch import Attempt, Watch
from tests.e2e.upstream import Upstream
from tests.e2e.world import Unavailable, World

CANARY_PORTS = (22, 25, 80, 443, 3128, 5432, 6379, 8000, 8081, 8443, 9200)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attacks")


@pytest.fixture(scope="session")
def world(folder: Path) -> Iterator[World]:
    try:
        made = World.open(folder, {}, stage.NETWORKS)
    except Unavailable as error:
        pytest.skip(f"the attacks need a network of their own: {error}")
    search = "search corp.internal\nnameserver 127.0.0.1\noptions timeout:2 attempts:2\n"
    (folder / "resolv.conf").write_text(search)
    yield made
    made.close()


@pytest.fixture(scope="session")
def dns(world: World) -> Iterator[NameServer]:
    server = NameServer(world.datagrams("127.0.0.1", 53), world.listen("127.0.0.1", 53))
    for name, address in SITES.items():
        server.set(name, address)
    yield server
    server.close()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def upstream_ca(folder: Path, authority: trustme.CA) -> Path:
    path = folder / "upstream-ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


def context_of(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


@pytest.fixture(scope="session")
def every_upstream(world: World, dns: NameServer, authority: trustme.CA) -> Iterator[Upstream]:
    made = Upstream()
    made.modes.update(SCRIPTED)
    by_address: dict[str, list[str]] = {}
    for name, address in SITES.items():
        by_address.setdefault(address, []).append(name)
    for address, names in by_address.items():
        context = context_of(authority.issue_cert(*names))
        made.add(names[0], world.listen(address, 443), context)
        made.add(f"{names[0]}:80", world.listen(address, 80), None)
    context = context_of(authority.issue_cert("allowed.test"))
    made.add("allowed.test:8443", world.listen(SITES["allowed.test"], 8443), context)
    yield made
    made.close()


@pytest.fixture(scope="session")
def raw_bytes(
    world: World, dns: NameServer, every_upstream: Upstream, authority: trustme.CA, folder: Path
) -> list[bytes]:
    """What sites have heard that speak no TLS; asking for it opens the sites of `tls_sites`."""
    certificates = folder / "certificates"
    certificates.mkdir()
    return tls_sites.open_sites(world, dns, every_upstream, Maker(authority), certificates)


@pytest.fixture(scope="session")
def cert_sites(raw_bytes: list[bytes]) -> dict[str, str]:
    """The name of a site by what is special about its certificate."""
    return tls_sites.hosts()


@pytest.fixture(scope="session")
def counters(
    world: World, dns: NameServer, authority: trustme.CA, folder: Path
) -> dict[str, tls_sites.Counter]:
    """Sites that count the bytes that come in TLS."""
    certificates = folder / "counted"
    certificates.mkdir()
    return tls_sites.open_counters(world, dns, Maker(authority), certificates)


@pytest.fixture
def upstream(every_upstream: Upstream) -> Upstream:
    """The upstreams, with nothing received so far."""
    every_upstream.take()
    return every_upstream


@pytest.fixture
def scripts() -> Scripts:
    return Scripts()


@pytest.fixture(scope="session")
def traps(world: World, every_upstream: Upstream) -> Iterator[None]:
    """Listeners at every address there is, behind the upstreams': nobody may come."""
    made = [(a, p, world.listen(a, p)) for a in ("0.0.0.0", "::") for p in CANARY_PORTS]
    yield
    caught = []
    for _, port, listener in made:
        listener.setblocking(False)
        try:
            sock, _ = listener.accept()
            caught.append(f"{sock.getsockname()[0]} port {port}")
            sock.close()
        except BlockingIOError:
            pass
        listener.close()
    assert IS_NAIVE or caught == []


@pytest.fixture(scope="session")
def every_attempt(world: World) -> Iterator[Watch]:
    watch = Watch(world.packets(), stage.CLIENT_ADDRESSES)
    yield watch
    watch.close()


@pytest.fixture
def dialled(every_attempt: Watch) -> Callable[[], list[Attempt]]:
    """The connections that the proxy has tried to open since the test began (or the last call)."""
    every_attempt.take()
    return every_attempt.take


@pytest.fixture(scope="session")
def proxy(
    world: World,
    folder: Path,
    dns: NameServer,
    upstream_ca: Path,
    traps: None,
    started: list[Target],
) -> Iterator[Target]:
    made: Coatcheck | Mitmdump
    if IS_NAIVE:
        made = Mitmdump(world, folder / "naive", upstream_ca)
    else:
        made = stage.make_coatcheck(world, folder / "home", upstream_ca)
    started.append(made)
    try:
        yield made.wait_ready()
    finally:
        made.stop()


@pytest.fixture(scope="session")
def started() -> list[Target]:
    """Every proxy that was started; the leak detector goes through their files."""
    return []


@pytest.fixture
def start(
    world: World,
    folder: Path,
    upstream_ca: Path,
    dns: NameServer,
    traps: None,
    started: list[Target],
) -> Iterator[Start]:
    """``start()``: a proxy of the test's own, with few secrets. It ends with the test."""
    mine: list[Coatcheck] = []

    def make(**more: object) -> Coatcheck:
        home = folder / f"own-{os.getpid()}-{len(started)}"
        options = {"policy": stage.SMALL_POLICY, "values": stage.FEW, **more}
        made = stage.make_coatcheck(world, home, upstream_ca, **options)  # type: ignore[arg-type]
        mine.append(made)
        started.append(made)
        return made

    yield make
    for proxy in mine:
        proxy.stop()


@pytest.fixture(scope="session")
def coatcheck(proxy: Target) -> Coatcheck:
    """For what only coatcheck has: an audit log, a policy that can be changed."""
    if not isinstance(proxy, Coatcheck):
        pytest.skip("mitmdump has nothing of the kind")
    return proxy


@pytest.fixture(scope="session")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="session")
def client_of(world: World, recorder: Recorder) -> Callable[..., Client]:
    """``client_of(target, credential, source)``"""

    def make(target: Target, credential: str, source: str) -> Client:
        return Client(world, target.port, target.authority(), credential, source, recorder)

    return make


@pytest.fixture(scope="session")
def alice(client_of: Callable[..., Client], proxy: Target) -> Client:
    """Known by token A; most secrets are granted to her."""
    return client_of(proxy, stage.ALICE, stage.ALICE_FROM)


@pytest.fixture(scope="session")
def bob(client_of: Callable[..., Client], proxy: Target) -> Client:
    """Known by token B; one secret is granted to him."""
    return client_of(proxy, stage.BOB, stage.BOB_FROM)


@pytest.fixture(scope="session")
def net(client_of: Callable[..., Client], proxy: Target) -> Client:
    """Known by its network, without a token."""
    return client_of(proxy, "", stage.NET_FROM)


@pytest.fixture(scope="session")
def stranger(client_of: Callable[..., Client], proxy: Target) -> Client:
    """Known by nothing."""
    return client_of(proxy, "", stage.STRANGER_FROM)


@pytest.fixture(scope="session")
def detector() -> Detector:
    return Detector(VALUES)


@pytest.fixture(scope="module", autouse=True)
def nothing_leaks(recorder: Recorder, detector: Detector, started: list[Target]) -> Iterator[None]:
    """All that clients received, all that was logged, and every file at rest: no canary in it."""
    recorder.take()
    yield
    if IS_NAIVE:
        return
    found = {f"client: {leak}" for data in set(recorder.take()) for leak in detector.find(data)}
    for path in [path for target in started for path in files_of(target)]:
        data = path.read_bytes()
        before = _searched.get(path, b"")
        # A log only grows: what was searched is not searched again, but for the seam.
        grown = data.startswith(before)
        fresh = data[max(0, len(before) - 4096) :] if grown else data
        _searched[path] = data
        if len(data) > len(before) or not grown:
            found |= {f"{path.name}: {leak}" for leak in detector.find(fresh)}
    assert not found, "\n".join(sorted(found))


_searched: dict[Path, bytes] = {}


def files_of(target: Target) -> list[Path]:
    """Its log, and every file that it keeps."""
    inside = [path for root in target.folders() for path in root.rglob("*") if path.is_file()]
    return [target.log, *inside]
