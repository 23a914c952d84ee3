"""Frames and text of RFC 6455: the samples of the RFC, what is read, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.core.websocket import (
    BadFrame,
    FrameReader,
    Mended,
    Opcode,
    Part,
    Utf8,
    close_payload,
    frame,
    mask,
    read_close,
)

KEY = bytes.fromhex("37fa213d")

# RFC 6455, section 5.7.
SAMPLES = [
    pytest.param("810548656c6c6f", False, [(Opcode.TEXT, b"Hello", True)], id="text"),
    pytest.param(
        "818537fa213d7f9f4d5158", True, [(Opcode.TEXT, b"Hello", True)], id="text under a mask"
    ),
    pytest.param(
        "010348656c80026c6f",
        False,
        [(Opcode.TEXT, b"Hel", False), (Opcode.TEXT, b"lo", True)],
        id="text in fragments",
    ),
    pytest.param("890548656c6c6f", False, [(Opcode.PING, b"Hello", True)], id="ping"),
    pytest.param(
        "8a8537fa213d7f9f4d5158", True, [(Opcode.PONG, b"Hello", True)], id="pong under a mask"
    ),
    pytest.param(
        "827e0100" + "61" * 256, False, [(Opcode.BINARY, b"a" * 256, True)], id="256 bytes"
    ),
    pytest.param(
        "827f0000000000010000" + "61" * 65536,
        False,
        [(Opcode.BINARY, b"a" * 65536, True)],
        id="64 KiB",
    ),
]


@pytest.mark.parametrize(("data", "masked", "parts"), SAMPLES)
def test_the_samples_of_the_rfc(
    data: str, masked: bool, parts: list[tuple[Opcode, bytes, bool]]
) -> None:
    found = list(FrameReader(masked=masked).feed(bytes.fromhex(data)))
    assert found == [Part(*part) for part in parts]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 70000])
@pytest.mark.parametrize("key", [b"", KEY])
def test_what_is_written_is_read(size: int, key: bytes) -> None:
    payload = bytes(index % 251 for index in range(size))

    data = frame(Opcode.BINARY, payload, key=key)

    assert list(FrameReader(masked=bool(key)).feed(data)) == [Part(Opcode.BINARY, payload, True)]


def test_a_mask_is_its_own_inverse() -> None:
    assert mask(b"Hello", KEY) == bytes.fromhex("7f9f4d5158")
    assert mask(mask(b"Hello", KEY), KEY) == b"Hello"
    assert mask(b"\0\0\0", b"\0\0\0\0") == b"\0\0\0"


messages = st.lists(
    st.tuples(
        st.sampled_from([Opcode.TEXT, Opcode.BINARY]),
        st.lists(st.binary(max_size=200), min_size=1, max_size=5),
    ),
    max_size=5,
)


@given(messages, st.lists(st.integers(1, 40), max_size=20), st.booleans())
def test_how_the_bytes_come_does_not_show(
    said: list[tuple[Opcode, list[bytes]]], steps: list[int], masked: bool
) -> None:
    key = KEY if masked else b""
    data = b"".join(
        frame(Opcode.CONTINUATION if i else opcode, part, fin=i == len(parts) - 1, key=key)
        + frame(Opcode.PING, b"between", key=key)
        for opcode, parts in said
        for i, part in enumerate(parts)
    )
    reader, heard, under_way = FrameReader(masked=masked), [], b""
    for size in [*steps, len(data)]:
        now, data = data[:size], data[size:]
        for part in reader.feed(now):
            if part.is_control:
                assert part == Part(Opcode.PING, b"between", True)
                continue
            under_way += part.payload
            if part.ends:
                heard.append((part.opcode, under_way))
                under_way = b""

    assert heard == [(opcode, b"".join(parts)) for opcode, parts in said]


@given(st.binary(max_size=300), st.booleans())
def test_noise_is_read_or_refused_and_never_kept(data: bytes, masked: bool) -> None:
    reader = FrameReader(masked=masked)
    size = 0
    try:
        size = sum(len(part.payload) for part in reader.feed(data))
    except BadFrame:
        return
    assert size <= len(data)
    assert len(reader._buffer) <= 14 + 125


def test_nothing_is_read_after_a_close() -> None:
    reader = FrameReader(masked=False)

    parts = list(reader.feed(frame(Opcode.CLOSE, b"") + frame(Opcode.TEXT, b"more") + b"\xff"))

    assert parts == [Part(Opcode.CLOSE, b"", True)]
    assert reader.closed
    assert list(reader.feed(b"\xff\xff")) == []


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999])
def test_codes_that_may_be_sent(code: int) -> None:
    assert read_close(close_payload(code, "why")) == (code.to_bytes(2), b"why")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_codes_that_may_not(code: int) -> None:
    with pytest.raises(BadFrame):
        read_close(code.to_bytes(2))


def test_a_close_may_have_no_code() -> None:
    assert read_close(b"") == (b"", b"")


TEXT = "aä€𝄞z".encode()


@pytest.mark.parametrize("at", range(len(TEXT) + 1))
def test_characters_are_never_cut(at: int) -> None:
    for reader in (Utf8(), Mended()):
        first = reader.feed(TEXT[:at], last=False)
        second = reader.feed(TEXT[at:], last=True)

        assert first.decode() + second.decode() == TEXT.decode()


@given(st.binary(max_size=20), st.integers(0, 20))
def test_text_is_what_python_takes_for_it(data: bytes, at: int) -> None:
    try:
        data.decode()
        good = True
    except UnicodeDecodeError:
        good = False
    if good:
        assert checked(data, at) == data
        return
    with pytest.raises(BadFrame) as refused:
        checked(data, at)
    assert refused.value.code == 1007


def checked(data: bytes, at: int) -> bytes:
    reader = Utf8()
    return reader.feed(data[:at], last=False) + reader.feed(data[at:], last=True)


@given(st.binary(max_size=20), st.integers(0, 20))
def test_mended_text_is_text(data: bytes, at: int) -> None:
    reader = Mended()
    got = reader.feed(data[:at], last=False), reader.feed(data[at:], last=True)
    for part in got:
        part.decode()
    assert b"".join(got) == data.decode("utf-8", "replace").encode()
