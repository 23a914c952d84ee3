"""Certificates that no client should accept, and a few that it should."""

from __future__ import annotations

import datetime
import ssl
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)

type Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Wanted:
    """A leaf. *host* is replaced in names by the name of the site."""

    names: Sequence[str] = ("host",)
    common_name: str = ""
    begins: datetime.datetime = NOW - DAY
    ends: datetime.datetime = NOW + DAY
    usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.SERVER_AUTH
    key: Callable[[], Key] = lambda: ec.generate_private_key(ec.SECP256R1())
    ca: str = "ours"  # or "other", "itself", "leaf"
    organisation: str = ""
    must_staple: bool = False
    signed_with: type[hashes.HashAlgorithm] = hashes.SHA256


class Maker:
    """Signs what is wanted with the test's own authority, or with none."""

    def __init__(self, authority: trustme.CA) -> None:
        self._cert, self._key = _load(authority)
        self._other = _load(trustme.CA())
        # A leaf of ours that signs on: it is no authority.
        leaf = Wanted(names=("intermediate.test",))
        leaf_key = leaf.key()
        self._leaf = (self._build(leaf, leaf_key, "x", (self._cert, self._key)), leaf_key)

    def make(self, wanted: Wanted, host: str, folder: Path) -> Path:
        """A PEM file with key and chain for *host*."""
        key = wanted.key()
        signers = {"ours": (self._cert, self._key), "other": self._other, "leaf": self._leaf}
        cert = self._build(wanted, key, host, signers.get(wanted.ca))
        chain = [cert, *([self._leaf[0]] if wanted.ca == "leaf" else [])]
        path = folder / f"{host}.pem"
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path.write_bytes(pem + b"".join(c.public_bytes(serialization.Encoding.PEM) for c in chain))
        return path

    def _build(
        self, wanted: Wanted, key: Key, host: str, signer: tuple[x509.Certificate, Key] | None
    ) -> x509.Certificate:
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, wanted.organisation or "Test")]
        if wanted.common_name:
            name = wanted.common_name.replace("host", host)
            subject.append(x509.NameAttribute(NameOID.COMMON_NAME, name))
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(signer[0].subject if signer else x509.Name(subject))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(wanted.begins)
            .not_valid_after(wanted.ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        if wanted.names:
            names = [x509.DNSName(name.replace("host", host)) for name in wanted.names]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if wanted.usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage([wanted.usage]), critical=False)
        if wanted.must_staple:
            staple = x509.TLSFeature([x509.TLSFeatureType.status_request])
            builder = builder.add_extension(staple, critical=False)
            crl = x509.UniformResourceIdentifier("http://revoked.tls.test/list.crl")
            point = x509.DistributionPoint([crl], None, None, None)
            builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
        return builder.sign(signer[1] if signer else key, wanted.signed_with())


def server_context(path: Path, **versions: ssl.TLSVersion) -> ssl.SSLContext:
    """For a server that uses *path*; as weak as OpenSSL lets it be."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that is what is wanted here
        for name, version in versions.items():
            setattr(context, name, version)
    return context


def _load(authority: trustme.CA) -> tuple[x509.Certificate, Key]:
    cert = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    key = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        raise TypeError("trustme makes RSA and EC keys")
    return cert, key
