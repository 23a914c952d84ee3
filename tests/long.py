"""What only `make long` runs: variants that take long, where `make test` has a smaller case."""

from __future__ import annotations

import os

import pytest

LONG = os.environ.get("COATCHECK_LONG") == "1"
only_in_long = pytest.mark.skipif(not LONG, reason="make long runs it")


def leave_to_long() -> None:
    """Ends the test here, but in `make long`."""
    if not LONG:
        pytest.skip("make long runs it")
