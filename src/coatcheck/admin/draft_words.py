"""What is told of a draft of a policy: where it is wrong and what is expected there, in our words.

A mistake in a file quotes the word that is wrong, for whoever has the file. A draft came in a
request, and of a request nothing is repeated: it may hold a value that was pasted into the wrong
place. Its sender has it at hand, and line and column say where to look.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache

from coatcheck import policyfile
from coatcheck.core.policy import Policy

LEFT_OUT = "…"
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|\([^()]*\)")


def of_mistake(words: str, draft: str) -> str:
    """*words* of a mistake, without what they quote of *draft*. Keys and words that the policy
    language knows stay: they are ours."""
    draft = draft.casefold()

    def judged(found: re.Match[str]) -> str:
        inside = found[0][1:-1]
        ours = inside in _known() or not any(one in draft for one in _spellings(inside))
        return found[0] if ours else f"{found[0][0]}{LEFT_OUT}{found[0][-1]}"

    return _QUOTED.sub(judged, words)


def of_warning(words: str, policy: Policy) -> str:
    """*words* of a warning, without names of *policy* that are not ours."""
    names = sorted({*_names(policy)} - _known(), key=len, reverse=True)
    for name in names:
        words = words.replace(name, LEFT_OUT)
    return words


def _spellings(inside: str) -> Iterator[str]:
    """*inside* as the draft may have it: an error has the escapes of `ascii`, and of a list of
    words each may be one."""
    yield inside.casefold()
    try:
        yield inside.encode("ascii").decode("unicode_escape").casefold()
    except ValueError:
        return  # no such escapes


def _names(policy: Policy) -> Iterator[str]:
    for client in policy.clients:
        yield f"'{client.name}'"
        yield from map(str, client.networks)
    for grant in policy.grants:
        yield from map(str, grant.hosts or ())
    yield from map(str, (*policy.egress.passthrough, *policy.egress.networks))


@cache
def _known() -> frozenset[str]:
    """Keys and words of the policy language."""
    found: set[str] = set()

    def walk(node: object) -> None:
        if isinstance(node, dict):
            found.update(map(str, node.get("properties", ())))
            for entry in node.values():
                walk(entry)
        elif isinstance(node, list):
            found.update(entry for entry in node if isinstance(entry, str))
            for entry in node:
                walk(entry)

    walk(json.loads(json.dumps(policyfile.schema())))
    return frozenset(found)
