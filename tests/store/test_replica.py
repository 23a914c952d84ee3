"""A replica's home: the keys of the first one, with the modes of a home, and nothing of its own."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from coatcheck.core.ports import CoatcheckError
from coatcheck.store import ca, keyfile
from coatcheck.store.home import Home, create_home
from coatcheck.store.replica import create_replica
from tests.store.stores import NOW

NAMES = ("sealing.key", "sealing.pub", "mitmproxy-ca.pem")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return create_home(tmp_path_factory.mktemp("first") / "home", now=NOW).home


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return create_home(tmp_path_factory.mktemp("other") / "home", now=NOW).home


@pytest.fixture
def mounted(first: Home, tmp_path: Path) -> Path:
    """As Kubernetes mounts a Secret: names that are links through a link, readable by a group."""
    folder = tmp_path / "keys"
    data = folder / "..2026_11_26"
    data.mkdir(parents=True)
    (folder / "..data").symlink_to(data.name)
    for path in (first.private_key, first.public_key, first.ca_key):
        (data / path.name).write_bytes(path.read_bytes())
        (data / path.name).chmod(0o440)
        (folder / path.name).symlink_to(f"..data/{path.name}")
    return folder


def test_it_is_a_home_like_the_first_one_without_a_store(
    first: Home, mounted: Path, tmp_path: Path
) -> None:
    made = create_replica(tmp_path / "home", mounted)

    made.home.check()
    assert made.home.read_public_key().id == first.read_public_key().id
    assert made.home.read_private_key().id == first.read_private_key().id
    assert made.home.ca_key.read_bytes() == first.ca_key.read_bytes()
    assert made.home.ca_certificate.read_bytes() == first.ca_certificate.read_bytes()
    assert made.has_private_key
    assert made.home.policy.exists()
    assert not made.home.store.exists()
    modes = {stat.S_IMODE(p.lstat().st_mode) for p in made.home.root.rglob("*") if p.is_file()}
    assert modes == {0o600}


def test_the_private_key_may_be_handed_over_instead(mounted: Path, tmp_path: Path) -> None:
    (mounted / "sealing.key").unlink()

    made = create_replica(tmp_path / "home", mounted)

    assert not made.has_private_key
    assert not made.home.private_key.exists()
    made.home.check()


def test_a_key_under_a_passphrase_is_taken_as_it_is(
    first: Home, mounted: Path, tmp_path: Path
) -> None:
    wrapped = keyfile.wrap(first.private_key.read_bytes(), b"five words of no meaning")
    (mounted / "sealing.key").unlink()
    (mounted / "sealing.key").write_bytes(wrapped)

    made = create_replica(tmp_path / "home", mounted)

    assert made.home.private_key.read_bytes() == wrapped


def test_made_again_it_changes_nothing(mounted: Path, tmp_path: Path) -> None:
    """As when a pod's init container runs once more."""
    create_replica(tmp_path / "home", mounted)
    (tmp_path / "home" / "policy.yaml").write_text("version: 1\n")

    again = create_replica(tmp_path / "home", mounted)

    assert again.changed == ()
    assert again.home.policy.read_text() == "version: 1\n"


def test_made_again_it_takes_over_new_keys(
    first: Home, other: Home, mounted: Path, tmp_path: Path
) -> None:
    create_replica(tmp_path / "home", mounted)
    data = mounted / "..data"
    for path in (other.private_key, other.public_key):
        (data / path.name).chmod(0o600)
        (data / path.name).write_bytes(path.read_bytes())

    again = create_replica(tmp_path / "home", mounted)

    assert {path.name for path in again.changed} == {"sealing.key", "sealing.pub"}
    assert again.home.read_private_key().id == other.read_private_key().id
    again.home.check()


def test_a_home_with_a_store_of_its_own_is_not_touched(
    other: Home, mounted: Path, tmp_path: Path
) -> None:
    """Its key is the only one that opens its values."""
    own = create_home(tmp_path / "home", now=NOW).home
    before = own.private_key.read_bytes()

    with pytest.raises(CoatcheckError, match="has a store of its own") as caught:
        create_replica(own.root, mounted)

    assert caught.value.hint
    assert own.private_key.read_bytes() == before


def _missing(name: str) -> Callable[[Path, Home], None]:
    return lambda folder, _: (folder / name).unlink()


def _of_other(name: str) -> Callable[[Path, Home], None]:
    def replace(folder: Path, other: Home) -> None:
        (folder / name).unlink()
        (folder / name).write_bytes((other.root / name).read_bytes())

    return replace


def _holding(name: str, content: bytes) -> Callable[[Path, Home], None]:
    def write(folder: Path, _: Home) -> None:
        (folder / name).unlink()
        (folder / name).write_bytes(content)

    return write


def _two_authorities(folder: Path, other: Home) -> None:
    key = (folder / "mitmproxy-ca.pem").read_bytes().partition(b"-----BEGIN CERTIFICATE")[0]
    _holding("mitmproxy-ca.pem", key + other.ca_certificate.read_bytes())(folder, other)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(_missing("sealing.pub"), "no file .*sealing.pub", id="no public key"),
        pytest.param(_missing("mitmproxy-ca.pem"), "no file .*ca.pem", id="no authority"),
        pytest.param(_of_other("sealing.key"), "are no pair", id="a key of another home"),
        pytest.param(_of_other("sealing.pub"), "are no pair", id="a public key of another home"),
        pytest.param(_holding("sealing.pub", b"x"), "sealing.pub", id="no key in it"),
        pytest.param(_holding("sealing.key", b"x"), "sealing.key", id="no private key in it"),
        pytest.param(_holding("sealing.pub", b"x" * (1 << 21)), "too large", id="a huge file"),
        pytest.param(_holding("mitmproxy-ca.pem", b"x"), "does not hold", id="no authority in it"),
        pytest.param(_two_authorities, "does not hold", id="the certificate of another authority"),
    ],
)
def test_what_does_not_fit_together_makes_no_home(
    spoil: Callable[[Path, Home], None],
    message: str,
    other: Home,
    mounted: Path,
    tmp_path: Path,
) -> None:
    spoil(mounted, other)

    with pytest.raises(CoatcheckError, match=message) as caught:
        create_replica(tmp_path / "home", mounted)

    assert caught.value.hint
    assert not (tmp_path / "home").exists()


def test_the_certificate_for_clients_never_holds_the_key(first: Home) -> None:
    certificate = ca.certificate_of(first.ca_key.read_bytes(), "ca")

    assert b"PRIVATE KEY" in first.ca_key.read_bytes()
    assert b"PRIVATE" not in certificate
