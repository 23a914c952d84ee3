"""What does not hold under mitmdump, as SECURITY.md lists it, seen from outside.

`coatcheck serve` is asked the same beside it: there each of these is refused, withheld or bounded.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e import harness
from tests.e2e.harness import RUNNER, Proxy, audit_of
from tests.e2e.main_home import MAIN_POLICY, MAIN_SECRETS
from tests.e2e.test_mitmdump import Mitmdump
from tests.e2e.upstream import Exchange, Upstream
from tests.e2e.wire import Answer, Dial, Wire, basic, request
from tests.e2e.world import World

VALUE = MAIN_SECRETS["wild.key"][0]
KEY = "Authorization: Bearer {{secrets.wild.key}}"
POLICY = MAIN_POLICY + '  passthrough: ["other.example.test"]\n'

# Another script, loaded after ours: it notes what it sees of each request, and changes it.
MEDDLER = """
from pathlib import Path

class Meddler:
    def request(self, flow):
        with Path("seen.txt").open("a") as seen:
            seen.write(repr(list(flow.request.headers.items())))
        if "X-Meddle" in flow.request.headers:
            flow.request.headers["X-Meddled"] = "after it was judged"

addons = [Meddler()]
"""


@pytest.fixture(scope="module")
def place(folder: Path) -> Path:
    made = folder / "mitmdump-limits"
    made.mkdir()
    return made


@pytest.fixture(scope="module")
def home(place: Path) -> Path:
    return harness.make_home(place / "home", MAIN_SECRETS, POLICY)


@pytest.fixture(scope="module")
def mitmdump(world: World, place: Path, home: Path, upstream_ca: Path) -> Iterator[Mitmdump]:
    (place / "meddler.py").write_text(MEDDLER)
    made = Mitmdump(world, place, home, "-s", "meddler.py", COATCHECK_UPSTREAM_CA=str(upstream_ca))
    try:
        yield made.wait_ready()
    finally:
        made.stop()


@pytest.fixture(scope="module")
def served(world: World, place: Path, upstream_ca: Path) -> Iterator[Proxy]:
    made = Proxy(world, harness.make_home(place / "served", MAIN_SECRETS, POLICY), upstream_ca)
    try:
        yield made.wait_ready()
    finally:
        made.stop()


@pytest.fixture
def dial(mitmdump: Mitmdump) -> Dial:
    return mitmdump.dial


@pytest.fixture
def strict(served: Proxy) -> Dial:
    return served.dial(RUNNER)


@pytest.fixture
def says(upstream: Upstream) -> Iterator[Callable[[bytes], str]]:
    """``says(bytes)``: the path at which an upstream answers with just these, and closes.

    ``%TOKEN%`` stands for the credential that came.
    """
    told: dict[str, bytes] = {}

    async def answer(at: Exchange) -> bool:
        await at.send(told[at.argument()].replace(b"%TOKEN%", at.token))
        return False

    def add(data: bytes) -> str:
        told[str(len(told))] = data
        return f"/says/{len(told) - 1}"

    upstream.modes["says"] = answer
    yield add
    del upstream.modes["says"]


def ask(dial: Dial, path: str, *lines: str, patience_s: float = 5.0) -> Answer | None:
    """The answer; None if none came whole."""
    with dial.tunnel() as wire:
        wire.sock.settimeout(patience_s)
        try:
            return wire.get(path, KEY, *lines)
        except (ConnectionError, TimeoutError, ssl.SSLError):
            return None


def test_its_own_error_page_quotes_the_upstream(
    dial: Dial, strict: Dial, says: Callable[[bytes], str]
) -> None:
    path = says(b"HTTP/1.1 200 OK\r\n%TOKEN%\r\n\r\n")

    theirs, ours = ask(dial, path), ask(strict, path)

    assert theirs is not None
    assert VALUE in theirs.raw
    assert ours is not None
    assert ours.code == "response_withheld"
    assert VALUE not in ours.raw


def test_its_reader_forgives_bare_line_feeds(
    dial: Dial, strict: Dial, says: Callable[[bytes], str]
) -> None:
    path = says(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok")

    theirs, ours = ask(dial, path), ask(strict, path)

    assert theirs is not None
    assert (theirs.status, theirs.body) == (200, b"ok")
    assert ours is not None
    assert ours.code == "response_withheld"


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"Content-Length: 100\r\n\r\nnot all of it", id="of a length"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\nd\r\nnot all of it\r\n", id="of chunks"),
    ],
)
def test_a_body_that_ends_early_is_broken_off_for_the_client_all_the_same(
    said: bytes, dial: Dial, says: Callable[[bytes], str]
) -> None:
    assert ask(dial, says(b"HTTP/1.1 200 OK\r\n" + said)) is None


def test_a_refused_upload_is_read_to_its_end(dial: Dial, strict: Dial) -> None:
    head = request("POST", "/echo", KEY, "X: {{secrets.no.such}}", "Content-Length: 3000000")

    def answer_after(dial: Dial, size: int) -> Answer | None:
        with dial.tunnel() as wire:
            wire.sock.settimeout(2)
            wire.send(head + b"x" * size)
            try:
                return wire.read()
            except TimeoutError:
                return None

    ours = answer_after(strict, 1000)
    assert ours is not None
    assert ours.code == "secret_unavailable"
    assert answer_after(dial, 2_000_000) is None
    theirs = answer_after(dial, 3_000_000)
    assert theirs is not None
    assert theirs.code == "secret_unavailable"


def test_a_head_of_any_size_is_taken(dial: Dial, strict: Dial) -> None:
    long = "X: " + "x" * 200_000

    theirs, ours = ask(dial, "/echo", long), ask(strict, "/echo", long)

    assert theirs is not None
    assert theirs.status == 200
    assert ours is None or ours.code == "headers_too_large"


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n",
            id="trailers",
        ),
        pytest.param(
            b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            id="an interim answer",
        ),
    ],
)
def test_trailers_and_interim_answers_do_not_come_through(
    said: bytes, dial: Dial, strict: Dial, says: Callable[[bytes], str]
) -> None:
    path = says(said)

    theirs, ours = ask(dial, path, patience_s=2.0), ask(strict, path)

    assert theirs is None or theirs.status == 502
    assert ours is not None
    assert (ours.status, ours.body) == (200, b"ok")


def test_another_script_sees_the_value_and_changes_what_was_judged(
    dial: Dial, place: Path, upstream: Upstream
) -> None:
    with dial.tunnel() as wire:
        assert wire.get("/echo", KEY, "X-Meddle: yes").status == 200

    assert upstream.one().all("x-meddled") == [b"after it was judged"]
    assert VALUE.decode() in (place / "seen.txt").read_text()


def refuse(wire: Wire) -> Answer:
    line = "Proxy-Authorization: " + basic("runner", "wrong")
    return wire.ask(request("GET", "http://api.example.test/", line))


def test_a_refusal_before_the_client_is_known_is_not_in_the_audit_log(
    mitmdump: Mitmdump, dial: Dial, served: Proxy, strict: Dial
) -> None:
    """It is logged; under `coatcheck serve` it is on record."""

    def codes(home: Path) -> list[str]:
        return [record.get("code", "") for record in audit_of(home)]

    for each in (dial, strict):
        with each.plain() as wire:
            assert refuse(wire).code == "proxy_auth_required"

    assert "proxy_auth_required" not in codes(mitmdump.home)
    assert "proxy_auth_required" in codes(served.home)
    assert "proxy_auth_required" in mitmdump.log.read_text()


def test_passthrough_has_no_effect(dial: Dial, strict: Dial, upstream_ca: Path) -> None:
    """Our own certificate there, and the upstream's under `coatcheck serve`."""
    host = "other.example.test"
    with dial.tunnel(host) as wire:
        assert wire.get("/echo", host=host).status == 200
    beyond = Dial(strict.world, strict.port, upstream_ca, RUNNER)
    with beyond.tunnel(host) as wire:
        assert wire.get("/echo", host=host).status == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        strict.open_tunnel(host)


@pytest.mark.parametrize("target", ["/ca.pem", "/v1/secrets", "/url/wild.key"])
def test_nothing_is_served_at_coatcheck_internal(
    target: str, dial: Dial, strict: Dial, upstream: Upstream
) -> None:
    asked = request(
        "GET",
        f"http://coatcheck.internal{target}",
        f"Proxy-Authorization: {RUNNER}",
        host="coatcheck.internal",
    )
    with dial.plain() as wire:
        assert wire.ask(asked).code == "destination_not_allowed"
    with strict.plain() as wire:
        assert wire.ask(asked).code == ("location_not_allowed" if "url" in target else "")
    assert upstream.take() == []
