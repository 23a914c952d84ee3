"""The home folder: closed to others from the first byte, made once, never repaired in silence."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coatcheck import policyfile
from coatcheck.core.ports import CoatcheckError, StoreError
from coatcheck.store import files
from coatcheck.store import home as home_module
from coatcheck.store.home import Home, HomeError, create_home, token_hash
from coatcheck.store.sql import SqlStore
from tests.store.stores import NOW, open_store


@pytest.fixture
def umask() -> Iterator[Callable[[int], None]]:
    before = os.umask(0o022)
    yield os.umask  # type: ignore[misc]
    os.umask(before)


def modes(root: Path) -> dict[str, int]:
    return {
        str(path.relative_to(root)): stat.S_IMODE(path.lstat().st_mode)
        for path in [root, *root.rglob("*")]
    }


def snapshot(root: Path) -> dict[str, tuple[int, float, bytes]]:
    return {
        str(path): (
            path.lstat().st_mode,
            path.lstat().st_mtime,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted([root, *root.rglob("*")])
    }


# --- making ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777], ids=oct)
def test_whatever_the_umask_all_is_closed_to_others(
    umask: Callable[[int], None], tmp_path: Path, mask: int
) -> None:
    """STORE-08, with the files that SQLite makes beside its own."""
    umask(mask)
    made = create_home(tmp_path / "home", now=NOW).home
    store = open_store(made)
    store.put("a", b"12345678", domains=None, description=None, now=NOW)
    found = modes(made.root)
    store.close()

    folders = {".", "ca", "audit", "audit.heads", "run"}
    beside = {"store.db-wal", "store.db-shm"}
    kept = {"policy.yaml", "sealing.key", "sealing.pub", "store.db", "audit.key", "audit.pub"}
    authority = {"ca/mitmproxy-ca.pem", "ca/mitmproxy-ca-cert.pem"}
    assert {name for name, mode in found.items() if mode == 0o700} == folders
    assert {name for name, mode in found.items() if mode == 0o600} == kept | beside | authority
    assert len(found) == len(folders | beside | kept | authority)


def test_a_new_home_passes_its_own_check(home: Home) -> None:
    home.check()

    assert home.read_public_key().id == home.read_private_key().id
    with closing(open_store(home)) as store:
        assert store.secrets() == []


def test_two_homes_share_nothing(tmp_path: Path) -> None:
    one, two = (create_home(tmp_path / name, now=NOW) for name in "ab")

    assert one.owner_token != two.owner_token
    for file in (
        *("sealing.key", "sealing.pub", "audit.key", "audit.pub"),
        *("ca/mitmproxy-ca.pem", "store.db"),
    ):
        assert (one.home.root / file).read_bytes() != (two.home.root / file).read_bytes()


def test_of_the_owner_token_only_the_hash_is_kept(tmp_path: Path) -> None:
    made = create_home(tmp_path / "home", now=NOW)

    assert re.fullmatch(r"ct_[A-Za-z0-9_-]{43}", made.owner_token)
    assert made.owner_token not in repr(made)
    everything = b"".join(path.read_bytes() for path in made.home.root.rglob("*") if path.is_file())
    assert made.owner_token.encode() not in everything
    assert token_hash(made.owner_token).encode() in everything


def test_the_sample_policy_lets_this_machine_use_every_secret(home: Home) -> None:
    policy = policyfile.read(home.policy)

    (client,) = policy.clients
    (grant,) = policy.grants
    assert (client.name, client.token) == ("local", None)
    assert [str(network) for network in client.networks] == ["127.0.0.1/32", "::1/128"]
    assert (grant.secrets, grant.clients, grant.hosts) == (("*",), ("local",), None)
    assert not grant.plaintext


def test_an_empty_folder_is_taken_and_closed(tmp_path: Path) -> None:
    """A mounted volume is there before us."""
    (tmp_path / "lost+found").mkdir()
    tmp_path.chmod(0o755)

    create_home(tmp_path, now=NOW).home.check()


def test_a_policy_that_lies_there_already_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("version: 1\n")

    assert not create_home(tmp_path, now=NOW).policy_written
    assert (tmp_path / "policy.yaml").read_text() == "version: 1\n"


def test_a_home_is_never_made_twice(home: Home) -> None:
    before = snapshot(home.root)

    with pytest.raises(HomeError, match="is a coatcheck home already") as error:
        create_home(home.root, now=NOW)

    assert snapshot(home.root) == before
    assert "--home" in error.value.hint


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        pytest.param(lambda root: (root / "mine.txt").touch(), "not empty", id="files of others"),
        pytest.param(lambda root: (root / "sealing.key").touch(), "no store.db", id="a lost store"),
        pytest.param(
            lambda root: (root / "store.db").symlink_to("/dev/null"), "already", id="a link"
        ),
        pytest.param(lambda root: (root.rmdir(), root.touch()), "no folder", id="a file"),
        pytest.param(
            lambda root: (root.rmdir(), root.symlink_to("/nowhere")), "link", id="a dangling link"
        ),
    ],
)
def test_a_folder_is_refused_that_holds(
    tmp_path: Path, prepare: Callable[[Path], object], said: str
) -> None:
    root = tmp_path / "home"
    root.mkdir()
    prepare(root)
    before = snapshot(tmp_path)

    with pytest.raises(HomeError, match=said) as error:
        create_home(root, now=NOW)

    assert error.value.hint
    assert snapshot(tmp_path) == before


def test_a_link_to_a_folder_is_refused_as_home(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "real")

    with pytest.raises(HomeError, match="symbolic link"):
        create_home(tmp_path / "home", now=NOW)
    assert list((tmp_path / "real").iterdir()) == []


@pytest.mark.parametrize("existed", [False, True], ids=["new folder", "given folder"])
def test_when_making_fails_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existed: bool
) -> None:
    root = tmp_path / "home"
    if existed:
        root.mkdir()
        (root / "policy.yaml").write_text("version: 1\n")

    def fail(*_: object, **__: object) -> None:
        raise StoreError("the disk is full", hint="make room")

    monkeypatch.setattr(SqlStore, "create_tables", fail)
    with pytest.raises(StoreError):
        create_home(root, now=NOW)

    assert [path.name for path in tmp_path.rglob("*")] == (
        ["home", "policy.yaml"] if existed else []
    )


@pytest.mark.parametrize("turn", range(5))
@pytest.mark.parametrize("existed", [False, True], ids=["new folder", "given folder"])
def test_of_several_inits_at_once_one_wins_and_its_home_is_whole(
    tmp_path: Path, existed: bool, turn: int
) -> None:
    """The losers clean up after themselves, and after nobody else."""
    errors: list[CoatcheckError] = []
    made: list[home_module.Created] = []
    barrier = threading.Barrier(6)
    if existed:
        (tmp_path / "home").mkdir()

    def init() -> None:
        barrier.wait()
        try:
            made.append(create_home(tmp_path / "home", now=NOW))
        except CoatcheckError as error:
            errors.append(error)

    threads = [threading.Thread(target=init) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(made), len(errors)) == (1, 5), errors
    made[0].home.check()
    assert {path.name for path in made[0].home.root.iterdir()} == {
        *("audit", "audit.heads", "audit.key", "audit.pub"),
        *("ca", "policy.yaml", "run", "sealing.key", "sealing.pub", "store.db"),
    }
    with closing(open_store(made[0].home)) as store:
        assert store.secrets() == []


def test_a_place_that_cannot_be_written_is_an_error_with_a_next_step(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(HomeError, match="cannot create folder") as error:
        create_home(tmp_path / "file" / "home", now=NOW)

    assert "--home" in error.value.hint


# --- checking --------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["", "ca", "audit", "run"])
@pytest.mark.parametrize("mode", [0o750, 0o705, 0o770, 0o777], ids=oct)
def test_a_folder_that_is_open_to_others_is_refused(home: Home, place: str, mode: int) -> None:
    path = home.root / place
    path.chmod(mode)

    with pytest.raises(HomeError, match=rf"mode {mode:04o}") as error:
        home.check()

    assert error.value.hint == f"chmod 700 {path}"
    subprocess.run(error.value.hint, shell=True, check=True)
    home.check()


@pytest.mark.parametrize("place", ["sealing.key", "ca/mitmproxy-ca.pem"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666], ids=oct)
def test_a_key_that_is_open_to_others_is_refused(home: Home, place: str, mode: int) -> None:
    path = home.root / place
    path.chmod(mode)

    with pytest.raises(HomeError, match=rf"mode {mode:04o}") as error:
        home.check()

    assert error.value.hint == f"chmod 600 {path}"


def test_a_hint_can_be_pasted_for_a_path_with_blanks(model_home: Home, tmp_path: Path) -> None:
    root = tmp_path / "a home; with $signs"
    shutil.copytree(model_home.root, root)
    root.chmod(0o755)

    with pytest.raises(HomeError) as error:
        Home(root).check()
    subprocess.run(error.value.hint, shell=True, check=True)
    Home(root).check()


def test_the_public_key_may_be_read_but_not_written_by_others(home: Home) -> None:
    home.public_key.chmod(0o644)
    assert home.read_public_key()
    home.public_key.chmod(0o664)

    with pytest.raises(HomeError, match="its group may write"):
        home.read_public_key()


@pytest.mark.parametrize("place", ["sealing.key", "sealing.pub", "ca/mitmproxy-ca.pem", "ca", ""])
def test_a_link_in_place_of_the_real_thing_is_refused(home: Home, place: str) -> None:
    path = home.root / place if place else home.root
    moved = home.root.parent / "moved"
    path.rename(moved)
    path.symlink_to(moved)

    def use() -> None:
        home.check()
        home.read_public_key()

    with pytest.raises(HomeError, match="symbolic link"):
        use()


def test_what_belongs_to_another_user_is_refused(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.os, "geteuid", lambda: os.getuid() + 1)

    with pytest.raises(HomeError, match="belongs to") as error:
        home.check()

    assert "chown" in error.value.hint


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(lambda path: path.unlink(), "there is no file", id="missing"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), "is a folder", id="a folder"),
        pytest.param(
            lambda path: (path.unlink(), os.mkfifo(path, 0o600)), "no plain file", id="a FIFO"
        ),
        pytest.param(lambda path: path.write_bytes(b""), "is no", id="empty"),
        pytest.param(lambda path: path.write_bytes(b"k" * (2 << 20)), "larger", id="2 MiB"),
        pytest.param(lambda path: os.truncate(path, 200), "is no", id="cut off"),
    ],
)
@pytest.mark.parametrize("which", ["private", "public"])
def test_a_key_file_is_refused_that_is(
    home: Home, which: str, spoil: Callable[[Path], object], said: str
) -> None:
    path: Path = getattr(home, f"{which}_key")
    read = getattr(home, f"read_{which}_key")
    assert read()
    spoil(path)

    with pytest.raises(CoatcheckError, match=said) as error:
        read()

    assert str(path) in str(error.value)
    assert error.value.hint


def test_without_a_home_the_next_step_is_init(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="there is no folder") as error:
        Home(tmp_path / "none").read_public_key()

    assert error.value.hint == f"run: coatcheck init --home {tmp_path / 'none'}"


def test_a_missing_private_key_is_fine_for_who_does_not_open_values(home: Home) -> None:
    home.private_key.unlink()
    home.check()
    store = open_store(home, private=False)

    store.put("a", b"12345678", domains=None, description=None, now=NOW)
    with pytest.raises(StoreError, match="no private sealing key"):
        store.view()
    store.close()


# --- files -----------------------------------------------------------------------------------


def test_a_file_is_closed_from_its_first_byte(
    tmp_path: Path, umask: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    umask(0)
    seen: list[int] = []
    really = os.fchmod

    def look(descriptor: int, mode: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        really(descriptor, mode)

    monkeypatch.setattr(files.os, "fchmod", look)
    files.create_file(tmp_path / "file", b"x")

    assert seen == [0o600]


def test_a_folder_is_closed(tmp_path: Path, umask: Callable[[int], None]) -> None:
    umask(0)
    files.create_folder(tmp_path / "folder")

    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700


@pytest.mark.parametrize("link", [False, True])
def test_an_existing_file_is_never_written_over(tmp_path: Path, link: bool) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    path = target
    if link:
        path = tmp_path / "link"
        path.symlink_to(target)

    with pytest.raises(HomeError, match="cannot create"):
        files.create_file(path, b"yours")
    assert target.read_text() == "mine"


def test_what_could_not_be_written_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """STORE-11: a disk that is full at fsync."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(HomeError, match="No space left") as error:
        files.create_file(tmp_path / "file", b"x")

    assert "make room" in error.value.hint
    assert list(tmp_path.iterdir()) == []
