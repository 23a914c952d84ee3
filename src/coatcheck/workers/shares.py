"""How many connections each worker holds, in memory that all of them share.

The kernel wakes every worker that waits for connections, and the next one is taken by whichever
gets a core first: of 32 that came at once, one of two workers took all in a quarter of the cases,
and kept them, for a client keeps what it has opened. So a worker that holds more than another
leaves the next one to that for a moment (`engine.acceptor`).

Nothing else depends on the numbers. One that is wrong, of a worker that was killed just now or that
hangs, has the others wait that moment for each connection.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from typing import Self

NO_FILE = -1
_NOBODY = 2**32 - 1
_BYTES = 4
_MORE = 2  # than another, and one is ahead; a sixteenth of what that one holds besides
_SIXTEENTH = 16


class Shares:
    """The numbers of workers 1 to *count*, in an open *file*; `NO_FILE`: there are none."""

    def __init__(self, file: int, count: int) -> None:
        self.file = file
        self._held: memoryview[int] = memoryview(bytearray(0)).cast("I")
        if file != NO_FILE:
            self._held = memoryview(mmap.mmap(file, count * _BYTES)).cast("I")

    @classmethod
    def create(cls, count: int) -> Self:
        """A file of its own, to be inherited; none where the system cannot have it so."""
        file = NO_FILE
        with suppress(OSError, AttributeError):  # Linux alone has it
            memory = os.memfd_create("coatcheck-shares")
            os.truncate(memory, count * _BYTES)
            file = memory
        made = cls(file, count)
        for place in range(len(made._held)):
            made._held[place] = _NOBODY
        return made

    def tell(self, number: int, connections: int) -> None:
        """Worker *number* holds so many."""
        if self._held:
            self._held[number - 1] = min(connections, _NOBODY - 1)

    def leave(self, number: int) -> None:
        """Worker *number* is gone, not there yet, or takes no more."""
        if self._held:
            self._held[number - 1] = _NOBODY

    def is_ahead(self, number: int) -> bool:
        """Another worker holds clearly less than worker *number*."""
        if not self._held:
            return False
        least = min(self._held)
        return self._held[number - 1] > least + _MORE + least // _SIXTEENTH
