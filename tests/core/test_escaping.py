"""How bytes are read and written at each place; checked against urllib, json, html and expat."""

from __future__ import annotations

import html
import json
import xml.etree.ElementTree as ET
from urllib.parse import parse_qsl, quote, unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck.core.escaping import (
    FORM,
    HEADER,
    JSON,
    PATH,
    RAW,
    XML,
    Decoded,
    Escaping,
    find_slots,
    take_slots,
)
from coatcheck.core.locations import Kind, Location
from coatcheck.core.placeholder import MAX_DECODED, Grammar
from coatcheck.core.template import NotRepresentable, Slot

GRAMMAR = Grammar()
HERE = Location(Kind.BODY)
PLACES = {e.name: e for e in (RAW, HEADER, PATH, FORM, JSON, XML)}
every_place = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)


def text_of(escaping: Escaping, raw: bytes) -> bytes:
    return escaping.decode(raw, True).text


# --- reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "raw", "text"),
    [
        pytest.param(RAW, b"%41\\n+&lt;", b"%41\\n+&lt;", id="raw: nothing is an escape"),
        pytest.param(HEADER, b"%7B\\u007b", b"%7B\\u007b", id="header: nothing is an escape"),
        pytest.param(XML, b"&lt;&#123;", b"&lt;&#123;", id="XML: entities stay"),
        pytest.param(PATH, b"a%7Bb%7dc", b"a{b}c", id="percent: either hex case"),
        pytest.param(PATH, b"%73ecret", b"secret", id="percent: letters too"),
        pytest.param(PATH, b"a+b", b"a+b", id="path: a plus is a plus"),
        pytest.param(
            FORM, b"a+b%2Bc", b"a b+c", id="form: a plus is a space, an escaped one is not"
        ),
        pytest.param(FORM, b"a+b", b"a b", id="form: a plus without any escape"),
        pytest.param(PATH, b"%257B", b"%7B", id="percent: decoded exactly once"),
        pytest.param(PATH, b"%zz%4", b"%zz%4", id="percent: a broken escape is text"),
        pytest.param(PATH, b"%%41", b"%A", id="percent: a lone sign before an escape"),
        pytest.param(PATH, b"%u0041", b"%u0041", id="percent: no %u form"),
        pytest.param(PATH, b"%C3%A9%FF%00", b"\xc3\xa9\xff\x00", id="percent: any byte"),
        pytest.param(JSON, rb"\"\\\/\b\f\n\r\t", b'"\\/\b\f\n\r\t', id="JSON: the short escapes"),
        pytest.param(JSON, rb"\u007b\u007B", b"{{", id="JSON: either hex case"),
        pytest.param(JSON, rb"\u00e9\u20ac", "é€".encode(), id="JSON: to UTF-8"),
        pytest.param(JSON, rb"\ud83d\uDE00!", "😀!".encode(), id="JSON: a surrogate pair"),
        pytest.param(JSON, rb"\ud83dx", b"\xed\xa0\xbdx", id="JSON: half a pair is no character"),
        pytest.param(JSON, rb"\ude00\ud83d\u0041", b"\xed\xb8\x80\xed\xa0\xbdA", id="JSON: halves"),
        pytest.param(JSON, rb"\\u007b", rb"\u007b", id="JSON: decoded exactly once"),
        pytest.param(JSON, rb"\x41\u12g4", rb"\x41\u12g4", id="JSON: a broken escape is text"),
        pytest.param(JSON, b"\\", b"\\", id="JSON: a lone backslash is text"),
        pytest.param(JSON, b"\xff\xc3", b"\xff\xc3", id="JSON: bytes that are no UTF-8 stay"),
    ],
)
def test_reading(place: Escaping, raw: bytes, text: bytes) -> None:
    assert text_of(place, raw) == text


@pytest.mark.parametrize(
    ("place", "raw", "index", "source"),
    [
        pytest.param(PATH, b"ab", 1, 1, id="without escapes both run alike"),
        pytest.param(PATH, b"%41b", 0, 0, id="an escape at the start"),
        pytest.param(PATH, b"%41b", 1, 3, id="behind an escape"),
        pytest.param(PATH, b"a%41%42c", 2, 4, id="between two escapes"),
        pytest.param(PATH, b"a%41%42c", 3, 7, id="behind two escapes"),
        pytest.param(PATH, b"a%41", 2, 4, id="the end"),
        pytest.param(FORM, b"a+b%20c+d", 5, 7, id="a plus is as long as its space"),
        pytest.param(JSON, rb"\u20acx", 3, 6, id="an escape of three bytes"),
        pytest.param(JSON, rb"\ud83d\ude00x", 4, 12, id="an escape of four bytes"),
        pytest.param(JSON, rb"\u00e9\u0041x", 2, 6, id="behind an escape of two bytes"),
        pytest.param(JSON, rb"a\n\tb", 2, 3, id="short escapes"),
    ],
)
def test_the_way_back(place: Escaping, raw: bytes, index: int, source: int) -> None:
    assert place.decode(raw, True).source(index) == source


percent_source = st.lists(
    st.sampled_from([b"a", b"%41", b"%7b", b"%", b"%2", b"+", b"%zz", b"%C3%A9", b"{"])
).map(b"".join)
json_source = st.lists(
    st.sampled_from(
        [b"a", rb"\n", rb"\u00e9", rb"\ud83d\ude00", rb"\ud83d", rb"\\", rb"\"", "é".encode(), b"u"]
    )
).map(b"".join)


@settings(deadline=None)
@given(percent_source)
def test_percent_reads_as_urllib_does(raw: bytes) -> None:
    assert text_of(PATH, raw) == unquote_to_bytes(raw)
    assert text_of(FORM, raw) == unquote_to_bytes(raw.replace(b"+", b" "))


@settings(deadline=None)
@given(st.text(), st.booleans())
def test_json_reads_as_the_json_module_does(text: str, ascii_only: bool) -> None:
    if any(0xD800 <= ord(c) < 0xE000 for c in text):
        return
    raw = json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode()

    assert text_of(JSON, raw) == text.encode()


@settings(deadline=None)
@given(st.sampled_from([PATH, FORM]), percent_source)
def test_each_byte_comes_from_where_the_way_back_says(place: Escaping, raw: bytes) -> None:
    """Cutting the source at the place of a byte cuts the text in front of that byte."""
    decoded = place.decode(raw, True)

    for index in range(len(decoded.text) + 1):
        source = decoded.source(index)
        assert text_of(place, raw[:source]) + text_of(place, raw[source:]) == decoded.text
        assert len(text_of(place, raw[:source])) == index


@settings(deadline=None)
@given(st.sampled_from([PATH, FORM, JSON]), percent_source, json_source, st.data())
def test_a_source_in_two_parts_reads_as_one(
    place: Escaping, percent_raw: bytes, json_raw: bytes, data: st.DataObject
) -> None:
    raw = json_raw if place is JSON else percent_raw
    cut = data.draw(st.integers(0, len(raw)))
    first = place.decode(raw[:cut], False)

    assert first.text + text_of(place, raw[first.end :]) == text_of(place, raw)
    assert cut - first.end < 2 * place.stretch


@pytest.mark.parametrize(
    ("place", "raw", "left"),
    [
        pytest.param(PATH, b"a%", b"%", id="a percent sign"),
        pytest.param(PATH, b"a%4", b"%4", id="a percent sign and a digit"),
        pytest.param(PATH, b"a%z", b"", id="what cannot become an escape is read"),
        pytest.param(JSON, b"a\\", b"\\", id="a backslash"),
        pytest.param(JSON, b"a\\\\", b"", id="two backslashes are one escape"),
        pytest.param(JSON, b"a\\\\\\", b"\\", id="three are one and a half"),
        pytest.param(JSON, rb"a\u00", rb"\u00", id="half an escape"),
        pytest.param(JSON, rb"a\ud83d", rb"\ud83d", id="half a pair"),
        pytest.param(JSON, rb"a\ud83d\ude", rb"\ud83d\ude", id="most of a pair"),
        pytest.param(JSON, rb"a\ud83d\u00", rb"\u00", id="no pair any more"),
        pytest.param(RAW, b"a%\\", b"", id="raw has no escapes"),
    ],
)
def test_an_escape_that_is_cut_waits(place: Escaping, raw: bytes, left: bytes) -> None:
    assert raw[place.decode(raw, False).end :] == left


def test_a_source_that_has_ended_is_read_to_its_end() -> None:
    assert PATH.decode(b"a%4", True) == Decoded(b"a%4", 3)


# --- writing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "value", "written"),
    [
        pytest.param(RAW, b"\x00\r\n\xff", b"\x00\r\n\xff", id="raw: any byte as it is"),
        pytest.param(HEADER, b'a b"\\%,;', b'a b"\\%,;', id="header: as it is"),
        pytest.param(HEADER, b"\x80\xff", b"\x80\xff", id="header: obs-text"),
        pytest.param(PATH, b"a/b?c#d", b"a%2Fb%3Fc%23d", id="path: the slash too"),
        pytest.param(PATH, b"aZ09-._~", b"aZ09-._~", id="path: unreserved stays"),
        pytest.param(PATH, b"+ %{};:@", b"%2B%20%25%7B%7D%3B%3A%40", id="path: nothing else does"),
        pytest.param(PATH, b"...", b"...", id="path: three dots are a name"),
        pytest.param(FORM, b"a b&c=d+e", b"a%20b%26c%3Dd%2Be", id="form: space is %20"),
        pytest.param(FORM, b"\x00\r\n\xff", b"%00%0D%0A%FF", id="form: any byte"),
        pytest.param(FORM, b"..", b"..", id="form: dots are dots"),
        pytest.param(JSON, b'a"b\\c/d', rb"a\"b\\c/d", id="JSON: quote and backslash"),
        pytest.param(JSON, b"\x00\n\x1f\x7f", b"\\u0000\\n\\u001f\x7f", id="JSON: controls"),
        pytest.param(JSON, "é😀".encode(), "é😀".encode(), id="JSON: UTF-8 stays"),
        pytest.param(
            JSON, "\u2028\u2029".encode(), rb"\u2028\u2029", id="JSON: JavaScript's line ends"
        ),
        pytest.param(
            XML,
            b"<a b='c' d=\"e\">&amp;",
            b"&lt;a b=&#39;c&#39; d=&quot;e&quot;&gt;&amp;amp;",
            id="XML: markup",
        ),
        pytest.param(
            XML, b"a\tb\r\nc", b"a&#9;b&#13;&#10;c", id="XML: white space survives parsers"
        ),
        pytest.param(XML, b"]]>", b"]]&gt;", id="XML: the end of a CDATA section"),
    ],
)
def test_writing(place: Escaping, value: bytes, written: bytes) -> None:
    assert place.encode(value) == written


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *(
            pytest.param(HEADER, b"a" + bytes([c]) + b"b", id=f"header: control {c:#04x}")
            for c in [*range(0x20), 0x7F]
        ),
        pytest.param(HEADER, b" a", id="header: a leading space"),
        pytest.param(HEADER, b"a ", id="header: a trailing space"),
        pytest.param(HEADER, b"a\t", id="header: a trailing tab"),
        pytest.param(PATH, b".", id="path: a dot segment"),
        pytest.param(PATH, b"..", id="path: a double-dot segment"),
        pytest.param(JSON, b"\xff", id="JSON: not UTF-8"),
        pytest.param(JSON, b"\xed\xa0\x80", id="JSON: a surrogate"),
        pytest.param(XML, b"\xc3", id="XML: not UTF-8"),
        pytest.param(XML, b"a\x00b", id="XML: NUL"),
        pytest.param(XML, b"a\x1bb", id="XML: a control character"),
        pytest.param(XML, "\ufffe".encode(), id="XML: no character"),
    ],
)
def test_what_cannot_be_written_is_refused(place: Escaping, value: bytes) -> None:
    with pytest.raises(NotRepresentable):
        place.encode(value)


def test_a_refusal_never_shows_the_value() -> None:
    """Not in its text, and not in the exception that it came from."""
    for place, value in [(HEADER, b"hunter2\n"), (JSON, b"hunter2\xff"), (XML, b"hunter2\x00")]:
        with pytest.raises(NotRepresentable) as caught:
            place.encode(value)
        assert "hunter2" not in repr(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


@settings(deadline=None)
@given(st.binary())
def test_receivers_read_back_what_was_written_into_urls(value: bytes) -> None:
    assert FORM.encode(value) == quote(value, safe="").encode()
    assert unquote_to_bytes(FORM.encode(value)) == value
    query = "k=" + FORM.encode(value).decode()
    assert parse_qsl(query, keep_blank_values=True, encoding="latin-1") == [
        ("k", value.decode("latin-1"))
    ]


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_receivers_read_back_what_was_written_into_json(value: str) -> None:
    written = JSON.encode(value.encode())

    assert json.loads(b'{"k": "' + written + b'"}') == {"k": value}
    assert text_of(JSON, written) == value.encode()


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")))
def test_receivers_read_back_what_was_written_into_xml(value: str) -> None:
    written = XML.encode(value.encode()).decode()

    assert html.unescape(written) == value
    tree = ET.fromstring(f"""<r a="{written}" b='{written}'>{written}</r>""")
    assert (tree.text or "", tree.get("a"), tree.get("b")) == (value, value, value)


# --- slots -----------------------------------------------------------------------------------

WAYS = {  # how a client may write text at a place
    "raw": (RAW, lambda t: t),
    "path: raw": (PATH, lambda t: t),
    "path: percent": (PATH, lambda t: quote(t, safe="").replace(".", "%2e")),
    "path: percent in lower case": (PATH, lambda t: "".join(f"%{b:02x}" for b in t.encode())),
    "form: plus": (FORM, lambda t: quote(t, safe=" ").replace(" ", "+")),
    "form: %20": (FORM, lambda t: quote(t, safe="")),
    "JSON: raw": (JSON, lambda t: json.dumps(t)[1:-1]),
    "JSON: every character": (JSON, lambda t: "".join(f"\\u{ord(c):04x}" for c in t)),
}
every_way = pytest.mark.parametrize(("place", "way"), WAYS.values(), ids=WAYS)
FORMS = {
    "{{secrets.crm.key}}": "crm.key",
    "{{ secret.crm.key }}": "crm.key",
    "{secrets.crm.key}": "crm.key",
    "__secrets.crm.key__": "crm.key",
    '{{secrets["a name"]}}': "a name",
    '{{secrets["a\\"b\\u00e9"]}}': 'a"bé',
    "{{secrets.": None,
}


@every_way
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_found_in_every_writing(place: Escaping, way: object, form: str) -> None:
    """The slot keeps the client's own spelling, and what stands around it its bytes."""
    assert callable(way)
    written = way(form).encode()
    before, after = way("x é ").encode(), b"%zz!"

    pieces = find_slots(before + written + after, GRAMMAR, place, HERE)

    assert pieces == [before, Slot(FORMS[form], HERE, written, place.encode), after]


@every_place
def test_a_text_without_placeholders_is_one_piece(place: Escaping) -> None:
    for raw in (b"", b"%7B%7Bother%7D%7D \\u007b {{x}} &lt;"):
        assert find_slots(raw, GRAMMAR, place, HERE) == [raw]


def test_escapes_are_undone_once() -> None:
    twice = b"%257B%257Bsecrets.X%257D%257D"
    assert find_slots(twice, GRAMMAR, PATH, HERE) == [twice]
    escaped = rb"\\u007b\\u007bsecrets.X}}"
    assert find_slots(escaped, GRAMMAR, JSON, HERE) == [escaped]


snippets = st.lists(
    st.sampled_from([*FORMS, "x", "{", "}}", "__", "é ", "+", "%", "%7B", "\\", '"', "😀"]),
    max_size=8,
)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(list(WAYS.values())[1:]), snippets, st.data())
def test_cutting_a_source_never_shows(
    place_and_way: tuple[Escaping, object], parts: list[str], data: st.DataObject
) -> None:
    place, way = place_and_way
    assert callable(way)
    raw = b"".join(way(part).encode() for part in parts)
    whole = find_slots(raw, GRAMMAR, place, HERE)

    pieces: list[bytes | Slot] = []
    rest, done = b"", 0
    for cut in sorted(data.draw(st.sets(st.integers(0, len(raw))))):
        some, rest = take_slots(rest + raw[done:cut], GRAMMAR, place, HERE)
        assert len(rest) < (MAX_DECODED + 2) * place.stretch
        pieces, done = pieces + some, cut
    pieces += find_slots(rest + raw[done:], GRAMMAR, place, HERE)

    assert joined(pieces) == joined(whole)


def joined(pieces: list[bytes | Slot]) -> list[bytes | Slot]:
    """Neighbouring bytes as one piece: where the cuts lie is nobody's business."""
    out: list[bytes | Slot] = []
    for piece in pieces:
        if isinstance(piece, bytes) and out and isinstance(out[-1], bytes):
            out[-1] += piece
        elif piece:
            out.append(piece)
    return out


@settings(deadline=None)
@given(st.sampled_from([RAW, PATH, FORM, JSON, XML]), st.binary())
def test_the_pieces_are_the_source(place: Escaping, raw: bytes) -> None:
    pieces = find_slots(raw + b"{{secrets.X}}" + raw, GRAMMAR, place, HERE)

    assert b"".join(p.text if isinstance(p, Slot) else p for p in pieces) == (
        raw + b"{{secrets.X}}" + raw
    )
