"""A network of its own for the tests: public-looking addresses, own names, all ports free.

coatcheck refuses private and loopback addresses, and a switch that lifts this for tests would be a
hole. So the upstreams get public addresses, in a network namespace that nothing leads out of:

    pytest ──(socket pair: "listen there", "connect there"; sockets come back)──▶ this file, run
       │                                                                        as a program
       └── nsenter ──▶ coatcheck serve, curl, git, java, …

The program below makes the namespaces (network, mounts; an ordinary user needs a user namespace
around them), brings loopback up, routes the addresses to it ("AnyIP": they are local without being
on an interface, as with a router in front), and puts its own hosts file in place. Then it makes
sockets for pytest, which passes them to the upstream and to the raw client. It ends when pytest
ends, and its network with it.

Linux and the standard library alone; `World.open` says why where it cannot be had.
"""

from __future__ import annotations

import ctypes
import fcntl
import ipaddress
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

MAX_MESSAGE = 1 << 20


class Unavailable(Exception):
    """This machine gives no namespaces; the text says why."""


class World:
    """The namespaces, seen from pytest."""

    def __init__(self, process: subprocess.Popen[bytes], wire: socket.socket) -> None:
        self._process = process
        self._wire = wire
        self._turn = threading.Lock()  # tests ask from several threads

    @classmethod
    def open(cls, folder: Path, hosts: Mapping[str, str], networks: Sequence[str]) -> World:
        """Make one.

        Args:
            folder: For its files.
            hosts: Name to address; the only names there are.
            networks: What is local in there, such as ``20.20.20.0/24``; a single address
                (``/32``, ``/128``) becomes one of the loopback interface.

        Raises:
            Unavailable: see the class.
        """
        if not sys.platform.startswith("linux"):
            raise Unavailable("network namespaces are Linux's")
        if shutil.which("nsenter") is None:
            raise Unavailable("nsenter (package util-linux) is not installed")
        names = "".join(f"{address} {name}\n" for name, address in hosts.items())
        (folder / "hosts").write_text("127.0.0.1 localhost\n" + names)
        (folder / "resolv.conf").write_text("# nobody answers\nnameserver 127.0.0.1\n")
        ours, theirs = socket.socketpair()
        process = subprocess.Popen(
            [sys.executable, "-I", __file__, str(theirs.fileno()), str(folder), *networks],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        said = ours.recv(MAX_MESSAGE).decode()
        if said != "ready":
            ours.close()
            process.wait()
            raise Unavailable(said or "the namespaces could not be made")
        return cls(process, ours)

    def close(self) -> None:
        self._wire.close()
        self._process.wait(timeout=10)

    def listen(self, address: str, port: int, backlog: int = 128) -> socket.socket:
        """A listening socket in there."""
        return self._ask("listen", address, port, backlog)

    def connect(self, address: str, port: int, source: str = "") -> socket.socket:
        """A connected socket in there, from *source* if given. Raises `OSError`."""
        return self._ask("connect", address, port, source)

    def datagrams(self, address: str, port: int) -> socket.socket:
        """A bound UDP socket in there."""
        return self._ask("datagrams", address, port, 0)

    def packets(self) -> socket.socket:
        """A packet socket (packet(7)) that gets every frame of the loopback interface."""
        return self._ask("packets", "lo", 0, 0)

    def enter(self, command: Sequence[str | Path], folder: Path) -> list[str]:
        """*command* as it is run in there, in the folder *folder*. Its pid is the command's."""
        options = ["--preserve-credentials", "--net", "--mount", f"--wdns={folder}"]
        if os.geteuid():
            options.append("--user")
        return ["nsenter", "-t", str(self._process.pid), *options, "--", *map(str, command)]

    def _ask(self, *question: object) -> socket.socket:
        with self._turn:
            self._wire.sendall(json.dumps(question).encode())
            said, files, _, _ = socket.recv_fds(self._wire, MAX_MESSAGE, 1)
        if not files:
            raise OSError(int(said), os.strerror(int(said)))
        made = socket.socket(fileno=files[0])
        made.settimeout(20)
        return made


# --- the program ---------------------------------------------------------------------------------


def main(wire: socket.socket, folder: Path, networks: Sequence[str]) -> None:
    try:
        _unshare()
        _bring_loopback_up()
        for network in map(ipaddress.ip_network, networks):
            single = network.prefixlen == network.max_prefixlen
            (_give_to_loopback if single else _route_to_loopback)(network)
        _mount_over(folder / "hosts", "/etc/hosts")
        _mount_over(folder / "resolv.conf", "/etc/resolv.conf")
    except OSError as error:
        wire.sendall(f"namespaces are not to be had here: {error}".encode())
        return
    wire.sendall(b"ready")
    while question := wire.recv(MAX_MESSAGE):
        kind, address, port, more = json.loads(question)
        try:
            made = MAKERS[kind](address, port, more)
        except OSError as error:
            wire.sendall(str(error.errno or 5).encode())
            continue
        with made:
            socket.send_fds(wire, [b"ok"], [made.fileno()])


def _listen(address: str, port: int, backlog: int) -> socket.socket:
    free_bind = (socket.IPPROTO_IPV6, 78) if ":" in address else (socket.IPPROTO_IP, 15)
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        sock.setsockopt(*free_bind, 1)  # the address is on no interface (ip(7), linux/in6.h)
        # So that a listener at every address can stand behind those at a single one.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if ":" in address:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def _connect(address: str, port: int, source: str) -> socket.socket:
    sock = socket.create_connection((address, port), 10, (source, 0) if source else None)
    # As every client does: without it a request of two segments takes 40 ms more.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _datagrams(address: str, port: int, _: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, port))
    return sock


def _packets(interface: str, _: int, __: int) -> socket.socket:
    every_protocol = 0x0003  # linux/if_ether.h
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(every_protocol))
    sock.bind((interface, 0))
    return sock


MAKERS = {"listen": _listen, "connect": _connect, "datagrams": _datagrams, "packets": _packets}


def _unshare() -> None:
    user, group = os.geteuid(), os.getegid()
    os.unshare(os.CLONE_NEWNET | os.CLONE_NEWNS | (os.CLONE_NEWUSER if user else 0))
    if user:
        # Everyone stays who they are: files keep their owner.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _bring_loopback_up() -> None:
    get_flags, set_flags, up = 0x8913, 0x8914, 0x1  # netdevice(7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH14x", b"lo", 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(sock, get_flags, request), 16)
        fcntl.ioctl(sock, set_flags, struct.pack("16sH14x", b"lo", flags | up))


type Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _route_to_loopback(network: Network) -> None:
    """As ``ip route add local NETWORK dev lo``."""
    new_route = 24
    table_local, protocol_boot, scope_host, type_local = 255, 3, 254, 2
    kind = (_family(network), network.prefixlen, 0, 0)
    kind += (table_local, protocol_boot, scope_host, type_local, 0)
    index = struct.pack("HHI", 8, 4, socket.if_nametoindex("lo"))
    _netlink(new_route, struct.pack("BBBBBBBBI", *kind) + _attribute(1, network) + index, network)


def _give_to_loopback(network: Network) -> None:
    """As ``ip address add ADDRESS dev lo``."""
    new_address, global_scope = 20, 0
    kind = (_family(network), network.prefixlen, 0, global_scope, socket.if_nametoindex("lo"))
    body = struct.pack("BBBBI", *kind) + _attribute(2, network) + _attribute(1, network)
    _netlink(new_address, body, network)


def _family(network: Network) -> int:
    return int(socket.AF_INET if network.version == 4 else socket.AF_INET6)


def _attribute(kind: int, network: Network) -> bytes:
    packed = network.network_address.packed
    return struct.pack("HH", 4 + len(packed), kind) + packed


def _netlink(message: int, body: bytes, network: Network) -> None:
    """One request of rtnetlink(7)."""
    request_ack_create = 0x1 | 0x4 | 0x400
    head = struct.pack("IHHII", 16 + len(body), message, request_ack_create, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.send(head + body)
        (code,) = struct.unpack_from("i", sock.recv(4096), 16)
    if code:
        raise OSError(-code, f"{network} cannot be made local: {os.strerror(-code)}")


def _mount_over(source: Path, target: str) -> None:
    if not Path(target).exists():
        return
    bind, private = 0x1000, 0x4000 | (1 << 18)  # mount(2)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", b"/", None, private, None) or libc.mount(
        os.fsencode(source), os.fsencode(target), None, bind, None
    ):
        code = ctypes.get_errno()
        raise OSError(code, f"mount over {target}: {os.strerror(code)}")


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2]), sys.argv[3:])
