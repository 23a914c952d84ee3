"""`coatcheck init` as a newcomer meets it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.cli.homes import Commands


def test_init_makes_a_home_and_says_what_comes_next(tmp_path: Path) -> None:
    coatcheck = Commands(tmp_path / "home")
    done = coatcheck.really("init")

    assert done.code == 0
    assert {path.name for path in coatcheck.root.iterdir()} == {
        "audit",
        "audit.heads",
        "audit.key",
        "audit.pub",
        "ca",
        "policy.yaml",
        "run",
        "sealing.key",
        "sealing.pub",
        "store.db",
    }
    assert len(re.findall(r"\bct_[A-Za-z0-9_-]{43}\b", done.out)) == 1
    for command in ("coatcheck secret set", "coatcheck serve", "coatcheck run"):
        assert command in done.out
    assert coatcheck("policy", "check", str(coatcheck.root / "policy.yaml")).code == 0


def test_the_commands_it_prints_name_the_home_that_was_given(tmp_path: Path) -> None:
    root = tmp_path / "a home"
    done = Commands(tmp_path / "unused")("init", "--home", str(root))

    assert done.code == 0
    assert f"coatcheck serve --home '{root}'" in done.out
    assert not (tmp_path / "unused").exists()


def test_json_has_the_same(tmp_path: Path) -> None:
    made = json.loads(Commands(tmp_path / "home")("init", "--format", "json").out)

    assert made["home"] == str(tmp_path / "home")
    assert made["owner_token"].startswith("ct_")
    assert Path(made["policy"]).is_file()
    assert Path(made["ca_certificate"]).is_file()


def test_a_home_that_exists_is_not_touched(coatcheck: Commands) -> None:
    before = {path: path.stat().st_mtime_ns for path in coatcheck.root.rglob("*")}
    done = coatcheck.really("init")

    assert done.code == 1
    assert done.out == ""
    assert "is a coatcheck home already; nothing was changed" in done.err
    assert "next:" in done.err
    assert before == {path: path.stat().st_mtime_ns for path in coatcheck.root.rglob("*")}


@pytest.mark.parametrize("given", ["COATCHECK_HOME", "XDG_DATA_HOME"])
def test_home_is_found_in_the_environment(tmp_path: Path, given: str) -> None:
    env = {"COATCHECK_HOME": "", given: str(tmp_path / "data")}
    done = Commands(tmp_path)("init", env=env)

    assert done.code == 0
    folder = "data" if given == "COATCHECK_HOME" else "data/coatcheck"
    assert (tmp_path / folder / "store.db").is_file()


def test_a_replica_is_made_of_the_keys_of_the_first_home(
    coatcheck: Commands, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    for name in ("sealing.pub", "ca/mitmproxy-ca.pem"):
        shutil.copy(coatcheck.root / name, keys)
    replica = Commands(tmp_path / "replica")

    done = replica("init", "--from", str(keys))
    again = json.loads(replica("init", "--from", str(keys), "--format", "json").out)

    assert done.code == 0
    assert "written: sealing.pub, mitmproxy-ca.pem, mitmproxy-ca-cert.pem" in done.out
    assert "sealing.key is not among them" in done.out
    assert "owner token" not in done.all
    assert again["changed"] == []
    assert again["sealing_key_in_home"] is False
    assert replica("ca", "export").out == coatcheck("ca", "export").out


def test_a_folder_without_keys_makes_no_replica(tmp_path: Path) -> None:
    done = Commands(tmp_path / "replica")("init", "--from", str(tmp_path / "nothing"))

    assert done.code == 1
    assert "there is no file" in done.err
    assert "next:" in done.err
    assert not (tmp_path / "replica").exists()
