"""The grammar of placeholders: a table of what is one, what nearly is, and what is plain text."""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck.core.placeholder import (
    ALL_SYNTAXES,
    MAX_DECODED,
    MAX_SPACES,
    Found,
    Grammar,
    Syntax,
    write,
)
from coatcheck.core.secret import MAX_PLAIN_NAME, MAX_QUOTED_NAME
from tests.long import LONG

ALL = Grammar()
MALFORMED = object()
LONGEST = "n" * MAX_PLAIN_NAME
SPACES = " " * MAX_SPACES

DOUBLE = Grammar({Syntax.DOUBLE})
SINGULAR = Grammar({Syntax.DOUBLE_SINGULAR})
SINGLE = Grammar({Syntax.SINGLE})
URLSAFE = Grammar({Syntax.URLSAFE})
NONE = Grammar(())


def names(text: str | bytes, grammar: Grammar = ALL) -> list[object]:
    """The names found in *text*, MALFORMED for those without."""
    raw = text.encode() if isinstance(text, str) else text
    return [MALFORMED if f.name is None else f.name for f in grammar.find(raw)]


HITS = [
    ("the double form", "{{secrets.crm.apiKey}}", ["crm.apiKey"]),
    ("the singular form", "{{secret.crm.apiKey}}", ["crm.apiKey"]),
    ("the single-brace form", "{secrets.crm.apiKey}", ["crm.apiKey"]),
    ("the URL-safe form", "__secrets.crm.apiKey__", ["crm.apiKey"]),
    ("one letter is a name", "{{secrets.X}}", ["X"]),
    ("digits, _ - . after the first letter", "{{secrets.a1_b-c.d}}", ["a1_b-c.d"]),
    ("a name may end with . or -", "{{secrets.a.}}{secrets.b-}", ["a.", "b-"]),
    ("names are case-sensitive", "{{secrets.a}}{{secrets.A}}", ["a", "A"]),
    ("the longest plain name", f"{{{{secrets.{LONGEST}}}}}", [LONGEST]),
    ("the longest name, single brace", f"{{secrets.{LONGEST}}}", [LONGEST]),
    ("the longest name, URL-safe", f"__secrets.{LONGEST}__", [LONGEST]),
    ("spaces inside double braces", "{{ secrets.X }}", ["X"]),
    ("a space on one side only", "{{ secrets.X}}{{secret.Y }}", ["X", "Y"]),
    ("as many spaces as may be", f"{{{{{SPACES}secrets.X{SPACES}}}}}", ["X"]),
    ("the middle of a text", "Bearer {{secrets.X}}, really", ["X"]),
    ("a third pair of braces is text", "{{{secrets.X}}}", ["X"]),
    ("a fourth pair of braces is text", "{{{{secrets.X}}}}", ["X"]),
    ("a dollar sign before it is text", "${{ secrets.X }}", ["X"]),
    ("two that touch", "{{secrets.X}}{{secrets.Y}}", ["X", "Y"]),
    ("two forms that touch", "{secrets.X}__secrets.Y__{{secret.Z}}", ["X", "Y", "Z"]),
    ("a single brace inside braces of the text", '{"k":{secrets.X}}', ["X"]),
    ("a single-brace form inside a foreign double one", "{{ {secrets.X} }}", ["X"]),
    ("URL-safe behind one more underscore", "___secrets.X__", ["X"]),
    ("URL-safe inside a word", "a__secrets.X__b", ["X"]),
    ("URL-safe with single underscores", "__secrets.a_b__", ["a_b"]),
    ("URL-safe ends at the first double underscore", "__secrets.a__b__", ["a"]),
    ("URL-safe never ends with an underscore in its name", "__secrets.a___", ["a"]),
    ("URL-safe: ending underscores open no second one", "__secrets.X__secrets.Y__", ["X"]),
    ("__ inside a name is fine between braces", "{{secrets.a__b}}", ["a__b"]),
    ("a quoted name", '{{secrets["any name at all"]}}', ["any name at all"]),
    ("a quoted name, singular", '{{secret["any name"]}}', ["any name"]),
    ("a quoted name with spaces around", '{{ secrets["x y"] }}', ["x y"]),
    ("a plain name may be quoted", '{{secrets["plain"]}}', ["plain"]),
    ("quoted: an escaped quote and backslash", r'{{secrets["a\"b\\c"]}}', ['a"b\\c']),
    ("quoted: an escaped slash", r'{{secrets["a\/b"]}}', ["a/b"]),
    ("quoted: a unicode escape", r'{{secrets["\u00e9"]}}', ["é"]),
    ("quoted: a surrogate pair", r'{{secrets["\ud83d\uDE00"]}}', ["😀"]),
    ("quoted: UTF-8", '{{secrets["naïve 日本 😀"]}}', ["naïve 日本 😀"]),
    ("quoted: braces and brackets", '{{secrets["]}} {{"]}}', ["]}} {{"]),
    ("quoted: a placeholder as a name is a name", '{{secrets["{secrets.X}"]}}', ["{secrets.X}"]),
    ("quoted: the longest name", f'{{{{secrets["{"é" * 256}"]}}}}', ["é" * 256]),
    (
        "quoted: the longest name, in pairs",
        '{{secrets["' + r"\ud83d\ude00" * 256 + '"]}}',
        ["😀" * 256],
    ),
]

MALFORMED_ONES = [
    ("a brace is missing at the end", "{{secrets.X}", [MALFORMED]),
    ("a missing brace, singular", "{{secret.X}", [MALFORMED]),
    ("a missing brace after spaces", "{{ secrets.X }", [MALFORMED]),
    ("no name", "{{secrets.}}", [MALFORMED]),
    ("a name that begins with a digit", "{{secrets.1x}}", [MALFORMED]),
    ("a name that begins with a dot", "{{secrets..x}}", [MALFORMED]),
    ("a name with a space", "{{secrets.a b}}", [MALFORMED]),
    ("a name with another character", "{{secrets.a/b}}", [MALFORMED]),
    ("a name with a letter beyond ASCII", "{{secrets.é}}", [MALFORMED]),
    ("a zero-width character in a name", "{{secrets.a\u200bb}}", [MALFORMED]),
    ("a name that is too long", f"{{{{secrets.{LONGEST}n}}}}", [MALFORMED]),
    ("a line end in it", "{{secrets.X\n}}", [MALFORMED]),
    ("a tab in it", "{{secrets.X\t}}", [MALFORMED]),
    ("too many spaces behind the name", f"{{{{secrets.X{SPACES} }}}}", [MALFORMED]),
    ("a space behind the dot", "{{secrets. X}}", [MALFORMED]),
    ("braces apart at the end", "{{secrets.X} }", [MALFORMED]),
    ("no nesting: the outer one is broken", "{{secrets.{{secrets.Y}}}}", [MALFORMED, "Y"]),
    ("a single-brace opener", "{secrets.X", [MALFORMED]),
    ("a single-brace form with spaces", "{secrets.X }", [MALFORMED]),
    ("a single-brace name that is too long", f"{{secrets.{LONGEST}n}}", [MALFORMED]),
    ("no name in single braces", "{secrets.}", [MALFORMED]),
    ("a URL-safe opener", "__secrets.X", [MALFORMED]),
    ("a URL-safe form with one underscore at the end", "__secrets.X_", [MALFORMED]),
    ("a URL-safe form without a name", "__secrets.__", [MALFORMED]),
    ("a URL-safe name that begins with an underscore", "__secrets._x__", [MALFORMED]),
    ("a URL-safe name that is too long", f"__secrets.{LONGEST}n__", [MALFORMED]),
    ("an opener at the end of the text", "x {{secrets.", [MALFORMED]),
    ("a bracket without a quote", "{{secrets[X]}}", [MALFORMED]),
    ("single quotes", "{{secrets['X']}}", [MALFORMED]),
    ("an empty quoted name", '{{secrets[""]}}', [MALFORMED]),
    ("a quoted name that does not end", '{{secrets["X', [MALFORMED]),
    ("a quoted form without its bracket", '{{secrets["X"}}', [MALFORMED]),
    ("a quoted form with one brace", '{{secrets["X"]}', [MALFORMED]),
    ("a space inside the bracket", '{{secrets[ "X" ]}}', [MALFORMED]),
    ("an unknown escape", r'{{secrets["\x41"]}}', [MALFORMED]),
    ("half a surrogate pair", r'{{secrets["\ud83d"]}}', [MALFORMED]),
    ("a pair in the wrong order", r'{{secrets["\ude00\ud83d"]}}', [MALFORMED]),
    ("a raw control character in quotes", '{{secrets["a\nb"]}}', [MALFORMED]),
    ("an escaped control character in quotes", r'{{secrets["a\nb"]}}', [MALFORMED]),
    ("DEL in quotes", '{{secrets["a\x7fb"]}}', [MALFORMED]),
    ("a quoted name that is too long", f'{{{{secrets["{"n" * 257}"]}}}}', [MALFORMED]),
    ("quotes that are not UTF-8", b'{{secrets["\xc3("]}}', [MALFORMED]),
    ("overlong UTF-8 in quotes", b'{{secrets["\xc0\xae"]}}', [MALFORMED]),
    ("a surrogate as UTF-8 in quotes", b'{{secrets["\xed\xa0\x80"]}}', [MALFORMED]),
]

TEXTS = [
    ("nothing at all", ""),
    ("no braces", "secrets.X"),
    ("another template", "{{other}}"),
    ("a Helm value", "{{ .Values.x }}"),
    ("no dot", "{secretsX} {{secretsX}} {{secretX}}"),
    ("no dot before the end", "{{secrets}} {secrets} __secrets__"),
    ("other letter case", "{{SECRETS.X}} {{Secrets.X}} {SECRETS.X} __SECRETS.X__"),
    ("a space before the dot", "{{secrets .X}}"),
    ("a space between the braces", "{ {secret.X} }"),
    ("too many spaces in front", f"{{{{{SPACES} secrets.X}}}}"),
    ("a tab in front", "{{\tsecrets.X}}"),
    ("a line end in front", "{{\nsecrets.X}}"),
    ("the singular with one brace", "{secret.X}"),
    ("the singular with underscores", "__secret.X__"),
    ("a space in a single-brace opener", "{ secrets.X }"),
    ("a single brace takes no quoted name", '{secrets["X"]}'),
    ("URL-safe takes no quoted name", '__secrets["X"]__'),
    ("one underscore", "_secrets.X__"),
    ("something before the word", "{{my.secrets.X}} {{xsecrets.X}}"),
    ("percent-encoded braces are not undone here", "%7B%7Bsecrets.X%7D%7D"),
    ("escaped braces are not undone here", r"\u007b\u007bsecrets.X}}"),
    ("full-width braces", "｛｛secrets.X｝｝"),
    ("a dot that only looks like one", "{{secrets․X}}"),
    ("UTF-16", "{{secrets.X}}".encode("utf-16-le")),
]


def ids(table: Iterable[tuple[object, ...]]) -> list[object]:
    return [pytest.param(*row[1:], id=str(row[0])) for row in table]


@pytest.mark.parametrize(("text", "expected"), ids(HITS))
def test_is_a_placeholder(text: str, expected: list[object]) -> None:
    assert names(text) == expected


@pytest.mark.parametrize(("text", "expected"), ids(MALFORMED_ONES))
def test_is_a_placeholder_up_to_a_point(text: str, expected: list[object]) -> None:
    assert names(text) == expected


@pytest.mark.parametrize("text", ids(TEXTS))
def test_is_plain_text(text: str | bytes) -> None:
    assert names(text) == []


SPELLINGS = {
    Syntax.DOUBLE: "{{secrets.X}}",
    Syntax.DOUBLE_SINGULAR: "{{secret.X}}",
    Syntax.SINGLE: "{secrets.X}",
    Syntax.URLSAFE: "__secrets.X__",
}
OPENERS = {
    Syntax.DOUBLE: "{{secrets.",
    Syntax.DOUBLE_SINGULAR: "{{secret.",
    Syntax.SINGLE: "{secrets.",
    Syntax.URLSAFE: "__secrets.",
}


@pytest.mark.parametrize("written", Syntax)
@pytest.mark.parametrize("in_force", Syntax)
def test_only_the_syntaxes_in_force_are_read(written: Syntax, in_force: Syntax) -> None:
    """The others are plain text, and a broken one of them is no error."""
    grammar = Grammar({in_force})

    assert names(SPELLINGS[written], grammar) == (["X"] if written is in_force else [])
    assert names(OPENERS[written], grammar) == ([MALFORMED] if written is in_force else [])


@pytest.mark.parametrize(
    ("grammar", "text", "expected"),
    [
        pytest.param(
            DOUBLE, '{{secrets["a b"]}}', ["a b"], id="quoted names go with the double form"
        ),
        pytest.param(SINGULAR, '{{secret["a b"]}}', ["a b"], id="and with the singular form"),
        pytest.param(SINGULAR, '{{secrets["a b"]}}', [], id="each with its own word"),
        pytest.param(SINGLE, '{{secrets["a b"]}}', [], id="not with the single-brace form"),
        pytest.param(SINGLE, "{{secrets.X}", [], id="no single-brace form behind a brace"),
        pytest.param(SINGLE, "{{secrets.X}}", [], id="nor inside the double form"),
        pytest.param(SINGLE, "{secrets.X}}", ["X"], id="a brace after it is text"),
        pytest.param(NONE, "".join(SPELLINGS.values()), [], id="nothing in force, nothing found"),
    ],
)
def test_a_syntax_alone(grammar: Grammar, text: str, expected: list[object]) -> None:
    assert names(text, grammar) == expected


def test_the_range_of_a_placeholder_is_exact() -> None:
    assert ALL.find(b"a{{{ secrets.X }}}b") == [Found(2, 17, "X")]


def test_the_range_of_a_malformed_one_is_its_opener() -> None:
    """So the search goes on right behind it, and what follows is judged by itself."""
    assert ALL.find(b"a{{ secrets.1}} {secrets.X}") == [Found(1, 12, None), Found(16, 27, "X")]


# --- writing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "written"),
    [
        pytest.param("crm.apiKey", "{{secrets.crm.apiKey}}", id="a plain name"),
        pytest.param("a__b", "{{secrets.a__b}}", id="underscores are plain"),
        pytest.param("a b", '{{secrets["a b"]}}', id="any other name is quoted"),
        pytest.param('a"b\\', r'{{secrets["a\"b\\"]}}', id="quotes and backslashes are escaped"),
        pytest.param("日本", '{{secrets["日本"]}}', id="other scripts stay readable"),
        pytest.param("1x", '{{secrets["1x"]}}', id="a digit first is quoted"),
    ],
)
def test_writes_as_a_person_would(name: str, written: str) -> None:
    assert write(name) == written


any_name = st.text(
    st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=MAX_QUOTED_NAME
)


@settings(deadline=None)
@given(any_name)
def test_what_is_written_is_read_back(name: str) -> None:
    assert names(write(name)) == [name]


@settings(deadline=None)
@given(any_name)
def test_a_quoted_name_is_read_as_json_reads_it(name: str) -> None:
    assert names(f"{{{{secrets[{json.dumps(name)}]}}}}") == [name]


# --- length and cutting ----------------------------------------------------------------------


def test_the_longest_placeholder_is_as_long_as_promised() -> None:
    longest = "{{" + SPACES + 'secrets["' + r"\ud83d\ude00" * MAX_QUOTED_NAME + '"]' + SPACES + "}}"

    assert names(longest) == ["😀" * MAX_QUOTED_NAME]
    assert len(longest) == MAX_DECODED


@pytest.mark.parametrize("text", ids([row[:2] for row in HITS + MALFORMED_ONES] + TEXTS))
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_cutting_a_text_never_shows(text: str | bytes, size: int) -> None:
    raw = text.encode() if isinstance(text, str) else text
    cuts = range(size, len(raw), size)

    assert in_parts(raw, cuts, ALL) == ALL.find(raw)


def in_parts(text: bytes, cuts: range | list[int], grammar: Grammar) -> list[Found]:
    """What a streaming caller finds who is given *text* in parts; ranges in the whole text."""
    found: list[Found] = []
    held, passed = b"", 0
    for start, end in itertools.pairwise([0, *cuts]):
        held += text[start:end]
        some, cut = grammar.scan(held)
        assert cut == grammar.incomplete_from(held)
        assert len(held) - cut < MAX_DECODED
        found += [Found(f.start + passed, f.end + passed, f.name) for f in some]
        held, passed = held[cut:], passed + cut
    last = grammar.find(held + text[cuts[-1] if cuts else 0 :])
    return found + [Found(f.start + passed, f.end + passed, f.name) for f in last]


PARTS = [
    *("{", "{{", "}", "}}", "_", "__", " ", SPACES, "secret", "secrets", "s", ".", '["', '"]'),
    *("X", "a-b", r"\u00e9", r"\ud83d", r"\ude00", "\\", '"', "é", "{{secrets.", '{{secrets["'),
]
scraps = st.lists(st.sampled_from(PARTS), max_size=16).map(lambda parts: "".join(parts).encode())


@settings(max_examples=200, deadline=None)
@given(scraps, st.sets(st.sampled_from(Syntax)), st.data())
def test_cutting_any_text_anywhere_never_shows(
    text: bytes, syntaxes: set[Syntax], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    grammar = Grammar(syntaxes)

    assert in_parts(text, cuts, grammar) == grammar.find(text)


@pytest.mark.parametrize("grammar", [SINGLE, DOUBLE, ALL], ids=["single", "double", "all"])
@pytest.mark.parametrize("braces", [1, 2, 3, 4])
@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
def test_a_cut_among_braces_never_shows(grammar: Grammar, braces: int, cut: int) -> None:
    """The single-brace form looks at what stands in front of it, which must still be there."""
    text = b"{" * braces + b"secrets.X" + b"}" * braces

    assert in_parts(text, [cut], grammar) == grammar.find(text)


@settings(max_examples=200, deadline=None)
@given(scraps, st.sets(st.sampled_from(Syntax)))
def test_agrees_with_a_reader_that_goes_byte_by_byte(text: bytes, syntaxes: set[Syntax]) -> None:
    assert Grammar(syntaxes).find(text) == read_slowly(text, syntaxes)


def read_slowly(text: bytes, syntaxes: set[Syntax]) -> list[Found]:
    """The grammar once more, written from its description and without regular expressions."""
    found: list[Found] = []
    at = 0
    while at < len(text):
        for one in filter(None, (read_at(text, at, syntax) for syntax in sorted(syntaxes))):
            found.append(one)
            at = one.end
            break
        else:
            at += 1
    return found


def read_at(text: bytes, at: int, syntax: Syntax) -> Found | None:
    before, word, close = {
        Syntax.DOUBLE: (b"{{", b"secrets", b"}}"),
        Syntax.DOUBLE_SINGULAR: (b"{{", b"secret", b"}}"),
        Syntax.SINGLE: (b"{", b"secrets", b"}"),
        Syntax.URLSAFE: (b"__", b"secrets", b"__"),
    }[syntax]
    double = close == b"}}"
    if not text.startswith(before, at) or (before == b"{" and text[at - 1 : at] == b"{"):
        return None
    here = skip_spaces(text, at + len(before)) if double else at + len(before)
    if not text.startswith(word, here):
        return None
    here += len(word)
    mark = text[here : here + 1]
    if mark != b"." and not (double and mark == b"["):
        return None
    opener = here + 1
    name, here = read_quoted(text, here) if mark == b"[" else read_plain(text, opener, close)
    here = skip_spaces(text, here) if double else here
    if name == b"" or not text.startswith(close, here):
        return Found(at, opener, None)
    return Found(at, here + len(close), name if name is None else name.decode())


def skip_spaces(text: bytes, at: int) -> int:
    rest = text[at : at + MAX_SPACES]
    return at + len(rest) - len(rest.lstrip(b" "))


def read_plain(text: bytes, at: int, close: bytes) -> tuple[bytes, int]:
    end = at
    while end < len(text) and end - at < MAX_PLAIN_NAME:
        char = chr(text[end])
        if not (char.isascii() and (char.isalnum() or char in "_-.")):
            break
        if close == b"__" and text.startswith(b"__", end):
            break
        end += 1
    name = text[at:end]
    return (name, end) if name[:1].isalpha() else (b"", at)


def read_quoted(text: bytes, at: int) -> tuple[bytes | None, int]:
    """The name and the end behind the bracket; ``b""`` if there is no such form, None if no
    secret can be called so."""
    if not text.startswith(b'["', at):
        return b"", at
    end = at + 2
    while end < len(text) and text[end] not in b'"':
        end += 2 if text[end] == ord("\\") else 1
    if not text.startswith(b'"]', end):
        return b"", at
    try:
        name = json.loads(text[at + 1 : end + 1].decode())
        bad = any(unicodedata.category(char) in ("Cc", "Cs") for char in name)
        return None if bad else name.encode(), end + 2
    except ValueError:
        return b"", at


@pytest.mark.parametrize(
    ("text", "held"),
    [
        pytest.param("abc", "", id="nothing to hold back"),
        pytest.param("ab{", "{", id="a brace may open one"),
        pytest.param("ab_", "_", id="an underscore may open one"),
        pytest.param("a {{ sec", "{{ sec", id="part of the word"),
        pytest.param("a {{secrets.nam", "{{secrets.nam", id="part of the name"),
        pytest.param("a {{secrets.X }", "{{secrets.X }", id="part of the end"),
        pytest.param('{{secrets["a \\u00', '{{secrets["a \\u00', id="part of an escape"),
        pytest.param("{{secrets.X}}", "", id="a whole one is done"),
        pytest.param("__secrets.X__", "", id="its underscores open no other"),
        pytest.param("{{secrets.1", "", id="a broken one is done"),
        pytest.param("{{ .Values", "", id="another template is done"),
        pytest.param("{{secrets.X}} {{s", "{{s", id="only what is open"),
    ],
)
def test_holds_back_what_may_still_become_one(text: str, held: str) -> None:
    assert text[ALL.incomplete_from(text.encode()) :] == held


# --- the quick look --------------------------------------------------------------------------


def percent(text: str, *, every: bool = False, lower: bool = False) -> str:
    codes = [f"%{b:02x}" if lower else f"%{b:02X}" for b in text.encode()]
    plain = "" if every else "abcdefghijklmnopqrstuvwxyz.X"
    return "".join(c if c in plain else code for c, code in zip(text, codes, strict=True))


@pytest.mark.parametrize("text", SPELLINGS.values())
@pytest.mark.parametrize(
    "escape",
    [
        pytest.param(str, id="raw"),
        pytest.param(percent, id="percent"),
        pytest.param(lambda t: percent(t, lower=True), id="percent in lower case"),
        pytest.param(lambda t: percent(t, every=True), id="percent, letters too"),
        pytest.param(lambda t: t.replace("secret", "secr%65t"), id="percent, one letter only"),
        pytest.param(lambda t: "".join(f"\\u{ord(c):04x}" for c in t), id="JSON"),
        pytest.param(lambda t: "".join(f"\\u{ord(c):04X}" for c in t), id="JSON in upper case"),
        pytest.param(lambda t: t.replace("e", "\\u0065"), id="JSON, one letter only"),
    ],
)
def test_the_quick_look_overlooks_no_escaping(text: str, escape: object) -> None:
    assert callable(escape)
    assert ALL.maybe(f"a {escape(text)} b".encode())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"Mozilla/5.0 (X11; Linux x86_64) Chrome/156.0", id="a user agent"),
        pytest.param(b"application/json; charset=utf-8", id="a media type"),
        pytest.param(b"client_secret", id="the word without braces"),
        pytest.param(b"/a%20b/%7Bid%7D?x=%2F", id="other escapes"),
        pytest.param(b'{"a": "b\\n"}', id="JSON without the word"),
    ],
)
def test_the_quick_look_clears_ordinary_text(text: bytes) -> None:
    assert not ALL.maybe(text)


def test_with_no_syntax_in_force_the_quick_look_clears_all() -> None:
    assert not NONE.maybe(b"{{secrets.X}}")
    assert not NONE.maybe(b"%73ecrets")


@settings(deadline=None)
@given(scraps)
def test_the_quick_look_is_never_wrong_in_its_no(text: bytes) -> None:
    assert ALL.maybe(text) or not ALL.find(text)


STEP = 16 * 1024  # bytes that the quick look takes at once
HINTED = ["{{secrets.X}}", "{{%73ecrets.X}}", "{{secre\\u0074s.X}}", "%7B%7Bs%65crets.X%7D%7D"]


@pytest.mark.parametrize("text", HINTED)
@pytest.mark.parametrize("filling", [b" ", b"%20", b"\\u00e9", b"secre"], ids=repr)
def test_the_quick_look_overlooks_nothing_wherever_it_stands_in_a_long_text(
    text: str, filling: bytes
) -> None:
    long = (filling * (3 * STEP))[: 3 * STEP]
    # From ending right before the border of a step to beginning right behind it.
    for at in range(STEP - len(text) - len(filling), STEP + 2):
        assert ALL.maybe(long[:at] + text.encode() + long[at:])
    assert not ALL.maybe(long)


def letter_is_escaped(text: bytes) -> bool:
    return any(b"%" + code in text or b"\\u00" + code in text for code in LETTERS)


LETTERS = [b"%x" % ord(letter) for letter in "secrt"]


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"secret", b"%7", b"3", b"\\u00", b"6", b"5", b"{", b"__", b" "])))
def test_the_quick_look_asks_for_the_word_with_a_bracket_or_for_an_escaped_letter(
    parts: list[bytes],
) -> None:
    text = b"".join(parts)
    bracket = any(mark in text for mark in (b"{", b"__", b"%", b"\\"))
    wanted = bracket if b"secret" in text else letter_is_escaped(text)
    assert ALL.maybe(text) is wanted


# --- bounded work ----------------------------------------------------------------------------

SIZE = 3_000_000 if LONG else 1_500_000  # bytes
FLOODS = [
    ("openers", b"{{secrets.", SIZE // 10, MALFORMED),
    ("quoted openers", b'{{secrets["', SIZE // 11, MALFORMED),
    ("braces", b"{{", SIZE // 2, None),
    ("underscores", b"_", SIZE, None),
    ("URL-safe openers", b"__secrets.", SIZE // 10, MALFORMED),
    ("braces and spaces", b"{{" + b" " * MAX_SPACES, SIZE // 18, None),
    ("long names", b"{{secrets." + b"n" * 200, SIZE // 210, MALFORMED),
    ("long quoted names", b'{{secrets["' + b"n" * 300, SIZE // 311, MALFORMED),
    ("half escapes", b'{{secrets["' + rb"\ud83d" * 300, SIZE // 1811, MALFORMED),
]


@pytest.mark.parametrize(("unit", "times", "found"), ids(FLOODS))
def test_work_is_bounded_whatever_the_text(unit: bytes, times: int, found: object) -> None:
    """A quadratic search would not come back from these; the word at the end defeats shortcuts."""
    text = unit * times + b" secret"

    assert len(ALL.find(text)) == (times if found is MALFORMED else 0)


def test_every_syntax_is_in_force_by_default() -> None:
    assert Grammar().syntaxes == ALL_SYNTAXES == set(Syntax)
