"""What the client reads is what we understood of the upstream, and the next answer is its own."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from tests.differential.answers import ANSWERS, Answer, Verdict
from tests.differential.clients import Play, ReadingClient
from tests.differential.lanes import SEARCHED, UNSEARCHED, Kept, Reply, a_wire, exchanges_of, pieces

SECOND = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond"
EVERY_BYTE = 2000  # bytes; what is longer does not come byte by byte
HOSTS = {"searched": SEARCHED, "not searched": UNSEARCHED}


@dataclass
class Talk:
    """Two requests on one connection: what the client got for each, and whether it was closed."""

    exchanges: list[Kept]
    got: list[tuple[bytes, bool]]
    crashed: bool

    def plays(self, method: bytes) -> list[Play]:
        methods = [method.decode(), "GET"]
        return [
            Play(method, got.decode("latin-1"), closed)
            for method, (got, closed) in zip(methods, self.got, strict=False)
        ]


def talk(answer: Answer, host: str, step: int = 0) -> Talk:
    wire = a_wire(host)
    line = b"%b /first HTTP/1.1\r\nHost: %b\r\n" % (answer.method, host.encode())
    wire.send(line + (b"Content-Length: 0\r\n\r\n" if answer.method == b"POST" else b"\r\n"))
    first, got = wire.upstream, b""
    for piece in pieces(answer.data, step):
        if not first.closed:
            got += wire.answer(piece, of=first)
    if answer.hangs_up and not first.closed:
        got += wire.hang_up(of=first)
    talked = [(got, wire.closed)]
    if not wire.closed:
        wire.send(b"GET /second HTTP/1.1\r\nHost: %b\r\n\r\n" % host.encode())
        got = wire.answer(answer.late, of=first) if answer.late and not first.closed else b""
        got += wire.answer(SECOND)
        talked.append((got, wire.closed))
    crashed = "engine.crash" in wire.events or "lane.internal_error" in wire.events
    return Talk(exchanges_of(wire), talked, crashed)


def verdict_of(seen: Talk) -> Verdict:
    got, closed = seen.got[0]
    if seen.exchanges[0].answered:
        return Verdict.PASSES
    if b"\r\nCoatcheck-Error: response_withheld\r\n" in got:
        return Verdict.WITHHELD
    assert closed, "neither an answer nor an end"
    return Verdict.BROKEN


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS.keys())
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_every_client_reads_what_we_understood(
    answer: Answer, host: str, clients: list[ReadingClient]
) -> None:
    seen = talk(answer, host)

    assert not seen.crashed
    assert verdict_of(seen) is answer.verdict, seen.got
    if answer.verdict is Verdict.WITHHELD:
        assert b"poison" not in seen.got[0][0]
    for client in clients:
        check(client.read(seen.plays(answer.method)), seen, answer)


def check(replies: list[Reply | None], seen: Talk, answer: Answer) -> None:
    first, *more = replies
    if answer.verdict is Verdict.BROKEN:
        assert (first, more) == (None, [])
        return
    assert first is not None
    if answer.verdict is Verdict.PASSES:
        assert first == seen.exchanges[0].reply
    else:
        assert first.status == 502
        assert answer.method == b"HEAD" or json.loads(first.body)["code"] == "response_withheld"
    assert [reply and reply.body for reply in more] == [b"second"] * (len(seen.got) - 1)


SHORT = {why: answer for why, answer in ANSWERS.items() if len(answer.data) < EVERY_BYTE}


@pytest.mark.parametrize("answer", SHORT.values(), ids=SHORT.keys())
def test_how_an_answer_is_cut_changes_nothing(answer: Answer) -> None:
    """Except that what has begun can only be broken off."""
    whole, bytewise = talk(answer, SEARCHED), talk(answer, SEARCHED, step=1)

    if answer.verdict is Verdict.PASSES:
        assert bytewise.exchanges[0].reply == whole.exchanges[0].reply
    else:
        assert verdict_of(bytewise) in (answer.verdict, Verdict.BROKEN)
        assert b"poison" not in bytewise.got[0][0]
