"""What a secret is, and the one type that can hold its value.

The two are kept apart on purpose. A `Secret` (name, version, domains) may be printed, logged and
stored. A `SecretValue` gives its bytes to `reveal()` and to nothing else, so
``grep -rn 'reveal()' src`` lists every place that can leak. It is no dataclass:
`dataclasses.asdict` and the diff of a failing test would show the field.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from coatcheck.core.destination import DomainPattern

MAX_PLAIN_NAME = 128  # characters
MAX_QUOTED_NAME = 256  # characters
MAX_VALUE = 16 * 1024 * 1024 - 1  # bytes; the store's records stay below 16 MiB
SAFE_LENGTH = 8  # bytes; a shorter value occurs by chance, so masking it would garble answers

_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,127}")


class BadName(ValueError):
    """A secret cannot have this name; the message says why and what to do."""


def is_plain_name(name: str) -> bool:
    """Whether *name* can be written unquoted: a letter, then letters, digits, ``_-.``."""
    return _PLAIN_NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """Return *name* if a secret can have it.

    Names that are not plain are written ``{{secrets["any name"]}}``; they may hold any character
    but a line end or another control character, which no log line or table could show.

    Raises:
        BadName: empty, too long, or with control characters.
    """
    if not name:
        raise BadName("a name needs at least one character")
    if len(name) > MAX_QUOTED_NAME:
        raise BadName(f"a name has at most {MAX_QUOTED_NAME} characters, this one {len(name)}")
    if any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in name):
        raise BadName("a name cannot hold control characters; leave out line ends and tabs")
    return name


class SecretValue:
    """The bytes of one version of one secret. Only `reveal()` gives them out."""

    __slots__ = ("_name", "_value", "_version")

    def __init__(self, name: str, version: int, value: bytes) -> None:
        self._name = name
        self._version = version
        self._value = value

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> int:
        return self._version

    @property
    def size(self) -> int:
        """Length of the value in bytes, for limits."""
        return len(self._value)

    def reveal(self) -> bytes:
        return self._value

    def __repr__(self) -> str:
        return f"<secret {self._name!r} v{self._version}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} is not copied or pickled: pass its name and open it again")

    def __eq__(self, other: object) -> bool:
        # Identity alone: a comparison by value would be an oracle, and would show in test diffs.
        return self is other

    def __hash__(self) -> int:
        return id(self)


@dataclass(frozen=True, slots=True)
class Secret:
    """What may be known of a secret by everyone who may see its name.

    Attributes:
        id: Stable over renames; random; binds the sealed value.
        version: Counts from 1; a new value is a new version.
        domains: Where the value may go; empty means nowhere.
        created_at, updated_at, last_used_at: Seconds since the epoch, UTC; None if never.
        withheld: Why its value is not sent now, while it is still scrubbed (its source has been
            silent for too long, say); empty where it may be sent.
        uses: Requests that its value was put into.
    """

    id: str
    name: str
    version: int
    domains: tuple[DomainPattern, ...]
    description: str = ""
    created_at: float = 0.0
    updated_at: float = 0.0
    last_used_at: float | None = None
    withheld: str = ""
    uses: int = 0
