"""What supervisor and worker tell each other arrives, and a dead end is no hang."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coatcheck.core.limits import Limits
from coatcheck.settings import Settings
from coatcheck.workers import link
from coatcheck.workers.link import UNREAD_BYTES, Link, Task

SETTINGS = Settings(
    home=Path("/a home"),
    listen=("::1", 1),
    admin=("localhost", 2),
    policy=Path("/ü/policy.yaml"),
    store="postgresql://user:pass@host/db",
    workers=3,
    role="proxy",
    upstream_ca=Path("/ca.pem"),
    upstream_proxy="http://user:pass@proxy:3128",
    admin_given=True,
    admin_hosts=("a.example.com", "b.example.com"),
    oidc_issuer="https://id.example.com",
    oidc_audience="coatcheck",
    oidc_jwks="/jwks.json",
    oidc_role_claim="a.b",
    limits=Limits(head_bytes=2048, idle_timeout_s=1.5),
)
ADDRESSES = [("127.0.0.1", 8080), ("::1", 8080)]
TASK = Task(2, 4711, [5, 6], ADDRESSES, SETTINGS, [("::1", 8081)], (7, 2))


@contextlib.asynccontextmanager
async def a_pair() -> AsyncIterator[tuple[Link, Link]]:
    one, other = socket.socketpair()
    ends = await Link.over(one), await Link.over(other)
    try:
        yield ends
    finally:
        for end in ends:
            await end.close()


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(SETTINGS, id="all of them set"),
        pytest.param(
            dataclasses.replace(SETTINGS, upstream_ca=None, upstream_proxy=None), id="some not"
        ),
    ],
)
async def test_a_worker_gets_the_settings_that_the_supervisor_has(settings: Settings) -> None:
    task = dataclasses.replace(TASK, settings=settings)
    async with a_pair() as (supervisor, worker):
        supervisor.tell("task", **link.pack(task))
        message = await worker.hear()

    assert message is not None
    assert message["what"] == "task"
    got = link.unpack(message)
    assert got == task
    assert [type(v) for v in dataclasses.astuple(got.settings)] == [
        type(v) for v in dataclasses.astuple(settings)
    ]


async def test_messages_come_one_by_one_and_in_order() -> None:
    async with a_pair() as (supervisor, worker):
        for number in range(50):
            worker.tell("facts", number=number, text="line\nends ü " * number)

        heard = [await supervisor.hear() for _ in range(50)]

    assert [message and message["number"] for message in heard] == list(range(50))
    assert heard[-1] is not None
    assert heard[-1]["text"] == "line\nends ü " * 49


async def test_who_is_gone_says_nothing_more() -> None:
    async with a_pair() as (supervisor, worker):
        worker.tell("prepared")
        await worker.close()
        worker.tell("ready")

        assert await supervisor.hear() == {"what": "prepared"}
        assert await supervisor.hear() is None
        supervisor.tell("go")


@pytest.mark.parametrize("said", [b"", b"half a line", b"no JSON\n", b"[]\n", b"\xff\n"])
async def test_what_is_no_message_is_the_end(said: bytes) -> None:
    one, other = socket.socketpair()
    end = await Link.over(one)
    other.sendall(said)
    other.close()

    assert await end.hear() is None
    await end.close()


async def test_who_does_not_listen_costs_a_bounded_amount_of_memory() -> None:
    """A supervisor that was stopped (SIGSTOP) must not fill its workers up."""
    async with a_pair() as (_, worker):
        for _ in range(200):
            worker.tell("facts", text="x" * 100_000)
        unread = worker._writer.transport.get_write_buffer_size()

        assert UNREAD_BYTES < unread < UNREAD_BYTES + 200_000
        worker._writer.transport.abort()
