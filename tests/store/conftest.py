"""Homes and stores. A home takes 0.2 s to make, so one is made and then copied."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from coatcheck.store.home import Home, create_home
from coatcheck.store.sql import SqlStore
from tests.store.server import Server
from tests.store.stores import NOW, Clock, open_store


@pytest.fixture(scope="session")
def model_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return create_home(tmp_path_factory.mktemp("model") / "home", now=NOW).home


@pytest.fixture
def home(model_home: Home, tmp_path: Path) -> Home:
    shutil.copytree(model_home.root, tmp_path / "home")
    return Home(tmp_path / "home")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(home: Home, clock: Clock) -> Iterator[SqlStore]:
    """A worker's store: with both keys."""
    opened = open_store(home, clock)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def model_database(postgres: Server, model_home: Home) -> str:
    """An empty store for the keys of every `home` here, to be copied."""
    name = postgres.database()
    url = postgres.url(name)
    SqlStore.create_tables(url, public=model_home.read_public_key(), now=NOW)
    return name


@pytest.fixture
def database(postgres: Server, model_database: str) -> str:
    """The name of a database that holds an empty store for the keys of `home`."""
    return postgres.database(model_database)


@pytest.fixture
def url(postgres: Server, database: str) -> str:
    return postgres.url(database)
