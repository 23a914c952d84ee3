"""The options of a whole mitmdump. Its imports warn of things that are not ours to mend."""

from __future__ import annotations

import asyncio
import functools
import warnings

from mitmproxy import options

with warnings.catch_warnings(action="ignore"):
    from mitmproxy.test import taddons
    from mitmproxy.tools.dump import DumpMaster

__all__ = ["all_options", "taddons"]


def all_options() -> options.Options:
    """Those of mitmdump with all its addons, as they are by default; nobody listens to their
    changes."""
    opts = _made_once()
    opts.reset()
    return opts


@functools.cache
def _made_once() -> options.Options:
    """Setting all the addons up takes most of a second."""

    async def made() -> options.Options:
        opts = options.Options()
        DumpMaster(opts, with_termlog=False, with_dumper=True)
        return opts

    opts = asyncio.run(made())
    # Addons look into their options: a file that does not exist is an error of theirs.
    opts.changed.receivers.clear()
    return opts
