"""The newest revision of the store that this home has seen, kept outside of the store.

A store that was put back from an older copy looks like any other: values that were replaced are in
force again, deleted secrets are back. Only somebody who remembers can tell. Commands write down the
revision here, and say so when it has gone back, until a person has accepted that.

It is a hint and no wall: who can write to home can change this file too.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from coatcheck.store import files
from coatcheck.store.files import HomeError


@dataclass(frozen=True, slots=True)
class Seen:
    """What is remembered of one store.

    Attributes:
        went_back_to: The first revision that was lower than one seen before; None if none was.
    """

    store_id: str
    revision: int
    went_back_to: int | None = None

    def told(self) -> str:
        """In words, where the store is older than it was; else nothing."""
        if self.went_back_to is None:
            return ""
        return (
            f"the store is older than it was: revision {self.went_back_to} came after"
            f" {self.revision}. It was put back from a copy: replaced values are in force again,"
            " and later changes are gone"
        )


ACCEPT = "look through it (coatcheck secret list), then: coatcheck store accept"


def look(path: Path, store_id: str, revision: int, *, keep: bool = True) -> Seen:
    """Compare with what is remembered in the file *path*, and, where *keep*, remember the newer.

    A file that cannot be read or written is no error: then nothing is remembered.
    """
    before = _read(path)
    if before is None or before.store_id != store_id:
        now = Seen(store_id, revision)
    elif revision < before.revision and before.went_back_to is None:
        now = Seen(store_id, before.revision, revision)
    elif before.went_back_to is None:
        now = Seen(store_id, max(revision, before.revision))
    else:
        now = before
    if keep and now != before:
        _write(path, now)
    return now


def remembered(path: Path, store_id: str) -> int:
    """The newest revision that was seen of this store; 0 where none was."""
    before = _read(path)
    return before.revision if before is not None and before.store_id == store_id else 0


def accept(path: Path, store_id: str, revision: int) -> None:
    """Remember *revision*, whatever was seen before.

    Raises:
        HomeError: the file cannot be written.
    """
    files.replace_file(path, _text(Seen(store_id, revision)))


def _read(path: Path) -> Seen | None:
    with suppress(HomeError, ValueError, TypeError, KeyError):
        found = json.loads(files.read_file(path))
        back = found["went_back_to"]
        return Seen(
            str(found["store_id"]), int(found["revision"]), None if back is None else int(back)
        )
    return None


def _write(path: Path, seen: Seen) -> None:
    with suppress(HomeError):
        files.replace_file(path, _text(seen))


def _text(seen: Seen) -> bytes:
    return json.dumps(
        {
            "store_id": seen.store_id,
            "revision": seen.revision,
            "went_back_to": seen.went_back_to,
        }
    ).encode()
