"""AWS Secrets Manager by itself: what a secret may be, and what the answers of errors come to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore import exceptions
from moto.server import ThreadedMotoServer

from coatcheck.store.sources.aws import Aws, _failure
from coatcheck.store.sources.port import Failure, Fetched, SourceError
from tests.store.sources.kits import AwsKit


@pytest.fixture
def kit(moto_server: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsKit]:
    made = AwsKit(moto_server, monkeypatch)
    yield made
    made.forget()
    made.relay.close()


def fetch(kit: AwsKit, **where: str) -> Fetched:
    options = {"region": "eu-central-1", "endpoint": f"http://127.0.0.1:{kit.relay.port}"}
    source = Aws(options, 2.0)
    try:
        return source.fetch({"id": "prod/crm", **where})
    finally:
        source.close()


@pytest.mark.parametrize(
    ("content", "where", "expected"),
    [
        pytest.param({"SecretString": "plain-text"}, {}, b"plain-text", id="text"),
        pytest.param({"SecretBinary": b"\x00\xff"}, {}, b"\x00\xff", id="bytes"),
        pytest.param(
            {"SecretString": '{"a": "one", "b": "two"}'}, {"field": "b"}, b"two", id="a field"
        ),
        pytest.param(
            {"SecretString": '{"a": "one"}'}, {"field": "c"}, Failure.NO_FIELD, id="no such field"
        ),
        pytest.param(
            {"SecretString": '{"a": {"b": 1}}'}, {"field": "a"}, Failure.NOT_TEXT, id="no text"
        ),
        pytest.param({"SecretString": "no JSON"}, {"field": "a"}, Failure.NO_FIELD, id="no JSON"),
        pytest.param({"SecretBinary": b"{}"}, {"field": "a"}, Failure.NOT_TEXT, id="of bytes"),
    ],
)
def test_what_a_secret_may_be(
    kit: AwsKit, content: dict[str, Any], where: dict[str, str], expected: bytes | Failure
) -> None:
    kit.keeper.create_secret(Name="prod/crm", **content)

    if isinstance(expected, bytes):
        assert fetch(kit, **where).value == expected
        return
    with pytest.raises(SourceError) as caught:
        fetch(kit, **where)
    assert caught.value.failure is expected


def client_error(code: str) -> Exception:
    response: Any = {"Error": {"Code": code, "Message": "SENTINEL"}}
    return exceptions.ClientError(response, "GetSecretValue")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (client_error("AccessDeniedException"), Failure.DENIED),
        (client_error("ExpiredTokenException"), Failure.DENIED),
        (client_error("ResourceNotFoundException"), Failure.GONE),
        (client_error("ThrottlingException"), Failure.NOT_READY),
        (client_error("WhoKnows"), Failure.NOT_READY),
        (exceptions.NoCredentialsError(), Failure.NO_CREDENTIAL),
        (exceptions.EndpointConnectionError(endpoint_url="x"), Failure.UNREACHABLE),
        (exceptions.ReadTimeoutError(endpoint_url="x"), Failure.UNREACHABLE),
        (exceptions.SSLError(endpoint_url="x", error="y"), Failure.UNREACHABLE),
        (RuntimeError("SENTINEL"), Failure.ODD),
    ],
    ids=lambda one: getattr(one, "name", None) or str(one)[:60],
)
def test_what_an_error_comes_to(error: Exception, expected: Failure) -> None:
    assert _failure(error) is expected
