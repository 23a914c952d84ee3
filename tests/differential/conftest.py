"""The readers, each started once; a program that is not installed is a test that is skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import pytest

from tests.differential.clients import CLIENTS, ReadingClient
from tests.differential.readers import READERS, Missing, Reader


class Closes(Protocol):
    def close(self) -> None: ...


@pytest.fixture(scope="session")
def every_reader() -> Iterator[dict[str, Reader | str]]:
    """By name: a reader, or why there is none."""
    yield from started(READERS)


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest, every_reader: dict[str, Reader | str]) -> Reader:
    found = every_reader[request.param]
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture
def readers(every_reader: dict[str, Reader | str]) -> list[Reader]:
    """All that are installed; who is missing shows where `reader` is asked for."""
    return [reader for reader in every_reader.values() if not isinstance(reader, str)]


@pytest.fixture(scope="session")
def every_client() -> Iterator[dict[str, ReadingClient | str]]:
    """By name: a client, or why there is none."""
    yield from started(CLIENTS)


@pytest.fixture(params=CLIENTS)
def client(
    request: pytest.FixtureRequest, every_client: dict[str, ReadingClient | str]
) -> ReadingClient:
    found = every_client[request.param]
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture
def clients(every_client: dict[str, ReadingClient | str]) -> list[ReadingClient]:
    """As `readers`."""
    return [client for client in every_client.values() if not isinstance(client, str)]


def started[T: Closes](makers: Mapping[str, Callable[[], T]]) -> Iterator[dict[str, T | str]]:
    made: dict[str, T | str] = {}
    for name, make in makers.items():
        try:
            made[name] = make()
        except Missing as error:
            made[name] = str(error)
    yield made
    for one in made.values():
        if not isinstance(one, str):
            one.close()
