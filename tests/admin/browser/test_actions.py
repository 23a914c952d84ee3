"""What people do on the page, as they do it: by mouse, by keyboard alone, without JavaScript."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect

from tests.admin.browser import world
from tests.admin.browser.conftest import IN_BROWSER, Served
from tests.admin.stage import OTHER_VALUE, VALUE, write_policy
from tests.admin.ui.test_pages import domains, opened

pytestmark = [*IN_BROWSER, pytest.mark.slow]


async def fill_new(page: Page, name: str) -> None:
    await page.goto("/secrets/new")
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Value", exact=True).fill(VALUE)
    await page.get_by_label("Allowed domains").fill("api.example.com")


async def everything(page: Page) -> str:
    """All that a page holds: text, attributes, and what stands in its fields."""
    fields = "[...document.querySelectorAll('input, textarea')].map(f => f.value).join('\\n')"
    return page.url + await page.content() + str(await page.evaluate(fields))


@pytest.mark.parametrize("scripts", [True, False], ids=["", "without JavaScript"])
async def test_a_secret_from_its_making_to_its_end(bare: Served, scripts: bool) -> None:
    page = await bare.open("editor", java_script_enabled=scripts)
    await expect(page.get_by_text("There is no secret yet.")).to_be_visible()
    await fill_new(page, "crm.apiKey")
    await page.get_by_role("button", name="Create").click()
    await expect(page.get_by_role("status")).to_contain_text("Created: crm.apiKey")
    assert VALUE not in page.url + await page.content()
    assert opened(bare.stage) == VALUE.encode()

    await page.get_by_role("link", name="Edit").click()
    await page.get_by_label("Allowed domains").fill("elsewhere.example.net")
    await page.get_by_role("button", name="Save").click()
    problem = page.get_by_label("New value")
    await expect(problem).to_have_attribute("aria-invalid", "true")
    assert domains(bare.stage) == ["api.example.com"]

    await problem.fill(OTHER_VALUE)
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("status")).to_contain_text("Saved: crm.apiKey")
    assert OTHER_VALUE not in page.url + await page.content()
    assert opened(bare.stage) == OTHER_VALUE.encode()
    history = page.get_by_role("table", name="History")
    await expect(history.get_by_role("row")).to_have_count(3)

    await page.get_by_role("link", name="Delete").click()
    await expect(page.get_by_text("No grant names it")).to_be_visible()
    await page.get_by_role("button", name="Delete crm.apiKey").click()
    await expect(page.get_by_role("status").first).to_contain_text("Deleted: crm.apiKey")
    assert bare.stage.store.find("crm.apiKey") is None


async def tab_to(page: Page, name: str) -> None:
    """Press Tab until what is called *name* has the focus; one can see that it has."""
    for _ in range(40):
        await page.keyboard.press("Tab")
        focused = page.locator(":focus")
        label = await focused.evaluate(
            "e => e.labels?.[0]?.textContent || e.getAttribute('aria-label') || e.textContent"
        )
        if name in str(label):
            outline = await focused.evaluate("e => getComputedStyle(e).outlineStyle")
            assert outline == "solid", f"no outline round {name}"
            return
    raise AssertionError(f"no way by Tab to {name}")


async def test_a_secret_is_made_and_deleted_by_keyboard_alone(bare: Served) -> None:
    page = await bare.open("editor")
    await tab_to(page, "Skip to the content")
    await page.keyboard.press("Enter")
    await tab_to(page, "New secret")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/secrets/new")
    await tab_to(page, "Name")
    await page.keyboard.type("crm.apiKey")
    await tab_to(page, "Value")
    await page.keyboard.type(VALUE)
    await tab_to(page, "Allowed domains")
    await page.keyboard.type("api.example.com")
    await tab_to(page, "Create")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/secrets/show?name=crm.apiKey")
    assert opened(bare.stage) == VALUE.encode()

    await tab_to(page, "Delete")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/secrets/delete?*")
    await tab_to(page, "Delete crm.apiKey")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/secrets")
    assert bare.stage.store.find("crm.apiKey") is None


async def test_what_was_typed_or_shown_once_is_not_found_by_going_back(bare: Served) -> None:
    page = await bare.open()
    await fill_new(page, "crm.apiKey")
    await page.get_by_role("link", name="Cancel").click()
    await page.wait_for_url("**/secrets")
    await page.go_back()
    await page.wait_for_url("**/secrets/new")
    assert VALUE not in await everything(page)
    await page.go_forward()

    await fill_new(page, "crm.apiKey")
    await page.get_by_role("button", name="Create").click()
    await page.wait_for_url("**/secrets/show?*")
    await page.go_back()
    await page.wait_for_url("**/secrets/new")
    assert VALUE not in await everything(page)

    await page.goto("/tokens")
    await page.get_by_label("Name").fill("nightly")
    await page.get_by_role("button", name="Make token").click()
    token = str(await page.locator(".once").text_content())
    assert token.startswith("ct_")
    await page.get_by_role("link", name="I have copied it").click()
    await expect(page.get_by_role("table")).to_contain_text("nightly")
    assert token not in await everything(page)
    await page.go_back()
    assert token not in await everything(page)
    # What htmx keeps there is the path of the page, and no copy of it.
    kept = str(await page.evaluate("JSON.stringify([localStorage, sessionStorage])"))
    assert re.fullmatch(r'\[\{\},\{("htmx-current-path-for-history":"/[a-z/]*")?\}\]', kept)


async def test_a_value_is_masked_while_it_is_typed(bare: Served) -> None:
    page = await bare.open("editor")
    await page.goto("/secrets/new")
    value = page.get_by_label("Value", exact=True)
    mask = "e => getComputedStyle(e).webkitTextSecurity"
    assert await value.evaluate(mask) == "disc"
    await page.get_by_label("Show what I type").check()
    assert await value.evaluate(mask) == "none"
    assert await value.get_attribute("autocomplete") == "off"
    assert await value.get_attribute("spellcheck") == "false"


async def test_two_people_edit_one_secret(served: Served) -> None:
    first, second = await served.open("owner"), await served.open("editor")
    for page in (first, second):
        await page.goto("/secrets/edit?name=crm.apiKey")
    await second.get_by_label("Description").fill("of the second")
    await second.get_by_role("button", name="Save").click()
    await second.wait_for_url("**/secrets/show?*")

    await first.get_by_label("Description").fill("of the first")
    await first.get_by_role("button", name="Save").click()
    await expect(first.get_by_role("alert").first).to_contain_text("of the second")
    await expect(first.get_by_label("Description")).to_have_value("of the first")
    await first.get_by_role("button", name="Save").click()
    await expect(first.locator(".description")).to_have_text("of the first")


async def test_who_uses_a_secret_is_named_before_it_is_deleted(served: Served) -> None:
    page = await served.open()
    await page.goto("/secrets/delete?name=crm.apiKey")
    users = page.locator(".users")
    await expect(users).to_contain_text("Line 13 of the policy grants it to runner-a")
    await expect(users).to_contain_text("within 30 days")

    await page.get_by_role("button", name="Delete crm.apiKey").click()
    assert served.stage.store.find("crm.apiKey") is not None  # the box has to be ticked first
    await page.get_by_label("Delete it all the same").check()
    await page.get_by_role("button", name="Delete crm.apiKey").click()
    await page.wait_for_url("**/secrets")
    assert served.stage.store.find("crm.apiKey") is None


async def test_the_list_follows_what_is_typed_and_sorts(served: Served) -> None:
    page = await served.open("viewer")
    await page.get_by_label("Search").press_sequentially("stripe")
    await expect(page.locator("#count")).to_have_text(re.compile("1 secret with .*stripe"))
    await expect(page.locator("#results tbody tr")).to_have_count(1)
    await expect(page.get_by_label("Search")).to_be_focused()
    await page.wait_for_url("**/secrets?q=stripe")

    await page.goto("/secrets")
    await page.get_by_role("link", name="Uses", exact=True).click()
    await expect(page.locator("tbody tr").first).to_contain_text("crm.apiKey")
    await expect(page.get_by_role("columnheader", name="Uses")).to_have_attribute(
        "aria-sort", "descending"
    )
    spark = page.get_by_role("img", name=re.compile("uses? and .* refusals? in 24 hours"))
    await expect(spark).to_have_count(2)


async def test_activity_comes_by_itself_until_it_is_paused(served: Served) -> None:
    page = await served.open("viewer")
    await page.goto("/activity?client=agents")
    await expect(page.get_by_text("Nothing in the log fits")).to_be_visible()
    assert await page.get_by_role("img", name=re.compile("injections")).count() == 1

    world.write_log(served.stage, [world.line(1, client="agents", **world.used("llm.openai"))])
    await expect(page.get_by_role("table")).to_contain_text("llm.openai", timeout=15_000)

    await page.get_by_role("link", name="Pause").click()
    await expect(page.get_by_text("Paused")).to_be_visible()
    assert await page.locator("[hx-trigger]").count() == 0
    await page.get_by_label("Outcome").select_option("refused")
    await page.get_by_label("Client").fill("")
    await page.get_by_role("button", name="Filter").click()
    await expect(page.get_by_role("table")).to_contain_text("secret_unavailable")
    kinds = await page.locator("#lines .badge").all_text_contents()
    assert set(kinds) == {"refused"}


async def test_a_revoked_token_is_shown_the_door_by_the_live_page_too(served: Served) -> None:
    page = await served.open("editor")
    await page.goto("/activity")
    ids = {token.name: token.id for token in served.stage.store.tokens()}
    owner = await served.open("owner")
    await owner.goto(f"/tokens/revoke?id={ids['the editor']}")
    await owner.get_by_role("button", name="Revoke the editor").click()
    await owner.wait_for_url("**/tokens")

    await page.wait_for_url("**/login", timeout=15_000)


async def test_a_request_is_explained_and_the_form_stays(served: Served) -> None:
    page = await served.open("viewer")
    await page.goto("/policy/explain")
    await page.get_by_label("URL").fill("https://api.crm.example.com/v1/contacts")
    await page.get_by_label("Headers").fill("Authorization: Bearer {{secrets.crm.apiKey}}")
    await page.get_by_role("button", name="Explain").click()
    answer = page.locator("#answer")
    await expect(answer).to_contain_text("It would be sent")
    await expect(answer).to_contain_text("allowed by line 13")
    await expect(page.get_by_label("Headers")).to_have_value(re.compile("crm.apiKey"))

    await page.get_by_label("Client").select_option("agents")
    await page.get_by_role("button", name="Explain").click()
    await expect(answer).to_contain_text("secret_unavailable")
    await page.get_by_label("URL").fill("no URL")
    await page.get_by_role("button", name="Explain").click()
    await expect(answer).to_contain_text("This is no request that a client could send.")


async def test_a_mistake_in_the_policy_leads_to_its_line(served: Served) -> None:
    page = await served.open("viewer")
    write_policy(served.stage.home, world.POLICY.replace("max_uses: 4", "max_use: 4"))
    await page.goto("/policy")
    await page.get_by_role("link", name="Line 21, column 5").click()
    await expect(page.locator("#L21.broken")).to_be_in_viewport()
    await expect(page.get_by_role("note")).to_contain_text("'max_use' is not known here")


@pytest.mark.parametrize("role", ["viewer", "editor"])
async def test_what_a_role_may_not_do_is_not_offered_and_refused(served: Served, role: str) -> None:
    page = await served.open(role)
    await page.goto("/secrets/show?name=crm.apiKey")
    offered = [str(text) for text in await page.get_by_role("link").all_text_contents()]
    assert ("Edit" in offered, "Tokens" in offered) == (role == "editor", False)
    for path in ["/tokens"] if role == "editor" else ["/tokens", "/secrets/new"]:
        answer = await page.goto(path)
        assert answer is not None
        assert answer.status == 403
        await expect(page.get_by_text("Your role does not allow this.")).to_be_visible()
