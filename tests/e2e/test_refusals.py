"""Every refusal of a request that a client can bring about: its code, its form, and what the
upstream saw of it, which is nothing."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass

import pytest

from tests.e2e.harness import OTHER, OTHER_TOKEN, RUNNER, RUNNER_TOKEN, Proxy
from tests.e2e.main_home import SPECIAL
from tests.e2e.upstream import Upstream
from tests.e2e.wire import Answer, Dial, basic, request

KEY = "{{secrets.crm.apiKey}}"
AUTHORIZATION = f"Authorization: Bearer {KEY}"
JSON = "Content-Type: application/json"
FORM = "Content-Type: application/x-www-form-urlencoded"
MULTIPART = "Content-Type: multipart/form-data; boundary=BOUND"


def check(answer: Answer, code: str, status: int) -> dict[str, str]:
    """*answer* is a well-formed problem with this code; returns it."""
    assert (answer.code, answer.status) == (code, status), answer.raw[:600]
    assert answer.one("content-type") == b"application/problem+json"
    problem = answer.problem
    assert problem["type"] == f"urn:coatcheck:problem:{code}"
    assert (problem["code"], int(problem["status"])) == (code, status)
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"]
    return problem


def header(name: str) -> bytes:
    return request("GET", "/echo", "X-Key: {{secrets.%s}}" % name)  # noqa: UP031


def part(text: bytes) -> bytes:
    head = b'--BOUND\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
    return head + text + b"\r\n--BOUND--\r\n"


@dataclass(frozen=True)
class Case:
    code: str
    status: int
    data: bytes
    host: str = "api.example.test"
    location: str = ""


REFUSED = {
    # which secret, and where to
    "no such secret": Case("secret_unavailable", 403, header("no.such")),
    "not granted to anyone": Case("secret_unavailable", 403, header("ungranted.key")),
    "another client's": Case("secret_unavailable", 403, header("other.key")),
    "letter case counts": Case("secret_unavailable", 403, header("crm.apikey")),
    "another host": Case(
        "domain_not_allowed",
        403,
        request("GET", "/echo", AUTHORIZATION, host="evil.example.test"),
        "evil.example.test",
    ),
    "allowed nowhere": Case("domain_not_allowed", 403, header("nowhere.key")),
    "outside the grant's hosts": Case("domain_not_allowed", 403, header("hosts.key")),
    "only on another port": Case("domain_not_allowed", 403, header("port.key")),
    # where it stands
    "cookie, not named": Case(
        "location_not_allowed",
        403,
        request("GET", "/echo", f"Cookie: s={KEY}"),
        location="header:cookie",
    ),
    "referer": Case(
        "location_not_allowed",
        403,
        request("GET", "/echo", f"Referer: https://x/{KEY}"),
        location="header:referer",
    ),
    "user agent": Case(
        "location_not_allowed",
        403,
        request("GET", "/echo", f"User-Agent: {KEY}"),
        location="header:user-agent",
    ),
    "forwarded for": Case(
        "location_not_allowed",
        403,
        request("GET", "/echo", f"X-Forwarded-For: {KEY}"),
        location="header:x-forwarded-for",
    ),
    "hop-by-hop": Case("location_not_allowed", 403, request("GET", "/echo", f"Keep-Alive: {KEY}")),
    "proxy field": Case("location_not_allowed", 403, request("GET", "/echo", f"Proxy-X: {KEY}")),
    "name of a field": Case(
        "location_not_allowed", 403, request("GET", "/echo", "X-__secrets.crm.apiKey__: 1")
    ),
    "only named places": Case(
        "location_not_allowed",
        403,
        request("GET", "/echo/v1/a?other={{secrets.narrow.key}}"),
        location="query:other",
    ),
    # method, path, number
    "another method": Case(
        "request_not_allowed",
        403,
        request("DELETE", "/echo/v1/a", "Authorization: {{secrets.narrow.key}}"),
    ),
    "another path": Case(
        "request_not_allowed",
        403,
        request("GET", "/echo/v2/a", "Authorization: {{secrets.narrow.key}}"),
    ),
    "path read in two ways": Case(
        "request_not_allowed",
        403,
        request("GET", "/echo/v1/%2e%2e/v2", "Authorization: {{secrets.narrow.key}}"),
    ),
    "dot segments": Case(
        "request_not_allowed",
        403,
        request("GET", "/echo/v1/../v2", "Authorization: {{secrets.narrow.key}}"),
    ),
    "over max_uses": Case(
        "too_many_placeholders",
        403,
        request("GET", "/echo/v1/a", "Authorization: " + "{{secrets.narrow.key}} " * 3),
    ),
    "over max_uses, in head and body": Case(
        "too_many_placeholders",
        403,
        request("POST", "/echo", f"X-Key: {KEY * 5}", JSON, body=json.dumps([KEY] * 4).encode()),
    ),
    # malformed
    "placeholder that does not end": Case(
        "placeholder_malformed", 400, request("GET", "/echo", "X-Key: {{secrets.crm.apiKey")
    ),
    "placeholder that does not end, in a body": Case(
        "placeholder_malformed", 400, request("POST", "/echo", JSON, body=b'["{{secrets.crm "]')
    ),
    "percent-encoded and cut": Case(
        "placeholder_malformed", 400, request("GET", "/echo?k=%7b%7Bsecrets.crm.apiKey%7d")
    ),
    # what cannot be written there
    "line end in a header": Case("value_not_representable", 422, header("crlf.key")),
    "no UTF-8 in JSON": Case(
        "value_not_representable",
        422,
        request("POST", "/echo", JSON, body=b'["{{secrets.latin.key}}"]'),
    ),
    "colon in a Basic user": Case(
        "value_not_representable",
        422,
        request("GET", "/echo", "Authorization: " + basic("{{secrets.colon.key}}", "x")),
    ),
    "the boundary in a part": Case(
        "value_not_representable",
        422,
        request("POST", "/echo", MULTIPART, body=part(b"{{secrets.boundary.key}}")),
    ),
    # bodies
    "unknown coding": Case(
        "body_not_decodable",
        415,
        request("POST", "/echo", JSON, "Content-Encoding: bogus", body=b"[1]"),
    ),
    "multipart without a boundary": Case(
        "bad_request",
        400,
        request("POST", "/echo", "Content-Type: multipart/form-data", body=b"x"),
    ),
    # size
    "head too large": Case(
        "headers_too_large", 431, request("GET", "/echo", "X-Long: " + "x" * 70_000)
    ),
    "target too long": Case("headers_too_large", 431, request("GET", "/echo?" + "x" * 20_000)),
    "too many fields": Case(
        "headers_too_large", 431, request("GET", "/echo", *[f"X-{i}: 1" for i in range(101)])
    ),
    # HTTP that two parsers read in two ways
    "two hosts": Case(
        "bad_request", 400, request("GET", "/echo", AUTHORIZATION, "Host: evil.example.test")
    ),
    "no host": Case("bad_request", 400, f"GET /echo HTTP/1.1\r\n{AUTHORIZATION}\r\n\r\n".encode()),
    "length and chunked": Case(
        "bad_request",
        400,
        request("POST", "/echo", "Transfer-Encoding: chunked", "Content-Length: 5") + b"0\r\n\r\n",
    ),
    "two lengths": Case(
        "bad_request",
        400,
        request("POST", "/echo", "Content-Length: 1", "Content-Length: 2") + b"ab",
    ),
    "chunked twice": Case(
        "bad_request",
        400,
        request("POST", "/echo", "Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n",
    ),
    "folded field": Case("bad_request", 400, request("GET", "/echo", "X-A: 1\r\n  2")),
    "bare line feed": Case("bad_request", 400, request("GET", "/echo", "X-A: 1\nX-B: 2")),
    "bare carriage return": Case("bad_request", 400, request("GET", "/echo", "X-A: 1\rX-B: 2")),
    "NUL": Case("bad_request", 400, request("GET", "/echo", "X-A: 1\x002")),
    "space before the colon": Case("bad_request", 400, request("GET", "/echo", "X-A : 1")),
    "no HTTP at all": Case("bad_request", 400, b"hello\r\n\r\n"),
    "another version": Case("bad_request", 400, b"GET /echo HTTP/3.0\r\nHost: x\r\n\r\n"),
    "CONNECT inside a tunnel": Case(
        "bad_request", 400, request("CONNECT", "evil.example.test:443", host="evil.example.test")
    ),
    "broken chunk size": Case(
        "bad_request",
        400,
        request("POST", "/echo", JSON, "Transfer-Encoding: chunked") + b"zz\r\n\r\n",
    ),
    # destinations that disagree
    "host of another": Case(
        "destination_mismatch",
        421,
        request("GET", "/echo", AUTHORIZATION, host="evil.example.test"),
    ),
    "host with another port": Case(
        "destination_mismatch", 421, request("GET", "/echo", host="api.example.test:8443")
    ),
    "absolute target of another": Case(
        "destination_mismatch",
        421,
        request("GET", "https://evil.example.test/echo", AUTHORIZATION),
    ),
    "plain target in a tunnel": Case(
        "destination_mismatch", 421, request("GET", "http://api.example.test/echo", AUTHORIZATION)
    ),
    "placeholder as host": Case(
        "bad_request", 400, request("GET", "/echo", host="{{secrets.crm.apiKey}}.example.test")
    ),
    # egress
    "denied host": Case(
        "destination_not_allowed",
        403,
        request("GET", "/echo", host="denied.example.test"),
        "denied.example.test",
    ),
    "private address": Case(
        "address_not_allowed",
        403,
        request("GET", "/echo", host="private.example.test"),
        "private.example.test",
    ),
    "metadata service": Case(
        "address_not_allowed",
        403,
        request("GET", "/echo", host="metadata.example.test"),
        "metadata.example.test",
    ),
    "metadata service by number": Case(
        "address_not_allowed",
        403,
        request("GET", "/echo", host="169.254.169.254"),
        "169.254.169.254",
    ),
    "loopback": Case(
        "address_not_allowed",
        403,
        request("GET", "/echo", host="loopback.example.test"),
        "loopback.example.test",
    ),
    # upstreams
    "unknown name": Case(
        "upstream_unreachable",
        502,
        request("GET", "/echo", host="unknown.example.test"),
        "unknown.example.test",
    ),
    "nobody listens": Case(
        "upstream_unreachable",
        502,
        request("GET", "/echo", host="refused.example.test"),
        "refused.example.test",
    ),
    "certificate expired": Case(
        "upstream_tls_failed",
        502,
        request("GET", "/echo", "X-Key: {{secrets.roaming.key}}", host="expired.example.test"),
        "expired.example.test",
    ),
    "certificate self-signed": Case(
        "upstream_tls_failed",
        502,
        request("GET", "/echo", "X-Key: {{secrets.roaming.key}}", host="self-signed.example.test"),
        "self-signed.example.test",
    ),
    "certificate for another name": Case(
        "upstream_tls_failed",
        502,
        request("GET", "/echo", "X-Key: {{secrets.roaming.key}}", host="wrong-name.example.test"),
        "wrong-name.example.test",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_refused(case: Case, runner: Dial, proxy: Proxy, upstream: Upstream) -> None:
    with runner.tunnel(case.host) as wire:
        answer = wire.ask(case.data)

    problem = check(answer, case.code, case.status)
    assert upstream.take() == []
    assert case.location in ("", problem.get("location"))
    record = next(r for r in reversed(proxy.audit()) if r["request_id"] == problem["request_id"])
    assert record["code"] == case.code
    assert SPECIAL not in answer.raw


def test_unknown_and_not_granted_are_one_answer(runner: Dial, upstream: Upstream) -> None:
    """Or a client could list the names of other clients' secrets."""
    with runner.tunnel() as wire:
        answers = [wire.ask(header(name)) for name in ("ungranted.key", "ungrantee.key")]

    problems = [{**answer.problem, "request_id": "", "secret": ""} for answer in answers]
    assert problems[0] == problems[1]
    assert [len(answer.raw) for answer in answers] == [len(answers[0].raw)] * 2


def test_a_refused_request_leaves_the_connection_in_use(runner: Dial, upstream: Upstream) -> None:
    with runner.tunnel() as wire:
        check(wire.ask(header("no.such")), "secret_unavailable", 403)

        assert wire.get("/echo", AUTHORIZATION).status == 200
    assert upstream.one().all("authorization") == [b"Bearer " + SPECIAL]


def test_refused_for_head_has_no_body(runner: Dial) -> None:
    with runner.tunnel() as wire:
        answer = wire.ask(request("HEAD", "/echo", "X-Key: {{secrets.no}}"), is_head=True)
        assert (answer.status, answer.code) == (403, "secret_unavailable")

        assert wire.get("/echo").status == 200


def test_a_broken_coding_is_never_a_whole_request(runner: Dial, upstream: Upstream) -> None:
    """It shows only at the end, when the head has left: the upstream must not see an end."""
    coded = gzip.compress(json.dumps(["x" * 50, KEY]).encode())[:-6]
    with runner.tunnel() as wire:
        answer = wire.ask(request("POST", "/echo", JSON, "Content-Encoding: gzip", body=coded))

    check(answer, "body_not_decodable", 415)
    assert upstream.take() == []


def test_a_streamed_body_is_cut_off_at_what_is_refused(runner: Dial, upstream: Upstream) -> None:
    """Over the buffer the head has left before the placeholder is seen."""
    content = b'{"a": "' + b"x" * 1_500_000 + b'", "k": "{{secrets.no.such}}"}'
    with runner.tunnel() as wire:
        answer = wire.ask(request("POST", "/echo", JSON, body=content))

    check(answer, "secret_unavailable", 403)
    assert upstream.take() == []


# --- SNI -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("evil.example.test", id="another host"),
        pytest.param("api!.example.test", id="no host, which is not the same as none"),
    ],
)
def test_server_name_of_another_host(name: str, runner: Dial, upstream: Upstream) -> None:
    with runner.tunnel(sni=name) as wire:
        answer = wire.get("/echo", AUTHORIZATION)

    check(answer, "destination_mismatch", 421)
    assert upstream.take() == []


def test_no_server_name_is_settled_by_the_connect(runner: Dial, upstream: Upstream) -> None:
    with runner.tunnel(sni=None) as wire:
        assert wire.get("/echo", AUTHORIZATION).status == 200
    assert upstream.one().sni == "api.example.test"


def test_names_are_one_in_any_spelling(runner: Dial, upstream: Upstream) -> None:
    with runner.tunnel("API.example.test.", sni="api.Example.test") as wire:
        answer = wire.get("/echo", AUTHORIZATION, host="Api.Example.Test.:443")

    assert answer.status == 200
    assert upstream.one().all("host") == [b"api.example.test"]


# --- plain http ----------------------------------------------------------------------------------


def absolute(target: str, *lines: str, credential: str = RUNNER, host: str = "") -> bytes:
    fields = [f"Proxy-Authorization: {credential}"] if credential else []
    return request("GET", target, *fields, *lines, host=host or target.split("/")[2])


def test_plaintext_not_allowed(runner: Dial, upstream: Upstream) -> None:
    with runner.plain() as wire:
        answer = wire.ask(absolute("http://api.example.test/echo", AUTHORIZATION))

    check(answer, "plaintext_not_allowed", 403)
    assert upstream.take() == []


def test_plaintext_where_a_grant_says_so(runner: Dial, upstream: Upstream) -> None:
    with runner.plain() as wire:
        answer = wire.ask(absolute("http://api.example.test/echo", "X-Key: {{secrets.plain.key}}"))

    assert answer.status == 200
    got = upstream.one()
    assert got.host == "api.example.test:80"
    assert got.all("x-key") == [b"plaintext-aabbccddee"]
    assert got.target == b"/echo"
    assert got.all("proxy-authorization") == []


@pytest.mark.parametrize("target", ["/echo", "ftp://api.example.test/", "https:/echo", "*"])
def test_the_proxy_is_no_web_server(target: str, runner: Dial, upstream: Upstream) -> None:
    with runner.plain() as wire:
        answer = wire.ask(request("GET", target, f"Proxy-Authorization: {RUNNER}"))

    check(answer, "bad_request", 400)
    assert upstream.take() == []


@pytest.mark.parametrize(
    "host", ["127.1", "0x7f.0.0.1", "2130706433", "0", "a..b", "x%00.example.test", "{{secrets.x}}"]
)
def test_hosts_that_are_none(host: str, runner: Dial, upstream: Upstream) -> None:
    """Resolvers take the first ones for loopback."""
    with runner.plain() as wire:
        check(wire.ask(runner.connect_request(host)), "bad_request", 400)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "10.1.2.3", "[::ffff:10.1.2.3]"])
def test_private_addresses_by_number(host: str, runner: Dial) -> None:
    with runner.tunnel(host, sni=None) as wire:
        check(wire.get("/echo", host=host), "address_not_allowed", 403)


def test_the_proxy_itself_is_no_destination(proxy: Proxy, runner: Dial) -> None:
    address = f"loopback.example.test:{proxy.port}"
    with runner.plain() as wire:
        check(wire.ask(absolute(f"http://{address}/")), "address_not_allowed", 403)


# --- who asks ------------------------------------------------------------------------------------


def test_wrong_token_and_retry_on_the_same_connection(proxy: Proxy, upstream: Upstream) -> None:
    wrong = proxy.dial(basic("runner", "ctk_wrong"))
    with wrong.plain() as wire:
        answer = wire.ask(wrong.connect_request("api.example.test"))
        check(answer, "proxy_auth_required", 407)
        assert any(value.startswith(b"Basic") for value in answer.all("proxy-authenticate"))
        right = proxy.dial(RUNNER)

        again = wire.ask(right.connect_request("api.example.test"), is_head=True)

    assert again.status == 200
    assert upstream.take() == []


@pytest.mark.parametrize(
    ("credential", "secret", "status"),
    [
        pytest.param(RUNNER, "crm.apiKey", 200, id="Basic"),
        pytest.param(f"Bearer {RUNNER_TOKEN}", "crm.apiKey", 200, id="Bearer"),
        pytest.param(f"bearer {RUNNER_TOKEN}", "crm.apiKey", 200, id="scheme in lower case"),
        pytest.param(OTHER, "crm.apiKey", 403, id="another client"),
        pytest.param(OTHER, "other.key", 200, id="another client, its own"),
        pytest.param("", "crm.apiKey", 200, id="none, known by its network"),
        pytest.param("", "narrow.key", 403, id="none, granted less"),
        pytest.param(basic("runner", OTHER_TOKEN), "crm.apiKey", 407, id="token of another"),
        pytest.param(basic("nobody", RUNNER_TOKEN), "crm.apiKey", 407, id="unknown client"),
        pytest.param(basic("local", ""), "crm.apiKey", 407, id="client without a token"),
        pytest.param("Bearer ", "crm.apiKey", 407, id="empty"),
        pytest.param("Digest x", "crm.apiKey", 407, id="another scheme"),
        pytest.param("Basic !!!", "crm.apiKey", 407, id="no base64"),
    ],
)
def test_identity(
    credential: str, secret: str, status: int, proxy: Proxy, upstream: Upstream
) -> None:
    """By the absolute form, where each request brings its own credential."""
    target = "/echo/v1/a"
    dial = proxy.dial(credential)
    with dial.plain() as outside:
        answer = outside.ask(dial.connect_request("api.example.test"), is_head=True)
    if answer.status == 200:
        with dial.tunnel() as wire:
            key = "{{secrets.%s}}" % secret  # noqa: UP031
            answer = wire.get(target, f"Authorization: {key}")
    assert answer.status == status
    assert len(upstream.take()) == (1 if status == 200 else 0)


def test_from_another_network_without_a_token(proxy: Proxy) -> None:
    stranger = proxy.dial(source="20.20.20.99")
    with stranger.plain() as wire:
        check(wire.ask(stranger.connect_request("api.example.test")), "proxy_auth_required", 407)


def test_from_another_network_with_a_token(proxy: Proxy, upstream: Upstream) -> None:
    with proxy.dial(RUNNER, source="20.20.20.99").tunnel() as wire:
        assert wire.get("/echo", AUTHORIZATION).status == 200


# --- the other side of each fence ----------------------------------------------------------------

ALLOWED = {
    "wildcard": ("other.example.test", header("wild.key"), b"wildcard-5d0f12ab34"),
    "grant's host": ("other.example.test", header("hosts.key"), b"hosts-0a0b0c0d0e"),
    "any domain": ("evil.example.test", header("roaming.key"), b"roaming-99887766"),
    "IPv6": ("six.example.test", header("six.key"), b"six-6a6b6c6d6e"),
    "value that is no UTF-8": ("api.example.test", header("latin.key"), b"latin-\xe9\xe8\xff-0102"),
    "value that looks like a placeholder": (
        "api.example.test",
        header("nested.key"),
        b"{{secrets.crm.apiKey}}",
    ),
    "narrow": (
        "api.example.test",
        request("GET", "/echo/v1/a", "Authorization: {{secrets.narrow.key}}"),
        b"narrow-445566778899",
    ),
    "named cookie": (
        "api.example.test",
        request("GET", "/echo", 'Cookie: s="{{secrets.cookie.session}}"; b=2'),
        b'\r\nCookie: s="session-8a1f00c2d3e4"; b=2\r\n',
    ),
    "line end in text": (
        "api.example.test",
        request("POST", "/echo", "Content-Type: text/plain", body=b"{{secrets.crlf.key}}"),
        b"line one\r\nX-Injected: yes",
    ),
    "colon in a Basic password": (
        "api.example.test",
        request("GET", "/echo", "Authorization: " + basic("u", "{{secrets.colon.key}}")),
        basic("u", "user:with:colons").encode(),
    ),
}


@pytest.mark.parametrize(("host", "data", "expected"), ALLOWED.values(), ids=ALLOWED.keys())
def test_allowed(host: str, data: bytes, expected: bytes, runner: Dial, upstream: Upstream) -> None:
    """The positive twins of the table above."""
    data = data.replace(b"Host: api.example.test", b"Host: " + host.encode())
    with runner.tunnel(host) as wire:
        answer = wire.ask(data)

    assert answer.status == 200, answer.raw[:300]
    assert expected in upstream.one().bytes
    assert expected not in answer.raw


def test_another_port(runner: Dial, upstream: Upstream) -> None:
    with runner.tunnel(port=8443) as wire:
        answer = wire.get("/echo", "X-Key: {{secrets.port.key}}", host="api.example.test:8443")
    assert answer.status == 200
    assert upstream.one().all("x-key") == [b"other-port-77aa88bb"]
