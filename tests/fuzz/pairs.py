"""Host and pattern, a million times: the product against the second matcher, on near misses.

A leak by matching is always a host that almost fits. So a pair begins as a pattern and a host that
it holds, and one to three things are done to the host, each of which has fooled somebody: a label
more or less, a dot that is none, a suffix without its dot, another port, a look-alike, a name in
other letters. What no change has hit stays as the positive twin.

The second matcher knows ASCII names and takes any A-label for one, so none is
made up. For international ones the pattern is written in Unicode for
the product and in A-labels, from a table that is no code of ours, for the matcher; which wildcards
stand on a public suffix is a table here too.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from coatcheck.core.destination import (
    BadHost,
    BadPattern,
    Destination,
    DomainPattern,
    parse_authority,
    parse_domain_pattern,
)
from tests.core import matcher

LABELS = ("a", "b", "api", "evil", "example", "evil-example", "x_y", "r3---sn", "com", "test", "0x")
# As the product gets it, as the matcher gets it (Unicode, "IDNA2008 and UTS #46 non-transitional").
NAMES = [
    *((name, name) for name in ("example.test", "api.example.test", "example.com")),
    *((name, name) for name in ("a.b.example.com", "mine.co.uk", "mine.github.io", "x-y.dev")),
    ("EXAMPLE.com", "example.com"),
    ("bücher.example", "xn--bcher-kva.example"),
    ("BÜCHER.example", "xn--bcher-kva.example"),
    ("faß.example", "xn--fa-hia.example"),
    ("пример.example", "xn--e1afmkfd.example"),
    ("例え.example", "xn--r8jz45g.example"),
    ("api。example．com", "api.example.com"),
]
ADDRESSES = ("10.0.0.1", "192.0.2.10", "127.0.0.1")
# Wildcards right on these hold nothing; one label more, and they do.
SUFFIXES = ("com", "test", "co.uk", "github.io", "example", "dev", "io", "uk", "herokuapp.com")
LOOK_ALIKES = {"e": "е", "a": "а", "o": "о", "i": "і", ".": "。", "c": "с", "x": "х"}
PORTS = (":443", ":80", ":8443", ":0443", ":65536", ":", ":0", ":4430", ":44", ":443:443", ":x")
SHOWN = 5  # pairs that are told in full

type Change = Callable[[random.Random, str], str]


def _at_label(rng: random.Random, host: str, new: list[str]) -> str:
    labels = host.split(".")
    at = rng.randrange(len(labels) + 1)
    return ".".join([*labels[:at], *new, *labels[at:]])


CHANGES: tuple[Change, ...] = (
    lambda rng, host: host.upper(),
    lambda rng, host: host.swapcase(),
    lambda rng, host: host + ".",
    lambda rng, host: host + "..",
    lambda rng, host: "." + host,
    lambda rng, host: rng.choice(LABELS) + "." + host,
    lambda rng, host: rng.choice(LABELS) + "-" + host,
    lambda rng, host: rng.choice(LABELS) + host,
    lambda rng, host: host + "." + rng.choice(LABELS),
    lambda rng, host: host + rng.choice("abm019-_"),
    lambda rng, host: host[1:],
    lambda rng, host: host[:-1],
    lambda rng, host: host.partition(".")[2] or host,
    lambda rng, host: host.rpartition(".")[0] or host,
    lambda rng, host: _at_label(rng, host, [rng.choice(LABELS)]),
    lambda rng, host: _at_label(rng, host, [""]),
    lambda rng, host: host.replace(".", "-", 1),
    lambda rng, host: host.replace(".", "", 1),
    lambda rng, host: host.replace(".", rng.choice(("%2e", "..", "\0", "/", "@", "\\.")), 1),
    lambda rng, host: _look_alike(rng, host),
    lambda rng, host: host + rng.choice(("/", "?", "#", "@evil.test", "%00", " ", "\t", "\r\n")),
    lambda rng, host: rng.choice(("evil.test@", "evil.test/", "evil.test#", " ", "[")) + host,
    lambda rng, host: host + "." + rng.choice(("1", "01", "0x1f", "256", "0x")),
    lambda rng, host: rng.choice((*ADDRESSES, "127.1", "0177.0.0.1", "2130706433", "0x7f.0.0.1")),
    lambda rng, host: ("a" * rng.choice((62, 63, 64))) + "." + host,
    lambda rng, host: rng.choice(NAMES)[1],
)


def _look_alike(rng: random.Random, host: str) -> str:
    letter = rng.choice([c for c in host if c in LOOK_ALIKES] or ["e"])
    return host.replace(letter, LOOK_ALIKES[letter], 1)


@dataclass
class Differing:
    """What a comparison saw."""

    pairs: int = 0
    held: int = 0
    seed: int = 0
    count: int = 0
    first: list[tuple[str, str, str, bool]] = field(default_factory=list)

    def __str__(self) -> str:
        told = "".join(f"\nfuzz:     {pair!r}" for pair in self.first)
        return (
            f"{self.pairs:,} host/pattern pairs (seed {self.seed}): {self.held:,} match, "
            f"{self.pairs - self.held:,} do not, {self.count} disagreements{told}"
        )


def compare(pairs: int, seed: int) -> Differing:
    """*pairs* pairs made from *seed*, put to both matchers."""
    rng = random.Random(seed)
    seen = Differing(pairs=pairs, seed=seed)
    patterns: dict[str, DomainPattern | None] = {}
    for _ in range(pairs):
        written, plain, scheme, authority = a_pair(rng)
        if written not in patterns:
            patterns[written] = _pattern(written)
        wanted = plain is not None and matcher.allows(plain, scheme, authority)
        seen.held += wanted
        if _allows(patterns[written], scheme, authority) is not wanted:
            seen.count += 1
            seen.first += [(written, scheme, authority, wanted)][: SHOWN - len(seen.first)]
    return seen


def a_pair(rng: random.Random) -> tuple[str, str | None, str, str]:
    """A pattern for the product, the same for the matcher (None: it must hold nothing), a scheme
    and an authority."""
    scheme = rng.choice(("https", "https", "http"))
    kind = rng.random()
    port = rng.choice(("", "", "", ":443", ":80", ":8443"))
    written: str
    plain: str | None
    if kind < 0.02:
        written = plain = rng.choice(("*", "*:443", "*:8443"))
        host = rng.choice(NAMES)[1]
    elif kind < 0.08:
        written = plain = rng.choice(ADDRESSES) + port
        host = written.partition(":")[0]
    elif kind < 0.14:
        suffix = rng.choice(SUFFIXES)
        written, plain = f"*.{suffix}{port}", None
        host = f"{rng.choice(LABELS)}.{suffix}"
    else:
        shape = rng.choice(("", "*."))
        name, ascii_name = rng.choice(NAMES)
        written, plain = shape + name + port, shape + ascii_name + port
        host = ascii_name if not shape else rng.choice(LABELS) + "." + ascii_name
    for _ in range(rng.choice((0, 0, 1, 1, 1, 2, 3))):
        host = rng.choice(CHANGES)(rng, host)
    if not _is_known(host):
        host = f"{rng.choice(LABELS)}.{host.lower().replace('xn--', '')}"
    given = port if rng.random() < 0.8 else rng.choice(PORTS)
    return written, plain, scheme, host + given


_A_LABELS = {label for _, name in NAMES for label in name.split(".") if label.startswith("xn--")}


def _is_known(host: str) -> bool:
    """Whether each A-label of *host* is one of the table: of others the matcher knows nothing."""
    return all(label in _A_LABELS for label in host.lower().split(".") if label.startswith("xn--"))


def _pattern(written: str) -> DomainPattern | None:
    try:
        return parse_domain_pattern(written)
    except BadPattern:
        return None


def _allows(pattern: DomainPattern | None, scheme: str, authority: str) -> bool:
    try:
        host, port = parse_authority(authority.encode(), {"http": 80, "https": 443}[scheme])
    except BadHost:
        return False
    return pattern is not None and pattern.matches(Destination(scheme, host, port))
