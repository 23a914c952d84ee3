"""Real clients through `coatcheck run`, a placeholder in each place that they can send one in.

What a client makes of braces in a URL differs (docs/clients.md has the table); what the upstream
gets must not. A client library runs once, for all of its places; the tests then look at what the
upstream received and at what the client got back.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.e2e.harness import RUNNER_TOKEN, Proxy, Shell
from tests.e2e.main_home import SPECIAL, SPECIAL_TEXT
from tests.e2e.upstream import Received, Upstream

HERE = Path(__file__).parent / "clients"
BASE = "https://api.example.test/echo"
KEY = "{{secrets.crm.apiKey}}"
URLSAFE = "__secrets.crm.apiKey__"
ENCODED = "%7b%7Bsecrets.crm.apiKey%7D%7d"
MASK = "********"

IN_URL = quote(SPECIAL, safe="").encode()
IN_JSON = json.dumps(SPECIAL_TEXT, ensure_ascii=False)[1:-1].encode()
PLACES = ("header", "basic", "query", "path", "json", "form", "multipart")


@dataclass(frozen=True)
class Exchange:
    """One request of a client: what the upstream got, what the client got."""

    received: Received
    status: int
    body: str


type Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="module")
def run(shell: Shell, proxy: Proxy) -> Run:
    """`coatcheck run -- COMMAND` as the client that has a token."""

    def run(
        command: Sequence[str | Path], token: str = RUNNER_TOKEN, **variables: str
    ) -> subprocess.CompletedProcess[bytes]:
        options = ["run", "--home", proxy.home, "--proxy", proxy.address, "--"]
        if token:
            variables["COATCHECK_CLIENT_TOKEN"] = token
        return shell.coatcheck(*options, *command, **variables)

    return run


def check(place: str, exchange: Exchange) -> None:
    """The value arrived in the escaping of its place, and came back masked."""
    got = exchange.received
    assert exchange.status == 200
    assert got.host == "api.example.test"
    assert b"secrets.crm" not in got.bytes
    assert got.all("proxy-authorization") == got.all("proxy-connection") == []
    if place == "header":
        assert got.all("authorization") == [b"Bearer " + SPECIAL]
    elif place == "own-header":
        assert got.all("x-api-key") == [SPECIAL]
    elif place == "basic":
        assert got.all("authorization") == [b"Basic " + b64encode(b"user:" + SPECIAL)]
    elif place == "query":
        assert got.target in (b"/echo/query?b=1+2&key=" + IN_URL, b"/echo/query?key=" + IN_URL)
    elif place == "path":
        assert got.target == b"/echo/path/" + IN_URL + b"/x"
    elif place == "json":
        assert got.body in [b'{"key":%b"%b"}' % (space, IN_JSON) for space in (b"", b" ")]
    elif place == "form":
        assert got.body in (b"b=%C3%BC&key=" + IN_URL, b"key=" + IN_URL)
    else:
        boundary = got.all("content-type")[0].partition(b"boundary=")[2].strip(b'"')
        before, value, after = got.body.partition(b"\r\n\r\n" + SPECIAL + b"\r\n")
        assert before.startswith(b"--" + boundary + b"\r\n")
        assert value
        assert after.rstrip() == b"--" + boundary + b"--"
    if got.body:
        assert got.all("content-length") == [b"%d" % len(got.body)] or got.raw_body != got.body
    assert MASK in exchange.body
    for spelling in (SPECIAL_TEXT, IN_URL.decode(), IN_JSON.decode(), b64encode(SPECIAL).decode()):
        assert spelling not in exchange.body


# --- client libraries, each in one process -------------------------------------------------------


def python_library(name: str) -> Callable[[], tuple[list[str], dict[str, str]]]:
    return lambda: ([sys.executable, str(HERE / "python_client.py"), name], {})


def node() -> tuple[list[str], dict[str, str]]:
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not installed")
    return [program, str(HERE / "client.mjs")], {"NODE_E2E_MODULES": str(node_modules())}


def node_modules() -> Path:
    """A folder with what package.json asks for; kept between runs."""
    npm = shutil.which("npm")
    wanted = (Path(__file__).parent / "package.json").read_bytes()
    kept = Path.home() / ".cache" / "coatcheck-tests" / hashlib.sha256(wanted).hexdigest()[:16]
    if not (kept / "done").exists():
        if npm is None:
            pytest.skip("npm is not installed, and undici is not there yet")
        kept.mkdir(parents=True, exist_ok=True)
        (kept / "package.json").write_bytes(wanted)
        command = [npm, "install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts"]
        done = subprocess.run(command, cwd=kept, capture_output=True, check=False, timeout=90)
        if done.returncode:
            pytest.skip(f"npm cannot install undici: {done.stderr.decode()[-200:]}")
        (kept / "done").touch()
    return kept


def java() -> tuple[list[str], dict[str, str]]:
    program = shutil.which("java")
    if program is None or shutil.which("javac") is None:
        pytest.skip("no JDK is installed")
    fast = ["-XX:TieredStopAtLevel=1", "-Xshare:auto"]  # it runs for two seconds
    return [program, *fast, str(HERE / "Client.java")], {}


LIBRARIES = {
    "requests": python_library("requests"),
    "httpx": python_library("httpx"),
    "aiohttp": python_library("aiohttp"),
    "urllib": python_library("urllib"),
    "node-undici": node,
    "java-httpclient": java,
}
NO_MULTIPART = ("urllib", "java-httpclient")  # they have no such thing
CELLS = [(name, place) for name in LIBRARIES for place in PLACES]
CELLS = [cell for cell in CELLS if cell[1] != "multipart" or cell[0] not in NO_MULTIPART]
CELLS.append(("java-httpclient", "own-header"))


@pytest.fixture(scope="module")
def library(run: Run, every_upstream: Upstream) -> Callable[[str], dict[str, Exchange]]:
    """The exchanges of a client library, by place."""
    kept: dict[str, dict[str, Exchange]] = {}

    def use(name: str) -> dict[str, Exchange]:
        if name not in kept:
            command, variables = LIBRARIES[name]()
            every_upstream.take()
            done = run([*command, BASE, KEY], **variables)
            assert done.returncode == 0, done.stderr.decode()
            results = json.loads(done.stdout)
            received = {
                item.target.split(b"/")[2].partition(b"?")[0].decode(): item
                for item in every_upstream.take()
            }
            kept[name] = {
                place: Exchange(received[place], *result) for place, result in results.items()
            }
        return kept[name]

    return use


@pytest.mark.parametrize(("name", "place"), CELLS)
def test_library(name: str, place: str, library: Callable[[str], dict[str, Exchange]]) -> None:
    check(place, library(name)[place])


# --- programs ------------------------------------------------------------------------------------

CURL = {
    "header": ["-H", f"Authorization: Bearer {KEY}", f"{BASE}/header"],
    "basic": ["-u", f"user:{KEY}", f"{BASE}/basic"],
    "query": ["-G", "--data-urlencode", f"key={KEY}", f"{BASE}/query"],  # %7b
    "path": ["-g", f"{BASE}/path/{KEY}/x"],  # as it is
    "json": ["--json", '{"key":"%s"}' % KEY, f"{BASE}/json"],  # noqa: UP031
    "form": ["--data-urlencode", f"key={KEY}", f"{BASE}/form"],
    "multipart": ["-F", f"key={KEY}", f"{BASE}/multipart"],
}
JSON_HEADER = "Content-Type: application/json"
WGET = {
    "header": ["--header", f"Authorization: Bearer {KEY}", f"{BASE}/header"],
    "basic": ["--auth-no-challenge", "--user=user", f"--password={KEY}", f"{BASE}/basic"],
    "query": [f"{BASE}/query?key={KEY}"],  # %7B
    "path": [f"{BASE}/path/{KEY}/x"],
    "json": ["--header", JSON_HEADER, '--post-data={"key":"%s"}' % KEY, f"{BASE}/json"],  # noqa: UP031
    "form": [f"--post-data=key={ENCODED}", f"{BASE}/form"],
}
PROGRAMS = {
    "curl": (["curl", "-sS", "-w", "\n%{http_code}"], CURL),
    "wget": (["wget", "-qO-"], WGET),
}


def use_program(
    name: str, options: Sequence[str], run: Run, upstream: Upstream, token: str = RUNNER_TOKEN
) -> Exchange:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    done = run([*PROGRAMS[name][0], *options], token)
    assert done.returncode == 0, done.stderr.decode()
    said = done.stdout.decode()
    body, _, status = said.rpartition("\n") if name == "curl" else (said, "", "200")
    return Exchange(upstream.one(), int(status), body)


@pytest.mark.parametrize(
    ("name", "place"), [(name, place) for name, (_, cases) in PROGRAMS.items() for place in cases]
)
def test_program(name: str, place: str, run: Run, upstream: Upstream) -> None:
    check(place, use_program(name, PROGRAMS[name][1][place], run, upstream))


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_without_a_token(name: str, run: Run, upstream: Upstream) -> None:
    """Known by its network, as on a laptop; and the form that every client leaves alone."""
    target = f"{BASE}/path/{URLSAFE}/x"
    check("path", use_program(name, [target], run, upstream, token=""))


def test_curl_is_told_why(run: Run, upstream: Upstream) -> None:
    """The refusal is the answer inside the tunnel, so a client shows it."""
    command = ["curl", "-sS", "-H", f"Authorization: {KEY}", "https://evil.example.test/echo"]
    done = run(command)

    assert done.returncode == 0
    problem = json.loads(done.stdout)
    assert (problem["code"], problem["secret"]) == ("domain_not_allowed", "crm.apiKey")
    assert upstream.take() == []


def test_curl_follows_a_redirect_only_so_far(run: Run, upstream: Upstream) -> None:
    """The client follows, and may take its placeholder along; the value stays behind."""
    command = ["curl", "-sSL", "--location-trusted", "-u", f"user:{KEY}"]
    done = run([*command, "https://api.example.test/redirect"])

    assert json.loads(done.stdout)["code"] == "domain_not_allowed"
    assert [item.host for item in upstream.take()] == ["api.example.test"]


def test_curl_with_a_wrong_token(shell: Shell, proxy: Proxy, upstream: Upstream) -> None:
    command = ["curl", "-sS", "--cacert", proxy.home / "ca" / "mitmproxy-ca-cert.pem"]
    command += ["-x", f"http://runner:wrong@{proxy.address}", f"{BASE}/x"]
    done = shell.run(command)

    assert done.returncode == 56
    assert b"407" in done.stderr
    assert upstream.take() == []


def test_curl_with_a_netrc(run: Run, folder: Path, upstream: Upstream) -> None:
    """A file of the client's machine then holds nothing of value."""
    netrc = folder / "netrc"
    netrc.write_text(f"machine api.example.test login user password {URLSAFE}\n")
    done = run(["curl", "-sS", "--netrc-file", netrc, f"{BASE}/basic"])

    check("basic", Exchange(upstream.one(), 200, done.stdout.decode()))


# --- git -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repository(folder: Path, every_upstream: Upstream) -> str:
    """The name of a repository that git-http-backend serves for the secret as the password."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    source, served = folder / "source", folder / "served"
    served.mkdir()

    def git(*arguments: str | Path) -> None:
        author = ["-c", "user.name=t", "-c", "user.email=t@example.test"]
        subprocess.run(["git", *author, *arguments], check=True, capture_output=True)

    git("init", "-q", "-b", "main", source)
    for number in range(20):
        (source / f"file{number}").write_bytes(hashlib.sha512(b"%d" % number).digest() * 400)
    git("-C", source, "add", ".")
    git("-C", source, "commit", "-qm", "first")
    git("clone", "-q", "--bare", source, served / "project.git")
    every_upstream.repositories = served
    every_upstream.git_password = SPECIAL
    return "api.example.test/git/project.git"


HELPER = f"credential.helper=!f() {{ echo username=user; echo 'password={KEY}'; }}; f"
GIT = {
    "userinfo": ([], f"user:{URLSAFE}@"),
    "userinfo, percent-encoded": ([], f"user:{ENCODED}@"),
    "credential helper": (["-c", HELPER], ""),
    "extra header": (
        [
            "-c",
            f"http.extraHeader=Authorization: Basic {b64encode(f'user:{KEY}'.encode()).decode()}",
        ],
        "",
    ),
}


@pytest.mark.parametrize(("options", "userinfo"), GIT.values(), ids=GIT.keys())
def test_git_clone(
    options: list[str],
    userinfo: str,
    repository: str,
    run: Run,
    tmp_path: Path,
    upstream: Upstream,
) -> None:
    into = tmp_path / "clone"
    url = f"https://{userinfo}{repository}"
    done = run(["git", *options, "clone", "-q", url, into], GIT_TERMINAL_PROMPT="0")

    assert done.returncode == 0, done.stderr.decode()
    assert (into / "file7").read_bytes() == hashlib.sha512(b"7").digest() * 400
    received = upstream.take()
    credentials = [b"".join(item.all("authorization")) for item in received]
    if not any("extraHeader" in option for option in options):
        assert credentials.pop(0) == b""  # git asks for the challenge first
    assert len(credentials) >= 2
    for credential in credentials:
        assert b64decode(credential.removeprefix(b"Basic ")) == b"user:" + SPECIAL
    stored = (into / ".git" / "config").read_bytes()
    assert SPECIAL not in stored


def test_git_with_a_wrong_password(
    repository: str, run: Run, tmp_path: Path, upstream: Upstream
) -> None:
    """The challenge comes back a second time, and git gives up."""
    url = f"https://user:nothing@{repository}"
    done = run(["git", "clone", "-q", url, tmp_path / "clone"], GIT_TERMINAL_PROMPT="0")

    assert done.returncode == 128
    assert b"Authentication failed" in done.stderr


def test_git_clones_the_same_as_directly(
    repository: str, run: Run, shell: Shell, upstream_ca: Path, tmp_path: Path
) -> None:
    """Objects, references and files, packed by a server and read through the scrubber."""
    into = {"directly": tmp_path / "directly", "through": tmp_path / "through"}
    password = quote(SPECIAL, safe="")
    url = f"https://user:{password}@{repository}"
    command = ["git", "clone", "-q"]
    ca = str(upstream_ca)
    shell.run([*command, url, into["directly"]], GIT_SSL_CAINFO=ca, GIT_TERMINAL_PROMPT="0")
    run([*command, f"https://user:{URLSAFE}@{repository}", into["through"]])

    def look(*arguments: str) -> list[bytes]:
        return [
            subprocess.run(
                ["git", "-C", folder, *arguments], check=True, capture_output=True
            ).stdout
            for folder in into.values()
        ]

    for arguments in (
        ["rev-parse", "HEAD"],
        ["for-each-ref"],
        ["rev-list", "--all", "--objects"],
        ["status", "--porcelain"],
        ["fsck", "--full"],
    ):
        directly, through = look(*arguments)
        assert through == directly
    assert b"file7" in look("ls-files")[1]
