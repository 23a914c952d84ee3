"""TEN and ORC: clients learn nothing of each other's secrets, and no guess is confirmed."""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from collections.abc import Callable

import pytest

from tests.attacks import stage
from tests.attacks.client import Client, accepted, ask, refused, send
from tests.attacks.sites import Scripts
from tests.attacks.stage import ALLOWED, BIG, KEY_A, KEY_B, THIEF, VALUES, Coatcheck, Target
from tests.attacks.watch import Attempt
from tests.e2e.harness import WORKERS
from tests.e2e.upstream import Upstream
from tests.e2e.wire import basic, request

Dialled = Callable[[], list[Attempt]]


def get(secret: str, *lines: str, host: str = ALLOWED, target: str = "/echo") -> bytes:
    return request("GET", target, "X: {{secrets." + secret + "}}", *lines, host=host)


@pytest.fixture(scope="module")
def everyone(alice: Client, bob: Client, net: Client) -> dict[str, Client]:
    return {"alice": alice, "bob": bob, "net": net}


OWN = {"alice": "key.a", "bob": "key.b", "net": "key.net"}


@pytest.mark.parametrize("who", OWN)
def test_ten_00_each_has_its_own(who: str, everyone: dict[str, Client], upstream: Upstream) -> None:
    accepted(ask(everyone[who], get(OWN[who])))
    assert upstream.one().all("x") == [VALUES[OWN[who]]]


OTHERS = [(who, secret) for who in OWN for secret in (*OWN.values(), "nobody.key", "no.such")]


@pytest.mark.parametrize(("who", "secret"), [o for o in OTHERS if OWN[o[0]] != o[1]])
def test_ten_01_anothers_secret(
    who: str, secret: str, everyone: dict[str, Client], upstream: Upstream
) -> None:
    refused(ask(everyone[who], get(secret)), "secret_unavailable")
    assert upstream.take() == []


NEAR = ["KEY.A", "Key.A", "key.A", "key.a.", "key-a", "key_a", "key.a/", "kéy.a", "ｋey.a", "кey.a"]
NEAR += ["../key.a", "key.a\\u0000", "key..a", "key.*", "*", "key.a;x", "alice/key.a", "key.a "]


@pytest.mark.parametrize("name", NEAR)
@pytest.mark.parametrize("form", ["{{secrets.%}}", '{{secrets["%"]}}', "__secrets.%__"])
def test_ten_04_names_that_look_alike(
    form: str, name: str, bob: Client, upstream: Upstream
) -> None:
    """Names are compared byte for byte: no case, no normal form, no pattern."""
    data = request("POST", "/echo", "Content-Type: text/plain", host=ALLOWED)
    body = form.replace("%", name).encode()
    data = data[:-2] + b"Content-Length: %d\r\n\r\n" % len(body) + body
    ask(bob, data)
    for received in upstream.take():
        assert KEY_A not in received.bytes
        assert KEY_B not in received.bytes


CHAINS = ["sp.nested", "sp.nested-percent"]


@pytest.mark.parametrize("secret", CHAINS)
@pytest.mark.parametrize("place", ["header", "query", "body", "json"])
def test_ten_04_a_value_that_holds_a_placeholder_is_not_expanded(
    place: str, secret: str, alice: Client, upstream: Upstream
) -> None:
    holder = "{{secrets." + secret + "}}"
    data = {
        "header": request("GET", "/echo", f"X: {holder}", host=ALLOWED),
        "query": request("GET", f"/echo?k={holder}", host=ALLOWED),
        "body": request(
            "POST", "/echo", "Content-Type: text/plain", host=ALLOWED, body=holder.encode()
        ),
        "json": request(
            "POST", "/echo", "Content-Type: application/json", host=ALLOWED,
            body=f'{{"k":"{holder}"}}'.encode(),
        ),
    }[place]  # fmt: skip
    accepted(ask(alice, data))
    received = upstream.one()
    assert KEY_B not in received.bytes
    assert VALUES[secret][:20] in received.bytes


CREDENTIALS: dict[str, tuple[str, ...]] = {
    "none": (),
    "empty": ("Proxy-Authorization: ",),
    "scheme alone": ("Proxy-Authorization: Basic",),
    "empty Basic": ("Proxy-Authorization: Basic ",),
    "empty Bearer": ("Proxy-Authorization: Bearer ",),
    "wrong token": ("Proxy-Authorization: " + basic("alice", "ctk_wrong"),),
    "no token": ("Proxy-Authorization: " + basic("alice", ""),),
    "token of bob": ("Proxy-Authorization: " + basic("alice", stage.BOB_TOKEN),),
    "wrong user": ("Proxy-Authorization: " + basic("nobody", stage.ALICE_TOKEN),),
    "user of the network": ("Proxy-Authorization: " + basic("net", ""),),
    "token cut": ("Proxy-Authorization: " + basic("alice", stage.ALICE_TOKEN[:-1]),),
    "token and more": ("Proxy-Authorization: " + basic("alice", stage.ALICE_TOKEN + "x"),),
    "token and NUL": ("Proxy-Authorization: " + basic("alice", stage.ALICE_TOKEN + "\0"),),
    "token in upper case": ("Proxy-Authorization: " + basic("alice", stage.ALICE_TOKEN.upper()),),
    "user in upper case": ("Proxy-Authorization: " + basic("ALICE", stage.ALICE_TOKEN),),
    "the hash": ("Proxy-Authorization: " + basic("alice", stage.CLIENTS.split('"')[1]),),
    "two, good and good": (f"Proxy-Authorization: {stage.ALICE}",) * 2,
    "two, good and bad": (
        f"Proxy-Authorization: {stage.ALICE}",
        f"Proxy-Authorization: {stage.BOB}x",
    ),
    "two in one": (f"Proxy-Authorization: {stage.ALICE}, {stage.BOB}",),
    "oversized": ("Proxy-Authorization: Basic " + b64encode(b"a:" + b"x" * 40_000).decode(),),
    "no base64": ("Proxy-Authorization: Basic !!!!",),
    "base64 and rubbish": (f"Proxy-Authorization: {stage.ALICE}!",),
    "not UTF-8": ("Proxy-Authorization: Basic " + b64encode(b"alice:\xff\xfe").decode(),),
    "Digest": ('Proxy-Authorization: Digest username="alice"',),
    "Negotiate": ("Proxy-Authorization: Negotiate TlRMTVNTUAABAAAA",),
    "in Authorization": (f"Authorization: {stage.ALICE}",),
    "in X-Proxy-Authorization": (f"X-Proxy-Authorization: {stage.ALICE}",),
    "no colon": ("Proxy-Authorization: Basic " + b64encode(b"alice").decode(),),
    "X-Forwarded-For of the network": (f"X-Forwarded-For: {stage.NET_FROM}",),
    "Forwarded for the network": (f"Forwarded: for={stage.NET_FROM}",),
    "X-Real-IP of the network": (f"X-Real-IP: {stage.NET_FROM}",),
}


@pytest.mark.parametrize("name", CREDENTIALS)
@pytest.mark.parametrize("way", ["connect", "absolute"])
def test_ten_07_credentials_that_are_none(
    way: str, name: str, stranger: Client, upstream: Upstream, dialled: Dialled
) -> None:
    lines = CREDENTIALS[name]
    if way == "connect":
        data = stranger.connect_request(ALLOWED, 443, *lines)
    else:
        data = request("GET", f"http://{ALLOWED}/echo", *lines, host=ALLOWED)
    with stranger.plain() as wire:
        answer = refused(send(wire, data), "proxy_auth_required", "headers_too_large")
    assert answer is not None
    if answer.status == 407:
        assert answer.all("proxy-authenticate")
    assert upstream.take() == []
    assert dialled() == []


GOOD_CREDENTIALS = [stage.ALICE, f"Bearer {stage.ALICE_TOKEN}", f"bearer {stage.ALICE_TOKEN}"]


@pytest.mark.parametrize("credential", [*GOOD_CREDENTIALS, stage.ALICE.replace("Basic", "bAsIc")])
def test_ten_07_credentials_that_are_good(
    credential: str, client_of: Callable[..., Client], proxy: Target, upstream: Upstream
) -> None:
    client = client_of(proxy, credential, stage.STRANGER_FROM)
    accepted(ask(client, get("key.a")))
    received = upstream.one()
    assert received.all("x") == [KEY_A]
    assert received.all("proxy-authorization") == []


@pytest.mark.parametrize("secret", ["key.b", "key.a"])
def test_ten_07_a_credential_inside_the_tunnel_changes_nobody(
    secret: str, alice: Client, upstream: Upstream
) -> None:
    """Nor does it reach the upstream."""
    answer = ask(alice, get(secret, f"Proxy-Authorization: {stage.BOB}"))
    if secret == "key.b":
        refused(answer, "secret_unavailable")
    else:
        accepted(answer)
    assert [r for r in upstream.take() if r.all("proxy-authorization")] == []


def test_ten_07_each_plain_request_brings_its_own(
    alice: Client, stranger: Client, upstream: Upstream
) -> None:
    """A connection does not stay somebody's."""
    with stranger.plain() as wire:
        url = f"http://{ALLOWED}/echo"
        accepted(send(wire, request("GET", url, *alice.identity, host=ALLOWED)))
        refused(send(wire, request("GET", url, host=ALLOWED)), "proxy_auth_required")
    assert len(upstream.take()) == 1


@pytest.mark.parametrize("source", [stage.ALICE_FROM, stage.STRANGER_FROM, "127.0.0.1"])
def test_ten_07_a_client_by_network_is_its_network(
    source: str, client_of: Callable[..., Client], proxy: Target, upstream: Upstream
) -> None:
    client = client_of(proxy, "", source)
    with client.plain() as wire:
        refused(send(wire, client.connect_request(ALLOWED)), "proxy_auth_required")
    assert upstream.take() == []


def test_ten_03_two_clients_at_once_never_mix(
    alice: Client, bob: Client, upstream: Upstream
) -> None:
    """Same upstream, same time, different secrets."""
    wrong: list[str] = []

    def work(client: Client, secret: str, mark: str) -> None:
        with client.tunnel() as wire:
            for number in range(40):
                data = get(secret, f"X-Mark: {mark}", target=f"/echo/{number}")
                if send(wire, data) is None:
                    wrong.append(mark)

    jobs = [(alice, "key.a", "alice"), (bob, "key.b", "bob")] * 3
    threads = [threading.Thread(target=work, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    right = {b"alice": KEY_A, b"bob": KEY_B}
    received = upstream.take()
    assert len(received) == 240
    assert all(r.all("x") == [right[r.all("x-mark")[0]]] for r in received)


@pytest.mark.parametrize(
    ("second", "same"),
    [
        pytest.param("alice", True, id="its own next connection"),
        pytest.param("bob", False, id="another client's"),
    ],
)
def test_ten_03_an_upstream_connection_stays_with_its_client(
    second: str, same: bool, everyone: dict[str, Client], upstream: Upstream
) -> None:
    for who in ("alice", second):
        accepted(ask(everyone[who], get(OWN[who])))
    one, other = upstream.take()
    # Another worker has none that rest.
    assert (one.connection == other.connection) is same or (same and WORKERS > 1)
    assert [one.all("x"), other.all("x")] == [[VALUES[OWN[w]]] for w in ("alice", second)]


def test_ten_09_anothers_load_does_not_shut_out(bob: Client, alice: Client) -> None:
    """200 tunnels of one client, and the other's request is served at once."""
    wires = []
    try:
        for _ in range(200):
            wires.append(alice.world.connect("127.0.0.1", alice.port, alice.source))
            wires[-1].sendall(alice.connect_request(ALLOWED))
        begun = time.monotonic()
        accepted(ask(bob, get("key.b")))
        assert time.monotonic() - begun < 5
    finally:
        for wire in wires:
            wire.close()


# --- ORC: is my guess right? ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def knower(alice: Client) -> Client:
    """A client that knows the value by itself; what it sees is no leak."""
    return Client(alice.world, alice.port, alice.ca, alice.credential, alice.source, None)


GUESSES = [KEY_A, KEY_B, KEY_A[:8], KEY_A[:20], b64encode(KEY_A), b"no secret at all, a text"]


@pytest.mark.parametrize("guess", GUESSES, ids=range(len(GUESSES)))
@pytest.mark.parametrize("host", [THIEF, BIG])
def test_orc_01_no_redaction_where_the_secret_may_not_go(
    host: str, guess: bytes, knower: Client, upstream: Upstream
) -> None:
    """Its own server sends the guess back unchanged, byte for byte, whether it is right or not."""
    data = request("POST", "/echo", "Content-Type: x/y", host=host, body=guess)
    answer = accepted(ask(knower, data, host))
    assert answer.body == upstream.one().bytes
    assert guess in answer.body


@pytest.mark.parametrize("guess", GUESSES[:4], ids=range(4))
def test_orc_06_a_real_value_that_leaves_is_not_stopped(
    guess: bytes, knower: Client, upstream: Upstream
) -> None:
    """A filter against that would tell which guess is right."""
    pages = set()
    for value in (guess, b"x" * len(guess)):
        data = request("GET", "/echo", b"X: " + value, host=THIEF)
        answer = accepted(ask(knower, data, THIEF))
        pages.add((answer.status, len(answer.raw)))
        assert value in upstream.one().head
    assert len(pages) == 1


ABSENT = ["no.such", "nobody.key", "key.b", "key.net", "no.sucg"]


@pytest.mark.parametrize("host", [ALLOWED, THIEF])
@pytest.mark.parametrize("place", ["header", "query", "body"])
def test_orc_05_unknown_forbidden_and_anothers_are_one_answer(
    place: str, host: str, alice: Client, coatcheck: Coatcheck
) -> None:
    """Apart from the name that the client itself wrote, and the id of the request."""
    pages = set()
    for name in ABSENT:
        holder = "{{secrets." + name + "}}"
        data = {
            "header": request("GET", "/echo", f"X: {holder}", host=host),
            "query": request("GET", f"/echo?k={holder}", host=host),
            "body": request(
                "POST", "/echo", "Content-Type: text/plain", host=host, body=holder.encode()
            ),
        }[place]
        answer = refused(ask(alice, data, host), "secret_unavailable")
        assert answer is not None
        problem = {**answer.problem, "request_id": ""}
        assert problem.pop("secret", name) == name
        lines = [line for line in answer.fields if line[0].lower() != b"content-length"]
        pages.add((answer.status, answer.reason, tuple(lines), tuple(sorted(problem.items()))))
    assert len(pages) == 1


def test_orc_07_the_mask_does_not_tell_the_length(
    alice: Client, upstream: Upstream, scripts: Scripts, coatcheck: Coatcheck
) -> None:
    bodies = set()
    for name in ("sp.short", "key.a", "sp.longer"):
        line = "Authorization: Bearer {{secrets." + name + "}}"
        path = scripts.add(b"HTTP/1.1 200 OK\r\nX: <%TOKEN%>\r\nConnection: close\r\n\r\n[%TOKEN%]")
        answer = accepted(ask(alice, request("GET", path, line, host=ALLOWED)))
        bodies.add((answer.body, answer.one("x")))
    assert len(bodies) == 1


def test_orc_08_an_injected_request_is_not_compressed(alice: Client, upstream: Upstream) -> None:
    """Next to text of the client's choosing, a compressed length would tell of the value."""
    data = get("key.a", "Accept-Encoding: gzip, br, zstd")
    accepted(ask(alice, data))
    received = upstream.one()
    assert received.all("accept-encoding") == [b"identity"]
    assert received.all("content-encoding") == []
