"""Two small pictures, drawn here: the spark line of a secret, and a day in hours.

Only attributes, no style: the page's own rules forbid inline styles. What a picture shows is told
in words too.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from coatcheck.admin.activity import Hour, Spark
from coatcheck.admin.ui.show import counted

STEP = 4  # units from one bar to the next
BAR = 3  # units of it that are drawn
SPARK_HEIGHT = 24
CHART_HEIGHT = 120
KINDS = ("injections", "scrubs", "refusals")  # from the bottom up


def spark(found: Spark | None) -> Markup:
    """Uses upwards, refusals on top of them in another colour."""
    if found is None or not (any(found.uses) or any(found.refusals)):
        return Markup('<span class="muted">none</span>')
    highest = max(map(sum, zip(found.uses, found.refusals, strict=True)))
    bars = [
        _stack(index, (("use", uses), ("refusal", refusals)), highest, SPARK_HEIGHT)
        for index, (uses, refusals) in enumerate(zip(found.uses, found.refusals, strict=True))
    ]
    words = (
        f"{counted(sum(found.uses), 'use')} and {counted(sum(found.refusals), 'refusal')}"
        f" in {len(found.uses)} hours"
    )
    return _picture("spark", words, len(found.uses) * STEP, SPARK_HEIGHT, bars)


def chart(hours: Sequence[Hour]) -> Markup:
    """Injections, scrubs and refusals of each hour, one on the other."""
    highest = max((total(hour) for hour in hours), default=0)
    bars = [
        _stack(index, [(kind[:-1], getattr(hour, kind)) for kind in KINDS], highest, CHART_HEIGHT)
        for index, hour in enumerate(hours)
    ]
    sums = [counted(sum(getattr(hour, kind) for hour in hours), kind[:-1]) for kind in KINDS]
    words = f"{sums[0]}, {sums[1]} and {sums[2]} in the last {len(hours)} hours"
    return _picture("chart", words, len(hours) * STEP, CHART_HEIGHT, bars)


def total(hour: Hour) -> int:
    return hour.injections + hour.scrubs + hour.refusals


def _stack(index: int, parts: Sequence[tuple[str, int]], highest: int, height: int) -> Markup:
    """The parts of one bar; whatever happened at all is at least one unit high."""
    drawn, floor = Markup(""), float(height)
    for kind, number in parts:
        if not number:
            continue
        size = max(1.0, number / highest * (height - len(parts)))
        floor -= size
        drawn += Markup(
            '<rect class="bar-{}" x="{}" y="{:.1f}" width="{}" height="{:.1f}"/>'
        ).format(kind, index * STEP, floor, BAR, size)
    return drawn


def _picture(kind: str, words: str, width: int, height: int, parts: Sequence[Markup]) -> Markup:
    base = Markup('<line class="bar-base" x1="0" y1="{h}" x2="{w}" y2="{h}"/>').format(
        h=height, w=width
    )
    return Markup(
        '<svg class="{kind}" role="img" aria-label="{words}" viewBox="0 0 {w} {h}"'
        ' preserveAspectRatio="none">{base}{parts}</svg>'
    ).format(kind=kind, words=words, w=width, h=height, base=base, parts=Markup("").join(parts))
