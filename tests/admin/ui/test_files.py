"""The files that are served as they are, and whose they are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from coatcheck.admin.ui import files
from tests.admin.stage import Stage

STATIC = Path(files.__file__).parent / "static"
# htmx 2.0.11 as the npm package htmx.org has it (dist/htmx.min.js); Zero-Clause BSD.
HTMX = "htmx-2.0.11.min.js"
HTMX_SHA256 = "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717"


def test_htmx_is_the_one_that_was_published() -> None:
    assert hashlib.sha256((STATIC / HTMX).read_bytes()).hexdigest() == HTMX_SHA256
    assert "Zero-Clause BSD" in (STATIC / "htmx-LICENSE.txt").read_text("utf-8")


@pytest.mark.parametrize("name", [HTMX, "page.js", "page.css", "icon.svg"])
def test_a_file_is_had_without_a_credential(stage: Stage, name: str) -> None:
    answer = stage.browser().get(f"/static/{name}")

    assert answer.status_code == 200
    assert answer.content == (STATIC / name).read_bytes()
    assert answer.headers["content-type"] == files.TYPES[Path(name).suffix]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "name", ["nothing.js", "htmx-LICENSE.txt", "..%2Ffiles.py", "..%2ftemplates%2fbase.html", ".."]
)
def test_no_other_file_is(stage: Stage, name: str) -> None:
    assert stage.browser().get(f"/static/{name}").status_code in (303, 401, 404)


def test_templates_name_only_files_that_there_are() -> None:
    base = (STATIC.parent / "templates" / "base.html").read_text("utf-8")

    named = {part.partition('"')[0] for part in base.split('"/static/')[1:]}
    assert named == set(files.FILES)
