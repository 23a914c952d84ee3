"""The readers themselves: each is there, sees what there is to see, and they can disagree."""

from __future__ import annotations

import pytest

from tests.differential.clients import Play, ReadingClient
from tests.differential.lanes import Read, Reply
from tests.differential.readers import Reader

HOST = b"Host: a.example"
FIELDS = ((b"host", b"a.example"),)
FIRST = b"POST /1 HTTP/1.1\r\n" + HOST + b"\r\n"
SECOND = b"GET /2 HTTP/1.1\r\n" + HOST + b"\r\n\r\n"
READ_SECOND = Read(b"GET", b"/2", FIELDS, b"")


@pytest.mark.parametrize(
    ("data", "bodies"),
    [
        pytest.param(SECOND, [b""], id="one request"),
        pytest.param(SECOND * 3, [b""] * 3, id="three on one connection"),
        pytest.param(FIRST + b"Content-Length: 5\r\n\r\nhello" + SECOND, [b"hello", b""], id="CL"),
        pytest.param(
            FIRST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + SECOND,
            [b"hello", b""],
            id="chunks",
        ),
        pytest.param(
            FIRST + b"Content-Length: %d\r\n\r\n" % len(SECOND) + SECOND, [SECOND], id="a body"
        ),
    ],
)
def test_a_reader_counts_requests(data: bytes, bodies: list[bytes], reader: Reader) -> None:
    reading = reader.read(data)

    assert not reading.refused
    assert [request.body for request in reading.requests] == bodies


def test_a_reader_shows_method_target_fields_and_body(reader: Reader) -> None:
    lines = b"X_a: \xe9 b\t\r\nX-B:\r\nx-b: c\r\nContent-Length: 2\r\n\r\n\x00\xff"

    reading = reader.read(b"PUT /a?b=%20 HTTP/1.1\r\n" + HOST + b"\r\n" + lines)

    fields = (*FIELDS, (b"x_a", b"\xe9 b"), (b"x-b", b""), (b"x-b", b"c"))
    assert reading.requests == [Read(b"PUT", b"/a?b=%20", fields, b"\x00\xff")]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(FIRST + b"Content-Length: 5\r\n\r\nhel", id="a body that is not all there"),
        pytest.param(
            FIRST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", id="chunks without an end"
        ),
        pytest.param(FIRST + b"X\x00: 1\r\n\r\n", id="NUL in a name"),
        pytest.param(FIRST[:-20], id="half a head"),
    ],
)
def test_a_reader_takes_no_part_for_a_request(data: bytes, reader: Reader) -> None:
    assert reader.read(data).requests == []
    assert reader.read(SECOND).requests == [READ_SECOND]  # and goes on


def test_readers_disagree_on_what_we_never_send(readers: list[Reader]) -> None:
    """If they did not, three would be no more than one."""
    if len(readers) < 2:
        pytest.skip("there is but one reader")
    doubtful = [SECOND.replace(b"\r\n", b"\n"), b"\r\n" + SECOND]

    found = [{len(reader.read(data).requests) for reader in readers} for data in doubtful]

    assert {0, 1} in found


PLAIN = "HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 5\r\n\r\nhello"
READ_PLAIN = Reply(200, b"OK", ((b"x-a", b"1"),), b"hello")
CHUNKS = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"


@pytest.mark.parametrize(
    ("plays", "replies"),
    [
        pytest.param([Play("GET", PLAIN, False)] * 2, [READ_PLAIN] * 2, id="two, kept"),
        pytest.param([Play("GET", PLAIN, True)], [READ_PLAIN], id="one, closed"),
        pytest.param([Play("GET", PLAIN[:-1], True)], [None], id="a body that is not all there"),
        pytest.param([Play("GET", CHUNKS, True)], [None], id="chunks without an end"),
        pytest.param([Play("GET", "hello\r\n\r\n", True)], [None], id="no HTTP"),
        pytest.param([Play("GET", "", True)], [None], id="nothing"),
    ],
)
def test_a_client_shows_what_it_got(
    plays: list[Play], replies: list[Reply | None], client: ReadingClient
) -> None:
    assert client.read(plays) == replies
