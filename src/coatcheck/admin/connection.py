"""A connection to the admin side: it has so long for a whole request, and makes room by age.

uvicorn waits for a request for ever, and says 503 to everybody once so many connections are there:
some hundred that say nothing would shut out whoever belongs here. As the proxy does (decision
0008), we close the oldest that has not shown a right credential and take the new one. Age, not
silence: a slow drip is never silent, and who belongs here shows it with the first request. One
that has shown it is closed for nobody, so a stream of events lives as long as it may.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from coatcheck.admin.shield import Scope

CONNECTIONS = 256  # at once
HEAD_S = 10.0  # from the connection, or from the first byte of a later request
BODY_S = 30.0  # from the end of the head; what waits for the store is not the sender's fault
_KNOWN: Final = "be_known"  # in the state of a request

_numbers = count()


def be_known(scope: Scope) -> None:
    """Somebody has shown a right credential here: the connection makes room for nobody."""
    known = scope.get("state", {}).get(_KNOWN)
    if known is not None:  # there is none where a test asks the application itself
        known()


class Connection(HttpToolsProtocol):
    """uvicorn's, with an end to its patience."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._number = next(_numbers)
        self._known = False
        self._ending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._end_in(HEAD_S)
        self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._go_on()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._ending is None:
            self._end_in(HEAD_S)
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][_KNOWN] = self._be_known

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._end_in(BODY_S)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self.cycle.response_complete:
            self._end_in(HEAD_S)  # it was answered before its end: uvicorn no longer waits for it
        else:
            self._go_on()

    def _be_known(self) -> None:
        self._known = True

    def _make_room(self) -> None:
        there = [one for one in self.connections if not one.transport.is_closing()]
        if len(there) <= CONNECTIONS:
            return
        strangers = [one for one in there if isinstance(one, Connection) and not one._known]
        # This one is a stranger so far, and goes where all others are known.
        min(strangers, key=lambda one: one._number, default=self).transport.abort()

    def _end_in(self, seconds: float) -> None:
        self._go_on()
        # Not `close`, which waits until what was written has been read.
        self._ending = self.loop.call_later(seconds, self.transport.abort)

    def _go_on(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
