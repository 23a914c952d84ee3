"""The detector finds what is planted, and says nothing of clean text."""

from __future__ import annotations

import base64
import gzip
import html
import json
import quopri
import zlib
from collections.abc import Callable
from urllib.parse import quote

import brotli
import pytest
import zstandard

from tests.attacks.leaks import Detector

VALUE = b'cnry01-Zq8!w"E&rT<y>%U+i/O=p~k9'
CANARIES = {
    "main": VALUE,
    "pem": b"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\n-----END PRIVATE KEY-----\n",
    "nested": b"begin-7w {{secrets.other.key}} w7-end!",
    "overlap": b"abacabacabac",
    "utf8": "schlüssel-größe-ß".encode(),
}
DETECTOR = Detector(CANARIES)

WAYS: dict[str, Callable[[bytes], bytes]] = {
    "raw": lambda v: v,
    "upper case": bytes.upper,
    "lower case": bytes.lower,
    "reversed": lambda v: v[::-1],
    "utf-16": lambda v: v.decode().encode("utf-16"),
    "utf-16 be": lambda v: v.decode().encode("utf-16-be"),
    "percent": lambda v: quote(v, safe="").encode(),
    "percent, all": lambda v: b"".join(b"%%%02x" % b for b in v),
    "percent, mixed case": lambda v: b"".join(
        (b"%%%02x" if i % 2 else b"%%%02X") % b for i, b in enumerate(v)
    ),
    "percent twice": lambda v: quote(quote(v, safe=""), safe="").encode(),
    "json": lambda v: json.dumps(v.decode()).encode(),
    "json, all": lambda v: b"".join(b"\\u%04X" % b for b in v),
    "html": lambda v: html.escape(v.decode()).encode(),
    "html, decimal": lambda v: b"".join(b"&#%d;" % b for b in v),
    "html, hex": lambda v: b"".join(b"&#x%x;" % b for b in v),
    "base64": base64.b64encode,
    "base64, 1 before": lambda v: base64.b64encode(b"x" + v + b"yz"),
    "base64, 2 before": lambda v: base64.b64encode(b"xy" + v),
    "base64url": base64.urlsafe_b64encode,
    "base64, wrapped": lambda v: base64.encodebytes(b"p" * 40 + v),
    "base32": base64.b32encode,
    "hex": lambda v: v.hex().encode(),
    "hex, upper": lambda v: v.hex().upper().encode(),
    "hex, colons": lambda v: v.hex(":").encode(),
    "hex, escapes": lambda v: b"".join(b"\\x%02x" % b for b in v),
    "octal escapes": lambda v: b"".join(b"\\%03o" % b for b in v),
    "quoted-printable": lambda v: quopri.encodestring(v, quotetabs=True),
    "gzip": gzip.compress,
    "gzip, second member": lambda v: gzip.compress(b"x") + gzip.compress(v),
    "zlib": zlib.compress,
    "raw deflate": lambda v: zlib.compress(v, wbits=-15),
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "base64 of gzip": lambda v: base64.b64encode(gzip.compress(v)),
    "gzip of base64 of json": lambda v: gzip.compress(
        base64.b64encode(b"".join(b"\\u%04x" % b for b in v))
    ),
    "hex of base64 of percent": lambda v: (
        base64.b64encode(quote(v, safe="").encode()).hex().encode()
    ),
    "one byte a chunk": lambda v: b"".join(b"1\r\n%c\r\n" % b for b in v),
}


@pytest.mark.parametrize("way", WAYS)
def test_finds_a_planted_value(way: str) -> None:
    planted = WAYS[way](VALUE)
    around = planted if way in ("raw deflate", "br") else b"before " + planted + b" after"
    assert "main" in {leak.canary for leak in DETECTOR.find(around)}


@pytest.mark.parametrize("start", range(0, len(VALUE) - 7, 5))
def test_finds_eight_bytes_of_it(start: int) -> None:
    """A cut message, a debug print of 20 bytes, one slice of a range."""
    part = VALUE[start : start + 8]
    assert DETECTOR.find(b"x" + part + b"y")
    assert DETECTOR.find(b"head\r\n\r\n" + gzip.compress(part))


@pytest.mark.parametrize("name", CANARIES)
def test_finds_each_kind_of_value(name: str) -> None:
    assert name in {leak.canary for leak in DETECTOR.find(b"[" + CANARIES[name] + b"]")}


@pytest.mark.parametrize(
    "clean",
    [
        pytest.param(VALUE[:7] + b"|" + VALUE[7:14], id="seven bytes in a row"),
        pytest.param(b"{{secrets.other.key}} and {{secrets.main}}", id="placeholders"),
        pytest.param(b"-----BEGIN PRIVATE KEY-----\n", id="armour"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello, world", id="an answer"),
        pytest.param(bytes(range(256)) * 40, id="every byte"),
        pytest.param(gzip.compress(b"nothing here" * 99), id="coded"),
    ],
)
def test_is_silent(clean: bytes) -> None:
    assert DETECTOR.find(clean) == []
