"""The cells of the matrix: how a value is written, where it stands, how it is coded and cut.

Writings come from two sides that know nothing of each other. The table `SPELLINGS` gives every
needle that it searches for, in the letter cases that it promises, so a new row is tested as soon as
it is there. And `WRITERS` of the table's own test writes the values as other programs do, to which
broken lines are added here.

Beside each writing of a value stands the same writing of a decoy, a value that nobody registered:
it and all the text around must arrive as they are.
"""

from __future__ import annotations

import base64
import gzip
import quopri
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import brotli
import zstandard

from coatcheck.core import spelling
from coatcheck.core.redact import MASK
from tests.core.test_spelling import WRITERS

TOKEN = b"sk_live_Mx7Qp2Wz9Rt4Kd8Yn3Hb6Vc1Lf5Gj0SaUe"
PASSWORD = 'p@5 "w&rd/%+=<ü>\\ 7Jq~Zk'.encode()
# What of `Authorization: Basic` depends on the value, for a user whose name and colon are three or
# six bytes.
BASIC = base64.b64encode(TOKEN)
DECOY = b"sq_test_Bn2Lr8Xv5Cg1Fw9Hm4Zd7Kp3Ts6Jy0QeIa"
SECRETS = {"token": TOKEN, "password": PASSWORD, "basic": BASIC}
DECOYS = {
    "token": DECOY,
    "password": 'x@2 t&"\\plö>< 4Vb~=/+%Gh'.encode(),
    "basic": base64.b64encode(DECOY),
}
MARKS = {MASK.decode().encode(codec) for codec in ("utf-8", "utf-16-le", "utf-16-be")}
MARKS |= {MASK.decode().encode(codec) for codec in ("utf-32-le", "utf-32-be")}
MARKS |= {row.dress(MASK) for row in spelling.SPELLINGS}


@dataclass(frozen=True)
class Writing:
    """One value in one spelling, and the decoy in the same."""

    id: str
    text: bytes
    decoy: bytes

    @property
    def fits_a_line(self) -> bool:
        return not {*b"\r\n"} & {*self.text, *self.decoy}

    @property
    def fits_a_head(self) -> bool:
        """RFC 9110, section 5.5: no controls but the tab."""
        return all(byte >= 0x20 and byte != 0x7F for byte in self.text + self.decoy)


# --- writings ------------------------------------------------------------------------------------


@cache
def writings(*names: str) -> tuple[Writing, ...]:
    """Those of the secrets *names*; each text once."""
    found: dict[bytes, Writing] = {}
    for name in names:
        for writing in _of(name):
            found.setdefault(writing.text, writing)
    return tuple(found.values())


def _of(name: str) -> Iterator[Writing]:
    value, decoy = SECRETS[name], DECOYS[name]
    for row, how, write in [*WRITERS, *BROKEN]:
        text, other = write(value), write(decoy)
        if text and other and len(text) >= spelling.MIN_NEEDLE:
            yield Writing(f"{name}: {row}, {how}", text, other)
    for row in spelling.SPELLINGS:
        for number, (text, other) in enumerate(zip(row.make(value), row.make(decoy), strict=True)):
            yield Writing(f"{name}: {row.id}, needle {number}", text, other)
            if row.any_case:
                yield Writing(f"{name}: {row.id}, needle {number}, A-F", _upper(text), other)
                yield Writing(f"{name}: {row.id}, needle {number}, a-F", _mixed(text), other)


def _upper(text: bytes) -> bytes:
    return text.translate(bytes.maketrans(b"abcdef", b"ABCDEF"))


def _mixed(text: bytes) -> bytes:
    return b"".join(
        _upper(text[at : at + 1]) if at % 3 else text[at : at + 1] for at in range(len(text))
    )


def _aligned(shift: int, encode: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda value: encode(b"\xa5" * shift + value + b"\x5a" * (2 - shift))


def _broken(width: int, end: bytes) -> Callable[[bytes], bytes]:
    """base64 over two lines, the value at each side of the line end."""

    def write(value: bytes) -> bytes:
        text = base64.b64encode(b"\xa5" * (width * 3 // 4 - len(value) // 2) + value)
        start = len(text) - len(value) * 4 // 3 - 8  # few characters of what stands before
        kept = text[max(0, width - 64) : width], text[width:]
        return end.join(kept) if start >= 0 else text

    return write


def _mail(value: bytes) -> bytes:
    """Quoted-printable with a soft line end in it."""
    text = quopri.encodestring(value, quotetabs=True).replace(b"=\n", b"")
    half = len(text) // 2
    while b"=" in text[half - 2 : half]:  # not inside of =HH
        half += 1
    return text[:half] + b"=\r\n" + text[half:]


BROKEN: list[tuple[str, str, Callable[[bytes], bytes | None]]] = [
    *(("base64", f"alignment {n}", _aligned(n, base64.b64encode)) for n in range(3)),
    *(("base64url", f"alignment {n}", _aligned(n, base64.urlsafe_b64encode)) for n in range(3)),
    ("base64", "not padded", lambda v: base64.b64encode(b"\xa5" + v).rstrip(b"=")),
    ("base64", "64 a line, LF", _broken(64, b"\n")),
    ("base64", "64 a line, CRLF", _broken(64, b"\r\n")),
    ("base64", "64 a line, \\n in a string", _broken(64, b"\\n")),
    ("base64", "64 a line, %0A", _broken(64, b"%0A")),
    ("base64", "76 a line, CRLF", _broken(76, b"\r\n")),
    ("raw", "a line end inside", lambda v: v[: len(v) // 2] + b"\r\n" + v[len(v) // 2 :]),
    ("quoted-printable", "a soft line end", _mail),
]

# --- laid out ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A writing between known texts: *before* and *after* must arrive as they are."""

    id: str
    before: bytes
    text: bytes
    after: bytes


@dataclass(frozen=True)
class Channel:
    """Where in a response writings stand.

    Attributes:
        before, after: Known text around a writing; ``%d`` is the number of the cell.
        kind: The body's Content-Type; empty for a channel in the head.
        fits: Whether a writing can stand there at all.
    """

    id: str
    before: bytes
    after: bytes
    kind: bytes = b""
    fits: Callable[[Writing], bool] = lambda _: True

    def lay(self, found: Sequence[Writing], *, decoys: bool = True) -> tuple[Cell, ...]:
        return tuple(
            Cell(
                w.id,
                self.before % number,
                w.text,
                (b" | " + w.decoy if decoys else b"") + self.after % number,
            )
            for number, w in enumerate(filter(self.fits, found))
        )


def _in_head(writing: Writing) -> bool:
    return writing.fits_a_head


def _in_line(writing: Writing) -> bool:
    return writing.fits_a_line


HEAD_CHANNELS = (
    Channel("reason phrase", b"(%d: ", b" :%d) ", fits=_in_head),
    Channel("header value", b"(%d: ", b" :%d) ", fits=_in_head),
    Channel("Location", b"&n=%d&v=", b"&e=%d", fits=_in_head),
    Channel("Set-Cookie", b"c%d='", b"' %d, ", fits=_in_head),
    Channel("WWW-Authenticate", b'n%d="', b'" %d, ', fits=_in_head),
)
BODY_CHANNELS = (
    Channel("text/plain", b"(%d: ", b" :%d)\n", b"text/plain; charset=utf-8"),
    Channel("JSON", b'{"n": %d, "v": "', b'", "e": %d}, ', b"application/json"),
    Channel("binary", b"\0\xff\x80%d\x01", b"\x02%d\xfe\0", b"application/octet-stream"),
    Channel("SSE", b"id: %d\ndata: ", b" %d\n\n", b"text/event-stream", _in_line),
    Channel("NDJSON", b'{"n":%d,"v":"', b'","e":%d}\n', b"application/x-ndjson", _in_line),
)


def halves(cells: Sequence[Cell]) -> list[bytes]:
    """The text of *cells*, cut in the middle of each writing."""
    parts = [b""]
    for cell in cells:
        half = len(cell.text) // 2
        parts[-1] += cell.before + cell.text[:half]
        parts.append(cell.text[half:] + cell.after)
    return parts


def unlike(got: bytes, cells: Sequence[Cell]) -> list[str]:
    """The ids of the cells that did not arrive as they should: the mark, and the known text."""
    wrong, at = [], 0
    for cell in cells:
        begin = at + len(cell.before)
        end = got.find(cell.after, begin)
        if end < 0:
            return [*wrong, f"{cell.id}: its text is gone"]
        if got[at:begin] != cell.before or got[begin:end] not in MARKS:
            wrong.append(cell.id)
        at = end + len(cell.after)
    return wrong if at == len(got) else [*wrong, "more than was sent"]


# --- codings -------------------------------------------------------------------------------------

type Coder = Callable[[list[bytes]], list[bytes]]  # every part can be decoded once it is there


def deflated(bits: int) -> Coder:
    def code(parts: list[bytes]) -> list[bytes]:
        packer = zlib.compressobj(wbits=bits)
        out = [packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH) for part in parts]
        return [*out, packer.flush()]

    return code


def _members(parts: list[bytes]) -> list[bytes]:
    return [gzip.compress(b""), *map(gzip.compress, parts), gzip.compress(b"")]


def _br(parts: list[bytes]) -> list[bytes]:
    packer = brotli.Compressor(quality=4)
    return [*(packer.process(part) + packer.flush() for part in parts), packer.finish()]


def _zstd(parts: list[bytes]) -> list[bytes]:
    packer = zstandard.ZstdCompressor().compressobj()
    flush = zstandard.COMPRESSOBJ_FLUSH_BLOCK
    return [*(packer.compress(part) + packer.flush(flush) for part in parts), packer.flush()]


# By id: the lines of Content-Encoding, and the coder.
CODINGS: dict[str, tuple[tuple[bytes, ...], Coder]] = {
    "identity": ((), list),
    "gzip": ((b"gzip",), deflated(31)),
    "gzip, a member each": ((b"gzip",), _members),
    "deflate": ((b"deflate",), deflated(15)),
    "br": ((b"br",), _br),
    "zstd": ((b"zstd",), _zstd),
    "gzip in br": ((b"gzip, br",), lambda parts: _br(deflated(31)(parts))),
    "zstd in gzip, two fields": ((b"zstd", b"x-gzip"), lambda parts: deflated(31)(_zstd(parts))),
}

# --- schedules -----------------------------------------------------------------------------------


def every(size: int) -> Callable[[list[bytes]], list[bytes]]:
    def cut(parts: list[bytes]) -> list[bytes]:
        whole = b"".join(parts)
        return [whole[at : at + size] for at in range(0, len(whole), size)]

    return cut


# By id: cuts the parts, which end in the middle of each writing.
SCHEDULES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "whole": lambda parts: [b"".join(parts)],
    "1 byte": every(1),
    "7 bytes": every(7),
    "in the middle of each": list,
}
