"""The files that clients trust: the public roots and our CA in one, for OpenSSL and for Java.

Most clients replace their trust store by the file they are given, and still talk to hosts past
the proxy (passthrough, NO_PROXY): so the public roots go along. The names stay the same when the
CA changes, and a file is replaced at one stroke: a child that runs for long reads the new one, and
nobody reads half of one.

The files are public and readable by anyone who can reach the folder; it is for its owner alone.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import certifi

from coatcheck.cli.childenv import JAVA_PASSWORD, TrustFiles
from coatcheck.core.ports import CoatcheckError


def prepare(ca_pem: bytes, folder: Path) -> TrustFiles:
    """Write what is not yet there, or is of another CA or other roots, into *folder*.

    Args:
        ca_pem: Our CA's certificate.
        folder: Made with mode 0700 if it is missing.

    Raises:
        CoatcheckError: the folder cannot be written.
    """
    files = TrustFiles(
        bundle=folder / "bundle.pem",
        ca=folder / "ca.pem",
        java=folder / "bundle.p12",
        wgetrc=folder / "wgetrc",
        php=folder / "coatcheck.ini",
    )
    roots = Path(certifi.where()).read_bytes()
    bundle = roots.rstrip(b"\n") + b"\n\n# coatcheck\n" + ca_pem
    try:
        beside = (files.java, files.ca, files.wgetrc, files.php)
        if all(path.exists() for path in beside) and _holds(files.bundle, bundle):
            return files
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(files.ca, ca_pem)
        _replace(files.wgetrc, b"ca_certificate = " + os.fsencode(files.bundle) + b"\n")
        _replace(files.php, php_settings(files.bundle))
        _replace(files.java, java_store(bundle))
        _replace(files.bundle, bundle)  # last: it is the sign that all are new
    except OSError as error:
        raise CoatcheckError(
            f"cannot write {folder}: {error.strerror}",
            hint="run as a user who may write there, or free some room",
        ) from error
    return files


def cache_folder(ca_pem: bytes, environ: Mapping[str, str]) -> Path:
    """Where the files go for a user without a home of coatcheck: one folder for each CA."""
    # The XDG base directory specification: a relative path is to be ignored.
    base = Path(environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        base = Path.home() / ".cache"
    return base / "coatcheck" / hashlib.sha256(ca_pem).hexdigest()[:16]


def java_store(bundle: bytes) -> bytes:
    """A PKCS #12 trust store as keytool would write it, of the certificates in *bundle* (PEM)."""
    # Imported here: `run` needs it once, and it takes longer than all the rest.
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12
    from cryptography.utils import CryptographyDeprecationWarning

    with warnings.catch_warnings():
        # One public root has the serial number 0; that is not news for whoever runs a command.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        certificates = x509.load_pem_x509_certificates(bundle)
    entries = [
        pkcs12.PKCS12Certificate(certificate, f"root-{number:03}".encode())
        for number, certificate in enumerate(certificates)
    ]
    return pkcs12.serialize_java_truststore(
        entries, BestAvailableEncryption(JAVA_PASSWORD.encode())
    )


def php_settings(bundle: Path) -> bytes:
    """A file for PHP's scan directory: what curl and what streams trust."""
    path = os.fsencode(bundle)
    # Single quotes take all but themselves as it is, and PHP joins what stands side by side.
    quoted = b"'" + path.replace(b"'", b"'\"'\"'") + b"'"
    return b"curl.cainfo = " + quoted + b"\nopenssl.cafile = " + quoted + b"\n"


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False


def _replace(path: Path, content: bytes) -> None:
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o644)  # a child that changed its user reads it too
            file.write(content)
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
