"""`coatcheck doctor` and a real proxy: it is whole, or it was broken by hand, and a row says so."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coatcheck.cli.findings import Finding, Status
from coatcheck.core import canary
from coatcheck.core.identity import token_digest
from coatcheck.observe import state
from coatcheck.store.home import Home, create_home
from tests.cli.homes import Commands, Done
from tests.long import only_in_long

READY_S = 60.0
TOKEN = "t0k3n-of-the-runner-5f1c"
LOCAL = """\
version: 1
clients:
  local: {networks: ["127.0.0.1/32"]}
"""
BY_TOKEN = f"""\
version: 1
clients:
  runner: {{token: "sha256:{token_digest(TOKEN.encode())}"}}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = create_home(tmp_path_factory.mktemp("model") / "home", now=time.time()).home
    made.policy.write_text(LOCAL)
    made.config.write_text("listen: 127.0.0.1:0\n")
    return made


@pytest.fixture
def home(model: Home, tmp_path: Path) -> Home:
    shutil.copytree(model.root, tmp_path / "home")
    return Home(tmp_path / "home")


@pytest.fixture(scope="module")
def by_token(model: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A proxy that knows its clients by tokens alone."""
    root = tmp_path_factory.mktemp("by-token") / "home"
    shutil.copytree(model.root, root)
    made = Home(root)
    made.policy.write_text(BY_TOKEN)
    with serving(made):
        yield made


@contextmanager
def serving(home: Home, broken: str = "", *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """`coatcheck serve`, with the Python statements *broken* carried out in it before."""
    arguments = ["serve", "--home", str(home.root), "--no-admin", *options]
    program = f"{broken}\nimport sys\nfrom coatcheck.cli.main import main\nmain()"
    log = home.root.parent / "serve.log"
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, "HOME": str(home.root.parent)},
        ) as process,
    ):
        try:
            until = time.monotonic() + READY_S
            while b"serve.ready" not in log.read_bytes():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.05)
            yield process
        finally:
            process.terminate()
            process.wait(timeout=20)


def doctor(home: Home, *options: str, **variables: str) -> tuple[Done, list[Finding]]:
    done = Commands(home.root)("doctor", "--format", "json", *options, env=variables)
    rows = json.loads(done.out)
    found = [Finding(r["check"], Status(r["status"]), r["found"], r["remedy"]) for r in rows]
    return done, [finding for finding in found if finding.check == "canary"]


def lines_of(home: Home) -> list[dict[str, object]]:
    text = (home.audit / "audit.jsonl").read_text()
    return [r for r in map(json.loads, text.splitlines()) if r.get("path") == canary.PATH]


@pytest.mark.parametrize("workers", [1, 2])
def test_of_a_proxy_that_is_whole_it_is_seen(workers: int, home: Home) -> None:
    with serving(home, "", "--workers", str(workers)):
        for _ in range(workers):
            _, (row,) = doctor(home)

            assert (row.status, row.remedy) == (Status.OK, "")
            assert "filled a placeholder, and scrubbed its value" in row.found


def test_it_is_on_record_as_every_use_of_a_secret(home: Home) -> None:
    with serving(home):
        doctor(home)

    sent, scrubbed = lines_of(home)
    assert (sent["client"], sent["decision"]) == ("local", "allow")
    assert sent["secrets"] == [
        {"name": canary.NAME, "version": 1, "location": "header:authorization"}
    ]
    assert scrubbed["decision"] == "scrub"


UNSCRUBBED = "let a value through to the client: it does not scrub"
BREAKS = {
    "the body is not scrubbed": (
        "from coatcheck.core.scrubbing import Scrubbing as S\n"
        "S.pieces, S.finish = lambda self, chunk: (chunk,), lambda self: b''",
        UNSCRUBBED,
    ),
    "the head is not scrubbed": (
        "from coatcheck.core.scrubbing import Scrubbing as S\n"
        "S.head = lambda self, head, has_body: head",
        UNSCRUBBED,
    ),
    "one spelling is not scrubbed": (
        "from coatcheck.core import spelling\n"
        "spelling.SPELLINGS = tuple(s for s in spelling.SPELLINGS if 'hex' not in s.id)",
        UNSCRUBBED,
    ),
    "nothing is injected": (
        "from coatcheck import gateway\ngateway.inject.read_head = lambda head, grammar: None",
        "did not put the value in the placeholder's place",
    ),
    "the answer is emptied": (
        "from coatcheck.core.scrubbing import Scrubbing as S\n"
        "whole = S.head\n"
        "S.head = lambda self, head, has_body:"
        " (h := whole(self, head, has_body=has_body)).with_fields(h.fields[1:])",
        "did not send the answer that was to be scrubbed",
    ),
    "the audit log is full": (
        "from coatcheck.core.ports import AuditError\n"
        "from coatcheck.observe.counted import CountedLog\n"
        "def write(self, record): raise AuditError('no room', hint='make room')\n"
        "CountedLog.write = write",
        "refused the canary (audit_unavailable)",
    ),
}


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        pytest.param(*both, id=name, marks=only_in_long if n % 3 else [])
        for n, (name, both) in enumerate(BREAKS.items())
    ],
)
def test_what_is_broken_is_told_and_is_a_failure(broken: str, told: str, home: Home) -> None:
    with serving(home, broken):
        done, (row,) = doctor(home)

    assert (row.status, done.code) == (Status.FAIL, 1)
    assert told in row.found
    assert row.remedy


def test_the_value_that_came_back_is_not_printed(home: Home) -> None:
    broken, told = BREAKS["the body is not scrubbed"]
    salt = "ab" * canary.SALT_BYTES
    with serving(home, f"{broken}\nimport secrets\nsecrets.token_hex = lambda size: 'ab' * size"):
        done, _ = doctor(home)

    value = canary.value(home.canary_key.read_bytes(), salt).decode()
    assert told in done.out
    assert value not in done.all
    assert value not in (home.root.parent / "serve.log").read_text()


def of_another_authority(home: Home) -> None:
    other = create_home(home.root.parent / "other", now=time.time()).home
    shutil.copy(other.ca_certificate, home.ca_certificate)
    shutil.copy(other.ca_key, home.ca_key)


def a_key_that_others_can_read(home: Home) -> None:
    home.canary_key.chmod(0o644)


def no_key(home: Home) -> None:
    home.canary_key.unlink()


def another_key(home: Home) -> None:
    home.canary_key.write_bytes(b"k" * canary.KEY_BYTES)


@pytest.mark.parametrize(
    ("plant", "status", "told"),
    [
        pytest.param(
            of_another_authority,
            Status.FAIL,
            "shows a certificate that is not of",
            id="clients are given a CA that the proxy does not use",
        ),
        pytest.param(
            a_key_that_others_can_read, Status.WARN, "were not tried", id="a key open to others"
        ),
        pytest.param(no_key, Status.WARN, "were not tried", id="a key that is gone"),
    ],
)
def test_what_changed_since_the_start(
    plant: Callable[[Home], None], status: Status, told: str, home: Home
) -> None:
    with serving(home):
        plant(home)

        _, (row,) = doctor(home)

    assert row.status is status
    assert told in row.found
    assert row.remedy


def test_a_proof_by_another_key_is_none(home: Home) -> None:
    with serving(home):
        another_key(home)

        _, (row,) = doctor(home)

    assert row.status is Status.FAIL
    assert "did not put the value in the placeholder's place" in row.found


def test_a_proxy_that_has_no_canary_is_no_failure(home: Home) -> None:
    home.run.mkdir(mode=0o700, exist_ok=True)
    home.canary_key.write_bytes(b"short")
    home.canary_key.chmod(0o600)
    with serving(home):
        another_key(home)

        done, (row,) = doctor(home)

    assert (row.status, done.code) == (Status.WARN, 0)
    assert "has no canary, so injection and scrubbing were not tried" in row.found


@pytest.mark.parametrize(
    ("options", "variables", "status"),
    [
        pytest.param((), {}, Status.WARN, id="no client is known by this machine's address"),
        pytest.param((), {"COATCHECK_CLIENT_TOKEN": TOKEN}, Status.OK, id="its token"),
        pytest.param(
            ("--client", "runner"),
            {"COATCHECK_CLIENT_TOKEN": TOKEN},
            Status.OK,
            id="name and token",
        ),
        pytest.param(
            ("--client", "other"), {"COATCHECK_CLIENT_TOKEN": TOKEN}, Status.WARN, id="another name"
        ),
        pytest.param((), {"COATCHECK_CLIENT_TOKEN": TOKEN[:-1]}, Status.WARN, id="a wrong token"),
    ],
)
def test_a_client_is_needed(
    options: tuple[str, ...], variables: dict[str, str], status: Status, by_token: Home
) -> None:
    done, (row,) = doctor(by_token, *options, **variables)

    assert (row.status, done.code) == (status, 0)
    untried = "does not know us as a client, so injection and scrubbing were not tried"
    assert (untried in row.found) is (status is Status.WARN)
    assert TOKEN not in done.all


def test_of_a_proxy_that_is_down_nothing_is_tried(home: Home) -> None:
    with serving(home) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=20)

        done, rows = doctor(home)

    assert state.read(home.run) is not None  # it had no time to take it away
    assert rows == []
    assert "ended without saying so, so nothing was tried" in done.out
