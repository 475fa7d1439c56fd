"""`ude reproduce`: a published table, run again."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import click

from ude._version import __version__
from ude.cli.errors import one_sentence


@click.command(epilog="\b\nExample:\n  ude reproduce hudson --out runs/hudson")
@click.argument("name", required=False)
@click.option("--list", "show_list", is_flag=True, help="List what can be reproduced, and from where.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the table, the figures and the numbers.")
@click.option("--overwrite", is_flag=True, help="Replace the folder if it exists.")
@click.option("--seeds", type=click.IntRange(1), help="Independent runs; the spread over them is printed.")
@click.option("--quick", is_flag=True, help="Fewer runs: seconds to minutes, not the full table.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of real data sets (or UDE_DATA).")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
def reproduce(
    name: str | None,
    show_list: bool,
    out: Path | None,
    overwrite: bool,
    seeds: int | None,
    quick: bool,
    data: Path | None,
    quiet: bool,
    debug: bool,
) -> None:
    """Run the published result NAME again and print our numbers beside the paper's."""
    with one_sentence(debug=debug):
        if show_list or name is None:
            _list()
            return
        if data is not None:
            from ude.datasets import data_folder

            os.environ["UDE_DATA"] = str(data_folder(data))
        _run(name, out, overwrite, seeds, quick, quiet)


def _list() -> None:
    from ude.reproduce import REPRODUCTIONS

    width = max(map(len, REPRODUCTIONS))
    for name, reproduction in REPRODUCTIONS.items():
        click.echo(f"{name:<{width}}  {reproduction.title} ({reproduction.source})")


def _run(name: str, out: Path | None, overwrite: bool, seeds: int | None, quick: bool, quiet: bool) -> None:
    from ude._checks import InputError
    from ude.datasets.table import suggest
    from ude.report.folder import check_target, fresh_folder
    from ude.reproduce import REPRODUCTIONS, Settings

    if name not in REPRODUCTIONS:
        raise InputError(
            f"There is no reproduction {name!r}.{suggest(name, REPRODUCTIONS)} Choose from {', '.join(REPRODUCTIONS)}."
        )
    if out is not None:
        check_target(out, overwrite=overwrite)
    settings = Settings(seeds=1, runs=4) if quick else Settings()
    settings = dataclasses.replace(
        settings, progress=not quiet and sys.stderr.isatty(), **({} if seeds is None else {"seeds": seeds})
    )
    outcome = REPRODUCTIONS[name].run(settings)
    click.echo(outcome.table())
    for note in outcome.notes:
        click.echo(f"- {note}")
    if out is not None:
        with fresh_folder(out, overwrite=overwrite) as draft:
            outcome.save(draft, REPRODUCTIONS[name].title)
            config = {"reproduction": name, "settings": dataclasses.asdict(settings), "ude": __version__}
            (draft / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        click.echo(f"Results: {out}")
