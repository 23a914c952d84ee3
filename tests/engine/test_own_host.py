"""coatcheck.internal as a specification, lane and gateway together: what a client sends, what it
gets, what goes where, and what is on record."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping

import pytest

from coatcheck import policyfile
from coatcheck.core.destination import Destination, parse_domain_pattern
from coatcheck.core.identity import Credential
from coatcheck.core.limits import Limits
from coatcheck.core.ports import StoreError
from coatcheck.core.problems import Code
from coatcheck.core.snapshot import Snapshot
from coatcheck.engine.lane import Lane, Services, Tunnel
from coatcheck.gateway import Gateway
from coatcheck.store.memory import MemoryStore
from tests.engine.test_lane import ESTABLISHED, code_of
from tests.engine.wire import OK, VALUE, Book, Wire, _Io

CA_PEM = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
TOKEN = b"uKzqfA92mXvb81Lw"
HOOK = b"https://hooks.example.com/services/T0/" + TOKEN
HOOKS = Destination("https", "hooks.example.com", 443)
OWN = Destination("https", "coatcheck.internal", 443)

POLICY = """
version: 1
clients:
  local: {networks: ["127.0.0.1/32"]}
  other: {networks: ["10.0.0.0/8"]}
grants:
  - {secrets: ["hook", "hook.*", "a/b c"], clients: [local], in: [url]}
  - {secrets: ["hook.narrow"], clients: [other], in: [url]}
  - {secrets: ["key"], clients: [local]}
  - {secrets: ["theirs"], clients: [other], in: [url]}
"""
SECRETS: dict[str, tuple[bytes, str]] = {
    "hook": (HOOK, "hooks.example.com"),
    "hook.query": (HOOK + b"?team=blue", "hooks.example.com"),
    "hook.slash": (HOOK + b"/#note", "hooks.example.com"),
    "hook.plain": (b"http://hooks.example.com/x", "hooks.example.com:80"),
    "hook.wild": (b"https://secret-label-0123456789.example.com/", "*.example.com"),
    "hook.any": (HOOK, "*"),
    "hook.elsewhere": (b"https://evil.example.net/" + TOKEN, "hooks.example.com"),
    "hook.userinfo": (b"https://user:pass@hooks.example.com/" + TOKEN, "hooks.example.com"),
    "hook.text": (b"no URL at all " + TOKEN, "hooks.example.com"),
    "hook.scheme": (b"ftp://hooks.example.com/" + TOKEN, "hooks.example.com"),
    "hook.loop": (b"http://coatcheck.internal/url/hook", "coatcheck.internal:80"),
    "hook.metadata": (b"http://169.254.169.254/" + TOKEN, "169.254.169.254:80"),
    "a/b c": (HOOK, "hooks.example.com"),
    "key": (VALUE, "hooks.example.com"),
    "theirs": (HOOK, "hooks.example.com"),
}


def a_gateway(policy: str = POLICY) -> Gateway:
    store = MemoryStore()
    for name, (value, domain) in SECRETS.items():
        domains = [parse_domain_pattern(domain)]
        store.put(name, value, domains=domains, description="", now=1.0)
    return Gateway(
        Snapshot(policyfile.parse(policy, "policy.yaml"), store.view()),
        Book(),
        Limits(),
        now=time.time,
        new_id=map("request-{}".format, itertools.count(1)).__next__,
    )


def a_wire(policy: str = POLICY, *, tunnel: Tunnel | None = None) -> Wire:
    wire = Wire(a_gateway(policy), tunnel=tunnel)
    services = Services(wire.gateway, wire.lane._services.log, ca_pem=CA_PEM)
    wire.lane = Lane(_Io(wire), services, "127.0.0.1")
    if tunnel is not None:
        wire.lane.enter(tunnel, None)
    return wire


def ask(path: bytes, *fields: bytes, method: bytes = b"GET", body: bytes = b"") -> bytes:
    lines = [b"%b http://coatcheck.internal%b HTTP/1.1" % (method, path)]
    lines += [b"Host: coatcheck.internal", *fields]
    if body:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def audited(wire: Wire) -> Mapping[str, object]:
    return wire.audit[-1]


# --- pages ---------------------------------------------------------------------------------------


def test_the_certificate_is_handed_out() -> None:
    wire = a_wire()

    head, _, body = wire.send(ask(b"/ca.pem")).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == CA_PEM
    assert b"Content-Length: %d" % len(CA_PEM) in head
    assert wire.upstreams == []
    assert (audited(wire)["decision"], audited(wire)["path"]) == ("allow", "/ca.pem")


def test_a_client_reads_the_names_granted_to_it_and_no_others() -> None:
    wire = a_wire()

    answer = wire.send(ask(b"/v1/secrets"))

    document = json.loads(answer.partition(b"\r\n\r\n")[2])
    names = {one["name"] for one in document["secrets"]}
    assert names == {*SECRETS} - {"theirs"}
    assert b"theirs" not in answer
    assert b"other" not in answer
    assert VALUE not in answer
    assert TOKEN not in answer


def test_a_grant_to_another_client_is_not_among_the_terms() -> None:
    document = json.loads(a_wire().send(ask(b"/v1/secrets")).partition(b"\r\n\r\n")[2])

    plain = next(one for one in document["secrets"] if one["name"] == "hook")

    assert [grant["in"] for grant in plain["grants"]] == [["url"]]


def test_one_connection_asks_for_one_page_after_the_other() -> None:
    wire = a_wire()

    answer = wire.send(ask(b"/ca.pem") + ask(b"/v1/secrets", method=b"HEAD") + ask(b"/nothing"))

    first, second, third, *_ = answer.split(b"HTTP/1.1 ")[1:]
    assert first.endswith(CA_PEM)
    assert second.startswith(b"200")
    assert second.endswith(b"\r\n\r\n")
    assert code_of(b"HTTP/1.1 " + third) == "not_found"
    assert not wire.closed


def test_a_connection_is_closed_where_the_client_asks_for_it() -> None:
    wire = a_wire()

    answer = wire.send(ask(b"/ca.pem", b"Connection: close"))

    assert b"Connection: close\r\n" in answer
    assert answer.endswith(CA_PEM)
    assert wire.closed


def test_a_long_list_is_made_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coatcheck.core.snapshot.LISTED_AT_ONCE", 1)
    wire = a_wire()

    answer = wire.send(ask(b"/v1/secrets") + ask(b"/ca.pem"))

    assert b'"hook.any"' in answer
    assert answer.endswith(CA_PEM)
    assert wire.gateway.snapshot.unlisted("local") is None


NOT_SERVED = [
    pytest.param(ask(b"/"), "not_found", id="no such page"),
    pytest.param(ask(b"/ca.pem", method=b"POST"), "not_found", id="another method"),
    pytest.param(ask(b"/v1/secrets", method=b"DELETE"), "not_found", id="a method that changes"),
    pytest.param(ask(b"/ca.pem", body=b"x"), "not_found", id="a page that is asked with a body"),
    pytest.param(ask(b"/url/hook/../x"), "bad_request", id="a way out of the URL"),
    pytest.param(ask(b"/url/hook/a%2f..%2fb"), "bad_request", id="the same, encoded"),
    pytest.param(
        ask(b"/ca.pem").replace(b"Host: coatcheck.internal", b"Host: api.example.com"),
        "destination_mismatch",
        id="Host names another",
    ),
    pytest.param(
        ask(b"/ca.pem").replace(b"http://coatcheck.internal", b"http://api.example.com"),
        "destination_mismatch",
        id="the target names another",
    ),
    pytest.param(
        ask(b"/ca.pem").replace(b"coatcheck.internal", b"coatcheck.internal:8080"),
        "destination_not_allowed",
        id="another port",
    ),
    pytest.param(
        ask(b"/ca.pem").replace(b"coatcheck.internal", b"www.coatcheck.internal"),
        "destination_not_allowed",
        id="a name below it",
    ),
    pytest.param(
        ask(b"/ca.pem").replace(b"http://coatcheck.internal", b""),
        "bad_request",
        id="asked as a server, not as a proxy",
    ),
]


@pytest.mark.parametrize(("request_", "code"), NOT_SERVED)
def test_what_is_not_served(request_: bytes, code: str) -> None:
    wire = a_wire()

    assert code_of(wire.send(request_)) == code
    assert wire.upstreams == []
    assert wire.dialling is None


def test_who_is_not_known_gets_nothing() -> None:
    wire = a_wire()
    wire.lane = Lane(_Io(wire), wire.lane._services, "192.0.2.1")

    for path in (b"/ca.pem", b"/v1/secrets", b"/url/hook", b"/"):
        assert code_of(wire.send(ask(path))) == "proxy_auth_required"
    assert wire.upstreams == []


def test_without_a_record_there_is_no_page() -> None:
    wire = a_wire()
    log = wire.gateway.log
    assert isinstance(log, Book)
    log.broken = True

    assert code_of(wire.send(ask(b"/v1/secrets"))) == "audit_unavailable"


# --- in a tunnel ---------------------------------------------------------------------------------


def test_a_tunnel_to_it_is_answered_and_not_dialled() -> None:
    wire = a_wire()
    connect = b"CONNECT coatcheck.internal:443 HTTP/1.1\r\nHost: coatcheck.internal:443\r\n\r\n"

    assert wire.send(connect) == ESTABLISHED
    wire.secure("coatcheck.internal")
    answer = wire.send(b"GET /ca.pem HTTP/1.1\r\nHost: coatcheck.internal\r\n\r\n")

    assert wire.tls_for == [("coatcheck.internal", b"")]
    assert answer.endswith(CA_PEM)
    assert wire.upstreams == []


def test_a_passthrough_that_covers_it_does_not_tunnel_it() -> None:
    wire = a_wire(POLICY + 'egress: {passthrough: ["*.internal.example", "coatcheck.internal"]}\n')
    connect = b"CONNECT coatcheck.internal:443 HTTP/1.1\r\nHost: coatcheck.internal:443\r\n\r\n"

    wire.send(connect)

    assert wire.tls_for == [("coatcheck.internal", b"")]
    assert wire.dialling is None
    assert wire.upstreams == []


def test_a_url_in_a_tunnel() -> None:
    wire = a_wire(tunnel=Tunnel(OWN, None))

    wire.send(b"GET /url/hook HTTP/1.1\r\nHost: coatcheck.internal\r\n\r\n")

    assert wire.upstream.destination == HOOKS
    assert wire.received().startswith(b"GET /services/T0/" + TOKEN + b" HTTP/1.1\r\n")


# --- URLs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "target"),
    [
        pytest.param(b"/url/hook", b"/services/T0/" + TOKEN, id="the URL"),
        pytest.param(b"/url/a%2Fb%20c", b"/services/T0/" + TOKEN, id="a name to be encoded"),
        pytest.param(b"/url/hook/x?y=1", b"/services/T0/" + TOKEN + b"/x?y=1", id="and more"),
        pytest.param(
            b"/url/hook.query/x?y=1",
            b"/services/T0/" + TOKEN + b"/x?team=blue&y=1",
            id="and more to a query",
        ),
        pytest.param(
            b"/url/hook.slash", b"/services/T0/" + TOKEN + b"/", id="its slash, no fragment"
        ),
        pytest.param(
            b"/url/hook.slash/x", b"/services/T0/" + TOKEN + b"/x", id="more behind a slash"
        ),
        pytest.param(b"/url/hook.any", b"/services/T0/" + TOKEN, id="allowed anywhere"),
    ],
)
def test_a_request_goes_to_the_url_that_is_the_value(path: bytes, target: bytes) -> None:
    wire = a_wire()

    wire.send(
        ask(path, b"X-Mine: 1", b"Content-Type: application/json", method=b"POST", body=b"{}")
    )

    assert wire.upstream.destination == HOOKS
    assert wire.upstream.tls
    assert wire.received() == (
        b"POST " + target + b" HTTP/1.1\r\nHost: hooks.example.com\r\nX-Mine: 1\r\n"
        b"Content-Type: application/json\r\nAccept-Encoding: identity\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    )


def test_placeholders_in_the_rest_are_filled_under_their_own_grants() -> None:
    wire = a_wire()

    wire.send(ask(b"/url/hook/{{secrets.key}}?k=__secrets.key__", b"X-Key: {{secrets.key}}"))

    sent = wire.received()
    assert sent.startswith(b"GET /services/T0/%b/%b?k=%b HTTP/1.1" % (TOKEN, VALUE, VALUE))
    assert b"X-Key: " + VALUE in sent


def test_the_use_is_on_record_with_the_value_nowhere() -> None:
    wire = a_wire()

    wire.send(ask(b"/url/hook/x?y=1"))

    record = audited(wire)
    assert record["secrets"] == [{"name": "hook", "version": 1, "location": "url"}]
    assert (record["host"], record["path"]) == ("hooks.example.com", "/url/hook/x")
    assert TOKEN.decode() not in json.dumps(wire.audit)


@pytest.mark.parametrize(
    ("name", "host"),
    [
        pytest.param(b"hook", "hooks.example.com", id="a host that is named"),
        pytest.param(b"hook.wild", "*.example.com", id="below a wildcard"),
        pytest.param(b"hook.any", "*", id="allowed anywhere"),
        pytest.param(b"hook.elsewhere", "coatcheck.internal", id="not allowed there"),
    ],
)
def test_a_record_tells_no_more_of_the_host_than_the_allowed_domains(
    name: bytes, host: str
) -> None:
    wire = a_wire()

    wire.send(ask(b"/url/" + name))

    assert audited(wire)["host"] == host
    assert "secret-label" not in json.dumps(wire.audit)


ANSWERS = [
    pytest.param(b"Location: " + HOOK + b"/next", b"", id="Location, absolute"),
    pytest.param(b"Location: /services/T0/" + TOKEN + b"/next", b"", id="Location, relative"),
    pytest.param(b"Link: <" + HOOK + b">; rel=self", b"", id="Link"),
    pytest.param(b"X: 1", b"no such path: /services/T0/" + TOKEN, id="a body that quotes the path"),
    pytest.param(b"X: 1", b'{"token": "%b"}' % TOKEN, id="a body that quotes a part"),
    pytest.param(b"X: 1", HOOK.replace(b"/", b"\\/"), id="JSON-escaped"),
]


@pytest.mark.parametrize(("field", "body"), ANSWERS)
@pytest.mark.parametrize("name", [b"hook", b"hook.any"])
def test_an_answer_does_not_give_the_url_away(field: bytes, body: bytes, name: bytes) -> None:
    wire = a_wire()
    wire.send(ask(b"/url/" + name))

    got = wire.answer(
        b"HTTP/1.1 302 Found\r\n%b\r\nContent-Length: %d\r\n\r\n%b" % (field, len(body), body)
    )

    assert got.startswith(b"HTTP/1.1 302 Found\r\n")
    assert TOKEN not in got
    assert b"********" in got


def test_what_the_url_answers_is_passed_on() -> None:
    wire = a_wire()
    wire.send(ask(b"/url/hook"))

    assert wire.answer(OK).endswith(b"2\r\nok\r\n0\r\n\r\n")
    assert wire.send(ask(b"/ca.pem")).endswith(CA_PEM)


def grants(text: str) -> str:
    return POLICY.partition("grants:")[0] + f"grants:\n  - {{secrets: [hook], {text}}}\n"


REFUSED = [
    pytest.param(b"hook.nothing", POLICY, "secret_unavailable", id="no such secret"),
    pytest.param(b"theirs", POLICY, "secret_unavailable", id="granted to another client"),
    pytest.param(b"key", POLICY, "location_not_allowed", id="no grant has url in in:"),
    pytest.param(b"hook.elsewhere", POLICY, "domain_not_allowed", id="not in its domains"),
    pytest.param(b"hook.plain", POLICY, "plaintext_not_allowed", id="http:// without plaintext:"),
    pytest.param(b"hook.userinfo", POLICY, "value_not_representable", id="user and password"),
    pytest.param(b"hook.text", POLICY, "value_not_representable", id="no URL"),
    pytest.param(b"hook.scheme", POLICY, "value_not_representable", id="another scheme"),
    pytest.param(b"hook.loop", POLICY, "destination_not_allowed", id="a URL of our own"),
    pytest.param(b"a%0d%0aX:%20y", POLICY, "secret_unavailable", id="a field in the name"),
    pytest.param(b"{{secrets.hook}}", POLICY, "secret_unavailable", id="a placeholder as the name"),
    pytest.param(
        b"hook",
        POLICY + "egress: {default: deny}\n",
        "destination_not_allowed",
        id="not where clients may go",
    ),
    pytest.param(
        b"hook",
        grants("clients: [local], in: [header, query, path, body]"),
        "location_not_allowed",
        id="every place but url",
    ),
    pytest.param(b"hook", grants("clients: [local]"), "location_not_allowed", id="in: is left out"),
    pytest.param(
        b"hook",
        grants("clients: [local], in: [url], hosts: [api.example.com]"),
        "domain_not_allowed",
        id="not among the grant's hosts",
    ),
    pytest.param(
        b"hook",
        grants("clients: [local], in: [url], methods: [POST]"),
        "request_not_allowed",
        id="another method",
    ),
    pytest.param(
        b"hook/more",
        grants(f"clients: [local], in: [url], paths: [/services/T0/{TOKEN.decode()}]"),
        "request_not_allowed",
        id="a path beyond the grant's",
    ),
    pytest.param(
        b"hook/{{secrets.hook}}",
        grants("clients: [local], in: [url, path], max_uses: 1"),
        "too_many_placeholders",
        id="more uses than max_uses",
    ),
    pytest.param(
        b"hook/{{secrets.theirs}}", POLICY, "secret_unavailable", id="another's behind the name"
    ),
    pytest.param(
        b"hook/{{secrets.hook}}", POLICY, "location_not_allowed", id="the URL as a part of itself"
    ),
]


@pytest.mark.parametrize(("path", "policy", "code"), REFUSED)
def test_a_request_that_may_not_go_there(path: bytes, policy: str, code: str) -> None:
    wire = a_wire(policy)

    answer = wire.send(ask(b"/url/" + path))

    assert code_of(answer) == code
    assert wire.upstreams == []
    told = answer + json.dumps(wire.audit).encode()
    for part in (TOKEN, b"evil.example.net", b"/services", b"user:pass"):
        assert part not in told
    assert b"hooks.example.com" not in answer


@pytest.mark.parametrize(
    ("text", "path"),
    [
        pytest.param("clients: [local], in: [url], methods: [GET]", b"hook", id="its method"),
        pytest.param(
            "clients: [local], in: [url], paths: [/services/**]", b"hook/x", id="its path"
        ),
        pytest.param("clients: [local], in: [url], hosts: [hooks.example.com]", b"hook", id="host"),
        pytest.param("clients: [local], in: [url], max_uses: 1", b"hook", id="one use"),
        pytest.param("clients: [local], in: [url, path]", b"hook/{{secrets.hook}}", id="two uses"),
    ],
)
def test_a_request_that_fits_its_grant_goes_there(text: str, path: bytes) -> None:
    wire = a_wire(grants(text))

    wire.send(ask(b"/url/" + path))

    assert wire.upstream.destination == HOOKS
    assert TOKEN in wire.received()


@pytest.mark.parametrize(
    "more",
    [
        pytest.param("placeholders: {unresolved: keep}\n", id="unresolved: keep"),
        pytest.param("placeholders: {text_hosts: [hooks.example.com]}\n", id="a text host"),
    ],
)
@pytest.mark.parametrize(
    ("name", "code"),
    [
        pytest.param(b"theirs", "secret_unavailable", id="not granted"),
        pytest.param(b"hook", "request_not_allowed", id="granted for another method"),
    ],
)
def test_a_url_is_never_kept_as_text(more: str, name: bytes, code: str) -> None:
    wire = a_wire(grants("clients: [local], in: [url], methods: [POST]") + more)

    assert code_of(wire.send(ask(b"/url/" + name))) == code
    assert wire.upstreams == []


def test_what_does_not_exist_and_what_is_not_granted_are_answered_alike() -> None:
    wire = a_wire()

    answers = [wire.send(ask(b"/url/" + name)) for name in (b"theirs", b"absent")]

    assert answers[0].replace(b"request-1", b"request-2") == answers[1]
    assert b"theirs" not in answers[0]


@pytest.mark.parametrize(
    "code",
    [Code.UPSTREAM_UNREACHABLE, Code.UPSTREAM_TLS_FAILED, Code.ADDRESS_NOT_ALLOWED],
)
@pytest.mark.parametrize("name", [b"hook.wild", b"hook"])
def test_a_failed_connection_does_not_tell_the_host(code: Code, name: bytes) -> None:
    wire = a_wire()
    wire.refuse_dial = code

    answer = wire.send(ask(b"/url/" + name))

    assert code_of(answer) == str(code)
    assert b".example.com" not in answer
    assert b'"host": "coatcheck.internal"' in answer
    assert "secret-label" not in json.dumps(wire.audit)


def test_without_a_record_nothing_is_sent() -> None:
    wire = a_wire()
    log = wire.gateway.log
    assert isinstance(log, Book)
    log.broken = True

    assert code_of(wire.send(ask(b"/url/hook"))) == "audit_unavailable"
    assert wire.upstreams == []


def test_a_value_that_cannot_be_opened_is_not_told_apart_for_the_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wire = a_wire()

    def broken(_: object) -> None:
        raise StoreError("the record of hook is for another key", hint="restore the key")

    monkeypatch.setattr(wire.gateway.snapshot.view, "open", broken)
    answer = wire.send(ask(b"/url/hook"))

    assert code_of(answer) == "store_unavailable"
    assert b"another key" not in answer
    assert "another key" in str(audited(wire)["operator"])
    assert wire.upstreams == []


def test_a_bug_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = a_wire()

    def broken(_: object) -> None:
        raise RuntimeError(HOOK.decode())

    monkeypatch.setattr(wire.gateway.snapshot.view, "open", broken)
    answer = wire.send(ask(b"/url/hook"))

    assert code_of(answer) == "internal_error"
    assert TOKEN not in answer
    assert audited(wire)["operator"] == "RuntimeError"


def test_a_websocket_is_not_opened_through_a_url() -> None:
    wire = a_wire()
    wire.send(
        ask(
            b"/url/hook",
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            b"Sec-WebSocket-Version: 13",
        )
    )

    assert b"Upgrade:" not in wire.received()
    answer = wire.answer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
    assert code_of(answer) == "response_withheld"


def test_the_client_that_is_meant_is_the_one_of_the_tunnel() -> None:
    wire = a_wire(tunnel=Tunnel(OWN, Credential(None, "wrong")))

    answer = wire.send(b"GET /v1/secrets HTTP/1.1\r\nHost: coatcheck.internal\r\n\r\n")

    assert code_of(answer) == "proxy_auth_required"
