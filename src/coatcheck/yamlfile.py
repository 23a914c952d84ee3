"""YAML files: read with care, checked against what a section may hold, every mistake at its place.

Mistakes are collected rather than raised one by one: a person mends the whole file in one go.
"""

from __future__ import annotations

import difflib
import stat
from collections.abc import Collection
from pathlib import Path

from coatcheck.yamltree import (
    Builder,
    FileError,
    Mark,
    Mistake,
    Node,
    Path_,
    nothings,
    place_of,
)

MAX_BYTES = 1024 * 1024  # of a whole file; a policy of 10,000 grants is a little less


def stamp(path: Path) -> object:
    """What tells one state of a file from another, without reading it."""
    try:
        status = path.stat()
    except OSError as error:
        return type(error).__name__
    return (status.st_ino, status.st_mtime_ns, status.st_size)


class Document:
    """The tree of one file, and the mistakes found so far."""

    def __init__(self, source: str, root: Node, mistakes: list[Mistake]) -> None:
        self.source = source
        self.root = root
        self._mistakes = [(_mark_of(m), m) for m in mistakes]
        self._unread = {mark for mark, _ in self._mistakes}
        for path in nothings(root):
            self.wrong(self.mark(path), "there is no value", "give one, or remove the line")
        self._unread |= {mark for mark, _ in self._mistakes}

    def node(self, path: Path_) -> Node | None:
        """The node at *path*; None where there is none."""
        node: Node | None = self.root
        for key in path:
            node = node.get(key) if node is not None else None
        return node

    def mark(self, path: Path_) -> Mark:
        """The place of the value at *path*, or of the nearest thing above it that exists."""
        node = self.root
        for key in path:
            below = node.get(key)
            if below is None:
                break
            node = below
        return node.mark

    def key_mark(self, path: Path_) -> Mark:
        """The place of the key that *path* ends with; of the value in a list."""
        parent = self.node(path[:-1]) if path else None
        for key, mark, _ in parent.entries if parent else ():
            if key == path[-1]:
                return mark
        return self.mark(path)

    def wrong(self, mark: Mark, what: str, hint: str) -> None:
        """Note a mistake; not where reading itself went wrong, since it follows from that."""
        entry = (mark, Mistake(place_of(self.source, mark), what, hint))
        if mark not in self._unread and entry not in self._mistakes:
            self._mistakes.append(entry)

    def mistakes(self) -> list[Mistake]:
        """All of them, in the order of the file."""
        return [mistake for _, mistake in sorted(self._mistakes, key=lambda pair: pair[0])]


def parse(text: str, source: str, *, empty: str | None) -> Document:
    """Read *text* as one YAML document. Pure.

    Args:
        source: The file's name, for messages.
        empty: The hint for a file that holds nothing; None where that is fine (an empty mapping).

    Raises:
        FileError: where the text is no YAML at all, or its root is no mapping. Mistakes after
            which reading goes on are in the `Document` instead.
    """
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise FileError([_too_large(source)])
    builder = Builder(source)
    root = builder.document(text.removeprefix("\ufeff"))
    if root is None or root.kind == "nothing":
        if empty is not None:
            raise FileError(
                [*builder.mistakes, Mistake(f"{source}:1:1", "the file is empty", empty)]
            )
        root = Node(Mark(1, 1), "mapping")
    if root.kind != "mapping":
        what = f"the file holds {root.shown()}, and should hold 'key: value' lines"
        hint = "start each section at the beginning of a line, as in 'version: 1'"
        raise FileError([*builder.mistakes, Mistake(place_of(source, root.mark), what, hint)])
    return Document(source, root, builder.mistakes)


def read_text(path: Path, *, missing: str) -> str:
    """The text of a regular UTF-8 file of at most `MAX_BYTES`, its BOM and line ends kept.

    Args:
        missing: What to do where there is no such file.

    Raises:
        FileError: it cannot be read, with the next step.
    """
    source = str(path)
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise _failed(source, "is a directory", "name the file itself")
        if not stat.S_ISREG(info.st_mode):  # a pipe would block, a device never end
            raise _failed(source, "is not an ordinary file", "copy its text to a file")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _failed(source, "there is no such file", missing) from None
    except PermissionError:
        hint = "give the user that coatcheck runs as the right to read it"
        raise _failed(source, "may not be read", hint) from None
    except (OSError, ValueError) as error:  # ValueError: NUL in the path
        reason = getattr(error, "strerror", None) or "not a path"
        raise _failed(source, f"cannot be read ({reason})", "check the path") from None
    if len(raw) > MAX_BYTES:
        raise FileError([_too_large(source)])
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8").split("\n")
        where = place_of(source, Mark(len(before), len(before[-1]) + 1))
        raise FileError([Mistake(where, "the file is not UTF-8", "save it as UTF-8")]) from None


def closest(word: str, known: Collection[str]) -> str | None:
    """The one of *known* that was probably meant."""
    folded = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), list(folded), n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def _mark_of(mistake: Mistake) -> Mark:
    _, line, column = mistake.where.rsplit(":", 2)
    return Mark(int(line), int(column))


def _failed(source: str, what: str, hint: str) -> FileError:
    return FileError([Mistake(source, what, hint)])


def _too_large(source: str) -> Mistake:
    return Mistake(source, f"the file is larger than {MAX_BYTES} bytes", "name the right file")
