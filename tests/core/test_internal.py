"""What a request to coatcheck.internal asks for, and what a client gets to read of its secrets."""

from __future__ import annotations

import json
import posixpath
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck.core import inject, internal
from coatcheck.core.destination import Destination, parse_domain_pattern
from coatcheck.core.internal import Page, ToUrl
from coatcheck.core.locations import parse_pattern
from coatcheck.core.placeholder import ALL_SYNTAXES, Grammar, Syntax
from coatcheck.core.policy import Grant
from coatcheck.core.problems import Refused
from coatcheck.core.secret import Secret


@pytest.mark.parametrize(
    ("host", "reserved"),
    [
        pytest.param("coatcheck.internal", True, id="the name"),
        pytest.param("www.coatcheck.internal", True, id="what is below it"),
        pytest.param("notcoatcheck.internal", False, id="another that ends like it"),
        pytest.param("coatcheck.internal.example.com", False, id="another that begins like it"),
        pytest.param("internal", False, id="what is above it"),
        pytest.param("api.example.com", False, id="any other"),
    ],
)
def test_the_names_that_lead_nowhere(host: str, reserved: bool) -> None:
    assert internal.is_reserved(host) is reserved


@pytest.mark.parametrize(
    ("scheme", "host", "port", "served"),
    [
        pytest.param("http", "coatcheck.internal", 80, True, id="plain"),
        pytest.param("https", "coatcheck.internal", 443, True, id="in a tunnel"),
        pytest.param("http", "coatcheck.internal", 443, False, id="another port"),
        pytest.param("https", "coatcheck.internal", 8443, False, id="another port in a tunnel"),
        pytest.param("http", "www.coatcheck.internal", 80, False, id="a name below it"),
        pytest.param("http", "api.example.com", 80, False, id="another host"),
    ],
)
def test_what_is_served_at(scheme: str, host: str, port: int, served: bool) -> None:
    assert internal.is_served(Destination(scheme, host, port)) is served


@pytest.mark.parametrize(
    ("target", "asked"),
    [
        pytest.param(b"/ca.pem", Page.CA, id="the certificate"),
        pytest.param(b"/v1/secrets", Page.SECRETS, id="the names"),
        pytest.param(b"/v1/secrets?x=1", Page.SECRETS, id="a query says nothing"),
        pytest.param(b"/url/hook", ToUrl("hook", b""), id="a URL"),
        pytest.param(b"/url/hook?a=1", ToUrl("hook", b"?a=1"), id="with a query"),
        pytest.param(b"/url/hook/", ToUrl("hook", b"/"), id="with a slash"),
        pytest.param(b"/url/hook/a/b", ToUrl("hook", b"/a/b"), id="with a path"),
        pytest.param(b"/url/hook/a?b=/c/..", ToUrl("hook", b"/a?b=/c/.."), id="with both"),
        pytest.param(b"/url/a%2Fb/c", ToUrl("a/b", b"/c"), id="a slash in the name"),
        pytest.param(b"/url/a%3Fb", ToUrl("a?b", b""), id="a question mark in the name"),
        pytest.param(b"/url/%C3%A9t%C3%A9", ToUrl("été", b""), id="a name of other letters"),
        pytest.param(b"/url/a%252Fb", ToUrl("a%2Fb", b""), id="decoded once"),
        pytest.param(b"/url/a+b", ToUrl("a+b", b""), id="a plus sign is one"),
        pytest.param(b"/url/a%0d%0ab", ToUrl("a\r\nb", b""), id="a line end is part of the name"),
        pytest.param(
            b"/url/hook/{{secrets.x}}", ToUrl("hook", b"/{{secrets.x}}"), id="a placeholder behind"
        ),
    ],
)
def test_what_is_asked_for(target: bytes, asked: Page | ToUrl) -> None:
    assert internal.route(target) == asked


@pytest.mark.parametrize(
    ("target", "code"),
    [
        pytest.param(b"/", "not_found", id="nothing"),
        pytest.param(b"/url", "not_found", id="no name and no slash"),
        pytest.param(b"/url/", "not_found", id="no name"),
        pytest.param(b"/url//x", "not_found", id="an empty name"),
        pytest.param(b"/URL/hook", "not_found", id="letter case"),
        pytest.param(b"/ca.pem/", "not_found", id="a slash too many"),
        pytest.param(b"/%63a.pem", "not_found", id="another spelling"),
        pytest.param(b"/v1/../ca.pem", "not_found", id="a way round"),
        pytest.param(b"*", "not_found", id="OPTIONS of the whole server"),
        pytest.param(b"/url/%ff", "bad_request", id="a name that is no UTF-8"),
        pytest.param(b"/url/hook/../x", "bad_request", id="a dot segment"),
        pytest.param(b"/url/hook/%2e%2e/x", "bad_request", id="a dot segment encoded"),
        pytest.param(b"/url/hook/a%2fb", "bad_request", id="an encoded slash"),
        pytest.param(b"/url/hook/a%5cb", "bad_request", id="an encoded backslash"),
        pytest.param(b"/url/hook/a%252fb", "bad_request", id="an encoded percent sign"),
        pytest.param(b"/url/hook//a", "bad_request", id="a double slash"),
        pytest.param(b"/url/hook/a;b=1", "bad_request", id="parameters of a segment"),
        pytest.param(b"/url/hook/a%0d%0ab", "bad_request", id="an encoded line end"),
    ],
)
def test_what_is_not_served(target: bytes, code: str) -> None:
    with pytest.raises(Refused) as caught:
        internal.route(target)

    assert str(caught.value.problem.code) == code
    assert caught.value.problem.host == "coatcheck.internal"


some_more = st.lists(
    st.sampled_from([b"/", b"..", b".", b"%2e", b"%2F", b"%25", b";", b"\\", b"a", b"?", b"%7b"]),
    max_size=8,
).map(b"".join)


@given(more=some_more)
@settings(max_examples=500, deadline=None)
def test_what_is_put_to_a_url_stays_below_it(more: bytes) -> None:
    """However a server reads it: decoded again, dot segments resolved, backslashes turned."""
    try:
        asked = internal.route(b"/url/hook/" + more)
    except Refused:
        return
    assert isinstance(asked, ToUrl)
    path = inject.put_to(b"/base/token", asked.more).partition(b"?")[0].decode("ascii")

    for read in (path, unquote(path), unquote(unquote(path))):
        assert posixpath.normpath(read.replace("\\", "/")).startswith("/base/token")


API = parse_domain_pattern("api.example.com")


def secret(name: str) -> Secret:
    return Secret("id", name, 1, (API,))


def listed(name: str, syntaxes: frozenset[Syntax] = ALL_SYNTAXES) -> str | None:
    document = json.loads(internal.document([(secret(name), [])], syntaxes))
    (one,) = document["secrets"]
    assert one["name"] == name
    written: str | None = one["placeholder"]
    return written


@pytest.mark.parametrize(
    ("name", "syntaxes", "written"),
    [
        pytest.param("a.b", ALL_SYNTAXES, "{{secrets.a.b}}", id="all are in force"),
        pytest.param("a b", ALL_SYNTAXES, '{{secrets["a b"]}}', id="a name to be quoted"),
        pytest.param("a", {Syntax.DOUBLE_SINGULAR}, "{{secret.a}}", id="the singular alone"),
        pytest.param("a b", {Syntax.DOUBLE_SINGULAR}, '{{secret["a b"]}}', id="quoted, singular"),
        pytest.param("a", {Syntax.SINGLE}, "{secrets.a}", id="single braces alone"),
        pytest.param("a", {Syntax.URLSAFE}, "__secrets.a__", id="the URL-safe one alone"),
    ],
)
def test_a_placeholder_is_one_that_is_read(
    name: str, syntaxes: frozenset[Syntax], written: str
) -> None:
    assert listed(name, frozenset(syntaxes)) == written
    (found,) = Grammar(syntaxes).find(written.encode())
    assert (found.start, found.end, found.name) == (0, len(written.encode()), name)


@pytest.mark.parametrize(
    ("name", "syntaxes"),
    [
        pytest.param("a b", {Syntax.SINGLE, Syntax.URLSAFE}, id="no quotes in these"),
        pytest.param("a__b", {Syntax.URLSAFE}, id="two underscores inside"),
        pytest.param("a_", {Syntax.URLSAFE}, id="an underscore at the end"),
        pytest.param("a", set(), id="no syntax at all"),
    ],
)
def test_where_a_name_cannot_be_written_there_is_no_placeholder(
    name: str, syntaxes: set[Syntax]
) -> None:
    assert listed(name, frozenset(syntaxes)) is None


def test_a_client_reads_the_terms_of_its_grants() -> None:
    grant = Grant(
        ("a",),
        ("runner",),
        methods=frozenset({"POST", "GET"}),
        paths=("/v1/**",),
        locations=(parse_pattern("header:x-key"), parse_pattern("url")),
        max_uses=2,
    )
    narrower = Grant(("a",), ("runner",), hosts=(parse_domain_pattern("b.example.com:8443"),))

    (one,) = json.loads(internal.document([(secret("a"), [grant, narrower])], ALL_SYNTAXES))[
        "secrets"
    ]

    assert one["grants"] == [
        {
            "hosts": ["api.example.com"],
            "methods": ["GET", "POST"],
            "paths": ["/v1/**"],
            "in": ["header:x-key", "url"],
            "max_uses": 2,
            "plaintext": False,
        },
        {
            "hosts": ["b.example.com:8443"],
            "methods": None,
            "paths": None,
            "in": ["header", "query", "path", "body"],
            "max_uses": 4,
            "plaintext": False,
        },
    ]
