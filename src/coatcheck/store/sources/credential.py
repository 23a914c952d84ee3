"""The credential of a source: from a file or a variable, never from the settings' text."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from coatcheck.store.sources.local import read_plain
from coatcheck.store.sources.port import Failure, SourceError

MAX_CREDENTIAL = 64 * 1024  # bytes


def credential(options: Mapping[str, Any], name: str, environ: Mapping[str, str]) -> str:
    """What the key ``NAME_file`` or ``NAME_env`` of *options* leads to; read anew each time, since
    an agent may put a new one there.

    Raises:
        SourceError: NO_CREDENTIAL.
    """
    try:
        if f"{name}_file" in options:
            text = read_plain(options[f"{name}_file"], MAX_CREDENTIAL).decode("ascii")
        else:
            text = os.fsencode(environ.get(options[f"{name}_env"], "")).decode("ascii")
    except (SourceError, ValueError):
        raise SourceError(Failure.NO_CREDENTIAL) from None
    text = text.strip()
    if not text or not text.isprintable():  # a line end in it would end a header field
        raise SourceError(Failure.NO_CREDENTIAL)
    return text
