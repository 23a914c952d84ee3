"""Heads as values: nothing is lost but what belongs to one connection."""

from __future__ import annotations

import pytest

from coatcheck.core.message import (
    HOP_BY_HOP,
    Fields,
    RequestHead,
    ResponseHead,
    end_to_end,
    field_values,
    list_members,
    without,
)


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP))
def test_fields_of_one_connection_go(name: bytes) -> None:
    fields = ((b"A", b"1"), (name, b"x"), (name.title(), b"x"), (name.upper(), b"x"), (b"B", b"2"))

    assert end_to_end(fields) == ((b"A", b"1"), (b"B", b"2"))


@pytest.mark.parametrize(
    "name",
    [
        b"Connection",
        b"Keep-Alive",
        b"TE",
        b"Trailer",
        b"Transfer-Encoding",
        b"Upgrade",
        b"Proxy-Connection",
        b"Proxy-Authorization",
        b"Proxy-Authenticate",
        b"Proxy-Authentication-Info",
        b"PROXY-anything",
    ],
)
def test_rfc_9110_section_7_6_1_and_all_of_proxy(name: bytes) -> None:
    assert end_to_end(((name, b"x"),)) == ()


@pytest.mark.parametrize(
    ("connection", "left"),
    [
        pytest.param([b"X-A"], [b"X-B", b"X-C"], id="one"),
        pytest.param([b"x-a, X-b"], [b"X-C"], id="a list, in any letter case"),
        pytest.param([b"X-A", b"X-C"], [b"X-B"], id="several fields are one list"),
        pytest.param([b" ,X-A\t,, "], [b"X-B", b"X-C"], id="empty members"),
        pytest.param([b"close, X-D"], [b"X-A", b"X-B", b"X-C"], id="what is not there"),
        pytest.param([b"X-"], [b"X-A", b"X-B", b"X-C"], id="whole names only"),
    ],
)
def test_what_connection_lists_goes(connection: list[bytes], left: list[bytes]) -> None:
    fields = tuple((b"Connection", value) for value in connection)
    fields += ((b"X-A", b"1"), (b"X-B", b"2"), (b"X-C", b"3"))

    assert [name for name, _ in end_to_end(fields)] == left


@pytest.mark.parametrize("name", [b"Content-Encoding", b"content-type"])
def test_how_to_read_the_content_stays_even_if_connection_lists_it(name: bytes) -> None:
    """A coded answer would otherwise pass for a plain one, and be searched as such."""
    fields = ((b"Connection", name + b", X-A"), (name, b"x"), (b"X-A", b"1"))

    assert end_to_end(fields) == ((name, b"x"),)


def test_order_duplicates_letter_case_and_bytes_stay() -> None:
    fields = (
        (b"Set-Cookie", b"a=1"),
        (b"X-b", b"\xff\xfe"),
        (b"set-cookie", b"a=1"),
        (b"Set-Cookie", b""),
        (b"X-Proxy-Thing", b"  two  blanks "),
    )

    assert end_to_end(fields) == fields
    assert without(fields, b"nothing") == fields


def test_without_takes_a_field_in_any_letter_case_and_all_of_them() -> None:
    fields = ((b"Range", b"1"), (b"X", b"2"), (b"RANGE", b"3"), (b"If-Range", b"4"))

    assert without(fields, b"range", b"if-range") == ((b"X", b"2"),)


def test_values_come_in_order_and_apart() -> None:
    fields = ((b"A", b"1"), (b"B", b"2"), (b"a", b"3, 4"))

    assert field_values(fields, b"a") == [b"1", b"3, 4"]
    assert RequestHead(b"GET", b"/", fields).all(b"a") == [b"1", b"3, 4"]
    assert ResponseHead(200, b"OK", fields).all(b"b") == [b"2"]
    assert field_values(fields, b"c") == []


def test_members_of_a_list() -> None:
    assert list(list_members([b"GZip ,\tbr", b"", b",", b"x-A"])) == [b"gzip", b"br", b"x-a"]


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", b"/", None),
        (b"/?", b"/", b""),
        (b"/a?b?c", b"/a", b"b?c"),
        (b"/%3F?x=%26", b"/%3F", b"x=%26"),
        (b"*", b"*", None),
    ],
)
def test_path_and_query(target: bytes, path: bytes, query: bytes | None) -> None:
    head = RequestHead(b"GET", target, ())

    assert (head.path, head.query) == (path, query)


def test_new_fields_leave_the_rest_and_the_original() -> None:
    fields: Fields = ((b"A", b"1"),)
    request, response = RequestHead(b"GET", b"/a", ()), ResponseHead(404, b"No", ())

    assert request.with_fields(fields) == RequestHead(b"GET", b"/a", fields)
    assert response.with_fields(fields) == ResponseHead(404, b"No", fields)
    assert request.fields == response.fields == ()
