"""The project's pages, read as a program reads them: blocks of code, links, tables.

A comment in front of a block says what a test does with it:

    <!-- run by: FILE::TEST -->  another test runs these commands
    <!-- not run: REASON -->     nothing runs them; a test counts these

Without one, ``sh`` and ``console`` blocks are run, from the top of the page to its end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "bench" / "README.md"])

_FENCE = re.compile(r"^```(\w*)$")
_NOTE = re.compile(r"^<!-- (run by|not run): (.+) -->$")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_EXIT = re.compile(r"# exit code (\d+)")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. *kind* and *about* are the two parts of the comment in front."""

    page: Path
    line: int
    language: str
    text: str
    kind: str = ""
    about: str = ""

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_commands(self) -> bool:
        return self.language in ("sh", "console")


@dataclass(frozen=True, slots=True)
class Command:
    """One command and, in a ``console`` block, what the page says that it prints."""

    where: str
    text: str
    output: tuple[str, ...] | None

    @property
    def exit_code(self) -> int:
        match = _EXIT.search(self.text)
        return int(match[1]) if match else 0


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of *page*, in order."""
    found = []
    lines = page.read_text("utf-8").splitlines()
    note = ("", "")
    opened: tuple[int, str] | None = None
    for number, line in enumerate(lines, 1):
        if opened is not None:
            if line == "```":
                text = "\n".join(lines[opened[0] : number - 1]) + "\n"
                found.append(Block(page, opened[0], opened[1], text, *note))
                opened, note = None, ("", "")
        elif fence := _FENCE.match(line):
            opened = (number, fence[1])
        elif match := _NOTE.match(line):
            note = (match[1], match[2])
        elif line.strip():
            note = ("", "")
    assert opened is None, f"{page}: a block is not closed"
    return found


def commands(block: Block) -> Iterator[Command]:
    """The commands of a ``sh`` or ``console`` block."""
    if block.language == "sh":
        text = block.text.replace("\\\n", "")
        for line in text.splitlines():
            if line.strip() and not line.startswith("#"):
                yield Command(block.where, line, None)
        return
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        first, *rest = part.splitlines()
        more = [line[2:] for line in rest if line.startswith("> ")]
        said = [line for line in rest if not line.startswith("> ")]
        while said and not said[-1]:
            said.pop()  # an empty line in front of the next command is layout
        yield Command(block.where, "\n".join([first, *more]), tuple(said))


def prose(page: Path) -> str:
    """The text of *page* without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    """The targets of the links in *page*."""
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """What a ``#fragment`` may name: the headings, as code hosts write them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def table(page: Path, heading: str) -> list[list[str]]:
    """The rows of the first table below *heading* (its text), cell by cell, without backticks."""
    section = re.split(rf"^#+ {re.escape(heading)}$", prose(page), flags=re.MULTILINE)[1]
    rows = re.search(r"((?:^\|.*\|$\n?)+)", section, flags=re.MULTILINE)
    assert rows is not None, f"{page}: no table below {heading!r}"
    cells = [
        [cell.strip().replace("`", "").replace("\\|", "|") for cell in _CELL.split(line[1:-1])]
        for line in rows[1].splitlines()
    ]
    return cells[2:]


_CELL = re.compile(r"(?<!\\)\|")
