"""Azure Key Vault by itself: the challenge, identities, what the answers come to."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from azure.core import exceptions
from azure.identity import CredentialUnavailableError

from coatcheck.store.sources.azure import Azure, _failure, _scope
from coatcheck.store.sources.port import Failure, SourceError
from tests.store.sources.clouds import ASSERTION, CLIENT, CLIENT_SECRET, TENANT, Microsoft, Tls

WHERE = {"id": "crm"}
VALUE = "sk-live-0123456789"


@pytest.fixture
def azure(tls: Tls) -> Iterator[Microsoft]:
    made = Microsoft(tls.context)
    made.put("crm", VALUE.encode())
    yield made
    made.close()


def adapter(azure: Microsoft, tls: Tls, secret: str = CLIENT_SECRET, **more: str) -> Azure:
    options = {
        "url": azure.url,
        "authority": azure.url,
        "ca": str(tls.ca),
        "tenant": TENANT,
        "client_id": CLIENT,
        "client_secret_env": "A_SECRET",
    }
    return Azure({**options, **more}, 5.0, {"A_SECRET": secret})


def failure(source: Azure, **where: str) -> Failure:
    with pytest.raises(SourceError) as caught:
        source.fetch({**WHERE, **where})
    return caught.value.failure


def answered(source: Azure) -> bytes | Failure:
    try:
        return source.fetch(WHERE).value
    except SourceError as error:
        return error.failure


# --- the challenge --------------------------------------------------------------------------


def test_the_first_question_has_no_token_and_the_next_ones_do(azure: Microsoft, tls: Tls) -> None:
    source = adapter(azure, tls)
    for _ in range(2):
        assert source.fetch(WHERE).value == VALUE.encode()

    asked = azure.asked("/secrets/")
    assert [one.bearer in azure.state.tokens for one in asked] == [False, True, True]
    assert [one.headers.get("authorization") is None for one in asked] == [True, False, False]
    assert {one.query["api-version"][0] for one in asked} == {"7.4"}
    assert len(azure.asked("/oauth2/v2.0/token")) == 1


def test_a_token_that_was_taken_back_is_followed_by_a_new_one(azure: Microsoft, tls: Tls) -> None:
    source = adapter(azure, tls)
    source.fetch(WHERE)

    azure.state.tokens.clear()

    assert source.fetch(WHERE).value == VALUE.encode()
    assert len(azure.asked("/oauth2/v2.0/token")) == 2


VAULT = "https://acme.vault.azure.net"


@pytest.mark.parametrize(
    ("challenge", "url", "expected"),
    [
        pytest.param(
            'Bearer authorization="https://login.windows.net/t", resource="https://vault.azure.net"',
            VAULT,
            "https://vault.azure.net/.default",
            id="resource",
        ),
        pytest.param(
            'Bearer authorization="x", scope="https://vault.azure.net/.default"',
            VAULT,
            "https://vault.azure.net/.default",
            id="scope",
        ),
        pytest.param(
            'Bearer resource="https://vault.internal/"',
            "https://vault.internal:8443",
            "https://vault.internal/.default",
            id="the host itself",
        ),
        pytest.param(
            'Bearer resource="https://management.azure.com"', VAULT, None, id="something else"
        ),
        pytest.param(
            'Bearer resource="https://vault.azure.net"',
            "https://evilvault.azure.net",
            None,
            id="a host that ends like it",
        ),
        pytest.param('Bearer resource="https://net"', VAULT, None, id="a whole domain"),
        pytest.param("Bearer", VAULT, None, id="nothing"),
        pytest.param('Bearer resource=""', VAULT, None, id="an empty one"),
    ],
)
def test_a_token_is_asked_for_the_vaults_own_domain(
    challenge: str, url: str, expected: str | None
) -> None:
    if expected is not None:
        assert _scope(challenge, url) == expected
        return
    with pytest.raises(SourceError) as caught:
        _scope(challenge, url)
    assert caught.value.failure is Failure.ODD


def test_a_vault_that_wants_a_token_for_something_else_gets_none(
    azure: Microsoft, tls: Tls
) -> None:
    azure.resource = "https://management.azure.com"

    assert failure(adapter(azure, tls)) is Failure.ODD
    assert azure.asked("/oauth2/v2.0/token") == []
    assert not any(one.bearer for one in azure.state.asked)


def test_a_token_does_not_follow_a_redirect(azure: Microsoft, tls: Tls) -> None:
    other = Microsoft(tls.context)
    source = adapter(azure, tls)
    source.fetch(WHERE)
    azure.state.mode = f"to {other.url}"
    try:
        assert failure(source) is Failure.ODD
        assert other.state.asked == []
    finally:
        other.close()


def test_no_proxy_of_the_environment_is_used(
    azure: Microsoft, tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert answered(adapter(azure, tls)) == VALUE.encode()


# --- identities -----------------------------------------------------------------------------


def test_a_new_client_secret_is_noticed(azure: Microsoft, tls: Tls, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("an old one")
    source = Azure(
        {
            "url": azure.url,
            "authority": azure.url,
            "ca": str(tls.ca),
            "tenant": TENANT,
            "client_id": CLIENT,
            "client_secret_file": str(file),
        },
        1.0,
        {},
    )
    assert failure(source) is Failure.DENIED

    file.write_text(CLIENT_SECRET)
    assert source.fetch(WHERE).value == VALUE.encode()


def test_a_client_secret_that_is_missing_is_told(azure: Microsoft, tls: Tls) -> None:
    assert failure(adapter(azure, tls, secret="")) is Failure.NO_CREDENTIAL
    assert not any(one.bearer for one in azure.state.asked)


def without_secret(azure: Microsoft, tls: Tls, environ: dict[str, str], **more: str) -> Azure:
    options = {"url": azure.url, "authority": azure.url, "ca": str(tls.ca)}
    return Azure({**options, **more}, 5.0, environ)


def test_workload_identity_shows_the_token_of_its_file(
    azure: Microsoft, tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(ASSERTION)
    environ = {
        "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "token"),
        "AZURE_TENANT_ID": TENANT,
        "AZURE_CLIENT_ID": CLIENT,
        "AZURE_AUTHORITY_HOST": azure.url,
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    assert without_secret(azure, tls, environ).fetch(WHERE).value == VALUE.encode()
    (question,) = azure.asked("/oauth2/v2.0/token")
    assert question.form["client_assertion"] == ASSERTION

    (tmp_path / "token").write_text("another")
    assert failure(without_secret(azure, tls, environ)) is Failure.DENIED


@pytest.mark.parametrize("client", [None, CLIENT], ids=["of the machine", "of its id"])
def test_managed_identity_is_asked_of_the_machine(
    azure: Microsoft, tls: Tls, monkeypatch: pytest.MonkeyPatch, client: str | None
) -> None:
    metadata = Microsoft(None)
    metadata.state.tokens = azure.state.tokens
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", metadata.url)
    more = {} if client is None else {"client_id": client}
    try:
        assert without_secret(azure, tls, {}, **more).fetch(WHERE).value == VALUE.encode()
        question = metadata.asked("/metadata/identity/oauth2/token")[-1]
        assert question.query["resource"] == [azure.resource]
        assert question.query.get("client_id") == (client and [client])
    finally:
        metadata.close()


def test_a_machine_without_an_identity_is_told(
    azure: Microsoft, tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:9")
    found = failure(without_secret(azure, tls, {}))
    assert found in (Failure.NO_CREDENTIAL, Failure.UNREACHABLE)


def test_no_word_of_a_library_gets_out(azure: Microsoft, tls: Tls) -> None:
    source = adapter(azure, tls, secret="wrong-SENTINEL")
    with pytest.raises(SourceError) as caught:
        source.fetch(WHERE)

    assert azure.asked("/oauth2/v2.0/token")[0].form["client_secret"] == "wrong-SENTINEL"
    assert "SENTINEL" not in "".join(traceback.format_exception(caught.value))


# --- answers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "where", "expected"),
    [
        pytest.param("plain", {}, b"plain", id="text"),
        pytest.param('{"a": "one", "b": "two"}', {"field": "b"}, b"two", id="a field"),
        pytest.param('{"a": "one"}', {"field": "c"}, Failure.NO_FIELD, id="no such field"),
        pytest.param('{"a": 1}', {"field": "a"}, Failure.NOT_TEXT, id="no text"),
        pytest.param("no JSON", {"field": "a"}, Failure.NO_FIELD, id="no JSON"),
        pytest.param("newer", {"version": f"{1:032x}"}, VALUE.encode(), id="a version"),
    ],
)
def test_what_a_secret_may_be(
    azure: Microsoft, tls: Tls, content: str, where: dict[str, str], expected: bytes | Failure
) -> None:
    azure.put("crm", content.encode())
    source = adapter(azure, tls)

    if isinstance(expected, bytes):
        assert source.fetch({**WHERE, **where}).value == expected
    else:
        assert failure(source, **where) is expected


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        pytest.param({"id": "forbidden"}, Failure.DENIED, id="may not be read"),
        pytest.param({"id": "nothing"}, Failure.GONE, id="is not there"),
        pytest.param({"version": "9"}, Failure.GONE, id="has no such version"),
        pytest.param({"id": "off"}, Failure.GONE, id="is disabled"),
    ],
)
def test_what_a_refusal_comes_to(
    azure: Microsoft, tls: Tls, where: dict[str, str], expected: Failure
) -> None:
    azure.state.refused.add("forbidden")
    azure.put("off", b"x")
    azure.take_away("off")

    assert failure(adapter(azure, tls), **where) is expected


@pytest.mark.parametrize(
    ("mode", "sick", "expected"),
    [
        ("down", "/secrets/", Failure.NOT_READY),
        ("hangs", "/secrets/", Failure.UNREACHABLE),
        ("breaks off", "/secrets/", Failure.UNREACHABLE),
        ("odd", "/secrets/", Failure.ODD),
        ("down", "/oauth2/", Failure.NOT_READY),
        ("hangs", "/oauth2/", Failure.UNREACHABLE),
        ("breaks off", "/oauth2/", Failure.UNREACHABLE),
    ],
)
def test_what_an_outage_comes_to(
    azure: Microsoft, tls: Tls, mode: str, sick: str, expected: Failure
) -> None:
    azure.state.mode, azure.state.sick = mode, sick
    assert failure(adapter(azure, tls)) is expected


def test_an_outage_of_the_token_endpoint_is_over_when_it_is(azure: Microsoft, tls: Tls) -> None:
    azure.state.mode, azure.state.sick = "down", "/oauth2/"
    source = adapter(azure, tls)
    assert failure(source) is Failure.NOT_READY

    azure.state.mode = "well"

    assert source.fetch(WHERE).value == VALUE.encode()


def test_a_404_that_is_not_the_vaults_takes_nothing_back(azure: Microsoft, tls: Tls) -> None:
    azure.answer = lambda _: (404, "<html>", {})  # type: ignore[method-assign]
    assert failure(adapter(azure, tls)) is Failure.ODD


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (CredentialUnavailableError("SENTINEL"), Failure.NO_CREDENTIAL),
        (exceptions.ClientAuthenticationError("SENTINEL"), Failure.DENIED),
        (exceptions.ServiceRequestError("SENTINEL"), Failure.UNREACHABLE),
        (exceptions.ServiceResponseError("SENTINEL"), Failure.UNREACHABLE),
        (exceptions.HttpResponseError("SENTINEL"), Failure.NOT_READY),
        (requests.exceptions.SSLError("SENTINEL"), Failure.UNREACHABLE),
        (RuntimeError("SENTINEL"), Failure.ODD),
    ],
    ids=lambda one: getattr(one, "name", None) or repr(one)[:60],
)
def test_what_an_error_comes_to(error: Exception, expected: Failure) -> None:
    assert _failure(error) is expected
