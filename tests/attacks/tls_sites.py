"""Sites with certificates and TLS of every kind, each under a name of its own."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.attacks.certificates import DAY, NOW, Maker, Wanted, server_context
from tests.attacks.dns import NameServer
from tests.attacks.stage import VALUES
from tests.e2e.upstream import Upstream
from tests.e2e.world import World

YEAR = datetime.timedelta(days=365)
OLD = ssl.TLSVersion.TLSv1_1

GOOD: dict[str, Wanted] = {
    "plain": Wanted(),
    "wildcard": Wanted(names=("*.tls.test",)),
    "several-names": Wanted(names=("first.test", "host")),
    "rsa": Wanted(key=lambda: rsa.generate_private_key(65537, 2048)),
    "wants-a-staple": Wanted(must_staple=True),  # and has none: revocation is not looked at
}
BAD: dict[str, Wanted] = {
    "expired": Wanted(begins=NOW - YEAR, ends=NOW - DAY),
    "not-yet-valid": Wanted(begins=NOW + DAY, ends=NOW + YEAR),
    "self-signed": Wanted(ca="itself"),
    "other-authority": Wanted(ca="other"),
    "signed-by-a-leaf": Wanted(ca="leaf"),
    "wrong-name": Wanted(names=("allowed.test",)),
    "parent-name": Wanted(names=("tls.test",)),
    "name-below": Wanted(names=("x.host",)),
    "wildcard-too-deep": Wanted(names=("*.test",)),
    "wildcard-in-the-label": Wanted(names=("w*.tls.test",)),
    "only-a-common-name": Wanted(names=(), common_name="host"),
    "common-name-beside-another": Wanted(names=("allowed.test",), common_name="host"),
    "no-name": Wanted(names=()),
    "for-clients": Wanted(usage=ExtendedKeyUsageOID.CLIENT_AUTH),
    "for-code": Wanted(usage=ExtendedKeyUsageOID.CODE_SIGNING),
    "weak-key": Wanted(key=lambda: rsa.generate_private_key(65537, 1024)),
    "old-protocol": Wanted(),
    "talkative": Wanted(
        ca="other", common_name=VALUES["key.a"].decode(), organisation=VALUES["roam.key"].decode()
    ),
}
RAW: dict[str, bytes] = {
    "plain-http": b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.9\r\n",
    "alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "noise": bytes(range(256)),
    "closes": b"",
}


# Sites that count what they decrypt, one of each kind of failure, and one that is as it should be.
COUNTED = ("plain", "expired", "not-yet-valid", "self-signed", "other-authority", "wrong-name")
COUNTED += ("only-a-common-name", "weak-key", "old-protocol")


@dataclass
class Counter:
    """Answers every connection, and counts the bytes of applications that come in TLS.

    Attributes:
        connections: TCP connections that came.
        heard: Bytes, decrypted, of all of them.
    """

    listener: socket.socket
    context: ssl.SSLContext
    connections: int = 0
    heard: bytes = b""

    def serve(self) -> None:
        self.listener.settimeout(None)
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            with sock:
                sock.settimeout(3)
                with contextlib.suppress(OSError), self.context.wrap_socket(sock, True) as tls:
                    while data := tls.recv(65536):
                        self.heard += data
                        if self.heard.endswith(b"\r\n\r\n"):
                            tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def open_counters(world: World, dns: NameServer, maker: Maker, folder: Path) -> dict[str, Counter]:
    """By what is special about it; the name is ``NAME.count.test``."""
    made = {}
    for number, name in enumerate(COUNTED, start=1):
        host, address = f"{name}.count.test", f"20.20.41.{number}"
        dns.set(host, address)
        path = maker.make({**GOOD, **BAD}[name], host, folder)
        counter = Counter(world.listen(address, 443), context_of(name, path))
        threading.Thread(target=counter.serve, daemon=True).start()
        made[name] = counter
    return made


def context_of(name: str, path: Path) -> ssl.SSLContext:
    if name == "old-protocol":
        return server_context(path, minimum_version=ssl.TLSVersion.TLSv1, maximum_version=OLD)
    return server_context(path)


def hosts() -> dict[str, str]:
    """The name of a site by what is special about it."""
    return {name: f"{name}.tls.test" for name in (*GOOD, *BAD, *RAW)}


def open_sites(
    world: World, dns: NameServer, upstream: Upstream, maker: Maker, folder: Path
) -> list[bytes]:
    """Open them all; returns the list that grows by what the sites without TLS hear."""
    heard: list[bytes] = []
    for number, (name, host) in enumerate(hosts().items(), start=1):
        address = f"20.20.40.{number}"
        dns.set(host, address)
        listener = world.listen(address, 443)
        if name in RAW:
            threading.Thread(target=_raw, args=(listener, RAW[name], heard), daemon=True).start()
            continue
        path = maker.make({**GOOD, **BAD}[name], host, folder)
        upstream.add(host, listener, context_of(name, path))
    return heard


def _raw(listener: socket.socket, says: bytes, heard: list[bytes]) -> None:
    listener.settimeout(None)
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        with sock:
            sock.settimeout(2)
            try:
                heard.append(sock.recv(65536))
                sock.sendall(says)
                sock.shutdown(socket.SHUT_WR)
                while data := sock.recv(65536):
                    heard.append(data)
            except OSError:
                continue
