"""SSRF: nothing inside is dialled, however its address is written, and whatever DNS says of it.

"Dialled" is seen on the wire: the first packet of each connection that the proxy tries to open.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.attacks import stage
from tests.attacks.client import Client, accepted, ask, refused, send
from tests.attacks.dns import REFUSED as DNS_REFUSED
from tests.attacks.dns import SERVER_FAILURE, NameServer
from tests.attacks.sites import Scripts
from tests.attacks.stage import ALLOWED, SITES, Target
from tests.attacks.watch import Attempt
from tests.e2e.harness import WORKERS
from tests.e2e.upstream import Upstream
from tests.e2e.wire import request

Dialled = Callable[[], list[Attempt]]
_names = itertools.count(1)


def fresh() -> str:
    """A name that was never looked up before."""
    return f"n{next(_names)}.rebind.test"


# --- addresses, written out ----------------------------------------------------------------------

SPELLINGS = [
    # loopback
    "127.0.0.1",
    "127.0.0.2",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "0177.1",
    "017700000001",
    "127.0.0.1.",
    "127.000.000.001",
    "0x7F.0x0.0x0.0x1",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::0001]",
    "[::127.0.0.1]",
    "[::7f00:1]",
    "[::ffff:127.0.0.1]",
    "[::FFFF:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::127.0.0.1]",
    "[2002:7f00:1::]",
    "[::1%25lo]",
    "[::1%lo]",
    "[::1%1]",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "x.localhost",
    # nobody
    "0",
    "0.0.0.0",
    "0x0",
    "00",
    "0.0",
    "[::]",
    "[::ffff:0.0.0.0]",
    "0.0.0.1",
    # metadata
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0xA9.0xFE.0xA9.0xFE",
    "0251.0376.0251.0376",
    "169.254.43518",
    "169.16689662",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[::169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::a9fe:a9fe]",
    "[2002:a9fe:a9fe::]",
    "[2001:0:a9fe:a9fe::]",
    "[2001:0:1414:1414:0:0:5601:5601]",  # Teredo: the client inverted
    "[fd00:ec2::254]",
    "[fd20:ce::254]",
    "[fe80::a9fe:a9fe]",
    "168.63.129.16",
    "[::ffff:168.63.129.16]",
    "100.100.100.200",
    "192.0.0.192",
    # private and reserved
    "10.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "100.64.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "198.51.100.1",
    "203.0.113.1",
    "192.88.99.1",
    "240.0.0.1",
    "255.255.255.255",
    "224.0.0.1",
    "[fc00::1]",
    "[fd12:3456::1]",
    "[fec0::1]",
    "[fe80::1]",
    "[ff02::1]",
    "[100::1]",
    "[2001:db8::1]",
    "[3fff::1]",
    "[4000::1]",
    "[::2]",
    # own, though public
    *(f"[{address}]" if ":" in address else address for address in stage.OWN),
    "[::ffff:20.20.30.1]",
    "[64:ff9b::1414:1e01]",
    "[2002:1414:1e01::1]",
]


@pytest.mark.parametrize("host", SPELLINGS, ids=ascii)
@pytest.mark.parametrize("way", ["connect", "absolute"])
def test_ssrf_01_addresses_in_every_spelling(
    way: str, host: str, alice: Client, upstream: Upstream, dialled: Dialled
) -> None:
    if way == "connect":
        with alice.plain() as wire:
            answer = send(wire, alice.connect_request(host), is_head=True)
        if answer is not None and answer.status == 200:
            # Egress is judged per request, inside of the tunnel.
            answer = ask(alice, request("GET", "/", host=host), host, sni=None)
        refused(answer, "bad_request", "address_not_allowed", "upstream_unreachable")
    else:
        data = request("GET", f"http://{host}/", *alice.identity, host=host)
        with alice.plain() as wire:
            refused(send(wire, data), "bad_request", "address_not_allowed", "upstream_unreachable")
    assert dialled() == []
    assert upstream.take() == []


@pytest.mark.parametrize("host", ["20.20.20.20", "[2600:1234::20]", "[::ffff:20.20.20.20]"])
def test_ssrf_00_a_public_address_is_dialled(
    host: str, alice: Client, upstream: Upstream, dialled: Dialled
) -> None:
    with alice.plain() as wire:
        # A POST is never sent over a connection that rests: two of these are one address.
        data = request("POST", f"http://{host}/echo", *alice.identity, host=host)
        accepted(send(wire, data))
    assert {a.port for a in dialled()} == {80}


# --- what DNS says -------------------------------------------------------------------------------

BAD_ADDRESSES = [
    "127.0.0.1",
    "127.0.50.1",
    "0.0.0.0",
    "10.1.2.3",
    "172.20.1.1",
    "192.168.1.1",
    "169.254.169.254",
    "169.254.1.1",
    "168.63.129.16",
    "100.100.100.200",
    "100.64.1.1",
    "192.0.0.192",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::2",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:10.1.2.3",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a01:203",
    "100::1",
    "2001::1",
    "2001:0:a9fe:a9fe::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "3fff::1",
    "5f00::1",
    *stage.OWN,
]
REFUSALS = ("address_not_allowed", "upstream_unreachable")


@pytest.mark.parametrize("address", BAD_ADDRESSES)
def test_ssrf_02_a_name_for_what_is_inside(
    address: str, alice: Client, dns: NameServer, dialled: Dialled
) -> None:
    host = fresh()
    dns.set(host, address)
    refused(ask(alice, request("GET", "/", host=host), host), *REFUSALS)
    assert dialled() == []


GOOD_V4, GOOD_V6 = SITES[ALLOWED], SITES["six.test"]
MIXED: dict[str, tuple[str, ...]] = {
    "private after public": (GOOD_V4, "10.1.2.3"),
    "private before public": ("10.1.2.3", GOOD_V4),
    "AAAA bad": (GOOD_V4, "::1"),
    "A bad": ("127.0.0.1", GOOD_V6),
    "metadata last of many": (*(f"20.20.20.{n}" for n in range(1, 40)), "169.254.169.254"),
    "mapped": (GOOD_V4, "::ffff:10.1.2.3"),
    "own": (GOOD_V4, stage.OWN[0]),
    "nobody": (GOOD_V4, "0.0.0.0"),
}


@pytest.mark.parametrize("addresses", MIXED.values(), ids=MIXED.keys())
def test_ssrf_03_one_bad_answer_spoils_all(
    addresses: tuple[str, ...], alice: Client, dns: NameServer, dialled: Dialled
) -> None:
    host = fresh()
    dns.set(host, *addresses)
    refused(ask(alice, request("GET", "/", host=host), host), *REFUSALS)
    assert dialled() == []


@pytest.mark.parametrize("requests", [1, 3])
@pytest.mark.parametrize("bad", ["127.0.0.1", "169.254.169.254", "10.1.2.3", "::1"])
def test_ssrf_03_flip(
    bad: str, requests: int, alice: Client, dns: NameServer, dialled: Dialled
) -> None:
    """Good when it is checked, bad when it is dialled: TTL 0, and a counter in the name server."""
    host = fresh()
    dns.set(host, rounds=((GOOD_V4,), (bad,)))
    for _ in range(requests):
        with alice.plain() as wire:
            send(wire, request("GET", f"http://{host}/echo", *alice.identity, host=host))
    assert {a.address for a in dialled()} <= {GOOD_V4}


def test_ssrf_03_flip_between_the_two_types(
    alice: Client, dns: NameServer, dialled: Dialled
) -> None:
    host = fresh()
    dns.set(host, rounds=(*((GOOD_V4, "::1"),) * WORKERS, (GOOD_V4,)))  # each keeps its answer
    for _ in range(3):
        with alice.plain() as wire:
            send(wire, request("GET", f"http://{host}/echo", *alice.identity, host=host))
    assert dialled() == []


ODD: dict[str, dict[str, object]] = {
    "alias to inside": {"rounds": (("10.1.2.3",),), "alias": "db.corp.internal"},
    "alias to localhost": {"rounds": (("127.0.0.1",),), "alias": "localhost"},
    "cut off, then inside": {"rounds": (("10.1.2.3",),), "truncated": True},
    "slow, then inside": {"rounds": (("10.1.2.3",),), "delay_s": 1.0},
    "failure": {"code": SERVER_FAILURE},
    "refusal": {"code": DNS_REFUSED},
    "no address": {},
    "many, one inside": {"rounds": ((*(f"20.20.20.{n}" for n in range(90)), "10.1.2.3"),)},
    "hundreds over TCP, the last one inside": {
        "rounds": ((*(f"20.20.{a}.{b}" for a in (20, 21) for b in range(200)), "10.1.2.3"),),
        "truncated": True,
    },
    "hundreds of both types, one inside": {
        "rounds": (
            (
                *(f"20.20.20.{n}" for n in range(150)),
                *(f"2600:1234::{n:x}" for n in range(2, 150)),
                "fd00::1",
            ),
        ),
        "truncated": True,
    },
    "alias to itself and inside": {"rounds": (("169.254.169.254",),), "alias": "self.alias.test"},
    "failure with an address": {"rounds": (("10.1.2.3",),), "code": SERVER_FAILURE},
}


@pytest.mark.parametrize("zone", ODD.values(), ids=ODD.keys())
def test_ssrf_03_odd_answers(
    zone: dict[str, object], alice: Client, dns: NameServer, dialled: Dialled
) -> None:
    host = fresh()
    dns.set(host, **zone)
    refused(ask(alice, request("GET", "/", host=host), host), *REFUSALS)
    assert dialled() == []


FINE: dict[str, dict[str, object]] = {
    "plain": {"rounds": ((GOOD_V4,),)},
    "alias": {"rounds": ((GOOD_V4,),), "alias": "cdn.vendor.test"},
    "cut off over UDP": {"rounds": ((GOOD_V4,),), "truncated": True},
    "slow": {"rounds": ((GOOD_V4,),), "delay_s": 0.5},
    "both types": {"rounds": ((GOOD_V4, GOOD_V6),)},
    "seen through NAT64": {"rounds": ((GOOD_V4, "64:ff9b::1414:1414"),)},
    "hundreds over TCP": {"rounds": ((GOOD_V4,) * 300,), "truncated": True},
}


@pytest.mark.parametrize("zone", FINE.values(), ids=FINE.keys())
def test_ssrf_00_the_same_answers_with_a_public_address(
    zone: dict[str, object], alice: Client, dns: NameServer, dialled: Dialled, upstream: Upstream
) -> None:
    host = fresh()
    dns.set(host, **zone)
    with alice.plain() as wire:
        data = request("GET", f"http://{host}/echo", *alice.identity, host=host)
        accepted(send(wire, data))
    assert {a.address for a in dialled()} <= {GOOD_V4, GOOD_V6, "64:ff9b::1414:1414"}


def settled(dns: NameServer) -> None:
    """Wait until nothing of earlier requests is under way: a lookup that was given up goes on."""
    end = time.monotonic() + 15
    while time.monotonic() < end:
        time.sleep(2.2)  # the C library asks again after two seconds
        if not dns.take_queries():
            return


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "sixty-four names at once"])
def test_ssrf_03_answers_that_do_not_come(
    alone: bool, alice: Client, bob: Client, dns: NameServer, dialled: Dialled, upstream: Upstream
) -> None:
    """A name server that keeps silent shuts out nobody whose own names were answered before."""
    for _ in range(1 if WORKERS == 1 else 20 * WORKERS):  # until each worker knows it
        accepted(ask(bob, request("GET", "/echo", host="six.test"), "six.test"))
    upstream.take()
    time.sleep(5.1)  # answers are kept for 5 s; from here on bob's name is asked again
    dialled()
    hosts = [fresh() for _ in range(1 if alone else 64)]
    for host in hosts:
        dns.set(host, GOOD_V4, delay_s=30.0)
    with ExitStack() as stack:
        wires = [stack.enter_context(alice.plain()) for _ in hosts]
        for wire, host in zip(wires, hosts, strict=True):
            wire.send(request("GET", f"http://{host}/", *alice.identity, host=host))
        begun = time.monotonic()
        accepted(ask(bob, request("GET", "/echo", host="six.test"), "six.test"))
        assert time.monotonic() - begun < 5
        assert [r.sni for r in upstream.take()] == ["six.test"]
        refused(wires[0].read(), "upstream_unreachable")
    assert upstream.take() == []
    assert {a.address for a in dialled()} <= {GOOD_V6}
    settled(dns)  # or the tests that follow would see its questions


# --- nothing before policy -----------------------------------------------------------------------


@pytest.mark.parametrize("host", ["10.1.2.3", ALLOWED, "denied.test", "never.rebind.test"])
@pytest.mark.parametrize("then", ["close", "handshake"])
def test_ssrf_04_connect_alone_dials_nothing(
    host: str, then: str, alice: Client, dns: NameServer, dialled: Dialled
) -> None:
    """An eager CONNECT is a port scanner."""
    dns.take_queries()
    if then == "close":
        with alice.plain() as wire:
            send(wire, alice.connect_request(host), is_head=True)
    else:
        with alice.tunnel(host, sni=None):
            pass
    assert dialled() == []
    assert dns.take_queries() == []


UNFIT: dict[str, bytes] = {
    "denied by egress": request("GET", "/", host="denied.test"),
    "secret for another host": request("GET", "/", "X: {{secrets.key.a}}", host="thief.test"),
    "secret of nobody": request("GET", "/", "X: {{secrets.nobody.key}}", host="thief.test"),
    "malformed": b"GET / HTTP/1.1\r\nHost: thief.test\r\nX\r\n\r\n",
    "another host": request("GET", "/", host="evil.test"),
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "a body that is refused": request(
        "POST", "/", "Content-Type: text/plain", host="thief.test", body=b"{{secrets.key.a}}"
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_ssrf_04_nothing_is_dialled_before_policy_has_passed(
    name: str, alice: Client, dns: NameServer, dialled: Dialled
) -> None:
    dns.take_queries()
    host = "denied.test" if name == "denied by egress" else "thief.test"
    refused(ask(alice, UNFIT[name], host))
    assert dialled() == []
    assert dns.take_queries() == []


def test_ssrf_04_nothing_is_dialled_for_a_stranger(
    stranger: Client, dns: NameServer, dialled: Dialled
) -> None:
    dns.take_queries()
    for data in (
        stranger.connect_request(ALLOWED),
        request("GET", f"http://{ALLOWED}/", host=ALLOWED),
    ):
        with stranger.plain() as wire:
            refused(send(wire, data), "proxy_auth_required")
    assert dialled() == []
    assert dns.take_queries() == []


# --- ourselves -----------------------------------------------------------------------------------

SELVES = ["127.0.0.1", "[::1]", "127.0.0.2", "0.0.0.0", "localhost", "self.rebind.test"]
SELVES += ["20.20.30.1", "[::ffff:127.0.0.1]", socket.gethostname().lower(), "127.0.0.2."]


@pytest.mark.parametrize("host", SELVES)
@pytest.mark.parametrize("port", ["own", "8081", "53"])
@pytest.mark.parametrize("way", ["connect", "absolute"])
def test_ssrf_05_the_proxy_and_the_admin_port(
    way: str, port: str, host: str, alice: Client, dns: NameServer, dialled: Dialled, proxy: Target
) -> None:
    dns.set("self.rebind.test", "127.0.0.1")
    number = proxy.port if port == "own" else int(port)
    name = f"{host}:{number}"
    if way == "connect":
        refused(ask(alice, request("GET", "/", host=name), host, port=number, sni=None))
    else:
        with alice.plain() as wire:
            refused(send(wire, request("GET", f"http://{name}/", *alice.identity, host=name)))
    assert dialled() == []


@pytest.mark.parametrize(
    "host", ["mitm.it", "proxy", "wpad", "wpad.corp.internal", "coatcheck", "config.mitm.it"]
)
@pytest.mark.parametrize("path", ["/", "/cert/pem", "/proxy.pac", "/.well-known/x"])
def test_ssrf_06_the_proxy_serves_no_pages(
    path: str, host: str, alice: Client, dialled: Dialled
) -> None:
    with alice.plain() as wire:
        answer = send(wire, request("GET", f"http://{host}{path}", *alice.identity, host=host))
    refused(answer, "upstream_unreachable")
    assert dialled() == []


def test_ssrf_07_open_closed_and_filtered_are_one_answer(alice: Client, dialled: Dialled) -> None:
    """Inside, nothing is tried, so nothing can be told apart."""
    pages = set()
    for name in ("10.1.2.3:80", "10.1.2.3:1", "10.9.9.9:80", "192.168.0.1:443", "127.0.0.1:22"):
        with alice.plain() as wire:
            data = request("GET", f"http://{name}/", *alice.identity, host=name)
            answer = refused(send(wire, data), "address_not_allowed")
        assert answer is not None
        host = name.partition(":")[0]
        problem = {**answer.problem, "request_id": "", "host": ""} if answer.code else {}
        pages.add((answer.status, tuple(sorted(problem.items()))))
        assert host == answer.problem.get("host", host) if answer.code else True
    assert len(pages) == 1
    assert dialled() == []


REDIRECTS = [b"Location: http://10.1.2.3/", b"Location: http://169.254.169.254/latest/meta-data/"]
REDIRECTS += [b"Refresh: 0;url=http://127.0.0.1:8081/", b'Alt-Svc: h3="10.1.2.3:443"']
REDIRECTS += [b"Link: <http://10.1.2.3/>; rel=preload", b'Alt-Svc: h2=":8443"; persist=1']


@pytest.mark.parametrize("line", REDIRECTS, ids=repr)
def test_ssrf_08_pointers_inside_are_not_followed(
    line: bytes, alice: Client, upstream: Upstream, scripts: Scripts, dialled: Dialled
) -> None:
    path = scripts.add(b"HTTP/1.1 302 Found\r\n" + line + b"\r\nContent-Length: 0\r\n\r\n")
    answer = ask(alice, request("GET", path, host=ALLOWED))
    assert answer is not None
    assert answer.status == 302
    assert answer.all("alt-svc") == []  # it would lead the client round the proxy
    assert {a.address for a in dialled()} <= {GOOD_V4}


SCHEMES = [
    "ftp://allowed.test/",
    "file:///etc/passwd",
    "file://allowed.test/etc/passwd",
    "gopher://allowed.test:70/_x",
    "ws://allowed.test/",
    "wss://allowed.test/",
    "unix:///run/docker.sock",
    "http+unix://%2Frun%2Fdocker.sock/",
    "http:/allowed.test/",
    "http:allowed.test/",
    "http:///allowed.test/",
    "http://",
    "http:///",
    "http://:80/",
    "://allowed.test/",
    "//allowed.test/",
    "data:text/plain,x",
    "javascript:alert(1)",
    "http\\://allowed.test/",
    "ldap://allowed.test/",
    "dict://allowed.test:6379/info",
    "jar:http://allowed.test/!/",
    "httpx://allowed.test/",
    "http ://allowed.test/",
]


@pytest.mark.parametrize("target", SCHEMES)
def test_ssrf_10_other_schemes(
    target: str, alice: Client, upstream: Upstream, dns: NameServer, dialled: Dialled
) -> None:
    dns.take_queries()
    with alice.plain() as wire:
        refused(send(wire, request("GET", target, *alice.identity, host=ALLOWED)), "bad_request")
    assert upstream.take() == []
    assert dialled() == []
    assert dns.take_queries() == []


def test_ssrf_10_https_in_absolute_form(alice: Client, upstream: Upstream) -> None:
    """Either TLS to the host, or a refusal; never in the open."""
    with alice.plain() as wire:
        send(wire, request("GET", f"https://{ALLOWED}/echo", *alice.identity, host=ALLOWED))
    assert all(r.sni == ALLOWED for r in upstream.take())
