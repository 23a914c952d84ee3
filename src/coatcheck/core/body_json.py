"""JSON bodies, one document or many (NDJSON), each placeholder with its JSON pointer (RFC 6901).

Nothing is parsed into values and nothing is written anew: a lexer follows the text and knows, at
each string, the way there from the root. Everything but placeholders keeps its bytes.

Where a placeholder stands:

- in a string value: its location is the pointer (``/a/0/b``); escapes are undone to find it;
- in an object's key, or below such a key: no name, so only a grant for the whole body reaches it;
- bare, outside all strings (``{"a": {{secrets.x}}}``): the pointer of that place.

The value is always written as the inside of a JSON string.

**What is not JSON.** Two parsers that see a syntax error go on differently, or not at all, so from
the first one on there are no pointers any more: the rest of the body is one text with JSON escapes,
its placeholders have no name, and values are still escaped for a JSON string, which can never end
a string early. The same goes for nesting deeper than `json_place.MAX_DEPTH`. A single pointer is
given up (no name) if its keys are too long together, or hold what no text can (half a surrogate
pair, broken UTF-8). Numbers and literals are not checked letter by letter.

**Speed.** A stretch that cannot hold a placeholder is skipped by a regular expression that takes
whole members and elements a few levels deep; only around the word "secret" does the lexer go step
by step. All quantifiers are possessive, so the work is linear.
"""

from __future__ import annotations

import re
from dataclasses import replace

from coatcheck.core import escaping
from coatcheck.core.body_stream import SOMEWHERE, Stream, cut
from coatcheck.core.json_place import MAX_POINTER, JsonPlace, Wants
from coatcheck.core.placeholder import MAX_DECODED, Found, Grammar
from coatcheck.core.template import Piece, Slot

_MANY_TOKENS = 256  # in one buffer; it takes a millisecond or two
_PATIENCE = 8  # tries to skip that are made in vain before there are fewer
_WINDOW = 64  # bytes that decide about most bare placeholders
_BOM = b"\xef\xbb\xbf"


class JsonRewriter(Stream):
    """See the module. The buffer begins between two tokens, or inside a string or a word."""

    def __init__(self, grammar: Grammar) -> None:
        super().__init__(grammar)
        self._place = JsonPlace()
        self._begun = False
        self._lost = False
        self._in_word = False  # a number or literal that may go on
        self._in_string = False
        self._key: bytes | None = None  # what is there of a key; None: no name
        self._is_key = False  # whether the string is a key
        self._out: list[Piece] = []
        self._done = 0  # bytes of the buffer that are in `_out`
        self._in_vain = 0  # tries to skip, since the last that came to something
        self._unskipped = 0  # tokens since the last try

    def _rewrite(self, buffer: bytes, *, final: bool) -> tuple[list[Piece], bytes]:
        self._out, self._done = [], 0
        stop = self._walk(buffer, final) if not self._lost else 0
        self._out.append(buffer[self._done : stop])
        rest = buffer[stop:]
        if self._lost:
            pieces, rest = cut(rest, self._grammar, escaping.JSON, SOMEWHERE, final=final)
            self._out += pieces
        return self._out, rest

    def _walk(self, buffer: bytes, final: bool) -> int:
        """Follow the tokens; return from where on the buffer is held back, or lost."""
        end = len(buffer)
        at = 0
        if not self._begun:
            if len(buffer) < len(_BOM) and _BOM.startswith(buffer) and not final:
                return 0
            self._begun = True
            at = len(_BOM) if buffer.startswith(_BOM) else 0
        suspects = _Suspects(buffer, self._grammar)
        suspect = -1  # what ends before it is clear of placeholders
        tokens = 0
        while at < end:
            tokens += 1
            self.is_slow = tokens > _MANY_TOKENS
            if suspect < at:
                suspect = suspects.next(at)
            if self._in_string:
                at, goes_on = self._string(buffer, at, suspect, final)
                if goes_on:
                    return at
                continue
            if self._in_word:
                at = _end(_WORD_REST, buffer, at)
                self._in_word = at == end
                continue
            if at < suspect and (skipped := self._try_skip(buffer, at, suspect)) > at:
                at = skipped
                continue
            at = _end(_SPACE, buffer, at)
            if at == end:
                break
            step = self._token(buffer, at, final)
            if step is None:
                return at
            at = step
        return at

    def _token(self, buffer: bytes, at: int, final: bool) -> int | None:
        """Take the token at *at*; return where it ends, or None: held back, or lost."""
        byte = buffer[at]
        place = self._place
        if byte == _QUOTE and (place.wants_key or place.wants_value):
            self._in_string = True
            self._is_key = place.wants_key
            self._key = b""
            return at + 1
        if byte in _OPENERS and buffer[at + 1 : at + 2] in _SECOND:
            found = self._bare(buffer, at, final)
            if isinstance(found, Found):
                return self._take_bare(buffer, at, found)
            if found == "cut":
                return None
        if byte in _PUNCTUATION and place.punctuate(byte):
            return at + 1
        if place.wants_value and (end := _end(_WORD_REST, buffer, at)) > at:
            place.end_value()
            self._in_word = end == len(buffer)
            return end
        self._lost = True
        return None

    # --- strings ---

    def _string(self, buffer: bytes, at: int, clear: int, final: bool) -> tuple[int, bool]:
        """Go on in a string; return where to go on, and whether the string goes on there."""
        end = _end(_INSIDE, buffer, at)
        closed = buffer[end : end + 1] == b'"'
        rest = b""
        if closed and end <= clear:
            self._extend_key([buffer[at:end]] if self._is_key else [])
        else:
            pieces, rest = cut(
                buffer[at:end], self._grammar, escaping.JSON, SOMEWHERE, final=closed or final
            )
            if not self._is_key:
                pieces = self._placed(pieces)
            self._emit(buffer, at, pieces, end - len(rest))
            self._extend_key(pieces if self._is_key else [])
        if not closed:
            # A backslash at the very end belongs to the rest: what it escapes is still to come.
            return (len(buffer) if final else end - len(rest)), True
        self._in_string = False
        if self._is_key:
            self._place.end_key(self._key)
        else:
            self._place.end_value()
        return end + 1, False

    def _placed(self, pieces: list[bytes | Slot]) -> list[bytes | Slot]:
        """*pieces* of a value, with its pointer; that is made only where somebody asks for it."""
        if not any(isinstance(piece, Slot) for piece in pieces):
            return pieces
        where = self._place.location()
        return [replace(one, location=where) if isinstance(one, Slot) else one for one in pieces]

    def _extend_key(self, pieces: list[bytes | Slot]) -> None:
        for piece in pieces:
            if self._key is not None:
                self._key = self._key + piece if isinstance(piece, bytes) else None
            if self._key is not None and len(self._key) > MAX_POINTER:
                self._key = None

    # --- bare placeholders ---

    def _bare(self, buffer: bytes, at: int, final: bool) -> Found | str | None:
        """The placeholder that begins at *at*; "cut" where that is still open; None if none."""
        for size in (_WINDOW, MAX_DECODED):
            window = buffer[at : at + size]
            is_all = at + size >= len(buffer)
            if final and is_all:
                found, rest_at = self._grammar.find(window), len(window)
            else:
                found, rest_at = self._grammar.scan(window)
            if found and found[0].start == 0:
                return found[0]
            if rest_at > 0:
                return None
            if is_all:
                return "cut"
        return None

    def _take_bare(self, buffer: bytes, at: int, found: Found) -> int | None:
        place = self._place
        if not (place.wants_key or place.wants_value):
            self._lost = True
            return None
        location = SOMEWHERE if place.wants_key else place.location()
        end = at + found.end
        slot = Slot(found.name, location, buffer[at:end], escaping.encode_json)
        self._emit(buffer, at, [slot], end)
        if place.wants_key:
            place.end_key(None)
        else:
            place.end_value()
        return end

    def _emit(self, buffer: bytes, at: int, pieces: list[bytes | Slot], end: int) -> None:
        """Put *pieces*, which stand for ``buffer[at:end]``, out; plain bytes go with the rest."""
        if any(isinstance(piece, Slot) for piece in pieces):
            self._out.append(buffer[self._done : at])
            self._out += pieces
            self._done = end

    # --- skipping ---

    def _try_skip(self, buffer: bytes, at: int, clear: int) -> int:
        """`_skip`, and more seldom the more often that was in vain: below many levels each try
        costs more than a token."""
        if self._unskipped < self._in_vain - _PATIENCE:
            self._unskipped += 1
            return at
        end = self._skip(buffer, at, clear)
        self._unskipped = 0
        self._in_vain = 0 if end > at else min(self._in_vain + 1, 3 * _PATIENCE)
        return end

    def _skip(self, buffer: bytes, at: int, clear: int) -> int:
        """Take whole members, elements or documents that end before *clear*."""
        place = self._place
        start = at
        if place.wants_key:
            at = _skip_members(buffer, at, clear)
            if at > start:
                place.wants = Wants.KEY
        elif place.at_root:
            while (end := _end(_ONE, buffer, at, clear)) > at:
                at = end
        elif place.in_array and place.wants_value:
            at = self._skip_elements(buffer, at, clear)
            if at > start:
                place.wants = Wants.VALUE
        return at

    def _skip_elements(self, buffer: bytes, at: int, clear: int) -> int:
        before = -1
        while at > before:
            before = at
            for run in (_WORDS, _STRINGS):
                end = _end(run, buffer, at, clear)
                if end > at:
                    # One element for each comma that is in no string.
                    elements = _STRING_ALONE.sub(b"", buffer[at:end])
                    self._place.pass_elements(elements.count(b","))
                    at = end
            while (end := _end(_ONE, buffer, at, clear)) > at:
                if end >= clear or buffer[end] != _COMMA:
                    break
                self._place.pass_elements(1)
                at = end + 1
        return at


def _skip_members(buffer: bytes, at: int, clear: int) -> int:
    while True:
        at = _end(_FLAT_MEMBERS, buffer, at, clear)
        colon = _end(_KEY, buffer, at, clear)
        end = _end(_ONE, buffer, colon, clear)
        if at == colon or colon == end or end >= clear or buffer[end] != _COMMA:
            return at
        at = end + 1


class _Suspects:
    """Where in one buffer the word of a placeholder may be, its letters escaped or not.

    One that the buffer's end cuts may be missed. That does no harm: only whole tokens are skipped,
    so a string that is cut is always looked at.
    """

    def __init__(self, buffer: bytes, grammar: Grammar) -> None:
        self._buffer = buffer
        self._word: re.Pattern[bytes] | None = None
        if grammar.maybe(buffer):
            self._word = _PLAIN if buffer.find(b"\\u00") < 0 else _ESCAPED

    def next(self, at: int) -> int:
        """The first one from *at* on; else the buffer's end."""
        found = self._word.search(self._buffer, at) if self._word is not None else None
        return found.start() if found else len(self._buffer)


def _end(pattern: re.Pattern[bytes], buffer: bytes, at: int, until: int | None = None) -> int:
    """Where a match of *pattern* at *at* ends; *at* if there is none."""
    match = pattern.match(buffer, at) if until is None else pattern.match(buffer, at, until)
    return match.end() if match else at


# --- the expressions; what they take, the lexer would take as well, token by token -------------


def _value(depth: int) -> str:
    """A value with up to *depth* levels of arrays and objects."""
    flat = f"{_STRING}|{_WORD}"
    if not depth:
        return f"(?:{flat})"
    inner = _value(depth - 1)  # only once in each of the two, or the pattern doubles once more
    members = rf'(?:{_STRING}{_S}:{_S}{inner}{_S}(?:,{_S}(?=")|(?=\}})))*+'
    elements = rf"(?:{inner}{_S}(?:,{_S}(?!\])|(?=\])))*+"
    return rf"(?:{flat}|\{{{_S}{members}\}}|\[{_S}{elements}\])"


def _compile(pattern: str) -> re.Pattern[bytes]:
    return re.compile(pattern.encode("ascii"), re.DOTALL)


_S = r"[ \t\r\n]*+"
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_WORD = r"[A-Za-z0-9+.\-]++"
_LEVELS = 5  # each doubles the time to compile, and most documents are not deeper

_ONE = _compile(f"{_S}{_value(_LEVELS)}{_S}")
_KEY = _compile(f"{_S}{_STRING}{_S}:")
_FLAT_MEMBERS = _compile(f"(?:{_S}{_STRING}{_S}:{_S}{_value(0)}{_S},)*+")
_SPACE = _compile(_S)
_INSIDE = _compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+')
_WORD_REST = _compile(r"[A-Za-z0-9+.\-]*+")
_WORDS = _compile(f"(?:{_S}{_WORD}{_S},)*+")
_STRINGS = _compile(f"(?:{_S}{_STRING}{_S},)*+")
_STRING_ALONE = _compile(_STRING)
# A name follows, or an escape; "client_secret": is no suspect.
_PLAIN = _compile(r"secrets?+[.\[\\]")
_S_OR_ESCAPE, _E_OR_ESCAPE = r"(?:s|\\u0073)", r"(?:e|\\u0065)"
_ESCAPED = _compile(
    rf"{_S_OR_ESCAPE}{_E_OR_ESCAPE}(?:c|\\u0063)(?:r|\\u0072){_E_OR_ESCAPE}(?:t|\\u0074)"
    rf"{_S_OR_ESCAPE}?+[.\[\\]"
)
_QUOTE = ord('"')
_COMMA = ord(",")
_PUNCTUATION = frozenset(b"{}[],:")
_OPENERS = frozenset(b"{_")
_SECOND = (b"", b"{", b"s", b"_")
