"""Who may send which secret where: the decision table.

One grant allows one thing; each row changes one side of the request, and its id says the rule.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.core.destination import Destination, parse_domain_pattern
from coatcheck.core.locations import Kind, Location, parse_pattern
from coatcheck.core.message import RequestHead
from coatcheck.core.paths import path_fits
from coatcheck.core.policy import (
    Egress,
    Grant,
    Need,
    Policy,
    Request,
    Step,
    Unresolved,
    egress_allows,
    in_scope,
    judge,
    name_matches,
    needs_of,
    request_of,
)
from coatcheck.core.problems import Code
from coatcheck.core.secret import Secret

HEADER = Location(Kind.HEADER, "authorization")
SECRET = Secret("id-1", "crm.key", 1, (parse_domain_pattern("*.crm.example"),))


def a_grant(**changes: object) -> Grant:
    """A narrow grant that `a_request` fits on every side."""
    fields: dict[str, object] = {
        "secrets": ("crm.*",),
        "clients": ("runner",),
        "hosts": (parse_domain_pattern("api.crm.example"),),
        "methods": frozenset({"GET", "POST"}),
        "paths": ("/v1/**",),
        "locations": (parse_pattern("header:authorization"),),
        "max_uses": 2,
        "line": 10,
    }
    return Grant(**(fields | changes))  # type: ignore[arg-type]


def wide(**changes: object) -> Grant:
    """A grant that narrows nothing but client and secret."""
    return replace(
        Grant(("crm.*",), ("runner",), line=10),
        **changes,  # type: ignore[arg-type]
    )


def a_request(
    url: str = "https://api.crm.example",
    *,
    client: str = "runner",
    method: str = "GET",
    path: str | None = "/v1/me",
) -> Request:
    scheme, _, rest = url.partition("://")
    host, _, port = rest.partition(":")
    number = int(port) if port else {"http": 80, "https": 443}[scheme]
    return Request(client, Destination(scheme, host, number), method, path)


def a_need(*where: Location, name: str = "crm.key") -> Need:
    return Need(name, where or (HEADER,))


def secret_with(*domains: str, name: str = "crm.key") -> Secret:
    return Secret("id-2", name, 1, tuple(map(parse_domain_pattern, domains)))


ALLOWED = None
QUERY = Location(Kind.QUERY, "key")
COOKIE = Location(Kind.HEADER, "cookie")
FORWARDED = Location(Kind.HEADER, "x-forwarded-for")
BODY = Location(Kind.BODY, "/client_secret")


@pytest.mark.parametrize(
    ("grant", "request_", "need", "secret", "code"),
    [
        pytest.param(a_grant(), a_request(), a_need(), SECRET, ALLOWED, id="all of it fits"),
        # who
        pytest.param(
            a_grant(),
            a_request(client="other"),
            a_need(),
            SECRET,
            Code.SECRET_UNAVAILABLE,
            id="another client: as if the secret did not exist",
        ),
        pytest.param(
            a_grant(),
            a_request(client="Runner"),
            a_need(),
            SECRET,
            Code.SECRET_UNAVAILABLE,
            id="a client's name is case-sensitive",
        ),
        pytest.param(
            a_grant(clients=("other", "runner")),
            a_request(),
            a_need(),
            SECRET,
            ALLOWED,
            id="one of several clients",
        ),
        # what
        pytest.param(
            a_grant(),
            a_request(),
            a_need(name="crm.nothing"),
            None,
            Code.SECRET_UNAVAILABLE,
            id="no such secret, though a grant would name it",
        ),
        pytest.param(
            a_grant(secrets=("billing.*",)),
            a_request(),
            a_need(),
            SECRET,
            Code.SECRET_UNAVAILABLE,
            id="a secret that no grant names",
        ),
        pytest.param(
            a_grant(secrets=("CRM.key",)),
            a_request(),
            a_need(),
            SECRET,
            Code.SECRET_UNAVAILABLE,
            id="a secret's name is case-sensitive",
        ),
        # where to: the secret's own domains
        pytest.param(
            wide(), a_request(), a_need(), SECRET, ALLOWED, id="no hosts: the secret's own domains"
        ),
        pytest.param(
            wide(),
            a_request("https://evil.example"),
            a_need(),
            SECRET,
            Code.DOMAIN_NOT_ALLOWED,
            id="no hosts: and no other destination",
        ),
        pytest.param(
            wide(),
            a_request("https://crm.example"),
            a_need(),
            SECRET,
            Code.DOMAIN_NOT_ALLOWED,
            id="a wildcard domain is not the apex",
        ),
        pytest.param(
            wide(),
            a_request("https://evilcrm.example"),
            a_need(),
            SECRET,
            Code.DOMAIN_NOT_ALLOWED,
            id="a wildcard domain begins at a dot",
        ),
        pytest.param(
            wide(),
            a_request("https://api.crm.example:8443"),
            a_need(),
            SECRET,
            Code.DOMAIN_NOT_ALLOWED,
            id="another port is another destination",
        ),
        pytest.param(
            wide(),
            a_request("https://api.crm.example:8443"),
            a_need(),
            secret_with("api.crm.example:8443"),
            ALLOWED,
            id="a port that the domain names",
        ),
        pytest.param(
            wide(),
            a_request(),
            a_need(),
            secret_with(),
            Code.DOMAIN_NOT_ALLOWED,
            id="an empty list of domains means nowhere",
        ),
        pytest.param(
            wide(),
            a_request("https://any.where.example"),
            a_need(),
            secret_with("*"),
            ALLOWED,
            id="the domain * means anywhere",
        ),
        # where to: the grant's hosts
        pytest.param(
            a_grant(),
            a_request("https://www.crm.example"),
            a_need(),
            SECRET,
            Code.DOMAIN_NOT_ALLOWED,
            id="hosts and domains must both hold: hosts do not",
        ),
        pytest.param(
            a_grant(hosts=(parse_domain_pattern("evil.example"),)),
            a_request("https://evil.example"),
            a_need(),
            SECRET,
            Code.DOMAIN_NOT_ALLOWED,
            id="hosts and domains must both hold: domains do not",
        ),
        pytest.param(
            a_grant(hosts=()),
            a_request(),
            a_need(),
            SECRET,
            Code.DOMAIN_NOT_ALLOWED,
            id="an empty list of hosts means nowhere",
        ),
        pytest.param(
            a_grant(),
            a_request("https://any.where.example"),
            a_need(),
            secret_with("*"),
            Code.DOMAIN_NOT_ALLOWED,
            id="hosts bind a secret that may go anywhere",
        ),
        # how
        pytest.param(
            wide(),
            a_request("http://api.crm.example"),
            a_need(),
            SECRET,
            Code.PLAINTEXT_NOT_ALLOWED,
            id="not over http",
        ),
        pytest.param(
            wide(plaintext=True),
            a_request("http://api.crm.example"),
            a_need(),
            SECRET,
            ALLOWED,
            id="over http where the grant says so",
        ),
        pytest.param(
            a_grant(),
            a_request(method="DELETE"),
            a_need(),
            SECRET,
            Code.REQUEST_NOT_ALLOWED,
            id="another method",
        ),
        pytest.param(
            a_grant(),
            a_request(method="get"),
            a_need(),
            SECRET,
            Code.REQUEST_NOT_ALLOWED,
            id="methods are case-sensitive (RFC 9110, section 9.1)",
        ),
        pytest.param(
            wide(), a_request(method="PURGE"), a_need(), SECRET, ALLOWED, id="no methods: any"
        ),
        pytest.param(
            a_grant(),
            a_request(path="/v2/me"),
            a_need(),
            SECRET,
            Code.REQUEST_NOT_ALLOWED,
            id="another path",
        ),
        pytest.param(
            a_grant(),
            a_request(path=None),
            a_need(),
            SECRET,
            Code.REQUEST_NOT_ALLOWED,
            id="an ambiguous path fits no pattern",
        ),
        pytest.param(
            a_grant(paths=("/**",)),
            a_request(path=None),
            a_need(),
            SECRET,
            Code.REQUEST_NOT_ALLOWED,
            id="an ambiguous path fits not even /**",
        ),
        pytest.param(
            wide(),
            a_request(path=None),
            a_need(),
            SECRET,
            ALLOWED,
            id="no paths: any, ambiguous too",
        ),
        # which place
        pytest.param(
            a_grant(),
            a_request(),
            a_need(QUERY),
            SECRET,
            Code.LOCATION_NOT_ALLOWED,
            id="a place that in: does not name",
        ),
        pytest.param(
            a_grant(),
            a_request(),
            a_need(HEADER, QUERY),
            SECRET,
            Code.LOCATION_NOT_ALLOWED,
            id="every place must be named, not one of them",
        ),
        pytest.param(
            a_grant(),
            a_request(),
            a_need(Location(Kind.HEADER, "x-api-key")),
            SECRET,
            Code.LOCATION_NOT_ALLOWED,
            id="another header than the named one",
        ),
        pytest.param(
            wide(),
            a_request(),
            a_need(HEADER, QUERY, Location(Kind.PATH), BODY),
            SECRET,
            ALLOWED,
            id="no in: header, query, path, body",
        ),
        pytest.param(
            wide(),
            a_request(),
            a_need(Location(Kind.WEBSOCKET)),
            SECRET,
            Code.LOCATION_NOT_ALLOWED,
            id="no in: and not WebSocket messages",
        ),
        *(
            pytest.param(
                wide(),
                a_request(),
                a_need(where),
                SECRET,
                Code.LOCATION_NOT_ALLOWED,
                id=f"{where} is not filled unless named",
            )
            for where in (COOKIE, FORWARDED, Location(Kind.HEADER, "referer"))
        ),
        pytest.param(
            wide(locations=(parse_pattern("header"),)),
            a_request(),
            a_need(COOKIE),
            SECRET,
            Code.LOCATION_NOT_ALLOWED,
            id="'header' alone names no Cookie",
        ),
        pytest.param(
            wide(locations=(parse_pattern("header:cookie"),)),
            a_request(),
            a_need(COOKIE),
            SECRET,
            ALLOWED,
            id="Cookie is filled where it is named",
        ),
        pytest.param(
            wide(locations=(parse_pattern("body:/client_secret"),)),
            a_request(),
            a_need(BODY),
            SECRET,
            ALLOWED,
            id="a body field by name",
        ),
        pytest.param(
            wide(locations=(parse_pattern("body:/client_secret"),)),
            a_request(),
            a_need(Location(Kind.BODY, "/client_secret/0")),
            SECRET,
            Code.LOCATION_NOT_ALLOWED,
            id="a body field is not what lies below it",
        ),
        # how often
        pytest.param(
            a_grant(),
            a_request(),
            a_need(HEADER, HEADER),
            SECRET,
            ALLOWED,
            id="as often as max_uses",
        ),
        pytest.param(
            a_grant(),
            a_request(),
            a_need(HEADER, HEADER, HEADER),
            SECRET,
            Code.TOO_MANY_PLACEHOLDERS,
            id="once more than max_uses",
        ),
        # several wrong at once: the first question that fails gives the answer
        pytest.param(
            a_grant(),
            a_request("http://evil.example", client="other", method="PUT", path="/x"),
            a_need(QUERY),
            SECRET,
            Code.SECRET_UNAVAILABLE,
            id="who comes before where",
        ),
        pytest.param(
            a_grant(),
            a_request("http://evil.example", method="PUT", path="/x"),
            a_need(QUERY),
            SECRET,
            Code.DOMAIN_NOT_ALLOWED,
            id="where comes before how",
        ),
    ],
)
def test_decision(
    grant: Grant, request_: Request, need: Need, secret: Secret | None, code: Code | None
) -> None:
    verdict = judge(Policy(grants=(grant,)), request_, need, secret)

    assert (verdict.problem.code if verdict.problem else ALLOWED) == code
    assert verdict.allowed is (code is ALLOWED)
    assert verdict.grant is grant


FORBIDDEN = ("host", "content-length", "transfer-encoding", "connection", "proxy-authorization")


@pytest.mark.parametrize("name", FORBIDDEN)
def test_no_grant_opens_a_header_that_frames_or_routes(name: str) -> None:
    """Even a pattern made by hand, which `parse_pattern` would refuse, opens none of them."""
    named = replace(parse_pattern("header:x"), name=name)

    verdict = judge(
        Policy(grants=(wide(locations=(named,)),)),
        a_request(),
        a_need(Location(Kind.HEADER, name)),
        SECRET,
    )

    assert verdict.problem is not None
    assert verdict.problem.code is Code.LOCATION_NOT_ALLOWED


def test_a_policy_without_grants_allows_nothing() -> None:
    verdict = judge(Policy(), a_request(), a_need(), SECRET)

    assert verdict.problem is not None
    assert verdict.problem.code is Code.SECRET_UNAVAILABLE
    assert verdict.grant is None
    assert verdict.answers == ()


class TestSeveralGrants:
    """Any grant that fits allows; the order never matters."""

    GRANTS = (
        a_grant(clients=("other",), line=1),
        a_grant(paths=("/v2/**",), line=2),
        a_grant(line=3),
        a_grant(locations=(parse_pattern("query:key"),), line=4),
    )

    @pytest.mark.parametrize("order", list(permutations(range(4))))
    def test_one_that_fits_allows_wherever_it_stands(self, order: tuple[int, ...]) -> None:
        policy = Policy(grants=tuple(self.GRANTS[i] for i in order))

        verdict = judge(policy, a_request(), a_need(), SECRET)

        assert verdict.allowed
        assert verdict.grant is self.GRANTS[2]

    @pytest.mark.parametrize("order", list(permutations(range(4))))
    def test_the_refusal_is_that_of_the_nearest_wherever_it_stands(
        self, order: tuple[int, ...]
    ) -> None:
        policy = Policy(grants=tuple(self.GRANTS[i] for i in order))

        verdict = judge(policy, a_request(), a_need(BODY), SECRET)

        assert verdict.problem is not None
        assert verdict.problem.code is Code.LOCATION_NOT_ALLOWED
        assert verdict.grant is self.GRANTS[2]  # the first in the file of two that are as near
        assert {a.grant.line: a.failed for a in verdict.answers} == {
            1: Step.CLIENT,
            2: Step.PATH,
            3: Step.LOCATION,
            4: Step.LOCATION,
        }

    def test_two_grants_that_each_fit_half_do_not_add_up(self) -> None:
        """A grant is one sentence: this method at that path. Mixing them would make new ones."""
        get_a = a_grant(methods=frozenset({"GET"}), paths=("/a",))
        post_b = a_grant(methods=frozenset({"POST"}), paths=("/b",))

        verdict = judge(
            Policy(grants=(get_a, post_b)), a_request(method="GET", path="/b"), a_need(), SECRET
        )

        assert not verdict.allowed

    def test_the_operator_is_told_the_line_and_the_client_is_not(self) -> None:
        verdict = judge(Policy(grants=self.GRANTS[:2]), a_request(), a_need(), SECRET)

        assert verdict.problem is not None
        assert "line 2" in verdict.problem.operator
        sent = verdict.problem.body("r1").decode()
        assert "line" not in sent
        assert "/v2" not in sent


class TestWhoExistsIsNotTold:
    """One answer both for a secret that does not exist and for one that is not granted."""

    @pytest.mark.parametrize("unresolved", list(Unresolved))
    def test_the_answers_are_equal_to_the_byte(self, unresolved: Unresolved) -> None:
        policy = Policy(grants=(a_grant(secrets=("mine",)),), unresolved=unresolved)
        request = a_request()

        missing = judge(policy, request, a_need(), None)
        foreign = judge(policy, request, a_need(), SECRET)

        assert missing.keep is foreign.keep is (unresolved is Unresolved.KEEP)
        assert missing.problem is not None
        assert foreign.problem is not None
        assert missing.problem.body("r1") == foreign.problem.body("r1")
        assert missing.problem.fields() == foreign.problem.fields()


class TestKeep:
    """``unresolved: keep`` and ``text_hosts``: the placeholder stays text."""

    KEEP = Policy(grants=(a_grant(),), unresolved=Unresolved.KEEP)

    def test_an_unknown_secret_stays_text(self) -> None:
        assert judge(self.KEEP, a_request(), a_need(name="crm.no"), None).keep

    def test_what_stays_text_is_not_allowed(self) -> None:
        assert not judge(self.KEEP, a_request(), a_need(name="crm.no"), None).allowed

    def test_a_wrong_destination_is_refused_all_the_same(self) -> None:
        verdict = judge(self.KEEP, a_request("https://evil.example"), a_need(), SECRET)

        assert not verdict.keep
        assert not verdict.allowed

    def test_what_is_allowed_is_filled(self) -> None:
        verdict = judge(self.KEEP, a_request(), a_need(), SECRET)

        assert verdict.allowed
        assert not verdict.keep

    @pytest.mark.parametrize(
        ("url", "kept"),
        [
            pytest.param("https://llm.example", True, id="a text host keeps the text"),
            pytest.param("https://llm.example:444", False, id="on another port it is none"),
            pytest.param("https://evil.example", False, id="another host refuses"),
        ],
    )
    def test_text_hosts(self, url: str, kept: bool) -> None:
        policy = Policy(grants=(a_grant(),), text_hosts=(parse_domain_pattern("llm.example"),))

        verdict = judge(policy, a_request(url), a_need(), SECRET)

        assert verdict.keep is kept
        assert not verdict.allowed

    def test_a_grant_fills_at_a_text_host_too(self) -> None:
        policy = Policy(grants=(a_grant(),), text_hosts=(parse_domain_pattern("api.crm.example"),))

        assert judge(policy, a_request(), a_need(), SECRET).allowed


class TestScope:
    """The secrets whose values are scrubbed: those the client may use at this destination."""

    OTHER = secret_with("*.crm.example", name="crm.other")
    FOREIGN = secret_with("*.crm.example", name="billing.key")
    FAR = secret_with("far.example", name="crm.far")
    ALL = (SECRET, OTHER, FOREIGN, FAR)

    def names(self, policy: Policy, client: str, host: str) -> list[str]:
        return [s.name for s in in_scope(policy, client, Destination("https", host, 443), self.ALL)]

    @pytest.mark.parametrize(
        ("client", "host", "names"),
        [
            pytest.param("runner", "api.crm.example", ["crm.key", "crm.other"], id="granted here"),
            pytest.param("runner", "www.crm.example", [], id="a host the grant does not name"),
            pytest.param("runner", "evil.example", [], id="another destination: nothing"),
            pytest.param("other", "api.crm.example", [], id="another client: nothing"),
        ],
    )
    def test_scope(self, client: str, host: str, names: list[str]) -> None:
        assert self.names(Policy(grants=(a_grant(),)), client, host) == names

    def test_method_path_and_place_do_not_narrow_it(self) -> None:
        """An API that stores a value returns it to any request."""
        grant = a_grant(methods=frozenset({"PUT"}), paths=("/only",), locations=())

        assert self.names(Policy(grants=(grant,)), "runner", "api.crm.example") == [
            "crm.key",
            "crm.other",
        ]


@pytest.mark.parametrize(
    ("egress", "url", "allowed"),
    [
        pytest.param(Egress(), "https://x.example", True, id="the default is allow"),
        pytest.param(Egress(False), "https://x.example", False, id="deny with nothing allowed"),
        pytest.param(
            Egress(False, allow=(parse_domain_pattern("x.example"),)),
            "https://x.example",
            True,
            id="deny, and this one allowed",
        ),
        pytest.param(
            Egress(False, allow=(parse_domain_pattern("x.example"),)),
            "https://x.example:444",
            False,
            id="deny, allowed on its default port alone",
        ),
        pytest.param(
            Egress(deny=(parse_domain_pattern("*.x.example"),)),
            "https://a.x.example",
            False,
            id="allow, and this one denied",
        ),
        pytest.param(
            Egress(
                True, (parse_domain_pattern("x.example"),), (parse_domain_pattern("x.example"),)
            ),
            "https://x.example",
            False,
            id="deny beats allow",
        ),
        pytest.param(
            Egress(False, networks=(ipaddress.ip_network("10.0.0.0/8"),)),
            "https://x.example",
            False,
            id="networks are about addresses, and allow no host",
        ),
    ],
)
def test_egress(egress: Egress, url: str, allowed: bool) -> None:
    assert egress_allows(egress, a_request(url).destination) is allowed


def test_needs_group_placeholders_by_secret_in_order() -> None:
    needs = needs_of([("b", HEADER), ("a", QUERY), ("b", BODY), ("b", BODY)])

    assert needs == (Need("b", (HEADER, BODY, BODY)), Need("a", (QUERY,)))


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        pytest.param("crm.key", "crm.key", True, id="a name is itself"),
        pytest.param("crm.key", "crm.keys", False, id="and nothing longer"),
        pytest.param("crm.key", "crmXkey", False, id="a dot is a dot"),
        pytest.param("crm.*", "crm.a.b", True, id="* crosses dots"),
        pytest.param("crm.*", "crm.", True, id="* may be empty"),
        pytest.param("crm.*", "crm", False, id="what stands before * must be there"),
        pytest.param("*.key", "crm.key", True, id="* at the start"),
        pytest.param("*.key", "crm.key2", False, id="what stands behind * must be the end"),
        pytest.param("a*a", "a", False, id="the two sides of * do not overlap"),
        pytest.param("a*a", "aa", True, id="and may touch"),
        pytest.param("a*b*c", "a-c-b-c", True, id="several stars"),
        pytest.param("a*b*c", "a-c-b", False, id="several stars, in order"),
        pytest.param("*", "any name\u2028at all", True, id="* alone is every name"),
        pytest.param("a?[b]*", "a?[b]c", True, id="? and [ are themselves"),
        pytest.param("a?", "ab", False, id="? is no wildcard"),
    ],
)
def test_name_patterns(pattern: str, name: str, fits: bool) -> None:
    assert name_matches(pattern, name) is fits


@given(st.text("ab.*", max_size=8), st.text("ab.", max_size=12))
def test_name_patterns_agree_with_a_regular_expression(pattern: str, name: str) -> None:
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL)

    assert name_matches(pattern, name) is (expected is not None)


@pytest.mark.parametrize(
    "match",
    [
        pytest.param(
            lambda: path_fits(("/**x/**y/**z/**x/**q*r",), "/" + "x/y/z/" * 4000), id="path"
        ),
        pytest.param(lambda: name_matches("*a*a*a*a*a*a*b", "a" * 24000), id="name"),
    ],
)
def test_matching_does_not_backtrack(match: Callable[[], bool]) -> None:
    """A regular expression would be busy with these for days."""
    assert match() is False


# --- what a request says of itself -------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "method", "path"),
    [
        pytest.param(b"X-Other", "GET", "/v1", id="the request line says it"),
        pytest.param(b"X-HTTP-Method-Override", "", "/v1", id="a field may name another method"),
        pytest.param(b"x-http-method", "", "/v1", id="in another spelling"),
        pytest.param(b"X-Method-Override", "", "/v1", id="and another"),
        pytest.param(b"X-Original-URL", "GET", None, id="a field may name another path"),
        pytest.param(b"X-Rewrite-Url", "GET", None, id="in another spelling too"),
        pytest.param(b"X_HTTP_Method_Override", "", "/v1", id="_ is - to CGI, of a method"),
        pytest.param(b"X-HTTP_Method.Override", "", "/v1", id="so is . to some"),
        pytest.param(b"X_Original_URL", "GET", None, id="_ is - to CGI, of a path"),
        pytest.param(b"XOriginalURL", "GET", "/v1", id="but nothing is not"),
        pytest.param(b"X-Original-Method", "", "/v1", id="what nginx tells an authoriser"),
        pytest.param(b"X-Forwarded-Method", "", "/v1", id="what Traefik tells one"),
        pytest.param(b"X-Original-URI", "GET", None, id="the path, as nginx tells it"),
        pytest.param(b"X-Forwarded-Uri", "GET", None, id="as Traefik and Caddy do"),
        pytest.param(b"X-Envoy-Original-Path", "GET", None, id="as Envoy does"),
        pytest.param(b"X-HTTP-Path-Override", "GET", None, id="by the name of the method's"),
        pytest.param(b"SCRIPT_NAME", "GET", None, id="gunicorn takes this from a client"),
    ],
)
def test_a_method_or_path_that_a_field_could_replace_fits_no_list(
    field: bytes, method: str, path: str | None
) -> None:
    destination = Destination("https", "api.example.com", 443)
    head = RequestHead(b"GET", b"/v1?q", ((field, b"x"),))

    request = request_of("local", destination, head)

    assert (request.method, request.path) == (method, path)


@pytest.mark.parametrize(
    ("query", "method"),
    [
        pytest.param(b"", "GET", id="none"),
        pytest.param(b"_method=DELETE", "", id="Rails, Laravel and Symfony"),
        pytest.param(b"a=1&_method=DELETE&b=2", "", id="among others"),
        pytest.param(b"a=1;_method=DELETE", "", id="behind a semicolon"),
        pytest.param(b"_method", "", id="without a value"),
        pytest.param(b"_METHOD=DELETE", "", id="in capitals"),
        pytest.param(b"%5Fmethod=DELETE", "", id="encoded"),
        pytest.param(b"_%6d%45tho%64=DELETE", "", id="in parts"),
        pytest.param(b".method=DELETE", "", id="a dot is _ to PHP"),
        pytest.param(b"+%20_method=DELETE", "", id="blanks in front are nothing to it"),
        pytest.param(b"_method[]=DELETE", "", id="a list"),
        pytest.param(b"_method%5B0%5D=DELETE", "", id="a list, encoded"),
        pytest.param(b"X-HTTP-Method-Override=DELETE", "", id="ASP.NET takes it from a parameter"),
        pytest.param(b"method=DELETE", "GET", id="a word of many APIs"),
        pytest.param(b"my_method=DELETE", "GET", id="the end of a longer name"),
        pytest.param(b"_methods=DELETE", "GET", id="the start of a longer name"),
        pytest.param(b"a=_method", "GET", id="a value"),
        pytest.param(b"a=%26_method=DELETE", "GET", id="an encoded ampersand parts nothing"),
        pytest.param(b"?_method=DELETE", "GET", id="a second question mark is of the name"),
    ],
)
def test_a_method_that_a_parameter_could_replace_fits_no_list(query: bytes, method: str) -> None:
    head = RequestHead(b"GET", b"/v1?" + query, ())

    request = request_of("local", Destination("https", "api.example.com", 443), head)

    assert (request.method, request.path) == (method, "/v1")
