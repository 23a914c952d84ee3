"""Who is asking: a client is known by its proxy token, by its network, or by both.

Tokens are compared as SHA-256 digests in constant time. What a wrong name, a wrong token and a
wrong network get is one and the same answer, so nobody learns which clients exist.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from coatcheck.core.policy import Client, Network

MAX_CREDENTIAL = 4096  # bytes of a Proxy-Authorization value; longer ones are not looked at
_NO_DIGEST = hashlib.sha256(b"no such client").hexdigest()


@dataclass(frozen=True, slots=True)
class Credential:
    """What a Proxy-Authorization field said. ``name`` is None for Bearer."""

    name: str | None
    digest: str  # SHA-256 (hex) of the token; the token itself is not kept

    @property
    def scheme(self) -> str:
        return "bearer" if self.name is None else "basic"


class BadCredential(ValueError):
    """A Proxy-Authorization field that is no Basic or Bearer credential, or more than one."""


def token_digest(token: bytes) -> str:
    """The form in which a policy file holds a token: SHA-256, lower-case hex."""
    return hashlib.sha256(token).hexdigest()


def read_credential(values: Sequence[bytes]) -> Credential | None:
    """Read the Proxy-Authorization values of one request; None where there are none.

    Basic (RFC 7617) carries the client's name and token; Bearer (RFC 6750) the token alone.

    Raises:
        BadCredential: two fields, another scheme, or base64 that does not decode.
    """
    if not values:
        return None
    if len(values) > 1 or len(values[0]) > MAX_CREDENTIAL:
        raise BadCredential("more than one credential, or an oversized one")
    scheme, _, rest = values[0].strip(b" \t").partition(b" ")
    rest = rest.strip(b" ")
    match scheme.lower():
        case b"bearer" if rest:
            return Credential(None, token_digest(rest))
        case b"basic":
            return _basic(rest)
        case _:
            raise BadCredential("neither Basic nor Bearer")


def _basic(encoded: bytes) -> Credential:
    try:
        user, colon, token = base64.b64decode(encoded, validate=True).partition(b":")
        name = user.decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        raise BadCredential("not base64 of name:token") from None
    if not colon:
        raise BadCredential("no colon in a Basic credential")
    return Credential(name, token_digest(token))


class ClientTable:
    """The clients of one policy, ready to be asked. Built once per policy snapshot."""

    def __init__(self, clients: Iterable[Client]) -> None:
        clients = tuple(clients)
        self._by_name = {c.name: c for c in clients if c.token is not None}
        self._by_token = {c.token: c for c in clients if c.token is not None}
        nets = [(net, c) for c in clients if c.token is None for net in c.networks]
        self._by_network = sorted(nets, key=lambda pair: pair[0].prefixlen, reverse=True)

    def identify(self, address: str, credential: Credential | None) -> Client | None:
        """The client behind *address* (an IP address) and *credential*; None if there is none.

        Without a credential the longest network of a client that needs no token decides.
        """
        if credential is None:
            return self._of_network(address)
        if credential.name is None:
            client = self._by_token.get(credential.digest)
        else:
            client = self._by_name.get(credential.name)
        expected = client.token if client is not None and client.token else _NO_DIGEST
        if not hmac.compare_digest(expected, credential.digest) or client is None:
            return None
        if client.networks and not _inside(address, client.networks):
            return None
        return client

    def _of_network(self, address: str) -> Client | None:
        for network, client in self._by_network:
            if _inside(address, (network,)):
                return client
        return None


def _inside(address: str, networks: Iterable[Network]) -> bool:
    ip = _address(address)
    if ip is None:
        return False
    return any(ip.version == net.version and ip in net for net in networks)


@functools.lru_cache(1024)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A dual-stack listener shows IPv4 clients as ::ffff:a.b.c.d (RFC 4291, section 2.5.5.2).
    return getattr(ip, "ipv4_mapped", None) or ip
