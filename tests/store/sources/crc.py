"""CRC32C once more, bit by bit by the polynomial of RFC 3720, for the tests' server."""

from __future__ import annotations

from functools import cache

POLYNOMIAL = 0x11EDC6F41


def _reflected(number: int, bits: int) -> int:
    return int(f"{number:0{bits}b}"[::-1], 2)


@cache
def reference_crc32c(data: bytes) -> int:
    """The remainder of a long division in GF(2), with the reflections of section 12.1."""
    rest = 0xFFFFFFFF
    for byte in data:
        rest ^= _reflected(byte, 8) << 24
        for _ in range(8):
            rest <<= 1
            if rest >> 32:
                rest ^= POLYNOMIAL
    return _reflected(rest, 32) ^ 0xFFFFFFFF
