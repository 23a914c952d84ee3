"""The placeholders of a request head: found here, judged elsewhere, filled here.

Parsing only. `read_head` turns a head into a template that keeps every byte the client sent: the
order of the query, the letter case of its escapes, duplicate fields, the spelling of their names.
Whether a placeholder may be filled is for `policy`; where nothing may ever be filled (the method,
a field's name, Host, hop-by-hop fields) the placeholder is reported all the same, with a location
that no grant fits, and its slot cannot write a value even if it were asked to.

Most requests hold no placeholder, so one look at all the bytes of the head decides that first.
What was found in the fields is kept with them: on a connection they come again and again.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from coatcheck.core import escaping, locations, template
from coatcheck.core.escaping import Escaping, find_slots
from coatcheck.core.locations import Kind, Location
from coatcheck.core.message import Fields, RequestHead, once
from coatcheck.core.placeholder import Grammar
from coatcheck.core.template import Fill, Group, NotRepresentable, Piece, Slot


@dataclass(frozen=True, slots=True)
class FieldsTemplate:
    """Fields with holes.

    Attributes:
        holes: (index of the field, its name, its value in pieces) for each that has a slot.
        stray: Slots in names: to be judged, never to be filled.
        found: Slots in values, well-formed or not.
    """

    fields: Fields
    holes: tuple[tuple[int, bytes, tuple[Piece, ...]], ...] = ()
    stray: tuple[Slot, ...] = ()
    found: tuple[Slot, ...] = ()

    def render(self, fill: Fill) -> Fields:
        """The fields with each slot filled. Raises `NotRepresentable`."""
        filled = list(self.fields)
        for index, name, pieces in self.holes:
            filled[index] = (name, template.render(pieces, fill))
        return tuple(filled)


@dataclass(frozen=True, slots=True)
class HeadTemplate:
    """A request head with holes.

    Attributes:
        target: As in `RequestHead`, in pieces.
        stray: Slots in the method and in names of fields: to be judged, never to be filled.
        base: The target that *target* is put to, where a value is the URL (`core.whole_url`).
    """

    method: bytes
    target: tuple[Piece, ...]
    fields: FieldsTemplate
    stray: tuple[Slot, ...] = ()
    base: Slot | None = None

    def slots(self) -> list[Slot]:
        """Every placeholder of the head, well-formed or not, in order within each part."""
        base = [] if self.base is None else [self.base]
        return [*base, *self.stray, *template.slots(self.target), *self.fields.found]

    def render(self, fill: Fill) -> RequestHead:
        """The head with each slot filled; where *fill* gives None the client's own text stays.

        Raises:
            NotRepresentable: a value cannot be written at its place.
        """
        target = template.render(self.target, fill)
        if self.base is not None:
            target = put_to(template.render((self.base,), fill), target)
        return RequestHead(self.method, target, self.fields.render(fill))

    def tokens(self, fill: Fill) -> list[tuple[str, bytes]]:
        """(name, base64 that carries the value) for each value inside a Basic token."""
        return [
            token
            for _, _, pieces in self.fields.holes
            for token in template.group_tokens(pieces, fill)
        ]


def put_to(base: bytes, more: bytes) -> bytes:
    """The target *base* with *more*, a path or a query or both, at its end."""
    path, mark, query = base.partition(b"?")
    more_path, more_mark, more_query = more.partition(b"?")
    if more_path:
        path = path.removesuffix(b"/") + more_path
    joined = b"&".join(part for part in (query, more_query) if part)
    return path + (mark or more_mark) + joined


def read_head(head: RequestHead, grammar: Grammar) -> HeadTemplate | None:
    """The template of *head*; None where it holds no placeholder, well-formed or not."""
    read = _read_head(head, grammar)
    return read if read is not None and read.slots() else None


def read_head_at(base: Slot, head: RequestHead, grammar: Grammar) -> HeadTemplate:
    """The template of *head*, whose target is put to what *base* is filled with."""
    read = _read_head(head, grammar) or HeadTemplate(
        head.method, (head.target,), FieldsTemplate(tuple(head.fields))
    )
    return replace(read, base=base)


def _read_head(head: RequestHead, grammar: Grammar) -> HeadTemplate | None:
    fields = once(head.fields, grammar, lambda: _read_fields(head.fields, grammar))
    target: tuple[Piece, ...] = (head.target,)
    stray = fields.stray
    if grammar.maybe(head.target):
        target = tuple(_target(head.target, grammar))
    if grammar.maybe(head.method):
        stray = (*_stray(head.method, grammar, locations.METHOD), *stray)
    if not fields.found and len(target) == 1 and not stray:
        return None
    return HeadTemplate(head.method, target, fields, stray)


def _read_fields(fields: Fields, grammar: Grammar) -> FieldsTemplate:
    fields = tuple(fields)  # the plain pairs: what keeps this template must not be kept by it
    if not _may_hold_one(fields, grammar):
        return FieldsTemplate(fields)
    found: list[Slot] = []
    stray: list[Slot] = []
    holes: list[tuple[int, bytes, tuple[Piece, ...]]] = []
    for index, (name, value) in enumerate(fields):
        if grammar.maybe(name):
            stray += _stray(name, grammar, locations.HEADER_NAME)
        pieces = tuple(_field(name, value, grammar))
        own = tuple(template.slots(pieces))
        if own:
            holes.append((index, name, pieces))
            found += own
    return FieldsTemplate(fields, tuple(holes), tuple(stray), tuple(found))


def _may_hold_one(fields: Fields, grammar: Grammar) -> bool:
    # Line ends part the fields, so that no two of them look like one placeholder.
    if grammar.maybe(b"\n".join([part for field in fields for part in field])):
        return True
    for name, value in fields:
        if len(name) == _AUTHORIZATION_LENGTH and name.lower() == _AUTHORIZATION:
            token = _BASIC.fullmatch(value)
            if token is not None and grammar.maybe(_base64(token[2]) or b""):
                return True
    return False


def _stray(raw: bytes, grammar: Grammar, location: Location) -> Iterator[Slot]:
    pieces = find_slots(raw, grammar, escaping.RAW, location)
    return (_locked(piece) for piece in pieces if isinstance(piece, Slot))


# --- target ----------------------------------------------------------------------------------

_PATH = Location(Kind.PATH)
_QUERY_NAME = Location(Kind.QUERY)


def _target(target: bytes, grammar: Grammar) -> Iterator[Piece]:
    path, mark, query = target.partition(b"?")
    yield from find_slots(path, grammar, escaping.PATH, _PATH) if grammar.maybe(path) else (path,)
    if mark:
        yield mark
    for index, parameter in enumerate(query.split(b"&") if query else ()):
        if index:
            yield b"&"
        yield from _parameter(parameter, grammar)


def _parameter(parameter: bytes, grammar: Grammar) -> Iterator[Piece]:
    """One ``name=value`` of a query (URL Standard, section 5.1); only ``&`` parts parameters."""
    if not grammar.maybe(parameter):
        yield parameter
        return
    name, equals, value = parameter.partition(b"=")
    yield from find_slots(name, grammar, escaping.FORM, _QUERY_NAME)
    if equals:
        yield equals
        called = escaping.decode_form(name).text.decode("utf-8", "replace")
        if b";" in parameter:
            called = ""  # some servers part parameters there too, and would see another name
        yield from find_slots(value, grammar, escaping.FORM, Location(Kind.QUERY, called))


# --- fields ----------------------------------------------------------------------------------

_AUTHORIZATION = b"authorization"
_AUTHORIZATION_LENGTH = len(_AUTHORIZATION)
# RFC 7617, section 2: a scheme in any letter case, spaces, token68. Both alphabets of base64.
_BASIC = re.compile(rb"([ \t]*[Bb][Aa][Ss][Ii][Cc][ \t]+)([A-Za-z0-9+/_\-]+={0,2})([ \t]*)")


def _field(name: bytes, value: bytes, grammar: Grammar) -> Iterator[Piece]:
    low = name.lower()
    if low == _AUTHORIZATION and (token := _BASIC.fullmatch(value)):
        yield token[1]
        yield _basic_token(token[2], grammar)
        yield token[3]
        return
    if not grammar.maybe(value):
        yield value
        return
    location = Location(Kind.HEADER, low.decode("latin-1"))
    pieces = find_slots(value, grammar, escaping.HEADER, location)
    if locations.is_forbidden(location):
        yield from (_locked(piece) if isinstance(piece, Slot) else piece for piece in pieces)
    else:
        yield from pieces


def _basic_token(token: bytes, grammar: Grammar) -> Piece:
    """The inside of a Basic token as a group, encoded again once filled; else its very bytes."""
    decoded = _base64(token)
    if decoded is None:
        return token
    pieces = find_slots(decoded, grammar, _BASIC_INSIDE, Location(Kind.HEADER, "authorization"))
    if not any(isinstance(piece, Slot) for piece in pieces):
        return token

    def wrap(filled: bytes) -> bytes:
        # With every placeholder kept as text the client's own spelling stays as well.
        return token if filled == decoded else base64.b64encode(filled)

    return Group(tuple(_guard_user(pieces)), wrap, _quanta)


def _quanta(inside: bytes, start: int, stop: int) -> bytes:
    """The base64 of *inside*, cut to the groups of four characters that carry start to stop."""
    return base64.b64encode(inside[start // 3 * 3 : -(-stop // 3) * 3]).rstrip(b"=")


def _guard_user(pieces: list[bytes | Slot]) -> Iterator[bytes | Slot]:
    """Keep a value in front of the colon from moving it (RFC 7617: a user-id has no colon).

    Where the client wrote no colon at all, the value is the whole ``user:password``.
    """
    colons = [i for i, piece in enumerate(pieces) if isinstance(piece, bytes) and b":" in piece]
    first = colons[0] if colons else 0
    for index, piece in enumerate(pieces):
        if isinstance(piece, Slot) and index < first:
            yield replace(piece, encode=_encode_user)
        else:
            yield piece


def _base64(token: bytes) -> bytes | None:
    """Decode either alphabet (RFC 4648, sections 4 and 5), padded or not; None if it is neither."""
    bare = token.rstrip(b"=").translate(_FROM_URLSAFE)
    try:
        return binascii.a2b_base64(bare + b"=" * (-len(bare) % 4))
    except binascii.Error:
        return None


_FROM_URLSAFE = bytes.maketrans(b"-_", b"+/")


def _encode_user(value: bytes) -> bytes:
    if b":" in value:
        raise NotRepresentable("the value has a colon, which a Basic user name cannot hold")
    return value


# The group as a whole is escaped by base64, so inside there is nothing to escape.
_BASIC_INSIDE = Escaping("basic", escaping.decode_raw, escaping.encode_raw)


# --- places that are never filled ------------------------------------------------------------


def _locked(slot: Slot) -> Slot:
    return replace(slot, encode=_refuse)


def _refuse(value: bytes) -> bytes:
    raise NotRepresentable("nothing is ever written at this place")
