"""What every command shares: how it prints, how it fails, where home is.

Results go to stdout, everything else to stderr. Text that came from elsewhere (a file, a header,
a name somebody chose) is made visible before it reaches a terminal: an escape sequence in a
description must not move the cursor or retitle the window.
"""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, NoReturn

import typer

from coatcheck.core.ports import CoatcheckError

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help="Where keys, store and policy lie; "
        "else $COATCHECK_HOME, $XDG_DATA_HOME/coatcheck, ~/.local/share/coatcheck.",
        file_okay=False,
    ),
]


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="How to print the result.")]


def home_path(home: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The home folder, absolute: *home* (the flag), $COATCHECK_HOME, XDG, ~/.local/share."""
    from coatcheck.settings import default_home  # reads YAML: not for `--help`

    return home.expanduser().absolute() if home is not None else default_home(environ)


def fail(error: CoatcheckError) -> NoReturn:
    """Print what is wrong and the next step to stderr, and exit with 1.

    Raises:
        typer.Exit: always, with code 1.
    """
    say_error(error.problem)
    if error.hint:
        say(f"  next: {error.hint}")
    raise typer.Exit(1)


def say(text: str) -> None:
    """A line for the person in front of the terminal, on stderr; its text is cleaned."""
    print(clean(text, keep="\n"), file=sys.stderr)


def say_error(text: str) -> None:
    """``error: text`` on stderr, coloured on a terminal."""
    print(f"{paint('error:', 'red', sys.stderr)} {clean(text, keep='\n')}", file=sys.stderr)


def paint(text: str, colour: str, stream: IO[str] | None = None) -> str:
    """*text* in bold *colour* (a name that typer knows) when *stream* shows colours."""
    return typer.style(text, fg=colour, bold=True) if has_colours(stream or sys.stdout) else text


def has_colours(stream: IO[str], environ: Mapping[str, str] = os.environ) -> bool:
    """Only a terminal gets colours, and not when it or its user says no (https://no-color.org)."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def clean(text: str, *, keep: str = "") -> str:
    r"""*text* with every control, format and surrogate character spelled out (``\x1b``).

    Format characters (category Cf) too: a right-to-left override reorders a line that a person
    is about to trust.
    """
    return "".join(
        char if char in keep or unicodedata.category(char) not in _HIDDEN else _visible(char)
        for char in text
    )


def show(
    rows: Sequence[Mapping[str, object]],
    columns: Mapping[str, str],
    style: Format,
    *,
    empty: str = "nothing to show",
) -> None:
    """Print a listing to stdout.

    Args:
        rows: One mapping a row; JSON prints it whole, the table its *columns*.
        columns: Key in the row -> heading of the column, in order.
        style: As `FormatOption` read it.
        empty: What stderr is told when there are no rows; JSON prints ``[]`` all the same.
    """
    if style is Format.JSON:
        print_json(list(rows))
    elif not rows:
        say(empty)
    else:
        print(table([[row.get(key) for key in columns] for row in rows], list(columns.values())))


@dataclass(frozen=True, slots=True)
class Lines:
    """A text of our own, which `show_one` prints in lines. Of anybody else's a line feed is spelt
    out: it would make a field of its own."""

    lines: Sequence[str]


def show_one(record: Mapping[str, object], style: Format) -> None:
    """Print one thing: JSON, or a line for each of its fields."""
    if style is Format.JSON:
        print_json(record)
        return
    width = max((len(key) for key in record), default=0)
    for key, value in record.items():
        shown = (
            [_cell(line) for line in value.lines] if isinstance(value, Lines) else [_cell(value)]
        )
        print(f"{key.replace('_', ' ') + ':':<{width + 1}}  {f'\n{" " * (width + 3)}'.join(shown)}")


def print_json(value: object) -> None:
    """*value* as JSON on stdout: ASCII only, so no control character survives unescaped."""
    print(json.dumps(value, indent=2, default=str))


def table(rows: Sequence[Sequence[object]], headings: Sequence[str]) -> str:
    """Columns padded with blanks, no frame: easy to read, and to cut with awk."""
    cells = [[_cell(value) for value in row] for row in rows]
    lines = [[heading.upper() for heading in headings], *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headings))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def _visible(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _cell(value: object) -> str:
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(clean(str(item)) for item in value)
    return clean(str(value))
