"""JWTs: who is let in, and every way of not being who one says."""

from __future__ import annotations

import base64
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from coatcheck.admin import oidc
from coatcheck.admin.oidc import BadJwt, Issuer, IssuerError
from coatcheck.store.home import Home
from tests.admin.stage import Stage, problem, staged
from tests.store.stores import NOW, Clock

ISSUER, AUDIENCE = "https://id.example.com", "coatcheck"
CLAIMS = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "ada",
    "exp": int(NOW) + 600,
    "nbf": int(NOW) - 5,
    "coatcheck_role": "editor",
}
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
STRANGER = RSAKey.generate_key(2048, {"kid": "rsa"})


def keys(*of: Key) -> bytes:
    return json.dumps({"keys": [key.as_dict(private=False) for key in of]}).encode()


def token(
    key: Key = RSA, alg: str = "RS256", header: dict[str, Any] | None = None, **claims: Any
) -> str:
    """A JWT; a claim that is None is left out."""
    said = {name: value for name, value in (CLAIMS | claims).items() if value is not None}
    head = {"alg": alg, "kid": key.kid, **(header or {})}
    return jwt.encode(
        {name: value for name, value in head.items() if value is not None},
        said,
        key,
        algorithms=[alg],
    )


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_bytes(keys(RSA, EC, ED))
    return path


@pytest.fixture
def issuer(jwks: Path) -> Issuer:
    return Issuer(ISSUER, AUDIENCE, str(jwks), "coatcheck_role", clock=Clock())


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda: token(), id="RS256"),
        pytest.param(lambda: token(alg="PS256"), id="PS256"),
        pytest.param(lambda: token(EC, "ES256"), id="ES256"),
        pytest.param(lambda: token(ED, "Ed25519"), id="Ed25519"),
        pytest.param(lambda: token(aud=["other", AUDIENCE]), id="several audiences"),
        pytest.param(lambda: token(nbf=None), id="no beginning"),
        pytest.param(lambda: token(exp=int(NOW) - 20), id="ended within the leeway"),
        pytest.param(lambda: token(nbf=int(NOW) + 20), id="begins within the leeway"),
        pytest.param(lambda: token(coatcheck_role=["x", "viewer", "editor"]), id="a list of roles"),
    ],
)
def test_who_is_let_in(issuer: Issuer, made: Callable[[], str]) -> None:
    actor = issuer.actor(made(), "10.0.0.1")

    assert (actor.name, actor.role, actor.kind, actor.address) == (
        "ada",
        "editor",
        "oidc",
        "10.0.0.1",
    )


def unsigned(alg: str) -> str:
    head, body = ({"alg": alg, "kid": "rsa"}, CLAIMS)
    return ".".join(_b64(json.dumps(part).encode()) for part in (head, body)) + "."


def hmac_with_public_key() -> str:
    """The classic: the public key's text as a shared secret."""
    parts = ({"alg": "HS256", "kid": "rsa"}, CLAIMS)
    said = ".".join(_b64(json.dumps(part).encode()) for part in parts)
    made = hmac.digest(RSA.as_pem(private=False), said.encode(), "sha256")
    return f"{said}.{_b64(made)}"


def tampered() -> str:
    head, _, signature = token().split(".")
    return ".".join((head, _b64(json.dumps(CLAIMS | {"sub": "eve"}).encode()), signature))


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda: unsigned("none"), id="alg none"),
        pytest.param(lambda: unsigned("None"), id="alg None"),
        pytest.param(lambda: unsigned("RS256"), id="no signature"),
        pytest.param(hmac_with_public_key, id="HS256 with the public key"),
        pytest.param(tampered, id="another body"),
        pytest.param(lambda: token(STRANGER), id="another's key under our kid"),
        pytest.param(lambda: token(header={"kid": None}), id="no kid"),
        pytest.param(lambda: token(header={"kid": "nobody"}), id="a kid that is not there"),
        pytest.param(lambda: token(header={"kid": "ec"}), id="the kid of another key"),
        pytest.param(
            lambda: token(STRANGER, header={"jwk": STRANGER.as_dict(private=False)}),
            id="brings its own key",
        ),
        pytest.param(
            lambda: token(STRANGER, header={"jku": "https://evil.example/jwks"}),
            id="says where its key is",
        ),
        pytest.param(lambda: token(iss="https://evil.example"), id="another issuer"),
        pytest.param(lambda: token(iss=None), id="no issuer"),
        pytest.param(lambda: token(aud="other"), id="another audience"),
        pytest.param(lambda: token(aud=None), id="no audience"),
        pytest.param(lambda: token(aud=[]), id="an empty audience"),
        pytest.param(lambda: token(exp=int(NOW) - 60), id="ended"),
        pytest.param(lambda: token(exp=None), id="no end"),
        pytest.param(lambda: token(exp="tomorrow"), id="an end in words"),
        pytest.param(lambda: token(nbf=int(NOW) + 60), id="not yet"),
        pytest.param(lambda: token(sub=None), id="nobody"),
        pytest.param(lambda: token(sub=""), id="an empty name"),
        pytest.param(lambda: token(sub=7), id="a number as a name"),
        pytest.param(lambda: token(coatcheck_role=None), id="no role"),
        pytest.param(lambda: token(coatcheck_role="root"), id="an unknown role"),
        pytest.param(lambda: token(coatcheck_role={"owner": True}), id="a role in an object"),
        pytest.param(lambda: "a.b.c", id="no JWT"),
        pytest.param(lambda: "..", id="dots"),
        pytest.param(lambda: token() + ".x.y", id="five parts"),
    ],
)
def test_who_is_not(issuer: Issuer, made: Callable[[], str]) -> None:
    with pytest.raises(BadJwt):
        issuer.actor(made(), "10.0.0.1")


def test_a_role_may_lie_deeper(jwks: Path) -> None:
    claim = "realm_access.roles"
    deep = Issuer(ISSUER, AUDIENCE, str(jwks), claim, clock=Clock())

    assert deep.actor(token(realm_access={"roles": ["owner"]}), "").role == "owner"
    with pytest.raises(BadJwt):
        deep.actor(token(realm_access="owner"), "")


# --- keys -------------------------------------------------------------------------------------


@contextmanager
def serving(answers: list[bytes]) -> Iterator[str]:
    """A JWKS endpoint; it answers with the first of *answers*."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/away":
                self.send_response(302)
                self.send_header("Location", "/jwks")
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answers[0])

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_new_key_is_fetched_and_an_old_one_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "FETCHED_EVERY_S", 0.0)
    answers = [keys(RSA)]
    with serving(answers) as url:
        issuer = Issuer(ISSUER, AUDIENCE, f"{url}/jwks", "coatcheck_role", clock=Clock())
        issuer.check()
        assert issuer.actor(token(), "").name == "ada"
        answers[0] = keys(EC)
        assert issuer.actor(token(EC, "ES256"), "").name == "ada"
        with pytest.raises(BadJwt):
            issuer.actor(token(), "")


def test_keys_that_cannot_be_had_leave_those_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "FETCHED_EVERY_S", 0.0)
    answers = [keys(RSA)]
    with serving(answers) as url:
        issuer = Issuer(ISSUER, AUDIENCE, f"{url}/jwks", "coatcheck_role", clock=Clock())
        assert issuer.actor(token(), "").name == "ada"
        for bad in (b"{}", b"not json", b"x" * (oidc.JWKS_BYTES + 1)):
            answers[0] = bad
            with pytest.raises(BadJwt):
                issuer.actor(token(EC, "ES256"), "")
            assert issuer.actor(token(), "").name == "ada"


def test_unknown_keys_do_not_make_us_ask_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(oidc, "_get", lambda url: fetched.append(url) or keys(RSA))
    issuer = Issuer(ISSUER, AUDIENCE, "https://id.example/jwks", "r", clock=Clock())
    for _ in range(20):
        with pytest.raises(BadJwt):
            issuer.actor(token(EC, "ES256"), "")

    assert len(fetched) == 1


def test_no_redirection_is_followed() -> None:
    with serving([keys(RSA)]) as url:
        issuer = Issuer(ISSUER, AUDIENCE, f"{url}/away", "coatcheck_role", clock=Clock())
        with pytest.raises(BadJwt):
            issuer.actor(token(), "")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(keys(OctKey.generate_key(256, {"kid": "rsa"})), id="a shared secret"),
        pytest.param(
            json.dumps({"keys": [RSA.as_dict(private=True)]}).encode(), id="a private key"
        ),
        pytest.param(b'{"keys": []}', id="none"),
        pytest.param(b"{}", id="no set"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"nonsense", id="no JSON"),
    ],
)
def test_what_are_no_keys(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(text)

    with pytest.raises(IssuerError, match="oidc_jwks"):
        Issuer(ISSUER, AUDIENCE, str(path), "r").check()


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://id.example.com/jwks", True),
        ("http://127.0.0.1:9/jwks", True),
        ("http://localhost/jwks", True),
        ("http://id.example.com/jwks", False),
        ("file:///etc/passwd", False),
        ("ftp://id.example.com/", False),
        ("https:///jwks", False),
    ],
)
def test_where_keys_may_come_from(url: str, good: bool) -> None:
    issuer = Issuer(ISSUER, AUDIENCE, url, "r")
    if good:
        issuer.check()
        return
    with pytest.raises(IssuerError):
        issuer.check()


# --- in the API -------------------------------------------------------------------------------


@pytest.fixture
def with_issuer(home: Home, issuer: Issuer) -> Iterator[Stage]:
    with staged(home, issuer=issuer) as made:
        yield made


def test_the_api_takes_them_and_a_session_ends_with_them(with_issuer: Stage) -> None:
    stage = with_issuer
    stage.tokens["jwt"] = token()
    body = {"name": "x", "value": "long-enough"}
    assert stage.call("POST", "/api/v1/secrets", role="jwt", json=body).status_code == 201
    problem(stage.call("GET", "/api/v1/tokens", role="jwt"), 403, "forbidden")
    browser = stage.browser(base_url="https://127.0.0.1:8081")
    assert browser.post("/api/v1/session", json={"token": token()}).json()["kind"] == "oidc"
    assert browser.get("/api/v1/secrets").status_code == 200
    stage.clock.now += 700

    problem(browser.get("/api/v1/secrets"), 401, "unauthenticated")
    assert stage.actions_written()[0]["by"] == "ada"


def test_without_an_issuer_a_jwt_is_no_credential(stage: Stage) -> None:
    stage.tokens["jwt"] = token()

    problem(stage.call("GET", "/api/v1/secrets", role="jwt"), 401, "unauthenticated")
