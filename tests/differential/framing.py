"""Where a request ends: Content-Length, Transfer-Encoding, chunks, trailers, what follows.

Bodies of these cases hide a whole request. It is sent on by itself where it stands behind the end
of the first one, and is a piece of a body, or of something refused, where it does not.
"""

from __future__ import annotations

from tests.differential.cases import (
    BLANKS,
    CHUNKED,
    CONTROLS,
    HIDDEN,
    HIGH,
    Case,
    Table,
    bad,
    either,
    get,
    good,
    post,
    shown,
)

CASES: Table[Case] = Table()
JSON = b"Content-Type: application/json"
OCTETS = b"Content-Type: application/octet-stream"  # goes on as it comes in, unread
HELLO = b"5\r\nhello\r\n0\r\n\r\n"


def length(number: int) -> bytes:
    return b"Content-Length: %d" % number


# --- Content-Length (RFC 9112, section 6.3) -----------------------------------------------------

NO_LENGTHS = [b"+5", b"-5", b"-0", b"0x5", b"5_0", b"5 5", b"5;", b"five", b'"5"', b"5.0", b"5e0"]
NO_LENGTHS += [
    b"",
    b",",
    b"5,",
    b",5",
    b"5,5",
    b"5, 5",
    b"5,6",
    b"0,5",
    b"5\r\n 5",
    b"\xb25",
    b"5L",
]
NO_LENGTHS += [b"5 chunked", b"1" + b"0" * 18, b"1" + b"0" * 20, b"18446744073709551621", b"0 5"]
CASES |= {
    f"CL {shown(v)}": bad(post(b"Content-Length: " + v, body=b"hello" + HIDDEN)) for v in NO_LENGTHS
}
CASES |= {
    f"CL with byte {b:02x} {where}": bad(post(line % b, body=b"hello" + HIDDEN))
    for b in CONTROLS + HIGH
    for where, line in {
        "in front": b"Content-Length: %c5",
        "behind": b"Content-Length: 5%c",
        "in the name": b"Content-Length%c: 5",
    }.items()
}
CASES |= {
    "CL twice": bad(post(length(5), length(5), body=b"hello")),
    "CL twice, the second larger": bad(post(length(5), length(5 + len(HIDDEN)), body=b"hello")),
    "CL twice, the second 0": bad(post(length(5), length(0), body=b"hello")),
    "CL twice, in other letters": bad(post(length(5), b"content-LENGTH: 6", body=b"hello")),
    "CL twice, far apart": bad(post(length(5), b"X: 1", b"Y: 2", length(5), body=b"hello")),
    "CL then TE": bad(post(length(5), CHUNKED, body=HELLO)),
    "TE then CL": bad(post(CHUNKED, length(5), body=HELLO)),
    "CL 0 and TE": bad(post(length(0), CHUNKED, body=HELLO)),
    "CL.TE": bad(post(length(6), CHUNKED, body=b"0\r\n\r\nG" + HIDDEN)),
    "TE.CL": bad(post(CHUNKED, length(4), body=b"5c\r\n" + HIDDEN + b"\r\n0\r\n\r\n")),
    "a GET of CL and TE": bad(get(length(5), CHUNKED) + HELLO),
    "CL with a blank before the colon": bad(post(b"Content-Length : 5", body=b"hello")),
    "CL": good(post(length(5), body=b"hello")),
    "CL and the next request": good(post(length(5), body=b"hello") + HIDDEN, 2),
    "CL with zeros in front": good(post(b"Content-Length: 005", body=b"hello")),
    "CL with blanks around it": good(post(b"Content-Length: \t5\t ", body=b"hello")),
    "CL in other letters": good(post(b"cONTENT-lENGTH: 5", body=b"hello")),
    "CL 0": good(post(length(0))),
    "CL 0 and the next request": good(post(length(0)) + HIDDEN, 2),
    "no length at all": good(post()),
    "no length, and the next request": good(post() + HIDDEN, 2),
    "CL of a GET": good(get(length(5)) + b"hello"),
    "CL of HTTP/1.0": good(post(length(5), body=b"hello", version=b"HTTP/1.0")),
    "a body after HTTP/1.0 is not read": good(post(version=b"HTTP/1.0") + HIDDEN, 1),
    "look-alikes of CL": good(
        get(b"Content_Length: 5", b"X-Content-Length: 5", b"Content-Lengths: 5", b"Content: 5")
    ),
}

# --- Transfer-Encoding: what smuggling tools try ------------------------------------------------

CODINGS = {
    "x": b"x",
    "xchunked": b"xchunked",
    "chunkedx": b"chunkedx",
    "chunked-false": b"chunked-false",
    "identity": b"identity",
    "gzip": b"gzip",
    "gzip, chunked": b"gzip, chunked",
    "chunked, gzip": b"chunked, gzip",
    "chunked, identity": b"chunked, identity",
    "identity, chunked": b"identity, chunked",
    "chunked, chunked": b"chunked, chunked",
    "a comma in front": b", chunked",
    "a comma behind": b"chunked,",
    "a parameter": b"chunked;q=1",
    "an empty parameter": b"chunked;",
    "quotes": b'"chunked"',
    "apostrophes": b"'chunked'",
    "brackets": b"(chunked)",
    "nothing": b"",
    "a comma": b",",
    "two words": b"chunked identity",
    "two words, turned round": b"identity chunked",
    "a colon": b": chunked",
    "a long s": "chunkeſ".encode(),
    "a Kelvin sign": "chun\u212aed".encode(),
    "an escape": b"%63hunked",
    "half of it": b"chunk",
    "a placeholder": b"{{secrets.key}}",
}
CASES |= {
    f"TE: {why}, {how}": bad(post(*more, b"Transfer-Encoding: " + coding, body=HELLO + HIDDEN))
    for why, coding in CODINGS.items()
    for how, more in {"alone": (), "with CL": (length(5),)}.items()
}
# The templates of such tools, each with every byte; and the bytes with which it is legal: where
# the field is read as Transfer-Encoding after all, and where it is a part of another's value.
TEMPLATES: dict[str, tuple[bytes, bytes, bytes]] = {
    "behind the name": (b"Transfer-Encoding%c: chunked", b"", b""),
    "in the name": (b"Transfer%cEncoding: chunked", b"", b""),
    "before the name": (b"%cTransfer-Encoding: chunked", b"", b""),
    "before the value": (b"Transfer-Encoding:%cchunked", BLANKS, b""),
    "before the value and a blank": (b"Transfer-Encoding:%c chunked", BLANKS, b""),
    "behind the value": (b"Transfer-Encoding: chunked%c", b" ", b""),  # llhttp takes no HTAB
    "in the value": (b"Transfer-Encoding: chun%cked", b"", b""),
    "behind another value": (b"X: y%cTransfer-Encoding: chunked", b"", BLANKS + HIGH),
    "behind another field": (b"X: y\r\n%cTransfer-Encoding: chunked", b"", b""),
    "for the line end": (b"Transfer-Encoding: chunked%cX: y", b"", b""),
}
for _where, (_line, _chunked, _unframed) in TEMPLATES.items():
    for _b in CONTROLS + BLANKS + HIGH:
        _legal = _b in _chunked + _unframed
        # Unframed, the chunks are the next request, and no request at all.
        _alone = post(_line % _b, body=HELLO + HIDDEN if _b in _chunked else HIDDEN)
        CASES[f"TE with byte {_b:02x} {_where}"] = either(_legal, _alone, 2)
        _with = post(length(len(HELLO)), _line % _b, body=HELLO + HIDDEN)
        CASES[f"TE with byte {_b:02x} {_where}, with CL"] = either(_b in _unframed, _with, 2)
CASES |= {
    "TE twice": bad(post(CHUNKED, CHUNKED, body=HELLO)),
    "TE twice, then identity": bad(post(CHUNKED, b"Transfer-Encoding: identity", body=HELLO)),
    "TE twice, first identity": bad(post(b"Transfer-Encoding: identity", CHUNKED, body=HELLO)),
    "TE twice, the second empty": bad(post(CHUNKED, b"Transfer-Encoding:", body=HELLO)),
    "TE twice, in other letters": bad(post(CHUNKED, b"transfer-encoding: x", body=HELLO)),
    "TE of HTTP/1.0": bad(post(CHUNKED, body=HELLO, version=b"HTTP/1.0")),
    "TE named as an option": good(
        post(CHUNKED, b"Connection: Transfer-Encoding", body=HELLO + HIDDEN), 2
    ),
    "TE": good(post(CHUNKED, body=HELLO + HIDDEN), 2),
    "TE in other letters": good(post(b"tRANSFER-eNCODING: ChUnKeD", body=HELLO)),
    "TE of a GET": good(get(CHUNKED) + HELLO),
    "TE of a DELETE": good(get(CHUNKED, line=b"DELETE / HTTP/1.1") + HELLO),
    "look-alikes of TE": good(
        get(b"Transfer_Encoding: chunked", b"X-Transfer-Encoding: chunked", b"TEs: chunked")
    ),
}

# --- chunks (RFC 9112, section 7.1) -------------------------------------------------------------


def chunked(kind: bytes, body: bytes) -> bytes:
    return post(kind, CHUNKED, body=body)


def both(name: str, body: bytes) -> dict[str, Case]:
    """A body off the grammar: collected, nothing is sent; unread, it is cut off."""
    return {
        f"{name}, collected": bad(chunked(JSON, body)),
        f"{name}, passed on": Case(chunked(OCTETS, body), refused=True, cut=True),
    }


SIZES = {
    "bare LF": b"5\n",
    "bare CR": b"5\r",
    "a blank and LF": b"5 \n",
    "a sign": b"+5\r\n",
    "a minus": b"-5\r\n",
    "0x": b"0x5\r\n",
    "an underscore": b"0_5\r\n",
    "a blank in front": b" 5\r\n",
    "a tab in front": b"\t5\r\n",
    "nothing": b"\r\n",
    "an extension alone": b";a=b\r\n",
    "no digit": b"g\r\n",
    "a digit and more": b"5g\r\n",
    "two numbers": b"5 5\r\n",
    "a comma": b"5,5\r\n",
    "a full stop": b"5.0\r\n",
    "quotes": b'"5"\r\n',
    "a superscript": b"\xb25\r\n",
    "16 digits": b"0000000000000005\r\n",
    "17 digits": b"00000000000000005\r\n",
    "2 to the 64th": b"10000000000000000\r\n",
    "2 to the 64th and 5": b"10000000000000005\r\n",
    "2 to the 64th less 1": b"ffffffffffffffff\r\n",
    "2 to the 32nd and 5, padded": b"0000000100000005\r\n",
    "LF in an extension": b"5;a\nb\r\n",
    "CR in an extension": b"5;a\rb\r\n",
    "NUL in an extension": b"5;\x00\r\n",
    "a request behind LF in an extension": b"5;\n" + HIDDEN,
    "a long extension": b"5;" + b"x" * 5000 + b"\r\n",
    "a form feed behind it": b"5\x0c\r\n",
}
ENDS = {
    "no line end": b"5\r\nhello0\r\n\r\n",
    "bare LF": b"5\r\nhello\n0\r\n\r\n",
    "bare CR": b"5\r\nhello\r0\r\n\r\n",
    "LF CR": b"5\r\nhello\n\r0\r\n\r\n",
    "more than it says": b"5\r\nhello, world\r\n0\r\n\r\n",
    "less than it says": b"5\r\nhell\r\n0\r\n\r\n" + HIDDEN,
    "two line ends": b"5\r\nhello\r\n\r\n0\r\n\r\n",
}
TRAILERS = {
    "no colon": b"X-A\r\n\r\n",
    "a blank before the colon": b"X-A : 1\r\n\r\n",
    "an empty name": b": 1\r\n\r\n",
    "a fold": b"X-A: 1\r\n 2\r\n\r\n",
    "a fold first": b" X-A: 1\r\n\r\n",
    "bare CR": b"X-A: 1\r2\r\n\r\n",
    "bare LF": b"X-A: 1\nX-B: 2\r\n\r\n",
    "bare LF for the empty line": b"X-A: 1\r\n\n" + HIDDEN,
    "NUL": b"X-A: \x00\r\n\r\n",
    "a request": HIDDEN,
    "too many bytes": b"X-A: " + b"v" * 70_000 + b"\r\n\r\n",
    "bare LF LF": b"\n\n" + HIDDEN,
}
for _why, _size in SIZES.items():
    CASES |= both(f"chunk size: {_why}", _size + b"hello\r\n0\r\n\r\n")
for _why, _end in ENDS.items():
    CASES |= both(f"chunk end: {_why}", _end)
for _why, _trailer in TRAILERS.items():
    CASES |= both(f"trailer: {_why}", b"5\r\nhello\r\n0\r\n" + _trailer)
for _b in CONTROLS:
    CASES |= both(f"byte {_b:02x} in a chunk extension", b"5;a%c\r\nhello\r\n0\r\n\r\n" % _b)
    CASES |= both(f"byte {_b:02x} behind a chunk size", b"5%c\r\nhello\r\n0\r\n\r\n" % _b)
    CASES |= both(f"byte {_b:02x} behind the last chunk", b"5\r\nhello\r\n0%c\r\n\r\n" % _b)

CHUNKS = {
    "in one piece": b"5\r\nhello\r\n0\r\n\r\n",
    "of one byte": b"1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n1\r\nl\r\n1\r\no\r\n0\r\n\r\n",
    "none at all": b"0\r\n\r\n",
    "sizes in both letter cases": b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
    "sizes with zeros in front": b"0005\r\nhello\r\n000\r\n\r\n",
    "a size of 15 digits": b"000000000000005\r\nhello\r\n0\r\n\r\n",
    "blanks behind the size": b"5 \t\r\nhello\r\n0 \r\n\r\n",
    "an extension": b"5;a=b\r\nhello\r\n0;c=d\r\n\r\n",
    "an extension in quotes": b'5;a="b;c=\\"d";e\r\nhello\r\n0\r\n\r\n',
    "an extension of 8-bit bytes": b"5;a=\x80\xff\r\nhello\r\n0\r\n\r\n",
    "an empty extension": b"5;\r\nhello\r\n0;\r\n\r\n",
    "trailers": b"5\r\nhello\r\n0\r\nX-A: 1\r\nX-B:\r\n\r\n",
    "trailers that frame": b"5\r\nhello\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\n\r\n",
    "a trailer Host": b"5\r\nhello\r\n0\r\nHost: evil.example.com\r\n\r\n",
    "a trailer Authorization": b"5\r\nhello\r\n0\r\nAuthorization: {{secrets.key}}\r\n\r\n",
    "a request as content": b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN),
    "an end as content": b"5\r\n0\r\n\r\n\r\n0\r\n\r\n",
    "every byte as content": b"100\r\n" + bytes(range(256)) + b"\r\n0\r\n\r\n",
}
for _kind, _type in {"JSON": JSON, "octets": OCTETS}.items():
    CASES |= {
        f"chunks of {_kind}: {why}": good(chunked(_type, body) + HIDDEN, 2)
        for why, body in CHUNKS.items()
    }

# --- requests inside requests, and behind them --------------------------------------------------

MANY = 300
CASES |= {
    f"a request in the body of {method.decode()}, {how}": good(
        get(*fields, line=method + b" /a HTTP/1.1") + HIDDEN + HIDDEN, 2
    )
    for method in (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH")
    for how, fields in {
        "unread": (OCTETS, length(len(HIDDEN))),
        "read": (JSON, length(len(HIDDEN))),
        "expected": (JSON, length(len(HIDDEN)), b"Expect: 100-continue"),
        "in no type": (length(len(HIDDEN)),),
    }.items()
}
CASES |= {
    "pipelined requests": good(get() * 5, 5),
    "many pipelined requests": good(get() * MANY, MANY),
    "pipelined requests with bodies": good(post(length(5), body=b"hello") * 5, 5),
    "pipelined requests in chunks": good(chunked(OCTETS, HELLO) * 5, 5),
    "pipelined, the last says close": good(get() + get(b"Connection: close"), 2),
    "what follows a close is not read": good(get(b"Connection: close") + HIDDEN, 1),
    "pipelined, an empty line between": good(get() + b"\r\n" + get(), 2),
    "pipelined, then a bad one": Case(get() + get(b"X\n: 1") + HIDDEN, 1, refused=True),
    "pipelined, then two Hosts": Case(get() + get(b"Host: a") + HIDDEN, 1, refused=True),
    "pipelined, then another host": Case(
        get() + get(host=b"Host: evil.example.com"), 1, refused=True
    ),
    "another host, then a good one": Case(
        get(host=b"Host: evil.example.com") + get(), 1, refused=True
    ),
    "an unknown secret, then a good one": Case(get(b"X: {{secrets.no}}") + get(), 1, refused=True),
    "a longer body than it says": Case(post(length(5), body=b"hello, world\r\n\r\n"), 1, True),
    "a body of 2 MiB": good(post(JSON, length(2 << 20), body=b"v" * (2 << 20)) + HIDDEN, 2),
    "a body of 2 MiB, unread": good(post(OCTETS, length(2 << 20), body=b"v" * (2 << 20))),
    "a body of 2 MiB in chunks": good(
        chunked(JSON, b"%x\r\n%b\r\n" % (1 << 20, b"v" * (1 << 20)) * 2 + b"0\r\n\r\n") + HIDDEN, 2
    ),
}
