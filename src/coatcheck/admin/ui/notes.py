"""What is said once, on the page after a change. Kept here and not in the URL, where anybody could
write one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

KEPT = 1000  # sessions; the oldest goes first


@dataclass(frozen=True, slots=True)
class Note:
    """*about*: the name of what was changed."""

    words: str
    about: str = ""
    warnings: Sequence[str] = ()


class Notes:
    """By session, which is known here by its CSRF token."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Note] = OrderedDict()

    def leave(self, session: str, note: Note) -> None:
        with self._lock:
            self._kept.pop(session, None)
            self._kept[session] = note
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)

    def take(self, session: str) -> Note | None:
        with self._lock:
            return self._kept.pop(session, None)
