"""One call of an SDK, with the placeholder as its key; prints as python_client.py does.

    python sdk_key.py openai|anthropic|stripe|PyGithub BASE_URL PLACEHOLDER

stripe brings a bundle of public roots and reads no variable: a program has to name the other file.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib import metadata

type Results = dict[str, tuple[int, str]]


def use_openai(base: str, key: str) -> Results:
    import openai

    client = openai.OpenAI(base_url=f"{base}/header", api_key=key, max_retries=0)
    answer = client.models.with_raw_response.list()
    answer.parse()
    return {"header": (answer.status_code, answer.text)}


def use_anthropic(base: str, key: str) -> Results:
    import anthropic

    ask = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "hello"}]}
    client = anthropic.Anthropic(base_url=f"{base}/header", api_key=key, max_retries=0)
    answer = client.messages.with_raw_response.create(**ask)
    answer.parse()
    return {"header": (answer.status_code, answer.text())}


def use_stripe(base: str, key: str) -> Results:
    import stripe

    stripe.ca_bundle_path = os.environ["SSL_CERT_FILE"]
    client = stripe.StripeClient(key, base_addresses={"api": base}, max_network_retries=0)
    answer = client.raw_request("get", "/header")
    return {"header": (answer.code, answer.body)}


def use_pygithub(base: str, key: str) -> Results:
    import github

    hub = github.Github(base_url=f"{base}/header", auth=github.Auth.Token(key), retry=None)
    _, data = hub.requester.requestJsonAndCheck("GET", "/user")
    return {"header": (200, json.dumps(data))}


USES: dict[str, Callable[[str, str], Results]] = {
    "openai": use_openai,
    "anthropic": use_anthropic,
    "stripe": use_stripe,
    "PyGithub": use_pygithub,
}

if __name__ == "__main__":
    name, base, key = sys.argv[1:]
    found = USES[name](base, key)
    print(json.dumps({"version": metadata.version(name), "results": found}))
