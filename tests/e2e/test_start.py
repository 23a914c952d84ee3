"""`serve` that cannot start says why and what to do, ends with 1, and has listened to nobody."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.harness import CLIENTS, Proxy, Shell, api_only, make_home
from tests.e2e.world import World
from tests.long import only_in_long

FREE = "127.0.0.1:7000"
SECRET = b"never-shown-0123456789"


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    """A good home, to be copied and broken."""
    return make_home(folder / "model", {"crm.apiKey": api_only(SECRET)}, CLIENTS)


@pytest.fixture
def home(model: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "home"
    shutil.copytree(model, copy, symlinks=True)
    return copy


@dataclass(frozen=True)
class Broken:
    """How a home is broken, and what is said."""

    how: Callable[[Path], object]
    says: str
    options: tuple[str, ...] = ()


def overwrite(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda home: (home / name).write_bytes(content)


def mode(name: str, bits: int) -> Callable[[Path], object]:
    return lambda home: (home / name).chmod(bits)


def remove(name: str) -> Callable[[Path], object]:
    def act(home: Path) -> None:
        path = home / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return act


def another(name: str) -> Callable[[Path], object]:
    """The file of another home in the place of ours."""

    def act(home: Path) -> None:
        other = make_home(home.parent / "other", {}, CLIENTS)
        for beside in (name, f"{name}-wal", f"{name}-shm"):
            (home / beside).unlink(missing_ok=True)
        shutil.copy2(other / name, home / name)

    return act


def nothing(home: Path) -> None:
    """The home is fine."""


def linked(home: Path) -> None:
    (home / "sealing.key").rename(home.parent / "elsewhere.key")
    (home / "sealing.key").symlink_to(home.parent / "elsewhere.key")


CASES = {
    "no home": Broken(shutil.rmtree, "coatcheck init"),
    "home open to others": Broken(mode("", 0o755), "chmod 700"),
    "sealing key missing": Broken(remove("sealing.key"), "sealing.key"),
    "sealing key open to others": Broken(mode("sealing.key", 0o644), "chmod 600"),
    "sealing key is a link": Broken(linked, "symbolic link"),
    "sealing key is no key": Broken(overwrite("sealing.key", b"hello\n"), "sealing.key"),
    "sealing key of another home": Broken(another("sealing.key"), "sealing"),
    "CA missing": Broken(remove("ca"), "restore it from a backup"),
    "CA key missing": Broken(remove("ca/mitmproxy-ca.pem"), "restore it from a backup"),
    "CA key open to others": Broken(mode("ca/mitmproxy-ca.pem", 0o640), "chmod 600"),
    "CA is no CA": Broken(overwrite("ca/mitmproxy-ca.pem", b"hello\n"), "mitmproxy-ca.pem"),
    "store missing": Broken(remove("store.db"), "store.db"),
    "store open to others": Broken(mode("store.db", 0o644), "chmod 600"),
    "store is no database": Broken(overwrite("store.db", b"hello\n" * 300), "store.db"),
    "store empty": Broken(overwrite("store.db", b""), "store.db"),
    "store of another home": Broken(another("store.db"), "store"),
    "audit folder is a file": Broken(
        lambda home: (home / "audit").rmdir() or (home / "audit").touch(), "next: move it away"
    ),
    "settings with a mistake": Broken(
        overwrite("coatcheck.yaml", b"listn: 1\n"), "coatcheck.yaml:1:1"
    ),
    "settings with a limit out of bounds": Broken(
        overwrite("coatcheck.yaml", b"limits:\n  head_bytes: 1\n"), "coatcheck.yaml:2:"
    ),
    "upstream CA missing": Broken(nothing, "upstream", ("--upstream-ca", "/nowhere.pem")),
    "upstream CA without a certificate": Broken(nothing, "PEM", ("--upstream-ca", "/etc/hosts")),
    "no address": Broken(nothing, "HOST:PORT", ("--listen", "here")),
    "an address of others": Broken(
        nothing, "no such address on this machine", ("--listen", "192.0.2.1:8080")
    ),
    "an admin address of others": Broken(
        nothing, "no such address on this machine", ("--admin", "192.0.2.1:8081")
    ),
    "admin and no admin": Broken(nothing, "--no-admin", ("--no-admin", "--role", "admin")),
    "keys would be logged": Broken(nothing, "SSLKEYLOGFILE"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_cannot_start(case: Broken, home: Path, shell: Shell, world: World) -> None:
    case.how(home)
    variables = {"SSLKEYLOGFILE": str(home.parent / "keys")} if case.says == "SSLKEYLOGFILE" else {}
    options = case.options if "--listen" in case.options else ("--listen", FREE, *case.options)

    alone = [] if "--admin" in options or "--no-admin" in options else ["--no-admin"]
    done = shell.coatcheck("serve", "--home", home, *options, *alone, **variables)

    said = done.stderr.decode()
    assert done.returncode == 1, said
    assert case.says in said
    assert "error: " in said
    assert "next: " in said
    assert "internal error" not in said
    assert "Traceback" not in said
    assert SECRET.decode() not in said
    with pytest.raises(OSError, match="refused"):
        world.connect("127.0.0.1", 7000)


# What the supervisor finds out by itself, and what only a worker can.
BY_WORKERS = [
    "an address of others",
    "no home",
    "CA missing",
    "store empty",
    "keys would be logged",
]


@only_in_long
@pytest.mark.parametrize("name", BY_WORKERS)
def test_several_workers_cannot_start(name: str, home: Path, shell: Shell, world: World) -> None:
    """The same words, once; and no process is left that could listen."""
    case = CASES[name]
    several = Broken(case.how, case.says, ("--workers", "2", *case.options))

    test_cannot_start(several, home, shell, world)

    assert shell.output[-1].count(b"error: ") == 1
    assert b"worker.started" not in shell.output[-1]


def test_the_port_is_taken(proxy: Proxy, home: Path, shell: Shell) -> None:
    for number in ("1", "2"):
        done = shell.coatcheck(
            *("serve", "--home", home, "--listen", proxy.address, "--workers", number),
            "--no-admin",
        )

        assert done.returncode == 1
        assert f"cannot listen on {proxy.address}".encode() in done.stderr
        assert b"--listen" in done.stderr


@pytest.mark.parametrize("number", ["1", "2"])
def test_who_cannot_start_leaves_the_state_of_who_runs_alone(
    proxy: Proxy, shell: Shell, number: str
) -> None:
    """A second start for the same home, by mistake."""
    command = ("serve", "--home", proxy.home, "--listen", proxy.address, "--workers", number)
    command += ("--no-admin",)

    assert shell.coatcheck(*command).returncode == 1

    assert shell.coatcheck("status", "--home", proxy.home).returncode == 0


def test_without_a_policy_it_runs_and_lets_nobody_in(
    home: Path, world: World, upstream_ca: Path
) -> None:
    """A policy can come later; until then nothing is injected."""
    (home / "policy.yaml").unlink()
    running = Proxy(world, home, upstream_ca)
    try:
        running.wait_ready()
        dial = running.dial()
        with dial.plain() as wire:
            assert wire.ask(dial.connect_request("api.example.test")).status == 407
        assert b"policy.refused" in running.log.read_bytes()
    finally:
        running.stop()


def test_the_home_is_in_use_by_its_own_proxy(proxy: Proxy, shell: Shell) -> None:
    """Commands work beside a running proxy."""
    done = shell.coatcheck("secret", "list", "--home", proxy.home, "--format", "json")
    assert done.returncode == 0
    assert b"crm.apiKey" in done.stdout


def test_status_without_a_proxy(home: Path, shell: Shell) -> None:
    done = shell.coatcheck("status", "--home", home)
    assert done.returncode == 1
    assert b"coatcheck serve" in done.stderr


def test_the_test_has_its_network(world: World) -> None:
    """What "nobody listens" above is worth: a listener would be seen."""
    listener = world.listen("127.0.0.1", 7000)
    with listener, world.connect("127.0.0.1", 7000) as sock:
        assert isinstance(sock, socket.socket)
