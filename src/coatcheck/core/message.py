"""HTTP heads as values: bytes in, bytes out, order and duplicates kept.

Header fields stay the list of pairs that came in, since a mapping would lose the order, the
letter case and all but one Set-Cookie. Nothing here belongs to one version of HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

type Fields = tuple[tuple[bytes, bytes], ...]

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

# How to read the content: no option of one connection, whatever `Connection` lists. Without them
# a coded answer would pass for a plain one, and be searched as such.
_OF_CONTENT = frozenset({b"content-encoding", b"content-type"})


@dataclass(frozen=True, slots=True)
class RequestHead:
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
        return replace(self, fields=fields)


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status (100–599), reason phrase and fields, as they came in."""

    status: int
    reason: bytes
    fields: Fields

    def all(self, name: bytes) -> list[bytes]:
        return field_values(self.fields, name)

    def with_fields(self, fields: Fields) -> ResponseHead:
        return replace(self, fields=fields)


def field_values(fields: Fields, name: bytes) -> list[bytes]:
    """The values of every field called *name* (lower case), in order."""
    return [value for key, value in fields if key.lower() == name]


def list_members(values: list[bytes]) -> Iterator[bytes]:
    """The members of a comma-separated list field, lower case (RFC 9110, section 5.6.1)."""
    for value in values:
        for member in value.split(b","):
            if stripped := member.strip(b" \t").lower():
                yield stripped


def without_hop_by_hop(fields: Fields) -> Fields:
    """*fields* without those of one connection: the known ones, ``Proxy-*``, and those that
    ``Connection`` lists (RFC 9110, section 7.6.1)."""
    named = set(list_members(field_values(fields, b"connection"))) - _OF_CONTENT
    return tuple(
        (key, value)
        for key, value in fields
        if (low := key.lower()) not in HOP_BY_HOP
        and low not in named
        and not low.startswith(b"proxy-")
    )


def without(fields: Fields, *names: bytes) -> Fields:
    """*fields* without those called one of *names* (lower case)."""
    return tuple((key, value) for key, value in fields if key.lower() not in names)
