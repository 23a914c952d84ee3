"""Each check of `coatcheck demo` on its own: true of what should happen, and able to fail."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from coatcheck.cli import demo_cases, demo_checks
from coatcheck.cli.demo_cases import Case
from coatcheck.cli.demo_checks import Answer, Seen
from coatcheck.cli.demo_upstream import Received, respond

VALUES = demo_cases.make_values()
CASES = {case.title: case for case in demo_cases.cases()}
HEADER = CASES["inject into a header"]
ECHO = CASES["scrub: the upstream echoes the value, raw and in base64"]
ELSEWHERE = CASES["refuse: another host"]
KEY = VALUES["crm.apiKey"]


def right(case: Case) -> Seen:
    """What is seen when all goes well."""
    if case.code:
        answer = Answer(403, (("Coatcheck-Error", case.code),), '{"detail": "No."}')
        return Seen(answer, [], [{"request_id": "1", "decision": "refuse", "code": case.code}])
    allow = {"request_id": "1", "decision": "allow", "secrets": [{"name": case.secret}]}
    scrub = {"request_id": "1", "decision": "scrub"}
    answer = Answer(200, (), '{"ok": true}')
    if case.echo:
        answer = Answer(200, (("X-Echo", "Bearer ***"),), '{"raw": "***", "base64": "***"}')
    return Seen(answer, [arriving(case, json.dumps(allow))], [allow, scrub])


def arriving(case: Case, audit: str) -> Received:
    """The request of *case* as it should arrive."""
    assert case.render is not None
    text = case.render(VALUES[case.secret])
    method, _, target = text.partition(" ")
    is_target = case.part is demo_cases.Part.TARGET
    credential = text
    if case.part is demo_cases.Part.BASIC:
        credential = "Basic " + base64.b64encode(text.encode()).decode()
    sent_back = respond(case.request.target, credential)
    return Received(
        host="api.localhost",
        method=method if is_target else case.request.method,
        target=target if is_target else case.request.target,
        fields=(("authorization", credential),),
        body=text,
        answer="\n".join([*sent_back.fields.values(), sent_back.body]),
        audit=audit,
    )


def failed(case: Case, seen: Seen) -> set[str]:
    return {check.words for check in demo_checks.checks(case, seen, VALUES) if not check.held}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_all_hold_when_all_goes_well(case: Case) -> None:
    assert failed(case, right(case)) == set()


def answered(**changes: object) -> Callable[[Seen], Seen]:
    return lambda seen: replace(seen, answer=replace(seen.answer, **changes))  # type: ignore[arg-type]


def received(**changes: object) -> Callable[[Seen], Seen]:
    return lambda seen: replace(seen, received=[replace(seen.received[0], **changes)])  # type: ignore[arg-type]


def nothing_arrived(seen: Seen) -> Seen:
    return replace(seen, received=[])


def sent_twice(seen: Seen) -> Seen:
    return replace(seen, received=[*seen.received, *seen.received])


def it_arrived(seen: Seen) -> Seen:
    return replace(seen, received=right(HEADER).received)


def no_audit(seen: Seen) -> Seen:
    return replace(seen, audit=[])


def no_scrub_in_the_audit(seen: Seen) -> Seen:
    return replace(seen, audit=seen.audit[:1])


def another_secret_in_the_audit(seen: Seen) -> Seen:
    return replace(seen, audit=[{**seen.audit[0], "secrets": [{"name": "maps.key"}]}])


def another_code_in_the_audit(seen: Seen) -> Seen:
    return replace(seen, audit=[{**seen.audit[0], "code": "internal_error"}])


def coded(text: str, offset: int) -> str:
    """base64 of *text* behind *offset* other bytes: another spelling for each of the three."""
    return base64.b64encode(b"-" * offset + text.encode()).decode()


ARRIVED = "exactly the value arrived"
BEFORE = "recorded before it left"
BACK = "no value came back"
CLEAN = "taken out of header, body and base64"


@pytest.mark.parametrize(
    ("case", "change", "words"),
    [
        pytest.param(HEADER, nothing_arrived, {ARRIVED, BEFORE}, id="nothing arrived"),
        pytest.param(HEADER, sent_twice, {ARRIVED, BEFORE}, id="it was sent twice"),
        pytest.param(
            HEADER,
            received(fields=(("authorization", HEADER.request.fields["Authorization"]),)),
            {ARRIVED},
            id="the placeholder arrived",
        ),
        pytest.param(
            HEADER,
            received(fields=(("authorization", f"Bearer {KEY} "),)),
            {ARRIVED},
            id="a byte too many arrived",
        ),
        pytest.param(HEADER, received(audit=""), {BEFORE}, id="it was recorded afterwards"),
        pytest.param(HEADER, no_audit, {BEFORE}, id="it was not recorded"),
        pytest.param(
            HEADER, another_secret_in_the_audit, {BEFORE}, id="another secret was recorded"
        ),
        pytest.param(HEADER, answered(status=502), {"the client got 200"}, id="the client got 502"),
        pytest.param(HEADER, answered(body=KEY), {BACK}, id="the value came back"),
        pytest.param(
            HEADER, answered(body=VALUES["maps.key"]), {BACK}, id="another value came back"
        ),
        pytest.param(
            HEADER, answered(fields=(("x", coded(KEY, 1)),)), {BACK}, id="it came back in a header"
        ),
        pytest.param(
            HEADER,
            answered(status=0, error="TimeoutError"),
            {"the client got 200", BACK},
            id="there was no answer: nothing is known",
        ),
        pytest.param(
            ECHO,
            received(answer=f"Bearer {KEY}\nBearer {KEY}"),
            {"the upstream sent it back"},
            id="nothing to scrub in base64: scrubbing was not seen",
        ),
        pytest.param(
            ECHO, received(answer=""), {"the upstream sent it back"}, id="nothing to scrub at all"
        ),
        pytest.param(
            ECHO, answered(body=f'{{"raw": "{KEY}"}}'), {CLEAN, BACK}, id="raw in the body"
        ),
        pytest.param(
            ECHO,
            answered(body=f'{{"raw": "***", "base64": "{coded(KEY, 2)}"}}'),
            {CLEAN, BACK},
            id="base64 in the body",
        ),
        pytest.param(
            ECHO, answered(fields=(("X-Echo", KEY),)), {CLEAN, BACK}, id="raw in the header"
        ),
        pytest.param(ECHO, answered(body="{}", fields=()), {CLEAN}, id="not even the echo came"),
        pytest.param(ECHO, no_scrub_in_the_audit, {"recorded"}, id="the scrubbing is not recorded"),
        pytest.param(ELSEWHERE, it_arrived, {"nothing arrived"}, id="it arrived elsewhere"),
        pytest.param(
            ELSEWHERE,
            answered(status=200, fields=()),
            {"refused inside the tunnel"},
            id="it was not refused",
        ),
        pytest.param(
            ELSEWHERE,
            answered(fields=(("Coatcheck-Error", "internal_error"),)),
            {"refused inside the tunnel"},
            id="it was refused for another reason",
        ),
        pytest.param(ELSEWHERE, no_audit, {"recorded"}, id="the refusal is not recorded"),
        pytest.param(
            ELSEWHERE, another_code_in_the_audit, {"recorded"}, id="another refusal is recorded"
        ),
    ],
)
def test_each_can_fail(case: Case, change: Callable[[Seen], Seen], words: set[str]) -> None:
    assert failed(case, change(right(case))) == words


@pytest.mark.parametrize("case", [c for c in CASES.values() if c.render], ids=lambda c: c.title)
def test_what_is_shown_of_a_value_is_a_few_characters(case: Case) -> None:
    value = VALUES[case.secret]

    shown = demo_checks.arrived_masked(case, right(case), VALUES)

    assert not demo_checks.holds(shown, value)
    assert f"({len(value)} bytes, the value)" in shown
    assert value[:2] in shown


def test_what_is_not_expected_is_not_shown() -> None:
    """It could be a value in the wrong place."""
    seen = received(fields=(("authorization", KEY),))(right(HEADER))

    assert demo_checks.arrived_masked(HEADER, seen, VALUES) == "a request, and not the expected one"


@pytest.mark.parametrize("name", VALUES)
def test_values_are_new_each_time(name: str) -> None:
    assert demo_cases.make_values()[name] != VALUES[name]
    assert len(VALUES[name]) >= 20


@pytest.mark.parametrize(
    ("name", "characters"),
    [("maps.key", "+/&="), ("hooks.token", "/?"), ("oauth.clientSecret", '"\\')],
)
def test_values_need_the_escaping_of_their_place(name: str, characters: str) -> None:
    assert set(characters) <= set(VALUES[name])
