"""Bodies that are read whole, and how much of them there is in all.

Each is bounded, and so is the number of connections, but not by what a machine's memory holds of
both. Once all together are over their bound, a body that is still being read goes on as one that
was too large: it streams. Nobody is refused for what others hold.
"""

from __future__ import annotations

from coatcheck.core.limits import Limits


class Room:
    """What the bodies of all connections of a process take.

    Attributes:
        held: Bytes, of all bodies that wait now.
    """

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


class Collecting:
    """One body, from its first bytes until it is sent or dropped."""

    __slots__ = ("_limits", "_parts", "_room", "_size")

    def __init__(self, room: Room, limits: Limits) -> None:
        self._room = room
        self._limits = limits
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        self._room.held += len(data)

    @property
    def is_too_large(self) -> bool:
        """It has to stream from here on."""
        limits = self._limits
        alone = self._size > limits.body_buffer_bytes
        return alone or self._room.held > limits.body_buffer_total_bytes

    def take(self) -> bytes:
        """All of it; it counts until `release`."""
        data, self._parts = b"".join(self._parts), []
        return data

    def release(self) -> None:
        """It is sent, or dropped; more than once is the same as once."""
        self._room.held -= self._size
        self._size, self._parts = 0, []
