"""An audit log with its key, for the tests of writing, verifying and reading it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from coatcheck.observe import auditchain, auditverify
from coatcheck.observe.auditlog import FileAuditLog, Keep, Keys
from coatcheck.observe.auditverify import Finding, Found
from coatcheck.store import auditkey
from coatcheck.store.auditkey import AuditPublicKey

NOW = 1_700_000_000.0


@dataclass
class House:
    """A folder of logs, the key apart from it, and a clock that stands still."""

    root: Path
    time: float = NOW
    keys: Keys = field(init=False)
    key: AuditPublicKey = field(init=False)

    def __post_init__(self) -> None:
        self.root.mkdir(exist_ok=True)
        key = auditkey.signing(self.root / "audit.key", self.root / "audit.pub")
        self.keys = Keys(key, self.root / "audit.heads")
        self.key = auditkey.verifying(self.root / "audit.pub")

    @property
    def folder(self) -> Path:
        return self.root / "audit"

    @property
    def path(self) -> Path:
        return self.folder / "audit.jsonl"

    def log(
        self, worker: int | None = 1, *, name: str = "", keep: Keep | None = None
    ) -> FileAuditLog:
        """Opened."""
        made = FileAuditLog(
            self.folder, worker, log=name, keys=self.keys, keep=keep, now=lambda: self.time
        )
        made.open()
        return made

    def written(self, lines: int = 5, worker: int = 1) -> bytes:
        """A log of a run that ended well: so many lines, and a head."""
        log = self.log(worker)
        for number in range(lines):
            log.write({"n": number})
        log.close()
        return log.path.read_bytes()

    def verified(self) -> list[Found]:
        return auditverify.verify_folder(self.folder, self.keys.heads, self.key)

    def findings(self) -> list[Finding]:
        return [finding for found in self.verified() for finding in found.findings]

    def told(self) -> list[str]:
        return [f"{f.file}:{f.line}: {f.what}" for f in self.findings()]


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def chained_anew(
    lines: list[bytes], change: Callable[[dict[str, Any]], None], at: int
) -> list[bytes]:
    """What somebody does who has no key: line *at* changed, and the chain made anew from there."""
    made, chain = [], b""
    for number, text in enumerate(lines):
        line = auditchain.parse(text)
        assert line is not None
        body = line.body
        if number == at:
            record = {key: value for key, value in line.record.items() if key != "chain"}
            change(record)
            body = json.dumps(record)[:-1].encode()
        if number < at:
            chain = line.chain
            made.append(text)
            continue
        base = chain or bytes.fromhex(line.record["former"])
        chain = sha256(base + body).digest()
        signature = (
            b', "signature": "%b"' % line.signature.hex().encode() if line.signature else b""
        )
        made.append(b'%b, "chain": "%b"%b}' % (body, chain.hex().encode(), signature))
    return made
