"""Whether an audit log is as it was written; if not, which file and which line.

A line that was changed breaks its own chain, and no more than that is told of it: the walk goes on
from what the line says. Where somebody has made the chain anew behind a change, the next head does
not fit, and the change lies between it and the head before.

Lines behind the last head are held by the chain alone. Who cuts the log at a line leaves a log that
is whole in itself: that shows where the newest head is kept apart, or in the numbers of what comes
later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from coatcheck.observe import auditchain, auditfiles
from coatcheck.observe.auditchain import HEAD, RETIRED, Line, Link, Verifier
from coatcheck.observe.audithead import CLOSED

_HASH = re.compile(r"[0-9a-f]{64}")


class Key(Verifier, Protocol):
    """The public half of the key that signs."""

    id: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was written. *line*: from 1 on; 0 for the file as a whole."""

    file: str
    line: int
    what: str


@dataclass(slots=True)
class Found:
    """What was seen of one log.

    Attributes:
        first, last: Numbers of lines; 0 where there is none.
        signed: The last line that a head covers; 0 where none does.
        retired: Up to this line files were deleted, as a signed line says.
        begins_later: Lines before *first* are in no file that was looked at.
    """

    log: str
    files: list[str] = field(default_factory=list)
    first: int = 0
    last: int = 0
    signed: int = 0
    retired: int = 0
    begins_later: bool = False
    findings: list[Finding] = field(default_factory=list)


def verify_folder(folder: Path, heads: Path, key: Key) -> list[Found]:
    """All logs in *folder*, which is to hold them whole, up to the *heads* that are kept apart.

    Raises:
        OSError: something cannot be read.
    """
    apart = {path.name.removesuffix(".head"): path for path in sorted(heads.glob("*.head"))}
    # The heads first: what a proxy that runs adds meanwhile is behind them.
    texts = {log: path.read_bytes() for log, path in apart.items()}
    kept = {log: text.partition(b"\n")[0] for log, text in texts.items()}
    closed = {log for log, text in texts.items() if text.partition(b"\n")[2].strip() == CLOSED}
    paths = sorted(folder.glob(auditfiles.MOVED))
    logs: dict[str, list[Path]] = {log: [] for log in kept}
    for path in paths:
        logs.setdefault(auditfiles.log_of(path), []).append(path)
    found = []
    for log in sorted(logs, key=auditfiles.order):
        walk = _Walk(log, key, apart=kept.get(log))
        walk.files(logs[log])
        walk.end_of_folder(auditfiles.head_file(heads, log))
        if log in closed and apart[log].read_bytes() == texts[log]:  # nobody has begun to write it
            walk.nothing_behind_the_head()
        found.append(walk.found)
    return found


def verify_files(paths: Sequence[Path], key: Key) -> list[Found]:
    """The logs that these files hold parts of. What is in no file is not missed, but for gaps.

    Raises:
        OSError: something cannot be read.
    """
    logs: dict[str, list[Path]] = {}
    for path in dict.fromkeys(paths):
        first = _first(path)
        named = first.record.get("log") if first is not None else None
        log = named if isinstance(named, str) else auditfiles.log_of(path)
        logs.setdefault(log, []).append(path)
    found = []
    for log, files in logs.items():
        walk = _Walk(log, key)
        walk.files(files)
        walk.end_of_files()
        found.append(walk.found)
    return found


def _first(path: Path) -> Line | None:
    """The first line of a file that is one."""
    with auditfiles.open_file(path) as stream, suppress(*auditfiles.BAD_ARCHIVE):
        for text in stream:
            if (line := auditchain.parse(text.removesuffix(b"\n"))) is not None:
                return line
    return None


class _Walk:
    """Goes through the files of one log, line by line."""

    def __init__(self, log: str, key: Key, apart: bytes | None = None) -> None:
        self.found = Found(log)
        self._key = key
        self._apart_text = apart
        self._apart = auditchain.signed_head(apart, log, key) if apart is not None else None
        self._former: Link | None = None
        self._begins: tuple[Path, bytes | None] | None = None  # the first line; what it is bound to
        self._retired: list[tuple[int, str, int]] = []
        self._other_key = False

    def files(self, paths: Iterable[Path]) -> None:
        firsts = [(_first(path), path) for path in paths]
        ordered = sorted(firsts, key=lambda pair: pair[0].sequence if pair[0] else 0)
        for first, path in ordered:
            self.found.files.append(path.name)
            try:
                self._file(path, first)
            except auditfiles.BAD_ARCHIVE:
                self._wrong(path, 0, "the archive is damaged")

    def _file(self, path: Path, first: Line | None) -> None:
        rest, rest_from, begun = b"", 0, False
        with auditfiles.open_file(path) as stream:
            for number, text in enumerate(stream, 1):
                whole = text.endswith(b"\n")
                line = auditchain.parse(text.removesuffix(b"\n")) if whole else None
                if line is None:
                    rest, rest_from = rest + text, rest_from or number
                    continue
                if not begun and line.record.get("log", self.found.log) != self.found.log:
                    self._wrong(path, number, "it belongs to another log")
                self._line(path, number, line, rest, rest_from, begins=not begun)
                rest, rest_from, begun = b"", 0, True
        if rest and first is None:
            self._wrong(path, rest_from, "the file holds no line of an audit log with a chain")
        elif rest:
            self._wrong(
                path,
                rest_from,
                "no whole line: it was changed, or its writing was cut off (then the next line that"
                " the proxy writes puts that on record)",
            )

    def _line(
        self, path: Path, number: int, line: Line, rest: bytes, rest_from: int, *, begins: bool
    ) -> None:
        if line.record.get("torn", 0) != len(rest):
            self._wrong(path, rest_from or number, "there is what no line of the log tells of")
        elif (gap := self._gap(line)) is not None:
            self._wrong(path, number, gap)
        else:
            base = self._base(path, number, line, begins=begins)
            if base is not None and sha256(base + rest + line.body).digest() != line.chain:
                self._wrong(path, number, f"line {line.sequence} was changed")
        if "foreign" in line.record:
            what = f"{line.record['foreign']} lines before it were added while no process wrote"
            self._wrong(path, number, f"{what} the log")
        self._special(path, number, line)
        if self._begins is None:
            self._begins = path, _former(line)
            self.found.first = line.sequence
        self._former = line.link
        self.found.last = line.sequence

    def _gap(self, line: Line) -> str | None:
        """What is wrong with the number of a line."""
        if self._former is None or line.sequence == self._former.sequence + 1:
            return None
        last = self._former.sequence
        if line.sequence > last + 1:
            return f"{_lines(last + 1, line.sequence - 1)} missing before line {line.sequence}"
        return f"line {line.sequence} stands behind line {last}: moved, or here twice"

    def _base(self, path: Path, number: int, line: Line, *, begins: bool) -> bytes | None:
        """What a line is bound to."""
        former = _former(line)
        if self._former is not None:
            if begins and former is not None and former != self._former.chain:
                self._wrong(path, number, "the file does not follow the one before")
            return self._former.chain
        if line.sequence == 1:
            return auditchain.start(self.found.log)
        if former is None:
            self._wrong(path, number, f"the beginning of the file is missing: {line.sequence - 1}")
        return former

    def _special(self, path: Path, number: int, line: Line) -> None:
        event, record = line.record.get("event"), line.record
        if event == HEAD or line.signature:
            self._head(path, number, line)
        if event == RETIRED and isinstance(record.get("last"), int):
            self._retired.append((record["last"], str(record.get("end")), line.sequence))
        apart = self._apart
        if apart and line.sequence == apart.sequence and line.chain != apart.chain:
            what = "this is not the line that was signed, as the head that is kept apart says"
            self._wrong(path, number, what)

    def _head(self, path: Path, number: int, line: Line) -> None:
        if line.record.get("event") != HEAD or not line.signature:
            self._wrong(path, number, "a head without a signature, or a signature without a head")
            return
        key = line.record.get("key")
        if key != self._key.id:
            if not self._other_key:
                self._wrong(path, number, f"signed with another key ({key}, not {self._key.id})")
            self._other_key = True
        elif self._verifies(line):
            self.found.signed = line.sequence
        else:
            since = self.found.signed + 1
            what = f"the signature does not fit: {_lines(since, line.sequence, 'were', 'was')}"
            self._wrong(path, number, f"{what} changed by somebody without the key")

    def _verifies(self, line: Line) -> bool:
        return self._key.verify(auditchain.message(line.chain), line.signature)

    # --- the ends -----------------------------------------------------------------------------

    def end_of_folder(self, head: Path) -> None:
        """The log is to be here from its beginning to the head that lies apart."""
        found = self.found
        if self._begins is not None and found.first > 1:
            path, former = self._begins
            last = found.first - 1
            if (last, former.hex() if former else "") in {
                (to, end) for to, end, number in self._retired if number <= found.signed
            }:
                found.retired = last
            else:
                what = f"{_lines(1, last)} missing, and no signed line says that they were deleted"
                self._wrong(path, 1, what)
        if self._apart_text is not None and self._apart is None:
            self._wrong(head, 1, "this head was not signed with the key")
        elif self._apart is None and found.last:
            self._wrong(head, 0, "no head is kept: what was cut off at the log's end does not show")
        elif self._apart is not None and found.last < self._apart.sequence:
            file = Path(found.files[-1]) if found.files else Path(f"{found.log}.jsonl")
            missing = _lines(found.last + 1, self._apart.sequence)
            self._wrong(file, 0, f"{missing} missing at the end of the log")

    def nothing_behind_the_head(self) -> None:
        """The log was closed in order: what stands behind the head was put there by somebody."""
        found = self.found
        if self._apart is not None and found.last > self._apart.sequence:
            lines = _lines(self._apart.sequence + 1, found.last, "were", "was")
            what = f"{lines} added while no process wrote the log"
            self._wrong(Path(found.files[-1]), 0, what)

    def end_of_files(self) -> None:
        """Parts of a log, of which the last line need not be the newest."""
        found = self.found
        found.begins_later = found.first > 1
        if found.last and not found.signed and not found.findings:
            self._wrong(Path(found.files[-1]), 0, "there is no head: nothing of it is signed")

    def _wrong(self, path: Path, number: int, what: str) -> None:
        self.found.findings.append(Finding(path.name, number, what))


def _former(line: Line) -> bytes | None:
    former: Any = line.record.get("former")
    if isinstance(former, str) and _HASH.fullmatch(former):
        return bytes.fromhex(former)
    return None


def _lines(first: int, last: int, many: str = "are", one: str = "is") -> str:
    return f"line {first} {one}" if first == last else f"lines {first} to {last} {many}"
