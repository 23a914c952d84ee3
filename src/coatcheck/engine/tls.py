"""TLS on both sides: certificates for clients from our CA, verification of upstreams.

Towards clients mitmproxy's certificate store makes the leaf, for the host of the CONNECT and for
nothing else: neither the client's SNI nor an upstream's certificate has a say. One context is kept
for each host, so that a client that comes again resumes its session instead of asking for a
signature. Towards upstreams the standard library's `ssl` verifies chain and name before a byte of
HTTP is written, against certifi and the operator's own file, never against the operating system's
bundle.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import time
from collections import OrderedDict
from pathlib import Path

import certifi
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from mitmproxy import certs

from coatcheck.core.ports import CoatcheckError
from coatcheck.engine.channel import ServerSide

CA_BASENAME = "mitmproxy"  # the names of the files in the CA folder are mitmproxy's own
RENEW_S = 86_400.0  # a certificate is made anew after a day, long before it expires
CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305",
)
HTTP1 = "http/1.1"


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
    """Contexts for TLS towards clients, one for each host that was asked for.

    Attributes:
        hits: How often one was there already.
        misses: How often one had to be made.
    """

    def __init__(self, authority: Authority, kept: int = 4096) -> None:
        """*kept*: how many hosts are remembered; the least recently used one goes first."""
        self._authority = authority
        self._kept = kept
        self._contexts: OrderedDict[str, tuple[float, ssl.SSLContext]] = OrderedDict()
        self.hits = self.misses = 0

    def __len__(self) -> int:
        return len(self._contexts)

    def context(self, host: str) -> ssl.SSLContext:
        """A context with a certificate for *host* (canonical; an IP address or a name)."""
        now = time.monotonic()
        made, context = self._contexts.get(host, (0.0, None))
        if context is not None and now - made <= RENEW_S:
            self.hits += 1
        else:
            self.misses += 1
            context = self._make(host)
            self._contexts[host] = now, context
            if len(self._contexts) > self._kept:
                self._contexts.popitem(last=False)
        self._contexts.move_to_end(host)
        return context

    def _make(self, host: str) -> ssl.SSLContext:
        name = _general_name(host)
        entry = self._authority.get_cert(str(name.value), [name])
        # The context below is what is kept; the store would keep its certificates once more.
        self._authority.certs.clear()
        self._authority.expire_queue.clear()
        key = entry.privatekey.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        chain = entry.chain_file.read_bytes() if entry.chain_file else b""
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ctx.minimum_version = ssl.TLSVersion.TLSv1_2
        ctx.set_ciphers(":".join(CIPHERS))
        ctx.set_alpn_protocols([HTTP1])
        ctx.num_tickets = 1
        ctx.keylog_filename = None  # type: ignore[assignment]
        ctx.sslobject_class = ServerSide
        ctx.sni_callback = _note_server_name
        _load(ctx, key + entry.cert.to_pem() + chain)
        return ctx


def _note_server_name(tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
    if isinstance(tls, ServerSide):
        tls.server_name = name


def _load(ctx: ssl.SSLContext, pem: bytes) -> None:
    # `ssl` reads keys from files only. This one is in memory, and nobody else can open it.
    file = os.memfd_create("leaf", os.MFD_CLOEXEC)
    try:
        os.write(file, pem)
        ctx.load_cert_chain(f"/proc/self/fd/{file}")
    finally:
        os.close(file)


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
    ctx.set_alpn_protocols([HTTP1])
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


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
