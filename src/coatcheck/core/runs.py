"""How far a match in base64 or base32 goes beyond the needle.

The needle holds the characters that depend on the value alone. Those next to it still hold bits of
the value's first and last bytes, so the whole run of such characters goes: to the left up to
`LEFT`, since what was let go cannot be taken back, and to the right without a limit.

A run ends where it is cut without harm to what stands there: not between ``\\`` and ``n``, nor
inside of ``%3D``. The three characters next to a needle may themselves be escaped, or stand beyond
a line end; then the line has the width that encoders write (`WIDTHS`), or it is no such text.
"""

from __future__ import annotations

import re

from coatcheck.core.needle import ANY_BREAK, BREAK, ESCAPED_BREAK

LEFT = 64  # bytes a match is extended to the left at most; to the right there is no limit
WIDTHS = 64, 76  # characters of a line of base64: PEM (RFC 7468), MIME (RFC 2045)

_CHARS = rb"A-Za-z0-9+/_-"
_RUN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
_NOT_RUN = re.compile(rb"[^=" + _CHARS + rb"]")
# A character of the run, perhaps escaped: up to 6 bytes.
_CHAR = rb"(?:[" + _CHARS + rb"]|\\/|%2[BbFf]|\\u002[BbFf]|&#(?:43|47|x2[BbFf]);)"
_AFTER = re.compile(_CHAR + rb"{0,3}")
_BEFORE = re.compile(_CHAR + rb"{1,3}\Z")
_THREE = 18  # bytes of three such characters
# A run may hold what stands behind the first character of these.
_ESCAPE = re.compile(rb"\\(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[0-7]{1,3}|.)|%[0-9A-Fa-f]{2}", re.S)
_ESCAPE_BYTES = 6
_BREAK_AFTER = {False: re.compile(ANY_BREAK), True: re.compile(ESCAPED_BREAK)}  # by line: True
_BREAK_BEFORE = {False: re.compile(ANY_BREAK + rb"\Z"), True: re.compile(ESCAPED_BREAK + rb"\Z")}

FURTHEST = LEFT + 1  # bytes from the start that `widened` finds to the needle, at most
AFTER = 2 * _THREE + BREAK  # bytes after a needle that matter, but for the rest of the run
BEFORE = BREAK + max(WIDTHS) + _ESCAPE_BYTES + 2 * _THREE  # bytes before a needle that matter


def widened(data: bytes, start: int, stop: int, *, wraps: bool, by_line: bool) -> tuple[int, int]:
    """The needle at *start* to *stop* with the run to its left, and the escaped or broken part of
    the run to its right. How far the run goes on from there, `end` says.

    Args:
        wraps: The run may go over line ends.
        by_line: Not over those of *data*, only over escaped ones.
    """
    return _left(data, start, wraps, by_line), _right(data, stop, wraps, by_line)


def end(data: bytes, at: int) -> int:
    """Where the run of base64 characters that *at* stands in, or follows, ends in *data*."""
    stop = _NOT_RUN.search(data, at)
    return len(data) if stop is None else stop.start()


def _left(data: bytes, start: int, wraps: bool, by_line: bool) -> int:
    first = _run_start(data, start, LEFT)
    if start - first >= 3:
        return first
    escaped = _BEFORE.search(data, max(0, start - _THREE), start)
    if escaped and escaped.start() < first:
        first = _uncut(data, escaped.start(), start)
    elif wraps:
        ended = _BREAK_BEFORE[by_line].search(data, max(0, first - BREAK), first)
        if ended and _is_line(data, ended.start()):
            first = ended.start() - 3
    return first


def _right(data: bytes, stop: int, wraps: bool, by_line: bool) -> int:
    last = _after(data, stop)
    ended = _BREAK_AFTER[by_line].match(data, last) if wraps else None
    if ended and _is_line(data, last):
        beyond = _after(data, ended.end())
        return last if beyond == ended.end() else beyond
    return last


def _after(data: bytes, at: int) -> int:
    found = _AFTER.match(data, at)
    return at if found is None else found.end()


def _is_line(data: bytes, stop: int) -> bool:
    """Whether what ends at *stop* is a line of base64, of a width that encoders write."""
    return stop - _run_start(data, stop, max(WIDTHS) + _ESCAPE_BYTES) in WIDTHS


def _run_start(data: bytes, stop: int, most: int) -> int:
    left = max(0, stop - most)
    return _uncut(data, left + len(data[left:stop].rstrip(_RUN)), stop)


def _uncut(data: bytes, first: int, stop: int) -> int:
    """*first*, or behind the escape that a cut there would break; before it if it is cut anyway."""
    lead = data[first - 1 : first] if first else b""
    if lead == b"\\":
        slashes = data[max(0, first - _THREE) : first]
        if (len(slashes) - len(slashes.rstrip(b"\\"))) % 2 == 0:
            return first
    elif lead != b"%":
        return first
    escape = _ESCAPE.match(data, first - 1, stop)
    return first - 1 if escape is None else escape.end()
