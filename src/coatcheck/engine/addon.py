"""The same gateway behind mitmproxy's own hooks, for people who run a mitmproxy of their own.

mitmproxy logs what a hook raises and then forwards the flow untouched, and it is listening before
an addon is ready. So every hook is written deny-first: it puts a refusal in place, and takes it
away as its last step when all went well. What mitmproxy's HTTP layers do before and after the
hooks is not ours to change: SECURITY.md lists the promises that need `coatcheck serve`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from mitmproxy import connection, http
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from coatcheck.core.destination import DEFAULT_PORTS, BadHost, Destination, canonical_host
from coatcheck.core.identity import Credential
from coatcheck.core.message import Fields, RequestHead, ResponseHead, field_values
from coatcheck.core.policy import Network
from coatcheck.core.problems import Code, Problem, Refused, refuse
from coatcheck.engine import names
from coatcheck.engine.lane import Log
from coatcheck.engine.resolver import Resolver
from coatcheck.gateway import Body, BodyPlan, Exchange, Gateway, Origin, Outgoing

type Abort = Callable[[connection.Client], None]


@dataclass(frozen=True, slots=True)
class Ready:
    """What the hooks need once the process is set up.

    Attributes:
        abort: Breaks a client connection off where mitmproxy would end a message as if complete.
    """

    gateway: Gateway
    resolver: Resolver
    networks: Callable[[], tuple[Network, ...]]
    abort: Abort
    log: Log


@dataclass(slots=True)
class _Flow:
    exchange: Exchange | None = None
    waiting: bool = False  # for the whole body, with a refusal in place until it is there
    refusal: http.Response | None = None  # the answer that we have put in place ourselves
    withheld: tuple[http.Response, bytes] | None = None  # the same, for an answer that had begun


@dataclass(frozen=True, slots=True)
class _Tunnel:
    destination: Destination
    credential: Credential | None


@dataclass(slots=True)
class _Pin:
    host: str
    port: int
    address: str


@dataclass(slots=True)
class _Books:
    """What the hooks remember between each other."""

    flows: dict[str, _Flow] = field(default_factory=dict)
    tunnels: WeakKeyDictionary[connection.Client, _Tunnel] = field(
        default_factory=WeakKeyDictionary
    )
    pins: dict[str, _Pin] = field(default_factory=dict)


def _answering(hook: Callable[[Addon, http.HTTPFlow], None]) -> Callable[..., None]:
    """Deny first: the flow is refused unless *hook* comes to its end and lifts the refusal."""

    @functools.wraps(hook)
    def guarded(self: Addon, flow: http.HTTPFlow) -> None:
        if flow.error is not None:
            return  # mitmproxy has refused it already
        self.refuse(flow, Problem(Code.INTERNAL_ERROR))
        try:
            hook(self, flow)
        except Refused as refused:
            self.refuse(flow, refused.problem)
        except Exception as error:  # fail closed: the refusal stays
            self.note("addon.internal_error", error=type(error).__name__)

    return guarded


class Addon:
    """Hooks of mitmproxy. Until `ready` is set each of them refuses."""

    name = "coatcheck"

    def __init__(self, ready: Ready | None = None) -> None:
        self.ready = ready
        self._books = _Books()

    # --- requests ---------------------------------------------------------------------------

    @_answering
    def http_connect(self, flow: http.HTTPFlow) -> None:
        ready = self._ready()
        raw = flow.request
        credential = ready.gateway.credential(
            field_values(raw.headers.fields, b"proxy-authorization")
        )
        ready.gateway.identify(_address(flow), credential)
        destination = names.connect_target(raw.data.authority)
        _check_host(flow, destination)
        self._books.tunnels[flow.client_conn] = _Tunnel(destination, credential)
        flow.response = None

    @_answering
    def requestheaders(self, flow: http.HTTPFlow) -> None:
        ready = self._ready()
        destination, credential = self._destination(flow, ready.gateway)
        client = ready.gateway.identify(_address(flow), credential)
        raw = flow.request
        exchange = ready.gateway.begin(
            Origin(client.name, _address(flow)),
            destination,
            RequestHead(raw.data.method, raw.data.path, raw.headers.fields),
            _body(flow),
        )
        self._books.flows[flow.id] = _Flow(exchange)
        raw.data.authority = b""  # an absolute-form target in a tunnel would be forwarded as it is
        if exchange.plan is BodyPlan.COLLECT and "content-length" in raw.headers:
            self._books.flows[flow.id].waiting = True
            return
        self._apply(flow, exchange.open())
        if exchange.plan is not BodyPlan.NONE:
            raw.stream = self._stream(flow, exchange.feed_request, exchange.finish_request)
        flow.response = None

    def request(self, flow: http.HTTPFlow) -> None:
        book = self._books.flows.get(flow.id)
        if book is None or book.waiting:
            self._open_collected(flow)

    @_answering
    def _open_collected(self, flow: http.HTTPFlow) -> None:
        book = self._books.flows[flow.id]
        if book.exchange is None:
            raise Refused(Problem(Code.INTERNAL_ERROR))
        self._apply(flow, book.exchange.open(flow.request.raw_content or b""))
        flow.response = None

    def _apply(self, flow: http.HTTPFlow, out: Outgoing) -> None:
        raw = flow.request
        raw.data.path = out.head.target
        fields = out.head.fields
        if out.length is None:
            fields = (*fields, (b"Transfer-Encoding", b"chunked"))
        elif out.length or "content-length" in raw.headers:
            fields = (*fields, (b"Content-Length", b"%d" % out.length))
        raw.headers = http.Headers(fields)
        if out.body:
            raw.data.content = out.body

    # --- responses --------------------------------------------------------------------------

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        answer = flow.response
        book = self._books.flows.get(flow.id)
        if book is not None and answer is not None and answer is book.refusal:
            return
        self._withhold(flow, Problem(Code.RESPONSE_WITHHELD))
        if answer is None or book is None or book.exchange is None:
            return
        try:
            self._scrub(flow, answer, book.exchange)
        except Refused as refused:
            self._withhold(flow, refused.problem)
        except Exception as error:  # fail closed: it stays withheld
            self.note("addon.internal_error", error=type(error).__name__)

    def response(self, flow: http.HTTPFlow) -> None:
        book = self._books.flows.pop(flow.id, None)
        if book is not None and book.withheld is not None and flow.response is book.withheld[0]:
            # mitmproxy does not call `stream` for an answer without a body, and empties ours.
            flow.response.data.content = book.withheld[1]

    def error(self, flow: http.HTTPFlow) -> None:
        self._books.flows.pop(flow.id, None)

    def _scrub(self, flow: http.HTTPFlow, answer: http.Response, exchange: Exchange) -> None:
        if _has_controls(answer.headers.fields):
            # mitmproxy keeps folded lines: a value across a fold would not be found.
            raise refuse(Code.RESPONSE_WITHHELD, "A field of it holds a control character.")
        coded = field_values(answer.headers.fields, b"transfer-encoding")
        if coded and (len(coded) > 1 or coded[0].lower() != b"chunked"):
            raise refuse(Code.RESPONSE_WITHHELD, "Its transfer coding cannot be searched.")
        if answer.status_code < 200 or flow.websocket is not None:
            raise refuse(Code.RESPONSE_WITHHELD, "It changes the protocol.")
        bare = flow.request.method == "HEAD" or answer.status_code in (204, 304)
        lengths = field_values(answer.headers.fields, b"content-length")
        head = ResponseHead(answer.status_code, answer.data.reason, tuple(answer.headers.fields))
        incoming = exchange.response(
            head, has_body=not bare, length=int(lengths[0]) if lengths else None
        )
        fields = incoming.head.fields
        if incoming.length is not None:
            fields = (*fields, (b"Content-Length", b"%d" % incoming.length))
        elif incoming.has_body and flow.request.http_version != "HTTP/1.0":
            fields = (*fields, (b"Transfer-Encoding", b"chunked"))
        answer.data.reason = incoming.head.reason
        answer.headers = http.Headers(fields)
        if incoming.has_body:
            answer.stream = self._stream(flow, exchange.feed_response, exchange.finish_response)
        flow.response = answer

    def _stream(
        self, flow: http.HTTPFlow, feed: Callable[[bytes], bytes], finish: Callable[[], bytes]
    ) -> Callable[[bytes], Iterable[bytes]]:
        """What mitmproxy calls for each chunk of a body, and with b"" at its end."""

        def step(data: bytes) -> Iterable[bytes]:
            try:
                out = feed(data) if data else finish()
            except Exception as error:  # fail closed, and Refused is one of them
                # Ended normally, the receiver would take what it has for the whole body.
                self.note("addon.broken_off", error=type(error).__name__)
                self._abort(flow)
                return []
            return [out] if out else []

        return step

    def _withhold(self, flow: http.HTTPFlow, problem: Problem) -> None:
        """Answer with *problem*; whatever the upstream still sends is swallowed."""
        response, body = _problem_response(flow, problem, self._request_id(flow))
        # What the upstream sends after an interim answer must not answer the next request.
        response.headers["Connection"] = "close"
        self._books.flows.setdefault(flow.id, _Flow()).withheld = response, body

        def swallow(data: bytes) -> Iterable[bytes]:
            return [] if data or not body else [body]

        response.stream = swallow
        flow.response = response

    # --- upstream connections ---------------------------------------------------------------

    async def server_connect(self, data: ServerConnectionHookData) -> None:
        """Resolve once, vet every answer, pin the vetted address, force the server name."""
        server = data.server
        server.error = str(Code.INTERNAL_ERROR)
        try:
            ready = self._ready()
            if server.address is None:
                return
            host, port = canonical_host(server.address[0]), server.address[1]
            addresses = await ready.resolver.resolve(host, port, allowed=ready.networks())
            server.sni = host
            self._books.pins[server.id] = _Pin(host, port, addresses[0])
            server.address = (addresses[0], port)
            server.error = None
        except Refused as refused:
            server.error = str(refused.problem.code)
        except Exception as error:  # fail closed: no connection is made
            self.note("addon.internal_error", error=type(error).__name__)

    def server_connected(self, data: ServerConnectionHookData) -> None:
        pin = self._books.pins.get(data.server.id)
        if pin is not None:
            # mitmproxy takes the host of later requests from here, and forbids the plain way.
            object.__setattr__(data.server, "address", (pin.host, pin.port))

    def server_connect_error(self, data: ServerConnectionHookData) -> None:
        self._books.pins.pop(data.server.id, None)

    def server_disconnected(self, data: ServerConnectionHookData) -> None:
        self._books.pins.pop(data.server.id, None)

    # --- helpers ----------------------------------------------------------------------------

    def _ready(self) -> Ready:
        if self.ready is None:
            raise refuse(Code.INTERNAL_ERROR, "The proxy is not ready.")
        return self.ready

    def note(self, event: str, **fields: object) -> None:
        if self.ready is not None:
            self.ready.log(event, **fields)

    def refuse(self, flow: http.HTTPFlow, problem: Problem) -> None:
        """Put the answer *problem* in place; mitmproxy then sends nothing upstream."""
        book = self._books.flows.setdefault(flow.id, _Flow())
        if problem.code is not Code.INTERNAL_ERROR:
            self.note("request.refused", code=str(problem.code), host=problem.host)
        response, body = _problem_response(flow, problem, self._request_id(flow))
        response.data.content = body
        flow.response = book.refusal = response

    def _request_id(self, flow: http.HTTPFlow) -> str:
        book = self._books.flows.get(flow.id)
        return book.exchange.request_id if book and book.exchange else flow.id

    def _abort(self, flow: http.HTTPFlow) -> None:
        if self.ready is not None:
            self.ready.abort(flow.client_conn)

    def _destination(
        self, flow: http.HTTPFlow, gateway: Gateway
    ) -> tuple[Destination, Credential | None]:
        raw = flow.request
        if raw.http_version not in ("HTTP/1.0", "HTTP/1.1"):
            raise refuse(Code.BAD_REQUEST, "Only HTTP/1.1 is taken.")
        _check_bytes(flow)
        tunnel = self._books.tunnels.get(flow.client_conn)
        if tunnel is None:
            destination = _plain_destination(flow)
            values = field_values(raw.headers.fields, b"proxy-authorization")
            credential = gateway.credential(values)
        else:
            destination, credential = tunnel.destination, tunnel.credential
            names.check_sni(flow.client_conn.sni, destination)
            if raw.data.authority or raw.scheme != "https":
                raise names.mismatch(destination)
        if (canonical_host(raw.host), raw.port) != (destination.host, destination.port):
            raise names.mismatch(destination)
        _check_host(flow, destination)
        return destination, credential


def _plain_destination(flow: http.HTTPFlow) -> Destination:
    """That of a request outside a tunnel. mitmproxy has cleared its authority by now."""
    raw = flow.request
    try:
        if raw.scheme in DEFAULT_PORTS:
            return Destination(raw.scheme, canonical_host(raw.host), raw.port)
    except BadHost:
        pass
    raise refuse(Code.BAD_REQUEST, "The target of the request is no http:// URL.")


def _address(flow: http.HTTPFlow) -> str:
    peer = flow.client_conn.peername
    return peer[0].partition("%")[0] if peer else ""


def _check_bytes(flow: http.HTTPFlow) -> None:
    if _has_controls(flow.request.headers.fields):
        raise refuse(Code.BAD_REQUEST, "A field holds a control character.")


def _has_controls(fields: Fields) -> bool:
    return any(byte in part for field in fields for part in field for byte in (b"\r", b"\n", b"\0"))


def _check_host(flow: http.HTTPFlow, destination: Destination) -> None:
    raw = flow.request
    names.check_host(
        raw.headers.fields,
        destination,
        connect=raw.method == "CONNECT",
        http10=raw.http_version == "HTTP/1.0",
    )


def _body(flow: http.HTTPFlow) -> Body:
    fields = flow.request.headers.fields
    if field_values(fields, b"transfer-encoding"):
        return Body(True, None)
    lengths = field_values(fields, b"content-length")
    if not lengths:
        return Body(False, 0)
    if len(lengths) > 1 or not lengths[0].isdigit():
        raise refuse(Code.BAD_REQUEST, "Content-Length is not one number.")
    return Body(int(lengths[0]) > 0, int(lengths[0]))


def _problem_response(
    flow: http.HTTPFlow, problem: Problem, request_id: str
) -> tuple[http.Response, bytes]:
    body = problem.body(request_id) if flow.request.method != "HEAD" else b""
    fields = (*problem.fields(), (b"Content-Length", b"%d" % len(body)))
    response = http.Response.make(problem.status)
    response.data.reason = problem.title.encode()
    response.headers = http.Headers(fields)
    return response, body
