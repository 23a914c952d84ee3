"""How a value comes in: from a file, a variable of the environment, stdin or a hidden prompt.

Never from the command line: every user of the machine sees it there (``ps``), and the shell
writes it into its history. Nothing here prints a value or a part of one, its length neither.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from coatcheck.cli import console
from coatcheck.core import weakness
from coatcheck.core.ports import CoatcheckError
from coatcheck.core.secret import MAX_VALUE, SAFE_LENGTH


class InputError(CoatcheckError):
    """A command that cannot be done as it was given."""


def read(
    name: str,
    *,
    from_file: Path | None,
    from_env: str | None,
    stdin: bool,
    keep_newline: bool,
    allow_short: bool,
    environ: Mapping[str, str] = os.environ,
) -> bytes:
    """The value for the secret *name*, 1 byte to `MAX_VALUE`. Weak ones are warned of.

    One line end at the end of a file or of stdin is taken off, and said: editors and ``echo``
    add it, and a header cannot hold it.

    Raises:
        InputError: more than one source, an unreadable one, an empty, too large or short value.
    """
    if sum((from_file is not None, from_env is not None, stdin)) > 1:
        raise InputError(
            "more than one source for the value",
            hint="give one of --from-file, --from-env and --stdin",
        )
    if from_env is not None:
        value = _from_env(from_env, environ)
    elif from_file is not None:
        value = _without_newline(_from_file(from_file), keep_newline)
    elif not stdin and sys.stdin.isatty():
        value = _asked(name)
    else:
        value = _without_newline(sys.stdin.buffer.read(MAX_VALUE + 3), keep_newline)
    return _checked(value, allow_short)


def _from_env(variable: str, environ: Mapping[str, str]) -> bytes:
    try:
        return os.fsencode(environ[variable])
    except KeyError:
        # Not repeated: somebody may have taken it for the place of the value itself.
        raise InputError(
            "--from-env names a variable that is not set",
            hint="give the name of a variable, such as --from-env API_KEY, and export it",
        ) from None


def _from_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_VALUE + 3)
    except OSError as error:
        raise InputError(
            f"cannot read the file of --from-file: {error.strerror}",
            hint="give the path of a file that holds the value alone",
        ) from None


def _asked(name: str) -> bytes:
    try:
        first = getpass.getpass(f"value of {console.clean(name)} (not shown): ")
        second = getpass.getpass("once more: ")
    except (EOFError, KeyboardInterrupt):
        raise InputError("no value was given; nothing was changed", hint="run it again") from None
    if first != second:
        raise InputError("the two inputs differ; nothing was changed", hint="run it again")
    return first.encode("utf-8", "surrogateescape")


def _without_newline(value: bytes, keep: bool) -> bytes:
    if keep or not value.endswith(b"\n"):
        return value
    console.say("note: took one line end off the value's end (--keep-newline keeps it)")
    return value[:-2] if value.endswith(b"\r\n") else value[:-1]


def _checked(value: bytes, allow_short: bool) -> bytes:
    if not value:
        raise InputError(
            "the value is empty; nothing was changed",
            hint='pipe it in: printf %s "$VALUE" | coatcheck secret set NAME',
        )
    if len(value) > MAX_VALUE:
        raise InputError(
            f"the value is larger than {MAX_VALUE} bytes; nothing was changed",
            hint="a secret is a key or a token; keep large data elsewhere",
        )
    if len(value) < SAFE_LENGTH:
        if not allow_short:
            raise InputError(
                f"the value is shorter than {SAFE_LENGTH} bytes: such a text occurs"
                " in answers by chance, so it cannot be scrubbed safely; nothing was changed",
                hint="use a longer secret, or say --allow-short",
            )
        console.say(
            f"warning: the value is shorter than {SAFE_LENGTH} bytes and cannot be scrubbed safely"
        )
    for words in weakness.warnings(value):
        console.say(f"warning: {words}")
    return value
