"""AWS Secrets Manager, by boto3. The credential comes by AWS's own chain: variables, files, a role.

No proxy of the environment, one attempt a time (the feed tries again by itself), and nothing of
botocore's exceptions gets out: they quote what was asked, and answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import boto3
from botocore import exceptions
from botocore.config import Config

from coatcheck.store.sources.port import Failure, Fetched, SourceError
from coatcheck.store.sources.reading import field_of, in_our_words

# By the code of a ClientError.
_BY_CODE: Mapping[str, Failure] = {
    "ResourceNotFoundException": Failure.GONE,
    "InvalidRequestException": Failure.GONE,  # marked for deletion
    "AccessDeniedException": Failure.DENIED,
    "DecryptionFailure": Failure.DENIED,
    "UnrecognizedClientException": Failure.DENIED,
    "InvalidClientTokenId": Failure.DENIED,
    "InvalidSignatureException": Failure.DENIED,
    "ExpiredTokenException": Failure.DENIED,
    "ThrottlingException": Failure.NOT_READY,
    "InternalServiceError": Failure.NOT_READY,
}


class Aws:
    """See `port.Source`."""

    def __init__(self, options: Mapping[str, Any], timeout_s: float) -> None:
        self._options = options
        self._timeout_s = timeout_s
        self._client: Any = None

    def fetch(self, where: Mapping[str, Any]) -> Fetched:
        """See `port.Source`."""
        with in_our_words(_failure):
            answer = self._asked().get_secret_value(SecretId=where["id"])
            return _fetched(answer, where.get("field"))

    def close(self) -> None:
        """See `port.Source`."""
        if self._client is not None:
            self._client.close()

    def _asked(self) -> Any:
        if self._client is None:
            config = Config(
                connect_timeout=self._timeout_s,
                read_timeout=self._timeout_s,
                retries={"total_max_attempts": 1},
                # None would be that of the environment.
                proxies={},
            )
            self._client = boto3.session.Session().client(
                "secretsmanager",
                region_name=self._options["region"],
                endpoint_url=self._options.get("endpoint"),
                verify=self._options.get("ca"),
                config=config,
            )
        return self._client


def _fetched(answer: Mapping[str, Any], field: str | None) -> Fetched:
    if (binary := answer.get("SecretBinary")) is not None and field is None:
        return Fetched(bytes(binary))
    text = answer.get("SecretString")
    if not isinstance(text, str):
        raise SourceError(Failure.NOT_TEXT)
    return Fetched(text.encode() if field is None else field_of(text, field))


def _failure(error: Exception) -> Failure:
    if isinstance(error, exceptions.ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        return _BY_CODE.get(code, Failure.NOT_READY)
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return Failure.NO_CREDENTIAL
    if isinstance(error, exceptions.CredentialRetrievalError):
        return Failure.NO_CREDENTIAL
    if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError | OSError):
        return Failure.UNREACHABLE
    return Failure.ODD
