"""The whole of `make bench`, very small, so that it cannot rot: real proxies, real requests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.long import only_in_long

ROOT = Path(__file__).resolve().parents[2]
CASES = ("keep-16", "new", "down-text", "events")
WHO = ("direct", "stock", "coatcheck", "not-searched")
SPEED = {"down-text": "mb_per_s", "events": "events_per_s"}
SMALL = ["--quick", "--rounds", "1", "--seconds", "0.05", "--mib", "1", "--processes", "1"]


@only_in_long
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_small_run_measures_what_it_says(tmp_path: Path) -> None:
    found, profile = tmp_path / "bench.json", tmp_path / "profile"
    chosen = ["--only", *CASES, "--contenders", *WHO]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *SMALL, *chosen, "--json", found, "--profile", profile],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=280,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "HTTPS, 16 connections kept" in done.stdout
    read = json.loads(found.read_text())
    assert read["left_out"] == {}
    rows = {(row["case"], row["contender"]): row for row in read["results"]}
    assert {case for case, _ in rows} == {*CASES}
    assert {contender for _, contender in rows} == {*WHO}
    assert [key for key, row in rows.items() if row["errors"]] == []
    for (case, contender), row in rows.items():
        assert row["figures"][SPEED.get(case, "per_s")]["median"] > 0, (case, contender)
    assert rows["keep-16", "direct"]["figures"]["cpu_s_per_1000"]["median"] is None
    assert rows["keep-16", "stock"]["figures"]["cpu_s_per_1000"]["median"] > 0
    assert "Lane" in (profile / "coatcheck.profile.txt").read_text()
    assert not list(tmp_path.glob("coatcheck-bench-*"))  # it has cleaned up
