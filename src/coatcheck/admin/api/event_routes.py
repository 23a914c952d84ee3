"""`/api/v1/events`: what has changed, told as it happens (server-sent events), for the page.

Events say what to look at again, and carry new lines of the audit log, which are free of values.
Nothing is kept for who was away: whoever connects again reads the lists again. A stream ends with
its credential, and after an hour in any case.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from coatcheck.admin.activity import Filter, Key, Record, key_of
from coatcheck.admin.api.deps import Services, Viewer
from coatcheck.admin.auth import Authenticator
from coatcheck.admin.gate import Admitted
from coatcheck.admin.problems import ApiProblem, Code
from coatcheck.admin.roles import Actor
from coatcheck.admin.service import Service
from coatcheck.core.ports import StoreError

router = APIRouter(prefix="/api/v1/events", tags=["events"])

type Who = tuple[str, str]  # the kind of a credential, and which one

STREAMS = 32  # at once, of everybody
STREAMS_OF_ONE = 8  # of one credential, so that nobody takes them all
LOOK_S = 1.0
BEAT_S = 15.0  # so that proxies keep the connection
LIFE_S = 3600.0
LINES = 100  # of the audit log in one event; more are told as a number


class _Places:
    """How many streams there are, and whose."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: Counter[Who] = Counter()

    def take(self, actor: Actor) -> None:
        who = _who(actor)
        with self._lock:
            if self._taken[who] >= STREAMS_OF_ONE or self._taken.total() >= STREAMS:
                raise ApiProblem(Code.TOO_MANY_STREAMS, hint="close another page first")
            self._taken[who] += 1

    def give_back(self, actor: Actor) -> None:
        who = _who(actor)
        with self._lock:
            self._taken[who] -= 1
            if not self._taken[who]:
                del self._taken[who]


def _who(actor: Actor) -> Who:
    """A token, with all its sessions; or whoever a JWT speaks of, however many there are."""
    return (actor.kind, actor.id or actor.name)


_places = _Places()


@router.get(
    "",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "Events without end."}},
)
def stream_events(request: Request, actor: Viewer, services: Services) -> StreamingResponse:
    """Events: secrets, policy, workers (look again), and audit (new lines, the oldest first)."""
    auth: Authenticator = request.app.state.auth
    admitted: Admitted = request.state.admitted
    _places.take(actor)
    return _Stream(events_for(services, auth, admitted), actor)


class _Stream(StreamingResponse):
    """Gives its place back however it ends."""

    def __init__(self, events: AsyncIterator[bytes], actor: Actor) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._actor = actor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            _places.give_back(self._actor)


async def events_for(
    services: Service, auth: Authenticator, admitted: Admitted
) -> AsyncIterator[bytes]:
    """The text of a stream, an event or a sign of life each."""
    watch = Watch(services, admitted.actor)
    await asyncio.to_thread(watch.look)  # what is there already is no news
    yield b"retry: 3000\n: welcome\n\n"
    begun = beat = time.monotonic()
    while time.monotonic() - begun < LIFE_S:
        await asyncio.sleep(LOOK_S)
        if not await asyncio.to_thread(_is_still_good, auth, admitted):
            return
        for name, data in await asyncio.to_thread(watch.look):
            yield f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
        if time.monotonic() - beat > BEAT_S:
            beat = time.monotonic()
            yield b": beat\n\n"


def _is_still_good(auth: Authenticator, admitted: Admitted) -> bool:
    try:
        return auth.is_still_good(admitted.actor, admitted.token, admitted.cookie)
    except StoreError:
        return False  # fail closed; the page comes again


class Watch:
    """Remembers what was there at the last look."""

    def __init__(self, services: Service, actor: Actor) -> None:
        self._services = services
        self._actor = actor
        self._seen: dict[str, Any] = {}
        self._newest: Key | None = None

    def look(self) -> list[tuple[str, Any]]:
        """What is another than before: (name, data) each."""
        told: list[tuple[str, Any]] = []
        for name, now in self._now().items():
            if name in self._seen and self._seen[name] != now:
                told.append((name, now))
            self._seen[name] = now
        lines = self._new_lines()
        if lines:
            shown = [dict(line) for line in lines[:LINES]]
            told.append(("audit", {"lines": shown[::-1], "more": max(0, len(lines) - LINES)}))
        return told

    def _now(self) -> dict[str, Any]:
        health = self._services.health
        now: dict[str, Any] = {}
        with suppress(StoreError):
            now["secrets"] = {"revision": health.revision()}
        checked = self._services.policy.look()
        now["policy"] = {"sha256": checked.digest, "valid": checked.policy is not None}
        workers = health.proxy(self._actor).workers
        now["workers"] = {
            "ready": sum(worker.ready for worker in workers),
            "count": len(workers),
            "restarts": sum(worker.restarts for worker in workers),
        }
        return now

    def _new_lines(self) -> list[Record]:
        """The newest first; none at the first look."""
        before, found = self._newest, list[Record]()
        if before is None:
            self._newest = ("", 0, 0)
        for record in self._services.activity.all(self._actor, Filter()):
            key = key_of(record)
            if before is None or key <= before or len(found) > 10 * LINES:
                break
            found.append(record)
        newest = self._services.activity.last(self._actor, Filter())
        if before is None and newest is not None:
            self._newest = key_of(newest)
        elif found:
            self._newest = key_of(found[0])
        return found
