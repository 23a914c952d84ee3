"""JSON lines on stderr, one per event, with a net under them.

Our own code logs constant event names with a few safe fields. What other libraries log is never
passed on as text: mitmproxy, asyncio and friends quote bytes of traffic, so of their records only
the logger's name, the level and the type of an exception survive, whatever level is asked for.
Last, a processor masks every opened value that still turns up in a field: a net, not a rule.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, TextIO

import structlog

from coatcheck.core.redact import Needles

MAX_FIELD = 1024  # characters of one field
type Event = MutableMapping[str, Any]


def configure(
    needles: Callable[[], Needles] | None = None,
    *,
    level: str = "info",
    stream: TextIO | None = None,
) -> None:
    """Set up logging for the process.

    Args:
        needles: Gives the search for all values opened so far.
        level: The least level that is shown: debug, info, warning, error.
    """
    out = stream or sys.stderr
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _only_exception_types,
            _Mask(needles),
            structlog.processors.JSONRenderer(ensure_ascii=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Foreign()]
    root.setLevel(logging.WARNING)
    logging.raiseExceptions = False  # else a format error prints the record's arguments


_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def event(name: str, /, **fields: object) -> None:
    """Log one event at level info: a constant name, and fields that are safe to show."""
    structlog.get_logger().info(name, **{k: v for k, v in fields.items() if v not in ("", None)})


class _Foreign(logging.Handler):
    """Takes records of other libraries, and lets through that there was one."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        structlog.get_logger().log(
            min(record.levelno, logging.ERROR), "foreign.log", logger=record.name, exception=kind
        )


def _only_exception_types(_: object, __: str, event: Event) -> Event:
    # Messages and tracebacks may hold values; the type of an exception never does.
    info = event.pop("exc_info", None)
    if isinstance(info, BaseException):
        event["exception"] = type(info).__name__
    elif info:
        kind = sys.exc_info()[0]
        event["exception"] = kind.__name__ if kind else None
    event.pop("stack_info", None)
    return event


class _Mask:
    def __init__(self, needles: Callable[[], Needles] | None) -> None:
        self._needles = needles

    def __call__(self, _: object, __: str, event: Event) -> Event:
        needles = self._needles() if self._needles is not None else None
        for key, value in event.items():
            if isinstance(value, str):
                event[key] = self._clean(value, needles)
            elif not isinstance(value, (int, float, bool, type(None))):
                event[key] = self._clean(str(value), needles)
        return event

    def _clean(self, text: str, needles: Needles | None) -> str:
        if len(text) > MAX_FIELD:
            text = text[:MAX_FIELD] + "…"
        if not needles:
            return text
        return needles.redact(text.encode("utf-8", "replace"), None).decode("utf-8", "replace")
