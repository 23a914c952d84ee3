"""What `policy explain` says is what the proxy does: both are asked, and must agree."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck import policyfile
from coatcheck.core.destination import Destination, parse_domain_pattern
from coatcheck.core.explain import explain
from coatcheck.core.limits import Limits
from coatcheck.core.message import RequestHead
from coatcheck.core.paths import canonical_path
from coatcheck.core.policy import Request
from coatcheck.core.problems import Code, Refused
from coatcheck.core.snapshot import Snapshot
from coatcheck.gateway import Body, BodyPlan, Gateway, Origin
from coatcheck.store.memory import MemoryStore

RULES = policyfile.parse(
    """\
version: 1
clients: {runner: {networks: [10.0.0.0/8]}, other: {networks: [11.0.0.0/8]}}
grants:
  - secrets: ["a.*"]
    clients: [runner]
    methods: [GET]
    in: [header, query]
    max_uses: 2
  - secrets: ["a.*"]
    clients: [runner]
    paths: ["/v2/**"]
    max_uses: 1
  - {secrets: [b], clients: [other], plaintext: true}
placeholders:
  unresolved: keep
  text_hosts: [llm.example]
egress:
  deny: [evil.example]
""",
    "p.yaml",
)
LIMITS = Limits(placeholders_per_request=3)
STORE = MemoryStore()
for _name, _domain in (("a.x", "api.example"), ("a.y", "*"), ("b", "api.example")):
    STORE.put(
        _name, b"value-of-it", domains=[parse_domain_pattern(_domain)], description=None, now=0.0
    )


class Log:
    """An audit log that takes everything."""

    def write(self, record: Mapping[str, object]) -> None:
        pass


def explained(
    client: str, destination: Destination, head: RequestHead, body: bytes | None
) -> Code | None:
    request = Request(client, destination, head.method.decode(), canonical_path(head.path))
    problem = explain(RULES, STORE.find, request, head, body, LIMITS).problem
    return problem.code if problem else None


def done(
    client: str, destination: Destination, head: RequestHead, body: bytes | None
) -> Code | None:
    """What the proxy does with it."""
    gateway = Gateway(
        Snapshot(RULES, STORE.view()), Log(), LIMITS, now=lambda: 0.0, new_id=lambda: "r1"
    )
    announced = Body(body is not None, len(body or b""))
    try:
        exchange = gateway.begin(Origin(client, "10.0.0.1"), destination, head, announced)
        exchange.open(body if exchange.plan is BodyPlan.COLLECT else None)
    except Refused as refused:
        return refused.problem.code
    return None


TEXTS = st.lists(
    st.sampled_from(
        ["{{secrets.a.x}}", "{{secrets.a.y}}", "{{secrets.b}}", "{{secrets.no}}", "{{secrets.", "-"]
    ),
    max_size=3,
).map("".join)


@given(
    client=st.sampled_from(["runner", "other"]),
    scheme=st.sampled_from(["https", "https", "http"]),
    host=st.sampled_from(["api.example", "else.example", "llm.example", "evil.example"]),
    method=st.sampled_from(["GET", "POST"]),
    path=st.sampled_from(["/", "/v2/x", "/v2/..;/x", "/v2/{{secrets.a.x}}"]),
    query=TEXTS,
    fields=st.lists(
        st.tuples(st.sampled_from(["Authorization", "Cookie", "X-Key", "Host"]), TEXTS), max_size=2
    ),
    kind=st.sampled_from(["application/json", "text/plain", "image/png", "multipart/form-data"]),
    body=st.none() | TEXTS.map(lambda text: f'{{"k": "{text}"}}'),
)
@settings(max_examples=200, deadline=None)
def test_what_is_explained_is_what_happens(
    client: str,
    scheme: str,
    host: str,
    method: str,
    path: str,
    query: str,
    fields: list[tuple[str, str]],
    kind: str,
    body: str | None,
) -> None:
    head = RequestHead(
        method.encode(),
        f"{path}?q={query}".encode(),
        (
            *((name.encode(), text.encode()) for name, text in fields),
            (b"Content-Type", kind.encode()),
        ),
    )
    destination = Destination(scheme, host, 443 if scheme == "https" else 80)
    content = body.encode() if body is not None else None

    assert explained(client, destination, head, content) == done(client, destination, head, content)


@pytest.mark.parametrize(
    ("uses", "code"),
    [
        pytest.param(2, None, id="as often as max_uses"),
        pytest.param(3, Code.TOO_MANY_PLACEHOLDERS, id="once more"),
    ],
)
def test_uses_are_counted_over_all_places(uses: int, code: Code | None) -> None:
    head = RequestHead(b"GET", b"/", ((b"X-Key", b"{{secrets.a.x}}" * uses),))

    assert explained("runner", Destination("https", "api.example", 443), head, None) is code


def test_the_limit_of_a_whole_request_counts_all_secrets() -> None:
    text = b"{{secrets.a.x}}{{secrets.a.y}}" * 2
    head = RequestHead(b"GET", b"/", ((b"X-Key", text),))

    code = explained("runner", Destination("https", "api.example", 443), head, None)

    assert code is Code.TOO_MANY_PLACEHOLDERS


def test_one_refusal_does_not_hide_the_next() -> None:
    head = RequestHead(
        b"POST", b"/", ((b"X-Key", b"{{secrets.a.x}} {{secrets.}} {{secrets.a.y}}"),)
    )
    destination = Destination("https", "api.example", 443)
    request = Request("runner", destination, "POST", "/")

    places = explain(RULES, STORE.find, request, head).places

    assert [place.problem.code if place.problem else None for place in places] == [
        Code.REQUEST_NOT_ALLOWED,
        Code.PLACEHOLDER_MALFORMED,
        Code.REQUEST_NOT_ALLOWED,
    ]


def test_a_tunnelled_destination_is_not_looked_at() -> None:
    rules = policyfile.parse("version: 1\negress: {passthrough: [t.example]}\n", "p.yaml")
    head = RequestHead(b"GET", b"/", ((b"X-Key", b"{{secrets.a.x}}"),))

    for scheme, port, places in (("https", 443, 0), ("http", 80, 1)):
        request = Request("runner", Destination(scheme, "t.example", port), "GET", "/")
        assert len(explain(rules, STORE.find, request, head).places) == places
