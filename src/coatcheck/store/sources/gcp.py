"""Google Secret Manager, by its REST API; google-auth gets the tokens.

Google's own client would bring grpc and a dozen packages for one GET (docs/decisions/0029). The
credential comes by the order of application default credentials: the file that is named, that of
GOOGLE_APPLICATION_CREDENTIALS, that of gcloud, the metadata server. Read by hand as far as the
kind of credential, since `google.auth.default` asks for a project too, which runs a program or
sends a question, and takes kinds whose file names a program to be run.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests
from google.auth import compute_engine, exceptions, identity_pool
from google.auth.transport.requests import Request
from google.oauth2 import credentials as user
from google.oauth2 import service_account

from coatcheck.store.sources.credential import MAX_CREDENTIAL
from coatcheck.store.sources.local import read_plain
from coatcheck.store.sources.port import Failure, Fetched, SourceError
from coatcheck.store.sources.reading import by_kind, field_of, in_our_words
from coatcheck.store.sources.rest import Answer, Session, ask, failure

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)

# By the status of an error's body (google.rpc.Code), where it says more than that of HTTP.
_BY_STATUS: Mapping[str, Failure] = {
    "NOT_FOUND": Failure.GONE,
    "FAILED_PRECONDITION": Failure.GONE,  # the version is disabled or destroyed
}

_FAILURES: tuple[tuple[type[Exception], Failure], ...] = (
    (exceptions.TransportError, Failure.UNREACHABLE),
    (exceptions.RefreshError, Failure.DENIED),
    (exceptions.OAuthError, Failure.DENIED),
    (exceptions.GoogleAuthError, Failure.NO_CREDENTIAL),
    (requests.RequestException, Failure.UNREACHABLE),
    (OSError, Failure.UNREACHABLE),
)


class Gcp:
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
        self._request = Request(self._session)
        self._credentials: Any = None
        self._shown: bytes | None = None  # the file that they were made of

    def fetch(self, where: Mapping[str, Any]) -> Fetched:
        """See `port.Source`."""
        with in_our_words(_failure):
            return self._fetch(where)

    def close(self) -> None:
        """See `port.Source`."""
        self._session.close()

    def _fetch(self, where: Mapping[str, Any]) -> Fetched:
        url = self._url(where)
        answer = ask(self._session, url, self._token())
        if answer.status == 401:
            # A token may have been taken back before its time: once more with a new one.
            self._credentials = None
            answer = ask(self._session, url, self._token())
        return _fetched(answer, where.get("field"))

    def _url(self, where: Mapping[str, Any]) -> str:
        location = self._options.get("location")
        host = f"secretmanager.{location}.rep" if location else "secretmanager"
        parts = ["projects", self._options["project"]]
        parts += ["locations", location] if location else []
        parts += ["secrets", where["id"], "versions", where.get("version", "latest")]
        path = "/".join(quote(part, safe="") for part in parts)
        return f"{self._options.get('endpoint', f'https://{host}.googleapis.com')}/v1/{path}:access"

    # --- the token --------------------------------------------------------------------------

    def _token(self) -> dict[str, str]:
        self._have_credentials()
        if not self._credentials.valid:
            self._credentials.refresh(self._request)
        return {"Authorization": f"Bearer {self._credentials.token}"}

    def _have_credentials(self) -> None:
        path = self._file()
        text = None if path is None else _read(path)
        if self._credentials is None or text != self._shown:
            self._credentials, self._shown = _credentials(text), text

    def _file(self) -> str | None:
        for path in (
            self._options.get("credentials_file"),
            self._environ.get("GOOGLE_APPLICATION_CREDENTIALS"),
        ):
            if path:
                return path
        home = Path(self._environ.get("HOME") or "/")
        folder = Path(self._environ.get("CLOUDSDK_CONFIG") or home / ".config" / "gcloud")
        known = folder / "application_default_credentials.json"
        return str(known) if known.exists() else None


def _read(path: str) -> bytes:
    try:
        return read_plain(path, MAX_CREDENTIAL)
    except SourceError:
        raise SourceError(Failure.NO_CREDENTIAL) from None


def _credentials(text: bytes | None) -> Any:
    """Those of a file, or without one those of the machine.

    Raises:
        SourceError: NO_CREDENTIAL: it is none, or of a kind that names a program to be run.
    """
    if text is None:
        return compute_engine.Credentials(scopes=SCOPES)  # type: ignore[no-untyped-call]
    try:
        info = json.loads(text)
        match info["type"]:
            case "service_account":
                return service_account.Credentials.from_service_account_info(info, scopes=SCOPES)  # type: ignore[no-untyped-call]
            case "external_account":  # this class runs no program; that one is `pluggable`
                return identity_pool.Credentials.from_info(info, scopes=SCOPES)  # type: ignore[no-untyped-call]
            case "authorized_user":
                return user.Credentials.from_authorized_user_info(info, scopes=SCOPES)  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, KeyError, exceptions.GoogleAuthError):
        raise SourceError(Failure.NO_CREDENTIAL) from None
    raise SourceError(Failure.NO_CREDENTIAL)


# --- the answer -----------------------------------------------------------------------------


def _fetched(answer: Answer, field: str | None) -> Fetched:
    if answer.status != 200:
        error = answer.data.get("error")
        status = error.get("status") if isinstance(error, dict) else None
        raise SourceError(_BY_STATUS.get(str(status), failure(answer.status)))
    try:
        payload = answer.data["payload"]
        value = base64.b64decode(payload["data"], validate=True)
        told = int(payload["dataCrc32c"])
        version = str(answer.data["name"]).rpartition("/versions/")[2]
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise SourceError(Failure.ODD) from None
    if crc32c(value) != told:
        raise SourceError(Failure.ODD)
    count = int(version) if version.isascii() and version.isdigit() else None
    return Fetched(value if field is None else field_of(value, field), count)


def _table() -> tuple[int, ...]:
    table = []
    for entry in range(256):
        for _ in range(8):
            entry = entry >> 1 ^ (0x82F63B78 if entry & 1 else 0)
        table.append(entry)
    return tuple(table)


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """The CRC of Castagnoli (RFC 3720, section 12.1). A secret there has at most 64 KiB."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _failure(error: Exception) -> Failure:
    if isinstance(error, exceptions.RefreshError) and error.retryable:
        return Failure.NOT_READY
    return by_kind(error, _FAILURES)
