"""Who may send which secret where. A policy and a request in, a verdict out.

A secret goes nowhere that no grant names. Any grant that fits allows; the order of the grants
never matters, and there are no denials: each line of the policy file can be judged by itself.
`policy explain` and the proxy walk the same steps, so what is explained is what happens.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from coatcheck.core.destination import Destination, DomainPattern
from coatcheck.core.locations import (
    DEFAULT_PATTERNS,
    Kind,
    Location,
    LocationPattern,
    is_forbidden,
)
from coatcheck.core.message import DASHED, Fields, RequestHead, once
from coatcheck.core.paths import canonical_path, path_fits
from coatcheck.core.placeholder import ALL_SYNTAXES, Syntax
from coatcheck.core.problems import Code, Problem
from coatcheck.core.secret import Secret

type Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_MAX_USES = 4  # occurrences of one secret in one request


class Unresolved(StrEnum):
    """What happens to a placeholder that this client cannot use anywhere."""

    BLOCK = "block"
    KEEP = "keep"


class Mode(StrEnum):
    """Whether what a rule does not allow is refused, or told and let by (`report`).

    Of a grant: its methods, paths, places and max_uses are not held to. Of the whole policy: that
    of every grant, a placeholder that may not be filled stays text, and no egress rule refuses. A
    value still goes nowhere but where the secret's domains and a grant's hosts let it go.
    """

    ENFORCE = "enforce"
    REPORT = "report"


class Replacement(StrEnum):
    MASK = "mask"
    PLACEHOLDER = "placeholder"


@dataclass(frozen=True, slots=True)
class Client:
    """Who sends. ``token`` is the SHA-256 (hex) of its proxy token; both given: both must hold."""

    name: str
    token: str | None = None
    networks: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """One line of ``grants:``.

    Attributes:
        secrets: Names, or patterns with ``*`` (any characters, dots too).
        hosts: None: the secret's own allowed domains decide alone. Given: both must hold.
        methods, paths: None: any.
        line: 1-based line in the policy file, for messages.
    """

    secrets: tuple[str, ...]
    clients: tuple[str, ...]
    hosts: tuple[DomainPattern, ...] | None = None
    methods: frozenset[str] | None = None
    paths: tuple[str, ...] | None = None
    locations: tuple[LocationPattern, ...] = DEFAULT_PATTERNS
    max_uses: int = DEFAULT_MAX_USES
    plaintext: bool = False
    mode: Mode = Mode.ENFORCE
    line: int = 0

    @property
    def takes_urls(self) -> bool:
        """Whether it lets requests go to the URL that is the value of a secret."""
        return any(pattern.kind is Kind.URL for pattern in self.locations)

    def names(self, secret: str) -> bool:
        for pattern in self.secrets:  # noqa: SIM110 a generator takes longer
            if name_matches(pattern, secret):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Egress:
    """Where clients may go at all, with or without a secret.

    ``networks`` are private networks that may be reached all the same; ``passthrough`` hosts are
    tunnelled without interception.
    """

    default_allow: bool = True
    allow: tuple[DomainPattern, ...] = ()
    deny: tuple[DomainPattern, ...] = ()
    networks: tuple[Network, ...] = ()
    passthrough: tuple[DomainPattern, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """A whole policy file, checked. The empty one knows no client and so lets nobody in."""

    clients: tuple[Client, ...] = ()
    grants: tuple[Grant, ...] = ()
    syntaxes: frozenset[Syntax] = ALL_SYNTAXES
    unresolved: Unresolved = Unresolved.BLOCK
    text_hosts: tuple[DomainPattern, ...] = ()
    egress: Egress = field(default_factory=Egress)
    replacement: Replacement = Replacement.MASK
    mode: Mode = Mode.ENFORCE
    source: str = ""  # the file, for messages
    digest: str = ""  # SHA-256 (hex) of the file's bytes
    lines: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)
    # ``clients.NAME``, ``egress.KEY`` -> 1-based line in the file, for messages


class Request(NamedTuple):
    """What a decision may look at."""

    client: str
    destination: Destination
    method: str
    path: str | None  # canonical (`canonical_path`); None where it can be read in two ways


# Fields by which some servers let a client name another method or path than the request line: of
# frameworks, of proxies that tell an authoriser what is asked for, of gunicorn and Flask.
METHOD_OVERRIDES = frozenset(
    b"x-http-method-override x-http-method x-method-override x-original-method"
    b" x-forwarded-method".split()
)
PATH_OVERRIDES = frozenset(
    b"x-original-url x-original-uri x-original-path x-rewrite-url x-override-url"
    b" x-http-path-override x-forwarded-uri x-forwarded-path x-envoy-original-path"
    b" script-name x-script-name path-info".split()
)
# Parameters of the query by which some let a client name a method (Symfony, Laravel; ASP.NET).
METHOD_PARAMETERS = frozenset({b"_method", b"x-http-method-override"})


def request_of(client: str, destination: Destination, head: RequestHead) -> Request:
    """What a decision may look at, of *head*. Method or path fit no list where a field or parameter
    of the request could replace them."""
    replaced = once(head.fields, "overrides", lambda: _overrides(head.fields))
    query = head.query
    is_replaced = replaced[0] or (query is not None and _names_a_method(query))
    method = "" if is_replaced else head.method.decode("latin-1")
    path = None if replaced[1] else canonical_path(head.path)
    return Request(client, destination, method, path)


def _overrides(fields: Fields) -> tuple[bool, bool]:
    """Whether *fields* name another method, and whether they name another path."""
    whole = b"\n".join([name for name, _ in fields])
    names = set(whole.lower().translate(DASHED).split(b"\n"))
    return not names.isdisjoint(METHOD_OVERRIDES), not names.isdisjoint(PATH_OVERRIDES)


def _names_a_method(query: bytes) -> bool:
    """Whether a parameter of *query* names another method, to some server."""
    if b"method" not in unquote_to_bytes(query).lower():  # as in most
        return False
    return any(_name_in_php(part) in METHOD_PARAMETERS for part in _PARTING.split(query))


def _name_in_php(parameter: bytes) -> bytes:
    """The name of *parameter*, lower case, as the most lenient reader has it: PHP drops blanks in
    front, takes a dot for ``_``, and does not count what follows a bracket or NUL."""
    name = unquote_to_bytes(parameter.partition(b"=")[0]).lower().lstrip(b" +")
    return _NAME_END.split(name, maxsplit=1)[0].replace(b".", b"_")


_PARTING = re.compile(rb"[&;]")
_NAME_END = re.compile(rb"[\[\0]")


@dataclass(frozen=True, slots=True)
class Need:
    """One secret that a request asks for, and every place where it asks."""

    name: str
    locations: tuple[Location, ...]


class Step(StrEnum):
    """The questions a grant is asked, in order. The value is the question in words."""

    CLIENT = "names this client"
    SECRET = "names this secret"  # noqa: S105 words, not a password
    DOMAIN = "the secret's allowed domains hold this destination"
    HOST = "its hosts hold this destination"
    PLAINTEXT = "the connection is encrypted, or it says plaintext: true"
    METHOD = "its methods hold this method"
    PATH = "its paths hold this path"
    LOCATION = "its places hold every place where the placeholder stands"
    USES = "max_uses covers the number of placeholders"


CODE_OF_STEP = {
    Step.DOMAIN: Code.DOMAIN_NOT_ALLOWED,
    Step.HOST: Code.DOMAIN_NOT_ALLOWED,
    Step.PLAINTEXT: Code.PLAINTEXT_NOT_ALLOWED,
    Step.METHOD: Code.REQUEST_NOT_ALLOWED,
    Step.PATH: Code.REQUEST_NOT_ALLOWED,
    Step.LOCATION: Code.LOCATION_NOT_ALLOWED,
    Step.USES: Code.TOO_MANY_PLACEHOLDERS,
}
# What a grant may let by where it only reports. A value's way to its destination is not among it.
_REPORTABLE = frozenset({Step.METHOD, Step.PATH, Step.LOCATION, Step.USES})
_ORDER = {step: index for index, step in enumerate(Step)}


@dataclass(frozen=True, slots=True)
class Answer:
    """How one grant answers for one need: ``failed`` is None where it allows."""

    grant: Grant
    failed: Step | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision for one need. ``problem`` is None where a grant allows.

    Attributes:
        keep: The placeholder stays text (``unresolved: keep``, or a text host).
        answers: What every grant said; the decision tree of `policy explain`.
        grant: The grant that allowed, or the nearest one that did not.
        report: What would be refused if it were not for `Mode.REPORT`.
    """

    need: Need
    problem: Problem | None
    keep: bool
    grant: Grant | None
    answers: tuple[Answer, ...] = ()
    report: Problem | None = None

    @property
    def allowed(self) -> bool:
        return self.problem is None and not self.keep


def judge(policy: Policy, request: Request, need: Need, secret: Secret | None) -> Verdict:
    """Decide whether *need* may be filled in *request*. Pure.

    ``secret_unavailable`` is the one answer both for a secret that does not exist and for one
    that is not granted to this client, so that nobody learns which names exist.
    """
    answers = tuple(Answer(g, _first_failed(g, request, need, secret)) for g in policy.grants)
    for answer in answers:
        if answer.failed is None:
            return Verdict(need, None, False, answer.grant, answers)
    for answer in answers:
        if _only_reports(policy, answer, need):
            told = _problem(request, need, secret, answer)
            return Verdict(need, None, False, answer.grant, answers, told)
    nearest = max(answers, key=_nearness, default=None)
    problem = _problem(request, need, secret, nearest)
    unavailable = problem.code is Code.SECRET_UNAVAILABLE
    keep = is_text_host(policy, request.destination) or (
        unavailable and policy.unresolved is Unresolved.KEEP
    )
    report = problem if policy.mode is Mode.REPORT and not keep else None
    if any(where.kind is Kind.URL for where in need.locations):
        keep, report = False, None  # no text could stay: without the value there is no URL
    grant = nearest.grant if nearest else None
    return Verdict(need, problem, keep or report is not None, grant, answers, report)


def candidates(
    policy: Policy, client: str, destination: Destination, name: str
) -> tuple[Grant, ...]:
    """The grants that may allow *client* to send a secret of this *name* to *destination*.

    Whether there is such a secret is not asked, so that a name costs the same either way.
    """
    return tuple(
        grant
        for grant in policy.grants
        if client in grant.clients and grant.names(name) and _host_fits(grant, destination)
    )


def granted(policy: Policy, client: str, name: str) -> tuple[Grant, ...]:
    """The grants that let *client* use a secret of this *name* anywhere at all."""
    return tuple(g for g in policy.grants if client in g.clients and g.names(name))


def allows(grant: Grant, request: Request, need: Need, secret: Secret | None) -> bool:
    """Whether *grant* alone lets *need* be filled: one of these, and `judge` allows too."""
    return _first_failed(grant, request, need, secret) is None


def is_text_host(policy: Policy, destination: Destination) -> bool:
    """Whether placeholders that may not be filled stay text there instead of a refusal."""
    return any(pattern.matches(destination) for pattern in policy.text_hosts)


def in_scope(
    policy: Policy, client: str, destination: Destination, secrets: Iterable[Secret]
) -> list[Secret]:
    """The secrets that *client* may use at *destination* by some method, path and place.

    These are the ones whose values are scrubbed from what that destination answers.
    """
    grants = [g for g in policy.grants if client in g.clients and _host_fits(g, destination)]
    if not grants:
        return []
    return [
        secret
        for secret in secrets
        if _domain_fits(secret, destination) and any(g.names(secret.name) for g in grants)
    ]


def sent_to(
    policy: Policy, client: str, destination: Destination, secrets: Iterable[Secret]
) -> frozenset[str]:
    """Ids of those of *secrets* to whose value, a URL, *client* may send requests there."""
    grants = [grant for grant in policy.grants if grant.takes_urls and client in grant.clients]
    grants = [grant for grant in grants if _host_fits(grant, destination)]
    return frozenset(s.id for s in secrets if any(g.names(s.name) for g in grants))


def egress_allows(egress: Egress, destination: Destination) -> bool:
    """Whether clients may go to *destination* at all. A deny entry beats an allow entry."""
    if any(pattern.matches(destination) for pattern in egress.deny):
        return False
    return egress.default_allow or any(p.matches(destination) for p in egress.allow)


def needs_of(found: Iterable[tuple[str, Location]]) -> tuple[Need, ...]:
    """Group single placeholders by secret, in order of first appearance."""
    places: dict[str, list[Location]] = {}
    for name, location in found:
        places.setdefault(name, []).append(location)
    return tuple(Need(name, tuple(where)) for name, where in places.items())


def name_matches(pattern: str, name: str) -> bool:
    """Whether *pattern* (a name, ``*`` for any characters) names the secret *name*.

    Linear: the client chooses the name, and a regular expression with several stars is not.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    *middle, last = rest
    end = len(name) - len(last)
    if not (name.startswith(first) and name.endswith(last) and end >= len(first)):
        return False
    at = len(first)
    for part in middle:  # the leftmost fit leaves the most for those that follow
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _nearness(answer: Answer) -> tuple[int, int]:
    # The further down the steps the nearer; of equals the first in the file.
    return (_ORDER[answer.failed or Step.USES], -answer.grant.line)


def _only_reports(policy: Policy, answer: Answer, need: Need) -> bool:
    """Whether a grant that does not allow *need* lets it by all the same.

    The steps are asked in order: who fails at one of these has passed client, secret, domain, host
    and encryption.
    """
    reports = Mode.REPORT in (policy.mode, answer.grant.mode)
    if not reports or answer.failed not in _REPORTABLE:
        return False
    # A URL is no place among others: the destination comes out of it, and what of it is searched
    # for in answers depends on the grants that let it be one.
    return not any(is_forbidden(w) or w.kind is Kind.URL for w in need.locations)


def _first_failed(grant: Grant, request: Request, need: Need, secret: Secret | None) -> Step | None:
    if request.client not in grant.clients:
        return Step.CLIENT
    # The name first, so that a secret that does not exist costs what one not granted does.
    if not grant.names(need.name) or secret is None:
        return Step.SECRET
    if not _domain_fits(secret, request.destination):
        return Step.DOMAIN
    if not _host_fits(grant, request.destination):
        return Step.HOST
    if request.destination.scheme != "https" and not grant.plaintext:
        return Step.PLAINTEXT
    if grant.methods is not None and request.method not in grant.methods:
        return Step.METHOD
    if grant.paths is not None and not path_fits(grant.paths, request.path):
        return Step.PATH
    for where in need.locations:
        if not _location_fits(grant.locations, where):
            return Step.LOCATION
    if len(need.locations) > grant.max_uses:
        return Step.USES
    return None


# Asked for each placeholder: for one or two patterns a generator takes longer than they do.


def _domain_fits(secret: Secret, destination: Destination) -> bool:
    for pattern in secret.domains:  # noqa: SIM110
        if pattern.matches(destination):
            return True
    return False


def _host_fits(grant: Grant, destination: Destination) -> bool:
    if grant.hosts is None:
        return True
    for pattern in grant.hosts:  # noqa: SIM110
        if pattern.matches(destination):
            return True
    return False


def _location_fits(patterns: Sequence[LocationPattern], location: Location) -> bool:
    if is_forbidden(location):
        return False
    for pattern in patterns:  # noqa: SIM110
        if pattern.matches(location):
            return True
    return False


def _problem(
    request: Request, need: Need, secret: Secret | None, nearest: Answer | None
) -> Problem:
    step = nearest.failed if nearest else None
    code = CODE_OF_STEP.get(step, Code.SECRET_UNAVAILABLE) if step else Code.SECRET_UNAVAILABLE
    line = nearest.grant.line if nearest else 0
    host = request.destination.host
    location = ""
    if code is Code.LOCATION_NOT_ALLOWED and nearest is not None:
        bad = (w for w in need.locations if not _location_fits(nearest.grant.locations, w))
        location = str(next(bad))
    detail, hint = _WORDS[code]
    return Problem(
        code,
        detail,
        hint=hint,
        secret=need.name,
        host=host,
        location=location,
        operator=_operator_hint(step, line, secret),
    )


_WORDS = {
    Code.SECRET_UNAVAILABLE: (
        "No secret of this name is available to this client.",
        "check the name in the placeholder; an operator can run: coatcheck policy explain",
    ),
    Code.DOMAIN_NOT_ALLOWED: (
        "This secret may not be sent to this destination.",
        "send the request to one of the secret's allowed domains, or ask an operator to allow it",
    ),
    Code.PLAINTEXT_NOT_ALLOWED: (
        "This secret is not sent over an unencrypted connection.",
        "use https://",
    ),
    Code.REQUEST_NOT_ALLOWED: (
        "This secret may not be used with this method or path.",
        "an operator can widen methods or paths of the grant",
    ),
    Code.LOCATION_NOT_ALLOWED: (
        "The placeholder stands in a place where no grant lets it.",
        "move the placeholder, or ask an operator to add the place to the grant's in: list",
    ),
    Code.TOO_MANY_PLACEHOLDERS: (
        "The request holds this placeholder more often than the grant lets it.",
        "an operator can raise max_uses of the grant",
    ),
}


def _operator_hint(step: Step | None, line: int, secret: Secret | None) -> str:
    if secret is None:
        return "no such secret in the store; create it: coatcheck secret set NAME"
    if step is None:
        return "the policy has no grants; add one under grants:"
    return f"nearest grant: line {line}; failed at: {step}"
