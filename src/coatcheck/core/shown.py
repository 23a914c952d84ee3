"""Whether a text that everybody may read, such as a name or a description, holds a value."""

from __future__ import annotations

import base64
import binascii
from contextlib import suppress

from coatcheck.core.redact import Needles
from coatcheck.core.secret import SecretValue

SEARCHED = 64 * 1024  # bytes of a value that is searched for in all spellings


def holding(value: bytes, *texts: str) -> list[bool]:
    """Which of *texts* hold *value*: as it is, in one of the spellings that are scrubbed from
    answers, or with its base64 taken off, where it is some."""
    values = {value, value.strip()}
    with suppress(binascii.Error, ValueError):  # it is no base64
        values.add(base64.b64decode(b"".join(value.split()), validate=True))
    known = [one for one in values if one]
    searched = [SecretValue("", 0, one) for one in known if len(one) <= SEARCHED]
    needles = Needles.build(searched)
    plain = (text.encode("utf-8", "surrogatepass") for text in texts)
    return [needles.contains(text) or any(one in text for one in known) for text in plain]
