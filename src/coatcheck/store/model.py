"""What every store has in common: the management calls, the rules of names, the errors.

`sql.SqlStore` keeps secrets, `memory.MemoryStore` forgets them; both pass the same contract test.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from coatcheck.core.destination import DomainPattern
from coatcheck.core.ports import SecretReader, StoreError
from coatcheck.core.secret import MAX_VALUE, BadName, Secret, check_name

MAX_DOMAINS = 1000  # patterns of one secret; each request to it is matched against all
MAX_DESCRIPTION = 4096  # characters
DEFAULT_GRACE_S = 86400.0  # seconds a replaced value is still scrubbed


class UnknownSecret(StoreError):
    """There is no secret of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"there is no secret {name!r}", hint="coatcheck secret list shows the names there are"
        )


class NameTaken(StoreError):
    """Another secret has this name, or one that a reader would take for it."""

    def __init__(self, name: str, taken: str) -> None:
        same = name == taken
        why = "exists already" if same else f"differs from {taken!r} by letter case or form alone"
        super().__init__(f"the name {name!r} {why}", hint="choose another name, or use that secret")


# Looks at what there is, in the transaction that is about to change it; what it raises ends that.
type Check = Callable[[Secret | None], None]


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the management API. Only its hash is kept.

    Attributes:
        created_by: The name of whoever made it; empty for the first one.
        created_at, expires_at, last_used_at: Seconds since the epoch; None: never.
    """

    sha256: str
    role: str
    created_at: float
    name: str = ""
    created_by: str = ""
    expires_at: float | None = None
    last_used_at: float | None = None

    @property
    def id(self) -> str:
        """What it is called by. A part of the hash of 256 random bits tells nothing of them."""
        return self.sha256[:16]


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One version of a secret, without its value.

    Attributes:
        replaced_at: Seconds since the epoch; None for the current version.
        kept: Whether its sealed value still exists (the current one, and those within grace).
    """

    version: int
    domains: tuple[DomainPattern, ...]
    created_at: float
    replaced_at: float | None
    kept: bool


class Store(SecretReader, Protocol):
    """A store that can be read by a worker and written by whoever manages it.

    Each change counts `revision` up by one in the same transaction. Times are seconds since the
    epoch. Every method raises `StoreError`: not readable, not writable, a name or value that no
    secret can have.
    """

    def wait(self, timeout_s: float) -> bool:
        """Return when the store may have changed, at the latest after *timeout_s*.

        To be called instead of a pause between two looks at `revision`: where the store tells of
        changes they are in force at once, where it does not, or where what it told was lost, it
        takes the pause. Raises nothing: that a store cannot be read is told by `revision`.

        Returns:
            Whether a change was told.
        """

    def find(self, name: str) -> Secret | None:
        """The secret of this exact name."""

    def secrets(self) -> Sequence[Secret]:
        """All of them, in order of name."""

    def put(
        self,
        name: str,
        value: bytes,
        *,
        domains: Iterable[DomainPattern] | None,
        description: str | None,
        now: float,
        new_name: str | None = None,
        check: Check | None = None,
    ) -> Secret:
        """Make the secret *name*, or give it a new version with a new value.

        Args:
            domains: None keeps those of an existing secret (nowhere, for a new one). Only here
                can they change, since the value is sealed together with them.
            description: None keeps it.
            new_name: Of an existing secret; None keeps it.

        Raises:
            NameTaken: a new name that differs from an existing one by case or form alone.
        """

    def edit(
        self,
        name: str,
        *,
        new_name: str | None = None,
        description: str | None = None,
        now: float,
        check: Check | None = None,
    ) -> Secret:
        """Change name or description; the value stays as it is, and so does the version.

        Raises:
            UnknownSecret, NameTaken.
        """

    def delete(self, name: str, *, now: float, check: Check | None = None) -> None:
        """Forget the secret and all its versions.

        Raises:
            UnknownSecret.
        """

    def history(self, name: str) -> Sequence[VersionInfo]:
        """Its versions, oldest first.

        Raises:
            UnknownSecret.
        """


def name_key(name: str) -> str:
    """What two names share when a reader would take one for the other.

    Letter case, compatibility forms (Unicode NFKC), invisible format characters and the width of
    blanks are gone from it.
    """
    folded = unicodedata.normalize("NFKC", name).casefold()
    seen = "".join(c for c in folded if unicodedata.category(c) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", seen).split())


def checked_name(name: str) -> str:
    """*name*, if a secret can have it.

    Raises:
        StoreError: it cannot; or it is blank to a reader.
    """
    try:
        check_name(name)
    except BadName as error:
        raise StoreError(f"no secret can have this name: {error}", hint="choose another") from None
    if not name_key(name):
        raise StoreError("no secret can have a name that shows nothing", hint="choose another")
    return name


def checked_value(name: str, value: bytes) -> bytes:
    """*value*, if a secret can have it.

    Raises:
        StoreError: empty or too large; the text never holds a part of it.
    """
    if not value:
        raise StoreError(f"the value for {name!r} is empty", hint="give it at least one byte")
    if len(value) > MAX_VALUE:
        raise StoreError(
            f"the value for {name!r} is larger than {MAX_VALUE} bytes",
            hint="a secret is a key or a token; keep large data elsewhere",
        )
    return value


def checked_description(text: str) -> str:
    """*text*, if it is short enough and can be stored.

    Raises:
        StoreError: it is not.
    """
    if len(text) > MAX_DESCRIPTION or "\0" in text or not _is_unicode(text):
        raise StoreError(
            f"a description is text of at most {MAX_DESCRIPTION} characters, without NUL",
            hint="shorten it",
        )
    return text


def checked_domains(domains: Iterable[DomainPattern]) -> tuple[DomainPattern, ...]:
    """*domains* in their order, each once.

    Raises:
        StoreError: too many.
    """
    unique = tuple(dict.fromkeys(domains))
    if len(unique) > MAX_DOMAINS:
        raise StoreError(
            f"a secret has at most {MAX_DOMAINS} allowed domains, here are {len(unique)}",
            hint="use a wildcard such as '*.example.com', or several secrets",
        )
    return unique


@functools.lru_cache(maxsize=65536)
def stored_pattern(text: str) -> DomainPattern:
    """The pattern whose ``str()`` is *text*.

    Not `parse_domain_pattern`: that one also judges, by a list of public suffixes that grows with
    each update; a pattern that was fine when it was sealed must not make a store unreadable.

    Raises:
        ValueError: *text* is no such string.
    """
    rest = text.removeprefix("*.")
    if rest.startswith("["):
        host, _, tail = rest[1:].partition("]")
        port = tail.removeprefix(":")
    else:
        host, _, port = rest.partition(":")
    is_any = host == "*"
    pattern = DomainPattern(
        "" if is_any else host,
        wildcard=rest != text,
        any=is_any,
        port=int(port) if port else None,
    )
    if str(pattern) != text or not host:
        raise ValueError("not a stored pattern")
    return pattern


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
