"""A value where none belongs: among the words of a command line.

It happens: a name is taken for the place of the value, or `NAME=VALUE` for the way to write it.
What a secret is called is shown in lists, in the audit log and to clients, and what a command says
ends up in logs of CI: so nothing is made of such a word, and it is not repeated.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from coatcheck.cli.value import InputError
from coatcheck.core.secret import SAFE_LENGTH

_QUOTED = re.compile(r"""'(?:\\.|[^'\\])+'|"(?:\\.|[^"\\])+\"""")  # as `repr` and `ascii` quote
_SAYS = ("'*'", "'.'")  # what a rule speaks of, whatever was given


def refuse_value() -> None:
    """Raise `InputError`: a value was given as an argument."""
    raise InputError(
        "a value on the command line is seen by every user of the machine and kept in the"
        " shell's history; nothing was changed (if that was a real value, replace it)",
        hint='pipe it in: printf %s "$VALUE" | coatcheck secret set NAME --domain ...',
    )


def refuse_pair(name: str) -> None:
    """Raise `InputError` where *name*, which is to be a secret's, looks like ``NAME=VALUE``."""
    if "=" in name:
        refuse_value()


def refuse_shown(
    value: bytes, *, name: str, description: str | None, domains: Sequence[str]
) -> None:
    """Raise `InputError` where what everybody may read holds the value, as the API does. A value
    that is short stands in many a text by chance."""
    from coatcheck.core.shown import holding

    if len(value) < SAFE_LENGTH:
        return
    places = ("the name", "--description", *("--domain" for _ in domains))
    found = holding(value, name, description or "", *domains)
    for place, shown in zip(places, found, strict=True):
        if shown:
            raise InputError(
                f"{place}: it holds the value; nothing was changed (it stood on the command line,"
                " which every user of the machine sees: if it is a real value, replace it)",
                hint="this is shown in lists: leave it out",
            )


def unquoted(words: str) -> str:
    """*words* about what was given, without what was given: that is what stands in quotes."""
    return _QUOTED.sub(lambda found: found[0] if found[0] in _SAYS else "this", words)
