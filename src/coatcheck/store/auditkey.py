"""The key that signs the audit log: Ed25519 (RFC 8032), as PEM files in home.

``audit.key`` signs, and lies apart from the log, which may be shipped elsewhere; ``audit.pub`` is
all that it takes to verify. A key that is gone is not made anew: what it has signed could not be
told from what somebody has forged.
"""

from __future__ import annotations

import os
import secrets
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from coatcheck.store import files
from coatcheck.store.files import HomeError


class AuditPublicKey:
    """Verifies heads."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.id = sha256(b"coatcheck audit key 1\0" + raw).hexdigest()[:16]

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether *signature* is this key's, of *message*."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def to_bytes(self) -> bytes:
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def __repr__(self) -> str:
        return f"<audit key {self.id}>"


class AuditKey(AuditPublicKey):
    """Signs heads. It shows nothing of the private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        super().__init__(key.public_key())
        self._private = key

    def sign(self, message: bytes) -> bytes:
        return self._private.sign(message)


def generate() -> tuple[bytes, bytes]:
    """A new key: what the two files hold."""
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return text, AuditKey(key).to_bytes()


def _create(private: Path, public: Path) -> None:
    text, public_text = generate()
    # Whole from the moment it is there: several workers may start at once.
    draft = private.with_name(f".{private.name}.{secrets.token_hex(4)}")
    files.create_file(draft, text)
    try:
        private.hardlink_to(draft)
    except OSError as error:
        raise files.cannot("create", private, error) from error
    finally:
        draft.unlink()
    files.create_file(public, public_text)


def signing(private: Path, public: Path) -> AuditKey:
    """The key that signs; made where a home has none yet.

    Raises:
        HomeError: it is missing beside its public half, damaged, or open to others; or it cannot
            be made.
    """
    if not (os.path.lexists(private) or os.path.lexists(public)):
        try:
            _create(private, public)
        except HomeError:
            if not private.exists():  # else another process was first
                raise
    if not os.path.lexists(private):
        raise HomeError(
            f"there is no {private}, and {public} says that there was one",
            hint="restore it from a backup; if it is lost, move audit.pub away together with the"
            " audit log, and a new key is made",
        )
    key = _private(private)
    if not os.path.lexists(public):  # made by a process that was cut off
        try:
            files.create_file(public, key.to_bytes())
        except HomeError:
            if not public.exists():
                raise
    return key


def verifying(public: Path) -> AuditPublicKey:
    """The key that verifies.

    Raises:
        HomeError: it cannot be read, or is no such key.
    """
    text = files.read_file(public, forbidden=files.OTHERS_WRITE)
    try:
        key = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise HomeError(
            f"{public} holds no public key of an audit log",
            hint="name the file audit.pub of the home that wrote the log: --key FILE",
        )
    return AuditPublicKey(key)


def _private(path: Path) -> AuditKey:
    text = files.read_file(path)
    try:
        key = load_pem_private_key(text, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise HomeError(
            f"{path} is damaged: it holds no key of an audit log",
            hint="restore it from a backup of the same home",
        )
    return AuditKey(key)
