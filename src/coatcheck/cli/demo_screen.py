"""How `coatcheck demo` prints: tables and colours on a terminal, plain lines everywhere else.

It remembers the text of all that it printed, so that it can be searched.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from coatcheck.cli import console

WIDE = 100  # columns of a terminal from which on the three things stand side by side
_ASCII = str.maketrans({"✓": "ok", "✗": "FAILED", "…": "...", "│": "|"})


class Screen:
    """
    Attributes:
        checks: How many there were.
        failed: The words of those that did not hold.
    """

    def __init__(self) -> None:
        # Not for `coatcheck --help`.
        from rich.console import Console

        self.checks = 0
        self.failed: list[str] = []
        self._text: list[str] = []
        self._fancy = console.has_colours(sys.stdout)
        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)

    def say(self, text: str, style: str = "") -> None:
        """One line, or several."""
        text = console.clean(text, keep="\n")
        self._text.append(text)
        if self._fancy:
            self._console.print(text, style=style or None)
        else:
            print(_printable(text), flush=True)

    def check(self, words: str, held: bool, *, failed: str = "") -> None:
        """A check mark and *words*, or, where it did not hold, a cross and *failed*."""
        self.checked([(words if held else failed or words, held)])

    def checked(self, several: Sequence[tuple[str, bool]], title: str = "") -> None:
        """Checks on a line, each with its mark; those that did not hold are remembered.

        Args:
            title: Of the case, for the list at the end.
        """
        self.checks += len(several)
        failed = [words for words, held in several if not held]
        self.failed += [f"{title}: {words}" if title else words for words in failed]
        marked = "   ".join(f"{'✓' if held else '✗'} {words}" for words, held in several)
        self.say(f"  {marked}", "bold red" if failed else "green")

    def case(self, title: str, line: str, views: Mapping[str, str]) -> None:
        """A case: its title, the line for a shell, and who saw what."""
        self.say("")
        self.say(title, "bold")
        self.say(f"  $ {line}", "cyan")
        if self._fancy and self._console.width >= WIDE:
            self._table(views)
            return
        width = max(map(len, views))
        for who, what in views.items():
            for index, text in enumerate(what.splitlines() or [""]):
                self.say(f"    {who if index == 0 else '':<{width}} │ {text}")

    def printed(self) -> str:
        """All text so far, without what a terminal makes of it."""
        return "\n".join(self._text)

    def _table(self, views: Mapping[str, str]) -> None:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        cells = [console.clean(text, keep="\n") for text in views.values()]
        self._text += cells
        table = Table(box=box.SIMPLE, padding=(0, 1), expand=True)
        for who in views:
            table.add_column(who, ratio=1, overflow="fold", header_style="dim")
        table.add_row(*map(Text, cells))
        self._console.print(table)


def _printable(text: str) -> str:
    """*text*, with plain stand-ins where stdout cannot encode what is used here."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        text = text.translate(_ASCII)
        return text.encode(sys.stdout.encoding or "ascii", "replace").decode("ascii", "replace")
    return text
