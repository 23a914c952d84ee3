"""Responses of an upstream: what passes, what is withheld, what breaks the connection off."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from tests.differential.cases import (
    BLANKS,
    CHUNKED,
    CONTROLS,
    HIGH,
    Table,
    shown,
)

# A whole response, for a body or a field to hide: whoever takes it for the answer to the next
# request has been poisoned.
POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"


class Verdict(Enum):
    PASSES = auto()
    WITHHELD = auto()  # the client gets a refusal in its place
    BROKEN = auto()  # it had begun: the client gets a piece that shows as one


@dataclass(frozen=True)
class Answer:
    """Bytes of an upstream, which may hang up after them, and what must come of them.

    Attributes:
        late: What it says on the same connection as soon as the next request is under way.
    """

    data: bytes
    verdict: Verdict
    hangs_up: bool = False
    method: bytes = b"GET"
    late: bytes = b""


def good(data: bytes, *, hangs_up: bool = False, method: bytes = b"GET") -> Answer:
    return Answer(data, Verdict.PASSES, hangs_up, method)


def bad(data: bytes, *, hangs_up: bool = False, method: bytes = b"GET") -> Answer:
    return Answer(data, Verdict.WITHHELD, hangs_up, method)


def ok(*lines: bytes, body: bytes = b"", line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([line, *lines, b"", b""]) + body


def length(number: int) -> bytes:
    return b"Content-Length: %d" % number


HELLO = b"5\r\nhello\r\n0\r\n\r\n"
PLAIN = ok(length(5), body=b"hello")
ANSWERS: Table[Answer] = Table()

# --- the status line (RFC 9112, section 4) ------------------------------------------------------

BROKEN_LINES = [b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 099 OK", b"HTTP/1.1 600 OK"]
BROKEN_LINES += [b"HTTP/1.1 2x0 OK", b"HTTP/1.1 +20 OK", b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK"]
BROKEN_LINES += [b"HTTP/1.1", b"HTTP/1.1 ", b"HTTP/1.1 OK 200", b"HTTP/1.1 200OK", b"200 OK"]
BROKEN_LINES += [b"HTTP/2.0 200 OK", b"HTTP/2 200", b"HTTP/1.2 200 OK", b"HTTP/1.10 200 OK"]
BROKEN_LINES += [b"HTTP/0.9 200 OK", b"http/1.1 200 OK", b"ICY 200 OK", b" HTTP/1.1 200 OK"]
BROKEN_LINES += [b"\r\nHTTP/1.1 200 OK", b"\xef\xbb\xbfHTTP/1.1 200 OK", b"GET / HTTP/1.1", b"X: 1"]
BROKEN_LINES += [b"HTTP/1.1 200 O\rK", b"HTTP/1.1 200 O\nK", b"HTTP/1.1 200 O\x00K"]
ANSWERS |= {
    f"status line {shown(line)}": bad(ok(length(5), line=line, body=b"hello") + POISON)
    for line in BROKEN_LINES
}
GOOD_LINES = [
    b"HTTP/1.1 200",
    b"HTTP/1.1 200 ",
    b"HTTP/1.1 200 A long reason",
    b"HTTP/1.1 200 \xe9",
]
GOOD_LINES += [b"HTTP/1.1 404 Not Found", b"HTTP/1.1 299 X", b"HTTP/1.1 599 X", b"HTTP/1.0 200 OK"]
GOOD_LINES += [b"HTTP/1.1 205 Reset", b"HTTP/1.1 301 Moved", b"HTTP/1.1 401 No", b"HTTP/1.1 407 No"]
ANSWERS |= {
    f"status line {shown(line)}": good(ok(length(5), line=line, body=b"hello"))
    for line in GOOD_LINES
}

# --- field lines --------------------------------------------------------------------------------

FIELDS = {
    "a fold": b"X: a\r\n b",
    "a fold by tab": b"X: a\r\n\tb",
    "bare CR": b"X: a\rY: b",
    "bare LF": b"X: a\nY: b",
    "CR CR LF": b"X: a\r\r\nY: b",
    "no colon": b"X",
    "an empty name": b": a",
    "a blank before the colon": b"X : a",
    "a tab before the colon": b"X\t: a",
    "a blank in the name": b"X Y: a",
    "a blank before the name": b" X: a",
    "8-bit bytes in the name": b"X\xe9: a",
    "brackets in the name": b"X(Y): a",
}
ANSWERS |= {f"field: {w}": bad(ok(f, length(5), body=b"hello") + POISON) for w, f in FIELDS.items()}
ANSWERS |= {
    f"byte {b:02x} in a value": bad(ok(b"X: a%cb" % b, length(5), body=b"hello")) for b in CONTROLS
}
ANSWERS |= {
    f"byte {b:02x} in a value": good(ok(b"X: a%cb" % b, length(5), body=b"hello"))
    for b in BLANKS + HIGH
}
ANSWERS |= {
    "bare LF everywhere": bad(PLAIN.replace(b"\r\n", b"\n") + b"\r\n\r\n"),
    "the head ends with LF LF": bad(ok(length(5) + b"\n\n" + POISON)),
    "a head that is too large": bad(ok(b"X: " + b"v" * 70_000, length(5), body=b"hello")),
    "a head that does not end": bad(ok(length(5))[:-2], hangs_up=True),
    "nothing": bad(b"", hangs_up=True),
    "no HTTP": bad(b"poison\r\n\r\n" + POISON),
    "TLS": bad(b"\x15\x03\x03\x00\x02\x02\x28\r\n\r\n"),
    "an empty value": good(ok(b"X:", b"Y: ", length(5), body=b"hello")),
    "Set-Cookie twice": good(ok(b"Set-Cookie: a=1", b"Set-Cookie: b=2", length(5), body=b"hello")),
    "a response in a value": good(ok(b"X: HTTP/1.1 200 OK", length(5), body=b"hello")),
    "99 fields": good(ok(*(b"X-%d: 1" % i for i in range(99)), length(5), body=b"hello")),
    "fields of one connection": good(
        ok(b"Keep-Alive: timeout=5", b"Proxy-Connection: x", b"Connection: X, close", b"X: 1")
        + b"hello",
        hangs_up=True,
    ),
}

# --- the length of the body (RFC 9112, section 6.3) ---------------------------------------------

NO_LENGTHS = [b"+5", b"-5", b"0x5", b"5_0", b"5 5", b"5;", b"five", b"", b"5.0", b"5, 5", b"5,6"]
NO_LENGTHS += [b",5", b"5,", b"\xb25", b"1" + b"0" * 20, b"18446744073709551621"]
ANSWERS |= {
    f"CL {shown(v)}": bad(ok(b"Content-Length: " + v, body=b"hello") + POISON) for v in NO_LENGTHS
}
CODINGS = [b"x", b"xchunked", b"chunkedx", b"identity", b"gzip", b"gzip, chunked", b"chunked, gzip"]
CODINGS += [b"chunked, chunked", b", chunked", b"chunked,", b"chunked;q=1", b'"chunked"', b"", b","]
ANSWERS |= {
    f"TE {shown(v)}, {how}": bad(
        ok(*more, b"Transfer-Encoding: " + v, body=HELLO) + POISON, hangs_up=True
    )
    for v in CODINGS
    for how, more in {"alone": (), "with CL": (length(5),)}.items()
}
TEMPLATES: dict[str, tuple[bytes, bytes]] = {
    "behind the name": (b"Transfer-Encoding%c: chunked", b""),
    "before the name": (b"%cTransfer-Encoding: chunked", b""),
    "before the value": (b"Transfer-Encoding:%cchunked", BLANKS),
    "behind the value": (b"Transfer-Encoding: chunked%c", b" "),
    "behind another value": (b"X: y%cTransfer-Encoding: chunked", b""),
}
for _where, (_line, _legal) in TEMPLATES.items():
    for _b in CONTROLS + (_legal or b""):
        _answer = (good if _b in _legal else bad)(ok(_line % _b, body=HELLO))
        ANSWERS[f"TE with byte {_b:02x} {_where}"] = _answer
ANSWERS |= {
    "CL twice": bad(ok(length(5), length(5), body=b"hello")),
    "CL twice, different": bad(ok(length(5), length(6), body=b"hello") + POISON),
    "CL and TE": bad(ok(length(5), CHUNKED, body=HELLO)),
    "TE and CL": bad(ok(CHUNKED, length(5), body=HELLO)),
    "TE twice": bad(ok(CHUNKED, CHUNKED, body=HELLO)),
    "CL of two readings, to HEAD": bad(ok(length(5), length(6)), method=b"HEAD"),
    "CL of two readings, of 204": bad(ok(length(5), length(6), line=b"HTTP/1.1 204 No")),
    "CL": good(PLAIN),
    "CL 0": good(ok(length(0))),
    "CL with zeros in front": good(ok(b"Content-Length: 005", body=b"hello")),
    "CL with blanks around it": good(ok(b"Content-Length: \t5\t ", body=b"hello")),
    "CL, then the end of the connection": good(PLAIN, hangs_up=True),
    "CL and close": good(ok(b"Connection: close", length(5), body=b"hello"), hangs_up=True),
    "chunked": good(ok(CHUNKED, body=HELLO)),
    "chunked, in other letters": good(ok(b"tRANSFER-eNCODING: ChUnKeD", body=HELLO)),
    "chunked in HTTP/1.0, and closed": good(
        ok(CHUNKED, body=HELLO, line=b"HTTP/1.0 200 OK"), hangs_up=True
    ),
    "to the end of the connection": good(ok(body=b"hello"), hangs_up=True),
    "to the end, and nothing comes": good(ok(), hangs_up=True),
    "to the end, with a response in it": good(ok(body=POISON), hangs_up=True),
    "to the end, in HTTP/1.0": good(ok(body=b"hello", line=b"HTTP/1.0 200 OK"), hangs_up=True),
    "to HEAD, with a length": good(ok(length(5)), method=b"HEAD"),
    "to HEAD, in chunks": good(ok(CHUNKED), method=b"HEAD"),
    "to HEAD, without a length": good(ok(), method=b"HEAD"),
    "204": good(ok(line=b"HTTP/1.1 204 No Content")),
    "204 with a length": good(ok(length(0), line=b"HTTP/1.1 204 No Content")),
    "304 with a length": good(ok(length(5), line=b"HTTP/1.1 304 Not Modified")),
    "a body to POST": good(PLAIN, method=b"POST"),
    "a response in the body": good(ok(length(len(POISON)), body=POISON)),
    "a large body": good(ok(length(1 << 20), body=b"v" * (1 << 20))),
}

# --- chunks -------------------------------------------------------------------------------------

SIZES = [b"5\n", b"5\r", b"+5\r\n", b"-5\r\n", b"0x5\r\n", b"0_5\r\n", b" 5\r\n", b"\r\n", b"g\r\n"]
SIZES += [b"5g\r\n", b"5 5\r\n", b'"5"\r\n', b"0000000000000005\r\n", b"10000000000000005\r\n"]
SIZES += [b"5;a\nb\r\n", b"5;a\rb\r\n", b"5;\x00\r\n", b";a\r\n", b"5;" + b"x" * 5000 + b"\r\n"]
ANSWERS |= {
    f"chunk size {shown(v)}": bad(ok(CHUNKED, body=v + b"hello\r\n0\r\n\r\n") + POISON)
    for v in SIZES
}
ENDS = {
    "chunk without a line end": b"5\r\nhello0\r\n\r\n",
    "chunk with bare LF": b"5\r\nhello\n0\r\n\r\n",
    "chunk that is longer": b"5\r\nhello, world\r\n0\r\n\r\n",
    "chunk that is shorter": b"5\r\nhell\r\n0\r\n\r\n",
    "trailer without a colon": b"5\r\nhello\r\n0\r\nX\r\n\r\n",
    "trailer with a fold": b"5\r\nhello\r\n0\r\nX: 1\r\n 2\r\n\r\n",
    "trailer with bare LF": b"5\r\nhello\r\n0\r\nX: 1\nY: 2\r\n\r\n",
    "trailer that is a response": b"5\r\nhello\r\n0\r\n" + POISON,
    "trailers that are too large": b"5\r\nhello\r\n0\r\nX: " + b"v" * 70_000 + b"\r\n\r\n",
}
ANSWERS |= {w: bad(ok(CHUNKED, body=b) + POISON) for w, b in ENDS.items()}
CHUNKS = {
    "of one byte": b"1\r\nh\r\n1\r\ni\r\n0\r\n\r\n",
    "none": b"0\r\n\r\n",
    "with sizes in both letter cases": b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
    "with zeros in front": b"0005\r\nhello\r\n000\r\n\r\n",
    "with extensions": b'5;a="b";c\r\nhello\r\n0;d\r\n\r\n',
    "with trailers": b"5\r\nhello\r\n0\r\nX: 1\r\nContent-Length: 9\r\n\r\n",
    "with an end as content": b"5\r\n0\r\n\r\n\r\n0\r\n\r\n",
    "with every byte": b"100\r\n" + bytes(range(256)) + b"\r\n0\r\n\r\n",
    "with a response as content": b"%x\r\n%b\r\n0\r\n\r\n" % (len(POISON), POISON),
}
ANSWERS |= {f"chunks {why}": good(ok(CHUNKED, body=body)) for why, body in CHUNKS.items()}

# --- too early an end, and bytes behind it ------------------------------------------------------

CUT = {
    "CL that is not reached": ok(length(50), body=b"hello"),
    "a chunk that is not reached": ok(CHUNKED, body=b"50\r\nhello"),
    "no last chunk": ok(CHUNKED, body=b"5\r\nhello\r\n"),
    "no end behind the last chunk": ok(CHUNKED, body=b"5\r\nhello\r\n0\r\n"),
    "a trailer that does not end": ok(CHUNKED, body=b"5\r\nhello\r\n0\r\nX: 1\r\n"),
}
ANSWERS |= {why: Answer(data, Verdict.BROKEN, hangs_up=True) for why, data in CUT.items()}
BEHIND = {
    "CL": PLAIN,
    "CL 0": ok(length(0)),
    "chunks": ok(CHUNKED, body=HELLO),
    "trailers": ok(CHUNKED, body=b"0\r\nX: 1\r\n\r\n"),
    "204": ok(line=b"HTTP/1.1 204 No Content"),
    "204 that has a length": ok(length(6), line=b"HTTP/1.1 204 No Content"),
    "304": ok(length(6), line=b"HTTP/1.1 304 Not Modified"),
    "interim responses": ok(line=b"HTTP/1.1 100 Continue") + PLAIN,
}
for _what, _extra in {"a response": POISON, "a byte": b"x", "a line end": b"\r\n"}.items():
    ANSWERS |= {f"{_what} behind {why}": good(data + _extra) for why, data in BEHIND.items()}
ANSWERS |= {
    f"a byte behind {why}, and later a response": Answer(data + b"x", Verdict.PASSES, late=POISON)
    for why, data in BEHIND.items()
}
ANSWERS |= {"a body to HEAD": good(ok(length(5)) + b"hello" + POISON, method=b"HEAD")}

# --- interim responses (RFC 9110, section 15.2) -------------------------------------------------

ANSWERS |= {
    "100 before it": good(ok(line=b"HTTP/1.1 100 Continue") + PLAIN),
    "102 and 103 before it": good(
        ok(line=b"HTTP/1.1 102 X") + ok(b"Link: </a>", line=b"HTTP/1.1 103 Early Hints") + PLAIN
    ),
    "500 times 100": good(ok(line=b"HTTP/1.1 100 Continue") * 500 + PLAIN),
    "100 with a body": bad(ok(length(5), line=b"HTTP/1.1 100 Continue") + b"hello" + PLAIN),
    "100 and no more": bad(ok(line=b"HTTP/1.1 100 Continue"), hangs_up=True),
    "101": bad(ok(b"Upgrade: x", b"Connection: upgrade", line=b"HTTP/1.1 101 X") + POISON),
    "101 of a websocket": bad(
        ok(b"Upgrade: websocket", b"Connection: upgrade", line=b"HTTP/1.1 101 X") + b"\x81\x01x"
    ),
}
