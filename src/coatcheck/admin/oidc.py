"""JWTs of an OpenID Connect issuer as credentials: verified here, with keys from a JWKS.

Everything that has ever gone wrong with JWTs is a choice left to the token. None is here: the
algorithms are a fixed list of asymmetric ones, a key is taken by its ``kid`` out of the configured
set and nowhere else (no jku, x5u, jwk), issuer, audience and end must be there and be right.
"""

from __future__ import annotations

import ipaddress
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from joserfc import jwk, jwt
from joserfc.errors import JoseError
from joserfc.jwt import JWTClaimsRegistry

from coatcheck.admin.roles import Actor, Role
from coatcheck.core.ports import CoatcheckError
from coatcheck.observe import logs

ALGORITHMS = [
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "Ed25519", "EdDSA"),
]
KEY_TYPES = frozenset({"RSA", "EC", "OKP"})  # never "oct": a public text would be a shared secret
LATEST = 253_402_300_800  # the year 10000, which no calendar here has
LEEWAY_S = 30  # clocks differ
JWKS_BYTES = 256 * 1024
FETCH_S = 5.0
FETCHED_EVERY_S = 30.0  # at most, for a key that is not known
FETCHED_ANEW_S = 600.0  # so that a key that was withdrawn goes


class BadJwt(Exception):
    """It is no JWT of this issuer for us, or says no role. Why is nobody's business."""


class IssuerError(CoatcheckError):
    """The settings of the issuer cannot be used."""


class Issuer:
    """One issuer.

    Args:
        jwks: A file, or an https:// URL (http:// on loopback).
        role_claim: The claim that names a role, or a list with one; dots go into objects.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        jwks: str,
        role_claim: str,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._jwks = jwks
        self._role_claim = role_claim
        self._clock = clock
        self._lock = threading.Lock()
        self._fetched = float("-inf")
        self._keys: jwk.KeySet | None = None
        self._rules: dict[str, Any] = {
            "iss": {"essential": True, "value": issuer},
            "aud": {"essential": True, "value": audience},
            "exp": {"essential": True},
            "sub": {"essential": True},
        }

    def check(self) -> None:
        """Look at the settings once, at the start. A URL is not asked: the issuer may be late.

        Raises:
            IssuerError: no URL we would ask, or a file that cannot be used.
        """
        if "://" in self._jwks:
            _check_url(self._jwks)
            return
        try:
            _read_keys(Path(self._jwks).read_bytes())
        except (OSError, ValueError, JoseError):
            raise IssuerError(
                f"the file of oidc_jwks cannot be used: {self._jwks}",
                hint="give a JSON Web Key Set with public keys, or its https:// URL",
            ) from None

    def actor(self, text: str, address: str) -> Actor:
        """Whoever this JWT speaks of.

        Raises:
            BadJwt: it is not valid, or speaks of nobody who may do anything here.
        """
        token = self._decoded(text)
        try:
            now = int(self._clock())
            JWTClaimsRegistry(now=now, leeway=LEEWAY_S, **self._rules).validate(token.claims)
        except (JoseError, TypeError, ValueError):
            raise BadJwt from None
        claims = token.claims
        if not isinstance(claims["sub"], str) or not isinstance(claims["exp"], int | float):
            raise BadJwt
        if not 0 < claims["exp"] < LATEST:
            raise BadJwt
        role = _role(claims, self._role_claim)
        if role is None:
            raise BadJwt
        return Actor(claims["sub"][:256], role, "oidc", "", address, float(claims["exp"]))

    def _decoded(self, text: str) -> jwt.Token:
        for newest in (False, True):  # a key that is not known may be a new one
            keys = self._current(newest)
            if keys is None:
                continue
            try:
                token = jwt.decode(text, keys, algorithms=ALGORITHMS)
            except (JoseError, ValueError, TypeError, KeyError):
                continue
            if isinstance(token.header.get("kid"), str):  # else any key of the set would do
                return token
        raise BadJwt

    def _current(self, newest: bool) -> jwk.KeySet | None:
        with self._lock:
            age = time.monotonic() - self._fetched
            if age > (FETCHED_EVERY_S if newest else FETCHED_ANEW_S):
                self._fetched = time.monotonic()
                self._fetch()
            return self._keys

    def _fetch(self) -> None:
        """Read the keys. Where that fails, those of before stay."""
        try:
            if "://" in self._jwks:
                self._keys = _read_keys(_get(self._jwks))
            else:
                self._keys = _read_keys(Path(self._jwks).read_bytes())
        except (OSError, ValueError, JoseError, IssuerError) as error:
            logs.event("oidc.keys_unavailable", error=type(error).__name__)


def _read_keys(data: bytes) -> jwk.KeySet:
    found = json.loads(data)
    listed = found.get("keys") if isinstance(found, dict) else None
    keys = [
        key
        for key in (listed if isinstance(listed, list) else ())
        if isinstance(key, dict) and key.get("kty") in KEY_TYPES and "d" not in key
    ]
    if not keys:
        raise ValueError("no public keys")
    return jwk.KeySet.import_key_set({"keys": keys})


def _get(url: str) -> bytes:
    _check_url(url)
    # No proxy of the environment: it may be this very proxy.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())
    with opener.open(url, timeout=FETCH_S) as answer:
        data: bytes = answer.read(JWKS_BYTES + 1)
    if len(data) > JWKS_BYTES:
        raise ValueError("too large")
    return data


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    local = parts.hostname == "localhost"
    with suppress(ValueError):
        local = local or ipaddress.ip_address(parts.hostname or "").is_loopback
    if not (parts.scheme == "https" or (parts.scheme == "http" and local)) or not parts.hostname:
        raise IssuerError(
            "oidc_jwks is no URL that keys may come from",
            hint="write https://HOST/PATH, or the path of a file",
        )


def _role(claims: Mapping[str, Any], claim: str) -> Role | None:
    """The highest role that the claim names; None: none that is known."""
    found: Any = claims.get(claim)
    if found is None:
        found = claims
        for part in claim.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    named = found if isinstance(found, list) else [found]
    roles = [role for role in Role if role in named]
    return roles[-1] if roles else None
