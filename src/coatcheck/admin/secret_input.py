"""What somebody sends to be made a secret of: judged, and told by the place where it is wrong.

Nothing that was sent stands in what is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coatcheck.admin.problems import ApiProblem, Code, invalid
from coatcheck.core.destination import BadPattern, DomainPattern, parse_domain_pattern
from coatcheck.core.ports import StoreError
from coatcheck.core.secret import MAX_VALUE, SAFE_LENGTH
from coatcheck.core.shown import holding
from coatcheck.store.model import MAX_DOMAINS, checked_description, checked_name


@dataclass(frozen=True, slots=True)
class Value:
    """A value on its way in. It shows itself nowhere."""

    bytes: bytes

    def __repr__(self) -> str:
        return "<a value>"


def read_name(name: str, place: str = "body.name") -> str:
    try:
        return checked_name(name)
    except StoreError:
        raise invalid(
            place,
            "no secret can have this name",
            "a name has 1 to 256 characters that show something, and no control characters",
        ) from None


def read_description(text: str) -> str:
    try:
        return checked_description(text)
    except StoreError:
        hint = "a description is text of at most 4096 characters, without NUL"
        raise invalid("body.description", "no description can be this", hint) from None


def refuse_shown(value: bytes, name: str, description: str) -> None:
    """Raise `ApiProblem` where name or description, which everybody may read, hold the value. A
    value that is short stands in many a text by chance."""
    if len(value) < SAFE_LENGTH:
        return
    places = ("body.name", "body.description")
    for place, shown in zip(places, holding(value, name, description), strict=True):
        if shown:
            raise invalid(place, "it holds the value", "this is shown in lists: leave it out")


def read_value(given: Value, allow_short: bool) -> bytes:
    plain = given.bytes
    if not plain:
        raise invalid("body.value", "it is empty", "a value has at least one byte")
    if len(plain) > MAX_VALUE:
        raise invalid("body.value", "it is too large", f"a value has at most {MAX_VALUE} bytes")
    if len(plain) < SAFE_LENGTH and not allow_short:
        raise ApiProblem(
            Code.VALUE_TOO_SHORT,
            f"A value shorter than {SAFE_LENGTH} bytes occurs in answers by chance, so it cannot"
            " be scrubbed safely.",
            hint="use a longer secret, or send allow_short: true",
        )
    return plain


def read_domains(texts: Sequence[str], any_domain: bool) -> list[DomainPattern]:
    if len(texts) > MAX_DOMAINS:
        raise invalid("body.allowed_domains", f"these are more than {MAX_DOMAINS}")
    patterns = []
    for index, text in enumerate(texts):
        try:
            patterns.append(parse_domain_pattern(text))
        except BadPattern:
            raise invalid(
                f"body.allowed_domains[{index}]",
                "it is no domain pattern, or a wildcard right on a public suffix",
                "write api.example.com or *.example.com, with :port if needed",
            ) from None
    if any(pattern.any for pattern in patterns) and not any_domain:
        raise ApiProblem(
            Code.ANY_DOMAIN_NOT_ASKED_FOR,
            hint="name the hosts; if it is really meant, send any_domain: true too",
        )
    if any_domain and not all(pattern.any for pattern in patterns):
        raise invalid(
            "body.any_domain",
            "it makes the other domains meaningless",
            "send any_domain: true, or the domains",
        )
    if any_domain and not patterns:
        return [DomainPattern("", any=True)]
    return list(dict.fromkeys(patterns))
