"""The one reading of a path, and what patterns make of it."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.core.paths import canonical_path, path_fits


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        pytest.param(b"/", "/", id="the root"),
        pytest.param(b"/v1/me", "/v1/me", id="plain"),
        pytest.param(b"/v1/", "/v1/", id="a slash at the end stays"),
        pytest.param(b"/a%20b", "/a b", id="decoded once"),
        pytest.param(b"/%76%31", "/v1", id="letters that need no encoding"),
        pytest.param(b"/caf%C3%A9", "/caf\u00e9", id="UTF-8"),
        pytest.param(b"/...", "/...", id="three dots are a name"),
        pytest.param(b"/.well-known/x", "/.well-known/x", id="a dot that begins a name"),
        pytest.param(b"", None, id="empty"),
        pytest.param(b"*", None, id="asterisk form"),
        pytest.param(b"v1", None, id="no slash at the start"),
        pytest.param(b"//evil/v1", None, id="two slashes"),
        pytest.param(b"/v1//me", None, id="two slashes inside"),
        pytest.param(b"/v1/../admin", None, id="dot-dot"),
        pytest.param(b"/v1/..", None, id="dot-dot at the end"),
        pytest.param(b"/v1/./me", None, id="dot"),
        pytest.param(b"/v1/%2e%2e/admin", None, id="encoded dots"),
        pytest.param(b"/v1/.%2E/admin", None, id="half-encoded dots"),
        pytest.param(b"/v1/a%2Eb", None, id="an encoded dot inside a name"),
        pytest.param(b"/v1%2fadmin", None, id="encoded slash"),
        pytest.param(b"/v1%5Cadmin", None, id="encoded backslash"),
        pytest.param(b"/v1\\admin", None, id="backslash"),
        pytest.param(b"/v1/..;/admin", None, id="path parameter"),
        pytest.param(b"/v1/a%3Bb", None, id="encoded path parameter"),
        pytest.param(b"/v1/%252e%252e/", None, id="encoded twice"),
        pytest.param(b"/v1/%25", None, id="encoded percent sign"),
        pytest.param(b"/v1/%00", None, id="encoded NUL"),
        pytest.param(b"/v1/%0d%0a", None, id="encoded line end"),
        pytest.param(b"/v1/%7f", None, id="encoded DEL"),
        pytest.param(b"/v1/%", None, id="a lone percent sign"),
        pytest.param(b"/v1/%4", None, id="half an escape"),
        pytest.param(b"/v1/%4%41", None, id="half an escape before a whole one"),
        pytest.param(b"/v1/%zz", None, id="an escape that is none"),
        pytest.param(b"/v1/%u002e", None, id="an escape of old"),
        pytest.param(b"/v1/%c0%ae%c0%ae/", None, id="overlong UTF-8 dots"),
        pytest.param(b"/v1/%c0%af", None, id="overlong UTF-8 slash"),
        pytest.param(b"/v1/%ff", None, id="no UTF-8"),
        pytest.param(b"/v1/\xc3\xa9", None, id="raw bytes outside ASCII"),
        pytest.param(b"/v1/a b", None, id="a raw space"),
        pytest.param(b"/v1/\t", None, id="a raw tab"),
        pytest.param(b"/v1/..%20/x", None, id="dots and a space"),
        pytest.param(b"/v1/%20../x", None, id="a space and dots"),
        pytest.param(b"/v1/.%20./x", None, id="a space among dots"),
        pytest.param(b"/v1/.%20/x", None, id="a dot and a space"),
        pytest.param(b"/v1/..%c2%a0/x", None, id="dots and a no-break space"),
        pytest.param(b"/v1/..%e3%80%80/x", None, id="dots and a wide space"),
        pytest.param(b"/v1/..%e2%80%8b/x", None, id="dots and a space of no width"),
        pytest.param(b"/v1/%ef%bc%8e%EF%BC%8E/x", None, id="full-width dots"),
        pytest.param(b"/v1/%e2%80%a5/x", None, id="two dots in one character"),
        pytest.param(b"/v1/%ef%b9%92./x", None, id="a small dot and a dot"),
        pytest.param(b"/v1/%ef%bc%8fx", None, id="a full-width slash"),
        pytest.param(b"/v1%ef%bc%bcx", None, id="a full-width backslash"),
        pytest.param(b"/v1/a%ef%bc%9bx", None, id="a full-width semicolon"),
        pytest.param(b"/v1/%ef%bc%852e", None, id="a full-width percent sign"),
        pytest.param(b"/v1/%cd%be", None, id="a question mark of Greece, a semicolon in NFKC"),
        pytest.param(b"/v1/x%ef%bc%9f", None, id="a full-width question mark"),
        pytest.param(b"/v1/%e2%84%80", None, id="a/c in one character"),
        pytest.param(b"/v1/x%20..y", "/v1/x ..y", id="blanks and dots among letters"),
        pytest.param(b"/v1/%20/x", "/v1/ /x", id="a blank alone"),
        pytest.param(b"/v1/%ef%bc%ae%ef%bc%a6", "/v1/\uff2e\uff26", id="full-width letters"),
        pytest.param(b"/v1/%e2%80%a6", "/v1/\u2026", id="three dots in one character are a name"),
        pytest.param(b"/v1/%f0%9f%94%91.txt", "/v1/\U0001f511.txt", id="beyond the first plane"),
    ],
)
def test_canonical_path(raw: bytes, canonical: str | None) -> None:
    assert canonical_path(raw) == canonical


PIECES = ["/", ".", "..", "%2e", "%2F", "%5c", "%25", ";", "a", "%20", "%", "2", "e", " ", "\\"]
PIECES += ["%E3%80%80", "%ef%bc%8e", "%ef%bc%8f", "%e2%80%a5", "%e2%80%8b", "%ef%bd%81"]


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_a_canonical_path_has_one_reading(text: str) -> None:
    """Whatever a server does to it (collapse slashes, resolve dots, decode again, trim, fold)."""
    path = canonical_path(b"/" + text.encode())

    if path is not None:
        plain = unicodedata.normalize("NFKC", path)
        assert "//" not in path
        assert "%" not in path
        assert plain.count("/") == path.count("/")
        assert not {".", ".."} & {part.strip("\u200b \u3000") for part in plain.split("/")}


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        pytest.param("/v1/me", "/v1/me", True, id="a path is itself"),
        pytest.param("/v1/me", "/v1/me/", False, id="and not the one with a slash"),
        pytest.param("/v1/me", "/v1/men", False, id="and nothing longer"),
        pytest.param("/v1/me", "/V1/me", False, id="case-sensitive"),
        pytest.param("/v1/*", "/v1/me", True, id="* is a segment"),
        pytest.param("/v1/*", "/v1/", True, id="* may be empty"),
        pytest.param("/v1/*", "/v1/me/x", False, id="* does not cross a slash"),
        pytest.param("/v1/*/x", "/v1/me/x", True, id="* inside"),
        pytest.param("/v1/*/x", "/v1/me/y/x", False, id="* inside is one segment"),
        pytest.param("/v1/*.json", "/v1/a.json", True, id="* within a segment"),
        pytest.param("/v1/a*b", "/v1/a/b", False, id="* within a segment, no slash"),
        pytest.param("/v1/**", "/v1/a/b/c", True, id="** crosses slashes"),
        pytest.param("/v1/**", "/v1/", True, id="** may be empty"),
        pytest.param("/v1/**", "/v1", True, id="/v1/** is /v1 too"),
        pytest.param("/v1/**", "/v1x", False, id="/v1/** is not /v1x"),
        pytest.param("/v1/**", "/v2/v1/x", False, id="anchored at the start"),
        pytest.param("/**/x", "/a/b/x", True, id="** inside"),
        pytest.param("/**/x", "/a/b/xy", False, id="anchored at the end"),
        pytest.param("/**/a/*/b", "/a/a/a/c/b", True, id="both stars"),
        pytest.param("/**/a/*/b", "/a/a/c/d/b", False, id="both stars, * one segment"),
        pytest.param("/**", "/", True, id="/** is all"),
        pytest.param("/v1.0", "/v1x0", False, id="a dot is a dot"),
        pytest.param("/(a|b)", "/a", False, id="no regular expressions"),
    ],
)
def test_path_patterns(pattern: str, path: str, fits: bool) -> None:
    assert path_fits((pattern,), path) is fits


def test_a_path_fits_one_of_several_patterns() -> None:
    assert path_fits(("/a", "/b"), "/b")
    assert not path_fits(("/a", "/b"), "/c")
    assert not path_fits((), "/c")


@given(
    st.lists(st.sampled_from(["/", "a", "b", "*", "**"]), max_size=7).map("".join),
    st.text("/ab\n", max_size=10),
)
def test_path_patterns_agree_with_a_regular_expression(pattern: str, path: str) -> None:
    expression = re.sub(
        r"\\\*(\\\*)*", lambda m: ".*" if len(m[0]) > 2 else "[^/]*", re.escape(pattern)
    )
    expected = re.fullmatch(expression, path, re.DOTALL) is not None
    expected = expected or (pattern.endswith("/**") and path == pattern[:-3])

    assert path_fits((pattern,), path) is expected
