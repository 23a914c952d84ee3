"""The lane as a specification: what goes in, what comes out on either side, what never does."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from coatcheck import policyfile
from coatcheck.core.destination import Destination
from coatcheck.core.identity import Credential, token_digest
from coatcheck.core.limits import Limits
from coatcheck.core.ports import StoreError
from coatcheck.core.problems import Code
from coatcheck.core.snapshot import Snapshot
from coatcheck.engine import http1
from coatcheck.engine.answer import MAX_INTERIM, MAX_PASSED_ON
from coatcheck.engine.lane import LINGER_BYTES, LINGER_ROUNDS, MAX_PIPELINED, Tunnel
from coatcheck.gateway import Gateway
from tests.engine.wire import OK, POLICY, VALUE, Book, Wire, a_gateway, a_get, a_post

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
CONNECT = b"CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n"
KEY = b"X-Key: {{secrets.key}}"


def code_of(answer: bytes) -> str:
    """The code of a refusal, checked to be one whole answer that says the same in all places."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Type: application/problem+json" in head, "this is no refusal"
    document = json.loads(body)
    status = int(head.split()[1])
    assert b"Coatcheck-Error: " + document["code"].encode() in head
    assert document["status"] == status
    assert document["type"] == "urn:coatcheck:problem:" + document["code"]
    assert b"Content-Length: %d" % len(body) in head
    return str(document["code"])


def test_a_value_is_filled_in_on_the_way_out_and_masked_on_the_way_back() -> None:
    wire = Wire()

    wire.send(a_get(b"/me", KEY))
    sent = wire.received()
    got = wire.answer(
        b"HTTP/1.1 200 OK\r\nContent-Length: 24\r\nX-Echo: %b\r\n\r\n" % VALUE + VALUE
    )

    assert b"X-Key: " + VALUE + b"\r\n" in sent
    assert sent.startswith(b"GET /me HTTP/1.1\r\nHost: api.example.com\r\n")
    assert VALUE not in got
    assert got.count(b"********") == 2


def test_nothing_is_dialled_before_the_policy_has_passed() -> None:
    wire = Wire()

    answer = wire.send(a_get(b"/", KEY, host=b"evil.example.com"))

    assert code_of(answer) == "domain_not_allowed"
    assert wire.upstreams == []


HEADS = [
    pytest.param(b"GET http://api.example.com/ HTTP/1.1\r\n\r\n", id="no Host"),
    pytest.param(
        b"GET http://api.example.com/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", id="two Hosts"
    ),
    pytest.param(b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n", id="origin-form to the proxy"),
    pytest.param(b"GET ftp://api.example.com/ HTTP/1.1\r\nHost: a\r\n\r\n", id="another scheme"),
    pytest.param(b"GET http://u@api.example.com/ HTTP/1.1\r\nHost: a\r\n\r\n", id="userinfo"),
    pytest.param(
        b"GET http://api.example.com/ HTTP/1.1\nHost: api.example.com\n\n\r\n\r\n", id="bare LF"
    ),
    pytest.param(a_get(b"/", b"X: a\rb"), id="bare CR"),
    pytest.param(a_get(b"/", b"X: a\0b"), id="NUL"),
    pytest.param(a_get(b"/", b"X: a\r\n folded"), id="obs-fold"),
    pytest.param(a_get(b"/", b"X : a"), id="space before the colon"),
    pytest.param(a_get(b"/a b"), id="space in the target"),
    pytest.param(a_get(b"/#f"), id="fragment in the target"),
    pytest.param(
        b"GET http://api.example.com/ HTTP/2.0\r\nHost: api.example.com\r\n\r\n", id="HTTP/2.0"
    ),
    pytest.param(
        b"GET http://api.example.com/ HTTP/1.2\r\nHost: api.example.com\r\n\r\n", id="HTTP/1.2"
    ),
    pytest.param(
        b"gEt http://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n", id="method case"
    ),
    pytest.param(a_post(b"", b"Content-Length: 1", b"Transfer-Encoding: chunked"), id="CL and TE"),
    pytest.param(a_post(b"", b"Content-Length: 1", b"Content-Length: 2"), id="two lengths"),
    pytest.param(a_post(b"", b"Content-Length: +1"), id="signed length"),
    pytest.param(a_post(b"", b"Transfer-Encoding: gzip, chunked"), id="gzip as transfer coding"),
    pytest.param(a_post(b"", b"Transfer-Encoding: identity"), id="TE identity"),
    pytest.param(
        a_post(b"", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), id="TE twice"
    ),
    pytest.param(
        b"POST http://api.example.com/ HTTP/1.0\r\nHost: api.example.com\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n",
        id="TE in HTTP/1.0",
    ),
]


@pytest.mark.parametrize("head", HEADS)
def test_what_two_parsers_could_read_in_two_ways_is_refused(head: bytes) -> None:
    wire = Wire()

    assert code_of(wire.send(head)) == "bad_request"
    assert wire.upstreams == []


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"0x2\r\nok\r\n0\r\n\r\n", id="0x prefix"),
        pytest.param(b"+2\r\nok\r\n0\r\n\r\n", id="sign"),
        pytest.param(b"2\nok\n0\n\n", id="bare LF"),
        pytest.param(b"2\r\nokX\r\n0\r\n\r\n", id="chunk longer than it says"),
        pytest.param(b"2\r\nokXX0\r\n\r\n", id="two bytes in the place of a line end"),
        pytest.param(b"00000000000000002\r\nok\r\n0\r\n\r\n", id="17 digits"),
        pytest.param(b"2;a\x00\r\nok\r\n0\r\n\r\n", id="NUL in an extension"),
        pytest.param(b"0\r\nX: a\rb\r\n\r\n", id="bare CR in a trailer"),
    ],
)
def test_a_chunked_body_off_the_grammar_is_refused(body: bytes) -> None:
    wire = Wire()

    answer = wire.send(a_post(body, b"Transfer-Encoding: chunked"))

    assert code_of(answer) == "bad_request"
    assert all(up.received == b"" for up in wire.upstreams)


def test_trailers_of_a_request_are_dropped() -> None:
    wire = Wire()

    wire.send(a_post(b"2\r\n{}\r\n0\r\nX-Trailer: v\r\n\r\n", b"Transfer-Encoding: chunked"))

    assert wire.received().endswith(b"Content-Length: 2\r\n\r\n{}")


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(
            a_post(b"0\r\n\r\n", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
            id="of two lengths",
        ),
        pytest.param(a_get(b"/", b"Host: api.example.com"), id="of two Hosts"),
        pytest.param(a_get(b"/").replace(b"http:", b"ftp:"), id="of another scheme"),
    ],
)
def test_what_follows_a_bad_request_is_never_read_as_a_request(bad: bytes) -> None:
    wire = Wire()

    got = wire.send(bad + a_get(b"/2"))

    assert code_of(got) == "bad_request"
    assert b"Connection: close" in got
    assert wire.send(a_get(b"/3")) == b""
    assert wire.upstreams == []


NAMES = [
    pytest.param("api.example.com", b"api.example.com", b"/", None, id="all agree"),
    pytest.param(
        "api.example.com", b"API.Example.com.", b"/", "api.example.com", id="in other spellings"
    ),
    pytest.param(None, b"api.example.com", b"/", None, id="no SNI"),
]
MISMATCHES = [
    pytest.param("evil.example.com", b"api.example.com", b"/", id="SNI differs"),
    pytest.param("api.example.com", b"evil.example.com", b"/", id="Host differs"),
    pytest.param("api.example.com", b"api.example.com:444", b"/", id="port of Host differs"),
    pytest.param(
        "api.example.com", b"api.example.com", b"https://evil.example.com/", id="absolute-form"
    ),
    pytest.param(
        "api.example.com", b"api.example.com", b"https://api.example.com/", id="even its own"
    ),
    pytest.param("\0", b"api.example.com", b"/", id="SNI that is no host"),
]


def in_tunnel(sni: str | None) -> Wire:
    return Wire(tunnel=Tunnel(Destination("https", "api.example.com", 443), None), sni=sni)


@pytest.mark.parametrize(("sni", "host", "target", "_"), NAMES)
def test_a_request_whose_names_agree_passes(
    sni: str | None, host: bytes, target: bytes, _: object
) -> None:
    wire = in_tunnel(sni)

    wire.send(b"GET %b HTTP/1.1\r\nHost: %b\r\nX-Key: {{secrets.key}}\r\n\r\n" % (target, host))

    assert VALUE in wire.received()
    assert wire.upstream.destination == Destination("https", "api.example.com", 443)
    assert wire.upstream.tls


@pytest.mark.parametrize(("sni", "host", "target"), MISMATCHES)
def test_a_request_whose_names_differ_is_refused(sni: str, host: bytes, target: bytes) -> None:
    wire = in_tunnel(sni)

    answer = wire.send(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, host))

    assert code_of(answer) == "destination_mismatch"
    assert wire.upstreams == []


@pytest.mark.parametrize(
    ("host", "passes"),
    [
        pytest.param(b"api.example.com:8443", True, id="the port of the CONNECT"),
        pytest.param(b"api.example.com", False, id="no port is 443"),
        pytest.param(b"api.example.com:443", False, id="another port"),
    ],
)
def test_host_names_the_port_too(host: bytes, passes: bool) -> None:
    wire = Wire(tunnel=Tunnel(Destination("https", "api.example.com", 8443), None))

    answer = wire.send(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)

    assert len(wire.upstreams) == passes
    assert passes or code_of(answer) == "destination_mismatch"


@pytest.mark.parametrize(
    ("method", "passes"), [(b"OPTIONS", True), (b"GET", False), (b"POST", False)]
)
def test_only_options_asks_for_a_star(method: bytes, passes: bool) -> None:
    wire = in_tunnel("api.example.com")

    answer = wire.send(b"%b * HTTP/1.1\r\nHost: api.example.com\r\n\r\n" % method)

    assert (answer == b"") is passes
    assert len(wire.upstreams) == passes


def test_a_tunnel_holds_no_tunnel() -> None:
    wire = in_tunnel("api.example.com")

    answer = wire.send(b"CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n")

    assert code_of(answer) == "bad_request"


@pytest.mark.parametrize(
    "target",
    [b"api.example.com", b"api.example.com:", b"api.example.com:0443", b"u@api.example.com:443"],
)
def test_a_connect_names_host_and_port(target: bytes) -> None:
    wire = Wire()

    answer = wire.send(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, target))

    assert code_of(answer) == "bad_request"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        pytest.param((b"Host: evil.example.com:443",), "destination_mismatch", id="another Host"),
        pytest.param((b"Host: api.example.com:80",), "destination_mismatch", id="another port"),
        pytest.param((b"Host: a", b"Host: a"), "bad_request", id="two Hosts"),
        pytest.param((), "bad_request", id="no Host"),
        pytest.param((b"Host: api.example.com", b"Content-Length: 5"), "bad_request", id="a body"),
        pytest.param((b"Host: api.example.com",), None, id="Host may leave the port out"),
    ],
)
def test_a_connect_names_one_destination_and_has_no_body(
    fields: tuple[bytes, ...], code: str | None
) -> None:
    wire = Wire()

    head = b"\r\n".join((b"CONNECT api.example.com:443 HTTP/1.1", *fields, b"\r\n"))
    answer = wire.send(head)

    assert answer == ESTABLISHED if code is None else code_of(answer) == code


def test_a_tls_handshake_that_does_not_come_is_cut_off_at_its_deadline() -> None:
    wire = Wire()
    wire.send(CONNECT + b"\r\n")

    wire.wake()

    assert wire.closed


def test_the_deadline_of_a_handshake_that_came_in_time_means_nothing() -> None:
    wire = Wire()
    wire.send(CONNECT + b"\r\n")
    wire.secure()

    wire.wake()

    assert not wire.closed


def test_a_connect_is_answered_without_dialling() -> None:
    wire = Wire()

    answer = wire.send(
        b"CONNECT evil.example.com:443 HTTP/1.1\r\nHost: evil.example.com:443\r\n\r\n"
    )

    assert answer == b"HTTP/1.1 200 Connection established\r\n\r\n"
    assert wire.upstreams == []


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        (b"http://api.example.com", b"/"),
        (b"http://api.example.com?q=/a", b"/?q=/a"),
        (b"HTTP://API.example.com:80/a?b", b"/a?b"),
    ],
)
def test_an_absolute_target_becomes_one_that_begins_with_a_slash(
    target: bytes, sent: bytes
) -> None:
    wire = Wire()

    wire.send(b"GET %b HTTP/1.1\r\nHost: api.example.com\r\n\r\n" % target)

    assert wire.received().startswith(b"GET %b HTTP/1.1\r\nHost: api.example.com\r\n" % sent)


def test_hop_by_hop_fields_and_proxy_fields_stay_here() -> None:
    wire = Wire()
    extra = (
        b"Connection: X-Private",
        b"X-Private: 1",
        b"Proxy-Connection: keep-alive",
        b"Proxy-Foo: 1",
        b"TE: trailers",
        b"Upgrade: websocket",
        b"Keep-Alive: 5",
        b"X-Public: 1",
    )

    wire.send(a_get(b"/", *extra))

    names = {line.partition(b":")[0].lower() for line in wire.received().split(b"\r\n")[1:] if line}
    assert names == {b"host", b"x-public", b"accept-encoding"}


def test_several_requests_use_one_upstream_connection() -> None:
    wire = Wire()

    for _ in range(3):
        wire.send(a_get(b"/", KEY))
        assert b"200 OK" in wire.answer(OK)

    assert len(wire.upstreams) == 1


@pytest.mark.parametrize("other", [b"other.example.com", b"api.example.com:8080"])
def test_a_connection_is_used_for_its_own_destination_alone(other: bytes) -> None:
    wire = Wire()
    wire.send(a_get(b"/1", host=other))
    wire.answer(OK)

    wire.send(a_get(b"/2", KEY))

    assert wire.upstream.destination == Destination("http", "api.example.com", 80)
    assert VALUE in wire.received()
    first, second = wire.upstreams
    assert VALUE not in first.received
    assert first in wire.resting.values(), "its destination's next may have it"
    assert wire.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", of=first) == b""
    assert wire.hang_up(of=first) == b""
    assert not second.closed
    assert b"ok" in wire.answer(OK)


def test_pipelined_requests_are_answered_in_order() -> None:
    wire = Wire()

    wire.send(a_get(b"/1") + a_get(b"/2"))
    assert wire.received().startswith(b"GET /1 ")
    wire.answer(OK)

    assert wire.received().startswith(b"GET /2 ")


def test_any_number_of_refused_requests_may_come_in_one_go() -> None:
    """Each is answered: what is read on after a refusal is no deeper in the stack."""
    wire = Wire()

    got = wire.send(a_get(b"/", b"X: {{secrets.nope}}") * 600 + a_get(b"/last"))

    assert got.count(b"Coatcheck-Error: secret_unavailable\r\n") == 600
    assert got.count(b"HTTP/1.1 ") == 600
    assert wire.received().startswith(b"GET /last ")


@pytest.mark.parametrize("host", [b"api.example.com", b"other.example.com"])
def test_bytes_on_a_kept_connection_do_not_answer_a_request_that_it_was_not_sent(
    host: bytes,
) -> None:
    """While a body is collected, the connection of the request before it is still there."""
    wire = Wire()
    wire.send(a_get(b"/1", host=host))
    wire.answer(OK)
    request = a_post(b'{"k":"{{secrets.key}}"}')
    wire.send(request[:-5])

    assert wire.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil") == b""
    assert wire.upstream.closed
    wire.send(request[-5:])

    assert len(wire.upstreams) == 2
    assert VALUE in wire.received()
    assert b"\r\nok\r\n" in wire.answer(OK)


def test_a_kept_connection_may_close_while_a_body_is_collected() -> None:
    wire = Wire()
    wire.send(a_get(b"/1"))
    wire.answer(OK)
    request = a_post(b"{}")
    wire.send(request[:-1])

    assert wire.hang_up() == b""
    wire.send(request[-1:])

    assert wire.received().endswith(b"{}")


def test_each_request_on_a_connection_is_judged_alone() -> None:
    wire = Wire()
    wire.send(a_get(b"/", KEY))
    wire.answer(OK)

    answer = wire.send(a_get(b"/", KEY, host=b"evil.example.com"))

    assert code_of(answer) == "domain_not_allowed"
    assert len(wire.upstreams) == 1
    wire.send(a_get(b"/", KEY))
    assert VALUE in wire.received()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nno colon %b\r\n\r\n", id="field without a colon"),
        pytest.param(b"HTTP/1.1 2000 %b\r\n\r\n", id="status of four digits"),
        pytest.param(b"%b\r\n\r\n", id="no HTTP at all"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: a\r\n %b\r\n\r\n", id="obs-fold"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n%b", id="two lengths"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\nX: %b\r\n\r\n",
            id="gzip as transfer coding",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n"
            b"X: %b\r\n\r\n",
            id="two transfer codings",
        ),
        pytest.param(
            b"HTTP/1.1 101 Switching\r\nUpgrade: foo\r\nConnection: upgrade\r\n\r\n%b", id="101"
        ),
        pytest.param(b"HTTP/1.1 206 Partial\r\nContent-Length: 24\r\n\r\n%b", id="206"),
        pytest.param(b"HTTP/1.1 226 IM Used\r\nContent-Length: 24\r\n\r\n%b", id="226"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nIM: range\r\nContent-Length: 24\r\n\r\n%b",
            id="a delta that calls itself whole",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Range: bytes 0-23/99\r\nContent-Length: 24\r\n\r\n%b",
            id="a slice that calls itself whole",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Type: Multipart/ByteRanges; boundary=x\r\n"
            b"Content-Length: 24\r\n\r\n%b",
            id="several slices",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 24\r\n\r\n%b",
            id="a coding that is not what it says",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x18\r\n%b\r\n0\r\n\r\n",
            id="a chunk off the grammar",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: rot13\r\nContent-Length: 24\r\n\r\n%b",
            id="unknown coding",
        ),
    ],
)
def test_an_answer_that_cannot_be_read_is_withheld_without_a_byte_of_it(
    answer: bytes,
) -> None:
    wire = Wire()
    wire.send(a_get(b"/", KEY))

    got = wire.answer(answer % VALUE)

    assert code_of(got) == "response_withheld"
    assert VALUE not in got
    assert wire.upstream.closed


NOTHING = b"HTTP/1.1 204 None\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
INTERIM = [
    pytest.param(HINTS, HINTS, id="103 is passed on"),
    pytest.param(
        b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n", id="102 too"
    ),
    pytest.param(HINTS * 2, HINTS * 2, id="two of them"),
    pytest.param(
        b"HTTP/1.1 103 Hi %b\r\nLink: <%b>\r\n%b: x\r\n\r\n" % (VALUE, VALUE, VALUE),
        b"HTTP/1.1 103 Hi ********\r\nLink: <********>\r\n\r\n",
        id="without values: reason, values and names of fields",
    ),
    pytest.param(
        b"HTTP/1.1 103 E\r\nA: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n",
        b"HTTP/1.1 103 E\r\nA: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n",
        id="its fields apart and in order",
    ),
    pytest.param(
        b"HTTP/1.1 103 E\r\nContent-Length: 5\r\nConnection: X-A\r\nX-A: 1\r\nAlt-Svc: x\r\n\r\n",
        b"HTTP/1.1 103 E\r\n\r\n",
        id="without framing and hop-by-hop fields",
    ),
    pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", b"", id="100 is ours alone"),
    pytest.param(b"HTTP/1.1 104 New\r\n\r\n", b"", id="what nobody knows is left out"),
    pytest.param(b"HTTP/1.1 103 E\r\nContent-Range: bytes 0-3/9\r\n\r\n", b"", id="a slice"),
    pytest.param(
        b"HTTP/1.1 103 E\r\n" + b"X: y\r\n" * 101 + b"\r\n", b"", id="too many fields in it"
    ),
    pytest.param(HINTS * 20, HINTS * MAX_PASSED_ON, id="no more than a few"),
    pytest.param(b"HTTP/1.1 100 C\r\n\r\n" * 999, b"", id="any that are read over, up to a bound"),
    pytest.param(
        b"HTTP/1.1 103 E\r\nX: %b\r\n\r\n" % (b"x" * 40_000) + HINTS,
        b"HTTP/1.1 103 E\r\nX: %b\r\n\r\n" % (b"x" * 40_000) + HINTS,
        id="long ones",
    ),
    pytest.param(
        b"HTTP/1.1 103 E\r\nX: %b\r\n\r\n" % (b"x" * 40_000) * 2 + HINTS,
        b"HTTP/1.1 103 E\r\nX: %b\r\n\r\n" % (b"x" * 40_000) + HINTS,
        id="together not longer than a head",
    ),
]


@pytest.mark.parametrize(("came", "passed"), INTERIM)
@pytest.mark.parametrize("size", [100_000, 1000, 7])
def test_interim_answers_come_before_the_final_one(came: bytes, passed: bytes, size: int) -> None:
    wire = Wire()
    wire.send(a_get(b"/", KEY))

    whole = came + NOTHING
    got = b"".join(wire.answer(whole[at : at + size]) for at in range(0, len(whole), size))

    assert got == passed + NOTHING
    assert not wire.closed


def test_the_page_says_how_many_are_passed_on() -> None:
    page = Path(__file__).parents[2] / "docs" / "scrubbing.md"
    assert f"up to {MAX_PASSED_ON} of them" in page.read_text("utf-8")


def test_a_client_of_http10_gets_no_interim_answer() -> None:
    wire = Wire()
    wire.send(b"GET http://api.example.com/ HTTP/1.0\r\nHost: api.example.com\r\n\r\n")

    assert wire.answer(HINTS + OK).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"X: a\rb", id="a bare CR"),
        pytest.param(b" folded: 1", id="a fold"),
        pytest.param(b"X: \0", id="NUL"),
    ],
)
def test_a_broken_interim_answer_is_none_and_nothing_behind_it(line: bytes) -> None:
    """Another reader could take it for the answer."""
    wire = Wire()
    wire.send(a_get(b"/", KEY))

    got = wire.answer(HINTS + b"HTTP/1.1 103 E\r\n" + line + b"\r\n\r\n" + NOTHING)

    assert code_of(got.removeprefix(HINTS)) == "response_withheld"


def test_endless_interim_answers_are_no_answer() -> None:
    wire = Wire()
    wire.send(a_get(b"/", KEY))

    assert (
        code_of(wire.answer(b"HTTP/1.1 100 C\r\n\r\n" * (MAX_INTERIM + 1))) == "response_withheld"
    )


def test_an_interim_answer_leaves_room_for_a_refusal() -> None:
    wire = Wire()
    wire.send(a_get(b"/", KEY))

    assert wire.answer(HINTS) == HINTS
    assert code_of(wire.answer(b"HTTP/9\r\n\r\n")) == "response_withheld"


def test_what_was_in_an_interim_answer_is_on_record_before_it_leaves() -> None:
    wire = Wire()
    wire.send(a_get(b"/", KEY))
    wire.answer(HINTS)
    assert [line["event"] for line in wire.audit] == ["request"]

    wire.answer(b"HTTP/1.1 103 E\r\nLink: %b\r\n\r\n" % VALUE)

    assert wire.audit[-1]["event"] == "response"
    assert wire.audit[-1]["status"] == 103


def test_without_a_record_an_interim_answer_with_a_value_does_not_leave() -> None:
    wire = Wire()
    wire.send(a_get(b"/", KEY))
    assert isinstance(wire.gateway.log, Book)
    wire.gateway.log.broken = True

    got = wire.answer(b"HTTP/1.1 103 E\r\nLink: %b\r\n\r\n" % VALUE)

    assert code_of(got) == "audit_unavailable"


CHUNKED = b"HTTP/1.1 200 OK\r\nX-Head: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
TRAILERS = [
    pytest.param(b"X-Sum: 9\r\n", b"X-Sum: 9\r\n", id="they follow the body"),
    pytest.param(b"A: 1\r\nB:\r\nA: 2\r\n", b"A: 1\r\nB: \r\nA: 2\r\n", id="in order, apart"),
    pytest.param(
        b"A: %b\r\n%b: 1\r\nB: 2\r\n" % (VALUE, VALUE),
        b"A: ********\r\nB: 2\r\n",
        id="without values, in names too",
    ),
    pytest.param(
        b"A: {{secrets.key}}\r\n", b"A: {{secrets.key}}\r\n", id="a placeholder stays text"
    ),
    pytest.param(b"x-head: 2\r\n", b"", id="nothing that the head has"),
    pytest.param(b"X: y\r\n" * 101, b"", id="not too many"),
] + [
    pytest.param(name + b": 1\r\nOk: 2\r\n", b"Ok: 2\r\n", id=name.decode())
    for name in (
        b"Content-Length Transfer-Encoding Host Connection Trailer TE Upgrade Keep-Alive"
        b" Content-Encoding Content-Type Content-Range Set-Cookie Cookie Authorization"
        b" WWW-Authenticate Proxy-Authenticate Proxy-Authorization Location Cache-Control Vary"
        b" Expires Age Alt-Svc Access-Control-Allow-Origin Strict-Transport-Security If-Match"
        b" X-Forwarded-For Retry-After Expect Max-Forwards SET-COOKIE"
    ).split()
]


def _asked(*fields: bytes) -> Wire:
    wire = Wire()
    wire.send(a_get(b"/", KEY, *fields))
    return wire


@pytest.mark.parametrize(("came", "passed"), TRAILERS)
@pytest.mark.parametrize("size", [100_000, 5])
def test_trailers_of_an_answer(came: bytes, passed: bytes, size: int) -> None:
    wire = _asked(b"TE: trailers", b"Connection: TE")

    whole = CHUNKED + came + b"\r\n"
    got = b"".join(wire.answer(whole[at : at + size]) for at in range(0, len(whole), size))

    assert got.endswith(b"\r\n0\r\n" + passed + b"\r\n")
    assert got.count(b"ok") == 1
    assert b"te:" not in wire.received().lower()
    assert _again(wire) == NOTHING


def _again(wire: Wire) -> bytes:
    """The answer to one more request: the connection is as good as before."""
    wire.send(a_get(b"/again"))
    return wire.answer(NOTHING)


@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        pytest.param((b"TE: trailers",), True, id="asked for"),
        pytest.param((b"TE: gzip, Trailers",), True, id="among others"),
        pytest.param((), False, id="not asked for"),
        pytest.param((b"TE: gzip",), False, id="something else asked for"),
    ],
)
def test_trailers_are_for_those_who_take_them(fields: tuple[bytes, ...], passes: bool) -> None:
    got = _asked(*fields).answer(CHUNKED + b"X-Sum: 9\r\n\r\n")

    assert (b"X-Sum" in got) is passes
    assert got.endswith(b"\r\n\r\n")


def test_a_client_of_http10_gets_no_trailers() -> None:
    wire = Wire()
    head = b"GET http://api.example.com/ HTTP/1.0\r\nHost: api.example.com\r\n"
    wire.send(head + b"TE: trailers\r\n\r\n")

    got = wire.answer(CHUNKED + b"X-Sum: 9\r\n\r\n")

    assert got.endswith(b"\r\n\r\nok")


def test_what_was_in_trailers_is_on_record() -> None:
    wire = _asked(b"TE: trailers")

    wire.answer(CHUNKED + b"X: %b\r\n\r\n" % VALUE)

    (hit,) = wire.audit[-1]["scrubbed"]  # type: ignore[misc]
    assert hit["channel"] == "trailers"


def test_a_head_of_the_largest_size_passes_however_its_end_is_cut() -> None:
    for size, code in ((1024, ""), (1025, "headers_too_large")):
        request = a_get(b"/", b"X: ")
        request = request[:-4] + b"x" * (size + 4 - len(request)) + request[-4:]
        for cut in range(len(request) - 4, len(request)):
            wire = Wire(a_gateway(limits=Limits(head_bytes=1024)))
            got = wire.send(request[:cut]) + wire.send(request[cut:])
            assert (code_of(got) if got else "") == code


def test_an_answer_that_begins_with_what_only_looks_interim_is_withheld() -> None:
    wire = Wire()
    wire.send(a_get())

    got = wire.answer(b"HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\r\nX: y\r\n\r\n" + OK)

    assert code_of(got) == "response_withheld"
    assert wire.upstream.closed


def test_an_answer_in_pieces_is_one_answer_with_one_end() -> None:
    wire = Wire()
    wire.send(a_get(b"/", KEY))

    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + (b"x" * 438 + VALUE + b"y" * 438)
    got = b"".join(wire.answer(whole[at : at + 200]) for at in range(0, len(whole), 200))

    head, _, body = got.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    reader = http1.ChunkedReader(Limits())
    assert reader.feed(body) == (b"x" * 438 + b"********" + b"y" * 438, b"")
    assert reader.done


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000, id="without an end"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: %b\r\n\r\n" % (b"a" * 70_000), id="with one"),
    ],
)
def test_the_head_of_an_answer_is_bounded(head: bytes) -> None:
    wire = Wire()
    wire.send(a_get(b"/"))

    assert code_of(wire.answer(head)) == "response_withheld"


def test_a_client_that_wants_to_close_is_closed_after_its_answer() -> None:
    wire = Wire()
    wire.send(a_get(b"/", b"Connection: close"))

    assert b"Connection: close\r\n" in wire.answer(OK)
    assert wire.closed


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\n", id="it says close"),
        pytest.param(b"HTTP/1.0 200 OK\r\n", id="it is HTTP/1.0"),
    ],
)
def test_an_upstream_that_wants_to_close_is_not_used_again(head: bytes) -> None:
    wire = Wire()
    wire.send(a_get(b"/1"))
    got = wire.answer(head + b"Content-Length: 0\r\n\r\n")

    assert b"close" not in got, "that is between us and the upstream"
    assert wire.upstream.closed
    wire.send(a_get(b"/2"))
    assert len(wire.upstreams) == 2


def test_an_answer_that_breaks_off_is_broken_off_for_the_client_too() -> None:
    wire = Wire()
    wire.send(a_get(b"/", KEY))
    wire.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")

    got = wire.hang_up()

    assert b"0\r\n\r\n" not in got
    assert wire.closed


def test_an_answer_to_the_end_of_the_connection_is_whole() -> None:
    wire = Wire()
    wire.send(a_get(b"/", KEY))
    got = wire.answer(b"HTTP/1.1 200 OK\r\n\r\nabc " + VALUE)

    got += wire.hang_up()

    assert got.endswith(b"0\r\n\r\n")
    assert VALUE not in got


def test_bytes_after_an_answer_are_never_taken_for_the_next_one() -> None:
    wire = Wire()
    wire.send(a_get(b"/1"))
    wire.answer(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    wire.send(a_get(b"/2"))

    assert len(wire.upstreams) == 2
    assert wire.upstreams[0].closed
    assert b"evil" not in wire.answer(OK)


def test_an_idle_connection_that_was_closed_costs_one_more_try() -> None:
    wire = Wire()
    wire.send(a_get(b"/1"))
    wire.answer(OK)
    wire.send(a_get(b"/2", KEY))

    wire.hang_up()

    assert len(wire.upstreams) == 2
    assert b"GET /2 " in wire.received()
    assert b"200 OK" in wire.answer(OK)


def test_and_not_two_more() -> None:
    wire = Wire()
    wire.send(a_get(b"/1"))
    wire.answer(OK)
    wire.send(a_get(b"/2"))
    wire.hang_up()

    assert code_of(wire.hang_up()) == "response_withheld"
    assert len(wire.upstreams) == 2


def test_a_fresh_connection_that_was_closed_costs_no_second_try() -> None:
    wire = Wire()
    wire.send(a_get(b"/1"))

    assert code_of(wire.hang_up()) == "response_withheld"
    assert len(wire.upstreams) == 1


def test_a_request_is_not_sent_twice_when_a_part_of_its_body_is_gone() -> None:
    wire = Wire()
    wire.send(a_get(b"/1"))
    wire.answer(OK)
    put = a_post(b"ab", b"Content-Length: 4", kind=b"image/png").replace(b"POST", b"PUT", 1)
    wire.send(put)

    assert code_of(wire.hang_up()) == "response_withheld"
    assert len(wire.upstreams) == 1


def test_a_post_is_not_sent_twice() -> None:
    wire = Wire()
    wire.send(a_get(b"/1"))
    wire.answer(OK)
    wire.send(a_post(b"{}"))

    assert code_of(wire.hang_up()) == "response_withheld"
    assert len(wire.upstreams) == 1


@pytest.mark.parametrize(
    ("request_line", "response", "expected"),
    [
        pytest.param(
            b"HEAD",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            b"Content-Length: 5",
            id="HEAD",
        ),
        pytest.param(b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 204", id="204"),
        pytest.param(
            b"GET",
            b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\n",
            id="204, and no length (RFC 9110, 8.6)",
        ),
        pytest.param(b"GET", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", b"ETag: x", id="304"),
    ],
)
def test_answers_without_a_body_have_none(
    request_line: bytes, response: bytes, expected: bytes
) -> None:
    wire = Wire()
    wire.send(a_get(b"/", KEY).replace(b"GET", request_line, 1))

    got = wire.answer(response)

    assert expected in got
    assert got.endswith(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in got
    wire.send(a_get(b"/next"))
    assert b"GET /next " in wire.received()


def test_an_http10_client_gets_no_chunks() -> None:
    wire = Wire()
    wire.send(b"GET http://api.example.com/ HTTP/1.0\r\nX-Key: {{secrets.key}}\r\n\r\n")
    assert b"Host: api.example.com\r\n" in wire.received()

    got = wire.answer(OK)

    assert b"chunked" not in got
    assert got.endswith(b"\r\n\r\nok")
    assert wire.closed


def test_set_cookie_fields_stay_apart_and_in_order() -> None:
    wire = Wire()
    wire.send(a_get(b"/", KEY))

    got = wire.answer(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=%b\r\nSet-Cookie: c=3\r\n"
        b"Alt-Svc: h3=x\r\nContent-Length: 0\r\n\r\n" % VALUE
    )

    cookies = [line for line in got.split(b"\r\n") if line.startswith(b"Set-Cookie")]
    assert cookies == [b"Set-Cookie: a=1", b"Set-Cookie: b=********", b"Set-Cookie: c=3"]
    assert b"Alt-Svc" not in got


# --- bodies ----------------------------------------------------------------------------------


def test_a_small_body_is_sent_whole_with_its_new_length() -> None:
    wire = Wire()

    request = a_post(b'{"k":"{{secrets.key}}"}')
    wire.send(request[:-5])
    assert wire.upstreams == []
    wire.send(request[-5:])

    body = b'{"k":"%b"}' % VALUE
    assert wire.received().endswith(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))


def test_a_large_body_streams_in_chunks() -> None:
    wire = Wire(a_gateway(limits=Limits(body_buffer_bytes=100)))
    text = b"x" * 200 + b"{{secrets.key}}"

    wire.send(a_post(text[:50], b"Content-Length: %d" % len(text), kind=b"text/plain"))
    wire.send(text[50:150])
    wire.send(text[150:])

    head, _, sent = wire.received().partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert b"Content-Length" not in head
    reader = http1.ChunkedReader(Limits())
    assert reader.feed(sent) == (b"x" * 200 + VALUE, b"")
    assert reader.done


def unfinished(wire: Wire, size: int) -> int:
    """A small body of which *size* bytes have come; returns what is held of all bodies."""
    wire.send(a_post(b"x" * size, b"Content-Length: 500", kind=b"text/plain"))
    return wire.room.held


def test_small_bodies_stream_once_there_are_too_many() -> None:
    gateway = a_gateway(limits=Limits(body_buffer_total_bytes=1000))
    first = Wire(gateway)
    second, third = (Wire(gateway, room=first.room) for _ in range(2))
    assert unfinished(first, 400) == 400
    assert unfinished(second, 450) == 850
    assert first.upstreams == second.upstreams == []

    assert unfinished(third, 480) == 850
    third.send(b"{{secrets.key}}xxxxx")

    head, _, sent = third.received().partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert http1.ChunkedReader(Limits()).feed(sent) == (b"x" * 480 + VALUE + b"xxxxx", b"")
    first.send(b"y" * 100)
    assert first.received().endswith(b"x" * 400 + b"y" * 100), "whole, as it has room"


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda wire: wire.send(b"y" * 100), id="it is sent"),
        pytest.param(lambda wire: wire.send(b"{{secrets.nope}}" + b"y" * 84), id="it is refused"),
        pytest.param(lambda wire: wire.leave(), id="the client leaves"),
        pytest.param(lambda wire: wire.lane.overdue(), id="its time is over"),
        pytest.param(lambda wire: wire.silence(), id="it falls silent"),
        pytest.param(lambda wire: wire.lane.let_go(), id="the connection is cut off"),
    ],
)
def test_a_body_that_is_gone_takes_no_room(end: Callable[[Wire], object]) -> None:
    wire = Wire()
    assert unfinished(wire, 400) == 400

    end(wire)

    assert wire.room.held == 0


def test_a_binary_body_passes_as_it_is() -> None:
    wire = Wire()
    body = bytes(range(256)) + b"{{secrets.key}}"

    wire.send(a_post(body, kind=b"application/octet-stream"))

    assert wire.received().endswith(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))


def test_a_refusal_in_the_middle_of_an_upload_leaves_the_upstream_without_an_end() -> None:
    wire = Wire(a_gateway(limits=Limits(body_buffer_bytes=10)))
    wire.send(
        a_post(b"32\r\n" + b"x" * 50, b"Transfer-Encoding: chunked", kind=b"text/plain") + b"\r\n"
    )
    assert b"x" * 16 in wire.upstream.received, "it is on its way"

    answer = wire.send(b"10\r\n{{secrets.nope}}\r\n0\r\n\r\n")

    assert code_of(answer) == "secret_unavailable"
    assert not wire.received().endswith(b"0\r\n\r\n")
    assert wire.upstream.closed


def test_an_upstream_may_answer_before_the_upload_is_over() -> None:
    wire = Wire()
    wire.send(a_post(b"{}", b"Content-Length: 9", kind=b"image/png"))

    got = wire.answer(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")

    assert got.startswith(b"HTTP/1.1 413 Too Large\r\n")
    assert b"Connection: close" in got
    assert wire.upstream.closed
    assert not wire.closed, "the client gets to read it while it is still sending"
    assert wire.send(b"more") == b""


def test_an_upload_that_will_be_refused_is_not_asked_for() -> None:
    wire = Wire()

    refused = wire.send(
        a_post(b"", b"Content-Length: 9", b"Expect: 100-continue", b"X: {{secrets.nope}}")
    )

    assert code_of(refused) == "secret_unavailable"


def test_an_upload_that_may_come_is_asked_for() -> None:
    wire = Wire()

    answer = wire.send(a_post(b"", b"Content-Length: 2", b"Expect: 100-continue"))

    assert answer == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.send(b"{}")
    assert wire.received().endswith(b"\r\n\r\n{}")


def test_an_upload_of_nothing_is_not_asked_for() -> None:
    wire = Wire()

    assert wire.send(a_post(b"", b"Content-Length: 0", b"Expect: 100-continue")) == b""
    assert len(wire.upstreams) == 1


def test_a_refusal_of_head_has_no_body() -> None:
    wire = Wire()

    got = wire.send(a_get(b"/", b"X: {{secrets.nope}}").replace(b"GET", b"HEAD", 1))

    assert got.endswith(b"\r\n\r\n")
    assert got.count(b"\r\n\r\n") == 1
    assert b"Coatcheck-Error: secret_unavailable" in got


def test_a_refused_client_that_never_stops_is_closed_in_the_end() -> None:
    wire = Wire()
    wire.send(a_post(b"{", b"Content-Length: 9", b"X: {{secrets.nope}}"))

    rounds = 0
    while not wire.closed and rounds < 2 * LINGER_ROUNDS:
        wire.send(b"more")
        wire.wake()
        rounds += 1

    assert rounds == LINGER_ROUNDS


def test_a_refused_client_that_sends_a_lot_is_closed_before_its_time() -> None:
    wire = Wire()
    wire.send(a_post(b"{", b"Content-Length: 9", b"X: {{secrets.nope}}"))
    part = bytes(LINGER_BYTES // 4)

    for _ in range(4):
        wire.send(part)
    assert not wire.closed
    wire.send(b"x")
    assert wire.closed


def test_a_refused_client_that_wants_to_close_is_not_kept() -> None:
    wire = Wire()

    got = wire.send(a_get(b"/", b"Connection: close", b"X: {{secrets.nope}}") + a_get(b"/2"))

    assert code_of(got) == "secret_unavailable"
    assert b"Connection: close\r\n" in got
    assert wire.upstreams == []


@pytest.mark.parametrize(
    ("dial", "code"),
    [("upstream_tls_failed", "upstream_tls_failed"), (None, "response_withheld")],
    ids=["no connection", "no answer"],
)
def test_what_goes_wrong_after_the_request_was_let_go_is_recorded_too(
    dial: str | None, code: str
) -> None:
    wire = Wire(refuse_dial=Code(dial) if dial else None)
    got = wire.send(a_get(b"/", KEY)) or wire.hang_up()

    assert code_of(got) == code
    first, second = wire.audit
    assert (first["decision"], second["decision"], second["code"]) == ("allow", "refuse", code)
    assert first["request_id"] == second["request_id"]
    assert json.loads(got.partition(b"\r\n\r\n")[2])["request_id"] == first["request_id"]


def test_a_refused_client_may_finish_before_it_is_closed() -> None:
    wire = Wire()
    wire.send(a_post(b"{", b"Content-Length: 9", b"X: {{secrets.nope}}"))

    assert not wire.closed
    wire.send(b"more")
    wire.wake()
    assert not wire.closed
    wire.wake()
    assert wire.closed


# --- endings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", ["address_not_allowed", "upstream_unreachable", "upstream_tls_failed"]
)
def test_a_connection_that_cannot_be_made_is_told_by_its_code_alone(code: str) -> None:
    wire = Wire(refuse_dial=Code(code))

    assert code_of(wire.send(a_get(b"/"))) == code
    assert b"200" in wire.send(a_get(b"/")) + wire.answer(OK), "and the client may go on"


@pytest.mark.parametrize(
    ("code", "word"),
    [("address_not_allowed", "egress.networks"), ("upstream_tls_failed", "upstream_ca")],
)
def test_and_by_what_can_be_done_about_it(code: str, word: str) -> None:
    answer = Wire(refuse_dial=Code(code)).send(a_get(b"/"))

    assert word in json.loads(answer.partition(b"\r\n\r\n")[2])["hint"]


@pytest.mark.parametrize("split", [1, 40, 70])
def test_what_a_client_sends_while_we_dial_comes_after(split: int) -> None:
    wire = Wire()
    wire.holding = True
    body = b"x" * 100

    request = a_post(body, kind=b"application/octet-stream")
    for at in (0, len(request) - split):
        wire.send(request[at : len(request) - split if not at else None])
    assert wire.upstreams == []
    wire.let_dial()

    assert wire.received().endswith(b"Content-Length: 100\r\n\r\n" + body)


def test_others_have_their_turn_between_two_refusals() -> None:
    """A client can send thousands in one go, and each costs more than it does to send."""
    wire = Wire()
    wire.others_turn = True
    refused = a_get(b"/", b"X: {{secrets.nope}}")

    first = wire.send(refused * 3)
    assert refusals_in(first) == 1
    assert wire.send(refused) == b"", "what comes meanwhile waits"
    wire.others_turn = False
    rest = wire.send(b"")

    assert refusals_in(rest) == 3
    assert wire.upstreams == []


def refusals_in(answers: bytes) -> int:
    return answers.count(b"Coatcheck-Error: secret_unavailable")


MANY = {f"key{number}": b"value-of-key-%04d-0123456789" % number for number in range(6)}


def test_a_request_waits_for_the_search_through_its_answer_to_be_built() -> None:
    wire = Wire(a_gateway(secrets=MANY))
    wire.holding = True
    work: list[object] = []
    wire.lane._io.work = work.append  # type: ignore[method-assign]

    wire.send(a_get(b"/", b"X-Key: {{secrets.key1}}") + a_get(b"/2"))
    assert len(work) == 1
    assert wire.upstreams == []
    assert wire.audit == []
    work[0]()  # type: ignore[operator]
    wire.lane.worked()
    wire.let_dial()

    assert wire.received().count(MANY["key1"]) == 1
    assert MANY["key2"] not in wire.answer(OK.replace(b"ok", MANY["key2"]).replace(b": 2", b": 28"))
    assert wire.received().startswith(b"GET /2 "), "what was sent ahead comes after"
    assert len(work) == 1, "it is built once"


def test_a_search_that_cannot_be_built_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise StoreError("it cannot be opened", hint="")

    monkeypatch.setattr(Snapshot, "_build", broken)

    answer = Wire(a_gateway(secrets=MANY)).send(a_get(b"/"))

    assert code_of(answer) == "store_unavailable"


def test_a_client_that_leaves_while_its_search_is_built_sends_nothing() -> None:
    wire = Wire(a_gateway(secrets=MANY))
    wire.lane._io.work = lambda work: None  # type: ignore[method-assign]
    wire.send(a_get(b"/", b"X-Key: {{secrets.key1}}"))

    wire.leave()
    wire.lane.worked()

    assert wire.upstreams == []
    assert wire.audit == []


def test_a_client_that_leaves_while_we_dial_sends_nothing() -> None:
    wire = Wire()
    wire.holding = True
    wire.send(a_get(b"/", KEY))

    wire.leave()
    wire.let_dial()

    assert wire.upstreams == []
    assert wire.closed


def test_silence_while_an_answer_is_due_is_a_timeout() -> None:
    wire = Wire()
    wire.send(a_get(b"/"))

    assert code_of(wire.silence()) == "upstream_timeout"
    assert wire.upstream.closed


def test_a_head_that_drips_in_is_cut_off_at_its_deadline() -> None:
    wire = Wire()
    for byte in a_get(b"/")[:20]:
        wire.send(bytes([byte]))

    assert wire.is_timed
    wire.wake()
    assert wire.closed


def test_a_byte_now_and_then_gives_a_head_no_more_time() -> None:
    wire = Wire()
    wire.send(b"GET ")
    deadline = wire.lane.deadline

    for byte in b"http":
        wire.clock += 1
        wire.send(bytes([byte]))

    assert wire.lane.deadline == deadline is not None


def test_the_deadline_of_a_head_that_came_in_time_means_nothing() -> None:
    wire = Wire()
    wire.send(a_get(b"/")[:20])
    wire.send(a_get(b"/")[20:])
    wire.answer(OK)

    wire.wake()

    assert not wire.closed


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 4])
@pytest.mark.parametrize(("empty_lines", "passes"), [(1, True), (2, False)])
def test_one_empty_line_before_a_request_is_forgiven(
    empty_lines: int, passes: bool, cut: int
) -> None:
    wire = Wire()
    wire.send(a_get(b"/"))
    wire.answer(OK)
    data = b"\r\n" * empty_lines + a_get(b"/2")

    answer = wire.send(data[:cut]) + wire.send(data[cut:])

    assert (b"GET /2 " in wire.received()) is passes
    assert passes or code_of(answer) == "bad_request"


def test_an_upload_that_drips_in_for_too_long_is_cut_off() -> None:
    wire = Wire(a_gateway(limits=Limits(request_timeout_s=60)))
    wire.send(a_post(b"12", b"Content-Length: 9", kind=b"image/png"))
    wire.clock = 59
    wire.send(b"34")
    assert wire.lane.deadline == 60, "a byte now and then does not move it"

    wire.wake()

    assert wire.closed
    assert wire.upstream.closed


def test_the_time_for_an_upload_is_not_the_time_for_its_answer() -> None:
    wire = Wire(a_gateway(limits=Limits(request_timeout_s=60)))
    wire.send(a_post(b"12", b"Content-Length: 4", kind=b"image/png"))

    wire.send(b"34")

    assert not wire.is_timed
    assert b"200 OK" in wire.answer(OK)


def test_silence_otherwise_closes() -> None:
    wire = Wire()

    assert wire.silence() == b""
    assert wire.closed


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(
            b"GET http://x/ HTTP/1.1\r\nX: " + b"a" * 70_000, "headers_too_large", id="endless head"
        ),
        pytest.param(a_get(b"/", b"X: " + b"a" * 70_000), "headers_too_large", id="long head"),
        pytest.param(a_get(b"/" + b"a" * 20_000), "headers_too_large", id="long target"),
        pytest.param(a_get(b"/", *[b"X: y"] * 101), "headers_too_large", id="many fields"),
    ],
)
def test_heads_are_bounded(data: bytes, code: str) -> None:
    wire = Wire()

    assert code_of(wire.send(data)) == code


def test_the_audit_line_of_a_refusal_has_the_request_id_of_the_answer() -> None:
    wire = Wire()

    answer = wire.send(a_get(b"/", b"X: {{secrets.nope}}"))

    assert len(wire.audit) == 1
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["request_id"] == wire.audit[0]["request_id"]


def test_a_refusal_is_never_put_down_to_the_client_of_the_request_before_it() -> None:
    wire = Wire(a_gateway(WITH_TOKEN))
    wire.send(a_get(b"/", KEY, AS_RUNNER))
    wire.answer(OK)

    wire.send(a_get(b"/", KEY, b"Proxy-Authorization: Bearer guess"))
    wire.send(a_get(b"/", b"X: {{secrets.nope}}", AS_RUNNER))

    assert [record["client"] for record in wire.audit] == ["runner", "", "runner"]


# --- who asks --------------------------------------------------------------------------------


def with_token(token: bytes) -> str:
    """A policy whose only client is known by *token*."""
    known = f'local: {{token: "sha256:{token_digest(token)}"}}'
    return POLICY.replace('local: {networks: ["127.0.0.1/32"]}', known).replace("local", "runner")


WITH_TOKEN = with_token(b"token-1")
AS_RUNNER = b"Proxy-Authorization: Basic " + base64.b64encode(b"runner:token-1")


def test_a_client_may_try_again_with_credentials_on_the_same_connection() -> None:
    wire = Wire(a_gateway(WITH_TOKEN))

    refused = wire.send(a_get(b"/", KEY))
    assert code_of(refused) == "proxy_auth_required"
    assert b"Proxy-Authenticate: Basic " in refused
    assert b"Connection: close" not in refused
    wire.send(a_get(b"/", KEY, AS_RUNNER))

    sent = wire.received()
    assert VALUE in sent
    assert b"token-1" not in sent
    assert b"proxy-authorization" not in sent.lower()


def test_a_client_may_try_its_connect_again_on_the_same_connection() -> None:
    wire = Wire(a_gateway(WITH_TOKEN))

    refused = wire.send(CONNECT + b"\r\n")
    assert code_of(refused) == "proxy_auth_required"
    assert b"Proxy-Authenticate: Bearer " in refused

    assert wire.send(CONNECT + AS_RUNNER + b"\r\n\r\n") == ESTABLISHED


def test_the_credentials_of_a_connect_hold_for_all_requests_inside() -> None:
    wire = Wire(a_gateway(WITH_TOKEN))
    wire.send(CONNECT + AS_RUNNER + b"\r\n\r\n")
    wire.secure()

    for _ in range(2):
        wire.send(inside(KEY))
        assert VALUE in wire.received()
        wire.answer(OK)


@pytest.mark.parametrize(
    "value",
    [
        b"Digest username=a",
        b"Basic !",
        b"Bearer",
        b"",
        b"Bearer x\r\nProxy-Authorization: Bearer x",
    ],
)
@pytest.mark.parametrize("request_", [a_get(b"/"), CONNECT + b"\r\n"], ids=["plain", "CONNECT"])
def test_a_broken_credential_is_not_taken_for_none(request_: bytes, value: bytes) -> None:
    """The client would be known by its network, had it sent none."""
    field = b"\r\nProxy-Authorization: " + value + b"\r\n\r\n"

    assert code_of(Wire().send(request_[:-4] + field)) == "proxy_auth_required"
    assert Wire().send(request_) in (b"", ESTABLISHED)


def test_credentials_hold_for_the_request_that_brings_them() -> None:
    wire = Wire(a_gateway(WITH_TOKEN))
    wire.send(a_get(b"/", KEY, AS_RUNNER))
    wire.answer(OK)

    assert code_of(wire.send(a_get(b"/", KEY))) == "proxy_auth_required"


def test_who_may_not_enter_learns_nothing_of_names() -> None:
    """The credential is looked at before the destination: egress rules are for known clients."""
    wire = Wire(a_gateway(WITH_TOKEN + "egress: {default: deny}\n"))

    assert code_of(wire.send(a_get(b"/"))) == "proxy_auth_required"
    assert code_of(wire.send(a_get(b"/", AS_RUNNER))) == "destination_not_allowed"


def a_tunnel(gateway: Gateway, credential: Credential | None = None) -> Wire:
    """A lane inside an open tunnel to api.example.com."""
    destination = Destination("https", "api.example.com", 443)
    return Wire(gateway, Tunnel(destination, credential), sni="api.example.com")


def inside(*fields: bytes) -> bytes:
    """A request in the tunnel."""
    return b"\r\n".join([b"GET / HTTP/1.1", b"Host: api.example.com", *fields, b"\r\n"])


def install(gateway: Gateway, policy: str) -> None:
    """Put *policy* in force, as a hot reload does."""
    old = gateway.snapshot
    gateway.install(Snapshot(policyfile.parse(policy, "policy.yaml"), old.view))


def test_a_token_that_is_taken_away_is_gone_inside_an_open_tunnel_too() -> None:
    gateway = a_gateway(WITH_TOKEN)
    wire = a_tunnel(gateway, Credential("runner", token_digest(b"token-1")))
    wire.send(inside(KEY))
    assert VALUE in wire.received()
    wire.answer(OK)

    install(gateway, with_token(b"token-2"))

    assert code_of(wire.send(inside(KEY))) == "proxy_auth_required"
    assert len(wire.upstreams) == 1
    assert wire.received() == b""


def test_a_grant_that_is_withdrawn_is_gone_for_the_next_request_in_an_open_tunnel() -> None:
    gateway = a_gateway()
    wire = a_tunnel(gateway)
    wire.send(inside(KEY))
    assert VALUE in wire.received()
    wire.answer(OK)

    install(gateway, POLICY.replace('secrets: ["*"]', "secrets: [other]"))

    assert code_of(wire.send(inside(KEY))) == "secret_unavailable"
    install(gateway, POLICY)
    wire.send(inside(KEY))
    assert VALUE in wire.received(), "and comes back with the next policy"


# --- where to --------------------------------------------------------------------------------


def test_egress_rules_are_told_inside_the_tunnel_where_clients_read_them() -> None:
    wire = a_tunnel(a_gateway(POLICY + "egress: {deny: [api.example.com]}\n"))

    answer = wire.send(inside())

    assert code_of(answer) == "destination_not_allowed"
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert wire.upstreams == []


PASSING = """
version: 1
clients:
  local: {networks: ["127.0.0.1/32"]}
grants:
  - {secrets: ["*"], clients: [local], plaintext: true}
egress:
  passthrough: [api.example.com]
"""


def test_a_passthrough_host_is_relayed_both_ways_and_never_filled_in_or_scrubbed() -> None:
    wire = Wire(a_gateway(PASSING))

    got = wire.send(CONNECT + b"\r\n" + b"early {{secrets.key}}")
    assert got == ESTABLISHED
    wire.send(b" late {{secrets.key}}")

    assert wire.received() == b"early {{secrets.key}} late {{secrets.key}}"
    assert not wire.upstream.tls, "the TLS inside is the client's own"
    assert wire.answer(b"back " + VALUE) == b"back " + VALUE
    wire.hang_up()
    assert wire.closed


def test_a_passthrough_tunnel_ends_with_its_client() -> None:
    wire = Wire(a_gateway(PASSING))
    wire.send(CONNECT + b"\r\n")

    wire.leave()

    assert wire.upstream.closed


def test_a_passthrough_host_is_no_exception_for_other_ports() -> None:
    wire = Wire(a_gateway(PASSING))

    wire.send(CONNECT.replace(b":443", b":8443") + b"\r\n")

    assert wire.upstreams == []


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        pytest.param(
            PASSING + "  deny: [api.example.com]\n", "destination_not_allowed", id="egress.deny"
        ),
        pytest.param(
            PASSING + "  default: deny\n", "destination_not_allowed", id="egress.default: deny"
        ),
        pytest.param(
            PASSING.replace("127.0.0.1/32", "10.0.0.0/8"), "proxy_auth_required", id="who is that?"
        ),
    ],
)
def test_a_passthrough_host_is_only_for_those_who_may_go_there(policy: str, code: str) -> None:
    wire = Wire(a_gateway(policy))

    assert code_of(wire.send(CONNECT + b"\r\n")) == code
    assert wire.upstreams == []


def test_a_passthrough_host_that_cannot_be_reached_is_told_by_its_code() -> None:
    wire = Wire(a_gateway(PASSING), refuse_dial=Code.ADDRESS_NOT_ALLOWED)

    assert code_of(wire.send(CONNECT + b"\r\n")) == "address_not_allowed"
    assert not wire.closed, "and the client may go on"


@pytest.mark.parametrize(
    "ended", [pytest.param(True, id="it may rest"), pytest.param(False, id="it may not")]
)
def test_the_connection_of_an_earlier_request_is_none_of_the_tunnel(ended: bool) -> None:
    wire = Wire(a_gateway(PASSING))
    wire.send(a_get(b"/", *([] if ended else [b"Authorization: NTLM x"])))
    wire.answer(OK)

    wire.send(CONNECT + b"\r\n")
    wire.send(b"the client's own TLS")

    first, second = wire.upstreams
    assert second.received == b"the client's own TLS"
    assert first.closed is not ended
    assert (first in wire.resting.values()) is ended


# --- how much --------------------------------------------------------------------------------


def test_a_client_may_send_ahead_up_to_a_limit() -> None:
    wire = Wire()
    wire.send(a_get(b"/1"))

    wire.send(b"x" * MAX_PIPELINED)
    assert not wire.closed
    wire.send(b"x")

    assert wire.closed
    assert wire.upstream.closed
