"""The leak detector: does any 8 bytes in a row of a canary stand in these bytes, in any writing?

Two ways at once, so that neither a mixed spelling nor a lone piece gets by. The text is searched
for each window of 8 bytes, as it is, in other letter case, in UTF-16, reversed, and as base64 at
three alignments. And whatever in it can be decoded (content codings, base64, base32, hex, percent,
JSON, HTML, quoted-printable) is decoded and searched again, to a depth of 3. It shares no code
with the scrubber, which enumerates spellings and decodes nothing.

Some windows are public: placeholders, boundaries and tags inside of a value, and the armour lines
of PEM.
"""

from __future__ import annotations

import base64
import binascii
import html
import quopri
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import brotli
import zstandard
from ahocorasick_rs import BytesAhoCorasick

WINDOW = 8  # bytes
DEPTH = 3
MAX_DECODED = 8 << 20  # bytes out of one decoder; what is larger is searched as far as that
_PUBLIC = re.compile(
    rb"-----[A-Z ]+-----|--BOUND|</script>|(?:\{\{|%7B%7B)[^}%]*(?:\}\}|%7D%7D)|[\x20\r\n\t=-]{8}"
)


@dataclass(frozen=True)
class Leak:
    """*canary* (its name) was found after *path* of decoders; *window* of its bytes."""

    canary: str
    path: tuple[str, ...]
    window: bytes

    def __str__(self) -> str:
        return f"{self.canary} via {'/'.join(self.path) or 'raw'}"


class Detector:
    """Knows the canaries; `find` looks for them."""

    def __init__(self, canaries: Mapping[str, bytes]) -> None:
        self._owners: list[tuple[str, bytes]] = []
        needles: dict[bytes, tuple[str, bytes]] = {}
        for name, value in canaries.items():
            for window in _windows(value):
                for needle in _forms(window, short=len(value) <= 4096):
                    needles.setdefault(needle, (name, window))
        self._owners = list(needles.values())
        self._search = BytesAhoCorasick(list(needles))

    def find(self, data: bytes) -> list[Leak]:
        """What leaks in *data*; each canary once per way of writing."""
        found: dict[tuple[str, tuple[str, ...]], Leak] = {}
        seen: set[bytes] = set()
        for path, text in _readings(data, (), seen):
            for index, _, _ in self._search.find_matches_as_indexes(text):
                name, window = self._owners[index]
                found.setdefault((name, path), Leak(name, path, window))
        return list(found.values())


def _windows(value: bytes) -> Iterator[bytes]:
    public = [match.span() for match in _PUBLIC.finditer(value)]
    for start in range(len(value) - WINDOW + 1):
        stop = start + WINDOW
        if not any(start < end and begin < stop for begin, end in public):
            yield value[start:stop]


def _forms(window: bytes, *, short: bool) -> Iterator[bytes]:
    yield window
    if not short:
        return
    yield window[::-1]
    if window.isascii():
        yield window.decode().encode("utf-16-le")
        yield window.decode().encode("utf-16-be")
        # A window of few letters in one case would be found in ordinary text.
        if sum(chr(byte).isalpha() for byte in window) >= 4:
            yield window.lower()
            yield window.upper()
    for skip in range(3):
        # The characters that are settled by these bytes alone, whatever stands beside them.
        inner = window[(3 - skip) % 3 :]
        inner = inner[: len(inner) // 3 * 3]
        if len(inner) >= 6:
            yield base64.b64encode(inner)
            yield base64.urlsafe_b64encode(inner)


def _readings(
    data: bytes, path: tuple[str, ...], seen: set[bytes]
) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """*data*, and all that can be decoded from it, deeper and deeper."""
    if data in seen:
        return
    seen.add(data)
    yield path, data
    if len(path) == DEPTH:
        return
    for name, decode in DECODERS.items():
        for text in decode(data):
            if len(text) >= WINDOW and text != data:
                yield from _readings(text, (*path, name), seen)


# --- decoders: bytes in, every reading out -------------------------------------------------------


def _compressed(data: bytes) -> Iterator[bytes]:
    """gzip and zlib, wherever in *data* a stream begins; several members one after the other."""
    for match in re.finditer(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]", data):
        yield _inflate(data[match.start() :], zlib.MAX_WBITS | 32)
    if len(data) < 1 << 16:
        yield _inflate(data, -zlib.MAX_WBITS)


def _inflate(data: bytes, bits: int) -> bytes:
    out = b""
    while data and len(out) < MAX_DECODED:
        reader = zlib.decompressobj(bits)
        try:
            out += reader.decompress(data, MAX_DECODED)
        except zlib.error:
            break
        data = reader.unused_data
        if bits < 0:
            break
    return out


def _brotli(data: bytes) -> Iterator[bytes]:
    # No mark says where a stream begins: tried at the start, and behind a head.
    for part in {data, data.partition(b"\r\n\r\n")[2]}:
        reader, out = brotli.Decompressor(), b""
        try:
            for at in range(0, len(part), 256):
                out += reader.process(part[at : at + 256])
        except brotli.error:
            pass
        yield out[:MAX_DECODED]


def _zstd(data: bytes) -> Iterator[bytes]:
    for match in re.finditer(rb"\x28\xb5\x2f\xfd", data):
        reader = zstandard.ZstdDecompressor().stream_reader(
            data[match.start() :], read_across_frames=True
        )
        out = b""
        try:
            while (block := reader.read(1 << 16)) and len(out) < MAX_DECODED:
                out += block
        except zstandard.ZstdError:
            pass
        yield out


def _runs(pattern: bytes, decode: Callable[[bytes], bytes]) -> Callable[[bytes], Iterator[bytes]]:
    expression = re.compile(pattern)

    def readings(data: bytes) -> Iterator[bytes]:
        for match in expression.finditer(data):
            try:
                yield decode(match[0])
            except (binascii.Error, ValueError):
                continue

    return readings


def _base64(run: bytes) -> bytes:
    """Every alignment of *run*, since its start may belong to something else."""
    plain = re.sub(rb"[\r\n=]", b"", run).translate(bytes.maketrans(b"-_", b"+/"))
    parts = []
    for skip in range(4):
        part = plain[skip:]
        part = part[: len(part) // 4 * 4]
        parts.append(base64.b64decode(part))
    return b"\0\0".join(parts)


def _base32(run: bytes) -> bytes:
    plain = run.rstrip(b"=")
    return base64.b32decode(plain[: len(plain) // 8 * 8], casefold=True)


def _hex(run: bytes) -> bytes:
    digits = re.sub(rb"0x|[^0-9A-Fa-f]", b"", run)
    return (
        bytes.fromhex(digits[: len(digits) // 2 * 2].decode())
        + b"\0\0"
        + bytes.fromhex(digits[1 : 1 + (len(digits) - 1) // 2 * 2].decode())
    )


_ESCAPE = re.compile(
    rb"\\(?:u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]{1,6})\}|x([0-9A-Fa-f]{2})|([0-7]{3})|([\"'\\/bfnrt]))"
)
_SHORT = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def _unescape(match: re.Match[bytes]) -> bytes:
    if code := match[1] or match[2]:
        return chr(min(int(code, 16), 0x10FFFF)).encode("utf-8", "surrogatepass")
    if code := match[3]:
        return bytes([int(code, 16)])
    if code := match[4]:
        return bytes([int(code, 8) & 0xFF])
    return _SHORT.get(match[5], match[5])


def _backslashes(data: bytes) -> Iterator[bytes]:
    if b"\\" in data:
        yield _ESCAPE.sub(_unescape, data)


def _percent(data: bytes) -> Iterator[bytes]:
    if b"%" in data:
        yield unquote_to_bytes(data)
    if b"+" in data:
        yield unquote_to_bytes(data.replace(b"+", b" "))


def _html(data: bytes) -> Iterator[bytes]:
    if b"&" in data:
        # As Latin-1, so that bytes outside a reference stay what they are.
        text = html.unescape(data.decode("latin-1"))
        yield "".join(text).encode("latin-1", "replace")
        yield html.unescape(data.decode("utf-8", "replace")).encode("utf-8", "replace")


def _quoted_printable(data: bytes) -> Iterator[bytes]:
    if b"=" in data:
        yield quopri.decodestring(data)


def _dechunked(data: bytes) -> Iterator[bytes]:
    """Without the lines of the chunked coding, which may stand in the middle of a value."""
    if b"\r\n" in data:
        yield re.sub(rb"\r\n(?:[0-9a-fA-F]{1,8}\r\n)?", b"", data)


DECODERS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "zlib": _compressed,
    "br": _brotli,
    "zstd": _zstd,
    "base64": _runs(rb"[A-Za-z0-9+/_-]{11,}(?:\r?\n[A-Za-z0-9+/_-]+)*=*", _base64),
    "base32": _runs(rb"[A-Za-z2-7]{13,}=*", _base32),
    "hex": _runs(rb"[0-9A-Fa-f]{16,}|(?:(?:0x|\\x|:| )?[0-9A-Fa-f]{2}[,: ]?){8,}", _hex),
    "backslash": _backslashes,
    "percent": _percent,
    "html": _html,
    "quoted-printable": _quoted_printable,
    "chunks": _dechunked,
}
