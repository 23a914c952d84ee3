"""Where the private sealing key comes from, and how it lies in a file.

It is ``sealing.key`` in home, unless the process is handed it: by a descriptor, by a credential of
systemd, or by the environment (the weakest: whoever is the same user can read it there). The file
holds one key, or two while a rotation is under way, and may be sealed under a passphrase:
AES-256-GCM with a key by Argon2id (RFC 9106). The costs stand in the file, are part of what is
authenticated, and have a floor, so nobody makes a guess cheaper by changing them.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from coatcheck.core.ports import StoreError
from coatcheck.store import files
from coatcheck.store.sealing import PrivateKey

KEY = "COATCHECK_SEALING_KEY"
PASSPHRASE = "COATCHECK_SEALING_PASSPHRASE"  # noqa: S105
CREDENTIALS = {KEY: "coatcheck.sealing-key", PASSPHRASE: "coatcheck.sealing-passphrase"}

MEMORY_KIB, PASSES, LANES = 65536, 3, 4  # RFC 9106, section 4: the second recommended choice
LEAST_MEMORY_KIB, LEAST_PASSES = 19456, 2
MOST_MEMORY_KIB, MOST_PASSES, MOST_LANES = (
    1 << 20,
    16,
    16,
)  # a changed file must not eat the machine
LEAST_PASSPHRASE = 12  # characters

_BEGIN = b"-----BEGIN COATCHECK ENCRYPTED SEALING KEY-----"
_END = b"-----END COATCHECK ENCRYPTED SEALING KEY-----"
_END_OF_KEY = b"-----END COATCHECK SEALING PRIVATE KEY-----\n"
_KDF = re.compile(r"Kdf: argon2id m=(\d{1,8}) t=(\d{1,3}) p=(\d{1,3})")
_LIMIT = 1 << 16  # bytes of what is handed over


@dataclass(frozen=True, slots=True, repr=False)
class KeyFile:
    """What was read: one key, or two during a rotation, the older one first.

    Attributes:
        source: For messages.
        path: The file; None where the key was handed over, so that nobody writes it anywhere.
        passphrase: What opened it; None where it was not sealed.
    """

    keys: tuple[PrivateKey, ...]
    source: str
    path: Path | None
    passphrase: bytes | None


def read(path: Path, environ: Mapping[str, str] = os.environ) -> KeyFile:
    """The private key: one that was handed over, else that of the file *path*.

    Raises:
        HomeError: the file, or a credential, is missing, or open to others.
        StoreError: no key, a damaged one, a wrong passphrase or none.
    """
    given = _handed_over(KEY, environ)
    source = str(path) if given is None else "the sealing key that was handed over"
    text = files.read_file(path) if given is None else given
    passphrase = None
    if text.startswith(_BEGIN):
        passphrase = _handed_over(PASSPHRASE, environ)
        if passphrase is None:
            raise StoreError(
                f"{source} is sealed under a passphrase",
                hint=f"hand it over: {PASSPHRASE}_FD, the systemd credential"
                f" {CREDENTIALS[PASSPHRASE]}, or {PASSPHRASE}",
            )
        passphrase = passphrase.rstrip(b"\r\n")
        text = unwrap(text, passphrase, source)
    keys = _keys(text, source)
    return KeyFile(keys, source, path if given is None else None, passphrase)


def is_there(path: Path, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `read` would find a key: a pipe can be read once, so nothing is read here."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    handed_over = environ.get(f"{KEY}_FD") or environ.get(KEY)
    return bool(handed_over or (folder and Path(folder, CREDENTIALS[KEY]).exists())) or (
        path.exists()
    )


def ids(text: bytes, source: str) -> tuple[str, ...] | None:
    """The ids of the keys in *text*, a key file; None where a passphrase hides them.

    Raises:
        StoreError: it is no key.
    """
    if text.startswith(_BEGIN):
        return None
    return tuple(key.public.id for key in _keys(text, source))


def write(file: KeyFile, keys: tuple[PrivateKey, ...], passphrase: bytes | None) -> None:
    """Put *keys* into the file, in one step: after a crash it holds the old ones or these.

    Raises:
        HomeError: it cannot be written.
        StoreError: the key was handed over, so there is no file.
    """
    if file.path is None:
        raise StoreError(
            "the sealing key was handed over by the environment, and is not changed there",
            hint="run this where the key lies in sealing.key, then hand over the new file",
        )
    text = b"".join(key.to_bytes() for key in keys)
    files.replace_file(file.path, text if passphrase is None else wrap(text, passphrase))


def wrap(text: bytes, passphrase: bytes) -> bytes:
    """*text* sealed under *passphrase*."""
    salt = os.urandom(16)
    head = [
        _BEGIN,
        f"Kdf: argon2id m={MEMORY_KIB} t={PASSES} p={LANES}".encode(),
        b"Salt: " + base64.b64encode(salt),
        b"",
    ]
    key = _derive(passphrase, salt, MEMORY_KIB, PASSES, LANES)
    # A fresh salt is a fresh key, so one constant nonce is used once.
    sealed = base64.b64encode(AESGCM(key).encrypt(bytes(12), text, b"\n".join(head)))
    lines = [sealed[i : i + 64] for i in range(0, len(sealed), 64)]
    return b"\n".join([*head, *lines, _END, b""])


def unwrap(text: bytes, passphrase: bytes, source: str) -> bytes:
    """What `wrap` was given.

    Raises:
        StoreError: a wrong passphrase, a changed file, or costs out of bounds.
    """
    damaged = StoreError(f"{source} is damaged", hint="restore it from a backup of the same home")
    begin, kdf, salt, blank, *body = text.split(b"\n")[:-1] + [b""] * 4
    body = [line for line in body if line]
    costs = _KDF.fullmatch(kdf.decode("ascii", "replace"))
    if begin != _BEGIN or blank or not body or body.pop() != _END or costs is None:
        raise damaged
    memory, passes, lanes = (int(text) for text in costs.groups())
    if not (
        LEAST_MEMORY_KIB <= memory <= MOST_MEMORY_KIB
        and LEAST_PASSES <= passes <= MOST_PASSES
        and 1 <= lanes <= MOST_LANES
    ):
        raise StoreError(
            f"{source} asks for costs out of bounds: it was changed",
            hint="restore it from a backup of the same home",
        )
    try:
        raw_salt = base64.b64decode(salt.removeprefix(b"Salt: "), validate=True)
        sealed = base64.b64decode(b"".join(body), validate=True)
    except binascii.Error:
        raise damaged from None
    if len(raw_salt) != 16:
        raise damaged
    key = _derive(passphrase, raw_salt, memory, passes, lanes)
    try:
        return AESGCM(key).decrypt(bytes(12), sealed, b"\n".join([begin, kdf, salt, blank]))
    except InvalidTag:
        raise StoreError(
            f"the passphrase does not open {source}, or the file was changed",
            hint="give the passphrase that it was sealed under, or restore the file from a backup",
        ) from None


def checked_passphrase(text: bytes) -> bytes:
    """*text* without its line end.

    Raises:
        StoreError: too short to hold against somebody who has the file and time.
    """
    passphrase = text.rstrip(b"\r\n")
    if len(passphrase.decode("utf-8", "replace")) < LEAST_PASSPHRASE:
        raise StoreError(
            f"the passphrase is shorter than {LEAST_PASSPHRASE} characters; nothing was changed",
            hint="use five words, or something out of a password manager",
        )
    return passphrase


def _handed_over(name: str, environ: Mapping[str, str]) -> bytes | None:
    if number := environ.get(f"{name}_FD"):
        return _read_descriptor(f"{name}_FD", number)
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if folder and (path := Path(folder, CREDENTIALS[name])).exists():
        try:
            return path.read_bytes()[:_LIMIT]
        except OSError as error:
            raise files.cannot("read", path, error) from error
    text = environ.get(name)
    return text.encode("utf-8", "surrogateescape") if text else None


def _read_descriptor(name: str, number: str) -> bytes:
    """From its beginning where it has one, so that it can be read again; a pipe to its end."""
    wrong = StoreError(
        f"{name} names no descriptor that can be read",
        hint="for example: COATCHECK_SEALING_KEY_FD=3 coatcheck serve 3< FILE",
    )
    if not number.isascii() or not number.isdigit():
        raise wrong
    descriptor = int(number)
    try:
        return os.pread(descriptor, _LIMIT, 0)
    except OSError:
        pass  # no file
    parts = []
    try:
        while part := os.read(descriptor, _LIMIT):
            parts.append(part)
            if sum(map(len, parts)) > _LIMIT:
                raise wrong
    except OSError:
        raise wrong from None
    return b"".join(parts)


def _keys(text: bytes, source: str) -> tuple[PrivateKey, ...]:
    parts = text.split(_END_OF_KEY)
    blocks = [part + _END_OF_KEY for part in parts[:-1]]
    if parts[-1] or not 1 <= len(blocks) <= 2:
        return (PrivateKey.from_bytes(text, source),)  # one key, or it says what is wrong
    return tuple(PrivateKey.from_bytes(block, source) for block in blocks)


def _derive(passphrase: bytes, salt: bytes, memory: int, passes: int, lanes: int) -> bytes:
    return Argon2id(
        salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory
    ).derive(passphrase)
