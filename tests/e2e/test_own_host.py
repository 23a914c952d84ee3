"""coatcheck.internal with real clients: curl, requests, and `coatcheck.client` itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.e2e.harness import (
    CLIENTS,
    OTHER,
    OTHER_TOKEN,
    RUNNER,
    RUNNER_TOKEN,
    Proxy,
    Shell,
    api_only,
    make_home,
)
from tests.e2e.scripts import Scripts
from tests.e2e.upstream import Upstream
from tests.e2e.wire import request
from tests.e2e.world import World

TOKEN = b"uKzqfA92mXvb81Lw"
ECHO = b"https://api.example.test/echo/T0/" + TOKEN
ODD = 'team "blue"/hook ü'
SECRETS = {
    "hook": api_only(ECHO),
    ODD: api_only(ECHO + b"?team=blue"),
    "crm.apiKey": api_only(b"crm-4f6d2a90c1e8b7"),
    "other.key": api_only(b"of-the-other-client-1357"),
}
POLICY = (
    CLIENTS
    + """
grants:
  - secrets: [hook, team*, moved]
    clients: [runner]
    in: [url]
  - secrets: ["crm.*"]
    clients: [runner]
  - secrets: [other.key]
    clients: [other]
"""
)
MASK = "********"

type Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="module")
def moved(scripts: Scripts) -> str:
    """A path that is answered by a redirect that quotes the URL."""
    location = b"Location: https://api.example.test/echo/%b/next\r\n" % TOKEN
    return scripts.add(b"HTTP/1.1 302 Found\r\n" + location + b"Content-Length: 0\r\n\r\n")


@pytest.fixture(scope="module")
def own(world: World, folder: Path, upstream_ca: Path, moved: str) -> Iterator[Proxy]:
    values = {**SECRETS, "moved": api_only(f"https://api.example.test{moved}/".encode() + TOKEN)}
    made = Proxy(world, make_home(folder / "own-host", values, POLICY), upstream_ca)
    try:
        yield made.wait_ready()
    finally:
        made.stop()
        assert TOKEN not in made.log.read_bytes()
        assert all(TOKEN not in file.read_bytes() for file in (made.home / "audit").iterdir())


@pytest.fixture(scope="module")
def run(shell: Shell, own: Proxy) -> Run:
    """`coatcheck run -- COMMAND`."""

    def run(
        command: Sequence[str | Path], token: str = RUNNER_TOKEN
    ) -> subprocess.CompletedProcess[bytes]:
        options = ["run", "--home", own.home, "--proxy", own.address, "--"]
        return shell.coatcheck(*options, *command, COATCHECK_CLIENT_TOKEN=token)

    return run


def python(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", program, *arguments]


# --- curl ----------------------------------------------------------------------------------------

BASES = [
    pytest.param("http://coatcheck.internal", id="http"),
    pytest.param("https://coatcheck.internal", id="https, by our own certificate"),
]


@pytest.mark.parametrize("base", BASES)
def test_curl_gets_the_certificate(base: str, run: Run, own: Proxy) -> None:
    done = run(["curl", "-sS", "--fail", f"{base}/ca.pem"])

    assert done.stdout == own.dial().ca.read_bytes()


@pytest.mark.parametrize("base", BASES)
def test_curl_sends_to_a_url_that_is_a_secret(base: str, run: Run, upstream: Upstream) -> None:
    command = ["curl", "-sS", "--fail", "--json", '{"text": "hello"}', f"{base}/url/hook/x?y=1"]
    done = run(command)

    (got,) = upstream.take()
    assert (got.host, got.target) == ("api.example.test", b"/echo/T0/" + TOKEN + b"/x?y=1")
    assert got.body == b'{"text": "hello"}'
    assert got.all("host") == [b"api.example.test"]
    assert got.all("proxy-authorization") == []
    assert TOKEN not in done.stdout
    assert MASK.encode() in done.stdout


def test_a_redirect_that_quotes_the_url_does_not_give_it_away(
    run: Run, upstream: Upstream, moved: str
) -> None:
    done = run(["curl", "-sS", "-i", "-L", "http://coatcheck.internal/url/moved"])

    assert done.stdout.startswith(b"HTTP/1.1 302 Found\r\n")
    assert b"Location: https://api.example.test/echo/********/next\r\n" in done.stdout
    assert TOKEN not in done.stdout
    first, followed = [got.target for got in upstream.take()]
    assert first == moved.encode() + b"/" + TOKEN
    assert followed == b"/echo/********/next"


# --- requests ------------------------------------------------------------------------------------

WITH_REQUESTS = """
import json, sys, requests
from coatcheck import client
answers = [
    requests.post(client.url(sys.argv[1], "a", "b c"), json={"text": "hello"}),
    requests.get(client.url(sys.argv[1]), params={"y": 1}),
    requests.get("http://coatcheck.internal/url/other.key"),
]
print(json.dumps([[a.status_code, a.text] for a in answers]))
"""


def test_requests_with_the_helper_for_urls(run: Run, upstream: Upstream) -> None:
    done = run(python(WITH_REQUESTS, ODD))

    assert done.returncode == 0, done.stderr
    (posted, text), (got, _), (refused, why) = json.loads(done.stdout)
    assert (posted, got, refused) == (200, 200, 403)
    assert MASK in text
    assert json.loads(why)["code"] == "secret_unavailable"
    assert [one.target for one in upstream.take()] == [
        b"/echo/T0/" + TOKEN + b"/a/b%20c?team=blue",
        b"/echo/T0/" + TOKEN + b"?team=blue&y=1",
    ]


# --- coatcheck.client ----------------------------------------------------------------------------

WITH_SDK = """
import asyncio, json, sys
from coatcheck import client
names = client.names()
found = {name: client.get_secret(name) for name in [*names, "absent", "other.key"]}
print(json.dumps([names, found, asyncio.run(client.anames()) == names,
                  asyncio.run(client.aget_secret("hook"))]))
"""


def test_the_sdk_knows_the_secrets_of_its_client(run: Run) -> None:
    done = run(python(WITH_SDK))

    assert done.returncode == 0, done.stderr
    names, found, same, by_async = json.loads(done.stdout)
    assert names == ["crm.apiKey", "hook", "moved", ODD]
    assert found == {
        "crm.apiKey": "{{secrets.crm.apiKey}}",
        "hook": "{{secrets.hook}}",
        "moved": "{{secrets.moved}}",
        ODD: '{{secrets["team \\"blue\\"/hook ü"]}}',
        "absent": None,
        "other.key": None,
    }
    assert (same, by_async) == (True, "{{secrets.hook}}")


def test_another_client_has_secrets_of_its_own(run: Run) -> None:
    done = run(python(WITH_SDK), token=OTHER_TOKEN)

    names, found, *_ = json.loads(done.stdout)
    assert names == ["other.key"]
    assert found == {"other.key": "{{secrets.other.key}}", "absent": None}


WITH_KEY = """
import sys, requests
from coatcheck.client import get_secret
key = get_secret("crm.apiKey")
print(requests.get("https://api.example.test/echo/x", headers={"X-Key": key}).text)
"""


def test_what_the_sdk_gives_is_filled_in_on_the_way_out(run: Run, upstream: Upstream) -> None:
    """Code that asked a store for a value goes on as it is, and never holds one."""
    done = run(python(WITH_KEY))

    (got,) = upstream.take()
    assert got.all("x-key") == [b"crm-4f6d2a90c1e8b7"]
    assert b"crm-4f6d2a90c1e8b7" not in done.stdout
    assert MASK.encode() in done.stdout


WITH_ERRORS = """
from coatcheck import client
try:
    client.names()
except client.ClientError as error:
    print(type(error).__name__, error)
"""


def test_the_sdk_says_what_is_wrong(shell: Shell, own: Proxy) -> None:
    proxy = f"http://runner:ctk_wrong-0123456789@{own.address}"
    wrong = shell.run(python(WITH_ERRORS), HTTP_PROXY=proxy)
    bare = shell.run(python(WITH_ERRORS))

    assert wrong.stdout.startswith(b"UnknownClient ")
    assert b"coatcheck client token" in wrong.stdout
    assert b"ctk_wrong" not in wrong.stdout + wrong.stderr
    assert bare.stdout.startswith(b"NoProxy ")
    assert b"coatcheck run" in bare.stdout


# --- raw -----------------------------------------------------------------------------------------


def test_who_is_not_known_is_asked_who_it_is(own: Proxy) -> None:
    with own.dial(source="127.0.9.9").plain() as wire:
        for target in ("/ca.pem", "/v1/secrets", "/url/hook"):
            answer = wire.ask(
                request("GET", f"http://coatcheck.internal{target}", host="coatcheck.internal")
            )
            assert (answer.status, answer.code) == (407, "proxy_auth_required")
            assert answer.all("proxy-authenticate")


@pytest.mark.parametrize(
    ("credential", "names"),
    [
        pytest.param(RUNNER, ["crm.apiKey", "hook", "moved", ODD], id="one client"),
        pytest.param(OTHER, ["other.key"], id="another"),
    ],
)
def test_no_client_reads_the_names_of_another(
    credential: str, names: list[str], own: Proxy
) -> None:
    with own.dial(credential).plain() as wire:
        answer = wire.ask(
            request(
                "GET",
                "http://coatcheck.internal/v1/secrets",
                f"Proxy-Authorization: {credential}",
                host="coatcheck.internal",
            )
        )

    assert [one["name"] for one in json.loads(answer.body)["secrets"]] == names


def test_the_use_of_a_url_is_recorded(run: Run, own: Proxy) -> None:
    run(["curl", "-sS", "http://coatcheck.internal/url/hook"])

    record = next(one for one in reversed(own.audit()) if one["event"] == "request")
    assert record["secrets"] == [{"name": "hook", "version": 1, "location": "url"}]
    assert (record["host"], record["path"]) == ("api.example.test", "/url/hook")
