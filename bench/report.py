"""The tables: text for a terminal, Markdown for docs/performance.md, from the same rows."""

from __future__ import annotations

import json
import math
import os
import platform
import ssl
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import coatcheck
from bench.cases import (
    NOT_SEARCHED,
    Case,
    Options,
    measure_life,
    measure_load,
    measure_transfer,
)
from bench.contenders import ROOT, Contender
from bench.figures import Goal, Results, goals
from bench.load import STEPS

PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- made by make bench: begin -->", "<!-- made by make bench: end -->"


@dataclass(frozen=True)
class Column:
    """A figure of a case, or its ratio to that of the case's base: that has no title of its own."""

    title: str
    figure: str
    digits: int = 1
    ratio: bool = False


_LOAD = (
    Column("requests/s", "per_s", 0),
    Column("", "per_s", 2, ratio=True),
    Column("p50 ms", "p50_ms", 2),
    Column("p99 ms", "p99_ms", 2),
    Column("CPU s/1,000", "cpu_s_per_1000", 3),
    Column("", "cpu_s_per_1000", 2, ratio=True),
    Column("ends s/1,000", "ends_s_per_1000", 3),
)
_TRANSFER = (
    Column("MB/s", "mb_per_s", 0),
    Column("CPU s/GiB", "cpu_s_per_gib", 2),
    Column("", "cpu_s_per_gib", 2, ratio=True),
    Column("MB per CPU s", "mb_per_cpu_s", 0),
)
_STEPS = (
    *(Column(f"{step} ms", f"{step}_ms", 2) for step in STEPS),
    Column("all ms", "all_ms", 2),
    Column("", "all_ms", 2, ratio=True),
)
_EVENTS = (
    Column("first ms", "first_ms", 2),
    Column("over direct ms", "over_direct_ms", 2),
    Column("events/s", "events_per_s", 0),
    Column("CPU us/event", "cpu_us_per_event", 0),
    Column("", "cpu_us_per_event", 2, ratio=True),
)
_LIFE = (
    Column("start s", "start_s", 2),
    Column("idle MiB", "idle_mib", 0),
    Column("KiB per idle tunnel", "tunnel_kib", 0),
    Column("peak over idle MiB", "over_idle_mib", 0),
)
_GIB = tuple(
    column
    for figure, words in (("down", "down"), ("text", "up, text"), ("random", "up, random"))
    for column in (
        Column(f"{words}: MB/s", f"{figure}_mb_per_s", 0),
        Column("peak over idle MiB", f"{figure}_over_idle_mib", 1),
    )
)


def columns(case: Case) -> tuple[Column, ...]:
    if case.measure is measure_load:
        return _LOAD
    by_name = {"steps": _STEPS, "events": _EVENTS, "life": _LIFE, "gib": _GIB}
    return by_name.get(case.name, _TRANSFER)


@dataclass(frozen=True)
class Report:
    """A run, as it is written down and read again."""

    machine: Mapping[str, str]
    options: Options
    results: Results
    left_out: Mapping[str, str]
    cores: int

    def to_json(self) -> str:
        known = self.results
        rows = [
            {
                "case": case,
                "contender": name,
                "figures": {
                    figure: {
                        "median": _known(known.median(case, name, figure)),
                        "rounds": [*map(_known, rounds)],
                    }
                    for figure, rounds in known.values.get((case, name), {}).items()
                },
                "errors": known.errors.get((case, name), {}),
            }
            for case, name in known.values | known.errors
        ]
        goals = [
            {
                "goal": goal.name,
                "value": _known(goal.value),
                "wanted": goal.wanted,
                "state": goal.state,
                "note": goal.note,
            }
            for goal in self.goals()
        ]
        whole = {
            "machine": self.machine,
            "cores": self.cores,
            "options": asdict(self.options),
            "left_out": self.left_out,
            "results": rows,
            "goals": goals,
        }
        return json.dumps(whole, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Report:
        read = json.loads(text)
        results = Results()
        for row in read["results"]:
            key = (row["case"], row["contender"])
            results.values[key] = {
                figure: [math.nan if value is None else value for value in both["rounds"]]
                for figure, both in row["figures"].items()
            }
            results.errors[key] = row["errors"]
        options = Options(**read["options"])
        return cls(read["machine"], options, results, read["left_out"], read["cores"])

    def goals(self) -> list[Goal]:
        return goals(self.results, self.cores)


def _known(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else round(value, 6)


@dataclass(frozen=True)
class Table:
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if at and _is_figure(cell, self.head[at]) else cell.ljust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (self.head, *self.rows)
        ]
        return "\n".join([self.title, *(f"  {line}" for line in lines), ""])

    def markdown(self) -> str:
        figures = [
            any(_is_figure(row[at], "") for row in self.rows) for at in range(len(self.head))
        ]
        rule = ["--:" if figure and at else "---" for at, figure in enumerate(figures)]
        lines = [f"| {' | '.join(row)} |" for row in (self.head, rule, *self.rows)]
        return "\n".join([f"**{self.title[0].upper()}{self.title[1:]}**", "", *lines, ""])


def _is_figure(cell: str, title: str) -> bool:
    return cell[:1].isdigit() or cell[:1] == "-" or cell == title


def tables(
    report: Report, cases: Iterable[Case], contenders: Mapping[str, Contender]
) -> list[Table]:
    """One for each case that was measured."""
    made = []
    for case in cases:
        names = [name for name in case.contenders if _seen(report.results, case, name)]
        if not names:
            continue
        shown = columns(case)
        head = ["", *(column.title or f"/ {case.base}" for column in shown), "errors"]
        rows = [
            [
                title(contenders, name) + _own_size(report.options, case, contenders.get(name)),
                *(_cell(report.results, case, name, column) for column in shown),
                str(sum(report.results.errors.get((case.name, name), {}).values())),
            ]
            for name in names
        ]
        made.append(Table(case.title.format_map(asdict(report.options)), head, rows))
    return made


def title(contenders: Mapping[str, Contender], name: str) -> str:
    if name == NOT_SEARCHED:
        return "coatcheck, not searched"
    return contenders[name].title if name in contenders else name


def _own_size(options: Options, case: Case, contender: Contender | None) -> str:
    """Where it does not get the body that the others get."""
    most = contender.most_mib if contender else None
    smaller = case.measure in (measure_transfer, measure_life) and most and most < options.mib
    return f", {most} MiB" if smaller else ""


def _seen(results: Results, case: Case, name: str) -> bool:
    return (case.name, name) in results.values or (case.name, name) in results.errors


def _cell(results: Results, case: Case, name: str, column: Column) -> str:
    if column.ratio:
        value = results.ratio(case.name, name, case.base, column.figure)
    else:
        value = results.median(case.name, name, column.figure)
    return "-" if math.isnan(value) else f"{value:,.{column.digits}f}"


def goal_table(report: Report) -> Table:
    rows = [
        [
            goal.name,
            "-"
            if math.isnan(goal.value)
            else f"{goal.value:,.3g}{goal.unit}"
            if abs(goal.value) < 1000
            else f"{goal.value:,.0f}{goal.unit}",
            goal.wanted + (f" ({goal.note})" if goal.note else ""),
            goal.state,
        ]
        for goal in report.goals()
    ]
    return Table("goals", ["", "seen", "wanted", ""], rows)


def left_out_lines(report: Report, contenders: Mapping[str, Contender]) -> list[str]:
    return [
        f"not available: {title(contenders, name)}: {why}" for name, why in report.left_out.items()
    ]


def who_table(contenders: Mapping[str, Contender]) -> Table:
    rows = [[contender.title, contender.does] for contender in contenders.values()]
    return Table("who is measured", ["", "what it does"], rows)


def error_lines(report: Report) -> list[str]:
    return [
        f"{case}, {name}: {count} times {text}"
        for (case, name), errors in report.results.errors.items()
        for text, count in errors.items()
    ]


def machine_line(machine: Mapping[str, str]) -> str:
    return "; ".join(f"{key} {value}" for key, value in machine.items())


def page(report: Report, made: Sequence[Table], contenders: Mapping[str, Contender]) -> str:
    """docs/performance.md with the part between its two marks made anew."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    shown = [goal_table(report), who_table(contenders), *made]
    parts = [
        machine_line(report.machine) + ".\n",
        *(table.markdown() for table in shown),
        *(f"- {line}" for line in left_out_lines(report, contenders)),
    ]
    return f"{before}{BEGIN}\n\n" + "\n".join(parts).rstrip() + f"\n\n{END}{after}"


def machine() -> dict[str, str]:
    cpu = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    known = {
        "date": time.strftime("%Y-%m-%d"),
        "CPU": cpu[0] if cpu else platform.machine(),
        "cores": str(cores()),
        "Linux": platform.release().partition("-")[0],
        "Python": platform.python_version(),
        "coatcheck": coatcheck.__version__ + _commit(),
        "load before": f"{os.getloadavg()[0]:.1f}",
        "OpenSSL of Python": ssl.OPENSSL_VERSION.split()[1],
    }
    for package in ("mitmproxy", "cryptography", "proxy.py"):
        try:
            known[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return known


def cores() -> int:
    return len(os.sched_getaffinity(0))


def _commit() -> str:
    asked = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return f" ({done.stdout.strip()})"
