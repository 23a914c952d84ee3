"""What makes a value hard to scrub, or easy to guess. Words about it, never a part of it.

The scrubber takes a value out wherever it stands. A value that also stands in answers by chance
garbles them, and whoever sees what was masked learns what the value is. The length of a value is
looked at elsewhere: under `SAFE_LENGTH` it needs more than a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

FEW_DIGITS = 12  # digits; fewer can be tried out, and are found in dates, sums and identifiers
FEW_DIFFERENT = 4  # different bytes at least
# What stands in answers of every kind, and in every list of passwords. Eight letters and more: a
# shorter value is warned of by its length.
_WORDS = """
accepted accounts activity administrator application approved argument attribute authenticate
authentication authorization authorized available baseball basketball birthday business calendar
category changeme character christmas collection comments community complete computer condition
configuration connection consumer contains content-type continue contract controller cookies
corporate countries creation credential credentials currency customer customers dashboard database
december decision delivery deployment describe description destination developer development
different director directory disabled discount discovery display document documentation documents
download dragonfly duration employee encoding endpoint engineer engineering enterprise environment
exception exchange expected experience expiration external facebook february feedback filename
financial firewall football forbidden function generated government hardware helloworld homepage
hostname identifier identity iloveyou important information instance integration interface
internal internet interval introduction inventory invoices iterator javascript keyboard knowledge
language learning liverpool localhost location machines maintenance management marketing merchant
messages metadata microsoft midnight monitoring multiple navigation newsletter november operation
operator optional organization original overview p@ssw0rd paragraph parameter parameters partners
passphrase passw0rd password password1 password12 password123 payments performance permission
permissions personal pipeline platform playground position postgres potential previous princess
priority problems processing production products programs projects property protected protocol
provider publication published purchase qwertyui qwertyuiop question questions rabbitmq received
recovery redirect reference register registered registration relation relative released repository
requests required research resource resources response responses restricted returned schedule
scheduled secretary secretkey security selected september sequence services sessions settings
shipping signature software solution specification standard starting starwars statement statistics
strategy structure submitted subscription successful sunshine superman supplier swordfish
technical technology telephone template temporary terminal test-token testtest thousand timestamp
together tomorrow topsecret training transaction transfer translation trustno1 undefined
university unlimited unsigned username validate validation variable verified verification versions
whatever welcome1 workflow workspace yesterday abcdefgh abcdefghi abcd1234 1q2w3e4r 1qaz2wsx
q1w2e3r4 asdfghjkl zxcvbnm1
"""
COMMON = frozenset(_WORDS.split())

_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")


def warnings(value: bytes) -> Iterator[str]:
    """What to tell whoever stores *value*: a sentence for each weakness, none for a good one."""
    inner = value.strip()
    if inner.lower().decode("latin-1") in COMMON:
        yield "the value is a common word: it stands in answers by chance, and is guessed first"
    if inner.isdigit() and len(inner) < FEW_DIGITS:
        yield (
            f"the value is fewer than {FEW_DIGITS} digits: such numbers stand in answers by chance,"
            " and all of them can be tried"
        )
    elif inner and len(set(inner)) < FEW_DIFFERENT:
        yield "the value repeats a few characters: such a text is guessed, or found by chance"
    elif _is_repeated(inner):
        yield "the value repeats a part of itself: it is as easy to guess as that part"
    if value != inner:
        yield (
            "the value begins or ends with white space, which servers strip: what comes back"
            " without it is not found"
        )
    if _CONTROLS.search(inner):
        yield (
            "the value holds control characters: a header cannot hold them, and what is shown"
            " without them is not found"
        )


def _is_repeated(value: bytes) -> bool:
    """Whether *value* is a part of up to a half of it, again and again."""
    return len(value) > 1 and value in (value + value)[1:-1]
