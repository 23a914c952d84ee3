"""`status`: of a proxy and its workers, for people, for programs and for health checks."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coatcheck.observe.state import StateFile, WorkerState
from tests.cli.homes import Commands

DIGEST = "0123456789abcdef" * 4


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def a_worker(number: int, *, up: bool = True, restarts: int = 0, error: str = "") -> WorkerState:
    made = WorkerState(number, ready=up, restarts=restarts, last_end="SIGKILL" if restarts else "")
    if up:
        made.pid = 4000 + number
        policy, store = {"digest": DIGEST, "error": error}, {"revision": 7, "error": ""}
        made.facts = {"policy": policy, "store": store}
    return made


def running(home: Path, port: int, *workers: WorkerState) -> None:
    """A state file as a proxy writes it; its process is this one."""
    file = StateFile(home / "run", home / "policy.yaml", 0.0)
    file.listen = [("127.0.0.1", port)]
    file.show(workers)


ONE, TWO = a_worker(1), a_worker(2)


def test_a_proxy_in_one_process_is_shown_as_a_whole(coatcheck: Commands, listener: int) -> None:
    running(coatcheck.root, listener, ONE)

    done = coatcheck("status")

    lines = dict(line.split(":", 1) for line in done.out.splitlines())
    assert done.code == 0
    assert {key: value.strip() for key, value in lines.items()}.items() >= {
        "pid": str(os.getpid()),
        "listen": f"127.0.0.1:{listener}",
        "policy digest": DIGEST,
        "policy error": "-",
        "store revision": "7",
        "store error": "-",
        "accepting": "yes",
    }.items()
    assert not any(key.startswith("worker") for key in lines)


def test_of_several_workers_each_has_a_line(coatcheck: Commands, listener: int) -> None:
    running(coatcheck.root, listener, ONE, a_worker(2, restarts=3))

    lines = coatcheck("status").out.splitlines()

    took = [line.split(":", 1)[1].strip() for line in lines if line.startswith("worker")]
    assert took == [
        "process 4001, takes connections, restarts 0, policy 0123456789ab, store revision 7",
        "process 4002, takes connections, restarts 3, the last ended by SIGKILL, "
        "policy 0123456789ab, store revision 7",
    ]


@pytest.mark.parametrize(
    ("workers", "code", "accepting"),
    [
        pytest.param([ONE], 0, True, id="one"),
        pytest.param([ONE, TWO], 0, True, id="two"),
        pytest.param([ONE, a_worker(2, up=False)], 0, True, id="one of two is down"),
        pytest.param(
            [a_worker(1, up=False), a_worker(2, up=False)],
            1,
            False,
            id="both are down: connections wait at the port, and nobody takes them",
        ),
        pytest.param([ONE, a_worker(2, error="line 3")], 1, True, id="one has an old policy"),
        pytest.param([], 0, True, id="as an older version wrote it"),
    ],
)
def test_the_exit_code_is_a_health_check(
    workers: list[WorkerState],
    code: int,
    accepting: bool,
    coatcheck: Commands,
    listener: int,
) -> None:
    running(coatcheck.root, listener, *workers)

    done = coatcheck("status", "--format", "json")
    found: dict[str, Any] = json.loads(done.out)

    assert (done.code, found["accepting"]) == (code, accepting)
    assert [one["number"] for one in found["workers"]] == [one.number for one in workers]


def test_each_mistake_of_a_policy_has_a_line_of_its_own(coatcheck: Commands, listener: int) -> None:
    error = "policy.yaml:1:10: 2 is out of range\npolicy.yaml:2:1: not known \x1b[2J"
    running(coatcheck.root, listener, a_worker(1, error=error))

    done = coatcheck("status")
    at = done.out.index("policy error:")
    first, second = done.out[at:].splitlines()[:2]

    assert first.endswith("  policy.yaml:1:10: 2 is out of range")
    assert second == " " * first.index("policy.yaml") + r"policy.yaml:2:1: not known \x1b[2J"


def test_programs_get_all_that_is_known_of_each(coatcheck: Commands, listener: int) -> None:
    running(coatcheck.root, listener, ONE, a_worker(2, up=False, restarts=1))

    found = json.loads(coatcheck("status", "--format", "json").out)

    assert found["workers"] == [
        {
            "number": 1,
            "pid": 4001,
            "ready": True,
            "restarts": 0,
            "last_end": "",
            "policy": {"digest": DIGEST, "error": ""},
            "store": {"revision": 7, "error": ""},
            "sources": None,
        },
        {
            "number": 2,
            "pid": None,
            "ready": False,
            "restarts": 1,
            "last_end": "SIGKILL",
            "policy": None,
            "store": None,
            "sources": None,
        },
    ]
    assert found["policy_digest"] == DIGEST
    assert found["store_revision"] == 7


def test_a_port_that_nobody_listens_on_is_told(coatcheck: Commands) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    running(coatcheck.root, port, ONE, TWO)

    done = coatcheck("status", "--format", "json")

    assert done.code == 1
    assert not json.loads(done.out)["accepting"]
