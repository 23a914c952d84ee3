"""A home for each test, copied from one that was made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.homes import Commands


@pytest.fixture(scope="session")
def model_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model") / "home"
    assert Commands(root)("init").code == 0
    return root


@pytest.fixture
def coatcheck(model_home: Path, tmp_path: Path) -> Commands:
    shutil.copytree(model_home, tmp_path / "home")
    return Commands(tmp_path / "home")
