"""All that can be managed, in one object: what the API and the page are given.

Each part asks for the role that a call takes. No route decides over rights by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from coatcheck.admin.actions import Actions
from coatcheck.admin.activity import Activity
from coatcheck.admin.declared import Declarations, Names
from coatcheck.admin.health import Health
from coatcheck.admin.policy_service import PolicyService
from coatcheck.admin.secret_service import SecretService
from coatcheck.admin.token_service import TokenService
from coatcheck.settings import Settings
from coatcheck.store.home import Home
from coatcheck.store.sql import SqlStore


@dataclass(frozen=True, slots=True)
class Service:
    secrets: SecretService
    tokens: TokenService
    policy: PolicyService
    activity: Activity
    health: Health

    @classmethod
    def over(
        cls,
        settings: Settings,
        store: SqlStore,
        actions: Actions,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """The services over a *store* that was opened with the public key alone."""
        home = Home(settings.home)
        declarations = Declarations(settings.sources_file)
        policy = PolicyService(settings.policy, Names(store, declarations), settings.limits)
        return cls(
            SecretService(store, settings.policy, actions, clock, declarations),
            TokenService(store, actions, clock),
            policy,
            Activity(home.audit, clock),
            Health(home.run, store, policy, settings.role),
        )
