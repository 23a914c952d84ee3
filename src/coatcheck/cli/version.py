"""`coatcheck version` and `coatcheck completion`: what must answer at once.

Versions are read from the installed packages' metadata, since importing mitmproxy to ask it takes
seconds.
"""

from __future__ import annotations

import platform
import ssl
from enum import StrEnum
from importlib import metadata
from importlib.util import find_spec
from typing import Annotated

import typer

from coatcheck import __version__
from coatcheck.cli import console


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    POWERSHELL = "powershell"


def version(style: console.FormatOption = console.Format.TABLE) -> None:
    """Print the versions of coatcheck and of what it stands on."""
    console.show_one(
        {
            "coatcheck": __version__,
            "python": platform.python_version(),
            "mitmproxy": _installed("mitmproxy"),
            "cryptography": _installed("cryptography"),
            "search": "compiled" if find_spec("coatcheck.core._words") else "numpy",
            "openssl": ssl.OPENSSL_VERSION,
            "platform": platform.platform(),
        },
        style,
    )


def completion(
    shell: Annotated[Shell, typer.Argument(help="The shell that will read the script.")],
) -> None:
    """Print a completion script, to be sourced from the shell's start-up file.

    bash: source <(coatcheck completion bash)
    fish: coatcheck completion fish | source
    """
    # typer has no public name for it; a test runs the scripts that come out.
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    print(
        get_completion_script(
            prog_name="coatcheck", complete_var="_COATCHECK_COMPLETE", shell=str(shell)
        )
    )


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
