"""`--mode`: one is there; of each other one is said which promise it breaks, and nothing starts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mitmproxy.proxy import mode_specs

from coatcheck.settingmodes import REFUSED
from coatcheck.settings import SettingsError, load
from tests.cli.homes import Commands
from tests.engine.test_lane import code_of
from tests.engine.wire import Wire, a_gateway

ROOT = Path(__file__).resolve().parent.parent
HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(501)  # of TLS, as far as it is looked at
PROMISES = re.findall(r"^### (G\d) (\w+)$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("given", [{}, {"mode": "regular"}])
def test_regular_is_the_one_there_is(given: dict[str, str], tmp_path: Path) -> None:
    assert load(home=tmp_path, flags=given, environ={}).home == tmp_path


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("rest", ["", "@8080", ":https://api.example.com"])
def test_another_one_is_refused_with_promise_and_next_step(
    name: str, rest: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(home=tmp_path, flags={"mode": name + rest}, environ={})

    refused = REFUSED[name]
    told = str(caught.value)
    assert told.startswith(f"--mode: mode {name} would break promise {refused.promise}: ")
    assert refused.why in told
    assert refused.instead in told


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_the_promise_is_one_of_security_md(refused: object) -> None:
    promise = getattr(refused, "promise", "")

    assert promise in [f"{number} ({word.lower()})" for number, word in PROMISES]


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        pytest.param("transparant", "did you mean transparent?", id="a slip"),
        pytest.param("regular@8080", "did you mean regular?", id="an address, which is listen's"),
        pytest.param("quantum", "write regular", id="nothing like it"),
    ],
)
def test_a_mode_that_nobody_has_is_a_mistake(given: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(home=tmp_path, flags={"mode": given}, environ={})

    assert "there is no such mode" in str(caught.value)
    assert hint in str(caught.value)


@pytest.mark.parametrize("where", ["file", "variable"])
def test_wherever_it_is_set(where: str, tmp_path: Path) -> None:
    (tmp_path / "coatcheck.yaml").write_text("mode: transparent\n" if where == "file" else "")
    environ = {"COATCHECK_MODE": "transparent"} if where == "variable" else {}

    with pytest.raises(SettingsError, match="would break promise G1"):
        load(home=tmp_path, environ=environ)


def test_every_mode_of_mitmproxy_is_known() -> None:
    found = mode_specs.ProxyMode.__subclasses__()
    names = {cls.type_name for cls in found if hasattr(cls, "type_name")}

    assert "transparent" in names
    assert names - {"regular", "osproxy"} <= REFUSED.keys()


def test_serve_does_not_start_in_another_mode(tmp_path: Path) -> None:
    coatcheck = Commands(tmp_path / "home")
    coatcheck("init")

    done = coatcheck.really("serve", "--mode", "transparent")

    assert (done.code, done.out) == (1, "")
    assert "mode transparent would break promise G1 (destination)" in done.err
    assert "serve.ready" not in done.err
    assert not (coatcheck.root / "run" / "state.json").exists()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(
            HELLO, "", id="TLS that was redirected: no head ever ends, until its time does"
        ),
        pytest.param(
            b"GET /v1/me HTTP/1.1\r\nHost: api.example.com\r\n\r\n",
            "bad_request",
            id="a request that was redirected, or is sent to a server",
        ),
        pytest.param(
            b"GET /v1/me HTTP/1.1\r\nHost: api.example.com\r\n"
            b"Authorization: Bearer {{secrets.key}}\r\n\r\n",
            "bad_request",
            id="with a placeholder",
        ),
    ],
)
def test_what_such_clients_send_gets_no_further(data: bytes, code: str) -> None:
    wire = Wire(a_gateway())

    answer = wire.send(data)

    assert (code_of(answer) if answer else "") == code
    assert wire.upstreams == []


def test_the_page_names_each() -> None:
    section = (ROOT / "docs" / "operations.md").read_text().partition("## Modes")[2]
    rows = re.findall(r"^\| (`.*?) \|", section.partition("\n## ")[0], re.MULTILINE)

    named = {name for row in rows for name in re.findall(r"`([a-z0-9]+)", row)}
    assert named == REFUSED.keys()
