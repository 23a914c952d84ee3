"""What a server says over a WebSocket, searched as it streams; values taken out.

All data messages are one text to the search, and all payloads of control frames are another: so a
value is found wherever fragments or messages cut it. What is held back does not depend on what it
is (`redact` says why): of a message under way, the last ``window`` bytes; of complete messages,
what lies within the last ``window`` bytes, for a while or until more comes. When a message
has been let go it stays in the search: if a value turns out to go on in the next one, what comes of
it there is masked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from coatcheck.core import runs
from coatcheck.core.redact import Hit, Needles
from coatcheck.core.websocket import (
    MAX_CONTROL,
    MAX_REASON,
    FrameReader,
    Mended,
    Opcode,
    Utf8,
    frame,
    read_close,
)

MAX_HELD = 256  # messages at once


class Channel:
    """Messages one after the other as one text. Bytes in, bytes out, cut where they were cut.

    Attributes:
        hits: What was found since they were last taken.
    """

    def __init__(self) -> None:
        self.hits: Counter[Hit] = Counter()
        self._searches: Sequence[Needles] = ()
        self._window = 0
        self._data = b""  # what was let go and still counts, then what is held back
        self._new: list[bytes] = []
        self._size = 0  # of both together
        self._done = 0  # up to here it was let go
        self._masked = 0  # up to here it is masked, and the mark is written
        self._run_on = False  # the masked run may go on
        self._seen = 0  # up to here it was counted
        self._ends: list[int] = []  # where messages end that are held back
        self._due = 0  # how many of them have waited
        self._open = False  # a message is under way

    def search(self, searches: Sequence[Needles]) -> None:
        """From now on search for these."""
        self._searches = searches
        self._window = max((needles.window for needles in searches), default=0)

    def add(self, data: bytes, *, ends: bool) -> None:
        self._new.append(data)
        self._size += len(data)
        self._open = not ends
        if ends:
            self._ends.append(self._size)

    @property
    def waiting(self) -> bool:
        """Whole messages are held back."""
        return bool(self._ends)

    def begin_wait(self) -> None:
        """The messages that are held back now are due at the next `take_due`."""
        self._due = len(self._ends)

    def take_due(self) -> list[bytes]:
        """As `take`, and what has waited."""
        return self._take(self._due)

    def take_all(self) -> list[bytes]:
        """As `take`; of complete messages nothing is held back."""
        return self._take(len(self._ends))

    def take(self) -> list[bytes]:
        """What may go: the rest of each message that is let go, then what may go of the next."""
        return self._take(0)

    def _take(self, count: int) -> list[bytes]:
        data = b"".join([self._data, *self._new])
        self._new = []
        upto = max(self._done, len(data) - self._window)
        if self._ends and self._ends[-1] > upto:
            # A message that is complete goes as one, not in two pieces.
            upto = max(self._before(upto), self._done)
        if count:
            upto = max(upto, self._ends[count - 1])
        stops = [end for end in self._ends if end <= upto]
        self._ends = self._ends[len(stops) :]
        self._due = max(0, self._due - len(stops))
        out, masked, run_on = self._clean(data, [*stops, upto])
        cut = max(0, upto - self._window - runs.BEFORE)
        self._data, self._size = data[cut:], len(data) - cut
        self._done, self._seen = upto - cut, len(data) - cut
        self._masked = max(masked - cut, self._done)
        self._run_on = run_on and self._open
        self._ends = [end - cut for end in self._ends]
        return out

    def _before(self, upto: int) -> int:
        """Where the last message ends that ends by *upto*."""
        return max((end for end in self._ends if end <= upto), default=0)

    def _clean(self, data: bytes, stops: list[int]) -> tuple[list[bytes], int, bool]:
        """``data`` from `_done` to each of *stops*, up to where it is masked, and `_run_on`."""
        spans = self._spans(data)
        at, end, run = self._done, self._masked, 0
        bounds = [*stops[:-1], *self._ends, len(data)]  # of messages
        if self._run_on:
            run = min(runs.end(data, end), _first(bounds, end))
            end = max(end, run)
        out: list[bytes] = []
        index = message = 0
        for stop in stops:
            parts: list[bytes] = []
            while index < len(spans) and spans[index][0] < stop:
                start, span_stop, is_run, mark = spans[index]
                index += 1
                if start >= end:
                    parts += data[max(at, end) : start], mark
                    at = end = start
                end = max(end, span_stop)
                if is_run and span_stop > run:
                    while bounds[message] < span_stop:
                        message += 1
                    run = min(runs.end(data, span_stop), bounds[message])
                    end = max(end, run)
            parts.append(data[max(at, end) : stop])
            at = stop
            out.append(b"".join(parts))
        return out, end, run > 0 and run == len(data)

    def _spans(self, data: bytes) -> list[tuple[int, int, bool, bytes]]:
        """(start, stop, whether a run goes with it, mark) of all that is found in *data* and is not
        over yet, in order."""
        spans = []
        for needles in self._searches:
            for start, stop, pattern in needles.spans(data):
                if stop <= self._done:
                    continue
                if stop > self._seen:
                    self.hits.update(pattern.hits)
                spans.append((max(start, self._done), stop, pattern.run, pattern.mark))
        spans.sort(key=lambda span: (span[0], -span[1]))
        return spans


def _first(bounds: list[int], at: int) -> int:
    return next(bound for bound in bounds if bound >= at)


@dataclass
class _Message:
    """A message that is under way to the client."""

    opcode: Opcode
    text: Mended | None
    begun: bool = False


class ServerScrubber:
    """Frames of a server in, frames for its client out.

    Attributes:
        closed: The server's close frame was passed on; nothing follows it.
    """

    def __init__(self) -> None:
        self._reader = FrameReader(masked=False)
        self._text: Utf8 | None = None  # of the message that is being read
        self._reading = False
        self._messages: list[_Message] = []  # read, or being read, and not let go whole
        self._data = Channel()
        self._control = Channel()

    @property
    def closed(self) -> bool:
        return self._reader.closed

    @property
    def waiting(self) -> bool:
        """Whole messages are held back until `wake` or `flush`."""
        return self._data.waiting

    def search(self, searches: Sequence[Needles]) -> None:
        """From now on search for these."""
        self._data.search(searches)
        self._control.search(searches)

    def take_hits(self) -> Counter[Hit]:
        hits = self._data.hits + self._control.hits
        self._data.hits, self._control.hits = Counter(), Counter()
        return hits

    def feed(self, data: bytes) -> bytes:
        """Raises `BadFrame`."""
        out: list[bytes] = []
        for part in self._reader.feed(data):
            if part.opcode is Opcode.CLOSE:  # the last of all
                close = self._controlled(part.opcode, part.payload)
                return b"".join([*out, self.flush(), close])
            if part.is_control:
                out.append(self._controlled(part.opcode, part.payload))
                continue
            if len(self._messages) > MAX_HELD:
                out.append(self.flush())
            if not self._reading:
                is_text = part.opcode is Opcode.TEXT
                self._text = Utf8() if is_text else None
                self._messages.append(_Message(part.opcode, Mended() if is_text else None))
            self._reading = not part.ends
            if self._text is not None:
                self._text.feed(part.payload, last=part.ends)
            self._data.add(part.payload, ends=part.ends)
        return b"".join([*out, self._let_go(self._data.take())])

    def begin_wait(self) -> None:
        """The messages that are held back now are due at `wake`."""
        self._data.begin_wait()

    def wake(self) -> bytes:
        """What was held back at `begin_wait`."""
        return self._let_go(self._data.take_due())

    def flush(self) -> bytes:
        """Every message that is complete."""
        return self._let_go(self._data.take_all())

    def _let_go(self, taken: list[bytes]) -> bytes:
        *whole, rest = taken
        out = [self._written(self._messages.pop(0), payload, ends=True) for payload in whole]
        if rest:
            out.append(self._written(self._messages[0], rest, ends=False))
        return b"".join(out)

    def _written(self, message: _Message, payload: bytes, *, ends: bool) -> bytes:
        if message.text is not None:
            payload = message.text.feed(payload, last=ends)
        if not payload and not ends:
            return b""
        opcode = Opcode.CONTINUATION if message.begun else message.opcode
        message.begun = True
        return frame(opcode, payload, fin=ends)

    def _controlled(self, opcode: Opcode, payload: bytes) -> bytes:
        code = b""
        if opcode is Opcode.CLOSE:
            code, payload = read_close(payload)
        self._control.add(payload, ends=True)
        clean = self._control.take_all()[0]
        if opcode is Opcode.CLOSE:
            clean = clean.decode("utf-8", "replace").encode()
        # A mark may be longer than what it stands for.
        clean = clean if len(clean) <= (MAX_REASON if code else MAX_CONTROL) else b""
        return frame(opcode, code + clean)
