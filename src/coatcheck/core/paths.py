"""The path of a request as a policy sees it, and the patterns of ``paths:``.

A grant for ``/v1/**`` must not be met by a path that the server reads as another one. So a path has
one canonical reading or none: what two servers could read in two ways fits no pattern.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

_AMBIGUOUS = re.compile(
    rb"%(?:[01][0-9a-fA-F]|2[fF]|5[cC]|2[eE]|25|3[bB]|7[fF])|[;\\\x00-\x20\x7f-\xff]"
)
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
# What some servers trim from names, or do not see in them: blanks, and characters without a width.
_TRIMMED = re.compile(r"[\s\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]+")


def canonical_path(path: bytes) -> str | None:
    """The one reading of *path*, percent-decoded; None where two servers could read it in two ways.

    Refused readings: encoded slash, dot, backslash, control or percent sign; ``;`` parameters,
    encoded or not; raw spaces or controls; ``//``; dot segments (RFC 3986, section 5.2.4, and
    what servers make of them: blanks around the dots, full-width letters read as their plain ones).
    """
    if not path.startswith(b"/") or b"//" in path or _AMBIGUOUS.search(path):
        return None
    if path.find(b"%") < 0 and path.find(b"/.") < 0:
        return path.decode("ascii")  # nothing is encoded, and no segment begins with a dot
    if b"%" in _PERCENT.sub(b"", path):
        return None
    try:
        text = _PERCENT.sub(lambda m: bytes([int(m[1], 16)]), path).decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if _has_another_reading(text) else text


def _has_another_reading(text: str) -> bool:
    """Whether *text*, decoded, leads elsewhere for a server that resolves dots, that trims names,
    or that takes compatible characters for one (NFKC, Unicode Standard Annex 15)."""
    plain = text
    if not text.isascii():
        plain = unicodedata.normalize("NFKC", text)
        if any(plain.count(sign) != text.count(sign) for sign in "/\\;%?#"):
            return True
    return any(segment in (".", "..") for segment in _TRIMMED.sub("", plain).split("/"))


_STARS = re.compile(r"\*{2,}|\*")


class _PathPattern:
    """A path with stars, matched in one pass: ``*`` is any characters but ``/``, ``**`` any.

    The client chooses the path, up to 16 KiB of it, so backtracking is out. Behind the literal
    start, all places in the pattern that the path may have reached are kept as bits of one
    integer (Baeza-Yates and Gonnet, "A new approach to text searching", 1992).
    """

    __slots__ = ("_letters", "_no_slash", "_prefix", "_rest", "_stars", "_whole")

    def __init__(self, pattern: str) -> None:
        mark = _STARS.search(pattern)
        self._prefix = pattern[: mark.start()] if mark else pattern
        self._rest = pattern[len(self._prefix) :]
        self._letters: dict[str, int] = {}
        self._stars = self._no_slash = 0
        place = 1
        for token in re.findall(r"\*{2,}|.", self._rest, re.DOTALL):
            if token[0] != "*":
                self._letters[token] = self._letters.get(token, 0) | place
            else:
                self._stars |= place
                self._no_slash |= place if token == "*" else 0  # noqa: S105 a star
            place <<= 1
        self._whole = place

    def matches(self, path: str) -> bool:
        if not path.startswith(self._prefix):
            return False
        if not self._rest:
            return path == self._prefix
        if self._rest == "**":
            return True
        stars, no_slash, letters = self._stars, self._no_slash, self._letters
        reached = 0b11  # before the first star, and behind it if it is empty
        for char in path[len(self._prefix) :]:
            stay = reached & stars
            if char == "/":
                stay &= ~no_slash
            reached = ((reached & letters.get(char, 0)) << 1) | stay
            reached |= (reached & stars) << 1
            if not reached:
                return False
        return bool(reached & self._whole)


@lru_cache(maxsize=4096)
def _path_pattern(pattern: str) -> _PathPattern:
    return _PathPattern(pattern)


def path_fits(patterns: Iterable[str], path: str | None) -> bool:
    """Whether *path* (canonical, or None for ambiguous) fits one of *patterns*.

    ``*`` is any characters but ``/``; ``**`` any characters; ``/v1/**`` also fits ``/v1``.
    """
    if path is None:
        return False
    return any(
        _path_pattern(pattern).matches(path) or (pattern.endswith("/**") and path == pattern[:-3])
        for pattern in patterns
    )
