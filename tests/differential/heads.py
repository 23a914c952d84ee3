"""Heads of requests: the request line, field lines, Host, counts and sizes."""

from __future__ import annotations

from tests.differential.cases import (
    BLANKS,
    CONTROLS,
    HIDDEN,
    HIGH,
    HOST,
    Case,
    Table,
    bad,
    get,
    good,
    shown,
)

CASES: Table[Case] = Table()

# --- the request line (RFC 9112, section 3) ---------------------------------------------------

BROKEN_LINES = {
    "two blanks before the target": b"GET  / HTTP/1.1",
    "two blanks before the version": b"GET /  HTTP/1.1",
    "a blank before the method": b" GET / HTTP/1.1",
    "a blank after the version": b"GET / HTTP/1.1 ",
    "tabs for blanks": b"GET\t/\tHTTP/1.1",
    "a blank in the target": b"GET /a b HTTP/1.1",
    "a second version": b"GET / HTTP/1.1 HTTP/1.1",
    "a version in the target": b"GET /a HTTP/1.1/b HTTP/1.1",
    "no version: HTTP/0.9": b"GET /",
    "no target": b"GET HTTP/1.1",
    "no target between blanks": b"GET  HTTP/1.1",
    "the method alone": b"GET",
    "the order turned round": b"/ GET HTTP/1.1",
    "an empty method": b" / HTTP/1.1",
    "a method in lower case": b"get / HTTP/1.1",
    "a method in mixed case": b"gEt / HTTP/1.1",
    "a method in brackets": b"(GET) / HTTP/1.1",
    "a method with a colon": b"GET: / HTTP/1.1",
    "a method that nobody knows": b"FETCH / HTTP/1.1",
    "a method of RTSP": b"DESCRIBE / HTTP/1.1",
    "a placeholder for a method": b"{{secrets.key}} / HTTP/1.1",
    "a fragment": b"GET /a#b HTTP/1.1",
    "a target without a slash": b"GET a HTTP/1.1",
    "an empty query for a target": b"GET ? HTTP/1.1",
    "a star for GET": b"GET * HTTP/1.1",
    "a star and a path": b"OPTIONS */a HTTP/1.1",
    "the preface of HTTP/2": b"PRI * HTTP/2.0",
    "a field for a request line": b"X-A: 1",
    "a status line": b"HTTP/1.1 200 OK",
    "absolute-form in a tunnel": b"GET https://api.example.com/ HTTP/1.1",
    "absolute-form of another host in a tunnel": b"GET https://evil.example.com/ HTTP/1.1",
    "absolute-form without a scheme in a tunnel": b"GET //api.example.com HTTP/1.1 x",
    "authority-form in a tunnel": b"CONNECT api.example.com:443 HTTP/1.1",
}
VERSIONS = [
    "0.9",
    "1.10",
    "1.2",
    "2",
    "2.0",
    "3.0",
    "1.1x",
    "11",
    "1,1",
    "01.1",
    "1.01",
    "+1.1",
    "-1.1",
    "1.",
    ".1",
    "1",
    "1.1.1",
    "1.¹",
    "9.9",
]
PROTOCOLS = [b"http/1.1", b"Http/1.1", b"HTTPS/1.1", b"X/1.1", b"ICE/1.0", b"RTSP/1.0", b"HTTP 1.1"]

CASES |= {f"line: {why}": bad(get(line=line)) for why, line in BROKEN_LINES.items()}
CASES |= {
    f"version {shown(v.encode('latin-1'))}": bad(get(line=b"GET / HTTP/" + v.encode("latin-1")))
    for v in VERSIONS
}
CASES |= {f"protocol {shown(p)}": bad(get(line=b"GET / " + p)) for p in PROTOCOLS}
CASES |= {
    f"byte {b:02x} in the target": bad(get(line=b"GET /a%cb HTTP/1.1" % b))
    for b in CONTROLS + BLANKS + HIGH
}
CASES |= {
    f"byte {b:02x} in the method": bad(get(line=b"G%cET / HTTP/1.1" % b))
    for b in CONTROLS + BLANKS + HIGH + b'_.!"(),/:;<=>?@[]{}'
}
# Legal in a path or a query, or sent raw by browsers: nobody reads it as anything but itself.
CASES |= {
    f"character {chr(b)} in the target": good(get(line=b"GET /a%cb?c%cd HTTP/1.1" % (b, b)))
    for b in b"!$&'()*+,-./:;=@_~\"<>[]\\^`{|}"
}
METHODS = b"GET HEAD POST PUT DELETE OPTIONS PATCH PROPFIND REPORT M-SEARCH PURGE QUERY".split()
CASES |= {f"method {shown(m)}": good(get(line=m + b" /a HTTP/1.1")) for m in METHODS}
CASES |= {
    "method TRACE": good(get(line=b"TRACE /a HTTP/1.1"), 1, "nginx"),
    "OPTIONS * in a tunnel": good(get(line=b"OPTIONS * HTTP/1.1"), 1, "nginx"),
    "a query without a path of its own": good(get(line=b"GET /?a=b HTTP/1.1")),
    "two slashes at the start": good(get(line=b"GET //a//b HTTP/1.1")),
    "a URL inside the target": good(get(line=b"GET /https://evil.example.com/ HTTP/1.1")),
    "an escape that is none": good(get(line=b"GET /%zz HTTP/1.1"), 1, "nginx"),
    "an escaped NUL": good(get(line=b"GET /%00 HTTP/1.1"), 1, "nginx"),
    "an escaped line end": good(get(line=b"GET /a%0d%0aX:%201 HTTP/1.1")),
    "a way up out of the root": good(get(line=b"GET /../../a HTTP/1.1"), 1, "nginx"),
    "a way up": good(get(line=b"GET /a/../b/./c HTTP/1.1")),
    "an escaped way up": good(get(line=b"GET /a/%2e%2e%2fb HTTP/1.1")),
    "a target of 16000 bytes": good(get(line=b"GET /" + b"a" * 15_999 + b" HTTP/1.1")),
    "a target that is too long": bad(get(line=b"GET /" + b"a" * 20_000 + b" HTTP/1.1")),
    "HTTP/1.0": good(get(line=b"GET / HTTP/1.0")),
    "HTTP/1.0 without Host": good(b"GET / HTTP/1.0\r\n\r\n"),
    "HTTP/1.0, kept alive": good(get(b"Connection: keep-alive", line=b"GET / HTTP/1.0")),
    # RFC 9112, section 2.2: one is forgiven.
    "an empty line before the request": good(b"\r\n" + get()),
    "two empty lines before the request": bad(b"\r\n\r\n" + get()),
    "two empty lines between requests": Case(get() + b"\r\n\r\n" + get(), 1, refused=True),
    "an empty line of a bare LF": bad(b"\n" + get()),
    "a byte order mark": bad(b"\xef\xbb\xbf" + get()),
    "TLS in the tunnel": bad(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\r\n\r\n"),
    "SSH in the tunnel": bad(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
}

# --- line ends and folds (RFC 9112, sections 2.2 and 5.2) ---------------------------------------

BROKEN_ENDS = {
    "bare LF everywhere": get(b"X-A: 1").replace(b"\r\n", b"\n") + b"\r\n\r\n",
    "bare LF after the request line": get().replace(b"1.1\r\n", b"1.1\n"),
    "bare CR after the request line": get().replace(b"1.1\r\n", b"1.1\r"),
    "bare LF after a field": get(b"X-A: 1\nX-B: 2"),
    "bare CR after a field": get(b"X-A: 1\rX-B: 2"),
    "CR CR LF": get(b"X-A: 1\r\r\nX-B: 2"),
    "LF CR": get(b"X-A: 1\n\rX-B: 2"),
    "the head ends with LF LF": get(b"X-A: 1\n\n" + HIDDEN[:-4]),
    "the head ends with LF CR LF": get(b"X-A: 1\n\r\n" + HIDDEN[:-4]),
    "the head ends with CR LF LF": get(b"X-A: 1\r\n\n" + HIDDEN[:-4]),
    "the head ends with CR CR": get(b"X-A: 1\r\r" + HIDDEN[:-4]),
    "a blank in the empty line": get(b"X-A: 1\r\n \r\n" + HIDDEN[:-4]),
    "a fold": get(b"X-A: 1\r\n 2"),
    "a fold by tab": get(b"X-A: 1\r\n\t2"),
    "a fold of nothing": get(b"X-A:\r\n 1"),
    "a fold of Host": get(b"X: 1").replace(HOST, b"Host:\r\n api.example.com"),
    "a fold of Content-Length": get(b"Content-Length:\r\n 5") + b"hello",
    "a fold of Transfer-Encoding": get(b"Transfer-Encoding:\r\n chunked") + b"0\r\n\r\n",
    "a fold of Authorization": get(b"Authorization: Bearer\r\n {{secrets.key}}"),
    "a fold inside a placeholder": get(b"X-Key: {{secrets.\r\n key}}"),
    "a fold of the first field": get(host=b" X-A: 1\r\n" + HOST),
    "a fold by a bare LF": get(b"X-A: 1\n 2"),
}
CASES |= {f"line end: {why}": bad(data) for why, data in BROKEN_ENDS.items()}

# --- field lines (RFC 9110, section 5.1; RFC 9112, section 5.1) ---------------------------------

TOKEN = b"!#$%&'*+-.^_`|~09azAZ"
NO_TOKEN = b'"(),/;<=>?@[\\]{}'

CASES |= {f"byte {b:02x} in a value": bad(get(b"X-A: 1%c2" % b)) for b in CONTROLS}
CASES |= {f"byte {b:02x} at the end of a value": bad(get(b"X-A: 1%c" % b)) for b in CONTROLS}
CASES |= {f"byte {b:02x} before a value": bad(get(b"X-A:%c1" % b)) for b in CONTROLS}
CASES |= {f"byte {b:02x} in a value": good(get(b"X-A: 1%c2" % b)) for b in BLANKS + HIGH}
CASES |= {f"byte {b:02x} around a value": good(get(b"X-A:%c1%c" % (b, b))) for b in BLANKS + HIGH}
CASES |= {
    f"byte {b:02x} in a name": bad(get(b"X%cA: 1" % b)) for b in CONTROLS + BLANKS + HIGH + NO_TOKEN
}
CASES |= {f"byte {b:02x} before the colon": bad(get(b"X%c: 1" % b)) for b in CONTROLS + BLANKS}
CASES |= {f"byte {b:02x} before a name": bad(get(b"%cX: 1" % b)) for b in CONTROLS + BLANKS}
CASES |= {f"character {chr(b)} in a name": good(get(b"X%cA: 1" % b)) for b in TOKEN}
CASES |= {
    "no colon": bad(get(b"X-A")),
    "no colon, in the first field": bad(get(host=b"X-A\r\n" + HOST)),
    "an empty name": bad(get(b": 1")),
    "an empty name, in the first field": bad(get(host=b": 1\r\n" + HOST)),
    "a placeholder for a name": bad(get(b"{{secrets.key}}: 1")),
    "an empty value": good(get(b"X-A:", b"X-B: ", b"X-C:\t", b"X-D: 1")),
    "a colon in a value": good(get(b"X-A: b: c", b"X-B::")),
    "a request line in a value": good(get(b"X-A: GET /hidden HTTP/1.1")),
    "the same field twice": good(get(b"X-A: 1", b"x-a: 2", b"X-A: 1")),
    "Cookie twice": good(get(b"Cookie: a=1", b"Cookie: b=2")),
    "a name of 200 characters": good(get(b"X" * 200 + b": 1")),
    "a value of 30000 bytes": good(get(b"X-A: " + b"v" * 30_000)),
    "as many fields as are allowed": good(get(*(b"X-%d: %d" % (i, i) for i in range(99)))),
    "one field too many": bad(get(*(b"X-%d: %d" % (i, i) for i in range(100)))),
    "a thousand fields": bad(get(*(b"X-%d: %d" % (i, i) for i in range(1000)))),
    "a head that is too large": bad(get(*(b"X-%d: %b" % (i, b"v" * 1000) for i in range(90)))),
}

# --- fields of one connection (RFC 9110, section 7.6.1), and Expect -----------------------------

OWN_FIELDS = [
    b"Connection: close",
    b"Connection: keep-alive, X-A",
    b"Connection: Host",
    b"Connection: Content-Length, Transfer-Encoding",
    b"Connection: , ,close",
    b"Keep-Alive: timeout=5",
    b"Proxy-Connection: keep-alive",
    b"Proxy-Authorization: Basic eDp5",
    b"TE: trailers, gzip",
    b"Trailer: Content-Length",
    b"Upgrade: h2c\r\nConnection: Upgrade",
    b"Upgrade: websocket\r\nConnection: Upgrade",
    b"HTTP2-Settings: AAMAAABk\r\nConnection: HTTP2-Settings",
    b"Expect: 100-continue",
    b"Expect: 200-ok",
    b"Expect: 100-continue, x",
]
CASES |= {f"with {shown(one)}": good(get(b"X-A: 1", one, b"X-B: 2")) for one in OWN_FIELDS}

# --- Host (THREATS: HOST-05, MATCH-03; RFC 9112, section 3.2) -----------------------------------

EVIL = b"Host: evil.example.com"
BROKEN_HOSTS = {
    "none": b"X-A: 1",
    "twice, the same": HOST + b"\r\n" + HOST,
    "twice, another first": EVIL + b"\r\n" + HOST,
    "twice, another last": HOST + b"\r\n" + EVIL,
    "twice, in other letters": HOST + b"\r\nhOST: evil.example.com",
    "twice, apart": HOST + b"\r\nX-A: 1\r\n" + EVIL,
    "empty": b"Host:",
    "blank": b"Host: \t",
    "another": EVIL,
    "a list": b"Host: api.example.com, evil.example.com",
    "a list of the same": b"Host: api.example.com, api.example.com",
    "two words": b"Host: api.example.com evil.example.com",
    "userinfo": b"Host: api.example.com@evil.example.com",
    "userinfo of its own": b"Host: x@api.example.com",
    "a path": b"Host: api.example.com/",
    "a URL": b"Host: https://api.example.com",
    "another port": b"Host: api.example.com:444",
    "the port of http": b"Host: api.example.com:80",
    "a port with a zero": b"Host: api.example.com:0443",
    "a port with a sign": b"Host: api.example.com:+443",
    "an empty port": b"Host: api.example.com:",
    "two ports": b"Host: api.example.com:443:443",
    "brackets": b"Host: [api.example.com]",
    "two dots at the end": b"Host: api.example.com..",
    "a dot at the start": b"Host: .api.example.com",
    "an escape": b"Host: api%2eexample.com",
    "an escaped NUL": b"Host: api.example.com%00.evil.example.com",
    "a placeholder": b"Host: {{secrets.key}}.example.com",
    "a blank before the colon": b"Host : api.example.com",
}
CASES |= {f"Host: {why}": bad(get(host=host)) for why, host in BROKEN_HOSTS.items()}
CASES |= {
    f"byte {b:02x} in Host": bad(get(host=b"Host: api.example.com%c.evil.example.com" % b))
    for b in CONTROLS + BLANKS + HIGH + b"\\#?@/,;"
}
CASES |= {
    "Host in other letters": good(get(host=b"hOsT: API.Example.COM")),
    "Host with a dot at the end": good(get(host=b"Host: api.example.com.")),
    "Host with its port": good(get(host=b"Host: api.example.com:443")),
    "Host with tabs around it": good(get(host=b"Host:\tapi.example.com\t ")),
    "Host at the end": good(get(host=b"X-A: 1\r\n" + HOST)),
    "fields that speak of another host": good(
        get(b"X-Forwarded-Host: evil.example.com", b"X-Host: evil.example.com")
    ),
}

# --- absolute-form, to the proxy itself (RFC 9112, section 3.2.2) -------------------------------

BROKEN_TARGETS = {
    "origin-form": b"/",
    "a star": b"*",
    "no scheme": b"api.example.com/",
    "no host": b"http:///a",
    "one slash": b"http:/api.example.com/",
    "another scheme": b"ftp://api.example.com/",
    "a scheme with a blank": b"http ://api.example.com/",
    "userinfo": b"http://x@api.example.com/",
    "userinfo for a host": b"http://api.example.com@evil.example.com/",
    "a backslash": b"http://api.example.com\\@evil.example.com/",
    "a fragment": b"http://api.example.com#@evil.example.com/",
    "another host": b"http://evil.example.com/",
    "another port": b"http://api.example.com:8080/",
    "a port that is none": b"http://api.example.com:http/",
    "an escape in the host": b"http://api%2eexample.com/",
    "a placeholder for a host": b"http://{{secrets.key}}/",
}
CASES |= {
    f"absolute-form: {why}": bad(get(line=b"GET %b HTTP/1.1" % target), tunnel=False)
    for why, target in BROKEN_TARGETS.items()
}
CASES |= {
    f"byte {b:02x} in the authority": bad(
        get(line=b"GET http://api.example.com%c/ HTTP/1.1" % b), tunnel=False
    )
    for b in CONTROLS + BLANKS + HIGH
}
GOOD_TARGETS = {
    "with a path": b"http://api.example.com/a?b",
    "without a path": b"http://api.example.com",
    "with a query only": b"http://api.example.com?a=b",
    "in other letters": b"hTTp://API.Example.com/",
    "with its port": b"http://api.example.com:80/",
    "with an empty query": b"http://api.example.com/?",
    "of a URL in a URL": b"http://api.example.com/http://evil.example.com/",
    "of two slashes": b"http://api.example.com//evil.example.com/",
}
CASES |= {
    f"absolute-form {why}": good(get(line=b"GET %b HTTP/1.1" % target), tunnel=False)
    for why, target in GOOD_TARGETS.items()
}
