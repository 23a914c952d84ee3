"""Promise G1 on the wire: no byte goes to an upstream that has not proved its name.

And the other side: the certificate that a client gets is for the host of its CONNECT alone.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import socket
import ssl
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from coatcheck.core.limits import Limits
from coatcheck.core.problems import Refused
from coatcheck.engine import tls
from coatcheck.engine.channel import Channel
from coatcheck.engine.dialer import Dialer
from tests.engine.sockets import (
    HOST,
    Proxy,
    Resolves,
    a_proxy,
    an_upstream,
    make_authority,
    server_context,
)

YEAR = datetime.timedelta(days=365)
NOW = datetime.datetime.now(datetime.UTC)
CA = trustme.CA()
OTHER = trustme.CA()
LEAF = CA.issue_cert("api.example.com")


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    path = tmp_path / "upstream-ca.pem"
    CA.cert_pem.write_to_path(path)
    return path


def a_dialer(ca: Path | None, resolver: object = None, **limits: float) -> Dialer:
    found = resolver or Resolves()
    return Dialer(found, tls.upstream_context(ca), Limits(**limits), tuple)  # type: ignore[arg-type]


class Nobody:
    """Owns a channel and does not listen."""

    def secured(self, channel: Channel, /) -> None: ...
    def closed(self, channel: Channel, /) -> None: ...
    def full(self, channel: Channel, /) -> None: ...
    def drained(self, channel: Channel, /) -> None: ...
    def crashed(self, channel: Channel, /) -> None: ...
    def received(self, channel: Channel, data: bytes, /) -> None: ...


async def code_of_dial(dialer: Dialer, port: int, host: str = HOST, *, secure: bool = True) -> str:
    """Dial and say a word; the code of the refusal, or "" if the connection was made."""
    async with asyncio.timeout(5):
        try:
            channel = await dialer.dial(host, port, tls=secure, owner=Nobody())
        except Refused as refused:
            return str(refused.problem.code)
        channel.write(b"a word\r\n\r\n")
        channel.close()
        await asyncio.sleep(0.05)  # for the upstream to read it
        return ""


# --- upstreams -------------------------------------------------------------------------------


def common_name_only() -> trustme.LeafCert:
    """Signed by the right CA for the right host, but the name stands in the subject alone."""
    return a_leaf(CA, [])


def self_signed() -> trustme.LeafCert:
    return a_leaf(None, [x509.DNSName(HOST)])


def a_leaf(ca: trustme.CA | None, names: list[x509.GeneralName]) -> trustme.LeafCert:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - YEAR)
        .not_valid_after(NOW + YEAR)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if ca is None:
        made = builder.issuer_name(subject).sign(key, hashes.SHA256())
    else:
        issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
        signer = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
        made = builder.issuer_name(issuer.subject).sign(signer, hashes.SHA256())  # type: ignore[arg-type]
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return trustme.LeafCert(pem, made.public_bytes(serialization.Encoding.PEM), [])


CERTIFICATES = [
    pytest.param(lambda: CA.issue_cert(HOST), HOST, "", id="good"),
    pytest.param(lambda: CA.issue_cert("*.example.com"), HOST, "", id="good, a wildcard"),
    pytest.param(lambda: CA.issue_cert("127.0.0.1"), "127.0.0.1", "", id="good, an address"),
    pytest.param(lambda: CA.issue_cert("evil.example.com"), HOST, "no", id="of another name"),
    pytest.param(lambda: CA.issue_cert("example.com"), HOST, "no", id="of the parent domain"),
    pytest.param(lambda: CA.issue_cert(f"x.{HOST}"), HOST, "no", id="of a subdomain"),
    pytest.param(lambda: CA.issue_cert("*.com"), HOST, "no", id="wildcard two labels up"),
    pytest.param(lambda: CA.issue_cert(HOST), "127.0.0.1", "no", id="of a name, for an address"),
    pytest.param(lambda: CA.issue_cert("127.0.0.2"), "127.0.0.1", "no", id="of another address"),
    pytest.param(common_name_only, HOST, "no", id="its name in the subject alone"),
    pytest.param(self_signed, HOST, "no", id="self-signed"),
    pytest.param(lambda: trustme.CA().issue_cert(HOST), HOST, "no", id="of an unknown CA"),
    pytest.param(
        lambda: CA.issue_cert(HOST, not_before=NOW - 2 * YEAR, not_after=NOW - YEAR),
        HOST,
        "no",
        id="expired",
    ),
    pytest.param(
        lambda: CA.issue_cert(HOST, not_before=NOW + YEAR, not_after=NOW + 2 * YEAR),
        HOST,
        "no",
        id="not yet valid",
    ),
]


@pytest.mark.parametrize(("make", "host", "refused"), CERTIFICATES)
async def test_an_upstream_proves_its_name_before_the_first_byte(
    make: Callable[[], trustme.LeafCert], host: str, refused: str, ca_file: Path
) -> None:
    async with an_upstream(context=server_context(make())) as upstream:
        code = await code_of_dial(a_dialer(ca_file), upstream.port, host)

    assert code == ("upstream_tls_failed" if refused else "")
    assert bytes(upstream.received) == (b"" if refused else b"a word\r\n\r\n")


async def test_without_upstream_ca_only_the_public_authorities_count() -> None:
    async with an_upstream(context=server_context(CA.issue_cert(HOST))) as upstream:
        assert await code_of_dial(a_dialer(None), upstream.port) == "upstream_tls_failed"

    assert upstream.received == b""


async def test_the_systems_own_bundle_is_not_asked(
    ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    monkeypatch.setenv("SSL_CERT_DIR", str(ca_file.parent))
    async with an_upstream(context=server_context(CA.issue_cert(HOST))) as upstream:
        assert await code_of_dial(a_dialer(None), upstream.port) == "upstream_tls_failed"


async def test_an_upstream_of_an_old_tls_is_refused(ca_file: Path) -> None:
    context = server_context(CA.issue_cert(HOST))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1

    async with an_upstream(context=context) as upstream:
        assert await code_of_dial(a_dialer(ca_file), upstream.port) == "upstream_tls_failed"


async def test_an_upstream_that_speaks_no_tls_gets_no_byte_of_http(ca_file: Path) -> None:
    async def banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    async with an_upstream(banner) as upstream:
        assert await code_of_dial(a_dialer(ca_file), upstream.port) == "upstream_tls_failed"

    assert b"a word" not in upstream.received


async def test_a_handshake_has_its_time(ca_file: Path) -> None:
    async def mute(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with an_upstream(mute) as upstream:
        dialer = a_dialer(ca_file, tls_handshake_timeout_s=0.2)
        assert await code_of_dial(dialer, upstream.port) == "upstream_tls_failed"


async def test_only_http_1_1_is_offered_and_the_name_is_told(ca_file: Path) -> None:
    context = server_context(CA.issue_cert(HOST))
    context.set_alpn_protocols(["h2", "http/1.1"])
    told: list[str | None] = []
    context.sni_callback = lambda _, name, __: told.append(name)
    chosen: list[str | None] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chosen.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await reader.read()

    async with an_upstream(note, context) as upstream:
        assert await code_of_dial(a_dialer(ca_file), upstream.port) == ""

    assert (told, chosen) == ([HOST], ["http/1.1"])


async def test_the_keys_of_a_connection_are_written_nowhere(
    ca_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    async with an_upstream(context=server_context(CA.issue_cert(HOST))) as upstream:
        assert await code_of_dial(a_dialer(ca_file), upstream.port) == ""

    assert not log.exists()


async def test_the_keys_of_a_clients_connection_are_written_nowhere(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "keys"
    of_the_client = proxy.trusting()  # it would log its own
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))

    _, writer = await proxy.tunnel("api.example.com:443", context=of_the_client)
    writer.transport.abort()

    assert not log.exists()


# --- dialling --------------------------------------------------------------------------------


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port whose queue is full: the kernel drops what asks for a connection."""
    with socket.socket() as listener, socket.socket() as first:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        first.connect(listener.getsockname())
        yield listener.getsockname()[1]


async def test_a_port_where_nobody_listens_is_unreachable(closed_port: int) -> None:
    assert await code_of_dial(a_dialer(None), closed_port) == "upstream_unreachable"


async def test_a_port_that_does_not_answer_is_unreachable_in_time(full_port: int) -> None:
    dialer = a_dialer(None, connect_timeout_s=0.3)

    assert await code_of_dial(dialer, full_port) == "upstream_unreachable"


async def test_a_name_that_does_not_resolve_in_time_is_unreachable() -> None:
    resolver = Resolves()
    resolver.gate.clear()

    code = await code_of_dial(a_dialer(None, resolver, connect_timeout_s=0.2), 1)

    assert code == "upstream_unreachable"


async def test_the_next_address_is_tried_when_one_is_down() -> None:
    async with an_upstream() as upstream:
        resolver = Resolves("127.0.0.9", "127.0.0.1")
        assert await code_of_dial(a_dialer(None, resolver), upstream.port, secure=False) == ""


@pytest.mark.parametrize(
    ("address", "code"),
    [
        pytest.param("127.0.0.1", "", id="the very address"),
        pytest.param("localhost", "upstream_unreachable", id="a name, which is resolved again"),
        pytest.param("127.1", "upstream_unreachable", id="a spelling of it that was not vetted"),
    ],
)
async def test_the_address_that_was_vetted_is_the_one_at_the_other_end(
    address: str, code: str
) -> None:
    async with an_upstream() as upstream:
        dialer = a_dialer(None, Resolves(address))
        assert await code_of_dial(dialer, upstream.port, secure=False) == code

    assert bytes(upstream.received) == (b"" if code else b"a word\r\n\r\n")


# --- clients ---------------------------------------------------------------------------------


@pytest.fixture
async def proxy(tmp_path: Path):  # type: ignore[no-untyped-def]
    async with a_proxy(tmp_path, 1) as made:
        yield made


async def leaf_of(proxy: Proxy, target: str, sni: str | None = None) -> x509.Certificate:
    """The certificate that a client gets for CONNECT *target*."""
    context = proxy.trusting()
    context.check_hostname = sni is None
    _, writer = await proxy.tunnel(target, sni=sni, context=context)
    raw = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return x509.load_der_x509_certificate(raw)


LEAVES = [
    pytest.param("api.example.com:443", [x509.DNSName("api.example.com")], id="a name"),
    pytest.param("API.Example.COM:443", [x509.DNSName("api.example.com")], id="made canonical"),
    pytest.param("api.example.com:8443", [x509.DNSName("api.example.com")], id="another port"),
    pytest.param(
        "20.20.20.20:443", [x509.IPAddress(ipaddress.ip_address("20.20.20.20"))], id="IPv4"
    ),
    pytest.param("[2600:0::20]:443", [x509.IPAddress(ipaddress.ip_address("2600::20"))], id="IPv6"),
    pytest.param(
        f"{'a' * 60}.example.com:443", [x509.DNSName(f"{'a' * 60}.example.com")], id="a long name"
    ),
]


@pytest.mark.parametrize(("target", "names"), LEAVES)
async def test_a_client_gets_a_certificate_for_its_connect_and_nothing_else(
    target: str, names: list[x509.GeneralName], proxy: Proxy
) -> None:
    context = proxy.trusting()
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    leaf = await leaf_of(proxy, target)

    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(found) == names


async def test_neither_the_server_name_nor_an_earlier_host_changes_the_certificate(
    proxy: Proxy,
) -> None:
    await leaf_of(proxy, "example.com:443")

    leaf = await leaf_of(proxy, "api.example.com:443", sni="evil.example.com")

    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(found) == [x509.DNSName("api.example.com")]


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        pytest.param(["h2", "http/1.1"], "http/1.1", id="HTTP/2 first"),
        pytest.param(["http/1.1"], "http/1.1", id="HTTP/1.1"),
        pytest.param([], None, id="no ALPN"),
    ],
)
async def test_http_1_1_is_agreed_on(offered: list[str], chosen: str | None, proxy: Proxy) -> None:
    _, writer = await proxy.tunnel("api.example.com:443", alpn=offered)

    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == chosen
    writer.transport.abort()


async def test_a_client_of_http_2_alone_gets_no_protocol_and_an_answer_it_can_log(
    proxy: Proxy,
) -> None:
    reader, writer = await proxy.tunnel("api.example.com:443", alpn=["h2"])

    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() is None
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    writer.transport.abort()


async def test_a_client_of_an_old_tls_is_refused(proxy: Proxy) -> None:
    context = proxy.trusting()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1

    with pytest.raises((ssl.SSLError, ConnectionError)):
        await proxy.tunnel("api.example.com:443", context=context)


def contexts(folder: Path, kept: int = 2) -> tls.ClientTls:
    make_authority(folder)
    return tls.ClientTls(tls.load_authority(folder), kept)


def test_a_host_keeps_its_context_so_that_clients_resume_their_sessions(tmp_path: Path) -> None:
    made = contexts(tmp_path)

    assert made.context("a.example.com") is made.context("a.example.com")
    assert made.context("a.example.com") is not made.context("b.example.com")


def test_contexts_that_were_there_and_that_were_made_are_counted(tmp_path: Path) -> None:
    made = contexts(tmp_path)

    for host in ("a.example.com", "a.example.com", "b.example.com", "a.example.com"):
        made.context(host)

    assert (made.hits, made.misses, len(made)) == (2, 2, 2)


def test_a_client_that_names_many_hosts_fills_no_memory(tmp_path: Path) -> None:
    made = contexts(tmp_path, kept=2)
    first, used = made.context("a.example.com"), made.context("b.example.com")
    for number in range(5):
        made.context(f"h{number}.example.com")
        assert made.context("b.example.com") is used, "the one that is used stays"

    assert made.context("a.example.com") is not first
    assert len(made._contexts) == 2
    assert made._authority.certs == {}
    assert made._authority.expire_queue == []


def test_a_certificate_is_made_anew_long_before_it_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = contexts(tmp_path)
    first = made.context("a.example.com")
    then = tls.time.monotonic() + tls.RENEW_S

    monkeypatch.setattr(tls.time, "monotonic", lambda: then - 60)
    assert made.context("a.example.com") is first
    monkeypatch.setattr(tls.time, "monotonic", lambda: then + 60)
    assert made.context("a.example.com") is not first


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="missing"),
        pytest.param(b"", id="empty"),
        pytest.param(b"garbage", id="garbage"),
        pytest.param(CA.cert_pem.bytes(), id="no key"),
        pytest.param(CA.private_key_pem.bytes(), id="no certificate"),
        pytest.param(CA.private_key_pem.bytes() + OTHER.cert_pem.bytes(), id="another CA's key"),
        pytest.param(LEAF.private_key_and_cert_chain_pem.bytes(), id="no authority's"),
    ],
)
def test_an_authority_that_cannot_be_read_is_never_replaced(
    content: bytes | None, tmp_path: Path
) -> None:
    """mitmproxy makes a new CA where it finds none."""
    file = tmp_path / "mitmproxy-ca.pem"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(tls.TlsError, match=r"mitmproxy-ca\.pem"):
        tls.load_authority(tmp_path)

    assert os.listdir(tmp_path) == ([] if content is None else [file.name])  # noqa: PTH208
    assert content is None or file.read_bytes() == content


def test_an_authority_is_read_from_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A mounted secret, say."""
    make_authority(tmp_path)
    before = sorted(tmp_path.iterdir())

    tls.load_authority(tmp_path)

    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("content", [None, b"", b"garbage"], ids=["missing", "empty", "garbage"])
def test_an_upstream_ca_that_holds_no_certificate_is_told_of(
    content: bytes | None, tmp_path: Path
) -> None:
    file = tmp_path / "extra.pem"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(tls.TlsError, match=r"extra\.pem"):
        tls.upstream_context(file)
    with pytest.raises(tls.TlsError, match=r"extra\.pem"):
        tls.write_trusted(file, tmp_path)


def test_what_is_trusted_as_one_file_is_what_is_trusted(ca_file: Path, tmp_path: Path) -> None:
    written = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    written.load_verify_locations(tls.write_trusted(ca_file, tmp_path))
    ours = tls.upstream_context(ca_file)

    assert set(ours.get_ca_certs(binary_form=True)) == set(written.get_ca_certs(binary_form=True))
