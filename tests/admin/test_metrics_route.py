"""`/metrics`: for viewers, and from this machine for everybody."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.admin.stage import Stage, problem


def scrape(stage: Stage, address: str, **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(stage.app, client=(address, 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081") as one:
            return await one.get("/metrics", headers=headers)

    return asyncio.run(ask())


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"])
def test_from_this_machine_nobody_is_asked_who_it_is(stage: Stage, address: str) -> None:
    answer = scrape(stage, address)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert answer.headers["cache-control"] == "no-store"
    assert "coatcheck_build_info" in answer.text


@pytest.mark.parametrize("address", ["10.1.2.3", "192.0.2.7", "2001:db8::1", "", "localhost"])
def test_from_elsewhere_it_takes_a_viewer(stage: Stage, address: str) -> None:
    problem(scrape(stage, address), 401, "unauthenticated")

    token = stage.tokens["viewer"]
    assert scrape(stage, address, authorization=f"Bearer {token}").status_code == 200


@pytest.mark.parametrize("name", ["forwarded", "x-forwarded-for", "x-real-ip", "via"])
def test_a_proxy_on_this_machine_asks_for_somebody_else(stage: Stage, name: str) -> None:
    problem(scrape(stage, "127.0.0.1", **{name: "203.0.113.9"}), 401, "unauthenticated")


def test_a_wrong_credential_is_wrong_from_this_machine_too(stage: Stage) -> None:
    problem(scrape(stage, "127.0.0.1", authorization="Bearer wrong"), 401, "unauthenticated")


@pytest.mark.parametrize("path", ["/api/v1/secrets", "/api/v1/audit", "/metrics/", "/metrics/x"])
def test_nothing_else_is_open_from_this_machine(stage: Stage, path: str) -> None:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(stage.app, client=("127.0.0.1", 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081") as one:
            return await one.get(path)

    assert asyncio.run(ask()).status_code == 401
