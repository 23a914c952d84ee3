"""The process over the workers: binds the port, keeps so many of them running, speaks for all.

It reads no key and opens no store, and imports nothing that could: what it holds is the bound
sockets and a link to each worker. Whoever gets hold of it can stop the proxy, and read no value.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from coatcheck import listening
from coatcheck.listening import Listener
from coatcheck.observe import logs
from coatcheck.observe.state import StateFile
from coatcheck.observe.totals import SUPERVISOR, Report, Totals
from coatcheck.settings import Settings
from coatcheck.workers import process
from coatcheck.workers.reporter import Reporter
from coatcheck.workers.slot import Slot
from coatcheck.workers.stop import Stop

DRAINED_S = 15.0  # more than a worker gives the requests under way
ENDED_S = 3.0  # from the order to end at once to SIGKILL
WAITED_S = 5.0  # how long connections wait for the next worker while there is none


async def run(settings: Settings) -> None:
    """Run `settings.workers` workers until SIGTERM or SIGINT; a second one ends them at once.

    Raises:
        CoatcheckError: it cannot start, or one of the workers cannot; nothing was listening.
    """
    process.close_to_others()
    logs.configure(field_chars=settings.limits.log_field_chars)
    await Supervisor(settings, await listening.bind(*settings.listen)).run()


class Supervisor:
    def __init__(self, settings: Settings, listeners: list[Listener]) -> None:
        self._settings = settings
        self._listeners = listeners
        self._addresses = listening.addresses(listeners)
        self._file = StateFile(settings.home / "run", settings.policy, time.time())
        self._totals = Totals(settings.home / "run")
        self._stop = Stop()
        self._turning_away: asyncio.TimerHandle | None = None
        self._slots = [
            Slot(number, settings, listeners, self._addresses, self._show, self._totals)
            for number in range(1, settings.workers + 1)
        ]

    async def run(self) -> None:
        self._stop.on_signals(self._reload)
        try:
            if await self._started_before_a_stop():
                await self._keep()
        finally:
            await self._end()
            self._file.remove()
            self._totals.remove()
        logs.event("serve.stopped")

    async def _started_before_a_stop(self) -> bool:
        starting = asyncio.create_task(self._start())
        stopped = asyncio.create_task(self._stop.wanted.wait())
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not starting.done():
            starting.cancel()
            return False
        starting.result()
        return True

    async def _start(self) -> None:
        """All are prepared before anybody can connect, and all take connections when it is said."""
        await asyncio.gather(*(slot.start() for slot in self._slots))
        for listener in self._listeners:
            try:
                listener.listen()
            except OSError as error:
                raise listening.refused(*self._settings.listen, error) from None
        await asyncio.gather(*(slot.go() for slot in self._slots))
        self._file.listen = self._addresses
        self._show()
        shown = ", ".join(f"{host}:{port}" for host, port in self._addresses)
        logs.event("serve.ready", listen=shown, workers=len(self._slots))

    async def _keep(self) -> None:
        keeping = [asyncio.create_task(slot.keep()) for slot in self._slots]
        reporter = Reporter(self._write_metrics)
        reporting = asyncio.create_task(reporter.run())
        await self._stop.wanted.wait()
        logs.event("serve.stopping")
        self._close()
        for slot in self._slots:
            slot.stop()
        await self._gone_within(DRAINED_S)
        await asyncio.gather(*keeping)
        reporting.cancel()

    def _write_metrics(self, ours: Report) -> None:
        self._totals.take(SUPERVISOR, ours)
        self._totals.write([slot.state for slot in self._slots])

    async def _gone_within(self, seconds: float) -> None:
        """Wait for the workers to end; at a second signal or after *seconds*, see to it."""
        draining = asyncio.create_task(self._gone())
        at_once = asyncio.create_task(self._stop.at_once.wait())
        await asyncio.wait(
            {draining, at_once}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        at_once.cancel()
        if not draining.done():
            for slot in self._slots:
                slot.stop_at_once()
            await asyncio.wait({draining}, timeout=ENDED_S)
        for slot in self._slots:
            slot.kill()
        await draining

    async def _end(self) -> None:
        """Leave no process behind, whatever happened."""
        self._close()
        for slot in self._slots:
            slot.kill()
        await self._gone()

    async def _gone(self) -> None:
        await asyncio.gather(*(slot.gone() for slot in self._slots))

    def _close(self) -> None:
        self._turn_away_no_more()
        for listener in self._listeners:
            listener.close()

    def _reload(self) -> None:
        for slot in self._slots:
            slot.reload()

    def _show(self) -> None:
        """A worker is another than before."""
        if not self._file.listen or self._stop.wanted.is_set():
            return
        self._file.show([slot.state for slot in self._slots])
        if any(slot.state.ready for slot in self._slots):
            self._turn_away_no_more()
        elif self._turning_away is None:
            loop = asyncio.get_running_loop()
            self._turning_away = loop.call_later(WAITED_S, self._turn_away)

    # --- no worker is left ------------------------------------------------------------------

    def _turn_away(self) -> None:
        """Close the connections that nobody will take soon: else their clients would wait."""
        logs.event("serve.no_worker")
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            listener.setblocking(False)
            loop.add_reader(listener, _close_waiting, listener)

    def _turn_away_no_more(self) -> None:
        if self._turning_away is None:
            return
        self._turning_away.cancel()
        self._turning_away = None
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)


def _close_waiting(listener: Listener) -> None:
    with suppress(OSError):
        listener.accept()[0].close()
