"""Every page in light, dark and narrow: a picture for people, and no violation for axe-core."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from playwright.async_api import Page

from coatcheck.admin.roles import Actor, Role
from tests.admin.browser import world
from tests.admin.browser.conftest import AXE, IN_BROWSER, Served
from tests.admin.stage import write_policy

pytestmark = [*IN_BROWSER, pytest.mark.slow]

WIDE, NARROW = {"width": 1200, "height": 800}, {"width": 360, "height": 720}
PAGES = {
    "secrets": "/secrets",
    "secrets-none-found": "/secrets?q=nothing",
    "secret": "/secrets/show?name=crm.apiKey",
    "secret-new": "/secrets/new",
    "secret-edit": "/secrets/edit?name=crm.apiKey",
    "secret-delete": "/secrets/delete?name=crm.apiKey",
    "activity": "/activity?live=off&secret=stripe.live",
    "activity-nothing": "/activity?client=nobody",
    "policy": "/policy",
    "grants": "/policy/grants",
    "clients": "/clients",
    "workers": "/workers",
    "tokens": "/tokens",
    "not-found": "/secrets/show?name=nobody",
}


async def violations(page: Page, rules: str = "") -> list[str]:
    """What axe-core finds wrong with the page. *rules*: only these."""
    if not await page.evaluate("typeof axe === 'object'"):
        await page.evaluate(AXE)
    only = f", runOnly: ['{rules}']" if rules else ""
    found = await page.evaluate(
        f"axe.run(document, {{resultTypes: ['violations']{only}}}).then(r => r.violations.map("
        "v => v.id + ': ' + v.nodes.map(n => n.html.slice(0, 150)).join(' | ')))"
    )
    return [str(one) for one in found]


async def wrong_with(page: Page, name: str, folder: Path) -> list[str]:
    """Looks at the page in all its looks, and keeps a picture of each."""
    await page.set_viewport_size(WIDE)
    await page.emulate_media(color_scheme="light")
    await page.screenshot(path=folder / f"{name}-light.png", full_page=True)
    found = await violations(page)
    await page.emulate_media(color_scheme="dark")
    await page.screenshot(path=folder / f"{name}-dark.png", full_page=True)
    found += [f"dark: {one}" for one in await violations(page, "color-contrast")]
    await page.set_viewport_size(NARROW)
    await page.emulate_media(color_scheme="light")
    await page.screenshot(path=folder / f"{name}-narrow.png", full_page=True)
    found += [f"narrow: {one}" for one in await violations(page)]
    width = await page.evaluate("document.documentElement.scrollWidth")
    return found if width <= NARROW["width"] else [*found, f"narrow: it is {width} wide"]


async def test_every_page_can_be_used_by_everybody(served: Served, screenshots: Path) -> None:
    page = await served.open()
    found = {}
    for name, path in PAGES.items():
        await page.goto(path)
        found[name] = await wrong_with(page, name, screenshots)

    assert {name: wrong for name, wrong in found.items() if wrong} == {}


async def after_a_wrong_form(page: Page, _: Served) -> None:
    await page.goto("/secrets/new")
    await page.get_by_label("Name").fill("crm.apiKey")
    await page.get_by_label("Value", exact=True).fill("long enough to be one")
    await page.get_by_role("button", name="Create").click()
    await page.get_by_role("alert").first.wait_for()


async def after_a_question(page: Page, _: Served) -> None:
    await page.goto("/policy/explain")
    await page.get_by_label("URL").fill("https://elsewhere.example/v1/x?key={{secrets.crm.apiKey}}")
    await page.get_by_role("button", name="Explain").click()
    await page.locator("#answer table").wait_for()


async def after_a_draft(page: Page, _: Served) -> None:
    await page.goto("/policy/check")
    await page.get_by_label("Text of the draft").fill("version: 1\nclients: {a: {tokn: x}}\n")
    await page.get_by_role("button", name="Check").click()
    await page.locator("#verdict .note").wait_for()


async def before_a_revocation(page: Page, served: Served) -> None:
    owner = Actor("the owner", Role.OWNER, "token")
    await page.goto(f"/tokens/revoke?id={served.stage.service.tokens.list(owner)[0].id}")


async def a_new_token(page: Page, _: Served) -> None:
    await page.goto("/tokens")
    await page.get_by_label("Name").fill("nightly export")
    await page.get_by_role("button", name="Make token").click()
    await page.locator(".once").wait_for()
    # A picture is kept and handed on.
    await page.locator(".once").evaluate("shown => { shown.textContent = 'ct_…' }")


async def a_broken_policy(page: Page, served: Served) -> None:
    served.stage.service.policy.look()
    write_policy(served.stage.home, world.POLICY.replace("max_uses: 4", "max_use: 4"))
    await page.goto("/policy")


async def logged_out(page: Page, _: Served) -> None:
    await page.get_by_role("button", name="Log out").click()
    await page.wait_for_url("**/login")


STATES: dict[str, Callable[[Page, Served], Awaitable[None]]] = {
    "secret-new-wrong": after_a_wrong_form,
    "explain-answer": after_a_question,
    "check-answer": after_a_draft,
    "token-revoke": before_a_revocation,
    "token-made": a_new_token,
    "policy-broken": a_broken_policy,
    "log-in": logged_out,
}


async def test_what_a_page_says_can_be_used_by_everybody(served: Served, screenshots: Path) -> None:
    page = await served.open()
    found = {}
    for name, reach in STATES.items():
        await reach(page, served)
        found[name] = await wrong_with(page, name, screenshots)

    assert {name: wrong for name, wrong in found.items() if wrong} == {}


async def test_with_nothing_there_each_page_says_what_to_do(
    bare: Served, screenshots: Path
) -> None:
    page = await bare.open()
    found = {}
    for path in ("/secrets", "/workers", "/policy/grants", "/policy/explain"):
        await page.goto(path)
        name = "empty" + path.replace("/", "-")
        found[name] = await wrong_with(page, name, screenshots)

    assert {name: wrong for name, wrong in found.items() if wrong} == {}
