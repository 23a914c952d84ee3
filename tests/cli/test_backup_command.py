"""`coatcheck backup` and `restore`, as docs/operations.md has them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.cli.homes import Commands


def put(coatcheck: Commands, name: str, value: bytes = b"v" * 20) -> None:
    done = coatcheck("secret", "set", name, "--domain", "api.example.com", stdin=value)
    assert done.code == 0, done.all


def names(coatcheck: Commands) -> list[str]:
    return [row["name"] for row in json.loads(coatcheck("secret", "list", "--format", "json").out)]


def test_a_lost_store_comes_back(coatcheck: Commands, tmp_path: Path) -> None:
    put(coatcheck, "crm.apiKey")
    taken = coatcheck("backup", str(tmp_path / "store.backup"))
    for path in coatcheck.root.glob("store.db*"):
        path.unlink()
    lost = coatcheck("secret", "list")
    restored = coatcheck("restore", str(tmp_path / "store.backup"))
    doctor = coatcheck("doctor")

    assert (taken.code, "1 secrets, revision 2, sealed for key" in taken.out) == (0, True)
    assert (lost.code, "there is no store" in lost.err) == (1, True)
    assert (restored.code, restored.err) == (0, "")
    assert "restored 1 secrets of " in restored.out
    assert names(coatcheck) == ["crm.apiKey"]
    assert "1 secret; every value opens" in doctor.out
    assert "is older" not in doctor.all


def test_changes_after_the_backup_are_lost_by_force_alone_and_told(
    coatcheck: Commands, tmp_path: Path
) -> None:
    put(coatcheck, "crm.apiKey")
    coatcheck("backup", str(tmp_path / "store.backup"))
    put(coatcheck, "later")
    put(coatcheck, "later", b"another-value-of-it")
    refused = coatcheck("restore", str(tmp_path / "store.backup"))
    kept = names(coatcheck)
    forced = coatcheck("restore", str(tmp_path / "store.backup"), "--force")

    assert (refused.code, "--force" in refused.err) == (1, True)
    assert kept == ["crm.apiKey", "later"]
    assert (forced.code, "2 changes after it are gone" in forced.err) == (0, True)
    assert names(coatcheck) == ["crm.apiKey"]
    assert "is older" not in coatcheck("secret", "list").err


def test_a_store_that_was_put_back_by_hand_is_told(coatcheck: Commands, tmp_path: Path) -> None:
    put(coatcheck, "crm.apiKey")
    shutil.copyfile(coatcheck.root / "store.db", tmp_path / "old.db")
    put(coatcheck, "crm.apiKey", b"the-value-that-replaced-it")
    quiet = coatcheck("secret", "list")
    (coatcheck.root / "store.db").unlink()
    shutil.copyfile(tmp_path / "old.db", coatcheck.root / "store.db")
    (coatcheck.root / "store.db").chmod(0o600)
    told = coatcheck("secret", "list")
    doctor = coatcheck("doctor")
    accepted = coatcheck("store", "accept")
    after = coatcheck("secret", "list")

    assert "is older" not in quiet.err
    assert "warning: the store is older than it was: revision 2 came after 3" in told.err
    assert "coatcheck store accept" in told.err
    assert "the store is older than it was" in doctor.out
    assert accepted.code == 0
    assert (after.code, after.err) == (0, "")
