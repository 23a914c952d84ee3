"""What `coatcheck demo` shows: the requests, the values, the policy, and what must arrive.

What must arrive is worked out here, with the standard library's encoders: `demo_checks` compares
it as a whole, so the proxy cannot agree with itself. Nothing here prints, sends or opens anything.
"""

from __future__ import annotations

import base64
import json
import secrets
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import quote

from coatcheck.cli.demo_upstream import HOSTS

API, EVIL = HOSTS
HEAD, TAIL = 4, 3  # characters of a value that are shown
STAND_IN = "STANDIN"  # no escaping changes it: it shows where a value stands

POLICY = """\
version: 1
clients:
  local:
    networks: ["127.0.0.1/32", "::1/128"]
grants:
  - secrets: ["crm.*"]
    clients: [local]
    in: ["header:authorization"]
  - secrets: ["maps.key"]
    clients: [local]
    in: ["query:key"]
  - secrets: ["hooks.token"]
    clients: [local]
    in: [path]
  - secrets: ["oauth.clientSecret"]
    clients: [local]
    in: ["body:/client_secret"]
egress:
  networks: ["127.0.0.0/8", "::1/128"]   # the demo's upstream is on loopback
"""


class Part(StrEnum):
    """What of a message a case is about, and how it is shown."""

    HEADER = "Authorization: "
    BASIC = "Authorization: Basic, decoded: "
    TARGET = "request line: "
    BODY = "body: "


@dataclass(frozen=True, slots=True)
class Request:
    """What the client sends. ``curl``: the options of the curl that sends the same."""

    target: str
    curl: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    host: str = API
    scheme: str = "https"

    @property
    def method(self) -> str:
        return "POST" if self.body else "GET"

    def url(self, port: int) -> str:
        return f"{self.scheme}://{self.host}:{port}{self.target}"

    def line(self, port: int) -> str:
        """For a shell; ``-g``: curl has a meaning of its own for braces in a URL."""
        globbing = ("-g",) if "{" in self.target else ()
        return shlex.join(["curl", "-s", *globbing, *self.curl, self.url(port)])


@dataclass(frozen=True, slots=True)
class Case:
    """One request.

    Attributes:
        secret: What it is about; its value must be at the upstream, or nowhere.
        render: Value to the part as the upstream must get it; None where nothing may arrive.
        code: Of the refusal; empty where there must be none.
        echo: The upstream reflects the value, and the client must not get it.
    """

    title: str
    request: Request
    part: Part
    secret: str
    render: Callable[[str], str] | None = None
    code: str = ""
    echo: bool = False


def make_values() -> dict[str, str]:
    """Name to value: random, and with characters that have to be escaped where they go."""
    return {
        "crm.apiKey": "sk_live_" + secrets.token_hex(16),
        "crm.password": "Kq:" + secrets.token_hex(10) + "&;3",
        "maps.key": "AIza+" + secrets.token_hex(12) + "/&=",
        "hooks.token": "T0/" + secrets.token_hex(10) + "/B7?",
        "oauth.clientSecret": 'Zx"' + secrets.token_hex(10) + "\\9~",
    }


def cases() -> list[Case]:
    """In the order in which they are shown."""
    bearer = "Bearer {{secrets.crm.apiKey}}"
    header = ("-H", f"Authorization: {bearer}")
    fields = {"Authorization": bearer}
    user = "bot:{{secrets.crm.password}}"
    form = '{"client_id": "demo", "client_secret": "{{secrets.oauth.clientSecret}}"}'
    return [
        Case(
            "inject into a header",
            Request("/v1/me", header, fields),
            Part.HEADER,
            "crm.apiKey",
            lambda value: f"Bearer {value}",
        ),
        Case(
            "inject into Basic authentication",
            Request("/v1/me", ("-u", user), {"Authorization": f"Basic {base64_of(user)}"}),
            Part.BASIC,
            "crm.password",
            lambda value: f"bot:{value}",
        ),
        Case(
            "inject into the query, percent-encoded",
            Request("/geocode?key={{secrets.maps.key}}&q=Bern"),
            Part.TARGET,
            "maps.key",
            lambda value: f"GET /geocode?key={quote(value, safe='')}&q=Bern",
        ),
        Case(
            "inject into the path, percent-encoded",
            Request("/services/{{secrets.hooks.token}}/send"),
            Part.TARGET,
            "hooks.token",
            lambda value: f"GET /services/{quote(value, safe='')}/send",
        ),
        Case(
            "inject into a JSON body, escaped",
            Request("/token", ("--json", form), {"Content-Type": "application/json"}, form),
            Part.BODY,
            "oauth.clientSecret",
            lambda value: '{"client_id": "demo", "client_secret": ' + json.dumps(value) + "}",
        ),
        Case(
            "refuse: another host",
            Request("/collect", header, fields, host=EVIL),
            Part.HEADER,
            "crm.apiKey",
            code="domain_not_allowed",
        ),
        Case(
            "scrub: the upstream echoes the value, raw and in base64",
            Request("/echo", header, fields),
            Part.HEADER,
            "crm.apiKey",
            lambda value: f"Bearer {value}",
            echo=True,
        ),
        Case(
            "refuse: there is no such secret",
            Request(
                "/v1/me",
                ("-H", "Authorization: Bearer {{secrets.crm.nope}}"),
                {"Authorization": "Bearer {{secrets.crm.nope}}"},
            ),
            Part.HEADER,
            "crm.nope",
            code="secret_unavailable",
        ),
        Case(
            "refuse: http://, readable on the way",
            Request("/v1/me", header, fields, scheme="http"),
            Part.HEADER,
            "crm.apiKey",
            code="plaintext_not_allowed",
        ),
    ]


def masked(case: Case, value: str) -> str:
    """What `Case.render` makes of *value*, for showing: that it is there, and not what it is."""
    if case.render is None:
        return ""
    before, _, after = case.render(STAND_IN).partition(STAND_IN)
    written = case.render(value).removeprefix(before).removesuffix(after)
    size = len(value.encode())
    return f"{before}{written[:HEAD]}…{written[-TAIL:]} ({size} bytes, the value){after}"


def sent(case: Case) -> str:
    """The part of the request that the client sent."""
    request = case.request
    authorization = request.fields.get("Authorization", "")
    return part_of(case.part, request.method, request.target, authorization, request.body)


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def part_of(part: Part, method: str, target: str, authorization: str, body: str) -> str:
    """The part of a message that a case is about."""
    match part:
        case Part.HEADER:
            return authorization
        case Part.BASIC:
            return _decoded(authorization.removeprefix("Basic "))
        case Part.TARGET:
            return f"{method} {target}"
        case Part.BODY:
            return body


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except ValueError:
        return ""
