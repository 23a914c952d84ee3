"""Google Secret Manager by itself: credentials, what is asked, what the answers come to."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from google.auth import exceptions

from coatcheck.store.sources.gcp import Gcp, _failure, crc32c
from coatcheck.store.sources.port import Failure, SourceError
from tests.store.sources.clouds import ASSERTION, PROJECT, Google, Tls
from tests.store.sources.crc import reference_crc32c

WHERE = {"id": "crm"}
VALUE = b"sk-live-0123456789"


@pytest.fixture
def google(tls: Tls) -> Iterator[Google]:
    made = Google(tls.context)
    made.put("crm", VALUE)
    yield made
    made.close()


def adapter(google: Google, tls: Tls, folder: Path, **more: str) -> Gcp:
    account = folder / "account.json"
    if not account.exists():
        account.write_text(google.service_account())
    options = {"project": PROJECT, "endpoint": google.url, "ca": str(tls.ca), **more}
    return Gcp({"credentials_file": str(account), **options}, 5.0, {})


def failure(source: Gcp, **where: str) -> Failure:
    with pytest.raises(SourceError) as caught:
        source.fetch({**WHERE, **where})
    return caught.value.failure


def answered(source: Gcp) -> bytes | Failure:
    try:
        return source.fetch(WHERE).value
    except SourceError as error:
        return error.failure


# --- what is asked --------------------------------------------------------------------------


def test_it_asks_for_the_latest_version_with_a_token(
    google: Google, tls: Tls, tmp_path: Path
) -> None:
    google.put("crm", b"newer")
    fetched = adapter(google, tls, tmp_path).fetch(WHERE)

    assert (fetched.value, fetched.version) == (b"newer", 2)
    (question,) = google.asked(":access")
    assert question.path == f"/v1/projects/{PROJECT}/secrets/crm/versions/latest:access"
    assert question.bearer in google.state.tokens


def test_a_version_that_is_named_is_asked_for(google: Google, tls: Tls, tmp_path: Path) -> None:
    google.put("crm", b"newer")
    assert adapter(google, tls, tmp_path).fetch({**WHERE, "version": "1"}).value == VALUE


def test_a_regional_secret_lies_at_its_location(tls: Tls) -> None:
    source = Gcp({"project": "p", "location": "europe-west3"}, 5.0, {})
    assert source._url({"id": "a/../b"}) == (
        "https://secretmanager.europe-west3.rep.googleapis.com"
        "/v1/projects/p/locations/europe-west3/secrets/a%2F..%2Fb/versions/latest:access"
    )


def test_a_token_serves_for_many_questions(google: Google, tls: Tls, tmp_path: Path) -> None:
    source = adapter(google, tls, tmp_path)
    for _ in range(3):
        source.fetch(WHERE)
    assert (len(google.asked("/token")), len(google.asked(":access"))) == (1, 3)


def test_a_token_that_was_taken_back_is_followed_by_a_new_one(
    google: Google, tls: Tls, tmp_path: Path
) -> None:
    source = adapter(google, tls, tmp_path)
    source.fetch(WHERE)

    google.state.tokens.clear()

    assert source.fetch(WHERE).value == VALUE
    assert len(google.asked("/token")) == 2


def test_it_asks_no_oftener_than_twice(
    google: Google, tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(google, "token", lambda: "useless")
    assert failure(adapter(google, tls, tmp_path)) is Failure.DENIED
    assert len(google.asked(":access")) == 2


def test_a_token_does_not_follow_a_redirect(google: Google, tls: Tls, tmp_path: Path) -> None:
    other = Google(tls.context)
    google.state.mode, google.state.sick = f"to {other.url}", ":access"
    try:
        assert failure(adapter(google, tls, tmp_path)) is Failure.ODD
        assert other.state.asked == []
    finally:
        other.close()


def test_no_proxy_of_the_environment_is_used(
    google: Google, tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert answered(adapter(google, tls, tmp_path)) == VALUE


def test_a_server_that_cannot_prove_its_name_gets_no_token(
    google: Google, tls: Tls, tmp_path: Path
) -> None:
    (tmp_path / "account.json").write_text(google.service_account())
    options = {"project": PROJECT, "endpoint": google.url}
    source = Gcp({**options, "credentials_file": str(tmp_path / "account.json")}, 5.0, {})

    assert failure(source) is Failure.UNREACHABLE
    assert google.state.asked == []


# --- credentials ----------------------------------------------------------------------------


def test_the_file_of_the_environment_is_used(google: Google, tls: Tls, tmp_path: Path) -> None:
    (tmp_path / "account.json").write_text(google.service_account())
    options = {"project": PROJECT, "endpoint": google.url, "ca": str(tls.ca)}
    environ = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "account.json")}

    assert Gcp(options, 1.0, environ).fetch(WHERE).value == VALUE


def test_the_file_that_gcloud_left_is_used(google: Google, tls: Tls, tmp_path: Path) -> None:
    file = tmp_path / "application_default_credentials.json"
    file.write_text(google.service_account())
    options = {"project": PROJECT, "endpoint": google.url, "ca": str(tls.ca)}

    assert Gcp(options, 5.0, {"CLOUDSDK_CONFIG": str(tmp_path)}).fetch(WHERE).value == VALUE


def test_workload_identity_is_a_file_whose_token_is_exchanged(
    google: Google, tls: Tls, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(ASSERTION)
    file = tmp_path / "account.json"
    file.write_text(google.workload_identity(str(tmp_path / "token")))

    assert adapter(google, tls, tmp_path).fetch(WHERE).value == VALUE

    (tmp_path / "token").write_text("another")
    assert failure(adapter(google, tls, tmp_path)) is Failure.DENIED


def test_without_a_file_the_machine_says_who_it_is(
    google: Google, tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = Google(None)
    monkeypatch.setattr("google.auth.compute_engine._metadata._GCE_METADATA_HOST", metadata.url[7:])
    metadata.state.tokens = google.state.tokens
    options = {"project": PROJECT, "endpoint": google.url, "ca": str(tls.ca)}
    try:
        source = Gcp(options, 5.0, {"HOME": str(tmp_path)})
        assert source.fetch(WHERE).value == VALUE
        assert {one.headers["metadata-flavor"] for one in metadata.state.asked} == {"Google"}
    finally:
        metadata.close()


def test_a_new_key_file_is_noticed(google: Google, tls: Tls, tmp_path: Path) -> None:
    source = adapter(google, tls, tmp_path)
    source.fetch(WHERE)

    (tmp_path / "account.json").write_text("no credential")
    assert failure(source) is Failure.NO_CREDENTIAL

    (tmp_path / "account.json").write_text(google.service_account())
    assert source.fetch(WHERE).value == VALUE


RUNS = {"type": "external_account", "credential_source": {"executable": {"command": "/bin/x"}}}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(None, id="is missing"),
        pytest.param("", id="is empty"),
        pytest.param("[]", id="is no object"),
        pytest.param('{"type": "service_account"}', id="lacks its key"),
        pytest.param('{"type": "impersonated_service_account"}', id="is of another kind"),
        pytest.param(json.dumps(RUNS), id="names a program to be run"),
    ],
)
def test_a_file_is_no_credential_that(
    google: Google, tls: Tls, tmp_path: Path, text: str | None
) -> None:
    source = adapter(google, tls, tmp_path)
    (tmp_path / "account.json").unlink()
    if text is not None:
        (tmp_path / "account.json").write_text(text)

    assert failure(source) is Failure.NO_CREDENTIAL
    assert google.state.asked == []


def test_no_word_of_a_library_gets_out(google: Google, tls: Tls, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("wrong-SENTINEL")
    file = tmp_path / "account.json"
    file.write_text(google.workload_identity(str(tmp_path / "token")))
    with pytest.raises(SourceError) as caught:
        adapter(google, tls, tmp_path).fetch(WHERE)

    assert google.asked("/sts/v1/token")[0].form["subject_token"] == "wrong-SENTINEL"
    assert "SENTINEL" not in "".join(traceback.format_exception(caught.value))


# --- answers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "field", "expected"),
    [
        pytest.param(b"plain", None, b"plain", id="text"),
        pytest.param(b"\x00\xff", None, b"\x00\xff", id="bytes"),
        pytest.param(b'{"a": "one", "b": "two"}', "b", b"two", id="a field"),
        pytest.param(b'{"a": "one"}', "c", Failure.NO_FIELD, id="no such field"),
        pytest.param(b'{"a": 1}', "a", Failure.NOT_TEXT, id="no text"),
        pytest.param(b"\xff", "a", Failure.NO_FIELD, id="no JSON"),
    ],
)
def test_what_a_secret_may_be(
    google: Google,
    tls: Tls,
    tmp_path: Path,
    content: bytes,
    field: str | None,
    expected: bytes | Failure,
) -> None:
    google.put("crm", content)
    source = adapter(google, tls, tmp_path)
    where = {"field": field} if field else {}

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
    google: Google, tls: Tls, tmp_path: Path, where: dict[str, str], expected: Failure
) -> None:
    google.state.refused.add("forbidden")
    google.put("off", b"x")
    google.take_away("off")

    assert failure(adapter(google, tls, tmp_path), **where) is expected


@pytest.mark.parametrize(
    ("mode", "sick", "expected"),
    [
        ("down", ":access", Failure.NOT_READY),
        ("hangs", ":access", Failure.UNREACHABLE),
        ("breaks off", ":access", Failure.UNREACHABLE),
        ("odd", ":access", Failure.ODD),
        ("down", "/token", Failure.NOT_READY),
        ("hangs", "/token", Failure.UNREACHABLE),
        ("breaks off", "/token", Failure.UNREACHABLE),
    ],
)
def test_what_an_outage_comes_to(
    google: Google, tls: Tls, tmp_path: Path, mode: str, sick: str, expected: Failure
) -> None:
    google.state.mode, google.state.sick = mode, sick
    assert failure(adapter(google, tls, tmp_path)) is expected


def test_a_404_that_is_not_googles_takes_nothing_back(tls: Tls, tmp_path: Path) -> None:
    google = Google(tls.context)
    google.answer = lambda question: (  # type: ignore[method-assign]
        (200, google._granted(), {}) if question.path == "/token" else (404, "<html>", {})
    )
    try:
        assert failure(adapter(google, tls, tmp_path)) is Failure.ODD
    finally:
        google.close()


@pytest.mark.parametrize("told", ["1", "no number", None])
def test_a_payload_whose_checksum_does_not_fit_is_not_taken(
    google: Google, tls: Tls, tmp_path: Path, told: str | None
) -> None:
    right = google._access

    def wrong(question: object) -> object:
        status, answer, fields = right(question)  # type: ignore[arg-type]
        if "payload" in answer:
            answer["payload"]["dataCrc32c"] = told
        return status, answer, fields

    google._access = wrong  # type: ignore[method-assign, assignment]
    assert failure(adapter(google, tls, tmp_path)) is Failure.ODD


def test_the_checksum_is_that_of_castagnoli() -> None:
    # RFC 3720, B.4
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"123456789") == reference_crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (exceptions.RefreshError("SENTINEL"), Failure.DENIED),
        (exceptions.RefreshError("SENTINEL", retryable=True), Failure.NOT_READY),
        (exceptions.TransportError("SENTINEL"), Failure.UNREACHABLE),
        (exceptions.DefaultCredentialsError("SENTINEL"), Failure.NO_CREDENTIAL),
        (requests.exceptions.SSLError("SENTINEL"), Failure.UNREACHABLE),
        (RuntimeError("SENTINEL"), Failure.ODD),
    ],
    ids=lambda one: getattr(one, "name", None) or repr(one)[:60],
)
def test_what_an_error_comes_to(error: Exception, expected: Failure) -> None:
    assert _failure(error) is expected
