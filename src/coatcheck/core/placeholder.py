"""What a client holds in place of a secret, and how it is found in text.

::

    {{secrets.NAME}}  {{secret.NAME}}  {secrets.NAME}  __secrets.NAME__  {{secrets["any name"]}}

The first three come from the systems that users migrate from. The fourth has only characters that
a URL (RFC 3986, section 2.3), a form, JSON and a shell leave alone, since braces do not survive
every client. The quoted form belongs to both double-brace syntaxes and holds a JSON string
(RFC 8259, section 7).

Everything here works on *decoded* bytes; `escaping` undoes percent and JSON escapes first. What
opens like a placeholder and does not end like one is reported as malformed instead of passed on:
it is almost always a typing error, and it would show a third party the name of a secret. A missed
placeholder is a bug, a placeholder read where none is meant is a leak: so each rule is exact.

One regular expression finds them all, leftmost first. Every quantifier in it is bounded and
possessive, so the work is linear in the text whatever the text holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

from coatcheck.core.secret import (
    MAX_PLAIN_NAME,
    MAX_QUOTED_NAME,
    BadName,
    check_name,
    is_plain_name,
)

MAX_SPACES = 16  # spaces between double braces and what is inside, on either side


class Syntax(StrEnum):
    """A way to write a placeholder; the value is how a policy file calls it."""

    DOUBLE = "{{secrets.NAME}}"
    DOUBLE_SINGULAR = "{{secret.NAME}}"
    SINGLE = "{secrets.NAME}"
    URLSAFE = "__secrets.NAME__"


ALL_SYNTAXES: frozenset[Syntax] = frozenset(Syntax)

# A character of a quoted name takes at most 12 bytes: a surrogate pair, ``\ud83d\ude00``.
MAX_DECODED = len('{{secrets[""]}}') + 2 * MAX_SPACES + 12 * MAX_QUOTED_NAME
"""Length in bytes of the longest possible placeholder, decoded."""


@dataclass(frozen=True, slots=True)
class Found:
    """One placeholder in ``text[start:end]``.

    ``name`` is None where it is malformed: a placeholder up to a point. Then the range covers the
    opener alone (``{{secrets.``) and the search goes on right after it; or the whole, where a
    quoted name is one that no secret can have.
    """

    start: int
    end: int
    name: str | None


def write(name: str) -> str:
    """The placeholder for *name* as a person would write it."""
    if is_plain_name(name):
        return f"{{{{secrets.{name}}}}}"
    return f"{{{{secrets[{json.dumps(name, ensure_ascii=False)}]}}}}"


class Grammar:
    """Finds the placeholders of the syntaxes in force. Immutable; build one per policy."""

    def __init__(self, syntaxes: Collection[Syntax] = ALL_SYNTAXES) -> None:
        self.syntaxes = frozenset(syntaxes)
        rules = _rules(self.syntaxes)
        self._any = bool(rules)
        whole = [rule.whole for rule in rules]
        openers = [rule.opener for rule in rules]
        begun = "|".join(f"(?>{rule.begun})" for rule in rules) or _NEVER
        tail = rf"(?P<tail>(?:{begun})\Z)"
        self._whole_text = _compile([*whole, *openers])
        self._stream = _compile([*whole, tail, *openers])
        self._tail = _compile([tail])

    def maybe(self, raw: bytes) -> bool:
        """Whether *raw* could hold a placeholder raw, percent-encoded or JSON-escaped. Fast.

        Never False where there is one; True is only a hint. Base64 (`Authorization: Basic`) and
        content codings have to be undone by the caller first.
        """
        if not self._any or not _is_hinted(raw):
            return False
        if raw.find(b"secret") < 0:
            return True  # an escaped letter of it
        # Every opener has a brace or two underscores, perhaps escaped. `find` all along: ``in``
        # takes three times as long on bytes, and this runs per request.
        hits = raw.find(b"{"), raw.find(b"__"), raw.find(b"%"), raw.find(b"\\")
        return max(hits) >= 0

    def find(self, text: bytes) -> list[Found]:
        """The placeholders of *text* (decoded, whole), leftmost first, never overlapping."""
        if text.find(b"secret") < 0:
            return []
        return [_found(match) for match in self._whole_text.finditer(text)]

    def scan(self, text: bytes) -> tuple[list[Found], int]:
        """The placeholders of a text that goes on, and from where its tail has to be held back.

        The tail ``text[index:]`` may still become a placeholder; prepend it to what comes next.
        It is shorter than `MAX_DECODED`. However a text is cut, the pieces give what the whole
        gives, as long as the last one goes to `find`.
        """
        if text.find(b"secret") < 0:
            # Only an opener that is cut inside its word can be here.
            match = self._tail.search(text, max(0, len(text) - _MAX_CUT_OPENER))
            return [], match.start() if match else len(text)
        found: list[Found] = []
        for match in self._stream.finditer(text):
            if match.lastgroup == "tail":
                return found, match.start()
            found.append(_found(match))
        return found, len(text)

    def incomplete_from(self, text: bytes) -> int:
        """Where the tail begins that may still become a placeholder; ``len(text)`` if nowhere."""
        return self.scan(text)[1]


def _found(match: re.Match[bytes]) -> Found:
    group = match.lastgroup
    if group is None:
        return Found(match.start(), match.end(), None)
    name = _unquote(match[group]) if group == "quoted" else match[group].decode("ascii")
    return Found(match.start(), match.end(), name)


def _unquote(inside: bytes) -> str | None:
    """A quoted name; None where no secret can be called so (a control character, half a pair)."""
    try:
        name = json.loads(f'"{inside.decode("utf-8")}"')
        return check_name(name)
    except (ValueError, BadName):
        return None


# --- the expressions -------------------------------------------------------------------------

_NEVER = "(?!)"
_NAME_START = "[A-Za-z]"
_NAME_REST = rf"[A-Za-z0-9_.\-]{{0,{MAX_PLAIN_NAME - 1}}}+"
# The first double underscore ends the URL-safe form, so its name stops in front of one.
_URLSAFE_REST = rf"(?:(?!__)[A-Za-z0-9_.\-]){{0,{MAX_PLAIN_NAME - 1}}}+"
_SPACES = f"[ ]{{0,{MAX_SPACES}}}+"
_HEX = "[0-9A-Fa-f]"
_PAIR = rf"\\u[dD][89abAB]{_HEX}{{2}}\\u[dD][c-fC-F]{_HEX}{{2}}"
_UTF8 = (
    r"[\x20!\x23-\x5b\x5d-\x7f]|[\xc2-\xdf][\x80-\xbf]"
    r"|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)
_CHARACTER = rf'(?:{_UTF8}|{_PAIR}|\\u{_HEX}{{4}}|\\["\\/bfnrt])'
_CUT_CHARACTER = (
    rf"(?:\\(?:u{_HEX}{{0,3}})?|[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{{0,2}})"
)
_MAX_CUT_OPENER = len("{{secret") + MAX_SPACES + 1  # one more for what stands before it

# What every placeholder has some of: its word, or one of the letters s, e, c, r, t escaped. In
# search of few short strings from the left the library compares 16 or 32 bytes at a time (Teddy):
# a long text takes a thirtieth of what `find` and `re` take.
_LETTERS = (b"73", b"65", b"63", b"72", b"74")
_HINTS = (b"secret", *(b"%" + code for code in _LETTERS), *(b"\\u00" + code for code in _LETTERS))
_hinted = BytesAhoCorasick(
    list(_HINTS), MatchKind.LeftmostFirst, Implementation.ContiguousNFA
).find_matches_as_indexes
_STEP = 16 * 1024  # bytes asked for at once: one hint is enough, and all of a piece are listed
_OVERLAP = max(map(len, _HINTS)) - 1


def _is_hinted(raw: bytes) -> bool:
    if len(raw) <= _STEP:
        return bool(_hinted(raw))
    return any(
        _hinted(raw[start : start + _STEP + _OVERLAP]) for start in range(0, len(raw), _STEP)
    )


@dataclass(frozen=True, slots=True)
class _Rule:
    """Expressions of one syntax: the whole placeholder, its opener, and a text cut inside it."""

    whole: str
    opener: str
    begun: str


def _rules(syntaxes: frozenset[Syntax]) -> list[_Rule]:
    rules: list[_Rule] = []
    words = {Syntax.DOUBLE: "secrets", Syntax.DOUBLE_SINGULAR: "secret"}
    in_force = [word for syntax, word in words.items() if syntax in syntaxes]
    if in_force:
        rules.append(_double("secrets?+" if len(in_force) == 2 else in_force[0]))
    if Syntax.SINGLE in syntaxes:
        rules.append(_single())
    if Syntax.URLSAFE in syntaxes:
        rules.append(_urlsafe())
    return rules


def _double(word: str) -> _Rule:
    opener = rf"\{{\{{{_SPACES}{word}"
    quoted = rf'\["(?P<quoted>{_CHARACTER}{{1,{MAX_QUOTED_NAME}}}+)"\]'
    plain = rf"\.(?P<plain>{_NAME_START}{_NAME_REST})"
    letters = [*"secret", *([word[6:]] if word[6:] else [])]
    after_name = [_SPACES, r"\}"]
    cut_plain = _cut([r"\.", _NAME_START, _NAME_REST, *after_name])
    cut_close = _cut(['"', r"\]", *after_name])
    some = f"{_CHARACTER}{{0,{MAX_QUOTED_NAME}}}+"
    cut_quoted = rf'\[(?:"{some}(?:{cut_close}|{_CUT_CHARACTER})?)?'
    return _Rule(
        whole=rf"{opener}(?:{plain}|{quoted}){_SPACES}\}}\}}",
        opener=rf"{opener}[.\[]",
        begun=_cut([r"\{", r"\{", _SPACES, *letters, f"(?:{cut_plain}|{cut_quoted})"]),
    )


def _single() -> _Rule:
    # Not behind another brace: ``{{secrets.X}`` is a broken double form and nothing else.
    opener = r"(?<!\{)\{secrets\."
    begun = _cut([r"(?<!\{)\{", *"secrets", r"\.", _NAME_START, _NAME_REST])
    return _Rule(
        whole=rf"{opener}(?P<single>{_NAME_START}{_NAME_REST})\}}",
        opener=opener,
        # Two braces are held back as well: the second needs to see the first when it is judged.
        begun=rf"\{{\{{(?=\Z)|{begun}",
    )


def _urlsafe() -> _Rule:
    opener = r"__secrets\."
    return _Rule(
        whole=rf"{opener}(?P<urlsafe>{_NAME_START}{_URLSAFE_REST})__",
        opener=opener,
        begun=_cut(["_", "_", *"secrets", r"\.", _NAME_START, _URLSAFE_REST, "_"]),
    )


def _cut(parts: list[str]) -> str:
    """Matches as much of *parts*, in order, as the text holds; at least the first."""
    expression = ""
    for part in reversed(parts):
        expression = f"{part}(?:{expression})?" if expression else part
    return expression


def _compile(alternatives: list[str]) -> re.Pattern[bytes]:
    return re.compile("|".join(alternatives or [_NEVER]).encode("ascii"))
