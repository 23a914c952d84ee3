"""`/api/v1/events`: what has changed is told once, and a stream ends with its credential."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from coatcheck.admin.api import event_routes
from coatcheck.admin.api.event_routes import STREAMS, STREAMS_OF_ONE, Watch, _Places, events_for
from coatcheck.admin.gate import Admitted
from coatcheck.admin.problems import ApiProblem
from coatcheck.admin.roles import Actor, Role
from coatcheck.core.ports import StoreError
from coatcheck.observe.auditlog import FileAuditLog
from coatcheck.store.home import token_hash
from tests.admin.stage import VALUE, Stage, write_policy
from tests.admin.test_audit_api import line, used
from tests.store.stores import NOW

VIEWER = Actor("v", Role.VIEWER, "token")
POLICY = 'version: 1\nclients:\n  me: { networks: ["127.0.0.1/32"] }\n'


@pytest.fixture
def watch(stage: Stage) -> Watch:
    made = Watch(stage.service, VIEWER)
    assert made.look() == []
    assert made.look() == []
    return made


def test_a_change_of_the_store_is_told_with_the_line_of_who_made_it(
    stage: Stage, watch: Watch
) -> None:
    stage.make()
    (_, secrets), (_, audit) = watch.look()

    assert secrets == {"revision": stage.store.revision()}
    assert [one["action"] for one in audit["lines"]] == ["secret.create"]
    assert VALUE not in json.dumps(audit)
    assert watch.look() == []


def test_a_change_of_the_policy_is_told(stage: Stage, watch: Watch) -> None:
    write_policy(stage.home, POLICY)
    ((name, data),) = watch.look()

    assert (name, data["valid"]) == ("policy", True)


def test_new_lines_are_told_once_and_in_order(stage: Stage, watch: Watch) -> None:
    log = FileAuditLog(stage.home.audit, 1)
    log.open()
    for second in (1, 2):
        log.write(line(second, **used("crm.apiKey")))
    ((name, first),) = watch.look()
    log.write(line(2, **used("erp.key")))  # in the same moment
    ((_, then),) = watch.look()
    log.close()

    assert name == "audit"
    assert [one["request_id"] for one in first["lines"]] == ["r1", "r2"]
    assert [one["secrets"][0]["name"] for one in then["lines"]] == ["erp.key"]


def test_so_many_lines_are_told_as_a_number(
    stage: Stage, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_routes, "LINES", 2)
    log = FileAuditLog(stage.home.audit, 1)
    log.open()
    for second in range(5):
        log.write(line(second))
    log.close()
    ((_, told),) = watch.look()

    assert ([one["request_id"] for one in told["lines"]], told["more"]) == (["r3", "r4"], 3)


@pytest.mark.parametrize("how", ["revoked", "ended", "logged out"])
async def test_a_stream_ends_with_its_credential(
    stage: Stage, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_routes, "LOOK_S", 0.01)
    stage.tokens["mine"] = stage.token("viewer", expires_at=NOW + 60)
    cookie, session = stage.auth.log_in(stage.tokens["mine"], "here")
    admitted = Admitted(session.actor, session.token, session, cookie)
    stream: AsyncIterator[bytes] = events_for(stage.service, stage.auth, admitted)
    assert await anext(stream) == b"retry: 3000\n: welcome\n\n"
    stage.make()
    assert (await anext(stream)).startswith(b"event: secrets")
    match how:
        case "revoked":
            stage.store.remove_token(token_hash(stage.tokens["mine"])[:16], now=NOW)
        case "ended":
            stage.clock.now += 60
        case "logged out":
            stage.auth.log_out(cookie)

    stage.make("told.to.nobody")
    rest, ended = [], False
    with suppress(TimeoutError):
        async with asyncio.timeout(10):  # far less than a beat: it ends at the next look
            rest = [event async for event in stream]
            ended = True
    assert ended
    assert [event for event in rest if b"told.to.nobody" in event] == []


async def test_a_stream_goes_on_while_its_credential_is_good(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_routes, "LOOK_S", 0.01)
    monkeypatch.setattr(event_routes, "BEAT_S", 0.05)
    stream = events_for(stage.service, stage.auth, Admitted(VIEWER))
    assert await anext(stream) == b"retry: 3000\n: welcome\n\n"

    assert [await anext(stream), await anext(stream)] == [b": beat\n\n"] * 2


async def test_a_stream_ends_where_the_credential_cannot_be_looked_at(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> bool:
        raise StoreError("the database is away", hint="wait")

    monkeypatch.setattr(event_routes, "LOOK_S", 0.01)
    monkeypatch.setattr(stage.auth, "is_still_good", gone)
    stream = events_for(stage.service, stage.auth, Admitted(VIEWER))

    assert [event async for event in stream] == [b"retry: 3000\n: welcome\n\n"]


def test_there_is_room_for_so_many_streams() -> None:
    places = _Places()
    actors = [Actor(str(n), Role.VIEWER, "token", str(n)) for n in range(STREAMS)]
    for actor in actors:
        places.take(actor)
    with pytest.raises(ApiProblem, match="too_many_streams"):
        places.take(VIEWER)
    places.give_back(actors[0])
    places.take(VIEWER)


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(Actor("v", Role.VIEWER, "token", "1"), id="the same session or token"),
        pytest.param(Actor("v", Role.VIEWER, "token", "1", "10.0.0.9"), id="from elsewhere"),
    ],
)
def test_nobody_takes_them_all(again: Actor) -> None:
    places = _Places()
    mine, other = Actor("v", Role.VIEWER, "token", "1"), Actor("v", Role.VIEWER, "token", "2")
    for _ in range(STREAMS_OF_ONE):
        places.take(mine)

    with pytest.raises(ApiProblem, match="too_many_streams"):
        places.take(again)
    places.take(other)  # of the same name: not the same token
    places.give_back(mine)
    places.take(again)
