"""``python -m coatcheck.admin FILE``: the admin process. FILE is its end of the link to the
supervisor."""

from __future__ import annotations

from coatcheck.observe import logs
from coatcheck.workers import entry


def _load() -> entry.Work:
    from coatcheck.admin import process

    return process.work


def _crashed(error: str, where: str) -> None:
    logs.event("admin.crashed", error=error, where=where)


if __name__ == "__main__":
    entry.main(_load, _crashed, numbered=False)
