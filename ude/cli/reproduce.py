"""`ude reproduce`: a published table, run again."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ude._checks import InputError
from ude._version import __version__
from ude.cli.errors import one_sentence

if TYPE_CHECKING:
    from ude.reproduce import Reproduction, Result, Settings


@click.command(epilog="\b\nExample:\n  ude reproduce hudson --out runs/hudson")
@click.argument("name", required=False)
@click.option("--list", "show_list", is_flag=True, help="List what can be reproduced, and from where.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the table, the figures and the numbers.")
@click.option("--overwrite", is_flag=True, help="Replace the folder if it exists.")
@click.option("--seeds", type=click.IntRange(1), help="Independent runs; the spread over them is printed.")
@click.option("--budget", help="How much to run: smoke, cpu (the default) or full.")
@click.option("--quick", is_flag=True, help="The same as --budget smoke: seconds to minutes, not the full table.")
@click.option("--workers", type=click.IntRange(1), help="Runs side by side, one thread each.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of real data sets (or UDE_DATA).")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
def reproduce(
    name: str | None,
    show_list: bool,
    out: Path | None,
    overwrite: bool,
    seeds: int | None,
    budget: str | None,
    quick: bool,
    workers: int | None,
    data: Path | None,
    quiet: bool,
    debug: bool,
) -> None:
    """Run the published result NAME again and print our numbers beside the paper's.

    Long ones (t1) keep every run in the folder of `--out`: after an interruption, the same command goes on.
    """
    with one_sentence(debug=debug):
        if show_list or name is None:
            _list()
            return
        if data is not None:
            from ude.datasets import data_folder

            os.environ["UDE_DATA"] = str(data_folder(data))
        reproduction, settings = _choose(name, "smoke" if quick and budget is None else budget or "cpu", workers)
        settings = dataclasses.replace(
            settings, seeds=seeds or settings.seeds, progress=not quiet and sys.stderr.isatty()
        )
        if reproduction.keeps_runs:
            _run_kept(
                name, reproduction, settings, out or Path("runs") / f"{name}-{settings.budget}", overwrite=overwrite
            )
        else:
            _run(name, reproduction, settings, out, overwrite=overwrite)


def _list() -> None:
    from ude.reproduce import REPRODUCTIONS

    width = max(map(len, REPRODUCTIONS))
    for name, reproduction in REPRODUCTIONS.items():
        click.echo(f"{name:<{width}}  {reproduction.title} ({reproduction.source})")


def _choose(name: str, budget: str, workers: int | None) -> tuple[Reproduction, Settings]:
    from ude.datasets.table import suggest
    from ude.reproduce import REPRODUCTIONS

    if name not in REPRODUCTIONS:
        raise InputError(
            f"There is no reproduction {name!r}.{suggest(name, REPRODUCTIONS)} Choose from {', '.join(REPRODUCTIONS)}."
        )
    reproduction = REPRODUCTIONS[name]
    if budget not in reproduction.budgets:
        raise InputError(
            f"There is no budget {budget!r} for {name!r}. Choose `--budget` from {', '.join(reproduction.budgets)}."
        )
    if workers is not None and not reproduction.keeps_runs:
        raise InputError(f"The runs of {name!r} are made as one batch: leave out `--workers`.")
    return reproduction, dataclasses.replace(reproduction.budgets[budget], workers=workers or 1)


def _run(name: str, reproduction: Reproduction, settings: Settings, out: Path | None, *, overwrite: bool) -> None:
    """Run a reproduction whose folder is there completely or not at all."""
    from ude.report.folder import check_target, fresh_folder
    from ude.reproduce.store import MARK, write_json

    if out is not None:
        check_target(out, overwrite=overwrite)
    result = reproduction.run(settings)
    _show(result)
    if out is not None:
        with fresh_folder(out, overwrite=overwrite) as draft:
            result.save(draft, reproduction.title)
            write_json(draft / MARK, _manifest(name, settings))
        click.echo(f"Results: {out}")


def _run_kept(name: str, reproduction: Reproduction, settings: Settings, out: Path, *, overwrite: bool) -> None:
    """Run a reproduction that goes on with the runs in its folder."""
    from ude.reproduce.store import MARK, Store, write_json

    store = Store.open(out, overwrite=overwrite)
    manifest = _manifest(name, settings)
    if not (out / MARK).exists():
        write_json(out / MARK, manifest)
    click.echo(f"Runs are kept in {str(store.runs)!r}.", err=True)
    try:
        result = reproduction.run(dataclasses.replace(settings, folder=out))
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Every run is kept up to its last whole epoch. Go on with the same command.") from None
    _show(result)
    result.save(out, reproduction.title)
    write_json(out / MARK, manifest)
    click.echo(f"Results: {out}")


def _show(result: Result) -> None:
    click.echo(result.table())
    for note in result.notes:
        click.echo(f"- {note}")


def _manifest(name: str, settings: Settings) -> dict[str, Any]:
    """Return what was run and with what; no folder, which would name a person."""
    from ude.reproduce.manifest import machine

    asked = {key: value for key, value in dataclasses.asdict(settings).items() if key not in ("folder", "progress")}
    seeds = list(range(settings.first_seed, settings.first_seed + settings.seeds))
    return {"reproduction": name, "settings": asked, "seeds": seeds, "ude": __version__, "machine": machine()}
