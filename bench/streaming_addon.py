"""For `mitmdump -s`: bodies are handed on as they come, as mitmproxy does where it is told to."""

from __future__ import annotations

from mitmproxy import http


def requestheaders(flow: http.HTTPFlow) -> None:
    flow.request.stream = True


def responseheaders(flow: http.HTTPFlow) -> None:
    if flow.response is not None:
        flow.response.stream = True
