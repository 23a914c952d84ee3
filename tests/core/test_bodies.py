"""Request bodies: which bytes are a placeholder, where it stands, what a value becomes there."""

from __future__ import annotations

import json
import random
import sys
import tracemalloc
from collections.abc import Callable, Iterable
from urllib.parse import parse_qsl, quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck.core import bodies, media_type
from coatcheck.core.json_place import MAX_DEPTH, MAX_POINTER
from coatcheck.core.placeholder import Grammar, Syntax
from coatcheck.core.problems import Code, Refused
from coatcheck.core.secret import SecretValue
from coatcheck.core.template import NotRepresentable, Piece, Slot, render, slots
from tests.long import LONG

GRAMMAR = Grammar()
VALUE = b's"1/\\2 &+%=<\n\xc3\xa9'  # something to escape for every place

JSON = b"application/json"
FORM = b"application/x-www-form-urlencoded"
MULTIPART = b"multipart/form-data; boundary=XX"
XML = b"application/xml"
TEXT = b"text/plain"


def pieces_of(
    content_type: bytes, body: bytes, cuts: Iterable[int] = (), grammar: Grammar = GRAMMAR
) -> list[Piece]:
    reader = bodies.rewriter(((b"Content-Type", content_type),), grammar)
    assert reader is not None
    ends = [*sorted(cuts), len(body)]
    out: list[Piece] = []
    for start, end in zip([0, *ends], ends, strict=False):
        out += reader.feed(body[start:end])
    out += reader.finish()
    return out


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """*pieces* with neighbouring bytes put together: what must not depend on chunks."""
    out: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, bytes) and out and isinstance(out[-1], bytes):
            out[-1] += piece
        else:
            out.append(piece)
    return out


def comparable(pieces: Iterable[Piece]) -> list[object]:
    """As `joined`, each slot by what it says (encoders are made anew for each body)."""
    return [
        (p.name, str(p.location), p.text, p.encode(b'"<')) if isinstance(p, Slot) else p
        for p in joined(pieces)
    ]


def filled(content_type: bytes, body: bytes, value: bytes = VALUE) -> bytes:
    return render(pieces_of(content_type, body), lambda slot: SecretValue("x", 1, value))


def as_it_came(pieces: Iterable[Piece]) -> bytes:
    return render(pieces, lambda slot: None)


def found(content_type: bytes, body: bytes) -> list[tuple[str | None, str]]:
    """(secret's name, location) of each placeholder; the body is otherwise as it came."""
    pieces = pieces_of(content_type, body)
    assert as_it_came(pieces) == body
    return [(slot.name, slot.location.name) for slot in slots(pieces)]


def part(name: str, body: bytes, *headers: bytes) -> bytes:
    head = b"\r\n".join([b'Content-Disposition: form-data; name="%b"' % name.encode(), *headers])
    return b"--XX\r\n" + head + b"\r\n\r\n" + body + b"\r\n"


# --- syntax x kind of body x what the client does to it ---------------------------------------

WRITTEN = {
    "double": b"{{secrets.crm.apiKey}}",
    "double, spaced": b"{{ secrets.crm.apiKey }}",
    "singular": b"{{secret.crm.apiKey}}",
    "single": b"{secrets.crm.apiKey}",
    "urlsafe": b"__secrets.crm.apiKey__",
    "quoted": b'{{secrets["crm.apiKey"]}}',
}
IN_JSON = b's\\"1/\\\\2 &+%=<\\n\xc3\xa9'
IN_URL = b"s%221%2F%5C2%20%26%2B%25%3D%3C%0A%C3%A9"
IN_XML = b"s&quot;1/\\2 &amp;+%=&lt;&#10;\xc3\xa9"


def all_escaped(text: bytes) -> bytes:
    return b"".join(b"\\u%04x" % byte for byte in text)


def all_escaped_upper(text: bytes) -> bytes:
    return b"".join(b"\\u%04X" % byte for byte in text)


def percent_all(text: bytes, form: str = "%%%02x") -> bytes:
    return b"".join((form % byte).encode() for byte in text)


CLIENTS: list[tuple[str, bytes, Callable[[bytes], bytes], bytes, bytes, bytes]] = [
    # kind, content type, what the client does, before, after, the value as it must arrive
    ("json", JSON, lambda t: json.dumps(t.decode())[1:-1].encode(), b'{"a": "', b'"}', IN_JSON),
    ("json, letters as \\u", JSON, all_escaped, b'{"a": "', b'"}', IN_JSON),
    ("json, upper-case \\u", JSON, all_escaped_upper, b'{"a": "', b'"}', IN_JSON),
    ("json, bare", JSON, bytes, b'{"a": ', b"}", IN_JSON),
    ("ndjson", b"application/x-ndjson", bytes, b'{"b": 1}\n{"a": ', b"}\n", IN_JSON),
    ("+json", b"application/vnd.x+json", bytes, b'{"a": ', b"}", IN_JSON),
    ("form, raw", FORM, bytes, b"b=1&a=", b"&c=2", IN_URL),
    ("form, quoted", FORM, lambda t: quote(t).encode(), b"b=1&a=", b"&c=2", IN_URL),
    ("form, + for space", FORM, lambda t: quote_plus(t).encode(), b"b=1&a=", b"&c=2", IN_URL),
    ("form, lower hex", FORM, percent_all, b"b=1&a=", b"&c=2", IN_URL),
    (
        "form, upper hex",
        FORM,
        lambda t: percent_all(t, "%%%02X"),
        b"b=1&a=",
        b"&c=2",
        IN_URL,
    ),
    (
        "multipart",
        MULTIPART,
        bytes,
        b'--XX\r\nContent-Disposition: x; name="a"\r\n\r\n',
        b"\r\n--XX--",
        VALUE,
    ),
    (
        "multipart, JSON part",
        MULTIPART,
        bytes,
        b'--XX\r\nContent-Disposition: x; name=a\r\nContent-Type: application/json\r\n\r\n{"k":',
        b"}\r\n--XX--\r\n",
        IN_JSON,
    ),
    ("xml", XML, bytes, b"<a b='", b"'/>", IN_XML),
    ("soap", b"application/soap+xml; charset=utf-8", bytes, b"<a>", b"</a>", IN_XML),
    ("text", TEXT, bytes, b"hello ", b" world", VALUE),
    ("graphql", b"application/graphql", bytes, b"{ me }", b"", VALUE),
]


@pytest.mark.parametrize("syntax", WRITTEN)
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client[0])
def test_a_placeholder_is_replaced_and_nothing_else(
    syntax: str, client: tuple[str, bytes, Callable[[bytes], bytes], bytes, bytes, bytes]
) -> None:
    _, content_type, written, before, after, expected = client
    text = written(WRITTEN[syntax])
    body = before + text + after
    assert filled(content_type, body) == before + expected + after
    (slot,) = slots(pieces_of(content_type, body))
    assert (slot.name, slot.text) == ("crm.apiKey", text)
    has_name = content_type in (JSON, FORM, MULTIPART) or b"json" in content_type
    assert slot.location.name == ("/a" if has_name else "")


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        pytest.param(b"application/json", IN_JSON, id="json"),
        pytest.param(b'Application/JSON ; charset="UTF-8"', IN_JSON, id="case and parameters"),
        pytest.param(b"text/json", IN_JSON, id="text/json"),
        pytest.param(b"application/graphql+json", IN_JSON, id="graphql+json"),
        pytest.param(b"application/x-amz-json-1.1", IN_JSON, id="AWS's json"),
        pytest.param(b"application/x-www-form-urlencoded;x=y", IN_URL, id="form"),
        pytest.param(b"text/xml", IN_XML, id="text/xml"),
        pytest.param(b"application/atom+xml", IN_XML, id="+xml"),
        pytest.param(b"text/csv", VALUE, id="other text"),
        pytest.param(b"application/javascript", VALUE, id="javascript"),
        pytest.param(b"application/yaml", VALUE, id="yaml"),
        pytest.param(b"application/toml", VALUE, id="toml"),
        pytest.param(b"", VALUE, id="an empty type"),
    ],
)
def test_the_content_type_chooses_the_escaping(content_type: bytes, expected: bytes) -> None:
    assert filled(content_type, b"{secrets.x}") == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param((), VALUE, id="no type: text"),
        pytest.param(
            ((b"content-type", JSON), (b"CONTENT-TYPE", b" " + JSON)), IN_JSON, id="the same twice"
        ),
        pytest.param(
            ((b"Content-Type", JSON), (b"Content-Type", FORM)), VALUE, id="two that differ: text"
        ),
    ],
)
def test_fields_without_one_clear_type(
    fields: tuple[tuple[bytes, bytes], ...], expected: bytes
) -> None:
    reader = bodies.rewriter(fields, GRAMMAR)
    assert reader is not None
    pieces = [*reader.feed(b"{secrets.x}"), *reader.finish()]
    assert render(pieces, lambda slot: SecretValue("x", 1, VALUE)) == expected


NAMED = ["utf-8", "UTF-8", '"utf-8"', "utf8", "us-ascii", "US-ASCII", '"\\utf-8"']
UNNAMED = ["utf-7", '"UTF-7"', "utf-16", "utf-16le", "shift_jis", "iso-2022-jp", "cp037", "hz"]
UNNAMED += ["iso-8859-1", "unknown", "", '""', "'utf-8'", "utf-8,utf-7"]
UNNAMED += ["utf-8; charset=utf-7", "utf-7; charset=utf-8", "utf-8; charset=utf-8"]
UNNAMED += ["utf-8; charset*=''utf-7", "utf-8; charset*0=utf-7", "utf-8; charset = utf-7"]
UNNAMED += ["utf-8; (comment) charset=utf-7", '"utf-7', "utf-8 charset=utf-7"]
CHARSETS = [(text, True) for text in NAMED] + [(text, False) for text in UNNAMED]
WITH_A_NAME = {
    JSON: (b'{"a": "', b'"}', IN_JSON),
    b"application/x-ndjson": (b'{"a": "', b'"}\n', IN_JSON),
    FORM: (b"a=", b"", IN_URL),
    MULTIPART: (b'--XX\r\nContent-Disposition: x; name="a"\r\n\r\n', b"\r\n--XX--", VALUE),
}


@pytest.mark.parametrize(("charset", "has_name"), CHARSETS)
@pytest.mark.parametrize("content_type", WITH_A_NAME)
def test_in_a_charset_that_may_not_be_ascii_there_is_no_name(
    content_type: bytes, charset: str, has_name: bool
) -> None:
    """Its receiver may see another structure; for a grant of the whole body all is as ever."""
    kind = content_type + b"; charset=" + charset.encode()
    before, after, written = WITH_A_NAME[content_type]
    if content_type == MULTIPART and charset == '"utf-7':
        kind = b'multipart/form-data; boundary=XX; charset*="utf-7"'  # else no boundary is sure
    if content_type == MULTIPART and not media_type.parse(kind).is_whole:
        with pytest.raises(Refused, match="bad_request"):
            found(kind, before + P + after)
        return

    assert found(kind, before + P + after) == [("x", "/a" if has_name else "")]
    assert filled(kind, before + P + after) == before + written + after


@pytest.mark.parametrize("content_type", [XML, TEXT, b"application/yaml"])
@pytest.mark.parametrize("charset", ["utf-8", "utf-7"])
def test_where_nothing_has_a_name_the_charset_says_nothing(
    content_type: bytes, charset: str
) -> None:
    kind = content_type + b"; charset=" + charset.encode()
    declared = b'<?xml version="1.0" encoding="%b"?><a>' % charset.encode()

    assert found(kind, declared + P) == [("x", "")]
    assert filled(kind, P) == filled(content_type, P)


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/octet-stream",
        b"image/png",
        b"image/svg",
        b"application/x-protobuf",
        b"application/grpc",
        b"application/zip",
        b"application/pdf",
        b"audio/mpeg",
        b"application/vnd.git-upload-pack",
        b"nonsense",
    ],
)
def test_a_body_that_is_no_text_is_left_alone(content_type: bytes) -> None:
    assert bodies.rewriter(((b"Content-Type", content_type),), GRAMMAR) is None


@pytest.mark.parametrize("content_type", [JSON, FORM, MULTIPART, XML, TEXT])
@pytest.mark.parametrize("value", [b"{{secrets.y}}", b"%7B%7Bsecrets.y%7D%7D", b"__secrets.y__"])
def test_a_value_that_is_a_placeholder_is_not_expanded(content_type: bytes, value: bytes) -> None:
    body = part("a", b"{secrets.x}") + b"--XX--" if content_type == MULTIPART else b"{secrets.x}"
    asked: list[str | None] = []

    def fill(slot: Slot) -> SecretValue:
        asked.append(slot.name)
        return SecretValue("x", 1, value)

    render(pieces_of(content_type, body), fill)
    assert asked == ["x"]


NEAR_MISSES = [
    b"{{secret}}",
    b"{{ secrets }}",
    b"{ secrets.x}",
    b"_secrets.x_",
    b"{{Secrets.x}}",
    b"secrets.x",
    b"%257B%257Bsecrets.x%257D%257D",
]


@pytest.mark.parametrize("text", NEAR_MISSES)
@pytest.mark.parametrize("content_type", [JSON, FORM, MULTIPART, XML, TEXT])
def test_near_misses_are_text(content_type: bytes, text: bytes) -> None:
    body = {
        JSON: b'{"a": "%b", "b": %b}' % (text, text),
        FORM: b"a=" + text + b"&" + text,
        MULTIPART: part("a", text) + b"--XX--",
    }.get(content_type, text)
    assert found(content_type, body) == []


@pytest.mark.parametrize(
    "escaped",
    [b"\\\\u007b{secrets.x}}", b"{\\\\u007bsecrets.x}}"],
    ids=["before", "inside"],
)
def test_an_escaped_backslash_is_no_escape(escaped: bytes) -> None:
    """In JSON ``\\\\u007b`` is a backslash and the letters u007b: no brace, decoded once."""
    texts = [slot.text for slot in slots(pieces_of(JSON, b'["' + escaped + b'"]'))]
    assert not any(b"u007b" in text for text in texts)


@pytest.mark.parametrize("content_type", [JSON, FORM, XML, TEXT])
def test_a_broken_placeholder_is_reported(content_type: bytes) -> None:
    body = {JSON: b'{"a": "{{secrets.x"}', FORM: b"a={{secrets.x&b=}}"}.get(
        content_type, b"{{secrets.x"
    )
    assert [name for name, _ in found(content_type, body)] == [None]


def test_only_the_syntaxes_in_force_are_read() -> None:
    grammar = Grammar({Syntax.URLSAFE})
    body = b'{"a": "{{secrets.x}} __secrets.y__", "b": {{secrets.z}}}'
    names = [slot.name for slot in slots(pieces_of(JSON, body, grammar=grammar))]
    assert names == ["y"]


# --- JSON --------------------------------------------------------------------------------------

P = b"{{secrets.x}}"


class TestJson:
    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            pytest.param(b'"%b"', [""], id="the root"),
            pytest.param(b'{"a":{"b":["c","%b"]}}', ["/a/b/1"], id="keys and indexes"),
            pytest.param(b'[[],{},[1,2],"%b"]', ["/3"], id="elements of all kinds count"),
            pytest.param(b'[["a,b","]"],"x,y","%b"]', ["/2"], id="punctuation in strings does not"),
            pytest.param(b'{"a/b":{"c~d":"%b"}}', ["/a~1b/c~0d"], id="~1 and ~0"),
            pytest.param(b'{"":"%b"}', ["/"], id="the empty key"),
            pytest.param(b'{"\\u0061\\"":"%b"}', ['/a"'], id="escapes in keys"),
            pytest.param(b'{"\xc3\xa9":"%b"}', ["/é"], id="UTF-8 in keys"),
            pytest.param(b'{"a":"%b","a":"%b"}', ["/a", "/a"], id="duplicate keys"),
            pytest.param(b'{"a":{"b":1},"c":"%b"}', ["/c"], id="after an object"),
            pytest.param(b'{"%b":1,"b":"%b"}', ["", "/b"], id="a key has no name"),
            pytest.param(b'{"%b":{"a":"%b"}}', ["", ""], id="nor has what is below it"),
            pytest.param(b'{"a":%b}', ["/a"], id="bare"),
            pytest.param(b'{%b:"%b"}', ["", ""], id="a bare key"),
            pytest.param(b"[1,%b,%b]", ["/1", "/2"], id="bare elements"),
            pytest.param(b'{"a":1}\n{"b":"%b"}', ["/b"], id="each document has its own root"),
            pytest.param(b'1 2 "x" {"b":"%b"}', ["/b"], id="scalars are documents, too"),
            pytest.param(b'\xef\xbb\xbf{"a":"%b"}', ["/a"], id="after a byte order mark"),
            pytest.param(b'{ "a" :\r\n\t[ "%b" ] }', ["/a/0"], id="white space"),
            pytest.param(b'{"a":"x\ny","b":"%b"}', ["/b"], id="a raw line end in a string"),
            pytest.param(b'{"\\ud800":"%b","b":"%b"}', ["", "/b"], id="half a pair has no name"),
            pytest.param(b'{"\xff":"%b","b":"%b"}', ["", "/b"], id="broken UTF-8 has no name"),
            pytest.param(b'{"client_secret":"%b"}', ["/client_secret"], id="the word itself"),
        ],
    )
    def test_pointers(self, body: bytes, expected: list[str]) -> None:
        body = body.replace(b"%b", P)
        assert found(JSON, body) == [("x", name) for name in expected]

    @pytest.mark.parametrize(
        "broken",
        [
            b"{'a': 1, \"%s\"",
            b'{a: "%s"',
            b'{"a" "%s"',
            b'{"a":1 "b":"%s"',
            b'["a" "%s"',
            b'{"a":1,,"b":"%s"',
            b'{"a":1]"%s"',
            b'["a"}"%s"',
            b'[1,]"%s"',
            b'{"a":1,}"%s"',
            b'{"a":/* c */"%s"',
            b'{"a":1 // "\n,"b":"%s"',
            b'["a":"%s"',
            b'{"a","%s"',
            b'{"a":`"%s"`',
            b'{"a":[1,"x"y,"%s"',
        ],
    )
    def test_behind_a_syntax_error_there_is_no_name(self, broken: bytes) -> None:
        """Two parsers go on differently; the value is escaped for a string all the same."""
        before, after = broken.split(b"%s")
        body = before + P + after + b', "z": {"y": "' + P + b'"}}'
        assert found(JSON, body) == [("x", ""), ("x", "")]
        assert filled(JSON, body) == body.replace(P, IN_JSON)

    def test_the_way_back_from_a_wrong_bracket_is_not_guessed(self) -> None:
        assert found(JSON, b'{"a":[1},"b":"' + P + b'"}') == [("x", "")]

    @pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1, 100_000])
    def test_nesting_needs_no_stack(self, depth: int) -> None:
        body = b"[" * depth + b'"' + P + b'"' + b"]" * depth
        # At the bound the pointer is complete; over it, it is given up.
        name = "/0" * depth if depth <= MAX_DEPTH else ""
        assert found(JSON, body) == [("x", name)]

    def test_a_pointer_that_is_too_long_is_no_name(self) -> None:
        long = b"k" * (MAX_POINTER - 1)
        body = b'{"%b":"%b","%b":"%b"}' % (long, P, long + b"kk", P)
        assert found(JSON, body) == [("x", "/" + long.decode()), ("x", "")]
        body = b'{"%b":{"a":"%b","ab":"%b"},"b":"%b"}' % (long, P, P, P)
        assert [name[-5:] for _, name in found(JSON, body)] == ["kkk/a", "", "/b"]

    @pytest.mark.parametrize("before", [b"", b"x"])
    def test_a_run_of_backslashes_keeps_its_pairs(self, before: bytes) -> None:
        """Cut anywhere, an even number of them leaves the ``u007b`` behind it unescaped."""
        start = b'["' + before + b"\\" * 200 + b"u007b"
        pieces = pieces_of(JSON, start + b'{secrets.x}}"]', [len(start)])
        assert [slot.text for slot in slots(pieces)] == [b"{secrets.x}"]

    def test_an_unclosed_string(self) -> None:
        assert found(JSON, b'{"a": "' + P) == [("x", "/a")]
        assert found(JSON, b'{"a": "x\\') == []

    def test_a_placeholder_does_not_cross_the_end_of_a_string(self) -> None:
        assert [name for name, _ in found(JSON, b'["{{secrets.", "x}}"]')] == [None]

    def test_a_value_that_is_not_utf8_cannot_stand_in_json(self) -> None:
        with pytest.raises(NotRepresentable):
            filled(JSON, b'["' + P + b'"]', b"\xff")


# --- forms -------------------------------------------------------------------------------------


class TestForm:
    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            pytest.param(b"a=%s", ["/a"], id="a field"),
            pytest.param(b"a=1&b=%s&c=%s", ["/b", "/c"], id="fields"),
            pytest.param(b"a+b%2f=%s", ["/a b/"], id="a decoded name"),
            pytest.param(b"%25zz=%s", ["/%zz"], id="a name is decoded once"),
            pytest.param(b"=%s", ["/"], id="an empty name"),
            pytest.param(b"%s", [""], id="a name alone"),
            pytest.param(b"%s=%s&b=%s", ["", "", "/b"], id="a placeholder in the name"),
            pytest.param(b"a==%s=", ["/a"], id="an equals sign in the value"),
            pytest.param(b"&&a=%s&", ["/a"], id="empty fields"),
            pytest.param(b"a=1;b=%s&c=%s", ["", "/c"], id="behind a semicolon: no name"),
            pytest.param(b"a=%s;b=%s", ["/a", ""], id="in front of it: a name"),
            pytest.param(b"a;b=%s", [""], id="a semicolon in the name"),
            pytest.param(b"a=1%3Bb=%s", ["/a"], id="an encoded semicolon is text"),
            pytest.param(b"%ff=%s", [""], id="a name that is not UTF-8"),
            pytest.param(b"n" * 4097 + b"=%s&b=%s", ["", "/b"], id="a very long name"),
        ],
    )
    def test_names(self, body: bytes, expected: list[str]) -> None:
        assert found(FORM, body.replace(b"%s", P)) == [("x", name) for name in expected]

    def test_the_receiver_reads_the_value(self) -> None:
        value = bytes(range(256))
        body = filled(FORM, b"a=1&b=%7B%7Bsecrets.x%7D%7D&c=x%20y", value)
        read = parse_qsl(body.decode("ascii"), encoding="latin-1")
        assert read == [("a", "1"), ("b", value.decode("latin-1")), ("c", "x y")]


# --- multipart -----------------------------------------------------------------------------------


TYPED = b"Content-Disposition: x; name=a\r\nContent-Type: text/plain"


class TestMultipart:
    def test_part_bodies_and_nothing_else(self) -> None:
        body = (
            b"preamble {{secrets.p}}\r\n"
            + part("a", P, b"X-Note: {{secrets.h}}")
            + part("b{{secrets.n}}", b"y")
            + b"--XX--\r\nepilogue {{secrets.e}}\r\n"
            + part("z", b"{{secrets.z}}")
        )
        assert found(MULTIPART, body) == [("x", "/a")]

    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            pytest.param([], 1, id="no type"),
            pytest.param([b"Content-Type: text/plain; charset=utf-8"], 1, id="text"),
            pytest.param([b"content-type: Application/JSON"], 1, id="json"),
            pytest.param([b"Content-Type: application/octet-stream"], 0, id="octets"),
            pytest.param([b"Content-Type: image/png"], 0, id="an image"),
            pytest.param([b"Content-Type: multipart/mixed; boundary=YY"], 0, id="nested"),
            pytest.param([b"Content-Transfer-Encoding: base64"], 0, id="base64"),
            pytest.param([b"Content-Transfer-Encoding: Quoted-Printable"], 0, id="qp"),
            pytest.param([b"Content-Transfer-Encoding: 8bit"], 1, id="8bit"),
        ],
    )
    def test_which_parts(self, headers: list[bytes], expected: int) -> None:
        body = part("a", P, *headers) + part("b", P) + b"--XX--"
        assert found(MULTIPART, body) == [("x", "/a")] * expected + [("x", "/b")]

    @pytest.mark.parametrize(
        ("head", "expected"),
        [
            pytest.param(b"Content-Disposition: form-data; name=a", "/a", id="a token"),
            pytest.param(b"CONTENT-DISPOSITION:form-data;NAME=a", "/a", id="letter case"),
            pytest.param(
                b'Content-Disposition: x; filename="n; name=b"; name=a', "/a", id="quotes"
            ),
            pytest.param(b"Content-Disposition: form-data", "", id="no name"),
            pytest.param(b"X: y", "", id="no Content-Disposition"),
            pytest.param(b"Content-Disposition: x; name=a; name=b", "", id="two names"),
            pytest.param(b"Content-Disposition: x; name=a; name*=utf-8''b", "", id="name*"),
            pytest.param(b"Content-Disposition: x; name=a; name*0=b", "", id="name in pieces"),
            pytest.param(b'Content-Disposition: x; name="a\\b"', "", id="a backslash"),
            pytest.param(b'Content-Disposition: x; name="a', "", id="an open quote"),
            pytest.param(b"Content-Disposition: x;\r\n name=a", "", id="a folded line"),
            pytest.param(
                b"Content-Disposition: x; name=a\r\nContent-Disposition: x; name=b", "", id="twice"
            ),
            pytest.param(b"Content-Disposition: x; name=a\nX: y", "", id="a bare line feed"),
            pytest.param(TYPED + b'; Charset="UTF-8"', "/a", id="a part in UTF-8"),
            pytest.param(TYPED + b"; charset=ISO-8859-1", "/a", id="as Java's HttpClient has it"),
            pytest.param(TYPED + b"; charset=utf-7", "", id="a part in another charset"),
            pytest.param(TYPED + b"; charset=utf-8; charset=utf-7", "", id="in two charsets"),
            pytest.param(TYPED + b"; charset*=''utf-7", "", id="an extended charset"),
            pytest.param(TYPED + b"; charset = utf-7", "", id="an odd parameter"),
            pytest.param(b"Content-Disposition: x; name=a\r\n--XX\r\nA: b", "", id="a delimiter"),
            pytest.param(b"Content-Disposition: x; name=a\r\n--XX: b", "", id="almost one"),
        ],
    )
    def test_names(self, head: bytes, expected: str) -> None:
        body = b"--XX\r\n" + head + b"\r\n\r\n" + P + b"\r\n--XX--"
        assert found(MULTIPART, body) == [("x", expected)]

    @pytest.mark.parametrize(
        "delimiter",
        [
            pytest.param(b"\n--XX\r\n", id="a bare line feed in front"),
            pytest.param(b"\r\n--XX\n", id="a bare line feed behind"),
            pytest.param(b"\r\n--XX \t\r\n", id="padding"),
            pytest.param(b"\r\n--XXX\r\n", id="more text behind the boundary"),
            pytest.param(b"--XX\r\n", id="no line end in front"),
            pytest.param(b"\r--XX\r\n", id="a carriage return in front"),
            pytest.param(b"\r\n--XX" + b" " * 99 + b"\r\n", id="much padding"),
        ],
    )
    def test_behind_what_may_be_a_delimiter_there_is_no_name(self, delimiter: bytes) -> None:
        """Whether parsers see a part ``b`` there or more of part ``a``: neither name is given."""
        inner = b'Content-Disposition: x; name="b"\r\n\r\n' + P
        body = part("a", P + delimiter + inner) + part("c", P) + b"--XX--"
        assert found(MULTIPART, body) == [("x", "/a"), ("x", ""), ("x", "/c")]
        by_bytes = pieces_of(MULTIPART, body, range(len(body)))
        assert [slot.location.name for slot in slots(by_bytes)] == ["/a", "", "/c"]

    @pytest.mark.parametrize(
        ("line", "long", "names"),
        [
            pytest.param(b"--XX--", b"", ["", ""], id="the end of the body"),
            pytest.param(b"--XX--", b"y" * 20_000, [""], id="in a head that is too long"),
            pytest.param(b"--XY--", b"", ["", "/c"], id="another text"),
            pytest.param(b"--XY--", b"y" * 20_000, ["/c"], id="and in a head that is too long"),
        ],
    )
    def test_behind_an_end_in_a_head_there_is_no_name(
        self, line: bytes, long: bytes, names: list[str]
    ) -> None:
        """Some parsers see the end of the body there, and no field after it."""
        head = b"--XX\r\nA: b\r\n" + line + b"\r\nX: " + long + b"\r\n\r\n"
        body = head + P + b"\r\n" + part("c", P) + b"--XX--"
        assert found(MULTIPART, body) == [("x", name) for name in names]

    def test_an_empty_part_and_a_part_without_a_head(self) -> None:
        body = b"--XX\r\nContent-Disposition: x; name=a\r\n\r\n\r\n--XX\r\n\r\n" + P + b"\r\n--XX--"
        assert found(MULTIPART, body) == [("x", "")]

    def test_a_part_with_an_endless_head_is_left_alone_and_the_next_is_not(self) -> None:
        body = part("a", P, b"X: " + b"y" * 20_000) + part("b", P) + b"--XX--"
        assert found(MULTIPART, body) == [("x", "/b")]

    @pytest.mark.parametrize(("count", "fits"), [(2048, True), (2049, False)])
    def test_parts_are_counted(self, count: int, fits: bool) -> None:
        body = b"--XX\r\n\r\n\r\n" * count + b"--XX--"
        if fits:
            assert filled(MULTIPART, body, b"v") == body
            return
        with pytest.raises(Refused) as caught:
            filled(MULTIPART, body, b"v")
        assert str(caught.value) == "bad_request"

    def test_a_value_that_holds_the_boundary_is_refused(self) -> None:
        body = part("a", P) + b"--XX--"
        assert filled(MULTIPART, body, b"--X X") == body.replace(P, b"--X X")
        for value in (b"--XX", b"a--XXb", b"\r\n--XX--"):
            with pytest.raises(NotRepresentable):
                filled(MULTIPART, body, value)

    @pytest.mark.parametrize(
        "parameter",
        [b"; boundary=XX", b'; boundary="XX"', b'; a=b; Boundary="\\X\\X" ', b";boundary=XX;"],
    )
    def test_spellings_of_the_boundary(self, parameter: bytes) -> None:
        body = part("a", P) + b"--XX--"
        assert found(b"multipart/form-data" + parameter, body) == [("x", "/a")]

    @pytest.mark.parametrize(
        "boundary",
        [b"b" * 70, b"a b", b"'()+_,-./:=?", b"----=_Part_1.2"],
    )
    def test_boundaries_that_are_allowed(self, boundary: bytes) -> None:
        body = (part("a", P) + b"--XX--").replace(b"XX", boundary)
        content_type = b'multipart/mixed; boundary="' + boundary + b'"'
        assert found(content_type, body) == [("x", "/a")]

    @pytest.mark.parametrize(
        "parameter",
        [
            pytest.param(b"", id="none"),
            pytest.param(b"; boundary=", id="empty"),
            pytest.param(b'; boundary=""', id="empty and quoted"),
            pytest.param(b"; boundary=a; boundary=b", id="two"),
            pytest.param(b"; boundary=a; boundary*=utf-8''b", id="an extended one beside it"),
            pytest.param(b"; boundary=" + b"b" * 71, id="too long"),
            pytest.param(b'; boundary="a "', id="a space at the end"),
            pytest.param(b'; boundary="a\xc3\xa9"', id="not ASCII"),
            pytest.param(b'; boundary="a', id="an open quote"),
            pytest.param(b"; boundary=a b", id="something behind it"),
        ],
    )
    def test_without_a_usable_boundary_it_is_refused(self, parameter: bytes) -> None:
        with pytest.raises(Refused) as caught:
            bodies.rewriter(((b"Content-Type", b"multipart/form-data" + parameter),), GRAMMAR)
        assert caught.value.problem.code is Code.BAD_REQUEST
        assert "boundary" in caught.value.problem.detail


# --- properties --------------------------------------------------------------------------------

# fmt: off
SCRAPS = [
    b"{{secrets.x}}", b"{{secret.a-b}}", b"{secrets.y}", b"__secrets.z__", b"{{secrets.", b"{{",
    b"{", b"}", b"_", b"__", b"{{ secrets.q }}", b'{{secrets["n m"]}}', b'{{secrets[\\"n m\\"]}}',
    b"secret", b"\\u007b", b"\\u007B\\u007bsecrets.x}}", b"\\u0073ecrets.",
    b"%7b%7Bsecrets.x%7D}", b"%7", b"%", b"\\", b"\\\\", b'\\"', b'"', b'"a"', b'"k":', b"[",
    b"]", b"{", b"},", b":", b",", b"1", b"true", b"-1.5e3", b" ", b"\n", b"\r\n", b"=", b"&",
    b"a=", b";", b"+", b"\xc3\xa9", b"\xff", b"\xef\xbb\xbf", b"\\ud83d\\ude00", b"\\ud83d",
    b"--XX", b"\r\n--XX\r\n", b"\n--XX\n", b"\r\n--XX--", b"\r\n\r\n", b"--",
    b'Content-Disposition: form-data; name="f"\r\n\r\n', b"Content-Type: application/json\r\n",
    b"Content-Type: image/png\r\n", b"x" * 90, b'{"a":[1,{"b":"c"}],', b'"s",', b"[[],{}],",
]
# fmt: on


def some_json(rng: random.Random, depth: int = 0) -> object:
    kind = rng.randrange(7 if depth < 8 else 4)
    if kind < 2:
        texts = [
            "",
            "plain",
            'é\n"',
            "{{secrets.x}}",
            "a,b]}",
            "{ secrets",
            "_",
            'q {{secrets["é"]}}',
        ]
        return rng.choice(texts)
    if kind < 4:
        return rng.choice([0, -12.5, True, None, 10**20])
    if kind == 4:
        return [some_json(rng, depth + 1) for _ in range(rng.randrange(5))]
    keys = ["a", "b/c", "d~", "", "é", "client_secret", "{{secrets.k}}"]
    return {rng.choice(keys): some_json(rng, depth + 1) for _ in range(rng.randrange(5))}


def walk(value: object, pointer: str) -> Iterable[tuple[str, str]]:
    """(string, pointer) of all string values, in order: an independent reading of RFC 6901."""
    if isinstance(value, str):
        yield value, pointer
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from walk(item, f"{pointer}/{index}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from walk(item, pointer + "/" + key.replace("~", "~0").replace("/", "~1"))


bodies_of_scraps = st.lists(st.sampled_from(SCRAPS), max_size=30).map(b"".join)
kinds = st.sampled_from([JSON, FORM, MULTIPART, XML, TEXT])


@settings(max_examples=300, deadline=None)
@given(kinds, bodies_of_scraps, st.data())
def test_chunking_never_shows(content_type: bytes, body: bytes, data: st.DataObject) -> None:
    if content_type == MULTIPART and data.draw(st.booleans()):
        body = b"--XX\r\n" + body
    whole = comparable(pieces_of(content_type, body))
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=12))
    assert comparable(pieces_of(content_type, body, cuts)) == whole
    assert comparable(pieces_of(content_type, body, range(len(body)))) == whole


@settings(max_examples=200, deadline=None)
@given(kinds, bodies_of_scraps | st.binary(max_size=200))
def test_a_body_whose_placeholders_are_kept_passes_byte_for_byte(
    content_type: bytes, body: bytes
) -> None:
    assert as_it_came(pieces_of(content_type, body)) == body


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([None, 2]), st.booleans(), st.data())
def test_pointers_agree_with_a_json_parser(
    seed: int, indent: int | None, ascii_only: bool, data: st.DataObject
) -> None:
    """Every pointer, and every value once filled, is what `json` says of the same text."""
    document = [some_json(random.Random(seed)) for _ in range(data.draw(st.integers(1, 3)))]
    body = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode()
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=5))
    pieces = pieces_of(JSON, body, cuts)
    named = [slot.location.name for slot in slots(pieces) if slot.location.name]
    expected = [
        pointer
        for text, pointer in walk(document, "")
        if "{{secrets" in text and "{{secrets.k}}" not in pointer
    ]
    assert named == expected
    value = VALUE.decode()
    after = json.loads(render(pieces, lambda slot: SecretValue("x", 1, VALUE)))
    texts = [text for text, _ in walk(document, "")]
    wanted = [
        text.replace("{{secrets.x}}", value).replace('{{secrets["é"]}}', value) for text in texts
    ]
    assert [text for text, _ in walk(after, "")] == wanted


def test_long_stretches_between_placeholders_are_skipped_rightly() -> None:
    """Enough of a document for every shortcut, cut into ordinary chunks."""
    rng = random.Random(7)
    document = [some_json(rng) for _ in range(6000)]
    body = json.dumps(document).encode()
    whole = comparable(pieces_of(JSON, body))
    names = [slot.location.name for slot in slots(pieces_of(JSON, body)) if slot.location.name]
    expected = [p for t, p in walk(document, "") if "{{secrets" in t and "{{secrets.k}}" not in p]
    assert names == expected
    for size in (1000, 16 * 1024):
        assert comparable(pieces_of(JSON, body, range(0, len(body), size))) == whole


# --- bounds ------------------------------------------------------------------------------------

MIB = 1024 * 1024
CHUNK = 64 * 1024


@pytest.mark.parametrize(
    ("content_type", "before"),
    [
        pytest.param(JSON, b'{"a": "', id="one JSON string"),
        pytest.param(JSON, b'{"', id="one JSON key"),
        pytest.param(JSON, b'{"a": ', id="one bare word"),
        pytest.param(JSON, b"'", id="not JSON"),
        pytest.param(FORM, b"a=", id="one form value"),
        pytest.param(FORM, b"", id="one form name"),
        pytest.param(MULTIPART, b"--XX\r\n\r\n", id="one part"),
        pytest.param(MULTIPART, b"--XX\r\nX: ", id="one part's head"),
        pytest.param(MULTIPART, b"", id="a preamble"),
        pytest.param(XML, b"<a>", id="one XML text"),
    ],
)
@pytest.mark.parametrize(
    "filler",
    [b"x", b"{{secrets", b'{{secrets[\\"a', b"\\\\", b"\r\n--X", b"%"],
    ids=["letters", "openers", "quoted names", "backslashes", "half delimiters", "escapes"],
)
def test_what_is_held_back_does_not_grow(content_type: bytes, before: bytes, filler: bytes) -> None:
    reader = bodies.rewriter(((b"Content-Type", content_type),), GRAMMAR)
    assert reader is not None
    chunk = (filler * (CHUNK // len(filler) + 1))[:CHUNK]
    reader.feed(before)
    for _ in range(8 if LONG else 4):
        reader.feed(chunk)
        assert reader.held < 20 * 1024  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("content_type", "before"),
    [(JSON, b'{"a": "'), (FORM, b"a="), (MULTIPART, b"--XX\r\n\r\n"), (TEXT, b"")],
    ids=["json", "form", "multipart", "text"],
)
def test_a_large_body_streams_through(content_type: bytes, before: bytes) -> None:
    reader = bodies.rewriter(((b"Content-Type", content_type),), GRAMMAR)
    assert reader is not None
    chunk = b"0123456789abcdef" * (CHUNK // 16)
    tracemalloc.start()
    try:
        size = sum(len(p) for p in reader.feed(before) if isinstance(p, bytes))
        for _ in range(64 * MIB // CHUNK):
            size += sum(len(p) for p in reader.feed(chunk) if isinstance(p, bytes))
        size += sum(len(p) for p in reader.finish() if isinstance(p, bytes))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == 64 * MIB + len(before)
    assert peak < MIB


@pytest.mark.parametrize(
    ("content_type", "before", "repeated"),
    [
        pytest.param(JSON, b'{"a": "', b"{{secrets.", id="openers in a string"),
        pytest.param(JSON, b"[", b"{secrets.x},", id="bare ones"),
        pytest.param(JSON, b'["', b"\\u007b", id="escaped braces"),
        pytest.param(JSON, b"[", b'"\\u0073",', id="escaped letters"),
        pytest.param(JSON, b"[", b'{"secrets.":[[[[[[[[1]]]]]]]]},', id="deep and suspect"),
        pytest.param(JSON, b"", b'{"a":[', id="ever deeper"),
        pytest.param(FORM, b"", b"{{secrets.", id="form"),
        pytest.param(FORM, b"", b"a={{secrets.&", id="form fields"),
        pytest.param(MULTIPART, b"--XX\r\n\r\n", b"\r\n--XX\t", id="almost delimiters"),
        pytest.param(MULTIPART, b"--XX\r\n\r\n", b"{{secrets.", id="part"),
        pytest.param(TEXT, b"", b"{{secrets.", id="text"),
    ],
)
def test_the_work_is_linear(content_type: bytes, before: bytes, repeated: bytes) -> None:
    """Eight times the input, fed at once, is about eight times the work: calls are counted, not
    seconds, so that a busy machine says the same."""

    def calls(count: int) -> int:
        body, made = before + repeated * count, 0

        def step(_: object, event: str, __: object) -> None:
            nonlocal made
            made += event in ("call", "c_call")

        sys.setprofile(step)
        try:
            pieces_of(content_type, body)
        finally:
            sys.setprofile(None)
        return made

    calls(100)
    assert calls(4000) < 10 * calls(500) + 1000


def test_bytes_one_by_one_cost_no_square_either() -> None:
    """A long name in the most wasteful escaping, byte by byte: not looked at anew each time."""
    body = b'["' + all_escaped(b'{{secrets["' + b"a" * 250) + b'"]'
    assert as_it_came(pieces_of(JSON, body, range(len(body)))) == body
    reader = bodies.rewriter(((b"Content-Type", JSON),), GRAMMAR)
    assert reader is not None
    looks = 0
    original = reader._rewrite  # type: ignore[attr-defined]

    def counted(buffer: bytes, *, final: bool) -> object:
        nonlocal looks
        looks += 1
        return original(buffer, final=final)

    reader._rewrite = counted  # type: ignore[attr-defined]
    for index in range(len(body)):
        reader.feed(body[index : index + 1])
    assert looks < len(body)
