"""What `coatcheck doctor` finds: one row each, and what to do about it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from coatcheck.core.ports import CoatcheckError

SHOWN = 5  # names in one finding; the rest is counted


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One row.

    Attributes:
        check: Stable; for programs that read the JSON.
        found: Names, places and counts; never a value, nor its length.
        remedy: The next step; empty where all is well.
    """

    check: str
    status: Status
    found: str
    remedy: str = ""


def ok(check: str, found: str) -> Finding:
    return Finding(check, Status.OK, found)


def warn(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, Status.WARN, found, remedy)


def fail(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, Status.FAIL, found, remedy)


def failed_by(check: str, error: CoatcheckError) -> Finding:
    """What a part of the program says of itself, which names its next step."""
    return fail(check, error.problem, error.hint)


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:SHOWN])
    rest = len(names) - SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown


def counted(things: Collection[object], word: str) -> str:
    """``1 grant``, ``2 grants``."""
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"
