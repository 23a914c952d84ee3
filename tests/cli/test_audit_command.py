"""`coatcheck audit`, and that commands which change something are on record."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from coatcheck.cli import auditlines
from coatcheck.cli.value import InputError
from coatcheck.core import audit
from coatcheck.core.destination import Destination
from coatcheck.core.problems import Code, Problem
from coatcheck.core.redact import Hit
from coatcheck.observe.auditlog import FileAuditLog, Keys
from coatcheck.store import auditkey
from coatcheck.store.home import Home
from tests.cli.homes import Commands

NOW = 1_795_000_000.0
VALUE = b"sk_live_7c41d0e9b2f84a6f"


def open_log(root: Path) -> FileAuditLog:
    home = Home(root)
    key = auditkey.signing(home.audit_key, home.audit_public)
    log = FileAuditLog(home.audit, keys=Keys(key, home.audit_heads))
    log.open()
    return log


def some_lines(root: Path) -> None:
    """An injection, a scrub, and a refusal of another client; and no record of `init`."""
    for path in [*(root / "audit").iterdir(), *(root / "audit.heads").iterdir()]:
        path.unlink()
    log = open_log(root)
    there = Destination("https", "api.example.com", 443)
    facts = audit.Facts("id1", "runner", "127.0.0.1", there, "GET", "/v1/me")
    other = audit.Facts("id2", "other", "127.0.0.1", there, "POST", "/x\x1b[2J")
    log.write(audit.allowed(NOW, facts, [audit.Use("crm.apiKey", 1, "header:authorization")]))
    hits = audit.Counter({Hit("crm.apiKey", "raw"): 2})
    log.write(audit.scrubbed(NOW + 1, facts, 200, {"body": hits}))
    problem = Problem(Code.DOMAIN_NOT_ALLOWED, secret="maps.key", location="path")
    log.write(audit.refused(NOW + 2, other, problem))
    log.close()


# --- verify -----------------------------------------------------------------------------------


def test_a_log_that_nobody_touched_is_whole(coatcheck: Commands) -> None:
    some_lines(coatcheck.root)
    done = coatcheck("audit", "verify")

    assert (done.code, done.err) == (0, "")
    assert done.out == "audit: whole; lines 1 to 4 in 1 file, signed up to 4\n"


def test_what_was_changed_is_told_with_its_place(coatcheck: Commands) -> None:
    some_lines(coatcheck.root)
    path = coatcheck.root / "audit" / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b"crm.apiKey", b"crm.apiKez", 1))

    done = coatcheck("audit", "verify")
    as_json = coatcheck("audit", "verify", "--format", "json")

    assert done.code == as_json.code == 1
    assert "audit: NOT WHOLE" in done.out
    assert "  audit.jsonl:1: line 1 was changed\n" in done.out
    told = json.loads(as_json.out)
    assert told["whole"] is False
    assert told["logs"][0]["findings"] == [
        {"file": "audit.jsonl", "line": 1, "what": "line 1 was changed"}
    ]


def test_a_file_that_was_shipped_is_verified_with_the_public_key(
    coatcheck: Commands, tmp_path: Path
) -> None:
    some_lines(coatcheck.root)
    shipped, key = tmp_path / "shipped.jsonl", tmp_path / "audit.pub"
    shipped.write_bytes((coatcheck.root / "audit" / "audit.jsonl").read_bytes())
    key.write_bytes((coatcheck.root / "audit.pub").read_bytes())
    elsewhere = Commands(tmp_path / "none")

    whole = elsewhere("audit", "verify", str(shipped), "--key", str(key))
    shipped.write_bytes(shipped.read_bytes()[1:])
    changed = elsewhere("audit", "verify", str(shipped), "--key", str(key))

    assert (whole.code, changed.code) == (0, 1)
    assert "shipped.jsonl:1: " in changed.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["nowhere.jsonl"], "cannot read nowhere.jsonl", id="a file that is not there"),
        pytest.param(["--key", "nowhere.pub"], "there is no file nowhere.pub", id="or a key"),
    ],
)
def test_what_cannot_be_read_is_an_error(
    coatcheck: Commands, arguments: list[str], said: str
) -> None:
    done = coatcheck("audit", "verify", *arguments)

    assert (done.code, said in done.err) == (1, True)


# --- tail -------------------------------------------------------------------------------------


def test_a_line_for_each_record_and_no_escape_of_a_client(coatcheck: Commands) -> None:
    some_lines(coatcheck.root)
    done = coatcheck("audit", "tail", "-n", "3")

    first, second, third = done.out.splitlines()
    assert re.sub(r" +", " ", first).endswith(
        "allow runner GET https://api.example.com/v1/me crm.apiKey at header:authorization id1"
    )
    assert "scrub " in second
    assert "crm.apiKey as raw in body, 2x" in second
    assert "refuse " in third
    assert "domain_not_allowed  maps.key at path" in third
    assert "\x1b" not in done.out
    assert r"/x\x1b[2J" in third


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["--code", "x"], "there is nothing to show", id="nothing"),
        pytest.param(["-n", "1"], "", id="a line"),
    ],
)
def test_at_a_terminal_it_is_said_that_there_is_nothing_to_show(
    coatcheck: Commands, arguments: list[str], said: str
) -> None:
    some_lines(coatcheck.root)
    near, far = pty.openpty()
    command = [sys.executable, "-m", "coatcheck", "audit", "tail", *arguments]
    environ = {**os.environ, "COATCHECK_HOME": str(coatcheck.root)}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=far, env=environ, check=True)
    os.write(far, b"\n")  # so that there is something to read in any case
    screen = os.read(near, 4096).decode()
    os.close(near)
    os.close(far)

    assert screen.startswith(said)
    assert bool(done.stdout) != bool(said)


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        pytest.param([], ["id1", "id1", "id2"], id="all"),
        pytest.param(["-n", "1"], ["id2"], id="the last one"),
        pytest.param(["--client", "runner"], ["id1", "id1"], id="of a client"),
        pytest.param(["--secret", "crm.apiKey"], ["id1", "id1"], id="with a secret"),
        pytest.param(["--secret", "maps.key"], ["id2"], id="in a refusal"),
        pytest.param(["--code", "domain_not_allowed"], ["id2"], id="with a code"),
        pytest.param(["--code", "x"], [], id="none"),
        pytest.param(["--since", "2026-11-18T11:06:41Z"], ["id1", "id2"], id="since a time"),
    ],
)
def test_what_is_asked_for_is_shown(
    coatcheck: Commands, arguments: list[str], ids: list[str]
) -> None:
    some_lines(coatcheck.root)
    done = coatcheck("audit", "tail", "--format", "json", *arguments)

    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["request_id"] for line in lines] == ids
    assert all("chain" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("", ""),
        ("90s", "2026-11-18T11:05:10.000+00:00"),
        ("2h", "2026-11-18T09:06:40.000+00:00"),
        ("1d", "2026-11-17T11:06:40.000+00:00"),
        ("2026-11-18T12:00:00+01:00", "2026-11-18T11:00:00.000+00:00"),
        ("2026-11-18", "2026-11-18T00:00:00.000+00:00"),
    ],
)
def test_since_when(text: str, at: str) -> None:
    assert auditlines.since(text, NOW) == at


def test_what_is_no_time_is_told() -> None:
    with pytest.raises(InputError, match="--since is no time"):
        auditlines.since("yesterday", NOW)


def test_it_follows_until_it_is_stopped(coatcheck: Commands) -> None:
    some_lines(coatcheck.root)
    with subprocess.Popen(
        [sys.executable, "-m", "coatcheck", "audit", "tail", "-f", "-n", "1"],
        stdout=subprocess.PIPE,
        env={"COATCHECK_HOME": str(coatcheck.root)},
        # Whoever started the tests may ignore it, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as tail:
        assert tail.stdout is not None
        try:
            assert b"id2" in tail.stdout.readline()
            log = open_log(coatcheck.root)
            facts = audit.Facts("id3", "late", "127.0.0.1")
            log.write(audit.allowed(time.time(), facts, []))
            log.close()
            assert b"id3" in tail.stdout.readline()
            tail.send_signal(signal.SIGINT)
            assert tail.wait(20) == 0
        finally:
            tail.kill()


# --- commands that change something -----------------------------------------------------------


def changes(root: Path) -> list[dict[str, Any]]:
    lines = (root / "audit" / "audit-management.jsonl").read_bytes().splitlines()
    return [record for record in map(json.loads, lines) if record["event"] == "management"]


CHANGES = [
    pytest.param(["secret", "set", "b", "--domain", "x.example.com"], "secret.set", id="set"),
    pytest.param(["secret", "edit", "a", "--name", "c"], "secret.edit", id="edit"),
    pytest.param(["secret", "delete", "a", "--force"], "secret.delete", id="delete"),
    pytest.param(["keys", "rotate"], "keys.rotate", id="rotate"),
    pytest.param(["keys", "passphrase"], "keys.passphrase", id="passphrase"),
    pytest.param(["backup", "{tmp}/made"], "store.backup", id="backup"),
    pytest.param(["restore", "{tmp}/backup", "--force"], "store.restore", id="restore"),
    pytest.param(["store", "migrate", "--to", "{tmp}/new.db"], "store.migrate", id="migrate"),
    pytest.param(["store", "accept"], "store.accept", id="accept"),
    pytest.param(["client", "token", "runner"], "client.token", id="token"),
    pytest.param(["token", "create", "ci", "--role", "viewer"], "token.create", id="admin token"),
]


@pytest.fixture
def stocked(coatcheck: Commands, tmp_path: Path) -> Commands:
    made = coatcheck("secret", "set", "a", "--domain", "api.example.com", stdin=VALUE)
    taken = coatcheck("backup", str(tmp_path / "backup"))
    assert (made.code, taken.code) == (0, 0), made.all + taken.all
    return coatcheck


@pytest.mark.parametrize(("arguments", "action"), CHANGES)
def test_a_command_that_changes_something_is_on_record(
    stocked: Commands, tmp_path: Path, arguments: list[str], action: str
) -> None:
    before = len(changes(stocked.root))
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    done = stocked(*given, stdin=b"a-value-or-a-passphrase")

    fresh = changes(stocked.root)[before:]
    assert done.code == 0, done.all
    assert {record["action"] for record in fresh} == {action}
    assert fresh[-1]["outcome"] == "done"
    assert all(record["actor"].startswith("os:") for record in fresh)
    assert coatcheck_is_whole(stocked)
    everything = b"".join(path.read_bytes() for path in (stocked.root / "audit").iterdir())
    assert VALUE not in everything
    assert b"a-value-or-a-passphrase" not in everything


@pytest.mark.parametrize(("arguments", "action"), CHANGES)
def test_and_is_refused_where_it_cannot_be(
    stocked: Commands, tmp_path: Path, arguments: list[str], action: str
) -> None:
    path = stocked.root / "audit" / "audit-management.jsonl"
    path.unlink()
    path.mkdir()
    kept = (stocked.root / "sealing.key").read_bytes()
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    done = stocked(*given, stdin=b"a-value-or-a-passphrase")

    assert done.code == 1, f"{action}: {done.all}"
    assert "the audit log" in done.err
    assert (stocked.root / "sealing.key").read_bytes() == kept
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "new.db").exists()
    assert [
        row["name"] for row in json.loads(stocked("secret", "list", "--format", "json").out)
    ] == ["a"]
    assert "ctk_" not in done.out


def coatcheck_is_whole(coatcheck: Commands) -> bool:
    return coatcheck("audit", "verify").code == 0
