"""A name server of our own: it answers what a test says, and notes every question.

Answers can differ from question to question, come late, be cut off so that the resolver asks again
over TCP, or name an alias. A name that nobody set does not exist.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

A, CNAME, AAAA = 1, 5, 28
NO_ERROR, SERVER_FAILURE, NO_NAME, REFUSED = 0, 2, 3, 5


@dataclass
class Zone:
    """What is said about one name.

    Attributes:
        rounds: Addresses, one list per question of a type; the last one stays.
        alias: The canonical name, told in front of the addresses.
        code: Response code (RFC 1035, section 4.1.1).
        delay_s: Before the answer.
        truncated: Over UDP only a sign that there is more.
    """

    rounds: Sequence[Sequence[str]] = ((),)
    alias: str = ""
    code: int = NO_ERROR
    delay_s: float = 0.0
    truncated: bool = False
    asked: dict[int, int] = field(default_factory=dict)

    def addresses(self, kind: int) -> list[str]:
        turn = self.asked.get(kind, 0)
        self.asked[kind] = turn + 1
        texts = self.rounds[min(turn, len(self.rounds) - 1)]
        version = 6 if kind == AAAA else 4
        return [text for text in texts if ipaddress.ip_address(text).version == version]


class NameServer:
    """Serves until `close`. Names are lower case, without the trailing dot."""

    def __init__(self, datagrams: socket.socket, listener: socket.socket) -> None:
        self.zones: dict[str, Zone] = {}
        self.queries: list[str] = []
        self._datagrams = datagrams
        self._listener = listener
        self._datagrams.settimeout(None)
        self._listener.settimeout(None)
        for loop in (self._serve_datagrams, self._serve_streams):
            threading.Thread(target=loop, daemon=True).start()

    def set(self, name: str, *addresses: str, **more: object) -> Zone:
        """Let *name* have *addresses*; *more* are fields of `Zone`."""
        zone = Zone(**{"rounds": (addresses,), **more})  # type: ignore[arg-type]
        self.zones[name.lower()] = zone
        return zone

    def take_queries(self) -> list[str]:
        """The names that were asked for since the last call."""
        taken, self.queries[:] = list(self.queries), []
        return taken

    def close(self) -> None:
        for sock in (self._datagrams, self._listener):
            with_shutdown(sock)

    def _serve_datagrams(self) -> None:
        while True:
            try:
                question, peer = self._datagrams.recvfrom(4096)
            except OSError:
                return
            if not question:  # shut down
                return
            threading.Thread(target=self._answer, args=(question, peer), daemon=True).start()

    def _answer(self, question: bytes, peer: object) -> None:
        data = self.reply(question, over_tcp=False)
        try:
            self._datagrams.sendto(data, peer)  # type: ignore[arg-type]
        except OSError:
            return

    def _serve_streams(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                sock.settimeout(5)
                try:
                    while size := sock.recv(2):
                        question = sock.recv(int.from_bytes(size))
                        data = self.reply(question, over_tcp=True)
                        sock.sendall(len(data).to_bytes(2) + data)
                except OSError:
                    continue

    def reply(self, question: bytes, *, over_tcp: bool) -> bytes:
        """The answer message for *question* (RFC 1035, section 4)."""
        ident = question[:2]
        name, end = _read_name(question, 12)
        kind = int.from_bytes(question[end : end + 2])
        asked = question[12 : end + 4]
        self.queries.append(name)
        zone = self.zones.get(name.lower())
        if zone is None:
            return ident + struct.pack(">HHHHH", 0x8180 | NO_NAME, 1, 0, 0, 0) + asked
        time.sleep(zone.delay_s)
        if zone.truncated and not over_tcp:
            return ident + struct.pack(">HHHHH", 0x8380, 1, 0, 0, 0) + asked
        records, owner = [], b"\xc0\x0c"
        if zone.alias:
            alias = _write_name(zone.alias)
            records.append(owner + struct.pack(">HHIH", CNAME, 1, 0, len(alias)) + alias)
            owner = alias
        if kind in (A, AAAA):
            for text in zone.addresses(kind):
                packed = ipaddress.ip_address(text).packed
                records.append(owner + struct.pack(">HHIH", kind, 1, 0, len(packed)) + packed)
        head = struct.pack(">HHHHH", 0x8180 | zone.code, 1, len(records), 0, 0)
        return ident + head + asked + b"".join(records)


def with_shutdown(sock: socket.socket) -> None:
    """Close *sock*, and wake the thread that waits on it."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def _read_name(message: bytes, at: int) -> tuple[str, int]:
    labels = []
    while size := message[at]:
        labels.append(message[at + 1 : at + 1 + size].decode("latin-1"))
        at += 1 + size
    return ".".join(labels), at + 1


def _write_name(name: str) -> bytes:
    labels = [bytes([len(label)]) + label.encode() for label in name.split(".")]
    return b"".join(labels) + b"\0"
