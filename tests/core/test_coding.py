"""Content codings come off in bounded steps, and whatever is ambiguous is an error."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck.core import coding
from coatcheck.core.coding import CodingError

TEXT = b"Two coats, one ticket. " * 40


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def zstd(data: bytes, **options: object) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)  # type: ignore[arg-type]


def skippable(size: int, nibble: int = 0) -> bytes:
    magic = (0x184D2A50 + nibble).to_bytes(4, "little")
    return magic + size.to_bytes(4, "little") + b"\xaa" * size


PACK: dict[bytes, Callable[[bytes], bytes]] = {
    b"gzip": gzip.compress,
    b"deflate": zlib.compress,
    b"br": brotli.compress,
    b"zstd": zstd,
}


def decode(
    codings: list[bytes],
    data: bytes,
    *,
    step: int | None = None,
    max_size: int | None = None,
    max_ratio: int = 10_000,
) -> bytes:
    decoder = coding.decoder(codings, max_size=max_size, max_ratio=max_ratio)
    assert decoder is not None
    out = []
    step = step or len(data) or 1
    for start in range(0, len(data), step):
        for piece in decoder.feed(data[start : start + step]):
            assert 0 < len(piece) <= coding.STEP
            out.append(piece)
    out += decoder.finish()
    return b"".join(out)


GOOD = [
    pytest.param([b"gzip"], gzip.compress(TEXT), id="gzip"),
    pytest.param([b"x-gzip"], gzip.compress(TEXT), id="x-gzip is gzip"),
    pytest.param([b"GZip"], gzip.compress(TEXT), id="a coding's name has no letter case"),
    pytest.param([b" gzip\t"], gzip.compress(TEXT), id="nor white space"),
    pytest.param(
        [b"gzip"],
        b"".join(gzip.compress(TEXT[i : i + 100]) for i in range(0, len(TEXT), 100)),
        id="gzip of many members",
    ),
    pytest.param(
        [b"gzip"], gzip.compress(b"") * 3 + gzip.compress(TEXT), id="gzip with empty members"
    ),
    pytest.param([b"deflate"], zlib.compress(TEXT), id="deflate is zlib data"),
    pytest.param([b"deflate"], raw_deflate(TEXT), id="deflate is a raw stream, too"),
    pytest.param([b"br"], brotli.compress(TEXT), id="br"),
    pytest.param([b"zstd"], zstd(TEXT), id="zstd"),
    pytest.param([b"zstd"], zstd(TEXT, write_checksum=True), id="zstd with a checksum"),
    pytest.param([b"zstd"], zstd(TEXT, write_content_size=False), id="zstd of unknown size"),
    pytest.param([b"zstd"], zstd(TEXT[:99]) + zstd(TEXT[99:]), id="zstd of several frames"),
    pytest.param(
        [b"zstd"],
        skippable(7) + zstd(TEXT) + skippable(0, 15) + skippable(70_000, 3),
        id="zstd with skippable frames",
    ),
    pytest.param([b"identity", b"gzip"], gzip.compress(TEXT), id="identity counts for nothing"),
    pytest.param([b"", b"gzip"], gzip.compress(TEXT), id="nor does an empty member"),
    pytest.param([b"gzip", b"br"], brotli.compress(gzip.compress(TEXT)), id="last on, first off"),
    pytest.param(
        [b"zstd", b"deflate", b"gzip"],
        gzip.compress(zlib.compress(zstd(TEXT))),
        id="three codings",
    ),
    pytest.param([b"gzip", b"gzip"], gzip.compress(gzip.compress(TEXT)), id="the same one twice"),
]


@pytest.mark.parametrize("step", [None, 1, 7])
@pytest.mark.parametrize(("codings", "data"), GOOD)
def test_a_coded_body_decodes(codings: list[bytes], data: bytes, step: int | None) -> None:
    assert decode(codings, data, step=step) == TEXT


@pytest.mark.parametrize("codings", [[], [b"identity"], [b"Identity", b""]])
def test_nothing_to_take_off_gives_no_decoder(codings: list[bytes]) -> None:
    assert coding.decoder(codings, max_size=None, max_ratio=1) is None


@pytest.mark.parametrize(
    "codings",
    [
        pytest.param([b"compress"], id="one that nobody uses any more"),
        pytest.param([b"base64"], id="a Python codec is no content coding"),
        pytest.param([b"gzip", b"rot13"], id="one unknown among known ones"),
        pytest.param([b"gzip;q=1"], id="a parameter"),
        pytest.param([b"gzip"] * (coding.MAX_LAYERS + 1), id="too many layers"),
    ],
)
def test_unknown_codings_are_said_to_be_unknown(codings: list[bytes]) -> None:
    with pytest.raises(CodingError) as caught:
        coding.decoder(codings, max_size=None, max_ratio=1)
    assert caught.value.kind == "unknown"


@pytest.mark.parametrize("name", PACK)
class TestBroken:
    """What two receivers could read differently is an error, in one piece and in many."""

    @pytest.mark.parametrize("step", [None, 1])
    def test_every_truncation(self, name: bytes, step: int | None) -> None:
        data = PACK[name](TEXT)
        for length in range(1, len(data)):
            with pytest.raises(CodingError) as caught:
                decode([name], data[:length], step=step)
            assert caught.value.kind == "broken", length

    @pytest.mark.parametrize("step", [None, 1])
    @pytest.mark.parametrize("garbage", [b"\x00", b"x", b"garbage at the end", b"\x1f"])
    def test_bytes_after_the_end(self, name: bytes, garbage: bytes, step: int | None) -> None:
        with pytest.raises(CodingError) as caught:
            decode([name], PACK[name](TEXT) + garbage, step=step)
        assert caught.value.kind == "broken"

    def test_bytes_after_an_end_that_fills_a_step_exactly(self, name: bytes) -> None:
        for size in (coding.STEP - 1, coding.STEP, 2 * coding.STEP):
            data = PACK[name](bytes(size))
            assert decode([name], data) == bytes(size)
            with pytest.raises(CodingError):
                decode([name], data + b"x")

    def test_something_else_altogether(self, name: bytes) -> None:
        with pytest.raises(CodingError) as caught:
            decode([name], b"<html>not coded at all</html>" * 10)
        assert caught.value.kind == "broken"

    def test_a_broken_inner_layer(self, name: bytes) -> None:
        with pytest.raises(CodingError) as caught:
            decode([name, b"gzip"], gzip.compress(PACK[name](TEXT)[:-1]))
        assert caught.value.kind == "broken"

    def test_no_bytes_at_all_are_an_empty_body(self, name: bytes) -> None:
        assert decode([name], b"") == b""

    def test_a_coded_empty_body(self, name: bytes) -> None:
        assert decode([name], PACK[name](b"")) == b""


def test_a_decoder_that_failed_stays_failed() -> None:
    decoder = coding.decoder([b"gzip"], max_size=None, max_ratio=1)
    assert decoder is not None
    with pytest.raises(CodingError):
        list(decoder.feed(b"not gzip at all"))
    with pytest.raises(CodingError):
        list(decoder.feed(gzip.compress(TEXT)))
    with pytest.raises(CodingError):
        decoder.finish()


def test_the_end_is_judged_even_if_nobody_looks_at_the_result() -> None:
    decoder = coding.decoder([b"gzip"], max_size=None, max_ratio=1)
    assert decoder is not None
    list(decoder.feed(gzip.compress(TEXT)[:-1]))
    with pytest.raises(CodingError):
        decoder.finish()


def test_a_zstd_window_over_eight_mebibytes_is_refused() -> None:
    """RFC 9659: a receiver need not, and so a sender must not."""
    parameters = zstandard.ZstdCompressionParameters(window_log=24)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(CodingError) as caught:
        decode([b"zstd"], packer.compress(TEXT) + packer.flush())
    assert caught.value.kind == "broken"


class TestBounds:
    @pytest.mark.parametrize("name", PACK)
    def test_the_size_bound_is_inclusive(self, name: bytes) -> None:
        data = PACK[name](TEXT)
        assert decode([name], data, max_size=len(TEXT)) == TEXT
        with pytest.raises(CodingError) as caught:
            decode([name], data, max_size=len(TEXT) - 1)
        assert caught.value.kind == "too_large"

    @pytest.mark.parametrize("name", PACK)
    def test_a_small_body_may_expand_as_much_as_it_likes(self, name: bytes) -> None:
        body = bytes(coding.RATIO_GRACE)
        assert decode([name], PACK[name](body), max_ratio=1) == body

    @pytest.mark.parametrize("name", PACK)
    def test_a_large_one_may_not(self, name: bytes) -> None:
        with pytest.raises(CodingError) as caught:
            decode([name], PACK[name](bytes(4 * coding.RATIO_GRACE)), max_ratio=100)
        assert caught.value.kind == "too_large"

    def test_a_layer_that_collapses_in_the_next_counts(self) -> None:
        """Megabytes of empty gzip members decode to nothing, at the price of all of them."""
        inner = gzip.compress(b"") * 200_000
        with pytest.raises(CodingError) as caught:
            decode([b"gzip", b"zstd"], zstd(inner), max_ratio=100)
        assert caught.value.kind == "too_large"

    @pytest.mark.parametrize("name", PACK)
    def test_a_bomb_is_never_in_memory(self, name: bytes) -> None:
        """64 MiB of zeros, no bound set, taken step by step: only a few steps' worth is held."""
        bomb = PACK[name](bytes(64 * 1024 * 1024))
        decoder = coding.decoder([name], max_size=None, max_ratio=10**9)
        assert decoder is not None
        tracemalloc.start()
        try:
            total = sum(len(piece) for piece in decoder.feed(bomb))
            decoder.finish()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert total == 64 * 1024 * 1024
        assert peak < 1024 * 1024

    def test_output_comes_before_the_input_is_used_up(self) -> None:
        """Laziness: the bound is the caller's to apply between any two steps."""
        decoder = coding.decoder([b"gzip"], max_size=None, max_ratio=10**9)
        assert decoder is not None
        pieces = decoder.feed(gzip.compress(bytes(64 * 1024 * 1024)))
        assert len(next(pieces)) <= coding.STEP


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_chunking_never_shows(data: st.DataObject) -> None:
    """Any stack of codings over any body, cut anywhere, decodes to that body."""
    body = data.draw(st.binary(max_size=300)) * data.draw(st.integers(1, 400))
    names = data.draw(st.lists(st.sampled_from(list(PACK)), min_size=1, max_size=3))
    coded = body
    for name in names:
        coded = PACK[name](coded)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(coded)), max_size=8)))
    decoder = coding.decoder(names, max_size=None, max_ratio=10**9)
    assert decoder is not None
    out = b""
    for start, end in zip([0, *cuts], [*cuts, len(coded)], strict=True):
        out += b"".join(decoder.feed(coded[start:end]))
    out += b"".join(decoder.finish())
    assert out == body
