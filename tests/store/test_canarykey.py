"""The key of the canary: one for a home, however many begin at once; closed to others."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coatcheck.store import canarykey
from coatcheck.store.files import HomeError


def test_all_that_begin_at_once_have_the_same_one(tmp_path: Path) -> None:
    path = tmp_path / "run" / "canary.key"
    with ThreadPoolExecutor(8) as threads:
        keys = set(threads.map(canarykey.shared, [path] * 32))

    (key,) = keys
    assert len(key) == 32
    assert canarykey.read(path) == key
    assert [one.name for one in path.parent.iterdir()] == ["canary.key"]


def test_it_is_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "run" / "canary.key"
    canarykey.shared(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_it_stays_the_same(tmp_path: Path) -> None:
    path = tmp_path / "canary.key"

    assert canarykey.shared(path) == canarykey.shared(path)


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        pytest.param(b"k" * 32, 0o640, id="open to the group"),
        pytest.param(b"k" * 31, 0o600, id="too short"),
        pytest.param(b"", 0o600, id="empty"),
    ],
)
def test_what_is_no_key_is_not_used_and_not_made_anew(
    content: bytes, mode: int, tmp_path: Path
) -> None:
    path = tmp_path / "canary.key"
    path.write_bytes(content)
    path.chmod(mode)

    with pytest.raises(HomeError):
        canarykey.shared(path)

    assert path.read_bytes() == content


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "canary.key"
    path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(HomeError):
        canarykey.shared(path)

    assert not (tmp_path / "elsewhere").exists()


def test_where_none_can_be_made_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")

    with pytest.raises(HomeError, match=r"canary\.key"):
        canarykey.shared(tmp_path / "run" / "canary.key")
