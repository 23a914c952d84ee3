"""HOST: a request names its destination up to four times, and an attacker makes them differ."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.attacks.client import Client, accepted, ask, refused, send
from tests.attacks.dns import NameServer
from tests.attacks.sites import Scripts
from tests.attacks.stage import ALLOWED, EVIL, IS_NAIVE, KEY_A, SITES, THIEF, VALUES, Target
from tests.attacks.watch import Attempt
from tests.e2e.upstream import Upstream
from tests.e2e.wire import request

KEY = "Authorization: Bearer {{secrets.key.a}}"
Dialled = Callable[[], list[Attempt]]


def get(*lines: str | bytes, target: str | bytes = "/echo", host: str = ALLOWED) -> bytes:
    return request("GET", target, *lines, host=host)


def without_host(*lines: str) -> bytes:
    return "\r\n".join(["GET /echo HTTP/1.1", *lines, "", ""]).encode()


# --- the other side of the fence -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "secret"),
    [
        (ALLOWED, "key.a"),
        ("a.wild.test", "wild.key"),
        ("a.b.wild.test", "wild.key"),
        (EVIL, "roam.key"),
        (THIEF, "roam.key"),
        ("six.test", "roam.key"),
    ],
)
def test_host_00_the_right_way_works(
    host: str, secret: str, alice: Client, upstream: Upstream
) -> None:
    line = "Authorization: Bearer {{secrets.%s}}" % secret  # noqa: UP031
    accepted(ask(alice, get(line, host=host), host))
    received = upstream.one()
    assert received.sni == host
    assert received.all("authorization") == [b"Bearer " + VALUES[secret]]


# --- CONNECT, SNI and Host -----------------------------------------------------------------------

HOSTILE = [EVIL, THIEF, f"x.{ALLOWED}", "evil-allowed.test", f"{ALLOWED}.evil.test"]


@pytest.mark.parametrize("evil", [EVIL, THIEF])
def test_host_01_tunnel_to_another_with_the_right_host(
    evil: str, alice: Client, upstream: Upstream
) -> None:
    refused(ask(alice, get(KEY), evil, sni=evil), "destination_mismatch")
    assert upstream.take() == []


@pytest.mark.parametrize("sni", [*HOSTILE, "localhost", "127.0.0.1.nip.test", "sub.a.wild.test"])
def test_host_02_sni_differs(sni: str, alice: Client, upstream: Upstream, dialled: Dialled) -> None:
    """evil.test is served at the same address: only the name sent upstream would tell."""
    refused(ask(alice, get(KEY), sni=sni), "destination_mismatch")
    assert upstream.take() == []
    assert dialled() == []


@pytest.mark.parametrize("host", [*HOSTILE, "allowed.test:8443", "allowed.test:80", "20.20.20.20"])
def test_host_03_host_differs(
    host: str, alice: Client, upstream: Upstream, dialled: Dialled
) -> None:
    refused(ask(alice, get(KEY, host=host)), "destination_mismatch", "bad_request")
    assert upstream.take() == []
    assert dialled() == []


ABSOLUTE = [
    f"https://{EVIL}/x",
    f"http://{ALLOWED}/x",
    f"https://{ALLOWED}:8443/x",
    f"https://user@{ALLOWED}/x",
    f"https://{ALLOWED}@{EVIL}/x",
    f"https://{EVIL}#@{ALLOWED}/x",
    f"https://{EVIL}\\@{ALLOWED}/x",
    f"HTTPS://{EVIL}/x",
    f"//{EVIL}/x@https://{EVIL}",
    f"https:{EVIL}/x",
    f"{EVIL}:443",
    "*",
    "",
    "x",
    "?x",
]


@pytest.mark.parametrize("target", ABSOLUTE)
def test_host_04_absolute_form_in_a_tunnel(
    target: str, alice: Client, upstream: Upstream, dialled: Dialled
) -> None:
    """Origins must prefer the target to the Host field (RFC 9112, section 3.2.2)."""
    answer = ask(alice, get(KEY, target=target))
    received = upstream.take()
    if target.startswith("//"):  # a path with an empty first segment, as good as any
        assert all(r.target.startswith(b"/") and r.sni == ALLOWED for r in received)
        return
    refused(answer, "destination_mismatch", "bad_request")
    assert received == []
    assert dialled() == []


TWO_HOSTS = {
    "allowed first": (f"Host: {ALLOWED}", f"Host: {EVIL}"),
    "evil first": (f"Host: {EVIL}", f"Host: {ALLOWED}"),
    "the same twice": (f"Host: {ALLOWED}", f"Host: {ALLOWED}"),
    "lower case": (f"Host: {ALLOWED}", f"host: {EVIL}"),
    "upper case": (f"HOST: {EVIL}", f"Host: {ALLOWED}"),
    "a list": (f"Host: {ALLOWED}, {EVIL}",),
    "a list without a space": (f"Host: {ALLOWED},{EVIL}",),
    "none": (),
    "empty": ("Host: ",),
    "space before the colon": (f"Host: {ALLOWED}", f"Host : {EVIL}"),
    "folded": ("Host:", f" {EVIL}"),
    "underscore": (f"Host: {ALLOWED}", f"Ho_st: {EVIL}", f"Host: {EVIL}"),
    "userinfo": (f"Host: x@{ALLOWED}",),
    "path": (f"Host: {ALLOWED}/x",),
    "spaces inside": ("Host: allowed .test",),
    "scheme": (f"Host: https://{ALLOWED}",),
}


@pytest.mark.parametrize("lines", TWO_HOSTS.values(), ids=TWO_HOSTS.keys())
def test_host_05_not_exactly_one_host(
    lines: tuple[str, ...], alice: Client, upstream: Upstream, dialled: Dialled
) -> None:
    refused(ask(alice, without_host(*lines, KEY)), "bad_request", "destination_mismatch")
    assert upstream.take() == []
    assert dialled() == []


@pytest.mark.parametrize("sni", [None, "ALLOWED.test", "Allowed.Test", "allowed.test."])
def test_host_07_sni_in_another_spelling(
    sni: str | None, alice: Client, upstream: Upstream
) -> None:
    """It works, or it is refused; what goes upstream is one canonical name either way."""
    answer = ask(alice, get(KEY), sni=sni)
    for received in upstream.take():
        assert received.sni == ALLOWED
        accepted(answer)


NO_NAMES = [b"20.20.20.20", b"allowed_test", b"allowed.test..", b"evil.test\x01.allowed.test"]
NO_NAMES += [
    b"xn--llowed-4ve.test",
    b"evil.test@allowed.test",
    b"allowed.test:443",
    b" allowed.test",
]
NO_NAMES += [b"{{secrets.key.a}}", b"\xff\xfe", b"a" * 255, b"*.test", b"evil.test\r\nX: y"]


@pytest.mark.parametrize("sni", NO_NAMES, ids=ascii)
def test_host_07_sni_that_is_no_name(sni: bytes, alice: Client, upstream: Upstream) -> None:
    """Refused; or taken for none, and then the upstream sees the name of the CONNECT."""
    answer = ask(alice, get(KEY), sni=sni)
    for received in upstream.take():
        assert received.sni == ALLOWED
        assert answer is not None
        assert answer.status == 200


ORIGIN_FORM = [
    b"GET / HTTP/1.1\r\nHost: %HOST%\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:8081\r\n\r\n",
    b"GET /secrets HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: %HOST%\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: %HOST%\r\n\r\n",
    b"GET %HOST%/x HTTP/1.1\r\nHost: %HOST%\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: %HOST%\r\nContent-Length: 0\r\n\r\n",
]


@pytest.mark.parametrize("data", ORIGIN_FORM)
def test_host_08_origin_form_to_the_proxy_itself(
    data: bytes, alice: Client, upstream: Upstream, dialled: Dialled
) -> None:
    identity = alice.identity[0].encode() + b"\r\n" + KEY.encode() + b"\r\n\r\n"
    data = data.replace(b"%HOST%", ALLOWED.encode())[:-2] + identity
    with alice.plain() as wire:
        refused(send(wire, data), "bad_request")
    assert upstream.take() == []
    assert dialled() == []


@pytest.mark.parametrize("target", [f"http://{ALLOWED}/echo", f"HTTP://{ALLOWED}:80/echo"])
@pytest.mark.parametrize("secret", ["key.a", "plain.key", "roam.key"])
def test_host_09_cleartext(target: str, secret: str, alice: Client, upstream: Upstream) -> None:
    line = "X-Key: {{secrets.%s}}" % secret  # noqa: UP031
    with alice.plain() as wire:
        refused(
            send(wire, get(*alice.identity, line, target=target)),
            "plaintext_not_allowed",
            "domain_not_allowed",
        )
    assert upstream.take() == []


def test_host_09_cleartext_without_a_secret_works(alice: Client, upstream: Upstream) -> None:
    with alice.plain() as wire:
        accepted(send(wire, get(*alice.identity, target=f"http://{ALLOWED}/echo")))
    assert upstream.one().host == "allowed.test:80"


@pytest.mark.parametrize("host", [EVIL, THIEF])
@pytest.mark.parametrize("before", [1, 5])
def test_host_10_second_request_differs(
    host: str, before: int, alice: Client, upstream: Upstream
) -> None:
    """Each request of a tunnel is judged alone."""
    with alice.tunnel() as wire:
        for _ in range(before):
            accepted(send(wire, get(KEY)))
        refused(send(wire, get(KEY, host=host)), "destination_mismatch")
    assert [r.sni for r in upstream.take()] == [ALLOWED] * before


def test_host_10_plain_requests_to_two_hosts(alice: Client, upstream: Upstream) -> None:
    """On one connection to the proxy each request goes to its own host."""
    with alice.plain() as wire:
        for host in (ALLOWED, THIEF, ALLOWED):
            data = get(*alice.identity, target=f"http://{host}/echo", host=host)
            accepted(send(wire, data))
    hosts = [r.host for r in upstream.take()]
    assert hosts == ["allowed.test:80", "thief.test:80", "allowed.test:80"]


HOLDS = "{{secrets.wild.key}}.wild.test"


@pytest.mark.parametrize("where", ["connect", "host", "sni", "absolute", "urlsafe"])
def test_host_11_placeholder_in_a_name(
    where: str, alice: Client, upstream: Upstream, dns: NameServer
) -> None:
    """The value would stand in DNS questions and in the TLS server name."""
    dns.take_queries()
    urlsafe = "__secrets.wild.key__.wild.test"
    match where:
        case "connect":
            with alice.plain() as wire:
                refused(send(wire, alice.connect_request(HOLDS)), "bad_request")
        case "host":
            refused(ask(alice, get(host=HOLDS), "a.wild.test"), "bad_request")
        case "sni":
            refused(ask(alice, get(host="a.wild.test"), "a.wild.test", sni=urlsafe))
        case "absolute":
            with alice.plain() as wire:
                refused(send(wire, get(*alice.identity, target=f"http://{HOLDS}/", host=HOLDS)))
        case "urlsafe":
            refused(ask(alice, get(host=urlsafe), urlsafe))
    value = VALUES["wild.key"].lower()
    assert upstream.take() == []
    assert [name for name in dns.take_queries() if value.decode() in name.lower()] == []


IGNORED = [
    "X-Forwarded-Host",
    "X-Host",
    "X-HTTP-Host-Override",
    "X-Original-URL",
    "X-Rewrite-URL",
    "Forwarded",
    "X-Forwarded-Server",
    "X-Forwarded-Proto",
    ":authority",
]


@pytest.mark.parametrize("name", IGNORED)
@pytest.mark.parametrize(("real", "claimed"), [(ALLOWED, EVIL), (THIEF, ALLOWED)])
def test_host_12_fields_that_claim_a_host(
    name: str, real: str, claimed: str, alice: Client, upstream: Upstream
) -> None:
    value = f"host={claimed}" if name == "Forwarded" else claimed
    answer = ask(alice, get(KEY, f"{name}: {value}", host=real), real)
    if real != ALLOWED:
        refused(answer, "domain_not_allowed", "bad_request")
    sent = upstream.take()
    assert [r.sni for r in sent] in ([], [real])
    assert not any(KEY_A in r.bytes for r in sent if r.sni != ALLOWED)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_host_13_redirects_are_not_followed(
    status: int, alice: Client, upstream: Upstream, scripts: Scripts
) -> None:
    location = f"Location: https://{THIEF}/?k=".encode() + b"%TOKEN%"
    head = b"HTTP/1.1 %d Found\r\n%b\r\nContent-Length: 0\r\n\r\n" % (status, location)
    path = scripts.add(head, keep=True)
    answer = ask(alice, get(KEY, target=path))
    assert answer is not None
    assert answer.status == status
    assert KEY_A not in answer.raw
    assert [r.sni for r in upstream.take()] == [ALLOWED]
    # The client follows, and its placeholder stays one.
    refused(ask(alice, get(KEY, host=THIEF), THIEF), "domain_not_allowed")
    assert upstream.take() == []


PORTS = ["22", "25", "0443", "+443", "65536", "", "0", "443 ", "44３", "0x1bb", "-1", "443:443"]


@pytest.mark.parametrize("port", PORTS)
def test_host_15_ports(port: str, alice: Client, upstream: Upstream, dialled: Dialled) -> None:
    """Not the port of the secret, or no port at all."""
    with alice.plain() as wire:
        authority = f"{ALLOWED}:{port}".encode()
        data = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n" % (authority, authority)
        data += alice.identity[0].encode() + b"\r\n\r\n"
        answer = send(wire, data, is_head=True)
    if port not in ("22", "25"):
        refused(answer, "bad_request")
    if port in ("22", "25"):
        refused(
            ask(alice, get(KEY, host=f"{ALLOWED}:{port}"), port=int(port)), "domain_not_allowed"
        )
    assert upstream.take() == []
    assert dialled() == []


def test_host_15_the_port_of_the_secret(alice: Client, upstream: Upstream) -> None:
    line = "X-Key: {{secrets.port.key}}"
    accepted(ask(alice, get(line, host=f"{ALLOWED}:8443"), port=8443))
    assert upstream.one().all("x-key") == [VALUES["port.key"]]
    refused(ask(alice, get(line)), "domain_not_allowed")
    assert upstream.take() == []


# --- MATCH: which name is it? --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "fits"),
    [("a.wild.test", True), ("a.b.wild.test", True)]
    + [(h, False) for h in ("wild.test", "evil-wild.test", "wild.test.evil.test")],
)
def test_match_01_wildcard(host: str, fits: bool, alice: Client, upstream: Upstream) -> None:
    answer = ask(alice, get("X-Key: {{secrets.wild.key}}", host=host), host)
    if fits:
        accepted(answer)
    else:
        refused(answer, "domain_not_allowed")
    assert [VALUES["wild.key"] in r.bytes for r in upstream.take()] == ([True] if fits else [])


SPELLINGS = [
    "ALLOWED.TEST",
    "Allowed.test",
    "allowed.test.",
    "[allowed.test]",
    "allowed%2etest",
    "%61llowed.test",
    "allowed.test..",
    ".allowed.test",
    "allowed..test",
    "ａllowed.test",
    "allowed。test",
    "аllowed.test",  # Cyrillic а
    "xn--allowed-.test",
    "allo­wed.test",
    "allo‍wed.test",
    "allowed.test%00",
    "allowed.test%00.evil.test",
    "0x14.20.20.20",
]


@pytest.mark.parametrize("spelling", SPELLINGS, ids=ascii)
def test_match_02_spellings_of_the_host(
    spelling: str, alice: Client, upstream: Upstream, dns: NameServer
) -> None:
    """Equal to the name, or refused; never judged as one name and dialled as another."""
    dns.take_queries()
    raw = spelling.encode()
    with alice.plain() as wire:
        answer = send(wire, alice.connect_request(raw), is_head=True)
    if spelling.rstrip(".").lower() == ALLOWED and not spelling.endswith(".."):
        assert answer is not None
        assert answer.status == 200
    else:
        refused(answer, "bad_request")
    assert set(dns.take_queries()) <= {ALLOWED}
    assert upstream.take() == []


BYTES = [b"\x00", b"\t", b"\r", b"\n", b"\\", b"#", b"?", b"@", b" ", b"\x7f", b"\x80", b"\xff"]
BYTES += [b"%00", b"%23", b"/", b"\xc0\xae", b"\xe2\x80\xae", b"\x1b[2J", b"{", b"<", b",", b";"]


@pytest.mark.parametrize("byte", BYTES, ids=repr)
@pytest.mark.parametrize("where", ["connect", "host", "absolute"])
def test_match_03_bytes_no_name_has(
    where: str, byte: bytes, alice: Client, upstream: Upstream, dns: NameServer, dialled: Dialled
) -> None:
    dns.take_queries()
    name = b"evil.test" + byte + b".allowed.test"
    match where:
        case "connect":
            with alice.plain() as wire:
                refused(send(wire, alice.connect_request(name)), "bad_request")
        case "host":
            data = b"GET /echo HTTP/1.1\r\nHost: " + name + b"\r\n" + KEY.encode() + b"\r\n\r\n"
            refused(ask(alice, data), "bad_request", "destination_mismatch")
        case "absolute":
            line = b"GET http://" + name + b"/echo HTTP/1.1\r\nHost: " + name + b"\r\n"
            with alice.plain() as wire:
                refused(send(wire, line + alice.identity[0].encode() + b"\r\n\r\n"))
    assert upstream.take() == []
    # Nothing is done for a name that is none: not even a question is asked.
    if not IS_NAIVE:
        assert dialled() == []
        assert dns.take_queries() == []


def test_match_04_the_search_list_is_not_used(
    alice: Client, dns: NameServer, upstream: Upstream, proxy: Target
) -> None:
    """``allowed`` must not become ``allowed.corp.internal``."""
    dns.set("intra.corp.internal", SITES[ALLOWED])
    dns.take_queries()
    refused(ask(alice, get(host="intra"), "intra"), "upstream_unreachable")
    assert set(dns.take_queries()) == {"intra"}
    assert upstream.take() == []
