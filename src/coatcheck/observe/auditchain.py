"""How the lines of an audit log are bound to each other, and signed.

A line is a JSON object whose last field is ``chain``: the SHA-256, in hexadecimal, of

    the former line's chain (32 bytes), and the bytes of this line in front of its ``, "chain"``

so a line stands for all before it. It is the line as it was written that is hashed, and not what it
says: nothing has to be brought to one form first, and each byte counts. Half a line, of a full disk
or a crash, is hashed together with the next line, which tells its length in ``torn``.

A chain alone holds against nobody who can write to the file: they can make it anew. Hence *heads*,
lines of the log with a ``signature`` behind their chain: Ed25519 over `LABEL` and the chain.
The first line of each file has the name of its ``log`` and the ``former`` chain, so that
a file can be looked at without the one before it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

LABEL = b"coatcheck audit head 1\0"
HEAD = "head"  # a signature over all lines so far
RETIRED = "retired"  # an old file is about to be deleted
OWN_EVENTS = frozenset({HEAD, RETIRED})  # lines of the log about itself

_LINE = re.compile(
    rb'(\{.*), "chain": "([0-9a-f]{64})"(?:, "signature": "([0-9a-f]{128})")?\}', re.DOTALL
)


class Verifier(Protocol):
    """Knows whether a head was signed."""

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether *signature* is the key's."""


class Signer(Verifier, Protocol):
    """Holds the key that signs heads."""

    @property
    def id(self) -> str:
        """Names the key, and shows nothing of it."""

    def sign(self, message: bytes) -> bytes:
        """An Ed25519 signature, 64 bytes."""


@dataclass(frozen=True, slots=True)
class Link:
    """Where a log stands: the number of a line, and its chain."""

    sequence: int
    chain: bytes


@dataclass(frozen=True, slots=True)
class Line:
    """One line, taken apart.

    Attributes:
        body: What is hashed.
        chain: As the line has it; whether it is right is not known.
        signature: Of a head; else empty.
    """

    body: bytes
    record: Mapping[str, Any]
    sequence: int
    chain: bytes
    signature: bytes

    @property
    def link(self) -> Link:
        return Link(self.sequence, self.chain)


def start(log: str) -> bytes:
    """What the first line of *log* is bound to."""
    return sha256(b"coatcheck audit log 1\0" + log.encode()).digest()


def message(chain: bytes) -> bytes:
    """What is signed."""
    return LABEL + chain


def parse(text: bytes) -> Line | None:
    """A line without its line end; None where it is no line of a chained log."""
    found = _LINE.fullmatch(text)
    if found is None:
        return None
    try:
        record = json.loads(text)
        sequence = record["sequence"]
    except (ValueError, LookupError, RecursionError):
        return None
    if not isinstance(sequence, int) or isinstance(sequence, bool) or sequence < 1:
        return None
    body, chain, signature = found.groups()
    return Line(body, record, sequence, bytes.fromhex(chain.decode()), _bytes(signature))


def signed_head(text: bytes, log: str, verifier: Verifier) -> Line | None:
    """A head of *log*, without its line end; None where it is none, or not signed with the key."""
    line = parse(text)
    if line is None or line.record.get("event") != HEAD or line.record.get("log") != log:
        return None
    return line if verifier.verify(message(line.chain), line.signature) else None


def _bytes(text: bytes | None) -> bytes:
    return bytes.fromhex(text.decode()) if text else b""
