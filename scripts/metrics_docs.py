"""Write docs/metrics.md from the table of the metrics, so that the two cannot differ.

Run it after a change to `coatcheck.observe.families`::

    .venv/bin/python scripts/metrics_docs.py
"""

from __future__ import annotations

from pathlib import Path

from coatcheck.core.meter import MOST, OWN_S, UPSTREAM_S
from coatcheck.observe.families import FAMILIES, Family, Label
from coatcheck.observe.metrics import FRESH_S

PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
MANY = 12  # words of a label that are written out

TEXT = """\
# Metrics

<!-- Made by scripts/metrics_docs.py from the table in observe/families.py; do not edit by hand. -->

The admin port serves these numbers at `/metrics`, in Prometheus's text format. No label holds text
of a client, and none a value: words are fixed in the code, or names of the policy and the store.
Where names are labels, a worker shows {most:,} series at the most; what comes after them is counted
under `other`.

Each worker counts for itself and tells the process over it once a second, which adds up and writes
`run/metrics.json`. So counts are those of all workers together, and do not go back when one dies;
what it had counted in its last second is lost, while the [audit log](operations.md#audit-log) has
it. They begin with 0 when the proxy is started. Gauges are those of each worker. Numbers that are
older than {fresh:g} s are not shown, and `coatcheck_up` is 0.

Requests, injections, refusals and scrubs are counted where the audit line is written, and add up
with it: each line with `allow` of an event `request` is a request that was let go, each with
`refuse` a refusal, and without `let_go` a request that was refused. A request inside a tunnel
counts, the CONNECT before it only where it is refused. Messages of a WebSocket are no requests;
what is put into them, taken out of them or refused is counted. The canary of `coatcheck doctor`
counts as a request, and its secret `coatcheck-canary` as one that was injected and scrubbed.

Of [sources](sources.md) the kind is told, since `coatcheck status` has the names; each worker has
its own values, so each has its own gauges. Where one question fails for a whole source, each of
its secrets that was due counts.

| metric | kind | labels | what it says |
|---|---|---|---|
{rows}

The bounds of `coatcheck_added_seconds` and `coatcheck_audit_write_seconds` in milliseconds:
{own};
of the two with `upstream`:
{upstream}.
What requests wait for each other in one worker is in none of them; see
`coatcheck_event_loop_lag_seconds`.

| label | words |
|---|---|
{words}

## Scrape, look, be told

`deploy/prometheus/alerts.yaml` has alert rules, each with its next step, and
`deploy/grafana/coatcheck.json` is a dashboard (import it, and choose the Prometheus data source).
`coatcheck status --format json` shows sums under `totals`, without a Prometheus.

<!-- run by: tests/observe/test_metrics.py::test_promtool_takes_the_alerts -->
```sh
promtool check rules deploy/prometheus/alerts.yaml
```
"""


def page() -> str:
    return TEXT.format(
        most=MOST,
        fresh=FRESH_S,
        rows="\n".join(map(_row, FAMILIES)),
        own=", ".join(f"{bound * 1000:g}" for bound in OWN_S),
        upstream=", ".join(f"{bound * 1000:g}" for bound in UPSTREAM_S),
        words="\n".join(_labels()),
    )


def _row(family: Family) -> str:
    labels = ", ".join(f"`{label.name}`" for label in family.labels)
    return f"| `{family.name}` | {family.kind} | {labels} | {family.about} |"


def _labels() -> list[str]:
    """One row for each label and each set of words that it has."""
    found: dict[Label, None] = {}
    for family in FAMILIES:
        found.update(dict.fromkeys(family.labels))
    return [
        f"| `{label.name}` | {_words(label)} |" for label in sorted(found, key=lambda it: it.name)
    ]


_NAMED = {
    "client": "names in the policy; `unknown`, `other`",
    "secret": "names in the store and the sources file, and the canary's; `other`",
    "worker": "from 1 on",
    "process": "`supervisor`, `worker-1` and so on",
    "digest": "SHA-256 of the policy file",
    "version": "of coatcheck",
    "python": "of Python",
    "mitmproxy": "of mitmproxy",
    "code": "as in the [README](../README.md)'s table of refusals",
    "spelling": "as in [scrubbing](scrubbing.md); `other`",
}


def _words(label: Label) -> str:
    if label.words[:1] == ("made",):
        return "`made`, or as `code`"
    if not label.words or len(label.words) > MANY:
        return _NAMED[label.name]
    return ", ".join(f"`{word}`" for word in label.words)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
