"""The policy file: what it may say, and what is said about each mistake.

`MISTAKES` is the list of everything a file can have wrong: one row each, with the exact place.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck import policyfile
from coatcheck.core.destination import parse_domain_pattern
from coatcheck.core.locations import DEFAULT_PATTERNS, parse_pattern
from coatcheck.core.placeholder import ALL_SYNTAXES, Syntax
from coatcheck.core.policy import Egress, Grant, Policy, Replacement, Unresolved
from coatcheck.policyfile import PolicyError
from coatcheck.yamlfile import MAX_BYTES

CONFIG = Path(__file__).parent.parent / "config"
A, B = "a" * 64, "b" * 64
HEAD = f"""\
version: 1
clients:
  runner: {{token: "sha256:{A}"}}
  local: {{networks: [127.0.0.1/32]}}
"""
GRANT = "- {secrets: [x], clients: [runner]}"


def grants(*keys: str) -> str:
    """A file whose one grant begins in line 6 and has *keys* from line 8 on, column 5."""
    lines = ["grants:", "  - secrets: [crm.key]", "    clients: [runner]"]
    return HEAD + "\n".join([*lines, *(f"    {key}" for key in keys)]) + "\n"


def clients(*entries: str) -> str:
    """A file with *entries* under clients:, from line 3 on, column 3."""
    return "\n".join(["version: 1", "clients:", *(f"  {entry}" for entry in entries)]) + "\n"


def section(name: str, *keys: str) -> str:
    """A file with *keys* under *name*:, from line 3 on, column 3."""
    return "\n".join(["version: 1", f"{name}:", *(f"  {key}" for key in keys)]) + "\n"


class TestWhatAFileMaySay:
    def test_a_whole_file(self) -> None:
        text = grants(
            'hosts: ["api.crm.example", "*.crm.example:8443"]',
            "methods: [GET, M-SEARCH]",
            'paths: ["/v1/**"]',
            'in: ["header:Authorization", "body:/client_secret"]',
            "max_uses: 9",
            "plaintext: true",
        )

        policy = policyfile.parse(text, "p.yaml")

        assert policy.grants == (
            Grant(
                secrets=("crm.key",),
                clients=("runner",),
                hosts=(
                    parse_domain_pattern("api.crm.example"),
                    parse_domain_pattern("*.crm.example:8443"),
                ),
                methods=frozenset({"GET", "M-SEARCH"}),
                paths=("/v1/**",),
                locations=(
                    parse_pattern("header:authorization"),
                    parse_pattern("body:/client_secret"),
                ),
                max_uses=9,
                plaintext=True,
                line=6,
            ),
        )
        assert [(c.name, c.token, c.networks) for c in policy.clients] == [
            ("runner", A, ()),
            ("local", None, (ipaddress.ip_network("127.0.0.1/32"),)),
        ]
        assert policy.source == "p.yaml"
        assert policy.digest == hashlib.sha256(text.encode()).hexdigest()

    def test_every_default(self) -> None:
        policy = policyfile.parse(grants(), "p.yaml")

        (grant,) = policy.grants
        assert (grant.hosts, grant.methods, grant.paths) == (None, None, None)
        assert grant.locations == DEFAULT_PATTERNS
        assert (grant.max_uses, grant.plaintext) == (4, False)
        assert policy.syntaxes == ALL_SYNTAXES
        assert policy.unresolved is Unresolved.BLOCK
        assert policy.text_hosts == ()
        assert policy.egress == Egress()
        assert policy.replacement is Replacement.MASK

    def test_the_other_sections(self) -> None:
        text = (
            'version: 1\nplaceholders: {syntaxes: ["{{secrets.NAME}}", "__secrets.NAME__"],'
            " unresolved: keep, text_hosts: [llm.example]}\n"
            "egress: {default: deny, allow: [a.example], deny: [b.example],"
            " networks: [10.20.0.0/16, fd00::/8], passthrough: [c.example]}\n"
            "scrub: {replacement: placeholder}\n"
        )

        policy = policyfile.parse(text, "p.yaml")

        assert policy.syntaxes == {Syntax.DOUBLE, Syntax.URLSAFE}
        assert policy.unresolved is Unresolved.KEEP
        assert policy.text_hosts == (parse_domain_pattern("llm.example"),)
        assert policy.egress == Egress(
            default_allow=False,
            allow=(parse_domain_pattern("a.example"),),
            deny=(parse_domain_pattern("b.example"),),
            networks=(ipaddress.ip_network("10.20.0.0/16"), ipaddress.ip_network("fd00::/8")),
            passthrough=(parse_domain_pattern("c.example"),),
        )
        assert policy.replacement is Replacement.PLACEHOLDER

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param("version: 1\n", id="a version is enough"),
            pytest.param("version: 1", id="no line end"),
            pytest.param("---\nversion: 1\n...\n", id="document marks"),
            pytest.param('{"version": 1, "grants": []}', id="JSON"),
            pytest.param("\ufeffversion: 1\n", id="a byte order mark"),
            pytest.param("version: 1\r\ngrants: []\r\n", id="CRLF"),
            pytest.param("# c\n\nversion: 1   # c\n", id="comments"),
            pytest.param("version: 1\negress: {default: deny}\n", id="deny all"),
            pytest.param(clients('"443": {networks: [10.0.0.0/8]}'), id="a number in quotes"),
            pytest.param(grants("in: [header:x-key]"), id="a place without quotes"),
            pytest.param(grants('hosts: ["*:8443"]'), id="any host, one port"),
            pytest.param(
                clients(
                    f'a: {{token: "sha256:{A}", networks: [10.0.0.0/8]}}',
                    *["b: {networks: [10.0.0.0/8]}", "c: {networks: [10.0.0.0/16]}"],
                ),
                id="one network, one of the two with a token; and a longer one inside it",
            ),
        ],
    )
    def test_a_fine_file(self, text: str) -> None:
        assert isinstance(policyfile.parse(text, "p.yaml"), Policy)

    def test_grants_know_their_lines(self) -> None:
        text = HEAD + f"grants:\n  {GRANT}\n\n  # between\n  {GRANT}\n"

        assert [grant.line for grant in policyfile.parse(text, "p.yaml").grants] == [6, 9]


MISTAKES = [
    # the file as a whole
    pytest.param("", "1:1: the file is empty", id="empty"),
    pytest.param("# only\n# comments\n", "1:1: the file is empty", id="comments alone"),
    pytest.param("~\n", "1:1: the file is empty", id="null"),
    pytest.param("\ufeff", "1:1: the file is empty", id="a byte order mark alone"),
    pytest.param("- version: 1\n", "1:1: the file holds a list", id="a list"),
    pytest.param("version\n", "1:1: the file holds text", id="text"),
    pytest.param("grants: []\n", "1:1: version: is missing", id="no version"),
    pytest.param("version: 2\n", "1:10: 2 is out of range", id="another version"),
    pytest.param('version: "1"\n', "1:10: version is text (1)", id="a version in quotes"),
    pytest.param("version: true\n", "1:10: version is a boolean", id="a version that is true"),
    pytest.param("version: 1.0\n", "1:10: version is a number with a fraction", id="1.0"),
    pytest.param("version: 1\n---\nversion: 1\n", "2:1: a second document", id="two documents"),
    pytest.param("version: 1\n...\nx: 1\n", "3:1: text after the end", id="text behind the end"),
    # YAML
    pytest.param("version: 1\ngrants:\n\t- x\n", "3:1: a tab stands", id="a tab"),
    pytest.param("version: 1\nx: 'y\n", "2:4: the text in quotes does not end", id="open quote"),
    pytest.param("version: 1\ngrants: [\n", "3:1: brackets or braces", id="open bracket"),
    pytest.param("version: 1\negress: {\n", "3:1: brackets or braces", id="open brace"),
    pytest.param("version: 1\nx: a: b\n", "2:5: a second ': '", id="a colon in plain text"),
    pytest.param("version: 1\n grants: []\n", "2:8: a second ': '", id="a key too far right"),
    pytest.param(
        "version: 1\nx: @y\n", "2:4: this character", id="a character that begins nothing"
    ),
    pytest.param('version: 1\nx: "\\q"\n', "2:6: an unknown escape", id="an unknown escape"),
    pytest.param('version: 1\nx: "\\UFFFFFFFF"\n', "2:7: an escape", id="an escape out of range"),
    pytest.param('version: 1\nx: "\\ud800"\n', "2:4: an escape", id="half a surrogate pair"),
    pytest.param("version: 1\nx: \x07\n", "2:4: a control character", id="a control character"),
    pytest.param("version: &v 1\n", "1:10: anchors and aliases (&)", id="an anchor"),
    pytest.param(
        "version: 1\ngrants: *g\n", "2:9: anchors and aliases (*)", id="an alias, of nothing"
    ),
    pytest.param("version: !!int 1\n", "1:10: tags (!)", id="a tag"),
    pytest.param(
        "version: 1\nx: !!python/object/apply:os.system [id]\n", "2:4: tags (!)", id="a Python tag"
    ),
    pytest.param("<<: {version: 1}\n", "1:1: merge keys", id="a merge key"),
    pytest.param("version: 1\nversion: 1\n", "2:1: the key 'version' stands", id="a key twice"),
    pytest.param(
        section("egress", "default: deny", "default: allow"),
        "4:3: the key 'default' stands",
        id="a key twice inside",
    ),
    pytest.param(
        clients("a: {networks: [10.0.0.0/8]}", "a: {networks: [11.0.0.0/8]}"),
        "4:3: the key 'a' stands",
        id="a client twice",
    ),
    pytest.param("version: 1\non: 1\n", "2:1: the key is a boolean", id="on as a key"),
    pytest.param("version: 1\n? [a]\n: 1\n", "2:3: a list stands", id="a list as a key"),
    pytest.param("version: 1\ngrants:\n", "2:8: there is no value", id="a key without a value"),
    pytest.param(grants("hosts:"), "8:11: there is no value", id="hosts without a value"),
    pytest.param(
        "version: 1\nx: " + "[" * 100, "2:36: nested more than 32", id="nested without end"
    ),
    # keys
    pytest.param("version: 1\ngrant: []\n", "2:1: the key 'grant' is not", id="unknown key"),
    pytest.param(grants("host: [x.example]"), "8:5: the key 'host' is not", id="in a grant"),
    pytest.param(grants("domains: [x.example]"), "8:5: the key 'domains' is not", id="a synonym"),
    pytest.param(grants("Methods: [GET]"), "8:5: the key 'Methods' is not", id="letter case"),
    pytest.param(clients("a: {tokn: x}"), "3:7: the key 'tokn' is not", id="in a client"),
    pytest.param(
        "version: 1\nsyntaxes: []\n", "2:1: the key 'syntaxes' is not", id="at the wrong level"
    ),
    # shapes
    pytest.param("version: 1\ngrants: {}\n", "2:9: grants is a mapping", id="grants as a mapping"),
    pytest.param("version: 1\nclients: []\n", "2:10: clients is a list", id="clients as a list"),
    pytest.param("version: 1\ngrants: [x]\n", "2:10: an entry of grants is", id="a grant as text"),
    pytest.param(clients("a: 10.0.0.0/8"), "3:6: a is text", id="a client as text"),
    pytest.param("version: 1\nscrub: mask\n", "2:8: scrub is text", id="scrub as text"),
    pytest.param(grants("hosts: x.example"), "8:12: hosts is text", id="one host without a list"),
    pytest.param(grants("hosts: [443]"), "8:13: an entry of hosts is a number", id="443 as a host"),
    pytest.param(
        grants("methods: [GET, ON]"), "8:20: an entry of methods is a boolean", id="ON as a method"
    ),
    pytest.param(grants("hosts: [no]"), "8:13: an entry of hosts is a boolean", id="Norway"),
    pytest.param(
        grants("hosts: [1e3]"), "8:13: an entry of hosts is a number (1e3)", id="1e3 as a host"
    ),
    pytest.param(
        grants("hosts: [2001-01-01]"), "8:13: an entry of hosts is a date", id="a date as a host"
    ),
    pytest.param(
        grants("in: [header: x]"), "8:10: an entry of in is a mapping", id="a place with a space"
    ),
    pytest.param(grants("max_uses: many"), "8:15: max_uses is text", id="a number in words"),
    pytest.param(grants("max_uses: 0x10"), "8:15: max_uses is a number", id="a hexadecimal number"),
    pytest.param(grants("max_uses: 1_0"), "8:15: max_uses is a number", id="a number with _"),
    pytest.param(grants("max_uses: 010"), "8:15: max_uses is a number", id="an octal number"),
    pytest.param(grants("max_uses: true"), "8:15: max_uses is a boolean", id="true as a number"),
    pytest.param(grants("plaintext: yes"), "8:16: plaintext is a boolean (yes)", id="yes"),
    pytest.param(grants('plaintext: "true"'), "8:16: plaintext is text", id="true in quotes"),
    pytest.param(grants("plaintext: 1"), "8:16: plaintext is a number", id="1 as true"),
    # clients
    pytest.param(clients("a: {}"), "3:3: the client 'a' cannot be told", id="a client by nothing"),
    pytest.param(clients('"a b": {networks: [10.0.0.0/8]}'), "3:3: this is no name", id="a space"),
    pytest.param(clients('"a:b": {networks: [10.0.0.0/8]}'), "3:3: this is no name", id="a colon"),
    pytest.param(clients('"": {networks: [10.0.0.0/8]}'), "3:3: this is no name", id="no letters"),
    pytest.param(clients("443: {networks: [10.0.0.0/8]}"), "3:3: the key is a number", id="number"),
    pytest.param(clients("a: {networks: []}"), "3:17: networks: is an empty", id="no networks"),
    pytest.param(clients("a: {networks: [10.0.0.1/8]}"), "3:18: '10.0.0.1/8' has bits", id="bits"),
    pytest.param(clients("a: {networks: [10.0.0.1]}"), "3:18: '10.0.0.1' has no", id="no prefix"),
    pytest.param(clients("a: {networks: [10.0.0.0/33]}"), "3:18: '10.0.0.0/33' has", id="/33"),
    pytest.param(clients("a: {networks: [10.0.0.0/08]}"), "3:18: '10.0.0.0/08' has", id="/08"),
    pytest.param(
        clients("a: {networks: [10.0.0.0/255.0.0.0]}"), "3:18: '10.0.0.0/255", id="a netmask"
    ),
    pytest.param(clients("a: {networks: [x.example]}"), "3:18: 'x.example' is no", id="a name"),
    pytest.param(
        clients('a: {networks: ["fe80::1%eth0/64"]}'),
        "3:18: 'fe80::1%eth0/64' has a zone",
        id="zone",
    ),
    pytest.param(
        clients('a: {networks: ["::ffff:10.0.0.0/104"]}'), "3:18: '::ffff:10", id="IPv4-mapped"
    ),
    pytest.param(
        clients("a: {networks: [10.0.0.0/8]}", "b: {networks: [10.0.0.0/8]}"),
        "4:18: the client 'a' has the same network",
        id="one network, two clients",
    ),
    pytest.param(
        clients(f'a: {{token: "sha256:{A}"}}', f'b: {{token: "sha256:{A}"}}'),
        "4:14: the client 'a' has the same token",
        id="one token, two clients",
    ),
    pytest.param(clients("a: {token: [x]}"), "3:14: token is a list", id="a list as a token"),
    pytest.param(clients("a: {token: 1234}"), "3:14: token is a number", id="a number as a token"),
    pytest.param(clients("a: {token: hunter2}"), "3:14: the token is not given", id="a bare token"),
    pytest.param(
        clients(f'a: {{token: "sha256:{A.upper()}"}}'),
        "3:14: the token's digest is not in",
        id="AA",
    ),
    pytest.param(
        clients('a: {token: "sha256:abc"}'), "3:14: the token's digest is not 64", id="short digest"
    ),
    # grants
    pytest.param(
        HEAD + "grants:\n  - clients: [runner]\n", "6:5: secrets: is missing", id="no secrets"
    ),
    pytest.param(HEAD + "grants:\n  - secrets: [x]\n", "6:5: clients: is missing", id="no clients"),
    pytest.param(
        HEAD + "grants:\n  - {secrets: [], clients: [runner]}\n",
        "6:15: secrets: is an empty",
        id="empty secrets",
    ),
    pytest.param(
        HEAD + 'grants:\n  - {secrets: [""], clients: [runner]}\n',
        "6:16: no secret has this name",
        id="a secret without a name",
    ),
    pytest.param(
        HEAD + "grants:\n  - {secrets: [x], clients: []}\n",
        "6:29: clients: is an empty",
        id="empty clients",
    ),
    pytest.param(
        HEAD + "grants:\n  - {secrets: [x], clients: [runer]}\n",
        "6:30: there is no client 'runer'; did you mean 'runner'?",
        id="a client that does not exist",
    ),
    pytest.param(
        HEAD + 'grants:\n  - {secrets: [x], clients: ["*"]}\n',
        "6:30: there is no client '*'; clients are named one by one",
        id="a star as a client",
    ),
    pytest.param(
        f"version: 1\ngrants:\n  {GRANT}\n", "3:30: there is no client", id="no clients at all"
    ),
    pytest.param(grants("hosts: []"), "8:12: hosts: is an empty list", id="empty hosts"),
    pytest.param(grants('hosts: ["*"]'), "8:13: '*' stands for every host", id="* as a host"),
    pytest.param(grants("hosts: ['*.com']"), "8:13: '*.com' is a wildcard", id="public suffix"),
    pytest.param(
        grants("hosts: ['*.github.io']"), "8:13: '*.github.io' is a wildcard", id="private suffix"
    ),
    pytest.param(
        grants('hosts: ["https://x.example"]'), "8:13: 'https://x.example' has a scheme", id="URL"
    ),
    pytest.param(grants("hosts: [x.example/v1]"), "8:13: 'x.example/v1' has a path", id="a path"),
    pytest.param(grants("hosts: [127.1]"), "8:13: an entry of hosts is a number", id="127.1"),
    pytest.param(grants("hosts: ['127.1']"), "8:13: '127.1' is no domain", id="127.1 in quotes"),
    pytest.param(grants("hosts: ['a.*.example']"), "8:13: 'a.*.example' has", id="inner star"),
    pytest.param(grants("hosts: ['^a$']"), "8:13: '^a$' has", id="a regular expression"),
    pytest.param(grants("methods: [get]"), "8:15: methods are case-sensitive", id="get"),
    pytest.param(grants('methods: ["*"]'), "8:15: '*' is no method", id="* as a method"),
    pytest.param(grants("methods: [CONNECT]"), "8:15: CONNECT never", id="CONNECT"),
    pytest.param(
        grants("methods: ['G T']"), "8:15: 'G T' is no method", id="a method with a space"
    ),
    pytest.param(grants("paths: [v1]"), "8:13: a path begins with", id="a path from nowhere"),
    pytest.param(grants("paths: ['/a?b']"), "8:13: a path pattern with a query", id="a query"),
    pytest.param(grants("paths: ['/a#b']"), "8:13: a path pattern with a frag", id="a fragment"),
    pytest.param(grants("paths: ['/a%20b']"), "8:13: a path pattern with percent", id="percent"),
    pytest.param(grants("paths: ['/a/../b']"), "8:13: a dot segment never", id="dot-dot"),
    pytest.param(grants("paths: ['/a//b']"), "8:13: a double slash never", id="two slashes"),
    pytest.param(grants("paths: ['/a;b']"), "8:13: a ';' never", id="a path parameter"),
    pytest.param(grants("paths: ['/a\\b']"), "8:13: a backslash never", id="a backslash"),
    pytest.param(grants("paths: ['/a***']"), "8:13: three stars", id="three stars"),
    pytest.param(grants("paths: ['/a ']"), "8:13: the path has spaces", id="a space at the end"),
    pytest.param(grants("in: [heder]"), "8:10: unknown location 'heder'", id="an unknown place"),
    pytest.param(grants("in: ['header:']"), "8:10: 'header:' has no name", id="no header's name"),
    pytest.param(grants("in: [header:host]"), "8:10: header 'host'", id="a header never filled"),
    pytest.param(grants("in: ['header:a b']"), "8:10: 'header:a b' names no", id="no header"),
    pytest.param(grants("in: [body:token]"), "8:10: 'body:token': a body", id="no JSON pointer"),
    pytest.param(grants("in: [path:id]"), "8:10: path takes no name", id="a path's name"),
    pytest.param(grants("in: []"), "8:9: in: is an empty list", id="empty in"),
    pytest.param(grants("max_uses: 0"), "8:15: 0 is out of range", id="max_uses 0"),
    pytest.param(grants("max_uses: 1001"), "8:15: 1001 is out of range", id="max_uses 1001"),
    pytest.param(grants("max_uses: -1"), "8:15: -1 is out of range", id="max_uses -1"),
    # the other sections
    pytest.param(
        section("placeholders", "syntaxes: []"), "3:13: syntaxes: is an empty", id="no syntaxes"
    ),
    pytest.param(
        section("placeholders", 'syntaxes: ["$NAME"]'),
        "3:14: '$NAME' is no placeholder syntax",
        id="an unknown syntax",
    ),
    pytest.param(
        section("placeholders", "syntaxes: [{secrets.NAME}]"),
        "3:14: an entry of syntaxes is a mapping",
        id="a syntax without quotes",
    ),
    pytest.param(
        section("placeholders", "syntaxes: [{{secrets.NAME}}]"),
        "3:15: a mapping stands where",
        id="a syntax with two braces without quotes",
    ),
    pytest.param(
        section("placeholders", "unresolved: blok"),
        "3:15: 'blok' is not known here; did you mean block?",
        id="an unknown word",
    ),
    pytest.param(
        section("placeholders", 'text_hosts: ["*"]'), "3:16: '*' stands for", id="* as a text host"
    ),
    pytest.param(section("egress", "default: none"), "3:12: 'none' is not known", id="default"),
    pytest.param(section("egress", 'allow: ["*"]'), "3:11: '*' stands for", id="allow *"),
    pytest.param(section("egress", 'deny: ["*"]'), "3:10: '*' stands for", id="deny *"),
    pytest.param(section("egress", 'passthrough: ["*"]'), "3:17: '*' stands for", id="all tunnels"),
    pytest.param(
        section("egress", "networks: [10.0.0.0]"), "3:14: '10.0.0.0' has no", id="network"
    ),
    pytest.param(section("scrub", "replacement: off"), "3:16: replacement is a boolean", id="off"),
]


@pytest.mark.parametrize(("text", "expected"), MISTAKES)
def test_a_mistake_is_told_with_its_place_and_the_next_step(text: str, expected: str) -> None:
    with pytest.raises(PolicyError) as caught:
        policyfile.parse(text, "p.yaml")

    lines = str(caught.value).split("\n")
    assert any(line.startswith(f"p.yaml:{expected}") for line in lines), lines
    assert [str(mistake) for mistake in caught.value.mistakes] == lines
    assert all(mistake.what and mistake.hint for mistake in caught.value.mistakes)


class TestAllAtOnce:
    def test_every_mistake_is_told_in_the_order_of_the_file(self) -> None:
        text = (
            "version: 2\nclients:\n  a: {}\ngrants:\n  - secrets: []\n    clients: [b]\n"
            "    metods: [GET]\nscrub: {replacement: hide}\n"
        )

        with pytest.raises(PolicyError) as caught:
            policyfile.parse(text, "p.yaml")

        places = [mistake.where for mistake in caught.value.mistakes]
        assert places == [f"p.yaml:{p}" for p in ("1:10", "3:3", "5:14", "6:15", "7:5", "8:22")]
        assert caught.value.where == "p.yaml:1:10"

    def test_two_keys_missing_at_one_place_are_two_mistakes(self) -> None:
        with pytest.raises(PolicyError) as caught:
            policyfile.parse("version: 1\ngrants: [{}]\n", "p.yaml")

        assert [m.what for m in caught.value.mistakes] == [
            "secrets: is missing",
            "clients: is missing",
        ]

    def test_what_follows_from_a_mistake_is_not_told(self) -> None:
        with pytest.raises(PolicyError) as caught:
            policyfile.parse("version: 1\ngrants: &g\n", "p.yaml")

        assert len(caught.value.mistakes) == 1


TOKEN = "ctk_9f8A7b6C5d4E3f2G1h0I9j8K7l6M5n4O"


class TestNoTokenIsEchoed:
    """Whatever a token is mistaken for, the error does not repeat it."""

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param(clients(f"a: {{token: {TOKEN}}}"), id="as its own digest"),
            pytest.param(clients(f'a: {{token: "sha256:{TOKEN}"}}'), id="with the prefix"),
            pytest.param(clients(f"a: {{token: [{TOKEN}]}}"), id="in a list"),
            pytest.param(
                f'version:"1"3n{TOKEN[-16:]}', id="the end of it, in a text that is no policy"
            ),
            pytest.param(clients(f"a: {{networks: [{TOKEN}]}}"), id="as a network"),
            pytest.param(clients(f'"{TOKEN} ": {{}}'), id="as a client"),
            pytest.param(clients(f"a: {TOKEN}"), id="as a client's body"),
            pytest.param(clients(f"a: {{{TOKEN}: x}}"), id="as a key"),
            pytest.param(f"version: {TOKEN}\n", id="as the version"),
            pytest.param(TOKEN, id="alone"),
            pytest.param(f"{TOKEN}: 1\n", id="as a section"),
            pytest.param(f"version: 1\n{TOKEN}: 1\n{TOKEN}: 2\n", id="as a key, twice"),
            pytest.param(grants(f"hosts: ['{TOKEN} ']"), id="as a host"),
            pytest.param(grants(f"hosts: ['https://{TOKEN}@x.example']"), id="in a URL"),
            pytest.param(grants(f"methods: ['{TOKEN} ']"), id="as a method"),
            pytest.param(grants(f"methods: ['{TOKEN}']"), id="as a method, letter case"),
            pytest.param(grants(f"paths: [{TOKEN}]"), id="as a path"),
            pytest.param(grants(f"in: [{TOKEN}]"), id="as a place"),
            pytest.param(grants(f"in: ['body:{TOKEN}']"), id="as a body's name"),
            pytest.param(grants(f"max_uses: {TOKEN}"), id="as a number"),
            pytest.param(section("placeholders", f"syntaxes: [{TOKEN}]"), id="as a syntax"),
            pytest.param(section("placeholders", f"unresolved: {TOKEN}"), id="as a word"),
            pytest.param(HEAD + f"grants: [{{secrets: [x], clients: [{TOKEN}]}}]", id="a client"),
            pytest.param(f"version: 1\nx: '{TOKEN}\n", id="in open quotes"),
            pytest.param(f"version: 1\nx: *{TOKEN}\n", id="as an alias"),
            pytest.param(f"version: 1\nx: a: {TOKEN}\n", id="behind two colons"),
            pytest.param(f"version: 1\nx: !<{TOKEN}> y\n", id="as a tag"),
        ],
    )
    def test_echo(self, text: str) -> None:
        with pytest.raises(PolicyError) as caught:
            policyfile.parse(text, "p.yaml")

        assert TOKEN[-16:].lower() not in str(caught.value).lower()


class TestReading:
    """`read` says what is wrong with the file itself, and what to do."""

    def told(self, path: Path) -> str:
        with pytest.raises(PolicyError) as caught:
            policyfile.read(path)
        return str(caught.value)

    def test_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "p.yaml"
        path.write_bytes(b"\xef\xbb\xbfversion: 1\r\n")

        policy = policyfile.read(path)

        assert policy.source == str(path)
        assert policy.digest == hashlib.sha256(path.read_bytes()).hexdigest()

    def test_missing(self, tmp_path: Path) -> None:
        assert "there is no such file; create it with coatcheck init" in self.told(tmp_path / "no")

    def test_a_directory(self, tmp_path: Path) -> None:
        assert self.told(tmp_path) == f"{tmp_path}: is a directory; name the file itself"

    def test_a_file_as_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_text("")

        assert "cannot be read" in self.told(tmp_path / "x" / "p.yaml")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_not_readable(self, tmp_path: Path) -> None:
        path = tmp_path / "p.yaml"
        path.touch(0o200)

        assert "may not be read" in self.told(path)

    def test_a_pipe_does_not_block(self, tmp_path: Path) -> None:
        path = tmp_path / "p.yaml"
        os.mkfifo(path)

        assert "is not an ordinary file" in self.told(path)

    def test_empty(self, tmp_path: Path) -> None:
        path = tmp_path / "p.yaml"
        path.touch()

        assert self.told(path).startswith(f"{path}:1:1: the file is empty; begin it with")

    def test_not_utf8(self, tmp_path: Path) -> None:
        path = tmp_path / "p.yaml"
        path.write_bytes("version: 1\n# caf\u00e9 \u00e9".encode("utf-8") + b"\xe9")

        assert self.told(path) == f"{path}:2:9: the file is not UTF-8; save it as UTF-8"

    def test_utf16(self, tmp_path: Path) -> None:
        path = tmp_path / "p.yaml"
        path.write_text("version: 1\n", encoding="utf-16")

        assert "1:1: the file is not UTF-8" in self.told(path)

    def test_too_large(self, tmp_path: Path) -> None:
        path = tmp_path / "p.yaml"
        path.write_bytes(b"#" * (MAX_BYTES + 1))

        assert "the file is larger than 1048576 bytes" in self.told(path)

    def test_too_large_and_cut_inside_a_character(self, tmp_path: Path) -> None:
        """What is read ends in half a character; the size is what is wrong all the same."""
        path = tmp_path / "p.yaml"
        path.write_text("#" + "\u20ac" * MAX_BYTES)

        assert "the file is larger than" in self.told(path)

    def test_a_link_to_a_file_is_read(self, tmp_path: Path) -> None:
        """Kubernetes mounts a ConfigMap as links."""
        (tmp_path / "real").write_text("version: 1\n")
        (tmp_path / "p.yaml").symlink_to(tmp_path / "real")

        assert policyfile.read(tmp_path / "p.yaml").grants == ()


def test_aliases_do_not_blow_up() -> None:
    """Ten aliases of ten aliases of …: refused at the first, nothing is expanded."""
    lines = ["version: 1", "a0: &a0 [x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]

    with pytest.raises(PolicyError) as caught:
        policyfile.parse("\n".join(lines), "p.yaml")

    assert caught.value.mistakes[0].where == "p.yaml:2:1"
    assert len(caught.value.mistakes) < 200


class TestWarnings:
    """Allowed, and wider than most people mean. Each with its line."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            pytest.param(grants("in: [header:x-key]"), [], id="a narrow grant"),
            pytest.param(grants("paths: ['/v1/**']"), [], id="narrowed by path"),
            pytest.param(
                grants(), ["6: this grant allows every place"], id="a grant that narrows nothing"
            ),
            pytest.param(
                grants("in: [header]").replace("[crm.key]", '["*"]'),
                ["6: this grant names every secret"],
                id="every secret",
            ),
            pytest.param(
                grants("in: [header]", "plaintext: true"),
                ["6: this grant lets values go over http://"],
                id="plain http",
            ),
            pytest.param(
                grants("hosts: [api.github.com]"),
                ["6: api.github.com can publish"],
                id="a host that can publish",
            ),
            pytest.param(
                grants("hosts: ['*.github.com']", "in: [header:authorization]"),
                [],
                id="a host that can publish, headers alone",
            ),
            pytest.param(
                clients("a: {networks: [0.0.0.0/0]}"),
                ["3: everyone in 0.0.0.0/0"],
                id="a client from anywhere",
            ),
            pytest.param(clients("a: {networks: [10.0.0.0/8]}"), [], id="a client from 10/8"),
            pytest.param(
                clients(f'a: {{networks: [0.0.0.0/0], token: "sha256:{A}"}}'),
                [],
                id="a client from anywhere with a token",
            ),
            pytest.param(
                section("egress", "allow: [x.example]"),
                ["3: allow: changes nothing"],
                id="an allow list that does nothing",
            ),
            pytest.param(
                section("egress", "default: deny", "allow: [x.example]"), [], id="one that does"
            ),
            pytest.param(
                section("egress", "default: allow", "passthrough: [x.example, y.example]"),
                ["4: x.example is tunnelled", "4: y.example is tunnelled"],
                id="passthrough",
            ),
            pytest.param(
                grants("hosts: [x.example]", "in: [header]")
                + "egress:\n  passthrough: ['*.example.org', x.example]\n",
                [
                    "6: nothing is injected at x.example",
                    "11: *.example.org is tunnelled",
                    "11: x.example is tunnelled",
                ],
                id="a grant for a tunnelled host",
            ),
            pytest.param(
                section("egress", "networks: [0.0.0.0/0]"),
                ["3: 0.0.0.0/0 opens private networks"],
                id="every private network",
            ),
        ],
    )
    def test_warnings(self, text: str, expected: list[str]) -> None:
        told = policyfile.warnings(policyfile.parse(text, "p.yaml"))

        assert len(told) == len(expected), told
        for line, start in zip(told, expected, strict=True):
            assert line.startswith(f"p.yaml:{start}")


class TestConfigFolder:
    def test_the_reference_policy_loads_and_warns_of_nothing(self) -> None:
        policy = policyfile.read(CONFIG / "policy.yaml")

        assert policyfile.warnings(policy) == []

    def test_the_reference_shows_every_key(self) -> None:
        shown = yaml.safe_load((CONFIG / "policy.yaml").read_text())
        schema = policyfile.schema()

        for name in schema["properties"]:
            assert name in shown
        for model, example in {
            "GrantModel": shown["grants"][0],
            "PlaceholdersModel": shown["placeholders"],
            "EgressModel": shown["egress"],
            "ScrubModel": shown["scrub"],
            "ClientModel": shown["clients"]["runner-a"],
        }.items():
            assert set(schema["$defs"][model]["properties"]) == set(example)

    def test_the_schema_is_current(self) -> None:
        """Regenerate it with: coatcheck policy schema > config/policy.schema.json"""
        kept = json.loads((CONFIG / "policy.schema.json").read_text())

        assert kept == policyfile.schema()

    def test_every_key_of_the_schema_is_described(self) -> None:
        schema = policyfile.schema()
        for model in schema["$defs"].values():
            assert model["additionalProperties"] is False
            assert all("description" in key for key in model["properties"].values())


MARKS = """{ } [ ] : , - & * ! | > ' " % @ ` # ? ~ version:_1 grants: clients: hosts secrets in
    token sha256: egress: << null on \\u "\\ 1e3 0x1 !! &a *a [{ 1"""
BLANKS = (" ", "\n", "\n  ", "\t", ": ", "- ", "---\n", "\r\n", "\ufeff", "\u2028", "\x85")
FRAGMENTS = st.sampled_from([*(mark.replace("_", " ") for mark in MARKS.split()), *BLANKS])
WORDS = """version clients grants placeholders egress scrub token networks secrets hosts methods
    paths in max_uses plaintext syntaxes default allow runner"""
KEYS = st.sampled_from(WORDS.split())
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.dates()
    | st.text(max_size=9)
    | st.sampled_from(["*", "GET", "/v1", "header", "runner", "10.0.0.0/8", "allow", "block"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            KEYS | st.text(max_size=3) | st.integers(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


class TestWhateverItHolds:
    """`parse` returns a policy or raises PolicyError, and nothing else."""

    def check(self, text: str) -> None:
        try:
            policyfile.parse(text, "p.yaml")
        except PolicyError as error:
            assert all(m.where.startswith("p.yaml:") for m in error.mistakes)  # noqa: PT017

    @given(st.text(st.characters(), max_size=60))
    def test_random_text(self, text: str) -> None:
        self.check(text)

    @given(st.lists(FRAGMENTS, max_size=25).map("".join))
    @settings(max_examples=300)
    def test_random_yaml_like_text(self, text: str) -> None:
        self.check(text)

    @given(VALUES)
    def test_random_yaml(self, value: object) -> None:
        self.check(yaml.safe_dump(value, allow_unicode=True))

    @given(
        st.dictionaries(
            st.sampled_from(["clients", "grants", "placeholders", "egress", "scrub"]), VALUES
        )
    )
    @settings(max_examples=200, deadline=None)
    def test_random_sections(self, value: dict[str, object]) -> None:
        self.check(yaml.safe_dump({"version": 1} | value))

    @given(st.integers(0, 2000), st.sampled_from("\"'{}[]:#&*!\t\n\x00-9"))
    @settings(max_examples=200, deadline=None)
    def test_the_reference_with_one_character_changed(self, at: int, char: str) -> None:
        text = (CONFIG / "policy.yaml").read_text()
        self.check(text[:at] + char + text[at + 1 :])
