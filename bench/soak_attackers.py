"""The attackers of `bench/soak.py`: one process, niced, in which every connection is a task.

Each goes on for ever: what the proxy cuts off comes back after a pause. The process is ended from
outside. What they reach is counted in shared numbers, so that a soak in which the attack did not
happen can be told from one that was withstood.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from multiprocessing.sharedctypes import SynchronizedArray

from common import HOST
from soak_upstreams import CODINGS, ENDLESS

DRIP_S = 2.0  # between two bytes of a slow connection
BACK_S = 5.0  # before one that was cut off comes back
RAMP_S = 20.0  # over which they all arrive
PATIENCE_S = 60.0  # for an answer
LINE = b"x" * 65_536

# Source addresses. The first is no client's, the others are clients of the policy.
UNKNOWN, TENANT_B, TENANT_C = "127.0.0.2", "127.0.0.3", "127.0.0.4"
POLICY = f"""
version: 1
clients:
  local: {{networks: ["127.0.0.1/32"]}}
  tenant-b: {{networks: ["{TENANT_B}/32"]}}
  tenant-c: {{networks: ["{TENANT_C}/32"]}}
grants:
  - {{secrets: ["*"], clients: [local, tenant-b, tenant-c]}}
egress: {{networks: ["127.0.0.0/8", "::1/128"]}}
"""

# name: how many. The first four are the slow ones; the first two, all from one address that is no
# client's, are more together than it may have, so that some must make room all the time.
COUNTS = {
    "slow head": 600,
    "half a CONNECT": 500,
    "half a TLS hello": 450,
    "slow upload": 450,
    "idle tunnel": 500,
    "bomb": 2 * len(CODINGS),
    "endless request line": 2,
    "endless response head": 2,
}
HELD = tuple(COUNTS)[:5]
# Where the shared numbers of each stand: connections held now, and bouts that have ended.
NUMBERS = {name: at for at, name in enumerate(COUNTS)}

CLIENT_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(20)  # the beginning of one


@dataclass
class Attack:
    port: int
    hostile: int
    plain: int
    ca: str  # of the proxy
    now: SynchronizedArray[int]
    ended: SynchronizedArray[int]

    async def run(self) -> None:
        context = ssl.create_default_context(cafile=self.ca)
        target = f"{HOST}:{self.hostile}"
        head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()
        post = f"POST http://{HOST}:{self.plain}/ HTTP/1.1\r\nHost: {HOST}:{self.plain}\r\n"
        chunked = b"Transfer-Encoding: chunked\r\n\r\n"
        text = post.encode() + b"Content-Type: text/plain\r\n" + chunked
        binary = post.encode() + b"Content-Type: application/octet-stream\r\n" + chunked
        get = f"GET http://{HOST}:{self.plain}/ HTTP/1.1\r\nX-Slow: ".encode()

        def bouts(name: str, number: int) -> Awaitable[None]:
            match name:
                case "slow head":
                    return self.drip(UNKNOWN, name, get, b"x")
                case "half a CONNECT":
                    return self.drip(UNKNOWN, name, head[:20], b"x")
                case "half a TLS hello":
                    return self.drip(TENANT_B, name, head + CLIENT_HELLO, b"")
                case "slow upload":
                    return self.drip(TENANT_C, name, text if number % 2 else binary, b"1\r\nx\r\n")
                case "idle tunnel":
                    return self.ask(name, context, head, b"/", hold=True)
                case "bomb":
                    path = f"/{CODINGS[number % len(CODINGS)]}".encode()
                    return self.ask(name, context, head, path)
                case "endless response head":
                    return self.ask(name, context, head, ENDLESS)
                case _:
                    return self.pour(name, get)

        tasks = []
        for name, count in COUNTS.items():
            for number in range(count):
                after = RAMP_S * number / count
                again = lambda name=name, number=number: bouts(name, number)  # noqa: E731
                tasks.append(asyncio.create_task(self.forever(name, after, again)))
        await asyncio.gather(*tasks)

    async def forever(self, name: str, after: float, bout: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(after)
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):  # ends of any kind
                await bout()
            self.ended[NUMBERS[name]] += 1
            await asyncio.sleep(BACK_S if name in HELD else 0)

    async def drip(self, source: str, name: str, opening: bytes, drop: bytes) -> None:
        """Send *opening*, then *drop* every `DRIP_S`, until the proxy has enough."""
        reader, writer = await self.connect(source)
        self.now[NUMBERS[name]] += 1
        try:
            writer.write(opening)
            while True:
                try:
                    async with asyncio.timeout(DRIP_S):
                        if not await reader.read(65_536):
                            return
                except TimeoutError:
                    writer.write(drop)
        finally:
            self.now[NUMBERS[name]] -= 1
            writer.transport.abort()

    async def ask(
        self, name: str, context: ssl.SSLContext, head: bytes, path: bytes, *, hold: bool = False
    ) -> None:
        """One GET in a tunnel of its own, read to its end; held open afterwards with *hold*."""
        reader, writer = await self.connect(TENANT_B)
        try:
            writer.write(head)
            await reader.readuntil(b"\r\n\r\n")
            await writer.start_tls(context, server_hostname=HOST, ssl_handshake_timeout=PATIENCE_S)
            host = head.split(b" ", 2)[1]
            more = b"" if hold else b"Connection: close\r\n"
            writer.write(b"GET %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (path, host, more))
            if not hold:
                async with asyncio.timeout(PATIENCE_S):
                    while await reader.read(65_536):
                        pass
                return
            await reader.readuntil(b"\r\n\r\n")
            self.now[NUMBERS[name]] += 1
            try:
                while await reader.read(65_536):
                    pass
            finally:
                self.now[NUMBERS[name]] -= 1
        finally:
            writer.transport.abort()

    async def pour(self, name: str, opening: bytes) -> None:
        """A request head without an end, as fast as it goes."""
        _, writer = await self.connect(UNKNOWN)
        try:
            writer.write(opening)
            while not writer.is_closing():
                writer.write(LINE)
                await writer.drain()
        finally:
            writer.transport.abort()

    async def connect(self, source: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0))


def attack(
    port: int,
    hostile: int,
    plain: int,
    ca: str,
    now: SynchronizedArray[int],
    ended: SynchronizedArray[int],
) -> None:
    """The process."""
    os.nice(10)
    asyncio.run(Attack(port, hostile, plain, ca, now, ended).run())
