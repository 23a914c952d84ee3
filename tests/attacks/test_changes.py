"""What is withdrawn acts on open tunnels, what breaks shuts, and what is unsafe does not start."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.attacks import stage
from tests.attacks.client import Client, accepted, ask, refused, send
from tests.attacks.stage import ALLOWED, IS_NAIVE, KEY_A, POLICY, VALUES, Coatcheck, Start
from tests.e2e.harness import IN_FORCE_S, environ, program, put, store_of, wait_until
from tests.e2e.upstream import Upstream
from tests.e2e.wire import Answer, Wire, request

pytestmark = pytest.mark.skipif(IS_NAIVE, reason="mitmdump has no policy to change")

GET = request("GET", "/echo", "X: {{secrets.key.a}}", host=ALLOWED)


def until_refused(wire: Wire, *codes: str) -> Answer:
    """Ask again and again until it is refused; in time, or this fails."""
    begun = time.monotonic()
    while True:
        answer = send(wire, GET)
        took = time.monotonic() - begun
        if answer is None or answer.status != 200:
            refused(answer, *codes)
            assert took < IN_FORCE_S + 1.0  # the machine of the tests is busy
            assert answer is not None
            return answer
        assert took < 10, "it stays open"
        time.sleep(0.02)


CHANGES: dict[str, tuple[Callable[[str], str], str]] = {
    "grant withdrawn": (lambda text: text.replace("[key.a, ", "["), "secret_unavailable"),
    "host taken out of the grant": (
        lambda text: text.replace(
            "    clients: [alice]\n", "    clients: [alice]\n    hosts: [other.test]\n"
        ),
        "domain_not_allowed",
    ),
    "method taken out": (
        lambda text: text.replace(
            "    clients: [alice]\n", "    clients: [alice]\n    methods: [POST]\n"
        ),
        "request_not_allowed",
    ),
    "place taken out": (
        lambda text: text.replace(
            "    clients: [alice]\n", "    clients: [alice]\n    in: [path]\n"
        ),
        "location_not_allowed",
    ),
    "egress closed": (lambda text: text.replace("denied.test", ALLOWED), "destination_not_allowed"),
    "token revoked": (lambda text: text.replace('"sha256:', '"sha256:0000', 1), ""),
    "client removed": (
        lambda text: "\n".join(x for x in text.splitlines() if "alice" not in x or "token" not in x)
        .replace("clients: [alice]", "clients: [bob]"),
        "proxy_auth_required",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_host_16_ten_06_a_change_acts_on_open_tunnels(
    name: str, start: Start, client_of: Callable[..., Client], upstream: Upstream
) -> None:
    change, code = CHANGES[name]
    proxy = start().wait_ready()
    alice = client_of(proxy, stage.ALICE, stage.ALICE_FROM)
    text = proxy.policy.read_text()
    if name == "token revoked":
        hash_of = text.partition("sha256:")[2][:64]
        changed = text.replace(hash_of, "0" * 64)
        code = "proxy_auth_required"
    else:
        changed = change(text)
    assert changed != text
    with alice.tunnel() as wire:
        accepted(send(wire, GET))
        proxy.policy.write_text(changed)
        until_refused(wire, code)
    wait_until(proxy.agrees, IN_FORCE_S)
    upstream.take()
    refused_after = request("GET", "/echo", "X: {{secrets.key.a}}", host=ALLOWED)
    refused(ask(alice, refused_after))
    assert upstream.take() == []


BROKEN_POLICIES = [
    "",
    "version: 1\nclients: [",
    "version: 99\n",
    "\x00\x01",
    "version: 1\nversion: 1\n",
]


@pytest.mark.parametrize("text", BROKEN_POLICIES, ids=repr)
def test_fail_03_a_broken_policy_changes_nothing(
    text: str, start: Start, client_of: Callable[..., Client], upstream: Upstream
) -> None:
    """The last good one stays in force: neither shut for all nor open for all."""
    proxy = start().wait_ready()
    alice = client_of(proxy, stage.ALICE, stage.ALICE_FROM)
    proxy.policy.write_text(text)
    time.sleep(IN_FORCE_S)
    accepted(ask(alice, GET))
    other = request("GET", "/echo", "X: {{secrets.key.b}}", host=ALLOWED)
    refused(ask(alice, other), "secret_unavailable")
    assert [r.all("x") for r in upstream.take()] == [[KEY_A]]


def _rubbish(proxy: Coatcheck) -> None:
    for path in proxy.home.glob("store*"):
        path.write_bytes(os.urandom(4096))


def _remove(proxy: Coatcheck) -> None:
    for path in proxy.home.glob("store*"):
        path.unlink()


def _truncate(proxy: Coatcheck) -> None:
    for path in proxy.home.glob("store*"):
        os.truncate(path, 0)


@pytest.mark.parametrize("harm", [_rubbish, _remove, _truncate], ids=lambda f: f.__name__[1:])
def test_fail_03_a_store_that_breaks(
    harm: Callable[[Coatcheck], None],
    start: Start,
    client_of: Callable[..., Client],
    upstream: Upstream,
) -> None:
    """Refused or still served from what is known; a placeholder never goes out as it is."""
    proxy = start().wait_ready()
    alice = client_of(proxy, stage.ALICE, stage.ALICE_FROM)
    accepted(ask(alice, GET))
    harm(proxy)
    time.sleep(IN_FORCE_S)
    answer = ask(alice, GET)
    if answer is not None and answer.status != 200:
        refused(answer, "store_unavailable", "secret_unavailable", "internal_error")
    assert [r for r in upstream.take() if b"secrets.key.a" in r.bytes] == []


def test_fail_03_a_store_that_comes_back(
    start: Start, client_of: Callable[..., Client], upstream: Upstream
) -> None:
    """Once it is there again, what changes in it counts again."""
    proxy = start().wait_ready()
    alice = client_of(proxy, stage.ALICE, stage.ALICE_FROM)
    store_file = proxy.home / "store.db"
    store_file.rename(store_file.with_suffix(".away"))
    time.sleep(IN_FORCE_S)
    store_file.with_suffix(".away").rename(store_file)
    upstream.take()
    with store_of(proxy.home) as store:
        put(store, "key.a", VALUES["sp.longer"], ALLOWED)
    wait_until(lambda: _is_served(alice) and _last(upstream) == VALUES["sp.longer"], 5)


def _is_served(client: Client) -> bool:
    answer = ask(client, GET)
    return answer is not None and answer.status == 200


def _last(upstream: Upstream) -> bytes:
    return upstream.take()[-1].all("x")[0]


def test_fail_03_an_audit_log_that_cannot_be_written(
    start: Start, client_of: Callable[..., Client], upstream: Upstream
) -> None:
    """Nothing leaves without a record, on old tunnels and new ones; and it goes on once it can."""
    proxy = start().wait_ready()
    alice = client_of(proxy, stage.ALICE, stage.ALICE_FROM)
    with alice.tunnel() as wire:
        accepted(send(wire, GET))
        upstream.take()
        with proxy.limited(resource.RLIMIT_FSIZE, lambda _: 0):  # like a full disk
            for _ in range(5):
                refused(send(wire, GET), "audit_unavailable")
                refused(ask(alice, GET), "audit_unavailable")
            body = b"x" * (2 << 20) + b"{{secrets.key.a}}"
            lines = ("Content-Type: text/plain",)
            refused(ask(alice, request("POST", "/", *lines, host=ALLOWED, body=body)))
        assert [r for r in upstream.take() if KEY_A in r.bytes] == []
        accepted(send(wire, GET))
    assert [r.all("x") for r in upstream.take()] == [[KEY_A]]


def test_fail_06_ends_in_order_under_load(
    start: Start, client_of: Callable[..., Client], upstream: Upstream
) -> None:
    """SIGTERM: a request under way is answered scrubbed, or its connection closes."""
    proxy = start().wait_ready()
    alice = client_of(proxy, stage.ALICE, stage.ALICE_FROM)
    gate = upstream.gate("term")
    with alice.tunnel() as wire:
        wire.send(request("GET", "/gated/term", "X: {{secrets.key.a}}", host=ALLOWED))
        time.sleep(0.5)
        proxy.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        gate.release()
        try:
            answer = wire.read()
            assert KEY_A not in answer.raw
        except ConnectionError:
            pass
    assert proxy.process.wait(20) == 0


def test_fail_06_reloads_under_load(
    start: Start, client_of: Callable[..., Client], upstream: Upstream
) -> None:
    proxy = start().wait_ready()
    alice = client_of(proxy, stage.ALICE, stage.ALICE_FROM)
    with alice.tunnel() as wire:
        for _ in range(30):
            proxy.process.send_signal(signal.SIGHUP)
            accepted(send(wire, GET))
    assert {tuple(r.all("x")) for r in upstream.take()} == {(KEY_A,)}


# --- CONF: what does not start -------------------------------------------------------------------


def start_ends(proxy: Coatcheck) -> str:
    """The proxy ends by itself with an error; its words."""
    assert proxy.process.wait(30) != 0
    text = proxy.log.read_text()
    assert "Traceback" not in text
    assert "serve.ready" not in text
    return text


@pytest.mark.parametrize("name", ["SSLKEYLOGFILE", "MITMPROXY_SSLKEYLOGFILE"])
def test_conf_02_a_key_log(name: str, start: Start, folder: Path) -> None:
    log = folder / "keys.log"
    assert name in start_ends(start(**{name: str(log)}))
    assert not log.exists()


@contextmanager
def harmed_home(start: Start, harm: Callable[[Path], None]) -> Iterator[Coatcheck]:
    """A home that was harmed while its proxy was down."""
    proxy = start().wait_ready()
    proxy.stop()
    harm(proxy.home)
    command = program("serve", "--home", proxy.home, "--listen", proxy.address, "--no-admin")
    again = Coatcheck.__new__(Coatcheck)
    again.__dict__.update(proxy.__dict__)
    again.log = proxy.log.with_suffix(".again")
    with again.log.open("wb") as log:
        again.process = subprocess.Popen(
            proxy.world.enter(command, proxy.home.parent),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environ(HOME=str(proxy.home.parent)),
        )
    try:
        yield again
    finally:
        again.stop()


def _each(part: str, harm: Callable[[Path], object]) -> Callable[[Path], None]:
    """Do *harm* to every file of the home that has *part* in its name; there is one."""

    def do(home: Path) -> None:
        found = [path for path in home.rglob("*") if path.is_file() and part in path.name]
        assert found
        for path in found:
            harm(path)

    return do


HARMS: dict[str, Callable[[Path], None]] = {
    "sealing key gone": _each("sealing.key", Path.unlink),
    "sealing key readable by all": _each("sealing.key", lambda path: path.chmod(0o644)),
    "sealing key broken": _each("sealing.key", lambda path: path.write_bytes(os.urandom(64))),
    "CA gone": _each("-ca.pem", Path.unlink),
    "CA readable by all": _each("-ca.pem", lambda path: path.chmod(0o644)),
    "CA broken": _each("-ca.pem", lambda path: path.write_text("rubbish")),
    "store broken": _each("store", lambda path: path.write_bytes(b"rubbish" * 999)),
    "home open to all": lambda home: home.chmod(0o777),
}


@pytest.mark.parametrize("name", HARMS)
def test_fail_04_does_not_listen_when_harmed(
    name: str, start: Start, client_of: Callable[..., Client]
) -> None:
    """Nothing is made anew in silence, and no port is open."""
    with harmed_home(start, HARMS[name]) as proxy:
        start_ends(proxy)
        with pytest.raises(OSError, match="refused"):
            proxy.world.connect("127.0.0.1", proxy.port, stage.ALICE_FROM)


OPTIONS = [
    "ssl_insecure: true",
    "rawtcp: true",
    "ignore_hosts: ['.*']",
    "connection_strategy: eager",
]


@pytest.mark.parametrize("line", OPTIONS)
def test_conf_02_a_config_of_mitmproxy_has_no_say(
    line: str,
    start: Start,
    client_of: Callable[..., Client],
    cert_sites: dict[str, str],
    upstream: Upstream,
    folder: Path,
) -> None:
    """``~/.mitmproxy/config.yaml`` of whoever runs us is not read."""
    config = folder / ".mitmproxy"  # the home of the process is this folder
    config.mkdir(exist_ok=True)
    (config / "config.yaml").write_text(line + "\n")
    proxy = start(policy=POLICY, values=VALUES).wait_ready()
    alice = client_of(proxy, stage.ALICE, stage.ALICE_FROM)
    host = cert_sites["self-signed"]
    data = request("GET", "/echo", "X: {{secrets.roam.key}}", host=host)
    refused(ask(alice, data, host), "upstream_tls_failed")
    assert upstream.take() == []


BAD_SETTINGS = ["no_such_setting: 1\n", "limits:\n  head_bytes: -1\n", "listen: nowhere\n"]
BAD_SETTINGS += ["limits:\n  no_such_limit: 1\n", "- a\n", "listen: [\n"]


@pytest.mark.parametrize("text", BAD_SETTINGS, ids=repr)
def test_conf_02_settings_that_are_none(text: str, start: Start) -> None:
    assert start_ends(start(settings=text))
