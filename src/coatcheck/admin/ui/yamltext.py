"""A policy in colours, each mistake below its line.

No parser: a file that is broken has to be shown too. What a line seems to hold decides its colour
and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from coatcheck.admin.policy_service import Error
from coatcheck.admin.ui.show import is_hidden, spelt

_TOKEN = re.compile(
    r"""(?P<comment>(?:(?<=\s)|^)\#.*)
      | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')
      | (?P<key>[A-Za-z_][A-Za-z0-9_.\-]*(?=\s*:(?:\s|$)))
      | (?P<word>(?<![\w.\-])(?:true|false|null|\d+)(?![\w.\-/]))
      | (?P<mark>[\[\]{},]|:(?=\s|$)|^\s*-(?=\s))""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line as HTML, and what is wrong with it."""

    number: int
    html: Markup
    errors: Sequence[Error]


def lines(text: str, errors: Sequence[Error] = ()) -> list[Line]:
    """*text*, line by line. Its end of line is no line of its own."""
    found: dict[int, list[Error]] = {}
    for error in errors:
        found.setdefault(error.line, []).append(error)
    parted = text.replace("\r\n", "\n").split("\n")
    if parted[-1] == "":
        parted.pop()
    return [
        Line(number, Markup("").join(_pieces(line)), found.pop(number, []))
        for number, line in enumerate(parted, 1)
    ]


def _pieces(line: str) -> Iterator[Markup]:
    at = 0
    for match in _TOKEN.finditer(line):
        yield _seen(line[at : match.start()])
        yield Markup('<span class="y-{}">{}</span>').format(match.lastgroup, _seen(match[0]))
        at = match.end()
    yield _seen(line[at:])


def _seen(text: str) -> Markup:
    return Markup("").join(
        Markup('<span class="odd">{}</span>').format(spelt(char))
        if is_hidden(char) and char != "\t"
        else Markup.escape(char)
        for char in text
    )
