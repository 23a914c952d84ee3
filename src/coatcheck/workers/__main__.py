"""``python -m coatcheck.workers FILE``: a worker. FILE is its end of the link to the supervisor."""

from __future__ import annotations

from coatcheck.observe import logs
from coatcheck.workers import entry


def _load() -> entry.Work:
    from coatcheck import app  # imports mitmproxy, which takes a second

    return app.work


def _crashed(error: str, where: str) -> None:
    logs.event("worker.crashed", error=error, where=where)


if __name__ == "__main__":
    entry.main(_load, _crashed, numbered=True)
