"""TLS on both sides: certificates for clients from our CA, verification of upstreams.

Towards clients mitmproxy's certificate store makes the leaf, for the host of the CONNECT and for
nothing else: neither the client's SNI nor an upstream's certificate has a say. Towards upstreams
the standard library's `ssl` verifies chain and name before a byte of HTTP is written, against
certifi and the operator's own file, never against the operating system's bundle.
"""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path

import certifi
from cryptography import x509
from mitmproxy import certs
from mitmproxy import tls as mtls
from mitmproxy.net import tls as net_tls
from OpenSSL import SSL

from coatcheck.core.ports import CoatcheckError

CA_BASENAME = "mitmproxy"  # the names of the files in the CA folder are mitmproxy's own
MAX_CERTIFICATES = 4096  # kept; a client can name any number of hosts
CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305",
)
HTTP1 = b"http/1.1"


type Authority = certs.CertStore


class TlsError(CoatcheckError):
    """A certificate file cannot be used."""


def load_authority(folder: Path) -> Authority:
    """Our CA as mitmproxy's certificate store. Nothing is written: the folder may be read-only.

    mitmproxy's own reader would make a new CA where it finds none, one that no client trusts.

    Raises:
        TlsError: the file is missing, or does not hold a CA and its key.
    """
    file = folder / f"{CA_BASENAME}-ca.pem"
    if not file.is_file():
        raise TlsError(
            f"the CA file {file} is missing",
            hint="restore it from a backup; for a new home run: coatcheck init",
        )
    certs.CertStore.STORE_CAP = MAX_CERTIFICATES
    try:
        return _read_authority(file)
    except (ValueError, TypeError, OSError, x509.ExtensionNotFound) as error:
        raise TlsError(
            f"the CA file {file} cannot be used ({type(error).__name__})",
            hint="it holds the key and the certificate in PEM; restore it from a backup",
        ) from None


def _read_authority(file: Path) -> Authority:
    raw = file.read_bytes()
    key = certs.load_pem_private_key(raw, None)
    found = x509.load_pem_x509_certificates(raw)
    if not found or found[0].public_key() != key.public_key():
        raise ValueError("the key is not that of the first certificate")
    constraints = found[0].extensions.get_extension_for_class(x509.BasicConstraints)
    if not constraints.value.ca:
        raise ValueError("the certificate is no authority's")
    chain = file if len(found) > 1 else None
    # No CRL is served, and no cipher here uses DH parameters.
    return certs.CertStore(key, certs.Cert(found[0]), chain, b"", None)  # type: ignore[arg-type]


class ClientTls:
    """Answers mitmproxy's question for a TLS connection towards a client."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority

    def start(self, data: mtls.TlsData) -> None:
        """Give *data* a connection with a certificate for the host of the CONNECT."""
        address = data.context.server.address
        if address is None:
            return  # no connection is given, and mitmproxy closes: there was no CONNECT
        name = _general_name(address[0])
        entry = self._authority.get_cert(str(name.value), [name])
        ctx = net_tls.create_client_proxy_context(
            method=net_tls.Method.TLS_SERVER_METHOD,
            min_version=net_tls.Version.TLS1_2,
            max_version=net_tls.Version.UNBOUNDED,
            cipher_list=CIPHERS,
            ecdh_curve=None,
            chain_file=entry.chain_file,
            alpn_select_callback=_select_alpn,
            request_client_cert=False,
            extra_chain_certs=(),
            dhparams=self._authority.dhparams,
        )
        connection = SSL.Connection(ctx)
        connection.use_certificate(entry.cert.to_cryptography())
        connection.use_privatekey(entry.privatekey)
        connection.set_accept_state()
        data.ssl_conn = connection


def upstream_context(extra: Path | None) -> ssl.SSLContext:
    """The context that verifies upstreams: certifi, and the PEM file *extra*.

    Raises:
        TlsError: *extra* cannot be read or holds no certificate.
    """
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks chain and host name
    ctx.minimum_version = ssl.TLSVersion.TLSv1_2
    ctx.hostname_checks_common_name = False  # RFC 9110, section 4.3.4: never a CN
    ctx.load_verify_locations(certifi.where())
    if extra is not None:
        try:
            ctx.load_verify_locations(extra)
        except (OSError, ssl.SSLError) as error:
            raise TlsError(
                f"upstream_ca {extra} cannot be used ({type(error).__name__})",
                hint="name a readable PEM file with at least one certificate",
            ) from None
    # SSLKEYLOGFILE of the environment would write the keys of every connection to a file.
    ctx.keylog_filename = None  # type: ignore[assignment]
    ctx.set_alpn_protocols([HTTP1.decode()])
    return ctx


def write_trusted(extra: Path | None, folder: Path) -> Path:
    """What `upstream_context` trusts as one file, for a mitmproxy that wants a path.

    Raises:
        TlsError: *extra* cannot be used, or *folder* cannot be written.
    """
    upstream_context(extra)  # complains about what holds no certificate
    target = folder / "upstream-ca.pem"
    try:
        roots = Path(certifi.where()).read_bytes()
        target.write_bytes(roots + (b"\n" + extra.read_bytes() if extra is not None else b""))
    except OSError as error:
        raise TlsError(
            f"cannot write {target}: {error.strerror}", hint="make the home folder writable"
        ) from None
    return target


def _select_alpn(_: SSL.Connection, offered: list[bytes]) -> object:
    return HTTP1 if HTTP1 in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
