"""The audit log of what is managed here: as those of the workers, it shows who has touched it."""

from __future__ import annotations

import json

from coatcheck.admin.actions import FILE_NAME
from coatcheck.observe.auditlog import Keys
from coatcheck.observe.auditverify import verify_folder
from coatcheck.store import auditkey
from coatcheck.store.home import Home
from tests.admin.stage import staged


def test_what_was_managed_is_chained_and_signed(home: Home) -> None:
    key = auditkey.signing(home.audit_key, home.audit_public)
    with staged(home, keys=Keys(key, home.audit_heads)) as stage:
        stage.make()
        shown = stage.call("GET", "/api/v1/audit").json()["items"]

    lines = [json.loads(line) for line in (home.audit / FILE_NAME).read_text().splitlines()]
    assert [line["event"] for line in lines][-1] == "head"
    assert {one["event"] for one in shown} == {"admin"}, "heads are the log's own"
    (found,) = verify_folder(home.audit, home.audit_heads, auditkey.verifying(home.audit_public))
    assert (found.log, found.findings) == ("audit-admin", [])
    assert found.signed >= 1
