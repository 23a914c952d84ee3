"""What would happen to a request, and which line of the policy says so. Pure; nothing is sent.

The same readers (`inject`, `bodies`) and the same `policy.judge` as the proxy's, asked in the same
order as `gateway` asks them, but to the end: one refusal does not hide the next. What cannot be
known without sending (the address behind a name, whether a value fits its place) is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from coatcheck.core import address, bodies, inject, policy
from coatcheck.core.destination import Destination, DomainPattern
from coatcheck.core.limits import Limits
from coatcheck.core.locations import Location
from coatcheck.core.message import RequestHead
from coatcheck.core.placeholder import Grammar
from coatcheck.core.policy import Egress, Need, Policy, Request, Verdict
from coatcheck.core.problems import Code, Problem, Refused
from coatcheck.core.secret import Secret
from coatcheck.core.template import Slot, slots


@dataclass(frozen=True, slots=True)
class Place:
    """One placeholder of the request.

    Attributes:
        name: None where it is a placeholder up to a point only.
        exists: Whether the store has a secret of this name.
        verdict: What each grant answered; None where no grant was asked (malformed).
        problem: Why it is refused; None where it is filled, or stays text.
        report: Why it would be, if the policy did not only report it.
    """

    name: str | None
    location: Location
    exists: bool
    verdict: Verdict | None
    problem: Problem | None
    report: Problem | None = None

    @property
    def filled(self) -> bool:
        return self.verdict is not None and self.verdict.allowed and self.problem is None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The whole decision.

    Attributes:
        rule: The egress entry that decided, as the policy file has it.
        tunnel: The passthrough entry that the destination meets: nothing is looked at then.
        places: Every placeholder, in the order in which the proxy meets them.
        problem: What the client would get; None: the request would be sent.
        report: The egress rule that would refuse it, if the policy did not only report it.
    """

    request: Request
    rule: str
    tunnel: DomainPattern | None
    places: tuple[Place, ...]
    problem: Problem | None
    report: Problem | None = None


def explain(
    rules: Policy,
    find: Callable[[str], Secret | None],
    request: Request,
    head: RequestHead,
    body: bytes | None = None,
    limits: Limits | None = None,
) -> Explanation:
    """Decide over a request as the proxy would.

    Args:
        find: The secret of a name, without its value.
        body: As the client would send it, without content coding; None: no body.
    """
    destination = request.destination
    problem, rule = _egress(rules.egress, destination)
    report: Problem | None = None
    reports = rules.mode is policy.Mode.REPORT
    if reports and problem is not None and problem.code is Code.DESTINATION_NOT_ALLOWED:
        problem, report = None, problem
    tunnel = _tunnel(rules.egress, destination)
    if tunnel is not None:
        return Explanation(request, rule, tunnel, (), problem, report)
    grammar = Grammar(rules.syntaxes)
    found = _head_slots(head, grammar)
    broken: Problem | None = None  # a body that cannot be taken apart: met after the head
    try:
        found += _body_slots(head, body or b"", grammar)
    except Refused as refused:
        broken = refused.problem
    places = tuple(_judged(rules, find, request, found, limits or Limits()))
    refusals = (place.problem for place in places if place.problem is not None)
    problem = problem or next(refusals, None) or broken
    return Explanation(request, rule, None, places, problem, report)


def _egress(egress: Egress, destination: Destination) -> tuple[Problem | None, str]:
    denied = next((p for p in egress.deny if p.matches(destination)), None)
    allowed = next((p for p in egress.allow if p.matches(destination)), None)
    if denied is not None:
        rule = f"deny: {denied}"
    elif allowed is not None:
        rule = f"allow: {allowed}"
    else:
        rule = f"default: {'allow' if egress.default_allow else 'deny'}"
    if not policy.egress_allows(egress, destination):
        hint = "add the host to egress.allow in the policy, or remove it from egress.deny"
        return Problem(
            Code.DESTINATION_NOT_ALLOWED,
            "The egress rules do not let clients go to this destination.",
            hint=hint,
            host=destination.host,
        ), rule
    if destination.is_ip:
        reason = address.vet(destination.host, destination.port, allowed=egress.networks)
        if reason is not None:
            return Problem(
                Code.ADDRESS_NOT_ALLOWED,
                "Private, reserved and metadata addresses are not dialled.",
                hint=address.next_step(reason),
                host=destination.host,
                operator=f"the address is {reason}",
            ), rule
    return None, rule


def _tunnel(egress: Egress, destination: Destination) -> DomainPattern | None:
    if destination.scheme != "https":
        return None
    return next((p for p in egress.passthrough if p.matches(destination)), None)


def _head_slots(head: RequestHead, grammar: Grammar) -> list[Slot]:
    template = inject.read_head(head, grammar)
    return template.slots() if template is not None else []


def _body_slots(head: RequestHead, body: bytes, grammar: Grammar) -> list[Slot]:
    rewriter = bodies.rewriter(head.fields, grammar) if body else None
    if rewriter is None:
        return []
    return list(slots([*rewriter.feed(body), *rewriter.finish()]))


def _judged(
    rules: Policy,
    find: Callable[[str], Secret | None],
    request: Request,
    found: list[Slot],
    limits: Limits,
) -> Iterator[Place]:
    uses: Counter[str] = Counter()
    for slot in found:
        if slot.name is None:
            kept = policy.is_text_host(rules, request.destination)
            problem = None if kept else _malformed(slot)
            if rules.mode is policy.Mode.REPORT:
                yield Place(None, slot.location, False, None, None, problem)
            else:
                yield Place(None, slot.location, False, None, problem)
            continue
        secret = find(slot.name)
        # A placeholder is judged as often as it occurred so far, which is how max_uses is met.
        need = Need(slot.name, (slot.location,) * (uses[slot.name] + 1))
        verdict = policy.judge(rules, request, need, secret)
        problem = None if verdict.keep else verdict.problem
        if verdict.allowed:
            uses[slot.name] += 1
            if uses.total() > limits.placeholders_per_request:
                problem = _too_many()
        exists = secret is not None
        yield Place(slot.name, slot.location, exists, verdict, problem, verdict.report)


def _malformed(slot: Slot) -> Problem:
    return Problem(
        Code.PLACEHOLDER_MALFORMED,
        "A placeholder begins here but does not end.",
        hint='write {{secrets.NAME}} or {{secrets["any name"]}}',
        location=str(slot.location),
    )


def _too_many() -> Problem:
    return Problem(
        Code.TOO_MANY_PLACEHOLDERS,
        "The placeholders of this request are too many.",
        hint="send fewer in one request, or raise limits.placeholders_per_request",
    )
