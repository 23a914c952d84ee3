"""Networks for the tests of deploy/: two worlds with a cable between them, and a proxy in one.

A `World` is a network of its own (tests/e2e/world.py). Cables, routes and packet filters are
root's; where they cannot be had, the tests that need them say so and are skipped.
"""

from __future__ import annotations

import os
import shlex
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from tests.docs.session import VALUE, Api
from tests.e2e import harness
from tests.e2e.world import Unavailable, World

HOST = "api.example.com"
ADDRESS = "20.20.20.20"
NETWORK = "20.20.20.0/24"
KEY = "crm.apiKey"
PLACEHOLDER = "Authorization: Bearer {{secrets.crm.apiKey}}"
INJECTED = b'{"user": "ada", "key": "********"}\n'  # the API knew the key, and got it scrubbed
ANONYMOUS = b'{"user": null}\n'  # it answers, and knows nobody


def need(*programs: str, root: bool = True) -> None:
    """Skip the test where one of *programs*, or root, is missing."""
    if root and os.geteuid():
        pytest.skip("needs root: cables and packet filters in network namespaces")
    if missing := [name for name in programs if shutil.which(name, path=search_path()) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")


def search_path() -> str:
    return os.environ["PATH"] + ":/usr/sbin:/sbin"


@contextmanager
def world(folder: Path, *networks: str) -> Iterator[World]:
    """One where the API's name is known. Skips the test where there can be none."""
    folder.mkdir()
    try:
        made = World.open(folder, {HOST: ADDRESS}, networks)
    except Unavailable as error:
        pytest.skip(f"no network of its own for the tests: {error}")
    try:
        yield made
    finally:
        made.close()


@contextmanager
def api(place: World, authority: trustme.CA) -> Iterator[None]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(HOST).configure_cert(context)
    server = Api(place.listen(ADDRESS, 443), context)
    try:
        yield
    finally:
        server.close()


def run(
    place: World, command: Sequence[str | Path], folder: Path, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """A command in there."""
    return subprocess.run(
        place.enter(command, folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
        env=harness.environ(HOME=str(folder), **variables) | {"PATH": search_path()},
    )


def do(place: World, text: str, folder: Path) -> None:
    """A command that has to go well, written as in a shell."""
    done = run(place, shlex.split(text), folder)
    assert done.returncode == 0, f"{text}: {done.stderr.decode()}"


def cable(inside: World, outside: World, folder: Path) -> None:
    """10.99.0.2 (``uplink``) in *inside* to 10.99.0.1 (``runners``) in *outside*, and no more."""
    pid = inside.enter([], folder)[2]
    do(outside, f"ip link add runners type veth peer name uplink netns {pid}", folder)
    do(outside, "ip address add 10.99.0.1/30 dev runners", folder)
    do(outside, "ip link set runners up", folder)
    do(inside, "ip address add 10.99.0.2/30 dev uplink", folder)
    do(inside, "ip link set uplink up", folder)


@contextmanager
def rules(place: World, file: Path, folder: Path) -> Iterator[None]:
    """With the packet filter of *file* in force, which is checked first (``nft -c``)."""
    do(place, f"nft -c -f {shlex.quote(str(file))}", folder)
    do(place, f"nft -f {shlex.quote(str(file))}", folder)
    try:
        yield
    finally:
        do(place, "nft flush ruleset", folder)


def home(root: Path, policy: str) -> Path:
    """A home with the API's key."""
    return harness.make_home(root, {KEY: (VALUE.encode(), (HOST,))}, policy)


@contextmanager
def serving(
    place: World, root: Path, listen: str, upstream_ca: Path, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """`coatcheck serve` in there, ready."""
    log = root.parent / f"{root.name}.log"
    command = harness.program("serve", "--home", root, "--listen", listen)
    with log.open("wb") as out:
        process = subprocess.Popen(
            place.enter([*command, "--upstream-ca", upstream_ca], root.parent),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=harness.environ(HOME=str(root.parent), **variables),
        )
    try:
        until = time.monotonic() + 60
        while b"serve.ready" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
