"""What every attack meets: names, clients, secrets, the policy, and the proxy that is attacked."""

from __future__ import annotations

import base64
import json
import os
import random
import string
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.e2e import harness
from tests.e2e.harness import Proxy, make_home, token_line
from tests.e2e.wire import basic
from tests.e2e.world import World

TARGET = os.environ.get("COATCHECK_ATTACK_TARGET", "coatcheck")
IS_NAIVE = TARGET == "naive"

# The whole of IPv4 and IPv6 is local in the world, so nothing is out of reach by accident.
NETWORKS = ("0.0.0.0/0", "::/0", "20.20.30.1/32", "2600:1234::1/128")
OWN = ("20.20.30.1", "2600:1234::1")  # addresses of the machine itself, though public

ALLOWED, EVIL, THIEF, PLAIN, WILD, BIG = (
    "allowed.test",
    "evil.test",  # at the same address as allowed.test, under the same certificate
    "thief.test",
    "plain.test",
    "wild.test",
    "big.test",
)
SITES = {
    ALLOWED: "20.20.20.20",
    EVIL: "20.20.20.20",
    THIEF: "20.20.20.66",
    PLAIN: "20.20.20.30",
    "a.wild.test": "20.20.20.40",
    "a.b.wild.test": "20.20.20.40",
    WILD: "20.20.20.40",
    "evil-wild.test": "20.20.20.40",
    "wild.test.evil.test": "20.20.20.40",
    BIG: "20.20.20.50",
    "six.test": "2600:1234::20",
    "nat64.test": "64:ff9b::1414:1414",
}

# Clients come from addresses of their own, so that the watch can tell them from the proxy.
ALICE_FROM, BOB_FROM, NET_FROM, STRANGER_FROM = (f"127.0.50.{n}" for n in (1, 2, 3, 4))
CLIENT_ADDRESSES = frozenset({ALICE_FROM, BOB_FROM, NET_FROM, STRANGER_FROM})
ALICE_TOKEN = "ctk_alice-0123456789abcdefghijklmnopqrstuvwx"
BOB_TOKEN = "ctk_bob-0123456789abcdefghijklmnopqrstuvwxyz"
ALICE = basic("alice", ALICE_TOKEN)
BOB = basic("bob", BOB_TOKEN)

_RANDOM = random.Random(20260101)
_LETTERS = string.ascii_letters + string.digits


def canary(tag: str, size: int = 40) -> bytes:
    """A random value that begins with *tag*. The same in every run, so that a find repeats."""
    return (tag + "".join(_RANDOM.choices(_LETTERS, k=size - len(tag)))).encode()


KEY_A = canary("cnA01-")
KEY_B = canary("cnB02-")
_LONGER = canary("cnP03-", 48)
VALUES: dict[str, bytes] = {
    "key.a": KEY_A,
    "key.b": KEY_B,
    "key.net": canary("cnN04-"),
    "wild.key": canary("cnW05-"),
    "plain.key": canary("cnL06-"),
    "port.key": canary("cnO07-"),
    "roam.key": canary("cnR08-"),
    "head.key": canary("cnH09-"),
    "query.key": canary("cnQ10-"),
    "path.key": canary("cnT11-"),
    "body.key": canary("cnY12-"),
    "v1.key": canary("cnV13-"),
    "cookie.key": canary("cnC14-"),
    "once.key": canary("cnI15-"),
    "nobody.key": canary("cnX16-"),
    "nowhere.key": canary("cnZ17-"),
    "sp.quotes": b"cnS18-q\"'<>&\\%+/=w8Kd03lM;" + canary("x", 12),
    "sp.trailing": canary("cnS19-") + b"\n",
    "sp.crlf": canary("cnS20-", 20) + b"\r\nX-Injected: " + canary("y", 16),
    "sp.lf": canary("cnS21-", 20) + b"\nX-Injected: " + canary("y", 16),
    "sp.cr": canary("cnS22-", 20) + b"\r" + canary("y", 16),
    "sp.nul": canary("cnS23-", 20) + b"\0" + canary("y", 16),
    "sp.leading": b"  " + canary("cnS24-", 24),
    "sp.pem": b"-----BEGIN PRIVATE KEY-----\n"
    + base64.encodebytes(_RANDOM.randbytes(150))
    + b"-----END PRIVATE KEY-----\n",
    "sp.short": canary("c8", 8),
    "sp.utf8": "cnS25-schlüßel-größe-€-".encode() + canary("u", 12),
    "sp.binary": b"cnS26-" + bytes(range(0x80, 0xA0)) + canary("z", 10),
    "sp.overlap": b"qzqxqzqxqzqxqzqxqzqx",
    "sp.prefix": _LONGER[:24],
    "sp.longer": _LONGER,
    "sp.nested": canary("cnS27-", 20) + b"{{secrets.key.b}}" + canary("n", 16),
    "sp.nested-percent": canary("cnS28-", 20) + b"%7B%7Bsecrets.key.b%7D%7D",
    "sp.b64": base64.b64encode(KEY_A),
    "sp.url": canary("cnS29-", 14) + b" ?#&%/+;=" + canary("v", 10),
    "sp.json": canary("cnS30-", 14) + b'"\\\x01</script>' + canary("j", 10),
    "sp.boundary": canary("cnS31-", 14) + b"\r\n--BOUND\r\n" + canary("b", 10),
    "sp.colon": canary("cnS32-", 14) + b":with:colons:" + canary("k", 10),
    "sp.format": canary("cnS33-", 14) + b"%s%n{0}{x!r}\x1b]8;;" + canary("f", 10),
    "sp.marker": b"****cnS34****" + canary("m", 12),
    "big.value": canary("cnG35-", 64 * 1024),
}
DOMAINS: dict[str, tuple[str, ...]] = {
    "wild.key": ("*.wild.test",),
    "plain.key": (PLAIN, f"{PLAIN}:80"),
    "port.key": (f"{ALLOWED}:8443",),
    "roam.key": ("*",),
    "nowhere.key": (),
    "big.value": (BIG,),
}
GRANTED_TO_ALICE = [name for name in VALUES if name not in ("key.b", "key.net", "nobody.key")]

CLIENTS = f"""\
version: 1
clients:
  alice: {{ {token_line(ALICE_TOKEN)} }}
  bob: {{ {token_line(BOB_TOKEN)} }}
  net: {{ networks: ["{NET_FROM}/32"] }}
"""
POLICY = (
    CLIENTS
    + """\
grants:
  - secrets: [key.a, "sp.*", wild.key, port.key, roam.key, nowhere.key, big.value]
    clients: [alice]
    max_uses: 64
  - { secrets: [key.b], clients: [bob] }
  - { secrets: [key.net], clients: [net] }
  - { secrets: [plain.key], clients: [alice] }
  - { secrets: [head.key], clients: [alice], in: ["header:authorization"] }
  - { secrets: [query.key], clients: [alice], in: ["query:key"] }
  - { secrets: [path.key], clients: [alice], in: [path] }
  - { secrets: [body.key], clients: [alice], in: ["body:/auth/secret"] }
  - { secrets: [v1.key], clients: [alice], methods: [GET], paths: ["/v1/**"] }
  - { secrets: [cookie.key], clients: [alice], in: ["header:cookie"] }
  - { secrets: [once.key], clients: [alice], max_uses: 1 }
egress:
  deny: ["denied.test"]
"""
)

FEW = {name: VALUES[name] for name in ("key.a", "key.b")}
SMALL_POLICY = POLICY.partition("  - { secrets: [key.net]")[0] + "egress:\n  deny: [denied.test]\n"


def domains_of(name: str) -> tuple[str, ...]:
    return DOMAINS.get(name, (ALLOWED,))


class Target(Protocol):
    """The proxy under attack."""

    port: int
    log: Path

    def authority(self) -> Path:
        """The CA certificate that its clients trust."""

    def folders(self) -> list[Path]:
        """Where it keeps files."""

    def stop(self) -> int: ...

    @property
    def pid(self) -> int: ...

    def processes(self) -> list[int]:
        """All that it consists of."""


class Coatcheck(Proxy):
    """`coatcheck serve`, and nothing in it is switched for the tests."""

    def authority(self) -> Path:
        return harness.Home(self.home).ca_certificate

    def folders(self) -> list[Path]:
        return [self.home]

    @property
    def pid(self) -> int:
        return self.process.pid


type Start = Callable[..., Coatcheck]  # takes what `make_coatcheck` takes behind upstream_ca


def make_coatcheck(
    world: World,
    folder: Path,
    upstream_ca: Path,
    *,
    policy: str = POLICY,
    settings: str = "",
    values: dict[str, bytes] = VALUES,
    **variables: str,
) -> Coatcheck:
    """A home of its own in *folder*, and a proxy on it. Not yet ready."""
    secrets = {name: (value, domains_of(name)) for name, value in values.items()}
    home = make_home(folder, secrets, policy, settings)
    return Coatcheck(world, home, upstream_ca, **variables)


@dataclass
class Mitmdump:
    """Stock mitmdump with the addon of `naive/`."""

    world: World
    folder: Path
    upstream_ca: Path

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.port = next(harness._ports)
        self.log = self.folder / "log"
        secrets = self.folder / "secrets.json"
        secrets.write_text(
            json.dumps({n: [v.decode("latin-1"), list(domains_of(n))] for n, v in VALUES.items()})
        )
        main = "from mitmproxy.tools.main import mitmdump; mitmdump()"
        addon = Path(__file__).parent / "naive" / "addon.py"
        options = {
            "confdir": self.folder / "conf",
            "ssl_verify_upstream_trusted_ca": self.upstream_ca,
            "naive_secrets": secrets,
        }
        command: list[str | Path] = [sys.executable, "-c", main, "-s", addon]
        command += ["--listen-host", "127.0.0.1", "-p", str(self.port)]
        for key, value in options.items():
            command += ["--set", f"{key}={value}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.world.enter(command, self.folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=harness.environ(HOME=str(self.folder), PYTHONUNBUFFERED="1"),
            )

    def wait_ready(self) -> Mitmdump:
        harness.wait_until(lambda: b"listening at" in self.log.read_bytes(), harness.READY_S)
        return self

    def authority(self) -> Path:
        return self.folder / "conf" / "mitmproxy-ca-cert.pem"

    def folders(self) -> list[Path]:
        return []  # the secrets lie there in the open, by design

    def stop(self) -> int:
        self.process.kill()
        return self.process.wait()

    @property
    def pid(self) -> int:
        return self.process.pid

    def processes(self) -> list[int]:
        return [self.pid]
