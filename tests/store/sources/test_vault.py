"""Vault by itself: tokens and their leases, what it answers, how long it is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coatcheck.store.sources.port import Failure, SourceError
from coatcheck.store.sources.vault import Vault as Adapter
from tests.store.sources.vaults import ROLE, SECRET_ID, Vault

WHERE = {"path": "apps/crm", "field": "apiKey"}
ENVIRON = {"ROLE": ROLE, "SECRET_ID": SECRET_ID}
BY_ROLE = {"role_id_env": "ROLE", "secret_id_env": "SECRET_ID"}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def adapter(vault: Vault, clock: Clock, **more: object) -> Adapter:
    vault.put("apps/crm", apiKey="sk-live-0123456789")
    return Adapter({"url": vault.url, **more}, 1.0, ENVIRON, clock)


def failure(source: Adapter, **where: str) -> Failure:
    with pytest.raises(SourceError) as caught:
        source.fetch({**WHERE, **where})
    return caught.value.failure


def test_one_login_serves_until_half_of_its_lease_is_over(vault: Vault, clock: Clock) -> None:
    source = adapter(vault, clock, **BY_ROLE)
    for now in (0, 100, 1799):
        clock.now = now
        source.fetch(WHERE)
    assert (vault.asked("login"), vault.asked("renew-self")) == (1, 0)

    clock.now = 1801
    source.fetch(WHERE)
    assert (vault.asked("login"), vault.asked("renew-self")) == (1, 1)

    clock.now = 1801 + 1799
    source.fetch(WHERE)
    assert (vault.asked("login"), vault.asked("renew-self")) == (1, 1)


def test_a_lease_that_is_over_is_followed_by_a_login(vault: Vault, clock: Clock) -> None:
    source = adapter(vault, clock, **BY_ROLE)
    source.fetch(WHERE)
    for token in vault.state.tokens.values():
        token.until, token.renewable = 0.0, False

    clock.now = 3598
    source.fetch(WHERE)

    assert vault.asked("login") == 2


def test_a_token_that_was_taken_back_is_followed_by_a_login(vault: Vault, clock: Clock) -> None:
    source = adapter(vault, clock, **BY_ROLE)
    source.fetch(WHERE)

    vault.state.tokens.clear()

    assert source.fetch(WHERE).value == b"sk-live-0123456789"
    assert vault.asked("login") == 2


def test_a_role_that_may_not_read_logs_in_once_more_and_no_oftener(
    vault: Vault, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = adapter(vault, clock, **BY_ROLE)
    monkeypatch.setattr(vault, "token", lambda _: "hvs.useless")

    assert failure(source) is Failure.DENIED
    assert vault.asked("login") == 2


def test_a_token_from_outside_is_renewed_too(vault: Vault, clock: Clock) -> None:
    source = adapter(vault, clock, token_env="TOKEN")
    ENVIRON["TOKEN"] = vault.token(ttl=600)
    source.fetch(WHERE)
    clock.now = 301
    source.fetch(WHERE)

    assert (vault.asked("lookup-self"), vault.asked("renew-self")) == (1, 1)


def test_a_root_token_is_never_renewed(vault: Vault, clock: Clock) -> None:
    source = adapter(vault, clock, token_env="TOKEN")
    ENVIRON["TOKEN"] = vault.token(ttl=0, renewable=False)
    for now in (0, 10**6):
        clock.now = now
        source.fetch(WHERE)

    assert vault.asked("renew-self") == 0


def test_a_token_that_an_agent_puts_there_anew_is_used(
    vault: Vault, clock: Clock, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    source = adapter(vault, clock, token_file=str(file))
    file.write_text(vault.token())
    source.fetch(WHERE)

    vault.state.tokens.clear()
    assert failure(source) is Failure.DENIED
    file.write_text(vault.token() + "\n")

    assert source.fetch(WHERE).version == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(None, Failure.NO_CREDENTIAL, id="no file"),
        pytest.param("", Failure.NO_CREDENTIAL, id="an empty one"),
        pytest.param("two\r\nX-Vault-Token: lines", Failure.NO_CREDENTIAL, id="several lines"),
        pytest.param("hvs.unknown", Failure.DENIED, id="an unknown token"),
    ],
)
def test_without_a_credential_nothing_is_had(
    vault: Vault, clock: Clock, tmp_path: Path, content: str | None, expected: Failure
) -> None:
    if content is not None:
        (tmp_path / "token").write_text(content)

    assert failure(adapter(vault, clock, token_file=str(tmp_path / "token"))) is expected


def test_a_wrong_secret_id_is_denied(vault: Vault, clock: Clock) -> None:
    source = adapter(vault, clock, role_id_env="ROLE", secret_id_env="ROLE")

    assert failure(source) is Failure.DENIED


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(lambda v: setattr(v.state, "mode", "sealed"), Failure.NOT_READY, id="sealed"),
        pytest.param(lambda v: setattr(v.state, "mode", "odd"), Failure.ODD, id="another API"),
        pytest.param(
            lambda v: setattr(v.state, "mode", "breaks off"), Failure.UNREACHABLE, id="broken off"
        ),
        pytest.param(lambda v: v.put("apps/crm", other="x"), Failure.NO_FIELD, id="no such field"),
        pytest.param(lambda v: v.put("apps/crm", apiKey=17), Failure.NOT_TEXT, id="a number"),
        pytest.param(lambda v: v.delete("apps/crm"), Failure.GONE, id="deleted"),
        pytest.param(lambda v: v.state.kv.clear(), Failure.GONE, id="never there"),
    ],
)
def test_what_goes_wrong_has_a_name(
    vault: Vault, clock: Clock, change: Callable[[Vault], None], expected: Failure
) -> None:
    source = adapter(vault, clock, **BY_ROLE)
    source.fetch(WHERE)

    change(vault)

    assert failure(source) is expected


def test_where_nobody_listens_nothing_is_had(vault: Vault, clock: Clock) -> None:
    vault.close()

    assert failure(adapter(vault, clock, **BY_ROLE)) is Failure.UNREACHABLE


def test_one_that_hangs_is_given_up(vault: Vault, clock: Clock) -> None:
    source = adapter(vault, clock, **BY_ROLE)
    source.fetch(WHERE)
    vault.state.mode = "hangs"

    begun = time.monotonic()
    assert failure(source) is Failure.UNREACHABLE
    assert time.monotonic() - begun < 5  # the time-out is one second


def test_a_namespace_is_asked_for(vault: Vault, clock: Clock) -> None:
    vault.state.namespace = "team-a"

    assert failure(adapter(vault, clock, **BY_ROLE)) is Failure.GONE
    assert adapter(vault, clock, namespace="team-a", **BY_ROLE).fetch(WHERE).version == 2


def test_a_token_does_not_follow_a_redirect(
    vault: Vault, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no proxy of the environment is asked, no .netrc read."""
    other = Vault()
    source = adapter(vault, clock, **BY_ROLE)
    source.fetch(WHERE)
    monkeypatch.setenv("HTTP_PROXY", other.url)
    monkeypatch.setattr(vault.state, "mode", f"to {other.url}")
    try:
        assert failure(source) is Failure.ODD
        assert other.state.asked == []
    finally:
        other.close()


def test_the_version_is_that_of_vault(vault: Vault, clock: Clock) -> None:
    source = adapter(vault, clock, **BY_ROLE)
    vault.put("apps/crm", apiKey="sk-live-9876543210")

    assert source.fetch(WHERE).version == 2
