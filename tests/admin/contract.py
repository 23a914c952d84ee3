"""The API against its own description: schemathesis sends what fits it and what does not.

    python -m tests.admin.contract --seconds 600

In the suite it runs for a moment (`test_contract.py`). A stream of events has no end and is left
out; the throttle is, since half of what is sent to log in with is wrong on purpose.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coatcheck.admin import throttle
from coatcheck.admin.process import _Server
from coatcheck.listening import Listener
from coatcheck.store.home import Home, create_home
from tests.admin.stage import Stage, staged

CONFIG = """\
[checks.positive_data_acceptance]
# Names, domains and URLs have rules that no schema holds, and a change names what it changes.
expected-statuses = ["2xx", "401", "403", "404", "409", "412", "415", "422", "428", "503"]
[checks.missing_required_header]
expected-statuses = ["401", "422", "428"]
"""


@contextmanager
def served(stage: Stage) -> Iterator[str]:
    """The stage at a real port."""
    listener = Listener()
    listener.bind(("127.0.0.1", 0))
    server = _Server(stage.app)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(20)


def run(folder: Path, home: Home, *options: str) -> subprocess.CompletedProcess[str]:
    """One run of schemathesis; a token of an owner goes along."""
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG)
    throttle.PER_ADDRESS, throttle.FOR_ALL = 10**9, 10**9
    with staged(home, role="admin") as stage, served(stage) as url:
        stage.make()
        return subprocess.run(
            [
                *(str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(config)),
                *("run", f"{url}/openapi.json", "--checks", "all", "--no-color"),
                *("--header", f"Authorization: Bearer {stage.tokens['owner']}"),
                *("--exclude-path", "/api/v1/events", "--request-timeout", "20"),
                *("--output-sanitize", "true", "--warnings", "off", *options),
            ],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "NO_PROXY": "127.0.0.1", "HOME": str(folder)},
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        home = create_home(folder / "home", now=time.time()).home
        done = run(folder, home, "--max-time", str(seconds), "--continue-on-failure")
    print(done.stdout[-20000:], done.stderr[-5000:])
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
