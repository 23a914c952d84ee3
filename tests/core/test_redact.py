"""The scrubber: what is masked, that chunks never show, and that delay tells nothing."""

from __future__ import annotations

import base64
import copy
import itertools
import pickle
import random
import re
from collections import Counter
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck.core import spelling
from coatcheck.core.needle import BREAK_MARKS, BREAKS
from coatcheck.core.redact import EVENT, MASK, RECORD, Hit, Needles, Redactor
from coatcheck.core.runs import LEFT
from coatcheck.core.secret import SecretValue
from tests.fuzz import redactor
from tests.fuzz.redact_reference import EVENT_ENDS, RECORD_ENDS, Reference
from tests.long import LONG

TOKEN = b"sk_live_51HqZ8KJhG2eZvKYlo2C0aBcDeFg"
PASSWORD = b'p@ss "w\\rd" & m0re/+=\xc3\xa9'
PEM = b"-----BEGIN X-----\n" + b"MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEA\n" * 6 + b"Qx7=\n"

SETS: dict[str, tuple[bytes, ...]] = {
    "one token": (TOKEN,),
    "token and password": (TOKEN, PASSWORD),
    "self-overlapping": (b"abacabac", b"aaaaaaaa"),
    "prefix, infix and suffix of another": (
        b"0123456789abcdef",
        b"01234567",
        b"456789ab",
        b"89abcdef",
    ),
    "overlapping each other": (b"headmiddle", b"middletail", b"tailhead99"),
    "the same value twice": (TOKEN, TOKEN),
    "a hexadecimal value": (b"deadbeefcafe0123",),
    "lines": (PEM,),
    "short": (b"1234", b"45678"),
    "short lines": (b"ab\ncd\nef\ngh\nij",),
    "the mask's own bytes": (b"********!", b"**secret**"),
}


def secrets(values: tuple[bytes, ...]) -> list[SecretValue]:
    return [SecretValue(f"s{i}", 1, value) for i, value in enumerate(values)]


@cache
def needles_of(name: str) -> Needles:
    return Needles.build(secrets(SETS[name]))


@cache
def reference_of(name: str) -> Reference:
    return Reference(SETS[name])


type Events = re.Pattern[bytes] | None


def stream(needles: Needles, data: bytes, cuts: list[int], *, events: Events = None) -> bytes:
    redactor = Redactor(needles, events=events)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[a:b] for a, b in itertools.pairwise(edges)]
    fed = b"".join([*(redactor.feed(chunk) for chunk in chunks), redactor.finish()])
    other = Redactor(needles, events=events)
    pieces = [piece for chunk in chunks for piece in other.pieces(chunk)]
    assert b"".join([*pieces, other.finish()]) == fed  # cut in another way, and nothing else
    assert other.hits == redactor.hits
    return fed


@st.composite
def bodies(draw: st.DrawFn, values: tuple[bytes, ...]) -> bytes:
    """Values, their halves and their writings, with ordinary text and noise between."""
    written = sorted({n.text for value in values for n in spelling.needles(value)})
    whole = st.sampled_from([*values, *(base64.b64encode(b"u:" + v) for v in values)])
    piece = st.one_of(
        whole,
        whole,
        st.sampled_from(written or [b"nothing"]),
        st.tuples(whole, st.integers(0, 64)).map(lambda p: p[0][: p[1]]),
        st.tuples(whole, st.integers(0, 64)).map(lambda p: p[0][p[1] :]),
        st.sampled_from(
            [b"\n", b"\r\n", b"data: ", b" ", b"a", b"=", b"AAAA", b"****", b"{}\n\n", b"\r\r"]
        ),
        st.binary(max_size=12),
    )
    return b"".join(draw(st.lists(piece, max_size=10)))


CUTS = st.lists(st.integers(0, 600), max_size=12)
EACH_SET = pytest.mark.parametrize("name", SETS)


@EACH_SET
@settings(max_examples=180 if LONG else 30, deadline=None)
@given(data=st.data())
def test_it_agrees_with_plain_loops_whatever_the_chunks(name: str, data: st.DataObject) -> None:
    body = data.draw(bodies(SETS[name]))
    expected = reference_of(name).redact(body)

    assert needles_of(name).redact(body) == expected
    assert stream(needles_of(name), body, data.draw(CUTS)) == expected
    assert stream(needles_of(name), body, list(range(len(body)))) == expected


ENDS = {EVENT: EVENT_ENDS, RECORD: RECORD_ENDS}
EACH_KIND = pytest.mark.parametrize("events", ENDS, ids=["events", "records"])


@EACH_KIND
@EACH_SET
@settings(max_examples=60 if LONG else 10, deadline=None)
@given(data=st.data())
def test_each_event_agrees_with_plain_loops_as_if_it_were_alone(
    name: str, events: re.Pattern[bytes], data: st.DataObject
) -> None:
    body = data.draw(bodies(SETS[name]))
    if needles_of(name).by_event:
        expected = reference_of(name).redact_events(body, ENDS[events])
    else:
        expected = reference_of(name).redact(body)

    assert stream(needles_of(name), body, data.draw(CUTS), events=events) == expected
    assert stream(needles_of(name), body, list(range(len(body))), events=events) == expected


@settings(deadline=None)
@given(text=st.lists(st.sampled_from(list("\\rn%0aAdD=\r\n \tx")), max_size=9).map("".join))
def test_no_line_end_is_passed_over_for_want_of_its_mark(text: str) -> None:
    data = text.encode()
    marked = any(mark in data for mark in BREAK_MARKS)
    assert marked or BREAKS.search(data) is None


@settings(max_examples=180 if LONG else 30, deadline=None)
@given(data=st.data())
def test_generated_values_over_two_letters_agree_too(data: st.DataObject) -> None:
    """Short alphabets make values that overlap themselves and each other everywhere."""
    word = st.text("ab", min_size=4, max_size=14).map(str.encode)
    values = tuple(data.draw(st.lists(word, min_size=1, max_size=3)))
    body = data.draw(st.text("ab", max_size=80).map(str.encode))
    needles = Needles.build(secrets(values))

    assert stream(needles, body, data.draw(CUTS)) == Reference(values).redact(body)


@EACH_SET
@settings(max_examples=120 if LONG else 20, deadline=None)
@given(data=st.data())
def test_hits_do_not_depend_on_the_chunks(name: str, data: st.DataObject) -> None:
    body = data.draw(bodies(SETS[name]))
    whole: Counter[Hit] = Counter()
    needles_of(name).redact(body, whole)

    redactor = Redactor(needles_of(name))
    for byte in body:
        redactor.feed(bytes([byte]))
    redactor.finish()

    assert redactor.hits == whole


@settings(max_examples=300 if LONG else 60, deadline=None)
@given(body=st.binary(max_size=3000), cuts=CUTS, events=st.sampled_from([None, EVENT, RECORD]))
def test_a_body_without_a_value_passes_byte_identical(
    body: bytes, cuts: list[int], events: Events
) -> None:
    assert stream(needles_of("one token"), body, cuts, events=events) == body


def test_a_long_body_is_searched_where_a_needle_may_stand() -> None:
    """Above a kilobyte another path of the search is taken; each needle must pass it."""
    for name in SETS:
        for value in SETS[name]:
            for needle in spelling.needles(value):
                assert needles_of(name).contains(b"~" * 2000 + needle.text + b"~" * 2000)


# --- nothing of a value survives -----------------------------------------------------------------


def windows(value: bytes) -> set[bytes]:
    return {value[i : i + 8] for i in range(len(value) - 7)}


@settings(max_examples=450 if LONG else 90, deadline=None)
@given(data=st.data())
def test_no_eight_bytes_of_a_value_survive(data: st.DataObject) -> None:
    """Values on end, and laid over each other where the end of one begins the next."""
    values = SETS["overlapping each other"] + SETS["self-overlapping"]
    needles = Needles.build(secrets(values))
    body = b""
    for value in data.draw(st.lists(st.sampled_from(values), min_size=1, max_size=6)):
        shared = next(k for k in range(len(value), -1, -1) if body.endswith(value[:k]))
        joint = data.draw(st.sampled_from([0, shared]))
        body += value[joint:] + data.draw(st.sampled_from([b"", b"~", b"<>", b"\n"]))

    out = stream(needles, body, data.draw(CUTS))

    assert not [w for value in values for w in windows(value) if w in out]


@pytest.mark.parametrize(
    ("values", "body", "expected"),
    [
        pytest.param((b"abacabac",), b"abacabacabac", MASK, id="a value over itself"),
        pytest.param((b"aaaaaaaa",), b"a" * 20, MASK, id="one letter"),
        pytest.param((b"abacabac",), b"abaabacabac", b"aba" + MASK, id="a false start"),
        pytest.param(
            (b"prefix-suffix", b"prefix-s"), b"prefix-suffix", MASK, id="one begins the other"
        ),
        pytest.param((b"prefix-suffix", b"-suffix!"), b"prefix-suffix!", MASK, id="a chain of two"),
        pytest.param(
            (b"headmiddle", b"middletail"), b"headmiddletail", MASK, id="the middle in both"
        ),
        pytest.param((b"password1",), b"password1password1", MASK * 2, id="side by side"),
        pytest.param(
            (b"password1",), b"[password1,password1]", b"[%b,%b]" % (MASK, MASK), id="two"
        ),
    ],
)
def test_overlapping_occurrences_go_as_one(
    values: tuple[bytes, ...], body: bytes, expected: bytes
) -> None:
    needles = Needles.build(secrets(values))

    assert needles.redact(body) == expected
    assert stream(needles, body, list(range(len(body)))) == expected


def test_a_base64_run_is_swallowed_however_long_it_streams() -> None:
    run = base64.b64encode(b"x" * 40 + TOKEN + b"y" * 30_000)
    redactor = Redactor(needles_of("one token"))

    parts = [redactor.feed(b'"' + run[:100])]
    parts += [redactor.feed(run[at : at + 1000]) for at in range(100, len(run), 1000)]
    swallowed = sum(map(len, parts))
    parts += [redactor.feed(b'", "next": 1'), redactor.finish()]

    assert swallowed == 1 + len(MASK)
    assert b"".join(parts) == b'"' + MASK + b'", "next": 1'


def _in_lines(text: bytes) -> bytes:
    coded = base64.b64encode(text)
    return b"\n".join(coded[at : at + 64] for at in range(0, len(coded), 64))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"." * 70_000 + TOKEN + b"." * 70_000, id="raw"),
        pytest.param(
            b"." * 69_990 + b"\n" + _in_lines(b"x" * 95 + TOKEN + b"y" * 300) + b"." * 69_990,
            id="base64, from the end of a line on",
        ),
        pytest.param(b"." * 70_000 + b"1234".join((b"<", b">")) + b"." * 70_000, id="tiny"),
    ],
)
def test_what_goes_on_in_large_pieces_is_scrubbed_as_if_it_came_whole(body: bytes) -> None:
    """`Redactor.pieces` puts nothing together where nothing is found."""
    needles = Needles.build(secrets((TOKEN, b"1234")))
    expected = needles.redact(body)
    first = body.rindex(b"." * 1000, 0, 70_000) + 900
    last = len(body) - 69_900
    assert expected.count(MASK) == 1

    for cut in range(first, last + needles.window + 200):
        redactor = Redactor(needles)
        parts = [*redactor.pieces(body[:cut]), *redactor.pieces(body[cut:]), redactor.finish()]
        assert b"".join(parts) == expected, cut


def test_a_large_piece_in_which_nothing_is_found_is_not_copied() -> None:
    redactor = Redactor(needles_of("one token"))
    first, second = b"." * 100_000, b"," * 100_000

    redactor.feed(first)
    tail, piece = redactor.pieces(second)

    assert isinstance(piece, memoryview)
    assert piece.obj is second
    assert len(tail) == needles_of("one token").window


def test_a_base64_run_goes_64_bytes_to_the_left_and_no_further() -> None:
    """Bytes that were let go cannot be taken back, so there must be a limit."""
    run = base64.b64encode(b"x" * 300 + TOKEN)
    at = 400

    assert needles_of("one token").redact(b" " + run) == b" " + run[: at - LEFT] + MASK


@pytest.mark.parametrize(
    ("before", "after", "left", "right"),
    [
        pytest.param(b'"\\n', b'\\n"', b'"\\n', b'\\n"', id="escapes of JSON stay whole"),
        pytest.param(b'"\\\\', b'"', b'"\\\\', b'"', id="so does an escaped backslash"),
        pytest.param(b'"\\u000a', b'\\u000a"', b'"\\u000a', b'\\u000a"', id="and an escaped unit"),
        pytest.param(b"?k=%3D", b"%3D&l", b"?k=%3D", b"%3D&l", id="escapes of URLs stay whole"),
        pytest.param(b"&lt;", b"&gt;", b"&lt;", b"&gt;", id="references stay whole"),
        pytest.param(b'"ab\\/', b'\\/yz"', b'"ab\\/', b'"', id="three escaped characters more go"),
        pytest.param(b"=ab%2F", b"%2Byz&", b"=ab%2F", b"&", id="percent-encoded ones too"),
    ],
)
def test_a_run_ends_where_the_text_stays_well_formed(
    before: bytes, after: bytes, left: bytes, right: bytes
) -> None:
    run = base64.b64encode(b"me:" + TOKEN)

    assert needles_of("one token").redact(before + run + after) == left + MASK + right


def test_a_short_value_keeps_the_room_to_the_left_of_a_base64_match() -> None:
    """Its needles are shorter than that room, so the window must be wider than they ask for."""
    values = (b"hunter2!",)
    needles = Needles.build(secrets(values))
    body = b"- " + base64.b64encode(b"x" * 45 + values[0] + b"y" * 9) + b" -"

    assert needles.window >= LEFT + 7
    assert stream(needles, body, list(range(len(body)))) == b"- ******** -"


# --- delay ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("events", [None, EVENT, RECORD], ids=["stream", "events", "records"])
@pytest.mark.parametrize("step", [1, 7, 64, 1000])
@pytest.mark.parametrize("name", ["one token", "token and password", "lines"])
def test_what_is_held_back_does_not_depend_on_the_content(
    name: str, step: int, events: Events
) -> None:
    """A right prefix of the value, any length of it, comes through when noise would."""
    noise = random.Random(7).randbytes(1200).replace(b"\n", b"x").replace(b"\r", b"x")
    noise = noise[:500] + b"\n" + noise[501:]
    value = SETS[name][0].split(b"\n")[0]
    expected = timeline(needles_of(name), noise, step, events)

    # Bit by bit takes long: all lengths come up there, but in each place only in `make long`.
    for k in range(1, len(value)):
        places = (0, 300, 501, len(noise) - k)
        for at in places if step > 1 or LONG else places[k % 4 :][:1]:
            guess = noise[:at] + value[:k] + noise[at + k :]
            guess = guess[:500] + b"\n" + guess[501:]
            assert timeline(needles_of(name), guess, step, events) == expected


def timeline(needles: Needles, body: bytes, step: int, events: Events) -> list[int]:
    redactor = Redactor(needles, events=events)
    return [len(redactor.feed(body[at : at + step])) for at in range(0, len(body), step)]


@pytest.mark.parametrize("step", [1, 10, 300])
def test_a_whole_value_changes_the_output_where_it_stands_and_not_before(step: int) -> None:
    """Bytes leave when `window` more have come: the mask in place of the value's first byte."""
    needles, at = needles_of("one token"), 700
    body = b"." * at + TOKEN + b"." * 700
    redactor = Redactor(needles)

    out = b""
    for came in range(step, len(body), step):
        out += redactor.feed(body[came - step : came])
        left = max(0, came - needles.window)  # this much of the body has left the window
        inside = min(max(left - at, 0), len(TOKEN))
        assert len(out) == left - inside + (len(MASK) if inside else 0)


def test_the_window_holds_the_longest_needle_but_one_byte() -> None:
    """And room to the left of a base64 match, which longer spellings mostly give for nothing."""
    longest = max(needle.reach() for needle in spelling.needles(TOKEN))

    assert needles_of("one token").longest == longest
    assert needles_of("one token").window == longest - 1


@pytest.mark.parametrize("size", [200, 4000, 16 * 1024])
def test_the_window_stays_small_for_long_values(size: int) -> None:
    value = random.Random(1).randbytes(size)
    text = base64.b64encode(value)[:size]

    assert Needles.build(secrets((text,))).window < 2048


def test_without_needles_nothing_is_held_back() -> None:
    redactor = Redactor(Needles.build([]))

    assert redactor.feed(b"at once") == b"at once"
    assert redactor.finish() == b""
    assert not Needles.build([])
    assert not Needles.build(secrets((b"abc",)))
    assert needles_of("one token")


# --- event streams -------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_is_let_go_when_it_is_complete(end: bytes) -> None:
    redactor = Redactor(needles_of("one token"), events=EVENT)
    first = b"data: hello" + end * 2

    assert redactor.feed(first) == first
    assert redactor.feed(b"data: " + TOKEN[:20]) == b""
    assert redactor.feed(TOKEN[20:]) == b""
    assert redactor.feed(end * 2) == b"data: " + MASK + end * 2
    assert redactor.feed(first + b"data: ha") == first
    assert redactor.feed(b"lf") == b""
    assert redactor.finish() == b"data: half"


def test_a_line_longer_than_the_window_is_let_go_as_in_any_stream() -> None:
    redactor = Redactor(needles_of("one token"), events=EVENT)

    assert len(redactor.feed(b"." * 1000)) == 1000 - needles_of("one token").window


def test_a_key_of_several_lines_is_masked_line_by_line_in_an_event() -> None:
    redactor = Redactor(needles_of("lines"), events=EVENT)
    lines = [b"data: " + line for line in PEM.splitlines()]

    out = b"".join([*(redactor.feed(line + b"\n") for line in lines), redactor.finish()])

    secret = b"data: " + MASK
    assert out.splitlines() == [lines[0], *[secret] * 6, lines[-1]]  # armour; a rest under 8 bytes


RECORDS = [
    pytest.param(b'{"a": 1}\n', True, id="an object"),
    pytest.param(b'{"a": 1}\r\n', True, id="an object, CRLF"),
    pytest.param(b'\x1e["a"]\n', True, id="an array, with the separator of RFC 7464"),
    pytest.param(b'"a"\n', True, id="a string"),
    pytest.param(b"17\n", False, id="a number may be the end of a line of anything"),
    pytest.param(b"true\n", False, id="so may a word"),
    pytest.param(b'{"a": 1} \n', False, id="a blank at its end"),
]


@pytest.mark.parametrize(("record", "at_once"), RECORDS)
def test_a_record_is_let_go_when_it_is_complete(record: bytes, at_once: bool) -> None:
    redactor = Redactor(needles_of("one token"), events=RECORD)

    assert redactor.feed(record) == (record if at_once else b"")
    assert redactor.feed(b'{"b": 2}\n') == (b"" if at_once else record) + b'{"b": 2}\n'


LONG_VALUE = b"".join(b"%d-" % number for number in range(100, 150))
IN_LINES = {
    "base64 in lines of 76": base64.encodebytes(b"username=me; password=" + LONG_VALUE + b"; more"),
    "raw, broken once": LONG_VALUE[:70] + b"\n" + LONG_VALUE[70:] + b"\n",
    "raw, broken behind two characters": LONG_VALUE[:2] + b"\n" + LONG_VALUE[2:] + b"\n",
}


@pytest.mark.parametrize("text", IN_LINES.values(), ids=IN_LINES)
@pytest.mark.parametrize("events", [None, EVENT, RECORD], ids=["stream", "events", "records"])
def test_lines_do_not_save_a_value_in_whatever_the_body_is_said_to_be(
    text: bytes, events: Events
) -> None:
    needles = Needles.build([SecretValue("a", 1, LONG_VALUE)])

    for cuts in ([], list(range(len(text)))):
        out = stream(needles, text, cuts, events=events)
        assert MASK in out
        assert all(line not in out for line in text.splitlines() if len(line) > 8)


def test_blanks_at_the_begin_of_a_value_are_its_own_where_an_event_begins_with_them() -> None:
    """In the middle of a text they belong to the line end before them."""
    value = b"  abcdefghijklmnopqrstuvwxyz0123"
    needles = Needles.build([SecretValue("a", 1, value)])
    body = b"data: 1\n\n" + value[:20] + b"\n" + value[20:] + b"\n\n"

    for cuts in ([], [9], list(range(len(body)))):
        assert stream(needles, body, cuts, events=EVENT) == b"data: 1\n\n" + MASK + b"\n\n"


def test_a_value_of_short_lines_is_held_back_by_the_window() -> None:
    """Line by line it could not be found, so the delay is the price."""
    needles = needles_of("short lines")
    value = SETS["short lines"][0]
    redactor = Redactor(needles, events=EVENT)

    assert not needles.by_event
    assert redactor.feed(b"data: x\n\n") == b""
    out = b"".join([*(redactor.feed(bytes([b])) for b in value), redactor.finish()])
    assert out == b"data: x\n\n" + MASK


# --- what is written instead, what is counted ----------------------------------------------------


def test_the_replacement_may_be_the_placeholder() -> None:
    needles = Needles.build(
        [SecretValue("crm.key", 2, TOKEN), SecretValue("crm.key", 1, b"the-old-one")],
        replacement=lambda name: b"{{secrets.%b}}" % name.encode(),
    )

    assert needles.redact(b"[" + TOKEN + b", the-old-one]") == (
        b"[{{secrets.crm.key}}, {{secrets.crm.key}}]"
    )
    wide = f"[{TOKEN.decode()}]".encode("utf-16-be")
    assert needles.redact(wide).decode("utf-16-be") == "[{{secrets.crm.key}}]"


def test_a_replacement_is_never_looked_at_again() -> None:
    """The placeholder of one secret inside the value of another, and the other way round."""
    values = [SecretValue("a", 1, b"{{secrets.b}}"), SecretValue("b", 1, b"password")]
    needles = Needles.build(values, replacement=lambda name: b"{{secrets.%b}}" % name.encode())

    assert needles.redact(b"password {{secrets.b}}") == b"{{secrets.b}} {{secrets.a}}"


def test_the_first_secret_of_a_stretch_is_named_the_longest_before_the_others() -> None:
    values = secrets((b"12345678", b"1234567890", b"567890abc"))
    hits: Counter[Hit] = Counter()
    needles = Needles.build(values, replacement=lambda name: b"<%b>" % name.encode())

    assert needles.redact(b"1234567890abc", hits) == b"<s1>"
    assert hits == {Hit("s0", "raw"): 1, Hit("s1", "raw"): 1, Hit("s2", "raw"): 1}


def test_hits_say_which_secret_in_which_spelling() -> None:
    redactor = Redactor(needles_of("token and password"))

    redactor.feed(TOKEN + b" " + TOKEN.hex().encode() + b" " + TOKEN + b" ")
    redactor.feed(b"".join(b"%%%02x" % byte for byte in PASSWORD))
    redactor.finish()

    assert redactor.hits == {
        Hit("s0", "raw"): 2,
        Hit("s0", "hex"): 1,
        Hit("s1", "percent-all"): 1,
    }


def test_two_secrets_with_one_value_are_both_counted() -> None:
    hits: Counter[Hit] = Counter()

    assert needles_of("the same value twice").redact(TOKEN, hits) == MASK
    assert hits == {Hit("s0", "raw"): 1, Hit("s1", "raw"): 1}


# --- tokens --------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [bytes, base64.b64encode, lambda t: t.hex().encode()])
def test_a_token_is_found_in_every_spelling(write: Callable[[bytes], bytes]) -> None:
    token = base64.b64encode(b"me:1234")
    needles = Needles.build((), [("s0", token)])

    assert needles.redact(b"<" + write(token) + b">") == b"<" + MASK + b">"


# --- nothing shows a needle ----------------------------------------------------------------------


@pytest.mark.parametrize("show", [repr, str, "{}".format, "%r".__mod__])
def test_needles_and_redactors_do_not_show_what_they_hold(show: object) -> None:
    values = [SecretValue("s0", 1, TOKEN)]
    needles = Needles.build(values, [("s0", b"a token that was sent")])
    redactor = Redactor(needles)
    redactor.feed(TOKEN[:-1])

    for thing in (needles, redactor):
        text = show(thing)  # type: ignore[operator]
        assert not [w for w in windows(TOKEN) if w.decode() in text]
        assert "token" not in text


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_needles_and_redactors_are_not_copied_or_pickled(take: object) -> None:
    for thing in (needles_of("one token"), Redactor(needles_of("one token"))):
        with pytest.raises(TypeError, match="not copied or pickled"):
            take(thing)  # type: ignore[operator]


def test_an_attribute_walk_finds_no_needle() -> None:
    """What a crash reporter would print: every attribute, and theirs."""
    needles = needles_of("one token")
    seen = [getattr(needles, slot) for slot in Needles.__slots__]

    assert not [w for w in windows(TOKEN) if w.decode() in repr(seen)]


# --- random cases against the reference ----------------------------------------------------------


def test_random_batches_agree_with_the_reference() -> None:
    """A small part of what `python -m tests.fuzz.redactor` runs by the million."""
    said: list[str] = []

    assert redactor.run(cases=10_000, first=20_240, say=said.append) is None
    assert "all agree" in said[-1]


@pytest.mark.parametrize(
    "seed",
    [pytest.param(590247447757, id="a value of two lines in an event stream, the second broken")],
)
def test_batches_that_once_differed_agree(seed: int) -> None:
    assert redactor.batch(seed)[1] is None
