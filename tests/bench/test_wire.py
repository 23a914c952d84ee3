"""What both ends read: bodies of either framing, and whether they are the right ones."""

from __future__ import annotations

import pytest

from bench.wire import Body, Broken, Same, check_status, split

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n"


@pytest.mark.parametrize("step", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("head", "data"),
    [
        pytest.param(LENGTH, b"hello world", id="a length"),
        pytest.param(CHUNKED, b"6;x=y\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n", id="chunks"),
        pytest.param(CHUNKED, b"B\r\nhello world\r\n0\r\nT: 1\r\n\r\n", id="a trailer"),
    ],
)
def test_a_body_is_read_however_it_is_cut(head: bytes, data: bytes, step: int) -> None:
    body, got = Body(head), b""
    for at in range(0, len(data), step):
        assert not body.done
        got += b"".join(body.feed(data[at : at + step]))

    assert (got, body.done) == (b"hello world", True)


@pytest.mark.parametrize(
    ("head", "data"),
    [
        pytest.param(LENGTH, b"hello world!", id="more than its length"),
        pytest.param(CHUNKED, b"0\r\n\r\nx", id="more than its chunks"),
        pytest.param(LENGTH[:-2] + CHUNKED[17:], b"", id="with two framings"),
    ],
)
def test_a_body_is_broken(head: bytes, data: bytes) -> None:
    with pytest.raises(Broken):
        list(Body(head).feed(data))


def test_a_head_without_a_framing_has_no_body() -> None:
    body = Body(b"GET / HTTP/1.1\r\n\r\n")

    assert (body.framed, body.done) == (False, True)


def test_a_head_is_split_off_once_it_is_whole() -> None:
    assert split(LENGTH[:-1]) is None
    assert split(LENGTH + b"hello") == (LENGTH, b"hello")


@pytest.mark.parametrize(
    ("line", "right"),
    [
        pytest.param(b"HTTP/1.1 200 OK", True, id="200"),
        pytest.param(b"HTTP/1.1 200", True, id="200 without a reason"),
        pytest.param(b"HTTP/1.1 502 A 200 is lost", False, id="another that names 200"),
        pytest.param(b"", False, id="nothing"),
    ],
)
def test_the_status_is(line: bytes, right: bool) -> None:
    if right:
        check_status(line + b"\r\n\r\n")
        return
    with pytest.raises(Broken):
        check_status(line + b"\r\n\r\n")


@pytest.mark.parametrize("step", [1, 3, 4, 7, 100])
@pytest.mark.parametrize(
    ("data", "right"),
    [
        pytest.param(b"abcdabcdab", True, id="the block again and again"),
        pytest.param(b"abcdabcda", False, id="a byte short"),
        pytest.param(b"abcdabcdabc", False, id="a byte too many"),
        pytest.param(b"abcdabXdab", False, id="another byte"),
        pytest.param(b"abcdabdabc", False, id="a byte lost and one more"),
    ],
)
def test_a_body_is_the_same(data: bytes, right: bool, step: int) -> None:
    same = Same(b"abcd", 10)
    for at in range(0, len(data), step):
        same.feed(data[at : at + step])

    assert same.right is right
