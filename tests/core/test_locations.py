"""Places and the words for them: what a pattern opens, and what no pattern can open."""

from __future__ import annotations

import pytest

from coatcheck.core.locations import (
    DEFAULT_PATTERNS,
    HEADER_NAME,
    METHOD,
    NEVER,
    ONLY_WHEN_NAMED,
    BadLocation,
    Kind,
    Location,
    LocationPattern,
    is_forbidden,
    needs_naming,
    parse_pattern,
)


def place(text: str) -> Location:
    kind, _, name = text.partition(":")
    return Location(Kind(kind), name)


@pytest.mark.parametrize(
    ("pattern", "where", "fits"),
    [
        ("header", "header:authorization", True),
        ("header", "header:x-api-key", True),
        ("header", "query:authorization", False),
        ("header:authorization", "header:authorization", True),
        ("header:Authorization", "header:authorization", True),
        ("header:authorization", "header:x-authorization", False),
        ("header:authorization", "header:authorizatio", False),
        ("query", "query:key", True),
        ("query", "query", True),
        ("query:key", "query:key", True),
        ("query:key", "query:Key", False),
        ("query:key", "query", False),
        ("query:a:b", "query:a:b", True),
        ("path", "path", True),
        ("path", "query", False),
        ("body", "body", True),
        ("body", "body:/a/b", True),
        ("body:/a", "body:/a", True),
        ("body:/a", "body:/a/b", False),
        ("body:/a", "body", False),
        ("body:/", "body:/", True),
        ("websocket", "websocket", True),
        ("body", "websocket", False),
        ("url", "url", True),
        ("path", "url", False),
        ("url", "path", False),
    ],
)
def test_what_a_pattern_opens(pattern: str, where: str, fits: bool) -> None:
    assert parse_pattern(pattern).matches(place(where)) is fits


TRACKED = [*sorted(ONLY_WHEN_NAMED), "x-forwarded-for", "x-forwarded-", "x-forwarded-anything"]
# One variable with the above to a server that makes variables of names, as CGI does.
TRACKED += ["user_agent", "x_forwarded_for", "x-forwarded_host", "x.forwarded.for", "user!agent"]


@pytest.mark.parametrize("name", TRACKED)
def test_headers_that_are_passed_on_are_opened_by_name_alone(name: str) -> None:
    where = Location(Kind.HEADER, name)

    assert needs_naming(where)
    assert not any(pattern.matches(where) for pattern in DEFAULT_PATTERNS)
    assert not parse_pattern("header").matches(where)
    assert parse_pattern(f"header:{name}").matches(where)


OPEN = ["header:cookies", "header:x-forwarded", "header:x_api_key", "header:useragent"]
OPEN += ["query:cookie", "query:user_agent", "body"]


@pytest.mark.parametrize("text", OPEN)
def test_others_need_no_naming(text: str) -> None:
    assert not needs_naming(place(text))


FORBIDDEN = [
    "host",
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-authorization",
    "proxy-anything",
    "proxy_authorization",
    "content_length",
    "transfer_encoding",
    "transfer.encoding",
    "keep^alive",
    ":authority",
    ":path",
    METHOD.name,
    HEADER_NAME.name,
]


def test_the_list_is_whole() -> None:
    assert set(FORBIDDEN) >= NEVER


@pytest.mark.parametrize("name", FORBIDDEN)
def test_no_pattern_opens_what_frames_or_routes(name: str) -> None:
    assert is_forbidden(Location(Kind.HEADER, name))
    with pytest.raises(BadLocation, match="never filled"):
        parse_pattern(f"header:{name}")
    with pytest.raises(BadLocation, match="never filled"):
        parse_pattern(f"header:{name.upper()}")


@pytest.mark.parametrize(
    "text",
    [
        "query:host",
        "query:content_length",
        "body:/host",
        "header:hosts",
        "header:x-proxy-a",
        "header:x_proxy_a",
        "header:accept",
    ],
)
def test_others_may_be_opened(text: str) -> None:
    assert not is_forbidden(place(text))
    assert parse_pattern(text).matches(place(text))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        pytest.param("", "unknown location", id="empty"),
        pytest.param("cookie", "unknown location", id="a header is header:cookie"),
        pytest.param("Header", "unknown location", id="kinds are in lower case"),
        pytest.param("*", "unknown location", id="no stars"),
        pytest.param(" path", "unknown location", id="no blanks"),
        pytest.param("header:", "no name", id="a colon and no name"),
        pytest.param("path:/v1", "takes no name", id="a path is in paths:"),
        pytest.param("websocket:x", "takes no name", id="a message has no name"),
        pytest.param("url:x", "takes no name", id="a URL has no name"),
        pytest.param("body:a", "'body:/a'", id="a body name is a pointer"),
    ],
)
def test_a_pattern_that_is_none_says_how_to_write_one(text: str, word: str) -> None:
    with pytest.raises(BadLocation, match=word):
        parse_pattern(text)


@pytest.mark.parametrize("text", ["header", "header:x-a", "query:a", "path", "body:/a", "body"])
def test_patterns_and_places_are_written_as_they_are_read(text: str) -> None:
    assert str(parse_pattern(text)) == text
    assert str(place(text)) == text


def test_what_is_open_by_default() -> None:
    kinds = (Kind.HEADER, Kind.QUERY, Kind.PATH, Kind.BODY)

    assert tuple(LocationPattern(kind) for kind in kinds) == DEFAULT_PATTERNS
