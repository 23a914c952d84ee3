"""The only way out is coatcheck: shown in networks of the tests' own, with the files of deploy/.

Each test first shows that the direct way is there, then takes it away. A client that takes no
notice of the proxy is ``curl --noproxy '*'``; it does not look at certificates, so that nothing but
the network stops it.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from coatcheck.store.home import Home
from tests.deploy import nets
from tests.e2e import harness
from tests.e2e.world import World

NFTABLES = Path(__file__).resolve().parents[2] / "deploy" / "nftables"
DIRECT = ["curl", "-sk", "--noproxy", "*", "--max-time", "5", f"https://{nets.HOST}/v1/me"]
CURL_CANNOT_CONNECT = 7
APP = 20001  # a user as which nothing else runs
POLICY = """\
version: 1
clients:
  app: {{ networks: ["{}"] }}
grants:
  - secrets: ["crm.*"]
    clients: [app]
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that other users can enter."""
    with tempfile.TemporaryDirectory(prefix="coatcheck-nets-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def authority(folder: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(folder / "upstream-ca.pem")
    return made


def as_app(command: list[str]) -> list[str]:
    return ["setpriv", f"--reuid={APP}", f"--regid={APP}", "--clear-groups", *command]


def through(proxy: str, ca: Path) -> list[str]:
    """A client that takes notice of the proxy."""
    url = f"https://{nets.HOST}/v1/me"
    return ["curl", "-s", "-x", f"http://{proxy}", "--cacert", str(ca), "-H", nets.PLACEHOLDER, url]


def direct(place: World, folder: Path, user: bool = False) -> subprocess.CompletedProcess[bytes]:
    return nets.run(place, as_app(DIRECT) if user else DIRECT, folder)


def certificate(home: Path, folder: Path) -> Path:
    """That of the proxy, where every user can read it."""
    path = folder / "ca.pem"
    path.write_bytes(Home(home).ca_certificate.read_bytes())
    path.chmod(0o644)
    return path


def test_a_namespace_with_no_route_but_to_the_proxy(folder: Path, authority: trustme.CA) -> None:
    """A sidecar's app, or a runner, whose namespace knows the proxy's network and no other."""
    nets.need("ip", "curl", "nsenter")
    with (
        nets.world(folder / "out", nets.NETWORK) as outside,
        nets.world(folder / "app") as inside,
        nets.api(outside, authority),
    ):
        nets.cable(inside, outside, folder)
        home = nets.home(folder / "home", POLICY.format("10.99.0.0/30"))
        ca = certificate(home, folder)
        with nets.serving(outside, home, "10.99.0.1:8080", folder / "upstream-ca.pem"):
            nets.do(inside, "ip route add default via 10.99.0.1", folder)
            with_route = direct(inside, folder)
            nets.do(inside, "ip route del default", folder)

            without = direct(inside, folder)
            by_proxy = nets.run(inside, through("10.99.0.1:8080", ca), folder)
            command = harness.program("run", "--proxy", "10.99.0.1:8080", "--ca", ca, "--")
            command += ["curl", "-s", "-H", nets.PLACEHOLDER, f"https://{nets.HOST}/v1/me"]
            by_run = nets.run(inside, command, folder)

    assert with_route.stdout == nets.ANONYMOUS
    assert (without.returncode, without.stdout) == (CURL_CANNOT_CONNECT, b"")
    assert by_proxy.stdout == nets.INJECTED
    assert by_run.stdout == nets.INJECTED, by_run.stderr


def test_a_router_that_lets_runners_get_to_the_proxy_alone(
    folder: Path, authority: trustme.CA
) -> None:
    """deploy/nftables/runners.nft, as it is."""
    nets.need("ip", "curl", "nsenter", "nft")
    with (
        nets.world(folder / "out", nets.NETWORK) as outside,
        nets.world(folder / "app") as inside,
        nets.api(outside, authority),
    ):
        nets.cable(inside, outside, folder)
        nets.do(inside, "ip route add default via 10.99.0.1", folder)
        home = nets.home(folder / "home", POLICY.format("10.99.0.0/30"))
        with nets.serving(outside, home, "10.99.0.1:8080", folder / "upstream-ca.pem"):
            before = direct(inside, folder)
            with nets.rules(outside, NFTABLES / "runners.nft", folder):
                after = direct(inside, folder)
                by_proxy = nets.run(
                    inside, through("10.99.0.1:8080", certificate(home, folder)), folder
                )

    assert before.stdout == nets.ANONYMOUS
    assert (after.returncode, after.stdout) == (CURL_CANNOT_CONNECT, b"")
    assert by_proxy.stdout == nets.INJECTED


def test_one_namespace_for_both_where_the_user_makes_the_difference(
    folder: Path, authority: trustme.CA
) -> None:
    """A pod. deploy/nftables/egress.nft, with the number of the user that runs coatcheck here."""
    nets.need("ip", "curl", "nsenter", "nft", "setpriv")
    rules = folder / "egress.nft"
    text = (NFTABLES / "egress.nft").read_text()
    assert text.count("skuid 10001") == 1
    rules.write_text(text.replace("skuid 10001", f"skuid {os.geteuid()}"))
    with (
        nets.world(folder / "out", nets.NETWORK) as outside,
        nets.world(folder / "pod") as inside,
        nets.api(outside, authority),
    ):
        nets.cable(inside, outside, folder)
        nets.do(inside, "ip route add default via 10.99.0.1", folder)
        home = nets.home(folder / "home", POLICY.format("127.0.0.1/32"))
        ca = certificate(home, folder)
        with nets.serving(inside, home, "127.0.0.1:8080", folder / "upstream-ca.pem"):
            before = direct(inside, folder, user=True)
            with nets.rules(inside, rules, folder):
                after = direct(inside, folder, user=True)
                by_proxy = nets.run(inside, as_app(through("127.0.0.1:8080", ca)), folder)

    assert before.stdout == nets.ANONYMOUS
    assert (after.returncode, after.stdout) == (CURL_CANNOT_CONNECT, b"")
    assert by_proxy.stdout == nets.INJECTED, by_proxy.stderr
