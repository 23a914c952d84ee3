"""A request in words, to be explained: method, URL, header lines and a body, as curl takes them.

The command line and the management API ask the same way, and tell what comes of it as the same
document. Of headers and body nothing is told but the names of secrets and where they stand.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from coatcheck.core import internal
from coatcheck.core.destination import DEFAULT_PORTS, BadHost, Destination, parse_authority
from coatcheck.core.explain import Explanation, Place, explain
from coatcheck.core.limits import Limits
from coatcheck.core.message import RequestHead
from coatcheck.core.policy import Policy, request_of
from coatcheck.core.ports import CoatcheckError
from coatcheck.core.problems import Code, Problem
from coatcheck.core.secret import Secret

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2
FORM = (b"Content-Type", b"application/x-www-form-urlencoded")  # what curl -d sends
OVERRIDDEN = "(a method that a header or parameter names)"


class BadRequest(CoatcheckError):
    """The words describe no request.

    Attributes:
        part: Which of them: method, url or header.
    """

    def __init__(self, part: str, problem: str, *, hint: str) -> None:
        super().__init__(problem, hint=hint)
        self.part = part


@dataclass(frozen=True, slots=True)
class Described:
    """A request as it was given."""

    destination: Destination
    head: RequestHead
    body: bytes | None

    def explain(
        self,
        rules: Policy,
        client: str,
        find: Callable[[str], Secret | None],
        limits: Limits,
    ) -> Explanation:
        request = request_of(client, self.destination, self.head)
        made = explain(rules, find, request, self.head, self.body, limits)
        if made.problem is None and self._names_another_host():
            problem = Problem(
                Code.DESTINATION_MISMATCH,
                "The Host header names another destination than the URL.",
                hint="leave the Host header out",
                host=self.destination.host,
            )
            return Explanation(made.request, made.rule, made.tunnel, made.places, problem)
        return made

    def _names_another_host(self) -> bool:
        meant = (self.destination.host, self.destination.port)
        default = DEFAULT_PORTS[self.destination.scheme]
        try:
            return any(parse_authority(v, default) != meant for v in self.head.all(b"host"))
        except BadHost:
            return True


def read_request(method: str, url: str, headers: Sequence[str], data: str | None) -> Described:
    """Read METHOD, URL, ``-H`` and ``-d``.

    Raises:
        BadRequest: one of them is none.
    """
    verb = method.encode("utf-8", "surrogateescape")
    if not _TOKEN.fullmatch(verb):
        raise BadRequest("method", "this is no HTTP method", hint="write GET, POST, ...")
    destination, target, user = _read_url(url)
    fields = [_read_header(header) for header in headers]
    names = {name.lower() for name, _ in fields}
    if user is not None and b"authorization" not in names:
        fields.append((b"Authorization", b"Basic " + base64.b64encode(user)))
    if data is not None and b"content-type" not in names:
        fields.append(FORM)
    body = None if data is None else data.encode("utf-8", "surrogateescape")
    return Described(destination, RequestHead(verb, target, tuple(fields)), body)


def _read_url(url: str) -> tuple[Destination, bytes, bytes | None]:
    """Destination, target, and ``user:password`` where the URL has them."""
    scheme, mark, rest = url.partition("://")
    if not mark or scheme.lower() not in DEFAULT_PORTS:
        hint = "write https://HOST/PATH, in quotes where it holds ? or &"
        raise BadRequest("url", "the URL begins neither with https:// nor with http://", hint=hint)
    raw = rest.partition("#")[0].encode("utf-8", "surrogateescape")
    end = re.search(rb"[/?]|\Z", raw)
    authority, target = (raw[: end.start()], raw[end.start() :]) if end else (raw, b"")
    if re.search(rb"[\x00-\x20\x7f]", raw):
        raise BadRequest(
            "url", "the URL holds spaces or control characters", hint="write %20 for a space"
        )
    user, at, host = authority.rpartition(b"@")
    try:
        name, port = parse_authority(host, DEFAULT_PORTS[scheme.lower()])
    except BadHost as error:
        # With a slash in a password, what is taken for the host is half of that.
        why = "" if b"@" in raw else f": {error}"
        hint = "check the URL; a password is percent-encoded" if not why else "check the URL"
        raise BadRequest("url", f"the URL has no usable host{why}", hint=hint) from None
    if internal.is_reserved(name):
        hint = "say the method and URL that the request has behind it; docs/sdk.md tells the rules"
        raise BadRequest("url", "what is sent to coatcheck.internal is not explained", hint=hint)
    if not target.startswith(b"/"):
        target = b"/" + target
    destination = Destination(scheme.lower(), name, port)
    return destination, target, unquote_to_bytes(user) if at else None


def _read_header(text: str) -> tuple[bytes, bytes]:
    name, colon, value = text.encode("utf-8", "surrogateescape").partition(b":")
    if not colon or not _TOKEN.fullmatch(name) or re.search(rb"[\r\n\x00]", value):
        raise BadRequest("header", "-H is given what is no header", hint="write -H 'Name: value'")
    return name, value.strip(b" \t")


# --- the decision -----------------------------------------------------------------------------


def document(made: Explanation, rules: Policy) -> dict[str, object]:
    """The decision as plain data, for ``--format json``."""
    request, problem = made.request, made.problem
    return {
        "outcome": "sent" if problem is None else "refused",
        "code": None if problem is None else str(problem.code),
        "status": None if problem is None else problem.status,
        "detail": None if problem is None else problem.detail,
        "hint": None if problem is None else problem.hint,
        "operator_hint": None if problem is None else problem.operator or None,
        "client": request.client,
        "method": request.method or OVERRIDDEN,
        "destination": str(request.destination),
        "canonical_path": request.path,
        "policy": {"file": rules.source, "sha256": rules.digest},
        "egress": {
            "rule": made.rule,
            "intercepted": made.tunnel is None,
        },
        "reported": None if made.report is None else str(made.report.code),
        "placeholders": [_place(place) for place in made.places],
    }


def _place(place: Place) -> dict[str, object]:
    problem, verdict = place.problem, place.verdict
    return {
        "secret": place.name,
        "exists": place.exists,
        "location": str(place.location),
        "outcome": outcome(place),
        "code": None if problem is None else str(problem.code),
        "hint": None if problem is None else problem.operator or problem.hint,
        "reported": None if place.report is None else str(place.report.code),
        "grant_line": verdict.grant.line if verdict is not None and verdict.grant else None,
        "grants": [
            {
                "line": answer.grant.line,
                "allows": answer.failed is None,
                "stopped_at": None if answer.failed is None else answer.failed.name.lower(),
            }
            for answer in (verdict.answers if verdict is not None else ())
        ],
    }


def outcome(place: Place) -> str:
    if place.problem is not None:
        return "refused"
    return "injected" if place.filled else "kept as text"
