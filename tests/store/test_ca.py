"""The certificate authority: one that strict verifiers take, and that signs hosts alone."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from coatcheck.store import ca

NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture(scope="module")
def authority() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key_pem, certificate_pem = ca.make(NOW)
    key = serialization.load_pem_private_key(key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key, x509.load_pem_x509_certificate(certificate_pem)


def test_it_says_what_rfc_5280_asks_of_an_authority(
    authority: tuple[ec.EllipticCurvePrivateKey, x509.Certificate],
) -> None:
    """Section 4.2.1: critical basicConstraints and keyUsage, subjectKeyIdentifier."""
    key, certificate = authority
    extensions = certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    identifier = extensions.get_extension_for_class(x509.SubjectKeyIdentifier)

    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.crl_sign) == (True, True)
    assert not usage.value.digital_signature
    assert identifier.value == x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    assert certificate.public_key() == key.public_key()
    assert isinstance(key.curve, ec.SECP256R1)


def test_it_is_valid_for_five_years_from_yesterday(
    authority: tuple[ec.EllipticCurvePrivateKey, x509.Certificate],
) -> None:
    _, certificate = authority

    assert certificate.not_valid_before_utc < NOW - datetime.timedelta(hours=23)
    assert (certificate.not_valid_after_utc - NOW).days in (1824, 1825)


def test_two_authorities_have_different_names() -> None:
    names = {
        x509.load_pem_x509_certificate(ca.make(NOW)[1]).subject.rfc4514_string() for _ in range(5)
    }

    assert len(names) == 5
    assert all("CN=coatcheck CA " in name for name in names)


def test_a_strict_client_trusts_what_it_signs(
    authority: tuple[ec.EllipticCurvePrivateKey, x509.Certificate], tmp_path: Path
) -> None:
    """A real handshake; Python >= 3.13 is strict by default, older ones are told to be."""
    key, certificate = authority
    root, leaf = tmp_path / "root.pem", tmp_path / "leaf.pem"
    root.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    leaf.write_bytes(signed(key, certificate, "api.test"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(leaf)
    client = ssl.create_default_context(cafile=str(root))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    near, far = socket.socketpair()

    def serve() -> None:
        with server.wrap_socket(far, server_side=True) as secure:
            secure.sendall(secure.recv(5))

    thread = threading.Thread(target=serve)
    thread.start()
    with client.wrap_socket(near, server_hostname="api.test") as secure:
        secure.sendall(b"hello")
        assert secure.recv(5) == b"hello"
    thread.join()


def signed(key: ec.EllipticCurvePrivateKey, issuer: x509.Certificate, host: str) -> bytes:
    """Key and certificate of *host*, PEM."""
    own = ec.generate_private_key(ec.SECP256R1())
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(hours=1))
        .not_valid_after(NOW + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return own.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + certificate.public_bytes(serialization.Encoding.PEM)
