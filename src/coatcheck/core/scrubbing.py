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
from coatcheck.core.message import Fields, ResponseHead, list_members, without
from coatcheck.core.problems import Code, Refused, refuse
from coatcheck.core.redact import EVENT, RECORD, Hit, Needles, Redactor

type Steps = Callable[[], Iterable[bytes]]

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
    """Puts one response through *searches*, one after the other.

    Attributes:
        head_hits, body_hits, trailer_hits: What was found, for the audit record.
    """

    def __init__(self, searches: Sequence[Needles], limits: Limits) -> None:
        self.head_hits: Counter[Hit] = Counter()
        self.trailer_hits: Counter[Hit] = Counter()
        self._searches = searches
        self._limits = limits
        self._redactors: list[Redactor] = []
        self._decoder: coding.Decoder | None = None

    @property
    def body_hits(self) -> Counter[Hit]:
        return sum((redactor.hits for redactor in self._redactors), Counter[Hit]())

    @property
    def found(self) -> bool:
        """Whether anything was taken out so far."""
        if self.head_hits or self.trailer_hits:
            return True
        return any(redactor.hits for redactor in self._redactors)

    @property
    def by_channel(self) -> dict[str, Counter[Hit]]:
        """What was found so far, by the channel it was found in."""
        return {"head": self.head_hits, "body": self.body_hits, "trailers": self.trailer_hits}

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
        if not any(needles.contains(whole) for needles in self._searches):
            return ResponseHead(head.status, head.reason, fields)
        reason = redact(self._searches, head.reason, self.head_hits)
        return ResponseHead(head.status, reason, self._clean(fields, self.head_hits))

    def trailers(self, fields: Fields) -> Fields:
        """*fields* of a trailer section without values."""
        return self._clean(fields, self.trailer_hits)

    @property
    def is_coded(self) -> bool:
        """A few bytes of the body may stand for many."""
        return self._decoder is not None

    def feed(self, chunk: bytes) -> bytes:
        """What may leave for *chunk* of the body. Raises `Refused`: response_withheld."""
        if self._decoder is None:
            return self._through(chunk) if self._redactors else b""
        return b"".join(self.steps(chunk))

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
            if not any(needles.contains(key) for needles in self._searches)
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
    kinds = head.all(b"content-type")
    return (
        head.status in (PARTIAL_CONTENT, IM_USED)
        or bool(head.all(b"content-range"))
        or bool(head.all(b"im"))
        or any(kind.strip().lower().startswith(b"multipart/byteranges") for kind in kinds)
    )


def _events(head: ResponseHead) -> re.Pattern[bytes] | None:
    kinds = {value.partition(b";")[0].strip().lower() for value in head.all(b"content-type")}
    ends = {EVENTS[kind] for kind in kinds & EVENTS.keys()}
    return ends.pop() if len(ends) == 1 else None
