"""Which host is it? One spelling for each destination, and the patterns that name allowed ones.

A request names its destination up to seven times (CONNECT, SNI, Host, …), and the published leaks
of such proxies are two of these being compared while a third is used. So a name is read once, here,
into ASCII (A-labels, lower case, no trailing dot, or an address in its one spelling), and only that
string goes to the policy, the resolver, SNI, the certificate check and the Host header. What two
readers could read differently has no canonical form: it is refused, not repaired.

Patterns are an exact name or ``*.suffix`` and nothing else. There are no regular expressions: an
unescaped dot or a missing anchor in one is a secret sent to a stranger.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

DEFAULT_PORTS = {"http": 80, "https": 443}

MAX_HOST = 253  # characters without the trailing dot; RFC 1035, section 3.1 leaves this many
MAX_QUOTED = 80  # characters of foreign input that a message repeats

# Letters, digits and hyphen (RFC 1123, section 2.1), and the underscore that real hosts have.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# A last label like this makes a name an IPv4 address to some readers (WHATWG URL, section 3.5).
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[1-9][0-9]{0,4}")


class BadHost(ValueError):
    """A text that is no host; the message says why."""


class BadPattern(ValueError):
    """A text that is no domain pattern; the message is ``what; hint``."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(f"{what}; {hint}")
        self.what = what
        self.hint = hint


class Destination(NamedTuple):
    """Where a request goes. A tuple, for it is a key of several tables that each request asks.

    Attributes:
        scheme: ``http`` or ``https``.
        host: What `canonical_host` returned: A-labels or an address, no brackets.
        port: 1–65535.
    """

    scheme: str
    host: str
    port: int

    @property
    def is_ip(self) -> bool:
        # A canonical name never ends in a number, so this cannot take a name for an address.
        return ":" in self.host or self.host.rpartition(".")[2].isdigit()

    def host_field(self) -> bytes:
        """The value of a Host field (RFC 9110, section 7.2): the port only if not the default."""
        return _authority(self.host, self._shown_port()).encode("ascii")

    def _shown_port(self) -> int | None:
        return None if self.port == DEFAULT_PORTS[self.scheme] else self.port

    def __str__(self) -> str:
        return f"{self.scheme}://{_authority(self.host, self._shown_port())}"


@dataclass(frozen=True, slots=True)
class DomainPattern:
    """A set of destinations. Made by `parse_domain_pattern`, so that *host* is canonical.

    Attributes:
        host: An exact host, or for a wildcard what follows ``*.``; empty where *any*.
        wildcard: One or more labels before *host*; never *host* itself.
        any: Every host.
        port: None means the default port of the scheme; with *any*, every port.
    """

    host: str
    wildcard: bool = False
    any: bool = False
    port: int | None = None
    _suffix: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        # Made once, since `matches` runs for each pattern of each request.
        object.__setattr__(self, "_suffix", "." + self.host)

    def matches(self, destination: Destination) -> bool:
        port = self.port
        if self.any:
            return port is None or port == destination.port
        if destination.port != (DEFAULT_PORTS[destination.scheme] if port is None else port):
            return False
        if self.wildcard:
            # The suffix starts at a dot, and a canonical host does not: so at least one label.
            return destination.host.endswith(self._suffix)
        return destination.host == self.host

    def __str__(self) -> str:
        if self.any:
            return _authority("*", self.port)
        return ("*." if self.wildcard else "") + _authority(self.host, self.port)


@functools.lru_cache(maxsize=8192)
def canonical_host(text: str) -> str:
    """The one spelling of *text*: A-labels in lower case without a trailing dot, or an address.

    Non-ASCII names go through UTS #46, non-transitional and with STD3 rules, and IDNA 2008
    (RFC 5891): Python's own codec is IDNA 2003 and would lead ``faß.de`` to another domain.
    An IPv6 address may stand in brackets; IPv4-mapped ones (RFC 4291, section 2.5.5.2) become
    the IPv4 address that they are dialled as.

    Raises:
        BadHost: empty, too long, a forbidden character, an empty label, an invalid A-label, a
            number that some readers take for an address (``127.1``, ``0x7f.1``), a scoped address.
    """
    if len(text) > MAX_HOST + 1:
        raise BadHost(f"a host has at most {MAX_HOST} characters, this one {len(text)}")
    if "[" in text or ":" in text:
        return _canonical_ipv6(text)
    name = text.lower() if text.isascii() else _to_ascii(text)
    dotted, name = name.endswith("."), name.removesuffix(".")
    if not name:
        raise BadHost("the host is empty")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _canonical_ipv4(name, dotted)
    if len(name) > MAX_HOST:
        raise BadHost(f"a host has at most {MAX_HOST} characters, this one {len(name)}")
    for label in labels:
        _check_label(label, text)
    return name


@functools.lru_cache(maxsize=8192)
def parse_authority(raw: bytes, default_port: int | None) -> tuple[str, int]:
    """Read ``host``, ``host:port`` or ``[v6]:port`` (RFC 9110, section 7.2, without userinfo).

    Args:
        raw: As it stands in a Host field, a CONNECT line or an absolute target.
        default_port: For a missing port; None where a port is required (CONNECT).

    Returns:
        The canonical host and the port, 1–65535.

    Raises:
        BadHost: no canonical host, bytes outside ASCII, or a port that is missing, empty, zero,
            too large, or written with leading zeros.
    """
    if not raw.isascii():
        raise BadHost(f"{_quoted(raw)} has bytes outside ASCII; write the name in A-labels")
    host, port = _split_port(raw.decode("ascii"))
    if port is None:
        if default_port is None:
            raise BadHost(f"{_quoted(host)} has no port")
        port = default_port
    return canonical_host(host), port


def parse_domain_pattern(text: str) -> DomainPattern:
    """Read ``example.com``, ``*.example.com``, an address, or ``*``, each with an optional port.

    A bare ``*`` is returned as any=True; whether it may stand there is the caller's question.

    Raises:
        BadPattern: anything else, and a wildcard right on a public suffix (private section of
            the Public Suffix List too), where strangers can register names.
    """
    _check_shape(text)
    try:
        host, port = _split_port(text)
        if host == "*":
            return DomainPattern("", any=True, port=port)
        wildcard = host.startswith("*.")
        canonical = canonical_host(host.removeprefix("*."))
    except BadHost as error:
        hint = "write a host such as 'api.example.com', '*.example.com' or 'example.com:8443'"
        raise BadPattern(f"{_quoted(text)} is no domain pattern: {error}", hint) from None
    if wildcard:
        _check_wildcard(canonical, text)
    return DomainPattern(canonical, wildcard=wildcard, port=port)


# --- hosts -----------------------------------------------------------------------------------


def _to_ascii(text: str) -> str:
    import idna  # here, since it loads tables and few hosts need it

    try:
        return idna.encode(text, uts46=True, strict=True, std3_rules=True).decode("ascii")
    except (idna.IDNAError, UnicodeError, OverflowError):
        raise BadHost(f"{_quoted(text)} is not a valid internationalised name") from None


def _check_label(label: str, text: str) -> None:
    if not label:
        raise BadHost(f"{_quoted(text)} has an empty label")
    if _LABEL.fullmatch(label) is None:
        raise BadHost(
            f"{_quoted(text)} has a label that is not letters, digits, inner hyphens"
            " and underscores, 63 at most"
        )
    if label.startswith("xn--"):
        _check_a_label(label, text)


def _check_a_label(label: str, text: str) -> None:
    # One that does not survive a round trip is shown, and maybe dialled, as another name.
    import idna

    try:
        if idna.alabel(idna.ulabel(label)).decode("ascii") == label:
            return
    except (idna.IDNAError, UnicodeError, OverflowError):  # Punycode can say too large a number
        pass
    raise BadHost(f"{_quoted(text)} has an A-label that stands for no valid name")


def _canonical_ipv4(name: str, dotted: bool) -> str:
    try:
        if not dotted:
            return str(ipaddress.IPv4Address(name))
    except ValueError:
        pass
    raise BadHost(f"{_quoted(name)} ends in a number and is no IPv4 address of four decimal parts")


def _canonical_ipv6(text: str) -> str:
    inner = text
    if text.startswith("[") and text.endswith("]"):
        inner = text[1:-1]
    try:
        if "%" in inner:
            raise BadHost(f"{_quoted(text)} has a zone; an address here must be global")
        address = ipaddress.IPv6Address(inner)
    except ipaddress.AddressValueError:
        raise BadHost(f"{_quoted(text)} is no IPv6 address") from None
    # Written out, not left to str(): its form of mapped addresses differs between Pythons.
    return str(address.ipv4_mapped or address)


def _split_port(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        host += bracket
        if rest and not rest.startswith(":"):
            raise BadHost(f"{_quoted(text)} has something other than a port after the bracket")
        colon, port = rest[:1], rest[1:]
    else:
        host, colon, port = text.partition(":")
        if ":" in port:
            raise BadHost(f"{_quoted(text)} has more than one colon; IPv6 stands in brackets")
    if not colon:
        return host, None
    if _PORT.fullmatch(port) is None or int(port) > 65535:
        raise BadHost(f"{_quoted(text)} has a port that is not 1 to 65535 without leading zeros")
    return host, int(port)


def _authority(host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"


def _quoted(text: str | bytes) -> str:
    return ascii(text[:MAX_QUOTED])


# --- patterns --------------------------------------------------------------------------------


def _check_shape(text: str) -> None:
    """Name the usual mistakes by name; what is left is judged as a host."""
    quoted = _quoted(text)
    if not text.strip():
        raise BadPattern("a domain pattern is empty", "write a host such as 'api.example.com'")
    if text != text.strip():
        raise BadPattern(f"{quoted} has spaces round it", "remove them")
    if "://" in text:
        raise BadPattern(f"{quoted} has a scheme", "write the host alone, with ':port' if needed")
    if "/" in text:
        raise BadPattern(f"{quoted} has a path", "write the host alone; grants have 'paths:'")
    if text.startswith("."):
        hint = f"write '*{text[:MAX_QUOTED]}' for every name below it"
        raise BadPattern(f"{quoted} starts with a dot", hint)
    if any(c in text for c in "\\^$()|+?{}"):
        hint = "there are no regular expressions here; write '*.example.com' or name each host"
        raise BadPattern(f"{quoted} has a character that no host has", hint)
    rest = text.removeprefix("*.") if text.startswith("*.") else text.removeprefix("*")
    if "*" in rest or (text.startswith("*") and rest == text[1:] and rest[:1] not in ("", ":")):
        hint = "a '*' stands alone or as the whole first label: '*.example.com'"
        raise BadPattern(f"{quoted} has a '*' inside a name", hint)


def _check_wildcard(host: str, text: str) -> None:
    if Destination("https", host, 443).is_ip:
        hint = "name the address, or use egress.networks for a range"
        raise BadPattern(f"{_quoted(text)} puts a wildcard on an address", hint)
    if _suffix_list().is_public(host):
        hint = f"name your own domain below {host!r}, for example '*.yours.{host}'"
        raise BadPattern(
            f"{_quoted(text)} is a wildcard on a public suffix, where anyone can get a name", hint
        )


@functools.cache
def _suffix_list() -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList  # here: it reads 300 KiB, some 70 ms

    # An unknown top-level name counts as public: ``*.corp`` says more than anyone means.
    return PublicSuffixList(accept_unknown=True)
