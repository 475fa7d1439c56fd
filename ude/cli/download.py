"""`ude download`: data sets from their official homes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from ude._checks import InputError
from ude.cli.errors import one_sentence


@click.command(epilog="\b\nExample:\n  ude download physionet2012 --data ~/data")
@click.argument("name", required=False)
@click.option("--list", "show_list", is_flag=True, help="List what can be downloaded, and from where.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of real data sets (or UDE_DATA).")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
def download(name: str | None, show_list: bool, data: Path | None, quiet: bool, debug: bool) -> None:
    """Fetch the data set NAME into the folder of data sets; files that are there are only checked."""
    with one_sentence(debug=debug):
        if show_list or name is None:
            _list()
            return
        try:
            _fetch(name, data, progress=not quiet and sys.stderr.isatty())
        except KeyboardInterrupt:
            raise KeyboardInterrupt("What arrived is kept. Continue with the same command.") from None


def _list() -> None:
    from ude.datasets import REMOTE_FILES

    width = max(map(len, REMOTE_FILES))
    for name, files in REMOTE_FILES.items():
        size = sum(file.size for file in files) / 1e6
        click.echo(f"{name:<{width}}  {size:5.1f} MB from {files[0].url.rpartition('/')[0]}")


def _fetch(name: str, data: Path | None, *, progress: bool) -> None:
    from ude.datasets import REMOTE_FILES, data_folder
    from ude.datasets import download as fetch
    from ude.datasets.table import suggest

    if name not in REMOTE_FILES:
        raise InputError(
            f"There is no data set {name!r} to download.{suggest(name, REMOTE_FILES)} Choose from "
            f"{', '.join(REMOTE_FILES)}."
        )
    # The folder may be new, unlike one that is only read from.
    folder = data or Path(os.environ.get("UDE_DATA") or data_folder())
    for file in REMOTE_FILES[name]:
        click.echo(fetch(file, folder, progress=progress))
