"""Azure Key Vault, by its REST API (7.4); azure-identity gets the tokens.

A vault says for which resource it wants a token, in the challenge of a 401. That is taken from it
as far as the resource is the vault's own domain: else a host that poses as a vault would be given a
token for something else. Who issues tokens is never taken from it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from azure.core import exceptions
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import (
    ClientSecretCredential,
    CredentialUnavailableError,
    ManagedIdentityCredential,
)
from msal.exceptions import MsalServiceError

from coatcheck.store.sources.credential import credential
from coatcheck.store.sources.port import Failure, Fetched, SourceError
from coatcheck.store.sources.reading import by_kind, field_of, in_our_words
from coatcheck.store.sources.rest import Answer, Session, ask, failure

API_VERSION = "7.4"
_RESOURCE = re.compile(r'\b(resource|scope)="([^"]*)"')
_DEFAULT = "/.default"

_FAILURES: tuple[tuple[type[Exception], Failure], ...] = (
    (CredentialUnavailableError, Failure.NO_CREDENTIAL),
    (exceptions.ServiceRequestError, Failure.UNREACHABLE),
    (exceptions.ServiceResponseError, Failure.UNREACHABLE),
    (exceptions.ClientAuthenticationError, Failure.DENIED),
    (exceptions.HttpResponseError, Failure.NOT_READY),
    (MsalServiceError, Failure.NOT_READY),
    (requests.RequestException, Failure.UNREACHABLE),
    (OSError, Failure.UNREACHABLE),
    (ValueError, Failure.NO_CREDENTIAL),  # a tenant or a variable that cannot be one
)


class Azure:
    """See `port.Source`."""

    def __init__(
        self,
        options: Mapping[str, Any],
        timeout_s: float,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._options = options
        self._environ = environ
        self._session = Session(timeout_s, options.get("ca"))
        self._credential: Any = None
        self._shown = ""  # the client secret that it was made with
        self._scope = ""  # what the vault wants a token for, once it has said so

    def fetch(self, where: Mapping[str, Any]) -> Fetched:
        """See `port.Source`."""
        with in_our_words(_failure):
            return self._fetch(where)

    def close(self) -> None:
        """See `port.Source`."""
        if self._credential is not None:
            self._credential.close()
        self._session.close()

    def _fetch(self, where: Mapping[str, Any]) -> Fetched:
        answer = self._ask(where)
        if answer.status == 401 and answer.challenge:
            # The first question has no token, and one may have been taken back before its time.
            self._scope = _scope(answer.challenge, self._options["url"])
            self._forget()
            answer = self._ask(where)
        return _fetched(answer, where.get("field"))

    def _ask(self, where: Mapping[str, Any]) -> Answer:
        parts = ["secrets", where["id"], *([where["version"]] if "version" in where else [])]
        path = "/".join(quote(part, safe="") for part in parts)
        url = f"{self._options['url']}/{path}?api-version={API_VERSION}"
        return ask(self._session, url, self._token() if self._scope else {})

    # --- the token --------------------------------------------------------------------------

    def _token(self) -> dict[str, str]:
        secret = ""
        if "client_secret_file" in self._options or "client_secret_env" in self._options:
            secret = credential(self._options, "client_secret", self._environ)
        if self._credential is None or secret != self._shown:
            self._forget()
            self._credential, self._shown = self._made(secret), secret
        try:
            token = self._credential.get_token(self._scope).token  # kept while it lasts
        except Exception:
            self._forget()  # msal answers by itself for a minute, with the same failure
            raise
        return {"Authorization": f"Bearer {token}"}

    def _made(self, secret: str) -> Any:
        client = self._options.get("client_id")
        common: dict[str, Any] = {
            "transport": RequestsTransport(
                session=self._session, session_owner=False, use_env_settings=False
            ),
            "retry_total": 0,  # the feed tries again by itself
        }
        if "authority" in self._options:
            common["authority"] = self._options["authority"]
        if secret:
            return ClientSecretCredential(
                self._options["tenant"],
                client or "",
                secret,
                # The authority is the one that was configured; nobody else is asked about it.
                disable_instance_discovery=True,
                **common,
            )
        if self._environ.get("AZURE_FEDERATED_TOKEN_FILE"):
            common["disable_instance_discovery"] = True
        # That of the workload too, where Kubernetes has put one.
        return ManagedIdentityCredential(client_id=client, **common)

    def _forget(self) -> None:
        if self._credential is not None:
            self._credential.close()
        self._credential = None


def _scope(challenge: str, url: str) -> str:
    """What the vault at *url* wants a token for.

    Raises:
        SourceError: ODD: something else than its own domain.
    """
    found: dict[str, str] = dict(_RESOURCE.findall(challenge))
    text = found.get("resource") or found.get("scope", "")
    resource = text.removesuffix(_DEFAULT).rstrip("/")
    host, domain = urlsplit(url).hostname or "", urlsplit(resource).hostname or ""
    # Of vault NAME.vault.azure.net it is vault.azure.net.
    if host != domain and not ("." in domain and host.endswith("." + domain)):
        raise SourceError(Failure.ODD)
    return resource + _DEFAULT


# --- the answer -----------------------------------------------------------------------------


def _fetched(answer: Answer, field: str | None) -> Fetched:
    if answer.status != 200:
        raise SourceError(_refused(answer))
    value = answer.data.get("value")
    if not isinstance(value, str):
        raise SourceError(Failure.ODD)
    return Fetched(value.encode() if field is None else field_of(value, field))


def _refused(answer: Answer) -> Failure:
    error = answer.data.get("error")
    if not isinstance(error, dict):
        return failure(answer.status)
    inner = error.get("innererror")
    if answer.status == 404 and error.get("code") == "SecretNotFound":
        return Failure.GONE
    if answer.status == 403 and isinstance(inner, dict) and inner.get("code") == "SecretDisabled":
        return Failure.GONE
    return failure(answer.status)


def _failure(error: BaseException) -> Failure:
    if type(error) is exceptions.ClientAuthenticationError and error.__cause__ is not None:
        return _failure(error.__cause__)  # azure-identity makes one of whatever went wrong
    if isinstance(error, exceptions.HttpResponseError) and (error.status_code or 0) >= 500:
        return Failure.NOT_READY
    return by_kind(error, _FAILURES)
