"""The key that signs the audit log: made once, never in silence again."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from coatcheck.store import auditkey
from coatcheck.store.files import HomeError


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "audit.key", tmp_path / "audit.pub"


def test_a_home_without_a_key_gets_one_that_stays(places: tuple[Path, Path]) -> None:
    first = auditkey.signing(*places)
    again = auditkey.signing(*places)

    assert first.id == again.id == auditkey.verifying(places[1]).id
    assert [stat.S_IMODE(path.stat().st_mode) for path in places] == [0o600, 0o600]
    assert sorted(path.name for path in places[0].parent.iterdir()) == ["audit.key", "audit.pub"]


def test_what_it_signs_verifies_and_nothing_else(places: tuple[Path, Path]) -> None:
    signature = auditkey.signing(*places).sign(b"message")
    public = auditkey.verifying(places[1])

    assert public.verify(b"message", signature)
    assert not public.verify(b"massage", signature)
    assert not public.verify(b"message", signature[:-1] + bytes([signature[-1] ^ 1]))
    assert not public.verify(b"message", b"")


def test_several_processes_that_start_at_once_have_one_key(places: tuple[Path, Path]) -> None:
    barrier = threading.Barrier(6)
    ids: list[str] = []

    def start() -> None:
        barrier.wait()
        ids.append(auditkey.signing(*places).id)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(ids) == 6
    assert set(ids) == {auditkey.verifying(places[1]).id}


def test_a_public_half_that_is_missing_is_written_again(places: tuple[Path, Path]) -> None:
    made = auditkey.signing(*places)
    places[1].unlink()

    assert auditkey.signing(*places).id == made.id == auditkey.verifying(places[1]).id


def test_a_key_that_is_gone_is_not_made_anew(places: tuple[Path, Path]) -> None:
    auditkey.signing(*places)
    places[0].unlink()

    with pytest.raises(HomeError, match="says that there was one") as error:
        auditkey.signing(*places)

    assert "restore it from a backup" in error.value.hint
    assert not places[0].exists()


@pytest.mark.parametrize("text", [b"", b"rubbish", b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_damaged_key_is_told(places: tuple[Path, Path], text: bytes) -> None:
    auditkey.signing(*places)
    for path, read in ((places[0], lambda: auditkey.signing(*places)), (places[1], None)):
        path.write_bytes(text)
        with pytest.raises(HomeError, match=r"audit\.(key|pub)"):
            read() if read else auditkey.verifying(places[1])


def test_a_key_that_is_open_to_others_is_not_used(places: tuple[Path, Path]) -> None:
    auditkey.signing(*places)
    os.chmod(places[0], 0o644)  # noqa: PTH101

    with pytest.raises(HomeError, match="others may open it"):
        auditkey.signing(*places)


def test_it_shows_nothing_of_itself(places: tuple[Path, Path]) -> None:
    key = auditkey.signing(*places)

    assert repr(key) == f"<audit key {key.id}>"
