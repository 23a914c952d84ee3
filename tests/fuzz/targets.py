"""All that is fuzzed."""

from __future__ import annotations

from tests.fuzz import body_targets, file_targets, http_targets
from tests.fuzz.case import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (*http_targets.TARGETS, *body_targets.TARGETS, *file_targets.TARGETS)
}
