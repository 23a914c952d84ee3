"""What a worker has to do with sources: their file, their feeds, and their view over the store's.

A file that cannot be used leaves the last good one in force, as with the policy. Without a good one
nothing is known of the values to be scrubbed, so everything is refused until it is mended.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from coatcheck import sourcefile
from coatcheck.core.limits import Limits
from coatcheck.core.meter import Labels
from coatcheck.core.ports import CoatcheckError, StoreError, StoreView
from coatcheck.observe import logs
from coatcheck.sourcefile import SourcesFile
from coatcheck.store.sources.combined import CombinedView
from coatcheck.store.sources.feed import Feeds, Make
from coatcheck.store.sources.kinds import make
from coatcheck.store.sources.sourced import Sourced
from coatcheck.yamlfile import stamp

FIRST_ANSWERS_S = 2.0  # how long a start waits for sources; one that hangs must not hold it up


class Sourcing:
    """See the module. All but `close` in the thread that refreshes."""

    def __init__(self, path: Path, *, must_exist: bool, limits: Limits, make: Make = make) -> None:
        """*must_exist*: somebody has named the file."""
        self.error = ""
        self._path = path
        self._must_exist = must_exist
        self._seen: object = None
        self._good: SourcesFile | None = None
        self._sourced = Sourced(grace_s=limits.retired_grace_s, log=logs.event)
        self._feeds = Feeds(self._sourced, make)
        self._revision = -1
        self._over: tuple[StoreView, int, StoreView] | None = None
        self._refused: tuple[str, ...] = ()

    def refresh(self) -> bool:
        """Look at the file and at what has come of sources; whether something is another now."""
        now = stamp(self._path)
        changed, self._seen = now != self._seen, now
        if changed:
            self._read()
        revision = self._sourced.look()
        changed |= revision != self._revision
        self._revision = revision
        return changed

    def over(self, stored: StoreView) -> StoreView:
        """*stored*, and what comes from sources with it.

        Raises:
            StoreError: no sources file was usable so far.
        """
        if self._good is None:
            raise StoreError(f"the sources file cannot be used: {self.error}", hint="mend it")
        if not len(self._sourced):
            self._refused = ()
            return stored
        kept = self._over
        sourced = self._sourced.view()
        if kept is None or kept[0] is not stored or kept[1] != sourced.revision:
            combined = CombinedView(stored, sourced)
            self._say(combined.refused)
            self._over = kept = (stored, sourced.revision, combined)
        return kept[2]

    def facts(self) -> Mapping[str, object]:
        """For `coatcheck status`."""
        refused = [f"{name}: {_TAKEN}" for name in self._refused]
        problems = [*([self.error] if self.error else []), *refused, *self._sourced.problems()]
        return {"count": len(self._sourced), "error": "\n".join(problems[:_SHOWN])}

    def counters(self) -> dict[str, dict[Labels, float]]:
        """What was counted, for the metrics."""
        return {"source_reads": dict(self._sourced.reads())}

    def gauges(self) -> dict[str, dict[Labels, float]]:
        """What is in force as numbers, for the metrics."""
        answered = self._sourced.answered()
        return {
            "source_secrets": dict(self._sourced.states()),
            "source_answered": {(kind,): at for kind, at in answered.items()},
        }

    def close(self) -> None:
        self._feeds.close()

    def _read(self) -> None:
        first = self._good is None
        try:
            file = self._file()
        except CoatcheckError as error:
            self._failed(str(error))
            return
        except Exception as error:  # a bug of the reader must not end the watch
            self._failed(f"{self._path} cannot be read ({type(error).__name__})")
            return
        self.error = ""
        if self._good is not None and file.digest == self._good.digest:
            return
        self._good = file
        self._feeds.follow(self._sourced.declare(file))
        if file.digest:
            logs.event("sources.loaded", path=str(self._path), secrets=len(file.secrets))
        if first and file.secrets:
            self._sourced.wait_tried(FIRST_ANSWERS_S)

    def _file(self) -> SourcesFile:
        missing = not self._must_exist and not self._path.exists()
        # One that was there and is gone is told: it may be on its way to another name.
        if missing and (self._good is None or not self._good.digest):
            return SourcesFile()
        return sourcefile.read(self._path)

    def _failed(self, why: str) -> None:
        if why != self.error:
            logs.event("sources.refused", error=why)
        self.error = why

    def _say(self, refused: tuple[str, ...]) -> None:
        for name in refused:
            if name not in self._refused:
                logs.event("source.name_taken", name=name, error=_TAKEN)
        self._refused = refused


_TAKEN = "a stored secret has this name; delete that one, or rename this one in the sources file"
_SHOWN = 20  # lines
