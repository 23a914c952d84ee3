"""Sends one request for each place with the library named on the command line, and prints a JSON
object: the library's `version`, and `results`: place to [status, body]. Proxy and CA come from the
environment, as `coatcheck run` sets it.

    python_client.py requests|httpx|aiohttp|urllib BASE_URL PLACEHOLDER
"""

from __future__ import annotations

import asyncio
import base64
import json
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from urllib import parse
from urllib import request as urlrequest

type Results = dict[str, tuple[int, str]]


def with_requests(base: str, key: str) -> Results:
    import requests

    with requests.Session() as session:
        answers = {
            "header": session.get(f"{base}/header", headers={"Authorization": f"Bearer {key}"}),
            "basic": session.get(f"{base}/basic", auth=("user", key)),
            "query": session.get(f"{base}/query", params={"b": "1 2", "key": key}),
            "path": session.get(f"{base}/path/{key}/x"),
            "json": session.post(f"{base}/json", json={"key": key}),
            "form": session.post(f"{base}/form", data={"b": "ü", "key": key}),
            "multipart": session.post(f"{base}/multipart", files={"key": (None, key)}),
        }
    return {place: (answer.status_code, answer.text) for place, answer in answers.items()}


def with_httpx(base: str, key: str) -> Results:
    import httpx

    with httpx.Client() as client:
        answers = {
            "header": client.get(f"{base}/header", headers={"Authorization": f"Bearer {key}"}),
            "basic": client.get(f"{base}/basic", auth=("user", key)),
            "query": client.get(f"{base}/query", params={"b": "1 2", "key": key}),
            "path": client.get(f"{base}/path/{key}/x"),
            "json": client.post(f"{base}/json", json={"key": key}),
            "form": client.post(f"{base}/form", data={"b": "ü", "key": key}),
            "multipart": client.post(f"{base}/multipart", files={"key": (None, key)}),
        }
    return {place: (answer.status_code, answer.text) for place, answer in answers.items()}


def with_aiohttp(base: str, key: str) -> Results:
    import aiohttp

    async def run() -> Results:
        form = aiohttp.FormData(default_to_multipart=True)
        form.add_field("key", key)
        async with aiohttp.ClientSession(trust_env=True) as session:
            pending = {
                "header": session.get(f"{base}/header", headers={"Authorization": f"Bearer {key}"}),
                "basic": session.get(f"{base}/basic", auth=aiohttp.BasicAuth("user", key)),
                "query": session.get(f"{base}/query", params={"b": "1 2", "key": key}),
                "path": session.get(f"{base}/path/{key}/x"),
                "json": session.post(f"{base}/json", json={"key": key}),
                "form": session.post(f"{base}/form", data={"b": "ü", "key": key}),
                "multipart": session.post(f"{base}/multipart", data=form),
            }
            results: Results = {}
            for place, request in pending.items():
                async with request as answer:
                    results[place] = (answer.status, await answer.text())
            return results

    return asyncio.run(run())


def with_urllib(base: str, key: str) -> Results:
    token = base64.b64encode(f"user:{key}".encode()).decode()
    json_type = {"Content-Type": "application/json"}
    requests = {
        "header": urlrequest.Request(f"{base}/header", headers={"Authorization": f"Bearer {key}"}),
        "basic": urlrequest.Request(f"{base}/basic", headers={"Authorization": f"Basic {token}"}),
        "query": urlrequest.Request(f"{base}/query?b=1+2&key={key}"),  # goes out as it is
        "path": urlrequest.Request(f"{base}/path/{key}/x"),
        "json": urlrequest.Request(f"{base}/json", json.dumps({"key": key}).encode(), json_type),
        "form": urlrequest.Request(
            f"{base}/form", parse.urlencode({"b": "ü", "key": key}).encode()
        ),
    }
    results: Results = {}
    for place, request in requests.items():
        with urlrequest.urlopen(request) as answer:
            results[place] = (answer.status, answer.read().decode())
    return results


LIBRARIES: dict[str, Callable[[str, str], Results]] = {
    "requests": with_requests,
    "httpx": with_httpx,
    "aiohttp": with_aiohttp,
    "urllib": with_urllib,
}

if __name__ == "__main__":
    name, base, key = sys.argv[1:]
    found = LIBRARIES[name](base, key)
    own = name == "urllib"
    version = platform.python_version() if own else metadata.version(name)
    print(json.dumps({"version": version, "results": found}))
