"""G2: no byte that coatcheck writes of its own holds a secret, in any spelling, in any part.

Marker secrets go through all of it by the commands that a user has: set, injected everywhere,
refused, reflected, rotated, deleted; upstreams break in every way that we know. Then everything
is searched: stdout and stderr of every command, the log, the audit log, every file of the home
while the proxy runs and after it has ended, and every byte that a client received.
"""

from __future__ import annotations

import json
import random
import secrets
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.harness import CLIENTS, RUNNER, RUNNER_TOKEN, Proxy, Shell
from tests.e2e.leaks import SPELLINGS, Detector, Leak
from tests.e2e.upstream import Upstream
from tests.e2e.wire import Dial, basic, request
from tests.e2e.world import World

pytestmark = pytest.mark.timeout(300)  # the scene is thirty commands, in one fixture

API = "api.example.test"
TOKEN = b"tok-" + secrets.token_urlsafe(36).encode()
ODD = b'odd "&<%+/= ' + secrets.token_urlsafe(24).encode() + b" \\' end-of-it"
LINES = b"-----BEGIN KEY-----\n%b\n%b\n-----END KEY-----\n" % (
    secrets.token_urlsafe(40).encode(),
    secrets.token_urlsafe(40).encode(),
)
ROTATED = b"new-" + secrets.token_urlsafe(36).encode()
KNOWN = b"known-" + secrets.token_urlsafe(36).encode()
MARKERS = (TOKEN, ODD, LINES.split(b"\n")[1], LINES.split(b"\n")[2], ROTATED)

SETTINGS = "limits: { response_timeout_s: 0.5, tls_handshake_timeout_s: 0.5 }\n"
POLICY = (
    CLIENTS
    + """
grants:
  - secrets: [mark.token, mark.odd, mark.lines, mark.known]
    clients: [runner, local]
    max_uses: 50
"""
)
KEYS = ("{{secrets.mark.token}}", "{{secrets.mark.odd}}")


# --- the detector --------------------------------------------------------------------------------


def noise(size: int) -> bytes:
    return random.Random(1).randbytes(size)


PLANTS = {name: write for name, write in SPELLINGS.items() if name != "percent, lower"}


@pytest.mark.parametrize("part", [slice(None), slice(5, 21), slice(-9, None)], ids=str)
@pytest.mark.parametrize("name", PLANTS)
def test_the_detector_finds_what_is_planted(name: str, part: slice) -> None:
    planted = noise(5000) + PLANTS[name](TOKEN[part]) + noise(5000)
    assert Detector(TOKEN).find("here", planted)


@pytest.mark.parametrize("shift", range(3))
@pytest.mark.parametrize("part", [slice(None), slice(5, 21)], ids=str)
def test_the_detector_finds_base64(part: slice, shift: int) -> None:
    planted = b"user=" + b64encode(b"x" * shift + TOKEN[part] + b"yz") + b"\n"
    assert Detector(TOKEN).find("here", planted)


def test_the_detector_finds_nothing_where_nothing_is() -> None:
    other = b"tok-" + secrets.token_urlsafe(36).encode()
    # Apart: side by side the two may happen to go on as the token does.
    parts = TOKEN[:7] + b"|" + TOKEN[-7:]
    assert Detector(*MARKERS).find("here", noise(500_000) + other + b"|" + parts) == []


# --- the scene -----------------------------------------------------------------------------------


@dataclass
class Scene:
    """All that was written, by where it stands."""

    files: dict[str, bytes] = field(default_factory=dict)
    seen: list[bytes] = field(default_factory=list)
    commands: list[tuple[str, bytes]] = field(default_factory=list)
    received: bytes = b""
    audit: list[dict[str, object]] = field(default_factory=list)

    def keep_files(self, when: str, folder: Path) -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                self.files[f"{when}: {path.relative_to(folder)}"] = path.read_bytes()


@pytest.fixture(scope="module")
def scene(
    world: World,
    shell: Shell,
    every_upstream: Upstream,
    upstream_ca: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Scene:
    root = tmp_path_factory.mktemp("sentinel")
    inputs = tmp_path_factory.mktemp("inputs")  # where the user has the values
    made, home = Scene(), root / "home"

    def command(
        *arguments: str, stdin: bytes = b"", code: int | None = 0, **variables: str
    ) -> bytes:
        done = shell.coatcheck(*arguments, stdin=stdin, COATCHECK_HOME=str(home), **variables)
        made.commands.append((" ".join(arguments), done.stdout + done.stderr))
        assert code in (None, done.returncode), (arguments, done.stdout, done.stderr)
        return done.stdout

    set_up(command, inputs, home)
    every_upstream.take()
    proxy = Proxy(world, home, upstream_ca, "--policy", str(home / "policy.yaml"))
    try:
        proxy.wait_ready()
        dial = proxy.dial(RUNNER)
        made.seen += injected(dial) + refused(dial) + broken(dial) + plain(dial)
        known(dial)
        through_programs(shell, proxy, made)
        while_running(command, proxy, dial, made)
        made.keep_files("running", root)
    finally:
        assert proxy.stop() == 0
    made.commands.append(("serve", proxy.log.read_bytes()))
    command("secret", "delete", "mark.token", "--force")
    made.keep_files("ended", root)
    made.received = b"".join(item.bytes for item in every_upstream.take())
    made.audit = proxy.audit()
    return made


def set_up(run: Callable[..., bytes], inputs: Path, home: Path) -> None:
    run("init")
    (home / "policy.yaml").write_text(POLICY)
    (home / "coatcheck.yaml").write_text(SETTINGS)
    (inputs / "lines.pem").write_bytes(LINES)
    domain = ["--domain", API, "--domain", "other.example.test", "--domain", f"{API}:80"]
    run("secret", "set", "mark.token", *domain, stdin=TOKEN)
    run("secret", "set", "mark.known", *domain, stdin=KNOWN)
    run("secret", "set", "mark.odd", *domain, "--from-env", "MARK_ODD", MARK_ODD=ODD.decode())
    run("secret", "set", "mark.lines", *domain, "--from-file", str(inputs / "lines.pem"))
    # What people get wrong: the value as an argument, a name that is taken, a bad domain.
    run("secret", "set", "mark.wrong", TOKEN.decode(), code=1)
    run("secret", "set", "mark.wrong", "--domain", "*.com", stdin=TOKEN, code=1)
    run("secret", "set", "no/such name\n", "--domain", "", stdin=TOKEN, code=1)
    run("secret", "edit", "mark.odd", "--description", "a marker")
    for words in (["list"], ["show", "mark.token"], ["history", "mark.token"]):
        run("secret", *words)
        run("secret", *words, "--format", "json")


def injected(dial: Dial) -> list[bytes]:
    """Every place, every way back."""
    seen = []
    json_type, form = "Content-Type: application/json", "application/x-www-form-urlencoded"
    disposition = "Content-Disposition: form-data; name=a"
    part = f"--bound\r\n{disposition}\r\n\r\n{{{{secrets.mark.lines}}}}\r\n--bound--"
    with dial.tunnel() as wire:
        for key in KEYS:
            for mode in ("echo", "in-head", "chunked", "status/500", "status/204"):
                assert wire.get(f"/{mode}", f"Authorization: Bearer {key}").status
            for coding in ("gzip", "br", "zstd", "deflate"):
                assert wire.get(f"/coded/{coding}", f"X-Key: {key}").status == 200
            wire.get("/echo", "Authorization: " + basic("user", key))
            wire.get(f"/echo?key={key}&a=1")
            wire.get(f"/echo/{key}/x")
            wire.ask(request("POST", "/echo", json_type, body=json.dumps([key]).encode()))
            wire.ask(request("POST", "/echo", f"Content-Type: {form}", body=f"k={key}".encode()))
            wire.ask(request("POST", "/echo", "Content-Type: text/xml", body=f"<a>{key}".encode()))
        kind = "Content-Type: multipart/form-data; boundary=bound"
        assert wire.ask(request("POST", "/echo", kind, body=part.encode())).status == 200
        text = b"{{secrets.mark.lines}}{{secrets.mark.token}}"
        assert wire.ask(request("POST", "/echo", "Content-Type: text/plain", body=text)).status
        seen.append(bytes(wire.seen))
    return seen


def refused(dial: Dial) -> list[bytes]:
    """A value is near, and must not get into what is said."""
    seen = []
    requests = [
        request("GET", "/echo", "X-Key: {{secrets.mark.lines}}"),  # line ends in a header
        request("GET", "/echo", f"Cookie: a={KEYS[0]}"),
        request("GET", "/echo", f"X-Key: {KEYS[0]} {{{{secrets.mark.none}}}}"),
        request("GET", "/echo", f"X-Key: {KEYS[0]} {{{{secrets.mark.odd"),
        request("GET", "/echo", f"X-Key: {KEYS[0] * 51}"),
        request("GET", "/echo", f"X-Key: {KEYS[0]}", host="evil.example.test"),
        request("POST", "/echo", f"X-Key: {KEYS[0]}", "Content-Type: multipart/mixed", body=b"x"),
        request("POST", "/echo", f"X: {KEYS[0]}", "Content-Encoding: bogus", body=b"x"),
        request("GET", "/echo", f"X-Key: {KEYS[0]}\nX: 1"),
        request("POST", "/echo", f"X: {KEYS[0]}", "Transfer-Encoding: chunked") + b"zz\r\n\r\n",
    ]
    for data in requests:
        with dial.tunnel() as wire:
            assert wire.ask(data).code, data
            seen.append(bytes(wire.seen))
    for host in ("evil.example.test", "expired.example.test", "refused.example.test"):
        with dial.tunnel(host) as wire:
            assert wire.get("/echo", f"Authorization: {KEYS[0]}", host=host).code
            seen.append(bytes(wire.seen))
    return seen


def broken(dial: Dial) -> list[bytes]:
    """Upstreams that break off, hang, lie, or break HTTP, with the value in hand."""
    seen = []
    modes = ["coded/bogus", "coded/broken", "partial", "switch", "malformed", "hang-up", "half"]
    for mode in [*modes, "silent", "close-framed", "early", "redirect", "needs-basic"]:
        with dial.tunnel() as wire:
            for key in KEYS:
                try:
                    wire.get(f"/{mode}", f"Authorization: Bearer {key}")
                except OSError:
                    break
            seen.append(bytes(wire.seen))
    with dial.tunnel() as wire:  # a client that leaves in the middle
        wire.send(request("GET", "/gated/leaving", f"Authorization: Bearer {KEYS[0]}"))
    with dial.tunnel() as wire:
        wire.send(request("POST", "/echo", f"X: {KEYS[0]}", "Content-Length: 100") + b"half")
    return seen


def plain(dial: Dial) -> list[bytes]:
    with dial.plain() as wire:
        target = f"http://{API}/echo?k={KEYS[0]}"
        assert wire.ask(request("GET", target, f"Proxy-Authorization: {RUNNER}")).code
        return [bytes(wire.seen)]


def known(dial: Dial) -> None:
    """A client that has got hold of a value sends it itself."""
    value = KNOWN.decode()
    requests = [
        request("GET", f"/echo/{value}"),
        request("GET", f"/echo?key={value}", "X-Key: {{secrets.mark.known}}"),
        request("GET", f"/{value}", "X-Key: {{secrets.mark.none}}"),
        request("GET", "/echo", host=f"{value}.example.test"),
        request("GET", "/echo", f"X-Key: {{{{secrets.{value}}}}}"),
    ]
    for data in requests:
        with dial.tunnel() as wire:
            wire.ask(data)


def through_programs(shell: Shell, proxy: Proxy, made: Scene) -> None:
    options = ["run", "--home", proxy.home, "--proxy", proxy.address, "--"]
    curl = ["curl", "-sS", "-v", "-u", f"user:{KEYS[0]}", f"https://{API}/in-head"]
    wget = ["wget", "-d", "-O-", "--header", f"Authorization: {KEYS[0]}", f"https://{API}/echo"]
    for words in (curl, wget):
        done = shell.coatcheck(*options, *words, COATCHECK_CLIENT_TOKEN=RUNNER_TOKEN)
        assert done.returncode == 0, done.stderr
        made.commands.append((words[0], done.stdout + done.stderr))


def while_running(run: Callable[..., bytes], proxy: Proxy, dial: Dial, made: Scene) -> None:
    """What an operator does meanwhile."""
    run("status")
    run("status", "--format", "json")
    for shell_name in ("sh", "json", "docker"):
        run("env", "--proxy", proxy.address, "--shell", shell_name)
    run("ca", "export")
    run("policy", "check", str(proxy.policy))
    explain = ["policy", "explain", "--client", "runner"]
    run(*explain, "GET", f"https://{API}/echo", "-H", f"X-Key: {KEYS[0]}")
    run(*explain, "GET", "https://evil.example.test/", "-H", f"X-Key: {KEYS[1]}", code=None)
    run("doctor", code=None)
    policy = proxy.policy
    policy.write_text(POLICY + "nonsense: true\n")
    proxy.reload()
    with dial.tunnel() as wire:
        for _ in range(3):
            wire.get("/echo", f"Authorization: {KEYS[0]}")
            time.sleep(0.2)
        run("status", code=1)
        policy.write_text(POLICY)
        run("secret", "set", "mark.token", stdin=ROTATED)
        run("secret", "history", "mark.token")
        for _ in range(4):  # the old and the new value, both on their way back
            wire.get("/echo", f"Authorization: {KEYS[0]}", b"X-Old: " + TOKEN)
            time.sleep(0.3)
        made.seen.append(bytes(wire.seen))


# --- and nothing of it anywhere ------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(*MARKERS)


def test_the_values_were_really_sent(scene: Scene, detector: Detector) -> None:
    """Or all that follows would be worth nothing."""
    for marker in (TOKEN, ODD, LINES.strip(), ROTATED):
        assert marker in scene.received
    assert scene.received.count(TOKEN) > 20
    assert detector.find("the upstream", scene.received)
    codes = {record.get("code") for record in scene.audit}
    assert len(codes) >= 12, codes


def test_no_command_shows_it(scene: Scene, detector: Detector) -> None:
    assert leaks(detector, scene.commands) == []
    assert len(scene.commands) > 20


def test_no_file_holds_it(scene: Scene, detector: Detector) -> None:
    """The store and its write-ahead log, the audit log, the state file, everything."""
    names = {name.rpartition("/")[2].removeprefix("running: ") for name in scene.files}
    assert {"store.db", "audit.jsonl", "state.json"} <= names, names
    assert any(name.endswith("store.db-wal") for name in scene.files), names
    assert leaks(detector, list(scene.files.items())) == []


def test_no_client_received_it(scene: Scene, detector: Detector) -> None:
    found = leaks(detector, [(f"connection {n}", data) for n, data in enumerate(scene.seen)])
    assert found == []


def test_a_value_that_the_client_sends_itself_is_not_recorded(scene: Scene) -> None:
    """A program that was moved behind coatcheck may still have its real token in a URL."""
    ours = [(name, data) for name, data in scene.commands if name == "serve"]
    assert leaks(Detector(KNOWN), [*scene.files.items(), *ours]) == []


def test_the_log_is_json_lines(scene: Scene) -> None:
    log = dict(scene.commands)["serve"]
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert {"serve.ready", "request.refused", "policy.refused", "serve.stopped"} <= set(events)
    assert not {"engine.crash", "lane.internal_error", "foreign.log"} & set(events)


def leaks(detector: Detector, sources: list[tuple[str, bytes]]) -> list[Leak]:
    return [leak for label, data in sources for leak in detector.find(label, data)[:3]]
