"""`coatcheck store migrate`, as docs/operations.md has it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.homes import Commands
from tests.store.server import PASSWORD, Server


def with_two(coatcheck: Commands) -> None:
    for name in ("crm.apiKey", "crm.other"):
        done = coatcheck(
            "secret", "set", name, "--domain", "api.example.com", stdin=b"value-of-" + name.encode()
        )
        assert done.code == 0, done.all


def test_the_store_moves_to_postgresql_and_is_used_there(
    coatcheck: Commands, postgres: Server, tmp_path: Path
) -> None:
    """The password stands in a file; nothing prints it."""
    with_two(coatcheck)
    name = postgres.database()
    url = f"postgresql://coat@127.0.0.1:{postgres.port}/{name}"
    passwords = tmp_path / "pgpass"
    passwords.write_text(f"127.0.0.1:{postgres.port}:{name}:coat:{PASSWORD}\n")
    passwords.chmod(0o600)
    env = {"PGPASSFILE": str(passwords)}

    dry = coatcheck("store", "migrate", "--to", url, "--dry-run", env=env)
    done = coatcheck("store", "migrate", "--to", url, env=env)
    env["COATCHECK_STORE"] = url
    (coatcheck.root / "store.db").unlink()
    listed = coatcheck("secret", "list", "--format", "json", env=env)
    added = coatcheck("secret", "set", "new", "--domain", "a.example.com", stdin=b"v" * 20, env=env)
    doctor = coatcheck("doctor", "--format", "json", env=env)

    assert (dry.code, dry.out) == (
        0,
        f"postgresql://127.0.0.1:{postgres.port}/{name}: "
        "2 of 2 secrets, 2 versions, 1 tokens would be copied\n",
    )
    assert (done.code, "2 copied, all compared" in done.out) == (0, True)
    assert "COATCHECK_STORE" in done.err
    assert [row["name"] for row in json.loads(listed.out)] == ["crm.apiKey", "crm.other"]
    assert added.code == 0
    assert "3 secrets; every value opens" in doctor.out
    assert PASSWORD not in "".join(each.all for each in (dry, done, listed, added, doctor))


def test_what_was_done_can_be_read_by_a_program(coatcheck: Commands, tmp_path: Path) -> None:
    with_two(coatcheck)
    target = tmp_path / "new.db"
    done = coatcheck("store", "migrate", "--to", str(target), "--format", "json")

    assert json.loads(done.out) == {
        "store": str(target),
        "secrets": 2,
        "versions": 2,
        "tokens": 1,
        "copied": 2,
        "whole": True,
    }


def test_a_password_on_the_command_line_is_warned_of_and_not_repeated(coatcheck: Commands) -> None:
    done = coatcheck("store", "migrate", "--to", "postgresql://u:hunter2@127.0.0.1:1/db")

    assert done.code == 1
    assert "PGPASSFILE" in done.err
    assert "cannot be reached" in done.err
    assert "hunter2" not in done.all


def test_a_place_that_is_no_database_is_refused(coatcheck: Commands, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("something else")
    taken.chmod(0o600)
    done = coatcheck("store", "migrate", "--to", str(taken))

    assert done.code == 1
    assert "no coatcheck store" in done.err
    assert taken.read_text() == "something else"


@pytest.fixture
def serving(coatcheck: Commands, postgres: Server) -> Iterator[Callable[[], dict[str, Any]]]:
    """A proxy whose store is in PostgreSQL; what `status` says of it."""
    url = postgres.url(postgres.database())
    assert coatcheck("store", "migrate", "--to", url).code == 0
    (coatcheck.root / "store.db").unlink()
    (coatcheck.root / "coatcheck.yaml").write_text(
        f'store: "{url}"\nlisten: "127.0.0.1:0"\nrole: proxy\n'
    )
    program = [sys.executable, "-m", "coatcheck", "serve", "--home", str(coatcheck.root)]
    with (coatcheck.root / "log").open("wb") as log:
        proxy = subprocess.Popen(program, stderr=log)
    try:
        yield lambda: json.loads(coatcheck("status", "--format", "json").out or "{}")
    finally:
        proxy.terminate()
        proxy.wait(30)


def until(status: Callable[[], dict[str, Any]], is_so: Callable[[dict[str, Any]], bool]) -> bool:
    """Whether what `status` says comes to be so within half a minute."""
    end = time.monotonic() + 30
    while not (so := is_so(status())) and time.monotonic() < end:
        time.sleep(0.1)
    return so


@pytest.mark.slow
def test_a_proxy_on_postgresql_sees_changes_and_outlives_an_outage(
    coatcheck: Commands, postgres: Server, serving: Callable[[], dict[str, Any]]
) -> None:
    assert until(serving, lambda found: found.get("store_revision") == 2)
    with_two(coatcheck)
    assert until(serving, lambda found: found.get("store_revision") == 4)
    postgres.stop()
    try:
        assert until(serving, lambda found: bool(found.get("store_error")))
        told = serving()["store_error"]
    finally:
        postgres.start()
    assert until(serving, lambda found: found.get("store_error") == "")
    with_two(coatcheck)
    assert until(serving, lambda found: found.get("store_revision") == 6)
    log = (coatcheck.root / "log").read_text()

    assert "cannot be reached" in told
    assert '"store.unreadable"' in log
    assert PASSWORD not in told + log
