"""A second matcher, written from the rules alone and sharing no code with the first.

It works on reversed lists of labels made from plain strings, so that it errs elsewhere than the
product, which compares suffixes of strings. It knows ASCII names and IPv4 addresses only, and no
Public Suffix List.
"""

from __future__ import annotations

import string

_NAME_CHARACTERS = set(string.ascii_letters + string.digits + "-_")
_USUAL_PORT = {"http": 80, "https": 443}


def allows(pattern: str, scheme: str, authority: str) -> bool:
    """Whether *pattern* (text) holds *authority* (text) of a request with *scheme*.

    What is not well-formed is held by nothing.
    """
    asked = _read(authority)
    if asked is None:
        return False
    labels, port = asked
    if port is None:
        port = _USUAL_PORT[scheme]
    if pattern == "*":
        return True
    if pattern.startswith("*:"):
        return port == _number(pattern[2:])
    wild = pattern[:2] == "*."
    wanted = _read(pattern[2:] if wild else pattern)
    if wanted is None:
        return False
    wanted_labels, wanted_port = wanted
    if (wanted_port if wanted_port is not None else _USUAL_PORT[scheme]) != port:
        return False
    for index, label in enumerate(wanted_labels):
        if index >= len(labels) or labels[index] != label:
            return False
    extra = len(labels) - len(wanted_labels)
    return extra > 0 if wild else extra == 0


def _read(authority: str) -> tuple[list[str], int | None] | None:
    """The labels, last first, and the port; None for what is no host."""
    pieces = authority.split(":")
    port = None
    if len(pieces) == 2:
        port = _number(pieces[1])
        if port is None:
            return None
    elif len(pieces) != 1:
        return None
    labels = [label.lower() for label in reversed(pieces[0].split("."))]
    dotted = labels[0] == "" and len(labels) > 1
    if dotted:
        del labels[0]
    for label in labels:
        if not 1 <= len(label) <= 63 or not set(label) <= _NAME_CHARACTERS:
            return None
        if label[0] == "-" or label[-1] == "-":
            return None
    if sum(len(label) + 1 for label in labels) > 254:
        return None
    last = labels[0]
    hexadecimal = last.startswith("0x") and set(last[2:]) <= set(string.hexdigits)
    numeric = hexadecimal or set(last) <= set(string.digits)
    is_address = not dotted and len(labels) == 4 and all(_is_octet(label) for label in labels)
    return None if numeric and not is_address else (labels, port)


def _is_octet(text: str) -> bool:
    return text in {str(number) for number in range(256)}


def _number(text: str) -> int | None:
    if not text or not set(text) <= set(string.digits) or text[0] == "0":
        return None
    return int(text) if int(text) < 65536 else None
