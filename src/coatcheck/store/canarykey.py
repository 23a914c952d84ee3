"""The key that workers and `coatcheck doctor` share, for the canary (`core.canary`).

Each worker of a home needs the same one, and none of them is the first. So whoever finds none makes
one under a name of its own and links it to the place, which fails for all but one of them; then all
read what is there. Nobody ever sees half a key. It opens nothing, and is made anew when missing.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from coatcheck.core.canary import KEY_BYTES
from coatcheck.store import files
from coatcheck.store.files import HomeError


def shared(path: Path) -> bytes:
    """The key at *path*; made if there is none.

    Raises:
        HomeError: it can be neither read nor made, or others may read it.
    """
    if not os.path.lexists(path):
        _make(path)
    return read(path)


def read(path: Path) -> bytes:
    """The key at *path*.

    Raises:
        HomeError: there is none, it is open to others, or no key.
    """
    key = files.read_file(path)
    if len(key) != KEY_BYTES:
        raise HomeError(f"{path} is no key", hint="remove it, and restart coatcheck serve")
    return key


def _make(path: Path) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=files.FOLDER_MODE, parents=True, exist_ok=True)
        files.create_file(draft, secrets.token_bytes(KEY_BYTES))
        with suppress(FileExistsError):  # somebody else was faster
            os.link(draft, path)
    except OSError as error:
        raise files.cannot("make", path, error) from error
    finally:
        with suppress(OSError):  # where none could be made, say
            draft.unlink()
