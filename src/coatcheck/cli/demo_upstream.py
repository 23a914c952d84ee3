"""The API that `coatcheck demo` talks to: on loopback, over TLS and over plain HTTP.

Its certificate is of an authority that is made for one run and whose key is never written down.
It keeps every request as it came, and beside it the audit log as it stood at that moment: so the
demo can tell that the record was there before the bytes were (promise G6). ``/echo`` answers with
the credential that it was sent, as careless services do.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import os
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOOPBACK = "127.0.0.1"
HOSTS = ("api.localhost", "evil.localhost")  # resolved without DNS and without /etc/hosts
LIFETIME = datetime.timedelta(days=1)
TIMEOUT_S = 10.0  # for a peer that says nothing


@dataclass(frozen=True, slots=True)
class Received:
    """One request as the upstream got it.

    Attributes:
        answer: Header values and body that it sent back.
        audit: The audit log at that moment.
    """

    host: str
    method: str
    target: str
    fields: tuple[tuple[str, str], ...]
    body: str
    answer: str
    audit: str

    def field(self, name: str) -> str:
        """The values of the header *name*, joined; empty where there is none."""
        return ", ".join(value for key, value in self.fields if key.lower() == name.lower())


class Upstream:
    """Two listeners, one for https and one for http; what they receive comes out of `take`."""

    def __init__(self, certificate: Path, witness: Callable[[], str]) -> None:
        """
        Args:
            certificate: PEM: the chain and its key.
            witness: Gives the audit log; asked before a request is answered.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._witness = witness
        self._lock = threading.Lock()
        self._received: list[Received] = []
        self._secure = _Server(self, context)
        self._plain = _Server(self, None)
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            for server in (self._secure, self._plain)
        ]
        for thread in self._threads:
            thread.start()

    def port(self, scheme: str) -> int:
        """Where it listens for *scheme*."""
        return int((self._secure if scheme == "https" else self._plain).server_address[1])

    def take(self) -> list[Received]:
        """What was received since the last call."""
        with self._lock:
            taken, self._received = self._received, []
        return taken

    def handle(self, handler: BaseHTTPRequestHandler, body: bytes) -> Answer:
        """Note the request and say what to answer."""
        seen_so_far = self._witness()
        answer = respond(handler.path, handler.headers.get("Authorization", ""))
        received = Received(
            host=handler.headers.get("Host", ""),
            method=handler.command,
            target=handler.path,
            fields=tuple(handler.headers.items()),
            body=body.decode("utf-8", "replace"),
            answer="\n".join([*answer.fields.values(), answer.body]),
            audit=seen_so_far,
        )
        with self._lock:
            self._received.append(received)
        return answer

    def close(self) -> None:
        for server in (self._secure, self._plain):
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the upstream sends back."""

    body: str
    fields: dict[str, str]


def respond(path: str, credential: str) -> Answer:
    """``/echo`` reflects *credential*, as it is and in base64; everything else is content."""
    if path != "/echo":
        return Answer(json.dumps({"ok": True}), {})
    encoded = base64.b64encode(credential.encode()).decode()
    return Answer(json.dumps({"raw": credential, "base64": encoded}), {"X-Echo": credential})


def write_certificates(folder: Path, now: datetime.datetime) -> tuple[Path, Path]:
    """A throw-away authority and a certificate for `HOSTS`.

    Returns:
        The authority's certificate, and the server's certificate with its key (mode 0600), PEM.
    """
    ca_key, ca = _authority(now)
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.DNSName(host) for host in HOSTS]
    names.append(x509.IPAddress(ipaddress.ip_address(LOOPBACK)))
    leaf = (
        _builder(f"{HOSTS[0]} of coatcheck demo", ca.subject, key, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    authority, server = folder / "upstream-ca.pem", folder / "upstream.pem"
    _write(authority, ca.public_bytes(serialization.Encoding.PEM))
    _write(server, leaf.public_bytes(serialization.Encoding.PEM) + key_pem)
    return authority, server


def _authority(now: datetime.datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("coatcheck demo, upstream CA")
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
        _builder("coatcheck demo, upstream CA", name, key, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def _builder(
    subject: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - LIFETIME)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, upstream: Upstream, context: ssl.SSLContext | None) -> None:
        self.upstream = upstream
        self._context = context
        super().__init__((LOOPBACK, 0), _Handler)

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        connection.settimeout(TIMEOUT_S)
        if self._context is not None:
            # The handshake waits for the handler's thread: a silent peer must not stop the others.
            connection = self._context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that goes away is no news; a request that does not arrive fails its check."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *args: Any) -> None:
        """Nothing: a request line holds a value here."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        answer = self.server.upstream.handle(self, body)
        content = answer.body.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in answer.fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _answer  # noqa: N815 names that http.server looks for
