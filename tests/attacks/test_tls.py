"""TLS: an upstream that cannot prove its name gets not one byte of the request."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import pytest

from tests.attacks.client import Client, accepted, ask, refused, send
from tests.attacks.dns import NameServer
from tests.attacks.stage import ALLOWED, IS_NAIVE, VALUES, Coatcheck
from tests.attacks.tls_sites import BAD, COUNTED, GOOD, RAW, Counter
from tests.attacks.watch import Attempt
from tests.e2e.upstream import Upstream
from tests.e2e.wire import request

Dialled = Callable[[], list[Attempt]]
KEY = "Authorization: Bearer {{secrets.roam.key}}"


def get(host: str) -> bytes:
    return request("GET", "/echo", KEY, host=host)


@pytest.mark.parametrize("name", GOOD)
def test_tls_00_a_good_certificate(
    name: str, alice: Client, upstream: Upstream, cert_sites: dict[str, str]
) -> None:
    host = cert_sites[name]
    accepted(ask(alice, get(host), host))
    assert upstream.one().all("authorization") == [b"Bearer " + VALUES["roam.key"]]


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_tls_01_a_bad_certificate_gets_nothing(
    method: str, name: str, alice: Client, upstream: Upstream, cert_sites: dict[str, str]
) -> None:
    host = cert_sites[name]
    body = b"{{secrets.roam.key}}" if method == "POST" else b""
    data = request(method, "/echo", KEY, host=host, body=body)
    refused(ask(alice, data, host), "upstream_tls_failed")
    assert upstream.take() == []


@pytest.mark.parametrize("name", COUNTED)
def test_tls_02_not_one_byte_is_decrypted_there(
    name: str, alice: Client, counters: dict[str, Counter]
) -> None:
    """Counted by the upstream itself, below HTTP: half a request line would show."""
    host, counter = f"{name}.count.test", counters[name]
    answer = ask(alice, get(host), host)
    if name == "plain":
        accepted(answer)
        assert VALUES["roam.key"] in counter.heard
        return
    refused(answer, "upstream_tls_failed")
    assert counter.connections > 0
    assert counter.heard == b""


def test_tls_03_revocation_is_not_looked_at(
    alice: Client, upstream: Upstream, cert_sites: dict[str, str], dialled: Dialled, dns: NameServer
) -> None:
    """Not promised: a staple that the certificate asks for is not missed, no list is fetched."""
    host = cert_sites["wants-a-staple"]
    dns.take_queries()
    dialled()
    accepted(ask(alice, get(host), host))
    assert {a.port for a in dialled()} <= {443}
    assert "revoked.tls.test" not in dns.take_queries()


@pytest.mark.parametrize("name", RAW)
def test_tls_06_no_tls_at_all(
    name: str, alice: Client, upstream: Upstream, cert_sites: dict[str, str], raw_bytes: list[bytes]
) -> None:
    """It hears a ClientHello and an alert; nothing in them is a request."""
    raw_bytes.clear()
    host = cert_sites[name]
    refused(ask(alice, get(host), host), "upstream_tls_failed", "upstream_unreachable")
    heard = b"".join(raw_bytes)
    assert b"echo" not in heard
    assert VALUES["roam.key"][:8] not in heard
    assert upstream.take() == []


def test_tls_07_refused_without_a_secret_too(
    alice: Client, upstream: Upstream, cert_sites: dict[str, str]
) -> None:
    host = cert_sites["self-signed"]
    refused(ask(alice, request("GET", "/echo", host=host), host), "upstream_tls_failed")
    assert upstream.take() == []


def test_tls_08_every_failure_has_one_answer(
    alice: Client, cert_sites: dict[str, str], coatcheck: Coatcheck
) -> None:
    """Neither OpenSSL's words nor what was wrong."""
    pages = set()
    for name in BAD:
        host = cert_sites[name]
        answer = refused(ask(alice, get(host), host), "upstream_tls_failed")
        assert answer is not None
        pages.add(tuple(sorted({**answer.problem, "request_id": "", "host": ""}.items())))
    assert len(pages) == 1


@pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=lambda v: v.name
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_proto_05_old_tls_from_the_client(
    version: ssl.TLSVersion, alice: Client, upstream: Upstream
) -> None:
    with alice.plain() as outside:
        accepted(send(outside, alice.connect_request(ALLOWED), is_head=True))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        with pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(outside.sock, server_hostname=ALLOWED)
    assert upstream.take() == []


def test_proto_05_a_client_that_does_not_trust_us(alice: Client, upstream: Upstream) -> None:
    with alice.plain() as outside:
        accepted(send(outside, alice.connect_request(ALLOWED), is_head=True))
        with pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(outside.sock, server_hostname=ALLOWED)
    assert upstream.take() == []


def test_conf_03_the_leaf_names_the_host_alone(alice: Client) -> None:
    with alice.tunnel() as wire:
        cert = wire.sock.getpeercert()
    names = [value for kind, value in cert["subjectAltName"]]
    assert names == [ALLOWED] or IS_NAIVE


@pytest.mark.parametrize("sni", ["evil.test", "x.allowed.test", None])
def test_conf_03_whatever_the_client_calls_it(sni: str | None, alice: Client) -> None:
    with alice.tunnel(sni=sni) as wire:
        cert = wire.sock.getpeercert()
    assert [value for _, value in cert["subjectAltName"]] == [ALLOWED]
