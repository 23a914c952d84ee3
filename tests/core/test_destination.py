"""One spelling for each host, and what a pattern holds."""

from __future__ import annotations

import random
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.core.destination import (
    BadHost,
    BadPattern,
    Destination,
    DomainPattern,
    canonical_host,
    parse_authority,
    parse_domain_pattern,
)
from tests.core import matcher

# --- one spelling ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        pytest.param("api.example.com", "api.example.com", id="a plain name stays"),
        pytest.param("API.Example.COM", "api.example.com", id="letters are lowered"),
        pytest.param("api.example.com.", "api.example.com", id="one trailing dot goes"),
        pytest.param("localhost", "localhost", id="one label is a name"),
        pytest.param("my_host.example.com", "my_host.example.com", id="underscores exist"),
        pytest.param("r3---sn-4g5e.example.com", "r3---sn-4g5e.example.com", id="hyphens 3 and 4"),
        pytest.param("1and1.example", "1and1.example", id="a label may start with a digit"),
        pytest.param("1.2.3.4.example", "1.2.3.4.example", id="digits before the last label"),
        pytest.param("example.a1", "example.a1", id="a last label with a digit is no number"),
        pytest.param("a" * 63 + ".example", "a" * 63 + ".example", id="a label of 63"),
        pytest.param("bücher.example", "xn--bcher-kva.example", id="U-labels become A-labels"),
        pytest.param("BÜCHER.example", "xn--bcher-kva.example", id="in either case"),
        pytest.param("xn--bcher-kva.example", "xn--bcher-kva.example", id="A-labels stay"),
        pytest.param("XN--BCHER-KVA.example", "xn--bcher-kva.example", id="A-labels are lowered"),
        pytest.param("faß.de", "xn--fa-hia.de", id="non-transitional: not fass.de"),
        pytest.param("ａllowed.com", "allowed.com", id="full-width letters are mapped (UTS 46)"),
        pytest.param("allowed。com", "allowed.com", id="the ideographic full stop is a dot"),
        pytest.param("ⓔxample.com", "example.com", id="circled letters are mapped"),
        pytest.param("bücher.example。", "xn--bcher-kva.example", id="a mapped trailing dot goes"),
        pytest.param("аllowed.com", "xn--llowed-2nf.com", id="Cyrillic a is another name"),
        pytest.param("93.184.216.34", "93.184.216.34", id="an IPv4 address"),
        pytest.param("１.2.3.4", "1.2.3.4", id="mapped digits are judged as an address"),
        pytest.param("[2606:4700::1111]", "2606:4700::1111", id="brackets round IPv6 go"),
        pytest.param("2606:4700::1111", "2606:4700::1111", id="IPv6 without brackets"),
        pytest.param("[2606:4700:0:0::1111]", "2606:4700::1111", id="IPv6 in one spelling"),
        pytest.param("[2606:4700::ABCD]", "2606:4700::abcd", id="IPv6 is lowered"),
        pytest.param("[::ffff:93.184.216.34]", "93.184.216.34", id="mapped IPv4 is IPv4"),
        pytest.param("[::ffff:5db8:d822]", "93.184.216.34", id="mapped IPv4, in hex"),
    ],
)
def test_a_host_has_one_spelling(text: str, canonical: str) -> None:
    assert canonical_host(text) == canonical
    assert canonical_host(canonical) == canonical


def _every_forbidden_character() -> list[object]:
    allowed = set(string.ascii_letters + string.digits + "-_.")
    return [
        pytest.param(f"al{chr(code)}lowed.com", id=f"U+{code:04X} inside a name")
        for code in range(0x80)
        if chr(code) not in allowed
    ]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(".", id="a lone dot"),
        pytest.param("..", id="two dots"),
        pytest.param(".example.com", id="a leading dot"),
        pytest.param("a..example.com", id="an empty label"),
        pytest.param("example.com..", id="two trailing dots"),
        pytest.param("bücher..example", id="an empty label in an international name"),
        pytest.param("a" * 64 + ".example", id="a label of 64"),
        pytest.param(".".join(["a" * 49] * 6), id="a name of 299"),
        pytest.param("a." * 127 + "ab", id="a name of 256"),
        pytest.param("-a.example", id="a leading hyphen"),
        pytest.param("a-.example", id="a trailing hyphen"),
        pytest.param("2130706433", id="127.0.0.1 as one number"),
        pytest.param("0", id="zero"),
        pytest.param("127.1", id="two parts"),
        pytest.param("127.0.1", id="three parts"),
        pytest.param("127.0.0.0.1", id="five parts"),
        pytest.param("0x7f.1", id="hexadecimal, two parts"),
        pytest.param("0x7f000001", id="hexadecimal, one part"),
        pytest.param("0X7F000001", id="hexadecimal, upper case"),
        pytest.param("0x", id="an empty hexadecimal number"),
        pytest.param("0177.0.0.1", id="octal"),
        pytest.param("127.0.0.01", id="a leading zero"),
        pytest.param("256.1.1.1", id="a part above 255"),
        pytest.param("1.2.3.4.", id="an address with a trailing dot"),
        pytest.param("example.1", id="a name that ends in a number"),
        pytest.param("example.0x1f", id="a name that ends in a hexadecimal number"),
        pytest.param("１２７.1", id="two parts in full-width digits"),
        pytest.param("[127.0.0.1]", id="brackets round IPv4"),
        pytest.param("[api.example.com]", id="brackets round a name"),
        pytest.param("[::1", id="an open bracket"),
        pytest.param("::1]", id="a lone closing bracket"),
        pytest.param("[]", id="empty brackets"),
        pytest.param("[[::1]]", id="double brackets"),
        pytest.param("[fe80::1%eth0]", id="a zone"),
        pytest.param("[fe80::1%25eth0]", id="a zone, percent-encoded"),
        pytest.param("fe80::1%1", id="a zone without brackets"),
        pytest.param("[::ffff:127.1]", id="a short IPv4 inside IPv6"),
        pytest.param("[::ffff:0177.0.0.1]", id="an octal IPv4 inside IPv6"),
        pytest.param("[v1.fe80::1]", id="IPvFuture"),
        pytest.param("api.example.com:443", id="a port"),
        pytest.param("user@allowed.com", id="userinfo"),
        pytest.param("allowed.com@evil.com", id="a host as userinfo"),
        pytest.param("allowed.com#@evil.com", id="a fragment"),
        pytest.param("allowed.com\\@evil.com", id="a backslash"),
        pytest.param("evil.com\0.allowed.com", id="NUL, where a C library stops"),
        pytest.param("evil.com%00.allowed.com", id="NUL, percent-encoded"),
        pytest.param("allowed%2ecom", id="a dot, percent-encoded"),
        pytest.param("{{secrets.X}}.allowed.com", id="a placeholder"),
        pytest.param("a\u200db.com", id="a zero-width joiner that IDNA 2003 drops"),
        pytest.param("℀.com", id="a character that maps to one with a slash"),
        pytest.param("％.com", id="a full-width percent sign"),
        pytest.param("a＠b.com", id="a full-width at sign"),
        pytest.param("xn--a.example", id="an A-label that decodes to nothing"),
        pytest.param("xn--allowed-.example", id="an A-label that stands for ASCII"),
        pytest.param("xn--.example", id="an empty A-label"),
        pytest.param(f"xn--fa-hiaba{'4' * 24}r.example", id="an A-label with too large a number"),
        pytest.param("xn--fass-.example", id="an A-label that does not round-trip"),
        pytest.param("\ud800.example", id="a lone surrogate"),
        *_every_forbidden_character(),
    ],
)
def test_what_two_readers_could_read_differently_is_no_host(text: str) -> None:
    with pytest.raises(BadHost):
        canonical_host(text)


@given(st.text(max_size=300) | st.text(alphabet="aA1x-.:[]%@ü。ß_0", max_size=40))
def test_a_canonical_host_is_ascii_and_stays(text: str) -> None:
    try:
        canonical = canonical_host(text)
    except BadHost:
        return
    assert re.fullmatch(r"[a-z0-9._:-]+", canonical)
    assert canonical_host(canonical) == canonical


def test_a_message_repeats_little_of_what_it_refuses() -> None:
    """Otherwise a client could fill logs, or write line ends into them."""
    with pytest.raises(BadHost) as error:
        canonical_host("a\n" * 120)
    assert len(str(error.value)) < 300
    assert "\n" not in str(error.value)


# --- authorities -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "default", "host", "port"),
    [
        pytest.param(b"example.com:443", None, "example.com", 443, id="CONNECT"),
        pytest.param(b"example.com", 443, "example.com", 443, id="a missing port is the default"),
        pytest.param(b"example.com:8443", 443, "example.com", 8443, id="a given port"),
        pytest.param(b"EXAMPLE.com.:443", None, "example.com", 443, id="the host is canonical"),
        pytest.param(b"[2606:4700::1111]:443", None, "2606:4700::1111", 443, id="IPv6"),
        pytest.param(b"[2606:4700::1111]", 80, "2606:4700::1111", 80, id="IPv6, default port"),
        pytest.param(b"10.0.0.1:65535", None, "10.0.0.1", 65535, id="the highest port"),
        pytest.param(b"10.0.0.1:1", None, "10.0.0.1", 1, id="the lowest port"),
    ],
)
def test_an_authority(raw: bytes, default: int | None, host: str, port: int) -> None:
    assert parse_authority(raw, default) == (host, port)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"example.com:", id="an empty port"),
        pytest.param(b"example.com:0", id="port 0"),
        pytest.param(b"example.com:0443", id="a leading zero"),
        pytest.param(b"example.com:65536", id="a port too large"),
        pytest.param(b"example.com:99999999999999999999", id="a port far too large"),
        pytest.param(b"example.com:+443", id="a sign"),
        pytest.param(b"example.com: 443", id="a space before the port"),
        pytest.param(b"example.com:443 ", id="a space after the port"),
        pytest.param(b"example.com:443\n", id="a line end after the port"),
        pytest.param(b"example.com:4_43", id="an underscore that int() would skip"),
        pytest.param(b"example.com:https", id="a port by name"),
        pytest.param(b"example.com:443:443", id="two ports"),
        pytest.param(b"2606:4700::1111", id="IPv6 without brackets"),
        pytest.param(b"::1:443", id="IPv6 without brackets, with a port"),
        pytest.param(b"[::1]443", id="no colon after the bracket"),
        pytest.param(b"[::1]:", id="IPv6 with an empty port"),
        pytest.param(b"[api.example.com]:443", id="brackets round a name"),
        pytest.param(b":443", id="no host"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"user@example.com", id="userinfo"),
        pytest.param(b"user:pw@example.com", id="userinfo with a password"),
        pytest.param(b"example.com/x", id="a path"),
        pytest.param(b"a.example, b.example", id="a list of two hosts"),
        pytest.param(b"example.com\t", id="a tab"),
        pytest.param("bücher.example".encode(), id="UTF-8"),
        pytest.param("bücher.example".encode("latin-1"), id="Latin-1"),
        pytest.param(b"example.com\x80", id="a byte above ASCII"),
        pytest.param(b"*.example.com", id="a pattern is no authority"),
        pytest.param(b"*", id="a star is no authority"),
    ],
)
def test_no_authority(raw: bytes) -> None:
    with pytest.raises(BadHost):
        parse_authority(raw, 443)


def test_connect_needs_a_port() -> None:
    with pytest.raises(BadHost, match="no port"):
        parse_authority(b"example.com", None)


@pytest.mark.parametrize(
    ("destination", "host_field", "text"),
    [
        (("https", "a.example", 443), b"a.example", "https://a.example"),
        (("https", "a.example", 80), b"a.example:80", "https://a.example:80"),
        (("http", "a.example", 80), b"a.example", "http://a.example"),
        (("http", "a.example", 443), b"a.example:443", "http://a.example:443"),
        (("https", "2606:4700::1", 443), b"[2606:4700::1]", "https://[2606:4700::1]"),
        (("https", "2606:4700::1", 444), b"[2606:4700::1]:444", "https://[2606:4700::1]:444"),
    ],
)
def test_a_destination_writes_itself(
    destination: tuple[str, str, int], host_field: bytes, text: str
) -> None:
    made = Destination(*destination)
    assert made.host_field() == host_field
    assert str(made) == text
    default = 443 if made.scheme == "https" else 80
    assert parse_authority(made.host_field(), default) == (made.host, made.port)


@pytest.mark.parametrize(
    ("host", "is_ip"),
    [("10.0.0.1", True), ("2606:4700::1", True), ("a.example", False), ("example.a1", False)],
)
def test_an_address_is_told_from_a_name(host: str, is_ip: bool) -> None:
    assert Destination("https", host, 443).is_ip is is_ip


# --- patterns --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "url", "held"),
    [
        pytest.param("example.com", "https://example.com", True, id="itself"),
        pytest.param("example.com", "https://a.example.com", False, id="nothing below itself"),
        pytest.param("example.com", "https://evil-example.com", False, id="nor a longer label"),
        pytest.param("example.com", "https://example.com.evil.com", False, id="nor as a prefix"),
        pytest.param("EXAMPLE.com.", "https://example.com", True, id="patterns are canonical"),
        pytest.param("*.example.com", "https://a.example.com", True, id="wildcard: one label"),
        pytest.param("*.example.com", "https://a.b.example.com", True, id="wildcard: two labels"),
        pytest.param("*.example.com", "https://example.com", False, id="wildcard: not the apex"),
        pytest.param("*.example.com", "https://notexample.com", False, id="wildcard: not a suffix"),
        pytest.param("*.example.com", "https://a.example.com.evil.com", False, id="nor a prefix"),
        pytest.param("*.example.com", "https://aexample.com", False, id="the dot counts"),
        pytest.param("*.example.com", "https://a.example.comm", False, id="nor a longer end"),
        pytest.param("example.com", "http://example.com", True, id="no port: 80 for http"),
        pytest.param("example.com", "https://example.com:80", False, id="no port: not 80 on https"),
        pytest.param("example.com", "http://example.com:443", False, id="no port: not 443 on http"),
        pytest.param("example.com", "https://example.com:8443", False, id="no port: no other"),
        pytest.param("example.com:8443", "https://example.com:8443", True, id="a port: itself"),
        pytest.param("example.com:8443", "https://example.com", False, id="a port: no other"),
        pytest.param("example.com:443", "http://example.com:443", True, id="a port, any scheme"),
        pytest.param("example.com:443", "http://example.com", False, id="a port is not a default"),
        pytest.param("*.example.com:8443", "https://a.example.com:8443", True, id="wildcard, port"),
        pytest.param("*.example.com:8443", "https://a.example.com", False, id="no other port"),
        pytest.param("*", "https://anything.example:1", True, id="star: any host and port"),
        pytest.param("*", "https://10.0.0.1", True, id="star: addresses too"),
        pytest.param("*:8443", "https://anything.example:8443", True, id="star with a port"),
        pytest.param("*:8443", "https://anything.example", False, id="star with another port"),
        pytest.param("10.0.0.1", "https://10.0.0.1", True, id="an address"),
        pytest.param("10.0.0.1", "https://10.0.0.11", False, id="not another address"),
        pytest.param("[2606:4700::1]:444", "https://[2606:4700::1]:444", True, id="IPv6, port"),
        pytest.param("[2606:4700:0::1]", "https://[2606:4700::1]", True, id="IPv6, one spelling"),
        pytest.param("[::ffff:10.0.0.1]", "https://10.0.0.1", True, id="mapped IPv4"),
        pytest.param("bücher.example", "https://xn--bcher-kva.example", True, id="A-labels"),
        pytest.param("*.faß.de", "https://a.fass.de", False, id="non-transitional"),
    ],
)
def test_a_pattern_holds(pattern: str, url: str, held: bool) -> None:
    scheme, _, authority = url.partition("://")
    host, port = parse_authority(authority.encode(), 443 if scheme == "https" else 80)
    assert parse_domain_pattern(pattern).matches(Destination(scheme, host, port)) is held


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", "empty", id="empty"),
        pytest.param("   ", "empty", id="spaces"),
        pytest.param(" example.com", "spaces", id="a space before"),
        pytest.param("example.com\n", "spaces", id="a line end after"),
        pytest.param("*.com", "public suffix", id="a top-level domain"),
        pytest.param("*.co.uk", "public suffix", id="a registry's second level"),
        pytest.param("*.github.io", "public suffix", id="the list's private section"),
        pytest.param("*.s3.amazonaws.com", "public suffix", id="buckets of strangers"),
        pytest.param("*.cloudfront.net", "public suffix", id="distributions of strangers"),
        pytest.param("*.GitHub.IO:8443", "public suffix", id="in any case, with a port"),
        pytest.param("*.kawasaki.jp", "public suffix", id="below a wildcard rule of the list"),
        pytest.param("*.香港", "public suffix", id="an international suffix"),
        pytest.param("*.公司.香港", "public suffix", id="an international second level"),
        pytest.param("*.internal", "public suffix", id="an unknown top-level domain"),
        pytest.param("http://x.example", "scheme", id="a scheme"),
        pytest.param("x.example/path", "path", id="a path"),
        pytest.param(".example.com", "dot", id="a leading dot"),
        pytest.param("a.*.example.com", "'*'", id="an inner wildcard"),
        pytest.param("*example.com", "'*'", id="a wildcard without its dot"),
        pytest.param("api*.example.com", "'*'", id="a wildcard inside a label"),
        pytest.param("*.*.example.com", "'*'", id="two wildcards"),
        pytest.param("**.example.com", "'*'", id="a double star"),
        pytest.param("example.*", "'*'", id="a trailing wildcard"),
        pytest.param("**", "'*'", id="two stars"),
        pytest.param("*.", "", id="a wildcard on nothing"),
        pytest.param("*.*", "'*'", id="a wildcard on a star"),
        pytest.param(r".*\.example\.com", "dot", id="a regular expression that starts with a dot"),
        pytest.param(r"api\.example\.com", "regular", id="a regular expression"),
        pytest.param(r"^api.example.com$", "regular", id="anchors"),
        pytest.param("(a|b).example.com", "regular", id="alternatives"),
        pytest.param("{a,b}.example.com", "regular", id="braces"),
        pytest.param("x.example:99999", "port", id="a port too large"),
        pytest.param("x.example:", "port", id="an empty port"),
        pytest.param("x.example:*", "'*'", id="any port"),
        pytest.param("*:0", "port", id="star with port 0"),
        pytest.param("*.10.0.0.1", "address", id="a wildcard on IPv4"),
        pytest.param("*.[2606:4700::1]", "host", id="a wildcard on IPv6"),
        pytest.param("2606:4700::1", "bracket", id="IPv6 without brackets"),
        pytest.param("user@x.example", "x.example", id="userinfo"),
        pytest.param("a.example,b.example", "a.example", id="a list in one entry"),
        pytest.param("10.0.0.0/8", "path", id="a network"),
        pytest.param("127.1", "IPv4", id="a short address"),
    ],
)
def test_no_pattern(text: str, words: str) -> None:
    with pytest.raises(BadPattern) as error:
        parse_domain_pattern(text)
    assert words in str(error.value)
    assert error.value.hint
    assert str(error.value) == f"{error.value.what}; {error.value.hint}"


@pytest.mark.parametrize(
    "text",
    ["*.example.com", "*.example.co.uk", "*.mine.github.io", "*.bucket.s3.amazonaws.com"],
)
def test_a_wildcard_below_a_public_suffix_is_fine(text: str) -> None:
    assert parse_domain_pattern(text).wildcard


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("API.Example.com.", "api.example.com"),
        ("api.example.com:443", "api.example.com:443"),
        ("*.Example.com:8443", "*.example.com:8443"),
        ("*", "*"),
        ("*:8443", "*:8443"),
        ("[2606:4700:0:0::1]:444", "[2606:4700::1]:444"),
        ("bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_a_pattern_writes_itself(text: str, canonical: str) -> None:
    pattern = parse_domain_pattern(text)
    assert str(pattern) == canonical
    assert parse_domain_pattern(canonical) == pattern


def test_an_exact_name_is_no_wildcard_of_equal_text() -> None:
    assert parse_domain_pattern("example.com") != parse_domain_pattern("*.example.com")
    assert parse_domain_pattern("example.com") == DomainPattern("example.com")


# --- against the second matcher --------------------------------------------------------------

PAIRS = 20_000
LABELS = ("a", "b", "api", "evil", "example", "evil-example", "x_y", "r3---sn", "com", "test", "0x")
BASES = ("example.test", "api.example.test", "example.com", "a.b.example.com", "10.0.0.1")


def _near(rng: random.Random, host: str) -> str:
    """*host* with one to three changes of the kind that fools a matcher."""
    if rng.random() < 0.3:
        host = rng.choice(LABELS) + "." + host
    for _ in range(rng.choice([0, 0, 1, 1, 2, 3])):
        labels = host.split(".")
        at = rng.randrange(len(labels))
        host = rng.choice(
            [
                host,
                host.upper(),
                host.swapcase(),
                host + ".",
                "." + host,
                host + "..",
                rng.choice(LABELS) + "." + host,
                rng.choice(LABELS) + "-" + host,
                rng.choice(LABELS) + host,
                host + "." + rng.choice(LABELS),
                host + rng.choice("abm019-_"),
                host[1:],
                host[:-1],
                ".".join(labels[at:]),
                ".".join(labels[:at]),
                ".".join([*labels[:at], rng.choice(LABELS), *labels[at:]]),
                ".".join([*labels[:at], "", *labels[at:]]),
                host.replace(".", "-", 1),
                host.replace(".", "..", 1),
                host[:at] + rng.choice("\0 \t%@\\#/?*[]") + host[at:],
                host + "." + rng.choice(["1", "01", "0x1f", "256"]),
            ]
        )
    return host


def _near_port(rng: random.Random) -> str:
    if rng.random() < 0.6:
        return ""
    return rng.choice((":443", ":80", ":8443", ":0443", ":65536", ":", ":0", ":4430"))


def _allows(pattern: str, scheme: str, authority: str) -> bool:
    try:
        host, port = parse_authority(authority.encode(), {"http": 80, "https": 443}[scheme])
        return parse_domain_pattern(pattern).matches(Destination(scheme, host, port))
    except (BadHost, BadPattern):
        return False


def test_two_matchers_agree_on_near_misses() -> None:
    rng = random.Random(20220901)
    differences = []
    held = 0
    for _ in range(PAIRS):
        base = rng.choice(BASES)
        shape = rng.choice(["", "", "*.", "*."] if base[0] != "1" else [""])
        pattern = shape + base + rng.choice(["", "", "", "", ":443", ":80", ":8443"])
        if rng.random() < 0.02:
            pattern = rng.choice(["*", "*:8443", "*:443"])
        scheme = rng.choice(["https", "https", "http"])
        authority = _near(rng, base) + _near_port(rng)
        expected = matcher.allows(pattern, scheme, authority)
        held += expected
        if _allows(pattern, scheme, authority) is not expected:
            differences.append((pattern, scheme, authority, expected))
    assert differences == []
    # Both answers must be common, or agreement says little.
    assert PAIRS // 10 < held < PAIRS * 9 // 10


_label = st.text(alphabet="abAB01x-_", min_size=0, max_size=4)
_name = st.lists(_label, min_size=1, max_size=4).map(".".join)


@given(
    stem=_name,
    front=_name,
    wild=st.booleans(),
    scheme=st.sampled_from(["http", "https"]),
    port=st.sampled_from(["", ":443", ":80", ":8443", ":", ":00"]),
    glue=st.sampled_from([".", "", "-", ".."]),
)
def test_two_matchers_agree(
    stem: str, front: str, wild: bool, scheme: str, port: str, glue: str
) -> None:
    # Two fixed labels keep the pattern clear of public suffixes, which the second matcher ignores.
    pattern = ("*." if wild else "") + stem + ".mine.example"
    for host in (front + glue + stem + ".mine.example", stem + ".mine.example", front):
        authority = host + port
        assert _allows(pattern, scheme, authority) is matcher.allows(pattern, scheme, authority)
