"""What a client may ask coatcheck itself, at ``http://coatcheck.internal/``.

The name leads nowhere: it is answered behind the proxy's own authentication, by whoever is asked
to forward it, and is never resolved or dialled. So a client that has a proxy URL and nothing else
finds our CA and the names it may use, and a page that a browser loads from elsewhere does not.

``internal`` is a top-level name set aside for private use (ICANN, 2024), so nobody can own it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote_to_bytes

from coatcheck.core import canary, placeholder
from coatcheck.core.destination import DEFAULT_PORTS, Destination
from coatcheck.core.paths import canonical_path
from coatcheck.core.placeholder import Syntax
from coatcheck.core.policy import Grant
from coatcheck.core.problems import Code, Refused, refuse
from coatcheck.core.secret import Secret, is_plain_name

HOST = "coatcheck.internal"
URL_PREFIX = b"/url/"


class Page(StrEnum):
    """What is answered here; the value is its path."""

    CA = "/ca.pem"
    SECRETS = "/v1/secrets"
    CANARY = canary.PATH


@dataclass(frozen=True, slots=True)
class ToUrl:
    """``/url/NAME[/more][?query]``: the request is meant for the URL that is the value of *name*.

    Attributes:
        more: What follows the name: empty, or in origin-form but for a path that may be missing.
    """

    name: str
    more: bytes


def is_reserved(host: str) -> bool:
    """Whether *host* (canonical) is ours, or below it: never resolved, never dialled."""
    return host.endswith(HOST) and (host == HOST or host.endswith("." + HOST))


def is_served(destination: Destination) -> bool:
    """Whether what is sent to *destination* is for us."""
    return destination.host == HOST and destination.port == DEFAULT_PORTS[destination.scheme]


def route(target: bytes) -> Page | ToUrl:
    """What *target* (origin-form) asks for.

    The name is percent-decoded once, and a slash in it is written ``%2F``. What follows must have
    one reading: with a dot segment or an encoded slash it would leave the URL that it is put to.

    Raises:
        Refused: not_found or bad_request.
    """
    if target.startswith(URL_PREFIX):
        return _to_url(target[len(URL_PREFIX) :])
    path = target.partition(b"?")[0]
    for page in Page:
        if path == page.encode():
            return page
    raise not_found()


def not_found() -> Refused:
    return refuse(
        Code.NOT_FOUND,
        "Nothing is served there.",
        hint="GET /ca.pem, GET /v1/secrets, or any method on /url/NAME",
        host=HOST,
    )


def document(
    granted: Iterable[tuple[Secret, Iterable[Grant]]], syntaxes: frozenset[Syntax]
) -> bytes:
    """The secrets of one client as JSON: names, how to write them, and what its grants say."""
    listed = [
        {
            "name": secret.name,
            "placeholder": _written(secret.name, syntaxes),
            "grants": [_terms(grant, secret) for grant in grants],
        }
        for secret, grants in granted
    ]
    return json.dumps({"secrets": listed}).encode() + b"\n"


def _to_url(rest: bytes) -> ToUrl:
    path, mark, query = rest.partition(b"?")
    raw, slash, more = path.partition(b"/")
    try:
        name = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise _unreadable("The name of the secret is not UTF-8.") from None
    if not name:
        raise not_found()
    if slash and canonical_path(b"/" + more) is None:
        raise _unreadable("What follows the name of the secret could be read in two ways.")
    return ToUrl(name, slash + more + mark + query)


def _unreadable(detail: str) -> Refused:
    hint = (
        "percent-encode the name, its slashes too; leave '//', '..', ';' and '%2F' out of the rest"
    )
    return refuse(Code.BAD_REQUEST, detail, hint=hint, host=HOST)


def _written(name: str, syntaxes: frozenset[Syntax]) -> str | None:
    """The placeholder for *name* in one of the syntaxes in force; None: there is none for it."""
    if not is_plain_name(name):
        text = placeholder.write(name)
        if Syntax.DOUBLE in syntaxes:
            return text
        return text.replace("secrets", "secret", 1) if Syntax.DOUBLE_SINGULAR in syntaxes else None
    known = [syntax for syntax in Syntax if syntax in syntaxes]
    if "__" in name or name.endswith("_"):
        known = [syntax for syntax in known if syntax is not Syntax.URLSAFE]
    return known[0].replace("NAME", name) if known else None


def _terms(grant: Grant, secret: Secret) -> dict[str, object]:
    hosts = secret.domains if grant.hosts is None else grant.hosts
    return {
        "hosts": [str(pattern) for pattern in hosts],
        "methods": None if grant.methods is None else sorted(grant.methods),
        "paths": None if grant.paths is None else list(grant.paths),
        "in": [str(pattern) for pattern in grant.locations],
        "max_uses": grant.max_uses,
        "plaintext": grant.plaintext,
    }
