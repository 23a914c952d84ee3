"""Text of any kind: placeholders as they are written, values in the escaping of the type."""

from __future__ import annotations

from coatcheck.core.body_stream import SOMEWHERE, Stream, cut
from coatcheck.core.escaping import Escaping
from coatcheck.core.placeholder import Grammar
from coatcheck.core.template import Piece


class TextRewriter(Stream):
    """XML, YAML, GraphQL, plain text: one stretch of text from the first byte to the last."""

    def __init__(self, grammar: Grammar, escaping: Escaping) -> None:
        super().__init__(grammar)
        self._escaping = escaping

    def _rewrite(self, buffer: bytes, *, final: bool) -> tuple[list[Piece], bytes]:
        pieces, rest = cut(buffer, self._grammar, self._escaping, SOMEWHERE, final=final)
        return [*pieces], rest
