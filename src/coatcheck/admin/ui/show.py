"""Texts of others, fit to be seen: escaped, apart from what stands beside them, nothing invisible.

A name may hold any character. A right-to-left override would reorder what a person is about to
trust, and a zero-width space makes two names look like one; so both are spelt out (``U+202E``).
"""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

from markupsafe import Markup, escape

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
SAID_IN_DAYS = 30  # what is older is told by its date


def is_hidden(char: str) -> bool:
    """Whether a reader would not see *char* as what it is: each blank but the usual one too."""
    kind = unicodedata.category(char)
    return kind in _HIDDEN or (kind == "Zs" and char != " ")


def shown(text: object, keep: str = "") -> Markup:
    """*text* as HTML, isolated from the direction of the text round it.

    Args:
        keep: Hidden characters that may stay, such as line ends.
    """
    parts = [
        Markup('<span class="odd">{}</span>').format(spelt(char))
        if is_hidden(char) and char not in keep
        else escape(char)
        for char in str(text)
    ]
    return Markup("<bdi>{}</bdi>").format(Markup("").join(parts))


def shown_plain(text: object) -> str:
    """The same where no elements can stand: in a title or a label."""
    return "".join(f"⟨{spelt(c)}⟩" if is_hidden(c) else c for c in str(text))


def spelt(char: str) -> str:
    return f"U+{ord(char):04X}"


def moment(at: float | str | None, *, seconds: bool = False) -> Markup:
    """A time, in UTC. *at*: seconds since the epoch, or as the audit log has it; None: never."""
    if at is None or at == "":
        return Markup('<span class="muted">never</span>')
    found = _time(at)
    if found is None:
        return shown(at)
    words = found.strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")
    return Markup('<time datetime="{}">{}</time>').format(
        found.isoformat(timespec="seconds"), words
    )


def ago(at: float | None, now: float) -> Markup:
    """How long ago that was, with the time itself to point at."""
    if at is None:
        return moment(None)
    passed = now - at
    if passed < -MINUTE_S or passed >= SAID_IN_DAYS * DAY_S:
        return moment(at)
    for length, word in ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "min")):
        if passed >= length:
            words = f"{int(passed // length)} {word} ago"
            break
    else:
        words = "just now"
    found = datetime.fromtimestamp(at, UTC)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        found.isoformat(timespec="seconds"), found.strftime("%Y-%m-%d %H:%M:%S UTC"), words
    )


def counted(number: int, one: str, many: str = "") -> str:
    """``1 secret``, ``1,200 secrets``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _time(at: float | str) -> datetime | None:
    if isinstance(at, str):
        try:
            return datetime.fromisoformat(at).astimezone(UTC)
        except ValueError:
            return None
    return datetime.fromtimestamp(at, UTC)
