"""What the commands say of secrets whose values come from sources."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from coatcheck.cli import doctor_sources
from coatcheck.cli.findings import Status
from coatcheck.core.destination import parse_domain_pattern
from coatcheck.core.secret import Secret
from coatcheck.settings import load
from tests.cli.homes import Commands

SOURCES = """\
version: 1
secrets:
  ci.token:
    domains: [ci.example.com]
    description: of the CI
    source: env
    variable: CI_TOKEN
"""
VALUE = b"sk-live-SENTINEL-0123456789"


@pytest.fixture
def with_sources(coatcheck: Commands) -> Commands:
    (coatcheck.root / "sources.yaml").write_text(SOURCES)
    return coatcheck


def test_a_list_has_both_and_says_where_values_come_from(with_sources: Commands) -> None:
    with_sources("secret", "set", "stored", "--domain", "a.example", stdin=VALUE)
    rows = json.loads(with_sources("secret", "list", "--format", "json").out)

    assert [(row["name"], row["source"]) for row in rows] == [
        ("ci.token", "env (env)"),
        ("stored", "store"),
    ]
    assert rows[0]["domains"] == ["ci.example.com"]
    assert "env (env)" in with_sources("secret", "list").out


def test_show_says_where_the_value_comes_from(with_sources: Commands) -> None:
    shown = json.loads(with_sources("secret", "show", "ci.token", "--format", "json").out)

    assert (shown["source"], shown["description"]) == ("env (env)", "of the CI")
    assert shown["placeholder"] == "{{secrets.ci.token}}"


@pytest.mark.parametrize("name", ["ci.token", "CI.Token"])
def test_a_stored_secret_cannot_take_the_name(with_sources: Commands, name: str) -> None:
    done = with_sources("secret", "set", name, "--domain", "a.example", stdin=VALUE)

    assert done.code == 1
    assert "declares 'ci.token': its value comes from the source 'env'" in done.err
    assert with_sources("secret", "set", "other", "--domain", "a.example", stdin=VALUE).code == 0
    assert with_sources("secret", "edit", "other", "--name", name).code == 1


def test_one_that_was_there_before_can_still_be_set(coatcheck: Commands) -> None:
    coatcheck("secret", "set", "ci.token", "--domain", "a.example", stdin=VALUE)
    (coatcheck.root / "sources.yaml").write_text(SOURCES)

    assert coatcheck("secret", "set", "ci.token", stdin=VALUE + b"2").code == 0
    assert json.loads(coatcheck("secret", "show", "ci.token", "--format", "json").out)[
        "source"
    ] == ("store")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        pytest.param("https://ci.example.com/", 0, id="its own domain"),
        pytest.param("https://other.example.com/", 2, id="another"),
    ],
)
def test_explain_knows_it(with_sources: Commands, url: str, code: int) -> None:
    arguments = ("policy", "explain", "GET", url, "-H", "X-Key: {{secrets.ci.token}}")

    assert with_sources(*arguments).code == code


def test_a_broken_sources_file_is_told(with_sources: Commands) -> None:
    (with_sources.root / "sources.yaml").write_text("version: 1\nsecret: {}\n")
    done = with_sources("secret", "list")

    assert done.code == 1
    assert "did you mean 'secrets'" in done.err


def findings(
    root: Path, change: Callable[[str], str] = str, *stored: str
) -> tuple[list[tuple[Status, str]], list[str]]:
    (root / "sources.yaml").write_text(change(SOURCES))
    secrets = [Secret("id", name, 1, (parse_domain_pattern("a.example"),)) for name in stored]
    found, declared = doctor_sources.check(load(home=root, environ={}), secrets)
    return [(one.status, one.found) for one in found], [one.name for one in declared]


def test_doctor_finds_nothing_wrong_where_nothing_is(tmp_path: Path) -> None:
    found, declared = findings(tmp_path)

    assert [status for status, _ in found] == [Status.OK]
    assert declared == ["ci.token"]
    (tmp_path / "sources.yaml").unlink()
    assert doctor_sources.check(load(home=tmp_path, environ={}), []) == ([], [])


VAULT = """\
version: 1
sources:
  v: {kind: vault, url: https://v.example, token_file: nowhere/token}
secrets:
  ci.token: {domains: [ci.example.com], source: v, path: a, field: b}
"""


@pytest.mark.parametrize(
    ("change", "stored", "said"),
    [
        pytest.param(lambda text: text + "x: 1\n", (), "is not known here", id="a mistake"),
        pytest.param(str, ("CI.token",), "stored secrets have the names of ci.token", id="a name"),
        pytest.param(lambda _: VAULT, (), "cannot read its credential in", id="a credential"),
    ],
)
def test_doctor_finds_what_is_wrong(
    tmp_path: Path, change: Callable[[str], str], stored: tuple[str, ...], said: str
) -> None:
    found, _ = findings(tmp_path, change, *stored)

    assert [status for status, words in found if said in words] == [Status.FAIL]


def test_doctor_misses_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor_sources.LIBRARIES, "vault", "no_such_library")
    found, _ = findings(tmp_path, lambda _: VAULT)

    assert any("needs no_such_library" in words for _, words in found)


AZURE = """\
version: 1
sources:
  v: {kind: azure, url: https://v.vault.azure.net}
secrets:
  ci.token: {domains: [ci.example.com], source: v, id: a}
"""


@pytest.mark.parametrize("module", ["azure.no_such_part", "no_such_package.part"])
def test_doctor_misses_a_part_of_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    assert findings(tmp_path, lambda _: AZURE)[0][0][0] is Status.OK
    monkeypatch.setitem(doctor_sources.LIBRARIES, "azure", module)
    found, _ = findings(tmp_path, lambda _: AZURE)

    assert any(f"needs {module}" in words for _, words in found)
