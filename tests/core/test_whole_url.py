"""A value that is a whole URL: where it leads, what is sent, and what of it is looked for."""

from __future__ import annotations

import pytest

from coatcheck.core import inject, whole_url
from coatcheck.core.destination import Destination
from coatcheck.core.redact import Needles
from coatcheck.core.secret import SecretValue
from coatcheck.core.template import NotRepresentable
from coatcheck.core.whole_url import NotAUrl

HOOK = b"https://hooks.example.com/services/T0/B0/uKzqfA92mXvb81Lw?team=blue"


def value(text: bytes) -> SecretValue:
    return SecretValue("hook", 1, text)


@pytest.mark.parametrize(
    ("text", "where", "target"),
    [
        pytest.param(b"https://h.example/a?b=1", "https://h.example", b"/a?b=1", id="a URL"),
        pytest.param(b"http://h.example/a", "http://h.example", b"/a", id="plain http"),
        pytest.param(b"HTTPS://H.Example/A", "https://h.example", b"/A", id="letter case"),
        pytest.param(b"https://h.example:8443/a", "https://h.example:8443", b"/a", id="a port"),
        pytest.param(b"https://h.example:443/a", "https://h.example", b"/a", id="its own port"),
        pytest.param(b"https://h.example", "https://h.example", b"/", id="no path"),
        pytest.param(b"https://h.example?b=1", "https://h.example", b"/?b=1", id="a query alone"),
        pytest.param(b"https://h.example/a#frag", "https://h.example", b"/a", id="a fragment"),
        pytest.param(b"https://h.example/a?b#c?d", "https://h.example", b"/a?b", id="one behind"),
        pytest.param(b"https://h.example/a/", "https://h.example", b"/a/", id="a slash at its end"),
        pytest.param(
            b"https://h.example/%7e/a:b@c", "https://h.example", b"/%7e/a:b@c", id="as is"
        ),
        pytest.param(b"https://[2600::1]/a", "https://[2600::1]", b"/a", id="IPv6"),
    ],
)
def test_a_url_says(text: bytes, where: str, target: bytes) -> None:
    url = whole_url.read(value(text))

    assert (str(url.destination), url.target) == (where, target)
    assert whole_url.target_of(text) == target


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"hooks.example.com/services", id="no scheme"),
        pytest.param(b"ftp://h.example/a", id="another scheme"),
        pytest.param(b"file:///etc/passwd", id="a file"),
        pytest.param(b"gopher://h.example/a", id="gopher"),
        pytest.param(b"https:/h.example/a", id="one slash"),
        pytest.param(b"https:///a", id="no host"),
        pytest.param(b"https://user:pass@h.example/a", id="user and password"),
        pytest.param(b"https://user@h.example/a", id="a user"),
        pytest.param(b"https://h.example@evil.example/a", id="a host that is a user"),
        pytest.param(b"https://h.example\\@evil.example/a", id="a backslash"),
        pytest.param(b"https://h.example:0/a", id="port 0"),
        pytest.param(b"https://h.example:99999/a", id="a port too large"),
        pytest.param(b"https://127.1/a", id="half an address"),
        pytest.param(b"https://0x7f000001/a", id="an address in hexadecimal"),
        pytest.param(b"https://h.example/a b", id="a space"),
        pytest.param(b"https://h.example/a\r\nX: y", id="a line end"),
        pytest.param(b"https://h.example/a\n", id="a line end at its end"),
        pytest.param(b"https://h.example/a\0", id="NUL"),
        pytest.param("https://h.example/é".encode(), id="other letters"),
        pytest.param(b"https://h.example/{{secrets.a}}", id="a placeholder"),
        pytest.param(b"https://h.example/" + b"a" * 4096, id="too long"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_is_no_url_is_not_mended_and_not_quoted(text: bytes) -> None:
    with pytest.raises(NotAUrl) as caught:
        whole_url.read(value(text))
    with pytest.raises(NotRepresentable) as refused:
        whole_url.target_of(text)

    for told in (str(caught.value), str(refused.value)):
        assert "example" not in told
        assert "127" not in told
    assert whole_url.parts(value(text)) == []


def test_what_a_url_says_does_not_show() -> None:
    url = whole_url.read(value(HOOK))

    assert url.destination == Destination("https", "hooks.example.com", 443)
    assert repr(url) == "WholeUrl()"


@pytest.mark.parametrize(
    ("base", "more", "joined"),
    [
        pytest.param(b"/a", b"", b"/a", id="nothing"),
        pytest.param(b"/a/", b"", b"/a/", id="nothing, the slash stays"),
        pytest.param(b"/a", b"/b", b"/a/b", id="a path"),
        pytest.param(b"/a/", b"/b", b"/a/b", id="a path behind a slash"),
        pytest.param(b"/", b"/b", b"/b", id="a path at the root"),
        pytest.param(b"/a", b"/", b"/a/", id="a slash"),
        pytest.param(b"/a/", b"/", b"/a/", id="a slash behind a slash"),
        pytest.param(b"/a?x=1", b"/b", b"/a/b?x=1", id="a path before the URL's query"),
        pytest.param(b"/a", b"?y=2", b"/a?y=2", id="a query"),
        pytest.param(b"/a?x=1", b"?y=2", b"/a?x=1&y=2", id="both have a query"),
        pytest.param(b"/a?x=1", b"/b?y=2", b"/a/b?x=1&y=2", id="a path and a query"),
        pytest.param(b"/a?", b"", b"/a?", id="an empty query stays"),
        pytest.param(b"/a?x=1", b"?", b"/a?x=1", id="an empty query says nothing"),
        pytest.param(b"/a?x=?", b"?y=?", b"/a?x=?&y=?", id="question marks in a query"),
    ],
)
def test_what_is_put_to_a_url(base: bytes, more: bytes, joined: bytes) -> None:
    assert inject.put_to(base, more) == joined


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(HOOK, id="the URL"),
        pytest.param(HOOK.partition(b"?")[0], id="without its query"),
        pytest.param(HOOK.removeprefix(b"https:"), id="without its scheme"),
        pytest.param(b"POST /services/T0/B0/uKzqfA92mXvb81Lw?team=blue", id="the target"),
        pytest.param(b"no such path: /services/T0/B0/uKzqfA92mXvb81Lw", id="the path"),
        pytest.param(b"/services/T0/B0/uKzqfA92mXvb81Lw/more?x=1", id="the path with more"),
        pytest.param(b'{"token": "uKzqfA92mXvb81Lw"}', id="a long segment"),
        pytest.param(b"%2Fservices%2FT0%2FB0%2FuKzqfA92mXvb81Lw", id="percent-encoded"),
        pytest.param(b'"\\/services\\/T0\\/B0\\/uKzqfA92mXvb81Lw"', id="JSON-escaped"),
    ],
)
def test_a_part_that_gives_the_secret_away_is_masked(answer: bytes) -> None:
    needles = Needles.build([value(HOOK)], urls=[value(HOOK)])

    clean = needles.redact(answer)

    assert b"uKzqfA92mXvb81Lw" not in clean
    assert b"********" in clean


def test_where_no_requests_go_to_a_value_its_parts_are_text() -> None:
    answer = b"/services/T0/B0/uKzqfA92mXvb81Lw"

    assert Needles.build([value(HOOK)]).redact(answer) == answer


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param(b"https://h.example/", [], id="a host alone"),
        pytest.param(b"https://h.example/v1", [], id="a path that is in every answer"),
        pytest.param(b"https://h.example/v1/hooks/", [b"/v1/hooks/", b"/v1/hooks"], id="a path"),
        pytest.param(
            b"https://h.example/?k=abcdefghijklmnop",
            [b"/?k=abcdefghijklmnop", b"k=abcdefghijklmnop", b"abcdefghijklmnop"],
            id="a parameter",
        ),
        pytest.param(
            b"https://eo1a2b3c4d5e6f7g.h.example/", [b"eo1a2b3c4d5e6f7g"], id="a label of the host"
        ),
        pytest.param(
            b"https://h.example/a%2Db%2Dc%2Dd", [b"/a%2Db%2Dc%2Dd", b"/a-b-c-d"], id="undone"
        ),
    ],
)
def test_the_parts_of_a_url(text: bytes, found: list[bytes]) -> None:
    got = whole_url.parts(value(text))

    assert sorted(got) == sorted(found)
