"""The place of one worker: starts a process in it, and another one when that has ended.

A worker that ends is replaced at once, and after a pause that grows if its successors end before
they have run for a while: a worker that cannot live must not take the cores from those that do.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from coatcheck.core.ports import CoatcheckError
from coatcheck.listening import Address, Listener
from coatcheck.observe import logs
from coatcheck.observe.state import WorkerState
from coatcheck.observe.totals import Report, Totals
from coatcheck.settings import Settings
from coatcheck.workers import link
from coatcheck.workers.link import Link, Message, Task
from coatcheck.workers.process import how_it_ended
from coatcheck.workers.shares import NO_FILE, Shares

PROGRAM = (sys.executable, "-m", "coatcheck.workers")
ADMIN_PROGRAM = (sys.executable, "-m", "coatcheck.admin")
STEADY_S = 10.0  # who ends sooner has not lived
PAUSES_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # before the next one; the last for ever
READY_S = 300.0  # a process that takes longer hangs
LOOK_S = 5.0  # a worker says something every second
SILENT_LOOKS = 6  # in a row without a word, and it hangs: it takes connections and serves none
LEAVE_S = 5.0  # from the last word of a worker to its end


class WorkerFailed(CoatcheckError):
    """A worker ended before it took connections."""


class Slot:
    """One worker, whichever process it is.

    Args:
        listeners: Sockets that are bound.
        addresses: Where they are.
        admin: Where the admin side is, which clients must not reach.
        shares: Of all workers.
        changed: Called when `state` is another than before.
        totals: Takes what the worker has counted.
    """

    _speaks = True  # by itself, once a second

    def __init__(
        self,
        number: int,
        settings: Settings,
        listeners: Sequence[Listener],
        addresses: Sequence[Address],
        changed: Callable[[], None],
        totals: Totals,
        admin: Sequence[Address] = (),
        shares: Shares | None = None,
    ) -> None:
        self.state = WorkerState(number)
        self._settings = settings
        self._listeners = listeners
        self._addresses = addresses
        self._admin = admin
        self._shares = shares or Shares(NO_FILE, 0)
        self._changed = changed
        self._totals = totals
        self._stopping = asyncio.Event()
        self._reset()

    def _reset(self) -> None:
        self._process: Process | None = None
        self._link: Link | None = None
        self._said: CoatcheckError | None = None  # why it cannot go on
        self._prepared, self._ready = asyncio.Event(), asyncio.Event()
        self._gone = asyncio.Event()
        self._hearing: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._spoke = False  # since the last look
        self._took_up = 0.0  # work
        self._miscounts = False

    # --- start ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start a process, and wait until it has all that it needs.

        Raises:
            WorkerFailed: it ended first; with what it said.
        """
        self._reset()
        try:
            await self._spawn()
        except OSError as error:
            self._said = CoatcheckError(
                f"cannot start a process: {error.strerror}", hint="look at memory and at ulimit -u"
            )
            self._over("no process")
        await self._reach(self._prepared)

    async def go(self) -> None:
        """Have it take connections.

        Raises:
            WorkerFailed: as `start`.
        """
        if self._link is not None:
            self._link.tell("go")
        await self._reach(self._ready)
        self._took_up = time.monotonic()
        self.state.ready = True
        if self._speaks:
            self._looking = asyncio.create_task(self._look())
        self._changed()
        self._say_started()

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        listeners = [listener.fileno() for listener in self._listeners]
        shares = [] if self._shares.file == NO_FILE else [self._shares.file]
        with ours, theirs:
            self._process = await asyncio.create_subprocess_exec(
                *(*self._program(), str(theirs.fileno())),
                stdin=DEVNULL,
                pass_fds=(theirs.fileno(), *listeners, *shares),
                process_group=0,  # Ctrl-C is for the supervisor, which ends workers in its order
                env=environment(os.environ, sys.path),
            )
            self._link = await Link.over(ours.dup())
        self.state.pid = self._process.pid
        task = Task(
            self.state.number,
            os.getpid(),
            listeners,
            self._addresses,
            self._settings,
            self._admin,
            (self._shares.file, self._settings.workers),
        )
        self._link.tell("task", **link.pack(task))
        self._hearing = asyncio.create_task(self._hear(self._process, self._link))
        if self._stopping.is_set():  # meanwhile
            self.kill()

    async def _reach(self, stage: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(READY_S):
                await stage.wait()
        except TimeoutError:
            self._said = CoatcheckError(f"it was not ready within {READY_S:g} s", hint="")
            self.kill()
            await self._gone.wait()
        if self._gone.is_set():
            raise self._failed()

    def _failed(self) -> WorkerFailed:
        if self._said is not None:
            return WorkerFailed(self._said.problem, hint=self._said.hint)
        return WorkerFailed(
            f"{self._called()} ended before it was ready: {self.state.last_end}",
            hint="its lines above say more; look at the machine's memory too",
        )

    async def _hear(self, process: Process, heard: Link) -> None:
        """All that a process says, and its end."""
        # Whatever else it says is not a worker of ours, and its end.
        with suppress(LookupError, TypeError, ValueError):
            while (message := await heard.hear()) is not None:
                self._take(message)
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await process.wait()
        self.kill()
        code = await process.wait()
        await heard.close()
        self._over(how_it_ended(code))
        self._changed()

    async def _look(self) -> None:
        """End a worker that hangs. Looks are counted, and no time is measured: while we ourselves
        are stopped, with a machine that sleeps, none is taken."""
        silent = 0
        while silent < SILENT_LOOKS:
            self._spoke = False
            await asyncio.sleep(LOOK_S)
            if self._gone.is_set() or self._stopping.is_set():
                return
            silent = 0 if self._spoke else silent + 1
        self._said = CoatcheckError(f"it said nothing for {silent * LOOK_S:g} s", hint="")
        self.kill()

    def _over(self, how: str) -> None:
        if self._looking is not None:
            self._looking.cancel()  # or it would look at the next process, beside that one's own
        self.state.last_end = how
        self.state.pid, self.state.ready, self.state.facts = None, False, {}
        self._totals.left(self.state.number)
        self._shares.leave(self.state.number)
        for stage in (self._gone, self._prepared, self._ready):
            stage.set()

    def _take(self, message: Message) -> None:
        self._spoke = True
        match message["what"]:
            case "prepared":
                self._prepared.set()
            case "ready":
                self._ready.set()
            case "facts":
                policy, store = message["facts"]["policy"], message["facts"]["store"]
                facts: dict[str, dict[str, Any]] = {
                    "policy": {"digest": str(policy["digest"]), "error": str(policy["error"])},
                    "store": {"revision": int(store["revision"]), "error": str(store["error"])},
                }
                if (found := message["facts"].get("sources")) is not None:
                    facts["sources"] = {"count": int(found["count"]), "error": str(found["error"])}
                self.state.facts = facts
                self._changed()
            case "metrics":
                self._count(message["report"])
            case "failed":
                self._said = CoatcheckError(message["problem"], hint=message["hint"])

    def _count(self, report: Report) -> None:
        """Take its numbers. What is wrong with those is no reason to end a worker."""
        try:
            self._totals.take(self.state.number, report)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            if not self._miscounts:
                kind = type(error).__name__
                logs.event("metrics.not_taken", worker=self.state.number, error=kind)
            self._miscounts = True

    # --- keep -------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Replace the worker whenever it ends, until `stop`."""
        short_lives = 0
        while True:
            await self._gone.wait()
            if self._stopping.is_set():
                return
            lived = time.monotonic() - self._took_up if self._took_up else 0.0
            short_lives = short_lives + 1 if lived < STEADY_S else 0
            pause = pause_s(short_lives)
            self._say_died(
                cause=self.state.last_end,
                error=str(self._said or ""),
                after_s=round(lived, 1),
                next_in_s=pause,
            )
            if await self._stops_within(pause):
                return
            self.state.restarts += 1
            with suppress(WorkerFailed):  # `_gone` is set then
                await self.start()
                await self.go()

    async def _stops_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self._stopping.is_set()

    # --- what differs between a worker and the admin process ---------------------------------

    def _program(self) -> Sequence[str]:
        return PROGRAM

    def _called(self) -> str:
        return f"worker {self.state.number}"

    def _say_started(self) -> None:
        logs.event("worker.started", worker=self.state.number, pid=self.state.pid)

    def _say_died(self, **how: object) -> None:
        logs.event("worker.died", worker=self.state.number, **how)

    # --- what the supervisor wants ----------------------------------------------------------

    def reload(self) -> None:
        """Read policy and store again, open the audit log anew."""
        if self._link is not None:
            self._link.tell("reload")

    def stop(self) -> None:
        """Take no more connections; end when requests under way have ended."""
        self._stopping.set()
        if self.state.ready and self._link is not None:
            self._link.tell("stop")
        else:
            self.kill()

    def stop_at_once(self) -> None:
        """End, whatever is under way."""
        self._stopping.set()
        if self._link is not None:
            self._link.tell("end")

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def gone(self) -> None:
        """Wait until there is no process."""
        if self._hearing is not None:
            await self._gone.wait()


class AdminSlot(Slot):
    """The place of the admin process: no worker, and kept alive as one."""

    _speaks = False

    def _program(self) -> Sequence[str]:
        return ADMIN_PROGRAM

    def _called(self) -> str:
        return "the admin process"

    def _say_started(self) -> None:
        logs.event("admin.started", pid=self.state.pid)

    def _say_died(self, **how: object) -> None:
        logs.event("admin.died", **how)


def pause_s(short_lives: int) -> float:
    """How long to wait before the next start, after so many short lives in a row."""
    return PAUSES_S[min(max(short_lives - 1, 0), len(PAUSES_S) - 1)]


def environment(ours: dict[str, str] | os._Environ[str], path: Sequence[str]) -> dict[str, str]:
    """The variables of a worker: ours, and modules from where ours come.

    Without the folder that we were started in: ``python -m`` would put it in front of the path,
    and a file there could take the place of one of the library's.
    """
    return {**ours, "PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}
