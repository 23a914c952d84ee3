"""The API answers as its description says; `make contract` asks for ten minutes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coatcheck.store.home import Home
from tests.admin import contract
from tests.admin.stage import Stage

SECONDS = "15"


@pytest.mark.slow
def test_what_is_sent_at_random_is_answered_as_described(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PER_ADDRESS", "FOR_ALL"):  # put back afterwards
        monkeypatch.setattr(contract.throttle, name, getattr(contract.throttle, name))
    done = contract.run(tmp_path, home, "--max-time", SECONDS, "--seed", "7")

    told = done.stdout[-6000:]
    assert done.returncode == 0, told
    tested = re.search(r"Tested: (\d+)", done.stdout)
    assert tested is not None, told
    assert int(tested[1]) >= 20


def test_every_operation_says_who_may_call_it(stage: Stage) -> None:
    described = stage.call("GET", "/openapi.json", role=None).json()
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }
    without = sorted(name for name, one in operations.items() if "security" not in one)

    assert without == ["GET /healthz", "GET /readyz", "POST /api/v1/session"]
    assert all(one["description"] for one in operations.values())
    assert all("422" not in one["responses"] for one in operations.values())
    problem = described["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert "value_required" in problem
