"""Commands that change something say so in the audit log, before they do it."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coatcheck.observe.managementlog import Change, End, ManagementLog
    from coatcheck.settings import Settings
    from coatcheck.store.home import Home


@contextmanager
def recorded(place: Home, settings: Settings, change: Change) -> Iterator[End]:
    """Record *change*, made in this block by the user of this process.

    Raises:
        AuditError: it cannot be recorded; where it says so, the block was not entered.
        HomeError: the key that signs is missing, damaged or open to others.
    """
    with management_log(place, settings).recorded(actor(), change) as end:
        yield end


def management_log(place: Home, settings: Settings) -> ManagementLog:
    """The log of changes in *place*."""
    from coatcheck.observe.auditlog import Keep, Keys
    from coatcheck.observe.managementlog import ManagementLog
    from coatcheck.store import auditkey

    key = auditkey.signing(place.audit_key, place.audit_public)
    keys = Keys(key, place.audit_heads)
    return ManagementLog(place.audit, keys, keep=Keep.of(settings.limits))


def actor() -> str:
    """The user of this process, as the audit log names them."""
    number = os.geteuid()
    try:
        return f"os:{pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"os:{number}"
