"""Finds a secret, or any eight bytes in a row of it, in whatever spelling, in bytes of any kind.

Written apart from `coatcheck.core.spelling`, and stricter: the product masks whole values and has
to keep what only looks like one; this looks at bytes that no part of a secret has a place in.
"""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ahocorasick_rs import BytesAhoCorasick

WINDOW = 8  # bytes of the secret; a shorter part may turn up by chance


@dataclass(frozen=True)
class Leak:
    """Where and how a part of a secret was found."""

    label: str
    spelling: str
    offset: int


def _percent(text: bytes) -> bytes:
    return b"".join(b"%%%02X" % byte for byte in text)


def _hex_escapes(text: bytes) -> bytes:
    return b"".join(b"\\x%02x" % byte for byte in text)


def _json_escapes(text: bytes) -> bytes:
    return b"".join(b"\\u%04x" % byte for byte in text)


def _references(text: bytes) -> bytes:
    return b"".join(b"&#%d;" % byte for byte in text)


def _numbers(text: bytes) -> bytes:
    return b", ".join(b"%d" % byte for byte in text)


def _minimal_percent(text: bytes) -> bytes:
    from urllib.parse import quote

    return quote(text, safe="").encode()


def _minimal_json(text: bytes) -> bytes:
    import json

    return json.dumps(text.decode("latin-1"))[1:-1].encode()


def _reversed(text: bytes) -> bytes:
    return text[::-1]


# A window of the secret in, the way it is written out.
SPELLINGS: dict[str, Callable[[bytes], bytes]] = {
    "raw": lambda text: text,
    "lower case": bytes.lower,
    "upper case": bytes.upper,
    "reversed": _reversed,
    "hex": lambda text: text.hex().encode(),
    "HEX": lambda text: text.hex().upper().encode(),
    "percent, all": _percent,
    "percent, all, lower": lambda text: _percent(text).lower(),
    "percent": _minimal_percent,
    "percent, lower": lambda text: _minimal_percent(text).replace(b"%2B", b"%2b"),
    "JSON": _minimal_json,
    "JSON, all": _json_escapes,
    "JSON, all, upper": lambda text: b"".join(b"\\u%04X" % byte for byte in text),
    "backslash x": _hex_escapes,
    "references": _references,
    "numbers": _numbers,
    "UTF-16LE": lambda text: b"".join(bytes([byte, 0]) for byte in text),
    "UTF-16BE": lambda text: b"".join(bytes([0, byte]) for byte in text),
}


def _base64_windows(secret: bytes) -> Iterator[tuple[bytes, str]]:
    """Eleven characters, which hold at least eight bytes, at each of the three alignments."""
    for name, encode in (("base64", b64encode), ("base64url", urlsafe_b64encode)):
        for shift in range(3):
            whole = encode(b"\0" * shift + secret).rstrip(b"=")
            first = -(-shift * 8 // 6)  # characters that hold bits of what stands in front
            last = (shift + len(secret)) * 8 // 6
            for at in range(first, last - 11 + 1):
                yield whole[at : at + 11], name


class Detector:
    """Looks for several secrets at once."""

    def __init__(self, *secrets: bytes) -> None:
        needles: dict[bytes, str] = {}
        for secret in secrets:
            for at in range(len(secret) - WINDOW + 1):
                for name, write in SPELLINGS.items():
                    needles.setdefault(write(secret[at : at + WINDOW]), name)
            for needle, name in _base64_windows(secret):
                needles.setdefault(needle, name)
        self._needles = list(needles.items())
        self._search = BytesAhoCorasick([needle for needle, _ in self._needles])

    def find(self, label: str, data: bytes) -> list[Leak]:
        """Every part of a secret in *data*."""
        return [
            Leak(label, self._needles[index][1], start)
            for index, start, _ in self._search.find_matches_as_indexes(data, overlapping=True)
        ]
