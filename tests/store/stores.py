"""What the tests of the stores build with."""

from __future__ import annotations

from coatcheck.core.destination import DomainPattern, parse_domain_pattern
from coatcheck.store.home import Home
from coatcheck.store.sql import SqlStore

NOW = 1_700_000_000.0  # seconds since the epoch
GRACE_S = 3600.0


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def patterns(*texts: str) -> list[DomainPattern]:
    return [parse_domain_pattern(text) for text in texts]


def open_store(
    home: Home, clock: Clock | None = None, *, private: bool = True, where: str | None = None
) -> SqlStore:
    """The store of *home*; *where*: in a database instead of its file."""
    return SqlStore.open(
        where or home.store,
        public=home.read_public_key(),
        private=home.read_private_key() if private else None,
        grace_s=GRACE_S,
        clock=clock or Clock(),
    )
