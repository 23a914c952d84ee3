"""What SECURITY.md says is not promised, shown: each case would fail if the page were wrong.

Whoever makes one of them untrue, by a capture of minted credentials, say, changes the page too.
"""

from __future__ import annotations

import base64
import gzip
import json
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from coatcheck import policyfile
from coatcheck.core.address import Reason, vet
from coatcheck.core.destination import Destination, parse_domain_pattern
from coatcheck.core.limits import Limits
from coatcheck.core.message import Fields, RequestHead, ResponseHead
from coatcheck.core.ports import StoreError
from coatcheck.core.problems import Refused
from coatcheck.core.redact import Needles
from coatcheck.core.search import Match, Search
from coatcheck.core.secret import SecretValue
from coatcheck.core.snapshot import Snapshot
from coatcheck.engine.resolver import InterfaceAddresses
from coatcheck.gateway import Body, BodyPlan, Exchange, Gateway, Origin
from coatcheck.store.home import Home, create_home
from coatcheck.store.memory import MemoryStore
from coatcheck.store.sql import SqlStore
from tests.engine.wire import OK, VALUE, Wire, a_gateway, a_get

API = Destination("https", "api.example.com", 443)
EVIL = Destination("https", "evil.example.com", 443)
LOCAL = Origin("local", "127.0.0.1")
KEY = (b"X-Key", b"{{secrets.key}}")


def begin(
    gateway: Gateway,
    *fields: tuple[bytes, bytes],
    method: bytes = b"GET",
    target: bytes = b"/",
    body: Body | None = None,
    client: str = "local",
    destination: Destination = API,
) -> Exchange:
    origin = Origin(client, "127.0.0.1")
    return gateway.begin(origin, destination, RequestHead(method, target, fields), body or Body())


def shown(
    said: bytes, gateway: Gateway | None = None, fields: Fields = (), method: bytes = b"GET"
) -> bytes:
    """What the client sees of an answer with this body, to a request that carried the value."""
    exchange = begin(gateway or a_gateway(), KEY, method=method)
    exchange.open()
    exchange.response(ResponseHead(200, b"OK", fields), has_body=True)
    return exchange.feed_response(said) + exchange.finish_response()


# --- NG1, NG2: what no search finds --------------------------------------------------------------


def test_a_value_as_it_was_sent_is_masked() -> None:
    """The other side of all that follows here."""
    assert shown(b"you sent " + VALUE) == b"you sent ********"


COMPUTED: dict[str, Callable[[bytes], bytes]] = {
    "reversed": lambda value: value[::-1],
    "ROT13": lambda value: value.translate(
        bytes.maketrans(
            b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
            b"nopqrstuvwxyzabcdefghijklmNOPQRSTUVWXYZABCDEFGHIJKLM",
        )
    ),
    "spaced": lambda value: b" ".join(bytes([byte]) for byte in value),
    "one letter of it": lambda value: value[:1],
    "encrypted": lambda value: bytes(byte ^ 0x2A for byte in value),
    "base64 twice": lambda value: base64.b64encode(base64.b64encode(value)),
    "base64, packed before": lambda value: base64.b64encode(gzip.compress(value)),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_ng1_what_a_destination_computes_from_a_value_comes_through(name: str) -> None:
    answer = b"[" + COMPUTED[name](VALUE) + b"]"

    assert shown(answer) == answer


def test_ng1_a_value_that_is_to_be_published_is_sent() -> None:
    """A gist with the value in it, at a host that may have the value."""
    gist = b'{"public": true, "files": {"a": {"content": "{{secrets.key}}"}}}'
    kind = (b"Content-Type", b"application/json")
    exchange = begin(a_gateway(), kind, method=b"POST", target=b"/gists", body=Body(True, 64))

    assert exchange.open(gist).body == gist.replace(b"{{secrets.key}}", VALUE)


@pytest.mark.parametrize(
    "brake",
    [
        pytest.param("in: ['header:authorization']", id="locations"),
        pytest.param("methods: [GET]", id="methods"),
        pytest.param("paths: ['/v1/**']", id="paths"),
    ],
)
def test_ng1_the_brakes_stop_it(brake: str) -> None:
    gateway = a_gateway(
        f"""
version: 1
clients: {{local: {{networks: ["127.0.0.1/32"]}}}}
grants:
  - secrets: ["*"]
    clients: [local]
    {brake}
"""
    )
    kind = (b"Content-Type", b"text/plain")
    exchange = begin(gateway, kind, method=b"POST", target=b"/gists", body=Body(True, 15))

    with pytest.raises(Refused):
        exchange.open(b"{{secrets.key}}")


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        pytest.param((), b'{"access_token": "gho_minted0123456789"}', id="a token in a body"),
        pytest.param(((b"Set-Cookie", b"session=minted0123456789"),), b"", id="a session cookie"),
    ],
)
def test_ng2_a_credential_that_is_minted_comes_through(fields: Fields, body: bytes) -> None:
    exchange = begin(a_gateway(), KEY)
    exchange.open()
    incoming = exchange.response(ResponseHead(200, b"OK", fields), has_body=True)
    got = exchange.feed_response(body) + exchange.finish_response()

    assert got == body
    assert [pair for pair in incoming.head.fields if pair in fields] == list(fields)


# --- who edits, who writes, who has the files ----------------------------------------------------

EDITED = """
version: 1
clients:
  local: {networks: ["127.0.0.1/32"]}
  mallory: {networks: ["127.0.0.2/32"]}
grants:
  - {secrets: ["*"], clients: [mallory], hosts: [api.example.com, evil.example.com]}
"""


def test_who_edits_the_policy_decides_who_uses_a_secret_and_not_where() -> None:
    """The domains are sealed with the value; a grant that names another host adds none."""
    gateway = a_gateway()
    with pytest.raises(Refused, match="secret_unavailable"):
        begin(gateway, KEY, client="mallory")

    gateway.install(Snapshot(policyfile.parse(EDITED, "policy.yaml"), gateway.snapshot.view))

    assert (b"X-Key", VALUE) in begin(gateway, KEY, client="mallory").open().head.fields
    with pytest.raises(Refused, match="domain_not_allowed"):
        begin(gateway, KEY, client="mallory", destination=EVIL)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    create_home(tmp_path / "home", now=1.0)
    return Home(tmp_path / "home")


def writer(home: Home) -> SqlStore:
    """The store for who may write to it, and holds no private key."""
    return SqlStore.open(str(home.store), public=home.read_public_key())


def opened(home: Home) -> bytes:
    """What a worker, which holds it, reads."""
    store = SqlStore.open(
        str(home.store), public=home.read_public_key(), private=home.read_private_key()
    )
    with closing(store):
        view = store.view()
        secret = view.find("key")
        assert secret is not None
        return bytes(view.open(secret).reveal())


def test_who_can_write_to_the_database_seals_a_value_of_their_own(home: Home) -> None:
    with closing(writer(home)) as store:
        for value in (VALUE, b"a value of their own"):
            store.put(
                "key",
                value,
                domains=[parse_domain_pattern("api.example.com")],
                description=None,
                now=1.0,
            )

    assert opened(home) == b"a value of their own"


def test_who_can_write_to_the_database_names_the_domains_of_the_next_value(home: Home) -> None:
    """Unless whoever gives it says which. The value that is there goes nowhere else."""
    public, private = home.read_public_key(), home.read_private_key()
    here, evil = parse_domain_pattern("api.example.com"), parse_domain_pattern("evil.example.com")
    with closing(SqlStore.open(home.store, public=public)) as store:
        store.put("key", b"the first value", domains=[here], description=None, now=1.0)
        with closing(sqlite3.connect(home.store)) as database, database:
            database.execute("UPDATE secrets SET domains = '[\"evil.example.com\"]'")
        with closing(SqlStore.open(home.store, public=public, private=private)) as worker:
            view = worker.view()
            with pytest.raises(StoreError):
                view.open(view.secrets()[0])

        kept = store.put("key", b"the second value", domains=None, description=None, now=2.0)
        named = store.put("key", b"the third value", domains=[here], description=None, now=3.0)

    assert kept.domains == (evil,)
    assert named.domains == (here,)


def test_who_has_key_and_database_has_every_value(home: Home, tmp_path: Path) -> None:
    with closing(writer(home)) as store:
        store.put("key", VALUE, domains=[], description=None, now=1.0)
    stolen = Home(tmp_path / "elsewhere")
    stolen.root.mkdir(mode=0o700)
    for path in home.root.iterdir():
        if path.name in ("sealing.key", "sealing.pub") or path.name.startswith("store.db"):
            shutil.copy2(path, stolen.root)

    assert opened(stolen) == VALUE


# --- what the scrubber cannot hide ---------------------------------------------------------------


def test_the_length_of_a_value_shows_in_an_answer_of_fixed_width() -> None:
    """The mask is constant; what the upstream pads the value with is not."""
    left = {}
    for length in (20, 40):
        value = (VALUE * 2)[:length]
        answer = shown(value.ljust(100, b"."), a_gateway(secrets={"key": value}))
        assert answer.startswith(b"********.")
        left[length] = answer.count(b".")

    assert left == {20: 80, 40: 60}


@pytest.mark.parametrize(("right", "is_told"), [(7, False), (8, True)])
def test_eight_bytes_in_a_row_are_told_by_the_time_of_the_search(
    right: int, is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Round such a word a long answer is searched as closely as a short one is as a whole. That is
    what takes time; so it is counted here."""
    looks: list[int] = []
    search = Search._search

    def counted(self: Search, data: bytes) -> list[Match]:
        looks.append(len(data))
        return search(self, data)

    monkeypatch.setattr(Search, "_search", counted)
    needles = Needles.build([SecretValue("key", 1, VALUE)])
    for at in range(len(VALUE) - 8):
        guess = VALUE[at : at + right] + b"?" * (8 - right)
        for place in range(8):
            needles.redact(b"." * (80_000 + place) + guess + b"." * 80_000)

    assert bool(looks) == is_told


@pytest.mark.parametrize(
    ("value", "answer", "comes_through"),
    [
        pytest.param(b"12345678", b"the 12345678th", b"the ********th", id="8 bytes: masked"),
        pytest.param(b"1234", b"year 1234, no secret", b"year ********, no secret", id="4: chance"),
        pytest.param(b"1234567", b"1 234 1234567", b"1 234 ********", id="7: chance"),
        pytest.param(b"123", b"your key is 123", b"your key is 123", id="3 bytes: not searched"),
    ],
)
def test_a_short_value_is_found_by_chance_or_not_at_all(
    value: bytes, answer: bytes, comes_through: bytes
) -> None:
    gateway = a_gateway(secrets={"key": value})
    exchange = begin(gateway)
    exchange.open()
    exchange.response(ResponseHead(200, b"OK", ()), has_body=True)

    assert exchange.feed_response(answer) + exchange.finish_response() == comes_through


def test_a_deleted_secret_is_not_searched_for_and_a_replaced_one_is() -> None:
    gateway, store = a_gateway(), MemoryStore(clock=lambda: 3.0)
    domains = [parse_domain_pattern("api.example.com")]
    policy = gateway.snapshot.policy

    def answer() -> bytes:
        gateway.install(Snapshot(policy, store.view()))
        exchange = begin(gateway)
        exchange.open()
        exchange.response(ResponseHead(200, b"OK", ()), has_body=True)
        return exchange.feed_response(b"stored: " + VALUE) + exchange.finish_response()

    store.put("key", VALUE, domains=domains, description="", now=1.0)
    assert answer() == b"stored: ********"
    store.put("key", b"another-0123456789", domains=domains, description="", now=2.0)
    assert answer() == b"stored: ********"
    store.delete("key", now=3.0)
    assert answer() == b"stored: " + VALUE


# --- what the client says of its body ------------------------------------------------------------

ONE_FIELD = """
version: 1
clients: {local: {networks: ["127.0.0.1/32"]}}
grants:
  - {secrets: ["*"], clients: [local], in: ["body:/token"]}
"""


def test_the_field_is_the_one_that_the_content_type_makes_of_the_body() -> None:
    """A form to us, with the value in ``token``; JSON, to a server that looks at no type."""
    body = b'{"public": "&token={{secrets.key}}&", "token": "none"}'
    form = (b"Content-Type", b"application/x-www-form-urlencoded")
    sent = begin(
        a_gateway(ONE_FIELD), form, method=b"POST", body=Body(True, len(body))
    ).open(body).body  # fmt: skip
    assert VALUE.decode() in json.loads(sent)["public"]

    honest = (b"Content-Type", b"application/json")
    with pytest.raises(Refused, match="location_not_allowed"):
        begin(a_gateway(ONE_FIELD), honest, method=b"POST", body=Body(True, len(body))).open(body)


POST_ALONE = """
version: 1
clients: {local: {networks: ["127.0.0.1/32"]}}
grants:
  - {secrets: ["*"], clients: [local], methods: [POST]}
"""


def test_a_method_that_a_form_names_is_not_looked_at() -> None:
    """In the query it is."""
    form = (b"Content-Type", b"application/x-www-form-urlencoded")
    body = b"_method=DELETE"
    gateway = a_gateway(POST_ALONE)

    out = begin(gateway, KEY, form, method=b"POST", body=Body(True, len(body))).open(body)
    assert (b"X-Key", VALUE) in out.head.fields

    with pytest.raises(Refused, match="request_not_allowed"):
        begin(gateway, KEY, method=b"POST", target=b"/?_method=DELETE")


# --- what is this machine ------------------------------------------------------------------------

FIB_TRIE = """\
  |-- 20.20.20.0
     /24 host LOCAL
  |-- 20.20.30.1
     /32 host LOCAL
"""


def test_a_network_that_is_local_by_a_route_alone_is_not_our_own(tmp_path: Path) -> None:
    (tmp_path / "fib_trie").write_text(FIB_TRIE, "ascii")
    (tmp_path / "if_inet6").write_text("", "ascii")
    own = InterfaceAddresses(tmp_path)()

    assert vet("20.20.20.1", 443, own_addresses=own) is None
    assert vet("20.20.30.1", 443, own_addresses=own) is Reason.OWN, "that of an interface is"


# --- what streams --------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", [b"", b"gzip"])
def test_the_head_of_a_body_that_streams_has_left_when_its_end_is_refused(coding: bytes) -> None:
    """Two lines in the audit log: what was sent, and that the rest was refused."""
    gateway = a_gateway(limits=Limits(body_buffer_bytes=16))
    fields = [KEY, (b"Content-Type", b"text/plain")]
    fields += [(b"Content-Encoding", coding)] if coding else []
    body = b"x" * 4096 + b"{{secrets.no.such}}"
    exchange = begin(gateway, *fields, method=b"POST", body=Body(True, len(body)))
    assert exchange.plan is BodyPlan.STREAM

    assert (b"X-Key", VALUE) in exchange.open().head.fields
    with pytest.raises(Refused, match="secret_unavailable"):
        exchange.feed_request(gzip.compress(body) if coding else body)


def test_and_the_audit_log_has_both_lines() -> None:
    wire = Wire(a_gateway(limits=Limits(body_buffer_bytes=16)))
    body = b"x" * 4096 + b"{{secrets.no.such}}"
    wire.send(
        b"POST http://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\n"
        b"Content-Type: text/plain\r\nX-Key: {{secrets.key}}\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )

    assert VALUE in wire.received()
    assert [record["decision"] for record in wire.audit] == ["allow", "refuse"]


# --- no cage, and no count of requests -----------------------------------------------------------


def accepted(listener: socket.socket) -> socket.socket | None:
    try:
        return listener.accept()[0]
    except BlockingIOError:
        return None


def test_the_command_of_run_may_go_its_own_way(tmp_path: Path) -> None:
    """It is told of the proxy, and connects past it."""
    create_home(tmp_path / "home", now=1.0)
    with socket.create_server(("127.0.0.1", 0)) as proxy, socket.create_server(
        ("127.0.0.1", 0)
    ) as elsewhere:  # fmt: skip
        goes = (
            "import os, socket, sys; assert os.environ['HTTP_PROXY'];"
            "socket.create_connection(('127.0.0.1', int(sys.argv[1]))).sendall(b'past it')"
        )
        command = [sys.executable, "-m", "coatcheck", "run", "--home", str(tmp_path / "home")]
        command += ["--proxy", f"127.0.0.1:{proxy.getsockname()[1]}", "--", sys.executable, "-c"]
        done = subprocess.run(
            [*command, goes, str(elsewhere.getsockname()[1])],
            check=False,
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        elsewhere.settimeout(5)
        with elsewhere.accept()[0] as came:
            assert came.recv(100) == b"past it"
        proxy.setblocking(False)
        for sock in iter(lambda: accepted(proxy), None):
            with sock:  # a look whether it listens, which says nothing
                assert sock.recv(100) == b""


def test_the_number_of_requests_is_not_bounded() -> None:
    wire = Wire()
    for _ in range(3000):
        wire.send(a_get(b"/", b"X-Key: {{secrets.key}}"))
        assert b"200 OK" in wire.answer(OK)


def test_without_a_certificate_the_peer_is_whoever_answers() -> None:
    """Where a grant says ``plaintext: true`` the value leaves in the open."""
    wire = Wire()
    wire.send(a_get(b"/", b"X-Key: {{secrets.key}}"))

    assert b"X-Key: " + VALUE in wire.received()
