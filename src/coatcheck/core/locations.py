"""The places of a request where a placeholder may stand, and the words a policy has for them.

A grant's ``in:`` list is made of patterns such as ``header:authorization``, ``query:key``,
``path``, ``body:/client_secret``. Some headers are never filled unless a grant names them (they
are logged, stored or shown by the receiver as a matter of course), and some never at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from coatcheck.core.message import DASHED


class Kind(StrEnum):
    HEADER = "header"
    QUERY = "query"
    PATH = "path"
    BODY = "body"
    WEBSOCKET = "websocket"
    URL = "url"  # the value is the URL that a request goes to (`core.whole_url`)


@dataclass(frozen=True, slots=True)
class Location:
    """Where one placeholder stands.

    Attributes:
        name: Header name (lower case), query parameter (decoded), JSON pointer of a JSON body
            (RFC 6901), ``/field`` of a form or multipart body; ``""`` where there is no name.
    """

    kind: Kind
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else str(self.kind)


@dataclass(frozen=True, slots=True)
class LocationPattern:
    """One entry of a grant's ``in:`` list. ``name`` None means: any place of this kind."""

    kind: Kind
    name: str | None = None

    def matches(self, location: Location) -> bool:
        if self.kind is not location.kind:
            return False
        if self.name is None:
            return not needs_naming(location)
        return self.name == location.name

    def __str__(self) -> str:
        return str(self.kind) if self.name is None else f"{self.kind}:{self.name}"


# Places that are none: a method, and the name of a header instead of its value. Both are spelled as
# no header can be (RFC 9110, section 5.6.2), so they meet no pattern; and both are in NEVER.
METHOD = Location(Kind.HEADER, "(method)")
HEADER_NAME = Location(Kind.HEADER, "(name)")

DEFAULT_PATTERNS = (
    LocationPattern(Kind.HEADER),
    LocationPattern(Kind.QUERY),
    LocationPattern(Kind.PATH),
    LocationPattern(Kind.BODY),
)

# Filled only where a grant says ``header:NAME``: receivers log them, store them, pass them on.
ONLY_WHEN_NAMED = frozenset(
    {"cookie", "referer", "origin", "user-agent", "forwarded", "via"}
)  # and x-forwarded-*

# Framing, routing and hop-by-hop fields (RFC 9110, section 7.6.1): no grant can open these.
NEVER = frozenset(
    {
        "host",
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        METHOD.name,
        HEADER_NAME.name,
    }
)  # and proxy-*, and the pseudo-fields of HTTP/2 (:authority)


def needs_naming(location: Location) -> bool:
    """Whether *location* is a header that is filled only if a grant names it."""
    return location.kind is Kind.HEADER and _is_tracked(location.name)


def is_forbidden(location: Location) -> bool:
    """Whether nothing is ever put into *location*, whatever a grant says."""
    return location.kind is Kind.HEADER and _frames_or_routes(location.name)


# Both are asked for every placeholder, and the names that a client sends are few.


@lru_cache(maxsize=256)
def _is_tracked(name: str) -> bool:
    dashed = name.translate(DASHED)
    return dashed in ONLY_WHEN_NAMED or dashed.startswith("x-forwarded-")


@lru_cache(maxsize=256)
def _frames_or_routes(name: str) -> bool:
    dashed = name.translate(DASHED)
    return dashed in NEVER or dashed.startswith(("proxy-", ":"))


class BadLocation(ValueError):
    """Not a location pattern; the message says what one looks like."""


def parse_pattern(text: str) -> LocationPattern:
    """Read one entry of ``in:``.

    Raises:
        BadLocation: unknown kind, empty name, a header that is never filled, or a body name that
            is no JSON pointer.
    """
    kind_text, colon, name = text.partition(":")
    try:
        kind = Kind(kind_text)
    except ValueError:
        kinds = ", ".join(Kind)
        raise BadLocation(f"unknown location {text!r}; one of {kinds}, with ':name'") from None
    if not colon:
        return LocationPattern(kind)
    if not name:
        raise BadLocation(f"{text!r} has no name after the colon; leave the colon out for any")
    if kind in (Kind.PATH, Kind.WEBSOCKET, Kind.URL):
        raise BadLocation(f"{kind} takes no name; write {str(kind)!r}")
    if kind is Kind.HEADER:
        name = name.lower()
        if is_forbidden(Location(kind, name)):
            raise BadLocation(f"header {name!r} frames or routes the message and is never filled")
    if kind is Kind.BODY and not name.startswith("/"):
        raise BadLocation(f"{text!r}: a body name is a JSON pointer; write 'body:/{name}'")
    return LocationPattern(kind, name)
