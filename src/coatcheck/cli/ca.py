"""`coatcheck ca export`: the certificate that clients must trust. The key stays where it is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from coatcheck.cli import console
from coatcheck.core.ports import CoatcheckError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)


@app.callback()
def ca() -> None:
    """Export the certificate that clients must trust."""


@app.command()
def export(
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", dir_okay=False, help="A file to write instead of stdout."),
    ] = None,
    home: console.HomeOption = None,
) -> None:
    """Write the CA certificate (PEM) to stdout."""
    pem = read_certificate(console.home_path(home))
    if output is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(pem)
        sys.stdout.buffer.flush()
        return
    try:
        output.write_bytes(pem)
    except OSError as error:
        raise CoatcheckError(
            f"cannot write {output}: {error.strerror}", hint="name another file with -o"
        ) from error


def read_certificate(root: Path) -> bytes:
    """The CA certificate of the home *root*, PEM.

    Raises:
        HomeError: there is no home, or the file is missing or can be written by others.
        CoatcheckError: it holds something else; a key is never handed out.
    """
    from coatcheck.store import files  # not for `--help`
    from coatcheck.store.home import Home

    home = Home(root)
    files.check_folder(home.root)
    pem = files.read_file(home.ca_certificate, forbidden=files.OTHERS_WRITE)
    check_certificate(pem, home.ca_certificate)
    return pem


def check_certificate(pem: bytes, path: Path) -> None:
    """Look at what is about to be given to others.

    Raises:
        CoatcheckError: *pem* holds no certificate, or a key besides it.
    """
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise CoatcheckError(
            f"{path} holds no certificate in PEM",
            hint="make one with `coatcheck ca export -o FILE` where the proxy runs",
        )
    if b"PRIVATE KEY" in pem:
        raise CoatcheckError(
            f"{path} holds a private key besides the certificate",
            hint="keep it to yourself, and use what `coatcheck ca export` writes",
        )
