"""HTTP heads as values: bytes in, bytes out, order and duplicates kept.

Header fields stay the list of pairs that came in, since a mapping would lose the order, the
letter case and all but one Set-Cookie. Nothing here belongs to one version of HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, NamedTuple

type Field = tuple[bytes, bytes]
type Fields = tuple[Field, ...]


class FieldLines(tuple[Field, ...]):
    """Fields together with what was worked out about them.

    The engine hands in the same object for every request of a connection whose fields are the same
    bytes, so what depends on the fields alone is worked out once for all of them.
    """

    _notes: dict[Hashable, Any]

    def once[T](self, key: Hashable, make: Callable[[], T]) -> T:
        """What *make* gave at the first call with this *key*; nothing is kept where it raises."""
        try:
            return self._notes[key]  # type: ignore[no-any-return]
        except AttributeError:
            self._notes = {}
        except KeyError:
            if len(self._notes) >= MAX_NOTES:  # a connection outlives many policies
                self._notes.clear()
        made = self._notes[key] = make()
        return made

    def named(self) -> Mapping[bytes, list[bytes]]:
        """See `by_name`."""
        try:
            named: dict[bytes, list[bytes]] = self._notes[_BY_NAME]
        except (AttributeError, KeyError):
            named = self.once(_BY_NAME, lambda: _sorted_out(self))
        return named


MAX_NOTES = 64
_BY_NAME = "by name"
_NONE: list[bytes] = []


def _sorted_out(fields: Fields) -> dict[bytes, list[bytes]]:
    named: dict[bytes, list[bytes]] = {}
    for key, value in fields:
        low = key.lower()
        if low in named:
            named[low].append(value)
        else:
            named[low] = [value]
    return named


def once[T](fields: Fields, key: Hashable, make: Callable[[], T]) -> T:
    """`FieldLines.once` where *fields* can keep something; else what *make* gives now."""
    return fields.once(key, make) if isinstance(fields, FieldLines) else make()


# CGI (RFC 3875, section 4.1.18) and its heirs WSGI, Rack and PHP make a variable of a field's name,
# in which `-` is `_`; lighttpd and Apache 2.2 write `_` for all that is neither letter nor digit.
# Two names may be one to such a receiver, so a list is asked for a name with `-` for each of these.
_NOT_ALPHANUMERIC = b"!#$%&'*+.^_`|~"  # of what a token is made of (RFC 9110, section 5.6.2)
DASHED = bytes.maketrans(_NOT_ALPHANUMERIC, b"-" * len(_NOT_ALPHANUMERIC))

# RFC 9110, section 7.6.1: these speak of one connection and are not passed on.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"proxy-connection",
    }
)

# What a trailer section may not say (RFC 9110, section 6.5.1): how to frame, route, read, keep or
# authorise a message. A receiver that merges trailers into the head would act on it.
_NOT_IN_TRAILERS = HOP_BY_HOP | frozenset(
    b"accept-ranges age allow alt-svc authentication-info authorization cache-control"
    b" clear-site-data cookie cookie2 date etag expect expires forwarded host last-modified link"
    b" location max-forwards pragma range refresh retry-after server set-cookie set-cookie2"
    b" strict-transport-security te trailer vary via warning www-authenticate".split()
)
_NOT_IN_TRAILERS_FROM = tuple(
    b"access-control- content- cross-origin- if- proxy- sec- x-forwarded- x-frame-"
    b" x-content-type-".split()
)

# How to read the content: no option of one connection, whatever `Connection` lists. Without them
# a coded answer would pass for a plain one, and be searched as such.
_OF_CONTENT = frozenset({b"content-encoding", b"content-type"})


class RequestHead(NamedTuple):
    """Method, origin-form target (``/path?query``) and fields, as they came in."""

    method: bytes
    target: bytes
    fields: Fields

    @property
    def path(self) -> bytes:
        return self.target.partition(b"?")[0]

    @property
    def query(self) -> bytes | None:
        """What follows the first ``?``; None where there is none."""
        _, mark, query = self.target.partition(b"?")
        return query if mark else None

    def all(self, name: bytes) -> list[bytes]:
        return field_values(self.fields, name)

    def with_fields(self, fields: Fields) -> RequestHead:
        return RequestHead(self.method, self.target, fields)


class ResponseHead(NamedTuple):
    """Status (100–599), reason phrase and fields, as they came in."""

    status: int
    reason: bytes
    fields: Fields

    def all(self, name: bytes) -> list[bytes]:
        return field_values(self.fields, name)

    def with_fields(self, fields: Fields) -> ResponseHead:
        return ResponseHead(self.status, self.reason, fields)


def by_name(fields: Fields) -> Mapping[bytes, list[bytes]]:
    """The values of *fields* by their names (lower case), in order; for who asks for several."""
    return fields.named() if isinstance(fields, FieldLines) else _sorted_out(fields)


def field_values(fields: Fields, name: bytes) -> list[bytes]:
    """The values of every field called *name* (lower case), in order."""
    if isinstance(fields, FieldLines):
        return fields.named().get(name, _NONE)
    return [value for key, value in fields if key.lower() == name]


def list_members(values: list[bytes]) -> Iterator[bytes]:
    """The members of a comma-separated list field, lower case (RFC 9110, section 5.6.1)."""
    for value in values:
        for member in value.split(b","):
            if stripped := member.strip(b" \t").lower():
                yield stripped


def end_to_end(fields: Fields, drop: frozenset[bytes] = HOP_BY_HOP) -> Fields:
    """*fields* without those of one connection: the ones in *drop*, which has `HOP_BY_HOP` and
    maybe more, ``Proxy-*``, and those that ``Connection`` lists (RFC 9110, section 7.6.1)."""
    return FieldLines([fields[place] for place in _places_end_to_end(fields, drop)])


def places_end_to_end(fields: Fields, drop: frozenset[bytes]) -> list[int]:
    """Where in *fields* those stand that `end_to_end` leaves; worked out once, as `once` says."""
    return once(fields, drop, lambda: _places_end_to_end(fields, drop))


def _places_end_to_end(fields: Fields, drop: frozenset[bytes]) -> list[int]:
    listed = field_values(fields, b"connection")
    if listed:
        drop |= set(list_members(listed)) - _OF_CONTENT
    return [
        place
        for place, (name, _) in enumerate(fields)
        if (low := name.lower()) not in drop and not low.startswith(b"proxy-")
    ]


def trailers(fields: Fields, head: Fields) -> Fields:
    """Those of the trailer *fields* that may go on behind a message with this *head*."""
    taken = {key.lower() for key, _ in head}  # a second value would be merged with the first
    taken |= set(list_members(field_values(head, b"connection")))
    return tuple(
        field
        for field in fields
        if (low := field[0].lower()) not in _NOT_IN_TRAILERS
        and low not in taken
        and not low.startswith(_NOT_IN_TRAILERS_FROM)
    )


def without(fields: Fields, *names: bytes) -> Fields:
    """*fields* without those called one of *names* (lower case)."""
    return tuple((key, value) for key, value in fields if key.lower() not in names)
