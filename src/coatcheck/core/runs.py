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

from coatcheck.core.needle import ANY_BREAK, BREAK

LEFT = 64  # bytes a match is extended to the left at most; to the right there is no limit
WIDTHS = 64, 76  # characters of a line of base64: PEM (RFC 7468), MIME (RFC 2045)

_CHARS = rb"A-Za-z0-9+/_-"
_RUN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
_NOT_RUN = re.compile(rb"[^=" + _CHARS + rb"]")
_ESCAPED = rb"(?:\\/|%2[BbFf]|\\u002[BbFf]|&#(?:43|47|x2[BbFf]);)"  # a character of the run
_ESCAPED_BYTES = 6
_ESCAPED_BEFORE = re.compile(_ESCAPED + rb"\Z")
_AFTER = re.compile(rb"(?:[" + _CHARS + rb"]|" + _ESCAPED + rb"){0,3}")
_THREE = 3 * _ESCAPED_BYTES
# A run may hold what stands behind the first character of these.
_ESCAPE = re.compile(rb"\\(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[0-7]{1,3}|.)|%[0-9A-Fa-f]{2}", re.S)
_ESCAPE_BYTES = 6
_LEADS, _BACKSLASH = frozenset(b"\\%"), 0x5C
_BREAK_AFTER = re.compile(ANY_BREAK)
_BREAK_BEFORE = re.compile(ANY_BREAK + rb"\Z")

FURTHEST = LEFT + 1  # bytes from the start that `widened` finds to the needle, at most
AFTER = 2 * _THREE + BREAK  # bytes after a needle that matter, but for the rest of the run
BEFORE = BREAK + max(WIDTHS) + 2 * _ESCAPE_BYTES + 2 * _THREE  # bytes before a needle that matter


def widened(data: bytes, start: int, stop: int, *, wraps: bool) -> tuple[int, int]:
    """The needle at *start* to *stop* with the run to its left, and the escaped or broken part of
    the run to its right. How far the run goes on from there, `end` says.

    Args:
        wraps: The run may go over line ends.
    """
    return _left(data, start, wraps), _right(data, stop, wraps)


def end(data: bytes, at: int) -> int:
    """Where the run of base64 characters that *at* stands in, or follows, ends in *data*."""
    stop = _NOT_RUN.search(data, at)
    return len(data) if stop is None else stop.start()


def _left(data: bytes, start: int, wraps: bool) -> int:
    first = _run_start(data, start, LEFT)
    taken = start - first
    while taken < 3 and (
        escaped := _ESCAPED_BEFORE.search(data, max(0, first - _ESCAPED_BYTES), first)
    ):
        first = _run_start(data, escaped.start(), 2 - taken)
        taken += 1 + max(0, escaped.start() - first)
    if wraps and taken < 3:
        ended = _BREAK_BEFORE.search(data, max(0, first - BREAK), first)
        if ended and _is_line(data, ended.start()):
            return ended.start() - 3
    return first


def _right(data: bytes, stop: int, wraps: bool) -> int:
    last = _after(data, stop)
    ended = _BREAK_AFTER.match(data, last) if wraps else None
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
    for at in range(first - 1, max(-1, first - _ESCAPE_BYTES), -1):
        if data[at] in _LEADS:
            if data[at] == _BACKSLASH:
                slashes = data[max(0, at + 1 - _THREE) : at + 1]
                if (len(slashes) - len(slashes.rstrip(b"\\"))) % 2 == 0:
                    return first
            escape = _ESCAPE.match(data, at)
            if escape is None:
                return first
            return at if escape.end() > stop else max(first, escape.end())
    return first
