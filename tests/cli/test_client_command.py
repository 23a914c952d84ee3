"""`coatcheck client token`: printed once, kept nowhere."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from coatcheck import policyfile
from tests.cli.homes import Commands


def test_it_prints_the_token_and_the_line_for_the_policy(tmp_path: Path) -> None:
    done = Commands(tmp_path / "none")("client", "token", "runner-a")
    token, line = done.out.splitlines()

    assert done.code == 0
    assert re.fullmatch(r"ctk_[A-Za-z0-9_-]{43}", token)
    assert line == f'token: "sha256:{hashlib.sha256(token.encode()).hexdigest()}"'
    assert token not in done.err
    assert not (tmp_path / "none").exists()


def test_the_line_is_one_that_a_policy_takes(tmp_path: Path) -> None:
    token, line = Commands(tmp_path)("client", "token", "runner-a").out.splitlines()
    policy = policyfile.parse(f"version: 1\nclients:\n  runner-a:\n    {line}\n", "policy.yaml")

    assert policy.clients[0].token == hashlib.sha256(token.encode()).hexdigest()


def test_json_has_the_same(tmp_path: Path) -> None:
    made = json.loads(Commands(tmp_path)("client", "token", "a", "--format", "json").out)

    assert made["client"] == "a"
    assert hashlib.sha256(made["token"].encode()).hexdigest() in made["policy_line"]


def test_no_two_tokens_are_alike(tmp_path: Path) -> None:
    coatcheck = Commands(tmp_path)

    assert len({coatcheck("client", "token", "a").out for _ in range(20)}) == 20


def test_a_name_cannot_move_the_cursor(tmp_path: Path) -> None:
    done = Commands(tmp_path)("client", "token", "a\x1b[2J")

    assert "\x1b" not in done.all
