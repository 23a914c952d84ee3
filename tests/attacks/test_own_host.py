"""coatcheck.internal under attack: a value as a way inside, a name as a way to smuggle, and the
host itself as a way out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.attacks import stage
from tests.attacks.client import Client, refused, send
from tests.attacks.dns import NameServer
from tests.attacks.stage import ALLOWED, CLIENTS, IS_NAIVE, SITES, Coatcheck, Target, canary
from tests.attacks.watch import Attempt
from tests.e2e.harness import make_home
from tests.e2e.upstream import Upstream
from tests.e2e.wire import request
from tests.e2e.world import World

pytestmark = pytest.mark.skipif(IS_NAIVE, reason="it has nothing of the kind")

Dialled = Callable[[], list[Attempt]]
HOST = "coatcheck.internal"
TAIL = canary("cnU36-", 24).decode()

# What a value may say that leads inside; each secret may go anywhere, and over http:// too.
INSIDE = {
    "loopback": "http://127.0.0.1:8081/",
    "loopback by name": "http://localhost:8081/",
    "loopback in IPv6": "http://[::1]:8081/",
    "mapped into IPv6": "http://[::ffff:127.0.0.1]:8081/",
    "metadata": "http://169.254.169.254/latest/",
    "metadata over TLS": "https://169.254.169.254/latest/",
    "private": "https://10.1.2.3/",
    "the machine's own address": f"http://{stage.OWN[0]}:8081/",
    "nobody": "http://0.0.0.0:8081/",
    "a name that leads inside": "https://inside.test/",
    "a name that leads inside as well": "https://both.test/",
    "a number": "http://2130706433:8081/",
    "half an address": "http://127.1:8081/",
    "hexadecimal": "http://0x7f.0.0.1:8081/",
    "a user that looks like a host": f"http://{ALLOWED}@127.0.0.1:8081/",
    "a backslash": f"http://127.0.0.1:8081\\@{ALLOWED}/",
    "ourselves": f"http://{HOST}/url/hook/",
    "ourselves over TLS": f"https://{HOST}/v1/secrets?",
    "below us": f"http://www.{HOST}/",
    "a file": "file:///etc/passwd?",
    "gopher": "gopher://127.0.0.1:8081/_",
    "a socket": "unix:///var/run/docker.sock?",
    "a line end": f"http://{ALLOWED}/\r\nHost: 127.0.0.1\r\nX: ",
}
POLICY = (
    CLIENTS
    + """\
grants:
  - secrets: ["*"]
    clients: [alice]
    in: [url]
    plaintext: true
  - { secrets: [bobs], clients: [bob], in: [url] }
egress:
  deny: ["denied.test"]
"""
)


@pytest.fixture(scope="module")
def own(
    world: World,
    folder: Path,
    upstream_ca: Path,
    dns: NameServer,
    traps: None,
    started: list[Target],
) -> Iterator[Coatcheck]:
    dns.set("inside.test", "10.1.2.3")
    dns.set("both.test", SITES[ALLOWED], "10.1.2.3")
    secrets = {name: (url + TAIL, ("*",)) for name, url in INSIDE.items()}
    secrets["hook"] = (f"https://{ALLOWED}/echo/{TAIL}", (ALLOWED,))
    secrets["denied"] = (f"https://denied.test/{TAIL}", ("*",))
    secrets["bobs"] = (f"https://{ALLOWED}/echo/{TAIL}", (ALLOWED,))
    values = {name: (url.encode(), domains) for name, (url, domains) in secrets.items()}
    home = make_home(folder / f"own-host-{os.getpid()}", values, POLICY)
    made = Coatcheck(world, home, upstream_ca)
    started.append(made)
    try:
        yield made.wait_ready()
    finally:
        made.stop()
    for file in (made.log, *(home / "audit").iterdir()):
        assert TAIL.encode() not in file.read_bytes(), file.name


@pytest.fixture
def alice(client_of: Callable[..., Client], own: Coatcheck) -> Client:
    return client_of(own, stage.ALICE, stage.ALICE_FROM)


@pytest.fixture
def bob(client_of: Callable[..., Client], own: Coatcheck) -> Client:
    return client_of(own, stage.BOB, stage.BOB_FROM)


def to(path: str, client: Client, *fields: str, host: str = HOST, method: str = "GET") -> bytes:
    return request(method, f"http://{host}{path}", *client.identity, *fields, host=host)


def url_of(name: str) -> str:
    return "/url/" + name.replace(" ", "%20").replace("'", "%27")


def test_int_00_a_value_that_leads_to_an_allowed_site(alice: Client, upstream: Upstream) -> None:
    with alice.plain() as wire:
        answer = send(wire, to("/url/hook", alice))

    assert answer is not None
    assert answer.status == 200
    assert TAIL.encode() not in answer.raw
    assert [got.target.decode() for got in upstream.take()] == [f"/echo/{TAIL}"]


@pytest.mark.parametrize("name", INSIDE)
def test_int_01_no_value_leads_inside(
    name: str, alice: Client, upstream: Upstream, dialled: Dialled
) -> None:
    with alice.plain() as wire:
        answer = refused(
            send(wire, to(url_of(name), alice)),
            "address_not_allowed",
            "destination_not_allowed",
            "value_not_representable",
        )

    assert answer is not None
    assert TAIL.encode() not in answer.raw
    assert b"127.0.0.1" not in answer.raw
    assert dialled() == []
    assert upstream.take() == []


def test_int_01_what_is_denied_to_clients_is_denied_to_values(
    alice: Client, dialled: Dialled
) -> None:
    with alice.plain() as wire:
        refused(send(wire, to("/url/denied", alice)), "destination_not_allowed")

    assert dialled() == []


ASKED = [
    pytest.param("/", HOST, id="no page"),
    pytest.param("/ca.pem", HOST, id="a page"),
    pytest.param("/url/absent", HOST, id="no secret"),
    pytest.param("/", f"{HOST}:8081", id="another port"),
    pytest.param("/", f"www.{HOST}", id="a name below"),
    pytest.param("/", f"{HOST}.", id="with a dot at its end"),
    pytest.param("/", HOST.upper(), id="in capital letters"),
]


@pytest.mark.parametrize(("path", "host"), ASKED)
def test_int_02_nobody_is_asked_where_it_is(
    path: str, host: str, alice: Client, dns: NameServer, dialled: Dialled
) -> None:
    dns.take_queries()

    with alice.plain() as wire:
        send(wire, to(path, alice, host=host))

    assert [name for name in dns.take_queries() if "coatcheck" in name] == []
    assert dialled() == []


def test_int_02_a_tunnel_asks_nobody_either(
    alice: Client, dns: NameServer, dialled: Dialled
) -> None:
    dns.take_queries()

    with alice.tunnel(HOST) as wire:
        answer = send(wire, request("GET", "/v1/secrets", host=HOST))

    assert answer is not None
    assert answer.status == 200
    assert b'"hook"' in answer.body
    assert [name for name in dns.take_queries() if "coatcheck" in name] == []
    assert dialled() == []


SMUGGLED = [
    pytest.param(
        "/url/hook%0d%0aX-Injected:%20yes", "secret_unavailable", id="a field in the name"
    ),
    pytest.param("/url/hook%00", "secret_unavailable", id="NUL in the name"),
    pytest.param("/url/hook%2F..%2F..%2Fx", "secret_unavailable", id="a way up in the name"),
    pytest.param("/url/hook%3Fx=1", "secret_unavailable", id="a query in the name"),
    pytest.param("/url/%7B%7Bsecrets.hook%7D%7D", "secret_unavailable", id="a placeholder"),
    pytest.param("/url/hook/%0d%0aX:%20y", "bad_request", id="a field behind it"),
    pytest.param("/url/hook/../../x", "bad_request", id="a way up"),
    pytest.param("/url/hook/%2e%2e/x", "bad_request", id="a way up, encoded"),
    pytest.param("/url/hook/..%2f..%2fx", "bad_request", id="encoded slashes"),
    pytest.param("/url/hook/%252e%252e/x", "bad_request", id="encoded twice"),
    pytest.param("/url/hook/..;/x", "bad_request", id="a way up with a parameter"),
    pytest.param("/url/hook/\\..\\x", "bad_request", id="backslashes"),
    pytest.param(f"/url/hook//{ALLOWED}/x", "bad_request", id="another host behind two slashes"),
]


@pytest.mark.parametrize(("path", "code"), SMUGGLED)
def test_int_03_nothing_gets_out_of_a_name(
    path: str, code: str, alice: Client, upstream: Upstream, dialled: Dialled
) -> None:
    with alice.plain() as wire:
        refused(send(wire, to(path, alice)), code)

    assert upstream.take() == []
    assert dialled() == []


QUERIES = [
    pytest.param("?x=/../y", id="dots and slashes"),
    pytest.param("?url=https://evil.test/", id="another URL"),
    pytest.param("?x=%0d%0aHost:%20evil.test", id="an encoded line end"),
    pytest.param(f"?@{stage.EVIL}/", id="a user and a host"),
]


@pytest.mark.parametrize("query", QUERIES)
def test_int_03_a_query_stays_a_query(query: str, alice: Client, upstream: Upstream) -> None:
    with alice.plain() as wire:
        send(wire, to("/url/hook" + query, alice))

    (got,) = upstream.take()
    assert (got.host, got.target.decode()) == (ALLOWED, f"/echo/{TAIL}{query}")
    assert got.all("host") == [ALLOWED.encode()]


def test_int_04_another_host_field_changes_nothing(alice: Client, dialled: Dialled) -> None:
    data = to("/url/hook", alice).replace(b"Host: coatcheck.internal", b"Host: allowed.test")
    with alice.plain() as wire:
        refused(send(wire, data), "destination_mismatch")

    assert dialled() == []


def test_ten_08_another_clients_name_is_no_name(bob: Client, dialled: Dialled) -> None:
    with bob.plain() as wire:
        forbidden = refused(send(wire, to("/url/hook", bob)), "secret_unavailable")
        unknown = refused(send(wire, to("/url/hoop", bob)), "secret_unavailable")
        listed = send(wire, to("/v1/secrets", bob))

    assert forbidden is not None
    assert unknown is not None
    assert listed is not None
    told = [{**answer.problem, "request_id": ""} for answer in (forbidden, unknown)]
    assert told[0] == told[1]
    assert b'"bobs"' in listed.body
    assert b"hook" not in listed.body
    assert dialled() == []
