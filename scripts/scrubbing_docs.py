"""Write docs/scrubbing.md from the table that the scrubber reads, so that the two cannot differ.

Run it after a change to `coatcheck.core.spelling`::

    .venv/bin/python scripts/scrubbing_docs.py
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from coatcheck.core import redact, runs, spelling, whole_url
from coatcheck.core.needle import LINE
from coatcheck.core.secret import SAFE_LENGTH, SecretValue

PAGE = Path(__file__).resolve().parent.parent / "docs" / "scrubbing.md"
TOKEN = b"tok_0123456789abcdefghijABCDEFGHIJ456789"
PASSWORD = 'p@ss "wörd" & more/+='.encode()

INTERIM = 16  # `engine.answer.MAX_PASSED_ON`; that module is heavy to import

TEXT = """\
# Scrubbing

<!-- Made by scripts/scrubbing_docs.py from src/coatcheck/core/spelling.py; do not edit by hand. -->

What an allowed destination sends back is searched for the values that may go there, and every
occurrence is replaced by `{mask}`, a constant, or by the placeholder (`scrub.replacement` in the
policy). It is a net under the rules, not a rule: a destination that computes on a value, sends it
one character at a time or in a spelling that is not listed here, gets it past the net. Bind
secrets to locations, methods and paths.

## The spellings

"Needles" is what a row costs: how many byte strings are searched for one value, here for a token
of {token_size} letters, digits and `_`, and for a password of {password_size} bytes with quotes,
`&`, `/` and an umlaut. What two rows have in common counts for the first.

| spelling | how the value is written | needles, token | needles, password |
|---|---|---|---|
{rows}

The variants of a row are those that encoders really write. Two freedoms are left to the search:

- **Letter case.** In the rows {any_case} the hexadecimal digits are found in either case, also
  mixed. In the other rows both pure cases are searched, and one that mixes them inside a value
  (`%2f` next to `%2B`) is not found.
- **Lines.** A value in the rows {wraps} is also found broken over lines of {line} characters or
  more: by LF, CRLF or CR, by their escapes in strings (`\\n`, `\\r\\n`) and in URLs (`%0A`,
  `%0D%0A`), by the soft line ends of quoted-printable (`=` and the line end), each with up to 16
  blanks behind it. Not where its needle is under {wrapped} characters (under {wrapped_base64} in
  base64), or where there is anything else between two lines (`> `, quotes and a `+`).

A value whose writer switches between variants in the middle (an escape here and none there) is not
found. Not found either: base32 in lower case or in lines, hexadecimal in lines, UTF-7, EBCDIC,
UTF-16 and UTF-32 of anything but the value itself, and encodings of encodings other than those
above. Content codings (gzip and so on) are taken off before the search.

## How a value is cut

- Under {min_value} bytes: it cannot be scrubbed. It would be found by chance in every answer.
- {min_value} to 7 bytes: searched raw, and in those spellings whose needle has {min_needle} bytes
  or more (base64 not at every alignment). It may be found by chance.
- Up to {max_whole} bytes: searched as a whole.
- More: searched in pieces of {piece} bytes, each {stride} after the last, so any {reach} bytes in
  a row are caught, and the whole value goes as one. A piece grows by up to 6 bytes where it would
  cut a UTF-8 character.
- Over {max_full} bytes: in the spellings {long} only; if the value is not UTF-8, {long_binary}.
- Over {max_long} bytes: raw only. Over {max_searched} bytes: not at all; a request to a destination
  where such a value may go is refused, since no answer to it could be scrubbed.
- With line ends inside: each line of {min_line} bytes or more is searched too, without the white
  space around it, unless it is PEM armour (`-----BEGIN ...-----`) or holds fewer than four
  different bytes; and so is the value without the line ends at its own ends.
- A URL that a grant lets the client send requests to (`in: [url]`): its target, path and query of
  {safe} bytes or more are searched too, and each segment, parameter and label of its host of
  {url_part} bytes or more; percent-encoded as they stand and decoded.

## What is replaced

Every byte of every occurrence: occurrences that overlap, of one secret or of several, go as one
stretch, with one mask. Where the placeholder is written instead, it is that of the secret whose
occurrence begins the stretch. The replacement is not searched again. In UTF-16 it is written in
UTF-16, so the rest stays readable.

A match in base64 or base32 is extended to the whole run of such characters around it, because the
characters next to it still hold bits of the value: up to {left} characters to the left, and to the
right however long the run is; over the end of a line of {widths} characters, for three characters
at least. A run is not cut inside of an escape (`\\n`, `%3D`), so what is left stays well-formed.

## What is held back

Bytes are let go as they come, but for the last few, and how many does not depend on what they are:
a scrubber that holds back only what may begin a value tells its client, by the delay, that a guess
is a right prefix. It is the longest needle less one byte (or the longest of base64 and base32 with
its line ends and {around} bytes, if that is more): {token_window} bytes for the token above, never
more than {most} bytes.

In streams of events everything up to the end of the last complete one is let go at once: in
`text/event-stream` an event ends with an empty line, in NDJSON (`application/x-ndjson`,
`application/ndjson`, `application/jsonl`, `application/json-seq`) a record ends with `}}`, `]` or
`"` and a line end. What ends otherwise (a comment without an empty line, a number as a record) is
held back as in any other body, until more comes.

Each event is searched by itself, over its line ends too; what goes over its end is not found, such
as a value with a line end put behind a `}}` of its own in a record. A value that holds such an end
is found by its lines of {min_line} bytes or more; where its shorter lines hold {min_line} bytes or
more together, or it has no line of {min_line} bytes, the stream is held back as any other.

## The channels

- Reason phrase and values of fields: searched. Fields that come twice stay apart and in order.
- Names of fields: a field with a value for its name is left out.
- Interim answers: 102 and 103 are searched as any head and passed on, up to {interim} of them, and
  not to HTTP/1.0; 100 and others end at the proxy. A malformed one is withheld with its answer.
- Body: searched as it streams.
- Trailer fields: searched, and passed on to an HTTP/1.1 client that sent `TE: trailers`; not those
  that frame, route, authorise or set something, and none that the head has already. `TE` itself is
  not sent on.
- WebSocket, from the server: text and binary messages, payloads of pings and pongs, reasons of
  closes.
- Any other change of protocol: refused.

**WebSocket.** No extension is offered and none accepted, so no message is compressed. All messages
of a connection are one text to the search, whatever their fragments; the payloads of control frames
are another. A message under way is let go but for the window above; a complete one after
`limits.websocket_hold_ms`, at most twice that, so that what comes right behind it can be searched
with it; sooner where enough has come behind it. Payloads of control frames do not wait. Text
stays valid UTF-8: where a value takes a part of a character with it, U+FFFD stands for the rest. A
mark that does not fit into a control frame is left out with all of its payload.

A value split over messages: if all of it has come within that time after its first message, nothing
of it gets through. Otherwise the messages that were let go before have taken their parts along;
what is masked is the part in the message that completes it. So the value never gets through whole,
but its beginning does, and that may be all but its last byte. The same goes for the payloads of
control frames. It cannot be had otherwise. To mask what only may be the beginning of a value would
tell a client, letter by letter, whether its guess is right; to wait for the next message could be
to wait for ever. Raise `limits.websocket_hold_ms` where a server splits and nobody is in a hurry;
0 lets go at once, and joins only what comes in one read.
"""


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The text of docs/scrubbing.md."""
    always = [f"`{row.id}`" for row in spelling.SPELLINGS if row.long == "always"]
    text = [f"`{row.id}`" for row in spelling.SPELLINGS if row.long != "never"]
    return TEXT.format(
        mask=redact.MASK.decode(),
        token_size=len(TOKEN),
        password_size=len(PASSWORD),
        rows="\n".join(rows()),
        min_value=spelling.MIN_VALUE,
        min_needle=spelling.MIN_NEEDLE,
        safe=SAFE_LENGTH,
        url_part=whole_url.PART_LENGTH,
        min_line=spelling.MIN_LINE,
        max_whole=spelling.MAX_WHOLE,
        piece=spelling.PIECE,
        stride=spelling.STRIDE,
        reach=spelling.PIECE + spelling.STRIDE - 1,
        max_full=spelling.MAX_FULL,
        long=", ".join(text),
        long_binary=", ".join(always),
        max_long=spelling.MAX_LONG,
        max_searched=spelling.MAX_SEARCHED,
        left=runs.LEFT,
        any_case=", ".join(f"`{row.id}`" for row in spelling.SPELLINGS if row.any_case),
        wraps=", ".join(f"`{row.id}`" for row in spelling.SPELLINGS if row.wraps),
        line=LINE,
        wrapped=spelling.MIN_WRAPPED,
        wrapped_base64=spelling.MIN_WRAPPED_BASE64,
        widths=" or ".join(map(str, runs.WIDTHS)),
        around=runs.FURTHEST + runs.AFTER,
        token_window=window(TOKEN),
        most=most(),
        interim=INTERIM,
    )


def rows() -> list[str]:
    """The lines of the table."""
    token = Counter(spelling.needles(TOKEN).values())
    password = Counter(spelling.needles(PASSWORD).values())
    return [
        f"| `{row.id}` | {row.words} | {token[row.id]} | {password[row.id]} |"
        for row in spelling.SPELLINGS
    ]


def most() -> int:
    """Bytes of the widest window: the longest value that is searched whole, at its most costly."""
    dear = b"\x7f" * spelling.MAX_WHOLE, "é".encode() * (spelling.MAX_WHOLE // 2)
    return max(map(window, dear))


def window(value: bytes) -> int:
    """Bytes that a stream is held back by for *value*."""
    return redact.Needles.build([SecretValue("", 0, value)]).window


if __name__ == "__main__":
    main()
