"""One response on its way to the client: head and body searched, values taken out.

What cannot be read cannot be searched, so it is withheld: unknown or broken codings, parts of a
whole. Nothing is collected; what the redactor holds back does not depend on the content.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from coatcheck.core import coding
from coatcheck.core.limits import Limits
from coatcheck.core.message import Fields, ResponseHead, by_name, list_members, without
from coatcheck.core.problems import Code, Refused, refuse
from coatcheck.core.redact import EVENT, RECORD, Hit, Needles, Pieces, Redactor

type Steps = Callable[[], Iterable[bytes]]

HEAD, TRAILERS = "head", "trailers"
PARTIAL_CONTENT = 206
IM_USED = 226
EVENTS = {
    b"text/event-stream": EVENT,
    b"application/x-ndjson": RECORD,
    b"application/ndjson": RECORD,
    b"application/jsonl": RECORD,
    b"application/json-seq": RECORD,
}


class Scrubbing:
    """Puts one response through *searches*, one after the other."""

    def __init__(self, searches: Sequence[Needles], limits: Limits) -> None:
        self._hits: dict[str, Counter[Hit]] = {}  # of head and trailers; most have none
        self._searches = searches
        self._limits = limits
        self._redactors: list[Redactor] = []
        self._decoder: coding.Decoder | None = None

    @property
    def found(self) -> bool:
        """Whether anything was taken out so far."""
        if self._hits:
            return True
        for redactor in self._redactors:  # noqa: SIM110 a generator takes longer
            if redactor.has_hits:
                return True
        return False

    @property
    def by_channel(self) -> dict[str, Counter[Hit]]:
        """What was found so far, by the channel it was found in; for the audit record."""
        none = Counter[Hit]()
        body = sum((redactor.hits for redactor in self._redactors), none)
        head, trailers = self._hits.get(HEAD, none), self._hits.get(TRAILERS, none)
        return {HEAD: head, "body": body, TRAILERS: trailers}

    def head(self, head: ResponseHead, *, has_body: bool) -> ResponseHead:
        """*head* without values, and ready for the body.

        Raises:
            Refused: response_withheld.
        """
        if _is_partial(head):
            raise _withheld("a partial response cannot be searched for values")
        fields = self._plan_body(head) if has_body else head.fields
        # One look at everything: most heads hold nothing, and a value lies within one part.
        whole = b"\n".join([head.reason, *[part for field in fields for part in field]])
        if not contains(self._searches, whole):
            return ResponseHead(head.status, head.reason, fields)
        hits = Counter[Hit]()
        reason = redact(self._searches, head.reason, hits)
        clean = self._clean(fields, hits)
        if hits:
            self._hits[HEAD] = hits
        return ResponseHead(head.status, reason, clean)

    def trailers(self, fields: Fields) -> Fields:
        """*fields* of a trailer section without values."""
        hits = Counter[Hit]()
        clean = self._clean(fields, hits)
        if hits:
            self._hits[TRAILERS] = hits
        return clean

    @property
    def is_coded(self) -> bool:
        """A few bytes of the body may stand for many."""
        return self._decoder is not None

    def feed(self, chunk: bytes) -> bytes:
        """What may leave for *chunk* of the body. Raises `Refused`: response_withheld."""
        return b"".join(self.pieces(chunk))

    def pieces(self, chunk: bytes) -> Pieces:
        """As `feed`, in pieces."""
        if self._decoder is not None:
            return tuple(self.steps(chunk))
        if not self._redactors:
            return ()
        *former, last = self._redactors
        for redactor in former:
            chunk = redactor.feed(chunk)
        return last.pieces(chunk)

    def steps(self, chunk: bytes) -> Iterator[bytes]:
        """As `feed`, in steps: what may leave after each."""
        decoder = self._decoder
        if decoder is None:
            return iter((self.feed(chunk),))
        return self._redacted(lambda: decoder.feed(chunk))

    def finish(self) -> bytes:
        """What is left at the end of the body. Raises as `feed`."""
        decoder = self._decoder
        rest = b"".join(self._redacted(decoder.finish)) if decoder is not None else b""
        tail = b""
        for redactor in self._redactors:  # what one lets go at its end the next has yet to see
            tail = redactor.feed(tail) + redactor.finish()
        return rest + tail

    def _clean(self, fields: Fields, hits: Counter[Hit]) -> Fields:
        return tuple(
            (key, redact(self._searches, value, hits))
            for key, value in fields
            if not contains(self._searches, key)
        )

    def _plan_body(self, head: ResponseHead) -> Fields:
        try:
            self._decoder = coding.decoder(
                list(list_members(head.all(b"content-encoding"))),
                max_size=None,
                max_ratio=self._limits.decoded_ratio,
            )
        except coding.CodingError:
            raise _withheld("its content coding is not known") from None
        events = _events(head)
        self._redactors = [Redactor(needles, events=events) for needles in self._searches]
        if self._decoder is None:
            return head.fields
        return without(head.fields, b"content-encoding")

    def _redacted(self, steps: Steps) -> Iterator[bytes]:
        if self._redactors:  # else it is a body that the head did not announce
            for step in _guarded(steps):
                yield self._through(step)

    def _through(self, data: bytes) -> bytes:
        for redactor in self._redactors:
            data = redactor.feed(data)
        return data


def redact(searches: Sequence[Needles], data: bytes, hits: Counter[Hit] | None = None) -> bytes:
    """*data*, one whole piece of text, without anything that one of *searches* finds."""
    for needles in searches:
        data = needles.redact(data, hits)
    return data


def contains(searches: Sequence[Needles], data: bytes) -> bool:
    """Whether `redact` would change *data*."""
    for needles in searches:  # noqa: SIM110 a generator takes longer than the search
        if needles.contains(data):
            return True
    return False


def _guarded(steps: Steps) -> Iterator[bytes]:
    try:
        yield from steps()
    except coding.CodingError:
        raise _withheld("its content coding is broken or expands too far") from None


def _withheld(why: str) -> Refused:
    return refuse(
        Code.RESPONSE_WITHHELD,
        f"The response was withheld: {why}.",
        hint="ask for the whole response without content coding",
    )


def _is_partial(head: ResponseHead) -> bool:
    """A slice of a whole (RFC 9110, section 14) or a change to one (RFC 3229), whatever its status
    says: a client that asks for one byte at a time must not get a value in slices."""
    named = by_name(head.fields)
    if head.status in (PARTIAL_CONTENT, IM_USED) or b"content-range" in named or b"im" in named:
        return True
    for kind in named.get(b"content-type", ()):
        if kind.strip().lower().startswith(b"multipart/byteranges"):
            return True
    return False


def _events(head: ResponseHead) -> re.Pattern[bytes] | None:
    kinds = {value.partition(b";")[0].strip().lower() for value in head.all(b"content-type")}
    if kinds.isdisjoint(EVENTS):
        return None
    ends = {EVENTS[kind] for kind in kinds & EVENTS.keys()}
    return ends.pop() if len(ends) == 1 else None
