"""G5: whatever is raised, wherever, nothing unvetted goes up and nothing unscrubbed comes down.

Both engines are broken in every place in turn: each step that the lane asks of the gateway, each
hook of the addon, and the connection handler below them. The twin of each case, unbroken, lets
the request through, so a proxy that refuses everything would fail too.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from mitmproxy import http
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.test import tflow

from coatcheck.core import bodies, coding, inject, policy
from coatcheck.core.filling import Filling
from coatcheck.core.redact import Needles, Redactor
from coatcheck.core.scrubbing import Scrubbing
from coatcheck.core.snapshot import Snapshot
from coatcheck.engine import http1, names
from coatcheck.engine.addon import Addon, Ready
from coatcheck.gateway import Exchange, Gateway
from tests.engine.wire import OK, VALUE, Wire, a_gateway, a_get, a_post

ERRORS = [ValueError("text with " + VALUE.decode()), MemoryError(), RecursionError()]
KEY = b"X-Key: {{secrets.key}}"
ECHO = b"HTTP/1.1 200 %b\r\nX-Echo: %b\r\nContent-Length: 24\r\n\r\n%b" % (VALUE, VALUE, VALUE)

REQUEST_STEPS = [
    (Gateway, "begin"),
    (Gateway, "identify"),
    (Gateway, "credential"),
    (Snapshot, "admits"),
    (Exchange, "decide_head"),
    (Exchange, "opening"),
    (Exchange, "_plan_body"),
    (Exchange, "_outgoing_head"),
    (Filling, "decide"),
    (Filling, "fill"),
    (Filling, "fill_head"),
    (Snapshot, "scope"),
    (Snapshot, "needles"),
    (Snapshot, "grants"),
    (inject, "read_head"),
    (bodies, "rewriter"),
    (policy, "candidates"),
    (policy, "allows"),
    (policy, "egress_allows"),
    (http1, "read_request"),
    (http1, "request_framing"),
    (http1, "write_head"),
    (names, "absolute_form"),
    (names, "check_host"),
]
RESPONSE_STEPS = [
    (Exchange, "response"),
    (Exchange, "response_pieces"),
    (Exchange, "finish_response"),
    (Scrubbing, "head"),
    (Scrubbing, "pieces"),
    (Scrubbing, "finish"),
    (Needles, "redact"),
    (Needles, "contains"),
    (Redactor, "pieces"),
    (Redactor, "feed"),
    (Redactor, "finish"),
    (coding, "decoder"),
    (http1, "read_response"),
    (http1, "response_framing"),
]

UPLOAD_STEPS = [
    (Exchange, "feeding"),
    (Exchange, "_read"),
    (Exchange, "_uses"),
    (Filling, "decide"),
    (Filling, "fill"),
    (coding.Decoder, "feed"),
    (coding.Decoder, "finish"),
]


def raising(error: Exception) -> Callable[..., object]:
    def step(*_: object, **__: object) -> object:
        raise error

    return step


def ids(steps: list[tuple[object, str]]) -> list[str]:
    return [f"{getattr(owner, '__name__', owner)}.{name}" for owner, name in steps]


# --- the lane --------------------------------------------------------------------------------


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(("owner", "name"), REQUEST_STEPS, ids=ids(REQUEST_STEPS))
def test_a_fault_before_sending_sends_nothing(
    owner: object, name: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, raising(error))
    wire = Wire()

    wire.send(a_post(b'{"k": "{{secrets.key}}"}', b"Content-Length: 24", KEY))

    assert all(up.received == b"" for up in wire.upstreams)


def test_without_a_fault_it_is_sent() -> None:
    wire = Wire()

    wire.send(a_post(b'{"k": "{{secrets.key}}"}', b"Content-Length: 24", KEY))

    assert wire.received().count(VALUE) == 2


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(("owner", "name"), RESPONSE_STEPS, ids=ids(RESPONSE_STEPS))
def test_a_fault_after_sending_shows_no_byte_of_the_answer(
    owner: object, name: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Wire()
    wire.send(a_get(b"/", KEY))
    monkeypatch.setattr(owner, name, raising(error))

    got = wire.answer(ECHO)

    assert VALUE not in got
    assert b"0\r\n\r\n" not in got, "and the answer is not ended as if it were whole"
    assert wire.upstream.closed
    assert VALUE.decode() not in str(wire.audit)


def test_without_a_fault_the_answer_comes_scrubbed() -> None:
    wire = Wire()
    wire.send(a_get(b"/", KEY))

    got = wire.answer(ECHO)

    assert got.count(b"********") == 3
    assert got.endswith(b"0\r\n\r\n")


def an_upload() -> bytes:
    """One that streams, since it is coded."""
    packed = gzip.compress(b'{"k": "{{secrets.key}}"}')
    body = http1.chunk(packed[:15]) + http1.chunk(packed[15:]) + http1.LAST_CHUNK
    return a_post(body, b"Transfer-Encoding: chunked", b"Content-Encoding: gzip")


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(("owner", "name"), UPLOAD_STEPS, ids=ids(UPLOAD_STEPS))
def test_a_fault_in_a_streamed_upload_leaves_it_without_an_end(
    owner: object, name: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Wire()
    monkeypatch.setattr(owner, name, raising(error))

    wire.send(an_upload())

    for upstream in wire.upstreams:
        _, _, body = upstream.received.partition(b"\r\n\r\n")
        assert body in (b"", http1.chunk(b'{"k": "' + VALUE + b'"}')), "and none of it as it came"


def test_without_a_fault_the_upload_has_its_end() -> None:
    wire = Wire()

    wire.send(an_upload())

    assert VALUE in wire.upstream.received
    assert wire.upstream.received.endswith(http1.LAST_CHUNK)


# --- the addon -------------------------------------------------------------------------------


class NoResolver:
    async def resolve(self, host: str, port: int, *, allowed: object = ()) -> list[str]:
        raise ValueError


class Resolves:
    async def resolve(self, host: str, port: int, *, allowed: object = ()) -> list[str]:
        return ["20.20.20.20"]


def an_addon(resolver: object = None, aborted: list[object] | None = None) -> Addon:
    return Addon(
        Ready(
            a_gateway(),
            resolver or Resolves(),  # type: ignore[arg-type]
            networks=tuple,
            abort=(aborted if aborted is not None else []).append,
            log=lambda event, /, **fields: None,
        )
    )


def a_flow(fields: tuple[tuple[bytes, bytes], ...] = ()) -> http.HTTPFlow:
    flow = tflow.tflow()
    flow.client_conn.peername = ("127.0.0.1", 5)
    flow.request = http.Request(
        host="api.example.com",
        port=80,
        method=b"GET",
        scheme=b"http",
        authority=b"api.example.com",
        path=b"/",
        http_version=b"HTTP/1.1",
        headers=http.Headers(
            ((b"Host", b"api.example.com"), (b"X-Key", b"{{secrets.key}}"), *fields)
        ),
        content=None,
        trailers=None,
        timestamp_start=0,
        timestamp_end=0,
    )
    return flow


def answered(flow: http.HTTPFlow) -> http.HTTPFlow:
    flow.response = http.Response.make(200, b"", {"X-Echo": VALUE.decode()})
    flow.response.data.reason = VALUE
    flow.response.headers["content-length"] = "24"
    return flow


def whole(response: http.Response | None) -> bytes:
    """Everything that mitmproxy would send of *response* when the upstream sends the value."""
    assert response is not None
    step = response.stream
    assert callable(step)
    body = b"".join([*step(VALUE), *step(b"")])
    fields = b"".join(key + value for key, value in response.headers.fields)
    return response.data.reason + fields + body


HOOK_FAULTS = [
    *REQUEST_STEPS[:4],
    (Exchange, "open"),
    (Addon, "_destination"),
    (Addon, "_apply"),
    (names, "check_host"),
]


@pytest.mark.parametrize(("owner", "name"), HOOK_FAULTS, ids=ids(HOOK_FAULTS))
def test_requestheaders_refuses_when_it_fails(
    owner: object, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, raising(ValueError()))
    flow = a_flow()

    an_addon().requestheaders(flow)

    assert flow.response is not None
    assert flow.response.status_code == 500
    assert VALUE not in b"".join(value for _, value in flow.request.headers.fields)


def test_requestheaders_lets_a_good_request_through() -> None:
    flow = a_flow()

    an_addon().requestheaders(flow)

    assert flow.response is None
    assert flow.request.headers["x-key"] == VALUE.decode()


@pytest.mark.parametrize("step", ["identify", "credential"])
def test_http_connect_refuses_when_it_fails(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gateway, step, raising(ValueError()))
    flow = a_flow()
    flow.request.method, flow.request.data.authority = "CONNECT", b"api.example.com:443"

    an_addon().http_connect(flow)

    assert flow.response is not None


def test_http_connect_lets_a_known_client_through() -> None:
    flow = a_flow()
    flow.request.method, flow.request.data.authority = "CONNECT", b"api.example.com:443"

    an_addon().http_connect(flow)

    assert flow.response is None


def test_request_refuses_when_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    addon, flow = an_addon(), a_flow(((b"Content-Type", b"text/plain"), (b"Content-Length", b"2")))
    addon.requestheaders(flow)
    assert flow.response is not None, "refused as long as the body is not there"
    monkeypatch.setattr(Exchange, "open", raising(ValueError()))
    flow.request.data.content = b"{}"

    addon.request(flow)

    assert flow.response is not None
    assert flow.response.status_code == 500


def test_request_lets_a_good_body_through() -> None:
    addon, flow = an_addon(), a_flow(((b"Content-Type", b"text/plain"), (b"Content-Length", b"15")))
    addon.requestheaders(flow)
    flow.request.data.content = b"{{secrets.key}}"

    addon.request(flow)

    assert flow.response is None
    assert flow.request.raw_content == VALUE


def test_request_refuses_a_flow_that_it_has_never_seen() -> None:
    flow = a_flow()

    an_addon().request(flow)

    assert flow.response is not None


ANSWER_FAULTS = RESPONSE_STEPS[:8]


@pytest.mark.parametrize(("owner", "name"), ANSWER_FAULTS, ids=ids(ANSWER_FAULTS))
def test_responseheaders_withholds_when_it_fails(
    owner: object, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    aborted: list[object] = []
    addon, flow = an_addon(aborted=aborted), a_flow()
    addon.requestheaders(flow)
    answered(flow)
    monkeypatch.setattr(owner, name, raising(ValueError()))

    addon.responseheaders(flow)

    assert VALUE not in whole(flow.response)
    assert aborted or flow.response.status_code >= 500  # type: ignore[union-attr]


def test_responseheaders_lets_a_good_answer_through_scrubbed() -> None:
    addon, flow = an_addon(), a_flow()
    addon.requestheaders(flow)
    answered(flow)

    addon.responseheaders(flow)

    got = whole(flow.response)
    assert VALUE not in got
    assert got.count(b"********") == 3


def test_responseheaders_withholds_a_folded_field() -> None:
    addon, flow = an_addon(), a_flow()
    addon.requestheaders(flow)
    answered(flow)
    half = len(VALUE) // 2
    flow.response.headers["x-echo"] = (VALUE[:half] + b"\r\n " + VALUE[half:]).decode()  # type: ignore[union-attr]

    addon.responseheaders(flow)

    assert VALUE[:half] not in whole(flow.response)


def test_responseheaders_withholds_an_answer_to_a_flow_that_it_has_never_seen() -> None:
    flow = answered(a_flow())

    an_addon().responseheaders(flow)

    assert VALUE not in whole(flow.response)


@pytest.mark.parametrize(
    ("resolver", "refused"),
    [
        pytest.param(NoResolver(), True, id="it fails"),
        pytest.param(Resolves(), False, id="it works"),
    ],
)
def test_server_connect_makes_no_connection_when_it_fails(resolver: object, refused: bool) -> None:
    flow = tflow.tflow()
    data = ServerConnectionHookData(server=tflow.tserver_conn(), client=flow.client_conn)
    data.server.state = data.server.state.CLOSED
    data.server.address = ("api.example.com", 443)

    asyncio.run(an_addon(resolver).server_connect(data))

    assert (data.server.error is not None) is refused
    if not refused:
        assert data.server.address == ("20.20.20.20", 443)
        assert data.server.sni == "api.example.com"


def test_before_it_is_ready_every_hook_refuses() -> None:
    """mitmproxy listens before a script is set up."""
    addon = Addon()
    flow, connect = a_flow(), a_flow()
    addon.requestheaders(flow)
    addon.http_connect(connect)
    answer = answered(a_flow())
    addon.responseheaders(answer)
    data = ServerConnectionHookData(server=tflow.tserver_conn(), client=flow.client_conn)
    asyncio.run(addon.server_connect(data))

    assert flow.response is not None
    assert connect.response is not None
    assert VALUE not in whole(answer.response)
    assert data.server.error


# --- the handler -----------------------------------------------------------------------------


def test_a_lane_that_cannot_even_refuse_closes_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from coatcheck.engine.lane import Lane, Services
    from coatcheck.engine.server import ProxyServer

    monkeypatch.setattr(Lane, "_refuse", raising(ValueError()))
    logged: list[str] = []

    async def scene() -> bytes:
        services = Services(a_gateway(), lambda event, /, **fields: logged.append(event))
        nothing = SimpleNamespace()
        server = ProxyServer(services, nothing, nothing)  # type: ignore[arg-type]
        ((host, port),) = await server.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"no request\r\n\r\n")
        got = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await server.stop(0.1)
        return got

    assert asyncio.run(scene()) == b""
    assert logged[-1] == "engine.crash"


def test_the_answers_used_here_are_well_formed() -> None:
    wire = Wire()
    wire.send(a_get(b"/"))

    assert wire.answer(OK).startswith(b"HTTP/1.1 200 OK")
