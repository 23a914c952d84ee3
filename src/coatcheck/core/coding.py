"""Takes content codings off a body in bounded steps (RFC 9110, section 8.4).

A few hundred kilobytes can stand for gigabytes, so nothing here decodes "all of it": output comes
lazily, at most `STEP` bytes at a time, and every layer's output is counted, the inner ones too (a
bomb can collapse to nothing in its last layer). What a receiver might read differently from us is
an error and not a guess: a stream that ends early, bytes after its end, a coding we do not know.

Two deliberate leniencies, both common on the wire: ``deflate`` may be zlib data (RFC 1950, as RFC
9110 says) or a raw stream (RFC 1951, as many senders do), and a body of no bytes at all is empty
whatever its codings are.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from enum import Enum, auto
from typing import Literal, NoReturn, Protocol

import brotli  # type: ignore[import-untyped]
import zstandard

STEP = 64 * 1024  # bytes; the most that one step of output holds
RATIO_GRACE = 1024 * 1024  # bytes of output before the ratio counts: small bodies pack well
MAX_LAYERS = 8  # codings on one body; each costs memory, and nobody stacks more than two
_SLICE = 16 * 1024  # bytes of input taken at once; a decoder copies what it has not used
_RUN_LENGTH = 1  # the block type whose content is one byte (RFC 8878, section 3.1.1.2.2)
_ZSTD_WINDOW = 8 * 1024 * 1024  # bytes; the most that RFC 9659 lets a sender ask for

type Kind = Literal["unknown", "broken", "too_large"]


class CodingError(Exception):
    """A body that cannot be decoded. ``kind`` says whether its coding is unknown, its data is
    broken, or its decoded size is over the bound. The text holds no byte of the body."""

    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Layer(Protocol):
    """One coding being taken off."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What *data* decodes to, in steps of at most `STEP` bytes.

        Raises:
            CodingError: "broken".
        """

    def is_complete(self) -> bool:
        """Whether the input so far is a whole stream, or nothing at all."""


class Decoder:
    """Takes all codings off one body. Exhaust what `feed` returns before the next call."""

    def __init__(self, layers: Sequence[Layer], *, max_size: int | None, max_ratio: int) -> None:
        self._layers = layers
        self._max_size = max_size
        self._max_ratio = max_ratio
        self._received = 0
        self._produced = [0] * len(layers)
        self._failed = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Decode *chunk*, lazily, in steps of at most `STEP` bytes.

        The ratio is judged against what was fed so far, this chunk included.

        Raises:
            CodingError: "broken" or "too_large"; the decoder is of no use afterwards.
        """
        if self._failed:
            _broken("it failed before")
        self._received += len(chunk)
        try:
            yield from self._pump(0, chunk)
        except CodingError:
            self._failed = True
            raise

    def finish(self) -> Iterator[bytes]:
        """Declare the end of the body. Checked at once, not when the result is iterated.

        Raises:
            CodingError: "broken": the body ended too early.
        """
        if self._failed or not all(layer.is_complete() for layer in self._layers):
            _broken("it ends too early")
        return iter(())

    def _pump(self, index: int, data: bytes) -> Iterator[bytes]:
        layer = self._layers[index]
        last = index + 1 == len(self._layers)
        for piece in layer.feed(data):
            self._count(index, len(piece))
            if last:
                yield piece
            else:
                yield from self._pump(index + 1, piece)

    def _count(self, index: int, size: int) -> None:
        total = self._produced[index] = self._produced[index] + size
        if self._max_size is not None and total > self._max_size:
            raise CodingError("too_large", f"the body decodes to more than {self._max_size} bytes")
        if total > RATIO_GRACE and total > self._received * self._max_ratio:
            raise CodingError("too_large", f"the body expands more than {self._max_ratio} times")


def decoder(codings: Sequence[bytes], *, max_size: int | None, max_ratio: int) -> Decoder | None:
    """A decoder for a body with these codings; None if there is nothing to take off.

    Args:
        codings: The members of Content-Encoding, in the order in which they were applied.
        max_size: The most bytes that any layer may produce; None for no bound.
        max_ratio: How many times the size of its input any layer's output may have, once it is
            over `RATIO_GRACE` bytes.

    Raises:
        CodingError: "unknown": a coding we do not know, or more than `MAX_LAYERS`.
    """
    names = [name for coding in codings if (name := coding.strip(b" \t").lower())]
    names = [name for name in names if name != b"identity"]
    if len(names) > MAX_LAYERS:
        raise CodingError("unknown", f"more than {MAX_LAYERS} content codings")
    if any(name not in LAYERS for name in names):
        known = ", ".join(sorted(name.decode() for name in LAYERS))
        raise CodingError("unknown", f"a content coding other than {known}")
    if not names:
        return None
    layers = [LAYERS[name]() for name in reversed(names)]
    return Decoder(layers, max_size=max_size, max_ratio=max_ratio)


class _Gzip:
    """gzip with any number of members (RFC 1952, section 2.2)."""

    def __init__(self) -> None:
        self._member = _new_member()
        self._started = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        for rest in _slices(data):
            while rest:
                if self._member.eof:
                    self._member = _new_member()
                self._started = True
                yield from _inflate(self._member, rest)
                rest = self._member.unused_data

    def is_complete(self) -> bool:
        return self._member.eof or not self._started


class _Deflate:
    """zlib data, or a raw stream: told apart by the first two bytes (RFC 1950, section 2.2).

    No encoder writes a raw stream that passes for zlib data: it would begin with a stored block
    whose padding bits are not zero.
    """

    def __init__(self) -> None:
        self._head = b""
        self._stream: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._stream is None:
            self._head += data[:2]
            data = data[2:]
            if len(self._head) < 2:
                return
            data = self._head + data
            first, second = self._head[:2]
            is_zlib = first & 0x0F == 8 and first >> 4 <= 7 and (first << 8 | second) % 31 == 0
            self._stream = zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)
        for piece in _slices(data):
            if self._stream.eof:
                _broken("bytes follow its end")
            yield from _inflate(self._stream, piece)
            if self._stream.unused_data:
                _broken("bytes follow its end")

    def is_complete(self) -> bool:
        return self._stream.eof if self._stream is not None else not self._head


class _Brotli:
    """br (RFC 7932)."""

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()
        self._started = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        for piece in _slices(data):
            self._started = True
            out = self._process(piece)
            # `can_accept_more_data` speaks of input only: output may wait after it says yes.
            while out or not self._stream.can_accept_more_data():
                yield from _steps(out)
                out = b"" if self._stream.is_finished() else self._process(b"")

    def is_complete(self) -> bool:
        return bool(self._stream.is_finished()) or not self._started

    def _process(self, data: bytes) -> bytes:
        try:
            out: bytes = self._stream.process(data, output_buffer_limit=STEP)
        except brotli.error:
            _broken("br data")
        return out


class _Zstd:
    """zstd: frames and skippable frames, any number of them (RFC 8878, section 3.1).

    The library's streaming object returns all that its input decodes to, and four bytes can stand
    for 128 KiB. So frames are taken apart here as far as their block headers, and the library is
    given parts of one block at a time: no block decodes to more than 128 KiB (3.1.1.2.4).
    """

    def __init__(self) -> None:
        self._library = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._at_border = True
        # It knows nothing of this object: two that hold each other would keep the window of a
        # body that was broken off until the garbage collector comes by.
        self._layout = _zstd_layout()
        self._size, self._whole, _ = next(self._layout)
        self._head = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        view = memoryview(data)
        while view:
            part = bytes(view[: min(self._size - len(self._head), _SLICE)])
            view = view[len(part) :]
            if self._frame is not None:
                yield from _steps(_decompress(self._frame, part))
            self._advance(part)

    def is_complete(self) -> bool:
        return self._at_border and not self._head

    def _advance(self, part: bytes) -> None:
        if self._whole:
            self._head += part
        else:
            self._size -= len(part)
        while len(self._head) == self._size:
            head, self._head = self._head, b""
            self._size, self._whole, now = self._layout.send(head)
            if now is _Zone.FRAME and self._frame is None:
                self._frame = self._library.decompressobj()
                _decompress(self._frame, head)
            elif now is _Zone.BORDER and self._frame is not None:
                if not self._frame.eof:
                    _broken("a zstd frame does not end where it says")
                self._frame = None
            self._at_border = now is _Zone.BORDER


class _Zone(Enum):
    """Where the bytes that come next lie."""

    BORDER = auto()  # the magic number of a frame
    SKIPPED = auto()  # a skippable frame
    FRAME = auto()


def _zstd_layout() -> Generator[tuple[int, bool, _Zone], bytes, None]:
    """Yields how many bytes come next, whether they are wanted whole, and where they lie; is sent
    those that are."""
    while True:
        magic = yield 4, True, _Zone.BORDER
        if magic[1:] == b"\x2a\x4d\x18" and magic[0] >> 4 == 5:
            length = yield 4, True, _Zone.SKIPPED
            yield int.from_bytes(length, "little"), False, _Zone.SKIPPED
            continue
        if magic != zstandard.FRAME_HEADER:
            _broken("no zstd frame begins there")
        descriptor = (yield 1, True, _Zone.FRAME)[0]
        single = descriptor >> 5 & 1
        content_size = (single, 2, 4, 8)[descriptor >> 6]
        window = 1 - single
        yield window + (0, 1, 2, 4)[descriptor & 3] + content_size, True, _Zone.FRAME
        last = 0
        while not last:
            header = int.from_bytes((yield 3, True, _Zone.FRAME), "little")
            last, kind, size = header & 1, header >> 1 & 3, header >> 3
            yield (1 if kind == _RUN_LENGTH else size), False, _Zone.FRAME
        yield (4 if descriptor & 4 else 0), True, _Zone.FRAME


LAYERS: dict[bytes, Callable[[], Layer]] = {
    b"gzip": _Gzip,
    b"x-gzip": _Gzip,  # RFC 9110, section 8.4.1.3: the same
    b"deflate": _Deflate,
    b"br": _Brotli,
    b"zstd": _Zstd,
}


def _new_member() -> zlib._Decompress:
    return zlib.decompressobj(16 + zlib.MAX_WBITS)


def _inflate(stream: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    """What *data* inflates to. Stops at the stream's end; the rest is in ``unused_data``."""
    while not stream.eof:
        try:
            out = stream.decompress(data, STEP)
        except zlib.error:
            _broken("deflate data")
        if out:
            yield out
        data = stream.unconsumed_tail
        # A full step may hide more output even where no input is left (the rest of a match).
        if not data and len(out) < STEP:
            return


def _decompress(frame: zstandard.ZstdDecompressionObj, data: bytes) -> bytes:
    try:
        return frame.decompress(data)
    except zstandard.ZstdError:
        _broken("zstd data")


def _slices(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _SLICE):
        yield data[start : start + _SLICE]


def _steps(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), STEP):
        yield data[start : start + STEP]


def _broken(what: str) -> NoReturn:
    raise CodingError("broken", f"the coded body is broken: {what}")
