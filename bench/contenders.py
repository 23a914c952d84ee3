"""Who is measured, how each is started, and what it does with a request.

A contender that cannot be started is left out, with what it said: proxy.py is an extra that need
not be installed, and needs the program openssl.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import trustme

from bench.common import (
    COATCHECK,
    HOST,
    POLICY,
    VALUE,
    NotUp,
    Proxy,
    cpu_s,
    family,
    free_port,
    make_home,
    memory_mib,
    quietly,
    serve_coatcheck,
    start,
)
from bench.held import Held
from bench.load import Way
from bench.upstream import PLACEHOLDER, Ports
from coatcheck.core.destination import DomainPattern, parse_domain_pattern
from coatcheck.store.home import Home
from coatcheck.store.sql import SqlStore

ROOT = Path(__file__).resolve().parent.parent
NAIVE = ROOT / "tests" / "attacks" / "naive" / "addon.py"
STREAMING = Path(__file__).with_name("streaming_addon.py")
IN_SCOPE = 10  # secrets that are allowed at the upstream, bench.key among them
HELD = 0.3  # of a core: so that two and both ends do not fill two cores
NOWHERE = 1  # a port that nobody asks for


@dataclass(frozen=True)
class Stage:
    """What every contender is given."""

    folder: Path
    ca: Path  # of the upstream
    ports: Ports
    profile: Path | None = None  # a folder: coatcheck leaves there where its time went


@dataclass
class Running:
    """A contender that takes requests."""

    way: Way
    proxy: Proxy | None = None
    pid: int | None = None  # of a peer that somebody else has started
    profiled: bool = False
    held: Held | None = None

    @property
    def has_process(self) -> bool:
        return self.proxy is not None or self.pid is not None

    def cpu_s(self) -> float:
        return cpu_s(self.pids())

    def memory_mib(self, field: str) -> float:
        return sum(memory_mib(pid, field) for pid in self.pids())

    def begin_profile(self) -> None:
        """See `profiled`."""
        if self.profiled and self.proxy is not None:
            self.proxy.process.send_signal(signal.SIGUSR2)

    def stop(self) -> None:
        if self.held is not None:
            self.held.release()
        if self.proxy is not None:
            self.proxy.stop()

    def pids(self) -> list[int]:
        pid = self.proxy.process.pid if self.proxy else self.pid
        return [] if pid is None else family(pid)


@dataclass(frozen=True)
class Contender:
    """Who is measured.

    Attributes:
        does: What it does with a request.
        start: Makes it run, in a folder that it keeps.
        prepare: Makes what takes time and is no part of a start.
        most_mib: A larger body would take minutes.
    """

    name: str
    title: str
    does: str
    start: Callable[[Stage, Path], Running]
    prepare: Callable[[Stage, Path], None] = lambda _, __: None
    most_mib: int | None = None


def _direct(stage: Stage, _: Path) -> Running:
    return Running(Way(None, str(stage.ca), sees="placeholder"))


def _running(proxy: Proxy, sees: str) -> Running:
    return Running(Way(("127.0.0.1", proxy.port), str(proxy.ca), sees=sees), proxy)


def _mitmdump(*scripts: Path, sees: str, secrets: bool = False) -> Callable[[Stage, Path], Running]:
    def begin(stage: Stage, folder: Path) -> Running:
        port = free_port()
        options = {"confdir": folder, "ssl_verify_upstream_trusted_ca": stage.ca}
        if secrets:
            options["naive_secrets"] = folder / "secrets.json"
            values = {"bench.key": (VALUE, [HOST])}
            options["naive_secrets"].write_text(json.dumps(values))
        command: list[str | Path] = [Path(sys.executable).with_name("mitmdump"), "-q"]
        command += ["--listen-host", "127.0.0.1", "-p", str(port)]
        for script in scripts:
            command += ["-s", script]
        for name, value in options.items():
            command += ["--set", f"{name}={value}"]
        process = start(command, port, folder / "log")
        return _running(Proxy("mitmdump", port, folder / "mitmproxy-ca-cert.pem", process), sees)

    return begin


def _proxy_py(stage: Stage, folder: Path) -> Running:
    if importlib.util.find_spec("proxy") is None:
        raise NotUp("the package proxy.py is not installed")
    openssl = shutil.which("openssl")
    if openssl is None:
        raise NotUp("it needs the program openssl")
    ca, ca_key, leaf_key = (folder / name for name in ("ca.pem", "ca-key.pem", "leaf-key.pem"))
    if not ca.exists():
        new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=bench"]
        quietly([openssl, *new, "-keyout", ca_key, "-out", ca])
        quietly([openssl, "genrsa", "-out", leaf_key, "2048"])
    port = free_port()
    options: Mapping[str, object] = {
        "hostname": "127.0.0.1",
        "port": port,
        "num-workers": 1,
        "num-acceptors": 1,
        "timeout": 120,
        "log-level": "ERROR",
        "ca-cert-file": ca,
        "ca-key-file": ca_key,
        "ca-signing-key-file": leaf_key,
        "ca-cert-dir": folder / "certificates",
        "ca-file": stage.ca,
        "data-dir": folder / "data",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    process = start([sys.executable, "-m", "proxy", *words], port, folder / "log")
    return _running(Proxy("proxy.py", port, ca, process), "placeholder")


def _relay(stage: Stage, folder: Path) -> Running:
    leaf, ca = folder / "leaf.pem", folder / "ca.pem"
    if not ca.exists():
        authority = trustme.CA()
        authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(leaf)
        authority.cert_pem.write_to_path(ca)
    port = free_port()
    words = ["-m", "bench.relay", str(port), str(leaf), str(stage.ca)]
    process = start([sys.executable, *words], port, folder / "log")
    return _running(Proxy("relay", port, ca, process), "placeholder")


def _coatcheck(
    name: str,
    title: str,
    does: str,
    *,
    count: int = IN_SCOPE,
    in_scope: int = IN_SCOPE,
    workers: int = 1,
    share: float | None = None,
) -> Contender:
    """With *count* secrets, of which *in_scope* are allowed at the upstream.

    Args:
        share: Of a core, for each worker; see `held`.
    """

    def prepare(stage: Stage, folder: Path) -> None:
        if not (folder / "home").exists():
            _fill(stage, folder / "home", count, in_scope)

    def begin(stage: Stage, folder: Path) -> Running:
        options = ["--workers", str(workers)] if workers != 1 else []
        program: Sequence[str] = COATCHECK
        if stage.profile is not None:
            file = stage.profile / f"{name}.profile.txt"
            program = [sys.executable, "-m", "bench.profiled", str(file)]
        home, log = folder / "home", folder / "log"
        proxy = serve_coatcheck(home, stage.ca, log, *options, program=program)
        running = replace(_running(proxy, "value"), profiled=stage.profile is not None)
        return running if share is None else _held(running, workers, share)

    return Contender(name, title, does, begin, prepare)


def _held(running: Running, workers: int, share: float) -> Running:
    try:
        pids = running.pids()
        # With several, the first is the supervisor, which no request passes through.
        return replace(running, held=Held(pids[1:] if workers > 1 else pids, share))
    except NotUp:
        running.stop()
        raise


def _fill(stage: Stage, home: Path, count: int, in_scope: int) -> None:
    """Made once and copied: it takes a second, and has the same authority everywhere."""
    model = stage.folder / "home"
    if not model.exists():
        policy = POLICY.replace("clients: [local]", "clients: [local], plaintext: true")
        make_home(model, policy)
    shutil.copytree(model, home)
    place = Home(home)
    store = SqlStore.open(place.store, public=place.read_public_key())
    try:
        store.put_many(_secrets(stage.ports, count, in_scope), now=time.time())
    finally:
        store.close()


def _secrets(
    ports: Ports, count: int, in_scope: int
) -> Iterator[tuple[str, bytes, list[DomainPattern]]]:
    here = [parse_domain_pattern(f"{HOST}:{port}") for port in (ports.tls, ports.plain)]
    elsewhere = [parse_domain_pattern(f"{HOST}:{NOWHERE}")]
    yield "bench.key", VALUE.encode(), here
    for number in range(1, count):
        value = b"sk_live_" + os.urandom(16).hex().encode()
        yield f"more.key{number}", value, here if number < in_scope else elsewhere


_FILLS_IN = "injects the value into the header, searches the answer, writes the audit log"
CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("direct", "no proxy", "the client asks the upstream itself", _direct),
        Contender(
            "stock",
            "mitmdump -q",
            "hands the placeholder on; takes in a body as a whole",
            _mitmdump(sees="placeholder"),
        ),
        Contender(
            "streaming",
            "mitmdump -q, streaming",
            "hands the placeholder on, and a body as it comes",
            _mitmdump(STREAMING, sees="placeholder"),
        ),
        Contender(
            "naive",
            "mitmdump, naive addon",
            "injects and masks by `str.replace`, a body as a whole; holds no promise",
            _mitmdump(NAIVE, sees="value", secrets=True),
        ),
        Contender(
            "proxy.py",
            "proxy.py",
            "TLS interception, one worker; hands the placeholder on, and a body as it comes",
            _proxy_py,
            most_mib=4,  # it adds each piece to a copy of the whole
        ),
        Contender(
            "relay",
            "bare relay",
            "Python's TLS on both sides, and nothing else: the floor of what a body can cost",
            _relay,
        ),
        _coatcheck("coatcheck", "coatcheck", f"{_FILLS_IN}; ten secrets"),
        _coatcheck("workers-2", "coatcheck --workers 2", "the same on two processes", workers=2),
        *(
            _coatcheck(
                f"held-{count}",
                f"coatcheck, {count} worker{'s' if count > 1 else ''}",
                f"with {HELD:.0%} of a core for each worker",
                workers=count,
                share=HELD,
            )
            for count in (1, 2)
        ),
        _coatcheck(
            "secrets-1000",
            "coatcheck, 1,000 secrets",
            "of which ten are allowed at the upstream",
            count=1000,
        ),
        _coatcheck(
            "secrets-10000",
            "coatcheck, 10,000 secrets",
            "of which ten are allowed at the upstream",
            count=10_000,
        ),
        _coatcheck(
            "scope-1000",
            "coatcheck, 1,000 in scope",
            "all of them allowed at the upstream and searched in its answers",
            count=1000,
            in_scope=1000,
        ),
    )
}


@dataclass(frozen=True)
class Peer:
    """A proxy that somebody else has started, as the option ``--peer`` names it."""

    name: str
    way: Way
    pid: int | None = None

    def contender(self) -> Contender:
        return Contender(
            self.name, self.name, "a peer", lambda _, __: Running(self.way, None, self.pid)
        )


def parse_peer(text: str) -> Peer:
    """``NAME=HOST:PORT,ca=FILE[,pid=N][,sends=TEXT][,sees=value|placeholder][,credentials=TEXT]``.

    Raises:
        ValueError: it is none; the text says why.
    """
    name, _, rest = text.partition("=")
    address, *options = rest.split(",")
    host, _, port = address.rpartition(":")
    if not name or name in CONTENDERS or not host or not port.isdigit():
        raise ValueError(f"{text!r} is not NAME=HOST:PORT,ca=FILE, with a name of its own")
    given = dict(option.partition("=")[::2] for option in options)
    if unknown := given.keys() - {"ca", "pid", "sends", "sees", "credentials"}:
        raise ValueError(f"a peer has no {', '.join(sorted(unknown))}")
    if "ca" not in given:
        raise ValueError(f"{name}: ca=FILE is missing, the certificate that clients trust")
    if given.get("sees", "value") not in ("value", "placeholder"):
        raise ValueError(f"{name}: sees is value or placeholder")
    way = Way(
        (host, int(port)),
        given["ca"],
        sends=given.get("sends", f"Bearer {PLACEHOLDER}"),
        sees=given.get("sees", "value"),
        credentials=given.get("credentials", ""),
    )
    return Peer(name, way, int(given["pid"]) if "pid" in given else None)


@dataclass
class Cast:
    """The contenders of a run: started when first needed, ended at its end."""

    stage: Stage
    contenders: Mapping[str, Contender]
    left_out: dict[str, str] = field(default_factory=dict)
    _running: dict[str, Running] = field(default_factory=dict)

    def get(self, name: str) -> Running | None:
        """None where it cannot be had; `left_out` says why."""
        if name not in self._running and (fresh := self.fresh(name)) is not None:
            self._running[name] = fresh
        return self._running.get(name)

    def fresh(self, name: str) -> Running | None:
        """A new one in place of the one that runs, if any. The caller stops it."""
        self._stop(name)
        if name in self.left_out or name not in self.contenders:
            return None
        try:
            return self.contenders[name].start(self.stage, self.prepare(name))
        except NotUp as error:
            self.leave_out(name, str(error))
            return None

    def prepare(self, name: str) -> Path:
        """Returns the contender's folder."""
        folder = self.stage.folder / name
        if name in self.contenders:
            folder.mkdir(exist_ok=True)
            self.contenders[name].prepare(self.stage, folder)
        return folder

    def leave_out(self, name: str, why: str) -> None:
        self._stop(name)
        self.left_out[name] = why

    def _stop(self, name: str) -> None:
        if name in self._running:
            self._running.pop(name).stop()

    def stop(self) -> None:
        for running in self._running.values():
            running.stop()
        self._running.clear()
