"""Real clients get through the scrubber what they get directly, but for the values.

Each runs twice in the same world: directly, with the value itself, and through `coatcheck run`,
with the placeholder. What it makes of the answers must be the same, with a mask where the upstream
quoted the value. (git is in `test_clients.py`, where its repository is.)
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e.harness import RUNNER_TOKEN, Proxy, Shell
from tests.e2e.upstream import Exchange, Upstream

HERE = Path(__file__).parent / "clients"
HOST = "other.example.test"
VALUE = "wildcard-5d0f12ab34"
URLSAFE = "__secrets.wild.key__"
MASK = "********"


class Both:
    """Runs a command both ways."""

    def __init__(self, shell: Shell, proxy: Proxy, ca: Path) -> None:
        self.shell = shell
        self.proxy = proxy
        self.ca = str(ca)

    def directly(self, command: Sequence[str | Path]) -> subprocess.CompletedProcess[bytes]:
        names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT")
        return _right(self.shell.run(command, **dict.fromkeys(names, self.ca)))

    def through(self, command: Sequence[str | Path]) -> subprocess.CompletedProcess[bytes]:
        options = ["run", "--home", self.proxy.home, "--proxy", self.proxy.address, "--"]
        variables = {"COATCHECK_CLIENT_TOKEN": RUNNER_TOKEN}
        return _right(self.shell.coatcheck(*options, *command, **variables))


def _right(done: subprocess.CompletedProcess[bytes]) -> subprocess.CompletedProcess[bytes]:
    assert done.returncode == 0, done.stderr.decode()
    return done


@pytest.fixture
def both(shell: Shell, proxy: Proxy, upstream_ca: Path) -> Both:
    return Both(shell, proxy, upstream_ca)


# --- openai's SDK, and a client of event streams -------------------------------------------------


def chat_answer(number: int, **message: object) -> dict[str, object]:
    choice = {"index": 0, "finish_reason": None, **message}
    return {
        "id": "c-1",
        "object": "chat",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "n": number,
    }


WORDS = ["The", " key", " is ", VALUE, ", über", " 🔑", "\n", "and", " that is all", "."] * 20


async def _openai(at: Exchange) -> None:
    """Enough of the chat completions API: an answer, a stream, and a refusal that quotes."""
    if at.request.all("authorization") != [f"Bearer {VALUE}".encode()]:
        await at.answer(b'{"error": {"message": "no"}}', status=b"401 No", kind=b"application/json")
    elif b"/models/" in at.request.target:
        error = {"message": f"nothing for {VALUE}", "code": "model_not_found", "type": "x"}
        body = json.dumps({"error": error}).encode()
        await at.answer(body, status=b"404 None", kind=b"application/json")
    elif json.loads(at.request.body).get("stream"):
        await at.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        events = [chat_answer(n, delta={"content": word}) for n, word in enumerate(WORDS)]
        for data in [*(json.dumps(event, ensure_ascii=False) for event in events), "[DONE]"]:
            text = f"data: {data}\n\n".encode()
            await at.send(b"%x\r\n%b\r\n" % (len(text), text))
        await at.send(b"0\r\n\r\n")
    else:
        message = {"role": "assistant", "content": "".join(WORDS)}
        body = json.dumps(chat_answer(0, message=message, logprobs=None)).encode()
        await at.answer(body, kind=b"application/json")


async def _sse(at: Exchange) -> bool:
    """All that the format has: names, ids, retry, comments, several lines, no last blank line."""
    await at.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    for text in (
        ": hello\n\nretry: 1500\nid: 1\nevent: greeting\ndata: one\ndata: two\n\n",
        f"data: {VALUE}\nid: 2\n\n",
        "data:no blank\r\n\r\n",
        "data\n\ndata: \n\n",
        f'event: json\ndata: {{"k": "{VALUE}", "ü": "🔑"}}\n\n',
        "data: cut in the mid",
        "dle\n\n",
    ):
        await at.send(text.encode())
    at.writer.close()
    return False


@pytest.mark.parametrize(
    ("name", "module", "mode", "path"),
    [("openai", "openai", _openai, "v1"), ("sse", "httpx_sse", _sse, "sse")],
)
def test_a_reader_of_streams_reads_the_same(
    name: str, module: str, mode: object, path: str, both: Both, upstream: Upstream
) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    upstream.modes[path] = mode  # type: ignore[assignment]
    command = [sys.executable, HERE / "sdk_client.py", name, f"https://{HOST}/{path}"]

    directly = both.directly([*command, VALUE]).stdout.decode()
    through = both.through([*command, "{{secrets.wild.key}}"]).stdout.decode()

    assert VALUE in directly
    assert through == directly.replace(VALUE, MASK)
    if name == "openai":
        content = "".join(
            c["choices"][0]["delta"]["content"] for c in json.loads(through)["chunks"]
        )
        assert content == "".join(WORDS).replace(VALUE, MASK)


# --- pip -----------------------------------------------------------------------------------------


def a_wheel() -> bytes:
    """The smallest wheel that pip takes (PEP 427)."""
    files = {
        "tiny.py": "ANSWER = 42\n" * 5000,
        "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n",
        "tiny-1.0.dist-info/RECORD": "",
    }
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), text)
    return held.getvalue()


WHEEL, FILE = a_wheel(), "tiny-1.0-py3-none-any.whl"


async def _index(at: Exchange) -> None:
    """A simple index (PEP 503) behind Basic, and its one file."""
    given = at.request.all("authorization")
    if given != [b"Basic " + base64.b64encode(f"user:{VALUE}".encode())]:
        challenge = b'WWW-Authenticate: Basic realm="index"'
        await at.answer(b"who are you?", challenge, status=b"401 Unauthorized")
    elif at.request.target.endswith(b".whl"):
        await at.answer(WHEEL, kind=b"application/zip")
    else:
        digest = hashlib.sha256(WHEEL).hexdigest()
        link = f'<!DOCTYPE html><html><a href="../{FILE}#sha256={digest}">{FILE}</a></html>'
        await at.answer(link.encode(), kind=b"text/html")


def test_pip_downloads_the_same(both: Both, upstream: Upstream, tmp_path: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        pytest.skip("pip is not installed")
    upstream.modes["simple"] = _index
    into = {"directly": tmp_path / "directly", "through": tmp_path / "through"}
    runs = {"directly": (both.directly, VALUE), "through": (both.through, URLSAFE)}
    for way, (run, password) in runs.items():
        index = f"https://user:{password}@{HOST}/simple/"
        options = ["--isolated", "--no-input", "--no-cache-dir", "--disable-pip-version-check"]
        options += ["-q", "--no-deps", "--index-url", index, "-d", str(into[way])]
        run([sys.executable, "-m", "pip", "download", *options, "tiny"])

    assert (into["directly"] / FILE).read_bytes() == WHEEL
    assert (into["through"] / FILE).read_bytes() == WHEEL
    sent = [item for item in upstream.take() if item.target.endswith(b".whl")]
    assert len(sent) == 2
