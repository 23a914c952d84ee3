"""The clients of the matrix: how each is started, and the places that it can put a secret in.

A library runs once for all of its places (the programs beside this file); a command line runs once
for each. What a client cannot do is not in its row: urllib and Java's clients know no multipart,
wget no form that it encodes itself.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chromium import PROGRAM
from tests.e2e.clients.exchange import ENCODED, KEY, URLSAFE, Exchange
from tests.e2e.clients.registries import NAME
from tests.e2e.clients.toolbox import Missing, Toolbox, version_of
from tests.e2e.harness import RUNNER_TOKEN
from tests.e2e.upstream import Received
from tests.e2e.ways import Way

HERE = Path(__file__).parent
BODIES = ("json", "form", "multipart")
IN_HEAD = ("header", "basic", "query", "path")
ALL = IN_HEAD + BODIES


@dataclass(frozen=True)
class Seen:
    """A client, and its exchanges by place."""

    version: str
    exchanges: Mapping[str, Exchange]


type Use = Callable[[Toolbox, Way, str], Seen]


@dataclass(frozen=True)
class Client:
    """One row.

    Attributes:
        places: In which it sends the placeholder.
        use: Sends to an origin (``https://HOST``) what the row says; raises `Missing`.
    """

    name: str
    places: tuple[str, ...]
    use: Use


# --- libraries, each in one process --------------------------------------------------------------

type Start = Callable[[Toolbox], tuple[list[str | Path], dict[str, str]]]


def library(start: Start, mode: str = "echo") -> Use:
    """A program that is given a URL and the placeholder, and prints the answers by place."""

    def use(tools: Toolbox, way: Way, origin: str) -> Seen:
        command, variables = start(tools)
        way.take()
        done = way.run([*command, f"{origin}/{mode}", KEY], **variables)
        if b"MISSING: " in done.stderr:
            raise Missing(done.stderr.decode().partition("MISSING: ")[2].strip())
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        said = json.loads(done.stdout)
        received = by_place(way.take())
        exchanges = {
            place: Exchange(received[place], *result) for place, result in said["results"].items()
        }
        return Seen(said["version"], exchanges)

    return use


def by_place(received: Sequence[Received]) -> dict[str, Received]:
    """By the second segment of the path, the last one of each; a browser asks for icons, too."""
    segments = [(item.target.partition(b"?")[0].split(b"/"), item) for item in received]
    return {found[2].decode(): item for found, item in segments if len(found) > 2}


def python(script: str, module: str, *arguments: str) -> Start:
    return lambda tools: ([tools.python(module), HERE / script, *arguments], {})


def node(script: str, wanted: str, *arguments: str, least: int = 18) -> Start:
    def start(tools: Toolbox) -> tuple[list[str | Path], dict[str, str]]:
        modules = str(tools.modules(wanted))
        command = [tools.node(least), HERE / script, *arguments]
        return command, {"NODE_E2E_MODULES": modules}

    return start


def program(name: str, script: str, *options: str) -> Start:
    return lambda tools: ([tools.program(name), *options, HERE / script], {})


def java(script: str) -> Start:
    def start(tools: Toolbox) -> tuple[list[str | Path], dict[str, str]]:
        tools.program("javac")
        fast = ["-XX:TieredStopAtLevel=1", "-Xshare:auto"]  # it runs for two seconds
        return [tools.program("java"), *fast, HERE / script], {}

    return start


def chromium(tools: Toolbox) -> tuple[list[str | Path], dict[str, str]]:
    if PROGRAM is None:
        raise Missing("chromium is not installed")
    if shutil.which("certutil") is None:
        raise Missing("certutil is not installed (Debian: libnss3-tools)")
    return [sys.executable, HERE / "chromium_client.py"], {"CHROMIUM": PROGRAM}


# --- command lines, one for each place -----------------------------------------------------------

type Cases = Mapping[str, Sequence[str]]

JSON = '{"key":"%s"}' % KEY  # noqa: UP031
JSON_HEADER = "Content-Type: application/json"
CURL = {
    "header": ["-H", f"Authorization: Bearer {KEY}", "{base}/header"],
    "own-header": ["-H", f"X-Api-Key: {KEY}", "{base}/own-header"],
    "basic": ["-u", f"user:{KEY}", "{base}/basic"],
    "query": ["-G", "--data-urlencode", f"key={KEY}", "{base}/query"],  # %7b
    "path": ["-g", "{base}/path/" + KEY + "/x"],  # as it is
    "json": ["--json", JSON, "{base}/json"],
    "form": ["--data-urlencode", f"key={KEY}", "{base}/form"],
    "multipart": ["-F", f"key={KEY}", "{base}/multipart"],
}
WGET = {
    "header": ["--header", f"Authorization: Bearer {KEY}", "{base}/header"],
    "basic": ["--auth-no-challenge", "--user=user", f"--password={KEY}", "{base}/basic"],
    "query": ["{base}/query?key=" + KEY],  # %7B
    "path": ["{base}/path/" + KEY + "/x"],
    "json": ["--header", JSON_HEADER, f"--post-data={JSON}", "{base}/json"],
    "form": [f"--post-data=key={ENCODED}", "{base}/form"],
}
COMMANDS: dict[str, tuple[list[str], Cases]] = {
    "curl": (["-sS", "-w", "\n%{http_code}"], CURL),
    "wget": (["-qO-"], WGET),
}


def send(
    name: str, options: Sequence[str], tools: Toolbox, way: Way, token: str = RUNNER_TOKEN
) -> Exchange:
    """One request of curl or wget."""
    way.take()
    done = way.run([tools.program(name), *COMMANDS[name][0], *options], token)
    assert done.returncode == 0, done.stderr.decode()
    said = done.stdout.decode()
    body, _, status = said.rpartition("\n") if name == "curl" else (said, "", "200")
    (received,) = way.take()
    return Exchange(received, int(status), body)


def command_line(name: str) -> Use:
    def use(tools: Toolbox, way: Way, origin: str) -> Seen:
        exchanges = {
            place: send(
                name, [one.replace("{base}", f"{origin}/echo") for one in options], tools, way
            )
            for place, options in COMMANDS[name][1].items()
        }
        return Seen(version_of(tools.program(name), "--version"), exchanges)

    return use


# --- tools that carry a credential of their own --------------------------------------------------

type Ask = Callable[[Toolbox, str, Path], tuple[list[str | Path], str]]


def tool(place: str, ask: Ask) -> Use:
    """A tool that fetches something; each request of its that has a credential has the secret.

    *ask* says the command, for an origin and an empty folder, and the version.
    """

    def use(tools: Toolbox, way: Way, origin: str) -> Seen:
        with tempfile.TemporaryDirectory() as folder:
            command, version = ask(tools, origin, Path(folder))
            way.take()
            done = way.run(command, GIT_TERMINAL_PROMPT="0")
            received = [item for item in way.take() if item.all("authorization")]
            assert received, done.stderr.decode()[-2000:]
            fetched = list(Path(folder).rglob(f"{NAME}*"))
        # Where placeholders stay text, nobody is let in.
        assert "text." in origin or (done.returncode == 0 and fetched), done.stderr.decode()[-2000:]
        assert len({tuple(item.all("authorization")) for item in received}) == 1
        return Seen(version, {place: Exchange(received[-1])})

    return use


def as_user(origin: str) -> str:
    return origin.replace("https://", f"https://user:{URLSAFE}@")


def git(tools: Toolbox, origin: str, folder: Path) -> tuple[list[str | Path], str]:
    program = tools.program("git")
    url = f"{as_user(origin)}/git/project.git"
    return [program, "clone", "-q", url, folder / NAME], version_of(program, "--version")


def pip(tools: Toolbox, origin: str, folder: Path) -> tuple[list[str | Path], str]:
    command = [tools.python("pip"), "-m", "pip"]
    options = ["download", "-q", "--no-input", "--no-cache-dir", "--no-deps", "--isolated"]
    options += ["--disable-pip-version-check", "--retries", "0"]
    where = ["--index-url", f"{as_user(origin)}/pypi/basic/simple", "-d", str(folder)]
    return [*command, *options, *where, NAME], version_of(*command, "--version")


def uv(tools: Toolbox, origin: str, folder: Path) -> tuple[list[str | Path], str]:
    program = tools.program("uv")
    options = ["pip", "install", "-q", "--no-cache", "--no-config", "--python", sys.executable]
    where = ["--index-url", f"{as_user(origin)}/pypi/basic/simple", "--target", str(folder)]
    return [program, *options, *where, NAME], version_of(program, "--version")


def npm(tools: Toolbox, origin: str, folder: Path) -> tuple[list[str | Path], str]:
    program = tools.program("npm")
    registry = f"{origin}/npm/header/"
    settings = folder / ".npmrc"
    settings.write_text(
        f"registry={registry}\n{registry.removeprefix('https:')}:_authToken={KEY}\n"
        f"cache={folder}/cache\nfetch-retries=0\naudit=false\nfund=false\nupdate-notifier=false\n"
    )
    command = [program, "install", "--userconfig", settings, "--prefix", folder / "into", NAME]
    return command, version_of(program, "--version")


CLIENTS = [
    Client("curl", tuple(CURL), command_line("curl")),
    Client("wget", tuple(WGET), command_line("wget")),
    Client("git", ("basic",), tool("basic", git)),
    Client("pip", ("basic",), tool("basic", pip)),
    Client("uv", ("basic",), tool("basic", uv)),
    Client("npm", ("header",), tool("header", npm)),
    *(
        Client(name, places, library(python("python_client.py", name, name)))
        for name, places in {
            "requests": ALL,
            "httpx": ALL,
            "aiohttp": ALL,
            "urllib": (*IN_HEAD, "json", "form"),
        }.items()
    ),
    Client(
        "websockets", IN_HEAD, library(python("websocket_client.py", "websockets"), "websocket")
    ),
    *(
        Client(f"{name} (Python)", (place,), library(python("sdk_key.py", module, name), "sdk"))
        for name, module, place in (
            ("openai", "openai", "header"),
            ("anthropic", "anthropic", "header"),
            ("stripe", "stripe", "header"),
            ("PyGithub", "github", "header"),
        )
    ),
    Client("node undici", ALL, library(node("client.mjs", "undici"))),
    Client("node fetch", ALL, library(lambda tools: ([tools.node(24), HERE / "fetch.mjs"], {}))),
    Client("axios", ALL, library(node("axios.mjs", "axios"))),
    *(
        Client(f"{name} (node)", (place,), library(node("sdk.mjs", module, name, least=24), "sdk"))
        for name, module, place in (
            ("openai", "openai", "header"),
            ("anthropic", "@anthropic-ai/sdk", "header"),
            ("stripe", "stripe", "header"),
            ("octokit", "@octokit/request", "header"),
        )
    ),
    Client("deno", ALL, library(program("deno", "fetch.mjs", "run", "--allow-all", "--no-lock"))),
    Client("bun", ALL, library(lambda tools: ([tools.bun(), HERE / "fetch.mjs"], {}))),
    Client("Go net/http", ALL, library(lambda tools: ([tools.go()], {}))),
    Client(
        "Java HttpClient",
        (*IN_HEAD, "own-header", "json", "form"),
        library(java("Client.java")),
    ),
    Client(
        "Java HttpURLConnection",
        (*IN_HEAD, "own-header", "json", "form"),
        library(java("Connection.java")),
    ),
    Client("Ruby Net::HTTP", ALL, library(program("ruby", "client.rb"))),
    Client("PHP curl", ALL, library(program("php", "curl.php"))),
    Client("PHP streams", (*IN_HEAD, "json", "form"), library(program("php", "streams.php"))),
    Client("Perl LWP", ALL, library(program("perl", "client.pl"))),
    Client("Chromium", ALL, library(chromium)),
]
CELLS = [(client, place) for client in CLIENTS for place in client.places]
