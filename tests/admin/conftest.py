"""A stage for each test. A home takes 0.2 s to make, so one is made and then copied."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from coatcheck.store.home import Home, create_home
from tests.admin.stage import Stage, staged
from tests.store.stores import NOW


@pytest.fixture(scope="session")
def model_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return create_home(tmp_path_factory.mktemp("model") / "home", now=NOW).home


@pytest.fixture
def home(model_home: Home, tmp_path: Path) -> Home:
    shutil.copytree(model_home.root, tmp_path / "home")
    return Home(tmp_path / "home")


@pytest.fixture
def stage(home: Home) -> Iterator[Stage]:
    with staged(home) as made:
        yield made
