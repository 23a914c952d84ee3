"""Questions over HTTPS, as Google's and Azure's sources ask them: one attempt each.

No proxy and no `.netrc` of the environment, no redirects (a token would go along), certifi or the
file that was named; whatever the library for tokens wants. An answer is read up to a bound.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import certifi
import requests

from coatcheck.store.sources.port import Failure, SourceError

MAX_ANSWER = 24 * 1024 * 1024  # bytes; 16 MiB in base64, and room for the rest
_READ = 64 * 1024


class Session(requests.Session):
    """Carries the questions of the adapter, and those of the library that gets its tokens."""

    def __init__(self, timeout_s: float, ca: str | None) -> None:
        super().__init__()
        self.trust_env = False
        self._timeout_s = timeout_s
        self._ca = ca or certifi.where()

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> requests.Response:
        """As in the library, whatever it asks for."""
        kwargs |= {"timeout": self._timeout_s, "verify": self._ca, "allow_redirects": False}
        return super().request(method, url, *args, **kwargs)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came. No repr shows it.

    Attributes:
        data: The JSON object of its body; empty where there is none.
    """

    status: int
    challenge: str
    data: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"<answer {self.status}>"


def ask(session: Session, url: str, fields: Mapping[str, str]) -> Answer:
    """GET *url*.

    Raises:
        SourceError: TOO_LARGE.
        requests.RequestException: as the library has it.
    """
    sent = {"Accept": "application/json", "Accept-Encoding": "identity", **fields}
    with session.get(url, headers=sent, stream=True) as response:
        body = bytearray()
        for chunk in response.iter_content(_READ):
            body += chunk
            if len(body) > MAX_ANSWER:
                raise SourceError(Failure.TOO_LARGE)
        challenge = response.headers.get("WWW-Authenticate", "")
    try:
        data = json.loads(body)
    except ValueError:
        data = None
    return Answer(response.status_code, challenge, data if isinstance(data, dict) else {})


def failure(status: int) -> Failure:
    """What *status* comes to where the body says nothing more. A 404 by itself may be that of
    something in between, and takes no value back."""
    if status in (401, 403):
        return Failure.DENIED
    if status in (408, 429) or status >= 500:
        return Failure.NOT_READY
    return Failure.ODD
