"""A secret whose value is a whole URL: a webhook, say, that whoever knows it may call.

A client cannot write a placeholder where the host of a URL stands, since the destination has to be
known before anything is decided. So it names the secret (`core.internal`), and the value is read
here: where it leads, what is written into the request line, and what of it an answer may quote.

A value is taken in one reading only. Characters that a URL does not have (RFC 3986), a user or a
password in it, another scheme than http and https: none of these is mended.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from coatcheck.core.destination import DEFAULT_PORTS, BadHost, Destination, parse_authority
from coatcheck.core.secret import SAFE_LENGTH, SecretValue
from coatcheck.core.template import NotRepresentable

MAX_LENGTH = 4096  # bytes
PART_LENGTH = 16  # bytes; a segment, parameter or label this long may be the secret of the URL

_URL = re.compile(
    rb"(?P<scheme>https?)://(?P<authority>[^/?#]+)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?:#.*)?",
    re.IGNORECASE,
)
# Reserved and unreserved characters and the percent sign (RFC 3986, sections 2.1 to 2.3).
_CHARACTERS = re.compile(rb"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")


class NotAUrl(ValueError):
    """A value is no URL that a request can be sent to. The text never quotes it."""


@dataclass(frozen=True, slots=True)
class WholeUrl:
    """What a value says. Neither shows in a repr: they are the secret.

    Attributes:
        target: In origin-form, without the fragment, which is never sent.
    """

    destination: Destination = field(repr=False)
    target: bytes = field(repr=False)


def read(value: SecretValue) -> WholeUrl:
    """*value* as a URL.

    Raises:
        NotAUrl: it is none.
    """
    return _read(value.reveal())


def target_of(value: bytes) -> bytes:
    """What is written into the request line for *value*; the encoding of its place, as it were.

    Raises:
        NotRepresentable: it is no URL.
    """
    try:
        return _read(value).target
    except NotAUrl as error:
        raise NotRepresentable(str(error)) from None


def parts(value: SecretValue) -> list[bytes]:
    """What of *value* an answer may quote without the rest, and gives its secret away.

    That is all that is sent of it, the path, the query, and whatever in it is long enough to be
    a secret by itself: a segment, a parameter, a label of the host. As it stands and undone.
    """
    try:
        url = read(value)
    except NotAUrl:
        return []
    path, _, query = url.target.partition(b"?")
    whole = [url.target, path.removesuffix(b"/"), query]
    pieces = path.split(b"/") + [pair.partition(b"=")[2] for pair in query.split(b"&")]
    pieces += url.destination.host.encode("ascii").split(b".")
    found = [part for part in whole if len(part) >= SAFE_LENGTH]
    found += [piece for piece in pieces if len(piece) >= PART_LENGTH]
    return list(dict.fromkeys([*found, *map(unquote_to_bytes, found)]))


def _read(value: bytes) -> WholeUrl:
    match = _URL.fullmatch(value) if len(value) <= MAX_LENGTH else None
    if match is None or _CHARACTERS.fullmatch(value) is None:
        raise NotAUrl(f"the value is no http:// or https:// URL of {MAX_LENGTH} bytes at most")
    if b"@" in match["authority"]:
        raise NotAUrl("the URL holds a user or a password; keep them in a secret of their own")
    scheme = match["scheme"].decode("ascii").lower()
    try:
        host, port = parse_authority(match["authority"], DEFAULT_PORTS[scheme])
    except BadHost:
        raise NotAUrl("the URL has no usable host or port") from None
    target = (match["path"] or b"/") + (match["query"] or b"")
    return WholeUrl(Destination(scheme, host, port), target)
