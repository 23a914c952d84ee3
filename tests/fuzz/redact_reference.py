"""What the scrubber is to answer, worked out naively: no automaton, no probe, no stream.

It takes the needles from the table of spellings and shares no other line with the scrubber. The
rules are written as loops over positions, so that each can be read on its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from coatcheck.core import spelling

MASK = "********"
MASKS = {
    "utf-16": MASK.encode("utf-16-le")[:-1],
    "utf-16le": MASK.encode("utf-16-le"),
    "utf-16be": MASK.encode("utf-16-be"),
    "utf-32": MASK.encode("utf-32-le")[:-3],
    "utf-32le": MASK.encode("utf-32-le"),
    "utf-32be": MASK.encode("utf-32-be"),
}
RUNS = {"rendered", "base64", "base64url", "base32"}
RUN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")
LEFT = 64
LINE = 60
WIDTHS = 64, 76
ESCAPED_CHARS = re.compile(rb"\\/|%2[BbFf]|\\u002[BbFf]|&#43;|&#47;|&#x2[BbFf];")
LINE_END = re.compile(rb"(?:=?\r\n|=?\n|=?\r|\\r\\n|\\n|\\r|%0[Dd]%0[Aa]|%0[DdAa])[ \t]{0,16}")
EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
RECORD_ENDS = tuple(last + end for last in (b"}", b"]", b'"') for end in (b"\n", b"\r\n"))


class Reference:
    """Scrubs whole texts of *values*, the first of which wins where two fit the same bytes."""

    def __init__(self, values: Sequence[bytes]) -> None:
        rows: dict[tuple[bool, bytes, bool], list[str]] = {}
        for value in values:
            for needle, row in spelling.needles(value).items():
                rows.setdefault((needle.any_case, needle.text, needle.wraps), []).append(row)
        self.needles = [
            (text, any_case, wraps, MASKS.get(found[0], MASK.encode()), not RUNS.isdisjoint(found))
            for (any_case, text, wraps), found in sorted(rows.items(), key=lambda row: row[0][0])
        ]

    def redact_events(self, data: bytes, ends: Sequence[bytes]) -> bytes:
        """*data* without the values, each event by itself; *ends* are what one ends with."""
        out, event = b"", b""
        for at in range(len(data)):
            event += data[at : at + 1]
            if event.endswith(tuple(ends)):
                out, event = out + self.redact(event), b""
        return out + self.redact(event)

    def redact(self, data: bytes) -> bytes:
        """*data* without the values."""
        spans = []
        cases = {False: data, True: re.sub(rb"[A-F]+", lambda m: m[0].lower(), data)}
        kept = _kept(data)
        unbroken = (
            {any_case: bytes(text[at] for at, _ in kept) for any_case, text in cases.items()}
            if len(kept) < len(data)
            else {}
        )
        for rank, (text, any_case, wraps, mask, run) in enumerate(self.needles):
            found = [(at, at + len(text)) for at in _places(text, cases[any_case])]
            if wraps and unbroken:
                found += _broken(_places(text, unbroken[any_case]), len(text), kept)
            for start, stop in found:
                if run:
                    first = _left(data, start, wraps)
                    last = _right(data, stop, wraps)
                    spans.append((first, -last, rank, mask, _run_end(data, last)))
                else:
                    spans.append((start, -stop, rank, mask, stop))
        out, end = b"", 0
        for start, _, _, mask, stop in sorted(spans):
            if start >= end:
                out += data[end:start] + mask
            end = max(end, stop)
        return out + data[end:]


def _places(text: bytes, data: bytes) -> Iterator[int]:
    at = data.find(text)
    while at >= 0:
        yield at
        at = data.find(text, at + 1)


def _kept(data: bytes) -> list[tuple[int, int]]:
    """The places of *data* that are not of a line end, and how many line ends stand before each."""
    places: list[tuple[int, int]] = []
    at = ends = 0
    for found in LINE_END.finditer(data):
        places += ((place, ends) for place in range(at, found.start()))
        at, ends = found.end(), ends + 1
    return [*places, *((place, ends) for place in range(at, len(data)))]


def _broken(
    places: Iterator[int], size: int, kept: list[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """The occurrences that hold line ends, `LINE` characters and more from one to the next."""
    for at in places:
        inside = kept[at : at + size]
        lines: dict[int, int] = dict.fromkeys(range(inside[0][1], inside[-1][1] + 1), 0)
        for _, ends in inside:
            lines[ends] += 1
        whole = list(lines.values())[1:-1]  # the first and the last may be of any length
        if len(lines) > 1 and all(length >= LINE for length in whole):
            yield inside[0][0], inside[-1][0] + 1


def _left(data: bytes, start: int, wraps: bool) -> int:
    first = _back(data, start, LEFT)
    taken = start - first
    while taken < 3 and (sizes := _escaped_before(data, first)):
        taken += 1
        at = first - max(sizes)
        first = _back(data, at, 3 - taken)
        taken += max(0, at - first)
    if wraps and taken < 3:
        for at in range(max(0, first - 23), first):
            if LINE_END.fullmatch(data, at, first):
                return at - 3 if _is_line(data, at) else first
    return first


def _escaped_before(data: bytes, at: int) -> list[int]:
    """The sizes of escaped characters of a run that end at *at*."""
    return [s for s in range(2, min(6, at) + 1) if ESCAPED_CHARS.fullmatch(data, at - s, at)]


def _right(data: bytes, stop: int, wraps: bool) -> int:
    last = _three_after(data, stop)
    ending = LINE_END.match(data, last)
    if wraps and ending and _is_line(data, last):
        beyond = _three_after(data, ending.end())
        if beyond > ending.end():
            return beyond
    return last


def _three_after(data: bytes, at: int) -> int:
    for _ in range(3):
        escaped = ESCAPED_CHARS.match(data, at)
        if escaped:
            at = escaped.end()
        elif at < len(data) and data[at] in RUN:
            at += 1
    return at


def _run_end(data: bytes, at: int) -> int:
    while at < len(data) and (data[at] in RUN or data[at] == ord("=")):
        at += 1
    return at


def _is_line(data: bytes, stop: int) -> bool:
    return stop - _back(data, stop, max(WIDTHS) + 6) in WIDTHS


def _back(data: bytes, stop: int, most: int) -> int:
    at = stop
    while at > 0 and stop - at < most and data[at - 1] in RUN:
        at -= 1
    return _uncut(data, at, stop)


def _uncut(data: bytes, at: int, stop: int) -> int:
    """*at*, unless that is inside of an escape: then behind it, or before it if *stop* cuts it."""
    leads = [lead for lead in range(max(0, at - 5), at) if data[lead : lead + 1] in (b"\\", b"%")]
    if not leads:
        return at
    lead = leads[-1]
    form = rb"%[0-9A-Fa-f]{2}"
    if data[lead] == ord("\\"):
        slashes = 0
        while slashes < min(18, lead + 1) and data[lead - slashes] == ord("\\"):
            slashes += 1
        if slashes % 2 == 0:
            return at
        form = rb"\\(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[0-7]{1,3}|[\x00-\xff])"
    escape = re.match(form, data[lead:])
    if not escape:
        return at
    return lead if lead + escape.end() > stop else max(at, lead + escape.end())
