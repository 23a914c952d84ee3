"""Texts that want to be more than text, in every place that shows one. No script of theirs runs.

`Served` fails each test whose browser complained: of what the CSP has stopped, too. So nothing may
even have tried.
"""

from __future__ import annotations

from urllib.parse import quote

import pytest

from coatcheck.store.home import token_hash
from tests.admin.browser import world
from tests.admin.browser.conftest import IN_BROWSER, Served
from tests.admin.stage import write_policy
from tests.long import LONG
from tests.store.stores import NOW

pytestmark = [*IN_BROWSER, pytest.mark.slow]

CORPUS = [
    "<script>window.hit=1</script>",
    "<img src=x onerror=window.hit=1>",
    '"><svg onload=window.hit=1>',
    "' autofocus onfocus=window.hit=1 x='",
    "</textarea><script>window.hit=1</script>",
    "</title><script>window.hit=1</script>",
    "javascript:window.hit=1",
    "{{7*7}}{% print(1) %}",
    "</style><script>window.hit=1</script>",
    '<div hx-get="/secrets" hx-trigger="load" hx-on::load="window.hit=1">',
    '<a href="javascript:window.hit=1">x</a>',
    "<iframe srcdoc='<script>parent.hit=1</script>'></iframe>",
    "--><script>window.hit=1</script><!--",
    "${window.hit=1}`-alert(1)-`",
    "\u202e<script>window.hit=1</script>\u2066",
    "＜script＞window.hit=1＜/script＞",
]
PAGES = ["/secrets", "/activity?live=off", "/policy", "/policy/grants", "/clients", "/workers"]
FOREIGN = "body script, iframe, style, [onerror], [onload], [onfocus], [style]"
OF_ONE = ["/secrets/show", "/secrets/edit", "/secrets/delete"]


def plant(served: Served) -> None:
    """The corpus in every field that anybody can fill."""
    stage = served.stage
    lines = []
    for number, text in enumerate(CORPUS):
        stage.make(f"{text} {number}", description=text)
        stage.store.add_token(
            token_hash(f"ct_{number}"), role="viewer", now=NOW, name=text, created_by=text
        )
        everywhere = dict.fromkeys(
            ("client", "address", "host", "method", "path", "code", "operator", "scheme"), text
        )
        lines += [
            world.line(number, **{**everywhere, **world.used(text, text), "port": text}),
            world.line(number, **everywhere | world.refused(text, text, location=text)),
            world.line(number, **everywhere | world.scrubbed(text, text)),
            world.line(number, event="admin", action=text, by=text, new_name=text, domains=text),
        ]
    world.write_log(stage, lines)
    quoted = "\n".join(f"# {text}" for text in CORPUS)
    write_policy(stage.home, f"{world.POLICY}\n{quoted}\n'{CORPUS[0]}': 1\n")
    world.proxy(stage, error="\n".join(CORPUS))


async def test_no_text_is_taken_for_a_script(served: Served) -> None:
    served.stage.service.policy.look()
    plant(served)
    page = await served.open()
    names = [f"{text} {number}" for number, text in enumerate(CORPUS)]
    for path in [*PAGES, "/tokens"]:
        await page.goto(path)
        shown = await page.locator("main").inner_text()
        assert "window.hit" in shown or path in ("/policy/grants", "/clients"), path
        assert await page.evaluate("window.hit") is None, path
        assert await page.locator(FOREIGN).count() == 0, path
    for number, name in enumerate(names):
        await page.goto(f"{OF_ONE[number % len(OF_ONE)]}?name={quote(name, safe='')}")
        assert await page.locator("h1").inner_text() != "There is no such secret", name
        assert await page.evaluate("window.hit") is None, name
        assert await page.locator(FOREIGN).count() == 0, name


ADDRESSES = [
    "/secrets?q={0}",
    "/secrets?sort={0}",
    "/activity?client={0}&secret={0}&host={0}&live=off",
    "/activity?since={0}&until={0}&live=off",
    "/activity?code={0}&decision={0}&event={0}&live={0}",
    "/policy/grants?client=&secret={0}",
    "/secrets/show?name={0}",
    "/tokens/revoke?id={0}",
    "/{0}",
]


async def test_nothing_in_an_address_is_taken_for_a_script(served: Served) -> None:
    page = await served.open()
    for address in ADDRESSES:
        for text in CORPUS[:5] if LONG else CORPUS[:2]:
            await page.goto(address.format(quote(text, safe="")))
            assert await page.evaluate("window.hit") is None, address
            assert await page.locator(FOREIGN).count() == 0, address
