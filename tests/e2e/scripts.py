"""Answers written by a test, byte by byte, for an upstream to send as they are.

`Upstream` knows modes that answer whatever comes; here a test says what is sent, in which pieces,
and how long the upstream waits between two of them. Each piece is a TLS record of its own.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from tests.e2e.upstream import Exchange, Upstream

MODE = "scripted"


@dataclass(frozen=True)
class Script:
    """What is sent for one path.

    Attributes:
        pieces: The response, from its status line on.
        pause_s: Between two pieces.
        closes: The connection ends behind it.
    """

    pieces: Sequence[bytes]
    pause_s: float = 0.0
    closes: bool = False


class Scripts:
    """The scripts that an upstream knows, by path."""

    def __init__(self, upstream: Upstream) -> None:
        self._known: dict[str, Script] = {}
        self._numbers = itertools.count(1)
        upstream.modes[MODE] = self._play

    def add(self, *pieces: bytes, pause_s: float = 0.0, closes: bool = False) -> str:
        """The path that is answered so."""
        name = str(next(self._numbers))
        self._known[name] = Script(pieces, pause_s, closes)
        return f"/{MODE}/{name}"

    async def _play(self, at: Exchange) -> bool | None:
        script = self._known[at.argument()]
        for number, piece in enumerate(script.pieces):
            at.writer.write(piece)
            if script.pause_s and number + 1 < len(script.pieces):
                await at.writer.drain()
                await asyncio.sleep(script.pause_s)
        await at.writer.drain()
        if script.closes:
            at.writer.close()
            return False
        return None


def answer(
    body: bytes,
    *fields: bytes,
    status: bytes = b"200 OK",
    kind: bytes = b"text/plain",
    length: int | None = None,
) -> bytes:
    """A response with Content-Length; *fields* are whole lines."""
    size = b"Content-Length: %d" % (len(body) if length is None else length)
    lines = [b"HTTP/1.1 " + status, b"Content-Type: " + kind, *fields, size]
    return b"\r\n".join([*lines, b"", body])
