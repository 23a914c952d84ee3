"""A change of policy or of a secret is in force within a second, on connections that are open too.

A proxy of its own: what one test changes, the next one finds put back.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import (
    CLIENTS,
    IN_FORCE_S,
    OTHER_TOKEN,
    RUNNER,
    Proxy,
    Shell,
    api_only,
    make_home,
    put,
    store_of,
    token_line,
    wait_until,
)
from tests.e2e.test_refusals import JSON, check
from tests.e2e.upstream import Upstream
from tests.e2e.wire import Answer, Dial, Wire, request
from tests.e2e.world import World

FIRST = b"first-value-0123456789"
SECOND = b"second-value-9876543210"
KEY = "Authorization: Bearer {{secrets.crm.apiKey}}"
GRANT = """\
grants:
  - secrets: ["crm.*"]
    clients: [runner]
"""
POLICY = CLIENTS + GRANT
SETTINGS = """\
limits:
  connect_timeout_s: 0.4
  tls_handshake_timeout_s: 0.4
  response_timeout_s: 0.5
  idle_timeout_s: 30
  decoded_body_bytes: 65536
  placeholders_per_request: 6
"""
SLACK_S = 1.0  # this machine may be busy; the limit itself is IN_FORCE_S


@pytest.fixture(scope="module")
def own(world: World, folder: Path, upstream_ca: Path) -> Iterator[Proxy]:
    secrets = {"crm.apiKey": api_only(FIRST), "crm.other": api_only(b"other-value-5544332211")}
    made = Proxy(world, make_home(folder / "own", secrets, POLICY, SETTINGS), upstream_ca)
    try:
        yield made.wait_ready()
    finally:
        made.stop()


@pytest.fixture
def changing(own: Proxy) -> Iterator[Proxy]:
    """The proxy, put back afterwards."""
    yield own
    own.policy.write_text(POLICY)
    with store_of(own.home) as store:
        if store.find("crm.apiKey") is not None:
            store.delete("crm.apiKey", now=time.time())  # with what it had for versions
        put(store, "crm.apiKey", FIRST, "api.example.test")
    wait_until(lambda: answers(own), 5)
    wait_until(own.agrees, 5)


def answers(proxy: Proxy) -> bool:
    try:
        with proxy.dial(RUNNER).tunnel() as wire:
            return wire.get("/echo", KEY).status == 200
    except ConnectionError:
        return False


def wait_for(wire: Wire, true: Callable[[Answer], bool], *fields: str) -> float:
    """Ask until the answer is as wanted; how long it took."""
    return wait_until(lambda: true(wire.get("/echo", *(fields or [KEY]))), IN_FORCE_S + SLACK_S)


def sends(upstream: Upstream, value: bytes) -> Callable[[Answer], bool]:
    """The last request carried *value*."""

    def check(answer: Answer) -> bool:
        assert FIRST not in answer.raw
        assert SECOND not in answer.raw
        taken = upstream.take()
        return bool(taken) and taken[-1].all("authorization") == [b"Bearer " + value]

    return check


# --- policy --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["written", "renamed", "written and SIGHUP"])
def test_a_grant_taken_away(how: str, changing: Proxy, upstream: Upstream) -> None:
    """A tunnel that is open loses the secret; nothing of it gets through afterwards."""
    with changing.dial(RUNNER).tunnel() as wire:
        assert wire.get("/echo", KEY).status == 200
        changed = POLICY.replace("crm.*", "none.*")
        if how == "renamed":
            draft = changing.policy.with_suffix(".draft")
            draft.write_text(changed)
            draft.replace(changing.policy)
        else:
            changing.policy.write_text(changed)
        if "SIGHUP" in how:
            changing.reload()

        wait_for(wire, lambda answer: answer.code == "secret_unavailable")

        upstream.take()
        check(wire.get("/echo", KEY), "secret_unavailable", 403)
        assert upstream.take() == []


def test_a_token_taken_away(changing: Proxy, upstream: Upstream) -> None:
    with changing.dial(RUNNER).tunnel() as wire:
        assert wire.get("/echo", KEY).status == 200
        line = POLICY.splitlines()[2]
        changing.policy.write_text(POLICY.replace(line, f"  runner: {{ {token_line('ctk_new')} }}"))

        wait_for(wire, lambda answer: answer.code == "proxy_auth_required")


def test_a_host_denied(changing: Proxy, upstream: Upstream) -> None:
    with changing.dial(RUNNER).tunnel() as wire:
        assert wire.get("/echo").status == 200
        changing.policy.write_text(POLICY + "egress: { deny: [api.example.test] }\n")

        wait_for(wire, lambda answer: answer.code == "destination_not_allowed")


def test_a_grant_added(changing: Proxy, upstream: Upstream) -> None:
    with changing.dial(f"Bearer {OTHER_TOKEN}").tunnel() as wire:
        assert wire.get("/echo", KEY).code == "secret_unavailable"
        changing.policy.write_text(POLICY.replace("[runner]", "[runner, other]"))

        wait_for(wire, lambda answer: answer.status == 200)


BROKEN = {
    "no YAML": "grants: [",
    "unknown key": POLICY + "grant: []\n",
    "empty": "",
    "mistyped": POLICY.replace("clients: [runner]", "clients: [runer]"),
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_policy_keeps_the_last_good_one(
    text: str, changing: Proxy, shell: Shell, upstream: Upstream
) -> None:
    refused = b"policy.refused"
    count = changing.log.read_bytes().count(refused)
    changing.policy.write_text(text)
    wait_until(lambda: changing.log.read_bytes().count(refused) > count, IN_FORCE_S + SLACK_S)

    with changing.dial(RUNNER).tunnel() as wire:
        assert wire.get("/echo", KEY).status == 200
    done = shell.coatcheck("status", "--home", changing.home, "--format", "json")
    assert done.returncode == 1
    said = json.loads(done.stdout)
    assert str(changing.policy) in said["policy_error"]
    assert said["accepting"] is True


def test_a_missing_policy_keeps_the_last_good_one(changing: Proxy, upstream: Upstream) -> None:
    changing.policy.rename(changing.policy.with_suffix(".away"))
    time.sleep(IN_FORCE_S)
    with changing.dial(RUNNER).tunnel() as wire:
        assert wire.get("/echo", KEY).status == 200
    changing.policy.with_suffix(".away").rename(changing.policy)


def test_status_of_a_healthy_proxy(own: Proxy, shell: Shell) -> None:
    command = ["status", "--home", own.home, "--format", "json"]
    wait_until(lambda: shell.coatcheck(*command).returncode == 0, 5)
    done = shell.coatcheck(*command)
    said = json.loads(done.stdout)
    assert said["pid"] == own.process.pid
    assert said["policy_error"] == ""


# --- secrets -------------------------------------------------------------------------------------


def test_a_new_value(changing: Proxy, shell: Shell, upstream: Upstream) -> None:
    """Injected within a second; the old one is still scrubbed, wherever it still turns up."""
    with changing.dial(RUNNER).tunnel() as wire:
        assert wire.get("/echo", KEY).status == 200
        done = shell.coatcheck("secret", "set", "crm.apiKey", "--home", changing.home, stdin=SECOND)
        assert done.returncode == 0, done.stderr

        wait_for(wire, sends(upstream, SECOND))

        answer = wire.get("/echo", b"X-Old: " + FIRST, b"X-New: " + SECOND)
    assert FIRST not in answer.raw
    assert SECOND not in answer.raw


def test_other_domains(changing: Proxy, shell: Shell, upstream: Upstream) -> None:
    """They need the value again, and then count on a tunnel that is open."""
    command = ["secret", "set", "crm.apiKey", "--domain", "other.example.test"]
    with changing.dial(RUNNER).tunnel() as wire:
        assert wire.get("/echo", KEY).status == 200
        edit = ["secret", "edit", "crm.apiKey", "--domain", "other.example.test"]
        assert shell.coatcheck(*edit, "--home", changing.home).returncode == 1
        done = shell.coatcheck(*command, "--home", changing.home, stdin=FIRST)
        assert done.returncode == 0, done.stderr

        wait_for(wire, lambda answer: answer.code == "domain_not_allowed")
    wait_until(changing.agrees, SLACK_S)
    with changing.dial(RUNNER).tunnel("other.example.test") as wire:
        assert wire.get("/echo", KEY, host="other.example.test").status == 200


def test_deleted(changing: Proxy, shell: Shell, upstream: Upstream) -> None:
    """Refused while a grant names it, unless forced; then gone within a second."""
    command = ["secret", "delete", "crm.apiKey", "--home", changing.home]
    with changing.dial(RUNNER).tunnel() as wire:
        assert wire.get("/echo", KEY).status == 200
        refused = shell.coatcheck(*command)
        assert refused.returncode == 1
        assert wire.get("/echo", KEY).status == 200
        assert shell.coatcheck(*command, "--force").returncode == 0

        wait_for(wire, lambda answer: answer.code == "secret_unavailable")


def test_made_while_running(changing: Proxy, upstream: Upstream) -> None:
    key = "Authorization: Bearer {{secrets.crm.late}}"
    with changing.dial(RUNNER).tunnel() as wire:
        assert wire.get("/echo", key).code == "secret_unavailable"
        with store_of(changing.home) as store:
            put(store, "crm.late", b"late-value-1029384756", "api.example.test")
            wait_for(wire, sends(upstream, b"late-value-1029384756"), key)
            store.delete("crm.late", now=time.time())


def test_a_request_under_way_sees_one_version(changing: Proxy, upstream: Upstream) -> None:
    """What was injected is scrubbed from the answer, however long that takes to come."""
    with changing.dial(RUNNER).tunnel() as wire:
        wire.send(request("GET", "/gated/one-version", KEY))
        wait_until(lambda: len(upstream.received) == 1, 5)
        with store_of(changing.home) as store:
            put(store, "crm.apiKey", SECOND)
        time.sleep(0.3)  # less than the time that an answer may take
        upstream.gate("one-version").release()
        answer = wire.read()
    assert upstream.one().all("authorization") == [b"Bearer " + FIRST]
    assert answer.status == 200
    assert FIRST not in answer.raw


# --- limits, and what runs out -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "code", "status"),
    [
        pytest.param("hole.example.test", "upstream_unreachable", 502, id="connection dropped"),
        pytest.param("mute.example.test", "upstream_tls_failed", 502, id="no TLS handshake"),
    ],
)
@pytest.mark.usefixtures("unanswering")
def test_connections_that_take_too_long(host: str, code: str, status: int, own: Proxy) -> None:
    with own.dial(RUNNER).tunnel(host) as wire:
        check(wire.get("/", host=host), code, status)


def test_upstream_timeout(own: Proxy, upstream: Upstream) -> None:
    with own.dial(RUNNER).tunnel() as wire:
        answer = wire.get("/silent", KEY)
    check(answer, "upstream_timeout", 504)


def test_body_too_large_once_decoded(own: Proxy, upstream: Upstream) -> None:
    import gzip

    content = gzip.compress(b'["' + b"x" * 100_000 + b'"]')
    with own.dial(RUNNER).tunnel() as wire:
        data = request("POST", "/echo", JSON, "Content-Encoding: gzip", body=content)
        check(wire.ask(data), "body_too_large", 413)
    assert upstream.take() == []


def test_too_many_placeholders_of_several_secrets(own: Proxy, upstream: Upstream) -> None:
    keys = "{{secrets.crm.apiKey}}" * 4 + "{{secrets.crm.other}}" * 3
    with own.dial(RUNNER).tunnel() as wire:
        check(wire.get("/echo", f"X-Keys: {keys}"), "too_many_placeholders", 403)
    assert upstream.take() == []


def test_no_audit_no_request(own: Proxy, upstream: Upstream) -> None:
    """G6: the record comes before the bytes. A file size limit stands for a full disk."""
    with own.dial(RUNNER).tunnel() as wire:
        assert wire.get("/echo", KEY).status == 200
        with own.limited(resource.RLIMIT_FSIZE, lambda _: 0):
            upstream.take()
            answer = wire.get("/echo", KEY)
            plain = wire.get("/echo")
        check(answer, "audit_unavailable", 503)
        check(plain, "audit_unavailable", 503)
        assert upstream.take() == []
        assert wire.get("/echo", KEY).status == 200


def test_a_value_that_cannot_be_opened(changing: Proxy, upstream: Upstream) -> None:
    """Who writes to the database, and has no key, can break a value but not replace it."""
    with changing.dial(RUNNER).tunnel() as wire:
        assert wire.get("/echo", KEY).status == 200
        with sqlite3.connect(changing.home / "store.db") as base:
            base.execute("UPDATE versions SET domains = '[\"*\"]'")
            base.execute("UPDATE secrets SET domains = '[\"evil.example.test\"]'")
            base.execute("UPDATE meta SET revision = revision + 1")
        base.close()

        wait_for(wire, lambda answer: answer.status != 200)

    wait_until(changing.agrees, SLACK_S)
    upstream.take()
    with changing.dial(RUNNER).tunnel("evil.example.test") as wire:
        answer = wire.get("/echo", KEY, host="evil.example.test")
    check(answer, "store_unavailable", 503)
    assert upstream.take() == []


def test_a_store_that_goes_away(changing: Proxy, upstream: Upstream) -> None:
    """The view that was read last is used on for a while; nothing fails open."""
    store = changing.home / "store.db"
    store.rename(store.with_suffix(".away"))
    try:
        time.sleep(0.6)
        with changing.dial(RUNNER).tunnel() as wire:
            assert wire.get("/echo", KEY).status == 200
            assert upstream.one().all("authorization") == [b"Bearer " + FIRST]
    finally:
        store.with_suffix(".away").rename(store)


def is_refused(world: World, port: int) -> bool:
    try:
        world.connect("127.0.0.1", port).close()
    except ConnectionRefusedError:
        return True
    return False


# --- the end -------------------------------------------------------------------------------------


def test_sigterm_lets_requests_end(
    world: World, folder: Path, upstream_ca: Path, upstream: Upstream
) -> None:
    home = make_home(folder / "ending", {"crm.apiKey": api_only(FIRST)}, POLICY)
    proxy: Dial
    running = Proxy(world, home, upstream_ca).wait_ready()
    try:
        proxy = running.dial(RUNNER)
        with proxy.tunnel() as wire, proxy.tunnel() as idle:
            wire.send(request("GET", "/gated/ending", KEY))
            wait_until(lambda: len(upstream.received) == 1, 5)
            os.kill(running.process.pid, signal.SIGTERM)
            assert idle.is_closed()
            wait_until(lambda: is_refused(world, running.port), 5)
            upstream.gate("ending").release()
            assert wire.read().status == 200
        assert running.process.wait(10) == 0
    finally:
        running.stop()
    assert not (home / "run" / "state.json").exists()
