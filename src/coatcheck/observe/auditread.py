"""Reading audit logs: the newest lines of all of them first, and what is added from now on.

For people and for queries. Nothing is verified here; heads, and what is no JSON object, are left
out. Each log is taken to be in the order of its times, as it is but where a clock was set back.
"""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from coatcheck.observe import auditchain, auditfiles


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: as it stands in the file, and what it says."""

    text: str
    record: dict[str, Any]

    @property
    def time(self) -> str:
        """RFC 3339 in UTC with milliseconds, so that texts compare as times do."""
        return str(self.record.get("time", ""))


def newest_first(folder: Path) -> Iterator[Entry]:
    """All lines of all logs in *folder*, the newest first. Reads no more than is asked for."""
    logs: dict[str, list[Path]] = {}
    for path in filter(Path.is_file, folder.glob(auditfiles.MOVED)):
        logs.setdefault(auditfiles.log_of(path), []).append(path)
    each = [_log(files) for files in logs.values()]
    return heapq.merge(*each, key=lambda entry: entry.time, reverse=True)


def _log(paths: list[Path]) -> Iterator[Entry]:
    def first(path: Path) -> int:
        with auditfiles.open_file(path) as stream, suppress(*auditfiles.BAD_ARCHIVE):
            line = auditchain.parse(stream.readline(auditfiles.LONGEST).removesuffix(b"\n"))
            return line.sequence if line is not None else 0
        return 0

    for path in sorted(paths, key=first, reverse=True):
        with suppress(FileNotFoundError, *auditfiles.BAD_ARCHIVE):
            yield from _backwards(path)


def _backwards(path: Path) -> Iterator[Entry]:
    with auditfiles.open_file(path) as stream:
        if path.suffix == ".gz":
            texts: Iterator[bytes] = reversed(stream.readlines())
        else:
            size = os.fstat(stream.fileno()).st_size
            texts = auditfiles.lines_from_end(stream.fileno(), size)
        for text in texts:
            if (entry := _entry(text)) is not None:
                yield entry


def _entry(text: bytes) -> Entry | None:
    if not text.endswith(b"\n"):
        return None  # half a line, or one that is being written
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("event") == auditchain.HEAD:
        return None
    return Entry(text.decode("ascii", "replace").strip(), record)


class Follower:
    """What is added to the logs of a folder, through moves and new files."""

    def __init__(self, folder: Path) -> None:
        """From now on: what is there already is not told."""
        self._folder = folder
        self._open: dict[tuple[int, int], tuple[BinaryIO, bytes]] = {}
        self._look(from_end=True)

    def added(self) -> list[Entry]:
        """The whole lines that came since the last call, in the order of their times."""
        there = self._look()
        found: list[Entry] = []
        for key, (stream, rest) in list(self._open.items()):
            if os.fstat(stream.fileno()).st_size < stream.tell():
                stream.seek(0)  # emptied by who has copied it
            *lines, rest = (rest + stream.read()).split(b"\n")
            found += [e for e in (_entry(line + b"\n") for line in lines) if e is not None]
            self._open[key] = stream, rest
            if key not in there:
                stream.close()  # moved away or deleted, and read to its end
                del self._open[key]
        return sorted(found, key=lambda entry: entry.time)

    def _look(self, *, from_end: bool = False) -> set[tuple[int, int]]:
        """Open what is new; which files are there."""
        there = set()
        for path in self._folder.glob(auditfiles.MOVED):
            with suppress(OSError):
                status = path.stat()
                key = status.st_dev, status.st_ino
                there.add(key)
                if key not in self._open and path.suffix != ".gz":
                    stream = path.open("rb")
                    self._open[key] = stream, b""
                    if from_end:
                        stream.seek(0, os.SEEK_END)
        return there

    def close(self) -> None:
        for stream, _ in self._open.values():
            stream.close()
        self._open.clear()
