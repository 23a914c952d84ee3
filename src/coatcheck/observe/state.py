"""The state file ``run/state.json``: what a running proxy says of itself, for ``coatcheck status``.

A file and no socket: it needs no port, no credential, and is there even when the proxy hangs. It
is replaced as a whole, so a reader never sees half of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

FILE_NAME = "state.json"


def write(folder: Path, state: Mapping[str, object]) -> None:
    """Replace the state file. Raises `OSError`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = folder / f".{FILE_NAME}.{os.getpid()}"
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(file, "w", encoding="ascii") as out:
        json.dump(state, out)
    draft.replace(folder / FILE_NAME)


def read(folder: Path) -> dict[str, object] | None:
    """The last state, or None where no proxy has written one."""
    try:
        state = json.loads((folder / FILE_NAME).read_text("ascii"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) else None


def is_alive(pid: object) -> bool:
    """Whether a process of this number runs (it may belong to another user)."""
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def remove(folder: Path) -> None:
    """Take the state file away at the end of a run."""
    (folder / FILE_NAME).unlink(missing_ok=True)
