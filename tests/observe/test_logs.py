"""G2 for logs: no value and no text of others, one JSON object a line whatever a field holds."""

from __future__ import annotations

import base64
import errno
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from coatcheck.core.limits import Limits
from coatcheck.core.secret import SecretValue
from coatcheck.observe import logs

VALUE = b"sk_live_0123456789abcdef"
FIELD_CHARS = Limits().log_field_chars
OPENED = [SecretValue("key", 1, VALUE)]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    kept = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:], root.level, logging.raiseExceptions = kept
    structlog.reset_defaults()


def configured(opened: list[SecretValue] = OPENED, level: str = "info") -> io.StringIO:
    out = io.StringIO()
    logs.configure(lambda: opened, level=level, stream=out)
    return out


def records(out: io.StringIO) -> list[dict[str, Any]]:
    """One record for each line, and nothing that a terminal would obey."""
    text = out.getvalue()
    assert text.isascii()
    assert all(char.isprintable() or char == "\n" for char in text)
    return [json.loads(line) for line in text.splitlines()]


def test_an_event_is_one_object_with_time_level_and_fields() -> None:
    out = configured()

    logs.event("request.refused", code="domain_not_allowed", host="", count=0, none=None)

    (record,) = records(out)
    assert record.pop("time").endswith("Z")
    assert record == {
        "event": "request.refused",
        "level": "info",
        "code": "domain_not_allowed",
        "count": 0,
    }


@pytest.mark.parametrize(
    ("worker", "fields", "shown"),
    [
        pytest.param(None, {}, None, id="a proxy in one process has none"),
        pytest.param(2, {}, 2, id="a worker's own"),
        pytest.param(None, {"worker": 3}, 3, id="whom the supervisor speaks of"),
    ],
)
def test_a_line_has_the_number_of_its_worker(
    worker: int | None, fields: dict[str, object], shown: int | None
) -> None:
    out = io.StringIO()
    logs.configure(worker=worker, stream=out)

    logs.event("policy.loaded", **fields)

    (record,) = records(out)
    assert record.get("worker") == shown


def test_a_line_is_one_write() -> None:
    """Several workers share the stream: what comes in two parts could come apart."""

    class Stream(io.StringIO):
        def __init__(self) -> None:
            super().__init__()
            self.writes: list[str] = []

        def write(self, text: str, /) -> int:
            self.writes.append(text)
            return super().write(text)

    stream = Stream()
    logs.configure(stream=stream)
    logs.event("serve.ready")
    logs.event("serve.stopped")

    assert [json.loads(text)["event"] for text in stream.writes] == ["serve.ready", "serve.stopped"]
    assert all(text.endswith("\n") for text in stream.writes)


def test_levels_below_the_one_asked_for_are_left_out() -> None:
    out = configured(level="error")

    logs.event("serve.ready")

    assert records(out) == []


# --- others' records -------------------------------------------------------------------------

FOREIGN = ["mitmproxy.proxy.server", "asyncio", "h2", "hpack.hpack", "sqlalchemy", "urllib3", "x"]


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("level", [1, 10, 20, 21, 30, 40, 50, 99])
def test_of_others_records_no_text_survives(name: str, level: int) -> None:
    out = configured(level="debug")
    logger = logging.getLogger(name)
    logger.setLevel(1)
    try:
        int("text of an exception")
    except ValueError:
        logger.log(level, "text %s", "argument", exc_info=True, extra={"client": "text"})
    finally:
        logger.setLevel(logging.NOTSET)

    assert "text" not in out.getvalue()
    assert "argument" not in out.getvalue()
    assert "Traceback" not in out.getvalue()
    for record in records(out):
        assert record.pop("time")
        assert record.pop("level") in {"debug", "info", "warning", "error"}
        assert record == {"event": "foreign.log", "logger": name, "exception": "ValueError"}
    assert len(records(out)) == (level >= 10)


def test_by_default_others_are_heard_from_warning_on() -> None:
    out = configured()

    logging.getLogger("asyncio").info("text")
    logging.getLogger("asyncio").warning("text")

    assert [record["level"] for record in records(out)] == ["warning"]


def test_a_record_that_cannot_be_formatted_prints_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = configured()

    logging.getLogger("x").warning("%d", "text")

    assert len(records(out)) == 1
    assert "text" not in out.getvalue() + "".join(capsys.readouterr())


# --- fields ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["exc_info=True", "exc_info=error", "as a field"])
def test_an_exception_is_told_by_its_type(how: str) -> None:
    out = configured()
    log = structlog.get_logger()
    try:
        int("text")
    except ValueError as error:
        if how == "as a field":
            log.info("x", error=type(error).__name__)
        else:
            log.info("x", exc_info=True if how.endswith("True") else error, stack_info=True)

    (record,) = records(out)
    assert "ValueError" in (record.get("exception"), record.get("error"))
    assert "text" not in out.getvalue()
    assert "test_logs.py" not in out.getvalue()


def encoded(value: bytes) -> list[Any]:
    text = value.decode()
    whole = base64.b64encode(value).decode()
    return [
        pytest.param(text, id="raw"),
        pytest.param(f"before {text} after", id="inside a text"),
        pytest.param(f"Basic {base64.b64encode(b'user:' + value).decode()}", id="Basic"),
        pytest.param(whole, id="base64"),
        pytest.param(whole.rstrip("="), id="base64, no padding"),
        pytest.param(value.hex(), id="hex"),
        pytest.param("".join(f"%{byte:02X}" for byte in value), id="percent"),
        pytest.param(value, id="bytes"),
        pytest.param([text], id="in a list"),
        pytest.param({"a": {"b": text}}, id="in a dict"),
        pytest.param(ValueError(text), id="as an exception"),
        pytest.param(text * 200, id="many times"),
        pytest.param("x" * (FIELD_CHARS - 10) + text, id="over the end of a long field"),
    ]


@pytest.mark.parametrize("field", encoded(VALUE))
def test_a_value_that_turns_up_in_a_field_is_masked(field: object) -> None:
    out = configured()

    logs.event("x", field=field)
    structlog.get_logger().warning("x", other=field)

    for record in records(out):
        shown = str(record)
        for start in range(len(VALUE) - 9):
            assert VALUE[start : start + 10].decode() not in shown, "not even a part of it"
    assert VALUE.hex() not in out.getvalue()
    assert base64.b64encode(VALUE).decode()[:20] not in out.getvalue()
    assert len(records(out)) == 2


@pytest.mark.parametrize("chars", [64, FIELD_CHARS, 3000])
def test_a_long_field_is_cut_after_the_setting(chars: int) -> None:
    out = io.StringIO()
    logs.configure(field_chars=chars, stream=out)

    logs.event("x", just="y" * chars, over="y" * (chars + 1))

    (record,) = records(out)
    assert (record["just"], record["over"]) == ("y" * chars, "y" * chars + "…")


def test_the_name_of_an_event_is_masked_too() -> None:
    out = configured()

    logs.event("by mistake " + VALUE.decode())

    assert VALUE.decode() not in out.getvalue()


def test_a_field_without_a_value_is_as_it_was() -> None:
    out = configured()

    logs.event("x", host="api.example.com", number=3, truth=True)

    (record,) = records(out)
    assert (record["host"], record["number"], record["truth"]) == ("api.example.com", 3, True)


def test_values_are_masked_as_they_are_opened_however_many() -> None:
    values = [SecretValue(f"n{i}", 1, b"value-%06d-abcdefgh" % i) for i in range(logs.MERGED * 2)]
    opened: list[SecretValue] = []
    out = configured(opened)

    for value in values:
        opened.append(value)
        logs.event("x", field=value.reveal().decode(), first=values[0].reveal().decode())

    assert "value-" not in out.getvalue()
    assert len(records(out)) == len(values)


def test_what_is_opened_no_more_takes_no_memory_and_the_rest_stays_masked() -> None:
    values = [SecretValue(f"n{i}", 1, b"value-%06d-abcdefgh" % i) for i in range(logs.MERGED * 3)]
    opened: list[SecretValue] = []
    net = logs.Net(lambda: opened)
    for at in range(len(values)):
        opened[:] = values[max(0, at - 5) : at + 1]
        for value in opened:
            assert net.redact(value.reveal()) == b"********"

        assert sum(len(group.values) for group in net._groups) <= 2 * len(opened)


def test_a_value_too_long_to_be_searched_for_stops_no_line() -> None:
    others = [SecretValue(f"n{i}", 1, b"value-%06d-abcdefgh" % i) for i in range(logs.MERGED)]
    out = configured([SecretValue("long", 1, b"x" * (2 << 20)), *OPENED, *others])

    logs.event("x", field=VALUE.decode(), others=others[-1].reveal().decode())

    assert records(out)[0]["field"] == records(out)[0]["others"] == "********"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('a\r\n{"event": "forged"}', id="CR and LF"),
        pytest.param("a\x1b[2J\x1b]0;title\x07", id="ANSI"),
        pytest.param("a\x00b", id="NUL"),
        pytest.param("a\u202eb\u2066c", id="bidirectional marks"),
        pytest.param("a\u2028b\u0085c\x0b", id="other line ends"),
        pytest.param("a\x9b31mb", id="C1 controls"),
        pytest.param("a\x7fb", id="DEL"),
        pytest.param("a\udcffb", id="a lone surrogate"),
        pytest.param("é漢😀", id="not ASCII"),
    ],
)
def test_a_line_stays_a_line(text: str) -> None:
    out = configured()

    logs.event("x", field=text)
    logs.event(text)

    one, two = records(out)
    wanted = text.replace("\udcff", "?")
    assert (one["field"], two["event"]) == (wanted, wanted)


def test_a_field_has_its_length() -> None:
    out = configured()

    logs.event("x", field="y" * 100_000)

    assert records(out)[0]["field"] == "y" * Limits().log_field_chars + "…"


class Broken(io.StringIO):
    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


class NoText:
    def __str__(self) -> str:
        raise ValueError("text")


def test_logging_never_raises(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(stream=Broken())
    logs.event("x")
    logging.getLogger("x").warning("y")

    out = configured()
    logs.event("x", field=NoText())
    logs.event("x", event="taken")

    assert "text" not in out.getvalue() + "".join(capsys.readouterr())
