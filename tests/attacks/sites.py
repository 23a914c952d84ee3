"""Upstreams that say what a test tells them, byte for byte.

A path ``/script/NAME`` is answered with the script of that name. In it, ``%TOKEN%`` stands for the
credential that came in, which is how an allowed upstream reflects a secret.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from tests.e2e.upstream import Exchange, Mode

type Step = bytes | float  # what to send, or how long to wait in seconds


@dataclass
class Script:
    steps: Sequence[Step]
    keep: bool = False  # the connection stays open behind it


_SCRIPTS: dict[str, Script] = {}
_NAMES = itertools.count(1)


class Scripts:
    """Makes scripts; a test gets the path that plays one."""

    def add(self, *steps: Step, keep: bool = False) -> str:
        name = f"s{next(_NAMES)}"
        _SCRIPTS[name] = Script(steps, keep)
        return f"/script/{name}"


async def _play(at: Exchange) -> bool:
    script = _SCRIPTS[at.argument()]
    for step in script.steps:
        if isinstance(step, float):
            await asyncio.sleep(step)
        else:
            await at.send(step.replace(b"%TOKEN%", at.token))
    if not script.keep:
        at.writer.close()
    return script.keep


SCRIPTED: dict[str, Mode] = {"script": _play}
