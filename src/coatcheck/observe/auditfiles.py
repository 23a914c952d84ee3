"""Which files an audit log consists of, and how they are read, from either end.

The log *audit-2* grows in ``audit-2.jsonl``. A file that is full is named after the lines in it,
``audit-2.1-52311.jsonl``; one that somebody else has moved is called what they like, as long as it
begins with the log's name: ``audit-2.jsonl.1``, ``audit-2.jsonl-20261126.gz``.
"""

from __future__ import annotations

import errno
import gzip
import os
import re
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

from coatcheck.observe import auditchain
from coatcheck.observe.auditchain import Link

PATTERN = "audit*.jsonl"  # of the files of all logs
MOVED = "audit*.jsonl*"  # and of those that another program has moved
MANAGEMENT = "audit-management"  # who changed what
MITMDUMP = "audit-mitmdump"  # of the addon in a mitmproxy of somebody's own
BAD_ARCHIVE = (gzip.BadGzipFile, EOFError, zlib.error)
LONGEST = 4 * 1024 * 1024  # bytes of a line
BLOCK = 64 * 1024  # bytes read at a time, from the end


def log_name(worker: int) -> str:
    """Of the worker with this number; the first one's is that of a proxy in one process."""
    return "audit" if worker == 1 else f"audit-{worker}"


def file_name(worker: int) -> str:
    """Where its log grows."""
    return f"{log_name(worker)}.jsonl"


def log_of(path: Path) -> str:
    """The log that a file of this name belongs to."""
    return path.name.partition(".")[0]


def order(log: str) -> tuple[int, str]:
    """For sorting names of logs: by number, and then the others."""
    return len(log), log


def rotated(folder: Path, log: str) -> list[tuple[int, int, Path]]:
    """The full files of *log*: first line, last line and path, the oldest first."""
    shape = re.compile(re.escape(log) + r"\.([1-9][0-9]*)-([1-9][0-9]*)\.jsonl")
    found = [(shape.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted((int(m[1]), int(m[2]), path) for m, path in found if m)


def rotated_name(log: str, first: int, last: int) -> str:
    return f"{log}.{first}-{last}.jsonl"


def head_file(heads: Path, log: str) -> Path:
    """Where the newest head of *log* is kept a second time."""
    return heads / f"{log}.head"


def open_file(path: Path) -> BinaryIO:
    """For reading. Raises `OSError`, also for what is no plain file: a pipe would never end."""
    if not path.is_file():
        raise OSError(errno.EINVAL, "no plain file", str(path))
    if path.suffix == ".gz":
        return cast("BinaryIO", gzip.open(path, "rb"))
    return path.open("rb")


def last_link(file: int, size: int) -> tuple[Link | None, int]:
    """The last chained line in the file (a descriptor), and where it ends; None and 0 without."""
    end = size
    for text in lines_from_end(file, size):
        line = auditchain.parse(text.removesuffix(b"\n")) if text.endswith(b"\n") else None
        if line is not None:
            return line.link, end
        end -= len(text)
    return None, 0


def last_chain(path: Path) -> str:
    """Of the last line in a file, in hexadecimal; empty without. Raises `OSError`."""
    with path.open("rb") as file:
        found, _ = last_link(file.fileno(), os.fstat(file.fileno()).st_size)
    return found.chain.hex() if found else ""


def first_sequence(file: int) -> int | None:
    """The number of the first line in the file (a descriptor)."""
    line = auditchain.parse(os.pread(file, LONGEST, 0).partition(b"\n")[0])
    return line.sequence if line else None


def ends_of(file: int) -> tuple[int | None, list[bytes]]:
    """Of a file (a descriptor): the number of its first line, and its last two, the last one first,
    without their line ends."""
    lines = islice(lines_from_end(file, os.fstat(file).st_size), 2)
    return first_sequence(file), [line.removesuffix(b"\n") for line in lines]


def lines_from_end(file: int, size: int) -> Iterator[bytes]:
    """The lines of a file, the last one first, each with its line end if it has one."""
    rest, position = b"", size
    while position:
        length = min(max(BLOCK, len(rest)), position)  # a line of any length costs its length
        position -= length
        parts = (os.pread(file, length, position) + rest).split(b"\n")
        lines = [part + b"\n" for part in parts[:-1]] + [part for part in parts[-1:] if part]
        rest = lines[0]
        yield from reversed(lines[1:])
    if rest:
        yield rest
