"""Placeholders in heads and bodies: what is found, and what a filled message is to its receiver."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from coatcheck.core import bodies, inject
from coatcheck.core.body_stream import Stream
from coatcheck.core.message import RequestHead
from coatcheck.core.placeholder import ALL_SYNTAXES, MAX_DECODED, Grammar, Syntax
from coatcheck.core.problems import Code, Refused
from coatcheck.core.secret import SecretValue
from coatcheck.core.template import Piece, Slot, render, slots
from tests.fuzz import placeholders, reference
from tests.fuzz.case import ODD, Finding, Target, check, check_same, cuttings

GRAMMAR = Grammar()
SETS = [frozenset({one}) for one in Syntax] + [ALL_SYNTAXES - {one} for one in Syntax]
GRAMMARS = [Grammar(syntaxes) for syntaxes in SETS]
MARKER = b"Q7q7Q7"  # a value that no place escapes
MAX_HELD = 20 * 1024 + 4096  # bytes that a body's reader may hold back

# --- the grammar -----------------------------------------------------------------------------


def run_placeholders(data: bytes) -> bool:
    """A text, and a head made of its lines: the first a target, the others values of fields."""
    found = False
    for grammar in (GRAMMAR, GRAMMARS[zlib.crc32(data) % len(GRAMMARS)]):
        wanted = placeholders.find(data, grammar.syntaxes)
        found = found or bool(wanted)
        got = [(one.start, one.end, one.name) for one in grammar.find(data)]
        check(got == wanted, "two finders of placeholders differ", (got, wanted))
        for text in (data, _all_percent(data), _all_json(data)):
            check(not wanted or grammar.maybe(text), "a placeholder that maybe() misses", text)
        for pieces in cuttings(data):
            check(_scanned(grammar, pieces) == wanted, "it depends on how the text was cut", wanted)
    _run_head(data)
    return found


def _scanned(grammar: Grammar, pieces: Sequence[bytes]) -> list[placeholders.One]:
    found: list[placeholders.One] = []
    rest, base = b"", 0
    for number, piece in enumerate(pieces, 1):
        text = rest + piece
        if number == len(pieces):
            new, until = grammar.find(text), len(text)
        else:
            new, until = grammar.scan(text)
            check(len(text) - until < MAX_DECODED, "too much is held back", len(text) - until)
        found += [(base + one.start, base + one.end, one.name) for one in new]
        rest, base = text[until:], base + until
    return found


def _all_percent(text: bytes) -> bytes:
    return b"".join(b"%%%02x" % byte for byte in text)


def _all_json(text: bytes) -> bytes:
    return b"".join(b"\\u%04x" % byte for byte in text)


def _run_head(data: bytes) -> None:
    target, *lines = data.split(b"\n")
    target = bytes(byte for byte in target if byte in reference.VISIBLE and byte != ord("#"))
    fields = tuple(
        (b"X-%d" % at, bytes(b for b in line if b in reference.IN_VALUE))
        for at, line in enumerate(lines[:8])
    )
    head = RequestHead(b"GET", b"/" + target, fields)
    template = inject.read_head(head, GRAMMAR)
    names = [name for text in _texts(head) for _, _, name in placeholders.find(text, ALL_SYNTAXES)]
    got = [slot.name for slot in template.slots()] if template else []
    check(got == names, "other placeholders in a head than its receiver reads", (got, names))
    if template is None:
        return
    check(template.render(lambda slot: None) == head, "a head does not keep its bytes", head)
    marked = template.render(_fill(MARKER))
    filled = template.render(_fill(ODD))
    written = quote(ODD, safe="").encode()
    check(filled.target == marked.target.replace(MARKER, written), "a value leaves its place")
    for (_, with_value), (_, with_marker) in zip(filled.fields, marked.fields, strict=True):
        check(with_value == with_marker.replace(MARKER, ODD), "a value leaves its field")


def _texts(head: RequestHead) -> list[bytes]:
    """The texts of *head* as a receiver decodes them."""
    texts = [unquote_to_bytes(head.path)]
    for parameter in (head.query or b"").split(b"&"):
        name, _, value = parameter.partition(b"=")
        texts += [unquote_to_bytes(part.replace(b"+", b" ")) for part in (name, value)]
    return texts + [value for _, value in head.fields]


def _fill(value: bytes) -> Any:
    def fill(slot: Slot) -> SecretValue | None:
        return None if slot.name is None else SecretValue(slot.name, 1, value)

    return fill


WRITTEN = [
    b"{{secrets.crm.apiKey}}",
    b"{{ secret.key }}",
    b"{secrets.key}",
    b"__secrets.key__",
    b'{{secrets["any name"]}}',
    b'{{secrets["\\u00e9\\ud83d\\ude00\\n"]}}',
]
PLACEHOLDERS = [
    *WRITTEN,
    b"a/{{secrets.key}}/b?c=%7B%7Bsecrets.key%7D%7D&__secrets.d__=+{secrets.e}\n{secrets.key}\nx",
    b"{{secrets.}} {{secrets {{secrets.a {{{secrets.a}}} ___secrets.a___ __secrets.a__b__",
    b"{{" + b" " * 16 + b"secrets." + b"a" * 128 + b" " * 16 + b"}}{{" + b" " * 17 + b"secrets.a}}",
]
GRAMMAR_WORDS = [
    *WRITTEN,
    b"{{",
    b"}}",
    b"{",
    b"}",
    b"__",
    b"_",
    b"secrets.",
    b"secret.",
    b"secrets[",
    b'["',
    b'"]',
    b'\\"',
    b"\\u00e9",
    b"\\ud83d",
    b"\\ude00",
    b"\xc3\xa9",
    b"\xf0\x9f\x98\x80",
    b" " * 16,
    b"a" * 127,
    b"%7B%7B",
    b"%73",
    b"%",
    b"+",
    b"&",
    b"=",
    b"?",
    b"/",
    b";",
    b"\n",
    b"\\u0073",
]

# --- bodies ----------------------------------------------------------------------------------

JSON = b"application/json"
FORM = b"application/x-www-form-urlencoded"
KINDS = (JSON, FORM, b"application/x-ndjson", b"text/plain", b"application/xml", b"")


def run_bodies(data: bytes) -> bool:
    """A Content-Type on a line of its own, and a body."""
    kind, _, body = data.partition(b"\n")
    kind = kind if kind in KINDS else JSON
    pieces = _rewritten(kind, body)
    found = [slot for slot in slots(pieces) if slot.name is not None]
    if found and kind == JSON:
        _check_json(body, pieces)
    elif kind == FORM:
        _check_form(body, pieces)
    return bool(found)


def _rewritten(kind: bytes, body: bytes) -> list[Piece]:
    """The pieces of *body*, after the checks that every kind has to pass."""
    results = [_pieces(kind, parts) for parts in cuttings(body)]
    check_same([_comparable(pieces) for pieces in results], "it depends on how the body was cut")
    pieces = results[0]
    check(render(pieces, lambda slot: None) == body, "a body does not keep its bytes", body)
    marked = render(pieces, _fill(MARKER))
    filled = render(pieces, _fill(ODD))
    written = next((s.encode(ODD) for s in slots(pieces) if s.name is not None), b"")
    if len({s.encode(ODD) for s in slots(pieces) if s.name is not None}) == 1:
        check(filled == marked.replace(MARKER, written), "a value leaves its place", filled)
    return pieces


def _pieces(kind: bytes, parts: Iterable[bytes]) -> list[Piece]:
    reader = bodies.rewriter(((b"Content-Type", kind),), GRAMMAR)
    out: list[Piece] = []
    if reader is None:
        return out
    for part in parts:
        out += reader.feed(part)
        if isinstance(reader, Stream):
            check(reader.held <= MAX_HELD, "too much is held back", reader.held)
    return out + reader.finish()


def _comparable(pieces: Iterable[Piece]) -> list[object]:
    out: list[Any] = []
    for piece in pieces:
        if isinstance(piece, Slot):
            out.append((piece.name, str(piece.location), piece.text, piece.encode(b'"<')))
        elif out and isinstance(out[-1], bytes):
            out[-1] += piece
        else:
            out.append(piece)
    return out


def _check_json(body: bytes, pieces: list[Piece]) -> None:
    """Where all of *body* is JSON: each placeholder at the pointer that a parser sees, and a
    filled body that is the same document with the value in it."""
    try:
        document = json.loads(body.decode(), object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return
    got = [(s.name, s.location.name) for s in slots(pieces)]
    wanted: list[tuple[str | None, str]] = []
    filled = _walk(document, "", wanted)
    check(got == wanted, "another place in JSON than a parser sees", (got, wanted))
    try:
        again = json.loads(render(pieces, _fill(ODD)).decode(), object_pairs_hook=_Pairs)
    except ValueError:
        raise Finding("a filled JSON body is none", body) from None
    check(again == filled, "a filled JSON body is another document", again)


class _Pairs(list[Any]):
    """An object: its members in order, the same key twice too."""


def _walk(node: Any, pointer: str | None, found: list[tuple[str | None, str]]) -> Any:
    """*node* with values filled in; what is found there is added to *found*."""
    if isinstance(node, _Pairs):
        members = []
        for key, value in node:
            new_key = _text(key, None, found)
            step = None if _has_one(key) or pointer is None or not _is_text(key) else key
            below = (
                None if step is None else f"{pointer}/{step.replace('~', '~0').replace('/', '~1')}"
            )
            members.append((new_key, _walk(value, below, found)))
        return _Pairs(members)
    if isinstance(node, list):
        return [
            _walk(item, None if pointer is None else f"{pointer}/{index}", found)
            for index, item in enumerate(node)
        ]
    return _text(node, pointer, found) if isinstance(node, str) else node


def _text(text: str, pointer: str | None, found: list[tuple[str | None, str]]) -> str:
    raw = text.encode("utf-8", "surrogatepass")
    found += [(name, pointer or "") for _, _, name in placeholders.find(raw, ALL_SYNTAXES)]
    filled = placeholders.replace(raw, ALL_SYNTAXES, ODD)
    return filled.decode("utf-8", "surrogatepass")


def _has_one(key: str) -> bool:
    return bool(placeholders.find(key.encode("utf-8", "surrogatepass"), ALL_SYNTAXES))


def _is_text(key: str) -> bool:
    return not any(0xD800 <= ord(char) < 0xE000 for char in key)


def _check_form(body: bytes, pieces: list[Piece]) -> None:
    wanted: list[tuple[str | None, str | None]] = []
    for part in body.split(b"&"):
        name, _, value = part.partition(b"=")
        wanted += [(one[2], "") for one in placeholders.find(_decoded(name), ALL_SYNTAXES)]
        place = None if b";" in body else _field_name(name)
        wanted += [(one[2], place) for one in placeholders.find(_decoded(value), ALL_SYNTAXES)]
    got = [(slot.name, slot.location.name) for slot in slots(pieces)]
    agree = len(got) == len(wanted) and all(
        a == b and (c == d or d is None) for (a, c), (b, d) in zip(got, wanted, strict=True)
    )
    check(agree, "another place in a form than a receiver sees", (got, wanted))
    filled = render(pieces, _fill(ODD)).split(b"&")
    check(len(filled) == len(body.split(b"&")), "a filled form has other fields", filled)
    for before, after in zip(body.split(b"&"), filled, strict=True):
        for old, new in zip(before.partition(b"="), after.partition(b"="), strict=True):
            same = placeholders.replace(_decoded(old), ALL_SYNTAXES, ODD)
            check(_decoded(new) == same, "a filled form has other fields", filled)


def _decoded(raw: bytes) -> bytes:
    return unquote_to_bytes(raw.replace(b"+", b" "))


def _field_name(raw: bytes) -> str:
    """How a field called *raw* is known; the empty name where it has none."""
    decoded = _decoded(raw)
    if placeholders.find(decoded, ALL_SYNTAXES):
        return ""
    try:
        return "/" + decoded.decode()
    except UnicodeDecodeError:
        return ""


BODIES = [
    JSON + b'\n{"a": "{{secrets.key}}", "b": [1, "x __secrets.key__", {"c/d~": "{secrets.e}"}]}',
    JSON + b'\n{"\\u007b{secrets.k}}": {"x": "{{secrets[\\"a b\\"]}}"}, "k": {{secrets.bare}}}',
    JSON + b'\n[[[["{{secrets.deep}}"]]], "\\ud83d\\ude00 \\u007b\\u007bsecrets.a\\u007d\\u007d"]',
    JSON + b'\n{"a": "b" "{{secrets.key}}"',
    b'application/x-ndjson\n{"a": "{{secrets.a}}"}\n{"b": "{{secrets.b}}"}\n',
    FORM + b"\na=%7B%7Bsecrets.key%7D%7D&b=__secrets.k__+x&__secrets.name__=1&c;d={secrets.e}",
    FORM + b"\na=%257B&%ff={{secrets.key}}&&=&b==__secrets.key__",
    b"text/plain\nhello {{secrets.key}} __secrets.b__ {{secrets.",
    b"application/xml\n<a b='{{secrets.key}}'>{secrets.x}</a>",
]
BODY_WORDS = [
    *GRAMMAR_WORDS,
    *(kind + b"\n" for kind in KINDS),
    b'"',
    b'": "',
    b'", "',
    b"[",
    b"]",
    b"{}",
    b"[]",
    b",",
    b":",
    b"null",
    b"-1.5e3",
    b'"a": ',
    b'"client_secret": ',
    b"\\\\",
    b"\\",
    b"/*",
    b"\xef\xbb\xbf",
    b"\t",
    b"\r",
    b"&#123;",
    b"%26",
    b"%3D",
    b"%3B",
]

# --- multipart -------------------------------------------------------------------------------


def run_multipart(data: bytes) -> bool:
    """A Content-Type's parameters on a line of their own, and a multipart body."""
    parameters, _, body = data.partition(b"\n")
    kind = b"multipart/form-data; " + parameters
    try:
        pieces = _rewritten(kind, body)
    except Refused as refused:
        check(refused.problem.code is Code.BAD_REQUEST, "an undocumented refusal", refused.problem)
        return False
    found = [slot for slot in slots(pieces) if slot.name is not None]
    mark = parameters.removeprefix(b"boundary=")
    if parameters == b"boundary=" + mark and mark.isalnum():
        _check_parts(body, b"--" + mark, pieces)
        _check_names(body, b"--" + mark, pieces)
    return bool(found)


def _check_parts(body: bytes, mark: bytes, pieces: list[Piece]) -> None:
    """In a body that no parser reads in two ways: placeholders of parts and nothing else, each
    under its field's name; and the filled body has the same parts."""
    parts = _parts(body, mark)
    filled = _parts(render(pieces, _fill(ODD)), mark)
    if parts is None:
        return
    wanted: list[tuple[str | None, str]] = []
    expected: list[tuple[bytes, bytes]] = []
    for name, content in parts:
        wanted += [(o[2], f"/{name.decode()}") for o in placeholders.find(content, ALL_SYNTAXES)]
        expected.append((name, placeholders.replace(content, ALL_SYNTAXES, ODD)))
    got = [(slot.name, slot.location.name) for slot in slots(pieces)]
    check(got == wanted, "another place in a multipart body than a parser sees", (got, wanted))
    check(filled == expected, "a filled multipart body has other parts", filled)


def _check_names(body: bytes, mark: bytes, pieces: list[Piece]) -> None:
    """A placeholder with a name stands in the field of that name for a parser that wants CRLF and
    for one that takes a bare LF and blanks as well."""
    strict = _spans(body, re.compile(rb"\r\n" + mark + rb"(?:--|\r\n)"))
    generous = _spans(body, re.compile(rb"\r?\n" + mark + rb"(?:--|[ \t]*\r?\n)"))
    at = 0
    for piece in pieces:
        if isinstance(piece, Slot) and piece.location.name:
            for spans in (strict, generous):
                field = next((name for start, end, name in spans if start <= at < end), None)
                said = None if field is None else "/" + field.decode("utf-8", "replace")
                check(
                    said == piece.location.name, "a name that two parsers differ on", (said, body)
                )
        at += len(piece.text if isinstance(piece, Slot) else piece)  # type: ignore[arg-type]


def _spans(body: bytes, delimiter: re.Pattern[bytes]) -> list[tuple[int, int, bytes]]:
    """(start, end, name) of the content of each part."""
    padded = b"\r\n" + body
    found = [*delimiter.finditer(padded)]
    spans = []
    for index, one in enumerate(found):
        if one[0].endswith(b"--"):
            break
        end = found[index + 1].start() if index + 1 < len(found) else len(padded)
        blank = _BLANK.search(padded, one.end() - 2)
        if blank and blank.end() <= end:
            head = padded[one.end() - 2 : blank.start()]
            name = _DISPOSITION_NAME.search(head)
            spans.append((blank.end() - 2, end - 2, b"".join(name.groups(b"")) if name else b""))
    return spans


_BLANK = re.compile(rb"\r?\n\r?\n")
_DISPOSITION_NAME = re.compile(
    rb'^content-disposition:[^\n]*?[;\s]name=(?:"([^"]*)"|([^\s;"]*))', re.IGNORECASE | re.MULTILINE
)


def _parts(body: bytes, mark: bytes) -> list[tuple[bytes, bytes]] | None:
    """(field, content) of each part; None where the body is not of the plainest kind."""
    first, *rest = (b"\r\n" + body).split(b"\r\n" + mark)
    if first or not rest or rest[-1] not in (b"--", b"--\r\n") or mark in b"".join(rest):
        return None
    parts = []
    for part in rest[:-1]:
        head, blank, content = part.partition(b"\r\n\r\n")
        opening, closing = b'\r\nContent-Disposition: form-data; name="', b'"'
        name = head.removeprefix(opening).removesuffix(closing)
        if not blank or head != opening + name + closing or not name.isalnum() or b"\n" in content:
            return None
        parts.append((name, content))
    return parts


def _part(name: bytes, content: bytes, *fields: bytes) -> bytes:
    head = [b"--XX", b'Content-Disposition: form-data; name="%b"' % name, *fields]
    return b"\r\n".join(head) + b"\r\n\r\n" + content + b"\r\n"


MULTIPARTS = [
    b"boundary=XX\n"
    + _part(b"a", b"{{secrets.key}}")
    + _part(b"b", b"x __secrets.k__")
    + b"--XX--",
    b"boundary=XX\n"
    + _part(b"a", b'"{{secrets.key}}"', b"Content-Type: application/json")
    + b"--XX--",
    b"boundary=XX\n"
    + _part(b"a", b"{{secrets.k}}", b"Content-Transfer-Encoding: base64")
    + b"--XX--\r\n",
    b"boundary=XX\npreamble {{secrets.a}}\r\n"
    + _part(b"a", b"--XX {{secrets.b}}")
    + b"--XX--{{secrets.c}}",
    b'boundary="a b"; charset=utf-8\n--a b\n\n{{secrets.key}}\n--a b--',
    b"boundary=XX\n" + _part(b"{{secrets.n}}", b"{{secrets.key}}\r\n--X") + b"--XX--",
]
PART_WORDS = [
    *GRAMMAR_WORDS[:16],
    b"boundary=",
    b"boundary=XX\n",
    b'boundary="X X"\n',
    b"; boundary*0=X",
    b"--XX\r\n",
    b"\r\n--XX\r\n",
    b"\n--XX\n",
    b"--XX--",
    b"\r\n--XX--\r\n",
    b"--XX \r\n",
    b"--XX-",
    b"--X",
    b"\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b"\r",
    b'Content-Disposition: form-data; name="b"\r\n',
    b'; name="c"',
    b"; name*=utf-8''d",
    b'; filename="f"',
    b"Content-Type: application/json\r\n",
    b"Content-Type: image/png\r\n",
    b"Content-Type: multipart/mixed; boundary=YY\r\n",
    b"Content-Transfer-Encoding: base64\r\n",
    b" folded\r\n",
]

TARGETS = [
    Target("placeholders", run_placeholders, PLACEHOLDERS, GRAMMAR_WORDS),
    Target("json-and-forms", run_bodies, BODIES, BODY_WORDS),
    Target("multipart", run_multipart, MULTIPARTS, PART_WORDS),
]
