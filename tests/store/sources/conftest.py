from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest
import trustme
from moto.server import ThreadedMotoServer

from tests.store.sources.clouds import Tls
from tests.store.sources.vaults import Vault


@pytest.fixture(scope="session")
def moto_server() -> Iterator[ThreadedMotoServer]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    authority = trustme.CA()
    path = tmp_path_factory.mktemp("clouds") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return Tls(context, path)


@pytest.fixture
def vault() -> Iterator[Vault]:
    made = Vault()
    yield made
    made.close()
