"""`ude data`: measurements to try things with."""

from __future__ import annotations

import click

from ude._checks import InputError
from ude.cli.errors import one_sentence
from ude.datasets.table import suggest
from ude.systems import HUDSON_BAY_CITATION, hudson_bay_csv

TABLES = {"hudson_bay": (hudson_bay_csv, HUDSON_BAY_CITATION)}


@click.command(epilog="\b\nExample:\n  ude data hudson_bay > hudson_bay.csv")
@click.argument("name", required=False)
@click.option("--list", "show_list", is_flag=True, help="List the data sets that come along.")
def data(name: str | None, show_list: bool) -> None:
    """Print the data set NAME as a CSV table."""
    with one_sentence():
        if show_list or name is None:
            for known, (_, citation) in TABLES.items():
                click.echo(f"{known}  {citation}")
            return
        if name not in TABLES:
            raise InputError(f"There is no data set {name!r}.{suggest(name, TABLES)} Choose from {', '.join(TABLES)}.")
        click.echo(TABLES[name][0](), nl=False)
