"""Content-Type and its kin: the type, the parameters, and how text of that type escapes.

Parsed strictly where two receivers could read it differently: a parameter that comes twice has no
value. `text_escaping` is the one table of which types are text at all, for whole bodies and for
the parts of a multipart body.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from coatcheck.core import escaping
from coatcheck.core.escaping import Escaping


@dataclass(frozen=True, slots=True)
class Parameterised:
    """A value with parameters (RFC 9110, section 5.6.6), as in Content-Type.

    Attributes:
        value: What stands before the first ``;``, lower case.
        parameters: By name (lower case), unquoted. None where a name comes twice.
        is_whole: Whether everything could be read; False means: take no parameter's word for it.
    """

    value: bytes
    parameters: dict[bytes, bytes | None] = field(default_factory=dict)
    is_whole: bool = True

    def get(self, name: bytes) -> bytes | None:
        return self.parameters.get(name)

    def has_extended(self, name: bytes) -> bool:
        """Whether *name* stands there in an extended form too (RFC 2231: ``name*``, ``name*0``),
        which some parsers prefer and others do not know."""
        return any(key.startswith(name + b"*") for key in self.parameters)


# A token is read generously: boundaries are sent unquoted with characters that no token has.
_PARAMETER = re.compile(
    rb";[ \t]*(?:([A-Za-z0-9!#$%&'*+.^_`|~\-]+)=(?:\"((?:[^\"\\]|\\.)*+)\"|([^\s;\"]*)))?[ \t]*",
    re.DOTALL,
)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)


def parse(raw: bytes) -> Parameterised:
    """Read *raw*; never raises."""
    head, _, _ = raw.partition(b";")
    parameters: dict[bytes, bytes | None] = {}
    at = len(head)
    while match := _PARAMETER.match(raw, at):
        at = match.end()
        name, quoted, token = match.groups()
        if name is None:
            continue
        value = _QUOTED_PAIR.sub(rb"\1", quoted) if quoted is not None else token
        parameters[name.lower()] = None if name.lower() in parameters else value
    return Parameterised(head.strip(b" \t").lower(), parameters, at == len(raw))


# What a body may say it is written in for us to read its structure as the receiver does. In UTF-7,
# UTF-16, EBCDIC or Shift_JIS the same bytes are other quotes, braces and ampersands.
_ASCII_BASED = frozenset({b"utf-8", b"utf8", b"us-ascii", b"ascii"})
# Of one part of a multipart body nothing but the text is written in it, and that stays in the part.
# Java's HttpClient says this one of every text part.
_OF_A_PART = _ASCII_BASED | {b"iso-8859-1"}


def is_ascii_based(content_type: Parameterised, *, of_a_part: bool = False) -> bool:
    """Whether a body of *content_type* is UTF-8 or ASCII by what it says, or says nothing.

    What could be read as another charset by somebody, or as two of them, is not.
    """
    if not content_type.is_whole or content_type.has_extended(b"charset"):
        return False
    if b"charset" not in content_type.parameters:
        return True
    charset = content_type.parameters[b"charset"]
    allowed = _OF_A_PART if of_a_part else _ASCII_BASED
    return charset is not None and charset.lower() in allowed


FORM = b"application/x-www-form-urlencoded"

_JSON_TYPES = frozenset(
    {
        b"application/json",
        b"application/x-json",
        b"text/json",
        b"text/x-json",
        b"application/x-ndjson",
        b"application/ndjson",
        b"application/jsonl",
        b"application/jsonlines",
        b"application/x-jsonlines",
        b"application/json-rpc",
        b"application/jsonrequest",
        b"application/csp-report",
    }
)
_TEXT_TYPES = frozenset(
    {
        b"application/ecmascript",
        b"application/graphql",
        b"application/javascript",
        b"application/sparql-query",
        b"application/sparql-update",
        b"application/sql",
        b"application/toml",
        b"application/x-javascript",
        b"application/x-sh",
        b"application/x-yaml",
        b"application/yaml",
    }
)


def is_json(value: bytes) -> bool:
    """Whether bodies of this type are JSON, or lines of it (RFC 6839, section 3.1)."""
    return (
        value in _JSON_TYPES
        or value.endswith(b"+json")
        or value.startswith(b"application/x-amz-json-")
    )


def text_escaping(value: bytes) -> Escaping | None:
    """How a value is written into text of this type; None where the type is not text.

    Forms and JSON have readers of their own for whole bodies; here they are escapings only.
    """
    if not value:
        return escaping.RAW  # RFC 7578, section 4.4: a part without a type is text/plain
    if is_json(value):
        return escaping.JSON
    if value == FORM:
        return escaping.FORM
    if value.endswith((b"/xml", b"+xml")):
        return escaping.XML
    if value.startswith(b"text/") or value.endswith(b"+yaml") or value in _TEXT_TYPES:
        return escaping.RAW
    return None
