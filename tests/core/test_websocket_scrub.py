"""What a server says over a WebSocket: however it is cut, no value gets through."""

from __future__ import annotations

import base64
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck.core import runs
from coatcheck.core.redact import Needles
from coatcheck.core.secret import SecretValue
from coatcheck.core.websocket import FrameReader, Opcode, frame
from coatcheck.core.websocket_scrub import MAX_HELD, Channel, ServerScrubber

VALUE = b"hush-hush-0123456789"
SELF = b"abacabac-abacabac"  # it overlaps itself
NEEDLES = Needles.build([SecretValue("key", 1, VALUE), SecretValue("self", 1, SELF)])
PIECES = [VALUE, SELF, VALUE[:9], VALUE[9:], SELF[:8], SELF[8:], b" ", b"plain text"]
PIECES += [base64.b64encode(b"user:" + VALUE), VALUE.hex().encode(), b"ab", "ä€".encode()]


def a_scrubber() -> ServerScrubber:
    scrubber = ServerScrubber()
    scrubber.search((NEEDLES,))
    return scrubber


def heard(data: bytes) -> list[bytes]:
    """Payloads of the messages in *data*, one that is not complete too."""
    out = [b""]
    for part in FrameReader(masked=False).feed(data):
        out[-1] += part.payload
        if part.ends:
            out.append(b"")
    return out[:-1] if out[-1] == b"" else out


def in_frames(message: bytes, cuts: list[int]) -> bytes:
    at = [0, *sorted(cut % (len(message) + 1) for cut in cuts), len(message)]
    pairs = list(itertools.pairwise(at))
    return b"".join(
        frame(
            Opcode.CONTINUATION if index else Opcode.TEXT,
            message[start:stop],
            fin=index == len(pairs) - 1,
        )
        for index, (start, stop) in enumerate(pairs)
    )


texts = st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join)
cuts = st.lists(st.integers(0, 10_000), max_size=4)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(texts, cuts), max_size=5), st.lists(st.integers(1, 60), max_size=12))
def test_fragments_and_reads_do_not_show(
    said: list[tuple[bytes, list[int]]], steps: list[int]
) -> None:
    plain = a_scrubber()
    one = plain.feed(b"".join(frame(Opcode.TEXT, message) for message, _ in said))
    expected = heard(one + plain.flush())

    scrubber, got = a_scrubber(), b""
    data = b"".join(in_frames(message, at) for message, at in said)
    for size in [*steps, len(data)]:
        got += scrubber.feed(data[:size])
        data = data[size:]
    got += scrubber.flush()

    assert heard(got) == expected
    assert len(expected) == len(said)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(texts, cuts), max_size=6), st.integers(1, 80))
def test_no_value_gets_through_in_messages_that_come_together(
    said: list[tuple[bytes, list[int]]], step: int
) -> None:
    scrubber, got = a_scrubber(), b""
    data = b"".join(in_frames(message, at) for message, at in said)
    for start in range(0, len(data), step):
        got += scrubber.feed(data[start : start + step])
    text = b"".join(heard(got + scrubber.flush()))

    assert not NEEDLES.contains(text.replace(b"********", b"\0"))
    for part in text.split(b"********"):
        assert VALUE not in part
        assert SELF not in part


@settings(max_examples=150, deadline=None)
@given(st.lists(texts, max_size=6))
def test_and_none_gets_through_whole_in_messages_that_come_one_by_one(said: list[bytes]) -> None:
    scrubber, got = a_scrubber(), b""
    for message in said:
        got += scrubber.feed(frame(Opcode.TEXT, message)) + scrubber.flush()
    text = b"".join(heard(got))

    assert VALUE not in text
    assert SELF not in text
    assert not [message for message in heard(got) if NEEDLES.contains(message.replace(b"*", b"\0"))]


@pytest.mark.parametrize("size", range(1, len(VALUE) + 1))
def test_eight_bytes_in_a_row_never_leave_with_messages_that_come_together(size: int) -> None:
    scrubber, got = a_scrubber(), b""
    for at in range(0, len(VALUE), size):
        got += scrubber.feed(frame(Opcode.TEXT, VALUE[at : at + size]))
    text = b"".join(heard(got + scrubber.flush()))

    assert text == b"********"


def test_what_is_held_back_does_not_depend_on_the_content() -> None:
    rng = random.Random(1)
    sizes = set()
    for text in (b"x" * 3000, (VALUE[:-1] * 200)[:3000], rng.randbytes(1500).hex().encode()):
        scrubber = a_scrubber()
        counts = []
        for at in range(0, len(text), 100):
            out = scrubber.feed(
                frame(Opcode.CONTINUATION if at else Opcode.BINARY, text[at : at + 100], fin=False)
            )
            counts.append(
                sum(len(part.payload) for part in FrameReader(masked=False).feed(out))
                if not at
                else len(out)
            )
        sizes.add(tuple(counts))
    assert len(sizes) == 1


def test_many_messages_do_not_wait_together() -> None:
    scrubber = a_scrubber()

    out = scrubber.feed(frame(Opcode.TEXT, b"") * (3 * MAX_HELD))

    assert out.count(frame(Opcode.TEXT, b"")) >= 2 * MAX_HELD
    assert len(scrubber._messages) <= MAX_HELD + 1


def test_what_is_kept_of_a_long_stream_is_small() -> None:
    channel = Channel()
    channel.search((NEEDLES,))
    for _ in range(100):
        channel.add(b"x" * 10_000, ends=False)
        channel.take()
    assert len(channel._data) <= 2 * NEEDLES.window + runs.BEFORE


def test_a_run_of_base64_does_not_go_on_in_the_next_message() -> None:
    scrubber = a_scrubber()
    coded = base64.b64encode(b"user:" + VALUE)

    got = scrubber.feed(frame(Opcode.TEXT, coded) + frame(Opcode.TEXT, b"Hello"))

    assert heard(got + scrubber.flush()) == [b"********", b"Hello"]


def test_but_it_goes_on_in_the_next_fragment() -> None:
    scrubber = a_scrubber()
    coded = base64.b64encode(b"user:" + VALUE + b":" + b"more" * 400)

    got = b"".join(
        scrubber.feed(
            frame(Opcode.CONTINUATION if at else Opcode.TEXT, coded[at : at + 50], fin=False)
        )
        for at in range(0, len(coded), 50)
    )
    got += scrubber.feed(frame(Opcode.CONTINUATION, b" end")) + scrubber.flush()

    assert heard(got) == [b"******** end"]
