"""What was wrong with a form, in the words of the page, beside the field that it concerns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from coatcheck.admin.problems import ApiProblem, Code
from coatcheck.core.shown import holding

# Code -> field, and what to do about it there. The API's hints speak of members and headers.
_FIELDS: Mapping[Code, tuple[str, str]] = {
    Code.NAME_TAKEN: ("name", "Choose another name, or edit that secret."),
    Code.VALUE_REQUIRED: ("value", "Give the value again, or leave the domains as they were."),
    Code.VALUE_TOO_SHORT: ("value", "Use a longer secret, or tick “Take a short value”."),
    Code.ANY_DOMAIN_NOT_ASKED_FOR: ("any_domain", "Name the hosts; or tick this, if it is meant."),
    Code.CLIENT_NOT_FOUND: ("client", "Choose one of the clients of the policy."),
}
_INVALID: Mapping[str, str] = {
    "name": "A name has 1 to 256 characters that show something, and no control characters.",
    "new_name": "A name has 1 to 256 characters that show something, and no control characters.",
    "any_domain": "Tick this, or name domains; not both.",
    "expires_in_days": "Write a number of days from 1 to 3650, or leave it empty.",
    "headers": "Write one on each line, as in “Accept: text/html”.",
}
_NAMES = {"allowed_domains": "domains", "expires_in_days": "days", "value_base64": "value"}

type Errors = dict[str, str]  # field -> sentences; "" -> what concerns no field


def errors_of(problem: ApiProblem) -> Errors:
    """Field -> what is wrong with it."""
    if problem.code in _FIELDS:
        field, advice = _FIELDS[problem.code]
        return {field: f"{problem.detail or problem.title + '.'} {advice}"}
    found: Errors = {}
    for place, what in problem.errors:
        field, index = _place(place)
        where = "" if index is None else f"Line {index + 1}: "
        advice = _INVALID.get(field, _sentence(problem.hint))
        words = f"{where}{_sentence(what)} {advice}".strip()
        field = _NAMES.get(field, field)
        found[field] = f"{found[field]} {words}" if field in found else words
    return found or {"": f"{problem.title}. {problem.detail} {_sentence(problem.hint)}".strip()}


def lines_of(text: str) -> list[str]:
    """What a field of several lines holds, without blanks and empty lines; commas part too."""
    return [part.strip() for part in re.split(r"[\n,]", text) if part.strip()]


def without(value: str, *fields: str) -> Sequence[str]:
    """*fields*, to be shown again; empty where one holds the value, in whatever spelling: it is
    never shown."""
    shown = holding(value.encode("utf-8", "surrogatepass"), *fields)
    return ["" if holds else field for field, holds in zip(fields, shown, strict=True)]


def _place(place: str) -> tuple[str, int | None]:
    """``body.allowed_domains[1]`` -> the field, and which entry of it."""
    match = re.fullmatch(r"body\.([a-z_0-9]+)(?:\[(\d+)\])?.*", place)
    if match is None:
        return "", None
    return match[1], int(match[2]) if match[2] else None


def _sentence(text: str) -> str:
    text = text.strip()
    return text and text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
