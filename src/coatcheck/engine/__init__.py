"""The only folder that knows mitmproxy: listeners, connections, TLS, and the HTTP/1.1 lane.

Nothing here can be imported beside a mitmproxy that it was not written for. Looking later would be
too late: a name that has moved is an ImportError, which says nothing to who has to mend it, and
which a mitmproxy that loads us as a script may take for a reason to go on without us.
"""

from __future__ import annotations

import re

from mitmproxy import version

from coatcheck.core.ports import CoatcheckError

MITMPROXY_LEAST, MITMPROXY_BELOW = (12, 2, 3), (13,)  # as in pyproject.toml; a test compares


class UnsafeError(CoatcheckError):
    """Something that would break a promise is switched on."""


def check_version(found: str) -> None:
    """Look whether this is a mitmproxy that the engine was written for.

    Raises:
        UnsafeError: it is older, newer, or does not say.
    """
    numbers = re.match(r"[0-9]+(?:\.[0-9]+)*", found)
    parts = tuple(map(int, numbers[0].split("."))) if numbers else ()
    if not MITMPROXY_LEAST <= parts < MITMPROXY_BELOW:
        least, below = (".".join(map(str, v)) for v in (MITMPROXY_LEAST, MITMPROXY_BELOW))
        raise UnsafeError(
            f"mitmproxy {found} is not one that coatcheck was written for",
            hint=f"install one from {least} on and below {below}: pip install mitmproxy=={least}",
        )


check_version(version.VERSION)
