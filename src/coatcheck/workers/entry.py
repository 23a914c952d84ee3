"""How a process of the supervisor begins and ends, whatever it does in between.

It closes itself to others before anything is read, hears its task over the link, and dies with its
parent. What it cannot begin for is told over the link; a bug is told by its type and place alone.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

from coatcheck.core.ports import CoatcheckError
from coatcheck.observe import logs
from coatcheck.workers import link, process
from coatcheck.workers.link import Link, Task
from coatcheck.workers.stop import Stop, heed_no_more

type Work = Callable[[Task, Link], Awaitable[None]]


def main(load: Callable[[], Work], crashed: Callable[[str, str], None], *, numbered: bool) -> None:
    """Be the process whose end of the link is the file of the first argument; never returns.

    Args:
        load: Imports what is to be done: by then the process is closed to others.
        crashed: Told the type and the place of an error that nobody expected.
        numbered: Whether log lines say which worker it is.
    """
    process.close_to_others()  # before anything is read
    process.hurry()
    code = asyncio.run(_work(socket.socket(fileno=int(sys.argv[1])), load, crashed, numbered))
    heed_no_more()
    process.settle()
    sys.exit(code)


async def obey(
    supervisor: Link, stop: Stop, go: Callable[[], Awaitable[None]], reload: Callable[[], None]
) -> None:
    """Do what the supervisor says. Without one there is nothing to do any more.

    Args:
        go: Begins to take connections.
    """
    try:
        while (message := await supervisor.hear()) is not None:
            match message["what"]:
                case "go":
                    await go()
                    supervisor.tell("ready")
                case "reload":
                    reload()
                case "stop":
                    stop.wanted.set()
                case "end":
                    return
    finally:
        stop.wanted.set()
        stop.at_once.set()


async def _work(
    sock: socket.socket,
    load: Callable[[], Work],
    crashed: Callable[[str, str], None],
    numbered: bool,
) -> int:
    """Do what the supervisor says; the exit code."""
    to_supervisor = await Link.over(sock)
    message = await to_supervisor.hear()
    if message is None:
        return 1
    task = link.unpack(message)
    if not process.end_with(task.parent):
        return 1
    number = task.number if numbered else None
    logs.configure(field_chars=task.settings.limits.log_field_chars, worker=number)
    try:
        await load()(task, to_supervisor)
    except CoatcheckError as error:
        to_supervisor.tell("failed", problem=error.problem, hint=error.hint)
        return 1
    except Exception as error:
        # A bug is told by its type and place alone: its text may hold a value.
        frames = traceback.extract_tb(error.__traceback__)
        where = " / ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames)
        crashed(type(error).__name__, where)
        return 1
    finally:
        await to_supervisor.close()
    return 0
