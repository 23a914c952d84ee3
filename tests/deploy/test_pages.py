"""Every page on deployment says what it protects from and what not, and every file has a page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs import pages

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "deploy").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_says_what_it_protects_from_and_what_not(page: Path) -> None:
    sections = re.split(r"^## ", pages.prose(page), flags=re.MULTILINE)
    named = {section.partition("\n")[0]: section for section in sections}

    for heading in ("What it protects from", "What it does not protect from"):
        assert len(re.findall(r"^- ", named[heading], flags=re.MULTILINE)) >= 2


def test_every_part_of_deploy_has_a_page_that_names_it() -> None:
    """But for the policy beside compose.yaml, which that file names."""
    text = "".join(page.read_text() for page in PAGES)
    parts = ["compose.yaml", "haproxy/haproxy.cfg", "systemd/coatcheck.service"]
    parts += [f"kubernetes/{kind}" for kind in ("gateway", "sidecar", "clients")]
    parts += [f"nftables/{path.name}" for path in (ROOT / "deploy" / "nftables").iterdir()]

    assert [part for part in parts if f"deploy/{part}" not in text] == []
    assert [part for part in parts if not (ROOT / "deploy" / part).exists()] == []
