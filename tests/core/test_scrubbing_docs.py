"""docs/scrubbing.md says what the scrubber does: it is made from the table, and is current."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent.parent


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("x", ROOT / "scripts" / "scrubbing_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current() -> None:
    page = (ROOT / "docs" / "scrubbing.md").read_text(encoding="utf-8")

    assert page == script().page(), "run: .venv/bin/python scripts/scrubbing_docs.py"
