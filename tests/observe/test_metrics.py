"""What a scrape gets: every number of the table, in Prometheus's own words, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from coatcheck import __version__
from coatcheck.core import canary
from coatcheck.core.meter import Meter
from coatcheck.observe import metrics, state, totals
from coatcheck.observe.families import FAMILIES, Kind
from coatcheck.observe.state import WorkerState
from coatcheck.observe.totals import Totals

ROOT = Path(__file__).resolve().parent.parent.parent
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "coatcheck.json"
UNITS = ("_seconds", "_bytes", "_info", "_total")
NAMES = {family.name for family in FAMILIES}

type Labels = tuple[tuple[str, str], ...]
type Samples = dict[str, dict[Labels, float]]


def scraped(folder: Path, now: float | None = None) -> Samples:
    """Samples by name and labels."""
    body, _ = metrics.exposition(folder, now)
    found: Samples = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``run/`` of a proxy in which everything has happened."""
    meter = Meter(time.perf_counter)
    meter.requests.add(("runner-a", "GET", "allow"), 5)
    meter.injections.add(('odd "name"\n\\', "header"))
    meter.scrubs.add(("crm.key", "body", "raw"), 2)
    for seconds in (0.0001, 0.0001, 3.0):
        meter.added.add(seconds)
    look: dict[str, Any] = {
        family.key: {tuple(it.words[0] if it.words else "x" for it in family.labels[1:]): 1}
        for family in FAMILIES
        if family.kind is Kind.GAUGE
        and family.key not in ("build", "up", "written", "worker_ready")
    }
    kept = Totals(tmp_path)
    kept.take(1, totals.report(meter, {"cpu": {(): 1.25}}, look))
    kept.write([WorkerState(1, 5, ready=True, restarts=2)])
    return tmp_path


def test_a_scrape_shows_what_was_counted(folder: Path) -> None:
    found = scraped(folder)

    allowed = (("client", "runner-a"), ("decision", "allow"), ("method", "GET"))
    assert found["coatcheck_requests_total"] == {allowed: 5}
    hit = (("channel", "body"), ("secret", "crm.key"), ("spelling", "raw"))
    assert found["coatcheck_scrubs_total"] == {hit: 2}
    assert found["coatcheck_worker_restarts_total"] == {(("worker", "1"),): 2}
    assert found["coatcheck_process_cpu_seconds_total"] == {(("process", "worker-1"),): 1.25}
    assert found["coatcheck_up"] == {(): 1}


def test_a_name_of_any_characters_is_one_label(folder: Path) -> None:
    named = (("location", "header"), ("secret", 'odd "name"\n\\'))

    assert scraped(folder)["coatcheck_injections_total"] == {named: 1}


def test_buckets_hold_all_that_is_below_them(folder: Path) -> None:
    found = scraped(folder)

    buckets = {
        dict(labels)["le"]: n for labels, n in found["coatcheck_added_seconds_bucket"].items()
    }
    assert (buckets["5e-05"], buckets["0.0001"], buckets["1.0"], buckets["+Inf"]) == (0, 2, 2, 3)
    assert found["coatcheck_added_seconds_count"] == {(): 3}
    assert found["coatcheck_added_seconds_sum"] == {(): pytest.approx(3.0002)}


def test_every_metric_of_the_table_is_in_a_scrape_and_no_other(folder: Path) -> None:
    body, kind = metrics.exposition(folder)

    told = dict(re.findall(r"^# TYPE (\S+) (\S+)$", body.decode(), flags=re.MULTILINE))
    assert told == {family.name: family.kind for family in FAMILIES}
    assert kind.startswith("text/plain; version=")


def test_a_refusal_that_has_not_happened_is_a_zero(folder: Path) -> None:
    found = scraped(folder)["coatcheck_refusals_total"]

    assert found[("code", "domain_not_allowed"), ("stage", "request")] == 0


@pytest.mark.parametrize(
    "age_s",
    [
        pytest.param(metrics.FRESH_S + 1, id="of a process that hangs"),
        pytest.param(-metrics.FRESH_S - 1, id="of a clock that was put back"),
        pytest.param(None, id="none were written"),
        pytest.param("rubbish", id="the file is none"),
    ],
)
def test_old_numbers_are_not_shown(age_s: object, folder: Path) -> None:
    now = time.time()
    if isinstance(age_s, float):
        now += age_s
    elif age_s is None:
        state.remove(folder, metrics.FILE_NAME)
    else:
        (folder / metrics.FILE_NAME).write_text('{"written": ')

    found = scraped(folder, now)

    assert set(found) == {"coatcheck_up", "coatcheck_build_info"}
    assert found["coatcheck_up"] == {(): 0}
    ((labels, one),) = found["coatcheck_build_info"].items()
    assert (dict(labels)["version"], one) == (__version__, 1)


def test_people_get_sums(folder: Path) -> None:
    assert metrics.sums(folder) == {"requests": 5, "refusals": 0, "injections": 1, "scrubs": 2}
    assert set(metrics.sums(folder / "elsewhere").values()) == {0}


# --- the table -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_names_are_as_prometheus_wants_them(family: Any) -> None:
    """https://prometheus.io/docs/practices/naming/"""
    assert re.fullmatch(r"coatcheck_[a-z]+(_[a-z]+)*", family.name)
    assert (family.kind is Kind.COUNTER) == family.name.endswith("_total")
    assert (family.kind is Kind.HISTOGRAM) <= family.name.endswith("_seconds")
    assert re.search(r"_(ms|us|kb|mib|minutes|percent)(_|$)", family.name) is None
    assert family.about.endswith(".")


def test_names_are_unique() -> None:
    assert len(NAMES) == len({family.key for family in FAMILIES}) == len(FAMILIES)


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("x", ROOT / "scripts" / "metrics_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")

    assert page == script().page(), "run: .venv/bin/python scripts/metrics_docs.py"


# --- dashboard and alerts --------------------------------------------------------------------


def names_in(expression: str) -> set[str]:
    """The metrics that a PromQL expression names, buckets as their histogram."""
    found = set(re.findall(r"\bcoatcheck_[a-z_]+", expression))
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in found}


def label_names(expression: str) -> set[str]:
    """The labels that it selects or groups by."""
    selected = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression)
    grouped = re.findall(r"\b(?:by|without|on)\s*\(([^)]*)\)", expression)
    return {*selected, *(name.strip() for group in grouped for name in group.split(",") if name)}


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def expressions() -> list[str]:
    asked = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [*asked, *(rule["expr"] for rule in alerts())]


def test_dashboard_and_alerts_ask_for_metrics_that_there_are() -> None:
    asked = expressions()

    assert len(asked) > 20
    assert [each for each in asked if not names_in(each)] == []
    assert set().union(*map(names_in, asked)) <= NAMES


def test_and_for_labels_that_there_are() -> None:
    of_scrapes = {"instance", "job", "le"}
    known = {label.name for family in FAMILIES for label in family.labels} | of_scrapes

    assert set().union(*map(label_names, expressions())) <= known


def test_what_the_words_in_an_alert_select_is_in_the_table() -> None:
    words = {word for family in FAMILIES for label in family.labels for word in label.words}
    chosen = [
        word
        for rule in alerts()
        for name, text in re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', rule["expr"])
        for word in text.split("|")
        if name not in ("instance", "job")
    ]

    assert chosen
    assert set(chosen) <= words | {canary.NAME}


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["next_step"]


def test_the_dashboard_has_a_title_and_a_place_for_each_panel() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert panel["title"], panel["id"]
        assert not taken & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)"
)


def promtool(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    assert PROMTOOL is not None
    return subprocess.run(
        [PROMTOOL, *arguments], input=given, capture_output=True, check=False, timeout=60
    )


@needs_promtool
def test_promtool_takes_the_alerts() -> None:
    done = promtool("check", "rules", str(ALERTS))

    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
    assert f"{len(alerts())} rules found".encode() in done.stdout


@needs_promtool
def test_promtool_takes_a_scrape(folder: Path) -> None:
    done = promtool("check", "metrics", given=metrics.exposition(folder)[0])

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@needs_promtool
def test_promtool_takes_the_dashboard_s_questions(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": each.replace("$__rate_interval", "5m")}
        for number, each in enumerate(expressions())
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))

    done = promtool("check", "rules", str(file))

    assert done.returncode == 0, done.stderr.decode()


@needs_promtool
def test_the_alerts_fire_when_they_should() -> None:
    done = promtool("test", "rules", str(ALERTS.parent / "alerts_test.yaml"))

    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
