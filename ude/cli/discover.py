"""`ude discover`: from half a model and a table of measurements to an equation."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ude._checks import InputError
from ude.cli.errors import one_sentence
from ude.cli.options import Assignment
from ude.cli.summary import summary
from ude.datasets import column_names, read_csv
from ude.datasets.table import suggest
from ude.models import parse_equations
from ude.problems import Trajectories
from ude.report import LIBRARIES, STRATEGIES, Job, Source, check_target, run_job, write_report

EPILOG = """\b
Equations: one per state, `name' = ...`, with + - * / ^, numbers, and functions such as exp, log, sqrt,
hill(x, K, n), mm(x, K). `?(x, y)` is an unknown term that depends on x and y. A name without an equation
is an exogenous input if the table has such a column, else a parameter that is fitted.
\b
Examples:
  ude discover hudson_bay.csv --time year \\
      --equation "hare' = a*hare + ?(hare, lynx)" \\
      --equation "lynx' = -d*lynx + ?(hare, lynx)" --out run1
  ude discover dose.csv --time hour --group patient -e "c' = dose - ?(c)" --positive c
\b
Exit codes: 0 done, 2 something given cannot be used, 130 interrupted (continue with --resume).
"""

path = click.Path(path_type=Path)
name_and_number = Assignment()


@click.command(epilog=EPILOG, context_settings={"max_content_width": 100})
@click.argument("table", metavar="DATA.csv", type=path)
@click.option("--time", required=True, metavar="COLUMN", help="Column of times: numbers, or dates 2020-01-31.")
@click.option("--equation", "-e", "equations", required=True, multiple=True, metavar="TEXT", help="x' = ...; repeat.")
@click.option("--group", metavar="COLUMN", help="Column that tells several trajectories apart.")
@click.option("--input", "inputs", multiple=True, metavar="COLUMN", help="Exogenous input, if not found by itself.")
@click.option("--hidden", multiple=True, type=name_and_number, help="State without a column, and where it starts.")
@click.option("--parameter", "parameters", multiple=True, type=name_and_number, help="Where a parameter starts (1).")
@click.option("--positive", multiple=True, metavar="NAME", help="State or parameter that is never negative.")
@click.option("--fixed-start", is_flag=True, help="Start at the first row instead of fitting the initial states.")
@click.option("--common-noise", is_flag=True, help="All states have noise of the same size.")
@click.option("--library", "libraries", multiple=True, type=click.Choice(LIBRARIES), help="Candidates [polynomial].")
@click.option("--degree", type=click.IntRange(1, 10), help="Largest degree of polynomial candidates [5 or less].")
@click.option("--max-terms", type=click.IntRange(1, 20), default=4, show_default=True, help="In one unknown term.")
@click.option("--strategy", type=click.Choice(STRATEGIES), help="How the networks are trained [collocation].")
@click.option("--replicates", type=click.IntRange(1, 1000), default=8, show_default=True, help="Networks at once.")
@click.option(
    "--bootstraps", type=click.IntRange(0, 10000), default=0, show_default=True, help="Resamples of the data."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of all random numbers.")
@click.option("--out", type=path, help="Folder for the report, the figures, the equations and the model.")
@click.option("--overwrite", is_flag=True, help="Replace the folder if it exists, once the new one is complete.")
@click.option("--resume", is_flag=True, help="Continue an interrupted run of the same command.")
@click.option("--quick", is_flag=True, help="A first look: fewer iterations.")
@click.option("--sort", is_flag=True, help="Sort the rows by time instead of refusing unordered ones.")
@click.option("--decimal", default=".", show_default=True, metavar="MARK", help="Decimal mark of the table.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
def discover(
    table: Path,
    time: str,
    group: str | None,
    out: Path | None,
    overwrite: bool,
    resume: bool,
    sort: bool,
    decimal: str,
    quiet: bool,
    debug: bool,
    **asked: Any,
) -> None:
    """Fit equations with unknown terms to the measurements in DATA.csv, and recover the terms."""
    with one_sentence(debug=debug):
        if out is not None:
            check_target(out, overwrite=overwrite)
        job = _job(table, **asked)
        data = _read(table, job, time, group, sort=sort, decimal=decimal)
        checkpoint = _checkpoint(table, out, resume=resume, overwrite=overwrite)
        _run(job, data, _source(table), out, checkpoint, overwrite=overwrite, resume=resume, quiet=quiet)


def _job(table: Path, parameters: Any, hidden: Any, **asked: Any) -> Job:
    """Collect the options; a name that has a column but no equation is an input."""
    job = Job(parameters=dict(parameters), hidden=dict(hidden), **asked)
    system = parse_equations(job.equations, job.inputs)
    columns = column_names(table)
    found = tuple(name for name in system.parameters if name in columns and name not in job.parameters)
    job = replace(job, inputs=(*job.inputs, *found))
    _check_unknowns(job, columns)
    return job


def _check_unknowns(job: Job, columns: tuple[str, ...]) -> None:
    """Refuse an unknown term of a name that means nothing else, which would silently be a parameter."""
    from sympy import Dummy
    from sympy.core.function import AppliedUndef

    system = parse_equations(job.equations, job.inputs)
    calls = [call for rhs in system.rhs for call in rhs.atoms(AppliedUndef)]
    outside = [rhs.xreplace(dict.fromkeys(calls, Dummy())) for rhs in system.rhs]
    elsewhere = {str(symbol) for rhs in outside for symbol in rhs.free_symbols} | {*job.parameters}
    for name in sorted({str(symbol) for call in calls for symbol in call.free_symbols}):
        if name in system.parameters and name not in elsewhere:
            raise InputError(
                f"An unknown term depends on {name!r}, which is neither a state nor a column."
                f"{suggest(name, [*system.states, *columns])} Give it an equation or a column."
            )


def _read(table: Path, job: Job, time: str, group: str | None, *, sort: bool, decimal: str) -> Trajectories:
    states = [state for state in job.system(time).states if state not in job.hidden]
    columns = column_names(table)
    known = {name.casefold() for name in columns}
    for state in states:
        if state.casefold() not in known:
            raise InputError(
                f"The state {state!r} has an equation but no column in {table.name!r}, whose columns are "
                f"{', '.join(columns[:20])}. Rename a column, or, if the state was never observed, say where it "
                f"starts: `--hidden {state}=1.0`."
            )
    return read_csv(
        table,
        time=time,
        states=states,
        inputs=job.inputs,
        hidden=tuple(job.hidden),
        group=group,
        sort=sort,
        decimal=decimal,
    )


def _checkpoint(table: Path, out: Path | None, *, resume: bool, overwrite: bool) -> Path | None:
    """Return where an interrupted run is kept: beside the folder of results, which exists only when complete."""
    place = Path(f"{table.stem}.checkpoint") if out is None else out.with_name(out.name + ".checkpoint")
    if place.exists() and not (resume or overwrite):
        raise InputError(
            f"An interrupted run was kept in {str(place)!r}. Continue it with `--resume`, or delete the file to start "
            "anew."
        )
    return place if os.access(place.absolute().parent, os.W_OK) else None


def _run(
    job: Job,
    data: Trajectories,
    source: Source,
    out: Path | None,
    checkpoint: Path | None,
    *,
    overwrite: bool,
    resume: bool,
    quiet: bool,
) -> None:
    say = (lambda _: None) if quiet else (lambda line: click.echo(f"{line} ...", err=True))
    try:
        run = run_job(
            job, data, checkpoint=checkpoint, resume=resume, progress=not quiet and sys.stderr.isatty(), say=say
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_continue(checkpoint)) from None
    # Shown before anything is written: a full disk does not take the result away.
    click.echo(summary(run))
    if out is not None:
        say("Writing the report")
        click.echo(f"\nReport: {write_report(out, run, source, overwrite=overwrite)}")
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)


def _how_to_continue(checkpoint: Path | None) -> str:
    if checkpoint is None or not checkpoint.exists():
        return "Nothing was kept, so start the command again."
    return f"The run so far is kept in {str(checkpoint)!r}. Continue with the same command and `--resume`."


def _source(table: Path) -> Source:
    with table.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return Source(name=table.name, command=_command(sys.argv[1:]), sha256=checksum)


def _command(words: list[str]) -> str:
    """Return the command as one would type it, an option per line."""
    kept = [word for word in words if word not in ("--resume", "--overwrite", "--quiet", "--debug")]
    quoted = [_quoted(word) for word in kept]
    return " ".join(["ude", *(f"\\\n    {word}" if word.startswith("-") else word for word in quoted)])


def _quoted(word: str) -> str:
    # Equations hold a prime: double quotes read better than what shlex makes of it.
    return f'"{word}"' if "'" in word and not set('"$`\\!') & set(word) else shlex.quote(word)
