"""Request bodies with placeholders: which reader a body gets, by its Content-Type.

Every reader streams: it is fed chunks and gives pieces, holds back no more than 20 KiB whatever
the body's size, and gives the same pieces however the body is cut (joined: two runs of plain bytes
may be parted differently). A body of a type that is not text is left alone, byte for byte.

============================================  ==================================================
Content-Type                                  reader
============================================  ==================================================
application/json, +json, NDJSON, ...          `body_json`: a JSON pointer for each placeholder
application/x-www-form-urlencoded             `body_form`: ``/field``
multipart/*                                   `body_multipart`: ``/field``, part bodies only
\\*/xml, +xml                                  `body_text`, values as XML character data
text/*, JavaScript, GraphQL, YAML, TOML, none `body_text`, values as they are
two that differ                               `body_text`, values as they are
anything else                                 none
============================================  ==================================================

A JSON, form or multipart body that says a charset but UTF-8 or US-ASCII has no names: its receiver
may see quotes and ampersands where we do not, and take the value for that of another field. So its
placeholders are for a grant of the whole body alone, and values are escaped as ever.
"""

from __future__ import annotations

from typing import Protocol

from coatcheck.core import escaping, media_type
from coatcheck.core.body_form import FormRewriter
from coatcheck.core.body_json import JsonRewriter
from coatcheck.core.body_multipart import MultipartRewriter
from coatcheck.core.body_text import TextRewriter
from coatcheck.core.message import Fields, field_values
from coatcheck.core.placeholder import Grammar
from coatcheck.core.template import Piece


class BodyRewriter(Protocol):
    """Takes one body apart, chunk by chunk.

    Attributes:
        is_slow: What it was fed last was dear; it is to be fed less at once.
    """

    is_slow: bool

    def feed(self, chunk: bytes) -> list[Piece]:
        """The pieces that are settled with *chunk*; never an empty one."""

    def finish(self) -> list[Piece]:
        """The rest. Call it once, after the last `feed`."""


def rewriter(fields: Fields, grammar: Grammar) -> BodyRewriter | None:
    """The reader for a body with these head fields; None: leave the body alone.

    Content codings are taken off before (`coding`).

    Raises:
        Refused: bad_request: a multipart body without a usable boundary.
    """
    types = {value.strip(b" \t") for value in field_values(fields, b"content-type")}
    if len(types) > 1:
        # Receivers differ on which one counts; as text no escape is undone and none is added.
        return TextRewriter(grammar, escaping.RAW)
    content_type = media_type.parse(types.pop() if types else b"")
    kind = content_type.value
    if kind.startswith(b"multipart/"):
        return MultipartRewriter(grammar, content_type)
    if media_type.is_ascii_based(content_type):
        if media_type.is_json(kind):
            return JsonRewriter(grammar)
        if kind == media_type.FORM:
            return FormRewriter(grammar)
    as_text = media_type.text_escaping(kind)
    return TextRewriter(grammar, as_text) if as_text else None
