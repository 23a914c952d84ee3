"""Runs the commands of a page as its reader does: one shell, top to bottom, in a network apart.

The shell lives in the world of the end-to-end tests (`tests/e2e/world.py`): the hosts that the
pages talk of exist there, port 8080 is free, and nothing leads out. So the commands are run as
they are written. Each command's stdin is the example's key, for those that ask for a value.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import select
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import coatcheck
from tests.docs.pages import ROOT
from tests.e2e.world import World

VALUE = "sk_live_4eC39HqLyjWDarjtT1zdp7dc"  # what the reader would type
HOSTS = {"api.example.com": "20.20.20.20", "other.example.com": "20.20.20.21"}
NETWORKS = ("20.20.20.0/24",)
LIMIT_S = 60.0  # for one command
_END = "--coatcheck-end-of-command--"
# Commands that stay: they get a terminal of their own, until the page ends.
_STAYS = re.compile(r"(coatcheck serve|mitmdump)\b")


class Session:
    """One shell. Use `close` at its end."""

    def __init__(self, world: World, folder: Path, variables: Mapping[str, str]) -> None:
        self.folder = folder
        self._world = world
        self._staying: list[subprocess.Popen[bytes]] = []
        self._environ = _environ(folder, variables)
        for name in ("addons", "config", "deploy", "bench"):
            (folder / name).symlink_to(ROOT / name)
        (folder / "key.txt").write_text(VALUE)
        self._shell = subprocess.Popen(
            world.enter(["bash", "--norc", "--noprofile"], folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environ,
            start_new_session=True,  # so that `close` ends what a command left running too
        )

    def run(self, command: str) -> tuple[int, list[str]]:
        """The exit code and the lines that *command* printed, stderr among them."""
        if _STAYS.match(command):
            self._start(command)
            return 0, []
        assert self._shell.stdin is not None
        script = f'{{\n{command}\n}} < key.txt\necho "{_END}$?"\n'
        self._shell.stdin.write(script.encode())
        self._shell.stdin.flush()
        printed, _, code = self._read().rpartition(_END)
        return int(code), printed.splitlines()

    def close(self) -> None:
        if self._shell.stdin is not None:
            self._shell.stdin.close()
        for process in [self._shell, *self._staying]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=20)
        if self._shell.stdout is not None:
            self._shell.stdout.close()

    def _read(self) -> str:
        assert self._shell.stdout is not None
        seen, deadline = b"", time.monotonic() + LIMIT_S
        while re.search(rb"%b\d+\n$" % _END.encode(), seen) is None:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._shell.stdout], [], [], max(left, 0))
            assert ready, f"no end within {LIMIT_S} s: {seen.decode()}"
            more = os.read(self._shell.stdout.fileno(), 65536)
            assert more, f"the shell has ended: {seen.decode()}"
            seen += more
        return seen.decode()

    def _start(self, command: str) -> None:
        log = self.folder / f"staying-{len(self._staying)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                self._world.enter(["bash", "-c", f"exec {command}"], self.folder),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self._environ,
                start_new_session=True,
            )
        self._staying.append(process)
        ready = b"serve.ready" if "serve" in command else b"store.loaded"
        deadline = time.monotonic() + LIMIT_S
        while ready not in log.read_bytes():
            assert process.poll() is None, f"{command} has ended: {log.read_text()}"
            assert time.monotonic() < deadline, f"{command} is not ready: {log.read_text()}"
            time.sleep(0.05)


class Api:
    """The API of the examples: it knows its user by the key, and sends it back, as some do."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        self._server = ThreadingHTTPServer(("", 0), _Careless, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = context.wrap_socket(listener, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Careless(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        basic = base64.b64encode(f"ada:{VALUE}".encode()).decode()
        places = self.headers.get("Authorization", ""), self.path.rpartition("?")[2]
        known = not {f"Bearer {VALUE}", f"Basic {basic}", f"key={VALUE}"}.isdisjoint(places)
        text = f'{{"user": "ada", "key": "{VALUE}"}}\n' if known else '{"user": null}\n'
        self.send_response(200 if known else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_POST(self) -> None:
        """A webhook that tells everyone where it lives."""
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        text = json.dumps({"posted": self.path}) + "\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Nothing: pytest's output is no access log."""


def agrees(printed: Sequence[str], said: Sequence[str]) -> bool:
    """Whether *printed* is what the page says; ``...`` stands for any text, or for any lines."""
    pattern = "\n".join(
        "\0" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") for line in said
    )
    pattern = pattern.replace("\0\n", "(?:.*\n)*").replace("\n\0", "(?:\n.*)*").replace("\0", ".*")
    return re.fullmatch(pattern, "\n".join(printed)) is not None


def _environ(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    programs = folder / "bin"
    programs.mkdir()
    for name, command in {
        "coatcheck": [sys.executable, "-m", "coatcheck"],
        "mitmdump": [sys.executable, "-c", "from mitmproxy.tools.main import mitmdump; mitmdump()"],
        "python": [sys.executable],
    }.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        (programs / name).chmod(0o755)
    source = str(Path(coatcheck.__file__).parents[1])
    kept = {"LANG": "C.UTF-8", "PYTHONPATH": source, "PYTHONWARNINGS": "", "COLUMNS": "120"}
    path = f"{programs}:{os.environ['PATH']}"
    return {**kept, "HOME": str(folder), "PATH": path, **variables}
