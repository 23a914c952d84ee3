"""ORC: what a stream lets go, and when, does not tell whether a guess begins a value.

An allowed upstream is the attacker's accomplice here: it sends the first k bytes of the value, or k
bytes that are none, waits, and sends the rest. A scrubber that holds back only what may begin a
value is told from one that does not by a client that counts bytes, one right byte after the other.

The strong assertion is exact: as many bytes before the pause in one case as in the other. Arrival
times are compared with the two-sample Kolmogorov-Smirnov test. The two cases alternate at random on
one connection, so that a busy machine slows both; and one unlucky p in a hundred is what the test
promises, so a second, fresh sample decides where the first one fails. The controls run the same
proxy with a redactor that depends on the content, and must be found out.
"""

from __future__ import annotations

import math
import os
import random
import string
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import coatcheck
from coatcheck.core.redact import Needles
from coatcheck.core.secret import SecretValue
from tests.e2e import harness
from tests.e2e.harness import Proxy, api_only
from tests.e2e.upstream import Exchange, Upstream
from tests.e2e.wire import Wire, request
from tests.e2e.world import World

VALUE = b"tk_9Zr4Lw7Qm2Xv6Bn1Hd8Ks3Yp5Gc0Ft"
WINDOW = Needles.build([SecretValue("key", 1, VALUE)]).window
REPETITIONS = 200
LOOK_ON_S = 0.002  # after the bytes that are due: none may follow
GIVE_UP_S = 5.0
POLICY = harness.CLIENTS + 'grants:\n  - {secrets: ["*"], clients: [runner]}\n'
KINDS = {
    "text": (b"text/plain", b"filler, filler. " * 100),
    "events": (b"text/event-stream", b"data: filler\n\n" * 10 + b"data: "),
}
# Two ways to depend on the content: in how much is held back, and in how long it takes.
LEAKY = """
import time
from coatcheck.core import redact, scrubbing

VALUE = {value!r}

class Leaky(redact.Redactor):
    def _step(self, data):
        begun = max((n for n in range(len(VALUE) + 1) if data.endswith(VALUE[:n])), default=0)
        {do}

scrubbing.Redactor = Leaky
"""
AMOUNT = "return self._write(data, len(data) - begun, self._needles._search.find(data))"
DURATION = "time.sleep(0.001 if begun else 0); return super()._step(data)"


@dataclass(frozen=True)
class Seen:
    """One repetition: how many bytes of the body came before the pause, and how soon."""

    let_go: int
    seconds: float


class Accomplice:
    """The upstream's side: sends a first part, notes when, and waits until it may go on."""

    def __init__(self, upstream: Upstream) -> None:
        self.parts: tuple[bytes, bytes] = (b"", b"")
        self.kind = b""
        self.sent_at = 0.0
        self.gate = upstream.gate("guess")
        upstream.modes["guess"] = self._answer

    async def _answer(self, at: Exchange) -> None:
        first, rest = self.parts
        length = len(first) + len(rest)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
        self.sent_at = time.perf_counter()
        await at.send(head % (self.kind, length) + first)
        await at.wait_gate()
        await at.send(rest)


@pytest.fixture(scope="module")
def accomplice(every_upstream: Upstream) -> Accomplice:
    return Accomplice(every_upstream)


@pytest.fixture(scope="module")
def start(world: World, folder: Path, upstream_ca: Path) -> Iterator[Callable[[str], Proxy]]:
    """A proxy whose redactor is the right one, or does as it is told."""
    started: list[Proxy] = []

    def start(name: str, do: str = "") -> Proxy:
        home = harness.make_home(folder / f"holdback-{name}", {"key": api_only(VALUE)}, POLICY)
        variables = {}
        if do:
            (home / "sitecustomize.py").write_text(LEAKY.format(value=VALUE, do=do))
            source = Path(coatcheck.__file__).parents[1]
            variables["PYTHONPATH"] = f"{source}{os.pathsep}{home}"
        made = Proxy(world, home, upstream_ca, **variables)
        started.append(made)
        return made.wait_ready()

    yield start
    for made in started:
        made.stop()


@pytest.fixture(scope="module")
def right(start: Callable[..., Proxy]) -> Proxy:
    return start("right")


# --- one repetition ------------------------------------------------------------------------------


def content(data: bytes) -> bytes:
    """What has come of a chunked body so far."""
    out, at = b"", data.find(b"\r\n\r\n") + 4
    while at >= 4 and (end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:end], 16)
        out += data[end + 2 : end + 2 + size]
        at = end + size + 4
    return out


def receive(wire: Wire, timeout_s: float) -> bool:
    wire.sock.settimeout(timeout_s)
    try:
        data = wire.sock.recv(65536)
    except TimeoutError:
        return False
    assert data
    wire.buffer += data
    return True


def due(first: bytes, kind: str) -> int:
    """How much of *first* is let go, whatever it is."""
    event = first.rfind(b"\n\n") + 2 if kind == "events" else 0
    return max(event, len(first) - WINDOW, 0)


def repetition(
    wire: Wire, accomplice: Accomplice, kind: str, guess: bytes, rest: bytes, look_on_s: float
) -> Seen:
    accomplice.kind, filler = KINDS[kind]
    first = filler + guess
    accomplice.parts = first, rest + b"\n\n"
    wire.buffer = b""
    wire.send(request("GET", "/guess/guess"))
    wanted, until = due(first, kind), time.perf_counter() + GIVE_UP_S
    while len(content(wire.buffer)) < wanted and time.perf_counter() < until:
        receive(wire, GIVE_UP_S)
    arrived = time.perf_counter()
    while receive(wire, look_on_s):
        arrived = time.perf_counter()
    seen = Seen(len(content(wire.buffer)), arrived - accomplice.sent_at)
    accomplice.gate.release()
    while not wire.buffer.endswith(b"\r\n0\r\n\r\n"):
        assert receive(wire, GIVE_UP_S)
    whole = guess + rest
    body = content(wire.buffer)
    expected = filler + whole.replace(VALUE, b"********") + b"\n\n"
    assert body == expected
    return seen


def measured(
    proxy: Proxy, accomplice: Accomplice, kind: str, count: int
) -> tuple[list[Seen], list[Seen]]:
    """*count* repetitions with beginnings of the value, and as many with others as long."""
    order = random.Random()
    begun: list[Seen] = []
    other: list[Seen] = []
    letters = [letter for letter in string.ascii_letters.encode() if letter != VALUE[0]]
    with proxy.dial(harness.RUNNER).tunnel() as wire:
        for _ in range(count):
            k = order.randint(1, len(VALUE) - 1)
            noise = bytes(order.choices(letters, k=len(VALUE)))
            cases = [(begun, VALUE), (other, noise)]
            order.shuffle(cases)
            for kept, text in cases:
                kept.append(repetition(wire, accomplice, kind, text[:k], text[k:], LOOK_ON_S))
    return begun, other


# --- what they tell ------------------------------------------------------------------------------


def same_by_ks(one: Sequence[float], two: Sequence[float]) -> float:
    """The p of the two-sample Kolmogorov-Smirnov test (asymptotic; good from some 20 on)."""
    values = sorted({*one, *two})
    ranks = [(_share(one, value), _share(two, value)) for value in values]
    distance = max(abs(a - b) for a, b in ranks)
    size = math.sqrt(len(one) * len(two) / (len(one) + len(two)))
    scaled = (size + 0.12 + 0.11 / size) * distance
    if scaled < 0.2:
        return 1.0
    terms = ((-1) ** (j - 1) * math.exp(-2 * j * j * scaled * scaled) for j in range(1, 101))
    return min(1.0, max(0.0, 2 * sum(terms)))


def _share(values: Sequence[float], limit: float) -> float:
    return sum(value <= limit for value in values) / len(values)


def times(seen: Sequence[Seen]) -> list[float]:
    return [one.seconds for one in seen]


def amounts(seen: Sequence[Seen]) -> list[int]:
    return [one.let_go for one in seen]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_orc_03_a_right_guess_changes_nothing(
    kind: str, right: Proxy, accomplice: Accomplice
) -> None:
    """In how much comes, and in when it comes, at any length of the guess."""
    for again in (True, False):
        begun, other = measured(right, accomplice, kind, REPETITIONS)

        assert amounts(begun) == amounts(other)
        p = same_by_ks(times(begun), times(other))
        if p > 0.01 or not again:
            break
    assert p > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_orc_03_a_redactor_that_holds_back_a_beginning_is_found_out(
    kind: str, start: Callable[..., Proxy], accomplice: Accomplice
) -> None:
    begun, other = measured(start(f"amount-{kind}", AMOUNT), accomplice, kind, 20)

    assert all(a < b for a, b in zip(amounts(begun), amounts(other), strict=True))


@pytest.mark.slow
def test_orc_03_a_redactor_that_takes_longer_is_found_out(
    start: Callable[..., Proxy], accomplice: Accomplice
) -> None:
    """One millisecond, in the times alone."""
    begun, other = measured(start("duration", DURATION), accomplice, "text", REPETITIONS)

    assert amounts(begun) == amounts(other)
    assert same_by_ks(times(begun), times(other)) < 0.01


def costs_s(needles: Needles, one: bytes, two: bytes) -> tuple[float, float]:
    """The least CPU time of each, taken in turn; of several copies, since where one lies in memory
    makes a difference too."""
    taken: dict[bytes, list[float]] = {one: [], two: []}
    for _ in range(8):
        copies = [(bytes(bytearray(text)), seconds) for text, seconds in taken.items()]
        for _ in range(50):
            for text, seconds in copies:
                begun = time.thread_time()
                needles.contains(text)
                seconds.append(time.thread_time() - begun)
    return min(taken[one]), min(taken[two])


def cost_alike(needles: Needles, one: bytes, two: bytes, times: float) -> bool:
    """At one of three looks: what others do on the machine makes a difference now and then, and one
    that is there shows each time."""
    looks = (costs_s(needles, one, two) for _ in range(3))
    return any(b / times < a < b * times for a, b in looks)


def test_a_cost_that_is_not_alike_is_seen() -> None:
    """The whole value, said often."""
    needles = Needles.build([SecretValue("key", 1, VALUE)])
    right, wrong = ((write + b" ") * 1_000 for write in (VALUE, b"qU8*" * 8))

    assert not cost_alike(needles, right, wrong, 1.33)


def escaped(text: bytes) -> bytes:
    return b"".join(b"\\u%04x" % byte for byte in text)


@pytest.mark.parametrize(
    ("guess", "other", "times"),
    [
        pytest.param(VALUE[:7], b"qU8*qU8", 1.33, id="7 bytes"),
        pytest.param(VALUE[:7].hex().encode(), b"5a" * 7, 1.33, id="7 bytes in hexadecimal"),
        pytest.param(escaped(VALUE[:7]), escaped(b"qU8*qU8"), 1.33, id="7 bytes escaped"),
        pytest.param(VALUE[:-1], b"qU8*" * 8, 1.33, id="all but one"),
        pytest.param(escaped(VALUE[:-1]), escaped(b"qU8*" * 8), 1.33, id="all but one escaped"),
    ],
)
@pytest.mark.parametrize("size", [2_000, 60_000])
def test_orc_03_a_right_guess_takes_no_longer(
    size: int, guess: bytes, other: bytes, times: float
) -> None:
    needles = Needles.build([SecretValue("key", 1, VALUE)])
    filler = b"filler, filler. " * (size // 16)

    assert cost_alike(needles, filler + guess, filler + other, times)


@pytest.mark.parametrize("write", [bytes, escaped, lambda text: text.hex().encode()])
@pytest.mark.parametrize("start", [0, 13, len(VALUE) - 7])
def test_orc_03_many_right_guesses_take_no_longer(
    start: int, write: Callable[[bytes], bytes]
) -> None:
    """Nobody can make a small difference large by saying the same often."""
    needles = Needles.build([SecretValue("key", 1, VALUE)])
    guesses = VALUE[start : start + 7], b"qU8*qU8"
    many, others = (
        b"".join((write(one) + bytes(at % 8)) for at in range(2_000)) for one in guesses
    )

    assert cost_alike(needles, many, others, 1.33)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 8, len(VALUE) // 2, len(VALUE) - 1])
def test_orc_04_no_pause_lets_a_part_go(
    k: int, kind: str, right: Proxy, accomplice: Accomplice
) -> None:
    """Nothing is let go because nothing comes."""
    with right.dial(harness.RUNNER).tunnel() as wire:
        seen = repetition(wire, accomplice, kind, VALUE[:k], VALUE[k:], 0.4)
    assert seen.let_go == due(KINDS[kind][1] + VALUE[:k], kind)


@pytest.mark.parametrize(
    ("two", "low", "high"),
    [
        pytest.param([n / 100 for n in range(100)], 0.99, 1.0, id="the same"),
        pytest.param([n / 100 + 0.005 for n in range(100)], 0.5, 1.0, id="hardly apart"),
        pytest.param([n / 100 + 0.3 for n in range(100)], 0.0, 0.001, id="apart"),
        # scipy.stats.ks_2samp, method "asymp": D = 0.2, p = 0.037.
        pytest.param([n / 100 + 0.2 for n in range(100)], 0.02, 0.05, id="a bit apart"),
    ],
)
def test_the_measure(two: list[float], low: float, high: float) -> None:
    assert low <= same_by_ks([n / 100 for n in range(100)], two) <= high
