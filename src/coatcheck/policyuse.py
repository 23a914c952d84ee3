"""Who would miss a secret: the grants that name it, and whoever used it lately.

The command line and the management API ask before a secret is deleted or renamed. Who uses a
secret is no proof that nobody else does: a grant for ``*`` names none in particular.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from coatcheck import policyfile
from coatcheck.core.ports import CoatcheckError
from coatcheck.core.secret import Secret

RECENT_S = 30 * 86400.0  # seconds; a secret used since then is not deleted unless that is forced


@dataclass(frozen=True, slots=True)
class User:
    """One reason to keep a secret.

    Attributes:
        kind: ``grant``, ``use``, or ``policy`` where that cannot be read.
        words: The reason, for a person.
        line: Of the grant, in the policy file.
        clients: Whom the grant is for.
    """

    kind: str
    words: str
    line: int = 0
    clients: tuple[str, ...] = ()


def used_by(policy: Path, secret: Secret, now: float) -> list[User]:
    """Who would miss *secret*."""
    users = granted_by(policy, secret.name)
    if secret.last_used_at is not None and now - secret.last_used_at < RECENT_S:
        users.append(
            User("use", f"it was last used at {_time(secret.last_used_at)}, within 30 days")
        )
    return users


def granted_by(policy: Path, name: str) -> list[User]:
    """The grants that name the secret *name*. A grant for ``*`` names none in particular."""
    if not policy.exists():
        return []
    try:
        rules = policyfile.read(policy)
    except CoatcheckError as error:
        words = f"the policy cannot be read, so it may be granted: {error.problem}"
        return [User("policy", words)]
    return [
        User(
            "grant",
            f"the grant at {policy}:{grant.line} gives it to {', '.join(grant.clients)}",
            grant.line,
            grant.clients,
        )
        for grant in rules.grants
        if grant.names(name) and not all(p == "*" for p in grant.secrets)
    ]


def _time(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
