"""`mitmdump -s addons/coatcheck.py`: the same decisions inside somebody's own mitmproxy.

What it shares with `coatcheck serve` is checked here by one case of each kind; the tables are in
`test_table` and `test_refusals`. And it does not run at all beside an option that would undo it.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import coatcheck
from coatcheck.engine import script
from coatcheck.observe.auditchain import OWN_EVENTS
from coatcheck.store.home import Home
from tests.e2e import harness
from tests.e2e.harness import HOSTS, RUNNER, RUNNER_TOKEN, Shell
from tests.e2e.main_home import MAIN_POLICY, MAIN_SECRETS, SPECIAL
from tests.e2e.upstream import Upstream
from tests.e2e.wire import Dial, basic, request
from tests.e2e.world import World
from tests.long import only_in_long

ADDON = Path(coatcheck.__file__).parents[2] / "addons" / "coatcheck.py"
KEY = "{{secrets.crm.apiKey}}"
AUTHORIZATION = f"Authorization: Bearer {KEY}"
PLAIN = MAIN_SECRETS["plain.key"][0]

# A script of somebody else, loaded after ours: it notes the options as they are in the end.
PROBE = """
import json
from pathlib import Path
from mitmproxy import ctx

class Probe:
    def running(self):
        Path("options.json").write_text(json.dumps(dict(
            (name, option.current()) for name, option in ctx.options.items())))

addons = [Probe()]
"""


class Mitmdump:
    """A mitmdump in the world."""

    def __init__(self, world: World, folder: Path, home: Path, *more: str, **env: str) -> None:
        self.port = next(harness._ports)
        self.home = home
        self.log = folder / f"mitmdump-{self.port}.log"
        main = "from mitmproxy.tools.main import mitmdump; mitmdump()"
        command: list[str | Path] = [sys.executable, "-c", main, "-s", ADDON]
        command += ["--listen-host", "127.0.0.1", "--listen-port", str(self.port)]
        command += ["--set", f"coatcheck_home={home}", *more]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                world.enter(command, folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=harness.environ(HOME=str(folder), **env),
            )
        self.dial = Dial(world, self.port, Home(home).ca_certificate, RUNNER)

    def wait_ready(self) -> Mitmdump:
        harness.wait_until(self._answers, harness.READY_S)
        return self

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            with self.dial.plain() as wire:
                wire.send(b"GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n")
                return wire.read().code == "destination_mismatch"  # before: internal_error
        except OSError:
            return False

    def wait_end(self) -> tuple[int, str]:
        """(exit code, what it has printed)."""
        try:
            return self.process.wait(timeout=60), self.log.read_text()
        finally:
            self.stop()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def place(folder: Path) -> Path:
    made = folder / "mitmdump"
    made.mkdir()
    return made


@pytest.fixture(scope="module")
def home(place: Path) -> Path:
    return harness.make_home(place / "home", MAIN_SECRETS, MAIN_POLICY)


@pytest.fixture(scope="module")
def mitmdump(world: World, place: Path, home: Path, upstream_ca: Path) -> Iterator[Mitmdump]:
    (place / "probe.py").write_text(PROBE)
    made = Mitmdump(world, place, home, "-s", "probe.py", COATCHECK_UPSTREAM_CA=str(upstream_ca))
    try:
        yield made.wait_ready()
    finally:
        made.stop()


@pytest.fixture
def curl(shell: Shell, mitmdump: Mitmdump) -> Callable[..., tuple[int, bytes]]:
    """curl through it; (status, body) of the last answer."""

    def run(*arguments: str, stdin: bytes = b"", user: str = RUNNER_TOKEN) -> tuple[int, bytes]:
        proxy = f"http://runner:{user}@127.0.0.1:{mitmdump.port}"
        options = ["-sS", "-g", "-x", proxy, "--cacert", str(mitmdump.dial.ca), "-m", "20"]
        done = shell.run(["curl", *options, "-w", "\n%{http_code}", *arguments], stdin=stdin)
        body, _, status = done.stdout.rpartition(b"\n")
        return int(status), body

    return run


WRITTEN = b"p%40ss%20%22w%26rd%2F%25%2B%3D%3C%C3%BC%3E"  # in a URL
API, EVIL = "https://api.example.test/echo", "https://evil.example.test/echo"
TEXT = ["-H", "Content-Type: text/plain"]

INJECTED = [
    pytest.param(["-H", AUTHORIZATION], "", b"Authorization: Bearer " + SPECIAL, id="header"),
    pytest.param([], f"?key={KEY}", b"?key=" + WRITTEN, id="query"),
    pytest.param([], f"/{KEY}/x", b"/" + WRITTEN + b"/x", id="path"),
    pytest.param(
        ["-H", "Content-Type: application/json", "-d", f'{{"k": "{KEY}"}}'],
        "",
        b'{"k": "p@ss \\"w&rd/%+=<\xc3\xbc>"}',
        id="body",
    ),
    pytest.param(
        [*TEXT, "-H", "Transfer-Encoding: chunked", "-d", KEY], "", SPECIAL, id="body in chunks"
    ),
]


@pytest.mark.parametrize(("options", "target", "expected"), INJECTED)
def test_a_value_is_filled_in_and_its_echo_is_masked(
    options: list[str],
    target: str,
    expected: bytes,
    curl: Callable[..., tuple[int, bytes]],
    upstream: Upstream,
) -> None:
    status, body = curl(*options, API + target)

    got = upstream.one()
    assert status == 200
    assert expected in got.bytes
    assert got.sni == "api.example.test"
    assert b"Proxy-Authorization" not in got.head
    assert SPECIAL not in body
    assert expected not in body
    assert b"********" in body


def test_a_large_body_streams(curl: Callable[..., tuple[int, bytes]], upstream: Upstream) -> None:
    text = b"x" * (3 << 19) + KEY.encode() + b"y" * (3 << 19)

    status, body = curl(*TEXT, "--data-binary", "@-", API, stdin=text)

    got = upstream.one()
    assert status == 200
    assert got.body == text.replace(KEY.encode(), SPECIAL)
    assert SPECIAL not in body
    assert len(body) > 3 << 20


def test_plain_http_where_a_grant_lets_it(
    curl: Callable[..., tuple[int, bytes]], upstream: Upstream
) -> None:
    status, body = curl("-H", "X-Key: {{secrets.plain.key}}", "http://api.example.test/echo")

    assert status == 200
    assert upstream.one().all("x-key") == [PLAIN]
    assert PLAIN not in body


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_coded_echo_is_masked(
    coding: str, curl: Callable[..., tuple[int, bytes]], upstream: Upstream
) -> None:
    status, body = curl("-H", AUTHORIZATION, f"https://api.example.test/coded/{coding}")

    assert status == 200
    assert SPECIAL in upstream.one().head
    assert b"Bearer ********" in body, "readable, and masked"


@pytest.mark.parametrize(
    ("mode", "status"),
    [
        pytest.param("close-framed", 200, id="a body to the end of the connection"),
        pytest.param("status/404", 404, id="an error"),
        pytest.param("status/204", 204, id="no body"),
        pytest.param("partial", 502, id="a part"),
        pytest.param("malformed", 502, id="a folded field"),
        pytest.param("coded/bogus", 502, id="an unknown coding"),
        pytest.param("in-head", 502, id="an interim answer, which mitmproxy takes for the last"),
    ],
)
def test_no_channel_of_an_answer_brings_a_value_back(
    mode: str, status: int, mitmdump: Mitmdump, upstream: Upstream
) -> None:
    with mitmdump.dial.tunnel() as wire:
        answer = wire.ask(request("GET", f"/{mode}", AUTHORIZATION))
        closed = status != 502 or wire.is_closed()
        shown = bytes(wire.seen)

    assert SPECIAL in upstream.one().head
    assert answer.status == status
    assert b"p@ss" not in shown
    assert closed, "nothing that comes late answers another request"


REFUSED = [
    pytest.param(["-H", AUTHORIZATION, EVIL], "domain_not_allowed", id="another host"),
    pytest.param([*TEXT, "-d", KEY, EVIL], "domain_not_allowed", id="another host, in a body"),
    pytest.param(
        ["-H", AUTHORIZATION, "http://api.example.test/echo"], "plaintext_not_allowed", id="http"
    ),
    pytest.param(["-H", "X: {{secrets.no.such}}", API], "secret_unavailable", id="no such secret"),
    pytest.param(["-H", f"Cookie: a={KEY}", API], "location_not_allowed", id="another place"),
    pytest.param(["https://denied.example.test/"], "destination_not_allowed", id="egress"),
]


@pytest.mark.parametrize(("arguments", "code"), REFUSED)
def test_what_may_not_be_sent_is_refused(
    arguments: list[str],
    code: str,
    curl: Callable[..., tuple[int, bytes]],
    upstream: Upstream,
) -> None:
    status, body = curl(*arguments)

    assert (status, json.loads(body)["code"]) == (403, code)
    assert all(SPECIAL not in got.bytes for got in upstream.take())


def test_a_refusal_in_a_streamed_body_leaves_the_upstream_without_an_end(
    curl: Callable[..., tuple[int, bytes]], upstream: Upstream
) -> None:
    text = b"x" * (3 << 19) + b"{{secrets.no.such}}" + b"y" * (3 << 19)

    status, _ = curl(*TEXT, "--data-binary", "@-", API, stdin=text)

    assert status != 200
    assert all(b"no.such" not in got.bytes for got in upstream.take())


def test_an_unknown_client_is_refused(
    curl: Callable[..., tuple[int, bytes]], mitmdump: Mitmdump, upstream: Upstream
) -> None:
    status, body = curl("http://api.example.test/echo", user="wrong")
    assert (status, json.loads(body)["code"]) == (407, "proxy_auth_required")

    wrong = Dial(mitmdump.dial.world, mitmdump.port, mitmdump.dial.ca, basic("runner", "wrong"))
    with pytest.raises(ConnectionError, match="407"):
        wrong.open_tunnel()
    assert upstream.take() == []


@pytest.mark.parametrize(
    ("sni", "host", "status"),
    [
        pytest.param("", "api.example.test", 200, id="all agree"),
        pytest.param("evil.example.test", "api.example.test", 421, id="the server name differs"),
        pytest.param("", "evil.example.test", 421, id="Host differs"),
    ],
)
def test_names_that_differ_are_refused(
    sni: str, host: str, status: int, mitmdump: Mitmdump, upstream: Upstream
) -> None:
    with mitmdump.dial.tunnel(sni=sni) as wire:
        answer = wire.get("/echo", AUTHORIZATION, host=host)

    assert answer.status == status, answer.raw
    assert len(upstream.take()) == (status == 200)


@pytest.mark.parametrize("host", ["private", "metadata", "loopback"])
def test_an_address_that_may_not_be_reached_is_not_dialled(
    host: str, curl: Callable[..., tuple[int, bytes]], world: World
) -> None:
    """The listeners behind the first two are in `conftest.canaries`."""
    name = f"{host}.example.test"
    canary = world.listen(HOSTS[name], 9443) if host == "loopback" else None
    status, body = curl(f"https://{name}{':9443' if canary else ''}/")

    assert status >= 400
    assert HOSTS[name].encode() not in body
    if canary is not None:
        canary.setblocking(False)
        with canary, pytest.raises(BlockingIOError):
            canary.accept()


@pytest.mark.parametrize("host", ["expired", "self-signed", "wrong-name"])
def test_an_upstream_that_cannot_prove_its_name_gets_nothing(
    host: str, curl: Callable[..., tuple[int, bytes]], upstream: Upstream
) -> None:
    status, _ = curl("-H", "X: {{secrets.wild.key}}", f"https://{host}.example.test/echo")

    assert status == 502
    assert upstream.take() == []


def test_http_1_1_is_agreed_on(mitmdump: Mitmdump) -> None:
    outside = mitmdump.dial.world.connect("127.0.0.1", mitmdump.port)
    outside.sendall(mitmdump.dial.connect_request("api.example.test"))
    assert b" 200 " in outside.recv(4096)
    context = ssl.create_default_context(cafile=mitmdump.dial.ca)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with context.wrap_socket(outside, server_hostname="api.example.test") as inside:
        assert inside.selected_alpn_protocol() == "http/1.1"


def test_options_are_made_safe_without_being_named(mitmdump: Mitmdump, place: Path) -> None:
    options = json.loads((place / "options.json").read_text())

    assert {name: options[name] for name in script.WANTED} == script.WANTED
    assert options["confdir"] == str(Home(mitmdump.home).ca)


def test_neither_log_nor_audit_holds_a_value(
    upstream: Upstream, curl: Callable[..., tuple[int, bytes]], mitmdump: Mitmdump
) -> None:
    assert curl("-H", AUTHORIZATION, API)[0] == 200
    assert curl("-H", AUTHORIZATION, EVIL)[0] == 403

    log = mitmdump.log.read_bytes()
    audit = (mitmdump.home / "audit" / "audit-mitmdump.jsonl").read_bytes()
    for name, (value, _) in MAIN_SECRETS.items():
        if name == "nested.key":  # it is a placeholder, and those are not kept from anyone
            continue
        assert value not in log
        assert value not in audit
    assert b"Traceback" not in log
    records = [json.loads(line) for line in audit.splitlines()]
    decisions = [record["decision"] for record in records if record["event"] not in OWN_EVENTS]
    assert "allow" in decisions
    assert len(set(decisions)) > 1


# --- what it does not run with ---------------------------------------------------------------

UNSAFE: dict[str, list[str]] = {
    "ssl_insecure": ["--set", "ssl_insecure=true"],
    "ignore_hosts": ["--ignore-hosts", "api.example.test"],
    "stream_large_bodies": ["--set", "stream_large_bodies=1m"],
    "save_stream_file": ["-w", "flows"],
    "map_remote": ["--map-remote", "|//api.example.test|//evil.example.test"],
    "modify_body": ["--modify-body", "/a/b"],
}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *(
            pytest.param(name, f"option {name} has to be", marks=only_in_long if n else [])
            for n, name in enumerate(UNSAFE)
        ),
        ("no home", "nowhere"),
        ("SSLKEYLOGFILE", "unset SSLKEYLOGFILE"),
        ("config.yaml", "option ssl_insecure has to be"),
    ],
)
def test_it_does_not_run_beside_what_breaks_a_promise(
    name: str, reason: str, world: World, place: Path, home: Path, upstream_ca: Path
) -> None:
    variables = {"COATCHECK_UPSTREAM_CA": str(upstream_ca)}
    if name == "SSLKEYLOGFILE":
        variables[name] = str(place / "keys")
    where = place / "nowhere" if name == "no home" else home
    if name == "config.yaml":  # of the user who starts it; `serve` does not read it
        place = place / "another"
        (place / ".mitmproxy").mkdir(parents=True)
        (place / ".mitmproxy" / name).write_text("ssl_insecure: true\n")
    started = Mitmdump(world, place, where, *UNSAFE.get(name, ()), **variables)

    code, printed = started.wait_end()

    assert code == 1
    assert "coatcheck: " in printed
    assert reason in printed
    assert "Traceback" not in printed
    with pytest.raises(ConnectionRefusedError), started.dial.plain():
        pass
