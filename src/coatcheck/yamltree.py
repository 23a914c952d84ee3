"""The tree of a YAML text: every value with its line and column, every mistake in our words.

PyYAML scans and parses; the tree is built here instead of by its composer, since a file that
decides over secrets must mean one thing only. So there are no anchors and aliases (they can
blow a page up to gigabytes), no tags, no merge keys, one document, each key once, every key
text. ``yes``, ``on``, ``0x1f``, ``1_000``, ``12:30``, ``1e3`` and dates are no booleans, numbers
or texts here, since YAML 1.1 and 1.2 differ on them: whoever means them writes them plainly.

Texts quote keys and short values, and nothing that could be a token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from coatcheck.core.ports import CoatcheckError

MAX_DEPTH = 32  # nested lists and mappings; our files need 5
MAX_SHOWN = 40  # characters of a value that an error quotes

type Key = str | int
type Path_ = tuple[Key, ...]


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in a file; line and column count from 1, the column in characters."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing to mend. ``where`` is ``file:line:col``, a file, a flag or a variable."""

    where: str
    what: str
    hint: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.hint}"


class FileError(CoatcheckError):
    """All the mistakes of a file; ``str`` shows each on a line of its own.

    Attributes:
        mistakes: In the order of the file; at least one.
        where: The place of the first.
    """

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        self.where = mistakes[0].where
        last = mistakes[-1]
        # Whoever prints ``problem; hint``, as the base class does, prints every line.
        lines = [*map(str, mistakes[:-1]), f"{last.where}: {last.what}"]
        super().__init__("\n".join(lines), hint=last.hint)


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its place.

    Attributes:
        kind: In words, for messages: text, number, boolean, nothing, list, mapping, or another
            plain scalar that our files have no use for (a date, ``1e3``, ``yes``).
        text: A scalar as it was written, without its quotes.
        value: None for what is neither text, whole number nor true/false.
    """

    mark: Mark
    kind: str
    text: str = ""
    value: str | int | bool | None = None
    items: tuple[Node, ...] = ()
    entries: tuple[tuple[str, Mark, Node], ...] = ()

    def plain(self) -> object:
        """As str, int, bool, list and dict; `Odd` where it is none of these."""
        if self.kind == "list":
            return [item.plain() for item in self.items]
        if self.kind == "mapping":
            return {key: node.plain() for key, _, node in self.entries}
        return Odd() if self.value is None else self.value

    def get(self, key: Key) -> Node | None:
        if isinstance(key, int):
            return self.items[key] if key < len(self.items) else None
        return next((node for name, _, node in self.entries if name == key), None)

    def shown(self) -> str:
        """What an error says was found: the kind, and the text where it may be quoted."""
        if self.kind == "nothing":
            return "nothing"
        kind = self.kind if self.kind == "text" else f"a {self.kind}".replace("a alias", "an alias")
        return f"{kind} ({self.text})" if may_show(self.text) else kind


class Odd:
    """Stands in plain data for a scalar that no field accepts."""


# Long enough to be hard to guess; a word of a sentence or of a key has no digits in it.
_RUN = re.compile(r"[A-Za-z0-9+/=_\-]{20,}|(?=[A-Za-z+/=_\-]*[0-9])[A-Za-z0-9+/=_\-]{16,}")


def may_show(text: str) -> bool:
    """Whether an error may quote *text*: short, printable, and nothing like a token in it."""
    return 0 < len(text) <= MAX_SHOWN and text.isprintable() and not has_token(text)


def has_token(text: str) -> bool:
    """Whether *text* holds what could be a token, a key or their digest."""
    return "sha256:" in text.lower() or any(
        any(map(str.isdigit, run[0])) for run in _RUN.finditer(text)
    )


def quoted(text: str) -> str:
    """*text* in single quotes; a stand-in where it may not be shown."""
    return f"'{text}'" if may_show(text) else "this value"


# --- the tree ---------------------------------------------------------------------------------

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
# What YAML 1.2 takes for a number (section 10.3.2) and PyYAML for text: 1e3, 0o17, +.5.
_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|0o[0-7]+")
_KINDS = {
    "tag:yaml.org,2002:str": "text",
    "tag:yaml.org,2002:bool": "boolean",
    "tag:yaml.org,2002:int": "number",
    "tag:yaml.org,2002:float": "number with a fraction or exponent",
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:timestamp": "date",
    "tag:yaml.org,2002:merge": "merge key",
    "tag:yaml.org,2002:value": "value key",
}


class _Stop(Exception):
    pass


class Builder:
    """Turns the parser's events into nodes, noting what is refused on the way."""

    _loader: Any  # a yaml.SafeLoader; its methods are not typed

    def __init__(self, source: str) -> None:
        self._source = source
        self.mistakes: list[Mistake] = []

    def document(self, text: str) -> Node | None:
        """The root of the only document; None for an empty file.

        Raises:
            FileError: the text is no YAML.
        """
        try:
            self._loader = yaml.SafeLoader(text)
            return self._document()
        except yaml.reader.ReaderError as error:
            before = re.split(r"\r\n|[\n\r\x85\u2028\u2029]", text[: error.position])
            mark = Mark(len(before), len(before[-1]) + 1)
            self._note(mark, "a control character", "remove it, or write it as an escape in quotes")
        except yaml.MarkedYAMLError as error:
            open_quote = "quoted scalar" in (error.context or "") and "end of stream" in str(
                error.problem
            )
            spot = error.context_mark if open_quote else error.problem_mark or error.context_mark
            self._note(_mark(spot), *_yaml_problem(error))
        except (ValueError, OverflowError):  # PyYAML's chr() of an escape such as "\UFFFFFFFF"
            mark = _mark(self._loader.get_mark())
            self._note(mark, "an escape stands for no character", "write the character itself")
        except _Stop:
            pass
        raise FileError(self.mistakes)

    def _document(self) -> Node | None:
        root = None
        seen = False
        while not isinstance(event := self._next(), StreamEndEvent):
            if not isinstance(event, DocumentStartEvent):
                continue
            if seen:
                self._note(_mark(event.start_mark), "a second document begins here", "remove '---'")
                raise _Stop
            seen = True
            root = self._node(self._next(), 0)
        return root

    def _node(self, event: Event, depth: int) -> Node:
        mark = _mark(event.start_mark)
        if depth > MAX_DEPTH:
            self._note(mark, f"nested more than {MAX_DEPTH} levels deep", "remove levels")
            raise _Stop
        if isinstance(event, NodeEvent) and event.anchor is not None:
            name = "*" if isinstance(event, AliasEvent) else "&"
            self._note(mark, f"anchors and aliases ({name}) are not read", "write the value out")
        if getattr(event, "tag", None) not in (None, "!"):
            self._note(mark, "tags (!) are not read", "remove it; put text in quotes")
        if isinstance(event, SequenceStartEvent):
            return self._sequence(mark, depth)
        if isinstance(event, MappingStartEvent):
            return self._mapping(mark, depth)
        if isinstance(event, ScalarEvent):
            return self._scalar(mark, event)
        return Node(mark, "alias")

    def _sequence(self, mark: Mark, depth: int) -> Node:
        items = []
        while not isinstance(event := self._next(), SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return Node(mark, "list", items=tuple(items))

    def _mapping(self, mark: Mark, depth: int) -> Node:
        entries: dict[str, tuple[str, Mark, Node]] = {}
        while not isinstance(event := self._next(), MappingEndEvent):
            key = self._node(event, depth + 1)
            value = self._node(self._next(), depth + 1)
            if not self._is_key(key):
                continue
            if key.text in entries:
                what = f"the key {quoted(key.text)} stands here a second time"
                self._note(key.mark, what, f"merge it with line {entries[key.text][1].line}")
                continue
            entries[key.text] = (key.text, key.mark, value)
        return Node(mark, "mapping", entries=tuple(entries.values()))

    def _is_key(self, key: Node) -> bool:
        if key.kind == "text":
            return True
        if key.kind in ("mapping", "list"):
            what = f"a {key.kind} stands where a key or a text is expected"
            self._note(key.mark, what, "put text that begins with { or [ in quotes")
        elif key.kind == "merge key":
            self._note(key.mark, "merge keys (<<) are not read", "write the entries out")
        else:
            shown = key.text if may_show(key.text) else "..."
            self._note(key.mark, f"the key is {key.shown()}", f'put it in quotes: "{shown}"')
        return False

    def _scalar(self, mark: Mark, event: ScalarEvent) -> Node:
        text = event.value
        if any("\ud800" <= c <= "\udfff" for c in text):
            self._note(mark, "an escape stands for half a character", "write the character itself")
            text = ""
        if not event.implicit[0]:
            return Node(mark, "text", text, text)
        kind = _KINDS.get(self._loader.resolve(yaml.ScalarNode, text, (True, False)), "text")
        if kind == "boolean":
            plain = {"true": True, "false": False}.get(text.lower())
            return Node(mark, kind, text, plain)
        if kind == "number" or (kind == "text" and _NUMBER.fullmatch(text)):
            kind = "number"
            return Node(mark, kind, text, int(text) if _WHOLE.fullmatch(text) else None)
        return Node(mark, kind, text, text if kind == "text" else None)

    def _next(self) -> Event:
        event: Event = self._loader.get_event()
        return event

    def _note(self, mark: Mark, what: str, hint: str) -> None:
        self.mistakes.append(Mistake(place_of(self._source, mark), what, hint))


def _yaml_problem(error: yaml.MarkedYAMLError) -> tuple[str, str]:
    """PyYAML's problem in our words. Its own text may quote, so only known ones are kept."""
    problem = f"{error.context or ''} {error.problem or ''}"
    for part, words in _PROBLEMS.items():
        if part in problem:
            return words
    return "this is not YAML", "check indentation, quotes and brackets here and in the line above"


_PROBLEMS = {  # the first that occurs in PyYAML's own text
    "<document start>": ("text after the end of the document", "check the indentation"),
    r"character '\t'": ("a tab stands where YAML wants spaces", "use spaces"),
    "mapping values are not allowed": (
        "a second ': ' in one line, or a wrong indentation",
        "put text that holds ': ' in quotes; align keys of one mapping",
    ),
    "while scanning a quoted scalar": ("the text in quotes does not end", "close the quotes"),
    "while scanning a double-quoted scalar": (
        "an unknown escape in double quotes",
        "write \\\\ for a backslash, or use single quotes",
    ),
    "flow sequence": ("the list in [ ] is not complete", "separate by commas and close it with ]"),
    "flow mapping": (
        "the braces are not complete",
        "put text that holds { or } in quotes, or close them with }",
    ),
    "flow node": ("brackets or braces are not complete", "close them with ] or }"),
    "block mapping": (
        "this line does not fit into the mapping above",
        "align it with the other keys, and put ':' behind a key",
    ),
    "block collection": (
        "this line does not fit into the list above",
        "align it with the other '- ' entries",
    ),
    "simple key": ("a key without ':'", "put ': ' behind the key, and close quotes"),
    "cannot start any token": (
        "this character cannot begin a plain text",
        "put the text in quotes",
    ),
    "alias": ("anchors and aliases (*) are not read", "put text that begins with * in quotes"),
    "anchor": ("anchors and aliases (&) are not read", "put text that begins with & in quotes"),
    "tag": ("tags (!) are not read", "put text that begins with ! in quotes"),
    "directive": ("a line that begins with %", "remove it"),
    "incompatible YAML": ("another version of YAML", "remove the %YAML line"),
}


def _mark(mark: Any) -> Mark:  # PyYAML has two classes of them
    return Mark(1, 1) if mark is None else Mark(mark.line + 1, mark.column + 1)


def nothings(node: Node, path: Path_ = ()) -> Iterator[Path_]:
    """The path of every value that is left empty (``hosts:`` with nothing behind it)."""
    if node.kind == "nothing":
        yield path
    for index, item in enumerate(node.items):
        yield from nothings(item, (*path, index))
    for key, _, below in node.entries:
        yield from nothings(below, (*path, key))


def place_of(source: str, mark: Mark) -> str:
    return f"{source}:{mark.line}:{mark.column}"
