"""All that can be managed, in one object: what the API and the page are given.

Each part asks for the role that a call takes. No route decides over rights by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from coatcheck.admin.actions import Actions
from coatcheck.admin.secret_service import SecretService
from coatcheck.admin.token_service import TokenService
from coatcheck.settings import Settings
from coatcheck.store.sql import SqlStore


@dataclass(frozen=True, slots=True)
class Service:
    secrets: SecretService
    tokens: TokenService

    @classmethod
    def over(
        cls,
        settings: Settings,
        store: SqlStore,
        actions: Actions,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """The services over a *store* that was opened with the public key alone."""
        return cls(
            SecretService(store, settings.policy, actions, clock),
            TokenService(store, actions, clock),
        )
