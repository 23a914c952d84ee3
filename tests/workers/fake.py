"""A program that speaks as a worker does, and ends as the test wants. It needs no home.

    python -m tests.workers.fake HOW FILE

What it hears stands in the file that its settings name as policy, one word a line.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time

BAD_FACTS = {"policy": {"digest": "d"}, "store": "?"}

COUNTED = {
    "counters": {"requests": [[["runner", "GET", "allow"], 3]]},
    "gauges": {"store_revision": [[[], 7]]},
    "histograms": {},
}


def main(how: str, sock: socket.socket) -> int:
    stream = sock.makefile("rwb", buffering=0)

    def tell(what: str, **more: object) -> None:
        stream.write(json.dumps({"what": what, **more}).encode() + b"\n")

    def hear() -> str:
        message = json.loads(stream.readline() or b'{"what": "the end"}')
        if message["what"] == "task":
            hear.notes = message["task"]["settings"]["policy"]  # type: ignore[attr-defined]
        with open(hear.notes, "a") as notes:  # type: ignore[attr-defined]  # noqa: PTH123
            notes.write(message["what"] + "\n")
        return str(message["what"])

    hear()
    match how:
        case "refuses":
            tell("failed", problem="the key is missing", hint="restore it")
            return 1
        case "ends at once":
            return 7
        case "kills itself":
            os.kill(os.getpid(), signal.SIGKILL)
        case "talks rubbish":
            tell("facts", facts=BAD_FACTS)
            time.sleep(60)
        case "is deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tell("prepared")
    while (order := hear()) != "the end":
        if order == "go":
            policy = {"digest": "d" * 64, "error": ""}
            tell("facts", facts={"policy": policy, "store": {"revision": 7, "error": ""}})
            tell("ready")
            while how == "goes on talking":
                tell("metrics", report=COUNTED)
                time.sleep(0.01)
            if how == "counts":
                tell("metrics", report=COUNTED)
            if how == "miscounts":
                tell("metrics", report={**COUNTED, "gauges": {"up": [[["x"], 1]]}})
                tell("metrics", report=[])
            if how == "dies young":
                return 3
            if how == "closes its link":
                stream.close()
                sock.close()
                time.sleep(60)
        elif order in ("stop", "end") and how != "is deaf":
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], socket.socket(fileno=int(sys.argv[2]))))
