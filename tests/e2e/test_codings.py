"""Content codings on the way back: undone and searched, or withheld, and never gone through.

Each row is played into the lane without a socket, where the answer comes in one piece and in
single bytes, and once through `coatcheck serve`. What is withheld is a refusal; only where its head
was on its way already, since the beginning was right, the body is broken off instead.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import brotli
import pytest
import zstandard

from coatcheck.core import coding
from coatcheck.core.limits import Limits
from tests.e2e import harness
from tests.e2e.harness import Proxy, api_only
from tests.e2e.scripts import Scripts, answer
from tests.e2e.test_matrix import Heard
from tests.e2e.wire import Answer, Dial, request
from tests.e2e.world import World
from tests.engine import wire as lanes

VALUE = b"wildcard-5d0f12ab34"  # of wild.key, which the shared proxy knows
TEXT = b"before " + VALUE + b" between " + VALUE.hex().encode() + b" after"
CLEAN = b"before ******** between ******** after"
MIB = 1 << 20


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def skippable(size: int) -> bytes:
    return struct.pack("<II", 0x184D2A53, size) + b"\xaa" * size


def singly(pack: Callable[[bytes], bytes]) -> bytes:
    return b"".join(pack(TEXT[at : at + 1]) for at in range(len(TEXT)))


EMPTY = gzip.compress(b"")
GZIPPED = gzip.compress(TEXT)
PACKED = {
    "gzip": GZIPPED,
    "deflate": zlib.compress(TEXT),
    "br": brotli.compress(TEXT),
    "zstd": zstandard.compress(TEXT),
}
WITH_DICTIONARY = zstandard.ZstdCompressor(dict_data=zstandard.ZstdCompressionDict(TEXT * 9))
# Python has codecs of some of these names, which are no content codings.
UNKNOWN = b"compress", b"bogus", b"aws-chunked", b"base64", b"rot13", b"dcb", b"utf-16"
# What is sent as Content-Encoding (a line each), and the body.
READ: dict[str, tuple[Sequence[bytes], bytes]] = {
    "gzip": ([b"gzip"], GZIPPED),
    "gzip, a thousand members": ([b"gzip"], EMPTY * 450 + singly(gzip.compress) + EMPTY * 500),
    "gzip, the value in the last member": (
        [b"gzip"],
        gzip.compress(TEXT[:7]) + gzip.compress(TEXT[7:]),
    ),
    "gzip, an empty first member": ([b"gzip"], EMPTY + GZIPPED),
    "gzip, with a name and a comment": (
        [b"gzip"],
        b"\x1f\x8b\x08\x18"
        + bytes(6)
        + b"name\0comment\0"
        + raw_deflate(TEXT)
        + struct.pack("<II", zlib.crc32(TEXT), len(TEXT)),
    ),
    "x-gzip": ([b"x-gzip"], GZIPPED),
    "in capital letters": ([b"GZIP"], GZIPPED),
    "deflate, zlib data": ([b"deflate"], zlib.compress(TEXT)),
    "deflate, a raw stream": ([b"deflate"], raw_deflate(TEXT)),
    "br": ([b"br"], brotli.compress(TEXT)),
    "zstd": ([b"zstd"], zstandard.compress(TEXT)),
    "zstd, a frame a byte": ([b"zstd"], singly(zstandard.compress)),
    "zstd, skippable frames": (
        [b"zstd"],
        skippable(9) + zstandard.compress(TEXT) + skippable(70_000),
    ),
    "gzip twice": ([b"gzip, gzip"], gzip.compress(GZIPPED)),
    "gzip, then br": ([b"gzip, br"], brotli.compress(GZIPPED)),
    "gzip, then br, in two fields": ([b"gzip", b"br"], brotli.compress(GZIPPED)),
    "identity beside it": ([b"identity", b"gzip"], GZIPPED),
    "empty members of the list": ([b", ,gzip, ,"], GZIPPED),
    "identity alone": ([b"Identity"], TEXT),
    "four codings": (
        [b"zstd, deflate, br, gzip"],
        gzip.compress(brotli.compress(zlib.compress(zstandard.compress(TEXT)))),
    ),
}
WITHHELD: dict[str, tuple[Sequence[bytes], bytes]] = {
    **{f"{name}, truncated": ([name.encode()], data[:-1]) for name, data in PACKED.items()},
    **{
        f"{name}, cut in half": ([name.encode()], data[: len(data) // 2])
        for name, data in PACKED.items()
    },
    **{
        f"{name}, bytes behind it": ([name.encode()], data + VALUE) for name, data in PACKED.items()
    },
    **{f"{name}, not coded at all": ([name.encode()], TEXT) for name in PACKED},
    "gzip, really br": ([b"gzip"], brotli.compress(TEXT)),
    "gzip, a wrong checksum": ([b"gzip"], GZIPPED[:-8] + b"\0\0\0\0" + GZIPPED[-4:]),
    "gzip, a broken second member": ([b"gzip"], GZIPPED + GZIPPED[:-3]),
    "a broken inner layer": ([b"gzip, br"], brotli.compress(GZIPPED[:-2])),
    "the wrong order": ([b"br, gzip"], brotli.compress(GZIPPED)),
    "zstd with a dictionary": ([b"zstd"], WITH_DICTIONARY.compress(TEXT)),
    "parameters": ([b"gzip;q=1"], GZIPPED),
    **{f"unknown: {name.decode()}": ([name], TEXT) for name in UNKNOWN},
    "an unknown one among others": ([b"gzip", b"bogus"], GZIPPED),
    "too many": ([b"gzip, " * 8 + b"gzip"], GZIPPED),
}


def coded(lines: Sequence[bytes], body: bytes, *more: bytes) -> bytes:
    return answer(body, *(b"Content-Encoding: " + line for line in lines), *more)


def through_the_lane(data: bytes, step: int | None = None) -> Answer:
    wire = lanes.Wire(lanes.a_gateway(secrets={"key": VALUE}))
    wire.send(lanes.a_get())
    step = step or len(data)
    out = b"".join([wire.answer(data[at : at + step]) for at in range(0, len(data), step)])
    assert VALUE not in out
    return Heard(out).read()


@pytest.mark.parametrize("step", [None, 7], ids=["lane, whole", "lane, 7 bytes"])
@pytest.mark.parametrize(("lines", "body"), READ.values(), ids=READ.keys())
def test_what_can_be_read_is_searched(
    lines: Sequence[bytes], body: bytes, step: int | None
) -> None:
    """It goes on as identity, by a length that fits what it is now."""
    got = through_the_lane(coded(lines, body), step)

    assert (got.status, got.body) == (200, CLEAN)
    assert {value.lower() for value in got.all("content-encoding")} <= {b"identity"}
    assert got.all("content-length") == []


@pytest.mark.parametrize(("lines", "body"), WITHHELD.values(), ids=WITHHELD.keys())
def test_what_cannot_be_read_is_withheld(lines: Sequence[bytes], body: bytes) -> None:
    got = through_the_lane(coded(lines, body))

    assert (got.status, got.code) == (502, "response_withheld")


def test_serve_reads_or_withholds_all_of_these(runner: Dial, scripts: Scripts) -> None:
    """The same rows through the real proxy, with the value of a secret that it knows."""
    for name, (lines, body) in READ.items():
        path = scripts.add(coded(lines, body))
        with runner.tunnel() as wire:
            got = wire.get(path)
        assert (got.status, got.body) == (200, CLEAN), name
        assert VALUE not in got.raw
    for name, (lines, body) in WITHHELD.items():
        path = scripts.add(coded(lines, body))
        with runner.tunnel() as wire:
            wire.send(request("GET", path))
            try:
                assert wire.read().code == "response_withheld", name
            except ConnectionError:
                assert wire.is_closed(), name  # the beginning was right, and on its way
            assert VALUE not in bytes(wire.seen), name


# --- what has no body, and what is a part --------------------------------------------------------


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_without_a_body_a_coding_is_told_of_and_no_more(
    status: bytes, runner: Dial, scripts: Scripts
) -> None:
    head = b"HTTP/1.1 " + status + b'\r\nContent-Encoding: gzip\r\nETag: "' + VALUE + b'"\r\n\r\n'
    path = scripts.add(head)
    with runner.tunnel() as wire:
        got = wire.get(path)
        assert got.all("content-encoding") == [b"gzip"]
        assert got.all("transfer-encoding") == got.all("content-length") == []
        assert got.one("etag") == b'"********"'
        assert wire.get(scripts.add(answer(TEXT))).body == CLEAN  # the framing was right


def test_head_of_a_coded_answer(runner: Dial, scripts: Scripts) -> None:
    """The length is the one announced: nobody knows what it would be once searched."""
    path = scripts.add(answer(b"", b"Content-Encoding: br", length=1234))
    with runner.tunnel() as wire:
        got = wire.ask(request("HEAD", path), is_head=True)
        assert (got.one("content-encoding"), got.one("content-length")) == (b"br", b"1234")
        assert wire.get(scripts.add(answer(TEXT))).body == CLEAN


RANGES = b"multipart/byteranges; boundary=x"
PARTS = {
    "206": answer(TEXT, status=b"206 Partial Content"),
    "Content-Range": answer(TEXT, b"Content-Range: bytes 0-9/99"),
    "several ranges": answer(TEXT, status=b"206 Partial Content", kind=RANGES),
    "several ranges, called whole": answer(TEXT, kind=RANGES.title()),
    "a coded part": coded([b"gzip"], GZIPPED, b"Content-Range: bytes 0-9/99"),
}


@pytest.mark.parametrize("data", PARTS.values(), ids=PARTS.keys())
def test_a_part_of_a_whole_is_withheld(data: bytes, runner: Dial, scripts: Scripts) -> None:
    path = scripts.add(data)
    with runner.tunnel() as wire:
        got = wire.get(path, "Range: bytes=0-9")
    assert got.code == "response_withheld"
    assert VALUE not in got.raw


def test_where_nothing_is_searched_a_coding_stays(proxy: Proxy, scripts: Scripts) -> None:
    """The positive side: codings, ranges and lengths of other hosts are nobody's business."""
    host = "evil.example.test"
    for data in (coded([b"gzip"], GZIPPED), coded([b"bogus"], TEXT), PARTS["206"]):
        path = scripts.add(data)
        with proxy.dial(harness.OTHER).tunnel(host) as wire:
            assert wire.get(path, host=host).raw == data


# --- bombs ---------------------------------------------------------------------------------------


def repeated(first: bytes, again: bytes, times: int) -> bytes:
    return first + again * times


def zlib_bomb(bits: int, mib: int) -> bytes:
    """*mib* MiB of zeros in blocks that need not be made one by one; it has no end."""
    packer = zlib.compressobj(9, wbits=bits)
    full = zlib.Z_FULL_FLUSH
    first = packer.compress(bytes(8 * MIB)) + packer.flush(full)
    return repeated(first, packer.compress(bytes(8 * MIB)) + packer.flush(full), mib // 8 - 1)


def zstd_bomb(mib: int) -> bytes:
    """Blocks of a repeated byte (RFC 8878, section 3.1.1.2.2): 4 bytes for 128 KiB."""
    block = (128 * 1024 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    return zstandard.FRAME_HEADER + b"\0\x58" + block * (8 * mib)


GIB = 1024  # MiB
BOMBS: dict[str, tuple[bytes, Callable[[], bytes]]] = {
    "gzip": (b"gzip", lambda: zlib_bomb(31, 4 * GIB)),
    "deflate": (b"deflate", lambda: zlib_bomb(15, 4 * GIB)),
    "br": (b"br", lambda: brotli.compress(bytes(256 * MIB), quality=1)),
    "zstd": (b"zstd", lambda: zstd_bomb(16 * GIB)),
    "zstd, many frames": (b"zstd", lambda: zstandard.compress(bytes(8 * MIB)) * 2000),
    "gzip, many members": (b"gzip", lambda: gzip.compress(bytes(8 * MIB)) * 500),
    "nested": (b"gzip, gzip", lambda: gzip.compress(zlib_bomb(31, 4 * GIB))),
    "nested, in zstd": (b"gzip, zstd", lambda: zstandard.compress(zlib_bomb(31, 4 * GIB))),
    "members of nothing": (b"gzip, zstd", lambda: zstandard.compress(EMPTY * 2_000_000)),
}
CPU_S, MEMORY_KIB = 2.0, 64 * 1024


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_no_broken_body(name: str) -> None:
    """Or it would be withheld for that."""
    codings, make = BOMBS[name]
    taken = coding.decoder(codings.split(b","), max_size=16 * MIB, max_ratio=10**9)
    assert taken is not None
    with pytest.raises(coding.CodingError) as error:
        for _ in taken.feed(make()):
            pass
    assert error.value.kind == "too_large"


@pytest.fixture(scope="module")
def bombed(world: World, folder: Path, upstream_ca: Path) -> Iterator[Proxy]:
    """A proxy of its own: the most memory that it ever had is of a whole process."""
    policy = harness.CLIENTS + 'grants:\n  - {secrets: ["*"], clients: [runner]}\n'
    home = harness.make_home(folder / "bombed", {"key": api_only(VALUE)}, policy)
    made = Proxy(world, home, upstream_ca)
    try:
        yield made.wait_ready()
    finally:
        made.stop()


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_withheld_early(name: str, bombed: Proxy, scripts: Scripts) -> None:
    """Measured in the proxy's own time and memory, so that a busy machine does not matter."""
    codings, make = BOMBS[name]
    path = scripts.add(coded([codings], make()))
    dial = bombed.dial(harness.RUNNER)
    with dial.tunnel() as wire:
        assert wire.get(scripts.add(answer(TEXT))).body == CLEAN
        cpu, memory = bombed.cpu_s(), bombed.peak_memory_kib()
        wire.send(request("GET", path))
        received = 0
        try:
            got = wire.read()
            assert got.code == "response_withheld"
        except OSError:
            received = len(wire.seen)  # the first MiB is nobody's bomb, and may have left
    assert bombed.cpu_s() - cpu < CPU_S
    assert bombed.peak_memory_kib() - memory < MEMORY_KIB
    assert received <= Limits().decoded_ratio * MIB
    with dial.tunnel() as wire:
        assert wire.get(scripts.add(answer(TEXT))).body == CLEAN
