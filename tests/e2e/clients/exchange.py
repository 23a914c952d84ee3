"""What a client is asked to send, what has to arrive, and what it makes of a placeholder.

Places are those of docs/clients.md. `check` looks at a request that was let through: the value, in
the escaping of its place, and none of it in what came back. `written` looks at one that went to a
host where placeholders stay text: so the upstream sees what the client itself wrote.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from urllib.parse import quote

from tests.e2e.main_home import SPECIAL, SPECIAL_TEXT
from tests.e2e.upstream import Received

KEY = "{{secrets.crm.apiKey}}"
URLSAFE = "__secrets.crm.apiKey__"
ENCODED = "%7b%7Bsecrets.crm.apiKey%7D%7d"
MASK = "********"

IN_URL = quote(SPECIAL, safe="").encode()
IN_JSON = json.dumps(SPECIAL_TEXT, ensure_ascii=False)[1:-1].encode()
IN_BASIC = b"Basic " + b64encode(b"user:" + SPECIAL)
PLACES = ("header", "own-header", "basic", "query", "path", "json", "form", "multipart")
SPELLINGS = {"{{": "{{…}}", "%7B%7B": "%7B", "%7b%7b": "%7b", "%7b%7B": "%7b", "__": "__…__"}
SCHEMES = (b"Bearer ", b"token ")  # the second is what GitHub's clients write


@dataclass(frozen=True)
class Exchange:
    """One request of a client: what the upstream got, what the client got.

    Attributes:
        body: None where the client keeps the answer to itself.
    """

    received: Received
    status: int = 200
    body: str | None = None


def check(place: str, exchange: Exchange) -> None:
    """The value arrived in the escaping of its place, and came back masked."""
    got = exchange.received
    assert exchange.status == 200
    assert got.host == "api.example.test"
    assert b"secrets.crm" not in got.bytes
    assert got.all("proxy-authorization") == got.all("proxy-connection") == []
    _check_place(place, got)
    if got.body:
        assert got.all("content-length") == [b"%d" % len(got.body)] or got.raw_body != got.body
    if exchange.body is None:
        return
    assert MASK in exchange.body
    for spelling in (SPECIAL_TEXT, IN_URL.decode(), IN_JSON.decode(), b64encode(SPECIAL).decode()):
        assert spelling not in exchange.body


def _check_place(place: str, got: Received) -> None:
    rest = b"/" + got.target.split(b"/", 2)[2]  # without the mode of the upstream
    if place == "header":
        assert got.all("authorization") in [[scheme + SPECIAL] for scheme in SCHEMES]
    elif place == "own-header":
        assert got.all("x-api-key") == [SPECIAL], got.fields
    elif place == "basic":
        assert got.all("authorization") == [IN_BASIC]
    elif place == "query":
        assert rest in (b"/query?b=1+2&key=" + IN_URL, b"/query?key=" + IN_URL)
    elif place == "path":
        assert rest == b"/path/" + IN_URL + b"/x"
    elif place == "json":
        assert got.body in [b'{"key":%b"%b"}' % (space, IN_JSON) for space in (b"", b" ")]
    elif place == "form":
        assert got.body in (b"b=%C3%BC&key=" + IN_URL, b"key=" + IN_URL)
    else:
        boundary = got.all("content-type")[0].partition(b"boundary=")[2].strip(b'"')
        before, value, after = got.body.partition(b"\r\n\r\n" + SPECIAL + b"\r\n")
        assert before.startswith(b"--" + boundary + b"\r\n")
        assert value
        assert after.rstrip() == b"--" + boundary + b"--"


def arrived(place: str, got: Received) -> str:
    """The part of the request that holds the value, as text for docs/clients.md."""
    if place in ("header", "basic"):
        return "Authorization: " + got.all("authorization")[0].decode()
    if place == "own-header":
        return "X-Api-Key: " + got.all("x-api-key")[0].decode()
    if place == "query":
        return got.target.partition(b"?")[2].decode().rpartition("&")[2]
    if place == "path":
        return "/" + got.target.split(b"/", 3)[3].decode()
    if place == "multipart":
        return got.body.split(b"\r\n\r\n")[1].split(b"\r\n")[0].decode()
    if place == "json":
        return got.body.decode().replace('": "', '":"', 1)
    return got.body.decode().rpartition("&")[2]


def written(place: str, got: Received) -> str:
    """How the client spelled the placeholder in its request."""
    if place == "basic":
        token = got.all("authorization")[0].partition(b" ")[2]
        sent = b64decode(token).partition(b":")[2].decode()
        assert sent in (KEY, URLSAFE), sent
        return "base64"
    where = {
        "header": b"".join(got.all("authorization")),
        "own-header": b"".join(got.all("x-api-key")),
        "query": got.target,
        "path": got.target,
    }
    text = where.get(place, got.body).decode()
    found = re.search(r"(__|\{\{|%7[bB]%7[bB])secrets\.crm\.apiKey(__|\}\}|%7[dD]%7[dD])", text)
    assert found, text
    return SPELLINGS[found[1]]
