"""Values are sealed to a public key: who can write a secret need not be able to read one.

HPKE in base mode (RFC 9180, section 6.1) with the hybrid ML-KEM-768 + X25519: whoever records a
database today must break both to read it later. Each record has an ephemeral key of its own, so
there is no counter and no nonce that a restored backup or a forked process could use twice.

A record is ``suite (4 ASCII) | key id (8 bytes) | HPKE encapsulation and ciphertext``. The suite
stands in front so that it can change; what is in front is part of the HPKE ``info``, so it cannot
be changed afterwards. So is the `binding`: store, secret, version, allowed domains. Hence a
value that is copied to another secret, or whose domains were edited in the database, does not
open: changing allowed domains needs the value again.

HPKE does not say who sealed: whoever has the public key and can write to the database can put in
a value of their own. They cannot read one, nor send a foreign one elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from coatcheck.core.destination import DomainPattern
from coatcheck.core.ports import CoatcheckError, StoreError

SUITE = "ccs1"
SUITE_TEXT = "HPKE base, ML-KEM-768 + X25519, HKDF-SHA256, AES-256-GCM"
_HPKE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)

KEY_ID_SIZE = 8  # bytes; tells keys apart, and is no defence
_PREFIX_SIZE = len(SUITE) + KEY_ID_SIZE
_SEED_SIZE = 64  # bytes; FIPS 203, section 7.1: d and z
_MLKEM_PUBLIC_SIZE = 1184  # bytes; FIPS 203, table 3
_X25519_SIZE = 32  # bytes

_PRIVATE_LABEL = "COATCHECK SEALING PRIVATE KEY"
_PUBLIC_LABEL = "COATCHECK SEALING PUBLIC KEY"


class PublicKey:
    """Seals. ``id`` is 16 hex digits, from the key itself."""

    __slots__ = ("_key", "_raw", "id")

    def __init__(self, raw: bytes) -> None:
        """*raw*: the ML-KEM-768 encapsulation key, then the X25519 public key (1216 bytes).

        Raises:
            ValueError: wrong length, or no such key.
        """
        if len(raw) != _MLKEM_PUBLIC_SIZE + _X25519_SIZE:
            raise ValueError("wrong length")
        self._raw = bytes(raw)
        self._key = hpke.MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC_SIZE]),
            X25519PublicKey.from_public_bytes(raw[_MLKEM_PUBLIC_SIZE:]),
        )
        self.id = hashlib.sha256(SUITE.encode() + raw).digest()[:KEY_ID_SIZE].hex()

    @classmethod
    def from_bytes(cls, text: bytes, source: str) -> PublicKey:
        """Read what `to_bytes` wrote; *source* is the file, for messages.

        Raises:
            StoreError: not a public sealing key, or of an unknown suite.
        """
        raw, key_id = _read_key(text, _PUBLIC_LABEL, source)
        try:
            key = cls(raw)
        except ValueError:
            raise _damaged_key(source) from None
        return _checked(key, key_id, source)

    def to_bytes(self) -> bytes:
        return _write_key(_PUBLIC_LABEL, self.id, self._raw)

    def __repr__(self) -> str:
        return f"<sealing public key {self.id}>"


class PrivateKey:
    """Opens. Shows its id alone, and is not pickled."""

    __slots__ = ("_key", "_raw", "public")

    def __init__(self, raw: bytes) -> None:
        """*raw*: the ML-KEM-768 seed (FIPS 203: d, z), then the X25519 private key (96 bytes).

        Raises:
            ValueError: wrong length.
        """
        if len(raw) != _SEED_SIZE + _X25519_SIZE:
            raise ValueError("wrong length")
        self._raw = bytes(raw)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(raw[:_SEED_SIZE])
        x25519 = X25519PrivateKey.from_private_bytes(raw[_SEED_SIZE:])
        self._key = hpke.MLKEM768X25519PrivateKey(mlkem, x25519)
        self.public = PublicKey(
            mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        )

    @property
    def id(self) -> str:
        return self.public.id

    @classmethod
    def from_bytes(cls, text: bytes, source: str) -> PrivateKey:
        """Read what `to_bytes` wrote; *source* is the file, for messages.

        Raises:
            StoreError: not a private sealing key, or of an unknown suite.
        """
        raw, key_id = _read_key(text, _PRIVATE_LABEL, source)
        try:
            key = cls(raw)
        except ValueError:
            raise _damaged_key(source) from None
        return _checked(key, key_id, source)

    def to_bytes(self) -> bytes:
        return _write_key(_PRIVATE_LABEL, self.id, self._raw)

    def __repr__(self) -> str:
        return f"<sealing private key {self.id}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} is not copied or pickled: read its file again")


class KeyRing:
    """The private keys of a home: one, or two while records are sealed anew for the next one.

    A record for a key that is not among them makes it look again (at most once a second) where it
    may: a process that serves while the key is rotated needs no restart.
    """

    def __init__(
        self,
        keys: Iterable[PrivateKey],
        again: Callable[[], Iterable[PrivateKey]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """*again*: reads the keys anew. What it raises is a `CoatcheckError`."""
        self._keys = {key.id: key for key in keys}
        self._first = next(iter(self._keys.values()))
        self._again = again
        self._clock = clock
        self._looked = -math.inf

    @property
    def id(self) -> str:
        """Of the first key."""
        return self._first.id

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._keys)

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._keys

    def for_record(self, record: bytes) -> PrivateKey:
        """The key that *record* is sealed for; any one where there is none."""
        key_id = key_id_of(record)
        if key_id and key_id not in self._keys and self._again is not None:
            now = self._clock()
            if now - self._looked >= 1.0:
                self._looked = now
                with suppress(CoatcheckError):  # the record then says which key it is for
                    # None goes away: records that were read before may be for it.
                    self._keys = {**self._keys, **{key.id: key for key in self._again()}}
        return self._keys.get(key_id, self._first)

    def __repr__(self) -> str:
        return f"<sealing private keys {', '.join(self._keys)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} is not copied or pickled: read its file again")


def generate_key() -> PrivateKey:
    """A new key, from the operating system's randomness."""
    seed = MLKEM768PrivateKey.generate().private_bytes_raw()
    return PrivateKey(seed + X25519PrivateKey.generate().private_bytes_raw())


def seal(public: PublicKey, info: bytes, value: bytes) -> bytes:
    """The sealed record of *value*; the same value gives another record each time."""
    prefix = SUITE.encode() + bytes.fromhex(public.id)
    return prefix + _HPKE.encrypt(value, public._key, info=prefix + info)


def key_id_of(record: bytes) -> str:
    """The id of the key that *record* says it is sealed for; empty where it is no record."""
    whole = len(record) > _PREFIX_SIZE and record.startswith(SUITE.encode())
    return record[len(SUITE) : _PREFIX_SIZE].hex() if whole else ""


def unseal(private: PrivateKey, info: bytes, record: bytes) -> bytes:
    """The value of *record*, if it was sealed to this key with this *info*.

    Raises:
        StoreError: unknown suite, another key, cut off, changed, or another *info*. It names no
            secret, since a record does not know its own: the caller adds that.
    """
    suite = record[: len(SUITE)]
    if len(record) > len(SUITE) and suite != SUITE.encode() and _is_suite(suite):
        raise StoreError(
            f"the record is sealed with suite {suite.decode()!r}, this program knows {SUITE!r}",
            hint="upgrade coatcheck to the version that wrote it",
        )
    if len(record) <= _PREFIX_SIZE or suite != SUITE.encode():
        raise StoreError("the record is damaged", hint=_REWRITE)
    prefix = record[:_PREFIX_SIZE]
    sealed_for = prefix[len(SUITE) :].hex()
    if sealed_for != private.id:
        raise StoreError(
            f"the record is sealed for key {sealed_for}, sealing.key is {private.id}",
            hint=f"put back the sealing.key that belongs to this store, or {_REWRITE}",
        )
    try:
        return bytes(_HPKE.decrypt(record[_PREFIX_SIZE:], private._key, info=prefix + info))
    except (InvalidTag, ValueError):
        raise StoreError(
            "the record was damaged or moved, or its domains were changed without the value",
            hint=_REWRITE,
        ) from None


def binding(store_id: str, secret_id: str, version: int, domains: Iterable[DomainPattern]) -> bytes:
    """What a record is bound to, as bytes that no other facts give.

    Each field goes with its length in front, so no two lists of fields read the same; domains in
    the order of their canonical text, so that their order in the store does not matter.
    """
    names = sorted({str(domain) for domain in domains})
    fields = ["coatcheck secret", store_id, secret_id, str(version), str(len(names)), *names]
    return b"".join(len(raw).to_bytes(4) + raw for raw in (text.encode() for text in fields))


_REWRITE = "set the secret again: coatcheck secret set NAME --domain ..."


def _is_suite(text: bytes) -> bool:
    return text.startswith(b"ccs") and text[3:].isalnum()


def _write_key(label: str, key_id: str, raw: bytes) -> bytes:
    body = base64.b64encode(raw).decode()
    lines = [body[i : i + 64] for i in range(0, len(body), 64)]
    head = [f"-----BEGIN {label}-----", f"Suite: {SUITE}", f"Key-Id: {key_id}", ""]
    return "\n".join([*head, *lines, f"-----END {label}-----", ""]).encode()


def _read_key(text: bytes, label: str, source: str) -> tuple[bytes, str]:
    """(raw key, key id) of a key file."""
    try:
        lines = text.decode("ascii").split("\n")
        begin, suite, key_id, blank, *body, end, last = (line.rstrip("\r") for line in lines)
    except ValueError:
        raise _no_key(label, source) from None
    if begin != f"-----BEGIN {label}-----" or end != f"-----END {label}-----" or blank or last:
        raise _no_key(label, source)
    if suite != f"Suite: {SUITE}":
        raise StoreError(
            f"{source} is a key of another suite than {SUITE} ({SUITE_TEXT})",
            hint="upgrade coatcheck to the version that wrote it",
        )
    try:
        return base64.b64decode("".join(body), validate=True), key_id.removeprefix("Key-Id: ")
    except binascii.Error:
        raise _damaged_key(source) from None


def _checked[Key: (PublicKey, PrivateKey)](key: Key, key_id: str, source: str) -> Key:
    # A flipped bit gives another valid key: secrets sealed to it would be lost for good.
    if key.id != key_id:
        raise _damaged_key(source)
    return key


def _no_key(label: str, source: str) -> StoreError:
    return StoreError(
        f"{source} is no {label.lower()}", hint="restore it from a backup of the same home"
    )


def _damaged_key(source: str) -> StoreError:
    return StoreError(f"{source} is damaged", hint="restore it from a backup of the same home")
