"""Two clients that are not ours, each told: you ask these, and get those bytes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import h11

from tests.differential.lanes import Reply, framed_once, plain_fields
from tests.differential.readers import HERE, Lines, paired, program


@dataclass(frozen=True)
class Play:
    """One request, by its method, and the bytes that answer it; whether they end there."""

    method: str
    bytes: str  # Latin-1
    close: bool


class ReadingClient(Protocol):
    name: str

    def read(self, plays: Sequence[Play]) -> list[Reply | None]:
        """For each request the response; None: it was broken, or not complete."""

    def close(self) -> None: ...


class H11Client:
    name = "h11"

    def read(self, plays: Sequence[Play]) -> list[Reply | None]:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        replies: list[Reply | None] = []
        for play in plays:
            head = h11.Request(method=play.method, target="/", headers=[("Host", "a.example")])
            connection.send(head)
            connection.send(h11.EndOfMessage())
            connection.receive_data(play.bytes.encode("latin-1"))
            if play.close:
                connection.receive_data(b"")
            replies.append(self._reply(connection))
            if replies[-1] is None or play.close:
                break
            assert connection.trailing_data == (b"", False)
            connection.start_next_cycle()
        return replies

    @staticmethod
    def _reply(connection: h11.Connection) -> Reply | None:
        try:
            while isinstance(head := connection.next_event(), h11.InformationalResponse):
                assert head.status_code in (102, 103)
            assert isinstance(head, h11.Response), head
            body = b""
            while isinstance(event := connection.next_event(), h11.Data):
                body += event.data
        except h11.RemoteProtocolError:
            return None
        assert isinstance(event, h11.EndOfMessage), event
        assert list(event.headers) == []
        fields = tuple(head.headers.raw_items())
        assert framed_once(fields)
        return Reply(head.status_code, head.reason, plain_fields(fields), body)

    def close(self) -> None:
        pass


class NodeClient:
    """llhttp, as node's http client uses it."""

    name = "node"

    def __init__(self) -> None:
        found = program("node")
        self._folder = tempfile.TemporaryDirectory(prefix="coatcheck-node-")
        script = str(HERE / "client.js")
        self._program = Lines([found, script, f"{self._folder.name}/s"])
        assert self._program.next() == "listening"

    def read(self, plays: Sequence[Play]) -> list[Reply | None]:
        self._program.say(json.dumps([asdict(play) for play in plays]))
        return [self._reply(seen) for seen in json.loads(self._program.next())]

    @staticmethod
    def _reply(seen: dict[str, Any]) -> Reply | None:
        if not seen["complete"]:
            return None
        assert seen["trailers"] == []
        fields = paired(seen["fields"])
        assert framed_once(fields)
        reason, body = (seen[key].encode("latin-1") for key in ("reason", "body"))
        return Reply(seen["status"], reason, plain_fields(fields), body)

    def close(self) -> None:
        self._program.close()
        self._folder.cleanup()


CLIENTS: dict[str, Callable[[], ReadingClient]] = {"h11": H11Client, "node": NodeClient}
