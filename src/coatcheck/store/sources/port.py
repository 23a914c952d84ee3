"""What a source is asked, and what it may say.

A library's exception quotes what it was doing: URLs with tokens, answers with values. So nothing of
it leaves the adapter: what went wrong is one of a few `Failure`, whose texts are constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol


class Failure(StrEnum):
    """Why there is no value, in words that follow the name of a source."""

    UNREACHABLE = "cannot be reached, or did not answer in time"
    NOT_READY = "is there and does not serve: sealed, in standby, or overloaded"
    NO_CREDENTIAL = "has no credential to show: its file or variable is missing or empty"
    DENIED = "does not take the credential, or does not let it read this"
    GONE = "does not have it"
    NO_FIELD = "has it without this field"
    NOT_TEXT = "has something else than text there"
    UNREADABLE = "has it where it cannot be read"
    TOO_SLOW = "took too long and was stopped"
    COMMAND_FAILED = "ended with an error"
    EMPTY = "has an empty value"
    TOO_LARGE = "has a value over 16 MiB"
    TOO_SHORT = "has a value that is too short to be scrubbed"
    NO_LIBRARY = "needs a library that is not installed"
    ODD = "gave an answer that cannot be understood"


HINTS: Mapping[Failure, str] = {
    Failure.UNREACHABLE: "look at its address, its certificate and the network",
    Failure.NOT_READY: "look at the source itself",
    Failure.NO_CREDENTIAL: "put it where the sources file says",
    Failure.DENIED: "look at its policy, and renew the credential",
    Failure.GONE: "look at where the sources file says that it is",
    Failure.NO_FIELD: "look at field: in the sources file",
    Failure.NOT_TEXT: "keep the value as text there",
    Failure.UNREADABLE: "let the user that coatcheck runs as read it; it has to be a plain file",
    Failure.TOO_SLOW: "look at the command, or raise timeout_s",
    Failure.COMMAND_FAILED: "run it by hand as the user that coatcheck runs as",
    Failure.EMPTY: "give it a value",
    Failure.TOO_LARGE: "a secret is a key or a token",
    Failure.TOO_SHORT: "use a longer one, or say allow_short: true",
    Failure.NO_LIBRARY: "install coatcheck[KIND], KIND being vault, aws, gcp or azure",
    Failure.ODD: "look at the source itself",
}

# The whole source has failed: asking it for the next secret would only cost the same time again.
OF_THE_SOURCE = frozenset(
    {Failure.UNREACHABLE, Failure.NOT_READY, Failure.NO_CREDENTIAL, Failure.NO_LIBRARY}
)
# An answer, and no outage: the value was taken back, and is not sent any longer.
TAKEN_BACK = frozenset({Failure.GONE, Failure.NO_FIELD, Failure.EMPTY})


class SourceError(Exception):
    """There is no value. It carries a `Failure` and nothing else."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.value)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Fetched:
    """A value as the source has it now. No repr shows it.

    Attributes:
        version: The source's own count, where it has one.
        is_text: A line end at its end is an editor's.
    """

    value: bytes
    version: int | None = None
    is_text: bool = False

    def __repr__(self) -> str:
        return "<fetched>"


class Source(Protocol):
    """Where values come from. Called in one thread of its own; may block up to its time-out."""

    def fetch(self, where: Mapping[str, Any]) -> Fetched:
        """The value of now.

        Args:
            where: The keys of `sourcetable.KINDS` for a secret of this kind.

        Raises:
            SourceError: and nothing else that is foreseen.
        """

    def close(self) -> None:
        """Let go of connections."""
