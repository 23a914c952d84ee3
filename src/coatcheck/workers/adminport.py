"""The port of the admin side, as the supervisor has it.

Where somebody has asked for the address, one that cannot be had is an error at the start. The
default address is another matter: a second proxy on the machine, or whatever else has taken the
port, must not keep this proxy from its work. It runs without an admin side then, and tries again.
"""

from __future__ import annotations

from coatcheck import listening
from coatcheck.listening import Listener, ListenError
from coatcheck.observe import logs
from coatcheck.settings import Settings

AGAIN_S = 30.0


async def bind(settings: Settings) -> list[Listener]:
    """Sockets that listen at the admin address; none where the default one is taken.

    They listen from here on, not only when the admin process is there: until then the kernel lets
    another program bind the same port, and which of the two gets it would be told later.

    Raises:
        ListenError: an address that was asked for cannot be had.
    """
    try:
        return await _bound(settings)
    except ListenError as error:
        if settings.admin_given or settings.role == "admin":
            raise
        logs.event("admin.unavailable", error=error.problem, next_in_s=AGAIN_S)
        return []


async def bind_later(settings: Settings) -> list[Listener]:
    """The same, once more; none where it is taken still. Says nothing again and again."""
    try:
        return await _bound(settings)
    except ListenError:
        return []


async def _bound(settings: Settings) -> list[Listener]:
    host, port = settings.admin
    listeners = await listening.bind(host, port, "--admin")
    try:
        for listener in listeners:
            listener.listen()
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise listening.refused(host, port, error, "--admin") from None
    return listeners
