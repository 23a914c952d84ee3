"""Where in a JSON document a reader stands: what may come next, and the pointer (RFC 6901).

Keys are kept as they were written and decoded only when somebody asks, which is seldom. A pointer
that is too long, or that no policy file could name, has no name at all.
"""

from __future__ import annotations

import json
from enum import IntEnum

from coatcheck.core.locations import Kind, Location

MAX_DEPTH = 512  # arrays and objects inside each other
MAX_POINTER = 4096  # bytes of all its keys, as written


class Wants(IntEnum):
    """What may come next."""

    VALUE = 0
    VALUE_OR_END = 1  # right after ``[``
    KEY = 2
    KEY_OR_END = 3  # right after ``{``
    COLON = 4
    COMMA_OR_END = 5


class JsonPlace:
    """Follows the tokens of one text. At the root, one document may follow another (NDJSON)."""

    def __init__(self) -> None:
        self.wants = Wants.VALUE
        # One entry a level: an array's index, an object's key as written (None: it has no name).
        self._path: list[bytes | int | None] = []
        self._size = 0  # bytes of all keys in `_path`
        # The pointers of the levels above, as far as they were asked for (None: it has no name).
        # Kept, or whoever nests deep would have all of it decoded anew for each string.
        self._above: list[str | None] = []

    @property
    def at_root(self) -> bool:
        return not self._path

    @property
    def in_array(self) -> bool:
        return bool(self._path) and type(self._path[-1]) is int

    @property
    def wants_value(self) -> bool:
        return self.wants <= Wants.VALUE_OR_END

    @property
    def wants_key(self) -> bool:
        return self.wants is Wants.KEY or self.wants is Wants.KEY_OR_END

    def punctuate(self, byte: int) -> bool:
        """Take one of ``{}[],:``; False if it may not stand here, or nests too deep."""
        match byte:
            case 0x7B | 0x5B if self.wants_value and len(self._path) < MAX_DEPTH:
                is_object = byte == 0x7B
                self._path.append(b"" if is_object else 0)
                self.wants = Wants.KEY_OR_END if is_object else Wants.VALUE_OR_END
            case 0x2C if self.wants is Wants.COMMA_OR_END:
                self.wants = Wants.VALUE if self.in_array else Wants.KEY
                self.pass_elements(1)
            case 0x3A if self.wants is Wants.COLON:
                self.wants = Wants.VALUE
            case 0x7D if self.wants in (Wants.KEY_OR_END, Wants.COMMA_OR_END):
                return not self.in_array and self._close()
            case 0x5D if self.wants in (Wants.VALUE_OR_END, Wants.COMMA_OR_END):
                return self.in_array and self._close()
            case _:
                return False
        return True

    def end_value(self) -> None:
        self.wants = Wants.COMMA_OR_END if self._path else Wants.VALUE

    def end_key(self, written: bytes | None) -> None:
        """Take the key of the next member; None for one that has no name."""
        self._forget_key()
        if written is not None and self._size + len(written) > MAX_POINTER:
            written = None
        self._path[-1] = written
        self._size += len(written or b"")
        self.wants = Wants.COLON

    def pass_elements(self, count: int) -> None:
        """Move on by *count* elements, if this is an array."""
        top = self._path[-1]
        if isinstance(top, int):
            self._path[-1] = top + count

    def location(self) -> Location:
        """The pointer of the value that stands or begins here."""
        path, above = self._path, self._above
        while len(above) < len(path) - 1:
            above.append(_pointer(above[-1] if above else "", path[len(above)]))
        pointer = _pointer(above[-1] if above else "", path[-1]) if path else ""
        return Location(Kind.BODY, pointer or "")

    def _close(self) -> bool:
        self._forget_key()
        self._path.pop()
        del self._above[max(0, len(self._path) - 1) :]
        self.end_value()
        return True

    def _forget_key(self) -> None:
        top = self._path[-1]
        if isinstance(top, bytes):
            self._size -= len(top)


def _pointer(above: str | None, step: bytes | int | None) -> str | None:
    """One level below *above*; None where it, or anything above, has no name."""
    if above is None:
        return None
    try:
        return f"{above}/{_token(step)}"
    except ValueError:
        return None


def _token(step: bytes | int | None) -> str:
    """One reference token (RFC 6901, section 3).

    Raises:
        ValueError: the key has no name.
    """
    if step is None:
        raise ValueError("a key without a name")
    if isinstance(step, int):
        return str(step)
    key: str = json.loads(b'"' + step + b'"', strict=False)
    key.encode("utf-8")  # half a surrogate pair is no name
    return key.replace("~", "~0").replace("/", "~1")
