"""`mode: report`: what would be refused is told and goes on; no value goes where it may not."""

from __future__ import annotations

from typing import Any

import pytest

from coatcheck import policyfile
from coatcheck.core.destination import Destination
from coatcheck.core.explain import explain
from coatcheck.core.locations import Kind, Location
from coatcheck.core.message import Fields, RequestHead
from coatcheck.core.policy import Need, judge, request_of
from coatcheck.core.problems import Refused
from coatcheck.gateway import Body, Gateway, Origin
from tests.engine.wire import VALUE, Book, a_gateway

API = Destination("https", "api.example.com", 443)
KEY = ((b"X-Key", b"{{secrets.key}}"),)
NO_BODY = Body(False, 0)
ENFORCED, OF_GRANT, OF_ALL = "enforce", "report in the grant", "report for all"

RULES = """
version: 1
mode: {all}
clients:
  local: {{networks: ["127.0.0.1/32"]}}
grants:
  - secrets: ["key"]
    clients: [local]
    hosts: ["api.example.com", "elsewhere.example.com"]
    methods: [GET]
    paths: ["/v1/**"]
    in: ["header:x-key"]
    max_uses: 1
    mode: {grant}
egress: {{deny: ["denied.example.com"]}}
"""


def a_house(mode: str) -> Gateway:
    modes = {ENFORCED: ("enforce", "enforce"), OF_GRANT: ("enforce", "report")}
    everywhere, grant = modes.get(mode, ("report", "enforce"))
    return a_gateway(RULES.format(all=everywhere, grant=grant))


def ask(
    gateway: Gateway,
    fields: Fields = KEY,
    *,
    method: bytes = b"GET",
    target: bytes = b"/v1/items",
    destination: Destination = API,
) -> str:
    """What becomes of a request: "filled in", "text", or the code of a refusal."""
    head = RequestHead(method, target, fields)
    try:
        exchange = gateway.begin(Origin("local", "127.0.0.1"), destination, head, NO_BODY)
        sent = exchange.open().head
    except Refused as refused:
        return str(refused.problem.code)
    shown = b"\n".join([sent.target, *(value for _, value in sent.fields)])
    return "filled in" if VALUE in shown else "text"


def reports(gateway: Gateway) -> list[Any]:
    assert isinstance(gateway.log, Book)
    return [record for record in gateway.log.records if record["decision"] == "report"]


LET_BY: dict[str, tuple[dict[str, Any], str]] = {
    "a method that is not listed": ({"method": b"POST"}, "request_not_allowed"),
    "a path that is not listed": ({"target": b"/v2/items"}, "request_not_allowed"),
    "a path that can be read in two ways": ({"target": b"/v1/%2e%2e/x"}, "request_not_allowed"),
    "a place that is not listed": (
        {"fields": ((b"X-Other", b"{{secrets.key}}"),)},
        "location_not_allowed",
    ),
    "the query": ({"fields": (), "target": b"/v1/?k=__secrets.key__"}, "location_not_allowed"),
    "more uses than it lets": ({"fields": KEY * 2}, "too_many_placeholders"),
}


@pytest.mark.parametrize("mode", [OF_GRANT, OF_ALL])
@pytest.mark.parametrize("rule", LET_BY)
def test_a_grant_that_reports_fills_in_and_tells(rule: str, mode: str) -> None:
    request, code = LET_BY[rule]
    strict, lenient = a_house(ENFORCED), a_house(mode)

    assert ask(strict, **request) == code
    assert ask(lenient, **request) == "filled in"

    (told,) = reports(lenient)
    assert (told["code"], told["secret"], told["host"]) == (code, "key", "api.example.com")
    assert isinstance(lenient.log, Book)
    assert lenient.log.records[-1]["decision"] == "allow", "told before the bytes leave"
    assert VALUE.decode() not in str(lenient.log.records)


KEPT: dict[str, tuple[dict[str, Any], str]] = {
    "a secret that does not exist": (
        {"fields": ((b"X-Key", b"{{secrets.none}}"),)},
        "secret_unavailable",
    ),
    "a host of the grant that is none of the secret": (
        {"destination": Destination("https", "elsewhere.example.com", 443)},
        "domain_not_allowed",
    ),
    "a connection that is not encrypted": (
        {"destination": Destination("http", "api.example.com", 80)},
        "plaintext_not_allowed",
    ),
    "half a placeholder": ({"fields": ((b"X-Key", b"{{secrets.key"),)}, "placeholder_malformed"),
    "a field that frames the message": (
        {"fields": ((b"TE", b"{{secrets.key}}"),)},
        "location_not_allowed",
    ),
}


@pytest.mark.parametrize("rule", KEPT)
def test_the_whole_policy_reporting_fills_in_no_more_than_grants_do(rule: str) -> None:
    """G1: a value goes to its own destinations alone. What is not filled in stays text."""
    request, code = KEPT[rule]
    strict, of_grant, of_all = a_house(ENFORCED), a_house(OF_GRANT), a_house(OF_ALL)

    assert ask(strict, **request) == code
    assert ask(of_grant, **request) == code
    assert ask(of_all, **request) == "text"
    assert [told["code"] for told in reports(of_all)] == [code]


@pytest.mark.parametrize("mode", [ENFORCED, OF_GRANT, OF_ALL])
@pytest.mark.parametrize(
    "destination",
    [
        Destination("https", "elsewhere.example.com", 443),
        Destination("https", "api.example.com", 8443),
        Destination("https", "x.api.example.com", 443),
        Destination("http", "api.example.com", 80),
    ],
    ids=str,
)
def test_in_no_mode_does_a_value_go_elsewhere(destination: Destination, mode: str) -> None:
    assert ask(a_house(mode)) == "filled in"
    assert ask(a_house(mode), destination=destination) != "filled in"


def test_egress_rules_are_told_and_let_by_where_the_whole_policy_reports() -> None:
    denied = Destination("https", "denied.example.com", 443)
    strict, of_grant, of_all = a_house(ENFORCED), a_house(OF_GRANT), a_house(OF_ALL)

    assert ask(strict, (), destination=denied) == "destination_not_allowed"
    assert ask(of_grant, (), destination=denied) == "destination_not_allowed"
    assert ask(of_all, (), destination=denied) == "text"
    assert [told["code"] for told in reports(of_all)] == ["destination_not_allowed"]


def test_what_is_allowed_is_not_told() -> None:
    gateway = a_house(OF_ALL)

    assert ask(gateway) == "filled in"
    assert reports(gateway) == []


def test_without_a_record_nothing_is_let_by() -> None:
    gateway = a_house(OF_ALL)
    assert isinstance(gateway.log, Book)
    gateway.log.broken = True

    assert ask(gateway, method=b"POST") == "audit_unavailable"


def test_a_request_fills_no_log() -> None:
    gateway = a_house(OF_ALL)
    many = tuple((b"X-%d" % at, b"{{secrets.none-%d}}" % at) for at in range(100))

    assert ask(gateway, many) == "text"
    assert len(reports(gateway)) == 32


def test_a_stricter_grant_goes_before_one_that_reports() -> None:
    rules = RULES.format(all="enforce", grant="report")
    rules = rules.replace("egress:", "  - {secrets: [key], clients: [local], in: [query]}\negress:")
    gateway = a_gateway(rules)

    assert ask(gateway, (), target=b"/v1/?k=__secrets.key__") == "filled in"
    assert reports(gateway) == []


@pytest.mark.parametrize("rule", [*LET_BY, *KEPT])
@pytest.mark.parametrize("mode", [ENFORCED, OF_GRANT, OF_ALL])
def test_what_is_explained_is_what_happens(rule: str, mode: str) -> None:
    request, _ = (LET_BY | KEPT)[rule]
    gateway = a_house(mode)
    outcome = ask(gateway, **request)

    head = RequestHead(
        request.get("method", b"GET"),
        request.get("target", b"/v1/items"),
        request.get("fields", KEY),
    )
    rules, view = gateway.snapshot.policy, gateway.snapshot.view
    asked = request_of("local", request.get("destination", API), head)
    made = explain(rules, view.find, asked, head)

    assert (made.problem is not None) == (outcome not in ("filled in", "text"))
    if made.problem is None:
        assert any(place.filled for place in made.places) == (outcome == "filled in")
    told = [place.report for place in made.places if place.report is not None]
    assert [str(problem.code) for problem in told] == [
        record["code"] for record in reports(gateway)
    ]


def test_a_mode_in_force_is_warned_of() -> None:
    for mode, line in ((OF_GRANT, 7), (OF_ALL, 3)):
        modes = ("enforce", "report") if mode == OF_GRANT else ("report", "enforce")
        rules = policyfile.parse(RULES.format(all=modes[0], grant=modes[1]), "policy.yaml")

        found = [text for text in policyfile.warnings(rules) if "mode: report" in text]

        assert [text.split(":")[1] for text in found] == [str(line)]


@pytest.mark.parametrize("mode", [ENFORCED, OF_GRANT, OF_ALL])
def test_in_no_mode_is_a_value_a_url_that_no_grant_lets_be_one(mode: str) -> None:
    """What of a URL is taken out of answers depends on such grants."""
    rules = a_house(mode).snapshot.policy
    need = Need("key", (Location(Kind.URL),))
    secret = a_house(mode).snapshot.view.find("key")
    request = request_of("local", API, RequestHead(b"GET", b"/v1/items", ()))

    verdict = judge(rules, request, need, secret)

    assert verdict.problem is not None
    assert str(verdict.problem.code) == "location_not_allowed"
    assert not verdict.allowed
    assert not verdict.keep
