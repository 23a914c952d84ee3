"""One answer on its way to the client: every channel searched, what cannot be read withheld."""

from __future__ import annotations

import gzip
import zlib
from collections import Counter

import brotli
import pytest
import zstandard

from coatcheck.core.limits import Limits
from coatcheck.core.message import Fields, ResponseHead
from coatcheck.core.problems import Refused
from coatcheck.core.redact import EVENT, Hit, Needles
from coatcheck.core.scrubbing import EVENTS, Scrubbing
from coatcheck.core.secret import SecretValue

VALUE = b"hush-hush-0123"
TEXT = b"before %b after" % VALUE
CLEAN = b"before ******** after"


def a_scrubbing(limits: Limits | None = None) -> Scrubbing:
    needles = Needles.build([SecretValue("key", 1, VALUE)])
    return Scrubbing((needles,), limits or Limits())


def a_head(*fields: tuple[bytes, bytes], status: int = 200, reason: bytes = b"OK") -> ResponseHead:
    return ResponseHead(status, reason, fields)


def whole(fields: Fields, body: bytes, limits: Limits | None = None) -> bytes:
    scrubbing = a_scrubbing(limits)
    scrubbing.head(a_head(*fields), has_body=True)
    return scrubbing.feed(body) + scrubbing.finish()


# --- heads -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "clean"),
    [
        pytest.param(a_head((b"X-A", TEXT)), a_head((b"X-A", CLEAN)), id="the value of a field"),
        pytest.param(
            a_head((b"Location", b"https://x/?k=%b&l=1" % VALUE.hex().encode())),
            a_head((b"Location", b"https://x/?k=********&l=1")),
            id="in another spelling",
        ),
        pytest.param(
            a_head((b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=" + VALUE)),
            a_head((b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=********")),
            id="duplicates stay apart and in order",
        ),
        pytest.param(
            a_head((b"X-A", b"1"), (b"X-" + VALUE, b"2"), (b"X-B", b"3")),
            a_head((b"X-A", b"1"), (b"X-B", b"3")),
            id="a field with a value for its name goes",
        ),
        pytest.param(a_head(reason=TEXT), a_head(reason=CLEAN), id="the reason phrase"),
        pytest.param(
            a_head((b"x-a", b"1"), status=404, reason=b"Not Found"),
            a_head((b"x-a", b"1"), status=404, reason=b"Not Found"),
            id="the rest stays",
        ),
    ],
)
@pytest.mark.parametrize("has_body", [True, False])
def test_heads_are_searched(head: ResponseHead, clean: ResponseHead, has_body: bool) -> None:
    assert a_scrubbing().head(head, has_body=has_body) == clean


def test_what_was_found_is_counted_for_the_record() -> None:
    scrubbing = a_scrubbing()

    scrubbing.head(a_head((b"A", TEXT), (b"B", TEXT), reason=TEXT), has_body=True)
    scrubbing.feed(TEXT)
    scrubbing.finish()

    assert scrubbing.by_channel["head"] == Counter({Hit("key", "raw"): 3})
    assert scrubbing.by_channel["body"] == Counter({Hit("key", "raw"): 1})


PARTS = [
    pytest.param(206, (), id="a slice"),
    pytest.param(200, ((b"Content-Range", b"bytes 0-1/9"),), id="one by another status"),
    pytest.param(200, ((b"Content-Type", b"Multipart/ByteRanges; boundary=x"),), id="slices"),
    pytest.param(226, (), id="a delta"),
    pytest.param(200, ((b"im", b"range"),), id="a delta by another status"),
]


@pytest.mark.parametrize("has_body", [True, False])
@pytest.mark.parametrize(("status", "fields"), PARTS)
def test_a_part_of_a_whole_is_withheld(status: int, fields: Fields, has_body: bool) -> None:
    """A client could ask for a value one slice at a time."""
    with pytest.raises(Refused) as refused:
        a_scrubbing().head(a_head(*fields, status=status), has_body=has_body)

    assert str(refused.value) == "response_withheld"


@pytest.mark.parametrize("status", [200, 203, 225, 227, 404])
def test_a_whole_is_not(status: int) -> None:
    head = a_head((b"Accept-Ranges", b"bytes"), (b"IM-Age", b"1"), status=status)

    assert a_scrubbing().head(head, has_body=True).status == status


# --- codings ---------------------------------------------------------------------------------

PACKED = [
    pytest.param(b"gzip", gzip.compress(TEXT), id="gzip"),
    pytest.param(b"x-gzip", gzip.compress(TEXT), id="x-gzip"),
    pytest.param(b"deflate", zlib.compress(TEXT), id="deflate"),
    pytest.param(b"br", brotli.compress(TEXT), id="br"),
    pytest.param(b"zstd", zstandard.compress(TEXT), id="zstd"),
    pytest.param(b"gzip, br", brotli.compress(gzip.compress(TEXT)), id="one in the other"),
    pytest.param(b"identity", TEXT, id="identity"),
    pytest.param(b"", TEXT, id="an empty list"),
]


def test_an_empty_body_is_empty_however_it_is_coded() -> None:
    assert whole(((b"Content-Encoding", b"gzip"),), b"") == b""


@pytest.mark.parametrize(("coding", "packed"), PACKED)
def test_a_coded_body_is_opened_and_searched(coding: bytes, packed: bytes) -> None:
    assert whole(((b"Content-Encoding", coding),), packed) == CLEAN


def test_codings_in_several_fields_are_one_list() -> None:
    fields = ((b"Content-Encoding", b"gzip"), (b"content-encoding", b"br"))

    assert whole(fields, brotli.compress(gzip.compress(TEXT))) == CLEAN


def test_what_is_opened_is_not_called_coded() -> None:
    scrubbing = a_scrubbing()
    head = a_head((b"A", b"1"), (b"Content-Encoding", b"gzip"))

    assert scrubbing.head(head, has_body=True).fields == ((b"A", b"1"),)


def test_without_a_body_the_coding_is_only_told_of() -> None:
    head = a_head((b"Content-Encoding", b"rot13"))

    assert a_scrubbing().head(head, has_body=False) == head


def test_an_unknown_coding_is_withheld_before_its_first_byte() -> None:
    with pytest.raises(Refused) as refused:
        a_scrubbing().head(a_head((b"Content-Encoding", b"rot13")), has_body=True)

    assert str(refused.value) == "response_withheld"


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(gzip.compress(TEXT)[:-9], id="truncated"),
        pytest.param(b"plain " + TEXT, id="not coded at all"),
        pytest.param(gzip.compress(TEXT) + b"more", id="something behind it"),
        pytest.param(gzip.compress(bytes(8 << 20)), id="a bomb"),
    ],
)
def test_a_coding_that_is_broken_is_withheld(packed: bytes) -> None:
    with pytest.raises(Refused) as refused:
        whole(((b"Content-Encoding", b"gzip"),), packed)

    assert str(refused.value) == "response_withheld"
    assert VALUE not in refused.value.problem.body("id")


# --- bodies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [b"text/html", b"application/octet-stream", b"image/png", b""])
def test_any_kind_of_body_is_searched(kind: bytes) -> None:
    assert whole(((b"Content-Type", kind),), TEXT) == CLEAN


@pytest.mark.parametrize("kind", sorted(EVENTS))
@pytest.mark.parametrize("spelled", ["%s", "%s; charset=utf-8", " %s ;a=b"])
def test_streams_of_events_are_let_go_event_by_event(kind: bytes, spelled: str) -> None:
    scrubbing = a_scrubbing()
    content_type = (spelled % kind.decode()).title().encode()
    scrubbing.head(a_head((b"Content-Type", content_type)), has_body=True)

    event = b"data: %b\n\n" if EVENTS[kind] is EVENT else b'{"data": "%b"}\n'
    begun, rest = event[:4], event[4:] % b"2"
    assert scrubbing.feed(event % VALUE + begun) == event % b"********"
    assert scrubbing.feed(rest[:-1]) == b""
    assert scrubbing.feed(rest[-1:]) == event % b"2"


def test_of_two_kinds_neither_says_where_events_end() -> None:
    scrubbing = a_scrubbing()
    kinds = [(b"Content-Type", kind) for kind in (b"text/event-stream", b"application/jsonl")]
    scrubbing.head(a_head(*kinds), has_body=True)

    assert scrubbing.feed(b"data: 1\n\n") == b""


def test_other_bodies_hold_a_window_back_whatever_their_line_ends() -> None:
    scrubbing = a_scrubbing()
    scrubbing.head(a_head((b"Content-Type", b"text/event-streams")), has_body=True)

    assert scrubbing.feed(b"data: 1\n\n") == b""
    assert scrubbing.finish() == b"data: 1\n\n"


def test_what_is_held_back_does_not_depend_on_the_content() -> None:
    """Otherwise the delay would tell a client that its guess begins a value."""
    guess, other = VALUE[:9], b"x" * 9

    def let_go(tail: bytes) -> int:
        scrubbing = a_scrubbing()
        scrubbing.head(a_head(), has_body=True)
        return len(scrubbing.feed(b"." * 500 + tail))

    assert let_go(guess) == let_go(other) > 0


def test_a_body_that_was_not_announced_shows_nothing() -> None:
    scrubbing = a_scrubbing()
    scrubbing.head(a_head(), has_body=False)

    assert scrubbing.feed(TEXT) + scrubbing.finish() == b""
    assert scrubbing.by_channel["body"] == Counter()
