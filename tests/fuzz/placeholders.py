"""A second finder of placeholders, written by hand from the table in the README.

It tries each place of a text in turn and reads on character by character.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable

from coatcheck.core.placeholder import Syntax
from coatcheck.core.secret import BadName, check_name

LETTERS = string.ascii_letters.encode()
IN_NAME = (string.ascii_letters + string.digits + "_.-").encode()
LONGEST = 128
LONGEST_QUOTED = 256
MOST_SPACES = 16

type One = tuple[int, int, str | None]  # start, end, name; None: malformed


def find(text: bytes, syntaxes: frozenset[Syntax]) -> list[One]:
    found: list[One] = []
    at = 0
    while at < len(text):
        one = None
        if text.startswith(b"{{", at):
            one = _double(text, at, syntaxes)
        elif text.startswith(b"{secrets.", at) and text[max(0, at - 1) : at] != b"{":
            one = _simple(text, at, b"{secrets.", b"}") if Syntax.SINGLE in syntaxes else None
        elif text.startswith(b"__secrets.", at) and Syntax.URLSAFE in syntaxes:
            one = _simple(text, at, b"__secrets.", b"__")
        if one is None:
            at += 1
        else:
            found.append(one)
            at = one[1]
    return found


def replace(text: bytes, syntaxes: frozenset[Syntax], value: bytes) -> bytes:
    """*text* with every well-formed placeholder replaced by *value*."""
    out, done = b"", 0
    for start, end, name in find(text, syntaxes):
        if name is not None:
            out += text[done:start] + value
            done = end
    return out + text[done:]


def _double(text: bytes, at: int, syntaxes: frozenset[Syntax]) -> One | None:
    word = _spaces(text, at + 2)
    behind = word
    for syntax, name in ((Syntax.DOUBLE, b"secrets"), (Syntax.DOUBLE_SINGULAR, b"secret")):
        if syntax in syntaxes and text[word:].startswith((name + b".", name + b"[")):
            behind = word + len(name)
    if behind == word:
        return None
    opened = behind + 1
    if text[behind : behind + 1] == b".":
        end = _name(text, opened, lambda place: False)
        called: str | None = text[opened:end].decode("latin-1")
    else:
        end, called = _quoted(text, opened)
    if end > opened:
        end = _spaces(text, end)
        if text.startswith(b"}}", end):
            return at, end + 2, called
    return at, opened, None


def _simple(text: bytes, at: int, opener: bytes, closer: bytes) -> One:
    opened = at + len(opener)
    stops: Callable[[int], bool] = lambda place: text.startswith(b"__", place)  # noqa: E731
    end = _name(text, opened, stops if closer == b"__" else lambda place: False)
    if end > opened and text.startswith(closer, end):
        return at, end + len(closer), text[opened:end].decode("latin-1")
    return at, opened, None


def _spaces(text: bytes, at: int) -> int:
    """Where a run of at most `MOST_SPACES` spaces that begins at *at* ends."""
    end = at
    while text[end : end + 1] == b" " and end - at < MOST_SPACES:
        end += 1
    return end


def _name(text: bytes, at: int, stops: Callable[[int], bool]) -> int:
    """Where a plain name that begins at *at* ends; *at* where there is none."""
    end = at
    if text[at : at + 1] and text[at] in LETTERS:
        end = at + 1
        while end < len(text) and end - at < LONGEST and text[end] in IN_NAME and not stops(end):
            end += 1
    return end


def _quoted(text: bytes, at: int) -> tuple[int, str | None]:
    """Where ``"..."]`` ends and the name in it; (*at*, None) where there is none."""
    if text[at : at + 1] != b'"':
        return at, None
    end, count = at + 1, 0
    while count < LONGEST_QUOTED and (size := _character(text[end : end + 12])):
        end += size
        count += 1
    if not count or not text.startswith(b'"]', end):
        return at, None
    try:
        return end + 2, check_name(json.loads(b'"' + text[at + 1 : end] + b'"'))
    except (ValueError, BadName):
        return end + 2, None


def _character(text: bytes) -> int:
    """Bytes of the first character of the inside of a JSON string; 0 where there is none."""
    if not text or text[:1] == b'"' or text[0] < 0x20:
        return 0
    if text[:1] != b"\\":
        lead = text[0]
        size = 1 + (lead >= 0xC2) + (lead >= 0xE0) + (lead >= 0xF0)
        if 0x80 <= lead < 0xC2 or lead > 0xF4 or len(text) < size:
            return 0
        return size if all(0x80 <= byte < 0xC0 for byte in text[1:size]) else 0
    if text[1:2] != b"u":
        return 2 if text[1:2] and text[1:2] in b'"\\/bfnrt' else 0
    first, second = _unit(text), _unit(text[6:])
    if first is None:
        return 0
    if 0xD800 <= first < 0xDC00 and second is not None and 0xDC00 <= second < 0xE000:
        return 12
    return 6


def _unit(text: bytes) -> int | None:
    digits = text[2:6]
    if text[:2] != b"\\u" or len(digits) < 4 or not set(digits) <= set(string.hexdigits.encode()):
        return None
    return int(digits, 16)
