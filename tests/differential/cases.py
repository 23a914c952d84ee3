"""What a case says of itself, and the requests that cases are built from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

HOST = b"Host: api.example.com"
CHUNKED = b"Transfer-Encoding: chunked"
# A whole request, for a body or a field to hide: whoever reads it as one finds one too many.
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: api.example.com\r\nX-Key: {{secrets.key}}\r\n\r\n"
CONTROLS = bytes([*range(0x09), *range(0x0A, 0x20), 0x7F])  # all but HTAB
BLANKS = b"\t "
HIGH = b"\x80\x85\xa0\xff"  # no ASCII; two of them are blanks in Latin-1


@dataclass(frozen=True)
class Case:
    """Bytes of a client, and what must come of them.

    Attributes:
        passes: How many requests are let out whole.
        refused: Something in it is refused. Otherwise everything must pass.
        cut: The refused one had begun to leave, for its body is not read before it is sent.
        tunnel: The lane is inside a tunnel; otherwise it takes absolute-form targets.
        refused_by: Readers that refuse what is legal, as far as they are known to.
    """

    data: bytes
    passes: int = 0
    refused: bool = False
    cut: bool = False
    tunnel: bool = True
    refused_by: frozenset[str] = frozenset()


class Table[T](dict[str, T]):
    """Cases by their ids; an id that is used twice would hide a case."""

    def __setitem__(self, why: str, case: T) -> None:
        assert why not in self, why
        super().__setitem__(why, case)

    def __ior__(self, more: Mapping[str, T]) -> Self:  # type: ignore[override,misc]
        for why, case in more.items():
            self[why] = case
        return self


def bad(data: bytes, *, tunnel: bool = True) -> Case:
    """Refused before a byte of it is sent."""
    return Case(data, refused=True, tunnel=tunnel)


def good(data: bytes, passes: int = 1, *refused_by: str, tunnel: bool = True) -> Case:
    """Read by everybody as we read it, except who refuses it."""
    return Case(data, passes, refused_by=frozenset(refused_by), tunnel=tunnel)


def either(passes: bool, data: bytes, requests: int = 1) -> Case:
    return good(data, requests) if passes else bad(data)


def get(*lines: bytes, line: bytes = b"GET /v1/me HTTP/1.1", host: bytes = HOST) -> bytes:
    return b"\r\n".join([line, host, *lines, b"", b""])


def post(*lines: bytes, body: bytes = b"", version: bytes = b"HTTP/1.1") -> bytes:
    return get(*lines, line=b"POST /v1/me " + version) + body


def shown(data: bytes) -> str:
    """*data* in an id: readable, whatever it holds."""
    text = "".join(chr(b) if 0x21 <= b < 0x7F else f"<{b:02x}>" for b in data[:32])
    return text + ("..." if len(data) > 32 else "")
