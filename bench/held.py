"""Processes that get a share of a core each, and no more: so that two workers, the client and the
upstream have room on a machine with two cores, and what is seen is how workers add up.

The kernel does the holding (cgroups, version 1 or 2): a process that has used its part of a tenth
of a second waits for the next. It takes root, and a tree of groups that can be written to.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable
from pathlib import Path

from bench.common import NotUp

ROOT = Path("/sys/fs/cgroup")
PERIOD_US = 100_000
_numbers = itertools.count(1)


class Held:
    """Processes in groups of their own, until `release`."""

    def __init__(self, pids: Iterable[int], share: float) -> None:
        """*share*: of a core, for each.

        Raises:
            NotUp: groups cannot be made here.
        """
        self._groups: list[Path] = []
        try:
            for pid in pids:
                self._hold(pid, share)
        except OSError as error:
            self.release()
            raise NotUp(f"cgroups cannot be made here: {error.strerror}") from error

    def _hold(self, pid: int, share: float) -> None:
        first = ROOT / "cpu" / "cpu.shares"  # version 1
        group = (first.parent if first.exists() else ROOT) / f"bench-{os.getpid()}-{next(_numbers)}"
        group.mkdir()
        self._groups.append(group)
        quota = int(PERIOD_US * share)
        if first.exists():
            (group / "cpu.cfs_period_us").write_text(f"{PERIOD_US}")
            (group / "cpu.cfs_quota_us").write_text(f"{quota}")
        else:
            (group / "cpu.max").write_text(f"{quota} {PERIOD_US}")
        (group / "cgroup.procs").write_text(f"{pid}")

    def release(self) -> None:
        """Let those that are left run as before."""
        for group in self._groups:
            with contextlib.suppress(OSError):
                parent = group.parent / "cgroup.procs"
                for pid in (group / "cgroup.procs").read_text().split():
                    parent.write_text(pid)
            with contextlib.suppress(OSError):
                group.rmdir()
        self._groups.clear()
