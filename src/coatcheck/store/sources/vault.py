"""HashiCorp Vault and OpenBao: KV version 2, by a token or by AppRole.

hvac does the talking, over a session of ours: no proxy and no `.netrc` of the environment, no
redirects (the token would go along), certifi or the file that was named. Its exceptions hold URLs
and answers, so each is turned into a `Failure` here, without its text and without its cause.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import certifi
import hvac
import requests
from hvac import exceptions

from coatcheck.store.sources.credential import credential
from coatcheck.store.sources.port import Failure, Fetched, SourceError
from coatcheck.store.sources.reading import by_kind, in_our_words

RENEW_AT = 0.5  # of a token's time: renewed from then on
LEAST_LEFT_S = 5.0  # a token with less is not relied on

_FAILURES: tuple[tuple[type[Exception], Failure], ...] = (
    (exceptions.InvalidPath, Failure.GONE),
    (exceptions.Forbidden, Failure.DENIED),
    (exceptions.Unauthorized, Failure.DENIED),
    (exceptions.InvalidRequest, Failure.DENIED),  # what AppRole answers to a wrong id
    (exceptions.RateLimitExceeded, Failure.NOT_READY),
    (exceptions.VaultError, Failure.NOT_READY),
    (requests.RequestException, Failure.UNREACHABLE),
    (OSError, Failure.UNREACHABLE),
)


class Vault:
    """See `port.Source`."""

    def __init__(
        self,
        options: Mapping[str, Any],
        timeout_s: float,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._timeout_s = timeout_s
        self._environ = environ
        self._clock = clock
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = options.get("ca", certifi.where())
        self._client: Any = None
        self._shown = ""  # the token of a file or a variable that the client was made with
        self._made_at = 0.0
        self._lasts_s = 0.0  # 0: for ever
        self._renewable = False

    def fetch(self, where: Mapping[str, Any]) -> Fetched:
        """See `port.Source`."""
        with in_our_words(_failure):
            return self._fetch(where)

    def close(self) -> None:
        """See `port.Source`."""
        self._session.close()

    def _fetch(self, where: Mapping[str, Any]) -> Fetched:
        self._log_in()
        try:
            answer = self._read(where)
        except (exceptions.Forbidden, exceptions.Unauthorized):
            if not self._by_role:
                raise
            # A token may have been taken back before its time: once more with a new one.
            self._client = None
            self._log_in()
            answer = self._read(where)
        return _fetched(answer, where["field"])

    def _read(self, where: Mapping[str, Any]) -> Any:
        return self._client.secrets.kv.v2.read_secret_version(
            path=where["path"],
            mount_point=self._options.get("mount", "secret"),
            raise_on_deleted_version=True,
        )

    # --- the token --------------------------------------------------------------------------

    @property
    def _by_role(self) -> bool:
        return "role_id_file" in self._options or "role_id_env" in self._options

    def _log_in(self) -> None:
        """Have a client whose token lasts."""
        if not self._by_role:
            token = credential(self._options, "token", self._environ)
            if self._client is None or token != self._shown:
                self._client, self._shown = self._made(token), token
                self._look_up()
            elif self._is_due():
                self._renew()
            return
        if self._client is not None and self._is_due():
            self._renew()
        if self._client is None or self._left() < LEAST_LEFT_S:
            self._by_approle()

    def _made(self, token: str) -> Any:
        return hvac.Client(
            url=self._options["url"],
            token=token,
            verify=self._session.verify,
            timeout=self._timeout_s,
            namespace=self._options.get("namespace"),
            allow_redirects=False,
            session=self._session,
        )

    def _by_approle(self) -> None:
        role = credential(self._options, "role_id", self._environ)
        secret = credential(self._options, "secret_id", self._environ)
        client = self._made("")
        answer = client.auth.approle.login(
            role_id=role,
            secret_id=secret,
            mount_point=self._options.get("approle_mount", "approle"),
        )
        self._take_lease(answer["auth"])
        self._client = self._made(str(answer["auth"]["client_token"]))

    def _look_up(self) -> None:
        """How long a token from outside lasts. A policy may forbid to ask; it is used all the
        same."""
        self._lasts_s, self._renewable = 0.0, False
        try:
            data = self._client.auth.token.lookup_self()["data"]
        except exceptions.Forbidden:
            return
        lease = {"lease_duration": data.get("ttl", 0), "renewable": data.get("renewable", False)}
        self._take_lease(lease)

    def _renew(self) -> None:
        """Have it last longer. Where that fails it is used until its end."""
        try:
            self._take_lease(self._client.auth.token.renew_self()["auth"])
        except (exceptions.Forbidden, exceptions.InvalidRequest):
            self._renewable = False

    def _take_lease(self, lease: Mapping[str, Any]) -> None:
        self._made_at = self._clock()
        self._lasts_s = float(lease.get("lease_duration") or 0)
        self._renewable = bool(lease.get("renewable"))

    def _left(self) -> float:
        if not self._lasts_s:
            return float("inf")
        return self._made_at + self._lasts_s - self._clock()

    def _is_due(self) -> bool:
        return self._renewable and self._left() < self._lasts_s * RENEW_AT


def _fetched(answer: Any, field: str) -> Fetched:
    try:
        data, version = answer["data"]["data"], answer["data"]["metadata"]["version"]
    except (KeyError, TypeError):
        raise SourceError(Failure.ODD) from None
    if not isinstance(data, dict) or field not in data:
        raise SourceError(Failure.NO_FIELD)
    value = data[field]
    if not isinstance(value, str):
        raise SourceError(Failure.NOT_TEXT)
    return Fetched(value.encode(), version if isinstance(version, int) else None)


def _failure(error: Exception) -> Failure:
    return by_kind(error, _FAILURES)
