"""`coatcheck doctor`: a fault is planted, and a row names it, with its remedy."""

from __future__ import annotations

import datetime
import json
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from coatcheck.cli import doctor_home, doctor_machine
from coatcheck.cli.doctor import examine
from coatcheck.cli.findings import Finding, Status, listed
from coatcheck.cli.main import app
from coatcheck.core.destination import parse_domain_pattern
from coatcheck.core.ports import Used
from coatcheck.observe import state
from coatcheck.store import ca
from coatcheck.store.home import Home, create_home
from coatcheck.store.sql import SqlStore

NOW = datetime.datetime.now(datetime.UTC)
VALUE = b"sk_live_9f8A7b6C5d4E3f2G"
POLICY = """\
version: 1
clients:
  local: {networks: ["127.0.0.1/32"]}
grants:
  - {secrets: ["crm.*"], clients: [local], in: ["header:authorization"]}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with a secret that a client may use."""
    made = create_home(tmp_path_factory.mktemp("model") / "home", now=time.time()).home
    made.policy.write_text(POLICY)
    made.config.write_text("listen: 127.0.0.1:0\n")
    put(made, "crm.key", VALUE)
    return made


@pytest.fixture
def home(model: Home, tmp_path: Path) -> Home:
    shutil.copytree(model.root, tmp_path / "home")
    return Home(tmp_path / "home")


@pytest.fixture(autouse=True)
def no_core_dumps() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, before)


def put(home: Home, name: str, value: bytes, *domains: str) -> None:
    patterns = [parse_domain_pattern(text) for text in domains or ("api.crm.example",)]
    store = SqlStore.open(home.store, public=home.read_public_key())
    store.put(name, value, domains=patterns, description="", now=time.time())
    store.close()


def used(home: Home, name: str, when: datetime.datetime) -> None:
    store = SqlStore.open(home.store, public=home.read_public_key())
    (secret,) = [one for one in store.secrets() if one.name == name]
    store.record_use({secret.id: Used(when.timestamp(), 1)})
    store.close()


def nowhere(home: Home, name: str) -> None:
    store = SqlStore.open(home.store, public=home.read_public_key())
    store.put(name, VALUE, domains=None, description="", now=time.time())
    store.close()


def rows(home: Home, now: datetime.datetime = NOW, **environ: str) -> list[Finding]:
    return list(examine(home.root, environ, now))


def bad(found: list[Finding]) -> list[Finding]:
    """What is not ok; that no proxy runs is told of every home here, and there is no canary in what
    stands for one (`test_doctor_canary` has real ones)."""
    told = ("none is running", "were not tried")
    return [
        f
        for f in found
        if f.status is not Status.OK and not (f.remedy and any(text in f.found for text in told))
    ]


# --- a healthy home ------------------------------------------------------------------------------


def test_a_healthy_home_has_nothing_to_mend(home: Home) -> None:
    found = rows(home)

    assert bad(found) == []
    assert {f.check for f in found} == {
        *("versions", "key_log", "home", "modes", "keys", "ca", "audit", "store", "policy"),
        *("certifi", "clock", "names", "core_dumps", "upstream_ca", "port", "proxy"),
    }
    (store,) = [f for f in found if f.check == "store"]
    assert store.found == "1 secret; every value opens"


def test_a_home_just_made_has_no_failure(tmp_path: Path) -> None:
    create_home(tmp_path / "home", now=time.time())

    found = rows(Home(tmp_path / "home"))

    assert [f for f in found if f.status is Status.FAIL and f.check != "port"] == []


def test_replaced_values_are_opened_too(home: Home) -> None:
    put(home, "crm.key", VALUE + b"2")

    (store,) = [f for f in rows(home) if f.check == "store"]

    assert store.found == "1 secret; every value opens, and 1 replaced ones"


def test_nothing_is_changed(home: Home) -> None:
    def stamps() -> dict[str, tuple[int, int]]:
        """-shm is SQLite's shared memory, made anew by every reader."""
        return {
            str(path): (path.stat().st_mtime_ns, path.stat().st_mode)
            for path in home.root.rglob("*")
            if path.is_file() and not path.name.endswith(("-shm", "-wal"))
        }

    before = stamps()
    rows(home)

    assert stamps() == before


@pytest.mark.parametrize(
    ("change", "days"),
    [
        pytest.param(
            lambda home: put(home, "crm.gh", VALUE, "api.github.com"),
            0,
            id="a secret for a host that can publish, in a header alone",
        ),
        pytest.param(
            lambda home: used(home, "crm.key", NOW + datetime.timedelta(days=90)),
            100,
            id="an old secret that is used",
        ),
    ],
)
def test_nothing_to_mend_in(change: Callable[[Home], object], days: int, home: Home) -> None:
    change(home)

    found = bad(rows(home, NOW + datetime.timedelta(days=days)))

    assert [f for f in found if f.check in ("grants", "secrets")] == []


# --- planted faults ------------------------------------------------------------------------------


@dataclass
class Fault:
    """What is done to a healthy home, and the row that must come of it."""

    plant: Callable[[Home], object]
    check: str
    status: Status
    found: str  # a regular expression, somewhere in the text
    remedy: str
    environ: dict[str, str] = field(default_factory=dict)
    days: float = 0  # that pass before the doctor looks


def mode(bits: int, name: str) -> Callable[[Home], object]:
    return lambda home: (home.root / name).chmod(bits)


def remove(name: str) -> Callable[[Home], object]:
    return lambda home: (home.root / name).unlink()


def write(name: str, content: str) -> Callable[[Home], object]:
    return lambda home: (home.root / name).write_text(content)


def policy(old: str, new: str) -> Callable[[Home], object]:
    assert old in POLICY
    return write("policy.yaml", POLICY.replace(old, new))


def do_nothing(_: Home) -> None:
    """The fault is elsewhere."""


def keys_of_another_home(home: Home) -> None:
    from coatcheck.store.sealing import generate_key

    home.private_key.write_bytes(generate_key().to_bytes())


def both_keys_of_another_home(home: Home) -> None:
    from coatcheck.store.sealing import generate_key

    key = generate_key()
    home.private_key.write_bytes(key.to_bytes())
    home.public_key.write_bytes(key.public.to_bytes())


def another_ca(home: Home) -> None:
    home.ca_certificate.write_bytes(ca.make(NOW)[1])


def ca_key_of_another(home: Home) -> None:
    home.ca_key.write_bytes(ca.make(NOW)[0] + home.ca_certificate.read_bytes())


def values_of_another_domain(home: Home) -> None:
    """Somebody with write access to the file points a value somewhere else."""
    import sqlite3

    connection = sqlite3.connect(home.store)
    connection.execute("""UPDATE secrets SET domains = '["evil.example"]'""")
    connection.commit()
    connection.close()


def damage_the_store(home: Home) -> None:
    home.store.write_bytes(b"SQLite format 3\0" + b"x" * 4096)


def link_the_policy_folder(home: Home) -> None:
    home.policy.unlink()
    home.policy.mkdir()


def two_secrets(home: Home) -> None:
    nowhere(home, "crm.one")
    nowhere(home, "crm.two")


def short_secret(home: Home) -> None:
    put(home, "crm.pin", b"7-bytes")


def stale_state(home: Home) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    state.write(home.run, {"pid": ended.pid, "listen": [["127.0.0.1", 1]]})


def state_of_another_program(home: Home) -> None:
    """Our process number now belongs to process 1."""
    state.write(home.run, {"pid": 1, "listen": [["127.0.0.1", 1]]})


def no_pem(home: Home) -> None:
    (home.root / "extra.pem").write_text("no certificate")
    home.config.write_text("listen: 127.0.0.1:0\nupstream_ca: extra.pem\n")


def expired_roots(home: Home) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "old")])
    day = datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - 3 * day)
        .not_valid_after(NOW - day)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (home.root / "extra.pem").write_bytes(pem)
    home.config.write_text("listen: 127.0.0.1:0\nupstream_ca: extra.pem\n")


FAIL, WARN = Status.FAIL, Status.WARN
FAULTS = {
    "no home": Fault(
        lambda home: shutil.rmtree(home.root), "home", FAIL, "there is no folder", "coatcheck init"
    ),
    "home open to others": Fault(
        mode(0o755, "."), "home", FAIL, "mode 0755: others may open it", r"chmod 700 .*/home"
    ),
    "home is a file": Fault(
        lambda home: (shutil.rmtree(home.root), home.root.write_text("")),
        *("home", FAIL, "is no folder", "--home"),
    ),
    "sealing key open to others": Fault(
        mode(0o640, "sealing.key"),
        "modes",
        FAIL,
        "its group may open it",
        "chmod 600 .*sealing.key",
    ),
    "CA key open to others": Fault(
        mode(0o604, "ca/mitmproxy-ca.pem"),
        "modes",
        FAIL,
        "others may open it",
        "chmod 600 .*ca.pem",
    ),
    "CA certificate writable for others": Fault(
        mode(0o646, "ca/mitmproxy-ca-cert.pem"), "modes", FAIL, "others may write it", "chmod 600"
    ),
    "audit folder open to others": Fault(
        mode(0o750, "audit"), "modes", FAIL, "audit has mode 0750", "chmod 700 .*audit"
    ),
    "no sealing key": Fault(
        remove("sealing.key"), "keys", FAIL, "there is no file .*sealing.key", "restore it"
    ),
    "no public key": Fault(
        remove("sealing.pub"), "keys", FAIL, "there is no file .*sealing.pub", "restore it"
    ),
    "a sealing key that is none": Fault(
        write("sealing.key", "junk"), "keys", FAIL, "sealing.key", "restore"
    ),
    "keys that are no pair": Fault(
        keys_of_another_home, "keys", FAIL, "are no pair", "restore both from a backup"
    ),
    "no CA certificate": Fault(
        remove("ca/mitmproxy-ca-cert.pem"), "ca", FAIL, "there is no file", "restore it"
    ),
    "a CA certificate that is none": Fault(
        write("ca/mitmproxy-ca-cert.pem", "junk"), "ca", FAIL, "no certificate", "restore .*/ca"
    ),
    "two CAs": Fault(another_ca, "ca", FAIL, "of two authorities", "restore .*/ca"),
    "a CA key of another CA": Fault(
        ca_key_of_another, "ca", FAIL, "of two authorities", "restore .*/ca"
    ),
    "CA expired": Fault(
        do_nothing, "ca", FAIL, r"expired on \d{4}-", "coatcheck ca export", days=5 * 365 + 1
    ),
    "CA about to expire": Fault(
        do_nothing,
        "ca",
        WARN,
        r"expires in \d+ days",
        "coatcheck init --home NEW",
        days=5 * 365 - 20,
    ),
    "CA of the future": Fault(
        do_nothing, "ca", FAIL, "valid only from", "set this machine's clock", days=-3
    ),
    "clock behind": Fault(
        do_nothing, "clock", FAIL, "the CA became valid on", "timedatectl", days=-3
    ),
    "clock years behind": Fault(
        do_nothing, "clock", FAIL, "certifi was released on", "timedatectl", days=-3650
    ),
    "old public roots": Fault(
        do_nothing, "certifi", WARN, r"are \d+ days old", "pip install --upgrade certifi", days=800
    ),
    "no store": Fault(
        remove("store.db"), "store", FAIL, "there is no store", "restore it from a backup"
    ),
    "a store that is none": Fault(damage_the_store, "store", FAIL, "store.db", "."),
    "store open to others": Fault(
        mode(0o644, "store.db"), "store", FAIL, "others may open it", "chmod 600 .*store.db"
    ),
    "store of another home": Fault(
        both_keys_of_another_home, "store", FAIL, "is from another home", "."
    ),
    "a value that does not open": Fault(
        values_of_another_domain, "store", FAIL, "cannot be opened: crm.key; ", "."
    ),
    "secrets without domains": Fault(
        two_secrets,
        "secrets",
        WARN,
        "allowed nowhere: crm.one, crm.two",
        "secret set NAME --domain",
    ),
    "a short value": Fault(
        short_secret, "secrets", WARN, "shorter than 8 bytes, .*: crm.pin$", "a longer one"
    ),
    "no policy": Fault(
        remove("policy.yaml"), "policy", FAIL, "policy.yaml", "coatcheck init|--policy"
    ),
    "policy is a folder": Fault(link_the_policy_folder, "policy", FAIL, "policy.yaml", "."),
    "policy with a mistake": Fault(
        policy("secrets:", "secret:"), "policy", FAIL, r"policy.yaml:5:\d+: ", "secrets"
    ),
    "policy wider than meant": Fault(
        policy("crm.*", "*"), "policy", WARN, "policy.yaml:5: .*every secret", "name them"
    ),
    "policy writable for others": Fault(
        mode(0o666, "policy.yaml"), "policy", WARN, "others may decide", "chmod go-w .*policy.yaml"
    ),
    "a grant for a secret that does not exist": Fault(
        policy('"crm.*"', '"crm.*", "cmr.key"'),
        *("grants", WARN, "policy.yaml:5: there is no secret 'cmr.key'", "secret set NAME"),
    ),
    "a grant for hosts that are not the secret's": Fault(
        policy("in:", 'hosts: ["api.erp.example"], in:'),
        *("grants", WARN, "none of the allowed domains of crm.key", "both must hold"),
    ),
    "a secret whose own domain can publish, in any place": Fault(
        lambda home: (
            put(home, "crm.gh", VALUE, "api.github.com"),
            policy(', in: ["header:authorization"]', "")(home),
        ),
        *("grants", WARN, "policy.yaml:5: api.github.com, where crm.gh may go", "header:auth"),
    ),
    "a secret that no grant names": Fault(
        lambda home: put(home, "erp.key", VALUE),
        *("secrets", WARN, "no grant names erp.key$", "coatcheck secret delete NAME"),
    ),
    "a secret that nobody uses": Fault(
        do_nothing,
        *("secrets", WARN, "not used for 90 days: crm.key$", "coatcheck secret delete NAME"),
        days=91,
    ),
    "a client without a grant": Fault(
        policy("grants:", f"  ci: {{token: 'sha256:{'0' * 64}'}}\ngrants:"),
        *("clients", WARN, "no grant names ci", "add the client to clients:"),
    ),
    "a client that cannot connect": Fault(
        policy("127.0.0.1/32", "10.1.0.0/16"),
        *("clients", WARN, "local can never connect", "listen: HOST:PORT"),
    ),
    "a policy without clients": Fault(
        write("policy.yaml", "version: 1\n"),
        "clients",
        WARN,
        "knows no client",
        "client token NAME",
    ),
    "settings with a mistake": Fault(
        write("coatcheck.yaml", "lisen: 127.0.0.1:8080\n"), "settings", FAIL, "lisen", "listen"
    ),
    "a variable with a mistake": Fault(
        do_nothing,
        *("settings", FAIL, "COATCHECK_LISTEN", "HOST:PORT"),
        environ={"COATCHECK_LISTEN": "here"},
    ),
    "upstream_ca missing": Fault(
        write("coatcheck.yaml", "listen: 127.0.0.1:0\nupstream_ca: nowhere.pem\n"),
        *("upstream_ca", FAIL, "cannot read .*nowhere.pem", "readable PEM file"),
    ),
    "upstream_ca holds no certificate": Fault(
        no_pem, "upstream_ca", FAIL, "holds no certificate", "readable PEM file"
    ),
    "upstream_ca expired": Fault(
        expired_roots, "upstream_ca", WARN, "1 of 1 certificates", "put the current ones"
    ),
    "listen is not ours": Fault(
        write("coatcheck.yaml", "listen: 192.0.2.1:8080\n"),
        *("port", FAIL, "cannot listen on 192.0.2.1:8080", "no such address"),
    ),
    "the proxy was killed": Fault(
        stale_state, "proxy", WARN, "ended without saying so", "coatcheck serve --home"
    ),
    "the proxy's number is another program's": Fault(
        state_of_another_program, "proxy", WARN, "process 1 ended", "coatcheck serve --home"
    ),
    "key log": Fault(
        do_nothing,
        *("key_log", FAIL, "^SSLKEYLOGFILE is set", "unset SSLKEYLOGFILE"),
        environ={"SSLKEYLOGFILE": "/tmp/keys"},
    ),
    "mitmproxy's key log": Fault(
        do_nothing,
        *("key_log", FAIL, "^MITMPROXY_SSLKEYLOGFILE is set", "unset MITMPROXY_SSLKEYLOGFILE"),
        environ={"MITMPROXY_SSLKEYLOGFILE": "/tmp/keys"},
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_found_and_has_a_remedy(home: Home, fault: Fault) -> None:
    fault.plant(home)

    found = bad(rows(home, NOW + datetime.timedelta(days=fault.days), **fault.environ))

    (row, *_) = [
        f for f in found if f.check == fault.check and re.search(fault.found, f.found)
    ] or [pytest.fail(f"not found: {found}")]
    assert row.status is fault.status
    assert re.search(fault.remedy, row.remedy), row
    assert all(f.remedy for f in found), "each has a next step"
    assert not [f for f in found if "the check itself failed" in f.found]
    assert VALUE.decode() not in repr(found)


# --- a running proxy -----------------------------------------------------------------------------


@contextmanager
def a_process(home: Home, *, core: int = 0, **said: object) -> Iterator[int]:
    """A process that looks like a proxy of *home*, with *said* in its state file."""
    program = (
        "import resource, time;"
        f"resource.setrlimit(resource.RLIMIT_CORE, ({core}, {core})); time.sleep(60)  # coatcheck"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        state.write(home.run, {"pid": process.pid, **said})
        time.sleep(0.3)  # for the limit
        yield process.pid
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_running_proxy_is_known_and_its_port_is_ours(home: Home, listener: int) -> None:
    home.config.write_text(f"listen: 127.0.0.1:{listener}\n")

    with a_process(home, listen=[["127.0.0.1", listener]]) as pid:
        found = rows(home)

    texts = {f.check: f.found for f in found}
    assert bad(found) == []
    assert texts["proxy"] == f"process {pid} listens on 127.0.0.1:{listener}"
    assert texts["port"] == f"127.0.0.1:{listener} is our own proxy's"


def test_a_taken_port_is_told(home: Home, listener: int) -> None:
    home.config.write_text(f"listen: 127.0.0.1:{listener}\n")

    (row,) = bad(rows(home))

    assert (row.check, row.status) == ("port", Status.FAIL)
    assert row.found == f"cannot listen on 127.0.0.1:{listener}: Address already in use"
    assert "ss -ltnp" in row.remedy


def test_a_proxy_that_takes_no_connections_is_told(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with a_process(home, listen=[["127.0.0.1", port]]) as pid:
        (row,) = bad(rows(home))

    assert (row.check, row.status) == ("proxy", Status.FAIL)
    assert "does not take connections" in row.found
    assert f"kill {pid}" in row.remedy


@pytest.mark.parametrize("part", ["policy", "store"])
def test_a_proxy_that_goes_on_with_what_it_had_is_told(
    home: Home, listener: int, part: str
) -> None:
    said = {part: {"error": "line 3 is broken"}}
    with a_process(home, listen=[["127.0.0.1", listener]], **said):
        (row,) = bad(rows(home))

    assert row.found == f"it goes on with an older {part}: line 3 is broken"
    assert row.remedy == f"mend the {part}; it is read again at once"


def worker(number: int, pid: int | None) -> dict[str, object]:
    return {"number": number, "pid": pid, "ready": pid is not None, "last_end": "SIGKILL"}


@pytest.mark.parametrize(
    ("pids", "finding"),
    [
        pytest.param([1, 2], None, id="none"),
        pytest.param([1, None], (Status.WARN, "worker 2 does not run"), id="one of them"),
        pytest.param([None, None], (Status.FAIL, "does not take connections"), id="all of them"),
    ],
)
def test_workers_that_are_down_are_told(
    home: Home, listener: int, pids: list[int | None], finding: tuple[Status, str] | None
) -> None:
    workers = [worker(number, pid) for number, pid in enumerate(pids, 1)]
    with a_process(home, listen=[["127.0.0.1", listener]], workers=workers):
        found = [row for row in bad(rows(home)) if row.check == "proxy"]

    assert [row.status for row in found] == ([finding[0]] if finding else [])
    assert all(finding and finding[1] in row.found for row in found)


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="there is no /proc")
def test_a_worker_that_may_dump_core_is_told(home: Home, listener: int) -> None:
    with a_process(home, core=4096) as other:
        workers = [worker(1, other)]
        with a_process(home, listen=[["127.0.0.1", listener]], workers=workers):
            (row,) = bad(rows(home))

    assert row.found == f"process {other} may write a core dump (limit: 4096 bytes)"


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="there is no /proc")
def test_a_proxy_that_may_dump_core_is_told(home: Home, listener: int) -> None:
    with a_process(home, core=4096, listen=[["127.0.0.1", listener]]) as pid:
        (row,) = bad(rows(home))

    assert (row.check, row.status) == ("core_dumps", Status.FAIL)
    assert row.found == f"process {pid} may write a core dump (limit: 4096 bytes)"


def test_core_dumps_of_the_shell_are_told(home: Home) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == 0:
        pytest.skip("core dumps cannot be switched on here")
    resource.setrlimit(resource.RLIMIT_CORE, (hard if hard > 0 else 4096, hard))

    (row,) = bad(rows(home))

    assert (row.check, row.status, row.remedy) == ("core_dumps", Status.WARN, "ulimit -c 0")


# --- the machine ---------------------------------------------------------------------------------


def test_names_that_cannot_be_looked_up_are_told(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(doctor_machine.socket, "getaddrinfo", fails)

    (row,) = doctor_machine.check_names()

    assert row.status is Status.FAIL
    assert "Temporary failure" in row.found
    assert "/etc/hosts" in row.remedy


def test_slow_names_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine, "SLOW_S", -1.0)

    (row,) = doctor_machine.check_names()

    assert row.status is Status.WARN
    assert "/etc/resolv.conf" in row.remedy


def test_only_localhost_is_looked_up_and_only_loopback_is_dialled(
    home: Home, listener: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    look_up, connect = socket.getaddrinfo, socket.socket.connect

    def noted(host: object, *rest: object, **more: object) -> object:
        asked.append(host)
        return look_up(host, *rest, **more)  # type: ignore[arg-type]

    def dialled(self: socket.socket, address: tuple[str, int]) -> None:
        asked.append(address[0])
        connect(self, address)

    monkeypatch.setattr(socket, "getaddrinfo", noted)
    monkeypatch.setattr(socket.socket, "connect", dialled)
    with a_process(home, listen=[["127.0.0.1", listener]]):
        rows(home)

    assert set(asked) == {"localhost", "127.0.0.1"}


@pytest.mark.parametrize(
    ("package", "version", "remedy"),
    [
        ("mitmproxy", "12.2.2", "pip install 'mitmproxy>=12.2.3,<13'"),
        ("mitmproxy", "13.0.0", "pip install 'mitmproxy>=12.2.3,<13'"),
        ("mitmproxy", "(not installed)", "pip install 'mitmproxy>=12.2.3,<13'"),
        ("cryptography", "49.0.0", "pip install 'cryptography>=48,<49'"),
    ],
)
def test_another_version_of_what_we_stand_on_is_told(
    home: Home, monkeypatch: pytest.MonkeyPatch, package: str, version: str, remedy: str
) -> None:
    real = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: version if name == package else real(name)
    )

    (row,) = bad(rows(home))

    assert (row.check, row.status, row.remedy) == ("versions", Status.FAIL, remedy)
    assert f"{package} {version}" in row.found


def test_an_old_python_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine, "PYTHON_LEAST", (3, 99))

    (row,) = bad(rows(home))

    assert (row.check, row.remedy) == ("versions", "run it with Python >= 3.99")


def test_the_versions_are_those_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]

    assert project["requires-python"] == f">={doctor_machine._dotted(doctor_machine.PYTHON_LEAST)}"
    for package, (least, below) in doctor_machine.PINNED.items():
        wanted = f"{package}>={doctor_machine._dotted(least)},<{doctor_machine._dotted(below)}"
        assert wanted in project["dependencies"]


def test_missing_roots_are_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certifi, "where", lambda: "/nowhere/cacert.pem")

    (row,) = bad(rows(home))

    assert (row.check, row.status) == ("certifi", Status.FAIL)


def test_a_full_disk_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_home, "ROOM", 1 << 62)

    (row,) = bad(rows(home))

    assert (row.check, row.status) == ("audit", Status.WARN)
    assert "make room" in row.remedy


def test_an_admin_home_needs_no_private_key(home: Home) -> None:
    home.private_key.unlink()

    found = rows(home, COATCHECK_ROLE="admin")

    assert bad(found) == []
    assert "1 secret; values cannot be opened here" in [f.found for f in found]


@pytest.mark.parametrize(
    ("hosts", "domains", "meet"),
    [
        ("api.example.com", "api.example.com", True),
        ("*.example.com", "api.example.com", True),
        ("api.example.com", "*.example.com", True),
        ("*.a.example.com", "*.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "*.example.org", False),
        ("api.example.com:8443", "api.example.com", False),
        ("api.example.com:8443", "*.example.com:8443", True),
        ("api.example.com:8443", "*", True),
        ("api.example.com:443", "api.example.com", True),
    ],
)
def test_hosts_and_domains_meet(hosts: str, domains: str, meet: bool) -> None:
    one, other = parse_domain_pattern(hosts), parse_domain_pattern(domains)

    assert doctor_home._overlap(one, other) is doctor_home._overlap(other, one) is meet


# --- the command ---------------------------------------------------------------------------------


def test_warnings_alone_end_with_0_and_a_failure_with_1(home: Home) -> None:
    def code() -> int:
        return CliRunner().invoke(app, ["doctor", "--home", str(home.root)]).exit_code

    assert code() == 0
    home.root.chmod(0o755)
    assert code() == 1


def test_a_row_is_printed_with_its_remedy_below(home: Home) -> None:
    home.private_key.chmod(0o644)

    done = CliRunner().invoke(app, ["doctor", "--home", str(home.root)])

    lines = done.stdout.splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.startswith("fail  modes")]
    assert lines[at + 1].strip() == f"-> chmod 600 {home.private_key}"
    assert re.fullmatch(r"\d+ ok, \d+ to look at, [1-9]\d* wrong", lines[-1])


def test_json_has_the_same_rows(home: Home) -> None:
    done = CliRunner().invoke(app, ["doctor", "--home", str(home.root), "--format", "json"])

    found = json.loads(done.stdout)
    assert {"check": "home", "status": "ok", "found": str(home.root), "remedy": ""} in found
    assert {row["status"] for row in found} <= {"ok", "warn", "fail"}


def test_a_check_that_breaks_is_a_row_and_the_others_go_on(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its text is not shown: an exception may quote what it choked on."""

    def breaks(*_: object) -> None:
        raise ValueError(VALUE.decode())

    monkeypatch.setattr(doctor_home, "check_ca", breaks)

    found = rows(home)

    (row,) = bad(found)
    assert (row.check, row.found) == ("ca", "the check itself failed (ValueError)")
    assert {"store", "proxy"} <= {f.check for f in found}


def test_it_does_not_import_the_proxy() -> None:
    program = (
        "import coatcheck.cli.doctor_home, coatcheck.cli.doctor_machine, sys\nprint(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert "mitmproxy" not in done.stdout.split()


@pytest.mark.parametrize(
    ("names", "text"),
    [(["a"], "a"), (list("abcde"), "a, b, c, d, e"), (list("abcdefg"), "a, b, c, d, e and 2 more")],
)
def test_long_lists_are_cut(names: list[str], text: str) -> None:
    assert listed(names) == text
