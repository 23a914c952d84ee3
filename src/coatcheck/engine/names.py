"""The names of a destination that one request holds, and the rule that all of them agree.

A request names its destination up to four times: CONNECT, TLS server name, absolute-form target,
Host. Every known bypass of this kind of proxy is two of them compared and a third one used, so
each is brought to its one canonical form and held against the one `Destination` of the request.
"""

from __future__ import annotations

from coatcheck.core.destination import (
    DEFAULT_PORTS,
    BadHost,
    Destination,
    canonical_host,
    parse_authority,
)
from coatcheck.core.message import Fields, field_values, once
from coatcheck.core.problems import Code, Refused, refuse


def connect_target(target: bytes) -> Destination:
    """The destination of a CONNECT (RFC 9110, section 9.3.6).

    Raises:
        Refused: bad_request.
    """
    return Destination("https", *authority(target, None))


def absolute_form(target: bytes) -> tuple[Destination, bytes]:
    """``http://host:port/path?query`` as destination and origin-form target (RFC 9112, 3.2.2).

    Raises:
        Refused: bad_request, also for origin-form: that is a request to the proxy itself.
    """
    scheme, mark, rest = target.partition(b"://")
    name = scheme.decode("latin-1").lower()
    if not mark or name not in DEFAULT_PORTS:
        raise refuse(
            Code.BAD_REQUEST,
            "This is a forward proxy: it takes CONNECT, and http:// targets.",
            hint="set HTTP_PROXY and HTTPS_PROXY to this address instead of calling it",
        )
    cut = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=len(rest))
    host, port = authority(rest[:cut], DEFAULT_PORTS[name])
    path = rest[cut:]
    return Destination(name, host, port), path if path.startswith(b"/") else b"/" + path


def check_host(fields: Fields, destination: Destination, *, connect: bool, http10: bool) -> None:
    """Exactly one Host (RFC 9112, section 3.2), and it names *destination*.

    Raises:
        Refused: bad_request or destination_mismatch.
    """
    once(
        fields,
        (destination, connect, http10),
        lambda: _check_host(fields, destination, connect, http10),
    )


def _check_host(fields: Fields, destination: Destination, connect: bool, http10: bool) -> None:
    values = field_values(fields, b"host")
    if not values and http10:
        return
    if len(values) != 1:
        raise refuse(Code.BAD_REQUEST, "A request has exactly one Host field.")
    # A CONNECT often names its host without the port (curl does not, Java does).
    default = destination.port if connect else DEFAULT_PORTS[destination.scheme]
    if authority(values[0], default) != (destination.host, destination.port):
        raise mismatch(destination)


def check_sni(sni: str | None, destination: Destination) -> None:
    """No TLS server name, or that of *destination*.

    None is fine: the upstream's name and certificate are settled by the CONNECT alone.

    Raises:
        Refused: destination_mismatch.
    """
    if sni is None:
        return
    try:
        same = canonical_host(sni) == destination.host
    except BadHost:
        same = False
    if not same:
        raise mismatch(destination)


def authority(raw: bytes, default_port: int | None) -> tuple[str, int]:
    """``host:port`` in canonical form; *default_port* None: the port has to be there.

    Raises:
        Refused: bad_request.
    """
    try:
        return parse_authority(raw, default_port)
    except BadHost:
        raise refuse(Code.BAD_REQUEST, "A name in the request is no host.") from None


def mismatch(destination: Destination) -> Refused:
    return refuse(
        Code.DESTINATION_MISMATCH,
        "CONNECT, TLS server name, request target and Host do not name one destination.",
        hint="use one host name for all of them",
        host=destination.host,
    )
