"""Policy files, content codings, and the names of destinations."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import brotli
import yaml
import zstandard

from coatcheck import policyfile
from coatcheck.core import coding, policy
from coatcheck.core.destination import (
    BadHost,
    BadPattern,
    Destination,
    canonical_host,
    parse_authority,
    parse_domain_pattern,
)
from coatcheck.core.locations import Kind, Location
from coatcheck.core.message import RequestHead
from coatcheck.core.problems import Code, Refused
from coatcheck.core.secret import Secret
from coatcheck.engine import names
from tests.core import matcher
from tests.fuzz.case import Finding, Target, check, check_same, cuttings
from tests.fuzz.http_targets import ENCODERS

# --- policy files ----------------------------------------------------------------------------

# ``file:line:col: what; hint``, or ``file: what; hint`` where it is about all of the file.
MISTAKE = re.compile(r"p\.yaml(?::[1-9][0-9]*:[1-9][0-9]*)?: .+; .+", re.DOTALL)
TOKEN = "tok3n0123456789abcdef"  # in the words below; no error may quote it
KEYS = {"version", "clients", "grants", "placeholders", "egress", "scrub"}
PROBES = [
    (Destination("https", host, 443), path)
    for host in ("api.example.com", "evil.test", "10.0.0.1")
    for path in (b"/", b"/v1/me?a=b", b"/v1/../x")
]


def run_policies(data: bytes) -> bool:
    """The text of a policy file."""
    text = data.decode("utf-8", "replace")
    try:
        read = policyfile.parse(text, "p.yaml")
    except policyfile.PolicyError as error:
        check(bool(error.mistakes), "a refusal that names no mistake")
        for mistake in error.mistakes:
            check(MISTAKE.fullmatch(str(mistake)) is not None, "a mistake without a place", mistake)
            check(TOKEN[5:] not in str(mistake), "an error quotes a token", mistake)
        return False
    plain = yaml.safe_load(text)
    _check_read(read, plain)
    for warning in policyfile.warnings(read):
        check(warning.startswith("p.yaml:"), "a warning without a place", warning)
        check(TOKEN[5:] not in warning, "a warning quotes a token", warning)
    _check_decisions(read, plain)
    return True


def _check_read(read: policy.Policy, plain: Any) -> None:
    """What PyYAML reads of the text is what is in force."""
    check(isinstance(plain, dict) and set(plain) <= KEYS, "a key that nobody knows", plain)
    check(plain.get("version") == 1, "another version", plain)
    clients, grants = plain.get("clients") or {}, plain.get("grants") or []
    check({c.name for c in read.clients} == set(clients), "other clients", plain)
    for client in read.clients:
        check(client.token or client.networks, "a client that anyone is", client)
    check(len(read.grants) == len(grants), "other grants", plain)
    for one, said in zip(read.grants, grants, strict=True):
        check(list(one.secrets) == said["secrets"], "other secrets", said)
        check(list(one.clients) == said["clients"], "other clients in a grant", said)
        check(set(one.clients) <= set(clients), "a grant for an unknown client", said)
        check((one.hosts is None) == (said.get("hosts") is None), "other hosts", said)
        check(one.plaintext is said.get("plaintext", False), "plaintext that nobody allowed", said)
        check(one.max_uses == said.get("max_uses", policy.DEFAULT_MAX_USES), "other uses", said)
        check((one.methods is None) == (said.get("methods") is None), "other methods", said)
        check((one.paths is None) == (said.get("paths") is None), "other paths", said)
    egress = plain.get("egress") or {}
    check(read.egress.default_allow is (egress.get("default", "allow") == "allow"), "egress", plain)
    for key in ("allow", "deny", "networks", "passthrough"):
        check(len(getattr(read.egress, key)) == len(egress.get(key) or []), "egress lists", plain)


def _check_decisions(read: policy.Policy, plain: Any) -> None:
    """What is allowed is allowed by a grant that says so, read here by hand."""
    for destination, path in PROBES:
        allowed = policy.egress_allows(read.egress, destination)
        denied = any(pattern.matches(destination) for pattern in read.egress.deny)
        check(not (allowed and denied), "deny does not beat allow", str(destination))
        for client in (*(one.name for one in read.clients), "nobody"):
            request = policy.request_of(client, destination, RequestHead(b"GET", path, ()))
            for name in ("key", "crm.apiKey"):
                secret = Secret("id", name, 1, (parse_domain_pattern("api.example.com"),))
                verdict = policy.judge(read, request, policy.Need(name, PLACES), secret)
                if verdict.problem is None and not verdict.keep:
                    by = [g for g in plain["grants"] if _may(g, client, name)]
                    check(bool(by), "a secret that no grant allows", (client, name))
                    check(destination.host == "api.example.com", "another host", destination.host)


PLACES = (Location(Kind.HEADER, "authorization"),)


def _may(grant: Any, client: str, name: str) -> bool:
    hosts, methods = grant.get("hosts"), grant.get("methods")
    return (
        client in grant["clients"]
        and any(fnmatchcase(name, one) for one in grant["secrets"])
        and (hosts is None or any(matcher.allows(h, "https", "api.example.com") for h in hosts))
        and (methods is None or "GET" in methods)
    )


SMALL = b"""version: 1
clients:
  a: {token: "sha256:5b1f0c6e6c1d5f1c9c4a7b1d4b8f5a3e2d6c7b8a9f0e1d2c3b4a59687a6b5c4d"}
  local:
    networks: ["127.0.0.1/32", "::1/128"]
grants:
  - secrets: ["crm.*", key]
    clients: [a]
    hosts: ["*.example.com", "api.example.com:443"]
    methods: [GET]
    paths: ["/v1/**"]
    in: ["header:authorization", "query:key", path, "body:/x"]
    max_uses: 4
    plaintext: false
"""
POLICIES = [
    SMALL,
    b"version: 1\nclients: {local: {networks: [10.0.0.0/8]}}\n",
    SMALL + b"egress: {default: deny, allow: ['*.example.com'], networks: [10.0.0.0/8]}\n",
    SMALL + b"egress:\n  allow: ['*.example.com', evil.test]\n  deny: [api.example.com]\n",
    SMALL + b"placeholders: {unresolved: keep, syntaxes: ['__secrets.NAME__']}\n"
    b"scrub:\n  replacement: placeholder\n",
]
POLICY_WORDS = [
    b"version: 1\n",
    b"clients:\n",
    b"grants:\n",
    b"  - secrets: ['*']\n    clients: [a]\n",
    b"egress:\n  deny: [api.example.com]\n",
    b"  default: deny\n",
    b"passthrough: ",
    b"text_hosts: [api.example.com]\n",
    b"token: " + TOKEN.encode() + b"\n",
    b"'" + TOKEN.encode() + b"'",
    b"hosts: [evil.test]\n",
    b"hosts: []\n",
    b"methods: [get]\n",
    b"max_uses: 0\n",
    b"plaintext: yes\n",
    b"plaintext: true\n",
    b"in: [cookie]\n",
    b"'*.co.uk'",
    b"'*'",
    b"null",
    b"~",
    b"yes",
    b"0x1f",
    b"1e3",
    b"1_0",
    b"12:30",
    b"2001-01-01",
    b"&x ",
    b"*x",
    b"<<: ",
    b"!!python/none ",
    b"!x ",
    b"---\n",
    b"...\n",
    b"%YAML 1.2\n",
    b"? ",
    b": ",
    b"- ",
    b"[",
    b"]",
    b"{",
    b"}",
    b", ",
    b"#",
    b"|\n",
    b">\n",
    b'"\\u0000"',
    b"\t",
    b"\xef\xbb\xbf",
    b"\xc2\x85",
    b"\r\n",
    b"\0",
    b"  ",
]

# --- content codings -------------------------------------------------------------------------

MOST = 256 * 1024  # bytes a body may decode to: below what the ratio counts from


def run_codings(data: bytes) -> bool:
    """Names of codings on a line of their own, and a coded body; after ``make`` as the first
    name, plain content that is to be coded."""
    first, _, body = data.partition(b"\n")
    codings = [name for name in first.split() if name != b"make"][:4]
    made = first.split()[:1] == [b"make"] and all(name in ENCODERS for name in codings)
    content = body
    for coding_name in codings if made else ():
        body = ENCODERS[coding_name](body)
    results = [_decode(codings, pieces) for pieces in cuttings(body)]
    check_same(results, "the result depends on how the coded body was cut")
    if made:
        check(results[0] == content or not body, "a coded body does not come back", codings)
    if results[0] is not None and codings and set(codings) <= set(ONE_SHOT) and body:
        check(results[0] == _at_once(codings, body), "another content than a library reads")
    return results[0] is not None and bool(codings)


def _decode(codings: Sequence[bytes], pieces: Iterable[bytes]) -> bytes | None:
    """The content; None where it is refused."""
    out = b""
    try:
        decoder = coding.decoder(codings, max_size=MOST, max_ratio=200)
        for piece in pieces:
            for step in decoder.feed(piece) if decoder else (piece,):
                check(len(step) <= coding.STEP or decoder is None, "a step too large", len(step))
                out += step
        for step in decoder.finish() if decoder else ():
            out += step
    except coding.CodingError as error:
        check(error.kind in ("unknown", "broken", "too_large"), "an unknown kind", error.kind)
        return None
    check(decoder is None or len(out) <= MOST, "more than the bound", len(out))
    return out


def _at_once(codings: Sequence[bytes], body: bytes) -> bytes:
    for name in reversed(codings):
        body = ONE_SHOT[name](body)
    return body


def _gunzip(data: bytes) -> bytes:
    out = b""
    while data:
        member = zlib.decompressobj(31)
        out += member.decompress(data) + member.flush()
        check(member.eof, "a gzip member that ends too early")
        data = member.unused_data
    return out


def _inflate(data: bytes) -> bytes:
    for bits in (15, -15):
        stream = zlib.decompressobj(bits)
        try:
            out = stream.decompress(data) + stream.flush()
        except zlib.error:
            continue
        if stream.eof and not stream.unused_data:
            return out
    raise Finding("a deflate body that a library refuses")


def _unzstd(data: bytes) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(
        io.BytesIO(data), read_across_frames=True
    ) as reader:
        return reader.read()


ONE_SHOT = {
    b"gzip": _gunzip,
    b"deflate": _inflate,
    b"br": lambda data: brotli.decompress(data),
    b"zstd": _unzstd,
}
PLAIN_TEXT = b'{"a": "{{secrets.key}}"} ' * 20
CODED = [
    *(b"make " + name + b"\n" + PLAIN_TEXT for name in ENCODERS),
    *(name + b"\n" + encode(PLAIN_TEXT) for name, encode in ENCODERS.items()),
    b"make gzip br zstd\n" + PLAIN_TEXT,
    b"gzip\n" + ENCODERS[b"gzip"](b"one") + ENCODERS[b"gzip"](b"two"),
    b"zstd\n"
    + ENCODERS[b"zstd"](b"one")
    + b"\x50\x2a\x4d\x18\3\0\0\0abc"
    + ENCODERS[b"zstd"](b"2"),
    b"zstd\n" + zstandard.ZstdCompressor(write_checksum=True).compress(b"a" * 300_000),
    b"br\n" + brotli.compress(b"a" * 300_000),
    b"gzip\n" + ENCODERS[b"gzip"](b"a" * 200_000),
    b"deflate\n" + zlib.compress(PLAIN_TEXT)[2:-4],
    b"identity x-gzip\n" + ENCODERS[b"gzip"](b"one"),
]
CODING_WORDS = [
    *(name + b" " for name in ENCODERS),
    b"make ",
    b"identity ",
    b"x-gzip ",
    b"compress ",
    b"\n",
    b"\x1f\x8b\x08\0",
    b"\x28\xb5\x2f\xfd",
    b"\x50\x2a\x4d\x18",
    b"\x78\x9c",
    b"\0",
    b"\xff\xff\xff\xff",
    b"\1\0\0",
    b"\0\0\xff\xff",
    *(encode(b"x") for encode in ENCODERS.values()),
]

# --- destinations ----------------------------------------------------------------------------


def run_destinations(data: bytes) -> bool:
    """A pattern, a scheme and an authority, each on a line of its own."""
    first, _, rest = data.partition(b"\n")
    scheme_line, _, authority = rest.partition(b"\n")
    scheme = "http" if scheme_line == b"http" else "https"
    pattern = first.decode("utf-8", "replace")
    destination = _read_authority(scheme, authority)
    _check_target(scheme, authority, destination)
    for text in (pattern.removeprefix("*."), authority.decode("utf-8", "replace")):
        _check_canonical(text)
    try:
        read = parse_domain_pattern(pattern)
    except BadPattern:
        return False
    again = parse_domain_pattern(str(read))
    check(again == read, "a pattern that is another one once it is written", (pattern, str(read)))
    if destination is None:
        return False
    held = read.matches(destination)
    if pattern.isascii() and b"[" not in pattern.encode() + authority:
        wanted = matcher.allows(pattern, scheme, authority.decode("ascii"))
        check(held == wanted, "two matchers differ", (pattern, scheme, authority))
    return held


def _read_authority(scheme: str, authority: bytes) -> Destination | None:
    try:
        host, port = parse_authority(authority, {"http": 80, "https": 443}[scheme])
    except BadHost:
        return None
    check(1 <= port <= 65535, "no port", port)
    destination = Destination(scheme, host, port)
    again = parse_authority(destination.host_field(), {"http": 80, "https": 443}[scheme])
    check(again == (host, port), "a Host field that names another destination", authority)
    return destination


def _check_target(scheme: str, authority: bytes, destination: Destination | None) -> None:
    """An absolute target leads to the authority in it and nowhere else."""
    try:
        found, path = names.absolute_form(scheme.encode() + b"://" + authority + b"/x")
    except Refused as refused:
        check(refused.problem.code is Code.BAD_REQUEST, "an undocumented refusal", refused.problem)
        return
    if not set(b"/?") & set(authority):
        check(found == destination and path == b"/x", "another destination in a target", found)


def _check_canonical(text: str) -> None:
    try:
        host = canonical_host(text)
    except BadHost:
        return
    check(host.isascii() and host == host.lower(), "a canonical host that is not", host)
    check(canonical_host(host) == host, "a canonical host with another canonical form", host)
    check(not set(host) & set("/\\@#?%[] \t\r\n\0") and not host.endswith("."), "no host", host)


DESTINATIONS = [
    b"example.com\nhttps\nexample.com",
    b"*.example.com\nhttps\napi.example.com:443",
    b"*.example.com\nhttps\nexample.com",
    b"api.example.com:8443\nhttp\napi.example.com:8443",
    b"*\nhttp\n10.0.0.1:80",
    "*.bücher.example\nhttps\na.xn--bcher-kva.example".encode(),
    b"[2001:db8::1]:443\nhttps\n[2001:db8::1]",
    b"*.foo.co.uk\nhttps\nbar.foo.co.uk.",
]
HOST_WORDS = [
    b"example.com",
    b"api.",
    b"*.",
    b"*",
    b".",
    b"..",
    b"-",
    b"_",
    b":443",
    b":80",
    b":8443",
    b":0443",
    b":65536",
    b":",
    b"@",
    b"%2e",
    b"/",
    b"\\",
    b"#",
    b"?",
    b"\0",
    b"\n",
    b"https",
    b"http",
    b"xn--",
    b"xn--bcher-kva",
    b"xn--fa-hia",
    "bücher".encode(),
    "faß".encode(),
    "。".encode(),
    "ａ".encode(),
    "\u200d".encode(),
    "İ".encode(),
    b"K",
    b"0x7f.1",
    b"127.0.0.1",
    b"0177.0.0.1",
    b"2130706433",
    b"[::1]",
    b"[::ffff:127.0.0.1]",
    b"[fe80::1%25eth0]",
    b"co.uk",
    b"github.io",
    b"evil",
    b"EXAMPLE.com",
    b"a" * 63,
]

TARGETS = [
    Target("policies", run_policies, POLICIES, POLICY_WORDS),
    Target("codings", run_codings, CODED, CODING_WORDS),
    Target("destinations", run_destinations, DESTINATIONS, HOST_WORDS),
]
