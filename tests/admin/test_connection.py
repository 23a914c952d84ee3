"""Who says nothing, or not all of it, shuts nobody out of the admin side: at a real port."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from coatcheck.admin import connection
from tests.admin.contract import served
from tests.admin.stage import Stage

PLACES = 8
SOON_S = 0.4  # in place of the seconds that are waited for a request
LATE_S = 10.0  # this machine may be busy
HALF = b"GET / HTTP/1.1\r\nHost: lo"
LIST = "/api/v1/secrets"


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECTIONS", PLACES)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_S", SOON_S)
    monkeypatch.setattr(connection, "BODY_S", SOON_S)


@pytest.fixture
def port(stage: Stage) -> Iterator[int]:
    with served(stage) as url:
        yield int(url.rpartition(":")[2])


@pytest.fixture
def opened(port: int) -> Iterator[Opened]:
    with ExitStack() as stack:
        yield Opened(port, stack)


class Opened:
    """Connections, closed at the end."""

    def __init__(self, port: int, stack: ExitStack) -> None:
        self._port, self._stack = port, stack

    def __call__(self, sent: bytes = b"") -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self._port), timeout=LATE_S)
        with suppress(ConnectionError):  # it may be closed already
            made.sendall(sent)
        return self._stack.enter_context(made)


def status(port: int, token: str) -> int:
    """Of an answer; 0 where the connection was closed instead."""
    asking = http.client.HTTPConnection("127.0.0.1", port, timeout=LATE_S)
    try:
        asking.request("GET", LIST, headers={"Authorization": f"Bearer {token}"})
        return asking.getresponse().status
    except (ConnectionError, http.client.BadStatusLine):
        return 0
    finally:
        asking.close()


def request_of(token: str, path: str = LIST) -> bytes:
    lines = (f"GET {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {token}", "", "")
    return "\r\n".join(lines).encode()


def post(sent: bytes) -> bytes:
    head = b"POST /api/v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: 20\r\n\r\n" + sent


def is_open(sock: socket.socket) -> bool:
    """What was sent by now is read, and passed over."""
    sock.settimeout(0.05)
    with suppress(TimeoutError):
        while True:
            try:
                if not sock.recv(65536):
                    return False
            except ConnectionResetError:
                return False
    return True


def ends(sock: socket.socket) -> bool:
    until = time.monotonic() + LATE_S
    while time.monotonic() < until:
        if not is_open(sock):
            return True
    return False


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="silence"),
        pytest.param(HALF, id="half a head"),
        pytest.param(post(b""), id="a head whose body does not come"),
        pytest.param(post(b"{"), id="half a body"),
        pytest.param(b"\r\n", id="an empty line"),
    ],
)
@pytest.mark.usefixtures("soon")
def test_a_request_that_does_not_come_whole_is_given_up(opened: Opened, sent: bytes) -> None:
    assert ends(opened(sent))


@pytest.mark.usefixtures("soon")
def test_a_second_request_has_no_more_time_than_the_first(stage: Stage, opened: Opened) -> None:
    sock = opened(request_of(stage.tokens["viewer"]))
    assert sock.recv(65536).startswith(b"HTTP/1.1 200")
    sock.sendall(HALF)

    assert ends(sock)


@pytest.mark.usefixtures("soon")
def test_a_drip_does_not_make_it_longer(opened: Opened) -> None:
    sock = opened(b"GET / HTTP/1.1\r\nX: ")
    until = time.monotonic() + LATE_S
    with suppress(OSError):
        while time.monotonic() < until and is_open(sock):
            sock.sendall(b"x")

    assert time.monotonic() < until


@pytest.mark.usefixtures("soon")
def test_an_answer_may_take_longer_than_its_request(stage: Stage, opened: Opened) -> None:
    stream = opened(request_of(stage.tokens["viewer"], "/api/v1/events"))
    time.sleep(3 * SOON_S)

    assert is_open(stream)


@pytest.mark.usefixtures("places")
def test_nobody_is_shut_out_by_connections_that_say_nothing(
    stage: Stage, port: int, opened: Opened
) -> None:
    half = [opened(HALF) for _ in range(5 * PLACES)]

    assert [status(port, stage.tokens["owner"]) for _ in range(3)] == [200] * 3
    assert ends(half[0])
    assert is_open(half[-1]), "the oldest go first"


@pytest.mark.parametrize(
    ("role", "stays"),
    [
        pytest.param("viewer", True, id="a right credential was shown: it stays"),
        pytest.param(None, False, id="a wrong one: it makes room"),
    ],
)
@pytest.mark.usefixtures("places")
def test_who_has_shown_a_right_credential_makes_room_for_nobody(
    stage: Stage, opened: Opened, role: str | None, stays: bool
) -> None:
    stream = opened(request_of(stage.tokens[role] if role else "ct_nobody", "/api/v1/events"))
    assert stream.recv(65536).startswith(b"HTTP/1.1 200" if stays else b"HTTP/1.1 401")
    for _ in range(3 * PLACES):
        opened(HALF)

    assert is_open(stream) if stays else ends(stream)


@pytest.mark.usefixtures("places")
def test_a_stranger_is_closed_where_all_places_are_of_known_ones(
    stage: Stage, opened: Opened
) -> None:
    known = [opened(request_of(stage.tokens["viewer"])) for _ in range(PLACES)]
    for sock in known:
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")

    assert ends(opened(HALF))
    assert all(is_open(sock) for sock in known)
