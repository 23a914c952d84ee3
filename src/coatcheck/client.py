"""For code that runs behind the proxy: which secrets it may use, and how to write them.

    from coatcheck import client

    key = client.get_secret("crm.apiKey")       # "{{secrets.crm.apiKey}}", or None
    requests.get(URL, headers={"Authorization": f"Bearer {key}"})

Nothing here gives out a value, since there is none on this side: what is returned is the
placeholder, which the proxy replaces on the way out. Code that asked a store for a value moves over
by changing where it imports from, and holds nothing worth stealing afterwards.

The standard library alone, for it runs in other people's processes: the proxy is the one that
HTTP_PROXY or HTTPS_PROXY names, credentials are those in its URL.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

HOST = "coatcheck.internal"
CACHE_S = 5.0  # how long what the proxy said is taken for true
TIMEOUT_S = 10.0
MAX_ANSWER = 16 * 1024 * 1024  # bytes; ten thousand secrets with their terms are some four
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")  # each in lower case first, as curl reads it

__all__ = [
    "Client",
    "ClientError",
    "NoProxy",
    "NotAnswered",
    "Refused",
    "UnknownClient",
    "aget_secret",
    "anames",
    "get_secret",
    "names",
    "url",
]


class ClientError(Exception):
    """Why there is no answer, and what to do about it. Holds no token."""


class NoProxy(ClientError):
    """No variable names a proxy, or what it names cannot be used."""


class NotAnswered(ClientError):
    """The proxy cannot be reached, or what answers is not coatcheck."""


class UnknownClient(ClientError):
    """The proxy does not know the credential in its URL, or there is none."""


class Refused(ClientError):
    """coatcheck has refused.

    Attributes:
        code: As in the table of refusals, ``audit_unavailable`` for instance.
    """

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code


def get_secret(name: str) -> str | None:
    """The placeholder for the secret *name*; None where this client has no such secret.

    Raises:
        ClientError: the proxy cannot be asked.
    """
    return _default().get_secret(name)


def names() -> list[str]:
    """The names of all secrets that this client may use somewhere, in order. Raises as above."""
    return _default().names()


async def aget_secret(name: str) -> str | None:
    """`get_secret` for asyncio."""
    return await asyncio.to_thread(get_secret, name)


async def anames() -> list[str]:
    """`names` for asyncio."""
    return await asyncio.to_thread(names)


def url(name: str, *more: str) -> str:
    """Where to send a request that is meant for the URL that is the value of the secret *name*.

    Nothing is asked: whether there is such a secret is found out by the request.

    Args:
        more: What to put to the path of that URL, each one segment or several.
    """
    if not name:
        raise ValueError("the name of a secret has at least one character")
    path = "".join("/" + quote(part.strip("/"), safe="/") for part in more)
    slash = "/" if more and more[-1].endswith("/") else ""
    return f"http://{HOST}/url/{quote(name, safe='')}{path}{slash}"


@dataclass(frozen=True)
class _Proxy:
    host: str
    port: int
    credential: str = field(repr=False)  # the value of Proxy-Authorization; empty: none

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Client:
    """Asks one proxy, and remembers its answer for a moment. May be shared by threads."""

    def __init__(
        self, proxy: str, *, timeout_s: float = TIMEOUT_S, cache_s: float = CACHE_S
    ) -> None:
        """*proxy*: ``http://CLIENT:TOKEN@HOST:PORT``; without a token where the network says who
        this is.

        Raises:
            NoProxy: it is no such URL.
        """
        self._proxy = _read_proxy(proxy)
        self._timeout_s = timeout_s
        self._cache_s = cache_s
        self._lock = threading.Lock()
        self._until = 0.0
        self._known: dict[str, str | None] = {}

    def get_secret(self, name: str) -> str | None:
        """As the function of this name."""
        known = self._current()
        if name not in known:
            return None
        if (written := known[name]) is None:
            raise ClientError(
                "this secret's name cannot be written in the syntaxes that the policy has;"
                " an operator can allow '{{secrets.NAME}}' in placeholders.syntaxes"
            )
        return written

    def names(self) -> list[str]:
        """As the function of this name."""
        return list(self._current())

    def _current(self) -> Mapping[str, str | None]:
        with self._lock:
            if time.monotonic() >= self._until:
                self._known = _read_names(self._proxy, self._ask())
                self._until = time.monotonic() + self._cache_s
            return self._known

    def _ask(self) -> bytes:
        connection = http.client.HTTPConnection(
            self._proxy.host, self._proxy.port, timeout=self._timeout_s
        )
        headers = {"Proxy-Authorization": self._proxy.credential} if self._proxy.credential else {}
        try:
            connection.request("GET", f"http://{HOST}/v1/secrets", headers=headers)
            answer = connection.getresponse()
            body = answer.read(MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException) as error:
            raise NotAnswered(
                f"the proxy at {self._proxy} gives no answer ({type(error).__name__});"
                " check HTTP_PROXY, and that coatcheck serve runs there"
            ) from None
        finally:
            connection.close()
        if answer.status == http.HTTPStatus.OK and len(body) <= MAX_ANSWER:
            return body
        raise self._refusal(answer, body)

    def _refusal(self, answer: http.client.HTTPResponse, body: bytes) -> ClientError:
        code = answer.headers.get("Coatcheck-Error", "")
        if answer.status == http.HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            return UnknownClient(
                f"the proxy at {self._proxy} does not know this client; set HTTP_PROXY to"
                " http://CLIENT:TOKEN@HOST:PORT, with a token of coatcheck client token CLIENT"
            )
        if not code:
            return _no_coatcheck(self._proxy)
        try:
            detail = str(json.loads(body)["detail"])
        except (ValueError, KeyError, TypeError):
            detail = "The proxy has refused."
        return Refused(code, f"{code}: {detail}")


def _read_names(proxy: _Proxy, body: bytes) -> dict[str, str | None]:
    try:
        return {str(one["name"]): one["placeholder"] for one in json.loads(body)["secrets"]}
    except (ValueError, KeyError, TypeError):
        raise _no_coatcheck(proxy) from None


def _no_coatcheck(proxy: _Proxy) -> NotAnswered:
    return NotAnswered(
        f"what answers at {proxy} is no coatcheck that serves http://{HOST}/;"
        " point HTTP_PROXY at coatcheck itself"
    )


def _read_proxy(text: str) -> _Proxy:
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None  # the text may hold a token, so it is not repeated
    if not host or parts.scheme != "http":
        raise NoProxy("the proxy's URL is not of the form http://CLIENT:TOKEN@HOST:PORT")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    credential = ""
    if parts.username is not None:
        credential = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    return _Proxy(host, port or 80, credential)


# --- the client of this process ------------------------------------------------------------------

_lock = threading.Lock()
_last: tuple[str, Client] | None = None  # one is enough: a process has one proxy


def _default() -> Client:
    """The client of the proxy that the environment names now."""
    global _last
    proxy = _from_environment(os.environ)
    with _lock:
        if _last is None or _last[0] != proxy:
            _last = proxy, Client(proxy)
        return _last[1]


def _from_environment(environ: Mapping[str, str]) -> str:
    for variable in VARIABLES:
        for spelled in (variable.lower(), variable):
            if spelled == "HTTP_PROXY" and "REQUEST_METHOD" in environ:
                continue  # in a CGI program a header of the request would set it
            if found := environ.get(spelled):
                return found
    raise NoProxy(
        "no proxy is set; run this with coatcheck run -- COMMAND, or set HTTP_PROXY"
        " to http://CLIENT:TOKEN@HOST:PORT"
    )
