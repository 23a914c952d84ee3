"""PH: one exact grammar, read once; whatever is no placeholder stays text."""

from __future__ import annotations

import gzip
import json
import time
import zlib

import brotli
import pytest
import zstandard

from tests.attacks.client import Client, accepted, ask, refused, send
from tests.attacks.sites import Scripts
from tests.attacks.stage import ALLOWED, IS_NAIVE, KEY_A, THIEF
from tests.e2e.upstream import Upstream
from tests.e2e.wire import request

TEXT = "Content-Type: text/plain"
JSON = "Content-Type: application/json"
FORM = "Content-Type: application/x-www-form-urlencoded"
KEY = b"{{secrets.key.a}}"

GOOD = [
    "{{secrets.key.a}}",
    "{{ secrets.key.a }}",
    "{{secret.key.a}}",
    "{secrets.key.a}",
    "__secrets.key.a__",
    '{{secrets["key.a"]}}',
    "x{{secrets.key.a}}y",
]


@pytest.mark.parametrize("text", GOOD)
def test_ph_00_the_documented_forms(text: str, alice: Client, upstream: Upstream) -> None:
    accepted(ask(alice, request("POST", "/echo", TEXT, host=ALLOWED, body=text.encode())))
    assert KEY_A in upstream.one().body


NEAR = [
    "{{SECRETS.key.a}}",
    "{{Secrets.key.a}}",
    "{{secrets.KEY.A}}",
    "{{secretskey.a}}",
    "{{secrets key.a}}",
    "{{secrets/key.a}}",
    "{{secrets:key.a}}",
    "{{secrets..key.a}}",
    "{{secrets.key.a}",
    "{secrets.key.a}x}",
    "{{{secrets.key.a",
    "{{secrets.}}",
    "{{secrets. .key.a}}",
    "{{secrets.key.a!}}",
    "{{secrets.key.a|upper}}",
    "{{secrets.key.a()}}",
    "{{#secrets.key.a}}",
    "{{secrets['key.a']}}",
    '{{secrets["key.a]}}',
    '{{secrets[key.a"]}}',
    '{{secrets["key.a"}}',
    "${secrets.key.a}",
    "$secrets.key.a",
    "<secrets.key.a>",
    "[[secrets.key.a]]",
    "((secrets.key.a))",
    "%secrets.key.a%",
    "_secrets.key.a_",
    "__secrets.key.a_",
    "__SECRETS.key.a__",
    "__secret.key.a__x",
    "｛｛secrets.key.a｝｝",
    "{{ｓecrets.key.a}}",
    "{{secrets.kеy.a}}",  # Cyrillic е
    "{{sec​rets.key.a}}",
    "{{secrets.key​.a}}",
    "{{secrets.key\n.a}}",
    "{{secrets.\x00key.a}}",
    "{ {secrets.key.a} }",
    "{{\nsecrets.key.a\n}}",
    "{\x7b secrets.key.a",
    "%7B%7Bsecrets.key.a%7D%7D",
    "%257B%257Bsecrets.key.a%257D%257D",
    "&#123;&#123;secrets.key.a&#125;&#125;",
    "\\u007b\\u007bsecrets.key.a\\u007d\\u007d",
    "\\x7b\\x7bsecrets.key.a}}",
    "e3tzZWNyZXRzLmtleS5hfX0=",
    "7b7b736563726574732e6b65792e617d7d",
    "}}a.yek.sterces{{",
    "{{secrets.{{secrets.key.a",
    "{{secrets." + "a" * 129 + "}}",
    "{{secrets.__proto__}}",
    "{{secrets...}}",
    "{{secrets.../../key.a}}",
    "{{secrets.1key}}",
    "{{secrets.💥}}",
    "{{secrets.\u202ea.yek}}",
    "{{secrets.' OR 1=1--}}",
    "{{secrets.<script>}}",
    '{{secrets["' + "x" * 5000 + '"]}}',
    '{{secrets[""]}}',
]


@pytest.mark.parametrize("text", NEAR, ids=lambda text: ascii(text[:40]))
def test_ph_01_09_near_misses(text: str, alice: Client, upstream: Upstream) -> None:
    """Refused, or it stays text to the last byte: never filled."""
    body = text.encode()
    answer = ask(alice, request("POST", "/echo", TEXT, host=ALLOWED, body=body))
    received = upstream.take()
    if not received:
        refused(answer, "secret_unavailable", "placeholder_malformed")
        return
    assert received[0].body in (body, body.replace(b"{secrets.key.a}", KEY_A))
    assert KEY_A not in received[0].body or b"{secrets.key.a}" in body


ONCE = [
    "%257B%257Bsecrets.key.a%257D%257D",
    "%25257Bsecrets.key.a%25257D",
    "%7B%257Bsecrets.key.a}}",
]


@pytest.mark.parametrize("text", ONCE)
@pytest.mark.parametrize("where", ["query", "path", "form"])
def test_ph_04_decoded_once_and_no_more(
    where: str, text: str, alice: Client, upstream: Upstream
) -> None:
    data = {
        "query": request("GET", f"/echo?k={text}", host=ALLOWED),
        "path": request("GET", f"/echo/{text}", host=ALLOWED),
        "form": request("POST", "/echo", FORM, host=ALLOWED, body=b"k=" + text.encode()),
    }[where]
    ask(alice, data)
    assert [r for r in upstream.take() if KEY_A in r.bytes] == []


PERCENT = ["%7B%7Bsecrets.key.a%7D%7D", "%7b%7bsecrets.key.a%7d%7d", "{%7Bsecrets.key.a}%7d"]
PERCENT += ["%7B%7B%73ecrets%2Ekey%2ea%7D%7D", "%5F_secrets.key.a__", "%7B%7B+secrets.key.a+%7D%7D"]


@pytest.mark.parametrize("text", PERCENT)
def test_ph_04_any_percent_encoding_of_it(text: str, alice: Client, upstream: Upstream) -> None:
    accepted(ask(alice, request("GET", f"/echo?k={text}", host=ALLOWED)))
    assert upstream.one().target == b"/echo?k=" + KEY_A


BODY = b'{"a": "x", "k": "{{secrets.key.a}}", "z": 1}'
FILLED = BODY.replace(KEY, KEY_A)


@pytest.mark.parametrize("cut", range(12, 36))
@pytest.mark.parametrize("how", ["segments", "chunks"])
def test_ph_03_split_at_every_byte(how: str, cut: int, alice: Client, upstream: Upstream) -> None:
    """Over two TLS records, or over two chunks: the same as in one piece."""
    one, two = BODY[:cut], BODY[cut:]
    head = request("POST", "/echo", JSON, host=ALLOWED)[:-2]
    with alice.tunnel() as wire:
        if how == "chunks":
            wire.send(head + b"Transfer-Encoding: chunked\r\n\r\n")
            wire.send(b"%x\r\n%b\r\n" % (len(one), one))
            wire.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(two), two))
        else:
            wire.send(head + b"Content-Length: %d\r\n\r\n" % len(BODY) + one)
            time.sleep(0.01)
            wire.send(two)
        accepted(wire.read())
    assert upstream.one().body == FILLED


@pytest.mark.parametrize("cut", range(0, 60, 4))
def test_ph_03_a_head_split_at_every_fourth_byte(
    cut: int, alice: Client, upstream: Upstream
) -> None:
    data = request("GET", "/echo", b"X: " + KEY, host=ALLOWED)
    with alice.tunnel() as wire:
        wire.send(data[:cut])
        time.sleep(0.01)
        wire.send(data[cut:])
        accepted(wire.read())
    assert upstream.one().all("x") == [KEY_A]


CODINGS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data)),
}


@pytest.mark.parametrize("coding", CODINGS)
def test_ph_06_coded_bodies_are_filled(coding: str, alice: Client, upstream: Upstream) -> None:
    lines = (JSON, f"Content-Encoding: {coding}")
    data = request("POST", "/echo", *lines, host=ALLOWED, body=CODINGS[coding](BODY))
    accepted(ask(alice, data))
    received = upstream.one()
    assert received.body == FILLED
    assert received.all("content-encoding") == []


WRONG_CODINGS: dict[str, tuple[str, bytes]] = {
    "unknown": ("x-unknown", BODY),
    "codec of Python": ("base64", BODY),
    "another codec": ("rot13", BODY),
    "cut off": ("gzip", gzip.compress(BODY)[:-9]),
    "rubbish behind": ("gzip", gzip.compress(BODY) + b"rubbish"),
    "no gzip": ("gzip", BODY),
    "another than said": ("br", gzip.compress(BODY)),
    "bomb": ("gzip", gzip.compress(bytes(64 << 20))),
    "nested bomb": ("gzip, gzip", gzip.compress(gzip.compress(bytes(256 << 20)))),
    "many layers": ("gzip, " * 40 + "gzip", BODY),
    "wrong checksum": ("gzip", gzip.compress(BODY)[:-8] + bytes(8)),
}


@pytest.mark.parametrize("name", WRONG_CODINGS)
def test_ph_06_codings_that_cannot_be_read(name: str, alice: Client, upstream: Upstream) -> None:
    """Refused; the upstream never takes what it has for a whole request."""
    coding, body = WRONG_CODINGS[name]
    data = request("POST", "/echo", JSON, f"Content-Encoding: {coding}", host=ALLOWED, body=body)
    refused(ask(alice, data), "body_not_decodable", "body_too_large", "bad_request")
    assert [r for r in upstream.take() if r.raw_body.endswith(b"0\r\n\r\n")] == []


@pytest.mark.parametrize("text", ["{{secrets.key.a}}", "{{secrets.no.such}}", "{{secrets.key.a"])
def test_ph_07_no_placeholder_reaches_another_host(
    text: str, alice: Client, upstream: Upstream
) -> None:
    """Its name is nobody else's business."""
    refused(ask(alice, request("GET", "/echo", f"X: {text}", host=THIEF), THIEF))
    assert upstream.take() == []


PLACES = [b"X: %", b"Location: https://x/%", b"Set-Cookie: a=%", b"%: 1", b"X: 1\r\n\r\n%"]


@pytest.mark.parametrize("place", PLACES, ids=repr)
@pytest.mark.parametrize("host", [ALLOWED, THIEF])
def test_ph_08_placeholders_in_answers_are_text(
    host: str, place: bytes, alice: Client, upstream: Upstream, scripts: Scripts
) -> None:
    text = b"__secrets.key.a__" if place.startswith(b"%") else KEY
    said = b"HTTP/1.1 200 {{secrets.key.a}}\r\nConnection: close\r\n" + place.replace(b"%", text)
    path = scripts.add(said + (b"" if b"\r\n\r\n" in place else b"\r\n\r\nbody"))
    answer = accepted(ask(alice, request("GET", path, host=host), host))
    assert text in answer.raw
    assert KEY_A not in answer.raw


FLOODS: dict[str, bytes] = {
    "many placeholders": KEY * 60_000,
    "many openings": b"{{" * 500_000,
    "many beginnings": b"{{secrets." * 100_000,
    "nested": b"{{secrets." * 1000 + b"key.a" + b"}}" * 1000,
    "underscores": b"_" * 1_000_000,
    "near ends": b"{{secrets.key.a}" * 60_000,
    "quoted without end": b'{{secrets["' * 60_000,
    "percents": b"%7B" * 300_000,
}


@pytest.mark.parametrize("name", FLOODS)
@pytest.mark.parametrize("kind", [TEXT, FORM])
def test_dos_04_floods_of_placeholders(
    kind: str, name: str, alice: Client, upstream: Upstream
) -> None:
    """Linear in the input, and bounded in what comes out."""
    begun = time.monotonic()
    data = request("POST", "/echo", kind, host=ALLOWED, body=FLOODS[name])
    answer = ask(alice, data)
    assert answer is not None
    assert time.monotonic() - begun < 10
    if name == "many placeholders":
        refused(answer, "too_many_placeholders")
        assert sum(r.raw_body.count(KEY_A) for r in upstream.take()) <= 64


REDOS = [b"a" * 50_000 + b"!", b"(" * 20_000, b"[" * 60_000, b'{"a":' * 10_000, b"\\" * 60_000]


@pytest.mark.parametrize("text", REDOS, ids=lambda t: repr(t[:5]))
@pytest.mark.parametrize("kind", [JSON, FORM, TEXT, "Content-Type: application/xml"])
def test_dos_06_strings_against_expressions(
    kind: str, text: bytes, alice: Client, upstream: Upstream
) -> None:
    begun = time.monotonic()
    assert ask(alice, request("POST", "/echo", kind, host=ALLOWED, body=text)) is not None
    assert time.monotonic() - begun < 5


DEEP: dict[str, bytes] = {
    "arrays": b"[" * 100_000 + b"]" * 100_000,
    "objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "one long number": b"[" + b"9" * 200_000 + b"]",
    "lone surrogate": b'{"a":"\\ud800"}',
    "invalid UTF-8": b'{"a":"\xff\xfe"}',
    "duplicate names": json.dumps({"a": 1}).encode()[:-1] + b',"a":"{{secrets.key.a}}"}',
    "a byte order mark": b"\xef\xbb\xbf" + BODY,
    "UTF-16": BODY.decode().encode("utf-16"),
    "rubbish behind": BODY + b"}}}}]]]",
    "not closed": BODY[:-1],
}


@pytest.mark.parametrize("name", DEEP)
def test_fail_01_bodies_that_make_parsers_raise(
    name: str, alice: Client, upstream: Upstream
) -> None:
    """An answer comes, and it is not an internal error."""
    answer = ask(alice, request("POST", "/echo", JSON, host=ALLOWED, body=DEEP[name]))
    assert answer is not None
    assert answer.status != 500 or IS_NAIVE
    accepted(ask(alice, request("GET", "/echo", b"X: " + KEY, host=ALLOWED)))


def test_ph_10_one_tunnel_many_requests(alice: Client, upstream: Upstream) -> None:
    """With and without placeholders in turn: nothing is left over from one to the next."""
    with alice.tunnel() as wire:
        for number in range(20):
            line = b"X: " + (KEY if number % 2 else b"plain")
            accepted(send(wire, request("GET", "/echo", line, host=ALLOWED)))
    assert [r.all("x") for r in upstream.take()] == [[b"plain"], [KEY_A]] * 10
