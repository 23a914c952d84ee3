"""Takes values back out of what a destination answers, as the bytes stream by.

A net under the rules, not a rule: `docs/scrubbing.md` lists the spellings it knows, and no
decision relies on it.

What is found does not depend on how the bytes were cut into chunks, and *when* bytes are let go
does not depend on what they are. A scrubber that holds back only what may begin a value tells its
client, by the delay, that a guess is a right prefix, byte by byte. So `Redactor` always keeps the
last ``window`` bytes back, or, in a stream of events, what follows the last one that is complete.
Each event is a text of its own: nothing is looked for over its end.

Every occurrence of every needle is found, overlapping ones too, and all their bytes go. (The
leftmost-longest search that is usual for this leaves the tail of ``abacabacabac`` behind when the
value is ``abacabac``.)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn

from coatcheck.core import runs, spelling, whole_url
from coatcheck.core.needle import Needle
from coatcheck.core.search import Match, Search
from coatcheck.core.secret import SecretValue
from coatcheck.core.spelling import Spelling

MASK = b"********"  # a constant: neither the length nor the name of what it hides
_AROUND = runs.FURTHEST + runs.AFTER  # bytes to see besides a needle that a run may go on from
_STEP = 256 * 1024  # bytes scrubbed at once, so that one big chunk makes no big list of matches

# Where events end: with an empty line (WHATWG HTML, section 9.2.6), so nobody waits for more to act
# on one; or with the line that ends as JSON that is no number does. A line end alone will not do: a
# value in lines of base64 would leave line by line. Each is shorter than any window, so one that is
# not complete is never let go.
EVENT = re.compile(rb"\n\n|\r\n\r\n|\r\r")
RECORD = re.compile(rb'[}\]"]\r?\n')

type Replacement = Callable[[str], bytes]
type Values = Iterable[SecretValue]
type Tokens = Iterable[tuple[str, bytes]]
type Pieces = Sequence[bytes | memoryview]  # of what belongs together
type Span = tuple[int, int, int]  # start, -stop, index of the pattern: sorts outer before inner


@dataclass(frozen=True, slots=True)
class Hit:
    """A value was found: the secret's name and the id of the spelling, never the value."""

    secret: str
    spelling: str


@dataclass(frozen=True, slots=True)
class Pattern:
    """What is known of a needle; its bytes are in the automaton alone."""

    hits: tuple[Hit, ...]  # one for each secret that it may stand for
    mark: bytes
    run: bool
    wraps: bool


class Needles:
    """Everything to search for in the answers of one scope. Immutable; share it between requests.

    Attributes:
        longest: Bytes of the longest occurrence of a needle; 0 when there is none.
        window: Bytes that a stream has to hold back to let no needle through.
        by_event: Whether what is missed over the ends of events would be found in the lines of the
            value, but for the short ones.
    """

    __slots__ = (
        "_begins_blank",
        "_patterns",
        "_replacement",
        "_search",
        "_tokens",
        "_values",
        "by_event",
        "longest",
        "window",
    )

    def __init__(
        self,
        values: Values,
        tokens: Tokens,
        replacement: Replacement | None,
        urls: Values = (),
    ) -> None:
        self._values = tuple(values)
        self._tokens = tuple(SecretValue(name, 0, token) for name, token in tokens)
        self._replacement = replacement
        groups = [(v.name, "", _needles(v)) for v in self._values]
        groups += [(v.name, "", spelling.needles(p)) for v in urls for p in whole_url.parts(v)]
        groups += [(t.name, spelling.RENDERED, spelling.needles(t.reveal())) for t in self._tokens]
        owners: dict[Needle, dict[Hit, None]] = {}
        dresses: dict[Needle, str] = {}  # a token in UTF-16 is reported as the token that it is
        for name, told, found in groups:
            for needle, row in found.items():
                owners.setdefault(needle, {}).setdefault(Hit(name, told or row))
                dresses.setdefault(needle, row)
        owners = dict(sorted(owners.items(), key=lambda item: item[0].any_case))
        kinds: dict[Pattern, Pattern] = {}  # one object for the many needles that are alike
        patterns = (
            self._pattern(needle, tuple(hits), _ROWS[dresses[needle]])
            for needle, hits in owners.items()
        )
        self._patterns = tuple(kinds.setdefault(pattern, pattern) for pattern in patterns)
        self._search = Search([found for _, _, found in groups], owners)
        sizes = zip(owners, self._patterns, strict=True)
        self.longest = max((needle.reach() for needle in owners), default=0)
        self.window = max((n.reach() - 1 + (_AROUND if p.run else 0) for n, p in sizes), default=0)
        self._begins_blank = any(n.wraps and n.text[:1] in (b" ", b"\t") for n in owners)
        self.by_event = all(spelling.caught_by_line(v.reveal()) for v in self._values)

    @classmethod
    def build(
        cls,
        values: Values,
        tokens: Tokens = (),
        *,
        replacement: Replacement | None = None,
        urls: Values = (),
    ) -> Needles:
        """Needles for *values*, in every spelling of the table.

        Costs some 4 ms a value: build once for each scope, and many values off the loop.

        Args:
            values: What may be reflected, replaced versions too. The order breaks ties: where two
                secrets fit the same bytes, the first one's replacement is written.
            tokens: (name, bytes) of rendered forms that were sent, searched in every spelling.
            replacement: What to write for a secret of this name; None writes `MASK`.
            urls: Those of *values* that requests are sent to: their parts are searched too.

        Raises:
            spelling.TooLong: a value is over 1 MiB. Nothing may be sent that could bring it back.
        """
        return cls(values, tokens, replacement, urls)

    def redact(self, data: bytes, hits: Counter[Hit] | None = None) -> bytes:
        """*data*, one whole piece of text (a header value, a reason phrase), without values."""
        found = self._search.find(data)
        if not found:
            return data
        out, _ = _Region().write(data, len(data), self._spans(data, found), self._patterns, hits)
        return out

    def contains(self, data: bytes) -> bool:
        """Whether `redact` would change *data*."""
        return bool(self._search.find(data))

    def spans(self, data: bytes) -> Iterator[tuple[int, int, Pattern]]:
        """(start, stop, pattern) of all that is found in *data*, in order, widened to what goes
        with a run; for those who write what they let go by themselves."""
        for start, minus_stop, index in self._spans(data, self._search.find(data)):
            yield start, -minus_stop, self._patterns[index]

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def __repr__(self) -> str:
        return f"<needles of {len(self._values)} values>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} are not copied or pickled: share them")

    def _pattern(self, needle: Needle, hits: tuple[Hit, ...], row: Spelling) -> Pattern:
        rows = [_ROWS[hit.spelling] for hit in hits]
        mark = MASK if self._replacement is None else self._replacement(hits[0].secret)
        return Pattern(
            hits=hits,
            mark=row.dress(mark),
            run=any(row.run for row in rows),
            wraps=needle.wraps,
        )

    def _spans(self, data: bytes, found: list[Match], *, before: bytes = b"") -> list[Span]:
        """*found* as (start, -stop, pattern), in order, widened to what goes with a run.

        Args:
            before: What stood before *data*, as far as it can matter.
        """
        spans = []
        text = before + data
        for index, start, stop in found:
            pattern = self._patterns[index]
            if pattern.run:
                at = len(before)
                start, stop = (
                    edge - at
                    for edge in runs.widened(text, at + start, at + stop, wraps=pattern.wraps)
                )
            spans.append((max(0, start), -stop, index))
        spans.sort()
        return spans


class Redactor:
    """Scrubs one stream. Small state, one for each body.

    With *events* (`EVENT`, `RECORD`) everything up to the last of their ends is let go at once, and
    each event is scrubbed as if it were alone. A value that holds such an end is found by its
    lines, which are needles of their own. Where one has too many short lines for that
    (`Needles.by_event`), the stream is held back by the window as any other.

    Attributes:
        hits: Counts each (secret, spelling) once for each masked stretch.
    """

    __slots__ = ("_before", "_events", "_hits", "_needles", "_region", "_tail")

    def __init__(self, needles: Needles, *, events: re.Pattern[bytes] | None = None) -> None:
        self._needles = needles
        self._events = events if needles.by_event else None
        self._before = b""  # what was let go last, of the same event
        self._tail = b""
        self._region = _CLEAR
        self._hits: Counter[Hit] | None = None  # made when there is one: most streams have none

    @property
    def hits(self) -> Counter[Hit]:
        if self._hits is None:
            self._hits = Counter()
        return self._hits

    @property
    def has_hits(self) -> bool:
        """Whether anything was found so far."""
        return bool(self._hits)

    def feed(self, chunk: bytes) -> bytes:
        """Take *chunk*; return what may go on, which can be nothing."""
        if not self._needles:
            return chunk
        if len(chunk) <= _STEP:
            return self._step(self._tail + chunk)
        steps = (chunk[at : at + _STEP] for at in range(0, len(chunk), _STEP))
        return b"".join([self._step(self._tail + step) for step in steps])

    def pieces(self, chunk: bytes) -> Pieces:
        """As `feed`, in pieces. A large chunk is not copied for it where nothing is found: that
        would take half as long as to search it."""
        needles, tail = self._needles, self._tail
        upto = len(chunk) - needles.window
        if upto < runs.BEFORE or len(chunk) > _STEP or self._events is not None:
            return (self.feed(chunk),)
        if not needles or self._region.end or not needles._search.is_free(tail, chunk):
            return (self.feed(chunk),)
        self._tail = chunk[upto:]
        self._before = chunk[upto - runs.BEFORE : upto]
        return (tail, memoryview(chunk)[:upto])

    def finish(self) -> bytes:
        """The stream ended: return what was held back."""
        return self._end(self._tail)

    def __repr__(self) -> str:
        return f"<redactor with {self._needles!r}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} is not copied or pickled: it holds what it has not let go")

    def _step(self, data: bytes) -> bytes:
        if self._events is None and len(data) <= self._needles.window and not self._region.end:
            self._tail = data  # nothing may go yet, so there is nothing to search
            return b""
        found = self._needles._search.find(data)
        ends = [] if self._events is None else [end.end() for end in self._events.finditer(data)]
        if not ends:
            return self._write(data, self._upto(data), found)
        if found or self._region.end or self._needles._begins_blank:
            return self._event_by_event(data, ends)
        # Where nothing is found in all of them, nothing would be in one: the search overlooks more
        # in a longer text only where a line end is overlooked with the blanks behind it.
        upto = max(ends[-1], self._upto(data))
        self._tail = data[upto:]
        self._before = data[max(ends[-1], upto - runs.BEFORE) : upto]
        return data[:upto]

    def _event_by_event(self, data: bytes, ends: list[int]) -> bytes:
        out, search = [], self._needles._search
        for start, end in pairwise((0, *ends)):
            out.append(self._end(data[start:end]))
        rest = data[ends[-1] :]
        out.append(self._write(rest, self._upto(rest), search.find(rest)))
        return b"".join(out)

    def _end(self, rest: bytes) -> bytes:
        """*rest* of an event or of the stream; what follows has nothing to do with it."""
        out = self._write(rest, len(rest), self._needles._search.find(rest))
        self._before, self._region = b"", _CLEAR
        return out

    def _upto(self, data: bytes) -> int:
        return max(0, len(data) - self._needles.window)

    def _write(self, data: bytes, upto: int, found: list[Match]) -> bytes:
        needles, before = self._needles, self._before
        self._tail = data[upto:]
        gone = data[max(0, upto - runs.BEFORE) : upto]
        self._before = (before + gone)[-runs.BEFORE :]
        if not found and not self._region.end:
            return data[:upto]
        spans = needles._spans(data, found, before=before)
        out, self._region = self._region.write(data, upto, spans, needles._patterns, self.hits)
        return out


class _Region:
    """The masked stretch at the front of what a stream has not let go yet.

    Attributes:
        end: Data before this index is masked, and its mark is written. 0: there is no stretch.
        run: Up to here a run of base64 characters was followed; never more than `end`.
        run_on: The run may go on with the bytes that are still to come.
        seen: What was counted in this stretch.
    """

    __slots__ = ("end", "run", "run_on", "seen")

    def __init__(
        self, end: int = 0, run: int = 0, seen: Iterable[Hit] = (), *, run_on: bool = False
    ) -> None:
        self.end = end
        self.run = run
        self.run_on = run_on
        self.seen = frozenset(seen)

    def write(
        self,
        data: bytes,
        upto: int,
        spans: list[Span],
        patterns: tuple[Pattern, ...],
        hits: Counter[Hit] | None,
    ) -> tuple[bytes, _Region]:
        """``data[:upto]`` without the masked stretches, and the state for ``data[upto:]``.

        *spans* are in order and complete up to *upto*: none that begins before it is still to come.
        Bytes are looked at once: a run that was followed to its end is not followed again.
        """
        out: list[bytes] = []
        end, run, seen = self.end, self.run, set(self.seen)
        if self.run_on:
            run = runs.end(data, run)
            end = max(end, run)
        for start, minus_stop, index in spans:
            if start >= upto:
                break
            pattern, stop = patterns[index], -minus_stop
            if start >= end:
                out += data[end:start], pattern.mark
                end = start
                seen = set()
            if pattern.run and stop > run:
                run = runs.end(data, stop)
                end = max(end, run)
            end = max(end, stop)
            for hit in pattern.hits:
                if hit not in seen:
                    seen.add(hit)
                    if hits is not None:
                        hits[hit] += 1
        out.append(data[end:upto])
        rest = _Region(
            max(0, end - upto), max(0, run - upto), seen, run_on=run > 0 and run == len(data)
        )
        return b"".join(out), rest


_ROWS = {row.id: row for row in spelling.SPELLINGS}
_CLEAR = _Region()  # where no stretch is masked; `write` makes a new one


def _needles(value: SecretValue) -> dict[Needle, str]:
    try:
        return spelling.needles(value.reveal())
    except spelling.TooLong as error:
        raise spelling.TooLong(f"secret {value.name!r}: {error}") from None
