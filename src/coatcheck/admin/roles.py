"""Who manages, and what each may do. A role holds the rights of those below it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from coatcheck.admin.problems import ApiProblem, Code


class Role(StrEnum):
    """The lowest first. Viewers see lists, editors change secrets, owners do the rest."""

    VIEWER = "viewer"
    EDITOR = "editor"
    OWNER = "owner"

    def covers(self, wanted: Role) -> bool:
        order = list(Role)
        return order.index(self) >= order.index(wanted)


@dataclass(frozen=True, slots=True)
class Actor:
    """Whoever a request comes from, once that is known.

    Attributes:
        name: As the audit log calls them: the name of a token, or the subject of a JWT.
        kind: ``token`` or ``oidc``; ``local`` for a look at the metrics without a credential.
        id: Of the credential; empty for a JWT.
        address: Where the request came from.
        ends_at: When the credential ends, in seconds since the epoch; None: never.
    """

    name: str
    role: Role
    kind: str
    id: str = ""
    address: str = ""
    ends_at: float | None = None

    def require(self, role: Role) -> None:
        """Raise `ApiProblem` unless this is at least a *role*."""
        if not self.role.covers(role):
            raise ApiProblem(Code.FORBIDDEN, hint=f"use a credential with the role {role}")
