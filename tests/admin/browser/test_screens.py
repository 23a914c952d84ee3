"""Every page in light, dark and narrow: a picture for people, and no violation for axe-core."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from coatcheck.admin.roles import Actor, Role
from tests.admin.browser.conftest import AXE, IN_BROWSER, Served

pytestmark = IN_BROWSER
OWNER = Actor("the owner", Role.OWNER, "token")

LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1200, "height": 800}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1200, "height": 800}},
    "narrow": {"color_scheme": "light", "viewport": {"width": 360, "height": 720}},
}
PAGES = {
    "secrets": "/secrets",
    "secrets-none-found": "/secrets?q=nothing",
    "secret": "/secrets/show?name=crm.apiKey",
    "secret-new": "/secrets/new",
    "secret-edit": "/secrets/edit?name=crm.apiKey",
    "secret-delete": "/secrets/delete?name=crm.apiKey",
    "activity": "/activity?live=off",
    "activity-nothing": "/activity?client=nobody",
    "policy": "/policy",
    "grants": "/policy/grants",
    "explain": "/policy/explain",
    "check": "/policy/check",
    "clients": "/clients",
    "workers": "/workers",
    "tokens": "/tokens",
    "token-revoke": "/tokens/revoke?id=",
    "not-found": "/secrets/show?name=nobody",
}


async def violations(page: Page) -> list[str]:
    """What axe-core finds wrong with the page."""
    await page.evaluate(AXE)
    found = await page.evaluate(
        "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.map("
        "v => v.id + ': ' + v.nodes.map(n => n.html.slice(0, 150)).join(' | ')))"
    )
    return [str(one) for one in found]


async def is_wider_than_the_screen(page: Page) -> bool:
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    return bool(await page.evaluate(wide))


@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS)
async def test_every_page_can_be_used_by_everybody(
    served: Served, look: str, screenshots: Path
) -> None:
    page = await served.open(**LOOKS[look])
    found = {}
    for name, path in PAGES.items():
        token = served.stage.service.tokens.list(OWNER)[0].id if path.endswith("id=") else ""
        await page.goto(path + token)
        await page.screenshot(path=screenshots / f"{name}-{look}.png", full_page=True)
        found[name] = await violations(page)
        if await is_wider_than_the_screen(page):
            found[name].append("wider than the screen")

    assert {name: wrong for name, wrong in found.items() if wrong} == {}
