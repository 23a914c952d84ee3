"""``python -m coatcheck.workers FILE``: a worker. FILE is its end of the link to the supervisor."""

from __future__ import annotations

import asyncio
import socket
import sys
import traceback
from pathlib import Path

from coatcheck.core.ports import CoatcheckError
from coatcheck.observe import logs
from coatcheck.workers import link, process
from coatcheck.workers.link import Link
from coatcheck.workers.stop import heed_no_more


def main() -> None:
    process.close_to_others()  # before anything is read
    code = asyncio.run(_work(socket.socket(fileno=int(sys.argv[1]))))
    heed_no_more()
    sys.exit(code)


async def _work(sock: socket.socket) -> int:
    """Do what the supervisor says; the exit code."""
    to_supervisor = await Link.over(sock)
    message = await to_supervisor.hear()
    if message is None:
        return 1
    task = link.unpack(message)
    if not process.end_with(task.parent):
        return 1
    logs.configure(field_chars=task.settings.limits.log_field_chars, worker=task.number)
    try:
        from coatcheck import app  # imports mitmproxy, which takes a second

        await app.work(task, to_supervisor)
    except CoatcheckError as error:
        to_supervisor.tell("failed", problem=error.problem, hint=error.hint)
        return 1
    except Exception as error:
        # A bug is told by its type and place alone: its text may hold a value.
        frames = traceback.extract_tb(error.__traceback__)
        where = " / ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames)
        logs.event("worker.crashed", error=type(error).__name__, where=where)
        return 1
    finally:
        await to_supervisor.close()
    return 0


if __name__ == "__main__":
    main()
