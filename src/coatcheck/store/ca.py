"""The certificate authority that clients of the proxy trust.

It signs a certificate for each host that is intercepted. The key is EC P-256: every client
knows it, and signing a leaf is cheap. Verifiers of today are strict (RFC 5280 section 4.2, and
Python >= 3.13 with ``VERIFY_X509_STRICT``): they want critical basicConstraints and keyUsage, and
a subjectKeyIdentifier.
"""

from __future__ import annotations

import datetime
import secrets

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from coatcheck.core.ports import StoreError

LIFETIME = datetime.timedelta(days=5 * 365)
CLOCK_SKEW = datetime.timedelta(days=1)  # a client whose clock is behind must not refuse it


def make(now: datetime.datetime) -> tuple[bytes, bytes]:
    """A new authority: (key in PKCS #8, certificate), both PEM.

    The subject ends in random characters: two authorities of the same name, one of them
    replaced, are told apart by people and by trust stores that index by name.

    Args:
        now: Aware; the certificate is valid from a day earlier, for five years.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    suffix = secrets.token_hex(4)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, f"coatcheck CA {suffix}"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "coatcheck"),
        ]
    )
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return key_pem, certificate.public_bytes(serialization.Encoding.PEM)


def certificate_of(pem: bytes, source: str) -> bytes:
    """The certificates alone of *pem*, which holds an authority's key too.

    Raises:
        StoreError: it holds no such pair; *source* is the file, for messages.
    """
    wrong = StoreError(
        f"{source} does not hold the key and the certificate of an authority; nothing was changed",
        hint="copy ca/mitmproxy-ca.pem from the home where `coatcheck init` was run first",
    )
    try:
        key = serialization.load_pem_private_key(pem, None)
        found = x509.load_pem_x509_certificates(pem)
        constraints = found[0].extensions.get_extension_for_class(x509.BasicConstraints)
    except (ValueError, TypeError, x509.ExtensionNotFound):
        raise wrong from None
    if found[0].public_key() != key.public_key() or not constraints.value.ca:
        raise wrong
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in found)
