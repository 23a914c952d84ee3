"""A byte string to search for, and what the search is told to overlook in it.

Two freedoms of writers are left to the search, since to enumerate them would take hundreds of
needles for one value: the letter case of hexadecimal digits, and where lines were broken. Both are
bounded, so that an occurrence has a greatest length: a stream holds that much back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LINE = 60  # characters between two line ends inside an occurrence, at least
BREAK = 23  # bytes of the longest line end that is overlooked: "%0D%0A", or "=\r\n", and blanks

FOLD = bytes(range(256)).translate(bytes.maketrans(b"ABCDEF", b"abcdef"))

_BLANKS = rb"[ \t]{0,16}"
# Every alternative begins with a plain character: so `re` looks for those alone, and text is passed
# over thirty times as fast as with ``=?(?:\r?\n|\r)``.
_ESCAPED = rb"\\r\\n|\\n|\\r|%0[Dd]%0[Aa]|%0[Dd]|%0[Aa]"
# Line ends as they are, with the "=" of quoted-printable; escaped in strings and in URLs.
ANY_BREAK = rb"(?:(?:\r\n|\n|\r|=\r\n|=\n|=\r|" + _ESCAPED + rb")" + _BLANKS + rb")"
BREAKS = re.compile(ANY_BREAK)
# One of these stands in whatever `BREAKS` finds. To look for them takes a tenth of the time.
BREAK_MARKS = (b"\n", b"\r", rb"\n", rb"\r", b"%0")


@dataclass(frozen=True, slots=True)
class Needle:
    """What stands for a value in one spelling.

    Attributes:
        text: Its bytes, one or more.
        any_case: The letters A to F, which are lower-case in *text*, are found in either case.
        wraps: Also found broken over lines of `LINE` characters and more. Not with `any_case`.
    """

    text: bytes
    any_case: bool = False
    wraps: bool = False

    def reach(self) -> int:
        """Bytes that an occurrence takes at most."""
        lines = 1 + (len(self.text) - 2) // LINE if self.wraps else 0
        return len(self.text) + lines * BREAK

    def __repr__(self) -> str:
        return "<needle>"
