"""Compiles the one part of coatcheck that is in C, where there is a compiler.

It goes on without it where there is none: everything works then, and long answers take more time to
search (docs/decisions/0021).

It is built on the limited API, so the wheel serves every Python from 3.12 on.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "src/coatcheck/core/_words.c"
BUILT = "src/coatcheck/core/_words.abi3.so"
FLAGS = ("-O3", "-fPIC", "-shared", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2")
FLAGS += ("-Wall", "-Wextra")
NO_COMPILER = "COATCHECK_NO_COMPILER"  # set to anything: do without


class BuildHook(BuildHookInterface[Any]):
    """Called by hatchling for the wheel, and for the editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        built = Path(self.root, BUILT)
        draft = built.with_suffix(f".{os.getpid()}")
        if trouble := compile_to(Path(self.root, SOURCE), draft):
            built.unlink(missing_ok=True)
            self.app.display_warning(f"coatcheck is built without its compiled part: {trouble}")
            return
        draft.replace(built)  # at once: somebody may be about to load it
        build_data["pure_python"] = False
        build_data["artifacts"].append(BUILT)
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"cp312-abi3-{platform}"


def compile_to(source: Path, target: Path) -> str:
    """Compile; empty, or why it cannot be."""
    if os.environ.get(NO_COMPILER):
        return f"{NO_COMPILER} is set"
    if sys.platform == "win32" or sys.implementation.name != "cpython":
        return "no such platform"
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").is_file():
        return f"{headers} has no Python.h"
    compiler = shlex.split(os.environ.get("CC") or "cc")
    command = [*compiler, *FLAGS, f"-I{headers}", str(source), "-o", str(target)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        return f"{compiler[0]} does not run ({type(error).__name__})"
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return f"{compiler[0]} failed: {lines[0]}"
