"""The gateway behind mitmproxy's own hooks: the same names, the same refusals, the same channels.

What each hook does when something inside it fails is in `test_faults`; here nothing fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from mitmproxy import http
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.test import tflow

from coatcheck.core.identity import token_digest
from coatcheck.engine.addon import Addon, Ready
from coatcheck.gateway import Gateway
from tests.engine.test_faults import Resolves, a_flow, answered, whole
from tests.engine.wire import POLICY, VALUE, a_gateway

KEY = (b"X-Key", b"{{secrets.key}}")


class Scene:
    """An addon and what it did to client connections."""

    def __init__(self, gateway: Gateway | None = None) -> None:
        self.aborted: list[object] = []
        self.noted: list[tuple[str, Mapping[str, object]]] = []
        self.gateway = gateway or a_gateway()
        self.addon = Addon(
            Ready(
                self.gateway,
                Resolves(),  # type: ignore[arg-type]
                networks=tuple,
                abort=self.aborted.append,
                log=lambda event, /, **fields: self.noted.append((event, fields)),
            )
        )

    def tunnel(self, *fields: tuple[bytes, bytes], sni: str | None = None) -> http.HTTPFlow:
        """A request inside an open tunnel to api.example.com:443, not yet seen by the addon."""
        connect = a_flow(fields)
        connect.request.method = "CONNECT"
        connect.request.data.authority = b"api.example.com:443"
        self.addon.http_connect(connect)
        assert connect.response is None
        flow = a_flow()
        flow.client_conn = connect.client_conn
        flow.client_conn.sni = sni
        flow.request.data.scheme = b"https"
        flow.request.data.authority = b""
        flow.request.data.port = 443
        return flow


def code_of(flow: http.HTTPFlow) -> str | None:
    return None if flow.response is None else flow.response.headers["coatcheck-error"]


def value_is_in(flow: http.HTTPFlow) -> bool:
    return VALUE in b"".join(value for _, value in flow.request.headers.fields)


# --- names -----------------------------------------------------------------------------------


def change(flow: http.HTTPFlow, what: str) -> None:
    raw = flow.request.data
    match what:
        case "Host":
            raw.headers["host"] = "evil.example.com"
        case "no Host":
            del raw.headers["host"]
        case "mitmproxy's host":
            raw.host = "evil.example.com"
        case "mitmproxy's port":
            raw.port = 8080
        case "authority":
            raw.authority = b"evil.example.com"
        case "scheme":
            raw.scheme = b"http"
        case "SNI":
            flow.client_conn.sni = "evil.example.com"
        case "HTTP/2":
            raw.http_version = b"HTTP/2.0"
        case "a line end in a field":
            raw.headers = http.Headers((*raw.headers.fields, (b"X-A", b"b\r\nX-B: c")))
        case "a NUL in a name":
            raw.headers = http.Headers((*raw.headers.fields, (b"X\0A", b"b")))
        case "two lengths":
            lengths = ((b"Content-Length", b"1"), (b"Content-Length", b"2"))
            raw.headers = http.Headers((*raw.headers.fields, *lengths))


PLAIN = [
    ("Host", "destination_mismatch"),
    ("no Host", "bad_request"),
    ("mitmproxy's host", "destination_mismatch"),
    ("mitmproxy's port", "destination_mismatch"),
    ("HTTP/2", "bad_request"),
    ("a line end in a field", "bad_request"),
    ("a NUL in a name", "bad_request"),
    ("two lengths", "bad_request"),
    ("nothing", None),
]


@pytest.mark.parametrize(("what", "code"), PLAIN, ids=[what for what, _ in PLAIN])
def test_a_plain_request_names_one_destination(what: str, code: str | None) -> None:
    flow = a_flow()
    change(flow, what)

    Scene().addon.requestheaders(flow)

    assert code_of(flow) == code
    assert value_is_in(flow) is (code is None)


TUNNELLED = [
    *PLAIN,
    ("SNI", "destination_mismatch"),
    ("scheme", "destination_mismatch"),
    ("authority", "destination_mismatch"),
]


@pytest.mark.parametrize(("what", "code"), TUNNELLED, ids=[what for what, _ in TUNNELLED])
def test_a_request_in_a_tunnel_goes_where_the_tunnel_goes(what: str, code: str | None) -> None:
    scene = Scene()
    flow = scene.tunnel(sni="api.example.com")
    change(flow, what)

    scene.addon.requestheaders(flow)

    assert code_of(flow) == code
    assert value_is_in(flow) is (code is None)


def test_an_absolute_form_target_is_not_forwarded_as_it_is() -> None:
    flow = a_flow()

    Scene().addon.requestheaders(flow)

    assert flow.request.data.authority == b""


# --- who -------------------------------------------------------------------------------------

TOKEN = f'runner: {{token: "sha256:{token_digest(b"token-1")}"}}'
WITH_TOKEN = POLICY.replace('local: {networks: ["127.0.0.1/32"]}', TOKEN).replace("local", "runner")
CREDENTIAL = (b"Proxy-Authorization", b"Bearer token-1")


def test_a_tunnel_is_for_known_clients_and_its_requests_are_theirs() -> None:
    scene = Scene(a_gateway(WITH_TOKEN))
    stranger = a_flow()
    stranger.request.method = "CONNECT"
    stranger.request.data.authority = b"api.example.com:443"

    scene.addon.http_connect(stranger)
    assert code_of(stranger) == "proxy_auth_required"

    flow = scene.tunnel(CREDENTIAL)
    scene.addon.requestheaders(flow)
    assert value_is_in(flow)


def test_a_plain_request_brings_its_own_credential_and_it_stays_here() -> None:
    scene = Scene(a_gateway(WITH_TOKEN))
    stranger, known = a_flow(), a_flow((CREDENTIAL,))

    scene.addon.requestheaders(stranger)
    scene.addon.requestheaders(known)

    assert code_of(stranger) == "proxy_auth_required"
    assert value_is_in(known)
    assert "proxy-authorization" not in known.request.headers


# --- answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "withheld"),
    [
        ("nothing", False),
        ("101", True),
        ("206", True),
        ("an unknown coding", True),
        ("gzip as transfer coding", True),
        ("two transfer codings", True),
        ("chunked", False),
    ],
)
def test_what_cannot_be_searched_is_withheld(what: str, withheld: bool) -> None:
    scene, flow = Scene(), a_flow()
    scene.addon.requestheaders(flow)
    response = answered(flow).response
    assert response is not None
    match what:
        case "101" | "206":
            response.status_code = int(what)
        case "an unknown coding":
            response.headers["content-encoding"] = "rot13"
        case "gzip as transfer coding":
            response.headers["transfer-encoding"] = "gzip"
        case "two transfer codings":
            response.headers.set_all("transfer-encoding", ["chunked", "chunked"])
        case "chunked":
            response.headers["transfer-encoding"] = "chunked"

    scene.addon.responseheaders(flow)

    assert flow.response is not None
    assert (flow.response.headers.get("coatcheck-error") == "response_withheld") is withheld
    assert VALUE not in whole(flow.response)


def test_a_websocket_is_not_opened() -> None:
    scene, flow = Scene(), a_flow()
    scene.addon.requestheaders(flow)
    answered(flow).websocket = tflow.twebsocketflow().websocket

    scene.addon.responseheaders(flow)

    assert code_of(flow) == "response_withheld"


def test_our_own_refusal_reaches_the_client_as_it_is() -> None:
    scene, flow = Scene(), a_flow()
    change(flow, "Host")
    scene.addon.requestheaders(flow)
    ours = flow.response

    scene.addon.responseheaders(flow)

    assert flow.response is ours


def test_an_answer_that_replaces_our_refusal_is_searched_for_all_that() -> None:
    scene, flow = Scene(), a_flow()
    change(flow, "Host")
    scene.addon.requestheaders(flow)

    scene.addon.responseheaders(answered(flow))

    assert VALUE not in whole(flow.response)


def test_a_body_that_breaks_off_breaks_the_connection_off() -> None:
    """mitmproxy would end the answer as if it were whole."""
    scene, flow = Scene(), a_flow()
    scene.addon.requestheaders(flow)
    response = answered(flow).response
    assert response is not None
    response.headers["content-encoding"] = "gzip"
    scene.addon.responseheaders(flow)
    assert flow.response is not None
    step = flow.response.stream
    assert callable(step)

    assert list(step(b"this is not gzip, " + VALUE)) == []
    assert scene.aborted == [flow.client_conn]


def test_books_are_closed_with_their_flows() -> None:
    scene, first, second = Scene(), a_flow(), a_flow()
    for flow in (first, second):
        scene.addon.requestheaders(flow)

    scene.addon.response(first)
    scene.addon.error(second)

    assert scene.addon._books.flows == {}


# --- upstream connections --------------------------------------------------------------------


def test_the_vetted_address_is_dialled_and_the_name_is_kept() -> None:
    scene = Scene()
    server = tflow.tserver_conn()
    server.state = ConnectionState.CLOSED
    server.address, server.sni = ("API.example.com.", 443), "evil.example.com"
    data = ServerConnectionHookData(server=server, client=tflow.tclient_conn())

    asyncio.run(scene.addon.server_connect(data))
    assert (server.address, server.sni, server.error) == (
        ("20.20.20.20", 443),
        "api.example.com",
        None,
    )
    server.state = ConnectionState.OPEN
    scene.addon.server_connected(data)
    assert server.address == ("api.example.com", 443), "mitmproxy takes later hosts from here"

    scene.addon.server_disconnected(data)
    assert scene.addon._books.pins == {}
