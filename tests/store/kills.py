"""``make kills``: a writer, a rotation and a move, killed at random moments, again and again.

    python -m tests.store.kills [--kills N] [--seed N] [--work WHAT] [--on WHERE]

Each turn forks a child that does its work and says so, line by line, on a pipe; some moment later
it gets SIGKILL, and what it left is looked at. Counted are

    lost        what the child had said was done, and is not there
    torn        a secret that does not open, or opens to what was never written
    plaintext   files, of home or of the database's server, that hold a value in the open

Exit code 1 where one of them is not 0. The server itself is never killed: it runs without fsync.
"""

from __future__ import annotations

import argparse
import base64
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import alembic.command  # noqa: F401  # here, or each child would pay for it

from coatcheck.core.ports import CoatcheckError, StoreError
from coatcheck.store import moving, rotation
from coatcheck.store.home import create_home
from coatcheck.store.sql import SqlStore
from tests.store.server import Server, Unavailable, running
from tests.store.stores import NOW, open_store, patterns

MARK = b"SENTINEL-kill-"  # every value begins with it
WORKS = ("writer", "rotation", "move")
PLACES = ("sqlite", "postgres")
TURNS = 20  # in one store; then a new one, since every change makes it larger
SECRETS = 8


@dataclass
class Tally:
    """What was counted for one kind of work on one kind of database."""

    kills: int = 0
    said: int = 0
    lost: int = 0
    torn: int = 0
    plaintext: int = 0
    whats: list[str] = field(default_factory=list)

    @property
    def faults(self) -> int:
        return self.lost + self.torn + self.plaintext


class Ground:
    """A home with its store, in a file or in a database of *server*."""

    def __init__(self, root: Path, server: Server | None) -> None:
        self.home = create_home(root, now=NOW).home
        self.server = server
        self.where = str(self.home.store)
        if server is not None:
            self.where = server.url(server.database())
            SqlStore.create_tables(self.where, public=self.home.read_public_key(), now=NOW)
        self.expected: dict[tuple[str, int], bytes] = {}
        with self.managed() as store:
            for number in range(SECRETS):
                self.put(store, f"n{number}", b"first")

    @contextmanager
    def managed(self) -> Iterator[SqlStore]:
        with closing(open_store(self.home, private=False, where=self.where)) as store:
            yield store

    def put(self, store: SqlStore, name: str, word: bytes) -> None:
        secret = put(store, name, word)
        self.expected[name, secret] = value_of(name, word)


def put(store: SqlStore, name: str, word: bytes) -> int:
    """Give *name* a value that tells what it is; the new version."""
    value = value_of(name, word)
    domains = patterns("a.example")
    return store.put(name, value, domains=domains, description=None, now=NOW).version


def value_of(name: str, word: bytes) -> bytes:
    return MARK + name.encode() + b"-" + word


# --- what the children do ---------------------------------------------------------------------


def write(ground: Ground, turn: int, say: Callable[[str], None]) -> None:
    """Values, one after the other, each in a store opened for it, as by commands."""
    for number in range(10_000):
        name, word = f"n{number % SECRETS}", f"{turn}-{number}"
        with ground.managed() as store:
            say(f"{name} {put(store, name, word.encode())} {word}")


def rotate(ground: Ground, turn: int, say: Callable[[str], None]) -> None:
    """One rotation after the other."""
    for _ in range(10_000):
        say(rotation.rotate(ground.home, ground.where).new)


def move(ground: Ground, target: str, say: Callable[[str], None]) -> None:
    moving.move(ground.where, target, public=ground.home.read_public_key())
    say("moved")


def killed(work: Callable[[Callable[[str], None]], None], after_s: float) -> tuple[list[str], bool]:
    """Run *work* in a child for so long; the lines it said, and whether it was killed in it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 1
        try:
            work(lambda line: os.write(writing, f"{line}\n".encode()) and None)
            code = 0
        except CoatcheckError as error:
            os.write(writing, f"error {error}\n".encode())
        finally:
            os._exit(code)
    os.close(writing)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        lines = pipe.read().decode().split("\n")[:-1]
    if wrong := [line for line in lines if line.startswith("error ")]:
        raise RuntimeError(wrong[0])
    return lines, os.WIFSIGNALED(status)


# --- what is looked at ------------------------------------------------------------------------


def look(ground: Ground, where: str, tally: Tally) -> dict[tuple[str, int], bytes]:
    """Every value that is there. What does not open, or was never written, is torn."""
    found: dict[tuple[str, int], bytes] = {}
    with closing(open_store(ground.home, where=where)) as store:
        view = store.view()
        for secret in (*view.secrets(), *view.former()):
            try:
                value = view.open(secret).reveal()
            except StoreError as error:
                value = str(error).encode()
            if not value.startswith(value_of(secret.name, b"")):
                tally.torn += 1
                tally.whats.append(f"{secret.name} {secret.version}: {value[:80]!r}")
            found[secret.name, secret.version] = value
        for secret in view.secrets():
            versions = [info.version for info in store.history(secret.name)]
            if versions != list(range(1, secret.version + 1)):
                tally.torn += 1
                tally.whats.append(f"{secret.name}: versions {versions[-3:]}")
    return found


def compare(ground: Ground, found: dict[tuple[str, int], bytes], tally: Tally) -> None:
    """What was said to be there is there, as it was said."""
    for key, value in ground.expected.items():
        if found.get(key) != value:
            tally.lost += 1
            tally.whats.append(f"{key}: {found.get(key)!r} for {value!r}")


def in_the_open(folder: Path) -> list[Path]:
    """Files below *folder* that hold a value, as it is, in base64 or in hex."""
    aligned = [base64.b64encode(b"\0" * n + MARK)[4:-4] for n in range(3)]
    needles = [MARK, MARK.hex().encode(), MARK.hex().upper().encode(), *aligned]
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and any(needle in path.read_bytes() for needle in needles)
    ]


# --- turns ------------------------------------------------------------------------------------


def writer_turn(ground: Ground, turn: int, chance: random.Random, tally: Tally) -> None:
    lines, was_killed = killed(lambda say: write(ground, turn, say), chance.uniform(0.005, 0.8))
    tally.kills += was_killed
    tally.said += len(lines)
    for line in lines:
        name, version, word = line.split()
        ground.expected[name, int(version)] = value_of(name, word.encode())
    compare(ground, look(ground, ground.where, tally), tally)


def rotation_turn(ground: Ground, turn: int, chance: random.Random, tally: Tally) -> None:
    """A command writes after the kill, with whatever key it finds; sometimes all is ended well."""
    lines, was_killed = killed(lambda say: rotate(ground, turn, say), chance.uniform(0.005, 1.2))
    tally.kills += was_killed
    tally.said += len(lines)
    with ground.managed() as store:
        ground.put(store, f"n{turn % SECRETS}", b"%d" % turn)
    compare(ground, look(ground, ground.where, tally), tally)
    if turn % 5 == 4:
        rotation.rotate(ground.home, ground.where)
        compare(ground, look(ground, ground.where, tally), tally)


def move_turn(ground: Ground, turn: int, chance: random.Random, tally: Tally) -> None:
    """Killed once or more; what is there is nothing, not whole, or everything."""
    if ground.server is None:
        target = str(ground.home.root / f"moved{turn}.db")
    else:
        target = ground.server.url(ground.server.database())
    for _ in range(chance.randrange(1, 4)):
        lines, was_killed = killed(
            lambda say: move(ground, target, say), chance.uniform(0.005, 0.3)
        )
        tally.kills += was_killed
        tally.said += len(lines)
        try:
            compare(ground, look(ground, target, tally), tally)
        except CoatcheckError as error:
            words = ("not whole", "no coatcheck store", "there is no store")
            if lines or not any(word in str(error) for word in words):
                tally.torn += 1
                tally.whats.append(str(error))
    move(ground, target, lambda _: None)
    compare(ground, look(ground, target, tally), tally)
    compare(ground, look(ground, ground.where, tally), tally)


_TURNS = {"writer": writer_turn, "rotation": rotation_turn, "move": move_turn}


def run(work: str, server: Server | None, kills: int, chance: random.Random, folder: Path) -> Tally:
    """So many kills of one kind of work."""
    moving.BATCH = rotation.BATCH = 2
    tally = Tally()
    ground: Ground | None = None
    turn = 0
    while tally.kills < kills and tally.faults == 0:
        if ground is None or turn % TURNS == 0:
            shutil.rmtree(folder / "home", ignore_errors=True)
            ground = Ground(folder / "home", server)
        _TURNS[work](ground, turn, chance, tally)
        turn += 1
        opened = in_the_open(folder)
        tally.plaintext += len(opened)
        tally.whats += map(str, opened)
    if server is not None:
        server.execute("CHECKPOINT")
        opened = in_the_open(server.folder)
        tally.plaintext += len(opened)
        tally.whats += map(str, opened)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=2000, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--work", choices=WORKS, action="append")
    parser.add_argument("--on", choices=PLACES, action="append")
    options = parser.parse_args()
    works, places = options.work or WORKS, options.on or PLACES
    each = -(-options.kills // (len(works) * len(places)))
    print(f"kills: seed {options.seed}, {each} of each kind")
    print(f"{'work':<10}{'on':<10}{'kills':>7}{'said':>7}{'lost':>6}{'torn':>6}{'plaintext':>11}")
    faults = 0
    with ExitStack() as stack:
        server = None
        if "postgres" in places:
            try:
                server = stack.enter_context(running())
            except Unavailable as error:
                print(f"kills: no PostgreSQL: {error}", file=sys.stderr)
                return 1
        for place in places:
            for work in works:
                with tempfile.TemporaryDirectory(prefix="coatcheck-kills-") as folder:
                    tally = run(
                        work,
                        server if place == "postgres" else None,
                        each,
                        random.Random(f"{options.seed} {work} {place}"),
                        Path(folder),
                    )
                counts = f"{tally.kills:>7}{tally.said:>7}{tally.lost:>6}{tally.torn:>6}"
                print(f"{work:<10}{place:<10}{counts}{tally.plaintext:>11}", flush=True)
                for what in tally.whats[:5]:
                    print(f"  {what}")
                faults += tally.faults
    print(f"kills: {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
