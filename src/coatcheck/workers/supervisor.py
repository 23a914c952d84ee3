"""The process over the workers: binds the ports, keeps so many of them running, speaks for all.

The admin process is kept beside them, in the same way.

It reads no key and opens no store, and imports nothing that could: what it holds is the bound
sockets and a link to each worker. Whoever gets hold of it can stop the proxy, and read no value.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

from coatcheck import listening
from coatcheck.core.ports import CoatcheckError
from coatcheck.listening import Address, Listener
from coatcheck.observe import logs
from coatcheck.observe.state import ADMIN_FILE_NAME, FILE_NAME, StateFile
from coatcheck.observe.totals import SUPERVISOR, Report, Totals
from coatcheck.settings import Settings
from coatcheck.workers import adminport, process
from coatcheck.workers.reporter import Reporter
from coatcheck.workers.shares import Shares
from coatcheck.workers.slot import AdminSlot, Slot, WorkerFailed
from coatcheck.workers.stop import Stop

DRAINED_S = 15.0  # more than a worker gives the requests under way
ENDED_S = 3.0  # from the order to end at once to SIGKILL
WAITED_S = 5.0  # how long connections wait for the next worker while there is none


async def run(settings: Settings) -> None:
    """Run the workers, the admin process, or both, as `settings.role` says, until SIGTERM or
    SIGINT; a second one ends them at once.

    Raises:
        CoatcheckError: it cannot start, or one of the workers cannot; nothing was listening.
    """
    process.close_to_others()
    logs.configure(field_chars=settings.limits.log_field_chars)
    proxies, manages = settings.role != "admin", settings.role != "proxy"
    listeners = await listening.bind(*settings.listen) if proxies else []
    try:
        admin = await adminport.bind(settings) if manages else []
    except CoatcheckError:
        for listener in listeners:
            listener.close()
        raise
    await Supervisor(settings, listeners, admin).run()


class Supervisor:
    """Args:
    listeners: For clients; none where no proxy is wanted.
    admin: For the admin side; none where it is not wanted, or its port is taken.
    """

    def __init__(
        self, settings: Settings, listeners: list[Listener], admin: Sequence[Listener] = ()
    ) -> None:
        self._settings = settings
        self._listeners = listeners
        self._addresses = listening.addresses(listeners)
        self._admin_listeners = list(admin)
        self._admin: AdminSlot | None = None
        alone = settings.role == "admin"
        name = ADMIN_FILE_NAME if alone else FILE_NAME
        self._file = StateFile(settings.home / "run", settings.policy, time.time(), name)
        self._totals = Totals(settings.home / "run")
        self._shown = False  # once all are ready
        self._stop = Stop()
        self._turning_away: asyncio.TimerHandle | None = None
        shares = None if alone else Shares.create(settings.workers)
        self._slots = [
            Slot(
                number,
                settings,
                listeners,
                self._addresses,
                self._show,
                self._totals,
                listening.addresses(self._admin_listeners),
                shares,
            )
            for number in range(1, settings.workers + 1)
            if not alone
        ]
        if self._admin_listeners:
            self._admin = self._admin_slot()

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
        await asyncio.gather(*(slot.start() for slot in self._all()))
        for listener in self._listeners:
            try:
                listener.listen()
            except OSError as error:
                raise listening.refused(*self._settings.listen, error) from None
        await asyncio.gather(*(slot.go() for slot in self._all()))
        self._file.listen = self._addresses
        self._shown = True
        self._show()
        process.settle()
        logs.event(
            "serve.ready",
            listen=_words(self._addresses),
            admin=_words(self._file.admin),
            workers=len(self._slots),
        )

    def _all(self) -> list[Slot]:
        return [*self._slots, *([self._admin] if self._admin is not None else [])]

    async def _keep(self) -> None:
        keeping = [asyncio.create_task(slot.keep()) for slot in self._all()]
        later = asyncio.create_task(self._start_admin_later())
        reporter = Reporter(self._write_metrics)
        reporting = asyncio.create_task(reporter.run())
        await self._stop.wanted.wait()
        logs.event("serve.stopping")
        later.cancel()
        self._close()
        for slot in self._all():
            slot.stop()
        await self._gone_within(DRAINED_S)
        await asyncio.gather(*keeping)
        reporting.cancel()
        await asyncio.wait({later})

    def _write_metrics(self, ours: Report) -> None:
        self._totals.take(SUPERVISOR, ours)
        self._totals.write([slot.state for slot in self._slots])

    # --- the admin process ------------------------------------------------------------------

    def _admin_slot(self) -> AdminSlot:
        addresses = self._file.admin = listening.addresses(self._admin_listeners)
        return AdminSlot(
            0, self._settings, self._admin_listeners, addresses, self._show, self._totals
        )

    async def _start_admin_later(self) -> None:
        """Where its port was taken at the start: begin as soon as that is free."""
        while self._admin is None and self._settings.role != "proxy":
            await asyncio.sleep(adminport.AGAIN_S)
            self._admin_listeners = await adminport.bind_later(self._settings)
            if self._admin_listeners:
                self._admin = self._admin_slot()
                with suppress(WorkerFailed):  # it is started again then, as any that ends
                    await self._admin.start()
                    await self._admin.go()
                await self._admin.keep()

    async def _gone_within(self, seconds: float) -> None:
        """Wait for the workers to end; at a second signal or after *seconds*, see to it."""
        draining = asyncio.create_task(self._gone())
        at_once = asyncio.create_task(self._stop.at_once.wait())
        await asyncio.wait(
            {draining, at_once}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        at_once.cancel()
        if not draining.done():
            for slot in self._all():
                slot.stop_at_once()
            await asyncio.wait({draining}, timeout=ENDED_S)
        for slot in self._all():
            slot.kill()
        await draining

    async def _end(self) -> None:
        """Leave no process behind, whatever happened."""
        self._close()
        for slot in self._all():
            slot.kill()
        await self._gone()

    async def _gone(self) -> None:
        await asyncio.gather(*(slot.gone() for slot in self._all()))

    def _close(self) -> None:
        self._turn_away_no_more()
        for listener in (*self._listeners, *self._admin_listeners):
            listener.close()

    def _reload(self) -> None:
        for slot in self._all():
            slot.reload()

    def _show(self) -> None:
        """A worker is another than before."""
        if not self._shown or self._stop.wanted.is_set():
            return
        admin = self._admin.state if self._admin is not None else None
        self._file.show([slot.state for slot in self._slots], admin)
        if not self._slots:
            return
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


def _words(addresses: Sequence[Address]) -> str:
    return ", ".join(f"{host}:{port}" for host, port in addresses)


def _close_waiting(listener: Listener) -> None:
    with suppress(OSError):
        listener.accept()[0].close()
