"""What a trace may say: hosts that are configured, and a parent that is well-formed."""

from __future__ import annotations

import pytest

from coatcheck import policyfile
from coatcheck.core.destination import parse_domain_pattern
from coatcheck.core.meter import OTHER
from coatcheck.core.ports import StoreError
from coatcheck.core.snapshot import Snapshot
from coatcheck.core.tracing import KnownHosts, Parent, read_parent
from coatcheck.store.memory import MemoryStore

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(GOOD, Parent(TRACE, SPAN, True), id="sampled"),
        pytest.param(GOOD[:-1] + "0", Parent(TRACE, SPAN, False), id="not sampled"),
        pytest.param(GOOD[:-2] + "ff", Parent(TRACE, SPAN, True), id="flags that are unknown"),
        pytest.param("", None, id="none"),
        pytest.param(GOOD.upper(), None, id="upper case"),
        pytest.param("01" + GOOD[2:], None, id="another version"),
        pytest.param("ff" + GOOD[2:], None, id="the version that is none"),
        pytest.param(f"00-{'0' * 32}-{SPAN}-01", None, id="no trace"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", None, id="no span"),
        pytest.param(GOOD + "-x", None, id="something after it"),
        pytest.param(GOOD + "\n", None, id="a line end after it"),
        pytest.param(" " + GOOD, None, id="a space before it"),
        pytest.param("00-{{secrets.key}}-x-01", None, id="a placeholder"),
    ],
)
def test_a_parent_is_taken_where_it_is_well_formed(text: str, expected: Parent | None) -> None:
    assert read_parent(text.encode()) == expected


POLICY = """
version: 1
clients:
  local: {networks: ["127.0.0.1/32"]}
grants:
  - {secrets: ["*"], clients: [local], hosts: [granted.example.com, "*.wild.example.com"]}
egress:
  allow: [open.example.com]
  deny: [denied.example.com]
"""


def known() -> KnownHosts:
    store = MemoryStore()
    domains = [parse_domain_pattern(text) for text in ("api.example.com:8443", "*.crm.example.com")]
    store.put("key", b"a-long-enough-value", domains=domains, description="", now=1.0)
    anywhere = [parse_domain_pattern("*")]
    store.put("any", b"a-long-enough-value", domains=anywhere, description="", now=1.0)
    return KnownHosts(Snapshot(policyfile.parse(POLICY, "policy.yaml"), store.view()))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        pytest.param("api.example.com", "api.example.com", id="of a secret"),
        pytest.param("granted.example.com", "granted.example.com", id="of a grant"),
        pytest.param("open.example.com", "open.example.com", id="of egress"),
        pytest.param("coatcheck.internal", "coatcheck.internal", id="our own"),
        pytest.param("eu.crm.example.com", "*.crm.example.com", id="by a wildcard"),
        pytest.param("made.up.by.a.client.wild.example.com", "*.wild.example.com", id="far below"),
        pytest.param("crm.example.com", OTHER, id="the apex of a wildcard"),
        pytest.param("denied.example.com", OTHER, id="one that is denied"),
        pytest.param("sk-live-0123.evil.example", OTHER, id="one that nobody named"),
        pytest.param("20.20.20.20", OTHER, id="an address"),
    ],
)
def test_a_host_is_named_as_the_configuration_names_it(host: str, expected: str) -> None:
    assert known().name(host) == expected


def test_without_a_store_the_hosts_of_the_policy_are_known() -> None:
    class Broken:
        revision = 0

        def secrets(self) -> None:
            raise StoreError("it is gone", hint="")

    snapshot = Snapshot(policyfile.parse(POLICY, "policy.yaml"), MemoryStore().view())
    snapshot.view = Broken()  # type: ignore[assignment]
    hosts = KnownHosts(snapshot)

    assert (hosts.name("granted.example.com"), hosts.name("api.example.com")) == (
        "granted.example.com",
        OTHER,
    )
