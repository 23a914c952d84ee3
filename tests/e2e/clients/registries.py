"""What the clients of the matrix talk to that want more than an echo: package registries for pip,
uv and npm, the JSON that an SDK reads, a WebSocket. Each is a mode of `Upstream`, and the segment
after the mode is the place that the credential comes in.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import hashlib
import io
import json
import struct
import tarfile
import zipfile

from tests.e2e.upstream import Exchange, Mode

NAME, VERSION = "parcel", "1.0.0"
WHEEL = f"{NAME}-{VERSION}-py3-none-any.whl"
_WEBSOCKET = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


@functools.cache  # the time of making is in it, and so in its hash
def wheel() -> bytes:
    """A wheel with one module (PEP 427)."""
    info = f"{NAME}-{VERSION}.dist-info"
    files = {
        f"{NAME}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return out.getvalue()


@functools.cache
def tarball() -> bytes:
    """An npm package with nothing but its description."""
    text = json.dumps({"name": NAME, "version": VERSION}).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        member = tarfile.TarInfo("package/package.json")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    return out.getvalue()


async def _asks(at: Exchange) -> bool:
    """Whether the request came without a credential, and was told so."""
    if at.request.all("authorization"):
        return False
    challenge = b'WWW-Authenticate: Basic realm="packages"'
    await at.answer(b"who are you?", challenge, status=b"401 Unauthorized")
    return True


async def pypi(at: Exchange) -> None:
    """The simple repository API (PEP 503)."""
    if await _asks(at):
        return
    if at.request.target.endswith(b".whl"):
        await at.answer(wheel(), kind=b"application/octet-stream")
        return
    link = f'<a href="../../{WHEEL}#sha256={hashlib.sha256(wheel()).hexdigest()}">{WHEEL}</a>'
    await at.answer(f"<!DOCTYPE html><html><body>{link}".encode(), kind=b"text/html")


async def npm(at: Exchange) -> None:
    """A packument, and the archive that it names."""
    if await _asks(at):
        return
    if at.request.target.endswith(b".tgz"):
        await at.answer(tarball(), kind=b"application/octet-stream")
        return
    host = at.request.all("host")[0].decode()
    archive = f"https://{host}/npm/{at.argument()}/{NAME}-{VERSION}.tgz"
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball()).digest()).decode()
    dist = {"tarball": archive, "integrity": integrity}
    versions = {VERSION: {"name": NAME, "version": VERSION, "dist": dist}}
    packument = {"name": NAME, "dist-tags": {"latest": VERSION}, "versions": versions}
    await at.answer(json.dumps(packument).encode(), kind=b"application/json")


async def sdk(at: Exchange) -> None:
    """An object in which an SDK finds little that it knows, and which quotes the request."""
    found = {"id": "1", "object": "list", "type": "message", "data": [], "content": []}
    quoted = at.request.bytes.decode("utf-8", "replace")
    await at.answer(json.dumps({**found, "echo": quoted}).encode(), kind=b"application/json")


async def websocket(at: Exchange) -> bool:
    """One message, which is the request, and the end (RFC 6455)."""
    nonce = at.request.all("sec-websocket-key")[0]
    accept = base64.b64encode(hashlib.sha1(nonce + _WEBSOCKET).digest())
    await at.send(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    text = at.request.head
    await at.send(b"\x81\x7e" + struct.pack("!H", len(text)) + text)
    await at.send(b"\x88\x02" + struct.pack("!H", 1000))
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(5):
            while await at.reader.read(1024):
                pass
    return False


MODES: dict[str, Mode] = {"pypi": pypi, "npm": npm, "sdk": sdk, "websocket": websocket}
