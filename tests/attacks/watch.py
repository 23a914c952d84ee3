"""Every connection that anybody in the world tries to open, seen on the wire.

A listener notices what it accepts; an attempt at a port where nobody listens leaves no trace
there. So the first packet of each TCP connection is caught on the loopback interface, over which
everything goes. The filter runs in the kernel, so load does not make it miss any.
"""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import struct
from dataclasses import dataclass

SO_ATTACH_FILTER = 26
PACKET_OUTGOING = 4  # each frame on loopback is seen twice: as it leaves, and as it arrives

# tcp[tcpflags] & (SYN|ACK) == SYN, for IPv4 and IPv6, as (code, jt, jf, k): see bpf(4).
SYN_ONLY = (
    (0x28, 0, 0, 12),  # ldh [12]: EtherType
    (0x15, 0, 6, 0x0800),  # IPv4, or on to IPv6
    (0x30, 0, 0, 23),  # ldb [23]: protocol
    (0x15, 0, 11, 6),  # TCP
    (0xB1, 0, 0, 14),  # ldx 4*([14]&0xf): length of the IP header
    (0x50, 0, 0, 27),  # ldb [x + 14 + 13]: flags
    (0x54, 0, 0, 0x12),  # and
    (0x15, 6, 7, 0x02),  # SYN alone
    (0x15, 0, 6, 0x86DD),  # IPv6
    (0x30, 0, 0, 20),  # ldb [20]: next header
    (0x15, 0, 4, 6),  # TCP
    (0x30, 0, 0, 67),  # ldb [54 + 13]: flags
    (0x54, 0, 0, 0x12),  # and
    (0x15, 0, 1, 0x02),  # SYN alone: keep, or fall to drop
    (0x06, 0, 0, 96),  # keep the first 96 bytes
    (0x06, 0, 0, 0),  # drop
)


@dataclass(frozen=True)
class Attempt:
    """A TCP connection that was tried. Addresses as text."""

    source: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address} port {self.port}"


class Watch:
    """Attempts since the last `take`, but for those of the tests' own clients and name server.

    Args:
        sock: A packet socket on loopback.
        clients: Addresses from which tests connect.
    """

    def __init__(self, sock: socket.socket, clients: frozenset[str]) -> None:
        self._sock = sock
        self._clients = clients
        program = b"".join(struct.pack("HBBI", *step) for step in SYN_ONLY)
        buffer = ctypes.create_string_buffer(program)
        header = struct.pack("HL", len(SYN_ONLY), ctypes.addressof(buffer))
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, header)
        sock.setblocking(False)

    def take(self) -> list[Attempt]:
        found = []
        while True:
            try:
                frame, meta = self._sock.recvfrom(2048)
            except BlockingIOError:
                return found
            if meta[2] != PACKET_OUTGOING:
                continue
            attempt = _read(frame)
            if attempt.source not in self._clients and attempt.port != 53:
                found.append(attempt)

    def close(self) -> None:
        self._sock.close()


def _read(frame: bytes) -> Attempt:
    if frame[12:14] == b"\x08\x00":
        at = 14 + 4 * (frame[14] & 0xF)
        source, address = frame[26:30], frame[30:34]
    else:
        at = 54
        source, address = frame[22:38], frame[38:54]
    port = int.from_bytes(frame[at + 2 : at + 4])
    return Attempt(str(ipaddress.ip_address(source)), str(ipaddress.ip_address(address)), port)
