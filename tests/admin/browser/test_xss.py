"""Texts that want to be more than text, in every place that shows one. No script of theirs runs.

`Served` fails each test whose browser complained: of what the CSP has stopped, too. So nothing may
even have tried.
"""

from __future__ import annotations

import pytest

from coatcheck.store.home import token_hash
from tests.admin.browser import world
from tests.admin.browser.conftest import IN_BROWSER, Served
from tests.admin.stage import write_policy
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
        assert await page.locator("main script, main iframe, main [onerror]").count() == 0, path
    for number, name in enumerate(names):
        await page.goto("/secrets")
        await page.evaluate(
            "([path, name]) => { location.href = path + '?name=' + encodeURIComponent(name) }",
            [OF_ONE[number % len(OF_ONE)], name],
        )
        await page.wait_for_url("**/secrets/*?name=*")
        assert await page.evaluate("window.hit") is None, name
        assert await page.locator("main script, main iframe, main [onerror]").count() == 0, name
        assert "7*7" in await page.content() or "49" not in await page.locator("h1").inner_text()


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/secrets?q={}", id="search"),
        pytest.param("/secrets?sort={}", id="sort"),
        pytest.param("/activity?client={0}&secret={0}&host={0}&since={0}&until={0}", id="filters"),
        pytest.param("/activity?code={0}&decision={0}&event={0}&live={0}", id="choices"),
        pytest.param("/policy/grants?client=&secret={}", id="grants"),
        pytest.param("/secrets/show?name={}", id="no such secret"),
        pytest.param("/{}", id="no such page"),
    ],
)
async def test_nothing_in_an_address_is_taken_for_a_script(served: Served, path: str) -> None:
    page = await served.open("viewer")
    for text in CORPUS[:6]:
        await page.evaluate(
            "([path, text]) => { location.href = path.replaceAll(/\\{0?\\}/g,"
            " encodeURIComponent(text).slice(0, 80)) }",
            [path, text],
        )
        await page.wait_for_load_state()
        assert await page.evaluate("window.hit") is None
        assert await page.locator("main script, main iframe, main [onerror]").count() == 0
