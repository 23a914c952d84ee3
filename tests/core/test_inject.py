"""Placeholders of request heads: syntax by place by client encoding, with exact bytes."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl, quote, quote_plus, unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck.core import locations
from coatcheck.core.inject import HeadTemplate, read_head
from coatcheck.core.locations import Kind, Location
from coatcheck.core.message import RequestHead
from coatcheck.core.placeholder import Grammar, Syntax
from coatcheck.core.secret import SecretValue
from coatcheck.core.template import Fill, NotRepresentable, Slot

GRAMMAR = Grammar()
VALUE = b's"1/\\2 &+%=\xc3\xa9'  # something to escape for every place
HOST = (b"Host", b"api.example.com")


def a_head(
    target: bytes = b"/", *fields: tuple[bytes, bytes], method: bytes = b"GET"
) -> RequestHead:
    return RequestHead(method, target, (HOST, *fields))


def fill_with(values: Mapping[str, bytes] | bytes) -> Fill:
    """A fill that knows *values*, or one value for every name; others stay text."""

    def fill(slot: Slot) -> SecretValue | None:
        value = values if isinstance(values, bytes) else values.get(slot.name or "")
        return None if value is None else SecretValue(slot.name or "", 1, value)

    return fill


def keep(slot: Slot) -> None:
    """A fill that leaves every placeholder as text."""


def template_of(head: RequestHead, grammar: Grammar = GRAMMAR) -> HeadTemplate:
    template = read_head(head, grammar)
    assert template is not None
    return template


def filled(head: RequestHead, values: Mapping[str, bytes] | bytes = VALUE) -> RequestHead:
    return template_of(head).render(fill_with(values))


def basic(inside: bytes) -> bytes:
    return b"Basic " + base64.b64encode(inside)


# --- syntax x place x client encoding --------------------------------------------------------

SYNTAXES = {
    "double": ("{{secrets.crm.apiKey}}", "crm.apiKey"),
    "double with spaces": ("{{ secrets.crm.apiKey }}", "crm.apiKey"),
    "singular": ("{{secret.crm.apiKey}}", "crm.apiKey"),
    "single brace": ("{secrets.crm.apiKey}", "crm.apiKey"),
    "URL-safe": ("__secrets.crm.apiKey__", "crm.apiKey"),
    "quoted": ('{{secrets["CRM: key #1"]}}', "CRM: key #1"),
}
URLS: dict[str, Callable[[str], str]] = {
    "raw": lambda t: t.replace(" ", "%20"),  # a request line holds no space
    "percent": lambda t: quote(t, safe=""),
    "percent in lower case": lambda t: "".join(
        c if c.isalnum() or c in "._" else f"%{ord(c):02x}" for c in t
    ),
    "percent, every character": lambda t: "".join(f"%{ord(c):02X}" for c in t),
    "percent, mixed case": lambda t: quote(t, safe="").replace("%7B", "%7b", 1),
}
VALUE_IN_URL = b"s%221%2F%5C2%20%26%2B%25%3D%C3%A9"
every_syntax = pytest.mark.parametrize(("text", "name"), SYNTAXES.values(), ids=SYNTAXES)


@every_syntax
@pytest.mark.parametrize("write", URLS.values(), ids=URLS)
def test_in_the_path(text: str, name: str, write: Callable[[str], str]) -> None:
    written = write(text).replace("#", "%23").encode()
    head = a_head(b"/v1/%7e/" + written + b"/x+y%2f?q=1")

    assert [(s.name, s.location, s.text) for s in template_of(head).slots()] == [
        (name, Location(Kind.PATH), written)
    ]
    assert filled(head).target == b"/v1/%7e/" + VALUE_IN_URL + b"/x+y%2f?q=1"


@every_syntax
@pytest.mark.parametrize(
    "write", [*URLS.values(), quote_plus], ids=[*URLS, "form: a space is a plus"]
)
def test_in_the_query(text: str, name: str, write: Callable[[str], str]) -> None:
    written = write(text).replace("#", "%23").encode()
    head = a_head(b"/p?z=%7e&api%5Fkey=x" + written + b"y&&a=1&z=2&b")

    assert [(s.name, s.location, s.text) for s in template_of(head).slots()] == [
        (name, Location(Kind.QUERY, "api_key"), written)
    ]
    assert filled(head).target == b"/p?z=%7e&api%5Fkey=x" + VALUE_IN_URL + b"y&&a=1&z=2&b"


@every_syntax
@pytest.mark.parametrize("around", [(b"", b""), (b"Bearer ", b""), (b'k="', b'"; t=1')])
@pytest.mark.parametrize("field", [b"Authorization", b"X-API-Key", b"cookie"])
def test_in_a_header(text: str, name: str, around: tuple[bytes, bytes], field: bytes) -> None:
    written = text.encode()
    head = a_head(b"/", (b"A", b"1"), (field, around[0] + written + around[1]), (b"A", b"2"))

    assert [(s.name, s.location, s.text) for s in template_of(head).slots()] == [
        (name, Location(Kind.HEADER, field.decode().lower()), written)
    ]
    assert filled(head).fields == (
        HOST,
        (b"A", b"1"),
        (field, around[0] + VALUE + around[1]),
        (b"A", b"2"),
    )


BASE64: dict[str, Callable[[bytes], bytes]] = {
    "standard": base64.b64encode,
    "standard, no padding": lambda b: base64.b64encode(b).rstrip(b"="),
    "URL-safe": base64.urlsafe_b64encode,
    "URL-safe, no padding": lambda b: base64.urlsafe_b64encode(b).rstrip(b"="),
}


@every_syntax
@pytest.mark.parametrize("encode", BASE64.values(), ids=BASE64)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(b"\xfb\xff?~user:", b"", id="as the password"),
        pytest.param(b"", b":x-oauth-basic", id="as the user"),
        pytest.param(b"u:a", b"b", id="inside the password"),
        pytest.param(b"", b"", id="as the whole"),
    ],
)
def test_in_a_basic_token(
    text: str, name: str, encode: Callable[[bytes], bytes], before: bytes, after: bytes
) -> None:
    head = a_head(b"/", (b"authorization", b"Basic " + encode(before + text.encode() + after)))

    assert [(s.name, s.location) for s in template_of(head).slots()] == [
        (name, Location(Kind.HEADER, "authorization"))
    ]
    sent = filled(head).all(b"authorization")
    assert sent == [basic(before + VALUE + after)]


# --- Basic -----------------------------------------------------------------------------------

INSIDE = b"user:{{secrets.X}}"
TOKEN = base64.b64encode(INSIDE)


@pytest.mark.parametrize("scheme", [b"Basic ", b"basic ", b"BASIC   ", b" bAsIc \t"])
def test_the_scheme_is_read_in_any_case_and_kept_as_it_is(scheme: bytes) -> None:
    head = a_head(b"/", (b"Authorization", scheme + TOKEN + b" "))

    assert filled(head, b"v").all(b"authorization") == [scheme + basic(b"user:v")[6:] + b" "]


@pytest.mark.parametrize(
    "field",
    [
        pytest.param((b"Authorization", b"Bearer " + TOKEN), id="another scheme"),
        pytest.param((b"Authorization", b"Basic" + TOKEN), id="no space"),
        pytest.param((b"Authorization", TOKEN), id="no scheme"),
        pytest.param((b"Authorization", b"Basic !" + TOKEN), id="not base64"),
        pytest.param(
            (b"Authorization", b"Basic " + TOKEN[:8] + b" " + TOKEN[8:]), id="a space in it"
        ),
        pytest.param(
            (b"Authorization", b"Basic " + TOKEN[:8] + b"=" + TOKEN[8:]), id="padding in it"
        ),
        pytest.param((b"Authorization", b"Basic " + TOKEN + b"==="), id="too much padding"),
        pytest.param((b"Authorization", b"Basic " + TOKEN + b"A"), id="an impossible length"),
        pytest.param((b"Authorization", basic(base64.b64encode(INSIDE))), id="encoded twice"),
        pytest.param((b"Authorization", basic(b"user:secret-{x}")), id="no placeholder in it"),
        pytest.param((b"Authorization", basic(b"user:%7B%7Bsecrets.X%7D%7D")), id="percent in it"),
        pytest.param((b"Authorization", b"Basic "), id="nothing behind it"),
        pytest.param((b"Proxy-Authorization", b"Basic " + TOKEN), id="the proxy's own credential"),
        pytest.param((b"X-Authorization", b"Basic " + TOKEN), id="another field"),
    ],
)
def test_what_is_no_basic_token_is_not_decoded(field: tuple[bytes, bytes]) -> None:
    assert read_head(a_head(b"/", field), GRAMMAR) is None
    beside = filled(a_head(b"/{{secrets.Y}}", field))
    assert beside.fields == (HOST, field)


def test_a_raw_placeholder_behind_basic_is_one() -> None:
    """The value is the whole token then, base64 and all."""
    for written in (b"{{secrets.X}}", b"__secrets.X__", b"dXNlcjo{{secrets.X}}=="):
        head = a_head(b"/", (b"Authorization", b"Basic " + written))
        expected = b"Basic " + written.replace(b"{{secrets.X}}", b"v").replace(
            b"__secrets.X__", b"v"
        )
        assert filled(head, b"v").all(b"authorization") == [expected]


def test_any_bytes_fit_into_a_basic_token() -> None:
    value = bytes(range(256))
    head = a_head(b"/", (b"Authorization", b"Basic " + TOKEN))

    assert filled(head, value).all(b"authorization") == [basic(b"user:" + value)]


@pytest.mark.parametrize(
    ("inside", "fits"),
    [
        pytest.param(b"{{secrets.X}}:password", False, id="the user name"),
        pytest.param(b"a{{secrets.X}}b:password", False, id="a part of the user name"),
        pytest.param(b"user:{{secrets.X}}", True, id="the password"),
        pytest.param(b"user:{{secrets.X}}:more", True, id="before a colon of the password"),
        pytest.param(b"{{secrets.X}}", True, id="the whole user:password"),
    ],
)
def test_a_colon_never_moves_the_border_of_user_and_password(inside: bytes, fits: bool) -> None:
    head = a_head(b"/", (b"Authorization", basic(inside)))

    if fits:
        expected = basic(inside.replace(b"{{secrets.X}}", b"c:d"))
        assert filled(head, b"c:d").all(b"authorization") == [expected]
    else:
        with pytest.raises(NotRepresentable):
            filled(head, b"c:d")
        assert filled(head, b"cd").all(b"authorization") == [
            basic(inside.replace(b"{{secrets.X}}", b"cd"))
        ]


def test_user_and_password_may_be_two_placeholders() -> None:
    head = a_head(b"/", (b"Authorization", basic(b"{{secrets.U}}:__secrets.P__")))

    values = {"U": b"me", "P": b"a:b"}
    assert filled(head, values).all(b"authorization") == [basic(b"me:a:b")]


def test_the_rendered_basic_tokens_are_told() -> None:
    """An upstream may echo the token as a whole, so the scrubber has to know it."""
    template = template_of(
        a_head(
            b"/{{secrets.X}}",
            (b"Authorization", b"Basic " + TOKEN),
            (b"Authorization", basic(b"{{secrets.Y}}:")),
            (b"X-Key", b"{{secrets.X}}"),
        )
    )

    assert template.tokens(fill_with({"X": b"v"})) == [("X", base64.b64encode(b"r:v"))]
    assert template.tokens(keep) == []


# --- places ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "location"),
    [
        pytest.param(a_head(b"/{{secrets.X}}"), "path", id="path"),
        pytest.param(a_head(b"/a;k={{secrets.X}}"), "path", id="a path parameter is path"),
        pytest.param(a_head(b"/%3Fk={{secrets.X}}"), "path", id="an escaped question mark is path"),
        pytest.param(a_head(b"/?k={{secrets.X}}"), "query:k", id="query"),
        pytest.param(a_head(b"/?a=1&k={{secrets.X}}"), "query:k", id="a later parameter"),
        pytest.param(
            a_head(b"/?a=1;k={{secrets.X}}"), "query", id="a semicolon leaves the name open"
        ),
        pytest.param(a_head(b"/?k=a=b={{secrets.X}}"), "query:k", id="the first = parts"),
        pytest.param(a_head(b"/?k=/?{{secrets.X}}"), "query:k", id="the first ? parts"),
        pytest.param(a_head(b"/?a+b%2Fc={{secrets.X}}"), "query:a b/c", id="names are decoded"),
        pytest.param(a_head(b"/?%ff={{secrets.X}}"), "query:\ufffd", id="names that are no UTF-8"),
        pytest.param(
            a_head(b"/?{{secrets.X}}=v"), "query", id="in the name: a query without a name"
        ),
        pytest.param(a_head(b"/?{{secrets.X}}"), "query", id="a parameter without ="),
        pytest.param(a_head(b"/?={{secrets.X}}"), "query", id="an empty name"),
        pytest.param(a_head(b"/", (b"X-KEY", b"{{secrets.X}}")), "header:x-key", id="header"),
        pytest.param(
            a_head(b"/", (b"Cookie", b'a=1; s="{{secrets.X}}"')), "header:cookie", id="cookie"
        ),
    ],
)
def test_the_place_is_named(head: RequestHead, location: str) -> None:
    (slot,) = template_of(head).slots()

    assert str(slot.location) == location
    assert not locations.is_forbidden(slot.location)


FORBIDDEN = [
    pytest.param(a_head(method=b"{{secrets.X}}"), "header:(method)", id="the method"),
    pytest.param(
        a_head(b"/", (b"__secrets.X__", b"v")), "header:(name)", id="the name of a header"
    ),
    pytest.param(
        a_head(b"/", (b"a-__secrets.X__-b", b"v")), "header:(name)", id="a part of such a name"
    ),
    *(
        pytest.param(
            a_head(b"/", (name.encode(), b"{{secrets.X}}")),
            f"header:{name}",
            id=f"the value of {name}",
        )
        for name in [*sorted(locations.NEVER - {"(method)", "(name)"}), "proxy-x", ":authority"]
    ),
]


@pytest.mark.parametrize(("head", "location"), FORBIDDEN)
def test_where_nothing_is_ever_put_a_placeholder_is_reported(
    head: RequestHead, location: str
) -> None:
    (slot,) = template_of(head).slots()

    assert (slot.name, str(slot.location)) == ("X", location)
    assert locations.is_forbidden(slot.location)


@pytest.mark.parametrize(("head", "location"), FORBIDDEN)
def test_there_even_a_fill_writes_no_value(head: RequestHead, location: str) -> None:
    """The second wall: had a policy let it through, the slot itself would not write it."""
    template = template_of(head)
    (slot,) = template.slots()

    with pytest.raises(NotRepresentable):
        slot.encode(b"value")
    if slot in template.stray:
        assert template.render(fill_with(b"value")) == head
    else:
        with pytest.raises(NotRepresentable):
            template.render(fill_with(b"value"))
    assert template.render(keep) == head


def test_no_policy_can_name_the_places_that_are_none() -> None:
    for location in (locations.METHOD, locations.HEADER_NAME):
        with pytest.raises(locations.BadLocation):
            locations.parse_pattern(str(location))


def test_a_placeholder_does_not_reach_over_the_edge_of_its_place() -> None:
    """``?``, ``&`` and ``=`` part a target whatever is quoted around them, as any server does."""
    for target in (b'/{{secrets["a?b"]}}', b'/?k={{secrets["a&b"]}}', b'/?{{secrets["a=b"]}}'):
        assert [slot.name for slot in template_of(a_head(target)).slots()] == [None]
    fine = template_of(a_head(b'/?k={{secrets["a=b?c"]}}'))
    assert [slot.name for slot in fine.slots()] == ["a=b?c"]


def test_two_fields_never_make_one_placeholder() -> None:
    assert read_head(a_head(b"/", (b"A", b"{{sec"), (b"A", b"rets.X}}")), GRAMMAR) is None
    assert read_head(a_head(b"/{{sec", (b"rets.X}}", b"")), GRAMMAR) is None


def test_slots_come_in_order() -> None:
    template = template_of(
        a_head(
            b"/{{secrets.A}}/{{secrets.B}}?k={{secrets.C}}&{secrets.D}=__secrets.E__",
            (b"X", b"{{secrets.F}} {{secrets.G}}"),
            (b"Authorization", basic(b"{{secrets.H}}:{{secrets.I}}")),
            (b"__secrets.Z__", b"{{secret.J}}"),
        )
    )

    assert "".join(slot.name or "" for slot in template.slots()) == "ZABCDEFGHIJ"


# --- what is not a placeholder ---------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(a_head(b"/v1/users?page=2"), id="an ordinary request"),
        pytest.param(a_head(b"*", method=b"OPTIONS"), id="asterisk form"),
        pytest.param(a_head(b"/oauth?client_secret=x&a=%20"), id="the word secret"),
        pytest.param(a_head(b"/%7B%7Bother%7D%7D?x={{y}}"), id="another template"),
        pytest.param(a_head(b"/%257B%257Bsecrets.X%257D%257D"), id="path: encoded twice"),
        pytest.param(a_head(b"/?k=%257B%257Bsecrets.X%257D%257D"), id="query: encoded twice"),
        pytest.param(a_head(b"/", (b"X", b"%7B%7Bsecrets.X%7D%7D")), id="header: percent"),
        pytest.param(a_head(b"/", (b"X", rb"\u007b\u007bsecrets.X}}")), id="header: JSON"),
        pytest.param(a_head(rb"/\u007b\u007bsecrets.X}}"), id="path: JSON"),
        pytest.param(a_head(b"/%zzsecrets.X%7"), id="broken escapes"),
        pytest.param(a_head(b"/{{+secrets.X+}}"), id="path: a plus is no space"),
    ],
)
def test_no_placeholder_no_template(head: RequestHead) -> None:
    assert read_head(head, GRAMMAR) is None
    # Beside a placeholder they go through the long way, and keep their bytes as well.
    more = RequestHead(head.method, head.target, (*head.fields, (b"Y", b"{{secrets.Y}}")))
    sent = filled(more, b"v")
    assert sent == RequestHead(head.method, head.target, (*head.fields, (b"Y", b"v")))


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(a_head(b"/{{secrets.X}"), id="path"),
        pytest.param(a_head(b"/%7B%7Bsecrets.X%7D"), id="path: percent"),
        pytest.param(a_head(b"/?k={{secrets.X}&j=}"), id="query"),
        pytest.param(a_head(b"/", (b"X", b"{{secrets.}}")), id="header"),
        pytest.param(a_head(b"/", (b"Authorization", basic(b"u:{{secrets."))), id="Basic"),
    ],
)
def test_a_placeholder_up_to_a_point_is_a_slot_without_a_name(head: RequestHead) -> None:
    template = template_of(head)

    assert [slot.name for slot in template.slots()] == [None]
    assert template.render(keep) == head


def test_a_syntax_out_of_force_is_text() -> None:
    grammar = Grammar({Syntax.URLSAFE})

    assert read_head(a_head(b"/{{secrets.X}}", (b"X", b"{secrets.X}")), grammar) is None
    assert read_head(a_head(b"/", (b"X", b"__secrets.X__")), grammar) is not None


# --- values ----------------------------------------------------------------------------------


def test_a_value_that_looks_like_a_placeholder_is_not_read_again() -> None:
    values = {"X": b"{{secrets.Y}}__secrets.Y__", "Y": b"never"}
    head = a_head(
        b"/{{secrets.X}}?k=__secrets.X__",
        (b"K", b"{{secrets.X}}"),
        (b"Authorization", b"Basic " + TOKEN),
    )

    sent = filled(head, values)

    written = quote(values["X"], safe="").encode()
    assert sent.target == b"/" + written + b"?k=" + written
    assert sent.fields[1:] == (
        (b"K", values["X"]),
        (b"Authorization", basic(b"user:" + values["X"])),
    )


def test_two_values_that_touch_make_no_placeholder() -> None:
    head = a_head(b"/", (b"K", b"{{secrets.A}}secrets.Y{{secrets.B}}"))

    assert filled(head, {"A": b"{{", "B": b"}}", "Y": b"never"}).all(b"k") == [b"{{secrets.Y}}"]


@pytest.mark.parametrize("value", [b"a\r\nX: b", b"a\n", b"a\x00b", b"\x7f", b" a", b"a\t"])
def test_a_value_that_would_break_a_header_is_refused(value: bytes) -> None:
    head = a_head(b"/", (b"X", b"{{secrets.X}}"))
    with pytest.raises(NotRepresentable):
        filled(head, value)


@pytest.mark.parametrize(
    "value", [b"a\r\nX: b", b"?a=b&c#d", b"/../x", b" HTTP/1.1\r\n\r\n", b"\xff"]
)
def test_no_value_leaves_its_place_in_the_target(value: bytes) -> None:
    sent = filled(a_head(b"/a/{{secrets.X}}/b?k={{secrets.X}}&j=1"), value)

    path, _, query = sent.target.partition(b"?")
    assert [unquote_to_bytes(s) for s in path.split(b"/")] == [b"", b"a", value, b"b"]
    assert [unquote_to_bytes(p) for p in query.split(b"&")] == [b"k=" + value, b"j=1"]


def test_a_value_that_is_a_dot_segment_is_refused_in_the_path_only() -> None:
    with pytest.raises(NotRepresentable):
        filled(a_head(b"/a/{{secrets.X}}/b"), b"..")
    assert filled(a_head(b"/?k={{secrets.X}}"), b"..").target == b"/?k=.."


def test_what_is_kept_keeps_the_clients_bytes() -> None:
    head = a_head(
        b"/%7b%7Bsecrets.X%7d}?k=%7B{+secrets.X+}}",
        (
            b"Authorization",
            b"basic  " + base64.urlsafe_b64encode(b"?>?:{{secrets.X}}").rstrip(b"="),
        ),
        (b"K", b"{{  secrets.X}}"),
    )

    assert len(template_of(head).slots()) == 4
    assert template_of(head).render(keep) == head


def test_each_slot_is_filled_by_itself() -> None:
    """Policy may keep one as text and fill its neighbour, inside a Basic token too."""
    head = a_head(
        b"/{{secrets.A}}{{secrets.B}}", (b"Authorization", basic(b"{{secrets.A}}:{{secrets.B}}"))
    )

    sent = filled(head, {"B": b"v"})

    assert sent.target == b"/{{secrets.A}}v"
    assert sent.all(b"authorization") == [basic(b"{{secrets.A}}:v")]


# --- properties ------------------------------------------------------------------------------

names = st.from_regex(r"\A[A-Za-z][A-Za-z0-9_.\-]{0,8}\Z").filter(
    lambda n: "__" not in n and not n.endswith("_")
)
forms = st.sampled_from(
    ["{{{{secrets.{}}}}}", "{{{{ secret.{} }}}}", "{{secrets.{}}}", "__secrets.{}__"]
)
quoted_names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12)
placeholders = st.one_of(
    st.builds(lambda form, name: (form.format(name), name), forms, names),
    quoted_names.map(lambda n: (f"{{{{secrets[{json.dumps(n)}]}}}}", n)),
)
# Nothing in it can belong to a placeholder, so where one stands is known beforehand.
filler = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="_{}"), max_size=12)
contents = st.lists(st.one_of(filler, placeholders), max_size=6)


def written(content: list[str | tuple[str, str]]) -> str:
    return "".join(part if isinstance(part, str) else part[0] for part in content)


def expected(content: list[str | tuple[str, str]], value: bytes) -> bytes:
    return b"".join(part.encode() if isinstance(part, str) else value for part in content)


def names_in(content: list[str | tuple[str, str]]) -> list[str]:
    return [part[1] for part in content if not isinstance(part, str)]


def sent_and_names(head: RequestHead, value: bytes) -> tuple[RequestHead, list[str | None]]:
    template = read_head(head, GRAMMAR)
    if template is None:
        return head, []
    return template.render(fill_with(value)), [slot.name for slot in template.slots()]


def random_escape(data: st.DataObject, text: str, safe: str) -> bytes:
    """*text* percent-encoded as some client might: what need not be escaped is or is not."""
    how = data.draw(st.randoms(use_true_random=False))
    return b"".join(
        bytes([b])
        if chr(b) in safe and how.random() < 0.5
        else (b"%%%02x" if how.random() < 0.5 else b"%%%02X") % b
        for b in text.encode()
    )


SAFE_IN_PATH = 'abcdefghijklmnopqrstuvwxyzABCXYZ0123456789{}_.-"[]\\:+'
values = st.binary(min_size=1, max_size=20)


@settings(deadline=None)
@given(contents, values, st.data())
def test_a_server_reads_the_value_in_a_path(
    content: list[str | tuple[str, str]], value: bytes, data: st.DataObject
) -> None:
    if value in (b".", b".."):
        return
    segment = random_escape(data, written(content), SAFE_IN_PATH)

    sent, found = sent_and_names(a_head(b"/a/" + segment + b"/b"), value)

    assert found == names_in(content)
    assert [unquote_to_bytes(s) for s in sent.target.split(b"/")] == [
        b"",
        b"a",
        expected(content, value),
        b"b",
    ]


@settings(deadline=None)
@given(st.lists(contents, min_size=1, max_size=4), values, st.data())
def test_a_server_reads_the_value_in_a_query(
    parameters: list[list[str | tuple[str, str]]], value: bytes, data: st.DataObject
) -> None:
    safe = SAFE_IN_PATH.replace("+", "")
    query = b"&".join(
        b"k%d=" % i + random_escape(data, written(content), safe).replace(b"%20", b"+")
        for i, content in enumerate(parameters)
    )

    sent, found = sent_and_names(a_head(b"/?" + query), value)

    assert found == [name for content in parameters for name in names_in(content)]
    read = parse_qsl(sent.target[2:].decode("ascii"), keep_blank_values=True, encoding="latin-1")
    assert read == [
        (f"k{i}", expected(content, value).decode("latin-1"))
        for i, content in enumerate(parameters)
    ]


@settings(deadline=None)
@given(contents, values)
def test_a_server_reads_the_value_in_a_basic_password(
    content: list[str | tuple[str, str]], value: bytes
) -> None:
    head = a_head(b"/", (b"Authorization", basic(b"user:" + written(content).encode())))

    sent, found = sent_and_names(head, value)

    assert found == names_in(content)
    (token,) = sent.all(b"authorization")
    assert base64.b64decode(token[6:], validate=True) == b"user:" + expected(content, value)


@settings(deadline=None)
@given(st.binary(), st.binary(), st.binary(), st.binary())
def test_a_head_without_placeholders_is_no_template(
    method: bytes, target: bytes, name: bytes, value: bytes
) -> None:
    assert read_head(RequestHead(method, target, ((name, value),)), GRAMMAR) is None


@settings(deadline=None)
@given(st.text("abc{}%7bB_&=?+;/#\\u0 secrets.", max_size=60), st.binary(), st.binary())
def test_all_but_the_placeholder_keeps_its_bytes(target: str, name: bytes, value: bytes) -> None:
    """Whatever the text, kept placeholders give the head back; a filled one changes itself."""
    head = RequestHead(b"GET", target.encode(), ((name, value), (b"K", b"<{{secrets.X}}>")))
    template = template_of(head)

    assert template.render(keep) == head
    filled_in = template.render(
        lambda s: SecretValue("X", 1, b"v") if s.text == b"{{secrets.X}}" else None
    )
    assert filled_in == RequestHead(b"GET", target.encode(), ((name, value), (b"K", b"<v>")))


# --- bounded work ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(b"{{secrets." * 50_000, id="openers"),
        pytest.param(b"{{" * 1_000_000 + b"secret", id="braces"),
        pytest.param(b"%7b" * 200_000 + b"secret", id="escapes"),
        pytest.param(b"&=" * 500_000 + b"{{secrets.", id="parameters"),
    ],
)
def test_work_is_bounded_whatever_the_head(flood: bytes) -> None:
    """A quadratic reading would not come back from these."""
    head = a_head(b"/" + flood + b"?" + flood, (b"X", flood), (b"Authorization", basic(flood)))
    template = read_head(head, GRAMMAR)

    assert template is None or template.render(keep) == head
