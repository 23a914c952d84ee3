"""The placeholders of one request: judged one by one, their values opened, then filled in.

Judging is done as placeholders are found, filling only after the gateway has written the audit
record; what lies between the two is here. Each placeholder is judged by its own place, so that a
text host can keep the one in a chat history and fill the one in the Authorization field.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coatcheck.core import audit, policy
from coatcheck.core.inject import HeadTemplate
from coatcheck.core.limits import Limits
from coatcheck.core.locations import Location
from coatcheck.core.message import RequestHead
from coatcheck.core.policy import Need
from coatcheck.core.ports import StoreError
from coatcheck.core.problems import Code, Problem, Refused, refuse
from coatcheck.core.secret import Secret, SecretValue
from coatcheck.core.snapshot import Snapshot
from coatcheck.core.template import NotRepresentable, Piece, Slot, render, slots

MAX_REPORTS = 32  # of one request; who sends more placeholders is known by then
MAX_KEPT = 1024  # verdicts "stays text" remembered in one request, so long chats stay linear

_NO_TOKENS: frozenset[tuple[str, bytes]] = frozenset()


class Filling:
    """See the module. One instance serves one request, head and body.

    Attributes:
        tokens: (secret name, bytes) of compound forms that were rendered, Basic tokens.
        values: What was opened, by id of the secret.
    """

    def __init__(self, snapshot: Snapshot, request: policy.Request, limits: Limits) -> None:
        self.tokens: frozenset[tuple[str, bytes]] = _NO_TOKENS
        self.values: dict[str, SecretValue] = {}
        self._snapshot = snapshot
        self._request = request
        self._limits = limits
        self._chosen: dict[int, SecretValue | None] = {}
        self._uses: dict[str, int] = {}
        self._total = 0
        self._kept: set[tuple[str, object]] = set()
        self._unrecorded: list[audit.Use] = []
        self._reports: list[Problem] = []
        self._reported = 0
        self._expanded = 0

    @property
    def names(self) -> frozenset[str]:
        """The secrets that were chosen to be filled in so far."""
        return frozenset(self._uses)

    @property
    def fills(self) -> bool:
        """Whether any secret was chosen so far."""
        return self._total > 0

    def decide(self, found: Iterable[Slot]) -> None:
        """Judge each slot and open the values of those that are allowed.

        Raises:
            Refused: for the first slot that is neither allowed nor left as text.
        """
        for slot in found:
            self._chosen[id(slot)] = self._decide(slot)

    def take_unrecorded(self) -> Sequence[audit.Use]:
        """The uses since the last call: what the next audit record has to name."""
        uses, self._unrecorded = self._unrecorded, []
        return uses

    def take_reports(self) -> Sequence[Problem]:
        """What was let by since the last call and would be refused without `Mode.REPORT`."""
        if not self._reports:
            return ()
        reports, self._reports = self._reports, []
        return reports

    def fill(self, pieces: Sequence[Piece]) -> bytes:
        """*pieces* as bytes, every slot of them decided before.

        Raises:
            Refused: value_not_representable.
        """
        try:
            rendered = render(pieces, self._choice)
        except NotRepresentable as error:
            raise _unwritable(error) from None
        for slot in slots(pieces):
            del self._chosen[id(slot)]  # an id may be used again once its slot is gone
        return rendered

    def fill_head(self, template: HeadTemplate) -> RequestHead:
        """The head with its slots filled. Raises as `fill`."""
        try:
            head = template.render(self._choice)
            tokens = template.tokens(self._choice)
            self.tokens = frozenset(tokens) if tokens else _NO_TOKENS
        except NotRepresentable as error:
            raise _unwritable(error) from None
        return head

    def _choice(self, slot: Slot) -> SecretValue | None:
        return self._chosen[id(slot)]

    def _decide(self, slot: Slot) -> SecretValue | None:
        name, where = slot.name, slot.location
        if name is None:
            self._keep_or_refuse_malformed(where)
            return None
        if (name, where) in self._kept:
            return None
        secret = self._snapshot.view.find(name)
        count = self._uses.get(name, 0) + 1
        need = Need(name, (where,) * count)
        request = self._request
        for grant in self._snapshot.grants(request.client, request.destination, name):
            if policy.allows(grant, request, need, secret) and secret is not None:
                return self._use(secret, slot, count)
        verdict = policy.judge(self._snapshot.policy, self._request, need, secret)
        if verdict.report is not None:
            self._report(verdict.report)
        if verdict.allowed and secret is not None:
            return self._use(secret, slot, count)
        if not verdict.keep:
            raise Refused(verdict.problem or Problem(Code.INTERNAL_ERROR))
        if len(self._kept) < MAX_KEPT:
            self._kept.add((need.name, need.locations[0]))
        return None

    def _keep_or_refuse_malformed(self, where: Location) -> None:
        rules = self._snapshot.policy
        if policy.is_text_host(rules, self._request.destination):
            return
        refused = refuse(
            Code.PLACEHOLDER_MALFORMED,
            "A placeholder begins here but does not end.",
            hint='write {{secrets.NAME}} or {{secrets["any name"]}}',
            location=str(where),
        )
        if rules.mode is not policy.Mode.REPORT:
            raise refused
        self._report(refused.problem)

    def _report(self, problem: Problem) -> None:
        if self._reported < MAX_REPORTS:
            self._reported += 1
            self._reports.append(problem)

    def _use(self, secret: Secret, slot: Slot, count: int) -> SecretValue:
        value = self._open(secret)
        self._uses[secret.name] = count
        self._total += 1
        self._unrecorded.append(audit.Use(secret.name, secret.version, str(slot.location)))
        self._expanded += value.size
        if (
            self._total > self._limits.placeholders_per_request
            or self._expanded > self._limits.expanded_bytes
        ):
            raise refuse(
                Code.TOO_MANY_PLACEHOLDERS,
                "The placeholders of this request are too many, or expand to too much.",
                hint="send fewer in one request; limits.placeholders_per_request sets the bound",
            )
        self.values[secret.id] = value
        return value

    def _open(self, secret: Secret) -> SecretValue:
        if secret.withheld:
            raise _unavailable(secret, secret.withheld)
        try:
            return self._snapshot.view.open(secret)
        except StoreError as error:
            raise _unavailable(secret, str(error)) from None


def _unavailable(secret: Secret, why: str) -> Refused:
    return Refused(
        Problem(
            Code.STORE_UNAVAILABLE,
            "The value cannot be opened.",
            hint="an operator finds the reason with: coatcheck doctor",
            secret=secret.name,
            operator=why,
        )
    )


def _unwritable(error: NotRepresentable) -> Refused:
    return refuse(
        Code.VALUE_NOT_REPRESENTABLE,
        f"The value cannot be written there: {error}.",
        hint="put the placeholder elsewhere, or store the value without those bytes",
    )
