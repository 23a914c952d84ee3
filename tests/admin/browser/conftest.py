"""A browser, one for all tests of a process, and a served stage for each test.

Playwright's blocking interface is not used: it leaves an event loop behind in the thread of the
tests, and then no asynchronous test of another file can run.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from coatcheck.store.home import Home
from tests.admin.browser import world
from tests.admin.stage import Stage, staged
from tests.chromium import PROGRAM as CHROMIUM

SCREENSHOTS = Path(__file__).parents[3] / "build" / "screenshots"
AXE = (Path(__file__).parent / "vendor" / "axe-4.14.1.min.js").read_text("utf-8")


# Of each module of tests here: one loop, the browser's, and no test without a browser.
IN_BROWSER = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300),  # a browser on a busy machine
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="Chromium is not installed (Debian: apt-get install chromium-headless-shell)",
    ),
]


@dataclass
class Served:
    """A stage at an address, and a browser that has found nothing there yet."""

    stage: Stage
    url: str
    browser: Browser
    contexts: list[BrowserContext] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    async def open(self, role: str | None = "owner", **options: Any) -> Page:
        """A page of a new browser profile, logged in where a *role* is given."""
        context = await self.browser.new_context(base_url=self.url, **options)
        context.set_default_timeout(15_000)
        self.contexts.append(context)
        page = await context.new_page()
        self._listen(page)
        if role is not None:
            await self.log_in(page, self.stage.tokens[role])
        return page

    async def log_in(self, page: Page, token: str) -> None:
        await page.goto("/login")
        await page.get_by_label("Token").fill(token)
        await page.get_by_role("button", name="Log in").click()
        await page.wait_for_url("**/secrets")

    def _listen(self, page: Page) -> None:
        """What a browser complains of: scripts that failed, what the CSP has stopped."""

        def heard(message: Any) -> None:
            text = message.text
            failed = message.type == "error" and "the server responded with a status" not in text
            if failed or "Content Security Policy" in text:
                self.complaints.append(f"{page.url}: {text}")

        page.on("console", heard)
        page.on("pageerror", lambda error: self.complaints.append(f"{page.url}: {error}"))
        page.on("dialog", lambda dialog: self.complaints.append(f"{page.url}: a dialog"))


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        made = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            # Nobody looks: it need not play a graphics card. Root has no sandbox for a renderer.
            args=["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])],
        )
        yield made
        await made.close()


@pytest_asyncio.fixture(loop_scope="session")
async def bare(home: Home, browser: Browser) -> AsyncIterator[Served]:
    """Nothing but what `coatcheck init` has made. No browser may have complained at the end."""
    with staged(home) as stage, serving(stage) as url:
        served = Served(stage, url, browser)
        try:
            yield served
        finally:
            for context in served.contexts:
                await context.close()
        assert served.complaints == []


@pytest_asyncio.fixture(loop_scope="session")
async def served(bare: Served) -> Served:
    """With all of `world`."""
    world.fill(bare.stage)
    return bare


class serving:  # noqa: N801 used as a function
    """Serves *stage* in a thread of its own while the block runs."""

    def __init__(self, stage: Stage) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(stage.app, log_config=None, lifespan="off", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))

    def __enter__(self) -> str:
        self._thread.start()
        ends = time.monotonic() + 10
        while not self._server.started and time.monotonic() < ends:
            time.sleep(0.01)
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(10)
        self._socket.close()


@pytest.fixture(scope="session", autouse=True)
def screenshots() -> Path:
    """Where pictures of the pages are kept, for people to look at."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return SCREENSHOTS
