"""Which addresses may be dialled, and which never."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.core.address import METADATA, RANGES, Network, Reason, next_step, vet


def _networks(*texts: str) -> list[Network]:
    return [ipaddress.ip_network(text) for text in texts]


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("8.8.8.8", id="public"),
        pytest.param("93.184.216.34", id="public, another"),
        pytest.param("1.0.0.0", id="just above 0/8"),
        pytest.param("9.255.255.255", id="just below 10/8"),
        pytest.param("11.0.0.0", id="just above 10/8"),
        pytest.param("100.63.255.255", id="just below 100.64/10"),
        pytest.param("100.128.0.0", id="just above 100.64/10"),
        pytest.param("126.255.255.255", id="just below 127/8"),
        pytest.param("128.0.0.0", id="just above 127/8"),
        pytest.param("169.253.255.255", id="just below 169.254/16"),
        pytest.param("169.255.0.0", id="just above 169.254/16"),
        pytest.param("172.15.255.255", id="just below 172.16/12"),
        pytest.param("172.32.0.0", id="just above 172.16/12"),
        pytest.param("192.0.1.0", id="just above 192.0.0/24"),
        pytest.param("192.167.255.255", id="just below 192.168/16"),
        pytest.param("192.169.0.0", id="just above 192.168/16"),
        pytest.param("198.17.255.255", id="just below 198.18/15"),
        pytest.param("198.20.0.0", id="just above 198.18/15"),
        pytest.param("223.255.255.255", id="just below 224/4"),
        pytest.param("168.63.129.15", id="next to Azure's platform address"),
        pytest.param("2606:4700::1111", id="public IPv6"),
        pytest.param("2001:200::1", id="just above 2001::/23"),
        pytest.param("2a00:1450:4001::200e", id="public IPv6, another"),
        pytest.param("::ffff:8.8.8.8", id="mapped public"),
        pytest.param("64:ff9b::8.8.8.8", id="NAT64 of public: IPv6-only networks need it"),
    ],
)
def test_a_public_address_is_dialled(address: str) -> None:
    assert vet(address, 443) is None


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("0.255.255.255", "unspecified"),
        ("10.0.0.0", "private"),
        ("10.255.255.255", "private"),
        ("100.64.0.0", "shared"),
        ("100.127.255.255", "shared"),
        ("127.0.0.0", "loopback"),
        ("127.0.0.1", "loopback"),
        ("127.0.0.2", "loopback"),
        ("127.255.255.255", "loopback"),
        ("169.254.0.0", "link_local"),
        ("169.254.1.1", "link_local"),
        ("169.254.255.255", "link_local"),
        ("172.16.0.0", "private"),
        ("172.31.255.255", "private"),
        ("192.0.0.0", "reserved"),
        ("192.0.0.170", "reserved"),
        ("192.0.0.255", "reserved"),
        ("192.0.2.1", "documentation"),
        ("192.88.99.1", "transition"),
        ("192.168.0.0", "private"),
        ("192.168.255.255", "private"),
        ("198.18.0.0", "benchmark"),
        ("198.19.255.255", "benchmark"),
        ("198.51.100.1", "documentation"),
        ("203.0.113.1", "documentation"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("0:0:0:0:0:0:0:1", "loopback"),
        ("::2", "transition"),
        ("::127.0.0.1", "transition"),
        ("::8.8.8.8", "transition"),
        ("::ffff:0:127.0.0.1", "transition"),
        ("::ffff:0:8.8.8.8", "transition"),
        ("64:ff9b:1::8.8.8.8", "transition"),
        ("64:ff9b:1:ffff::1", "transition"),
        ("64:ff9b:2::1", "reserved"),
        ("100::1", "reserved"),
        ("100:0:0:1::1", "reserved"),
        ("1::1", "reserved"),
        ("1fff:ffff::1", "reserved"),
        ("2001::1", "transition"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "transition"),
        ("2001:10::1", "transition"),
        ("2001:20::1", "transition"),
        ("2001:1ff:ffff::1", "transition"),
        ("2001:db8::1", "documentation"),
        ("2002:808:808::1", "transition"),
        ("2002:7f00:1::", "transition"),
        ("3fff::1", "documentation"),
        ("3fff:fff:ffff::1", "documentation"),
        ("4000::1", "reserved"),
        ("5f00::1", "reserved"),
        ("fc00::1", "private"),
        ("fdff:ffff::1", "private"),
        ("fe00::1", "reserved"),
        ("fe80::1", "link_local"),
        ("febf::1", "link_local"),
        ("fec0::1", "private"),
        ("feff::1", "private"),
        ("ff02::1", "multicast"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:7f00:1", "loopback"),
        ("::ffff:10.0.0.1", "private"),
        ("::ffff:0.0.0.0", "unspecified"),
        ("::ffff:169.254.169.254", "metadata"),
        ("::ffff:168.63.129.16", "metadata"),
        ("64:ff9b::127.0.0.1", "loopback"),
        ("64:ff9b::10.0.0.1", "private"),
        ("64:ff9b::a9fe:a9fe", "metadata"),
        ("64:ff9b::168.63.129.16", "metadata"),
        *((address, "metadata") for address in METADATA),
        ("fe80::1%eth0", "scoped"),
        ("fe80::1%1", "scoped"),
        ("2606:4700::1111%eth0", "scoped"),
        ("127.1", "not_an_address"),
        ("0", "not_an_address"),
        ("2130706433", "not_an_address"),
        ("0x7f.1", "not_an_address"),
        ("0177.0.0.1", "not_an_address"),
        ("[::1]", "not_an_address"),
        ("8.8.8.8:80", "not_an_address"),
        ("8.8.8.8/32", "not_an_address"),
        (" 8.8.8.8", "not_an_address"),
        ("8.8.8.8\n", "not_an_address"),
        ("localhost", "not_an_address"),
        ("", "not_an_address"),
    ],
)
def test_a_special_address_is_not_dialled(address: str, reason: str) -> None:
    assert vet(address, 443) == reason


def test_the_table_of_tests_is_wide() -> None:
    """At least 80 forms; a row that gets lost shows here."""
    (mark,) = test_a_special_address_is_not_dialled.pytestmark  # type: ignore[attr-defined]
    assert len(mark.args[1]) >= 80


@pytest.mark.parametrize("network", [network for network, _ in RANGES])
def test_every_range_holds_to_both_ends(network: str) -> None:
    first, last = ipaddress.ip_network(network)[0], ipaddress.ip_network(network)[-1]
    assert vet(str(first), 443) is not None
    assert vet(str(last), 443) is not None


@given(st.ip_addresses())
def test_nothing_is_dialled_that_the_standard_library_calls_private(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """The table is wider than the library's, never narrower; the two readings of mapped aside."""
    inner = getattr(address, "ipv4_mapped", None) or address
    if inner.is_private or inner.is_loopback or inner.is_link_local or inner.is_multicast:
        nat64 = ipaddress.ip_network("64:ff9b::/96")
        assert vet(str(address), 443) is not None or address in nat64


# --- what an operator is told ------------------------------------------------------------------


@pytest.mark.parametrize("reason", Reason)
def test_an_operator_is_told_what_lifts_it_and_nothing_that_does_not(reason: Reason) -> None:
    never = {Reason.UNSPECIFIED, Reason.MULTICAST, Reason.OWN_SOCKET}
    never |= {Reason.NOT_AN_ADDRESS, Reason.SCOPED}

    assert ("egress.networks" in next_step(reason)) == (reason not in never)
    assert ("own machine" in next_step(reason)) == (reason in {Reason.OWN, Reason.LOOPBACK})


# --- what egress.networks lifts --------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "network"),
    [
        pytest.param("127.0.0.1", "127.0.0.0/8", id="loopback, named: the sidecar case"),
        pytest.param("127.0.0.1", "127.0.0.1/32", id="one loopback address"),
        pytest.param("::1", "::1/128", id="IPv6 loopback"),
        pytest.param("10.20.1.1", "10.20.0.0/16", id="a private network"),
        pytest.param("10.20.1.1", "0.0.0.0/0", id="everything"),
        pytest.param("100.64.1.1", "100.64.0.0/10", id="shared"),
        pytest.param("169.254.1.1", "169.254.0.0/16", id="link-local"),
        pytest.param("fd12::1", "fd12::/16", id="a unique local network"),
        pytest.param("::ffff:10.20.1.1", "10.20.0.0/16", id="mapped"),
        pytest.param("64:ff9b::10.20.1.1", "10.20.0.0/16", id="NAT64"),
        pytest.param("203.0.113.5", "203.0.113.0/24", id="a documentation range"),
        pytest.param("169.254.169.254", "169.254.169.254/32", id="metadata, exactly"),
        pytest.param("168.63.129.16", "168.63.129.16/32", id="Azure's, exactly"),
        pytest.param("fd00:ec2::254", "fd00:ec2::254/128", id="metadata of IPv6, exactly"),
    ],
)
def test_a_named_network_is_dialled(address: str, network: str) -> None:
    assert vet(address, 443) is not None
    assert vet(address, 443, allowed=_networks(network)) is None


@pytest.mark.parametrize(
    ("address", "networks", "reason"),
    [
        pytest.param("10.21.1.1", ["10.20.0.0/16"], "private", id="another network"),
        pytest.param("::1", ["127.0.0.0/8"], "loopback", id="IPv4 loopback is not IPv6's"),
        pytest.param("169.254.169.254", ["169.254.0.0/16"], "metadata", id="metadata, wide"),
        pytest.param("169.254.169.254", ["169.254.169.254/31"], "metadata", id="metadata, nearly"),
        pytest.param("169.254.169.254", ["0.0.0.0/0", "::/0"], "metadata", id="not by everything"),
        pytest.param("fd00:ec2::254", ["fd00::/8"], "metadata", id="metadata of IPv6, wide"),
        pytest.param("100.100.100.200", ["100.64.0.0/10"], "metadata", id="Alibaba's, wide"),
        pytest.param("192.0.0.192", ["192.0.0.0/24"], "metadata", id="Oracle's, wide"),
        pytest.param("::ffff:169.254.169.254", ["::/0", "0.0.0.0/0"], "metadata", id="mapped"),
        pytest.param("64:ff9b::a9fe:a9fe", ["64:ff9b::/96"], "metadata", id="NAT64 of metadata"),
        pytest.param("2002:a9fe:a9fe::", ["2002::/16"], "metadata", id="6to4 of metadata"),
        pytest.param("::a9fe:a9fe", ["::/0"], "metadata", id="compatible of metadata"),
        pytest.param("2002:7f00:1::", ["2002::/16"], "loopback", id="6to4 of loopback"),
        pytest.param("2002:0a14:101::", ["2002::/16"], "private", id="6to4 of private"),
        pytest.param("64:ff9b::7f00:1", ["64:ff9b::/96"], "loopback", id="NAT64 of loopback"),
        pytest.param("2001:0:a9fe:a9fe::", ["2001::/23"], "metadata", id="Teredo server"),
        pytest.param("2001::5601:5601", ["2001::/23", "0.0.0.0/0"], "unspecified", id="Teredo"),
        pytest.param("0.0.0.0", ["0.0.0.0/0"], "unspecified", id="the unspecified address"),
        pytest.param("0.0.0.0", ["0.0.0.0/32"], "unspecified", id="even when named"),
        pytest.param("::", ["::/128"], "unspecified", id="that of IPv6"),
        pytest.param("224.0.0.1", ["224.0.0.0/4"], "multicast", id="multicast"),
        pytest.param("fe80::1%eth0", ["fe80::/10"], "scoped", id="a zone"),
    ],
)
def test_a_network_does_not_lift(address: str, networks: list[str], reason: str) -> None:
    assert vet(address, 443, allowed=_networks(*networks)) == reason


# --- the proxy's own machine -----------------------------------------------------------------

OWN = ["127.0.0.1", "::1", "10.1.2.3", "93.184.216.34", "2606:4700::5"]


@pytest.mark.parametrize(
    ("address", "networks", "reason"),
    [
        pytest.param("93.184.216.34", [], "own", id="an own public address"),
        pytest.param("2606:4700::5", [], "own", id="an own public IPv6 address"),
        pytest.param("::ffff:93.184.216.34", [], "own", id="mapped"),
        pytest.param("64:ff9b::93.184.216.34", [], "own", id="by NAT64"),
        pytest.param("2002:5db8:d822::", ["2002::/16"], "own", id="by 6to4"),
        pytest.param("10.1.2.3", [], "private", id="an own private address"),
        pytest.param("93.184.216.34", ["10.0.0.0/8"], "own", id="another network lifts nothing"),
        pytest.param("93.184.216.34", ["93.184.216.34/32"], None, id="named"),
        pytest.param("10.1.2.3", ["10.0.0.0/8"], None, id="in a named network"),
        pytest.param("93.184.216.35", [], None, id="a neighbour is not own"),
    ],
)
def test_own_addresses(address: str, networks: list[str], reason: str | None) -> None:
    got = vet(address, 443, allowed=_networks(*networks), own_addresses=OWN)
    assert got == reason


@pytest.mark.parametrize(
    ("listening", "address", "port", "reason"),
    [
        pytest.param("127.0.0.1", "127.0.0.1", 8081, "own_socket", id="the admin port"),
        pytest.param("127.0.0.1", "::ffff:127.0.0.1", 8081, "own_socket", id="mapped"),
        pytest.param("127.0.0.1", "127.0.0.1", 8082, None, id="another port"),
        pytest.param("127.0.0.1", "127.0.0.2", 8081, None, id="another loopback address"),
        pytest.param("127.0.0.1", "10.1.2.3", 8081, None, id="another own address"),
        pytest.param("10.1.2.3", "10.1.2.3", 8081, "own_socket", id="an own address"),
        pytest.param("0.0.0.0", "127.0.0.1", 8081, "own_socket", id="wildcard: loopback"),
        pytest.param("0.0.0.0", "127.0.0.77", 8081, "own_socket", id="wildcard: all of 127/8"),
        pytest.param("0.0.0.0", "10.1.2.3", 8081, "own_socket", id="wildcard: own address"),
        pytest.param("0.0.0.0", "93.184.216.34", 8081, "own_socket", id="wildcard: own public"),
        pytest.param("0.0.0.0", "10.9.9.9", 8081, None, id="wildcard: not a neighbour"),
        pytest.param("0.0.0.0", "10.1.2.3", 8082, None, id="wildcard: not another port"),
        pytest.param("::", "::1", 8081, "own_socket", id="IPv6 wildcard: loopback"),
        pytest.param("::", "127.0.0.1", 8081, "own_socket", id="IPv6 wildcard: IPv4 too"),
        pytest.param("::", "2606:4700::5", 8081, "own_socket", id="IPv6 wildcard: own public"),
        pytest.param("localhost", "127.0.0.1", 8081, "own_socket", id="a name: loopback"),
        pytest.param("", "10.1.2.3", 8081, "own_socket", id="an empty host: own address"),
        pytest.param("0.0.0.0", "0.0.0.0", 8081, "own_socket", id="wildcard: itself"),
    ],
)
def test_own_sockets_are_never_dialled(
    listening: str, address: str, port: int, reason: str | None
) -> None:
    """Even where every network is allowed: the admin port cannot be reached through the proxy."""
    networks = _networks("0.0.0.0/0", "::/0", "127.0.0.1/32", "10.1.2.3/32")
    got = vet(
        address,
        port,
        allowed=networks,
        own_addresses=OWN,
        own_sockets=[(listening, 8081)],
    )
    assert got == reason


def test_a_wildcard_listener_counts_where_own_addresses_are_not_known() -> None:
    got = vet("127.0.0.1", 80, allowed=_networks("127.0.0.0/8"), own_sockets=[("0.0.0.0", 80)])
    assert got is Reason.OWN_SOCKET
