"""As python_client.py, with Chromium: what a page's `fetch` sends, and addresses that are opened.

    python chromium_client.py BASE_URL PLACEHOLDER

Chromium reads no proxy variable for a password, and trusts what NSS does: Playwright hands over the
proxy, certutil puts the CA into a store of this run's own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Page, sync_playwright

FETCH = """async ([base, key]) => {
  const form = new FormData();
  form.set("key", key);
  const post = (body, headers = {}) => ({ method: "POST", body, headers });
  const requests = {
    header: ["header", { headers: { Authorization: `Bearer ${key}` } }],
    basic: ["basic", { headers: { Authorization: `Basic ${btoa(`user:${key}`)}` } }],
    json: ["json", post(JSON.stringify({ key }), { "Content-Type": "application/json" })],
    form: ["form", post(new URLSearchParams({ b: "ü", key }))],
    multipart: ["multipart", post(form)],
  };
  const results = {};
  for (const [place, [path, options]] of Object.entries(requests)) {
    const answer = await fetch(`${base}/${path}`, options);
    results[place] = [answer.status, await answer.text()];
  }
  return results;
}"""


def trust(home: Path) -> None:
    store = home / ".pki" / "nssdb"
    store.mkdir(parents=True)
    certutil = ["certutil", "-d", f"sql:{store}"]
    subprocess.run([*certutil, "-N", "--empty-password"], check=True)
    add = [*certutil, "-A", "-n", "coatcheck", "-t", "C,,", "-i", os.environ["NODE_EXTRA_CA_CERTS"]]
    subprocess.run(add, check=True)


def visit(page: Page, url: str) -> tuple[int, str]:
    answer = page.goto(url)
    assert answer is not None
    return answer.status, answer.text()


def main(base: str, key: str) -> None:
    proxy = urlsplit(os.environ["HTTPS_PROXY"])
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        trust(Path(folder))
        browser = playwright.chromium.launch(
            executable_path=os.environ["CHROMIUM"],
            env={**os.environ, "HOME": folder},
            proxy={
                "server": f"http://{proxy.hostname}:{proxy.port}",
                "username": proxy.username or "",
                "password": proxy.password or "",
            },
        )
        page = browser.new_page()
        visit(page, f"{base}/first")
        results = page.evaluate(FETCH, [base, key])
        # Anew for each: the address of the last page goes along as Referer.
        results["query"] = visit(browser.new_page(), f"{base}/query?b=1+2&key={key}")
        results["path"] = visit(browser.new_page(), f"{base}/path/{key}/x")
        version = browser.version
        browser.close()
    print(json.dumps({"version": version, "results": results}))


if __name__ == "__main__":
    main(*sys.argv[1:])
