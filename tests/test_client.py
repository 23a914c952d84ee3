"""`coatcheck.client` by itself: what it sends, what it makes of answers, and what it never says."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from coatcheck import client
from coatcheck.client import Client, ClientError, NoProxy, NotAnswered, Refused, UnknownClient
from coatcheck.core import internal
from coatcheck.core.internal import ToUrl

TOKEN = "ctk_secret-of-the-client-0123456789"
LISTED = json.dumps(
    {
        "secrets": [
            {"name": "a", "placeholder": "{{secrets.a}}", "grants": []},
            {"name": "b c", "placeholder": None, "grants": []},
        ]
    }
)


class FakeProxy(HTTPServer):
    """Answers everything with one answer, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: tuple[int, dict[str, str], bytes] = (200, {}, LISTED.encode())
        self.asked: list[tuple[str, str | None, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def says(self, status: int, body: str = "", **fields: str) -> None:
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        self.answer = status, named, body.encode()


class _Handler(BaseHTTPRequestHandler):
    server: FakeProxy

    def do_GET(self) -> None:
        seen = self.path, self.headers["Host"], self.headers["Proxy-Authorization"]
        self.server.asked.append(seen)
        status, fields, body = self.server.answer
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def proxy() -> Iterator[FakeProxy]:
    server = FakeProxy()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def no_proxy_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in client.VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.delenv("REQUEST_METHOD", raising=False)


def test_it_asks_the_proxy_in_absolute_form(proxy: FakeProxy) -> None:
    one = Client(proxy.url.replace("//", f"//runner%20a:{TOKEN}@"))

    assert one.get_secret("a") == "{{secrets.a}}"

    credential = "Basic " + base64.b64encode(f"runner a:{TOKEN}".encode()).decode()
    target = "http://coatcheck.internal/v1/secrets"
    assert proxy.asked == [(target, "coatcheck.internal", credential)]


def test_without_a_credential_none_is_sent(proxy: FakeProxy) -> None:
    Client(proxy.url).names()

    assert [credential for *_, credential in proxy.asked] == [None]


def test_what_there_is_and_what_there_is_not(proxy: FakeProxy) -> None:
    one = Client(proxy.url)

    assert one.names() == ["a", "b c"]
    assert one.get_secret("A") is None
    assert one.get_secret("") is None
    with pytest.raises(ClientError, match=r"placeholders\.syntaxes"):
        one.get_secret("b c")


def test_an_answer_is_kept_for_a_moment_and_no_longer(proxy: FakeProxy) -> None:
    kept, asking = Client(proxy.url, cache_s=60), Client(proxy.url, cache_s=0)

    for _ in range(3):
        kept.names()
    assert len(proxy.asked) == 1
    for _ in range(3):
        asking.names()
    assert len(proxy.asked) == 4
    assert client.CACHE_S <= 5


def test_a_failure_is_not_kept(proxy: FakeProxy) -> None:
    one = Client(proxy.url, cache_s=60)
    proxy.says(503, "{}", Coatcheck_Error="audit_unavailable")
    with pytest.raises(Refused):
        one.names()

    proxy.says(200, LISTED)

    assert one.names() == ["a", "b c"]


FAILURES = [
    pytest.param(407, "", {}, UnknownClient, "coatcheck client token", id="no or a wrong token"),
    pytest.param(
        503,
        '{"detail": "Nothing is answered without an audit record."}',
        {"Coatcheck_Error": "audit_unavailable"},
        Refused,
        "audit_unavailable: Nothing is answered",
        id="a refusal",
    ),
    pytest.param(
        500, "oops", {"Coatcheck_Error": "internal_error"}, Refused, "internal_error", id="no JSON"
    ),
    pytest.param(502, "<html>", {}, NotAnswered, "no coatcheck", id="another proxy's error"),
    pytest.param(404, "", {}, NotAnswered, "no coatcheck", id="a web server"),
    pytest.param(200, "<html>", {}, NotAnswered, "no coatcheck", id="another proxy's page"),
    pytest.param(200, "[]", {}, NotAnswered, "no coatcheck", id="other JSON"),
    pytest.param(200, '{"secrets": [1]}', {}, NotAnswered, "no coatcheck", id="other secrets"),
]


@pytest.mark.parametrize(("status", "body", "fields", "kind", "words"), FAILURES)
def test_an_error_says_what_to_do_and_no_token(
    status: int,
    body: str,
    fields: dict[str, str],
    kind: type[ClientError],
    words: str,
    proxy: FakeProxy,
) -> None:
    proxy.says(status, body, **fields)

    with pytest.raises(kind, match=words) as caught:
        Client(proxy.url.replace("//", f"//runner:{TOKEN}@")).names()

    assert TOKEN not in str(caught.value)
    assert caught.value.__cause__ is None
    if isinstance(caught.value, Refused):
        assert caught.value.code == fields["Coatcheck_Error"]


def test_an_answer_has_a_bound(proxy: FakeProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER", len(LISTED) - 1)

    with pytest.raises(NotAnswered):
        Client(proxy.url).names()


def test_where_nobody_listens(proxy: FakeProxy) -> None:
    free = Client("http://127.0.0.1:1", timeout_s=1)

    with pytest.raises(NotAnswered, match=r"127\.0\.0\.1:1 gives no answer"):
        free.names()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"https://u:{TOKEN}@proxy:8080", id="TLS to the proxy"),
        pytest.param(f"socks5://u:{TOKEN}@proxy:1080", id="SOCKS"),
        pytest.param(f"http://u:{TOKEN}@:8080", id="no host"),
        pytest.param(f"http://u:{TOKEN}@proxy:port", id="no port"),
        pytest.param(f"http://u:{TOKEN}@[proxy", id="no end"),
    ],
)
def test_a_proxy_that_is_none_is_not_repeated(text: str) -> None:
    with pytest.raises(NoProxy) as caught:
        Client(text)

    assert TOKEN not in str(caught.value)


ENVIRONMENTS = [
    pytest.param({"HTTP_PROXY": "1"}, "1", id="HTTP_PROXY"),
    pytest.param({"HTTP_PROXY": "1", "http_proxy": "2"}, "2", id="lower case first"),
    pytest.param({"HTTPS_PROXY": "1", "ALL_PROXY": "2"}, "1", id="HTTPS_PROXY"),
    pytest.param({"https_proxy": "1", "HTTP_PROXY": "2"}, "2", id="the one for http first"),
    pytest.param({"all_proxy": "1"}, "1", id="ALL_PROXY"),
    pytest.param({"HTTP_PROXY": "", "HTTPS_PROXY": "1"}, "1", id="an empty one is none"),
    pytest.param(
        {"HTTP_PROXY": "1", "HTTPS_PROXY": "2", "REQUEST_METHOD": "GET"},
        "2",
        id="HTTP_PROXY of a CGI program is a header of its request",
    ),
    pytest.param(
        {"HTTP_PROXY": "1", "NO_PROXY": "coatcheck.internal,*"}, "1", id="NO_PROXY says nothing"
    ),
]


@pytest.mark.parametrize(("environ", "found"), ENVIRONMENTS)
def test_which_variable_names_the_proxy(environ: dict[str, str], found: str) -> None:
    assert client._from_environment(environ) == found


def test_without_a_variable_there_is_no_proxy() -> None:
    for ask in (client.names, lambda: client.get_secret("a")):
        with pytest.raises(NoProxy, match="coatcheck run"):
            ask()


def test_the_functions_ask_the_proxy_of_the_environment(
    proxy: FakeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)

    assert client.names() == ["a", "b c"]
    assert client.get_secret("a") == "{{secrets.a}}"
    assert len(proxy.asked) == 1
    monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", f"//other:{TOKEN}@"))
    client.names()
    assert len(proxy.asked) == 2


@pytest.mark.parametrize(
    ("name", "more", "asked"),
    [
        pytest.param("hook", (), ToUrl("hook", b""), id="a plain name"),
        pytest.param("a/b?c#d%e f", (), ToUrl("a/b?c#d%e f", b""), id="a name of any characters"),
        pytest.param("ü", (), ToUrl("ü", b""), id="other letters"),
        pytest.param("hook", ("a", "b"), ToUrl("hook", b"/a/b"), id="segments"),
        pytest.param("hook", ("/a/b/", "c d"), ToUrl("hook", b"/a/b/c%20d"), id="paths"),
        pytest.param("hook", ("a", "b/"), ToUrl("hook", b"/a/b/"), id="a slash at the end"),
        pytest.param("hook", ("a?b",), ToUrl("hook", b"/a%3Fb"), id="no query by mistake"),
    ],
)
def test_a_url_is_read_by_the_proxy_as_it_is_meant(
    name: str, more: tuple[str, ...], asked: ToUrl
) -> None:
    written = urlsplit(client.url(name, *more))

    assert (written.scheme, written.netloc) == ("http", internal.HOST)
    assert internal.route(written.path.encode()) == asked


@given(name=st.text(min_size=1, max_size=40))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_any_name_that_a_secret_can_have_arrives(name: str) -> None:
    assume(name.isprintable())

    assert internal.route(urlsplit(client.url(name)).path.encode()) == ToUrl(name, b"")


def test_a_url_needs_a_name() -> None:
    with pytest.raises(ValueError, match="at least one character"):
        client.url("")


def test_it_is_light() -> None:
    """It runs in other people's processes: the standard library, and nothing else of ours."""
    program = (
        "import sys; before = set(sys.modules); import coatcheck.client;"
        "new = {m.partition('.')[0] for m in set(sys.modules) - before};"
        "print(sorted(new - set(sys.stdlib_module_names)));"
        "print(sorted(m for m in sys.modules if m.startswith('coatcheck')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.split("\n")[:2] == ["['coatcheck']", "['coatcheck', 'coatcheck.client']"]


def test_what_it_holds_does_not_show() -> None:
    one = Client(f"http://runner:{TOKEN}@proxy:8080")

    assert TOKEN not in repr(one._proxy) + repr(one) + str(one._proxy)
