"""As much of HTTP/1.1 as both ends need: heads that they wrote themselves, bodies of any framing.

It is strict where that shows a fault of a proxy: a body of no known length, or a broken chunk, is
an error and no answer.
"""

from __future__ import annotations

from collections.abc import Iterator


class Broken(Exception):
    """What came is no answer, or no request."""


class Body:
    """Takes the framing away, and says when the body has ended."""

    def __init__(self, head: bytes) -> None:
        """*head* is a whole one; a request without a framing has no body."""
        fields = head.lower().split(b"\r\n")[1:]
        lengths = [int(f[15:]) for f in fields if f.startswith(b"content-length:")]
        chunked = any(f.startswith(b"transfer-encoding:") and b"chunked" in f for f in fields)
        if len(lengths) + chunked > 1:
            raise Broken("two framings")
        self.framed = bool(lengths) or chunked
        self._chunked = chunked
        self._left = lengths[0] if lengths else 0  # bytes, of the body or of this chunk
        self._line = b""  # what came of the line that is read
        self._in_data = bool(lengths)
        self._last = False
        self.done = not chunked and self._left == 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Pieces of the body in *data*."""
        at = 0
        while at < len(data):
            if self.done:
                raise Broken("bytes behind the end")
            if self._in_data:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                self._in_data = self._left > 0
                self.done = not self._chunked and not self._in_data
                yield piece
                continue
            end = data.find(b"\n", at)
            self._line += data[at : end + 1 if end >= 0 else len(data)]
            at = end + 1 if end >= 0 else len(data)
            if end >= 0:
                self._take_line(self._line)
                self._line = b""

    def _take_line(self, line: bytes) -> None:
        """A chunk's size, the line's end behind a chunk, or a trailer."""
        text = line.rstrip(b"\r\n")
        if self._last:
            self.done = not text
        elif text:
            self._left = int(text.partition(b";")[0], 16)
            self._in_data = self._left > 0
            self._last = not self._in_data


def split(data: bytes) -> tuple[bytes, bytes] | None:
    """Head, with its empty line, and what follows; None while the head is not whole."""
    end = data.find(b"\r\n\r\n")
    return None if end < 0 else (data[: end + 4], data[end + 4 :])


def check_status(head: bytes) -> None:
    """Raise `Broken` unless the answer is a 200."""
    line = head.partition(b"\r\n")[0]
    if line.split(b" ", 2)[1:2] != [b"200"]:
        raise Broken(line.decode("latin-1"))


class Same:
    """Whether a body is so many repetitions of one block, looked at as it comes."""

    def __init__(self, block: bytes, size: int) -> None:
        self._block, self._twice, self._size = block, block * 2, size
        self._at = 0
        self._right = True

    def feed(self, piece: bytes) -> None:
        for start in range(0, len(piece), len(self._block)):
            part = piece[start : start + len(self._block)]
            offset = self._at % len(self._block)
            self._right = self._right and self._twice.startswith(part, offset)
            self._at += len(part)

    @property
    def right(self) -> bool:
        return self._right and self._at == self._size
