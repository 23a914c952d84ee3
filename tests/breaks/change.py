"""One break: a text of a source file, and what stands there once the check is gone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SOURCE = Path("src", "coatcheck")


class Stale(Exception):
    """The old text does not stand in its file exactly once: the table has to follow the code."""


@dataclass(frozen=True, slots=True)
class Break:
    """See the module.

    Attributes:
        id: Unique; for ``--only``.
        words: What is broken, in one sentence.
        file: Below `SOURCE`.
        tests: ``FILE::[CLASS::]TEST``, without parameters; one of them has to fail.
    """

    id: str
    words: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def of(self, text: str) -> str:
        """*text* of the file with the check broken; it compiles.

        Raises:
            Stale: the old text is gone, or is there more than once.
            SyntaxError: what would come of it is no Python.
        """
        found = text.count(self.old)
        if found != 1:
            raise Stale(f"{self.id}: its old text stands {found} times in {SOURCE / self.file}")
        broken = text.replace(self.old, self.new)
        compile(broken, self.file, "exec")
        return broken
