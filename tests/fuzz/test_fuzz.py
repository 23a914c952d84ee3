"""The corpus and the seeds, once through; and that the targets see what they are there to see.

`make fuzz` makes new inputs; here those that are kept run again, without an engine. A file of the
corpus called ``finding-...`` once broke a rule.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coatcheck.core import body_multipart, coding, escaping, placeholder, policy, redact
from coatcheck.core.destination import Destination, DomainPattern
from coatcheck.core.escaping import Escaping
from coatcheck.core.policy import Egress
from coatcheck.engine import http1, names
from tests.fuzz import pairs, worker
from tests.fuzz.__main__ import main
from tests.fuzz.case import Finding, Target, cuttings, holds_value
from tests.fuzz.targets import TARGETS
from tests.fuzz.worker import MAX_SIZE, State

CORPUS = Path(__file__).parent / "corpus"
MAX_CORPUS = 2 * 1024 * 1024  # bytes
PAIRS = 20_000


def inputs(name: str) -> Iterator[tuple[str, bytes]]:
    """The seeds of a target and its files, each with what to call it."""
    for at, seed in enumerate(TARGETS[name].seeds):
        yield f"seed {at}", seed
    for path in sorted((CORPUS / name).glob("*")):
        yield str(path.relative_to(CORPUS)), path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_of_the_corpus_breaks_a_rule(name: str) -> None:
    broken, deep = [], 0
    for called, data in inputs(name):
        try:
            deep += TARGETS[name].run(data)
        except Exception as error:  # whatever it is, the others are to be told too
            broken.append(f"{called}: {type(error).__name__}: {error}"[:300])

    assert broken == []
    assert deep > 2, "hardly an input gets through to what is behind the first checks"


def test_the_corpus_is_small_and_has_a_folder_for_each_target() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]

    assert {path.name for path in CORPUS.iterdir()} <= set(TARGETS)
    assert sum(path.stat().st_size for path in files) < MAX_CORPUS
    assert max((path.stat().st_size for path in files), default=0) <= MAX_SIZE
    assert len({(path.parent, path.read_bytes()) for path in files}) == len(files)


@pytest.mark.slow
def test_two_matchers_agree_on_near_misses_of_all_kinds() -> None:
    seen = pairs.compare(PAIRS, seed=20220901)

    assert seen.count == 0, str(seen)
    # Both answers must be common, or agreement says little.
    assert PAIRS // 5 < seen.held < PAIRS * 4 // 5


# --- what a target sees ------------------------------------------------------------------------

type Break = Callable[[pytest.MonkeyPatch], None]


def _pattern(module: object, name: str, old: bytes, new: bytes) -> Break:
    """A regular expression of *module* with *new* for *old*."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        was: re.Pattern[bytes] = getattr(module, name)
        assert old in was.pattern
        patch.setattr(module, name, re.compile(was.pattern.replace(old, new), was.flags))

    return apply


def _set(owner: object, name: str, value: object) -> Break:
    return lambda patch: patch.setattr(owner, name, value)


def _ends_alike(pattern: DomainPattern, destination: Destination) -> bool:
    return pattern.any or destination.host.endswith(pattern.host)


def _all_held_back_goes(self: redact.Redactor, data: bytes) -> bytes:
    return self._needles.redact(data, self.hits)


def _counted_with_its_end(data: bytes, at: int = 0) -> tuple[int, int]:
    end = data.find(b"\r\n\r\n", at)
    return end, (end if end >= 0 else len(data)) - at


def _no_deny(egress: Egress, destination: Destination) -> bool:
    return egress.default_allow or any(p.matches(destination) for p in egress.allow)


BROKEN: list[tuple[str, Break, str]] = [
    (
        "request-heads",
        _set(names, "check_host", lambda *given, **options: None),
        "Host may name another host",
    ),
    (
        "request-heads",
        _set(http1, "find_end", _counted_with_its_end),
        "the bound of a head counts a part of its end",
    ),
    (
        "response-heads",
        _pattern(http1, "_SUSPECT", rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|", b""),
        "control characters are taken",
    ),
    (
        "response-heads",
        _set(http1, "is_interim", lambda head: head[9:10] == b"1" and head[9:12] != b"101"),
        "what looks like an interim head is one",
    ),
    (
        "chunked-bodies",
        _pattern(http1, "_CHUNK_LINE", b"([0-9A-Fa-f]", rb"(\+?[0-9A-Fa-f]"),
        "a sign before a chunk size",
    ),
    (
        "chunked-bodies",
        _pattern(http1, "_CHUNK_LINE", rb"\r\n", rb"\r?\n"),
        "a bare LF behind a chunk size",
    ),
    ("destinations", _set(DomainPattern, "matches", _ends_alike), "hosts compared by their ends"),
    (
        "whole-answers",
        _set(redact.Redactor, "feed", _all_held_back_goes),
        "nothing is held back in an answer",
    ),
    (
        "json-and-forms",
        _set(escaping, "JSON", Escaping("json", escaping.decode_json, escaping.encode_raw, 6)),
        "a value in JSON as it is",
    ),
    (
        "placeholders",
        _set(placeholder.Grammar, "scan", lambda self, text: (self.find(text), len(text))),
        "a placeholder that is cut is lost",
    ),
    (
        "multipart",
        _set(body_multipart, "_name", lambda disposition: "a"),
        "every part goes by one name",
    ),
    ("policies", _set(policy, "egress_allows", _no_deny), "deny: does not beat allow:"),
    (
        "codings",
        _set(coding._Gzip, "is_complete", lambda self: True),
        "a gzip body that breaks off",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "break_it"),
    [pytest.param(name, broken, id=f"{name}: {what}") for name, broken, what in BROKEN],
)
def test_a_check_that_is_gone_is_seen(
    name: str, break_it: Break, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what is kept for it, without an engine."""
    break_it(monkeypatch)

    with pytest.raises(Finding):
        _run_all(name)


def _run_all(name: str) -> None:
    for _, data in inputs(name):
        TARGETS[name].run(data)


def test_cuttings_are_of_the_whole_and_always_the_same() -> None:
    for data in (b"", b"a", b"ab\r\ncd\r\n\r\n" * 9, bytes(range(256)) * 3):
        cut = list(cuttings(data))
        assert cut == list(cuttings(data))
        assert {b"".join(pieces) for pieces in cut} == {data}
        assert len(data) < 2 or max(len(pieces) for pieces in cut) > 1


@pytest.mark.parametrize(
    ("data", "leaks"),
    [
        pytest.param(b"x sk_canary_Zq7Wv3Xn9Kd5 y", True, id="a value"),
        pytest.param(b"ary_Zq7W", True, id="eight bytes of it"),
        pytest.param(b"ary_Zq7 W", False, id="seven"),
        pytest.param(b"c2tfY2FuYXJ5", True, id="its base64"),
        pytest.param(b"******** sk_live_0123", False, id="something else"),
    ],
)
def test_what_counts_as_a_leak(data: bytes, leaks: bool) -> None:
    assert (holds_value(data) is not None) is leaks


# --- the engine --------------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., State]]:
    """Runs one case of a target that is made for it."""
    monkeypatch.setattr(worker, "CASE_CPU_S", 0.05)
    before = signal.getsignal(signal.SIGPROF)

    def run(case: Callable[[bytes], bool]) -> State:
        made = worker.Bench(Target("made", case, [b""], [b""]), tmp_path, seconds=1000.0)
        made.run(b"an input")
        return made.state

    yield run
    signal.signal(signal.SIGPROF, before)


def _never_ends(data: bytes) -> bool:
    while True:
        try:
            sum(range(1000))
        except Exception:  # what the product does with what it does not know
            continue


def _breaks(data: bytes) -> bool:
    raise Finding("a rule", data)


@pytest.mark.parametrize(
    ("case", "rule"),
    [
        pytest.param(_breaks, "a rule", id="a rule that is broken"),
        pytest.param(lambda data: data[99] > 0, "IndexError in test_fuzz.py", id="an exception"),
        pytest.param(_never_ends, "a hang", id="a case that does not end"),
    ],
)
def test_what_is_a_finding(
    bench: Callable[..., State], case: Callable[[bytes], bool], rule: str, tmp_path: Path
) -> None:
    state = bench(case)

    (found,) = state.findings
    assert found.startswith(rule)
    assert [p.read_bytes() for p in (tmp_path / "findings").glob("*[!t]")] == [b"an input"]


def test_a_case_that_breaks_nothing_is_none(bench: Callable[..., State], tmp_path: Path) -> None:
    state = bench(lambda data: True)

    assert (state.cases, state.deep, dict(state.findings)) == (1, 1, {})
    state.write(tmp_path / "state.json")
    assert State.read(tmp_path / "state.json") == state


def test_without_its_engine_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "atheris", None)
    monkeypatch.setattr(sys, "argv", ["fuzz"])

    assert main() == 1
    assert "make fuzz" in capsys.readouterr().err
