"""Which address may be dialled? A name that is allowed can still resolve to the metadata service.

`ipaddress.is_global` is not enough: it calls NAT64 forms, IPv4-compatible forms, multicast and
Azure's 168.63.129.16 global, and its answers differ between Pythons. So the ranges stand here as a
table. An address that carries another one inside (mapped, NAT64, 6to4, …) is judged as both.

What `egress.networks` of a policy lifts, and what it never lifts:

- Private, loopback, link-local and the other listed ranges, and the proxy's own interface
  addresses: lifted by a network that holds them.
- A cloud's metadata address: lifted only by an entry that is exactly this address (``/32``,
  ``/128``). Whoever writes ``169.254.0.0/16`` or ``0.0.0.0/0`` thinks of neighbours, not of the
  credentials of the machine that the proxy runs on.
- Unspecified addresses (they dial the own machine), multicast, and the proxy's own listening
  sockets: never.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum

type Network = ipaddress.IPv4Network | ipaddress.IPv6Network
type Address = ipaddress.IPv4Address | ipaddress.IPv6Address
type Socket = tuple[str, int]


class Reason(StrEnum):
    """Why an address is not dialled; for the log, never for the client."""

    NOT_AN_ADDRESS = "not_an_address"
    SCOPED = "scoped"
    OWN_SOCKET = "own_socket"
    OWN = "own"
    UNSPECIFIED = "unspecified"
    LOOPBACK = "loopback"
    PRIVATE = "private"
    SHARED = "shared"
    LINK_LOCAL = "link_local"
    METADATA = "metadata"
    DOCUMENTATION = "documentation"
    BENCHMARK = "benchmark"
    MULTICAST = "multicast"
    RESERVED = "reserved"
    TRANSITION = "transition"


_NEVER_LIFTED = frozenset({Reason.UNSPECIFIED, Reason.MULTICAST})
_NEXT_STEP = {
    Reason.NOT_AN_ADDRESS: "no policy lifts this",
    Reason.SCOPED: "no policy lifts this",
    Reason.UNSPECIFIED: "no policy lifts this",
    Reason.MULTICAST: "no policy lifts this",
    Reason.OWN_SOCKET: "the proxy itself listens there, and no policy lifts this",
    Reason.OWN: "it is the proxy's own machine: run the API elsewhere, or lift by egress.networks",
    Reason.METADATA: "it hands out credentials; lift by this very address in egress.networks",
}
_NEXT_STEP[Reason.LOOPBACK] = _NEXT_STEP[Reason.OWN]


def next_step(reason: Reason) -> str:
    """What an operator can do about an address that is refused; not for the client."""
    return _NEXT_STEP.get(reason, "lift by egress.networks if it is meant to be reached")


# The first row that holds an address names the reason; what no row holds is public.
# Registries: IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890).
RANGES: tuple[tuple[str, Reason], ...] = (
    ("0.0.0.0/8", Reason.UNSPECIFIED),  # RFC 1122, 3.2.1.3; Linux dials itself for 0.0.0.0
    ("10.0.0.0/8", Reason.PRIVATE),  # RFC 1918
    ("100.64.0.0/10", Reason.SHARED),  # RFC 6598
    ("127.0.0.0/8", Reason.LOOPBACK),
    ("169.254.0.0/16", Reason.LINK_LOCAL),  # RFC 3927
    ("172.16.0.0/12", Reason.PRIVATE),
    ("192.0.0.0/24", Reason.RESERVED),  # IETF protocol assignments
    ("192.0.2.0/24", Reason.DOCUMENTATION),
    ("192.88.99.0/24", Reason.TRANSITION),  # 6to4 relays, RFC 7526
    ("192.168.0.0/16", Reason.PRIVATE),
    ("198.18.0.0/15", Reason.BENCHMARK),  # RFC 2544
    ("198.51.100.0/24", Reason.DOCUMENTATION),
    ("203.0.113.0/24", Reason.DOCUMENTATION),
    ("224.0.0.0/4", Reason.MULTICAST),
    ("240.0.0.0/4", Reason.RESERVED),  # with the broadcast address
    ("::/128", Reason.UNSPECIFIED),
    ("::1/128", Reason.LOOPBACK),
    ("::/96", Reason.TRANSITION),  # IPv4-compatible, RFC 4291, 2.5.5.1
    ("::ffff:0:0:0/96", Reason.TRANSITION),  # IPv4-translated, RFC 2765
    ("64:ff9b:1::/48", Reason.TRANSITION),  # local NAT64, RFC 8215
    ("100::/64", Reason.RESERVED),  # discard, RFC 6666
    ("2001::/23", Reason.TRANSITION),  # Teredo, ORCHID and other protocol assignments
    ("2001:db8::/32", Reason.DOCUMENTATION),
    ("2002::/16", Reason.TRANSITION),  # 6to4, RFC 3056
    ("3fff::/20", Reason.DOCUMENTATION),  # RFC 9637
    ("fc00::/7", Reason.PRIVATE),  # unique local, RFC 4193
    ("fe80::/10", Reason.LINK_LOCAL),
    ("fec0::/10", Reason.PRIVATE),  # site-local, RFC 3879
    ("ff00::/8", Reason.MULTICAST),
)

# Judged by the IPv4 address inside alone: an IPv6-only network with DNS64 reaches the whole IPv4
# Internet through the first, and the second is IPv4 in another spelling.
TRANSPARENT = ("64:ff9b::/96", "::ffff:0:0/96")  # RFC 6052; RFC 4291, 2.5.5.2

# Outside of this block no IPv6 address is assigned for public use (IANA IPv6 Address Space).
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")

# Platform services that hand out credentials or configuration to whoever asks from the machine.
METADATA: tuple[str, ...] = (
    "169.254.169.254",  # AWS, Azure, GCP, DigitalOcean, Oracle, OpenStack, …
    "169.254.169.253",  # AWS resolver
    "169.254.170.2",  # AWS ECS task credentials
    "169.254.170.23",  # AWS EKS pod identity
    "169.254.0.23",  # Tencent
    "169.254.42.42",  # Scaleway
    "168.63.129.16",  # Azure WireServer, in a public range
    "100.100.100.200",  # Alibaba
    "192.0.0.192",  # Oracle
    "fd00:ec2::254",  # AWS
    "fd00:ec2::253",  # AWS resolver
    "fd00:ec2::23",  # AWS EKS pod identity
    "fd20:ce::254",  # GCP
    "fd00:c1::a9fe:a9fe",  # Oracle
    "fd00:42::42",  # Scaleway
    "fe80::a9fe:a9fe",  # OpenStack
)


def vet(
    address: str,
    port: int,
    *,
    allowed: Sequence[Network] = (),
    own_addresses: Collection[str] = (),
    own_sockets: Collection[Socket] = (),
) -> Reason | None:
    """None if *address* may be dialled on *port*, else why not.

    Args:
        address: As a resolver or a client gave it; anything unreadable is refused.
        allowed: ``egress.networks`` of the policy (see the module's text for what they lift).
        own_addresses: Of every local interface, public ones too.
        own_sockets: Where the proxy listens, the admin port too. A wildcard listener
            (``0.0.0.0``, ``::``, a name) stands for this port at each own and loopback address.
    """
    if "%" in address:
        return Reason.SCOPED
    try:
        outer = ipaddress.ip_address(address)
    except ValueError:
        return Reason.NOT_AN_ADDRESS
    own = _parsed(frozenset(own_addresses))
    for view in _views(outer):
        reason = _vet_one(view, port, allowed, own, own_sockets)
        if reason is not None:
            return reason
    return None


def _vet_one(
    address: Address,
    port: int,
    allowed: Sequence[Network],
    own: Collection[Address],
    own_sockets: Collection[Socket],
) -> Reason | None:
    reason = _range_of(address)
    if _is_own_socket(address, port, reason, own, own_sockets):
        return Reason.OWN_SOCKET
    if reason in _NEVER_LIFTED:
        return reason
    if reason is Reason.METADATA:
        exact = ipaddress.ip_network(address)
        return None if exact in allowed else reason
    if reason is None and address in own:
        reason = Reason.OWN
    if reason is None or any(address in network for network in allowed):
        return None
    return reason


def _is_own_socket(
    address: Address,
    port: int,
    reason: Reason | None,
    own: Collection[Address],
    own_sockets: Collection[Socket],
) -> bool:
    for host, listening in own_sockets:
        if listening != port:
            continue
        bound = _read(host)
        if bound == address:
            return True
        wildcard = bound is None or bound.is_unspecified
        if wildcard and (address in own or reason is Reason.LOOPBACK):
            return True
    return False


@functools.lru_cache(maxsize=64)
def _parsed(addresses: frozenset[str]) -> frozenset[Address]:
    return frozenset(map(ipaddress.ip_address, addresses))


@functools.lru_cache(maxsize=64)
def _read(host: str) -> Address | None:
    # A listener given by name ("localhost") may be bound anywhere on this machine.
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


@functools.lru_cache(maxsize=4096)
def _range_of(address: Address) -> Reason | None:
    if address in _METADATA:
        return Reason.METADATA
    if any(address in network for network in _TRANSPARENT):
        return None
    for network, reason in _RANGES:
        if address in network:
            return reason
    if address.version == 6 and address not in GLOBAL_UNICAST:
        return Reason.RESERVED
    return None


def _views(address: Address) -> Iterator[Address]:
    """*address*, and every IPv4 address that it carries inside."""
    yield address
    if isinstance(address, ipaddress.IPv4Address):
        return
    if address.teredo is not None:
        yield from address.teredo  # the server and the client, RFC 4380, section 4
    if address.sixtofour is not None:
        yield address.sixtofour
    if any(address in network for network in _LOW_32_BITS) and int(address) > 1:
        yield ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)


_METADATA = frozenset(map(ipaddress.ip_address, METADATA))
_RANGES = tuple((ipaddress.ip_network(text), reason) for text, reason in RANGES)
_TRANSPARENT = tuple(map(ipaddress.ip_network, TRANSPARENT))
_LOW_32_BITS = (
    *_TRANSPARENT,
    ipaddress.ip_network("::/96"),  # but for :: and ::1, which embed nothing
    ipaddress.ip_network("::ffff:0:0:0/96"),
    ipaddress.ip_network("64:ff9b:1::/48"),  # as far as it is used with /96 prefixes
)
