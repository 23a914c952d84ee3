"""The client sees what is wrong: a load that counts any answer measures nothing."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pytest

from bench import load
from bench.common import VALUE
from bench.load import Job, Slot, Way
from bench.loop import Loop, clock
from bench.upstream import PLACEHOLDER, accept, small


@pytest.fixture
def upstream() -> Iterator[int]:
    """The port of an upstream without TLS, on a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        loop = Loop()
        loop.add(accept(loop, listener, None, {}))
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                loop.run(clock() + 0.05)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        over.set()
        thread.join()
        loop.close()


def answered(port: int, way: Way, *, keep: bool = True) -> load.Outcome:
    slot = Slot(Job(way, port, 3, 0.1, plain=True, keep=keep, most=50))
    slot.prepare()
    return slot.run()


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "new"])
@pytest.mark.parametrize(
    ("sends", "sees"),
    [
        pytest.param(VALUE, "value", id="the value"),
        pytest.param(PLACEHOLDER, "placeholder", id="the placeholder"),
        pytest.param("neither", "other", id="neither"),
    ],
)
def test_an_answer_is_right_where_the_upstream_got(
    upstream: int, sends: str, sees: str, keep: bool
) -> None:
    outcome = answered(upstream, Way(None, "", sends=f"Bearer {sends}", sees=sees), keep=keep)

    assert outcome.errors.total() == 0
    assert len(outcome.latencies) >= 3
    assert all(0 < seconds < 5 for seconds in outcome.latencies)


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "new"])
def test_a_wrong_value_at_the_upstream_is_counted(upstream: int, keep: bool) -> None:
    outcome = answered(upstream, Way(None, "", sends=f"Bearer {VALUE}x"), keep=keep)

    assert outcome.errors == {"Broken: wrong body": 3, "no answer": 0}
    assert len(outcome.latencies) == 0


def test_a_proxy_that_refuses_or_is_not_there_is_counted(upstream: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]

    outcome = answered(upstream, Way(("127.0.0.1", port), ""), keep=False)

    assert outcome.errors.total() == 3
    assert "refused" in next(iter(outcome.errors))


RIGHT = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(small("value")), small("value"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(RIGHT.replace(b"200", b"403"), "403", id="a refusal"),
        pytest.param(RIGHT.replace(b"value", b"VALUE"), "wrong body", id="another body"),
        pytest.param(RIGHT + b"x", "behind the end", id="a byte more"),
        pytest.param(
            RIGHT.replace(b"Content-Length", b"X"), "no known length", id="a body without an end"
        ),
    ],
)
def test_an_answer_is_wrong(data: bytes, said: str) -> None:
    with pytest.raises(load.Broken, match=said):
        load.Answers(small("value")).complete(data)


def test_an_answer_may_come_in_pieces() -> None:
    answers = load.Answers(small("value"))

    for _ in range(2):  # the second time it is known
        assert [answers.complete(RIGHT[:at]) for at in range(len(RIGHT))] == [False] * len(RIGHT)
        assert answers.complete(RIGHT)


def test_the_upstream_looks_at_each_request_that_it_has_not_seen(upstream: int) -> None:
    """One that was right does not make another right."""
    way = Way(None, "", sends=f"Bearer {VALUE}")
    with socket.create_connection(("127.0.0.1", upstream), timeout=5) as sock:
        seen = []
        for sends in (VALUE, "wrong", VALUE, "wrong"):
            sock.sendall(Way(None, "", sends=f"Bearer {sends}").request(upstream))
            seen.append(json.loads(sock.recv(4096).partition(b"\r\n\r\n")[2])["seen"])

    assert answered(upstream, way).errors.total() == 0
    assert seen == ["value", "other", "value", "other"]
