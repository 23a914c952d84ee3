"""How the parts are wired: what each is told of the settings, and of the others."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from coatcheck import app
from coatcheck.core.ports import CoatcheckError
from coatcheck.core.problems import Code, Refused
from coatcheck.settings import load
from coatcheck.store.home import create_home
from tests.engine.wire import POLICY


async def test_a_proxy_is_not_its_own_upstream_proxy(tmp_path: Path) -> None:
    def tunnels(port: int) -> object:
        url = {"COATCHECK_UPSTREAM_PROXY": f"http://127.0.0.1:{port}"}
        return app._tunnels(load(home=tmp_path, environ=url))

    with pytest.raises(CoatcheckError, match="this proxy itself"):
        tunnels(8080)
    assert tunnels(3128) is not None


@pytest.fixture
def home(tmp_path: Path) -> Path:
    create_home(tmp_path / "home", now=time.time())
    return tmp_path / "home"


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What the log is told."""
    told: dict[str, object] = {}
    monkeypatch.setattr(app.logs, "configure", lambda _, **options: told.update(options))
    return told


@pytest.mark.parametrize(
    ("port", "comes"),
    [
        pytest.param(18080, Code.ADDRESS_NOT_ALLOWED, id="where it listens"),
        pytest.param(8081, Code.ADDRESS_NOT_ALLOWED, id="the admin port"),
        pytest.param(8082, ["127.0.0.1"], id="another port"),
    ],
)
async def test_where_loopback_may_be_reached_its_own_ports_may_not(
    home: Path, configured: dict[str, object], port: int, comes: Code | list[str]
) -> None:
    (home / "policy.yaml").write_text(POLICY + 'egress: {networks: ["127.0.0.0/8"]}\n')
    settings = load(home=home, config=None, flags={}, environ={})
    worker = app._worker(settings, 1, lambda _: None)
    await worker.refresh()
    resolver = app._resolver(settings, worker)
    worker.addresses = [("127.0.0.1", 18080)]  # it is told only when it listens
    found: Code | list[str]
    try:
        found = await resolver.resolve("127.0.0.1", port, allowed=worker.networks())
    except Refused as refused:
        found = refused.problem.code
    resolver.close()
    worker.close()

    assert found == comes


def test_a_field_of_the_log_is_as_long_as_the_limit(
    home: Path, configured: dict[str, object]
) -> None:
    variables = {"COATCHECK_LIMITS_LOG_FIELD_CHARS": "99"}
    settings = load(home=home, config=None, flags={}, environ=variables)

    app._worker(settings, 1, lambda _: None).close()

    assert configured == {"field_chars": 99, "worker": None}


@pytest.mark.parametrize(
    ("workers", "number", "file", "shown"),
    [
        pytest.param("1", 1, "audit.jsonl", None, id="alone: as if there were no workers"),
        pytest.param("3", 1, "audit.jsonl", 1, id="the first of several"),
        pytest.param("3", 2, "audit-2.jsonl", 2, id="another of several"),
    ],
)
def test_each_worker_has_an_audit_file_and_its_number_in_the_log(
    home: Path,
    configured: dict[str, object],
    workers: str,
    number: int,
    file: str,
    shown: int | None,
) -> None:
    settings = load(home=home, config=None, flags={"workers": workers}, environ={})

    app._worker(settings, number, lambda _: None).close()

    assert [path.name for path in (home / "audit").iterdir()] == [file]
    assert configured["worker"] == shown
