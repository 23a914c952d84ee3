"""What a client's requests go through on their way to the upstream: one proxy, or the gateway of
deploy/haproxy, two replicas behind a load balancer with one PostgreSQL.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.harness import RUNNER_TOKEN, Shell
from tests.e2e.upstream import Received, Upstream

CLIENT_S = 110  # the slowest of them begin with several seconds of their own


@dataclass(frozen=True, eq=False)
class Way:
    """One of them.

    Attributes:
        options: Of `coatcheck run`: where the proxy is, and whose certificate it shows.
    """

    name: str
    shell: Shell
    upstream: Upstream
    options: tuple[str | Path, ...]

    def run(
        self, command: Sequence[str | Path], token: str = RUNNER_TOKEN, **variables: str
    ) -> subprocess.CompletedProcess[bytes]:
        """`coatcheck run -- COMMAND`, as the client that has a token."""
        if token:
            variables |= {"COATCHECK_CLIENT_TOKEN": token, "COATCHECK_CLIENT": "runner"}
        arguments = ["run", *self.options, "--", *command]
        return self.shell.coatcheck(*arguments, timeout=CLIENT_S, **variables)

    def take(self) -> list[Received]:
        """What the upstream got since the last call."""
        return self.upstream.take()
