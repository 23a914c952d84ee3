"""deploy/compose.yaml: no mistake for Compose, and the runner has no way out but coatcheck.

Compose reads and merges a file without an engine. What it made of it is looked at, not the file.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

FILE = Path(__file__).resolve().parents[2] / "deploy" / "compose.yaml"
NEWER = r"(?m)^name: .*\n"  # than Compose 1.29, which Debian 12 has


def composed(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What Compose makes of *text*."""
    commands = (["docker", "compose"], ["docker-compose"])
    command = next((words for words in commands if _runs(words)), None)
    if command is None:
        pytest.skip("neither docker compose nor docker-compose is installed")
    file = folder / FILE.name
    file.write_text(text if command[0] == "docker" else re.sub(NEWER, "", text))
    return subprocess.run(
        [*command, "-f", str(file), "config"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def _runs(command: list[str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    asked = [*command, "version"]
    return subprocess.run(asked, capture_output=True, check=False, timeout=60).returncode == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = composed(FILE.read_text(), tmp_path_factory.mktemp("compose"))
    assert done.returncode == 0, done.stderr
    whole: dict[str, Any] = yaml.safe_load(done.stdout)
    return whole


def test_compose_finds_no_mistake(made: dict[str, Any]) -> None:
    assert set(made["services"]) == {"coatcheck", "trust", "runner"}


def test_compose_would_find_one(tmp_path: Path) -> None:
    done = composed(FILE.read_text().replace("read_only: true", "read_olny: true", 1), tmp_path)
    assert done.returncode != 0
    assert "read_olny" in done.stderr


def test_the_runner_is_on_a_network_that_leads_nowhere(made: dict[str, Any]) -> None:
    assert set(made["services"]["runner"]["networks"]) == {"inside"}
    assert made["networks"]["inside"]["internal"] is True
    assert "network_mode" not in made["services"]["runner"]


def test_the_runner_sees_nothing_of_coatcheck_but_what_it_is_to_trust(made: dict[str, Any]) -> None:
    runner, coatcheck = made["services"]["runner"], made["services"]["coatcheck"]
    assert [_source(volume) for volume in runner["volumes"]] == ["trust"]
    assert "home" in [_source(volume) for volume in coatcheck["volumes"]]


@pytest.mark.parametrize("service", ["coatcheck", "trust", "runner"])
def test_none_has_more_rights_than_it_needs(made: dict[str, Any], service: str) -> None:
    settings = made["services"][service]
    assert settings["cap_drop"] == ["ALL"]
    assert settings["security_opt"] == ["no-new-privileges:true"]
    assert not settings.get("privileged")
    assert not settings.get("ports")  # nothing of it can be reached from outside


def _source(volume: str | dict[str, str]) -> str:
    """Compose 1 writes ``source:target:mode``, Compose 2 its parts."""
    return volume.partition(":")[0] if isinstance(volume, str) else volume["source"]
