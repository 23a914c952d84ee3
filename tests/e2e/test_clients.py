"""Real clients through `coatcheck run`, a placeholder in each place that they can send one in.

What a client makes of braces in a URL differs (docs/clients.md has the table); what the upstream
gets must not. A client runs once, for all of its places; the tests then look at what the upstream
received and at what the client got back. The clients are those of `clients.table`; what they go
through is one proxy, or two behind a load balancer.

`make test` has the clients that are there, `make clients` installs the others first; the second
also writes down what it saw (`clients.seen`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.e2e.clients import registries
from tests.e2e.clients.exchange import ENCODED, KEY, URLSAFE, Exchange, check
from tests.e2e.clients.seen import Record
from tests.e2e.clients.table import CLIENTS, Client, Seen, send
from tests.e2e.clients.toolbox import Missing, Toolbox
from tests.e2e.harness import Proxy, Shell
from tests.e2e.main_home import SPECIAL
from tests.e2e.upstream import Upstream
from tests.e2e.ways import Way

ORIGIN = "https://api.example.test"
AS_TEXT = "https://text.example.test"
BASE = f"{ORIGIN}/echo"
TOOLS = Toolbox.here()
ALSO_BALANCED = ("curl", "requests")  # by `make test`; `make clients` has all
CELLS = [
    pytest.param(way, client, place, id=f"{way}-{client.name}-{place}")
    for way in ("straight", "balanced")
    for client in CLIENTS
    for place in client.places
    if way == "straight" or TOOLS.folder
]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module", autouse=True)
def modes(every_upstream: Upstream, repository: str) -> None:
    """The upstream is a registry, too, and a server of git."""
    every_upstream.modes |= registries.MODES


@pytest.fixture(scope="module")
def record() -> Iterator[Record]:
    """What was seen; kept for docs/clients.md where all clients were asked for."""
    made = Record()
    yield made
    if TOOLS.folder:
        made.write(TOOLS.folder / "seen.json")


type Asked = Callable[[Way, Client], Seen]


@pytest.fixture(scope="module")
def ask(record: Record) -> Asked:
    """A client's exchanges. It is asked once on each way."""
    kept: dict[tuple[Way, str], Seen | Exception] = {}

    def ask(way: Way, client: Client) -> Seen:
        if (way, client.name) not in kept:
            try:
                kept[way, client.name] = client.use(TOOLS, way, ORIGIN)
            except Exception as error:
                kept[way, client.name] = error
        seen = kept[way, client.name]
        if isinstance(seen, Missing):
            record.missing(client, str(seen))
            pytest.skip(str(seen))
        if isinstance(seen, BaseException):
            raise seen
        return seen

    return ask


@pytest.mark.parametrize(("way", "client", "place"), CELLS, indirect=["way"])
def test_a_value_arrives_in_its_place(
    way: Way, client: Client, place: str, ask: Asked, record: Record
) -> None:
    seen = ask(way, client)

    assert set(seen.exchanges) == set(client.places)
    check(place, seen.exchanges[place])
    record.arrived(way.name, client, seen, place)


@pytest.mark.skipif(TOOLS.folder is not None, reason="make clients has a test for each")
def test_values_arrive_through_the_load_balancer(balanced: Way, ask: Asked) -> None:
    """In one test: to set it up takes its time, and workers of pytest would do it twice."""
    for client in CLIENTS:
        if client.name in ALSO_BALANCED:
            seen = ask(balanced, client)
            assert set(seen.exchanges) == set(client.places)
            for place, exchange in seen.exchanges.items():
                check(place, exchange)


@pytest.mark.skipif(TOOLS.folder is None, reason="make clients looks at this")
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_what_a_client_makes_of_a_placeholder(
    client: Client, straight: Way, record: Record
) -> None:
    """As a host sees it where placeholders stay text."""
    try:
        seen = client.use(TOOLS, straight, AS_TEXT)
    except Missing as missing:
        pytest.skip(str(missing))

    for place, exchange in seen.exchanges.items():
        assert exchange.received.host == "text.example.test"
        record.written(client, place, exchange.received)


# --- gRPC, which needs HTTP/2 --------------------------------------------------------------------

GRPC = Path(__file__).parent / "clients" / "grpc_client.py"


@pytest.mark.parametrize(
    ("kind", "port", "told"),
    [("tls", 443, "missing selected ALPN property"), ("plain", 80, "Socket closed")],
    ids=["HTTP/2 is not agreed on", "HTTP/2 unasked"],
)
def test_grpc_does_not_get_through_and_says_so(
    kind: str, port: int, told: str, straight: Way, upstream: Upstream
) -> None:
    try:
        command = [TOOLS.python("grpc"), GRPC, f"api.example.test:{port}", KEY, kind]
    except Missing as missing:
        pytest.skip(str(missing))

    done = straight.run(command)

    assert done.returncode == 0, done.stderr.decode()
    code, text = json.loads(done.stdout)["said"]
    assert code == "UNAVAILABLE"
    assert told in text
    assert upstream.take() == []


# --- curl and wget, more closely -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["curl", "wget"])
def test_a_program_without_a_token(name: str, straight: Way) -> None:
    """Known by its network, as on a laptop; and the form that every client leaves alone."""
    target = f"{BASE}/path/{URLSAFE}/x"
    try:
        check("path", send(name, [target], TOOLS, straight, token=""))
    except Missing as missing:
        pytest.skip(str(missing))


def test_curl_is_told_why(straight: Way, upstream: Upstream) -> None:
    """The refusal is the answer inside the tunnel, so a client shows it."""
    command = ["curl", "-sS", "-H", f"Authorization: {KEY}", "https://evil.example.test/echo"]
    done = straight.run(command)

    assert done.returncode == 0
    problem = json.loads(done.stdout)
    assert (problem["code"], problem["secret"]) == ("domain_not_allowed", "crm.apiKey")
    assert upstream.take() == []


def test_curl_follows_a_redirect_only_so_far(straight: Way, upstream: Upstream) -> None:
    """The client follows, and may take its placeholder along; the value stays behind."""
    command = ["curl", "-sSL", "--location-trusted", "-u", f"user:{KEY}"]
    done = straight.run([*command, "https://api.example.test/redirect"])

    assert json.loads(done.stdout)["code"] == "domain_not_allowed"
    assert [item.host for item in upstream.take()] == ["api.example.test"]


def test_curl_with_a_wrong_token(shell: Shell, proxy: Proxy, upstream: Upstream) -> None:
    command = ["curl", "-sS", "--cacert", proxy.home / "ca" / "mitmproxy-ca-cert.pem"]
    command += ["-x", f"http://runner:wrong@{proxy.address}", f"{BASE}/x"]
    done = shell.run(command)

    assert done.returncode == 56
    assert b"407" in done.stderr
    assert upstream.take() == []


def test_curl_with_a_netrc(straight: Way, folder: Path, upstream: Upstream) -> None:
    """A file of the client's machine then holds nothing of value."""
    netrc = folder / "netrc"
    netrc.write_text(f"machine api.example.test login user password {URLSAFE}\n")
    done = straight.run(["curl", "-sS", "--netrc-file", netrc, f"{BASE}/basic"])

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
    straight: Way,
    tmp_path: Path,
    upstream: Upstream,
) -> None:
    into = tmp_path / "clone"
    url = f"https://{userinfo}{repository}"
    done = straight.run(["git", *options, "clone", "-q", url, into], GIT_TERMINAL_PROMPT="0")

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
    repository: str, straight: Way, tmp_path: Path, upstream: Upstream
) -> None:
    """The challenge comes back a second time, and git gives up."""
    url = f"https://user:nothing@{repository}"
    done = straight.run(["git", "clone", "-q", url, tmp_path / "clone"], GIT_TERMINAL_PROMPT="0")

    assert done.returncode == 128
    assert b"Authentication failed" in done.stderr


def test_git_clones_the_same_as_directly(
    repository: str, straight: Way, shell: Shell, upstream_ca: Path, tmp_path: Path
) -> None:
    """Objects, references and files, packed by a server and read through the scrubber."""
    into = {"directly": tmp_path / "directly", "through": tmp_path / "through"}
    password = quote(SPECIAL, safe="")
    url = f"https://user:{password}@{repository}"
    command = ["git", "clone", "-q"]
    ca = str(upstream_ca)
    shell.run([*command, url, into["directly"]], GIT_SSL_CAINFO=ca, GIT_TERMINAL_PROMPT="0")
    straight.run([*command, f"https://user:{URLSAFE}@{repository}", into["through"]])

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
