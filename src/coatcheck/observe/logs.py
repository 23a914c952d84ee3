"""JSON lines on stderr, one per event, with a net under them.

Our own code logs constant event names with a few safe fields. What other libraries log is never
passed on as text: mitmproxy, asyncio and friends quote bytes of traffic, so of their records only
the logger's name, the level and the type of an exception survive, whatever level is asked for.
Last, a processor masks every opened value that still turns up in a field: a net, not a rule.

Logging never raises. A pipe that nobody reads, or a full disk, costs lines here and no requests;
what must be written before a request goes on is the audit log's.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Collection, MutableMapping
from contextlib import suppress
from typing import Any, TextIO

from coatcheck.core.limits import Limits
from coatcheck.core.redact import Needles
from coatcheck.core.secret import SecretValue
from coatcheck.core.spelling import TooLong
from coatcheck.observe.lean import without

with without("rich"):  # for tracebacks in colours, which are never shown here
    import structlog

MERGED = 32  # values that share one search; building one for all takes seconds for a thousand
type Event = MutableMapping[str, Any]


def configure(
    opened: Callable[[], Collection[SecretValue]] = tuple,
    *,
    level: str = "info",
    field_chars: int = Limits().log_field_chars,
    worker: int | None = None,
    stream: TextIO | None = None,
) -> None:
    """Set up logging for the process.

    Args:
        opened: Gives the values that must not be shown.
        level: The least level that is shown: debug, info, warning, error.
        field_chars: What is left of the text of one field.
        worker: The number of this process among several; stands in each line.
    """
    out = stream or sys.stderr
    structlog.configure(
        processors=[
            _of_worker(worker),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _only_exception_types,
            _Mask(opened, field_chars),
            structlog.processors.JSONRenderer(ensure_ascii=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        # One write a line: several workers share the stream.
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Foreign()]
    root.setLevel(logging.WARNING)
    logging.raiseExceptions = False  # else a format error prints the record's arguments


_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def event(name: str, /, **fields: object) -> None:
    """Log one event at level info: a constant name, and fields that are safe to show."""
    given = {key: value for key, value in fields.items() if value not in ("", None)}
    with suppress(Exception):
        structlog.get_logger().info(name, **given)


class _Foreign(logging.Handler):
    """Takes records of other libraries, and lets through that there was one."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        level = max(known for known in (0, *_LEVELS.values()) if known <= max(0, record.levelno))
        with suppress(Exception):
            structlog.get_logger().log(level, "foreign.log", logger=record.name, exception=kind)


def _of_worker(number: int | None) -> structlog.typing.Processor:
    def add(_: object, __: str, event: Event) -> Event:
        if number is not None:
            event.setdefault("worker", number)
        return event

    return add


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
    def __init__(self, opened: Callable[[], Collection[SecretValue]], field_chars: int) -> None:
        self._net = Net(opened)
        self._field_chars = field_chars

    def __call__(self, _: object, __: str, event: Event) -> Event:
        for key, value in event.items():
            if not isinstance(value, (int, float, bool, type(None))):
                event[key] = self._clean(value if isinstance(value, str) else str(value))
        return event

    def _clean(self, text: str) -> str:
        # Masked first: what is cut off in the middle of a value is not found any more.
        text = self._net.redact(text.encode("utf-8", "replace")).decode("utf-8", "replace")
        return text if len(text) <= self._field_chars else text[: self._field_chars] + "…"


class Net:
    """Masks every opened value. Building a search costs milliseconds for each value, so every
    value is built once by itself, and once more together with others."""

    def __init__(self, opened: Callable[[], Collection[SecretValue]]) -> None:
        self._opened = opened
        self._groups: list[_Group] = []
        self._known: set[SecretValue] = set()
        self._lock = threading.Lock()  # the loop's thread logs, and others do

    def redact(self, data: bytes) -> bytes:
        with self._lock:
            self._take(self._opened())
            groups = list(self._groups)
        for group in groups:
            if group.needles is not None:
                data = group.needles.redact(data)
        return data

    def _take(self, opened: Collection[SecretValue]) -> None:
        fresh = [value for value in opened if value not in self._known]
        if not fresh and len(opened) == len(self._known):
            return
        self._known = set(opened)
        self._forget()
        for value in fresh:
            self._groups.append(_Group([value]))
            single = [group for group in self._groups if group.is_single]
            if len(single) == MERGED:
                self._merge(single)

    def _forget(self) -> None:
        """Let go of what is not asked for any more, where that is at least half of a group."""
        for group in list(self._groups):
            left = [value for value in group.values if value in self._known]
            if len(left) <= len(group.values) // 2:
                self._groups.remove(group)
                self._groups += [_Group(left)] if left else []

    def _merge(self, groups: list[_Group]) -> None:
        self._groups = [group for group in self._groups if group not in groups]
        self._groups.append(_Group([value for group in groups for value in group.values]))


class _Group:
    """Values that are searched for together."""

    def __init__(self, values: list[SecretValue]) -> None:
        self.values = values
        self.needles: Needles | None = None
        with suppress(TooLong):  # such a value is never sent, and must stay by itself
            self.needles = Needles.build(values)

    @property
    def is_single(self) -> bool:
        return self.needles is not None and len(self.values) == 1
