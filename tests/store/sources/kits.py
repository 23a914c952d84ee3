"""Each kind of source, and what its keeper does with it: put a value there, take it away, break it.

The adapter is made as the program makes it: of the text of a sources file.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import boto3
import pytest
from moto.server import ThreadedMotoServer

from coatcheck.sourcefile import Declared, parse_text
from tests.store.sources.clouds import (
    CLIENT,
    CLIENT_SECRET,
    PROJECT,
    TENANT,
    Google,
    Microsoft,
    Tls,
)
from tests.store.sources.vaults import ROLE, SECRET_ID, Vault

TIMEOUT_S = 1.0


class Kit(Protocol):
    """One kind of source, with one secret in it."""

    text: str  # of the sources file
    credentials: tuple[str, ...]  # what must not be shown

    def put(self, value: str) -> None: ...
    def take_away(self) -> None: ...
    def break_down(self) -> None: ...
    def mend(self) -> None: ...


def declared(kit: Kit, folder: Path) -> Declared:
    return parse_text(kit.text, "sources.yaml", folder).secrets[0]


class Env:
    text = """
version: 1
secrets:
  key: {domains: [api.example.com], source: env, variable: A_KEY}
"""
    credentials = ()

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def put(self, value: str) -> None:
        self._monkeypatch.setenv("A_KEY", value)

    def take_away(self) -> None:
        self._monkeypatch.delenv("A_KEY")


class File:
    """As Kubernetes mounts it: the file is a link through ``..data``, which is swapped."""

    credentials = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "mounted"
        self.folder.mkdir()
        self._round = 0
        self.text = f"""
version: 1
sources:
  mounted: {{kind: file, folder: {self.folder}}}
secrets:
  key: {{domains: [api.example.com], source: mounted, file: the-key}}
"""

    def put(self, value: str) -> None:
        self._swap(value)
        link = self.folder / "the-key"
        if not link.is_symlink():
            link.symlink_to("..data/the-key")

    def take_away(self) -> None:
        self._swap(None)

    def break_down(self) -> None:
        """What is there is a pipe that nobody writes to."""
        (self.folder / "the-key").unlink()
        os.mkfifo(self.folder / "the-key")

    def mend(self) -> None:
        (self.folder / "the-key").unlink()
        (self.folder / "the-key").symlink_to("..data/the-key")

    def _swap(self, value: str | None) -> None:
        self._round += 1
        new = self.folder / f"..2026_{self._round}"
        new.mkdir()
        if value is not None:
            (new / "the-key").write_text(value + "\n")
        (self.folder / "..data_tmp").symlink_to(new.name)
        (self.folder / "..data_tmp").rename(self.folder / "..data")


class Command:
    """A program that prints what stands in a file, and complains with all that it knows."""

    credentials = ("SENTINEL-of-the-command",)

    def __init__(self, folder: Path) -> None:
        self._value = folder / "value"
        self._broken = folder / "broken"
        program = folder / "fetch"
        program.write_text(
            "#!/bin/sh\n"
            f"if [ -e {self._broken} ]; then\n"
            'echo "SENTINEL-of-the-command" | tee /dev/stderr; exit 3; fi\n'
            f"cat {self._value} 2>&1 || exit 1\necho\n"
        )
        program.chmod(0o755)
        self.text = f"""
version: 1
secrets:
  key: {{domains: [api.example.com], source: command, command: [{program}]}}
"""

    def put(self, value: str) -> None:
        self._value.write_text(value)

    def take_away(self) -> None:
        self._value.unlink()

    def break_down(self) -> None:
        self._broken.touch()

    def mend(self) -> None:
        self._broken.unlink()


class VaultBy:
    """A Vault, by a token or by AppRole."""

    def __init__(self, folder: Path, vault: Vault, *, by_role: bool) -> None:
        self.vault = vault
        token = vault.token()
        (folder / "token").write_text(token + "\n")
        (folder / "role").write_text(ROLE)
        (folder / "secret-id").write_text(SECRET_ID + "\n")
        how = "role_id_file: role, secret_id_file: secret-id" if by_role else "token_file: token"
        self.credentials = (token, SECRET_ID, "SENTINEL")
        self.text = f"""
version: 1
sources:
  v: {{kind: vault, url: "{vault.url}", {how}, timeout_s: {TIMEOUT_S}}}
secrets:
  key: {{domains: [api.example.com], source: v, path: apps/crm, field: apiKey}}
"""

    def put(self, value: str) -> None:
        self.vault.put("apps/crm", apiKey=value, other="SENTINEL")

    def take_away(self) -> None:
        self.vault.delete("apps/crm")

    def break_down(self) -> None:
        self.vault.state.mode = "sealed"

    def mend(self) -> None:
        self.vault.state.mode = "well"


class AwsKit:
    """Secrets Manager as moto has it, behind a relay that can be cut."""

    credentials = ("AKIASENTINEL", "SENTINEL-of-aws")

    def __init__(self, server: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
        _, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", self.credentials[0])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", self.credentials[1])
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # not to be used
        self.relay = Relay(port)
        self.keeper: Any = boto3.client(
            "secretsmanager",
            region_name="eu-central-1",
            endpoint_url=f"http://127.0.0.1:{port}",
            config=boto3.session.Config(proxies={}),
        )
        self.text = f"""
version: 1
sources:
  a:
    kind: aws
    region: eu-central-1
    endpoint: "http://127.0.0.1:{self.relay.port}"
    timeout_s: {TIMEOUT_S}
secrets:
  key: {{domains: [api.example.com], source: a, id: prod/crm, field: apiKey}}
"""

    def put(self, value: str) -> None:
        text = json.dumps({"apiKey": value, "other": "SENTINEL-of-aws"})
        try:
            self.keeper.put_secret_value(SecretId="prod/crm", SecretString=text)
        except self.keeper.exceptions.ResourceNotFoundException:
            self.keeper.create_secret(Name="prod/crm", SecretString=text)

    def take_away(self) -> None:
        self.keeper.delete_secret(SecretId="prod/crm")

    def break_down(self) -> None:
        self.relay.cut(True)

    def mend(self) -> None:
        self.relay.cut(False)

    def forget(self) -> None:
        self.keeper.delete_secret(SecretId="prod/crm", ForceDeleteWithoutRecovery=True)


class GcpKit:
    """Secret Manager, by the key file of a service account."""

    def __init__(self, folder: Path, google: Google, ca: Path) -> None:
        self.google = google
        (folder / "account.json").write_text(google.service_account())
        private = json.loads(google.service_account())["private_key"]
        self.credentials = (private[40:80], "SENTINEL")
        self.text = f"""
version: 1
sources:
  g:
    kind: gcp
    project: {PROJECT}
    endpoint: "{google.url}"
    ca: {ca}
    credentials_file: account.json
    timeout_s: {TIMEOUT_S}
secrets:
  key: {{domains: [api.example.com], source: g, id: crm, field: apiKey}}
"""

    def put(self, value: str) -> None:
        self.google.put("crm", json.dumps({"apiKey": value, "other": "SENTINEL"}).encode())

    def take_away(self) -> None:
        self.google.take_away("crm")

    def break_down(self) -> None:
        self.google.state.mode = "down"

    def mend(self) -> None:
        self.google.state.mode = "well"


class AzureKit:
    """Key Vault, by a client secret."""

    def __init__(self, folder: Path, azure: Microsoft, ca: Path) -> None:
        self.azure = azure
        (folder / "client-secret").write_text(CLIENT_SECRET + "\n")
        self.credentials = (CLIENT_SECRET, "SENTINEL")
        self.text = f"""
version: 1
sources:
  k:
    kind: azure
    url: "{azure.url}"
    authority: "{azure.url}"
    ca: {ca}
    tenant: {TENANT}
    client_id: {CLIENT}
    client_secret_file: client-secret
    timeout_s: {TIMEOUT_S}
secrets:
  key: {{domains: [api.example.com], source: k, id: crm}}
"""

    def put(self, value: str) -> None:
        self.azure.put("crm", value.encode())

    def take_away(self) -> None:
        self.azure.take_away("crm")

    def break_down(self) -> None:
        self.azure.state.mode = "down"

    def mend(self) -> None:
        self.azure.state.mode = "well"


class Relay:
    """Carries connections to *port*, until it is cut: then none, those that are open neither."""

    def __init__(self, port: int) -> None:
        self._is_cut = False
        self._target = port
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def cut(self, is_cut: bool) -> None:
        self._is_cut = is_cut
        for sock in self._open if is_cut else ():
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._open = []

    def close(self) -> None:
        self._listener.close()
        self.cut(True)

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._is_cut:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._target))
            self._open += [client, server]
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError), source:
        while chunk := source.recv(65536):
            target.sendall(chunk)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@contextmanager
def a_kit(
    kind: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    moto: ThreadedMotoServer | None,
    tls: Tls | None = None,
) -> Iterator[Any]:
    match kind:
        case "env":
            yield Env(monkeypatch)
        case "file":
            yield File(folder)
        case "command":
            yield Command(folder)
        case "aws" if moto is not None:
            kit = AwsKit(moto, monkeypatch)
            yield kit
            kit.forget()
            kit.relay.close()
        case "gcp" if tls is not None:
            google = Google(tls.context)
            yield GcpKit(folder, google, tls.ca)
            google.close()
        case "azure" if tls is not None:
            azure = Microsoft(tls.context)
            yield AzureKit(folder, azure, tls.ca)
            azure.close()
        case _:
            vault = Vault()
            yield VaultBy(folder, vault, by_role=kind == "vault by AppRole")
            vault.close()
