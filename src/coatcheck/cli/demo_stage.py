"""What `coatcheck demo` runs in: a home of its own, an upstream, a real proxy as a child process.

Nothing outside a temporary folder (mode 0700) is touched. Everything is undone by `close`, in the
reverse order, however the demo ends; the proxy is ended by its process id.
"""

from __future__ import annotations

import datetime
import http.client
import json
import os
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from coatcheck.cli.demo_cases import API, POLICY, Request
from coatcheck.cli.demo_checks import Answer, Seen
from coatcheck.cli.demo_upstream import LOOPBACK, Upstream, write_certificates
from coatcheck.core.destination import DomainPattern
from coatcheck.core.ports import CoatcheckError
from coatcheck.core.redact import Needles
from coatcheck.core.secret import SecretValue
from coatcheck.observe import auditlog, state
from coatcheck.observe.auditchain import OWN_EVENTS
from coatcheck.store import files
from coatcheck.store.home import Home, create_home
from coatcheck.store.sql import SqlStore

READY_S = 30.0  # for the proxy to start; it takes one or two
STOP_S = 10.0
ANSWER_S = 20.0
OWN_PREFIX = "COATCHECK_"
KEY_LOGS = ("SSLKEYLOGFILE", "MITMPROXY_SSLKEYLOGFILE")  # `serve` does not start with them


class DemoError(CoatcheckError):
    """The demo cannot be set up."""


class Stage:
    """Made by `open`; a context manager."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = values
        self.home = Home(Path())
        self.proxy_port = 0
        self._stack = ExitStack()
        self._audit_read = 0
        self._upstream: Upstream
        self._context: ssl.SSLContext

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def make_home(self) -> Path:
        """A new home in a temporary folder, with the demo's policy.

        Raises:
            HomeError, StoreError: it cannot be written.
        """
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="coatcheck-")))
        self.home = Home(folder / "home")
        create_home(self.home.root, now=time.time())
        self.home.policy.write_text(POLICY)
        self._context = _trusting(self.home.ca_certificate)
        return self.home.root

    def start_upstream(self) -> None:
        """Listen for https and http on free ports of the loopback address."""
        now = datetime.datetime.now(datetime.UTC)
        self._authority, certificate = write_certificates(self.home.root.parent, now)
        self._upstream = Upstream(certificate, self.audit_text)
        self._stack.callback(self._upstream.close)

    def store_secrets(self) -> None:
        """Put every value into the store, sealed, bound to the upstream's two ports.

        The port of http:// too, so that what is refused there is refused for being readable.
        """
        domains = [DomainPattern(API, port=self.port(scheme)) for scheme in ("https", "http")]
        store = SqlStore.open(self.home.store, public=self.home.read_public_key())
        try:
            for name, value in self.values.items():
                text = "for the demo"
                store.put(name, value.encode(), domains=domains, description=text, now=time.time())
        finally:
            store.close()

    def start_proxy(self) -> int:
        """Run ``coatcheck serve`` on a free port; its process id.

        Raises:
            DemoError: it ended, or is not ready in time.
        """
        command = serve_command(self.home.root, self._authority)
        with self.log.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 ourselves
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_clean_environment(os.environ),
                start_new_session=True,  # Ctrl-C is for us; we end it in our order
            )
        self._stack.callback(_end, process)
        self.proxy_port = self._wait(process)
        self._write_settings()
        return process.pid

    def upstream_answers(self) -> bool:
        """Whether both listeners answer when they are asked directly, past the proxy."""
        context = _trusting(self._authority)
        secure, plain = self.port("https"), self.port("http")
        for connection in (
            http.client.HTTPSConnection(LOOPBACK, secure, timeout=ANSWER_S, context=context),
            http.client.HTTPConnection(LOOPBACK, plain, timeout=ANSWER_S),
        ):
            try:
                connection.request("GET", "/")
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                return False
            finally:
                connection.close()
        return len(self._upstream.take()) == 2

    def proxy_accepts(self) -> bool:
        """Whether something listens where the proxy said that it does."""
        try:
            socket.create_connection((LOOPBACK, self.proxy_port), ANSWER_S).close()
        except OSError:
            return False
        return True

    def send(self, request: Request) -> Seen:
        """Send *request* through the proxy, and gather what came of it."""
        self._upstream.take()
        self._new_audit_records()
        answer = self._ask(request)
        return Seen(answer, self._upstream.take(), self._new_audit_records())

    def port(self, scheme: str) -> int:
        """The upstream's."""
        return self._upstream.port(scheme)

    @property
    def log(self) -> Path:
        """What the proxy wrote to stdout and stderr."""
        return self.home.root.parent / "serve.log"

    @property
    def audit(self) -> Path:
        return self.home.audit / auditlog.file_name(1)

    def audit_text(self) -> str:
        try:
            return self.audit.read_text("ascii")
        except FileNotFoundError:
            return ""

    def files(self) -> list[Path]:
        """All that was written at rest: the home and the proxy's log. Not the upstream's key."""
        return [self.log, *(path for path in self.home.root.rglob("*") if path.is_file())]

    def export_line(self) -> str:
        """For a shell: after this, any curl of the demo does what the demo did."""
        ca = shlex.quote(str(self.home.ca_certificate))
        proxy = f"http://{LOOPBACK}:{self.proxy_port}"
        return (
            f"export http_proxy={proxy} https_proxy={proxy} CURL_CA_BUNDLE={ca} NO_PROXY= no_proxy="
        )

    def run_line(self, request: Request) -> str:
        """The same through `coatcheck run`. Its NO_PROXY holds localhost; curl is told not to."""
        line = request.line(self.port(request.scheme)).replace("curl ", "curl --noproxy '' ", 1)
        return f"{program()} run --home {files.quoted(self.home.root)} -- {line}"

    def _ask(self, request: Request) -> Answer:
        """One request on a connection of its own."""
        port = self.port(request.scheme)
        connection: http.client.HTTPConnection
        if request.scheme == "https":
            connection = http.client.HTTPSConnection(
                LOOPBACK, self.proxy_port, timeout=ANSWER_S, context=self._context
            )
            connection.set_tunnel(request.host, port)
            target = request.target
        else:
            connection = http.client.HTTPConnection(LOOPBACK, self.proxy_port, timeout=ANSWER_S)
            target = request.url(port)
        body = request.body or None
        try:
            connection.request(request.method, target, body=body, headers=dict(request.fields))
            response = connection.getresponse()
            content = response.read().decode("utf-8", "replace")
            return Answer(response.status, tuple(response.getheaders()), content)
        except (OSError, http.client.HTTPException) as error:
            return Answer(error=type(error).__name__)
        finally:
            connection.close()

    def _new_audit_records(self) -> list[Mapping[str, Any]]:
        text = self.audit_text()
        fresh, self._audit_read = text[self._audit_read :], len(text)
        records = [json.loads(line) for line in fresh.splitlines()]
        return [record for record in records if record["event"] not in OWN_EVENTS]

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and process.poll() is None:
            said = state.read(self.home.run)
            if said is not None and said.get("pid") == process.pid:
                for _, port in _addresses(said):
                    return port
            time.sleep(0.05)
        ended = process.poll()
        how = f"ended with exit code {ended}" if ended is not None else "was not ready in time"
        last = self.log.read_text("utf-8", "replace").strip().splitlines()[-3:]
        raise DemoError(
            f"coatcheck serve {how}: {' / '.join(last) or 'it said nothing'}",
            hint="see what it says by itself: coatcheck init and coatcheck serve",
        )

    def _write_settings(self) -> None:
        """So that other commands with this home (`run`, `status`, `doctor`) find the proxy."""
        authority = json.dumps(str(self._authority))
        text = f"listen: {LOOPBACK}:{self.proxy_port}\nupstream_ca: {authority}\n"
        files.create_file(self.home.config, text.encode())


def serve_command(home: Path, upstream_ca: Path) -> list[str]:
    """The proxy as a person would start it, with ports that the system picks."""
    return [
        *(sys.executable, "-m", "coatcheck", "serve", "--home", str(home)),
        *("--listen", f"{LOOPBACK}:0", "--no-admin"),
        *("--upstream-ca", str(upstream_ca)),
    ]


def program() -> str:
    """How this program was called, for a shell."""
    called = Path(sys.argv[0])
    if called.name == "coatcheck":
        found = shutil.which("coatcheck")
        same = found is not None and Path(found).resolve() == called.resolve()
        return "coatcheck" if same else shlex.quote(str(called.absolute()))
    return shlex.join([sys.executable, "-m", "coatcheck"])


def find_values(values: Mapping[str, str], texts: Mapping[str, bytes]) -> list[str]:
    """Where a value stands, in any spelling that the scrubber knows.

    Args:
        texts: Name of the place to its content.
    """
    found = []
    for name, value in values.items():
        needles = Needles.build([SecretValue(name, 0, value.encode())])
        found += [
            f"{name} in {place}" for place, content in texts.items() if needles.contains(content)
        ]
    return found


def _trusting(authority: Path) -> ssl.SSLContext:
    # Not `create_default_context`: that one writes the keys to $SSLKEYLOGFILE.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority)
    return context


def _addresses(said: Mapping[str, object]) -> Iterator[tuple[str, int]]:
    listed = said.get("listen")
    for entry in listed if isinstance(listed, list) else ():
        yield str(entry[0]), int(entry[1])


def _clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Without what would point the child at somebody's real home, policy or store."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(OWN_PREFIX) and name not in KEY_LOGS
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
