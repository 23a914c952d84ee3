"""LOC and ESC: where a value may stand, and that it cannot get out of its place."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, unquote_to_bytes

import h11
import pytest

from tests.attacks.client import Client, accepted, ask, refused
from tests.attacks.stage import ALLOWED, KEY_A, THIEF, VALUES
from tests.e2e.upstream import Received, Upstream
from tests.e2e.wire import request

KEY = "{{secrets.key.a}}"
JSON = "Content-Type: application/json"
FORM = "Content-Type: application/x-www-form-urlencoded"
TEXT = "Content-Type: text/plain"
XML = "Content-Type: application/xml"
MULTIPART = "Content-Type: multipart/form-data; boundary=BOUND"


def holds(name: str) -> str:
    return "{{secrets." + name + "}}"


def sent(upstream: Upstream) -> list[Received]:
    """What went out; each of them one whole request to h11 too."""
    taken = upstream.take()
    for received in taken:
        reader = h11.Connection(h11.SERVER)
        reader.receive_data(received.head + received.raw_body)
        assert isinstance(reader.next_event(), h11.Request)
    return taken


# --- LOC: headers --------------------------------------------------------------------------------

OPEN = ["Authorization", "X-Api-Key", "Content-Type", "Accept", "X-Custom", "Private-Token"]
OPEN += ["X_Api_Key", "UserAgent"]
GUARDED = ["Cookie", "Referer", "User-Agent", "Origin", "Via", "Forwarded", "X-Forwarded-For"]
GUARDED += ["X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Anything"]
GUARDED += ["User_Agent", "X_Forwarded_For", "X-Forwarded_For", "X.Forwarded.For", "User~Agent"]
NEVER = ["Host", "Connection", "Content-Length", "Expect", "Keep-Alive", "TE", "Trailer", "Upgrade"]
NEVER += ["Transfer-Encoding", "Proxy-Authorization", "Proxy-X", "Proxy-Connection"]
NEVER += ["Content_Length", "Transfer_Encoding", "Proxy_Authorization", "Proxy.X", "Keep_Alive"]


@pytest.mark.parametrize("name", OPEN)
def test_loc_01_headers_that_are_open(name: str, alice: Client, upstream: Upstream) -> None:
    accepted(ask(alice, request("GET", "/echo", f"{name}: {KEY}", host=ALLOWED)))
    (received,) = sent(upstream)
    assert received.all(name) == [KEY_A]


@pytest.mark.parametrize("name", GUARDED)
def test_loc_01_headers_that_are_shown_around(name: str, alice: Client, upstream: Upstream) -> None:
    answer = ask(alice, request("GET", "/echo", f"{name}: {KEY}", host=ALLOWED))
    refused(answer, "location_not_allowed")
    assert sent(upstream) == []


@pytest.mark.parametrize("name", NEVER)
def test_loc_01_headers_that_frame_or_route(name: str, alice: Client, upstream: Upstream) -> None:
    refused(ask(alice, request("GET", "/echo", f"{name}: {KEY}", host=ALLOWED)))
    assert [r for r in upstream.take() if KEY_A in r.bytes] == []


def test_loc_01_a_cookie_where_it_is_named(alice: Client, upstream: Upstream) -> None:
    accepted(ask(alice, request("GET", "/echo", f"Cookie: s={holds('cookie.key')}", host=ALLOWED)))
    assert sent(upstream)[0].all("cookie") == [b"s=" + VALUES["cookie.key"]]


# --- LOC: where a grant lets it stand ------------------------------------------------------------

PLACES: dict[str, tuple[str, bytes]] = {
    "header.authorization": (
        "head.key",
        request("GET", "/echo", "Authorization: Bearer %", host=ALLOWED),
    ),
    "query.key": ("query.key", request("GET", "/echo?key=%", host=ALLOWED)),
    "path": ("path.key", request("GET", "/echo/%/x", host=ALLOWED)),
    "body./auth/secret": (
        "body.key",
        request("POST", "/echo", JSON, host=ALLOWED, body=b'{"auth":{"secret":"%"}}'),
    ),
}
ELSEWHERE: dict[str, bytes] = {
    "another header": request("GET", "/echo", "X-Key: %", host=ALLOWED),
    "user agent": request("GET", "/echo", "User-Agent: %", host=ALLOWED),
    "another parameter": request("GET", "/echo?q=%", host=ALLOWED),
    "parameter name": request("GET", "/echo?%=1", host=ALLOWED),
    "name in other case": request("GET", "/echo?KEY=%", host=ALLOWED),
    "array parameter": request("GET", "/echo?key[]=%", host=ALLOWED),
    "matrix parameter": request("GET", "/echo;key=%", host=ALLOWED),
    "another pointer": request(
        "POST", "/echo", JSON, host=ALLOWED, body=b'{"auth":{"other":"%"},"secret":"%"}'
    ),
    "JSON name": request("POST", "/echo", JSON, host=ALLOWED, body=b'{"auth":{"%":"secret"}}'),
    "deeper": request("POST", "/echo", JSON, host=ALLOWED, body=b'{"auth":{"secret":["%"]}}'),
    "higher": request("POST", "/echo", JSON, host=ALLOWED, body=b'"%"'),
    "inside of another object": request(
        "POST", "/echo", JSON, host=ALLOWED, body=b'{"x":{"auth":{"secret":"%"}}}'
    ),
    "escaped slash in the name": request(
        "POST", "/echo", JSON, host=ALLOWED, body=b'{"auth/secret":"%"}'
    ),
    "form": request("POST", "/echo", FORM, host=ALLOWED, body=b"secret=%"),
    "text": request("POST", "/echo", TEXT, host=ALLOWED, body=b"auth.secret=%"),
    "XML": request("POST", "/echo", XML, host=ALLOWED, body=b"<auth><secret>%</secret></auth>"),
    "GraphQL": request(
        "POST", "/echo", JSON, host=ALLOWED, body=b'{"query":"{ a(s: \\"%\\") }","variables":{}}'
    ),
    "multipart": request(
        "POST",
        "/echo",
        MULTIPART,
        host=ALLOWED,
        body=b'--BOUND\r\nContent-Disposition: form-data; name="secret"\r\n\r\n%\r\n--BOUND--\r\n',
    ),
    "another pointer in UTF-7": request(
        "POST",
        "/echo",
        JSON + "; charset=utf-7",
        host=ALLOWED,
        body=b'{"auth": {"secret": "+ACIAfQ-, +ACI-note+ACI-: +AHsAIg-t+ACI-: +ACI-%"}}',
    ),
    "another field in UTF-7": request(
        "POST", "/echo", FORM + '; charset="UTF-7"', host=ALLOWED, body=b"secret=+ACY-note+AD0-%"
    ),
    "a prompt": request(
        "POST", "/echo", JSON, host=ALLOWED, body=b'{"messages":[{"content":"reverse: %"}]}'
    ),
    "a public object": request(
        "POST", "/echo", JSON, host=ALLOWED, body=b'{"public":true,"files":{"a":{"content":"%"}}}'
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_loc_02_the_place_that_is_named(place: str, alice: Client, upstream: Upstream) -> None:
    name, data = PLACES[place]
    data = _with_length(data.replace(b"%", holds(name).encode()))
    accepted(ask(alice, data))
    (received,) = sent(upstream)
    assert received.bytes.count(VALUES[name]) == 1


@pytest.mark.parametrize("secret", ["head.key", "query.key", "path.key", "body.key"])
@pytest.mark.parametrize("where", ELSEWHERE)
def test_loc_02_every_other_place(
    where: str, secret: str, alice: Client, upstream: Upstream
) -> None:
    """Also LOC-09 and LOC-10: a prompt or a public object on an allowed host."""
    data = _with_length(ELSEWHERE[where].replace(b"%", holds(secret).encode()))
    answer = ask(alice, data)
    if secret == "path.key" and where == "matrix parameter":
        accepted(answer)
        return
    refused(answer, "location_not_allowed", "request_not_allowed")
    assert [r for r in upstream.take() if VALUES[secret] in r.bytes] == []


def _with_length(data: bytes) -> bytes:
    head, _, body = data.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    lines += [b"Content-Length: %d" % len(body)] if body else []
    return b"\r\n".join([*lines, b"", body])


# --- LOC: paths and methods ----------------------------------------------------------------------

V1 = "X-Key: {{secrets.v1.key}}"
OUTSIDE = [
    "/v1/../gists",
    "/v1/%2e%2e/gists",
    "/v1/%2E./gists",
    "/v1/..;/gists",
    "/v1/..;x=y/gists",
    "/v1%2f..%2fgists",
    "/v1/%2f..%2f..%2fgists",
    "/v1/x%2fy",
    "/v1/x%5c..%5cgists",
    "/v1\\..\\gists",
    "/v1/x/../../gists",
    "/v1//../gists",
    "//v1/x",
    "/v1/./../gists",
    "/V1/x",
    "/v1x/y",
    "/v2/x",
    "/",
    "/x/v1/y",
    "/v1/%00",
    "/v1/%252e%252e/gists",
    "/gists?/v1/",
    "/gists;/v1/",
    "/%76%31%2fx",
    "/v1/..",
    "/v1/.",
    "/v1/..%20/gists",
    "/v1/..%e3%80%80/gists",
    "/v1/%EF%BC%8E%EF%BC%8E/gists",
    "/v1/x%ef%bc%8f..%ef%bc%8fgists",
    "/v1/%ef%bc%8fgists",
    "/v1/%e2%80%a5/gists",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_loc_04_paths_outside_or_ambiguous(path: str, alice: Client, upstream: Upstream) -> None:
    """What two servers could resolve differently does not match a path rule."""
    refused(ask(alice, request("GET", path, V1, host=ALLOWED)), "request_not_allowed")
    assert sent(upstream) == []


INSIDE = ["/v1", "/v1/x", "/v1/x/y?z=/../", "/v1/a%20b", "/v1/x.json", "/v1/%C3%A9"]


@pytest.mark.parametrize("path", INSIDE)
def test_loc_04_paths_inside(path: str, alice: Client, upstream: Upstream) -> None:
    accepted(ask(alice, request("GET", path, V1, host=ALLOWED)))
    (received,) = sent(upstream)
    assert received.target == path.encode()
    assert received.all("x-key") == [VALUES["v1.key"]]


METHODS = ["POST", "PUT", "HEAD", "get", "gEt", "TRACE", "OPTIONS", "PATCH", "PROPFIND", "GETX"]


@pytest.mark.parametrize("method", METHODS)
def test_loc_05_other_methods(method: str, alice: Client, upstream: Upstream) -> None:
    data = request(method, "/v1/x", V1, host=ALLOWED)
    answer = ask(alice, data, is_head=method == "HEAD")
    refused(answer, "request_not_allowed", "bad_request")
    assert sent(upstream) == []


OVERRIDES = ["X-HTTP-Method-Override: GET", "X-Method-Override: GET", "X-HTTP-Method: GET"]
OTHERWISE: dict[str, tuple[str, list[str]]] = {
    "a field": ("/v1/x", ["X-HTTP-Method-Override: DELETE"]),
    "a field with underscores": ("/v1/x", ["X_HTTP_Method_Override: DELETE"]),
    "a field with dots": ("/v1/x", ["X.HTTP.Method: DELETE"]),
    "a parameter": ("/v1/x?_method=DELETE", []),
    "a parameter, encoded": ("/v1/x?a=1&%5fmetho%64=DELETE", []),
    "another path": ("/v1/x", ["X-Original-URL: /gists"]),
    "another path, underscores": ("/v1/x", ["X_Original_URL: /gists"]),
    "as nginx names it": ("/v1/x", ["X-Original-URI: /gists"]),
    "as Traefik names it": ("/v1/x", ["X-Forwarded-Uri: /gists"]),
    "as its name says": ("/v1/x", ["X-HTTP-Path-Override: /gists"]),
    "a mount point": ("/v1/x", ["SCRIPT_NAME: /v1"]),
}
HARMLESS: dict[str, tuple[str, list[str]]] = {
    "a parameter of an API": ("/v1/x?method=DELETE&my_method=a", []),
    "a field of an API": ("/v1/x", ["X-Method: DELETE", "X_Url: /gists"]),
}


@pytest.mark.parametrize("way", OTHERWISE)
def test_loc_05_another_method_or_path_beside_the_request_line(
    way: str, alice: Client, upstream: Upstream
) -> None:
    target, lines = OTHERWISE[way]
    answer = ask(alice, request("GET", target, V1, *lines, host=ALLOWED))
    refused(answer, "request_not_allowed")
    assert sent(upstream) == []


@pytest.mark.parametrize("way", HARMLESS)
def test_loc_05_what_names_neither(way: str, alice: Client, upstream: Upstream) -> None:
    target, lines = HARMLESS[way]
    accepted(ask(alice, request("GET", target, V1, *lines, host=ALLOWED)))
    assert sent(upstream)[0].all("x-key") == [VALUES["v1.key"]]


@pytest.mark.parametrize("line", OVERRIDES)
def test_loc_05_a_field_does_not_change_the_method(
    line: str, alice: Client, upstream: Upstream
) -> None:
    refused(ask(alice, request("DELETE", "/v1/x?_method=GET", V1, line, host=ALLOWED)))
    assert sent(upstream) == []


TWICE: dict[str, bytes] = {
    "one header": request("GET", "/echo", "X: {{secrets.once.key}} {{secrets.once.key}}"),
    "two headers": request("GET", "/echo", "X: {{secrets.once.key}}", "Y: {{secrets.once.key}}"),
    "two spellings": request("GET", "/echo", "X: {{secrets.once.key}} {secrets.once.key}"),
    "header and query": request("GET", "/echo?a=__secrets.once.key__", "X: {{secrets.once.key}}"),
    "header and body": request(
        "POST", "/echo", TEXT, "X: {{secrets.once.key}}", body=b"{{secrets.once.key}}"
    ),
    "two in the body": request("POST", "/echo", TEXT, body=b"{{secrets.once.key}}" * 2),
    "the same header twice": request(
        "GET", "/echo", "X: {{secrets.once.key}}", "X: {{secrets.once.key}}"
    ),
}


@pytest.mark.parametrize("name", TWICE)
def test_loc_06_more_often_than_allowed(name: str, alice: Client, upstream: Upstream) -> None:
    data = TWICE[name].replace(b"Host: api.example.test", b"Host: allowed.test")
    refused(ask(alice, data), "too_many_placeholders")
    assert sent(upstream) == []


def test_loc_06_once_is_fine(alice: Client, upstream: Upstream) -> None:
    accepted(ask(alice, request("GET", "/echo", f"X: {holds('once.key')}", host=ALLOWED)))
    assert sent(upstream)[0].all("x") == [VALUES["once.key"]]


def test_loc_06_two_secrets_in_one_field(alice: Client, upstream: Upstream) -> None:
    line = f"X: {KEY}:{holds('sp.short')}"
    accepted(ask(alice, request("GET", "/echo", line, host=ALLOWED)))
    assert sent(upstream)[0].all("x") == [KEY_A + b":" + VALUES["sp.short"]]


def test_loc_07_a_credential_of_the_clients_own_stays_apart(
    alice: Client, upstream: Upstream
) -> None:
    data = request("GET", "/echo", "Authorization: Bearer own", f"X-Api-Key: {KEY}", host=ALLOWED)
    accepted(ask(alice, data))
    (received,) = sent(upstream)
    assert received.all("authorization") == [b"Bearer own"]
    assert received.all("x-api-key") == [KEY_A]


# --- ESC: values that would break out ------------------------------------------------------------

BREAKERS = ["sp.crlf", "sp.lf", "sp.cr", "sp.nul", "sp.trailing", "sp.pem", "sp.boundary"]
BREAKERS += ["sp.json", "sp.format"]


@pytest.mark.parametrize("secret", BREAKERS)
@pytest.mark.parametrize("line", ["X: %", "Authorization: Bearer %", "X: a%b", "X: %, %"])
def test_esc_01_controls_never_reach_a_header(
    line: str, secret: str, alice: Client, upstream: Upstream
) -> None:
    data = request("GET", "/echo", line.replace("%", holds(secret)), host=ALLOWED)
    refused(ask(alice, data), "value_not_representable")
    assert sent(upstream) == []


SAFE = ["sp.quotes", "sp.short", "sp.utf8", "sp.overlap", "sp.prefix", "sp.longer", "sp.b64"]
SAFE += ["sp.url", "sp.colon", "sp.nested", "sp.nested-percent", "sp.marker", "sp.binary"]


@pytest.mark.parametrize("secret", SAFE)
def test_esc_01_everything_else_goes_into_a_header_as_it_is(
    secret: str, alice: Client, upstream: Upstream
) -> None:
    accepted(ask(alice, request("GET", "/echo", f"X: <{holds(secret)}>", host=ALLOWED)))
    (received,) = sent(upstream)
    assert received.all("x") == [b"<" + VALUES[secret] + b">"]


EVERY_SPECIAL = [name for name in VALUES if name.startswith("sp.")]


@pytest.mark.parametrize("secret", EVERY_SPECIAL)
@pytest.mark.parametrize(
    "around", [("{{secrets.", "}}"), ("__secrets.", "__"), ("%7Bsecrets.", "%7d")]
)
def test_esc_02_query(
    around: tuple[str, str], secret: str, alice: Client, upstream: Upstream
) -> None:
    """Encoded once: the upstream decodes it to the exact value, and sees no parameter more."""
    holder = secret.join(around)
    accepted(ask(alice, request("GET", f"/echo?a=1&k={holder}&z=2", host=ALLOWED)))
    (received,) = sent(upstream)
    parts = received.target.partition(b"?")[2].split(b"&")
    assert (parts[0], parts[2], len(parts)) == (b"a=1", b"z=2", 3)
    assert unquote_to_bytes(parts[1][2:]) == VALUES[secret]


@pytest.mark.parametrize("secret", EVERY_SPECIAL)
def test_esc_02_path(secret: str, alice: Client, upstream: Upstream) -> None:
    accepted(ask(alice, request("GET", f"/echo/{holds(secret)}/end", host=ALLOWED)))
    (received,) = sent(upstream)
    parts = received.target.split(b"/")
    assert len(parts) == 4
    assert unquote_to_bytes(parts[2]) == VALUES[secret]


@pytest.mark.parametrize("secret", EVERY_SPECIAL)
def test_esc_03_json(secret: str, alice: Client, upstream: Upstream) -> None:
    """Structure kept and value exact; what is no UTF-8 is refused."""
    body = json.dumps({"a": [1, {"b": f"x{holds(secret)}y"}], "c": "d"}).encode()
    answer = ask(alice, request("POST", "/echo", JSON, host=ALLOWED, body=body))
    received = sent(upstream)
    try:
        text = VALUES[secret].decode()
    except UnicodeDecodeError:
        refused(answer, "value_not_representable")
        assert received == []
        return
    accepted(answer)
    assert json.loads(received[0].body) == {"a": [1, {"b": f"x{text}y"}], "c": "d"}


@pytest.mark.parametrize("secret", EVERY_SPECIAL)
def test_esc_03_form(secret: str, alice: Client, upstream: Upstream) -> None:
    body = f"a=1&k={quote(holds(secret))}&z=2".encode()
    accepted(ask(alice, request("POST", "/echo", FORM, host=ALLOWED, body=body)))
    parts = sent(upstream)[0].body.split(b"&")
    assert (parts[0], parts[2], len(parts)) == (b"a=1", b"z=2", 3)
    assert unquote_to_bytes(parts[1][2:].replace(b"+", b" ")) == VALUES[secret]


@pytest.mark.parametrize("secret", EVERY_SPECIAL)
def test_esc_03_xml(secret: str, alice: Client, upstream: Upstream) -> None:
    """Nothing in the value opens a tag or ends a section."""
    body = f"<a><b>{holds(secret)}</b></a>".encode()
    answer = ask(alice, request("POST", "/echo", XML, host=ALLOWED, body=body))
    for received in sent(upstream):
        accepted(answer)
        inner = received.body.removeprefix(b"<a><b>").removesuffix(b"</b></a>")
        assert b"<" not in inner
        assert b"]]>" not in inner


@pytest.mark.parametrize("secret", EVERY_SPECIAL)
def test_esc_03_multipart(secret: str, alice: Client, upstream: Upstream) -> None:
    part = b'Content-Disposition: form-data; name="k"\r\n\r\n'
    body = b"--BOUND\r\n" + part + holds(secret).encode() + b"\r\n--BOUND--\r\n"
    answer = ask(alice, request("POST", "/echo", MULTIPART, host=ALLOWED, body=body))
    received = sent(upstream)
    if secret == "sp.boundary":
        refused(answer, "value_not_representable")
        assert received == []
        return
    accepted(answer)
    assert received[0].body == b"--BOUND\r\n" + part + VALUES[secret] + b"\r\n--BOUND--\r\n"


IN_PART_HEADS = [b'name="{{secrets.key.a}}"', b'name="k"; filename="{{secrets.key.a}}"']
IN_PART_HEADS += [b'name="k"\r\nX: {{secrets.key.a}}']


@pytest.mark.parametrize("head", IN_PART_HEADS, ids=repr)
def test_esc_03_heads_of_parts_are_not_filled(
    head: bytes, alice: Client, upstream: Upstream
) -> None:
    body = b"--BOUND\r\nContent-Disposition: form-data; " + head + b"\r\n\r\nx\r\n--BOUND--\r\n"
    ask(alice, request("POST", "/echo", MULTIPART, host=ALLOWED, body=body))
    assert [r for r in upstream.take() if KEY_A in r.bytes] == []


@pytest.mark.parametrize("secret", EVERY_SPECIAL)
@pytest.mark.parametrize("user", ["u", "", "x" * 100])
def test_esc_04_basic(secret: str, user: str, alice: Client, upstream: Upstream) -> None:
    """Exact bytes behind the colon (RFC 7617), or a refusal."""
    token = base64.b64encode(f"{user}:{holds(secret)}".encode()).decode()
    answer = ask(alice, request("GET", "/echo", f"Authorization: Basic {token}", host=ALLOWED))
    received = sent(upstream)
    if received:
        accepted(answer)
        got = received[0].all("authorization")[0].removeprefix(b"Basic ")
        assert base64.b64decode(got) == user.encode() + b":" + VALUES[secret]
    else:
        refused(answer, "value_not_representable")


FRAMINGS: dict[str, bytes] = {
    "Content-Length": request("POST", "/echo", TEXT, host=ALLOWED, body=KEY.encode()),
    "chunked": request("POST", "/echo", TEXT, "Transfer-Encoding: chunked", host=ALLOWED)
    + b"%x\r\n%b\r\n0\r\n\r\n" % (len(KEY), KEY.encode()),
    "Expect": request(
        "POST", "/echo", TEXT, "Expect: 100-continue", host=ALLOWED, body=KEY.encode()
    ),
    "Content-MD5": request(
        "POST", "/echo", TEXT, "Content-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==", host=ALLOWED,
        body=KEY.encode(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FRAMINGS)
def test_esc_06_the_length_is_right(name: str, alice: Client, upstream: Upstream) -> None:
    accepted(ask(alice, FRAMINGS[name]))
    (received,) = sent(upstream)
    assert received.body == KEY_A
    lengths = received.all("content-length")
    assert lengths in ([], [b"%d" % len(KEY_A)])
    assert bool(lengths) != bool(received.all("transfer-encoding"))


def test_esc_06_a_refused_upload_is_told_before_its_body(alice: Client, upstream: Upstream) -> None:
    """No ``100 Continue`` for what will not be sent."""
    head = request("POST", "/x", "Expect: 100-continue", "X: {{secrets.no}}", "Content-Length: 9")
    answer = ask(alice, head.replace(b"Host: api.example.test", b"Host: allowed.test"))
    assert refused(answer, "secret_unavailable") is not None
    assert answer is not None
    assert answer.interim == ()
    assert sent(upstream) == []


@pytest.mark.parametrize("place", ["header", "query", "body"])
def test_esc_07_the_wrong_host_gets_nothing_in_any_place(
    place: str, alice: Client, upstream: Upstream
) -> None:
    data = {
        "header": request("GET", "/echo", f"X: {KEY}", host=THIEF),
        "query": request("GET", f"/echo?k={KEY}", host=THIEF),
        "body": request("POST", "/echo", TEXT, host=THIEF, body=KEY.encode()),
    }[place]
    refused(ask(alice, data, THIEF), "domain_not_allowed")
    assert sent(upstream) == []
