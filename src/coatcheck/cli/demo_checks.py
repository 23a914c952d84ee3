"""What came of a case of `coatcheck demo`, what must be true of it, and how it is told.

The expected text is worked out with the standard library's encoders (`demo_cases`) and compared
as a whole, so the proxy cannot agree with itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coatcheck.cli.demo_cases import Case, base64_of, masked, part_of
from coatcheck.cli.demo_upstream import Received
from coatcheck.core.redact import Needles
from coatcheck.core.secret import SecretValue

NOTHING = "nothing: no request arrived"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client got. ``error``: why there was no answer."""

    status: int = 0
    fields: tuple[tuple[str, str], ...] = ()
    body: str = ""
    error: str = ""

    def field(self, name: str) -> str:
        return ", ".join(value for key, value in self.fields if key.lower() == name.lower())

    @property
    def text(self) -> str:
        """All of it, to search in."""
        return "\n".join([*(value for _, value in self.fields), self.body])


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a case: at the upstream, at the client, in the audit log."""

    answer: Answer
    received: Sequence[Received]
    audit: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Check:
    """A sentence, and whether it is true."""

    words: str
    held: bool


def checks(case: Case, seen: Seen, values: Mapping[str, str]) -> Iterator[Check]:
    """What must be true of *case*, and whether it is."""
    value = values.get(case.secret, "")
    if case.code:
        yield from _refused(case, seen)
    else:
        yield from _injected(case, seen, value)
    if case.echo:
        yield from _scrubbed(seen, value)
    hidden = not any(holds(seen.answer.text, other) for other in values.values())
    yield Check("no value came back", hidden and not seen.answer.error)


def holds(text: str, value: str) -> bool:
    """Whether *text* holds *value*, in any spelling that the scrubber knows."""
    return Needles.build([SecretValue("", 0, value.encode())]).contains(text.encode())


def arrived(case: Case, seen: Seen) -> str:
    """The same part as the upstream got it; empty where nothing arrived."""
    if not seen.received:
        return ""
    got = seen.received[-1]
    return part_of(case.part, got.method, got.target, got.field("Authorization"), got.body)


def arrived_masked(case: Case, seen: Seen, values: Mapping[str, str]) -> str:
    """`arrived` for showing. Where the text is not the expected one, it is not shown at all."""
    text = arrived(case, seen)
    value = values.get(case.secret, "")
    if not seen.received:
        return NOTHING
    if case.render is None or text != case.render(value):
        return "a request, and not the expected one"
    return case.part + masked(case, value)


def got(seen: Seen) -> str:
    """What the client got, in a line or two."""
    answer = seen.answer
    if answer.error:
        return f"no answer: {answer.error}"
    code = answer.field("Coatcheck-Error")
    if code:
        return f"{answer.status} {code}: {_detail(answer.body)}"
    echo = answer.field("X-Echo")
    first = f"{answer.status} {answer.body}"
    return f"{first}\nX-Echo: {echo}" if echo else first


def _injected(case: Case, seen: Seen, value: str) -> Iterator[Check]:
    expected = case.render(value) if case.render is not None else ""
    once = len(seen.received) == 1
    yield Check("exactly the value arrived", once and arrived(case, seen) == expected)
    yield Check("the client got 200", seen.answer.status == 200)
    record = next((r for r in seen.audit if r.get("decision") == "allow"), {})
    named = any(use["name"] == case.secret for use in record.get("secrets", ()))
    before = once and str(record.get("request_id", "-")) in seen.received[0].audit
    yield Check("recorded before it left", named and before)


def _scrubbed(seen: Seen, value: str) -> Iterator[Check]:
    answered = seen.received[0].answer if seen.received else ""
    encoded = base64_of(f"Bearer {value}")
    both = answered.count(f"Bearer {value}") == 2 and encoded in answered
    yield Check("the upstream sent it back", both)
    body, echo = seen.answer.body, seen.answer.field("X-Echo")
    clean = not holds(body, value) and not holds(echo, value) and bool(echo) and "raw" in body
    yield Check("taken out of header, body and base64", clean)
    scrubs = [r for r in seen.audit if r.get("decision") == "scrub"]
    yield Check("recorded", bool(scrubs))


def _refused(case: Case, seen: Seen) -> Iterator[Check]:
    answer = seen.answer
    right = answer.status == 403 and answer.field("Coatcheck-Error") == case.code
    where = "inside the tunnel" if case.request.scheme == "https" else "by the proxy"
    yield Check(f"refused {where}", right)
    yield Check("nothing arrived", not seen.received)
    codes = [r.get("code") for r in seen.audit if r.get("decision") == "refuse"]
    yield Check("recorded", codes == [case.code])


def _detail(body: str) -> str:
    try:
        document = json.loads(body)
    except ValueError:
        return "(no problem document)"
    return str(document.get("detail", "")) if isinstance(document, dict) else ""
