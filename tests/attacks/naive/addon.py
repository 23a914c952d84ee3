"""A secret-injecting addon as it is usually written: what the attacks are for.

It looks at `pretty_host`, replaces in headers, URL and body, and scrubs with `str.replace`. Each of
these is a hole. It exists so that the suite can be seen to fail; nobody should use it.
"""

from __future__ import annotations

import json
from pathlib import Path

from mitmproxy import ctx, http
from mitmproxy.addonmanager import Loader


class Naive:
    def __init__(self) -> None:
        self.secrets: dict[str, tuple[str, list[str]]] = {}

    def load(self, loader: Loader) -> None:
        loader.add_option("naive_secrets", str, "", "JSON: name to value and domains")

    def configure(self, updated: set[str]) -> None:
        if "naive_secrets" in updated:
            self.secrets = json.loads(Path(ctx.options.naive_secrets).read_text())

    def request(self, flow: http.HTTPFlow) -> None:
        host = flow.request.pretty_host
        for name, (value, domains) in self.secrets.items():
            placeholder = "{{secrets." + name + "}}"
            if not any(host == d or host.endswith(d.lstrip("*")) for d in domains):
                continue
            for key, text in list(flow.request.headers.items()):
                if placeholder in text:
                    flow.request.headers[key] = text.replace(placeholder, value)
            if placeholder in flow.request.url:
                flow.request.url = flow.request.url.replace(placeholder, value)
            if flow.request.content and placeholder.encode() in flow.request.content:
                filled = flow.request.content.replace(placeholder.encode(), value.encode("latin-1"))
                flow.request.content = filled

    def response(self, flow: http.HTTPFlow) -> None:
        if flow.response is None:
            return
        for value, _ in self.secrets.values():
            if flow.response.text and value in flow.response.text:
                flow.response.text = flow.response.text.replace(value, "[REDACTED]")
            for key, text in list(flow.response.headers.items()):
                flow.response.headers[key] = text.replace(value, "[REDACTED]")


addons = [Naive()]
