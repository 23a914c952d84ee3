"""The sources file: what it may hold, and what is said where it holds something else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from coatcheck import sourcefile
from coatcheck.sourcefile import SourcesError, parse_text
from coatcheck.sourcetable import COMMON, KINDS, TIMES

CONFIG = Path(__file__).parents[1] / "config"
REFERENCE = (CONFIG / "sources.yaml").read_text()
SECRET = "domains: [api.example.com], source: env, variable: A"


def of(secret: str = SECRET, sources: str = "") -> str:
    above = f"sources:\n  {sources}\n" if sources else ""
    return f"version: 1\n{above}secrets:\n  key: {{{secret}}}\n"


def told(text: str) -> str:
    with pytest.raises(SourcesError) as caught:
        parse_text(text, "s.yaml", Path("/folder"))
    return str(caught.value)


def test_the_reference_loads() -> None:
    found = parse_text(REFERENCE, "sources.yaml", CONFIG)

    assert {one.source.kind for one in found.secrets} == set(KINDS)
    crm = found.find("crm.apiKey")
    assert crm is not None
    assert [str(domain) for domain in crm.domains] == ["api.crm.example.com"]
    assert (crm.description, crm.where) == (
        "the CRM, read only",
        {"path": "apps/crm", "field": "apiKey"},
    )
    assert (crm.source.refresh_s, crm.source.timeout_s, crm.source.stale_s) == (60, 5, 900)


def test_the_reference_shows_every_key() -> None:
    keys = {*COMMON, *TIMES}
    for kind in KINDS.values():
        keys |= {*kind.source, *kind.secret}
    named = {line.strip(" #").partition(":")[0] for line in REFERENCE.splitlines()}

    # Of some the reference shows one of two forms, and names the other.
    assert {key for key in keys - named if key not in REFERENCE} == set()


def test_the_schema_is_current() -> None:
    """Regenerate it with: coatcheck policy schema --sources > config/sources.schema.json"""
    assert json.loads((CONFIG / "sources.schema.json").read_text()) == sourcefile.schema()


def test_the_schema_has_every_key_of_the_reference() -> None:
    schema = json.loads((CONFIG / "sources.schema.json").read_text())
    shown = yaml.safe_load(REFERENCE)

    for section in ("sources", "secrets"):
        known = schema["properties"][section]["additionalProperties"]["properties"]
        assert {key for one in shown[section].values() for key in one} <= set(known)


def test_relative_paths_start_at_the_file() -> None:
    text = of("domains: [a.example], source: file, file: key.txt")
    ca = of(
        "domains: [a.example], source: v, path: a, field: b",
        "v: {kind: vault, url: https://v.example, token_env: T, ca: ca.pem}",
    )

    assert parse_text(text, "s", Path("/folder")).secrets[0].where["file"] == "/folder/key.txt"
    assert parse_text(ca, "s", Path("/folder")).secrets[0].source.options["ca"] == "/folder/ca.pem"


VAULT = "v: {kind: vault, url: https://v.example, token_env: T}"
OF_VAULT = "domains: [a.example], source: v, path: a, field: b"
OF_CLOUD = "domains: [a.example], source: c, id: a"
AZURE = "c: {kind: azure, url: https://c.vault.azure.net, client_secret_env: C}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", "s.yaml:1:1: the file is empty", id="nothing"),
        pytest.param("secrets: {}\n", "version: is missing, or not 1", id="no version"),
        pytest.param("version: 2\n", "version: is missing, or not 1", id="another version"),
        pytest.param("version: 1\nsecret: {}\n", "did you mean 'secrets'", id="an unknown key"),
        pytest.param(of("source: env, variable: A"), "has no list of domains", id="no domains"),
        pytest.param(
            of("domains: [], source: env, variable: A"), "has no list of domains", id="nowhere"
        ),
        pytest.param(
            of("domains: ['*', a.example], source: env, variable: A"),
            "makes the other domains meaningless",
            id="anywhere and somewhere",
        ),
        pytest.param(
            of("domains: ['*.com'], source: env, variable: A"), "s.yaml:3:19", id="a public suffix"
        ),
        pytest.param(of("domains: [a.example]"), "the secret has no source", id="no source"),
        pytest.param(
            of("domains: [a.example], source: fil, file: a"), "did you mean 'file'", id="a typo"
        ),
        pytest.param(
            of("domains: [a.example], source: vault, path: a, field: b"),
            "there is no source 'vault'",
            id="a vault that nobody has described",
        ),
        pytest.param(of(SECRET + ", file: x"), "the key 'file' is not known", id="of another kind"),
        pytest.param(of("domains: [a.example], source: env"), "variable: is missing", id="a key"),
        pytest.param(
            of("domains: [a.example], source: command, command: [pass, show]"),
            "not named by its full path",
            id="a command that PATH would choose",
        ),
        pytest.param(
            of("domains: [a.example], source: command, command: pass show"),
            "this is no command",
            id="a command for a shell",
        ),
        pytest.param(
            of("domains: [a.example], source: f, file: ../x", "f: {kind: file, folder: /run}"),
            "outside of its source's folder",
            id="a file above its folder",
        ),
        pytest.param(
            of("domains: [a.example], source: f, file: /etc/x", "f: {kind: file, folder: /run}"),
            "outside of its source's folder",
            id="a file elsewhere",
        ),
        pytest.param(
            of(OF_VAULT, VAULT.replace("https", "http")),
            "tokens would go in the open",
            id="a vault over http",
        ),
        pytest.param(
            of(OF_VAULT, VAULT.replace("//v", "//u:SENTINEL@v")),
            "a URL here holds no credential",
            id="a credential in a URL",
        ),
        pytest.param(
            of(OF_VAULT, VAULT.replace(", token_env: T", "")), "needs one credential", id="none"
        ),
        pytest.param(
            of(OF_VAULT, VAULT.replace("token_env: T", "token_env: T, role_id_env: R")),
            "needs one credential",
            id="two halves",
        ),
        pytest.param(
            of(OF_VAULT, VAULT.replace("token_env: T", "role_id_env: R")),
            "needs one credential",
            id="half of one",
        ),
        pytest.param(of(OF_CLOUD, AZURE), "half of a client secret", id="a secret of nobody"),
        pytest.param(
            of(OF_CLOUD, AZURE.replace("_env: C", "_env: C, client_secret_file: c, tenant: t")),
            "half of a client secret, or two",
            id="two secrets",
        ),
        pytest.param(
            of(OF_CLOUD, "c: {kind: gcp, project: p, location: evil.example/}"),
            "this is no location",
            id="a location that is a host",
        ),
        pytest.param(
            of(OF_VAULT, VAULT.replace("token_env: T", "token: hvs.SENTINEL")),
            "did you mean 'token_env'",
            id="the token itself",
        ),
        pytest.param(
            of(OF_VAULT, VAULT.replace("token_env: T", "token_env: hvs.SENTINEL")),
            "no name of a variable",
            id="the token in the place of a variable",
        ),
        pytest.param(
            of(OF_VAULT, VAULT.replace("}", ", refresh_s: 0}")), "no such time", id="no pause"
        ),
        pytest.param(of(OF_VAULT, "v: {url: x}"), "has no known kind", id="no kind"),
        pytest.param(
            'version: 1\nsecrets:\n  "a\\tb": {source: env}\n', "no secret has this name", id="name"
        ),
    ],
)
def test_a_mistake_is_told_and_no_value_with_it(text: str, said: str) -> None:
    words = told(text)

    assert said in words
    assert words.startswith("s.yaml:")
    assert "SENTINEL" not in words


def test_all_mistakes_are_told_together() -> None:
    text = of("domains: [a.example], source: env, variabel: A")

    assert len(told(text).splitlines()) == 2  # the unknown key and the missing one


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_a_file_that_its_owner_alone_can_write_is_read(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(of())
    file.chmod(mode)

    assert len(sourcefile.read(file).secrets) == 1


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_one_that_others_can_write_is_not(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(of())
    file.chmod(mode)

    with pytest.raises(SourcesError, match="others than its owner can write it"):
        sourcefile.read(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to somebody else, as root can")
@pytest.mark.parametrize("mode", [0o640, 0o600])
def test_one_of_somebody_else_is_not(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(of())
    file.chmod(mode)
    os.chown(file, 12345, 12345)

    with pytest.raises(SourcesError, match="it belongs to somebody else"):
        sourcefile.read(file)


@pytest.mark.parametrize(
    ("mode", "good"),
    [
        pytest.param(0o755, True, id="ours alone"),
        pytest.param(0o1777, True, id="sticky, as a mounted volume is"),
        pytest.param(0o777, False, id="everybody may rename files"),
        pytest.param(0o775, False, id="the group may rename files"),
    ],
)
@pytest.mark.parametrize("by_link", [False, True])
def test_a_folder_where_others_can_put_another_file(
    tmp_path: Path, mode: int, good: bool, by_link: bool
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    file = folder / "s.yaml"
    file.write_text(of())
    folder.chmod(mode)
    read = file
    if by_link:
        read = tmp_path / "link.yaml"
        read.symlink_to(file)

    if good:
        assert len(sourcefile.read(read).secrets) == 1
    else:
        with pytest.raises(SourcesError, match="another file in its place"):
            sourcefile.read(read)


def test_a_file_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourcesError, match="there is no such file"):
        sourcefile.read(tmp_path / "s.yaml")
