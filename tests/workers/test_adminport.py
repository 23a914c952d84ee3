"""The admin port: an error where somebody asked for it, a line in the log where nobody did."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coatcheck.listening import ListenError
from coatcheck.settings import Settings, load
from coatcheck.workers import adminport


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(adminport.logs, "event", lambda name, /, **more: found.append((name, more)))
    return found


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def settings(tmp_path: Path, server: socket.socket, **more: Any) -> Settings:
    made = load(home=tmp_path, environ={})
    return dataclasses.replace(made, admin=server.getsockname(), **more)


async def test_a_default_port_that_is_taken_is_told_and_tried_again(
    tmp_path: Path, taken: socket.socket, events: list[tuple[str, dict[str, Any]]]
) -> None:
    wanted = settings(tmp_path, taken)
    assert await adminport.bind(wanted) == []
    assert [name for name, _ in events] == ["admin.unavailable"]
    assert await adminport.bind_later(wanted) == []
    taken.close()

    (listener,) = await adminport.bind_later(wanted)
    with listener:
        assert listener.getsockname() == wanted.admin
        socket.create_connection(wanted.admin).close()
    assert len(events) == 1


@pytest.mark.parametrize(
    "more", [{"admin_given": True}, {"role": "admin"}], ids=["asked for", "nothing else to do"]
)
async def test_a_port_that_is_needed_and_taken_is_an_error(
    tmp_path: Path,
    taken: socket.socket,
    events: list[tuple[str, dict[str, Any]]],
    more: dict[str, Any],
) -> None:
    with pytest.raises(ListenError, match="--admin HOST:PORT"):
        await adminport.bind(settings(tmp_path, taken, **more))
    assert events == []
